//! The interface as plain lines, for `--plain`, `TERM=dumb`, pipes and screen readers. It has the same state and the
//! same `update` as the full-screen interface, but reads and prints lines, without any escape sequences.

use std::collections::VecDeque;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel, sync_channel};
use std::thread;
use std::time::Duration;

use super::{Shell, World};
use crate::app::batch::BatchView;
use crate::app::keys::{self, Key};
use crate::app::log::Log;
use crate::app::releases::Request;
use crate::app::update::update;
use crate::app::{App, BusState, Effect, HAS_RELEASES, Msg, Overlay, Screen, Slot};
use crate::job::{Level, Phase};
use crate::sys::signals::{Signal, Signals};
use crate::ui::{self, plain_text};

/// The maximum length of a typed confirmation word.
const WORD_MAX: usize = 20;
/// The maximum length of an input line, in bytes: enough for a path.
const LINE_MAX: u64 = 4096;
/// The maximum number of input lines that wait until they can answer a question.
const LINES_AHEAD: usize = 16;

/// An input of the event loop: a message, a line of standard input or its end, or a signal.
enum Input {
    Message(Msg),
    Line(String),
    End,
    Signal(Signal),
}

/// Runs the interface until the input ends or the user quits, and returns the final state.
pub(crate) fn run(world: &World, image: Option<&Path>) -> io::Result<App> {
    let (messages, from_shell) = channel();
    let (inputs, inbox) = channel();
    let mut shell = Shell::start(world, messages);
    let mut app = shell.open(image);
    app.spoken = true;
    let (forward, from_signals) = (inputs.clone(), inputs.clone());
    thread::spawn(move || from_shell.iter().all(|message| forward.send(Input::Message(message)).is_ok()));
    let signals = Signals::listen(move |signal| drop(from_signals.send(Input::Signal(signal))))?;
    // The reader stops while `LINES_AHEAD` lines are unused, so that endless input does not fill memory.
    let (taken, free) = sync_channel(LINES_AHEAD);
    thread::spawn(move || {
        let mut input = io::stdin().lock();
        while let Some(line) = next_line(&mut input) {
            if taken.send(()).is_err() || inputs.send(Input::Line(line)).is_err() {
                return;
            }
        }
        let _ = inputs.send(Input::End);
    });

    let mut printed = Printed::default();
    let mut answers: VecDeque<String> = VecDeque::new();
    let mut ended = false;
    let interactive = io::stdin().is_terminal();
    while !shell.quit {
        let asked = printed.asked;
        printed.print_changes(&app);
        // On a terminal, lines typed before the plan was shown must not confirm it.
        if printed.asked && !asked && interactive {
            for _ in answers.drain(..) {
                let _ = free.try_recv();
            }
        }
        // Lines that were typed ahead wait until they can answer a question.
        let line = if is_ready(&app, interactive) { answers.pop_front() } else { None };
        if line.is_some() {
            let _ = free.try_recv();
        }
        // The input has ended. Detach: a job that is writing finishes, and everything else ends.
        let exhausted = ended && answers.is_empty() && is_ready(&app, interactive) && !app.detached;
        let messages = match line {
            Some(line) => keys_of(&app, &line),
            None if exhausted && !is_busy(&app) && app.console().is_none() => break,
            // The end of the input does not close a console, which continues until Ctrl-C.
            None if exhausted && app.console().is_none() => vec![Msg::Detached],
            None => match next_input(&inbox, &app)? {
                Input::Message(message) => vec![message],
                Input::Signal(Signal::HangUp) => vec![Msg::Detached],
                Input::Signal(Signal::Stop) => interrupt(&app),
                Input::Line(line) => {
                    if interactive && is_too_soon(&app, shell.now()) {
                        let _ = free.try_recv();
                        printed.print("Nothing has been written. Read the plan, then type the key again.");
                    } else {
                        answers.push_back(line);
                    }
                    continue;
                }
                Input::End => {
                    ended = true;
                    continue;
                }
            },
        };
        for message in messages {
            let message = shell.supervise(message);
            let now = shell.now();
            for effect in update(&mut app, now, message) {
                match effect {
                    // Without a clipboard, print the text.
                    Effect::Copy(text) => {
                        app.notice = None;
                        let _ = writeln!(io::stdout(), "{text}");
                    }
                    effect => shell.perform(&app, effect),
                }
            }
        }
    }
    printed.print_changes(&app);
    signals.stop();
    shell.end();
    Ok(app)
}

