//! Gathers the facts about this computer and its USB devices that `cfdfu doctor` evaluates. This module changes nothing
//! and starts no other programs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::crazyflie::Mode;
#[cfg(feature = "releases")]
use crate::doctor::KeptReleases;
use crate::doctor::{Hub, Rule, SeenDrone, Symptoms, System, parse_rules};
use crate::job::{Device, Enter};
#[cfg(feature = "releases")]
use crate::releases::Repo;
#[cfg(feature = "releases")]
use crate::releases::cache::Cache;
use crate::scan;
#[cfg(feature = "releases")]
use crate::settings::Settings;
use crate::usb::descriptor::clean;
use crate::usb::{Bus, BusError, Found, Location, TransferError};

/// The directories that udev searches for rules. A file in an earlier directory hides a file of the same name in a
/// later directory.
const RULES: [&str; 5] = [
    "/etc/udev/rules.d",
    "/run/udev/rules.d",
    "/usr/local/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
    "/lib/udev/rules.d",
];

/// Gathers all facts except the answers from the running drones. `bus` is an error if USB is not available.
pub(crate) fn gather(bus: Result<&dyn Bus, &BusError>) -> Symptoms {
    let list = bus.map_err(Clone::clone).and_then(Bus::list);
    let no_usb = list.as_ref().err().map(ToString::to_string);
    let found = list.unwrap_or_default();
    let drones = bus.ok().and_then(|bus| scan::list_devices(bus).ok()).unwrap_or_default();
    let others = bus.ok().and_then(|bus| scan::list_related_devices(bus).ok()).unwrap_or_default();
    let drone = |device: Device| {
        let on_bus = found.iter().find(|found| found.location == device.location && found.id == device.id);
        SeenDrone {
            id: device.id,
            place: device.location.to_string(),
            open_error: device.open_error.map(|error| (error == TransferError::Access, error.to_string())),
            holders: on_bus.map(holders_of).unwrap_or_default(),
        }
    };
    let (hubs, running) = (external_hubs(&drones), running_per_bus(&drones));
    let (groups, enrolled) = user_groups();
    Symptoms {
        // The caller queries the drones through a worker.
        answers: Vec::new(),
        system: system(),
        program: sudo_command(),
        no_usb,
        devices: found.len(),
        drones: drones.into_iter().map(drone).collect(),
        others: others.iter().map(|other| (other.what, other.location.to_string())).collect(),
        hubs,
        running,
        rules: udev_rules(),
        udev: Path::new("/run/udev/control").exists(),
        groups,
        enrolled,
        root: is_root(),
        ssh: env::var_os("SSH_CONNECTION").is_some() || env::var_os("SSH_TTY").is_some(),
        guest: detect_guest(),
        #[cfg(feature = "releases")]
        releases: Some(kept_releases()),
        #[cfg(not(feature = "releases"))]
        releases: None,
        kernel: kernel_messages(),
    }
}

/// Returns the official releases on this computer, from the folder that cfdfu would use.
#[cfg(feature = "releases")]
fn kept_releases() -> KeptReleases {
    let folder = Settings::load().0.releases.source;
    let cache = match &folder {
        Some(folder) => Some(Cache::at(folder, true)),
        None => Cache::of_user(true),
    };
    let tags = cache.map(|cache| cache.tags(Repo::Firmware)).unwrap_or_default();
    KeptReleases { folder: folder.map(|folder| clean(&folder.display().to_string())), tags }
}

/// Returns the external hubs to which drones are connected.
fn external_hubs(drones: &[Device]) -> Vec<Hub> {
    let behind = drones.iter().filter(|drone| drone.location.ports.len() > 1 && !drone.simulated);
    let mut hubs: Vec<Location> = behind.map(|drone| drone.location.hub()).collect();
    hubs.sort();
    hubs.chunk_by(|a, b| a == b).map(|group| read_hub(&group[0], group.len())).collect()
}

