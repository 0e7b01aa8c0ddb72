//! The interface in lines (`--plain`, `TERM=dumb`, no terminal, screen readers): the same state and the same
//! `update`, with lines out and lines in. No escape sequence ever.

use std::collections::VecDeque;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::{Shell, World};
use crate::app::keys::{self, Key};
use crate::app::update::update;
use crate::app::{App, BusState, Effect, Msg, Screen, Slot, Stage, Which};
use crate::ui::lines;

/// A line from standard input, or its end.
enum Input {
    Message(Msg),
    Line(String),
    End,
}

/// Runs until the end of the input or until it is told to quit.
pub fn run(world: &World, image: Option<&Path>) -> io::Result<App> {
    let (messages, from_shell) = channel();
    let (inputs, inbox) = channel();
    let mut shell = Shell::start(world, messages);
    let mut app = world.app();
    shell.tell_unseen_end();
    if let Some(path) = image {
        app.image = Slot::Loading(path.to_owned());
        shell.perform(&app, Effect::Load(Which::Image, path.to_owned()));
    }
    let forward = inputs.clone();
    thread::spawn(move || from_shell.iter().all(|message| forward.send(Input::Message(message)).is_ok()));
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if inputs.send(Input::Line(line)).is_err() {
                return;
            }
        }
        let _ = inputs.send(Input::End);
    });

    let mut said = Said::default();
    let mut answers: VecDeque<String> = VecDeque::new();
    let mut ended = false;
    let interactive = io::stdin().is_terminal();
    while !shell.quit {
        said.tell(&app);
        // Lines that came early wait until there is something that they can answer.
        let line = if is_ready(&app, interactive) { answers.pop_front() } else { None };
        let messages = match line {
            Some(line) => keys_of(&app, &line),
            None if ended && answers.is_empty() && is_ready(&app, interactive) => match app.job() {
                // Nobody will answer any more, and nothing is changed yet.
                Some(_) => vec![Msg::Detached],
                None => break,
            },
            None => match next(&inbox, &app)? {
                Input::Message(message) => vec![message],
                Input::Line(line) => {
                    answers.push_back(line);
                    continue;
                }
                Input::End => {
                    ended = true;
                    continue;
                }
            },
        };
        for message in messages {
            shell.remember(&message, &app);
            let now = shell.now();
            for effect in update(&mut app, now, message) {
                match effect {
                    Effect::Copy(text) => said.print(&text),
                    effect => shell.perform(&app, effect),
                }
            }
        }
    }
    said.tell(&app);
    shell.end();
    Ok(app)
}

/// The next thing that happens, or the tick that is due.
fn next(inbox: &Receiver<Input>, app: &App) -> io::Result<Input> {
    match app.next_wake().map(|wait| wait.max(Duration::from_millis(50))) {
        None => inbox.recv().map_err(io::Error::other),
        Some(wait) => match inbox.recv_timeout(wait) {
            Ok(input) => Ok(input),
            Err(RecvTimeoutError::Timeout) => Ok(Input::Message(Msg::Tick)),
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("no more messages")),
        },
    }
}

/// Whether a line can be an answer now. While a job works only somebody at a keyboard has something to say.
fn is_ready(app: &App, interactive: bool) -> bool {
    let loading = [&app.image, &app.loader].iter().any(|slot| matches!(slot, Slot::Loading(_)));
    let busy = match &app.screen {
        Screen::Job(view) => !matches!(view.stage, Stage::Asking(_)) && !interactive || view.stopping,
        Screen::Pick(_, _, picker) => picker.entries.is_none(),
        _ => false,
    };
    app.bus != BusState::Asking && !loading && !busy
}

/// A line as the keys that it stands for: a path while a file is chosen, a word while one is asked for, else
/// its first character; an empty line is Enter.
fn keys_of(app: &App, line: &str) -> Vec<Msg> {
    let key = |key: Key| Msg::Key(key);
    let line = line.trim();
    match &app.screen {
        Screen::Pick(..) if !line.is_empty() && line != "q" => {
            vec![key(Key::Paste(line.to_owned())), key(Key::Enter)]
        }
        _ if keys::typing_a_word(app) && !line.is_empty() => {
            line.chars().map(|c| key(Key::Char(c))).chain([key(Key::Enter)]).collect()
        }
        _ => vec![key(line.chars().next().map_or(Key::Enter, Key::Char))],
    }
}

/// What was said already.
#[derive(Default)]
struct Said {
    logged: usize,
    screen: Vec<String>,
    notice: String,
}

impl Said {
    #[allow(clippy::unused_self, reason = "whoever has it speaks")]
    fn print(&self, text: &str) {
        let _ = writeln!(io::stdout(), "{text}");
    }

    /// Says what is new: log lines, a notice, the screen, the choices.
    fn tell(&mut self, app: &App) {
        let mut out = io::stdout().lock();
        // A reader that is gone is noticed as the end of the input.
        for line in app.log.lines().iter().skip(self.logged) {
            let _ = writeln!(out, "{}", line.text);
        }
        self.logged = app.log.lines().len();
        let notice = app.notice.as_ref().map(|(text, _)| text.clone()).unwrap_or_default();
        if notice != self.notice {
            self.notice.clone_from(&notice);
            if !notice.is_empty() {
                let _ = writeln!(out, "{notice}");
            }
        }
        let screen = lines::say(app);
        if screen != self.screen {
            for line in &screen {
                let _ = writeln!(out, "{line}");
            }
            // While the hands are busy, and while a number counts, no question is asked.
            if !screen.is_empty() && app.next_wake().is_none() {
                let _ = writeln!(out, "{}", lines::choices(app));
            }
            self.screen = screen;
        }
        let _ = out.flush();
    }
}
