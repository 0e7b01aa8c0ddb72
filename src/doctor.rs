//! Why no drone is found, or none can be opened: what was found out about this computer becomes a check-list with
//! a verdict each, and the remedy. Pure: `run::symptoms` gathers what is judged here.

use crate::usb::{CRAZYFLIE, Id, ROM_DFU};

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It may be the reason, or become one.
    Doubtful,
    /// It is a reason.
    Bad,
    /// It could not be found out.
    Unknown,
}

impl Verdict {
    /// The word that `doctor --json` prints.
    #[must_use]
    pub fn word(self) -> &'static str {
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
    /// What was looked at.
    pub name: &'static str,
    /// What it came to.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What helps; empty if nothing is to be done.
    pub remedy: String,
}

/// What was found out about this computer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symptoms {
    /// Why there is no USB, if there is none.
    pub no_usb: Option<String>,
    /// How many devices are on it.
    pub devices: usize,
    /// Crazyflies and boot ROMs: number, place, name, and why it cannot be opened.
    pub drones: Vec<Drone>,
    /// Relatives of the Crazyflie, by name and port.
    pub others: Vec<String>,
    /// Files with udev rules for the running Crazyflie and for the boot ROM; `None` where there is no udev.
    pub rules: Option<[Vec<Rule>; 2]>,
    /// Groups of this user.
    pub groups: Vec<String>,
    /// Whether it is root.
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
pub struct Drone {
    /// Which of the two.
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
    /// The file.
    pub file: String,
    /// The group that it gives the device to.
    pub group: Option<String>,
    /// Whether it lets whoever sits at the computer.
    pub uaccess: bool,
    /// Whether it lets everybody.
    pub everybody: bool,
}

/// The check-list, in the order in which things must work.
#[must_use]
pub fn diagnose(symptoms: &Symptoms) -> Vec<Check> {
    let mut checks = vec![usb(symptoms), drones(symptoms)];
    checks.extend(symptoms.drones.iter().map(opens));
    if let Some([running, dfu]) = &symptoms.rules {
        checks.push(rule("rules, running", CRAZYFLIE, running, symptoms));
        checks.push(rule("rules, DFU mode", ROM_DFU, dfu, symptoms));
    }
    checks.extend(guest(symptoms));
    checks.push(kernel(symptoms));
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
        None => check("USB", Verdict::Good, format!("{} devices are on it", symptoms.devices), ""),
    }
}

fn drones(symptoms: &Symptoms) -> Check {
    const CABLE: &str = "Plug it in with a cable that carries data (a charging cable does not), straight into the \
        computer. If its LEDs stay as they are, put it into DFU mode by hand: unplug USB and battery, hold the button \
        while plugging in until the slow blink becomes clearly faster, let go.";
    match (&symptoms.drones[..], &symptoms.others[..]) {
        ([], []) => check("drone", Verdict::Bad, "no Crazyflie and no boot ROM is seen", CABLE),
        ([], others) => check(
            "drone",
            Verdict::Bad,
            format!("no Crazyflie is seen, but {}", others.join(", ")),
            format!("That is another device. {CABLE}"),
        ),
        (drones, _) => {
            let name = |drone: &Drone| {
                let what = if drone.id == ROM_DFU { "a boot ROM in DFU mode" } else { "a running Crazyflie" };
                format!("{what} ({}) on port {}", drone.id, drone.place)
            };
            let names: Vec<String> = drones.iter().map(name).collect();
            check("drone", Verdict::Good, names.join(", "), "")
        }
    }
}

fn opens(drone: &Drone) -> Check {
    let holders = drone.holders.join(", ");
    let Some((permission, why)) = &drone.closed else {
        let found = format!("{} on port {}", drone.id, drone.place);
        if drone.holders.is_empty() {
            return check("opens", Verdict::Good, found, "");
        }
        return check("opens", Verdict::Doubtful, found, format!("{holders} has it open, too: close that."));
    };
    let found = format!("{} on port {} does not: {why}", drone.id, drone.place);
    let remedy = match (permission, drone.holders.is_empty()) {
        (true, _) => "See the rules below: `sudo cfdfu udev --install`, then plug it in again.".to_owned(),
        (false, false) => format!("{holders} has it open: close that."),
        (false, true) => {
            "Unplug it, plug it in again. In Windows, install WinUSB for it with Zadig.".to_owned()
        }
    };
    check("opens", Verdict::Bad, found, remedy)
}

