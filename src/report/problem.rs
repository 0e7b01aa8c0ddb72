//! A problem as every front end reports it: what happened, to which file, what helps, and the exit status.

use std::fmt;

use serde::Serialize;

use super::Exit;

/// One problem: a failed job, a refused file, a wrong command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub kind: ProblemKind,
    /// The file that it is about, where it is about one.
    pub subject: Option<String>,
    pub message: String,
    pub advice: Advice,
    pub exit: Exit,
}

/// The word for scripts. `docs/json.schema.json` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    Address,
    BackupImage,
    BootloaderImage,
    BootloaderSector,
    CannotOpen,
    ChangedSince,
    Checks,
    Defect,
    DeviceBusy,
    Dfu,
    Differs,
    DoesNotFit,
    FirmwareTooOld,
    IncompleteImage,
    LogFile,
    MalformedImage,
    Mismatch,
    NoCommand,
    NoCopy,
    NoDevice,
    NoDfu,
    NoMatch,
    NoPermission,
    NoSerial,
    NoUdev,
    NoUsb,
    NoVhci,
    NotABootloader,
    NotACrazyflie,
    NotDfuse,
    NotFlash,
    NotInDfu,
    NotLinux,
    NotRunning,
    OnlyOthers,
    OtherBoard,
    OtherChip,
    OtherDevice,
    OtherDrone,
    OutOfRange,
    Output,
    OutputFile,
    RadioImage,
    ReadProtected,
    RulesExist,
    SeveralDevices,
    Signals,
    Silent,
    Terminal,
    TooLarge,
    Unaligned,
    UnknownBoard,
    UnknownImage,
    Unreadable,
    Usage,
    Vanished,
    Vhci,
    Wire,
    WriteProtected,
    WrongAddress,
    WrongChecksum,
}

/// What helps: remedies, best first, after a sentence about the drone where its state matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    pub state: Option<&'static str>,
    pub remedies: Vec<Remedy>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    Text(String),
    /// The udev rules are missing, for the running drone or for DFU mode. sudo looks for programs in the system's folders
    /// only, so that the command needs the path of this one, which only the shell knows.
    InstallRules {
        running: bool,
    },
}

impl Problem {
    pub(crate) fn new(exit: Exit, kind: ProblemKind, message: impl fmt::Display) -> Problem {
        Problem { kind, subject: None, message: message.to_string(), advice: Advice::default(), exit }
    }

    pub(crate) fn advise(self, advice: impl Into<Advice>) -> Problem {
        Problem { advice: advice.into(), ..self }
    }

    pub(crate) fn or(self, remedy: impl Into<String>) -> Problem {
        Problem { advice: self.advice.or(remedy), ..self }
    }

    pub(crate) fn about(self, subject: impl Into<String>) -> Problem {
        Problem { subject: Some(subject.into()), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Some(subject) => write!(f, "{subject}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl Advice {
    /// Another remedy, for those whom the ones before do not help.
    pub(crate) fn or(mut self, remedy: impl Into<String>) -> Advice {
        self.remedies.push(Remedy::Text(remedy.into()));
        self
    }

    /// A paragraph for each remedy, with this program's path where the system needs it.
    pub(crate) fn paragraphs(&self, program: &str) -> Vec<String> {
        let mut paragraphs: Vec<String> = self.remedies.iter().map(|remedy| remedy.words(program)).collect();
        match (self.state, paragraphs.first_mut()) {
            (Some(state), Some(first)) => *first = format!("{state} {first}"),
            (Some(state), None) => paragraphs.push(state.to_owned()),
            (None, _) => {}
        }
        paragraphs
    }

    /// The same in one paragraph.
    pub(crate) fn text(&self, program: &str) -> String {
        self.paragraphs(program).join(" Or: ")
    }
}

impl<T: Into<String>> From<T> for Advice {
    fn from(text: T) -> Advice {
        Advice { state: None, remedies: vec![Remedy::Text(text.into())] }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text("cfdfu"))
    }
}

impl Remedy {
    fn words(&self, program: &str) -> String {
        match self {
            Remedy::Text(text) => text.clone(),
            // Bitcraze's rules cover the running Crazyflie and dfu-util's the boot ROM: either may be missing.
            Remedy::InstallRules { running } => {
                let (product, what) =
                    if *running { ("5740", "a running Crazyflie") } else { ("df11", "the DFU mode") };
                format!(
                    "On Linux a udev rule for {what} (0483:{product}) may be missing: `sudo {program} udev --install` puts it \
                     in its place, then plug in again. `cfdfu doctor` tells what it is. Or run this once with sudo."
                )
            }
        }
    }
}
