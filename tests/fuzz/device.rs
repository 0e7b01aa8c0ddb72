//! Fuzzes the host side against a faulty device: the input determines the result of each transfer with the simulated
//! Crazyflie. Every job must end in time, and a verify must never report an image that is not on the drone.
#![no_main]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cfdfu::clock::{Clock, FastClock};
use cfdfu::flash::{FIRMWARE_BASE, Segment};
use cfdfu::job::{Command, Event, Failure, FailureKind, Job, Outcome, Task};
use cfdfu::sim::SimBus;
use cfdfu::sim::scenario::Scenario;
use cfdfu::usb::{Bus, BusError, Found, Pipe, Setup, TransferError, Transport};
use cfdfu::worker::Worker;
use libfuzzer_sys::fuzz_target;

/// The rest of the input. Once it is used up, the device behaves correctly.
#[derive(Clone)]
struct Input(Arc<Mutex<Vec<u8>>>);

impl Input {
    fn byte(&self) -> Option<u8> {
        self.0.lock().unwrap().pop()
    }

    /// The error of the next transfer, if it fails.
    fn error(&self) -> Option<TransferError> {
        match self.byte()? {
            200..=209 => Some(TransferError::Stall),
            210..=219 => Some(TransferError::Timeout),
            220..=224 => Some(TransferError::Io),
            225..=227 => Some(TransferError::Disconnected),
            228 => Some(TransferError::NotFound),
            229 => Some(TransferError::Busy),
            _ => None,
        }
    }
}

struct FuzzedBus {
    bus: SimBus,
    input: Input,
}

impl Bus for FuzzedBus {
    fn list(&self) -> Result<Vec<Found>, BusError> {
        self.bus.list()
    }

    fn open(&self, found: &Found) -> Result<Box<dyn Transport>, TransferError> {
        Ok(Box::new(Fuzzed { inner: self.bus.open(found)?, input: self.input.clone() }))
    }

    fn wait(&self, limit: Duration) {
        self.bus.wait(limit);
    }
}

struct Fuzzed {
    inner: Box<dyn Transport>,
    input: Input,
}

impl Transport for Fuzzed {
    fn control_in(
        &mut self,
        setup: Setup,
        buffer: &mut [u8],
        limit: Duration,
    ) -> Result<usize, TransferError> {
        if let Some(error) = self.input.error() {
            return Err(error);
        }
        let n = self.inner.control_in(setup, buffer, limit)?;
        match self.input.byte() {
            // Arbitrary bytes, more or fewer than the real ones.
            Some(230..) => {
                let len = usize::from(self.input.byte().unwrap_or(0)).min(buffer.len());
                buffer[..len].fill_with(|| self.input.byte().unwrap_or(0));
                Ok(len)
            }
            Some(at @ 200..230) if n > 0 => {
                buffer[usize::from(at) % n] ^= self.input.byte().unwrap_or(0);
                Ok(n)
            }
            _ => Ok(n),
        }
    }

    fn control_out(&mut self, setup: Setup, data: &[u8], limit: Duration) -> Result<usize, TransferError> {
        match self.input.error() {
            Some(error) => Err(error),
            None => self.inner.control_out(setup, data, limit),
        }
    }

    fn select(&mut self, interface: u8, alternate: u8) -> Result<(), TransferError> {
        match self.input.error() {
            Some(error) => Err(error),
            None => self.inner.select(interface, alternate),
        }
    }

    fn bulk_in(&mut self, pipe: Pipe, buffer: &mut [u8], limit: Duration) -> Result<usize, TransferError> {
        match self.input.error() {
            Some(error) => Err(error),
            None => self.inner.bulk_in(pipe, buffer, limit),
        }
    }

    fn bulk_out(&mut self, pipe: Pipe, data: &[u8], limit: Duration) -> Result<usize, TransferError> {
        match self.input.error() {
            Some(error) => Err(error),
            None => self.inner.bulk_out(pipe, data, limit),
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let clock = Arc::new(FastClock::new());
    let drones = Scenario::by_name("dfu").unwrap().drones(clock.now());
    let bus = SimBus::new(drones, clock.clone());
    let mut input = bytes.to_vec();
    input.reverse();
    let bus = FuzzedBus { bus, input: Input(Arc::new(Mutex::new(input))) };
    let worker = Worker::spawn(Arc::new(bus), clock.clone());
    // The drone does not hold any of this.
    let segment = Segment { address: FIRMWARE_BASE, data: vec![0x5A; 4096] };
    worker.commands.send(Command::Run(Box::new(Job::new(Task::Verify(vec![segment]))))).unwrap();
    let outcome = worker.events.iter().find_map(|event| match event {
        Event::Finished(report) => Some(report.outcome),
        _ => None,
    });
    match outcome.expect("the job ended without a result") {
        Outcome::Failed(Failure { kind: FailureKind::WorkerDied(why), .. }) => panic!("{why}"),
        // Only an input that contains these bytes can make the device return them.
        Outcome::Unchanged if !bytes.windows(16).any(|part| part == [0x5A; 16]) => {
            panic!("found an image that is not on the drone")
        }
        _ => {}
    }
    assert!(clock.now() < Duration::from_secs(300), "{:?}", clock.now());
    worker.join();
});
