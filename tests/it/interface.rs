//! Runs the interface on simulated drones, without a terminal and on a fast clock. The real program has the same key
//! handling, worker and simulator.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cfdfu::app::keys::Key;
use cfdfu::app::releases::{ReleaseList, ReleasesEffect, ReleasesMsg};
use cfdfu::app::update::update;
use cfdfu::app::{App, BatchEffect, BusState, Demo, DemoInput, DemoLeds, Effect, Msg, Slot, Which};
use cfdfu::clock::Clock;
use cfdfu::job::{Command, Event, Job, LogEntry, Phase};
use cfdfu::scan;
use cfdfu::supervise::{Ended, Observed, Supervisor, Waits};
use cfdfu::ui;
use cfdfu::ui::theme::{Colours, Glyphs, Theme};
use cfdfu::usb::Bus;
use cfdfu::worker::Worker;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;

use crate::support::{World, parse};

/// The time between two messages that are not about the work of the chip.
const STEP: Duration = Duration::from_millis(20);
/// The time to write and to read a byte on the simulated chip: see `app::progress`.
const WRITE_BYTE: Duration = Duration::from_nanos(6400);
const READ_BYTE: Duration = Duration::from_nanos(1816);

/// The interface on simulated drones, without a terminal.
pub struct Interface {
    pub app: App,
    pub world: World,
    worker: Worker,
    supervisor: Supervisor,
    pub effects: Vec<Effect>,
    /// The contents of the chosen files, which exist only in memory.
    files: HashMap<PathBuf, Vec<u8>>,
    /// The cached list of releases.
    pub kept_list: Option<ReleaseList>,
    /// The jobs that a batch has started but that `run_row` and `run_all_rows` have not yet run.
    jobs: BTreeMap<usize, Box<Job>>,
    now: Duration,
    /// The last reported progress of a job.
    progress: (Phase, u64),
}

impl Interface {
    pub fn new(scenario: &str) -> Interface {
        Interface::on(World::new(scenario), scenario)
    }

    /// Returns the text of the notice; empty if there is no notice.
    pub fn notice(&self) -> String {
        self.app.notice.as_ref().map(|(text, _)| text.clone()).unwrap_or_default()
    }

    /// Starts the interface on these drones.
    pub fn on(world: World, scenario: &str) -> Interface {
        let plugged = world.bus.with(0, |drone, _| drone.is_plugged_in()).unwrap_or(false);
        let demo = Demo { scenario: scenario.to_owned(), plugged, button: false, leds: DemoLeds::default() };
        let worker = Worker::spawn(Arc::new(world.bus.clone()), world.clock.clone());
        let supervisor = Supervisor::new(worker.commands.clone(), true, Waits::Interrupted, 0);
        let (app, effects, now) = (App::new(Some(demo)), Vec::new(), Duration::ZERO);
        let (files, jobs) = (HashMap::new(), BTreeMap::new());
        let kept_list = None;
        let progress = (Phase::Compare, 0);
        let mut ui =
            Interface { app, world, worker, supervisor, effects, files, kept_list, jobs, now, progress };
        ui.scan_bus();
        ui
    }

