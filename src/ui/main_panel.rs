//! The main panel: the menu, the picker, the official releases, the wizard, the plan, a running job, or its outcome.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Modifier;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Sparkline, Wrap};

use super::theme::{Glyphs, Theme};
use super::{bar, cut, focus, log_panel, releases_panel, rows_of, two_columns, wizard_panel, wrapped};
use crate::app::keys::{Action, Binding, Danger};
use crate::app::picker::{Entry, EntryKind, Picker};
use crate::app::{
    App, Confirmation, Goal, JobFacts, JobView, SPIN, SPINNING, Screen, Stage, Which, command_line, keys,
    progress,
};
use crate::crazyflie::Mode;
use crate::crazyflie::console::RadioChip;
use crate::crazyflie::crtp::Radio;
use crate::crazyflie::symptoms::capitalised;
use crate::image::{Content, Loader};
use crate::job::{Device, Outcome, Preview, Report};
use crate::plan::Comparison;
use crate::report;
use crate::usb::descriptor::clean;

/// Draws the main panel. If `with_log` is set, the log has no column of its own: it is drawn below a panel that leaves
/// room for it, and replaces the panel while a job is running.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme, with_log: bool) {
    let panel = match &app.screen {
        Screen::Home => {
            let (width, height) = (area.width.saturating_sub(super::FRAME), area.height.saturating_sub(2));
            home(app, (usize::from(width), usize::from(height)), theme)
        }
        Screen::Pick(which, _, picker) => return draw_picker(frame, area, app, *which, picker, theme),
        Screen::Releases(view) => return releases_panel::draw(frame, area, app, view, theme),
        Screen::Wizard(view) => return wizard_panel::draw(frame, area, app, &view.wizard, theme),
        Screen::Job(JobView { stage: Stage::Asking(question), facts, stopping, .. }) => {
            let Some(preview) = &facts.preview else { return };
            let width = usize::from(area.width.saturating_sub(super::FRAME));
            plan(app, preview, question, *stopping, width, theme)
        }
        // These screens have no main panel.
        Screen::Batch(_) | Screen::Console(_) => return,
        Screen::Job(_) | Screen::Row(_) if with_log => {
            return log_panel::draw(frame, area, app, theme, false);
        }
        Screen::Job(_) | Screen::Row(_) => {
            let Some(view) = app.job() else { return };
            return draw_working(frame, area, view, theme);
        }
        Screen::Outcome(report, facts) => {
            // A drone that flies is drawn beside the text.
            let drawn = if report.flies() { 13 } else { 0 };
            let width = usize::from(area.width.saturating_sub(super::FRAME + drawn));
            outcome(app, report, facts, theme, width)
        }
    };
    draw_above_log(frame, area, app, theme, panel, with_log);
}

/// The content of the main panel.
struct MainPanel<'a> {
    title: &'static str,
    /// The text at the right end of the top border.
    note: &'static str,
    lines: Vec<Line<'a>>,
    /// The last line, which stays visible even if the other lines do not fit.
    question: Option<Line<'a>>,
    /// The picture to the right of the text, drawn only if there is room.
    drawing: Vec<Line<'a>>,
}

/// Draws the panel of a running job, with instructions and the speed so far, for a screen on which the log has its own
/// column.
fn draw_working(frame: &mut Frame<'_>, area: Rect, view: &JobView, theme: &Theme) {
    let block = focus(theme, "Flashing");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let lines = vec![
        Line::from("Keep the drone plugged in."),
        Line::from(Span::styled(
            "If the cable slips out, cfdfu carries on once the drone is in DFU mode again. Half-written firmware \
             never starts.",
            theme.faint,
        )),
    ];
    let text = Paragraph::new(lines).wrap(Wrap { trim: false });
    let rows = rows_of(&text, inner.width);
    let [words, _, caption, graph] = inner.layout(&Layout::vertical([
        Constraint::Length(rows),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Max(8),
    ]));
    frame.render_widget(text, words);
    let speeds = view.facts.progress.speeds();
    // The scale fits the whole history, so the bars keep their heights when the highest bar is no longer visible.
    let highest = speeds.iter().max().copied().unwrap_or(0);
    if graph.height < 2 || highest == 0 || theme.glyphs != Glyphs::Unicode {
        return;
    }
    let title = format!("Speed in KiB/s, up to {highest}");
    frame.render_widget(Line::from(Span::styled(title, theme.faint)), caption);
    let shown = speeds.iter().rev().take(usize::from(graph.width)).rev().copied();
    frame.render_widget(Sparkline::default().data(shown).max(highest).style(theme.accent), graph);
}

