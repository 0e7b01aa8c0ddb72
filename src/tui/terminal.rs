//! The screen: raw mode and the alternate screen, taken once and given back exactly once on every way out,
//! with frames that leave in one write. And what survives it: a terminal that is gone must neither stop a
//! flash nor burn a processor.

use std::io::{self, BufWriter, Stdout, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::clipboard::CopyToClipboard;
use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::terminal::{self, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, execute, queue};
use ratatui::backend::{Backend, ClearType, CrosstermBackend};
use ratatui::layout::Rect;
use ratatui::{Frame, Terminal, TerminalOptions, Viewport};

/// Room for a whole frame: in smaller pieces it would be seen being drawn.
const FRAME_BYTES: usize = 64 * 1024;
/// What a console without a size is taken for.
const DEFAULT: (u16, u16) = (80, 24);
/// The largest area that is drawn: more is not readable, and 65535 by 65535 cells do not fit into memory.
const LARGEST: (u16, u16) = (500, 300);

/// Whether the terminal is ours at the moment.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal while the interface has it.
pub(super) struct TerminalScreen {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
    fixed: bool,
}

impl TerminalScreen {
    pub(super) fn open() -> io::Result<TerminalScreen> {
        let size = terminal::size().unwrap_or((0, 0));
        let fixed = size.0 == 0 || size.1 == 0;
        // Its size is set here alone: left to itself ratatui takes whatever the terminal says.
        let viewport = Viewport::Fixed(if fixed { area(DEFAULT) } else { area(size) });
        TAKEN.store(true, Ordering::SeqCst);
        let taken = take().and_then(|()| {
            let backend = CrosstermBackend::new(BufWriter::with_capacity(FRAME_BYTES, io::stdout()));
            Terminal::with_options(backend, TerminalOptions { viewport })
        });
        match taken {
            Ok(terminal) => Ok(TerminalScreen { terminal, fixed }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Draws a frame. A terminal that has gone away is noticed by its signal or by the keyboard.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw)?;
        Write::flush(self.terminal.backend_mut())
    }

    /// Repaints at the new size. `Terminal::clear` would ask the terminal for its cursor and wait.
    pub(super) fn resized(&mut self) -> io::Result<()> {
        if self.fixed {
            return Ok(());
        }
        let area = area(terminal::size()?);
        self.terminal.backend_mut().clear_region(ClearType::All)?;
        self.terminal.resize(area)
    }
}

/// The screen, cut to [`LARGEST`].
fn area((width, height): (u16, u16)) -> Rect {
    Rect::new(0, 0, width.min(LARGEST.0), height.min(LARGEST.1))
}

impl Drop for TerminalScreen {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> io::Result<()> {
    // Under NO_COLOR crossterm turns every colour into a full reset, which takes bold and reverse with it.
    // The theme has no colours then; this keeps the rest.
    crossterm::style::force_color_output(true);
    terminal::enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste, cursor::Hide)
}

/// Once, whoever calls it first: closing, dropping, or a panic.
pub(crate) fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let mut out = io::stdout();
        let _ = queue!(out, DisableBracketedPaste, LeaveAlternateScreen, cursor::Show);
        let _ = out.flush();
        let _ = terminal::disable_raw_mode();
    }
}

/// The terminal is gone, or this program is to go on without it: gives it back as far as it is there.
pub(super) fn abandon() {
    give_back();
    replace_standard_streams();
}

/// Asks for the background colour; [`super::background`] tells the answer from keys.
pub(super) fn ask_background() {
    let mut out = io::stdout();
    let _ = out.write_all(super::background::QUESTION);
    let _ = out.flush();
}

/// Beeps, where the terminal does; it travels over SSH.
pub(super) fn bell(times: u8) {
    let mut out = io::stdout();
    let _ = out.write_all(&vec![7; usize::from(times)]);
    let _ = out.flush();
}

/// Sends text to the terminal's clipboard (OSC 52), where TERM is of a kind that takes it.
pub(super) fn copy(text: &str) {
    let term = std::env::var("TERM").unwrap_or_default();
    let kinds = ["xterm", "tmux", "screen", "foot", "alacritty", "wezterm", "rxvt", "kitty"];
    if kinds.iter().any(|kind| term.starts_with(kind)) {
        let _ = execute!(io::stdout(), CopyToClipboard::to_clipboard_from(text));
    }
}

/// Puts nothing in the place of a terminal that has hung up: an empty pipe to read from, which parks the
/// keyboard's thread instead of letting it spin, and nowhere to write to.
#[cfg(unix)]
fn replace_standard_streams() {
    use std::fs::OpenOptions;
    use std::os::fd::OwnedFd;
    if let Ok((read, write)) = rustix::pipe::pipe() {
        let _ = rustix::stdio::dup2_stdin(&read);
        // Kept open for ever: closed, it would be an end of file.
        std::mem::forget::<OwnedFd>(write);
    }
    if let Ok(nowhere) = OpenOptions::new().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&nowhere);
        let _ = rustix::stdio::dup2_stderr(&nowhere);
    }
}

#[cfg(not(unix))]
fn replace_standard_streams() {}
