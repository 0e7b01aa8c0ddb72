//! The clock abstraction. No other file reads the time or sleeps, except `sim::vhci`, which must follow the kernel's
//! time.
//!
//! The worker and the simulator share one clock. With [`FastClock`], half a minute of flashing takes a millisecond, and
//! the measured time is the time that the chip itself would need, the same on every machine.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant, SystemTime};

/// A source of time that can also sleep.
pub trait Clock: Send + Sync {
    /// Time since the clock was created.
    fn now(&self) -> Duration;
    /// Blocks for `time`.
    fn sleep(&self, time: Duration);
    /// The calling thread begins work that takes time: see [`TeamClock`].
    fn begin_work(&self) {}
    /// The calling thread ends the work that it began with [`Clock::begin_work`].
    fn end_work(&self) {}
}

/// A thread's membership in a [`TeamClock`]; for other clocks, it has no effect.
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

/// A clock that advances only when `sleep` is called, without waiting. Its 64-bit nanosecond counter lasts 584 years.
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

/// A clock that advances without waiting, for several threads that work at the same time: eight parallel flashes take
/// the time of one.
///
/// Threads that do the measured work are members. Time does not advance while any of them is awake; once all of them
/// sleep, it jumps to the earliest end of a sleep. A thread that is not a member, such as a scanner, may sleep too, but
/// advances the time on its own only while there are no members. Time does not advance while a member waits for a
/// message either, so such a wait costs no simulated time.
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
    /// Members that do not sleep.
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
    /// Advances the time to the earliest end of a sleep if no member is awake. The members whose sleep ends count as
    /// awake at once, so the time cannot advance again before they run.
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
            // Only polling threads remain, and they would advance the time by minutes before the other threads wake up.
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
        if let Some(at) = team.members.iter().position(|member| *member == me) {
            team.members.swap_remove(at);
            team.awake -= 1;
        }
        if team.advance() {
            self.woken.notify_all();
        }
    }
}

/// Seconds since 1970, for file names and records.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Each of eight members finishes after the sum of its own sleeps, so the one with the shortest sleeps is first.
    #[test]
    fn members_sleep_at_the_same_time() {
        let clock = Arc::new(TeamClock::new());
        let order = Arc::new(Mutex::new(Vec::new()));
        // This thread is awake, so the time does not advance until all others have started.
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
        // Without members, the clock advances like a fast one.
        clock.sleep(Duration::from_secs(5));
        assert_eq!(clock.now(), Duration::from_millis(5800));
    }
}
