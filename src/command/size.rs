//! Sizes as people write them.

use bytesize::ByteSize;

/// No size is greater: what is counted further must not overflow.
const GREATEST: ByteSize = ByteSize::pib(1);

/// Reads `64MiB`, `500KB`, `1.5GiB` or `4096`.
///
/// # Errors
/// What is wrong with it, for people.
pub fn parse(text: &str) -> Result<ByteSize, String> {
    match text.parse() {
        Ok(size) if size <= GREATEST => Ok(size),
        Ok(_) => Err(format!("write a size of at most {GREATEST}")),
        Err(_) => Err("write a size such as 64MiB, 500KB or a number of bytes".to_owned()),
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
            ("500KB", 500_000),
            ("64 mib", 64 << 20),
            ("1.5GiB", 3 << 29),
            ("1PiB", 1 << 50),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse(text), Ok(ByteSize(bytes)), "{text}");
        }
        for text in [
            "",
            "MiB",
            "-1",
            "1.2.3MB",
            "12 parsecs",
            "1e9",
            "99999999999TiB",
            "1025TiB",
            "18446744073709551616",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
