//! Fetches official releases from a local server that imitates the failures of real servers. A file that differs from
//! the published size or hash must never be written to a drone.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cfdfu::image::Sha256;
use cfdfu::sim::images;
use zip::CompressionMethod;

use crate::cli::{Folder, Line, Ran};
use crate::files::release;
use crate::github::{GitHub, Hashes, ServerBehaviour};
use crate::support::{SEED_LEN, firmware};

/// A folder with its own cache, and a server in place of GitHub.
pub struct ReleaseFixture {
    pub folder: Folder,
    pub github: GitHub,
}

impl ReleaseFixture {
    /// Creates an empty cache, and a server with two releases.
    pub fn new() -> ReleaseFixture {
        let github = GitHub::new();
        github.add_firmware("2025.02", "cf2", archive("2025.02", "cf2"));
        github.add_firmware("2026.08", "cf2", archive("2026.08", "cf2"));
        github.add_firmware("2026.08", "cf21bl", archive("2026.08", "cf21bl"));
        github.add_loader("1.0", images::loader());
        ReleaseFixture { folder: Folder::new(), github }
    }

    pub fn cfdfu(&self, line: &str) -> Line {
        self.folder
            .cfdfu(line)
            .env("CFDFU_RELEASES_URL", &self.github.address)
            .env("XDG_CACHE_HOME", self.folder.path("cache"))
            .fast()
    }

    pub fn run(&self, line: &str) -> Ran {
        self.cfdfu(line).run()
    }

    /// Returns the names of the files in the cache, except the files that contain hashes or lists.
    pub fn kept(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.path("cache")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else {
                    found.push(entry.file_name().into_string().unwrap());
                }
            }
        }
        found.retain(|name| name.strip_suffix(".json").is_none());
        found.sort();
        found
    }
}

/// Creates a release like Bitcraze's, but uncompressed, so that the file is only slightly larger than the firmware.
fn archive(version: &str, platform: &str) -> Vec<u8> {
    let bytes = match platform {
        "cf2" => firmware(version, SEED_LEN),
        _ => images::firmware(version, &[("C21B", "Crazyflie 2.1 Brushless")], SEED_LEN),
    };
    release(platform, &bytes, CompressionMethod::Stored)
}

#[test]
fn a_release_is_listed_fetched_flashed_and_kept() {
    let desk = ReleaseFixture::new();
    let list = desk.run("releases").success();
    let rows: Vec<&str> = list.lines().collect();
    assert!(rows[0].starts_with("2026.08      2026-08-24  cf2 cf21bl") && rows.len() == 2, "{list}");
    assert_eq!(desk.github.take_requests(), ["GET /repos/bitcraze/crazyflie-release/releases?per_page=30"]);
    // The list is not requested again, and the board is read from the drone.
    let out = desk.run("flash --release latest --demo=dfu").success();
    assert!(out.contains("firmware-cf2-2026.08.zip (its SHA-256 is the one that GitHub published)"), "{out}");
    assert!(out.contains("Flashed and verified"), "{out}");
    let file = "GET /bitcraze/crazyflie-release/releases/download/2026.08/firmware-cf2-2026.08.zip";
    assert_eq!(desk.github.take_requests(), [file]);
    // The demo does not keep the file, but a command without `--demo` does.
    assert_eq!(desk.kept(), Vec::<String>::new());
    desk.run("fetch --board CF21").success();
    assert_eq!(desk.kept(), ["firmware-cf2-2026.08.zip"]);
    assert!(desk.run("releases").success().contains("saved: cf2"));
    let doctor = desk.run("doctor");
    assert!(doctor.out.contains("2026.08 can be flashed without a network"), "{}", doctor.out);
    desk.github.take_requests();
    // The file is saved now, so flashing it needs no network.
    for line in ["flash --release 2026.08 --demo=healthy", "flash --release latest --offline --demo=dfu"] {
        assert!(desk.run(line).success().contains("Flashed and verified"), "{line}");
    }
    assert_eq!(desk.github.take_requests(), Vec::<String>::new());
    let loader = desk.run("restore-bootloader --release latest --demo=overwritten").success();
    assert!(loader.contains("cf2loader-1.0.bin"), "{loader}");
    desk.run("releases --forget").success();
    assert_eq!(desk.kept(), Vec::<String>::new());
    assert!(desk.run("doctor").out.contains("`cfdfu fetch latest --board all` while you have one"));
}

