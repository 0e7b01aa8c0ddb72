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

use crate::stand::{Stand, draw, text, theme};
use crate::support::{SEED_LEN, World, firmware};

#[test]
fn nothing_is_written_before_the_plan_is_confirmed() {
    let mut stand = Stand::new("dfu");
    let before = stand.world.flash();
    stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    stand.key('f');
    stand.until(|event| matches!(event, Event::Ready(_)));
    assert!(matches!(&stand.app.screen, Screen::Job(view) if matches!(view.stage, Stage::Asking(_))));
    assert_eq!(stand.world.flash(), before);
    stand.send(Msg::Key(Key::Esc));
    stand.until(|event| matches!(event, Event::Finished(_)));
    assert_eq!(stand.app.screen, Screen::Home);
    assert_eq!(stand.world.flash(), before);
}

#[test]
fn a_restore_asks_for_a_word_and_then_brings_back_both() {
    let mut stand = Stand::new("overwritten");
    let image = firmware("2026.08", SEED_LEN);
    stand.choose(Which::Loader, "loader.bin", &images::loader());
    stand.choose(Which::Image, "cf2.bin", &image);
    stand.key('b');
    stand.until(|event| matches!(event, Event::Ready(_)));
    stand.enter();
    assert!(stand.app.notice.as_ref().is_some_and(|(text, _)| text.contains("type the word")));
    "restore".chars().for_each(|c| stand.key(c));
    stand.enter();
    stand.until(|event| matches!(event, Event::Finished(_)));
    assert!(matches!(&stand.app.screen, Screen::Outcome(report, _) if report.verified));
    assert_eq!(stand.world.flash()[0x4000..0x4000 + SEED_LEN], image);
}

/// The whole way by hand, with an early release first.
#[test]
fn the_wizard_is_lived_through_with_the_hands_of_a_beginner() {
    let mut stand = Stand::new("dead");
    let hands = |stand: &mut Stand, what: char| {
        stand.world.bus.with(0, |drone, now| match what {
            'P' => drone.plug_or_unplug(now),
            _ => drone.press_or_release(now),
        });
        stand.look();
    };
    stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    stand.key('r');
    stand.enter();
    stand.wait(Duration::from_secs(1));
    hands(&mut stand, 'B');
    stand.wait(Duration::from_secs(2));
    hands(&mut stand, 'P');
    // Too early: the radio bootloader, of which USB shows nothing.
    stand.wait(Duration::from_secs(3));
    hands(&mut stand, 'B');
    for _ in 0..16 {
        stand.wait(Duration::from_secs(1));
    }
    let shown = text(&draw(&stand.app, &theme(), 80, 24));
    assert!(shown.contains("What do the LEDs do?"), "{shown}");
    stand.key('1');
    let shown = text(&draw(&stand.app, &theme(), 80, 24));
    assert!(shown.contains("held too short"), "{shown}");
    stand.enter();
    hands(&mut stand, 'P');
    stand.enter();
    hands(&mut stand, 'B');
    stand.wait(Duration::from_secs(3));
    hands(&mut stand, 'P');
    let beeps = |stand: &Stand| stand.effects.iter().filter(|e| matches!(e, Effect::Bell(_))).count();
    let before = beeps(&stand);
    stand.wait(Duration::from_secs(6));
    assert_eq!(beeps(&stand), before + 1, "told to let go");
    hands(&mut stand, 'B');
    stand.wait(Duration::from_secs(1));
    // Without another key: the plan is on its way.
    stand.until(|event| matches!(event, Event::Ready(_)));
    stand.key('w');
    stand.until(|event| matches!(event, Event::Finished(_)));
    let shown = text(&draw(&stand.app, &theme(), 80, 24));
    assert!(shown.contains("Flashed and verified"), "{shown}");
}

/// A board that could not be read, or one that may be no Crazyflie, is for you to decide: by a typed word, not by a key.
#[test]
fn an_unknown_board_is_flashed_only_after_a_typed_word() {
    for (scenario, words) in [
        ("unknown-board", "The board of this drone cannot be read. Type unknown"),
        ("foreign", "Nothing says that this is a Crazyflie. Type unknown"),
    ] {
        let mut stand = Stand::new(scenario);
        let before = stand.world.flash();
        let image = firmware("2026.08", SEED_LEN);
        stand.choose(Which::Image, "cf2.bin", &image);
        stand.key('f');
        stand.until(|event| matches!(event, Event::Ready(_)));
        let shown = text(&draw(&stand.app, &theme(), 80, 24));
        assert!(shown.contains(words), "{shown}");
        stand.enter();
        assert!(matches!(&stand.app.screen, Screen::Job(view) if matches!(view.stage, Stage::Asking(_))));
        assert!(stand.world.flash() == before);
        "unknown".chars().for_each(|key| stand.key(key));
        stand.enter();
        stand.until(|event| matches!(event, Event::Finished(_)));
        assert_eq!(stand.world.flash()[0x4000..0x4000 + SEED_LEN], image, "{scenario}");
    }
}

