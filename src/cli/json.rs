//! The objects that `--json` prints. Scripts rely on all field names. `docs/json.schema.json` documents the objects,
//! and a test validates the output against that schema.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::crazyflie::console::{Health, RadioChip, SelfTest};
use crate::crazyflie::crtp::Radio;
use crate::crazyflie::symptoms::describe_crash;
use crate::crazyflie::{self, Board};
use crate::doctor;
use crate::flash::FIRMWARE_BASE;
use crate::fleet::{Counts, Row};
use crate::image::{Firmware, Image, Loader};
use crate::job::{Device, DeviceInfo, Identity, Outcome, Phase, Report};
use crate::plan::Plan;
#[cfg(feature = "releases")]
use crate::releases::{Asset, Release, platform_of};
use crate::report::{self, Exit, Problem, ProblemKind};
use crate::sys::symptoms;

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(super) enum Object<'a> {
    Device(DeviceObject<'a>),
    Image(ImageObject<'a>),
    Board(BoardObject<'a>),
    Plan {
        address: String,
        bytes: u64,
        sectors: Vec<SectorObject>,
    },
    Progress {
        phase: &'static str,
        done: u64,
        total: u64,
    },
    Log {
        text: &'a str,
    },
    Check {
        name: &'a str,
        verdict: &'static str,
        found: &'a str,
        remedy: &'a str,
    },
    Finding {
        assumption: &'a str,
        verdict: &'static str,
        seen: &'a str,
    },
    Scenario {
        name: &'a str,
        what: &'a str,
    },
    Console {
        seconds: f64,
        text: &'a str,
        cut: bool,
    },
    Text {
        text: &'a str,
    },
    #[cfg(feature = "releases")]
    Release(ReleaseObject<'a>),
    #[cfg(feature = "releases")]
    Download {
        done: u64,
        total: Option<u64>,
    },
    #[cfg(feature = "releases")]
    Fetched {
        tag: &'a str,
        name: &'a str,
        path: Option<&'a str>,
        sha256: String,
        trust: &'static str,
    },
    Result(ResultObject),
    Drone(DroneObject<'a>),
    Batch(BatchObject),
}

#[derive(Serialize)]
pub(super) struct DeviceObject<'a> {
    mode: &'static str,
    vid: String,
    pid: String,
    path: String,
    serial: &'a str,
    simulated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    radio: Option<&'a str>,
}

/// A release and its files.
#[cfg(feature = "releases")]
#[derive(Serialize)]
pub(super) struct ReleaseObject<'a> {
    tag: &'a str,
    published: &'a str,
    prerelease: bool,
    assets: Vec<AssetObject<'a>>,
}

#[cfg(feature = "releases")]
#[derive(Serialize)]
struct AssetObject<'a> {
    name: &'a str,
    platform: Option<&'a str>,
    size: u64,
    sha256: Option<String>,
    kept: bool,
}

#[cfg(feature = "releases")]
pub(super) fn release<'a>(release: &'a Release, is_kept: &dyn Fn(&str) -> bool) -> Object<'a> {
    let asset = |asset: &'a Asset| AssetObject {
        name: &asset.name,
        platform: platform_of(asset),
        size: asset.size,
        sha256: asset.sha256.map(|sha256| sha256.to_string()),
        kept: is_kept(&asset.name),
    };
    let assets = release.assets.iter().map(asset).collect();
    let Release { tag, published, prerelease, .. } = release;
    Object::Release(ReleaseObject { tag, published, prerelease: *prerelease, assets })
}

/// A drone in a batch.
#[derive(Serialize)]
pub(super) struct DroneObject<'a> {
    path: String,
    serial: &'a str,
    mode: &'static str,
    product: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    radio: Option<String>,
}

/// The last object of a batch, after one `result` for each drone.
#[derive(Serialize)]
pub(super) struct BatchObject {
    drones: usize,
    flashed: usize,
    unchanged: usize,
    failed: usize,
    refused: usize,
    cancelled: usize,
    missing: usize,
    seconds: f64,
    exit: u8,
}

/// Returns the object for a drone in a batch, with its radio address if known.
pub(super) fn drone(row: &Row, radio: Option<Radio>) -> Object<'_> {
    let Device { location, strings, mode, .. } = &row.device;
    Object::Drone(DroneObject {
        path: location.to_string(),
        serial: &strings.serial,
        mode: mode.json_name(),
        product: &strings.product,
        radio: radio.map(|radio| radio.to_string()),
    })
}

pub(super) fn batch(drones: usize, counts: Counts, took: Duration, exit: Exit) -> Object<'static> {
    let Counts { flashed, unchanged, refused, failed, cancelled, missing } = counts;
    let seconds = (took.as_secs_f64() * 1000.0).round() / 1000.0;
    let exit = exit as u8;
    Object::Batch(BatchObject {
        drones,
        flashed,
        unchanged,
        failed,
        refused,
        cancelled,
        missing,
        seconds,
        exit,
    })
}

