//! Runs the real binary with `--demo` and piped output. Checks the text on each output stream, and the exit status.

use std::fs;

use serde_json::{Value, json};

use crate::cli::{Folder, Ran};
use crate::support::{SEED_LEN, firmware};

#[test]
fn a_flash_with_piped_output_prints_plain_lines() {
    let text = Folder::with_image().run("flash cf2.bin --demo").success();
    assert!(!text.contains('\u{1b}') && !text.contains('\r'), "{text}");
    for line in [
        "Image: firmware 2026.08 for CF20, CF21, 243176 bytes, linked for 0x08004000",
        "Using 1-1 0483:5740 running Crazyflie 2.x 51004F000551343036333233 SIMULATED",
        "Using 1-1 0483:df11 DFU mode STM32  BOOTLOADER 338133873034 SIMULATED",
        "dfuERROR, status(10) = errFIRMWARE (normal when the boot ROM has just started)",
        "Erase    0x08004000   16 KiB   0.23 s",
        "Download 0x08004000 243176 bytes",
        "Your Crazyflie is running 2026.08 and passed its self-test. Ready to fly!",
    ] {
        assert!(text.lines().any(|printed| printed == line), "{line:?} is not in:\n{text}");
    }
}

#[test]
fn flash_with_json_prints_one_object_per_line_and_ends_with_a_single_result() {
    let ran = Folder::with_image().json("flash cf2.bin --demo");
    assert_eq!(ran.code, 0);
    let objects = ran.objects();
    let of_event = |name: &str| objects.iter().filter(|o| o["event"] == name).cloned().collect::<Vec<_>>();
    let device = &of_event("device")[0];
    assert_eq!(
        (&device["mode"], &device["vid"], &device["pid"]),
        (&"firmware".into(), &"0483".into(), &"5740".into())
    );
    assert_eq!((&device["path"], &device["simulated"]), (&"1-1".into(), &true.into()));
    let plan = &of_event("plan")[0];
    assert_eq!((&plan["address"], &plan["bytes"]), (&"0x08004000".into(), &SEED_LEN.into()));
    assert_eq!(plan["sectors"][4]["address"], "0x08020000");
    assert_eq!(plan["sectors"][4]["size"], 131_072);
    for phase in ["compare", "erase", "write", "verify"] {
        let progress: Vec<Value> = of_event("progress").into_iter().filter(|o| o["phase"] == phase).collect();
        assert_eq!(progress[0]["done"], 0, "{phase}");
        assert_eq!(progress.last().unwrap()["done"], progress[0]["total"], "{phase}");
    }
    assert_eq!(of_event("result").len(), 1);
    let result = objects.last().unwrap();
    assert_eq!(result["outcome"], "flashed");
    assert_eq!(
        (&result["verified"], &result["booted"], &result["error"]),
        (&true.into(), &true.into(), &Value::Null)
    );
    assert_eq!((&result["written"], &result["erased_sectors"]), (&SEED_LEN.into(), &5.into()));
}

