//! Fuzzes the host side against a faulty device: the input determines the result of each transfer with the simulated
//! Crazyflie. The job verifies an image that is not on the drone. The job must end in time, and must not succeed unless
//! the image's bytes come from the input.
#![no_main]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cfdfu::clock::{Clock, FastClock};
use cfdfu::flash::{FIRMWARE_BASE, Segment};
use cfdfu::job::{Command, Event, Failure, FailureKind, Job, Outcome, Task};
use cfdfu::sim::SimBus;
use cfdfu::sim::scenario::Scenario;
use cfdfu::usb::{Bus, Found, TransferError, Transport};
use cfdfu::worker::Worker;
use libfuzzer_sys::fuzz_target;

#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../it/bent.rs"]
mod bent;

use bent::{Ask, BentTransport, Intercept, InterceptedUsb};

/// The unused bytes of the input, last byte first. Once the input is used up, the device behaves correctly.
#[derive(Clone)]
struct Input(Arc<Mutex<Vec<u8>>>);

impl Input {
    fn byte(&self) -> Option<u8> {
        self.0.lock().unwrap().pop()
    }

    /// Decides the result of one request. Bytes below 200, the majority, change nothing.
    fn bend(&self, ask: &Ask<'_>) -> Intercept {
        let error = match self.byte() {
            Some(200..=209) => Some(TransferError::Stall),
            Some(210..=219) => Some(TransferError::Timeout),
            Some(220..=224) => Some(TransferError::Io),
            Some(225..=227) => Some(TransferError::Disconnected),
            Some(228) => Some(TransferError::NotFound),
            Some(229) => Some(TransferError::Busy),
            _ => None,
        };
        match (error, ask) {
            (Some(error), _) => Intercept::Fail(error),
            (None, Ask::In(..)) => self.bend_answer(),
            (None, _) => Intercept::Pass,
        }
    }

    fn bend_answer(&self) -> Intercept {
        match self.byte() {
            // Any number of bytes, all from the input.
            Some(230..) => {
                let len = self.byte().unwrap_or(0);
                Intercept::Answer((0..len).map(|_| self.byte().unwrap_or(0)).collect())
            }
            Some(at @ 200..230) => {
                let flipped = self.byte().unwrap_or(0);
                Intercept::Change(Box::new(move |answer| {
                    if !answer.is_empty() {
                        answer[usize::from(at) % answer.len()] ^= flipped;
                    }
                }))
            }
            _ => Intercept::Pass,
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let clock = Arc::new(FastClock::new());
    let drones = Scenario::by_name("dfu").unwrap().drones(clock.now());
    let bus = SimBus::new(drones, clock.clone());
    let mut input = bytes.to_vec();
    input.reverse();
    let input = Input(Arc::new(Mutex::new(input)));
    let open = move |bus: &SimBus, found: &Found| -> Result<Box<dyn Transport>, TransferError> {
        let input = input.clone();
        Ok(Box::new(BentTransport { inner: bus.open(found)?, bend: move |ask: Ask<'_>| input.bend(&ask) }))
    };
    let bus = InterceptedUsb { bus, open };
    let worker = Worker::spawn(Arc::new(bus), clock.clone());
    // This data is not on the drone.
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
            panic!("verified an image that is not on the drone")
        }
        _ => {}
    }
    assert!(clock.now() < Duration::from_secs(300), "{:?}", clock.now());
    drop(worker.commands);
    worker.thread.join().unwrap();
});
