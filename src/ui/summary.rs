//! The two cards at the top: the drone, and the file to flash.

use std::path::Path;

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::theme::Theme;
use super::{batch_panel, cut_line, panel, push_whole, wrapped};
use crate::app::batch::DroneFacts;
use crate::app::{App, Backup, BusState, Goal, Screen, Slot, Which};
use crate::crazyflie::{Board, Mode, RelatedDevice};
use crate::image::Loader;
use crate::image::{Content, Format, Image};
use crate::job::{Device, DeviceInfo, Identity, Running};
use crate::report::count;
use crate::usb::descriptor::clean;

pub(super) fn draw_drone(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    if let Some((device, facts)) = app.opened_drone() {
        return draw_card(frame, area, "Drone", row_lines(app, device, facts, area.width, theme), theme);
    }
    let title = match app.devices.list().len() {
        0 | 1 => "Drone".to_owned(),
        n => format!("Drone {} of {n}", app.devices.position() + 1),
    };
    let lines = match (&app.devices.bus, app.devices.selected()) {
        (BusState::Scanning, _) => vec![Line::from(Span::styled(theme.text("looking …"), theme.faint))],
        (BusState::Unavailable(_), _) => vec![
            Line::from(Span::styled("No USB on this computer.", theme.warn)),
            Line::from("Try the demo, or run cfdfu where"),
            Line::from("the drone is plugged in."),
        ],
        // The hints below name keys of the Home screen, so they appear only there.
        (BusState::Devices(_), None) if app.job().is_some_and(|view| view.waiting.is_some()) => {
            vec![Line::from(Span::styled(theme.text("restarting …"), theme.faint))]
        }
        (BusState::Devices(_), None) if app.screen != Screen::Home => {
            vec![Line::from(Span::styled("No drone found on USB.", theme.strong))]
        }
        (BusState::Devices(_), None) => vec![
            Line::from(Span::styled("No drone found on USB.", theme.strong)),
            Line::from(vec![
                Span::raw("Won't start? Press "),
                Span::styled("r", theme.strong),
                Span::raw("."),
            ]),
            match app.demo {
                Some(_) => Line::from(""),
                None => Line::from(vec![
                    Span::raw("Plugged in but not found? Press "),
                    Span::styled("d", theme.strong),
                    Span::raw("."),
                ]),
            },
        ],
        (BusState::Others(others), _) => {
            let is_px4 = others.iter().all(|other| other.what == RelatedDevice::Px4Bootloader);
            let head = if is_px4 { "Not Bitcraze's bootloader:" } else { "No Crazyflie, only" };
            let mut lines = vec![Line::from(Span::styled(head, theme.warn))];
            match others.as_slice() {
                [other] => {
                    lines.push(Line::from(Span::styled(other.what.to_string(), theme.strong)));
                    let note = if other.what.foreign().is_some() { "; never written to" } else { "" };
                    lines.push(Line::from(format!("on port {}{note}", other.location)));
                }
                // The port is first, because a long line is cut at its end.
                many => lines.extend(
                    many.iter().map(|other| Line::from(format!("{}: {}", other.location, other.what))),
                ),
            }
            lines
        }
        (BusState::Devices(_), Some(device)) => device_lines(app, device, area.width, theme),
    };
    draw_card(frame, area, &title, lines, theme);
}

/// Describes the drone of an opened row.
fn row_lines<'a>(
    app: &App,
    device: &Device,
    facts: Option<&DroneFacts>,
    width: u16,
    theme: &Theme,
) -> Vec<Line<'a>> {
    let waiting = app.job().is_some_and(|view| view.waiting.is_some());
    let name = match device.mode {
        _ if waiting => theme.text("restarting …"),
        Mode::Dfu => "in DFU mode".to_owned(),
        Mode::Firmware => format!("{}, running", device.strings.product),
    };
    let Device { id, location, strings, .. } = device;
    let radio = batch_panel::name(app, &strings.serial).map(|name| format!("  {name}")).unwrap_or_default();
    let board = facts.filter(|facts| !facts.may_be_foreign()).and_then(DroneFacts::board);
    let last = board.map(Board::named).map_or_else(
        || format!("serial {}", strings.serial),
        |board| format!("{} {}", board.code, board.name()),
    );
    let style = if waiting { theme.faint } else { theme.good };
    let head = head_line(name, style, &[radio], inner_width(width), theme);
    vec![head, Line::from(format!("  {id} on port {location}")), Line::from(format!("  {last}"))]
}

