//! Watches the bus for a front end, in a thread of its own: no other thread of the front end looks at the bus.

use std::collections::HashSet;
use std::thread;
use std::time::Duration;

use crate::crews::BusyPorts;
use crate::scan::ScanCache;
use crate::usb::{Bus, BusError, Location};

/// How often to scan the bus if no hotplug event arrives.
const SCAN: Duration = Duration::from_millis(500);

/// Scans the bus and reports what it finds, now and whenever that changes, until `report` returns false. A drone is
/// opened once per enumeration, and never while it has a job: the query would wait behind an erase.
///
/// The end of a job counts as a change, because its drone may have been unplugged during the job. An error is reported
/// after `patience` failed scans in a row: one failed scan does not mean that all drones are gone.
pub(crate) fn watch_bus<T: PartialEq + Send + 'static>(
    bus: impl Bus + 'static,
    busy: BusyPorts,
    patience: u32,
    scan: impl Fn(&mut ScanCache, &dyn Bus, &HashSet<Location>) -> Result<T, BusError> + Send + 'static,
    mut report: impl FnMut(&Result<T, BusError>) -> bool + Send + 'static,
) {
    thread::spawn(move || {
        let mut cache = ScanCache::default();
        let (mut last, mut errors) = (None, 0);
        loop {
            let skipped = busy.list();
            let found = scan(&mut cache, &bus, &skipped);
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
}
