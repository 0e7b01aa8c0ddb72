//! Saves a bug report: the version, the devices, the images, the plan, the log, and the screen as text. The report and
//! the recording of the latest USB transfers are two files in the state directory. cfdfu does not send them anywhere.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use crate::app::App;
use crate::record::StateDir;
use crate::recording::tape::Tape;
use crate::ui;
use crate::ui::theme::{Colours, Glyphs, Theme};

/// The number of reports to keep.
const KEPT: usize = 20;

/// Saves a report with its recording, and returns the path of the report.
pub(super) fn save(record: &StateDir, app: &App, tape: &Mutex<Tape>) -> io::Result<PathBuf> {
    // A locked tape blocks every transfer, so draw the screen before locking the tape.
    let text = report_text(app);
    let (recording, text) = {
        let tape = tape.lock().unwrap_or_else(PoisonError::into_inner);
        (tape.text(), tape.redact(text))
    };
    let folder = Path::new("reports");
    record.save(folder, "recording.jsonl", recording.as_bytes(), KEPT)?;
    record.save(folder, "report.txt", text.as_bytes(), KEPT)
}

fn report_text(app: &App) -> String {
    let mut text =
        format!("cfdfu {} on {} {}\n\n", crate::sys::version(), std::env::consts::OS, std::env::consts::ARCH);
    let device = app.facts().and_then(|facts| facts.device.as_ref());
    // Writing to a string cannot fail.
    let _ = writeln!(text, "demo: {:?}\nbus: {:?}\ndevice: {:?}", app.demo, app.devices.bus, device);
    for (name, slot) in [("image", &app.image), ("loader", &app.loader)] {
        let contents = slot.image().map(|image| (&image.content, image.payload.len(), image.crc32));
        let _ = writeln!(text, "{name}: {:?} {contents:?}", slot.path());
    }
    if let Some(preview) = app.preview() {
        let _ = writeln!(text, "found: {:?}\nwork: {:?}", preview.found, preview.work.erase);
    }
    let _ = write!(text, "\nlog:\n{}\nscreen:\n{}", log(app), screen(app));
    text
}

pub(super) fn log(app: &App) -> String {
    let line = |line: &crate::app::log::LogLine| {
        format!("{:9.3}  {:?}  {}\n", line.at.as_secs_f64(), line.level, line.text)
    };
    app.log_on_screen().lines().iter().map(line).collect::<Vec<_>>().concat()
}

fn screen(app: &App) -> String {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(80, 24));
    let theme = Theme::new(Glyphs::Ascii, Colours::None);
    let Ok(_) = terminal.draw(|frame| ui::draw(frame, app, &theme));
    let buffer = terminal.backend().buffer();
    let row = |y: u16| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..buffer.area.height).map(|y| row(y).trim_end().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bug_report_contains_the_version_the_log_and_the_screen() {
        let mut app = App::new(None);
        app.log.push(std::time::Duration::ZERO, crate::job::Level::Info, "a line of the log");
        let text = report_text(&app);
        for expected in ["cfdfu 0", "a line of the log", "What would you like", "bus: Scanning"] {
            assert!(text.contains(expected), "{expected:?} is not in:\n{text}");
        }
    }
}