/// Returns the menu for a panel with this many columns and rows.
fn home<'a>(app: &App, (width, height): (usize, usize), theme: &Theme) -> MainPanel<'a> {
    let letters = ["f", "r", "b"];
    let mut lines: Vec<Line<'_>> = Goal::ALL
        .iter()
        .zip(letters)
        .flat_map(|(goal, letter)| {
            let marked = *goal == app.goal;
            let why = keys::why_not(app, *goal);
            let (mark, style) = match (marked, &why) {
                (true, None) => (theme.ticks.1, theme.accent.add_modifier(Modifier::BOLD)),
                (true, Some(_)) => (theme.ticks.1, theme.strong),
                (false, _) => (" ", theme.plain),
            };
            let label = vec![
                Span::styled(format!("{mark} "), style),
                Span::styled(format!(" {letter} "), if marked { theme.next_key } else { theme.key }),
                Span::styled(format!("  {}", goal.title()), style),
            ];
            let indent = label.iter().map(Span::width).sum::<usize>() + 3;
            two_columns(label, indent, &theme.text(&why.unwrap_or_default()), theme.faint, width)
        })
        .collect();
    if app.devices.list().len() > 1 {
        lines.extend(drones(app, (width, height.saturating_sub(lines.len())), theme));
    }
    if keys::can_practise(app) {
        lines.push(Line::from(vec![
            Span::raw("  "),
            Span::styled(" p ", theme.key),
            Span::raw("  Practise on a simulated drone"),
        ]));
    }
    MainPanel { title: "What would you like to do?", note: "", lines, question: None, drawing: Vec::new() }
}

/// The minimum width at which the table of drones shows both serial numbers and names.
const NAMES_AND_SERIALS: usize = 66;

/// Returns the lines with the keys that flash all drones and blink one drone, and one line for each drone that fits.
fn drones<'a>(app: &App, (width, height): (usize, usize), theme: &Theme) -> Vec<Line<'a>> {
    let all = app.devices.list();
    let why = keys::why_not_all(app);
    let mut first = vec![
        Span::raw("  "),
        Span::styled(" a ", theme.key),
        Span::raw(format!("  Flash all {} drones at once", all.len())),
    ];
    first.extend(why.map(|why| Span::styled(theme.text(&format!("   {why}")), theme.faint)));
    // The help and the notice show why the key is unavailable.
    let blink = if keys::drone_to_blink(app).is_ok() { theme.key } else { theme.key_off };
    let second = vec![
        Span::raw("  "),
        Span::styled(" g ", blink),
        Span::raw("  Blink the LEDs of the selected drone"),
    ];
    let mut lines = vec![Line::from(first), Line::from(second)];
    if height > lines.len() + all.len() {
        lines.push(Line::from(""));
    }
    let height = height.saturating_sub(lines.len());
    // Keep the selected drone visible.
    let start = (app.devices.position() + 1).saturating_sub(height);
    lines.extend(all.iter().enumerate().skip(start).take(height).map(|(n, device)| {
        let (mark, style) =
            if n == app.devices.position() { (theme.dot, theme.strong) } else { (" ", theme.plain) };
        let Device { location, strings, mode, open_error, .. } = device;
        let state = match (open_error, mode) {
            (Some(error), _) => error.to_string(),
            (None, Mode::Dfu) => "in DFU mode".to_owned(),
            (None, Mode::Firmware) => "running".to_owned(),
        };
        let present = all.iter().map(|device| device.strings.serial.as_str());
        let name = app.names.of(&strings.serial, present).map(Radio::name);
        let (serial, name) = match name {
            Some(name) if width < NAMES_AND_SERIALS => (name, String::new()),
            name => (strings.serial.clone(), name.unwrap_or_default()),
        };
        let text = format!("  {:<9} {serial:<25}{state:<13}{name}", location.to_string());
        Line::from(vec![Span::styled(format!("{mark} "), style), Span::styled(text, style)])
    }));
    lines
}

