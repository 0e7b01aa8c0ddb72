//! The scenarios of the demo and of `simulate`, by name.

use std::sync::Arc;
use std::time::Duration;

use super::SimBus;
use super::descriptors::{self, UsbIdentity};
use super::drone::{self, SimDrone, SimFault, Traits};
use super::images;
use super::link::Ailment;
use super::nor::{self, Nor, Pace};
use super::rom::Switch;
use crate::clock::Clock;
use crate::usb::Location;

#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// The name, as given on the command line.
    pub name: &'static str,
    /// A short description for the list of scenarios.
    pub description: &'static str,
    drones: fn(Duration) -> Vec<SimDrone>,
}

/// All scenarios. The first is the default.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "healthy",
        description: "a running Crazyflie 2.1 with firmware 2025.02",
        drones: healthy,
    },
    Scenario {
        name: "dfu",
        description: "the same drone, already in DFU mode (entered by hand)",
        drones: dfu,
    },
    Scenario {
        name: "erased",
        description: "in DFU mode, with a bootloader but no firmware",
        drones: erased,
    },
    Scenario { name: "dead", description: "unplugged; its incomplete firmware does not boot", drones: dead },
    Scenario {
        name: "overwritten",
        description: "in DFU mode, its bootloader overwritten by firmware",
        drones: overwritten,
    },
    Scenario {
        name: "old",
        description: "running firmware 2021.06, too old to enter DFU mode by itself",
        drones: old,
    },
    Scenario {
        name: "unplugged",
        description: "in DFU mode; unplugged halfway through a flash",
        drones: unplugged,
    },
    Scenario {
        name: "write-protected",
        description: "in DFU mode, with sector 2 write-protected",
        drones: write_protected,
    },
    Scenario {
        name: "read-protected",
        description: "in DFU mode, with a read-protected chip",
        drones: read_protected,
    },
    Scenario { name: "wrong-board", description: "a Bolt in DFU mode", drones: wrong_board },
    Scenario {
        name: "slow",
        description: "in DFU mode, with a worn chip as slow as the data sheet allows",
        drones: slow,
    },
    Scenario {
        name: "byte-mode",
        description: "in DFU mode, with a ROM that refuses faster programming",
        drones: byte_mode,
    },
    Scenario { name: "px4", description: "a Crazyflie running PX4's bootloader", drones: px4 },
    Scenario {
        name: "relatives",
        description: "no Crazyflie, but a Crazyradio and a Loco Positioning Node",
        drones: relatives,
    },
    Scenario { name: "other-chip", description: "a different STM32 in DFU mode", drones: other_chip },
    Scenario {
        name: "clone",
        description: "a GigaDevice GD32 in DFU mode, as on boards with a cloned chip",
        drones: clone,
    },
    Scenario {
        name: "beside",
        description: "a GigaDevice GD32 in DFU mode, next to a running Crazyflie 2.1",
        drones: beside,
    },
    Scenario {
        name: "bystander",
        description: "another maker's running flight controller, next to a Crazyflie in DFU mode",
        drones: |now| [with_face(now, &descriptors::FLIGHT_CONTROLLER), dfu(now)].concat(),
    },
    Scenario { name: "two", description: "two drones in DFU mode", drones: two },
    Scenario {
        name: "twins",
        description: "two drones in DFU mode with the same serial number",
        drones: twins,
    },
    Scenario {
        name: "unknown-board",
        description: "in DFU mode, with an unknown board type in its chip",
        drones: unknown_board,
    },
    Scenario {
        name: "foreign",
        description: "another maker's flight controller with the same chip, in DFU mode",
        drones: foreign,
    },
    Scenario {
        name: "blank-otp",
        description: "in DFU mode, with no board type in its chip",
        drones: blank_otp,
    },
    Scenario {
        name: "no-serial",
        description: "in DFU mode, with an unreadable serial number",
        drones: |now| in_dfu(Pace::Typical, now, |drone| drone.traits.lost_name = Some(3)),
    },
    Scenario {
        name: "nameless",
        description: "a Bolt in DFU mode; the name of its OTP memory is unreadable",
        drones: nameless,
    },
    Scenario {
        name: "missed",
        description: "running; enters DFU mode only on the fifth attempt",
        drones: missed,
    },
    Scenario {
        name: "late",
        description: "running; appears in DFU mode 15 s after the request",
        drones: late,
    },
    Scenario {
        name: "dark",
        description: "running; does not start after a flash until it is switched off and on",
        drones: dark,
    },
    Scenario {
        name: "restarting",
        description: "running; keeps restarting after a flash",
        drones: restarting,
    },
    Scenario {
        name: "asserting",
        description: "running; after a flash, an assertion fails and the self-test reports it",
        drones: |now| running(now, |drone| drone.traits.asserts_after = Some(Duration::from_millis(1900))),
    },
    Scenario {
        name: "bad-deck",
        description: "running; its self-test fails because of a deck",
        drones: |now| ailing(now, Ailment::DeckFails),
    },
    Scenario {
        name: "bad-sensor",
        description: "running; its self-test fails because of a motion sensor",
        drones: |now| ailing(now, Ailment::SensorFails),
    },
    Scenario {
        name: "bad-eeprom",
        description: "running; its self-test fails because of the EEPROM",
        drones: |now| ailing(now, Ailment::EepromFails),
    },
    Scenario {
        name: "hung-start",
        description: "running; its firmware hangs while it starts, with two blue LEDs lit",
        drones: |now| ailing(now, Ailment::HangsAtStart),
    },
    Scenario {
        name: "hung-deck",
        description: "running; its firmware answers, but hangs in a deck driver",
        drones: |now| ailing(now, Ailment::HangsInDeck),
    },
    Scenario {
        name: "stops-at-start",
        description: "running; after a flash, its firmware stops with an error while it starts",
        drones: |now| running(now, |drone| drone.traits.ailment = Ailment::StopsAtStart),
    },
    Scenario {
        name: "slow-eeprom",
        description: "running; its firmware starts slowly and takes the link back from USB",
        drones: |now| ailing(now, Ailment::SlowEeprom),
    },
    Scenario {
        name: "slow-deck",
        description: "running; a deck makes its self-test last five seconds",
        drones: |now| ailing(now, Ailment::SlowDeck),
    },
    Scenario {
        name: "radio-silent",
        description: "running; its radio chip does not answer",
        drones: |now| ailing(now, Ailment::RadioChipSilent),
    },
    Scenario {
        name: "radio-old",
        description: "running; its radio chip is too old for releases from 2024.2 on",
        drones: |now| started_with(now, Traits { radio_chip: "2023.11", ..Traits::default() }),
    },
    Scenario {
        name: "console-read",
        description: "running; another program has already read its console",
        drones: |now| ailing(now, Ailment::ConsoleRead),
    },
    Scenario {
        name: "console-floods",
        description: "running; its console prints more than it can keep",
        drones: |now| ailing(now, Ailment::ConsoleFloods),
    },
    Scenario {
        name: "loose",
        description: "in DFU mode; its cable works loose halfway through a flash",
        drones: loose,
    },
    Scenario {
        name: "hung",
        description: "in DFU mode; stops responding halfway through a flash",
        drones: hung,
    },
    Scenario {
        name: "no-effect",
        description: "in DFU mode, with a ROM that accepts faster programming but stays slow",
        drones: no_effect,
    },
    Scenario {
        name: "defect",
        description: "in DFU mode; cfdfu itself crashes halfway through a flash",
        drones: defect,
    },
    Scenario {
        name: "fleet",
        description: "eight drones on two hubs: six run 2025.02 or 2026.08, one is a Brushless, one is erased",
        drones: |now| fleet(now, 8),
    },
    Scenario {
        name: "fleet:32",
        description: "the same with 32 drones on five hubs",
        drones: |now| fleet(now, 32),
    },
    Scenario {
        name: "fleet-dfu",
        description: "eight drones in DFU mode",
        drones: |now| assign_unique_ids((0..8).flat_map(|_| dfu(now)).collect()),
    },
    Scenario {
        name: "fleet-running",
        description: "fifteen running drones",
        drones: |now| assign_unique_ids((0..15).flat_map(|_| healthy(now)).collect()),
    },
    Scenario {
        name: "fleet-mixed",
        description: "the eight drones of fleet, a write-protected one in DFU mode, and a Loco Positioning Node",
        drones: |now| {
            let others = [write_protected(now), with_face(now, &descriptors::LOCO_NODE)].concat();
            assign_unique_ids([fleet(now, 8), others].concat())
        },
    },
    Scenario { name: "none", description: "nothing plugged in", drones: |_| Vec::new() },
];

