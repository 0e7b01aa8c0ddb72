//! The containers of binary captures: pcap (libpcap's pcap-savefile) and pcapng (draft-ietf-opsawg-pcapng).
//!
//! If the capture program was killed, the last packet in the file may be incomplete. Such a file is read up to that
//! packet.

use super::{ByteOrder, CaptureEvent, CaptureSource, Pairing, usbmon, usbpcap};
use crate::recording::RecordingError;

const MICROSECONDS: u32 = 0xA1B2_C3D4;
const NANOSECONDS: u32 = 0xA1B2_3C4D;
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

/// Block types of pcapng. `SECTION` is the same in both byte orders.
const SECTION: u32 = 0x0A0D_0D0A;
const INTERFACE: u32 = 1;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1A2B_3C4D;
/// Sizes of the fields around the contents of a block: the type and the length before the contents, and the length
/// again after them.
const BLOCK_HEADER: usize = 8;
const BLOCK_END: usize = 4;
/// The code of the interface option if_tsresol, which contains the resolution of the timestamps.
const RESOLUTION: u16 = 9;

/// Link types: usbmon with a header of 48 or 64 bytes, and USBPcap (tcpdump.org/linktypes.html).
#[derive(Clone, Copy)]
enum LinkType {
    Usbmon { header: usize },
    UsbPcap,
}

impl LinkType {
    fn of(number: u16) -> Option<LinkType> {
        match number {
            189 => Some(LinkType::Usbmon { header: 48 }),
            220 => Some(LinkType::Usbmon { header: 64 }),
            249 => Some(LinkType::UsbPcap),
            _ => None,
        }
    }

    /// Parses a packet. `time` is `None` for simple packets of pcapng.
    fn parse(self, packet: &[u8], order: ByteOrder, time: Option<u64>) -> Option<CaptureEvent<'_>> {
        match self {
            LinkType::Usbmon { header } => usbmon::parse_packet(packet, header, order, time),
            LinkType::UsbPcap => usbpcap::parse_packet(packet, time.unwrap_or(0)),
        }
    }

    fn source(self) -> CaptureSource {
        match self {
            LinkType::Usbmon { .. } => CaptureSource { program: "pcap capture", system: "linux" },
            LinkType::UsbPcap => CaptureSource { program: "USBPcap capture", system: "windows" },
        }
    }
}

fn wrong_link(number: u16) -> RecordingError {
    RecordingError::Capture(format!(
        "it contains no USB transfers in a supported format (link type {number})"
    ))
}

/// Returns the byte order of a pcap file and its number of time units per microsecond.
fn pcap_kind(bytes: &[u8]) -> Option<(ByteOrder, u32)> {
    [ByteOrder::Little, ByteOrder::Big].into_iter().find_map(|order| match order.u32(bytes, 0) {
        Some(MICROSECONDS) => Some((order, 1)),
        Some(NANOSECONDS) => Some((order, 1000)),
        _ => None,
    })
}

pub(super) fn is_pcap(bytes: &[u8]) -> bool {
    pcap_kind(bytes).is_some()
}

/// Reports the events of a pcap file to `pairing`.
pub(super) fn read_pcap<'a>(
    bytes: &'a [u8],
    pairing: &mut Pairing<'a>,
) -> Result<CaptureSource, RecordingError> {
    let cut = || RecordingError::Capture("its header is incomplete".to_owned());
    let (order, per_microsecond) = pcap_kind(bytes).ok_or_else(cut)?;
    // The upper half of the word describes the frame check sequence of Ethernet.
    let number = order.u32(bytes, 20).ok_or_else(cut)? & 0xFFFF;
    let number = u16::try_from(number).unwrap_or(u16::MAX);
    let link = LinkType::of(number).ok_or_else(|| wrong_link(number))?;
    let mut rest = bytes.get(FILE_HEADER..).unwrap_or_default();
    let record = |rest: &'a [u8]| {
        let seconds = u64::from(order.u32(rest, 0)?).saturating_mul(1_000_000);
        let time = seconds.saturating_add(u64::from(order.u32(rest, 4)? / per_microsecond));
        let (packet, rest) = rest.get(RECORD_HEADER..)?.split_at_checked(order.size(rest, 8)?)?;
        Some((time, packet, rest))
    };
    while let Some((time, packet, after)) = record(rest) {
        if let Some(event) = link.parse(packet, order, Some(time)) {
            pairing.report(event);
        }
        rest = after;
    }
    Ok(link.source())
}

pub(super) fn is_pcapng(bytes: &[u8]) -> bool {
    ByteOrder::Little.u32(bytes, 0) == Some(SECTION)
}

