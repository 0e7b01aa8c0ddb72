//! Tests the converters from captures to recordings. One table of transfers is written in every capture format, and
//! each file must convert to the same recording. Captures of the real dfu-util are in tests/recordings.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::ByteOrder::{Big, Little};
use super::*;
use crate::recording::HexBytes;

/// A transfer. If the transfer fails, the answer is the Linux URB status.
struct Step {
    address: u8,
    request: StepRequest,
    answer: Result<Vec<u8>, i32>,
}

enum StepRequest {
    Control([u8; 8], Vec<u8>),
    Bulk(u8, Vec<u8>),
}

const DFU: u8 = 5;
const RUNNING: u8 = 6;
const HUB: u8 = 1;
/// The time of the first transfer, the interval between transfers, and the duration of each, in microseconds.
const BEGAN: u64 = 3_575_914_555;
const INTERVAL: u64 = 1000;
const TOOK: u64 = 250;

/// Returns a device descriptor with ST's vendor ID and this product ID.
fn descriptor(product: u16) -> Vec<u8> {
    let [low, high] = product.to_le_bytes();
    vec![0x12, 0x01, 0x00, 0x01, 0, 0, 0, 0x40, 0x83, 0x04, low, high, 0x00, 0x22, 1, 2, 3, 1]
}

