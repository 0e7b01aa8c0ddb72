//! Judges the measurements of `cfdfu qualify`: whether each of cfdfu's assumptions about a drone holds, does not hold,
//! or was not observed. The assumptions come from public logs and data sheets, because no drone was available when they
//! were made.

use std::time::Duration;

use crate::crazyflie::{self, Board, RomVersion};
use crate::dfu::{DfuError, Status};
use crate::job::Leave;
use crate::job::trial::{Appeared, Measurement, ReadPlace, WidthAnswer};
use crate::usb::TransferError;

/// An assumption of cfdfu about the drone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assumption {
    FirstStatus,
    Serial,
    Descriptors,
    Memories,
    SetInterface,
    OptionBytes,
    Otp,
    RomVersion,
    ReadTime,
    UniqueId,
    PastTheEnd,
    EraseTime,
    BlockTime,
    WidthAccepted,
    WidthHasEffect,
    FasterErase,
    Verifies,
    EarlyStatus,
    ShortBlock,
    SingleWord,
    Entry,
    EntryTime,
    LeaveStarts,
    LeaveResets,
    LeaveByHand,
    RomPredictsStart,
    PutBack,
}

pub const ASSUMPTIONS: [Assumption; 27] = [
    Assumption::FirstStatus,
    Assumption::Serial,
    Assumption::Descriptors,
    Assumption::Memories,
    Assumption::SetInterface,
    Assumption::OptionBytes,
    Assumption::Otp,
    Assumption::RomVersion,
    Assumption::ReadTime,
    Assumption::UniqueId,
    Assumption::PastTheEnd,
    Assumption::EraseTime,
    Assumption::BlockTime,
    Assumption::WidthAccepted,
    Assumption::WidthHasEffect,
    Assumption::FasterErase,
    Assumption::Verifies,
    Assumption::EarlyStatus,
    Assumption::ShortBlock,
    Assumption::SingleWord,
    Assumption::Entry,
    Assumption::EntryTime,
    Assumption::LeaveStarts,
    Assumption::LeaveResets,
    Assumption::LeaveByHand,
    Assumption::RomPredictsStart,
    Assumption::PutBack,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Holds,
    DoesNotHold,
    NotObserved,
}

/// What the measurements show about an assumption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    Nothing,
    Time(Duration),
    /// The times at programming widths of 8 and 32 bits.
    Widths(Duration, Duration),
    Requests {
        hits: u32,
        of: u32,
    },
    Bytes(Vec<u8>),
    Number(u32),
    Board(Board),
    Rom(RomVersion),
    Status(Status),
    Refused(Vec<(u8, TransferError)>),
    Failed(DfuError),
    Width(WidthAnswer),
    /// The state of the drone after a restart, the time it took to reach that state, and how many of all restarts ended
    /// in that state.
    Left {
        appeared: Appeared,
        took: Option<Duration>,
        times: u32,
        of: u32,
    },
    Serials(String, String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub assumption: Assumption,
    pub verdict: Verdict,
    pub observation: Observation,
}

/// The maximum time to read 2048 bytes. Such a read takes 3.7 to 5 ms in public logs of F405 boards.
const READ_MAX: Duration = Duration::from_micros(6500);
/// The data sheet's maximum for a sector of 128 KiB at 8 bits is 4 s (DS8626 table 40). The requests take additional
/// time.
const ERASE_MAX: Duration = Duration::from_millis(4200);
/// Programming 2048 bytes takes 33 ms at 8 bits and 8 ms at 32 bits, plus the transfer (DS8626 table 40).
const BYTE_BLOCK: std::ops::Range<Duration> = Duration::from_millis(28)..Duration::from_millis(100);
const WORD_BLOCK_MAX: Duration = Duration::from_millis(22);
/// The maximum time until the drone is in DFU mode. Bitcraze's own script waits for one second.
const ENTRY_MAX: Duration = Duration::from_secs(2);

