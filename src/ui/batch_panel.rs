//! The batch screen: a table with a row for each drone, details of the selected drone, and the total progress.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::theme::Theme;
use super::{cut, cut_line, focus, log_panel, panel};
use crate::app::App;
use crate::app::batch::{BatchStage, BatchView, DroneFacts, Prospect};
use crate::crazyflie::crtp::Radio;
use crate::crazyflie::symptoms::capitalised;
use crate::fleet::{End, Row, RowState};
use crate::image::Content;
use crate::job::{Failure, FailureKind, Outcome, Phase};
use crate::report;
use crate::usb::times_on_one_wire;

/// At this width and above, a row also shows the radio address or serial number, the board and the previous firmware.
const WIDE: usize = 72;
/// The width of the whole table, in columns.
pub(super) const COLUMNS: u16 = 78;
/// The width of a row's progress bar.
const BAR: usize = 8;
/// What the plan shows for a device that may not be a Crazyflie.
const NO_EVIDENCE: &str = "cfdfu flashes this device only if it finds evidence that it is a Crazyflie. To flash it \
    anyway, wait until the batch has ended, then press Enter on its row, then t.";

/// Draws the batch screen. `with_log` adds the log below the table, for a screen on which the log has no column of its
/// own.
pub(super) fn draw(
    frame: &mut Frame<'_>,
    area: Rect,
    app: &App,
    view: &BatchView,
    theme: &Theme,
    with_log: bool,
) {
    let rows = u16::try_from(view.fleet.rows.len()).unwrap_or(u16::MAX);
    // The border and the column headings.
    let wanted = rows.saturating_add(3).max(5);
    let details = if area.height >= 20 { 6 } else { 4 };
    let table_rows = wanted.min(area.height.saturating_sub(details + 1));
    let rest = area.height.saturating_sub(table_rows + details + 1);
    // Up to three spare rows go to the details, because the log needs more than three.
    let log_rows = if with_log && rest > 3 { rest } else { 0 };
    let [table, below, log, bar] = area.layout(&Layout::vertical([
        Constraint::Length(table_rows),
        Constraint::Fill(1),
        Constraint::Length(log_rows),
        Constraint::Length(1),
    ]));
    draw_table(frame, table, app, view, theme);
    draw_details(frame, below, app, view, theme);
    if log_rows > 0 {
        log_panel::draw(frame, log, app, theme, false);
    }
    frame.render_widget(totals(view, usize::from(bar.width), theme), bar);
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, app: &App, view: &BatchView, theme: &Theme) {
    let rows = &view.fleet.rows;
    let title = match view.stage {
        BatchStage::Identifying => format!("Reading {}", report::count(rows.len() as u64, "drone")),
        BatchStage::Asking(_) => format!("Plan for {}", report::count(rows.len() as u64, "drone")),
        // The planned drones may still be restarting.
        BatchStage::Flashing if rows.is_empty() => {
            format!("Looking for {}", report::count(view.planned.len() as u64, "drone"))
        }
        BatchStage::Flashing if view.fleet.station().is_some() => "Plug in more drones".to_owned(),
        BatchStage::Flashing | BatchStage::Over => {
            format!("Drones: {} of {} done", view.ended(), rows.len())
        }
    };
    let note = match view.stage {
        BatchStage::Asking(_) => " Nothing is written until you confirm ",
        BatchStage::Flashing if view.fleet.station().is_some() && rows.iter().all(Row::is_final) => {
            " Waiting for the next drone "
        }
        _ => "",
    };
    let block = focus(theme, &title).title(Line::from(Span::styled(note, theme.faint)).right_aligned());
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let width = usize::from(inner.width);
    let height = usize::from(inner.height).saturating_sub(1);
    // Keep the selected row visible.
    let first = (view.at + 1).saturating_sub(height).min(rows.len().saturating_sub(height));
    let mut lines = vec![headings(width, theme)];
    let shown = rows.iter().enumerate().skip(first).take(height);
    lines.extend(shown.map(|(id, row)| table_row(app, view, id, row, width, theme)));
    frame.render_widget(Paragraph::new(lines), inner);
}

fn headings<'a>(width: usize, theme: &Theme) -> Line<'a> {
    let text = if width >= WIDE {
        format!("  {:<9}{:<13}{:<6}{:<9}status", "port", "drone", "board", "previous")
    } else {
        format!("  {:<9}status", "port")
    };
    Line::from(Span::styled(text, theme.faint))
}

