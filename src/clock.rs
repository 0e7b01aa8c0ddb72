//! Time, as something that is handed around: the one file that reads a clock or sleeps, beside the
//! virtual controller's, which lives in the kernel's time.
//!
//! The worker and the simulator share one clock. With [`FastClock`] half a minute of flashing takes a
//! millisecond, and its reading is what the chip itself would have needed, the same on every machine.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Something that knows what time it is and can wait.
pub trait Clock: Send + Sync {
    /// Time since the clock was made.
    fn now(&self) -> Duration;
    /// Returns after `time`.
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

/// A clock that moves only when somebody sleeps, and then at once. In nanoseconds, for 584 years.
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

/// Seconds since 1970, to name files and stamp records.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
