//! Property tests of the interface: with messages in random order, the interface never panics, draws at any size, and
//! writes only what was confirmed.

use std::time::Duration;

use cfdfu::app::batch::BatchStage;
use cfdfu::app::keys::Key;
use cfdfu::app::releases::{ReleasesEffect, ReleasesMsg};
use cfdfu::app::update::update;
use cfdfu::app::{App, BatchEffect, BusState, Demo, DemoLeds, Effect, Msg, Screen, Slot, Stage, Which};
use cfdfu::crazyflie::console::RadioChip;
use cfdfu::dfu::DfuError;
use cfdfu::dfu::wire::Request;
use cfdfu::flash::map::MemoryMap;
use cfdfu::flash::{FIRMWARE_BASE, Segment};
use cfdfu::job::{
    BoardCheck, Confirm, Device, DeviceInfo, DroneState, Event, Failure, Level, LogEntry, Outcome, Phase,
    Preview, Report, Running, SectorState, Task, WaitFor,
};
use cfdfu::plan::admission::{self, Overrides};
use cfdfu::plan::{Comparison, Plan};
use cfdfu::releases::ReleaseError;
use cfdfu::report::release_error;
use cfdfu::scan;
use cfdfu::sim::images;
use cfdfu::supervise::{Ended, Next, RunningInstance};
use cfdfu::ui::theme::{Colours, Glyphs, Theme};
use cfdfu::usb::TransferError;
use proptest::prelude::*;

use crate::interface::draw;
use crate::pictures::releases;
use crate::releases_page::arrived;
use crate::support::{World, firmware, flash_job, parse};

fn bus(scenario: &str) -> Msg {
    Msg::Bus(BusState::Devices(scan::list_devices(&World::new(scenario).bus).unwrap()))
}

fn preview(found: Comparison) -> Event {
    let admitted = admission::flash(&parse(&firmware("2026.08", 20_000)), Overrides::default()).unwrap();
    let plan = Plan::new(&admitted, &MemoryMap::stm32f405()).unwrap();
    let found = vec![found; plan.sectors().len()];
    let work = plan.work(&found, 2048);
    let before = Some(Segment { address: FIRMWARE_BASE, data: firmware("2025.02", 20_000) });
    Event::Ready(Box::new(Preview {
        plan,
        found,
        work,
        before,
        firmware: None,
        platform_change: None,
        loader: None,
        board: BoardCheck::Passed,
        changed_since: false,
        radio_chip: RadioChip::Unknown,
        version: None,
    }))
}

/// Returns the outcome of a flash that failed because the drone was unplugged.
pub fn disconnected() -> Outcome {
    let kind = DfuError::Transfer { request: Request::Command, error: TransferError::Disconnected }.into();
    Outcome::Failed(Failure { kind, place: None, drone: DroneState::WithoutFirmware })
}

fn device(scenario: &str) -> Device {
    scan::list_devices(&World::new(scenario).bus).unwrap().remove(0)
}

fn keys() -> impl Strategy<Value = Key> {
    prop_oneof![
        6 => prop::sample::select("afrbilqyjkhePBnwsuxag?/1234restore".chars().collect::<Vec<_>>()).prop_map(Key::Char),
        1 => any::<char>().prop_map(Key::Char),
        1 => ".{0,20}".prop_map(Key::Paste),
        4 => prop::sample::select(vec![
            Key::Enter, Key::Esc, Key::Tab, Key::Backspace, Key::Up, Key::Down, Key::Left, Key::Right, Key::PageUp,
            Key::PageDown, Key::CtrlC,
        ]),
    ]
}

fn progress() -> impl Strategy<Value = Event> {
    let phase =
        prop::sample::select(vec![Phase::Compare, Phase::Erase, Phase::Write, Phase::Verify, Phase::Read]);
    (phase, any::<u64>(), any::<u64>()).prop_map(|(phase, done, total)| Event::Progress {
        phase,
        done,
        total,
    })
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(preview(Comparison::Differs)),
        Just(preview(Comparison::Same)),
        progress(),
        (0..20_usize).prop_map(|index| Event::Sector { index, state: SectorState::Written }),
        ".{0,200}".prop_map(|text| Event::Log(Level::Info, LogEntry::Runs(text))),
        Just(Event::Known(Box::new(DeviceInfo::Running(Running::default())))),
        prop::sample::select(vec!["dfu", "healthy"]).prop_map(|name| Event::Device(device(name))),
        Just(Event::Waiting { what: WaitFor::Start, limit: Duration::from_secs(3) }),
    ]
}