/// Each drone gets the file for its board, and all drones get the same release.
#[test]
fn a_fleet_with_two_kinds_of_board_gets_two_files() {
    let desk = ReleaseFixture::new();
    let ran = desk.run("flash --release latest --all --demo=fleet --json");
    let batch = ran.objects().pop().unwrap();
    assert_eq!((&batch["refused"], &batch["failed"]), (&0.into(), &0.into()), "{}{}", ran.out, ran.err);
    let files = desk.github.take_requests().iter().filter(|request| request.contains("/download/")).count();
    assert_eq!(files, 2);
}

/// Each command reports the expected exit status and message, and keeps nothing except the start of a truncated file.
#[test]
fn nothing_from_a_misbehaving_server_is_written_to_a_drone() {
    let foreign = ServerBehaviour::Redirect("http://127.0.0.1:9/file.zip".to_owned());
    let limit = "x-ratelimit-remaining: 0\r\nx-ratelimit-reset: 99999999999\r\n";
    let cases: [(ServerBehaviour, i32, &str); 11] = [
        (ServerBehaviour::Status(404, ""), 66, "status 404"),
        (ServerBehaviour::Status(500, ""), 66, "status 500"),
        (ServerBehaviour::Status(403, limit), 66, "allows no more requests"),
        (ServerBehaviour::Status(429, "retry-after: 60\r\n"), 66, "allows no more requests"),
        (foreign, 65, "does not belong to GitHub"),
        (ServerBehaviour::Loop, 66, "redirects too often"),
        (ServerBehaviour::Page, 65, "were published"),
        (ServerBehaviour::Cut(1000), 66, "was lost after"),
        (ServerBehaviour::Shorter, 65, "were published"),
        (ServerBehaviour::Endless, 65, "exceeds"),
        (ServerBehaviour::Other, 65, "SHA-256"),
    ];
    for (behaviour, code, message) in cases {
        for command in
            ["fetch --board cf2", "flash --release latest --demo=dfu", "flash --release 2026.08 --demo=dfu"]
        {
            let desk = ReleaseFixture::new();
            desk.github.set_file_behaviour(behaviour.clone());
            let ran = desk.run(command);
            let text = ran.combined_output().split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(ran.code, code, "{behaviour:?}: {command}: {text}");
            assert!(text.contains(message), "{behaviour:?}: {command}: {text}");
            assert!(!text.contains("Flashed") && !text.contains("Erase"), "{behaviour:?}: {text}");
            let kept = desk.kept();
            let may_continue = matches!(behaviour, ServerBehaviour::Cut(_));
            assert!(
                kept.is_empty() || may_continue && command.starts_with("fetch"),
                "{behaviour:?}: {kept:?}"
            );
        }
    }
    // Requests for the list may fail in the same ways. If only the API fails, a file can still be fetched by its name.
    for (behaviour, code) in [
        (ServerBehaviour::Redirect("https://example.org/".to_owned()), 65),
        (ServerBehaviour::Loop, 66),
        (ServerBehaviour::Page, 65),
        (ServerBehaviour::Cut(10), 66),
        (ServerBehaviour::Status(403, limit), 0),
        (ServerBehaviour::Status(500, ""), 0),
    ] {
        let desk = ReleaseFixture::new();
        desk.github.set_list_behaviour(behaviour.clone());
        assert_ne!(desk.run("releases").code, 0, "{behaviour:?}");
        let ran = desk.run("flash --release 2026.08 --demo=dfu");
        assert_eq!(ran.code, code, "{behaviour:?}: {}", ran.combined_output());
        if code == 0 {
            assert!(ran.out.contains("only the structure could be checked"), "{}", ran.out);
            assert!(
                desk.run("fetch --board cf2").success().contains("firmware-cf2-2026.08.zip"),
                "the latest release can still be fetched"
            );
        }
    }
}

