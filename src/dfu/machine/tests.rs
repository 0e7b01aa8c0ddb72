//! Runs the machine against scripted answers and checks the requests, their order, and the result.

use super::*;
use crate::dfu::quirks::{STANDARD, STM32F405_ROM};

const BASE: Address = Address(0x0800_4000);

/// A scripted answer from the device.
enum ScriptedAnswer {
    /// bStatus, bwPollTimeout in ms, and bState.
    Status(u8, u8, State),
    State(State),
    Data(usize),
    Ack,
    Fail(TransferError),
}

use ScriptedAnswer::{Ack, Data, Fail, State as Is, Status as St};

/// Runs one operation. Returns its steps as text and its result.
fn run(
    machine: &mut Machine,
    operation: Operation,
    answers: Vec<ScriptedAnswer>,
) -> (Vec<String>, Result<usize, DfuError>) {
    let mut steps = Vec::new();
    let mut answers = answers.into_iter();
    machine.begin(operation);
    loop {
        let sent = match machine.step() {
            Step::Send(setup, data, _) => {
                let name = ["DETACH", "DNLOAD", "", "", "CLRSTATUS", "", "ABORT"][usize::from(setup.request)];
                let body = match data {
                    [0x21, ..] => " set-address".to_owned(),
                    [0x41, ..] => " erase".to_owned(),
                    [] => String::new(),
                    data => format!(" {} bytes", data.len()),
                };
                format!("{name} {}{body}", setup.value)
            }
            Step::Fetch(setup, ..) if setup.request == 2 => format!("UPLOAD {}", setup.value),
            Step::Fetch(setup, ..) if setup.request == 5 => "GETSTATE".to_owned(),
            Step::Fetch(..) => "GETSTATUS".to_owned(),
            Step::Wait(time) => {
                steps.push(format!("wait {} ms", time.as_millis()));
                machine.finish_wait();
                continue;
            }
            Step::Finished(result) => {
                assert_eq!(answers.next().map(|_| ()), None, "unused answers after {steps:?}");
                return (steps, result.map(|bytes| bytes.len()));
            }
        };
        steps.push(sent);
        match answers.next().unwrap_or_else(|| panic!("no answer for {steps:?}")) {
            St(status, poll, state) => machine.reply(Ok(&[status, poll, 0, 0, state as u8, 0])),
            Is(state) => machine.reply(Ok(&[state as u8])),
            Data(len) => machine.reply(Ok(&vec![7; len])),
            Ack => machine.reply(Ok(&[])),
            Fail(error) => machine.reply(Err(error)),
        }
    }
}

fn busy() -> ScriptedAnswer {
    St(0, 104, State::Dnbusy)
}

fn done() -> ScriptedAnswer {
    St(0, 0, State::DnloadIdle)
}

/// Returns a machine whose device is in dfuIDLE.
fn ready(quirks: Quirks) -> Machine {
    let mut machine = Machine::new(0, 2048, quirks);
    let (_, result) = run(&mut machine, Operation::Recover, vec![St(0, 0, State::DfuIdle)]);
    assert_eq!(result, Ok(0));
    machine
}

fn write(address: u32, len: usize) -> Operation {
    Operation::Write(Address(address), vec![1; len])
}

#[test]
fn the_initial_error_of_the_rom_is_cleared_once_and_logged() {
    let mut machine = Machine::new(0, 2048, STM32F405_ROM);
    let answers = vec![St(10, 0, State::Error), Ack, St(0, 0, State::DfuIdle)];
    let (steps, result) = run(&mut machine, Operation::Recover, answers);
    assert_eq!(steps, ["GETSTATUS", "CLRSTATUS 0", "GETSTATUS"]);
    assert_eq!(result, Ok(0));
    assert_eq!(machine.take_notes(), [Note::Cleared(Status::FIRMWARE)]);
}

