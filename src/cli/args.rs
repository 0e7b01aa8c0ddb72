//! The command line definition: commands, options and their help. The manual page and the shell completions are
//! generated from this definition. Parsing does not open any file or device.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

#[cfg(feature = "releases")]
use super::releases::{SourceArgs, parse_board};
use crate::flash::Address;
use crate::image::Sha256;
use crate::job::Selector;
#[cfg(feature = "releases")]
use crate::releases::Wanted;
use crate::sim::images;
use crate::sim::scenario::SCENARIOS;

const STYLES: Styles =
    Styles::styled().header(AnsiColor::Green.on_default().bold()).usage(AnsiColor::Green.on_default().bold());

/// Flash, recover and inspect a Bitcraze Crazyflie over USB DFU.
#[derive(Debug, Parser)]
#[command(override_usage = "cfdfu [OPTIONS] [IMAGE]\n       cfdfu [OPTIONS] COMMAND")]
#[command(name = "cfdfu", version = crate::sys::version(), styles = STYLES, max_term_width = 100, after_help = format!("{EXAMPLES}\n\n{EXIT_STATUS}"))]
pub(super) struct Args {
    /// Open the interface with this image selected
    pub(super) image: Option<PathBuf>,
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Option<CliCommand>,
}

impl Args {
    /// Parses the arguments. The image may be omitted with `--demo`, which has its own images, and with `--release`.
    pub(super) fn of(arguments: Vec<OsString>) -> Result<Args, clap::Error> {
        let has = |option: &str| {
            let is_option = |argument: &str| {
                argument.strip_prefix(option).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
            };
            arguments.iter().any(|argument| is_option(&argument.to_string_lossy()))
        };
        let mut command = Args::command();
        if has("--demo") || has("--release") {
            for (name, id) in [("flash", "image"), ("restore-bootloader", "loader")] {
                command = command.mut_subcommand(name, |sub| sub.mut_arg(id, |arg| arg.required(false)));
            }
        }
        Args::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }
}

// At most 79 columns per line: clap would wrap longer lines and break the table.
pub(super) const EXAMPLES: &str = "\
Examples:
  cfdfu                               open the interface; add --demo to try it
  cfdfu flash cf2-2026.08.bin         flash the connected Crazyflie
  cfdfu flash cf2-2026.08.bin --demo  flash a simulated Crazyflie
  cfdfu flash cf2.bin --wait 60       wait while you enter DFU mode by hand
  cfdfu identify                      show board, bootloader and firmware
  cfdfu backup mine.bin               copy the whole flash to a file
  cfdfu inspect firmware-cf2-2026.08.zip
  cfdfu restore-bootloader cf2loader-1.0.bin --firmware cf2-2026.08.bin

If a drone does not start, open the interface and press r. If no drone is
found, run `cfdfu doctor`.";

pub(super) const EXIT_STATUS: &str = "\
Exit status:
  0   success                         70  internal error in cfdfu
  1   verify: contents differ         73  cannot write the output file
  2   invalid usage                   74  device failed
  65  image refused                   75  interrupted; safe to run again
  66  cannot read the image           76  --require-boot: drone not running
  69  no device, or several           77  permission denied";

const FLASH_EXAMPLES: &str = "\
Examples:
  cfdfu flash cf2-2026.08.bin            asks a running drone to enter DFU mode
  cfdfu flash build/cf2.elf --wait 60    waits while you enter DFU mode
  cfdfu flash cf2.bin --device 1-1.2     selects a drone by port or serial
  cfdfu flash cf2.bin --json | tail -1   prints the result for scripts
  cfdfu flash cf2.zip bolt.zip --all     flashes every drone with its own image";

const RESTORE_EXAMPLES: &str = "\
Examples:
  cfdfu restore-bootloader cf2loader-1.0.bin
  cfdfu restore-bootloader cf2loader-1.0.bin --firmware cf2-2026.08.bin
  cfdfu restore-bootloader mine.bin      from a whole-flash backup";

