//! The policy for a lost drone: whether to resume the job when the drone reconnects, with which task, and when to give
//! up.

use super::Planned;
use crate::job::{BoardCheck, DroneAt, Failure, FlashTask, Job, Mismatch, Outcome, Report, Task};

/// The lost drones that a front end waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// Do not wait: the command ends when the drone is lost.
    No,
    /// Wait for a drone that was lost while flashing (the interface). If the drone was lost earlier, the
    /// user decides whether to try again.
    Interrupted,
    /// Wait for any lost drone (`--wait`): the contact may bounce while the cable is being plugged in.
    Lost,
}

/// What to do after a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    Done,
    /// The drone was lost repeatedly without progress.
    GiveUp,
    /// Run this job once the drone is back.
    Resume(Box<Job>),
}

impl Next {
    /// Returns the rest of the job, to run once the drone is back.
    pub(crate) fn rest(self) -> Option<Box<Job>> {
        match self {
            Next::Resume(job) => Some(job),
            Next::Done | Next::GiveUp => None,
        }
    }
}

pub(super) fn decide_next(
    waits: Waits,
    headway: &mut Headway,
    job: &Job,
    report: &Report,
    drone: Option<&DroneAt>,
    planned: Option<Planned>,
) -> Next {
    let (Outcome::Failed(failure), Some(drone)) = (&report.outcome, drone) else { return Next::Done };
    let should_wait = match waits {
        Waits::No => false,
        Waits::Interrupted => failure.is_interruption(),
        Waits::Lost => failure.is_lost() && !job.wait.is_zero(),
    };
    if !should_wait {
        return Next::Done;
    }
    if headway.count_attempt(planned.map(|plan| plan.left)) {
        return Next::GiveUp;
    }
    let task = match &job.task {
        Task::Flash(task) if failure.is_interruption() => {
            Task::Flash(resumed_task(task.clone(), failure, planned.map(|plan| plan.board)))
        }
        task => task.clone(),
    };
    Next::Resume(Box::new(Job { task, ..job.clone() }.of(drone.clone())))
}

/// Returns the task for the rest of an interrupted flash. The resumed task does not ask the user about a mismatch, so
/// it accepts only the mismatch that the user has confirmed.
fn resumed_task(task: FlashTask, failure: &Failure, board: Option<BoardCheck>) -> FlashTask {
    let mismatch = match task.mismatch {
        Mismatch::Ask if board.is_some_and(|board| !board.is_passed()) => Mismatch::Allow,
        Mismatch::Ask => Mismatch::Refuse,
        other => other,
    };
    FlashTask { mismatch, ..task.resumed(failure.drone) }
}

/// Detects a flash that is interrupted repeatedly without progress. Each attempt erases a sector again, and a sector
/// endures only 10,000 erases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headway {
    /// The smallest number of bytes still to write at the start of any attempt.
    least: Option<u64>,
    /// Consecutive attempts without progress.
    stuck: u32,
    /// Attempts that were interrupted before the comparison. Such attempts do not wear the flash.
    bounced: u32,
}

impl Headway {
    /// Give up after this many consecutive attempts without progress.
    const STUCK: u32 = 3;
    /// Give up after this many attempts that were interrupted before the comparison.
    const BOUNCES: u32 = 20;

    /// Counts an interrupted attempt. `left` is the number of bytes that were still to be written when the attempt
    /// started, if known. Returns true if it is time to give up.
    pub fn count_attempt(&mut self, left: Option<u64>) -> bool {
        match left {
            Some(left) if self.least.is_none_or(|least| left < least) => {
                (self.least, self.stuck) = (Some(left), 0);
            }
            Some(_) => self.stuck += 1,
            None => self.bounced += 1,
        }
        self.stuck >= Headway::STUCK || self.bounced >= Headway::BOUNCES
    }
}
