//! Draws [`App`]: pure functions of the state and a rectangle.
//!
//! ```text
//! header: the steps                         one row
//! drone            firmware                 five rows; one row on a short screen
//! progress                                  three rows, while a job is running
//! flash map                                 three or four rows; none on a short screen
//! main panel, with the log below it         the rest; from 112 columns on, the log is beside it
//! notice                                    one row
//! footer: the keys of the screen            one row
//! ```
//! The layout is designed for 80×24. From 160 columns on, the drone and firmware cards have their own column, too.

use std::borrow::Cow;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Padding, Paragraph, Widget};

use crate::app::batch::BatchStage;
use crate::app::keys::{Action, Binding};
use crate::app::{App, Demo, DemoLeds, Goal, JobView, Screen, Slot, Stage};
use crate::job::{Failure, Outcome};
use crate::report::Exit;
use crate::usb::descriptor::is_printable;

mod bar;
mod batch_panel;
mod flash_map;
mod log_panel;
mod main_panel;
mod over;
pub(crate) mod plain_text;
mod releases_panel;
mod summary;
pub mod theme;
mod wizard_panel;

use theme::{Glyphs, Theme};

/// The smallest screen, in columns and rows.
pub(crate) const MINIMUM: (u16, u16) = (60, 16);

/// From this width on, the log is beside the main panel.
const TWO_COLUMNS: u16 = 112;
/// From this width on, the cards have their own column, too.
const THREE_COLUMNS: u16 = 160;

pub fn draw(frame: &mut Frame<'_>, app: &App, theme: &Theme) {
    let theme = &theme.on(app.background);
    let area = frame.area();
    if area.width < MINIMUM.0 || area.height < MINIMUM.1 {
        return draw_too_small(frame, area, app, theme);
    }
    let [header, body, notice, footer] = area.layout(&Layout::vertical([
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
        Constraint::Length(1),
    ]));
    draw_header(frame, header, app, theme);
    draw_body(frame, body, app, theme);
    draw_notice(frame, notice, app, theme);
    draw_footer(frame, footer, app, theme);
    over::draw(frame, area, app, theme);
    scrub(frame.buffer_mut(), theme);
}

/// Draws a short message on a screen that is too small for the layout.
fn draw_too_small(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let text = if let Some(view) = app.job().filter(|view| view.stage == Stage::Working) {
        format!("{}. Do not unplug the drone.", bar::summarise(view))
    } else if let Some(view) = app.batch().filter(|view| view.is_active()) {
        format!("{}. Do not unplug the drones.", batch_panel::counts(view))
    } else {
        format!(
            "cfdfu needs {} columns and {} rows; this terminal is {}×{}.",
            MINIMUM.0, MINIMUM.1, area.width, area.height
        )
    };
    frame.render_widget(Paragraph::new(theme.text(&text)).wrap(ratatui::widgets::Wrap { trim: true }), area);
}

fn draw_body(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let (cards, main, log) = match area.width {
        ..TWO_COLUMNS => (None, area, None),
        TWO_COLUMNS..THREE_COLUMNS => {
            // Wide enough for the log lines of an erase.
            let columns = Layout::horizontal([Constraint::Fill(1), Constraint::Length(53)]).spacing(1);
            let [main, log] = area.layout(&columns);
            (None, main, Some(log))
        }
        THREE_COLUMNS.. => {
            let columns = [Constraint::Length(44), Constraint::Fill(3), Constraint::Fill(2)];
            let [cards, main, log] = area.layout(&Layout::horizontal(columns).spacing(1));
            (Some(cards), main, Some(log))
        }
    };
    if let Screen::Batch(view) = &app.screen {
        // The table takes the place of the cards. The log is beside the table only if all columns of the table still
        // fit.
        let log = log.filter(|log| area.width > log.width + batch_panel::COLUMNS);
        let columns = [Constraint::Fill(1), Constraint::Length(log.map_or(0, |log| log.width))];
        let [table, log] = area.layout(&Layout::horizontal(columns).spacing(u16::from(log.is_some())));
        batch_panel::draw(frame, table, app, view, theme, log.width == 0);
        if log.width > 0 {
            log_panel::draw(frame, log, app, theme, false);
        }
        return;
    }
    if let Some(view) = app.console() {
        return log_panel::draw_console(frame, area, view, theme);
    }
    // On a short screen, one row replaces the cards.
    let card_rows = match cards {
        Some(_) => 0,
        None if area.height >= 19 => 5,
        None => 1,
    };
    let [above, progress, map, middle] = main.layout(&Layout::vertical([
        Constraint::Length(card_rows),
        Constraint::Length(if app.job().is_some_and(has_progress) { 3 } else { 0 }),
        Constraint::Length(match area.height {
            ..15 => 0,
            15..30 => flash_map::ROWS,
            30.. => flash_map::ROWS + u16::from(app.preview().is_some()),
        }),
        Constraint::Fill(1),
    ]));
    if let Some(column) = cards {
        let [device, image, _] = column.layout(&Layout::vertical([
            Constraint::Length(6),
            Constraint::Length(6),
            Constraint::Fill(1),
        ]));
        summary::draw_drone(frame, device, app, theme);
        summary::draw_file(frame, image, app, theme);
    } else if card_rows > 1 {
        let halves = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(1);
        let [device, image] = above.layout(&halves);
        summary::draw_drone(frame, device, app, theme);
        summary::draw_file(frame, image, app, theme);
    } else {
        summary::draw_row(frame, above, app, theme);
    }
    if let Some(view) = app.job() {
        bar::draw(frame, progress, app, view, theme);
    }
    if map.height > 0 {
        flash_map::draw(frame, map, app, theme);
    }
    main_panel::draw(frame, middle, app, theme, log.is_none());
    if let Some(log) = log {
        log_panel::draw(frame, log, app, theme, false);
    }
}

