//! The job key: agreed between the parties, relayed by a service that cannot read it.
//!
//! Each party sends four messages, and each state replaces the previous one, so no step can be left
//! out or repeated:
//!
//! 1. [`Opening`] makes a one-time X25519 key and signs it with the party's identity key for this
//!    job ([`KeyOffer`]).
//! 2. When all parties are there, [`Opening::assembled`] checks everybody's identity and offer and
//!    seals 32 random bytes, the party's share, to each other party's one-time key: HPKE (RFC 9180)
//!    with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305 in Auth mode with the sender's
//!    one-time key. The HPKE `info` binds the job, sender, recipient, and the transcript: all
//!    members as this party was shown them.
//! 3. [`Sealing::shares`] opens the others' shares, derives the keys by HKDF-SHA256 (RFC 5869) from
//!    all shares under the job digest and the transcript, and gives a [`Confirmation`].
//! 4. [`Confirming::confirmed`] compares everybody's confirmation and releases the [`JobKey`].
//!
//! The key is unknown to anyone who holds no identity key of the roster, and it is fresh if at
//! least one party's share is. A relay that shows parties different offers is noticed in step 3,
//! because the shares do not open under different transcripts; a party that gives the others
//! different shares is noticed in step 4. If a job pins no identities, the parties must trust the
//! attested service to identify the members; a dishonest service can then place itself between them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, EcdsaKeyPair, KeyPair as _, ParsedPublicKey};
use hkdf::{Hkdf, HkdfExtract};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::job::{Job, JobDigest, KeyId, Parties, is_name};
use crate::keys::Pseudonymiser;
use crate::limits::{MAXIMUM_NAME_BYTES, MAXIMUM_SIGNATURE_BYTES, SEALED_SHARE_BYTES, SHARE_BYTES};

const OFFER_LABEL: &[u8] = b"convelo key offer v1";
const TRANSCRIPT_LABEL: &[u8] = b"convelo key agreement members v1";
const SHARE_LABEL: &[u8] = b"convelo key share v1";
// The derived key depends on these bytes: they keep the word that version 1 began with.
const PSEUDONYM_LABEL: &[u8] = b"convelo fingerprint key v1";
const CONFIRMATION_LABEL: &[u8] = b"convelo key confirmation v1";

/// The start of the SubjectPublicKeyInfo (DER) of every P-256 key whose point is not compressed
/// (RFC 5480); both coordinates follow, 64 bytes.
const SPKI_BEGINNING: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];

type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;
type PublicKey = <X25519HkdfSha256 as Kem>::PublicKey;
type EncappedKey = <X25519HkdfSha256 as Kem>::EncappedKey;

/// One party's contribution to the job key.
type Share = Zeroizing<[u8; SHARE_BYTES]>;

/// A party's one-time key for one run of one job. Public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyOffer {
    /// X25519 public key.
    pub one_time_key: [u8; 32],
    /// ECDSA-P256-SHA256 signature (DER) of the party's identity key over label, job digest, party
    /// name and one-time key, each preceded by its length.
    pub signature: Vec<u8>,
}

/// A party of an assembled job, as the service shows it. Public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The party's name.
    pub name: String,
    /// SubjectPublicKeyInfo (DER) of its identity key.
    pub spki: Vec<u8>,
    /// Its one-time key.
    pub offer: KeyOffer,
}

/// One party's share for one other party. Only that party can open it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedShare {
    /// Name of the party whose share it is.
    pub from: String,
    /// Name of the party that it is sealed to.
    pub to: String,
    /// HPKE's encapsulated key (32 bytes), then the ciphertext (48 bytes).
    pub sealed: Vec<u8>,
}

/// Shows that a party derived the same keys as the others. Derived alongside the job key by HKDF;
/// says nothing about it. Compared in constant time.
#[derive(Clone, Copy)]
pub struct Confirmation(pub [u8; 32]);

impl PartialEq for Confirmation {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Confirmation {}

impl fmt::Debug for Confirmation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Confirmation(..)")
    }
}

