//! A whole simulated Crazyflie: its power, the program that starts after a reset, and its USB device.
//!
//! The modes match those of the real board. While the radio chip runs, the bootloader at 0x08000000 starts the
//! firmware, and the firmware resets into the boot ROM on a vendor request. If DFU mode was entered by hand (button
//! held at power-on), the pins of the radio chip float, and the bootloader starts the ROM after every reset until the
//! power is cut.

use std::time::Duration;

use super::descriptors::{self, UsbIdentity};
use super::images;
use super::link::{Ailment, BootLog, DroneIdentity, Link};
use super::nor::Nor;
use super::rom::{Memory, Rom, RomAnswer, RomEffect, Switch};
use crate::usb::Setup;

/// The duration of a control transfer without data on a full-speed bus. Each byte of data adds [`PER_BYTE`]. A
/// read-back of 2 KiB then takes 3.72 ms and a status request 0.59 ms, as computed from logs of real F405 boards.
const PER_TRANSFER: Duration = Duration::from_micros(580);
const PER_BYTE: Duration = Duration::from_nanos(1533);
/// The time from a reset into the ROM until 0483:df11 appears: bootloader, start of `main`, ROM start and USB
/// connection (AN2606 tables 227 and 229: 85 and 270 ms). Bitcraze's own script waits for one second.
const ENTER_ROM: Duration = Duration::from_millis(800);
/// How long a loose cable causes transfer errors before the drone disconnects.
const LOOSE: Duration = Duration::from_millis(250);
/// The radio chip's thresholds for how long the button is held at power-on.
const SHORT_PRESS: Duration = Duration::from_millis(1500);
const LONG_PRESS: Duration = Duration::from_secs(5);
/// The time that a helper needs to unplug the drone and plug it in with the button held.
const HELP_AFTER: Duration = Duration::from_secs(3);
/// How long a helper waits for a drone that should start without help.
const LOST_AFTER: Duration = Duration::from_secs(12);
/// The time from a reset, or a jump to the firmware, until 0483:5740 appears.
const BOOT: Duration = Duration::from_millis(1200);

/// The properties of a drone that are not in its memory.
#[allow(clippy::struct_excessive_bools, reason = "independent properties of a chip")]
#[derive(Clone, Debug)]
pub struct Traits {
    /// The 96-bit unique ID of the chip, in memory order.
    pub uid: [u8; 12],
    /// Whether the firmware is older than 2022.03. Such firmware mistakes the vendor request for a different request
    /// and keeps running.
    pub lacks_dfu_request: bool,
    /// The number of requests to enter DFU mode that restart the firmware instead. On other F405 boards, more than half
    /// of the requests fail in this way (CircuitPython PR #11270: 5 of 12 succeed).
    pub missed_entries: u8,
    /// Whether the ROM replies to the last GETSTATUS before it leaves DFU mode.
    pub answers_leave: bool,
    /// A fault that occurs once, after this many DFU requests to the device (DNLOAD, CLRSTATUS, ABORT).
    pub fault: Option<(u32, SimFault)>,
    /// How the ROM reacts to a change of the programming width.
    pub switch: Switch,
    /// The ROM stalls requests for the string with this index.
    pub lost_name: Option<u8>,
    /// Whether SET_INTERFACE is refused for any alternate setting except 0.
    pub refuses_alternates: bool,
    /// Whether read protection is reported when bytes are read or written, not when the pointer is set.
    pub late_refusal: bool,
    /// Whether the ROM starts in dfuIDLE instead of dfuERROR, like the ROM of an STM32F469 (modm's log).
    pub starts_idle: bool,
    /// Whether the ROM stalls every request while it is busy, like the ROM of an STM32L43x (dfu-util ticket 40).
    pub stalls_while_busy: bool,
    /// The additional delay before the ROM appears on the bus, as after a failed enumeration and a retry.
    pub late_rom: Duration,
    /// The time after which the firmware restarts, once the drone has been in DFU mode. The firmware restarts again and
    /// again, as after a failed assertion.
    pub crashes_after: Option<Duration>,
    /// The time after which the firmware fails an assertion, once the drone has been in DFU mode. The firmware restarts
    /// once, reports the assertion, and stays in its failed self-test.
    pub asserts_after: Option<Duration>,
    /// The problem that affects the firmware, if any.
    pub ailment: Ailment,
    /// The version of the radio chip's firmware.
    pub radio_chip: &'static str,
    /// The USB descriptors, if they are not those of an ordinary Crazyflie.
    pub face: Option<&'static UsbIdentity>,
    /// A simulated user who brings the drone into DFU mode by hand while a command is waiting for the drone.
    pub helper: Option<Helper>,
}

