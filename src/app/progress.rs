//! The progress of a job: phases, bytes, rate and time left. Callers pass the time, so the estimates can be tested
//! without a clock. The completed share never reaches 100% while work remains.

use std::time::Duration;

use crate::job::Phase;
use crate::plan::Work;

/// Returns the weight of a phase: nanoseconds per byte on an STM32F405 that programs words. Reading back 2 KiB takes
/// 3.72 ms, and writing 2 KiB takes 13.1 ms including two status requests. An erase takes 7 to 14 µs per byte,
/// depending on the size of the sector; 8 µs is assumed only until the sectors are known.
const fn weight(phase: Phase) -> u64 {
    match phase {
        Phase::Compare | Phase::Verify | Phase::Read => 1816,
        Phase::Write => 6400,
        Phase::Erase => 8000,
    }
}

/// The predicted time to erase a sector, in nanoseconds. 16 KiB take 229 ms, 64 KiB 519 ms and 128 KiB 927 ms, so the
/// time is not proportional to the size.
const fn erase_nanos(bytes: u64) -> u64 {
    130_000_000 + bytes * 6055
}

/// The measured pace is used once this many seconds of weighted work have been done.
const MIN_WEIGHTED_SECONDS: f64 = 0.1;

/// The phases of a flash, in order.
pub(crate) const PHASES: [Phase; 4] = [Phase::Compare, Phase::Erase, Phase::Write, Phase::Verify];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PhaseProgress {
    pub done: u64,
    pub total: u64,
    /// The time of the last progress.
    pub at: Duration,
    /// The time spent in this phase, without other phases in between.
    pub spent: Duration,
    pub has_ended: bool,
}

/// The phases that have started, and the totals of the later phases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    parts: Vec<(Phase, PhaseProgress)>,
    current: Option<Phase>,
    /// When the worker last reported progress.
    reported: Duration,
    now: Duration,
    /// The erased bytes and the predicted time in nanoseconds, each summed up to the end of each sector.
    erases: Vec<(u64, u64)>,
    /// The speeds in KiB/s over equal time spans, in all phases that transfer data.
    speeds: Vec<u64>,
    /// The phase of the current span, when that span began, and how many bytes of the phase were done then.
    span: Option<(Phase, Duration, u64)>,
}

/// The length of one span of [`Progress::speeds`], in milliseconds.
const SPAN_MS: u64 = 100;
/// The maximum number of spans kept; the oldest are dropped.
const SPANS: usize = 400;

impl Progress {
    /// Sets the totals of the planned phases.
    pub(crate) fn plan(&mut self, work: &Work, now: Duration) {
        let bytes = |spans: &mut dyn Iterator<Item = u32>| spans.map(u64::from).sum::<u64>();
        let erase = bytes(&mut work.erase.iter().map(|sector| sector.span.len()));
        let verify = bytes(&mut work.verify.iter().map(|span| span.len()));
        self.plan_erases(work.erase.iter().map(|sector| u64::from(sector.span.len())));
        for (phase, total) in [(Phase::Erase, erase), (Phase::Write, work.bytes()), (Phase::Verify, verify)] {
            self.part_mut(phase, now).total = total;
        }
    }

    fn plan_erases(&mut self, sizes: impl Iterator<Item = u64>) {
        let mut sum = (0, 0);
        self.erases = sizes
            .map(|size| {
                sum = (sum.0 + size, sum.1 + erase_nanos(size));
                sum
            })
            .collect();
    }

    /// Records the progress that the worker reports.
    pub(crate) fn set(&mut self, phase: Phase, done: u64, total: u64, now: Duration) {
        let started = self.current != Some(phase);
        let reported = self.reported;
        let part = self.part_mut(phase, now);
        if started && part.done == 0 {
            part.spent = Duration::ZERO;
        } else if !part.has_ended {
            // The last word is written after the verification, which is not part of the write.
            part.spent += now.saturating_sub(reported);
        }
        let done_before = part.done;
        let has_ended = part.has_ended || done >= total;
        *part = PhaseProgress { done: done.min(total), total, at: now, spent: part.spent, has_ended };
        self.current = Some(phase);
        self.reported = now;
        self.now = now;
        // An erase transfers no data, so it has no speed.
        if phase != Phase::Erase {
            self.sample(phase, done_before, done, now);
        }
    }

