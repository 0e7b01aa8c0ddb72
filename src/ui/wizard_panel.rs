//! The wizard: its steps with ticks, the words for the hands, big seconds, and the drone with its LED.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Wrap};

use super::panel;
use super::theme::Theme;
use crate::app::App;
use crate::app::wizard::{COUNT, HOLD, Leds, Step, Wizard};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, app: &App, wizard: &Wizard, theme: &Theme) {
    let block = panel(theme, "Into DFU mode by hand");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [steps, words, drone] = inner.layout(&Layout::horizontal([
        Constraint::Length(19),
        Constraint::Fill(1),
        Constraint::Length(16),
    ]));
    frame.render_widget(Paragraph::new(step_lines(wizard, theme)), steps);
    frame.render_widget(Paragraph::new(word_lines(app, wizard, theme)).wrap(Wrap { trim: false }), words);
    frame.render_widget(Paragraph::new(drone_lines(app, wizard, theme)), drone);
}

fn step_lines<'a>(wizard: &Wizard, theme: &Theme) -> Vec<Line<'a>> {
    let names = ["unplug", "hold the button", "plug in", "hold on", "let go"];
    let at = match wizard.step {
        Step::Prepare => 0,
        Step::Count => 1,
        Step::Hold => 3,
        Step::Release | Step::AskLeds | Step::Answer(_) | Step::Early => 4,
    };
    let (done, busy, _) = theme.ticks;
    names
        .iter()
        .enumerate()
        .map(|(n, name)| match n {
            n if n < at => Line::from(Span::styled(format!("{done} {name}"), theme.good)),
            n if n == at => Line::from(Span::styled(format!("{busy} {name}"), theme.strong)),
            _ => Line::from(Span::styled(format!("  {name}"), theme.faint)),
        })
        .collect()
}

fn word_lines<'a>(app: &App, wizard: &Wizard, theme: &Theme) -> Vec<Line<'a>> {
    let passed = wizard.seconds(app.now);
    let big = |text: String| Line::from(Span::styled(text, theme.strong));
    let plain = |text: &str| Line::from(theme.text(text));
    match wizard.step {
        Step::Prepare => vec![
            big("Unplug USB and the battery.".to_owned()),
            plain(
                "Take the drone in one hand with a finger on its button, the cable in the other. After the next key you need no other: the screen moves on by itself.",
            ),
            plain(""),
            Line::from(vec![Span::raw("Then press "), Span::styled(" Enter ", theme.key), Span::raw(".")]),
        ],
        Step::Count => {
            let left = COUNT.saturating_sub(passed);
            let mut lines =
                vec![big("Hold the button now, and keep holding.".to_owned()), plain("Plug in at zero:")];
            lines.extend(big_number(left, theme));
            lines
        }
        Step::Hold => {
            let left = HOLD.saturating_sub(app.now.saturating_sub(wizard.since)).as_secs() + 1;
            let mut lines = vec![big("Plugged in? Keep holding.".to_owned()), plain("Let go in (seconds):")];
            lines.extend(big_number(left, theme));
            lines.push(plain("The blue LED is lit, blinks, then faster."));
            lines
        }
        Step::Release => {
            let mut lines = vec![big("LET GO of the button.".to_owned()), plain("Watching USB (seconds):")];
            lines.extend(big_number(passed, theme));
            lines
        }
        Step::AskLeds => {
            let mut lines = vec![big("Nothing came. What do the LEDs do?".to_owned())];
            lines.extend(Leds::ALL.iter().enumerate().map(|(n, leds)| {
                Line::from(vec![
                    Span::styled(format!(" {} ", n + 1), theme.key),
                    Span::raw(format!(" {}", leds.question())),
                ])
            }));
            lines
        }
        Step::Answer(leds) => vec![big(format!("{}:", leds.question())), plain(leds.answer())],
        Step::Early => vec![
            big("It boots: the button was let go too early.".to_owned()),
            plain(
                "But a drone that runs can be asked to enter DFU mode by itself: Enter does that. Or try by hand again, and hold longer.",
            ),
        ],
    }
}

/// A number that can be read across the room: five rows of blocks.
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
    (0..5).map(|n| Line::from(Span::styled(row(n), theme.busy))).collect()
}

/// The board from above, its USB plug at the front, M2 at the back right.
fn drone_lines<'a>(app: &App, wizard: &Wizard, theme: &Theme) -> Vec<Line<'a>> {
    let lit = wizard.lit(app.now);
    let led =
        if lit { Span::styled(theme.leds.0, theme.led) } else { Span::styled(theme.leds.1, theme.faint) };
    let plugged = matches!(wizard.step, Step::Hold | Step::Release | Step::Early);
    let cable = if plugged { "[USB]" } else { "     " };
    let held = matches!(wizard.step, Step::Count | Step::Hold);
    let button = if held { Span::styled("(#)", theme.strong) } else { Span::raw("( )") };
    let blink = match wizard.led(app.now) {
        crate::app::wizard::Led::Off => "dark",
        crate::app::wizard::Led::Solid => "lit",
        crate::app::wizard::Led::Slow => "slow",
        crate::app::wizard::Led::Fast => "fast",
    };
    vec![
        Line::from("O           O"),
        Line::from(vec![Span::raw(" \\   "), button, Span::raw("   / ")]),
        Line::from(format!("  |  {cable}  |")),
        Line::from(vec![Span::raw("  |      "), led, Span::raw("  |")]),
        Line::from(" /      M2 \\ "),
        Line::from("O           O"),
        Line::from(Span::styled(format!("   M2: {blink}"), theme.faint)),
    ]
}
