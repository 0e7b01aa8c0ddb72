//! The copies of what was overwritten, and what was under way: the history of each drone, in files.
//!
//! A folder for each drone, named by the serial number of DFU mode and the port, since chips of one batch may share the
//! number. The files in it begin with their time, and the newest says what the last change overwrote: `TIME-ADDRESS-CRC.bin`
//! is a copy, `TIME-none-WHY.mark` says why there is no copy. `TIME-unfinished-….json` is a change whose end was not seen,
//! `TIME-wrote-….json` what a finished one wrote.
//! Where the drone's whole number is known, it is the fourth field of each name, so that a drone that moved is found.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{StateDir, read, time_of};
use crate::clock;
use crate::crazyflie;
use crate::flash::{Address, FLASH_END, LOADER_BASE, Segment, Span};
use crate::job::{CopyProblem, DroneAt, Failure, LogEntry, Outcome, Preview};
use crate::plan::undo::{Change, History, Last, NoCopy, Piece, Unfinished};

/// The folder of the copies.
const UNDO: &str = "undo";
/// Copies of one drone's flash that are kept.
const COPIES: usize = 5;
/// No copy is longer, in bytes; one more shows that a file is.
const COPY_MAX: u64 = FLASH_END - LOADER_BASE.0 as u64 + 1;
/// How each reason is named in a file's name.
const REASONS: [(NoCopy, &str); 4] = [
    (NoCopy::NotKept, "notkept"),
    (NoCopy::WasBlank, "blank"),
    (NoCopy::WasIncomplete, "incomplete"),
    (NoCopy::Damaged, "damaged"),
];

/// The content of an `unfinished` or `wrote` file: the name of the copy that was to be put back, and the pieces as address,
/// length and checksum.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Mark {
    undoes: Option<String>,
    writes: Vec<(u32, u32, u32)>,
    earlier: Vec<(u32, u32, u32)>,
}

/// A change that has begun, on record.
pub(crate) struct Begun {
    record: StateDir,
    drone: DroneAt,
    /// What was saved for it.
    saved: Vec<PathBuf>,
    /// The marks that its own takes the place of.
    older: Vec<PathBuf>,
    /// What is kept of what it overwrites.
    pub kept: Kept,
    /// Why it could not be kept.
    pub problem: Option<io::Error>,
}

/// What is kept of what a job overwrites.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Copy(PathBuf),
    /// The copy from before an interrupted job, which left what is there now.
    Earlier,
    None(NoCopy),
}

/// What an undo would put back.
pub(crate) struct Target {
    pub path: PathBuf,
    /// Its bytes.
    pub copy: Segment,
    pub age: Duration,
    /// What the drone must still hold: [`History::expected`].
    pub expected: Vec<Piece>,
}

impl StateDir {
    /// Puts on record that this job begins to write. An error means that nothing is on record, and nothing kept.
    pub(crate) fn begin(
        &self,
        drone: &DroneAt,
        writes: &[Segment],
        before: Option<&Segment>,
        change: Change,
    ) -> Result<Begun, CopyProblem> {
        let folder = copies_of(drone).ok_or(CopyProblem::NoSerial)?;
        let files = self.files_of(drone).map_err(|error| CopyProblem::Io(error.to_string()))?;
        // Across all its ports: a clock that runs behind does not make an older copy the newest.
        let newest = files.iter().filter_map(|path| time_of(path)).max();
        let past = history(&files);
        let mut next = past.begin(writes, before, change);
        let older = files.into_iter().filter(|path| is_mark(path) || is_wrote(path)).collect();
        let mut begun = Begun {
            record: self.clone(),
            drone: drone.clone(),
            saved: Vec::new(),
            older,
            kept: Kept::Earlier,
            problem: None,
        };
        if next.last != past.last
            && let Last::Copy(copy) = &next.last
        {
            match self.save_copy(&folder, drone, copy, newest) {
                Ok(path) => {
                    begun.kept = Kept::Copy(path.clone());
                    begun.saved.push(path);
                }
                Err(error) => {
                    begun.problem = Some(error);
                    next.last = Last::None(NoCopy::NotKept);
                }
            }
        }
        if let Last::None(why) = next.last {
            begun.kept = Kept::None(why);
            let reason =
                REASONS.iter().find(|(reason, _)| *reason == why).map_or("notkept", |(_, word)| word);
            let name = format!("none-{reason}{}.mark", whole_field(drone));
            begun.saved.extend(self.save_after(&folder, &name, b"", COPIES, newest));
        }
        if let Some(unfinished) = &next.unfinished {
            begun.saved.extend(self.save_mark(drone, unfinished));
        }
        Ok(begun)
    }

