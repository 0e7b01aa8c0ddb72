//! Blinks the LEDs of a running drone, so that the user can recognise the drone. The worker blinks the LEDs in a job.
//! No other job can start until this job has ended, so the overlay stays open until then.

use std::time::Duration;

use crate::app::{App, Blink, Effect, Overlay, keys};
use crate::job::{Event, Job, Level, Outcome, Task};
use crate::report;
use crate::supervise::Ended;

/// How long the LEDs blink unless the user stops them: long enough to walk to the drones.
const BLINK_TIME: Duration = Duration::from_secs(30);

pub(super) fn start(app: &mut App) -> Vec<Effect> {
    let drone = match keys::drone_to_blink(app) {
        Ok(device) => device.drone(),
        Err(why) => {
            app.notify(why);
            return Vec::new();
        }
    };
    app.log.push(app.now, Level::Info, &format!("Blinking the LEDs of the drone on port {}", drone.port));
    let job = Job::new(Task::Blink(BLINK_TIME)).of(drone.clone());
    app.overlay = Some(Overlay::Blink(Blink { drone, until: app.now + BLINK_TIME, stopping: false }));
    vec![Effect::Start(Box::new(job))]
}

/// Stops the blinking, unless it is already being stopped.
pub(super) fn stop(app: &mut App) -> Option<Effect> {
    match &mut app.overlay {
        Some(Overlay::Blink(blink)) if !blink.stopping => {
            blink.stopping = true;
            Some(Effect::Cancel)
        }
        _ => None,
    }
}

pub(super) fn on_event(app: &mut App, event: Event) {
    match (event, &mut app.overlay) {
        // A background identify may have delayed the job, so count the time from now.
        (Event::Device(_), Some(Overlay::Blink(blink))) => blink.until = app.now + BLINK_TIME,
        (Event::Log(level, entry), _) => app.log.record(app.now, level, entry),
        _ => {}
    }
}

pub(super) fn on_end(app: &mut App, ended: Ended) {
    app.overlay = None;
    for other in ended.others {
        app.log.push(app.now, Level::Warning, &other.to_string());
    }
    if let Outcome::Failed(failure) = &ended.report.outcome {
        let problem = report::failure_problem(failure);
        let text = format!("Cannot blink the LEDs: {problem}. {}", problem.advice.on_screen());
        app.log.push(app.now, Level::Warning, &text);
        app.notify(text);
    }
}
