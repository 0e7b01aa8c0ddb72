//! Diagnoses why cfdfu cannot find, open or flash a drone: turns facts about this computer, its USB devices and the
//! running drones into a checklist with a verdict for each check and a remedy where the user can do something. This
//! module does no I/O: `sys::symptoms` gathers the facts, and `cfdfu doctor` also queries the running drones.

use crate::crazyflie::console::{Health, RadioChip, SelfTest};
use crate::crazyflie::symptoms;
use crate::crazyflie::{ENTER_BY_HAND, ForeignLoader, RelatedDevice};
use crate::usb::{CRAZYFLIE, Id, ROM_DFU, times_on_one_wire};

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// A possible cause of a problem, now or later.
    Doubtful,
    Bad,
    /// The check could not be carried out.
    Unknown,
}

impl Verdict {
    /// Returns the name of the verdict in the output of `doctor --json`.
    pub(crate) fn json_name(self) -> &'static str {
        match self {
            Verdict::Good => "ok",
            Verdict::Doubtful => "doubtful",
            Verdict::Bad => "bad",
            Verdict::Unknown => "unknown",
        }
    }
}

/// A row of the checklist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    pub verdict: Verdict,
    pub found: String,
    /// What the user can do; empty if there is nothing to do.
    pub remedy: String,
}

/// The operating system, which determines what can block access to a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum System {
    #[default]
    Linux,
    /// Needs neither a driver nor permissions.
    Mac,
    /// Needs WinUSB, the driver that gives programs access to the device, for each USB ID separately.
    Windows,
    /// Any other system. cfdfu has only general advice for it.
    Other,
}

/// The facts about this computer that the checks evaluate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symptoms {
    pub system: System,
    /// The name or path of cfdfu, for use after `sudo`.
    pub program: String,
    /// The error if USB is not available.
    pub no_usb: Option<String>,
    /// The number of devices on USB.
    pub devices: usize,
    /// The Crazyflies and boot ROMs on USB.
    pub drones: Vec<SeenDrone>,
    /// The answers from the running Crazyflies.
    pub answers: Vec<Answers>,
    /// The related devices on USB, each with its port, as in `1-1.2`.
    pub others: Vec<(RelatedDevice, String)>,
    /// The external hubs that drones are plugged into.
    pub hubs: Vec<Hub>,
    /// For each USB bus with running Crazyflies: the bus number, and the number of running Crazyflies.
    pub running: Vec<(u8, usize)>,
    /// The udev rules for the running Crazyflie and for the boot ROM; `None` on a system without udev.
    pub rules: Option<[Vec<Rule>; 2]>,
    /// udev is running. Without it, the rules have no effect.
    pub udev: bool,
    /// The groups of this session.
    pub groups: Vec<String>,
    /// The groups that list this user in `/etc/group`. Groups that are missing from `groups` were
    /// joined after login.
    pub enrolled: Vec<String>,
    pub root: bool,
    /// This is an SSH session.
    pub ssh: bool,
    /// The kind of virtual machine or container that cfdfu runs in, if any.
    pub guest: Option<String>,
    /// The official releases kept on this computer; `None` if this build cannot fetch releases.
    pub releases: Option<KeptReleases>,
    /// The USB errors in the kernel log; `None` if the kernel log is not readable.
    pub kernel: Option<Vec<String>>,
}

/// The official releases that can be flashed without a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptReleases {
    /// The folder named in the settings; `None` for the default folder.
    pub folder: Option<String>,
    pub tags: Vec<String>,
}

/// A drone that was found on USB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenDrone {
    pub id: Id,
    /// The drone's port, as in `1-1.2`.
    pub place: String,
    /// Why the drone could not be opened: whether a permission is missing, and the error message.
    pub open_error: Option<(bool, String)>,
    /// Other processes that have the drone open, as in `dfu-util (process 7)`.
    pub holders: Vec<String>,
}

/// The answers from a running drone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// The drone's port, as in `1-1.2`.
    pub place: String,
    pub version: Option<String>,
    pub board: Option<String>,
    pub health: Health,
}