    /// Sends a message to the interface and carries out the resulting effects as the real program does.
    pub fn send(&mut self, msg: Msg) {
        // The interface has its own clock, which advances by a fixed step for each message: the worker's messages
        // arrive at random times, which must not appear in a picture. The work of the chip takes as long as on the
        // simulated chip, so that pictures show its true speed.
        let step = match &msg {
            Msg::Job(event) | Msg::OfRow(_, event) => self.work_time(event),
            _ => STEP,
        };
        self.now += step;
        let msg = self.supervise(msg);
        let mut answers = Vec::new();
        for effect in update(&mut self.app, self.now, msg) {
            match &effect {
                Effect::Start(job) => self.supervisor.start(job.clone()),
                Effect::Resume(job) => self.supervisor.resume(job.clone()),
                Effect::Identify(job) | Effect::Listen(job) => self.supervisor.start_background(job.clone()),
                Effect::Proceed => drop(self.supervisor.proceed(self.app.preview().unwrap())),
                Effect::Cancel => self.supervisor.cancel(),
                Effect::DemoInput(input) => self.act(*input),
                Effect::Load(which, path) | Effect::Reread(which, path) => {
                    if let Some(bytes) = self.files.get(path) {
                        answers.push(Msg::Loaded(*which, path.clone(), Ok(Box::new(parse(bytes)))));
                    }
                }
                Effect::Releases(number, ReleasesEffect::KeptList(_)) => {
                    let list = ReleasesMsg::Listed(Ok(self.kept_list.clone()));
                    answers.push(Msg::Releases(*number, list));
                }
                Effect::Batch(BatchEffect::Start(id, _, job)) => drop(self.jobs.insert(*id, job.clone())),
                Effect::Batch(BatchEffect::Cancel(id)) => drop(self.jobs.remove(id)),
                _ => {}
            }
            self.effects.push(effect);
        }
        for answer in answers {
            self.send(answer);
        }
        // Wait until the background identify ends: otherwise, a picture would show an arbitrary moment of that job.
        while self.app.devices.is_identifying() {
            let event =
                self.worker.events.recv_timeout(Duration::from_secs(30)).expect("the identify has not ended");
            let msg = self.supervise(Msg::Job(Box::new(event)));
            update(&mut self.app, self.now, msg);
        }
    }

    /// Returns the time that the simulated chip took to reach this event.
    fn work_time(&mut self, event: &Event) -> Duration {
        match event {
            Event::Log(_, LogEntry::Erased { took, .. }) => *took,
            // The log entries of the erases have their times.
            Event::Progress { phase: Phase::Erase, .. } => Duration::ZERO,
            Event::Progress { phase, done, .. } => {
                let (last, before) = std::mem::replace(&mut self.progress, (*phase, *done));
                let bytes = if last == *phase { done.saturating_sub(before) } else { 0 };
                let per_byte = if *phase == Phase::Write { WRITE_BYTE } else { READ_BYTE };
                per_byte * u32::try_from(bytes).unwrap()
            }
            Event::Sector { .. } => Duration::ZERO,
            _ => STEP,
        }
    }

    /// Reports a job's event or the closing of the terminal to the supervisor. Returns the message for the interface.
    fn supervise(&mut self, msg: Msg) -> Msg {
        match msg {
            Msg::Job(event) => match self.supervisor.observe(self.now, *event) {
                Observed::Event(event) => Msg::Job(Box::new(event)),
                Observed::Ended(ended) => Msg::Ended(ended),
            },
            Msg::Detached => {
                self.supervisor.detach();
                Msg::Detached
            }
            other => other,
        }
    }

    /// Plugs or unplugs the cable of the simulated drone, or presses or releases its button.
    fn act(&mut self, input: DemoInput) {
        let state = self.world.bus.with(0, |drone, now| {
            match input {
                DemoInput::Cable => drone.plug_or_unplug(now),
                DemoInput::Button => drone.press_or_release(now),
            }
            (drone.is_plugged_in(), drone.is_button_held())
        });
        let scenario = self.app.demo.as_ref().map(|demo| demo.scenario.clone());
        if let (Some((plugged, button)), Some(scenario)) = (state, scenario) {
            self.send(Msg::Demo(Demo { scenario, plugged, button, leds: DemoLeds::default() }));
        }
        self.scan_bus();
    }

    pub fn press(&mut self, key: char) {
        self.send(Msg::Key(Key::Char(key)));
    }

    /// Answers the last request to list or fetch releases.
    pub fn answer(&mut self, msg: ReleasesMsg) {
        self.send(Msg::Releases(self.app.release_requests, msg));
    }

    pub fn press_enter(&mut self) {
        self.send(Msg::Key(Key::Enter));
    }

    /// Starts a job with a key, confirms its plan, and waits until the job ends.
    pub fn confirm(&mut self, key: char) {
        self.press(key);
        self.handle_until_and_scan(|event| matches!(event, Event::Ready(_)));
        self.press('w');
        self.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
    }

    /// Scans the bus and sends its state to the interface.
    pub fn scan_bus(&mut self) {
        // Use a frozen clock, so that the scan does not advance the worker's clock.
        let bus = self.world.bus.on_clock(Arc::new(FrozenClock(self.world.clock.now())));
        self.send(Msg::Bus(bus_state(&bus)));
    }

