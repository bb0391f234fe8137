//! The session id that clients see: a token that says in which pod the session lives, what the
//! server itself calls it, and with what its client initialised, so that another pod can open it
//! anew. Pure.
//!
//! Never names an address, and never takes for ours what is not spelled exactly as we spell it.
//!
//! Spelled `e1.` and, in base64url without padding, these bytes:
//!
//! | field | bytes |
//! |---|---|
//! | the pod's UID | its length in two, the higher first, and as many |
//! | the protocol version | the same |
//! | the server's own id | the same |
//! | `initialize`'s params | all that is left |
//! | checksum | 4 |
//!
//! The checksum has no key, so it keeps nobody from making a token: what one says is the word of
//! its client, and may lead no further than the client could go by itself. It is there since ids
//! are cut, joined and mistyped on their way, and the params of a token that was cut would else be
//! shorter params; and since a server's own id may begin with `e1.`, too.
//!
//! Sealed with a key, it is `e2.` and the same but for the checksum: before the fields, which are
//! encrypted, stands a nonce of 12 bytes, and after them the cipher's tag of 16, which holds for
//! the prefix, too.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::keys::Keys;

const UNSEALED: &str = "e1.";
const SEALED: &str = "e2.";
const CHECKSUM: usize = 4;

/// Longest token that is read, in bytes.
pub const MAX_TOKEN: usize = 8 * 1024;
/// Longest params that a token is made with, in bytes. nginx, as ingress controllers come, answers
/// 502 where an answer's head is larger than 4 KiB: a client would not even initialise. Others may
/// have made a longer one.
pub const MAX_PARAMS: usize = 2 * 1024;
/// Longest id of a server that a token is made of, in bytes.
pub const MAX_ID: usize = 1024;
/// Longest UID and version, in bytes.
const MAX_POD: usize = 64;
const MAX_VERSION: usize = 32;

/// A session, as its client names it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pod: String,
    version: String,
    id: String,
    params: Option<String>,
}

impl Token {
    /// `pod`: its UID, or nothing outside Kubernetes. `id`: the server's own. `version`: that of the
    /// protocol, or nothing where it is not known. `params`: those of `initialize`, as JSON text;
    /// what is too long to be carried, or no object, is left out.
    ///
    /// `None`: not even the rest can be carried, and the server's id has to do.
    #[must_use]
    pub fn new(pod: &str, id: &str, version: &str, params: Option<&str>) -> Option<Self> {
        let params = params.filter(|params| params.len() <= MAX_PARAMS && is_object(params));
        Self::of(pod, id, version, params)
    }

    /// The token that a client sent; `None` where it is none of ours: those in clear are not where
    /// the keys do not say so.
    #[must_use]
    pub fn parse(text: &str, keys: &Keys) -> Option<Self> {
        if text.len() > MAX_TOKEN {
            return None;
        }
        if let Some(sealed) = text.strip_prefix(SEALED) {
            return Self::from_fields(&keys.open(SEALED, &decode(sealed)?)?);
        }
        let bytes = decode(text.strip_prefix(UNSEALED).filter(|_| keys.reads_unsealed())?)?;
        let (fields, sum) = bytes.split_last_chunk::<CHECKSUM>()?;
        if *sum == checksum(fields) { Self::from_fields(fields) } else { None }
    }

    fn from_fields(mut fields: &[u8]) -> Option<Self> {
        let (pod, version, id) = (next(&mut fields)?, next(&mut fields)?, next(&mut fields)?);
        let params = std::str::from_utf8(fields).ok().filter(|params| is_object(params));
        if params.is_none() && !fields.is_empty() {
            return None;
        }
        Self::of(pod, id, version, params)
    }

    fn of(pod: &str, id: &str, version: &str, params: Option<&str>) -> Option<Self> {
        let is_pod = pod.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        // The specification's word for what an id may be. It becomes a header again.
        let is_visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        let is_sound = is_pod && is_visible(version) && is_visible(id) && !id.is_empty();
        let is_short = pod.len() <= MAX_POD && version.len() <= MAX_VERSION && id.len() <= MAX_ID;
        (is_sound && is_short).then(|| Self {
            pod: pod.to_owned(),
            version: version.to_owned(),
            id: id.to_owned(),
            params: params.map(str::to_owned),
        })
    }

    /// The UID of the pod in which the session was opened; nothing outside Kubernetes.
    #[must_use]
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// What the server that opened it calls it: visible ASCII.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The version that was negotiated; nothing where it is not known.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What its client initialised with, a JSON object; `None` where that was too long to be
    /// carried: then nobody can open the session anew.
    #[must_use]
    pub fn params(&self) -> Option<&str> {
        self.params.as_deref()
    }