/// A hub that drones are plugged into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hub {
    /// The hub's port, as in `1-1`.
    pub place: String,
    pub drones: usize,
    /// Whether the hub has its own power supply, according to its descriptor; `None` if unknown.
    pub is_self_powered: Option<bool>,
    /// The number of times that the hub switched off a port because the port drew too much current.
    pub over_current: u32,
}

/// A udev rule for the running Crazyflie or for the boot ROM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub file: String,
    /// The group that the rule gives access to.
    pub group: Option<String>,
    /// The rule gives access to the locally logged-in user.
    pub uaccess: bool,
    /// The rule gives access to every user.
    pub all_users: bool,
}

/// Returns the checklist: USB and the drones first, then this computer.
pub fn diagnose(symptoms: &Symptoms) -> Vec<Check> {
    let mut checks = vec![check_usb(symptoms), check_drones(symptoms)];
    checks.extend(symptoms.drones.iter().map(|drone| check_access(drone, symptoms)));
    checks.extend(symptoms.answers.iter().map(check_firmware));
    checks.extend(symptoms.hubs.iter().filter_map(check_hub));
    checks.extend(symptoms.running.iter().filter_map(|(bus, running)| check_controller(*bus, *running)));
    checks.extend(check_udev(symptoms));
    checks.extend(check_guest(symptoms));
    checks.extend((symptoms.system == System::Linux).then(|| check_kernel_log(symptoms)));
    checks.extend(symptoms.releases.as_ref().map(check_releases));
    checks
}

/// Checks the udev rules for the running Crazyflie and for the boot ROM, and whether udev is running.
pub(crate) fn check_udev(symptoms: &Symptoms) -> Vec<Check> {
    let checks =
        [CRAZYFLIE, ROM_DFU].map(|id| check_rules(id, symptoms)).into_iter().collect::<Option<Vec<_>>>();
    let Some(mut checks) = checks else { return Vec::new() };
    if !symptoms.udev && !symptoms.root {
        checks.push(check(
            "udev",
            Verdict::Doubtful,
            "udev is not running, so the rules have no effect",
            "In a container, install the rules on the host, which controls the permissions.",
        ));
    }
    checks
}

fn check(name: &'static str, verdict: Verdict, found: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { name, verdict, found: found.into(), remedy: remedy.into() }
}

/// Reports which releases can be flashed without a network.
fn check_releases(kept: &KeptReleases) -> Check {
    let (found, remedy) = match (&kept.tags[..], &kept.folder) {
        ([], None) => (
            "none are saved on this computer".to_owned(),
            "To work without a network, run `cfdfu fetch latest --board all` while you have one.".to_owned(),
        ),
        ([], Some(folder)) => (
            format!("none in the folder {folder} from the settings"),
            format!("Run `cfdfu fetch latest --board all --to {folder}` when you have a network."),
        ),
        (tags, _) => (format!("{} can be flashed without a network", tags.join(", ")), String::new()),
    };
    check("releases", Verdict::Good, found, remedy)
}

fn check_usb(symptoms: &Symptoms) -> Check {
    match &symptoms.no_usb {
        Some(why) => check(
            "USB",
            Verdict::Bad,
            why.clone(),
            "Run cfdfu on the computer that the drone is plugged into. A container needs `--device /dev/bus/usb`.",
        ),
        None => check(
            "USB",
            Verdict::Good,
            format!("{} device{} found", symptoms.devices, if symptoms.devices == 1 { "" } else { "s" }),
            "",
        ),
    }
}

