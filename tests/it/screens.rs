//! What happens on the screen, as whole flows: keys in, the drone's flash and the page afterwards.

use std::time::Duration;

use cfdfu::app::keys::Key;
use cfdfu::app::update::update;
use cfdfu::app::{BusState, Effect, Msg, Screen, Slot, Stage, Which};
use cfdfu::flash::FIRMWARE_BASE;
use cfdfu::job::{DroneState, Event, Outcome, WaitFor};
use cfdfu::scan;
use cfdfu::sim::drone::Mishap;
use cfdfu::sim::images;

use crate::interface::{Interface, draw, text, theme};
use crate::support::{SEED_LEN, World, firmware};

#[test]
fn nothing_is_written_before_the_plan_is_confirmed() {
    let mut ui = Interface::new("dfu");
    let before = ui.world.flash();
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.key('f');
    ui.until(|event| matches!(event, Event::Ready(_)));
    assert!(matches!(&ui.app.screen, Screen::Job(view) if matches!(view.stage, Stage::Asking(_))));
    assert_eq!(ui.world.flash(), before);
    ui.send(Msg::Key(Key::Esc));
    ui.until(|event| matches!(event, Event::Finished(_)));
    assert_eq!(ui.app.screen, Screen::Home);
    assert_eq!(ui.world.flash(), before);
}

#[test]
fn a_restore_asks_for_a_word_and_then_brings_back_both() {
    let mut ui = Interface::new("overwritten");
    let image = firmware("2026.08", SEED_LEN);
    ui.choose(Which::Loader, "loader.bin", &images::loader());
    ui.choose(Which::Image, "cf2.bin", &image);
    ui.key('b');
    ui.until(|event| matches!(event, Event::Ready(_)));
    ui.enter();
    assert!(ui.app.notice.as_ref().is_some_and(|(text, _)| text.contains("type the word")));
    "restore".chars().for_each(|c| ui.key(c));
    ui.enter();
    ui.until(|event| matches!(event, Event::Finished(_)));
    assert!(matches!(&ui.app.screen, Screen::Outcome(report, _) if report.verified));
    assert_eq!(ui.world.flash()[0x4000..0x4000 + SEED_LEN], image);
}

/// The whole way by hand, with an early release first.
#[test]
fn the_wizard_is_lived_through_with_the_hands_of_a_beginner() {
    let mut ui = Interface::new("dead");
    let hands = |ui: &mut Interface, what: char| {
        ui.world.bus.with(0, |drone, now| match what {
            'P' => drone.plug_or_unplug(now),
            _ => drone.press_or_release(now),
        });
        ui.look();
    };
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.key('r');
    ui.enter();
    ui.wait(Duration::from_secs(1));
    hands(&mut ui, 'B');
    ui.wait(Duration::from_secs(2));
    hands(&mut ui, 'P');
    // Too early: the radio bootloader, of which USB shows nothing.
    ui.wait(Duration::from_secs(3));
    hands(&mut ui, 'B');
    for _ in 0..16 {
        ui.wait(Duration::from_secs(1));
    }
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown.contains("What do the LEDs do?"), "{shown}");
    ui.key('1');
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown.contains("held too short"), "{shown}");
    ui.enter();
    hands(&mut ui, 'P');
    ui.enter();
    hands(&mut ui, 'B');
    ui.wait(Duration::from_secs(3));
    hands(&mut ui, 'P');
    let beeps = |ui: &Interface| ui.effects.iter().filter(|e| matches!(e, Effect::Bell(_))).count();
    let before = beeps(&ui);
    ui.wait(Duration::from_secs(6));
    assert_eq!(beeps(&ui), before + 1, "told to let go");
    hands(&mut ui, 'B');
    ui.wait(Duration::from_secs(1));
    // Without another key: the plan is on its way.
    ui.until(|event| matches!(event, Event::Ready(_)));
    ui.key('w');
    ui.until(|event| matches!(event, Event::Finished(_)));
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown.contains("Flashed and verified"), "{shown}");
}