/// Returns whether a job or a batch is on the screen, or the batch of an opened row is still running.
fn is_busy(app: &App) -> bool {
    let is_outcome = matches!(app.screen, Screen::Outcome(..));
    app.job().is_some() || app.batch().is_some_and(|view| view.is_active() || !is_outcome)
}

/// Reads the next line, replaces invalid UTF-8, and cuts a long line to [`LINE_MAX`]. Returns `None` at the end of the
/// input.
fn next_line(input: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    input.by_ref().take(LINE_MAX).read_until(b'\n', &mut line).ok().filter(|&n| n > 0)?;
    let mut ended = line.ends_with(b"\n");
    while !ended {
        let rest = input.fill_buf().ok().filter(|rest| !rest.is_empty());
        let Some(rest) = rest else { break };
        let end = rest.iter().position(|&byte| byte == b'\n');
        let used = end.map_or(rest.len(), |end| end + 1);
        ended = end.is_some();
        input.consume(used);
    }
    Some(String::from_utf8_lossy(&line).into_owned())
}

/// Returns whether the plan has not been on the screen long enough to be read. A typed word is deliberate and needs no
/// delay.
fn is_too_soon(app: &App, now: Duration) -> bool {
    app.until_read(now).is_some() && keys::required_word(app).is_none()
}

/// Handles Ctrl-C, which stops a job at the next safe point without asking. If no job is running, Ctrl-C ends the
/// program.
fn interrupt(app: &App) -> Vec<Msg> {
    let will_ask = app.job().is_some() && !app.is_asking() || app.batch().is_some_and(BatchView::is_active);
    let yes = will_ask.then_some(Msg::Key(Key::Char('y')));
    [Msg::Key(Key::CtrlC)].into_iter().chain(yes).collect()
}

/// Waits for the next input, or for a tick if one is due.
fn next_input(inbox: &Receiver<Input>, app: &App) -> io::Result<Input> {
    match app.next_wake().map(|wait| wait.max(Duration::from_millis(50))) {
        None => inbox.recv().map_err(io::Error::other),
        Some(wait) => match inbox.recv_timeout(wait) {
            Ok(input) => Ok(input),
            Err(RecvTimeoutError::Timeout) => Ok(Input::Message(Msg::Tick)),
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("no more messages")),
        },
    }
}

/// Returns whether a line can be an answer now. While a job is running, only a line from a keyboard is used, for
/// example to stop the job.
fn is_ready(app: &App, interactive: bool) -> bool {
    let loading = [&app.image, &app.loader].iter().any(|slot| matches!(slot, Slot::Loading(_)));
    let busy = match &app.screen {
        _ if app.is_blinking() => !interactive,
        Screen::Job(view) if view.stopping => true,
        _ if app.is_asking() => app.until_read(app.now).is_some(),
        Screen::Job(_) => !interactive,
        Screen::Batch(view) | Screen::Row(view) => view.is_active() && (!interactive || view.stopping),
        Screen::Pick(_, _, picker) => picker.entries.is_none(),
        Screen::Releases(view) => {
            view.request == Request::KeptList || view.request != Request::Nothing && !interactive
        }
        Screen::Console(view) => view.closing,
        _ => false,
    };
    app.devices.bus != BusState::Scanning && !loading && !busy
}

