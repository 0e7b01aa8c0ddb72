//! The middle of the screen: the jobs, the picker, the wizard, the plan, the log of a running job, or how it
//! ended.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::theme::Theme;
use super::{log_panel, panel, rows_of, wizard_panel};
use crate::app::keys::Danger;
use crate::app::picker::{Entry, EntryKind, Picker};
use crate::app::{App, Confirmation, Goal, JobView, Screen, Stage, Which, command_line, keys, progress};
use crate::image::Content;
use crate::image::Loader;
use crate::job::{Outcome, Preview, Report};
use crate::plan::Comparison;
use crate::report;
use crate::usb::descriptor::clean;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    match &app.screen {
        Screen::Home => home(frame, area, app, theme),
        Screen::Pick(_, _, picker) => pick(frame, area, picker, theme),
        Screen::Wizard(view) => wizard_panel::draw(frame, area, app, &view.wizard, theme),
        Screen::Job(view) => job(frame, area, app, view, theme),
        Screen::Outcome(report, _) => outcome(frame, area, app, report, theme),
    }
}

fn home(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let [jobs, log] = area.layout(&Layout::vertical([Constraint::Length(5), Constraint::Fill(1)]));
    let letters = ["f", "r", "b"];
    let lines: Vec<Line<'_>> = Goal::ALL
        .iter()
        .zip(letters)
        .map(|(goal, letter)| {
            let marked = *goal == app.goal;
            let style = if marked { theme.marked } else { theme.plain };
            let why = keys::why_not(app, *goal).map(|why| Span::styled(format!("  {why}"), theme.faint));
            let name = Span::styled(format!(" {letter}  {} ", goal.title()), style);
            Line::from([Some(name), why].into_iter().flatten().collect::<Vec<_>>())
        })
        .collect();
    frame.render_widget(Paragraph::new(lines).block(panel(theme, "What to do")), jobs);
    log_panel::draw(frame, log, app, theme, false);
}

fn pick(frame: &mut Frame<'_>, area: Rect, picker: &Picker, theme: &Theme) {
    let block = panel(theme, &format!("Choose a file in {}", picker.folder.display()));
    let height = usize::from(area.height.saturating_sub(3));
    let first = picker.at.saturating_sub(height.saturating_sub(1));
    let mut lines = vec![match &picker.typing {
        Some(input) => Line::from(vec![
            Span::styled("path ", theme.faint),
            Span::styled(format!("{}_", input.value()), theme.strong),
        ]),
        None => Line::from(Span::styled("/ to type or paste a path", theme.faint)),
    }];
    if picker.entries.is_none() {
        lines.push(Line::from(theme.text("reading …")));
    } else if picker.rows().is_empty() {
        lines
            .push(Line::from(Span::styled("No folder and no file that could be an image here.", theme.warn)));
    }
    for (n, entry) in picker.rows().iter().enumerate().skip(first).take(height) {
        let name = entry_name(picker, entry);
        let (name, what, good) = match &entry.kind {
            EntryKind::Folder => (format!("{name}/"), String::new(), true),
            EntryKind::File(what, good) => (name, what.clone(), *good),
        };
        let style = if n == picker.at { theme.marked } else { theme.plain };
        let what_style = if good { theme.good } else { theme.faint };
        lines.push(Line::from(vec![
            Span::styled(format!(" {name:<32} "), style),
            Span::styled(format!(" {what}"), what_style),
        ]));
    }
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// A row's name: that of its file, and of a recent one in another folder all of its path.
pub(super) fn entry_name(picker: &Picker, entry: &Entry) -> String {
    let elsewhere = entry.kind != EntryKind::Folder && entry.path.parent() != Some(&picker.folder);
    let name = entry.path.file_name().filter(|_| !elsewhere).unwrap_or(entry.path.as_os_str());
    clean(&name.to_string_lossy())
}

fn job(frame: &mut Frame<'_>, area: Rect, app: &App, view: &JobView, theme: &Theme) {
    match (&view.stage, &view.facts.preview) {
        (Stage::Asking(question), Some(preview)) => {
            plan(frame, area, app, preview, question, view.stopping, theme);
        }
        _ => log_panel::draw(frame, area, app, theme, false),
    }
}

/// A row of the plan.
pub(super) struct PlanRow {
    pub(super) what: PlanRowKind,
    pub(super) text: String,
}

#[derive(Clone, Copy)]
pub(super) enum PlanRowKind {
    OnTheDrone,
    WillBe,
    Sectors,
    Write,
    NotTouched,
    LoaderGone,
    Note,
    SameAs,
}

impl PlanRowKind {
    pub(super) fn label(self) -> &'static str {
        match self {
            PlanRowKind::OnTheDrone => "on the drone",
            PlanRowKind::WillBe => "will be",
            PlanRowKind::Sectors => "sectors",
            PlanRowKind::Write => "write",
            PlanRowKind::NotTouched => "not touched",
            PlanRowKind::LoaderGone => "bootloader",
            PlanRowKind::Note => "note",
            PlanRowKind::SameAs => "the same as",
        }
    }
}