fn draw_picker(frame: &mut Frame<'_>, area: Rect, app: &App, which: Which, picker: &Picker, theme: &Theme) {
    let board = app.devices.board_code();
    let what = match which {
        Which::Image => "firmware",
        Which::Loader => "bootloader (cf2loader-1.0.bin)",
    };
    let width = usize::from(area.width.saturating_sub(super::FRAME));
    // Name the board, because the ticks mark the images for that board.
    let title = match board.filter(|_| which == Which::Image) {
        Some(board) => format!("Choose the {what} for {board}"),
        None => format!("Choose the {what}"),
    };
    let rows = picker.rows();
    let counts = match &picker.entries {
        Some(Ok(all)) => format!(" {}/{} ", rows.len(), all.len()),
        Some(Err(_)) | None => String::new(),
    };
    let block = focus(theme, &title).title(Line::from(Span::styled(counts, theme.faint)).right_aligned());
    let height = usize::from(area.height.saturating_sub(4));
    let first = picker.at.saturating_sub(height.saturating_sub(1));
    let folder = Line::from(Span::styled(clean(&picker.folder.display().to_string()), theme.faint));
    let mut lines = vec![
        folder,
        match (&picker.typing, picker.filter.as_str()) {
            (Some(input), _) => typed_path(input, width, theme),
            (None, "") => Line::from(Span::styled("Type to filter, / for a path.", theme.faint)),
            (None, filter) => Line::from(vec![
                Span::styled("filter ", theme.faint),
                Span::styled(format!("{filter}_"), theme.strong),
            ]),
        },
    ];
    match &picker.entries {
        None => lines.push(Line::from(theme.text("reading …"))),
        Some(Err(why)) => {
            lines.push(Line::from(Span::styled(format!("This folder cannot be read: {why}"), theme.bad)));
        }
        Some(Ok(all)) if all.is_empty() => {
            lines.push(Line::from("No images here."));
            if which == Which::Loader {
                let words = format!("The bootloader is {}.", report::RIGHT_LOADER);
                let rows = wrapped(&words, width).into_iter();
                lines.extend(rows.map(|row| Line::from(Span::styled(row, theme.strong))));
            }
        }
        Some(Ok(_)) if rows.is_empty() => lines.push(Line::from("Nothing matches the filter.")),
        Some(Ok(_)) => {}
    }
    let names = rows.iter().map(|entry| entry_name(picker, entry)).collect::<Vec<_>>();
    // Columns: name, content, size and age. The content gets the rest of the width.
    let longest = names.iter().map(|name| columns(name)).max().unwrap_or(0);
    let name_width = longest.clamp(12, (width / 2).max(12));
    for (n, (entry, name)) in rows.into_iter().zip(names).enumerate().skip(first).take(height) {
        lines.push(picker_row(entry, &name, n == picker.at, (which, board), (name_width, width), theme));
    }
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// Returns the path field, scrolled so that the cursor is visible.
fn typed_path<'a>(input: &tui_input::Input, width: usize, theme: &Theme) -> Line<'a> {
    let room = width.saturating_sub(6);
    let skip = input.visual_scroll(room);
    let (before, after) = input
        .value()
        .split_at(input.value().char_indices().nth(input.cursor()).map_or(input.value().len(), |(at, _)| at));
    let before: String = before.chars().skip(skip).collect();
    let mut after = after.chars();
    let under = after.next().unwrap_or(' ');
    Line::from(vec![
        Span::styled("path ", theme.faint),
        Span::styled(before, theme.strong),
        Span::styled(under.to_string(), theme.marked),
        Span::styled(after.collect::<String>(), theme.strong),
    ])
}

fn columns(text: &str) -> usize {
    Span::raw(text).width()
}

fn picker_row<'a>(
    entry: &Entry,
    name: &str,
    marked: bool,
    (which, board): (Which, Option<&str>),
    (name_width, width): (usize, usize),
    theme: &Theme,
) -> Line<'a> {
    let (tick, _, cross) = theme.ticks;
    let (mark, mark_style, what) = match &entry.kind {
        EntryKind::Folder => (" ", theme.plain, String::new()),
        EntryKind::File(what, usable) => match usable.fits(which, board) {
            Some(true) => (tick, theme.good, what.clone()),
            None => (" ", theme.plain, what.clone()),
            Some(false) => (cross, theme.faint, what.clone()),
        },
    };
    let name = if entry.kind == EntryKind::Folder { format!("{name}/") } else { name.to_owned() };
    let figures = entry.figures();
    let room = width.saturating_sub(name_width + 4 + columns(&figures) + 1);
    let pad = |text: String, to: usize| {
        let gap = to.saturating_sub(columns(&text));
        text + &" ".repeat(gap)
    };
    let name = pad(cut(&name, name_width, theme), name_width);
    let what = pad(cut(&theme.text(&what), room, theme), room);
    let style = if marked { theme.marked } else { theme.plain };
    Line::from(vec![
        Span::styled(format!("{mark} "), mark_style),
        Span::styled(name, style),
        Span::styled(format!("  {what}"), if mark == cross { theme.faint } else { theme.plain }),
        Span::styled(format!(" {figures}"), theme.faint),
    ])
}