/// The situations in which the drone needs its [`Traits::helper`]. The helper takes [`Helper::after`] to bring the
/// drone into DFU mode. A drone that is starting does not need the helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Helper {
    /// While the drone is not on USB, or if its firmware has misunderstood the request to enter DFU mode.
    IfStuck,
    /// While the drone is not in DFU mode.
    IfNotInDfu,
    /// While the drone is not on USB. The helper takes longer than in the other situations.
    IfLost,
}

impl Helper {
    pub(crate) fn after(self) -> Duration {
        if self == Helper::IfLost { LOST_AFTER } else { HELP_AFTER }
    }
}

impl Default for Traits {
    /// Returns the properties of a healthy drone, with the serial number of a real drone from public documentation
    /// (cfcli).
    fn default() -> Traits {
        let uid = [0x51, 0x00, 0x4F, 0x00, 0x05, 0x51, 0x34, 0x30, 0x36, 0x33, 0x32, 0x33];
        Traits {
            uid,
            lacks_dfu_request: false,
            missed_entries: 0,
            answers_leave: true,
            fault: None,
            switch: Switch::Works,
            lost_name: None,
            refuses_alternates: false,
            late_refusal: false,
            starts_idle: false,
            stalls_while_busy: false,
            late_rom: Duration::ZERO,
            crashes_after: None,
            asserts_after: None,
            ailment: Ailment::None,
            radio_chip: "2024.10",
            face: None,
            helper: None,
        }
    }
}

/// A fault during a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimFault {
    Unplugged,
    /// Unplugged, as real host controllers report it: transfers fail until the hub detects the disconnection.
    Loose,
    /// The device stops responding and stays on the bus.
    Hung,
    /// A panic in cfdfu, to test that the interface keeps working.
    Panic,
}

/// The state of a simulated drone's LEDs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SimLeds {
    #[default]
    Dark,
    /// M2 is lit. The other LEDs of a drone that is running normally are not simulated.
    Lit,
    /// M2 blinks about once a second.
    Slow,
    /// M2 blinks about twice a second.
    Fast,
    /// M2 and M3 blink slowly.
    TwoSlow,
    /// M2 and M3 are lit, and nothing else happens: the firmware hangs while it starts.
    TwoLit,
    /// M1 blinks red five times, again and again: the self-test failed.
    Red,
}

/// The state of the STM32.
#[derive(Clone, Debug)]
enum SimMode {
    Off,
    /// The power is on, but nothing appears on USB.
    Halted,
    /// Plugged in, with the button held since this time. The STM32 has no power until the button is released.
    Held(Duration),
    /// The radio bootloader, which does not appear on USB.
    RadioBootloader,
    /// Starts the boot ROM or the firmware at this time.
    Starting(Start, Duration),
    /// The boot ROM in DFU mode.
    Rom(Rom),
    Firmware,
}

/// The program that starts after a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Rom,
    Firmware,
}

#[allow(clippy::struct_excessive_bools, reason = "independent states of a board")]
#[derive(Clone, Debug)]
pub struct SimDrone {
    /// Flash, option bytes and OTP.
    pub memory: Memory,
    pub traits: Traits,
    mode: SimMode,
    /// Whether DFU mode was entered by hand, so that the pins of the radio chip float until the power is cut.
    by_hand: bool,
    button: bool,
    /// The firmware's CRTP link over USB.
    link: Link,
    enumeration: u8,
    /// Whether the firmware has mistaken the request to enter DFU mode for a different request since the drone was last
    /// in DFU mode.
    misunderstood: bool,
    /// When the drone began to need a helper.
    stuck_since: Option<Duration>,
    /// The time at which a loose cable disconnects.
    loose_until: Option<Duration>,
    hung: bool,
    /// Whether the drone has been in the ROM at least once.
    was_in_rom: bool,
    /// The time at which the firmware restarts by itself.
    crash: Option<Duration>,
    /// Whether the next run of the firmware reports that the previous run failed an assertion. RAM keeps this flag
    /// across a reset.
    reports_assert: bool,
}

