//! Evidence about a connection, rather than about a key.
//!
//! An RA-TLS certificate shows that an enclave once made a key. Anyone who gets hold of that key
//! can show the certificate until it expires. A quote over values that only the two ends of one
//! connection know shows that the enclave is at its end of that connection now: the nonces make it
//! fresh; the keying material exported from TLS (RFC 8446, section 7.5) and both keys tie it to the
//! connection; the role stops one side's quote from being sent back to it; and the job digest says
//! what it is for.

use sha2::{Digest, Sha512};

/// Label under which both ends export 32 bytes of keying material, without context: the nonces are
/// hashed alongside it.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-convelo-attest-v1";

/// First field of the hash input, so that the digest cannot stand for anything else.
const DOMAIN: &[u8] = b"convelo/attest/v1";

/// Which end of a connection a quote speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The end that dialled.
    Party,
    /// The end that listened.
    Service,
}

/// What both ends of one connection know when they ask each other for evidence.
#[derive(Clone, Copy)]
pub struct Session<'a> {
    /// Keying material exported from the TLS connection under [`EXPORTER_LABEL`]. Secret.
    pub exporter: &'a [u8; 32],
    /// Random bytes chosen by the party for this exchange.
    pub party_nonce: &'a [u8; 32],
    /// Random bytes chosen by the service for this exchange.
    pub service_nonce: &'a [u8; 32],
    /// SubjectPublicKeyInfo (DER) of the key that the party proved in the handshake.
    pub party_spki: &'a [u8],
    /// SubjectPublicKeyInfo (DER) of the key that the service proved in the handshake.
    pub service_spki: &'a [u8],
    /// SHA-256 of the canonical job that the connection is for.
    pub job: &'a [u8; 32],
}

impl Session<'_> {
    /// The report data of the quote that one end answers with: SHA-512 over all fields, each
    /// prefixed with its length (64 bits, big-endian). It uses all 64 bytes, while a certificate's
    /// report data ends in 32 zero bytes, so a quote made for one is refused as the other.
    pub fn report_data(&self, role: Role) -> [u8; 64] {
        let role: &[u8] = match role {
            Role::Party => b"party",
            Role::Service => b"service",
        };
        let fields: [&[u8]; 8] = [
            DOMAIN,
            role,
            self.exporter,
            self.party_nonce,
            self.service_nonce,
            self.party_spki,
            self.service_spki,
            self.job,
        ];
        digest(&fields)
    }
}

/// SHA-512 over fields, each prefixed with its length (64 bits, big-endian).
pub(crate) fn digest(fields: &[&[u8]]) -> [u8; 64] {
    let mut hash = Sha512::new();
    for field in fields {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python's hashlib over the same fields.
    const SERVICE: &str = "cfb81619944d7cf4ca050d152062128857f51bbb493742e65d79fc0cf5bd09dddcfb3d00e48c21bb9bac85867e8f611521fb332846af1db12c4b25a3fb21ac78";

    fn session() -> Session<'static> {
        Session {
            exporter: &[1; 32],
            party_nonce: &[2; 32],
            service_nonce: &[3; 32],
            party_spki: b"party key",
            service_spki: b"service key",
            job: &[4; 32],
        }
    }

    #[test]
    fn vector() {
        assert_eq!(hex::encode(session().report_data(Role::Service)), SERVICE);
    }

    #[test]
    fn every_field_counts() {
        let session = session();
        let others = [
            session.report_data(Role::Party),
            Session { exporter: &[9; 32], ..session }.report_data(Role::Service),
            Session { party_nonce: &[9; 32], ..session }.report_data(Role::Service),
            Session { service_nonce: &[9; 32], ..session }.report_data(Role::Service),
            Session { party_spki: b"another", ..session }.report_data(Role::Service),
            Session { service_spki: b"another", ..session }.report_data(Role::Service),
            Session { party_spki: b"party keys", service_spki: b"ervice key", ..session }
                .report_data(Role::Service),
            Session { job: &[9; 32], ..session }.report_data(Role::Service),
        ];
        for other in others {
            assert_ne!(other, session.report_data(Role::Service));
        }
    }
}