/// Generates the end of a job. A foreground job that lost its drone can be resumed.
fn job_ends() -> impl Strategy<Value = Msg> {
    let outcome = prop_oneof![
        Just(Outcome::Flashed),
        Just(Outcome::Unchanged),
        Just(Outcome::Cancelled(DroneState::Untouched)),
        Just(Outcome::Cancelled(DroneState::WithoutFirmware)),
        Just(disconnected()),
    ];
    (outcome, any::<bool>()).prop_map(|(outcome, background)| {
        let mut ended = Ended::of(Report::nothing_done(outcome), background);
        if ended.report.outcome == disconnected() && !background {
            let drone = device("dfu").drone();
            ended.next = Next::Resume(Box::new(flash_job(&firmware("2026.08", 20_000)).of(drone.clone())));
            ended.drone = Some(drone);
        }
        Msg::Ended(Box::new(ended))
    })
}

fn messages() -> impl Strategy<Value = Msg> {
    let image = |bytes: Vec<u8>| Ok(Box::new(parse(&bytes)));
    prop_oneof![
        12 => keys().prop_map(Msg::Key),
        3 => Just(Msg::Tick),
        1 => Just(Msg::Resized),
        3 => prop::sample::select(vec!["none", "dfu", "healthy", "two"]).prop_map(bus),
        1 => Just(Msg::Bus(BusState::Unavailable("no USB".to_owned()))),
        2 => Just(Msg::Loaded(Which::Image, "cf2.bin".into(), image(firmware("2026.08", 20_000)))),
        2 => Just(Msg::Loaded(Which::Loader, "loader.bin".into(), image(images::loader()))),
        1 => Just(Msg::Loaded(Which::Image, "loader.bin".into(), image(images::loader()))),
        6 => events().prop_map(|event| Msg::Job(Box::new(event))),
        2 => job_ends(),
        4 => (0..3_usize, events()).prop_map(|(id, event)| Msg::OfRow(id, Box::new(event))),
        4 => (0..3_usize, job_ends()).prop_map(|(id, msg)| match msg {
            Msg::Ended(ended) => Msg::RowEnded(id, ended),
            other => other,
        }),
        1 => Just(Msg::Bus(BusState::Others(scan::list_related_devices(&World::new("px4").bus).unwrap()))),
        1 => Just(Msg::Detached),
        1 => Just(Msg::Doctor(Vec::new())),
        1 => Just(Msg::OtherInstances(vec![RunningInstance { pid: 7, port: "1-1".to_owned(), ..RunningInstance::default() }])),
        1 => Just(Msg::OtherInstances(Vec::new())),
        1 => Just(Msg::Listed(".".into(), Ok(Vec::new()))),
        2 => (0..6_u32, release_answers()).prop_map(|(n, answer)| Msg::Releases(n, answer)),
        1 => Just(Msg::Demo(Demo { scenario: "dfu".to_owned(), plugged: false, button: true, leds: DemoLeds::default() })),
    ]
}

fn release_answers() -> impl Strategy<Value = ReleasesMsg> {
    let problem = || release_error(&ReleaseError::NoAnswer { host: "github.com".to_owned() }, 0);
    prop_oneof![
        2 => Just(ReleasesMsg::Listed(Ok(Some(releases())))),
        1 => Just(ReleasesMsg::Listed(Ok(None))),
        1 => Just(ReleasesMsg::Listed(Err(problem()))),
        1 => Just(ReleasesMsg::Bytes(5, None)),
        1 => Just(ReleasesMsg::Fetched(Err(problem()))),
        1 => Just(arrived(&firmware("2026.08", 20_000))),
    ]
}

