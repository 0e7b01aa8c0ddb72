//! What attacks on the release binary have found, where it can be seen on the simulated bus: each test names its defect
//! as the list of that attack has it (H high, M medium, L low). What needs a kernel's USB stack is in `tests/vm`.

use cfdfu::flash::check::{self, Wish};
use cfdfu::flash::undo::Change;
use cfdfu::flash::{LOADER_BASE, Segment};
use cfdfu::job::{DroneState, FailureKind, FlashTask, Job, Loader, Mismatch, Outcome};
use cfdfu::sim::drone::Drone;
use cfdfu::sim::{images, nor};

use crate::support::{Run, SEED_LEN, World, firmware, flash_job, job, restore_job, with};

fn changed(scenario: &str, change: impl FnOnce(&mut Drone)) -> World {
    let world = World::new(scenario);
    world.bus.with(0, |drone, _| change(drone));
    world
}

fn failure(run: &Run) -> &FailureKind {
    let Outcome::Failed(failure) = &run.report.outcome else { panic!("{:?}", run.report.outcome) };
    &failure.kind
}

fn new_image() -> Vec<u8> {
    firmware("2026.08", SEED_LEN)
}

fn insist(job: Job) -> Job {
    with(job, |task| task.mismatch = Mismatch::Take)
}

// ---- H4: another board with this chip

/// What is on it would be lost, for a firmware that cannot even start there. Not by a flash, nor by a restore.
#[test]
fn h4_another_maker_s_board_is_not_overwritten() {
    let loader = images::loader();
    for make in [|_: &[u8]| flash_job(&new_image()), |loader: &[u8]| restore_job(loader, Some(&new_image()))]
    {
        let world = World::new("foreign");
        let before = world.flash();
        let run = world.run(make(&loader));
        assert!(
            matches!(failure(&run), FailureKind::NotACrazyflie { loader: Loader::Other }),
            "{:?}",
            failure(&run)
        );
        assert!(world.flash() == before);
        assert_eq!(world.run(insist(make(&loader))).report.outcome, Outcome::Flashed);
    }
}

/// With a blank OTP any one of these says that it is a Crazyflie.
#[test]
fn h4_a_crazyflie_without_a_board_in_its_chip_is_known_by_what_is_on_it() {
    let blank = |drone: &mut Drone| drone.memory.otp = [0xFF; 528];
    let erase = |drone: &mut Drone, from: usize, to: usize| {
        drone.memory.flash.place(nor::START + from as u32, &vec![0xFF; to - from]);
    };
    let flashes = |world: &World, job: Job| world.run(job).report.outcome == Outcome::Flashed;
    // Its bootloader alone; a firmware where the bootloader belongs; its firmware alone.
    assert!(flashes(&changed("erased", blank), flash_job(&new_image())));
    assert!(flashes(&changed("overwritten", blank), flash_job(&new_image())));
    let firmware_alone = |drone: &mut Drone| {
        blank(drone);
        erase(drone, 0, 0x4000);
    };
    assert!(flashes(&changed("dfu", firmware_alone), flash_job(&new_image())));
    // It was seen running.
    assert!(flashes(&changed("healthy", blank), flash_job(&new_image())));
    // Nothing at all: a firmware alone would not start, the bootloader may go where nothing is.
    let nothing = |drone: &mut Drone| {
        blank(drone);
        erase(drone, 0, nor::LEN);
    };
    let world = changed("dfu", nothing);
    let run = world.run(flash_job(&new_image()));
    assert!(matches!(failure(&run), FailureKind::NotACrazyflie { loader: Loader::Erased }));
    assert!(world.flash().iter().all(|&byte| byte == 0xFF));
    assert!(flashes(&world, restore_job(&images::loader(), Some(&new_image()))));
}

/// A copy goes back to where it was, and a try that was lost is carried on, whatever is there by now.
#[test]
fn h4_what_was_allowed_once_is_not_asked_about_again() {
    let copy = Segment { address: LOADER_BASE, data: images::foreign(40_000) };
    let wish = Wish { allow_mismatch: true, ..Wish::default() };
    let undo = job(check::undo(copy, wish).unwrap());
    let undo = with(undo, |task: &mut FlashTask| task.change = Change::Undo);
    assert_eq!(World::new("foreign").run(undo).report.outcome, Outcome::Flashed);
    let resumed = with(flash_job(&new_image()), |task| task.left = DroneState::WithoutFirmware);
    assert_eq!(World::new("foreign").run(resumed).report.outcome, Outcome::Flashed);
}
