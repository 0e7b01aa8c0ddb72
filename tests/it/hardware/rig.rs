//! Sends single requests to a simulated drone and records them, so that the values of the simulator can be read from a
//! recording, just like those of real chips.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cfdfu::clock::{Clock, FastClock};
use cfdfu::recording::recorder::{RecordedBus, RecordedClock, Recorder};
use cfdfu::recording::tape::Tape;
use cfdfu::recording::{self, Header, Line, VERSION};
use cfdfu::sim::SimBus;
use cfdfu::sim::drone::SimDrone;
use cfdfu::sim::scenario::Scenario;
use cfdfu::usb::{Bus, CRAZYFLIE, Found, Id, ROM_DFU, Setup, Transport};

/// The interval at which the list of devices is read.
const INTERVAL: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_secs(20);

/// The first drone of a scenario, on a recorded bus.
pub struct Rig {
    bus: RecordedBus<SimBus>,
    clock: RecordedClock,
    tape: Arc<Mutex<Tape>>,
    /// The most recently found device.
    last: Mutex<Option<Found>>,
}

impl Rig {
    pub fn new(scenario: &str) -> Rig {
        Rig::changed(scenario, |_| {})
    }

    /// Applies `change` to the drone before its boot ROM starts. A running drone keeps running.
    pub fn changed(scenario: &str, change: impl FnOnce(&mut SimDrone)) -> Rig {
        let clock = Arc::new(FastClock::new());
        let sim = Scenario::by_name(scenario).unwrap().bus(clock.clone());
        sim.with(0, |drone, now| {
            change(drone);
            if drone.identity().is_some_and(|(id, _)| id != (CRAZYFLIE.vendor, CRAZYFLIE.product)) {
                // The simulated ROM reads the drone's traits only when it starts.
                drone.cut_power(now);
                drone.power_on_by_hand(now);
            }
        });
        let tape = Arc::new(Mutex::new(Tape::default().to_memory()));
        let header = Header {
            recording: VERSION,
            program: "tests".to_owned(),
            system: "none".to_owned(),
            scenario: Some(scenario.to_owned()),
            redacted: false,
        };
        let recorder = Recorder::start(clock.clone(), header, Arc::clone(&tape));
        let bus = RecordedBus::new(sim, Arc::clone(&recorder));
        Rig { bus, clock: RecordedClock::new(clock, recorder), tape, last: Mutex::default() }
    }

    /// Returns the recording. The recorder writes a wait only together with the next request, so this function first
    /// opens the last device once more.
    pub fn lines(&self) -> Vec<Line> {
        if let Some(found) = &*self.last.lock().unwrap() {
            self.bus.open(found).ok();
        }
        recording::parse(&self.tape.lock().unwrap().text()).unwrap()
    }

    /// Reads the list of devices until a device with this ID appears or `limit` has passed. Returns the device, if any.
    pub fn wait_for(&self, id: Id, limit: Duration) -> Option<Found> {
        let end = self.clock.now() + limit;
        loop {
            let found = self.bus.list().unwrap().into_iter().find(|found| found.id == id);
            if found.is_some() {
                self.last.lock().unwrap().clone_from(&found);
            }
            if found.is_some() || self.clock.now() >= end {
                return found;
            }
            self.clock.sleep(INTERVAL);
        }
    }

    /// Keeps reading the list of devices until `time` has passed.
    pub fn watch(&self, time: Duration) {
        self.wait_for(Id { vendor: 0, product: 0 }, time);
    }

    pub fn open(&self, id: Id) -> Chip {
        let found = self.wait_for(id, LIMIT).unwrap();
        Chip { transport: self.bus.open(&found).unwrap() }
    }

    /// Opens the boot ROM and clears its first status.
    pub fn rom(&self) -> Chip {
        let mut chip = self.open(ROM_DFU);
        chip.get_status();
        chip.clear_status();
        chip
    }

    /// Sends the running drone the request to enter DFU mode.
    pub fn request_dfu(&self) {
        let setup = Setup { request_type: 0x40, request: 1, value: 1, index: 2 };
        self.open(CRAZYFLIE).out(setup, &[]);
    }
}

/// An open device. A failed request is part of the recording, so the methods return no error.
pub struct Chip {
    transport: Box<dyn Transport>,
}

impl Chip {
    fn out(&mut self, setup: Setup, data: &[u8]) {
        self.transport.control_out(setup, data, LIMIT).ok();
    }

    fn input(&mut self, request_type: u8, request: u8, value: u16, index: u16, len: usize) {
        let setup = Setup { request_type, request, value, index };
        self.transport.control_in(setup, &mut vec![0; len], LIMIT).ok();
    }

    fn class_out(&mut self, request: u8, value: u16, data: &[u8]) {
        self.out(Setup { request_type: 0x21, request, value, index: 0 }, data);
    }

    /// Reads the descriptors: device, configuration, and the strings with these numbers.
    pub fn descriptors(&mut self, strings: &[u8]) {
        self.input(0x80, 6, 0x0100, 0, 18);
        self.input(0x80, 6, 0x0200, 0, 255);
        for &string in strings {
            self.input(0x80, 6, 0x0300 | u16::from(string), 0x0409, 255);
        }
    }

    pub fn select(&mut self, alternate: u8) {
        self.transport.select(0, alternate).ok();
    }

    pub fn get_status(&mut self) {
        self.input(0xA1, 3, 0, 0, 6);
    }

    pub fn get_state(&mut self) {
        self.input(0xA1, 5, 0, 0, 1);
    }

    pub fn clear_status(&mut self) {
        self.class_out(4, 0, &[]);
    }

    pub fn abort(&mut self) {
        self.class_out(6, 0, &[]);
    }

    /// Sends DNLOAD without the GETSTATUS that starts the operation.
    pub fn download(&mut self, block: u16, data: &[u8]) {
        self.class_out(1, block, data);
    }

    /// Sends DNLOAD and two GETSTATUS requests without a pause.
    pub fn write(&mut self, block: u16, data: &[u8]) {
        self.download(block, data);
        self.get_status();
        self.get_status();
    }

    fn command(&mut self, code: u8, address: u32) {
        self.write(0, &[&[code][..], &address.to_le_bytes()].concat());
    }

    pub fn set_address(&mut self, address: u32) {
        self.command(0x21, address);
    }

    pub fn erase(&mut self, address: u32) {
        self.command(0x41, address);
    }

    /// Selects a programming width of 32 bits.
    pub fn select_32_bits(&mut self) {
        self.set_address(0xFFFF_0000);
        self.write(2, &[3, 0xFF, 0xFF, 0xFF]);
    }

    pub fn upload(&mut self, block: u16, len: usize) {
        self.input(0xA1, 2, block, 0, len);
    }

    /// Reads bytes from an address. The state must be dfuIDLE or dfuDNLOAD-IDLE.
    pub fn read(&mut self, address: u32, len: usize) {
        self.set_address(address);
        self.abort();
        self.upload(2, len);
        self.abort();
    }

    /// Sends the request to leave DFU mode and start the program at this address.
    pub fn leave(&mut self, address: u32) {
        self.set_address(address);
        self.download(2, &[]);
        self.get_status();
    }
}
