//! Guides the user through entering DFU mode by hand. Both of the user's hands are busy, so after the first key press,
//! timers and USB events advance the steps.
//!
//! The drone's power chip sets the timing (source: crazyflie2-nrf-mbs). If the button is held for less than 1.5 s, the
//! drone boots normally; for less than 5 s, it starts the radio bootloader; for longer, it starts the boot ROM, which
//! appears on USB once the button is released.

use std::borrow::Cow;
use std::time::Duration;

use crate::crazyflie::Mode;
use crate::crazyflie::symptoms;
pub use crate::crazyflie::symptoms::Leds;
use crate::job::Device;

/// The length in seconds of the countdown before the cable is plugged in.
const COUNT: u64 = 3;
/// The length of the same countdown if a screen reader may be reading the instructions.
const COUNT_SPOKEN: u64 = 8;
/// The time allowed for plugging in the cable after the countdown.
const PLUGGING: Duration = Duration::from_secs(2);
/// How long to hold the button after the countdown: the time for plugging in, the five seconds that the power chip
/// requires, and one extra second. Holding the button longer does no harm.
const HOLD: Duration = Duration::from_secs(8);
/// The extra time that a screen reader needs to read the instructions.
const VOICE: Duration = Duration::from_secs(3);
/// How long to wait for the drone after the button is released.
pub(crate) const PATIENCE: Duration = Duration::from_secs(8);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wizard {
    pub step: WizardStep,
    pub since: Duration,
    /// A screen reader may be reading the instructions, so each step takes longer.
    pub spoken: bool,
}

/// The steps in order, then the steps that follow a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WizardStep {
    /// Unplug everything, then press Enter.
    Prepare,
    /// Hold the button, and plug in the cable at zero.
    Count,
    /// Keep holding the button.
    Hold,
    /// Let go of the button; cfdfu watches the bus.
    Release,
    /// No drone appeared; ask what the LEDs are doing.
    AskLeds,
    /// The user's answer, and what it means.
    Answer(Leds),
    /// The drone booted normally because the button was released too early. Firmware 2022.03 or newer can now enter DFU
    /// mode by itself.
    Early,
}

/// The answers that the wizard offers to the question about the LEDs.
impl Leds {
    /// All answers, in the order shown.
    pub(crate) const ALL: [Leds; 8] = [
        Leds::TwoSlow,
        Leds::OneFast,
        Leds::Flicker,
        Leds::Solid,
        Leds::Dark,
        Leds::TwoLit,
        Leds::Red,
        Leds::Other,
    ];

    pub(crate) fn answer_text(self) -> &'static str {
        match self {
            Leds::TwoSlow => "two blue LEDs, blinking slowly",
            Leds::OneFast => "one blue LED, blinking fast",
            Leds::Flicker => "one blue LED, flickering",
            Leds::Solid => "one blue LED, steadily on",
            Leds::Dark => "no LED is lit",
            Leds::TwoLit => "two blue LEDs, steadily on",
            Leds::Red => "a red LED, lit or blinking",
            Leds::Other => "something else, or hard to tell",
        }
    }

    /// Returns how long the LEDs stay lit or dark, in milliseconds (crazyflie2-nrf-mbs), or `None` if they do not
    /// blink. The flicker is drawn at half its rate, because a terminal cannot show the full rate.
    pub(crate) fn half_period(self) -> Option<u128> {
        match self {
            Leds::TwoSlow => Some(476),
            Leds::OneFast => Some(250),
            Leds::Flicker => Some(150),
            Leds::Solid | Leds::Dark | Leds::TwoLit | Leds::Red | Leds::Other => None,
        }
    }
}

/// What the caller must do after a tick or a bus scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    Stay,
    Beep(u8),
    Arrived,
}

/// The state of the drone's blue LED M2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Led {
    Off,
    Solid,
    /// Blinks about once a second.
    Slow,
    /// Blinks about twice a second.
    Fast,
}

impl Led {
    /// Returns how long the LED stays lit or dark, in milliseconds, or `None` if it does not blink.
    fn half_period(self) -> Option<u128> {
        match self {
            Led::Off | Led::Solid => None,
            Led::Slow => Leds::TwoSlow.half_period(),
            Led::Fast => Leds::OneFast.half_period(),
        }
    }
}

impl Wizard {
    pub(crate) fn new(now: Duration, spoken: bool) -> Wizard {
        Wizard { step: WizardStep::Prepare, since: now, spoken }
    }