impl SimDrone {
    pub(crate) fn new(memory: Memory, traits: Traits) -> SimDrone {
        SimDrone {
            memory,
            traits,
            mode: SimMode::Off,
            by_hand: false,
            button: false,
            link: Link::default(),
            enumeration: 0,
            misunderstood: false,
            stuck_since: None,
            loose_until: None,
            hung: false,
            was_in_rom: false,
            crash: None,
            reports_assert: false,
        }
    }

    /// Plugs the drone in, or switches it on.
    pub fn power_on(&mut self, now: Duration) {
        self.by_hand = false;
        self.reset(now);
    }

    /// Plugs the drone in with the button held until the drone is in DFU mode, which takes no simulated time.
    pub fn power_on_by_hand(&mut self, now: Duration) {
        self.by_hand = true;
        self.mode = SimMode::Starting(Start::Rom, now);
        self.advance(now);
    }

    /// Makes the drone appear on the bus at once, in the boot ROM or in its firmware, regardless of the contents of the
    /// flash.
    pub(crate) fn appear(&mut self, in_rom: bool, now: Duration) {
        self.mode = SimMode::Starting(if in_rom { Start::Rom } else { Start::Firmware }, now);
        self.advance(now);
    }

    /// Makes the ROM continue from this status and state. Has no effect outside the ROM.
    pub(crate) fn adopt(&mut self, status: u8, state: u8) {
        if let SimMode::Rom(rom) = &mut self.mode {
            rom.adopt(status, state);
        }
    }

    /// Simulates a cable that works loose: transfers fail from now on, and the drone disconnects after `LOOSE`.
    pub fn work_loose(&mut self, now: Duration) {
        self.loose_until = Some(now + LOOSE);
    }

    /// Unplugs the drone, which has no battery. An erase or write in progress stays incomplete.
    pub fn cut_power(&mut self, now: Duration) {
        if let SimMode::Rom(rom) = &mut self.mode {
            rom.cut(&mut self.memory, now);
        }
        self.mode = SimMode::Off;
        (self.loose_until, self.hung, self.crash, self.reports_assert) = (None, false, None, false);
    }

    /// Replaces the drone with a different drone on the same port. The device address advances, so that the new drone
    /// is not mistaken for the previous one.
    pub fn swap_for(&mut self, other: SimDrone) {
        let enumeration = self.enumeration.wrapping_add(1).max(1);
        *self = SimDrone { enumeration, ..other };
    }

    /// Plugs the drone in or unplugs it. The button keeps its state.
    pub fn plug_or_unplug(&mut self, now: Duration) {
        if self.is_plugged_in() {
            self.cut_power(now);
        } else if self.button {
            self.mode = SimMode::Held(now);
        } else {
            self.power_on(now);
        }
    }

    /// Presses or releases the button. How long the button was held after power-on determines what starts:
    /// under 1.5 s the firmware, under 5 s the radio bootloader, otherwise the boot ROM (crazyflie2-nrf-mbs).
    pub fn press_or_release(&mut self, now: Duration) {
        self.button = !self.button;
        if let SimMode::Held(since) = self.mode {
            match now.saturating_sub(since) {
                held if held < SHORT_PRESS => self.power_on(now),
                held if held < LONG_PRESS => self.mode = SimMode::RadioBootloader,
                _ => {
                    self.by_hand = true;
                    self.mode = SimMode::Starting(Start::Rom, now + ENTER_ROM);
                }
            }
        }
    }

    pub fn is_plugged_in(&self) -> bool {
        !matches!(self.mode, SimMode::Off)
    }