/// In dfuDNLOAD-SYNC, GETSTATUS would start the command that an earlier session sent.
#[test]
fn a_command_left_pending_by_an_earlier_session_is_aborted_and_never_started() {
    let mut machine = Machine::new(0, 2048, STM32F405_ROM);
    let idle = || St(0, 0, State::DfuIdle);
    let answers = vec![Fail(TransferError::Timeout), Is(State::DnloadSync), Ack, Is(State::DfuIdle), idle()];
    let (steps, result) = run(&mut machine, Operation::TakeOver, answers);
    assert_eq!(steps, ["GETSTATE", "GETSTATE", "ABORT 0", "GETSTATE", "GETSTATUS"]);
    assert_eq!((result, machine.take_notes()), (Ok(0), vec![Note::Aborted(State::DnloadSync)]));
    // The machine gives up on a device that keeps the command pending or does not answer GETSTATE. If the device does
    // not support GETSTATE, the machine proceeds without it.
    let mut answers: Vec<ScriptedAnswer> = (0..3).flat_map(|_| [Is(State::DnloadSync), Ack]).collect();
    answers.push(Is(State::DnloadSync));
    assert_eq!(run(&mut machine, Operation::TakeOver, answers).1, Err(DfuError::State(State::DnloadSync)));
    let lost = (0..4).map(|_| Fail(TransferError::Timeout)).collect();
    assert!(run(&mut machine, Operation::TakeOver, lost).1.is_err());
    let mut stalled: Vec<ScriptedAnswer> = (0..4).map(|_| Fail(TransferError::Stall)).collect();
    stalled.push(idle());
    assert_eq!(run(&mut machine, Operation::TakeOver, stalled).1, Ok(0));
}

#[test]
fn an_interrupted_transfer_is_ended_with_abort_and_not_with_clrstatus() {
    for state in [State::DnloadIdle, State::UploadIdle] {
        let mut machine = Machine::new(0, 2048, STM32F405_ROM);
        let answers = vec![St(0, 0, state), Ack, St(0, 0, State::DfuIdle)];
        let (steps, _) = run(&mut machine, Operation::Recover, answers);
        assert_eq!(steps, ["GETSTATUS", "ABORT 0", "GETSTATUS"]);
        assert_eq!(machine.take_notes(), [Note::Aborted(state)]);
    }
}

#[test]
fn recovery_gives_up_on_a_device_that_stays_in_dfu_error() {
    let mut machine = Machine::new(0, 2048, STM32F405_ROM);
    let mut answers = Vec::new();
    for _ in 0..RECOVERIES {
        answers.extend([St(10, 0, State::Error), Ack]);
    }
    answers.push(St(10, 0, State::Error));
    let (_, result) = run(&mut machine, Operation::Recover, answers);
    assert_eq!(result, Err(DfuError::State(State::Error)));
}

#[test]
fn writing_consecutive_blocks_sets_the_address_once_and_takes_three_transfers_per_block() {
    let mut machine = ready(STM32F405_ROM);
    let first = run(&mut machine, write(BASE.0, 2048), vec![Ack, busy(), done(), Ack, busy(), done()]);
    assert_eq!(
        first.0,
        ["DNLOAD 0 set-address", "GETSTATUS", "GETSTATUS", "DNLOAD 2 2048 bytes", "GETSTATUS", "GETSTATUS"]
    );
    for block in 3..40_u32 {
        let (steps, result) =
            run(&mut machine, write(BASE.0 + (block - 2) * 2048, 2048), vec![Ack, busy(), done()]);
        assert_eq!(steps, [&format!("DNLOAD {block} 2048 bytes"), "GETSTATUS", "GETSTATUS"]);
        assert_eq!(result, Ok(0));
    }
}

#[test]
fn a_short_block_and_the_next_block_each_set_the_address() {
    let mut machine = ready(STM32F405_ROM);
    let answers = || vec![Ack, busy(), done(), Ack, busy(), done()];
    run(&mut machine, write(BASE.0, 2048), answers()).1.unwrap();
    let (steps, _) = run(&mut machine, write(BASE.0 + 2048, 100), answers());
    assert_eq!((steps[0].as_str(), steps[3].as_str()), ("DNLOAD 0 set-address", "DNLOAD 2 100 bytes"));
    let (steps, _) = run(&mut machine, write(BASE.0 + 2148, 2048), answers());
    assert_eq!(steps[0], "DNLOAD 0 set-address");
}

