//! What a party does to agree on the job key.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, EcdsaKeyPair, KeyPair as _, ParsedPublicKey};
use hkdf::{Hkdf, HkdfExtract};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use rand_core::CryptoRng;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::{AgreementError, Assembled, Confirmation, KeyOffer, Member, SealedShare, framed};
use crate::job::{Job, JobDigest, KeyId, Parties, is_name};
use crate::keys::Pseudonymiser;
use crate::limits::{
    ENCAPSULATED_KEY_BYTES, MAXIMUM_NAME_BYTES, MAXIMUM_SIGNATURE_BYTES, ONE_TIME_KEY_BYTES,
    SEALED_SHARE_BYTES, SHARE_BYTES,
};

const OFFER_LABEL: &[u8] = b"convelo key offer v2";
const SHARE_LABEL: &[u8] = b"convelo key share v2";
const PSEUDONYM_LABEL: &[u8] = b"convelo pseudonym key v2";
const CONFIRMATION_LABEL: &[u8] = b"convelo key confirmation v2";
const CONFIRMED_LABEL: &[u8] = b"convelo key agreement confirmed v2";
const SHARDS_LABEL: &[u8] = b"convelo/join/shards/v2";

/// The start of the SubjectPublicKeyInfo (DER) of every P-256 key whose point is not compressed
/// (RFC 5480); both coordinates follow, 64 bytes.
const SPKI_BEGINNING: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];

type PrivateKey = <XWing as Kem>::PrivateKey;
type PublicKey = <XWing as Kem>::PublicKey;
type EncappedKey = <XWing as Kem>::EncappedKey;

/// One party's contribution to the job key.
type Share = Zeroizing<[u8; SHARE_BYTES]>;

/// The first state: a one-time key is made and signed; the other parties are not known yet.
pub struct Opening {
    digest: JobDigest,
    name: String,
    identity: EcdsaKeyPair,
    secret: PrivateKey,
    offer: KeyOffer,
}

impl Opening {
    /// Makes a one-time key and signs it with the party's identity key: ECDSA P-256 with SHA-256,
    /// signatures in DER.
    pub fn new(job: &Job, name: &str, identity: &EcdsaKeyPair, rng: &mut impl CryptoRng) -> Self {
        let digest = job.digest();
        let (secret, one_time_key) = one_time_key(rng);
        let signature = signature(identity, &offer_message(digest, name, &one_time_key));
        let offer = KeyOffer { one_time_key, signature };
        Self { digest, name: name.to_owned(), identity: identity.clone(), secret, offer }
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
        assembled: &Assembled,
        rng: &mut impl CryptoRng,
    ) -> Result<(Sealing, Vec<SealedShare>), AgreementError> {
        if job.digest() != self.digest {
            return Err(AgreementError::JobChanged);
        }
        check_roster(job, &assembled.members)?;
        self.check_own_entry(&assembled.members)?;
        for member in &assembled.members {
            check_offer(self.digest, member)?;
        }
        self.seal(assembled, rng)
    }

    fn check_own_entry(&self, members: &[Member]) -> Result<(), AgreementError> {
        let changed = |what| AgreementError::OwnEntry { name: self.name.clone(), what };
        let own = members.iter().find(|member| member.name == self.name);
        let own = own.ok_or_else(|| changed("name"))?;
        if own.spki != spki_of(&self.identity) {
            return Err(changed("identity key"));
        }
        if own.offer != self.offer {
            return Err(changed("one-time key"));
        }
        Ok(())
    }