/// An object about a drone in a batch, with the number of the drone.
#[derive(Serialize)]
pub(super) struct Numbered<'a> {
    #[serde(flatten)]
    pub object: &'a Object<'a>,
    pub drone: usize,
}

#[derive(Serialize)]
pub(super) struct ImageObject<'a> {
    format: &'static str,
    kind: &'static str,
    version: Option<&'a str>,
    revision: Option<&'a str>,
    platform: Option<&'static str>,
    boards: Vec<String>,
    address: Option<String>,
    bytes: usize,
    segments: Vec<SegmentObject>,
    complete: Option<bool>,
    crc32: String,
    sha256: String,
    notes: &'a [String],
}

#[derive(Serialize)]
pub(super) struct SegmentObject {
    address: String,
    bytes: usize,
}

/// Information about a drone. Unknown values are `null`.
#[derive(Default, Serialize)]
pub(super) struct BoardObject<'a> {
    #[serde(rename = "type")]
    code: Option<&'a str>,
    name: Option<&'a str>,
    revision: Option<&'a str>,
    bootloader: Option<&'static str>,
    firmware: Option<FirmwareObject<'a>>,
    read_protected: Option<bool>,
    write_protected_sectors: Option<&'a [usize]>,
    rom: Option<String>,
    radio: Option<String>,
    self_test: Option<&'static str>,
    radio_chip: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    radio_chip_silent: bool,
    decks: Option<Vec<&'a str>>,
}

#[derive(Serialize)]
pub(super) struct FirmwareObject<'a> {
    kind: &'static str,
    version: Option<&'a str>,
    boards: Vec<&'a str>,
    complete: Option<bool>,
}

#[derive(Serialize)]
pub(super) struct SectorObject {
    address: String,
    size: u32,
}

/// The last object of every command except a batch, which prints one `result` for each drone and then a
/// [`BatchObject`].
#[derive(Default, Serialize)]
pub(super) struct ResultObject {
    outcome: &'static str,
    bytes: u64,
    written: u64,
    erased_sectors: usize,
    verified: bool,
    booted: Option<bool>,
    runs: Option<String>,
    self_test: Option<&'static str>,
    /// The error with which the last run of the firmware ended, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    crash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    radio_chip: Option<String>,
    /// Whether the radio chip was asked for its version but did not answer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    radio_chip_silent: bool,
    /// Rounded to milliseconds.
    seconds: f64,
    error: Option<ErrorObject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

#[derive(Serialize)]
pub(super) struct ErrorObject {
    kind: ProblemKind,
    message: String,
    advice: String,
}

pub(super) fn device(device: &Device) -> Object<'_> {
    listed(device, None)
}

/// Returns the object for a device, with its remembered radio address.
pub(super) fn listed<'a>(device: &'a Device, radio: Option<&'a str>) -> Object<'a> {
    Object::Device(DeviceObject {
        mode: device.mode.json_name(),
        vid: format!("{:04x}", device.id.vendor),
        pid: format!("{:04x}", device.id.product),
        path: device.location.to_string(),
        serial: &device.strings.serial,
        simulated: device.simulated,
        radio,
    })
}

pub(super) fn image(image: &Image) -> Object<'_> {
    let firmware = image.content.firmware();
    let parts = image.payload.at(image.address().unwrap_or(FIRMWARE_BASE));
    let segment = |part: &crate::flash::Segment| SegmentObject {
        address: part.address.to_string(),
        bytes: part.data.len(),
    };
    Object::Image(ImageObject {
        format: image.format.json_name(),
        kind: image.content.json_name(),
        version: firmware.and_then(|firmware| firmware.version.as_deref()),
        revision: firmware.and_then(|firmware| firmware.revision.as_deref()),
        platform: firmware.and_then(Firmware::platform),
        boards: image.boards(),
        address: image.address().map(|address| address.to_string()),
        bytes: image.payload.len(),
        segments: parts.iter().map(segment).collect(),
        complete: image.extent.complete(),
        crc32: format!("{:08x}", image.crc32),
        sha256: image.sha256.to_string(),
        notes: &image.notes,
    })
}

