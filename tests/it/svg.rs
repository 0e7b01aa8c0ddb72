//! Draws a screen as an SVG picture. The README shows such pictures, and a test checks that they are up to date.

use std::fmt::Write as _;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

/// The width and the height of a cell.
const CELL: (u16, u16) = (8, 17);
/// The background and text colours of a dark terminal.
pub const DARK: (&str, &str) = ("#16181d", "#d6d8dc");
pub const LIGHT: (&str, &str) = ("#ffffff", "#202226");

pub fn draw_svg(buffer: &Buffer, (paper, ink): (&str, &str)) -> String {
    let (columns, rows) = (buffer.area.width, buffer.area.height);
    let (width, height) = (columns * CELL.0 + 16, rows * CELL.1 + 16);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\">\n<rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"{paper}\"/>\n\
         <g font-family=\"DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"13.29\" xml:space=\"preserve\">\n"
    );
    for y in 0..rows {
        let mut x = 0;
        while x < columns {
            let start = x;
            let first = &buffer[(x, y)];
            let mut text = String::new();
            while x < columns && has_same_style(&buffer[(x, y)], first) {
                text.push_str(buffer[(x, y)].symbol());
                x += 1;
            }
            draw_run(&mut svg, first, &text, (start, y, x - start), (paper, ink));
        }
    }
    svg.push_str("</g>\n</svg>\n");
    svg
}

fn has_same_style(a: &Cell, b: &Cell) -> bool {
    (a.fg, a.modifier) == (b.fg, b.modifier)
}

/// Appends a run of cells with the same style. The text is stretched to the width of the cells, so that the columns are
/// aligned in any font.
fn draw_run(svg: &mut String, style: &Cell, text: &str, at: (u16, u16, u16), (paper, ink): (&str, &str)) {
    let reversed = style.modifier.contains(Modifier::REVERSED);
    let (x, y) = (at.0 * CELL.0 + 8, at.1 * CELL.1 + 8);
    let width = at.2 * CELL.0;
    let colour = to_hex(style.fg, ink);
    let mut ink = colour.as_str();
    if reversed {
        ink = paper;
        // Without crisp edges, the background shows through between two filled rows when the picture is scaled.
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{}\" fill=\"{colour}\" \
             shape-rendering=\"crispEdges\"/>",
            CELL.1
        );
    }
    let text = &draw_shapes(svg, text, (x, y), ink);
    if text.trim().is_empty() {
        return;
    }
    let weight = if style.modifier.contains(Modifier::BOLD) { " font-weight=\"bold\"" } else { "" };
    let faint = if style.modifier.contains(Modifier::DIM) { " opacity=\"0.6\"" } else { "" };
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{}\" textLength=\"{width}\" lengthAdjust=\"spacingAndGlyphs\" fill=\"{ink}\"{weight}{faint}>{escaped}</text>",
        y + 13
    );
}

/// Draws borders, blocks and bars as shapes that fill their cells, as a terminal does: glyphs from a font would leave
/// gaps between the rows. Returns the text with spaces in place of the drawn characters.
fn draw_shapes(svg: &mut String, text: &str, (x, y): (u16, u16), ink: &str) -> String {
    let (width, height) = (f32::from(CELL.0), f32::from(CELL.1));
    let chars: Vec<char> = text.chars().collect();
    let mut rest = String::new();
    let mut at = 0;
    while at < chars.len() {
        let symbol = chars[at];
        let count = chars[at..].iter().take_while(|&&other| other == symbol).count();
        let left = f32::from(x) + width * to_f32(at);
        let (top, run) = (f32::from(y), width * to_f32(count));
        let (middle, centre) = (top + height / 2.0, left + width / 2.0);
        let mut fill = |x: f32, y: f32, width: f32, height: f32, opacity: f32| {
            let opacity = if opacity < 1.0 { format!(" opacity=\"{opacity}\"") } else { String::new() };
            let _ = writeln!(
                svg,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"{ink}\"{opacity}/>"
            );
        };
        let eighths = |first: char| to_f32(symbol as usize - first as usize + 1) / 8.0;
        match symbol {
            '─' => fill(left, middle - 0.5, run, 1.0, 1.0),
            '━' => fill(left, middle - 1.5, run, 3.0, 1.0),
            '│' => (0..count).for_each(|n| fill(centre - 0.5 + width * to_f32(n), top, 1.0, height, 1.0)),
            '█' => fill(left, top, run, height, 1.0),
            '░' => fill(left, top, run, height, 0.25),
            '▒' => fill(left, top, run, height, 0.5),
            '▓' => fill(left, top, run, height, 0.75),
            // One to seven eighths of the cell, from the bottom.
            '▁'..='▇' => {
                let part = height * eighths('▁');
                fill(left, top + height - part, run, part, 1.0);
            }
            // Seven eighths down to one eighth of the cell, from the left.
            '▉'..='▏' => fill(left, top, width * (1.0 - eighths('▉')), height, 1.0),
            '╭' | '╮' | '╰' | '╯' => {
                let (side, end) = match symbol {
                    '╭' => (left + width, top + height),
                    '╮' => (left, top + height),
                    '╰' => (left + width, top),
                    _ => (left, top),
                };
                let _ = writeln!(
                    svg,
                    "<path d=\"M{side} {middle}Q{centre} {middle} {centre} {end}\" fill=\"none\" stroke=\"{ink}\"/>"
                );
            }
            _ => {
                rest.extend(std::iter::repeat_n(symbol, count));
                at += count;
                continue;
            }
        }
        rest.extend(std::iter::repeat_n(' ', count));
        at += count;
    }
    rest
}

/// Converts a number of cells to `f32`. A screen has so few cells that the result is exact.
fn to_f32(n: usize) -> f32 {
    f32::from(u16::try_from(n).unwrap_or(u16::MAX))
}

/// Converts a colour of xterm's 256-colour palette to hexadecimal. Of the first sixteen colours, only red and light
/// blue are supported; the others become `ink`.
fn to_hex(colour: Color, ink: &str) -> String {
    match colour {
        Color::Red => "#f0716a".to_owned(),
        Color::LightBlue => "#6ea8fe".to_owned(),
        Color::Indexed(index @ 232..) => {
            let grey = 8 + 10 * (index - 232);
            format!("#{grey:02x}{grey:02x}{grey:02x}")
        }
        Color::Indexed(index @ 16..) => {
            let level = |n: u8| if n == 0 { 0 } else { 55 + 40 * n };
            let index = index - 16;
            format!("#{:02x}{:02x}{:02x}", level(index / 36), level(index / 6 % 6), level(index % 6))
        }
        _ => ink.to_owned(),
    }
}
