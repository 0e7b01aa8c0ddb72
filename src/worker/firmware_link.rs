//! The CRTP link to a running Crazyflie over USB. Opening the link switches the firmware's connection from the radio to
//! USB, and dropping the link switches the connection back, however the job ends. An open link collects what the
//! firmware prints on its console, because console packets and answers arrive on the same endpoint.

use std::time::Duration;

use super::{Ctx, Stop, port};
use crate::crazyflie::console::{ConsoleLine, ConsoleReader, Health};
use crate::crazyflie::crtp::{CRTP_IN, CRTP_MAX, CRTP_OUT, LINK_TO_RADIO, LINK_TO_USB};
use crate::crazyflie::{HIDDEN_SERIAL, Mode, is_same_serial};
use crate::job::{Device, FailureKind, LogEntry};
use crate::usb::descriptor::{self, Names};
use crate::usb::{TransferError, Transport};

/// Time limit for one packet. Switching the link takes no time, and the firmware sends a packet within one tick.
const PACKET: Duration = Duration::from_millis(100);
/// Time limit for the read that claims the interface. Until the link is switched, only a leftover packet can arrive.
const CLAIM: Duration = Duration::from_millis(10);
/// How long to wait for an answer, which may arrive after console packets.
const ANSWER: Duration = Duration::from_millis(300);
/// The pause between attempts to open the device.
const OPEN_PAUSE: Duration = Duration::from_millis(50);

pub(super) struct FirmwareLink {
    transport: Box<dyn Transport>,
    reader: ConsoleReader,
    /// The health that the firmware has reported since the link was opened.
    pub(super) health: Health,
    /// The lines that [`FirmwareLink::listen`] has not returned yet.
    lines: Vec<ConsoleLine>,
}

/// Why the link was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unopened {
    /// The device was unplugged or replaced, another program such as cfclient is using the link, or access is denied.
    /// The link must not be switched.
    Unavailable,
    /// The device is on the bus but does not answer.
    Silent,
}

impl FirmwareLink {
    /// Opens the link to the running `device`, retrying for up to `limit`: firmware that has just started needs a
    /// moment, and another cfdfu may be identifying the drone.
    ///
    /// `serial` is the serial number of the drone in either mode, or empty if unknown.
    pub(super) fn open(
        ctx: &Ctx<'_>,
        device: &Device,
        serial: &str,
        limit: Duration,
    ) -> Result<FirmwareLink, Unopened> {
        let start = ctx.clock.now();
        loop {
            match FirmwareLink::try_open(ctx, device, serial) {
                Ok(link) => return Ok(link),
                Err(_) if ctx.clock.now().saturating_sub(start) < limit => ctx.clock.sleep(OPEN_PAUSE),
                Err((why, error)) => {
                    ctx.log(LogEntry::NotAsked(error));
                    return Err(why);
                }
            }
        }
    }

    /// Like [`FirmwareLink::open`], but tries only once.
    pub(super) fn try_open(
        ctx: &Ctx<'_>,
        device: &Device,
        serial: &str,
    ) -> Result<FirmwareLink, (Unopened, TransferError)> {
        let failed = |error: TransferError| {
            let silent = matches!(error, TransferError::Timeout | TransferError::Io | TransferError::Stall);
            (if silent { Unopened::Silent } else { Unopened::Unavailable }, error)
        };
        let opened = port::open(ctx, device).map_err(|stop| match stop {
            Stop::Failed(FailureKind::Open(error), _) => failed(error),
            _ => failed(TransferError::Access),
        });
        let mut transport = opened?;
        // A different device may be plugged in by now. Send the link requests only to a confirmed Crazyflie.
        let Names { strings, lost, .. } = descriptor::names(&mut *transport).map_err(failed)?;
        if let Some(error) = lost {
            return Err(failed(error));
        }
        // An empty or hidden `serial` matches any drone: a drone that could not be opened when it was listed reports
        // its serial number only now.
        let is_other = !["", HIDDEN_SERIAL].contains(&serial) && !is_same_serial(serial, &strings.serial);
        if Mode::of(device.id, &strings) != Some(Mode::Firmware) || is_other {
            return Err(failed(TransferError::NotFound));
        }
        // Reading claims the interface. If another program, such as cfclient, has claimed the interface, that program's
        // link must not be switched.
        let mut packet = [0; CRTP_MAX];
        let leftover = match transport.bulk_in(CRTP_IN, &mut packet, CLAIM) {
            Ok(n) => n,
            Err(TransferError::Timeout) => 0,
            Err(error) => return Err(failed(error)),
        };
        let health = Health { asked: true, ..Health::default() };
        let mut link =
            FirmwareLink { transport, reader: ConsoleReader::default(), health, lines: Vec::new() };
        link.switch_to_usb().map_err(failed)?;
        link.collect(packet.get(..leftover).unwrap_or_default());
        Ok(link)
    }

