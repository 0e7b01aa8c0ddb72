//! The command line: what was typed becomes a job for the worker or a look at a file, and what happens
//! becomes lines, a progress bar, or JSON.
//!
//! [`args`] is what can be typed, [`console`] what is shown, [`json`] the same for scripts, [`output_file`]
//! writes files, [`run_job`] joins the worker, [`udev`] has the rules, [`simulate`] is the drone on this
//! computer's own USB.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory, Parser};

use crate::app::Slot;
use crate::clock::{Clock, FastClock, RealClock};
use crate::crazyflie;
use crate::doctor;
use crate::flash::check::{self, Admitted, Wish};
use crate::flash::{FLASH_END, LOADER_BASE, Segment, Span};
use crate::image::{Content, Firmware, Image};
use crate::job::{
    Compare, Enter, FailureKind, FlashTask, Job, Keep, Leave, Mismatch, Outcome, Report, Selector, Task,
    Verify, Width,
};
use crate::record::Record;
use crate::report::{self, Exit, Problem};
use crate::run::{self, files};
use crate::settings::Settings;
use crate::sim::SimBus;
use crate::sim::scenario::{SCENARIOS, Scenario};
use crate::usb::descriptor::is_printable;
use crate::usb::libusb::Libusb;
use crate::usb::trace::Traced;
use crate::usb::{Bus, TransferError};
use crate::worker::find;

mod args;
mod console;
mod json;
mod man;
mod output_file;
mod run_job;
mod simulate;
mod udev;

use args::{Args, Command, DeviceArgs, FlashArgs, Global};
use console::Console;

/// The whole program: parses the arguments, does what they say, gives the exit status.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::try_parse().unwrap_or_else(|error| usage(&error));
    let mut console = match Console::new(&args.global) {
        Ok(console) => console,
        Err(problem) => return console::complain(&problem),
    };
    let exit = match perform(&args, &mut console) {
        Ok(exit) => exit,
        Err(problem) => {
            console.problem(&problem);
            problem.exit
        }
    };
    ExitCode::from(exit as u8)
}

/// A command that is none is taken for an image, and what follows it is what clap complains of.
fn tip(error: &clap::Error) -> String {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|it| it.to_string_lossy().into_owned()).collect();
    let is_command =
        |word: &String| Args::command().get_subcommands().any(|command| command.get_name() == word);
    let first = arguments.first().filter(|first| !first.starts_with('-'));
    let Some(first) = first.filter(|_| !arguments.iter().any(is_command)) else { return String::new() };
    if error.kind() != clap::error::ErrorKind::UnknownArgument {
        return String::new();
    }
    format!("\n'{first}' is no command and was taken for an image; `cfdfu --help` lists the commands.\n")
}

/// Help, or what is wrong with the arguments, which may hold anything: nothing of it is a command to a terminal.
fn usage(error: &clap::Error) -> ! {
    let rendered = error.render().to_string();
    let text = rendered.clone() + &tip(error);
    let printable: String = text.chars().filter(|&c| c == '\n' || is_printable(c)).collect();
    if printable == rendered {
        error.exit();
    }
    let _ = std::io::Write::write_all(&mut std::io::stderr(), printable.as_bytes());
    std::process::exit(error.exit_code())
}