impl Scenario {
    /// Finds the scenario with this name.
    pub fn by_name(name: &str) -> Option<&'static Scenario> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }

    /// Creates a bus with the drones of the scenario.
    pub fn bus(&self, clock: Arc<dyn Clock>) -> SimBus {
        let drones = self.drones(clock.now());
        let places = self.places(drones.len());
        SimBus::at(drones, places, clock)
    }

    /// Returns the locations of this many drones: on hubs with seven ports each, or on the root hub.
    fn places(&self, count: usize) -> Vec<Location> {
        const PORTS: usize = 7;
        let port = |n: usize| u8::try_from(n + 1).unwrap_or(u8::MAX);
        let has_hubs = self.name.starts_with("fleet");
        let ports = |n: usize| if has_hubs { vec![port(n / PORTS), port(n % PORTS)] } else { vec![port(n)] };
        (0..count).map(|n| Location { bus: 1, ports: ports(n) }).collect()
    }

    /// Creates the drones of the scenario, in their state at `now`.
    pub fn drones(&self, now: Duration) -> Vec<SimDrone> {
        (self.drones)(now)
    }
}

/// The OTP text of a Crazyflie 2.1.
const CF21: &str = "0;CF21;R=B1";
/// The boards of the `cf2` platform.
pub const CF2_BOARDS: [(&str, &str); 2] = [("CF20", "Crazyflie 2.0"), ("CF21", "Crazyflie 2.1")];

