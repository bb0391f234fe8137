//! How tokens are spelled: in clear, or sealed with a key that all pods share. Pure.
//!
//! Never shows a key, and never opens what was not sealed with one of its own.
//!
//! The cipher is ChaCha20-Poly1305, which TLS brings anyway, and which is as fast and as safe where
//! the processor knows no AES. Its nonce comes from what is sealed, by HMAC: so sealing is pure,
//! and needs no source of randomness that may fail. Two tokens share a nonce where they are the
//! same token; or by chance, which among 2^32 tokens of one key is rarer than 1 in 2^32, as it is
//! for nonces that are drawn.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf, hmac,
};

/// Of a key, in bytes.
const KEY: usize = 32;
/// Most lines: one goes, the other comes.
const LINES: usize = 2;
/// The line that stands for no key.
const UNSEALED: &str = "unsealed";

/// How tokens are written, and how they may be spelled to be read.
pub struct Keys {
    first: Spelling,
    second: Option<Spelling>,
}

enum Spelling {
    Unsealed,
    Sealed(Box<Key>),
}

impl Default for Keys {
    /// No key: tokens are written and read in clear.
    fn default() -> Self {
        Self { first: Spelling::Unsealed, second: None }
    }
}

impl Keys {
    /// From the text of their file: in one line or two, the base64 of 32 bytes, or the word
    /// `unsealed`. Tokens are written as the first line says, and read as each of them says.
    ///
    /// # Errors
    /// What is wrong, without a word of what stands there.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
        let mut found = Vec::new();
        for (at, line) in lines {
            found.push(spelling(line).map_err(|what| format!("line {} is {what}", at + 1))?);
        }
        if found.len() > LINES {
            return Err(format!("it has {} lines, and {LINES} is the most", found.len()));
        }
        let mut found = found.into_iter();
        let first = found.next().ok_or("it is empty")?;
        Ok(Self { first, second: found.next() })
    }

    /// What tokens are sealed with; `None`: they are written in clear.
    pub(super) fn seals(&self) -> Option<&Key> {
        match &self.first {
            Spelling::Unsealed => None,
            Spelling::Sealed(key) => Some(key),
        }
    }

    /// Whether a token in clear is one of ours.
    pub(super) fn reads_unsealed(&self) -> bool {
        self.all().any(|spelling| matches!(spelling, Spelling::Unsealed))
    }

    /// What was sealed with one of the keys, under the same prefix.
    pub(super) fn open(&self, prefix: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        self.all().find_map(|spelling| match spelling {
            Spelling::Unsealed => None,
            Spelling::Sealed(key) => key.open(prefix, sealed),
        })
    }

    fn all(&self) -> impl Iterator<Item = &Spelling> {
        [&self.first].into_iter().chain(&self.second)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Keys")
    }
}

/// What one line of the file says; else what is wrong with it.
fn spelling(line: &str) -> Result<Spelling, String> {
    if line == UNSEALED {
        return Ok(Spelling::Unsealed);
    }
    let bytes = STANDARD.decode(line).map_err(|_| format!("neither base64 nor `{UNSEALED}`"))?;
    let key = <&[u8; KEY]>::try_from(&*bytes).map_err(|_| {
        format!("neither the base64 of {KEY} bytes (but of {}) nor `{UNSEALED}`", bytes.len())
    })?;
    Ok(Spelling::Sealed(Box::new(Key::new(key))))
}

/// One key: the two that are made of it, so that neither says anything of the other.
pub(super) struct Key {
    cipher: LessSafeKey,
    nonces: hmac::Key,
}

impl Key {
    fn new(key: &[u8; KEY]) -> Self {
        let made = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(key);
        let short = "HKDF makes far longer keys";
        let cipher = made.expand(&[b"ebbtide session token cipher"], &CHACHA20_POLY1305);
        let nonces = made.expand(&[b"ebbtide session token nonce"], hmac::HMAC_SHA256);
        Self {
            cipher: LessSafeKey::new(UnboundKey::from(cipher.expect(short))),
            nonces: hmac::Key::from(nonces.expect(short)),
        }
    }