fn perform(args: &Args, console: &mut Console) -> Result<Exit, Problem> {
    let global = &args.global;
    let Some(command) = &args.command else { return interface(global, args.image.as_deref(), console) };
    if let Some(image) = &args.image {
        let message = format!("'{}' stands before the command, where only options do", image.display());
        return Err(report::other(Exit::Usage, "usage", &message, "`cfdfu --help` lists the commands."));
    }
    match command {
        Command::Flash { image, flash } => {
            let wish = wish(flash);
            let image = files::read_image(image)?;
            console.image(&image);
            let admitted = check::flash(&image, wish).map_err(|refusal| report::refusal(&refusal))?;
            flash_job(global, flash, admitted, image.content.firmware(), console)
        }
        Command::RestoreBootloader { loader, firmware, flash } => {
            let wish = wish(flash);
            if wish.address.is_some() && firmware.is_none() {
                let advice = "Leave out --address: the bootloader has one place. With --firmware it is the firmware's.";
                let message = "--address says nothing of a bootloader";
                return Err(report::other(Exit::Usage, "address", message, advice));
            }
            let loader = files::read_image(loader)?;
            console.image(&loader);
            let firmware = firmware.as_deref().map(files::read_image).transpose()?;
            if let Some(firmware) = &firmware {
                console.image(firmware);
            }
            let admitted = check::restore(&loader, firmware.as_ref(), wish)
                .map_err(|refusal| report::refusal(&refusal))?;
            let restored = report::restored(admitted.segments());
            // The firmware in a backup has boards, too, if it is what is written.
            let firmware = firmware.as_ref().unwrap_or(&loader).content.firmware();
            let exit = flash_job(global, flash, admitted, firmware, console)?;
            if let Some(words) = restored.filter(|_| exit == Exit::Done) {
                console.line(&words);
            }
            Ok(exit)
        }
        Command::List => list(global, console),
        Command::Identify { wait } => {
            let device = DeviceArgs { wait: *wait, no_enter: true };
            let report = run(global, &device, Task::Identify, console)?;
            Ok(console.conclude(&report))
        }
        Command::Inspect { image } => {
            console.inspection(&files::read_image(image)?);
            Ok(Exit::Done)
        }
        Command::Verify { image, address, device } => {
            let image = files::read_image(image)?;
            verify_job(global, device, &image, *address, console)
        }
        Command::Undo { allow_mismatch, device } => undo_job(global, device, *allow_mismatch, console),
        Command::Backup { file, force, device } => backup_job(global, device, file, *force, console),
        Command::Doctor => doctor(global, console),
        Command::Udev { check: true, .. } => {
            let rules = doctor::rules(&symptoms(global, console)?);
            if rules.is_empty() {
                console.line("This system has no udev.");
            }
            Ok(if checks(&rules, console) { Exit::Done } else { Exit::NoPermission })
        }
        Command::Udev { install, .. } => udev::udev(*install, console),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Args::command(), "cfdfu", &mut script);
            print(&script)
        }
        Command::Man => print(man::page(Args::command()).as_bytes()),
        Command::Simulate { scenario } => simulate::simulate(scenario.as_deref(), console),
        Command::DemoImage { file, kind, version, size, force } => {
            let bytes = simulate::demo_image(*kind, version, *size);
            output_file::Output::create(file, *force)?.write(&bytes)?;
            Ok(Exit::Done)
        }
    }
}

/// Alone on standard output, so that it can go into a file. A reader that has seen enough is no problem.
fn print(bytes: &[u8]) -> Result<Exit, Problem> {
    let mut out = std::io::stdout();
    match std::io::Write::write_all(&mut out, bytes).and_then(|()| std::io::Write::flush(&mut out)) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            let message = format!("standard output: {error}");
            Err(report::other(Exit::CannotCreate, "output", &message, "Make room, or write it elsewhere."))
        }
        _ => Ok(Exit::Done),
    }
}

/// The terminal interface. Where the kernel has no USB it opens all the same, and says so.
fn interface(
    global: &Global,
    image: Option<&std::path::Path>,
    console: &mut Console,
) -> Result<Exit, Problem> {
    let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
    let settings = Settings::load();
    let theme = console::theme(global, &settings.0);
    let (bus, demo): (Arc<dyn Bus>, _) = if let Some(name) = &global.demo {
        let scenario = scenario(name.as_deref())?;
        let bus = SimBus::new(scenario.drones(clock.now()), Arc::clone(&clock));
        (Arc::new(bus.clone()), Some((bus, scenario.name.to_owned())))
    } else {
        let bus: Arc<dyn Bus> = match Libusb::new() {
            Ok(bus) => Arc::new(bus),
            Err(error) => Arc::new(run::NoUsb(error, Arc::clone(&clock))),
        };
        (bus, None)
    };
    let meant = global.device.clone().unwrap_or_default();
    let world = run::World { bus, clock, demo, settings, meant, log: console.take_log() };
    let image = image.map(run::absolute);
    let ended = if global.plain || !run::has_terminal() {
        run::plain::run(&world, image.as_deref())
    } else {
        run::run(&world, image.as_deref(), &theme).inspect(|app| console.farewell(app))
    };
    let app = ended.map_err(|error| {
        let advice = "Try a command: cfdfu flash IMAGE.";
        report::other(Exit::Defect, "terminal", &format!("the terminal: {error}"), advice)
    })?;
    // Without a job, a file that could not be used is how it ended.
    let file = match &app.image {
        Slot::Bad(_, problem) => problem.exit,
        _ => Exit::Done,
    };
    Ok(app.ended.unwrap_or(file))
}

fn wish(flash: &FlashArgs) -> Wish {
    Wish { address: flash.address, allow_mismatch: flash.allow_mismatch }
}

