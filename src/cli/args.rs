//! What can be typed. Parsing touches nothing: no file, no device.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::flash::Address;
use crate::image::Sha256;
use crate::job::Selector;
use crate::sim::images;
use crate::sim::scenario::SCENARIOS;

const STYLES: Styles =
    Styles::styled().header(AnsiColor::Green.on_default().bold()).usage(AnsiColor::Green.on_default().bold());

/// Flash, recover and inspect a Bitcraze Crazyflie over USB DFU.
#[derive(Debug, Parser)]
#[command(override_usage = "cfdfu [OPTIONS] [IMAGE]\n       cfdfu [OPTIONS] COMMAND")]
#[command(name = "cfdfu", version, styles = STYLES, max_term_width = 100, after_help = format!("{EXAMPLES}\n\n{EXIT_STATUS}"))]
pub(super) struct Args {
    /// Open the interface with this image chosen
    pub(super) image: Option<PathBuf>,
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Option<CliCommand>,
}

impl Args {
    /// What was typed. The demo brings its own images, so with it none needs to be named.
    pub(super) fn of(arguments: Vec<OsString>) -> Result<Args, clap::Error> {
        let is_demo =
            |argument: &OsString| argument == "--demo" || argument.to_string_lossy().starts_with("--demo=");
        let mut command = Args::command();
        if arguments.iter().any(is_demo) {
            for (name, id) in [("flash", "image"), ("restore-bootloader", "loader")] {
                command = command.mut_subcommand(name, |it| it.mut_arg(id, |arg| arg.required(false)));
            }
        }
        Args::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }
}

// Lines of at most 79 columns: what clap wraps is no table any more.
pub(super) const EXAMPLES: &str = "\
Examples:
  cfdfu                               the interface; --demo: simulated drone
  cfdfu flash cf2-2026.08.bin         flash the Crazyflie that is plugged in
  cfdfu flash cf2-2026.08.bin --demo  the same on a simulated one
  cfdfu flash cf2.bin --wait 60       the drone is put into DFU mode by hand
  cfdfu identify                      its board, bootloader and firmware
  cfdfu backup mine.bin               copy the whole flash to a file
  cfdfu inspect firmware-cf2-2026.08.zip
  cfdfu restore-bootloader cf2loader-1.0.bin --firmware cf2-2026.08.bin";

pub(super) const EXIT_STATUS: &str = "\
Exit status:
  0   done                            70  a defect of cfdfu
  1   verify: not the same            73  output file
  2   usage                           74  device failed
  65  image refused                   75  interrupted, may be repeated
  66  image unreadable                76  --require-boot: not seen running
  69  no device, or several           77  no permission";

const FLASH_EXAMPLES: &str = "\
Examples:
  cfdfu flash cf2-2026.08.bin            running: it enters DFU mode by itself
  cfdfu flash build/cf2.elf --wait 60    a drone that does not start: by hand
  cfdfu flash cf2.bin --device 1-1.2     one of several, by port or serial
  cfdfu flash cf2.bin --json | tail -1   how it went, for scripts";

const RESTORE_EXAMPLES: &str = "\
Examples:
  cfdfu restore-bootloader cf2loader-1.0.bin
  cfdfu restore-bootloader cf2loader-1.0.bin --firmware cf2-2026.08.bin
  cfdfu restore-bootloader mine.bin      a backup of the whole flash";

const IDENTIFY_NOTE: &str = "\
All of it is read in DFU mode. A running drone is only asked what it runs, and
is not restarted.";

const UNDO_NOTE: &str = "\
A flash keeps a copy of what it overwrites, for each drone, unless it is told
--no-undo. An undo is a flash, too: a second one puts back what the first took.";

const SIMULATE_NOTE: &str = "\
On Linux's virtual USB controller (modprobe vhci_hcd), where lsusb and dfu-util
see it, too. Orders come on standard input: unplug, plug, dfu (plug in with the
button held), quit.";

