//! Files that users mistake for an image: a web page that was saved instead of the download, a text file, or an
//! archive. Each kind is refused with its own message. If such a file were parsed as a raw image, it would be refused
//! only as "not recognised", and users can override that refusal.

/// At least this many characters are searched for HTML tags. A character takes up to four bytes.
const BEGINNING: usize = 2048;

/// Formats of archives and compressed files, by their first bytes.
const ARCHIVES: [(&[u8], &str); 7] = [
    (b"\x1F\x8B", "gzip"),
    (b"\xFD7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x28\xB5\x2F\xFD", "zstd"),
    (b"7z\xBC\xAF\x27\x1C", "7z"),
    (b"Rar!\x1A\x07", "RAR"),
    (b"PK\x07\x08", "split zip"),
];

/// Returns the name of the format if `file` is an archive or a compressed file, or `None` for any other file, including
/// an ordinary zip archive, which is supported.
pub(super) fn archive_format(file: &[u8]) -> Option<&'static str> {
    let is_tar = file.get(257..262) == Some(b"ustar");
    let named = ARCHIVES.iter().find(|(magic, _)| file.starts_with(magic)).map(|(_, name)| *name);
    named.or(is_tar.then_some("tar"))
}

/// Returns whether `file` is an HTML page in UTF-8, UTF-16 or UTF-32, with or without a byte order mark, or in an 8-bit
/// encoding.
pub(super) fn is_web_page(file: &[u8]) -> bool {
    // HTML tags are ASCII, which all of these encodings store identically apart from zero bytes.
    let text: Vec<u8> = file
        .iter()
        .take(4 * BEGINNING)
        .copied()
        .filter(|&byte| byte != 0)
        .map(|byte| byte.to_ascii_lowercase())
        .collect();
    let marks: [&[u8]; 3] = [b"\xEF\xBB\xBF", b"\xFF\xFE", b"\xFE\xFF"];
    let text = marks.iter().find_map(|mark| text.strip_prefix(*mark)).unwrap_or(&text).trim_ascii_start();
    let markup = matches!(text, [b'<', b'!' | b'?' | b'a'..=b'z', ..]);
    let contains = |words: &[u8]| text.windows(words.len()).any(|window| window == words);
    markup && (contains(b"<!doctype html") || contains(b"<html") || contains(b"<head") || contains(b"<body"))
}

/// Returns whether `file` is text: UTF-8, or UTF-16 with a byte order mark. An image is never text, because it contains
/// zero bytes.
pub(super) fn is_text(file: &[u8]) -> bool {
    let is_printable = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r' | '\x0C');
    let units = |decode: fn([u8; 2]) -> u16| {
        let (pairs, rest) = file[2..].as_chunks::<2>();
        let text = char::decode_utf16(pairs.iter().map(|&pair| decode(pair)));
        rest.is_empty() && text.into_iter().all(|c| c.is_ok_and(is_printable))
    };
    match file {
        [0xFF, 0xFE, ..] => units(u16::from_le_bytes),
        [0xFE, 0xFF, ..] => units(u16::from_be_bytes),
        _ => std::str::from_utf8(file).is_ok_and(|text| text.chars().all(is_printable)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str =
        "\r\n  <!DOCTYPE html>\n<html lang=\"sv\"><body>Firmware för Crazyflie</body></html>\n";

    fn utf16(text: &str, encode: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(encode).collect()
    }

    #[test]
    fn a_web_page_is_recognised_in_every_encoding() {
        let latin1: Vec<u8> = PAGE.chars().map(|c| u8::try_from(c).unwrap()).collect();
        let utf32: Vec<u8> = PAGE.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        let (little, big) = (utf16(PAGE, u16::to_le_bytes), utf16(PAGE, u16::to_be_bytes));
        for (name, file) in [
            ("UTF-8", PAGE.as_bytes().to_vec()),
            ("UTF-8 with BOM", [b"\xEF\xBB\xBF", PAGE.as_bytes()].concat()),
            ("UTF-16 LE with BOM", [b"\xFF\xFE", &little[..]].concat()),
            ("UTF-16 BE with BOM", [b"\xFE\xFF", &big[..]].concat()),
            ("UTF-16 LE", little),
            ("UTF-16 BE", big),
            ("UTF-32 LE", utf32),
            ("Latin-1", latin1),
            ("without doctype", b"<HTML><HEAD>".to_vec()),
            ("XHTML", b"<?xml version='1.0'?><!DOCTYPE html PUBLIC".to_vec()),
            ("with a comment", b"<!-- saved --><html>".to_vec()),
        ] {
            assert!(is_web_page(&file), "{name}");
        }
        for other in [&b""[..], b"<", b"<svg>", b"A page: <html>", b"\xFF\xFF\x01\x20<html>"] {
            assert!(!is_web_page(other), "{other:?}");
        }
    }

    #[test]
    fn utf8_and_utf16_text_is_recognised_and_an_image_is_not_text() {
        let text = "Crazyflie för alla\r\n";
        assert!(is_text(text.as_bytes()));
        assert!(is_text(&[b"\xFF\xFE", &utf16(text, u16::to_le_bytes)[..]].concat()));
        assert!(is_text(&[b"\xFE\xFF", &utf16(text, u16::to_be_bytes)[..]].concat()));
        for other in [&b"\xFF\xFF\x01\x20"[..], b"\xFF\xFE\x00\x00", b"\xFF\xFEa", b"a\0", b"\x80", b"\x7F"] {
            assert!(!is_text(other), "{other:?}");
        }
    }

    #[test]
    fn archives_are_recognised_by_their_signatures() {
        assert_eq!(archive_format(b"\x1F\x8B\x08\0"), Some("gzip"));
        assert_eq!(archive_format(&[&[0; 257][..], b"ustar\0"].concat()), Some("tar"));
        assert_eq!(archive_format(b"PK\x03\x04"), None);
        assert_eq!(archive_format(b""), None);
    }
}
