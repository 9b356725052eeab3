//! What each party of a job without a service signs for the others at the end.
//!
//! Every party is a witness to what it saw: who took part, under which keys, how many keys each
//! announced, and a commitment to each party's set. It says what was learnt only if everybody learns
//! the same, so that nobody is told more than the job grants. It is no proof that a party kept to the
//! protocol, or that its set held what it should.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use convelo_channel::Identity;
use convelo_psi::limits::{MAXIMUM_NAME_BYTES, MAXIMUM_PARTIES};
use convelo_psi::{JobDigest, KeyId, Protocol, is_name};

const LABEL: &[u8] = b"convelo/direct/testimony/v1";

/// What a party saw of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Testimony {
    /// The job.
    pub job: JobDigest,
    /// What the run's messages were bound to.
    pub sid: [u8; 32],
    /// The protocol.
    pub protocol: Protocol,
    /// Who signs.
    pub witness: String,
    /// All parties, by name.
    pub parties: Vec<Announced>,
    /// How many keys all parties have, if everybody learns that.
    pub count: Option<u64>,
    /// Unix seconds by the witness's clock.
    pub finished_at: u64,
}

/// A party as another one saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Its name.
    pub name: String,
    /// The key that it proved.
    pub key: KeyId,
    /// What it said of its set; none if it said nothing to the witness, or the witness nothing of it to
    /// whom the testimony is for.
    pub set: Option<Size>,
}

/// What a party says of its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// How many keys it has, padding included.
    pub keys: u64,
    /// BLAKE3, keyed with a random salt that only that party has, over BLAKE3 of the set: its items in
    /// ascending order, 16 bytes each.
    pub commitment: [u8; 32],
}

/// Why something is not a testimony.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TestimonyError {
    /// The bytes are not in the one form that a testimony has.
    #[error("{0} bytes that are not a testimony")]
    Form(usize),
    /// The key is of another kind.
    #[error("the key it should be signed by is not an ECDSA P-256 key")]
    Key,
    /// It was signed by another key, or changed since.
    #[error("the signature is not by the expected key over these bytes")]
    Signature,
}

/// A testimony as it travels.
#[derive(Clone)]
pub struct SignedTestimony {
    /// What [`Testimony::encode`] wrote.
    pub testimony: Vec<u8>,
    /// ECDSA-P256-SHA256 signature (DER) over it.
    pub signature: Vec<u8>,
    /// `SubjectPublicKeyInfo` of the key, DER. Who reads it must know which key to expect.
    pub spki: Vec<u8>,
}

impl SignedTestimony {
    /// A testimony under this identity.
    pub fn by(identity: &Identity, testimony: &Testimony) -> Self {
        let testimony = testimony.encode();
        let signature = identity.sign(&testimony);
        Self { testimony, signature, spki: identity.spki().to_vec() }
    }

    /// Verifies that the key with this fingerprint signed it, and reads it.
    ///
    /// # Errors
    /// [`TestimonyError`].
    pub fn verify(&self, key: KeyId) -> Result<Testimony, TestimonyError> {
        if KeyId::of_spki(&self.spki) != key {
            return Err(TestimonyError::Signature);
        }
        let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.spki);
        let key = key.map_err(|_| TestimonyError::Key)?;
        key.verify_sig(&self.testimony, &self.signature).map_err(|_| TestimonyError::Signature)?;
        Testimony::decode(&self.testimony)
    }

    /// As a message: three parts, each after its length.
    #[expect(clippy::missing_panics_doc, reason = "parts are short")]
    pub fn to_message(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in [&self.testimony, &self.signature, &self.spki] {
            bytes.extend(u16::try_from(part.len()).expect("parts are short").to_be_bytes());
            bytes.extend(part);
        }
        bytes
    }

    /// Reads the message; it proves nothing yet.
    ///
    /// # Errors
    /// If it is not three parts.
    pub fn from_message(message: &[u8]) -> Result<Self, TestimonyError> {
        let mut rest = message;
        let mut part = || {
            let (length, after) = rest.split_first_chunk()?;
            let (part, after) = after.split_at_checked(u16::from_be_bytes(*length).into())?;
            rest = after;
            Some(part.to_vec())
        };
        let parts = (part(), part(), part());
        match parts {
            (Some(testimony), Some(signature), Some(spki)) if rest.is_empty() => {
                Ok(Self { testimony, signature, spki })
            }
            _ => Err(TestimonyError::Form(message.len())),
        }
    }
}