/// Returns the first line of a card: a dot, the name, and the first suffix that fits. Part of an address or a port
/// would be useless.
fn head_line<'a>(name: String, dot: Style, suffixes: &[String], width: usize, theme: &Theme) -> Line<'a> {
    let dot = Span::styled(format!("{} ", theme.dot), dot);
    let mut line = Line::from(vec![dot, Span::styled(name, theme.strong)]);
    let _ = suffixes.iter().any(|suffix| push_whole(&mut line, [Span::raw(suffix.clone())], width));
    line
}

/// Returns the width of the text in a card of this width.
fn inner_width(width: u16) -> usize {
    usize::from(width.saturating_sub(super::FRAME))
}

fn device_lines<'a>(app: &App, device: &Device, width: u16, theme: &Theme) -> Vec<Line<'a>> {
    let known = app.devices.known();
    let (name, style) = match (device.open_error, device.mode) {
        (Some(_), _) => ("cannot be opened".to_owned(), theme.bad),
        (None, Mode::Dfu) => ("in DFU mode".to_owned(), theme.good),
        (None, Mode::Firmware) => (format!("{}, running", device.strings.product), theme.good),
    };
    let inner = inner_width(width);
    let head = |more: &[String]| head_line(name, style, more, inner, theme);
    let Device { id, location, strings, .. } = device;
    let place = Line::from(format!("  {id} on port {location}"));
    match (device.open_error, known) {
        (Some(error), _) => {
            let why = vec![Span::raw("  "), Span::styled(error.to_string(), theme.bad)];
            vec![head(&[]), place, Line::from(why)]
        }
        (None, Some(DeviceInfo::InDfu(identity))) => {
            let board = identity.board.as_ref();
            let board =
                board.map_or_else(|| "unknown board".to_owned(), |it| format!("{} {}", it.code, it.name()));
            let serial = if width >= 56 { format!("   serial {}", strings.serial) } else { String::new() };
            let board = Line::from(format!("  {board}{serial}"));
            let places = [format!("  {id}  port {location}"), format!("  port {location}")];
            vec![head(&places), board, contents(identity, inner, theme)]
        }
        (None, Some(DeviceInfo::Running(Running { version: Some(version), board, radio, health }))) => {
            let board = board.as_deref().unwrap_or("the drone");
            let name = radio.map(|radio| format!("  {}", radio.name())).unwrap_or_default();
            let last = if health.has_failed() {
                Line::from(vec![
                    Span::styled("  self-test failed", theme.bad),
                    Span::raw(format!(", runs {version}")),
                ])
            } else {
                Line::from(format!("  {board} runs {version}"))
            };
            vec![head(&[name]), place, last]
        }
        (None, _) => {
            let board = app.devices.board().map(|board| format!("{} {}", board.code, board.name()));
            let last = board.unwrap_or_else(|| format!("serial {}", strings.serial));
            vec![head(&[]), place, Line::from(format!("  {last}"))]
        }
    }
}

/// Describes the bootloader and the firmware of a drone in DFU mode, as far as they fit into this width.
fn contents<'a>(identity: &Identity, width: usize, theme: &Theme) -> Line<'a> {
    if identity.is_read_protected() {
        return Line::from(Span::styled("  read-protected", theme.bad));
    }
    let loader = match identity.loader {
        Some(Loader::Bitcraze) => Span::raw("bootloader ok"),
        Some(Loader::Overwritten) => Span::styled("bootloader overwritten", theme.bad),
        Some(Loader::Erased) => Span::styled("bootloader erased", theme.bad),
        Some(Loader::Other) => Span::styled("not Bitcraze's bootloader", theme.bad),
        None => Span::raw("bootloader unknown"),
    };
    let firmware = match identity.firmware.as_ref().map(Content::firmware) {
        None => Span::styled("no firmware", theme.warn),
        Some(None) => Span::styled("unknown firmware", theme.warn),
        Some(Some(firmware)) if firmware.extent.complete() == Some(false) => {
            Span::styled("incomplete firmware", theme.bad)
        }
        Some(Some(firmware)) => {
            Span::raw(format!("firmware {}", firmware.version.as_deref().unwrap_or("of unknown version")))
        }
    };
    // If there is room for only one of them, show the bootloader unless it is known to be good.
    let is_good = identity.loader == Some(Loader::Bitcraze);
    let main = if is_good { firmware.clone() } else { loader.clone() };
    let both = Line::from(vec![Span::raw("  "), loader, Span::raw(", "), firmware]);
    if both.width() <= width { both } else { Line::from(vec![Span::raw("  "), main]) }
}