#[cfg(feature = "releases")]
const RELEASES_NOTE: &str = "\
Asks api.github.com at most once an hour, except with --refresh. Only
`releases`, `fetch`, --release and the releases page of the interface open
network connections. Bitcraze does not sign its releases; cfdfu compares each
file with the SHA-256 that GitHub reports, if any.";

#[cfg(feature = "releases")]
const FETCH_EXAMPLES: &str = "\
Examples:
  cfdfu fetch                         fetch the latest release for your drone
  cfdfu fetch 2026.08 --board all     fetch the files for every board
  cfdfu fetch --board all --to stick  fetch to a folder, for another computer
  cfdfu flash --release 2026.08 --from stick    flash a file in that folder";

const STATION_NOTE: &str = "\
Each drone is flashed, verified and started once. One beep means done. Two mean
that a step is left, as shown on the screen: usually to unplug USB and the
battery. Three mean a failure; to retry that drone, unplug it for ten seconds.";

const IDENTIFY_NOTE: &str = "\
A running drone reports its board and firmware version and is not restarted. In
DFU mode, cfdfu also reads the bootloader, board revision and protection.";

const CONSOLE_NOTE: &str = "\
The drone keeps about a hundred messages until they are read. They usually
include those from its start. cfdfu sends nothing that could change a setting.
While the console is open, the drone does not listen to the radio.";

const QUALIFY_NOTE: &str = "\
Without an image, cfdfu restarts a running drone into DFU mode, but only reads.
With an image, it also asks you to type a word, saves the whole flash, restarts
the drone twelve times, writes test data to the last sector of the flash if
that sector is blank, flashes the image and puts everything back. Ctrl-C stops
it at any time. One read is past the end of the flash. Such a read has crashed
the boot ROM of a different chip: if the drone stops answering, unplug it and
plug it in again. cfdfu was developed without a drone, so please attach the
report and the recording to an issue.";

const RECORDING_NOTE: &str = "\
`cfdfu flash IMAGE --demo=replay:FILE` replays a recording.
`--record FILE` records cfdfu's own transfers.";

const UNDO_NOTE: &str = "\
cfdfu saves what each flash overwrites, separately for each drone, unless you
pass --no-undo. An undo also saves what it overwrites, so a second undo
reverses the first.";

const SIMULATE_NOTE: &str = "\
Uses Linux's virtual USB controller (modprobe vhci_hcd), so lsusb and dfu-util
also see the drone. Type commands on standard input: unplug, plug, dfu (plug in
with the button held), quit.";

/// Options that every command accepts.
#[allow(clippy::struct_excessive_bools, reason = "each field is a command line switch")]
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// Use a simulated Crazyflie; --demo=help lists the scenarios
    #[allow(clippy::option_option, reason = "absent, given alone, or given with a name")]
    #[arg(long, global = true, value_name = "SCENARIO", num_args = 0..=1, require_equals = true)]
    #[arg(value_parser = DemoParser, hide_possible_values = true)]
    pub(super) demo: Option<Option<String>>,
    /// Use a line-by-line interface instead of the full-screen one
    #[arg(long, global = true)]
    pub(super) plain: bool,
    /// Select a drone by serial number or by port, such as 1-1.2 (with --all, repeat it for several)
    #[arg(long, global = true, value_name = "SEL", value_parser = parse_selector)]
    pub(super) device: Vec<Selector>,
    /// Print one JSON object per line on stdout
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(super) color: ColorChoice,
    /// Append a timestamped log to this file
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) log_file: Option<PathBuf>,
    /// Record every USB transfer in this file, for a bug report or a test
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) record: Option<PathBuf>,
    /// Replace serial numbers in recordings and bug reports
    #[arg(long, global = true)]
    pub(super) redact: bool,
    /// Show more detail (-vv: every USB transfer)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// Run the demo without real delays (for tests)
    #[arg(long, global = true, hide = true)]
    pub(super) demo_fast: bool,
}

