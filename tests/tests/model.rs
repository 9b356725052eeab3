//! What the formal model binds is what the code binds.
//!
//! `docs/model/bindings.pvl` lists the fields of every hash, derivation and signature, and the models
//! have them from there. Here the same file is read, and the code's own bytes are compared with what
//! it says: digests and statements byte for byte, and the agreement on the job key by a party that
//! speaks by the file alone, with two that run the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
    ParsedPublicKey,
};
use convelo_attest::{EXPORTER_LABEL, OneTimeKey, Role, Session};
use convelo_channel::os_rng;
use convelo_psi::agreement::{
    AgreementError, Assembled, Confirmation, KeyOffer, Member, Opening, SealedShare,
};
use convelo_psi::limits::ONE_TIME_KEY_BYTES;
use convelo_psi::reveal::Told;
use convelo_psi::{Job, JobDigest, KeyId, OutcomeKind, Pseudonymiser, Statement};
use hkdf::{Hkdf, HkdfExtract};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::{Deserializable as _, Kem, OpModeR, OpModeS, Serializable as _};
use sha2::{Digest as _, Sha256, Sha512};

/// What stands in the place of a field.
#[derive(Clone)]
enum Field {
    Constant(Vec<u8>),
    Argument(String),
    Sha256(Box<Self>),
}

/// The definitions of `bindings.pvl`, by name.
#[derive(Clone)]
struct Bindings {
    constants: BTreeMap<String, Vec<u8>>,
    definitions: BTreeMap<String, Vec<Field>>,
}

impl Bindings {
    fn read() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/model/bindings.pvl");
        let text = fs::read_to_string(path).expect("the bindings are beside the models");
        let mut bindings = Self { constants: BTreeMap::new(), definitions: BTreeMap::new() };
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            rest = bindings.declaration(rest).trim_start();
        }
        bindings
    }

    /// Reads the declaration or comment that the text begins with; returns what follows.
    fn declaration<'a>(&mut self, text: &'a str) -> &'a str {
        if let Some(comment) = text.strip_prefix("(*") {
            return comment.split_once("*)").expect("a comment ends").1;
        }
        if let Some(constant) = text.strip_prefix("const ") {
            let (line, rest) = constant.split_once('\n').expect("a line ends");
            let (name, bytes) = line.split_once(": bitstring. (* \"").expect("a constant's bytes");
            let bytes = bytes.strip_suffix("\" *)").expect("the bytes end the line");
            self.constants.insert(name.to_owned(), bytes.as_bytes().to_vec());
            return rest;
        }
        let definition = text.strip_prefix("letfun ").expect("a comment, a constant or a letfun");
        let (definition, rest) = definition.split_once(").\n").expect("a letfun ends");
        let (head, tuple) = definition.split_once(" =\n").expect("a letfun over a tuple");
        let (name, arguments) = head.split_once('(').expect("a letfun has arguments");
        let arguments: Vec<_> = arguments
            .trim_end_matches(')')
            .split(',')
            .map(|argument| argument.trim().strip_suffix(": bitstring").expect("a bitstring"))
            .collect();
        let tuple = tuple.trim().strip_prefix('(').expect("a tuple");
        let fields = tuple.split(',').map(|field| self.field(field.trim(), &arguments)).collect();
        self.definitions.insert(name.to_owned(), fields);
        rest
    }

    fn field(&self, text: &str, arguments: &[&str]) -> Field {
        if let Some(hashed) = text.strip_prefix("sha256(") {
            let hashed = hashed.strip_suffix(')').expect("a hash of one field");
            return Field::Sha256(Box::new(self.field(hashed, arguments)));
        }
        if arguments.contains(&text) {
            return Field::Argument(text.to_owned());
        }
        Field::Constant(self.constant(text).to_vec())
    }

    fn constant(&self, name: &str) -> &[u8] {
        self.constants
            .get(name)
            .unwrap_or_else(|| panic!("'{name}' is neither argument nor constant"))
    }

    /// The fields of a definition, with these values for its arguments.
    fn fields(&self, name: &str, values: &[(&str, &[u8])]) -> Vec<Vec<u8>> {
        let value = |field: &Field| bytes_of(field, values);
        self.definitions[name].iter().map(value).collect()
    }

    /// The same with each field preceded by its length in 32 bits, big-endian.
    fn framed(&self, name: &str, values: &[(&str, &[u8])]) -> Vec<u8> {
        let mut framed = Vec::new();
        for field in self.fields(name, values) {
            framed.extend(u32::try_from(field.len()).expect("short").to_be_bytes());
            framed.extend(field);
        }
        framed
    }

    /// The bindings with one field less.
    fn without(&self, name: &str, field: usize) -> Self {
        let mut bindings = self.clone();
        bindings.definitions.get_mut(name).expect("a definition").remove(field);
        bindings
    }
}

