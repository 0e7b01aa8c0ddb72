//! Tests how cfdfu judges a drone after its start: by the verdict of the self-test, an error that restarts the drone,
//! or silence. Also tests the console: lines may be split anywhere across packets, and cfdfu always switches the link
//! back to the radio.

use std::sync::Arc;
use std::time::Duration;

use cfdfu::app::keys::Key;
use cfdfu::app::{Msg, Which};
use cfdfu::clock::Clock;
use cfdfu::crazyflie::console::{
    ConsoleFact, ConsoleLine, ConsoleReader, Crash, Deck, Health, Module, RadioChip, SelfTest,
};
use cfdfu::job::{Boot, Command, DeviceInfo, Event, Job, LogEntry, Outcome, Report, Task};
use cfdfu::worker::Worker;

use crate::cli::Folder;
use crate::fault::{Fault, Faults, Script, faulty};
use crate::interface::{Interface, draw, text, theme};
use crate::support::{SEED_LEN, World, firmware, flash_job, run};

fn flash(scenario: &str) -> (Report, World) {
    let world = World::new(scenario);
    let report = world.run(flash_job(&firmware("2026.08", SEED_LEN))).report;
    assert_eq!(report.outcome, Outcome::Flashed, "{scenario}");
    (report, world)
}

/// Identifies a running drone and returns the health that it reports.
fn identify(scenario: &str) -> Health {
    let events = World::new(scenario).run(Job::new(Task::Identify)).events;
    let known = events.into_iter().find_map(|event| match event {
        Event::Known(known) => Some(*known),
        _ => None,
    });
    let Some(DeviceInfo::Running(running)) = known else { panic!("{scenario}: not identified") };
    running.health
}

#[test]
fn the_verdict_of_the_self_test_is_reported_after_a_flash() {
    let cases = [
        ("healthy", Some(SelfTest::Passed), true),
        ("bad-deck", Some(SelfTest::Failed(vec![Module::Deck])), false),
        ("bad-sensor", Some(SelfTest::Failed(vec![Module::Sensors])), false),
        ("bad-eeprom", Some(SelfTest::Failed(vec![Module::Settings])), false),
        // The console does not contain the verdict, so cfdfu reads it from a parameter.
        ("console-read", Some(SelfTest::Passed), true),
        ("console-floods", Some(SelfTest::Passed), true),
        ("radio-silent", Some(SelfTest::Passed), false),
        // The drone answers only after cfdfu has switched the link to USB a second time.
        ("slow-eeprom", Some(SelfTest::Passed), true),
        // cfdfu waits three seconds, but these self-tests take longer or do not start.
        ("slow-deck", Some(SelfTest::NotYet), false),
        ("hung-deck", Some(SelfTest::NotYet), false),
        ("hung-start", None, false),
        ("stops-at-start", None, false),
    ];
    for (scenario, self_test, flies) in cases {
        let (report, world) = flash(scenario);
        assert_eq!((report.boot, &report.health.self_test), (Boot::StaysUp, &self_test), "{scenario}");
        assert_eq!(report.flies(), flies, "{scenario}");
        assert_eq!(report.is_well(), self_test == Some(SelfTest::Passed), "{scenario}");
        assert_eq!(report.health.is_silent(), scenario == "hung-start", "{scenario}");
        assert!(scenario == "stops-at-start" || link_is_back_on_radio(&world), "{scenario}");
    }
    assert_eq!(flash("healthy").0.health.radio_chip, RadioChip::Runs("2024.10".to_owned()));
    assert_eq!(flash("radio-silent").0.health.radio_chip, RadioChip::Silent);
    let (deck, _) = flash("bad-deck");
    assert_eq!(deck.health.parts, ["DECK_CORE: Deck 0 test [FAIL]."]);
    assert_eq!(deck.health.decks, [Deck { number: Some(0), driver: "bcFlow2".to_owned() }]);
}

/// Returns whether the link was switched to USB and finally back to the radio.
fn link_is_back_on_radio(world: &World) -> bool {
    world.bus.with(0, |drone, _| drone.link_was_returned()).unwrap()
}

