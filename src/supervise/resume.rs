//! The one policy for a drone that is lost: whether the job is done again when it is back, as what, and when to give up.

use super::Planned;
use crate::job::{BoardCheck, DroneAt, Failure, FlashTask, Job, Mismatch, Outcome, Report, Task};

/// What a front end waits for after a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// Nothing: the command ends.
    No,
    /// A drone that was lost in the middle of a flash; one that was lost before is for the user to try again (the
    /// interface).
    Interrupted,
    /// Any drone that was lost: `--wait` covers a contact that bounces while it is plugged in.
    Lost,
}

/// What follows a job that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Done,
    /// Its drone was lost again and again, and it gets no further.
    GiveUp,
    /// This job, once the drone is back.
    Resume(Box<Job>),
}

pub(super) fn next(
    waits: Waits,
    headway: &mut Headway,
    job: &Job,
    report: &Report,
    drone: Option<&DroneAt>,
    planned: Option<Planned>,
) -> Next {
    let (Outcome::Failed(failure), Some(drone)) = (&report.outcome, drone) else { return Next::Done };
    let is_waited_for = match waits {
        Waits::No => false,
        Waits::Interrupted => failure.is_interruption(),
        Waits::Lost => failure.is_lost() && !job.wait.is_zero(),
    };
    if !is_waited_for {
        return Next::Done;
    }
    if headway.is_stuck(planned.map(|plan| plan.left)) {
        return Next::GiveUp;
    }
    let task = match &job.task {
        Task::Flash(task) if failure.is_interruption() => {
            Task::Flash(resumed(task.clone(), failure, planned.map(|plan| plan.board)))
        }
        task => task.clone(),
    };
    Next::Resume(Box::new(Job { task, ..job.clone() }.of(drone.clone())))
}

/// The rest of a flash asks nothing, so it takes what was confirmed and nothing else.
fn resumed(task: FlashTask, failure: &Failure, board: Option<BoardCheck>) -> FlashTask {
    let mismatch = match task.mismatch {
        Mismatch::Ask if board.is_some_and(|board| !board.is_passed()) => Mismatch::Take,
        Mismatch::Ask => Mismatch::Refuse,
        other => other,
    };
    FlashTask { mismatch, ..task.resumed(failure.drone) }
}

/// Whether a flash that is lost and carried on, again and again, gets any further: each session erases a sector again,
/// and a sector takes 10,000 erases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headway {
    /// The least that was left to write, in bytes.
    least: Option<u64>,
    stuck: u32,
    /// Sessions that were lost before anything was compared, which wears nothing.
    bounced: u32,
}

impl Headway {
    /// Sessions in a row that bring a flash no further, after which it is given up.
    const STUCK: u32 = 3;
    /// The same for sessions that came to nothing.
    const BOUNCES: u32 = 20;

    /// A session was lost that had this left to write at its start, in bytes; whether it is time to give up.
    pub fn is_stuck(&mut self, left: Option<u64>) -> bool {
        match left {
            Some(left) if self.least.is_none_or(|least| left < least) => {
                (self.least, self.stuck) = (Some(left), 0);
            }
            // No further, or not even so far that it was known what is left.
            Some(_) => self.stuck += 1,
            None => self.bounced += 1,
        }
        self.stuck >= Headway::STUCK || self.bounced >= Headway::BOUNCES
    }
}