    /// As clients see it: visible ASCII, at most [`MAX_TOKEN`] bytes; the same each time.
    #[must_use]
    pub fn text(&self, keys: &Keys) -> String {
        let mut fields = self.fields();
        let (prefix, bytes) = if let Some(key) = keys.seals() {
            (SEALED, key.seal(SEALED, &fields))
        } else {
            let sum = checksum(&fields);
            fields.extend(sum);
            (UNSEALED, fields)
        };
        let mut text = prefix.to_owned();
        URL_SAFE_NO_PAD.encode_string(bytes, &mut text);
        text
    }

    fn fields(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        for field in [&self.pod, &self.version, &self.id] {
            // They are far shorter than that.
            let length = u16::try_from(field.len()).unwrap_or(u16::MAX);
            fields.extend(length.to_be_bytes());
            fields.extend(field.as_bytes());
        }
        fields.extend(self.params.as_deref().unwrap_or_default().as_bytes());
        fields
    }
}

impl fmt::Debug for Token {
    /// Without the id, which is a secret, and without what the client said of itself.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = out.debug_struct("Token");
        out.field("pod", &self.pod).field("version", &self.version).finish_non_exhaustive()
    }
}

/// Refuses padding, and bits that the last letter has over.
fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn checksum(fields: &[u8]) -> [u8; CHECKSUM] {
    let digest = Sha256::new_with_prefix(UNSEALED).chain_update(fields).finalize();
    std::array::from_fn(|at| digest[at])
}

/// The next field that comes with its length.
fn next<'a>(fields: &mut &'a [u8]) -> Option<&'a str> {
    let (length, rest) = fields.split_first_chunk()?;
    *fields = rest;
    let field = fields.split_off(..usize::from(u16::from_be_bytes(*length)))?;
    std::str::from_utf8(field).ok()
}

