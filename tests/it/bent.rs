//! A bus whose opens and answers a test bends: the rest goes through as it is. The one way in which tests make a bus go
//! wrong; [`crate::fault`] bends by a script. It stands between host and device, so neither has a line of code for it.

use std::time::Duration;

use cfdfu::usb::{Bus, BusError, Found, Pipe, Setup, TransferError, Transport};

/// The devices of `bus`, each opened by `open`, which gets the device and what opens it.
pub struct Bent<B, F> {
    pub bus: B,
    pub open: F,
}

impl<B: Bus, F> Bus for Bent<B, F>
where
    F: Fn(&B, &Found) -> Result<Box<dyn Transport>, TransferError> + Send + Sync,
{
    fn list(&self) -> Result<Vec<Found>, BusError> {
        self.bus.list()
    }

    fn open(&self, found: &Found) -> Result<Box<dyn Transport>, TransferError> {
        (self.open)(&self.bus, found)
    }

    fn wait(&self, limit: Duration) {
        self.bus.wait(limit);
    }
}

/// What the host asks of an open device.
pub enum Ask<'a> {
    In(Setup, Duration),
    Out(Setup, &'a [u8]),
    Select(u8),
    BulkIn,
    BulkOut,
}

/// What becomes of it.
pub enum Bend {
    /// It goes through.
    Pass,
    /// The device does not get it; these bytes, which matter for [`Ask::In`] only, are its answer.
    Answer(Vec<u8>),
    /// The device does not get it.
    Fail(TransferError),
    /// The device acts on it, and its answer is lost.
    LoseAnswer,
    /// Half of the data comes, or none goes and half of it is said to have gone.
    Half,
    /// The device acts on it, and six bytes of answer, a status, are changed.
    Status(fn(&mut [u8], u8), u8),
}

/// `None` passes.
impl From<Option<Result<Vec<u8>, TransferError>>> for Bend {
    fn from(answer: Option<Result<Vec<u8>, TransferError>>) -> Bend {
        match answer {
            None => Bend::Pass,
            Some(Ok(bytes)) => Bend::Answer(bytes),
            Some(Err(error)) => Bend::Fail(error),
        }
    }
}

/// A transport of which `bend` decides what becomes of everything that is asked.
pub struct BentTransport<F> {
    pub inner: Box<dyn Transport>,
    pub bend: F,
}

impl<F, R> BentTransport<F>
where
    F: FnMut(Ask<'_>) -> R,
    R: Into<Bend>,
{
    fn read(
        &mut self,
        ask: Ask<'_>,
        buffer: &mut [u8],
        read: impl FnOnce(&mut dyn Transport, &mut [u8]) -> Result<usize, TransferError>,
    ) -> Result<usize, TransferError> {
        match (self.bend)(ask).into() {
            Bend::Pass => read(&mut *self.inner, buffer),
            Bend::Answer(answer) => {
                let len = answer.len().min(buffer.len());
                buffer[..len].copy_from_slice(&answer[..len]);
                Ok(len)
            }
            Bend::Fail(error) => Err(error),
            Bend::LoseAnswer => read(&mut *self.inner, buffer).and(Err(TransferError::Timeout)),
            Bend::Half => Ok(read(&mut *self.inner, buffer)? / 2),
            Bend::Status(change, code) => {
                let n = read(&mut *self.inner, buffer)?;
                if n == 6 {
                    change(&mut buffer[..n], code);
                }
                Ok(n)
            }
        }
    }

    /// `len` bytes of data are sent.
    fn write(
        &mut self,
        ask: Ask<'_>,
        len: usize,
        write: impl FnOnce(&mut dyn Transport) -> Result<usize, TransferError>,
    ) -> Result<usize, TransferError> {
        match (self.bend)(ask).into() {
            Bend::Pass | Bend::Status(..) => write(&mut *self.inner),
            Bend::Answer(_) => Ok(len),
            Bend::Fail(error) => Err(error),
            Bend::LoseAnswer => write(&mut *self.inner).and(Err(TransferError::Timeout)),
            Bend::Half => Ok(len / 2),
        }
    }
}

impl<F, R> Transport for BentTransport<F>
where
    F: FnMut(Ask<'_>) -> R + Send,
    R: Into<Bend>,
{
    fn control_in(
        &mut self,
        setup: Setup,
        buffer: &mut [u8],
        limit: Duration,
    ) -> Result<usize, TransferError> {
        self.read(Ask::In(setup, limit), buffer, |inner, buffer| inner.control_in(setup, buffer, limit))
    }

    fn control_out(&mut self, setup: Setup, data: &[u8], limit: Duration) -> Result<usize, TransferError> {
        self.write(Ask::Out(setup, data), data.len(), |inner| inner.control_out(setup, data, limit))
    }

    fn select(&mut self, interface: u8, alternate: u8) -> Result<(), TransferError> {
        let sent = |inner: &mut dyn Transport| inner.select(interface, alternate).map(|()| 0);
        self.write(Ask::Select(alternate), 0, sent).map(drop)
    }

    fn bulk_in(&mut self, pipe: Pipe, buffer: &mut [u8], limit: Duration) -> Result<usize, TransferError> {
        self.read(Ask::BulkIn, buffer, |inner, buffer| inner.bulk_in(pipe, buffer, limit))
    }

    fn bulk_out(&mut self, pipe: Pipe, data: &[u8], limit: Duration) -> Result<usize, TransferError> {
        self.write(Ask::BulkOut, data.len(), |inner| inner.bulk_out(pipe, data, limit))
    }
}