#[test]
fn a_file_is_compared_with_its_published_hash_or_with_its_first_download() {
    for (hashes, code) in [(Hashes::UpperCase, 0), (Hashes::Missing, 0), (Hashes::Wrong, 65)] {
        let desk = ReleaseFixture::new();
        desk.github.set_hashes(hashes);
        assert_eq!(desk.run("fetch --board cf2").code, code, "{hashes:?}");
        assert_eq!(desk.kept().is_empty(), code != 0, "{hashes:?}");
    }
    // Without a published hash, cfdfu remembers the first download and refuses a different file with the same name.
    let desk = ReleaseFixture::new();
    desk.github.set_hashes(Hashes::Missing);
    assert!(desk.run("fetch --board cf2").success().contains("only the structure"));
    fs::remove_file(
        desk.folder.path("cache/cfdfu/releases/crazyflie-release/2026.08/firmware-cf2-2026.08.zip"),
    )
    .unwrap();
    assert!(desk.run("fetch --board cf2").success().contains("has not changed since it was first fetched"));
    fs::remove_file(
        desk.folder.path("cache/cfdfu/releases/crazyflie-release/2026.08/firmware-cf2-2026.08.zip"),
    )
    .unwrap();
    desk.github.replace("2026.08", &archive("2026.09", "cf2"));
    let ran = desk.run("fetch --board cf2");
    assert_eq!(ran.code, 65);
    assert!(ran.err.contains("has changed since it was first fetched"), "{}", ran.err);
    // A file that was damaged on disk is fetched again.
    let desk = ReleaseFixture::new();
    desk.run("fetch --board cf2").success();
    let path = desk.folder.path("cache/cfdfu/releases/crazyflie-release/2026.08/firmware-cf2-2026.08.zip");
    let mut bytes = fs::read(&path).unwrap();
    bytes[1000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    desk.run("fetch --board cf2 2026.08").success();
    assert_eq!(fs::read(&path).unwrap(), archive("2026.08", "cf2"));
}

/// If the server does not send the requested range, the download starts from the beginning.
#[test]
fn an_interrupted_download_is_resumed() {
    let whole = archive("2026.08", "cf2");
    let len = whole.len();
    for cut in [0, 1, len / 2, len - 1] {
        for next in [ServerBehaviour::Good, ServerBehaviour::Whole, ServerBehaviour::OtherRange] {
            let desk = ReleaseFixture::new();
            desk.github.set_file_behaviour(ServerBehaviour::Cut(cut));
            assert_eq!(desk.run("fetch --board cf2").code, 66, "{cut}");
            desk.github.set_file_behaviour(next.clone());
            desk.github.take_requests();
            desk.run("fetch --board cf2").success();
            let requests = desk.github.take_requests();
            let continues = requests.iter().any(|request| request.ends_with(&format!("range=bytes={cut}-")));
            assert_eq!(continues, cut > 0, "{cut} {requests:?}");
            let downloads = requests.iter().filter(|request| request.contains("/download/")).count();
            assert!(downloads == 1 || next == ServerBehaviour::OtherRange, "{cut} {requests:?}");
            assert_eq!(desk.kept(), ["firmware-cf2-2026.08.zip"], "{cut} {next:?}");
        }
    }
    // If the next request fails in a different way, the bytes received earlier are kept.
    for behaviour in [
        ServerBehaviour::Status(429, "retry-after: 60\r\n"),
        ServerBehaviour::Status(503, ""),
        ServerBehaviour::Loop,
    ] {
        let desk = ReleaseFixture::new();
        desk.github.set_file_behaviour(ServerBehaviour::Cut(len / 2));
        desk.run("fetch --board cf2");
        desk.github.set_file_behaviour(behaviour.clone());
        assert_eq!(desk.run("fetch --board cf2").code, 66, "{behaviour:?}");
        desk.github.set_file_behaviour(ServerBehaviour::Good);
        desk.github.take_requests();
        desk.run("fetch --board cf2").success();
        let requests = desk.github.take_requests();
        assert!(requests[0].ends_with(&format!("range=bytes={}-", len / 2)), "{behaviour:?} {requests:?}");
    }
    // The file on the server is replaced after its first part was downloaded.
    let desk = ReleaseFixture::new();
    desk.github.set_file_behaviour(ServerBehaviour::Cut(len / 2));
    desk.run("fetch --board cf2");
    desk.github.set_file_behaviour(ServerBehaviour::Good);
    desk.github.replace("2026.08", &archive("2026.09", "cf2"));
    desk.run("releases --refresh").success();
    desk.run("fetch --board cf2").success();
}

/// The server answers only after all four processes have sent their requests.
#[test]
fn four_processes_can_fetch_the_same_file_at_the_same_time() {
    let desk = ReleaseFixture::new();
    desk.run("releases").success();
    desk.github.take_requests();
    desk.github.set_file_behaviour(ServerBehaviour::Together(4));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| desk.run("fetch --board cf2").success());
        }
    });
    assert_eq!(desk.github.take_requests().len(), 4);
    assert_eq!(desk.kept(), ["firmware-cf2-2026.08.zip"]);
    let path = desk.folder.path("cache/cfdfu/releases/crazyflie-release/2026.08/firmware-cf2-2026.08.zip");
    assert_eq!(fs::read(path).unwrap(), archive("2026.08", "cf2"));
}

