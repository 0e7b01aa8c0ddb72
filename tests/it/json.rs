//! Checks `--json` against `docs/json.schema.json`: every line that a command prints is valid, and the last line is the
//! result of the command or, if it runs on several drones, of the batch.

use std::collections::BTreeSet;

use cfdfu::sim::images;
use serde_json::Value;
use zip::CompressionMethod;

use crate::cli::Folder;
use crate::files::release;
use crate::github::GitHub;
use crate::support::{SEED_LEN, firmware};

const SCHEMA: &str = include_str!("../../docs/json.schema.json");

/// A command that runs with an address on which no server listens, so that its request fails.
const UNREACHABLE: &str = "fetch 2025.01 --board cf2";

/// Every command except `simulate`, which needs root: with arguments that make it succeed, arguments that make it fail,
/// or both. `{}` is replaced with each scenario in turn.
const LINES: &[&str] = &[
    "flash cf2.bin --demo={}",
    "identify --demo={}",
    "flash cf2.bin --demo=fleet --all",
    "flash cf2.bin --demo=none --all",
    "flash cf2.bin bl.bin --demo=fleet --all --expect 9 --report r.csv",
    "flash cf2.bin cf2.bin --demo=fleet --all",
    "flash cf2.bin --demo=fleet --all --strict",
    "undo --demo=two --all",
    "flash cf2.bin bl.bin --demo",
    "identify --demo=fleet --all",
    "blink --demo",
    "blink --demo=dfu",
    "blink --demo=fleet --all",
    "station cf2.bin --demo=fleet --yes --count 7",
    "verify cf2.bin --demo=fleet --all",
    "backup backups --demo=two --all",
    "backup missing/folder --demo=two --all",
    "identify --demo=two --device 1-1 --device 1-2",
    "list --demo={}",
    "verify cf2.bin --demo=dfu",
    "verify cf2.bin --demo=none",
    "backup mine.bin --demo",
    "backup missing/mine.bin --demo",
    "restore-bootloader loader.bin --firmware cf2.bin --demo=overwritten",
    "restore-bootloader cf2.bin --demo=dfu",
    "undo --demo",
    "inspect cf2.bin",
    "inspect loader.bin",
    "inspect noise.bin",
    "inspect cut.bin",
    "flash cut.bin --demo",
    "flash cf2.bin --demo --sha256 0000000000000000000000000000000000000000000000000000000000000000",
    "inspect missing.bin",
    "flash noise.bin --demo",
    "flash cf2.bin --demo --no-enter",
    "flash cf2.bin --demo --address 0x08000000",
    "flash bolt.bin --demo",
    "qualify --demo=dfu",
    "qualify --demo=none --report none.md",
    "list --demo=replay:missing.jsonl",
    "recording cf2.bin",
    "doctor --demo",
    "doctor --demo=none",
    "udev",
    "udev --check --demo",
    "releases",
    "releases --pre --refresh",
    "fetch --board cf2",
    "fetch --board cf21bl",
    "fetch 2024.01 --board cf2 --offline",
    "flash --release latest --demo=dfu",
    "flash --release latest --demo=none",
    "fetch --board bolt",
    "fetch --board tag",
    "releases --forget",
    UNREACHABLE,
    "completions bash",
    "man",
    "demo-image new.bin",
    "demo-image cf2.bin",
    "console --demo={} --for 3",
    "console 1-1 --demo --for 2",
    "--demo=help",
    "--demo",
    "flash",
    "flash cf2.bin --demo=nonsense",
    "flash cf2.bin --demo --log-file missing/log",
    "flsh cf2.bin",
];

#[test]
fn every_command_prints_documented_json_and_ends_with_its_result() {
    let folder = Folder::with_image();
    folder.write_file("bolt.bin", images::firmware("2026.08", &[("CB10", "Crazyflie Bolt")], SEED_LEN));
    folder
        .write_file("bl.bin", images::firmware("2026.08", &[("C21B", "Crazyflie 2.1 Brushless")], SEED_LEN));
    folder.write_file("loader.bin", images::loader());
    folder.write_file("noise.bin", [1, 2, 3]);
    std::fs::create_dir(folder.path("backups")).unwrap();
    folder.write_file("cut.bin", &firmware("2026.08", SEED_LEN)[..200_000]);
    let github = GitHub::new();
    github.add_firmware(
        "2026.08",
        "cf2",
        release("cf2", &firmware("2026.08", SEED_LEN), CompressionMethod::Stored),
    );
    github.add_firmware("2026.08", "bolt", b"no image".to_vec());
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let mut seen = BTreeSet::new();
    let scenarios = cfdfu::sim::scenario::SCENARIOS.iter().map(|scenario| scenario.name);
    let expand = |line: &&str| -> Vec<String> {
        if line.contains("{}") {
            scenarios.clone().map(|name| line.replace("{}", name)).collect()
        } else {
            vec![(*line).to_owned()]
        }
    };
    for line in LINES.iter().flat_map(expand) {
        let url = if line == UNREACHABLE { "http://127.0.0.1:9" } else { &github.address };
        let ran = folder.cfdfu(&line).arg("--json").fast().env("CFDFU_RELEASES_URL", url);
        let ran = ran.env("XDG_CACHE_HOME", folder.path("cache")).run();
        let objects = ran.objects();
        // Each line starts with its event, as documented, so that you can search for an event.
        assert!(ran.out.lines().all(|text| text.starts_with(r#"{"event":""#)), "{line}: {}", ran.out);
        for object in &objects {
            let event = object["event"].as_str().unwrap_or_default().to_owned();
            // Validate against the schema of this event only, because the error message is then more specific.
            let parts = schema["oneOf"].as_array().unwrap();
            let part = parts.iter().find(|part| part["properties"]["event"]["const"] == *event);
            let part = part.unwrap_or_else(|| panic!("{line}: undocumented event: {object}"));
            if let Err(error) = jsonschema::validate(part, object) {
                panic!("{line}: {error} in {object}");
            }
            assert!(validator.is_valid(object), "{line}: {object}");
            seen.insert(event);
        }
        let last = objects.last().unwrap();
        let results = objects.iter().filter(|object| object["event"] == "result").count();
        if last["event"] == "batch" {
            assert_eq!(last["drones"], results, "{line}: {}", ran.out);
            assert_eq!(last["exit"], ran.code, "{line}: {}", ran.out);
            continue;
        }
        assert_eq!((results, &last["event"]), (1, &"result".into()), "{line}: {}", ran.out);
        let failed = last["outcome"] == "failed";
        assert_eq!(failed, ran.code != 0, "{line}: {}", ran.out);
    }
    for part in schema["oneOf"].as_array().unwrap() {
        let event = part["properties"]["event"]["const"].as_str().unwrap();
        assert!(seen.contains(event), "{event:?} is documented but was never printed");
    }
}
