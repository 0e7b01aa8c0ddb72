//! Glyphs in three tiers (Unicode, CP437 for the Linux console, and ASCII), each with four colour sets: a palette for
//! dark terminals, one for light ones, bold and dim text for terminals with only sixteen colours, and no colour.
//!
//! The palettes use the fixed part of the 256 colours, so that a test can compute the contrast of each text: at least
//! 4.5:1 on black or white and on Solarized. The sixteen named colours differ between terminals (yellow on white has a
//! contrast of 1.7:1 in xterm), so they are used for marks only. No information is shown by colour alone.

use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::border;

use crate::app::Background;

/// The characters that the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glyphs {
    Unicode,
    /// The glyphs of the Linux console's fonts.
    Cp437,
    Ascii,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    None,
    /// The sixteen colours of the terminal's own palette, on an unknown background.
    Sixteen,
    /// 256 colours on a dark background. With `auto`, the theme uses [`Colours::Light`] if the terminal reports a light
    /// background.
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
    /// The title of a panel, independent of the colour of its border.
    pub heading: Style,
    /// Less important text.
    pub faint: Style,
    /// Borders and rules; never text.
    pub line: Style,
    /// The border of the focused panel, and headings.
    pub accent: Style,
    pub key: Style,
    /// The key of the most likely next step.
    pub next_key: Style,
    /// A key that is not available now.
    pub key_off: Style,
    pub good: Style,
    pub warn: Style,
    pub bad: Style,
    pub marked: Style,
    /// An instruction that the user must follow at once.
    pub now: Style,
    pub led: Style,
    pub borders: border::Set<'static>,
    pub arrow: &'static str,
    /// The filled and the empty part of a bar.
    pub bar: (&'static str, &'static str),
    /// Cells of a bar that are one to seven eighths full; empty if the font has no such glyphs.
    pub eighths: &'static [&'static str],
    /// The marks for done, in progress and failed.
    pub ticks: (&'static str, &'static str, &'static str),
    /// The mark for a step that has not started.
    pub to_come: &'static str,
    /// The mark in front of a device.
    pub dot: &'static str,
    /// A lit and a dark LED.
    pub leds: (&'static str, &'static str),
    /// A write-protected sector.
    pub protected: &'static str,
    /// The positions of a turning propeller.
    pub propeller: [&'static str; 4],
    /// Sector states: unknown, same, to erase, erased, written, verified, failed.
    pub sectors: [&'static str; 7],
}

/// Indices into the 256 colours.
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
    /// Creates the theme for these glyphs and colours.
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
            key: of(|it| it.accent, reverse).add_modifier(Modifier::BOLD),
            next_key: accent.add_modifier(Modifier::BOLD | Modifier::REVERSED),
            key_off: of(|it| it.faint, dim),
            good: of(|it| it.good, plain).add_modifier(Modifier::BOLD),
            warn: of(|it| it.warn, bold),
            bad: of(|it| it.bad, reverse).add_modifier(Modifier::BOLD),
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
            protected: "⊘",
            propeller: ["─", "╲", "│", "╱"],
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
                propeller: ["-", "\\", "|", "/"],
                protected: "P",
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
                propeller: ["-", "\\", "|", "/"],
                protected: "P",
                sectors: [".", "=", "e", "_", "w", "#", "x"],
                ..theme
            },
        }
    }

    /// Determines from environment variables which glyphs and colours the terminal can show.
    pub(crate) fn detect(term: &str, color_term: &str, locale: &str, no_color: bool) -> (Glyphs, Colours) {
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

    /// Returns the theme for the background that the terminal has reported.
    pub(crate) fn on(&self, background: Option<Background>) -> Theme {
        match (self.colours, background) {
            (Colours::Dark { auto: true }, Some(Background::Light)) => {
                Theme::new(self.glyphs, Colours::Light)
            }
            _ => self.clone(),
        }
    }

    /// Replaces the characters in cfdfu's own text that an ASCII or CP437 terminal may not be able to show.
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

    /// Returns the contrast ratio of two colours, as defined by WCAG 2.1.
    fn contrast(a: (u8, u8, u8), b: (u8, u8, u8)) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    /// Returns a colour from the fixed part of xterm's 256 colours: a cube with six levels per channel, then 24 greys.
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
    fn every_text_has_enough_contrast_on_dark_and_light_backgrounds() {
        let solarized = [(0x00, 0x2B, 0x36), (0xFD, 0xF6, 0xE3)];
        for (colours, backgrounds) in [
            (Colours::Dark { auto: true }, [(0, 0, 0), solarized[0]]),
            (Colours::Light, [(255, 255, 255), solarized[1]]),
        ] {
            let theme = Theme::new(Glyphs::Unicode, colours);
            let texts = [
                theme.faint,
                theme.accent,
                theme.key,
                theme.next_key,
                theme.key_off,
                theme.good,
                theme.warn,
                theme.bad,
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

    /// The sixteen colours of the terminal's own palette are not used for text.
    #[test]
    fn without_a_palette_no_text_is_coloured() {
        for colours in [Colours::None, Colours::Sixteen] {
            let theme = Theme::new(Glyphs::Unicode, colours);
            for style in [theme.faint, theme.good, theme.warn, theme.bad, theme.accent, theme.key, theme.now]
            {
                assert_eq!(style.fg, None);
            }
        }
    }
}
