//! Access to the operating system: [`files`], [`folder`], [`signals`], [`keypress`], and the [`symptoms`] that
//! `cfdfu doctor` evaluates.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::usb::{Bus, BusError, Found, TransferError, Transport};

pub(crate) mod files;
pub(crate) mod folder;
pub(crate) mod keypress;
pub(crate) mod signals;
pub(crate) mod symptoms;

/// A bus for systems without USB, so that the interface still starts. Every scan returns the contained error.
pub(crate) struct NoUsb(pub BusError, pub Arc<dyn Clock>);

impl Bus for NoUsb {
    fn list(&self) -> Result<Vec<Found>, BusError> {
        Err(self.0.clone())
    }

    fn open(&self, _: &Found) -> Result<Box<dyn Transport>, TransferError> {
        Err(TransferError::Disconnected)
    }

    fn wait(&self, limit: Duration) {
        self.1.sleep(limit);
    }
}

/// Makes a path absolute, because the picker shows absolute folders.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Returns the version with the git revision and the features, for example
/// `0.2.0 (1f2e3d4c5b, releases, vendored libusb)`.
pub(crate) fn version() -> String {
    let features = [
        cfg!(feature = "releases").then_some("releases"),
        cfg!(feature = "vendored").then_some("vendored libusb"),
    ];
    let revision = Some(env!("CFDFU_REVISION")).filter(|revision| !revision.is_empty());
    let details: Vec<&str> = revision.into_iter().chain(features.into_iter().flatten()).collect();
    let version = env!("CARGO_PKG_VERSION");
    if details.is_empty() { version.to_owned() } else { format!("{version} ({})", details.join(", ")) }
}
