//! A local server in place of GitHub. It lists releases, serves their files, and records the requests. A test can make
//! the server misbehave.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::json;

const FIRMWARE: &str = "bitcraze/crazyflie-release";
const LOADER: &str = "bitcraze/crazyflie2-stm-bootloader";

/// How the server handles a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerBehaviour {
    Good,
    /// Answers with this status and these headers, except to requests for `/releases/latest`.
    Status(u16, &'static str),
    /// Closes the connection after this many bytes of the body.
    Cut(usize),
    /// Sends a body that is one byte shorter than the listed size, with a `content-length` that matches the body.
    Shorter,
    /// Sends an endless body.
    Endless,
    /// Sends a web page with status 200.
    Page,
    /// Sends different bytes of the same length.
    Other,
    /// Redirects to this address.
    Redirect(String),
    /// Redirects every request back to the requested address.
    Loop,
    /// Ignores the `Range` of a request.
    Whole,
    /// Answers a `Range` with a different range.
    OtherRange,
    /// Does not answer for 30 s.
    Silent,
    /// Sends nothing more after this many bytes of the body, and closes the connection 30 s later.
    Stalls(usize),
    /// Sends no file until this many downloads have begun or 10 s have passed.
    Together(usize),
}

/// The hashes of the files in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hashes {
    Right,
    UpperCase,
    Missing,
    Wrong,
}

struct State {
    /// The repository, tag, name and bytes of each file.
    files: Vec<(&'static str, String, String, Vec<u8>)>,
    hashes: Hashes,
    list: ServerBehaviour,
    file: ServerBehaviour,
    requests: Vec<String>,
}

pub struct GitHub {
    pub address: String,
    state: Arc<Mutex<State>>,
}

impl GitHub {
    pub fn new() -> GitHub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State {
            files: Vec::new(),
            hashes: Hashes::Right,
            list: ServerBehaviour::Good,
            file: ServerBehaviour::Good,
            requests: Vec::new(),
        }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // The client may close the connection at any time.
                thread::spawn(move || drop(serve(stream, &state)));
            }
        });
        GitHub { address, state }
    }

    pub fn add_firmware(&self, tag: &str, platform: &str, bytes: Vec<u8>) {
        let name = format!("firmware-{platform}-{tag}.zip");
        self.state.lock().unwrap().files.push((FIRMWARE, tag.to_owned(), name, bytes));
    }

    pub fn add_loader(&self, tag: &str, bytes: Vec<u8>) {
        let name = format!("cf2loader-{tag}.bin");
        self.state.lock().unwrap().files.push((LOADER, tag.to_owned(), name, bytes));
    }

    /// Replaces the bytes of every file of a release, as if different files had been uploaded.
    pub fn replace(&self, tag: &str, bytes: &[u8]) {
        let mut state = self.state.lock().unwrap();
        let files = state.files.iter_mut().filter(|(_, file_tag, ..)| file_tag == tag);
        files.for_each(|file| file.3 = bytes.to_vec());
    }

    pub fn set_hashes(&self, hashes: Hashes) {
        self.state.lock().unwrap().hashes = hashes;
    }

    pub fn set_list_behaviour(&self, behaviour: ServerBehaviour) {
        self.state.lock().unwrap().list = behaviour;
    }

    pub fn set_file_behaviour(&self, behaviour: ServerBehaviour) {
        self.state.lock().unwrap().file = behaviour;
    }

    /// Returns the requests since the last call, for example `GET /repos/… range=bytes=5- token`.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

/// Waits, for at most 10 s, until this many files have been requested since the last call to `take_requests`.
fn wait_for_downloads(state: &Mutex<State>, count: usize) {
    for _ in 0..500 {
        let state = state.lock().unwrap();
        if state.requests.iter().filter(|request| request.contains("/download/")).count() >= count {
            return;
        }
        drop(state);
        thread::sleep(Duration::from_millis(20));
    }
}

fn serve(stream: TcpStream, shared: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request_line = String::new();
    reader.read_line(&mut request_line)?;
    let (mut range, mut etag, mut token) = (None, None, "");
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("range") => range = Some(value.to_owned()),
            Some((name, value)) if name.eq_ignore_ascii_case("if-none-match") => {
                etag = Some(value.to_owned());
            }
            Some((name, _)) if name.eq_ignore_ascii_case("authorization") => token = " token",
            Some(_) => {}
            None => break,
        }
    }
    let path = request_line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut state = shared.lock().unwrap();
    let shown = range.as_ref().map(|range| format!(" range={range}")).unwrap_or_default();
    state.requests.push(format!("GET {path}{shown}{token}"));
    let behaviour = if path.contains("/download/") { state.file.clone() } else { state.list.clone() };
    let answer = answer(&state, &path, range.as_deref(), etag.as_deref(), &behaviour);
    drop(state);
    if behaviour == ServerBehaviour::Silent {
        thread::sleep(Duration::from_secs(30));
    }
    if let ServerBehaviour::Together(all) = behaviour {
        wait_for_downloads(shared, all);
    }
    let mut stream = stream;
    let Answer { status, headers, body, announced } = answer;
    let length = announced.unwrap_or(body.len());
    write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n")?;
    let cut = if let ServerBehaviour::Cut(n) | ServerBehaviour::Stalls(n) = behaviour {
        n.min(body.len())
    } else {
        body.len()
    };
    stream.write_all(&body[..cut])?;
    if let ServerBehaviour::Stalls(_) = behaviour {
        thread::sleep(Duration::from_secs(30));
    }
    if behaviour == ServerBehaviour::Endless {
        loop {
            stream.write_all(&[0; 4096])?;
        }
    }
    Ok(())
}