/// Converts a line to key presses: a path in the picker, a word if a confirmation word is required, and otherwise the
/// first character of the line. An empty line is Enter.
fn keys_of(app: &App, line: &str) -> Vec<Msg> {
    let key = |key: Key| Msg::Key(key);
    let line = line.trim();
    let is_tab = HAS_RELEASES && ["tab", "releases"].contains(&&*line.to_ascii_lowercase());
    match &app.screen {
        _ if app.overlay.is_some() => keys_of_overlay(app, line),
        // If the path field is still open after a path that could not be used, close the field first.
        Screen::Pick(_, _, picker) if line == "q" => {
            let close_field = picker.typing.as_ref().map(|_| key(Key::Esc));
            close_field.into_iter().chain([key(Key::Esc)]).collect()
        }
        Screen::Pick(_, _, picker) if is_tab => {
            let close_field = picker.typing.as_ref().map(|_| key(Key::Esc));
            close_field.into_iter().chain([key(Key::Tab)]).collect()
        }
        // The number of a release selects that release.
        Screen::Releases(view) if line.starts_with(|c: char| c.is_ascii_digit()) => {
            match row_index(line, view.rows().len()) {
                Some(down) => {
                    let down = std::iter::repeat_n(key(Key::Down), down);
                    std::iter::once(key(Key::Home)).chain(down).collect()
                }
                None => vec![Msg::Notice("The list has no row with this number.".to_owned())],
            }
        }
        Screen::Releases(_) if is_tab => vec![key(Key::Tab)],
        Screen::Pick(..) if !line.is_empty() => {
            vec![key(Key::Paste(line.to_owned())), key(Key::Enter)]
        }
        _ if keys::is_typing_word(app) && line == "q" => vec![key(Key::Esc)],
        // First delete the previous word, which was wrong.
        _ if keys::is_typing_word(app) && !line.is_empty() => {
            let word = line.chars().map(|c| key(Key::Char(c)));
            std::iter::repeat_n(key(Key::Backspace), WORD_MAX).chain(word).chain([key(Key::Enter)]).collect()
        }
        _ => {
            let typed = first_key(line);
            let is_known =
                typed == Key::Enter || keys::binding_of(app, &typed).is_some() || app.is_blinking();
            let unknown = || Msg::Notice(format!("`{line}` is not one of the choices. Type ? for help."));
            vec![if is_known { key(typed) } else { unknown() }]
        }
    }
}

/// Converts a line to key presses while an overlay is open. The overlay has already been printed, so a line that is not
/// for the overlay closes it and is then used on the screen. A plan behind the overlay may not have been printed yet, so
/// the line only closes the overlay.
fn keys_of_overlay(app: &App, line: &str) -> Vec<Msg> {
    let typed = first_key(line);
    let close = |times: usize| std::iter::repeat_n(Msg::Key(Key::Esc), times);
    let all = match &app.overlay {
        // The first Esc clears the filter.
        Some(Overlay::Help(filter)) if !filter.is_empty() => 2,
        // The first Esc returns to the log.
        Some(Overlay::Explain(_)) if app.console().is_none() => 2,
        _ => 1,
    };
    match &app.overlay {
        Some(Overlay::AskStop | Overlay::Blink(_)) if line != "q" => vec![Msg::Key(typed)],
        Some(Overlay::Help(_)) if line.is_empty() || line == "q" => close(all).collect(),
        _ if line.is_empty() || line == "q" => close(1).collect(),
        Some(Overlay::Log | Overlay::Explain(_) | Overlay::Doctor(_))
            if keys::binding_of(app, &typed).is_some() =>
        {
            vec![Msg::Key(typed)]
        }
        _ if app.is_asking() => close(all).collect(),
        _ => {
            let below = App { overlay: None, ..app.clone() };
            close(all).chain(keys_of(&below, line)).collect()
        }
    }
}

/// Returns the key that a line stands for.
fn first_key(line: &str) -> Key {
    line.chars().next().map_or(Key::Enter, Key::Char)
}

/// Returns the index of the row whose number was typed.
fn row_index(line: &str, rows: usize) -> Option<usize> {
    let number: usize = line.parse().ok()?;
    number.checked_sub(1).filter(|index| *index < rows)
}

/// Writes a line. On a terminal, a line that is too long is wrapped between words, and keeps its indentation. A command
/// is not wrapped, so that it can be copied.
fn write_wrapped(out: &mut impl Write, line: &str) -> io::Result<()> {
    let size = if io::stdout().is_terminal() { crossterm::terminal::size().ok() } else { None };
    let width = size.map(|(width, _)| usize::from(width)).filter(|width| *width > 0);
    let is_long = !plain_text::is_command(line) && width.is_some_and(|width| line.chars().count() >= width);
    let Some(width) = width.filter(|_| is_long) else { return writeln!(out, "{line}") };
    let indent = " ".repeat(line.len() - line.trim_start().len());
    for part in ui::wrapped(line, width.saturating_sub(indent.len() + 1).max(1)) {
        writeln!(out, "{indent}{part}")?;
    }
    Ok(())
}

