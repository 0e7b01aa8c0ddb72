//! The SHA-256 of a file, for comparison with the published digest.

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sha256([u8; 32]);

impl Sha256 {
    pub fn of(bytes: &[u8]) -> Sha256 {
        Sha256(sha2::Sha256::digest(bytes).into())
    }

    /// Formats the first 8 bytes, which are enough to compare two digests by eye, as in `d9298a10d1b07358…`.
    pub fn in_short(&self) -> String {
        format!("{:.16}…", self.to_string())
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Sha256 {
    type Err = &'static str;

    /// Parses 64 hexadecimal digits in either case, optionally preceded by `sha256:` as on GitHub's release pages.
    fn from_str(text: &str) -> Result<Sha256, Self::Err> {
        const WRONG: &str = "a SHA-256 has 64 hexadecimal digits";
        let digits = text.trim();
        let digits = digits.strip_prefix("sha256:").unwrap_or(digits).as_bytes();
        let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() {
            return Err(WRONG);
        }
        for (byte, &[high, low]) in bytes.iter_mut().zip(digits.as_chunks().0) {
            *byte = value(high).ok_or(WRONG)? << 4 | value(low).ok_or(WRONG)?;
        }
        Ok(Sha256(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_digest_parses_to_itself() {
        // An example from FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Sha256::of(b"abc").to_string(), abc);
        for text in [abc.to_owned(), abc.to_uppercase(), format!("sha256:{abc}"), format!(" {abc}\n")] {
            assert_eq!(text.parse(), Ok(Sha256::of(b"abc")), "{text}");
        }
        for text in ["", "ba78", &abc[1..], &format!("{abc}0"), &abc.replace('f', "g"), &"é".repeat(32)] {
            assert!(text.parse::<Sha256>().is_err(), "{text}");
        }
    }
}
