//! The command line front end: turns arguments into jobs for the worker, and prints events as text, as a progress bar
//! or as JSON.
//!
//! [`args`] defines the arguments, [`console`] and [`json`] print the events, [`output_file`] writes files, [`run_job`]
//! drives the worker, [`udev`] installs the udev rules, and [`simulate`] attaches a simulated drone to this computer's
//! USB.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::CommandFactory;

use crate::app::{Slot, Then};
use crate::clock::{Clock, RealClock, TeamClock};
use crate::crazyflie::Board;
use crate::crazyflie::names::RadioNames;
use crate::doctor;
use crate::flash::{Address, FLASH_END, LOADER_BASE, Span};
use crate::fleet::{Policy, Station};
use crate::image::{Content, Image, Sha256};
use crate::job::{
    Command, Compare, Device, DeviceInfo, DroneAt, Enter, Event, FailureKind, FlashImage, FlashTask, Job,
    Keep, Leave, Mismatch, Outcome, Report, Running, Selector, Task, Verify, Width,
};
use crate::plan::admission::{self, Overrides, Refusal};
use crate::plan::undo::{Change, NoCopy, NoUndo};
use crate::record::StateDir;
use crate::recording::tape::Tape;
use crate::report::{self, Exit, Problem, ProblemKind};
use crate::scan;
use crate::settings::Settings;
use crate::sim::scenario::{SCENARIOS, Scenario};
use crate::supervise::{UndoTarget, Waits};
use crate::sys::signals::Signals;
use crate::sys::{self, files};
use crate::tui;
use crate::usb::descriptor::is_printable;
use crate::usb::libusb::Libusb;
use crate::usb::{Bus, BusError, CRAZYFLIE, TransferError};
use crate::worker::Worker;

mod args;
mod completions;
mod console;
mod fleet;
mod json;
mod man;
mod output_file;
mod panics;
mod qualify;
#[cfg(feature = "releases")]
mod releases;
mod report_file;
mod run_job;
mod run_recording;
mod simulate;
mod udev;
mod world;

use args::{Args, BatchArgs, CliCommand, DemoKind, DeviceArgs, FlashArgs, Global, ReleaseArgs};
use console::Console;
use run_job::Jobs;
use world::{
    DemoBus, World, bus, bus_for, demo, demo_bus, demo_of_scenario, helper, scenario, with_retries,
    worker_bus,
};

/// Runs the program: parses the arguments, executes the command and returns the exit status.
pub fn main() -> ExitCode {
    panics::install_hook();
    let mut args = Args::of(std::env::args_os().collect()).unwrap_or_else(|error| exit_with_usage(&error));
    if let Some(CliCommand::Qualify { report, .. }) = &args.command {
        // A qualification is always recorded.
        let report = report.clone().unwrap_or_else(|| qualify::DEFAULT_REPORT.into());
        args.global.record.get_or_insert_with(|| report.with_extension("jsonl"));
    }
    let mut console = match Console::new(&args.global) {
        Ok(console) => console,
        Err(problem) => return console::report_early(&problem, args.global.json),
    };
    let exit = perform(&args, &mut console).unwrap_or_else(|problem| {
        console.problem(&problem);
        problem.exit
    });
    ExitCode::from(console.end(exit) as u8)
}

/// Returns a hint if the command may be mistyped, or an empty string. clap treats an unknown first word as the image
/// and reports only the argument after that word.
fn mistyped_command_hint(error: &clap::Error) -> String {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let is_command =
        |word: &String| Args::command().get_subcommands().any(|command| command.get_name() == word);
    let first = arguments.first().filter(|first| !first.starts_with('-'));
    let Some(first) = first.filter(|_| !arguments.iter().any(is_command)) else { return String::new() };
    if error.kind() != clap::error::ErrorKind::UnknownArgument {
        return String::new();
    }
    format!(
        "\n'{first}' is not a command, so cfdfu took it for an image. `cfdfu --help` lists the commands.\n"
    )
}

/// Prints the help text or a usage error, then exits. The arguments are untrusted, so control characters are removed.
fn exit_with_usage(error: &clap::Error) -> ! {
    let rendered = error.render().to_string();
    if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
        let message = rendered.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let problem = Problem::new(Exit::Usage, ProblemKind::Usage, message)
            .advise("`cfdfu --help` lists the commands and options.");
        let _ = console::print_object(&json::failed_result(&problem));
    }
    let text = rendered.clone() + &mistyped_command_hint(error);
    let printable: String = text.chars().filter(|&c| c == '\n' || is_printable(c)).collect();
    if printable == rendered {
        error.exit();
    }
    let _ = std::io::Write::write_all(&mut std::io::stderr(), printable.as_bytes());
    std::process::exit(error.exit_code())
}

/// How long `blink` makes a drone's LEDs blink.
const BLINK_TIME: Duration = Duration::from_secs(10);

