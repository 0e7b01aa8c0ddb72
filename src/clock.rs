//! The clock abstraction. No other file reads the time or sleeps, except `sim::vhci`, which must follow the kernel's
//! time.
//!
//! The worker and the simulator share one clock. With [`FastClock`], half a minute of flashing takes a millisecond, and
//! the measured time is the time that the chip itself would need, the same on every machine.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// A source of time that can also sleep.
pub trait Clock: Send + Sync {
    /// Time since the clock was created.
    fn now(&self) -> Duration;
    /// Blocks for `time`.
    fn sleep(&self, time: Duration);
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
        std::thread::sleep(time);
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

/// Seconds since 1970, for file names and records.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
