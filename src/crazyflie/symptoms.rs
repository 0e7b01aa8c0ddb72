//! What a drone shows on its LEDs and on USB, what it means, and what to do about it. This module is the only source of
//! these texts: the wizard's answers, the help, and the tables in `docs/troubleshooting.md` and in the README all show
//! rows of [`SYMPTOMS`], and a test compares both files with these rows. The facts are from crazyflie2-nrf-mbs,
//! crazyflie2-stm-bootloader and crazyflie-firmware. The module also contains the remedies for a failed self-test,
//! which the outcome and the doctor show.

use super::console::{Crash, Health, Module, RadioChip, SelfTest};

/// What the user reports about the LEDs of a drone that does not appear in DFU mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leds {
    /// Two blue LEDs blink slowly.
    TwoSlow,
    /// One blue LED blinks fast.
    OneFast,
    /// One blue LED flickers.
    Flicker,
    /// One blue LED is lit.
    Solid,
    /// Two blue LEDs are lit, and nothing else happens.
    TwoLit,
    /// One or more red LEDs are lit or blinking.
    Red,
    Dark,
    /// Any other state, or the LEDs are not visible.
    Other,
}

/// A row in the table of symptoms.
#[derive(Clone, Copy, Debug)]
pub struct Symptom {
    /// The state of the LEDs. M1 is a red LED, M2 the blue LED at the back right, and M3 the blue LED at the
    /// back left.
    pub leds: &'static str,
    /// The device IDs that `lsusb` may show, or `nothing`; empty if USB does not matter.
    pub usb: &'static str,
    pub meaning: &'static str,
    pub helps: &'static str,
    /// The answer in the wizard that this row explains.
    pub answers: Option<Leds>,
    /// A frequent case, which the README also lists.
    pub in_readme: bool,
}

/// Creates a row that does not explain an answer in the wizard and is not in the README.
const fn row(leds: &'static str, usb: &'static str, meaning: &'static str, helps: &'static str) -> Symptom {
    Symptom { leds, usb, meaning, helps, answers: None, in_readme: false }
}

impl Symptom {
    const fn answers(self, leds: Leds) -> Symptom {
        Symptom { answers: Some(leds), ..self }
    }

    const fn in_readme(self) -> Symptom {
        Symptom { in_readme: true, ..self }
    }
}

/// All symptoms, in the order of the tables in the documentation.
pub const SYMPTOMS: &[Symptom] = &[
    row(
        "M2 and M3 lit, M1 blinks red",
        "0483:5740",
        "the drone is running",
        "no button needed: `cfdfu flash`, or `f` in the interface",
    )
    .in_readme(),
    row("only M2, blinking fast", "0483:df11", "the drone is in DFU mode", "`cfdfu flash`").in_readme(),
    row(
        "only M2, blinking fast",
        "nothing",
        "the button is still held, or the drone is in DFU mode and the computer does not see it",
        "let go; plug another cable directly into the computer; take the decks off; in a virtual machine, pass \
         0483:df11 through",
    )
    .answers(Leds::OneFast)
    .in_readme(),
    row(
        "only M2, lit",
        "0483:df11",
        "DFU mode requested by cfdfu: normal while cfdfu is working",
        "wait; do not press the button, which would switch the drone off",
    ),
    row(
        "M2 and M3 blink slowly",
        "nothing",
        "the radio bootloader is running: the button was released too early",
        "press the button once, unplug USB and the battery, and hold the button longer",
    )
    .answers(Leds::TwoSlow)
    .in_readme(),
    row(
        "M2 flickers very fast",
        "",
        "the button was pressed again, which ended DFU mode",
        "unplug USB and the battery, then start again",
    )
    .answers(Leds::Flicker),
    row(
        "only M2, lit",
        "nothing",
        "the button was released too early, or the drone has no firmware that starts on this board",
        "unplug USB and the battery, press the button before you plug in the cable, and hold it for eight seconds; \
         once in DFU mode, flash the drone again",
    )
    .answers(Leds::Solid)
    .in_readme(),
    row(
        "only M2, lit, and the button does not switch the drone off",
        "nothing",
        "the bootloader is missing",
        "enter DFU mode by hand, then `cfdfu restore-bootloader`, or `b` in the interface",
    )
    .in_readme(),
    row("nothing", "nothing", "the drone has no power", "try another cable or port, without a hub; charge the battery")
        .answers(Leds::Dark)
        .in_readme(),
    row(
        "M2 and M3 stay lit, and nothing else happens",
        "",
        "the firmware hangs while it starts, usually because of a deck, a sensor, or the EEPROM",
        "take the decks off, and switch the drone off and on; flash another release; if that changes nothing, suspect \
         the hardware",
    )
    .answers(Leds::TwoLit)
    .in_readme(),
    row(
        "M1 blinks red five times",
        "0483:5740",
        "the self-test failed because of a deck, a sensor, the EEPROM, or old firmware on a newer board",
        "take the decks off, and switch the drone off and on; `cfdfu identify` then names the part; flash the current \
         release for this board",
    )
    .in_readme(),
    row(
        "red LEDs are lit or blinking, and the blue LEDs do not change",
        "",
        "the firmware stopped with an error, its self-test failed, or the battery is empty",
        "take the decks off, and switch the drone off and on; check the console for messages; flash the current \
         release",
    )
    .answers(Leds::Red),
    row(
        "anything, without the button held",
        "0483:df11",
        "the radio chip is not running, so the main chip starts in DFU mode",
        "flash the drone; if it starts in DFU mode again, start the radio bootloader (switch the drone on by holding its button for 1.5 to 5 s), and update the radio chip with cfclient",
    ),
    row(
        "M2 and M3 lit, but the button does not switch the drone off, or the radio does not connect",
        "0483:5740",
        "the radio chip hangs, or its firmware is older than the main chip's",
        "unplug USB and the battery, plug them in again, then update the radio chip over radio to the same release (cfclient)",
    ),
    row(
        "flashed and verified twice, still only M2",
        "nothing",
        "the firmware is complete, so the fault is elsewhere: the radio chip, a deck, or the hardware",
        "take the decks off; install the release over radio (cfclient, Crazyradio); if that changes nothing, suspect \
         the hardware",
    ),
    row(
        "anything",
        "26ac:0016",
        "PX4's bootloader",
        "unplug the battery, enter DFU mode by hand, then `cfdfu restore-bootloader LOADER --firmware IMAGE`",
    ),
    row(
        "anything",
        "28e9:0189, 314b:0106, 2e3c:df11, 342d:dfa0 or 1eaf:0003",
        "the bootloader of another chip or board (GD32, APM32, AT32, WB32, Maple), perhaps a clone",
        "plug in the Crazyflie; cfdfu names the other device and never writes to it",
    ),
];

