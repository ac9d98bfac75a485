//! Sizes as people write them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes: reads `64MiB`, `500KB`, `1.5GiB` or `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// What may follow the number, and how many bytes it stands for.
const UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("B", 1),
    ("KB", 1000),
    ("MB", 1000 * 1000),
    ("GB", 1000 * 1000 * 1000),
    ("TB", 1000 * 1000 * 1000 * 1000),
    ("KIB", 1 << 10),
    ("MIB", 1 << 20),
    ("GIB", 1 << 30),
    ("TIB", 1 << 40),
];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let no_size = || format!("{text:?} is not a size; write 64MiB, 500KB or a number of bytes");
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let unit = unit.trim().to_ascii_uppercase();
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(no_size)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: u64 = whole.parse().map_err(|_| no_size())?;
        let part = match fraction {
            "" => 0,
            digits if digits.len() <= 6 && digits.bytes().all(|digit| digit.is_ascii_digit()) => {
                let scale = 10u64.pow(u32::try_from(digits.len()).map_err(|_| no_size())?);
                u128::from(digits.parse::<u64>().map_err(|_| no_size())?) * u128::from(*factor)
                    / u128::from(scale)
            }
            _ => return Err(no_size()),
        };
        let bytes = u128::from(whole) * u128::from(*factor) + part;
        u64::try_from(bytes).map(Self).map_err(|_| format!("{text:?} is more bytes than can be counted"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        let text = match units.iter().find(|(_, unit)| self.0 >= *unit) {
            Some((name, unit)) if self.0.is_multiple_of(*unit) => format!("{} {name}", self.0 / unit),
            Some((name, unit)) => format!("{:.1} {name}", self.0 as f64 / *unit as f64),
            None => format!("{} bytes", self.0),
        };
        out.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let cases = [
            ("0", 0),
            ("4096", 4096),
            ("7B", 7),
            ("500KB", 500_000),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("1GiB", 1 << 30),
            ("1.5GiB", 3 << 29),
            ("2.25kb", 2250),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "MiB", "-1", "1.2.3MB", "12 parsecs", "1e9", "99999999999TiB", "1.1234567KB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_in_the_greatest_unit_that_fits() {
        for (bytes, text) in
            [(0, "0 bytes"), (1023, "1023 bytes"), (64 << 20, "64 MiB"), (1_500_000, "1.4 MiB")]
        {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
