//! A bus that lets a test intercept individual `open` calls and requests; everything else passes through unchanged. The
//! bus sits between the host and the device, so neither needs code for injected errors. The module `fault`
//! uses this bus to make one transfer of a job fail.

use std::time::Duration;

use cfdfu::usb::{Bus, BusError, Found, Pipe, Setup, TransferError, Transport};

/// Lists the devices of `bus` and opens each of them with the function `open`, which receives the bus and the device.
pub struct InterceptedUsb<B, F> {
    pub bus: B,
    pub open: F,
}

impl<B: Bus, F> Bus for InterceptedUsb<B, F>
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

/// A request from the host to an open device.
pub enum Ask<'a> {
    In(Setup, Duration),
    Out(Setup, &'a [u8]),
    Select(u8),
    BulkIn,
    BulkOut,
}

pub type AnswerChange = Box<dyn FnOnce(&mut [u8])>;

/// What to do with a request.
pub enum Intercept {
    /// Pass it on unchanged.
    Pass,
    /// Do not pass it on; answer with these bytes. A write ignores the bytes.
    Answer(Vec<u8>),
    /// Do not pass it on; return this error.
    Fail(TransferError),
    /// Pass it on, but report a timeout instead of the answer.
    LoseAnswer,
    /// Return only half of the data from a read. Drop a write, but report half of it as sent.
    Half,
    /// Pass it on, then change the bytes of the answer. A write has no answer to change.
    Change(AnswerChange),
}

/// `None` becomes [`Intercept::Pass`].
impl From<Option<Result<Vec<u8>, TransferError>>> for Intercept {
    fn from(answer: Option<Result<Vec<u8>, TransferError>>) -> Intercept {
        match answer {
            None => Intercept::Pass,
            Some(Ok(bytes)) => Intercept::Answer(bytes),
            Some(Err(error)) => Intercept::Fail(error),
        }
    }
}

/// A transport that calls `bend` to decide what to do with each request.
pub struct BentTransport<F> {
    pub inner: Box<dyn Transport>,
    pub bend: F,
}

impl<F, R> BentTransport<F>
where
    F: FnMut(Ask<'_>) -> R,
    R: Into<Intercept>,
{
    fn read(
        &mut self,
        ask: Ask<'_>,
        buffer: &mut [u8],
        read: impl FnOnce(&mut dyn Transport, &mut [u8]) -> Result<usize, TransferError>,
    ) -> Result<usize, TransferError> {
        match (self.bend)(ask).into() {
            Intercept::Pass => read(&mut *self.inner, buffer),
            Intercept::Answer(answer) => {
                let len = answer.len().min(buffer.len());
                buffer[..len].copy_from_slice(&answer[..len]);
                Ok(len)
            }
            Intercept::Fail(error) => Err(error),
            Intercept::LoseAnswer => read(&mut *self.inner, buffer).and(Err(TransferError::Timeout)),
            Intercept::Half => Ok(read(&mut *self.inner, buffer)? / 2),
            Intercept::Change(change) => {
                let n = read(&mut *self.inner, buffer)?;
                change(&mut buffer[..n]);
                Ok(n)
            }
        }
    }

    /// Performs a request that sends `len` bytes to the device, unless `bend` decides otherwise.
    fn write(
        &mut self,
        ask: Ask<'_>,
        len: usize,
        write: impl FnOnce(&mut dyn Transport) -> Result<usize, TransferError>,
    ) -> Result<usize, TransferError> {
        match (self.bend)(ask).into() {
            Intercept::Pass | Intercept::Change(_) => write(&mut *self.inner),
            Intercept::Answer(_) => Ok(len),
            Intercept::Fail(error) => Err(error),
            Intercept::LoseAnswer => write(&mut *self.inner).and(Err(TransferError::Timeout)),
            Intercept::Half => Ok(len / 2),
        }
    }
}

impl<F, R> Transport for BentTransport<F>
where
    F: FnMut(Ask<'_>) -> R + Send,
    R: Into<Intercept>,
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
        let select = |inner: &mut dyn Transport| inner.select(interface, alternate).map(|()| 0);
        self.write(Ask::Select(alternate), 0, select).map(drop)
    }

    fn bulk_in(&mut self, pipe: Pipe, buffer: &mut [u8], limit: Duration) -> Result<usize, TransferError> {
        self.read(Ask::BulkIn, buffer, |inner, buffer| inner.bulk_in(pipe, buffer, limit))
    }

    fn bulk_out(&mut self, pipe: Pipe, data: &[u8], limit: Duration) -> Result<usize, TransferError> {
        self.write(Ask::BulkOut, data.len(), |inner| inner.bulk_out(pipe, data, limit))
    }
}