    /// What an undo of this drone's last change would put back.
    pub(crate) fn target(&self, drone: &DroneAt) -> io::Result<Result<Target, NoCopy>> {
        let files = self.files_of(drone)?;
        let history = history(&files);
        let copy = match history.target() {
            Ok(copy) => copy,
            Err(why) => return Ok(Err(why)),
        };
        let found = files.iter().rev().find_map(|path| {
            let (time, there) = read_copy(path)?;
            let age = Duration::from_secs(clock::unix_seconds().saturating_sub(time));
            (there == *copy).then(|| {
                let expected = history.expected().to_vec();
                Target { path: path.clone(), copy: there, age, expected }
            })
        });
        Ok(found.ok_or(NoCopy::Damaged))
    }

    /// Where the copies of this drone are.
    pub(crate) fn folder_of_copies(&self, drone: &DroneAt) -> Option<PathBuf> {
        copies_of(drone).map(|folder| self.dir.join(folder))
    }

    /// The change that is on record as begun goes on.
    pub(crate) fn carry_on(&self, drone: &DroneAt) -> Begun {
        let files = self.files_of(drone).unwrap_or_default();
        let ours = files.into_iter().filter(|path| is_mark(path) || is_wrote(path));
        let (mut marks, mut older): (Vec<PathBuf>, Vec<PathBuf>) = ours.partition(|path| is_mark(path));
        let saved = marks.pop().into_iter().collect();
        older.extend(marks);
        Begun { record: self.clone(), drone: drone.clone(), saved, older, kept: Kept::Earlier, problem: None }
    }

    /// An undo found everything in place: if an earlier one is on record as unfinished, it is finished.
    pub(crate) fn undone(&self, drone: &DroneAt) {
        if history(&self.files_of(drone).unwrap_or_default()).is_undoing() {
            self.carry_on(drone).end(&Outcome::Flashed);
        }
    }

    /// Everything on record of this drone, the oldest first. What was kept at another port is this drone's only if both
    /// whole numbers are known and equal.
    fn files_of(&self, drone: &DroneAt) -> io::Result<Vec<PathBuf>> {
        let Some(folder) = copies_of(drone) else { return Ok(Vec::new()) };
        let here = self.dir.join(folder);
        let folders = match fs::read_dir(self.dir.join(UNDO)) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let whole = whole_serial(drone);
        let mut files: Vec<PathBuf> = Vec::new();
        for folder in folders {
            let entries = fs::read_dir(&folder).into_iter().flatten();
            let there: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
            // If drones that share the DFU number were here, a file without a whole number belongs to neither.
            let mut known: Vec<String> =
                there.iter().filter_map(|path| copied_serial(path)).chain(whole.clone()).collect();
            known.sort();
            known.dedup();
            let is_its = |path: &PathBuf| match (copied_serial(path), &whole) {
                (Some(copied), Some(whole)) => copied == *whole,
                _ => folder == here && known.len() <= 1,
            };
            files.extend(there.into_iter().filter(is_its));
        }
        files.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
        Ok(files)
    }

    /// Saves a copy; the oldest copies of that drone go.
    fn save_copy(
        &self,
        folder: &Path,
        drone: &DroneAt,
        copy: &Segment,
        newest: Option<u64>,
    ) -> io::Result<PathBuf> {
        let crc = crc32fast::hash(&copy.data);
        let name = format!("{:08X}-{crc:08x}{}.bin", copy.address.0, whole_field(drone));
        let path = self.save_after(folder, &name, &copy.data, COPIES, newest)?;
        // What is about to be overwritten exists nowhere else from then on: the copy is read back, as the flash is.
        let is_whole = || read_copy(&path).is_some_and(|(_, there)| there == *copy);
        // Once more before it counts as wrong.
        if is_whole() || is_whole() {
            return Ok(path);
        }
        let _ = fs::remove_file(&path);
        Err(io::Error::other("the copy does not read back as it was written"))
    }

