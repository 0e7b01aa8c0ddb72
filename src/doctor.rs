//! Why no drone is found, or none can be opened: what was found out about this computer becomes a check-list with
//! a verdict each, and the remedy. Pure: `sys::symptoms` gathers what is judged here.

use crate::crazyflie::{ENTER_BY_HAND, ForeignLoader, Relative};
use crate::usb::{CRAZYFLIE, Id, ROM_DFU};

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// It may be the reason, or become one.
    Doubtful,
    Bad,
    /// It could not be found out.
    Unknown,
}

impl Verdict {
    /// The word that `doctor --json` prints.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Verdict::Good => "ok",
            Verdict::Doubtful => "doubtful",
            Verdict::Bad => "bad",
            Verdict::Unknown => "unknown",
        }
    }
}

/// A row of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    pub verdict: Verdict,
    pub found: String,
    /// What helps; empty if nothing is to be done.
    pub remedy: String,
}

/// What this computer runs: on each, something else stands between a user and a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum System {
    #[default]
    Linux,
    /// No driver and no right is needed.
    Mac,
    /// Every device needs a driver that lets programs have it.
    Windows,
    /// Nothing is known of it.
    Other,
}

/// What was found out about this computer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symptoms {
    pub system: System,
    /// The program as root would call it.
    pub program: String,
    /// Why there is no USB, if there is none.
    pub no_usb: Option<String>,
    /// How many devices are on it.
    pub devices: usize,
    /// Crazyflies and boot ROMs that are seen.
    pub drones: Vec<SeenDrone>,
    /// Relatives of the Crazyflie, and the port of each, as in `1-1.2`.
    pub others: Vec<(Relative, String)>,
    /// Files with udev rules for the running Crazyflie and for the boot ROM; `None` where there is no udev.
    pub rules: Option<[Vec<Rule>; 2]>,
    /// Whether udev is at work, without which rules are only files.
    pub udev: bool,
    /// Groups that this session has.
    pub groups: Vec<String>,
    /// Groups that this user is in; those that are not in `groups`, too, came after the session began.
    pub enrolled: Vec<String>,
    pub root: bool,
    /// Whether somebody came over SSH.
    pub ssh: bool,
    /// What kind of virtual machine or container this is, if it is one.
    pub guest: Option<String>,
    /// What the kernel said of devices that it could not enumerate; `None` if it may not be read.
    pub kernel: Option<Vec<String>>,
}

/// A drone that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenDrone {
    pub id: Id,
    /// As in `1-1.2`.
    pub place: String,
    /// Why it could not be opened: whether for lack of permission, and the words.
    pub closed: Option<(bool, String)>,
    /// Who has it open: process and name.
    pub holders: Vec<String>,
}

/// A udev rule for one of the two numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub file: String,
    /// The group that it gives the device to.
    pub group: Option<String>,
    /// Whether it lets whoever sits at the computer.
    pub uaccess: bool,
    pub everybody: bool,
}

/// The check-list, in the order in which things must work.
pub fn diagnose(symptoms: &Symptoms) -> Vec<Check> {
    let mut checks = vec![usb(symptoms), drones(symptoms)];
    checks.extend(symptoms.drones.iter().map(|drone| opens(drone, symptoms)));
    checks.extend(rules(symptoms));
    checks.extend(guest(symptoms));
    checks.extend((symptoms.system == System::Linux).then(|| kernel(symptoms)));
    checks
}

/// The rows about udev: its rules for the running Crazyflie and for the boot ROM, and whether anybody reads them.
pub(crate) fn rules(symptoms: &Symptoms) -> Vec<Check> {
    let Some([running, dfu]) = &symptoms.rules else { return Vec::new() };
    let mut checks = vec![
        rule("rules, running", CRAZYFLIE, running, symptoms),
        rule("rules, DFU mode", ROM_DFU, dfu, symptoms),
    ];
    if !symptoms.udev && !symptoms.root {
        checks.push(check(
            "udev",
            Verdict::Doubtful,
            "it does not run here: nobody reads the rules",
            "In a container or a small system the host gives the rights: the rules belong there.",
        ));
    }
    checks
}