impl Global {
    /// Returns the path of the recording that `--demo` replays.
    pub(super) fn replayed(&self) -> Option<&str> {
        self.demo.as_ref()?.as_deref()?.strip_prefix(REPLAY)
    }
}

/// Options for finding the device.
#[derive(Debug, Default, clap::Args)]
pub(super) struct DeviceArgs {
    /// Wait up to this many seconds for the drone to appear
    #[arg(long, value_name = "SECS", default_value_t = 0, hide_default_value = true)]
    pub(super) wait: u64,
    /// Do not ask a running Crazyflie to enter DFU mode
    #[arg(long)]
    pub(super) no_enter: bool,
}

/// Options for many drones.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Many drones")]
pub(super) struct BatchArgs {
    /// Work on all connected drones at the same time
    #[arg(long)]
    pub(super) all: bool,
    /// Wait for this many drones, and fail if there are fewer
    #[arg(long, value_name = "N", requires = "all", value_parser = at_least_one)]
    pub(super) expect: Option<usize>,
    /// Work on at most N drones at once
    #[arg(long, value_name = "N", requires = "all", default_value_t = 32, hide_default_value = true, value_parser = at_least_one)]
    pub(super) jobs: usize,
    /// With flash: write nothing unless every drone has an image for its board
    #[arg(long, requires = "all")]
    pub(super) strict: bool,
    /// Write the results to this file: JSON if its name ends in .json, otherwise CSV
    #[arg(long, value_name = "FILE", requires = "all")]
    pub(super) report: Option<PathBuf>,
}

/// Options for writing.
#[derive(Debug, Default, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each field is a command line switch")]
pub(super) struct FlashArgs {
    /// Write to this address instead of the image's own
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    pub(super) address: Option<Address>,
    /// Do not read back and compare what was written
    #[arg(long)]
    pub(super) no_verify: bool,
    /// Stay in DFU mode instead of restarting the drone
    #[arg(long)]
    pub(super) no_leave: bool,
    /// Write every sector, even those that already match
    #[arg(long)]
    pub(super) full: bool,
    /// Do not save what is overwritten: no undo, and no warning if the platform differs
    #[arg(long)]
    pub(super) no_undo: bool,
    /// Write despite an unknown image or chip, or a different board
    #[arg(long)]
    pub(super) allow_mismatch: bool,
    /// Program byte by byte, the boot ROM's default (slower)
    #[arg(long)]
    pub(super) byte_mode: bool,
    /// Exit with status 76 unless the drone starts and keeps running
    #[arg(long, conflicts_with = "no_leave")]
    pub(super) require_boot: bool,
    /// Start the drone with a reset, for boot ROMs that would not start it (not yet tested on a real drone)
    #[arg(long, hide = true, conflicts_with = "no_leave")]
    pub(super) leave_by_reset: bool,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
}

/// Options that select a release instead of a file.
#[cfg(feature = "releases")]
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Releases")]
pub(super) struct ReleaseArgs {
    /// Use this Bitcraze release instead of a file: a version, or latest
    #[arg(long, value_name = "VERSION")]
    pub(super) release: Option<Wanted>,
    /// Use the file for this board (CF21) or platform (cf2) instead of asking the drone
    #[arg(long, value_name = "BOARD", requires = "release", value_parser = parse_board)]
    pub(super) board: Option<String>,
    #[command(flatten)]
    pub(super) source: SourceArgs,
}

/// Without the `releases` feature, `--release` is hidden and refused.
#[cfg(not(feature = "releases"))]
#[derive(Debug, clap::Args)]
pub(super) struct ReleaseArgs {
    #[arg(long, hide = true, value_parser = no_releases)]
    pub(super) release: Option<String>,
}

#[cfg(not(feature = "releases"))]
fn no_releases(_: &str) -> Result<String, String> {
    Err("this build of cfdfu does not support releases".to_owned())
}