/// Why the parties have no job key. Names the party in question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AgreementError {
    /// The one-time key was signed for another job.
    #[error("the one-time key was made for another job: begin the agreement again")]
    JobChanged,
    /// The wrong number of members.
    #[error(
        "the service shows {found} parties, expected {expected}: it runs another job, or leaves a \
         party out"
    )]
    PartyCount {
        /// Members shown.
        found: usize,
        /// Parties of the job.
        expected: usize,
    },
    /// Someone whom the job does not know.
    #[error("'{name}' is not a party of this job: the service let a stranger in")]
    Stranger {
        /// The stranger's name.
        name: String,
    },
    /// A name that should appear once appears twice.
    #[error("'{name}' appears twice: the service mixed up two parties")]
    Twice {
        /// The name.
        name: String,
    },
    /// Two members show the same key.
    #[error("'{name}' shows the key of another party: the two are one, or it copied the key")]
    SharedKey {
        /// The second of the two.
        name: String,
    },
    /// A member shows another identity key than the one that the job pins for its name.
    #[error(
        "'{name}' shows the key {found}, expected {expected}, which the job pins: someone else uses \
         its name, or the job file has an old key"
    )]
    WrongKey {
        /// The party.
        name: String,
        /// The key shown.
        found: KeyId,
        /// The key in the job.
        expected: KeyId,
    },
    /// An identity key that is not a P-256 key in the usual form.
    #[error("'{name}' shows an identity key that is not an ECDSA P-256 key in DER: make a new one")]
    BadIdentityKey {
        /// The party.
        name: String,
    },
    /// A one-time key that is not signed by its party for this job.
    #[error(
        "the one-time key of '{name}' is not signed by its identity key for this job and name: it \
         was replaced on its way, or belongs to another job"
    )]
    Signature {
        /// The party.
        name: String,
    },
    /// A one-time key to which nothing can be sealed.
    #[error("the one-time key of '{name}' is not a usable X25519 key: its program is broken")]
    BadOneTimeKey {
        /// The party.
        name: String,
    },
    /// Our own entry among the members is missing or not what we sent.
    #[error(
        "the service shows our own entry '{name}' with a different {what} from the one we sent"
    )]
    OwnEntry {
        /// Our name.
        name: String,
        /// What was changed.
        what: &'static str,
    },
    /// A share that is sealed to someone else.
    #[error(
        "we received a share of '{from}' for '{to}': the service delivered it to the wrong party"
    )]
    NotForUs {
        /// Whose share.
        from: String,
        /// Whom it is for.
        to: String,
    },
    /// A share did not arrive.
    #[error("the share of '{name}' is missing: the service did not deliver it")]
    MissingShare {
        /// Whose share.
        name: String,
    },
    /// A share that cannot be opened.
    #[error(
        "the share of '{name}' cannot be opened: it was altered on its way, belongs to another \
         run, or the service showed its sender different one-time keys from those it showed us"
    )]
    Unreadable {
        /// Whose share.
        name: String,
    },
    /// A confirmation did not arrive.
    #[error("the confirmation of '{name}' is missing: the service did not deliver it")]
    MissingConfirmation {
        /// Whose confirmation.
        name: String,
    },
    /// A party derived a different key from ours.
    #[error(
        "'{name}' has a different job key from ours: the service or a party showed different \
         things to different parties; nothing was sent"
    )]
    Mismatch {
        /// The party.
        name: String,
    },
}

/// The first state: a one-time key is made and signed; the other parties are not known yet.
pub struct Opening {
    digest: JobDigest,
    name: String,
    spki: Vec<u8>,
    secret: PrivateKey,
    offer: KeyOffer,
}

impl Opening {
    /// Makes a one-time key and signs it with the party's identity key: ECDSA P-256 with SHA-256,
    /// signatures in DER.
    pub fn new(job: &Job, name: &str, identity: &EcdsaKeyPair, rng: &mut impl CryptoRng) -> Self {
        let digest = job.digest();
        let (secret, public) = X25519HkdfSha256::gen_keypair_with_rng(rng);
        let one_time_key = public.to_bytes().into();
        let signature = signature(identity, &offer_message(digest, name, &one_time_key));
        let offer = KeyOffer { one_time_key, signature };
        Self { digest, name: name.to_owned(), spki: spki_of(identity), secret, offer }
    }

    /// What is to be shown to the other parties.
    pub fn offer(&self) -> KeyOffer {
        self.offer.clone()
    }

    /// Checks all members, including this party, in any order, and seals a fresh share to each of
    /// the others.
    ///
    /// # Errors
    /// If the members are not exactly the job's parties with their pinned keys (if none are pinned:
    /// as many parties as the job says, with different names and keys), if a one-time key is not
    /// signed by its party for this job, or if our own entry is not what we sent.
    pub fn assembled(
        self,
        job: &Job,
        members: &[Member],
        rng: &mut impl CryptoRng,
    ) -> Result<(Sealing, Vec<SealedShare>), AgreementError> {
        if job.digest() != self.digest {
            return Err(AgreementError::JobChanged);
        }
        check_roster(job, members)?;
        self.check_own_entry(members)?;
        for member in members {
            check_offer(self.digest, member)?;
        }
        self.seal(members, rng)
    }