/// Generates steps on the releases page. Each step is an optional message, usually a key press, and an answer to the
/// last request, which is sent only if the step has no message.
fn page_steps() -> impl Strategy<Value = (Option<Msg>, ReleasesMsg)> {
    let keys = prop::sample::select(vec![
        Key::Tab,
        Key::Enter,
        Key::Esc,
        Key::CtrlC,
        Key::Up,
        Key::Down,
        Key::Char('i'),
        Key::Char('v'),
        Key::Char('u'),
        Key::Char('p'),
        Key::Char('?'),
        Key::Char('l'),
    ]);
    (
        prop::option::weighted(0.7, prop_oneof![5 => keys.prop_map(Msg::Key), 1 => messages()]),
        release_answers(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_releases_page_handles_keys_and_answers_in_any_order(
        steps in prop::collection::vec(page_steps(), 1..60),
    ) {
        let mut app = App::new(None);
        let mut now = Duration::ZERO;
        let mut network_requests = 0;
        for key in [Key::Char('i'), Key::Tab] {
            update(&mut app, now, Msg::Key(key));
        }
        for (message, answer) in steps {
            now += Duration::from_millis(300);
            let may_use_network = matches!(message, Some(Msg::Key(Key::Enter | Key::Right | Key::Char('u'))));
            let message = message.unwrap_or(Msg::Releases(app.release_requests, answer));
            for effect in update(&mut app, now, message) {
                if matches!(effect, Effect::Releases(_, ReleasesEffect::List(_) | ReleasesEffect::File(..))) {
                    prop_assert!(may_use_network);
                    network_requests += 1;
                }
            }
            let drawn = draw(&app, &Theme::new(Glyphs::Ascii, Colours::None), 80, 24);
            prop_assert!(drawn.area.width == 80);
        }
        prop_assert!(network_requests < 60);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_interface_handles_any_message_and_writes_only_what_was_confirmed(
        steps in prop::collection::vec((messages(), 0..3000_u64), 1..60),
        width in 0..200_u16,
        height in 0..60_u16,
        glyphs in prop::sample::select(vec![Glyphs::Unicode, Glyphs::Cp437, Glyphs::Ascii]),
        colours in prop::sample::select(vec![Colours::None, Colours::Sixteen, Colours::Dark { auto: true }, Colours::Light]),
    ) {
        let demo = Demo { scenario: "dfu".to_owned(), plugged: true, button: false, leds: DemoLeds::default() };
        let mut app = App {
            image: Slot::Loading("cf2.bin".into()),
            loader: Slot::Loading("loader.bin".into()),
            ..App::new(Some(demo))
        };
        let theme = Theme::new(glyphs, colours);
        let mut now = Duration::ZERO;
        let (mut started, mut cancelled, mut batch_was_confirmed) = (false, false, false);
        for (message, millis) in steps {
            now += Duration::from_millis(millis);
            let batch_was_asking = matches!(app.batch(), Some(view) if matches!(view.stage, BatchStage::Asking(_)));
            let was_asking = matches!(&app.screen, Screen::Job(view) if matches!(view.stage, Stage::Asking(_)));
            let is_key = matches!(message, Msg::Key(_));
            // When a drone stops blinking, the interface returns to the previous screen.
            let was_blinking = app.is_blinking();
            let finished = matches!(&message, Msg::Ended(ended) if !ended.background) && !was_blinking;
            // `update` may process the end of a background identify, so check before the update whether one is running.
            let was_identifying = app.devices.is_identifying();
            let effects = update(&mut app, now, message);
            let quits = effects.contains(&Effect::Quit);
            for effect in effects {
                match effect {
                    Effect::Start(_) | Effect::Resume(_) | Effect::Identify(_) => (started, cancelled) = (true, false),
                    // The worker may write only after a key press on the screen that shows the plan.
                    Effect::Proceed => prop_assert!(was_asking && is_key && started),
                    // A batch starts writing only after a key press on its plan, which also confirms its later jobs.
                    Effect::Batch(BatchEffect::Start(_, _, job)) if matches!(job.task, Task::Flash(_)) => {
                        prop_assert!(batch_was_asking && is_key || batch_was_confirmed);
                        batch_was_confirmed = true;
                    }
                    // The plan of the next batch must be confirmed, too.
                    Effect::Batch(BatchEffect::Start(..)) if app.batch().is_some_and(|view| view.stage == BatchStage::Identifying) => {
                        batch_was_confirmed = false;
                    }
                    Effect::Batch(_) => {}
                    // A job is cancelled at most once. A background identify is also cancelled when the interface quits
                    // or a batch starts.
                    Effect::Cancel if was_identifying && (quits || app.batch().is_some()) => {}
                    Effect::Cancel => {
                        // While the job asks for confirmation, a second cancel is harmless.
                        let is_asking = matches!(&app.screen, Screen::Job(view) if matches!(view.stage, Stage::Asking(_)));
                        prop_assert!(!cancelled || is_asking);
                        cancelled = true;
                    }
                    _ => {}
                }
            }
            if finished {
                let can_resume = app.resume().is_some();
                // If the drone is already back, the job resumes immediately.
                let is_resumed = app.job().is_some_and(|view| view.confirm == Confirm::Go);
                prop_assert!(matches!(app.screen, Screen::Outcome(..) | Screen::Home) || can_resume || is_resumed);
            }
            if width > 0 && height > 0 {
                draw(&app, &theme, width, height);
            }
            let _ = app.next_wake();
        }
    }
}