fn block() -> Vec<u8> {
    (0..2048_u16).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

fn control(address: u8, setup: [u8; 8], data: &[u8], answer: Result<Vec<u8>, i32>) -> Step {
    Step { address, request: StepRequest::Control(setup, data.to_vec()), answer }
}

fn steps() -> Vec<Step> {
    let get_descriptor = [0x80, 6, 0x00, 0x01, 0, 0, 18, 0];
    let done = || Ok(Vec::new());
    vec![
        control(HUB, [0xA3, 0, 0, 0, 1, 0, 4, 0], &[], Ok(vec![1, 1, 1, 0])),
        control(DFU, get_descriptor, &[], Ok(descriptor(0xDF11))),
        control(DFU, [0x01, 0x0B, 2, 0, 0, 0, 0, 0], &[], done()),
        control(DFU, [0xA1, 3, 0, 0, 0, 0, 6, 0], &[], Ok(vec![0, 0, 0, 0, 2, 0])),
        control(DFU, [0x21, 1, 0, 0, 0, 0, 5, 0], &[0x21, 0x00, 0x40, 0x00, 0x08], done()),
        control(DFU, [0x21, 1, 2, 0, 0, 0, 0, 8], &block(), done()),
        control(DFU, [0xA1, 2, 2, 0, 0, 0, 0, 8], &[], Ok(block())),
        control(DFU, [0x21, 1, 3, 0, 0, 0, 1, 0], &[0x92], Err(-32)),
        control(DFU, [0x21, 4, 0, 0, 0, 0, 0, 0], &[], done()),
        control(DFU, [0xA1, 3, 0, 0, 0, 0, 6, 0], &[], Err(-108)),
        control(RUNNING, get_descriptor, &[], Ok(descriptor(0x5740))),
        Step { address: RUNNING, request: StepRequest::Bulk(0x01, vec![0xFD, 0x01]), answer: done() },
        Step {
            address: RUNNING,
            request: StepRequest::Bulk(0x81, Vec::new()),
            answer: Ok(vec![0xFD, 0x01, 0x35]),
        },
        Step { address: RUNNING, request: StepRequest::Bulk(0x81, Vec::new()), answer: Err(-2) },
    ]
}

/// Returns the recording of `steps()`. For data longer than `limit`, the recording contains only the length.
fn expected(program: &str, system: &str, limit: usize) -> Vec<Line> {
    let moved = |data: &[u8]| {
        if data.len() > limit {
            TransferResult { bytes: Some(data.len()), ..TransferResult::default() }
        } else {
            TransferResult::of(data)
        }
    };
    let fault = |error| Some(ErrorName(error));
    let failed = |data: &[u8], error| TransferResult { error: fault(error), ..TransferResult::data(data) };
    let setup = |text: &str| SetupWords::try_from(text.to_owned()).unwrap();
    let dfu_in = |setup, length, result| Recorded::In { device: 0, setup, length, took: TOOK, result };
    let dfu_out = |setup, result| Recorded::Out { device: 0, setup, took: TOOK, result };
    let packet = |endpoint, result| Recorded::Packet { device: 1, endpoint, took: TOOK, result };
    let port = || Port("1-1".parse().unwrap());
    let plugged = |address, product| {
        let (vendor, product, release) = (Hex16(0x0483), Hex16(product), Hex16(0x2200));
        let device = Appearance { port: port(), address, vendor, product, release, names: None };
        Recorded::Devices { devices: vec![device] }
    };
    let open = |device, address| Recorded::Open { device, port: port(), address, error: None };
    let header = Header {
        recording: VERSION,
        program: program.to_owned(),
        system: system.to_owned(),
        scenario: None,
        redacted: false,
    };
    let lines = [
        (0, Recorded::Start(header)),
        (1, plugged(DFU, 0xDF11)),
        (1, open(0, DFU)),
        (1, dfu_in(setup("80 06 0100 0000"), 18, moved(&descriptor(0xDF11)))),
        (2, Recorded::Select { device: 0, interface: 0, alternate: 2, took: TOOK, error: None }),
        (3, dfu_in(setup("a1 03 0000 0000"), 6, moved(&[0, 0, 0, 0, 2, 0]))),
        (4, dfu_out(setup("21 01 0000 0000"), moved(&[0x21, 0x00, 0x40, 0x00, 0x08]))),
        (5, dfu_out(setup("21 01 0002 0000"), moved(&block()))),
        (6, dfu_in(setup("a1 02 0002 0000"), 2048, moved(&block()))),
        (7, dfu_out(setup("21 01 0003 0000"), failed(&[0x92], TransferError::Stall))),
        (8, dfu_out(setup("21 04 0000 0000"), moved(&[]))),
        (9, dfu_in(setup("a1 03 0000 0000"), 6, TransferResult::failed(TransferError::Disconnected))),
        (10, plugged(RUNNING, 0x5740)),
        (10, open(1, RUNNING)),
        (
            10,
            Recorded::In {
                device: 1,
                setup: setup("80 06 0100 0000"),
                length: 18,
                took: TOOK,
                result: moved(&descriptor(0x5740)),
            },
        ),
        (11, packet(0x01, moved(&[0xFD, 0x01]))),
        (12, packet(0x81, moved(&[0xFD, 0x01, 0x35]))),
        (13, packet(0x81, TransferResult::failed(TransferError::Timeout))),
    ];
    lines.into_iter().map(|(n, what)| Line { at: n * INTERVAL, what }).collect()
}

fn json_lines(lines: &[Line]) -> String {
    let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
    lines.join("\n") + "\n"
}

/// Returns the steps with the times at which they begin and end.
fn timed() -> impl Iterator<Item = (u64, u64, Step)> {
    steps().into_iter().zip(0..).map(|(step, n)| (BEGAN + n * INTERVAL, BEGAN + n * INTERVAL + TOOK, step))
}

fn is_input(request: &StepRequest) -> bool {
    match request {
        StepRequest::Control(setup, _) => setup[0] & 0x80 != 0,
        StepRequest::Bulk(endpoint, _) => endpoint & 0x80 != 0,
    }
}

/// Returns the data sent, the data received, the number of bytes requested and the number of bytes transferred.
fn traffic(step: &Step) -> (Vec<u8>, Vec<u8>, usize, usize) {
    let sent = match &step.request {
        StepRequest::Control(_, data) | StepRequest::Bulk(_, data) => data.clone(),
    };
    let received = step.answer.clone().unwrap_or_default();
    let requested = match &step.request {
        StepRequest::Control(setup, _) => usize::from(u16::from_le_bytes([setup[6], setup[7]])),
        StepRequest::Bulk(_, data) if data.is_empty() => 64,
        StepRequest::Bulk(_, data) => data.len(),
    };
    let moved = match (&step.answer, is_input(&step.request)) {
        (Err(_), _) => 0,
        (Ok(data), true) => data.len(),
        (Ok(_), false) => sent.len(),
    };
    (sent, received, requested, moved)
}

fn usbmon_text() -> String {
    let data = |data: &[u8], marker: char| {
        if data.is_empty() {
            return format!(" {marker}");
        }
        let mut text = " =".to_owned();
        for word in data[..data.len().min(32)].chunks(4) {
            text.push(' ');
            text.push_str(&String::from(HexBytes(word.to_vec())));
        }
        text
    };
    let mut text = String::new();
    for (sent_at, ended_at, step) in timed() {
        let (sent, received, requested, moved) = traffic(&step);
        let input = is_input(&step.request);
        let (kind, fields, endpoint) = match &step.request {
            StepRequest::Control(setup, _) => {
                let word = |at: usize| u16::from_le_bytes([setup[at], setup[at + 1]]);
                let fields = format!(
                    "s {:02x} {:02x} {:04x} {:04x} {:04x}",
                    setup[0],
                    setup[1],
                    word(2),
                    word(4),
                    word(6)
                );
                ('C', fields, 0)
            }
            StepRequest::Bulk(endpoint, _) => ('B', "-115".to_owned(), endpoint & 0x7F),
        };
        let address = format!("{kind}{}:1:{:03}:{endpoint}", if input { 'i' } else { 'o' }, step.address);
        let tag = "ffff8801d5ea89a0";
        let _ = write!(text, "{tag} {sent_at} S {address} {fields} {requested}");
        text += &if requested == 0 { String::new() } else { data(&sent, if input { '<' } else { '>' }) };
        let status = step.answer.as_ref().err().copied().unwrap_or(0);
        let _ = write!(text, "\n{tag} {ended_at} C {address} {status} {moved}");
        text += &if moved == 0 { String::new() } else { data(&received, '>') };
        text.push('\n');
    }
    text
}

fn word16(order: ByteOrder, value: u16) -> [u8; 2] {
    if matches!(order, Big) { value.to_be_bytes() } else { value.to_le_bytes() }
}

fn word32(order: ByteOrder, value: u32) -> [u8; 4] {
    if matches!(order, Big) { value.to_be_bytes() } else { value.to_le_bytes() }
}

fn word64(order: ByteOrder, value: u64) -> [u8; 8] {
    if matches!(order, Big) { value.to_be_bytes() } else { value.to_le_bytes() }
}

fn size32(order: ByteOrder, size: usize) -> [u8; 4] {
    word32(order, u32::try_from(size).unwrap())
}

type Packets = Vec<(u64, Vec<u8>)>;

/// Returns packets as usbmon writes them, with headers of this length.
fn usbmon_packets(order: ByteOrder, header: usize) -> Packets {
    let packet = |phase: u8, at: u64, step: &Step, length: usize, data: &[u8]| {
        let (kind, endpoint, setup) = match &step.request {
            StepRequest::Control(setup, _) => (2, setup[0] & 0x80, Some(*setup).filter(|_| phase == b'S')),
            StepRequest::Bulk(endpoint, _) => (3, *endpoint, None),
        };
        let status = if phase == b'S' { -115 } else { step.answer.as_ref().err().copied().unwrap_or(0) };
        let micros = u32::try_from(at % 1_000_000).unwrap();
        let mut packet = [
            &word64(order, 0xFFFF_8801_D5EA_89A0)[..],
            &[phase, kind, endpoint, step.address],
            &word16(order, 1),
            &[if setup.is_some() { 0 } else { b'-' }, if data.is_empty() { b'<' } else { 0 }],
            &word64(order, at / 1_000_000),
            &word32(order, micros),
            &word32(order, u32::from_ne_bytes(i32::to_ne_bytes(status))),
            &size32(order, length),
            &size32(order, data.len()),
            &setup.unwrap_or_default(),
        ]
        .concat();
        packet.resize(header, 0);
        packet.extend(data);
        (at, packet)
    };
    let both = |(sent_at, ended_at, step): (u64, u64, Step)| {
        let (sent, received, requested, moved) = traffic(&step);
        [packet(b'S', sent_at, &step, requested, &sent), packet(b'C', ended_at, &step, moved, &received)]
    };
    timed().flat_map(both).collect()
}

/// Returns packets as USBPcap writes them. USBPcap before version 1.5 writes the data of control transfers to separate
/// packets.
fn usbpcap_packets(separate_data: bool) -> Packets {
    let order = Little;
    let packet = |step: &Step, is_answer: bool, stage: Option<u8>, data: &[u8]| {
        let status: u32 = match step.answer {
            Err(-32) => 0xC000_0004,
            Err(-108) => 0xC000_7000,
            Err(-2) => 0xC001_0000,
            _ => 0,
        };
        let (kind, endpoint) = match &step.request {
            StepRequest::Control(setup, _) => (2, setup[0] & 0x80),
            StepRequest::Bulk(endpoint, _) => (3, *endpoint),
        };
        [
            &word16(order, 27 + u16::from(stage.is_some()))[..],
            &word64(order, 0xFFFF_C189_7B38_B010),
            &word32(order, if is_answer { status } else { 0 }),
            &word16(order, if stage.is_some() { 0x0008 } else { 0x0009 }),
            &[u8::from(is_answer)],
            &word16(order, 1),
            &word16(order, step.address.into()),
            &[endpoint, kind],
            &size32(order, data.len()),
            stage.as_slice(),
            data,
        ]
        .concat()
    };
    let mut packets = Vec::new();
    for (sent_at, ended_at, step) in timed() {
        let (sent, received, ..) = traffic(&step);
        match &step.request {
            StepRequest::Bulk(..) => {
                packets.push((sent_at, packet(&step, false, None, &sent)));
                packets.push((ended_at, packet(&step, true, None, &received)));
            }
            StepRequest::Control(setup, _) if separate_data => {
                packets.push((sent_at, packet(&step, false, Some(0), setup)));
                if !sent.is_empty() {
                    packets.push((sent_at, packet(&step, false, Some(1), &sent)));
                }
                if !received.is_empty() {
                    packets.push((ended_at, packet(&step, true, Some(1), &received)));
                }
                packets.push((ended_at, packet(&step, true, Some(2), &[])));
            }
            StepRequest::Control(setup, _) => {
                packets.push((sent_at, packet(&step, false, Some(0), &[setup, &sent[..]].concat())));
                packets.push((ended_at, packet(&step, true, Some(3), &received)));
            }
        }
    }
    packets
}

fn pcap(order: ByteOrder, per_second: u64, link: u32, packets: &Packets) -> Vec<u8> {
    let magic = if per_second == 1_000_000 { 0xA1B2_C3D4 } else { 0xA1B2_3C4D };
    let mut file = [
        &word32(order, magic)[..],
        &word16(order, 2),
        &word16(order, 4),
        &[0; 8],
        &word32(order, 0x0004_0000),
        &word32(order, link),
    ]
    .concat();
    for (at, packet) in packets {
        let fraction = at % 1_000_000 * (per_second / 1_000_000);
        file.extend(word32(order, u32::try_from(at / 1_000_000).unwrap()));
        file.extend(word32(order, u32::try_from(fraction).unwrap()));
        file.extend([size32(order, packet.len()), size32(order, packet.len())].concat());
        file.extend(packet);
    }
    file
}

fn pcapng_block(order: ByteOrder, kind: u32, contents: &[u8]) -> Vec<u8> {
    let mut contents = contents.to_vec();
    contents.resize(contents.len().next_multiple_of(4), 0);
    let length = size32(order, contents.len() + 12);
    [&word32(order, kind)[..], &length, &contents, &length].concat()
}

fn pcapng(order: ByteOrder, link: u16, options: &[u8], blocks: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let section =
        [&word32(order, 0x1A2B_3C4D)[..], &word16(order, 1), &word16(order, 0), &[0xFF; 8]].concat();
    let interface = [&word16(order, link)[..], &[0, 0], &word32(order, 0), options].concat();
    let mut file = pcapng_block(order, 0x0A0D_0D0A, &section);
    file.extend(pcapng_block(order, 1, &interface));
    // An interface statistics block, which contains no packets.
    file.extend(pcapng_block(order, 5, &[0; 12]));
    blocks.for_each(|block| file.extend(block));
    file
}

/// Returns a pcapng file whose timestamps have this resolution.
fn enhanced(order: ByteOrder, link: u16, resolution: Option<u8>, packets: &Packets) -> Vec<u8> {
    let mut options = Vec::new();
    if let Some(resolution) = resolution {
        options.extend([word16(order, 9), word16(order, 1), [resolution, 0], [0; 2]].concat());
    }
    options.extend([0; 4]);
    let blocks = packets.iter().map(|(at, packet)| {
        let time = match resolution.unwrap_or(6) {
            9 => at * 1000,
            // The unit is 2^-20 s, rounded up.
            0x94 => (at << 20).div_ceil(1_000_000),
            _ => *at,
        };
        let [high, low] =
            [time >> 32, time & 0xFFFF_FFFF].map(|half| word32(order, u32::try_from(half).unwrap()));
        let length = size32(order, packet.len());
        let contents = [&word32(order, 0)[..], &high, &low, &length, &length, packet].concat();
        pcapng_block(order, 6, &contents)
    });
    pcapng(order, link, &options, blocks)
}

/// Returns a pcapng file of packets without timestamps.
fn simple(order: ByteOrder, link: u16, packets: &Packets) -> Vec<u8> {
    let block = |(_, packet): &(u64, Vec<u8>)| {
        pcapng_block(order, 3, &[&size32(order, packet.len())[..], packet].concat())
    };
    pcapng(order, link, &[], packets.iter().map(block))
}

#[test]
fn usbmon_text_is_converted() {
    assert_eq!(parse(usbmon_text().as_bytes()).unwrap(), expected("usbmon capture", "linux", 32));
}

#[test]
fn usbmon_text_as_the_kernel_writes_it_is_converted() {
    let text = "\
ff1100007fefb000 4095999900 S Ci:1:002:0 s 80 06 0100 0000 0012 18 <
ff1100007fefb000 4095999950 C Ci:1:002:0 0 18 = 12010001 00000040 830411df 00220102 0301
ff1100007ff2ec00 4095999960 S Ii:1:001:1 -115:2048 4 <
ff1100000647bd80 4095999990 S Co:1:002:0 s 21 01 0000 0000 0005 5 = 21004000 08
ff1100000647bd80 40 C Co:1:002:0 0 5 >
ff1100000647bd80 100 S Ci:1:002:0 s a1 03 0000 0000 0006 6 <
ff1100000647bd80 180 E Ci:1:002:0 -19 0
ff1100000647bd80 200 S Ci:1:002:0 s a1 03 0000";
    let lines = parse(text.as_bytes()).unwrap();
    let lines: Vec<String> = lines[3..].iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            r#"{"at":0,"event":"in","device":0,"setup":"80 06 0100 0000","length":18,"took":50,"data":"1201000100000040830411df002201020301"}"#
                .to_owned(),
            r#"{"at":90,"event":"out","device":0,"setup":"21 01 0000 0000","took":50,"data":"2100400008"}"#.to_owned(),
            r#"{"at":200,"event":"in","device":0,"setup":"a1 03 0000 0000","length":6,"took":80,"error":"disconnected"}"#
                .to_owned(),
        ]
    );
}

