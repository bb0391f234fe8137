//! HTTP/1.1 as a client writes and reads it (RFC 9112): from values to bytes and back.
//!
//! Never reads or writes a connection, and never decides what becomes of one.

mod body;
mod decode;
pub mod encode;
mod head;

pub use self::decode::{Decoder, Part};

/// Why what the upstream sent is no HTTP/1.1 answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("its head cannot be read: {0}")]
    Head(httparse::Error),
    #[error("its head is larger than {} KiB", head::MAX_BYTES / 1024)]
    HeadTooLarge,
    #[error("its head has more than {} fields", head::MAX_FIELDS)]
    TooManyFields,
    #[error("more than {} interim answers came before the final one", decode::MAX_INTERIM)]
    TooManyInterim,
    #[error("its Content-Length is no number, too large a number, or more than one")]
    Length,
    #[error("it has both Content-Length and Transfer-Encoding, so nobody can tell where it ends")]
    TwoFramings,
    #[error("it has a Transfer-Encoding other than `chunked`, so it does not tell where it ends")]
    Coding,
    #[error("a chunk of its body has no valid size")]
    ChunkSize,
    #[error("a chunk of its body does not end where its size says")]
    ChunkEnd,
    #[error("the chunk extensions in its body are larger than {} KiB", body::MAX_EXTENSIONS / 1024)]
    Extensions,
    #[error("its trailers cannot be read, or are larger than {} KiB", body::MAX_TRAILERS / 1024)]
    Trailers,
}

/// What the Content-Length fields of a message say together: several are one, if they agree
/// (RFC 9112, section 6.3).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Length {
    #[default]
    Absent,
    Of(u64),
    Invalid,
}

impl Length {
    fn note(&mut self, field: &[u8]) {
        for value in field.split(|&byte| byte == b',') {
            *self = match (*self, number(value.trim_ascii())) {
                (Length::Absent, Some(length)) => Length::Of(length),
                (Length::Of(known), Some(length)) if known == length => Length::Of(known),
                _ => Length::Invalid,
            };
        }
    }
}

/// Digits alone: no sign, and no number beyond 64 bits.
fn number(digits: &[u8]) -> Option<u64> {
    let add = |sum: u64, digit: &u8| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    };
    (!digits.is_empty()).then(|| digits.iter().try_fold(0, add)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_to_agree() {
        for (fields, length) in [
            (&[][..], Length::Absent),
            (&["5"], Length::Of(5)),
            (&["5", "5"], Length::Of(5)),
            (&["5, 5"], Length::Of(5)),
            (&["007"], Length::Of(7)),
            (&["18446744073709551615"], Length::Of(u64::MAX)),
            (&["18446744073709551616"], Length::Invalid),
            (&["5", "6"], Length::Invalid),
            (&["5, 6"], Length::Invalid),
            (&["5", "x", "5"], Length::Invalid),
            (&["+5"], Length::Invalid),
            (&["-5"], Length::Invalid),
            (&["0x5"], Length::Invalid),
            (&["5,"], Length::Invalid),
            (&[""], Length::Invalid),
        ] {
            let mut noted = Length::default();
            for field in fields {
                noted.note(field.as_bytes());
            }
            assert_eq!(noted, length, "{fields:?}");
        }
    }
}
