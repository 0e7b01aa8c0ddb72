//! The progress of a job: the current phase with its figures, a bar, and the phases with their times.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::theme::Theme;
use super::{cut, push_whole};
use crate::app::progress::{PHASES, PhaseProgress, Progress};
use crate::app::{App, JobView};
use crate::job::Phase;

/// If more time than this is left, the panel also shows the time of day at which the job will end.
const LONG: Duration = Duration::from_secs(30);

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, view: &JobView, theme: &Theme) {
    let width = usize::from(area.width);
    let percent = format!(" {:>3} % ", percent(view));
    let doing = cut(&theme.text(&activity(app, view)), width.saturating_sub(percent.len() + 1), theme);
    let doing = Line::from(Span::styled(format!(" {doing}"), theme.strong));
    let head = spread(doing, Line::from(Span::styled(percent, theme.strong)), width);
    let left = Line::from(theme.text(&time_left(app, view)));
    let phases = phases(&view.facts.progress, width.saturating_sub(left.width()), theme);
    let lines = vec![head, gauge(view.facts.progress.ratio(), theme, width), spread(phases, left, width)];
    frame.render_widget(Paragraph::new(lines), area);
}

/// Returns the phase and the percentage, for a screen that is too small for anything else.
pub(super) fn summarise(view: &JobView) -> String {
    let phase = view.facts.progress.current().map_or("Working", |(phase, _)| describe(phase));
    format!("{phase}: {} %", percent(view))
}

/// Joins two lines that fit into this width, one aligned left and one right.
fn spread<'a>(mut left: Line<'a>, right: Line<'a>, width: usize) -> Line<'a> {
    let gap = width.saturating_sub(left.width() + right.width());
    left.spans.push(Span::raw(" ".repeat(gap)));
    left.spans.extend(right.spans);
    left
}

fn activity(app: &App, view: &JobView) -> String {
    if view.stopping {
        return "Stopping at the next safe point".to_owned();
    }
    if let Some((what, since, limit)) = view.waiting {
        return format!(
            "Waiting for {what}, at most {} s",
            (since + limit).saturating_sub(app.now).as_secs()
        );
    }
    match view.facts.progress.current() {
        Some((phase, part)) => format!("{}  {}", describe(phase), figures(view, part)),
        None => "Examining the drone".to_owned(),
    }
}

fn describe(phase: Phase) -> &'static str {
    match phase {
        Phase::Compare => "Comparing with the drone's flash",
        Phase::Erase => "Erasing",
        Phase::Write => "Writing",
        Phase::Verify => "Reading back and comparing",
        Phase::Read => "Reading",
    }
}

/// Returns the completed share of the whole job, in percent.
fn percent(view: &JobView) -> usize {
    share(100, view.facts.progress.ratio())
}

/// Draws a bar for a ratio from 0 to 1.
pub(super) fn gauge<'a>(ratio: f64, theme: &Theme, width: usize) -> Line<'a> {
    let room = width.saturating_sub(2);
    // Draw the edge in eighths of a cell, if the font has such glyphs.
    let steps = theme.eighths.len() + 1;
    let filled = share(room * steps, ratio);
    let (whole, part) = (filled / steps, filled % steps);
    let edge = part.checked_sub(1).and_then(|part| theme.eighths.get(part)).copied().unwrap_or_default();
    let rest = room - whole - usize::from(!edge.is_empty());
    Line::from(vec![
        Span::raw(" "),
        Span::styled(format!("{}{edge}", theme.bar.0.repeat(whole)), theme.accent),
        Span::styled(theme.bar.1.repeat(rest), theme.line),
    ])
}

/// Lists the phases and, if there is room, their times.
pub(super) fn phases<'a>(progress: &Progress, width: usize, theme: &Theme) -> Line<'a> {
    let fits = |phases: &Vec<Vec<Span<'a>>>| phases.iter().flatten().map(Span::width).sum::<usize>() <= width;
    let timed = ["  ", " "].into_iter().map(|gap| spaced_phases(progress, gap, true, theme)).find(fits);
    let phases = timed.unwrap_or_else(|| spaced_phases(progress, "  ", false, theme));
    let mut line = Line::default();
    for phase in phases {
        if !push_whole(&mut line, phase, width) {
            break;
        }
    }
    line
}

/// Returns the spans of each phase, with this gap between the phases.
fn spaced_phases<'a>(
    progress: &Progress,
    gap: &'static str,
    with_times: bool,
    theme: &Theme,
) -> Vec<Vec<Span<'a>>> {
    let (done, busy, _) = theme.ticks;
    let current = progress.current();
    let spans = |phase: Phase| {
        let (mark, style, name) = match current {
            _ if progress.is_done(phase) => (done, theme.good, theme.plain),
            // The write is complete except for the first word, which is written once everything else has been verified.
            Some((now, _)) if now > phase && progress.done(phase) > 0 => (done, theme.good, theme.plain),
            Some((now, _)) if now == phase => (busy, theme.accent, theme.plain),
            _ => (theme.to_come, theme.faint, theme.faint),
        };
        let time = progress.duration_of(phase).filter(|_| with_times && progress.is_done(phase));
        let time = time.map(|time| format!(" {:.1} s", time.as_secs_f64())).unwrap_or_default();
        vec![
            Span::raw(if phase == PHASES[0] { " " } else { gap }),
            Span::styled(format!("{mark} "), style),
            Span::styled(phase.json_name(), name),
            Span::styled(time, theme.faint),
        ]
    };
    PHASES.into_iter().map(spans).collect()
}

fn figures(view: &JobView, part: PhaseProgress) -> String {
    let kib = |bytes: u64| bytes / 1024;
    let rate =
        view.facts.progress.rate().map(|rate| format!(", {:.0} KiB/s", rate / 1024.0)).unwrap_or_default();
    format!("{}/{} KiB{rate}", kib(part.done), kib(part.total))
}

/// Returns the time left and, if more than [`LONG`] is left, the time of day at which the job will end.
fn time_left(app: &App, view: &JobView) -> String {
    if view.waiting.is_some() {
        return String::new();
    }
    let left = view.facts.progress.left().filter(|left| *left > Duration::ZERO);
    let Some(left) = left else { return "… ".to_owned() };
    let end = app.time_of_day_in(left).filter(|_| left > LONG);
    let end = end.map(|(hour, minute)| format!(", ends at {hour:02}:{minute:02}")).unwrap_or_default();
    format!("{:.0} s left{end} ", left.as_secs_f64().ceil())
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "0 ≤ ratio ≤ 1"
)]
fn share(of: usize, ratio: f64) -> usize {
    ((of as f64 * ratio) as usize).min(of)
}
