//! From when until when a certificate is valid, read from its DER (RFC 5280, section 4.1). Pure.

use k8s_openapi::jiff::{civil::DateTime, tz::TimeZone};

/// Tags of DER (X.690).
const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]`: the version, which may be left out.
const VERSION: u8 = 0xa0;

/// In seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub not_before: i64,
    pub not_after: i64,
}

/// `None` for what is no certificate.
pub fn of(certificate: &[u8]) -> Option<Validity> {
    let (body, _) = sequence(certificate)?;
    let (mut rest, _) = sequence(body)?;
    if let (VERSION, _, after) = element(rest)? {
        rest = after;
    }
    // The serial number, the signature's algorithm, the issuer.
    for _ in 0..3 {
        (_, _, rest) = element(rest)?;
    }
    let (times, _) = sequence(rest)?;
    let (not_before, times) = time(times)?;
    let (not_after, _) = time(times)?;
    Some(Validity { not_before, not_after })
}

/// Tag, content, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // The number of bytes that the length takes.
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

fn sequence(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(der)?;
    (tag == SEQUENCE).then_some((content, rest))
}

/// `YYMMDDHHMMSSZ`, where 50 is 1950, or `YYYYMMDDHHMMSSZ`.
fn time(der: &[u8]) -> Option<(i64, &[u8])> {
    let (tag, content, rest) = element(der)?;
    let text = std::str::from_utf8(content).ok()?.strip_suffix('Z')?;
    let (year, text) = match (tag, text.len()) {
        (UTC_TIME, 12) => {
            let year: i16 = text.get(..2)?.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?)
        }
        (GENERALIZED_TIME, 14) => (text.get(..4)?.parse().ok()?, text.get(4..)?),
        _ => return None,
    };
    let part = |index: usize| text.get(2 * index..2 * index + 2)?.parse::<i8>().ok();
    let at = DateTime::new(year, part(0)?, part(1)?, part(2)?, part(3)?, part(4)?, 0).ok()?;
    Some((at.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second(), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};

    use super::*;

    fn certificate(from: (i32, u8, u8), until: (i32, u8, u8)) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["x.svc".into()]).unwrap();
        params.not_before = date_time_ymd(from.0, from.1, from.2);
        params.not_after = date_time_ymd(until.0, until.1, until.2);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn both_ways_to_write_a_time() {
        for (from, until, expected) in [
            ((1970, 1, 2), (2049, 12, 31), (86_400, 2_524_521_600)),
            ((2026, 11, 26), (2050, 1, 1), (1_795_651_200, 2_524_608_000)),
            ((1950, 1, 1), (9999, 12, 30), (-631_152_000, 253_402_128_000)),
        ] {
            let (not_before, not_after) = expected;
            let found = of(&certificate(from, until));
            assert_eq!(found, Some(Validity { not_before, not_after }), "{from:?} {until:?}");
        }
        let (own, _) = crate::cli::webhook::stand_in::make().unwrap();
        assert_eq!(of(&own).unwrap().not_before, 1_735_689_600);
    }

    /// RSA, a serial number of 16 bytes, both names: as the chart's own.
    #[test]
    fn one_that_helm_made() {
        let pem = include_bytes!("../../../tests/fixtures/certificates/helm.pem");
        let der = CertificateDer::from_pem_slice(pem).unwrap();
        let (not_before, not_after) = (1_795_656_528, 1_858_728_528);
        assert_eq!(of(&der), Some(Validity { not_before, not_after }));
    }

    #[test]
    fn half_a_certificate_has_none() {
        let whole = certificate((2026, 1, 1), (2027, 1, 1));
        for length in 0..whole.len() {
            assert_eq!(of(&whole[..length]), None);
        }
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_do_no_harm(bytes: Vec<u8>) {
            let _ = of(&bytes);
        }
    }
}
