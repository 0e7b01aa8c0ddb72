//! The firmware's CRTP link over bulk endpoint 1, and what the firmware prints. The link is silent until a vendor
//! request switches it to USB: the firmware keeps its packets, except the first, which the radio takes
//! (crazyflie-firmware: `crtp.c`, `console.c`, `radiolink.c`). After the switch, the console's text arrives, and the
//! platform service, the memories and the parameters reply.

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
/// ENOENT.
const NOT_FOUND: u8 = 2;

/// How many packets the firmware keeps for a link (`crtp.c`).
const QUEUE: usize = 200;
/// What the firmware prints instead of text for which the queue has no room (`console.c`). The NUL is sent, too.
const FULL: &[u8] = b"<F>\n\0";
/// When the firmware begins its self-test, counted from its start.
const TESTS: Duration = Duration::from_millis(800);
/// When the firmware has the verdict of its self-test, counted from its start. The sensors alone take a second to start
/// (`sensors_bmi088_bmp3xx.c`), and the tests of EEPROM, gyroscope and motors take time.
const VERDICT: Duration = Duration::from_millis(1700);
/// How long after its start firmware with a slow EEPROM switches the link to the radio (`comm.c`). Other firmware does
/// so before the host has seen the drone.
const LATE_COMM: Duration = Duration::from_millis(400);
/// The number of the parameter `system.selftestPassed`.
const SELF_TEST: u16 = 212;
/// How many parameters the firmware has: about as many as in 2025.02.
const PARAMETERS: u16 = 260;

/// What is wrong with a drone, as seen by its own firmware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ailment {
    #[default]
    None,
    DeckFails,
    SensorFails,
    EepromFails,
    /// The firmware hangs at its EEPROM, with both blue LEDs lit: after the first lines, and before it starts the tasks
    /// that read packets. The drone is on USB, because USB starts first.
    HangsAtStart,
    /// The firmware hangs in the driver of a deck: it answers but never tests itself.
    HangsInDeck,
    /// The firmware stops at an assertion during its start, with its interrupts off. The watchdog is not running yet.
    StopsAtStart,
    /// The firmware starts its communication so late that it takes the link back from USB.
    SlowEeprom,
    /// A deck delays the end of the self-test until five seconds after the start.
    SlowDeck,
    RadioChipSilent,
    /// Another client has read the console.
    ConsoleRead,
    /// The console prints much more than the queue can hold.
    ConsoleFloods,
}

/// How a run of the firmware begins.
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
    /// The lines that the firmware prints, each with its time since the start, in the order of `system.c`.
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
            (0..400).for_each(|n| print(start, &format!("APP: a value without a purpose: {n}")));
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
        if self.passes() {
            print(end, "SYS: Self test passed!");
            print(end, "SYS: Free heap: 17552 bytes");
        }
        lines
    }

    /// How long after its start the firmware has the verdict.
    fn verdict_at(&self) -> Duration {
        if self.ailment == Ailment::SlowDeck { Duration::from_secs(5) } else { VERDICT }
    }

    /// Whether the firmware finishes starting.
    fn finishes_starting(&self) -> bool {
        !matches!(self.ailment, Ailment::HangsAtStart | Ailment::HangsInDeck | Ailment::StopsAtStart)
    }

    fn passes(&self) -> bool {
        let fails = [Ailment::DeckFails, Ailment::SensorFails, Ailment::EepromFails];
        self.finishes_starting() && self.assert.is_none() && !fails.contains(&self.ailment)
    }
}

/// The EEPROM's first block: mark, version, channel, speed, two trims, radio address, checksum (configblockeeprom.c).
fn config_block(number: u8) -> Vec<u8> {
    let mut block = b"0xBC\x01\x50\x02".to_vec();
    block.extend([0; 8]);
    block.extend([0xE7, number, 0xE7, 0xE7, 0xE7]);
    let sum = block.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    block.push(sum.to_le_bytes()[0]);
    block
}

/// Whether the link is switched to USB, what the firmware has yet to print, and the packets that wait for a link.
#[allow(clippy::struct_excessive_bools, reason = "independent states of the firmware")]
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    usb: bool,
    /// The lines yet to be printed, in reverse order.
    log: Vec<(Duration, String)>,
    started: Duration,
    /// Whether the self-test passes, and how long after the start; `None` if the firmware never finishes starting.
    verdict: Option<(bool, Duration)>,
    /// The verdict is known.
    tested: bool,
    ailment: Ailment,
    /// The console packet that is being filled.
    console: Vec<u8>,
    /// That packet is finished and waits for room in the queue.
    is_pending: bool,
    waiting: VecDeque<Vec<u8>>,
    /// The radio's own queue has taken a packet, which it keeps until a radio client asks for it.
    radio_is_full: bool,
    /// The value of the parameter `led.bitmask`, and how many times it was set.
    pub(crate) leds: (u8, usize),
    /// How many times the link was switched to USB and back to the radio.
    pub(crate) turns: (usize, usize),
    /// How many packets did not match any known query.
    pub(crate) strange: usize,
}

