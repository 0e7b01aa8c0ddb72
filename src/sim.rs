//! A simulated Crazyflie behind the same USB interface as real hardware, for the demo, the tests and `simulate`.
//!
//! [`nor`] is the flash memory, [`rom`] the DFU mode of the boot ROM, [`link`] the packets of the firmware,
//! [`descriptors`] the USB descriptors, [`drone`] the whole board, [`images`] its programs, and [`scenario`] the
//! available scenarios. [`replay`] replays a recording. [`vhci`] connects a board to the Linux kernel's USB stack.
//!
//! The simulator is based on ST's documents (AN3156, AN2606, RM0090, DS8626) and on logs of real chips. It shares no
//! code with the host side except the clock and the types of the `usb` interface; [`replay`] also uses the types of a
//! recording. Addresses, sector tables and state machines therefore exist twice on purpose: with shared code, both
//! sides would share a misreading of AN3156, every test would pass, and only a real drone would reveal the mistake.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::usb::{Bus, BusError, Found, Id, Location, Pipe, Setup, TransferError, Transport};

pub mod descriptors;
pub mod drone;
pub mod images;
pub mod link;
pub mod nor;
pub mod replay;
pub mod rom;
pub mod scenario;
#[cfg(target_os = "linux")]
pub(crate) mod vhci;

use drone::SimDrone;
use rom::RomAnswer;

/// The maximum duration of [`Bus::wait`] on the simulated bus.
const WAIT_MAX: Duration = Duration::from_millis(50);
const HOUR: Duration = Duration::from_secs(3600);
/// The request type and the request number of SET_INTERFACE.
const SET_INTERFACE: (u8, u8) = (0x01, 11);

/// A USB bus with simulated drones only.
#[derive(Clone)]
pub struct SimBus {
    drones: Arc<Mutex<Vec<SimDrone>>>,
    /// The location of each drone.
    places: Arc<[Location]>,
    /// The time until which each hub's wire is busy.
    wires: Arc<Mutex<HashMap<Location, Duration>>>,
    clock: Arc<dyn Clock>,
}

/// The rate of a full-speed wire in bytes per second. The wire carries 1500 bytes in each frame of 1 ms. A packet of 64
/// bytes uses 77 bytes of a frame, and the other stages of a control transfer count as 45.
const WIRE_RATE: u64 = 1_500_000;
const PACKET: usize = 64;
const PACKET_ON_WIRE: u64 = 77;
const CONTROL_ON_WIRE: u64 = 45;

/// Returns the time for which a control transfer with this much data occupies the wire.
fn wire_time(bytes: usize) -> Duration {
    let bytes = CONTROL_ON_WIRE + PACKET_ON_WIRE * bytes.div_ceil(PACKET) as u64;
    Duration::from_nanos(bytes * 1_000_000_000 / WIRE_RATE)
}

impl SimBus {
    /// Creates a bus with these drones on ports 1, 2 and so on.
    pub fn new(drones: Vec<SimDrone>, clock: Arc<dyn Clock>) -> SimBus {
        let port = |n: usize| u8::try_from(n + 1).unwrap_or(u8::MAX);
        let places = (0..drones.len()).map(|n| Location { bus: 1, ports: vec![port(n)] }).collect();
        SimBus::at(drones, places, clock)
    }

    /// Creates a bus with each drone at its location. The drones on one hub share a full-speed wire, as behind a hub
    /// with a single transaction translator; each port of a root hub has its own wire.
    ///
    /// # Panics
    /// If there are fewer locations than drones.
    pub fn at(drones: Vec<SimDrone>, places: Vec<Location>, clock: Arc<dyn Clock>) -> SimBus {
        assert!(places.len() >= drones.len(), "every drone needs a location");
        let (drones, wires) = (Arc::new(Mutex::new(drones)), Arc::default());
        SimBus { drones, places: places.into(), wires, clock }
    }

    /// Sleeps for the time of a control transfer with drone `n`. The transfer can take longer if another drone on the
    /// same hub is using the wire.
    fn transfer(&self, n: usize, takes: Duration, bytes: usize) {
        let now = self.clock.now();
        let mut end = now + takes;
        let hub = self.places.get(n).map(Location::hub).filter(|hub| !hub.ports.is_empty());
        if let Some(hub) = hub {
            let mut wires = self.wires.lock().unwrap_or_else(PoisonError::into_inner);
            let free = wires.entry(hub).or_default();
            *free = now.max(*free) + wire_time(bytes);
            end = end.max(*free);
        }
        self.clock.sleep(end.saturating_sub(now));
    }

    /// Returns the number of drones, plugged in or not.
    pub(crate) fn drones(&self) -> usize {
        self.lock().len()
    }

