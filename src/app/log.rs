//! The log as data: lines with their times, what is in view, and what a line means.

use std::collections::VecDeque;
use std::time::Duration;

use crate::dfu::Status;
use crate::job::{Level, LogEntry};
use crate::usb::descriptor::is_printable;

/// Lines that are kept; a flash has about thirty.
const KEPT: usize = 2000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    pub at: Duration,
    pub level: Level,
    pub text: String,
    /// What the worker did, if the line is of that.
    pub entry: Option<LogEntry>,
}

/// The lines, and the place in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    lines: VecDeque<LogLine>,
    /// Lines that there ever were.
    pushed: usize,
    /// The line that is looked at, counted from the end; `None` follows the end.
    back: Option<usize>,
}

impl Log {
    /// Adds a line. Who looks at an older one goes on looking at it.
    pub(crate) fn push(&mut self, at: Duration, level: Level, text: &str) {
        self.add(at, level, text, None);
    }

    /// Adds what the worker did, which can be explained.
    pub(crate) fn record(&mut self, at: Duration, level: Level, entry: LogEntry) {
        self.add(at, level, &entry.to_string(), Some(entry));
    }

    fn add(&mut self, at: Duration, level: Level, text: &str, entry: Option<LogEntry>) {
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.pushed += 1;
        // A file's name may be in it, with anything in that.
        let text = text.chars().filter(|&c| is_printable(c)).collect();
        self.lines.push_back(LogLine { at, level, text, entry });
        if let Some(back) = &mut self.back {
            *back = (*back + 1).min(self.lines.len() - 1);
        }
    }

    /// All lines, oldest first.
    pub fn lines(&self) -> &VecDeque<LogLine> {
        &self.lines
    }

    /// How many lines there ever were: more than are kept, after a while.
    pub(crate) fn pushed(&self) -> usize {
        self.pushed
    }

    /// Whether the end is followed.
    pub(crate) fn following(&self) -> bool {
        self.back.is_none()
    }

    /// The line that is looked at.
    pub(crate) fn selected(&self) -> Option<usize> {
        self.lines.len().checked_sub(1 + self.back.unwrap_or(0))
    }

    /// Moves by this many lines: up is negative. At the end it follows again.
    pub(crate) fn scroll(&mut self, by: isize) {
        let last = self.lines.len().saturating_sub(1);
        let back = self.back.unwrap_or(0).saturating_add_signed(-by).min(last);
        self.back = (back > 0).then_some(back);
    }

    pub(crate) fn follow(&mut self) {
        self.back = None;
    }
}

/// What an entry means, for a newcomer; `None` where it says all there is.
pub fn explain(entry: &LogEntry) -> Option<&'static str> {
    use LogEntry as E;
    Some(match entry {
        E::InError(Status::FIRMWARE) => {
            "Normal: the chip's boot ROM always starts in this state, for it has no firmware of its own to return to. It \
             is cleared once and has no meaning for your drone."
        }
        E::InError(_) => {
            "The boot ROM refused the last request, for the reason in brackets. It is ready again."
        }
        E::ClearingStatus => {
            "The boot ROM is told that its error was seen. Only then does it take the next request."
        }
        E::SelectingAlternate(_) => {
            "The boot ROM shows several memories: 0 is the flash, 1 the option bytes (protection), 2 the OTP (what board \
             this is), 3 the switch for the programming width."
        }
        E::Claiming => "The drone is reserved for this program until the job ends.",
        E::AskingStatus => "The boot ROM is asked what state it is in before anything else is asked of it.",
        E::Opened { .. } => "What is on the bus, and the most bytes that it takes in one transfer.",
        E::Board(_) => {
            "Bitcraze writes the type of the board into memory that can never be changed. An image for another board is \
             refused by it."
        }
        E::WidthSet { words: true, .. } => {
            "The boot ROM starts by programming single bytes. Told that the supply is above 2.7 V, as it is on a \
             Crazyflie, it programs four at a time: several times as fast. Gone with the next reset."
        }
        E::WidthSet { words: false, .. } | E::Narrowed => {
            "The boot ROM programs single bytes, as it starts. That is slower, and works at any supply voltage."
        }
        E::Erased { .. } => {
            "Flash can only be written where it was erased, and only whole sectors can be erased."
        }
        E::Download(_) => {
            "The image on its way to the drone, all but its first word. That comes last, when everything else has been \
             read back: until then the bootloader sees no firmware and waits."
        }
        E::Verified(..) => "Every byte was read back from the drone and compared with the file.",
        E::Leaving => {
            "The boot ROM is asked to start the firmware. It then vanishes from USB, and the drone comes back as a \
             running Crazyflie."
        }
        E::Rom(_) => {
            "The chip's own boot program, which can never be changed. Versions 3 and 9.0 leave a part of the memory switched \
             off, so the drone stays dark after a flash until it is switched off and on."
        }
        E::Runs(_) => "The firmware that runs now was asked for its version over USB.",
        E::Entering { .. } => {
            "A running Crazyflie (2022.03 or newer) restarts in DFU mode when it is asked over USB. Only its blue LED M2 \
             stays lit then: that is as it should be. Do not touch the button."
        }
        E::Compared { .. } | E::NothingToWrite => {
            "What is right already is left alone, which is why a second flash is so fast."
        }
        E::CopyKept(_) => "A copy of what is overwritten, to go back to. It can be flashed like any image.",
        E::Repeating(_) => {
            "A transfer went wrong. Repeating it does no harm; should it fail three times more, the job stops."
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_looks_back_stays_where_he_is_while_lines_come() {
        let mut log = Log::default();
        let add = |log: &mut Log, n: usize| log.push(Duration::ZERO, Level::Info, &n.to_string());
        (0..10).for_each(|n| add(&mut log, n));
        assert_eq!((log.following(), log.selected()), (true, Some(9)));
        log.scroll(-3);
        assert_eq!((log.following(), log.selected()), (false, Some(6)));
        add(&mut log, 10);
        assert_eq!(log.selected(), Some(6));
        log.scroll(4);
        assert_eq!((log.following(), log.selected()), (true, Some(10)));
        log.scroll(-1000);
        assert_eq!(log.selected(), Some(0));
        log.follow();
        assert!(log.following());
        assert_eq!(Log::default().selected(), None);
    }
}
