//! Tests `cfdfu qualify`, mostly with the real binary: for each variant of the simulated chip, the report names the
//! assumptions that do not hold, and the previous contents of the flash are restored.

use std::fs;

use cfdfu::job::trial::Trial;
use cfdfu::job::{Event, Job, Task};
use cfdfu::qualify::{Assumption, Verdict, judge};
use cfdfu::sim::drone::SimDrone;
use cfdfu::sim::rom::Switch;

use crate::cli::{Folder, Ran};
use crate::support::World;

const IMAGE: &str = "small.bin";

/// Qualifies the drone of a scenario with an image, and types the word that confirms the run.
fn qualify(scenario: &str) -> (Folder, Ran) {
    let folder = Folder::new();
    folder.run(&format!("demo-image {IMAGE} --size 20000")).success();
    let line = format!("qualify {IMAGE} --demo={scenario} --report report.md");
    let ran = folder.cfdfu(&line).fast().input("qualify\n").run();
    (folder, ran)
}

/// Returns the assumption and the observation in each row of the report with this verdict.
fn rows(report: &str, verdict: &str) -> Vec<(String, String)> {
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows = report.lines().map(cells).filter(|cells| cells.len() > 4 && cells[2] == verdict);
    rows.map(|cells| (cells[1].clone(), cells[3].clone())).collect()
}

/// Variants of the chip, each with the assumptions that do not hold and the beginnings of the observations. The other
/// assumptions hold or are not seen; in all cases, the previous contents of the flash are restored.
const VARIANTS: &[(&str, &[(&str, &str)])] = &[
    ("healthy", &[]),
    ("missed", &[("The first request always puts the drone into DFU mode", "18 of 19 on the first request")]),
    ("dark", &[("Leaving DFU mode starts the firmware", "not on USB")]),
    (
        "byte-mode",
        &[
            ("The ROM accepts 32 bits, and the setting can be read back", "refused"),
            ("After entry by hand, leaving DFU mode does not start the firmware", "running after"),
        ],
    ),
    (
        "no-effect",
        &[
            ("At 32 bits, writing 2048 bytes takes less than 22 ms", "37.2 ms at 8 bits, 37.2 ms at 32 bits"),
            ("At 32 bits, an erase is at least a quarter faster", "1852 ms at 8 bits, 1852 ms at 32 bits"),
            ("After entry by hand, leaving DFU mode does not start the firmware", "running after"),
        ],
    ),
    (
        "slow",
        &[
            ("Writing 2048 bytes at 8 bits takes 28 to 100 ms", "209 ms"),
            ("At 32 bits, writing 2048 bytes takes less than 22 ms", "209 ms at 8 bits, 55.6 ms at 32 bits"),
            ("After entry by hand, leaving DFU mode does not start the firmware", "running after"),
        ],
    ),
];

#[test]
fn the_report_names_the_assumptions_that_do_not_hold_on_each_chip_variant() {
    for (scenario, expected) in VARIANTS {
        let (folder, ran) = qualify(scenario);
        assert_eq!(ran.code, 0, "{scenario}: {}{}", ran.out, ran.err);
        let report = fs::read_to_string(folder.path("report.md")).unwrap();
        let failed = rows(&report, "does not hold");
        let names: Vec<&str> = failed.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            expected.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            "{scenario}:\n{report}"
        );
        for ((name, seen), (_, start)) in failed.iter().zip(*expected) {
            assert!(seen.starts_with(start), "{scenario}: {name}: {seen}");
        }
        let held = rows(&report, "holds");
        let back = "The previous contents are restored byte for byte";
        assert!(held.iter().any(|(name, _)| name == back), "{scenario}:\n{report}");
        assert!(report.contains("SIMULATED"), "{report}");
        // The backup contains the whole flash, and the recording can be replayed.
        assert_eq!(fs::read(folder.path("report.bin")).unwrap().len(), 1024 * 1024);
        let replayed = folder.run("list --demo=replay:report.jsonl").combined_output();
        assert!(replayed.contains("Replay: "), "{replayed}");
    }
}

