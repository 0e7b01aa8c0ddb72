//! Tests recordings with the real binary: the files that `--record` writes, and the answers of `--demo=replay:FILE`.
//! Replays every file below `tests/recordings`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use cfdfu::clock::FastClock;
use cfdfu::job::Outcome;
use cfdfu::recording::recorder::{RecordedBus, RecordedClock, Recorder};
use cfdfu::recording::tape::Tape;
use cfdfu::recording::{self, Header};
use cfdfu::sim::scenario::Scenario;

use crate::cli::{Folder, Ran};
use crate::support::{firmware, flash_job, run};

const IMAGE: &str = "small.bin";

/// Creates a folder with a small image, which keeps the recordings short.
fn folder() -> Folder {
    let folder = Folder::new();
    folder.run(&format!("demo-image {IMAGE} --size 20000")).success();
    folder
}

fn record(folder: &Folder, command: &str, scenario: &str) -> Ran {
    folder.run(&format!("{command} --demo={scenario} --record {scenario}.jsonl"))
}

fn replay(folder: &Folder, command: &str, file: &str) -> Ran {
    folder.run(&format!("{command} --demo=replay:{file}"))
}

/// Replaying a flash gives the same result as recording it. The recording contains every request, and the simulated
/// drone agrees with the recorded answers.
#[test]
fn a_replayed_flash_ends_like_the_recorded_one() {
    let folder = folder();
    let command = format!("flash {IMAGE}");
    for scenario in [
        "healthy",
        "dfu",
        "erased",
        "dark",
        "missed",
        "byte-mode",
        "no-effect",
        "slow",
        "overwritten",
        "no-serial",
        "write-protected",
        "read-protected",
        "wrong-board",
        "blank-otp",
        "restarting",
        "bad-deck",
        "old",
        "two",
        "twins",
        "clone",
        "other-chip",
        "px4",
        "nameless",
        "hung-start",
    ] {
        let recorded = record(&folder, &command, scenario);
        let replayed = replay(&folder, &command, &format!("{scenario}.jsonl"));
        assert_eq!(replayed.code, recorded.code, "{scenario}: {}{}", replayed.out, replayed.err);
        assert_eq!(replayed.out, recorded.out, "{scenario}: {}", replayed.err);
        let summary: Vec<&str> =
            replayed.err.lines().skip_while(|line| !line.starts_with("Replay: ")).collect();
        let counts: Vec<&str> = summary[0].split(' ').collect();
        assert_eq!(counts[1], counts[3], "{scenario}: {summary:?}");
        let others = summary[1..].iter().filter(|line| !line.starts_with("In the recording, but not sent"));
        assert_eq!(others.collect::<Vec<_>>(), Vec::<&&str>::new(), "{scenario}");
    }
}

/// A resumed job produces a single recording, in which the drone disappears and returns.
#[test]
fn an_interrupted_flash_is_recorded_and_replayed_as_a_whole() {
    let folder = folder();
    let command = format!("flash {IMAGE} --wait 20");
    let recorded = record(&folder, &command, "unplugged");
    assert_eq!(recorded.code, 0, "{}{}", recorded.out, recorded.err);
    let replayed = replay(&folder, &command, "unplugged.jsonl");
    assert_eq!(replayed.code, 0, "{}{}", replayed.out, replayed.err);
    assert!(replayed.out.contains("Ready to fly!"), "{}", replayed.out);
}