/// Each bad file leads to a clear message and the right exit status, and the drone is not contacted.
#[test]
fn bad_files_are_refused_before_the_drone_is_touched() {
    let folder = Folder::with_image();
    folder.write_file("empty.bin", b"");
    folder.write_file("large.bin", vec![1; 1024 * 1024 + 1]);
    folder.write_file("blank.bin", [0xFF; 5000]);
    folder.write_file("noise.bin", &firmware("2026.08", 9000)[5000..]);
    folder.write_file("elf.bin", [&b"\x7fELF\x01\x01"[..], &[0; 100]].concat());
    folder.run("demo-image loader.bin --kind loader");
    let mut radio = vec![9; 4000];
    radio[..8].copy_from_slice(&[0x00, 0x40, 0x00, 0x20, 0xC1, 0xB2, 0x01, 0x00]);
    folder.write_file("radio.bin", radio);
    let table = [
        ("empty.bin", 65, "the file is empty"),
        ("large.bin", 65, "1048577 bytes, more than the 1048576"),
        ("blank.bin", 65, "every byte of the file is 0xFF"),
        ("noise.bin", 65, "not recognised as Crazyflie firmware"),
        ("elf.bin", 65, "this ELF file cannot be used"),
        ("loader.bin", 65, "the Bitcraze bootloader, not firmware"),
        ("radio.bin", 65, "radio chip"),
        ("missing.bin", 66, "No such file"),
        (".", 66, "is a directory"),
        ("cf2.bin --address 0x08000000", 65, "linked for 0x08004000 and would not run at 0x08000000"),
        ("noise.bin --allow-mismatch --address 0x08000000", 65, "the bootloader's sector"),
        ("noise.bin --allow-mismatch --address 0x20000000", 65, "not in the Crazyflie's flash"),
    ];
    for (arguments, exit, phrase) in table {
        let Ran { code, err, .. } = folder.run(&format!("flash {arguments} --demo"));
        assert_eq!(code, exit, "{arguments}: {err}");
        assert!(err.contains(phrase), "{arguments}: {err}");
        assert!(err.contains("Nothing was changed."), "{arguments}: {err}");
        let ran = folder.json(&format!("flash {arguments} --demo"));
        assert_eq!(ran.code, exit);
        let objects = ran.objects();
        let last = objects.last().unwrap();
        assert_eq!((&last["event"], &last["outcome"]), (&"result".into(), &"failed".into()));
        assert!(
            objects.iter().all(|object| object["event"] != "device"),
            "{arguments}: searched for a device"
        );
    }
    let Ran { code, err, .. } = folder.run("restore-bootloader cf2.bin --demo=dfu");
    assert!(
        code == 65 && err.contains("this is Crazyflie firmware, not the Bitcraze bootloader"),
        "{code}: {err}"
    );
    folder.run("demo-image loader.bin --kind loader --force");
    let Ran { code, err, .. } = folder.run("restore-bootloader loader.bin --address 0x08004000 --demo=dfu");
    assert!(code == 2 && err.contains("--address does not apply to a bootloader"), "{code}: {err}");
}

#[test]
fn every_error_has_an_exit_status_and_advice() {
    let table = [
        ("flash cf2.bin --demo=none", 69, "Plug in the Crazyflie"),
        ("flash cf2.bin --demo=two", 69, "--device 1-1"),
        ("flash cf2.bin --demo --device 1-7", 69, "cfdfu list"),
        ("flash cf2.bin --demo --no-enter", 69, "--no-enter"),
        ("flash cf2.bin --demo=old", 74, "by hand"),
        ("flash cf2.bin --demo=write-protected", 74, "Remove the write protection"),
        ("flash cf2.bin --demo=read-protected", 74, "unprotect"),
        (
            "flash cf2.bin --demo=wrong-board",
            65,
            "board is CB10 (Crazyflie Bolt), revision A, but the image is for CF20 (Crazyflie 2.0), CF21",
        ),
        ("verify cf2.bin --demo=dfu", 1, "instead of"),
        ("list --demo=none", 69, "Plug in"),
        ("flash cf2.bin --demo=px4", 69, "This drone has PX4's bootloader instead of Bitcraze's"),
        (
            "flash cf2.bin --demo=relatives",
            69,
            "a Crazyradio on port 1-1, a Loco Positioning Node on port 1-2",
        ),
        ("flash cf2.bin --demo=unknown-board", 65, "could not be read"),
        ("flash cf2.bin --demo=nameless", 65, "board is CB10"),
        ("flash cf2.bin --demo=hung", 74, "does not answer"),
        ("flash cf2.bin --demo=restarting --require-boot", 76, "keeps restarting"),
        ("flash cf2.bin --demo=dark --require-boot", 76, "normal with this chip's boot ROM"),
        ("flash cf2.bin --demo=late", 74, "--wait 60"),
        // Advice that applies to several devices is printed once.
        ("list --demo=relatives", 69, "(lps-node-firmware). Plug in"),
        ("flash cf2.bin --demo=other-chip", 69, "its flash layout is not that of an STM32F405"),
        ("list --demo=relatives", 69, "Plug in the Crazyflie itself"),
        ("identify --demo=other-chip", 69, "not a Crazyflie"),
        ("flash cf2.bin --demo=clone", 69, "a GigaDevice GD32 in DFU mode on port 1-1"),
        (
            "flash cf2.bin --demo=clone --device 1-1 --allow-mismatch",
            69,
            "your drone has a clone of ST's chip",
        ),
        ("verify cf2.bin --demo=clone", 69, "a GigaDevice GD32 in DFU mode on port 1-1"),
        ("list --demo=clone", 69, "cfdfu does not write to it"),
        ("identify --demo=clone", 69, "a GigaDevice GD32 in DFU mode on port 1-1"),
        ("flash cf2.bin --demo=nonsense", 2, "possible values: healthy"),
        ("flash", 2, "Usage"),
        ("flsh cf2.bin", 2, "'flsh' is not a command"),
        ("flsh flash cf2.bin --demo", 2, "unexpected argument 'flsh' before the command"),
        ("--demo=none flash cf2.bin", 69, "Plug in the Crazyflie"),
        ("flash cf2.bin --address x", 2, "0x08004000"),
    ];
    let folder = Folder::with_image();
    for (line, exit, phrase) in table {
        let Ran { code, err, .. } = folder.run(line);
        assert_eq!(code, exit, "{line}: {err}");
        assert!(err.contains(phrase), "{line}: {err}");
    }
}