/// Without an image, cfdfu writes nothing and does not ask for confirmation.
#[test]
fn without_an_image_the_drone_is_only_read() {
    let folder = Folder::new();
    folder.run("qualify --demo=dfu").success();
    let recording = fs::read_to_string(folder.path("cfdfu-qualify.jsonl")).unwrap();
    // The first data block of every write is block 2. A DNLOAD of block 0 that begins with 0x41 erases.
    assert!(!recording.contains(r#""setup":"21 01 0002"#), "{recording}");
    assert!(!recording.contains(r#""data":"41"#), "{recording}");
    let report = fs::read_to_string(folder.path("cfdfu-qualify.md")).unwrap();
    assert_eq!(rows(&report, "does not hold"), [], "{report}");
    assert!(rows(&report, "holds").len() >= 10, "{report}");
    // A second run does not replace the report of the first run.
    assert_eq!(folder.run("qualify --demo=dfu").code, 73);
}

/// Nothing is written unless the user types the word. The report still contains what was read.
#[test]
fn a_wrong_word_ends_the_run_before_anything_is_written() {
    let folder = Folder::new();
    folder.run(&format!("demo-image {IMAGE} --size 20000")).success();
    let ran = folder.cfdfu(&format!("qualify {IMAGE} --demo=dfu")).fast().input("yes\n").run();
    assert_eq!(ran.code, 75, "{}{}", ran.out, ran.err);
    let report = fs::read_to_string(folder.path("cfdfu-qualify.md")).unwrap();
    assert!(report.contains("The run ended early: not confirmed"), "{report}");
    assert!(!folder.path("cfdfu-qualify.bin").exists());
}

#[test]
fn qualify_fails_like_other_commands_if_the_drone_cannot_be_used() {
    let (_, ran) = qualify("wrong-board");
    assert_eq!(ran.code, 65, "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("Crazyflie Bolt"), "{}", ran.err);
    let (folder, ran) = qualify("clone");
    assert_eq!(ran.code, 69, "{}{}", ran.out, ran.err);
    assert!(!folder.path("report.md").exists());
    let (folder, ran) = qualify("read-protected");
    assert_eq!(ran.code, 74, "{}{}", ran.out, ran.err);
    let report = fs::read_to_string(folder.path("report.md")).unwrap();
    let seen = &rows(&report, "does not hold")[0].1;
    assert!(seen.contains("errVENDOR"), "{report}");
    // The drone does not enter DFU mode in time, so no further assumption can be tested.
    let (folder, ran) = qualify("late");
    assert_eq!(ran.code, 74, "{}{}", ran.out, ran.err);
    let report = fs::read_to_string(folder.path("report.md")).unwrap();
    let expected = [
        ("The first request always puts the drone into DFU mode", "0 of 1 on the first request"),
        ("The drone is in DFU mode within 2 s", ""),
    ];
    assert_eq!(
        rows(&report, "does not hold"),
        expected.map(|(name, seen)| (name.into(), seen.into())),
        "{report}"
    );
    let (_, ran) = qualify("unplugged");
    assert_eq!(ran.code, 74, "{}{}", ran.out, ran.err);
}

/// Covers a drone that is lost while its last sector contains test data, drones that are refused, and a drone without
/// firmware to restore. On the refused drones, nothing is erased.
#[test]
fn the_report_states_what_remains_on_the_drone() {
    let (folder, ran) = qualify("unplugged");
    assert_eq!(ran.code, 74, "{}{}", ran.out, ran.err);
    let report = fs::read_to_string(folder.path("report.md")).unwrap();
    for text in [&report, &ran.err] {
        assert!(text.contains("the last sector of the flash may contain test"), "{text}");
        assert!(!text.contains("Nothing was changed"), "{text}");
    }
    for (scenario, code) in
        [("foreign", 65), ("write-protected", 74), ("unknown-board", 65), ("no-serial", 74)]
    {
        let (folder, ran) = qualify(scenario);
        assert_eq!(ran.code, code, "{scenario}: {}{}", ran.out, ran.err);
        let recording = fs::read_to_string(folder.path("report.jsonl")).unwrap();
        assert!(!recording.contains(r#""data":"41"#), "{scenario}: a sector was erased");
    }
    let (folder, ran) = qualify("erased");
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let report = fs::read_to_string(folder.path("report.md")).unwrap();
    assert!(report.contains("none was flashed"), "{report}");
    assert!(report.contains("| The previous contents are restored byte for byte | holds |"), "{report}");
}

/// The report must not have the same name as the recording or the backup. A run without a drone must not leave a
/// recording that would block the next run.
#[test]
fn the_report_the_recording_and_the_backup_do_not_conflict() {
    let folder = Folder::new();
    for name in ["x.bin", "x.jsonl", "x/"] {
        assert_eq!(folder.run(&format!("qualify --demo=dfu --report {name}")).code, 2, "{name}");
    }
    assert_eq!(folder.run("qualify --demo=none").code, 69);
    folder.run("qualify --demo=dfu").success();
}

/// Covers variants of the chip that no scenario provides.
#[test]
fn only_the_expected_assumptions_fail_on_chip_variants_without_a_scenario() {
    type Change = fn(&mut SimDrone);
    let table: [(&str, Change, &[Assumption]); 7] = [
        ("as documented", |_| {}, &[]),
        ("alternates", |drone| drone.traits.refuses_alternates = true, &[Assumption::SetInterface]),
        ("write-only width", |drone| drone.traits.switch = Switch::WriteOnly, &[Assumption::WidthAccepted]),
        ("low supply", |drone| drone.traits.switch = Switch::LowSupply, &[Assumption::Verifies]),
        ("hidden version", |drone| drone.memory.rom_version = 0, &[Assumption::RomVersion]),
        ("stalls while busy", |drone| drone.traits.stalls_while_busy = true, &[Assumption::EarlyStatus]),
        ("starts idle", |drone| drone.traits.starts_idle = true, &[]),
    ];
    for (name, change, expected) in table {
        let world = World::new("dfu");
        world.bus.with(0, |drone, now| {
            change(drone);
            // Some traits take effect only when the simulated ROM starts, so restart the drone.
            drone.cut_power(now);
            drone.power_on_by_hand(now);
        });
        let before = world.flash();
        let mut measured = Vec::new();
        for trial in [Trial::Read, Trial::Write] {
            for event in world.run(Job::new(Task::Try(trial))).events {
                if let Event::Measured(measurement) = event {
                    measured.push(*measurement);
                }
            }
        }
        let findings = judge(&measured);
        let failed = findings.iter().filter(|finding| finding.verdict == Verdict::DoesNotHold);
        let failed: Vec<Assumption> = failed.map(|finding| finding.assumption).collect();
        assert_eq!(failed, expected, "{name}: {findings:#?}");
        assert!(world.flash() == before, "{name}: the flash has changed");
    }
}