#[derive(Default)]
struct Printed {
    logged: usize,
    /// The number of console lines printed.
    console_lines: usize,
    screen: Vec<String>,
    choices: String,
    notice: String,
    /// The phase whose progress was printed last, and the time of printing.
    progress: Option<(Phase, Duration)>,
    /// Whether a plan is waiting for confirmation.
    asked: bool,
}

impl Printed {
    #[allow(clippy::unused_self, reason = "only the owner of this state may print")]
    fn print(&self, text: &str) {
        let _ = write_wrapped(&mut io::stdout().lock(), text);
    }

    /// Prints what is new: log lines, a notice, the screen and the choices.
    fn print_changes(&mut self, app: &App) {
        self.asked = app.is_asking();
        let mut out = io::stdout().lock();
        // Ignore write errors: a closed output must not stop a flash.
        let lines = app.log.lines();
        let new = app.log.pushed().saturating_sub(self.logged);
        let new = lines.iter().skip(lines.len().saturating_sub(new));
        for line in new.filter(|line| line.level > Level::Detail) {
            let _ = write_wrapped(&mut out, &line.text);
        }
        self.logged = app.log.pushed();
        let console = app.console().map(|view| &view.log);
        let pushed = console.map_or(0, Log::pushed);
        if let Some(console) = console {
            let lines = console.lines();
            let new = pushed.saturating_sub(self.console_lines);
            for line in lines.iter().skip(lines.len().saturating_sub(new)) {
                let _ = writeln!(out, "{:8.3}  {}", line.at.as_secs_f64(), line.text);
            }
        }
        self.console_lines = pushed;
        let notice = app.notice.as_ref().map(|(text, _)| text.clone()).unwrap_or_default();
        if notice != self.notice {
            self.notice.clone_from(&notice);
            // Some notices have already been printed as log lines.
            if !notice.is_empty() && lines.back().is_none_or(|line| line.text != notice) {
                let _ = write_wrapped(&mut out, &notice);
            }
        }
        self.print_progress(app, &mut out);
        let screen = plain_text::screen_lines(app);
        if screen != self.screen {
            for line in &screen {
                let _ = write_wrapped(&mut out, line);
            }
        }
        // Do not print choices while the wizard is counting: the user's hands are busy.
        let counts = match &app.screen {
            Screen::Wizard(view) => view.wizard.spoken_words(app.now).is_some(),
            _ => false,
        };
        let choices = if screen.is_empty() || counts { String::new() } else { plain_text::choices(app) };
        // In a console, the choices change whenever a line arrives, because only some lines can be explained. Do not
        // print the choices for every line.
        let changed = choices != self.choices && app.console().is_none();
        if !choices.is_empty() && (screen != self.screen || changed) {
            let _ = write_wrapped(&mut out, &choices);
        }
        (self.screen, self.choices) = (screen, choices);
        let _ = out.flush();
    }
}

/// The time between two progress lines of a phase. The log already contains the start of the phase.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

impl Printed {
    /// Prints the progress of a long phase every [`PROGRESS_INTERVAL`], so that a longer silence indicates a problem.
    fn print_progress(&mut self, app: &App, out: &mut impl Write) {
        let Some((phase, _)) = app.job().and_then(|view| view.facts.progress.current()) else {
            self.progress = None;
            return;
        };
        match self.progress {
            Some((last, at)) if last == phase && app.now < at + PROGRESS_INTERVAL => return,
            Some((last, _)) if last == phase => {
                let _ = writeln!(out, "{}", plain_text::progress(app));
            }
            _ => {}
        }
        self.progress = Some((phase, app.now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_and_a_line_may_contain_any_bytes() {
        let text = [&b"f\n\xff\xfe\n"[..], &vec![b'x'; 10_000], b"\nlast"].concat();
        let mut input = io::BufReader::with_capacity(100, &text[..]);
        let lines: Vec<String> = std::iter::from_fn(|| next_line(&mut input)).collect();
        assert_eq!(lines.iter().map(|line| line.trim_end().len()).collect::<Vec<_>>(), [1, 6, 4096, 4]);
        assert_eq!((&*lines[0], &*lines[3]), ("f\n", "last"));
        // Endless input is not read to its end.
        let mut endless = io::BufReader::new(io::repeat(b'\n'));
        assert_eq!(next_line(&mut endless).as_deref(), Some("\n"));
    }
}