fn check(name: &'static str, verdict: Verdict, found: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { name, verdict, found: found.into(), remedy: remedy.into() }
}

fn usb(symptoms: &Symptoms) -> Check {
    match &symptoms.no_usb {
        Some(why) => check(
            "USB",
            Verdict::Bad,
            why.clone(),
            "Run cfdfu where the drone is plugged in. A container needs --device /dev/bus/usb.",
        ),
        None => check(
            "USB",
            Verdict::Good,
            format!("{} device{} on it", symptoms.devices, if symptoms.devices == 1 { "" } else { "s" }),
            "",
        ),
    }
}

fn drones(symptoms: &Symptoms) -> Check {
    let cable = format!(
        "Plug the Crazyflie in with a cable that carries data (a charging cable does not), straight into the computer. \
         If its LEDs stay as they are, put it into DFU mode by hand: {ENTER_BY_HAND}."
    );
    let others = symptoms.others.iter().map(|(what, place)| format!("{what} on port {place}"));
    let others = others.collect::<Vec<_>>().join(", ");
    match &symptoms.drones[..] {
        [] if others.is_empty() => {
            check("drone", Verdict::Bad, "no Crazyflie and no boot ROM is seen", cable)
        }
        [] => {
            let foreign = symptoms.others.iter().find_map(|(what, _)| what.foreign());
            let meaning = foreign.map_or("That is another device.".to_owned(), ForeignLoader::meaning);
            let found = format!("no Crazyflie is seen, but {others}");
            check("drone", Verdict::Bad, found, format!("{meaning} {cable}"))
        }
        drones => {
            let name = |drone: &SeenDrone| {
                let what = if drone.id == ROM_DFU { "a boot ROM in DFU mode" } else { "a running Crazyflie" };
                format!("{what} ({}) on port {}", drone.id, drone.place)
            };
            let mut names: Vec<String> = drones.iter().map(name).collect();
            names.extend((!others.is_empty()).then(|| format!("and beside it {others}")));
            check("drone", Verdict::Good, names.join(", "), "")
        }
    }
}

fn opens(drone: &SeenDrone, symptoms: &Symptoms) -> Check {
    let holders = drone.holders.join(", ");
    let Some((permission, why)) = &drone.closed else {
        let found = format!("{} on port {}", drone.id, drone.place);
        if drone.holders.is_empty() {
            return check("opens", Verdict::Good, found, "");
        }
        return check("opens", Verdict::Doubtful, found, format!("{holders} has it open, too: close that."));
    };
    let found = format!("{} on port {} does not: {why}", drone.id, drone.place);
    let remedy = match symptoms.system {
        _ if !drone.holders.is_empty() && !permission => format!("{holders} has it open: close that."),
        System::Windows => driver(drone.id).to_owned(),
        System::Linux if *permission && is_let(drone.id, symptoms) => "The rules below would let you, but they were not \
            asked when it was plugged in: `sudo udevadm control --reload`, then unplug it and plug it in again."
            .to_owned(),
        System::Linux if *permission => {
            format!("See the rules below: {}, then plug it in again.", install(symptoms))
        }
        _ => "Close what may have it open (cfclient, a virtual machine), unplug it, plug it in again.".to_owned(),
    };
    check("opens", Verdict::Bad, found, remedy)
}

/// How Windows lets a program have the device. ST's own driver and libusb-win32 do not, for libusb 1.0.
fn driver(id: Id) -> &'static str {
    if id == ROM_DFU {
        "It has another driver than WinUSB. Run Zadig (zadig.akeo.ie): Options, List All Devices, choose `STM32  \
         BOOTLOADER`, WinUSB, Replace Driver. Then plug it in again."
    } else {
        "It has another driver than WinUSB. Put it into DFU mode by hand instead, which is another device; or run Zadig \
         (zadig.akeo.ie): Options, List All Devices, choose interface 0 of the Crazyflie, WinUSB, Replace Driver (cfclient \
         then no longer reaches it by USB)."
    }
}