fn table_row<'a>(app: &App, view: &BatchView, id: usize, row: &Row, width: usize, theme: &Theme) -> Line<'a> {
    let (mark, style) = mark(view, row, theme);
    let text = if id == view.at { theme.marked } else { theme.plain };
    let mut columns = format!("{:<8}", cut(&row.device.location.to_string(), 8, theme));
    if width >= WIDE {
        let facts = view.facts(id);
        // Twelve digits are the whole serial number in DFU mode, but only half of a running drone's serial number.
        let serial = || row.device.strings.serial.chars().take(12).collect();
        let name = name(app, &row.device.strings.serial).unwrap_or_else(serial);
        // The board of a device that may not be a Crazyflie is only assumed, so do not show it.
        let known = facts.filter(|facts| !facts.may_be_foreign()).and_then(DroneFacts::board);
        let board = known.or(row.board.as_deref()).unwrap_or_default();
        let known = facts.map(DroneFacts::version_before).unwrap_or_default();
        let before = if known.is_empty() { row.before.as_deref().unwrap_or_default() } else { known };
        let (board, before) = (cut(board, 5, theme), cut(before, 8, theme));
        columns = format!("{columns} {name:<13}{board:<6}{before:<8}");
    }
    let mut spans =
        vec![Span::styled(format!("{mark} "), style), Span::styled(columns, text), Span::raw(" ")];
    let took = took(app, row).map(|took| format!("{:>6.1} s", took.as_secs_f64())).unwrap_or_default();
    let room =
        width.saturating_sub(spans.iter().map(Span::width).sum::<usize>() + took.chars().count().max(8) + 1);
    let mut step = cut_line(step(app, view, id, row, theme), room, theme);
    let gap = room.saturating_sub(step.width()) + 1;
    spans.append(&mut step.spans);
    spans.extend([Span::raw(" ".repeat(gap)), Span::styled(took, theme.faint)]);
    Line::from(spans)
}

/// Returns the drone's radio address, which is its name in a swarm, or `None` if the address is not known.
pub(super) fn name(app: &App, serial: &str) -> Option<String> {
    let rows = app.batch().into_iter().flat_map(|view| &view.fleet.rows);
    let present = rows.map(|row| row.device.strings.serial.as_str());
    app.names.of(serial, present).map(Radio::name)
}

fn mark(view: &BatchView, row: &Row, theme: &Theme) -> (&'static str, Style) {
    let (tick, busy, cross) = theme.ticks;
    if matches!(view.stage, BatchStage::Asking(_)) {
        return (" ", theme.plain);
    }
    match &row.state {
        RowState::Held | RowState::Queued => (theme.to_come, theme.faint),
        RowState::Ended(End::Flashed | End::Unchanged) => (tick, theme.good),
        RowState::Ended(End::Failed) => (cross, theme.bad),
        RowState::Ended(End::Refused) => (cross, theme.warn),
        RowState::Ended(End::Cancelled) => ("-", theme.faint),
        RowState::Lost | RowState::ByHand => ("!", theme.warn),
        RowState::Entering | RowState::Examining | RowState::Working(..) | RowState::Starting => {
            (busy, theme.accent)
        }
    }
}

/// Returns how long the row's job has been running, or how long it took.
fn took(app: &App, row: &Row) -> Option<Duration> {
    let took = row.ended.unwrap_or(app.now).saturating_sub(row.started?);
    row.report.as_ref().is_none_or(|report| !matches!(report.outcome, Outcome::Identified)).then_some(took)
}

fn step<'a>(app: &App, view: &BatchView, id: usize, row: &Row, theme: &Theme) -> Line<'a> {
    let identifies = view.stage == BatchStage::Identifying;
    let (words, style) = match &row.state {
        _ if matches!(view.stage, BatchStage::Asking(_)) => prospect(app, view, id, row, theme),
        RowState::Held => ("plugged in earlier: replug it".to_owned(), theme.faint),
        RowState::Queued => ("waiting".to_owned(), theme.faint),
        RowState::Entering | RowState::Examining | RowState::Working(..) if identifies => {
            ("reading".to_owned(), theme.plain)
        }
        RowState::Entering => ("entering DFU mode".to_owned(), theme.plain),
        RowState::ByHand => ("enter DFU mode by hand".to_owned(), theme.warn),
        RowState::Examining => ("checking".to_owned(), theme.plain),
        RowState::Working(phase, done, total) => return working(*phase, *done, *total, theme),
        RowState::Starting => ("restarting".to_owned(), theme.plain),
        RowState::Lost => ("lost: plug it in again".to_owned(), theme.warn),
        RowState::Ended(end) => ended(*end, row, theme),
    };
    Line::from(Span::styled(theme.text(&words), style))
}

