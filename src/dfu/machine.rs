//! The DfuSe conversation as a machine: [`Machine::begin`] an operation, do what [`Machine::step`] says,
//! tell the result to [`Machine::reply`], until it says [`Step::Finished`].
//!
//! No USB, no clock, no sleep: waits are steps, and their sum is bounded. The machine knows which state
//! the device is in and where its address pointer stands, so a run of blocks costs three transfers each
//! to write and one to read, and nothing is sent that the state does not allow (DFU 1.1 annex A).

use std::collections::VecDeque;
use std::time::Duration;

use thiserror::Error;

use super::quirks::{Polling, Quirks};
use super::wire::{self, FIRST_BLOCK, Request, STATUS_LEN, StatusBlock};
use super::{DfuError, State, Status};
use crate::flash::Address;
use crate::usb::{Setup, TransferError};

/// What the caller wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Bring the device of an earlier session to dfuIDLE. What that session had sent and not started is dropped: the
    /// GETSTATUS which would tell the state would carry it out, an erase by a program that was killed, say.
    TakeOver,
    /// Bring the device to dfuIDLE after an operation that failed.
    Recover,
    /// Erase the sector that holds this address.
    Erase(Address),
    /// Write these bytes, at most one transfer's worth.
    Write(Address, Vec<u8>),
    /// Read this many bytes, at most one transfer's worth.
    Read(Address, u16),
    /// Be in dfuIDLE, as before another alternate setting is chosen.
    Idle,
    /// Leave DFU mode and start what is at this address.
    Leave(Address),
}

/// What the caller has to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A control transfer that writes.
    Send(Setup, &'a [u8], Duration),
    /// A control transfer that reads up to this many bytes.
    Fetch(Setup, usize, Duration),
    /// Wait, then call [`Machine::waited`].
    Wait(Duration),
    /// The operation is over; the bytes are those of a read.
    Finished(Result<Vec<u8>, DfuError>),
}

/// Something the log should tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The device was in dfuERROR with this status, and was cleared.
    Cleared(Status),
    /// An earlier session had been interrupted in this state.
    Aborted(State),
    /// From here on bwPollTimeout is obeyed, since the device answered in this unexpected way.
    ObeyingPoll(PollReason),
}

/// What showed that a device needs the time that it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PollReason {
    #[error("GETSTATUS was stalled")]
    Stalled,
    #[error("GETSTATUS was not answered")]
    Unanswered,
    #[error("the device was busy")]
    Busy,
}

/// Time limit of a request that the device answers at once.
const PROMPT: Duration = Duration::from_secs(2);
/// Longest time that an operation other than an erase may take.
const WORK: Duration = Duration::from_secs(5);
/// Longest time that the erase of one sector may take: the data sheet's maximum is 4 s (DS8626 table 40).
const ERASE: Duration = Duration::from_secs(10);
/// A busy device that names no time is asked again after this.
const PAUSE: Duration = Duration::from_millis(20);
/// GETSTATUS attempts that may fail in a row while the device works: ROMs of the L4 family stall it.
const LOST_POLLS: u32 = 3;
/// Attempts to get from any state to dfuIDLE.
const RECOVERIES: u32 = 6;

/// One request and what its answer must be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Act {
    /// A command or data to carry out, with the longest time that may take.
    Download {
        request: Request,
        data: Vec<u8>,
        patience: Duration,
    },
    Upload {
        block: u16,
        len: u16,
    },
    Abort,
    /// The empty download and the GETSTATUS that start what is in flash.
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

    /// The longest time that it may take.
    fn patience(&self) -> Duration {
        match self {
            Act::Download { patience, .. } => *patience,
            Act::Upload { .. } | Act::Abort | Act::Leave => WORK,
        }
    }
}

/// What the machine waits for. Each phase owns the act that it carries out.
#[derive(Debug)]
enum MachinePhase {
    Ready,
    /// The act's own request is to be sent.
    Send(Act),
    /// GETSTATUS, which makes the device start a download's work.
    Start {
        act: Act,
        lost: u32,
    },
    /// Wait before asking whether the work is done.
    Pause {
        act: Act,
        time: Duration,
        lost: u32,
    },
    /// GETSTATUS, which waits for or asks for the end of the work.
    Poll {
        act: Act,
        poll: Duration,
        lost: u32,
    },
    /// GETSTATUS after the device refused something, to learn why.
    Diagnose(DfuError),
    /// GETSTATE, which changes nothing, to see whether something waits to be started.
    Peek {
        tries: u32,
    },
    /// GETSTATUS, to see where the device stands.
    Survey {
        tries: u32,
    },
    /// Wait for an earlier session's work to end, then survey again.
    Doze {
        time: Duration,
        tries: u32,
    },
    /// CLRSTATUS or ABORT, after a look at where the device stands.
    Settle {
        tries: u32,
        with: Request,
        peek: bool,
    },
    Over(Result<Vec<u8>, DfuError>),
}