/// A drone of the same batch at the same port, with the same serial number in DFU mode, does not get what was on the other.
#[test]
fn an_undo_does_not_go_to_a_twin() {
    let mut stand = Stand::new("healthy");
    stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    stand.confirm('f');
    let swap = |stand: &mut Stand| {
        stand.world.bus.with(0, |drone, _| {
            let mut twin = drone.clone();
            twin.traits.uid[4] ^= 1;
            drone.swap_for(twin);
        });
        stand.look();
    };
    swap(&mut stand);
    let before = stand.world.flash();
    stand.key('u');
    stand.until(|event| matches!(event, Event::Finished(_)));
    let shown = text(&draw(&stand.app, &theme(), 80, 24));
    assert!(shown.contains("another drone is on port 1-1"), "{shown}");
    assert!(stand.world.flash() == before);
}

/// Whether the drone stays up is watched, and a key skips that: the flash is done.
#[test]
fn a_key_skips_the_watch_after_a_flash() {
    let mut stand = Stand::new("healthy");
    stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    stand.key('f');
    stand.until(|event| matches!(event, Event::Ready(_)));
    stand.key('w');
    stand.take(|event| matches!(event, Event::Waiting { what: WaitFor::StayUp, .. }));
    let shown = text(&draw(&stand.app, &theme(), 80, 24));
    assert!(shown.contains("waiting for it to stay up") && shown.contains("do not wait"), "{shown}");
    stand.enter();
    stand.take(|event| matches!(event, Event::Finished(_)));
    let shown = text(&draw(&stand.app, &theme(), 80, 24));
    assert!(shown.contains("Flashed and verified") && shown.contains("runs 2026.08"), "{shown}");
}

#[test]
fn a_drone_that_keeps_restarting_is_told_as_that() {
    let mut stand = Stand::new("restarting");
    stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    stand.confirm('f');
    let shown = text(&draw(&stand.app, &theme(), 80, 24));
    assert!(shown.contains("restarts by itself"), "{shown}");
    assert!(!shown.contains("you can fly"), "{shown}");
}

#[test]
fn two_flashes_in_a_row_and_the_second_finds_nothing_to_do() {
    let mut stand = Stand::new("healthy");
    stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    for words in ["Flashed and verified", "Unchanged"] {
        stand.key('f');
        if words == "Flashed and verified" {
            stand.until(|event| matches!(event, Event::Ready(_)));
            stand.key('w');
        }
        stand.until(|event| matches!(event, Event::Finished(_)));
        let shown = text(&draw(&stand.app, &theme(), 80, 24));
        assert!(shown.contains(words), "{shown}");
        stand.enter();
        assert_eq!(stand.app.screen, Screen::Home);
    }
}

#[test]
fn a_cable_pulled_while_writing_is_told_and_the_job_goes_on_by_itself_when_it_is_back() {
    let mut stand = Stand::new("dfu");
    let before = stand.world.flash();
    let image = firmware("2026.08", SEED_LEN);
    stand.choose(Which::Image, "cf2.bin", &image);
    stand.key('f');
    stand.until(|event| matches!(event, Event::Ready(_)));
    // At a transfer in the middle of writing: when the worker gets there is not left to chance.
    stand.world.bus.with(0, |drone, _| drone.traits.mishap = Some((120, Mishap::Unplugged)));
    stand.key('w');
    stand.until(|event| matches!(event, Event::Finished(_)));
    let shown = text(&draw(&stand.app, &theme(), 80, 24));
    assert!(shown.contains("lost in mid-flash") && shown.contains("Unplug USB"), "{shown}");

    // Another drone is not taken for it.
    let mut other = scan::devices(&World::new("two").bus).unwrap().remove(1);
    other.location.ports = vec![7];
    stand.send(Msg::Bus(BusState::Devices(vec![other])));
    assert!(stand.app.job().is_none() && stand.app.notice.as_ref().unwrap().0.contains("another drone"));

    stand.world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
    stand.look();
    stand.until(|event| matches!(event, Event::Finished(_)));
    assert!(matches!(stand.app.screen, Screen::Outcome(..)), "no key was needed");
    assert_eq!(stand.world.flash()[0x4000..0x4000 + SEED_LEN], image);

    // What was there before the first try is what can be put back, not what the interruption left.
    stand.world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
    stand.look();
    stand.confirm('u');
    assert_eq!(crc32fast::hash(&stand.world.flash()), crc32fast::hash(&before));
}

