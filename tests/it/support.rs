//! One job on a simulated drone with a clock that runs ahead, and what came of it.

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

/// The size that Bitcraze's own documentation flashes.
pub const SEED_LEN: usize = images::FIRMWARE_LEN;

/// The drones of a scenario with a clock of their own.
pub struct World {
    pub bus: SimBus,
    pub clock: Arc<FastClock>,
}

impl World {
    pub fn new(scenario: &str) -> World {
        let clock = Arc::new(FastClock::new());
        let drones = Scenario::by_name(scenario).unwrap().drones(clock.now());
        World { bus: SimBus::new(drones, clock.clone()), clock }
    }

    /// The first drone's flash; empty if there is no drone.
    pub fn flash(&self) -> Vec<u8> {
        self.bus.with(0, |drone, _| drone.memory.flash.bytes().to_vec()).unwrap_or_default()
    }

    pub fn run(&self, job: Job) -> Run {
        run(Arc::new(self.bus.clone()), self.clock.clone(), job)
    }
}

/// Where a program is that a test needs and a machine may lack. Without it the test ends early and says so; `tests/all`
/// lists what is missing, and its `--strict` makes that a failure.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        println!("not checked: {name} is not installed");
    }
    found
}

/// What a job told.
pub struct Run {
    pub events: Vec<Event>,
    pub report: Report,
}

/// How the job under way ends.
pub fn outcome(worker: &Worker) -> Option<Outcome> {
    worker.events.iter().find_map(|event| match event {
        Event::Finished(report) => Some(report.outcome),
        _ => None,
    })
}

/// Runs a job to its end; there must be exactly one last event, and nothing after it.
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
    assert!(after.is_empty(), "events after the last: {after:?}");
    check_order(&events);
    Run { events, report }
}

/// Progress of a phase starts at nothing, grows, and never passes its total; nothing is erased or written
/// before the plan was told.
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
                    // Writing goes on with the commit word after verifying.
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

/// A flash of this firmware with every default.
pub fn flash_job(firmware: &[u8]) -> Job {
    let image = parse(firmware);
    with(job(admission::flash(&image, Overrides::default()).unwrap()), |task| {
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

/// The job with its flash task changed.
pub fn with(mut job: Job, change: impl FnOnce(&mut FlashTask)) -> Job {
    if let Task::Flash(task) = &mut job.task {
        change(task);
    }
    job
}
