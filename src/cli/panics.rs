//! The panic hook. After a panic, the terminal must not stay in raw mode, and nothing may print over the interface.

use std::io::Write;
use std::thread;

use crate::tui::terminal;

/// Installs the panic hook. A panic on the main thread restores the terminal first, so that its report is readable. A
/// panic in the worker is caught there and becomes a failed job, so the hook must not print over the screen.
pub(super) fn install_hook() {
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
