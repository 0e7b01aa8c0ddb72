//! The retry policy: how often an idempotent request is retried, and how long the pauses are. [`RetryingBus`] applies
//! the policy to GET_DESCRIPTOR and SET_INTERFACE. `worker::session` applies the same pauses to DFU operations.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::usb::{Bus, BusError, Found, Pipe, Setup, TransferError, Transport};

/// The pause before each retry of a failed request.
///
/// All retries share one policy, because retries on several levels would multiply, and a job whose device does not
/// answer could not be cancelled for many seconds. 250 ms in total is enough: a host controller reports errors for
/// about that long before the hub notices that a device was unplugged, and a device that is still starting needs no
/// more time.
///
/// Only idempotent operations are retried: GET_DESCRIPTOR, SET_INTERFACE, and the DFU operations of `worker::session`.
/// A DFU request may move the device to another state, so it is not retried on its own: the whole operation is retried,
/// after a recovery to dfuIDLE. [`RetryingBus`] sends all other control and bulk transfers once.
pub(super) const PAUSES: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(100), Duration::from_millis(100)];

/// A request that takes this long is not retried. Idempotent requests are normally answered within milliseconds.
const SLOW: Duration = Duration::from_secs(1);
/// bmRequestType (device to host, standard, device) and bRequest of GET_DESCRIPTOR.
const GET_DESCRIPTOR: (u8, u8) = (0x80, 6);

/// A bus that retries idempotent requests to its devices: see [`PAUSES`].
pub(crate) struct RetryingBus<B> {
    inner: B,
    clock: Arc<dyn Clock>,
}

impl<B: Bus> RetryingBus<B> {
    /// Wraps `inner`. The pauses use `clock`.
    pub(crate) fn new(inner: B, clock: Arc<dyn Clock>) -> RetryingBus<B> {
        RetryingBus { inner, clock }
    }
}

impl<B: Bus> Bus for RetryingBus<B> {
    fn list(&self) -> Result<Vec<Found>, BusError> {
        self.inner.list()
    }

    fn open(&self, found: &Found) -> Result<Box<dyn Transport>, TransferError> {
        let inner = self.inner.open(found)?;
        Ok(Box::new(RetryingTransport { inner, clock: Arc::clone(&self.clock), retries_disabled: false }))
    }

    fn wait(&self, limit: Duration) {
        self.inner.wait(limit);
    }
}

struct RetryingTransport {
    inner: Box<dyn Transport>,
    clock: Arc<dyn Clock>,
    /// Set once a request took too long or timed out on its last attempt. Further requests are not retried.
    retries_disabled: bool,
}

impl RetryingTransport {
    fn retry<T>(
        &mut self,
        mut act: impl FnMut(&mut dyn Transport) -> Result<T, TransferError>,
    ) -> Result<T, TransferError> {
        let start = self.clock.now();
        let mut result = act(&mut *self.inner);
        // An error after this long is not transient, whatever its code. SET_INTERFACE is the reason for this check:
        // Linux gives this request a timeout of 5 s, which cannot be changed here.
        if self.clock.now().saturating_sub(start) >= SLOW {
            self.retries_disabled = true;
        }
        let pauses = if self.retries_disabled { &[] } else { &PAUSES[..] };
        for pause in pauses {
            match result {
                Err(error) if error.is_transient() => self.clock.sleep(*pause),
                _ => return result,
            }
            result = act(&mut *self.inner);
        }
        self.retries_disabled |= matches!(result, Err(TransferError::Timeout));
        result
    }
}

impl Transport for RetryingTransport {
    fn control_in(
        &mut self,
        setup: Setup,
        buffer: &mut [u8],
        limit: Duration,
    ) -> Result<usize, TransferError> {
        if (setup.request_type, setup.request) == GET_DESCRIPTOR {
            self.retry(|inner| inner.control_in(setup, buffer, limit))
        } else {
            self.inner.control_in(setup, buffer, limit)
        }
    }

    fn control_out(&mut self, setup: Setup, data: &[u8], limit: Duration) -> Result<usize, TransferError> {
        self.inner.control_out(setup, data, limit)
    }

    fn select(&mut self, interface: u8, alternate: u8) -> Result<(), TransferError> {
        self.retry(|inner| inner.select(interface, alternate))
    }

    fn bulk_in(&mut self, pipe: Pipe, buffer: &mut [u8], limit: Duration) -> Result<usize, TransferError> {
        self.inner.bulk_in(pipe, buffer, limit)
    }

    fn bulk_out(&mut self, pipe: Pipe, data: &[u8], limit: Duration) -> Result<usize, TransferError> {
        self.inner.bulk_out(pipe, data, limit)
    }
}
