//! Runs single jobs on a simulated drone with a fast clock, and returns their events and reports.

use std::path::PathBuf;
use std::sync::Arc;

use cfdfu::clock::{Clock, FastClock};
use cfdfu::image::Image;
use cfdfu::job::{Command, Confirm, Event, FlashTask, Job, Keep, Outcome, Phase, Report, Task};
use cfdfu::plan::admission::{self, ApprovedImage, Overrides};
use cfdfu::sim::SimBus;
use cfdfu::sim::images;
use cfdfu::sim::scenario::{CF2_BOARDS, Scenario};
use cfdfu::usb::Bus;
use cfdfu::worker::Worker;

/// The size in bytes of the firmware in Bitcraze's documentation.
pub const SEED_LEN: usize = images::FIRMWARE_LEN;

/// The drones of a scenario, with their own clock.
pub struct World {
    pub bus: SimBus,
    pub clock: Arc<FastClock>,
}

impl World {
    pub fn new(scenario: &str) -> World {
        let clock = Arc::new(FastClock::new());
        World { bus: Scenario::by_name(scenario).unwrap().bus(clock.clone()), clock }
    }

    /// Returns the contents of the first drone's flash; empty if there is no drone.
    pub fn flash(&self) -> Vec<u8> {
        self.bus.with(0, |drone, _| drone.memory.flash.bytes().to_vec()).unwrap_or_default()
    }

    pub fn run(&self, job: Job) -> Run {
        run(Arc::new(self.bus.clone()), self.clock.clone(), job)
    }
}

/// Finds a program that a test needs but that may not be installed. Prints a note if the program is missing, so that
/// the test only has to return. `tests/all` lists missing programs, and `tests/all --strict` fails if any is missing.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        println!("not checked: {name} is not installed");
    }
    found
}

/// The events of a job and its final report.
pub struct Run {
    pub events: Vec<Event>,
    pub report: Report,
}

/// Waits until the running job ends and returns its outcome.
pub fn wait_for_outcome(worker: &Worker) -> Option<Outcome> {
    worker.events.iter().find_map(|event| match event {
        Event::Finished(report) => Some(report.outcome),
        _ => None,
    })
}

/// Runs a job to completion, and checks that the worker reports the end exactly once, as the last event.
pub fn run(bus: Arc<dyn Bus>, clock: Arc<dyn Clock>, job: Job) -> Run {
    let worker = Worker::spawn(bus, clock);
    worker.commands.send(Command::Run(Box::new(job))).unwrap();
    let mut events = Vec::new();
    let report = loop {
        match worker.events.recv().unwrap() {
            Event::Finished(report) => break report,
            event => events.push(event),
        }
    };
    drop(worker.commands);
    let after: Vec<Event> = worker.events.iter().collect();
    assert!(after.is_empty(), "events after the report: {after:?}");
    check_order(&events);
    Run { events, report }
}

/// Checks that the progress of each phase never decreases, never exceeds its total and, except for writing, starts at
/// 0. Also checks that nothing is compared, erased or written before the plan is reported.
fn check_order(events: &[Event]) {
    let mut planned = false;
    let mut current: Option<(Phase, u64)> = None;
    for event in events {
        match event {
            Event::Planned(_) => planned = true,
            Event::Progress { phase, done, total } => {
                assert!(planned || matches!(phase, Phase::Verify | Phase::Read), "{phase:?} before the plan");
                assert!(done <= total);
                match current {
                    Some((same, before)) if same == *phase => assert!(*done >= before),
                    // After verifying, writing continues with the first word of the firmware.
                    _ => assert!(*done == 0 || *phase == Phase::Write, "{phase:?} starts at {done}"),
                }
                current = Some((*phase, *done));
            }
            _ => {}
        }
    }
}

pub fn firmware(version: &str, len: usize) -> Vec<u8> {
    images::firmware(version, &CF2_BOARDS, len)
}

pub fn parse(bytes: &[u8]) -> Image {
    Image::parse(bytes.to_vec()).unwrap()
}

/// Returns a job that flashes this firmware without asking first and without keeping a copy.
pub fn flash_job(firmware: &[u8]) -> Job {
    let image = parse(firmware);
    change_flash_task(job(admission::flash(&image, Overrides::default()).unwrap()), |task| {
        task.boards = image.boards();
        task.version = image.content.firmware().and_then(|firmware| firmware.version.clone());
    })
}

pub fn restore_job(loader: &[u8], firmware: Option<&[u8]>) -> Job {
    let firmware = firmware.map(parse);
    job(admission::restore(&parse(loader), firmware.as_ref(), Overrides::default()).unwrap())
}

pub fn job(image: ApprovedImage) -> Job {
    let task = FlashTask { keep: Keep::No, confirm: Confirm::Go, ..FlashTask::new(image, None) };
    Job::new(Task::Flash(task))
}

/// Changes the flash task of a job.
pub fn change_flash_task(mut job: Job, change: impl FnOnce(&mut FlashTask)) -> Job {
    if let Task::Flash(task) = &mut job.task {
        change(task);
    }
    job
}