/// The whole image starts at the bootloader's address. Showing this address would alarm a user whose bootloader is not
/// written.
#[test]
fn the_log_shows_the_address_that_is_written() {
    let folder = Folder::with_image();
    folder.run("demo-image loader.bin --kind loader").success();
    let text = folder.run("restore-bootloader loader.bin --firmware cf2.bin --demo=dfu").success();
    for phrase in ["Download 0x08004000 243176 bytes", "Verify   0x08004000 243176 bytes"] {
        assert!(text.contains(phrase), "{phrase:?} is not in:\n{text}");
    }
    let text = folder.run("restore-bootloader loader.bin --firmware cf2.bin --demo=overwritten").success();
    assert!(text.contains("Download 0x08000000 7256 bytes, 0x08004000 243176 bytes"), "{text}");
}

/// The demo includes its own images.
#[test]
fn the_demo_works_without_an_image_file() {
    let folder = Folder::new();
    for line in ["flash --demo", "--demo=dfu flash", "restore-bootloader --demo=overwritten"] {
        let text = folder.run(line).success();
        assert!(text.contains("Flashed and verified"), "{line}: {text}");
    }
    let text = folder.run("restore-bootloader --demo=dfu").success();
    assert!(text.contains("The bootloader was already in place."), "{text}");
    let Ran { code, err, .. } = folder.run("flash");
    assert!(code == 2 && err.contains("<IMAGE>"), "{err}");
    let text = folder.run("--demo=help").success();
    assert!(text.contains("overwritten      in DFU mode, its bootloader overwritten"), "{text}");
}

#[test]
fn inspect_describes_a_file() {
    let folder = Folder::with_image();
    let ran = folder.json("inspect cf2.bin");
    let objects = ran.objects();
    assert_eq!((ran.code, objects.len()), (0, 2), "expected one image and one result");
    let image = &objects[0];
    assert_eq!(
        (&image["event"], &image["format"], &image["kind"]),
        (&"image".into(), &"bin".into(), &"firmware".into())
    );
    assert_eq!((&image["version"], &image["address"]), (&"2026.08".into(), &"0x08004000".into()));
    assert_eq!(image["boards"], serde_json::json!(["CF20", "CF21"]));
    let crc = crc32fast::hash(&fs::read(folder.path("cf2.bin")).unwrap());
    assert_eq!(image["crc32"], format!("{crc:08x}"));
}

