//! The terminal's keys as the table of keys knows them, from a thread that waits for them.

use std::sync::mpsc::Sender;
use std::thread;

use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::app::Msg;
use crate::app::keys::Key;

/// Sends keys, pasted text and changes of size, until the terminal is gone.
pub(super) fn listen(messages: Sender<Msg>) {
    thread::spawn(move || {
        loop {
            let message = match event::read() {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => convert(key).map(Msg::Key),
                Ok(Event::Paste(text)) => Some(Msg::Key(Key::Paste(text))),
                Ok(Event::Resize(..)) => Some(Msg::Resized),
                Ok(_) => None,
                Err(_) => {
                    let _ = messages.send(Msg::Detached);
                    return;
                }
            };
            if let Some(message) = message
                && messages.send(message).is_err()
            {
                return;
            }
        }
    });
}

fn convert(key: KeyEvent) -> Option<Key> {
    Some(match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::CtrlC,
        KeyCode::Char(_) if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => {
            return None;
        }
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Esc,
        KeyCode::Tab => Key::Tab,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        _ => return None,
    })
}