/// The size of the firmware on the drone, in bytes, as measured on a build of cf2 2025.02.
const FIRMWARE_LEN: usize = 276_672;

/// Creates a drone with the bootloader and firmware 2025.02, switched off.
pub(crate) fn crazyflie(pace: Pace, board: &str, traits: Traits) -> SimDrone {
    let firmware = images::firmware("2025.02", &CF2_BOARDS, FIRMWARE_LEN);
    SimDrone::new(drone::memory(Nor::new(pace), &images::loader(), &firmware, board), traits)
}

/// Creates the simulated drone for a recorded port that is not covered by a scenario.
pub(super) fn crazyflie_for_replay() -> SimDrone {
    crazyflie(Pace::Typical, CF21, Traits::default())
}

/// Creates a drone in DFU mode, modified by `change` before the drone is switched on.
fn in_dfu(pace: Pace, now: Duration, change: impl FnOnce(&mut SimDrone)) -> Vec<SimDrone> {
    let mut drone = crazyflie(pace, CF21, Traits::default());
    change(&mut drone);
    drone.power_on_by_hand(now);
    vec![drone]
}

fn healthy(now: Duration) -> Vec<SimDrone> {
    let mut drone = crazyflie(Pace::Typical, CF21, Traits::default());
    // Advance the drone past its start, so that its firmware is running at `now`.
    drone.power_on(Duration::ZERO);
    drone.advance(now + Duration::from_secs(60));
    vec![drone]
}

fn old(now: Duration) -> Vec<SimDrone> {
    let firmware = images::firmware("2021.06", &CF2_BOARDS, FIRMWARE_LEN);
    let mut drones = healthy(now);
    for drone in &mut drones {
        drone.memory.flash.place(0x0800_4000, &firmware);
        drone.traits.lacks_dfu_request = true;
    }
    drones
}

fn dfu(now: Duration) -> Vec<SimDrone> {
    in_dfu(Pace::Typical, now, |_| {})
}

fn erased(now: Duration) -> Vec<SimDrone> {
    in_dfu(Pace::Typical, now, |drone| (1..12).for_each(|sector| drone.memory.flash.erase(sector, 1.0)))
}

