//! Runs the real binary in a pseudo-terminal, mostly on the demo in real time. Checks the number of bytes sent, the
//! contents of the screen, the state of the terminal afterwards, and what happens when the terminal is closed.
#![cfg(unix)]

use std::fs;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use portable_pty::PtySize;

use cfdfu::sim::images;

use rustix::process::Signal;

use crate::cli::Folder;
use crate::pty::{Session, processor_time};
use crate::support::{SEED_LEN, firmware};

#[test]
fn a_session_flashes_while_the_window_is_resized_and_restores_the_terminal() {
    let mut session = Session::start(&["cf2.bin", "--demo"], &[]);
    session.wait_for("firmware 2026.08 for CF20, CF21");
    session.wait_for("Crazyflie 2.x, running");
    // The last line that the background identification logs.
    session.wait_for("bcFlow2");
    assert!(session.sent() < 6000, "first frames: {} bytes", session.sent());
    thread::sleep(Duration::from_millis(300));
    let before = session.sent();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(session.sent(), before, "an idle interface wrote to the terminal");

    session.press("f");
    session.confirm_plan();
    session.wait_for("Download");
    // Resize the window several times while flashing.
    for (rows, cols) in [(40, 120), (16, 60), (24, 80)] {
        session.size = (rows, cols);
        let size = PtySize { rows, cols, pixel_width: 0, pixel_height: 0 };
        session.master.as_ref().unwrap().resize(size).unwrap();
        thread::sleep(Duration::from_millis(150));
    }
    session.wait_for("Your Crazyflie is running");
    let bytes = session.sent();
    assert!(bytes < 60_000, "{bytes} bytes for a whole flash with three resizes");
    println!("{bytes} bytes sent for a whole demo flash with three resizes");
    // A second flash in the same session starts from the beginning and finds nothing to do.
    session.press("t");
    let screen = session.wait_for("Unchanged and verified");
    assert!(screen.contains("Your Crazyflie is running"), "{screen}");
    session.press("q");
    assert_eq!(session.wait_for_exit(), 0);
    session.assert_terminal_restored();
    let screen = session.screen();
    assert!(screen.contains("Unchanged and verified: the flash already holds all 243,176 bytes"), "{screen}");
    assert!(screen.contains("SIMULATED"), "{screen}");
}

#[test]
fn a_whole_flash_sends_few_enough_bytes_for_a_slow_line() {
    let session = Session::flashing("dfu");
    session.wait_for("Flashed and verified");
    let bytes = session.sent();
    assert!(bytes < 40_000, "{bytes} bytes");
    println!("{bytes} bytes sent for a whole demo flash");
}

/// The report is saved together with the recording of the transfers. With `--redact`, neither file contains a serial
/// number of the drone or the unique ID that its firmware prints.
#[test]
fn a_bug_report_is_saved_with_a_recording_and_can_be_redacted() {
    let mut session = Session::start(&["cf2.bin", "--demo=dfu", "--redact"], &[]);
    session.wait_for("in DFU mode");
    session.wait_for("243,176 bytes");
    session.press("f");
    session.confirm_plan();
    session.wait_for("Your Crazyflie is running");
    session.press("s");
    session.wait_for("Bug report saved");
    let folder = session.dir.path().join("home/cfdfu/reports");
    let file = |end: &str| {
        let mut entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        fs::read_to_string(entries.find(|path| path.to_string_lossy().ends_with(end)).unwrap()).unwrap()
    };
    let (report, recording) = (file("-report.txt"), file("-recording.jsonl"));
    assert!(report.contains("Flashed and verified"), "{report}");
    let lines = cfdfu::recording::parse(&recording).unwrap();
    assert!(lines.len() > 800, "{} lines", lines.len());
    for secret in ["51004F000551343036333233", "338133873034", "3332333630345105004F0051"] {
        for text in [&report, &recording] {
            assert!(!text.to_uppercase().contains(secret), "{secret} is in:\n{text}");
        }
    }
    session.press("q");
    assert_eq!(session.wait_for_exit(), 0);
}

#[test]
fn a_job_that_is_writing_stops_only_after_confirmation() {
    let mut session = Session::flashing("dfu");
    session.wait_for("Erase    0x08008000");
    session.press("\u{3}");
    session.wait_for("Stop at the next safe point?");
    session.press("y");
    let screen = session.wait_for("Stopped after");
    assert!(screen.contains("no working firmware"), "{screen}");
    session.press("t");
    session.confirm_plan();
    session.wait_for("Flashed and verified");
}