    fn check_own_entry(&self, members: &[Member]) -> Result<(), AgreementError> {
        let changed = |what| AgreementError::OwnEntry { name: self.name.clone(), what };
        let own = members.iter().find(|member| member.name == self.name);
        let own = own.ok_or_else(|| changed("name"))?;
        if own.spki != self.spki {
            return Err(changed("identity key"));
        }
        if own.offer != self.offer {
            return Err(changed("one-time key"));
        }
        Ok(())
    }

    fn seal(
        self,
        members: &[Member],
        rng: &mut impl CryptoRng,
    ) -> Result<(Sealing, Vec<SealedShare>), AgreementError> {
        let transcript = transcript(self.digest, members);
        let mut share = Share::default();
        rng.fill_bytes(&mut *share);
        let own = public_key(&self.offer.one_time_key);
        let mode = OpModeS::Auth((self.secret.clone(), own));
        let mut sealed = Vec::new();
        let mut others = BTreeMap::new();
        for member in members.iter().filter(|member| member.name != self.name) {
            let recipient = public_key(&member.offer.one_time_key);
            let info = share_info(self.digest, &transcript, &self.name, &member.name);
            let (encapped, ciphertext) = hpke::single_shot_seal_with_rng::<
                ChaCha20Poly1305,
                HkdfSha256,
                X25519HkdfSha256,
            >(&mode, &recipient, &info, &*share, &[], rng)
            .map_err(|_| AgreementError::BadOneTimeKey { name: member.name.clone() })?;
            let mut bytes = encapped.to_bytes().to_vec();
            bytes.extend_from_slice(&ciphertext);
            sealed.push(SealedShare {
                from: self.name.clone(),
                to: member.name.clone(),
                sealed: bytes,
            });
            others.insert(member.name.clone(), recipient);
        }
        let Self { digest, name, secret, .. } = self;
        Ok((Sealing { digest, name, secret, share, transcript, others }, sealed))
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The second state: our shares are on their way, and we are waiting for the others'.
pub struct Sealing {
    digest: JobDigest,
    name: String,
    secret: PrivateKey,
    share: Share,
    transcript: [u8; 32],
    others: BTreeMap<String, PublicKey>,
}

impl Sealing {
    /// Opens the shares of all other parties, in any order, and derives the keys.
    ///
    /// # Errors
    /// Unless there is exactly one share from each other party, sealed to us in this run by a party
    /// that was shown the same members.
    #[expect(clippy::missing_panics_doc, reason = "a confirmation is derived for every party")]
    pub fn shares(
        self,
        sealed: &[SealedShare],
    ) -> Result<(Confirming, Confirmation), AgreementError> {
        let mut shares = BTreeMap::new();
        for share in sealed {
            let (name, opened) = self.open(share)?;
            if shares.insert(name, opened).is_some() {
                return Err(AgreementError::Twice { name: name.to_owned() });
            }
        }
        if let Some(name) = self.others.keys().find(|name| !shares.contains_key(name.as_str())) {
            return Err(AgreementError::MissingShare { name: name.clone() });
        }
        shares.insert(&self.name, self.share.clone());
        let (key, mut confirmations) = derive(self.digest, &self.transcript, &shares);
        let own = confirmations.remove(&self.name).expect("derived for every party");
        drop(shares);
        Ok((Confirming { key, name: self.name, own, others: confirmations }, own))
    }

    fn open(&self, share: &SealedShare) -> Result<(&str, Share), AgreementError> {
        if share.to != self.name {
            return Err(AgreementError::NotForUs {
                from: shown(&share.from),
                to: shown(&share.to),
            });
        }
        let (name, sender) = self
            .others
            .get_key_value(&share.from)
            .ok_or_else(|| AgreementError::Stranger { name: shown(&share.from) })?;
        let unreadable = || AgreementError::Unreadable { name: name.clone() };
        let (encapped, ciphertext) = share
            .sealed
            .split_first_chunk::<32>()
            .filter(|_| share.sealed.len() == SEALED_SHARE_BYTES)
            .ok_or_else(unreadable)?;
        let encapped = EncappedKey::from_bytes(encapped).map_err(|_| unreadable())?;
        let mode = OpModeR::Auth(sender.clone());
        let info = share_info(self.digest, &self.transcript, name, &self.name);
        let opened = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &mode,
            &self.secret,
            &encapped,
            &info,
            ciphertext,
            &[],
        )
        .map(Zeroizing::new)
        .map_err(|_| unreadable())?;
        let mut plain = Share::default();
        plain.copy_from_slice(&opened);
        Ok((name, plain))
    }
}

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealing").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The third state: the key is derived; we do not know yet whether everybody has it.
pub struct Confirming {
    key: JobKey,
    name: String,
    own: Confirmation,
    others: BTreeMap<String, Confirmation>,
}

impl Confirming {
    /// Compares the confirmations of all other parties, in any order, and releases the key. Our own
    /// may be among them.
    ///
    /// # Errors
    /// If one is missing, repeated, a stranger's, or shows another key than ours.
    pub fn confirmed(self, all: &[(String, Confirmation)]) -> Result<JobKey, AgreementError> {
        let mut seen = BTreeSet::new();
        for (name, confirmation) in all {
            let expected = if *name == self.name { Some(&self.own) } else { self.others.get(name) };
            let expected =
                expected.ok_or_else(|| AgreementError::Stranger { name: shown(name) })?;
            if confirmation != expected {
                return Err(AgreementError::Mismatch { name: name.clone() });
            }
            if !seen.insert(name) {
                return Err(AgreementError::Twice { name: name.clone() });
            }
        }
        match self.others.keys().find(|name| !seen.contains(name)) {
            Some(name) => Err(AgreementError::MissingConfirmation { name: name.clone() }),
            None => Ok(self.key),
        }
    }
}

impl fmt::Debug for Confirming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Confirming").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The key that all parties of a job share, confirmed by all. Wiped when dropped.
pub struct JobKey {
    pseudonym_key: Zeroizing<[u8; 16]>,
}

impl JobKey {
    /// The keyed function that makes this job's pseudonyms.
    pub fn pseudonymiser(&self) -> Pseudonymiser {
        Pseudonymiser::new(&self.pseudonym_key)
    }
}

impl JobKey {
    /// The key of a job that is spread over several services, derived from the keys that the
    /// parties agreed on through each: HKDF-SHA256 (RFC 5869) over all of them, with the job's
    /// digest as salt. No service has it, unless all of them together broke theirs. With one
    /// service, it is that service's key.
    #[must_use]
    pub fn combined(mut keys: Vec<Self>, job: JobDigest) -> Self {
        if keys.len() == 1
            && let Some(key) = keys.pop()
        {
            return key;
        }
        let mut secret = Zeroizing::new(Vec::with_capacity(keys.len() * 16));
        for key in &keys {
            secret.extend_from_slice(&*key.pseudonym_key);
        }
        let mut pseudonym_key = Zeroizing::new([0; 16]);
        Hkdf::<Sha256>::new(Some(&job.0), &secret)
            .expand(b"convelo/join/shards/v1", &mut *pseudonym_key)
            .expect("16 bytes are a valid length");
        Self { pseudonym_key }
    }
}

impl fmt::Debug for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JobKey(..)")
    }
}