fn check_drones(symptoms: &Symptoms) -> Check {
    let cable = format!(
        "Plug the Crazyflie in without a hub, with a cable that carries data (a charging cable does not). If its LEDs do \
         not change, enter DFU mode by hand: {ENTER_BY_HAND}. If it does not appear in DFU mode either, take the decks \
         off: a deck that sends data may keep the drone off USB."
    );
    let others = symptoms.others.iter().map(|(what, place)| format!("{what} on port {place}"));
    let others = others.collect::<Vec<_>>().join(", ");
    match &symptoms.drones[..] {
        [] if others.is_empty() => {
            check("drone", Verdict::Bad, "no Crazyflie found, neither running nor in DFU mode", cable)
        }
        [] => {
            let foreign = symptoms.others.iter().find_map(|(what, _)| what.foreign());
            let meaning = foreign.map_or(
                "cfdfu needs a Crazyflie that is running or in DFU mode.".to_owned(),
                ForeignLoader::meaning,
            );
            let found = format!("no Crazyflie found, only {others}");
            check("drone", Verdict::Bad, found, format!("{meaning} {cable}"))
        }
        drones => {
            let name = |drone: &SeenDrone| {
                let mode = if drone.id == ROM_DFU { "a boot ROM in DFU mode" } else { "a running Crazyflie" };
                format!("{mode} ({}) on port {}", drone.id, drone.place)
            };
            let mut names: Vec<String> = drones.iter().map(name).collect();
            names.extend((!others.is_empty()).then(|| format!("and also {others}")));
            check("drone", Verdict::Good, names.join(", "), "")
        }
    }
}

fn check_access(drone: &SeenDrone, symptoms: &Symptoms) -> Check {
    let holders = drone.holders.join(", ");
    let close_holders = || format!("Close every other program that is using the drone: {holders}.");
    let Some((permission, why)) = &drone.open_error else {
        let found = format!("{} on port {}", drone.id, drone.place);
        if drone.holders.is_empty() {
            return check("opens", Verdict::Good, found, "");
        }
        return check("opens", Verdict::Doubtful, found, close_holders());
    };
    let found = format!("cannot open {} on port {}: {why}", drone.id, drone.place);
    let remedy = match symptoms.system {
        _ if !drone.holders.is_empty() && !permission => close_holders(),
        System::Windows => driver_remedy(drone.id).to_owned(),
        System::Linux if *permission && symptoms.root => "A container or another security module denies access to the \
            device. Allow it there."
            .to_owned(),
        System::Linux if *permission => match check_rules(drone.id, symptoms) {
            None => format!("This system has no udev. Run cfdfu as root: `sudo {}`.", symptoms.program),
            Some(rules) if rules.verdict == Verdict::Good => "The rules below give you access, but they were not applied \
                when the drone was plugged in. Run `sudo udevadm control --reload`, then unplug the drone and plug it in \
                again."
                .to_owned(),
            Some(rules) => rules.remedy,
        },
        _ => "Close any program that may be using the drone (cfclient, a virtual machine), then unplug the drone and \
            plug it in again."
            .to_owned(),
    };
    check("opens", Verdict::Bad, found, remedy)
}

/// Checks a running drone. A problem makes the verdict doubtful, not bad, because the drone can still be flashed.
fn check_firmware(answers: &Answers) -> Check {
    let Answers { place, version, board, health } = answers;
    let Some(version) = version else {
        let found = format!("the drone on port {place} does not answer");
        let remedy = "Close any program that is using the drone, such as cfclient. If both blue LEDs stay lit, the \
            firmware has hung: take the decks off, and switch the drone off and on.";
        return check("firmware", Verdict::Doubtful, found, remedy);
    };
    let board = board.as_deref().unwrap_or("the drone");
    let mut facts = vec![format!("{board} on port {place} runs {version}")];
    facts.extend(symptoms::rows(health).into_iter().map(|(label, text)| match label {
        "details" => text,
        "last error" | "decks" => format!("{label}: {text}"),
        _ => format!("{label} {text}"),
    }));
    let found = facts.join("; ");
    let remedy = match &health.self_test {
        Some(SelfTest::Failed(_)) => health.failed_module().map_or("", symptoms::remedy),
        Some(SelfTest::NotYet) => {
            "Take the decks off, and switch the drone off and on. Then run `cfdfu doctor` to see which part fails."
        }
        _ if health.radio_chip == RadioChip::Silent => {
            "If the drone does not connect over radio, start its radio bootloader (switch it on by holding its button for \
             1.5 to 5 s), and update the radio chip with cfclient."
        }
        _ => return check("firmware", Verdict::Good, found, ""),
    };
    check("firmware", Verdict::Doubtful, found, remedy)
}

