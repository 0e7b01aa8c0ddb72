//! The log: timestamped lines, the selected line, and explanations for newcomers.

use std::collections::VecDeque;
use std::time::Duration;

use crate::crazyflie::console::{ConsoleFact, Module};
use crate::dfu::Status;
use crate::job::{Level, LogEntry};
use crate::usb::descriptor::is_printable;

/// The maximum number of lines kept. Flashing logs about thirty lines.
const LINES_MAX: usize = 2000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    pub at: Duration,
    pub level: Level,
    pub text: String,
    /// The worker's entry, for [`explain`].
    pub entry: Option<LogEntry>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    lines: VecDeque<LogLine>,
    /// The number of lines ever added.
    pushed: usize,
    /// The selected line, counted from the end; `None` while the log follows new lines.
    back: Option<usize>,
}

impl Log {
    /// Adds a line. If an older line is selected, it stays selected.
    pub(crate) fn push(&mut self, at: Duration, level: Level, text: &str) {
        self.add(at, level, text, None);
    }

    /// Adds an entry from the worker.
    pub(crate) fn record(&mut self, at: Duration, level: Level, entry: LogEntry) {
        let text = match &entry {
            // Omit the "Console: " prefix, because every console line would have it.
            LogEntry::Console(line) => line.clone(),
            entry => entry.to_string(),
        };
        self.add(at, level, &text, Some(entry));
    }

    fn add(&mut self, at: Duration, level: Level, text: &str, entry: Option<LogEntry>) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.pushed += 1;
        // File names may contain escape sequences, so remove unprintable characters.
        let text = text.chars().filter(|&c| is_printable(c)).collect();
        self.lines.push_back(LogLine { at, level, text, entry });
        if let Some(back) = &mut self.back {
            *back = (*back + 1).min(self.lines.len() - 1);
        }
    }

    /// Returns the lines that are kept, oldest first.
    pub fn lines(&self) -> &VecDeque<LogLine> {
        &self.lines
    }

    /// Returns the number of lines ever added, which may exceed the number of lines kept.
    pub(crate) fn pushed(&self) -> usize {
        self.pushed
    }

    /// Returns whether the log follows new lines.
    pub(crate) fn is_following(&self) -> bool {
        self.back.is_none()
    }

    /// Returns the index of the selected line, or `None` if the log is empty.
    pub(crate) fn selected(&self) -> Option<usize> {
        self.lines.len().checked_sub(1 + self.back.unwrap_or(0))
    }

    /// Returns the selected line and its explanation, if the line has one.
    pub(crate) fn explained(&self) -> Option<(&LogLine, &'static str)> {
        let line = self.lines.get(self.selected()?)?;
        Some((line, explain(line.entry.as_ref()?)?))
    }

    /// Moves the selection down by this many lines, or up if `by` is negative. At the last line, the log follows new
    /// lines again.
    pub(crate) fn scroll(&mut self, by: isize) {
        let last = self.lines.len().saturating_sub(1);
        let back = self.back.unwrap_or(0).saturating_add_signed(-by).min(last);
        self.back = (back > 0).then_some(back);
    }

    pub(crate) fn follow(&mut self) {
        self.back = None;
    }
}

/// Explains an entry to a newcomer. Returns `None` if the entry needs no explanation.
pub fn explain(entry: &LogEntry) -> Option<&'static str> {
    use LogEntry as E;
    Some(match entry {
        E::InError(Status::FIRMWARE) => {
            "This is normal. The chip's boot ROM always starts in this state, because it has no firmware of its own to \
             return to. Nothing is wrong with your drone, and cfdfu clears the error."
        }
        E::InError(_) => {
            "The boot ROM refused an earlier request, for the reason at the end of the line. cfdfu clears the error \
             and carries on."
        }
        E::ClearingStatus => {
            "cfdfu acknowledges the boot ROM's error. Until then, the boot ROM accepts no other request."
        }
        E::SelectingAlternate(_) => {
            "The boot ROM offers several memories: 0 is the flash, 1 the option bytes (protection), 2 the OTP (the \
             board type), and 3 the programming width setting."
        }
        E::Claiming => "The drone is reserved for cfdfu until the job ends.",
        E::AskingStatus => "cfdfu asks for the boot ROM's state before it sends any other DFU request.",
        E::Opened { .. } => "The device, and the number of bytes that it accepts in one transfer.",
        E::Board(_) => {
            "Bitcraze writes the board type into memory that can never be changed. cfdfu refuses an image for a \
             different board."
        }
        E::WidthSet { words: true, .. } => {
            "By default, the boot ROM programs single bytes. With a supply above 2.7 V, as on a Crazyflie, it can \
             program four bytes at a time, several times as fast. The setting lasts until the next reset."
        }
        E::WidthSet { words: false, .. } | E::Narrowed => {
            "The boot ROM programs single bytes, its default. That is slower, but works at any supply voltage."
        }
        E::Erased { .. } => {
            "Flash must be erased before it is written, and only whole sectors can be erased."
        }
        E::Download(_) => {
            "The image, except for its first word, is sent to the drone. That word is written last, after everything else \
             has been read back. Until then the bootloader sees no firmware and waits."
        }
        E::Verified(..) => "Every byte was read back from the drone and compared with the file.",
        E::Leaving => {
            "cfdfu asks the boot ROM to start the firmware. The boot ROM disappears from USB, and the drone returns as \
             a running Crazyflie."
        }
        E::Rom(_) => {
            "The chip's built-in boot program, which can never be changed. Versions 3.x and 9.0 do not switch part of \
             the memory back on, so the drone may stay dark after flashing until you switch it off and on."
        }
        E::Runs(_) => "The running firmware reported its version over USB.",
        E::Console(line) => explain_console(&ConsoleFact::of(line)?),
        E::ConsoleLost(_) => {
            "The drone restarted, was unplugged, or is being flashed by another program. The console continues when \
             the drone is running again on the same port."
        }
        E::Entering { .. } => {
            "A running Crazyflie (2022.03 or newer) restarts in DFU mode when cfdfu requests it over USB. Then only \
             its blue LED M2 is lit, which is normal. Do not touch the button."
        }
        E::Compared { .. } | E::NothingToWrite => {
            "Sectors that already match are not rewritten, so flashing the same image again is fast."
        }
        E::CopyKept(_) => {
            "The previous firmware, saved for undo. You can flash the file like any other image."
        }
        E::Repeating(_) => {
            "A request to the boot ROM failed. cfdfu retries it up to three times, which is safe."
        }
        _ => return None,
    })
}