pub(super) fn board(info: &DeviceInfo) -> Object<'_> {
    Object::Board(match info {
        DeviceInfo::InDfu(Identity { board, loader, firmware, protection, rom }) => BoardObject {
            code: board.as_ref().map(|board| board.code.as_str()),
            name: board.as_ref().map(Board::name),
            revision: board.as_ref().and_then(|board| board.revision.as_deref()),
            bootloader: loader.map(Loader::json_name),
            firmware: firmware.as_ref().map(|content| {
                let firmware = content.firmware();
                let boards = firmware.into_iter().flat_map(|firmware| &firmware.boards);
                FirmwareObject {
                    kind: content.json_name(),
                    version: firmware.and_then(|firmware| firmware.version.as_deref()),
                    boards: boards.map(|board| board.code.as_str()).collect(),
                    complete: firmware.and_then(|firmware| firmware.extent.complete()),
                }
            }),
            read_protected: protection.as_ref().map(|protection| protection.read),
            write_protected_sectors: protection.as_ref().map(|protection| protection.sectors.as_slice()),
            rom: rom.map(|rom| rom.to_string()),
            ..BoardObject::default()
        },
        DeviceInfo::Running(running) => BoardObject {
            code: running.board.as_deref().and_then(crazyflie::code_of),
            name: running.board.as_deref(),
            firmware: running.version.as_deref().map(|version| FirmwareObject {
                kind: "firmware",
                version: Some(version),
                boards: Vec::new(),
                complete: None,
            }),
            radio: running.radio.map(|radio| radio.to_string()),
            self_test: self_test(&running.health),
            radio_chip: version_of_radio_chip(&running.health),
            radio_chip_silent: running.health.radio_chip == RadioChip::Silent,
            decks: running
                .health
                .printed
                .then(|| running.health.decks.iter().map(|deck| deck.driver.as_str()).collect()),
            ..BoardObject::default()
        },
    })
}

pub(super) fn plan(plan: &Plan) -> Object<'static> {
    let sectors = plan.sectors().iter().map(|planned| planned.sector.span);
    let sector =
        |span: crate::flash::Span| SectorObject { address: span.start().to_string(), size: span.len() };
    Object::Plan {
        address: plan.start().to_string(),
        bytes: plan.bytes as u64,
        sectors: sectors.map(sector).collect(),
    }
}

pub(super) fn progress(phase: Phase, done: u64, total: u64) -> Object<'static> {
    Object::Progress { phase: phase.json_name(), done, total }
}

pub(super) fn check(check: &doctor::Check) -> Object<'_> {
    let doctor::Check { name, verdict, found, remedy } = check;
    Object::Check { name, verdict: verdict.json_name(), found, remedy }
}

/// Returns the result of a job. `problem` is a failure that was found after the job, such as an unmet `--require-boot`.
pub(super) fn result(report: &Report, file: Option<&Path>, problem: Option<&Problem>) -> Object<'static> {
    let (outcome, failure) = match &report.outcome {
        Outcome::Flashed => ("flashed", None),
        Outcome::Unchanged | Outcome::Read(_) | Outcome::Identified => ("unchanged", None),
        Outcome::Failed(failure) => ("failed", Some(report::failure_problem(failure))),
        Outcome::Cancelled(_) => ("cancelled", None),
    };
    Object::Result(ResultObject {
        outcome,
        bytes: report.bytes,
        written: report.written,
        erased_sectors: report.erased_sectors,
        verified: report.verified,
        booted: report.booted(),
        runs: report.runs.clone(),
        self_test: self_test(&report.health),
        crash: report.health.crash.as_ref().map(describe_crash),
        radio_chip: version_of_radio_chip(&report.health).map(str::to_owned),
        radio_chip_silent: report.health.radio_chip == RadioChip::Silent,
        seconds: (report.took.as_secs_f64() * 1000.0).round() / 1000.0,
        error: problem.or(failure.as_ref()).map(error),
        file: file.map(|file| file.to_string_lossy().into_owned()),
    })
}

/// Returns the verdict of the self-test; `None` if unknown.
pub(super) fn self_test(health: &Health) -> Option<&'static str> {
    match health.self_test {
        Some(SelfTest::Passed) => Some("passed"),
        Some(SelfTest::Failed(_)) => Some("failed"),
        Some(SelfTest::NotYet) | None => None,
    }
}

fn version_of_radio_chip(health: &Health) -> Option<&str> {
    match &health.radio_chip {
        RadioChip::Runs(version) => Some(version),
        RadioChip::Silent | RadioChip::Unknown => None,
    }
}

/// Returns the result of a command that failed outside a job.
pub(super) fn failed_result(problem: &Problem) -> Object<'static> {
    Object::Result(ResultObject { outcome: "failed", error: Some(error(problem)), ..ResultObject::default() })
}

/// Returns the result of a command that succeeded without a job.
pub(super) fn unchanged_result() -> Object<'static> {
    Object::Result(ResultObject { outcome: "unchanged", ..ResultObject::default() })
}

fn error(problem: &Problem) -> ErrorObject {
    let advice = problem.advice.text(&symptoms::sudo_command());
    ErrorObject { kind: problem.kind, message: problem.to_string(), advice }
}
