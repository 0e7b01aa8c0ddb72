//! Judges what `cfdfu qualify` has measured: for each assumption that this program makes about a drone, whether it
//! holds, does not hold, or was not seen. The assumptions come from public logs and data sheets, because no drone was
//! available when they were made.

use std::time::Duration;

use crate::crazyflie::{self, Board, RomVersion};
use crate::dfu::{DfuError, Status};
use crate::job::Leave;
use crate::job::trial::{Appeared, Measurement, ReadPlace, WidthAnswer};
use crate::usb::TransferError;

/// Something that cfdfu assumes about the drone.
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
    NotSeen,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Figure {
    Nothing,
    Time(Duration),
    /// The times at 8 and at 32 bits.
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
    Left(Appeared, Option<Duration>),
    Serials(String, String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub assumption: Assumption,
    pub verdict: Verdict,
    pub figure: Figure,
}

/// Reading 2048 bytes takes 3.7 to 5 ms in public logs of F405 boards.
const READ_MAX: Duration = Duration::from_micros(6500);
/// The data sheet's maximum for a sector of 128 KiB at 8 bits (DS8626 table 40).
const ERASE_MAX: Duration = Duration::from_secs(4);
/// Programming 2048 bytes takes 33 ms at 8 bits and 8 ms at 32 bits, plus the transfer (DS8626 table 40).
const BYTE_BLOCK: std::ops::Range<Duration> = Duration::from_millis(28)..Duration::from_millis(100);
const WORD_BLOCK_MAX: Duration = Duration::from_millis(22);
/// The worker waits this long for DFU mode.
const ENTRY_MAX: Duration = Duration::from_secs(10);

/// One finding for each assumption, in the order of [`ASSUMPTIONS`].
pub fn judge(measured: &[Measurement]) -> Vec<Finding> {
    let finding = |assumption| {
        let (verdict, figure) =
            judge_one(assumption, measured).unwrap_or((Verdict::NotSeen, Figure::Nothing));
        Finding { assumption, verdict, figure }
    };
    ASSUMPTIONS.into_iter().map(finding).collect()
}

fn holds(it: bool) -> Verdict {
    if it { Verdict::Holds } else { Verdict::DoesNotHold }
}

/// `None` if nothing was measured that says anything about the assumption.
#[allow(clippy::too_many_lines, reason = "a table, one row per assumption")]
fn judge_one(assumption: Assumption, measured: &[Measurement]) -> Option<(Verdict, Figure)> {
    match assumption {
        Assumption::FirstStatus => measured.iter().find_map(|it| match it {
            Measurement::FirstStatus { status, entered } if *entered || *status == Status::FIRMWARE => {
                Some((holds(*status == Status::FIRMWARE), Figure::Status(*status)))
            }
            _ => None,
        }),
        Assumption::Serial => measured.iter().find_map(|it| match it {
            Measurement::Serials { running, in_dfu } => Some((
                holds(crazyflie::is_same_serial(running, in_dfu)),
                Figure::Serials(running.clone(), in_dfu.clone()),
            )),
            _ => None,
        }),
        Assumption::Descriptors => measured.iter().find_map(|it| match it {
            Measurement::Descriptors { is_f405, transfer_size, .. } => {
                Some((holds(*is_f405 && *transfer_size == 2048), Figure::Number(u32::from(*transfer_size))))
            }
            _ => None,
        }),
        Assumption::Memories => measured.iter().find_map(|it| match it {
            Measurement::Descriptors { memories, .. } => {
                Some((holds(*memories == 4), Figure::Number(u32::try_from(*memories).unwrap_or(u32::MAX))))
            }
            _ => None,
        }),
        Assumption::SetInterface => {
            let selected = measured.iter().filter_map(|it| match it {
                Measurement::Selected { alternate, error } => Some((*alternate, *error)),
                _ => None,
            });
            let selected: Vec<_> = selected.collect();
            let refused: Vec<_> = selected.iter().filter_map(|(it, error)| Some((*it, (*error)?))).collect();
            (!selected.is_empty()).then(|| (holds(refused.is_empty()), Figure::Refused(refused)))
        }
        Assumption::OptionBytes => read_of(measured, ReadPlace::OptionBytes).map(|read| match read {
            Ok(bytes) => (holds(has_complements(bytes)), Figure::Bytes(bytes.clone())),
            Err(error) => (Verdict::DoesNotHold, Figure::Failed(*error)),
        }),
        Assumption::Otp => read_of(measured, ReadPlace::Otp).map(|read| match read {
            Ok(bytes) => match crazyflie::board(bytes) {
                Some(board) => (Verdict::Holds, Figure::Board(board)),
                None => (Verdict::DoesNotHold, Figure::Bytes(bytes.iter().copied().take(16).collect())),
            },
            Err(error) => (Verdict::DoesNotHold, Figure::Failed(*error)),
        }),
        Assumption::RomVersion => read_of(measured, ReadPlace::RomVersion).map(|read| match read {
            Ok(bytes) => match bytes.get(2).copied().and_then(RomVersion::of) {
                Some(rom) => (Verdict::Holds, Figure::Rom(rom)),
                None => (Verdict::DoesNotHold, Figure::Bytes(bytes.clone())),
            },
            Err(error) => (Verdict::DoesNotHold, Figure::Failed(*error)),
        }),
        Assumption::ReadTime => measured.iter().find_map(|it| match it {
            Measurement::ReadBlock(took) => Some((holds(*took <= READ_MAX), Figure::Time(*took))),
            _ => None,
        }),
        Assumption::UniqueId => read_of(measured, ReadPlace::UniqueId).map(|read| match read {
            Ok(bytes) => (holds(bytes.is_empty()), Figure::Number(u32::try_from(bytes.len()).unwrap_or(0))),
            Err(DfuError::Short { got: 0, .. }) => (Verdict::Holds, Figure::Number(0)),
            Err(error) => (Verdict::DoesNotHold, Figure::Failed(*error)),
        }),
        Assumption::PastTheEnd => {
            let read = read_of(measured, ReadPlace::PastTheEnd)?;
            let answers = measured.contains(&Measurement::AnswersAfterwards(true));
            let figure = match read {
                Ok(bytes) => Figure::Number(u32::try_from(bytes.len()).unwrap_or(0)),
                Err(error) => Figure::Failed(*error),
            };
            Some((holds(answers && read.is_err()), figure))
        }
        Assumption::EraseTime => {
            let took = erased(measured, false)?;
            Some((holds(took <= ERASE_MAX), Figure::Time(took)))
        }
        Assumption::BlockTime => {
            let (took, _) = wrote(measured, false)?;
            Some((holds(BYTE_BLOCK.contains(&took)), Figure::Time(took)))
        }
        Assumption::WidthAccepted => measured.iter().find_map(|it| match it {
            Measurement::Width(answer) => {
                Some((holds(*answer == WidthAnswer::Accepted), Figure::Width(*answer)))
            }
            _ => None,
        }),
        Assumption::WidthHasEffect => {
            let ((bytes, _), (words, _)) = (wrote(measured, false)?, wrote(measured, true)?);
            Some((holds(words < WORD_BLOCK_MAX && words < bytes), Figure::Widths(bytes, words)))
        }
        Assumption::FasterErase => {
            let (bytes, words) = (erased(measured, false)?, erased(measured, true)?);
            Some((holds(words < bytes.mul_f64(0.75)), Figure::Widths(bytes, words)))
        }
        Assumption::Verifies => {
            let all: Vec<bool> =
                [false, true].into_iter().filter_map(|words| Some(wrote(measured, words)?.1)).collect();
            (!all.is_empty()).then(|| (holds(all.iter().all(|same| *same)), Figure::Nothing))
        }
        Assumption::EarlyStatus => measured.iter().find_map(|it| match it {
            Measurement::EarlyStatus(answered) => Some((holds(*answered), Figure::Nothing)),
            _ => None,
        }),
        Assumption::ShortBlock => piece(measured, |bytes| bytes != 4),
        Assumption::SingleWord => piece(measured, |bytes| bytes == 4),
        Assumption::Entry => {
            let all = entries(measured);
            let hits = all.iter().filter(|(requests, took)| *requests == 1 && took.is_some()).count();
            let of = u32::try_from(all.len()).unwrap_or(u32::MAX);
            let hits = u32::try_from(hits).unwrap_or(0);
            (of > 0).then_some((holds(hits == of), Figure::Requests { hits, of }))
        }
        Assumption::EntryTime => {
            let all = entries(measured);
            let longest =
                all.iter().filter(|(requests, _)| *requests == 1).filter_map(|(_, took)| *took).max()?;
            Some((holds(longest < ENTRY_MAX), Figure::Time(longest)))
        }
        Assumption::LeaveStarts => left(measured, |leave, by_hand| leave == Leave::Start && !by_hand),
        Assumption::LeaveResets => left(measured, |leave, by_hand| leave == Leave::Reset && !by_hand),
        Assumption::LeaveByHand => left(measured, |_, by_hand| by_hand).map(|(_, figure)| {
            let expected = matches!(figure, Figure::Left(Appeared::InDfu | Appeared::Nothing, _));
            (holds(expected), figure)
        }),
        Assumption::RomPredictsStart => measured.iter().find_map(|it| match it {
            Measurement::Left { leave: Leave::Start, by_hand: false, rom: Some(rom), appeared, .. } => {
                let starts = *appeared == Appeared::Running;
                Some((holds(starts != rom.starts_without_ccm()), Figure::Rom(*rom)))
            }
            _ => None,
        }),
        Assumption::PutBack => measured.iter().find_map(|it| match it {
            Measurement::PutBack(same) => Some((holds(*same), Figure::Nothing)),
            _ => None,
        }),
    }
}

/// Each byte or halfword is followed by its complement, and all of it is stored twice.
fn has_complements(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<4>();
    let is_complement = |&[a, b, c, d]: &[u8; 4]| c == !a && d == !b;
    bytes.len() == 16
        && rest.is_empty()
        && words.iter().all(is_complement)
        && words[0] == words[1]
        && words[2] == words[3]
}

fn read_of(measured: &[Measurement], wanted: ReadPlace) -> Option<&Result<Vec<u8>, DfuError>> {
    measured.iter().find_map(|it| match it {
        Measurement::Read(place, result) if *place == wanted => Some(result),
        _ => None,
    })
}

fn erased(measured: &[Measurement], at: bool) -> Option<Duration> {
    measured.iter().find_map(|it| match it {
        Measurement::Erased { words, took } if *words == at => Some(*took),
        _ => None,
    })
}

fn wrote(measured: &[Measurement], at: bool) -> Option<(Duration, bool)> {
    measured.iter().find_map(|it| match it {
        Measurement::WroteBlocks { words, took, same } if *words == at => Some((*took, *same)),
        _ => None,
    })
}

fn piece(measured: &[Measurement], wanted: impl Fn(u32) -> bool) -> Option<(Verdict, Figure)> {
    measured.iter().find_map(|it| match it {
        Measurement::WrotePiece { bytes, same } if wanted(*bytes) => {
            Some((holds(*same == Some(true)), Figure::Number(*bytes)))
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

fn left(measured: &[Measurement], wanted: impl Fn(Leave, bool) -> bool) -> Option<(Verdict, Figure)> {
    measured.iter().find_map(|it| match it {
        Measurement::Left { leave, by_hand, appeared, took, .. } if wanted(*leave, *by_hand) => {
            Some((holds(*appeared == Appeared::Running), Figure::Left(*appeared, *took)))
        }
        _ => None,
    })
}
