//! Records how the time of a job was spent: for each part, how long data was on the wire, how long the chip was busy,
//! and how long the host paused at the device's request. In the remaining time, the computer was busy, or the job
//! waited for the drone or for confirmation.

use std::time::Duration;

use crate::job::LogEntry;

/// A part of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// From the start of the job until the device is found.
    Find,
    /// If the drone is found running: from then until the boot ROM is open.
    Enter,
    /// Opening the device and bringing it to dfuIDLE.
    Open,
    Check,
    Compare,
    /// From the plan until confirmation, including the time to save the backup.
    Plan,
    Erase,
    Write,
    Verify,
    /// Reading in a job that writes nothing: a backup, a verification or an identification.
    Read,
    /// From the leave request until the end of the job, which includes watching the restarted drone.
    Restart,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Find => "find",
            Part::Enter => "enter DFU mode",
            Part::Open => "open",
            Part::Check => "check",
            Part::Compare => "compare",
            Part::Plan => "plan",
            Part::Erase => "erase",
            Part::Write => "write",
            Part::Verify => "verify",
            Part::Read => "read",
            Part::Restart => "restart",
        }
    }
}

/// How the time within a part was spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// Transferring data or a command.
    Data,
    /// Waiting for the answer to a status request, which the ROM sends when its work is done.
    Chip,
    /// Pausing at the request of the device.
    Pause,
}

#[derive(Clone, Copy, Debug)]
struct PartRow {
    part: Part,
    total: Duration,
    shares: [Duration; 3],
}

#[derive(Debug)]
pub(super) struct Timeline {
    rows: Vec<PartRow>,
    since: Duration,
}

impl Timeline {
    /// Starts the timeline with [`Part::Find`].
    pub(super) fn new(now: Duration) -> Timeline {
        Timeline { rows: vec![PartRow::new(Part::Find)], since: now }
    }

    /// Starts a part, or continues an earlier part in its row.
    pub(super) fn enter(&mut self, part: Part, now: Duration) {
        if let Some(row) = self.rows.last_mut() {
            row.total += now.saturating_sub(self.since);
        }
        self.since = now;
        let index = self.rows.iter().position(|row| row.part == part);
        let row = index.map_or(PartRow::new(part), |index| self.rows.remove(index));
        self.rows.push(row);
    }

    /// Adds time to a share of the current part.
    pub(super) fn spend(&mut self, share: Share, time: Duration) {
        if let Some(row) = self.rows.last_mut() {
            row.shares[share as usize] += time;
        }
    }

    /// Returns the table for `-v`, without parts that took less than 1 ms.
    pub(super) fn rows(mut self, now: Duration) -> Vec<LogEntry> {
        if let Some(row) = self.rows.last_mut() {
            row.total += now.saturating_sub(self.since);
        }
        let mut all = PartRow::new(Part::Find);
        let mut table = vec![LogEntry::Time { part: None, total: Duration::ZERO, shares: all.shares }];
        for row in &self.rows {
            all.total += row.total;
            for (sum, share) in all.shares.iter_mut().zip(row.shares) {
                *sum += share;
            }
            if row.total >= Duration::from_millis(1) {
                table.push(row.entry(row.part.name()));
            }
        }
        table.push(all.entry("total"));
        table
    }
}

impl PartRow {
    fn new(part: Part) -> PartRow {
        PartRow { part, total: Duration::ZERO, shares: [Duration::ZERO; 3] }
    }

    fn entry(&self, name: &'static str) -> LogEntry {
        LogEntry::Time { part: Some(name), total: self.total, shares: self.shares }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_times_add_up_and_a_repeated_part_has_one_row() {
        let at = Duration::from_millis;
        let mut timeline = Timeline::new(at(1000));
        timeline.enter(Part::Write, at(1100));
        timeline.spend(Share::Data, at(300));
        timeline.enter(Part::Verify, at(2100));
        timeline.enter(Part::Write, at(2600));
        timeline.spend(Share::Chip, at(50));
        let lines: Vec<String> = timeline.rows(at(2700)).iter().map(ToString::to_string).collect();
        let expected = [
            "Timing             total     data     chip    pause",
            "find             0.100 s  0.000 s  0.000 s  0.000 s",
            "verify           0.500 s  0.000 s  0.000 s  0.000 s",
            "write            1.100 s  0.300 s  0.050 s  0.000 s",
            "total            1.700 s  0.300 s  0.050 s  0.000 s",
        ];
        assert_eq!(lines, expected);
    }
}