/// Whether a rule lets this user have the device.
fn is_let(id: Id, symptoms: &Symptoms) -> bool {
    let Some([running, dfu]) = &symptoms.rules else { return false };
    rule("", id, if id == ROM_DFU { dfu } else { running }, symptoms).verdict == Verdict::Good
}

/// The command as sudo finds it, which looks only into the system's folders.
fn install(symptoms: &Symptoms) -> String {
    format!("`sudo {} udev --install`", symptoms.program)
}

/// Whether this user gets a device with these rules.
fn rule(name: &'static str, id: Id, rules: &[Rule], symptoms: &Symptoms) -> Check {
    let install = || format!("{}, then plug the drone in again.", install(symptoms));
    let files = rules.iter().map(|rule| rule.file.as_str()).collect::<Vec<_>>().join(", ");
    let in_group = |rule: &Rule| rule.group.as_ref().is_some_and(|group| symptoms.groups.contains(group));
    if symptoms.root {
        return check(name, Verdict::Good, "root needs none", "");
    }
    if rules.is_empty() {
        return check(name, Verdict::Bad, format!("none for {id}"), install());
    }
    if rules.iter().any(|rule| rule.everybody || in_group(rule)) {
        return check(name, Verdict::Good, files, "");
    }
    let uaccess = rules.iter().any(|rule| rule.uaccess);
    if uaccess && !symptoms.ssh {
        return check(name, Verdict::Good, format!("{files}, for whoever sits here"), "");
    }
    let group = rules.iter().find_map(|rule| rule.group.clone());
    let remedy = match group {
        Some(group) if symptoms.enrolled.contains(&group) => {
            format!("You are in the group {group}, but were not when you logged in: log in again.")
        }
        Some(group) => format!("`sudo usermod -a -G {group} $USER`, then log in again."),
        None => {
            format!(
                "It lets only whoever sits at the computer (uaccess), not who comes over SSH. {}",
                install()
            )
        }
    };
    check(name, Verdict::Bad, format!("{files}, but not for you"), remedy)
}

fn guest(symptoms: &Symptoms) -> Option<Check> {
    let guest = symptoms.guest.as_ref()?;
    let remedy = if guest == "WSL" {
        "Attach the drone with usbipd (usbipd attach --wsl --busid …), once for 0483:5740 and once for 0483:df11."
    } else {
        "Pass both 0483:5740 and 0483:df11 through: in DFU mode the drone is another device."
    };
    let verdict = if symptoms.drones.is_empty() { Verdict::Doubtful } else { Verdict::Good };
    Some(check("this computer", verdict, format!("it runs in {guest}"), remedy))
}

fn kernel(symptoms: &Symptoms) -> Check {
    match &symptoms.kernel {
        None => check(
            "kernel",
            Verdict::Unknown,
            "its messages may not be read",
            "`sudo dmesg | grep usb` shows them.",
        ),
        Some(lines) if lines.is_empty() => {
            check("kernel", Verdict::Good, "it complains of no USB device", "")
        }
        Some(lines) => check(
            "kernel",
            Verdict::Doubtful,
            lines.last().cloned().unwrap_or_default(),
            "A device did not answer when it was plugged in: another cable, another port, no hub between.",
        ),
    }
}

/// The rules that let everybody in the group plugdev, and whoever sits at the computer, use a Crazyflie.
pub(crate) const UDEV_RULES: &str = "\
# Bitcraze Crazyflie: running, and in DFU mode (the boot ROM of its STM32). Written by cfdfu.
SUBSYSTEM==\"usb\", ATTRS{idVendor}==\"0483\", ATTRS{idProduct}==\"5740\", MODE=\"0664\", GROUP=\"plugdev\", TAG+=\"uaccess\"
SUBSYSTEM==\"usb\", ATTRS{idVendor}==\"0483\", ATTRS{idProduct}==\"df11\", MODE=\"0664\", GROUP=\"plugdev\", TAG+=\"uaccess\"
";

