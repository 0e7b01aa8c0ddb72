//! The terminal's background colour: asked for once (OSC 11), and never waited for. The answer comes when it comes, as keys,
//! since the terminal library does not know it: `ESC ] 11 ; rgb:RRRR/GGGG/BBBB` and BEL or `ESC \\`. Here it is told from
//! typed keys. A terminal that never answers keeps the dark palette.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::app::Background;

pub(super) const QUESTION: &[u8] = b"\x1b]11;?\x1b\\";
/// How every answer begins.
const START: &str = "]11;rgb:";
/// The longest: twelve digits and two slashes.
const LONGEST: usize = START.len() + 14;

/// What of the answer has come so far.
#[derive(Default)]
pub(super) struct Answer {
    text: String,
    given: bool,
}

pub(super) enum Taken {
    /// A key of the user.
    No,
    /// Part of the answer.
    Part,
    Whole(Background),
}

impl Answer {
    /// Whether this key belongs to the answer. Once it was given, none does.
    pub(super) fn take(&mut self, key: KeyEvent) -> Taken {
        let KeyCode::Char(letter) = key.code else { return self.drop_it() };
        if self.given {
            return Taken::No;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        let is_end = control && letter == 'g' || alt && letter == '\\';
        if is_end && self.text.len() > START.len() {
            self.given = true;
            return background(&self.text).map_or(Taken::Part, Taken::Whole);
        }
        let at = self.text.len();
        // The first comes after an escape; over a slow line that may have come before it, as a key of its own.
        let fits = match START.as_bytes().get(at) {
            Some(&expected) => letter == char::from(expected) && (!alt || at == 0) && !control,
            None => (letter.is_ascii_hexdigit() || letter == '/') && !alt && !control && at < LONGEST,
        };
        if !fits {
            return self.drop_it();
        }
        self.text.push(letter);
        Taken::Part
    }

    fn drop_it(&mut self) -> Taken {
        self.text.clear();
        Taken::No
    }
}

/// By the luminance of the colour, from the first two digits of each part.
fn background(answer: &str) -> Option<Background> {
    let mut parts =
        answer.strip_prefix(START)?.split('/').map(|part| u32::from_str_radix(part.get(..2)?, 16).ok());
    let (red, green, blue) = (parts.next()??, parts.next()??, parts.next()??);
    let light = red * 299 + green * 587 + blue * 114 > 128 * 1000;
    Some(if light { Background::Light } else { Background::Dark })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str, end: KeyEvent) -> Vec<KeyEvent> {
        let mut keys: Vec<KeyEvent> =
            text.chars().map(|letter| KeyEvent::new(KeyCode::Char(letter), KeyModifiers::NONE)).collect();
        keys[0].modifiers = KeyModifiers::ALT;
        keys.push(end);
        keys
    }

    #[test]
    fn an_answer_is_told_from_what_is_typed() {
        let bell = KeyEvent::new(KeyCode::Char('g'), KeyModifiers::CONTROL);
        let string_end = KeyEvent::new(KeyCode::Char('\\'), KeyModifiers::ALT);
        for (text, end, expected) in [
            ("]11;rgb:ffff/ffff/ffff", bell, Background::Light),
            ("]11;rgb:fdfd/f6f6/e3e3", string_end, Background::Light),
            ("]11;rgb:0000/2b2b/3636", bell, Background::Dark),
            ("]11;rgb:00/00/00", string_end, Background::Dark),
        ] {
            let mut answer = Answer::default();
            let mut found = None;
            for key in keys(text, end) {
                match answer.take(key) {
                    Taken::Part => {}
                    Taken::Whole(background) => found = Some(background),
                    Taken::No => panic!("{text}: {key:?} is taken for a key"),
                }
            }
            assert_eq!(found, Some(expected), "{text}");
            let letter = KeyEvent::new(KeyCode::Char(']'), KeyModifiers::NONE);
            assert!(matches!(answer.take(letter), Taken::No), "once is enough");
        }
        let mut answer = Answer::default();
        for letter in "f11;rgb:wq?".chars() {
            let key = KeyEvent::new(KeyCode::Char(letter), KeyModifiers::NONE);
            assert!(matches!(answer.take(key), Taken::No), "{letter}");
        }
    }
}
