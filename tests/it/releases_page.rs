//! The picker's page of official releases. Tests the real binary in a pseudo-terminal and with `--plain`, against a
//! server in place of GitHub, and the interface with keys and answers in orders that occur with a slow server.
#![cfg(unix)]

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use cfdfu::app::keys::Key;
use cfdfu::app::releases::{FetchedFile, ReleasesEffect, ReleasesMsg, Request};
use cfdfu::app::{Effect, Msg, Screen, Slot, Which};
use cfdfu::job::Event;
use cfdfu::releases::{Part, ReleaseError, Repo, Trust};
use cfdfu::report::release_error;
use cfdfu::sim::images;
use zip::CompressionMethod;

use crate::cli::Folder;
use crate::files::release;
use crate::github::{GitHub, Manner};
use crate::interface::Interface;
use crate::pictures::releases;
use crate::pty::Session;
use crate::releases::Desk;
use crate::support::{SEED_LEN, firmware, parse};

const LIST: &str = "GET /repos/bitcraze/crazyflie-release/releases?per_page=30";
const FILE: &str = "GET /bitcraze/crazyflie-release/releases/download/2026.08/firmware-cf2-2026.08.zip";

/// Starts the interface with a cache in `folder`.
fn session(github: &GitHub, folder: &Folder, arguments: &[&str]) -> Session {
    let cache = folder.path("cache").display().to_string();
    Session::start(arguments, &[("CFDFU_RELEASES_URL", &github.address), ("XDG_CACHE_HOME", &cache)])
}

/// No request is sent before the key that asks for it, and the demo keeps nothing.
#[test]
fn a_release_is_listed_downloaded_and_flashed() {
    let desk = Desk::new();
    let mut session = session(&desk.github, &desk.folder, &["--demo"]);
    session.until("runs 2025.02");
    session.until("243,176 bytes");
    session.press("i");
    session.until("Choose the firmware");
    session.press("\t");
    let screen = session.until("Press Enter to ask for the list");
    assert!(screen.contains("Official firmware for CF21") && screen.contains("api.github.com"), "{screen}");
    session.press("\t");
    session.until("Choose the firmware");
    session.press("\t");
    session.until("Press Enter to ask for the list");
    assert_eq!(desk.github.requests(), Vec::<String>::new());
    session.press("\r");
    let screen = session.until("on the drone");
    assert!(screen.contains("2026.08     2026-08-24  cf2 cf21bl"), "{screen}");
    assert!(screen.contains("Enter downloads firmware-cf2-2026.08.zip"), "{screen}");
    assert_eq!(desk.github.requests(), [LIST]);
    session.press("\r");
    session.until("its SHA-256 is the one that GitHub published");
    session.until("firmware 2026.08 for CF20, CF21");
    // The demo has kept no list, so it asks for the hash again.
    assert_eq!(desk.github.requests(), [LIST, FILE]);
    session.press("f");
    session.agree();
    session.until("Your Crazyflie runs 2026.08");
    assert!(!desk.folder.path("cache").exists(), "the demo writes nothing");
}

/// The keys work while the server does not answer.
#[test]
fn esc_stops_a_download_at_once() {
    let desk = Desk::new();
    let mut session = session(&desk.github, &desk.folder, &["--demo"]);
    session.until("runs 2025.02");
    session.press("i\t");
    session.until("Press Enter");
    session.press("\r");
    session.until("on the drone");
    desk.github.file(Manner::Silent);
    session.press("\r");
    session.until("Downloading firmware-cf2-2026.08.zip");
    let pressed = Instant::now();
    session.press("\u{1b}");
    session.until("Enter downloads");
    assert!(pressed.elapsed() < Duration::from_secs(5), "{:?}", pressed.elapsed());
    // The next request does not wait for the answer to the stopped one.
    desk.github.file(Manner::Good);
    session.press("\r");
    session.until("that GitHub published");
    session.until("What would you like");
    session.press("q");
    assert_eq!(session.ended(), 0);
}

