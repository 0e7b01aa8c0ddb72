//! The console of the running firmware (CRTP port 0): assembles its packets into lines, and reads from the lines
//! whether the self-test passed, which module failed, and which assertion ended the last run (crazyflie-firmware:
//! `console.c`, `system.c`, `cfassert.c`, `watchdog.c`). The lines come from the device, so the length of each line and
//! of each list is limited.

use super::{Release, crtp};
use crate::usb::descriptor::is_printable;

/// The maximum length of a line in bytes. The firmware's own lines are shorter than 100 bytes.
const LINE_MAX: usize = 240;
/// The marker that the firmware prints in place of text dropped because its queue was full.
const QUEUE_FULL: &str = "<F>";
/// The maximum length of the lists of failed modules, failed parts and decks. The firmware tests about fifteen modules
/// and supports up to four decks.
const LIST_MAX: usize = 16;

/// A line that the firmware printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsoleLine {
    pub text: String,
    /// The firmware's queue was full, so text is missing after this line.
    pub cut: bool,
}

/// Assembles console lines from CRTP packets.
#[derive(Clone, Debug, Default)]
pub struct ConsoleReader {
    line: Vec<u8>,
}

impl ConsoleReader {
    /// Reads a packet and returns the lines that it completes. Packets from other ports are ignored.
    pub fn read(&mut self, packet: &[u8]) -> Vec<ConsoleLine> {
        let mut lines = Vec::new();
        for &byte in crtp::console_text(packet).unwrap_or_default() {
            match byte {
                b'\n' => lines.extend(self.end()),
                // The marker for a full queue ends with a NUL (`console.c`).
                0 => {}
                byte => self.line.push(byte),
            }
            if self.line.len() >= LINE_MAX {
                lines.extend(self.end());
            }
        }
        lines
    }

    /// Ends the current line, even without a newline: the firmware may have restarted, or the link may have been
    /// closed.
    pub(crate) fn end(&mut self) -> Option<ConsoleLine> {
        let bytes = std::mem::take(&mut self.line);
        let text: String = String::from_utf8_lossy(&bytes).chars().filter(|&c| is_printable(c)).collect();
        let text = text.trim_end();
        let cut = text.ends_with(QUEUE_FULL);
        let text = text.strip_suffix(QUEUE_FULL).unwrap_or(text).to_owned();
        (cut || !text.is_empty()).then_some(ConsoleLine { text, cut })
    }
}

/// A module that the firmware tests when it starts, by its name in `system.c`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Module {
    Deck,
    /// `stabilizer`: mainly the motion sensors and the barometer.
    Sensors,
    /// `configblock` and `storage`: both read the EEPROM.
    Settings,
    /// `comm`: the connection to the radio chip.
    Radio,
    /// `system`: mainly the power management, which also depends on the radio chip.
    System,
    /// `watchdogNormalStart` and `cfAssertNormalStart`: the last run ended with an error.
    LastRun,
    Other(String),
}

impl Module {
    fn of(name: &str) -> Module {
        match name {
            "deck" => Module::Deck,
            "stabilizer" => Module::Sensors,
            "configblock" | "storage" => Module::Settings,
            "comm" => Module::Radio,
            "system" => Module::System,
            "watchdogNormalStart" | "cfAssertNormalStart" => Module::LastRun,
            other => Module::Other(other.to_owned()),
        }
    }
}

/// An expansion deck.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deck {
    /// The number of the deck in the lines that `deck.c` prints, if known.
    pub number: Option<u8>,
    pub driver: String,
}

/// A fact about the drone that a console line reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsoleFact {
    TestsBegin,
    SelfTestPassed,
    /// A module failed its test, so the self-test failed.
    ModuleFailed(Module),
    /// A part of a module failed, for example `IMU: BMI088 Gyro connection [FAIL]`.
    PartFailed(String),
    /// The last run ended with a failed assertion, given as `FILE:LINE` or as text.
    Assert(String),
    /// The last run ended with a hard fault.
    HardFault,
    /// The watchdog ended the last run.
    Watchdog,
    /// The version of the radio chip's firmware.
    RadioChip(String),
    Deck(Deck),
}

