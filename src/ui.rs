//! The interface as a picture of [`App`]: pure functions of state and a rectangle.
//!
//! ```text
//! header                                    one row
//! devices          image                    five rows
//! flash map                                 four rows
//! middle: the screen, and the log           the rest
//! phases and bar                            two rows, while a job runs
//! notice
//! footer: the keys that work now            one row
//! ```
//! 80×24 is the size it is made for. With fewer rows devices and image, then the map, fold away; the middle,
//! the bar and the keys stay. Below 60×16 it says so.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Widget};

use crate::app::keys::{Action, Binding};
use crate::app::{App, Goal, JobView, Screen, Stage};
use crate::usb::descriptor::is_printable;

mod bar;
mod flash_map;
pub(crate) mod lines;
mod log_panel;
mod middle;
mod over;
mod summary;
pub mod theme;
mod wizard_panel;

use theme::{Glyphs, Theme};

/// The smallest screen, in columns and rows.
pub(crate) const MINIMUM: (u16, u16) = (60, 16);

pub fn draw(frame: &mut Frame<'_>, app: &App, theme: &Theme) {
    let area = frame.area();
    if area.width < MINIMUM.0 || area.height < MINIMUM.1 {
        let text = format!(
            "cfdfu needs {} columns and {} rows; this is {}×{}.",
            MINIMUM.0, MINIMUM.1, area.width, area.height
        );
        return frame.render_widget(
            Paragraph::new(theme.text(&text)).wrap(ratatui::widgets::Wrap { trim: true }),
            area,
        );
    }
    let tall = area.height >= 22;
    let rows = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(if tall { 5 } else { 0 }),
        Constraint::Length(if area.height >= 18 { 4 } else { 0 }),
        Constraint::Fill(1),
        Constraint::Length(if app.job().is_some() { 2 } else { 0 }),
        Constraint::Length(1),
        Constraint::Length(1),
    ]);
    let [header, summary, map, middle, bar, notice, footer] = area.layout(&rows);
    draw_header(frame, header, app, theme);
    if tall {
        let [devices, image] =
            summary.layout(&Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]));
        summary::devices(frame, devices, app, theme);
        summary::image(frame, image, app, theme);
    }
    if map.height > 0 {
        flash_map::draw(frame, map, app, theme);
    }
    middle::draw(frame, middle, app, theme);
    if let Some(view) = app.job() {
        bar::draw(frame, bar, app, view, theme);
    }
    draw_notice(frame, notice, app, theme);
    draw_footer(frame, footer, app, theme);
    over::draw(frame, area, app, theme);
    scrub(frame.buffer_mut(), theme);
}

/// Names of files and devices are text and nothing else: what has no width (marks that reverse the direction, say) would
/// otherwise reach the terminal behind the character before it. And of what this terminal cannot show, nothing.
fn scrub(buffer: &mut Buffer, theme: &Theme) {
    let shows = |c: char| is_printable(c) && (theme.glyphs != Glyphs::Ascii || c.is_ascii());
    for cell in buffer.content.iter_mut().filter(|cell| !cell.symbol().chars().all(shows)) {
        let text: String = cell.symbol().chars().filter(|&c| shows(c)).collect();
        let none = if cell.symbol().chars().any(is_printable) { "?" } else { " " };
        cell.set_symbol(if text.is_empty() { none } else { &text });
    }
}

/// A panel with its title.
fn panel<'a>(theme: &Theme, title: &str) -> Block<'a> {
    Block::bordered()
        .border_set(theme.borders)
        .title(format!(" {} ", theme.text(title)))
        .border_style(theme.faint)
}

/// A paragraph in lines of at most this width; a longer word is left whole.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let options = textwrap::Options::new(width)
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
        .wrap_algorithm(textwrap::WrapAlgorithm::FirstFit);
    let words: Vec<&str> = text.split_whitespace().collect();
    textwrap::wrap(&words.join(" "), options).into_iter().map(std::borrow::Cow::into_owned).collect()
}

