//! A certificate that nobody trusts, so that the kubelet's probes, which trust any, get an answer
//! while the real one is waited for. Made anew by each process.
//!
//! Never served once there is a real one.

use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// Tags of DER (X.690).
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const UTF8: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;

/// `INTEGER 2` in `[0]`: X.509 version 3; and `INTEGER 1`: the serial number.
const VERSION: &[u8] = &[0xa0, 0x03, 0x02, 0x01, 0x02];
const SERIAL: &[u8] = &[0x02, 0x01, 0x01];
/// Object identifiers: ecdsa-with-SHA256, id-ecPublicKey, prime256v1, commonName.
const ECDSA_SHA256: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const EC_PUBLIC_KEY: &[u8] = &[0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const COMMON_NAME: &[u8] = &[0x06, 3, 0x55, 0x04, 0x03];

/// A self-signed certificate (RFC 5280) and its key.
pub fn make() -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), String> {
    let failed = |error: &dyn std::fmt::Display| format!("a key cannot be made: {error}");
    let (kind, random) = (&ECDSA_P256_SHA256_ASN1_SIGNING, SystemRandom::new());
    let key = EcdsaKeyPair::generate_pkcs8(kind, &random).map_err(|error| failed(&error))?;
    let pair = EcdsaKeyPair::from_pkcs8(kind, key.as_ref(), &random);
    let pair = pair.map_err(|error| failed(&error))?;

    let algorithm = der(SEQUENCE, &[ECDSA_SHA256]);
    let common_name = der(UTF8, &[b"ebbtide without a certificate"]);
    let name = der(SEQUENCE, &[&der(SET, &[&der(SEQUENCE, &[COMMON_NAME, &common_name])])]);
    let time = |text: &[u8]| der(UTC_TIME, &[text]);
    let validity = der(SEQUENCE, &[&time(b"250101000000Z"), &time(b"491231235959Z")]);
    let public = der(BIT_STRING, &[&[0], pair.public_key().as_ref()]);
    let public = der(SEQUENCE, &[&der(SEQUENCE, &[EC_PUBLIC_KEY, P256]), &public]);
    let body = der(SEQUENCE, &[VERSION, SERIAL, &algorithm, &name, &validity, &name, &public]);
    let signature = pair.sign(&random, &body).map_err(|error| failed(&error))?;
    let signature = der(BIT_STRING, &[&[0], signature.as_ref()]);
    let certificate = der(SEQUENCE, &[&body, &algorithm, &signature]);
    Ok((certificate.into(), PrivatePkcs8KeyDer::from(key.as_ref().to_vec()).into()))
}

/// One value of DER: tag, length, content.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    // All of a certificate like this is shorter than 64 KiB.
    let [high, low] = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut value = match (high, low) {
        (0, 0..0x80) => vec![tag, low],
        (0, _) => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    value.extend(content);
    value
}