#[test]
fn pcap_files_of_usbmon_are_converted() {
    for order in [Little, Big] {
        for (link, header) in [(189, 48), (220, 64)] {
            for per_second in [1_000_000, 1_000_000_000] {
                let file = pcap(order, per_second, link, &usbmon_packets(order, header));
                assert_eq!(parse(&file).unwrap(), expected("pcap capture", "linux", usize::MAX), "{link}");
            }
        }
    }
}

#[test]
fn pcapng_files_of_usbmon_are_converted() {
    for order in [Little, Big] {
        let packets = usbmon_packets(order, 64);
        for resolution in [None, Some(6), Some(9), Some(0x94)] {
            let file = enhanced(order, 220, resolution, &packets);
            assert_eq!(
                parse(&file).unwrap(),
                expected("pcap capture", "linux", usize::MAX),
                "{resolution:?}"
            );
        }
        let file = simple(order, 220, &packets);
        assert_eq!(parse(&file).unwrap(), expected("pcap capture", "linux", usize::MAX));
    }
}

#[test]
fn usbpcap_files_are_converted() {
    for separate_data in [false, true] {
        let packets = usbpcap_packets(separate_data);
        let recording = expected("USBPcap capture", "windows", usize::MAX);
        assert_eq!(parse(&pcap(Little, 1_000_000, 249, &packets)).unwrap(), recording);
        assert_eq!(parse(&enhanced(Big, 249, Some(9), &packets)).unwrap(), recording);
    }
}