    pub(crate) fn go_to(&mut self, step: WizardStep, now: Duration) {
        (self.step, self.since) = (step, now);
    }

    /// Returns the length of the countdown before the cable is plugged in.
    fn countdown(&self) -> Duration {
        Duration::from_secs(if self.spoken { COUNT_SPOKEN } else { COUNT })
    }

    /// Returns how long to hold the button.
    fn hold(&self) -> Duration {
        if self.spoken { HOLD + VOICE } else { HOLD }
    }

    /// Returns the time allowed for plugging in the cable.
    fn plugging(&self) -> Duration {
        if self.spoken { PLUGGING + VOICE } else { PLUGGING }
    }

    /// Returns the instruction for a timed step, as text to be read aloud.
    pub(crate) fn spoken_words(&self, now: Duration) -> Option<String> {
        let text = match self.step {
            WizardStep::Count => {
                let seconds = self.countdown().as_secs();
                format!("Press the button and keep holding it. Plug in USB at \"Now\", in {seconds} seconds.")
            }
            WizardStep::Hold if self.is_plugging(now) => {
                "Now: plug in USB. Keep holding the button.".to_owned()
            }
            WizardStep::Hold => {
                let left = self.hold().saturating_sub(self.plugging()).as_secs();
                format!("Keep holding the button for {left} more seconds.")
            }
            WizardStep::Release => "Let go of the button now. Looking for the drone.".to_owned(),
            _ => return None,
        };
        Some(text)
    }

    pub(crate) fn tick(&mut self, now: Duration) -> Move {
        let passed = now.saturating_sub(self.since);
        match self.step {
            WizardStep::Count if passed >= self.countdown() => {
                self.go_to(WizardStep::Hold, self.since + self.countdown());
                Move::Beep(1)
            }
            WizardStep::Hold if passed >= self.hold() => {
                self.go_to(WizardStep::Release, self.since + self.hold());
                Move::Beep(2)
            }
            WizardStep::Release if passed >= PATIENCE => {
                self.go_to(WizardStep::AskLeds, now);
                Move::Stay
            }
            _ => Move::Stay,
        }
    }

    pub(crate) fn on_bus(&mut self, devices: &[Device], now: Duration) -> Move {
        if devices.iter().any(|device| device.mode == Mode::Dfu) {
            return Move::Arrived;
        }
        let running = devices.iter().any(|device| device.mode == Mode::Firmware);
        let trying = matches!(
            self.step,
            WizardStep::Hold | WizardStep::Release | WizardStep::AskLeds | WizardStep::Answer(_)
        );
        match (self.step, running) {
            (_, true) if trying => self.go_to(WizardStep::Early, now),
            (WizardStep::Early, false) => self.go_to(WizardStep::Prepare, now),
            _ => {}
        }
        Move::Stay
    }

    /// Returns the instruction for the current step, and a short explanation.
    pub(crate) fn instruction(&self, now: Duration) -> (&'static str, Cow<'static, str>) {
        let (head, detail) = match self.step {
            WizardStep::Prepare => (
                "Unplug USB and the battery.",
                "Hold the drone in one hand, with a finger on its button, and the cable in the other. After Enter, \
                 you won't need the keyboard.",
            ),
            WizardStep::Count => ("Press the button and keep holding it.", "Plug in USB in"),
            WizardStep::Hold if self.is_plugging(now) => ("PLUG IN NOW.", "Keep holding the button."),
            WizardStep::Hold => ("Keep holding the button.", "Let go in"),
            WizardStep::Release if self.is_letting_go(now) => {
                ("LET GO of the button.", "If M2 is still blinking slowly, wait until it blinks fast.")
            }
            WizardStep::Release => ("Let go of the button. Looking for the drone.", "Seconds left:"),
            WizardStep::AskLeds => {
                ("No drone found. Let go of the button.", "What are the drone's LEDs doing?")
            }
            WizardStep::Answer(leds) => return (leds.answer_text(), symptoms::explain_answer(leds).into()),
            WizardStep::Early => (
                "The drone booted normally: the button was released a little early.",
                "With firmware 2022.03 or newer, press Enter to switch the drone to DFU mode. \
                 Otherwise, press t and hold the button longer.",
            ),
        };
        (head, detail.into())
    }

