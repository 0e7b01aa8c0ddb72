//! `cfdfu simulate`: attaches simulated drones to a virtual USB controller, and controls them with commands from
//! standard input. This module also generates the synthetic images to flash.

use super::args::DemoKind;
use super::console::Console;
use crate::report::{Exit, Problem, ProblemKind};
use crate::sim::images;
use crate::sim::scenario::CF2_BOARDS;

/// Returns the demo's built-in image of this kind.
pub(super) fn demo_image(kind: DemoKind) -> Vec<u8> {
    image(kind, images::VERSION, images::FIRMWARE_LEN)
}

/// Generates a synthetic image of this kind.
pub(super) fn image(kind: DemoKind, version: &str, size: usize) -> Vec<u8> {
    match kind {
        DemoKind::Firmware => images::firmware(version, &CF2_BOARDS, size),
        DemoKind::Loader => images::loader(),
        DemoKind::Bolt => images::firmware(version, &[("CB10", "Crazyflie Bolt")], size),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn simulate(_scenario: Option<&str>, _console: &mut Console) -> Result<Exit, Problem> {
    let advice = "Use --demo instead: with it, every cfdfu command creates the same simulated drone.";
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
        if !vhci::is_available() {
            let advice = "Run `modprobe vhci_hcd` as root first. Or use --demo: with it, every cfdfu command creates \
                the same simulated drone.";
            return Err(Problem::new(
                Exit::NoDevice,
                ProblemKind::NoVhci,
                "the kernel's virtual USB controller is not loaded",
            )
            .advise(advice));
        }
        let clock = Arc::new(RealClock::new());
        let bus = SimBus::new(scenario.drones(clock.now()), clock);
        console.line(&format!("SIMULATED: {}", scenario.description));
        console.line(
            "Type unplug, plug, dfu (plug in with the button held) or quit. Ctrl-C also quits. With several drones, \
             add a number: unplug 3.",
        );
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stop))
                .map_err(|error| Problem::new(Exit::Defect, ProblemKind::Signals, error))?;
        }
        let (console_bus, quit) = (bus.clone(), Arc::clone(&stop));
        std::thread::spawn(move || read_commands(&console_bus, &quit));
        serve_all(&bus, &stop).map_err(|error| {
            let (exit, advice) = match error.kind() {
                io::ErrorKind::PermissionDenied => (Exit::NoPermission, "Run `cfdfu simulate` as root."),
                _ => (
                    Exit::Device,
                    "End other programs that use the controller, or choose a scenario with fewer drones.",
                ),
            };
            Problem::new(exit, ProblemKind::Vhci, format!("cannot use the virtual USB controller: {error}"))
                .advise(advice)
        })?;
        Ok(Exit::Done)
    }

    /// Serves each drone on its own thread, because each drone has its own connection to the kernel.
    fn serve_all(bus: &SimBus, stop: &Arc<AtomicBool>) -> io::Result<()> {
        let drones = bus.drones();
        let serving: Vec<_> = (0..drones)
            .map(|n| {
                let (bus, stop) = (bus.clone(), Arc::clone(stop));
                std::thread::spawn(move || {
                    let print = |what: &str| print(&format!("Drone {}: {what}", n + 1));
                    let served = vhci::serve(&bus, n, &stop, &print);
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

    fn print(line: &str) {
        let _ = io::Write::write_fmt(&mut io::stdout(), format_args!("{line}\n"));
    }

    /// Executes the commands on standard input, such as `unplug 3`. A command without a number applies to the first
    /// drone. The simulation continues after the input ends.
    fn read_commands(bus: &SimBus, stop: &AtomicBool) {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            match line.trim() {
                "quit" => stop.store(true, Ordering::SeqCst),
                line => {
                    let (command, number) = line.split_once(' ').unwrap_or((line, "1"));
                    let Some(n) = number.trim().parse::<usize>().ok().and_then(|n| n.checked_sub(1)) else {
                        continue;
                    };
                    if command == "link" {
                        let switches =
                            bus.with(n, |drone, _| (drone.link_switches(), drone.link_was_returned()));
                        let ((usb, radio), is_back) = switches.unwrap_or_default();
                        let suffix = if is_back { ", now on the radio" } else { "" };
                        print(&format!(
                            "Drone {}: switched {usb} times to USB, {radio} times to the radio{suffix}",
                            n + 1
                        ));
                        continue;
                    }
                    bus.with(n, |drone, now| match command {
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