/// Each stopped request may still wait for the server, so there is a limit.
#[test]
fn a_silent_server_cannot_be_asked_again_and_again() {
    let desk = Desk::new();
    desk.github.list(Manner::Silent);
    let mut session = session(&desk.github, &desk.folder, &["--demo"]);
    session.until("runs 2025.02");
    session.press("i\t");
    for _ in 0..4 {
        session.until("Press Enter to ask");
        session.press("\r");
        session.until("Asking api.github.com");
        session.press("\u{1b}");
    }
    session.until("Press Enter to ask");
    session.press("\r");
    session.until("GitHub does not answer");
    // On a busy machine, the server may receive the last request only now.
    let (started, mut asked) = (Instant::now(), desk.github.requests());
    while asked.len() < 4 && started.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(20));
        asked.extend(desk.github.requests());
    }
    assert_eq!(asked, [LIST; 4]);
}

/// No drone is plugged in. After the first download, the next start needs no network.
#[test]
fn plain_mode_fetches_a_release_and_keeps_it() {
    let desk = Desk::new();
    let plain = |input: &str| desk.cfdfu("--plain --device 9-9").input(input).run();
    let first = plain("i\nreleases\nq\nq\n").out;
    assert!(first.contains("It asks api.github.com which releases there are"), "{first}");
    assert_eq!(desk.github.requests(), Vec::<String>::new());
    let out = plain("i\nreleases\n\n1\nv\n\nq\n").out;
    for words in
        ["1  2026.08, 2026-08-24", "Press v to choose a board", "Enter downloads firmware-cf2-2026.08.zip"]
    {
        assert!(out.contains(words), "{words:?} is not in:\n{out}");
    }
    assert!(out.contains("its SHA-256 is the one that GitHub published"), "{out}");
    assert_eq!(desk.kept(), ["firmware-cf2-2026.08.zip"]);
    assert_eq!(desk.github.requests(), [LIST, FILE]);
    let again = plain("i\nreleases\nv\n\nq\n").out;
    assert!(again.contains("Enter takes firmware-cf2-2026.08.zip, which is on this computer"), "{again}");
    assert!(again.contains("Image: ") && again.contains("firmware 2026.08"), "{again}");
    assert_eq!(desk.github.requests(), Vec::<String>::new());
}

/// Each answer of a misbehaving server causes a message on the page, and no file is used.
#[test]
fn a_server_that_misbehaves_is_explained_on_the_page() {
    let limit = "x-ratelimit-remaining: 0\r\nx-ratelimit-reset: 99999999999\r\n";
    for (list, file, words) in [
        (Manner::Status(403, limit), Manner::Good, "allows no more requests"),
        (Manner::Page, Manner::Good, "not in GitHub's format"),
        (Manner::Good, Manner::Other, "SHA-256"),
        (Manner::Good, Manner::Cut(1000), "was lost after"),
        (Manner::Good, Manner::Status(404, ""), "status 404"),
    ] {
        let desk = Desk::new();
        desk.github.list(list);
        desk.github.file(file);
        let ran = desk.cfdfu("--plain --demo=none").input("i\nreleases\n\nv\n1\n\nq\nq\n").run();
        assert!(ran.out.contains(words), "{words:?} is not in:\n{}", ran.out);
        assert!(!ran.out.contains("firmware-cf2-2026.08.zip, firmware"), "{}", ran.out);
        assert_eq!(desk.kept(), Vec::<String>::new());
    }
}

/// The folder replaces GitHub.
#[test]
fn a_folder_in_the_settings_is_listed_without_a_request() {
    let desk = Desk::new();
    desk.run("fetch 2025.02 --board all --to mirror").done();
    desk.github.requests();
    let mirror = desk.folder.path("mirror");
    fs::create_dir_all(desk.folder.path("config/cfdfu")).unwrap();
    let source = format!("[releases]\nsource = {:?}\n", mirror.display().to_string());
    desk.folder.file("config/cfdfu/config.toml", source);
    let line = desk.cfdfu("--plain --demo").env("XDG_CONFIG_HOME", desk.folder.path("config"));
    let out = line.input("i\nreleases\n\n2\nv\n\nf\nw\n").run().out;
    assert!(out.contains("Official firmware for cf2, from /"), "{out}");
    assert!(out.contains("from the folder; GitHub was not asked"), "{out}");
    assert!(out.contains("Flashed and verified"), "{out}");
    assert_eq!(desk.github.requests(), Vec::<String>::new());
}

