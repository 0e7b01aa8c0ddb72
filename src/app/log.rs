//! The log as data: lines with their times, what is in view, and what a line means.

use std::collections::VecDeque;
use std::time::Duration;

use crate::job::Level;
use crate::usb::descriptor::is_printable;

/// Lines that are kept; a flash has about thirty.
const KEPT: usize = 2000;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When.
    pub at: Duration,
    /// How much it matters.
    pub level: Level,
    /// What.
    pub text: String,
}

/// The lines, and the place in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    lines: VecDeque<Line>,
    /// Lines that there ever were.
    pushed: usize,
    /// The line that is looked at, counted from the end; `None` follows the end.
    back: Option<usize>,
}

impl Log {
    /// Adds a line. Who looks at an older one goes on looking at it.
    pub fn push(&mut self, at: Duration, level: Level, text: &str) {
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.pushed += 1;
        // A file's name may be in it, with anything in that.
        let text = text.chars().filter(|&c| is_printable(c)).collect();
        self.lines.push_back(Line { at, level, text });
        if let Some(back) = &mut self.back {
            *back = (*back + 1).min(self.lines.len() - 1);
        }
    }

    /// All lines, oldest first.
    #[must_use]
    pub fn lines(&self) -> &VecDeque<Line> {
        &self.lines
    }

    /// How many lines there ever were: more than are kept, after a while.
    #[must_use]
    pub fn pushed(&self) -> usize {
        self.pushed
    }

    /// Whether the end is followed.
    #[must_use]
    pub fn following(&self) -> bool {
        self.back.is_none()
    }

    /// The line that is looked at.
    #[must_use]
    pub fn selected(&self) -> Option<usize> {
        self.lines.len().checked_sub(1 + self.back.unwrap_or(0))
    }

    /// Moves by this many lines: up is negative. At the end it follows again.
    pub fn scroll(&mut self, by: isize) {
        let last = self.lines.len().saturating_sub(1);
        let back = self.back.unwrap_or(0).saturating_add_signed(-by).min(last);
        self.back = (back > 0).then_some(back);
    }

    /// Follows the end again.
    pub fn follow(&mut self) {
        self.back = None;
    }
}

/// What lines of the log mean, by words in them. The first row that fits counts, so a longer phrase stands before a
/// shorter one that it holds.
pub const EXPLANATIONS: &[(&str, &str)] = &[
    (
        "dfuERROR, status(10)",
        "Normal: the chip's boot ROM always starts in this state, for it has no firmware of its own to return to. It \
         is cleared once and has no meaning for your drone.",
    ),
    ("dfuERROR", "The boot ROM refused the last request, for the reason in brackets. It is ready again."),
    (
        "Clearing status",
        "The boot ROM is told that its error was seen. Only then does it take the next request.",
    ),
    (
        "Setting Alternate Interface",
        "The boot ROM shows several memories: 0 is the flash, 1 the option bytes (protection), 2 the OTP (what board \
         this is), 3 the switch for the programming width.",
    ),
    ("Claiming USB DFU interface", "The drone is reserved for this program until the job ends."),
    (
        "Determining device status",
        "The boot ROM is asked what state it is in before anything else is asked of it.",
    ),
    ("Device 0483", "What is on the bus, and the most bytes that it takes in one transfer."),
    (
        "Board ",
        "Bitcraze writes the type of the board into memory that can never be changed. An image for another board is \
         refused by it.",
    ),
    ("Plan:", "How much will be written, and where. Nothing is changed before you have confirmed it."),
    ("On the drone:", "What was found where the firmware belongs, before anything is changed."),
    (
        "Using ",
        "The drone that this job is about: its port, its numbers on USB, its mode, its serial number.",
    ),
    (
        "Programming 32 bits",
        "The boot ROM starts by programming single bytes. Told that the supply is above 2.7 V, as it is on a \
         Crazyflie, it programs four at a time: several times as fast. Gone with the next reset.",
    ),
    (
        "Programming 8 bits",
        "The boot ROM programs single bytes, as it starts. That is slower, and works at any supply voltage.",
    ),
    ("Erase", "Flash can only be written where it was erased, and only whole sectors can be erased."),
    (
        "Download",
        "The image on its way to the drone, all but its first word. That comes last, when everything else has been \
         read back: until then the bootloader sees no firmware and waits.",
    ),
    ("Verify", "Every byte was read back from the drone and compared with the file."),
    (
        "Submitting leave request",
        "The boot ROM is asked to start the firmware. It then vanishes from USB, and the drone comes back as a \
         running Crazyflie.",
    ),
    (
        "Boot ROM",
        "The chip's own boot program, which can never be changed. Versions 3 and 9.0 leave a part of the memory switched \
         off, so the drone stays dark after a flash until it is switched off and on.",
    ),
    ("The Crazyflie says that it runs", "The firmware that runs now was asked for its version over USB."),
    (
        "Asking the Crazyflie",
        "A running Crazyflie (2022.03 or newer) restarts in DFU mode when it is asked over USB. Only its blue LED M2 \
         stays lit then: that is as it should be. Do not touch the button.",
    ),
    (
        "sectors hold the image",
        "What is right already is left alone, which is why a second flash is so fast.",
    ),
    (
        "Kept what was there",
        "A copy of what is overwritten, to go back to. It can be flashed like any image.",
    ),
    (
        "trying again",
        "A transfer went wrong. Repeating it does no harm; should it fail three times more, the job stops.",
    ),
];

/// What a line of the log means, for somebody who has never seen one.
#[must_use]
pub fn explain(line: &str) -> &'static str {
    let found = EXPLANATIONS.iter().find(|(words, _)| line.contains(words));
    found.map_or("There is nothing more to say about this line.", |(_, text)| text)
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
