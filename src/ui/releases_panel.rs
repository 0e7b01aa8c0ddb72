//! Draws the picker's page of official releases: the servers that cfdfu will contact, the list of releases, which marks
//! those on this computer or on the drone, and the progress of a download.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::theme::Theme;
use super::{bar, cut, focus, wrapped};
use crate::app::releases::{ReleaseList, ReleasesView, Request};
use crate::app::{App, Which};
use crate::crazyflie::symptoms::capitalised;
use crate::releases::{Release, platform_of};
use crate::report::{self, Problem};
use crate::usb::descriptor::clean;

/// The widths of the columns for tag, date and state.
const TAG: usize = 12;
const DATE: usize = 12;
const STATE: usize = 18;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, view: &ReleasesView, theme: &Theme) {
    let title = title(app, view);
    let from = view.list.as_ref().map(|list| format!(" {} ", source(view, list))).unwrap_or_default();
    let room = usize::from(area.width).saturating_sub(title.chars().count() + 6);
    let from = Span::styled(cut(&theme.text(&from), room, theme), theme.faint);
    let block = focus(theme, &title).title(Line::from(from).right_aligned());
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let width = usize::from(inner.width);
    let above = above(view, width, theme);
    let below = below(app, view, width, theme);
    let rows = |lines: &[Line<'_>], most: u16| u16::try_from(lines.len()).unwrap_or(most).min(most);
    let foot = rows(&below, 3);
    // Keep at least two rows for the list.
    let head = rows(&above, inner.height.saturating_sub(foot + 2));
    let [head, list, foot] = inner.layout(&Layout::vertical([
        Constraint::Length(head),
        Constraint::Fill(1),
        Constraint::Length(foot),
    ]));
    frame.render_widget(Paragraph::new(above), head);
    let lines = match &view.list {
        Some(_) => table(app, view, (width, usize::from(list.height)), theme),
        None => Vec::new(),
    };
    frame.render_widget(Paragraph::new(lines), list);
    frame.render_widget(Paragraph::new(below), foot);
}

pub(super) fn title(app: &App, view: &ReleasesView) -> String {
    match view.which {
        Which::Loader => "Official bootloader".to_owned(),
        Which::Image => {
            let board = app.devices.board().filter(|_| view.platform.is_none());
            let whose = board.map(|board| board.code.as_str()).or(view.platform.as_deref());
            whose.map_or_else(
                || "Official firmware".to_owned(),
                |it| format!("Official firmware for {}", clean(it)),
            )
        }
    }
}

/// Returns the folder from which the list was read, or the age of the list.
pub(super) fn source(view: &ReleasesView, list: &ReleaseList) -> String {
    match &view.folder {
        Some(folder) => format!("from {}", clean(&folder.display().to_string())),
        None => format!("fetched {}", age(list.age)),
    }
}

fn age(age: Duration) -> String {
    let minutes = age.as_secs() / 60;
    match minutes {
        0 => "just now".to_owned(),
        1..120 => format!("{minutes} min ago"),
        120..2880 => format!("{} h ago", minutes / 60),
        _ => format!("{} ago", report::count(minutes / 1440, "day")),
    }
}

/// Returns the text that the page shows before the first request.
pub(super) fn invitation(view: &ReleasesView) -> [String; 2] {
    let what = match view.which {
        Which::Image => "Bitcraze's official firmware",
        Which::Loader => "Bitcraze's official bootloader",
    };
    [
        format!("cfdfu can fetch {what}."),
        "cfdfu asks api.github.com for the list, and downloads your choice from github.com and \
         githubusercontent.com. It connects to nothing else, and only at your request."
            .to_owned(),
    ]
}

fn above<'a>(view: &ReleasesView, width: usize, theme: &Theme) -> Vec<Line<'a>> {
    let stale = view.list.as_ref().and_then(|list| list.stale_because.as_ref());
    let mut lines = match (&view.problem, stale, &view.list, &view.request) {
        (Some(problem), ..) => problem_lines(problem, width, theme),
        (None, Some(stale), ..) => {
            let words = format!("This is an older list: {stale}.");
            wrapped(&theme.text(&words), width)
                .into_iter()
                .map(|row| Line::from(Span::styled(row, theme.warn)))
                .collect()
        }
        (None, None, None, Request::KeptList) => vec![Line::from(theme.text("reading …"))],
        (None, None, None, Request::List) => vec![Line::from(theme.text("Asking api.github.com …"))],
        (None, None, None, _) => {
            let [first, second] = invitation(view);
            let second = wrapped(&second, width).into_iter().map(Line::from);
            let enter = Line::from(vec![
                Span::raw("Press "),
                Span::styled("Enter", theme.strong),
                Span::raw(" to ask for the list."),
            ]);
            let first = Line::from(Span::styled(first, theme.strong));
            let gap = || std::iter::once(Line::default());
            return std::iter::once(first).chain(gap()).chain(second).chain(gap()).chain([enter]).collect();
        }
        (None, None, Some(_), _) => return Vec::new(),
    };
    if view.list.is_some() {
        lines.push(Line::default());
    }
    lines
}

fn problem_lines<'a>(problem: &Problem, width: usize, theme: &Theme) -> Vec<Line<'a>> {
    // A hash may be longer than a row. Break it, so that all of it is visible.
    let pieces = |row: String| {
        let letters: Vec<char> = row.chars().collect();
        letters.chunks(width.max(1)).map(|piece| piece.iter().collect()).collect::<Vec<String>>()
    };
    let rows =
        |text: &str| wrapped(&theme.text(text), width).into_iter().flat_map(pieces).collect::<Vec<_>>();
    let what = rows(&sentence(&problem.to_string()));
    let what = what.into_iter().map(|row| Line::from(Span::styled(row, theme.bad)));
    what.chain(rows(&problem.advice.on_screen()).into_iter().map(Line::from)).collect()
}

/// Turns a message into a sentence. The name of a host or file at the start of the message is not capitalised.
pub(super) fn sentence(message: &str) -> String {
    let is_name = message.split(' ').next().is_some_and(|word| word.contains('.'));
    if is_name { format!("{message}.") } else { format!("{}.", capitalised(message)) }
}

/// Returns the rows of the list, scrolled to the selected row.
fn table<'a>(
    app: &App,
    view: &ReleasesView,
    (width, height): (usize, usize),
    theme: &Theme,
) -> Vec<Line<'a>> {
    let rows = view.rows();
    if rows.is_empty() {
        return vec![Line::from("No releases are listed.")];
    }
    let first = view.at.saturating_sub(height.saturating_sub(1));
    let visible = rows.into_iter().enumerate().skip(first).take(height);
    visible.map(|(n, release)| table_row(app, view, release, (n == view.at, width), theme)).collect()
}

