//! Passes the git revision to the program, for `cfdfu --version`.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The number of digits of the revision to show.
const DIGITS: usize = 10;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Every commit and every checkout changes `.git/logs/HEAD`.
    if Path::new(".git/logs/HEAD").exists() {
        println!("cargo:rerun-if-changed=.git/logs/HEAD");
    }
    let revision = packaged_revision().or_else(checked_out_revision).unwrap_or_default();
    println!("cargo:rustc-env=CFDFU_REVISION={}", revision.get(..DIGITS).unwrap_or_default());
}

/// Returns the revision that `cargo package` recorded, if this is a package from crates.io.
fn packaged_revision() -> Option<String> {
    let text = fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = text.split_once(r#""sha1": ""#)?;
    Some(rest.split('"').next()?.to_owned())
}

/// Returns the revision of the git clone. A folder without its own `.git` has no revision, because it may be inside the
/// clone of a different project.
fn checked_out_revision() -> Option<String> {
    if !Path::new(".git").exists() {
        return None;
    }
    let output = Command::new("git").args(["rev-parse", "HEAD"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
