//! Where the lines of a recording go: to a file, to memory for a bug report, or to both. Both are bounded.

use std::collections::VecDeque;
use std::io::{self, Write};

use super::redact::Redactor;
use super::{Line, Recorded, SIZE_MAX};

/// How many lines are kept in memory: a flash of one drone has about 1300. A line takes about 200 bytes.
const LINES_MAX: usize = 6000;

#[derive(Default)]
pub struct Tape {
    /// Replaces serial numbers in every line.
    redactor: Option<Redactor>,
    file: Option<Box<dyn Write + Send>>,
    memory: Option<Memory>,
    written: u64,
    /// Why the file has no further lines.
    error: Option<io::Error>,
}

/// The first line, and the last lines.
#[derive(Default)]
struct Memory {
    most: usize,
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
    pub fn to_memory_of(self, most: usize) -> Tape {
        Tape { memory: Some(Memory { most, ..Memory::default() }), ..self }
    }

    pub fn redacted(self) -> Tape {
        Tape { redactor: Some(Redactor::default()), ..self }
    }

    /// The number of lines in memory that were dropped because there were newer ones.
    pub fn dropped(&self) -> usize {
        self.memory.as_ref().map_or(0, |memory| memory.dropped)
    }

    /// Why the recording in the file ends early.
    pub fn error(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }

    pub fn push(&mut self, line: Line) {
        let line = match &mut self.redactor {
            Some(redactor) => redactor.line(line),
            None => line,
        };
        self.write(&line);
        let Some(memory) = &mut self.memory else { return };
        if matches!(line.what, Recorded::Start(_)) {
            memory.start = Some(line);
            return;
        }
        memory.lines.push_back(line);
        if memory.lines.len() > memory.most {
            memory.lines.pop_front();
            memory.dropped += 1;
        }
    }

    /// Writes each line at once, so that the recording is complete up to the last request if the process is killed.
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
        self.error = written.err();
    }

    /// The recording in memory.
    pub fn text(&self) -> String {
        let Some(memory) = &self.memory else { return String::new() };
        let gap = memory.lines.front().filter(|_| memory.dropped > 0);
        let gap = gap.map(|line| Line { at: line.at, what: Recorded::Truncated });
        let lines = memory.start.iter().chain(&gap).chain(&memory.lines);
        lines.flat_map(|line| [line.to_string(), "\n".to_owned()]).collect()
    }

    /// `text` with the serial numbers replaced, if the recording is redacted.
    pub fn redact(&self, text: String) -> String {
        match &self.redactor {
            Some(redactor) => redactor.text(text),
            None => text,
        }
    }
}
