//! The radio addresses of drones, by serial number. In a swarm, a drone's address serves as its name. Only a running
//! drone reports its address, so cfdfu remembers the address and also shows it while the drone is in DFU mode.

use std::collections::BTreeMap;

use super::crtp::Radio;
use super::is_same_serial;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RadioNames(BTreeMap<String, Radio>);

impl RadioNames {
    /// Remembers the address of a drone by the serial number that its firmware reports. A serial number from DFU mode
    /// is ignored, because several drones of a batch may share such a number.
    pub fn insert(&mut self, serial: &str, radio: Radio) {
        if is_firmware_serial(serial) {
            self.0.insert(serial.to_owned(), radio);
        }
    }

    /// Returns the address of the drone with this serial number, as reported in either mode. Returns `None` if the
    /// address is not known or several drones may have this number. `present` contains the serial numbers of all
    /// connected drones, because a drone without a known address may share a serial number from DFU mode.
    pub fn of<'a>(&self, serial: &str, present: impl IntoIterator<Item = &'a str>) -> Option<Radio> {
        let twins = present.into_iter().filter(|other| is_same_serial(serial, other)).count();
        if twins > 1 && !is_firmware_serial(serial) {
            return None;
        }
        let mut fits = self.0.iter().filter(|(known, _)| is_same_serial(known, serial));
        let (_, radio) = fits.next()?;
        fits.next().is_none().then_some(*radio)
    }
}

/// Whether this serial number comes from the firmware, which reports the whole unique ID of the chip.
fn is_firmware_serial(serial: &str) -> bool {
    serial.len() == 24
}

impl FromIterator<(String, Radio)> for RadioNames {
    fn from_iter<I: IntoIterator<Item = (String, Radio)>>(all: I) -> RadioNames {
        RadioNames(all.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_in_either_mode_unless_two_drones_may_have_it() {
        let radio = |number: u8| format!("radio://0/80/2M/E7E7E7E7{number:02}").parse().unwrap();
        let mut names = RadioNames::default();
        names.insert("", radio(9));
        assert_eq!(names.of("", []), None);
        names.insert("338133873034", radio(9));
        assert_eq!(names.of("338133873034", []), None, "only the firmware's serial number is unique");
        names.insert("51004F000551343036333233", radio(1));
        for serial in ["51004F000551343036333233", "338133873034"] {
            assert_eq!(names.of(serial, [serial]), Some(radio(1)));
        }
        let twins = ["338133873034", "338133873034"];
        assert_eq!(names.of("338133873034", twins), None, "either drone may have this address");
        // A second chip with the same serial number in DFU mode: two words differ, but their sum is the same.
        names.insert("52004F000551343035333233", radio(2));
        assert_eq!(names.of("338133873034", []), None);
        assert_eq!(names.of("52004F000551343035333233", twins), Some(radio(2)));
    }
}