/// With several drones plugged in, a job and its undo stay with the one that was chosen, though it leaves the
/// bus and comes back.
#[test]
fn an_undo_goes_to_the_drone_that_it_is_of() {
    let mut stand = Stand::new("two");
    let flash = |stand: &Stand, n: usize| {
        stand.world.bus.with(n, |drone, _| drone.memory.flash.bytes().to_vec()).unwrap()
    };
    let before = [flash(&stand, 0), flash(&stand, 1)];
    stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    stand.send(Msg::Key(Key::Tab));
    for key in ['f', 'u'] {
        stand.confirm(key);
        assert!(flash(&stand, 0) == before[0], "{key}: the other drone was touched");
        assert_eq!(flash(&stand, 1) == before[1], key == 'u');
        // While it restarts it is away; then it is back.
        stand.look();
        stand.world.bus.with(1, |drone, now| drone.power_on_by_hand(now));
        stand.look();
        assert_eq!(stand.app.devices.position(), 1);
    }
    // Again it is put back what is there already; home, the file is chosen again.
    stand.key('r');
    stand.until(|event| matches!(event, Event::Finished(_)));
    assert_eq!(flash(&stand, 1), before[1]);
    stand.enter();
    assert!(matches!(stand.app.image, Slot::Ready(..)), "the file is chosen again");
}

/// An undo that cannot begin leaves everything as it is; one of an undo puts back what the first took.
#[test]
fn an_undo_is_undone_and_one_that_cannot_begin_changes_nothing() {
    let mut stand = Stand::new("dfu");
    stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    let before = stand.world.flash();
    stand.confirm('f');
    let flashed = stand.world.flash();
    stand.world.bus.with(0, |drone, now| drone.cut_power(now));
    stand.look();
    stand.key('u');
    assert!(matches!((&stand.app.screen, &stand.app.image), (Screen::Outcome(..), Slot::Ready(..))));
    for expected in [&before, &flashed, &before] {
        stand.world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
        stand.look();
        stand.confirm('u');
        assert_eq!(crc32fast::hash(&stand.world.flash()), crc32fast::hash(expected));
    }
    stand.enter();
    assert!(matches!(&stand.app.image, Slot::Ready(path, _) if path.ends_with("cf2.bin")));
}

/// What another program has flashed since is not overwritten by a single key.
#[test]
fn an_undo_over_what_another_program_wrote_asks_for_a_word() {
    let mut stand = Stand::new("dfu");
    stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    let before = stand.world.flash();
    stand.confirm('f');
    let radio = firmware("2025.12", SEED_LEN);
    stand.world.bus.with(0, |drone, now| {
        drone.power_on_by_hand(now);
        drone.memory.flash.place(FIRMWARE_BASE.0, &radio);
    });
    stand.look();
    stand.key('u');
    stand.until(|event| matches!(event, Event::Ready(_)));
    let screen = text(&draw(&stand.app, &theme(), 80, 24));
    assert!(screen.contains("Another program has changed this drone"), "{screen}");
    stand.key('w');
    stand.enter();
    assert!(stand.world.flash() != before);
    stand.send(Msg::Key(Key::Backspace));
    "undo".chars().for_each(|c| stand.key(c));
    stand.enter();
    stand.until(|event| matches!(event, Event::Finished(_)));
    assert!(stand.world.flash() == before);
}