/// Removes unprintable characters and, on an ASCII terminal, all characters that are not ASCII. Ratatui appends a
/// zero-width character, such as a mark that reverses the text direction, to the previous cell. Without this function,
/// the name of a file or a device could send such a character to the terminal.
fn scrub(buffer: &mut Buffer, theme: &Theme) {
    let shows = |c: char| is_printable(c) && (theme.glyphs != Glyphs::Ascii || c.is_ascii());
    for cell in buffer.content.iter_mut().filter(|cell| !cell.symbol().chars().all(shows)) {
        let text: String = cell.symbol().chars().filter(|&c| shows(c)).collect();
        let substitute = if cell.symbol().chars().any(is_printable) { "?" } else { " " };
        cell.set_symbol(if text.is_empty() { substitute } else { &text });
    }
}

/// Creates a bordered panel with a title.
fn panel<'a>(theme: &Theme, title: &str) -> Block<'a> {
    Block::bordered()
        .border_set(theme.borders)
        .border_style(theme.line)
        .padding(Padding::horizontal(1))
        .title(Span::styled(format!(" {} ", theme.text(title)), theme.heading))
}

/// Creates the focused panel, on which the keys act.
fn focus<'a>(theme: &Theme, title: &str) -> Block<'a> {
    panel(theme, title).border_style(theme.accent)
}

/// The width of a panel's border and padding, in columns.
const FRAME: u16 = 4;

/// Wraps a paragraph to lines of at most this width. Words that are longer are not broken.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    textwrap::wrap(&words.join(" "), wrapping(width)).into_iter().map(Cow::into_owned).collect()
}

fn wrapping<'a>(width: usize) -> textwrap::Options<'a> {
    textwrap::Options::new(width)
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
        .wrap_algorithm(textwrap::WrapAlgorithm::FirstFit)
}

/// Lays out a label and, in a column that starts at `indent`, a text. If the label is wider, the text starts on the next
/// row.
fn two_columns<'a>(
    label: Vec<Span<'a>>,
    indent: usize,
    text: &str,
    style: Style,
    width: usize,
) -> Vec<Line<'a>> {
    let mut rows = textwrap::wrap(text, wrapping(width.saturating_sub(indent).max(1))).into_iter().peekable();
    let mut first = Line::from(label);
    if first.width() <= indent
        && let Some(row) = rows.next()
    {
        first.push_span(Span::raw(" ".repeat(indent - first.width())));
        first.push_span(Span::styled(row.into_owned(), style));
    }
    let others = rows
        .map(|row| Line::from(vec![Span::raw(" ".repeat(indent)), Span::styled(row.into_owned(), style)]));
    std::iter::once(first).chain(others).collect()
}

/// Renders a paragraph at this width and returns the number of rows that it needs, at most 40.
fn rows_of(paragraph: &Paragraph<'_>, width: u16) -> u16 {
    rows_up_to(paragraph, width, 40)
}

fn rows_up_to(paragraph: &Paragraph<'_>, width: u16, most: u16) -> u16 {
    let area = Rect::new(0, 0, width, most);
    let mut buffer = Buffer::empty(area);
    paragraph.render(area, &mut buffer);
    let used = |y: &u16| (0..area.width).any(|x| buffer[(x, *y)].symbol() != " ");
    (0..area.height).rev().find(used).map_or(1, |last| last + 1)
}