/// Each row lists a scenario; its board, bootloader, firmware version at 0x08004000, read protection and boot ROM
/// version; and a phrase from the text output.
#[test]
fn identify_reports_the_drone_and_its_contents() {
    let folder = Folder::with_image();
    let table = [
        ("healthy", json!(["CF21", null, "2025.02", null, null]), "board       Crazyflie 2.1"),
        ("old", json!(["CF21", null, "2021.06", null, null]), "In DFU mode"),
        ("dfu", json!(["CF21", "bitcraze", "2025.02", false, "9.1"]), "revision B1"),
        ("erased", json!(["CF21", "bitcraze", null, false, "9.1"]), "The drone has no firmware"),
        ("overwritten", json!(["CF21", "overwritten", null, false, "9.1"]), "cfdfu restore-bootloader"),
        ("wrong-board", json!(["CB10", "bitcraze", "2025.02", false, "9.1"]), "is not for this board (CB10)"),
        (
            "write-protected",
            json!(["CF21", "bitcraze", "2025.02", false, "9.1"]),
            "write-protected: sector 2",
        ),
        ("read-protected", json!([null, null, null, true, null]), "be neither read nor flashed"),
        (
            "blank-otp",
            json!(["CF20", "bitcraze", "2025.02", false, "9.1"]),
            "assumed because the OTP is blank",
        ),
        ("unknown-board", json!([null, "bitcraze", "2025.02", false, "9.1"]), "board       unknown"),
    ];
    for (scenario, expected, phrase) in table {
        let ran = folder.json(&format!("identify --demo={scenario}"));
        let board = ran.object("board");
        let version = board["firmware"]["version"].clone();
        let reported =
            json!([board["type"], board["bootloader"], version, board["read_protected"], board["rom"]]);
        assert_eq!((ran.code, reported), (0, expected), "{scenario}");
        let text = folder.run(&format!("identify --demo={scenario}")).success();
        assert!(text.contains(phrase), "{scenario}: {text}");
        assert!(!text.contains("Claiming"), "{text}");
    }
    let board = folder.json("identify --demo=write-protected").object("board");
    assert_eq!(board["write_protected_sectors"], json!([2]));
}

#[test]
fn list_prints_one_line_per_device() {
    let folder = Folder::with_image();
    let text = folder.run("list --demo=two").success();
    assert_eq!(text.lines().count(), 2);
    assert!(text.lines().all(|line| line.contains("SIMULATED")));
    let objects = folder.json("list --demo=two").objects();
    assert_eq!(objects[1]["serial"], "338133883034");
    assert_eq!(folder.run("list --demo=two --device 338133883034").success().lines().count(), 1);
}

#[test]
fn a_backup_contains_the_whole_flash_and_replaces_a_file_only_with_force() {
    let folder = Folder::with_image();
    folder.run("backup mine.bin --demo").success();
    let backup = fs::read(folder.path("mine.bin")).unwrap();
    assert_eq!(backup.len(), 1024 * 1024);
    assert_eq!(backup[0x4000..0x4000 + 276_672], firmware("2025.02", 276_672));
    folder.write_file("mine.bin", b"precious");
    assert_eq!(folder.run("backup mine.bin --demo").code, 73);
    assert_eq!(fs::read(folder.path("mine.bin")).unwrap(), b"precious");
    assert_eq!(folder.run("backup missing/mine.bin --demo").code, 73);
    folder.run("backup mine.bin --demo --force").success();
    assert_eq!(folder.run("backup other.bin --demo=read-protected").code, 74);
    assert!(!folder.path("other.bin").exists(), "a failed backup must not create a file");
}

#[test]
fn a_backup_is_accepted_by_restore_and_refused_by_flash() {
    let folder = Folder::with_image();
    folder.run("backup mine.bin --demo=dfu").success();
    let objects = folder.json("inspect mine.bin").objects();
    assert_eq!((&objects[0]["kind"], &objects[0]["version"]), (&"backup".into(), &"2025.02".into()));
    let Ran { code, err, .. } = folder.run("flash mine.bin --demo=dfu");
    assert!(code == 65 && err.contains("`cfdfu restore-bootloader"), "{err}");
    let ran = folder.json("restore-bootloader mine.bin --demo=overwritten");
    let objects = ran.objects();
    let result = objects.last().unwrap();
    assert_eq!((ran.code, &result["verified"], &result["bytes"]), (0, &true.into(), &(1024 * 1024).into()));
    folder.run("restore-bootloader mine.bin --firmware cf2.bin --demo=overwritten").success();
    // A backup that has no bootloader is refused unless --allow-mismatch is given.
    folder.run("backup broken.bin --demo=overwritten").success();
    let Ran { code, err, .. } = folder.run("restore-bootloader broken.bin --demo=dfu");
    assert!(code == 65 && err.contains("without the Bitcraze bootloader"), "{err}");
    folder.run("restore-bootloader broken.bin --demo=dfu --allow-mismatch").success();
}

