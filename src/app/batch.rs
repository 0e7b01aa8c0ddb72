//! The state of a batch in the interface. A batch flashes several drones: one [`Fleet`] identifies them, and after the
//! user has confirmed the plan, a second fleet flashes them.

use std::time::Duration;

use super::devices::{SECTORS, SectorMap};
use super::log::Log;
use super::{JobView, Slot, Undo};
use crate::fleet::{Fleet, RowState};
use crate::image::Firmware;
use crate::job::{Confirm, Device, DeviceInfo, DroneAt};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchView {
    pub fleet: Fleet,
    pub stage: BatchStage,
    /// The index of the selected row.
    pub at: usize,
    /// The known facts about the drones, indexed by row.
    pub drones: Vec<DroneFacts>,
    /// Whether the user has asked to stop all jobs.
    pub stopping: bool,
    /// The known facts about the planned drones that have no row yet.
    pub planned: Vec<(DroneAt, DroneFacts)>,
    /// The image as it was last read, kept while its file is being read again.
    pub before: Option<Box<Slot>>,
}

/// The number of ended rows that keep their log and their backup. A backup is about as large as the firmware.
const ROWS_KEPT: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchStage {
    /// The drones are being identified. Nothing is written.
    Identifying,
    /// The plan has been on the screen since this time. Nothing is written until the user confirms it.
    Asking(Duration),
    Flashing,
    /// All jobs have ended.
    Over,
}

/// The facts that the jobs have reported about a drone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DroneFacts {
    /// The state of the drone before the batch, if the drone could be identified.
    pub info: Option<Box<DeviceInfo>>,
    /// The content that an undo would write, once the drone's job has ended.
    pub undo: Option<Undo>,
    /// The drone's job, once it has started.
    pub job: Option<Box<RowJob>>,
}

/// A row's job, as shown when the row is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowJob {
    pub view: JobView,
    pub map: SectorMap,
    pub log: Log,
}

impl RowJob {
    pub(crate) fn new(device: Device) -> RowJob {
        // The user has already confirmed the plan for the batch.
        let mut view = JobView::new(Confirm::Go);
        view.facts.device = Some(device);
        RowJob { view, map: [None; SECTORS], log: Log::default() }
    }
}

/// The outcome that the plan predicts for a drone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prospect {
    /// The image is for the drone's board, or for every board.
    Fits,
    /// The image is for other boards: the drone's job refuses the image and changes nothing.
    OtherBoard,
    /// The board is not known yet. The drone's job reads the board before it writes.
    Unknown,
    /// There is no evidence that this is a Crazyflie. The drone's job checks again before it writes.
    NoEvidence,
}

impl DroneFacts {
    /// Returns the board's code, if known.
    pub(crate) fn board(&self) -> Option<&str> {
        self.info.as_deref()?.board()
    }

    /// Returns the write-protected sectors; empty if unknown.
    pub(crate) fn protected(&self) -> &[usize] {
        match self.info.as_deref() {
            Some(DeviceInfo::InDfu(identity)) => identity.protected_sectors(),
            Some(DeviceInfo::Running(_)) | None => &[],
        }
    }

    /// Returns the version of the firmware that was on the drone before the batch; empty if unknown or if the drone had
    /// no firmware.
    pub(crate) fn version_before(&self) -> &str {
        let version = match self.info.as_deref() {
            Some(DeviceInfo::InDfu(identity)) => {
                identity.firmware.as_ref().and_then(|content| content.firmware()?.version.as_deref())
            }
            Some(DeviceInfo::Running(running)) => running.version.as_deref(),
            None => None,
        };
        version.unwrap_or_default()
    }

    /// Returns whether the drone was read and showed no evidence of being a Crazyflie. Returns false for a
    /// read-protected chip, because the drone's job reports the protection.
    pub(crate) fn may_be_foreign(&self) -> bool {
        match self.info.as_deref() {
            Some(DeviceInfo::InDfu(identity)) => !identity.has_evidence() && !identity.is_read_protected(),
            Some(DeviceInfo::Running(_)) | None => false,
        }
    }