impl Field {
    fn is(&self, argument: &str) -> bool {
        matches!(self, Self::Argument(name) if name == argument)
    }
}

fn bytes_of(field: &Field, values: &[(&str, &[u8])]) -> Vec<u8> {
    match field {
        Field::Constant(bytes) => bytes.clone(),
        Field::Sha256(field) => Sha256::digest(bytes_of(field, values)).to_vec(),
        Field::Argument(name) => {
            let value = values.iter().find(|(argument, _)| argument == name);
            value.unwrap_or_else(|| panic!("the code has no '{name}' to bind")).1.to_vec()
        }
    }
}

#[test]
fn every_binding_is_compared_with_the_code() {
    let definitions = Bindings::read().definitions;
    let defined: BTreeSet<_> = definitions.keys().map(String::as_str).collect();
    assert_eq!(defined, MESSAGES.into_iter().chain(AGREEMENT).collect());
}

#[test]
fn a_session_binds_what_the_model_binds() {
    let bindings = Bindings::read();
    assert_eq!(bindings.constant("attest_exporter"), EXPORTER_LABEL);
    let session = Session {
        exporter: &[1; 32],
        party_nonce: &[2; 32],
        service_nonce: &[3; 32],
        party_spki: b"party's key",
        service_spki: b"service's key",
        job: &[4; 32],
    };
    for (role, name) in [(Role::Party, "role_party"), (Role::Service, "role_service")] {
        let fields = bindings.fields(
            "session_data",
            &[
                ("role", bindings.constant(name)),
                ("exporter", session.exporter),
                ("party_nonce", session.party_nonce),
                ("service_nonce", session.service_nonce),
                ("party_key", session.party_spki),
                ("service_key", session.service_spki),
                ("job", session.job),
            ],
        );
        assert_eq!(session.report_data(role), report_data_of(&fields), "{name}");
    }
}

#[test]
fn a_quote_over_a_one_time_key_binds_what_the_model_binds() {
    let key = OneTimeKey {
        job: &[1; 32],
        party: "alice",
        identity: b"identity key",
        key: b"one-time key",
    };
    let fields = Bindings::read().fields(
        "one_time_key_data",
        &[
            ("job", key.job),
            ("name", key.party.as_bytes()),
            ("identity", key.identity),
            ("one_time_key", key.key),
        ],
    );
    assert_eq!(key.report_data(), report_data_of(&fields));
}

/// SHA-512 over the fields, each preceded by its length in 64 bits, big-endian.
fn report_data_of(fields: &[Vec<u8>]) -> [u8; 64] {
    let mut hash = Sha512::new();
    for field in fields {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field);
    }
    hash.finalize().into()
}

#[test]
fn a_certificate_binds_what_the_model_binds() {
    let spki = b"service's key";
    let fields = Bindings::read().fields("certificate_claims", &[("service_key", spki)]);
    let [claim, digest] = fields.try_into().expect("a claim and a digest");
    // CBOR: a map of one entry, from the claim's name to the array of 1 (SHA-256) and the digest.
    let mut claims = vec![0xA1, 0x60 + u8::try_from(claim.len()).expect("short")];
    claims.extend(claim);
    claims.extend([0x58, 36, 0x82, 1, 0x58, 32]);
    claims.extend(digest);
    let report_data = convelo_attest::report_data(spki);
    assert_eq!(report_data[..32], *Sha256::digest(claims));
    assert_eq!(report_data[32..], [0; 32]);
}