/// A board that could not be read, or one that may be no Crazyflie, is for you to decide: by a typed word, not by a key.
#[test]
fn an_unknown_board_is_flashed_only_after_a_typed_word() {
    for (scenario, words) in [
        ("unknown-board", "The board of this drone cannot be read. Type unknown"),
        ("foreign", "Nothing says that this is a Crazyflie. Type unknown"),
    ] {
        let mut ui = Interface::new(scenario);
        let before = ui.world.flash();
        let image = firmware("2026.08", SEED_LEN);
        ui.choose(Which::Image, "cf2.bin", &image);
        ui.key('f');
        ui.until(|event| matches!(event, Event::Ready(_)));
        let shown = text(&draw(&ui.app, &theme(), 80, 24));
        assert!(shown.contains(words), "{shown}");
        ui.enter();
        assert!(matches!(&ui.app.screen, Screen::Job(view) if matches!(view.stage, Stage::Asking(_))));
        assert!(ui.world.flash() == before);
        "unknown".chars().for_each(|key| ui.key(key));
        ui.enter();
        ui.until(|event| matches!(event, Event::Finished(_)));
        assert_eq!(ui.world.flash()[0x4000..0x4000 + SEED_LEN], image, "{scenario}");
    }
}

/// A drone of the same batch at the same port, with the same serial number in DFU mode, does not get what was on the other.
#[test]
fn an_undo_does_not_go_to_a_twin() {
    let mut ui = Interface::new("healthy");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.confirm('f');
    let swap = |ui: &mut Interface| {
        ui.world.bus.with(0, |drone, _| {
            let mut twin = drone.clone();
            twin.traits.uid[4] ^= 1;
            drone.swap_for(twin);
        });
        ui.look();
    };
    swap(&mut ui);
    let before = ui.world.flash();
    ui.key('u');
    ui.until(|event| matches!(event, Event::Finished(_)));
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown.contains("another drone is on port 1-1"), "{shown}");
    assert!(ui.world.flash() == before);
}

/// Whether the drone stays up is watched, and a key skips that: the flash is done.
#[test]
fn a_key_skips_the_watch_after_a_flash() {
    let mut ui = Interface::new("healthy");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.key('f');
    ui.until(|event| matches!(event, Event::Ready(_)));
    ui.key('w');
    ui.take(|event| matches!(event, Event::Waiting { what: WaitFor::StayUp, .. }));
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown.contains("waiting for it to stay up") && shown.contains("do not wait"), "{shown}");
    ui.enter();
    ui.take(|event| matches!(event, Event::Finished(_)));
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown.contains("Flashed and verified") && shown.contains("runs 2026.08"), "{shown}");
}

#[test]
fn a_drone_that_keeps_restarting_is_told_as_that() {
    let mut ui = Interface::new("restarting");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.confirm('f');
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown.contains("restarts by itself"), "{shown}");
    assert!(!shown.contains("you can fly"), "{shown}");
}

#[test]
fn two_flashes_in_a_row_and_the_second_finds_nothing_to_do() {
    let mut ui = Interface::new("healthy");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    for words in ["Flashed and verified", "Unchanged"] {
        ui.key('f');
        if words == "Flashed and verified" {
            ui.until(|event| matches!(event, Event::Ready(_)));
            ui.key('w');
        }
        ui.until(|event| matches!(event, Event::Finished(_)));
        let shown = text(&draw(&ui.app, &theme(), 80, 24));
        assert!(shown.contains(words), "{shown}");
        ui.enter();
        assert_eq!(ui.app.screen, Screen::Home);
    }
}

#[test]
fn a_cable_pulled_while_writing_is_told_and_the_job_goes_on_by_itself_when_it_is_back() {
    let mut ui = Interface::new("dfu");
    let before = ui.world.flash();
    let image = firmware("2026.08", SEED_LEN);
    ui.choose(Which::Image, "cf2.bin", &image);
    ui.key('f');
    ui.until(|event| matches!(event, Event::Ready(_)));
    // At a transfer in the middle of writing: when the worker gets there is not left to chance.
    ui.world.bus.with(0, |drone, _| drone.traits.mishap = Some((120, Mishap::Unplugged)));
    ui.key('w');
    ui.until(|event| matches!(event, Event::Finished(_)));
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown.contains("lost in mid-flash") && shown.contains("Unplug USB"), "{shown}");

    // Another drone is not taken for it.
    let mut other = scan::devices(&World::new("two").bus).unwrap().remove(1);
    other.location.ports = vec![7];
    ui.send(Msg::Bus(BusState::Devices(vec![other])));
    assert!(ui.app.job().is_none() && ui.app.notice.as_ref().unwrap().0.contains("another drone"));

    ui.world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
    ui.look();
    ui.until(|event| matches!(event, Event::Finished(_)));
    assert!(matches!(ui.app.screen, Screen::Outcome(..)), "no key was needed");
    assert_eq!(ui.world.flash()[0x4000..0x4000 + SEED_LEN], image);

    // What was there before the first try is what can be put back, not what the interruption left.
    ui.world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
    ui.look();
    ui.confirm('u');
    assert_eq!(crc32fast::hash(&ui.world.flash()), crc32fast::hash(&before));
}