/// The drone's own restart into DFU mode is no coming back: a cable that is pulled later is waited for.
#[test]
fn a_running_drone_that_is_pulled_in_mid_flash_is_waited_for() {
    let mut stand = Stand::new("healthy");
    stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    stand.key('f');
    // The bus is seen while the drone restarts, and when it is there in DFU mode.
    stand.send(Msg::Bus(BusState::Devices(Vec::new())));
    stand.until(|event| matches!(event, Event::Ready(_)));
    stand.look();
    stand.world.bus.with(0, |drone, _| drone.traits.mishap = Some((120, Mishap::Unplugged)));
    stand.key('w');
    stand.until(|event| matches!(event, Event::Finished(_)));
    // The bus was not looked at since: the drone that is on the list is the one that is gone.
    assert!(
        matches!(stand.app.screen, Screen::Wizard(_)) && stand.app.resume().is_some(),
        "{:?}",
        stand.app.screen
    );
    stand.look();
    // Stopped while it is gone on with, it is still half flashed.
    stand.world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
    stand.look();
    assert!(stand.app.job().is_some());
    stand.key('q');
    stand.key('y');
    stand.until(|event| matches!(event, Event::Finished(_)));
    let Screen::Outcome(report, _) = &stand.app.screen else { panic!("{:?}", stand.app.screen) };
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
        let mut stand = Stand::new("overwritten");
        stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
        stand.choose(Which::Loader, "backup.bin", &whole(firmware_in_it));
        stand.key('b');
        stand.until(|event| matches!(event, Event::Ready(_) | Event::Finished(_)));
        stand
    };
    let mut stand = restore(&firmware("2024.10", SEED_LEN));
    let shown = text(&draw(&stand.app, &theme(), 80, 24));
    assert!(!shown.contains("2026.08"), "{shown}");
    "restore".chars().for_each(|c| stand.key(c));
    stand.enter();
    stand.until(|event| matches!(event, Event::Finished(_)));
    assert_eq!(stand.world.flash()[0x4000..0x4000 + SEED_LEN], firmware("2024.10", SEED_LEN));
    let bolt = images::firmware("2024.10", &[("CB10", "Crazyflie Bolt")], SEED_LEN);
    let shown = text(&draw(&restore(&bolt).app, &theme(), 80, 24));
    assert!(shown.contains("this drone's board is CF21"), "{shown}");
}

#[test]
fn one_key_puts_back_what_was_there_before() {
    let mut stand = Stand::new("dfu");
    let before = stand.world.flash();
    stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    for key in ['f', 'u'] {
        stand.confirm(key);
        // The drone runs now; by hand into DFU mode again.
        stand.world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
        stand.look();
    }
    assert_eq!(stand.world.flash(), before);
}

/// B1: a key that is held, or was typed ahead of the plan, confirms nothing; one press after it was read does.
#[test]
fn b1_a_held_key_does_not_confirm_a_plan() {
    let mut stand = Stand::new("dfu");
    let before = stand.world.flash();
    stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    stand.key('f');
    stand.until(|event| matches!(event, Event::Ready(_)));
    // As a keyboard repeats it, over two seconds: whichever key it is.
    for key in [Key::Enter, Key::Char('f'), Key::Char('w')] {
        for _ in 0..100 {
            stand.send(Msg::Key(key.clone()));
        }
    }
    let asking = |stand: &Stand| matches!(stand.app.job().map(|view| &view.stage), Some(Stage::Asking(_)));
    assert!(asking(&stand) && stand.world.flash() == before);
    stand.wait(Duration::from_millis(300));
    stand.key('w');
    stand.until(|event| matches!(event, Event::Finished(_)));
    assert!(stand.world.flash() != before);
}

/// B1: the same for a key in the moment in which the plan appears.
#[test]
fn b1_a_key_that_was_typed_ahead_does_not_confirm_a_plan() {
    let mut stand = Stand::new("dfu");
    stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    stand.key('f');
    let preview = loop {
        stand.take(|_| true);
        if let Some(Stage::Asking(question)) = stand.app.job().map(|view| &view.stage) {
            break question.clone();
        }
    };
    assert!(preview.until_read(preview.shown).is_some());
    let mut app = stand.app.clone();
    app.now = preview.shown;
    let effects = update(&mut app, preview.shown + Duration::from_millis(600), Msg::Key(Key::Char('w')));
    assert!(effects.is_empty());
    let effects = update(&mut app, preview.shown + Duration::from_millis(900), Msg::Key(Key::Char('w')));
    assert_eq!(effects, [Effect::Proceed]);
}

