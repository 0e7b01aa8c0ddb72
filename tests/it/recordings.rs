//! Checks the files in `tests/recordings`: each recording can be parsed, names its source, and contains no block of
//! firmware, and the captures of dfu-util can be converted.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use cfdfu::recording::{self, Header, Line, Recorded, SetupWords, TransferResult, capture};
use serde_json::Value;

/// The largest number of data bytes that a recording may contain for one transfer. Longer data would be firmware.
const DATA_MAX: usize = 512;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings")
}

/// Returns the path and the text of every recording in this folder and its subfolders.
fn read_recordings(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            found.extend(read_recordings(&path));
        } else if path.extension().is_some_and(|extension| extension == "jsonl") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

fn parse(path: &Path, text: &str) -> Vec<Line> {
    recording::parse(text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the device, the duration in microseconds, and the result of a request, or `None` for any other line.
fn request(recorded: &Recorded) -> Option<(u32, u64, Option<&TransferResult>)> {
    match recorded {
        Recorded::In { device, took, result, .. }
        | Recorded::Out { device, took, result, .. }
        | Recorded::Packet { device, took, result, .. } => Some((*device, *took, Some(result))),
        Recorded::Select { device, took, .. } => Some((*device, *took, None)),
        Recorded::Open { device, .. } => Some((*device, 0, None)),
        _ => None,
    }
}

#[test]
fn every_recording_names_its_source_and_has_no_unknown_field() {
    let all = read_recordings(&folder());
    assert!(all.len() > 15, "{} recordings in {}", all.len(), folder().display());
    for (path, text) in all {
        let lines = parse(&path, &text);
        let name = path.display();
        let Recorded::Start(Header { program, system, scenario, redacted, .. }) = &lines[0].what else {
            panic!("{name}: the first line is not a start")
        };
        assert!(!program.is_empty() && !system.is_empty(), "{name}");
        // A file written by hand states what was added to its source.
        let published = path.parent().is_some_and(|parent| parent.ends_with("published"));
        assert_eq!(published, system == "published", "{name}");
        assert_eq!(published, program.contains(". From it: ") && program.contains(". Filled in: "), "{name}");
        assert!(
            published || *redacted || scenario.is_some(),
            "{name}: a real drone's recording is not redacted"
        );
        // The parser ignores unknown fields, for instance a misspelt `error`.
        for (line, text) in lines.iter().zip(text.lines()) {
            let (read, written): (Value, Value) =
                (serde_json::from_str(text).unwrap(), serde_json::to_value(line).unwrap());
            assert_eq!(read, written, "{name}");
        }
    }
}

#[test]
fn no_recording_contains_a_block_of_firmware() {
    for (path, text) in read_recordings(&folder()) {
        for line in parse(&path, &text) {
            let Some((_, _, Some(result))) = request(&line.what) else { continue };
            let has_data = result.data.is_some();
            assert!(!has_data || result.len() <= DATA_MAX, "{}: at {}", path.display(), line.at);
            assert!(!has_data || result.bytes.is_none(), "{}: data and bytes at {}", path.display(), line.at);
        }
    }
}

/// Requests to different devices may overlap, but requests to the same device may not.
#[test]
fn every_request_has_an_open_device_and_begins_after_the_previous_one() {
    for (path, text) in read_recordings(&folder()) {
        let mut ends: HashMap<u32, u64> = HashMap::new();
        for line in parse(&path, &text) {
            let Some((device, took, _)) = request(&line.what) else { continue };
            let name = path.display();
            let opens = matches!(line.what, Recorded::Open { .. });
            assert_eq!(opens, !ends.contains_key(&device), "{name}: device {device} at {}", line.at);
            let before = ends.insert(device, line.at + took).unwrap_or_default();
            assert!(line.at >= before, "{name}: the request at {} begins before {before}", line.at);
        }
    }
}

/// The requests of a published recording come from a single thread, so no line is out of order.
#[test]
fn the_times_of_a_published_recording_never_go_backwards() {
    for (path, text) in read_recordings(&folder().join("published")) {
        let lines = parse(&path, &text);
        assert!(lines.is_sorted_by_key(|line| line.at), "{}", path.display());
    }
}

/// dfu-util flashed the simulated drone in a virtual machine, and the transfers were captured in two formats.
#[test]
fn captures_of_the_real_dfu_util_are_converted() {
    let converted = |name: &str| capture::parse(&fs::read(folder().join(name)).unwrap()).unwrap();
    let binary = converted("dfu-util-linux.pcap");

    // The text capture contains the same transfers, but less of their data.
    let text = converted("dfu-util-linux.usbmon.txt");
    let outlines = |lines: &[Line]| -> Vec<String> {
        let outline = |line: &Line| match &line.what {
            Recorded::In { device, setup, length, result, .. } => {
                format!("in {device} {} {length} {} {:?}", String::from(*setup), result.len(), result.error)
            }
            Recorded::Out { device, setup, result, .. } => {
                format!("out {device} {} {} {:?}", String::from(*setup), result.len(), result.error)
            }
            Recorded::Select { device, interface, alternate, .. } => {
                format!("select {device} {interface} {alternate}")
            }
            Recorded::Packet { device, endpoint, result, .. } => {
                format!("packet {device} {endpoint} {} {:?}", result.len(), result.error)
            }
            Recorded::Devices { devices } => format!("{devices:?}"),
            Recorded::Open { device, address, .. } => format!("open {device} {address}"),
            Recorded::Start(_) | Recorded::NoDevices { .. } | Recorded::Wait { .. } | Recorded::Truncated => {
                String::new()
            }
        };
        lines.iter().map(outline).collect()
    };
    assert_eq!(outlines(&text), outlines(&binary));

    // The image consists of nine blocks of 2048 bytes and one block of 1568 bytes.
    let blocks = binary.iter().filter(|line| match &line.what {
        Recorded::Out { setup: SetupWords(setup), result, .. } => setup.value >= 2 && result.sha256.is_some(),
        _ => false,
    });
    assert_eq!(blocks.count(), 10);
}