#[allow(clippy::too_many_lines, reason = "one match arm per command")]
fn perform(args: &Args, console: &mut Console) -> Result<Exit, Problem> {
    let global = &args.global;
    if global.demo.as_ref().is_some_and(|name| name.as_deref() == Some(args::DEMO_HELP)) {
        list_scenarios(console);
        return Ok(Exit::Done);
    }
    let is_batch = match &args.command {
        Some(
            CliCommand::Flash { batch, .. }
            | CliCommand::Identify { batch, .. }
            | CliCommand::Backup { batch, .. }
            | CliCommand::Undo { batch, .. }
            | CliCommand::Blink { batch }
            | CliCommand::Verify { batch, .. },
        ) => batch.all,
        Some(CliCommand::Station { .. }) => true,
        _ => false,
    };
    if global.device.len() > 1 && !is_batch {
        let message = "--device is given more than once";
        return Err(Problem::new(Exit::Usage, ProblemKind::Usage, message)
            .advise("Give it once, or add --all if the command accepts it."));
    }
    let Some(command) = &args.command else { return open_interface(global, args.image.as_deref(), console) };
    if let Some(image) = &args.image {
        let message = format!("unexpected argument '{}' before the command", image.display());
        return Err(Problem::new(Exit::Usage, ProblemKind::Usage, &message)
            .advise("`cfdfu --help` lists the commands."));
    }
    match command {
        CliCommand::Flash { image, sha256, release, batch, flash } => {
            require_one_source(release, !image.is_empty())?;
            let drones = (&flash.device, batch.all);
            let images = match files_of_release(global, release, *sha256, drones, console)? {
                Some(files) => approve_images(&files, flash, console)?,
                None => load_images(image, *sha256, flash, console)?,
            };
            if batch.all {
                let task = BatchTask::flash(flash, images)?;
                return run_all(global, batch, &flash.device, task, None, console);
            }
            flash_job(global, flash, images, console).map(|(_, exit)| exit)
        }
        CliCommand::Station { image, count, yes, resume, report, flash } => {
            let images = load_images(image, None, flash, console)?;
            let record = StateDir::of_user().filter(|_| global.demo.is_none());
            let identity = identity_of(&images);
            let done = record.as_ref().filter(|_| *resume).map(|record| record.journal(&identity));
            let journal = record.and_then(|record| Some((record.open_journal(*resume).ok()?, identity)));
            let done = done.unwrap_or_default();
            let station = Station { count: *count, hold: !*yes, done };
            let batch =
                BatchArgs { all: true, expect: None, jobs: 32, strict: false, report: report.clone() };
            let task = BatchTask::flash(flash, images)?;
            run_all(global, &batch, &flash.device, task, Some((station, journal)), console)
        }
        CliCommand::RestoreBootloader { loader, release, firmware, flash } => {
            require_one_source(release, loader.is_some())?;
            let loader = match loader_of_release(global, release, console)? {
                Some(loader) => loader,
                None => image_or_demo(loader.as_deref(), None, || simulate::demo_image(DemoKind::Loader))?,
            };
            restore_job(global, &loader, firmware.as_deref(), flash, console)
        }
        #[cfg(feature = "releases")]
        CliCommand::Releases { forget: true, .. } => releases::forget(global, console),
        #[cfg(feature = "releases")]
        CliCommand::Releases { pre, refresh, source, .. } => {
            releases::list(global, source, *pre, *refresh, console)
        }
        #[cfg(feature = "releases")]
        CliCommand::Fetch { version, board, loader, to, source } => {
            let order = releases::Order {
                wanted: version,
                board: board.as_deref(),
                loader: *loader,
                to: to.as_deref(),
            };
            releases::fetch(global, source, &order, console)
        }
        CliCommand::List => list(global, console),
        CliCommand::Identify { wait, batch } => {
            let device = DeviceArgs { wait: *wait, no_enter: true };
            if batch.all {
                return run_all(global, batch, &device, Task::Identify.into(), None, console);
            }
            let report = run(global, &device, Task::Identify, console)?;
            Ok(console.conclude(&report, false))
        }
        CliCommand::Blink { batch } => {
            let (device, task) = (DeviceArgs { wait: 0, no_enter: true }, Task::Blink(BLINK_TIME));
            if batch.all {
                return run_all(global, batch, &device, task.into(), None, console);
            }
            let report = run(global, &device, task, console)?;
            Ok(console.conclude(&report, false))
        }
        CliCommand::Console { selector, limit, wait } => {
            watch_console(global, selector.as_ref(), *limit, *wait, console)
        }
        CliCommand::Inspect { image } => {
            let image = files::read_image(image)?;
            console.inspection(&image);
            // Incomplete firmware in a backup is not an error: the firmware was already incomplete on the drone.
            if !matches!(image.content, Content::WholeFlash(_)) {
                admission::check_complete(&image).map_err(|refusal| report::refusal(&refusal))?;
            }
            Ok(Exit::Done)
        }
        CliCommand::Verify { image, address, batch, device } => {
            let image = files::read_image(image)?;
            let task = verify_task(&image, *address, console)?;
            if batch.all {
                return run_all(global, batch, device, task.into(), None, console);
            }
            let report = run(global, device, task, console)?;
            Ok(console.conclude(&report, false))
        }
        CliCommand::Undo { allow_mismatch, batch, device } if batch.all => {
            let undo = Some(*allow_mismatch);
            run_all(global, batch, device, BatchTask { undo, ..Task::Find.into() }, None, console)
        }
        CliCommand::Undo { allow_mismatch, device, .. } => undo_job(global, device, *allow_mismatch, console),
        CliCommand::Backup { file, force, batch, device } if batch.all => {
            let folder = Some((file.clone(), *force));
            let task = BatchTask { folder, ..Task::Backup(whole_flash()?).into() };
            run_all(global, batch, device, task, None, console)
        }
        CliCommand::Backup { file, force, device, .. } => backup_job(global, device, file, *force, console),
        CliCommand::Doctor => doctor(global, console),
        CliCommand::Qualify { image, report } => {
            qualify::qualify(global, image.as_deref(), report.as_deref(), console)
        }
        CliCommand::Recording { capture } => {
            let lines = world::read_recording(capture)?;
            let mut tape = Tape::default().to_memory_of(lines.len());
            if global.redact {
                tape = tape.redacted();
            }
            for line in lines {
                tape.push(line);
            }
            print(console, &tape.text())
        }
        CliCommand::Udev { check: true, .. } => {
            let rules = doctor::check_udev(&gather(world_or_error(global, console)?.as_ref()));
            if rules.is_empty() {
                console.line(udev::NO_UDEV);
            }
            Ok(if print_checks(&rules, console) { Exit::Done } else { Exit::NoPermission })
        }
        CliCommand::Udev { install, .. } => udev::udev(*install, console),
        CliCommand::Completions { shell } => print(console, &completions::script(*shell)),
        CliCommand::Man => print(console, &man::page(Args::command())),
        CliCommand::Simulate { scenario } => simulate::simulate(scenario.as_deref(), console),
        CliCommand::DemoImage { file, kind, version, size, force } => {
            let bytes = simulate::image(*kind, version, *size);
            output_file::Output::create(file, *force)?.write(&bytes)?;
            console.line(&format!(
                "Wrote {}, {} bytes, for the simulated Crazyflie",
                file.display(),
                bytes.len()
            ));
            Ok(Exit::Done)
        }
    }
}

