//! Draws the overlays: help, the stop confirmation, the whole log, the explanation of a log line, the doctor's
//! checks, and the drone whose LEDs are blinking.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph, Wrap};

use super::theme::Theme;
use super::{flash_map, focus, log_panel, rows_up_to, two_columns};
use crate::app::{App, BLINK_HALF, Blink, Overlay, keys};
use crate::crazyflie::crtp::Radio;
use crate::crazyflie::symptoms::SYMPTOMS;
use crate::doctor::{Check, Verdict};
use crate::job::{Confirm, Phase};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    match &app.overlay {
        None => {}
        Some(Overlay::Help(filter)) => draw_help(frame, area, app, filter, theme),
        Some(Overlay::AskStop) => {
            let text = format!("Stop at the next safe point? {}", stop_consequence(app));
            draw_box(
                frame,
                area,
                app,
                theme,
                "Stop?",
                vec![Line::from(text), Line::from(""), choices(app, theme)],
            );
        }
        Some(Overlay::Log) => {
            // Keep the header, the notice and the footer visible.
            let rows = area.height.saturating_sub(3);
            let full = Rect { x: area.x, y: area.y + 1, width: area.width, height: rows };
            frame.render_widget(Clear, full);
            log_panel::draw(frame, full, app, theme, true);
        }
        Some(Overlay::Doctor(checks)) => draw_doctor(frame, area, app, checks, theme),
        Some(Overlay::Blink(blink)) => {
            draw_box(frame, area, app, theme, "Blinking", blink_lines(app, blink, theme));
        }
        Some(Overlay::Explain(text)) => {
            let lines = text.lines().map(|line| Line::from(theme.text(line))).collect();
            draw_box(frame, area, app, theme, "What this line means", lines);
        }
    }
}

/// Returns the text about the drone whose LEDs are blinking. The four LEDs on the screen blink at the same rate as the
/// drone's LEDs.
fn blink_lines<'a>(app: &App, blink: &Blink, theme: &Theme) -> Vec<Line<'a>> {
    let Blink { drone, until, stopping } = blink;
    let left = until.saturating_sub(app.now);
    let lit = !stopping && (left.as_millis() / BLINK_HALF.as_millis()).is_multiple_of(2);
    let (dot, style) = if lit { (theme.leds.0, theme.led) } else { (theme.leds.1, theme.faint) };
    let dots = [dot; 4].join(" ");
    let name = app.names.of(&drone.serial, []).map_or_else(|| drone.serial.clone(), Radio::name);
    let until = if *stopping {
        "Giving the LEDs back to the drone …".to_owned()
    } else {
        format!("{} s left. Press any key to stop.", left.as_secs())
    };
    vec![
        Line::from(vec![
            Span::styled(dots, style),
            Span::styled(format!("  on port {}", drone.port), theme.strong),
            Span::styled(format!("  {name}"), theme.faint),
        ]),
        Line::from(""),
        Line::from(theme.text(&until)),
    ]
}

/// Returns what happens to the drone if the job is stopped now.
pub(super) fn stop_consequence(app: &App) -> &'static str {
    if app.batch().is_some() {
        return "A half-flashed drone will not fly until you flash it again. The others stay as they are.";
    }
    let Some(view) = app.job() else { return "The job has ended." };
    let progress = &view.facts.progress;
    let has_begun = [Phase::Erase, Phase::Write].into_iter().any(|phase| progress.done(phase) > 0);
    if view.waiting.is_some() && progress.is_done(Phase::Verify) {
        "The drone is flashed and verified. cfdfu is only waiting for it to start."
    } else if has_begun || view.confirm == Confirm::Go {
        "If you stop now, the drone will not fly until you flash it again. It waits safely in DFU mode."
    } else {
        "Nothing has been changed on the drone yet."
    }
}

/// Draws the doctor's checks: first each check that has not passed, with its remedy, then all passed checks in one
/// line.
fn draw_doctor(frame: &mut Frame<'_>, area: Rect, app: &App, checks: &[Check], theme: &Theme) {
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
    draw_box(frame, area, app, theme, "Doctor", lines);
}