/// Opens the page with a list, and clears the recorded effects.
fn page(scenario: &str) -> Interface {
    let mut ui = Interface::new(scenario);
    ui.kept_list = Some(releases());
    ui.key('i');
    ui.send(Msg::Key(Key::Tab));
    ui.effects.clear();
    ui
}

fn request(ui: &Interface) -> Option<&Request> {
    match &ui.app.screen {
        Screen::Releases(view) => Some(&view.request),
        _ => None,
    }
}

pub fn arrived(image: &[u8]) -> ReleasesMsg {
    ReleasesMsg::Fetched(Ok(Box::new(FetchedFile {
        path: None,
        trust: Trust::AsPublished,
        image: Box::new(parse(image)),
    })))
}

#[test]
fn an_answer_to_an_earlier_request_is_ignored() {
    let mut ui = page("healthy");
    ui.enter();
    let file =
        Effect::Releases(2, ReleasesEffect::KeptFile("2026.08".to_owned(), Part::Firmware("cf2".to_owned())));
    assert_eq!(ui.effects, [file]);
    ui.send(Msg::Key(Key::Esc));
    assert_eq!(ui.effects.last(), Some(&Effect::Releases(3, ReleasesEffect::Stop)));
    let archive = release("cf2", &firmware("2026.08", SEED_LEN), CompressionMethod::Stored);
    ui.send(Msg::Releases(2, arrived(&archive)));
    assert_eq!((request(&ui), &ui.app.image), (Some(&Request::Nothing), &Slot::Empty));
    // Request the same file again. The progress of the stopped request is ignored.
    ui.enter();
    ui.send(Msg::Releases(2, ReleasesMsg::Bytes(5, Some(5))));
    assert!(matches!(request(&ui), Some(Request::File { done: 0, .. })));
    ui.send(Msg::Releases(4, arrived(&archive)));
    assert!(matches!((&ui.app.screen, &ui.app.image), (Screen::Home, Slot::Ready(..))));
}

/// A file that is listed as kept but was removed in the meantime is not downloaded by a key that promised no download.
#[test]
fn a_kept_file_that_is_gone_is_downloaded_only_by_the_next_key_press() {
    let mut ui = page("healthy");
    ui.enter();
    let gone = ReleaseError::NotKept { name: "firmware-cf2-2026.08.zip".to_owned() };
    ui.answer(ReleasesMsg::Fetched(Err(release_error(&gone, 0))));
    ui.enter();
    assert!(
        matches!(ui.effects.last(), Some(Effect::Releases(_, ReleasesEffect::File(..)))),
        "{:?}",
        ui.effects
    );
}

/// A slow file that was chosen in the picker neither closes the page nor starts a job.
#[test]
fn a_file_that_loads_late_does_not_close_the_page() {
    let mut ui = Interface::new("dfu");
    ui.kept_list = Some(releases());
    ui.key('f');
    "/slow.bin".chars().for_each(|letter| ui.key(letter));
    ui.enter();
    ui.send(Msg::Key(Key::Esc));
    ui.send(Msg::Key(Key::Tab));
    let image = Box::new(parse(&firmware("2026.08", SEED_LEN)));
    ui.send(Msg::Loaded(Which::Image, "/slow.bin".into(), Ok(image)));
    assert!(matches!(ui.app.screen, Screen::Releases(_)), "{:?}", ui.app.screen);
    // The folder, whose content arrived in the meantime, is read again.
    ui.send(Msg::Key(Key::Tab));
    assert!(matches!(ui.effects.last(), Some(Effect::List(_))), "{:?}", ui.effects);
}

