//! The examples, as somebody would run them, on the simulated drone.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cfdfu::sim::images;
use tempfile::TempDir;

use crate::support::{SEED_LEN, firmware};

/// A folder with an image where a build leaves it, and the program on the path: in front of it a script that keeps it from
/// the drones of whoever runs the tests. DEMO says what it finds instead.
fn desk() -> (TempDir, String) {
    let desk = tempfile::tempdir().unwrap();
    fs::create_dir(desk.path().join("build")).unwrap();
    fs::write(desk.path().join("build/cf2.bin"), firmware("2026.08", SEED_LEN)).unwrap();
    fs::write(desk.path().join("build/loader.bin"), images::loader()).unwrap();
    let program = PathBuf::from(assert_cmd::cargo::cargo_bin!("cfdfu"));
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *--demo*|inspect*) exec {0} \"$@\" ;; esac\nexec {0} \"$@\" --demo=$DEMO --demo-fast\n",
        program.display()
    );
    fs::create_dir(desk.path().join("bin")).unwrap();
    let wrapper = desk.path().join("bin/cfdfu");
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", desk.path().join("bin").display(), std::env::var("PATH").unwrap());
    (desk, path)
}

fn example(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name).display().to_string()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn the_makefile_flashes_as_the_firmware_s_own_does() {
    let (desk, path) = desk();
    let make = |target: &str, demo: &str, more: &str| {
        let mut make = Command::new("make");
        make.args(["-f", &example("Makefile"), target, more]).current_dir(&desk);
        make.env("PATH", &path).env("DEMO", demo).output().unwrap()
    };
    let without = make("restore_bootloader", "overwritten", "IMAGE=build/cf2.bin");
    assert!(!without.status.success() && text(&without).contains("LOADER=cf2loader"), "{}", text(&without));
    for (target, demo, more) in [
        ("flash_dfu", "healthy", "IMAGE=build/cf2.bin"),
        ("flash_dfu_manual", "dfu", "OPTIONS=--no-undo"),
        ("restore_bootloader", "overwritten", "LOADER=build/loader.bin"),
    ] {
        let output = make(target, demo, more);
        assert!(
            output.status.success() && text(&output).contains("Flashed and verified"),
            "{}",
            text(&output)
        );
    }
}

/// With a stand-in for SSH that runs what it is given, here.
#[test]
fn a_fleet_is_flashed_over_ssh_and_each_says_how_it_ended() {
    let (desk, path) = desk();
    let ssh = desk.path().join("ssh");
    fs::write(&ssh, "#!/bin/sh\nOPTIONS=$1; shift; exec sh -c \"$*\"\n").unwrap();
    let run = |ssh: &str, demo: &str| {
        let mut fleet = Command::new("sh");
        fleet.args([&example("fleet.sh"), "build/cf2.bin", "lab1", "lab2"]).current_dir(&desk);
        fleet.env("PATH", &path).env("SSH", ssh).env("DEMO", demo).output().unwrap()
    };
    let ssh = format!("sh {}", ssh.display());
    let good = run(&ssh, "healthy");
    assert_eq!((good.status.code(), text(&good).as_str()), (Some(0), "lab1: ok\nlab2: ok\n"));
    let says = desk.path().join("says");
    fs::write(&says, r#"echo '{"event":"result","outcome":"flashed","booted":false}'"#).unwrap();
    let says = format!("sh {}", says.display());
    for (ssh, demo, words) in
        [(&*ssh, "none", "no_device"), (&*says, "", "not seen starting"), ("false", "", "no answer")]
    {
        let bad = run(ssh, demo);
        assert!(bad.status.code() == Some(1) && text(&bad).contains(words), "{}", text(&bad));
    }
}

#[test]
fn the_steps_of_a_ci_job_run() {
    let (desk, path) = desk();
    let steps = fs::read_to_string(example("ci.yml")).unwrap();
    let runs: Vec<&str> = steps.lines().filter_map(|line| line.trim().strip_prefix("run: ")).collect();
    assert_eq!(runs.len(), 3);
    let step = |run: &str, demo: &str| {
        let mut step = Command::new("sh");
        step.args(["-ec", run]).current_dir(&desk).env("PATH", &path).env("DEMO", demo).output().unwrap()
    };
    for run in &runs {
        for demo in ["none", "healthy"] {
            let output = step(run, demo);
            assert!(output.status.success(), "{run}: {}", text(&output));
        }
    }
    assert!(text(&step(runs[2], "healthy")).contains("\"outcome\":\"flashed\""));
    assert!(!step(runs[2], "write-protected").status.success(), "a drone that is not flashed fails the job");
}
