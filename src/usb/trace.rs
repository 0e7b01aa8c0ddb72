//! A bus decorator that tells every transfer to a listener: the log of `-vv`, and the transfer counts of
//! the tests. It changes nothing that passes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Bus, BusError, Found, Pipe, Setup, TransferError, Transport};

/// One transfer as it went over the seam.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// A control transfer that reads, with what came.
    In(Setup, Result<Vec<u8>, TransferError>),
    /// A control transfer that writes, with how much was to go, and what came of it.
    Out(Setup, usize, Result<usize, TransferError>),
    /// An alternate setting was chosen.
    Select(u8, Result<(), TransferError>),
    /// A packet from or to a bulk endpoint, with what it was.
    Bulk(u8, Result<Vec<u8>, TransferError>),
}

pub(crate) type Listener = Arc<dyn Fn(&Transfer) + Send + Sync>;

/// The bus `inner`, overheard by `listener`.
pub struct Traced<B> {
    inner: B,
    listener: Listener,
}

impl<B: Bus> Traced<B> {
    /// Overhears every device that is opened from now on.
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
        let came = result.map(|n| buffer.get(..n).unwrap_or_default().to_vec());
        (self.listener)(&Transfer::In(setup, came));
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
        let came = result.map(|n| buffer.get(..n).unwrap_or_default().to_vec());
        (self.listener)(&Transfer::Bulk(pipe.endpoint, came));
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
        /// Enough to see a status; a block of data would fill the screen.
        const SHOWN: usize = 8;
        let setup = |f: &mut fmt::Formatter<'_>, s: &Setup| {
            write!(f, "{:02x} {:02x} value {:04x} index {:04x}", s.request_type, s.request, s.value, s.index)
        };
        let came = |f: &mut fmt::Formatter<'_>, result: &Result<Vec<u8>, TransferError>| match result {
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
                came(f, result)
            }
            Transfer::Bulk(endpoint, result) => {
                write!(f, "bulk {endpoint:02x}")?;
                came(f, result)
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
