//! Tests the interface with `--plain`: answers from a pipe and from a terminal, signals, and the end of the input.
#![cfg(unix)]

use std::thread;
use std::time::Duration;

use cfdfu::sim::images;
use rustix::process::Signal;

use crate::cli::{Folder, Ran};
use crate::pty::{PLAN_DELAY, Session, processor_time};

/// cfdfu reads the answers from a pipe.
#[test]
fn plain_mode_asks_before_it_writes() {
    let folder = Folder::with_image();
    let plain = |answers: &str| folder.cfdfu("cf2.bin --demo --plain").input(answers).run();
    let Ran { code, out, .. } = plain("f\nw\n");
    assert_eq!(code, 0, "{out}");
    for text in ["SIMULATED", "now: firmware 2025.02", "w: write", "Flashed and verified", "is running"] {
        assert!(out.contains(text), "{text:?} is not in:\n{out}");
    }
    assert!(!out.contains('\u{1b}'));
    // If the input ends before the answer, nothing is written.
    let Ran { code, out, .. } = plain("f\n");
    assert_eq!(code, 75, "the last job determines the exit status: {out}");
    assert!(out.contains("Nothing was changed") && !out.contains("Erase "), "{out}");
}

/// An overlay, such as the help, does not swallow the next answer, and an unknown answer is reported.
#[test]
fn plain_mode_answers_every_line() {
    let folder = Folder::with_image();
    let plain = |answers: &str| folder.cfdfu("cf2.bin --demo=dfu --plain").input(answers).run();
    let Ran { code, out, .. } = plain("?\nhello\nf\nw\n");
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("`hello` is not one of the choices"), "{out}");
    assert!(out.contains("Flashed and verified"), "{out}");
    let Ran { code, out, .. } = plain("?\nq\nl\nf\nw\n");
    assert!(code == 0 && out.contains("Flashed and verified"), "{out}");
}

/// On a terminal, no line is broken within a word.
#[test]
fn plain_mode_wraps_long_lines_between_words() {
    let mut session = Session::start(&["cf2.bin", "--demo=dead", "--plain"], &[]);
    session.wait_for("r: ");
    session.press("r\n");
    session.wait_for("Unplug USB and the battery.");
    session.wait_for("press Enter");
    // The terminal itself would break a line after its last column.
    let screen = session.screen();
    assert!(
        screen.contains("the cable in the\nother") && screen.lines().all(|row| row.chars().count() < 80),
        "{screen}"
    );
    session.press("q\nq\n");
    session.wait_for_exit();
}

/// Uses the demo's built-in image, which is not a file.
#[test]
fn the_command_shown_with_the_plan_can_be_pasted_to_flash_the_drone() {
    let folder = Folder::new();
    let Ran { out, .. } = folder.cfdfu("--demo --plain").input("f\n").run();
    let shown = out.lines().find_map(|line| line.split_once("cfdfu flash").map(|(_, rest)| rest));
    let arguments = shown.unwrap_or_else(|| panic!("{out}"));
    let pasted = folder.cfdfu("flash").fast().args(arguments.split_whitespace()).input("");
    let Ran { code, out, .. } = pasted.run();
    assert!(code == 0 && out.contains("Flashed and verified"), "{arguments}: {out}");
}

/// As in the full-screen interface, the flash continues after SIGTERM, SIGHUP or the end of the input. cfdfu must not
/// run a busy loop on the closed input.
#[test]
fn plain_mode_finishes_writing_after_a_signal_or_the_end_of_input() {
    for signal in [None, Some(Signal::TERM), Some(Signal::HUP)] {
        let mut session = Session::start(&["cf2.bin", "--demo=dfu", "--plain"], &[]);
        session.wait_for("Image: ");
        session.press("f\n");
        session.wait_for("w: write");
        thread::sleep(PLAN_DELAY);
        session.press("w\n");
        session.wait_for("Erase    0x08004000");
        let pid = session.child.process_id().unwrap();
        match signal {
            None => session.press("\u{4}"),
            Some(signal) => session.signal(signal),
        }
        let before = processor_time(pid);
        thread::sleep(Duration::from_secs(1));
        assert!(
            processor_time(pid) - before < 20,
            "{signal:?}: used the processor for {} of 100 ticks",
            processor_time(pid) - before
        );
        assert_eq!(session.wait_for_exit(), 0, "{signal:?}: {}", session.screen());
        assert!(session.screen().contains("Flashed and verified"), "{signal:?}: {}", session.screen());
    }
}

/// On a terminal, cfdfu discards the lines that are typed before it shows the plan. Lines from a pipe are kept.
#[test]
fn a_line_typed_before_the_plan_is_shown_does_not_confirm_the_plan() {
    let mut session = Session::start(&["cf2.bin", "--demo=dfu", "--plain"], &[]);
    session.wait_for("Image: ");
    session.press("f\nw\nw\nw\n");
    session.wait_for("w: write");
    thread::sleep(Duration::from_secs(2));
    assert!(!session.screen().contains("Erase "), "{}", session.screen());
    session.press("q\n");
    session.wait_for("Nothing was changed");
    session.press("q\n");
    session.wait_for_exit();
}

