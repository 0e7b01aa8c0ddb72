//! `cfdfu qualify`: checks the assumptions of this program on the connected drone. Without an image, it only reads.
//! With one, it also restarts the drone twelve times, writes test data, flashes the image, and puts everything back.
//!
//! Each step is a normal job, with the same checks, and can be stopped in the same way. The results are three files:
//! the report, the recording and the backup of the whole flash.

use std::fmt;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};

use super::args::{DeviceArgs, FlashArgs, Global};
use super::console::Console;
use super::output_file::Output;
use super::run_job::Jobs;
use super::world::bus_for;
use super::{approved, flash_task, job, whole_flash};
use crate::crazyflie::{self, Board, Mode};
use crate::flash::map::MemoryMap;
use crate::flash::{FIRMWARE_BASE, LOADER_BASE, Segment, is_blank};
use crate::job::trial::{Measurement, ReadPlace, Trial};
use crate::job::{
    Boot, DroneState, Event, Failure, FailureKind, FlashTask, Job, Leave, Mismatch, Outcome, Task,
};
use crate::plan::admission::{self, Overrides};
use crate::plan::undo::Change;
use crate::qualify::{Finding, Verdict, judge};
use crate::report::qualify::{self as qualify_report, Run};
use crate::report::{self, Exit, Problem, ProblemKind};
use crate::sim::drone::Helper;
use crate::supervise::{Ended, Waits};
use crate::sys::files;

/// The number of times that the drone enters and leaves DFU mode.
const CYCLES: u32 = 12;
/// The cycle that leaves DFU mode by a reset. Not the first one, because the result of a normal leave matters more.
const RESET_CYCLE: u32 = 2;
/// How long to wait for a drone that the user has to switch off and on, in seconds.
const WAIT: u64 = 60;
/// The word that the user types to confirm writing.
const WORD: &str = "qualify";
pub(super) const DEFAULT_REPORT: &str = "cfdfu-qualify.md";

/// Collects the measurements from the events of the jobs.
#[derive(Default)]
struct Collector {
    measured: Vec<Measurement>,
    /// The serial number of the running drone.
    running: String,
    simulated: bool,
    drone: String,
}

impl Collector {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Measured(measurement) => self.measured.push((**measurement).clone()),
            Event::Device(device) => {
                self.simulated |= device.simulated;
                let serial = &device.strings.serial;
                match device.mode {
                    Mode::Firmware => self.running.clone_from(serial),
                    Mode::Dfu if self.running.is_empty() || serial.is_empty() => {}
                    Mode::Dfu => {
                        let (running, in_dfu) = (self.running.clone(), serial.clone());
                        self.measured.push(Measurement::Serials { running, in_dfu });
                    }
                }
                if self.drone.is_empty() {
                    self.drone = format!("{serial} on port {}", device.location);
                }
            }
            _ => {}
        }
    }
}

/// The files of a run. Their names differ only in the extension.
struct Files {
    report: PathBuf,
    backup: PathBuf,
}

struct Qualification<'a> {
    global: &'a Global,
    jobs: Jobs,
    collector: Collector,
    /// The last restart ended without a running drone, so the next job waits for the user.
    waits: bool,
}

/// Why the run ended early.
enum EarlyEnd {
    Failed(Failure),
    Stopped(DroneState),
    NotConfirmed,
    Problem(Box<Problem>),
}

impl From<Problem> for EarlyEnd {
    fn from(problem: Problem) -> EarlyEnd {
        EarlyEnd::Problem(Box::new(problem))
    }
}

impl fmt::Display for EarlyEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EarlyEnd::Failed(failure) => write!(f, "{failure}. {}", report::drone_state(failure.drone)),
            EarlyEnd::Stopped(drone) => write!(f, "stopped. {}", report::drone_state(*drone)),
            EarlyEnd::NotConfirmed => f.write_str("not confirmed. The drone was only read."),
            EarlyEnd::Problem(problem) => problem.fmt(f),
        }
    }
}

