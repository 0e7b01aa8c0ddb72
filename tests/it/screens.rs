//! Tests whole tasks in the interface: presses keys, then checks the drone's flash and the screen.

use std::time::Duration;

use cfdfu::app::batch::BatchStage;
use cfdfu::app::keys::Key;
use cfdfu::app::update::update;
use cfdfu::app::{BatchEffect, BusState, Effect, Goal, Msg, Screen, Slot, Stage, Undo, Which};
use cfdfu::flash::FIRMWARE_BASE;
use cfdfu::job::{DroneState, Event, Outcome, Phase, Report, Selector, Task, WaitFor};
use cfdfu::scan;
use cfdfu::sim::drone::SimFault;
use cfdfu::sim::images;
use cfdfu::supervise::{Ended, Next, RunningInstance};

use crate::any_order::disconnected;
use crate::interface::{Interface, draw, text, theme};
use crate::support::{SEED_LEN, World, firmware, flash_job};

#[test]
fn nothing_is_written_until_the_plan_is_confirmed() {
    let mut ui = Interface::new("dfu");
    let before = ui.world.flash();
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.press('f');
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    assert!(matches!(&ui.app.screen, Screen::Job(view) if matches!(view.stage, Stage::Asking(_))));
    assert_eq!(ui.world.flash(), before);
    ui.send(Msg::Key(Key::Esc));
    ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
    assert_eq!(ui.app.screen, Screen::Home);
    assert_eq!(ui.world.flash(), before);
}

#[test]
fn a_restore_asks_for_a_typed_word_and_then_writes_bootloader_and_firmware() {
    let mut ui = Interface::new("overwritten");
    let image = firmware("2026.08", SEED_LEN);
    ui.choose(Which::Loader, "loader.bin", &images::loader());
    ui.choose(Which::Image, "cf2.bin", &image);
    ui.press('b');
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    ui.press_enter();
    assert!(ui.app.notice.as_ref().is_some_and(|(text, _)| text.contains("type \"restore\"")));
    ui.confirm_restore();
    assert!(matches!(&ui.app.screen, Screen::Outcome(report, _) if report.verified));
    assert_eq!(ui.world.flash()[0x4000..0x4000 + SEED_LEN], image);
}

/// Once the drone has been unplugged and plugged in again, the outcome no longer asks for this last step. The home
/// screen then suggests a flash, not another restore.
#[test]
fn an_outcome_changes_when_the_drone_starts_later() {
    let mut ui = Interface::new("overwritten");
    ui.choose(Which::Loader, "loader.bin", &images::loader());
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.press('b');
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    ui.confirm_restore();
    let shown = |ui: &Interface| text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown(&ui).contains("One last step"), "{}", shown(&ui));
    ui.press('P');
    ui.wait(Duration::from_secs(1));
    assert!(shown(&ui).contains("One last step"), "{}", shown(&ui));
    ui.press('P');
    ui.wait(Duration::from_secs(3));
    assert!(shown(&ui).contains("Your Crazyflie has started."), "{}", shown(&ui));
    assert!(!shown(&ui).contains("One last step"), "{}", shown(&ui));
    ui.send(Msg::Key(Key::Esc));
    assert_eq!((ui.app.goal, &ui.app.screen), (Goal::Flash, &Screen::Home));
}

/// Enter does not confirm a plan, but the screen shows the key that does.
#[test]
fn enter_at_a_plan_names_the_key_that_confirms_it() {
    let mut ui = Interface::new("dfu");
    let before = ui.world.flash();
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.press('f');
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    ui.press_enter();
    assert_eq!(ui.notice(), "Press w to write, or Esc to go back.");
    assert_eq!(ui.world.flash(), before);
}

/// The user first releases the button too early.
#[test]
fn the_wizard_guides_a_beginner_through_a_recovery() {
    let mut ui = Interface::new("dead");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.press('r');
    ui.press_enter();
    ui.wait(Duration::from_secs(1));
    ui.press('B');
    ui.wait(Duration::from_secs(2));
    ui.press('P');
    // If the button is released early, the radio bootloader runs. It is not visible on USB.
    ui.wait(Duration::from_secs(3));
    ui.press('B');
    for _ in 0..16 {
        ui.wait(Duration::from_secs(1));
    }
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown.contains("What are the drone's LEDs doing?"), "{shown}");
    ui.press('1');
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown.contains("radio bootloader"), "{shown}");
    ui.press_enter();
    ui.press('P');
    ui.press_enter();
    ui.press('B');
    ui.wait(Duration::from_secs(3));
    ui.press('P');
    let beeps = |ui: &Interface| ui.effects.iter().filter(|e| matches!(e, Effect::Bell(_))).count();
    let before = beeps(&ui);
    ui.wait(Duration::from_secs(8));
    assert_eq!(beeps(&ui), before + 1, "a beep signals when to release the button");
    ui.press('B');
    ui.wait(Duration::from_secs(1));
    // The job starts without another key press.
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    ui.press('w');
    ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown.contains("Flashed and verified"), "{shown}");
}

/// The board cannot be read, or the device may not be a Crazyflie, so a single key must not confirm the plan.
#[test]
fn an_unknown_board_is_flashed_only_after_a_typed_word() {
    for (scenario, phrase) in [
        ("unknown-board", "The board of this drone could not be read. To confirm, type unknown"),
        ("foreign", "This may not be a Crazyflie. To confirm, type unknown"),
    ] {
        let mut ui = Interface::new(scenario);
        let before = ui.world.flash();
        let image = firmware("2026.08", SEED_LEN);
        ui.choose(Which::Image, "cf2.bin", &image);
        ui.press('f');
        ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
        let shown = text(&draw(&ui.app, &theme(), 80, 24));
        assert!(shown.contains(phrase), "{shown}");
        ui.press_enter();
        assert!(matches!(&ui.app.screen, Screen::Job(view) if matches!(view.stage, Stage::Asking(_))));
        assert!(ui.world.flash() == before);
        "unknown".chars().for_each(|key| ui.press(key));
        ui.press_enter();
        ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
        assert_eq!(ui.world.flash()[0x4000..0x4000 + SEED_LEN], image, "{scenario}");
    }
}

