//! Watches a drone that has just started: which version it runs, whether its self-test passes, and whether it keeps
//! running. The firmware prints the result of its self-test on the console and keeps the text until a link reads it.
//! The watch sends only queries to the drone, and always switches the link back to the radio.

use std::time::Duration;

use super::firmware_link::{FirmwareLink, Unopened};
use super::port::{device_at, require_same_drone};
use super::{Ctx, RunState, Stop, query_firmware};
use crate::crazyflie::Mode;
use crate::crazyflie::console::Health;
use crate::job::{Boot, Device, Event, LogEntry, WaitFor};
use crate::usb::{CRAZYFLIE, Found, ROM_DFU, TransferError};

/// How long a drone must keep running after the verdict of its self-test to count as staying up.
const AFTER_VERDICT: Duration = Duration::from_secs(1);
/// How long a drone must keep running without a verdict, counted from the time at which it appeared. This is also the
/// longest time that a drone is watched, unless it restarts by itself or disappears.
const STAYS: Duration = Duration::from_secs(3);
/// The longest time that a drone is watched if it restarts by itself, counted from the time at which it first appeared.
/// The firmware reports the cause only in its next self-test, about two seconds after the drone appears.
const RESTARTED: Duration = Duration::from_secs(6);
/// When to start searching for the self-test's parameter if the console has not reported a verdict. The parameter's
/// value is read only at the end, because it is 0 until the self-test has passed.
const FIND_PARAMETER: Duration = Duration::from_secs(2);
/// How long the search may take.
const SEARCH: Duration = Duration::from_millis(800);
/// How long to retry opening the link: firmware that has just started needs a moment.
const OPEN_LIMIT: Duration = Duration::from_secs(1);
/// How long to wait for a packet before reading the bus list again.
const LISTEN: Duration = Duration::from_millis(100);

/// How a drone behaved after it started.
pub(super) struct Watched {
    pub(super) boot: Boot,
    /// The version that the firmware reports.
    pub(super) runs: Option<String>,
    pub(super) health: Health,
}

struct Watch {
    device: Device,
    /// The serial number of the drone, in either mode.
    serial: String,
    link: Option<FirmwareLink>,
    /// When the drone first appeared.
    seen: Duration,
    /// When the drone reported its version.
    version_seen: Option<Duration>,
    /// When the verdict of the self-test became known.
    verdict: Option<Duration>,
    /// How many times the drone has restarted by itself.
    restarts: u32,
    gone_since: Option<Duration>,
    runs: Option<String>,
    /// The health that the drone has reported over earlier links.
    before: Health,
    /// A transfer has failed with a transient error since the firmware started.
    failed: bool,
    /// The link must be opened again.
    must_reopen: bool,
    /// The search for the self-test's parameter is over.
    searched: bool,
    /// The number of the self-test's parameter, if it was found.
    parameter: Option<u16>,
}

/// Watches the running `device`, the drone with this serial number. Only the time until the drone reports its version
/// counts toward the job.
pub(super) fn watch(ctx: &mut Ctx<'_>, device: &Device, serial: &str) -> Watched {
    let seen = ctx.clock.now();
    ctx.post(Event::Waiting { what: WaitFor::StayUp, limit: STAYS });
    let mut before = Health::default();
    let link = open(ctx, device, serial, &mut before);
    let mut watch = Watch {
        device: device.clone(),
        serial: serial.to_owned(),
        link,
        seen,
        version_seen: None,
        verdict: None,
        restarts: 0,
        gone_since: None,
        runs: None,
        before,
        failed: false,
        must_reopen: false,
        searched: false,
        parameter: None,
    };
    let boot = watch.run(ctx).unwrap_or(Boot::NotWatched);
    let mut health = watch.health();
    health.finish(watch.runs.as_deref());
    drop(watch.link);
    ctx.cancelled = false;
    ctx.idle += ctx.clock.now().saturating_sub(watch.version_seen.unwrap_or(seen));
    Watched { boot, runs: watch.runs, health }
}

/// Opens the link. If the drone is on the bus but does not answer, sets [`Health::asked`].
fn open(ctx: &Ctx<'_>, device: &Device, serial: &str, before: &mut Health) -> Option<FirmwareLink> {
    match FirmwareLink::open(ctx, device, serial, OPEN_LIMIT) {
        Ok(link) => Some(link),
        Err(why) => {
            before.asked |= why == Unopened::Silent;
            None
        }
    }
}

impl Watch {
    fn run(&mut self, ctx: &mut Ctx<'_>) -> Result<Boot, Stop> {
        loop {
            ctx.check_cancelled()?;
            self.listen(ctx);
            let now = ctx.clock.now();
            let list = ctx.bus.list()?;
            let found = list.into_iter().find(|found| found.location == self.device.location);
            match found {
                Some(found) if (found.id, found.address) == (self.device.id, self.device.address) => {
                    self.gone_since = None;
                    if let Some(boot) = self.decide(ctx, now) {
                        return Ok(boot);
                    }
                }
                Some(found) if found.id == CRAZYFLIE || found.id == ROM_DFU => {
                    if let Some(boot) = self.follow(ctx, &found)? {
                        return Ok(boot);
                    }
                }
                // A restart takes only about a second, so the drone was probably unplugged.
                _ if now.saturating_sub(*self.gone_since.get_or_insert(now)) >= STAYS
                    || self.restarts > 0 && now.saturating_sub(self.seen) >= RESTARTED =>
                {
                    return Ok(if self.restarts > 0 { Boot::Restarts } else { Boot::NotWatched });
                }
                _ => {}
            }
        }
    }

