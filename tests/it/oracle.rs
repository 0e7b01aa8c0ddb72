//! Tests the worker with an independent DFU device, built from the crates `usbd-dfu` and `usb-device`. This device
//! interprets the standard in its own way, uses transfers of 128 bytes and pages of 1 KiB, and erases and writes
//! between two GETSTATUS requests.
//!
//! The device runs in its own thread. A small bus in this file carries the packets of control endpoint 0.

use std::collections::VecDeque;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cfdfu::clock::{Clock, FastClock};
use cfdfu::flash::{Address, Segment};
use cfdfu::job::{FailureKind, Job, Keep, Leave, Mismatch, Outcome, Task};
use cfdfu::plan::admission::{self, Overrides};
use cfdfu::recording::recorder::{RecordedBus, Recorder};
use cfdfu::recording::tape::Tape;
use cfdfu::recording::{self, Header};
use cfdfu::sim::replay::ReplayBus;
use cfdfu::usb::{Bus, BusError, Found, Location, Pipe, ROM_DFU, Setup, TransferError, Transport};
use usb_device::bus::{PollResult, UsbBus, UsbBusAllocator};
use usb_device::endpoint::{EndpointAddress, EndpointType};
use usb_device::prelude::*;
use usb_device::{Result as UsbResult, UsbDirection};
use usbd_dfu::{DFUClass, DFUManifestationError, DFUMemError, DFUMemIO};

use crate::support::{self, change_flash_task, firmware, parse, run};

const BASE: u32 = 0x0800_0000;
const PAGE: usize = 1024;
const PACKET: usize = 64;

/// 64 pages of flash, shared with the test.
#[derive(Clone)]
struct Flash(Arc<Mutex<Vec<u8>>>);

struct Memory {
    flash: Flash,
    buffer: Vec<u8>,
}

impl DFUMemIO for Memory {
    const INITIAL_ADDRESS_POINTER: u32 = BASE;
    const MEM_INFO_STRING: &'static str = "@Flash/0x08000000/16*1Ka,48*1Kg";
    const PROGRAM_TIME_MS: u32 = 8;
    const ERASE_TIME_MS: u32 = 50;
    const FULL_ERASE_TIME_MS: u32 = 2000;
    const MANIFESTATION_TOLERANT: bool = false;

    fn store_write_buffer(&mut self, src: &[u8]) -> Result<(), ()> {
        self.buffer = src.to_vec();
        Ok(())
    }

    fn read(&mut self, address: u32, length: usize) -> Result<&[u8], DFUMemError> {
        let from = (address - BASE) as usize;
        let flash = self.flash.0.lock().unwrap();
        self.buffer = flash.get(from..from + length).ok_or(DFUMemError::Address)?.to_vec();
        Ok(&self.buffer)
    }

    fn program(&mut self, address: u32, length: usize) -> Result<(), DFUMemError> {
        let from = (address - BASE) as usize;
        let mut flash = self.flash.0.lock().unwrap();
        let cells = flash.get_mut(from..from + length).ok_or(DFUMemError::Address)?;
        if cells.iter().any(|&cell| cell != 0xFF) {
            return Err(DFUMemError::CheckErased);
        }
        cells.copy_from_slice(&self.buffer[..length]);
        Ok(())
    }

    fn erase(&mut self, address: u32) -> Result<(), DFUMemError> {
        let from = (address - BASE) as usize / PAGE * PAGE;
        if from < 16 * PAGE {
            return Err(DFUMemError::Target);
        }
        self.flash.0.lock().unwrap()[from..from + PAGE].fill(0xFF);
        Ok(())
    }

    fn erase_all(&mut self) -> Result<(), DFUMemError> {
        Err(DFUMemError::Erase)
    }

    fn manifestation(&mut self) -> Result<(), DFUManifestationError> {
        Ok(())
    }
}