#[test]
fn a_drone_that_does_not_return_is_reported_to_have_no_firmware() {
    let folder = Folder::with_image();
    // With a longer wait, the demo would put the drone back into DFU mode.
    for wait in ["", "--wait 2"] {
        let ran = folder.json(&format!("flash cf2.bin --demo=unplugged {wait}"));
        let objects = ran.objects();
        let results = objects.iter().filter(|object| object["event"] == "result").count();
        let error = &objects.last().unwrap()["error"];
        assert_eq!((ran.code, results, &error["kind"]), (74, 1, &"vanished".into()), "{wait}: {error}");
        assert!(
            error["advice"].as_str().unwrap().contains("no working firmware right now"),
            "{wait}: {error}"
        );
    }
}

/// With the demo, you can try the README's advice for a drone that does not start.
#[test]
fn the_demo_puts_its_drone_into_dfu_mode_while_a_command_waits() {
    for scenario in ["dead", "unplugged"] {
        let text = Folder::with_image().run(&format!("flash cf2.bin --wait 60 --demo={scenario}")).success();
        assert!(text.contains("a simulated user enters DFU mode by hand after 3 s"), "{text}");
        assert!(text.contains("Flashed and verified"), "{text}");
    }
}

#[test]
fn undo_fails_if_no_copy_was_kept() {
    let Ran { code, err, .. } = Folder::with_image().run("undo --demo");
    assert!(code == 66 && err.contains("51004F000551343036333233 on port 1-1"), "{err}");
    assert_eq!(Folder::with_image().run("undo --demo=none").code, 69);
}

/// The warning goes to stderr, because stdout lists the drones, one per line.
#[test]
fn list_warns_about_a_foreign_boot_rom_beside_a_crazyflie() {
    let Ran { code, out, err } = Folder::with_image().run("list --demo=beside");
    assert_eq!(code, 0, "{err}");
    assert!(out.lines().count() == 1 && out.starts_with("1-2 "), "{out}");
    assert!(err.contains("a GigaDevice GD32 in DFU mode on port 1-1 is not a Crazyflie"), "{err}");
}

/// Without a serial number, cfdfu cannot find the copy that was kept for this drone and must report a failure.
#[test]
fn an_undo_of_a_drone_without_a_serial_number_fails() {
    let Ran { code, err, .. } = Folder::with_image().run("undo --demo=no-serial");
    assert!(code == 74 && err.contains("could not be read"), "{code}: {err}");
}

/// A bug report must show which revision was built, and with which features.
#[test]
fn the_version_output_shows_the_revision_and_the_features() {
    let out = Folder::new().run("--version").success();
    let rest = out
        .strip_prefix(concat!("cfdfu ", env!("CARGO_PKG_VERSION"), " ("))
        .unwrap_or_else(|| panic!("{out}"));
    let parts: Vec<&str> = rest.trim_end().trim_end_matches(')').split(", ").collect();
    let (revision, features) = parts.split_first().unwrap();
    assert!(revision.len() == 10 && revision.chars().all(|c| c.is_ascii_hexdigit()), "{out}");
    assert_eq!(features, ["releases", "vendored libusb"]);
}

#[test]
fn doctor_reports_its_findings_and_their_remedies() {
    let folder = Folder::with_image();
    let doctor = |scenario: &str| {
        let ran = folder.json(&format!("doctor --demo={scenario}"));
        let drone = ran.objects().into_iter().find(|object| object["name"] == "drone").unwrap();
        (ran.code, drone)
    };
    let text = folder.run("doctor --demo").success();
    assert!(text.lines().all(|line| !line.trim().is_empty()), "{text}");
    let (code, drone) = doctor("relatives");
    assert_eq!((code, &drone["verdict"]), (69, &json!("bad")));
    assert!(drone["found"].as_str().unwrap().contains("a Crazyradio on port 1-1"), "{drone}");
    let (code, drone) = doctor("clone");
    assert_eq!((code, &drone["verdict"]), (69, &json!("bad")));
    assert!(
        drone["found"].as_str().unwrap().contains("a GigaDevice GD32 in DFU mode on port 1-1"),
        "{drone}"
    );
    assert!(drone["remedy"].as_str().unwrap().contains("cfdfu does not write to it"), "{drone}");
    let (code, drone) = doctor("beside");
    assert_eq!(drone["verdict"], json!("ok"), "{code}: {drone}");
    assert!(drone["found"].as_str().unwrap().contains("and also a GigaDevice GD32"), "{drone}");
    let Ran { out, .. } = folder.run("doctor --demo=two");
    assert!(out.contains("ok  USB") && out.contains("ok  opens"), "{out}");
}