/// The terminal is closed while flashing. The flash finishes anyway, without a busy loop.
#[test]
fn closing_the_terminal_does_not_stop_the_flash() {
    let mut session = Session::flashing("dfu");
    session.wait_for("Erase    0x08004000");
    let closed = Instant::now();
    drop(session.keys.take());
    drop(session.master.take());
    session.closing.store(true, Ordering::SeqCst);
    let pid = session.child.process_id().unwrap();
    thread::sleep(Duration::from_millis(700));
    let before = processor_time(pid);
    thread::sleep(Duration::from_secs(1));
    if session.child.try_wait().unwrap().is_none() {
        assert!(processor_time(pid) - before < 20, "busy for {} of 100 ticks", processor_time(pid) - before);
    }
    assert_eq!(session.wait_for_exit(), 0);
    // Erasing and writing the rest of the image takes about 3.5 s.
    assert!(closed.elapsed() > Duration::from_secs(2), "the flash ended when the terminal was closed");
}

#[test]
fn a_signal_quits_an_idle_interface_and_restores_the_terminal() {
    let mut session = Session::start(&["--demo"], &[]);
    session.wait_for("What would you like");
    session.signal(Signal::TERM);
    assert_eq!(session.wait_for_exit(), 0);
    session.assert_terminal_restored();
}

#[test]
fn without_colour_the_keys_are_still_in_reverse_video() {
    let session = Session::start(&["--demo"], &[("NO_COLOR", "1")]);
    session.wait_for("Crazyflie 2.x, running");
    session.wait_for("243,176 bytes");
    let text = String::from_utf8_lossy(&session.bytes.lock().unwrap()).into_owned();
    assert!(text.contains("\u{1b}[7m"), "reverse video must be used");
    assert!(!text.contains("38;5"), "no colour may be used");
    let parser = session.parser();
    let screen = parser.screen();
    let last = (0..80).find(|&col| screen.cell(23, col).is_some_and(|cell| cell.contents() == "E"));
    assert!(screen.cell(23, last.unwrap()).unwrap().inverse(), "the key must be in reverse video");
}

#[test]
fn simple_terminals_receive_only_characters_and_escapes_that_they_support() {
    let linux = Session::start(&["--demo"], &[("TERM", "linux")]);
    assert!(linux.wait_for("What would you like").contains('┌'));
    let ascii = Session::start(&["--demo"], &[("LC_ALL", "C")]);
    assert!(ascii.wait_for("What would you like").is_ascii());
    let mut dumb = Session::start(&["cf2.bin", "--demo"], &[("TERM", "dumb")]);
    dumb.wait_for("Enter: start");
    dumb.press("q\n");
    assert_eq!(dumb.wait_for_exit(), 0);
    assert!(!dumb.bytes.lock().unwrap().contains(&0x1b), "a dumb terminal must receive no escape sequence");
}

