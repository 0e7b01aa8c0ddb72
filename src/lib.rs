//! cfdfu flashes the STM32F405 of a Bitcraze Crazyflie over USB DFU.
//!
//! The table lists the modules in reading order, by layer. A layer may use only itself and the layers above it in the
//! table; `tests/it/layers.rs` enforces this rule.
//!
//! | layer | modules | contents |
//! |---|---|---|
//! | 0, pure | [`flash`], [`usb`] | addresses and sectors; USB types and the `Bus` trait |
//! | | [`crazyflie`], [`image`] | boards and USB identity; image files and their contents |
//! | | [`plan`] | checks of an image ([`plan::admission`]), the order of work, and undo |
//! | | [`dfu`] | the DfuSe protocol without I/O |
//! | | [`job`] | the protocol with the worker: job, event, log entry, failure, report |
//! | | [`qualify`] | verdicts on what was measured on a drone |
//! | | [`releases`] | official releases: their lists, and the file for each board |
//! | | [`report`], [`doctor`] | results and advice as text; reasons why no drone is found |
//! | 1, devices | `usb::{libusb, trace}` | the real bus; a decorator that reports every transfer |
//! | | [`clock`] | time |
//! | | [`recording`] | recordings of transfers: their format, the recorder, captures by other programs |
//! | | [`sim`] | the simulated Crazyflie, which shares only the USB types and the clock with the host side |
//! | 2, work | [`scan`], [`worker`] | the devices on the bus; the thread that drives a drone |
//! | 3, supervision | [`record`], [`supervise`] | files that survive a run; the backup, result and resumption of jobs |
//! | | [`batch_workers`], [`watch`] | the workers and supervisors of a batch; the thread that watches the bus |
//! | 4, interface | [`fleet`] | many drones as pure state |
//! | | [`app`], [`ui`] | one drone's interface as pure state; its rendering |
//! | 5, shell | `releases::{net, cache, library}` | the network; the cache; the choice between the two |
//! | | [`settings`], [`sys`] | the user's settings; files, signals, symptoms |
//! | | [`tui`], [`cli`] | the interface's event loop and terminal; the command line |
//!
//! Where to start: boards are listed in `crazyflie::BOARDS`. `job::LogEntry` formats the log lines, and `app::log`
//! explains them. [`report`] has the advice and the exit status for each failure. `supervise::resume` decides whether
//! to wait for a lost drone and how to resume its flash.
//!
//! The code maintains four invariants:
//!
//! - Only an image that has passed `plan::admission` is written. The type `ApprovedImage` enforces this for every flash;
//!   the only other data is the test data of `cfdfu qualify`, in a blank sector.
//! - Only blank flash is programmed, but a failed write may be repeated with the same bytes.
//! - The first word of the firmware is written last, after everything else has been verified (unless `--no-verify`).
//! - Every wait for a device has a time limit.

pub mod app;
pub mod batch_workers;
mod cli;
pub mod clock;
pub mod crazyflie;
pub mod dfu;
pub mod doctor;
pub mod flash;
pub mod fleet;
pub mod image;
pub mod job;
pub mod plan;
pub mod qualify;
mod record;
pub mod recording;
pub mod releases;
pub mod report;
pub mod scan;
mod settings;
pub mod sim;
pub mod supervise;
mod sys;
mod tui;
pub mod ui;
pub mod usb;
pub mod watch;
pub mod worker;

pub use cli::main;