/// B7: a plan is for a drone that is there. If it goes, nothing is left to confirm.
#[test]
fn b7_a_plan_is_disarmed_when_its_drone_goes() {
    let mut stand = Stand::new("dfu");
    stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    stand.key('f');
    stand.until(|event| matches!(event, Event::Ready(_)));
    stand.world.bus.with(0, |drone, now| drone.cut_power(now));
    stand.look();
    let shown = text(&draw(&stand.app, &theme(), 80, 24));
    assert!(!shown.contains("writes"), "{shown}");
    stand.key('w');
    stand.until(|event| matches!(event, Event::Finished(_)));
    assert_eq!(stand.app.screen, Screen::Home);
    assert!(
        stand.app.log.lines().iter().any(|line| line.text.contains("unplugged before anything was written"))
    );
}

/// B8: a restore that leaves the bootloader as it is does not ask for the word that says that it is overwritten.
#[test]
fn b8_a_restore_that_leaves_the_bootloader_alone_asks_for_no_word() {
    let mut stand = Stand::new("dfu");
    stand.choose(Which::Loader, "loader.bin", &images::loader());
    stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    stand.key('b');
    stand.until(|event| matches!(event, Event::Ready(_)));
    let shown = text(&draw(&stand.app, &theme(), 80, 24));
    assert!(!shown.contains("Type restore"), "{shown}");
    stand.key('w');
    stand.until(|event| matches!(event, Event::Finished(_)));
    assert!(matches!(&stand.app.screen, Screen::Outcome(report, _) if report.verified));
}

/// B3, B4: the moment for the cable is said, and a button that is still held is asked about.
#[test]
fn b3_b4_the_wizard_says_when_to_plug_in_and_when_to_let_go() {
    let mut stand = Stand::new("dead");
    stand.key('r');
    stand.enter();
    let mut said = Vec::new();
    for _ in 0..40 {
        stand.wait(Duration::from_millis(500));
        said.push(text(&draw(&stand.app, &theme(), 80, 24)));
    }
    let first = |words: &str| {
        said.iter().position(|shown| shown.contains(words)).unwrap_or_else(|| panic!("{words}"))
    };
    assert!(first("Plug in at zero") < first("PLUG IN NOW"));
    assert!(first("PLUG IN NOW") < first("Let go in (seconds)"));
    assert!(first("Let go in (seconds)") < first("LET GO of the button"));
    assert!(said.last().unwrap().contains("Let go of the button."));
    stand.key('2');
    let shown = text(&draw(&stand.app, &theme(), 80, 24));
    assert!(shown.contains("Is the button still held?"), "{shown}");
    // Back to the question, not out of the wizard.
    stand.send(Msg::Key(Key::Esc));
    assert!(text(&draw(&stand.app, &theme(), 80, 24)).contains("What do the LEDs do?"));
}

/// A board that could not be read is asked about by a word, in a restore that leaves the bootloader alone, too.
#[test]
fn an_unknown_board_is_asked_about_in_a_restore_as_well() {
    let mut stand = Stand::new("unknown-board");
    stand.choose(Which::Loader, "loader.bin", &images::loader());
    stand.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    let before = stand.world.flash();
    stand.key('b');
    stand.until(|event| matches!(event, Event::Ready(_)));
    let shown = text(&draw(&stand.app, &theme(), 80, 24));
    assert!(shown.contains("cannot be read. Type unknown"), "{shown}");
    stand.key('w');
    assert!(stand.world.flash() == before && stand.app.job().is_some());
}

/// Confirmed once, an unknown board stays confirmed however often the drone is lost.
#[test]
fn a_board_that_was_confirmed_stays_confirmed_over_two_losses() {
    let mut stand = Stand::new("unknown-board");
    let image = firmware("2026.08", SEED_LEN);
    stand.choose(Which::Image, "cf2.bin", &image);
    stand.key('f');
    stand.until(|event| matches!(event, Event::Ready(_)));
    "unknown".chars().for_each(|key| stand.key(key));
    stand.world.bus.with(0, |drone, _| drone.traits.mishap = Some((120, Mishap::Unplugged)));
    stand.enter();
    for again in [Some((60, Mishap::Unplugged)), None] {
        stand.until(|event| matches!(event, Event::Finished(_)));
        assert!(stand.app.resume().is_some(), "{:?}", stand.app.screen);
        stand.world.bus.with(0, |drone, now| {
            drone.traits.mishap = again;
            drone.power_on_by_hand(now);
        });
        stand.look();
    }
    stand.until(|event| matches!(event, Event::Finished(_)));
    assert!(
        matches!(&stand.app.screen, Screen::Outcome(report, _) if report.verified),
        "{:?}",
        stand.app.screen
    );
    assert_eq!(stand.world.flash()[0x4000..0x4000 + SEED_LEN], image);
}