/// cfdfu reports the error, and the summary names the line of the recording.
#[test]
fn one_flipped_bit_in_a_status_is_reported() {
    let folder = folder();
    record(&folder, &format!("flash {IMAGE} --no-leave"), "dfu").success();
    let text = fs::read_to_string(folder.path("dfu.jsonl")).unwrap();
    // Find the dfuDNBUSY status of an erase. The next status is OK in dfuDNLOAD-IDLE; flipping one bit of this status
    // turns OK into errTARGET.
    let lines: Vec<&str> = text.lines().collect();
    let busy = lines.iter().position(|line| line.contains(r#""data":"006400000400""#)).unwrap();
    let at = busy + 1;
    assert!(lines[at].contains(r#""data":"000000000500""#), "{}", lines[at]);
    let mut damaged: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    damaged[at] = damaged[at].replace("000000000500", "010000000500");
    folder.write_file("damaged.jsonl", damaged.join("\n"));
    let replayed = replay(&folder, &format!("flash {IMAGE} --no-leave"), "damaged.jsonl");
    let expected =
        format!("line {}: get the status: 01 00 00 00 05 00, simulated: 00 00 00 00 05 00", at + 1);
    assert!(replayed.err.contains(&expected), "{expected:?} is not in:\n{}", replayed.err);
    assert!(replayed.combined_output().contains("errTARGET"), "{}", replayed.combined_output());
}

/// The simulated drone answers the requests that the recording does not contain.
#[test]
fn the_summary_names_requests_that_are_not_in_the_recording() {
    let folder = folder();
    record(&folder, "identify", "dfu").success();
    let replayed = replay(&folder, &format!("flash {IMAGE} --no-leave"), "dfu.jsonl");
    assert_eq!(replayed.code, 0, "{}{}", replayed.out, replayed.err);
    for text in ["Not in the recording, so answered by the simulated drone: ", ": erase at 0x08004000"] {
        assert!(replayed.err.contains(text), "{text:?} is not in:\n{}", replayed.err);
    }
}

#[test]
fn a_redacted_recording_contains_no_serial_number_and_can_be_replayed() {
    let folder = folder();
    let command = format!("flash {IMAGE}");
    folder.run(&format!("{command} --demo --record redacted.jsonl --redact")).success();
    let text = fs::read_to_string(folder.path("redacted.jsonl")).unwrap().to_lowercase();
    let utf16 = |serial: &str| {
        let units: Vec<String> = serial.bytes().map(|byte| format!("{byte:02x}00")).collect();
        units.concat()
    };
    for serial in ["51004F000551343036333233", "338133873034"] {
        for secret in [serial.to_lowercase(), utf16(serial)] {
            assert!(!text.contains(&secret), "{secret} is in the recording");
        }
    }
    let replayed = replay(&folder, &command, "redacted.jsonl");
    assert_eq!(replayed.code, 0, "{}{}", replayed.out, replayed.err);
    assert!(replayed.out.contains("Flashed and verified"), "{}", replayed.out);
}

#[test]
fn a_recording_is_never_overwritten_and_an_empty_one_is_removed() {
    let folder = folder();
    folder.write_file("mine.jsonl", b"mine");
    let refused = folder.run("list --demo --record mine.jsonl");
    assert_eq!(refused.code, 73, "{}", refused.err);
    assert_eq!(fs::read(folder.path("mine.jsonl")).unwrap(), b"mine");
    folder.run(&format!("inspect {IMAGE} --record none.jsonl")).success();
    assert!(!folder.path("none.jsonl").exists());
}

/// The recording of a flash is short.
#[test]
fn blocks_of_firmware_are_recorded_as_hashes() {
    let folder = Folder::with_image();
    folder.run("flash cf2.bin --demo=dfu --record flash.jsonl").success();
    let text = fs::read_to_string(folder.path("flash.jsonl")).unwrap();
    assert!(text.lines().all(|line| line.len() < 1300), "a line is too long");
    assert!(text.len() < 250_000, "{} bytes", text.len());
    let hashed = text.lines().filter(|line| line.contains(r#""sha256":"#)).count();
    assert!(hashed > 240, "{hashed} blocks");
}

/// The error message names the line or the problem.
#[test]
fn malformed_recordings_are_refused() {
    let folder = folder();
    let start = r#"{"at":0,"event":"start","recording":1,"program":"p","system":"s"}"#;
    let table = [
        ("", "it is empty"),
        ("{}", "line 1: "),
        (r#"{"at":0,"event":"start","recording":9,"program":"p","system":"s"}"#, "version 9"),
        (r#"{"at":0,"event":"wait","took":1}"#, "line 1 is not the start of a recording"),
        (start, "it contains no device"),
        (
            &format!("{start}\n{{\"at\":1,\"event\":\"open\",\"device\":0,\"port\":\"x\",\"address\":1}}"),
            "line 2: ",
        ),
        (&format!("{start}\nnot json"), "line 2: "),
    ];
    for (text, message) in table {
        folder.write_file("bad.jsonl", text);
        let ran = replay(&folder, "list", "bad.jsonl");
        assert_eq!(ran.code, 65, "{text}: {}", ran.err);
        assert!(ran.err.contains(message), "{message:?} is not in {}", ran.err);
    }
    let ran = replay(&folder, "list", "missing.jsonl");
    assert_eq!(ran.code, 66, "{}", ran.err);
}

/// Compares the simulator's recordings in `tests/recordings` with new ones. `UPDATE=1` rewrites them.
#[test]
fn the_recordings_of_the_simulator_are_current() {
    for scenario in ["healthy", "missed", "dark"] {
        let clock = Arc::new(FastClock::new());
        let bus = Scenario::by_name(scenario).unwrap().bus(clock.clone());
        let tape = Arc::new(Mutex::new(Tape::default().to_memory()));
        let header = Header {
            recording: recording::VERSION,
            program: "cfdfu, with its simulated drone".to_owned(),
            system: "simulated".to_owned(),
            scenario: Some(scenario.to_owned()),
            redacted: false,
        };
        let recorder = Recorder::start(clock.clone(), header, Arc::clone(&tape));
        let recorded_clock = Arc::new(RecordedClock::new(clock, Arc::clone(&recorder)));
        let image = firmware("2026.08", 4096);
        let job = flash_job(&image);
        let report = run(Arc::new(RecordedBus::new(bus, recorder)), recorded_clock, job).report;
        assert_eq!(report.outcome, Outcome::Flashed, "{scenario}");
        let text = tape.lock().unwrap().text();
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("tests/recordings/simulated-{scenario}.jsonl"));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &text).unwrap();
        }
        assert!(
            fs::read_to_string(&path).unwrap() == text,
            "{scenario}: the recording is out of date; UPDATE=1 rewrites it"
        );
    }
}

fn find_recordings(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries
        .flat_map(|path| if path.is_dir() { find_recordings(&path) } else { vec![path] })
        .filter(|path| {
            path.extension().is_some_and(|ext| ["jsonl", "txt", "pcap", "pcapng"].iter().any(|e| ext == *e))
        })
        .collect();
    files.sort();
    files
}

/// Every recording in the repository is replayed with two commands that only read and one that writes. The result
/// depends on the device, but no command may crash.
#[test]
fn every_recording_in_the_repository_can_be_replayed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let files = find_recordings(&root);
    assert!(files.len() >= 10, "{files:?}");
    let folder = folder();
    for file in files {
        for command in ["list", "identify", &format!("flash {IMAGE} --allow-mismatch --no-undo")] {
            let ran = replay(&folder, command, &file.to_string_lossy());
            let known = [0, 65, 69, 74, 75, 76, 77].contains(&ran.code);
            assert!(known, "{command} {}: {}{}{}", file.display(), ran.code, ran.out, ran.err);
            assert!(ran.err.contains("Replay: "), "{command} {}: {}", file.display(), ran.err);
        }
    }
}
