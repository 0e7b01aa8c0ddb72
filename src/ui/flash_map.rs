//! The map of the chip's twelve flash sectors, to scale as far as the width allows, each with its state. A sector fills
//! while it is written and read back.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::theme::Theme;
use crate::app::App;
use crate::flash::Span as FlashSpan;
use crate::flash::map::{MemoryMap, SECTORS_KIB};
use crate::job::{Phase, SectorState};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let widths = widths(area.width.saturating_sub(2));
    let mut cells = vec![Span::raw(" ")];
    let mut names = vec![Span::raw(" ")];
    for (index, &width) in widths.iter().enumerate() {
        cells.extend(sector(app, index, width, theme));
        cells.push(Span::raw(" "));
        names.push(Span::styled(format!("{index:<width$} ", width = usize::from(width)), theme.faint));
    }
    let lines = vec![legend(area.width, theme), Line::from(cells), Line::from(names)];
    frame.render_widget(Paragraph::new(lines), area);
}

/// What the glyphs mean, as many as fit.
fn legend<'a>(width: u16, theme: &Theme) -> Line<'a> {
    let words = [
        (SectorState::Same, "kept"),
        (SectorState::ToErase, "to erase"),
        (SectorState::Erased, "erased"),
        (SectorState::Written, "written"),
        (SectorState::Verified, "checked"),
        (SectorState::Failed, "failed"),
    ];
    let mut line = Line::from(vec![Span::styled(" Flash", theme.strong)]);
    for (state, word) in words {
        let (glyph, style) = look(Some(state), theme);
        let entry =
            [Span::raw("   "), Span::styled(glyph, style), Span::styled(format!(" {word}"), theme.faint)];
        if line.width() + entry.iter().map(Span::width).sum::<usize>() <= usize::from(width) {
            line.spans.extend(entry);
        }
    }
    line
}

/// The cells of a sector. While it is written or read back, the finished part already has the next state.
fn sector<'a>(app: &App, index: usize, width: u16, theme: &Theme) -> Vec<Span<'a>> {
    let state = app.devices.map[index];
    let next = match state {
        Some(SectorState::Erased | SectorState::ToErase) => Some((SectorState::Written, Phase::Write)),
        Some(SectorState::Written) => Some((SectorState::Verified, Phase::Verify)),
        _ => None,
    };
    let filled = next.and_then(|(next, phase)| Some((next, cells_done(app, index, phase, width)?)));
    let run = |state, cells: u16| {
        let (glyph, style) = look(state, theme);
        Span::styled(glyph.repeat(usize::from(cells)), style)
    };
    match filled {
        Some((next, cells)) => vec![run(Some(next), cells), run(state, width - cells)],
        None => vec![run(state, width)],
    }
}

/// How many of a sector's cells are done in this phase. The phase counts bytes only; their places follow from the order
/// of the plan.
fn cells_done(app: &App, index: usize, phase: Phase, width: u16) -> Option<u16> {
    let view = app.job()?;
    let work = &view.facts.preview.as_ref()?.work;
    let sector = MemoryMap::stm32f405().sectors().get(index)?.span;
    let spans: &[FlashSpan] = if phase == Phase::Write { &work.write } else { &work.verify };
    let mut left = view.progress.done(phase);
    let (mut done, mut total) = (0, 0);
    for span in spans {
        let part = span.intersection(sector).map_or(0, |part| u64::from(part.len()));
        let of_this = u64::from(span.len()).min(left);
        left -= of_this;
        total += part;
        done += part.min(of_this);
    }
    (total > 0).then(|| u16::try_from(done * u64::from(width) / total).unwrap_or(width).min(width))
}

/// The columns of each sector. Each gets enough for its number; the rest is shared by size.
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
    // The large sectors share what is left by rounding, starting from the last.
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
