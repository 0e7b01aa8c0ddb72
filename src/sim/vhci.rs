//! Connects a simulated drone to the Linux kernel through the kernel's virtual USB host controller, so that lsusb,
//! dfu-util and cfdfu itself see a real device.
//!
//! The module uses the USB/IP protocol (kernel documentation, usbip_protocol) over a socket pair and passes one end to
//! the kernel. Closing the other end unplugs the device. Attaching a device requires root and the kernel module
//! `vhci_hcd`.

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::SimBus;
use crate::usb::{Setup, TransferError};

const CONTROLLER: &str = "/sys/devices/platform/vhci_hcd.0";
/// The maximum number of controllers in the kernel (CONFIG_USBIP_VHCI_NR_HCS).
const CONTROLLERS: u32 = 128;
/// The interval at which the drone is checked for changes.
const CHECK_INTERVAL: Duration = Duration::from_millis(5);
const CMD_SUBMIT: u32 = 1;
const CMD_UNLINK: u32 = 2;
const RET_SUBMIT: u32 = 3;
const RET_UNLINK: u32 = 4;
const HEADER_LEN: usize = 48;
/// The Linux error numbers that the protocol uses.
const EPIPE: i32 = -32;
const EPROTO: i32 = -71;
const ECONNRESET: i32 = -104;
/// USB_SPEED_FULL.
const FULL_SPEED: u32 = 2;
/// The code for a free port in the status file of the controller.
const PORT_FREE: &str = "004";
/// A limit that control transfers never reach, because the host has its own time limit.
const NO_LIMIT: Duration = Duration::from_secs(3600);

/// Returns whether this computer has the virtual host controller.
pub(crate) fn is_available() -> bool {
    Path::new(CONTROLLER).exists()
}

/// Attaches drone `n` to the kernel whenever the drone is on the simulated bus, until `stop` is set. Calls `report`
/// with a message for each change.
pub(crate) fn serve(bus: &SimBus, n: usize, stop: &AtomicBool, report: &dyn Fn(&str)) -> io::Result<()> {
    // A drone that restarts stays on its port, as on a real hub.
    let mut wanted = u32::try_from(n).unwrap_or(u32::MAX);
    while !stop.load(Ordering::SeqCst) {
        let Some((enumeration, id)) =
            bus.with(n, |drone, _| Some((drone.enumeration()?, drone.identity()?.0))).flatten()
        else {
            thread::sleep(CHECK_INTERVAL);
            continue;
        };
        let (ours, theirs) = UnixStream::pair()?;
        let port = attach(&theirs, enumeration, wanted)?;
        wanted = port;
        drop(theirs);
        report(&format!("plugged in as {:04x}:{:04x}", id.0, id.1));
        let socket = ours.try_clone()?;
        let device = bus.clone();
        let serving = thread::spawn(move || VirtualDevice { bus: device, n, enumeration }.serve(ours));
        let is_same = || bus.with(n, |drone, _| drone.enumeration()).flatten() == Some(enumeration);
        while !stop.load(Ordering::SeqCst) && !serving.is_finished() && is_same() {
            thread::sleep(CHECK_INTERVAL);
        }
        // The kernel treats the shutdown as a disconnect. An error means that the kernel closed the connection first.
        let _ = socket.shutdown(Shutdown::Both);
        let _ = serving.join();
        report("disconnected");
        wait_until_free(port);
    }
    Ok(())
}

