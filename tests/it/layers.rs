//! Enforces the layers described in `src/lib.rs`: checks the `crate::…` paths and the words in each source file against
//! a table of rules.

use std::fs;
use std::path::{Path, PathBuf};

/// Files whose paths start with one of `files` may use only the modules in `may_use` and none of the words in `never`.
/// If several rules match, only the rule with the longest prefix applies.
struct Rule {
    files: &'static [&'static str],
    may_use: &'static [&'static str],
    never: &'static [&'static str],
}

const IO: &[&str] = &[
    "rusb",
    "ratatui",
    "crossterm",
    "color_eyre",
    "directories",
    "std::fs",
    "std::env",
    "std::net",
    "std::process",
    "std::thread",
    "mpsc",
    "indicatif",
    "clap::",
];

const RULES: &[Rule] = &[
    Rule { files: &["flash"], may_use: &["flash"], never: IO },
    // The table of boards is in `crazyflie`.
    Rule { files: &["image"], may_use: &["crazyflie", "flash", "image"], never: IO },
    Rule { files: &["plan"], may_use: &["flash", "image", "plan"], never: IO },
    Rule { files: &["usb.rs", "usb/descriptor.rs"], may_use: &["usb"], never: IO },
    Rule { files: &["dfu"], may_use: &["dfu", "flash", "usb"], never: IO },
    Rule { files: &["crazyflie.rs", "crazyflie"], may_use: &["flash", "usb"], never: IO },
    Rule {
        files: &["job.rs", "job"],
        may_use: &["crazyflie", "dfu", "flash", "image", "job", "plan", "usb"],
        never: IO,
    },
    Rule { files: &["qualify.rs"], may_use: &["crazyflie", "dfu", "job", "usb"], never: IO },
    Rule { files: &["doctor.rs"], may_use: &["crazyflie", "usb"], never: IO },
    Rule {
        files: &["report.rs", "report"],
        may_use: &["crazyflie", "dfu", "flash", "image", "job", "plan", "qualify", "releases", "usb"],
        never: IO,
    },
    // Only `releases/net.rs` connects to the network. `releases.rs` parses the server's answers without I/O.
    Rule { files: &["releases.rs"], may_use: &["crazyflie", "image", "releases"], never: IO },
    Rule {
        files: &["releases/cache.rs"],
        may_use: &["clock", "image", "releases"],
        never: &["rusb", "ratatui", "std::net", "ureq"],
    },
    Rule {
        files: &["releases/library.rs"],
        may_use: &["clock", "image", "releases"],
        never: &["rusb", "ratatui", "std::fs", "std::env", "std::net", "ureq"],
    },
    Rule {
        files: &["releases/net.rs"],
        may_use: &["clock", "releases"],
        never: &["rusb", "ratatui", "std::fs", "std::thread"],
    },
    Rule { files: &["usb/libusb.rs"], may_use: &["usb"], never: &["ratatui", "std::thread"] },
    Rule { files: &["usb/trace.rs"], may_use: &["usb"], never: IO },
    Rule { files: &["recording.rs", "recording"], may_use: &["recording", "usb"], never: IO },
    Rule { files: &["recording/recorder.rs"], may_use: &["clock", "recording", "usb"], never: IO },
    Rule { files: &["recording/redact.rs"], may_use: &["crazyflie", "recording", "usb"], never: IO },
    Rule { files: &["sim/replay.rs"], may_use: &["clock", "recording", "sim", "usb"], never: IO },
    Rule { files: &["sim/vhci.rs"], may_use: &["sim", "usb"], never: &["rusb"] },
    // The simulator does not use any host-side code except the USB types and the clock.
    Rule { files: &["sim"], may_use: &["sim", "usb", "clock"], never: IO },
    Rule { files: &["clock.rs"], may_use: &[], never: &["rusb"] },
    Rule { files: &["scan.rs"], may_use: &["crazyflie", "job", "usb"], never: IO },
    Rule {
        files: &["worker"],
        may_use: &["clock", "crazyflie", "dfu", "flash", "image", "job", "plan", "scan", "usb", "worker"],
        never: &["rusb", "libusb", "std::fs", "std::env", "crate::sim"],
    },
    Rule {
        files: &["record.rs", "record"],
        may_use: &["clock", "crazyflie", "flash", "job", "plan", "record", "usb"],
        never: &["rusb", "ratatui"],
    },
    Rule {
        files: &["supervise.rs", "supervise"],
        may_use: &[
            "clock",
            "crazyflie",
            "flash",
            "image",
            "job",
            "plan",
            "record",
            "report",
            "scan",
            "supervise",
            "usb",
            "worker",
        ],
        never: &["rusb", "ratatui", "std::fs", "std::env", "std::thread"],
    },
    Rule { files: &["supervise/resume.rs"], may_use: &["job"], never: IO },
    Rule {
        files: &["fleet.rs", "fleet"],
        may_use: &["crazyflie", "fleet", "job", "report", "usb"],
        never: IO,
    },
    Rule {
        files: &["batch_workers.rs"],
        may_use: &["clock", "job", "supervise", "usb", "worker"],
        never: &["rusb", "ratatui", "std::fs", "std::env"],
    },
    Rule {
        files: &["watch.rs"],
        may_use: &["clock", "batch_workers", "job", "scan", "usb", "worker"],
        never: &["rusb", "ratatui", "std::fs", "std::env"],
    },
    Rule {
        files: &["app"],
        may_use: &[
            "app",
            "crazyflie",
            "dfu",
            "doctor",
            "flash",
            "fleet",
            "image",
            "job",
            "plan",
            "releases",
            "report",
            "supervise",
            "usb",
        ],
        never: &[
            // The interface receives only the outcome of a supervised job.
            "Supervisor",
            "rusb",
            "ratatui",
            "crossterm",
            "std::fs",
            "std::env",
            "std::thread",
            "mpsc",
            "crate::worker",
            "crate::sim",
            // Only `tui` and `cli` may request releases.
            "releases::net",
            "releases::library",
            "releases::cache",
        ],
    },
    Rule {
        files: &["ui"],
        may_use: &[
            "app",
            "crazyflie",
            "doctor",
            "flash",
            "fleet",
            "image",
            "job",
            "plan",
            "releases",
            "report",
            "ui",
            "usb",
        ],
        never: &[
            "crossterm",
            "rusb",
            "std::fs",
            "std::env",
            "std::thread",
            "releases::net",
            "releases::library",
            "releases::cache",
            "&mut App",
        ],
    },
    Rule { files: &["settings.rs"], may_use: &[], never: &["rusb", "ratatui"] },
    Rule {
        files: &["sys.rs", "sys"],
        may_use: &[
            "app",
            "clock",
            "crazyflie",
            "doctor",
            "image",
            "job",
            "releases",
            "report",
            "scan",
            "settings",
            "sys",
            "usb",
        ],
        never: &["rusb", "ratatui", "crossterm", "releases::net"],
    },
    Rule {
        files: &["tui"],
        may_use: &[
            "app",
            "clock",
            "batch_workers",
            "doctor",
            "image",
            "job",
            "plan",
            "record",
            "recording",
            "releases",
            "report",
            "scan",
            "settings",
            "sim",
            "supervise",
            "sys",
            "tui",
            "ui",
            "usb",
            "watch",
            "worker",
        ],
        never: &["rusb"],
    },
    Rule {
        files: &["cli", "lib.rs", "main.rs"],
        may_use: &[
            "app",
            "cli",
            "clock",
            "crazyflie",
            "batch_workers",
            "doctor",
            "flash",
            "fleet",
            "image",
            "job",
            "plan",
            "qualify",
            "record",
            "recording",
            "releases",
            "report",
            "scan",
            "settings",
            "sim",
            "supervise",
            "sys",
            "tui",
            "ui",
            "usb",
            "watch",
            "worker",
        ],
        never: &["rusb::"],
    },
];