impl Qualification<'_> {
    fn run(&mut self, task: Task, console: &mut Console) -> Result<Ended, EarlyEnd> {
        let device = DeviceArgs { wait: if self.waits { WAIT } else { 0 }, no_enter: false };
        let job: Job = job(self.global, &device, task);
        if self.waits {
            console
                .note("If the drone is not on USB, unplug USB and the battery, then bring it into DFU mode.");
        }
        let collector = &mut self.collector;
        let ended = self.jobs.run_observed(job, console, &mut |event| collector.event(event));
        self.waits = matches!(ended.report.boot, Boot::NotSeen | Boot::Restarts);
        match ended.report.outcome {
            Outcome::Failed(failure) => Err(EarlyEnd::Failed(failure)),
            Outcome::Cancelled(drone) => Err(EarlyEnd::Stopped(drone)),
            _ => Ok(ended),
        }
    }
}

/// Runs `cfdfu qualify`.
pub(super) fn qualify(
    global: &Global,
    image: Option<&Path>,
    report: Option<&Path>,
    console: &mut Console,
) -> Result<Exit, Problem> {
    let path = report.unwrap_or(Path::new(DEFAULT_REPORT));
    let files = Files { report: path.to_owned(), backup: path.with_extension("bin") };
    let output = Output::create(&files.report, false)?;
    // The image is read and checked before the drone is touched.
    let prepared = image.map(|path| prepare(path, &files, console)).transpose()?;
    let world = bus_for(global, image.map(|_| Helper::IfLost), console)?;
    let jobs = Jobs::new(world, Waits::No, console)?;
    let mut run = Qualification { global, jobs, collector: Collector::default(), waits: false };
    let ended = run_steps(&mut run, prepared, console);
    let Qualification { jobs, collector, .. } = run;
    jobs.finish();
    // If nothing was measured, the drone is missing or cannot be used. Report this like other commands do.
    let ended = match ended {
        Err(EarlyEnd::Failed(failure)) if collector.measured.is_empty() => {
            return Err(report::failed(&failure));
        }
        other => other,
    };
    let findings = judge(&collector.measured);
    let reason = ended.as_ref().err().map(ToString::to_string);
    let text = qualify_report::markdown(
        &Run {
            version: &crate::sys::version(),
            system: std::env::consts::OS,
            drone: &collector.drone,
            simulated: collector.simulated,
            image: image.and_then(Path::to_str),
            ended: reason.as_deref(),
        },
        &findings,
    );
    output.write(console.recording.redact(text).as_bytes())?;
    print(&findings, console);
    console.note(&format!("Report: {}", files.report.display()));
    match ended {
        Ok(()) => Ok(qualify_report::exit_of(&findings)),
        Err(EarlyEnd::Failed(failure)) => Err(report::failed(&failure)),
        Err(EarlyEnd::Problem(problem)) => Err(*problem),
        Err(reason) => Err(Problem::new(Exit::Interrupted, ProblemKind::Stopped, reason.to_string())
            .advise("The report contains the results so far.")),
    }
}

/// The image, and the file for the backup.
struct Prepared {
    task: FlashTask,
    backup: Output,
    backup_path: PathBuf,
}

fn prepare(path: &Path, files: &Files, console: &mut Console) -> Result<Prepared, Problem> {
    let flash = FlashArgs::default();
    let images = approved(&[files::read_image(path)?], &flash, console)?;
    let Task::Flash(task) = flash_task(&flash, images)? else {
        return Err(Problem::new(Exit::Defect, ProblemKind::Defect, "not a flash"));
    };
    let backup = Output::create(&files.backup, false)?;
    Ok(Prepared { task, backup, backup_path: files.backup.clone() })
}

/// Prints the findings. The report also lists the assumptions that were not seen.
fn print(findings: &[Finding], console: &mut Console) {
    for Finding { assumption, verdict, observation } in findings {
        console.finding(
            qualify_report::assumption(*assumption),
            *verdict,
            &qualify_report::observation(observation),
        );
    }
    let not_seen = findings.iter().filter(|it| it.verdict == Verdict::NotSeen).count();
    if not_seen > 0 {
        console.note(&format!("Not seen: {not_seen}"));
    }
}