/// Covers the full-screen interface, `--plain` and `--json`.
#[test]
fn escape_sequences_in_a_file_name_never_reach_the_terminal() {
    let name = "\u{1b}[2J\u{1b}]0;mine\u{7}\u{202e}cf2.bin";
    let folder = Folder::new();
    for bytes in [firmware("2026.08", SEED_LEN), vec![1, 2, 3]] {
        folder.write_file(name, bytes);
        let plain = folder.cfdfu(&format!("{name} --demo --plain")).input("f\n\nq\n").run();
        let json = folder.cfdfu(&format!("flash {name} --demo=none --json")).run();
        let text = plain.combined_output() + &json.combined_output();
        assert!(text.contains("cf2.bin"), "{text:?}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'), "{text:?}");
    }
    let mut session = Session::start(&[&format!("./{name}"), "--demo=dfu"], &[]);
    session.wait_for("in DFU mode");
    session.wait_for("No such file");
    fs::write(session.dir.path().join(name), firmware("2026.08", SEED_LEN)).unwrap();
    session.press("i");
    session.wait_for("Choose the firmware");
    session.wait_for("firmware 2026.08");
    session.press("\x1b");
    session.wait_for("What would you like");
    session.press("q");
    assert_eq!(session.wait_for_exit(), 66, "the file on the command line did not exist");
    let bytes = session.bytes.lock().unwrap().clone();
    let text = String::from_utf8_lossy(&bytes);
    assert!(!text.contains("]0;mine") || !text.contains('\u{7}'), "{text:?}");
    assert!(!text.contains('\u{202e}'));
}

/// The demo has a built-in image.
#[test]
fn the_demo_flashes_without_an_image_file() {
    let mut session = Session::start(&["--demo"], &[]);
    session.wait_for("243,176 bytes");
    session.wait_for("running");
    session.press("f");
    session.confirm_plan();
    session.wait_for("Ready to fly");
}

#[test]
fn the_picker_shows_the_kind_of_each_file_and_enter_chooses_one() {
    let mut session = Session::start(&["--demo=dfu"], &[]);
    fs::write(session.dir.path().join("notes.bin"), [1, 2, 3]).unwrap();
    session.wait_for("in DFU mode");
    session.press("i");
    let screen = session.wait_for("notes.bin");
    assert!(screen.contains("cf2.bin") && screen.contains("not recognised"), "{screen}");
    session.press("\r");
    session.wait_for("What would you like");
    session.press("i/missing.bin\r");
    session.wait_for("No such file");
}

#[test]
fn the_console_ends_after_a_key_or_its_time_limit_and_restores_the_terminal() {
    for (arguments, key) in [
        (&["console", "--demo"][..], Some(" ")),
        (&["console", "--demo"], Some("\u{3}")),
        (&["console", "--demo", "--for", "1"], None),
    ] {
        let mut session = Session::start(arguments, &[]);
        session.wait_for("Self test passed!");
        let settings =
            |session: &Session| session.master.as_ref().unwrap().get_termios().unwrap().local_flags;
        let during = settings(&session);
        if let Some(key) = key {
            session.press(key);
        }
        assert_eq!(session.wait_for_exit(), 0, "{key:?}");
        assert_ne!(settings(&session), during, "echo and line mode must be on again");
    }
}

/// In the first attempt, the button is released too early.
#[test]
fn a_drone_that_does_not_start_is_recovered_with_the_wizard() {
    let mut session = Session::start(&["cf2.bin", "--demo=dead"], &[]);
    session.wait_for("No drone found on USB");
    session.press("\r");
    session.wait_for("Unplug USB and the battery");
    for (hold, next) in
        [(2500, "What are the drone's LEDs doing?"), (8300, "Nothing is written until you confirm")]
    {
        session.press("\r");
        session.wait_for("Press the button and keep");
        session.press("B");
        session.wait_for("Keep holding");
        session.press("P");
        thread::sleep(Duration::from_millis(hold));
        session.press("B");
        session.wait_for(next);
        if hold < 5000 {
            session.press("1");
            session.wait_for("radio bootloader");
            session.press("P\r");
            session.wait_for("Unplug USB and the battery");
        }
    }
    session.confirm_plan();
    session.wait_for("Your Crazyflie is running");
}

#[test]
fn an_overwritten_bootloader_is_restored_after_a_typed_word() {
    let mut session = Session::start(&["cf2.bin", "--demo=overwritten"], &[]);
    fs::write(session.dir.path().join("loader.bin"), images::loader()).unwrap();
    session.wait_for("in DFU mode");
    // The demo has a built-in bootloader; choose a file instead.
    session.press("\x1b[B\x1b[B");
    session.press("i");
    session.wait_for("Choose the bootloader");
    let path = session.dir.path().join("load").display().to_string();
    session.press(&format!("{path}\t"));
    session.wait_for(&format!("path {path}er.bin"));
    session.press("\r");
    session.wait_for("What would you like");
    session.press("b");
    session.wait_for("type restore");
    session.press("\r");
    session.wait_for("type \"restore\" first");
    session.press("restore\r");
    let screen = session.wait_for("Flashed and verified");
    assert!(screen.contains("unplug USB and the battery"), "{screen}");
}

/// Nobody has the demo's built-in images as files, so the command creates the file that it needs.
#[test]
fn the_command_for_a_restore_in_the_demo_can_be_run() {
    let mut session = Session::start(&["--demo=overwritten"], &[]);
    session.wait_for("in DFU mode");
    session.press("b");
    let plan = session.wait_for("type restore");
    let (_, after) = plan.split_once("as a command").unwrap();
    let rows = after.split_once("This replaces").unwrap().0.lines();
    let command = rows.map(|row| row.trim_matches([' ', '│'])).collect::<Vec<_>>().join(" ");
    let command = command.trim();
    assert!(command.ends_with("--demo=overwritten") && command.contains("--firmware"), "{command}");
    let program = cargo_bin!("cfdfu");
    let script = command.replace("cfdfu ", &format!("'{}' ", program.display()));
    let output = Command::new("sh").args(["-c", &script]).current_dir(session.dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("The bootloader is restored"), "{script}: {output:?}");
}

#[test]
fn a_flash_interrupted_by_unplugging_resumes_when_the_drone_is_back() {
    let mut session = Session::flashing("dfu");
    session.wait_for("Download");
    session.press("P");
    session.wait_for("connection dropped while");
    // Hold the button while plugging in the drone, so that it returns to DFU mode. The job then resumes without a key
    // press.
    session.press("BP");
    thread::sleep(Duration::from_millis(5300));
    session.press("B");
    session.wait_for("Flashed and verified");
}

#[test]
fn settings_are_used_and_an_invalid_settings_file_is_reported_and_ignored() {
    let config = tempfile::tempdir().unwrap();
    let write = |text: &str| {
        fs::create_dir_all(config.path().join("cfdfu")).unwrap();
        fs::write(config.path().join("cfdfu/config.toml"), text).unwrap();
    };
    let home = config.path().to_str().unwrap().to_owned();
    let variables = [("XDG_CONFIG_HOME", home.as_str())];
    write("glyphs = \"ascii\"\nimages = \"/\"\n");
    let mut session = Session::start(&["--demo=dfu"], &variables);
    let screen = session.wait_for("boot ROM");
    assert!(!screen.contains('│') && screen.contains('|'), "{screen}");
    session.press("i");
    session.wait_for("Choose the firmware");
    session.press("\x1bq");
    write("glyphs = \"runes\"\n");
    let mut session = Session::start(&["--demo=dfu"], &variables);
    let screen = session.wait_for("boot ROM");
    assert!(screen.contains("config.toml is ignored") && screen.contains('│'), "{screen}");
    session.press("q");
}

/// The computer that runs the tests has no drone, and often no USB.
#[test]
fn one_key_opens_the_doctor_when_no_drone_is_found() {
    let mut session = Session::start(&[], &[]);
    session.wait_for("What would you like");
    session.press("d");
    let screen = session.wait_for("Doctor");
    assert!(screen.contains("USB") && screen.contains("drone"), "{screen}");
    session.press("\x1b");
    session.wait_for("Enter");
    session.press("q");
}

/// The panic is reported as a failed job, which can be retried.
#[test]
fn a_panic_in_the_worker_does_not_end_the_interface() {
    let mut session = Session::flashing("defect");
    let screen = session.wait_for("simulated defect");
    assert!(screen.contains("Press s to save") && screen.contains("no working firmware"), "{screen}");
    session.press("t");
    session.confirm_plan();
    session.wait_for("Flashed and verified");
    session.press("q");
    assert_eq!(session.wait_for_exit(), 0);
    session.assert_terminal_restored();
}

/// After a rebuild, the new file is flashed, and the interface reports the change.
#[test]
fn a_file_that_changed_since_it_was_chosen_is_read_again() {
    let mut session = Session::start(&["cf2.bin", "--demo=dfu"], &[]);
    session.wait_for("firmware 2026.08 for CF20");
    session.wait_for("in DFU mode");
    fs::write(session.dir.path().join("cf2.bin"), firmware("2099.01", SEED_LEN)).unwrap();
    session.press("f");
    session.wait_for("The file has changed since you chose it");
    let screen = session.wait_for("Nothing is written until you confirm");
    assert!(screen.contains("firmware 2099.01"), "{screen}");
    session.confirm_plan();
    session.wait_for("is running 2099.01 and passed its self-test");
    // A deleted file is not flashed.
    session.press("\r");
    session.wait_for("What would you like");
    fs::remove_file(session.dir.path().join("cf2.bin")).unwrap();
    session.press("f");
    session.wait_for("No such file");
    session.press("q");
}

/// If the terminal reports an absurd size, only part of the area is drawn.
#[test]
fn a_terminal_with_an_absurd_size_does_not_stop_the_interface() {
    let mut session = Session::start(&["cf2.bin", "--demo=dfu"], &[]);
    session.wait_for("in DFU mode");
    let size = PtySize { rows: 65535, cols: 65535, pixel_width: 0, pixel_height: 0 };
    session.master.as_ref().unwrap().resize(size).unwrap();
    thread::sleep(Duration::from_millis(500));
    let size = PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 };
    session.master.as_ref().unwrap().resize(size).unwrap();
    // Wait, because a key that arrives together with a resize is handled only with the next key: crossterm
    // (event/source/unix/mio.rs) returns on the signal and forgets that the terminal was also readable.
    thread::sleep(Duration::from_millis(500));
    session.press("?");
    session.wait_for("Keys");
    session.press("qq");
    assert_eq!(session.wait_for_exit(), 0);
}

