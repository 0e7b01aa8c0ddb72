//! Sets up and restores the terminal. The original state is restored exactly once on every exit path, and a frame of
//! usual size is sent in one write. A lost terminal neither stops a flash nor causes a busy loop.

use std::io::{self, BufWriter, Stdout, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::clipboard::CopyToClipboard;
use crossterm::event::{DisableBracketedPaste, EnableBracketedPaste};
use crossterm::terminal::{self, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, execute, queue};
use ratatui::backend::{Backend, ClearType, CrosstermBackend};
use ratatui::layout::Rect;
use ratatui::{Frame, Terminal, TerminalOptions, Viewport};

/// The size of the output buffer, which holds a whole frame of usual size: a frame that is sent in several writes
/// flickers.
const FRAME_BYTES: usize = 64 * 1024;
/// The size assumed for a console that does not report its size.
const DEFAULT: (u16, u16) = (80, 24);
/// The largest area that is drawn. 65535 by 65535 cells would not fit into memory.
const LARGEST: (u16, u16) = (500, 300);

/// Whether the terminal is in raw mode and on the alternate screen.
static IS_SET_UP: AtomicBool = AtomicBool::new(false);

/// The terminal while the interface uses it.
pub(super) struct TerminalScreen {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
    /// Whether the size stays at [`DEFAULT`], because the console does not report its size.
    is_fixed: bool,
}

impl TerminalScreen {
    pub(super) fn open() -> io::Result<TerminalScreen> {
        let size = terminal::size().unwrap_or((0, 0));
        let is_fixed = size.0 == 0 || size.1 == 0;
        // Without a fixed viewport, ratatui would use any size that the terminal reports.
        let viewport = Viewport::Fixed(if is_fixed { area(DEFAULT) } else { area(size) });
        IS_SET_UP.store(true, Ordering::SeqCst);
        let opened = set_up().and_then(|()| {
            let backend = CrosstermBackend::new(BufWriter::with_capacity(FRAME_BYTES, io::stdout()));
            Terminal::with_options(backend, TerminalOptions { viewport })
        });
        match opened {
            Ok(terminal) => Ok(TerminalScreen { terminal, is_fixed }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }

    /// Draws a frame. An error means that the terminal is gone.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw)?;
        Write::flush(self.terminal.backend_mut())
    }

    /// Clears the screen and adopts the terminal's new size. Does not use `Terminal::clear`, which asks the terminal
    /// for its cursor position and waits for the answer.
    pub(super) fn resize(&mut self) -> io::Result<()> {
        if self.is_fixed {
            return Ok(());
        }
        let area = area(terminal::size()?);
        self.terminal.backend_mut().clear_region(ClearType::All)?;
        self.terminal.resize(area)
    }
}

/// Returns the area of a screen of this size, limited to [`LARGEST`].
fn area((width, height): (u16, u16)) -> Rect {
    Rect::new(0, 0, width.min(LARGEST.0), height.min(LARGEST.1))
}

impl Drop for TerminalScreen {
    fn drop(&mut self) {
        restore();
    }
}

fn set_up() -> io::Result<()> {
    // With NO_COLOR, crossterm replaces every colour with a full reset, which also removes bold and reverse. The theme
    // then has no colours anyway, so turn the replacement off to keep the other attributes.
    crossterm::style::force_color_output(true);
    terminal::enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste, cursor::Hide)
}

/// Restores the terminal. Called when the screen is dropped, on detaching and on a panic; only the first call has an
/// effect.
pub(crate) fn restore() {
    if IS_SET_UP.swap(false, Ordering::SeqCst) {
        let mut out = io::stdout();
        let _ = queue!(out, DisableBracketedPaste, LeaveAlternateScreen, cursor::Show);
        let _ = out.flush();
        let _ = terminal::disable_raw_mode();
    }
}

/// Detaches from the terminal, which may already be gone.
pub(super) fn detach() {
    restore();
    replace_standard_streams();
}

/// Asks the terminal for its background colour. [`super::background`] recognises the answer.
pub(super) fn ask_background() {
    let mut out = io::stdout();
    let _ = out.write_all(super::background::QUESTION);
    let _ = out.flush();
}

/// Rings the terminal's bell, which also works over SSH.
pub(super) fn bell(times: u8) {
    let mut out = io::stdout();
    let _ = out.write_all(&vec![7; usize::from(times)]);
    let _ = out.flush();
}

/// Sends text to the terminal's clipboard (OSC 52), if TERM names a terminal that supports it.
pub(super) fn copy(text: &str) {
    let term = std::env::var("TERM").unwrap_or_default();
    let kinds = ["xterm", "tmux", "screen", "foot", "alacritty", "wezterm", "rxvt", "kitty"];
    if kinds.iter().any(|kind| term.starts_with(kind)) {
        let _ = execute!(io::stdout(), CopyToClipboard::to_clipboard_from(text));
    }
}

/// Replaces the standard streams, because the terminal may be gone. Input becomes an empty pipe, on which the keyboard
/// thread blocks instead of looping on errors. Output goes to `/dev/null`.
#[cfg(unix)]
fn replace_standard_streams() {
    use std::fs::OpenOptions;
    use std::os::fd::OwnedFd;
    if let Ok((read, write)) = rustix::pipe::pipe() {
        let _ = rustix::stdio::dup2_stdin(&read);
        // Keep the write end open: if it were closed, reads would return end of file.
        std::mem::forget::<OwnedFd>(write);
    }
    if let Ok(null) = OpenOptions::new().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}

#[cfg(not(unix))]
fn replace_standard_streams() {}