    fn save_mark(&self, drone: &DroneAt, unfinished: &Unfinished) -> io::Result<PathBuf> {
        let undoes = unfinished.undoes.as_ref().and_then(|copy| {
            let files = self.files_of(drone).unwrap_or_default();
            let path =
                files.iter().rev().find(|path| read_copy(path).is_some_and(|(_, there)| there == *copy))?;
            Some(path.file_name()?.to_str()?.to_owned())
        });
        let kind = if undoes.is_some() { "undo" } else { "flash" };
        let mark =
            Mark { undoes, writes: numbers(&unfinished.writes), earlier: numbers(&unfinished.earlier) };
        self.save_json(drone, &format!("unfinished-{kind}"), &mark)
    }

    fn save_json(&self, drone: &DroneAt, name: &str, mark: &Mark) -> io::Result<PathBuf> {
        let folder = copies_of(drone).ok_or(io::ErrorKind::NotFound)?;
        let name = format!("{name}{}.json", whole_field(drone));
        let newest = self.files_of(drone)?.iter().filter_map(|path| time_of(path)).max();
        self.save_after(&folder, &name, serde_json::json!(mark).to_string().as_bytes(), COPIES, newest)
    }
}

/// Puts a job on record before it writes, with the line that the log should have of it.
pub(crate) fn begin(
    record: &StateDir,
    drone: &DroneAt,
    preview: &Preview,
    change: Change,
) -> (Option<Begun>, Option<LogEntry>) {
    let before = preview.before.as_ref();
    match record.begin(drone, preview.plan.pieces(), before, change) {
        Err(problem) => (None, Some(LogEntry::NoCopy(problem))),
        Ok(begun) => {
            let entry = match (&begun.problem, &begun.kept) {
                (Some(error), _) => Some(LogEntry::NoCopy(CopyProblem::Io(error.to_string()))),
                (None, Kept::Copy(path)) => Some(LogEntry::CopyKept(path.clone())),
                (None, Kept::Earlier) => Some(LogEntry::EarlierCopyKept),
                (None, Kept::None(NoCopy::WasIncomplete)) => Some(LogEntry::NoCopy(CopyProblem::Incomplete)),
                (None, Kept::None(_)) => None,
            };
            (Some(begun), entry)
        }
    }
}

impl Begun {
    /// How that job ended. Nothing of this can be made undone: if it fails, the next job finds an unfinished change, and
    /// looks whether it is complete.
    pub(crate) fn end(self, outcome: &Outcome) {
        let remove = |files: &[PathBuf]| files.iter().for_each(|path| drop(fs::remove_file(path)));
        match outcome {
            Outcome::Failed(Failure { drone, .. }) | Outcome::Cancelled(drone) if drone.is_unchanged() => {
                remove(&self.saved);
            }
            // A job that is carried on may find that everything was written.
            Outcome::Flashed | Outcome::Unchanged => {
                let ended = history(&self.record.files_of(&self.drone).unwrap_or_default()).end();
                let own: Vec<PathBuf> = self.saved.into_iter().filter(|path| is_mark(path)).collect();
                let wrote = Mark { writes: numbers(&ended.wrote), ..Mark::default() };
                let _ = self.record.save_json(&self.drone, "wrote-image", &wrote);
                if let Some(left) = ended.unfinished {
                    let _ = self.record.save_mark(&self.drone, &left);
                }
                remove(&own);
                remove(&self.older);
            }
            // Its own mark takes their place, if it could be saved.
            _ if self.saved.iter().any(|path| is_mark(path)) => remove(&self.older),
            _ => {}
        }
    }
}

/// The history that these files hold, the oldest first.
fn history(files: &[PathBuf]) -> History {
    let last = files.iter().rev().find_map(|path| match copy_named(path) {
        Some(_) if !path.symlink_metadata().is_ok_and(|it| it.is_file()) => None,
        Some(_) => Some(read_copy(path).map_or(Last::None(NoCopy::Damaged), |(_, copy)| Last::Copy(copy))),
        None => none_named(path).map(Last::None),
    });
    let last = last.unwrap_or_default();
    let damaged = Last::None(NoCopy::Damaged);
    let Some(mark) = files.iter().rev().find(|path| is_mark(path)) else {
        return match wrote(files) {
            Some(wrote) => History { last, unfinished: None, wrote },
            // Whether the drone still holds that cannot be looked up: a check that cannot be made has not passed.
            None => History { last: damaged, ..History::default() },
        };
    };
    match unfinished(mark, files) {
        Some(unfinished) => History { last, unfinished: Some(unfinished), wrote: Vec::new() },
        // Without it the newest copy may be the wrong one to put back.
        None => History { last: damaged, ..History::default() },
    }
}