/// Returns instructions for giving programs access to the device on Windows. libusb 1.0 needs WinUSB and cannot open a
/// device that uses ST's own driver or libusb-win32.
fn driver_remedy(id: Id) -> &'static str {
    if id == ROM_DFU {
        "Its driver is probably not WinUSB. Run Zadig (zadig.akeo.ie), choose Options > List All Devices, select \
         `STM32  BOOTLOADER` and the WinUSB driver, and click Replace Driver. Then plug the drone in again."
    } else {
        "Its driver is probably not WinUSB. Enter DFU mode by hand instead: the drone is then a different USB device. \
         Or run Zadig (zadig.akeo.ie), choose Options > List All Devices, select interface 0 of the Crazyflie and the \
         WinUSB driver, and click Replace Driver. cfclient can then no longer reach the drone over USB."
    }
}

/// Returns the command that installs the rules. Because sudo searches only the system directories, `program` may be a
/// path.
fn install_command(symptoms: &Symptoms) -> String {
    format!("`sudo {} udev --install`", symptoms.program)
}

/// Checks whether the installed rules give this user access to the device. Returns `None` without udev.
fn check_rules(id: Id, symptoms: &Symptoms) -> Option<Check> {
    let [running, dfu] = symptoms.rules.as_ref()?;
    let (name, rules) = if id == ROM_DFU { ("rules, DFU mode", dfu) } else { ("rules, running", running) };
    let install = || format!("Run {}, then plug the drone in again.", install_command(symptoms));
    let files = rules.iter().map(|rule| rule.file.as_str()).collect::<Vec<_>>().join(", ");
    let in_group = |rule: &Rule| rule.group.as_ref().is_some_and(|group| symptoms.groups.contains(group));
    if symptoms.root {
        return Some(check(name, Verdict::Good, "not needed as root", ""));
    }
    if rules.is_empty() {
        return Some(check(name, Verdict::Bad, format!("none for {id}"), install()));
    }
    if rules.iter().any(|rule| rule.all_users || in_group(rule)) {
        return Some(check(name, Verdict::Good, files, ""));
    }
    let uaccess = rules.iter().any(|rule| rule.uaccess);
    if uaccess && !symptoms.ssh {
        return Some(check(name, Verdict::Good, format!("{files}, for the locally logged-in user"), ""));
    }
    let group = rules.iter().find_map(|rule| rule.group.clone());
    let remedy = match group {
        Some(group) if symptoms.enrolled.contains(&group) => {
            format!("You joined the {group} group after you logged in: log in again.")
        }
        Some(group) => format!("Run `sudo usermod -a -G {group} $USER`, then log in again."),
        None if uaccess => {
            format!(
                "The rule gives access only to the locally logged-in user (uaccess), not over SSH. {}",
                install()
            )
        }
        None => install(),
    };
    Some(check(name, Verdict::Bad, format!("{files}, but no rule gives you access"), remedy))
}

/// The current that a drone may draw while it charges its battery, in amperes (crazyflie2-nrf-firmware, `pm.c`).
const CHARGING_CURRENT: f64 = 0.5;
/// With this many running Crazyflies or more, some USB controllers run out of endpoints: Intel's have 96, a running
/// Crazyflie needs six, and hubs and other devices share the rest.
const MANY_RUNNING: usize = 15;