/// The twin replaces the flashed drone on the same port and has the same serial number in DFU mode.
#[test]
fn an_undo_is_refused_on_a_twin_of_the_flashed_drone() {
    let mut ui = Interface::new("healthy");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.confirm('f');
    let swap = |ui: &mut Interface| {
        ui.world.bus.with(0, |drone, _| {
            let mut twin = drone.clone();
            twin.traits.uid[4] ^= 1;
            drone.swap_for(twin);
        });
        ui.scan_bus();
    };
    swap(&mut ui);
    let before = ui.world.flash();
    ui.press('u');
    ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown.contains("a different drone is on port 1-1"), "{shown}");
    assert!(ui.world.flash() == before);
}

/// After the flash, cfdfu checks for a while that the drone keeps running.
#[test]
fn a_key_ends_the_wait_for_a_stable_start() {
    let mut ui = Interface::new("healthy");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.press('f');
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    ui.press('w');
    ui.handle_until(|event| matches!(event, Event::Waiting { what: WaitFor::StayUp, .. }));
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown.contains("Waiting for a stable start") && shown.contains("skip the wait"), "{shown}");
    ui.press_enter();
    ui.handle_until(|event| matches!(event, Event::Finished(_)));
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown.contains("Flashed and verified") && shown.contains("2026.08"), "{shown}");
}

#[test]
fn a_drone_that_keeps_restarting_is_not_reported_as_ready_to_fly() {
    let mut ui = Interface::new("restarting");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.confirm('f');
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown.contains("keeps restarting"), "{shown}");
    assert!(!shown.contains("Ready to fly"), "{shown}");
}

#[test]
fn a_second_flash_of_the_same_image_finds_nothing_to_do() {
    let mut ui = Interface::new("healthy");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    for phrase in ["Flashed and verified", "Unchanged"] {
        ui.press('f');
        if phrase == "Flashed and verified" {
            ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
            ui.press('w');
        }
        ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
        let shown = text(&draw(&ui.app, &theme(), 80, 24));
        assert!(shown.contains(phrase), "{shown}");
        ui.press_enter();
        assert_eq!(ui.app.screen, Screen::Home);
    }
}

#[test]
fn a_flash_interrupted_by_unplugging_resumes_when_the_drone_is_back() {
    let mut ui = Interface::new("dfu");
    let before = ui.world.flash();
    let image = firmware("2026.08", SEED_LEN);
    ui.choose(Which::Image, "cf2.bin", &image);
    ui.press('f');
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    // Unplug at a fixed transfer while writing, so that the moment does not depend on timing.
    ui.world.bus.with(0, |drone, _| drone.traits.fault = Some((120, SimFault::Unplugged)));
    ui.press('w');
    ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown.contains("connection dropped while") && shown.contains("Unplug USB"), "{shown}");

    // A different drone is not mistaken for the interrupted one.
    let mut other = scan::list_devices(&World::new("two").bus).unwrap().remove(1);
    other.location.ports = vec![7];
    ui.send(Msg::Bus(BusState::Devices(vec![other])));
    assert!(ui.app.job().is_none() && ui.app.notice.as_ref().unwrap().0.contains("different drone"));

    ui.world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
    ui.scan_bus();
    ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
    assert!(matches!(ui.app.screen, Screen::Outcome(..)), "the job must resume without a key press");
    assert_eq!(ui.world.flash()[0x4000..0x4000 + SEED_LEN], image);

    // Undo restores the firmware from before the first attempt, not the incomplete firmware from that attempt.
    ui.world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
    ui.scan_bus();
    ui.confirm('u');
    assert_eq!(crc32fast::hash(&ui.world.flash()), crc32fast::hash(&before));
}

/// Returns the row for the drone on this port, in the table of the batch or of the home screen.
fn row_of<'a>(shown: &'a str, port: &str) -> &'a str {
    shown.lines().find(|row| row.contains(port)).unwrap_or_else(|| panic!("no row for {port} in:\n{shown}"))
}

#[test]
fn a_running_drone_blinks_until_a_key_is_pressed() {
    for key in ['g', 'x', 'q'] {
        let mut ui = Interface::new("healthy");
        ui.effects.clear();
        ui.press('g');
        let [Effect::Start(job)] = &ui.effects[..] else { panic!("{:?}", ui.effects) };
        assert!(matches!(job.task, Task::Blink(_)) && job.device == Selector::At("1-1".parse().unwrap()));
        let shown = text(&draw(&ui.app, &theme(), 80, 24));
        assert!(shown.contains("on port 1-1  E7E7E7E751") && shown.contains("30 s left"), "{shown}");
        // Neither a bus scan nor a job event closes the screen.
        ui.scan_bus();
        ui.handle_until(|event| matches!(event, Event::Device(_)));
        assert!(ui.app.is_blinking());
        ui.press(key);
        ui.press(key);
        let cancels = ui.effects.iter().filter(|effect| **effect == Effect::Cancel).count();
        assert_eq!(
            (cancels, ui.app.is_blinking()),
            (1, true),
            "the firmware has not regained control of the LEDs yet"
        );
        ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
        assert_eq!((&ui.app.screen, ui.app.is_blinking()), (&Screen::Home, false));
        assert_eq!(ui.world.bus.with(0, |drone, _| drone.led_parameter().0), Some(0));
        // Blinking does not change the exit status, and the drone can be flashed afterwards.
        assert!(ui.app.exit.is_none());
        ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
        ui.confirm('f');
        assert!(matches!(ui.app.screen, Screen::Outcome(..)));
    }
}

