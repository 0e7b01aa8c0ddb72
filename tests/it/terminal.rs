//! The real binary in a pseudo-terminal, on the demo in real time: what arrives on the wire, what is on the
//! screen, how the terminal is left, and what happens when it goes away.
#![cfg(unix)]

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use portable_pty::PtySize;

use cfdfu::sim::images;

use rustix::process::Signal;

use crate::cli::Folder;
use crate::pty::{Session, busy};
use crate::support::{SEED_LEN, firmware};

#[test]
fn a_flash_from_the_first_frame_to_the_parting_words() {
    let mut session = Session::start(&["cf2.bin", "--demo"], &[]);
    session.until("firmware 2026.08 for CF20, CF21");
    session.until("Crazyflie 2.x, running");
    assert!(session.sent() < 6000, "first frames: {} bytes", session.sent());
    thread::sleep(Duration::from_millis(300));
    let before = session.sent();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(session.sent(), before, "an idle interface writes nothing");

    session.press("f");
    session.agree();
    session.until("Download");
    // In mid-flash the window gets another size, more than once.
    for (rows, cols) in [(40, 120), (16, 60), (24, 80)] {
        session.size = (rows, cols);
        let size = PtySize { rows, cols, pixel_width: 0, pixel_height: 0 };
        session.master.as_ref().unwrap().resize(size).unwrap();
        thread::sleep(Duration::from_millis(150));
    }
    session.until("The Crazyflie is running again");
    let bytes = session.sent();
    assert!(bytes < 60_000, "{bytes} bytes for a whole flash with three repaints");
    println!("{bytes} bytes on the wire for a whole demo flash with three changes of size");
    // A second time in the same session starts afresh, and finds nothing to do.
    session.press("r");
    let screen = session.until("Unchanged and verified");
    assert!(screen.contains("The Crazyflie is running again"), "{screen}");
    session.press("q");
    assert_eq!(session.ended(), 0);
    session.is_restored();
    let screen = session.screen();
    assert!(screen.contains("Unchanged and verified: the flash holds all 243,176 bytes"), "{screen}");
    assert!(screen.contains("SIMULATED"), "{screen}");
}

#[test]
fn a_whole_flash_is_quiet_enough_for_a_slow_line() {
    let session = Session::flashing("dfu");
    session.until("Flashed and verified");
    let bytes = session.sent();
    assert!(bytes < 40_000, "{bytes} bytes");
    println!("{bytes} bytes on the wire for a whole demo flash");
}

#[test]
fn a_job_that_writes_is_stopped_only_after_a_question() {
    let mut session = Session::flashing("dfu");
    session.until("Erase    0x08008000");
    session.press("\u{3}");
    session.until("Stop the job?");
    session.press("y");
    let screen = session.until("Stopped after");
    assert!(screen.contains("no complete firmware"), "{screen}");
    session.press("r");
    session.agree();
    session.until("Flashed and verified");
}

/// The line drops in mid-flash: the flash is finished all the same, and the processor is not burnt meanwhile.
#[test]
fn a_terminal_that_is_closed_does_not_stop_the_flash() {
    let mut session = Session::flashing("dfu");
    session.until("Erase    0x08004000");
    let closed = Instant::now();
    drop(session.keys.take());
    drop(session.master.take());
    session.closing.store(true, Ordering::SeqCst);
    let pid = session.child.process_id().unwrap();
    thread::sleep(Duration::from_millis(700));
    let before = busy(pid);
    thread::sleep(Duration::from_secs(1));
    if session.child.try_wait().unwrap().is_none() {
        assert!(busy(pid) - before < 20, "{} of 100 ticks of a second spent", busy(pid) - before);
    }
    assert_eq!(session.ended(), 0);
    // What was left of erasing and writing takes about 3.5 s.
    assert!(closed.elapsed() > Duration::from_secs(2), "it ended with the terminal");
}

#[test]
fn a_signal_ends_an_idle_interface_cleanly() {
    let mut session = Session::start(&["--demo"], &[]);
    session.until("What to do");
    session.signal(Signal::TERM);
    assert_eq!(session.ended(), 0);
    session.is_restored();
}

#[test]
fn without_colour_the_keys_keep_their_reverse_video() {
    let session = Session::start(&["--demo"], &[("NO_COLOR", "1")]);
    session.until("Crazyflie 2.x, running");
    session.until("243,176 bytes");
    let text = String::from_utf8_lossy(&session.bytes.lock().unwrap()).into_owned();
    assert!(text.contains("\u{1b}[7m"), "reverse is used");
    assert!(!text.contains("38;5"), "no colour is");
    let parser = session.parser();
    let screen = parser.screen();
    let last = (0..80).find(|&col| screen.cell(23, col).is_some_and(|cell| cell.contents() == "E"));
    assert!(screen.cell(23, last.unwrap()).unwrap().inverse(), "the key is reversed on the screen");
}

