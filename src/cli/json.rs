//! What `--json` prints, one object each; scripts rely on every name in it.

use std::path::Path;

use serde_json::{Value, json};

use crate::crazyflie::{self, Board};
use crate::flash::FIRMWARE_BASE;
use crate::image::Loader;
use crate::image::{Firmware, Image};
use crate::job::{Device, DeviceInfo, Identity, Outcome, Report};
use crate::plan::Plan;
use crate::report::{self, Problem};
use crate::sys::symptoms;

pub(super) fn device(device: &Device) -> Value {
    json!({
        "event": "device",
        "mode": device.mode.word(),
        "vid": format!("{:04x}", device.id.vendor),
        "pid": format!("{:04x}", device.id.product),
        "path": device.location.to_string(),
        "serial": device.strings.serial,
        "simulated": device.simulated,
    })
}

pub(super) fn image(image: &Image) -> Value {
    let firmware = image.content.firmware();
    let parts = image.payload.at(image.address().unwrap_or(FIRMWARE_BASE));
    let parts: Vec<Value> = parts
        .iter()
        .map(|part| json!({"address": part.address.to_string(), "bytes": part.data.len()}))
        .collect();
    json!({
        "event": "image",
        "format": image.format.word(),
        "kind": image.content.word(),
        "version": firmware.and_then(|f| f.version.as_deref()),
        "revision": firmware.and_then(|f| f.revision.as_deref()),
        "platform": firmware.and_then(Firmware::platform),
        "boards": image.boards(),
        "address": image.address().map(|address| address.to_string()),
        "bytes": image.payload.len(),
        "segments": parts,
        "complete": image.extent.complete(),
        "crc32": format!("{:08x}", image.crc32),
        "sha256": image.sha256.to_string(),
        "notes": image.notes,
    })
}

pub(super) fn known(known: &DeviceInfo) -> Value {
    match known {
        DeviceInfo::InDfu(identity) => {
            let Identity { board, loader, firmware, protection, rom } = identity;
            let firmware = firmware.as_ref().map(|content| {
                let firmware = content.firmware();
                let boards: Vec<&str> =
                    firmware.into_iter().flat_map(|it| &it.boards).map(|board| board.code.as_str()).collect();
                let version = firmware.and_then(|firmware| firmware.version.as_deref());
                let complete = firmware.and_then(|firmware| firmware.extent.complete());
                json!({"kind": content.word(), "version": version, "boards": boards, "complete": complete})
            });
            json!({
                "event": "board",
                "type": board.as_ref().map(|board| &board.code),
                "name": board.as_ref().map(Board::name),
                "revision": board.as_ref().and_then(|board| board.revision.as_deref()),
                "bootloader": loader.map(Loader::word),
                "firmware": firmware,
                "read_protected": protection.as_ref().map(|protection| protection.read),
                "write_protected_sectors": protection.as_ref().map(|protection| &protection.sectors),
                "rom": rom.map(|rom| rom.to_string()),
            })
        }
        DeviceInfo::Running(running) => json!({
            "event": "board",
            "type": running.board.as_deref().and_then(crazyflie::code_of),
            "name": running.board,
            "revision": null,
            "bootloader": null,
            "firmware": running.version.as_ref().map(|version| {
                json!({"kind": "firmware", "version": version, "boards": [], "complete": null})
            }),
            "read_protected": null,
            "write_protected_sectors": null,
            "rom": null,
        }),
    }
}

pub(super) fn plan(plan: &Plan) -> Value {
    let sectors: Vec<Value> = plan
        .sectors()
        .iter()
        .map(|planned| json!({"address": planned.sector.span.start().to_string(), "size": planned.sector.span.len()}))
        .collect();
    json!({"event": "plan", "address": plan.start().to_string(), "bytes": plan.bytes, "sectors": sectors})
}

pub(super) fn result(report: &Report, file: Option<&Path>, problem: Option<&Problem>) -> Value {
    let (outcome, failure) = match &report.outcome {
        Outcome::Flashed => ("flashed", Value::Null),
        Outcome::Unchanged | Outcome::Read(_) | Outcome::Identified => ("unchanged", Value::Null),
        Outcome::Failed(failure) => ("failed", error(&report::failed(failure))),
        Outcome::Cancelled(_) => ("cancelled", Value::Null),
    };
    let error = problem.map_or(failure, error);
    let mut result = json!({
        "event": "result", "outcome": outcome, "bytes": report.bytes, "written": report.written,
        "erased_sectors": report.erased_sectors, "verified": report.verified, "booted": report.booted(),
        "runs": report.runs, "seconds": (report.took.as_secs_f64() * 1000.0).round() / 1000.0, "error": error,
    });
    if let (Some(file), Some(object)) = (file, result.as_object_mut()) {
        object.insert("file".to_owned(), json!(file.to_string_lossy()));
    }
    result
}

/// The last object of a command that ended before or beside a job.
pub(super) fn problem(problem: &Problem) -> Value {
    ended("failed", &error(problem))
}

/// The last object of a command that ran no job.
pub(super) fn ended(outcome: &str, error: &Value) -> Value {
    json!({
        "event": "result", "outcome": outcome, "bytes": 0, "written": 0, "erased_sectors": 0,
        "verified": false, "booted": null, "runs": null, "seconds": 0.0, "error": error,
    })
}

fn error(problem: &Problem) -> Value {
    let advice = problem.advice.text(&symptoms::program());
    json!({"kind": problem.kind, "message": problem.to_string(), "advice": advice})
}
