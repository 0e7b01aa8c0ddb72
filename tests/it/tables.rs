//! Checks tables where a new row may easily be incomplete: scenarios, boards, explanations of log lines.

use cfdfu::app::log::explain;
use cfdfu::crazyflie::BOARDS;
use cfdfu::image::Content;
use cfdfu::job::{Event, Level};
use cfdfu::sim::images;
use cfdfu::sim::scenario::SCENARIOS;

use crate::cli::Folder;
use crate::support::{SEED_LEN, World, firmware, flash_job};

#[test]
fn identify_and_flash_end_with_a_consistent_result_in_every_scenario() {
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

/// For a board without a platform, cfdfu could not suggest an image or recognise the platform of the board's own image.
#[test]
fn a_firmware_for_any_board_has_the_platform_of_that_board() {
    for board in BOARDS {
        let bytes = images::firmware("2026.08", &[(board.code, board.name)], images::FIRMWARE_MIN);
        let Content::Firmware(firmware) = Content::of(&bytes) else { panic!("{board:?}") };
        assert_eq!(firmware.platform(), Some(board.platform), "{board:?}");
        assert!(["cf2", "cf21bl", "bolt", "tag"].contains(&board.platform), "{board:?}");
    }
}

#[test]
fn every_log_line_of_an_ordinary_flash_has_an_explanation() {
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