/// Options that every command takes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Everywhere")]
pub(super) struct Global {
    /// Use the built-in simulated Crazyflie; --demo=help lists scenarios
    #[allow(clippy::option_option, reason = "not given, given alone, given with a name")]
    #[arg(long, global = true, value_name = "SCENARIO", num_args = 0..=1, require_equals = true)]
    #[arg(value_parser = scenarios(Some(DEMO_HELP)), hide_possible_values = true)]
    pub(super) demo: Option<Option<String>>,
    /// The interface in lines, without a full screen
    #[arg(long, global = true)]
    pub(super) plain: bool,
    /// Which drone: serial number, or port as in 1-1.2
    #[arg(long, global = true, value_name = "SEL", value_parser = parse_selector)]
    pub(super) device: Option<Selector>,
    /// One JSON object per line on stdout
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(super) color: ColorChoice,
    /// Append a log with times to this file
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) log_file: Option<PathBuf>,
    /// Say more; twice: every USB transfer
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// Let the demo's clock run ahead instead of waiting (for tests)
    #[arg(long, global = true, hide = true)]
    pub(super) demo_fast: bool,
}

/// Options about finding the device.
#[derive(Debug, clap::Args)]
pub(super) struct DeviceArgs {
    /// Wait up to this long for the drone to appear
    #[arg(long, value_name = "SECS", default_value_t = 0, hide_default_value = true)]
    pub(super) wait: u64,
    /// Do not ask a running Crazyflie to enter DFU mode
    #[arg(long)]
    pub(super) no_enter: bool,
}