/// A pipe can be read only once, so cfdfu does not read the pipe again when a job begins.
#[test]
fn firmware_from_a_pipe_is_flashed() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe.bin");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let to = pipe.clone();
    let writer = thread::spawn(move || fs::write(to, firmware("2026.08", SEED_LEN)).unwrap());
    let mut session = Session::start(&[pipe.to_str().unwrap(), "--demo=dfu"], &[]);
    session.wait_for("243,176 bytes");
    session.wait_for("in DFU mode");
    session.press("f");
    session.confirm_plan();
    session.wait_for("Flashed and verified");
    session.press("q");
    writer.join().unwrap();
}

/// The terminal reports its background as key presses, which must change nothing but the colours.
#[test]
fn the_palette_follows_the_background_of_the_terminal() {
    const DARK_ACCENT: &str = "38;5;75";
    const LIGHT_ACCENT: &str = "38;5;25";
    let mut session = Session::start(&["--demo=dfu"], &[]);
    session.wait_for("boot ROM");
    let sent = |session: &Session| String::from_utf8_lossy(&session.bytes.lock().unwrap()).into_owned();
    let before = sent(&session);
    assert!(before.contains("\x1b]11;?") && before.contains(DARK_ACCENT) && !before.contains(LIGHT_ACCENT));
    session.press("\x1b]11;rgb:ffff/ffff/ffff\x1b\\");
    session.press("?");
    let screen = session.wait_for("Keys");
    assert!(screen.contains("Esc") && sent(&session).contains(LIGHT_ACCENT), "{screen}");
    session.press("\x1b");
    session.wait_for("What would you like");
    session.press("q");
    assert_eq!(session.wait_for_exit(), 0);
}