#[test]
fn a_usbpcap_packet_is_parsed_only_if_it_is_complete() {
    // DFU_GETSTATUS in the layout of the specification.
    let request = [
        0x1C, 0x00, 0x10, 0xB0, 0x38, 0x7B, 0x89, 0xC1, 0xFF, 0xFF, 0x00, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00,
        0x02, 0x00, 0x07, 0x00, 0x80, 0x02, 0x08, 0x00, 0x00, 0x00, 0x00, 0xA1, 0x03, 0x00, 0x00, 0x00, 0x00,
        0x06, 0x00,
    ];
    let event = usbpcap::parse_packet(&request, 1).unwrap();
    assert_eq!((event.bus, event.device, event.endpoint, event.tag), (2, 7, 0x80, &request[2..10]));
    let setup = Setup { request_type: 0xA1, request: 3, value: 0, index: 0 };
    assert!(matches!(event.phase, CapturePhase::Control(it, 6) if it == setup));
    for length in 0..request.len() {
        assert!(usbpcap::parse_packet(&request[..length], 1).is_none());
    }
}

#[test]
fn a_truncated_file_is_converted_up_to_its_last_complete_packet() {
    let whole = expected("pcap capture", "linux", usize::MAX);
    let packets = usbmon_packets(Little, 64);
    for file in [pcap(Little, 1_000_000, 220, &packets), enhanced(Little, 220, None, &packets)] {
        let lines = parse(&file[..file.len() - 10]).unwrap();
        assert_eq!(lines, whole[..whole.len() - 1]);
    }
}

