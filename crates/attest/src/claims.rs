//! The DICE evidence extension of interoperable RA-TLS, in deterministic CBOR (RFC 8949, 4.2.1).
//!
//! ```text
//! evidence = #6.60000([quote: bstr, claims: bstr])
//! claims   = {"pubkey-hash": bstr .cbor [hash-id, hash: bstr], ? "nonce": bstr}
//! ```
//!
//! `hash-id` comes from the IANA Named Information registry: 1 SHA-256, 7 SHA-384, 8 SHA-512.

use convelo_untrusted::Untrusted;
use sha2::{Digest, Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

use crate::limits::{MAXIMUM_CLAIMS_BYTES, MAXIMUM_QUOTE_BYTES};

/// The claims map for a key: its SHA-256 under `pubkey-hash`.
pub(crate) fn claims(spki: &[u8]) -> Vec<u8> {
    let mut hash = vec![0x82, 0x01];
    put(&mut hash, BYTES, &Sha256::digest(spki));
    let mut map = vec![0xA1];
    put(&mut map, TEXT, PUBKEY_HASH.as_bytes());
    put(&mut map, BYTES, &hash);
    map
}

/// The extension's value.
pub(crate) fn evidence(quote: &[u8], claims: &[u8]) -> Vec<u8> {
    let mut value = TAG_AND_ARRAY.to_vec();
    put(&mut value, BYTES, quote);
    put(&mut value, BYTES, claims);
    value
}

/// Why an extension could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// Not the canonical encoding of the structure above.
    Form(&'static str),
    /// The quote is longer than any genuine quote.
    QuoteSize(usize),
    /// A claim unknown to this version; its name.
    UnknownClaim(Untrusted),
    /// No `pubkey-hash` claim: the quote is bound to no key.
    NoPubkeyHash,
}

/// Splits the extension's value into (quote, claims).
pub(crate) fn split(value: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut rest = value
        .strip_prefix(&TAG_AND_ARRAY)
        .ok_or(Malformed::Form("something other than CBOR tag 60000 with an array of two"))?;
    let length = take_head(&mut rest, BYTES)?;
    if length > MAXIMUM_QUOTE_BYTES {
        return Err(Malformed::QuoteSize(length));
    }
    let quote = take(&mut rest, length)?;
    let length = take_head(&mut rest, BYTES)?;
    if length > MAXIMUM_CLAIMS_BYTES {
        return Err(Malformed::Form("claims of more than 1 KiB"));
    }
    let claims = take(&mut rest, length)?;
    if !rest.is_empty() {
        return Err(Malformed::Form("bytes after the claims"));
    }
    Ok((quote, claims))
}

/// Whether the claims bind this key.
///
/// With `foreign` set, other claims are skipped, in any order: librats writes some. Without it they
/// are refused, and keys must be sorted.
pub(crate) fn bind(claims: &[u8], spki: &[u8], foreign: bool) -> Result<bool, Malformed> {
    let mut rest = claims;
    let count = take_head(&mut rest, MAP)?;
    let mut seen: Vec<&[u8]> = Vec::new();
    let mut bound = None;
    for _ in 0..count {
        let start = rest;
        let name = take_string(&mut rest, TEXT)?;
        let key = &start[..start.len() - rest.len()];
        let known = name == PUBKEY_HASH.as_bytes() || name == b"nonce";
        if !known && !foreign {
            return Err(Malformed::UnknownClaim(Untrusted::from_bytes(name)));
        }
        if seen.contains(&key) {
            return Err(Malformed::Form("a claim that appears twice"));
        }
        if !foreign && seen.last().is_some_and(|last| *last > key) {
            return Err(Malformed::Form("claims that are not in canonical order"));
        }
        seen.push(key);
        let value = take_string(&mut rest, BYTES)?;
        if name == PUBKEY_HASH.as_bytes() {
            bound = Some(matches(value, spki)?);
        }
    }
    if !rest.is_empty() {
        return Err(Malformed::Form("bytes after the claims map"));
    }
    bound.ok_or(Malformed::NoPubkeyHash)
}

const TAG_AND_ARRAY: [u8; 4] = [0xD9, 0xEA, 0x60, 0x82];
const PUBKEY_HASH: &str = "pubkey-hash";
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const MAP: u8 = 5;

/// Whether `[hash-id, hash]` is the hash of this key.
fn matches(mut value: &[u8], spki: &[u8]) -> Result<bool, Malformed> {
    let id = match value {
        [0x82, id @ (1 | 7 | 8), ..] => *id,
        [0x82, ..] => return Err(Malformed::Form("a pubkey-hash of an unknown hash algorithm")),
        _ => return Err(Malformed::Form("a pubkey-hash that is not an array of two")),
    };
    value = &value[2..];
    let hash = take_string(&mut value, BYTES)?;
    if !value.is_empty() {
        return Err(Malformed::Form("bytes after the pubkey-hash"));
    }
    let expected = match id {
        1 => Sha256::digest(spki).to_vec(),
        7 => Sha384::digest(spki).to_vec(),
        _ => Sha512::digest(spki).to_vec(),
    };
    Ok(expected.ct_eq(hash).into())
}

fn put(out: &mut Vec<u8>, major: u8, bytes: &[u8]) {
    let major = major << 5;
    match u32::try_from(bytes.len()).expect("evidence is far below 4 GiB").to_be_bytes() {
        [0, 0, 0, n @ 0..24] => out.push(major | n),
        [0, 0, 0, n] => out.extend([major | 0x18, n]),
        [0, 0, a, b] => out.extend([major | 0x19, a, b]),
        [a, b, c, d] => out.extend([major | 0x1A, a, b, c, d]),
    }
    out.extend(bytes);
}

/// Reads a head of this major type in its shortest form and returns its argument.
fn take_head(rest: &mut &[u8], major: u8) -> Result<usize, Malformed> {
    let (argument, after) = match **rest {
        [head, ..] if head >> 5 != major => {
            return Err(Malformed::Form("a CBOR item of another type"));
        }
        [head, ref after @ ..] if head & 0x1F < 24 => (usize::from(head & 0x1F), after),
        [head, n, ref after @ ..] if head & 0x1F == 0x18 && n >= 24 => (usize::from(n), after),
        [head, a, b, ref after @ ..] if head & 0x1F == 0x19 && a >= 1 => {
            (usize::from(u16::from_be_bytes([a, b])), after)
        }
        _ => return Err(Malformed::Form("a CBOR length that is not in its shortest form")),
    };
    *rest = after;
    Ok(argument)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (taken, after) = rest
        .split_at_checked(length)
        .ok_or(Malformed::Form("a CBOR string that ends too early"))?;
    *rest = after;
    Ok(taken)
}

fn take_string<'a>(rest: &mut &'a [u8], major: u8) -> Result<&'a [u8], Malformed> {
    let length = take_head(rest, major)?;
    take(rest, length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn claims_begin_as_gramines_do() {
        let map = claims(b"a key");
        let begin = [&[0xA1, 0x6B], b"pubkey-hash".as_slice(), &[0x58, 36, 0x82, 1, 0x58, 32]];
        assert!(map.starts_with(&begin.concat()));
        assert_eq!(map.len(), 51);
        assert_eq!(bind(&map, b"a key", false), Ok(true));
        assert_eq!(bind(&map, b"another", false), Ok(false));
    }

    #[test]
    fn every_hash_algorithm_of_the_registry_binds() {
        for (id, hash) in [
            (1, Sha256::digest(b"k").to_vec()),
            (7, Sha384::digest(b"k").to_vec()),
            (8, Sha512::digest(b"k").to_vec()),
        ] {
            let map = map_with_hash(id, &hash);
            assert_eq!(bind(&map, b"k", false), Ok(true), "{id}");
        }
        let zero = map_with_hash(0, &Sha256::digest(b"k"));
        assert!(matches!(bind(&zero, b"k", false), Err(Malformed::Form(_))));
    }

    #[test]
    fn a_truncated_hash_does_not_bind() {
        assert_eq!(bind(&map_with_hash(1, &Sha256::digest(b"k")[..31]), b"k", false), Ok(false));
        assert_eq!(bind(&map_with_hash(1, b""), b"k", false), Ok(false));
    }

    #[test]
    fn two_pubkey_hashes_are_refused() {
        let one = claims(b"k");
        let mut two = vec![0xA2];
        two.extend(&one[1..]);
        two.extend(&one[1..]);
        assert!(matches!(bind(&two, b"k", true), Err(Malformed::Form(_))));
    }

    proptest! {
        #[test]
        fn evidence_splits_into_what_was_put_in(
            quote in prop::collection::vec(any::<u8>(), 0..MAXIMUM_QUOTE_BYTES),
            claims in prop::collection::vec(any::<u8>(), 0..MAXIMUM_CLAIMS_BYTES),
        ) {
            let value = evidence(&quote, &claims);
            prop_assert_eq!(split(&value), Ok((quote.as_slice(), claims.as_slice())));
        }

        #[test]
        fn what_splits_is_its_own_encoding(value in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut tagged = TAG_AND_ARRAY.to_vec();
            tagged.extend(value);
            if let Ok((quote, claims)) = split(&tagged) {
                prop_assert_eq!(evidence(quote, claims), tagged);
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(claims in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_ne!(bind(&claims, b"k", true), Ok(true));
        }
    }

    fn map_with_hash(id: u8, hash: &[u8]) -> Vec<u8> {
        let mut inner = vec![0x82, id];
        put(&mut inner, BYTES, hash);
        let mut map = vec![0xA1];
        put(&mut map, TEXT, PUBKEY_HASH.as_bytes());
        put(&mut map, BYTES, &inner);
        map
    }
}