/// With several drones plugged in, a job and its undo stay with the one that was chosen, though it leaves the
/// bus and comes back.
#[test]
fn an_undo_goes_to_the_drone_that_it_is_of() {
    let mut ui = Interface::new("two");
    let flash = |ui: &Interface, n: usize| {
        ui.world.bus.with(n, |drone, _| drone.memory.flash.bytes().to_vec()).unwrap()
    };
    let before = [flash(&ui, 0), flash(&ui, 1)];
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.send(Msg::Key(Key::Tab));
    for key in ['f', 'u'] {
        ui.confirm(key);
        assert!(flash(&ui, 0) == before[0], "{key}: the other drone was touched");
        assert_eq!(flash(&ui, 1) == before[1], key == 'u');
        // While it restarts it is away; then it is back.
        ui.look();
        ui.world.bus.with(1, |drone, now| drone.power_on_by_hand(now));
        ui.look();
        assert_eq!(ui.app.devices.position(), 1);
    }
    // Again it is put back what is there already; home, the file is chosen again.
    ui.key('r');
    ui.until(|event| matches!(event, Event::Finished(_)));
    assert_eq!(flash(&ui, 1), before[1]);
    ui.enter();
    assert!(matches!(ui.app.image, Slot::Ready(..)), "the file is chosen again");
}

/// An undo that cannot begin leaves everything as it is; one of an undo puts back what the first took.
#[test]
fn an_undo_is_undone_and_one_that_cannot_begin_changes_nothing() {
    let mut ui = Interface::new("dfu");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    let before = ui.world.flash();
    ui.confirm('f');
    let flashed = ui.world.flash();
    ui.world.bus.with(0, |drone, now| drone.cut_power(now));
    ui.look();
    ui.key('u');
    assert!(matches!((&ui.app.screen, &ui.app.image), (Screen::Outcome(..), Slot::Ready(..))));
    for expected in [&before, &flashed, &before] {
        ui.world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
        ui.look();
        ui.confirm('u');
        assert_eq!(crc32fast::hash(&ui.world.flash()), crc32fast::hash(expected));
    }
    ui.enter();
    assert!(matches!(&ui.app.image, Slot::Ready(path, _) if path.ends_with("cf2.bin")));
}

/// What another program has flashed since is not overwritten by a single key.
#[test]
fn an_undo_over_what_another_program_wrote_asks_for_a_word() {
    let mut ui = Interface::new("dfu");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    let before = ui.world.flash();
    ui.confirm('f');
    let radio = firmware("2025.12", SEED_LEN);
    ui.world.bus.with(0, |drone, now| {
        drone.power_on_by_hand(now);
        drone.memory.flash.place(FIRMWARE_BASE.0, &radio);
    });
    ui.look();
    ui.key('u');
    ui.until(|event| matches!(event, Event::Ready(_)));
    let screen = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(screen.contains("Another program has changed this drone"), "{screen}");
    assert!(screen.contains("cfdfu undo --allow-mismatch"), "the equal command has room: {screen}");
    ui.key('w');
    ui.enter();
    assert!(ui.world.flash() != before);
    ui.send(Msg::Key(Key::Backspace));
    "undo".chars().for_each(|c| ui.key(c));
    ui.enter();
    ui.until(|event| matches!(event, Event::Finished(_)));
    assert!(ui.world.flash() == before);
}