/// Restores the bootloader, and a firmware image if one is given.
fn restore_job(
    global: &Global,
    loader: &Image,
    firmware: Option<&Path>,
    flash: &FlashArgs,
    console: &mut Console,
) -> Result<Exit, Problem> {
    let overrides = overrides(flash);
    if overrides.address.is_some() && firmware.is_none() {
        let advice = "Omit --address: the bootloader's address is fixed. With --firmware, --address sets \
            the firmware's address.";
        let message = "--address does not apply to a bootloader";
        return Err(Problem::new(Exit::Usage, ProblemKind::Address, message).advise(advice));
    }
    console.image(loader);
    let firmware = firmware.map(files::read_image).transpose()?;
    if let Some(firmware) = &firmware {
        console.image(firmware);
    }
    let approved = admission::restore(loader, firmware.as_ref(), overrides)
        .map_err(|refusal| report::refusal(&refusal))?;
    let restored = report::describe_restore(approved.segments());
    // `loader` may be a backup of the whole flash. Without --firmware, the firmware in that backup is also restored and
    // must be for the drone's board.
    let firmware = firmware.as_ref().unwrap_or(loader).content.firmware();
    let image = FlashImage::new(approved, firmware);
    let (report, exit) = flash_job(global, flash, vec![image], console)?;
    match &report.outcome {
        Outcome::Flashed => restored.into_iter().for_each(|text| console.line(&text)),
        Outcome::Unchanged => console.line("The bootloader was already in place."),
        _ => {}
    }
    Ok(exit)
}

/// Prints `text` and nothing else on standard output, so that the output can be redirected. With `--json`, prints it as
/// an object. A closed pipe is not an error.
fn print(console: &Console, text: &str) -> Result<Exit, Problem> {
    if console.text(text) {
        return Ok(Exit::Done);
    }
    let mut out = std::io::stdout();
    match std::io::Write::write_all(&mut out, text.as_bytes()).and_then(|()| std::io::Write::flush(&mut out))
    {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            let message = format!("cannot write to standard output: {error}");
            Err(Problem::new(Exit::CannotCreate, ProblemKind::Output, &message)
                .advise("Free some disk space, or redirect the output to another disk."))
        }
        _ => Ok(Exit::Done),
    }
}

