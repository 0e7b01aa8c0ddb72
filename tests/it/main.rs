//! The integration tests, one binary. What belongs where:
//!
//! - `flashing`: worker and simulated chip, whole jobs: what ends up in flash, in which order, how many transfers
//! - `finding`: which device a job uses, and how it comes to it
//! - `lost`: answers that a check depends on, lost once or for ever
//! - `real_chips`: what logs of real chips show, replayed
//! - `fault`: a bus on which one transfer goes wrong; for `cuts`, `matrix`, `real_chips`
//! - `matrix`: every job with every fault at every transfer
//! - `cuts`: the cable pulled, or the job cancelled, at any moment
//! - `oracle`: the worker against a DFU device class that nobody here wrote
//! - `cli`: the binary with pipes; for `command_line`, `completions`, `corpus`, `json`, `plain`, `tables`, `terminal`
//! - `completions`: Tab pressed in real shells
//! - `command_line`: the real binary with `--demo`: exit status, messages, JSON
//! - `corpus`: good and malformed image files in every format, and what is said of each
//! - `bent`: a bus whose opens and answers a test bends; for `defects`, `finding`, `lost`, `real_chips`
//! - `defects`: what attacks on the binary have found, each by its number
//! - `rng`: random numbers that are the same each time, for `hostile` and `benches/fuzz.rs`
//! - `examples`: the examples, run
//! - `files`: writers of every format, for `corpus` and for random files
//! - `hostile`: devices and files that answer anything
//! - `soak`: hundreds of flashes in a row on one interface
//! - `interface`: the interface on the simulated drone, without a terminal; for `any_order`, `pictures`, `screens`, `soak`
//! - `screens`: its flows
//! - `pictures`: its pictures, in every size and tier
//! - `svg`: a screen as a picture; for `pictures`
//! - `any_order`: the interface under messages in any order
//! - `pty`: the real binary in a pseudo-terminal; for the next two
//! - `terminal`: on a screen
//! - `plain`: in lines
//! - `speed`: how long whole jobs take by the chip's own clock, held to what was promised
//! - `tables`: scenarios, boards, explanations: whole, with every new row
//! - `json`: every command's `--json` against the schema in `docs`
//! - `layers`: who may import whom, and who may know a clock
//!
//! What needs a USB stack is in `tests/vm`.

#![allow(
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::redundant_closure_for_method_calls,
    clippy::unchecked_time_subtraction,
    reason = "a test says what went wrong by panicking, and prints its figures"
)]

mod any_order;
mod bent;
mod cli;
mod command_line;
mod completions;
mod corpus;
mod cuts;
mod defects;
mod examples;
mod fault;
mod files;
mod finding;
mod flashing;
mod hostile;
mod interface;
mod json;
mod layers;
mod lost;
mod matrix;
mod oracle;
mod pictures;
mod plain;
mod pty;
mod real_chips;
mod rng;
mod screens;
mod soak;
mod speed;
mod support;
mod svg;
mod tables;
mod terminal;