/// The drone entered DFU mode after the last scan.
#[test]
fn a_notice_explains_why_a_drone_does_not_blink() {
    let mut ui = Interface::new("healthy");
    ui.world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
    ui.press('g');
    ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
    assert!(!ui.app.is_blinking());
    let notice = ui.notice();
    assert!(notice.contains("Cannot blink the LEDs"), "{notice}");
}

/// The boot ROM cannot control the LEDs.
#[test]
fn a_drone_in_dfu_mode_does_not_blink_and_the_notice_shows_its_port() {
    let mut ui = Interface::new("dfu");
    ui.effects.clear();
    ui.press('g');
    assert!(ui.notice().contains("the boot ROM cannot control the LEDs"), "{}", ui.notice());
    assert!(ui.notice().contains("on port 1-1"), "{}", ui.notice());
    assert!(ui.effects.is_empty() && !ui.app.is_blinking());
    ui.press('?');
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown.contains("blink (the boot ROM cannot control"), "{shown}");
}

#[test]
fn the_drone_of_the_selected_row_blinks_unless_its_job_is_running() {
    let mut ui = Interface::new("fleet");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.press('a');
    ui.run_all_rows();
    let blink = |ui: &mut Interface| {
        ui.effects.clear();
        ui.press('g');
        let started = ui.effects.iter().find_map(|effect| match effect {
            Effect::Start(job) => Some(job.device.clone()),
            _ => None,
        });
        if started.is_some() {
            ui.press('g');
            ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
        }
        started
    };
    let at = |port: &str| Some(Selector::At(port.parse().unwrap()));
    ui.press('j');
    assert_eq!(blink(&mut ui), at("1-1.2"));
    // The plan is still shown. The drone of the last row is in DFU mode and cannot blink.
    assert!(text(&draw(&ui.app, &theme(), 80, 24)).contains("Plan for 8 drones"));
    ui.send(Msg::Key(Key::End));
    assert_eq!(blink(&mut ui), None);
    assert!(ui.app.notice.as_ref().is_some_and(|(text, _)| text.contains("on port 1-2.1")));
    ui.wait(Duration::from_secs(2));
    ui.press('w');
    ui.run_row(1, |_| false);
    ui.scan_bus();
    assert_eq!(blink(&mut ui), None, "its job has not ended");
    ui.send(Msg::Key(Key::Home));
    ui.press('j');
    assert_eq!(blink(&mut ui), at("1-1.2"), "its job has ended, and the others continue");
    assert!(ui.app.batch().is_some_and(|view| view.stage == BatchStage::Flashing));
}

/// Enter shows the job of one drone, and Esc returns to the table.
#[test]
fn the_batch_continues_while_a_row_is_open() {
    let mut ui = Interface::new("fleet");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.press('a');
    ui.run_all_rows();
    ui.wait(Duration::from_secs(2));
    ui.press('w');
    let shown = |ui: &Interface| text(&draw(&ui.app, &theme(), 100, 30));
    let phase =
        |wanted| move |event: &Event| matches!(event, Event::Progress { phase, .. } if *phase == wanted);
    ui.run_row(0, phase(Phase::Write));
    ui.press_enter();
    let first = shown(&ui);
    assert!(first.contains("on port 1-1.1 ") && first.contains("CF21 Crazyflie 2.1"), "{first}");
    assert!(first.contains("Writing  0/") && first.contains("Erase    0x08004000"), "{first}");
    // The end of another drone's job neither closes nor changes the opened row.
    ui.run_row(1, |_| false);
    assert!(shown(&ui).contains("Writing  0/"), "{}", shown(&ui));
    // When the job of the opened row ends, its outcome is shown. No other job can start there while the batch runs.
    let ended = Ended::of(Report::nothing_done(Outcome::Flashed), false);
    ui.send(Msg::RowEnded(0, Box::new(ended)));
    assert!(matches!(ui.app.screen, Screen::Outcome(..)), "{}", shown(&ui));
    for key in ['t', 'u'] {
        ui.effects.clear();
        ui.press(key);
        assert!(ui.notice().contains("the batch is still running"), "{key}: {}", ui.notice());
        assert!(ui.effects.is_empty() && matches!(ui.app.screen, Screen::Outcome(..)), "{key}");
    }
    ui.send(Msg::Key(Key::Esc));
    assert!(shown(&ui).contains("Drones: 2 of 8 done"), "{}", shown(&ui));
    // When the batch ends while a row is open, the row accepts its usual keys.
    ui.press_enter();
    ui.run_all_rows();
    assert!(ui.app.batch().is_some_and(|view| view.stage == BatchStage::Over));
    assert!(matches!(ui.app.screen, Screen::Outcome(..)));
    ui.press('t');
    assert!(matches!(ui.app.screen, Screen::Job(_)), "{}", shown(&ui));
}

/// One key stops the job of the opened row; another stops all jobs after confirmation.
#[test]
fn an_opened_row_can_be_stopped_alone_or_with_all_others() {
    let mut ui = Interface::new("fleet");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.press('a');
    ui.run_all_rows();
    ui.wait(Duration::from_secs(2));
    ui.press('w');
    ui.run_row(1, |event| matches!(event, Event::Progress { phase: Phase::Write, .. }));
    ui.press('j');
    ui.press_enter();
    ui.effects.clear();
    ui.press('x');
    assert_eq!(ui.effects, [Effect::Batch(BatchEffect::Cancel(1))]);
    let stopping = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(stopping.contains("Stopping at the next safe point"), "{stopping}");
    ui.effects.clear();
    ui.send(Msg::Key(Key::CtrlC));
    assert!(ui.effects.is_empty(), "all jobs are stopped only after confirmation");
    ui.press('y');
    assert!(ui.effects.contains(&Effect::Batch(BatchEffect::Cancel(0))), "{:?}", ui.effects);
}

