//! Simulates the firmware's CRTP link over bulk endpoint 1, and the text that the firmware prints. The endpoint is
//! silent until a vendor request switches the link to USB. Until then, the firmware keeps its packets, except the first
//! one, which the radio accepts (crazyflie-firmware: `crtp.c`, `console.c`, `radiolink.c`). After the switch, the
//! firmware sends the console text and answers requests to the platform service, the memories and the parameters.

use std::collections::VecDeque;
use std::time::Duration;

/// The maximum length of the data of a CRTP packet, which follows the header.
const DATA_MAX: usize = 30;
/// The header of port 13, channel 1, with the two bits that are always set.
const PLATFORM_VERSION: u8 = 0xDD;
/// The header of port 0, channel 0.
const CONSOLE: u8 = 0x0C;

/// The headers of port 4, channels 0 and 1, and of port 2, channel 3.
const MEMORY_INFO: u8 = 0x4C;
const MEMORY_READ: u8 = 0x4D;
const PARAMETER: u8 = 0x2F;
/// The headers of port 2, channels 0 and 1.
const PARAMETER_TABLE: u8 = 0x2C;
const PARAMETER_READ: u8 = 0x2D;
/// The error number ENOENT.
const NOT_FOUND: u8 = 2;

/// The maximum number of packets that the firmware keeps for a link (`crtp.c`).
const QUEUE: usize = 200;
/// The marker that the firmware prints in place of text that does not fit in the queue (`console.c`). The firmware also
/// sends the NUL.
const QUEUE_FULL: &[u8] = b"<F>\n\0";
/// The time from the firmware's start to the beginning of its self-test.
const TESTS: Duration = Duration::from_millis(800);
/// The time from the firmware's start to the verdict of its self-test. The sensors alone take a second to start
/// (`sensors_bmi088_bmp3xx.c`), and the tests of the EEPROM, the gyroscope and the motors also take time.
const VERDICT: Duration = Duration::from_millis(1700);
/// The time from the start of firmware with a slow EEPROM until the firmware switches the link to the radio (`comm.c`).
/// Other firmware switches the link before the host detects the drone.
const LATE_COMM: Duration = Duration::from_millis(400);
/// The number of the parameter `system.selftestPassed`.
const SELF_TEST: u16 = 212;
/// The number of parameters: about as many as in firmware 2025.02.
const PARAMETERS: u16 = 260;

/// A problem that affects the firmware of a drone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ailment {
    #[default]
    None,
    DeckFails,
    SensorFails,
    EepromFails,
    /// The firmware hangs when it accesses the EEPROM, with both blue LEDs lit. At that point, it has printed its first
    /// lines but has not started the tasks that read packets. The drone is on USB, because USB starts first.
    HangsAtStart,
    /// The firmware hangs in a deck driver: it answers requests but never runs its self-test.
    HangsInDeck,
    /// The firmware stops at an assertion during its start, with its interrupts off. The watchdog is not running yet.
    StopsAtStart,
    /// The firmware starts its communication so late that it takes the link back from USB.
    SlowEeprom,
    /// A deck delays the end of the self-test until five seconds after the start.
    SlowDeck,
    RadioChipSilent,
    /// Another client has already read the console.
    ConsoleRead,
    /// The console prints much more than the queue can hold.
    ConsoleFloods,
}

/// The properties that determine what the firmware prints when it starts.
#[derive(Clone, Debug)]
pub(crate) struct BootLog {
    pub(crate) board: String,
    pub(crate) version: String,
    pub(crate) uid: [u8; 12],
    pub(crate) ailment: Ailment,
    /// The version of the radio chip's firmware.
    pub(crate) radio_chip: &'static str,
    /// The place of the failed assertion that ended the last run.
    pub(crate) assert: Option<&'static str>,
}