/// Attaches one end of the socket pair to the wanted port if that port is free, or otherwise to the next free port.
/// Uses only USB 2.0 ports. Returns the port.
fn attach(socket: &UnixStream, enumeration: u8, wanted: u32) -> io::Result<u32> {
    let mut last = io::Error::other("no free port on vhci_hcd");
    let mut free: Vec<u32> = ports()?.into_iter().filter(|(_, free)| *free).map(|(port, _)| port).collect();
    // Start with the wanted port and the ports after it, so that drones that start together do not compete.
    free.sort_by_key(|port| (*port < wanted, *port));
    for port in free {
        let devid = 1 << 16 | (u32::from(enumeration) + 1);
        let line = format!("{port} {} {devid} {FULL_SPEED}", socket.as_raw_fd());
        match fs::write(format!("{CONTROLLER}/attach"), line) {
            Ok(()) => return Ok(port),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Returns the USB 2.0 ports of all controllers, and whether each port is free.
fn ports() -> io::Result<Vec<(u32, bool)>> {
    let mut status = fs::read_to_string(format!("{CONTROLLER}/status"))?;
    // The status files of additional controllers continue the port numbers.
    for n in 1..CONTROLLERS {
        match fs::read_to_string(format!("{CONTROLLER}/status.{n}")) {
            Ok(more) => status += &more,
            Err(_) => break,
        }
    }
    let row = |line: &str| {
        let mut fields = line.split_whitespace();
        let (hub, port, state) = (fields.next()?, fields.next()?, fields.next()?);
        (hub == "hs").then_some((port.parse().ok()?, state == PORT_FREE))
    };
    Ok(status.lines().filter_map(row).collect())
}

fn wait_until_free(port: u32) {
    for _ in 0..200 {
        if ports().is_ok_and(|ports| ports.contains(&(port, true))) {
            return;
        }
        thread::sleep(CHECK_INTERVAL);
    }
}

/// The drone in one of its enumerations.
struct VirtualDevice {
    bus: SimBus,
    n: usize,
    enumeration: u8,
}

/// A request from the kernel.
struct Urb {
    seqnum: [u8; 4],
    endpoint: u32,
    is_in: bool,
    len: usize,
    setup: [u8; 8],
    data: Vec<u8>,
}

/// The state that the reader and the executor share: the socket for answers, and the open requests.
///
/// One lock protects both, because no answer to a request may follow the confirmation that the request was unlinked.
/// The kernel treats such an answer as a protocol error and drops the device.
struct UrbLine(Mutex<(UnixStream, HashSet<[u8; 4]>)>);

impl UrbLine {
    fn new(socket: UnixStream) -> UrbLine {
        UrbLine(Mutex::new((socket, HashSet::new())))
    }

    fn lock(&self) -> MutexGuard<'_, (UnixStream, HashSet<[u8; 4]>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, urb: &Urb) {
        self.lock().1.insert(urb.seqnum);
    }

    fn is_open(&self, urb: &Urb) -> bool {
        self.lock().1.contains(&urb.seqnum)
    }

    /// Answers a request, unless it has been unlinked. Errors are ignored, because the reader notices a closed socket.
    fn answer(&self, urb: &Urb, status: i32, len: usize, data: &[u8]) {
        let (socket, open) = &mut *self.lock();
        if open.remove(&urb.seqnum) {
            let len = u32::try_from(len).unwrap_or(0);
            let _ = socket.write_all(&[&pack_header(RET_SUBMIT, urb.seqnum, status, len)[..], data].concat());
        }
    }

    /// Confirms that a request will not be answered or has already been answered.
    fn unlink(&self, seqnum: [u8; 4], target: [u8; 4]) {
        let (socket, open) = &mut *self.lock();
        let status = if open.remove(&target) { ECONNRESET } else { 0 };
        let _ = socket.write_all(&pack_header(RET_UNLINK, seqnum, status, 0));
    }
}

impl VirtualDevice {
    /// Answers requests until the socket is closed. Requests are executed one after the other, as on the chip. Only
    /// unlink requests are handled immediately.
    fn serve(self, mut socket: UnixStream) {
        let Ok(writer) = socket.try_clone() else { return };
        let line = Arc::new(UrbLine::new(writer));
        let (queue, requests) = channel();
        let executor_line = Arc::clone(&line);
        let executor = thread::spawn(move || self.execute(&requests, &executor_line));
        while let Ok(message) = read_message(&mut socket) {
            match message {
                Message::Submit(urb) => {
                    line.open(&urb);
                    if queue.send(urb).is_err() {
                        break;
                    }
                }
                Message::Unlink { seqnum, target } => line.unlink(seqnum, target),
            }
        }
        drop(queue);
        let _ = executor.join();
    }

    fn execute(&self, requests: &Receiver<Urb>, line: &UrbLine) {
        // The read requests that are waiting for packets from the CRTP link.
        let mut readers = VecDeque::new();
        for urb in requests {
            match (urb.endpoint, urb.is_in) {
                (0, _) => self.control(&urb, line),
                (1, true) => readers.push_back(urb),
                // If the packet is not accepted, the request stays open until the host gives up.
                (1, false) => {
                    if let Ok(Some(_)) = self.bus.packet_out(self.n, self.enumeration, &urb.data) {
                        line.answer(&urb, 0, urb.data.len(), &[]);
                    }
                }
                (_, false) => line.answer(&urb, 0, urb.data.len(), &[]),
                // The other bulk and interrupt endpoints never send anything.
                (_, true) => {}
            }
            readers.retain(|urb| line.is_open(urb));
            while let Some(urb) = readers.front()
                && let Ok(Some((packet, _))) = self.bus.packet_in(self.n, self.enumeration)
            {
                line.answer(urb, 0, packet.len(), &packet);
                readers.pop_front();
            }
        }
    }

    fn control(&self, urb: &Urb, line: &UrbLine) {
        let [request_type, request, value_low, value_high, index_low, index_high, _, _] = urb.setup;
        let value = u16::from_le_bytes([value_low, value_high]);
        let index = u16::from_le_bytes([index_low, index_high]);
        let setup = Setup { request_type, request, value, index };
        match self.bus.control(self.n, self.enumeration, setup, urb.len, &urb.data, NO_LIMIT) {
            Ok(bytes) if urb.is_in => {
                let bytes = &bytes[..bytes.len().min(urb.len)];
                line.answer(urb, 0, bytes.len(), bytes);
            }
            Ok(_) => line.answer(urb, 0, urb.data.len(), &[]),
            Err(TransferError::Stall) => line.answer(urb, EPIPE, 0, &[]),
            Err(TransferError::Io) => line.answer(urb, EPROTO, 0, &[]),
            // Do not answer: either the device has left the bus, and the socket will be closed, or the device hangs,
            // and the host will give up.
            Err(_) => {}
        }
    }
}

enum Message {
    Submit(Urb),
    Unlink { seqnum: [u8; 4], target: [u8; 4] },
}

fn read_message(socket: &mut UnixStream) -> io::Result<Message> {
    let mut header = [0; HEADER_LEN];
    socket.read_exact(&mut header)?;
    let bytes = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
    let number = |at: usize| u32::from_be_bytes(bytes(at));
    match number(0) {
        CMD_SUBMIT => {
            let is_in = number(12) == 1;
            let len = number(24) as usize;
            let mut data = vec![0; if is_in { 0 } else { len }];
            socket.read_exact(&mut data)?;
            let mut setup = [0; 8];
            setup.copy_from_slice(&header[40..]);
            Ok(Message::Submit(Urb { seqnum: bytes(4), endpoint: number(16), is_in, len, setup, data }))
        }
        CMD_UNLINK => Ok(Message::Unlink { seqnum: bytes(4), target: bytes(20) }),
        other => Err(io::Error::other(format!("unknown USB/IP command {other}"))),
    }
}

/// Packs the header of an answer: command, sequence number, three unused words, status and length. The rest is 0.
fn pack_header(command: u32, seqnum: [u8; 4], status: i32, len: u32) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&command.to_be_bytes());
    header[4..8].copy_from_slice(&seqnum);
    header[20..24].copy_from_slice(&status.to_be_bytes());
    header[24..28].copy_from_slice(&len.to_be_bytes());
    header
}
