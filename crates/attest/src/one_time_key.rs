//! Evidence about a one-time key: a provider's program shows that it made the key.
//!
//! Where the providers of a job prove their programs, each is sealed secrets under a one-time key of
//! its own. The quote says which program made the key, so everybody who verifies it knows where what
//! they seal can be opened, no matter who handed the quote over. It is not a quote over a
//! connection, and one can never stand for the other: they begin with different labels.

use crate::evidence::Evidence;
use crate::refusal::Refusal;
use crate::session::digest;

/// First field of the hash input.
const DOMAIN: &[u8] = b"convelo/attest/one-time-key/v1";

/// A one-time key, and what it is for.
#[derive(Clone, Copy)]
pub struct OneTimeKey<'a> {
    /// SHA-256 of the canonical job.
    pub job: &'a [u8; 32],
    /// The name of the party whose key it is.
    pub party: &'a str,
    /// SubjectPublicKeyInfo (DER) of the party's identity key.
    pub identity: &'a [u8],
    /// The key itself.
    pub key: &'a [u8],
}

impl OneTimeKey<'_> {
    /// The report data of the quote: SHA-512 over all fields, each prefixed with its length
    /// (64 bits, big-endian).
    pub fn report_data(&self) -> [u8; 64] {
        digest(&[DOMAIN, self.job, self.party.as_bytes(), self.identity, self.key])
    }

    /// Reads the quote that the party shows; it must be over this very key. The evidence is about
    /// the party's identity key, and not yet verified.
    ///
    /// # Errors
    /// A [`Refusal`], including for a quote over anything else and for none.
    pub fn evidence(&self, quote: &[u8]) -> Result<Evidence, Refusal> {
        if quote.is_empty() {
            return Err(Refusal::missing_key_evidence());
        }
        Evidence::from_quote(quote, &self.report_data(), self.identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::{Role, Session};

    /// Computed with Python's hashlib over the same fields.
    const VECTOR: &str = "69d84a4f30a579f31732422d0f5860ca7d38c23112c3e971a32b56657e4750650437ad8606028e11975b4cbcba484f5fe227f752a916fe2aa95cb4cf382dcbcc";

    fn key() -> OneTimeKey<'static> {
        OneTimeKey {
            job: &[1; 32],
            party: "alice",
            identity: b"identity key",
            key: b"one-time key",
        }
    }

    #[test]
    fn vector() {
        assert_eq!(hex::encode(key().report_data()), VECTOR);
    }

    #[test]
    fn every_field_counts() {
        let others = [
            OneTimeKey { job: &[9; 32], ..key() },
            OneTimeKey { party: "bob", ..key() },
            OneTimeKey { identity: b"another", ..key() },
            OneTimeKey { key: b"another", ..key() },
            OneTimeKey { party: "alicei", identity: b"dentity key", ..key() },
            OneTimeKey { identity: b"identity keyo", key: b"ne-time key", ..key() },
        ];
        for other in others {
            assert_ne!(other.report_data(), key().report_data());
        }
    }

    /// The fields of a session whose contents are those of a one-time key, as far as they can be.
    #[test]
    fn quote_over_a_session_in_its_place() {
        let session = Session {
            exporter: &[1; 32],
            party_nonce: &[1; 32],
            service_nonce: &[1; 32],
            party_spki: b"identity key",
            service_spki: b"one-time key",
            job: &[1; 32],
        };
        for role in [Role::Party, Role::Service] {
            assert_ne!(session.report_data(role), key().report_data());
        }
    }

    #[test]
    fn no_quote() {
        assert_eq!(key().evidence(&[]).map(drop).unwrap_err().code, "no-key-evidence");
    }
}