/// Returns whether to show the progress of a job. A job that is waiting for confirmation has no progress.
fn has_progress(view: &JobView) -> bool {
    !matches!(view.stage, Stage::Asking(_))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum StepState {
    Done,
    Now,
    ToCome,
    Failed,
}

/// Returns the steps of a flash, each with its state.
fn steps(app: &App) -> [(&'static str, StepState); 5] {
    use StepState::{Done, Failed, Now, ToCome};
    let names = [
        if matches!(app.screen, Screen::Batch(_)) { "drones" } else { "drone" },
        if app.goal == Goal::Restore { "bootloader" } else { "firmware" },
        "plan",
        "flash",
        "done",
    ];
    let states = match &app.screen {
        Screen::Outcome(report, facts) => {
            let worked = matches!(report.outcome, Outcome::Flashed | Outcome::Unchanged);
            let has_changed = match &report.outcome {
                Outcome::Failed(Failure { drone, .. }) | Outcome::Cancelled(drone) => !drone.is_unchanged(),
                _ => false,
            };
            match worked {
                true => [Done; 5],
                false if facts.preview.is_some() || has_changed => [Done, Done, Done, Failed, ToCome],
                false => [Done, Done, Failed, ToCome, ToCome],
            }
        }
        Screen::Job(JobView { stage: Stage::Working, .. }) | Screen::Row(_) => {
            [Done, Done, Done, Now, ToCome]
        }
        Screen::Job(_) => [Done, Done, Now, ToCome, ToCome],
        Screen::Batch(view) => match view.stage {
            BatchStage::Identifying | BatchStage::Asking(_) => [Done, Done, Now, ToCome, ToCome],
            BatchStage::Flashing => [Done, Done, Done, Now, ToCome],
            BatchStage::Over if view.fleet.exit() == Exit::Done => [Done, Done, Done, Done, Done],
            BatchStage::Over => [Done, Done, Done, Failed, ToCome],
        },
        screen => {
            let drone = if app.devices.selected().is_some() { Done } else { ToCome };
            let file = match (screen, app.slot(app.goal.file())) {
                (Screen::Pick(..) | Screen::Releases(_), _) => Now,
                (_, Slot::Ready(..)) => Done,
                (_, Slot::Bad(..)) => Failed,
                (_, Slot::Empty | Slot::Loading(_)) => ToCome,
            };
            let drone = if matches!(screen, Screen::Wizard(_)) && drone == ToCome { Now } else { drone };
            [drone, file, ToCome, ToCome, ToCome]
        }
    };
    std::array::from_fn(|n| (names[n], states[n]))
}

/// Describes the cable, the button and the LEDs of the simulated drone.
fn describe_demo(demo: &Demo) -> String {
    let cable = if demo.plugged { "" } else { ", unplugged" };
    let button = if demo.button { ", button held" } else { "" };
    let leds = match demo.leds {
        DemoLeds::Dark if demo.plugged => ", LEDs dark",
        DemoLeds::Ordinary | DemoLeds::Dark => "",
        DemoLeds::OneSlow => ", M2 blinks slowly",
        DemoLeds::OneFast => ", M2 blinks fast",
        DemoLeds::TwoSlow => ", M2, M3 blink slowly",
        DemoLeds::TwoLit => ", M2, M3 stay lit",
        DemoLeds::Red => ", M1 blinks red",
    };
    format!("SIMULATED{cable}{button}{leds}")
}

fn draw_header(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    // The demo's badge has its own area, so that nothing is drawn over it.
    let badge = app
        .demo
        .as_ref()
        .map(|demo| Line::from(Span::styled(format!(" {} ", describe_demo(demo)), theme.warn)));
    let width = badge.as_ref().map_or(0, |badge| u16::try_from(badge.width()).unwrap_or(0));
    let [left, label] = area.layout(&Layout::horizontal([Constraint::Fill(1), Constraint::Length(width)]));
    let (done, now, failed) = theme.ticks;
    let mut line = Line::from(vec![Span::styled(" cfdfu ", theme.next_key), Span::raw("  ")]);
    let steps = steps(app).map(|(name, state)| {
        let (mark, style, words) = match state {
            StepState::Done => (done, theme.good, theme.plain),
            StepState::Now => (now, theme.accent, theme.strong),
            StepState::Failed => (failed, theme.bad, theme.strong),
            StepState::ToCome => (theme.to_come, theme.faint, theme.faint),
        };
        (state, [Span::styled(format!("{mark} "), style), Span::styled(name, words)])
    });
    // The step that must stay visible: the current or failed step, otherwise the last finished step.
    let open = |state: StepState| matches!(state, StepState::Now | StepState::Failed);
    let at = steps.iter().position(|(state, _)| open(*state));
    let at = at.or(steps.iter().rposition(|(state, _)| *state == StepState::Done)).unwrap_or(0);
    // Show as many steps as fit, without the lines between them if that helps. Drop steps from the start until the step
    // `at` is among the shown steps.
    let names: usize = steps.iter().flat_map(|(_, step)| step).map(Span::width).sum();
    let arrows = (steps.len() - 1) * theme.arrow.chars().count();
    let fits = line.width() + names + arrows <= usize::from(left.width);
    let arrow = if fits { theme.arrow } else { "  " };
    for first in 0..=at {
        let mut shown = line.clone();
        let fits = |(n, (_, step)): &(usize, &(StepState, [Span<'static>; 2]))| {
            let arrow = (*n > first).then(|| Span::styled(arrow, theme.line));
            push_whole(&mut shown, arrow.into_iter().chain(step.clone()), usize::from(left.width))
        };
        let count = steps.iter().enumerate().skip(first).take_while(fits).count();
        if first + count > at || first == at {
            line = shown;
            break;
        }
    }
    frame.render_widget(line, left);
    if let Some(badge) = badge {
        frame.render_widget(badge, label);
    }
}

fn draw_notice(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let other = || app.devices.other_instances.first().map(ToString::to_string);
    if let Some(text) = app.notice.as_ref().map(|(text, _)| text.clone()).or_else(other) {
        let text = cut(&theme.text(&text), usize::from(area.width).saturating_sub(3), theme);
        frame.render_widget(Line::from(Span::styled(format!(" ! {text}"), theme.warn)), area);
    }
}

/// Appends spans that belong together, if all of them fit within this width. Returns whether they fit.
fn push_whole<'a>(line: &mut Line<'a>, spans: impl IntoIterator<Item = Span<'a>>, width: usize) -> bool {
    let spans: Vec<Span<'a>> = spans.into_iter().collect();
    let fits = line.width() + spans.iter().map(Span::width).sum::<usize>() <= width;
    if fits {
        line.spans.extend(spans);
    }
    fits
}

/// Cuts text to this many columns, with an ellipsis at the cut.
fn cut(text: &str, columns: usize, theme: &Theme) -> String {
    let text = text.replace('\n', " ");
    if Span::raw(text.as_str()).width() <= columns {
        return text;
    }
    let mark = theme.text("…");
    let mut room = columns.saturating_sub(mark.chars().count());
    let fits = |c: &char| {
        let width = Span::raw(c.to_string()).width();
        room.checked_sub(width).inspect(|left| room = *left).is_some()
    };
    text.chars().take_while(fits).collect::<String>() + &mark
}

/// Cuts a line to this many columns, with an ellipsis at the cut.
fn cut_line<'a>(line: Line<'a>, columns: usize, theme: &Theme) -> Line<'a> {
    if line.width() <= columns {
        return line;
    }
    let mut short = Line::default();
    for span in line.spans {
        let room = columns - short.width();
        if span.width() >= room {
            short.spans.push(Span::styled(cut(&format!("{} ", span.content), room, theme), span.style));
            break;
        }
        short.spans.push(span);
    }
    short
}

/// Draws the keys that fit, most important first. The help key is always shown, because the help lists all keys.
fn draw_footer(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let rows = crate::app::keys::bindings(app);
    let width = |row: &Binding| theme.text(row.shown).chars().count() + row.label.chars().count() + 5;
    let is_help = |row: &Binding| row.action == Action::Help;
    let more = theme.text("…");
    let room = usize::from(area.width).saturating_sub(more.chars().count() + 1);
    let help = rows.iter().find(|row| is_help(row)).map_or(0, width);
    let (mut used, mut spans, mut dropped) = (help, Vec::new(), false);
    for (n, row) in rows.into_iter().enumerate() {
        if !is_help(&row) {
            // Dropping arrow keys or the keys of the simulated drone needs no ellipsis.
            let is_known = matches!(row.action, Action::Move(_) | Action::DemoInput(_));
            if used + width(&row) > room {
                dropped |= !is_known;
                continue;
            }
            used += width(&row);
        }
        let key = match row.why_not {
            Some(_) => theme.key_off,
            None if n == 0 => theme.next_key,
            None => theme.key,
        };
        spans.push(Span::styled(format!(" {} ", theme.text(row.shown)), key));
        let gap = if key == theme.next_key { " " } else { "" };
        spans.push(Span::styled(format!("{gap}{}  ", row.label), theme.faint));
    }
    if dropped {
        spans.push(Span::styled(more, theme.faint));
    }
    frame.render_widget(Line::from(spans), area);
}
