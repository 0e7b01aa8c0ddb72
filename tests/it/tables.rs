//! Checks tables in which a new row could easily be incomplete: scenarios, symptoms, boards, explanations of log lines,
//! and kinds of problems.

use std::fs;
use std::path::Path;

use cfdfu::app::log::explain;
use cfdfu::crazyflie::BOARDS;
use cfdfu::crazyflie::symptoms::{Leds, SYMPTOMS, Symptom};
use cfdfu::image::Content;
use cfdfu::job::{Event, Level};
use cfdfu::sim::images;
use cfdfu::sim::scenario::SCENARIOS;
use serde_json::Value;

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

/// The tables of symptoms in the documentation match the wizard and the help. `UPDATE=1` updates the documentation.
#[test]
fn the_documentation_lists_the_symptoms_of_the_wizard_and_the_help() {
    let row = |row: &Symptom, with_usb: bool| {
        let usb = if with_usb { format!(" {} |", row.usb) } else { String::new() };
        format!("| {} |{usb} {} | {} |\n", row.leds, row.meaning, row.helps).replace("|  |", "| |")
    };
    let all: String = SYMPTOMS.iter().map(|symptom| row(symptom, true)).collect();
    let in_readme = SYMPTOMS.iter().filter(|symptom| symptom.in_readme);
    let in_readme: String = in_readme.map(|symptom| row(symptom, false)).collect();
    let files = [
        (
            "docs/troubleshooting.md",
            "| the LEDs | `lsusb` shows | what it means | what to do |\n|---|---|---|---|\n",
            all,
        ),
        (
            "README.md",
            "| the LEDs (M1 is red, M2 and M3 are blue) | what it means | what to do |\n|---|---|---|\n",
            in_readme,
        ),
    ];
    for (name, head, rows) in files {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let text = fs::read_to_string(&path).unwrap();
        let start = text.find(head).unwrap_or_else(|| panic!("{name}: the table was not found")) + head.len();
        let end = start + text[start..].find("\n\n").unwrap() + 1;
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, format!("{}{rows}{}", &text[..start], &text[end..])).unwrap();
        } else {
            assert!(text[start..end] == rows, "{name} is out of date: run UPDATE=1 cargo test tables");
        }
    }
}

/// The wizard explains each answer with a row of the table, except for [`Leds::Other`], which has no row.
#[test]
fn every_answer_in_the_wizard_has_one_row_in_the_table_of_symptoms() {
    for leds in
        [Leds::TwoSlow, Leds::OneFast, Leds::Flicker, Leds::Solid, Leds::Dark, Leds::TwoLit, Leds::Red]
    {
        let rows = SYMPTOMS.iter().filter(|row| row.answers == Some(leds)).count();
        assert_eq!(rows, 1, "{leds:?}");
    }
}

/// If two scenarios had the same name, `--demo` would silently use the first.
#[test]
fn no_two_scenarios_have_the_same_name() {
    for (n, scenario) in SCENARIOS.iter().enumerate() {
        let is_first = SCENARIOS[..n].iter().all(|other| other.name != scenario.name);
        assert!(is_first, "{}", scenario.name);
    }
}

/// cfdfu uses the platform to suggest an image for a board, so it must recognise the platform of an image that names
/// the board.
#[test]
fn firmware_for_each_board_has_the_platform_of_that_board() {
    for board in BOARDS {
        let bytes = images::firmware("2026.08", &[(board.code, board.name)], images::FIRMWARE_MIN);
        let Content::Firmware(firmware) = Content::of(&bytes) else { panic!("{board:?}") };
        assert_eq!(firmware.platform(), Some(board.platform), "{board:?}");
        let is_known = ["cf2", "cf21bl", "bolt", "tag"].contains(&board.platform);
        assert!(is_known, "{board:?} has a new platform: see docs/CONTRIBUTING.md");
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

/// Scripts distinguish problems by their kind, so the schema must list every kind.
#[test]
fn the_schema_lists_every_kind_of_problem() {
    let source = include_str!("../../src/report/problem.rs");
    let variants = source.split_once("pub enum ProblemKind {").unwrap().1.split_once('}').unwrap().0;
    let in_snake_case = |variant: &str| {
        let mut name = String::new();
        for letter in variant.chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.extend(letter.to_lowercase());
        }
        name
    };
    let kinds: Vec<String> = variants.split(',').map(str::trim).map(in_snake_case).collect();
    let schema: Value = serde_json::from_str(include_str!("../../docs/json.schema.json")).unwrap();
    let mut results = schema["oneOf"].as_array().unwrap().iter();
    let result = results.find(|part| part["properties"]["event"]["const"] == "result").unwrap();
    let listed = &result["properties"]["error"]["anyOf"][0]["properties"]["kind"]["enum"];
    let listed: Vec<&str> = listed.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(kinds[..kinds.len() - 1], listed[..]);
}