/// The properties of the drone that the answers contain.
pub(crate) struct Face<'a> {
    pub(crate) version: &'a [u8],
    pub(crate) board: &'a [u8],
    /// The last byte of the radio address.
    pub(crate) number: u8,
}

impl Link {
    /// The link of firmware that starts at `now`.
    pub(crate) fn starting(boot: &BootLog, now: Duration) -> Link {
        let log = boot.lines().into_iter().rev().collect();
        let verdict = boot.finishes_starting().then(|| (boot.passes(), boot.verdict_at()));
        Link { log, started: now, verdict, ailment: boot.ailment, ..Link::default() }
    }

    /// Whether the self-test has failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.tested && self.verdict.is_some_and(|(passes, _)| !passes)
    }

    pub(crate) fn is_on_usb(&self) -> bool {
        self.usb
    }

    /// Whether the firmware hangs while it starts.
    pub(crate) fn is_hanging(&self) -> bool {
        self.verdict.is_none() && self.ailment != Ailment::StopsAtStart
    }

    /// Whether the firmware has stopped at an assertion, with its interrupts off.
    pub(crate) fn has_stopped(&self, now: Duration) -> bool {
        self.ailment == Ailment::StopsAtStart && now.saturating_sub(self.started) >= LATE_COMM
    }

    /// Prints what is due by `now`.
    pub(crate) fn settle(&mut self, now: Duration) {
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

    /// Prints a line. Packets end with the line or when they are full.
    fn print(&mut self, line: &str) {
        for byte in line.bytes().chain([b'\n']) {
            self.offer();
            // Text is lost while a packet waits for room.
            if self.is_pending {
                continue;
            }
            self.console.push(byte);
            if byte == b'\n' || self.console.len() == DATA_MAX {
                if self.waiting.len() + 1 == QUEUE {
                    let end = self.console.len() - usize::from(byte == b'\n');
                    self.console.truncate(end.min(DATA_MAX - FULL.len()));
                    self.console.extend(FULL);
                }
                self.is_pending = true;
                self.offer();
            }
        }
    }

    /// Moves the finished console packet to the queue, if there is room.
    fn offer(&mut self) {
        if self.is_pending && self.waiting.len() < QUEUE {
            self.is_pending = false;
            let text = std::mem::take(&mut self.console);
            self.send(CONSOLE, &text);
        }
    }

    /// Switches the link to USB or back to the radio.
    pub(crate) fn turn(&mut self, to_usb: bool) {
        self.usb = to_usb;
        if to_usb { self.turns.0 += 1 } else { self.turns.1 += 1 }
    }

    /// Accepts a packet from the host. Returns `false` if the link is not switched to USB.
    pub(crate) fn packet(&mut self, packet: &[u8], face: &Face<'_>) -> bool {
        let Face { version, board, number } = *face;
        match packet {
            _ if !self.usb => return false,
            // The interrupt handler takes the packet, and no task reads it.
            _ if matches!(self.ailment, Ailment::HangsAtStart | Ailment::SlowEeprom) => {}
            [PLATFORM_VERSION, 0] => self.send(PLATFORM_VERSION, &[0, 10]),
            [PLATFORM_VERSION, 1] => self.send(PLATFORM_VERSION, &[&[1], version].concat()),
            [PLATFORM_VERSION, 2] => self.send(PLATFORM_VERSION, &[&[2], board].concat()),
            // Two memories: the deck's, which registers first, and the EEPROM (mem.c).
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
            [PARAMETER_TABLE, 2, low, high] => self.name_parameter(u16::from_le_bytes([*low, *high])),
            [PARAMETER_READ, low, high] => {
                let value = match u16::from_le_bytes([*low, *high]) {
                    SELF_TEST => vec![0, u8::from(self.tested && !self.has_failed())],
                    number if number < PARAMETERS => vec![0, 0],
                    _ => vec![NOT_FOUND],
                };
                self.send(PARAMETER_READ, &[&[*low, *high][..], &value].concat());
            }
            // Anything else could change a setting or start a motor.
            _ => self.strange += 1,
        }
        true
    }

    /// Sends an entry of the parameter table. The names fit in the packet (param_logic.c).
    fn name_parameter(&mut self, number: u16) {
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

    /// Sets a parameter by its name (param_logic.c). The simulated firmware supports only `led.bitmask`.
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

    /// Removes the next packet for the host. While the link is switched to the radio, the host gets none.
    pub(crate) fn fetch(&mut self) -> Option<Vec<u8>> {
        if self.usb { self.waiting.pop_front() } else { None }
    }

    fn send(&mut self, header: u8, data: &[u8]) {
        let mut packet = vec![header];
        packet.extend(&data[..data.len().min(DATA_MAX)]);
        self.waiting.push_back(packet);
    }
}
