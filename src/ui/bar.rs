//! The two rows under a running job: its phases with ticks, and one bar with bytes, rate and time left.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::theme::Theme;
use crate::app::progress::PHASES;
use crate::app::{App, JobView, Stage};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, view: &JobView, theme: &Theme) {
    let lines = vec![phases(view, theme), bar(view, app.now, theme, usize::from(area.width))];
    frame.render_widget(Paragraph::new(lines), area);
}

fn phases<'a>(view: &JobView, theme: &Theme) -> Line<'a> {
    let (done, busy, _) = theme.ticks;
    let current = view.progress.current().map(|(phase, _)| phase);
    let mut spans = vec![Span::raw(" ")];
    for phase in PHASES {
        let (mark, style) = match () {
            () if view.progress.is_done(phase) => (done, theme.good),
            () if current == Some(phase) => (busy, theme.busy),
            () => (" ", theme.faint),
        };
        spans.push(Span::styled(format!(" {mark} {}  ", phase.word()), style));
    }
    if view.stopping {
        spans.push(Span::styled("stopping at the next safe point", theme.warn));
    }
    Line::from(spans)
}

fn bar<'a>(view: &JobView, now: Duration, theme: &Theme, width: usize) -> Line<'a> {
    let asking = matches!(view.stage, Stage::Asking(_));
    let ratio = if asking { 0.0 } else { view.progress.ratio() };
    let figures = match view.waiting {
        _ if asking => "nothing is changed yet".to_owned(),
        Some((what, since, limit)) => {
            format!("waiting for {what} ({} s)", (since + limit).saturating_sub(now).as_secs())
        }
        None => figures(view),
    };
    let room = width.saturating_sub(figures.chars().count() + 10).max(10);
    let filled = share(room, ratio);
    Line::from(vec![
        Span::raw(" "),
        Span::styled(theme.bar.0.repeat(filled), theme.good),
        Span::styled(theme.bar.1.repeat(room - filled), theme.faint),
        Span::raw(format!(" {:>3} %  {figures}", share(100, ratio))),
    ])
}

fn figures(view: &JobView) -> String {
    let Some((_, part)) = view.progress.current() else { return String::new() };
    let kib = |bytes: u64| bytes / 1024;
    let rate = view
        .progress
        .rate()
        .map(|rate| format!("  {rate:.0} KiB/s", rate = rate / 1024.0))
        .unwrap_or_default();
    let left =
        view.progress.left().map(|left| format!("  {:.1} s left", left.as_secs_f64())).unwrap_or_default();
    format!("{}/{} KiB{rate}{left}", kib(part.done), kib(part.total))
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "0 ≤ ratio < 1"
)]
fn share(of: usize, ratio: f64) -> usize {
    ((of as f64 * ratio) as usize).min(of)
}
