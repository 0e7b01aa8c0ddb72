//! cfdfu flashes the STM32F405 of a Bitcraze Crazyflie over USB DFU.
//!
//! The modules in reading order, by layer. A layer uses those above it in this list, never those below;
//! `tests/it/layers.rs` holds it to that.
//!
//! | layer | modules | what |
//! |---|---|---|
//! | 0, pure | [`flash`], [`usb`] | addresses and sectors; the words of USB and the seam to a bus |
//! | | [`crazyflie`], [`image`] | the board; image files and what is in them |
//! | | [`plan`] | which image may go where ([`plan::admission`]), in which order, and what an undo brings back |
//! | | [`dfu`] | the DfuSe conversation without I/O |
//! | | [`job`] | the contract with the worker: job, event, log entry, failure, report |
//! | | [`report`], [`doctor`] | what happened and what helps, in words; why nothing is found |
//! | 1, devices | `usb::{libusb, trace}` | real USB, and a decorator that tells every transfer |
//! | | [`sim`] | a simulated Crazyflie, which shares no code with the host side |
//! | 2, work | [`clock`], [`scan`], [`worker`] | time; who is on the bus; the thread that drives a drone |
//! | 3, supervision | [`record`], [`supervise`] | what outlives a run; the copy, the record and the resume beside every job |
//! | 4, interface | [`app`], [`ui`] | its state and pure `update`; views of it |
//! | 5, shell | [`settings`], [`sys`] | what the user has set; files, signals, symptoms |
//! | | [`tui`], [`cli`] | the interface's loop and terminal; the command line |
//!
//! Where to begin: a board is a row in `crazyflie::BOARDS`; a line of the log is worded in `job::LogEntry`, and explained in
//! `app::log`; advice on a failure and its exit status are in [`report`]; `supervise::resume` decides whether to wait for a
//! lost drone, and as what to resume its flash.
//!
//! Four promises: nothing is written that `plan::admission` has not admitted (a type keeps it); nothing is programmed that is
//! not blank; the first word of a firmware is written last, when all else is proven (unless `--no-verify`); every wait for a
//! device has a limit.

pub mod app;
mod cli;
pub mod clock;
pub mod crazyflie;
pub mod dfu;
pub mod doctor;
pub mod flash;
pub mod image;
pub mod job;
pub mod plan;
mod record;
pub mod report;
pub mod scan;
mod settings;
pub mod sim;
pub mod supervise;
mod sys;
mod tui;
pub mod ui;
pub mod usb;
pub mod worker;

pub use cli::main;