    /// Adds an entry to `speeds` for each span that has ended.
    fn sample(&mut self, phase: Phase, done_before: u64, done: u64, now: Duration) {
        let (start, bytes) = match self.span {
            Some((last, start, bytes)) if last == phase => (start, bytes),
            _ => (now, done_before),
        };
        self.span = Some((phase, start, bytes));
        let millis = u64::try_from(now.saturating_sub(start).as_millis()).unwrap_or(u64::MAX);
        let count = usize::try_from(millis / SPAN_MS).unwrap_or(SPANS).min(SPANS);
        if count == 0 {
            return;
        }
        let rate = done.saturating_sub(bytes).saturating_mul(1000) / 1024 / millis;
        self.speeds.extend(std::iter::repeat_n(rate, count));
        let excess = self.speeds.len().saturating_sub(SPANS);
        self.speeds.drain(..excess);
        self.span = Some((phase, now, done));
    }

    /// Returns the speeds in KiB/s over equal time spans, oldest first.
    pub(crate) fn speeds(&self) -> &[u64] {
        &self.speeds
    }

    pub(crate) fn tick(&mut self, now: Duration) {
        self.now = now;
    }

    fn part_mut(&mut self, phase: Phase, now: Duration) -> &mut PhaseProgress {
        let at = self.parts.iter().position(|(other, _)| *other == phase).unwrap_or_else(|| {
            self.parts.push((phase, PhaseProgress { at: now, ..PhaseProgress::default() }));
            self.parts.len() - 1
        });
        &mut self.parts[at].1
    }

    pub(crate) fn current(&self) -> Option<(Phase, PhaseProgress)> {
        let current = self.current?;
        self.parts.iter().find(|(phase, _)| *phase == current).copied()
    }

    /// Returns whether a phase has finished.
    pub(crate) fn is_done(&self, phase: Phase) -> bool {
        let part = self.parts.iter().find(|(other, _)| *other == phase);
        let passed = self.current.is_some_and(|now| now > phase);
        part.is_some_and(|(_, part)| part.done == part.total && (passed || part.total > 0))
    }

    /// Returns how long a finished phase took.
    pub(crate) fn duration_of(&self, phase: Phase) -> Option<Duration> {
        let (_, part) = self.parts.iter().find(|(other, _)| *other == phase)?;
        part.has_ended.then_some(part.spent)
    }

    /// Returns the number of bytes that a phase has completed.
    pub(crate) fn done(&self, phase: Phase) -> u64 {
        self.parts.iter().find(|(other, _)| *other == phase).map_or(0, |(_, part)| part.done)
    }

    /// Returns the completed share of the work, from 0.0 to 0.99. Only the final report means that the work is
    /// complete.
    pub(crate) fn ratio(&self) -> f64 {
        let (done, total) = self.costs();
        if total == 0 { 0.0 } else { to_f64(done) / to_f64(total) }.clamp(0.0, 0.99)
    }

    /// Returns the speed of the current phase in bytes per second, once the phase has run long enough to be measured.
    pub(crate) fn rate(&self) -> Option<f64> {
        let (_, part) = self.current()?;
        let time = (part.spent + self.now.saturating_sub(part.at)).as_secs_f64();
        (time >= 0.2 && part.done > 0).then(|| to_f64(part.done) / time)
    }

    /// Returns the estimated time left: the weighted remaining work times the measured pace, less the time since the
    /// last progress. An erase of a large sector may take seconds without any progress.
    pub(crate) fn left(&self) -> Option<Duration> {
        let (done, total) = self.costs();
        let left = Duration::from_nanos(total - done);
        let at = self.current().map_or(self.now, |(_, part)| part.at);
        (total > 0).then(|| left.mul_f64(self.pace()).saturating_sub(self.now.saturating_sub(at)))
    }

