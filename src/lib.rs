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
//! | 3, words | [`report`] | what happened, what state the drone is in, what to do now |
//! | 4, shell | [`record`] | what is remembered between runs |
//! | | [`cli`] | the command line, files, terminal, signals |
//!
//! Four promises that the types keep: nothing is written that `flash::check` has not admitted; nothing is
//! programmed that the plan has not erased; the first word of a firmware is written last, when all else
//! is proven; every wait has a limit.

pub mod cli;
pub mod clock;
pub mod crazyflie;
pub mod dfu;
pub mod flash;
pub mod image;
pub mod job;
pub mod record;
pub mod report;
pub mod sim;
pub mod usb;
pub mod worker;