fn dead(_: Duration) -> Vec<SimDrone> {
    let mut drone = crazyflie(Pace::Typical, CF21, Traits::default());
    (4..12).for_each(|sector| drone.memory.flash.erase(sector, 1.0));
    vec![drone]
}

fn overwritten(now: Duration) -> Vec<SimDrone> {
    in_dfu(Pace::Typical, now, |drone| {
        let firmware = drone.memory.flash.bytes()[0x4000..0x4000 + FIRMWARE_LEN].to_vec();
        drone.memory.flash.place(0x0800_0000, &firmware);
    })
}

fn unplugged(now: Duration) -> Vec<SimDrone> {
    in_dfu(Pace::Typical, now, |drone| drone.traits.fault = Some((80, SimFault::Unplugged)))
}

fn defect(now: Duration) -> Vec<SimDrone> {
    in_dfu(Pace::Typical, now, |drone| drone.traits.fault = Some((80, SimFault::Panic)))
}

fn write_protected(now: Duration) -> Vec<SimDrone> {
    // Bit 2 is cleared in the option bytes and set in their complement.
    const PROTECTED: [u8; 8] = [0xFB, 0x0F, 0x04, 0xF0, 0xFB, 0x0F, 0x04, 0xF0];
    in_dfu(Pace::Typical, now, |drone| drone.memory.options[8..].copy_from_slice(&PROTECTED))
}

fn read_protected(now: Duration) -> Vec<SimDrone> {
    in_dfu(Pace::Typical, now, |drone| drone.memory.options[1] = 0x55)
}

fn wrong_board(now: Duration) -> Vec<SimDrone> {
    in_dfu(Pace::Typical, now, |drone| drone::write_otp(&mut drone.memory, "0;CB10;R=A"))
}

fn slow(now: Duration) -> Vec<SimDrone> {
    in_dfu(Pace::Worst, now, |_| {})
}

fn byte_mode(now: Duration) -> Vec<SimDrone> {
    in_dfu(Pace::Typical, now, |drone| drone.traits.switch = Switch::Refused)
}

/// Simulates a different USB device: a running drone with these descriptors.
fn with_face(now: Duration, face: &'static UsbIdentity) -> Vec<SimDrone> {
    let mut drones = healthy(now);
    for drone in &mut drones {
        drone.traits.face = Some(face);
    }
    drones
}

fn px4(now: Duration) -> Vec<SimDrone> {
    with_face(now, &descriptors::PX4_BOOTLOADER)
}

fn relatives(now: Duration) -> Vec<SimDrone> {
    [&descriptors::CRAZYRADIO, &descriptors::LOCO_NODE]
        .into_iter()
        .flat_map(|face| with_face(now, face))
        .collect()
}

fn other_chip(now: Duration) -> Vec<SimDrone> {
    in_dfu(Pace::Typical, now, |drone| drone.traits.face = Some(&descriptors::OTHER_ROM))
}

fn clone(now: Duration) -> Vec<SimDrone> {
    in_dfu(Pace::Typical, now, |drone| drone.traits.face = Some(&descriptors::GD32_ROM))
}

fn beside(now: Duration) -> Vec<SimDrone> {
    [clone(now), healthy(now)].concat()
}

fn two(now: Duration) -> Vec<SimDrone> {
    let mut drones = dfu(now);
    drones.extend(in_dfu(Pace::Typical, now, |drone| drone.traits.uid[0] = 0x52));
    drones
}

fn twins(now: Duration) -> Vec<SimDrone> {
    let mut drones = dfu(now);
    // Change the wafer number, which is not part of the serial number in DFU mode.
    drones.extend(in_dfu(Pace::Typical, now, |drone| drone.traits.uid[4] ^= 1));
    drones
}

fn unknown_board(now: Duration) -> Vec<SimDrone> {
    in_dfu(Pace::Typical, now, |drone| drone::write_otp(&mut drone.memory, "7;CF2X;R=?"))
}