/// Rows that a text takes at this width, counted by drawing it.
fn rows_of(paragraph: &Paragraph<'_>, width: u16) -> u16 {
    let area = Rect::new(0, 0, width, 40);
    let mut buffer = Buffer::empty(area);
    paragraph.render(area, &mut buffer);
    let used = |y: &u16| (0..area.width).any(|x| buffer[(x, *y)].symbol() != " ");
    (0..area.height).rev().find(used).map_or(1, |last| last + 1)
}

fn draw_header(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    const STEPS: [&str; 5] = ["device", "image", "plan", "flash", "done"];
    let at = match &app.screen {
        Screen::Home | Screen::Wizard(_) => usize::from(!app.devices.list().is_empty()),
        Screen::Pick(..) => 1,
        Screen::Job(JobView { stage: Stage::Working, .. }) => 3,
        Screen::Job(_) => 2,
        Screen::Outcome(..) => 4,
    };
    let title = match app.goal {
        Goal::Flash => "Flash firmware",
        Goal::Recover => "Recover",
        Goal::Restore => "Restore bootloader",
    };
    // The label of the demo is never drawn over, and nothing shines through it.
    let badge = app.demo.as_ref().map(|demo| {
        let cable = if demo.plugged { "" } else { " unplugged" };
        let button = if demo.button { " button held" } else { "" };
        Line::from(Span::styled(format!(" SIMULATED{cable}{button} "), theme.warn_badge))
    });
    let width = badge.as_ref().map_or(0, |badge| u16::try_from(badge.width()).unwrap_or(0));
    let [steps, label] = area.layout(&Layout::horizontal([Constraint::Fill(1), Constraint::Length(width)]));
    let mut spans = vec![
        Span::styled(" cfdfu ", theme.title),
        Span::raw("  "),
        Span::styled(title, theme.strong),
        Span::raw("   "),
    ];
    let all = STEPS.iter().map(|step| step.len() + 3).sum::<usize>() - 3;
    let used = Line::from(spans.clone()).width();
    if used + all > usize::from(steps.width) {
        spans.push(Span::styled(STEPS[at].to_uppercase(), theme.strong));
    } else {
        for (n, step) in STEPS.iter().enumerate() {
            if n > 0 {
                spans.push(Span::styled(theme.arrow, theme.faint));
            }
            let style = if n == at { theme.strong } else { theme.faint };
            spans.push(Span::styled(if n == at { step.to_uppercase() } else { (*step).to_owned() }, style));
        }
    }
    frame.render_widget(Line::from(spans), steps);
    if let Some(badge) = badge {
        frame.render_widget(badge, label);
    }
}

fn draw_notice(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let other = || app.devices.others_at_work.first().map(ToString::to_string);
    if let Some(text) = app.notice.as_ref().map(|(text, _)| text.clone()).or_else(other) {
        let line = Line::from(Span::styled(format!(" {}", theme.text(&text)), theme.warn));
        frame.render_widget(line, area);
    }
}

/// Keys that fit, that of the help always; what does not fit is there.
fn draw_footer(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let rows = crate::app::keys::bindings(app);
    let width = |row: &Binding| theme.text(row.shown).chars().count() + row.label.chars().count() + 4;
    let is_help = |row: &Binding| row.action == Action::Help;
    let help = rows.iter().find(|row| is_help(row)).map_or(0, width);
    let (mut used, mut spans) = (help, Vec::new());
    for row in rows {
        if !is_help(&row) {
            if used + width(&row) > usize::from(area.width) {
                continue;
            }
            used += width(&row);
        }
        let (key, label) = match row.why_not {
            Some(_) => (theme.key_off, theme.faint),
            None => (theme.key, theme.plain),
        };
        spans.push(Span::styled(format!(" {} ", theme.text(row.shown)), key));
        spans.push(Span::styled(format!(" {} ", row.label), label));
    }
    frame.render_widget(Line::from(spans), area);
}