/// Returns the name shown for an entry: the file name, or the whole path of a recent file in a different folder.
pub(super) fn entry_name(picker: &Picker, entry: &Entry) -> String {
    let elsewhere = entry.kind != EntryKind::Folder && entry.path.parent() != Some(&picker.folder);
    let name = entry.path.file_name().filter(|_| !elsewhere).unwrap_or(entry.path.as_os_str());
    clean(&name.to_string_lossy())
}

pub(super) struct PlanRow {
    pub(super) what: PlanRowKind,
    pub(super) text: String,
}

#[derive(Clone, Copy)]
pub(super) enum PlanRowKind {
    Before,
    After,
    Sectors,
    Write,
    NotTouched,
    MissingLoader,
    Note,
    Command,
}

impl PlanRowKind {
    pub(super) fn label(self) -> &'static str {
        match self {
            PlanRowKind::Before => "now",
            PlanRowKind::After => "after",
            PlanRowKind::Sectors => "sectors",
            PlanRowKind::Write => "write",
            PlanRowKind::NotTouched => "not touched",
            PlanRowKind::MissingLoader => "bootloader",
            PlanRowKind::Note => "note",
            PlanRowKind::Command => "as a command",
        }
    }
}

/// Returns the rows of the plan: what is on the drone now and afterwards, what is erased and written, what is not
/// touched, and how long the job takes.
pub(super) fn plan_rows(app: &App, preview: &Preview) -> Vec<PlanRow> {
    // Firmware starts in sector 1. A restore of the bootloader alone neither reads nor writes that sector.
    let covers_firmware = preview.plan.sectors().iter().any(|it| it.sector.index == 1);
    let before = match &preview.firmware {
        Some(firmware) => firmware.to_string(),
        None if covers_firmware => "no firmware".to_owned(),
        None => "firmware not read".to_owned(),
    };
    let mut after = app.content().map(Content::to_string).unwrap_or_default();
    if let Some(firmware) = app.firmware_of_restore().filter(|_| app.goal == Goal::Restore) {
        after = format!("{after} and {}", firmware.content);
    }
    let count = |wanted| preview.found.iter().filter(|&&found| found == wanted).count();
    let (same, of) = (count(Comparison::Same), preview.found.len());
    let blank = match count(Comparison::Blank) {
        0 => String::new(),
        blank => format!(", {blank} are blank"),
    };
    let erase = ranges(preview.work.erase.iter().map(|sector| sector.index).collect());
    let seconds = progress::estimate(&preview.work).as_secs_f64();
    let untouched = match app.goal {
        Goal::Restore if covers_firmware => "settings, radio chip, decks",
        Goal::Restore => "firmware, settings, radio chip, decks",
        Goal::Flash | Goal::Recover => "bootloader, settings, radio chip, decks",
    };
    let bytes = report::thousands(preview.work.bytes());
    let is_gone = preview.loader.is_some_and(Loader::is_missing);
    let gone = is_gone.then(|| "missing: the drone won't start when switched on (Esc, then b)".to_owned());
    // The warning about a platform change takes precedence, because it compares the image with the drone's firmware.
    let change =
        preview.platform_change.map(|change| format!("warning: {}", report::platform_change(change)));
    let file = app.image.image().filter(|_| app.backup_replacing(Which::Image).is_none());
    let chip = || {
        // A drone prints its radio chip's version only once, and the background identify may already have read the
        // line.
        let chip = match &preview.radio_chip {
            RadioChip::Unknown => app.devices.radio_chip(),
            chip => chip,
        };
        report::radio_chip(chip, preview.version.as_deref()).filter(|_| file.is_some())
    };
    let note = change.or_else(|| file.and_then(report::warn_about_image)).or_else(chip);
    // If the question below already asks about this change, omit the note.
    let is_asked = keys::danger(app) == Some(Danger::ChangedSince);
    let changed_since = (preview.changed_since && !is_asked).then(|| {
        "another program has changed this drone since its last flash; flashing overwrites the change"
            .to_owned()
    });
    let note = note.or(changed_since);
    let row = |what, text| PlanRow { what, text };
    let gone = gone.map(|text| row(PlanRowKind::MissingLoader, text));
    let note = note.map(|text| row(PlanRowKind::Note, text));
    let mut rows = vec![
        row(PlanRowKind::Before, before),
        row(PlanRowKind::After, after),
        row(PlanRowKind::Sectors, format!("erase {erase}; {same} of {of} already match{blank}")),
        row(PlanRowKind::Write, format!("{bytes} bytes, about {:.0} s, all verified", seconds.max(1.0))),
        row(PlanRowKind::NotTouched, untouched.to_owned()),
    ];
    rows.extend(gone.into_iter().chain(note));
    rows.push(row(PlanRowKind::Command, command_line::command_line(app)));
    rows
}

