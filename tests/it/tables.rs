//! Tables that a new row must keep whole: scenarios, boards, explanations of the log.

use std::fs;
use std::sync::Arc;

use assert_cmd::Command;
use cfdfu::app::log::{EXPLANATIONS, explain};
use cfdfu::crazyflie::BOARDS;
use cfdfu::image::Content;
use cfdfu::job::{Event, Job, Width};
use cfdfu::sim::images;
use cfdfu::sim::scenario::SCENARIOS;
use cfdfu::usb::Setup;
use cfdfu::usb::fault::{Fault, Faults, Faulty, Script};
use serde_json::Value;

use crate::support::{SEED_LEN, World, firmware, flash_job, restore_job, run, with};

/// Every scenario can be typed, and a look at it and a flash of it each come to an end that a script understands.
#[test]
fn every_scenario_ends_identify_and_flash_with_an_outcome() {
    let desk = tempfile::tempdir().unwrap();
    fs::write(desk.path().join("cf2.bin"), firmware("2026.08", SEED_LEN)).unwrap();
    for scenario in SCENARIOS {
        for command in [&["identify"][..], &["flash", "cf2.bin"]] {
            let demo = format!("--demo={}", scenario.name);
            let mut cfdfu = Command::cargo_bin("cfdfu").unwrap();
            let output = cfdfu
                .current_dir(&desk)
                .args(command)
                .args([&demo, "--demo-fast", "--json"])
                .output()
                .unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let last: Value = serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap();
            let failed = last["outcome"] == "failed";
            assert_eq!(last["event"], "result", "{command:?} {demo}: {last}");
            assert_eq!(failed, !last["error"].is_null(), "{command:?} {demo}: {last}");
            assert_eq!(failed, output.status.code() != Some(0), "{command:?} {demo}: {last}");
        }
    }
}

/// A board without a platform would be offered no image, and its own would be of no known platform.
#[test]
fn a_firmware_for_any_board_is_of_that_board_s_platform() {
    for board in BOARDS {
        let bytes = images::firmware("2026.08", &[(board.code, board.name)], images::FIRMWARE_MIN);
        let Content::Firmware(firmware) = Content::of(&bytes) else { panic!("{board:?}") };
        assert_eq!(firmware.platform(), Some(board.platform), "{board:?}");
        assert!(["cf2", "cf21bl", "bolt", "tag"].contains(&board.platform), "{board:?}");
    }
}

/// A line of the log that was reworded would lose its explanation without a word.
#[test]
fn every_explanation_is_for_a_line_that_occurs() {
    let image = firmware("2026.08", images::FIRMWARE_MIN);
    let flash = || flash_job(&image);
    let bytewise: Job = with(flash(), |task| task.width = Width::Byte);
    let restore = restore_job(&images::loader(), None);
    let mut lines = Vec::new();
    for (scenario, job) in [("healthy", flash()), ("dfu", bytewise), ("overwritten", restore)] {
        lines.extend(log(&World::new(scenario).run(job).events));
    }
    // A lost answer.
    let world = World::new("dfu");
    let faults = Faults::new(Some(Script { at: 40, fault: Fault::Timeout }), || {});
    let bus = Faulty::new(world.bus.clone(), faults);
    lines.extend(log(&run(Arc::new(bus), world.clock.clone(), flash()).events));
    // An address that is no memory, which another program set before.
    let world = World::new("dfu");
    world.bus.with(0, |drone, now| {
        let set_address = Setup { request_type: 0x21, request: 1, value: 0, index: 0 };
        let get_status = Setup { request_type: 0xA1, request: 3, value: 0, index: 0 };
        let clear_status = Setup { request_type: 0x21, request: 4, value: 0, index: 0 };
        drone.control(clear_status, 0, &[], now);
        drone.control(set_address, 5, &[0x21, 0, 0, 0, 0xE0], now);
        (0..2).for_each(|_| drop(drone.control(get_status, 6, &[], now)));
    });
    lines.extend(log(&world.run(flash()).events));
    // These two are the shell's, which adds them to the same log.
    lines.push("Kept what was there: /home/student/copy.bin".to_owned());
    lines.extend(["Plan: 4096 bytes", "On the drone: firmware", "Using 1-1"].map(str::to_owned));
    for (words, text) in EXPLANATIONS {
        let line = lines.iter().find(|line| explain(line) == *text);
        assert!(line.is_some_and(|line| line.contains(words)), "{words:?} explains no line of:\n{lines:#?}");
    }
}

/// Whoever presses Enter on a line of a plain flash learns something.
#[test]
fn every_line_of_a_plain_flash_is_explained() {
    let run = World::new("healthy").run(flash_job(&firmware("2026.08", SEED_LEN)));
    for line in log(&run.events) {
        let at_detail =
            ["Time line", "Written in"].iter().any(|words| line.contains(words)) || line.contains(" s  ");
        assert!(at_detail || explain(&line) != explain(""), "{line:?}");
    }
}

fn log(events: &[Event]) -> Vec<String> {
    let line = |event: &Event| match event {
        Event::Log(_, text) => Some(text.clone()),
        _ => None,
    };
    events.iter().filter_map(line).collect()
}