/// Options about writing.
#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch on the command line")]
pub(super) struct FlashArgs {
    /// Where to write, not where the image is linked for
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    pub(super) address: Option<Address>,
    /// Do not read back what was written
    #[arg(long)]
    pub(super) no_verify: bool,
    /// Leave the drone in DFU mode
    #[arg(long)]
    pub(super) no_leave: bool,
    /// Write every sector, also where the image is already
    #[arg(long)]
    pub(super) full: bool,
    /// Do not read and keep what is overwritten: no undo, and no warning of another platform
    #[arg(long)]
    pub(super) no_undo: bool,
    /// Take an image or a chip that is not recognised
    #[arg(long)]
    pub(super) allow_mismatch: bool,
    /// Program byte by byte, as the boot ROM starts (slower)
    #[arg(long)]
    pub(super) byte_mode: bool,
    /// Fail (76) if the drone is not seen running and staying up
    #[arg(long, conflicts_with = "no_leave")]
    pub(super) require_boot: bool,
    /// Start the drone by a reset, for a boot ROM that leaves it dark (not tried on a real drone yet)
    #[arg(long, hide = true, conflicts_with = "no_leave")]
    pub(super) leave_by_reset: bool,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum CliCommand {
    /// Flash a firmware; a running drone is sent into DFU mode
    #[command(after_help = FLASH_EXAMPLES)]
    Flash {
        /// The image: .bin, .dfu, .hex, .elf, a release .zip; - reads stdin
        #[arg(required = true)]
        image: Option<PathBuf>,
        /// The SHA-256 that the file must have, as published
        #[arg(long, value_name = "HEX")]
        sha256: Option<Sha256>,
        #[command(flatten)]
        flash: FlashArgs,
    },
    /// Put the Bitcraze bootloader back, and a firmware with it
    #[command(after_help = RESTORE_EXAMPLES)]
    RestoreBootloader {
        /// The bootloader (cf2loader-1.0.bin), or a backup of the whole flash
        #[arg(required = true)]
        loader: Option<PathBuf>,
        /// A firmware to flash in the same job
        #[arg(long, value_name = "IMAGE")]
        firmware: Option<PathBuf>,
        #[command(flatten)]
        flash: FlashArgs,
    },
    /// Crazyflies and DFU devices, one line each
    List,
    /// Board, bootloader, firmware, protection of a drone
    #[command(after_help = IDENTIFY_NOTE)]
    Identify {
        /// Wait up to this long for the drone to appear
        #[arg(long, value_name = "SECS", default_value_t = 0, hide_default_value = true)]
        wait: u64,
    },
    /// What a file is: kind, version, boards, address, size
    Inspect {
        /// The image
        image: PathBuf,
    },
    /// Copy the whole flash (1 MiB) to a file
    Backup {
        /// The file to write
        file: PathBuf,
        /// Replace the file if it exists
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Put back what the last flash overwrote; again: redo
    #[command(after_help = UNDO_NOTE)]
    Undo {
        /// Put back also a bootloader that was not Bitcraze's
        #[arg(long)]
        allow_mismatch: bool,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Compare the flash with an image
    Verify {
        /// The image
        image: PathBuf,
        /// Where to look instead of where the image is linked for
        #[arg(long, value_name = "ADDR", value_parser = parse_address)]
        address: Option<Address>,
        #[command(flatten)]
        device: DeviceArgs,
    },
    /// Why no drone is found or opened: cable, rights, drivers
    Doctor,
    /// Print, check or install the udev rules
    Udev {
        /// Put them into /etc/udev/rules.d instead (as root)
        #[arg(long)]
        install: bool,
        /// Tell which rules there are, and whether they let you
        #[arg(long, conflicts_with = "install")]
        check: bool,
    },
    /// Print the completions of a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
    /// Plug a simulated Crazyflie into this computer (as root)
    #[command(after_help = SIMULATE_NOTE)]
    Simulate {
        /// What to simulate; --demo=help describes each
        #[arg(value_parser = scenarios(None), hide_possible_values = true)]
        scenario: Option<String>,
    },
    /// Write a synthetic image, to try cfdfu without a real one
    #[command(hide = true)]
    DemoImage {
        /// The file to write
        file: PathBuf,
        /// What to write
        #[arg(long, value_enum, default_value = "firmware")]
        kind: DemoKind,
        /// The version that a firmware names
        #[arg(long, default_value = images::VERSION, value_parser = parse_version)]
        version: String,
        /// The size of a firmware in bytes
        #[arg(long, default_value_t = images::FIRMWARE_LEN, value_parser = parse_size)]
        size: usize,
        /// Replace the file if it exists
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

/// The scenario that lists the others.
pub(super) const DEMO_HELP: &str = "help";

/// The names of the scenarios, with what each is: for the check of what was typed, and for completions.
fn scenarios(more: Option<&'static str>) -> PossibleValuesParser {
    let more = more.map(|name| PossibleValue::new(name).help("list the scenarios"));
    let named = SCENARIOS.iter().map(|scenario| PossibleValue::new(scenario.name).help(scenario.what));
    named.chain(more).collect::<Vec<_>>().into()
}

fn parse_address(text: &str) -> Result<Address, String> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let number = match digits {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map(Address).map_err(|_| "an address is written like 0x08004000".to_owned())
}

fn parse_size(text: &str) -> Result<usize, String> {
    let size = text.parse().map_err(|_| "a number of bytes".to_owned())?;
    if (4096..=1_032_192).contains(&size) { Ok(size) } else { Err("4096 to 1032192 bytes".to_owned()) }
}

fn parse_version(text: &str) -> Result<String, String> {
    if text.len() <= 40 && text.is_ascii() {
        Ok(text.to_owned())
    } else {
        Err("40 ASCII characters".to_owned())
    }
}

fn parse_selector(text: &str) -> Result<Selector, String> {
    if text.trim().is_empty() {
        return Err("a serial number, or a place such as 1-1.2".to_owned());
    }
    text.parse().map_err(|never: std::convert::Infallible| match never {})
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    /// A table that is wrapped is none.
    #[test]
    fn the_help_fits_80_columns() {
        let mut command = Args::command().term_width(80);
        command.build();
        for name in [None]
            .into_iter()
            .chain(command.clone().get_subcommands().map(|it| Some(it.get_name().to_owned())))
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
            assert!(command.is_hide_set() || !help.contains("see more with"), "{name:?} has two helps");
        }
    }

    #[test]
    fn an_address_is_hexadecimal_with_a_prefix() {
        assert_eq!(parse_address("0x08004000"), Ok(Address(0x0800_4000)));
        assert_eq!(parse_address("134234112"), Ok(Address(0x0800_4000)));
        for text in ["", "08004000h", "0x", "0x108004000", "-1", "0x0800_4000"] {
            assert!(parse_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn demo_takes_its_scenario_only_with_an_equals_sign() {
        let parse = |line: &str| Args::try_parse_from(line.split(' ')).unwrap().global.demo;
        assert_eq!(parse("cfdfu list --demo"), Some(None));
        assert_eq!(parse("cfdfu --demo list"), Some(None));
        assert_eq!(parse("cfdfu list --demo=slow"), Some(Some("slow".to_owned())));
        assert_eq!(parse("cfdfu list"), None);
    }
}