/// The effect of a key must not depend on whether the last job has just ended.
#[test]
fn a_key_pressed_just_after_the_end_of_the_batch_is_harmless() {
    let mut ui = Interface::new("two");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.press('a');
    ui.run_all_rows();
    ui.wait(Duration::from_secs(2));
    ui.press('w');
    ui.run_row(0, |_| false);
    ui.press_enter();
    ui.run_all_rows();
    ui.press('q');
    assert!(matches!(ui.app.screen, Screen::Batch(_)) && !ui.effects.contains(&Effect::Quit));
    // While the question is shown, n continues the batch. Just after the question has closed, n must not start a
    // station.
    ui.press('r');
    ui.press('q');
    ui.run_all_rows();
    ui.press('n');
    let stage = |ui: &Interface| ui.app.batch().map(|view| view.stage);
    assert_eq!(stage(&ui), Some(BatchStage::Over));
    ui.wait(Duration::from_secs(1));
    ui.press('n');
    assert_eq!(stage(&ui), Some(BatchStage::Flashing));
}

#[test]
fn a_row_that_waits_to_run_again_cannot_be_opened_and_a_stopped_row_is_not_resumed() {
    let mut ui = Interface::new("fleet");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.press('a');
    ui.run_all_rows();
    ui.wait(Duration::from_secs(2));
    ui.press('w');
    // The repeated row waits, because four other drones on its hub are entering DFU mode.
    ui.run_row(0, |_| false);
    ui.press('r');
    ui.press_enter();
    assert!(ui.notice().contains("the drone is still waiting"), "{}", ui.notice());
    // The opened row also names another cfdfu that uses the drone.
    ui.press('j');
    let holder = RunningInstance { pid: 7, port: "1-1.2".to_owned(), ..RunningInstance::default() };
    let held = Ended { others: vec![holder], ..Ended::of(Report::nothing_done(disconnected()), false) };
    ui.send(Msg::RowEnded(1, Box::new(held)));
    ui.press_enter();
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown.contains("(pid 7)"), "{shown}");
    ui.send(Msg::Key(Key::Esc));
    ui.press('j');
    ui.run_row(2, |event| matches!(event, Event::Progress { phase: Phase::Write, .. }));
    ui.press('x');
    let mut lost = Ended::of(Report::nothing_done(disconnected()), false);
    lost.next = Next::Resume(Box::new(flash_job(&firmware("2026.08", SEED_LEN))));
    ui.send(Msg::RowEnded(2, Box::new(lost)));
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(row_of(&shown, "1-1.3 ").contains("unplugged: flash it again"), "{shown}");
}

/// The table shows that the drone is lost and must be plugged in again.
#[test]
fn an_opened_row_closes_if_its_drone_is_lost() {
    let mut ui = Interface::new("two");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.press('a');
    ui.run_all_rows();
    ui.wait(Duration::from_secs(2));
    ui.press('w');
    ui.run_row(0, |event| matches!(event, Event::Progress { phase: Phase::Write, .. }));
    ui.press_enter();
    let mut lost = Ended::of(Report::nothing_done(disconnected()), false);
    lost.next = Next::Resume(Box::new(flash_job(&firmware("2026.08", SEED_LEN))));
    ui.send(Msg::RowEnded(0, Box::new(lost)));
    assert!(matches!(ui.app.screen, Screen::Batch(_)));
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(row_of(&shown, "1-1 ").contains("lost: plug it in again"), "{shown}");
    ui.press_enter();
    assert!(ui.notice().contains("the drone is lost"), "{}", ui.notice());
}

/// Only a running drone reports the radio address that serves as its name.
#[test]
fn a_drone_in_dfu_mode_is_shown_with_its_remembered_name() {
    let mut ui = Interface::new("fleet");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    let shown = |ui: &Interface| text(&draw(&ui.app, &theme(), 80, 24));
    assert!(!row_of(&shown(&ui), "1-1.2 ").contains("E7E7E7E752"), "the name has not been read yet");
    ui.press('a');
    ui.run_all_rows();
    ui.send(Msg::Key(Key::Esc));
    ui.world.bus.with(1, |drone, now| drone.power_on_by_hand(now));
    ui.scan_bus();
    let first = row_of(&shown(&ui), "1-1.2 ").to_owned();
    assert!(first.contains("in DFU mode") && first.contains("E7E7E7E752"), "{first}");
    let small = text(&draw(&ui.app, &theme(), 60, 16));
    assert!(row_of(&small, "1-1.2 ").contains("E7E7E7E752"), "{small}");
    ui.press('a');
    ui.run_all_rows();
    let plan = row_of(&shown(&ui), "1-1.2 ").to_owned();
    assert!(plan.contains("E7E7E7E752") && plan.contains("2025.02"), "{plan}");
    // A name from an earlier run is shown, too.
    let mut ui = Interface::new("fleet-dfu");
    ui.app.names.insert("53004F000551343036333233", "radio://0/80/2M/E7E7E7E7AB".parse().unwrap());
    assert!(row_of(&shown(&ui), "1-1.3 ").contains("E7E7E7E7AB"), "{}", shown(&ui));
}

/// The batch does not write to a device that may be another maker's board.
#[test]
fn a_drone_that_may_not_be_a_crazyflie_is_flashed_only_from_its_row_and_after_a_typed_word() {
    let mut ui = Interface::new("two");
    ui.world.bus.with(1, |drone, _| {
        drone.memory.otp = [0xFF; 528];
        drone.memory.flash.place(0x0800_0000, &images::foreign(500_000));
    });
    let flash = |ui: &Interface, n: usize| {
        ui.world.bus.with(n, |drone, _| drone.memory.flash.bytes().to_vec()).unwrap()
    };
    let shown = |ui: &Interface| text(&draw(&ui.app, &theme(), 80, 24));
    let before = flash(&ui, 1);
    let image = firmware("2026.08", SEED_LEN);
    ui.choose(Which::Image, "cf2.bin", &image);
    ui.press('a');
    ui.run_all_rows();
    assert!(row_of(&shown(&ui), "1-2 ").contains("may not be a Crazyflie"), "{}", shown(&ui));
    assert!(row_of(&shown(&ui), "1-1 ").contains("→ 2026.08"), "{}", shown(&ui));
    ui.wait(Duration::from_secs(2));
    ui.press('w');
    ui.run_all_rows();
    assert!(row_of(&shown(&ui), "1-2 ").contains("not a Crazyflie: not changed"), "{}", shown(&ui));
    assert!(flash(&ui, 1) == before && flash(&ui, 0)[0x4000..0x4000 + SEED_LEN] == image);
    ui.press('j');
    ui.press_enter();
    assert!(shown(&ui).contains("press t, read the plan"), "{}", shown(&ui));
    ui.press('t');
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    assert!(shown(&ui).contains("This may not be a Crazyflie. To confirm, type unknown"), "{}", shown(&ui));
    // Neither w nor Enter alone confirms the plan.
    ui.press('w');
    ui.press_enter();
    assert!(flash(&ui, 1) == before);
    ui.send(Msg::Key(Key::Backspace));
    "unknown".chars().for_each(|key| ui.press(key));
    ui.press_enter();
    ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
    assert_eq!(flash(&ui, 1)[0x4000..0x4000 + SEED_LEN], image);
}