/// Runs all steps, in order of increasing risk.
fn run_steps(
    run: &mut Qualification<'_>,
    prepared: Option<Prepared>,
    console: &mut Console,
) -> Result<(), EarlyEnd> {
    run.run(Task::Try(Trial::Read), console)?;
    let Some(Prepared { task, backup, backup_path }) = prepared else { return Ok(()) };
    refuse_other_board(&run.collector.measured, &task)?;
    confirm(&backup_path, console)?;
    let span = whole_flash()?;
    let ended = run.run(Task::Backup(span), console)?;
    let by_hand = ended.report.by_hand;
    let Outcome::Read(before) = ended.report.outcome else {
        return Err(Problem::new(Exit::Defect, ProblemKind::Defect, "the flash was not read").into());
    };
    backup.write(&before)?;
    for cycle in 1..=CYCLES {
        if run.waits || by_hand {
            break;
        }
        let leave = if cycle == RESET_CYCLE { Leave::Reset } else { Leave::Start };
        run.run(Task::Try(Trial::Restart(leave)), console)?;
    }
    if let Err(end) = run.run(Task::Try(Trial::Write), console) {
        console.note("The last sector of the flash may contain test data. No firmware uses it.");
        return Err(end);
    }
    let Some(copy) = overwritten(&task, &before) else {
        console.note("The flash contains no firmware that could be put back, so the image was not flashed.");
        return Ok(());
    };
    let flashed = run.run(Task::Flash(task), console);
    let is_changed = match &flashed {
        Ok(ended) => ended.report.outcome == Outcome::Flashed,
        Err(EarlyEnd::Failed(Failure { drone, .. })) => *drone != DroneState::Untouched,
        Err(_) => false,
    };
    if is_changed {
        let overrides = Overrides { allow_mismatch: true, ..Overrides::default() };
        let image = admission::undo(copy, overrides).map_err(|refusal| report::refusal(&refusal))?;
        let task =
            FlashTask { change: Change::Undo, mismatch: Mismatch::Take, ..FlashTask::new(image, None) };
        let put_back = run.run(Task::Flash(task), console);
        if put_back.is_err() {
            console.note(&format!(
                "The previous firmware was not put back. `cfdfu undo` restores it. {} contains the whole flash.",
                backup_path.display()
            ));
        }
        put_back?;
    }
    flashed?;
    let segment = Segment { address: LOADER_BASE, data: before };
    let compared = run.run(Task::Verify(vec![segment]), console);
    let is_back = match &compared {
        Ok(_) => Some(true),
        Err(EarlyEnd::Failed(Failure { kind: FailureKind::Differs { .. }, .. })) => Some(false),
        // The comparison itself failed, so the result is unknown.
        Err(_) => None,
    };
    run.collector.measured.extend(is_back.map(Measurement::PutBack));
    compared.map(drop)
}

/// Refuses an image for another board. The flash job checks this too, but only after minutes of trials.
fn refuse_other_board(measured: &[Measurement], task: &FlashTask) -> Result<(), EarlyEnd> {
    let otp = measured.iter().find_map(|it| match it {
        Measurement::Read(ReadPlace::Otp, Ok(bytes)) => crazyflie::board(bytes),
        _ => None,
    });
    match otp {
        Some(board) if !task.fits(&board.code) => {
            let boards = task.boards.iter().map(|code| Board::named(code).to_string()).collect();
            let (kind, drone) = (FailureKind::OtherBoard { board, boards }, DroneState::Untouched);
            Err(EarlyEnd::Failed(Failure { kind, place: None, drone }))
        }
        _ => Ok(()),
    }
}

/// Returns what the image overwrites: from the start of the firmware to the end of the image's last sector. Returns
/// `None` if this is blank, because no job only erases.
fn overwritten(task: &FlashTask, before: &[u8]) -> Option<Segment> {
    let end = task.image.segments().iter().map(Segment::end).max()?;
    let map = MemoryMap::stm32f405();
    let sector = map.sectors().iter().find(|sector| end <= sector.span.end())?;
    let at = |address: u64| usize::try_from(address.checked_sub(LOADER_BASE.wide())?).ok();
    let data = before.get(at(FIRMWARE_BASE.wide())?..at(sector.span.end())?)?.to_vec();
    (!is_blank(&data)).then_some(Segment { address: FIRMWARE_BASE, data })
}

/// Asks the user to confirm writing with a typed word.
fn confirm(backup: &Path, console: &mut Console) -> Result<(), EarlyEnd> {
    console.note(&format!(
        "Next, cfdfu saves the whole flash in {}, restarts the drone {CYCLES} times, writes test data to the \
         last sector of the flash, flashes the image, and puts everything back. This takes about four minutes.",
        backup.display()
    ));
    console.note(&format!("Type {WORD} and press Enter to continue:"));
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    if read.is_ok() && line.trim() == WORD {
        return Ok(());
    }
    Err(EarlyEnd::NotConfirmed)
}