/// Only `clock.rs` and the virtual host controller, which runs in real time, may read the system clock or sleep.
const CLOCK_WORDS: &[&str] = &["Instant::now", "SystemTime::now", "thread::sleep"];
const CLOCK_FILES: &[&str] = &["clock.rs", "sim/vhci.rs"];

fn find_sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find_sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

/// Returns the path of a file relative to `src`, and the numbered lines of the file without comments and tests.
fn read_code(path: &Path, root: &Path) -> (String, Vec<(usize, String)>) {
    let name = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
    let text = fs::read_to_string(path).unwrap();
    let lines = text
        .lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .map(|(n, line)| (n + 1, line.split("//").next().unwrap_or_default().to_owned()))
        .collect();
    (name, lines)
}

/// Calls `read_code` for every source file that is not a test module.
fn read_all_code() -> Vec<(String, Vec<(usize, String)>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    find_sources(&root, &mut files);
    assert!(files.len() > 30, "only {} source files were found", files.len());
    files.iter().filter(|path| !path.ends_with("tests.rs")).map(|path| read_code(path, &root)).collect()
}

#[test]
fn every_source_file_uses_only_what_its_layer_allows() {
    let mut wrong = Vec::new();
    for (name, lines) in read_all_code() {
        let matches = |rule: &&Rule| rule.files.iter().any(|prefix| name.starts_with(prefix));
        let longest =
            |rule: &&Rule| rule.files.iter().filter(|f| name.starts_with(**f)).map(|f| f.len()).max();
        let rule = RULES.iter().filter(matches).max_by_key(longest);
        let rule = rule.unwrap_or_else(|| panic!("no rule matches src/{name}"));
        for (n, line) in lines {
            for (start, _) in line.match_indices("crate::") {
                let module: String =
                    line[start + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if !module.is_empty() && !rule.may_use.contains(&module.as_str()) {
                    wrong.push(format!("src/{name}:{n} uses {module}"));
                }
            }
            // Also report paths in a form that this test cannot resolve.
            for word in [
                "crate::{",
                "crate::releases::{cache",
                "crate::releases::{net",
                "crate::releases::{library",
                "super::super::",
            ]
            .iter()
            .filter(|word| line.contains(**word))
            {
                wrong.push(format!("src/{name}:{n} names {word}"));
            }
            for word in rule.never.iter().filter(|word| line.contains(**word)) {
                wrong.push(format!("src/{name}:{n} names {word}"));
            }
            if !CLOCK_FILES.contains(&name.as_str()) {
                for word in CLOCK_WORDS.iter().filter(|word| line.contains(**word)) {
                    wrong.push(format!("src/{name}:{n} names {word}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The layers exchange types, so any text for the user can be reworded. Only text from outside the program, such as the
/// name of a terminal or a typed line, may be compared.
#[test]
fn no_front_end_makes_decisions_based_on_text_for_the_user() {
    const COMPARISONS: &[&str] = &[
        "strip_prefix(",
        "strip_suffix(",
        ".split(\"",
        ".contains(\"",
        ".replace(\"",
        "starts_with(\"",
        "== \"",
    ];
    const FROM_OUTSIDE: &[&str] =
        &["\"TERM\"", "term ==", "term.contains(", ".strip_prefix(START)", "line == \"q\""];
    const FRONT_ENDS: &[&str] =
        &["app", "ui", "tui", "supervise", "report", "cli/console.rs", "cli/json.rs", "cli/run_job.rs"];
    let mut checked = 0;
    for (name, lines) in read_all_code() {
        if !FRONT_ENDS.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        checked += 1;
        for (n, line) in lines {
            let compares = COMPARISONS.iter().any(|words| line.contains(words));
            let is_from_outside = FROM_OUTSIDE.iter().any(|words| line.contains(words));
            assert!(!compares || is_from_outside, "src/{name}:{n} decides based on text: {line}");
        }
    }
    assert!(checked > 25, "only {checked} source files were checked");
}

#[test]
fn every_file_has_a_header() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    find_sources(&root.join("src"), &mut files);
    find_sources(&root.join("tests"), &mut files);
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let header = text.lines().take_while(|line| line.starts_with("//!")).count();
        assert!(header >= 1, "{} has no header", path.display());
    }
}