/// The state of endpoint 0 between the host and the device.
#[derive(Default)]
struct Wire {
    reset: bool,
    /// The next packet for the device, and whether this packet is a setup packet.
    out: Option<(bool, Vec<u8>)>,
    /// Packets from the device.
    sent: VecDeque<Vec<u8>>,
    /// Whether the host has received a packet, but the device has not been notified yet.
    taken: bool,
    stalled: bool,
}

#[derive(Clone)]
struct WireBus(Arc<Mutex<Wire>>);

impl UsbBus for WireBus {
    fn alloc_ep(
        &mut self,
        dir: UsbDirection,
        at: Option<EndpointAddress>,
        _: EndpointType,
        _: u16,
        _: u8,
    ) -> UsbResult<EndpointAddress> {
        Ok(at.unwrap_or_else(|| EndpointAddress::from_parts(1, dir)))
    }

    fn enable(&mut self) {}

    fn reset(&self) {}

    fn set_device_address(&self, _: u8) {}

    fn write(&self, _: EndpointAddress, packet: &[u8]) -> UsbResult<usize> {
        self.0.lock().unwrap().sent.push_back(packet.to_vec());
        Ok(packet.len())
    }

    fn read(&self, _: EndpointAddress, buffer: &mut [u8]) -> UsbResult<usize> {
        let (_, packet) = self.0.lock().unwrap().out.take().ok_or(UsbError::WouldBlock)?;
        buffer[..packet.len()].copy_from_slice(&packet);
        Ok(packet.len())
    }

    fn set_stalled(&self, _: EndpointAddress, stalled: bool) {
        self.0.lock().unwrap().stalled |= stalled;
    }

    fn is_stalled(&self, _: EndpointAddress) -> bool {
        self.0.lock().unwrap().stalled
    }

    fn suspend(&self) {}

    fn resume(&self) {}

    fn poll(&self) -> PollResult {
        let mut wire = self.0.lock().unwrap();
        if std::mem::take(&mut wire.reset) {
            return PollResult::Reset;
        }
        let in_complete = u16::from(std::mem::take(&mut wire.taken));
        let (setup, out) = match &wire.out {
            Some((true, _)) => (1, 0),
            Some((false, _)) => (0, 1),
            None => (0, 0),
        };
        if (setup, out, in_complete) == (0, 0, 0) {
            return PollResult::None;
        }
        PollResult::Data { ep_out: out, ep_in_complete: in_complete, ep_setup: setup }
    }
}

type Answer = Result<Vec<u8>, TransferError>;
/// The setup packet, the length of the data stage, the data for the device, and the channel for the answer.
type Request = (Setup, usize, Vec<u8>, Sender<Answer>);

/// Starts the device in a thread and returns the channel for control transfers.
fn start_device(flash: Flash) -> Sender<Request> {
    let (requests, inbox) = channel::<Request>();
    std::thread::spawn(move || {
        let wire = WireBus(Arc::default());
        wire.0.lock().unwrap().reset = true;
        let allocator = UsbBusAllocator::new(wire.clone());
        let mut dfu = DFUClass::new(&allocator, Memory { flash, buffer: Vec::new() });
        let strings =
            StringDescriptors::default().manufacturer("another").product("maker").serial_number("1");
        let mut usb = UsbDeviceBuilder::new(&allocator, UsbVidPid(0x0483, 0xDF11))
            .strings(&[strings])
            .unwrap()
            .max_packet_size_0(64)
            .unwrap()
            .build();
        usb.poll(&mut [&mut dfu]);
        for (setup, len, data, answer) in inbox {
            let mut poll = || {
                for _ in 0..4 {
                    usb.poll(&mut [&mut dfu]);
                }
            };
            let _ = answer.send(transfer(&wire, setup, len, &data, &mut poll));
        }
    });
    requests
}

