//! Runs five hundred flashes in a row in one instance of the interface, pulls the cable at various moments, and stops
//! some of the jobs. The interface must not get stuck, and its memory use must not grow.

use std::fs;
use std::process::Command;

use cfdfu::app::keys::Key;
use cfdfu::app::{BusState, Msg, Screen, Which};
use cfdfu::job::Event;
use cfdfu::sim::drone::SimFault;

use crate::interface::Interface;
use crate::support::firmware;

const FLASHES: u32 = 500;
/// The size of the images in bytes. The images are small, so that five hundred flashes take only seconds.
const LEN: usize = 9000;

/// Returns the resident memory of this process in bytes, if the system reports it.
fn resident_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/statm").ok()?;
    text.split_whitespace().nth(1)?.parse::<u64>().ok().map(|pages| pages * 4096)
}

/// Runs in its own process, because other tests would change the memory use.
#[test]
fn five_hundred_flashes_with_interruptions_do_not_get_stuck_or_leak_memory() {
    const CHILD: &str = "CFDFU_SOAK";
    if std::env::var_os(CHILD).is_none() {
        let name = "soak::five_hundred_flashes_with_interruptions_do_not_get_stuck_or_leak_memory";
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.args([name, "--exact", "--nocapture"]).env(CHILD, "1").output().unwrap();
        print!("{}", String::from_utf8_lossy(&output.stdout));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    soak();
}

fn soak() {
    let images = [firmware("2026.04", LEN), firmware("2026.08", LEN)];
    let mut ui = Interface::new("dfu");
    let (mut done, mut lost, mut stopped) = (0, 0, 0);
    let mut early = None;
    for n in 0..FLASHES {
        let image = &images[n as usize % 2];
        ui.choose(Which::Image, "cf2.bin", image);
        let fault = (n % 3 == 1).then_some((8 + n * 7 % 40, SimFault::Unplugged));
        ui.world.bus.with(0, |drone, _| drone.traits.fault = fault);
        ui.press('f');
        let mut asked_to_stop = n % 5 != 2;
        // The job must end within twenty rounds of these actions.
        for _ in 0..20 {
            match &ui.app.screen {
                Screen::Job(_) => {
                    ui.handle_until(|event| matches!(event, Event::Ready(_) | Event::Finished(_)));
                    if ui.app.job().is_some() {
                        ui.press('w');
                    }
                    if !asked_to_stop && ui.app.job().is_some() {
                        asked_to_stop = true;
                        ui.press('q');
                        ui.press('y');
                    }
                }
                Screen::Wizard(_) => {
                    lost += 1;
                    ui.world.bus.with(0, |drone, now| drone.power_on_by_hand(now));
                    ui.scan_bus();
                }
                Screen::Outcome(..) | Screen::Home => break,
                Screen::Pick(..)
                | Screen::Releases(_)
                | Screen::Batch(_)
                | Screen::Row(_)
                | Screen::Console(_) => {
                    panic!("flash {n}: unexpected screen")
                }
            }
        }
        assert!(matches!(ui.app.screen, Screen::Outcome(..) | Screen::Home), "flash {n} is stuck");
        let is_flashed = ui.world.flash()[0x4000..].starts_with(image);
        done += u32::from(is_flashed);
        stopped += u32::from(!is_flashed);
        // Return to the home screen, with the drone in DFU mode.
        if matches!(ui.app.screen, Screen::Outcome(..)) {
            ui.send(Msg::Key(Key::Enter));
        }
        ui.send(Msg::Bus(BusState::Devices(Vec::new())));
        ui.world.bus.with(0, |drone, now| {
            drone.traits.fault = None;
            drone.cut_power(now);
            drone.power_on_by_hand(now);
        });
        ui.scan_bus();
        ui.effects.clear();
        if n == 100 {
            early = resident_memory();
        }
    }
    println!("{done} flashed, {lost} disconnects, {stopped} stopped or failed");
    assert!(done > 350 && lost > 40 && stopped > 80, "{done} {lost} {stopped}");
    if let (Some(early), Some(late)) = (early, resident_memory()) {
        println!("{} KiB after 100 flashes, {} KiB after {FLASHES}", early / 1024, late / 1024);
        assert!(late < early + 2 * 1024 * 1024, "memory grew from {early} to {late} bytes");
    }
}