/// Reads a hub's power attributes and over-current counts from sysfs.
fn read_hub(location: &Location, drones: usize) -> Hub {
    let place = location.to_string();
    let folder = Path::new("/sys/bus/usb/devices").join(&place);
    // Bit 6 of the configuration's attributes means self-powered (USB 2.0, table 9-10). Some hubs set this bit although
    // they have no power supply.
    let attributes = fs::read_to_string(folder.join("bmAttributes")).ok();
    let attributes = attributes.and_then(|text| u8::from_str_radix(text.trim(), 16).ok());
    let ports = fs::read_dir(folder.join(format!("{place}:1.0"))).into_iter().flatten().flatten();
    let counts = ports.filter_map(|port| fs::read_to_string(port.path().join("over_current_count")).ok());
    let over_current = counts.filter_map(|text| text.trim().parse::<u32>().ok()).sum();
    Hub { place, drones, is_self_powered: attributes.map(|it| it & 0x40 != 0), over_current }
}

/// Returns the number of running Crazyflies on each USB bus.
fn running_per_bus(drones: &[Device]) -> Vec<(u8, usize)> {
    let running = drones.iter().filter(|drone| drone.mode == Mode::Firmware && !drone.simulated);
    let mut buses: Vec<u8> = running.map(|drone| drone.location.bus).collect();
    buses.sort_unstable();
    buses.chunk_by(|a, b| a == b).map(|group| (group[0], group.len())).collect()
}

/// Lists the other processes that have the device's file open.
fn holders_of(found: &Found) -> Vec<String> {
    let device = format!("/dev/bus/usb/{:03}/{:03}", found.location.bus, found.address);
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let has_device_open = |process: &PathBuf| {
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        open.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|file| file == Path::new(&device))
    };
    let name = |process: PathBuf| {
        let number: u32 = process.file_name()?.to_str()?.parse().ok()?;
        if number == std::process::id() || !has_device_open(&process) {
            return None;
        }
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        Some(format!("{} (process {number})", clean(name.trim())))
    };
    processes.flatten().filter_map(|entry| name(entry.path())).collect()
}

/// Returns whether any of udev's folders exists.
pub(crate) fn has_udev() -> bool {
    // Check the system as well: under Wine, a Windows program can read the Linux folders.
    cfg!(target_os = "linux") && RULES.iter().any(|folder| Path::new(folder).is_dir())
}

/// Reads the udev rules for the running Crazyflie and for the boot ROM; `None` on a system without udev.
fn udev_rules() -> Option<[Vec<Rule>; 2]> {
    if !has_udev() {
        return None;
    }
    let mut seen = Vec::new();
    let mut all = [Vec::new(), Vec::new()];
    for path in
        RULES.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten().map(|it| it.path())
    {
        let name = path.file_name().map(|name| clean(&name.to_string_lossy())).unwrap_or_default();
        if path.extension().is_none_or(|ending| ending != "rules") || seen.contains(&name) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        for (all, found) in all.iter_mut().zip(parse_rules(&name, &text)) {
            all.extend(found);
        }
        seen.push(name);
    }
    Some(all)
}

/// Decides whether cfdfu may ask a running Crazyflie to enter DFU mode.
///
/// Returns [`Enter::NotAllowed`] if udev has rules for the running drone but none for the boot ROM, unless cfdfu is
/// running as root. With such rules, for example Bitcraze's own, the drone would be stuck in DFU mode, where this user
/// cannot open it. If the rules are unknown, cfdfu may ask.
pub(crate) fn choose_enter() -> Enter {
    let udev = Path::new("/run/udev/control").exists();
    let rom_is_closed = udev
        && !is_root()
        && matches!(udev_rules(), Some([running, rom]) if !running.is_empty() && rom.is_empty());
    if rom_is_closed { Enter::NotAllowed } else { Enter::IfRunning }
}

#[cfg(unix)]
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(not(unix))]
pub(crate) fn is_root() -> bool {
    false
}

/// Returns the groups of this process, and the groups that list the process's user in `/etc/group`.
#[cfg(unix)]
fn user_groups() -> (Vec<String>, Vec<String>) {
    let mut numbers: Vec<u32> = rustix::process::getgroups()
        .unwrap_or_default()
        .into_iter()
        .map(rustix::process::Gid::as_raw)
        .collect();
    numbers.push(rustix::process::getegid().as_raw());
    let user = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = user_in(&user, rustix::process::getuid().as_raw());
    let text = fs::read_to_string("/etc/group").unwrap_or_default();
    groups_in(&text, &numbers, user.as_deref())
}

#[cfg(not(unix))]
fn user_groups() -> (Vec<String>, Vec<String>) {
    (Vec::new(), Vec::new())
}