/// Performs the three stages of a control transfer (USB 2.0 §8.5.3).
fn transfer(wire: &WireBus, setup: Setup, len: usize, data: &[u8], poll: &mut dyn FnMut()) -> Answer {
    let [length_low, length_high] = u16::try_from(len).unwrap().to_le_bytes();
    let [value_low, value_high] = setup.value.to_le_bytes();
    let [index_low, index_high] = setup.index.to_le_bytes();
    let packet = vec![
        setup.request_type,
        setup.request,
        value_low,
        value_high,
        index_low,
        index_high,
        length_low,
        length_high,
    ];
    {
        let mut wire = wire.0.lock().unwrap();
        wire.stalled = false;
        wire.sent.clear();
    }
    let mut send = |is_setup: bool, packet: Vec<u8>| {
        wire.0.lock().unwrap().out = Some((is_setup, packet));
        poll();
        if wire.0.lock().unwrap().stalled { Err(TransferError::Stall) } else { Ok(()) }
    };
    send(true, packet)?;
    if setup.request_type & 0x80 == 0 {
        for packet in data.chunks(PACKET) {
            send(false, packet.to_vec())?;
        }
        receive(wire, poll);
        return Ok(Vec::new());
    }
    let mut bytes = Vec::new();
    while let Some(packet) = receive(wire, poll) {
        bytes.extend_from_slice(&packet);
        if packet.len() < PACKET || bytes.len() >= len {
            break;
        }
    }
    wire.0.lock().unwrap().out = Some((false, Vec::new()));
    poll();
    Ok(bytes)
}

/// Receives a packet from the device and notifies the device.
fn receive(wire: &WireBus, poll: &mut dyn FnMut()) -> Option<Vec<u8>> {
    let packet = wire.0.lock().unwrap().sent.pop_front()?;
    wire.0.lock().unwrap().taken = true;
    poll();
    Some(packet)
}

/// A bus to which only the independent device is connected.
struct OracleBus {
    requests: Mutex<Sender<Request>>,
    clock: Arc<FastClock>,
}

impl Bus for OracleBus {
    fn list(&self) -> Result<Vec<Found>, BusError> {
        let location = Location { bus: 1, ports: vec![1] };
        Ok(vec![Found { id: ROM_DFU, release: 0x0010, location, address: 1, names: None, simulated: true }])
    }

    fn open(&self, _: &Found) -> Result<Box<dyn Transport>, TransferError> {
        Ok(Box::new(OracleTransport(self.requests.lock().unwrap().clone())))
    }

    fn wait(&self, limit: Duration) {
        self.clock.sleep(limit.min(Duration::from_millis(20)));
    }
}

struct OracleTransport(Sender<Request>);

impl OracleTransport {
    fn ask(&self, setup: Setup, len: usize, data: &[u8]) -> Answer {
        let (answer, inbox) = channel();
        self.0.send((setup, len, data.to_vec(), answer)).map_err(|_| TransferError::Disconnected)?;
        inbox.recv().map_err(|_| TransferError::Disconnected)?
    }
}

