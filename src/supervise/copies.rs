//! Stores the copies that an undo restores: in the state directory, or in memory for the demo and for users without a
//! home directory.

use std::path::PathBuf;
use std::time::Duration;

use crate::flash::Segment;
use crate::image::Content;
use crate::job::{CopyProblem, DroneAt, Failure, LogEntry, Outcome, Preview};
use crate::plan::undo::{Change, NoCopy, NoUndo, Piece, Tracked};
use crate::record::{self, StateDir, Target};

pub(super) enum Copies {
    Files(StateDir),
    Memory {
        last: Option<Box<Remembered>>,
        /// There is no home directory. The user expects copies to outlive this process, but these copies do not.
        is_fallback: bool,
    },
}

/// The undo history of the drone that was flashed last.
pub(super) struct Remembered {
    drone: DroneAt,
    past: Tracked,
}

/// The data that an undo would write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndoTarget {
    pub drone: DroneAt,
    pub copy: Segment,
    /// The recognised content of the copy; `None` if it is blank.
    pub content: Option<Content>,
    /// The contents that the drone must still hold: see [`crate::plan::undo::History::expected`].
    pub expected: Vec<Piece>,
    /// The file and its age, if the copy is stored in a file.
    pub file: Option<(PathBuf, Duration)>,
}

/// The recorded change that a job is making.
pub(super) enum RecordedChange {
    Files(record::BegunChange),
    Memory,
}

impl Copies {
    pub(super) fn new(record: Option<StateDir>, demo: bool) -> Copies {
        record.map_or(Copies::Memory { last: None, is_fallback: !demo }, Copies::Files)
    }

    /// Saves the content that a job is about to overwrite, and returns the entry for the log. If saving fails, the
    /// flash continues. With `--no-undo`, or if the flash was blank, nothing is saved and there is no log entry.
    pub(super) fn begin(
        &mut self,
        drone: &DroneAt,
        preview: &Preview,
        change: Change,
    ) -> (Option<RecordedChange>, Option<LogEntry>) {
        match self {
            Copies::Files(record) => {
                let (begun, entry) = record::begin(record, drone, preview, change);
                (begun.map(RecordedChange::Files), entry)
            }
            Copies::Memory { last, is_fallback } => {
                let past = last.take().filter(|it| it.drone.may_be(drone));
                let mut past = past.map(|it| it.past).unwrap_or_default();
                past.begin(preview.plan.pieces(), preview.before.as_ref(), change);
                *last = Some(Box::new(Remembered { drone: drone.clone(), past }));
                let is_temporary = *is_fallback && preview.before.is_some();
                (Some(RecordedChange::Memory), is_temporary.then_some(LogEntry::NoCopy(CopyProblem::NoHome)))
            }
        }
    }

    /// Resumes the change that an earlier job began.
    pub(super) fn resume_change(&self, drone: &DroneAt) -> RecordedChange {
        match self {
            Copies::Files(record) => RecordedChange::Files(record.resume_change(drone)),
            Copies::Memory { .. } => RecordedChange::Memory,
        }
    }

    /// Marks an unfinished undo as finished, because a later undo found the old content already in place.
    pub(super) fn finish_undo(&mut self, drone: &DroneAt) {
        match self {
            Copies::Files(record) => record.finish_undo(drone),
            Copies::Memory { last: Some(it), .. } => it.past.undone(),
            Copies::Memory { last: None, .. } => {}
        }
    }

    /// Records the outcome of the job.
    pub(super) fn end(&mut self, begun: RecordedChange, outcome: &Outcome) {
        match (self, begun) {
            (_, RecordedChange::Files(begun)) => begun.end(outcome),
            (Copies::Memory { last: Some(it), .. }, RecordedChange::Memory) => match outcome {
                // A resumed job may find that everything was already written.
                Outcome::Flashed | Outcome::Unchanged => it.past.end(),
                Outcome::Failed(Failure { drone, .. }) | Outcome::Cancelled(drone)
                    if drone.is_unchanged() =>
                {
                    it.past.revert();
                }
                _ => it.past.keep_unfinished(),
            },
            (_, RecordedChange::Memory) => {}
        }
    }

    /// Finds the data that an undo of this drone's last change would write.
    pub(super) fn find_undo_target(&self, drone: &DroneAt) -> Result<UndoTarget, NoUndo> {
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