#[cfg(feature = "releases")]
fn parse_board_or_all(text: &str) -> Result<String, String> {
    if text == "all" { Ok(text.to_owned()) } else { parse_board(text) }
}

#[derive(Debug, Subcommand)]
pub(super) enum CliCommand {
    /// Flash firmware; a running drone enters DFU mode by itself
    #[command(after_help = FLASH_EXAMPLES)]
    Flash {
        /// Image files: .bin, .dfu, .hex, .elf, release .zip, or - for stdin; each drone gets the one for its board
        #[arg(required = true)]
        image: Vec<PathBuf>,
        /// Refuse the file unless it has this SHA-256
        #[arg(long, value_name = "HEX")]
        sha256: Option<Sha256>,
        #[command(flatten)]
        release: ReleaseArgs,
        #[command(flatten)]
        batch: BatchArgs,
        #[command(flatten)]
        flash: FlashArgs,
    },
    /// Flash every drone that is plugged in, until Ctrl-C
    #[command(after_help = STATION_NOTE)]
    Station {
        /// Image files; each drone gets the one for its board
        #[arg(required = true)]
        image: Vec<PathBuf>,
        /// Stop when this many drones are done
        #[arg(long, value_name = "N", value_parser = at_least_one)]
        count: Option<usize>,
        /// Also flash the drones that are plugged in at the start, without waiting for Enter
        #[arg(long)]
        yes: bool,
        /// Skip the drones that the last station run finished
        #[arg(long)]
        resume: bool,
        /// Write the results to this file: JSON if its name ends in .json, otherwise CSV
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
        #[command(flatten)]
        flash: FlashArgs,
    },
    /// Restore the Bitcraze bootloader, optionally with firmware
    #[command(after_help = RESTORE_EXAMPLES)]
    RestoreBootloader {
        /// Bootloader (cf2loader-1.0.bin) or whole-flash backup
        #[arg(required = true)]
        loader: Option<PathBuf>,
        #[command(flatten)]
        release: ReleaseArgs,
        /// Flash this firmware as well
        #[arg(long, value_name = "IMAGE")]
        firmware: Option<PathBuf>,
        #[command(flatten)]
        flash: FlashArgs,
    },
    /// List Bitcraze's releases
    #[cfg(feature = "releases")]
    #[command(after_help = RELEASES_NOTE)]
    Releases {
        /// Also list pre-releases
        #[arg(long)]
        pre: bool,
        /// Ask GitHub even if the list was fetched less than an hour ago
        #[arg(long, conflicts_with_all = ["offline", "from"])]
        refresh: bool,
        /// Remove everything that was fetched
        #[arg(long, conflicts_with_all = ["pre", "refresh", "offline", "from"])]
        forget: bool,
        #[command(flatten)]
        source: SourceArgs,
    },
    /// Fetch a release file for a drone or a board
    #[cfg(feature = "releases")]
    #[command(after_help = FETCH_EXAMPLES)]
    Fetch {
        /// The release: a version, or latest
        #[arg(default_value = "latest", hide_default_value = true)]
        version: Wanted,
        /// The board (CF21) or platform (cf2), or all
        #[arg(long, value_name = "BOARD", value_parser = parse_board_or_all)]
        board: Option<String>,
        /// Fetch the bootloader instead of firmware
        #[arg(long, conflicts_with = "board")]
        loader: bool,
        /// Fetch to this folder; --from uses it instead of the network
        #[arg(long, value_name = "FOLDER", conflicts_with_all = ["offline", "from"])]
        to: Option<PathBuf>,
        #[command(flatten)]
        source: SourceArgs,
    },
    /// List connected Crazyflies and DFU devices
    List,
    /// Show a drone's board, bootloader, firmware and protection
    #[command(after_help = IDENTIFY_NOTE)]
    Identify {
        /// Wait up to this many seconds for the drone to appear
        #[arg(long, value_name = "SECS", default_value_t = 0, hide_default_value = true)]
        wait: u64,
        #[command(flatten)]
        batch: BatchArgs,
    },
    /// Blink the LEDs of a running drone, to see which one it is
    Blink {
        #[command(flatten)]
        batch: BatchArgs,
    },
    /// Show what a running drone prints until a key or Ctrl-C
    #[command(after_help = CONSOLE_NOTE)]
    Console {
        /// Serial number or port of the drone, like --device
        #[arg(value_name = "SEL", value_parser = parse_selector)]
        selector: Option<Selector>,
        /// Stop after this many seconds
        #[arg(long = "for", value_name = "SECS")]
        limit: Option<u64>,
        /// Wait up to this many seconds for the drone to appear
        #[arg(long, value_name = "SECS", default_value_t = 0, hide_default_value = true)]
        wait: u64,
    },
    /// Show what a file is: kind, version, boards, address, size
    Inspect {
        /// Image file
        image: PathBuf,
    },
    /// Copy the whole flash (1 MiB) to a file
    Backup {
        /// Output file; with --all, a folder for one file per drone
        file: PathBuf,
        /// Overwrite existing files
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        batch: BatchArgs,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Undo the last flash; a second undo is a redo
    #[command(after_help = UNDO_NOTE)]
    Undo {
        /// Undo even if the old bootloader is not Bitcraze's or the flash has changed since
        #[arg(long)]
        allow_mismatch: bool,
        #[command(flatten)]
        batch: BatchArgs,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Compare the flash with an image
    Verify {
        /// Image file to compare with
        image: PathBuf,
        /// Compare at this address instead of the image's own
        #[arg(long, value_name = "ADDR", value_parser = parse_address)]
        address: Option<Address>,
        #[command(flatten)]
        batch: BatchArgs,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Diagnose why no drone is found: cable, permissions, drivers
    Doctor,
    /// Check what cfdfu assumes about a drone
    #[command(after_help = QUALIFY_NOTE)]
    Qualify {
        /// Firmware to flash; everything is put back at the end
        image: Option<PathBuf>,
        /// Write the report to this file, with the recording (.jsonl) and the backup (.bin) beside it
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
    },
    /// Convert another program's capture to a recording
    #[command(after_help = RECORDING_NOTE)]
    Recording {
        /// A recording, usbmon text, pcap or pcapng
        capture: String,
    },
    /// Print, check or install the udev rules
    Udev {
        /// Install the rules in /etc/udev/rules.d (as root)
        #[arg(long)]
        install: bool,
        /// Check whether the installed rules grant you access
        #[arg(long, conflicts_with = "install")]
        check: bool,
    },
    /// Print shell completions
    Completions {
        /// The shell that uses the completions
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
    /// Plug a simulated Crazyflie into this computer (as root)
    #[command(after_help = SIMULATE_NOTE)]
    Simulate {
        /// Scenario to simulate; --demo=help describes each one
        #[arg(value_parser = scenarios(None), hide_possible_values = true)]
        scenario: Option<String>,
    },
    /// Write a synthetic image for trying out cfdfu
    #[command(hide = true)]
    DemoImage {
        /// Output file
        file: PathBuf,
        /// Kind of image
        #[arg(long, value_enum, default_value = "firmware")]
        kind: DemoKind,
        /// Firmware version
        #[arg(long, default_value = images::VERSION, value_parser = parse_version)]
        version: String,
        /// Firmware size in bytes
        #[arg(long, default_value_t = images::FIRMWARE_LEN, value_parser = parse_size)]
        size: usize,
        /// Overwrite an existing file
        #[arg(long)]
        force: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DemoKind {
    Firmware,
    Loader,
    Bolt,
}

/// The `--demo` value that lists the scenarios.
pub(super) const DEMO_HELP: &str = "help";
/// The prefix of a `--demo` value that names a recording to replay.
const REPLAY: &str = "replay:";

/// Accepts the name of a scenario or `replay:FILE`.
#[derive(Clone)]
struct DemoParser;

impl TypedValueParser for DemoParser {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        match value.to_str() {
            Some(text) if text.len() > REPLAY.len() && text.starts_with(REPLAY) => Ok(text.to_owned()),
            _ => scenarios(Some(DEMO_HELP)).parse_ref(command, argument, value),
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let values: Vec<PossibleValue> = scenarios(Some(DEMO_HELP)).possible_values()?.collect();
        Some(Box::new(values.into_iter()))
    }
}

/// Returns the scenario names with their descriptions, for validation and for shell completions.
fn scenarios(extra: Option<&'static str>) -> PossibleValuesParser {
    let extra = extra.map(|name| PossibleValue::new(name).help("list the scenarios"));
    let named = SCENARIOS.iter().map(|scenario| PossibleValue::new(scenario.name).help(scenario.description));
    named.chain(extra).collect::<Vec<_>>().into()
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| "not a number above 0".to_owned())
}

fn parse_address(text: &str) -> Result<Address, String> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let number = match digits {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map(Address).map_err(|_| "expected an address such as 0x08004000".to_owned())
}

fn parse_size(text: &str) -> Result<usize, String> {
    let size = text.parse().map_err(|_| "expected a number of bytes".to_owned())?;
    if (4096..=1_032_192).contains(&size) {
        Ok(size)
    } else {
        Err("expected 4096 to 1032192 bytes".to_owned())
    }
}

fn parse_version(text: &str) -> Result<String, String> {
    if text.len() <= 40 && text.is_ascii() {
        Ok(text.to_owned())
    } else {
        Err("expected at most 40 ASCII characters".to_owned())
    }
}

fn parse_selector(text: &str) -> Result<Selector, String> {
    if text.trim().is_empty() {
        return Err("expected a serial number or a port such as 1-1.2".to_owned());
    }
    text.parse().map_err(|never: std::convert::Infallible| match never {})
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_definition_is_valid() {
        Args::command().debug_assert();
    }

    /// clap would wrap longer lines and break the columns of the tables.
    #[test]
    fn the_help_fits_80_columns() {
        let mut command = Args::command().term_width(80);
        command.build();
        for name in [None]
            .into_iter()
            .chain(command.clone().get_subcommands().map(|command| Some(command.get_name().to_owned())))
        {
            let command = match &name {
                Some(name) => command.find_subcommand_mut(name).unwrap(),
                None => &mut command,
            };
            let texts = [
                command.get_after_help().map(ToString::to_string),
                command.get_about().map(ToString::to_string),
            ];
            for (limit, text) in [79, 60].iter().zip(texts) {
                let text = text.unwrap_or_default();
                assert!(text.lines().all(|line| line.len() <= *limit), "{name:?}: {text}");
            }
            let help = command.render_help().to_string();
            assert!(
                command.is_hide_set() || !help.contains("see more with"),
                "{name:?}: --help differs from -h"
            );
        }
    }

    #[test]
    fn an_address_with_the_0x_prefix_is_hexadecimal() {
        assert_eq!(parse_address("0x08004000"), Ok(Address(0x0800_4000)));
        assert_eq!(parse_address("134234112"), Ok(Address(0x0800_4000)));
        for text in ["", "08004000h", "0x", "0x108004000", "-1", "0x0800_4000"] {
            assert!(parse_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn demo_accepts_a_scenario_only_after_an_equals_sign() {
        let parse = |line: &str| Args::try_parse_from(line.split(' ')).unwrap().global.demo;
        assert_eq!(parse("cfdfu list --demo"), Some(None));
        assert_eq!(parse("cfdfu --demo list"), Some(None));
        assert_eq!(parse("cfdfu list --demo=slow"), Some(Some("slow".to_owned())));
        assert_eq!(parse("cfdfu list"), None);
    }
}
