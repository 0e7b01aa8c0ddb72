//! What a panic does, of any thread.

use std::io::Write;
use std::thread;

use crate::tui::terminal;

/// A panic is a defect of this program. On the main thread the terminal is given back first, so that the
/// report is readable; a panic of the worker is caught there and becomes a failed job, and must not touch
/// the screen.
pub(super) fn report() {
    let Ok(hooks) =
        color_eyre::config::HookBuilder::default().theme(color_eyre::config::Theme::new()).try_into_hooks()
    else {
        return;
    };
    let main_thread = thread::current().id();
    let (panic, eyre) = hooks;
    let _ = eyre.install();
    std::panic::set_hook(Box::new(move |info| {
        if thread::current().id() == main_thread {
            terminal::give_back();
            let report = panic.panic_report(info).to_string();
            let _ = std::io::stderr().write_all(format!("{report}\n").as_bytes());
        }
    }));
}
