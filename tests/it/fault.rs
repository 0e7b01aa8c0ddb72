//! A bus decorator that makes one transfer go wrong, at any point and in any way that a real bus knows.
//!
//! It stands between host and device, so neither has a line of code for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cfdfu::usb::{Bus, BusError, Found, Pipe, Setup, TransferError, Transport};

/// bRequest of GETSTATUS in the class requests of DFU (DFU 1.1 §6.1.2).
const GETSTATUS: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The cable is pulled before the transfer; the device stays away until it is plugged in again.
    Unplug,
    /// The transfer is refused and does not reach the device.
    Stall,
    /// The transfer is lost on its way to the device.
    Timeout,
    /// The device acts on the transfer, but its answer is lost.
    LostAnswer,
    /// Half of the data comes, or goes.
    Short,
    /// The next GETSTATUS reports this bStatus with dfuERROR, once.
    Status(u8),
    /// GETSTATUS reports this bState, once.
    State(u8),
    /// From here on, GETSTATUS reports dfuDNBUSY for ever.
    Busy,
}

/// A fault and the transfer that it hits, counted over all devices from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    pub at: u64,
    pub fault: Fault,
}

/// What the decorator shares with the test that set it up.
pub struct Faults {
    script: Option<Script>,
    count: AtomicU64,
    /// For faults that come once, at the first GETSTATUS from `at` on.
    falsified: AtomicBool,
    on_unplug: Mutex<Box<dyn FnMut() + Send>>,
}

impl Faults {
    /// A fault to come; `on_unplug` tells the simulated device that it lost its power.
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

    /// What happens to the next transfer.
    fn next(&self, is_status: bool) -> Option<Fault> {
        let now = self.count.fetch_add(1, Ordering::SeqCst);
        let Script { at, fault } = self.script?;
        match fault {
            Fault::Busy => (now >= at && is_status).then_some(fault),
            // The status that these falsify may come a little later than the transfer that is counted.
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

/// The bus `inner` with faults.
pub struct Faulty<B> {
    inner: B,
    faults: Arc<Faults>,
}

impl<B: Bus> Faulty<B> {
    /// Every device that is opened from now on goes through `faults`.
    pub fn new(inner: B, faults: Arc<Faults>) -> Faulty<B> {
        Faulty { inner, faults }
    }
}

impl<B: Bus> Bus for Faulty<B> {
    fn list(&self) -> Result<Vec<Found>, BusError> {
        self.inner.list()
    }

    fn open(&self, found: &Found) -> Result<Box<dyn Transport>, TransferError> {
        let inner = self.inner.open(found)?;
        Ok(Box::new(FaultyTransport { inner, faults: Arc::clone(&self.faults), gone: false }))
    }

    fn wait(&self, limit: Duration) {
        self.inner.wait(limit);
    }
}

struct FaultyTransport {
    inner: Box<dyn Transport>,
    faults: Arc<Faults>,
    gone: bool,
}

impl FaultyTransport {
    /// The fault for this transfer, with the cable pulled if that is what it is.
    fn fault(&mut self, setup: Option<Setup>) -> Result<Option<Fault>, TransferError> {
        let is_status = setup.is_some_and(|s| s.request_type == 0xA1 && s.request == GETSTATUS);
        let fault = self.faults.next(is_status);
        if fault == Some(Fault::Unplug) {
            self.faults.unplug();
            self.gone = true;
        }
        match fault {
            _ if self.gone => Err(TransferError::Disconnected),
            Some(Fault::Stall) => Err(TransferError::Stall),
            Some(Fault::Timeout) => Err(TransferError::Timeout),
            other => Ok(other),
        }
    }
}

impl Transport for FaultyTransport {
    fn control_in(
        &mut self,
        setup: Setup,
        buffer: &mut [u8],
        limit: Duration,
    ) -> Result<usize, TransferError> {
        let fault = self.fault(Some(setup))?;
        let n = self.inner.control_in(setup, buffer, limit)?;
        match fault {
            Some(Fault::LostAnswer) => Err(TransferError::Timeout),
            Some(Fault::Short) => Ok(n / 2),
            Some(Fault::Status(code)) if n == 6 => {
                buffer[0] = code;
                buffer[4] = 10;
                Ok(n)
            }
            Some(Fault::State(state)) if n == 6 => {
                buffer[4] = state;
                Ok(n)
            }
            Some(Fault::Busy) if n == 6 => {
                buffer[..6].copy_from_slice(&[0, 100, 0, 0, 4, 0]);
                Ok(n)
            }
            _ => Ok(n),
        }
    }

    fn control_out(&mut self, setup: Setup, data: &[u8], limit: Duration) -> Result<usize, TransferError> {
        match self.fault(Some(setup))? {
            Some(Fault::LostAnswer) => {
                self.inner.control_out(setup, data, limit)?;
                Err(TransferError::Timeout)
            }
            Some(Fault::Short) => Ok(data.len() / 2),
            _ => self.inner.control_out(setup, data, limit),
        }
    }

    fn select(&mut self, interface: u8, alternate: u8) -> Result<(), TransferError> {
        self.fault(None)?;
        self.inner.select(interface, alternate)
    }

    fn bulk_in(&mut self, pipe: Pipe, buffer: &mut [u8], limit: Duration) -> Result<usize, TransferError> {
        let fault = self.fault(None)?;
        let n = self.inner.bulk_in(pipe, buffer, limit)?;
        match fault {
            Some(Fault::LostAnswer) => Err(TransferError::Timeout),
            Some(Fault::Short) => Ok(n / 2),
            _ => Ok(n),
        }
    }

    fn bulk_out(&mut self, pipe: Pipe, data: &[u8], limit: Duration) -> Result<usize, TransferError> {
        match self.fault(None)? {
            Some(Fault::LostAnswer) => {
                self.inner.bulk_out(pipe, data, limit)?;
                Err(TransferError::Timeout)
            }
            Some(Fault::Short) => Ok(data.len() / 2),
            _ => self.inner.bulk_out(pipe, data, limit),
        }
    }
}