/// Sorts and formats numbers, with consecutive numbers as a range: `1-5, 7`.
pub(super) fn ranges(mut numbers: Vec<usize>) -> String {
    numbers.sort_unstable();
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for n in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => runs.push((n, n)),
        }
    }
    let run = |(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    if runs.is_empty() {
        "nothing".to_owned()
    } else {
        runs.into_iter().map(run).collect::<Vec<_>>().join(", ")
    }
}

fn plan<'a>(
    app: &App,
    preview: &Preview,
    question: &Confirmation,
    stopping: bool,
    width: usize,
    theme: &Theme,
) -> MainPanel<'a> {
    let row = |PlanRow { what, text }: PlanRow| {
        let style = match what {
            PlanRowKind::After => theme.strong,
            PlanRowKind::MissingLoader | PlanRowKind::Note => theme.warn,
            PlanRowKind::Command => theme.faint,
            _ => theme.plain,
        };
        two_columns(vec![Span::styled(what.label(), theme.faint)], 14, &theme.text(&text), style, width)
    };
    let lines: Vec<Line<'_>> = plan_rows(app, preview).into_iter().flat_map(row).collect();
    let question = if stopping {
        Line::from(theme.text("Going back … Nothing has been changed."))
    } else if let Some(danger) = keys::danger(app) {
        let (what, wanted) = (danger_reason(danger), danger.confirmation_word());
        Line::from(vec![
            Span::styled(format!("{what}. To confirm, type {wanted} and press Enter: "), theme.warn),
            Span::styled(format!("{}_", question.word), theme.strong),
        ])
    } else {
        // The key works only once the user has had time to read the plan.
        let key = if question.until_read(app.now).is_some() { theme.key_off } else { theme.next_key };
        Line::from(vec![
            Span::styled(" w ", key),
            Span::raw(" Write it    "),
            Span::styled(" Esc ", theme.key),
            Span::raw(" Not now"),
        ])
    };
    MainPanel {
        title: "Plan",
        note: " Nothing is written until you confirm ",
        lines,
        question: Some(question),
        drawing: Vec::new(),
    }
}