/// If a transfer fails while cfdfu is watching the drone, the link must not stay switched to USB, and the verdict must
/// not become wrong.
#[test]
fn the_link_is_switched_back_to_the_radio_after_any_fault() {
    for scenario in ["healthy", "bad-deck", "console-read"] {
        let flash = |script: Option<Script>| {
            let world = World::new(scenario);
            let faults = Faults::new(script, || {});
            let bus = faulty(world.bus.clone(), Arc::clone(&faults));
            let job = flash_job(&firmware("2026.08", 20_000));
            let report = run(Arc::new(bus), world.clock.clone(), job).report;
            (report, world, faults.count())
        };
        let (expected, _, transfers) = flash(None);
        assert!(transfers > 150, "{transfers}");
        for fault in [Fault::Stall, Fault::Timeout, Fault::LostAnswer] {
            // These transfers occur after the flash, while cfdfu is watching the drone.
            for at in transfers - 60..transfers {
                let (report, world, _) = flash(Some(Script { at, fault }));
                assert_eq!(report.outcome, Outcome::Flashed, "{scenario}, {fault:?} at {at}");
                let verdict = &report.health.self_test;
                assert!(
                    // The lost packet may have contained the name of the failed module.
                    *verdict == expected.health.self_test
                        || scenario == "bad-deck" && fault == Fault::LostAnswer,
                    "{scenario}, {fault:?} at {at} of {transfers}: {verdict:?}, {:?}",
                    report.boot
                );
                assert!(link_is_back_on_radio(&world), "{scenario}, {fault:?} at {at}");
            }
        }
    }
}

#[test]
fn identify_reports_the_health_of_a_running_drone() {
    assert_eq!(identify("healthy").self_test, Some(SelfTest::Passed));
    assert_eq!(identify("bad-sensor").self_test, Some(SelfTest::Failed(vec![Module::Sensors])));
    assert_eq!(identify("console-read").self_test, Some(SelfTest::Passed), "the verdict is in a parameter");
    assert!(identify("hung-start").is_silent());
    assert_eq!(identify("radio-silent").radio_chip, RadioChip::Silent);
    assert!(identify("hung-start").printed, "the firmware prints its first lines before it hangs");
}

/// The firmware stops, the watchdog restarts the firmware, and only the next run reports the cause.
#[test]
fn a_failed_assertion_is_reported_with_its_location() {
    let (report, world) = flash("asserting");
    assert_eq!((report.boot, report.booted()), (Boot::Restarts, Some(false)));
    assert_eq!(report.health.crash, Some(Crash::Assert("src/modules/src/stabilizer.c:245".to_owned())));
    assert_eq!(report.health.self_test, Some(SelfTest::Failed(vec![Module::LastRun])));
    assert!(link_is_back_on_radio(&world));
    // A drone that keeps restarting never runs long enough to report the cause.
    let (report, _) = flash("restarting");
    assert_eq!((report.boot, report.health.crash), (Boot::Restarts, None));
}

/// The simulated drone finishes its self-test 1.7 s after its start.
#[test]
fn cfdfu_stops_watching_soon_after_the_verdict_or_at_a_time_limit() {
    let watch = |scenario: &str| {
        let (report, world) = flash(scenario);
        (world.clock.now() - report.took).as_secs_f64()
    };
    let limits = [
        ("healthy", 2.6, 3.0),
        ("bad-deck", 2.6, 3.0),
        ("hung-start", 2.9, 3.5),
        ("console-read", 2.9, 3.5),
        ("slow-deck", 2.9, 3.5),
        ("asserting", 3.0, 6.5),
    ];
    for (scenario, least, most) in limits {
        let seconds = watch(scenario);
        assert!((least..most).contains(&seconds), "{scenario}: {seconds} s");
    }
}

