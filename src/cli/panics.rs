//! The panic hook. After a panic, the terminal must not stay in raw mode, and nothing may print over the interface.

use std::io::Write;
use std::thread;

use crate::tui::terminal;

/// Installs the panic hook. On the main thread, the hook restores the terminal before it prints the report, so that the
/// report is readable. On other threads, the hook prints nothing: the worker catches its own panics and reports them as
/// failed jobs.
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
            terminal::restore();
            let report = panic.panic_report(info).to_string();
            let _ = std::io::stderr().write_all(format!("{report}\n").as_bytes());
        }
    }));
}
