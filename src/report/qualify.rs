//! The report of `cfdfu qualify` as Markdown: a table with a row for each assumption, and the consequence if the
//! assumption does not hold.

use std::fmt::Write as _;

use super::Exit;
use crate::job::trial::{Appeared, WidthAnswer};
use crate::qualify::{Assumption, Finding, Observation, Verdict};

/// Returns the assumption as a sentence.
pub(crate) fn assumption(it: Assumption) -> &'static str {
    match it {
        Assumption::FirstStatus => "The boot ROM starts in dfuERROR with errFIRMWARE",
        Assumption::Serial => "The serial numbers in the two modes match",
        Assumption::Descriptors => "The descriptors match an STM32F405, with blocks of 2048 bytes",
        Assumption::Memories => "The descriptors describe four memories",
        Assumption::SetInterface => "Every alternate setting can be selected",
        Assumption::OptionBytes => "The 16 option bytes can be read, with their complements",
        Assumption::Otp => "The OTP can be read and names the board",
        Assumption::RomVersion => "The version of the boot ROM can be read",
        Assumption::ReadTime => "Reading 2048 bytes takes at most 6.5 ms",
        Assumption::UniqueId => "Reading the unique ID returns no bytes",
        Assumption::PastTheEnd => "Reading past the end of the flash is refused, and the ROM still answers",
        Assumption::EraseTime => "Erasing 128 KiB takes at most 4.2 s",
        Assumption::BlockTime => "Writing 2048 bytes at 8 bits takes 28 to 100 ms",
        Assumption::WidthAccepted => "The ROM accepts 32 bits, and the setting can be read back",
        Assumption::WidthHasEffect => "At 32 bits, writing 2048 bytes takes less than 22 ms",
        Assumption::FasterErase => "At 32 bits, an erase is at least a quarter faster",
        Assumption::Verifies => "Written data reads back unchanged",
        Assumption::EarlyStatus => {
            "If GETSTATUS is sent without waiting, the ROM answers once the work is done"
        }
        Assumption::ShortBlock => "A short last block can be written",
        Assumption::SingleWord => "A single word of four bytes can be written",
        Assumption::Entry => "The first request always puts the drone into DFU mode",
        Assumption::EntryTime => "The drone is in DFU mode within 2 s",
        Assumption::LeaveStarts => "Leaving DFU mode starts the firmware",
        Assumption::LeaveResets => "Leaving DFU mode at a blank address resets the chip",
        Assumption::LeaveByHand => "After entry by hand, leaving DFU mode does not start the firmware",
        Assumption::RomPredictsStart => "The version of the ROM predicts whether the firmware starts",
        Assumption::PutBack => "The previous contents are restored byte for byte",
    }
}

/// Describes the consequence if the assumption does not hold.
fn consequence(it: Assumption) -> &'static str {
    match it {
        Assumption::FirstStatus | Assumption::Serial | Assumption::Memories => "nothing depends on it alone",
        Assumption::Descriptors => "cfdfu refuses to write to any chip other than the STM32F405",
        Assumption::SetInterface => "cfdfu uses the first setting for every memory",
        Assumption::OptionBytes => "cfdfu checks each erase instead of the protection",
        Assumption::Otp => "cfdfu refuses the image unless you confirm that it is for this board",
        Assumption::RomVersion | Assumption::RomPredictsStart => {
            "cfdfu cannot predict whether the firmware will start"
        }
        Assumption::ReadTime | Assumption::EraseTime | Assumption::BlockTime | Assumption::FasterErase => {
            "a flash takes longer"
        }
        Assumption::UniqueId => "nothing depends on it",
        Assumption::PastTheEnd => "only `cfdfu qualify` reads there",
        Assumption::WidthAccepted | Assumption::WidthHasEffect => "cfdfu writes 8 bits at a time",
        Assumption::Verifies => {
            "cfdfu retries at 8 bits, and fails if that does not help: do not use --no-verify"
        }
        Assumption::EarlyStatus => "cfdfu waits for the time that the ROM reports",
        Assumption::ShortBlock | Assumption::SingleWord => "cfdfu cannot flash this chip: please report it",
        Assumption::Entry => "cfdfu sends the request up to eight times",
        Assumption::EntryTime => "cfdfu waits up to 10 s, longer with --wait",
        Assumption::LeaveStarts => "the drone must be switched off and on after a flash",
        Assumption::LeaveResets => "--leave-by-reset does not help",
        Assumption::LeaveByHand => "the advice to switch the drone off and on is not needed",
        Assumption::PutBack => "`cfdfu restore-bootloader` with the backup restores the whole flash",
    }
}