/// Checks that names and identity keys are exactly those of the job, and that nobody appears twice.
fn check_roster(job: &Job, members: &[Member]) -> Result<(), AgreementError> {
    let (found, expected) = (members.len(), job.parties().count());
    if found != expected {
        return Err(AgreementError::PartyCount { found, expected });
    }
    let (mut names, mut keys, mut one_time_keys) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for member in members {
        let name = || shown(&member.name);
        let key = KeyId::of_spki(&member.spki);
        match job.parties() {
            Parties::Named(_) => {
                let party = job.party(&member.name);
                let party = party.ok_or_else(|| AgreementError::Stranger { name: name() })?;
                if party.key != key {
                    let (found, expected) = (key, party.key);
                    return Err(AgreementError::WrongKey { name: name(), found, expected });
                }
            }
            Parties::Unpinned { .. } if !is_name(&member.name) => {
                return Err(AgreementError::Stranger { name: name() });
            }
            Parties::Unpinned { .. } => {}
        }
        if !names.insert(&member.name) {
            return Err(AgreementError::Twice { name: name() });
        }
        if !keys.insert(key) || !one_time_keys.insert(member.offer.one_time_key) {
            return Err(AgreementError::SharedKey { name: name() });
        }
    }
    Ok(())
}

/// Checks that a member's one-time key is signed by its identity key for this job and this name.
///
/// The identity key must be in the one form that we write ourselves: one key has one identity.
fn check_offer(digest: JobDigest, member: &Member) -> Result<(), AgreementError> {
    let name = || member.name.clone();
    let identity = Some(&member.spki)
        .filter(|spki| spki.starts_with(&SPKI_BEGINNING) && spki.len() == SPKI_BEGINNING.len() + 64)
        .and_then(|spki| ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, spki).ok())
        .ok_or_else(|| AgreementError::BadIdentityKey { name: name() })?;
    let message = offer_message(digest, &member.name, &member.offer.one_time_key);
    Some(&member.offer.signature)
        .filter(|signature| signature.len() <= MAXIMUM_SIGNATURE_BYTES)
        .and_then(|signature| identity.verify_sig(&message, signature).ok())
        .ok_or_else(|| AgreementError::Signature { name: name() })
}