/// The job stops at the next safe point.
#[test]
fn plain_mode_stops_on_ctrl_c_without_asking() {
    let mut session = Session::start(&["cf2.bin", "--demo=dfu", "--plain"], &[]);
    session.wait_for("Image: ");
    session.press("f\n");
    session.wait_for("w: write");
    thread::sleep(PLAN_DELAY);
    session.press("w\n");
    session.wait_for("Erase    0x08008000");
    session.press("\u{3}");
    session.wait_for("no working firmware");
    session.press("?\n");
    session.wait_for("save a report");
    session.press("q\nq\n");
    assert_eq!(session.wait_for_exit(), 75);
}

#[test]
fn plain_mode_uses_the_drone_selected_by_option_and_writes_the_log_file() {
    let mut session = Session::start(
        &["cf2.bin", "--demo=two", "--plain", "--device", "338133883034", "--log-file", "log.txt"],
        &[],
    );
    session.wait_for("on port 1-2");
    session.press("f\n");
    session.wait_for("w: write");
    thread::sleep(PLAN_DELAY);
    session.press("w\n");
    session.wait_for("Flashed and verified");
    session.press("q\n");
    assert_eq!(session.wait_for_exit(), 0);
    let log = std::fs::read_to_string(session.dir.path().join("log.txt")).unwrap();
    assert!(log.contains("Erase    0x08004000") && log.contains("Flashed and verified"), "{log}");
    let mut session = Session::start(&["cf2.bin", "--demo=two", "--plain", "--device", "1-7"], &[]);
    session.wait_for("The selected drone is not plugged in, but another drone is.");
    session.press("q\n");
    session.wait_for_exit();
}

/// Also opens and closes the help, and enters a wrong file name and a wrong word.
#[test]
fn plain_mode_restores_a_bootloader_after_a_typed_word() {
    let mut session = Session::start(&["cf2.bin", "--demo=overwritten", "--plain"], &[]);
    std::fs::write(session.dir.path().join("loader.bin"), images::loader()).unwrap();
    let lines = [
        ("", "o: firmware"),
        ("?", "q: close"),
        ("q", "o: firmware"),
        ("b", "loader.bin   the Bitcraze bootloader"),
        ("nope.bin", "No such file"),
        ("q", "o: firmware"),
        ("b", "loader.bin   the Bitcraze bootloader"),
        ("loader.bin", "Type restore to confirm"),
        ("no", "type \"restore\" first"),
        ("restore", "The bootloader is restored"),
    ];
    for (line, words) in lines {
        if !line.is_empty() {
            session.press(&format!("{line}\n"));
        }
        session.wait_for(words);
    }
    session.press("q\n");
    assert_eq!(session.wait_for_exit(), 0, "{}", session.screen());
}

/// cfdfu reads only a few lines ahead, and does not keep an endless line in memory.
#[cfg(target_os = "linux")]
#[test]
fn endless_input_does_not_fill_the_memory() {
    for endless in ["yes ''", "cat /dev/zero"] {
        let cfdfu = assert_cmd::cargo::cargo_bin!("cfdfu");
        // The limit is a quarter of a gigabyte more address space than cfdfu needs. When cfdfu still kept all of its
        // input in memory, either input used ten times as much within seconds.
        let line = format!(
            "ulimit -v 700000; {endless} | timeout 6 '{}' --plain --demo >out 2>err; echo ${{PIPESTATUS[1]}}",
            cfdfu.display()
        );
        let dir = tempfile::tempdir().unwrap();
        let output =
            std::process::Command::new("bash").current_dir(dir.path()).args(["-c", &line]).output().unwrap();
        let status = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let err = std::fs::read_to_string(dir.path().join("err")).unwrap();
        // 124: cfdfu was still running when `timeout` stopped it. 0: cfdfu quit because of the input.
        assert!(status == "124" || status == "0", "{endless}: {status} {err}");
        assert!(!err.contains("memory"), "{endless}: {err}");
    }
}

#[test]
fn escape_sequences_in_a_file_name_do_not_reach_the_terminal() {
    let folder = Folder::new();
    let name = "x\u{1b}[31mRED\u{1b}]0;pwned\u{7}.bin";
    folder.write_file(name, b"no image");
    let Ran { out, .. } = folder.cfdfu("--plain --demo").arg(name).input("").run();
    assert!(out.contains("RED") && !out.contains('\u{1b}') && !out.contains('\u{7}'), "{out:?}");
}

#[test]
fn a_line_that_is_not_utf_8_does_not_end_the_input() {
    let Ran { out, .. } = Folder::new().cfdfu("--plain --demo=dfu").input(b"\xff\xfe\nf\nw\n").run();
    assert!(out.contains("Flashed and verified"), "{out}");
}

#[test]
fn plain_mode_flashes_all_drones_after_one_plan() {
    let folder = Folder::new();
    let Ran { out, code, .. } = folder.cfdfu("--demo=fleet --plain").input("a\nw\n").run();
    assert_eq!(code, 65, "{out}");
    let plan =
        out.find("The plan (nothing is written until you confirm):").unwrap_or_else(|| panic!("{out}"));
    let refused = out.rfind("different board: not changed").unwrap_or_else(|| panic!("{out}"));
    assert!(plan < refused, "{out}");
    assert_eq!(out.matches("flashed, running 2026.08").count(), 6, "{out}");
    assert!(out.contains("6 flashed, 1 unchanged, 1 refused"), "{out}");
    assert!(out.lines().count() < 60, "{out}");
}
