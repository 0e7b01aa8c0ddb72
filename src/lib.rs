//! cfdfu flashes the STM32F405 of a Bitcraze Crazyflie over USB DFU.
//!
//! The modules in reading order, by layer. A layer uses those above it in this list, never those below;
//! `tests/it/layers.rs` holds it to that.
//!
//! | layer | modules | what |
//! |---|---|---|
//! | 0, pure | [`flash`], [`image`] | addresses and sectors, image files, what may be written, the plan |
//! | | [`usb`], [`dfu`], [`crazyflie`] | the words of USB, the DfuSe conversation without I/O, the board |
//! | | [`job`] | commands and events between the worker and whoever shows them |
//! | 1, devices | `usb::{libusb, trace, fault}` | real USB, and decorators on any bus |
//! | | [`sim`] | a simulated Crazyflie, which shares no code with the host side |
//! | 2, work | [`clock`], [`worker`] | time, and the thread that drives devices |
//! | 3, supervision | [`record`], [`supervise`] | what is remembered between runs; what goes on beside a job, whoever shows it |
//! | 4, interface | [`app`], [`report`], [`doctor`] | its state and pure `update`; what happened and what to do now; why nothing is found |
//! | | [`ui`] | views: functions of the state and a rectangle |
//! | 5, shell | [`settings`] | what the user has set |
//! | | [`run`], [`cli`] | the interface's loop and terminal; the command line, files, signals |
//!
//! Four promises: nothing is written that `flash::check` has not admitted (a type keeps it); nothing is programmed that is
//! not blank; the first word of a firmware is written last, when all else is proven (unless `--no-verify`); every wait for a
//! device has a limit.

pub mod app;
pub mod cli;
pub mod clock;
pub mod crazyflie;
pub mod dfu;
pub mod doctor;
pub mod flash;
pub mod image;
pub mod job;
pub mod record;
pub mod report;
pub mod run;
pub mod settings;
pub mod sim;
pub mod supervise;
pub mod ui;
pub mod usb;
pub mod worker;
