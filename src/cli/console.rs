//! Prints the output of the commands: a log in the style of dfu-util with a progress bar, or JSON on stdout and the log
//! on stderr.
//!
//! Printing never fails, because a closed terminal must not stop a flash. The exit status reports lost output.

use std::cell::{Cell, OnceCell};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use super::args::Global;
use super::json::{self, Numbered, Object};
use super::run_recording::RunRecording;
use crate::app::{App, Screen};
use crate::clock::{Clock, RealClock};
use crate::crazyflie::ENTER_BY_HAND;
use crate::crazyflie::Mode;
use crate::crazyflie::console::ConsoleLine;
use crate::crazyflie::crtp::Radio;
use crate::crazyflie::names::RadioNames;
use crate::doctor::{Check, Verdict};
use crate::fleet::{Fleet, Row, RowState};
use crate::image::Loader;
use crate::image::{Content, Format, Image, Payload};
use crate::job::{
    Device, DeviceInfo, DroneState, Event, Failure, FailureKind, Level, Outcome, Phase, Preview, Report,
    WaitFor,
};
use crate::qualify;
#[cfg(feature = "releases")]
use crate::releases::{Release, library::Fetched, platform_of};
use crate::report::{self, Exit, Problem, ProblemKind};
use crate::settings::{Color, GlyphSet, Settings, ThemeChoice};
use crate::sim::replay::ReplayBus;
use crate::sys::symptoms;
use crate::ui::theme::{Colours, Glyphs, Theme};
use crate::ui::wrapped;
use crate::usb::descriptor;
use crate::usb::trace::{Listener, Transfer};

use clap::ColorChoice;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;

#[allow(clippy::struct_excessive_bools, reason = "independent switches")]
pub(super) struct Console {
    demo: bool,
    json: bool,
    verbose: u8,
    color: bool,
    /// Whether to draw progress bars.
    live: bool,
    width: usize,
    /// The radio addresses that name the drones in a batch.
    names: RadioNames,
    /// The serial numbers of the drones in a batch.
    serials: Vec<String>,
    /// A progress bar for each drone in a batch.
    bars: Option<(MultiProgress, Vec<ProgressBar>)>,
    /// The bar on the screen. With a phase, the bar shows the progress of that phase; without a phase, the progress of
    /// a download or the time of a wait.
    bar: Option<(Option<Phase>, ProgressBar)>,
    /// The contents of the bootloader's sector, if the job does not write to that sector.
    loader: Option<Loader>,
    log: Option<File>,
    clock: Arc<RealClock>,
    pub(super) recording: RunRecording,
    /// The recording that is replayed instead of a scenario.
    replay: Option<ReplayBus>,
    /// Whether the last object of `--json` has been printed.
    concluded: bool,
    /// The first error from writing to standard output. A closed pipe does not count.
    lost_output: OnceCell<io::Error>,
    /// Whether standard output is a pipe whose reader has closed it.
    closed: Cell<bool>,
}

/// Prints one object as a line on standard output.
pub(super) fn print_object(object: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string(object).map_err(io::Error::other)?;
    // JSON escapes only the control characters below U+0020, but terminals also interpret others (C1, bidirectional
    // marks). All of them fit in the four digits of a \u escape.
    let escaped = |c: char| match u32::from(c) {
        code if !descriptor::is_printable(c) => format!("\\u{code:04x}"),
        _ => c.to_string(),
    };
    let line: String = text.chars().map(escaped).collect();
    writeln!(io::stdout(), "{line}")
}

/// Reports a problem that occurs before the console exists.
pub(super) fn report_early(problem: &Problem, json: bool) -> ExitCode {
    if json {
        let _ = print_object(&json::failed_result(problem));
    }
    let (message, advice) = (printable(&problem.to_string()), printable(&problem.advice.to_string()));
    let _ = writeln!(io::stderr(), "cfdfu: {message}\n{advice}");
    ExitCode::from(problem.exit as u8)
}