/// The minimum width of the text beside a drawing.
const NEXT_TO_DRAWING: u16 = 42;

/// Draws a panel as tall as its text, with the log below it if there is room.
fn draw_above_log(
    frame: &mut Frame<'_>,
    area: Rect,
    app: &App,
    theme: &Theme,
    MainPanel { title, note, lines, question, drawing }: MainPanel<'_>,
    with_log: bool,
) {
    let inner_width = area.width.saturating_sub(super::FRAME);
    let drawn = u16::try_from(drawing.iter().map(Line::width).max().unwrap_or(0)).unwrap_or(0);
    let drawn = if drawn > 0 && inner_width >= drawn + NEXT_TO_DRAWING { drawn + 2 } else { 0 };
    let width = inner_width - drawn;
    let text = Paragraph::new(lines).wrap(Wrap { trim: false });
    let question = question.map(|line| Paragraph::new(line).wrap(Wrap { trim: false }));
    let rows = rows_of(&text, width);
    let last = question.as_ref().map_or(0, |question| rows_of(question, width));
    let rows = if drawn > 0 { rows.max(u16::try_from(drawing.len()).unwrap_or(0)) } else { rows };
    let wanted = rows.saturating_add(last).saturating_add(2).min(area.height);
    let [top, log] = area.layout(&Layout::vertical([Constraint::Length(wanted), Constraint::Fill(1)]));
    // In one or two rows, the log would be only a border.
    let has_log = with_log && log.height > 2;
    let top = if has_log || !with_log { top } else { area };
    let block = focus(theme, title).title(Line::from(Span::styled(note, theme.faint)).right_aligned());
    let inner = block.inner(top);
    frame.render_widget(block, top);
    let above = rows.min(inner.height.saturating_sub(last));
    let [above, below, _] = inner.layout(&Layout::vertical([
        Constraint::Length(above),
        Constraint::Length(last),
        Constraint::Fill(1),
    ]));
    let [above, picture] =
        above.layout(&Layout::horizontal([Constraint::Fill(1), Constraint::Length(drawn)]));
    frame.render_widget(text, above);
    frame.render_widget(Paragraph::new(drawing).right_aligned(), picture);
    if let Some(question) = question {
        frame.render_widget(question, below);
    }
    if has_log {
        log_panel::draw(frame, log, app, theme, false);
    }
}

fn outcome<'a>(app: &App, report: &Report, facts: &JobFacts, theme: &Theme, width: usize) -> MainPanel<'a> {
    let (tick, _, cross) = theme.ticks;
    let took = report.took.as_secs_f64();
    let verdict = theme.text(&report::verdict(report));
    let flies = report.flies();
    let (head, style) = match &report.outcome {
        Outcome::Flashed | Outcome::Unchanged if report.is_unwell() => {
            (format!("! {verdict}, {took:.1} s"), theme.warn)
        }
        Outcome::Flashed | Outcome::Unchanged | Outcome::Read(_) | Outcome::Identified => {
            (format!("{tick} {verdict}, {took:.1} s"), theme.good)
        }
        Outcome::Cancelled(_) => (format!("{cross} {verdict} after {took:.1} s"), theme.warn),
        Outcome::Failed(failure) => {
            (format!("{cross} {}", theme.text(&report::failure_on_screen(failure))), theme.bad)
        }
    };
    let mut lines = vec![Line::from(Span::styled(head, style)), Line::from("")];
    match &report.outcome {
        Outcome::Failed(failure) => {
            lines.push(Line::from(theme.text(&report::failure_problem(failure).advice.on_screen())));
        }
        Outcome::Cancelled(state) => lines.push(Line::from(report::drone_state(*state))),
        _ => {
            let next =
                app.describe_restart(report).unwrap_or_else(|| "The drone is still in DFU mode.".to_owned());
            let style = if flies { theme.good } else { theme.strong };
            lines.push(Line::from(Span::styled(theme.text(&next), style)));
            lines.extend(
                report::figures(report).map(|figures| Line::from(format!("{}.", capitalised(&figures)))),
            );
            lines.extend(loader_note(app).map(|(instruction, bad)| {
                Line::from(Span::styled(theme.text(&instruction), if bad { theme.warn } else { theme.plain }))
            }));
            if report.outcome == Outcome::Flashed {
                lines.push(bar::phases(&facts.progress, width, theme));
            }
        }
    }
    let mut choices = Line::default();
    for row in keys::bindings_below(app).into_iter().filter(is_next_step) {
        // Offer undo only if there is no other next step.
        if row.action == Action::Undo && !choices.spans.is_empty() {
            continue;
        }
        let (key, label) = if choices.spans.is_empty() && row.action != Action::Undo {
            (theme.next_key, theme.strong)
        } else {
            (theme.key, theme.plain)
        };
        choices.push_span(Span::styled(format!(" {} ", row.shown), key));
        choices.push_span(Span::styled(format!(" {}    ", next_step_label(&row)), label));
    }
    if !choices.spans.is_empty() {
        lines.extend([Line::from(""), choices]);
    }
    let drawing = if flies { flying_drone(app.now.saturating_sub(facts.ended), theme) } else { Vec::new() };
    MainPanel { title: "Outcome", note: "", lines, question: None, drawing }
}

