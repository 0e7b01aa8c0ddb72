//! The wizard's panel: the steps with marks, the instruction, the seconds in large digits, and the drone with its LED.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::focus;
use super::theme::Theme;
use crate::app::App;
use crate::app::wizard::{Led, Leds, Wizard, WizardStep};
use crate::crazyflie::Mode;

/// Explains why the wizard has opened although the user did not ask for it.
pub(super) const LOST: &str = "The connection dropped while flashing. Nothing is broken: put the drone back into \
    DFU mode, and cfdfu will finish the flash.";

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, wizard: &Wizard, theme: &Theme) {
    // An urgent instruction colours the whole panel, so no part may have a colour of its own.
    let one_colour;
    let (theme, style) = if is_urgent(app, wizard) {
        let plain = theme.plain;
        let heading = theme.strong;
        one_colour = Theme {
            faint: plain,
            accent: plain,
            good: plain,
            led: plain,
            line: plain,
            heading,
            ..theme.clone()
        };
        (&one_colour, theme.now)
    } else {
        (theme, theme.plain)
    };
    let block = focus(theme, "Enter DFU mode by hand").style(style);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    // On a narrow screen, the text is more useful than the drawing.
    let drawing = if inner.width >= 70 { 16 } else { 0 };
    let [steps, text, drone] = inner.layout(
        &Layout::horizontal([Constraint::Length(18), Constraint::Fill(1), Constraint::Length(drawing)])
            .spacing(2),
    );
    frame.render_widget(Paragraph::new(step_lines(app, wizard, theme)), steps);
    frame.render_widget(Paragraph::new(text_lines(app, wizard, theme)).wrap(Wrap { trim: false }), text);
    frame.render_widget(Paragraph::new(drone_lines(app, wizard, theme)), drone);
}

/// Returns whether the user must plug in the cable or release the button right now.
fn is_urgent(app: &App, wizard: &Wizard) -> bool {
    wizard.is_plugging(app.now) || wizard.is_letting_go(app.now)
}

fn step_lines<'a>(app: &App, wizard: &Wizard, theme: &Theme) -> Vec<Line<'a>> {
    let names = ["unplug", "hold the button", "plug in", "keep holding", "let go"];
    let at = match wizard.step {
        WizardStep::Prepare => 0,
        WizardStep::Count => 1,
        WizardStep::Hold if wizard.is_plugging(app.now) => 2,
        // The wizard usually fails because the button was released too early.
        WizardStep::Hold | WizardStep::AskLeds | WizardStep::Answer(_) | WizardStep::Early => 3,
        WizardStep::Release => 4,
    };
    let has_failed = matches!(wizard.step, WizardStep::AskLeds | WizardStep::Answer(_) | WizardStep::Early);
    let (_, busy, failed) = theme.ticks;
    let (mark, style) = if has_failed { (failed, theme.bad) } else { (busy, theme.accent) };
    names
        .iter()
        .enumerate()
        .map(|(n, name)| match n {
            // cfdfu cannot see whether these steps were really done, so they get no tick.
            n if n < at => Line::from(vec![
                Span::styled(format!("{} ", theme.sectors[0]), theme.faint),
                Span::raw(*name),
            ]),
            n if n == at => {
                Line::from(vec![Span::styled(format!("{mark} "), style), Span::styled(*name, theme.strong)])
            }
            _ => Line::from(Span::styled(format!("  {name}"), theme.faint)),
        })
        .collect()
}

fn text_lines<'a>(app: &App, wizard: &Wizard, theme: &Theme) -> Vec<Line<'a>> {
    let (head, detail) = wizard.instruction(app.now);
    let mut lines = Vec::new();
    if is_urgent(app, wizard) {
        lines.extend([
            Line::from(""),
            Line::from(Span::styled(head, theme.strong)).centered(),
            Line::from(""),
        ]);
    } else {
        lines.push(Line::from(Span::styled(head, theme.strong)));
    }
    if app.resume().is_some() && wizard.step == WizardStep::Prepare {
        lines.insert(0, Line::from(Span::styled(LOST, theme.warn)));
    }
    if !detail.is_empty() {
        lines.push(Line::from(theme.text(&detail)));
    }
    lines.extend(wizard.count(app.now).map(|number| big_number(number, theme)).unwrap_or_default());
    match wizard.step {
        WizardStep::Prepare => {
            if app.devices.list().iter().any(|device| device.mode == Mode::Firmware) {
                let advice = "A running Crazyflie is plugged in. Firmware 2022.03 or newer needs no button: \
                              press Esc, then f.";
                lines.push(Line::from(Span::styled(advice, theme.warn)));
            }
            lines.push(Line::from(""));
            lines.push(Line::from(vec![
                Span::raw("Then press "),
                Span::styled(" Enter ", theme.key),
                Span::raw("."),
            ]));
        }
        WizardStep::Hold if !wizard.is_plugging(app.now) => {
            lines.push(Line::from("The blue LED lights up, then blinks slowly, then fast."));
        }
        WizardStep::AskLeds => lines.extend(Leds::ALL.iter().enumerate().map(|(n, leds)| {
            let key = Span::styled(format!(" {} ", n + 1), theme.key);
            // The dots blink like the LEDs, so the user can compare them with the drone.
            let dots = dots(*leds, app.now, theme);
            Line::from(vec![key, Span::raw(" "), dots, Span::raw(format!(" {}", leds.answer_text()))])
        })),
        _ => {}
    }
    lines
}

