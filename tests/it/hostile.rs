//! Tests cfdfu with devices that answer at random and files with random content: nothing panics, every job ends in
//! bounded time, and no flash falsely reports success. `benches/fuzz.rs` runs each of several parsers on ten million
//! random or damaged inputs.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cfdfu::clock::{Clock, FastClock};
use cfdfu::flash::map::MemoryMap;
use cfdfu::flash::{FLASH_END, LOADER_BASE, Span};
use cfdfu::image::Image;
use cfdfu::job::{FailureKind, Job, Outcome, Selector, Task};
use cfdfu::report;
use cfdfu::scan;
use cfdfu::usb::{
    Bus, BusError, CRAZYFLIE, Found, Id, Location, Pipe, ROM_DFU, Setup, TransferError, Transport, descriptor,
};
use proptest::prelude::*;
use zip::CompressionMethod;

use crate::files;
use crate::rng::Rng;
use crate::support::{SEED_LEN, firmware, flash_job, run};

/// A device with random answers. Some answers are realistic, so that the host gets further into a job.
#[derive(Clone)]
struct FakeDevice {
    rng: Arc<Mutex<Rng>>,
    clock: Arc<FastClock>,
    id: Id,
    /// The percentage of answers that are realistic.
    realistic: usize,
}

const DEVICE: &[u8] = &[18, 1, 0, 1, 0, 0, 0, 64, 0x83, 4, 0x11, 0xDF, 0, 0x22, 1, 2, 3, 1];
const CONFIGURATION: &[u8] =
    &[9, 2, 27, 0, 1, 1, 0, 0xC0, 50, 9, 4, 0, 0, 0, 0xFE, 1, 2, 4, 9, 0x21, 0x0B, 0xFF, 0, 0, 8, 0x1A, 1];
const STRINGS: [&str; 6] = [
    "Bitcraze AB",
    "STM32  BOOTLOADER",
    "@Internal Flash  /0x08000000/04*016Kg,01*064Kg,07*128Kg",
    "@Internal Flash  /0x08000000/999*999Mg,999*999Mg/0xFFFFFFFF/1*1Kg",
    "@\u{1b}[2J\u{202E}/0x/…",
    "Crazyflie 2.x",
];

impl FakeDevice {
    /// Returns a realistic answer, random bytes or an error.
    fn answer(&self, setup: Setup, len: usize) -> Result<Vec<u8>, TransferError> {
        let mut rng = self.rng.lock().unwrap();
        let mut random_bytes = || {
            let len = [0, 1, 2, 6, len / 2, len][rng.below(6)].min(len);
            (0..len).map(|_| rng.roll() as u8).collect::<Vec<u8>>()
        };
        let random = random_bytes();
        if rng.below(100) >= self.realistic {
            return match rng.below(6) {
                0 => Err(TransferError::Stall),
                1 => Err(TransferError::Timeout),
                2 if rng.below(20) == 0 => Err(TransferError::Disconnected),
                _ => Ok(random),
            };
        }
        let text = STRINGS[rng.below(STRINGS.len())];
        let states = [2, 4, 5, 9, 10, 3];
        let state = states[rng.below(states.len())];
        let mut bytes = match (setup.request_type, setup.request, setup.value >> 8) {
            (0x80, 6, 1) => DEVICE.to_vec(),
            (0x80, 6, 2) => CONFIGURATION.to_vec(),
            (0x80, 6, 3) => {
                let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
                [&[units.len() as u8 + 2, 3][..], &units].concat()
            }
            (0xA1, 3, _) => vec![0, 1, 0, 0, state, 0],
            _ => random,
        };
        bytes.truncate(len);
        Ok(bytes)
    }

    fn wait(&self, result: &Result<Vec<u8>, TransferError>, limit: Duration) {
        let took = if *result == Err(TransferError::Timeout) { limit } else { Duration::from_millis(1) };
        self.clock.sleep(took);
    }
}

