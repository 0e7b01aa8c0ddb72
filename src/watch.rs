//! Watches the bus for a front end in a thread of its own. No other thread of the front end scans the bus.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::clock::Clock;
use crate::crews::BusyPorts;
use crate::job::Device;
use crate::scan::ScanCache;
use crate::usb::{Bus, BusError, Location};
use crate::worker::retry::RetryingBus;

/// How often to scan the bus if no hotplug event arrives.
const SCAN: Duration = Duration::from_millis(500);
/// After this many failed scans the bus counts as empty.
const ERRORS: u32 = 6;

/// Reports the drones on the bus whenever they change, until `report` returns false. Drones on the ports that
/// `used` returns, which another instance of cfdfu is using, are reported as devices that cannot be opened.
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
    watch_bus(RetryingBus::new(bus, clock), busy, ERRORS, scan, report)
}

/// The thread that watches the bus. Dropping this stops the thread before its next scan, so that it does not open a
/// drone of the next batch.
#[must_use]
pub struct Watcher(Arc<AtomicBool>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Returns the ports whose drones have a job now. A scan calls this after listing the devices on the bus:
/// see [`ScanCache`].
pub(crate) type BusyNow<'a> = dyn FnMut() -> HashSet<Location> + 'a;

/// Scans the bus and reports what it finds, now and whenever that changes, until `report` returns false. A drone is
/// opened once per enumeration, and never while it has a job: the query would wait behind an erase.
///
/// The end of a job counts as a change, because its drone may have been unplugged during the job. An error is reported
/// after `patience` failed scans in a row: one failed scan does not mean that all drones are gone.
pub(crate) fn watch_bus<T: PartialEq + Send + 'static>(
    bus: impl Bus + 'static,
    busy: BusyPorts,
    patience: u32,
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
            if (errors == 0 || errors >= patience) && seen != last {
                if let Some((found, _)) = &seen
                    && !report(found)
                {
                    return;
                }
                last = seen;
            }
            bus.wait(SCAN);
        }
    });
    watcher
}