/// Returns dots that blink like the LEDs of an answer.
fn dots<'a>(leds: Leds, now: Duration, theme: &Theme) -> Span<'a> {
    let is_lit = leds.half_period().is_none_or(|half| (now.as_millis() / half).is_multiple_of(2));
    let dot = if is_lit { theme.leds.0 } else { theme.leds.1 };
    match leds {
        Leds::TwoSlow | Leds::TwoLit => Span::styled(format!("{dot}{dot}"), theme.led),
        Leds::Red => Span::styled(format!("{dot} "), theme.bad),
        Leds::OneFast | Leds::Flicker | Leds::Solid => Span::styled(format!("{dot} "), theme.led),
        Leds::Dark => Span::styled(format!("{} ", theme.leds.1), theme.faint),
        Leds::Other => Span::styled("? ", theme.faint),
    }
}

/// Draws a number in digits that are five rows high, so that it is readable from a distance.
fn big_number<'a>(number: u64, theme: &Theme) -> Vec<Line<'a>> {
    const DIGITS: [[&str; 5]; 10] = [
        ["###", "# #", "# #", "# #", "###"],
        [" # ", "## ", " # ", " # ", "###"],
        ["###", "  #", "###", "#  ", "###"],
        ["###", "  #", "###", "  #", "###"],
        ["# #", "# #", "###", "  #", "  #"],
        ["###", "#  ", "###", "  #", "###"],
        ["###", "#  ", "###", "# #", "###"],
        ["###", "  #", "  #", "  #", "  #"],
        ["###", "# #", "###", "# #", "###"],
        ["###", "# #", "###", "  #", "###"],
    ];
    let digits: Vec<usize> = number.to_string().bytes().map(|byte| usize::from(byte - b'0')).collect();
    let cell = |c: char| if c == '#' { theme.bar.0.repeat(2) } else { "  ".to_owned() };
    let row = |n: usize| -> String {
        let digit = |&digit: &usize| DIGITS[digit][n].chars().map(cell).collect::<String>() + "  ";
        digits.iter().map(digit).collect()
    };
    (0..5).map(|n| Line::from(Span::styled(row(n), theme.accent))).collect()
}

/// Draws the board from above, with the USB connector at the front and M2 at the back right.
fn drone_lines<'a>(app: &App, wizard: &Wizard, theme: &Theme) -> Vec<Line<'a>> {
    let is_lit = wizard.is_lit(app.now);
    let led =
        if is_lit { Span::styled(theme.leds.0, theme.led) } else { Span::styled(theme.leds.1, theme.faint) };
    let is_plugged = matches!(wizard.step, WizardStep::Hold | WizardStep::Release | WizardStep::Early);
    let cable = if is_plugged { "[USB]" } else { "     " };
    let is_held = matches!(wizard.step, WizardStep::Count | WizardStep::Hold);
    let button = if is_held { Span::styled("(#)", theme.strong) } else { Span::raw("( )") };
    let label = match (wizard.step, wizard.led(app.now)) {
        (WizardStep::AskLeds | WizardStep::Answer(Leds::Other), _) => "",
        (WizardStep::Answer(Leds::TwoSlow), _) => "M2, M3: slow",
        (WizardStep::Answer(Leds::TwoLit), _) => "M2, M3: lit",
        (WizardStep::Answer(Leds::Red), _) => "M1: red",
        (WizardStep::Answer(Leds::Flicker), _) => "M2: flickering",
        (WizardStep::Answer(Leds::Dark), _) => "all dark",
        (WizardStep::Answer(_), Led::Fast) => "M2: fast",
        (WizardStep::Answer(_), _) => "M2: lit",
        (_, Led::Off) => "all dark",
        (_, Led::Solid) => "expect M2: lit",
        (_, Led::Slow) => "expect M2: slow",
        (_, Led::Fast) => "expect M2: fast",
    };
    let second = match wizard.step {
        WizardStep::Answer(Leds::TwoSlow | Leds::TwoLit) => led.clone(),
        _ => Span::raw(" "),
    };
    vec![
        Line::from("O           O"),
        Line::from(vec![Span::raw(" \\   "), button.clone(), Span::raw("   / ")]),
        Line::from(format!("  |  {cable}  |")),
        Line::from(vec![Span::raw("  |  "), second, Span::raw("   "), led, Span::raw("  |")]),
        Line::from(" /      M2 \\ "),
        Line::from("O           O"),
        Line::from(Span::styled(label, theme.faint)),
        Line::from(vec![button, Span::styled(" button", theme.faint)]),
    ]
}
