//! Benchmarks of code that does no I/O: parsing a file, planning a flash, and drawing a frame of the interface.
//! Run them with `cargo bench --bench pure`. `tests/it/speed.rs` and `benches/speed` measure the duration of a flash.

use std::hint::black_box;
use std::time::Duration;

use cfdfu::app::update::update;
use cfdfu::app::{App, BusState, Msg, Which};
use cfdfu::flash::map::MemoryMap;
use cfdfu::image::Image;
use cfdfu::plan::admission::{self, Overrides};
use cfdfu::plan::{Comparison, Plan};
use cfdfu::sim::images;
use cfdfu::sim::scenario::CF2_BOARDS;
use cfdfu::ui;
use cfdfu::ui::theme::{Colours, Glyphs, Theme};
use criterion::{Criterion, criterion_group, criterion_main};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

/// The size of the firmware in Bitcraze's documentation, in bytes.
const FIRMWARE_LEN: usize = 243_176;

fn parse(criterion: &mut Criterion) {
    let bin = images::firmware("2026.08", &CF2_BOARDS, FIRMWARE_LEN);
    criterion.bench_function("parse and recognise a .bin", |bench| {
        bench.iter(|| Image::parse(black_box(bin.clone())));
    });
    let whole = {
        let mut whole = images::loader();
        whole.resize(0x4000, 0xFF);
        whole.extend(&bin);
        whole.resize(1024 * 1024, 0xFF);
        whole
    };
    criterion.bench_function("parse and recognise a backup of 1 MiB", |bench| {
        bench.iter(|| Image::parse(black_box(whole.clone())));
    });
    let hex = {
        let lines = bin.chunks(16).enumerate().flat_map(|(n, data)| {
            let address = 0x0800_4000 + u32::try_from(n).unwrap_or(0) * 16;
            let [a, b, c, d] = address.to_be_bytes();
            let base = ihex::Record::ExtendedLinearAddress(u16::from_be_bytes([a, b]));
            let offset = u16::from_be_bytes([c, d]);
            [base, ihex::Record::Data { offset, value: data.to_vec() }]
        });
        let records: Vec<_> = lines.chain([ihex::Record::EndOfFile]).collect();
        ihex::create_object_file_representation(&records).unwrap_or_default().into_bytes()
    };
    criterion.bench_function("parse and recognise Intel HEX", |bench| {
        bench.iter(|| Image::parse(black_box(hex.clone())));
    });
}

fn plan(criterion: &mut Criterion) {
    let Ok(image) = Image::parse(images::firmware("2026.08", &CF2_BOARDS, FIRMWARE_LEN)) else { return };
    let Ok(approved) = admission::flash(&image, Overrides::default()) else { return };
    let map = MemoryMap::stm32f405();
    criterion.bench_function("plan a flash and list its work", |bench| {
        bench.iter(|| {
            let plan = Plan::new(black_box(&approved), &map)?;
            let found = vec![Comparison::Differs; plan.sectors().len()];
            Ok::<_, cfdfu::plan::PlanError>(plan.work(&found, 2048))
        });
    });
}

fn draw(criterion: &mut Criterion) {
    let mut app = App::new(None);
    update(&mut app, Duration::ZERO, Msg::Bus(BusState::Devices(Vec::new())));
    if let Ok(image) = Image::parse(images::firmware("2026.08", &CF2_BOARDS, FIRMWARE_LEN)) {
        let loaded = Msg::Loaded(Which::Image, "cf2.bin".into(), Ok(Box::new(image)));
        update(&mut app, Duration::ZERO, loaded);
    }
    let theme = Theme::new(Glyphs::Unicode, Colours::Dark { auto: true });
    for (width, height) in [(80, 24), (200, 60)] {
        let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
        criterion.bench_function(&format!("draw a frame of {width}x{height}"), |bench| {
            bench.iter(|| terminal.draw(|frame| ui::draw(frame, black_box(&app), &theme)).map(drop));
        });
    }
}

criterion_group!(benches, parse, plan, draw);
criterion_main!(benches);