#[test]
fn block_numbers_do_not_wrap() {
    let mut machine = ready(STM32F405_ROM);
    machine.pointer = Some(Pointer { base: Address(0x0800_0000), next: u16::MAX });
    let last = 0x0800_0000 + (u32::from(u16::MAX) - 2) * 2048;
    let (steps, _) = run(&mut machine, write(last, 2048), vec![Ack, busy(), done()]);
    assert_eq!(steps[0], "DNLOAD 65535 2048 bytes");
    let (steps, _) =
        run(&mut machine, write(last + 2048, 2048), vec![Ack, busy(), done(), Ack, busy(), done()]);
    assert_eq!(steps[0], "DNLOAD 0 set-address");
}

#[test]
fn reading_sends_abort_after_setting_the_address_and_then_takes_one_transfer_per_block() {
    let mut machine = ready(STM32F405_ROM);
    let read = |n: u32| Operation::Read(Address(BASE.0 + n * 2048), 2048);
    let (steps, result) = run(&mut machine, read(0), vec![Ack, busy(), done(), Ack, Data(2048)]);
    assert_eq!(steps, ["DNLOAD 0 set-address", "GETSTATUS", "GETSTATUS", "ABORT 0", "UPLOAD 2"]);
    assert_eq!(result, Ok(2048));
    let (steps, _) = run(&mut machine, read(1), vec![Data(2048)]);
    assert_eq!(steps, ["UPLOAD 3"]);
    // The device refuses a download in dfuUPLOAD-IDLE.
    let (steps, _) = run(&mut machine, Operation::Erase(BASE), vec![Ack, Ack, busy(), done()]);
    assert_eq!(steps, ["ABORT 0", "DNLOAD 0 erase", "GETSTATUS", "GETSTATUS"]);
}

#[test]
fn a_standard_device_is_polled_after_its_poll_timeout() {
    let mut machine = ready(STANDARD);
    let (steps, _) = run(&mut machine, Operation::Erase(BASE), vec![Ack, busy(), done()]);
    assert_eq!(steps, ["DNLOAD 0 erase", "GETSTATUS", "wait 104 ms", "GETSTATUS"]);
}

#[test]
fn the_rom_is_polled_after_its_poll_timeout_once_it_has_answered_unexpectedly() {
    let cases = [
        (Fail(TransferError::Stall), PollReason::Stalled),
        (Fail(TransferError::Timeout), PollReason::Unanswered),
        (busy(), PollReason::Busy),
    ];
    for (answer, reason) in cases {
        let mut machine = ready(STM32F405_ROM);
        let (steps, result) = run(&mut machine, Operation::Erase(BASE), vec![Ack, busy(), answer, done()]);
        assert_eq!(steps, ["DNLOAD 0 erase", "GETSTATUS", "GETSTATUS", "wait 104 ms", "GETSTATUS"]);
        assert_eq!(result, Ok(0));
        assert_eq!(machine.take_notes(), [Note::ObeyingPoll(reason)]);
        let (steps, _) = run(&mut machine, Operation::Erase(BASE), vec![Ack, busy(), done()]);
        assert_eq!(steps, ["DNLOAD 0 erase", "GETSTATUS", "wait 104 ms", "GETSTATUS"]);
    }
}

/// An erase takes up to 4 s, and some ROMs stall GETSTATUS until the erase is done.
#[test]
fn stalls_from_a_working_device_are_tolerated_until_the_time_limit() {
    let mut machine = ready(STM32F405_ROM);
    let mut answers = vec![Ack, busy()];
    answers.extend((0..20).map(|_| Fail(TransferError::Stall)));
    answers.push(done());
    assert_eq!(run(&mut machine, Operation::Erase(BASE), answers).1, Ok(0));
    // Each stall costs a wait of 104 ms, so the time limit of 10 s is reached after 97 stalls.
    let mut answers = vec![Ack, busy()];
    answers.extend((0..98).map(|_| Fail(TransferError::Stall)));
    let mut machine = ready(STM32F405_ROM);
    assert!(matches!(run(&mut machine, Operation::Erase(BASE), answers).1, Err(DfuError::Busy(_))));
}