/// Explains a line that the drone printed.
fn explain_console(fact: &ConsoleFact) -> &'static str {
    match fact {
        ConsoleFact::TestsBegin => {
            "The firmware tests each of its modules when it starts. The verdict follows."
        }
        ConsoleFact::SelfTestPassed => {
            "All modules passed their tests: sensors, decks, EEPROM and the rest. The drone can fly."
        }
        ConsoleFact::ModuleFailed(Module::Deck) => {
            "A deck did not answer or failed its test, so the drone does not start its motors. Take off the decks, and \
             put them back one at a time."
        }
        ConsoleFact::ModuleFailed(Module::Sensors) => {
            "A motion sensor did not answer or failed its test. Put the drone on a level surface and switch it off and \
             on. Old firmware does not support the sensors of newer boards."
        }
        ConsoleFact::ModuleFailed(Module::Settings) => {
            "The EEPROM with the radio address and the stored parameters cannot be read. Rewrite the settings with \
             cfclient."
        }
        ConsoleFact::ModuleFailed(Module::LastRun) | ConsoleFact::Watchdog => {
            "The firmware stopped with an error in its last run and was restarted by the watchdog. Switch the drone \
             off and on to clear the error."
        }
        ConsoleFact::ModuleFailed(_) => {
            "A module failed its test, so the self-test failed: the drone does not start its motors."
        }
        ConsoleFact::PartFailed(_) => {
            "A part of a module failed. A later line reports whether the whole self-test failed."
        }
        ConsoleFact::Assert(_) => {
            "The firmware reached a state that must never occur, and stopped. This message names the source file \
             and line number, which the firmware's author needs."
        }
        ConsoleFact::HardFault => {
            "The processor hit an invalid instruction or address, and stopped. The firmware's author can find the \
             faulty code from the value of pc."
        }
        ConsoleFact::RadioChip(_) => {
            "The radio chip has its own firmware, which is updated over radio, not over USB."
        }
        ConsoleFact::Deck(_) => {
            "The firmware identified this deck by its built-in memory and is starting its driver."
        }
    }
}

/// Returns whether a line that the drone printed reports an error.
pub(crate) fn is_error(line: &str) -> bool {
    matches!(
        ConsoleFact::of(line),
        Some(
            ConsoleFact::ModuleFailed(_)
                | ConsoleFact::PartFailed(_)
                | ConsoleFact::Assert(_)
                | ConsoleFact::HardFault
                | ConsoleFact::Watchdog
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selected_line_stays_selected_while_lines_are_added() {
        let mut log = Log::default();
        let add = |log: &mut Log, n: usize| log.push(Duration::ZERO, Level::Info, &n.to_string());
        (0..10).for_each(|n| add(&mut log, n));
        assert_eq!((log.is_following(), log.selected()), (true, Some(9)));
        log.scroll(-3);
        assert_eq!((log.is_following(), log.selected()), (false, Some(6)));
        add(&mut log, 10);
        assert_eq!(log.selected(), Some(6));
        log.scroll(4);
        assert_eq!((log.is_following(), log.selected()), (true, Some(10)));
        log.scroll(-1000);
        assert_eq!(log.selected(), Some(0));
        log.follow();
        assert!(log.is_following());
        assert_eq!(Log::default().selected(), None);
    }
}