/// Checks the power supply and the speed of a hub that drones are plugged into.
fn check_hub(hub: &Hub) -> Option<Check> {
    let Hub { place, drones, is_self_powered, over_current } = hub;
    let counted = format!("{drones} drone{} on hub {place}", if *drones == 1 { "" } else { "s" });
    if *over_current > 0 {
        let times = if *over_current == 1 { "once".to_owned() } else { format!("{over_current} times") };
        return Some(check(
            "hub",
            Verdict::Bad,
            format!("{counted}, which has switched off a port {times} for drawing too much current"),
            "Use a hub with a stronger power supply, or plug fewer drones into this hub. Charge the batteries first.",
        ));
    }
    if *is_self_powered == Some(false) && *drones > 1 {
        return Some(check(
            "hub",
            Verdict::Doubtful,
            format!("{counted}, which has no power supply plugged in"),
            format!(
                "Plug in the hub's power supply: together the drones may draw {:.1} A while they charge.",
                f64::from(u32::try_from(*drones).unwrap_or(u32::MAX)) * CHARGING_CURRENT
            ),
        ));
    }
    times_on_one_wire(*drones).map(|times| {
        check(
            "hub",
            Verdict::Good,
            format!(
                "{counted} share one full-speed link: together they take about {times:.1} times as long as one"
            ),
            "Plug some drones into a hub that does not share this link.",
        )
    })
}

/// Warns if the USB controller may have too few endpoints for this many running drones.
fn check_controller(bus: u8, running: usize) -> Option<Check> {
    (running >= MANY_RUNNING).then(|| {
        check(
            "controller",
            Verdict::Doubtful,
            format!("{running} running drones on USB bus {bus}"),
            "Some controllers support only about 15 running drones. If further drones do not appear, plug them into \
             another controller, or flash them later.",
        )
    })
}

fn check_guest(symptoms: &Symptoms) -> Option<Check> {
    let guest = symptoms.guest.as_ref()?;
    let remedy = if guest == "WSL" {
        "Attach the drone with `usbipd attach --wsl --busid …`, once for 0483:5740 and once for 0483:df11."
    } else {
        "Pass through both 0483:5740 and 0483:df11: in DFU mode, the drone is a different USB device."
    };
    let verdict = if symptoms.drones.is_empty() { Verdict::Doubtful } else { Verdict::Good };
    Some(check("this computer", verdict, format!("cfdfu is running in {guest}"), remedy))
}

fn check_kernel_log(symptoms: &Symptoms) -> Check {
    match &symptoms.kernel {
        None => check(
            "kernel",
            Verdict::Unknown,
            "kernel log not readable",
            "Run `sudo dmesg | grep usb` to read it.",
        ),
        Some(lines) if lines.is_empty() => {
            check("kernel", Verdict::Good, "no USB errors in the kernel log", "")
        }
        Some(lines) => {
            let line = lines.last().cloned().unwrap_or_default();
            let remedy = match line.as_str() {
                line if line.contains("Not enough host controller resources") => {
                    "The USB controller has no room for another device. Some controllers support only about 15 running \
                     drones. Plug the remaining drones into another controller, or flash them later."
                }
                line if line.contains("over-current") => {
                    "A port drew too much current. Use a hub with a stronger power supply."
                }
                _ => {
                    "A device did not answer when it was plugged in. Try another cable or another port, without a hub."
                }
            };
            check("kernel", Verdict::Doubtful, line, remedy)
        }
    }
}

/// The rules that `cfdfu udev` prints or installs. They give access to the plugdev group and to the locally logged-in
/// user.
pub(crate) const UDEV_RULES: &str = "\
# Bitcraze Crazyflie: running, and in DFU mode (the boot ROM of its STM32). Written by cfdfu.
SUBSYSTEM==\"usb\", ATTRS{idVendor}==\"0483\", ATTRS{idProduct}==\"5740\", MODE=\"0664\", GROUP=\"plugdev\", TAG+=\"uaccess\"
# ModemManager opens each new serial port. On a Crazyflie, this switches the firmware to pass-through.
ATTRS{idVendor}==\"0483\", ATTRS{idProduct}==\"5740\", ENV{ID_MM_DEVICE_IGNORE}=\"1\"
SUBSYSTEM==\"usb\", ATTRS{idVendor}==\"0483\", ATTRS{idProduct}==\"df11\", MODE=\"0664\", GROUP=\"plugdev\", TAG+=\"uaccess\"
";

