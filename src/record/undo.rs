//! Stores the undo history of each drone in files, so that a later process can undo the last change or resume an
//! interrupted change. [`UNDO`] describes the files.

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

/// The folder of the undo history in the state directory.
///
/// Each drone has a subfolder for each port on which it was flashed, named after its DFU serial number and the port,
/// because chips of the same batch may share a DFU serial number. File names start with a time stamp, and the newest
/// files describe the last change:
///
/// - `TIME-ADDRESS-CRC.bin`: a copy of the overwritten content
/// - `TIME-none-REASON.mark`: the reason why there is no copy
/// - `TIME-unfinished-….json`: a change that has not finished
/// - `TIME-wrote-….json`: the pieces of flash that a finished change wrote
///
/// If the drone's full serial number is known, the number is the fourth field of each name, so that cfdfu finds the
/// drone's files on any port.
const UNDO: &str = "undo";
/// Number of copies to keep in each subfolder. The same limit applies to the files with each other extension.
const COPIES: usize = 5;
/// Maximum number of bytes to read from a copy: the size of the flash plus one, so that an oversized file is detected.
const COPY_MAX: u64 = FLASH_END - LOADER_BASE.0 as u64 + 1;
/// The words in file names for the reasons.
const REASONS: [(NoCopy, &str); 4] = [
    (NoCopy::NotKept, "notkept"),
    (NoCopy::WasBlank, "blank"),
    (NoCopy::WasIncomplete, "incomplete"),
    (NoCopy::Damaged, "damaged"),
];

/// The content of an `unfinished` or `wrote` file. `undoes` is the file name of the copy that an undo restores. Each
/// piece consists of an address, a length and a checksum.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Mark {
    undoes: Option<String>,
    writes: Vec<(u32, u32, u32)>,
    earlier: Vec<(u32, u32, u32)>,
}

/// A recorded change that has begun.
pub(crate) struct BegunChange {
    record: StateDir,
    drone: DroneAt,
    /// The files saved for this change.
    saved: Vec<PathBuf>,
    /// The older marks and `wrote` files, which the files of this change replace.
    older: Vec<PathBuf>,
    /// How the overwritten content is kept.
    pub kept: Kept,
    /// The reason why the copy could not be saved, if saving failed.
    pub problem: Option<io::Error>,
}

/// How the content that a job overwrites is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Copy(PathBuf),
    /// The flash contains the leftovers of an interrupted job, so the copy from before that job is kept.
    Earlier,
    None(NoCopy),
}

/// The copy that an undo would restore.
pub(crate) struct Target {
    pub path: PathBuf,
    pub copy: Segment,
    pub age: Duration,
    /// The pieces that the drone must still contain; see [`History::expected`].
    pub expected: Vec<Piece>,
}

impl StateDir {
    /// Records that a job is about to write. If this method returns an error, nothing is recorded and no copy is kept.
    pub(crate) fn begin(
        &self,
        drone: &DroneAt,
        writes: &[Segment],
        before: Option<&Segment>,
        change: Change,
    ) -> Result<BegunChange, CopyProblem> {
        let folder = copies_of(drone).ok_or(CopyProblem::NoSerial)?;
        let files = self.files_of(drone).map_err(|error| CopyProblem::Io(error.to_string()))?;
        // Use the newest time across all ports, so that setting the clock back cannot make an older copy the newest.
        let newest = files.iter().filter_map(|path| time_of(path)).max();
        let past = read_history(&files);
        let mut next = past.begin(writes, before, change);
        let older = files.into_iter().filter(|path| is_mark(path) || is_wrote(path)).collect();
        let mut begun = BegunChange {
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
            let name = format!("none-{reason}{}.mark", serial_field(drone));
            begun.saved.extend(self.save_after(&folder, &name, b"", COPIES, newest));
        }
        if let Some(unfinished) = &next.unfinished {
            begun.saved.extend(self.save_mark(drone, unfinished));
        }
        Ok(begun)
    }

    /// Finds the copy that an undo of this drone's last change would restore. Returns the reason if there is no copy.
    pub(crate) fn target(&self, drone: &DroneAt) -> io::Result<Result<Target, NoCopy>> {
        let files = self.files_of(drone)?;
        let history = read_history(&files);
        let copy = match history.target() {
            Ok(copy) => copy,
            Err(why) => return Ok(Err(why)),
        };
        let found = files.iter().rev().find_map(|path| {
            let (time, found) = read_copy(path)?;
            let age = Duration::from_secs(clock::unix_seconds().saturating_sub(time));
            (found == *copy).then(|| {
                let expected = history.expected().to_vec();
                Target { path: path.clone(), copy: found, age, expected }
            })
        });
        Ok(found.ok_or(NoCopy::Damaged))
    }

