//! Passes the git revision to the program, for `cfdfu --version`.

use std::fs;
use std::path::Path;
use std::process::Command;

/// How many digits of a revision to show.
const DIGITS: usize = 10;

fn main() {
    // A commit or a checkout changes this file.
    println!("cargo:rerun-if-changed=build.rs");
    if Path::new(".git/logs/HEAD").exists() {
        println!("cargo:rerun-if-changed=.git/logs/HEAD");
    }
    let revision = packaged().or_else(checked_out).unwrap_or_default();
    println!("cargo:rustc-env=CFDFU_REVISION={}", revision.get(..DIGITS).unwrap_or_default());
}

/// The revision of a package from crates.io, which `cargo package` has written there.
fn packaged() -> Option<String> {
    let text = fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = text.split_once(r#""sha1": ""#)?;
    Some(rest.split('"').next()?.to_owned())
}

/// The revision of a clone. A folder without its own `.git` may be in a clone of something else.
fn checked_out() -> Option<String> {
    if !Path::new(".git").exists() {
        return None;
    }
    let output = Command::new("git").args(["rev-parse", "HEAD"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
