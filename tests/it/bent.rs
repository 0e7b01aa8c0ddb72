//! A bus with the simulated drones on it whose opens and answers a test bends: the rest goes through as it is.

use std::time::Duration;

use cfdfu::sim::SimBus;
use cfdfu::usb::{Bus, BusError, Found, Pipe, Setup, TransferError, Transport};

/// The drones of `bus`, each opened by `open`, which gets the device and what opens it.
pub struct Bent<F> {
    pub bus: SimBus,
    pub open: F,
}

impl<F> Bus for Bent<F>
where
    F: Fn(&SimBus, &Found) -> Result<Box<dyn Transport>, TransferError> + Send + Sync,
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
}

/// A transport of which `bend` answers what it wants to: with bytes, which matter for [`Ask::In`] only, or an error.
pub struct BentTransport<F> {
    pub inner: Box<dyn Transport>,
    pub bend: F,
}

impl<F> Transport for BentTransport<F>
where
    F: FnMut(Ask<'_>) -> Option<Result<Vec<u8>, TransferError>> + Send,
{
    fn control_in(
        &mut self,
        setup: Setup,
        buffer: &mut [u8],
        limit: Duration,
    ) -> Result<usize, TransferError> {
        let Some(answer) = (self.bend)(Ask::In(setup, limit)) else {
            return self.inner.control_in(setup, buffer, limit);
        };
        let answer = answer?;
        let len = answer.len().min(buffer.len());
        buffer[..len].copy_from_slice(&answer[..len]);
        Ok(len)
    }

    fn control_out(&mut self, setup: Setup, data: &[u8], limit: Duration) -> Result<usize, TransferError> {
        let answer = (self.bend)(Ask::Out(setup, data));
        answer.map_or_else(|| self.inner.control_out(setup, data, limit), |it| it.map(|_| data.len()))
    }

    fn select(&mut self, interface: u8, alternate: u8) -> Result<(), TransferError> {
        let answer = (self.bend)(Ask::Select(alternate));
        answer.map_or_else(|| self.inner.select(interface, alternate), |it| it.map(drop))
    }

    fn bulk_in(&mut self, pipe: Pipe, buffer: &mut [u8], limit: Duration) -> Result<usize, TransferError> {
        self.inner.bulk_in(pipe, buffer, limit)
    }

    fn bulk_out(&mut self, pipe: Pipe, data: &[u8], limit: Duration) -> Result<usize, TransferError> {
        self.inner.bulk_out(pipe, data, limit)
    }
}