impl BootLog {
    /// Returns the lines that the firmware prints, each with its time since the start, in the order of `system.c`.
    fn lines(&self) -> Vec<(Duration, String)> {
        let mut lines = Vec::new();
        if self.ailment == Ailment::ConsoleRead {
            return lines;
        }
        let mut print = |at: Duration, text: &str| lines.push((at, text.to_owned()));
        let start = Duration::ZERO;
        let word = |at: usize| {
            u32::from_le_bytes([self.uid[at], self.uid[at + 1], self.uid[at + 2], self.uid[at + 3]])
        };
        print(start, "SYS: ----------------------------");
        print(start, &format!("SYS: {} is up and running!", self.board));
        print(start, &format!("SYS: Production release {}", self.version));
        let uid = format!("0x{:08X}{:08X}{:08X}", word(8), word(4), word(0));
        print(start, &format!("SYS: I am {uid} and I have 1024KB of flash!"));
        if self.ailment == Ailment::HangsAtStart {
            return lines;
        }
        print(start, "CFGBLK: v1, verification [OK]");
        print(start, "DECK_CORE: 1 deck(s) found");
        print(start, "DECK_CORE: Calling INIT on driver bcFlow2 for deck 0");
        if matches!(self.ailment, Ailment::HangsInDeck | Ailment::StopsAtStart) {
            return lines;
        }
        if self.ailment == Ailment::ConsoleFloods {
            (0..400).for_each(|n| print(start, &format!("APP: the latest sensor reading: {n}")));
        }
        let gyro = if self.ailment == Ailment::SensorFails { "[FAIL]" } else { "[OK]." };
        print(TESTS, &format!("IMU: BMI088 Gyro connection {gyro}"));
        print(TESTS, "IMU: BMI088 Accel connection [OK]");
        print(TESTS, "IMU: BMP388 I2C connection [OK]");
        print(TESTS, "ESTIMATOR: Using Kalman (2) estimator");
        print(TESTS, "CONTROLLER: Using PID (1) controller");
        print(TESTS, "MTR-DRV: Using brushed motor driver");
        print(TESTS, "SYS: About to run tests in system.c.");
        if self.ailment != Ailment::RadioChipSilent {
            print(TESTS, &format!("SYS: NRF51 version: {}", self.radio_chip));
        }
        let eeprom = if self.ailment == Ailment::EepromFails { "[FAIL]." } else { "[OK]." };
        print(TESTS, &format!("EEPROM: I2C connection {eeprom}"));
        let end = self.verdict_at();
        match self.ailment {
            Ailment::EepromFails => print(TESTS, "SYS: storage [FAIL]"),
            Ailment::SensorFails => print(end, "SYS: stabilizer [FAIL]"),
            Ailment::DeckFails => {
                print(end, "DECK_CORE: Deck 0 test [FAIL].");
                print(end, "SYS: deck [FAIL]");
            }
            _ => print(end, "DECK_CORE: Deck 0 test [OK]."),
        }
        if let Some(place) = self.assert {
            print(end, "SYS: The system resumed after watchdog timeout [WARNING]");
            print(end, &format!("SYS: Assert failed at {place}"));
            print(end, "SYS: watchdogNormalStart [FAIL]");
            print(end, "SYS: cfAssertNormalStart [FAIL]");
        }
        if self.passes_self_test() {
            print(end, "SYS: Self test passed!");
            print(end, "SYS: Free heap: 17552 bytes");
        }
        lines
    }

    /// Returns the time from the firmware's start to the verdict of its self-test.
    fn verdict_at(&self) -> Duration {
        if self.ailment == Ailment::SlowDeck { Duration::from_secs(5) } else { VERDICT }
    }

    /// Returns whether the firmware finishes starting.
    fn finishes_starting(&self) -> bool {
        !matches!(self.ailment, Ailment::HangsAtStart | Ailment::HangsInDeck | Ailment::StopsAtStart)
    }

    fn passes_self_test(&self) -> bool {
        let fails = [Ailment::DeckFails, Ailment::SensorFails, Ailment::EepromFails];
        self.finishes_starting() && self.assert.is_none() && !fails.contains(&self.ailment)
    }
}

/// Returns the EEPROM's first block: magic number, version, channel, speed, two trims, radio address, checksum
/// (`configblockeeprom.c`).
fn config_block(number: u8) -> Vec<u8> {
    let mut block = b"0xBC\x01\x50\x02".to_vec();
    block.extend([0; 8]);
    block.extend([0xE7, number, 0xE7, 0xE7, 0xE7]);
    let sum = block.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    block.push(sum.to_le_bytes()[0]);
    block
}