    /// Returns the state of the LEDs (crazyflie2-nrf-mbs). M2 is lit while the power is on, but blinks if the button
    /// has been held for long enough, and in DFU mode that was entered by hand. M2 and M3 blink in the radio
    /// bootloader.
    pub fn leds(&self, now: Duration) -> SimLeds {
        match self.mode {
            SimMode::Off => SimLeds::Dark,
            SimMode::Held(since) => match now.saturating_sub(since) {
                held if held < SHORT_PRESS => SimLeds::Lit,
                held if held < LONG_PRESS => SimLeds::Slow,
                _ => SimLeds::Fast,
            },
            SimMode::RadioBootloader => SimLeds::TwoSlow,
            SimMode::Rom(_) | SimMode::Starting(Start::Rom, _) if self.by_hand => SimLeds::Fast,
            SimMode::Firmware if self.link.is_hanging() => SimLeds::TwoLit,
            SimMode::Firmware if self.link.has_failed() => SimLeds::Red,
            SimMode::Halted | SimMode::Starting(..) | SimMode::Rom(_) | SimMode::Firmware => SimLeds::Lit,
        }
    }

    /// Returns whether the button is held.
    pub fn is_button_held(&self) -> bool {
        self.button
    }

    /// Advances the state to `now`.
    pub(crate) fn advance(&mut self, now: Duration) {
        if self.loose_until.is_some_and(|until| now >= until) {
            self.cut_power(now);
        }
        if self.crash.is_some_and(|at| now >= at) {
            self.crash = None;
            self.reports_assert = self.traits.asserts_after.is_some();
            self.reset(now);
        }
        if self.needs_help() {
            let since = *self.stuck_since.get_or_insert(now);
            if now >= since + self.traits.helper.map_or(HELP_AFTER, Helper::after) {
                self.cut_power(now);
                self.by_hand = true;
                self.mode = SimMode::Starting(Start::Rom, now);
            }
        } else {
            self.stuck_since = None;
        }
        if let SimMode::Starting(start, at) = self.mode
            && now >= at
        {
            self.enumeration = self.enumeration.wrapping_add(1).max(1);
            self.hung = false;
            self.mode = match start {
                Start::Rom => {
                    self.was_in_rom = true;
                    self.misunderstood = false;
                    let mut rom = if self.traits.starts_idle { Rom::idle() } else { Rom::new() };
                    rom.switch = self.traits.switch;
                    rom.late_refusal = self.traits.late_refusal;
                    rom.stalls_while_busy = self.traits.stalls_while_busy;
                    SimMode::Rom(rom)
                }
                Start::Firmware => {
                    // Newer firmware may have been flashed in the meantime.
                    self.traits.lacks_dfu_request &=
                        self.memory.flash.bytes().windows(5).any(|text| text == b"2021.");
                    let asserts = self.traits.asserts_after.filter(|_| !self.reports_assert);
                    let after = self.traits.crashes_after.or(asserts).filter(|_| self.was_in_rom);
                    self.crash = after.map(|after| now + after);
                    let assert = std::mem::take(&mut self.reports_assert);
                    self.link = Link::starting(&self.boot_log(assert), at);
                    SimMode::Firmware
                }
            };
        }
        if matches!(self.mode, SimMode::Firmware) {
            self.link.advance(now);
            self.hung |= self.link.has_stopped(now);
        }
    }

    /// Collects the properties that determine what the firmware prints when it starts.
    fn boot_log(&self, reports_assert: bool) -> BootLog {
        let (version, board) = self.versions();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        BootLog {
            board: text(&board),
            version: text(&version),
            uid: self.traits.uid,
            ailment: self.traits.ailment,
            radio_chip: self.traits.radio_chip,
            assert: reports_assert.then_some("src/modules/src/stabilizer.c:245"),
        }
    }

    /// Returns the version of the firmware and the firmware's name for this board, read from flash.
    fn versions(&self) -> (Vec<u8>, Vec<u8>) {
        let flash = self.memory.flash.bytes();
        let version = images::text_after(flash, 0x0800_4000, b"Raw CRTP interface\0");
        let board = images::text_after(flash, 0x0800_4000, format!("{}\0", self.board()).as_bytes());
        (version, board)
    }

