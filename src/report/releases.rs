//! Advice for official releases that cannot be listed or fetched.

use super::{Exit, Problem, ProblemKind};
use crate::releases::ReleaseError;

/// Advice for a computer without network access.
const VIA_FOLDER: &str = "Or fetch the release on another computer with `cfdfu fetch --to FOLDER`, and use that folder \
    here with `--from FOLDER`.";
/// The same advice for the interface, whose picker can open the folder. The text completes a sentence.
const VIA_FOLDER_IN_INTERFACE: &str = "run `cfdfu fetch --to FOLDER` on another computer, copy the folder here, and \
    choose the file in it (Tab).";

/// Returns the problem to report for this error. `now` is the time in seconds since 1970.
pub fn release_error(error: &ReleaseError, now: u64) -> Problem {
    use ReleaseError as E;
    let (exit, kind) = match error {
        E::BadList(_)
        | E::TooLong { .. }
        | E::OtherSize { .. }
        | E::OtherDigest { .. }
        | E::Replaced { .. }
        | E::NotAnImage { .. }
        | E::ForeignHost { .. } => (Exit::Image, ProblemKind::BadDownload),
        E::NoSuchRelease { .. } | E::NoAsset { .. } | E::SeveralAssets { .. } | E::NotKept { .. } => {
            (Exit::NoInput, ProblemKind::NoRelease)
        }
        E::Disk { .. } => (Exit::CannotCreate, ProblemKind::OutputFile),
        E::Stopped => (Exit::Interrupted, ProblemKind::Stopped),
        _ => (Exit::NoInput, ProblemKind::Network),
    };
    let advice = match error {
        E::Unreachable { .. } => format!("Check the network connection. {VIA_FOLDER}"),
        E::NoAnswer { host } => format!("A firewall may be blocking {host}. Ask for access. {VIA_FOLDER}"),
        E::Proxy { .. } => "Check the variables HTTPS_PROXY, ALL_PROXY and NO_PROXY.".to_owned(),
        E::Certificate { .. } => {
            "Check this computer's date. If a proxy inspects all connections here, install its certificate.".to_owned()
        }
        E::RateLimited { until, .. } => {
            let minutes = until.map(|until| until.saturating_sub(now).div_ceil(60).clamp(1, 24 * 60));
            let wait = minutes.map_or_else(
                || "Try again later".to_owned(),
                |minutes| format!("Try again in {minutes} min, at {} UTC", time_of_day(now + minutes * 60)),
            );
            format!("{wait}, or set GITHUB_TOKEN to a token from your account to raise the limit.")
        }
        E::Status { status: 401, .. } => {
            "GITHUB_TOKEN may have expired. Unset it, or set a new one.".to_owned()
        }
        E::Status { .. } | E::TooManyRedirects { .. } | E::Cut { .. } => {
            "Run the command again. A download continues where it stopped.".to_owned()
        }
        E::BadList(_) | E::TooLong { .. } => {
            "Something between this computer and GitHub may have changed the response. Nothing was saved.".to_owned()
        }
        E::ForeignHost { .. } => "Nothing was fetched from that host.".to_owned(),
        E::NoSuchRelease { available, .. } | E::NoAsset { available, .. } if !available.is_empty() => {
            format!("Available: {}.", available.join(", "))
        }
        E::NoSuchRelease { .. } | E::NoAsset { .. } | E::SeveralAssets { .. } => {
            "`cfdfu releases` lists the releases.".to_owned()
        }
        E::OtherSize { .. } | E::OtherDigest { .. } | E::NotAnImage { .. } => {
            "The download is damaged, or not what Bitcraze published. Nothing was saved. Run the command again."
                .to_owned()
        }
        E::Replaced { .. } => {
            "A release is not supposed to change. Ask Bitcraze before you flash it, or run `cfdfu releases --forget` to \
             accept the new file."
                .to_owned()
        }
        E::NotKept { .. } => format!("When you are online, run the command without --offline, --from, or a source in the settings. {VIA_FOLDER}"),
        E::Disk { .. } => "Check the free space and the permissions of the folder.".to_owned(),
        E::Stopped => "Run the command again. The download continues where it stopped.".to_owned(),
    };
    let problem = Problem::new(exit, kind, error).advise(advice);
    match in_interface(error) {
        Some(advice) => problem.in_interface(advice),
        None => problem,
    }
}

/// Returns the advice for the interface if that advice differs from the general advice. In the interface, the user
/// cannot run a command again.
fn in_interface(error: &ReleaseError) -> Option<String> {
    use ReleaseError as E;
    Some(match error {
        E::Unreachable { .. } => format!("Check the network connection, or {VIA_FOLDER_IN_INTERFACE}"),
        E::NoAnswer { host } => {
            format!("A firewall may be blocking {host}. Ask for access, or {VIA_FOLDER_IN_INTERFACE}")
        }
        E::Status { status: 401, .. } => return None,
        E::Status { .. } | E::TooManyRedirects { .. } | E::Cut { .. } => {
            "Try again. A download continues where it stopped.".to_owned()
        }
        E::OtherSize { .. } | E::OtherDigest { .. } | E::NotAnImage { .. } => {
            "The download is damaged, or not what Bitcraze published. Nothing was saved. Try again."
                .to_owned()
        }
        E::NotKept { .. } => format!("To get it, {VIA_FOLDER_IN_INTERFACE}"),
        _ => return None,
    })
}

/// Returns the time of day in UTC, as in `14:02`.
fn time_of_day(seconds: u64) -> String {
    format!("{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60)
}