fn working<'a>(phase: Phase, done: u64, total: u64, theme: &Theme) -> Line<'a> {
    let done = usize::try_from(done.min(total) * 100 / total.max(1)).unwrap_or(0);
    let filled = BAR * done / 100;
    Line::from(vec![
        Span::raw(format!("{:<8}", phase.json_name())),
        Span::styled(theme.bar.0.repeat(filled), theme.accent),
        Span::styled(theme.bar.1.repeat(BAR - filled), theme.line),
        Span::raw(format!(" {done:>3} %")),
    ])
}

fn ended(end: End, row: &Row, theme: &Theme) -> (String, Style) {
    let Some(report) = &row.report else {
        let words = if end == End::Cancelled { "not started" } else { "" };
        return (words.to_owned(), theme.faint);
    };
    match &report.outcome {
        Outcome::Failed(failure) => {
            (in_short(failure), if end == End::Refused { theme.warn } else { theme.bad })
        }
        Outcome::Cancelled(_) => ("stopped".to_owned(), theme.warn),
        Outcome::Identified => ("read".to_owned(), theme.faint),
        Outcome::Flashed | Outcome::Unchanged | Outcome::Read(_) => {
            let done = if end == End::Unchanged { "unchanged" } else { "flashed" };
            match (&report.runs, report.booted()) {
                _ if report.health.has_failed() => (format!("{done}, self-test failed"), theme.warn),
                (_, Some(true)) if report.health.is_unproven() => {
                    (format!("{done}, self-test unknown"), theme.warn)
                }
                (Some(version), _) => (format!("{done}, running {version}"), theme.good),
                (None, Some(true)) => (format!("{done}, running"), theme.good),
                (None, Some(false)) => (format!("{done}, not running yet"), theme.warn),
                (None, None) => (done.to_owned(), theme.good),
            }
        }
    }
}

/// Describes a failure in a few words. The panel below the table shows the whole text.
fn in_short(failure: &Failure) -> String {
    let words = match &failure.kind {
        FailureKind::OtherBoard { .. } => "different board: not changed",
        FailureKind::UnknownBoard { .. } => "unknown board: not changed",
        FailureKind::NotACrazyflie { .. } | FailureKind::OtherChip => "not a Crazyflie: not changed",
        FailureKind::OtherDrone { .. } => "different drone on its port",
        FailureKind::NoDevice | FailureKind::NoMatch(_) => "no longer plugged in",
        FailureKind::NoAccess(_) => "no permission",
        FailureKind::Held => "in use by another program",
        FailureKind::TooOld => "too old: enter DFU mode by hand",
        FailureKind::DidNotEnter { .. } => "did not enter DFU mode",
        FailureKind::ReadProtected => "read-protected",
        FailureKind::WriteProtected(_) => "write-protected",
        _ if failure.is_interruption() => "unplugged: flash it again",
        _ if failure.is_lost() => "unplugged",
        _ => return report::failure_problem(failure).to_string(),
    };
    words.to_owned()
}

/// Returns what the plan predicts for a drone.
fn prospect(app: &App, view: &BatchView, id: usize, row: &Row, theme: &Theme) -> (String, Style) {
    if let Some(Outcome::Failed(failure)) = row.report.as_ref().map(|report| &report.outcome) {
        return (in_short(failure), theme.bad);
    }
    let firmware = app.image.content().and_then(Content::firmware);
    let version = firmware.and_then(|it| it.version.as_deref()).unwrap_or("the image");
    let default = DroneFacts::default();
    let facts = view.facts(id).unwrap_or(&default);
    match facts.prospect(firmware) {
        Prospect::OtherBoard => ("different board: not changed".to_owned(), theme.warn),
        Prospect::Fits if facts.version_before() == version => {
            (format!("→ {version}, the same version"), theme.plain)
        }
        Prospect::Fits => (format!("→ {version}"), theme.plain),
        Prospect::Unknown => (format!("→ {version}, if compatible"), theme.plain),
        Prospect::NoEvidence => ("may not be a Crazyflie".to_owned(), theme.warn),
    }
}