/// The plan as a difference: what is there, what will be, what is left alone, how long it takes.
pub(super) fn plan_rows(app: &App, preview: &Preview) -> Vec<PlanRow> {
    let before = preview.firmware.as_ref().map_or_else(|| "nothing".to_owned(), Content::to_string);
    let mut coming = app.content().map(Content::to_string).unwrap_or_default();
    if let Some(firmware) = app.firmware_of_restore().filter(|_| app.goal == Goal::Restore) {
        coming = format!("{coming} and {}", firmware.content);
    }
    let same = preview.found.iter().filter(|&&found| found == Comparison::Same).count();
    let erase: Vec<String> = preview.work.erase.iter().map(|sector| sector.index.to_string()).collect();
    let seconds = progress::estimate(&preview.work).as_secs_f64();
    let untouched = match app.goal {
        Goal::Restore => "settings, radio chip, decks",
        Goal::Flash | Goal::Recover => "bootloader, settings, radio chip, decks",
    };
    let bytes = report::thousands(preview.work.bytes());
    let gone = preview.loader.is_some_and(Loader::is_gone);
    let gone = gone.then(|| "gone: it will not start; Esc, b restores".to_owned());
    // The change says more than the caution does of the image alone.
    let change =
        preview.platform_change.map(|change| format!("warning: {}", report::platform_change(change)));
    let file = app.image.image().filter(|_| app.undoes(Which::Image).is_none());
    let note = change.or_else(|| file.and_then(report::caution));
    // The question below says it, unless it asks about the bootloader.
    let is_asked = keys::danger(app) == Some(Danger::ChangedSince);
    let since = (preview.changed_since && !is_asked)
        .then(|| "another program flashed the drone since; that is overwritten".to_owned());
    let note = note.or(since);
    let row = |what, text| PlanRow { what, text };
    let gone = gone.map(|text| row(PlanRowKind::LoaderGone, text));
    let note = note.map(|text| row(PlanRowKind::Note, text));
    let mut rows = vec![
        row(PlanRowKind::OnTheDrone, before),
        row(PlanRowKind::WillBe, coming),
        row(
            PlanRowKind::Sectors,
            format!("{same} of {} are the same; erase {}", preview.found.len(), erase.join(", ")),
        ),
        row(PlanRowKind::Write, format!("{bytes} bytes, about {seconds:.0} s, all read back")),
        row(PlanRowKind::NotTouched, untouched.to_owned()),
    ];
    rows.extend(gone.into_iter().chain(note));
    rows.push(row(PlanRowKind::SameAs, command_line::command_line(app)));
    rows
}

fn plan(
    frame: &mut Frame<'_>,
    area: Rect,
    app: &App,
    preview: &Preview,
    question: &Confirmation,
    stopping: bool,
    theme: &Theme,
) {
    let row = |PlanRow { what, text }: PlanRow| {
        let style = match what {
            PlanRowKind::WillBe => theme.strong,
            PlanRowKind::LoaderGone | PlanRowKind::Note => theme.warn,
            _ => theme.plain,
        };
        Line::from(vec![
            Span::styled(format!("{:<14}", what.label()), theme.faint),
            Span::styled(theme.text(&text), style),
        ])
    };
    let lines: Vec<Line<'_>> = plan_rows(app, preview).into_iter().map(row).collect();
    let question = if stopping {
        Line::from(theme.text("Going back. Nothing was changed …"))
    } else if let Some(danger) = keys::danger(app) {
        let (what, wanted) = (danger_words(danger), danger.word());
        Line::from(vec![
            Span::styled(format!("{what}. Type {wanted}, then Enter: "), theme.warn),
            Span::styled(format!("{}_", question.word), theme.strong),
        ])
    } else {
        // It takes a key once it can have been read.
        let key = if question.until_read(app.now).is_some() { theme.faint } else { theme.key };
        Line::from(vec![
            Span::raw("Nothing is changed yet. "),
            Span::styled(" w ", key),
            Span::raw(" writes, "),
            Span::styled(" Esc ", theme.key),
            Span::raw(" goes back."),
        ])
    };
    above_the_log(frame, area, app, theme, "Plan", lines, Some(question));
}