#[derive(Default)]
struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
    /// The `content-length`, if it is not the length of the body.
    announced: Option<usize>,
}

fn answer(
    state: &State,
    path: &str,
    range: Option<&str>,
    etag: Option<&str>,
    behaviour: &ServerBehaviour,
) -> Answer {
    let with =
        |status: u16, headers: &str| Answer { status, headers: headers.to_owned(), ..Answer::default() };
    match behaviour {
        ServerBehaviour::Status(status, headers) if !path.ends_with("/latest") => {
            return with(*status, headers);
        }
        ServerBehaviour::Redirect(to) => return with(302, &format!("location: {to}\r\n")),
        ServerBehaviour::Loop => return with(302, &format!("location: {path}\r\n")),
        ServerBehaviour::Page => {
            let body = b"<html>We are having trouble. Please try again.</html>".to_vec();
            return Answer { status: 200, body, ..Answer::default() };
        }
        _ => {}
    }
    if let Some(repo) =
        path.strip_prefix("/repos/").and_then(|path| path.strip_suffix("/releases?per_page=30"))
    {
        let body = list(state, repo);
        let tag = format!("\"{}\"", hex(&body));
        if etag == Some(&tag) {
            return with(304, "");
        }
        return Answer { status: 200, headers: format!("etag: {tag}\r\n"), body, announced: None };
    }
    if let Some(repo) = path.strip_prefix('/').and_then(|path| path.strip_suffix("/releases/latest")) {
        let newest =
            state.files.iter().filter(|(file_repo, ..)| *file_repo == repo).map(|(_, tag, ..)| tag).max();
        let tag = newest.cloned().unwrap_or_default();
        return with(302, &format!("location: /{repo}/releases/tag/{tag}\r\n"));
    }
    let is_requested = |(repo, tag, name, _): &&(&str, String, String, Vec<u8>)| {
        path == format!("/{repo}/releases/download/{tag}/{name}")
    };
    let Some((.., bytes)) = state.files.iter().find(is_requested) else { return with(404, "") };
    let mut bytes = bytes.clone();
    match behaviour {
        ServerBehaviour::Shorter => drop(bytes.pop()),
        ServerBehaviour::Other => bytes.iter_mut().for_each(|byte| *byte ^= 1),
        _ => {}
    }
    let from: Option<usize> =
        range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    match (from, behaviour) {
        (Some(from), ServerBehaviour::OtherRange) => {
            let headers = format!("content-range: bytes 0-{}/{}\r\n", bytes.len() - 1, bytes.len());
            let body = bytes.split_off(from);
            Answer { status: 206, headers, body, announced: None }
        }
        (Some(from), ServerBehaviour::Whole) if from <= bytes.len() => {
            Answer { status: 200, body: bytes, ..Answer::default() }
        }
        (Some(from), _) if from < bytes.len() => {
            let headers = format!("content-range: bytes {from}-{}/{}\r\n", bytes.len() - 1, bytes.len());
            Answer { status: 206, headers, body: bytes.split_off(from), announced: None }
        }
        (Some(_), _) => with(416, ""),
        (None, ServerBehaviour::Endless) => {
            Answer { status: 200, body: bytes, announced: Some(1 << 40), ..Answer::default() }
        }
        (None, _) => Answer { status: 200, body: bytes, ..Answer::default() },
    }
}

/// Returns the list of releases, the most recently added release first, followed by entries that cfdfu must ignore.
fn list(state: &State, repo: &str) -> Vec<u8> {
    let mut tags: Vec<&String> = Vec::new();
    for (file_repo, tag, ..) in state.files.iter().rev() {
        if *file_repo == repo && !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    let asset = |(_, _, name, bytes): &(&str, String, String, Vec<u8>)| {
        let digest = match state.hashes {
            Hashes::Right => Some(format!("sha256:{}", hex(bytes))),
            Hashes::UpperCase => Some(format!("sha256:{}", hex(bytes).to_uppercase())),
            Hashes::Missing => None,
            Hashes::Wrong => Some(format!("sha256:{}", hex(b"something else"))),
        };
        json!({"name": name, "size": bytes.len(), "digest": digest, "browser_download_url": "ignored"})
    };
    let mut releases: Vec<_> = tags
        .into_iter()
        .map(|tag| {
            let files =
                state.files.iter().filter(|(file_repo, file_tag, ..)| *file_repo == repo && file_tag == tag);
            let year = tag.get(..4).unwrap_or("2020");
            json!({"tag_name": tag, "name": tag, "published_at": format!("{year}-08-24T10:00:00Z"),
                "prerelease": tag.ends_with("-rc"), "draft": false, "assets": files.map(asset).collect::<Vec<_>>()})
        })
        .collect();
    // cfdfu must ignore a draft, and a tag that would be a path outside the cache.
    releases.push(
        json!({"tag_name": "2099.01", "published_at": "2099-01-01T00:00:00Z", "draft": true, "assets": []}),
    );
    releases.push(json!({"tag_name": "../../etc", "published_at": "2098-01-01T00:00:00Z", "assets": []}));
    json!(releases).to_string().into_bytes()
}

fn hex(bytes: &[u8]) -> String {
    cfdfu::image::Sha256::of(bytes).to_string()
}
