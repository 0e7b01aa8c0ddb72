//! Watches the bus for a front end, on a separate thread. No other thread of the front end scans the bus.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::batch_workers::BusyPorts;
use crate::clock::Clock;
use crate::job::Device;
use crate::scan::ScanCache;
use crate::usb::{Bus, BusError, Location};
use crate::worker::retry::RetryingBus;

/// The time between two scans of the bus if no hotplug event arrives.
const SCAN_INTERVAL: Duration = Duration::from_millis(500);
/// The bus counts as empty after this many failed scans in a row.
const MAX_FAILED_SCANS: u32 = 6;

/// Calls `report` with the drones on the bus, now and whenever they change, until `report` returns false. `used`
/// returns the ports that other instances of cfdfu are using; the drones on these ports are reported as devices that
/// cannot be opened.
pub fn watch_drones(
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    busy: BusyPorts,
    used: impl Fn() -> HashSet<Location> + Send + 'static,
    report: impl Fn(Vec<Device>) -> bool + Send + 'static,
) -> Watcher {
    let scan =
        move |cache: &mut ScanCache, bus: &dyn Bus, busy: &mut BusyNow<'_>| cache.drones(bus, &used, busy);
    // A bus that cannot be read counts as empty.
    let report = move |found: &Result<Vec<Device>, BusError>| report(found.clone().unwrap_or_default());
    watch_bus(RetryingBus::new(bus, clock), busy, MAX_FAILED_SCANS, scan, report)
}

/// A handle to the thread that watches the bus. Dropping the handle stops the thread before its next scan, so that the
/// thread does not open a drone of the next batch.
#[must_use]
pub struct Watcher(Arc<AtomicBool>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A function that returns the ports whose drones have a job. A scan calls this function after listing the devices on
/// the bus: see [`ScanCache`].
pub(crate) type BusyNow<'a> = dyn FnMut() -> HashSet<Location> + 'a;

/// Calls `report` with the result of `scan`, now and whenever the result changes, until `report` returns false. Each
/// drone is opened once per enumeration, and never while it has a job: a query would have to wait for an erase to
/// finish.
///
/// The end of a job counts as a change, because the job's drone may have been unplugged in the meantime. An error is
/// reported only after `max_failed` failed scans in a row: a single failed scan does not mean that all drones are gone.
pub(crate) fn watch_bus<T: PartialEq + Send + 'static>(
    bus: impl Bus + 'static,
    busy: BusyPorts,
    max_failed: u32,
    scan: impl Fn(&mut ScanCache, &dyn Bus, &mut BusyNow<'_>) -> Result<T, BusError> + Send + 'static,
    mut report: impl FnMut(&Result<T, BusError>) -> bool + Send + 'static,
) -> Watcher {
    let stopped = Arc::new(AtomicBool::new(false));
    let watcher = Watcher(Arc::clone(&stopped));
    thread::spawn(move || {
        let mut cache = ScanCache::default();
        let (mut last, mut errors) = (None, 0);
        while !stopped.load(Ordering::SeqCst) {
            let mut skipped = HashSet::new();
            let found = scan(&mut cache, &bus, &mut || {
                skipped = busy.list();
                skipped.clone()
            });
            errors = if found.is_ok() { 0 } else { errors + 1 };
            let seen = Some((found, skipped));
            if (errors == 0 || errors >= max_failed) && seen != last {
                if let Some((found, _)) = &seen
                    && !report(found)
                {
                    return;
                }
                last = seen;
            }
            bus.wait(SCAN_INTERVAL);
        }
    });
    watcher
}