    /// The nonce, the contents encrypted, and the cipher's tag, which holds for the prefix, too.
    pub(super) fn seal(&self, prefix: &str, contents: &[u8]) -> Vec<u8> {
        let nonce = self.nonce(prefix, contents);
        let mut sealed = [&nonce, contents].concat();
        let (nonce, prefix) = (Nonce::assume_unique_for_key(nonce), Aad::from(prefix));
        let encrypted = &mut sealed[NONCE_LEN..];
        let tag = self.cipher.seal_in_place_separate_tag(nonce, prefix, encrypted);
        sealed.extend(tag.expect("the cipher takes 256 GiB").as_ref());
        sealed
    }

    fn nonce(&self, prefix: &str, contents: &[u8]) -> [u8; NONCE_LEN] {
        let mut code = hmac::Context::with_key(&self.nonces);
        code.update(prefix.as_bytes());
        code.update(contents);
        let code = code.sign();
        std::array::from_fn(|at| code.as_ref()[at])
    }

    fn open(&self, prefix: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let mut opened = sealed.to_vec();
        let length = self.cipher.open_in_place(nonce, Aad::from(prefix), &mut opened).ok()?.len();
        opened.truncate(length);
        Some(opened)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(byte: u8) -> String {
        STANDARD.encode([byte; KEY])
    }

    #[test]
    fn a_file_has_one_line_or_two() {
        let (one, other) = (line(1), line(2));
        for (text, seals, clear) in [
            (one.clone(), true, false),
            (format!("{one}\n"), true, false),
            (format!("\r\n {one} \r\n\r\n{other}\r\n"), true, false),
            (format!("{one}\n{other}"), true, false),
            (format!("{one}\nunsealed\n"), true, true),
            (format!("unsealed\n{one}\n"), false, true),
            ("unsealed".to_owned(), false, true),
        ] {
            let keys = Keys::parse(&text).unwrap();
            assert_eq!((keys.seals().is_some(), keys.reads_unsealed()), (seals, clear), "{text}");
        }
        assert!(Keys::default().seals().is_none() && Keys::default().reads_unsealed());
    }

    #[test]
    fn what_is_wrong_is_said_without_the_key() {
        let key = line(7);
        for (text, parts) in [
            (String::new(), &["empty"][..]),
            (" \n\n".to_owned(), &["empty"]),
            (format!("{key}\n{key}\n{key}"), &["3 lines", "2 is the most"]),
            (key[1..].to_owned(), &["line 1", "neither base64 nor `unsealed`"]),
            (format!("{key}\n\nUnsealed"), &["line 3", "neither"]),
            (format!("{key} {key}"), &["line 1", "neither"]),
            (key.trim_end_matches('=').to_owned(), &["line 1", "neither"]),
            (format!("{key}\n{}", STANDARD.encode([7; 16])), &["line 2", "32 bytes (but of 16)"]),
            // As `openssl rand -hex 32` would write it: base64 by chance.
            ("07".repeat(32), &["line 1", "32 bytes (but of 48)"]),
        ] {
            let problem = Keys::parse(&text).unwrap_err();
            assert!(parts.iter().all(|part| problem.contains(part)), "{text:?}: {problem}");
            assert!(!problem.contains("Bwc") && !problem.contains("0707"), "{problem}");
        }
        let keys = format!("{:?}", Keys::parse(&key).unwrap());
        assert_eq!(keys, "Keys");
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_with_its_key_and_no_other(
            contents in prop::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            change in 1u8..,
        ) {
            let keys = |text: &str| Keys::parse(text).unwrap();
            let writer = keys(&line(1));
            let sealed = writer.seals().unwrap().seal("p", &contents);
            for readers in [line(1), format!("{}\n{}", line(2), line(1)), format!("unsealed\n{}", line(1))] {
                prop_assert_eq!(keys(&readers).open("p", &sealed), Some(contents.clone()));
                prop_assert_eq!(keys(&readers).open("q", &sealed), None);
            }
            for strangers in [line(2), format!("{}\n{}", line(2), line(3)), "unsealed".to_owned()] {
                prop_assert_eq!(keys(&strangers).open("p", &sealed), None);
            }
            let at = at.index(sealed.len());
            prop_assert_eq!(writer.open("p", &sealed[..at]), None);
            let mut changed = sealed.clone();
            changed[at] ^= change;
            prop_assert_eq!(writer.open("p", &changed), None);
            // The nonce is not the same where the contents are not.
            let mut other = contents.clone();
            other.push(change);
            let other = writer.seals().unwrap().seal("p", &other);
            prop_assert_ne!(&other[..NONCE_LEN], &sealed[..NONCE_LEN]);
        }
    }
}