/// cfdfu stops waiting after 20 s.
#[test]
fn a_download_fails_if_the_server_stops_sending() {
    let desk = ReleaseFixture::new();
    desk.github.set_file_behaviour(ServerBehaviour::Stalls(100_000));
    let started = Instant::now();
    let ran = desk.run("flash --release latest --demo=dfu");
    assert_eq!(ran.code, 66, "{}", ran.err);
    assert!(ran.err.contains("does not answer") && ran.err.contains("firewall"), "{}", ran.err);
    assert!((15..28).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    assert!(!ran.out.contains("Erase"), "{}", ran.out);
}

/// Writing fails in the middle of a download. `fetch` reports that nothing was kept, but `flash` continues.
#[cfg(unix)]
#[test]
fn a_full_disk_does_not_prevent_a_flash() {
    let desk = ReleaseFixture::new();
    desk.run("releases").success();
    let limited = |arguments: &str| {
        // The limit is in blocks of 512 bytes or 1 KiB, and the file is 243 kB long.
        let script = format!("trap '' XFSZ; ulimit -f 100; exec \"$CFDFU\" {arguments}");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &script]).current_dir(desk.folder.path("."));
        command.env("CFDFU", assert_cmd::cargo::cargo_bin!("cfdfu"));
        command.env("CFDFU_RELEASES_URL", &desk.github.address);
        command.env("XDG_CACHE_HOME", desk.folder.path("cache")).output().unwrap()
    };
    let output = limited("fetch 2026.08 --board cf2");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(73), "{err}");
    assert!(
        err.contains("firmware-cf2-2026.08.zip could not be saved: File too large")
            && err.contains("free space"),
        "{err}"
    );
    assert_eq!(desk.kept(), Vec::<String>::new());
    // The demo does not keep files, so this command uses the real bus. No drone has this serial number.
    let output = limited("flash --release 2026.08 --board cf2 --device no-such-drone --wait 0");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(String::from_utf8_lossy(&output.stdout).contains("firmware-cf2-2026.08.zip"), "{err}");
    assert_eq!(output.status.code(), Some(69), "{err}");
}