    pub(crate) fn prospect(&self, image: Option<&Firmware>) -> Prospect {
        if self.may_be_foreign() {
            return Prospect::NoEvidence;
        }
        let boards = image.map(|image| &image.boards).filter(|boards| !boards.is_empty());
        match (boards, self.board()) {
            (None, Some(_)) => Prospect::Fits,
            (Some(boards), Some(code)) if boards.iter().any(|board| board.code == code) => Prospect::Fits,
            (Some(_), Some(_)) => Prospect::OtherBoard,
            (_, None) => Prospect::Unknown,
        }
    }
}

impl BatchView {
    /// Creates a batch whose first fleet identifies the drones.
    pub(crate) fn new(fleet: Fleet, before: Option<Box<Slot>>) -> BatchView {
        let (stage, drones, planned) = (BatchStage::Identifying, Vec::new(), Vec::new());
        BatchView { fleet, stage, at: 0, drones, stopping: false, planned, before }
    }

    /// Returns whether the batch has jobs that the user can stop with a key.
    pub(crate) fn is_active(&self) -> bool {
        matches!(self.stage, BatchStage::Identifying | BatchStage::Flashing)
    }

    /// Returns the known facts about a row's drone.
    pub(crate) fn facts(&self, id: usize) -> Option<&DroneFacts> {
        self.drones.get(id)
    }

    pub(crate) fn facts_mut(&mut self, id: usize) -> &mut DroneFacts {
        if self.drones.len() <= id {
            self.drones.resize_with(id + 1, DroneFacts::default);
        }
        &mut self.drones[id]
    }

    /// Returns the selected row's job.
    pub(crate) fn job(&self) -> Option<&RowJob> {
        self.facts(self.at)?.job.as_deref()
    }

    /// Discards the job details and the backups of all but the newest ended rows, because a batch may run for days.
    /// The backups on disk are kept.
    pub(crate) fn forget_old_rows(&mut self) {
        let rows = self.fleet.rows.iter().enumerate();
        let mut ended: Vec<_> = rows.filter_map(|(id, row)| Some((row.ended?, id))).collect();
        ended.sort_unstable();
        let old = ended.len().saturating_sub(ROWS_KEPT);
        for (_, id) in ended.into_iter().take(old) {
            if let Some(facts) = self.drones.get_mut(id) {
                (facts.undo, facts.job) = (None, None);
            }
        }
    }

    pub(crate) fn job_mut(&mut self, id: usize) -> Option<&mut RowJob> {
        self.drones.get_mut(id)?.job.as_deref_mut()
    }

    /// Returns the reason why the selected row cannot be opened, if any.
    pub(crate) fn why_not_open(&self) -> Option<&'static str> {
        match self.fleet.rows.get(self.at) {
            None => Some("no drone is selected"),
            Some(row) => match &row.state {
                RowState::Ended(_) if row.report.is_none() => Some("this drone was skipped"),
                RowState::Ended(_) => None,
                RowState::Lost => Some("the drone is lost. Plug it in again"),
                // While a repeated job is waiting to start, `self.job()` still returns the previous job.
                state if matches!(state, RowState::Held | RowState::Queued) || self.job().is_none() => {
                    Some("the drone is still waiting")
                }
                _ => None,
            },
        }
    }

    /// Moves the known facts about a planned drone to the drone's new row.
    pub(crate) fn take_planned(&mut self, id: usize) {
        let Some(row) = self.fleet.rows.get(id) else { return };
        if let Some(index) = self.planned.iter().position(|(drone, _)| drone.is(&row.device)) {
            *self.facts_mut(id) = self.planned.swap_remove(index).1;
        }
    }

    /// Returns the number of rows that have ended.
    pub(crate) fn ended(&self) -> usize {
        self.fleet.rows.iter().filter(|row| row.is_final()).count()
    }

    /// Returns the completed fraction of all jobs, from 0 to 1.
    pub(crate) fn ratio(&self) -> f64 {
        let rows = &self.fleet.rows;
        #[allow(clippy::cast_precision_loss, reason = "a batch has few drones")]
        let count = rows.len().max(1) as f64;
        rows.iter().map(crate::fleet::Row::ratio).sum::<f64>() / count
    }
}