/// The drone of the row is unplugged, so the key could only start a job on a different drone.
#[test]
fn an_opened_row_does_not_flash_a_different_drone() {
    let mut ui = Interface::new("two");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.press('a');
    ui.run_all_rows();
    ui.wait(Duration::from_secs(2));
    ui.press('w');
    ui.run_all_rows();
    ui.press('j');
    ui.press_enter();
    ui.world.bus.with(1, |drone, now| drone.cut_power(now));
    ui.scan_bus();
    ui.effects.clear();
    ui.press('t');
    assert!(ui.effects.is_empty() && matches!(ui.app.screen, Screen::Outcome(..)), "{:?}", ui.effects);
    let notice = ui.notice();
    assert!(notice.contains("the drone from port 1-2 is not plugged in"), "{notice}");
}

/// While the jobs run, the scanner does not list their drones.
#[test]
fn an_opened_row_flashes_its_own_drone_once_it_is_listed_again() {
    let mut ui = Interface::new("two");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.press('a');
    ui.run_all_rows();
    ui.wait(Duration::from_secs(2));
    ui.press('w');
    ui.run_row(1, |event| matches!(event, Event::Progress { phase: Phase::Write, .. }));
    ui.send(Msg::Bus(BusState::Devices(Vec::new())));
    ui.press('j');
    ui.press_enter();
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown.contains("on port 1-2 ") && !shown.contains("No drone"), "{shown}");
    let ended = Ended::of(Report::nothing_done(Outcome::Flashed), false);
    ui.send(Msg::RowEnded(1, Box::new(ended)));
    ui.run_all_rows();
    ui.effects.clear();
    ui.press('t');
    let Some(Effect::Start(job)) = ui.effects.last() else { panic!("{:?} {}", ui.effects, ui.notice()) };
    assert_eq!(job.device, Selector::At("1-2".parse().unwrap()));
}

/// At a station, the rows of drones that were unplugged stay in the table.
#[test]
fn the_keys_for_an_unplugged_drone_report_that_it_is_not_plugged_in() {
    let mut ui = Interface::new("two");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.press('a');
    ui.run_all_rows();
    ui.wait(Duration::from_secs(2));
    ui.press('w');
    ui.run_all_rows();
    ui.press('n');
    (0..2).for_each(|n| ui.world.bus.with(n, |drone, now| drone.cut_power(now)).unwrap());
    ui.scan_bus();
    ui.wait(Duration::from_secs(20));
    for (key, why) in [('r', "the drone was unplugged"), ('g', "the drone is not plugged in")] {
        ui.effects.clear();
        ui.press(key);
        let notice = ui.notice();
        assert!(notice.contains(why) && ui.effects.is_empty(), "{key}: {notice}");
    }
}

/// One drone was flashed alone and unplugged; then the others were flashed together.
#[test]
fn opening_a_row_does_not_change_what_is_undone() {
    let mut ui = Interface::new("fleet-dfu");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.confirm('f');
    let undone = ui.app.undo.clone();
    assert!(matches!(&undone, Undo::Ready(before) if before.drone.port == "1-1.1".parse().unwrap()));
    ui.press_enter();
    ui.world.bus.with(0, |drone, now| drone.cut_power(now));
    ui.scan_bus();
    ui.press('a');
    ui.run_all_rows();
    ui.wait(Duration::from_secs(2));
    ui.press('w');
    ui.run_all_rows();
    assert_eq!(ui.app.undo, undone);
    ui.press_enter();
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(!shown.contains("Put the previous"), "the row has nothing to undo: {shown}");
    ui.send(Msg::Key(Key::Esc));
    ui.send(Msg::Key(Key::Esc));
    assert_eq!((&ui.app.screen, &ui.app.undo), (&Screen::Home, &undone));
}

/// Two drones are plugged in. A job and its undo apply only to the selected drone, even if this drone disappears and
/// returns.
#[test]
fn an_undo_is_applied_to_the_drone_that_was_flashed() {
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
        // The drone disappears while it restarts, then returns.
        ui.scan_bus();
        ui.world.bus.with(1, |drone, now| drone.power_on_by_hand(now));
        ui.scan_bus();
        assert_eq!(ui.app.devices.position(), 1);
    }
    // Retrying the undo changes nothing. On the home screen, the previously chosen file is selected again.
    ui.press('t');
    ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
    assert_eq!(flash(&ui, 1), before[1]);
    ui.press_enter();
    assert!(matches!(ui.app.image, Slot::Ready(..)), "the chosen file is selected again");
}