    /// Returns the time taken so far, divided by the time that the weights predict; 1.0 until enough work has been done
    /// to measure. Once an erase or a write has started, only these two phases count, because a chip that is slow in
    /// one phase is also slow in the other.
    fn pace(&self) -> f64 {
        let slow = |phase: Phase| matches!(phase, Phase::Erase | Phase::Write);
        let started = |(_, part): &&(Phase, PhaseProgress)| part.done > 0;
        let any_slow = self.parts.iter().filter(started).any(|(phase, _)| slow(*phase));
        let (mut actual, mut predicted) = (0.0, 0.0);
        for (phase, part) in self.parts.iter().filter(started).filter(|(phase, _)| !any_slow || slow(*phase))
        {
            actual += part.spent.as_secs_f64();
            predicted += Duration::from_nanos(self.cost(*phase, part.done)).as_secs_f64();
        }
        if predicted < MIN_WEIGHTED_SECONDS { 1.0 } else { (actual / predicted).clamp(0.2, 50.0) }
    }

    /// Returns the predicted time for so many bytes of a phase, in nanoseconds.
    fn cost(&self, phase: Phase, bytes: u64) -> u64 {
        let reached = self.erases.iter().take_while(|(end, _)| *end <= bytes).last();
        match (phase, reached) {
            (Phase::Erase, _) if bytes == 0 => 0,
            (Phase::Erase, Some((_, nanos))) => *nanos,
            _ => bytes.saturating_mul(weight(phase)),
        }
    }

    fn costs(&self) -> (u64, u64) {
        let sum = |bytes: &dyn Fn(&PhaseProgress) -> u64| {
            let cost = |(phase, part): &(Phase, PhaseProgress)| self.cost(*phase, bytes(part));
            self.parts.iter().map(cost).fold(0, u64::saturating_add)
        };
        let total = sum(&|part| part.total);
        (sum(&|part| part.done).min(total), total)
    }
}

/// Returns the estimated time that the work takes on a chip that programs words.
pub(crate) fn estimate(work: &Work) -> Duration {
    let mut progress = Progress::default();
    progress.plan(work, Duration::ZERO);
    progress.left().unwrap_or_default()
}