fn draw_card(frame: &mut Frame<'_>, area: Rect, title: &str, lines: Vec<Line<'_>>, theme: &Theme) {
    let width = inner_width(area.width);
    let lines: Vec<Line<'_>> = lines.into_iter().map(|line| cut_line(line, width, theme)).collect();
    frame.render_widget(Paragraph::new(lines).block(panel(theme, title)), area);
}

/// Draws the drone and the file in one row, for a screen with few rows.
pub(super) fn draw_row(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let shown = app.opened_drone().map(|(device, _)| device).or_else(|| app.devices.selected());
    let device = match shown {
        Some(device) => {
            let name = match device.mode {
                Mode::Dfu => "in DFU mode",
                Mode::Firmware => "running",
            };
            format!("{name} on port {}", device.location)
        }
        None => "no drone".to_owned(),
    };
    let which = app.goal.file();
    let file = match (app.backup_replacing(which), app.slot(which)) {
        (Some(_), _) => "the previous firmware".to_owned(),
        (None, Slot::Empty) => "no file".to_owned(),
        (None, slot) => slot.path().map(|path| file_name(path)).unwrap_or_default(),
    };
    let style = if shown.is_some() { theme.good } else { theme.faint };
    let line = Line::from(vec![
        Span::styled(format!(" {} ", theme.dot), style),
        Span::styled(device, theme.strong),
        Span::styled("   ", theme.line),
        Span::raw(theme.text(&file)),
    ]);
    frame.render_widget(line, area);
}

/// Draws the card of the file to flash.
pub(super) fn draw_file(frame: &mut Frame<'_>, area: Rect, app: &App, theme: &Theme) {
    let which = app.goal.file();
    let title = match which {
        Which::Loader => "Bootloader",
        Which::Image => "Firmware",
    };
    let mut lines = match app.backup_replacing(which) {
        Some(backup) => backup_lines(backup, theme),
        None => slot_lines(app.slot(which), usize::from(area.width), theme),
    };
    if app.screen != Screen::Home && *app.slot(which) == Slot::Empty {
        lines.truncate(1);
    }
    if app.goal == Goal::Restore
        && let Some(image) = app.firmware_of_restore()
    {
        lines.truncate(2);
        lines.push(Line::from(format!("and {}", image.content)));
    }
    draw_card(frame, area, title, lines, theme);
}

fn backup_lines<'a>(backup: &Backup, theme: &Theme) -> Vec<Line<'a>> {
    let place = backup
        .image
        .segments()
        .first()
        .map(|first| format!("{} at {}", count(backup.image.bytes() as u64, "byte"), first.address));
    vec![
        Line::from(Span::styled("Undo: the previous firmware", theme.strong)),
        Line::from(backup.content.to_string()),
        Line::from(place.unwrap_or_default()),
    ]
}

fn file_name(path: &Path) -> String {
    let name = path
        .file_name()
        .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned());
    clean(&name)
}

fn slot_lines<'a>(slot: &Slot, width: usize, theme: &Theme) -> Vec<Line<'a>> {
    let name = file_name;
    match slot {
        Slot::Empty => vec![
            Line::from(Span::styled("No file chosen yet.", theme.warn)),
            Line::from(vec![
                Span::raw("Press "),
                Span::styled("i", theme.strong),
                Span::raw(" to choose one."),
            ]),
        ],
        Slot::Loading(file) => {
            vec![Line::from(name(&file.path)), Line::from(Span::styled(theme.text("reading …"), theme.faint))]
        }
        Slot::Bad(path, problem) => {
            // There is room only for the reason. The log also contains the advice.
            let why = wrapped(&problem.message, width.saturating_sub(usize::from(super::FRAME)))
                .into_iter()
                .take(2);
            let head = Line::from(name(path));
            std::iter::once(head).chain(why.map(|line| Line::from(Span::styled(line, theme.bad)))).collect()
        }
        Slot::Ready(file, image) => vec![
            Line::from(Span::styled(name(&file.path), theme.strong)),
            Line::from(image.content.to_string()),
            Line::from(place(image)),
        ],
    }
}

fn place(image: &Image) -> String {
    let address = image.address().map(|address| format!(" at {address}")).unwrap_or_default();
    let format = match image.format {
        Format::Bin => String::new(),
        other => format!(" ({})", other.json_name()),
    };
    format!("{}{address}{format}", count(image.payload.len() as u64, "byte"))
}
