//! The DfuSe protocol as a state machine without I/O: call [`Machine::begin`], perform each [`Machine::step`] and pass
//! the result to [`Machine::reply`], until the step is [`Step::Finished`].
//!
//! Waits are steps too, and their total is bounded. The machine tracks the device's state and sends only requests that
//! the state allows (DFU 1.1 annex A). It also tracks the address pointer, so that in a run of consecutive blocks, each
//! block takes only three transfers to write or one to read.

use std::collections::VecDeque;
use std::time::Duration;

use thiserror::Error;

use super::quirks::{Polling, Quirks};
use super::wire::{self, FIRST_BLOCK, Request, STATUS_LEN, StatusBlock};
use super::{DfuError, State, Status};
use crate::flash::Address;
use crate::usb::{Setup, TransferError};

/// An operation on the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Bring a newly opened device to dfuIDLE. A command that an earlier session sent but did not start, such as an
    /// erase that a killed program requested, is aborted. GETSTATUS would start that command, so the machine reads
    /// the state with GETSTATE first.
    TakeOver,
    /// Bring the device to dfuIDLE after a failed operation.
    Recover,
    /// Erase the sector that contains this address.
    Erase(Address),
    /// Write these bytes, which must fit in one transfer.
    Write(Address, Vec<u8>),
    /// Read this many bytes, which must fit in one transfer.
    Read(Address, u16),
    /// Return to dfuIDLE, as required before another alternate setting is selected.
    Idle,
    /// Leave DFU mode and start the program at this address.
    Leave(Address),
}

/// What the caller must do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Perform a control transfer that sends these bytes to the device, within this time limit.
    Send(Setup, &'a [u8], Duration),
    /// Perform a control transfer that reads up to this many bytes from the device, within this time limit.
    Fetch(Setup, usize, Duration),
    /// Wait, then call [`Machine::finish_wait`].
    Wait(Duration),
    /// The operation has ended. Only a read returns bytes.
    Finished(Result<Vec<u8>, DfuError>),
}

/// An event for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The device was in dfuERROR with this status, which was cleared.
    Cleared(Status),
    /// An earlier session was interrupted in this state.
    Aborted(State),
    /// Eager polling failed for this reason, so bwPollTimeout is obeyed from now on.
    ObeyingPoll(PollReason),
}

/// Why eager polling ([`Polling::Eager`]) ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PollReason {
    #[error("GETSTATUS was stalled")]
    Stalled,
    #[error("GETSTATUS was not answered")]
    Unanswered,
    #[error("the device was busy")]
    Busy,
}

/// Time limit for a request that the device answers at once.
const PROMPT: Duration = Duration::from_secs(2);
/// Time limit for an operation other than an erase.
const WORK: Duration = Duration::from_secs(5);
/// Time limit for erasing one sector. The data sheet's maximum is 4 s (DS8626 table 40).
const ERASE: Duration = Duration::from_secs(10);
/// The shortest pause before a busy device is polled again.
const PAUSE: Duration = Duration::from_millis(20);
/// Number of consecutive GETSTATUS requests that may fail. While the device is working, stalls do not count: ROMs of
/// the L4 family stall until the work is done.
const LOST_POLLS: u32 = 3;
/// Number of attempts to reach dfuIDLE from any state.
const RECOVERIES: u32 = 6;

/// A request and the handling of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Act {
    /// A command or a block of data to send, with the time limit for the device's work.
    Download {
        request: Request,
        data: Vec<u8>,
        time_limit: Duration,
    },
    Upload {
        block: u16,
        len: u16,
    },
    Abort,
    /// An empty download and a GETSTATUS, which make the device start the program at its address pointer.
    Leave,
}

impl Act {
    fn request(&self) -> Request {
        match self {
            Act::Download { request, .. } => *request,
            Act::Upload { block, .. } => Request::Upload(*block),
            Act::Abort => Request::Abort,
            Act::Leave => Request::Download(FIRST_BLOCK),
        }
    }