/// Where the device's address pointer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pointer {
    base: Address,
    /// Number of the block that would go on without a gap.
    next: u16,
}

/// The host's side of one device in DFU mode.
pub struct Machine {
    interface: u8,
    transfer_size: u16,
    eager: bool,
    /// Where the device stands; `None` until that was seen, and after a failure.
    state: Option<State>,
    pointer: Option<Pointer>,
    acts: VecDeque<Act>,
    phase: MachinePhase,
    /// How long this operation has waited.
    waited: Duration,
    notes: Vec<Note>,
}

impl Machine {
    /// For a device with these properties, in whatever state. Start with [`Operation::TakeOver`].
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

    /// Starts an operation. An unfinished one is forgotten; the device is then in an unknown state.
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
                self.be_ready_to_download();
                self.command(wire::erase(address), ERASE);
                self.pointer = None;
            }
            Operation::Write(address, data) => {
                self.be_ready_to_download();
                let block = self.point_to(address, data.len());
                self.acts.push_back(Act::Download {
                    request: Request::Download(block),
                    data,
                    patience: WORK,
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
                self.be_ready_to_download();
                self.command(wire::set_address(address), WORK);
                self.pointer = None;
                self.acts.push_back(Act::Leave);
            }
        }
    }

    /// What to do now. The same answer until it is told how that went.
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
            MachinePhase::Pause { time, .. } | MachinePhase::Doze { time, .. } => Step::Wait(*time),
            MachinePhase::Peek { .. } => Step::Fetch(Request::GetState.setup(interface), 1, PROMPT),
            MachinePhase::Poll { act, .. } => get_status(act.patience()),
            MachinePhase::Start { .. } | MachinePhase::Diagnose(_) | MachinePhase::Survey { .. } => {
                get_status(PROMPT)
            }
            MachinePhase::Settle { with, .. } => Step::Send(with.setup(interface), &[], PROMPT),
            MachinePhase::Over(result) => Step::Finished(result.clone()),
            MachinePhase::Ready => Step::Finished(Ok(Vec::new())),
        }
    }

    /// The wait of [`Step::Wait`] is over.
    pub fn waited(&mut self) {
        self.phase = match std::mem::replace(&mut self.phase, MachinePhase::Ready) {
            MachinePhase::Pause { act, time, lost } => {
                self.waited += time;
                MachinePhase::Poll { act, poll: time, lost }
            }
            MachinePhase::Doze { time, tries } => {
                self.waited += time;
                MachinePhase::Survey { tries }
            }
            other => {
                debug_assert!(false, "no wait was asked for in {other:?}");
                other
            }
        };
    }

    /// How a transfer went: the bytes of a [`Step::Fetch`], nothing for a [`Step::Send`] that went whole.
    pub fn reply(&mut self, result: Result<&[u8], TransferError>) {
        match std::mem::replace(&mut self.phase, MachinePhase::Ready) {
            MachinePhase::Send(act) => self.sent(act, result),
            MachinePhase::Start { act, lost } => self.started(act, result, lost),
            MachinePhase::Poll { act, poll, lost } => self.polled(act, result, poll, lost),
            MachinePhase::Diagnose(error) => self.diagnosed(result, error),
            MachinePhase::Peek { tries } => self.peeked(result, tries),
            MachinePhase::Survey { tries } => self.surveyed(result, tries),
            MachinePhase::Settle { tries, with, peek } => self.settled(result, tries, with, peek),
            other @ (MachinePhase::Ready
            | MachinePhase::Pause { .. }
            | MachinePhase::Doze { .. }
            | MachinePhase::Over(_)) => {
                debug_assert!(false, "no transfer was asked for in {other:?}");
                self.phase = other;
            }
        }
    }

    /// What happened since the last call that the log should tell.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// Whether the device is asked again at once instead of after bwPollTimeout.
    pub(crate) fn is_eager(&self) -> bool {
        self.eager
    }

    /// Forgets where the pointer stands: another alternate setting was chosen.
    pub(crate) fn alternate_changed(&mut self) {
        self.pointer = None;
    }

    fn command(&mut self, data: Vec<u8>, patience: Duration) {
        self.acts.push_back(Act::Download { request: Request::Command, data, patience });
    }

    /// A download is refused in dfuUPLOAD-IDLE.
    fn be_ready_to_download(&mut self) {
        if self.state == Some(State::UploadIdle) {
            self.acts.push_back(Act::Abort);
        }
    }

    /// The block number for `len` bytes at `address`, with a Set Address Pointer before it if the run of
    /// blocks does not simply go on.
    ///
    /// Only whole blocks are numbered on: AN3156 §5.1 leaves open whether a short one is placed by its
    /// own length or by the transfer size.
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
        self.command(wire::set_address(address), WORK);
        self.pointer = whole.then_some(Pointer { base: address, next: FIRST_BLOCK + 1 });
        FIRST_BLOCK
    }

    fn sent(&mut self, act: Act, result: Result<&[u8], TransferError>) {
        match (&act, result) {
            (Act::Download { .. } | Act::Leave, Ok(_)) => self.phase = MachinePhase::Start { act, lost: 0 },
            (Act::Abort, Ok(_)) => self.advance(State::DfuIdle),
            (Act::Upload { len, .. }, Ok(bytes)) => {
                let (wanted, got) = (usize::from(*len), bytes.len());
                // A device may take a short answer for the end of the upload (DFU 1.1 §6.2); ABORT is
                // right in both states.
                self.state = Some(State::UploadIdle);
                if wanted == got {
                    self.finish(Ok(bytes.to_vec()));
                } else {
                    self.fail(DfuError::Short { got, wanted });
                }
            }
            (Act::Leave, Err(TransferError::Disconnected)) => self.finish(Ok(Vec::new())),
            (act, Err(error)) => self.refused(DfuError::Transfer { request: act.request(), error }),
        }
    }

    /// After a stall the device has a reason; after anything else it is not worth asking.
    fn refused(&mut self, error: DfuError) {
        match error {
            DfuError::Transfer { error: TransferError::Stall, .. } => {
                self.phase = MachinePhase::Diagnose(error);
            }
            _ => self.fail(error),
        }
    }

    /// The first GETSTATUS after a download: the device starts to work and says how long to wait.
    fn started(&mut self, act: Act, result: Result<&[u8], TransferError>, lost: u32) {
        let leaving = act == Act::Leave;
        let block = match result {
            Ok(bytes) => StatusBlock::parse(bytes),
            // It went before it could answer: that is what leaving means.
            Err(_) if leaving => return self.finish(Ok(Vec::new())),
            Err(TransferError::Disconnected) => return self.fail(lost_status(TransferError::Disconnected)),
            Err(error) if lost >= LOST_POLLS => return self.fail(lost_status(error)),
            // The question or the answer was lost. Asking again is safe: it starts the work or reports it.
            Err(_) => return self.phase = MachinePhase::Start { act, lost: lost + 1 },
        };
        match block {
            None => self.fail(DfuError::Garbled),
            Some(StatusBlock { status, .. }) if status != Status::OK => self.reported(status),
            Some(_) if leaving => self.finish(Ok(Vec::new())),
            Some(StatusBlock { state: State::Dnbusy | State::DnloadSync, poll, .. }) => {
                let time = bounded(poll, &act);
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

    /// A later GETSTATUS: the work is done, or not yet.
    fn polled(&mut self, act: Act, result: Result<&[u8], TransferError>, poll: Duration, lost: u32) {
        let block = match result {
            Ok(bytes) => StatusBlock::parse(bytes),
            Err(TransferError::Disconnected) => return self.fail(lost_status(TransferError::Disconnected)),
            Err(error) if lost >= LOST_POLLS => return self.fail(lost_status(error)),
            Err(error) => {
                self.obey(if error == TransferError::Stall {
                    PollReason::Stalled
                } else {
                    PollReason::Unanswered
                });
                return self.pause(act, poll, lost + 1);
            }
        };
        match block {
            None => self.fail(DfuError::Garbled),
            Some(StatusBlock { status, .. }) if status != Status::OK => self.reported(status),
            Some(StatusBlock { state: State::DnloadIdle, .. }) => self.advance(State::DnloadIdle),
            Some(StatusBlock { state: State::Dnbusy | State::DnloadSync, poll, .. }) => {
                self.obey(PollReason::Busy);
                self.pause(act, poll, 0);
            }
            Some(StatusBlock { state, .. }) => self.fail(DfuError::State(state)),
        }
    }

    /// Waits `poll` and asks again, unless the operation has had its time.
    fn pause(&mut self, act: Act, poll: Duration, lost: u32) {
        if self.waited >= act.patience() {
            return self.fail(DfuError::Busy(self.waited));
        }
        let time = bounded(poll, &act);
        self.phase = MachinePhase::Pause { act, time, lost };
    }

    fn obey(&mut self, why: PollReason) {
        if self.eager {
            self.eager = false;
            self.notes.push(Note::ObeyingPoll(why));
        }
    }

    fn diagnosed(&mut self, result: Result<&[u8], TransferError>, error: DfuError) {
        match result.ok().and_then(StatusBlock::parse) {
            Some(StatusBlock { status, state: State::Error, .. }) if status != Status::OK => {
                self.reported(status);
            }
            _ => self.fail(error),
        }
    }

    fn peeked(&mut self, result: Result<&[u8], TransferError>, tries: u32) {
        let state = match result {
            Ok(&[code]) => State::from_code(code),
            Ok(_) => None,
            // The device does not know the request, so what is pending stays unknown.
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
            // It does not let go.
            Some(state @ (State::DnloadSync | State::ManifestSync)) => self.fail(DfuError::State(state)),
            _ => self.phase = MachinePhase::Survey { tries: 0 },
        }
    }

    fn surveyed(&mut self, result: Result<&[u8], TransferError>, tries: u32) {
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
            // CLRSTATUS in dfuERROR only: strict ROMs stall it in every other state.
            State::Error => {
                self.notes.push(Note::Cleared(status));
                self.phase = MachinePhase::Settle { tries, with: Request::ClearStatus, peek: false };
            }
            State::DnloadIdle | State::UploadIdle => {
                self.notes.push(Note::Aborted(state));
                self.phase = MachinePhase::Settle { tries, with: Request::Abort, peek: false };
            }
            // One try: a ROM that an earlier session left in here mostly takes nothing but a power cut.
            State::Manifest if tries == 0 => {
                self.notes.push(Note::Aborted(state));
                self.phase = MachinePhase::Settle { tries: RECOVERIES, with: Request::Abort, peek: false };
            }
            _ if self.waited >= ERASE => self.fail(DfuError::Busy(self.waited)),
            State::Dnbusy | State::DnloadSync | State::ManifestSync => {
                self.phase = MachinePhase::Doze { time: poll.clamp(PAUSE, WORK), tries: tries + 1 };
            }
            _ => self.fail(DfuError::State(state)),
        }
    }

    fn settled(&mut self, result: Result<&[u8], TransferError>, tries: u32, with: Request, peek: bool) {
        match result {
            Err(error @ (TransferError::Disconnected | TransferError::Access)) => {
                self.fail(DfuError::Transfer { request: with, error });
            }
            _ if peek => self.phase = MachinePhase::Peek { tries },
            _ => self.phase = MachinePhase::Survey { tries: tries + 1 },
        }
    }

    fn reported(&mut self, status: Status) {
        self.fail(DfuError::Status(status));
    }

    /// The act is done and the device in `state`; on to the next.
    fn advance(&mut self, state: State) {
        self.state = Some(state);
        self.phase = MachinePhase::Ready;
    }

    fn finish(&mut self, result: Result<Vec<u8>, DfuError>) {
        self.phase = MachinePhase::Over(result);
        self.acts.clear();
    }

    /// After a failure nothing is known of the pointer and the state; [`Operation::Recover`] sorts that out.
    fn fail(&mut self, error: DfuError) {
        self.pointer = None;
        self.state = None;
        self.finish(Err(error));
    }
}

/// A device may name hours: no wait is longer than the act may take.
fn bounded(poll: Duration, act: &Act) -> Duration {
    poll.clamp(PAUSE, act.patience())
}

fn lost_status(error: TransferError) -> DfuError {
    DfuError::Transfer { request: Request::GetStatus, error }
}

#[cfg(test)]
mod tests;