    fn needs_help(&self) -> bool {
        match (self.traits.helper, &self.mode) {
            (None, _) | (_, SimMode::Rom(_) | SimMode::Starting(..)) => false,
            (Some(Helper::IfStuck), SimMode::Firmware) => self.misunderstood,
            (Some(Helper::IfLost), SimMode::Firmware) => false,
            (Some(_), _) => true,
        }
    }

    /// Returns the number of the current enumeration, or `None` while the drone is not on the bus.
    pub fn enumeration(&self) -> Option<u8> {
        matches!(self.mode, SimMode::Rom(_) | SimMode::Firmware).then_some(self.enumeration)
    }

    /// Returns the vendor and product IDs and the release number, or `None` while the drone is not on the bus.
    pub fn identity(&self) -> Option<((u16, u16), u16)> {
        match self.mode {
            SimMode::Rom(_) | SimMode::Firmware => Some(self.face().identity()),
            SimMode::Off
            | SimMode::Halted
            | SimMode::Held(_)
            | SimMode::RadioBootloader
            | SimMode::Starting(..) => None,
        }
    }

    /// Performs a control transfer. Returns the answer, and the time that the transfer takes on the wire and in the
    /// chip.
    ///
    /// # Panics
    /// If [`SimFault::Panic`] is due.
    pub(crate) fn control(
        &mut self,
        setup: Setup,
        len: usize,
        data: &[u8],
        now: Duration,
    ) -> (RomAnswer, Duration) {
        if setup.request_type == 0x21 {
            match self.take_due_fault() {
                Some(SimFault::Unplugged) => {
                    self.cut_power(now);
                    return (RomAnswer::Silence, PER_TRANSFER);
                }
                Some(SimFault::Loose) => self.loose_until = Some(now + LOOSE),
                Some(SimFault::Hung) => self.hung = true,
                #[allow(clippy::panic, reason = "the fault is a panic")]
                Some(SimFault::Panic) => panic!("simulated defect"),
                None => {}
            }
        }
        if self.loose_until.is_some() {
            return (RomAnswer::Noise, PER_TRANSFER);
        }
        if self.hung {
            return (RomAnswer::Hang, Duration::ZERO);
        }
        let (answer, waited) = if setup.request_type & 0x60 == 0 {
            (self.standard_request(setup, len), Duration::ZERO)
        } else {
            match &mut self.mode {
                SimMode::Rom(rom) => {
                    let (answer, waited, effect) = rom.request(&mut self.memory, setup, len, data, now);
                    (self.apply_effect(answer, effect, now + waited), waited)
                }
                SimMode::Firmware => (self.firmware_request(setup, now), Duration::ZERO),
                SimMode::Off
                | SimMode::Halted
                | SimMode::Held(_)
                | SimMode::RadioBootloader
                | SimMode::Starting(..) => (RomAnswer::Silence, Duration::ZERO),
            }
        };
        let moved = match &answer {
            RomAnswer::Data(bytes) => bytes.len(),
            RomAnswer::Ack => data.len(),
            RomAnswer::Stall | RomAnswer::Silence | RomAnswer::Noise | RomAnswer::Hang => 0,
        };
        (answer, waited + transfer_time(moved))
    }

    /// Sends a packet to bulk endpoint 1 of the firmware. Returns how long the transfer takes, or `None` if the
    /// firmware does not accept the packet.
    pub fn packet_out(&mut self, data: &[u8]) -> Option<Duration> {
        if self.hung || !matches!(self.mode, SimMode::Firmware) {
            return None;
        }
        let (version, name) = self.versions();
        let face = DroneIdentity { version: &version, board: &name, number: self.traits.uid[0] };
        self.link.accept_packet(data, &face).then(|| transfer_time(data.len()))
    }

    /// Returns the value of the firmware's parameter for the LEDs, and how many times the host has set the parameter.
    pub fn led_parameter(&self) -> (u8, usize) {
        self.link.leds
    }

