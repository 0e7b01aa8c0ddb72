//! The log: the last lines in the middle of the screen, or all of it on top.

use std::collections::VecDeque;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::theme::Theme;
use super::{panel, wrapped};
use crate::app::App;
use crate::app::log;
use crate::job::Level;

/// Draws as many lines as fit, ending with the one that is looked at; marks it, and shows details, if `marked`.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme, marked: bool) {
    let height = usize::from(area.height.saturating_sub(2));
    let selected = app.log.selected();
    let end = selected.map_or(0, |at| at + 1);
    // Where there is little room the details are left out; on top of the screen everything is shown.
    let shown = |(_, line): &(usize, &log::LogLine)| marked || line.level > Level::Detail;
    let width = usize::from(area.width.saturating_sub(super::FRAME));
    let rows_at = |n: usize, line| rows_of_line(line, marked && Some(n) == selected, width, theme);
    // From the marked line back, as far as there is room; and if that ends before the panel is full, on from there.
    let mut rows = VecDeque::new();
    for (n, line) in app.log.lines().iter().enumerate().take(end).filter(shown).rev() {
        rows_at(n, line).into_iter().rev().for_each(|row| rows.push_front(row));
        if rows.len() >= height {
            break;
        }
    }
    let mut lines: Vec<Line<'_>> = rows.into_iter().rev().take(height).rev().collect();
    for (n, line) in app.log.lines().iter().enumerate().skip(end).filter(shown) {
        if lines.len() >= height {
            break;
        }
        lines.extend(rows_at(n, line));
    }
    lines.truncate(height);
    let block = panel(theme, "Log");
    let state = if app.log.following() { " following " } else { " paused " };
    let block = block.title(Line::from(Span::styled(state, theme.faint)).right_aligned());
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// A line of the log, in as many rows as it needs.
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
    // An address of a web page is longer than a narrow log, and nothing of it may be lost.
    let broken = |line: String| -> Vec<String> {
        let letters: Vec<char> = line.chars().collect();
        letters.chunks(room.max(1)).map(|part| part.iter().collect()).collect()
    };
    let long = text.chars().count() > room;
    let texts = if long { wrapped(&text, room).into_iter().flat_map(broken).collect() } else { vec![text] };
    let head = |n: usize| if n == 0 { time.clone() } else { " ".repeat(time.chars().count()) };
    let row = |(n, text)| Line::from(vec![Span::styled(head(n), theme.faint), Span::styled(text, style)]);
    texts.into_iter().enumerate().map(row).collect()
}
