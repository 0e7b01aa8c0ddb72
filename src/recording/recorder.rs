//! Creates a recording: decorators for the bus and the clock forward every request unchanged and report the request to
//! a [`Recorder`].

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::tape::Tape;
use super::{Appearance, ErrorName, Header, Line, Port, Recorded, SetupWords, TransferResult};
use crate::clock::Clock;
use crate::usb::{Bus, BusError, Found, Pipe, Setup, TransferError, Transport};

/// Records requests with their times, in the order in which they complete. Several buses can share a recorder.
pub struct Recorder {
    clock: Arc<dyn Clock>,
    began: Duration,
    opened: AtomicU32,
    state: Mutex<RecorderState>,
}

struct RecorderState {
    tape: Arc<Mutex<Tape>>,
    /// The last list of devices.
    devices: Option<Vec<Appearance>>,
    /// The time at which the last request ended.
    busy_until: u64,
    /// The start and the end of a wait that has not been recorded yet, in microseconds. Consecutive waits are merged.
    /// While one thread waits and another sends requests, the host is not idle, so that time is not recorded as a wait.
    wait: Option<(u64, u64)>,
}

impl RecorderState {
    /// Records the pending wait, if any, up to the start of this line. Then records the line.
    fn push(&mut self, at: u64, now: u64, what: Recorded) {
        self.push_wait(at);
        self.busy_until = now;
        push(&self.tape, Line { at, what });
    }

    /// Records the pending wait, if any, up to `until`.
    fn push_wait(&mut self, until: u64) {
        let Some((from, to)) = self.wait.take() else { return };
        let took = to.min(until).saturating_sub(from);
        if took > 0 {
            push(&self.tape, Line { at: from, what: Recorded::Wait { took } });
        }
    }
}

impl Recorder {
    /// Starts a recording.
    pub fn start(clock: Arc<dyn Clock>, header: Header, tape: Arc<Mutex<Tape>>) -> Arc<Recorder> {
        push(&tape, Line { at: 0, what: Recorded::Start(header) });
        let state = Mutex::new(RecorderState { tape, devices: None, busy_until: 0, wait: None });
        Arc::new(Recorder { began: clock.now(), clock, opened: AtomicU32::new(0), state })
    }

    /// Returns the number of microseconds since the start of the recording.
    fn now(&self) -> u64 {
        micros(self.clock.now().saturating_sub(self.began))
    }

    fn report(&self, at: u64, what: Recorded) {
        let now = self.now();
        self.state.lock().unwrap_or_else(PoisonError::into_inner).push(at, now, what);
    }

    /// Calls `act`, then reports the event that `record` creates from the call's result and duration in microseconds.
    fn measure<T>(&self, act: impl FnOnce() -> T, record: impl FnOnce(&T, u64) -> Recorded) -> T {
        let at = self.now();
        let result = act();
        let what = record(&result, self.now().saturating_sub(at));
        self.report(at, what);
        result
    }

    fn wait(&self, act: impl FnOnce()) {
        let from = self.now();
        act();
        let to = self.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let from = state.wait.map_or(from, |(earlier, _)| earlier).max(state.busy_until);
        state.wait = Some((from, to));
    }

    fn report_devices(&self, listed: &Result<Vec<Found>, BusError>) {
        let devices: Vec<Appearance> = match listed {
            Ok(found) => found.iter().map(Appearance::from).collect(),
            Err(error) => return self.report(self.now(), Recorded::NoDevices { error: error.to_string() }),
        };
        // Compare and record under one lock, so that two threads cannot record their lists in the wrong order.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.devices.as_ref() != Some(&devices) {
            state.devices = Some(devices.clone());
            let now = self.now();
            state.push(now, now, Recorded::Devices { devices });
        }
    }
}

fn push(tape: &Mutex<Tape>, line: Line) {
    tape.lock().unwrap_or_else(PoisonError::into_inner).push(line);
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Drop for Recorder {
    /// Records the pending wait, because a recording may end with a wait, for example for a drone that does not restart.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.push_wait(u64::MAX);
    }
}

/// Records the requests to the bus `inner`.
pub struct RecordedBus<B> {
    inner: B,
    recorder: Arc<Recorder>,
}

impl<B: Bus> RecordedBus<B> {
    pub fn new(inner: B, recorder: Arc<Recorder>) -> RecordedBus<B> {
        RecordedBus { inner, recorder }
    }
}

impl<B: Bus> Bus for RecordedBus<B> {
    fn list(&self) -> Result<Vec<Found>, BusError> {
        let listed = self.inner.list();
        self.recorder.report_devices(&listed);
        listed
    }

    fn open(&self, found: &Found) -> Result<Box<dyn Transport>, TransferError> {
        let device = self.recorder.opened.fetch_add(1, Ordering::Relaxed);
        let opened = self.recorder.measure(
            || self.inner.open(found),
            |opened, _| Recorded::Open {
                device,
                port: Port(found.location.clone()),
                address: found.address,
                error: opened.as_ref().err().copied().map(ErrorName),
            },
        );
        let recorder = Arc::clone(&self.recorder);
        opened.map(|inner| Box::new(RecordedTransport { inner, recorder, device }) as Box<dyn Transport>)
    }