fn flash_job(
    global: &Global,
    flash: &FlashArgs,
    image: Admitted,
    firmware: Option<&Firmware>,
    console: &mut Console,
) -> Result<Exit, Problem> {
    let task = FlashTask {
        compare: if flash.full { Compare::Skip } else { Compare::First },
        keep: if flash.no_undo { Keep::No } else { Keep::Copy },
        verify: if flash.no_verify { Verify::Skip } else { Verify::ReadBack },
        leave: if flash.no_leave { Leave::Stay } else { Leave::Start },
        width: if flash.byte_mode { Width::Byte } else { Width::Fastest },
        mismatch: if flash.allow_mismatch { Mismatch::Take } else { Mismatch::Refuse },
        ..FlashTask::new(image, firmware)
    };
    let report = flash_to_the_end(global, flash, task, console)?;
    Ok(console.conclude(&report))
}

/// Runs the job and, with `--wait`, once more each time that the drone is lost in mid-flash and comes back.
fn flash_to_the_end(
    global: &Global,
    flash: &FlashArgs,
    mut task: FlashTask,
    console: &mut Console,
) -> Result<Report, Problem> {
    let (bus, clock) = bus(global, console)?;
    let mut job = job(global, &flash.device, Task::Flash(task.clone()));
    let mut lost = None;
    loop {
        let ended = run_job::run(Arc::clone(&bus), Arc::clone(&clock), job.clone(), console)?;
        let Outcome::Failed(failure) = &ended.report.outcome else { return Ok(ended.report) };
        let serial = match ended.serial {
            Some(serial) if failure.is_interruption() && flash.device.wait > 0 => serial,
            // It did not come back: what it was left as is what there is to say.
            None => return Ok(lost.unwrap_or(ended.report)),
            Some(_) => return Ok(ended.report),
        };
        console.interrupted(failure);
        task = task.resumed(failure.drone);
        job = Job { device: Selector::Serial(serial), task: Task::Flash(task.clone()), ..job };
        lost = Some(ended.report);
    }
}

/// What the last flash of the drone that is plugged in overwrote, put back in its place.
fn undo_job(
    global: &Global,
    device: &DeviceArgs,
    allow_mismatch: bool,
    console: &mut Console,
) -> Result<Exit, Problem> {
    let (bus, clock) = bus(global, console)?;
    let find = job(global, device, Task::Find);
    let found = run_job::run(Arc::clone(&bus), Arc::clone(&clock), find, console)?;
    if found.report.outcome != Outcome::Identified {
        return Ok(console.conclude(&found.report));
    }
    let serial = found.serial.unwrap_or_default();
    let serial = crazyflie::dfu_serial(&serial).unwrap_or(serial);
    let (path, copy, age) = last_copy(&serial)?;
    let content = Content::in_flash(&copy.data);
    let what = content.as_ref().map_or_else(|| "nothing".to_owned(), Content::to_string);
    console.line(&format!("Copy made {} ago: {what}, {}", report::age(age), path.display()));
    let wish = Wish { allow_mismatch, ..Wish::default() };
    let image = check::undo(copy, wish).map_err(|refusal| report::refusal(&refusal))?;
    let task = FlashTask::new(image, content.as_ref().and_then(Content::firmware));
    let again = Job { device: Selector::Serial(serial), ..job(global, device, Task::Flash(task)) };
    let report = run_job::run(bus, clock, again, console)?.report;
    Ok(console.conclude(&report))
}

/// The copy to put back, its file and its age.
fn last_copy(serial: &str) -> Result<(std::path::PathBuf, Segment, Duration), Problem> {
    let none = |message: &str| {
        let advice =
            "A copy is kept of whatever is overwritten, unless --no-undo is given. Nothing was touched.";
        report::other(Exit::NoInput, "no_copy", message, advice)
    };
    let record = Record::of_user().ok_or_else(|| none("there is no home directory to keep copies in"))?;
    let copy = record.last_copy(serial).map_err(|error| none(&error.to_string()))?;
    copy.ok_or_else(|| none(&format!("no copy is kept of what was on {serial} before")))
}

fn verify_job(
    global: &Global,
    device: &DeviceArgs,
    image: &Image,
    address: Option<crate::flash::Address>,
    console: &mut Console,
) -> Result<Exit, Problem> {
    console.image(image);
    let wish = Wish { address, allow_mismatch: true };
    let segments = check::compare(image, wish).map_err(|refusal| report::refusal(&refusal))?;
    let report = run(global, device, Task::Verify(segments), console)?;
    Ok(console.conclude(&report))
}