/// Undoing an undo writes the newer firmware again.
#[test]
fn an_undo_can_be_undone_and_changes_nothing_without_a_drone() {
    let mut ui = Interface::new("dfu");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    let before = ui.world.flash();
    ui.confirm('f');
    let flashed = ui.world.flash();
    ui.world.bus.with(0, |drone, now| drone.cut_power(now));
    ui.scan_bus();
    ui.press('u');
    assert!(matches!((&ui.app.screen, &ui.app.image), (Screen::Outcome(..), Slot::Ready(..))));
    for expected in [&before, &flashed, &before] {
        ui.world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
        ui.scan_bus();
        ui.confirm('u');
        assert_eq!(crc32fast::hash(&ui.world.flash()), crc32fast::hash(expected));
    }
    ui.press_enter();
    assert!(matches!(&ui.app.image, Slot::Ready(file, _) if file.path.ends_with("cf2.bin")));
}

/// A single key must not overwrite firmware that another program has flashed since.
#[test]
fn an_undo_after_another_program_has_flashed_asks_for_a_typed_word() {
    let mut ui = Interface::new("dfu");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    let before = ui.world.flash();
    ui.confirm('f');
    let radio = firmware("2025.12", SEED_LEN);
    ui.world.bus.with(0, |drone, now| {
        drone.power_on_by_hand(now);
        drone.memory.flash.place(FIRMWARE_BASE.0, &radio);
    });
    ui.scan_bus();
    ui.press('u');
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    let screen = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(screen.contains("Another program has changed this drone"), "{screen}");
    assert!(screen.contains("cfdfu undo --allow-mismatch"), "the equivalent command is not shown: {screen}");
    ui.press('w');
    ui.press_enter();
    assert!(ui.world.flash() != before);
    ui.send(Msg::Key(Key::Backspace));
    "undo".chars().for_each(|c| ui.press(c));
    ui.press_enter();
    ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
    assert!(ui.world.flash() == before);
}

/// The restart into DFU mode at the beginning of the job must not count as the drone's return.
#[test]
fn a_job_that_started_on_a_running_drone_waits_if_the_drone_is_unplugged_while_flashing() {
    let mut ui = Interface::new("healthy");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.press('f');
    // The bus is scanned while the drone restarts, and again when it is in DFU mode.
    ui.send(Msg::Bus(BusState::Devices(Vec::new())));
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    ui.scan_bus();
    ui.world.bus.with(0, |drone, _| drone.traits.fault = Some((120, SimFault::Unplugged)));
    ui.press('w');
    ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
    // The job waits until the drone is plugged in again.
    assert!(matches!(ui.app.screen, Screen::Wizard(_)) && ui.app.resume().is_some(), "{:?}", ui.app.screen);
    ui.scan_bus();
    // If the resumed job is stopped before it ends, the drone has no complete firmware.
    ui.world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
    ui.scan_bus();
    assert!(ui.app.job().is_some());
    ui.press('q');
    ui.press('y');
    ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
    let Screen::Outcome(report, _) = &ui.app.screen else { panic!("{:?}", ui.app.screen) };
    assert!(
        matches!(report.outcome, Outcome::Cancelled(DroneState::WithoutFirmware) | Outcome::Flashed),
        "{report:?}"
    );
}

/// The chosen firmware is ignored, because the backup contains its own. The boards of the backup's firmware are checked
/// as usual.
#[test]
fn a_backup_is_restored_as_a_whole_and_only_to_a_matching_board() {
    let backup = |firmware: &[u8]| {
        let mut backup = images::loader();
        backup.resize(0x4000, 0xFF);
        backup.extend(firmware);
        backup.resize(1024 * 1024, 0xFF);
        backup
    };
    let restore = |backed_up: &[u8]| {
        let mut ui = Interface::new("overwritten");
        ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
        ui.choose(Which::Loader, "backup.bin", &backup(backed_up));
        ui.press('b');
        ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_) | Event::Finished(_)));
        ui
    };
    let mut ui = restore(&firmware("2024.10", SEED_LEN));
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(!shown.contains("2026.08"), "{shown}");
    ui.confirm_restore();
    assert_eq!(ui.world.flash()[0x4000..0x4000 + SEED_LEN], firmware("2024.10", SEED_LEN));
    let bolt = images::firmware("2024.10", &[("CB10", "Crazyflie Bolt")], SEED_LEN);
    let shown = text(&draw(&restore(&bolt).app, &theme(), 80, 24));
    assert!(shown.contains("this drone's board is CF21"), "{shown}");
}

#[test]
fn one_key_and_a_confirmation_put_back_the_previous_firmware() {
    let mut ui = Interface::new("dfu");
    let before = ui.world.flash();
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    for key in ['f', 'u'] {
        ui.confirm(key);
        // The drone is running now: put it back into DFU mode by hand.
        ui.world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
        ui.scan_bus();
    }
    assert_eq!(ui.world.flash(), before);
}

/// A single press confirms the plan, but only once the plan has been shown for a while.
#[test]
fn a_held_key_does_not_confirm_a_plan() {
    let mut ui = Interface::new("dfu");
    let before = ui.world.flash();
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.press('f');
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    // Repeat each key as a keyboard does when the key is held down for two seconds.
    for key in [Key::Enter, Key::Char('f'), Key::Char('w')] {
        for _ in 0..100 {
            ui.send(Msg::Key(key.clone()));
        }
    }
    let asking = |ui: &Interface| matches!(ui.app.job().map(|view| &view.stage), Some(Stage::Asking(_)));
    assert!(asking(&ui) && ui.world.flash() == before);
    ui.wait(Duration::from_millis(300));
    ui.press('w');
    ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
    assert!(ui.world.flash() != before);
}

/// A key that is pressed just as the plan appears is also ignored.
#[test]
fn a_key_pressed_before_the_plan_could_be_read_does_not_confirm_the_plan() {
    let mut ui = Interface::new("dfu");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.press('f');
    let question = loop {
        ui.handle_until(|_| true);
        if let Some(Stage::Asking(question)) = ui.app.job().map(|view| &view.stage) {
            break question.clone();
        }
    };
    assert!(question.until_read(question.shown).is_some());
    let mut app = ui.app.clone();
    app.now = question.shown;
    let effects = update(&mut app, question.shown + Duration::from_millis(600), Msg::Key(Key::Char('w')));
    assert!(effects.is_empty());
    let effects = update(&mut app, question.shown + Duration::from_millis(900), Msg::Key(Key::Char('w')));
    assert_eq!(effects, [Effect::Proceed]);
}

