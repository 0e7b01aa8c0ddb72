//! The map of the chip's twelve flash sectors and their states, as close to scale as the width allows. A sector's
//! cells fill up while the sector is being written and read back.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::main_panel::ranges;
use super::push_whole;
use super::theme::Theme;
use crate::app::{App, JobView};
use crate::flash::Span as FlashSpan;
use crate::flash::map::{MemoryMap, SECTORS_KIB};
use crate::job::{Phase, SectorState};

/// The number of rows of the map. A tall screen has room for one more row, which names the groups of sectors.
pub(super) const ROWS: u16 = 3;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let widths = widths(area.width.saturating_sub(2));
    let mut cells = vec![Span::raw(" ")];
    let mut names = vec![Span::raw(" ")];
    let flash = MemoryMap::stm32f405();
    let protected = app.protected();
    for (index, (&width, place)) in widths.iter().zip(flash.sectors()).enumerate() {
        if protected.contains(&index) {
            cells.push(Span::styled(theme.protected.repeat(usize::from(width)), theme.bad));
            cells.push(Span::raw(" "));
            names.push(Span::styled(format!("{index:<width$} ", width = usize::from(width)), theme.faint));
            continue;
        }
        let state = app.map()[index];
        let done = app.job().and_then(|view| cells_done(view, state, place.span, width));
        cells.extend(sector(state, done, width, theme));
        cells.push(Span::raw(" "));
        names.push(Span::styled(format!("{index:<width$} ", width = usize::from(width)), theme.faint));
    }
    let mut lines =
        vec![legend(area.width, !protected.is_empty(), theme), Line::from(cells), Line::from(names)];
    lines.extend(groups(app, theme).filter(|_| area.height > ROWS));
    frame.render_widget(Paragraph::new(lines), area);
}

/// Returns the row that groups the sectors by the plan on the screen: the bootloader's sector, the sectors for the
/// firmware, and the sectors that the plan does not touch.
fn groups<'a>(app: &App, theme: &Theme) -> Option<Line<'a>> {
    let written: Vec<usize> = app.preview()?.plan.sectors().iter().map(|it| it.sector.index).collect();
    let firmware: Vec<usize> = written.iter().copied().filter(|index| *index > 0).collect();
    let rest: Vec<usize> = (1..SECTORS_KIB.len()).filter(|index| !written.contains(index)).collect();
    let group = |name: &str, sectors: Vec<usize>| {
        let text = format!(" {name} {}  ", ranges(sectors.clone()));
        (!sectors.is_empty()).then(|| Span::styled(text, theme.faint))
    };
    let groups = [group("bootloader", vec![0]), group("firmware", firmware), group("not touched", rest)];
    Some(Line::from(groups.into_iter().flatten().collect::<Vec<_>>()))
}

/// Returns each glyph with its meaning, for the help screen.
pub(super) fn meanings(theme: &Theme) -> Vec<(&'static str, Style, &'static str)> {
    let states = [
        (None, "not known"),
        (Some(SectorState::Same), "kept: already matches the image"),
        (Some(SectorState::ToErase), "to be erased"),
        (Some(SectorState::Erased), "erased"),
        (Some(SectorState::Written), "written, not verified yet"),
        (Some(SectorState::Verified), "written, read back and compared"),
        (Some(SectorState::Failed), "failed"),
    ];
    let mut rows: Vec<_> = states
        .into_iter()
        .map(|(state, text)| {
            let (glyph, style) = appearance(state, theme);
            (glyph, style, text)
        })
        .collect();
    rows.push((theme.protected, theme.bad, "write-protected: cannot be changed"));
    rows
}

/// Returns the legend, with as many glyphs as fit.
fn legend<'a>(width: u16, any_protected: bool, theme: &Theme) -> Line<'a> {
    let words = [
        (SectorState::Same, "kept"),
        (SectorState::ToErase, "to erase"),
        (SectorState::Erased, "erased"),
        (SectorState::Written, "written"),
        (SectorState::Verified, "verified"),
        (SectorState::Failed, "failed"),
    ];
    let mut line = Line::from(vec![Span::styled(" Flash", theme.strong)]);
    if any_protected {
        let mark = Span::styled(theme.protected, theme.bad);
        line.spans.extend([Span::raw("   "), mark, Span::styled(" write-protected", theme.faint)]);
    }
    for (state, word) in words {
        let (glyph, style) = appearance(Some(state), theme);
        let entry =
            [Span::raw("   "), Span::styled(glyph, style), Span::styled(format!(" {word}"), theme.faint)];
        push_whole(&mut line, entry, usize::from(width));
    }
    line
}

/// Returns the cells of a sector. While the sector is being written or read back, its finished part already has the
/// next state.
fn sector<'a>(
    state: Option<SectorState>,
    done: Option<(SectorState, u16)>,
    width: u16,
    theme: &Theme,
) -> Vec<Span<'a>> {
    let run = |state, cells: u16| {
        let (glyph, style) = appearance(state, theme);
        Span::styled(glyph.repeat(usize::from(cells)), style)
    };
    match done {
        Some((next, cells)) => vec![run(Some(next), cells), run(state, width - cells)],
        None => vec![run(state, width)],
    }
}

/// Returns the next state of a sector and the number of its cells that already have this state. A phase reports only a
/// number of bytes; the order of the plan determines where these bytes are.
fn cells_done(
    view: &JobView,
    state: Option<SectorState>,
    sector: FlashSpan,
    width: u16,
) -> Option<(SectorState, u16)> {
    let work = &view.facts.preview.as_ref()?.work;
    let (next, phase, spans) = match state? {
        SectorState::Erased | SectorState::ToErase => (SectorState::Written, Phase::Write, &work.write),
        SectorState::Written => (SectorState::Verified, Phase::Verify, &work.verify),
        SectorState::Same | SectorState::Verified | SectorState::Failed => return None,
    };
    let mut left = view.facts.progress.done(phase);
    let (mut done, mut total) = (0, 0);
    for span in spans {
        let part = span.intersection(sector).map_or(0, |part| u64::from(part.len()));
        let of_this = u64::from(span.len()).min(left);
        left -= of_this;
        total += part;
        done += part.min(of_this);
    }
    let cells = (done * u64::from(width)).checked_div(total)?;
    Some((next, u16::try_from(cells).unwrap_or(width).min(width)))
}

/// Returns the width of each sector in columns: enough for the sector's number, plus a share of the other columns by
/// size.
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
    // The large sectors share the columns lost to rounding, starting from the last sector.
    for n in 0..usize::from(left) {
        widths[11 - n % 7] += 1;
    }
    widths
}

fn appearance(state: Option<SectorState>, theme: &Theme) -> (&'static str, Style) {
    let [unknown, same, to_erase, erased, written, verified, failed] = theme.sectors;
    match state {
        None => (unknown, theme.faint),
        Some(SectorState::Same) => (same, theme.good),
        Some(SectorState::ToErase) => (to_erase, theme.warn),
        Some(SectorState::Erased) => (erased, theme.plain),
        Some(SectorState::Written) => (written, theme.accent),
        Some(SectorState::Verified) => (verified, theme.good),
        Some(SectorState::Failed) => (failed, theme.bad),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sectors_fit_the_screen_and_a_larger_sector_is_not_narrower() {
        for columns in [58, 78, 118, 198] {
            let widths = widths(columns);
            assert!(widths.iter().sum::<u16>() + 11 <= columns);
            assert!(widths.iter().all(|&width| width > 0));
            assert!(widths[11] >= widths[4] && widths[4] >= widths[0]);
        }
    }
}
