//! A problem as every front end reports it: the message, the file, the advice and the exit status.

use std::fmt;

use serde::Serialize;

use super::Exit;

/// One problem: a failed job, a refused file, or an invalid command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub kind: ProblemKind,
    /// The file that the problem is about, if any.
    pub subject: Option<String>,
    pub message: String,
    pub advice: Advice,
    pub exit: Exit,
}

/// The kinds of problem that scripts can distinguish, listed in `docs/json.schema.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    Address,
    BackupImage,
    BadDownload,
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
    Network,
    NoCommand,
    NoCopy,
    NoDevice,
    NoDfu,
    NoMatch,
    NoPermission,
    NoRelease,
    NoReply,
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
    Recording,
    RulesExist,
    SameBoard,
    SeveralDevices,
    Signals,
    Silent,
    Stopped,
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

/// Advice on a problem: the remedies, best first, preceded by the state of the drone if that matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advice {
    /// A sentence about the state of the drone.
    pub state: Option<&'static str>,
    pub remedies: Vec<Remedy>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    Text(String),
    /// A remedy for which the interface names a key, and every other front end a command or an option.
    PerFrontEnd {
        interface: String,
        command: String,
    },
    /// Install the udev rules. sudo searches only the system directories, so the command may need the path of this
    /// program, which only the front end knows.
    InstallRules {
        /// Whether the rule for a running drone may be missing, rather than the rule for DFU mode.
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

    /// Sets the text that the interface shows instead of the last remedy, which names a command or an option.
    pub(crate) fn in_interface(mut self, text: impl Into<String>) -> Problem {
        if let Some(Remedy::Text(command)) = self.advice.remedies.pop() {
            self.advice.remedies.push(Remedy::PerFrontEnd { interface: text.into(), command });
        }
        self
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
    /// Adds an alternative remedy.
    pub(crate) fn or(mut self, remedy: impl Into<String>) -> Advice {
        self.remedies.push(Remedy::Text(remedy.into()));
        self
    }

    /// Returns all remedies in one paragraph, as the interface shows them.
    pub(crate) fn on_screen(&self) -> String {
        self.joined(self.remedies.iter().map(Remedy::on_screen).collect()).join(" Or: ")
    }

    /// Returns one paragraph per remedy. `program` is the name or path that runs cfdfu under sudo.
    pub(crate) fn paragraphs(&self, program: &str) -> Vec<String> {
        self.joined(self.remedies.iter().map(|remedy| remedy.text(program)).collect())
    }

    /// Adds the state of the drone before the first remedy.
    fn joined(&self, mut paragraphs: Vec<String>) -> Vec<String> {
        match (self.state, paragraphs.first_mut()) {
            (Some(state), Some(first)) => *first = format!("{state} {first}"),
            (Some(state), None) => paragraphs.push(state.to_owned()),
            (None, _) => {}
        }
        paragraphs
    }

    /// Returns all remedies in one paragraph.
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
    fn on_screen(&self) -> String {
        match self {
            Remedy::Text(text) | Remedy::PerFrontEnd { interface: text, .. } => text.clone(),
            Remedy::InstallRules { .. } => {
                "On Linux, the udev rules may be missing. Run `sudo cfdfu udev --install` in a shell, then plug the \
                 drone in again. On the first screen, d shows the exact cause."
                    .to_owned()
            }
        }
    }

    fn text(&self, program: &str) -> String {
        match self {
            Remedy::Text(text) | Remedy::PerFrontEnd { command: text, .. } => text.clone(),
            // Bitcraze's rules cover only the running Crazyflie, and dfu-util's only the boot ROM. Either set may be
            // missing.
            Remedy::InstallRules { running } => {
                let (product, mode) =
                    if *running { ("5740", "a running Crazyflie") } else { ("df11", "DFU mode") };
                format!(
                    "On Linux, the udev rule for {mode} (0483:{product}) may be missing. Run `sudo {program} udev --install`, \
                     then plug the drone in again. `cfdfu doctor` shows the exact cause. Or run this command once with sudo."
                )
            }
        }
    }
}