fn backup_job(
    global: &Global,
    device: &DeviceArgs,
    file: &std::path::Path,
    force: bool,
    console: &mut Console,
) -> Result<Exit, Problem> {
    // Made before the drone is touched, so that reading is never for nothing.
    let output = output_file::Output::create(file, force)?;
    let flash = Span::between(LOADER_BASE, FLASH_END);
    let flash = flash.ok_or_else(|| report::other(Exit::Defect, "defect", "no flash", ""))?;
    let report = run(global, device, Task::Backup(flash), console)?;
    if let Outcome::Read(bytes) = &report.outcome {
        output.write(bytes)?;
        console.result(&report, Some(file));
    } else {
        console.result(&report, None);
    }
    Ok(report::exit(&report))
}

fn run(global: &Global, device: &DeviceArgs, task: Task, console: &mut Console) -> Result<Report, Problem> {
    let (bus, clock) = bus(global, console)?;
    Ok(run_job::run(bus, clock, job(global, device, task), console)?.report)
}

fn job(global: &Global, device: &DeviceArgs, task: Task) -> Job {
    Job {
        device: selector(global),
        wait: Duration::from_secs(device.wait),
        enter: if device.no_enter { Enter::Never } else { Enter::IfRunning },
        task,
    }
}

fn selector(global: &Global) -> Selector {
    global.device.clone().unwrap_or_default()
}

/// Why nothing is found or opened, as a check-list.
fn doctor(global: &Global, console: &mut Console) -> Result<Exit, Problem> {
    let good = checks(&doctor::diagnose(&symptoms(global, console)?), console);
    Ok(if good { Exit::Done } else { Exit::NoDevice })
}

fn symptoms(global: &Global, console: &Console) -> Result<doctor::Symptoms, Problem> {
    let bus: Result<Arc<dyn Bus>, _> = if global.demo.is_some() {
        Ok(bus(global, console)?.0)
    } else {
        Libusb::new().map(|bus| Arc::new(bus) as Arc<dyn Bus>)
    };
    Ok(run::symptoms::gather(bus.as_deref()))
}

/// Prints the list; whether nothing on it is bad.
fn checks(checks: &[doctor::Check], console: &mut Console) -> bool {
    for check in checks {
        console.check(check);
    }
    checks.iter().all(|check| check.verdict != doctor::Verdict::Bad)
}

fn list(global: &Global, console: &mut Console) -> Result<Exit, Problem> {
    let (bus, _) = bus(global, console)?;
    let mut devices = find::devices(&*bus).map_err(|error| bus_problem(error.into()))?;
    let selector = selector(global);
    devices.retain(|device| selector.matches(device));
    for device in &devices {
        console.device(device);
    }
    match devices.as_slice() {
        [] => match find::choose(&*bus, &selector) {
            Err(kind) => Err(bus_problem(kind)),
            // It has come in this very moment.
            Ok(device) => {
                console.device(&device);
                Ok(Exit::Done)
            }
        },
        // A device that is there but closed to this user is no success: scripts would go on without it.
        all if all.iter().all(|device| device.closed.is_some()) => {
            let error = all[0].closed.unwrap_or(TransferError::Access);
            Err(bus_problem(find::cannot_open(&all[0], error)))
        }
        _ => Ok(Exit::Done),
    }
}

fn bus_problem(kind: FailureKind) -> Problem {
    use crate::job::{DroneState, Failure};
    report::failed(&Failure { kind, place: None, drone: DroneState::Untouched })
}

/// A bus and the time by which its devices live.
type World = (Arc<dyn Bus>, Arc<dyn Clock>);

/// The real bus, or the one of the demo.
fn bus(global: &Global, console: &Console) -> Result<World, Problem> {
    let clock: Arc<dyn Clock> =
        if global.demo_fast { Arc::new(FastClock::new()) } else { Arc::new(RealClock::new()) };
    if let Some(name) = &global.demo {
        let scenario = scenario(name.as_deref())?;
        let bus = SimBus::new(scenario.drones(clock.now()), Arc::clone(&clock));
        return Ok((traced(bus, console), clock));
    }
    let bus = Libusb::new().map_err(|error| bus_problem(error.into()))?;
    Ok((traced(bus, console), clock))
}

fn traced(bus: impl Bus + 'static, console: &Console) -> Arc<dyn Bus> {
    match console.transfer_listener() {
        Some(listener) => Arc::new(Traced::new(bus, listener)),
        None => Arc::new(bus),
    }
}

fn scenario(name: Option<&str>) -> Result<&'static Scenario, Problem> {
    let name = name.unwrap_or(SCENARIOS[0].name);
    Scenario::by_name(name).ok_or_else(|| {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        let message = format!("there is no scenario {name:?}");
        report::other(Exit::Usage, "no_scenario", &message, &format!("There are: {}.", names.join(", ")))
    })
}
