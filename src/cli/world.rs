//! The bus and the clock of a command: real USB, a simulated Crazyflie, or a replayed recording. `-vv` prints all
//! transfers, and `--record` records them.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use super::args::{DeviceArgs, Global};
use super::bus_problem;
use super::console::Console;
use crate::batch_workers::WorkerBus;
use crate::clock::{Clock, FastClock, RealClock};
use crate::recording::{Line, SIZE_MAX, capture};
use crate::report::{Exit, Problem, ProblemKind};
use crate::sim::SimBus;
use crate::sim::drone::Helper;
use crate::sim::replay::ReplayBus;
use crate::sim::scenario::{SCENARIOS, Scenario};
use crate::usb::Bus;
use crate::usb::libusb::Libusb;
use crate::usb::trace::Traced;
use crate::worker::retry::RetryingBus;

/// A bus and the clock that its devices run on.
pub(super) type World = (Arc<dyn Bus>, Arc<dyn Clock>);

/// Opens the real bus, or creates the demo bus.
pub(super) fn bus(global: &Global, console: &mut Console) -> Result<World, Problem> {
    bus_for(global, None, console)
}

/// Returns the simulated user who enters DFU mode by hand while a command is waiting; `None` if the command does
/// not wait.
pub(super) fn helper(device: &DeviceArgs) -> Option<Helper> {
    let helper = if device.no_enter { Helper::IfNotInDfu } else { Helper::IfStuck };
    (device.wait > 0).then_some(helper)
}

/// Creates the bus for a job. `helper` is the simulated user of a demo.
pub(super) fn bus_for(
    global: &Global,
    helper: Option<Helper>,
    console: &mut Console,
) -> Result<World, Problem> {
    let clock: Arc<dyn Clock> =
        if global.demo_fast { Arc::new(FastClock::new()) } else { Arc::new(RealClock::new()) };
    if global.demo.is_some() {
        return demo_bus(global, helper, clock, console);
    }
    let bus = Libusb::new().map_err(|error| bus_problem(error.into()))?;
    Ok(with_observers(global, (Arc::new(bus), clock), console))
}

/// The bus of a demo, and the simulated drones on it.
pub(super) struct DemoBus {
    pub(super) bus: Arc<dyn Bus>,
    pub(super) sim: SimBus,
}

/// Creates the bus for the scenario or the recording that `--demo` names.
pub(super) fn demo(
    global: &Global,
    clock: &Arc<dyn Clock>,
    console: &mut Console,
) -> Result<DemoBus, Problem> {
    let Some(path) = global.replayed() else {
        let name = global.demo.as_ref().and_then(Option::as_deref);
        return Ok(demo_of_scenario(scenario(name), clock));
    };
    let lines = read_recording(path)?;
    let replay = ReplayBus::new(&lines, Arc::clone(clock))
        .map_err(|why| bad_recording(path, why).advise("Record a command that finds a drone."))?;
    let sim = replay.sim().clone();
    console.set_replay(replay.clone());
    Ok(DemoBus { bus: Arc::new(replay), sim })
}

pub(super) fn demo_of_scenario(scenario: &Scenario, clock: &Arc<dyn Clock>) -> DemoBus {
    let sim = scenario.bus(Arc::clone(clock));
    DemoBus { bus: Arc::new(sim.clone()), sim }
}

/// Reads a recording, or a capture by another program.
pub(super) fn read_recording(path: &str) -> Result<Vec<Line>, Problem> {
    let mut bytes = Vec::new();
    // One byte more than the limit is enough for the parser to refuse a file that is too large.
    let read = File::open(path).and_then(|file| file.take(SIZE_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| {
        let message = format!("cannot read {path}: {error}");
        Problem::new(Exit::NoInput, ProblemKind::Unreadable, message).advise("Check the path.")
    })?;
    capture::parse(&bytes).map_err(|error| {
        bad_recording(path, &error.to_string())
            .advise("Add `--record FILE` to any command to make a recording.")
    })
}

fn bad_recording(path: &str, why: &str) -> Problem {
    Problem::new(Exit::Image, ProblemKind::Recording, format!("{path} is not a usable recording: {why}"))
}

pub(super) fn demo_bus(
    global: &Global,
    helper: Option<Helper>,
    clock: Arc<dyn Clock>,
    console: &mut Console,
) -> Result<World, Problem> {
    let DemoBus { bus, sim } = demo(global, &clock, console)?;
    if let Some(helper) = helper.filter(|_| global.replayed().is_none()) {
        for n in 0..sim.drones() {
            sim.with(n, |drone, _| drone.traits.helper = Some(helper));
        }
        if sim.drones() > 0 {
            let seconds = helper.after().as_secs();
            console.line(&format!(
                "SIMULATED: if needed, a simulated user enters DFU mode by hand after {seconds} s."
            ));
        }
    }
    Ok(with_observers(global, (bus, clock), console))
}

/// Adds the transfer log of `-vv` and the recording of `--record` to a world.
fn with_observers(global: &Global, (bus, clock): World, console: &Console) -> World {
    let bus = match console.transfer_listener() {
        Some(listener) => Arc::new(Traced::new(bus, listener)),
        None => bus,
    };
    console.recording.world(global, (bus, clock))
}

/// Returns the function that creates the bus of a worker. On Linux with real USB, each worker has its own bus: with one
/// libusb context, every transfer wakes every worker (see [`crate::batch_workers`]). Otherwise, or if a worker cannot
/// open its own bus, the worker uses the shared bus.
pub(super) fn worker_bus(shared: &Arc<dyn Bus>, is_real: bool, console: &Console) -> WorkerBus {
    let shared = Arc::clone(shared);
    let record = console.recording.for_other_buses();
    Arc::new(move || match (cfg!(target_os = "linux") && is_real).then(Libusb::new) {
        Some(Ok(own)) => record(Arc::new(own)),
        Some(Err(_)) | None => Arc::clone(&shared),
    })
}

/// Adds retries to a bus that is scanned outside the worker. The worker adds retries to its own bus.
pub(super) fn with_retries((bus, clock): World) -> RetryingBus<Arc<dyn Bus>> {
    RetryingBus::new(bus, clock)
}

/// Returns the scenario with this name, or the first one. The argument parser has already validated the name.
pub(super) fn scenario(name: Option<&str>) -> &'static Scenario {
    name.and_then(Scenario::by_name).unwrap_or(&SCENARIOS[0])
}