    /// Returns how many times the CRTP link was switched to USB and how many times back to the radio since the firmware
    /// started.
    pub fn link_switches(&self) -> (usize, usize) {
        self.link.turns
    }

    /// Returns whether the CRTP link has been switched to USB and back to the radio.
    pub fn link_was_returned(&self) -> bool {
        self.link.turns.0 > 0 && !self.link.is_on_usb()
    }

    /// Returns the number of packets that could have changed a setting or started a motor.
    pub fn unknown_packets(&self) -> usize {
        self.link.strange
    }

    /// Returns the next packet from bulk endpoint 1 and how long its transfer takes, or `None` if there is no packet.
    pub(crate) fn packet_in(&mut self) -> Option<(Vec<u8>, Duration)> {
        let packet = self.link.fetch().filter(|_| !self.hung)?;
        let takes = transfer_time(packet.len());
        Some((packet, takes))
    }

    fn take_due_fault(&mut self) -> Option<SimFault> {
        let (remaining, fault) = self.traits.fault?;
        self.traits.fault = remaining.checked_sub(1).map(|remaining| (remaining, fault));
        (remaining == 0).then_some(fault)
    }

    fn apply_effect(&mut self, answer: RomAnswer, effect: RomEffect, now: Duration) -> RomAnswer {
        match effect {
            RomEffect::None => answer,
            RomEffect::Leave(address) => {
                self.leave(address, now);
                if self.traits.answers_leave { answer } else { RomAnswer::Silence }
            }
            RomEffect::Reset => {
                self.reset(now);
                RomAnswer::Silence
            }
        }
    }

    /// Resets or powers up the STM32. Like `cf2loader`, the simulated bootloader checks the pins of the radio chip. If
    /// no program can run, nothing appears on USB.
    fn reset(&mut self, now: Duration) {
        let loader = self.memory.flash.read(0x0800_0000, 8).and_then(images::parse_vectors);
        let loader_runs = loader.is_some_and(|(stack, start)| stack == 0x2000_5000 && start < 0x0800_4000);
        // Firmware that was flashed over the bootloader starts regardless of the radio chip.
        let firmware_at_zero = images::can_run(self.memory.flash.bytes(), 0x0800_0000, &self.board());
        self.mode = if loader_runs && self.by_hand {
            SimMode::Starting(Start::Rom, now + ENTER_ROM)
        } else if loader_runs && images::can_run(self.memory.flash.bytes(), 0x0800_4000, &self.board())
            || firmware_at_zero
        {
            SimMode::Starting(Start::Firmware, now + BOOT)
        } else {
            SimMode::Halted
        };
    }

    /// Jumps through the vector table at `address`. ROM V3.x and V9.0 do not enable the CCM (AN2606 tables 74 and 76),
    /// so the Crazyflie's start-up code faults and nothing appears on USB until the power is cycled.
    fn leave(&mut self, address: u32, now: Duration) {
        let version = self.memory.rom_version;
        let lacks_ccm = version >> 4 == 3 || version == 0x90;
        if address == 0x0800_0000 {
            self.reset(now);
        } else if lacks_ccm && images::can_run(self.memory.flash.bytes(), address, &self.board()) {
            self.mode = SimMode::Halted;
        } else if images::can_run(self.memory.flash.bytes(), address, &self.board()) {
            self.mode = SimMode::Starting(Start::Firmware, now + BOOT);
        } else {
            // The flash contains no executable program at this address, so the chip resets.
            self.reset(now);
        }
    }

    /// Returns the board type in the OTP, for example `CF21` from `0;CF21;…`. A blank OTP means a Crazyflie 2.0.
    fn board(&self) -> String {
        let text: Vec<u8> = self.memory.otp.iter().copied().take_while(|&b| b != 0 && b != 0xFF).collect();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.split(';').nth(1).unwrap_or("CF20").to_owned()
    }

