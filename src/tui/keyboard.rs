//! Reads keys in a separate thread, and converts them to the interface's own type, [`Key`].

use std::sync::mpsc::Sender;
use std::thread;

use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::app::Msg;
use crate::app::keys::Key;
use crate::tui::background::{Answer, KeyOrigin};

/// Starts a thread that sends key presses, pasted text, size changes and the terminal's background until the terminal
/// or the receiver is gone.
pub(super) fn listen(messages: Sender<Msg>) {
    thread::spawn(move || {
        let mut answer = Answer::default();
        loop {
            let message = match event::read() {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => match answer.take(key) {
                    KeyOrigin::PartOfAnswer => None,
                    KeyOrigin::EndOfAnswer(background) => Some(Msg::Background(background)),
                    // Ctrl-L repaints the screen, for example after noise on a serial line.
                    KeyOrigin::Typed if is_control(key, 'l') => Some(Msg::Resized),
                    KeyOrigin::Typed => convert(key).map(Msg::Key),
                },
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

fn is_control(key: KeyEvent, letter: char) -> bool {
    key.code == KeyCode::Char(letter) && key.modifiers.contains(KeyModifiers::CONTROL)
}

fn convert(key: KeyEvent) -> Option<Key> {
    Some(match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::CtrlC,
        KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::CtrlU,
        KeyCode::Char('w') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::CtrlW,
        KeyCode::Char('a') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::Home,
        KeyCode::Char('e') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::End,
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
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Delete => Key::Delete,
        _ => return None,
    })
}