impl Testimony {
    /// The bytes that are signed.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = LABEL.to_vec();
        bytes.extend(self.job.0);
        bytes.extend(self.sid);
        bytes.push(match self.protocol {
            Protocol::Vole => 1,
            Protocol::Ecdh => 2,
        });
        name(&mut bytes, &self.witness);
        bytes.push(u8::try_from(self.parties.len()).expect("there are few parties"));
        for party in &self.parties {
            name(&mut bytes, &party.name);
            bytes.extend(party.key.0);
            bytes.push(party.set.is_some().into());
            if let Some(set) = party.set {
                bytes.extend(set.keys.to_be_bytes());
                bytes.extend(set.commitment);
            }
        }
        bytes.push(self.count.is_some().into());
        if let Some(count) = self.count {
            bytes.extend(count.to_be_bytes());
        }
        bytes.extend(self.finished_at.to_be_bytes());
        bytes
    }

    /// Reads what was signed.
    ///
    /// # Errors
    /// If it is not in the one form that a testimony has.
    pub fn decode(bytes: &[u8]) -> Result<Self, TestimonyError> {
        let read = Reader(bytes).testimony();
        read.filter(|read| read.encode() == bytes).ok_or(TestimonyError::Form(bytes.len()))
    }
}

fn name(bytes: &mut Vec<u8>, name: &str) {
    bytes.push(u8::try_from(name.len()).expect("names are short"));
    bytes.extend(name.as_bytes());
}

struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    fn testimony(mut self) -> Option<Testimony> {
        self.0 = self.0.strip_prefix(LABEL)?;
        let (job, sid) = (JobDigest(self.array()?), self.array()?);
        let protocol = match self.byte()? {
            1 => Protocol::Vole,
            2 => Protocol::Ecdh,
            _ => return None,
        };
        let witness = self.name()?;
        let count = self.byte()?;
        let count = Some(usize::from(count)).filter(|count| *count <= MAXIMUM_PARTIES)?;
        let parties: Option<Vec<_>> = (0..count)
            .map(|_| {
                let (name, key) = (self.name()?, KeyId(self.array()?));
                let set = match self.byte()? {
                    0 => None,
                    _ => Some(Size { keys: self.number()?, commitment: self.array()? }),
                };
                Some(Announced { name, key, set })
            })
            .collect();
        let count = match self.byte()? {
            0 => None,
            _ => Some(self.number()?),
        };
        let finished_at = self.number()?;
        let parties = parties?;
        Some(Testimony { job, sid, protocol, witness, parties, count, finished_at })
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn name(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        let (name, rest) =
            self.0.split_at_checked(length).filter(|_| length <= MAXIMUM_NAME_BYTES)?;
        self.0 = rest;
        std::str::from_utf8(name).ok().filter(|name| is_name(name)).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn testimony(count: Option<u64>) -> Testimony {
        let party =
            |name: &str, key, set| Announced { name: name.to_owned(), key: KeyId([key; 32]), set };
        let set = Some(Size { keys: 1000, commitment: [4; 32] });
        Testimony {
            job: JobDigest([1; 32]),
            sid: [2; 32],
            protocol: Protocol::Ecdh,
            witness: "bob".to_owned(),
            parties: vec![party("alice", 3, set), party("bob", 5, set), party("carol", 6, None)],
            count,
            finished_at: 1_800_000_000,
        }
    }

    #[test]
    fn what_is_signed_is_read() {
        let identity = Identity::generate();
        for testimony in [testimony(None), testimony(Some(7))] {
            let signed = SignedTestimony::by(&identity, &testimony);
            let read = SignedTestimony::from_message(&signed.to_message()).unwrap();
            assert_eq!(read.verify(KeyId::of_spki(identity.spki())), Ok(testimony));
        }
    }

    #[test]
    fn testimony_of_another_key_or_changed_since() {
        let (bob, mallory) = (Identity::generate(), Identity::generate());
        let key = KeyId::of_spki(bob.spki());
        let refused = |signed: &SignedTestimony| {
            assert_eq!(signed.verify(key), Err(TestimonyError::Signature));
        };
        refused(&SignedTestimony::by(&mallory, &testimony(None)));
        let by_mallory = SignedTestimony::by(&mallory, &testimony(None));
        refused(&SignedTestimony { spki: bob.spki().to_vec(), ..by_mallory });
        let mut changed = SignedTestimony::by(&bob, &testimony(Some(7)));
        *changed.testimony.last_mut().unwrap() ^= 1;
        refused(&changed);
    }

    #[test]
    fn bytes_in_another_form() {
        let bytes = testimony(Some(7)).encode();
        for length in 0..bytes.len() {
            assert!(Testimony::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
        assert!(Testimony::decode(&[&bytes[..], &[0]].concat()).is_err());
        // A count is said or not said in one way each.
        let mut other = bytes.clone();
        let at = other.len() - 17;
        assert_eq!(other[at], 1);
        other[at] = 2;
        assert!(Testimony::decode(&other).is_err());
        let message = SignedTestimony::by(&Identity::generate(), &testimony(None)).to_message();
        for length in 0..message.len() {
            assert!(SignedTestimony::from_message(&message[..length]).is_err());
        }
    }
}