impl ConsoleFact {
    /// Returns the fact that a line reports, if any. The text before the first `: ` names the module that printed the
    /// line.
    pub fn of(line: &str) -> Option<ConsoleFact> {
        let (module, text) = line.split_once(": ")?;
        let text = text.trim();
        if module == "SYS" {
            return ConsoleFact::of_system(text);
        }
        if let Some(rest) = text.strip_prefix("Calling INIT on driver ").filter(|_| module == "DECK_CORE") {
            let (driver, number) = rest.split_once(" for deck ").unwrap_or((rest, ""));
            return Some(ConsoleFact::Deck(Deck { number: number.parse().ok(), driver: driver.to_owned() }));
        }
        text.contains("[FAIL").then(|| ConsoleFact::PartFailed(format!("{module}: {text}")))
    }

    /// Like [`ConsoleFact::of`], for a line from `system.c`, `cfassert.c` or `watchdog.c`, which all print under the
    /// name `SYS`.
    fn of_system(text: &str) -> Option<ConsoleFact> {
        if text == "Self test passed!" {
            return Some(ConsoleFact::SelfTestPassed);
        }
        if text.starts_with("About to run tests") {
            return Some(ConsoleFact::TestsBegin);
        }
        if let Some(name) = text.strip_suffix(" [FAIL]") {
            return Some(ConsoleFact::ModuleFailed(Module::of(name)));
        }
        if let Some(version) = text.strip_prefix("NRF51 version: ") {
            return Some(ConsoleFact::RadioChip(version.to_owned()));
        }
        if text.starts_with("The system resumed after watchdog timeout") {
            return Some(ConsoleFact::Watchdog);
        }
        if text.starts_with("Hardfault.") {
            return Some(ConsoleFact::HardFault);
        }
        // The firmware prints `Assert failed FILE:LINE` when the assertion fails, and `Assert failed at FILE:LINE` or
        // `Assert failed: TEXT` after the restart.
        let place = text.strip_prefix("Assert failed")?.trim_start_matches([':', ',']).trim_start();
        Some(ConsoleFact::Assert(place.strip_prefix("at ").unwrap_or(place).to_owned()))
    }
}

/// The verdict of the firmware's self-test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelfTest {
    Passed,
    /// The modules that failed.
    Failed(Vec<Module>),
    /// The parameter `system.selftestPassed` is 0: the self-test failed earlier, or the firmware is still starting.
    NotYet,
}

/// Why the previous run of the firmware ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Crash {
    /// A failed assertion, given as `FILE:LINE` or as text.
    Assert(String),
    HardFault,
    Watchdog,
}

/// The known state of the radio chip (nRF51).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RadioChip {
    #[default]
    Unknown,
    /// The radio chip has not reported its version to the main chip.
    Silent,
    /// The radio chip runs this version.
    Runs(String),
}

/// The health of the drone, as reported by the running firmware.
#[allow(clippy::struct_excessive_bools, reason = "independent observations")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The firmware answered at least one question.
    pub answered: bool,
    /// The firmware printed at least one line.
    pub printed: bool,
    /// The link was open, so the firmware could have answered.
    pub asked: bool,
    pub self_test: Option<SelfTest>,
    /// The parts that failed, as the firmware names them.
    pub parts: Vec<String>,
    pub crash: Option<Crash>,
    pub radio_chip: RadioChip,
    /// The decks, in the order in which the firmware printed them.
    pub decks: Vec<Deck>,
    /// The self-test has begun.
    pub tests_began: bool,
    /// The firmware's queue was full, so lines are missing.
    pub lines_lost: bool,
}

impl Health {
    /// Updates the health from a console line.
    pub fn read(&mut self, line: &ConsoleLine) {
        self.printed = true;
        self.lines_lost |= line.cut;
        match ConsoleFact::of(&line.text) {
            None => {}
            Some(ConsoleFact::TestsBegin) => self.tests_began = true,
            Some(ConsoleFact::SelfTestPassed) => self.self_test = Some(SelfTest::Passed),
            Some(ConsoleFact::ModuleFailed(module)) => {
                let mut failed = match self.self_test.take() {
                    Some(SelfTest::Failed(modules)) => modules,
                    Some(SelfTest::Passed | SelfTest::NotYet) | None => Vec::new(),
                };
                if failed.len() < LIST_MAX && !failed.contains(&module) {
                    failed.push(module);
                }
                self.self_test = Some(SelfTest::Failed(failed));
            }
            Some(ConsoleFact::PartFailed(part)) => push_unique(&mut self.parts, part),
            // The firmware prints the line with the cause after the line that names only the watchdog.
            Some(ConsoleFact::Assert(place)) => self.crash = Some(Crash::Assert(place)),
            Some(ConsoleFact::HardFault) => self.crash = Some(Crash::HardFault),
            Some(ConsoleFact::Watchdog) => {
                self.crash.get_or_insert(Crash::Watchdog);
            }
            Some(ConsoleFact::RadioChip(version)) => self.radio_chip = RadioChip::Runs(version),
            Some(ConsoleFact::Deck(deck)) => push_unique(&mut self.decks, deck),
        }
    }

