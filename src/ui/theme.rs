//! Colours and glyphs in tiers: unicode, cp437 (the Linux console) and ascii; and for each a palette for dark terminals,
//! one for light ones, none where only sixteen colours are certain, and none at all under `NO_COLOR`.
//!
//! The palettes use the fixed part of the 256 colours, so that their contrast can be computed (a test does): each text
//! has at least 4.5:1 on black or white and on Solarized. The sixteen named colours look different in every terminal
//! (yellow on white has 1.7:1 in xterm): they are used for marks, never for text. Nothing is told by colour alone.

use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::border;

use crate::app::Background;

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glyphs {
    /// Any font of today.
    Unicode,
    /// What the Linux console's fonts have.
    Cp437,
    /// Seven bits.
    Ascii,
}

/// Which colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    None,
    /// The background is unknown and the colours are the terminal's own.
    Sixteen,
    /// 256 colours on a dark background; `auto` changes to [`Colours::Light`] when the terminal reports that.
    Dark {
        auto: bool,
    },
    Light,
}

#[derive(Clone, Debug)]
pub struct Theme {
    pub glyphs: Glyphs,
    pub colours: Colours,
    pub plain: Style,
    pub strong: Style,
    /// The title of a panel, whatever colour its border has.
    pub heading: Style,
    /// Text of less weight.
    pub faint: Style,
    /// Borders and rules: no text.
    pub line: Style,
    /// The border of the panel that has the focus, and headings.
    pub accent: Style,
    pub title: Style,
    pub key: Style,
    /// The key that leads on.
    pub next_key: Style,
    /// A key that does not work now.
    pub key_off: Style,
    pub good: Style,
    pub warn: Style,
    /// The label of the demo.
    pub badge: Style,
    pub bad: Style,
    pub busy: Style,
    pub marked: Style,
    /// What the hands must do at once.
    pub now: Style,
    pub led: Style,
    pub borders: border::Set<'static>,
    pub arrow: &'static str,
    /// Filled and empty part of a bar.
    pub bar: (&'static str, &'static str),
    /// A cell of the bar that is filled by one to seven eighths; empty where the font has none.
    pub eighths: &'static [&'static str],
    /// Done, under way, failed.
    pub ticks: (&'static str, &'static str, &'static str),
    /// A step that is still to come.
    pub to_come: &'static str,
    /// A device; the mark of a row.
    pub dot: &'static str,
    /// A lit and a dark LED.
    pub leds: (&'static str, &'static str),
    /// A sector that is unknown, same, to erase, erased, written, verified, failed.
    pub sectors: [&'static str; 7],
}

/// The colours of texts and lines, as numbers of the 256.
struct Palette {
    accent: u8,
    good: u8,
    warn: u8,
    bad: u8,
    faint: u8,
    line: u8,
}

const DARK: Palette = Palette { accent: 75, good: 78, warn: 221, bad: 210, faint: 247, line: 240 };
const LIGHT: Palette = Palette { accent: 25, good: 22, warn: 94, bad: 124, faint: 241, line: 250 };

const ASCII_BORDERS: border::Set<'static> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

impl Theme {
    /// The theme of this tier.
    pub fn new(glyphs: Glyphs, colours: Colours) -> Theme {
        let plain = Style::new();
        let bold = plain.add_modifier(Modifier::BOLD);
        let dim = plain.add_modifier(Modifier::DIM);
        let reverse = plain.add_modifier(Modifier::REVERSED);
        let palette = match colours {
            Colours::Dark { .. } => Some(&DARK),
            Colours::Light => Some(&LIGHT),
            Colours::None | Colours::Sixteen => None,
        };
        let of = |pick: fn(&Palette) -> u8, without: Style| {
            palette.map_or(without, |palette| plain.fg(Color::Indexed(pick(palette))))
        };
        let accent = of(|it| it.accent, bold);
        let led = if colours == Colours::Sixteen { plain.fg(Color::LightBlue) } else { accent };
        let theme = Theme {
            glyphs,
            colours,
            plain,
            strong: bold,
            heading: bold.fg(Color::Reset),
            faint: of(|it| it.faint, dim),
            line: of(|it| it.line, dim),
            accent,
            title: accent.add_modifier(Modifier::BOLD | Modifier::REVERSED),
            key: of(|it| it.accent, reverse).add_modifier(Modifier::BOLD),
            next_key: accent.add_modifier(Modifier::BOLD | Modifier::REVERSED),
            key_off: of(|it| it.faint, dim),
            good: of(|it| it.good, plain).add_modifier(Modifier::BOLD),
            warn: of(|it| it.warn, bold),
            badge: of(|it| it.warn, bold),
            bad: of(|it| it.bad, reverse).add_modifier(Modifier::BOLD),
            busy: accent,
            marked: reverse,
            now: of(|it| it.warn, bold).add_modifier(Modifier::BOLD | Modifier::REVERSED),
            led: led.add_modifier(Modifier::BOLD),
            borders: border::ROUNDED,
            arrow: " ── ",
            bar: ("█", "━"),
            eighths: &["▏", "▎", "▍", "▌", "▋", "▊", "▉"],
            ticks: ("✓", "▸", "✗"),
            to_come: "○",
            dot: "●",
            leds: ("●", "○"),
            sectors: ["·", "▪", "▒", "░", "▓", "█", "✗"],
        };
        match glyphs {
            Glyphs::Unicode => theme,
            Glyphs::Cp437 => Theme {
                borders: border::PLAIN,
                bar: ("█", "─"),
                eighths: &[],
                ticks: ("√", "►", "x"),
                to_come: "○",
                dot: "•",
                leds: ("•", "○"),
                sectors: ["·", "■", "▒", "░", "▓", "█", "x"],
                ..theme
            },
            Glyphs::Ascii => Theme {
                borders: ASCII_BORDERS,
                arrow: " -- ",
                bar: ("#", "-"),
                eighths: &[],
                ticks: ("+", ">", "x"),
                to_come: "o",
                dot: "*",
                leds: ("*", "o"),
                sectors: [".", "=", "e", "_", "w", "#", "x"],
                ..theme
            },
        }
    }

    /// What a terminal can show, by its variables.
    pub(crate) fn tier(term: &str, color_term: &str, locale: &str, no_color: bool) -> (Glyphs, Colours) {
        let utf8 = ["UTF-8", "utf-8", "UTF8", "utf8"].iter().any(|name| locale.contains(name));
        let glyphs = match term {
            "linux" => Glyphs::Cp437,
            _ if utf8 => Glyphs::Unicode,
            _ => Glyphs::Ascii,
        };
        let many = term.contains("256color") || !color_term.is_empty() && term != "linux";
        let colours = match () {
            () if no_color || term.starts_with("vt") || term == "dumb" => Colours::None,
            () if many => Colours::Dark { auto: true },
            () => Colours::Sixteen,
        };
        (glyphs, colours)
    }

    /// This theme for the background that the terminal has reported.
    pub(crate) fn on(&self, background: Option<Background>) -> Theme {
        match (self.colours, background) {
            (Colours::Dark { auto: true }, Some(Background::Light)) => {
                Theme::new(self.glyphs, Colours::Light)
            }
            _ => self.clone(),
        }
    }

    /// Text as this tier can show it: our own texts have some marks that ASCII and CP437 lack.
    pub(crate) fn text(&self, text: &str) -> String {
        let replace = |c: char| match (self.glyphs, c) {
            (Glyphs::Unicode, c) => c.to_string(),
            (_, '…') => "...".to_owned(),
            (_, '×') => "x".to_owned(),
            (_, '↑') => "^".to_owned(),
            (_, '↓') => "v".to_owned(),
            (_, '←') => "<".to_owned(),
            (_, '→') => "->".to_owned(),
            (Glyphs::Ascii, c) if !c.is_ascii() => "?".to_owned(),
            (_, c) => c.to_string(),
        };
        text.chars().map(replace).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn luminance((red, green, blue): (u8, u8, u8)) -> f64 {
        let linear = |value: u8| {
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue)
    }

    /// WCAG 2.1, "contrast ratio".
    fn contrast(a: (u8, u8, u8), b: (u8, u8, u8)) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    /// The fixed part of xterm's 256 colours: a cube of six levels, and greys.
    fn rgb(index: u8) -> (u8, u8, u8) {
        assert!(index >= 16, "the first sixteen are the terminal's own");
        if index >= 232 {
            let grey = 8 + 10 * (index - 232);
            return (grey, grey, grey);
        }
        let level = |n: u8| if n == 0 { 0 } else { 55 + 40 * n };
        let index = index - 16;
        (level(index / 36), level(index / 6 % 6), level(index % 6))
    }

    #[test]
    fn every_text_can_be_read_on_dark_and_on_light() {
        let solarized = [(0x00, 0x2B, 0x36), (0xFD, 0xF6, 0xE3)];
        for (colours, backgrounds) in [
            (Colours::Dark { auto: true }, [(0, 0, 0), solarized[0]]),
            (Colours::Light, [(255, 255, 255), solarized[1]]),
        ] {
            let theme = Theme::new(Glyphs::Unicode, colours);
            let texts = [
                theme.faint,
                theme.accent,
                theme.title,
                theme.key,
                theme.next_key,
                theme.key_off,
                theme.good,
                theme.warn,
                theme.badge,
                theme.bad,
                theme.busy,
                theme.now,
                theme.led,
            ];
            for (style, background) in texts.into_iter().flat_map(|it| backgrounds.map(|on| (it, on))) {
                let Some(Color::Indexed(index)) = style.fg else { panic!("{style:?}") };
                let ratio = contrast(rgb(index), background);
                assert!(ratio >= 4.5, "{colours:?} {style:?} on {background:?}: {ratio:.1}");
            }
        }
    }

    /// Where the colours are the terminal's own, no text has one.
    #[test]
    fn without_a_palette_no_text_is_coloured() {
        for colours in [Colours::None, Colours::Sixteen] {
            let theme = Theme::new(Glyphs::Unicode, colours);
            for style in [theme.faint, theme.good, theme.warn, theme.bad, theme.busy, theme.key, theme.now] {
                assert_eq!(style.fg, None);
            }
        }
    }
}