    /// Answers vendor and class requests like the firmware. Of the vendor requests to the device, ST's old USB stack
    /// forwards to the firmware only those whose number equals CLEAR_FEATURE and whose value is 1. wIndex contains the
    /// command.
    fn firmware_request(&mut self, setup: Setup, now: Duration) -> RomAnswer {
        match (setup.request_type, setup.request, setup.value, setup.index) {
            // Devices other than an ordinary Crazyflie do not support these requests.
            _ if self.traits.face.is_some() => RomAnswer::Stall,
            (0x40, 1, 1, 2) if self.traits.missed_entries > 0 => {
                self.traits.missed_entries -= 1;
                self.mode = SimMode::Starting(Start::Firmware, now + BOOT);
                RomAnswer::Silence
            }
            (0x40, 1, 1, 2) if !self.traits.lacks_dfu_request => {
                self.mode = SimMode::Starting(Start::Rom, now + ENTER_ROM + self.traits.late_rom);
                RomAnswer::Silence
            }
            (0x40, 1, 1, command) => {
                self.misunderstood |= command == 2;
                self.link.switch_to(command == 1);
                RomAnswer::Ack
            }
            // SET_LINE_CODING and similar requests of a serial port driver.
            (0x21, ..) => RomAnswer::Ack,
            (0xA1, 0x21, ..) => RomAnswer::Data(vec![0, 0xC2, 1, 0, 0, 0, 8]),
            _ => RomAnswer::Stall,
        }
    }

    /// Answers a standard request from the descriptors of the current mode.
    fn standard_request(&self, setup: Setup, len: usize) -> RomAnswer {
        if setup.request == 11 && setup.value > 0 && self.traits.refuses_alternates {
            return RomAnswer::Stall;
        }
        let [kind, index] = setup.value.to_be_bytes();
        let in_rom = matches!(self.mode, SimMode::Rom(_));
        if in_rom && setup.request == 6 && kind == 3 && self.traits.lost_name == Some(index) {
            return RomAnswer::Stall;
        }
        self.face().answer(setup, len, &self.serial(matches!(self.mode, SimMode::Rom(_))))
    }

    /// Returns the descriptors of the current mode.
    fn face(&self) -> &'static UsbIdentity {
        match (&self.mode, self.traits.face) {
            (SimMode::Rom(_), face) => face.filter(|face| face.is_rom()).unwrap_or(&descriptors::ROM),
            (_, face) => face.unwrap_or(&descriptors::FIRMWARE),
        }
    }

    /// Returns the serial number. The firmware reports the whole unique ID. The ROM shortens the ID (ST's
    /// `Get_SerialNum`). On a read-protected chip, the ROM reads all ones instead of the ID.
    fn serial(&self, in_rom: bool) -> String {
        let uid = self.traits.uid;
        if !in_rom {
            return uid.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().concat();
        }
        if self.memory.read_protected() {
            return "FFFFFFFEFFFF".to_owned();
        }
        let word = |n: usize| u32::from_le_bytes([uid[n], uid[n + 1], uid[n + 2], uid[n + 3]]);
        format!("{:08X}{:04X}", word(0).wrapping_add(word(8)), word(4) >> 16)
    }
}