#[test]
fn console_lines_do_not_depend_on_how_they_are_split_into_packets() {
    let text = "SYS: About to run tests in system.c.\nSYS: NRF51 version: 2023.11\nSYS: deck [FAIL]\n\
        SYS: Assert failed at src/modules/src/kalman.c:12\nIMU: BMI088 Gyro connection [FAIL]\n";
    let whole = read_lines(&[text.as_bytes()]);
    assert_eq!(whole.len(), 5);
    let expected = read_health(&whole);
    assert_eq!(expected.self_test, Some(SelfTest::Failed(vec![Module::Deck])));
    assert_eq!(expected.crash, Some(Crash::Assert("src/modules/src/kalman.c:12".to_owned())));
    assert_eq!(expected.radio_chip, RadioChip::Runs("2023.11".to_owned()));
    for at in 0..text.len() {
        let (first, second) = text.as_bytes().split_at(at);
        assert_eq!(read_lines(&[first, second]), whole, "split at {at}");
    }
    for size in 1..=30 {
        let parts: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        assert_eq!(read_lines(&parts), whole, "packets of {size} bytes");
    }
}

#[test]
fn malformed_console_output_is_harmless() {
    // The firmware prints `<F>` when its queue is full, and ends this line with a NUL.
    assert_eq!(read_lines(&[b"SYS: a<F>\n\0", b"SYS: b\n"]), [line("SYS: a", true), line("SYS: b", false)]);
    assert_eq!(read_lines(&[b"\xFF\xC3\x28\x1b[2J\xE2\x80\xAEx\n"]).len(), 1);
    assert!(!read_lines(&[b"\x1b[2J\xE2\x80\xAEx\n"])[0].text.contains(['\u{1b}', '\u{202E}']));
    let flood = read_lines(&[&[b'x'; 30][..]; 1000]);
    assert!(flood.iter().all(|line| line.text.len() <= 240) && flood.len() >= 100);
    let mut health = Health::default();
    for n in 0..10_000 {
        health.read(&line(&format!("SYS: module{n} [FAIL]"), false));
        health.read(&line(&format!("X: part {n} [FAIL]"), false));
        health.read(&line(&format!("DECK_CORE: Calling INIT on driver d{n} for deck 0"), false));
    }
    assert!(health.parts.len() <= 16 && health.decks.len() <= 16);
    assert!(matches!(&health.self_test, Some(SelfTest::Failed(modules)) if modules.len() <= 16));
    for text in ["", ": ", "SYS", "SYS: ", "SYS: [FAIL]", "SYS:  [FAIL]", "SYS: Assert failed", "[FAIL"] {
        let _ = ConsoleFact::of(text);
    }
    assert_eq!(
        ConsoleFact::of("SYS: Assert failed src/x.c:1"),
        Some(ConsoleFact::Assert("src/x.c:1".to_owned())),
        "the last line of a run that ends with a failed assertion"
    );
    assert_eq!(ConsoleFact::of("APP: Self test passed!"), None, "only the system task reports the verdict");
}

/// Returns the lines in these console packets.
fn read_lines(packets: &[&[u8]]) -> Vec<ConsoleLine> {
    let with_header = |packet: &&[u8]| [&[0x00], *packet].concat();
    let packets: Vec<Vec<u8>> = packets.iter().map(with_header).collect();
    let mut reader = ConsoleReader::default();
    packets.iter().flat_map(|packet| reader.read(packet)).collect()
}

fn line(text: &str, cut: bool) -> ConsoleLine {
    ConsoleLine { text: text.to_owned(), cut }
}

fn read_health(lines: &[ConsoleLine]) -> Health {
    let mut health = Health::default();
    for line in lines {
        health.read(line);
    }
    health
}

/// The drone is unplugged and plugged in again. Then the console job is cancelled.
#[test]
fn the_console_continues_after_a_restart_and_switches_the_link_back_to_the_radio() {
    let world = World::new("healthy");
    let worker = Worker::spawn(Arc::new(world.bus.clone()), world.clock.clone());
    worker.commands.send(Command::Run(Box::new(Job::new(Task::Console(None))))).unwrap();
    let mut texts = Vec::new();
    let mut until = |wanted: &dyn Fn(&Event) -> bool| {
        for event in &worker.events {
            if let Event::Console { line, .. } = &event {
                texts.push(line.text.clone());
            }
            if wanted(&event) {
                return;
            }
        }
        panic!("the console ended early: {texts:?}");
    };
    let prints =
        |event: &Event, text: &str| matches!(event, Event::Console { line, .. } if line.text == text);
    until(&|event| prints(event, "SYS: Free heap: 17552 bytes"));
    world.bus.with(0, |drone, now| drone.cut_power(now));
    until(&|event| matches!(event, Event::Log(_, LogEntry::ConsoleLost(_))));
    world.bus.with(0, |drone, now| drone.power_on(now));
    until(&|event| prints(event, "SYS: Self test passed!"));
    worker.commands.send(Command::Cancel).unwrap();
    let report = worker.events.iter().find_map(|event| match event {
        Event::Finished(report) => Some(report),
        _ => None,
    });
    assert_eq!(report.unwrap().outcome, Outcome::Identified);
    assert!(link_is_back_on_radio(&world));
    assert!(texts.iter().any(|text| text == "SYS: Crazyflie 2.1 is up and running!"), "{texts:?}");
}