/// The drone's own restart into DFU mode is no coming back: a cable that is pulled later is waited for.
#[test]
fn a_running_drone_that_is_pulled_in_mid_flash_is_waited_for() {
    let mut ui = Interface::new("healthy");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.key('f');
    // The bus is seen while the drone restarts, and when it is there in DFU mode.
    ui.send(Msg::Bus(BusState::Devices(Vec::new())));
    ui.until(|event| matches!(event, Event::Ready(_)));
    ui.look();
    ui.world.bus.with(0, |drone, _| drone.traits.mishap = Some((120, Mishap::Unplugged)));
    ui.key('w');
    ui.until(|event| matches!(event, Event::Finished(_)));
    // The bus was not looked at since: the drone that is on the list is the one that is gone.
    assert!(matches!(ui.app.screen, Screen::Wizard(_)) && ui.app.resume().is_some(), "{:?}", ui.app.screen);
    ui.look();
    // Stopped while it is gone on with, it is still half flashed.
    ui.world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
    ui.look();
    assert!(ui.app.job().is_some());
    ui.key('q');
    ui.key('y');
    ui.until(|event| matches!(event, Event::Finished(_)));
    let Screen::Outcome(report, _) = &ui.app.screen else { panic!("{:?}", ui.app.screen) };
    assert!(
        matches!(report.outcome, Outcome::Cancelled(DroneState::WithoutFirmware) | Outcome::Flashed),
        "{report:?}"
    );
}

/// A backup brings its own firmware, and its boards are checked as a firmware's are.
#[test]
fn a_backup_is_restored_as_it_is_and_only_to_its_kind_of_board() {
    let whole = |firmware: &[u8]| {
        let mut whole = images::loader();
        whole.resize(0x4000, 0xFF);
        whole.extend(firmware);
        whole.resize(1024 * 1024, 0xFF);
        whole
    };
    let restore = |firmware_in_it: &[u8]| {
        let mut ui = Interface::new("overwritten");
        ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
        ui.choose(Which::Loader, "backup.bin", &whole(firmware_in_it));
        ui.key('b');
        ui.until(|event| matches!(event, Event::Ready(_) | Event::Finished(_)));
        ui
    };
    let mut ui = restore(&firmware("2024.10", SEED_LEN));
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(!shown.contains("2026.08"), "{shown}");
    "restore".chars().for_each(|c| ui.key(c));
    ui.enter();
    ui.until(|event| matches!(event, Event::Finished(_)));
    assert_eq!(ui.world.flash()[0x4000..0x4000 + SEED_LEN], firmware("2024.10", SEED_LEN));
    let bolt = images::firmware("2024.10", &[("CB10", "Crazyflie Bolt")], SEED_LEN);
    let shown = text(&draw(&restore(&bolt).app, &theme(), 80, 24));
    assert!(shown.contains("this drone's board is CF21"), "{shown}");
}

#[test]
fn one_key_puts_back_what_was_there_before() {
    let mut ui = Interface::new("dfu");
    let before = ui.world.flash();
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    for key in ['f', 'u'] {
        ui.confirm(key);
        // The drone runs now; by hand into DFU mode again.
        ui.world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
        ui.look();
    }
    assert_eq!(ui.world.flash(), before);
}

/// B1: a key that is held, or was typed ahead of the plan, confirms nothing; one press after it was read does.
#[test]
fn b1_a_held_key_does_not_confirm_a_plan() {
    let mut ui = Interface::new("dfu");
    let before = ui.world.flash();
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.key('f');
    ui.until(|event| matches!(event, Event::Ready(_)));
    // As a keyboard repeats it, over two seconds: whichever key it is.
    for key in [Key::Enter, Key::Char('f'), Key::Char('w')] {
        for _ in 0..100 {
            ui.send(Msg::Key(key.clone()));
        }
    }
    let asking = |ui: &Interface| matches!(ui.app.job().map(|view| &view.stage), Some(Stage::Asking(_)));
    assert!(asking(&ui) && ui.world.flash() == before);
    ui.wait(Duration::from_millis(300));
    ui.key('w');
    ui.until(|event| matches!(event, Event::Finished(_)));
    assert!(ui.world.flash() != before);
}

/// B1: the same for a key in the moment in which the plan appears.
#[test]
fn b1_a_key_that_was_typed_ahead_does_not_confirm_a_plan() {
    let mut ui = Interface::new("dfu");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.key('f');
    let preview = loop {
        ui.take(|_| true);
        if let Some(Stage::Asking(question)) = ui.app.job().map(|view| &view.stage) {
            break question.clone();
        }
    };
    assert!(preview.until_read(preview.shown).is_some());
    let mut app = ui.app.clone();
    app.now = preview.shown;
    let effects = update(&mut app, preview.shown + Duration::from_millis(600), Msg::Key(Key::Char('w')));
    assert!(effects.is_empty());
    let effects = update(&mut app, preview.shown + Duration::from_millis(900), Msg::Key(Key::Char('w')));
    assert_eq!(effects, [Effect::Proceed]);
}