    fn seal(
        self,
        assembled: &Assembled,
        rng: &mut impl CryptoRng,
    ) -> Result<(Sealing, Vec<SealedShare>), AgreementError> {
        let transcript = assembled.transcript(self.digest);
        let mut share = Share::default();
        rng.fill_bytes(&mut *share);
        let mut sealed = Vec::new();
        let mut others = BTreeMap::new();
        for member in assembled.members.iter().filter(|member| member.name != self.name) {
            let recipient = PublicKey::from_bytes(&*member.offer.one_time_key)
                .map_err(|_| AgreementError::BadOneTimeKey { name: member.name.clone() })?;
            let info = share_info(self.digest, &transcript, &self.name, &member.name);
            let (encapped, ciphertext) = hpke::single_shot_seal_with_rng::<
                ChaCha20Poly1305,
                HkdfSha256,
                XWing,
            >(
                &OpModeS::Base, &recipient, &info, &*share, &[], rng
            )
            .map_err(|_| AgreementError::BadOneTimeKey { name: member.name.clone() })?;
            let mut bytes = encapped.to_bytes().to_vec();
            bytes.extend_from_slice(&ciphertext);
            sealed.push(SealedShare {
                from: self.name.clone(),
                to: member.name.clone(),
                sealed: bytes,
            });
            others.insert(member.name.clone(), member.spki.clone());
        }
        let Self { digest, name, identity, secret, .. } = self;
        Ok((Sealing { digest, name, identity, secret, share, transcript, others }, sealed))
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
    identity: EcdsaKeyPair,
    secret: PrivateKey,
    share: Share,
    transcript: [u8; 32],
    /// The other parties' identity keys.
    others: BTreeMap<String, Vec<u8>>,
}

impl Sealing {
    /// Opens the shares of all other parties, in any order, derives the keys, and signs this run.
    ///
    /// # Errors
    /// Unless there is exactly one share from each other party, sealed to us in this run by someone
    /// who was shown the same members.
    #[expect(clippy::missing_panics_doc, reason = "a tag is derived for every party")]
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
        let (key, mut tags) = derive(self.digest, &self.transcript, &shares);
        drop(shares);
        let tag = tags.remove(&self.name).expect("derived for every party");
        let message = confirmed_message(self.digest, &self.transcript, &self.name, &tag);
        let own = Confirmation { tag, signature: signature(&self.identity, &message) };
        let Self { digest, name, transcript, others, .. } = self;
        let mut expected = BTreeMap::new();
        for (other, spki) in others {
            let tag = tags.remove(&other).expect("derived for every party");
            expected.insert(other, Expected { spki, tag });
        }
        Ok((Confirming { key, digest, name, transcript, own: tag, others: expected }, own))
    }

    fn open(&self, share: &SealedShare) -> Result<(&str, Share), AgreementError> {
        if share.to != self.name {
            return Err(AgreementError::NotForUs {
                from: shown(&share.from),
                to: shown(&share.to),
            });
        }
        let (name, _) = self
            .others
            .get_key_value(&share.from)
            .ok_or_else(|| AgreementError::Stranger { name: shown(&share.from) })?;
        let unreadable = || AgreementError::Unreadable { name: name.clone() };
        let (encapped, ciphertext) = share
            .sealed
            .split_first_chunk::<ENCAPSULATED_KEY_BYTES>()
            .filter(|_| share.sealed.len() == SEALED_SHARE_BYTES)
            .ok_or_else(unreadable)?;
        let encapped = EncappedKey::from_bytes(encapped).map_err(|_| unreadable())?;
        let info = share_info(self.digest, &self.transcript, name, &self.name);
        let opened = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, XWing>(
            &OpModeR::Base,
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
    digest: JobDigest,
    name: String,
    transcript: [u8; 32],
    own: [u8; 32],
    others: BTreeMap<String, Expected>,
}

/// What another party's confirmation must show.
struct Expected {
    spki: Vec<u8>,
    tag: [u8; 32],
}

impl Confirming {
    /// Compares the tags of all other parties, in any order, verifies their signatures over this
    /// run, and releases the key. Our own confirmation may be among them.
    ///
    /// # Errors
    /// If one is missing, repeated, a stranger's, shows another key than ours, or is not signed by
    /// its party for this run.
    pub fn confirmed(self, all: &[(String, Confirmation)]) -> Result<JobKey, AgreementError> {
        self.check(all)?;
        Ok(self.key)
    }

    fn check(&self, all: &[(String, Confirmation)]) -> Result<(), AgreementError> {
        let mut seen = BTreeSet::new();
        for (name, confirmation) in all {
            if *name == self.name {
                is_ours(name, confirmation, &self.own)?;
            } else {
                let expected = self.others.get(name);
                let expected =
                    expected.ok_or_else(|| AgreementError::Stranger { name: shown(name) })?;
                is_ours(name, confirmation, &expected.tag)?;
                self.check_signature(name, &expected.spki, confirmation)?;
            }
            if !seen.insert(name) {
                return Err(AgreementError::Twice { name: name.clone() });
            }
        }
        match self.others.keys().find(|name| !seen.contains(name)) {
            Some(name) => Err(AgreementError::MissingConfirmation { name: name.clone() }),
            None => Ok(()),
        }
    }

    fn check_signature(
        &self,
        name: &str,
        spki: &[u8],
        confirmation: &Confirmation,
    ) -> Result<(), AgreementError> {
        let Confirmation { tag, signature } = confirmation;
        let message = confirmed_message(self.digest, &self.transcript, name, tag);
        if is_signed(spki, &message, signature) {
            Ok(())
        } else {
            Err(AgreementError::NotThisRun { name: name.to_owned() })
        }
    }
}

/// Compares a tag with the one that we derived, in constant time.
fn is_ours(
    name: &str,
    confirmation: &Confirmation,
    expected: &[u8; 32],
) -> Result<(), AgreementError> {
    if confirmation.tag.ct_eq(expected).into() {
        Ok(())
    } else {
        Err(AgreementError::Mismatch { name: name.to_owned() })
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
            .expand(SHARDS_LABEL, &mut *pseudonym_key)
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
        if !keys.insert(key) || !one_time_keys.insert(&member.offer.one_time_key) {
            return Err(AgreementError::SharedKey { name: name() });
        }
    }
    Ok(())
}

/// Checks that a member's one-time key is signed by its identity key for this job and this name.
///
/// The identity key must be in the one form that we write ourselves: one key has one identity.
fn check_offer(digest: JobDigest, member: &Member) -> Result<(), AgreementError> {
    let Member { name, spki, offer } = member;
    let usual = spki.starts_with(&SPKI_BEGINNING) && spki.len() == SPKI_BEGINNING.len() + 64;
    if !usual || ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, spki).is_err() {
        return Err(AgreementError::BadIdentityKey { name: name.clone() });
    }
    if is_signed(spki, &offer_message(digest, name, &offer.one_time_key), &offer.signature) {
        Ok(())
    } else {
        Err(AgreementError::Signature { name: name.clone() })
    }
}

/// Whether the key with this SubjectPublicKeyInfo (DER) signed the message.
fn is_signed(spki: &[u8], message: &[u8], signature: &[u8]) -> bool {
    signature.len() <= MAXIMUM_SIGNATURE_BYTES
        && ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, spki)
            .is_ok_and(|key| key.verify_sig(message, signature).is_ok())
}