#[test]
fn a_device_without_a_descriptor_is_recognised_by_its_requests() {
    let text = "\
a 10 S Ci:2:009:0 s a1 03 0000 0000 0006 6 <
a 20 C Ci:2:009:0 0 6 = 00000000 0200
b 30 S Ci:2:010:0 s a1 03 0000 0000 0001 1 <
b 40 C Ci:2:010:0 0 1 = 01
";
    let lines: Vec<String> = parse(text.as_bytes()).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(lines.len(), 4);
    assert!(lines[1].contains(
        r#""devices":[{"port":"2-1","address":9,"vendor":"0483","product":"df11","release":"2200"}]"#
    ));
    let keyboard = text.lines().skip(2).collect::<Vec<_>>().join("\n");
    let error = parse(keyboard.as_bytes()).unwrap_err().to_string();
    assert_eq!(error, "it contains no Crazyflie and no device in DFU mode");
}

#[test]
fn devices_that_are_used_at_the_same_time_have_different_ports() {
    let status = |device: u8, at: u64| {
        format!(
            "a {at} S Ci:1:{device:03}:0 s a1 03 0000 0000 0006 6 <\na {at} C Ci:1:{device:03}:0 0 6 = 00000000 0200\n"
        )
    };
    let text = [status(5, 10), status(6, 20), status(5, 30), status(6, 40), status(7, 50)].concat();
    let ports: Vec<Vec<(String, u8)>> = parse(text.as_bytes())
        .unwrap()
        .into_iter()
        .filter_map(|line| match line.what {
            Recorded::Devices { devices } => {
                Some(devices.into_iter().map(|it| (it.port.0.to_string(), it.address)).collect())
            }
            _ => None,
        })
        .collect();
    let at = |port: &str, address| (port.to_owned(), address);
    assert_eq!(
        ports,
        [vec![at("1-1", 5)], vec![at("1-1", 5), at("1-2", 6)], vec![at("1-1", 7), at("1-2", 6)]]
    );
}