/// The command that `m` copies flashes the same file, for the same board.
#[test]
fn the_copied_command_names_the_release_and_its_board() {
    let mut ui = Interface::new("dfu");
    ui.kept_list = Some(releases());
    ui.key('f');
    ui.send(Msg::Key(Key::Tab));
    ui.enter();
    ui.answer(arrived(&release("cf2", &firmware("2026.08", SEED_LEN), CompressionMethod::Stored)));
    ui.until(|event| matches!(event, Event::Ready(_)));
    ui.key('m');
    let copied = ui.effects.iter().find_map(|effect| match effect {
        Effect::Copy(text) => Some(text.clone()),
        _ => None,
    });
    assert_eq!(copied.as_deref(), Some("cfdfu flash --release 2026.08 --board cf2 --demo=dfu"));
}

/// Ctrl-C stops a request even below the help, and quits only without one.
#[test]
fn ctrl_c_stops_a_request_below_an_overlay() {
    let mut ui = page("healthy");
    ui.key('u');
    ui.key('?');
    ui.send(Msg::Key(Key::CtrlC));
    assert!(matches!(ui.effects.last(), Some(Effect::Releases(_, ReleasesEffect::Stop))), "{:?}", ui.effects);
    assert_eq!(request(&ui), Some(&Request::Nothing));
}

/// The file that was chosen before stays chosen.
#[test]
fn a_file_that_cannot_be_flashed_is_refused_on_the_page() {
    let mut ui = Interface::new("healthy");
    ui.kept_list = Some(releases());
    ui.choose(Which::Image, "cf2.bin", &firmware("2026.04", SEED_LEN));
    ui.key('i');
    ui.send(Msg::Key(Key::Tab));
    ui.enter();
    ui.answer(arrived(&images::loader()));
    assert!(matches!(ui.app.screen, Screen::Releases(_)));
    assert!(ui.notice().contains("bootloader"), "{}", ui.notice());
    assert!(
        matches!(&ui.app.image, Slot::Ready(file, _) if file.path.ends_with("cf2.bin")),
        "{:?}",
        ui.app.image
    );
}

#[test]
fn a_flash_that_waits_for_its_file_starts_when_the_file_arrives() {
    let mut ui = Interface::new("dfu");
    ui.kept_list = Some(releases());
    ui.key('f');
    ui.send(Msg::Key(Key::Tab));
    ui.enter();
    let archive = release("cf2", &firmware("2026.08", SEED_LEN), CompressionMethod::Stored);
    ui.answer(arrived(&archive));
    assert!(matches!(ui.app.screen, Screen::Job(_)), "{:?}", ui.app.screen);
}

#[test]
fn without_a_known_board_the_user_chooses_one_and_the_bootloader_is_the_same_for_all() {
    let mut ui = page("dead");
    ui.enter();
    assert_eq!((ui.effects.len(), request(&ui)), (0, Some(&Request::Nothing)));
    let mut files = Vec::new();
    for _ in 0..6 {
        ui.key('v');
        ui.enter();
        if let Some(Effect::Releases(_, ReleasesEffect::File(_, part) | ReleasesEffect::KeptFile(_, part))) =
            ui.effects.pop()
        {
            files.push(part);
        }
        ui.send(Msg::Key(Key::Esc));
    }
    let names = ["cf2", "cf21bl", "bolt", "tag", "flapper", "cf2"];
    assert_eq!(files, names.map(|name| Part::Firmware(name.to_owned())));
    // The bootloader has its own list.
    ui.send(Msg::Key(Key::Esc));
    ui.send(Msg::Key(Key::Down));
    ui.kept_list = None;
    ui.key('i');
    ui.send(Msg::Key(Key::Tab));
    let asked = Effect::Releases(ui.app.release_requests, ReleasesEffect::KeptList(Repo::Loader));
    assert_eq!(ui.effects.last(), Some(&asked));
}