impl Console {
    pub(super) fn new(global: &Global) -> Result<Console, Problem> {
        let log = global.log_file.as_deref().map(|path| {
            OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
                let message = format!("cannot open the log file {}: {error}", path.display());
                Problem::new(Exit::CannotCreate, ProblemKind::LogFile, &message)
                    .advise("Choose another file with --log-file.")
            })
        });
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let err = io::stderr();
        let color = match global.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                !dumb && err.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
            }
        };
        let live = err.is_terminal() && (global.json || io::stdout().is_terminal()) && !dumb;
        Ok(Console {
            demo: global.demo.is_some(),
            json: global.json,
            verbose: global.verbose,
            color,
            live,
            width: if live { columns().clamp(40, 98) } else { 98 },
            names: RadioNames::default(),
            serials: Vec::new(),
            bars: None,
            bar: None,
            loader: None,
            log: log.transpose()?,
            clock: Arc::new(RealClock::new()),
            recording: RunRecording::create(global)?,
            replay: None,
            concluded: false,
            lost_output: OnceCell::new(),
            closed: Cell::new(false),
        })
    }

    /// Whether the reader of standard output is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    pub(super) fn is_demo(&self) -> bool {
        self.demo
    }

    /// Hands the `--log-file` file over to the interface.
    pub(super) fn take_log(&mut self) -> Option<File> {
        self.log.take()
    }

    /// Returns a listener that prints every USB transfer, if `-vv` was passed.
    pub(super) fn transfer_listener(&self) -> Option<Listener> {
        let clock = Arc::clone(&self.clock);
        let print = move |transfer: &Transfer| {
            let now = clock.now().as_secs_f64();
            // One write per line, because standard error is unbuffered.
            let _ = io::stderr().write_all(format!("{now:9.4}  {transfer}\n").as_bytes());
        };
        (self.verbose >= 2).then(|| Arc::new(print) as Listener)
    }

    pub(super) fn line(&mut self, text: &str) {
        let text = &printable(text);
        self.write_log_file(text);
        let text = if self.verbose > 0 {
            format!("{:8.3}  {text}", self.clock.now().as_secs_f64())
        } else {
            text.to_owned()
        };
        let json = self.json;
        let write = || if json { writeln!(io::stderr(), "{text}") } else { writeln!(io::stdout(), "{text}") };
        let written = match (&self.bar, &self.bars) {
            (Some((_, bar)), _) => bar.suspend(write),
            (None, Some((bars, _))) if !json => bars.println(&text),
            (None, Some((bars, _))) => bars.suspend(write),
            (None, None) => write(),
        };
        if !json {
            self.note_output(written);
        }
    }

    fn write_log_file(&mut self, text: &str) {
        let now = self.clock.now().as_secs_f64();
        if let Some(log) = &mut self.log {
            // A full disk must not stop a flash.
            let _ = writeln!(log, "{now:9.3}  {text}");
        }
    }

    fn object(&self, object: &Object<'_>) {
        if self.json {
            let written = print_object(object);
            self.note_output(written);
        }
    }

    fn last_object(&mut self, object: &Object<'_>) {
        self.object(object);
        self.concluded = true;
    }

    /// With `--json`, prints a command's whole output as one object. Returns false if the caller must print the text.
    pub(super) fn text(&self, text: &str) -> bool {
        self.object(&Object::Text { text });
        self.json
    }

    /// Prints a row of `--demo=help`.
    pub(super) fn scenario(&mut self, name: &str, what: &str) {
        self.object(&Object::Scenario { name, what });
        if !self.json {
            self.line(&format!("{name:<16} {what}"));
        }
    }

    fn note_output(&self, written: io::Result<()>) {
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.closed.set(true),
            Err(error) => drop(self.lost_output.set(error)),
            Ok(()) => {}
        }
    }

    /// Ends the command and returns its exit status. Success becomes an error if output was lost: a script must not
    /// rely on a truncated file.
    pub(super) fn end(&mut self, exit: Exit) -> Exit {
        self.conclude_without_job(exit);
        if let Some(replay) = self.replay.take() {
            for text in replay.report().to_string().lines() {
                self.note(text);
            }
        }
        if let Some(incomplete) = self.recording.end() {
            let _ = writeln!(io::stderr(), "cfdfu: {incomplete}");
            return if exit == Exit::Done { Exit::CannotCreate } else { exit };
        }
        match self.lost_output.get() {
            Some(error) if exit == Exit::Done => {
                let _ = writeln!(io::stderr(), "cfdfu: cannot write to standard output: {error}");
                Exit::CannotCreate
            }
            _ => exit,
        }
    }

    /// Sets the recording that the command replays. [`Console::end`] reports the result of the replay.
    pub(super) fn set_replay(&mut self, replay: ReplayBus) {
        self.replay = Some(replay);
    }

    /// Prints the `result` object of a command that ran no job.
    fn conclude_without_job(&mut self, exit: Exit) {
        if self.concluded {
            return;
        }
        let object = match exit {
            Exit::Done => json::unchanged_result(),
            other => {
                let advice = "See the `check` events, with remedies, or the `finding` events of `qualify`.";
                json::failed_result(
                    &Problem::new(other, ProblemKind::Checks, "some checks failed").advise(advice),
                )
            }
        };
        self.last_object(&object);
    }

    /// Prints an event of a job.
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Device(device) => {
                self.end_wait();
                self.object(&json::device(device));
                self.line(&format!("Using {}", describe(device, " ")));
            }
            Event::Planned(plan) => {
                self.object(&json::plan(plan));
                self.line(&format!(
                    "Plan: {} bytes at {}, {} sectors",
                    plan.bytes,
                    plan.start(),
                    plan.sectors().len()
                ));
            }
            Event::Known(known) => self.print_known(known),
            Event::Ready(preview) => self.print_preview(preview),
            Event::Progress { phase, done, total } => self.show_progress(*phase, *done, *total),
            Event::Log(level, entry) => self.log_line(*level, &entry.to_string()),
            Event::Console { at, line } => self.console_line(*at, line),
            Event::Waiting { what, limit } => self.show_wait(*what, *limit),
            // [`Console::conclude`] or [`Console::result`] prints the outcome after the job has finished.
            Event::Sector { .. } | Event::Measured(_) | Event::Finished(_) => {}
        }
    }

    /// Prints a row of `qualify`.
    pub(super) fn finding(&mut self, assumption: &str, verdict: qualify::Verdict, seen: &str) {
        let name = report::qualify::verdict(verdict);
        self.object(&Object::Finding { assumption, verdict: name, seen });
        if !self.json && verdict != qualify::Verdict::NotObserved {
            let seen = if seen.is_empty() { String::new() } else { format!(": {seen}") };
            self.line(&format!("{name:<13}  {assumption}{seen}"));
        }
    }

    fn print_known(&mut self, known: &DeviceInfo) {
        self.end_bar();
        self.object(&json::board(known));
        for (label, text) in report::fact_rows(known) {
            self.line(&format!("{label:<11} {text}"));
        }
        match known {
            DeviceInfo::InDfu(identity) => {
                if let Some(text) = report::diagnosis(identity) {
                    self.line(&text);
                }
            }
            DeviceInfo::Running(_) => {
                self.line("In DFU mode, cfdfu can also read the bootloader, board revision and protection.");
            }
        }
    }

    fn print_preview(&mut self, preview: &Preview) {
        self.loader = preview.loader;
        match &preview.firmware {
            Some(Content::Firmware(firmware)) => self.line(&format!("On the drone: {firmware}")),
            Some(_) => self.line("On the drone: not Crazyflie firmware"),
            None => {}
        }
        if let Some(change) = preview.platform_change {
            self.log_line(Level::Warning, &report::platform_change(change));
        }
        if let Some(warning) = report::radio_chip(&preview.radio_chip, preview.version.as_deref()) {
            self.log_line(Level::Warning, &warning);
        }
    }

    /// Prints a line of the drone's console with its time.
    fn console_line(&mut self, at: Duration, line: &ConsoleLine) {
        let seconds = (at.as_secs_f64() * 1000.0).round() / 1000.0;
        self.object(&Object::Console { seconds, text: &line.text, cut: line.cut });
        self.line(&format!("{seconds:8.3}  {}", line.text));
        if line.cut {
            self.line("          (lines are missing: the drone printed more than it can keep)");
        }
    }

    fn log_line(&mut self, level: Level, text: &str) {
        self.object(&Object::Log { text });
        match level {
            Level::Detail if self.verbose == 0 => self.write_log_file(text),
            Level::Detail | Level::Info => self.line(text),
            Level::Warning => self.line(&format!("Warning: {text}")),
        }
    }

    fn show_progress(&mut self, phase: Phase, done: u64, total: u64) {
        self.object(&json::progress(phase, done, total));
        if !self.live {
            return;
        }
        if self.bar.as_ref().is_none_or(|(current, _)| *current != Some(phase)) {
            self.end_bar();
            let bar = create_bar(
                total,
                "{prefix:>8} [{wide_bar}] {percent:>3} %  {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left",
            );
            bar.set_prefix(phase.json_name());
            self.bar = Some((Some(phase), bar));
        }
        if let Some((_, bar)) = &self.bar {
            bar.set_position(done);
        }
    }

    /// Prints a row of `releases`. `is_kept` returns whether a file is on this computer.
    #[cfg(feature = "releases")]
    pub(super) fn release(&mut self, release: &Release, is_kept: &dyn Fn(&str) -> bool) {
        self.object(&json::release(release, is_kept));
        if self.json {
            return;
        }
        let files =
            release.assets.iter().filter_map(|asset| Some((platform_of(asset)?, is_kept(&asset.name))));
        let (mut platforms, mut kept) = (Vec::new(), Vec::new());
        for (platform, is_kept) in files {
            platforms.push(platform);
            kept.extend(is_kept.then_some(platform));
        }
        let kept = if kept.is_empty() { String::new() } else { format!("   saved: {}", kept.join(" ")) };
        let pre = if release.prerelease { "   pre-release" } else { "" };
        let line =
            format!("{:<12} {:<11} {:<28}{pre}{kept}", release.tag, release.published, platforms.join(" "));
        self.line(line.trim_end());
    }

    /// Shows the progress of a download.
    #[cfg(feature = "releases")]
    pub(super) fn download(&mut self, done: u64, total: Option<u64>) {
        self.object(&Object::Download { done, total });
        if !self.live || total.is_none_or(|total| total == 0) {
            return;
        }
        let length = total.unwrap_or_default();
        let (_, bar) = self.bar.get_or_insert_with(|| {
            let template = "fetching [{wide_bar}] {percent:>3} %  {bytes}/{total_bytes}  {bytes_per_sec}";
            (None, create_bar(length, template))
        });
        bar.set_position(done);
    }

    /// Prints which file was fetched, and why it can be trusted.
    #[cfg(feature = "releases")]
    pub(super) fn fetched(&mut self, fetched: &Fetched) {
        self.end_bar();
        let path = fetched.path.as_ref().ok().map(|path| path.display().to_string());
        self.object(&Object::Fetched {
            tag: &fetched.tag,
            name: &fetched.name,
            path: path.as_deref(),
            sha256: fetched.sha256.to_string(),
            trust: fetched.trust.json_name(),
        });
        self.line(&format!("Release {}: {} ({})", fetched.tag, fetched.name, fetched.trust));
        if let Some(path) = path {
            self.line(&format!("File: {path}"));
        }
    }

    /// Announces a wait and, on a terminal, shows a timer if the wait is limited.
    fn show_wait(&mut self, what: WaitFor, limit: Duration) {
        if limit.is_zero() {
            return;
        }
        self.end_bar();
        let is_limited = limit < Duration::from_secs(24 * 60 * 60);
        let seconds = format!("{} s", limit.as_secs());
        let up_to = if is_limited { format!(" (up to {seconds})") } else { String::new() };
        self.line(&format!("Waiting for {what}{up_to} ..."));
        if matches!(what, WaitFor::Crazyflie | WaitFor::DfuByHand) {
            let text = format!("If the drone does not start, enter DFU mode by hand: {ENTER_BY_HAND}.");
            let width = self.width.saturating_sub(2);
            for line in wrapped(&text, width) {
                self.line(&format!("  {line}"));
            }
        }
        if self.live && is_limited {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} of {msg}") {
                bar.set_style(style);
            }
            bar.set_message(format!("{seconds} for {what}"));
            bar.enable_steady_tick(Duration::from_millis(250));
            self.bar = Some((None, bar));
        }
    }

    /// Removes the timer of a wait, if one is shown.
    fn end_wait(&mut self) {
        if matches!(self.bar, Some((None, _))) {
            self.end_bar();
        }
    }

    pub(super) fn end_bar(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Prints a description of the image that the command uses.
    pub(super) fn image(&mut self, image: &Image) {
        self.line(&describe_image(image));
        for note in image.notes.iter().cloned().chain(report::warn_about_image(image)) {
            self.line(&format!("Note: {note}"));
        }
    }

    /// Prints the output of `inspect`.
    pub(super) fn inspection(&mut self, image: &Image) {
        self.object(&json::image(image));
        if !self.json {
            self.image(image);
            let firmware = image.content.firmware();
            if let Some(revision) = firmware.and_then(|firmware| firmware.revision.as_deref()) {
                self.line(&format!("Built from git {revision}"));
            }
            for board in firmware.into_iter().flat_map(|firmware| &firmware.boards) {
                self.line(&format!("Runs on {} ({})", board.code, board.name));
            }
            if let Payload::Placed(segments) = &image.payload {
                for segment in segments.iter().filter(|_| segments.len() > 1) {
                    self.line(&format!("{} bytes at {}", segment.data.len(), segment.address));
                }
            }
            self.line(match image.extent.complete() {
                Some(true) => "Complete: it contains all data that its start-up code needs",
                Some(false) => "Incomplete: it lacks data that its start-up code needs",
                None => "Unknown whether complete: cfdfu does not recognise its start-up code",
            });
            self.line(&format!("CRC-32 {:08x}", image.crc32));
            self.line(&format!("SHA-256 {}", image.sha256));
        }
    }

    /// Prints a row of `doctor`.
    pub(super) fn check(&mut self, check: &Check) {
        let Check { name, verdict, found, remedy } = check;
        self.object(&json::check(check));
        if !self.json {
            let mark = match verdict {
                Verdict::Good => "ok",
                Verdict::Doubtful => "??",
                Verdict::Bad => "NO",
                Verdict::Unknown => "--",
            };
            let mut lines = self.wrap_for_terminal(found, 21).into_iter();
            let first = lines.next().unwrap_or_default();
            self.line(&format!("{mark}  {name:<16} {first}"));
            for line in lines {
                self.line(&format!("{:21}{line}", ""));
            }
            let remedy = wrapped(remedy, self.width.saturating_sub(6)).into_iter();
            for line in remedy.filter(|line| !line.is_empty()) {
                self.line(&format!("      {line}"));
            }
        }
    }

    /// Sets the radio addresses that name the drones in a batch.
    pub(super) fn use_names(&mut self, names: RadioNames) {
        self.names = names;
    }

    /// Sets the serial numbers of the drones that take part in the batch.
    pub(super) fn use_serials(&mut self, fleet: &Fleet) {
        self.serials = fleet.rows.iter().map(|row| row.device.strings.serial.clone()).collect();
    }

    /// Returns the drone's radio address, if known.
    pub(super) fn radio_of(&self, row: &Row) -> Option<Radio> {
        self.names.of(&row.device.strings.serial, self.serials.iter().map(String::as_str))
    }

    /// Prints a line about a drone in a batch.
    pub(super) fn print_row_line(&mut self, id: usize, row: &Row, text: &str) {
        self.line(&self.row_line(id, row, text));
    }

    /// Returns a line about a drone in a batch: its number, its port, its name if known, and the text.
    fn row_line(&self, id: usize, row: &Row, text: &str) -> String {
        let name = self.radio_of(row).map(|radio| format!("  {}", radio.name())).unwrap_or_default();
        format!("{:>3}  {}{name}  {text}", id + 1, row.device.location)
    }

    /// Announces a drone in a batch.
    pub(super) fn announce_drone(&mut self, id: usize, row: &Row) {
        self.object_of(id, &json::drone(row, self.radio_of(row)));
        let Device { location, strings, mode, open_error, .. } = &row.device;
        let mode = if *mode == Mode::Dfu { "in DFU mode" } else { "running" };
        let name = match open_error {
            Some(error) => format!("({error})"),
            None => format!("{}  {}", strings.serial, strings.product),
        };
        self.print_row_line(id, row, &format!("{name} {mode}"));
        if self.live {
            let (bars, all) = self.bars.get_or_insert_with(|| (MultiProgress::new(), Vec::new()));
            let bar = bars.add(create_bar(0, "{prefix:>12}  {wide_bar} {percent:>3} %  {msg:<10}"));
            bar.set_prefix(location.to_string());
            bar.set_message("queued");
            bar.tick();
            all.push(bar);
        }
    }

    /// Returns the progress bar of a drone in a batch.
    fn bar_of(&self, id: usize) -> Option<&ProgressBar> {
        self.bars.as_ref().and_then(|(_, all)| all.get(id))
    }

    /// Prints an event of a drone in a batch. The lines of text contain only warnings and facts about the drone; with
    /// `-v`, also the rest of the log.
    pub(super) fn row_event(&mut self, id: usize, row: &Row, event: &Event) {
        match event {
            Event::Device(device) => self.object_of(id, &json::device(device)),
            Event::Planned(plan) => self.object_of(id, &json::plan(plan)),
            Event::Progress { phase, done, total } => {
                self.object_of(id, &json::progress(*phase, *done, *total));
                if let Some(bar) = self.bar_of(id) {
                    bar.set_length(*total);
                    bar.set_position(*done);
                    bar.set_message(phase.json_name());
                }
            }
            Event::Log(level, entry) => {
                let text = entry.to_string();
                self.object_of(id, &Object::Log { text: &text });
                let line = self.row_line(id, row, &text);
                match level {
                    Level::Warning => self.line(&line),
                    Level::Info | Level::Detail if self.verbose > 0 => self.line(&line),
                    Level::Info | Level::Detail => self.write_log_file(&line),
                }
            }
            Event::Ready(preview) => {
                if let Some(change) = preview.platform_change {
                    self.print_row_line(id, row, &format!("Warning: {}", report::platform_change(change)));
                }
                if let Some(warning) = report::radio_chip(&preview.radio_chip, preview.version.as_deref()) {
                    self.print_row_line(id, row, &format!("Warning: {warning}"));
                }
            }
            Event::Known(known) => {
                self.object_of(id, &json::board(known));
                if let Some(radio) = known.radio() {
                    self.names.insert(&row.device.strings.serial, radio);
                }
                for (label, text) in report::fact_rows(known) {
                    self.print_row_line(id, row, &format!("{label:<11} {text}"));
                }
            }
            Event::Sector { .. }
            | Event::Waiting { .. }
            | Event::Console { .. }
            | Event::Measured(_)
            | Event::Finished(_) => {}
        }
    }

    /// Prints the state of a drone in a batch.
    pub(super) fn row(&mut self, id: usize, row: &Row, require_boot: bool, file: Option<&Path>) {
        if let Some(bar) = self.bar_of(id) {
            match &row.state {
                RowState::Entering => bar.set_message("entering"),
                RowState::ByHand => bar.set_message("by hand"),
                RowState::Starting => bar.set_message("restarting"),
                RowState::Lost => bar.set_message("lost"),
                RowState::Ended(_) => bar.finish_and_clear(),
                RowState::Held | RowState::Queued | RowState::Examining | RowState::Working(..) => {}
            }
        }
        let text = match (&row.state, &row.report) {
            (RowState::Entering | RowState::Starting, _) if self.live => return,
            (RowState::Entering, _) => "asked to enter DFU mode".to_owned(),
            (RowState::ByHand, _) => "waiting for you to enter DFU mode by hand".to_owned(),
            (RowState::Working(phase @ (Phase::Erase | Phase::Write), ..), _) if !self.live => {
                phase.json_name().to_owned()
            }
            (RowState::Held | RowState::Queued | RowState::Examining | RowState::Working(..), _) => return,
            (RowState::Starting, _) => "restarting".to_owned(),
            (RowState::Lost, _) => "lost; waiting for it to reconnect".to_owned(),
            (RowState::Ended(_), Some(report)) => {
                let not_running = report::not_running(report).filter(|_| require_boot);
                self.object_of(id, &json::result(report, file, not_running.as_ref()));
                if let Some(file) = file {
                    self.print_row_line(id, row, &format!("saved to {}", file.display()));
                }
                self.print_row_line(id, row, &report::headline(report));
                return self.advise(report, not_running.as_ref());
            }
            (RowState::Ended(_), None) => {
                let stopped = Report::nothing_done(Outcome::Cancelled(DroneState::Untouched));
                self.object_of(id, &json::result(&stopped, None, None));
                "not started".to_owned()
            }
        };
        self.print_row_line(id, row, &text);
    }

    /// Prints what to do after the job of a drone in a batch has ended.
    fn advise(&mut self, report: &Report, not_running: Option<&Problem>) {
        let problem = match &report.outcome {
            Outcome::Failed(failure) => Some(report::failure_problem(failure)),
            _ => not_running.cloned(),
        };
        let advice = problem.map(|problem| problem.advice.text(&symptoms::sudo_command()));
        let advice = advice.or_else(|| report::describe_restart(report));
        let width = self.width.saturating_sub(6);
        for line in advice.into_iter().flat_map(|text| wrapped(&text, width)) {
            self.line(&format!("      {line}"));
        }
    }

    /// Prints that the station has already finished a drone.
    pub(super) fn already_done(&mut self, device: &Device) {
        let Device { location, strings, .. } = device;
        let present = self.serials.iter().map(String::as_str);
        let name = self.names.of(&strings.serial, present).map(|radio| format!("  {}", radio.name()));
        self.line(&format!("     {location}{}  {}  already done", name.unwrap_or_default(), strings.serial));
    }

    /// Rings the terminal's bell, so that the user of a station need not watch the screen.
    pub(super) fn beep(&self, times: usize) {
        if self.live {
            let _ = io::stderr().write_all("\u{7}".repeat(times).as_bytes());
        }
    }

    /// Prints the summary of a batch and returns its text.
    pub(super) fn batch(&mut self, fleet: &Fleet, took: Duration, exit: Exit) -> String {
        self.bars = None;
        let counts = fleet.counts();
        self.last_object(&json::batch(fleet.rows.len(), counts, took, exit));
        let parts = counts.in_words("unchanged");
        let drones = report::count(fleet.rows.len() as u64, "drone");
        let parts = if parts.is_empty() { "nothing done".to_owned() } else { parts };
        let summary = format!("{drones}: {parts}, {:.1} s", took.as_secs_f64());
        self.line(&summary);
        summary
    }

    /// Prints an object about a drone in a batch, with the number of the drone.
    fn object_of(&self, id: usize, object: &Object<'_>) {
        if self.json {
            let written = print_object(&Numbered { object, drone: id + 1 });
            self.note_output(written);
        }
    }

    /// Prints a row of `list`, with the drone's remembered radio address.
    pub(super) fn device(&mut self, device: &Device, radio: Option<&str>) {
        self.object(&json::listed(device, radio));
        if !self.json {
            let radio = radio.map(|radio| format!("  {radio}")).unwrap_or_default();
            self.line(&format!("{}{radio}", describe(device, "  ")));
        }
    }

    /// Prints a note on stderr, because scripts may read the lines on stdout.
    pub(super) fn note(&mut self, text: &str) {
        let text = &printable(text);
        self.write_log_file(text);
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Warns that the drone was lost. The job resumes when the drone reconnects.
    pub(super) fn interrupted(&mut self, failure: &Failure) {
        self.end_bar();
        // Unlike the text for a cancelled job, this text does not ask the user to try again.
        let state = report::failure_problem(failure).advice.state.unwrap_or_default();
        let text = format!("{failure}. {state}");
        self.log_line(Level::Warning, &text);
    }

    /// Prints the outcome of a job that wrote no file, and returns the exit status.
    pub(super) fn conclude(&mut self, report: &Report, require_boot: bool) -> Exit {
        let not_running = report::not_running(report).filter(|_| require_boot);
        self.print_outcome(report, None, not_running.as_ref());
        not_running.map_or_else(|| report::exit_status(report), |problem| problem.exit)
    }

    /// Prints the outcome of a job. `file` is the backup that the job saved.
    pub(super) fn result(&mut self, report: &Report, file: Option<&Path>) {
        self.print_outcome(report, file, None);
    }

    /// Prints the outcome of a job. `problem` is a failure that was found after the job, such as a drone that does not
    /// run although `--require-boot` was passed.
    fn print_outcome(&mut self, report: &Report, file: Option<&Path>, problem: Option<&Problem>) {
        self.end_bar();
        self.last_object(&json::result(report, file, problem));
        match &report.outcome {
            Outcome::Cancelled(_) => return self.error(&report::headline(report)),
            Outcome::Failed(failure) => {
                self.explain(&report::failure_problem(failure));
                return self.explain_guest(failure);
            }
            Outcome::Read(_) => {
                let name = file.map(|file| format!(" Saved to {}.", file.display())).unwrap_or_default();
                self.line(&format!("{}.{name}", report::headline(report)));
            }
            Outcome::Flashed | Outcome::Unchanged | Outcome::Identified => {
                self.line(&report::headline(report));
            }
        }
        match (problem, report::describe_restart(report)) {
            (Some(problem), _) => self.explain(problem),
            (None, Some(text)) => self.paragraph(&text),
            (None, None) => {}
        }
        if self.loader.is_some_and(Loader::is_missing) {
            self.paragraph(report::WITHOUT_LOADER);
        }
    }

    /// Wraps text for the terminal, leaving room for the caller to indent each line by `indent` columns. Without a
    /// terminal, the text stays on one line, so that `grep` can find it.
    fn wrap_for_terminal(&self, text: &str, indent: usize) -> Vec<String> {
        if self.live { wrapped(text, self.width.saturating_sub(indent)) } else { vec![text.to_owned()] }
    }

    fn paragraph(&mut self, text: &str) {
        for line in self.wrap_for_terminal(text, 0) {
            self.line(&line);
        }
    }

    /// Prints the outcome of the interface's last job on the normal screen.
    pub(super) fn print_last_outcome(&mut self, app: &App) {
        if let Screen::Outcome(report, facts) = &app.screen {
            self.result(report, None);
            if let Some(device) = &facts.device {
                self.line(&describe(device, "  "));
            }
            let before = facts.preview.as_ref().and_then(|preview| preview.firmware.as_ref());
            if let (Some(Content::Firmware(before)), Some(image)) = (before, app.image.image()) {
                self.line(&format!("Before: {before}. {}", describe_image(image)));
            }
        }
    }

    /// Reports a problem outside a job. With `--json` it becomes the `result` object.
    pub(super) fn problem(&mut self, problem: &Problem) {
        self.end_bar();
        self.last_object(&json::failed_result(problem));
        self.explain(problem);
    }

    /// If cfdfu is running in a virtual machine, explains why the drone did not appear in DFU mode: in that mode, the
    /// drone is a different USB device, which must be passed through as well.
    fn explain_guest(&mut self, failure: &Failure) {
        let is_unseen = matches!(failure.kind, FailureKind::DidNotEnter { now: None, .. });
        if let Some(guest) = symptoms::detect_guest().filter(|_| is_unseen) {
            self.error_text(&format!(
                "cfdfu is running inside {guest}: pass the USB device 0483:df11 through as well."
            ));
        }
    }

    fn explain(&mut self, problem: &Problem) {
        self.error(&problem.to_string());
        let width = self.width.saturating_sub(2);
        for paragraph in problem.advice.paragraphs(&symptoms::sudo_command()) {
            for line in wrapped(&paragraph, width) {
                self.error_text(&line);
            }
        }
    }

    fn error(&mut self, text: &str) {
        let text = printable(text);
        self.write_log_file(&text);
        let label = if self.color { "\x1b[1;31mcfdfu:\x1b[0m" } else { "cfdfu:" };
        let _ = writeln!(io::stderr(), "{label} {text}");
    }

    fn error_text(&mut self, text: &str) {
        self.write_log_file(text);
        let _ = writeln!(io::stderr(), "  {text}");
    }
}

/// Creates a progress bar for `length` steps or bytes.
fn create_bar(length: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn columns() -> usize {
    crossterm::terminal::size().map_or(80, |(width, _)| usize::from(width))
}

/// Removes control characters, so that names from files and devices cannot control the terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|&c| descriptor::is_printable(c)).collect()
}

/// Returns the interface's theme for this terminal.
pub(super) fn theme(global: &Global, settings: &Settings) -> Theme {
    let env = |name: &str| std::env::var(name).unwrap_or_default();
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().map(|name| env(name)).find(|value| !value.is_empty());
    let no_color = match (global.color, settings.color) {
        (ColorChoice::Always, _) => false,
        (ColorChoice::Never, _) => true,
        (ColorChoice::Auto, _) if !env("NO_COLOR").is_empty() => true,
        (ColorChoice::Auto, color) => color == Some(Color::Never),
    };
    let (glyphs, colours) =
        Theme::detect(&env("TERM"), &env("COLORTERM"), &locale.unwrap_or_default(), no_color);
    let glyphs = settings.glyphs.map_or(glyphs, |glyphs| match glyphs {
        GlyphSet::Unicode => Glyphs::Unicode,
        GlyphSet::Cp437 => Glyphs::Cp437,
        GlyphSet::Ascii => Glyphs::Ascii,
    });
    let colours = match (colours, settings.theme) {
        (Colours::None, _) if no_color || settings.color != Some(Color::Always) => Colours::None,
        (Colours::None, _) => Colours::Sixteen,
        (_, Some(ThemeChoice::Light)) => Colours::Light,
        (_, Some(ThemeChoice::Dark)) => Colours::Dark { auto: false },
        (colours, Some(ThemeChoice::Auto) | None) => colours,
    };
    Theme::new(glyphs, colours)
}

/// Describes a device by port, USB ID, mode, name and serial number, and adds a label if the device is simulated.
fn describe(device: &Device, separator: &str) -> String {
    let mode = match device.mode {
        Mode::Dfu => "DFU mode",
        Mode::Firmware => "running",
    };
    let name = match device.open_error {
        Some(error) => format!("({error})"),
        None => device.strings.product.clone(),
    };
    let label = if device.simulated { "SIMULATED" } else { "" };
    let (place, id) = (device.location.to_string(), device.id.to_string());
    let fields = [&place, &id, mode, &name, &device.strings.serial, label];
    fields.into_iter().filter(|field| !field.is_empty()).collect::<Vec<_>>().join(separator)
}

fn describe_image(image: &Image) -> String {
    let place = if image.payload.address().is_some() { "at" } else { "linked for" };
    let address = image.address().map(|address| format!(", {place} {address}")).unwrap_or_default();
    let format = match image.format {
        Format::Bin => String::new(),
        other => format!(", from .{}", other.json_name()),
    };
    format!("Image: {}, {} bytes{address}{format}", image.content, image.payload.len())
}
