//! `cfdfu simulate`: the drone of a scenario on this computer's own USB, with somebody at its button who
//! takes orders on standard input. And the synthetic images to flash it with.

use super::args::DemoKind;
use super::console::Console;
use crate::report::{Exit, Problem, ProblemKind};
use crate::sim::images;
use crate::sim::scenario::CF2_BOARDS;

/// The image of this kind that the demo brings along.
pub(super) fn demo_image(kind: DemoKind) -> Vec<u8> {
    image(kind, images::VERSION, images::FIRMWARE_LEN)
}

/// A synthetic image of this kind.
pub(super) fn image(kind: DemoKind, version: &str, size: usize) -> Vec<u8> {
    match kind {
        DemoKind::Firmware => images::firmware(version, &CF2_BOARDS, size),
        DemoKind::Loader => images::loader(),
        DemoKind::Bolt => images::firmware(version, &[("CB10", "Crazyflie Bolt")], size),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn simulate(_scenario: Option<&str>, _console: &mut Console) -> Result<Exit, Problem> {
    let advice = "Elsewhere, --demo gives the same drone to every command of cfdfu itself.";
    Err(Problem::new(Exit::NoDevice, ProblemKind::NotLinux, "only Linux has a virtual USB controller")
        .advise(advice))
}

#[cfg(target_os = "linux")]
pub(super) use on_linux::simulate;

#[cfg(target_os = "linux")]
mod on_linux {
    use std::io::{self, BufRead};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    use super::{Console, Exit, Problem, ProblemKind};
    use crate::cli::scenario;
    use crate::clock::{Clock, RealClock};
    use crate::sim::{SimBus, vhci};

    pub(in crate::cli) fn simulate(name: Option<&str>, console: &mut Console) -> Result<Exit, Problem> {
        let scenario = scenario(name);
        if !vhci::is_here() {
            let advice = "Run `modprobe vhci_hcd` as root first. Without it, --demo gives the same drone to every \
                command of cfdfu itself.";
            return Err(Problem::new(
                Exit::NoDevice,
                ProblemKind::NoVhci,
                "this kernel has no virtual USB controller loaded",
            )
            .advise(advice));
        }
        let clock = Arc::new(RealClock::new());
        let bus = SimBus::new(scenario.drones(clock.now()), clock);
        console.line(&format!("SIMULATED: {}", scenario.what));
        console.line("Type unplug, plug, dfu (plug in with the button held), or quit; Ctrl-C ends it.");
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stop))
                .map_err(|error| Problem::new(Exit::Defect, ProblemKind::Signals, error))?;
        }
        let (orders, quit) = (bus.clone(), Arc::clone(&stop));
        std::thread::spawn(move || take_orders(&orders, &quit));
        serve_all(&bus, &stop).map_err(|error| {
            let advice = "It takes root, and a kernel with vhci_hcd loaded.";
            let exit = match error.kind() {
                io::ErrorKind::PermissionDenied => Exit::NoPermission,
                _ => Exit::Device,
            };
            Problem::new(exit, ProblemKind::Vhci, format!("the virtual USB controller: {error}"))
                .advise(advice)
        })?;
        Ok(Exit::Done)
    }

    /// One thread for each drone, since each has its own line to the kernel.
    fn serve_all(bus: &SimBus, stop: &Arc<AtomicBool>) -> io::Result<()> {
        let drones = bus.drones();
        let serving: Vec<_> = (0..drones)
            .map(|n| {
                let (bus, stop) = (bus.clone(), Arc::clone(stop));
                std::thread::spawn(move || {
                    let tell = |what: &str| {
                        let _ = io::Write::write_fmt(
                            &mut io::stdout(),
                            format_args!("Drone {}: {what}\n", n + 1),
                        );
                    };
                    let served = vhci::serve(&bus, n, &stop, &tell);
                    if served.is_err() {
                        stop.store(true, Ordering::SeqCst);
                    }
                    served
                })
            })
            .collect();
        if serving.is_empty() {
            while !stop.load(Ordering::SeqCst) {
                bus.clock().sleep(Duration::from_millis(50));
            }
        }
        serving.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the simulation stopped unexpectedly")))
        })
    }

    /// What a person at the (first) drone would do. The end of the input is no order: it goes on.
    fn take_orders(bus: &SimBus, stop: &AtomicBool) {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            match line.trim() {
                "quit" => stop.store(true, Ordering::SeqCst),
                order => {
                    bus.with(0, |drone, now| match order {
                        "unplug" => drone.cut_power(now),
                        "plug" => drone.power_on(now),
                        "dfu" => drone.power_on_by_hand(now),
                        _ => {}
                    });
                }
            }
        }
    }
}