/// Parses a rules file. Returns the rules for the running Crazyflie and the rules for the boot ROM.
pub(crate) fn parse_rules(file: &str, text: &str) -> [Vec<Rule>; 2] {
    let mut found = [Vec::new(), Vec::new()];
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let value = |key: &str| {
            let rest = &line[line.find(key)? + key.len()..];
            let rest = rest.trim_start_matches(['=', '+', ':']).strip_prefix('"')?;
            rest.split('"').next()
        };
        let is = |key: &str, wanted: &str| value(key).is_some_and(|it| it.eq_ignore_ascii_case(wanted));
        // A rule for ModemManager does not give access to the device.
        if !is("{idVendor}", "0483") || line.contains("ID_MM_DEVICE_IGNORE") {
            continue;
        }
        let mode = value("MODE").and_then(|mode| u32::from_str_radix(mode, 8).ok()).unwrap_or(0);
        let rule = Rule {
            file: file.to_owned(),
            group: value("GROUP").filter(|_| mode & 0o060 == 0o060).map(str::to_owned),
            // systemd's 73-seat-late.rules acts on the tag, so a file that sorts after it sets the tag too late.
            uaccess: line.contains("\"uaccess\"") && file < "73",
            all_users: mode & 0o006 == 0o006,
        };
        for (product, rules) in ["5740", "df11"].iter().zip(&mut found) {
            if value("{idProduct}").is_none() || is("{idProduct}", product) {
                rules.push(rule.clone());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crazyflie::FOREIGN_LOADERS;
    use crate::crazyflie::console::ConsoleLine;

    fn verdict(symptoms: &Symptoms, name: &str) -> (Verdict, String) {
        let checks = diagnose(symptoms);
        let check = checks.iter().find(|check| check.name == name).unwrap();
        (check.verdict, format!("{} {}", check.found, check.remedy))
    }

    fn with_rules(text: &str) -> Symptoms {
        let rules = Some(parse_rules("70-x.rules", text));
        Symptoms { devices: 3, rules, udev: true, ..Symptoms::default() }
    }

    #[test]
    fn the_printed_rules_are_recognised_and_give_access() {
        let mut symptoms = with_rules(UDEV_RULES);
        assert_eq!(verdict(&symptoms, "rules, running").0, Verdict::Good);
        assert_eq!(verdict(&symptoms, "rules, DFU mode").0, Verdict::Good);
        // Over SSH, only the group counts.
        symptoms.ssh = true;
        let (bad, text) = verdict(&symptoms, "rules, DFU mode");
        assert!(bad == Verdict::Bad && text.contains("usermod -a -G plugdev"), "{text}");
        symptoms.enrolled = vec!["plugdev".to_owned()];
        assert!(verdict(&symptoms, "rules, DFU mode").1.contains("log in again"));
        symptoms.groups = vec!["plugdev".to_owned()];
        assert_eq!(verdict(&symptoms, "rules, DFU mode").0, Verdict::Good);
        // The rules give access but the device cannot be opened: it was plugged in before the rules were installed.
        let open_error = Some((true, "no permission".to_owned()));
        symptoms.drones =
            vec![SeenDrone { id: ROM_DFU, place: "1-1".to_owned(), open_error, holders: vec![] }];
        assert!(verdict(&symptoms, "opens").1.contains("udevadm control --reload"));
        symptoms.udev = false;
        assert!(verdict(&symptoms, "udev").1.contains("the rules have no effect"));
    }

    #[test]
    fn only_windows_needs_a_driver() {
        let drone = |id| SeenDrone {
            id,
            place: "1-1".to_owned(),
            open_error: Some((false, "no".to_owned())),
            holders: vec![],
        };
        let on = |system, id| Symptoms { system, devices: 2, drones: vec![drone(id)], ..Symptoms::default() };
        assert!(verdict(&on(System::Windows, ROM_DFU), "opens").1.contains("`STM32  BOOTLOADER` and"));
        assert!(verdict(&on(System::Windows, CRAZYFLIE), "opens").1.contains("interface 0"));
        for system in [System::Mac, System::Linux, System::Other] {
            let text = verdict(&on(system, ROM_DFU), "opens").1;
            assert!(!text.contains("WinUSB") && text.contains("plug it in again"), "{text}");
        }
        assert!(diagnose(&on(System::Mac, ROM_DFU)).iter().all(|check| check.name != "kernel"));
    }

    /// Bitcraze's own rules do not cover DFU mode; the rules in Debian's dfu-util package cover only DFU mode.
    #[test]
    fn rules_for_the_running_drone_and_for_dfu_mode_are_checked_separately() {
        let bitcraze = r#"SUBSYSTEM=="usb", ATTRS{idVendor}=="0483", ATTRS{idProduct}=="5740", MODE="0664", GROUP="plugdev""#;
        let dfu_util = r#"ACTION=="add", SUBSYSTEM=="usb", ATTRS{idVendor}=="0483", ATTRS{idProduct}=="df11", TAG+="uaccess""#;
        let mut symptoms = with_rules(bitcraze);
        symptoms.groups = vec!["plugdev".to_owned()];
        assert_eq!(verdict(&symptoms, "rules, running").0, Verdict::Good);
        assert_eq!(verdict(&symptoms, "rules, DFU mode").0, Verdict::Bad);
        let mut symptoms = with_rules(dfu_util);
        assert_eq!(verdict(&symptoms, "rules, DFU mode").0, Verdict::Good);
        symptoms.ssh = true;
        let (bad, text) = verdict(&symptoms, "rules, DFU mode");
        assert!(bad == Verdict::Bad && text.contains("not over SSH"), "{text}");
        // A file that sorts after 73-seat-late.rules sets the tag too late.
        let late = Some(parse_rules("99-x.rules", dfu_util));
        assert_eq!(
            verdict(&Symptoms { rules: late, ..Symptoms::default() }, "rules, DFU mode").0,
            Verdict::Bad
        );
        // A rule with only the vendor's ID covers both devices.
        let both = with_rules(r#"SUBSYSTEM=="usb", ATTRS{idVendor}=="0483", MODE="0666""#);
        assert_eq!(verdict(&both, "rules, running").0, Verdict::Good);
        let commented = with_rules(&format!("#{bitcraze}"));
        assert_eq!(verdict(&commented, "rules, running").0, Verdict::Bad);
    }

    #[test]
    fn each_cause_has_its_own_remedy() {
        let none = Symptoms { no_usb: Some("no backend".to_owned()), ..Symptoms::default() };
        assert!(verdict(&none, "USB").1.contains("that the drone is plugged into"));
        let empty = Symptoms { devices: 2, ..Symptoms::default() };
        assert!(verdict(&empty, "drone").1.contains("cable that carries data"));
        let only = |related| Symptoms { others: vec![(related, "1-2".to_owned())], ..empty.clone() };
        assert!(verdict(&only(RelatedDevice::Crazyradio), "drone").1.contains("running or in DFU mode"));
        let clone = only(RelatedDevice::Foreign(&FOREIGN_LOADERS[0]));
        assert!(verdict(&clone, "drone").1.contains("cfdfu does not write to it"));
        let drone = |open_error, holders| Symptoms {
            drones: vec![SeenDrone { id: ROM_DFU, place: "1-1".to_owned(), open_error, holders }],
            ..empty.clone()
        };
        assert_eq!(verdict(&drone(None, vec![]), "opens").0, Verdict::Good);
        let both = Symptoms { others: clone.others, ..drone(None, vec![]) };
        let found = diagnose(&both).into_iter().find(|check| check.name == "drone").unwrap();
        assert!(found.verdict == Verdict::Good && found.found.contains("GD32 in DFU mode on port 1-2"));
        // The remedy for a drone that cannot be opened is the remedy for the rules.
        let denied = drone(Some((true, "no permission".to_owned())), vec![]);
        assert!(verdict(&denied, "opens").1.contains("as root"));
        let root = Symptoms { root: true, ..denied.clone() };
        assert!(verdict(&root, "opens").1.contains("container"));
        let with_rules = |dfu| Symptoms { rules: Some([vec![], dfu]), ..denied.clone() };
        assert!(verdict(&with_rules(vec![]), "opens").1.contains("udev --install"));
        let group = Some("plugdev".to_owned());
        let rule = Rule { file: "70.rules".to_owned(), group, all_users: false, uaccess: false };
        assert!(verdict(&with_rules(vec![rule.clone()]), "opens").1.contains("usermod -a -G plugdev"));
        assert!(
            verdict(&with_rules(vec![Rule { all_users: true, ..rule }]), "opens").1.contains("not applied")
        );
        let held = drone(Some((false, "busy".to_owned())), vec!["dfu-util (process 7)".to_owned()]);
        assert!(verdict(&held, "opens").1.contains("is using the drone: dfu-util (process 7)"));
        let wsl = Symptoms { guest: Some("WSL".to_owned()), ..empty.clone() };
        assert!(verdict(&wsl, "this computer").1.contains("usbipd"));
        let kernel = |line: &str| Symptoms { kernel: Some(vec![line.to_owned()]), ..empty.clone() };
        assert!(verdict(&kernel("usb 1-1: unable to enumerate"), "kernel").1.contains("another cable"));
        let full = "xhci_hcd 0000:00:14.0: Not enough host controller resources for new device state.";
        assert!(verdict(&kernel(full), "kernel").1.contains("another controller"));
    }

    #[test]
    fn a_running_drone_is_judged_by_what_it_reports() {
        let health = |lines: &[&str]| {
            let mut health = Health::default();
            for line in lines {
                health.read(&ConsoleLine { text: (*line).to_owned(), cut: false });
            }
            health
        };
        let with = |version: Option<&str>, health: Health| {
            let answers =
                Answers { place: "1-1".to_owned(), version: version.map(str::to_owned), board: None, health };
            Symptoms { answers: vec![answers], ..Symptoms::default() }
        };
        let healthy = health(&["SYS: Self test passed!", "SYS: NRF51 version: 2024.10"]);
        let (good, text) = verdict(&with(Some("2026.08"), healthy), "firmware");
        assert!(
            good == Verdict::Good && text.contains("runs 2026.08; self-test passed; radio chip 2024.10"),
            "{text}"
        );
        let (doubt, text) = verdict(&with(Some("2026.08"), health(&["SYS: storage [FAIL]"])), "firmware");
        assert!(doubt == Verdict::Doubtful && text.contains("EEPROM") && text.contains("cfclient"), "{text}");
        let (doubt, text) = verdict(&with(None, Health::default()), "firmware");
        assert!(doubt == Verdict::Doubtful && text.contains("does not answer"), "{text}");
    }

    #[test]
    fn a_hub_is_judged_by_its_power_supply_and_the_number_of_drones() {
        let with =
            |hub: Hub| Symptoms { hubs: vec![Hub { place: "1-1".to_owned(), ..hub }], ..Symptoms::default() };
        let weak = Hub { drones: 6, is_self_powered: Some(false), ..Hub::default() };
        let (doubt, text) = verdict(&with(weak.clone()), "hub");
        assert!(doubt == Verdict::Doubtful && text.contains("3.0 A"), "{text}");
        let (bad, text) = verdict(&with(Hub { over_current: 2, ..weak.clone() }), "hub");
        assert!(bad == Verdict::Bad && text.contains("2 times"), "{text}");
        let (good, text) =
            verdict(&with(Hub { is_self_powered: Some(true), drones: 16, ..weak.clone() }), "hub");
        assert!(good == Verdict::Good && text.contains("2.7 times as long as one"), "{text}");
        // A single drone on a hub without its own power supply is not reported.
        assert!(diagnose(&with(Hub { drones: 1, ..weak })).iter().all(|check| check.name != "hub"));
        let many = Symptoms { running: vec![(1, 14), (2, 15)], ..Symptoms::default() };
        assert!(verdict(&many, "controller").1.contains("USB bus 2"));
    }
}