fn blank_otp(now: Duration) -> Vec<SimDrone> {
    in_dfu(Pace::Typical, now, |drone| drone.memory.otp = [0xFF; 528])
}

/// Creates a drone with a foreign program of 500 kB at the start of flash, and with a blank OTP.
fn foreign(now: Duration) -> Vec<SimDrone> {
    in_dfu(Pace::Typical, now, |drone| {
        drone.memory.otp = [0xFF; 528];
        drone.memory.flash.place(nor::START, &images::foreign(500_000));
    })
}

fn nameless(now: Duration) -> Vec<SimDrone> {
    in_dfu(Pace::Typical, now, |drone| {
        drone::write_otp(&mut drone.memory, "0;CB10;R=A");
        drone.traits.lost_name = Some(6);
    })
}

/// Creates a running drone, modified by `change`.
fn running(now: Duration, change: impl Fn(&mut SimDrone)) -> Vec<SimDrone> {
    let mut drones = healthy(now);
    drones.iter_mut().for_each(change);
    drones
}

/// Creates a running drone that already had this ailment when its firmware started.
fn ailing(now: Duration, ailment: Ailment) -> Vec<SimDrone> {
    started_with(now, Traits { ailment, ..Traits::default() })
}

fn started_with(now: Duration, traits: Traits) -> Vec<SimDrone> {
    let mut drone = crazyflie(Pace::Typical, CF21, traits);
    drone.power_on(Duration::ZERO);
    drone.advance(now + Duration::from_secs(60));
    vec![drone]
}

fn missed(now: Duration) -> Vec<SimDrone> {
    running(now, |drone| drone.traits.missed_entries = 4)
}

fn late(now: Duration) -> Vec<SimDrone> {
    running(now, |drone| drone.traits.late_rom = Duration::from_secs(15))
}

fn dark(now: Duration) -> Vec<SimDrone> {
    running(now, |drone| drone.memory.rom_version = 0x31)
}

fn restarting(now: Duration) -> Vec<SimDrone> {
    running(now, |drone| drone.traits.crashes_after = Some(Duration::from_millis(700)))
}

fn loose(now: Duration) -> Vec<SimDrone> {
    in_dfu(Pace::Typical, now, |drone| drone.traits.fault = Some((80, SimFault::Loose)))
}

fn hung(now: Duration) -> Vec<SimDrone> {
    in_dfu(Pace::Typical, now, |drone| drone.traits.fault = Some((80, SimFault::Hung)))
}

/// Creates drones in four different states. The pattern repeats after every eight drones.
fn fleet(now: Duration, count: usize) -> Vec<SimDrone> {
    let one = |n: usize| -> SimDrone {
        let mut drones = match n % 8 {
            3 => running(now, |drone| {
                let current = images::firmware(images::VERSION, &CF2_BOARDS, images::FIRMWARE_LEN);
                (1..12).for_each(|sector| drone.memory.flash.erase(sector, 1.0));
                drone.memory.flash.place(0x0800_4000, &current);
            }),
            5 => running(now, |drone| {
                let boards = [("C21B", "Crazyflie 2.1 Brushless")];
                let firmware = images::firmware("2025.02", &boards, FIRMWARE_LEN);
                drone.memory.flash.place(0x0800_4000, &firmware);
                drone::write_otp(&mut drone.memory, "0;C21B;R=A");
            }),
            7 => erased(now),
            _ => healthy(now),
        };
        drones.remove(0)
    };
    assign_unique_ids((0..count).map(one).collect())
}

/// Gives each drone its own unique ID, as if the chips came from different places on one wafer.
fn assign_unique_ids(mut drones: Vec<SimDrone>) -> Vec<SimDrone> {
    for (n, drone) in drones.iter_mut().enumerate() {
        let place = u16::try_from(n).unwrap_or(u16::MAX).to_le_bytes();
        (drone.traits.uid[0], drone.traits.uid[1]) = (0x51_u8.wrapping_add(place[0]), place[1]);
    }
    drones
}

fn no_effect(now: Duration) -> Vec<SimDrone> {
    in_dfu(Pace::Typical, now, |drone| drone.traits.switch = Switch::NoEffect)
}