/// Returns whether the outcome's panel shows this key, in addition to the footer.
fn is_next_step(row: &Binding) -> bool {
    let is_step = matches!(row.action, Action::Begin(_) | Action::Choose(_) | Action::Undo)
        || (row.action, row.label) == (Action::Retry, "try again");
    is_step && row.why_not.is_none()
}

fn next_step_label(row: &Binding) -> &'static str {
    match row.action {
        Action::Retry => "Try again",
        Action::Begin(Goal::Restore) => "Restore the bootloader now",
        Action::Begin(_) => "Show me how to get into DFU mode",
        Action::Choose(Which::Image) => "Choose another image",
        Action::Choose(Which::Loader) => "Choose another file",
        Action::Undo => "Put the previous firmware back",
        _ => row.label,
    }
}

/// Returns a drawing of the drone from above. The propellers turn for [`SPINNING`] after the job.
fn flying_drone<'a>(passed: Duration, theme: &Theme) -> Vec<Line<'a>> {
    let positions = theme.propeller;
    let turned = passed.min(SPINNING).as_millis() / SPIN.as_millis();
    let at = usize::try_from(turned).unwrap_or(0) % positions.len();
    let (one, other) = (positions[at], positions[(at + positions.len() / 2) % positions.len()]);
    let line = |text: String| Line::from(Span::styled(text, theme.accent));
    vec![
        line(format!("{one}{one}{one}     {other}{other}{other}")),
        line("  \\   /  ".to_owned() + " "),
        line("   [ ^ ]   ".to_owned()),
        line("  /   \\   ".to_owned()),
        line(format!("{other}{other}{other}     {one}{one}{one}")),
    ]
}

/// Returns a note about the bootloader after a successful job, and whether the note is a warning. Returns `None` if the
/// bootloader is intact and was not touched.
pub(super) fn loader_note(app: &App) -> Option<(String, bool)> {
    let preview = app.preview()?;
    if preview.loader.is_some_and(Loader::is_missing) {
        let words = "The bootloader is missing, so the drone will not start when it is switched on. Press b to \
                     restore the bootloader with cf2loader-1.0.bin from \
                     github.com/bitcraze/crazyflie2-stm-bootloader/releases.";
        return Some((words.to_owned(), true));
    }
    let restored = report::describe_restore(preview.plan.pieces()).filter(|_| app.goal == Goal::Restore);
    restored.map(|words| (words, false))
}

/// Returns the reason why the user must type a word, as a sentence without a full stop.
pub(super) fn danger_reason(danger: Danger) -> &'static str {
    match danger {
        Danger::Bootloader => "This replaces the bootloader",
        Danger::UnknownImage => "cfdfu does not recognise this image",
        Danger::UnknownBoard => "The board of this drone could not be read",
        Danger::ChangedSince => "Another program has changed this drone since its last flash",
        Danger::MaybeNotACrazyflie => "This may not be a Crazyflie",
    }
}