/// The messages name the proxy without its password.
#[test]
fn a_proxy_receives_the_host_name_but_neither_the_path_nor_the_token() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://me:password@{}", listener.local_addr().unwrap());
    let proxy = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if line.trim().is_empty() {
                break;
            }
            lines.push(line.trim().to_owned());
        }
        (&stream).write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").unwrap();
        lines
    });
    let folder = Folder::new();
    let line = folder.cfdfu("releases").env("HTTPS_PROXY", &address).env("GITHUB_TOKEN", "secret");
    let ran = line.env("XDG_CACHE_HOME", folder.path("cache")).run();
    let request = proxy.join().unwrap();
    assert_eq!(request[0], "CONNECT api.github.com:443 HTTP/1.1");
    assert!(!request.join(" ").contains("secret"), "{request:?}");
    assert_eq!(ran.code, 66, "{}", ran.err);
    assert!(ran.err.contains("the proxy 127.0.0.1:") && ran.err.contains("HTTPS_PROXY"), "{}", ran.err);
    assert!(
        !ran.combined_output().contains("password") && !ran.combined_output().contains("secret"),
        "{}",
        ran.err
    );
}

/// The folder could be on a USB stick.
#[test]
fn releases_in_a_folder_can_be_flashed_without_a_network() {
    let desk = ReleaseFixture::new();
    desk.run("fetch --board all --to stick").success();
    desk.github.take_requests();
    let out = desk.run("flash --release latest --from stick --all --demo=fleet").success();
    assert!(out.contains("Release 2026.08: firmware-cf21bl-2026.08.zip"), "{out}");
    assert!(desk.run("releases --from stick").success().contains("saved: cf2 cf21bl"));
    assert_eq!(desk.github.take_requests(), Vec::<String>::new());
    let ran = desk.run("flash --release 2025.02 --from stick --demo=dfu");
    assert_eq!(ran.code, 66, "{}", ran.err);
    assert!(ran.err.contains("there is no saved copy of"), "{}", ran.err);
    let ran = desk.run("flash --release 2024.01 --demo=dfu");
    assert_eq!(ran.code, 66);
    assert!(ran.err.contains("Available: 2026.08, 2025.02"), "{}", ran.err);
}