pub(crate) fn verdict(it: Verdict) -> &'static str {
    match it {
        Verdict::Holds => "holds",
        Verdict::DoesNotHold => "does not hold",
        Verdict::NotObserved => "not seen",
    }
}

/// Formats the observation; empty if the verdict is sufficient.
pub(crate) fn observation(it: &Observation) -> String {
    match it {
        Observation::Nothing => String::new(),
        Observation::Time(time) => milliseconds(*time),
        Observation::Widths(bytes, words) => {
            format!("{} at 8 bits, {} at 32 bits", milliseconds(*bytes), milliseconds(*words))
        }
        Observation::Requests { hits, of } => format!("{hits} of {of} on the first request"),
        Observation::Bytes(bytes) => {
            let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
            bytes.join(" ")
        }
        Observation::Number(number) => number.to_string(),
        Observation::Board(board) => board.to_string(),
        Observation::Rom(rom) => rom.to_string(),
        Observation::Status(status) => status.to_string(),
        Observation::Refused(refused) if refused.is_empty() => String::new(),
        Observation::Refused(refused) => {
            let all: Vec<String> =
                refused.iter().map(|(number, error)| format!("{number}: {error}")).collect();
            all.join("; ")
        }
        Observation::Failed(error) => error.to_string(),
        Observation::Width(WidthAnswer::Accepted) => String::new(),
        Observation::Width(WidthAnswer::NotReadBack) => "accepted, but it cannot be read back".to_owned(),
        Observation::Width(WidthAnswer::Refused) => "refused".to_owned(),
        Observation::Left { appeared, took, times, of } => {
            let state = match appeared {
                Appeared::Running => "running",
                Appeared::InDfu => "in DFU mode again",
                Appeared::Nothing => "not on USB",
            };
            let after = took.map_or_else(String::new, |took| format!(" after {}", milliseconds(took)));
            let count = if of > &1 { format!(", {times} of {of} times") } else { String::new() };
            format!("{state}{after}{count}")
        }
        Observation::Serials(running, in_dfu) => format!("{running}, {in_dfu}"),
    }
}

fn milliseconds(time: std::time::Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    if ms < 100.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

/// The facts about the run that the header of the report shows.
pub(crate) struct Run<'a> {
    pub(crate) version: &'a str,
    pub(crate) system: &'a str,
    pub(crate) drone: &'a str,
    pub(crate) simulated: bool,
    /// The image, if the user specified one.
    pub(crate) image: Option<&'a str>,
    /// The reason why the run ended early, if it did.
    pub(crate) ended: Option<&'a str>,
}

/// Formats the report.
pub(crate) fn markdown(run: &Run<'_>, findings: &[Finding]) -> String {
    let count = |wanted| findings.iter().filter(|it| it.verdict == wanted).count();
    let mut text = format!(
        "# cfdfu qualify\n\ncfdfu {} on {}  \nDrone: {}{}  \nImage: {}\n\nHolds: {}. Does not hold: {}. Not seen: {}.\n",
        run.version,
        run.system,
        run.drone,
        if run.simulated { " (SIMULATED: no evidence about real drones)" } else { "" },
        run.image.unwrap_or("none was flashed"),
        count(Verdict::Holds),
        count(Verdict::DoesNotHold),
        count(Verdict::NotObserved),
    );
    if let Some(ended) = run.ended {
        let _ = writeln!(text, "\nThe run ended early: {ended}");
    }
    text += "\n| what cfdfu assumes | verdict | seen | consequence |\n|---|---|---|---|\n";
    for Finding { assumption: it, verdict: judged, observation: seen } in findings {
        let consequence = if *judged == Verdict::DoesNotHold { consequence(*it) } else { "" };
        let seen = observation(seen).replace('|', "/");
        let _ = writeln!(text, "| {} | {} | {seen} | {consequence} |", assumption(*it), verdict(*judged));
    }
    text
}

/// Returns the exit status: 74 if written data did not read back unchanged, or if the drone was written to and the
/// restoration of its previous contents could not be confirmed.
pub(crate) fn exit_of(findings: &[Finding], was_written: bool) -> Exit {
    let is_failure = |it: &Finding| match it.assumption {
        Assumption::PutBack => was_written && it.verdict != Verdict::Holds,
        Assumption::Verifies => it.verdict == Verdict::DoesNotHold,
        _ => false,
    };
    if findings.iter().any(is_failure) { Exit::Device } else { Exit::Done }
}