fn spki_of(key: &EcdsaKeyPair) -> Vec<u8> {
    let der: PublicKeyX509Der<'_> = key.public_key().as_der().expect("a P-256 key has a DER form");
    der.as_ref().to_vec()
}

fn signature(key: &EcdsaKeyPair, message: &[u8]) -> Vec<u8> {
    let signature = key.sign(&SystemRandom::new(), message).expect("a key pair signs");
    signature.as_ref().to_vec()
}

fn one_time_key(rng: &mut impl CryptoRng) -> (PrivateKey, Box<[u8; ONE_TIME_KEY_BYTES]>) {
    let (secret, public) = XWing::gen_keypair_with_rng(rng);
    let mut bytes = Box::new([0; ONE_TIME_KEY_BYTES]);
    public.write_exact(&mut *bytes);
    (secret, bytes)
}

fn offer_message(
    digest: JobDigest,
    name: &str,
    one_time_key: &[u8; ONE_TIME_KEY_BYTES],
) -> Vec<u8> {
    framed(&[OFFER_LABEL, &digest.0, name.as_bytes(), one_time_key])
}

fn share_info(digest: JobDigest, transcript: &[u8; 32], from: &str, to: &str) -> Vec<u8> {
    framed(&[SHARE_LABEL, &digest.0, transcript, from.as_bytes(), to.as_bytes()])
}

fn confirmed_message(
    digest: JobDigest,
    transcript: &[u8; 32],
    name: &str,
    tag: &[u8; 32],
) -> Vec<u8> {
    framed(&[CONFIRMED_LABEL, &digest.0, transcript, name.as_bytes(), tag])
}

/// HKDF-SHA256 with the job digest as salt over all names and shares in name order; from it, each
/// under its own label, the job key and a tag for each party.
fn derive(
    digest: JobDigest,
    transcript: &[u8; 32],
    shares: &BTreeMap<&str, Share>,
) -> (JobKey, BTreeMap<String, [u8; 32]>) {
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
    let tag = |name: &&str| {
        let mut tag = [0; 32];
        expand(&[CONFIRMATION_LABEL, transcript, name.as_bytes()], &mut tag);
        ((*name).to_owned(), tag)
    };
    (JobKey { pseudonym_key }, shares.keys().map(tag).collect())
}

/// A name from a peer, made safe for an error text.
fn shown(name: &str) -> String {
    name.escape_debug().take(MAXIMUM_NAME_BYTES).collect()
}

#[cfg(test)]
mod tests;