fn draw_details(frame: &mut Frame<'_>, area: Rect, app: &App, view: &BatchView, theme: &Theme) {
    let Some(row) = view.fleet.rows.get(view.at) else { return };
    let title = row_title(app, row);
    let lines = details(view, row).into_iter().map(|line| Line::from(theme.text(&line)));
    let text = Paragraph::new(lines.collect::<Vec<_>>()).wrap(Wrap { trim: false });
    frame.render_widget(text.block(panel(theme, &title)), area);
}

/// Returns the port, the name if it is known, and the serial number of a row's drone.
pub(super) fn row_title(app: &App, row: &Row) -> String {
    let name = name(app, &row.device.strings.serial).map(|name| format!("  {name}")).unwrap_or_default();
    format!("{}{name}  {}", row.device.location, row.device.strings.serial)
}

/// Returns the advice for the selected drone, or the known facts about it.
pub(super) fn details(view: &BatchView, row: &Row) -> Vec<String> {
    let facts = view.facts(view.at);
    let info = facts.and_then(|facts| facts.info.as_deref());
    let known = || -> Vec<String> {
        let foreign = facts.is_some_and(DroneFacts::may_be_foreign).then(|| NO_EVIDENCE.to_owned());
        let known = info.map(report::fact_rows).unwrap_or_default();
        let known = known.iter().map(|(label, text)| format!("{label}: {text}"));
        foreign.into_iter().chain(known).collect()
    };
    match (&row.state, &row.report) {
        (RowState::Ended(_), Some(report)) if view.stage != BatchStage::Identifying => match &report.outcome {
            Outcome::Failed(failure) => {
                let problem = report::failure_problem(failure);
                vec![format!("{}.", capitalised(&problem.to_string())), problem.advice.on_screen()]
            }
            Outcome::Identified => known(),
            _ => {
                let mut lines = vec![report::headline(report)];
                lines.extend(report::describe_restart(report));
                lines
            }
        },
        (RowState::Lost, _) => vec![
            "The connection was lost while flashing. Nothing is broken: plug the drone in again in DFU mode, and cfdfu \
             carries on where it stopped."
                .to_owned(),
        ],
        _ if view.stopping => vec!["Stopping at the next safe point.".to_owned()],
        _ => {
            let lines = known();
            if lines.is_empty() { vec!["Not identified yet.".to_owned()] } else { lines }
        }
    }
}

/// Returns the number of drones per result, and a progress bar.
fn totals<'a>(view: &BatchView, width: usize, theme: &Theme) -> Line<'a> {
    let words = format!("  {}", theme.text(&counts(view)));
    let room = width.saturating_sub(words.chars().count() + 3).min(60);
    if matches!(view.stage, BatchStage::Asking(_)) || room < 10 {
        return Line::from(words);
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "0 ≤ ratio ≤ 1"
    )]
    let filled = ((room as f64 * view.ratio()) as usize).min(room);
    Line::from(vec![
        Span::raw(" "),
        Span::styled(theme.bar.0.repeat(filled), theme.accent),
        Span::styled(theme.bar.1.repeat(room - filled), theme.line),
        Span::styled(words, theme.strong),
    ])
}

/// Returns the number of drones per result or, for a plan, the number of drones and how much they slow each other down.
pub(super) fn counts(view: &BatchView) -> String {
    if let BatchStage::Asking(_) = view.stage {
        let all = report::count(view.fleet.rows.len() as u64, "drone");
        let shared = view.fleet.most_on_one_hub();
        return match times_on_one_wire(shared) {
            Some(times) => format!("{all}. {shared} share a hub: {times:.1} times as long as one."),
            None => format!("{all}, all at full speed."),
        };
    }
    let unchanged = if view.stage == BatchStage::Identifying { "read" } else { "unchanged" };
    let parts = view.fleet.counts().in_words(unchanged);
    if parts.is_empty() { format!("0 of {} done", view.fleet.rows.len()) } else { parts }
}

/// Returns the rows of the table as plain text.
pub(super) fn plain_rows(app: &App, view: &BatchView) -> Vec<String> {
    let theme = Theme::new(super::theme::Glyphs::Ascii, super::theme::Colours::None);
    let rows = view.fleet.rows.iter().enumerate().map(|(id, row)| {
        let step = step(app, view, id, row, &theme);
        format!("  {}  {step}", row_title(app, row))
    });
    rows.collect()
}
