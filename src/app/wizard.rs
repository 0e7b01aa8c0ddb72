//! The way into DFU mode by hand, hands-free: after the first key, time and USB move it on.
//!
//! What the drone does, and when, is that of its power chip (crazyflie2-nrf-mbs): held under 1.5 s it boots
//! normally, under 5 s it starts the radio bootloader, longer the boot ROM, which appears after the release.

use std::time::Duration;

use crate::crazyflie::Mode;
use crate::job::Device;

/// Seconds counted down before the cable goes in.
pub(crate) const COUNT: u64 = 3;
/// Held for so long: one second more than needed, for a cable that went in late.
pub(crate) const HOLD: Duration = Duration::from_secs(6);
/// At zero the cable goes in, which takes a hand so long.
const PLUGGING: Duration = Duration::from_secs(2);
/// After the release something should show within this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wizard {
    pub step: WizardStep,
    pub since: Duration,
}

/// The steps, in order, and the ways in which they fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WizardStep {
    /// Unplug everything, then press the only key.
    Prepare,
    /// Hold the button; the cable goes in at zero.
    Count,
    /// Hold on.
    Hold,
    /// Let go, and watch the bus.
    Release,
    /// Nothing came: what do the LEDs do?
    AskLeds,
    /// What they said, and what that means.
    Answer(Leds),
    /// It boots normally: released too early, but the automatic way is open.
    Early,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leds {
    /// Two blue ones blink slowly.
    TwoSlow,
    /// One blue one blinks fast.
    OneFast,
    /// One blue one blinks so fast that it flickers.
    Flicker,
    /// One blue one is lit.
    Solid,
    Dark,
    /// Something else, or not visible.
    Other,
}

impl Leds {
    /// All, in the order of the question.
    pub(crate) const ALL: [Leds; 6] =
        [Leds::TwoSlow, Leds::OneFast, Leds::Flicker, Leds::Solid, Leds::Dark, Leds::Other];

    pub(crate) fn question(self) -> &'static str {
        match self {
            Leds::TwoSlow => "two blue LEDs blink slowly",
            Leds::OneFast => "one blue LED blinks twice a second",
            Leds::Flicker => "one blue LED flickers, much faster",
            Leds::Solid => "a blue LED is lit and does not blink",
            Leds::Dark => "no LED is lit",
            Leds::Other => "something else, or you cannot tell",
        }
    }

    /// What it means and what to do.
    pub(crate) fn answer(self) -> &'static str {
        match self {
            Leds::TwoSlow => {
                "That is the radio bootloader: the button was held too short. Press it once, unplug USB and \
                 battery, and hold it longer this time."
            }
            Leds::OneFast => {
                "Is the button still held? While it is, the LED blinks just so and the main chip has no power: let go. If \
                 nothing comes then, the drone is in DFU mode and this computer does not see it. Most cables that do \
                 this carry power only: try another one, plugged straight into the computer. In a virtual machine, pass \
                 0483:df11 through as well."
            }
            Leds::Flicker => {
                "The button was pressed again while the drone was in DFU mode, and that leaves it. Unplug USB and battery, \
                 and start again."
            }
            Leds::Solid => {
                "It started normally, or tried to: the button was let go too early, or was not held while \
                 the cable went in. Unplug USB and battery, and press the button first."
            }
            Leds::Dark => "It has no power: try another cable or port, without a hub.",
            Leds::Other => {
                "Unplug USB and battery, wait a few seconds, and try again. Watch the blue LEDs while you hold the button: \
                 lit, a slow blink, then about twice a second. Let go only then."
            }
        }
    }
}

/// What the wizard wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    Stay,
    Beep(u8),
    Arrived,
}

/// The blue LED M2 as the drone has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Led {
    Off,
    Solid,
    /// About once a second.
    Slow,
    /// About twice a second.
    Fast,
}

impl Wizard {
    pub(crate) fn new(now: Duration) -> Wizard {
        Wizard { step: WizardStep::Prepare, since: now }
    }

    pub(crate) fn go(&mut self, step: WizardStep, now: Duration) {
        *self = Wizard { step, since: now };
    }

    pub(crate) fn tick(&mut self, now: Duration) -> Move {
        let passed = now.saturating_sub(self.since);
        match self.step {
            WizardStep::Count if passed >= Duration::from_secs(COUNT) => {
                self.go(WizardStep::Hold, self.since + Duration::from_secs(COUNT));
                Move::Beep(1)
            }
            WizardStep::Hold if passed >= HOLD => {
                self.go(WizardStep::Release, self.since + HOLD);
                Move::Beep(2)
            }
            WizardStep::Release if passed >= PATIENCE => {
                self.go(WizardStep::AskLeds, now);
                Move::Stay
            }
            _ => Move::Stay,
        }
    }