/// The rules in this text for the running Crazyflie and for the boot ROM.
pub(crate) fn rules_in(file: &str, text: &str) -> [Vec<Rule>; 2] {
    let mut found = [Vec::new(), Vec::new()];
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let value = |key: &str| {
            let rest = &line[line.find(key)? + key.len()..];
            let rest = rest.trim_start_matches(['=', '+', ':']).strip_prefix('"')?;
            rest.split('"').next()
        };
        let is = |key: &str, wanted: &str| value(key).is_some_and(|it| it.eq_ignore_ascii_case(wanted));
        if !is("{idVendor}", "0483") {
            continue;
        }
        let mode = value("MODE").and_then(|mode| u32::from_str_radix(mode, 8).ok()).unwrap_or(0);
        let rule = Rule {
            file: file.to_owned(),
            group: value("GROUP").filter(|_| mode & 0o060 == 0o060).map(str::to_owned),
            // systemd's 73-seat-late.rules acts on the tag: a file that comes after it sets it for nothing.
            uaccess: line.contains("\"uaccess\"") && file < "73",
            everybody: mode & 0o006 == 0o006,
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

    fn verdict(symptoms: &Symptoms, name: &str) -> (Verdict, String) {
        let checks = diagnose(symptoms);
        let check = checks.iter().find(|check| check.name == name).unwrap();
        (check.verdict, format!("{} {}", check.found, check.remedy))
    }

    fn with_rules(text: &str) -> Symptoms {
        let rules = Some(rules_in("70-x.rules", text));
        Symptoms { devices: 3, rules, udev: true, ..Symptoms::default() }
    }

    #[test]
    fn the_rules_that_are_printed_are_found_and_do() {
        let mut symptoms = with_rules(UDEV_RULES);
        assert_eq!(verdict(&symptoms, "rules, running").0, Verdict::Good);
        assert_eq!(verdict(&symptoms, "rules, DFU mode").0, Verdict::Good);
        // Over SSH it is the group that counts.
        symptoms.ssh = true;
        let (bad, words) = verdict(&symptoms, "rules, DFU mode");
        assert!(bad == Verdict::Bad && words.contains("usermod -a -G plugdev"), "{words}");
        symptoms.enrolled = vec!["plugdev".to_owned()];
        assert!(verdict(&symptoms, "rules, DFU mode").1.contains("log in again"));
        symptoms.groups = vec!["plugdev".to_owned()];
        assert_eq!(verdict(&symptoms, "rules, DFU mode").0, Verdict::Good);
        // Rules that let somebody, and a device that is closed all the same: they came after it.
        let closed = Some((true, "no permission".to_owned()));
        symptoms.drones = vec![SeenDrone { id: ROM_DFU, place: "1-1".to_owned(), closed, holders: vec![] }];
        assert!(verdict(&symptoms, "opens").1.contains("udevadm control --reload"));
        symptoms.udev = false;
        assert!(verdict(&symptoms, "udev").1.contains("nobody reads the rules"));
    }

    #[test]
    fn each_system_has_its_own_words() {
        let drone = |id| SeenDrone {
            id,
            place: "1-1".to_owned(),
            closed: Some((false, "no".to_owned())),
            holders: vec![],
        };
        let on = |system, id| Symptoms { system, devices: 2, drones: vec![drone(id)], ..Symptoms::default() };
        assert!(verdict(&on(System::Windows, ROM_DFU), "opens").1.contains("`STM32  BOOTLOADER`, WinUSB"));
        assert!(verdict(&on(System::Windows, CRAZYFLIE), "opens").1.contains("interface 0"));
        for system in [System::Mac, System::Linux, System::Other] {
            let words = verdict(&on(system, ROM_DFU), "opens").1;
            assert!(!words.contains("WinUSB") && words.contains("plug it in again"), "{words}");
        }
        assert!(diagnose(&on(System::Mac, ROM_DFU)).iter().all(|check| check.name != "kernel"));
    }

    /// Bitcraze's own rules have no DFU mode, those of Debian's dfu-util nothing else.
    #[test]
    fn the_two_numbers_are_told_apart() {
        let bitcraze = r#"SUBSYSTEM=="usb", ATTRS{idVendor}=="0483", ATTRS{idProduct}=="5740", MODE="0664", GROUP="plugdev""#;
        let dfu_util = r#"ACTION=="add", SUBSYSTEM=="usb", ATTRS{idVendor}=="0483", ATTRS{idProduct}=="df11", TAG+="uaccess""#;
        let mut symptoms = with_rules(bitcraze);
        symptoms.groups = vec!["plugdev".to_owned()];
        assert_eq!(verdict(&symptoms, "rules, running").0, Verdict::Good);
        assert_eq!(verdict(&symptoms, "rules, DFU mode").0, Verdict::Bad);
        let mut symptoms = with_rules(dfu_util);
        assert_eq!(verdict(&symptoms, "rules, DFU mode").0, Verdict::Good);
        symptoms.ssh = true;
        let (bad, words) = verdict(&symptoms, "rules, DFU mode");
        assert!(bad == Verdict::Bad && words.contains("not who comes over SSH"), "{words}");
        // Behind 73 the tag comes too late; a vendor's rule without a product is for both.
        let late = Some(rules_in("99-x.rules", dfu_util));
        assert_eq!(
            verdict(&Symptoms { rules: late, ..Symptoms::default() }, "rules, DFU mode").0,
            Verdict::Bad
        );
        let both = with_rules(r#"SUBSYSTEM=="usb", ATTRS{idVendor}=="0483", MODE="0666""#);
        assert_eq!(verdict(&both, "rules, running").0, Verdict::Good);
        let commented = with_rules(&format!("#{bitcraze}"));
        assert_eq!(verdict(&commented, "rules, running").0, Verdict::Bad);
    }

    #[test]
    fn each_reason_has_its_remedy() {
        let none = Symptoms { no_usb: Some("no backend".to_owned()), ..Symptoms::default() };
        assert!(verdict(&none, "USB").1.contains("where the drone is plugged in"));
        let empty = Symptoms { devices: 2, ..Symptoms::default() };
        assert!(verdict(&empty, "drone").1.contains("cable that carries data"));
        let beside = |what| Symptoms { others: vec![(what, "1-2".to_owned())], ..empty.clone() };
        assert!(verdict(&beside(Relative::Crazyradio), "drone").1.contains("another device"));
        let clone = beside(Relative::Foreign(&FOREIGN_LOADERS[0]));
        assert!(verdict(&clone, "drone").1.contains("cfdfu does not write to it"));
        let drone = |closed, holders| Symptoms {
            drones: vec![SeenDrone { id: ROM_DFU, place: "1-1".to_owned(), closed, holders }],
            ..empty.clone()
        };
        assert_eq!(verdict(&drone(None, vec![]), "opens").0, Verdict::Good);
        let both = Symptoms { others: clone.others, ..drone(None, vec![]) };
        let found = diagnose(&both).into_iter().find(|check| check.name == "drone").unwrap();
        assert!(found.verdict == Verdict::Good && found.found.contains("GD32 in DFU mode on port 1-2"));
        assert!(
            verdict(&drone(Some((true, "no permission".to_owned())), vec![]), "opens")
                .1
                .contains("udev --install")
        );
        let held = drone(Some((false, "busy".to_owned())), vec!["dfu-util (process 7)".to_owned()]);
        assert!(verdict(&held, "opens").1.contains("dfu-util (process 7) has it open"));
        let wsl = Symptoms { guest: Some("WSL".to_owned()), ..empty.clone() };
        assert!(verdict(&wsl, "this computer").1.contains("usbipd"));
        let kernel = Symptoms { kernel: Some(vec!["usb 1-1: unable to enumerate".to_owned()]), ..empty };
        assert!(verdict(&kernel, "kernel").1.contains("another cable"));
    }
}
