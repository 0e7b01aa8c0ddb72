//! `cfdfu qualify`: checks this program's assumptions against the connected drone. Without an image, it only reads.
//! With one, it also restarts the drone twelve times, writes test data, flashes the image, and puts everything back.
//!
//! Each step is a normal job, with the same checks, and can be stopped in the same way. The results are the report, the
//! recording and, with an image, a backup of the whole flash.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::args::{DeviceArgs, FlashArgs, Global};
use super::console::Console;
use super::output_file::Output;
use super::run_job::{Jobs, Ready};
use super::world::bus_for;
use super::{approve_images, build_job, flash_task, whole_flash};
use crate::crazyflie::Mode;
use crate::flash::map::MemoryMap;
use crate::flash::{FIRMWARE_BASE, LOADER_BASE, Segment, is_blank};
use crate::job::trial::{Measurement, Trial};
use crate::job::{
    Boot, DroneAt, DroneState, Event, Failure, FailureKind, FlashTask, Job, Leave, Mismatch, Outcome, Task,
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
/// The cycle that leaves DFU mode by a reset. The first cycle uses a normal leave, because that result matters more.
const RESET_CYCLE: u32 = 2;
/// How many seconds to wait for a drone that the user has to switch off and on.
const WAIT: u64 = 60;
/// The word that the user types to confirm writing.
const WORD: &str = "qualify";
/// How often to check for a signal while the user is typing.
const SIGNAL_POLL: Duration = Duration::from_millis(100);
pub(super) const DEFAULT_REPORT: &str = "cfdfu-qualify.md";

/// Collects the measurements from the events of the jobs.
#[derive(Default)]
struct Collector {
    measured: Vec<Measurement>,
    /// The serial number of the running drone; empty until the drone has been seen running.
    running: String,
    /// The drone was seen running in an earlier job. A later job that finds the drone in DFU mode proves nothing about
    /// manual entry: the drone may have returned to DFU mode by itself.
    was_running: bool,
    simulated: bool,
    drone: String,
}

impl Collector {
    fn observe(&mut self, event: &Event) {
        match event {
            Event::Measured(measurement) => match **measurement {
                Measurement::Left { by_hand: true, .. } if self.was_running => {}
                ref other => self.measured.push(other.clone()),
            },
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

struct Qualification<'a> {
    global: &'a Global,
    jobs: Jobs,
    collector: Collector,
    /// The drone of the first job. All later jobs are for this drone only.
    drone: Option<DroneAt>,
    /// The last restart ended without a running drone, so the next job waits for the user.
    waits: bool,
    /// The state of the drone after all jobs so far.
    drone_state: DroneState,
    has_flashed: bool,
}

/// Why the run ended early.
enum EarlyEnd {
    Failed(Failure),
    Stopped,
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
            EarlyEnd::Failed(failure) => failure.fmt(f),
            EarlyEnd::Stopped => f.write_str("stopped"),
            EarlyEnd::NotConfirmed => f.write_str("not confirmed"),
            EarlyEnd::Problem(problem) => problem.fmt(f),
        }
    }
}

impl Qualification<'_> {
    fn run(&mut self, task: Task, console: &mut Console) -> Result<Ended, EarlyEnd> {
        self.run_until(task, Ready::Proceed, console)
    }

    fn run_until(&mut self, task: Task, ready: Ready, console: &mut Console) -> Result<Ended, EarlyEnd> {
        let device = DeviceArgs { wait: if self.waits { WAIT } else { 0 }, no_enter: false };
        let writes = matches!(task, Task::Flash(_) | Task::Try(Trial::Write)) && ready == Ready::Proceed;
        let job: Job = build_job(self.global, &device, task);
        let job = match &self.drone {
            Some(drone) => job.of(drone.clone()),
            None => job,
        };
        if self.waits {
            console
                .note("If the drone does not appear on USB, unplug USB and the battery, then enter DFU mode by hand.");
        }
        let collector = &mut self.collector;
        collector.was_running |= !collector.running.is_empty();
        let ended = self.jobs.run_observed(job, ready, console, &mut |event| collector.observe(event));
        self.waits = matches!(ended.report.boot, Boot::NotSeen | Boot::Restarts);
        let (state, end) = match ended.report.outcome {
            Outcome::Failed(failure) => (failure.drone, EarlyEnd::Failed(failure)),
            Outcome::Cancelled(_) if ready == Ready::Cancel && !self.jobs.is_stopped() => return Ok(ended),
            Outcome::Cancelled(state) => (state, EarlyEnd::Stopped),
            Outcome::Flashed if writes => {
                self.drone_state = DroneState::Flashed;
                return Ok(ended);
            }
            _ => return Ok(ended),
        };
        if writes && !matches!(state, DroneState::Untouched | DroneState::Stopped) {
            self.drone_state = state;
            // The drone was lost. Give the user time to reconnect it.
            self.waits |= matches!(&end, EarlyEnd::Failed(failure) if failure.is_interruption());
        }
        Err(end)
    }

    /// Describes the state of the drone, and how to restore its previous contents.
    fn describe_state(&self, backup: &Path) -> String {
        match self.drone_state {
            DroneState::Untouched if self.has_flashed => {
                "The drone contains its previous firmware.".to_owned()
            }
            DroneState::Untouched => "Nothing was changed on the drone.".to_owned(),
            DroneState::TestData => report::drone_state(DroneState::TestData).to_owned(),
            state => {
                let now = match state {
                    DroneState::Flashed => "The drone now contains the image.",
                    DroneState::Mixed => "The flash differs from the backup.",
                    _ => "The firmware is incomplete, and the drone stays in DFU mode while it has power.",
                };
                let backup = backup.display();
                format!(
                    "The previous firmware has NOT been restored. {now} `cfdfu restore-bootloader {backup}` writes \
                     the whole flash as it was."
                )
            }
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
    let report_path = report.unwrap_or(Path::new(DEFAULT_REPORT));
    let backup = report_path.with_extension("bin");
    let reserved = report_path.extension().is_some_and(|name| name == "bin" || name == "jsonl");
    if reserved || report_path.file_name().is_none() || report_path.to_string_lossy().ends_with('/') {
        let message = format!("{} is not a valid name for the report", report_path.display());
        return Err(Problem::new(Exit::Usage, ProblemKind::Usage, message)
            .advise("Choose a file such as report.md. The recording and the backup get the same name with .jsonl and .bin."));
    }
    let output = Output::create(report_path, false)
        .map_err(|problem| problem.advise("Choose another file with --report."))?;
    // The image is read and checked before the drone is touched.
    let prepared = image.map(|path| prepare(path, &backup, console)).transpose()?;
    let world = bus_for(global, image.map(|_| Helper::IfLost), console)?;
    let jobs = Jobs::new(world, Waits::No, console)?;
    let (collector, drone_state) = (Collector::default(), DroneState::Untouched);
    let mut run =
        Qualification { global, jobs, collector, drone: None, waits: false, drone_state, has_flashed: false };
    let result = run_steps(&mut run, prepared, console);
    let state_text = match (&result, run.drone_state) {
        (Err(EarlyEnd::Failed(failure)), DroneState::Untouched) => {
            report::drone_state(failure.drone).to_owned()
        }
        _ => run.describe_state(&backup),
    };
    let Qualification { jobs, collector, drone_state, has_flashed, .. } = run;
    jobs.finish();
    // If nothing was measured, the drone is missing or cannot be used. Report the failure as other commands do.
    let result = match result {
        Err(EarlyEnd::Failed(failure)) if collector.measured.is_empty() => {
            console.recording.discard_beside(report_path);
            return Err(report::failure_problem(&failure));
        }
        other => other,
    };
    let findings = judge(&collector.measured);
    let reason = result.as_ref().err().map(|end| format!("{end}. {state_text}"));
    let text = qualify_report::markdown(
        &Run {
            version: &crate::sys::version(),
            system: std::env::consts::OS,
            drone: &collector.drone,
            simulated: collector.simulated,
            image: image.and_then(Path::to_str).filter(|_| has_flashed),
            ended: reason.as_deref(),
        },
        &findings,
    );
    let written = output.write(console.recording.redact(text).as_bytes());
    print_findings(&findings, console);
    match &written {
        Ok(()) => console.note(&format!("Report: {}", report_path.display())),
        Err(problem) => console.note(&format!("The report was not written: {problem}")),
    }
    // A failure that concerns the drone takes precedence over a failure to write the report.
    match result {
        Err(EarlyEnd::Failed(failure)) => {
            let problem = report::failure_problem(&failure);
            Err(if drone_state == DroneState::Untouched { problem } else { problem.advise(state_text) })
        }
        Err(EarlyEnd::Problem(problem)) => Err(match drone_state {
            DroneState::Untouched => *problem,
            _ => problem.advise(state_text),
        }),
        Err(end @ (EarlyEnd::Stopped | EarlyEnd::NotConfirmed)) => {
            let problem = Problem::new(Exit::Interrupted, ProblemKind::Stopped, end.to_string());
            Err(problem.advise(state_text))
        }
        Ok(()) => written.map(|()| qualify_report::exit_of(&findings, image.is_some())),
    }
}

/// The image, and the file for the backup.
struct Prepared {
    task: FlashTask,
    backup: Output,
    backup_path: PathBuf,
}

fn prepare(path: &Path, backup: &Path, console: &mut Console) -> Result<Prepared, Problem> {
    let flash = FlashArgs::default();
    let images = approve_images(&[files::read_image(path)?], &flash, console)?;
    let Task::Flash(task) = flash_task(&flash, images)? else {
        return Err(Problem::new(Exit::Defect, ProblemKind::Defect, "not a flash"));
    };
    let output = Output::create(backup, false)
        .map_err(|problem| problem.advise("Choose another file with --report."))?;
    Ok(Prepared { task, backup: output, backup_path: backup.to_owned() })
}

/// Prints the findings. As text, assumptions with the verdict [`Verdict::NotObserved`] are only counted; the report
/// lists them.
fn print_findings(findings: &[Finding], console: &mut Console) {
    for Finding { assumption, verdict, observation } in findings {
        console.finding(
            qualify_report::assumption(*assumption),
            *verdict,
            &qualify_report::observation(observation),
        );
    }
    let not_seen = findings.iter().filter(|finding| finding.verdict == Verdict::NotObserved).count();
    if not_seen > 0 {
        console.note(&format!("Not seen: {not_seen}; see the report"));
    }
}

/// Runs all steps, in order of increasing risk.
fn run_steps(
    run: &mut Qualification<'_>,
    prepared: Option<Prepared>,
    console: &mut Console,
) -> Result<(), EarlyEnd> {
    let first = run.run(Task::Try(Trial::Read), console)?;
    run.drone = first.drone;
    let Some(Prepared { task, backup, backup_path }) = prepared else { return Ok(()) };
    if run.drone.is_none() {
        let message = "the serial number of the drone could not be read";
        let advice = "Unplug the drone, plug it in again and retry. Without the serial number, cfdfu cannot be sure that it puts \
                      everything back on the same drone.";
        return Err(Problem::new(Exit::Device, ProblemKind::NoSerial, message).advise(advice).into());
    }
    // Run all checks of a flash job before the first write, and before the restarts, which take minutes.
    run.run_until(Task::Flash(task.clone()), Ready::Cancel, console)?;
    confirm(&backup_path, run, console)?;
    let ended = run.run(Task::Backup(whole_flash()?), console)?;
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
    run.run(Task::Try(Trial::Write), console)?;
    let flashed = flash_and_put_back(run, task, &before, console);
    let compared = compare(run, before, console);
    flashed.and(compared)
}

/// Flashes the image, then restores what the image has overwritten.
fn flash_and_put_back(
    run: &mut Qualification<'_>,
    task: FlashTask,
    before: &[u8],
    console: &mut Console,
) -> Result<(), EarlyEnd> {
    let Some(copy) = overwritten(&task, before) else {
        console.note("The image was not flashed: the drone contains no firmware to put back afterwards.");
        return Ok(());
    };
    run.has_flashed = true;
    let flashed = run.run(Task::Flash(task), console);
    if run.drone_state != DroneState::Untouched && !run.jobs.is_stopped() {
        let overrides = Overrides { allow_mismatch: true, ..Overrides::default() };
        let image = admission::undo(copy, overrides).map_err(|refusal| report::refusal(&refusal))?;
        let task =
            FlashTask { change: Change::Undo, mismatch: Mismatch::Allow, ..FlashTask::new(image, None) };
        run.run(Task::Flash(task), console)?;
        run.drone_state = DroneState::Untouched;
    }
    flashed.map(drop)
}

/// Compares the whole flash with the backup.
fn compare(run: &mut Qualification<'_>, before: Vec<u8>, console: &mut Console) -> Result<(), EarlyEnd> {
    let segment = Segment { address: LOADER_BASE, data: before };
    let compared = run.run(Task::Verify(vec![segment]), console);
    let is_back = match &compared {
        Ok(_) => Some(true),
        Err(EarlyEnd::Failed(Failure { kind: FailureKind::Differs { .. }, .. })) => Some(false),
        // The comparison itself failed, so the result is unknown.
        Err(_) => None,
    };
    if is_back == Some(false) {
        run.drone_state = DroneState::Mixed;
    }
    run.collector.measured.extend(is_back.map(Measurement::PutBack));
    compared.map(drop)
}

/// Returns what the image overwrites: from the start of the firmware to the end of the image's last sector. Returns
/// `None` if this range is blank, because a flash job cannot erase without writing.
fn overwritten(task: &FlashTask, before: &[u8]) -> Option<Segment> {
    let end = task.image.segments().iter().map(Segment::end).max()?;
    let map = MemoryMap::stm32f405();
    let sector = map.sectors().iter().find(|sector| end <= sector.span.end())?;
    let offset = |address: u64| usize::try_from(address.checked_sub(LOADER_BASE.wide())?).ok();
    let data = before.get(offset(FIRMWARE_BASE.wide())?..offset(sector.span.end())?)?.to_vec();
    (!is_blank(&data)).then_some(Segment { address: FIRMWARE_BASE, data })
}

/// Asks the user to type a word to confirm the writes. A signal ends the wait.
fn confirm(backup: &Path, run: &Qualification<'_>, console: &mut Console) -> Result<(), EarlyEnd> {
    console.note(&format!(
        "Next, cfdfu saves the whole flash in {}, restarts the drone {CYCLES} times, writes test data to the \
         last sector of the flash if that sector is blank, flashes the image, and puts everything back. On the \
         simulated chip, this takes two minutes.",
        backup.display()
    ));
    console.note(&format!("Type {WORD} and press Enter to continue:"));
    let (sender, receiver) = channel();
    // A read from standard input cannot be interrupted, so it runs on its own thread.
    thread::spawn(move || {
        let mut line = String::new();
        let _ = io::stdin().lock().take(64).read_line(&mut line);
        let _ = sender.send(line);
    });
    loop {
        match receiver.recv_timeout(SIGNAL_POLL) {
            Ok(line) if line.trim() == WORD => return Ok(()),
            Err(RecvTimeoutError::Timeout) if run.jobs.is_stopped() => return Err(EarlyEnd::Stopped),
            Err(RecvTimeoutError::Timeout) => {}
            Ok(_) | Err(RecvTimeoutError::Disconnected) => return Err(EarlyEnd::NotConfirmed),
        }
    }
}