/// Without the drone, the plan cannot be carried out.
#[test]
fn a_plan_is_withdrawn_when_its_drone_is_unplugged() {
    let mut ui = Interface::new("dfu");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.press('f');
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    ui.world.bus.with(0, |drone, now| drone.cut_power(now));
    ui.scan_bus();
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(!shown.contains("writes"), "{shown}");
    ui.press('w');
    ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
    assert_eq!(ui.app.screen, Screen::Home);
    assert!(
        ui.app.log.lines().iter().any(|line| line.text.contains("unplugged before anything was written"))
    );
}

/// The typed word confirms overwriting the bootloader, which this restore does not do.
#[test]
fn a_restore_that_does_not_change_the_bootloader_needs_no_typed_word() {
    let mut ui = Interface::new("dfu");
    ui.choose(Which::Loader, "loader.bin", &images::loader());
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.press('b');
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(!shown.contains("type restore"), "{shown}");
    ui.press('w');
    ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
    assert!(matches!(&ui.app.screen, Screen::Outcome(report, _) if report.verified));
}

/// If the button may still be held, the wizard reminds the user to let go.
#[test]
fn the_wizard_shows_when_to_plug_in_and_when_to_let_go() {
    let mut ui = Interface::new("dead");
    ui.press('r');
    ui.press_enter();
    let mut screens = Vec::new();
    for _ in 0..40 {
        ui.wait(Duration::from_millis(500));
        screens.push(text(&draw(&ui.app, &theme(), 80, 24)));
    }
    let first = |phrase: &str| {
        screens.iter().position(|shown| shown.contains(phrase)).unwrap_or_else(|| panic!("{phrase}"))
    };
    assert!(first("Plug in USB in") < first("PLUG IN NOW"));
    assert!(first("PLUG IN NOW") < first("Let go in"));
    assert!(first("Let go in") < first("LET GO of the button"));
    assert!(screens.last().unwrap().contains("Let go of the button."));
    ui.press('2');
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown.contains("The button is still held, or"), "{shown}");
    // Esc returns to the question and does not close the wizard.
    ui.send(Msg::Key(Key::Esc));
    assert!(text(&draw(&ui.app, &theme(), 80, 24)).contains("What are the drone's LEDs doing?"));
}

/// The restore does not change the bootloader, but the board cannot be read.
#[test]
fn a_restore_on_an_unknown_board_asks_for_a_typed_word() {
    let mut ui = Interface::new("unknown-board");
    ui.choose(Which::Loader, "loader.bin", &images::loader());
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    let before = ui.world.flash();
    ui.press('b');
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown.contains("could not be read. To confirm, type unknown"), "{shown}");
    ui.press('w');
    assert!(ui.world.flash() == before && ui.app.job().is_some());
}

#[test]
fn an_unknown_board_that_was_confirmed_stays_confirmed_after_two_disconnects() {
    let mut ui = Interface::new("unknown-board");
    let image = firmware("2026.08", SEED_LEN);
    ui.choose(Which::Image, "cf2.bin", &image);
    ui.press('f');
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    "unknown".chars().for_each(|key| ui.press(key));
    ui.world.bus.with(0, |drone, _| drone.traits.fault = Some((120, SimFault::Unplugged)));
    ui.press_enter();
    for again in [Some((60, SimFault::Unplugged)), None] {
        ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
        assert!(ui.app.resume().is_some(), "{:?}", ui.app.screen);
        ui.world.bus.with(0, |drone, now| {
            drone.traits.fault = again;
            drone.power_on_by_hand(now);
        });
        ui.scan_bus();
    }
    ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
    assert!(matches!(&ui.app.screen, Screen::Outcome(report, _) if report.verified), "{:?}", ui.app.screen);
    assert_eq!(ui.world.flash()[0x4000..0x4000 + SEED_LEN], image);
}

fn press(ui: &mut Interface, key: &Key, times: usize) {
    (0..times).for_each(|_| ui.send(Msg::Key(key.clone())));
}

#[test]
fn the_log_fills_its_panel_when_it_is_scrolled() {
    let mut ui = Interface::new("healthy");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.confirm('f');
    ui.press('l');
    let shown = |ui: &Interface| text(&draw(&ui.app, &theme(), 80, 24));
    let first = ui.app.log.lines()[0].text.clone();
    assert!(ui.app.log.lines().len() > 25, "the log has more lines than fit");
    press(&mut ui, &Key::PageUp, 12);
    let top = shown(&ui);
    let rows = top.lines().filter(|row| row.starts_with('│') && row.contains(char::is_alphanumeric)).count();
    assert!(top.contains(first.split_whitespace().next().unwrap()) && rows >= 19, "{rows} rows:\n{top}");
    press(&mut ui, &Key::End, 1);
    let last = ui.app.log.lines().back().unwrap().text.clone();
    assert!(shown(&ui).contains(&last), "{last}");
    press(&mut ui, &Key::Home, 1);
    assert_eq!(shown(&ui), top);
}

/// A path longer than its row scrolls to keep the cursor in view.
#[test]
fn a_path_is_edited_at_its_cursor() {
    let mut ui = Interface::new("healthy");
    ui.press('i');
    "/abcdef".chars().for_each(|letter| ui.press(letter));
    press(&mut ui, &Key::Left, 3);
    ui.press('X');
    let row = |ui: &Interface| {
        let shown = text(&draw(&ui.app, &theme(), 80, 24));
        shown.lines().find(|row| row.contains("path ")).unwrap().to_owned()
    };
    assert!(row(&ui).contains("path /abcXdef"), "{}", row(&ui));
    press(&mut ui, &Key::Home, 1);
    press(&mut ui, &Key::Delete, 1);
    assert!(row(&ui).contains("path abcXdef"), "{}", row(&ui));
    press(&mut ui, &Key::CtrlU, 1);
    ("x".repeat(120) + "end").chars().for_each(|letter| ui.press(letter));
    assert!(row(&ui).contains("xend"), "{}", row(&ui));
}