/// If the files in a folder are forged, the hashes beside them may be forged, too.
#[test]
fn the_hashes_in_a_folder_are_not_trusted() {
    let desk = ReleaseFixture::new();
    desk.run("fetch --board cf2 --to stick").success();
    let path = desk.folder.path("stick/crazyflie-release/2026.08/firmware-cf2-2026.08.zip");
    let forged = archive("2031.01", "cf2");
    fs::write(&path, &forged).unwrap();
    let record = format!(r#"{{"sha256":"{}","published":true}}"#, Sha256::of(&forged));
    fs::write(path.with_extension("zip.json"), record).unwrap();
    let out = desk.run("flash --release 2026.08 --from stick --demo=dfu").success();
    assert!(out.contains("only the structure could be checked") && !out.contains("published"), "{out}");
    // If GitHub can be reached, its hash takes precedence.
    desk.run("fetch 2026.08 --board cf2 --to stick").success();
    assert_eq!(fs::read(&path).unwrap(), archive("2026.08", "cf2"));
    // If the path is not a folder, the command must fail rather than succeed without writing a file.
    desk.folder.write_file("occupied", "");
    let failed = desk.run("fetch --board cf2 --to occupied");
    assert_eq!(failed.code, 73);
    assert!(
        failed.err.contains("firmware-cf2-2026.08.zip could not be saved: Not a directory"),
        "{}",
        failed.err
    );
}

#[test]
fn a_file_that_is_not_an_image_or_has_the_wrong_checksum_is_refused() {
    // Without a list or a hash, only the structure of the file is checked.
    let desk = ReleaseFixture::new();
    desk.github.set_list_behaviour(ServerBehaviour::Status(500, ""));
    desk.github.set_file_behaviour(ServerBehaviour::Page);
    let ran = desk.run("fetch 2026.08 --board cf2");
    assert_eq!((ran.code, desk.kept()), (65, Vec::new()), "{}", ran.err);
    assert!(ran.err.contains("is not an image"), "{}", ran.err);
    // A checksum from the command line is also checked.
    let desk = ReleaseFixture::new();
    let flash = |sha256: &str| desk.run(&format!("flash --release 2026.08 --demo=dfu --sha256 {sha256}"));
    assert!(
        flash(&Sha256::of(&archive("2026.08", "cf2")).to_string()).success().contains("Flashed and verified")
    );
    let ran = flash(&Sha256::of(b"another").to_string());
    assert_eq!(ran.code, 65);
    assert!(!ran.out.contains("Erase"), "{}", ran.out);
    for line in ["flash cf2.bin --release latest", "flash cf2.bin --offline --demo"] {
        assert_eq!(desk.run(line).code, 2, "{line}");
    }
}

#[test]
fn a_token_is_sent_only_to_the_api() {
    let desk = ReleaseFixture::new();
    desk.cfdfu("fetch --board cf2").env("GITHUB_TOKEN", "secret").run().success();
    let requests = desk.github.take_requests();
    assert!(requests[0].ends_with(" token") && requests.len() == 2, "{requests:?}");
    assert!(!requests[1].contains("token"), "{requests:?}");
    desk.github.set_list_behaviour(ServerBehaviour::Status(401, ""));
    let ran = desk.cfdfu("releases --refresh").env("GITHUB_TOKEN", "secret").run();
    // The kept list is used, and the message explains why the list is not up to date.
    assert_eq!(ran.code, 0);
    assert!(ran.err.contains("status 401") && !ran.combined_output().contains("secret"), "{}", ran.err);
    let ran = ReleaseFixture::new().folder.cfdfu("releases").env("ALL_PROXY", "socks5://127.0.0.1:9").run();
    assert_eq!(ran.code, 66, "{}", ran.err);
    assert!(ran.err.contains("cfdfu supports only HTTP proxies"), "{}", ran.err);
}

/// The server does not answer, but the command ends without waiting for an answer.
#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_request_at_once_and_nothing_is_flashed() {
    for line in ["releases --json", "flash --release latest --demo=dfu --json"] {
        let desk = ReleaseFixture::new();
        desk.github.set_list_behaviour(ServerBehaviour::Silent);
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("cfdfu"));
        command.args(line.split(' ')).env("CFDFU_RELEASES_URL", &desk.github.address);
        command.env("XDG_CACHE_HOME", desk.folder.path("cache")).stdout(std::process::Stdio::piped());
        let started = Instant::now();
        let child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        while desk.github.take_requests().is_empty() {
            assert!(started.elapsed() < Duration::from_secs(30));
            thread::sleep(Duration::from_millis(50));
        }
        let pid = child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let interrupted = Instant::now();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(75), "{line}");
        assert!(interrupted.elapsed() < Duration::from_secs(5), "{line}");
        let out = String::from_utf8(output.stdout).unwrap();
        assert!(out.lines().last().unwrap().contains("\"event\":\"result\""), "{line}: {out}");
    }
}

#[test]
fn no_connection_is_opened_unless_a_release_is_requested() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    thread::spawn(move || {
        for _ in listener.incoming() {
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let folder = Folder::with_image();
    let lines = [
        "list --demo",
        "identify --demo",
        "flash cf2.bin --demo",
        "flash cf2.bin --all --demo=fleet",
        "verify cf2.bin --demo=dfu",
        "inspect cf2.bin",
        "doctor --demo",
        "undo --demo",
        "--plain --demo",
        "releases --offline",
        "flash --release latest --offline --demo",
    ];
    for line in lines {
        let line = folder
            .cfdfu(line)
            .env("CFDFU_RELEASES_URL", &address)
            .env("HTTPS_PROXY", &address)
            .env("ALL_PROXY", &address)
            .env("XDG_CACHE_HOME", folder.path("cache"))
            .fast();
        line.run();
    }
    // The interface shows the releases page without sending a request.
    folder
        .cfdfu("--plain --demo")
        .env("CFDFU_RELEASES_URL", &address)
        .env("XDG_CACHE_HOME", folder.path("cache"))
        .input("i\nreleases\nv\nq\nq\n")
        .run();
    assert_eq!(accepted.load(Ordering::SeqCst), 0);
    // Check that the listener counts connections.
    folder
        .cfdfu("releases")
        .env("CFDFU_RELEASES_URL", &address)
        .env("XDG_CACHE_HOME", folder.path("c"))
        .run();
    assert!(accepted.load(Ordering::SeqCst) > 0);
}
