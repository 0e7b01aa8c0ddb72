//! Waits for a key press in the terminal, without requiring Enter. Works only on Unix: on other systems, Ctrl-C is the
//! only key that ends a command.

/// The thread that waits for a key, and the previous terminal settings. Dropping this value stops the thread and
/// restores the settings.
pub(crate) struct KeyPress {
    #[cfg(unix)]
    before: rustix::termios::Termios,
    #[cfg(unix)]
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    #[cfg(unix)]
    thread: Option<std::thread::JoinHandle<()>>,
}

#[cfg(unix)]
impl KeyPress {
    /// Calls `pressed` for each key press. Returns `None` if standard input is not a terminal, because reading the end
    /// of a file must not count as a key press. Also returns `None` if the process runs in the background, where
    /// changing the terminal settings would stop the process.
    pub(crate) fn listen(mut pressed: impl FnMut() + Send + 'static) -> Option<KeyPress> {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicBool, Ordering};

        use rustix::stdio::stdin;
        use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex};
        use rustix::termios::{tcgetattr, tcgetpgrp, tcsetattr};

        let before = tcgetattr(stdin()).ok()?;
        if tcgetpgrp(stdin()).ok()? != rustix::process::getpgrp() {
            return None;
        }
        let mut settings = before.clone();
        // Ctrl-C still sends a signal, and output processing is unchanged. A read returns after 0.1 s without a key.
        settings.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        settings.special_codes[SpecialCodeIndex::VMIN] = 0;
        settings.special_codes[SpecialCodeIndex::VTIME] = 1;
        tcsetattr(stdin(), OptionalActions::Now, &settings).ok()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                match rustix::io::read(stdin(), &mut [0; 16]) {
                    Ok(0) => {}
                    Ok(_) => pressed(),
                    // The terminal was closed. The process also receives a signal.
                    Err(_) => return,
                }
            }
        });
        Some(KeyPress { before, stop, thread: Some(thread) })
    }
}

#[cfg(unix)]
impl Drop for KeyPress {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
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