/// An ellipsis marks the keys that do not fit in the footer, and the help lists them.
#[test]
fn the_footer_marks_keys_that_do_not_fit() {
    let mut ui = Interface::new("two");
    let shown = text(&draw(&ui.app, &theme(), 60, 16));
    let footer = shown.lines().last().unwrap();
    assert!(footer.ends_with('…') && !footer.contains("rescue"), "{footer}");
    ui.press('?');
    assert!(text(&draw(&ui.app, &theme(), 60, 16)).contains("rescue"));
}

/// An overlay that does not fit on a small screen can be scrolled, and the key that closes it stays visible.
#[test]
fn a_long_overlay_scrolls_and_keeps_the_footer_visible() {
    let mut ui = Interface::new("healthy");
    let check = |n: usize| cfdfu::doctor::Check {
        name: "USB",
        verdict: cfdfu::doctor::Verdict::Bad,
        found: format!("trouble {n}"),
        remedy: "Do this.".to_owned(),
    };
    ui.send(Msg::Doctor((0..20).map(check).collect()));
    let shown = |ui: &Interface| text(&draw(&ui.app, &theme(), 60, 16));
    assert!(shown(&ui).contains("trouble 0") && !shown(&ui).contains("trouble 19"));
    assert!(shown(&ui).lines().last().unwrap().contains("Esc"), "{}", shown(&ui));
    press(&mut ui, &Key::PageDown, 9);
    assert!(shown(&ui).contains("trouble 19"), "{}", shown(&ui));
    press(&mut ui, &Key::Home, 1);
    assert!(shown(&ui).contains("trouble 0"));
}

#[test]
fn an_unusable_file_does_not_replace_the_chosen_one() {
    let mut ui = Interface::new("healthy");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.press('i');
    "/empty.bin".chars().for_each(|letter| ui.press(letter));
    ui.press_enter();
    let path = match &ui.app.image {
        Slot::Loading(file) => file.path.clone(),
        other => panic!("{other:?}"),
    };
    let problem = cfdfu::report::image_error(&cfdfu::image::ImageError::Empty);
    ui.send(Msg::Loaded(Which::Image, path, Err(problem)));
    assert!(ui.app.notice.as_ref().is_some_and(|(text, _)| text.contains("the file is empty")));
    assert!(
        matches!(&ui.app.image, Slot::Ready(file, _) if file.path.ends_with("cf2.bin")),
        "{:?}",
        ui.app.image
    );
}

#[test]
fn after_a_repair_undo_does_not_offer_the_firmware_that_did_not_start() {
    let mut ui = Interface::new("dead");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.press('r');
    ui.press_enter();
    ui.press('B');
    ui.wait(Duration::from_secs(3));
    ui.press('P');
    ui.wait(Duration::from_secs(6));
    ui.press('B');
    ui.wait(Duration::from_secs(1));
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    ui.press('w');
    ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
    let shown = text(&draw(&ui.app, &theme(), 80, 24));
    assert!(shown.contains("Flashed and verified") && !shown.contains("puts the previous"), "{shown}");
    ui.press('u');
    let notice = ui.notice();
    assert!(notice.contains("the firmware before the last flash was incomplete"), "{notice}");
}

/// On a narrow screen, the figures of a phase are cut off, but its name is not.
#[test]
fn a_narrow_screen_always_names_the_phase() {
    let mut ui = Interface::new("dfu");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.press('f');
    let mut seen = 0;
    while let Screen::Job(view) = &ui.app.screen {
        let shown = text(&draw(&ui.app, &theme(), 60, 16));
        if let Some(row) = shown.lines().find(|row| row.ends_with(" %")) {
            seen += 1;
            assert!(row.trim_start().starts_with(char::is_alphabetic), "{shown}");
        }
        let is_asking = matches!(&view.stage, Stage::Asking(_));
        if is_asking { ui.press('w') } else { ui.handle_until(|_| true) }
    }
    assert!(seen > 100, "{seen}");
}

/// While more than half a minute is left, the screen also shows the time of day at which the job ends.
#[test]
fn a_long_job_shows_the_time_of_day_at_which_it_ends() {
    let mut ui = Interface::new("dfu");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.08", SEED_LEN));
    ui.press('f');
    // The local time is 23:59:40, so the job ends on the next day.
    let began = ui.app.now;
    ui.send(Msg::TimeOfDay(Duration::from_secs(86_380)));
    let (mut long, mut short) = (0, 0);
    while let Screen::Job(view) = &ui.app.screen {
        let is_asking = matches!(&view.stage, Stage::Asking(_));
        let shown = text(&draw(&ui.app, &theme(), 80, 24));
        if let Some(row) = shown.lines().find(|row| row.contains(" s left")) {
            let (before, after) = row.split_once(" s left").unwrap();
            let left: u64 = before.rsplit(' ').next().unwrap().parse().unwrap();
            let end = |left: u64| {
                let minutes = (86_380 + (ui.app.now - began).as_secs() + left) / 60 % 1440;
                format!(", ends at {:02}:{:02}", minutes / 60, minutes % 60)
            };
            let after = after.trim_end();
            let is_right = after == end(left) || after == end(left - 1) || after == end(left + 1);
            assert!(if left > 30 { is_right } else { after.is_empty() }, "{shown}");
            *if left > 30 { &mut long } else { &mut short } += 1;
        }
        // Every message takes two seconds, as on a very slow bus.
        if !is_asking {
            ui.wait(Duration::from_secs(2));
        }
        if is_asking { ui.press('w') } else { ui.handle_until(|_| true) }
    }
    assert!(long > 0 && short > 0, "{long} {short}");
}
