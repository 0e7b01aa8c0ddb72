//! Selects the drone for a job, puts it into DFU mode and opens it. The drone is tracked by its port. The serial
//! number is only a cross-check, because chips from one batch may report the same number in DFU mode.

use std::time::Duration;

use super::port::{open, require_same_drone, wait_for_permission};
use super::reboot::{enter_dfu, wait_for_dfu_by_hand};
use super::timeline::Part;
use super::{Ctx, RunState, Stop, query_firmware};
use crate::crazyflie::console::Health;
use crate::crazyflie::{self, Mode};
use crate::job::{Device, Enter, FailureKind, Job, LogEntry, Task, WaitFor};
use crate::scan::choose_while;
use crate::usb::{CRAZYFLIE, ROM_DFU, Transport, UDEV};

/// Waits for the device that the job selects, in either mode.
pub(super) fn find_device(ctx: &mut Ctx<'_>, job: &Job) -> Result<Device, Stop> {
    let mut inaccessible_since = None;
    let mut has_warned = false;
    let device = ctx.wait_for(WaitFor::Crazyflie, job.wait, |ctx| match select_device(ctx, job)? {
        // The job's drone may still return to its port.
        Err(kind @ FailureKind::OtherDrone { .. }) if !job.wait.is_zero() => {
            if !std::mem::replace(&mut has_warned, true) {
                ctx.log(LogEntry::LeftAlone(kind));
            }
            Ok(None)
        }
        // Keep waiting: the user may plug in or unplug a device until the time is up.
        Err(FailureKind::NoDevice | FailureKind::OnlyOthers(_) | FailureKind::NoMatch(_)) => {
            inaccessible_since = None;
            Ok(None)
        }
        // This device may be a different board. Keep waiting for the Crazyflie.
        Ok(device) if device.is_doubtful() && !job.wait.is_zero() => Ok(None),
        Err(FailureKind::NoAccess(CRAZYFLIE)) if !job.wait.is_zero() => Ok(None),
        // A device that has just appeared may become accessible a moment later.
        Err(kind @ (FailureKind::NoAccess(_) | FailureKind::Held | FailureKind::Open(_))) => {
            let now = ctx.clock.now();
            let waited = now.saturating_sub(*inaccessible_since.get_or_insert(now));
            if waited < UDEV { Ok(None) } else { Err(kind.into()) }
        }
        other => Ok(Some(other?)),
    })?;
    // On a timeout, select once more to get the reason.
    let device = match device {
        Some(device) => device,
        None => select_device(ctx, job)??,
    };
    let device = wait_for_permission(ctx, device)?;
    // A device that could not be opened at first reports its serial number only now.
    if let Some(serial) = &job.serial {
        require_same_drone(serial, &device)?;
    }
    ctx.use_device(device.clone());
    match device.open_error {
        Some(error) => Err(FailureKind::cannot_open(device.id, error).into()),
        None => Ok(device),
    }
}

/// An open drone in DFU mode.
pub(super) struct InDfu {
    pub(super) device: Device,
    pub(super) transport: Box<dyn Transport>,
    /// Whether the drone entered DFU mode without this job: the drone was found in DFU mode, or the user brought it
    /// into DFU mode.
    pub(super) by_hand: bool,
    /// The health that the firmware printed before the drone entered DFU mode.
    pub(super) health: Health,
}

/// Waits for the device that the job selects, puts it into DFU mode and opens it.
pub(super) fn open_in_dfu(ctx: &mut Ctx<'_>, job: &Job) -> Result<InDfu, Stop> {
    let device = find_device(ctx, job)?;
    // Only a running drone reports its full serial number. If that number is known, an earlier job or scan saw the
    // drone running.
    let known = job.serial.as_deref().and_then(crazyflie::dfu_serial).is_some();
    ctx.run_state = match device.mode {
        Mode::Firmware => RunState::Running,
        Mode::Dfu if known => RunState::Seen,
        Mode::Dfu => RunState::InDfu,
    };
    if device.mode == Mode::Dfu {
        let transport = open(ctx, &device)?;
        return Ok(InDfu { device, transport, by_hand: true, health: Health::default() });
    }
    ctx.enter_part(Part::Enter);
    // Only planning a flash needs the drone's health.
    let health = match job.task {
        Task::Flash(_) => query_firmware::read_printed_health(ctx, &device),
        _ => Health::default(),
    };
    ctx.check_cancelled()?;
    let entered = match job.enter {
        Enter::IfRunning => enter_dfu(ctx, &device, job.wait),
        Enter::Unaided => enter_dfu(ctx, &device, Duration::ZERO),
        Enter::Never => Err(FailureKind::NotInDfu.into()),
        Enter::NotAllowed => Err(FailureKind::NoAccess(ROM_DFU).into()),
    };
    let (device, by_hand) = match entered {
        Ok(entered) => (entered, false),
        // If the job may wait, let the user enter DFU mode by hand.
        Err(Stop::Failed(
            kind @ (FailureKind::NotInDfu | FailureKind::TooOld | FailureKind::DidNotEnter { .. }),
            _,
        )) if !job.wait.is_zero() && job.enter != Enter::Unaided => {
            if job.enter == Enter::IfRunning {
                ctx.log(LogEntry::EntryFailed(kind.clone()));
            }
            let entered_by_hand = wait_for_dfu_by_hand(ctx, &device, job.wait)?;
            (entered_by_hand.ok_or(kind)?, true)
        }
        Err(stop) => return Err(stop),
    };
    ctx.use_device(device.clone());
    if let Some(error) = device.open_error {
        return Err(FailureKind::cannot_open(device.id, error).into());
    }
    let transport = open(ctx, &device)?;
    Ok(InDfu { device, transport, by_hand, health })
}

/// Selects the one device that matches the job's selector. If the job is for a particular drone, the serial number must
/// also match.
fn select_device(ctx: &mut Ctx<'_>, job: &Job) -> Result<Result<Device, FailureKind>, Stop> {
    let device = choose_while(ctx.bus, &job.device, &mut || ctx.check_cancelled().is_ok());
    ctx.check_cancelled()?;
    Ok(device.and_then(|device| match &job.serial {
        Some(serial) => require_same_drone(serial, &device).map(|()| device),
        None => Ok(device),
    }))
}
