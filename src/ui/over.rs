//! Overlays: help, the question before stopping, the whole log, the explanation of a log line, and the doctor's checks.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph, Wrap};

use super::theme::Theme;
use super::{focus, log_panel, rows_up_to};
use crate::app::{App, Overlay, keys};
use crate::doctor::{Check, Verdict};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    match &app.over {
        None => {}
        Some(Overlay::Help) => help(frame, area, app, theme),
        Some(Overlay::AskStop) => {
            let text = "Stop at the next safe point? If writing has begun, the drone will not fly until you flash it \
                        again. It waits safely in DFU mode.";
            boxed(
                frame,
                area,
                app,
                theme,
                "Stop?",
                vec![Line::from(text), Line::from(""), choices(app, theme)],
            );
        }
        Some(Overlay::Log) => {
            // Header, notice and footer stay visible.
            let rows = area.height.saturating_sub(3);
            let full = Rect { x: area.x, y: area.y + 1, width: area.width, height: rows };
            frame.render_widget(Clear, full);
            log_panel::draw(frame, full, app, theme, true);
        }
        Some(Overlay::Doctor(checks)) => doctor(frame, area, app, checks, theme),
        Some(Overlay::Explain(text)) => {
            let lines = text.lines().map(|line| Line::from(theme.text(line))).collect();
            boxed(frame, area, app, theme, "What this line means", lines);
        }
    }
}

/// The doctor's checks: each failed check with its remedy, then all passed checks in one line.
fn doctor(frame: &mut Frame<'_>, area: Rect, app: &App, checks: &[Check], theme: &Theme) {
    let (tick, _, cross) = theme.ticks;
    let mut lines = Vec::new();
    for check in checks.iter().filter(|check| check.verdict != Verdict::Good) {
        let (mark, style) = match check.verdict {
            Verdict::Good => (tick, theme.good),
            Verdict::Bad => (cross, theme.bad),
            Verdict::Doubtful => ("!", theme.warn),
            Verdict::Unknown => ("?", theme.faint),
        };
        let name = Span::styled(format!("{mark} {}: ", check.name), style);
        lines.push(Line::from(vec![name, Span::raw(theme.text(&check.found))]));
        if !check.remedy.is_empty() {
            lines.push(Line::from(Span::styled(theme.text(&check.remedy), theme.strong)));
        }
    }
    let good: Vec<&str> =
        checks.iter().filter(|check| check.verdict == Verdict::Good).map(|check| check.name).collect();
    if !good.is_empty() {
        lines.push(Line::from(Span::styled(format!("{tick} {}", good.join("; ")), theme.good)));
    }
    boxed(frame, area, app, theme, "Doctor", lines);
}

fn choices<'a>(app: &App, theme: &Theme) -> Line<'a> {
    let spans = keys::bindings(app).into_iter().flat_map(|row| {
        [Span::styled(format!(" {} ", row.shown), theme.key), Span::raw(format!(" {}   ", row.label))]
    });
    Line::from(spans.collect::<Vec<_>>())
}

/// The keys of the screen below, from the table that also dispatches them.
fn help(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let rows = keys::bindings_below(app);
    let lines = rows.into_iter().map(|row| {
        let why = row.why_not.map(|why| Span::styled(format!("  ({})", theme.text(&why)), theme.faint));
        let keys = Span::styled(format!(" {:<6}", theme.text(row.shown)), theme.strong);
        Line::from([Some(keys), Some(Span::raw(row.label)), why].into_iter().flatten().collect::<Vec<_>>())
    });
    boxed(frame, area, app, theme, "Keys", lines.collect());
}

/// Draws a box as high as its text, above the notice and the footer. A longer text scrolls.
fn boxed(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme, title: &str, lines: Vec<Line<'_>>) {
    const MOST: u16 = 200;
    let area = Rect { height: area.height.saturating_sub(2), ..area };
    let width = area.width.saturating_sub(6).min(76);
    let paragraph = Paragraph::new(lines).wrap(Wrap { trim: false });
    let rows = rows_up_to(&paragraph, width.saturating_sub(super::FRAME).max(1), MOST);
    let height = rows.saturating_add(2).min(area.height);
    let hidden = rows.saturating_add(2).saturating_sub(height);
    let scroll = u16::try_from(app.overlay_scroll).unwrap_or(MOST).min(hidden);
    let place = area.centered(Constraint::Length(width), Constraint::Length(height));
    let more = if hidden > 0 { theme.text(" ↑ ↓ ") } else { String::new() };
    let block = focus(theme, title).title(Line::from(Span::styled(more, theme.faint)).right_aligned());
    frame.render_widget(Clear, place);
    frame.render_widget(paragraph.scroll((scroll, 0)).block(block), place);
}