fn spki_of(key: &EcdsaKeyPair) -> Vec<u8> {
    let der: PublicKeyX509Der<'_> = key.public_key().as_der().expect("a P-256 key has a DER form");
    der.as_ref().to_vec()
}

fn signature(key: &EcdsaKeyPair, message: &[u8]) -> Vec<u8> {
    let signature = key.sign(&SystemRandom::new(), message).expect("a key pair signs");
    signature.as_ref().to_vec()
}

fn public_key(bytes: &[u8; 32]) -> PublicKey {
    PublicKey::from_bytes(bytes).expect("every 32 bytes are an X25519 public key")
}

fn offer_message(digest: JobDigest, name: &str, one_time_key: &[u8; 32]) -> Vec<u8> {
    framed(&[OFFER_LABEL, &digest.0, name.as_bytes(), one_time_key])
}

fn share_info(digest: JobDigest, transcript: &[u8; 32], from: &str, to: &str) -> Vec<u8> {
    framed(&[SHARE_LABEL, &digest.0, transcript, from.as_bytes(), to.as_bytes()])
}

/// SHA-256 over the job and everything that a party was shown about each member, by name.
fn transcript(digest: JobDigest, members: &[Member]) -> [u8; 32] {
    let mut sorted: Vec<_> = members.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut hash = Sha256::new_with_prefix(framed(&[TRANSCRIPT_LABEL, &digest.0]));
    for member in sorted {
        let Member { name, spki, offer } = member;
        hash.update(framed(&[name.as_bytes(), spki, &offer.one_time_key, &offer.signature]));
    }
    hash.finalize().into()
}

/// HKDF-SHA256 with the job digest as salt over all names and shares in name order; from it, each
/// under its own label, the job key and a confirmation for each party.
fn derive(
    digest: JobDigest,
    transcript: &[u8; 32],
    shares: &BTreeMap<&str, Share>,
) -> (JobKey, BTreeMap<String, Confirmation>) {
    let mut extract = HkdfExtract::<Sha256>::new(Some(&digest.0));
    for (name, share) in shares {
        extract.input_ikm(&Zeroizing::new(framed(&[name.as_bytes(), &**share])));
    }
    let (mut pseudorandom_key, hkdf) = extract.finalize();
    pseudorandom_key.as_mut_slice().zeroize();
    let expand = |parts: &[&[u8]], output: &mut [u8]| {
        hkdf.expand(&framed(parts), output).expect("HKDF gives up to 255 hashes");
    };
    let mut pseudonym_key = Zeroizing::new([0; 16]);
    expand(&[PSEUDONYM_LABEL, transcript], &mut *pseudonym_key);
    let confirmation = |name: &&str| {
        let mut tag = [0; 32];
        expand(&[CONFIRMATION_LABEL, transcript, name.as_bytes()], &mut tag);
        ((*name).to_owned(), Confirmation(tag))
    };
    (JobKey { pseudonym_key }, shares.keys().map(confirmation).collect())
}

/// The parts, each preceded by its length in 32 bits, big-endian.
fn framed(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| 4 + part.len()).sum());
    for part in parts {
        let length = u32::try_from(part.len()).expect("names and keys are short");
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

/// A name from a peer, made safe for an error text.
fn shown(name: &str) -> String {
    name.escape_debug().take(MAXIMUM_NAME_BYTES).collect()
}

#[cfg(test)]
mod tests;