/// B7: a plan is for a drone that is there. If it goes, nothing is left to confirm.
#[test]
fn b7_a_plan_is_disarmed_when_its_drone_goes() {
    let mut ui = Interface::new("dfu");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.key('f');
    ui.until(|event| matches!(event, Event::Ready(_)));
    ui.world.bus.with(0, |drone, now| drone.cut_power(now));
    ui.look();
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(!shown.contains("writes"), "{shown}");
    ui.key('w');
    ui.until(|event| matches!(event, Event::Finished(_)));
    assert_eq!(ui.app.screen, Screen::Home);
    assert!(
        ui.app.log.lines().iter().any(|line| line.text.contains("unplugged before anything was written"))
    );
}

/// B8: a restore that leaves the bootloader as it is does not ask for the word that says that it is overwritten.
#[test]
fn b8_a_restore_that_leaves_the_bootloader_alone_asks_for_no_word() {
    let mut ui = Interface::new("dfu");
    ui.choose(Which::Loader, "loader.bin", &images::loader());
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.key('b');
    ui.until(|event| matches!(event, Event::Ready(_)));
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(!shown.contains("Type restore"), "{shown}");
    ui.key('w');
    ui.until(|event| matches!(event, Event::Finished(_)));
    assert!(matches!(&ui.app.screen, Screen::Outcome(report, _) if report.verified));
}

/// B3, B4: the moment for the cable is said, and a button that is still held is asked about.
#[test]
fn b3_b4_the_wizard_says_when_to_plug_in_and_when_to_let_go() {
    let mut ui = Interface::new("dead");
    ui.key('r');
    ui.enter();
    let mut said = Vec::new();
    for _ in 0..40 {
        ui.wait(Duration::from_millis(500));
        said.push(text(&draw(&ui.app, &theme(), 80, 24)));
    }
    let first = |words: &str| {
        said.iter().position(|shown| shown.contains(words)).unwrap_or_else(|| panic!("{words}"))
    };
    assert!(first("Plug in at zero") < first("PLUG IN NOW"));
    assert!(first("PLUG IN NOW") < first("Let go in (seconds)"));
    assert!(first("Let go in (seconds)") < first("LET GO of the button"));
    assert!(said.last().unwrap().contains("Let go of the button."));
    ui.key('2');
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown.contains("Is the button still held?"), "{shown}");
    // Back to the question, not out of the wizard.
    ui.send(Msg::Key(Key::Esc));
    assert!(text(&draw(&ui.app, &theme(), 80, 24)).contains("What do the LEDs do?"));
}

/// A board that could not be read is asked about by a word, in a restore that leaves the bootloader alone, too.
#[test]
fn an_unknown_board_is_asked_about_in_a_restore_as_well() {
    let mut ui = Interface::new("unknown-board");
    ui.choose(Which::Loader, "loader.bin", &images::loader());
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    let before = ui.world.flash();
    ui.key('b');
    ui.until(|event| matches!(event, Event::Ready(_)));
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown.contains("cannot be read. Type unknown"), "{shown}");
    ui.key('w');
    assert!(ui.world.flash() == before && ui.app.job().is_some());
}

/// Confirmed once, an unknown board stays confirmed however often the drone is lost.
#[test]
fn a_board_that_was_confirmed_stays_confirmed_over_two_losses() {
    let mut ui = Interface::new("unknown-board");
    let image = firmware("2026.08", SEED_LEN);
    ui.choose(Which::Image, "cf2.bin", &image);
    ui.key('f');
    ui.until(|event| matches!(event, Event::Ready(_)));
    "unknown".chars().for_each(|key| ui.key(key));
    ui.world.bus.with(0, |drone, _| drone.traits.mishap = Some((120, Mishap::Unplugged)));
    ui.enter();
    for again in [Some((60, Mishap::Unplugged)), None] {
        ui.until(|event| matches!(event, Event::Finished(_)));
        assert!(ui.app.resume().is_some(), "{:?}", ui.app.screen);
        ui.world.bus.with(0, |drone, now| {
            drone.traits.mishap = again;
            drone.power_on_by_hand(now);
        });
        ui.look();
    }
    ui.until(|event| matches!(event, Event::Finished(_)));
    assert!(matches!(&ui.app.screen, Screen::Outcome(report, _) if report.verified), "{:?}", ui.app.screen);
    assert_eq!(ui.world.flash()[0x4000..0x4000 + SEED_LEN], image);
}