/// Whether this user gets a device with these rules.
fn rule(name: &'static str, id: Id, rules: &[Rule], symptoms: &Symptoms) -> Check {
    const INSTALL: &str = "`sudo cfdfu udev --install`, then plug the drone in again.";
    let files = rules.iter().map(|rule| rule.file.as_str()).collect::<Vec<_>>().join(", ");
    let in_group = |rule: &Rule| rule.group.as_ref().is_some_and(|group| symptoms.groups.contains(group));
    if symptoms.root {
        return check(name, Verdict::Good, "root needs none", "");
    }
    if rules.is_empty() {
        return check(name, Verdict::Bad, format!("none for {id}"), INSTALL);
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
        Some(group) => format!("`sudo usermod -a -G {group} $USER`, then log in again."),
        None => {
            format!("It lets only whoever sits at the computer (uaccess), not who comes over SSH. {INSTALL}")
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
pub const UDEV_RULES: &str = "\
# Bitcraze Crazyflie: running, and in DFU mode (the boot ROM of its STM32). Written by cfdfu.
SUBSYSTEM==\"usb\", ATTRS{idVendor}==\"0483\", ATTRS{idProduct}==\"5740\", MODE=\"0664\", GROUP=\"plugdev\", TAG+=\"uaccess\"
SUBSYSTEM==\"usb\", ATTRS{idVendor}==\"0483\", ATTRS{idProduct}==\"df11\", MODE=\"0664\", GROUP=\"plugdev\", TAG+=\"uaccess\"
";

/// The rules in this text for the running Crazyflie and for the boot ROM.
#[must_use]
pub fn rules_in(file: &str, text: &str) -> [Vec<Rule>; 2] {
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
            uaccess: line.contains("\"uaccess\""),
            everybody: mode & 0o006 == 0o006,
        };
        for (product, rules) in ["5740", "df11"].iter().zip(&mut found) {
            if is("{idProduct}", product) {
                rules.push(rule.clone());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(symptoms: &Symptoms, name: &str) -> (Verdict, String) {
        let checks = diagnose(symptoms);
        let check = checks.iter().find(|check| check.name == name).unwrap();
        (check.verdict, format!("{} {}", check.found, check.remedy))
    }

    fn with_rules(text: &str) -> Symptoms {
        Symptoms { devices: 3, rules: Some(rules_in("99-x.rules", text)), ..Symptoms::default() }
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
        symptoms.groups = vec!["plugdev".to_owned()];
        assert_eq!(verdict(&symptoms, "rules, DFU mode").0, Verdict::Good);
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
        let commented = with_rules(&format!("#{bitcraze}"));
        assert_eq!(verdict(&commented, "rules, running").0, Verdict::Bad);
    }

    #[test]
    fn each_reason_has_its_remedy() {
        let none = Symptoms { no_usb: Some("no backend".to_owned()), ..Symptoms::default() };
        assert!(verdict(&none, "USB").1.contains("where the drone is plugged in"));
        let empty = Symptoms { devices: 2, ..Symptoms::default() };
        assert!(verdict(&empty, "drone").1.contains("cable that carries data"));
        let radio = Symptoms { others: vec!["a Crazyradio on port 1-1".to_owned()], ..empty.clone() };
        assert!(verdict(&radio, "drone").1.contains("another device"));
        let drone = |closed, holders| Symptoms {
            drones: vec![Drone { id: ROM_DFU, place: "1-1".to_owned(), closed, holders }],
            ..empty.clone()
        };
        assert_eq!(verdict(&drone(None, vec![]), "opens").0, Verdict::Good);
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