/// A panel as high as its text, and the log below where there is room. The last line, a question, is there however
/// little room the others leave it.
fn above_the_log(
    frame: &mut Frame<'_>,
    area: Rect,
    app: &App,
    theme: &Theme,
    title: &str,
    lines: Vec<Line<'_>>,
    question: Option<Line<'_>>,
) {
    let width = area.width.saturating_sub(2);
    let text = Paragraph::new(lines).wrap(Wrap { trim: false });
    let question = question.map(|line| Paragraph::new(line).wrap(Wrap { trim: false }));
    let rows = rows_of(&text, width);
    let last = question.as_ref().map_or(0, |question| rows_of(question, width));
    let wanted = rows.saturating_add(last).saturating_add(2).min(area.height);
    let [top, log] = area.layout(&Layout::vertical([Constraint::Length(wanted), Constraint::Fill(1)]));
    // One or two rows of it would be a border around nothing.
    let top = if log.height > 2 { top } else { area };
    let block = panel(theme, title);
    let inner = block.inner(top);
    frame.render_widget(block, top);
    let above = rows.min(inner.height.saturating_sub(last));
    let [above, below, _] = inner.layout(&Layout::vertical([
        Constraint::Length(above),
        Constraint::Length(last),
        Constraint::Fill(1),
    ]));
    frame.render_widget(text, above);
    if let Some(question) = question {
        frame.render_widget(question, below);
    }
    if log.height > 2 {
        log_panel::draw(frame, log, app, theme, false);
    }
}

fn outcome(frame: &mut Frame<'_>, area: Rect, app: &App, report: &Report, theme: &Theme) {
    let (tick, _, cross) = theme.ticks;
    let took = report.took.as_secs_f64();
    let verdict = theme.text(&report::verdict(report));
    let (head, style) = match &report.outcome {
        Outcome::Flashed | Outcome::Unchanged | Outcome::Read(_) | Outcome::Identified => {
            (format!("{tick} {verdict}, {took:.1} s"), theme.good)
        }
        Outcome::Cancelled(_) => (format!("{cross} {verdict} after {took:.1} s"), theme.warn),
        Outcome::Failed(_) => (format!("{cross} {verdict}"), theme.bad),
    };
    let mut lines = vec![Line::from(Span::styled(head, style))];
    match &report.outcome {
        Outcome::Failed(failure) => {
            lines.push(Line::from(theme.text(&report::failed(failure).advice.to_string())));
        }
        Outcome::Cancelled(state) => lines.push(Line::from(report::drone_state(*state))),
        _ => {
            lines.extend(report::figures(report).map(|figures| Line::from(format!("{figures}."))));
            let next = report::afterwards(report).unwrap_or_else(|| "It is still in DFU mode.".to_owned());
            lines.push(Line::from(theme.text(&next)));
            lines.extend(about_the_loader(app).map(|(words, bad)| {
                Line::from(Span::styled(theme.text(&words), if bad { theme.warn } else { theme.plain }))
            }));
        }
    }
    if matches!(&report.outcome, Outcome::Failed(failure) if !failure.drone.is_unchanged()) {
        lines.push(Line::from(vec![
            Span::styled(" r ", theme.key),
            Span::raw(" tries again, "),
            Span::styled(" w ", theme.key),
            Span::raw(" leads into DFU mode by hand."),
        ]));
    }
    above_the_log(frame, area, app, theme, "Outcome", lines, None);
}

/// What a job that worked means for the bootloader, and whether that is bad; nothing if it is there and was not touched.
pub(super) fn about_the_loader(app: &App) -> Option<(String, bool)> {
    let preview = app.preview()?;
    if preview.loader.is_some_and(Loader::is_gone) {
        return Some((report::WITHOUT_LOADER.to_owned(), true));
    }
    let restored = report::restored(preview.plan.pieces()).filter(|_| app.goal == Goal::Restore);
    restored.map(|words| (words, false))
}

/// What is dangerous, in words.
pub(super) fn danger_words(danger: Danger) -> &'static str {
    match danger {
        Danger::Bootloader => "This overwrites the bootloader",
        Danger::UnknownImage => "This image is not recognised",
        Danger::UnknownBoard => "The board of this drone cannot be read",
        Danger::ChangedSince => "Another program has changed this drone since its last flash",
        Danger::NoCrazyflie => "Nothing says that this is a Crazyflie",
    }
}