    /// Calls `act` with drone `n`, counted from 0. Returns `None` if there is no such drone.
    pub fn with<T>(&self, n: usize, act: impl FnOnce(&mut SimDrone, Duration) -> T) -> Option<T> {
        let now = self.clock.now();
        let mut drones = self.lock();
        let drone = drones.get_mut(n)?;
        drone.advance(now);
        Some(act(drone, now))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<SimDrone>> {
        // A drone has no invariants that span calls, so the drones remain usable after a panic in another thread.
        self.drones.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a bus with the same drones and a different clock.
    pub fn on_clock(&self, clock: Arc<dyn Clock>) -> SimBus {
        SimBus { clock, ..self.clone() }
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Sends a packet to bulk endpoint 1 of drone `n`. Returns how long the transfer takes, or `None` if the drone does
    /// not accept the packet.
    fn packet_out(&self, n: usize, enumeration: u8, data: &[u8]) -> Result<Option<Duration>, TransferError> {
        let sent = self
            .with(n, |drone, _| (drone.enumeration() == Some(enumeration)).then(|| drone.packet_out(data)));
        sent.flatten().ok_or(TransferError::Disconnected)
    }

    /// Receives a packet from bulk endpoint 1 of drone `n`. Returns the packet and how long its transfer takes, or
    /// `None` if the drone has no packet.
    fn packet_in(&self, n: usize, enumeration: u8) -> Result<Option<(Vec<u8>, Duration)>, TransferError> {
        let received =
            self.with(n, |drone, _| (drone.enumeration() == Some(enumeration)).then(|| drone.packet_in()));
        received.flatten().ok_or(TransferError::Disconnected)
    }

    /// Performs a control transfer with drone `n`. Fails with [`TransferError::Disconnected`] if the drone has
    /// disconnected or has a new enumeration.
    fn control(
        &self,
        n: usize,
        enumeration: u8,
        setup: Setup,
        len: usize,
        data: &[u8],
        limit: Duration,
    ) -> Result<Vec<u8>, TransferError> {
        let (answer, takes) = self
            .with(n, |drone, now| {
                (drone.enumeration() == Some(enumeration)).then(|| drone.control(setup, len, data, now))
            })
            .flatten()
            .ok_or(TransferError::Disconnected)?;
        if answer == RomAnswer::Hang {
            // A caller without a time limit (`vhci`) relies on the timeout of the host that it serves.
            if limit < HOUR {
                self.clock.sleep(limit);
            }
            return Err(TransferError::Timeout);
        }
        if takes > limit {
            self.clock.sleep(limit);
            return Err(TransferError::Timeout);
        }
        let moved = match &answer {
            RomAnswer::Data(bytes) => bytes.len(),
            _ => data.len(),
        };
        self.transfer(n, takes, moved);
        // The drone may have disconnected during the transfer.
        if answer != RomAnswer::Silence
            && self.with(n, |drone, _| drone.enumeration()).flatten() != Some(enumeration)
        {
            let answered_before = matches!(answer, RomAnswer::Data(_));
            if !answered_before {
                return Err(TransferError::Disconnected);
            }
        }
        answer.into_result()
    }
}

impl Bus for SimBus {
    fn list(&self) -> Result<Vec<Found>, BusError> {
        let now = self.clock.now();
        let mut drones = self.lock();
        let found = drones.iter_mut().enumerate().filter_map(|(n, drone)| {
            drone.advance(now);
            let (id, release) = drone.identity()?;
            Some(Found {
                id: Id { vendor: id.0, product: id.1 },
                release,
                location: self.places.get(n)?.clone(),
                address: drone.enumeration()?,
                names: None,
                simulated: true,
            })
        });
        Ok(found.collect())
    }

    fn open(&self, found: &Found) -> Result<Box<dyn Transport>, TransferError> {
        let n = self.places.iter().position(|place| *place == found.location);
        let n = n.ok_or(TransferError::Disconnected)?;
        match self.with(n, |drone, _| drone.enumeration()).flatten() {
            Some(enumeration) if enumeration == found.address => {
                Ok(Box::new(SimTransport { bus: self.clone(), n, enumeration }))
            }
            _ => Err(TransferError::Disconnected),
        }
    }

    fn wait(&self, limit: Duration) {
        self.clock.sleep(limit.min(WAIT_MAX));
    }
}

/// An open simulated device, which becomes invalid when the drone disconnects or re-enumerates.
struct SimTransport {
    bus: SimBus,
    n: usize,
    enumeration: u8,
}

impl Transport for SimTransport {
    fn control_in(
        &mut self,
        setup: Setup,
        buffer: &mut [u8],
        limit: Duration,
    ) -> Result<usize, TransferError> {
        let bytes = self.bus.control(self.n, self.enumeration, setup, buffer.len(), &[], limit)?;
        let len = bytes.len().min(buffer.len());
        buffer[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn control_out(&mut self, setup: Setup, data: &[u8], limit: Duration) -> Result<usize, TransferError> {
        self.bus.control(self.n, self.enumeration, setup, data.len(), data, limit)?;
        Ok(data.len())
    }

    fn select(&mut self, interface: u8, alternate: u8) -> Result<(), TransferError> {
        let (request_type, request) = SET_INTERFACE;
        let setup = Setup { request_type, request, value: u16::from(alternate), index: u16::from(interface) };
        let limit = Duration::from_secs(1);
        self.bus.control(self.n, self.enumeration, setup, 0, &[], limit).map(drop)
    }

    fn bulk_in(&mut self, _: Pipe, buffer: &mut [u8], limit: Duration) -> Result<usize, TransferError> {
        let Some((packet, takes)) = self.bus.packet_in(self.n, self.enumeration)? else {
            self.bus.clock.sleep(limit);
            return Err(TransferError::Timeout);
        };
        self.bus.clock.sleep(takes);
        let len = packet.len().min(buffer.len());
        buffer[..len].copy_from_slice(&packet[..len]);
        Ok(len)
    }

    fn bulk_out(&mut self, _: Pipe, data: &[u8], limit: Duration) -> Result<usize, TransferError> {
        let takes = self.bus.packet_out(self.n, self.enumeration, data)?;
        self.bus.clock.sleep(takes.unwrap_or(limit));
        takes.map(|_| data.len()).ok_or(TransferError::Timeout)
    }
}