#[test]
fn other_terminals_get_what_they_can_show() {
    let linux = Session::start(&["--demo"], &[("TERM", "linux")]);
    assert!(linux.until("What to do").contains('┌'));
    let ascii = Session::start(&["--demo"], &[("LC_ALL", "C")]);
    assert!(ascii.until("What to do").is_ascii());
    let mut dumb = Session::start(&["cf2.bin", "--demo"], &[("TERM", "dumb")]);
    dumb.until("Enter: start");
    dumb.press("q\n");
    assert_eq!(dumb.ended(), 0);
    assert!(!dumb.bytes.lock().unwrap().contains(&0x1b), "no escape reaches a dumb terminal");
}

/// A file's name may hold anything: nothing of it is a command to a terminal, on the screen or in lines.
#[test]
fn the_name_of_a_file_is_only_text() {
    let name = "\u{1b}[2J\u{1b}]0;mine\u{7}\u{202e}cf2.bin";
    let folder = Folder::new();
    for bytes in [firmware("2026.08", SEED_LEN), vec![1, 2, 3]] {
        folder.file(name, bytes);
        let plain = folder.cfdfu(&format!("{name} --demo --plain")).input("f\n\nq\n").run();
        let json = folder.cfdfu(&format!("flash {name} --demo=none --json")).run();
        let text = plain.all() + &json.all();
        assert!(text.contains("cf2.bin"), "{text:?}");
        assert!(text.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'), "{text:?}");
    }
    let mut session = Session::start(&[&format!("./{name}"), "--demo=dfu"], &[]);
    session.until("in DFU mode");
    session.until("No such file");
    std::fs::write(session.dir.path().join(name), firmware("2026.08", SEED_LEN)).unwrap();
    session.press("i");
    session.until("minecf2.bin                 firmware 2026.08");
    session.press("\x1b");
    session.until("What to do");
    session.press("q");
    assert_eq!(session.ended(), 66, "the file that was named was not there");
    let bytes = session.bytes.lock().unwrap().clone();
    let text = String::from_utf8_lossy(&bytes);
    assert!(!text.contains("]0;mine") || !text.contains('\u{7}'), "{text:?}");
    assert!(!text.contains('\u{202e}'));
}

/// The demo brings an image along: the first key flashes.
#[test]
fn the_demo_flashes_without_a_file() {
    let mut session = Session::start(&["--demo"], &[]);
    session.until("243,176 bytes");
    session.until("running");
    session.press("f");
    session.agree();
    session.until("you can fly");
}

/// With a folder of images: the picker shows what each of them is, and takes one.
#[test]
fn a_file_is_chosen_from_the_list() {
    let mut session = Session::start(&["--demo=dfu"], &[]);
    std::fs::write(session.dir.path().join("notes.bin"), [1, 2, 3]).unwrap();
    session.until("in DFU mode");
    session.press("i");
    let screen = session.until("notes.bin");
    assert!(screen.contains("cf2.bin") && screen.contains("not recognised"), "{screen}");
    session.press("\r");
    session.until("243,176 bytes at 0x08004000");
    session.press("i/missing.bin\r");
    session.until("No such file");
}

/// The whole recovery with two hands, the first time let go too early.
#[test]
fn a_drone_that_does_not_start_is_recovered_by_hand() {
    let mut session = Session::start(&["cf2.bin", "--demo=dead"], &[]);
    session.until("Nothing is plugged in");
    session.press("\r");
    session.until("Unplug USB and the battery");
    for (hold, next) in [(2500, "What do the LEDs do?"), (6300, "Nothing is changed yet")] {
        session.press("\r");
        session.until("Hold the button now");
        session.press("B");
        session.until("Keep holding");
        session.press("P");
        thread::sleep(Duration::from_millis(hold));
        session.press("B");
        session.until(next);
        if hold < 5000 {
            session.press("1");
            session.until("held too short");
            session.press("P\r");
            session.until("Unplug USB and the battery");
        }
    }
    session.agree();
    session.until("The Crazyflie is running again");
}

#[test]
fn an_overwritten_bootloader_is_restored_by_typed_word() {
    let mut session = Session::start(&["cf2.bin", "--demo=overwritten"], &[]);
    std::fs::write(session.dir.path().join("loader.bin"), images::loader()).unwrap();
    session.until("in DFU mode");
    session.press("b");
    session.until("Choose a file");
    session.press("/loader.bin\r");
    session.until("Type restore");
    session.press("\r");
    session.until("type the word restore first");
    session.press("restore\r");
    let screen = session.until("Flashed and verified");
    assert!(screen.contains("unplug USB and battery"), "{screen}");
}

#[test]
fn a_cable_pulled_in_mid_flash_is_told_and_the_job_goes_on_when_it_is_back() {
    let mut session = Session::flashing("dfu");
    session.until("Download");
    session.press("P");
    session.until("lost in mid-flash");
    // Into DFU mode again: the button held while plugging in. The job goes on by itself.
    session.press("BP");
    thread::sleep(Duration::from_millis(5300));
    session.press("B");
    session.until("Flashed and verified");
}

/// What is set for good is used; what is broken is told, and nothing else happens.
#[test]
fn settings_are_used_and_a_broken_file_is_told() {
    let config = tempfile::tempdir().unwrap();
    let write = |text: &str| {
        std::fs::create_dir_all(config.path().join("cfdfu")).unwrap();
        std::fs::write(config.path().join("cfdfu/config.toml"), text).unwrap();
    };
    let home = config.path().to_str().unwrap().to_owned();
    let variables = [("XDG_CONFIG_HOME", home.as_str())];
    write("glyphs = \"ascii\"\nimages = \"/\"\n");
    let mut session = Session::start(&["--demo=dfu"], &variables);
    let screen = session.until("boot ROM");
    assert!(!screen.contains('│') && screen.contains('|'), "{screen}");
    session.press("i");
    session.until("Choose a file in /");
    session.press("\x1bq");
    write("glyphs = \"runes\"\n");
    let mut session = Session::start(&["--demo=dfu"], &variables);
    let screen = session.until("boot ROM");
    assert!(screen.contains("config.toml is not used") && screen.contains('│'), "{screen}");
    session.press("q");
}

/// Without a drone, and mostly without USB where tests run: one key tells why.
#[test]
fn the_doctor_is_one_key_away_where_nothing_is_found() {
    let mut session = Session::start(&[], &[]);
    session.until("What to do");
    session.press("d");
    let screen = session.until("Doctor");
    assert!(screen.contains("USB") && screen.contains("drone"), "{screen}");
    session.press("\x1b");
    session.until("Enter");
    session.press("q");
}

/// A defect in the thread that flashes is a failed job: the interface lives, says so, and can do it again.
#[test]
fn a_panic_of_the_worker_leaves_the_interface_alive() {
    let mut session = Session::flashing("defect");
    let screen = session.until("a defect, as asked for");
    assert!(screen.contains("please report it") && screen.contains("no complete firmware"), "{screen}");
    session.press("r");
    session.agree();
    session.until("Flashed and verified");
    session.press("q");
    assert_eq!(session.ended(), 0);
    session.is_restored();
}

/// M5: a build that was made anew after the file was chosen is what is flashed, and the plan says so.
#[test]
fn m5_a_file_that_changed_since_it_was_chosen_is_read_again() {
    let mut session = Session::start(&["cf2.bin", "--demo=dfu"], &[]);
    session.until("firmware 2026.08 for CF20");
    session.until("in DFU mode");
    std::fs::write(session.dir.path().join("cf2.bin"), firmware("2099.01", SEED_LEN)).unwrap();
    session.press("f");
    session.until("The file changed since it was chosen");
    let screen = session.until("Nothing is changed yet");
    assert!(screen.contains("firmware 2099.01"), "{screen}");
    session.agree();
    session.until("it runs 2099.01: you can fly");
    // One that is gone is not flashed.
    session.press("\r");
    session.until("What to do");
    std::fs::remove_file(session.dir.path().join("cf2.bin")).unwrap();
    session.press("f");
    session.until("No such file");
    session.press("q");
}

/// L3: a terminal that reports an absurd size is drawn on as far as somebody may see.
#[test]
fn l3_an_absurd_size_is_not_drawn() {
    let mut session = Session::start(&["cf2.bin", "--demo=dfu"], &[]);
    session.until("in DFU mode");
    let size = PtySize { rows: 65535, cols: 65535, pixel_width: 0, pixel_height: 0 };
    session.master.as_ref().unwrap().resize(size).unwrap();
    thread::sleep(Duration::from_millis(500));
    let size = PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 };
    session.master.as_ref().unwrap().resize(size).unwrap();
    // A key that comes with a change of size is shown with the next key only: crossterm (event/source/unix/mio.rs) returns at
    // the signal, and forgets that the terminal could be read as well.
    thread::sleep(Duration::from_millis(500));
    session.press("?");
    session.until("Keys");
    session.press("qq");
    assert_eq!(session.ended(), 0);
}

/// A pipe gives its content once: it is not read again when a job begins.
#[test]
fn a_firmware_from_a_pipe_is_flashed() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe.bin");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let to = pipe.clone();
    let writer = thread::spawn(move || std::fs::write(to, firmware("2026.08", SEED_LEN)).unwrap());
    let mut session = Session::start(&[pipe.to_str().unwrap(), "--demo=dfu"], &[]);
    session.until("243,176 bytes");
    session.until("in DFU mode");
    session.press("f");
    session.agree();
    session.until("Flashed and verified");
    session.press("q");
    writer.join().unwrap();
}