/// Returns one finding for each assumption, in the order of [`ASSUMPTIONS`].
pub fn judge(measured: &[Measurement]) -> Vec<Finding> {
    let finding = |assumption| {
        let (verdict, observation) =
            judge_one(assumption, measured).unwrap_or((Verdict::NotObserved, Observation::Nothing));
        Finding { assumption, verdict, observation }
    };
    ASSUMPTIONS.into_iter().map(finding).collect()
}

fn holds(is_true: bool) -> Verdict {
    if is_true { Verdict::Holds } else { Verdict::DoesNotHold }
}

/// Judges one assumption. Returns `None` if no measurement concerns the assumption.
#[allow(clippy::too_many_lines, reason = "a table, one row per assumption")]
fn judge_one(assumption: Assumption, measured: &[Measurement]) -> Option<(Verdict, Observation)> {
    match assumption {
        Assumption::FirstStatus => measured.iter().find_map(|it| match it {
            Measurement::FirstStatus { status, entered } if *entered || *status == Status::FIRMWARE => {
                Some((holds(*status == Status::FIRMWARE), Observation::Status(*status)))
            }
            _ => None,
        }),
        Assumption::Serial => {
            let all = measured.iter().filter_map(|it| match it {
                Measurement::Serials { running, in_dfu } => Some((running, in_dfu)),
                _ => None,
            });
            let all: Vec<(&String, &String)> = all.collect();
            let is_same = |(running, in_dfu): &(&String, &String)| crazyflie::is_same_serial(running, in_dfu);
            let (running, in_dfu) = *all.iter().find(|pair| !is_same(pair)).or(all.first())?;
            let observation = Observation::Serials(running.clone(), in_dfu.clone());
            Some((holds(all.iter().all(is_same)), observation))
        }
        Assumption::Descriptors => measured.iter().find_map(|it| match it {
            Measurement::Descriptors { is_f405, transfer_size, .. } => Some((
                holds(*is_f405 && *transfer_size == 2048),
                Observation::Number(u32::from(*transfer_size)),
            )),
            _ => None,
        }),
        Assumption::Memories => measured.iter().find_map(|it| match it {
            Measurement::Descriptors { memories, .. } => Some((
                holds(*memories == 4),
                Observation::Number(u32::try_from(*memories).unwrap_or(u32::MAX)),
            )),
            _ => None,
        }),
        Assumption::SetInterface => {
            let selected = measured.iter().filter_map(|it| match it {
                Measurement::Selected { alternate, error } => Some((*alternate, *error)),
                _ => None,
            });
            let selected: Vec<_> = selected.collect();
            let refused: Vec<_> = selected.iter().filter_map(|(it, error)| Some((*it, (*error)?))).collect();
            (!selected.is_empty()).then(|| (holds(refused.is_empty()), Observation::Refused(refused)))
        }
        Assumption::OptionBytes => read_result(measured, ReadPlace::OptionBytes).map(|read| match read {
            Ok(bytes) => (holds(has_complements(bytes)), Observation::Bytes(bytes.clone())),
            Err(error) => (Verdict::DoesNotHold, Observation::Failed(*error)),
        }),
        Assumption::Otp => read_result(measured, ReadPlace::Otp).map(|read| match read {
            Ok(bytes) => match crazyflie::parse_board(bytes) {
                Some(board) => (Verdict::Holds, Observation::Board(board)),
                None => (Verdict::DoesNotHold, Observation::Bytes(bytes.iter().copied().take(16).collect())),
            },
            Err(error) => (Verdict::DoesNotHold, Observation::Failed(*error)),
        }),
        Assumption::RomVersion => read_result(measured, ReadPlace::RomVersion).map(|read| match read {
            Ok(bytes) => match bytes.get(2).copied().and_then(RomVersion::of) {
                Some(rom) => (Verdict::Holds, Observation::Rom(rom)),
                None => (Verdict::DoesNotHold, Observation::Bytes(bytes.clone())),
            },
            Err(error) => (Verdict::DoesNotHold, Observation::Failed(*error)),
        }),
        Assumption::ReadTime => measured.iter().find_map(|it| match it {
            Measurement::ReadBlock(took) => Some((holds(*took <= READ_MAX), Observation::Time(*took))),
            _ => None,
        }),
        Assumption::UniqueId => read_result(measured, ReadPlace::UniqueId).map(|read| match read {
            Ok(bytes) => {
                (holds(bytes.is_empty()), Observation::Number(u32::try_from(bytes.len()).unwrap_or(0)))
            }
            Err(DfuError::Short { got: 0, .. }) => (Verdict::Holds, Observation::Number(0)),
            Err(error) => (Verdict::DoesNotHold, Observation::Failed(*error)),
        }),
        Assumption::PastTheEnd => {
            let read = read_result(measured, ReadPlace::PastTheEnd)?;
            let answers = measured.contains(&Measurement::AnswersAfterwards(true));
            let observation = match read {
                Ok(bytes) => Observation::Number(u32::try_from(bytes.len()).unwrap_or(0)),
                Err(error) => Observation::Failed(*error),
            };
            Some((holds(answers && read.is_err()), observation))
        }
        Assumption::EraseTime => {
            let took = erase_time(measured, false)?;
            Some((holds(took <= ERASE_MAX), Observation::Time(took)))
        }
        Assumption::BlockTime => {
            let took = write_result(measured, false)?.0?;
            Some((holds(BYTE_BLOCK.contains(&took)), Observation::Time(took)))
        }
        Assumption::WidthAccepted => measured.iter().find_map(|it| match it {
            Measurement::Width(answer) => {
                Some((holds(*answer == WidthAnswer::Accepted), Observation::Width(*answer)))
            }
            _ => None,
        }),
        Assumption::WidthHasEffect => {
            let (bytes, words) = (write_result(measured, false)?.0?, write_result(measured, true)?.0?);
            Some((holds(words < WORD_BLOCK_MAX && words < bytes), Observation::Widths(bytes, words)))
        }
        Assumption::FasterErase => {
            let (bytes, words) = (erase_time(measured, false)?, erase_time(measured, true)?);
            Some((holds(words < bytes.mul_f64(0.75)), Observation::Widths(bytes, words)))
        }
        Assumption::Verifies => {
            let all: Vec<bool> = [false, true]
                .into_iter()
                .filter_map(|words| Some(write_result(measured, words)?.1))
                .collect();
            (!all.is_empty()).then(|| (holds(all.iter().all(|same| *same)), Observation::Nothing))
        }
        Assumption::EarlyStatus => measured.iter().find_map(|it| match it {
            Measurement::EarlyStatus(answered) => Some((holds(*answered), Observation::Nothing)),
            _ => None,
        }),
        Assumption::ShortBlock => judge_piece(measured, |bytes| bytes != 4),
        Assumption::SingleWord => judge_piece(measured, |bytes| bytes == 4),
        Assumption::Entry => {
            let all = entries(measured);
            let hits = all.iter().filter(|(requests, took)| *requests == 1 && took.is_some()).count();
            let of = u32::try_from(all.len()).unwrap_or(u32::MAX);
            let hits = u32::try_from(hits).unwrap_or(0);
            (of > 0).then_some((holds(hits == of), Observation::Requests { hits, of }))
        }
        Assumption::EntryTime => {
            let first = entries(measured).into_iter().filter(|(requests, _)| *requests == 1);
            let times: Vec<Option<Duration>> = first.map(|(_, took)| took).collect();
            let longest = times.iter().flatten().max().copied();
            let is_missing = times.contains(&None);
            let figure = longest.filter(|_| !is_missing).map_or(Observation::Nothing, Observation::Time);
            let in_time = !is_missing && longest.is_some_and(|longest| longest < ENTRY_MAX);
            (!times.is_empty()).then(|| (holds(in_time), figure))
        }
        Assumption::LeaveStarts => judge_leave(measured, |leave, by_hand| leave == Leave::Start && !by_hand),
        Assumption::LeaveResets => judge_leave(measured, |leave, by_hand| leave == Leave::Reset && !by_hand),
        Assumption::LeaveByHand => judge_leave(measured, |_, by_hand| by_hand).map(|(_, observation)| {
            let starts = matches!(observation, Observation::Left { appeared: Appeared::Running, .. });
            (holds(!starts), observation)
        }),
        Assumption::RomPredictsStart => {
            let all = measured.iter().filter_map(|it| match it {
                Measurement::Left {
                    leave: Leave::Start, by_hand: false, rom: Some(rom), appeared, ..
                } => Some((*rom, (*appeared == Appeared::Running) != rom.starts_without_ccm())),
                _ => None,
            });
            let all: Vec<(RomVersion, bool)> = all.collect();
            let (rom, _) = *all.iter().find(|(_, predicted)| !predicted).or(all.first())?;
            Some((holds(all.iter().all(|(_, predicted)| *predicted)), Observation::Rom(rom)))
        }
        Assumption::PutBack => measured.iter().find_map(|it| match it {
            Measurement::PutBack(same) => Some((holds(*same), Observation::Nothing)),
            _ => None,
        }),
    }
}