/// Opens the terminal interface. Without USB, the interface still opens and shows the error.
fn open_interface(global: &Global, image: Option<&Path>, console: &mut Console) -> Result<Exit, Problem> {
    if global.json {
        let advice = "Add a command, such as `cfdfu flash IMAGE --json`. `cfdfu --help` lists the commands.";
        return Err(
            Problem::new(Exit::Usage, ProblemKind::NoCommand, "--json needs a command").advise(advice)
        );
    }
    let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
    let settings = Settings::load();
    let theme = console::theme(global, &settings.0);
    let (bus, demo): (Arc<dyn Bus>, _) = if let Some(name) = &global.demo {
        let DemoBus { bus, sim } = demo(global, &clock, console)?;
        let name = name.as_deref().unwrap_or(scenario(None).name);
        (bus, Some((sim, name.to_owned())))
    } else {
        let bus: Arc<dyn Bus> = match Libusb::new() {
            Ok(bus) => Arc::new(bus),
            Err(error) => Arc::new(sys::NoUsb(error, Arc::clone(&clock))),
        };
        (bus, None)
    };
    let selector = selector(global);
    let tape = console.recording.keep_in_memory();
    let (bus, recorded_clock) = console.recording.world(global, (bus, Arc::clone(&clock)));
    let new_bus = worker_bus(&bus, demo.is_none(), console);
    let log = console.take_log();
    let mut world =
        tui::World { bus, worker_bus: new_bus, clock: recorded_clock, demo, settings, selector, log, tape };
    let image = image.map(sys::absolute);
    let mut run = |world: &tui::World| {
        let ended = if global.plain || !tui::has_terminal() {
            tui::plain::run(world, image.as_deref())
        } else {
            tui::run(world, image.as_deref(), &theme).inspect(|app| console.print_last_outcome(app))
        };
        ended.map_err(|error| {
            let advice = "Use a command instead, such as `cfdfu flash IMAGE`.";
            Problem::new(Exit::Defect, ProblemKind::Terminal, format!("cannot use the terminal: {error}"))
                .advise(advice)
        })
    };
    let app = run(&world)?;
    if app.after_quit == Then::Practise {
        // The practice session does not affect the exit status.
        let practice = scenario(Some("dead"));
        let DemoBus { bus, sim } = demo_of_scenario(practice, &clock);
        (world.bus, world.demo) = (Arc::clone(&bus), Some((sim, practice.name.to_owned())));
        world.worker_bus = Arc::new(move || Arc::clone(&bus));
        world.selector = Selector::default();
        run(&world)?;
    }
    // If no job ran, an unusable image determines the exit status.
    let exit_without_job = match &app.image {
        Slot::Bad(_, problem) => problem.exit,
        _ => Exit::Done,
    };
    Ok(app.exit.unwrap_or(exit_without_job))
}

fn overrides(flash: &FlashArgs) -> Overrides {
    Overrides { address: flash.address, allow_mismatch: flash.allow_mismatch }
}

/// Reads and checks the images to flash. Refuses two images for the same board.
fn load_images(
    paths: &[PathBuf],
    sha256: Option<Sha256>,
    flash: &FlashArgs,
    console: &mut Console,
) -> Result<Vec<FlashImage>, Problem> {
    let mut paths: Vec<Option<&Path>> = paths.iter().map(|path| Some(path.as_path())).collect();
    if paths.is_empty() {
        // `None` stands for the demo's own image.
        paths.push(None);
    }
    let read = |path| image_or_demo(path, sha256, || simulate::demo_image(DemoKind::Firmware));
    let files: Vec<Image> = paths.into_iter().map(read).collect::<Result<_, _>>()?;
    approve_images(&files, flash, console)
}

/// Checks images that have already been read. Refuses two images for the same board.
fn approve_images(
    files: &[Image],
    flash: &FlashArgs,
    console: &mut Console,
) -> Result<Vec<FlashImage>, Problem> {
    let mut images: Vec<FlashImage> = Vec::new();
    for image in files {
        console.image(image);
        let approved =
            admission::flash(image, overrides(flash)).map_err(|refusal| report::refusal(&refusal))?;
        let image = FlashImage::new(approved, image.content.firmware());
        if let Some(board) = images.iter().find_map(|other| common_board(other, &image)) {
            let message = format!("two images are for {board}");
            return Err(Problem::new(Exit::Image, ProblemKind::SameBoard, message)
                .advise("Omit the one that you do not want. Nothing was changed."));
        }
        images.push(image);
    }
    Ok(images)
}