/// The drone sends each line only once, so the interface must keep the lines.
#[test]
fn a_reopened_console_shows_the_earlier_lines_until_the_drone_restarts() {
    let mut ui = Interface::new("bad-deck");
    let shown = |ui: &Interface| text(&draw(&ui.app, &theme(), 100, 40));
    let close = |ui: &mut Interface| {
        ui.send(Msg::Key(Key::Esc));
        ui.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
        assert!(ui.app.console().is_none());
    };
    ui.press('c');
    ui.handle_until_and_scan(|event| matches!(event, Event::Log(_, LogEntry::Listening)));
    ui.world.bus.with(0, |drone, now| drone.cut_power(now));
    ui.handle_until_and_scan(|event| matches!(event, Event::Log(_, LogEntry::ConsoleLost(_))));
    ui.world.bus.with(0, |drone, now| drone.power_on(now));
    ui.handle_until_and_scan(
        |event| matches!(event, Event::Console { line, .. } if line.text == "SYS: deck [FAIL]"),
    );
    let before = shown(&ui);
    close(&mut ui);
    ui.press('c');
    let lines = |shown: &str| shown.lines().filter(|line| line.contains("DECK_CORE:")).count();
    assert!(lines(&before) >= 3 && lines(&shown(&ui)) == lines(&before), "{before}\n{}", shown(&ui));
    // After the drone has restarted, the old lines are gone.
    close(&mut ui);
    ui.world.bus.with(0, |drone, now| drone.cut_power(now));
    ui.scan_bus();
    ui.world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
    ui.scan_bus();
    ui.world.bus.with(0, |drone, now| drone.cut_power(now));
    ui.scan_bus();
    ui.world.bus.with(0, |drone, now| drone.power_on(now));
    ui.wait(Duration::from_secs(1));
    ui.press('c');
    assert!(lines(&shown(&ui)) < lines(&before), "{}", shown(&ui));
}

/// The verdict is missing if the user pressed a key to skip the wait for the verdict, or unplugged the drone.
#[test]
fn a_drone_whose_verdict_is_missing_is_not_ready_to_fly() {
    let report = |asked: bool, self_test: Option<SelfTest>| {
        let health = Box::new(Health { asked, self_test, ..Health::default() });
        Report { boot: Boot::NotWatched, health, ..Report::nothing_done(Outcome::Flashed) }
    };
    assert!(!report(true, None).flies());
    assert!(report(true, Some(SelfTest::Passed)).flies());
    assert!(report(false, None).flies(), "another program is using the link to this drone");
}

/// cfdfu sends only queries: it does not set any parameter, and the firmware still controls the LEDs.
#[test]
fn watching_a_drone_changes_nothing_on_it() {
    for scenario in ["healthy", "console-read", "bad-deck", "asserting"] {
        let (_, world) = flash(scenario);
        assert_eq!(world.bus.with(0, |drone, _| drone.led_parameter()), Some((0, 0)), "{scenario}");
        assert_eq!(world.bus.with(0, |drone, _| drone.unknown_packets()), Some(0), "{scenario}");
    }
}