    /// Returns the time limit for the device's work on this act.
    fn time_limit(&self) -> Duration {
        match self {
            Act::Download { time_limit, .. } => *time_limit,
            Act::Upload { .. } | Act::Abort | Act::Leave => WORK,
        }
    }
}

/// The next step of the machine. Each phase of an act owns the act.
#[derive(Debug)]
enum MachinePhase {
    Ready,
    /// Send the act's own request.
    Send(Act),
    /// Send GETSTATUS, which makes the device start carrying out the download.
    Start {
        act: Act,
        lost: u32,
    },
    /// Wait before the next GETSTATUS.
    Pause {
        act: Act,
        time: Duration,
        lost: u32,
    },
    /// Send GETSTATUS to learn whether the work is done. With eager polling, the device does not answer until the work
    /// is done.
    Poll {
        act: Act,
        poll: Duration,
        lost: u32,
    },
    /// Send GETSTATUS to learn why the device refused a request.
    Diagnose(DfuError),
    /// Send GETSTATE, which changes nothing, to learn whether an earlier session's command is pending.
    Peek {
        tries: u32,
    },
    /// Send GETSTATUS to learn the device's state.
    Survey {
        tries: u32,
    },
    /// Wait for an earlier session's operation to end, then survey again.
    WaitForIdle {
        time: Duration,
        tries: u32,
    },
    /// Send CLRSTATUS or ABORT, as the device's state requires.
    Settle {
        tries: u32,
        with: Request,
        peek: bool,
    },
    Over(Result<Vec<u8>, DfuError>),
}

/// The device's address pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pointer {
    base: Address,
    /// The number of the block that continues the run.
    next: u16,
}

/// The host's side of the protocol with one device in DFU mode.
pub struct Machine {
    interface: u8,
    transfer_size: u16,
    eager: bool,
    /// The device's state; `None` until it has been read, and after a failure.
    state: Option<State>,
    pointer: Option<Pointer>,
    acts: VecDeque<Act>,
    phase: MachinePhase,
    /// The total time waited during this operation.
    waited: Duration,
    notes: Vec<Note>,
}

impl Machine {
    /// Creates a machine for a device in any state. Start with [`Operation::TakeOver`].
    pub fn new(interface: u8, transfer_size: u16, quirks: Quirks) -> Machine {
        Machine {
            interface,
            transfer_size,
            eager: quirks.polling == Polling::Eager,
            state: None,
            pointer: None,
            acts: VecDeque::new(),
            phase: MachinePhase::Over(Ok(Vec::new())),
            waited: Duration::ZERO,
            notes: Vec::new(),
        }
    }

    /// Starts an operation. An unfinished operation is dropped, and the device's state is then unknown until
    /// [`Operation::TakeOver`] or [`Operation::Recover`] has read it.
    pub fn begin(&mut self, operation: Operation) {
        self.acts.clear();
        self.waited = Duration::ZERO;
        self.phase = MachinePhase::Ready;
        match operation {
            Operation::TakeOver => {
                self.pointer = None;
                self.phase = MachinePhase::Peek { tries: 0 };
            }
            Operation::Recover => {
                self.pointer = None;
                self.phase = MachinePhase::Survey { tries: 0 };
            }
            Operation::Erase(address) => {
                self.prepare_download();
                self.queue_command(wire::encode_erase(address), ERASE);
                self.pointer = None;
            }
            Operation::Write(address, data) => {
                self.prepare_download();
                let block = self.point_to(address, data.len());
                self.acts.push_back(Act::Download {
                    request: Request::Download(block),
                    data,
                    time_limit: WORK,
                });
            }
            Operation::Read(address, len) => {
                let block = self.point_to(address, usize::from(len));
                let after_command = !self.acts.is_empty() || self.state == Some(State::DnloadIdle);
                if after_command {
                    self.acts.push_back(Act::Abort);
                }
                self.acts.push_back(Act::Upload { block, len });
            }
            Operation::Idle => {
                if self.state != Some(State::DfuIdle) {
                    self.acts.push_back(Act::Abort);
                }
            }
            Operation::Leave(address) => {
                self.prepare_download();
                self.queue_command(wire::encode_set_address(address), WORK);
                self.pointer = None;
                self.acts.push_back(Act::Leave);
            }
        }
    }

