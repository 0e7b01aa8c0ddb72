//! The examples, as somebody would run them, on the simulated drone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::{SEED_LEN, firmware};

/// A folder with an image where a build leaves it, and the program on the path.
fn desk() -> (TempDir, String) {
    let desk = tempfile::tempdir().unwrap();
    fs::create_dir(desk.path().join("build")).unwrap();
    fs::write(desk.path().join("build/cf2.bin"), firmware("2026.08", SEED_LEN)).unwrap();
    let program = PathBuf::from(assert_cmd::cargo::cargo_bin!("cfdfu"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
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
    for (target, demo) in [("flash_dfu", "--demo"), ("flash_dfu_manual", "--demo=dfu")] {
        let options = format!("OPTIONS={demo} --demo-fast");
        let mut make = Command::new("make");
        make.args(["-f", &example("Makefile"), target, &options]).current_dir(&desk).env("PATH", &path);
        let output = make.output().unwrap();
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
    let run = |options: &str| {
        let mut fleet = Command::new("sh");
        fleet
            .args([&example("fleet.sh"), "build/cf2.bin", "lab1", "lab2"])
            .current_dir(&desk)
            .env("PATH", &path);
        fleet.env("SSH", format!("sh {}", ssh.display())).env("OPTIONS", options).output().unwrap()
    };
    let good = run("--demo --demo-fast");
    assert_eq!((good.status.code(), text(&good).as_str()), (Some(0), "lab1: ok\nlab2: ok\n"));
    let bad = run("--demo=none --demo-fast");
    assert!(bad.status.code() == Some(1) && text(&bad).contains("no_device"), "{}", text(&bad));
}

#[test]
fn the_steps_of_a_ci_job_run() {
    let (desk, path) = desk();
    let steps = fs::read_to_string(example("ci.yml")).unwrap();
    let runs: Vec<&str> = steps.lines().filter_map(|line| line.trim().strip_prefix("run: ")).collect();
    assert_eq!(runs.len(), 3);
    for run in runs {
        let mut step = Command::new("sh");
        let output = step.args(["-ec", run]).current_dir(&desk).env("PATH", &path).output().unwrap();
        assert!(output.status.success(), "{run}: {}", text(&output));
    }
}