/// Whether the text is one JSON object and nothing else: it becomes part of a message again.
fn is_object(text: &str) -> bool {
    text.starts_with('{')
        && serde_json::from_str::<&RawValue>(text).is_ok_and(|raw| raw.get() == text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POD: &str = "0b6f7cf4-9c3a-4a5e-8f0e-0d6a5c7a1b2c";
    const PARAMS: &str = r#"{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"ü","version":"1"}}"#;

    fn parse(text: &str) -> Option<Token> {
        Token::parse(text, &Keys::default())
    }

    /// By hand: what any of our versions has to make of these bytes, for ever.
    fn spelled(fields: &[u8]) -> String {
        let sum = Sha256::digest([b"e1.", fields].concat());
        format!("e1.{}", URL_SAFE_NO_PAD.encode([fields, &sum[..4]].concat()))
    }

    #[test]
    fn the_spelling_is_fixed() {
        let token = Token::new("u-1", "abc", "v", Some("{}")).unwrap();
        let text = spelled(b"\x00\x03u-1\x00\x01v\x00\x03abc{}");
        assert_eq!(token.text(&Keys::default()), text);
        assert_eq!(text, "e1.AAN1LTEAAXYAA2FiY3t9InWftg");
        assert_eq!(parse(&text), Some(token));
    }

    fn keys(text: &str) -> Keys {
        Keys::parse(text).unwrap()
    }

    /// The bytes from 0 to 31.
    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    /// 32 times 1.
    const OTHER: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

    /// Made by Python's `cryptography`: HKDF, HMAC and ChaCha20-Poly1305, as `keys` says.
    #[test]
    fn the_spelling_of_a_sealed_token_is_fixed() {
        let token = Token::new("u-1", "abc", "v", Some("{}")).unwrap();
        let text = "e2.YodFkxNKzx-21M6eFa-CzMNVZ6irtKS0_jU-EuHkub9Ig48VO1s6XZhEXA";
        assert_eq!(token.text(&keys(KEY)), text);
        assert_eq!(Token::parse(text, &keys(KEY)), Some(token));
    }

    /// Those in clear are ours only where the file says so; and each as its own prefix says.
    #[test]
    fn the_lines_of_the_keys_say_which_tokens_are_ours() {
        let token = Token::new(POD, "abc", "v", Some(PARAMS)).unwrap();
        let all = [
            KEY.to_owned(),
            OTHER.to_owned(),
            "unsealed".to_owned(),
            format!("{KEY}\n{OTHER}"),
            format!("{OTHER}\n{KEY}"),
            format!("{KEY}\nunsealed"),
            format!("unsealed\n{KEY}"),
        ];
        for writer in &all {
            let text = token.text(&keys(writer));
            let first = writer.lines().next().unwrap();
            assert_eq!(text.starts_with("e1."), first == "unsealed", "{text}");
            for reader in &all {
                let read = Token::parse(&text, &keys(reader));
                assert_eq!(read.is_some(), reader.contains(first), "{writer} {reader}");
                assert!(read.is_none_or(|read| read == token));
            }
            let (prefix, rest) = text.split_at(3);
            let swapped = if prefix == "e1." { "e2." } else { "e1." };
            let both = keys(&format!("unsealed\n{KEY}"));
            assert_eq!(Token::parse(&format!("{swapped}{rest}"), &both), None);
        }
        // What is sealed is held to the rest, too.
        let sealed = keys(KEY).seals().unwrap().seal(SEALED, b"\x00\x01u\x00\x01v\x00\x01a[]");
        let text = format!("{SEALED}{}", URL_SAFE_NO_PAD.encode(sealed));
        assert_eq!(Token::parse(&text, &keys(KEY)), None);
        for none in
            ["e2.", "e2.AAAA", "e2.session-of-somebody-else", &format!("e2.{}", "A".repeat(38))]
        {
            assert_eq!(Token::parse(none, &keys(KEY)), None, "{none}");
        }
    }

    #[test]
    fn a_token_says_what_it_was_made_of() {
        let token = Token::new(POD, "server's", "2025-11-25", Some(PARAMS)).unwrap();
        let read = parse(&token.text(&Keys::default())).unwrap();
        assert_eq!((read.pod(), read.id(), read.version()), (POD, "server's", "2025-11-25"));
        assert_eq!(read.params(), Some(PARAMS));
        let logged = format!("{read:?}");
        assert!(logged.contains(POD) && !logged.contains("server's"), "{logged}");
    }

    #[test]
    fn params_that_cannot_be_carried_are_left_out() {
        let long = |length: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(length - 8));
        let fits = long(MAX_PARAMS);
        assert_eq!(fits.len(), MAX_PARAMS);
        for (params, kept) in [
            (Some(fits.as_str()), true),
            (Some(&*long(MAX_PARAMS + 1)), false),
            (Some("{}"), true),
            (Some("[]"), false),
            (Some(" {}"), false),
            (Some("{} "), false),
            (Some(r#"{},"id":{}"#), false),
            (Some("{"), false),
            (Some(""), false),
            (None, false),
        ] {
            let token = Token::new(POD, "a", "", params).unwrap();
            assert_eq!(token.params(), params.filter(|_| kept));
            assert_eq!(parse(&token.text(&Keys::default())), Some(token));
        }
        // Nothing that can be made is too long to be read.
        let (pod, id, version) = ("p".repeat(MAX_POD), "i".repeat(MAX_ID), "v".repeat(MAX_VERSION));
        let largest = Token::new(&pod, &id, &version, Some(&fits)).unwrap();
        for keys in [Keys::default(), keys(KEY)] {
            assert_eq!(Token::parse(&largest.text(&keys), &keys), Some(largest.clone()));
        }
    }

    #[test]
    fn what_no_token_can_carry_makes_none() {
        for (pod, id, version) in [
            (POD, "", ""),
            (POD, "a b", ""),
            (POD, "a\r\nb", ""),
            (POD, "ü", ""),
            (POD, &*"i".repeat(MAX_ID + 1), ""),
            ("10.0.0.1", "a", ""),
            ("a/b", "a", ""),
            (&*"p".repeat(MAX_POD + 1), "a", ""),
            (POD, "a", "1 0"),
            (POD, "a", &*"v".repeat(MAX_VERSION + 1)),
        ] {
            assert_eq!(Token::new(pod, id, version, None), None, "{pod:?} {id:?} {version:?}");
        }
    }

    #[test]
    fn what_is_not_ours_is_none() {
        let text =
            Token::new(POD, "abc", "2025-06-18", Some(PARAMS)).unwrap().text(&Keys::default());
        assert!(parse(&text).is_some());
        for other in [
            "",
            "e1.",
            "e1",
            "e1.AAAA",
            "e1.AAAAAAAA",
            "e1.session-of-somebody-else",
            "0b6f7cf4-9c3a-4a5e-8f0e-0d6a5c7a1b2c",
            &text[3..],
            &text.replacen("e1.", "e2.", 1),
            &text.replacen("e1.", "E1.", 1),
            &format!("{text}="),
            &format!("{text}A"),
            &format!(" {text}"),
            &format!("{text},{text}"),
            &text.replace('.', ".\n"),
        ] {
            assert_eq!(parse(other), None, "{other:?}");
        }
        // Whoever makes the checksum, too, is held to the rest.
        for fields in [
            &b"\x00\x01u\x00\x01v\x00\x01a"[..],
            b"\x00\x01u\x00\x01v\x00\x01a{}",
            b"\x00\x00\x00\x00\x00\x01a",
        ] {
            assert!(parse(&spelled(fields)).is_some(), "{fields:?}");
        }
        for fields in [
            &b""[..],
            b"\x00\x01u",
            b"\x00\x01u\x00\x01v\x00",
            b"\x00\x01u\x00\x01v\x00\x00",
            b"\x00\x01u\x00\x01v\x00\x02a",
            b"\x00\x01u\x00\x01v\xff\xffa",
            b"\x00\x01.\x00\x01v\x00\x01a",
            b"\x00\x01u\x00\x01v\x00\x01\n",
            b"\x00\x01u\x00\x01v\x00\x01\xff",
            b"\x00\x01u\x00\x01v\x00\x01a[]",
            b"\x00\x01u\x00\x01v\x00\x01a{}{}",
            b"\x00\x01u\x00\x01v\x00\x01a{} ",
            b"\x00\x01u\x00\x01v\x00\x01a{\"a\":\"\xff\"}",
        ] {
            assert_eq!(parse(&spelled(fields)), None, "{fields:?}");
        }
        let long = format!("\x00\x01u\x00\x01v\0\x01a{{\"a\":\"{}\"}}", "x".repeat(MAX_TOKEN));
        assert_eq!(parse(&spelled(long.as_bytes())), None);
    }

    /// Base64 has letters with bits over at its end, and most decoders let them be anything.
    #[test]
    fn each_token_has_one_spelling() {
        for id in ["a", "ab", "abc"] {
            let text = Token::new("", id, "", None).unwrap().text(&Keys::default());
            let (start, last) = text.split_at(text.len() - 1);
            let letters = ('0'..='9').chain('A'..='Z').chain('a'..='z').chain(['-', '_']);
            let read = letters.map(|letter| format!("{start}{letter}"));
            let read: Vec<_> = read.filter(|text| parse(text).is_some()).collect();
            assert_eq!(read, [format!("{start}{last}")]);
        }
    }

    proptest! {
        #[test]
        fn tokens_round_trip(
            pod in "[0-9a-zA-Z-]{0,64}",
            id in "[!-~]{1,300}",
            version in "[!-~]{0,32}",
            value in prop::option::of("\\PC{0,40}"),
        ) {
            let params = value.map(|value| serde_json::json!({ "a": value }).to_string());
            let token = Token::new(&pod, &id, &version, params.as_deref()).unwrap();
            let text = token.text(&Keys::default());
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()) && text.len() <= MAX_TOKEN);
            prop_assert_eq!(token.params(), params.as_deref());
            prop_assert_eq!(parse(&text), Some(token));
        }

        /// Neither as it stands nor as base64 does it show anything of what it was made of.
        #[test]
        fn sealed_tokens_round_trip_and_show_nothing(
            pod in "[0-9a-f-]{8,36}",
            id in "[!-~]{8,300}",
            value in "[a-z]{8,40}",
            second in any::<bool>(),
        ) {
            let params = format!(r#"{{"a":"{value}"}}"#);
            let token = Token::new(&pod, &id, "2025-11-25", Some(&params)).unwrap();
            let text = token.text(&keys(KEY));
            let reader = if second { format!("{OTHER}\n{KEY}") } else { format!("{KEY}\n{OTHER}") };
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()) && text.len() <= MAX_TOKEN);
            let bytes = URL_SAFE_NO_PAD.decode(&text[3..]).unwrap();
            for part in [&pod, &id, &value, &"2025-11-25".to_owned()] {
                prop_assert!(!bytes.windows(part.len()).any(|at| at == part.as_bytes()));
                prop_assert!(!text.contains(part.as_str()));
            }
            prop_assert_eq!(Token::parse(&text, &keys(&reader)), Some(token));
            prop_assert_eq!(Token::parse(&text, &keys(OTHER)), None);
        }

        #[test]
        fn a_sealed_token_that_was_changed_is_none(at in any::<prop::sample::Index>(), letter in "[!-~]") {
            let text = Token::new(POD, "abc", "2025-11-25", Some(PARAMS)).unwrap().text(&keys(KEY));
            let reader = keys(&format!("{KEY}\nunsealed"));
            let at = at.index(text.len());
            prop_assert_eq!(Token::parse(&text[..at], &reader), None);
            let mut changed = text.clone();
            changed.replace_range(at..=at, &letter);
            prop_assert_eq!(Token::parse(&changed, &reader).is_some(), changed == text);
            changed.insert_str(at, &letter);
            prop_assert_eq!(Token::parse(&changed, &reader), None);
        }

        /// Cut, joined, a letter changed: no token any more.
        #[test]
        fn a_token_that_was_changed_is_none(at in any::<prop::sample::Index>(), letter in "[!-~]") {
            let text = Token::new(POD, "abc", "2025-11-25", Some(PARAMS)).unwrap().text(&Keys::default());
            let at = at.index(text.len());
            prop_assert_eq!(parse(&text[..at]), None);
            let mut changed = text.clone();
            changed.replace_range(at..=at, &letter);
            prop_assert_eq!(parse(&changed).is_some(), changed == text);
            changed.insert_str(at, &letter);
            prop_assert_eq!(parse(&changed), None);
        }
    }
}