#[test]
fn a_capture_of_too_many_devices_is_refused() {
    let devices = |count: usize| {
        let numbers = (0..=9_u8).flat_map(|bus| (1..=127_u8).map(move |device| (bus, device)));
        let mut text = String::new();
        for (bus, device) in numbers.take(count) {
            let address = format!("Ci:{bus}:{device:03}:0");
            let _ = writeln!(text, "a 1 S {address} s a1 03 0000 0000 0006 6 <");
            let _ = writeln!(text, "a 2 C {address} 0 6 = 00000000 0200");
        }
        parse(text.as_bytes())
    };
    assert_eq!(devices(500).unwrap().len(), 1 + 500 * 3);
    assert_eq!(devices(501).unwrap_err().to_string(), "it contains too many devices");
}

#[test]
fn a_different_descriptor_at_the_same_address_means_a_different_device() {
    let descriptor = |at: u64, product: &str| {
        format!(
            "a {at} S Ci:1:005:0 s 80 06 0100 0000 0012 18 <\n\
             a {at} C Ci:1:005:0 0 18 = 12010001 00000040 8304{product} 00220102 0301\n"
        )
    };
    let lines = parse([descriptor(10, "4057"), descriptor(20, "11df")].concat().as_bytes()).unwrap();
    let opened = lines.iter().filter(|line| matches!(line.what, Recorded::Open { address: 5, .. })).count();
    assert_eq!(opened, 2);
}