#[allow(clippy::cast_precision_loss, reason = "precise enough for a bar and a rate")]
fn to_f64(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_never_moves_back_and_is_never_full_while_work_remains() {
        let mut progress = Progress::default();
        let mut last = 0.0;
        let second = Duration::from_secs(1);
        progress.set(Phase::Compare, 0, 240_000, Duration::ZERO);
        progress.set(Phase::Compare, 240_000, 240_000, second);
        assert!(progress.ratio() < 1.0);
        for (phase, total) in [(Phase::Erase, 245_760), (Phase::Write, 243_176), (Phase::Verify, 243_172)] {
            progress.part_mut(phase, second).total = total;
        }
        for (phase, total) in [(Phase::Erase, 245_760), (Phase::Write, 243_176), (Phase::Verify, 243_172)] {
            for step in 0..=10 {
                progress.set(phase, total * step / 10, total, second * 2);
                assert!(progress.ratio() >= last && progress.ratio() < 1.0);
                last = progress.ratio();
            }
        }
        assert!(last > 0.98);
        assert!(progress.is_done(Phase::Write) && progress.is_done(Phase::Verify));
        assert_eq!(progress.left(), Some(Duration::ZERO));
        progress.set(Phase::Verify, 243_171, 243_172, second * 3);
        assert!(!progress.is_done(Phase::Verify), "one byte is left");
    }

    #[test]
    fn the_time_of_the_write_does_not_include_the_verification() {
        let mut progress = Progress::default();
        let at = Duration::from_secs;
        for (phase, done, second) in [
            (Phase::Write, 0, 10),
            (Phase::Write, 500, 12),
            (Phase::Write, 996, 14),
            (Phase::Verify, 0, 14),
            (Phase::Verify, 1000, 17),
            (Phase::Write, 1000, 18),
        ] {
            progress.set(phase, done, 1000, at(second));
        }
        assert_eq!(progress.duration_of(Phase::Write), Some(at(5)));
        assert_eq!(progress.duration_of(Phase::Verify), Some(at(3)));
    }

    /// On a chip that takes three times as long as the weights predict, the estimate triples once the pace has been
    /// measured.
    #[test]
    fn the_time_left_follows_the_measured_pace() {
        let mut progress = Progress::default();
        let at = |seconds: f64| Duration::from_secs_f64(seconds);
        for (phase, total) in [(Phase::Erase, 245_760), (Phase::Write, 243_176), (Phase::Verify, 243_172)] {
            progress.part_mut(phase, Duration::ZERO).total = total;
        }
        let by_weights = progress.left().unwrap().as_secs_f64();
        let mut now = 0.0;
        for (phase, total) in [(Phase::Erase, 245_760_u64), (Phase::Write, 243_176)] {
            let seconds = Duration::from_nanos(total * weight(phase)).as_secs_f64() * 3.0;
            for step in 0..=100_u64 {
                progress.set(phase, total * step / 100, total, at(now + seconds * to_f64(step) / 100.0));
                let actual = 3.0 * (by_weights - (now + seconds * to_f64(step) / 100.0) / 3.0);
                let left = progress.left().unwrap().as_secs_f64();
                let measured = phase == Phase::Write || step > 10;
                assert!(
                    !measured || (left / actual - 1.0).abs() < 0.1,
                    "{phase:?}, step {step}: estimated {left} s, actual {actual} s"
                );
            }
            now += seconds;
        }
    }

    /// Sectors of all sizes are erased on a chip that takes three times as long. The time left must neither jump nor
    /// freeze while a large sector is erased.
    #[test]
    fn the_time_left_is_steady_during_an_erase() {
        let mut progress = Progress::default();
        let sizes = [16, 16, 16, 64, 128, 128, 128].map(|kib| kib * 1024_u64);
        progress.plan_erases(sizes.into_iter());
        let total: u64 = sizes.iter().sum();
        let seconds = |size: u64| Duration::from_nanos(erase_nanos(size)).as_secs_f64() * 3.0;
        let mut left_in_truth: f64 = sizes.iter().map(|size| seconds(*size)).sum();
        let (mut now, mut done, mut last) = (0.0, 0, None);
        progress.set(Phase::Erase, 0, total, Duration::ZERO);
        for size in sizes {
            let end = now + seconds(size);
            while now + 0.1 < end {
                (now, left_in_truth) = (now + 0.1, left_in_truth - 0.1);
                progress.tick(Duration::from_secs_f64(now));
                let left = progress.left().unwrap().as_secs_f64();
                if let Some(last) = last.filter(|_| done > 0) {
                    assert!((left - left_in_truth).abs() < 0.5, "{now}: {left}, in truth {left_in_truth}");
                    assert!(left < last && left > last - 0.5_f64, "{now}: {last}, then {left}");
                }
                last = (done > 0).then_some(left);
            }
            left_in_truth -= end - now;
            now = end;
            done += size;
            progress.set(Phase::Erase, done, total, Duration::from_secs_f64(now));
        }
    }

    #[test]
    fn the_speed_is_measured_over_equal_time_spans() {
        let mut progress = Progress::default();
        let ms = Duration::from_millis;
        progress.set(Phase::Write, 0, 1 << 20, ms(0));
        progress.set(Phase::Write, 10 * 1024, 1 << 20, ms(50));
        assert!(progress.speeds().is_empty());
        progress.set(Phase::Write, 20 * 1024, 1 << 20, ms(100));
        progress.set(Phase::Write, 30 * 1024, 1 << 20, ms(400));
        assert_eq!(progress.speeds(), [200, 33, 33, 33]);
        // A new phase starts a new span, and the history is bounded.
        progress.set(Phase::Verify, 0, 1 << 20, ms(500));
        progress.set(Phase::Verify, 100 * 1024, 1 << 20, Duration::from_secs(1000));
        assert_eq!((progress.speeds().len(), progress.speeds()[0]), (SPANS, 0));
    }

    #[test]
    fn huge_byte_counts_do_not_overflow() {
        let mut progress = Progress::default();
        for phase in PHASES {
            progress.set(phase, u64::MAX - 1, u64::MAX, Duration::ZERO);
        }
        assert!(progress.ratio() < 1.0);
        assert!(progress.left().is_some());
    }

    #[test]
    fn nothing_is_estimated_without_data() {
        let progress = Progress::default();
        assert_eq!((progress.ratio(), progress.rate(), progress.left()), (0.0, None, None));
        let mut empty = Progress::default();
        empty.set(Phase::Erase, 0, 0, Duration::ZERO);
        assert!(empty.ratio() < 1.0);
    }
}