/// Explains an answer in the wizard in full sentences: its meaning and the remedy.
pub(crate) fn explain_answer(leds: Leds) -> String {
    let row = SYMPTOMS.iter().find(|row| row.answers == Some(leds));
    row.map_or_else(
        || {
            "Unplug USB and the battery, wait a few seconds, and try again. Watch the blue LED while you hold the \
             button: it lights up, then blinks slowly, then about twice a second. Let go only then."
                .to_owned()
        },
        |row| format!("{}. {}.", capitalised(row.meaning), capitalised(row.helps)),
    )
}

/// Capitalises the first letter.
pub(crate) fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Names what a module tests, in words that can follow `failed:`.
fn part(module: &Module, health: &Health) -> String {
    match module {
        Module::Deck => match health.failed_decks().as_slice() {
            [] => "a deck".to_owned(),
            [deck] => format!("the deck {deck}"),
            decks => format!("the decks {}", decks.join(" and ")),
        },
        Module::Sensors => "a motion sensor".to_owned(),
        Module::Settings => "the settings memory (EEPROM)".to_owned(),
        Module::Radio => "the connection to the radio chip".to_owned(),
        Module::System => "power management".to_owned(),
        Module::LastRun => "the last run ended with an error".to_owned(),
        Module::Other(name) => format!("the firmware's module `{name}`"),
    }
}

/// Returns the remedy for a module that failed its test.
pub(crate) fn remedy(module: &Module) -> &'static str {
    match module {
        Module::Deck => {
            "Take off the decks, then switch the drone off and on. If that helps, put them back one at a time to find \
             the faulty one."
        }
        Module::Sensors => {
            "Take off the decks, put the drone on a level surface, and switch it off and on. Old firmware does not \
             support the sensors of newer boards, so flash the current release. If that changes nothing, a sensor is \
             probably broken."
        }
        Module::Settings => {
            "Switch the drone off and on. If the test fails again, rewrite the settings with cfclient (Connect, \
             Configure 2.x). If that changes nothing, the EEPROM is probably broken, which flashing cannot repair."
        }
        Module::Radio | Module::System => {
            "Unplug USB and the battery, then switch the drone on. If the test fails again, use cfclient to update the \
             radio chip over radio (USB cannot reach it) to the release that you flashed."
        }
        Module::LastRun => {
            "Switch the drone off and on, which clears the error. If it comes back, undo the flash and report the \
             error to the author of the firmware."
        }
        Module::Other(_) => "Take off the decks, then switch the drone off and on.",
    }
}

/// Lists what failed, for example `a deck, a motion sensor`.
pub(crate) fn failed_parts(health: &Health) -> String {
    let Some(SelfTest::Failed(modules)) = &health.self_test else { return String::new() };
    modules.iter().map(|module| part(module, health)).collect::<Vec<_>>().join(", ")
}

/// Returns the health that a running drone reports, as rows of a label and a value.
pub(crate) fn rows(health: &Health) -> Vec<(&'static str, String)> {
    let self_test = match &health.self_test {
        Some(SelfTest::Passed) => Some("passed".to_owned()),
        Some(SelfTest::NotYet) => Some("not passed (it failed, or the drone is still starting)".to_owned()),
        Some(SelfTest::Failed(_)) => Some(format!("failed: {}", failed_parts(health))),
        None => None,
    };
    let chip = match &health.radio_chip {
        RadioChip::Unknown => None,
        RadioChip::Silent => Some("has not reported its version".to_owned()),
        RadioChip::Runs(version) => Some(version.clone()),
    };
    let parts: Vec<&str> = health.parts.iter().map(|part| part.trim_end_matches('.')).collect();
    let parts = (!parts.is_empty()).then(|| parts.join("; "));
    let decks: Vec<&str> = health.decks.iter().map(|deck| deck.driver.as_str()).collect();
    let decks = (!decks.is_empty()).then(|| decks.join(", "));
    [
        ("self-test", self_test),
        ("details", parts),
        ("last error", health.crash.as_ref().map(describe_crash)),
        ("radio chip", chip),
        ("decks", decks),
    ]
    .into_iter()
    .filter_map(|(label, text)| Some((label, text?)))
    .collect()
}

/// Describes how the last run of the firmware ended.
pub(crate) fn describe_crash(crash: &Crash) -> String {
    match crash {
        Crash::Assert(place) => format!("failed assertion, {place}"),
        Crash::HardFault => "hard fault".to_owned(),
        Crash::Watchdog => "the firmware stopped responding".to_owned(),
    }
}
