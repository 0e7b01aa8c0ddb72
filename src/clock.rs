//! The clock abstraction. No other file reads the time or sleeps, with two exceptions: `sim::vhci` must follow the
//! kernel's clock, and `usb::libusb` sleeps if libusb's own wait fails.
//!
//! The worker and the simulator share one clock. With [`FastClock`], half a minute of flashing takes a millisecond, and
//! the measured time is the time that the chip itself would need, on every machine.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use jiff::civil::Time;
use jiff::tz::TimeZone;

/// A source of time that can also sleep.
pub trait Clock: Send + Sync {
    /// Time since the clock was created.
    fn now(&self) -> Duration;
    /// Blocks until this clock has advanced by `time`.
    fn sleep(&self, time: Duration);
    /// Makes the calling thread a member of the team: see [`TeamClock`]. Other clocks ignore this call.
    fn begin_work(&self) {}
    /// Ends the membership that [`Clock::begin_work`] started.
    fn end_work(&self) {}
}

/// Returns the local time of day as the time since midnight, or `None` if the computer's time zone is unknown.
pub(crate) fn local_time_of_day() -> Option<Duration> {
    let zone = TimeZone::try_system().ok()?;
    let time = Timestamp::now().to_zoned(zone).time();
    Some(time.duration_since(Time::midnight()).unsigned_abs())
}

/// The membership of a thread in a [`TeamClock`], which ends when this value is dropped. Other clocks have no members.
pub(crate) struct Member<'a>(&'a dyn Clock);

impl<'a> Member<'a> {
    pub(crate) fn of(clock: &'a dyn Clock) -> Member<'a> {
        clock.begin_work();
        Member(clock)
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        self.0.end_work();
    }
}

pub(crate) struct RealClock {
    start: Instant,
}

impl RealClock {
    pub(crate) fn new() -> RealClock {
        RealClock { start: Instant::now() }
    }
}

impl Default for RealClock {
    fn default() -> RealClock {
        RealClock::new()
    }
}

impl Clock for RealClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, time: Duration) {
        thread::sleep(time);
    }
}

/// A clock that advances only when `sleep` is called; `sleep` returns at once. Its 64-bit nanosecond counter lasts 584
/// years.
#[derive(Debug, Default)]
pub struct FastClock {
    nanos: AtomicU64,
}

impl FastClock {
    pub fn new() -> FastClock {
        FastClock::default()
    }
}

impl Clock for FastClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::SeqCst))
    }

    fn sleep(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::SeqCst);
    }
}

/// Like [`FastClock`], but for several threads that work in parallel: eight parallel flashes take the time of one.
///
/// The threads that do the measured work are members. Time does not advance while any member is awake. Once all members
/// sleep, the time jumps to the end of the shortest remaining sleep. A thread that is not a member, such as a scanner,
/// may also sleep, but its sleeps advance the time only while there are no members. A member that waits for a message
/// counts as awake, so such a wait costs no simulated time.
#[derive(Default)]
pub struct TeamClock {
    team: Mutex<Team>,
    woken: Condvar,
}

/// The real duration of a sleep while there are no members.
const POLL_PAUSE: Duration = Duration::from_millis(1);

#[derive(Default)]
struct Team {
    now: Duration,
    /// The number of members that are not asleep.
    awake: usize,
    members: Vec<ThreadId>,
    /// When each sleep ends, and whether the sleeping thread is a member.
    sleeps: Vec<(Duration, bool)>,
}

impl TeamClock {
    pub fn new() -> TeamClock {
        TeamClock::default()
    }

    fn lock(&self) -> MutexGuard<'_, Team> {
        self.team.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Team {
    /// Advances the time to the end of the shortest remaining sleep, unless a member is awake. Members whose sleep ends
    /// count as awake at once, so the time cannot advance again before they run. Returns whether a sleep has ended.
    fn advance(&mut self) -> bool {
        let has_members = !self.members.is_empty();
        let ends = self.sleeps.iter().filter(|(_, member)| *member || !has_members);
        let Some(next) = ends.map(|(end, _)| *end).min().filter(|_| self.awake == 0) else { return false };
        self.now = self.now.max(next);
        let now = self.now;
        self.awake += self.sleeps.iter().filter(|(end, member)| *member && *end <= now).count();
        self.sleeps.retain(|(end, _)| *end > now);
        true
    }
}

impl Clock for TeamClock {
    fn now(&self) -> Duration {
        self.lock().now
    }

    fn sleep(&self, time: Duration) {
        if self.lock().members.is_empty() {
            // Only polling threads are left. Without this pause, they would advance the time by minutes before the
            // other threads wake up.
            thread::sleep(POLL_PAUSE);
        }
        let mut team = self.lock();
        let end = team.now + time;
        let member = team.members.contains(&thread::current().id());
        team.sleeps.push((end, member));
        team.awake -= usize::from(member);
        loop {
            if team.advance() {
                self.woken.notify_all();
            }
            if team.now >= end {
                return;
            }
            team = self.woken.wait(team).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn begin_work(&self) {
        let mut team = self.lock();
        team.members.push(thread::current().id());
        team.awake += 1;
    }

    fn end_work(&self) {
        let mut team = self.lock();
        let me = thread::current().id();
        if let Some(index) = team.members.iter().position(|member| *member == me) {
            team.members.swap_remove(index);
            team.awake -= 1;
        }
        if team.advance() {
            self.woken.notify_all();
        }
    }
}

/// Returns the Unix time in seconds, for file names and records.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Each of eight members finishes after the sum of its own sleeps, so the member with the shortest sleeps finishes
    /// first.
    #[test]
    fn sleeps_of_several_members_overlap() {
        let clock = Arc::new(TeamClock::new());
        let order = Arc::new(Mutex::new(Vec::new()));
        // This thread is awake, so the time does not advance until all the others have started.
        clock.begin_work();
        let threads: Vec<_> = (1..=8_u64)
            .map(|n| {
                let (clock, order) = (Arc::clone(&clock), Arc::clone(&order));
                let (ready, started) = std::sync::mpsc::channel();
                let thread = thread::spawn(move || {
                    let _member = Member::of(&*clock);
                    ready.send(()).unwrap();
                    for _ in 0..100 {
                        clock.sleep(Duration::from_millis(n));
                    }
                    order.lock().unwrap().push(n);
                    clock.now()
                });
                started.recv().unwrap();
                thread
            })
            .collect();
        clock.end_work();
        let ends: Vec<Duration> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let expected: Vec<Duration> = (1..=8).map(|n| Duration::from_millis(100 * n)).collect();
        assert_eq!(ends, expected);
        assert_eq!(*order.lock().unwrap(), [1, 2, 3, 4, 5, 6, 7, 8]);
        // Without members, `sleep` advances the clock at once.
        clock.sleep(Duration::from_secs(5));
        assert_eq!(clock.now(), Duration::from_millis(5800));
    }
}