    /// Returns the folder with this drone's copies, if the drone has a serial number.
    pub(crate) fn folder_of_copies(&self, drone: &DroneAt) -> Option<PathBuf> {
        copies_of(drone).map(|folder| self.dir.join(folder))
    }

    /// Resumes the recorded change.
    pub(crate) fn resume_change(&self, drone: &DroneAt) -> BegunChange {
        let files = self.files_of(drone).unwrap_or_default();
        let changes = files.into_iter().filter(|path| is_mark(path) || is_wrote(path));
        let (mut marks, mut older): (Vec<PathBuf>, Vec<PathBuf>) = changes.partition(|path| is_mark(path));
        let saved = marks.pop().into_iter().collect();
        older.extend(marks);
        BegunChange {
            record: self.clone(),
            drone: drone.clone(),
            saved,
            older,
            kept: Kept::Earlier,
            problem: None,
        }
    }

    /// Marks an unfinished undo as finished, after the next undo has found the restored content on the drone.
    pub(crate) fn finish_undo(&self, drone: &DroneAt) {
        if read_history(&self.files_of(drone).unwrap_or_default()).is_undoing() {
            self.resume_change(drone).end(&Outcome::Flashed);
        }
    }

    /// Returns all files of this drone, oldest first. A file from a different port belongs to this drone only if both
    /// full serial numbers are known and equal.
    fn files_of(&self, drone: &DroneAt) -> io::Result<Vec<PathBuf>> {
        let Some(folder) = copies_of(drone) else { return Ok(Vec::new()) };
        let here = self.dir.join(folder);
        let folders = match fs::read_dir(self.dir.join(UNDO)) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let full = full_serial(drone);
        let mut files: Vec<PathBuf> = Vec::new();
        for folder in folders {
            let entries = fs::read_dir(&folder).into_iter().flatten();
            let paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
            // If two drones with the same DFU serial number have been on this port, a file without a full serial number
            // could belong to either drone, so the file is assigned to neither.
            let mut known: Vec<String> =
                paths.iter().filter_map(|path| serial_in_name(path)).chain(full.clone()).collect();
            known.sort();
            known.dedup();
            let is_this_drone = |path: &PathBuf| match (serial_in_name(path), &full) {
                (Some(named), Some(full)) => named == *full,
                _ => folder == here && known.len() <= 1,
            };
            files.extend(paths.into_iter().filter(is_this_drone));
        }
        files.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
        Ok(files)
    }

    /// Saves a copy, and removes the folder's oldest copies if there are more than [`COPIES`].
    fn save_copy(
        &self,
        folder: &Path,
        drone: &DroneAt,
        copy: &Segment,
        newest: Option<u64>,
    ) -> io::Result<PathBuf> {
        let crc = crc32fast::hash(&copy.data);
        let name = format!("{:08X}-{crc:08x}{}.bin", copy.address.0, serial_field(drone));
        let path = self.save_after(folder, &name, &copy.data, COPIES, newest)?;
        // Read the copy back: once the flash is overwritten, the content exists nowhere else.
        let is_intact = || read_copy(&path).is_some_and(|(_, found)| found == *copy);
        // A mismatch counts only if a second read confirms it.
        if is_intact() || is_intact() {
            return Ok(path);
        }
        let _ = fs::remove_file(&path);
        Err(io::Error::other("the saved copy differs when read back"))
    }

    fn save_mark(&self, drone: &DroneAt, unfinished: &Unfinished) -> io::Result<PathBuf> {
        let undoes = unfinished.undoes.as_ref().and_then(|copy| {
            let files = self.files_of(drone).unwrap_or_default();
            let path =
                files.iter().rev().find(|path| read_copy(path).is_some_and(|(_, found)| found == *copy))?;
            Some(path.file_name()?.to_str()?.to_owned())
        });
        let kind = if undoes.is_some() { "undo" } else { "flash" };
        let mark =
            Mark { undoes, writes: to_numbers(&unfinished.writes), earlier: to_numbers(&unfinished.earlier) };
        self.save_json(drone, &format!("unfinished-{kind}"), &mark)
    }