/// Returns whether each halfword is followed by its complement and each value is stored twice.
fn has_complements(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<4>();
    let is_complement = |&[a, b, c, d]: &[u8; 4]| c == !a && d == !b;
    bytes.len() == 16
        && rest.is_empty()
        && words.iter().all(is_complement)
        && words[0] == words[1]
        && words[2] == words[3]
}

fn read_result(measured: &[Measurement], wanted: ReadPlace) -> Option<&Result<Vec<u8>, DfuError>> {
    measured.iter().find_map(|it| match it {
        Measurement::Read(place, result) if *place == wanted => Some(result),
        _ => None,
    })
}

fn erase_time(measured: &[Measurement], in_words: bool) -> Option<Duration> {
    measured.iter().find_map(|it| match it {
        Measurement::Erased { words, took } if *words == in_words => Some(*took),
        _ => None,
    })
}

fn write_result(measured: &[Measurement], in_words: bool) -> Option<(Option<Duration>, bool)> {
    measured.iter().find_map(|it| match it {
        Measurement::WroteBlocks { words, took, same } if *words == in_words => Some((*took, *same)),
        _ => None,
    })
}

fn judge_piece(measured: &[Measurement], wanted: impl Fn(u32) -> bool) -> Option<(Verdict, Observation)> {
    measured.iter().find_map(|it| match it {
        Measurement::WrotePiece { bytes, same } if wanted(*bytes) => {
            Some((holds(*same == Some(true)), Observation::Number(*bytes)))
        }
        _ => None,
    })
}