impl Transport for FakeDevice {
    fn control_in(
        &mut self,
        setup: Setup,
        buffer: &mut [u8],
        limit: Duration,
    ) -> Result<usize, TransferError> {
        let answer = self.answer(setup, buffer.len());
        self.wait(&answer, limit);
        let answer = answer?;
        buffer[..answer.len()].copy_from_slice(&answer);
        Ok(answer.len())
    }

    fn control_out(&mut self, setup: Setup, data: &[u8], limit: Duration) -> Result<usize, TransferError> {
        let answer = self.answer(setup, data.len());
        self.wait(&answer, limit);
        answer.map(|_| data.len())
    }

    fn select(&mut self, _: u8, _: u8) -> Result<(), TransferError> {
        Ok(())
    }

    fn bulk_in(&mut self, pipe: Pipe, buffer: &mut [u8], limit: Duration) -> Result<usize, TransferError> {
        let setup = Setup { request_type: pipe.endpoint, request: 0, value: 0, index: 0 };
        self.control_in(setup, buffer, limit)
    }

    fn bulk_out(&mut self, _: Pipe, data: &[u8], _: Duration) -> Result<usize, TransferError> {
        Ok(data.len())
    }
}

impl Bus for FakeDevice {
    fn list(&self) -> Result<Vec<Found>, BusError> {
        let mut rng = self.rng.lock().unwrap();
        // Each list is random: the device may be missing, in a different mode, or at a different address.
        let id = if rng.below(100) < self.realistic { self.id } else { [ROM_DFU, CRAZYFLIE][rng.below(2)] };
        let location = Location { bus: 1, ports: vec![1] };
        let found =
            Found { id, release: 0x2200, location, address: rng.roll() as u8, names: None, simulated: true };
        Ok(if rng.below(100) < self.realistic.max(50) { vec![found] } else { Vec::new() })
    }

    fn open(&self, _: &Found) -> Result<Box<dyn Transport>, TransferError> {
        Ok(Box::new(self.clone()))
    }

    fn wait(&self, limit: Duration) {
        self.clock.sleep(limit.min(Duration::from_millis(50)));
    }
}

#[test]
fn every_job_on_a_device_with_random_answers_ends_in_bounded_time() {
    let image = firmware("2026.08", 9000);
    let backup = Task::Backup(Span::between(LOADER_BASE, FLASH_END).unwrap());
    let flash = flash_job(&image).task;
    let (mut jobs, mut failed) = (0, 0);
    for seed in 1..=400_u64 {
        for realistic in [0, 60, 90, 99] {
            for (id, task) in [
                (ROM_DFU, flash.clone()),
                (ROM_DFU, Task::Identify),
                (CRAZYFLIE, Task::Identify),
                (ROM_DFU, backup.clone()),
            ] {
                let clock = Arc::new(FastClock::new());
                let rng =
                    Arc::new(Mutex::new(Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + realistic as u64)));
                let device = FakeDevice { rng, clock: clock.clone(), id, realistic };
                let job = Job::new(task);
                let ended = run(Arc::new(device), clock.clone(), job);
                assert!(clock.now() < Duration::from_secs(1800), "seed {seed}: {:?}", clock.now());
                assert!(
                    !matches!(&ended.report.outcome, Outcome::Failed(failure)
                    if matches!(failure.kind, FailureKind::WorkerDied(_))),
                    "seed {seed}: {:?}",
                    ended.report
                );
                assert_ne!(ended.report.outcome, Outcome::Flashed, "seed {seed}: the device has no flash");
                if let Outcome::Failed(failure) = &ended.report.outcome {
                    let problem = report::failure_problem(failure);
                    let text = format!("{} {}", problem.message, problem.advice);
                    assert!(text.chars().all(descriptor::is_printable), "seed {seed}: {text:?}");
                    failed += 1;
                }
                jobs += 1;
            }
        }
    }
    println!("{jobs} jobs on devices with random answers, of which {failed} failed");
}