    pub(crate) fn bus(&mut self, devices: &[Device], now: Duration) -> Move {
        if devices.iter().any(|device| device.mode == Mode::Dfu) {
            return Move::Arrived;
        }
        let running = devices.iter().any(|device| device.mode == Mode::Firmware);
        let trying = matches!(
            self.step,
            WizardStep::Hold | WizardStep::Release | WizardStep::AskLeds | WizardStep::Answer(_)
        );
        match (self.step, running) {
            (_, true) if trying => self.go(WizardStep::Early, now),
            (WizardStep::Early, false) => self.go(WizardStep::Prepare, now),
            _ => {}
        }
        Move::Stay
    }

    /// What to do now, and a word of explanation.
    pub(crate) fn words(&self, now: Duration) -> (&'static str, &'static str) {
        match self.step {
            WizardStep::Prepare => (
                "Unplug USB and the battery.",
                "Take the drone in one hand with a finger on its button, the cable in the other. After the next \
                 key you need no other: it moves on by itself.",
            ),
            WizardStep::Count => ("Hold the button now, and keep holding.", "Plug in at zero:"),
            WizardStep::Hold if self.is_plugging(now) => ("PLUG IN NOW.", "Keep holding the button."),
            WizardStep::Hold => ("Keep holding the button.", "Let go in (seconds):"),
            WizardStep::Release => ("LET GO of the button.", "Watching USB (seconds):"),
            WizardStep::AskLeds => ("Nothing came. Let go of the button.", "What do the LEDs do?"),
            WizardStep::Answer(leds) => (leds.question(), leds.answer()),
            WizardStep::Early => (
                "It boots: the button was let go too early.",
                "But a drone that runs can be asked to enter DFU mode by itself: Enter does that. Or try by hand \
                 again, and hold longer.",
            ),
        }
    }

    /// The number that counts in this step, in seconds.
    pub(crate) fn count(&self, now: Duration) -> Option<u64> {
        let passed = self.seconds(now);
        match self.step {
            WizardStep::Count => Some(COUNT.saturating_sub(passed)),
            WizardStep::Hold if self.is_plugging(now) => None,
            WizardStep::Hold => Some(HOLD.saturating_sub(now.saturating_sub(self.since)).as_secs() + 1),
            WizardStep::Release => Some(passed),
            _ => None,
        }
    }

    /// The moment for the cable: from zero on, for as long as a hand takes.
    pub(crate) fn is_plugging(&self, now: Duration) -> bool {
        self.step == WizardStep::Hold && now.saturating_sub(self.since) < PLUGGING
    }

    /// Whole seconds of this step so far.
    pub(crate) fn seconds(&self, now: Duration) -> u64 {
        now.saturating_sub(self.since).as_secs()
    }

    /// What M2 should be doing now if the hands do as they are told, or what it was said to do.
    pub(crate) fn led(&self, now: Duration) -> Led {
        let held = now.saturating_sub(self.since);
        match self.step {
            WizardStep::Prepare
            | WizardStep::Count
            | WizardStep::AskLeds
            | WizardStep::Answer(Leds::Dark | Leds::Other) => Led::Off,
            WizardStep::Answer(Leds::TwoSlow) => Led::Slow,
            WizardStep::Answer(Leds::OneFast | Leds::Flicker) => Led::Fast,
            WizardStep::Answer(Leds::Solid) => Led::Solid,
            WizardStep::Hold if held < Duration::from_millis(1500) => Led::Solid,
            WizardStep::Hold if held < Duration::from_secs(5) => Led::Slow,
            WizardStep::Hold | WizardStep::Release => Led::Fast,
            WizardStep::Early => Led::Solid,
        }
    }

    /// Whether a blinking M2 is lit at this moment: half periods of 476 and 250 ms.
    pub(crate) fn lit(&self, now: Duration) -> bool {
        let half = match self.led(now) {
            Led::Off => return false,
            Led::Solid => return true,
            Led::Slow => 476,
            Led::Fast => 250,
        };
        (now.saturating_sub(self.since).as_millis() / half).is_multiple_of(2)
    }

    /// When it looks different by itself.
    pub(crate) fn next_wake(&self, now: Duration) -> Option<Duration> {
        let passed = now.saturating_sub(self.since).as_millis();
        let until =
            |period: u128| Duration::from_millis(u64::try_from(period - passed % period).unwrap_or(1000));
        match (self.step, self.led(now)) {
            (WizardStep::Count | WizardStep::Hold | WizardStep::Release, Led::Fast) => Some(until(250)),
            (WizardStep::Count | WizardStep::Hold | WizardStep::Release, Led::Slow) => {
                Some(until(476).min(until(1000)))
            }
            (WizardStep::Count | WizardStep::Hold | WizardStep::Release, _) => Some(until(500)),
            _ => None,
        }
    }
}