    /// Chooses a file with this name and these contents.
    pub fn choose(&mut self, which: Which, name: &str, bytes: &[u8]) {
        let path = Path::new("/images").join(name);
        match which {
            Which::Image => self.app.image = Slot::Loading(path.clone().into()),
            Which::Loader => self.app.loader = Slot::Loading(path.clone().into()),
        }
        self.files.insert(path.clone(), bytes.to_vec());
        self.send(Msg::Loaded(which, path, Ok(Box::new(parse(bytes)))));
    }

    /// Sends the worker's events to the interface, up to and including the wanted event. Does not scan the bus
    /// afterwards, because the worker may already have continued after this event.
    pub fn handle_until(&mut self, wanted: impl Fn(&Event) -> bool) {
        loop {
            let event =
                self.worker.events.recv_timeout(Duration::from_secs(30)).expect("the event has not arrived");
            let is_wanted = wanted(&event);
            let is_plan = matches!(event, Event::Ready(_));
            self.send(Msg::Job(Box::new(event)));
            if is_plan {
                // The plan accepts keys only after it has been on the screen for a while.
                self.now += Duration::from_secs(1);
            }
            if is_wanted {
                return;
            }
        }
    }

    /// Like `handle_until`, but scans the bus afterwards. After the wanted event, the worker must be waiting or idle.
    pub fn handle_until_and_scan(&mut self, wanted: impl Fn(&Event) -> bool) {
        self.handle_until(wanted);
        self.scan_bus();
    }

    /// Runs the job of a row to its end. Then sends the job's events to the interface, up to and including the wanted
    /// event.
    pub fn run_row(&mut self, id: usize, wanted: impl Fn(&Event) -> bool) {
        let job = self.jobs.remove(&id).expect("the job of this row has not been started");
        let worker = Worker::spawn(Arc::new(self.world.bus.clone()), self.world.clock.clone());
        worker.commands.send(Command::Run(job)).unwrap();
        let mut events = Vec::new();
        while !matches!(events.last(), Some(Event::Finished(_))) {
            let event = worker.events.recv_timeout(Duration::from_secs(30)).expect("the job has not ended");
            if matches!(event, Event::Ready(_)) {
                worker.commands.send(Command::Proceed).unwrap();
            }
            events.push(event);
        }
        for event in events {
            let is_wanted = wanted(&event);
            self.send(match event {
                Event::Finished(report) => Msg::RowEnded(id, Box::new(Ended::of(report, false))),
                event => Msg::OfRow(id, Box::new(event)),
            });
            if is_wanted {
                return;
            }
        }
    }

    /// Runs all started jobs of the batch to their end, one after the other.
    pub fn run_all_rows(&mut self) {
        while let Some(id) = self.jobs.keys().next().copied() {
            self.run_row(id, |_| false);
        }
        self.scan_bus();
    }

    /// Types the word that confirms a restore, and runs the job to its end.
    pub fn confirm_restore(&mut self) {
        "restore".chars().for_each(|c| self.press(c));
        self.press_enter();
        self.handle_until_and_scan(|event| matches!(event, Event::Finished(_)));
    }

    pub fn wait(&mut self, time: Duration) {
        self.world.clock.sleep(time);
        self.now += time;
        self.send(Msg::Tick);
        self.scan_bus();
    }
}

/// Scans the bus and returns its state as the real program reports it.
pub fn bus_state(bus: &dyn Bus) -> BusState {
    let devices = scan::list_devices(bus).unwrap();
    let others = scan::list_related_devices(bus).unwrap();
    if devices.is_empty() && !others.is_empty() {
        BusState::Others(others)
    } else {
        BusState::Devices(devices)
    }
}

/// A clock that never advances.
struct FrozenClock(Duration);

impl Clock for FrozenClock {
    fn now(&self) -> Duration {
        self.0
    }

    fn sleep(&self, _: Duration) {}
}

pub fn theme() -> Theme {
    Theme::new(Glyphs::Unicode, Colours::Dark { auto: true })
}

pub fn draw(app: &App, theme: &Theme, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| ui::draw(frame, app, theme)).unwrap();
    terminal.backend().buffer().clone()
}

pub fn text(buffer: &Buffer) -> String {
    let row = |y: u16| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..buffer.area.height).map(|y| row(y).trim_end().to_owned() + "\n").collect()
}
