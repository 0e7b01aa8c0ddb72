//! The integration tests, which are built as one binary. The modules are grouped by what they test.
//!
//! The worker on the simulated chip:
//!
//! - `flashing`: the results of whole jobs: the contents of the flash, the order of changes, the number of transfers
//! - `finding`: how a job selects its device and brings it into DFU mode and back
//! - `fleet`: many drones at once
//! - `isolation`: the drones of a batch do not affect each other
//! - `health`: how cfdfu judges a drone after its firmware starts, and the console
//! - `lost`: what happens if an answer that a check depends on is lost, once or every time
//! - `hardware`: the claims that `docs` makes about the hardware, checked on the simulator and in recordings of
//!   real chips
//! - `real_chips`: the behaviour of real chips, as seen in logs
//! - `recordings`: the recordings of requests in `tests/recordings`
//! - `matrix`: flash, restore, read, identify and qualify jobs with every fault at every transfer
//! - `cuts`: a cable pulled or a job cancelled at any moment
//! - `oracle`: the worker against an independent implementation of a DFU device
//! - `hostile`: devices that answer at random, and files with random content
//! - `defects`: the numbered defects that were found by attacking the binary
//! - `speed`: upper limits on the time that whole jobs take on the simulated clock
//!
//! The command line, with the real binary:
//!
//! - `command_line`: exit status, messages and JSON of commands with `--demo`
//! - `completions`: the completion scripts in real shells
//! - `corpus`: valid and malformed image files in every format, and the message for each file
//! - `json`: the `--json` output of every command against the schema in `docs`
//! - `examples`: the files in `examples`
//! - `replay`: recordings, and devices that answer as recorded
//! - `qualify`: `cfdfu qualify` on variants of the simulated chip
//! - `releases`: official releases from a server that misbehaves
//!
//! The interface:
//!
//! - `screens`: complete flows from screen to screen
//! - `pictures`: the screens, drawn at several sizes and on every kind of terminal
//! - `any_order`: messages in random order
//! - `soak`: hundreds of flashes in a row
//! - `terminal`: the full-screen interface of the real binary in a pseudo-terminal
//! - `plain`: the real binary with `--plain`, in a pseudo-terminal and with pipes
//! - `releases_page`: the picker's page of official releases
//!
//! The source:
//!
//! - `tables`: the completeness of the scenarios, symptoms, boards, explanations of log lines and kinds of problems
//! - `layers`: which modules each source file may use, and which files may read the system clock
//! - `lock_files`: the versions that the fuzz targets are built with
//!
//! Helpers:
//!
//! - `support`: runs single jobs on a simulated drone
//! - `batch`: runs a whole batch on simulated drones; for `isolation`, `speed`
//! - `bent`: a bus on which a test can replace `open` calls and answers; for `defects`, `fault`, `finding`,
//!   `isolation`, `lost`, `real_chips`, `tests/fuzz`
//! - `fault`: a bus on which one transfer fails; for `cuts`, `health`, `isolation`, `matrix`, `real_chips`
//! - `cli`: the real binary with piped input and output; for nearly all tests that run the binary
//! - `github`: a server in place of GitHub; for `json`, `releases`, `releases_page`
//! - `pty`: the real binary or a shell in a pseudo-terminal; for `completions`, `plain`, `releases_page`, `terminal`
//! - `interface`: the interface without a terminal; for `any_order`, `health`, `pictures`, `releases_page`, `screens`,
//!   `soak`
//! - `svg`: draws a screen as a picture; for `pictures`
//! - `files`: writers for every image format; for `corpus`, `hostile`, `json`, `pictures`, `releases`, `releases_page`,
//!   `benches/fuzz.rs`, `tests/fuzz`
//! - `rng`: reproducible random numbers; for `hostile`, `benches/fuzz.rs`
//!
//! Tests that need a USB stack are in `tests/vm`.

#![allow(
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::redundant_closure_for_method_calls,
    clippy::unchecked_time_subtraction,
    reason = "tests fail by panicking and print their measurements"
)]

mod any_order;
mod batch;
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
mod fleet;
mod github;
mod hardware;
mod health;
mod hostile;
mod interface;
mod isolation;
mod json;
mod layers;
mod lock_files;
mod lost;
mod matrix;
mod oracle;
mod pictures;
mod plain;
mod pty;
mod qualify;
mod real_chips;
mod recordings;
mod releases;
mod releases_page;
mod replay;
mod rng;
mod screens;
mod soak;
mod speed;
mod support;
mod svg;
mod tables;
mod terminal;