/// The command line and JSON report the same problem for each drone, and the plain interface for one of them. Without
/// `--require-boot`, the exit status is 0, because the drone was flashed.
#[test]
fn each_problem_is_reported_in_every_output() {
    let folder = Folder::with_image();
    let cases = [
        ("healthy", 0, "passed", "Ready to fly!"),
        ("bad-deck", 76, "failed", "self-test failed: the deck bcFlow2"),
        ("bad-sensor", 76, "failed", "self-test failed: a motion sensor"),
        ("bad-eeprom", 76, "failed", "the settings memory (EEPROM)"),
        ("asserting", 76, "failed", "stabilizer.c:245"),
        ("restarting", 76, "", "keeps restarting"),
        ("hung-start", 76, "", "does not answer"),
        // This drone still answers cfdfu before its firmware stops.
        ("stops-at-start", 76, "", "has not reported the result of its self-test"),
        ("hung-deck", 76, "", "has not reported the result of its self-test"),
        ("slow-deck", 76, "", "has not reported the result of its self-test"),
        ("radio-silent", 0, "passed", "The radio chip has not reported its version"),
        ("radio-old", 0, "passed", "The radio chip runs 2023.11"),
        ("console-read", 0, "passed", "Ready to fly!"),
    ];
    for (scenario, status, self_test, words) in cases {
        let line = format!("flash cf2.bin --demo={scenario}");
        let on_one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let ran = folder.run(&line);
        assert_eq!(ran.code, 0, "{scenario}");
        assert!(on_one_line(&ran.out).contains(words), "{scenario}: {}", ran.out);
        let strict = folder.run(&format!("{line} --require-boot"));
        assert_eq!(strict.code, status, "{scenario}: {}{}", strict.out, strict.err);
        assert!(
            on_one_line(&(strict.out.clone() + &strict.err)).contains(words),
            "{scenario}: {}",
            strict.err
        );
        let result = folder.json(&line).objects().pop().unwrap();
        assert_eq!(result["self_test"].as_str().unwrap_or_default(), self_test, "{scenario}: {result}");
        assert_eq!(result["radio_chip_silent"] == true, scenario == "radio-silent", "{scenario}: {result}");
        // The plain interface runs in real time, so test only one scenario.
        if scenario == "bad-deck" {
            let plain = folder.cfdfu(&format!("cf2.bin --plain --demo={scenario}")).input("f\nw\n").run();
            assert!(on_one_line(&plain.out).contains(words), "{scenario}: {}", plain.out);
        }
    }
}

/// Firmware 2024.2 or newer does not work with older firmware on the radio chip, and the radio chip cannot be updated
/// over USB.
#[test]
fn incompatible_versions_of_firmware_and_radio_chip_are_reported() {
    let world = World::new("healthy");
    world.bus.with(0, |drone, _| drone.traits.radio_chip = "2023.11");
    let report = world.run(flash_job(&firmware("2026.08", SEED_LEN))).report;
    assert_eq!(report.health.radio_chip, RadioChip::Runs("2023.11".to_owned()));
    // The command line warns before it writes.
    let folder = Folder::with_image();
    let out = folder.run("flash cf2.bin --demo=radio-old").out;
    let at = |text: &str| out.find(text).unwrap_or_else(|| panic!("no {text} in:\n{out}"));
    assert!(at("Warning: The radio chip runs 2023.11") < at("Erase "), "{out}");
    let all = folder.run("flash cf2.bin --all --demo=radio-old").out;
    let at = |text: &str| all.find(text).unwrap_or_else(|| panic!("no {text} in:\n{all}"));
    assert!(at("Warning: The radio chip runs 2023.11") < at("flashed"), "{all}");
    // The interface also warns if the background identify has already read the console.
    world.bus.with(0, |drone, now| drone.cut_power(now));
    world.bus.with(0, |drone, now| drone.power_on(now));
    world.clock.sleep(Duration::from_secs(3));
    let mut ui = Interface::on(world, "healthy");
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.09", SEED_LEN));
    ui.scan_bus();
    ui.press('f');
    ui.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
    let plan = text(&draw(&ui.app, &theme(), 200, 60));
    assert!(plan.contains("The radio chip runs 2023.11"), "{plan}");
    folder.write_file("old.bin", firmware("2021.06", SEED_LEN));
    let ran = folder.run("inspect old.bin");
    assert!(ran.out.contains("cannot enter DFU mode by itself"), "{}", ran.out);
    assert!(!folder.run("inspect cf2.bin").out.contains("cannot enter"));
}