    fn save_json(&self, drone: &DroneAt, name: &str, mark: &Mark) -> io::Result<PathBuf> {
        let folder = copies_of(drone).ok_or(io::ErrorKind::NotFound)?;
        let name = format!("{name}{}.json", serial_field(drone));
        let newest = self.files_of(drone)?.iter().filter_map(|path| time_of(path)).max();
        self.save_after(&folder, &name, serde_json::json!(mark).to_string().as_bytes(), COPIES, newest)
    }
}

/// Records the change that a job is about to make. Returns the recorded change and a log entry, if any.
pub(crate) fn begin(
    record: &StateDir,
    drone: &DroneAt,
    preview: &Preview,
    change: Change,
) -> (Option<BegunChange>, Option<LogEntry>) {
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

impl BegunChange {
    /// Records the outcome of the job. Errors are ignored: the next job then finds an unfinished change and checks
    /// whether the flash contains everything that the change had to write.
    pub(crate) fn end(self, outcome: &Outcome) {
        let remove = |files: &[PathBuf]| files.iter().for_each(|path| drop(fs::remove_file(path)));
        match outcome {
            Outcome::Failed(Failure { drone, .. }) | Outcome::Cancelled(drone) if drone.is_unchanged() => {
                remove(&self.saved);
            }
            // A resumed job is `Unchanged` if everything was already written.
            Outcome::Flashed | Outcome::Unchanged => {
                let ended = read_history(&self.record.files_of(&self.drone).unwrap_or_default()).end();
                let own: Vec<PathBuf> = self.saved.into_iter().filter(|path| is_mark(path)).collect();
                let wrote = Mark { writes: to_numbers(&ended.wrote), ..Mark::default() };
                let _ = self.record.save_json(&self.drone, "wrote-image", &wrote);
                if let Some(unfinished) = ended.unfinished {
                    let _ = self.record.save_mark(&self.drone, &unfinished);
                }
                remove(&own);
                remove(&self.older);
            }
            // If the mark of this change was saved, the mark replaces the older files.
            _ if self.saved.iter().any(|path| is_mark(path)) => remove(&self.older),
            _ => {}
        }
    }
}

/// Reads the history from files sorted oldest first.
fn read_history(files: &[PathBuf]) -> History {
    let last = files.iter().rev().find_map(|path| match copy_in_name(path) {
        Some(_) if !path.symlink_metadata().is_ok_and(|it| it.is_file()) => None,
        Some(_) => Some(read_copy(path).map_or(Last::None(NoCopy::Damaged), |(_, copy)| Last::Copy(copy))),
        None => reason_in_name(path).map(Last::None),
    });
    let last = last.unwrap_or_default();
    let damaged = Last::None(NoCopy::Damaged);
    let Some(mark) = files.iter().rev().find(|path| is_mark(path)) else {
        return match read_wrote(files) {
            Some(wrote) => History { last, unfinished: None, wrote },
            // The `wrote` file is unreadable, so cfdfu cannot check whether the drone still contains what was written.
            // An impossible check counts as failed.
            None => History { last: damaged, ..History::default() },
        };
    };
    match read_unfinished(mark, files) {
        Some(unfinished) => History { last, unfinished: Some(unfinished), wrote: Vec::new() },
        // The mark is unreadable, so the newest copy may be the wrong copy to restore.
        None => History { last: damaged, ..History::default() },
    }
}

/// Reads which pieces the last change wrote. Returns an empty list if the end of that change was not recorded, because
/// the newest file is then a copy, or the reason why there is no copy. Returns `None` if the `wrote` file cannot be
/// read.
fn read_wrote(files: &[PathBuf]) -> Option<Vec<Piece>> {
    let newest = files.iter().rev().find(|path| !is_mark(path)).filter(|path| is_wrote(path));
    let Some(newest) = newest else { return Some(Vec::new()) };
    let mark: Mark = serde_json::from_slice(&read(newest, COPY_MAX)?).ok()?;
    Some(to_pieces(mark.writes))
}

fn to_pieces(numbers: Vec<(u32, u32, u32)>) -> Vec<Piece> {
    let piece = |(at, len, crc)| Some(Piece { span: Span::new(Address(at), len)?, crc });
    numbers.into_iter().filter_map(piece).collect()
}

fn to_numbers(pieces: &[Piece]) -> Vec<(u32, u32, u32)> {
    pieces.iter().map(|piece| (piece.span.start().0, piece.span.len(), piece.crc)).collect()
}

/// Reads the unfinished change from a mark. Returns `None` if the mark or the copy to restore cannot be read.
fn read_unfinished(mark: &Path, files: &[PathBuf]) -> Option<Unfinished> {
    let Mark { undoes, writes, earlier } = serde_json::from_slice(&read(mark, COPY_MAX)?).ok()?;
    let undoes = match undoes {
        Some(name) => {
            let file = files.iter().find(|path| path.file_name().is_some_and(|it| *it == *name))?;
            Some(read_copy(file)?.1)
        }
        None => None,
    };
    Some(Unfinished { undoes, writes: to_pieces(writes), earlier: to_pieces(earlier) })
}

/// Returns the folder of a drone's copies, relative to the state directory. Returns `None` if the drone has no serial
/// number, because such drones cannot be distinguished.
fn copies_of(drone: &DroneAt) -> Option<PathBuf> {
    let serial = crazyflie::dfu_serial(&drone.serial).unwrap_or_else(|| drone.serial.clone());
    let serial: String = serial.chars().filter(char::is_ascii_alphanumeric).take(24).collect();
    (!serial.is_empty()).then(|| Path::new(UNDO).join(format!("{serial}@{}", drone.port)))
}

/// Returns the full serial number of the drone's chip, which only the running firmware reports.
fn full_serial(drone: &DroneAt) -> Option<String> {
    crazyflie::dfu_serial(&drone.serial).map(|_| drone.serial.to_ascii_uppercase())
}

/// Formats the full serial number as the last field of a file name; empty if the number is unknown.
fn serial_field(drone: &DroneAt) -> String {
    full_serial(drone).map(|serial| format!("-{serial}")).unwrap_or_default()
}

/// Returns the fields of a file name without its extension.
fn fields(path: &Path) -> Option<Vec<&str>> {
    Some(path.file_stem()?.to_str()?.split('-').collect())
}

/// Returns the full serial number in a file name, if any.
fn serial_in_name(path: &Path) -> Option<String> {
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

fn reason_in_name(path: &Path) -> Option<NoCopy> {
    let fields = fields(path).filter(|it| it.get(1) == Some(&"none"))?;
    let matches = |(_, word): &&(NoCopy, &str)| fields.get(2) == Some(word);
    REASONS.iter().find(matches).map(|(why, _)| *why)
}

/// Returns the time, address and checksum in the name of a copy, or `None` for other names.
fn copy_in_name(path: &Path) -> Option<(u64, Address, u32)> {
    let fields = fields(path).filter(|_| path.extension().is_some_and(|it| it == "bin"))?;
    let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok();
    Some((fields.first()?.parse().ok()?, Address(number(1)?), number(2)?))
}

/// Reads a copy and its time. Returns `None` if the file is not a copy or does not match the checksum in its name.
fn read_copy(path: &Path) -> Option<(u64, Segment)> {
    let (time, address, crc) = copy_in_name(path)?;
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

    /// Records a complete flash that overwrites `before` and returns the path of the copy.
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

    /// Two chips of the same batch may have the same serial number in DFU mode.
    #[test]
    fn drones_with_the_same_dfu_serial_never_share_a_copy() {
        // The serial numbers differ only in byte 4 (the wafer), which is not part of the DFU serial number.
        let (one, twin) = ("51004F000551343036333233", "51004F000651343036333233");
        assert_eq!(crazyflie::dfu_serial(one), crazyflie::dfu_serial(twin));
        let dfu = crazyflie::dfu_serial(one).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let record = StateDir { dir: dir.path().to_owned() };
        flashed_over(&record, &at("1-1", one), &copy(1));
        flashed_over(&record, &at("1-2", &dfu), &copy(2));
        assert_eq!(target(&record, &at("1-1", one)), Ok(1));
        assert_eq!(target(&record, &at("1-3", one)), Ok(1), "on a different port");
        assert_eq!(target(&record, &at("1-1", &dfu)), Ok(1), "in DFU mode, on the same port");
        assert_eq!(target(&record, &at("1-2", &dfu)), Ok(2));
        assert_eq!(
            target(&record, &at("1-3", &dfu)),
            Err(NoCopy::NeverFlashed),
            "the copy could belong to either drone"
        );
        assert_eq!(target(&record, &at("1-1", twin)), Err(NoCopy::NeverFlashed), "the other chip's copy");
    }

    /// Two drones have been running on the same port. If a drone enters DFU mode by hand, cfdfu cannot distinguish
    /// the two.
    #[test]
    fn an_ambiguous_copy_is_offered_to_neither_drone() {
        let (one, twin) = ("51004F000551343036333233", "51004F000651343036333233");
        let dfu = crazyflie::dfu_serial(one).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let record = StateDir { dir: dir.path().to_owned() };
        flashed_over(&record, &at("1-1", one), &copy(1));
        flashed_over(&record, &at("1-1", twin), &copy(2));
        assert_eq!(target(&record, &at("1-1", &dfu)), Err(NoCopy::NeverFlashed));
        assert_eq!((target(&record, &at("1-1", one)), target(&record, &at("1-1", twin))), (Ok(1), Ok(2)));
        // A copy made in DFU mode is ambiguous once a second drone is known on that port.
        let dir = tempfile::tempdir().unwrap();
        let record = StateDir { dir: dir.path().to_owned() };
        flashed_over(&record, &at("1-1", &dfu), &copy(1));
        assert_eq!(target(&record, &at("1-1", one)), Ok(1), "the only drone seen on this port");
        flashed_over(&record, &at("1-1", twin), &copy(2));
        assert_eq!(target(&record, &at("1-1", one)), Err(NoCopy::NeverFlashed));
    }

    /// The last copy remains the newest, even on a different port and after the clock was set back.
    #[test]
    fn copies_keep_their_order_across_ports() {
        let serial = "51004F000551343036333233";
        let dir = tempfile::tempdir().unwrap();
        let record = StateDir { dir: dir.path().to_owned() };
        let path = flashed_over(&record, &at("1-1", serial), &copy(1));
        let name = path.file_name().unwrap().to_str().unwrap().split_once('-').unwrap().1.to_owned();
        fs::rename(&path, path.with_file_name(format!("4000000000-{name}"))).unwrap();
        flashed_over(&record, &at("1-2", serial), &copy(2));
        assert_eq!(target(&record, &at("1-3", serial)), Ok(2));
    }

    /// The newest copy contains what the interrupted undo overwrote. This copy must not be restored, no matter which
    /// file is damaged.
    #[test]
    fn an_unreadable_record_of_an_undo_is_reported_as_damaged() {
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
        assert_eq!(target(&record, &drone), Err(NoCopy::Damaged), "the copy is unreadable");
        let (_dir, record, drone, _, mark) = interrupted();
        fs::write(mark, b"{").unwrap();
        assert_eq!(target(&record, &drone), Err(NoCopy::Damaged), "the mark is unreadable");
        // Before an undo, cfdfu checks that the drone still holds what the finished change wrote.
        let dir = tempfile::tempdir().unwrap();
        let record = StateDir { dir: dir.path().to_owned() };
        flashed_over(&record, &drone, &copy(1));
        let wrote = record.files_of(&drone).unwrap().into_iter().find(|path| is_wrote(path)).unwrap();
        fs::write(wrote, b"{").unwrap();
        assert_eq!(target(&record, &drone), Err(NoCopy::Damaged), "the wrote file is unreadable");
    }

    #[test]
    fn the_newest_copies_are_kept_and_the_newest_one_is_restored() {
        let dir = tempfile::tempdir().unwrap();
        let record = StateDir { dir: dir.path().join("state") };
        let drone = at("1-2", "338133873034");
        assert_eq!(target(&record, &drone), Err(NoCopy::NeverFlashed));
        let path = flashed_over(&record, &at("1-2", "../33813387\u{1b}3034"), &copy(7));
        assert!(path.starts_with(dir.path().join("state/undo/338133873034@1-2")), "{}", path.display());
        let folder = path.parent().unwrap();
        assert_eq!(fs::read_dir(folder).unwrap().count(), 2, "the copy and the wrote file, but no mark");
        // Folders and files with other names are ignored.
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
            "the copies, the wrote file and notes.txt"
        );
        let newest = record.target(&drone).unwrap().unwrap();
        assert_eq!((newest.copy.data[0], newest.age < Duration::from_secs(60)), (15, true));
        // If the newest copy is truncated or modified, an older copy does not replace it.
        fs::write(&newest.path, b"cut").unwrap();
        assert_eq!(target(&record, &drone), Err(NoCopy::Damaged));
    }

    /// A small computer without a battery-backed clock boots with a time in 1970 or with the time of its last shutdown.
    #[test]
    fn the_newest_copy_survives_a_clock_that_was_set_back() {
        let dir = tempfile::tempdir().unwrap();
        let record = StateDir { dir: dir.path().to_owned() };
        let folder = dir.path().join("undo/A1@1-1");
        fs::create_dir_all(&folder).unwrap();
        for n in 0..COPIES {
            fs::write(folder.join(format!("{}-08004000-00000000.bin", 4_000_000_000 + n)), b"later").unwrap();
        }
        for byte in 1..=3 {
            flashed_over(&record, &at("1-1", "A1"), &copy(byte));
            assert_eq!(target(&record, &at("1-1", "A1")), Ok(byte), "saved in the same second");
        }
        // Failing to remove an old copy is not an error, and no temporary file remains.
        fs::create_dir(folder.join("0000000000-08004000-00000000.bin")).unwrap();
        flashed_over(&record, &at("1-1", "A1"), &copy(4));
        assert!(!fs::read_dir(&folder).unwrap().any(|it| it.unwrap().path().extension().unwrap() == "part"));
    }

    /// The next undo resumes an interrupted undo, even in a different process.
    #[test]
    fn an_interrupted_change_stays_recorded_until_it_is_finished() {
        let failed = |drone| {
            let kind = crate::job::FailureKind::NoDevice;
            Outcome::Failed(Failure { kind, place: None, drone })
        };
        let interrupted = || failed(DroneState::WithoutFirmware);
        let dir = tempfile::tempdir().unwrap();
        let record = StateDir { dir: dir.path().to_owned() };
        let drone = at("1-1", "338133873034");
        let half = Segment { address: FIRMWARE_BASE, data: [vec![0xFF; 8], vec![2; 56]].concat() };
        flashed_over(&record, &drone, &copy(1));
        // After an interrupted undo, the copy to restore remains the target, although a newer copy exists.
        let begun = record.begin(&drone, &[copy(1)], Some(&copy(2)), Change::Undo).unwrap();
        assert!(matches!(begun.kept, Kept::Copy(_)));
        begun.end(&interrupted());
        assert_eq!(target(&record, &drone), Ok(1));
        // The undo is interrupted again, a flash fails before it writes, and the undo then finishes.
        let begun = record.begin(&drone, &[copy(1)], Some(&half), Change::Undo).unwrap();
        assert_eq!(begun.kept, Kept::Earlier);
        begun.end(&interrupted());
        let begun = record.begin(&drone, &[copy(9)], Some(&half), Change::Flash).unwrap();
        begun.end(&failed(DroneState::Untouched));
        assert_eq!(target(&record, &drone), Ok(1));
        assert_eq!(expected(&record, &drone), [], "the change is unfinished");
        record.begin(&drone, &[copy(1)], Some(&half), Change::Undo).unwrap().end(&Outcome::Flashed);
        assert_eq!(target(&record, &drone), Ok(2), "the content that the undo overwrote");
        assert_eq!(expected(&record, &drone), [Piece::of(&copy(1)).unwrap()]);
        // The reason is recorded for a flash without a copy, and for a flash over partial firmware of unknown origin.
        record.begin(&drone, &[copy(3)], None, Change::Flash).unwrap().end(&Outcome::Flashed);
        assert_eq!(target(&record, &drone), Err(NoCopy::NotKept));
        record.begin(&drone, &[copy(3)], Some(&half), Change::Flash).unwrap().end(&Outcome::Flashed);
        assert_eq!(target(&record, &drone), Err(NoCopy::WasIncomplete));
        // Another process resumes and finishes the change.
        record.begin(&drone, &[copy(4)], Some(&copy(3)), Change::Flash).unwrap().end(&interrupted());
        record.resume_change(&drone).end(&Outcome::Flashed);
        assert_eq!(target(&record, &drone), Ok(3));
        assert_eq!(read_history(&record.files_of(&drone).unwrap()).unfinished, None);
        // A copy newer than the wrote file belongs to a change whose end was not recorded.
        assert_eq!(expected(&record, &drone), [Piece::of(&copy(4)).unwrap()]);
        let begun = record.begin(&drone, &[copy(5)], Some(&copy(4)), Change::Flash).unwrap();
        begun.saved.iter().filter(|path| is_mark(path)).for_each(|mark| fs::remove_file(mark).unwrap());
        assert_eq!((target(&record, &drone), expected(&record, &drone)), (Ok(4), vec![]));
    }
}