    /// Switches the firmware's link to USB. Firmware that is starting switches the link back to the radio (`comm.c`),
    /// so the switch may have to be repeated.
    pub(super) fn switch_to_usb(&mut self) -> Result<(), TransferError> {
        self.transport.control_out(LINK_TO_USB, &[], PACKET).map(drop)
    }

    /// Sends a packet and waits for its answer. Collects console packets and ignores all other packets. Returns
    /// `None` if no answer arrives.
    pub(super) fn ask<T>(
        &mut self,
        ctx: &Ctx<'_>,
        question: &[u8],
        answer: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, TransferError> {
        let start = ctx.clock.now();
        match self.transport.bulk_out(CRTP_OUT, question, PACKET) {
            Ok(_) => {}
            Err(TransferError::Timeout) => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut buffer = [0; CRTP_MAX];
        while ctx.clock.now().saturating_sub(start) < ANSWER {
            let answer = self.receive(&mut buffer, PACKET)?.and_then(&answer);
            if answer.is_some() {
                self.health.answered = true;
                return Ok(answer);
            }
        }
        Ok(None)
    }

    /// Like [`FirmwareLink::ask`], but asks once more if no answer arrives: the question or its answer may have been
    /// lost.
    pub(super) fn ask_twice<T>(
        &mut self,
        ctx: &Ctx<'_>,
        question: &[u8],
        answer: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, TransferError> {
        match self.ask(ctx, question, &answer)? {
            None => self.ask(ctx, question, &answer),
            some => Ok(some),
        }
    }

    /// Waits up to `limit` for a packet, and returns the console lines completed since the last call.
    pub(super) fn listen(&mut self, limit: Duration) -> Result<Vec<ConsoleLine>, TransferError> {
        self.receive(&mut [0; CRTP_MAX], limit)?;
        Ok(std::mem::take(&mut self.lines))
    }

    /// Returns the incomplete last line, if any.
    pub(super) fn last_line(&mut self) -> Option<ConsoleLine> {
        self.reader.end()
    }

    /// Waits up to `limit` for a packet and collects its console text. Returns `None` if no packet arrives.
    fn receive<'p>(
        &mut self,
        buffer: &'p mut [u8; CRTP_MAX],
        limit: Duration,
    ) -> Result<Option<&'p [u8]>, TransferError> {
        let packet = match self.transport.bulk_in(CRTP_IN, buffer, limit) {
            Ok(n) => buffer.get(..n).unwrap_or_default(),
            Err(TransferError::Timeout) => return Ok(None),
            Err(error) => return Err(error),
        };
        self.collect(packet);
        Ok(Some(packet))
    }

    fn collect(&mut self, packet: &[u8]) {
        for line in self.reader.read(packet) {
            self.health.read(&line);
            self.lines.push(line);
        }
    }
}

impl Drop for FirmwareLink {
    /// Switches the link back to the radio, with up to three attempts. Errors are ignored: the drone may be gone.
    fn drop(&mut self) {
        for _ in 0..3 {
            match self.transport.control_out(LINK_TO_RADIO, &[], PACKET) {
                Err(error) if error != TransferError::Disconnected => {}
                Ok(_) | Err(_) => return,
            }
        }
    }
}