/// Refuses a file together with `--release`, and release options without `--release`.
#[cfg(feature = "releases")]
fn require_one_source(release: &ReleaseArgs, has_file: bool) -> Result<(), Problem> {
    let usage = |message: &str, advice: &str| {
        Err(Problem::new(Exit::Usage, ProblemKind::Usage, message).advise(advice))
    };
    let from_release = release.source.offline || release.source.from.is_some();
    match &release.release {
        Some(_) if has_file => usage("a file and --release cannot be used together", "Omit one of them."),
        None if from_release => {
            usage("--offline and --from need --release", "Add --release latest, for example.")
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(not(feature = "releases"))]
#[allow(clippy::unnecessary_wraps, reason = "the same signature as with the feature")]
fn require_one_source(_: &ReleaseArgs, _: bool) -> Result<(), Problem> {
    Ok(())
}

/// Returns the images of a release for the connected drones, or `None` without `--release`.
#[cfg(feature = "releases")]
fn files_of_release(
    global: &Global,
    release: &ReleaseArgs,
    sha256: Option<Sha256>,
    drones: (&DeviceArgs, bool),
    console: &mut Console,
) -> Result<Option<Vec<Image>>, Problem> {
    let Some(wanted) = &release.release else { return Ok(None) };
    let files = releases::files(global, &release.source, wanted, release.board.as_deref(), drones, console)?;
    if let Some(expected) = sha256
        && let Some(file) = files.iter().find(|file| file.sha256 != expected)
    {
        return Err(report::wrong_checksum(expected, file.sha256).about(&file.name));
    }
    Ok(Some(files.into_iter().map(|file| file.image).collect()))
}

#[cfg(not(feature = "releases"))]
#[allow(clippy::unnecessary_wraps, reason = "the same signature as with the feature")]
fn files_of_release(
    _: &Global,
    _: &ReleaseArgs,
    _: Option<Sha256>,
    _: (&DeviceArgs, bool),
    _: &mut Console,
) -> Result<Option<Vec<Image>>, Problem> {
    Ok(None)
}

/// Returns the bootloader of a release, or `None` without `--release`.
#[cfg(feature = "releases")]
fn loader_of_release(
    global: &Global,
    release: &ReleaseArgs,
    console: &mut Console,
) -> Result<Option<Image>, Problem> {
    let Some(wanted) = &release.release else { return Ok(None) };
    releases::loader(global, &release.source, wanted, console).map(|fetched| Some(fetched.image))
}

#[cfg(not(feature = "releases"))]
#[allow(clippy::unnecessary_wraps, reason = "the same signature as with the feature")]
fn loader_of_release(_: &Global, _: &ReleaseArgs, _: &mut Console) -> Result<Option<Image>, Problem> {
    Ok(None)
}

/// Returns a board that both images support. An image that names no board supports every board.
fn common_board(one: &FlashImage, other: &FlashImage) -> Option<String> {
    if one.boards.is_empty() || other.boards.is_empty() {
        return Some("the same board".to_owned());
    }
    let code = one.boards.iter().find(|code| other.boards.contains(code))?;
    Some(Board::named(code).to_string())
}

/// Returns the text that identifies these images in a station's journal.
fn identity_of(images: &[FlashImage]) -> String {
    let bytes: Vec<u8> =
        images.iter().flat_map(|image| image.image.segments()).flat_map(|part| part.data.clone()).collect();
    Sha256::of(&bytes).to_string()
}

/// The task for each drone in a batch.
struct BatchTask {
    task: Task,
    /// The versions of the task's images, for the report.
    images: Vec<String>,
    /// Whether each drone must be running afterwards.
    require_boot: bool,
    /// The folder for backups, and whether files in it may be overwritten.
    folder: Option<(PathBuf, bool)>,
    /// Whether an undo allows a mismatch; `None` if this is not an undo. The `task` of an undo only finds the drone.
    undo: Option<bool>,
}

impl BatchTask {
    /// Creates the batch task that flashes these images. Each drone gets the image for its board.
    fn flash(flash: &FlashArgs, images: Vec<FlashImage>) -> Result<BatchTask, Problem> {
        let name = |image: &FlashImage| image.version.clone().unwrap_or_else(|| "image".to_owned());
        let names = images.iter().map(name).collect();
        let task = flash_task(flash, images)?;
        Ok(BatchTask { images: names, require_boot: flash.require_boot, ..task.into() })
    }
}

impl From<Task> for BatchTask {
    fn from(task: Task) -> BatchTask {
        BatchTask { task, images: Vec::new(), require_boot: false, folder: None, undo: None }
    }
}

/// Runs a task on all drones at the same time; for a station, also on drones that are plugged in later.
fn run_all(
    global: &Global,
    batch: &BatchArgs,
    device: &DeviceArgs,
    BatchTask { task, images, require_boot, folder, undo }: BatchTask,
    station: Option<(Station, Option<(File, String)>)>,
    console: &mut Console,
) -> Result<Exit, Problem> {
    let is_json = |path: &Path| path.extension().is_some_and(|name| name.eq_ignore_ascii_case("json"));
    let create = |path: &Path| Ok((output_file::Output::create(path, false)?, is_json(path)));
    let report = batch.report.as_deref().map(create).transpose()?;
    if let Some((folder, _)) = &folder {
        std::fs::create_dir_all(folder).map_err(|error| {
            let message = format!("cannot create the folder {}: {error}", folder.display());
            Problem::new(Exit::CannotCreate, ProblemKind::OutputFile, message)
                .advise("Choose another folder.")
        })?;
    }
    console.use_names(names(global));
    let world = batch_world(global, console)?;
    let (station, journal) = station.map_or((None, None), |(station, journal)| (Some(station), journal));
    let job = build_job(global, device, task);
    // The first job of an undo only finds the drone; the second job asks the drone to enter DFU mode.
    let enter = if undo.is_some() { allowed_entry(global, device, Enter::IfRunning) } else { job.enter };
    let enter = entry_for_batch(enter);
    let policy = Policy {
        job: Job { enter, ..job },
        require_boot,
        selected: global.device.clone(),
        planned: Vec::new(),
        expect: batch.expect,
        jobs: batch.jobs,
        wait: Duration::from_secs(device.wait),
        station,
    };
    let options = fleet::Options {
        waits: if device.wait > 0 { Waits::Lost } else { Waits::No },
        logs: Settings::load().0.logs(),
        report,
        images,
        journal,
        folder,
        undo: undo.map(|allow_mismatch| fleet::Undo { allow_mismatch, enter }),
        strict: batch.strict,
    };
    fleet::run(&world, policy, options, console)
}

/// Selects how a drone in a batch enters DFU mode. A batch cannot guide the user through entering DFU mode by hand on
/// several drones.
fn entry_for_batch(enter: Enter) -> Enter {
    if enter == Enter::IfRunning { Enter::Unaided } else { enter }
}

/// Creates the buses and the clock of a batch. In a fast demo, the clock must let several workers sleep at the same
/// time.
fn batch_world(global: &Global, console: &mut Console) -> Result<fleet::FleetWorld, Problem> {
    let (bus, clock) = if global.demo.is_some() && global.demo_fast {
        demo_bus(global, None, Arc::new(TeamClock::new()), console)?
    } else {
        bus(global, console)?
    };
    let is_real = global.demo.is_none() && console.transfer_listener().is_none();
    let new_bus = worker_bus(&bus, is_real, console);
    Ok(fleet::FleetWorld { bus, worker_bus: new_bus, clock })
}

/// Creates the task that flashes these images. Each drone gets the image for its board.
fn flash_task(flash: &FlashArgs, images: Vec<FlashImage>) -> Result<Task, Problem> {
    let mut images = images.into_iter();
    let Some(FlashImage { image, boards, platform, version }) = images.next() else {
        return Err(Problem::new(Exit::Defect, ProblemKind::Defect, "no image"));
    };
    let task = FlashTask {
        boards,
        platform,
        version,
        alternatives: images.collect(),
        compare: if flash.full { Compare::Skip } else { Compare::First },
        keep: if flash.no_undo { Keep::No } else { Keep::Copy },
        verify: if flash.no_verify { Verify::Skip } else { Verify::ReadBack },
        leave: match (flash.no_leave, flash.leave_by_reset) {
            (true, _) => Leave::Stay,
            (false, true) => Leave::Reset,
            (false, false) => Leave::Start,
        },
        width: if flash.byte_mode { Width::Byte } else { Width::Fastest },
        mismatch: if flash.allow_mismatch { Mismatch::Allow } else { Mismatch::Refuse },
        ..FlashTask::new(image, None)
    };
    Ok(Task::Flash(task))
}

/// Flashes one drone.
fn flash_job(
    global: &Global,
    flash: &FlashArgs,
    images: Vec<FlashImage>,
    console: &mut Console,
) -> Result<(Report, Exit), Problem> {
    let task = flash_task(flash, images)?;
    let mut jobs = start_jobs(global, &flash.device, console)?;
    let report = jobs.run_to_completion(build_job(global, &flash.device, task), console);
    jobs.finish();
    let exit = console.conclude(&report, flash.require_boot);
    Ok((report, exit))
}

/// Reads the image, or uses the demo's own image if no path is given.
fn image_or_demo(
    path: Option<&Path>,
    sha256: Option<Sha256>,
    demo: impl FnOnce() -> Vec<u8>,
) -> Result<Image, Problem> {
    let Some(path) = path else {
        let image = Image::parse(demo()).map_err(|error| report::image_error(&error))?;
        return match sha256 {
            Some(expected) if image.sha256 != expected => Err(report::wrong_checksum(expected, image.sha256)),
            _ => Ok(image),
        };
    };
    files::read_image_checked(path, sha256)
}

/// Restores what the last flash of the connected drone overwrote.
fn undo_job(
    global: &Global,
    device: &DeviceArgs,
    allow_mismatch: bool,
    console: &mut Console,
) -> Result<Exit, Problem> {
    let mut jobs = start_jobs(global, device, console)?;
    let found = jobs.run(build_job(global, device, Task::Find), console);
    if found.report.outcome != Outcome::Identified {
        jobs.finish();
        return Ok(console.conclude(&found.report, false));
    }
    let drone = found.drone.ok_or_else(|| {
        Problem::new(Exit::Device, ProblemKind::NoSerial, "the serial number of the drone could not be read")
            .advise(
                "Without it, cfdfu cannot find the previous firmware of this drone. Nothing was changed. \
                Plug the drone in again and retry.",
            )
    })?;
    let target = undo_target(found.undo, &drone)?;
    let description = target.content.as_ref().map_or_else(|| "blank flash".to_owned(), Content::to_string);
    if let Some((path, age)) = &target.file {
        console.line(&format!(
            "Previous firmware, saved {} ago: {description}, {}",
            report::format_age(*age),
            path.display()
        ));
    }
    let task = undo_task(target, allow_mismatch).map_err(|refusal| report::refusal(&refusal))?;
    let report = jobs.run_to_completion(build_job(global, device, Task::Flash(task)).of(drone), console);
    jobs.finish();
    Ok(console.conclude(&report, false))
}

/// Creates the task that restores the previous content of a drone.
fn undo_task(target: UndoTarget, allow_mismatch: bool) -> Result<FlashTask, Refusal> {
    let UndoTarget { copy, content, expected, .. } = target;
    let image = admission::undo(copy, Overrides { allow_mismatch, ..Overrides::default() })?;
    Ok(FlashTask {
        change: Change::Undo,
        expected,
        mismatch: if allow_mismatch { Mismatch::Allow } else { Mismatch::Refuse },
        ..FlashTask::new(image, content.as_ref().and_then(Content::firmware))
    })
}

/// Returns what the undo writes, or explains why there is nothing to undo.
fn undo_target(target: Result<Box<UndoTarget>, NoUndo>, drone: &DroneAt) -> Result<UndoTarget, Problem> {
    let no_copy = |message: String, advice: &str| {
        Problem::new(Exit::NoInput, ProblemKind::NoCopy, message)
            .advise(format!("{advice} Nothing was changed."))
    };
    let policy = "Each flash saves what it overwrites, unless you pass --no-undo.";
    let record = StateDir::of_user();
    target.map(|target| *target).map_err(|why| match (why, &record) {
        (_, None) => no_copy("no home directory to save the previous firmware in".to_owned(), policy),
        (NoUndo::NoCopy(NoCopy::NeverFlashed), _) => {
            let DroneAt { port, serial } = drone;
            no_copy(format!("cfdfu has saved no previous firmware for {serial} on port {port}"), policy)
        }
        (NoUndo::NoCopy(why), Some(record)) => {
            let message = format!("nothing to undo: {why}");
            match record.folder_of_copies(drone) {
                Some(folder) => {
                    no_copy(message, &format!("Any firmware saved earlier is in {}.", folder.display()))
                }
                None => no_copy(message, policy),
            }
        }
        (why @ (NoUndo::NoSerial | NoUndo::Io(_)), _) => no_copy(why.to_string(), policy),
    })
}

fn verify_task(image: &Image, address: Option<Address>, console: &mut Console) -> Result<Task, Problem> {
    console.image(image);
    let overrides = Overrides { address, allow_mismatch: true };
    let segments = admission::compare(image, overrides).map_err(|refusal| report::refusal(&refusal))?;
    Ok(Task::Verify(segments))
}

fn backup_job(
    global: &Global,
    device: &DeviceArgs,
    file: &Path,
    force: bool,
    console: &mut Console,
) -> Result<Exit, Problem> {
    // Create the file first: a bad path must fail before the drone is read.
    let output = output_file::Output::create(file, force)?;
    let report = run(global, device, Task::Backup(whole_flash()?), console)?;
    if let Outcome::Read(bytes) = &report.outcome {
        output.write(bytes)?;
        console.result(&report, Some(file));
    } else {
        console.result(&report, None);
    }
    Ok(report::exit_status(&report))
}

fn whole_flash() -> Result<Span, Problem> {
    let flash = Span::between(LOADER_BASE, FLASH_END);
    flash.ok_or_else(|| Problem::new(Exit::Defect, ProblemKind::Defect, "invalid flash range"))
}

fn run(global: &Global, device: &DeviceArgs, task: Task, console: &mut Console) -> Result<Report, Problem> {
    let mut jobs = start_jobs(global, device, console)?;
    let ended = jobs.run(build_job(global, device, task), console);
    jobs.finish();
    Ok(ended.report)
}

/// Prints the console of a running drone for `limit` seconds, or until a key press, Ctrl-C or another signal.
fn watch_console(
    global: &Global,
    chosen: Option<&Selector>,
    limit: Option<u64>,
    wait: u64,
    console: &mut Console,
) -> Result<Exit, Problem> {
    let device = DeviceArgs { wait, no_enter: true };
    let job = build_job(global, &device, Task::Console(limit.map(Duration::from_secs)));
    let job = Job { device: chosen.cloned().unwrap_or(job.device), ..job };
    let mut jobs = start_jobs(global, &device, console)?;
    let report = jobs.watch(job, console);
    jobs.finish();
    Ok(console.conclude(&report, false))
}

fn start_jobs(global: &Global, device: &DeviceArgs, console: &mut Console) -> Result<Jobs, Problem> {
    let world = bus_for(global, helper(device), console)?;
    let waits = if device.wait > 0 { Waits::Lost } else { Waits::No };
    Jobs::new(world, waits, console)
}

fn build_job(global: &Global, device: &DeviceArgs, task: Task) -> Job {
    let job = Job::new(task);
    let enter = allowed_entry(global, device, job.enter);
    Job { device: selector(global), wait: Duration::from_secs(device.wait), enter, ..job }
}

/// Decides from the options and the udev rules whether cfdfu may ask a running drone to enter DFU mode.
fn allowed_entry(global: &Global, device: &DeviceArgs, enter: Enter) -> Enter {
    match enter {
        _ if device.no_enter => Enter::Never,
        // `choose_enter` reads the udev rules, so call it only when the answer matters.
        Enter::IfRunning if global.demo.is_none() => sys::symptoms::choose_enter(),
        other => other,
    }
}

fn selector(global: &Global) -> Selector {
    global.device.first().cloned().unwrap_or_default()
}

/// Prints a checklist of the problems that can prevent a drone from being found or opened.
fn doctor(global: &Global, console: &mut Console) -> Result<Exit, Problem> {
    let world = world_or_error(global, console)?;
    let mut symptoms = gather(world.as_ref());
    if let Ok((bus, clock)) = world {
        symptoms.answers = query_drones(&bus, &clock, &symptoms.drones);
    }
    let passed = print_checks(&doctor::diagnose(&symptoms), console);
    Ok(if passed { Exit::Done } else { Exit::NoDevice })
}

/// Queries the running drones that can be opened, one after another.
fn query_drones(
    bus: &Arc<dyn Bus>,
    clock: &Arc<dyn Clock>,
    drones: &[doctor::SeenDrone],
) -> Vec<doctor::Answers> {
    /// More queries would make the checklist slow and long; `identify --all` queries all drones at once.
    const QUERIES_MAX: usize = 8;
    let asked = drones.iter().filter(|drone| drone.id == CRAZYFLIE && drone.open_error.is_none());
    // A signal stops only the queries, and only once the current query has ended, so that no drone's link stays
    // switched to USB. The checklist is still printed.
    let stopped = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&stopped);
    let signals = Signals::listen(move |_| stop.store(true, Ordering::SeqCst));
    let worker = Worker::spawn(Arc::clone(bus), Arc::clone(clock));
    let asked = asked.take(QUERIES_MAX).take_while(|_| !stopped.load(Ordering::SeqCst));
    let answers = asked.map(|drone| {
        let place = drone.place.clone();
        let device = place.parse().unwrap_or_default();
        let job = Job { device, ..Job::new(Task::Identify) };
        let _ = worker.commands.send(Command::Run(Box::new(job)));
        let mut answers = doctor::Answers { place, ..doctor::Answers::default() };
        for event in &worker.events {
            match event {
                Event::Known(info) => {
                    if let DeviceInfo::Running(running) = *info {
                        let Running { version, board, health, .. } = running;
                        answers = doctor::Answers { version, board, health, ..answers };
                    }
                }
                Event::Finished(_) => break,
                _ => {}
            }
        }
        answers
    });
    let answers = answers.collect();
    worker.join();
    let _ = signals.map(Signals::stop);
    answers
}

fn world_or_error(global: &Global, console: &mut Console) -> Result<Result<World, BusError>, Problem> {
    if global.demo.is_some() {
        return Ok(Ok(bus(global, console)?));
    }
    let real = |bus| (Arc::new(bus) as Arc<dyn Bus>, Arc::new(RealClock::new()) as Arc<dyn Clock>);
    Ok(Libusb::new().map(real))
}

fn gather(world: Result<&World, &BusError>) -> doctor::Symptoms {
    let bus = world.map(|world| with_retries(world.clone())).map_err(Clone::clone);
    sys::symptoms::gather(bus.as_ref().map(|bus| bus as &dyn Bus))
}

/// Prints the checks and returns true if none of them failed.
fn print_checks(checks: &[doctor::Check], console: &mut Console) -> bool {
    for check in checks {
        console.check(check);
    }
    checks.iter().all(|check| check.verdict != doctor::Verdict::Bad)
}

fn list(global: &Global, console: &mut Console) -> Result<Exit, Problem> {
    let bus = with_retries(bus(global, console)?);
    let mut devices = scan::list_devices(&bus).map_err(|error| bus_problem(error.into()))?;
    let selector = selector(global);
    devices.retain(|device| selector.matches(device));
    let names = names(global);
    let radio = |device: &Device| {
        let present = devices.iter().map(|device| device.strings.serial.as_str());
        names.of(&device.strings.serial, present).map(|radio| radio.to_string())
    };
    for device in &devices {
        console.device(device, radio(device).as_deref());
    }
    match devices.as_slice() {
        [] => match scan::choose_device(&bus, &selector) {
            Err(kind) => Err(bus_problem(kind)),
            // A drone was plugged in after the list was read.
            Ok(device) => {
                console.device(&device, radio(&device).as_deref());
                Ok(Exit::Done)
            }
        },
        // Fail if the user cannot open any of the devices: otherwise, scripts would continue without a usable drone.
        all if all.iter().all(|device| device.open_error.is_some()) => {
            let error = all[0].open_error.unwrap_or(TransferError::Access);
            Err(bus_problem(FailureKind::cannot_open(all[0].id, error)))
        }
        _ => {
            let others = scan::list_related_devices(&bus).map_err(|error| bus_problem(error.into()))?;
            for other in others.iter().filter(|other| other.what.foreign().is_some()) {
                console.note(&format!("{other} is not a Crazyflie: cfdfu does not write to it"));
            }
            Ok(Exit::Done)
        }
    }
}

/// Returns the radio addresses that earlier runs have read; none in a demo.
fn names(global: &Global) -> RadioNames {
    let record = if global.demo.is_some() { None } else { StateDir::of_user() };
    record.map(|record| record.names()).unwrap_or_default()
}

fn bus_problem(kind: FailureKind) -> Problem {
    use crate::job::{DroneState, Failure};
    report::failure_problem(&Failure { kind, place: None, drone: DroneState::Untouched })
}

/// Prints the scenarios for `--demo=help`, with or without a command.
fn list_scenarios(console: &mut Console) {
    for Scenario { name, description, .. } in SCENARIOS {
        console.scenario(name, description);
    }
}
