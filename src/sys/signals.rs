//! Handles SIGINT, SIGTERM and SIGHUP on a separate thread. Only Unix has these signals. On other systems, the process
//! is killed, which has the same effect on the drone as an unplugged cable.

use std::io;

/// The meaning of a signal.
#[cfg_attr(not(unix), expect(dead_code, reason = "only Unix has signals"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGINT: the user wants to stop the job.
    Stop,
    /// SIGTERM or SIGHUP: the process was asked to end, or the terminal was closed.
    HangUp,
}

/// A handle to the thread that handles the signals. After [`Signals::listen`], the signals no longer end the process,
/// not even after [`Signals::stop`]: signal-hook does not restore the default action, so the process then ignores them.
pub(crate) struct Signals {
    #[cfg(unix)]
    handle: signal_hook::iterator::Handle,
    #[cfg(unix)]
    thread: std::thread::JoinHandle<()>,
}

#[cfg(unix)]
impl Signals {
    /// Starts the thread, which calls `handler` for each signal.
    pub(crate) fn listen(mut handler: impl FnMut(Signal) + Send + 'static) -> io::Result<Signals> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let handle = signals.handle();
        let thread = std::thread::spawn(move || {
            for signal in signals.forever() {
                handler(if signal == SIGINT { Signal::Stop } else { Signal::HangUp });
            }
        });
        Ok(Signals { handle, thread })
    }

    /// Stops the thread.
    pub(crate) fn stop(self) {
        self.handle.close();
        let _ = self.thread.join();
    }
}

#[cfg(not(unix))]
impl Signals {
    #[allow(clippy::unnecessary_wraps, reason = "the same signature as on Unix")]
    pub(crate) fn listen(_handler: impl FnMut(Signal) + Send + 'static) -> io::Result<Signals> {
        Ok(Signals {})
    }

    #[expect(clippy::unused_self, reason = "the same signature as on Unix")]
    pub(crate) fn stop(self) {}
}