/// Looks up the name of the user with this user ID in `/etc/passwd`.
#[cfg(unix)]
fn user_in(text: &str, number: u32) -> Option<String> {
    let name = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(number)).then(|| name.to_owned())
    };
    text.lines().find_map(name)
}

/// Finds in `/etc/group` the names of the groups with these numbers, and the names of the groups that list the user.
#[cfg(unix)]
fn groups_in(text: &str, numbers: &[u32], user: Option<&str>) -> (Vec<String>, Vec<String>) {
    let (mut of_session, mut of_user) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut fields = line.split(':');
        let (Some(name), Some(number), members) = (fields.next(), fields.nth(1), fields.next()) else {
            continue;
        };
        if number.parse().is_ok_and(|number| numbers.contains(&number)) {
            of_session.push(name.to_owned());
        }
        if user.is_some_and(|user| members.unwrap_or_default().split(',').any(|member| member == user)) {
            of_user.push(name.to_owned());
        }
    }
    (of_session, of_user)
}

/// Returns what to type after `sudo` to run this program: its name if the program is in a system directory, otherwise
/// its path.
pub(crate) fn sudo_command() -> String {
    let system = ["/usr/bin", "/usr/local/bin", "/bin", "/usr/sbin", "/usr/local/sbin", "/sbin"];
    let path = env::current_exe().unwrap_or_default();
    let is_found = path.parent().is_none_or(|folder| system.iter().any(|name| folder == Path::new(name)));
    if is_found { "cfdfu".to_owned() } else { clean(&path.display().to_string()) }
}

fn system() -> System {
    match env::consts::OS {
        "linux" => System::Linux,
        "macos" => System::Mac,
        "windows" => System::Windows,
        _ => System::Other,
    }
}

/// Returns the kind of virtual machine or container that this program runs in, if any.
pub(crate) fn detect_guest() -> Option<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    if read("/proc/sys/kernel/osrelease").to_lowercase().contains("microsoft") {
        return Some("WSL".to_owned());
    }
    if Path::new("/.dockerenv").exists() || Path::new("/run/.containerenv").exists() {
        return Some("a container".to_owned());
    }
    let machine = read("/sys/class/dmi/id/sys_vendor") + &read("/sys/class/dmi/id/product_name");
    let makers = ["VirtualBox", "VMware", "QEMU", "KVM", "Parallels", "Virtual Machine"];
    makers.iter().find(|maker| machine.contains(**maker)).map(|maker| format!("a virtual machine ({maker})"))
}

/// Reads the USB errors in the kernel log; `None` if the kernel log is not readable.
#[cfg(target_os = "linux")]
fn kernel_messages() -> Option<Vec<String>> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    /// The flag that makes a read at the end of the log fail instead of waiting for the next message.
    const O_NONBLOCK: i32 = 0o4000;
    const RECORDS: usize = 10_000;
    const COMPLAINTS: [&str; 5] = [
        "unable to enumerate",
        "device descriptor read",
        "not accepting address",
        "over-current",
        "Not enough host controller resources",
    ];
    let mut file = fs::OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open("/dev/kmsg").ok()?;
    let mut record = [0; 8192];
    let mut lines = Vec::new();
    for _ in 0..RECORDS {
        let Ok(len) = file.read(&mut record) else { break };
        let text = String::from_utf8_lossy(&record[..len]);
        let text = text.split_once(';').map_or("", |(_, text)| text).lines().next().unwrap_or_default();
        if (text.contains("usb") || text.contains("xhci"))
            && COMPLAINTS.iter().any(|complaint| text.contains(complaint))
        {
            lines.push(clean(text));
        }
    }
    Some(lines)
}

#[cfg(not(target_os = "linux"))]
fn kernel_messages() -> Option<Vec<String>> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn groups_joined_after_login_are_listed_separately() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nstudent:x:1000:1000::/home/student:/bin/sh\n";
        assert_eq!(user_in(passwd, 1000).as_deref(), Some("student"));
        assert_eq!(user_in(passwd, 1001), None);
        let group =
            "root:x:0:\nplugdev:x:46:other,student\nstudents:x:47:studentx\nstudent:x:1000:\nbroken\n";
        let (session, user) = groups_in(group, &[1000], Some("student"));
        assert_eq!((session, user), (vec!["student".to_owned()], vec!["plugdev".to_owned()]));
        assert_eq!(groups_in(group, &[46], None).0, ["plugdev"]);
    }
}