fn choices<'a>(app: &App, theme: &Theme) -> Line<'a> {
    let spans = keys::bindings(app).into_iter().flat_map(|row| {
        [Span::styled(format!(" {} ", row.shown), theme.key), Span::raw(format!(" {}   ", row.label))]
    });
    Line::from(spans.collect::<Vec<_>>())
}

/// Returns the lines of a row with two columns. If `left` is wider than its column, `right` starts on the next line.
fn help_row<'a>(left: &str, right: &str, style: Style, width: usize, inner: usize) -> Vec<Line<'a>> {
    let label = vec![Span::styled(format!(" {left:<width$} "), style)];
    two_columns(label, width + 2, right, Style::default(), inner)
}

/// Draws the help: the keys of the screen behind it, the flash map and the LEDs. The keys come from the table that
/// also dispatches them.
fn draw_help(frame: &mut Frame<'_>, area: Rect, app: &App, filter: &str, theme: &Theme) {
    let inner = usize::from(box_width(area).saturating_sub(super::FRAME));
    let wanted = filter.to_lowercase();
    let mut lines: Vec<Line<'_>> = Vec::new();
    let mut section = |title: &'static str, width: usize, rows: Vec<(String, String, Style)>| {
        let matches = |(left, right, _): &(String, String, Style)| {
            format!("{left} {right}").to_lowercase().contains(&wanted)
        };
        let mut rows = rows.into_iter().filter(matches).peekable();
        if rows.peek().is_some() {
            if !lines.is_empty() {
                lines.push(Line::from(""));
            }
            lines.push(Line::from(Span::styled(title, theme.accent)));
        }
        lines.extend(rows.flat_map(|(left, right, style)| help_row(&left, &right, style, width, inner)));
    };
    let keys = keys::bindings_below(app).into_iter().map(|row| {
        let why = row.why_not.map(|why| format!(" ({})", theme.text(&why))).unwrap_or_default();
        (theme.text(row.shown), format!("{}{why}", row.label), theme.strong)
    });
    section("Keys", 6, keys.collect());
    let map = flash_map::meanings(theme).into_iter();
    let map = map.map(|(glyph, style, text)| (glyph.to_owned(), text.to_owned(), style));
    section("The flash map: 12 sectors; sector 0 holds the bootloader", 6, map.collect());
    let leds = SYMPTOMS.iter().filter(|row| row.in_readme);
    let leds = leds.map(|row| (row.leds.to_owned(), row.meaning.to_owned(), theme.strong));
    section("The drone's LEDs (M1 is red, M2 and M3 are blue)", 30, leds.collect());
    if lines.is_empty() {
        lines.push(Line::from("Nothing matches."));
    }
    let title =
        if filter.is_empty() { "Help: type to filter".to_owned() } else { format!("Help: {filter}_") };
    draw_box(frame, area, app, theme, &title, lines);
}

fn box_width(area: Rect) -> u16 {
    area.width.saturating_sub(6).min(76)
}

/// Draws a box above the notice and the footer. The box is as tall as its text; text that does not fit can be scrolled.
fn draw_box(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme, title: &str, lines: Vec<Line<'_>>) {
    const ROWS_MAX: u16 = 200;
    let area = Rect { height: area.height.saturating_sub(2), ..area };
    let width = box_width(area);
    let paragraph = Paragraph::new(lines).wrap(Wrap { trim: false });
    let rows = rows_up_to(&paragraph, width.saturating_sub(super::FRAME).max(1), ROWS_MAX);
    let height = rows.saturating_add(2).min(area.height);
    let hidden = rows.saturating_add(2).saturating_sub(height);
    let scroll = u16::try_from(app.overlay_scroll).unwrap_or(ROWS_MAX).min(hidden);
    let place = area.centered(Constraint::Length(width), Constraint::Length(height));
    let more = if hidden > 0 { theme.text(" ↑ ↓ ") } else { String::new() };
    let block = focus(theme, title).title(Line::from(Span::styled(more, theme.faint)).right_aligned());
    frame.render_widget(Clear, place);
    frame.render_widget(paragraph.scroll((scroll, 0)).block(block), place);
}
