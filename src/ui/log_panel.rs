//! The log: its last lines beside or below the main panel, or the whole log as an overlay. This module also draws the
//! drone's console, which has its own log.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Wrap};

use super::theme::Theme;
use super::{focus, panel, wrapped};
use crate::app::log::{self, Log};
use crate::app::{App, ConsoleView};
use crate::job::{Device, Level};

/// Draws as many lines as fit, ending with the selected line, or with a later line if too few lines precede it. With
/// `marked` (in the overlay), highlights the selected line and also shows the lines at detail level.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme, marked: bool) {
    draw_log(frame, area, app.log_on_screen(), panel(theme, "Log"), theme, marked);
}

/// Draws the console of a running drone.
pub(super) fn draw_console(frame: &mut Frame<'_>, area: Rect, view: &ConsoleView, theme: &Theme) {
    let Device { location, .. } = &view.device;
    let block = focus(theme, &format!("Console of the Crazyflie on port {location}"));
    if view.log.lines().is_empty() {
        let hint = "Nothing yet. A drone that has been running for a while prints only when something happens. To see \
                    its startup messages, switch it off and on.";
        let text = Paragraph::new(theme.text(hint)).wrap(Wrap { trim: true });
        return frame.render_widget(text.block(block), area);
    }
    draw_log(frame, area, &view.log, block, theme, true);
}

fn draw_log(frame: &mut Frame<'_>, area: Rect, log: &Log, block: Block<'_>, theme: &Theme, marked: bool) {
    let height = usize::from(area.height.saturating_sub(2));
    let selected = log.selected();
    let end = selected.map_or(0, |at| at + 1);
    // Only the overlay and the console have enough room for the lines at detail level.
    let shown = |(_, line): &(usize, &log::LogLine)| marked || line.level > Level::Detail;
    let width = usize::from(area.width.saturating_sub(super::FRAME));
    let rows_at = |n: usize, line| rows_of_line(line, marked && Some(n) == selected, width, theme);
    // Fill the panel backwards from the selected line. If the log's start is reached first, continue below the selected
    // line.
    let mut rows = VecDeque::new();
    for (n, line) in log.lines().iter().enumerate().take(end).filter(shown).rev() {
        rows_at(n, line).into_iter().rev().for_each(|row| rows.push_front(row));
        if rows.len() >= height {
            break;
        }
    }
    let mut lines: Vec<Line<'_>> = rows.into_iter().rev().take(height).rev().collect();
    for (n, line) in log.lines().iter().enumerate().skip(end).filter(shown) {
        if lines.len() >= height {
            break;
        }
        lines.extend(rows_at(n, line));
    }
    lines.truncate(height);
    let state = if log.is_following() { " following " } else { " paused " };
    let block = block.title(Line::from(Span::styled(state, theme.faint)).right_aligned());
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// Wraps a log line over as many rows as it needs.
fn rows_of_line<'a>(line: &log::LogLine, marked: bool, width: usize, theme: &Theme) -> Vec<Line<'a>> {
    let style = match (marked, line.level) {
        (true, _) => theme.marked,
        (false, Level::Warning) => theme.warn,
        (false, Level::Detail) => theme.faint,
        (false, Level::Info) => theme.plain,
    };
    let time = format!("{:7.3} ", line.at.as_secs_f64());
    let room = width.saturating_sub(time.chars().count());
    let text = theme.text(&line.text);
    // A URL may be longer than a row of a narrow panel. Break the URL, so that all of it is visible.
    let split = |line: String| -> Vec<String> {
        let letters: Vec<char> = line.chars().collect();
        letters.chunks(room.max(1)).map(|part| part.iter().collect()).collect()
    };
    let is_long = text.chars().count() > room;
    let texts = if is_long { wrapped(&text, room).into_iter().flat_map(split).collect() } else { vec![text] };
    let head = |n: usize| if n == 0 { time.clone() } else { " ".repeat(time.chars().count()) };
    let row = |(n, text)| Line::from(vec![Span::styled(head(n), theme.faint), Span::styled(text, style)]);
    texts.into_iter().enumerate().map(row).collect()
}
