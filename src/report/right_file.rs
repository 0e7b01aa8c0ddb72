//! The right file for each board, and the page on which it is published.

use crate::crazyflie::{BOARDS, platform_of};

/// The page on which Bitcraze publishes the firmware.
const FIRMWARE: &str = "github.com/bitcraze/crazyflie-firmware/releases";

/// The bootloader, which is the same file for all boards.
pub(crate) const RIGHT_LOADER: &str =
    "cf2loader-1.0.bin from github.com/bitcraze/crazyflie2-stm-bootloader/releases";

/// Returns the firmware file for the board with this code, and its page.
pub(crate) fn describe_image_for(code: &str) -> String {
    match platform_of(code) {
        // The Flapper's firmware also runs on Bolt boards (crazyflie-firmware, `platform_flapper.c`).
        Some("bolt") => format!("bolt-….bin (on a Flapper: flapper-….bin) from {FIRMWARE}"),
        Some(platform) => format!("{platform}-….bin from {FIRMWARE}"),
        None => any_image(),
    }
}

/// Lists the firmware file for each platform, for a drone whose board is unknown.
pub(crate) fn any_image() -> String {
    let mut platforms: Vec<&str> = BOARDS.iter().map(|board| board.platform).collect();
    platforms.dedup();
    let named: Vec<String> = platforms
        .into_iter()
        .chain(["flapper"])
        .map(|platform| format!("{platform}-….bin for the {}", drone_name(platform)))
        .collect();
    format!("{}, from {FIRMWARE}", named.join(", "))
}

/// Returns the common name of a platform's drones.
pub(super) fn drone_name(platform: &str) -> &str {
    match platform {
        "cf2" => "Crazyflie 2.x",
        "cf21bl" => "Crazyflie 2.1 Brushless",
        "bolt" => "Crazyflie Bolt",
        "tag" => "Roadrunner",
        "flapper" => "Flapper",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_board_has_a_file_and_a_download_page() {
        for (code, file) in [
            ("CF20", "cf2-….bin from"),
            ("CF21", "cf2-….bin from"),
            ("C21B", "cf21bl-….bin from"),
            ("CB10", "bolt-….bin (on a Flapper: flapper-….bin) from"),
            ("RR10", "tag-….bin from"),
        ] {
            let text = describe_image_for(code);
            assert!(text.starts_with(file) && text.ends_with(FIRMWARE), "{code}: {text}");
        }
        let unknown = describe_image_for("XY99");
        for platform in ["cf2-", "cf21bl-", "bolt-", "tag-", "flapper-"] {
            assert_eq!(unknown.matches(platform).count(), 1, "{unknown}");
        }
    }
}