#[test]
fn a_statement_binds_what_the_model_binds() {
    let bindings = Bindings::read();
    let (own, other) = (b"alice's key".as_slice(), b"bob's key".as_slice());
    let statement = Statement {
        job: JobDigest([1; 32]),
        party: "alice".to_owned(),
        party_key: KeyId::of_spki(own),
        members: vec![
            ("alice".to_owned(), KeyId::of_spki(own)),
            ("bob".to_owned(), KeyId::of_spki(other)),
        ],
        keys: 300,
        set_blake3: [2; 32],
        told: Told { kind: OutcomeKind::INTERSECTION, count: 5, sha256: [3; 32] },
        finished_at: 1_800_000_000,
        transcript: Some([4; 32]),
    };
    let bytes: [(&str, &[u8]); 7] = [
        ("job", &[1; 32]),
        ("party", b"alice"),
        ("party_key", own),
        ("set_digest", &[2; 32]),
        ("result_digest", &[3; 32]),
        ("transcript", &[4; 32]),
        ("count", &5_u64.to_be_bytes()),
    ];
    let numbers = [("keys", 300), ("kind", 1), ("finished_at", 1_800_000_000)];
    let mut written = Vec::new();
    for (key, field) in (1..).zip(&bindings.definitions["statement_message"]) {
        let number = numbers.iter().find(|(name, _)| field.is(name));
        if field.is("members") {
            for (name, spki) in [("alice", own), ("bob", other)] {
                let values = [("name", name.as_bytes()), ("party_key", spki)];
                let mut member = Vec::new();
                for (key, field) in (1..).zip(bindings.fields("stated_member", &values)) {
                    put_bytes(&mut member, key, &field);
                }
                put_bytes(&mut written, key, &member);
            }
        } else if let Some((_, number)) = number {
            put_varint(&mut written, key << 3);
            put_varint(&mut written, *number);
        } else {
            put_bytes(&mut written, key, &bytes_of(field, &bytes));
        }
    }
    assert_eq!(statement.encode(), written);
}

/// Adds a field of a Protocol Buffers message.
fn put_bytes(message: &mut Vec<u8>, key: u64, bytes: &[u8]) {
    put_varint(message, key << 3 | 2);
    put_varint(message, bytes.len() as u64);
    message.extend(bytes);
}

fn put_varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    message.push(value.to_le_bytes()[0]);
}

#[test]
fn a_party_that_speaks_by_the_model_agrees_with_the_code() {
    agree(&Bindings::read()).expect("an agreed key");
}

#[test]
fn a_party_that_leaves_a_field_out_is_refused() {
    let bindings = Bindings::read();
    for name in AGREEMENT {
        for field in 0..bindings.definitions[name].len() {
            let refused = agree(&bindings.without(name, field));
            assert!(refused.is_err(), "{name} without field {field}");
        }
    }
}

/// The definitions of single messages, each of which has a test of its own.
const MESSAGES: [&str; 5] = [
    "certificate_claims",
    "session_data",
    "one_time_key_data",
    "stated_member",
    "statement_message",
];

/// The definitions of the agreement on the job key.
const AGREEMENT: [&str; 8] = [
    "offer_message",
    "transcript_head",
    "transcript_member",
    "share_info",
    "derivation_member",
    "key_info",
    "tag_info",
    "confirmed_message",
];