/// What the last change wrote; nothing if its end is not on record, where a copy that is newer is of another change. `None`
/// if it cannot be read.
fn wrote(files: &[PathBuf]) -> Option<Vec<Piece>> {
    let newest = files.iter().rev().find(|path| !is_mark(path)).filter(|path| is_wrote(path));
    let Some(newest) = newest else { return Some(Vec::new()) };
    let mark: Mark = serde_json::from_slice(&read(newest, COPY_MAX)?).ok()?;
    Some(pieces(mark.writes))
}

fn pieces(numbers: Vec<(u32, u32, u32)>) -> Vec<Piece> {
    let piece = |(at, len, crc)| Some(Piece { span: Span::new(Address(at), len)?, crc });
    numbers.into_iter().filter_map(piece).collect()
}

fn numbers(pieces: &[Piece]) -> Vec<(u32, u32, u32)> {
    pieces.iter().map(|piece| (piece.span.start().0, piece.span.len(), piece.crc)).collect()
}

/// The change that this mark is of; `None` if it, or the copy that it was to put back, cannot be read.
fn unfinished(mark: &Path, files: &[PathBuf]) -> Option<Unfinished> {
    let Mark { undoes, writes, earlier } = serde_json::from_slice(&read(mark, COPY_MAX)?).ok()?;
    let undoes = match undoes {
        Some(name) => {
            let file = files.iter().find(|path| path.file_name().is_some_and(|it| *it == *name))?;
            Some(read_copy(file)?.1)
        }
        None => None,
    };
    Some(Unfinished { undoes, writes: pieces(writes), earlier: pieces(earlier) })
}

/// The folder of a drone's copies; `None` without a serial number, since such drones cannot be told apart.
fn copies_of(drone: &DroneAt) -> Option<PathBuf> {
    let serial = crazyflie::dfu_serial(&drone.serial).unwrap_or_else(|| drone.serial.clone());
    let serial: String = serial.chars().filter(char::is_ascii_alphanumeric).take(24).collect();
    (!serial.is_empty()).then(|| Path::new(UNDO).join(format!("{serial}@{}", drone.port)))
}

/// The whole number of the drone's chip, which a running firmware shows.
fn whole_serial(drone: &DroneAt) -> Option<String> {
    crazyflie::dfu_serial(&drone.serial).map(|_| drone.serial.to_ascii_uppercase())
}

/// The same as the last field of a file's name.
fn whole_field(drone: &DroneAt) -> String {
    whole_serial(drone).map(|serial| format!("-{serial}")).unwrap_or_default()
}

/// The fields of a file's name, less its ending.
fn fields(path: &Path) -> Option<Vec<&str>> {
    Some(path.file_stem()?.to_str()?.split('-').collect())
}

/// The whole number in the name of a file.
fn copied_serial(path: &Path) -> Option<String> {
    fields(path)?.get(3).map(|&serial| serial.to_owned())
}

fn is_mark(path: &Path) -> bool {
    is_json(path, "unfinished")
}

fn is_wrote(path: &Path) -> bool {
    is_json(path, "wrote")
}

fn is_json(path: &Path, kind: &str) -> bool {
    path.extension().is_some_and(|it| it == "json") && fields(path).is_some_and(|it| it.get(1) == Some(&kind))
}

fn none_named(path: &Path) -> Option<NoCopy> {
    let fields = fields(path).filter(|it| it.get(1) == Some(&"none"))?;
    let is_it = |(_, word): &&(NoCopy, &str)| fields.get(2) == Some(word);
    REASONS.iter().find(is_it).map(|(why, _)| *why)
}

/// When a copy was made, its address and its checksum, if this is the name of one.
fn copy_named(path: &Path) -> Option<(u64, Address, u32)> {
    let fields = fields(path).filter(|_| path.extension().is_some_and(|it| it == "bin"))?;
    let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok();
    Some((fields.first()?.parse().ok()?, Address(number(1)?), number(2)?))
}

