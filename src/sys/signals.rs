//! What the system says to the whole program, on a thread of its own: somebody wants it stopped, or nobody is there
//! any more. Only Unix says so; elsewhere the system ends the program, and leaves a drone as an unplug would.

use std::io;

/// What a signal means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGINT: somebody wants it stopped.
    Stop,
    /// SIGTERM or SIGHUP: nobody is there any more.
    Alone,
}

/// Until it is stopped, each signal is heard instead of ending the program.
pub(crate) struct Signals {
    #[cfg(unix)]
    handle: signal_hook::iterator::Handle,
    #[cfg(unix)]
    thread: std::thread::JoinHandle<()>,
}

#[cfg(unix)]
impl Signals {
    /// Calls `hear` for each signal.
    pub(crate) fn listen(mut hear: impl FnMut(Signal) + Send + 'static) -> io::Result<Signals> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let handle = signals.handle();
        let thread = std::thread::spawn(move || {
            for signal in signals.forever() {
                hear(if signal == SIGINT { Signal::Stop } else { Signal::Alone });
            }
        });
        Ok(Signals { handle, thread })
    }

    /// No more is heard after this.
    pub(crate) fn stop(self) {
        self.handle.close();
        let _ = self.thread.join();
    }
}

#[cfg(not(unix))]
impl Signals {
    #[allow(clippy::unnecessary_wraps, reason = "the same signature as on Unix")]
    pub(crate) fn listen(_hear: impl FnMut(Signal) + Send + 'static) -> io::Result<Signals> {
        Ok(Signals {})
    }

    pub(crate) fn stop(self) {}
}