#[test]
fn the_program_prints_its_udev_rules_completions_and_manual() {
    let folder = Folder::with_image();
    let rules = folder.run("udev").success();
    let Ran { code, out, .. } = folder.run("udev --check --demo");
    // Whether the current user has access depends on the machine, but the verdict and the exit status must agree.
    let bad = out.contains("NO  rules");
    assert_eq!(code, if bad { 77 } else { 0 }, "{out}");
    assert!(out.contains("rules, DFU mode") || out.contains(" udev"), "{out}");
    for product in ["5740", "df11"] {
        assert!(rules.lines().any(|line| line.contains(product) && line.contains("uaccess")), "{rules}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = folder.run(&format!("completions {shell}")).success();
        assert!(script.contains("restore-bootloader") && script.contains("no-undo"), "{shell}");
    }
    let manual = folder.run("man").success();
    for phrase in [
        ".TH CFDFU 1 20",
        ".SH ENVIRONMENT",
        "write\\-protected",
        ".BR dfu\\-util (1)",
        ".SH EXIT STATUS",
        r".SS restore\-bootloader LOADER",
        r"\-\-no\-undo",
        "auto, always, never",
    ] {
        assert!(manual.contains(phrase), "{phrase}: {manual}");
    }
    assert!(!manual.contains("demo\\-fast") && !manual.contains("demo\\-image"), "{manual}");
}

#[test]
fn the_log_file_contains_the_log_of_the_job() {
    let folder = Folder::with_image();
    folder.run("flash cf2.bin --demo --log-file log.txt");
    let log = fs::read_to_string(folder.path("log.txt")).unwrap();
    assert!(log.contains("Erase    0x08020000  128 KiB"), "{log}");
    assert!(log.contains("Flashed and verified"), "{log}");
    assert_eq!(folder.run("list --demo --log-file missing/log.txt").code, 73);
}

#[test]
fn piped_output_has_no_colour_unless_requested() {
    let folder = Folder::with_image();
    assert!(!folder.run("flash missing.bin --demo").err.contains('\u{1b}'));
    assert!(folder.run("flash missing.bin --demo --color always").err.contains("\u{1b}[1;31m"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_and_a_closed_pipe_is_not() {
    let folder = Folder::with_image();
    let cfdfu = assert_cmd::cargo::cargo_bin!("cfdfu");
    let run = |arguments: &str, to: &str| {
        let line = format!("'{}' {arguments} {to}", cfdfu.display());
        let output =
            std::process::Command::new("bash").current_dir(&folder.0).args(["-c", &line]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for arguments in ["list --demo", "list --demo --json", "inspect cf2.bin", "inspect cf2.bin --json", "man"]
    {
        let (code, err) = run(arguments, ">/dev/full");
        assert!(code == Some(73) && err.contains("No space left"), "{arguments}: {code:?} {err}");
        let (code, _) = run(arguments, "| true; exit ${PIPESTATUS[0]}");
        assert_eq!(code, Some(0), "{arguments}");
    }
}

#[test]
fn a_truncated_bootloader_is_refused_and_the_right_file_is_named() {
    let folder = Folder::new();
    let loader = cfdfu::sim::images::loader();
    folder.write_file("ld.bin", &loader[..loader.len() - 40]);
    let Ran { code, err, .. } = folder.cfdfu("restore-bootloader ld.bin --demo=dfu").run();
    assert!(code == 65 && err.contains("cf2loader-1.0.bin"), "{err}");
    assert!(!err.contains("crazyflie-firmware"), "{err}");
}