    fn wait(&self, limit: Duration) {
        self.recorder.wait(|| self.inner.wait(limit));
    }
}

struct RecordedTransport {
    inner: Box<dyn Transport>,
    recorder: Arc<Recorder>,
    device: u32,
}

/// Converts the result of a transfer from the device to its recorded form.
fn received(buffer: &[u8], result: Result<usize, TransferError>) -> TransferResult {
    match result {
        Ok(n) => TransferResult::of(buffer.get(..n).unwrap_or_default()),
        Err(error) => TransferResult::failed(error),
    }
}

/// Converts the result of a transfer to the device to its recorded form: the data, and an error unless all of it was sent.
fn sent(data: &[u8], result: Result<usize, TransferError>) -> TransferResult {
    let short = |n: usize| (n < data.len()).then_some(TransferError::Short);
    let error = result.map_or_else(Some, short).map(ErrorName);
    TransferResult { error, ..TransferResult::of(data) }
}

impl Transport for RecordedTransport {
    fn control_in(
        &mut self,
        setup: Setup,
        buffer: &mut [u8],
        limit: Duration,
    ) -> Result<usize, TransferError> {
        let device = self.device;
        let at = self.recorder.now();
        let result = self.inner.control_in(setup, buffer, limit);
        let took = self.recorder.now().saturating_sub(at);
        let (setup, length, recorded) = (SetupWords(setup), buffer.len(), received(buffer, result));
        self.recorder.report(at, Recorded::In { device, setup, length, took, result: recorded });
        result
    }

    fn control_out(&mut self, setup: Setup, data: &[u8], limit: Duration) -> Result<usize, TransferError> {
        let device = self.device;
        self.recorder.measure(
            || self.inner.control_out(setup, data, limit),
            |result, took| Recorded::Out {
                device,
                setup: SetupWords(setup),
                took,
                result: sent(data, *result),
            },
        )
    }

    fn select(&mut self, interface: u8, alternate: u8) -> Result<(), TransferError> {
        let device = self.device;
        self.recorder.measure(
            || self.inner.select(interface, alternate),
            |result, took| {
                let error = result.err().map(ErrorName);
                Recorded::Select { device, interface, alternate, took, error }
            },
        )
    }

    fn bulk_in(&mut self, pipe: Pipe, buffer: &mut [u8], limit: Duration) -> Result<usize, TransferError> {
        let (device, endpoint) = (self.device, pipe.endpoint);
        let at = self.recorder.now();
        let result = self.inner.bulk_in(pipe, buffer, limit);
        let took = self.recorder.now().saturating_sub(at);
        let seen = received(buffer, result);
        self.recorder.report(at, Recorded::Packet { device, endpoint, took, result: seen });
        result
    }

    fn bulk_out(&mut self, pipe: Pipe, data: &[u8], limit: Duration) -> Result<usize, TransferError> {
        let (device, endpoint) = (self.device, pipe.endpoint);
        self.recorder.measure(
            || self.inner.bulk_out(pipe, data, limit),
            |result, took| Recorded::Packet { device, endpoint, took, result: sent(data, *result) },
        )
    }
}

/// Records the sleeps of the clock `inner`.
pub struct RecordedClock {
    inner: Arc<dyn Clock>,
    recorder: Arc<Recorder>,
}

impl RecordedClock {
    pub fn new(inner: Arc<dyn Clock>, recorder: Arc<Recorder>) -> RecordedClock {
        RecordedClock { inner, recorder }
    }
}

impl Clock for RecordedClock {
    fn now(&self) -> Duration {
        self.inner.now()
    }

    fn sleep(&self, time: Duration) {
        self.recorder.wait(|| self.inner.sleep(time));
    }

    fn begin_work(&self) {
        self.inner.begin_work();
    }

    fn end_work(&self) {
        self.inner.end_work();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FastClock;
    use crate::recording::{VERSION, parse};

    /// In the interface, some thread is always waiting: for a device, or until the next check of the state directory.
    #[test]
    fn a_wait_is_recorded_only_while_no_other_thread_sends_requests() {
        let clock = Arc::new(FastClock::new());
        let (program, system) = ("t".to_owned(), "t".to_owned());
        let header = Header { recording: VERSION, program, system, scenario: None, redacted: false };
        let tape = Arc::new(Mutex::new(Tape::default().to_memory()));
        let recorder = Recorder::start(clock.clone(), header, Arc::clone(&tape));
        let sleep = |time: u64| clock.sleep(Duration::from_millis(time));
        let request = |time: u64| {
            recorder.measure(
                || sleep(time),
                |(), took| Recorded::Select { device: 0, interface: 0, alternate: 0, took, error: None },
            );
        };
        recorder.wait(|| {
            sleep(10);
            request(5);
            sleep(20);
        });
        // A request that began before this wait ends after it, so the wait is not recorded.
        let began = recorder.now();
        recorder.wait(|| sleep(30));
        recorder.report(began, Recorded::Truncated);
        let lines = parse(&tape.lock().unwrap().text()).unwrap();
        let waits: Vec<(u64, u64)> = lines
            .iter()
            .filter_map(|line| match line.what {
                Recorded::Wait { took } => Some((line.at, took)),
                _ => None,
            })
            .collect();
        assert_eq!(waits, [(15_000, 20_000)]);
    }
}