impl Transport for OracleTransport {
    fn control_in(&mut self, setup: Setup, buffer: &mut [u8], _: Duration) -> Result<usize, TransferError> {
        let bytes = self.ask(setup, buffer.len(), &[])?;
        let len = bytes.len().min(buffer.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn control_out(&mut self, setup: Setup, data: &[u8], _: Duration) -> Result<usize, TransferError> {
        self.ask(setup, data.len(), data).map(|_| data.len())
    }

    fn bulk_in(&mut self, _: Pipe, _: &mut [u8], _: Duration) -> Result<usize, TransferError> {
        Err(TransferError::Stall)
    }

    fn bulk_out(&mut self, _: Pipe, _: &[u8], _: Duration) -> Result<usize, TransferError> {
        Err(TransferError::Stall)
    }

    fn select(&mut self, interface: u8, alternate: u8) -> Result<(), TransferError> {
        let (value, index) = (u16::from(alternate), u16::from(interface));
        self.ask(Setup { request_type: 0x01, request: 11, value, index }, 0, &[]).map(drop)
    }
}

/// Returns a flash job with this mismatch policy. This device has no information about its board.
fn job(image: &[u8], mismatch: Mismatch) -> Job {
    change_flash_task(support::job(admission::flash(&parse(image), Overrides::default()).unwrap()), |task| {
        task.mismatch = mismatch;
    })
}

#[test]
fn an_independent_dfu_device_is_flashed_according_to_its_memory_map_and_poll_times() {
    let flash = Flash(Arc::new(Mutex::new(vec![0x5A; 64 * PAGE])));
    let bus = || {
        let clock = Arc::new(FastClock::new());
        let requests = Mutex::new(start_device(flash.clone()));
        (Arc::new(OracleBus { requests, clock: clock.clone() }), clock)
    };
    let image = firmware("2026.08", 40_001);

    let (first, clock) = bus();
    let report = run(first, clock, job(&image, Mismatch::Refuse)).report;
    assert!(matches!(report.outcome, Outcome::Failed(failure) if failure.kind == FailureKind::OtherChip));

    let (second, clock) = bus();
    let report = run(second.clone(), clock.clone(), job(&image, Mismatch::Allow)).report;
    assert_eq!(report.outcome, Outcome::Flashed);
    assert_eq!((report.erased_sectors, report.verified, report.booted()), (40, true, Some(false)));
    let content = flash.0.lock().unwrap().clone();
    assert_eq!(content[..16 * PAGE], vec![0x5A; 16 * PAGE]);
    assert_eq!(content[16 * PAGE..16 * PAGE + image.len()], image);
    // The device asks for 8 ms per block and 50 ms per erase, and the job must wait that long.
    assert!(report.took > Duration::from_millis(40 * 50 + 312 * 8));

    // Verify in a new session what the previous session wrote.
    let (third, clock) = bus();
    let task = Task::Verify(vec![Segment { address: Address(BASE + 16 * 1024), data: image }]);
    let report = run(third, clock, Job { task, ..job(&firmware("2026.08", 4096), Mismatch::Allow) }).report;
    assert_eq!((report.outcome, report.verified), (Outcome::Unchanged, true));
}

/// Checks that the recording of this device in `tests/recordings` is up to date, and that flashing the replayed device
/// has the same result as flashing the device itself. `UPDATE=1` updates the recording.
#[test]
fn the_recording_of_an_independent_dfu_device_can_be_replayed() {
    let flash = Flash(Arc::new(Mutex::new(vec![0x5A; 64 * PAGE])));
    let clock = Arc::new(FastClock::new());
    let bus = OracleBus { requests: Mutex::new(start_device(flash)), clock: clock.clone() };
    let tape = Arc::new(Mutex::new(Tape::default().to_memory()));
    let header = Header {
        recording: recording::VERSION,
        program: "cfdfu, with the DFU class of usbd-dfu as the device".to_owned(),
        system: "simulated".to_owned(),
        scenario: Some("usbd-dfu".to_owned()),
        redacted: false,
    };
    let recorder = Recorder::start(clock.clone(), header, Arc::clone(&tape));
    let image = firmware("2026.08", 4096);
    // A backup and the wait for a restart would make the recording longer.
    let job = || {
        change_flash_task(job(&image, Mismatch::Allow), |task| {
            (task.keep, task.leave) = (Keep::No, Leave::Stay);
        })
    };
    let first = run(Arc::new(RecordedBus::new(bus, recorder)), clock, job()).report;
    assert_eq!(first.outcome, Outcome::Flashed);
    let text = tape.lock().unwrap().text();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/usbd-dfu-class.jsonl");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap();
    assert!(expected == text, "the recording is out of date: run `UPDATE=1 cargo test oracle`");

    let clock = Arc::new(FastClock::new());
    let lines = recording::parse(&text).unwrap();
    let bus = ReplayBus::new(&lines, clock.clone()).unwrap();
    let again = run(Arc::new(bus.clone()), clock, job()).report;
    assert_eq!((&again.outcome, again.written), (&first.outcome, first.written));
    let report = bus.report();
    assert_eq!(report.departures, Vec::<String>::new());
    assert_eq!(report.not_recorded, 0);
    assert!(report.as_recorded > 100, "{report:?}");
}