#[test]
fn files_that_are_not_usable_captures_are_refused_with_a_reason() {
    let refused = |bytes: &[u8], reason: &str| {
        assert_eq!(parse(bytes).unwrap_err().to_string(), reason);
    };
    let unknown = "it is not a recording, usbmon text, or a pcap or pcapng file of USB transfers";
    refused(b"", "it is empty");
    refused(b"\n \n", "it is empty");
    refused(b"T: Bus=03 Lev=01 Prnt=01", unknown);
    refused(b"\xFF\xFE\x00", unknown);
    refused(
        b"d5ea89a0 3575914555 S Ci:001:0 s a3 00 0000 0003 0004 4 <\n",
        "line 1: not an address in the 1u format of usbmon",
    );
    refused(
        b"d5ea89a0 3575914555 S Ci:1:001:0 s a3 00 0000\n",
        "line 1: the line of usbmon text is incomplete",
    );
    refused(
        &pcap(Little, 1_000_000, 1, &Vec::new()),
        "it contains no USB transfers in a supported format (link type 1)",
    );
    refused(
        &enhanced(Little, 1, None, &Vec::new()),
        "it contains no USB transfers in a supported format (link type 1)",
    );
    refused(
        &[&enhanced(Little, 220, None, &Vec::new())[..], &[6, 0, 0, 0, 5, 0, 0, 0]].concat(),
        "the block at byte 76 is damaged",
    );
    refused(&pcap(Little, 1_000_000, 220, &Vec::new()), "it contains no Crazyflie and no device in DFU mode");
    let size = usize::try_from(SIZE_MAX).unwrap() + 1;
    refused(&vec![b' '; size], "it is larger than 64 MiB");
}

#[test]
fn a_recording_is_parsed_without_conversion() {
    let lines = expected("cfdfu", "linux", usize::MAX);
    let text = json_lines(&lines);
    assert_eq!(parse(text.as_bytes()).unwrap(), lines);
}

/// Returns a valid file in each format.
fn seeds() -> Vec<Vec<u8>> {
    vec![
        usbmon_text().into_bytes(),
        pcap(Little, 1_000_000, 189, &usbmon_packets(Little, 48)),
        pcap(Big, 1_000_000_000, 220, &usbmon_packets(Big, 64)),
        enhanced(Big, 220, Some(0x94), &usbmon_packets(Big, 64)),
        simple(Little, 220, &usbmon_packets(Little, 64)),
        enhanced(Little, 249, Some(9), &usbpcap_packets(false)),
        pcap(Little, 1_000_000, 249, &usbpcap_packets(true)),
    ]
}

/// Checks that a capture is either refused or converted to a valid recording.
fn check_result(result: Result<Vec<Line>, RecordingError>) {
    if let Ok(lines) = result {
        let text = json_lines(&lines);
        assert_eq!(parse_recording(&text).unwrap(), lines);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_capture_is_refused_or_converted(
        seed in 0..7_usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
        is_in_headers: bool,
    ) {
        let mut file = seeds()[seed].clone();
        for (at, byte) in changes {
            // Damage in the headers at the beginning has the most effect.
            let end = if is_in_headers { 300 } else { file.len() };
            file[at.index(end)] = byte;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        check_result(parse(&file));
    }

    #[test]
    fn random_bytes_are_refused_or_converted(bytes in prop::collection::vec(any::<u8>(), 0..3000), magic in 0..5_usize) {
        let magics = [
            Vec::new(),
            pcap(Little, 1_000_000, 220, &Vec::new()),
            pcap(Big, 1_000_000, 249, &Vec::new()),
            enhanced(Little, 220, None, &Vec::new()),
            b"a 1 S Ci:1:005:0 s a1 03 0000 0000 0006 6 <\na 2 C Ci:1:005:0 0 6 = ".to_vec(),
        ];
        check_result(parse(&[&magics[magic][..], &bytes].concat()));
    }

    #[test]
    fn random_lines_of_usbmon_text_are_refused_or_converted(
        lines in prop::collection::vec("[ab] [0-9]{1,12} [SCE] [CBIZX][io]:[0-9]{1,3}:00[0-9]:[0-9] (s|-|-32|0:8|0) ([0-9a-f]{2,4} ){0,5}[0-9]{0,5} ?[=<>]?( [0-9a-f]{1,8}){0,9}", 0..20),
    ) {
        check_result(parse(lines.join("\n").as_bytes()));
    }
}