fn entries(measured: &[Measurement]) -> Vec<(u32, Option<Duration>)> {
    let all = measured.iter().filter_map(|it| match it {
        Measurement::Entered { requests, took } => Some((*requests, *took)),
        _ => None,
    });
    all.collect()
}

/// Judges the restarts that `wanted` selects. The assumption holds if the drone was running after every restart, and
/// the observation is then the slowest restart. Otherwise, the observation is the first exception.
fn judge_leave(
    measured: &[Measurement],
    wanted: impl Fn(Leave, bool) -> bool,
) -> Option<(Verdict, Observation)> {
    let all = measured.iter().filter_map(|it| match it {
        Measurement::Left { leave, by_hand, appeared, took, .. } if wanted(*leave, *by_hand) => {
            Some((*appeared, *took))
        }
        _ => None,
    });
    let all: Vec<(Appeared, Option<Duration>)> = all.collect();
    let exception = all.iter().find(|(appeared, _)| *appeared != Appeared::Running);
    let (appeared, took) = *exception.or(all.iter().max_by_key(|(_, took)| *took))?;
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let times = count(all.iter().filter(|(other, _)| *other == appeared).count());
    let observation = Observation::Left { appeared, took, times, of: count(all.len()) };
    Some((holds(exception.is_none()), observation))
}
