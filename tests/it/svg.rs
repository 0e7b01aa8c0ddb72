//! A drawn screen as an SVG picture: for the README, whose pictures a test compares with the views, and for
//! whoever wants to see what somebody else saw.

use std::fmt::Write as _;

use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

const CELL: (u16, u16) = (8, 17);
const PAPER: &str = "#16181d";
const INK: &str = "#d6d8dc";

/// The picture of a screen.
pub fn picture(buffer: &Buffer) -> String {
    let (columns, rows) = (buffer.area.width, buffer.area.height);
    let (width, height) = (columns * CELL.0 + 16, rows * CELL.1 + 16);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\">\n<rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"{PAPER}\"/>\n\
         <g font-family=\"DejaVu Sans Mono, Menlo, Consolas, monospace\" font-size=\"13.29\" xml:space=\"preserve\">\n"
    );
    for y in 0..rows {
        let mut x = 0;
        while x < columns {
            let start = x;
            let first = &buffer[(x, y)];
            let mut text = String::new();
            while x < columns && same_look(&buffer[(x, y)], first) {
                text.push_str(buffer[(x, y)].symbol());
                x += 1;
            }
            run(&mut svg, first, &text, (start, y), x - start);
        }
    }
    svg.push_str("</g>\n</svg>\n");
    svg
}

fn same_look(a: &Cell, b: &Cell) -> bool {
    (a.fg, a.modifier) == (b.fg, b.modifier)
}

/// Cells of one look, stretched to their columns so that any font keeps them in line.
fn run(svg: &mut String, look: &Cell, text: &str, at: (u16, u16), columns: u16) {
    let reversed = look.modifier.contains(Modifier::REVERSED);
    let (x, y) = (at.0 * CELL.0 + 8, at.1 * CELL.1 + 8);
    let width = columns * CELL.0;
    let colour = colour(look.fg);
    let mut ink = colour;
    if reversed {
        ink = PAPER;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{}\" fill=\"{colour}\"/>",
            CELL.1
        );
    }
    if text.trim().is_empty() {
        return;
    }
    let weight = if look.modifier.contains(Modifier::BOLD) { " font-weight=\"bold\"" } else { "" };
    let faint = if look.modifier.contains(Modifier::DIM) { " opacity=\"0.6\"" } else { "" };
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{}\" textLength=\"{width}\" lengthAdjust=\"spacingAndGlyphs\" fill=\"{ink}\"{weight}{faint}>{escaped}</text>",
        y + 13
    );
}

fn colour(colour: Color) -> &'static str {
    match colour {
        Color::Red => "#f0716a",
        Color::Green => "#7ec77b",
        Color::Yellow => "#e3b65f",
        Color::Blue => "#6ea8fe",
        Color::Cyan => "#63c5cf",
        _ => INK,
    }
}
