//! Waits for a key at the terminal, without the Enter that a terminal otherwise asks for. Only Unix: elsewhere, Ctrl-C
//! ends what waits for a key.

/// The terminal's settings while it waits for a key. Dropping this restores them.
pub(crate) struct KeyPress {
    #[cfg(unix)]
    before: rustix::termios::Termios,
}

#[cfg(unix)]
impl KeyPress {
    /// Calls `pressed` for each key. `None` if standard input is no terminal: its end is not a key.
    pub(crate) fn listen(mut pressed: impl FnMut() + Send + 'static) -> Option<KeyPress> {
        use std::io::Read;

        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

        let before = tcgetattr(rustix::stdio::stdin()).ok()?;
        let mut settings = before.clone();
        // Signals and the processing of output stay as they are.
        settings.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &settings).ok()?;
        // The thread ends with the process: nothing else can interrupt a read.
        std::thread::spawn(move || {
            while std::io::stdin().read(&mut [0]).is_ok_and(|n| n > 0) {
                pressed();
            }
        });
        Some(KeyPress { before })
    }
}

#[cfg(unix)]
impl Drop for KeyPress {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(
            rustix::stdio::stdin(),
            rustix::termios::OptionalActions::Now,
            &self.before,
        );
    }
}

#[cfg(not(unix))]
impl KeyPress {
    pub(crate) fn listen(_pressed: impl FnMut() + Send + 'static) -> Option<KeyPress> {
        None
    }
}
