//! Runs the files in `examples` as a user would, on the simulated drone.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cfdfu::sim::images;
use tempfile::TempDir;

use crate::support::{SEED_LEN, find_program, firmware};

/// Creates a folder with images in the places where a build puts them. Returns the folder, and a PATH that includes a
/// wrapper script for cfdfu. The wrapper runs the demo with the scenario in DEMO, so that cfdfu does not use real
/// drones plugged into this computer.
fn create_folder() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("build")).unwrap();
    fs::write(folder.path().join("build/cf2.bin"), firmware("2026.08", SEED_LEN)).unwrap();
    fs::write(folder.path().join("build/loader.bin"), images::loader()).unwrap();
    let program = PathBuf::from(assert_cmd::cargo::cargo_bin!("cfdfu"));
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *--demo*|inspect*) exec '{0}' \"$@\" ;; esac\nexec '{0}' \"$@\" --demo=$DEMO --demo-fast\n",
        program.display()
    );
    fs::create_dir(folder.path().join("bin")).unwrap();
    let wrapper = folder.path().join("bin/cfdfu");
    // A child process writes the wrapper: if this process had the file open while another test started a program, that
    // program would inherit the open file for a moment, and Linux does not run a file that is open for writing.
    let write = ["-c", "printf %s \"$1\" >\"$2\" && chmod 755 \"$2\"", "sh", &script];
    assert!(Command::new("sh").args(write).arg(&wrapper).status().unwrap().success());
    let path = format!("{}:{}", folder.path().join("bin").display(), std::env::var("PATH").unwrap());
    (folder, path)
}

/// Returns a command without the environment variables that the examples read, because the caller may have set them.
fn example_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for name in ["CFDFU", "IMAGE", "LOADER", "OPTIONS", "SSH"] {
        command.env_remove(name);
    }
    command
}

fn example(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name).display().to_string()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// `flash_dfu` and `flash_dfu_manual` replace the targets of the same names in the firmware's own Makefile.
#[test]
fn every_target_of_the_makefile_flashes() {
    let (folder, path) = create_folder();
    let Some(program) = find_program("make") else { return };
    let make = |target: &str, demo: &str, argument: &str| {
        let mut make = example_command(&program);
        make.args(["-f", &example("Makefile"), target, argument]).current_dir(&folder);
        make.env("PATH", &path).env("DEMO", demo).output().unwrap()
    };
    let without_loader = make("restore_bootloader", "overwritten", "IMAGE=build/cf2.bin");
    assert!(
        !without_loader.status.success() && text(&without_loader).contains("LOADER=cf2loader"),
        "{}",
        text(&without_loader)
    );
    for (target, demo, argument) in [
        ("flash_dfu", "healthy", "IMAGE=build/cf2.bin"),
        ("flash_dfu_manual", "dfu", "OPTIONS=--no-undo"),
        ("restore_bootloader", "overwritten", "LOADER=build/loader.bin"),
    ] {
        let output = make(target, demo, argument);
        assert!(
            output.status.success() && text(&output).contains("Flashed and verified"),
            "{}",
            text(&output)
        );
    }
}

/// Scripts replace SSH: one script runs the command on this computer, and the others imitate failures.
#[test]
fn the_fleet_script_flashes_over_ssh_and_reports_the_result_of_each_host() {
    let (folder, path) = create_folder();
    let file = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    file("local", "#!/bin/sh\nshift; exec sh -c \"$*\"\n");
    file("not-booted", r#"echo '{"event":"result","outcome":"flashed","booted":false}'"#);
    file("unreachable", "exit 255");
    file("not-installed", "exit 127");
    let run = |image: &str, ssh: &str, demo: &str| {
        let mut fleet = example_command(Path::new("sh"));
        fleet.args([&example("fleet.sh"), image, "lab1", "lab2"]).current_dir(&folder);
        let ssh = format!("sh ./{ssh}");
        let output = fleet.env("PATH", &path).env("SSH", ssh).env("DEMO", demo).output().unwrap();
        (output.status.code(), text(&output))
    };
    let good = run("build/cf2.bin", "local", "healthy");
    assert_eq!(good, (Some(0), "lab1: ok\nlab2: ok\n".to_owned()));
    for (image, ssh, demo, status, words) in [
        ("build/cf2.bin", "local", "none", 1, "lab2: no Crazyflie or DFU device found"),
        ("build/loader.bin", "local", "healthy", 1, "lab1: this is the Bitcraze bootloader, not firmware"),
        ("build/cf2.bin", "not-booted", "", 1, "lab1: flashed, but not seen running"),
        ("build/cf2.bin", "unreachable", "", 1, "lab1: ssh cannot connect"),
        ("build/cf2.bin", "not-installed", "", 1, "lab1: cfdfu is not on the PATH there"),
        ("build/missing.bin", "local", "healthy", 66, "cannot read build/missing.bin"),
    ] {
        let (code, text) = run(image, ssh, demo);
        assert!(code == Some(status) && text.contains(words), "{image} {ssh} {demo}: {code:?} {text}");
    }
}

#[test]
fn the_steps_of_the_ci_workflow_succeed() {
    let (folder, path) = create_folder();
    let steps = run_commands(&fs::read_to_string(example("ci.yml")).unwrap());
    assert!(steps[0].starts_with("cargo install --locked --git "), "{steps:?}");
    let step = |run: &str, demo: &str| {
        let mut step = example_command(Path::new("sh"));
        step.args(["-ec", run]).current_dir(&folder).env("PATH", &path).env("DEMO", demo).output().unwrap()
    };
    for run in &steps[1..] {
        for demo in ["none", "healthy"] {
            let output = step(run, demo);
            assert!(output.status.success(), "{run}: {}", text(&output));
        }
    }
    let last = steps.last().unwrap();
    assert!(text(&step(last, "healthy")).contains("\"outcome\":\"flashed\""));
    assert!(!step(last, "write-protected").status.success(), "a failed flash must fail the step");
}

/// Returns the `run` commands of a workflow, whether they are on one line or in a block.
fn run_commands(workflow: &str) -> Vec<String> {
    let lines: Vec<&str> = workflow.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let command = |(n, line): (usize, &&str)| {
        let run = line.trim().strip_prefix("run: ")?;
        let block = lines[n + 1..].iter().take_while(|below| indent(below) > indent(line));
        Some(if run == "|" { block.copied().collect::<Vec<_>>().join("\n") } else { run.to_owned() })
    };
    lines.iter().enumerate().filter_map(command).collect()
}
