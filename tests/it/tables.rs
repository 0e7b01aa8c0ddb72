//! Tables that a new row must keep whole: scenarios, boards, explanations of the log.

use cfdfu::app::log::explain;
use cfdfu::crazyflie::BOARDS;
use cfdfu::image::Content;
use cfdfu::job::{Event, Level};
use cfdfu::sim::images;
use cfdfu::sim::scenario::SCENARIOS;

use crate::cli::Folder;
use crate::support::{SEED_LEN, World, firmware, flash_job};

/// Every scenario can be typed, and a look at it and a flash of it each come to an end that a script understands.
#[test]
fn every_scenario_ends_identify_and_flash_with_an_outcome() {
    let folder = Folder::with_image();
    for scenario in SCENARIOS {
        for command in ["identify", "flash cf2.bin"] {
            let line = format!("{command} --demo={}", scenario.name);
            let ran = folder.json(&line);
            let objects = ran.objects();
            let last = objects.last().unwrap();
            let failed = last["outcome"] == "failed";
            assert_eq!(last["event"], "result", "{line}: {last}");
            assert_eq!(failed, !last["error"].is_null(), "{line}: {last}");
            assert_eq!(failed, ran.code != 0, "{line}: {last}");
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

/// Whoever presses Enter on a line of a plain flash learns something.
#[test]
fn every_line_of_a_plain_flash_is_explained() {
    let run = World::new("healthy").run(flash_job(&firmware("2026.08", SEED_LEN)));
    let mut explained = 0;
    for event in &run.events {
        if let Event::Log(level, entry) = event
            && *level > Level::Detail
        {
            assert!(explain(entry).is_some(), "{entry}");
            explained += 1;
        }
    }
    assert!(explained > 15, "{explained}");
}