    /// Returns the seconds left in this step, or `None` if the step does not show them.
    pub(crate) fn count(&self, now: Duration) -> Option<u64> {
        let passed = self.seconds(now);
        match self.step {
            WizardStep::Count => Some(self.countdown().as_secs().saturating_sub(passed)),
            WizardStep::Hold if self.is_plugging(now) => None,
            WizardStep::Hold => {
                Some(self.hold().saturating_sub(now.saturating_sub(self.since)).as_secs() + 1)
            }
            WizardStep::Release if self.is_letting_go(now) => None,
            WizardStep::Release => Some(PATIENCE.as_secs().saturating_sub(passed)),
            _ => None,
        }
    }

    /// Returns whether it is time to plug in the cable: after the countdown, for the time allowed for plugging in.
    pub(crate) fn is_plugging(&self, now: Duration) -> bool {
        self.step == WizardStep::Hold && now.saturating_sub(self.since) < self.plugging()
    }

    /// Returns whether it is time to let go of the button: during the first two seconds of [`WizardStep::Release`].
    pub(crate) fn is_letting_go(&self, now: Duration) -> bool {
        self.step == WizardStep::Release && self.seconds(now) < 2
    }

    /// Returns the whole seconds since this step began.
    pub(crate) fn seconds(&self, now: Duration) -> u64 {
        now.saturating_sub(self.since).as_secs()
    }

    /// Returns the state of M2 now: as expected if the user follows the steps, or as the user reported it.
    pub(crate) fn led(&self, now: Duration) -> Led {
        let held = now.saturating_sub(self.since);
        match self.step {
            WizardStep::Prepare
            | WizardStep::Count
            | WizardStep::AskLeds
            | WizardStep::Answer(Leds::Dark | Leds::Red | Leds::Other) => Led::Off,
            WizardStep::Answer(Leds::TwoSlow) => Led::Slow,
            WizardStep::Answer(Leds::OneFast | Leds::Flicker) => Led::Fast,
            WizardStep::Answer(Leds::Solid | Leds::TwoLit) => Led::Solid,
            WizardStep::Hold if held < Duration::from_millis(1500) => Led::Solid,
            WizardStep::Hold if held < Duration::from_secs(5) => Led::Slow,
            WizardStep::Hold | WizardStep::Release => Led::Fast,
            WizardStep::Early => Led::Solid,
        }
    }

    /// Returns whether M2 is lit at this moment.
    pub(crate) fn is_lit(&self, now: Duration) -> bool {
        let led = self.led(now);
        let passed = now.saturating_sub(self.since).as_millis();
        led.half_period().map_or(led == Led::Solid, |half| (passed / half).is_multiple_of(2))
    }

    /// Returns the time until the screen must be redrawn, or `None` if it need not be redrawn.
    pub(crate) fn next_wake(&self, now: Duration) -> Option<Duration> {
        let passed = now.saturating_sub(self.since).as_millis();
        let until =
            |period: u128| Duration::from_millis(u64::try_from(period - passed % period).unwrap_or(1000));
        match (self.step, self.led(now).half_period()) {
            // In three of the answers, the LEDs blink at different rates. Wake up for the earliest change.
            (WizardStep::AskLeds, _) => {
                let until = |half: u128| u64::try_from(half - now.as_millis() % half).unwrap_or(250);
                let next = Leds::ALL.into_iter().filter_map(Leds::half_period).map(until).min();
                next.map(Duration::from_millis)
            }
            // These steps also show seconds.
            (WizardStep::Count | WizardStep::Hold | WizardStep::Release, half) => {
                Some(half.map_or(until(500), |half| until(half).min(until(1000))))
            }
            (_, half) => half.map(until),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The screen is redrawn exactly when M2 changes. Otherwise, the LED would stop blinking, or wake-ups would be
    /// wasted.
    #[test]
    fn a_blinking_led_is_redrawn_in_every_answer() {
        for leds in Leds::ALL {
            let mut wizard = Wizard::new(Duration::ZERO, false);
            wizard.go_to(WizardStep::Answer(leds), Duration::ZERO);
            let changes: Vec<u64> = (1..2000)
                .filter(|ms| {
                    let at = |ms| wizard.is_lit(Duration::from_millis(ms));
                    at(*ms) != at(ms - 1)
                })
                .collect();
            let mut now = Duration::ZERO;
            let mut wakes = Vec::new();
            while let Some(wait) = wizard.next_wake(now) {
                now += wait;
                if now >= Duration::from_secs(2) {
                    break;
                }
                wakes.push(u64::try_from(now.as_millis()).unwrap());
            }
            assert_eq!(wakes, changes, "{leds:?}");
        }
    }
}
