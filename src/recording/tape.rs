//! Stores the lines of a recording in a file, in memory for a bug report, or in both. Both have a size limit.

use std::collections::VecDeque;
use std::io::{self, Write};

use super::redact::Redactor;
use super::{Line, Recorded, SIZE_MAX};

/// The maximum number of lines kept in memory. Flashing one drone produces about 900 lines of about 140 bytes.
const LINES_MAX: usize = 6000;

#[derive(Default)]
pub struct Tape {
    /// Redacts every line; `None` if the recording is not redacted.
    redactor: Option<Redactor>,
    file: Option<Box<dyn Write + Send>>,
    memory: Option<RecentLines>,
    written: u64,
    /// The error after which nothing more was written to the file.
    error: Option<io::Error>,
}

/// The first line and the latest lines of a recording.
#[derive(Default)]
struct RecentLines {
    limit: usize,
    start: Option<Line>,
    lines: VecDeque<Line>,
    dropped: usize,
}

impl Tape {
    pub fn to_file(self, file: impl Write + Send + 'static) -> Tape {
        Tape { file: Some(Box::new(file)), ..self }
    }

    pub fn to_memory(self) -> Tape {
        self.to_memory_of(LINES_MAX)
    }

    /// Keeps at most this many lines in memory.
    pub fn to_memory_of(self, limit: usize) -> Tape {
        Tape { memory: Some(RecentLines { limit, ..RecentLines::default() }), ..self }
    }

    pub fn redacted(self) -> Tape {
        Tape { redactor: Some(Redactor::default()), ..self }
    }

    /// Returns the number of lines that were dropped from memory to make room for newer ones.
    pub fn dropped(&self) -> usize {
        self.memory.as_ref().map_or(0, |memory| memory.dropped)
    }

    /// Returns the error after which nothing more was written to the file.
    pub fn error(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }

    pub fn push(&mut self, line: Line) {
        let line = match &mut self.redactor {
            Some(redactor) => redactor.redact_line(line),
            None => line,
        };
        self.write(&line);
        let Some(memory) = &mut self.memory else { return };
        if matches!(line.what, Recorded::Start(_)) {
            memory.start = Some(line);
            return;
        }
        memory.lines.push_back(line);
        if memory.lines.len() > memory.limit {
            memory.lines.pop_front();
            memory.dropped += 1;
        }
    }

    /// Writes the line without buffering, so that the recording of a killed process is complete up to the last request.
    fn write(&mut self, line: &Line) {
        let Some(file) = &mut self.file else { return };
        let at = line.at;
        let mut text = format!("{line}\n");
        let is_full = self.written + text.len() as u64 > SIZE_MAX / 2;
        if is_full {
            text = format!("{}\n", Line { at, what: Recorded::Truncated });
        }
        let written = file.write_all(text.as_bytes());
        self.written += text.len() as u64;
        if is_full || written.is_err() {
            self.file = None;
        }
        let limit = || io::Error::other(format!("it has reached its limit of {} MiB", SIZE_MAX >> 21));
        self.error = written.err().or_else(|| is_full.then(limit));
    }

    /// Returns the text of the recording that is kept in memory.
    pub fn text(&self) -> String {
        let Some(memory) = &self.memory else { return String::new() };
        let gap = memory.lines.front().filter(|_| memory.dropped > 0);
        let gap = gap.map(|line| Line { at: line.at, what: Recorded::Truncated });
        let lines = memory.start.iter().chain(&gap).chain(&memory.lines);
        lines.flat_map(|line| [line.to_string(), "\n".to_owned()]).collect()
    }

    /// Replaces the serial numbers in `text` if the recording is redacted.
    pub fn redact(&self, text: String) -> String {
        match &self.redactor {
            Some(redactor) => redactor.redact_text(text),
            None => text,
        }
    }
}
