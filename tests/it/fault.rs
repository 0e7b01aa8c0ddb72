//! Makes one transfer of a job fail, at any point and in any way that occurs on a real bus.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cfdfu::usb::{Bus, Found, Setup, TransferError, Transport};

use crate::bent::{Ask, BentTransport, Intercept, InterceptedUsb};

/// bRequest of GETSTATUS, a class request of DFU (DFU 1.1 §6.1.2).
const GETSTATUS: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The cable is pulled before the transfer; the device is gone until it is plugged in again.
    Unplug,
    /// The transfer stalls and does not reach the device.
    Stall,
    /// The transfer times out and does not reach the device.
    Timeout,
    /// The device acts on the transfer, but its answer is lost.
    LostAnswer,
    /// A read returns only half of its data. A write does not reach the device, but half of it is reported as sent.
    Short,
    /// The next GETSTATUS reports this bStatus with dfuERROR, once.
    Status(u8),
    /// The next GETSTATUS reports this bState, once.
    State(u8),
    /// From this transfer on, GETSTATUS always reports dfuDNBUSY.
    Busy,
}

/// A fault and the number of the transfer at which it begins, counted from 0 across all devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    pub at: u64,
    pub fault: Fault,
}

/// The state that the bus shares with the test.
pub struct Faults {
    script: Option<Script>,
    count: AtomicU64,
    /// Whether a GETSTATUS answer has already been changed; `Status` and `State` change only one.
    falsified: AtomicBool,
    on_unplug: Mutex<Box<dyn FnMut() + Send>>,
}

impl Faults {
    /// Prepares a fault, if any. `on_unplug` must cut the power of the simulated device.
    pub fn new(script: Option<Script>, on_unplug: impl FnMut() + Send + 'static) -> Arc<Faults> {
        Arc::new(Faults {
            script,
            count: AtomicU64::new(0),
            falsified: AtomicBool::new(false),
            on_unplug: Mutex::new(Box::new(on_unplug)),
        })
    }

    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Counts a transfer, and returns its fault, if any.
    fn next(&self, is_status: bool) -> Option<Fault> {
        let now = self.count.fetch_add(1, Ordering::SeqCst);
        let Script { at, fault } = self.script?;
        match fault {
            Fault::Busy => (now >= at && is_status).then_some(fault),
            // Transfer `at` may not be a GETSTATUS, so change the first GETSTATUS from there on.
            Fault::Status(_) | Fault::State(_) => {
                let due = now >= at && is_status && !self.falsified.swap(true, Ordering::SeqCst);
                due.then_some(fault)
            }
            _ => (now == at).then_some(fault),
        }
    }

    fn unplug(&self) {
        (self.on_unplug.lock().unwrap_or_else(PoisonError::into_inner))();
    }
}

/// Wraps the bus `inner` so that every transfer of every device is subject to `faults`.
pub fn faulty<B: Bus>(inner: B, faults: Arc<Faults>) -> impl Bus {
    let open = move |bus: &B, found: &Found| -> Result<Box<dyn Transport>, TransferError> {
        let faults = Arc::clone(&faults);
        let mut is_gone = false;
        let bend = move |ask: Ask<'_>| bend(&faults, &mut is_gone, &ask);
        Ok(Box::new(BentTransport { inner: bus.open(found)?, bend }))
    };
    InterceptedUsb { bus: inner, open }
}

/// Decides what happens to one transfer, and pulls the cable if the fault is `Unplug`.
fn bend(faults: &Faults, is_gone: &mut bool, ask: &Ask<'_>) -> Intercept {
    let is_status = matches!(ask, Ask::In(Setup { request_type: 0xA1, request: GETSTATUS, .. }, _));
    let fault = faults.next(is_status);
    if fault == Some(Fault::Unplug) {
        faults.unplug();
        *is_gone = true;
    }
    match fault {
        _ if *is_gone => Intercept::Fail(TransferError::Disconnected),
        Some(Fault::Stall) => Intercept::Fail(TransferError::Stall),
        Some(Fault::Timeout) => Intercept::Fail(TransferError::Timeout),
        Some(Fault::LostAnswer) => Intercept::LoseAnswer,
        Some(Fault::Short) if !matches!(ask, Ask::Select(_)) => Intercept::Half,
        Some(Fault::Status(code)) => change_status(move |answer| (answer[0], answer[4]) = (code, 10)),
        Some(Fault::State(state)) => change_status(move |answer| answer[4] = state),
        Some(Fault::Busy) => change_status(|answer| *answer = [0, 100, 0, 0, 4, 0]),
        Some(Fault::Short | Fault::Unplug) | None => Intercept::Pass,
    }
}

/// Applies `change` to the answer if it is a complete status.
fn change_status(change: impl FnOnce(&mut [u8; 6]) + 'static) -> Intercept {
    Intercept::Change(Box::new(|answer| {
        if let Ok(status) = answer.try_into() {
            change(status);
        }
    }))
}
