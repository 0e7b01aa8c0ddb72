//! Devices: the input decides how each transfer with the simulated Crazyflie ends. Whatever that is, a job ends, in time, and
//! a verify never finds an image that is not there.
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

/// What is left of the input. When it is used up, the device is honest.
#[derive(Clone)]
struct Input(Arc<Mutex<Vec<u8>>>);

impl Input {
    fn byte(&self) -> Option<u8> {
        self.0.lock().unwrap().pop()
    }

    /// How a transfer ends that a device does not answer as it should.
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
    fn control_in(&mut self, setup: Setup, buffer: &mut [u8], limit: Duration) -> Result<usize, TransferError> {
        if let Some(error) = self.input.error() {
            return Err(error);
        }
        let n = self.inner.control_in(setup, buffer, limit)?;
        match self.input.byte() {
            // Bytes of its own, more or fewer than there are.
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
    // Nothing of this is on the drone.
    let segment = Segment { address: FIRMWARE_BASE, data: vec![0x5A; 4096] };
    worker.commands.send(Command::Run(Box::new(Job::new(Task::Verify(vec![segment]))))).unwrap();
    let outcome = worker.events.iter().find_map(|event| match event {
        Event::Finished(report) => Some(report.outcome),
        _ => None,
    });
    match outcome.expect("the job ends") {
        Outcome::Failed(Failure { kind: FailureKind::WorkerDied(why), .. }) => panic!("{why}"),
        // A device that answers with just these bytes would have to be made for it.
        Outcome::Unchanged if !bytes.windows(16).any(|part| part == [0x5A; 16]) => panic!("it is not there"),
        _ => {}
    }
    assert!(clock.now() < Duration::from_secs(300), "{:?}", clock.now());
    worker.join();
});