    /// Applies the parameter `system.selftestPassed`, which is ignored if the console has printed a verdict or the
    /// parameter was applied before. A value of 0 is not a verdict: the parameter is also 0 while the firmware is
    /// starting (the tests alone may take seconds), and a failed module prints its own line.
    pub fn apply_self_test_parameter(&mut self, passed: bool) {
        if self.self_test.is_none() {
            self.self_test = Some(if passed { SelfTest::Passed } else { SelfTest::NotYet });
        }
    }

    /// Marks the radio chip as silent if the console has printed the start of the self-test, the self-test has
    /// finished, no line was lost, and firmware of this version should have printed the chip's version but has not.
    /// Firmware from before 2022 does not ask the chip (crazyflie-firmware PR 839).
    pub fn finish(&mut self, version: Option<&str>) {
        let asks = version.and_then(Release::of).is_some_and(|release| release >= Release::ASKS_RADIO_CHIP);
        let is_missing = self.radio_chip == RadioChip::Unknown && self.tests_began && !self.lines_lost;
        if is_missing && asks && self.has_verdict() {
            self.radio_chip = RadioChip::Silent;
        }
    }

    /// Whether the self-test has passed or failed.
    pub fn has_verdict(&self) -> bool {
        self.has_passed() || self.has_failed()
    }

    /// Returns the failed module to report. [`Module::LastRun`] is reported only if no other module failed, because the
    /// error of the last run is otherwise a consequence of that failure.
    pub fn failed_module(&self) -> Option<&Module> {
        let Some(SelfTest::Failed(modules)) = &self.self_test else { return None };
        modules.iter().find(|module| **module != Module::LastRun).or(modules.first())
    }

    /// Whether the self-test failed.
    pub fn has_failed(&self) -> bool {
        matches!(self.self_test, Some(SelfTest::Failed(_)))
    }

    /// Whether the self-test passed.
    pub fn has_passed(&self) -> bool {
        self.self_test == Some(SelfTest::Passed)
    }

    /// Whether the link was open but the firmware did not answer. Firmware that hangs while it starts may still have
    /// printed its first lines.
    pub fn is_silent(&self) -> bool {
        self.asked && !self.answered
    }

    /// Returns the drivers of the decks that failed their tests, according to lines such as
    /// `DECK_CORE: Deck 0 test [FAIL].`
    pub(crate) fn failed_decks(&self) -> Vec<&str> {
        let has_failed = |deck: &&Deck| {
            deck.number.is_some_and(|number| {
                let test = format!("DECK_CORE: Deck {number} test ");
                self.parts.iter().any(|part| part.starts_with(&test))
            })
        };
        self.decks.iter().filter(has_failed).map(|deck| deck.driver.as_str()).collect()
    }

    /// Whether the link was open but the firmware reported no self-test verdict, so that the drone is not known to be
    /// healthy.
    pub fn is_unproven(&self) -> bool {
        self.asked && !self.has_verdict()
    }

    /// Combines `self` with `before`, the health that the firmware reported over an earlier link.
    pub(crate) fn merge_earlier(self, before: &Health) -> Health {
        let mut all = before.clone();
        all.answered |= self.answered;
        all.printed |= self.printed;
        all.asked |= self.asked;
        all.tests_began |= self.tests_began;
        all.lines_lost |= self.lines_lost;
        self.parts.into_iter().for_each(|part| push_unique(&mut all.parts, part));
        self.decks.into_iter().for_each(|deck| push_unique(&mut all.decks, deck));
        all.crash = self.crash.or(all.crash);
        all.self_test = self.self_test.or(all.self_test);
        if self.radio_chip != RadioChip::Unknown {
            all.radio_chip = self.radio_chip;
        }
        all
    }

    /// Keeps only what remains known after a restart of the firmware. This includes the crash, because only the first
    /// run after a crash reports the crash.
    pub(crate) fn restarted(self) -> Health {
        let Health { answered, printed, asked, crash, .. } = self;
        Health { answered, printed, asked, crash, ..Health::default() }
    }
}

fn push_unique<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if list.len() < LIST_MAX && !list.contains(&item) {
        list.push(item);
    }
}