/// What kept the parties from agreeing on a key.
#[derive(Debug)]
#[expect(dead_code, reason = "a test that fails shows it")]
enum Failure {
    /// The code refused the party.
    Refused(AgreementError),
    /// What the code sent or derived is not what the bindings say.
    Differs(&'static str),
}

/// Alice speaks by the bindings; Bob and Carol run the code.
fn agree(bindings: &Bindings) -> Result<(), Failure> {
    let identity = || EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
    let [alice, bob, carol] = [identity(), identity(), identity()];
    let job = job_of(&[("alice", &alice), ("bob", &bob), ("carol", &carol)]);
    let digest: &[u8] = &job.digest().0;

    let (secret, public) = XWing::gen_keypair_with_rng(&mut os_rng());
    let mut one_time_key = Box::new([0; ONE_TIME_KEY_BYTES]);
    public.write_exact(&mut *one_time_key);
    let offer_message = |name: &str, one_time_key: &[u8]| {
        let name = ("name", name.as_bytes());
        let values = [("job", digest), name, ("one_time_key", one_time_key)];
        bindings.framed("offer_message", &values)
    };
    let signature = sign(&alice, &offer_message("alice", one_time_key.as_slice()));
    let offer = KeyOffer { one_time_key, signature };
    let openings = [("bob", &bob), ("carol", &carol)]
        .map(|(name, identity)| Opening::new(&job, name, identity, &mut os_rng()));
    let member = |name: &str, identity: &EcdsaKeyPair, offer: KeyOffer| Member {
        name: name.to_owned(),
        spki: spki(identity),
        offer,
    };
    let members = vec![
        member("alice", &alice, offer),
        member("bob", &bob, openings[0].offer()),
        member("carol", &carol, openings[1].offer()),
    ];
    for Member { name, spki, offer } in &members {
        let message = offer_message(name, offer.one_time_key.as_slice());
        signed(spki, &message, &offer.signature, "offer")?;
    }

    let assembled = Assembled { run: [7; 32], members };
    let mut hash = Sha256::new();
    hash.update(bindings.framed("transcript_head", &[("job", digest), ("run", &assembled.run)]));
    for Member { name, spki, offer } in &assembled.members {
        hash.update(bindings.framed(
            "transcript_member",
            &[
                ("name", name.as_bytes()),
                ("identity", spki),
                ("one_time_key", offer.one_time_key.as_slice()),
                ("offer_signature", &offer.signature),
            ],
        ));
    }
    let transcript: [u8; 32] = hash.finalize().into();
    same(transcript, assembled.transcript(job.digest()), "transcript")?;

    let share_info = |from: &str, to: &str| {
        let ends = [("sender", from.as_bytes()), ("recipient", to.as_bytes())];
        let values = [("job", digest), ("transcript", &transcript), ends[0], ends[1]];
        bindings.framed("share_info", &values)
    };
    let share = [9; 32];
    let mut sent = Vec::new();
    for Member { name, offer, .. } in &assembled.members[1..] {
        let recipient = <XWing as Kem>::PublicKey::from_bytes(offer.one_time_key.as_slice());
        let (encapsulated, ciphertext) =
            hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, XWing>(
                &OpModeS::Base,
                &recipient.expect("an X-Wing key"),
                &share_info("alice", name),
                &share,
                &[],
                &mut os_rng(),
            )
            .expect("sealed");
        let sealed = [encapsulated.to_bytes().as_slice(), &ciphertext].concat();
        sent.push(SealedShare { from: "alice".to_owned(), to: name.clone(), sealed });
    }
    let mut sealings = Vec::new();
    for opening in openings {
        let (sealing, shares) =
            opening.assembled(&job, &assembled, &mut os_rng()).map_err(Failure::Refused)?;
        sealings.push(sealing);
        sent.extend(shares);
    }

    let mut extract = HkdfExtract::<Sha256>::new(Some(digest));
    let mut derive_from = |name: &str, share: &[u8]| {
        let values = [("name", name.as_bytes()), ("share", share)];
        extract.input_ikm(&bindings.framed("derivation_member", &values));
    };
    derive_from("alice", &share);
    for received in sent.iter().filter(|share| share.to == "alice") {
        let (encapsulated, ciphertext) = received.sealed.split_at(received.sealed.len() - 48);
        let encapsulated = <XWing as Kem>::EncappedKey::from_bytes(encapsulated);
        let opened = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, XWing>(
            &OpModeR::Base,
            &secret,
            &encapsulated.expect("an encapsulated key"),
            &share_info(&received.from, "alice"),
            ciphertext,
            &[],
        );
        derive_from(&received.from, &opened.map_err(|_| Failure::Differs("sealed share"))?);
    }
    let (_, derived) = extract.finalize();
    let tag_of = |name: &str| {
        let values = [("transcript", transcript.as_slice()), ("name", name.as_bytes())];
        expand::<32>(&derived, &bindings.framed("tag_info", &values))
    };
    let confirmed_message = |name: &str| {
        let tag = tag_of(name);
        let values = [("job", digest), ("transcript", &transcript), ("name", name.as_bytes())];
        bindings.framed("confirmed_message", &[&values[..], &[("tag", tag.as_slice())]].concat())
    };

    let signature = sign(&alice, &confirmed_message("alice"));
    let mut all = vec![("alice".to_owned(), Confirmation { tag: tag_of("alice"), signature })];
    let mut confirmings = Vec::new();
    for (sealing, name) in sealings.into_iter().zip(["bob", "carol"]) {
        let inbox: Vec<_> = sent.iter().filter(|share| share.to == name).cloned().collect();
        let (confirming, confirmation) = sealing.shares(&inbox).map_err(Failure::Refused)?;
        confirmings.push(confirming);
        all.push((name.to_owned(), confirmation));
    }
    for ((name, confirmation), member) in all.iter().zip(&assembled.members) {
        same(confirmation.tag, tag_of(name), "tag")?;
        signed(&member.spki, &confirmed_message(name), &confirmation.signature, "confirmation")?;
    }
    let key = expand::<16>(
        &derived,
        &bindings.framed("key_info", &[("transcript", transcript.as_slice())]),
    );
    for confirming in confirmings {
        let theirs = confirming.confirmed(&all).map_err(Failure::Refused)?.pseudonymiser();
        let pseudonym = Pseudonymiser::new(&key).pseudonym(b"key").to_be_bytes();
        same(theirs.pseudonym(b"key").to_be_bytes(), pseudonym, "job key")?;
    }
    Ok(())
}

fn job_of(parties: &[(&str, &EcdsaKeyPair)]) -> Job {
    let mut text = r#"
        version = 1
        name = "by-the-model"
        mode = "attested"
        deadline = "30m"
        maximum_keys = 1000
        [service]
        address = "localhost:1"
        [service.policy]
        [[key]]
        name = "email"
        normalise = ["email"]
        [reveal]
        what = "intersection"
    "#
    .to_owned();
    for (name, identity) in parties {
        let key = KeyId::of_spki(&spki(identity));
        text.push_str(&format!("[[party]]\nname = \"{name}\"\nkey = \"{key}\"\n"));
    }
    Job::from_toml(&text).expect("a job")
}

fn spki(key: &EcdsaKeyPair) -> Vec<u8> {
    let der: PublicKeyX509Der<'_> = key.public_key().as_der().expect("a P-256 key");
    der.as_ref().to_vec()
}

fn sign(key: &EcdsaKeyPair, message: &[u8]) -> Vec<u8> {
    key.sign(&SystemRandom::new(), message).expect("a signature").as_ref().to_vec()
}

fn signed(
    spki: &[u8],
    message: &[u8],
    signature: &[u8],
    what: &'static str,
) -> Result<(), Failure> {
    let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, spki).expect("a P-256 key");
    key.verify_sig(message, signature).map_err(|_| Failure::Differs(what))
}

fn same<T: PartialEq>(one: T, other: T, what: &'static str) -> Result<(), Failure> {
    if one == other { Ok(()) } else { Err(Failure::Differs(what)) }
}

fn expand<const N: usize>(hkdf: &Hkdf<Sha256>, info: &[u8]) -> [u8; N] {
    let mut output = [0; N];
    hkdf.expand(info, &mut output).expect("short");
    output
}