/// The firmware's CRTP link: whether it is switched to USB, the lines yet to be printed, and the packets waiting for the
/// host.
#[allow(clippy::struct_excessive_bools, reason = "independent states of the firmware")]
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    usb: bool,
    /// The lines yet to be printed, in reverse order.
    log: Vec<(Duration, String)>,
    started: Duration,
    /// Whether the self-test passes, and the time from the start to this verdict; `None` if the firmware never finishes
    /// starting.
    verdict: Option<(bool, Duration)>,
    /// The verdict is known.
    tested: bool,
    ailment: Ailment,
    /// The console packet that is being filled.
    console: Vec<u8>,
    /// The console packet is complete and is waiting for room in the queue.
    is_pending: bool,
    waiting: VecDeque<Vec<u8>>,
    /// The radio's own queue has accepted a packet and keeps the packet until a radio client asks for it.
    radio_is_full: bool,
    /// The value of the parameter `led.bitmask`, and how many times the parameter was set.
    pub(crate) leds: (u8, usize),
    /// How many times the link was switched to USB and back to the radio.
    pub(crate) turns: (usize, usize),
    /// The number of packets that did not match any known query.
    pub(crate) strange: usize,
}

/// The properties of the drone that the answers contain.
pub(crate) struct DroneIdentity<'a> {
    pub(crate) version: &'a [u8],
    pub(crate) board: &'a [u8],
    /// The last byte of the radio address.
    pub(crate) number: u8,
}

impl Link {
    /// Creates the link of firmware that starts at `now`.
    pub(crate) fn starting(boot: &BootLog, now: Duration) -> Link {
        let log = boot.lines().into_iter().rev().collect();
        let verdict = boot.finishes_starting().then(|| (boot.passes_self_test(), boot.verdict_at()));
        Link { log, started: now, verdict, ailment: boot.ailment, ..Link::default() }
    }