/// Returns how long a transfer of this many bytes takes on the bus.
fn transfer_time(bytes: usize) -> Duration {
    PER_TRANSFER + PER_BYTE * u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Writes the board's description to the OTP, as the factory does.
pub(crate) fn write_otp(memory: &mut Memory, text: &str) {
    memory.otp[..text.len()].copy_from_slice(text.as_bytes());
    memory.otp[text.len()] = 0;
}

/// Creates a memory with these images in flash and this text in the OTP.
pub(crate) fn memory(flash: Nor, loader: &[u8], firmware: &[u8], board: &str) -> Memory {
    let mut memory = Memory::new(flash);
    memory.flash.place(0x0800_0000, loader);
    memory.flash.place(0x0800_4000, firmware);
    write_otp(&mut memory, board);
    memory
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::nor::Pace;

    #[test]
    fn the_serial_numbers_match_a_real_drone() {
        let drone = SimDrone::new(Memory::new(Nor::new(Pace::Typical)), Traits::default());
        assert_eq!(drone.serial(false), "51004F000551343036333233");
        assert_eq!(drone.serial(true), "338133873034");
    }

    #[test]
    fn a_healthy_drone_enters_and_leaves_dfu_mode() {
        let firmware = images::firmware("2025.02", &[("CF21", "Crazyflie 2.1")], 20_000);
        let memory = memory(Nor::new(Pace::Typical), &images::loader(), &firmware, "0;CF21;R=B1");
        let mut drone = SimDrone::new(memory, Traits::default());
        let at = |ms| Duration::from_millis(ms);
        drone.power_on(at(0));
        drone.advance(at(1300));
        assert_eq!(drone.identity().map(|(id, _)| id.1), Some(0x5740));
        let setup = Setup { request_type: 0x40, request: 1, value: 1, index: 2 };
        assert_eq!(drone.control(setup, 0, &[], at(1400)).0, RomAnswer::Silence);
        assert_eq!(drone.identity(), None);
        drone.advance(at(2300));
        assert_eq!(drone.identity().map(|(id, _)| id.1), Some(0xDF11));
        drone.leave(0x0800_4000, at(2400));
        drone.advance(at(4000));
        assert_eq!(drone.identity().map(|(id, _)| id.1), Some(0x5740));
    }

    /// The helper must not put a drone that has just been flashed back into DFU mode.
    #[test]
    fn a_helper_brings_a_drone_with_old_firmware_into_dfu_mode_only_once() {
        let firmware = images::firmware("2021.06", &[("CF21", "Crazyflie 2.1")], 20_000);
        let memory = memory(Nor::new(Pace::Typical), &images::loader(), &firmware, "0;CF21;R=B1");
        let traits = Traits { lacks_dfu_request: true, helper: Some(Helper::IfStuck), ..Traits::default() };
        let mut drone = SimDrone::new(memory, traits);
        let at = Duration::from_secs;
        drone.power_on(at(0));
        drone.advance(at(2));
        let setup = Setup { request_type: 0x40, request: 1, value: 1, index: 2 };
        assert_eq!(drone.control(setup, 0, &[], at(3)).0, RomAnswer::Ack);
        let advance = |drone: &mut SimDrone, seconds: std::ops::Range<u64>| {
            seconds.for_each(|second| drone.advance(at(second)));
            drone.identity().map(|(id, _)| id.1)
        };
        assert_eq!(advance(&mut drone, 3..30), Some(0xDF11));
        drone.leave(0x0800_4000, at(30));
        assert_eq!(advance(&mut drone, 30..60), Some(0x5740));
    }

    #[test]
    fn how_long_the_button_is_held_decides_what_starts() {
        let firmware = images::firmware("2025.02", &[("CF21", "Crazyflie 2.1")], 20_000);
        let memory = memory(Nor::new(Pace::Typical), &images::loader(), &firmware, "0;CF21;R=B1");
        let product = |held: u64| {
            let mut drone = SimDrone::new(memory.clone(), Traits::default());
            drone.press_or_release(Duration::from_secs(1));
            drone.plug_or_unplug(Duration::from_secs(2));
            assert_eq!(drone.identity(), None);
            drone.press_or_release(Duration::from_secs(2) + Duration::from_millis(held));
            drone.advance(Duration::from_secs(30));
            drone.identity().map(|(id, _)| id.1)
        };
        assert_eq!(product(1000), Some(0x5740));
        assert_eq!(product(3000), None);
        assert_eq!(product(5100), Some(0xDF11));
    }

    #[test]
    fn incomplete_firmware_and_firmware_for_another_board_do_not_start() {
        let firmware = images::firmware("2025.02", &[("CF21", "Crazyflie 2.1")], 20_000);
        let starts = |firmware: &[u8], board: &str| {
            let memory = memory(Nor::new(Pace::Typical), &images::loader(), firmware, board);
            let mut drone = SimDrone::new(memory, Traits::default());
            drone.power_on(Duration::ZERO);
            drone.advance(Duration::from_secs(5));
            drone.identity().is_some()
        };
        assert!(starts(&firmware, "0;CF21;R=B1"));
        assert!(!starts(&firmware, "0;CB10;R=A"));
        assert!(!starts(&firmware[..10_000], "0;CF21;R=B1"));
    }
}
