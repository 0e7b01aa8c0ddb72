//! A bus decorator that reports every transfer to a listener, for the `-vv` log and for the transfer counts in tests.
//! The transfers themselves do not change.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Bus, BusError, Found, Pipe, Setup, TransferError, Transport};

/// One transfer and its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// A control transfer from the device, with the bytes received.
    In(Setup, Result<Vec<u8>, TransferError>),
    /// A control transfer to the device, with the number of bytes to send and the number sent.
    Out(Setup, usize, Result<usize, TransferError>),
    /// The selection of an alternate setting.
    Select(u8, Result<(), TransferError>),
    /// A packet from or to a bulk endpoint, with its bytes.
    Bulk(u8, Result<Vec<u8>, TransferError>),
}

pub(crate) type Listener = Arc<dyn Fn(&Transfer) + Send + Sync>;

/// Reports every transfer on the bus `inner` to `listener`.
pub struct Traced<B> {
    inner: B,
    listener: Listener,
}

impl<B: Bus> Traced<B> {
    /// Wraps `inner`. The transfers of every device opened through the new bus are reported.
    pub fn new(inner: B, listener: Listener) -> Traced<B> {
        Traced { inner, listener }
    }
}

impl<B: Bus> Bus for Traced<B> {
    fn list(&self) -> Result<Vec<Found>, BusError> {
        self.inner.list()
    }

    fn open(&self, found: &Found) -> Result<Box<dyn Transport>, TransferError> {
        let inner = self.inner.open(found)?;
        Ok(Box::new(TracedTransport { inner, listener: Arc::clone(&self.listener) }))
    }

    fn wait(&self, limit: Duration) {
        self.inner.wait(limit);
    }
}

struct TracedTransport {
    inner: Box<dyn Transport>,
    listener: Listener,
}

impl Transport for TracedTransport {
    fn control_in(
        &mut self,
        setup: Setup,
        buffer: &mut [u8],
        limit: Duration,
    ) -> Result<usize, TransferError> {
        let result = self.inner.control_in(setup, buffer, limit);
        let received = result.map(|n| buffer.get(..n).unwrap_or_default().to_vec());
        (self.listener)(&Transfer::In(setup, received));
        result
    }

    fn control_out(&mut self, setup: Setup, data: &[u8], limit: Duration) -> Result<usize, TransferError> {
        let result = self.inner.control_out(setup, data, limit);
        (self.listener)(&Transfer::Out(setup, data.len(), result));
        result
    }

    fn select(&mut self, interface: u8, alternate: u8) -> Result<(), TransferError> {
        let result = self.inner.select(interface, alternate);
        (self.listener)(&Transfer::Select(alternate, result));
        result
    }

    fn bulk_in(&mut self, pipe: Pipe, buffer: &mut [u8], limit: Duration) -> Result<usize, TransferError> {
        let result = self.inner.bulk_in(pipe, buffer, limit);
        let received = result.map(|n| buffer.get(..n).unwrap_or_default().to_vec());
        (self.listener)(&Transfer::Bulk(pipe.endpoint, received));
        result
    }

    fn bulk_out(&mut self, pipe: Pipe, data: &[u8], limit: Duration) -> Result<usize, TransferError> {
        let result = self.inner.bulk_out(pipe, data, limit);
        (self.listener)(&Transfer::Bulk(pipe.endpoint, result.map(|_| data.to_vec())));
        result
    }
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The number of bytes to print: enough for a status. A whole data block would fill the screen.
        const SHOWN: usize = 8;
        let setup = |f: &mut fmt::Formatter<'_>, s: &Setup| {
            write!(f, "{:02x} {:02x} value {:04x} index {:04x}", s.request_type, s.request, s.value, s.index)
        };
        let received = |f: &mut fmt::Formatter<'_>, result: &Result<Vec<u8>, TransferError>| match result {
            Ok(bytes) => {
                write!(f, " → {} bytes", bytes.len())?;
                bytes.iter().take(SHOWN).try_for_each(|byte| write!(f, " {byte:02x}"))?;
                f.write_str(if bytes.len() > SHOWN { " …" } else { "" })
            }
            Err(error) => write!(f, " → {error}"),
        };
        match self {
            Transfer::In(s, result) => {
                f.write_str("in  ")?;
                setup(f, s)?;
                received(f, result)
            }
            Transfer::Bulk(endpoint, result) => {
                write!(f, "bulk {endpoint:02x}")?;
                received(f, result)
            }
            Transfer::Out(s, len, result) => {
                f.write_str("out ")?;
                setup(f, s)?;
                write!(f, ", {len} bytes → ")?;
                match result {
                    Ok(_) => f.write_str("ok"),
                    Err(error) => write!(f, "{error}"),
                }
            }
            Transfer::Select(alternate, Ok(())) => write!(f, "select alternate setting {alternate} → ok"),
            Transfer::Select(alternate, Err(error)) => {
                write!(f, "select alternate setting {alternate} → {error}")
            }
        }
    }
}
