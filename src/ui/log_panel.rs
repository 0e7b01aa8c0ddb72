//! The log: the last lines in the middle of the screen, or all of it on top.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::panel;
use super::theme::Theme;
use crate::app::App;
use crate::app::log;
use crate::job::Level;

/// Draws as many lines as fit, ending with the one that is looked at; marks it, and shows details, if `marked`.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme, marked: bool) {
    let height = usize::from(area.height.saturating_sub(2));
    let selected = app.log.selected();
    let end = selected.map_or(0, |at| at + 1);
    // Where there is little room the details are left out; on top of the screen everything is shown.
    let shown = |(_, line): &(usize, &log::Line)| marked || line.level > Level::Detail;
    let lines: Vec<_> = app.log.lines().iter().enumerate().take(end).filter(shown).collect();
    let lines: Vec<Line<'_>> = lines[lines.len().saturating_sub(height)..]
        .iter()
        .map(|&(n, line)| row(line, marked && Some(n) == selected, theme))
        .collect();
    let block = panel(theme, "Log");
    let state = if app.log.following() { " following " } else { " paused " };
    let block = block.title(Line::from(Span::styled(state, theme.faint)).right_aligned());
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn row<'a>(line: &log::Line, marked: bool, theme: &Theme) -> Line<'a> {
    let style = match (marked, line.level) {
        (true, _) => theme.marked,
        (false, Level::Warning) => theme.warn,
        (false, Level::Detail) => theme.faint,
        (false, Level::Info) => theme.plain,
    };
    let time = format!("{:7.3} ", line.at.as_secs_f64());
    Line::from(vec![Span::styled(time, theme.faint), Span::styled(theme.text(&line.text), style)])
}