    /// Returns the next step. The step stays the same until [`Machine::reply`] or [`Machine::finish_wait`] is called.
    pub fn step(&mut self) -> Step<'_> {
        if matches!(self.phase, MachinePhase::Ready) {
            self.phase = self.acts.pop_front().map_or(MachinePhase::Over(Ok(Vec::new())), MachinePhase::Send);
        }
        let interface = self.interface;
        let get_status =
            |limit: Duration| Step::Fetch(Request::GetStatus.setup(interface), STATUS_LEN, limit);
        match &self.phase {
            MachinePhase::Send(Act::Download { request, data, .. }) => {
                Step::Send(request.setup(interface), data, PROMPT)
            }
            MachinePhase::Send(act @ Act::Upload { len, .. }) => {
                Step::Fetch(act.request().setup(interface), usize::from(*len), PROMPT)
            }
            MachinePhase::Send(act @ (Act::Abort | Act::Leave)) => {
                Step::Send(act.request().setup(interface), &[], PROMPT)
            }
            MachinePhase::Pause { time, .. } | MachinePhase::WaitForIdle { time, .. } => Step::Wait(*time),
            MachinePhase::Peek { .. } => Step::Fetch(Request::GetState.setup(interface), 1, PROMPT),
            MachinePhase::Poll { act, .. } => get_status(act.time_limit()),
            MachinePhase::Start { .. } | MachinePhase::Diagnose(_) | MachinePhase::Survey { .. } => {
                get_status(PROMPT)
            }
            MachinePhase::Settle { with, .. } => Step::Send(with.setup(interface), &[], PROMPT),
            MachinePhase::Over(result) => Step::Finished(result.clone()),
            MachinePhase::Ready => Step::Finished(Ok(Vec::new())),
        }
    }

    /// Reports that the caller has performed a [`Step::Wait`].
    pub fn finish_wait(&mut self) {
        self.phase = match std::mem::replace(&mut self.phase, MachinePhase::Ready) {
            MachinePhase::Pause { act, time, lost } => {
                self.waited += time;
                MachinePhase::Poll { act, poll: time, lost }
            }
            MachinePhase::WaitForIdle { time, tries } => {
                self.waited += time;
                MachinePhase::Survey { tries }
            }
            other => {
                debug_assert!(false, "unexpected call to finish_wait() in {other:?}");
                other
            }
        };
    }

    /// Reports the result of a transfer: the bytes of a [`Step::Fetch`], or an empty slice for a completed
    /// [`Step::Send`].
    pub fn reply(&mut self, result: Result<&[u8], TransferError>) {
        match std::mem::replace(&mut self.phase, MachinePhase::Ready) {
            MachinePhase::Send(act) => self.handle_send(act, result),
            MachinePhase::Start { act, lost } => self.handle_start(act, result, lost),
            MachinePhase::Poll { act, poll, lost } => self.handle_poll(act, result, poll, lost),
            MachinePhase::Diagnose(error) => self.handle_diagnose(result, error),
            MachinePhase::Peek { tries } => self.handle_peek(result, tries),
            MachinePhase::Survey { tries } => self.handle_survey(result, tries),
            MachinePhase::Settle { tries, with, peek } => self.handle_settle(result, tries, with, peek),
            other @ (MachinePhase::Ready
            | MachinePhase::Pause { .. }
            | MachinePhase::WaitForIdle { .. }
            | MachinePhase::Over(_)) => {
                debug_assert!(false, "unexpected call to reply() in {other:?}");
                self.phase = other;
            }
        }
    }

    /// Removes and returns the log events since the last call.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Returns whether the device is polled at once rather than after bwPollTimeout: see [`Polling::Eager`].
    pub(crate) fn is_eager(&self) -> bool {
        self.eager
    }

    /// Forgets the address pointer after another alternate setting has been selected.
    pub(crate) fn forget_pointer(&mut self) {
        self.pointer = None;
    }

    fn queue_command(&mut self, data: Vec<u8>, time_limit: Duration) {
        self.acts.push_back(Act::Download { request: Request::Command, data, time_limit });
    }

    /// Queues an ABORT in dfuUPLOAD-IDLE, where the device refuses a download.
    fn prepare_download(&mut self) {
        if self.state == Some(State::UploadIdle) {
            self.acts.push_back(Act::Abort);
        }
    }

    /// Returns the block number for `len` bytes at `address`. Queues a Set Address Pointer first, unless the block
    /// continues the current run.
    ///
    /// A short block always gets its own Set Address Pointer: AN3156 §5.1 does not state whether the device computes
    /// its address from the block's own length or from the transfer size.
    fn point_to(&mut self, address: Address, len: usize) -> u16 {
        let whole = len == usize::from(self.transfer_size);
        if let Some(Pointer { base, next }) = self.pointer.filter(|_| whole) {
            let offset = u32::from(next - FIRST_BLOCK) * u32::from(self.transfer_size);
            if base.checked_add(offset) == Some(address) {
                self.pointer = next.checked_add(1).map(|next| Pointer { base, next });
                return next;
            }
        }
        if self.state == Some(State::UploadIdle) && self.acts.is_empty() {
            self.acts.push_back(Act::Abort);
        }
        self.queue_command(wire::encode_set_address(address), WORK);
        self.pointer = whole.then_some(Pointer { base: address, next: FIRST_BLOCK + 1 });
        FIRST_BLOCK
    }

    fn handle_send(&mut self, act: Act, result: Result<&[u8], TransferError>) {
        match (&act, result) {
            (Act::Download { .. } | Act::Leave, Ok(_)) => self.phase = MachinePhase::Start { act, lost: 0 },
            (Act::Abort, Ok(_)) => self.advance(State::DfuIdle),
            (Act::Upload { len, .. }, Ok(bytes)) => {
                let (wanted, got) = (usize::from(*len), bytes.len());
                // After a block shorter than the transfer size, the device may consider the upload finished and be in
                // dfuIDLE (DFU 1.1 §6.2). Assume dfuUPLOAD-IDLE: the ABORT that follows is allowed in both states.
                self.state = Some(State::UploadIdle);
                if wanted == got {
                    self.finish(Ok(bytes.to_vec()));
                } else {
                    self.fail(DfuError::Short { got, wanted });
                }
            }
            (Act::Leave, Err(TransferError::Disconnected)) => self.finish(Ok(Vec::new())),
            (act, Err(error)) => self.diagnose_or_fail(DfuError::Transfer { request: act.request(), error }),
        }
    }

    /// After a stall, asks the device for its status. After any other error, the operation fails at once, because the
    /// device cannot report a reason.
    fn diagnose_or_fail(&mut self, error: DfuError) {
        match error {
            DfuError::Transfer { error: TransferError::Stall, .. } => {
                self.phase = MachinePhase::Diagnose(error);
            }
            _ => self.fail(error),
        }
    }

    /// Handles the answer to the first GETSTATUS after a download: the device has started its work and reports how long
    /// to wait.
    fn handle_start(&mut self, act: Act, result: Result<&[u8], TransferError>, lost: u32) {
        let leaving = act == Act::Leave;
        let block = match result {
            Ok(bytes) => StatusBlock::parse(bytes),
            // The device left DFU mode before it answered.
            Err(_) if leaving => return self.finish(Ok(Vec::new())),
            Err(TransferError::Disconnected) => return self.fail(lost_status(TransferError::Disconnected)),
            Err(error) if lost >= LOST_POLLS => return self.fail(lost_status(error)),
            // The request or its answer was lost. Another GETSTATUS is safe: it starts the work or reports on it.
            Err(_) => return self.phase = MachinePhase::Start { act, lost: lost + 1 },
        };
        match block {
            None => self.fail(DfuError::Garbled),
            Some(StatusBlock { status, .. }) if status != Status::OK => self.fail_with_status(status),
            Some(_) if leaving => self.finish(Ok(Vec::new())),
            Some(StatusBlock { state: State::Dnbusy | State::DnloadSync, poll, .. }) => {
                let time = bound_wait(poll, &act);
                self.phase = if self.eager {
                    MachinePhase::Poll { act, poll: time, lost: 0 }
                } else {
                    MachinePhase::Pause { act, time, lost: 0 }
                };
            }
            Some(StatusBlock { state: State::DnloadIdle, .. }) => self.advance(State::DnloadIdle),
            Some(StatusBlock { state, .. }) => self.fail(DfuError::State(state)),
        }
    }

    /// Handles the answer to a later GETSTATUS: the work is done, has failed, or is still in progress.
    fn handle_poll(&mut self, act: Act, result: Result<&[u8], TransferError>, poll: Duration, lost: u32) {
        let block = match result {
            Ok(bytes) => StatusBlock::parse(bytes),
            Err(TransferError::Disconnected) => return self.fail(lost_status(TransferError::Disconnected)),
            // A stall is an answer: some ROMs stall until the work is done, so only the time limit ends the operation.
            Err(error) if lost >= LOST_POLLS && error != TransferError::Stall => {
                return self.fail(lost_status(error));
            }
            Err(error) => {
                self.stop_eager_polling(if error == TransferError::Stall {
                    PollReason::Stalled
                } else {
                    PollReason::Unanswered
                });
                let lost = if error == TransferError::Stall { lost } else { lost + 1 };
                return self.pause(act, poll, lost);
            }
        };
        match block {
            None => self.fail(DfuError::Garbled),
            Some(StatusBlock { status, .. }) if status != Status::OK => self.fail_with_status(status),
            Some(StatusBlock { state: State::DnloadIdle, .. }) => self.advance(State::DnloadIdle),
            Some(StatusBlock { state: State::Dnbusy | State::DnloadSync, poll, .. }) => {
                self.stop_eager_polling(PollReason::Busy);
                self.pause(act, poll, 0);
            }
            Some(StatusBlock { state, .. }) => self.fail(DfuError::State(state)),
        }
    }

    /// Polls again after `poll`, unless the operation has used up its time limit.
    fn pause(&mut self, act: Act, poll: Duration, lost: u32) {
        if self.waited >= act.time_limit() {
            return self.fail(DfuError::Busy(self.waited));
        }
        let time = bound_wait(poll, &act);
        self.phase = MachinePhase::Pause { act, time, lost };
    }

    fn stop_eager_polling(&mut self, why: PollReason) {
        if self.eager {
            self.eager = false;
            self.notes.push(Note::ObeyingPoll(why));
        }
    }

    fn handle_diagnose(&mut self, result: Result<&[u8], TransferError>, error: DfuError) {
        match result.ok().and_then(StatusBlock::parse) {
            Some(StatusBlock { status, state: State::Error, .. }) if status != Status::OK => {
                self.fail_with_status(status);
            }
            _ => self.fail(error),
        }
    }

    fn handle_peek(&mut self, result: Result<&[u8], TransferError>, tries: u32) {
        let state = match result {
            Ok(&[code]) => State::from_code(code),
            Ok(_) => None,
            // The device does not support GETSTATE, so a pending command cannot be detected.
            Err(TransferError::Stall) if tries >= LOST_POLLS => None,
            Err(error) if tries >= LOST_POLLS || error == TransferError::Disconnected => {
                return self.fail(DfuError::Transfer { request: Request::GetState, error });
            }
            Err(_) => return self.phase = MachinePhase::Peek { tries: tries + 1 },
        };
        match state {
            Some(state @ (State::DnloadSync | State::ManifestSync)) if tries < LOST_POLLS => {
                self.notes.push(Note::Aborted(state));
                self.phase = MachinePhase::Settle { tries: tries + 1, with: Request::Abort, peek: true };
            }
            // Repeated ABORTs have not cleared the pending command.
            Some(state @ (State::DnloadSync | State::ManifestSync)) => self.fail(DfuError::State(state)),
            _ => self.phase = MachinePhase::Survey { tries: 0 },
        }
    }

    fn handle_survey(&mut self, result: Result<&[u8], TransferError>, tries: u32) {
        let block = match result {
            Ok(bytes) => StatusBlock::parse(bytes),
            Err(TransferError::Disconnected) => return self.fail(lost_status(TransferError::Disconnected)),
            Err(error) if tries >= RECOVERIES => return self.fail(lost_status(error)),
            Err(_) => return self.phase = MachinePhase::Survey { tries: tries + 1 },
        };
        let Some(StatusBlock { status, state, poll }) = block else {
            return self.fail(DfuError::Garbled);
        };
        if state != State::DfuIdle && tries >= RECOVERIES {
            return self.fail(DfuError::State(state));
        }
        match state {
            State::DfuIdle => {
                self.state = Some(State::DfuIdle);
                self.finish(Ok(Vec::new()));
            }
            // Send CLRSTATUS only in dfuERROR: strict ROMs stall CLRSTATUS in every other state.
            State::Error => {
                self.notes.push(Note::Cleared(status));
                self.phase = MachinePhase::Settle { tries, with: Request::ClearStatus, peek: false };
            }
            State::DnloadIdle | State::UploadIdle => {
                self.notes.push(Note::Aborted(state));
                self.phase = MachinePhase::Settle { tries, with: Request::Abort, peek: false };
            }
            // Try once: a ROM that is still in dfuMANIFEST from an earlier session usually needs a power cycle.
            State::Manifest if tries == 0 => {
                self.notes.push(Note::Aborted(state));
                self.phase = MachinePhase::Settle { tries: RECOVERIES, with: Request::Abort, peek: false };
            }
            _ if self.waited >= ERASE => self.fail(DfuError::Busy(self.waited)),
            State::Dnbusy | State::DnloadSync | State::ManifestSync => {
                self.phase = MachinePhase::WaitForIdle { time: poll.clamp(PAUSE, WORK), tries: tries + 1 };
            }
            _ => self.fail(DfuError::State(state)),
        }
    }

    fn handle_settle(&mut self, result: Result<&[u8], TransferError>, tries: u32, with: Request, peek: bool) {
        match result {
            Err(error @ (TransferError::Disconnected | TransferError::Access)) => {
                self.fail(DfuError::Transfer { request: with, error });
            }
            _ if peek => self.phase = MachinePhase::Peek { tries },
            _ => self.phase = MachinePhase::Survey { tries: tries + 1 },
        }
    }

    fn fail_with_status(&mut self, status: Status) {
        self.fail(DfuError::Status(status));
    }

    /// Records that the act is done and that the device is in `state`, then proceeds to the next act.
    fn advance(&mut self, state: State) {
        self.state = Some(state);
        self.phase = MachinePhase::Ready;
    }

    fn finish(&mut self, result: Result<Vec<u8>, DfuError>) {
        self.phase = MachinePhase::Over(result);
        self.acts.clear();
    }

    /// Ends the operation with an error. The pointer and the state are then unknown; [`Operation::Recover`] reads the
    /// state again.
    fn fail(&mut self, error: DfuError) {
        self.pointer = None;
        self.state = None;
        self.finish(Err(error));
    }
}

/// Limits a wait to the range from [`PAUSE`] to the act's time limit: bwPollTimeout may be zero or several hours.
fn bound_wait(poll: Duration, act: &Act) -> Duration {
    poll.clamp(PAUSE, act.time_limit())
}

fn lost_status(error: TransferError) -> DfuError {
    DfuError::Transfer { request: Request::GetStatus, error }
}

#[cfg(test)]
mod tests;
