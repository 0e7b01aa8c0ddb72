//! `--record` and `--redact`: the recording of a run. The file is created before the command starts, and the recording
//! starts when the command opens a bus. The interface also keeps the latest transfers in memory for its bug reports.

use std::cell::OnceCell;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::args::Global;
use crate::clock::Clock;
use crate::recording::recorder::{RecordedBus, RecordedClock, Recorder};
use crate::recording::tape::Tape;
use crate::recording::{Header, VERSION};
use crate::report::{Exit, Problem, ProblemKind};
use crate::usb::Bus;

pub(super) struct RunRecording {
    path: Option<PathBuf>,
    /// Transfers are recorded even without a file, because the interface keeps the recording in memory.
    in_memory: bool,
    tape: Arc<Mutex<Tape>>,
    /// Shared by all buses of a command, so that all of their transfers are in one recording.
    recorder: OnceCell<Arc<Recorder>>,
}

impl RunRecording {
    /// Creates the file named by `--record`.
    pub(super) fn create(global: &Global) -> Result<RunRecording, Problem> {
        let mut tape = Tape::default();
        if global.redact {
            tape = tape.redacted();
        }
        let path = global.record.clone();
        if let Some(path) = &path {
            let file = OpenOptions::new().write(true).create_new(true).open(path).map_err(|error| {
                let message = format!("cannot create the recording {}: {error}", path.display());
                Problem::new(Exit::CannotCreate, ProblemKind::OutputFile, message)
                    .advise("Choose another file with --record, or, for `qualify`, with --report.")
            })?;
            tape = tape.to_file(file);
        }
        let tape = Arc::new(Mutex::new(tape));
        Ok(RunRecording { path, in_memory: false, tape, recorder: OnceCell::new() })
    }

    /// Keeps the latest transfers in memory from now on. Returns the tape that contains them.
    pub(super) fn keep_in_memory(&mut self) -> Arc<Mutex<Tape>> {
        self.in_memory = true;
        {
            let mut tape = self.tape.lock().unwrap_or_else(PoisonError::into_inner);
            *tape = std::mem::take(&mut *tape).to_memory();
        }
        Arc::clone(&self.tape)
    }

    /// Wraps a bus and a clock so that requests and waits are recorded. Returns them unchanged if nothing is recorded.
    pub(super) fn world(
        &self,
        global: &Global,
        (bus, clock): (Arc<dyn Bus>, Arc<dyn Clock>),
    ) -> (Arc<dyn Bus>, Arc<dyn Clock>) {
        if self.path.is_none() && !self.in_memory {
            return (bus, clock);
        }
        let start = || {
            let program = format!("cfdfu {}", crate::sys::version());
            let scenario = match (&global.demo, global.replayed()) {
                // The path of a replayed recording could contain a user name.
                (_, Some(_)) => Some("replay".to_owned()),
                (Some(name), None) => Some(name.clone().unwrap_or_else(|| "healthy".to_owned())),
                (None, None) => None,
            };
            let system = std::env::consts::OS.to_owned();
            let header = Header { recording: VERSION, program, system, scenario, redacted: global.redact };
            Recorder::start(Arc::clone(&clock), header, Arc::clone(&self.tape))
        };
        let recorder = self.recorder.get_or_init(start);
        let bus = RecordedBus::new(bus, Arc::clone(recorder));
        (Arc::new(bus), Arc::new(RecordedClock::new(clock, Arc::clone(recorder))))
    }

    /// Returns a function that adds another bus to the recording.
    pub(super) fn for_other_buses(&self) -> impl Fn(Arc<dyn Bus>) -> Arc<dyn Bus> + Send + Sync + 'static {
        let recorder = self.recorder.get().cloned();
        move |bus| match &recorder {
            Some(recorder) => Arc::new(RecordedBus::new(bus, Arc::clone(recorder))),
            None => bus,
        }
    }

    /// With `--redact`, replaces the serial numbers in `text`.
    pub(super) fn redact(&self, text: String) -> String {
        self.tape.lock().unwrap_or_else(PoisonError::into_inner).redact(text)
    }

    /// Removes the recording beside the report of `qualify` if the run has nothing to report.
    pub(super) fn discard_beside(&self, report: &Path) {
        if self.path.as_deref() == Some(&report.with_extension("jsonl")) {
            let _ = fs::remove_file(report.with_extension("jsonl"));
        }
    }

    /// Ends the recording. Returns a message if the recording is incomplete. Removes the file if the command opened no
    /// bus.
    pub(super) fn end(&self) -> Option<String> {
        let path = self.path.as_ref()?;
        if self.recorder.get().is_none() {
            let _ = fs::remove_file(path);
            return None;
        }
        let tape = self.tape.lock().unwrap_or_else(PoisonError::into_inner);
        let error = tape.error()?;
        Some(format!("the recording {} is incomplete: {error}", path.display()))
    }
}