/// An interface of a pcapng file.
struct CaptureInterface {
    /// The number of its link type.
    number: u16,
    /// The unit of its timestamps, as in if_tsresol.
    resolution: u8,
    /// The maximum length of a saved packet. 0 means no limit.
    limit: usize,
}

/// Reports the events of a pcapng file to `pairing`.
pub(super) fn read_pcapng<'a>(
    bytes: &'a [u8],
    pairing: &mut Pairing<'a>,
) -> Result<CaptureSource, RecordingError> {
    let damaged = |rest: &[u8]| {
        let offset = bytes.len().saturating_sub(rest.len());
        RecordingError::Capture(format!("the block at byte {offset} is damaged"))
    };
    let mut order = ByteOrder::Little;
    let mut interfaces: Vec<CaptureInterface> = Vec::new();
    let mut source = None;
    let mut rest = bytes;
    while let Some(kind) = order.u32(rest, 0) {
        if kind == SECTION {
            order = match ByteOrder::Little.u32(rest, BLOCK_HEADER) {
                Some(BYTE_ORDER_MAGIC) => ByteOrder::Little,
                Some(magic) if magic.swap_bytes() == BYTE_ORDER_MAGIC => ByteOrder::Big,
                Some(_) => return Err(damaged(rest)),
                None => break,
            };
            interfaces.clear();
        }
        let Some(length) = order.size(rest, 4) else { break };
        if length < BLOCK_HEADER + BLOCK_END || length % 4 != 0 {
            return Err(damaged(rest));
        }
        let Some((block, after)) = rest.split_at_checked(length) else { break };
        let contents = block.get(BLOCK_HEADER..length - BLOCK_END).unwrap_or_default();
        match kind {
            INTERFACE => {
                let interface = parse_interface(contents, order).ok_or_else(|| damaged(rest))?;
                source = source.or(LinkType::of(interface.number).map(LinkType::source));
                interfaces.push(interface);
            }
            ENHANCED_PACKET | SIMPLE_PACKET => {
                let (number, time, packet) =
                    parse_packet(kind, contents, order, &interfaces).ok_or_else(|| damaged(rest))?;
                if let Some(event) = LinkType::of(number).and_then(|link| link.parse(packet, order, time)) {
                    pairing.report(event);
                }
            }
            _ => {}
        }
        rest = after;
    }
    source.ok_or_else(|| wrong_link(interfaces.first().map_or(0, |it| it.number)))
}

fn parse_interface(contents: &[u8], order: ByteOrder) -> Option<CaptureInterface> {
    let (number, limit) = (order.u16(contents, 0)?, order.size(contents, 4)?);
    let mut interface = CaptureInterface { number, resolution: 6, limit };
    let mut options = contents.get(8..)?;
    while let (Some(code), Some(length)) = (order.u16(options, 0), order.u16(options, 2)) {
        let (value, padded) = (usize::from(length), usize::from(length).next_multiple_of(4));
        if (code, value) == (RESOLUTION, 1) {
            interface.resolution = *options.get(4)?;
        }
        // Code 0 ends the options.
        if code == 0 {
            break;
        }
        options = options.get(4 + padded..)?;
    }
    Some(interface)
}

/// Returns the link type, the time and the contents of a packet.
fn parse_packet<'a>(
    kind: u32,
    contents: &'a [u8],
    order: ByteOrder,
    interfaces: &[CaptureInterface],
) -> Option<(u16, Option<u64>, &'a [u8])> {
    if kind == SIMPLE_PACKET {
        let interface = interfaces.first()?;
        // The block is padded. The packet ends at its original length or at the limit, whichever is shorter.
        let limit = if interface.limit == 0 { usize::MAX } else { interface.limit };
        let packet = contents.get(4..)?;
        let length = order.size(contents, 0)?.min(limit).min(packet.len());
        return Some((interface.number, None, packet.get(..length)?));
    }
    let interface = interfaces.get(order.size(contents, 0)?)?;
    let time = u64::from(order.u32(contents, 4)?) << 32 | u64::from(order.u32(contents, 8)?);
    let packet = contents.get(20..)?.get(..order.size(contents, 12)?)?;
    Some((interface.number, Some(to_microseconds(time, interface.resolution)), packet))
}

/// Converts a timestamp to microseconds. Its unit is a negative power of 10, or of 2 if the highest bit of `resolution`
/// is set.
fn to_microseconds(time: u64, resolution: u8) -> u64 {
    let power = u32::from(resolution & 0x7F);
    let base: u128 = if resolution & 0x80 == 0 { 10 } else { 2 };
    // If the power overflows, the unit is too small for any clock, and the time becomes 0.
    let units = base.checked_pow(power).unwrap_or(u128::MAX);
    u64::try_from(u128::from(time) * 1_000_000 / units).unwrap_or(u64::MAX)
}