/// The key press must reach the worker thread while the LEDs blink, so this test runs the real program in real time.
#[test]
fn a_drone_blinks_until_a_key_is_pressed_and_can_then_be_flashed() {
    let mut session = Session::start(&["cf2.bin", "--demo"], &[]);
    session.wait_for("Crazyflie 2.x, running");
    session.wait_for("243,176 bytes");
    session.press("g");
    session.wait_for("29 s left. Press any key to stop.");
    session.press("x");
    session.wait_for("What would you like to do?");
    session.press("f");
    session.confirm_plan();
    session.wait_for("Flashed and verified");
    // A signal ends the interface while the LEDs blink. The interface does not wait for the rest of the 30 s.
    session.press("\r");
    session.wait_for("Crazyflie 2.x, running");
    session.press("g");
    session.wait_for("Press any key to stop.");
    let closed = Instant::now();
    session.signal(Signal::TERM);
    assert_eq!(session.wait_for_exit(), 0);
    assert!(closed.elapsed() < Duration::from_secs(5), "{:?}", closed.elapsed());
    session.assert_terminal_restored();
}

/// The drones of the fleet differ: one has a different board and is refused, and another already has this version.
#[test]
fn all_drones_are_flashed_at_once_after_one_plan() {
    let mut session = Session::start(&["--demo=fleet"], &[]);
    session.wait_for("Flash all 8 drones at once");
    session.press("a");
    let plan = session.wait_for("Plan for 8 drones");
    assert!(plan.contains("→ 2026.08, the same version"), "{plan}");
    assert!(plan.contains("different board: not changed"), "{plan}");
    // A key that was pressed too early does not confirm the plan.
    session.press("w");
    session.wait_for("Nothing has been written");
    thread::sleep(Duration::from_secs(1));
    session.press("w");
    session.wait_for("erase");
    // Stop the job of one drone, then run it again.
    session.press("x");
    let screen = session.wait_for("Drones: 8 of 8 done");
    assert!(screen.contains("stopped"), "{screen}");
    session.press("r");
    session.wait_for("Drones: 7 of 8 done");
    let screen = session.wait_for("Drones: 8 of 8 done");
    assert!(screen.contains("6 flashed, 1 unchanged, 1 refused"), "{screen}");
    // Enter opens the outcome of the refused drone, and Esc returns to the table.
    session.press("jjjjj");
    session.wait_for("56004F000551343036333233");
    session.press("\r");
    session.wait_for("Choose another image");
    session.press("\u{1b}");
    session.wait_for("Drones: 8 of 8 done");
    session.press("\u{1b}");
    session.wait_for("What would you like to do?");
    session.press("q");
    assert_eq!(session.wait_for_exit(), 65);
    session.assert_terminal_restored();
}
