//! Recognises the terminal's answer to the query for the background colour (OSC 11). The query is sent once, and
//! nothing waits for the answer. The terminal library does not parse the answer, which therefore arrives as keys:
//! `ESC ] 11 ; rgb:RRRR/GGGG/BBBB`, then BEL or `ESC \`. This module separates the answer from typed keys. Without an
//! answer, the dark palette stays in use.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::app::Background;

pub(super) const QUESTION: &[u8] = b"\x1b]11;?\x1b\\";
/// The start of every answer, after the escape character.
const START: &str = "]11;rgb:";
/// The length of the longest answer: the start, twelve digits and two slashes.
const LONGEST: usize = START.len() + 14;

/// The part of the answer received so far.
#[derive(Default)]
pub(super) struct Answer {
    text: String,
    is_complete: bool,
    /// Whether the last key was a plain Escape.
    escaped: bool,
}

pub(super) enum KeyOrigin {
    /// A key that the user typed.
    Typed,
    /// Part of the answer.
    PartOfAnswer,
    EndOfAnswer(Background),
}

impl Answer {
    /// Determines whether this key belongs to the answer. After a complete answer, every key is a typed key.
    pub(super) fn take(&mut self, key: KeyEvent) -> KeyOrigin {
        let escaped = std::mem::replace(&mut self.escaped, key.code == KeyCode::Esc);
        let KeyCode::Char(letter) = key.code else { return self.reject() };
        if self.is_complete {
            return KeyOrigin::Typed;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        let is_end = control && letter == 'g' || alt && letter == '\\';
        if is_end && self.text.len() > START.len() {
            self.is_complete = true;
            return parse_background(&self.text).map_or(KeyOrigin::PartOfAnswer, KeyOrigin::EndOfAnswer);
        }
        let at = self.text.len();
        // crossterm reports the escape character as the Alt modifier of the first key or, on a slow line, as a separate
        // Esc key before it.
        let fits = match START.as_bytes().get(at) {
            Some(&expected) if at == 0 => letter == char::from(expected) && (alt || escaped) && !control,
            Some(&expected) => letter == char::from(expected) && !alt && !control,
            None => (letter.is_ascii_hexdigit() || letter == '/') && !alt && !control && at < LONGEST,
        };
        if !fits {
            return self.reject();
        }
        self.text.push(letter);
        KeyOrigin::PartOfAnswer
    }

    fn reject(&mut self) -> KeyOrigin {
        self.text.clear();
        KeyOrigin::Typed
    }
}

/// Determines from the luminance whether the background is light or dark. Uses only the first two digits of each colour
/// component.
fn parse_background(answer: &str) -> Option<Background> {
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
    fn an_answer_is_separated_from_typed_keys() {
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
                    KeyOrigin::PartOfAnswer => {}
                    KeyOrigin::EndOfAnswer(background) => found = Some(background),
                    KeyOrigin::Typed => panic!("{text}: {key:?} was mistaken for a typed key"),
                }
            }
            assert_eq!(found, Some(expected), "{text}");
            let letter = KeyEvent::new(KeyCode::Char(']'), KeyModifiers::NONE);
            assert!(matches!(answer.take(letter), KeyOrigin::Typed), "only one answer is expected");
        }
        // On a slow line, the escape character arrives as a separate key.
        let mut answer = Answer::default();
        let mut split = keys("]11;rgb:ffff/ffff/ffff", bell);
        split[0].modifiers = KeyModifiers::NONE;
        split.insert(0, KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE));
        let taken = split.into_iter().map(|key| answer.take(key)).last();
        assert!(matches!(taken, Some(KeyOrigin::EndOfAnswer(Background::Light))));
        let mut answer = Answer::default();
        for letter in "f]11;rgb:wq?".chars() {
            let key = KeyEvent::new(KeyCode::Char(letter), KeyModifiers::NONE);
            assert!(matches!(answer.take(key), KeyOrigin::Typed), "{letter}");
        }
    }
}