/// A bus with this many devices in DFU mode, none of which can be opened.
struct ManyDevices(usize);

impl Bus for ManyDevices {
    fn list(&self) -> Result<Vec<Found>, BusError> {
        let found = |n: usize| Found {
            id: ROM_DFU,
            release: 0x2200,
            location: Location { bus: 1, ports: vec![(n / 250) as u8, (n % 250) as u8] },
            address: n as u8,
            names: None,
            simulated: true,
        };
        Ok((0..self.0).map(found).collect())
    }

    fn open(&self, _: &Found) -> Result<Box<dyn Transport>, TransferError> {
        Err(TransferError::Access)
    }

    fn wait(&self, _: Duration) {}
}

#[test]
fn hundreds_of_devices_are_reported_in_a_few_lines() {
    let bus = ManyDevices(400);
    assert_eq!(scan::list_devices(&bus).unwrap().len(), 400);
    let kind = scan::choose_device(&bus, &Selector::Only).unwrap_err();
    let failure = cfdfu::job::Failure { kind, place: None, drone: cfdfu::job::DroneState::Untouched };
    let problem = report::failure_problem(&failure);
    assert!(
        problem.message.contains("400 devices") && problem.advice.to_string().len() < 1000,
        "{}",
        problem.advice
    );
}

/// Returns valid files, at least one in each format.
fn seeds() -> Vec<Vec<u8>> {
    let bin = firmware("2026.04", 5000);
    let (first, second) = bin.split_at(3000);
    vec![
        bin.clone(),
        files::append_suffix(bin.clone(), (0x0483, 0xDF11), 0x0100),
        files::dfuse(&[(0, vec![(0x0800_4000, first)]), (0, vec![(0x0800_4000 + 3000, second)])]),
        files::hex(0x0800_4000, &bin).into_bytes(),
        files::elf(0x0800_4000, &bin),
        files::release("cf2", &bin, CompressionMethod::Deflated),
        files::release("cf2", &bin, CompressionMethod::Stored),
        files::zip(&[("cf2.map", b"text"), ("cf2.bin", &bin)], CompressionMethod::Stored),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// An accepted image is never empty or larger than the flash.
    #[test]
    fn a_damaged_file_is_refused_or_parsed_as_an_image(
        seed in 0..8_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        fix_crc: bool,
    ) {
        let mut file = seeds()[seed].clone();
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        if fix_crc && file.len() > 20 {
            let end = file.len() - 4;
            let crc = !crc32fast::hash(&file[..end]);
            file[end..].copy_from_slice(&crc.to_le_bytes());
        }
        if let Ok(image) = Image::parse(file) {
            prop_assert!(image.payload.len() <= 1024 * 1024 && !image.payload.is_empty());
        }
    }

    #[test]
    fn random_bytes_are_refused_or_parsed_as_an_image(bytes in prop::collection::vec(any::<u8>(), 0..3000), magic in 0..6_usize) {
        let magics: [&[u8]; 6] = [b"", b"\x7fELF\x01\x01\x01", b"PK\x03\x04", b"DfuSe\x01", b":020000040800F2\n", b"PK\x05\x06"];
        let _ = Image::parse([magics[magic], &bytes].concat());
    }

    #[test]
    fn any_memory_map_is_refused_or_has_ordered_sectors(text in "@.{0,30}/0x[0-9A-F]{1,8}/([0-9]{1,4}\\*[0-9]{0,4}[BKM ]?[a-g]?,?){0,6}(/.{0,40})?") {
        if let Ok(map) = MemoryMap::parse(&text) {
            prop_assert!(map.sectors().len() < 10_000);
            for pair in map.sectors().windows(2) {
                prop_assert!(pair[0].index < pair[1].index);
            }
        }
    }
}

#[test]
fn the_seeds_are_valid_images() {
    for seed in seeds() {
        assert!(Image::parse(seed).is_ok());
    }
    assert_eq!(firmware("2026.08", SEED_LEN).len(), SEED_LEN);
}