/// A copy and when it was made, if the file is one and its bytes are those that were kept: its name has their
/// address and checksum.
fn read_copy(path: &Path) -> Option<(u64, Segment)> {
    let (time, address, crc) = copy_named(path)?;
    let data = read(path, COPY_MAX)?;
    (crc32fast::hash(&data) == crc).then_some((time, Segment { address, data }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flash::FIRMWARE_BASE;
    use crate::job::DroneState;

    fn at(port: &str, serial: &str) -> DroneAt {
        DroneAt { port: port.parse().unwrap(), serial: serial.to_owned() }
    }

    fn copy(byte: u8) -> Segment {
        Segment { address: FIRMWARE_BASE, data: vec![byte; 64] }
    }

    /// A flash over this, to its end; the file of the copy.
    fn flashed_over(record: &StateDir, drone: &DroneAt, before: &Segment) -> PathBuf {
        let begun = record.begin(drone, &[copy(0x77)], Some(before), Change::Flash).unwrap();
        let Kept::Copy(path) = begun.kept.clone() else { panic!("{:?}", begun.kept) };
        begun.end(&Outcome::Flashed);
        path
    }

    fn target(record: &StateDir, drone: &DroneAt) -> Result<u8, NoCopy> {
        record.target(drone).unwrap().map(|target| target.copy.data[0])
    }

    fn expected(record: &StateDir, drone: &DroneAt) -> Vec<Piece> {
        record.target(drone).unwrap().map(|target| target.expected).unwrap()
    }

    /// Two chips of one batch with one serial number in DFU mode.
    #[test]
    fn twins_never_share_a_copy_and_a_drone_that_moved_finds_its_own() {
        // The wafer is in byte 4 only, which the number in DFU mode leaves out.
        let (one, twin) = ("51004F000551343036333233", "51004F000651343036333233");
        assert_eq!(crazyflie::dfu_serial(one), crazyflie::dfu_serial(twin));
        let dfu = crazyflie::dfu_serial(one).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let record = StateDir { dir: dir.path().to_owned() };
        flashed_over(&record, &at("1-1", one), &copy(1));
        flashed_over(&record, &at("1-2", &dfu), &copy(2));
        assert_eq!(target(&record, &at("1-1", one)), Ok(1));
        assert_eq!(target(&record, &at("1-3", one)), Ok(1), "moved");
        assert_eq!(target(&record, &at("1-1", &dfu)), Ok(1), "by hand, at the same port");
        assert_eq!(target(&record, &at("1-2", &dfu)), Ok(2));
        assert_eq!(
            target(&record, &at("1-3", &dfu)),
            Err(NoCopy::NeverFlashed),
            "which of the two is unknown"
        );
        assert_eq!(target(&record, &at("1-1", twin)), Err(NoCopy::NeverFlashed), "another chip at the port");
    }

    /// Twins that were both seen running at one port: by hand it cannot be told which of them it is.
    #[test]
    fn a_copy_is_not_given_to_one_of_two_drones_that_share_a_number() {
        let (one, twin) = ("51004F000551343036333233", "51004F000651343036333233");
        let dfu = crazyflie::dfu_serial(one).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let record = StateDir { dir: dir.path().to_owned() };
        flashed_over(&record, &at("1-1", one), &copy(1));
        flashed_over(&record, &at("1-1", twin), &copy(2));
        assert_eq!(target(&record, &at("1-1", &dfu)), Err(NoCopy::NeverFlashed));
        assert_eq!((target(&record, &at("1-1", one)), target(&record, &at("1-1", twin))), (Ok(1), Ok(2)));
        // By hand, with another one known at that port: that is neither's.
        let dir = tempfile::tempdir().unwrap();
        let record = StateDir { dir: dir.path().to_owned() };
        flashed_over(&record, &at("1-1", &dfu), &copy(1));
        assert_eq!(target(&record, &at("1-1", one)), Ok(1), "the only one that was ever there");
        flashed_over(&record, &at("1-1", twin), &copy(2));
        assert_eq!(target(&record, &at("1-1", one)), Err(NoCopy::NeverFlashed));
    }

    /// At another port, by a clock that runs behind: what was kept last is still the newest.
    #[test]
    fn the_order_of_copies_holds_across_ports() {
        let serial = "51004F000551343036333233";
        let dir = tempfile::tempdir().unwrap();
        let record = StateDir { dir: dir.path().to_owned() };
        let path = flashed_over(&record, &at("1-1", serial), &copy(1));
        let name = path.file_name().unwrap().to_str().unwrap().split_once('-').unwrap().1.to_owned();
        fs::rename(&path, path.with_file_name(format!("4000000000-{name}"))).unwrap();
        flashed_over(&record, &at("1-2", serial), &copy(2));
        assert_eq!(target(&record, &at("1-3", serial)), Ok(2));
    }

    /// The newest copy is what an interrupted undo overwrote: it is not the one to put back, whatever is damaged.
    #[test]
    fn an_undo_on_record_that_cannot_be_read_is_not_taken_for_none() {
        let interrupted = || {
            let dir = tempfile::tempdir().unwrap();
            let record = StateDir { dir: dir.path().to_owned() };
            let drone = at("1-1", "338133873034");
            let first = flashed_over(&record, &drone, &copy(1));
            let begun = record.begin(&drone, &[copy(1)], Some(&copy(2)), Change::Undo).unwrap();
            let mark = begun.saved.iter().find(|path| is_mark(path)).unwrap().clone();
            begun.end(&Outcome::Cancelled(DroneState::WithoutFirmware));
            assert_eq!(target(&record, &drone), Ok(1));
            (dir, record, drone, first, mark)
        };
        let (_dir, record, drone, first, _) = interrupted();
        fs::write(first, b"cut").unwrap();
        assert_eq!(target(&record, &drone), Err(NoCopy::Damaged), "its copy");
        let (_dir, record, drone, _, mark) = interrupted();
        fs::write(mark, b"{").unwrap();
        assert_eq!(target(&record, &drone), Err(NoCopy::Damaged), "its mark");
        // What a finished change wrote is what an undo is checked by.
        let dir = tempfile::tempdir().unwrap();
        let record = StateDir { dir: dir.path().to_owned() };
        flashed_over(&record, &drone, &copy(1));
        let wrote = record.files_of(&drone).unwrap().into_iter().find(|path| is_wrote(path)).unwrap();
        fs::write(wrote, b"{").unwrap();
        assert_eq!(target(&record, &drone), Err(NoCopy::Damaged), "what it wrote");
    }

    #[test]
    fn the_last_copies_are_kept_and_the_newest_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let record = StateDir { dir: dir.path().join("state") };
        let drone = at("1-2", "338133873034");
        assert_eq!(target(&record, &drone), Err(NoCopy::NeverFlashed));
        let path = flashed_over(&record, &at("1-2", "../33813387\u{1b}3034"), &copy(7));
        assert!(path.starts_with(dir.path().join("state/undo/338133873034@1-2")), "{}", path.display());
        let folder = path.parent().unwrap();
        assert_eq!(fs::read_dir(folder).unwrap().count(), 2, "what was written, and no mark is left");
        // Whatever is no file is passed over, and so is what is no copy by its name.
        fs::write(path.with_file_name("notes.txt"), b"no copy").unwrap();
        fs::create_dir(path.with_file_name("9999999999-08004000-00000000.bin")).unwrap();
        assert_eq!(target(&record, &drone), Ok(7));
        fs::remove_dir(path.with_file_name("9999999999-08004000-00000000.bin")).unwrap();
        for n in 1..=COPIES {
            flashed_over(&record, &drone, &copy(10 + u8::try_from(n).unwrap()));
        }
        assert_eq!(
            fs::read_dir(folder).unwrap().count(),
            COPIES + 2,
            "the last that was written, and what is no copy"
        );
        let newest = record.target(&drone).unwrap().unwrap();
        assert_eq!((newest.copy.data[0], newest.age < Duration::from_secs(60)), (15, true));
        // A copy that was cut off or changed does not make an older one the newest.
        fs::write(&newest.path, b"cut").unwrap();
        assert_eq!(target(&record, &drone), Err(NoCopy::Damaged));
    }

    /// A small computer without a battery begins in 1970, or where it stopped: the newest copy is the newest all the same.
    #[test]
    fn a_clock_that_runs_behind_does_not_cost_the_newest_copy() {
        let dir = tempfile::tempdir().unwrap();
        let record = StateDir { dir: dir.path().to_owned() };
        let folder = dir.path().join("undo/A1@1-1");
        fs::create_dir_all(&folder).unwrap();
        for n in 0..COPIES {
            fs::write(folder.join(format!("{}-08004000-00000000.bin", 4_000_000_000 + n)), b"later").unwrap();
        }
        for byte in 1..=3 {
            flashed_over(&record, &at("1-1", "A1"), &copy(byte));
            assert_eq!(target(&record, &at("1-1", "A1")), Ok(byte), "also twice in one second");
        }
        // One that cannot be removed is no reason to fail, and nothing half written is left.
        fs::create_dir(folder.join("0000000000-08004000-00000000.bin")).unwrap();
        flashed_over(&record, &at("1-1", "A1"), &copy(4));
        assert!(!fs::read_dir(&folder).unwrap().any(|it| it.unwrap().path().extension().unwrap() == "part"));
    }

    /// The same in files as in memory: an undo that is cut is carried on by the next, whichever process that is.
    #[test]
    fn an_interrupted_change_is_on_record_until_it_is_finished() {
        let lost = |drone| {
            let kind = crate::job::FailureKind::NoDevice;
            Outcome::Failed(Failure { kind, place: None, drone })
        };
        let cut = || lost(DroneState::WithoutFirmware);
        let dir = tempfile::tempdir().unwrap();
        let record = StateDir { dir: dir.path().to_owned() };
        let drone = at("1-1", "338133873034");
        let half = Segment { address: FIRMWARE_BASE, data: [vec![0xFF; 8], vec![2; 56]].concat() };
        flashed_over(&record, &drone, &copy(1));
        // Put back, and cut: it is still that undo, though a newer copy is there.
        let begun = record.begin(&drone, &[copy(1)], Some(&copy(2)), Change::Undo).unwrap();
        assert!(matches!(begun.kept, Kept::Copy(_)));
        begun.end(&cut());
        assert_eq!(target(&record, &drone), Ok(1));
        // Cut again; then not even begun; then to its end.
        let begun = record.begin(&drone, &[copy(1)], Some(&half), Change::Undo).unwrap();
        assert_eq!(begun.kept, Kept::Earlier);
        begun.end(&cut());
        let begun = record.begin(&drone, &[copy(9)], Some(&half), Change::Flash).unwrap();
        begun.end(&lost(DroneState::Untouched));
        assert_eq!(target(&record, &drone), Ok(1));
        assert_eq!(expected(&record, &drone), [], "a change is unfinished");
        record.begin(&drone, &[copy(1)], Some(&half), Change::Undo).unwrap().end(&Outcome::Flashed);
        assert_eq!(target(&record, &drone), Ok(2), "what the undo overwrote");
        assert_eq!(expected(&record, &drone), [Piece::of(&copy(1)).unwrap()]);
        // A flash without a copy, and one that finds half a firmware of which nothing is known, say why not.
        record.begin(&drone, &[copy(3)], None, Change::Flash).unwrap().end(&Outcome::Flashed);
        assert_eq!(target(&record, &drone), Err(NoCopy::NotKept));
        record.begin(&drone, &[copy(3)], Some(&half), Change::Flash).unwrap().end(&Outcome::Flashed);
        assert_eq!(target(&record, &drone), Err(NoCopy::WasIncomplete));
        // Carried on by another process: nothing is left open.
        record.begin(&drone, &[copy(4)], Some(&copy(3)), Change::Flash).unwrap().end(&cut());
        record.carry_on(&drone).end(&Outcome::Flashed);
        assert_eq!(target(&record, &drone), Ok(3));
        assert_eq!(history(&record.files_of(&drone).unwrap()).unfinished, None);
        // A copy that is newer than what was written is of a change whose end is not on record.
        assert_eq!(expected(&record, &drone), [Piece::of(&copy(4)).unwrap()]);
        let begun = record.begin(&drone, &[copy(5)], Some(&copy(4)), Change::Flash).unwrap();
        begun.saved.iter().filter(|path| is_mark(path)).for_each(|mark| fs::remove_file(mark).unwrap());
        assert_eq!((target(&record, &drone), expected(&record, &drone)), (Ok(4), vec![]));
    }
}
