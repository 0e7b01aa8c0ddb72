//! The one retry policy: how often something harmless is tried again, and with which pauses. [`Patient`] is a bus that
//! follows it for everything that may be asked twice without harm: descriptors and SET_INTERFACE.
//!
//! The pauses add up to 250 ms: a host controller reports errors for about as long before the hub notices that a device
//! was pulled, and a device that is still coming up needs no longer.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::usb::{Bus, BusError, Found, Pipe, Setup, TransferError, Transport};

pub(super) const PAUSES: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(100), Duration::from_millis(100)];

/// A request that may be repeated is answered in milliseconds.
const SLOW: Duration = Duration::from_secs(1);
/// Device to host, standard, device; and GET_DESCRIPTOR.
const GET_DESCRIPTOR: (u8, u8) = (0x80, 6);

/// A bus whose devices are asked again for what may be asked twice.
pub(crate) struct Patient<B> {
    inner: B,
    clock: Arc<dyn Clock>,
}

impl<B: Bus> Patient<B> {
    /// The bus `inner`, with repeats by this clock.
    pub(crate) fn new(inner: B, clock: Arc<dyn Clock>) -> Patient<B> {
        Patient { inner, clock }
    }
}

impl<B: Bus> Bus for Patient<B> {
    fn list(&self) -> Result<Vec<Found>, BusError> {
        self.inner.list()
    }

    fn open(&self, found: &Found) -> Result<Box<dyn Transport>, TransferError> {
        let inner = self.inner.open(found)?;
        Ok(Box::new(PatientTransport { inner, clock: Arc::clone(&self.clock), worn_out: false }))
    }

    fn wait(&self, limit: Duration) {
        self.inner.wait(limit);
    }
}

struct PatientTransport {
    inner: Box<dyn Transport>,
    clock: Arc<dyn Clock>,
    /// A request stayed without an answer through all repeats: a device that is silent once is not waited for at every
    /// further request.
    worn_out: bool,
}

impl PatientTransport {
    fn again<T>(
        &mut self,
        mut act: impl FnMut(&mut dyn Transport) -> Result<T, TransferError>,
    ) -> Result<T, TransferError> {
        let asked = self.clock.now();
        let mut result = act(&mut *self.inner);
        // What takes so long is no moment's trouble, whatever the system calls it: SET_INTERFACE has a limit of 5 s in
        // Linux, and none of ours.
        if self.clock.now().saturating_sub(asked) >= SLOW {
            self.worn_out = true;
        }
        let pauses = if self.worn_out { &[] } else { &PAUSES[..] };
        for pause in pauses {
            match result {
                Err(error) if error.is_transient() => self.clock.sleep(*pause),
                _ => return result,
            }
            result = act(&mut *self.inner);
        }
        self.worn_out |= matches!(result, Err(TransferError::Timeout));
        result
    }
}

impl Transport for PatientTransport {
    fn control_in(
        &mut self,
        setup: Setup,
        buffer: &mut [u8],
        limit: Duration,
    ) -> Result<usize, TransferError> {
        if (setup.request_type, setup.request) == GET_DESCRIPTOR {
            self.again(|inner| inner.control_in(setup, buffer, limit))
        } else {
            self.inner.control_in(setup, buffer, limit)
        }
    }

    fn control_out(&mut self, setup: Setup, data: &[u8], limit: Duration) -> Result<usize, TransferError> {
        self.inner.control_out(setup, data, limit)
    }

    fn select(&mut self, interface: u8, alternate: u8) -> Result<(), TransferError> {
        self.again(|inner| inner.select(interface, alternate))
    }

    fn bulk_in(&mut self, pipe: Pipe, buffer: &mut [u8], limit: Duration) -> Result<usize, TransferError> {
        self.inner.bulk_in(pipe, buffer, limit)
    }

    fn bulk_out(&mut self, pipe: Pipe, data: &[u8], limit: Duration) -> Result<usize, TransferError> {
        self.inner.bulk_out(pipe, data, limit)
    }
}