fn table_row<'a>(
    app: &App,
    view: &ReleasesView,
    release: &Release,
    (is_marked, width): (bool, usize),
    theme: &Theme,
) -> Line<'a> {
    let (tick, ..) = theme.ticks;
    let asset = view.asset(release, app.devices.board_code()).ok();
    let is_kept = asset.is_some_and(|asset| view.is_kept(release, asset));
    let (mark, mark_style) = if is_kept { (tick, theme.good) } else { (" ", theme.plain) };
    let room = width.saturating_sub(2 + TAG + DATE + STATE);
    let pre = if release.prerelease { "pre-release  " } else { "" };
    let names = files(release);
    // Show all names or none, because an incomplete list would be misleading.
    let fits = pre.len() + names.len() < room;
    let names = if fits { format!("{pre}{names}") } else { pre.trim_end().to_owned() };
    let state = row_state(app, view, release);
    Line::from(vec![
        Span::styled(format!("{mark} "), mark_style),
        Span::styled(
            format!("{:<TAG$}", cut(&release.tag, TAG - 1, theme)),
            if is_marked { theme.marked } else { theme.strong },
        ),
        Span::styled(format!("{:<DATE$}", release.published), theme.faint),
        Span::raw(format!("{:<room$}", cut(&names, room.saturating_sub(1), theme))),
        Span::styled(format!("{state:>STATE$}"), theme.faint),
    ])
}

/// Returns the platforms of a release, or the name of its bootloader file.
fn files(release: &Release) -> String {
    let platforms: Vec<&str> = release.assets.iter().filter_map(platform_of).collect();
    if platforms.is_empty() {
        release.assets.first().map(|asset| asset.name.clone()).unwrap_or_default()
    } else {
        platforms.join(" ")
    }
}

/// Returns where a release already is: on the drone, on this computer, or both. If it is on neither, returns the size
/// of its file.
pub(super) fn row_state(app: &App, view: &ReleasesView, release: &Release) -> String {
    let asset = view.asset(release, app.devices.board_code()).ok();
    let is_kept = asset.is_some_and(|asset| view.is_kept(release, asset));
    let is_flashed = view.which == Which::Image && app.devices.version() == Some(&*release.tag);
    match asset {
        _ if is_flashed && is_kept => "on the drone, here".to_owned(),
        _ if is_flashed => "on the drone".to_owned(),
        Some(_) if is_kept => "here".to_owned(),
        Some(asset) => size(asset.size),
        None => String::new(),
    }
}

fn size(bytes: u64) -> String {
    format!("{} KiB", bytes.div_ceil(1024))
}

/// Returns the lines below the list: what Enter does, or the progress of a request.
fn below<'a>(app: &App, view: &ReleasesView, width: usize, theme: &Theme) -> Vec<Line<'a>> {
    match &view.request {
        Request::File { name, done, total, .. } => {
            let kib = |bytes: u64| bytes / 1024;
            let figures = match total {
                Some(total) => format!("{} of {}", kib(*done), size(*total)),
                None => format!("{} KiB", kib(*done)),
            };
            let words = format!("Downloading {}  {figures}", clean(name));
            let mut lines = vec![Line::default(), Line::from(cut(&words, width, theme))];
            if let Some(total) = total {
                lines.push(bar::gauge(ratio(*done, *total), theme, width));
            }
            lines
        }
        Request::List if view.list.is_some() => {
            vec![Line::default(), Line::from(theme.text("Asking api.github.com …"))]
        }
        Request::Nothing if view.list.is_some() && view.problem.is_none() => {
            let mut lines = vec![Line::default()];
            let rows = |text: &str| wrapped(text, width).into_iter().map(Line::from);
            lines.extend(rows(&choice(app, view)));
            lines
        }
        _ => Vec::new(),
    }
}

/// Describes what Enter does.
pub(super) fn choice(app: &App, view: &ReleasesView) -> String {
    match view.file(app.devices.board_code()) {
        Err(why) => sentence(&why),
        Ok((release, asset)) => {
            let name = clean(&asset.name);
            let what = if view.is_kept(release, asset) {
                format!("Enter picks {name}, which is on this computer.")
            } else {
                format!("Enter downloads {name}, {}.", size(asset.size))
            };
            match view.which {
                Which::Image => format!("{what} Only its STM32 part is flashed."),
                Which::Loader => what,
            }
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "file sizes are far below 2^52")]
fn ratio(done: u64, total: u64) -> f64 {
    if total == 0 { 0.0 } else { done as f64 / total as f64 }
}