#[test]
fn the_total_wait_for_a_device_that_stays_busy_is_bounded() {
    let mut machine = ready(STANDARD);
    machine.begin(Operation::Erase(BASE));
    let mut total = Duration::ZERO;
    let result = loop {
        match machine.step() {
            Step::Wait(time) => {
                total += time;
                machine.finish_wait();
            }
            Step::Finished(result) => break result,
            // Busy, with a bwPollTimeout of 4.7 hours.
            _ => machine.reply(Ok(&[0, 0xFF, 0xFF, 0xFF, 4, 0])),
        }
    };
    assert!(matches!(result, Err(DfuError::Busy(_))));
    assert!(total <= 2 * ERASE);
}

#[test]
fn a_refused_request_returns_the_status_of_the_device() {
    let mut machine = ready(STM32F405_ROM);
    let answers = vec![Ack, busy(), St(11, 0, State::Error)];
    assert_eq!(run(&mut machine, Operation::Erase(BASE), answers).1, Err(DfuError::Status(Status::VENDOR)));

    let mut machine = ready(STM32F405_ROM);
    let answers = vec![Ack, busy(), done(), Ack, Fail(TransferError::Stall), St(11, 0, State::Error)];
    let read = Operation::Read(BASE, 2048);
    assert_eq!(run(&mut machine, read, answers).1, Err(DfuError::Status(Status::VENDOR)));
}

#[test]
fn a_leave_request_succeeds_without_an_answer() {
    let set = || vec![Ack, busy(), done()];
    let endings = [
        vec![Ack, St(0, 1, State::Manifest)],
        vec![Ack, Fail(TransferError::Disconnected)],
        vec![Ack, Fail(TransferError::Timeout)],
        vec![Fail(TransferError::Disconnected)],
    ];
    for ending in endings {
        let mut machine = ready(STM32F405_ROM);
        let answers = set().into_iter().chain(ending).collect();
        let (steps, result) = run(&mut machine, Operation::Leave(BASE), answers);
        assert_eq!(result, Ok(0), "{steps:?}");
    }
    let mut machine = ready(STM32F405_ROM);
    let answers = vec![Fail(TransferError::Disconnected)];
    let (_, result) = run(&mut machine, Operation::Leave(BASE), answers);
    assert!(result.unwrap_err().is_disconnect(), "disconnected before the leave request");
}

#[test]
fn an_invalid_answer_to_getstatus_is_an_error() {
    for garbage in [&[][..], &[0; 5], &[0, 0, 0, 0, 99, 0], &[0xFF; 6]] {
        let mut machine = ready(STM32F405_ROM);
        machine.begin(Operation::Erase(BASE));
        machine.step();
        machine.reply(Ok(&[]));
        machine.step();
        machine.reply(Ok(garbage));
        assert!(matches!(machine.step(), Step::Finished(Err(DfuError::Garbled))));
    }
}

/// A device may be stuck in dfuMANIFEST after an earlier session. If one ABORT does not free the device, only a power
/// cycle does.
#[test]
fn a_device_stuck_in_dfu_manifest_gets_one_abort() {
    let mut machine = Machine::new(0, 2048, STM32F405_ROM);
    let stuck = vec![St(0, 0, State::Manifest), Ack, St(0, 0, State::Manifest)];
    let (steps, result) = run(&mut machine, Operation::Recover, stuck);
    assert_eq!(steps, ["GETSTATUS", "ABORT 0", "GETSTATUS"]);
    assert_eq!(result, Err(DfuError::State(State::Manifest)));
    let freed = vec![St(0, 0, State::Manifest), Ack, St(0, 0, State::DfuIdle)];
    assert_eq!(run(&mut machine, Operation::Recover, freed).1, Ok(0));
}