    /// Asks for the version until it is known, and reads the lines that the drone prints.
    fn listen(&mut self, ctx: &Ctx<'_>) {
        self.reopen(ctx);
        let Some(link) = &mut self.link else {
            ctx.bus.wait(LISTEN);
            return;
        };
        let mut result = if self.runs.is_none() {
            query_firmware::version(ctx, link).map(|version| {
                if let Some(version) = version {
                    ctx.log(LogEntry::Runs(version.clone()));
                    self.version_seen = Some(ctx.clock.now());
                    self.runs = Some(version);
                }
            })
        } else {
            Ok(())
        };
        if result.is_ok() {
            result = link.listen(LISTEN).map(|lines| {
                for line in lines {
                    ctx.log(LogEntry::Console(line.text));
                }
            });
        }
        if let Err(error) = result {
            self.handle_failure(ctx, error);
        }
        if self.verdict.is_none() && self.health().has_verdict() {
            self.verdict = Some(ctx.clock.now());
        }
    }

    /// Returns the health that the running firmware has reported so far.
    fn health(&self) -> Health {
        match &self.link {
            Some(link) => link.health.clone().merge_earlier(&self.before),
            None => self.before.clone(),
        }
    }

    /// Closes the link after a failed transfer. After a transient error, opens a new link, but only once per run of the
    /// firmware.
    fn handle_failure(&mut self, ctx: &Ctx<'_>, error: TransferError) {
        ctx.log(LogEntry::NotAsked(error));
        self.close_link();
        self.must_reopen = error.is_transient() && !std::mem::replace(&mut self.failed, true);
        // Search for the parameter again, unless it was found.
        self.searched &= !self.must_reopen || self.parameter.is_some();
    }

    fn reopen(&mut self, ctx: &Ctx<'_>) {
        if self.link.is_none() && std::mem::take(&mut self.must_reopen) {
            self.link = open(ctx, &self.device, &self.serial, &mut self.before);
        }
    }

    fn close_link(&mut self) {
        self.before = self.health();
        self.link = None;
    }

    /// Returns the result as soon as it is certain. The drone must be on the bus.
    fn decide(&mut self, ctx: &mut Ctx<'_>, now: Duration) -> Option<Boot> {
        let watched = now.saturating_sub(self.seen);
        let limit = if self.restarts == 0 { STAYS } else { RESTARTED };
        if self.verdict.is_none() && watched >= FIND_PARAMETER && self.restarts == 0 {
            self.find_parameter(ctx);
        }
        if self.verdict.is_none() && watched >= limit {
            self.read_parameter(ctx);
        }
        let settled = self.verdict.is_some_and(|verdict| now.saturating_sub(verdict) >= AFTER_VERDICT);
        match self.restarts {
            0 => (settled || watched >= limit).then_some(Boot::StaysUp),
            // The drone restarted once. Its console now either explains the cause or shows that all is well.
            _ if settled && self.health().has_passed() => Some(Boot::StaysUp),
            _ => (settled || watched >= limit).then_some(Boot::Restarts),
        }
    }

    /// Searches for the parameter once, while the console may still report the verdict.
    fn find_parameter(&mut self, ctx: &mut Ctx<'_>) {
        let Some(link) = self.link.as_mut().filter(|_| self.runs.is_some() && !self.searched) else { return };
        self.searched = true;
        match query_firmware::find_self_test(ctx, link, SEARCH) {
            Ok(number) => self.parameter = number,
            Err(error) => self.handle_failure(ctx, error),
        }
    }

    /// Reads the verdict from the parameter, because the console has not reported a verdict: see
    /// [`Health::apply_self_test_parameter`].
    fn read_parameter(&mut self, ctx: &Ctx<'_>) {
        // This is the last transfer of the watch, so it is retried here.
        for _ in 0..2 {
            self.reopen(ctx);
            let (Some(link), Some(number)) = (&mut self.link, self.parameter) else { return };
            match query_firmware::read_self_test(ctx, link, number) {
                Ok(Some(passed)) => return link.health.apply_self_test_parameter(passed),
                Ok(None) => return,
                Err(error) => self.handle_failure(ctx, error),
            }
        }
    }

    /// Follows a drone that has restarted by itself, but only once: the next run of the firmware reports the cause. A
    /// second restart, or a restart into DFU mode, is conclusive: after manual entry, every reset ends in DFU mode.
    fn follow(&mut self, ctx: &mut Ctx<'_>, found: &Found) -> Result<Option<Boot>, Stop> {
        self.close_link();
        if self.restarts > 0 || found.id == ROM_DFU {
            return Ok(Some(Boot::Restarts));
        }
        // The drone may not answer at first.
        let Some(device) =
            device_at(ctx.bus, &found.location)?.filter(|device| device.mode == Mode::Firmware)
        else {
            let is_over = ctx.clock.now().saturating_sub(self.seen) >= RESTARTED;
            return Ok(is_over.then_some(Boot::Restarts));
        };
        self.restarts += 1;
        self.before = std::mem::take(&mut self.before).restarted();
        self.verdict = None;
        (self.failed, self.must_reopen) = (false, false);
        (self.searched, self.parameter) = (false, None);
        if require_same_drone(&self.serial, &device).is_err() {
            ctx.log(LogEntry::OtherDroneThere(device.location));
            return Ok(Some(Boot::NotWatched));
        }
        ctx.use_device(device.clone());
        ctx.run_state = RunState::Running;
        self.link = open(ctx, &device, &self.serial, &mut self.before);
        self.device = device;
        Ok(None)
    }
}