    /// Returns whether the self-test has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.tested && self.verdict.is_some_and(|(passes, _)| !passes)
    }

    pub(crate) fn is_on_usb(&self) -> bool {
        self.usb
    }

    /// Returns whether the firmware has hung while starting.
    pub(crate) fn is_hanging(&self) -> bool {
        self.verdict.is_none() && self.ailment != Ailment::StopsAtStart
    }

    /// Returns whether the firmware has stopped at an assertion, with its interrupts off.
    pub(crate) fn has_stopped(&self, now: Duration) -> bool {
        self.ailment == Ailment::StopsAtStart && now.saturating_sub(self.started) >= LATE_COMM
    }

    /// Advances the state to `now` and prints the lines that are due.
    pub(crate) fn advance(&mut self, now: Duration) {
        let running = now.saturating_sub(self.started);
        self.tested |= self.verdict.is_some_and(|(_, at)| running >= at);
        if self.ailment == Ailment::SlowEeprom && running >= LATE_COMM {
            // The firmware takes the link back only once.
            self.ailment = Ailment::None;
            self.usb = false;
        }
        while self.log.last().is_some_and(|(at, _)| running >= *at) {
            let Some((_, line)) = self.log.pop() else { break };
            self.print(&line);
        }
        if !self.usb && !self.radio_is_full && self.waiting.pop_front().is_some() {
            self.radio_is_full = true;
        }
    }

    /// Prints a line. A packet ends when the line ends or when the packet is full.
    fn print(&mut self, line: &str) {
        for byte in line.bytes().chain([b'\n']) {
            self.queue_console_packet();
            // Text is lost while a packet is waiting for room.
            if self.is_pending {
                continue;
            }
            self.console.push(byte);
            if byte == b'\n' || self.console.len() == DATA_MAX {
                if self.waiting.len() + 1 == QUEUE {
                    let end = self.console.len() - usize::from(byte == b'\n');
                    self.console.truncate(end.min(DATA_MAX - QUEUE_FULL.len()));
                    self.console.extend(QUEUE_FULL);
                }
                self.is_pending = true;
                self.queue_console_packet();
            }
        }
    }

    /// Moves the complete console packet to the queue, if the queue has room.
    fn queue_console_packet(&mut self) {
        if self.is_pending && self.waiting.len() < QUEUE {
            self.is_pending = false;
            let text = std::mem::take(&mut self.console);
            self.send(CONSOLE, &text);
        }
    }

    /// Switches the link to USB or back to the radio.
    pub(crate) fn switch_to(&mut self, to_usb: bool) {
        self.usb = to_usb;
        if to_usb { self.turns.0 += 1 } else { self.turns.1 += 1 }
    }

    /// Accepts a packet from the host. Returns `false` if the link is not switched to USB.
    pub(crate) fn accept_packet(&mut self, packet: &[u8], face: &DroneIdentity<'_>) -> bool {
        let DroneIdentity { version, board, number } = *face;
        match packet {
            _ if !self.usb => return false,
            // The interrupt handler accepts the packet, but no task reads it.
            _ if matches!(self.ailment, Ailment::HangsAtStart | Ailment::SlowEeprom) => {}
            [PLATFORM_VERSION, 0] => self.send(PLATFORM_VERSION, &[0, 10]),
            [PLATFORM_VERSION, 1] => self.send(PLATFORM_VERSION, &[&[1], version].concat()),
            [PLATFORM_VERSION, 2] => self.send(PLATFORM_VERSION, &[&[2], board].concat()),
            // The drone has two memories: the deck's, which is registered first, and the EEPROM (`mem.c`).
            [MEMORY_INFO, 1] => self.send(MEMORY_INFO, &[1, 2]),
            [MEMORY_INFO, 2, which @ 0..=1] => {
                let kind = 1 - which;
                self.send(MEMORY_INFO, &[2, *which, kind, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            }
            [MEMORY_INFO, 2, which] => self.send(MEMORY_INFO, &[2, *which]),
            [MEMORY_READ, 1, 0, 0, 0, 0, len] => {
                let block = config_block(number);
                let part = block.get(..usize::from(*len)).unwrap_or_default();
                self.send(MEMORY_READ, &[&[1, 0, 0, 0, 0, 0], part].concat());
            }
            [PARAMETER, 0, rest @ ..] => self.set_by_name(rest),
            [PARAMETER_TABLE, 3] => {
                let [low, high] = PARAMETERS.to_le_bytes();
                self.send(PARAMETER_TABLE, &[3, low, high, 1, 2, 3, 4]);
            }
            [PARAMETER_TABLE, 2, low, high] => self.send_table_entry(u16::from_le_bytes([*low, *high])),
            [PARAMETER_READ, low, high] => {
                let value = match u16::from_le_bytes([*low, *high]) {
                    SELF_TEST => vec![0, u8::from(self.tested && !self.has_failed())],
                    number if number < PARAMETERS => vec![0, 0],
                    _ => vec![NOT_FOUND],
                };
                self.send(PARAMETER_READ, &[&[*low, *high][..], &value].concat());
            }
            // Any other packet could change a setting or start a motor, so count it.
            _ => self.strange += 1,
        }
        true
    }

    /// Sends an entry of the parameter table. The names fit in one packet (`param_logic.c`).
    fn send_table_entry(&mut self, number: u16) {
        const INT8: u8 = 0;
        const READ_ONLY: u8 = 0x40;
        let name = match number {
            SELF_TEST => "system\0selftestPassed\0".to_owned(),
            number if number < PARAMETERS => format!("group{}\0value{number}\0", number / 10),
            _ => return self.send(PARAMETER_TABLE, &[2]),
        };
        let [low, high] = number.to_le_bytes();
        let kind = if number == SELF_TEST { READ_ONLY | INT8 } else { INT8 };
        let name = name.as_bytes().get(..26).unwrap_or(name.as_bytes());
        self.send(PARAMETER_TABLE, &[&[2, low, high, kind], name].concat());
    }

    /// Sets a parameter by its name (`param_logic.c`). The simulated firmware supports only `led.bitmask`.
    fn set_by_name(&mut self, request: &[u8]) {
        let end = request.iter().enumerate().filter(|(_, byte)| **byte == 0).nth(1).map(|(at, _)| at + 1);
        let (names, value) = request.split_at(end.unwrap_or(request.len()));
        let result = match (names, value) {
            (b"led\0bitmask\0", [8, mask]) => {
                self.leds = (*mask, self.leds.1 + 1);
                0
            }
            _ => NOT_FOUND,
        };
        self.send(PARAMETER, &[&[0], names, &[result]].concat());
    }

    /// Removes and returns the next packet for the host. Returns `None` while the link is switched to the radio.
    pub(crate) fn fetch(&mut self) -> Option<Vec<u8>> {
        if self.usb { self.waiting.pop_front() } else { None }
    }

    fn send(&mut self, header: u8, data: &[u8]) {
        let mut packet = vec![header];
        packet.extend(&data[..data.len().min(DATA_MAX)]);
        self.waiting.push_back(packet);
    }
}
