//! The copies for an undo: in the state directory, or in memory where nothing may outlive this run (the demo) or nothing can
//! (no home directory).

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::flash::Segment;
use crate::image::Content;
use crate::job::{CopyProblem, DroneAt, Failure, LogEntry, Outcome, Preview};
use crate::plan::undo::{Change, NoCopy, Piece, Tracked};
use crate::record::{self, StateDir, Target};

pub(super) enum Copies {
    Files(StateDir),
    Memory {
        last: Option<Box<Remembered>>,
        /// The user expects them to outlive this run.
        is_makeshift: bool,
    },
}

/// What is remembered of the drone that was flashed last.
pub(super) struct Remembered {
    drone: DroneAt,
    past: Tracked,
}

/// What an undo would put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndoTarget {
    pub drone: DroneAt,
    pub copy: Segment,
    /// What the copy is; `None` if it is blank.
    pub content: Option<Content>,
    /// What the drone must still hold: [`crate::plan::undo::History::expected`].
    pub expected: Vec<Piece>,
    /// Its file and its age, where it is one.
    pub file: Option<(PathBuf, Duration)>,
}

/// Why nothing can be put back.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoUndo {
    #[error(transparent)]
    NoCopy(NoCopy),
    /// Another drone at its port would look the same.
    #[error("the drone shows no serial number")]
    NoSerial,
    #[error("{0}")]
    Io(String),
}

impl Default for NoUndo {
    fn default() -> NoUndo {
        NoUndo::NoCopy(NoCopy::NeverFlashed)
    }
}

/// A change that a job has begun.
pub(super) enum BegunCopy {
    Files(record::Begun),
    Memory,
}

impl Copies {
    pub(super) fn new(record: Option<StateDir>, demo: bool) -> Copies {
        record.map_or(Copies::Memory { last: None, is_makeshift: !demo }, Copies::Files)
    }

    /// A job is about to write: keeps what it overwrites. A failure to keep it does not stop the flash, but is logged, unless
    /// `--no-undo` asked for it or nothing was there.
    pub(super) fn begin(
        &mut self,
        drone: &DroneAt,
        preview: &Preview,
        change: Change,
    ) -> (Option<BegunCopy>, Option<LogEntry>) {
        match self {
            Copies::Files(record) => {
                let (begun, entry) = record::begin(record, drone, preview, change);
                (begun.map(BegunCopy::Files), entry)
            }
            Copies::Memory { last, is_makeshift } => {
                let past = last.take().filter(|it| it.drone.may_be(drone));
                let mut past = past.map(|it| it.past).unwrap_or_default();
                past.begin(preview.plan.pieces(), preview.before.as_ref(), change);
                *last = Some(Box::new(Remembered { drone: drone.clone(), past }));
                let is_lost = *is_makeshift && preview.before.is_some();
                (Some(BegunCopy::Memory), is_lost.then_some(LogEntry::NoCopy(CopyProblem::NoHome)))
            }
        }
    }

    /// A job carries on what an earlier one had begun.
    pub(super) fn carry_on(&self, drone: &DroneAt) -> BegunCopy {
        match self {
            Copies::Files(record) => BegunCopy::Files(record.carry_on(drone)),
            Copies::Memory { .. } => BegunCopy::Memory,
        }
    }

    /// An undo found everything in place.
    pub(super) fn undone(&mut self, drone: &DroneAt) {
        match self {
            Copies::Files(record) => record.undone(drone),
            Copies::Memory { last: Some(it), .. } => it.past.undone(),
            Copies::Memory { last: None, .. } => {}
        }
    }

    /// Records the outcome of the job that began this.
    pub(super) fn end(&mut self, begun: BegunCopy, outcome: &Outcome) {
        match (self, begun) {
            (_, BegunCopy::Files(begun)) => begun.end(outcome),
            (Copies::Memory { last: Some(it), .. }, BegunCopy::Memory) => match outcome {
                // A job that is carried on may find that everything was written.
                Outcome::Flashed | Outcome::Unchanged => it.past.end(),
                Outcome::Failed(Failure { drone, .. }) | Outcome::Cancelled(drone)
                    if drone.is_unchanged() =>
                {
                    it.past.revert();
                }
                _ => it.past.keep_unfinished(),
            },
            (_, BegunCopy::Memory) => {}
        }
    }

    /// What an undo of this drone's last change would put back.
    pub(super) fn target(&self, drone: &DroneAt) -> Result<UndoTarget, NoUndo> {
        if drone.serial.is_empty() {
            return Err(NoUndo::NoSerial);
        }
        let target = |copy: Segment, expected: Vec<Piece>, file| UndoTarget {
            drone: drone.clone(),
            content: Content::in_flash(&copy.data),
            copy,
            expected,
            file,
        };
        match self {
            Copies::Files(record) => match record.target(drone) {
                Ok(Ok(Target { path, copy, age, expected })) => Ok(target(copy, expected, Some((path, age)))),
                Ok(Err(why)) => Err(NoUndo::NoCopy(why)),
                Err(error) => Err(NoUndo::Io(error.to_string())),
            },
            Copies::Memory { last, .. } => {
                let past = last.as_ref().filter(|it| it.drone.may_be(drone)).map(|it| it.past.history());
                let past = past.ok_or(NoUndo::NoCopy(NoCopy::NeverFlashed))?;
                let copy = past.target().map_err(NoUndo::NoCopy)?;
                Ok(target(copy.clone(), past.expected().to_vec(), None))
            }
        }
    }
}
