//! The twelve sectors of the chip's flash, to scale as far as columns allow, each with its state.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};

use super::theme::Theme;
use crate::app::App;
use crate::flash::map::SECTORS_KIB;
use crate::job::SectorState;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let widths = widths(area.width.saturating_sub(2));
    let mut cells = Vec::new();
    let mut names = Vec::new();
    for (index, &width) in widths.iter().enumerate() {
        let (glyph, style) = look(app.devices.map[index], theme);
        cells.push(Span::styled(glyph.repeat(usize::from(width)), style));
        cells.push(Span::raw(" "));
        names.push(Span::styled(format!("{index:<width$} ", width = usize::from(width)), theme.faint));
    }
    let legend = [
        (SectorState::Same, "same"),
        (SectorState::ToErase, "to erase"),
        (SectorState::Written, "written"),
        (SectorState::Verified, "verified"),
    ];
    let mut title = vec![Span::raw(" Flash  ")];
    for (state, word) in legend {
        let (glyph, style) = look(Some(state), theme);
        title.push(Span::styled(glyph, style));
        title.push(Span::styled(format!(" {word}  "), theme.faint));
    }
    let block =
        Block::bordered().border_set(theme.borders).border_style(theme.faint).title(Line::from(title));
    frame.render_widget(Paragraph::new(vec![Line::from(cells), Line::from(names)]).block(block), area);
}

/// Columns of each sector: the small ones get what their number needs, the rest is to scale.
fn widths(columns: u16) -> [u16; SECTORS_KIB.len()] {
    const GAPS: u16 = 11;
    let least = [1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2];
    let free = columns.saturating_sub(GAPS + least.iter().sum::<u16>());
    let mut left = free;
    let all: u16 = SECTORS_KIB.iter().sum();
    let mut widths = least;
    for (width, size) in widths.iter_mut().zip(SECTORS_KIB) {
        let share = u16::try_from(u32::from(free) * u32::from(size) / u32::from(all)).unwrap_or(0);
        *width += share;
        left -= share.min(left);
    }
    // What rounding left over goes to the large ones, from the last.
    for n in 0..usize::from(left) {
        widths[11 - n % 7] += 1;
    }
    widths
}

fn look(state: Option<SectorState>, theme: &Theme) -> (&'static str, Style) {
    let [unknown, same, to_erase, erased, written, verified, failed] = theme.sectors;
    match state {
        None => (unknown, theme.faint),
        Some(SectorState::Same) => (same, theme.good),
        Some(SectorState::ToErase) => (to_erase, theme.warn),
        Some(SectorState::Erased) => (erased, theme.plain),
        Some(SectorState::Written) => (written, theme.busy),
        Some(SectorState::Verified) => (verified, theme.good),
        Some(SectorState::Failed) => (failed, theme.bad),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sectors_fit_and_grow_with_the_screen() {
        for columns in [58, 78, 118, 198] {
            let widths = widths(columns);
            assert!(widths.iter().sum::<u16>() + 11 <= columns);
            assert!(widths.iter().all(|&width| width > 0));
            assert!(widths[11] >= widths[4] && widths[4] >= widths[0]);
        }
    }
}
