//! Colours and glyphs in tiers, since no terminal library here looks at TERM: unicode, cp437 (the Linux
//! console) and ascii, each with colour or without.
//!
//! Sixteen named colours only, the terminal's own background, and no meaning in colour alone.

use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::border;

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

#[derive(Clone, Debug)]
pub struct Theme {
    pub glyphs: Glyphs,
    pub plain: Style,
    pub strong: Style,
    pub faint: Style,
    pub title: Style,
    pub key: Style,
    /// A key that does not work now.
    pub key_off: Style,
    pub good: Style,
    pub warn: Style,
    /// The label of the demo.
    pub warn_badge: Style,
    pub bad: Style,
    pub busy: Style,
    pub marked: Style,
    pub led: Style,
    pub borders: border::Set<'static>,
    pub arrow: &'static str,
    /// Filled and empty part of a bar.
    pub bar: (&'static str, &'static str),
    pub ticks: (&'static str, &'static str, &'static str),
    /// A device; the mark of a row.
    pub dot: &'static str,
    /// A lit and a dark LED.
    pub leds: (&'static str, &'static str),
    /// A sector that is unknown, same, to erase, erased, written, verified, failed.
    pub sectors: [&'static str; 7],
}

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
    pub fn new(glyphs: Glyphs, colour: bool) -> Theme {
        let plain = Style::new();
        let bold = plain.add_modifier(Modifier::BOLD);
        let reverse = plain.add_modifier(Modifier::REVERSED);
        let tint = |colour_of: Color, mono: Style| if colour { plain.fg(colour_of) } else { mono };
        let theme = Theme {
            glyphs,
            plain,
            strong: bold,
            faint: plain.add_modifier(Modifier::DIM),
            title: reverse.add_modifier(Modifier::BOLD),
            key: reverse,
            key_off: plain.add_modifier(Modifier::DIM),
            good: tint(Color::Green, bold),
            warn: tint(Color::Yellow, bold),
            warn_badge: tint(Color::Yellow, reverse).add_modifier(Modifier::REVERSED),
            bad: tint(Color::Red, reverse).add_modifier(Modifier::BOLD),
            busy: tint(Color::Cyan, bold),
            marked: reverse,
            led: tint(Color::Blue, bold).add_modifier(Modifier::BOLD),
            borders: border::PLAIN,
            arrow: " › ",
            bar: ("█", "░"),
            ticks: ("✓", "▸", "✗"),
            dot: "●",
            leds: ("●", "○"),
            sectors: ["·", "=", "▒", " ", "▓", "█", "✗"],
        };
        match glyphs {
            Glyphs::Unicode => theme,
            Glyphs::Cp437 => Theme {
                arrow: " > ",
                ticks: ("√", "►", "x"),
                dot: "•",
                leds: ("•", "○"),
                sectors: ["·", "=", "▒", " ", "▓", "█", "x"],
                ..theme
            },
            Glyphs::Ascii => Theme {
                borders: ASCII_BORDERS,
                arrow: " > ",
                bar: ("#", "-"),
                ticks: ("+", ">", "x"),
                dot: "*",
                leds: ("*", "o"),
                sectors: [".", "=", "e", " ", "w", "#", "x"],
                ..theme
            },
        }
    }

    /// What a terminal can show: glyphs, and whether there is colour.
    pub(crate) fn tier(term: &str, locale: &str, no_color: bool) -> (Glyphs, bool) {
        let utf8 = ["UTF-8", "utf-8", "UTF8", "utf8"].iter().any(|name| locale.contains(name));
        let glyphs = match term {
            "linux" => Glyphs::Cp437,
            _ if utf8 => Glyphs::Unicode,
            _ => Glyphs::Ascii,
        };
        let colourless = no_color || term.starts_with("vt") || term == "dumb";
        (glyphs, !colourless)
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
