//! What the witness of a job signs for each party at the end.
//!
//! The bytes are those of the message `Statement` in `proto/convelo/join/v1/join.proto`, in exactly
//! one form: every field in order, zeros left out. They begin with a label, so that a signature
//! over them cannot stand for anything else, and so that the form has a version. Version 1 is still
//! read, for receipts that contain it; it says nothing about the transcript or the count.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};

use crate::job::{JobDigest, KeyId, is_name};
use crate::limits::{MAXIMUM_PARTIES, MAXIMUM_SIGNATURE_BYTES, MAXIMUM_SPKI_BYTES};
use crate::outcome::OutcomeKind;
use crate::reveal::Told;

/// What is signed for one party at the end of a job.
#[derive(Clone, PartialEq, Eq)]
pub struct Statement {
    /// The job.
    pub job: JobDigest,
    /// The party that this statement is for.
    pub party: String,
    /// Its key.
    pub party_key: KeyId,
    /// All members, by name, with the keys that they proved.
    pub members: Vec<(String, KeyId)>,
    /// How many pseudonyms the party sent.
    pub keys: u64,
    /// BLAKE3 over them.
    pub set_blake3: [u8; 32],
    /// What the party was told; in version 1, without its count.
    pub told: Told,
    /// Unix seconds by the witness's clock.
    pub finished_at: u64,
    /// What the parties were shown about each other before they agreed on the job key:
    /// [`Assembled::transcript`](crate::agreement::Assembled::transcript). None in version 1.
    pub transcript: Option<[u8; 32]>,
}

/// A statement as it travels, with the signature over it.
#[derive(Clone)]
pub struct SignedStatement {
    /// What [`Statement::encode`] wrote.
    pub statement: Vec<u8>,
    /// ECDSA-P256-SHA256 signature (DER) over it.
    pub signature: Vec<u8>,
}

/// What someone knows about a job's end, apart from a statement.
pub struct Seen<'a> {
    /// The job.
    pub job: JobDigest,
    /// The party that saw it.
    pub party: &'a str,
    /// All parties, in the order of the statement, with the keys that they proved.
    pub members: Vec<(&'a str, KeyId)>,
    /// How many pseudonyms the party sent.
    pub keys: u64,
    /// BLAKE3 over them.
    pub set_blake3: [u8; 32],
    /// What the party was told. The count does not matter to a statement of version 1.
    pub told: Told,
    /// The transcript; none if it is not known, and then it is not compared.
    pub transcript: Option<[u8; 32]>,
}

/// One thing that a statement says, next to what was seen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: found {found}, expected {expected}")]
pub struct Comparison {
    /// What it is about.
    pub what: &'static str,
    /// What the statement says.
    pub found: String,
    /// What was seen.
    pub expected: String,
}

/// Why something is not a statement of the witness.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// The witness has another kind of key.
    #[error("the key it should be signed by is not an ECDSA P-256 key")]
    Key,
    /// It was signed by another key, or changed since.
    #[error("the signature is not by the expected key over these bytes")]
    Signature,
    /// A field has a length or value that is not allowed.
    #[error("{field}: found {found}, expected {expected}")]
    Field {
        /// The field, as in the .proto file.
        field: &'static str,
        /// What arrived.
        found: String,
        /// What was expected.
        expected: String,
    },
}

impl SignedStatement {
    /// Verifies the signature by the key with this SubjectPublicKeyInfo (DER), and reads the
    /// statement.
    ///
    /// # Errors
    /// If it is not signed by that key, or not a statement.
    pub fn verify(&self, spki: &[u8]) -> Result<Statement, StatementError> {
        let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, spki);
        let key = key.map_err(|_| StatementError::Key)?;
        key.verify_sig(&self.statement, &self.signature).map_err(|_| StatementError::Signature)?;
        Statement::decode(&self.statement)
    }
}

impl Statement {
    /// What it says next to what was seen, item by item.
    pub fn compare(&self, seen: &Seen<'_>) -> Vec<Comparison> {
        let compare = |what, found: &dyn ToString, expected: &dyn ToString| Comparison {
            what,
            found: found.to_string(),
            expected: expected.to_string(),
        };
        let keys = seen.members.iter().filter(|(name, _)| *name == seen.party);
        let party_key = keys.map(|(_, key)| key.to_string()).next().unwrap_or_default();
        let mut all = vec![
            compare("job", &self.job, &seen.job),
            compare("party", &self.party, &seen.party),
            compare("party's key", &self.party_key, &party_key),
            compare("members", &listed(self.members()), &listed(seen.members.iter().copied())),
            compare("keys sent", &self.keys, &seen.keys),
            compare("set sent", &hex::encode(self.set_blake3), &hex::encode(seen.set_blake3)),
            compare("kind of result", &word(&self.told), &word(&seen.told)),
            compare("result", &hex::encode(self.told.sha256), &hex::encode(seen.told.sha256)),
        ];
        if self.signs_count() {
            all.push(compare("keys in common", &self.told.count, &seen.told.count));
        }
        if let Some(transcript) = seen.transcript {
            let signed = self.transcript.map_or_else(|| "none".to_owned(), hex::encode);
            all.push(compare("transcript", &signed, &hex::encode(transcript)));
        }
        all
    }

    /// The first item in which it differs from what was seen.
    pub fn contradiction(&self, seen: &Seen<'_>) -> Option<Comparison> {
        self.compare(seen).into_iter().find(|comparison| !comparison.holds())
    }

    /// All parties and the keys that they proved.
    pub fn members(&self) -> impl Iterator<Item = (&str, KeyId)> {
        self.members.iter().map(|(name, key)| (name.as_str(), *key))
    }

    /// Whether the count of an intersection is part of what is signed. In version 1 it is not.
    pub fn signs_count(&self) -> bool {
        self.transcript.is_some()
    }

    /// The bytes that are signed and travel. How long they are, and the work to write them, does
    /// not depend on what the party was told.
    ///
    /// # Panics
    /// If it is a statement of version 1: nobody signs those any longer.
    pub fn encode(&self) -> Vec<u8> {
        let transcript = self.transcript.expect("only version 2 is written");
        let mut fields = Writer::default();
        fields.bytes(1, LABEL);
        fields.bytes(2, &self.job.0);
        fields.bytes(3, self.party.as_bytes());
        fields.bytes(4, &self.party_key.0);
        for (name, key) in &self.members {
            let mut member = Writer::default();
            member.bytes(1, name.as_bytes());
            member.bytes(2, &key.0);
            fields.bytes(5, &member.0);
        }
        fields.number(6, self.keys);
        fields.bytes(7, &self.set_blake3);
        fields.number(8, self.told.kind.number().into());
        fields.bytes(9, &self.told.sha256);
        fields.number(10, self.finished_at);
        fields.bytes(11, &transcript);
        fields.bytes(12, &self.told.count.to_be_bytes());
        fields.0
    }

    /// Reads the bytes of a statement.
    ///
    /// # Errors
    /// If they are not a statement, or not in the one form that its version has.
    pub fn decode(bytes: &[u8]) -> Result<Self, StatementError> {
        let mut fields = Reader(bytes);
        let form = match fields.bytes(1) {
            LABEL => Form::Two,
            LABEL_1 => Form::One,
            _ => {
                let label = String::from_utf8_lossy(LABEL);
                return Err(field("statement.label", "another label", label));
            }
        };
        let job = JobDigest(array("statement.job_digest", fields.bytes(2))?);
        let party = name("statement.party", fields.bytes(3))?;
        let party_key = KeyId(array("statement.party_key", fields.bytes(4))?);
        let mut members_1 = Writer::default();
        let members = each_member(&mut fields, |member| match form {
            Form::One => read_member_1(member, &mut members_1),
            Form::Two => read_member(member),
        })?;
        let keys = fields.number(6);
        let set_blake3 = array("statement.set_blake3", fields.bytes(7))?;
        let kind = fields.number(8);
        let kind = OutcomeKind::from_number(kind)
            .ok_or_else(|| field("statement.kind", kind.to_string(), "the number of a Kind"))?;
        let sha256 = array("statement.result_sha256", fields.bytes(9))?;
        let finished_at = fields.number(10);
        let (transcript, count) = match form {
            Form::One => (None, 0),
            Form::Two => {
                let transcript = array("statement.transcript", fields.bytes(11))?;
                let count = array("statement.count", fields.bytes(12))?;
                (Some(transcript), u64::from_be_bytes(count))
            }
        };
        let told = Told { kind, count, sha256 };
        let conveys = matches!(kind, OutcomeKind::INTERSECTION | OutcomeKind::COUNT);
        if !conveys && told != (Told { kind, count: 0, sha256: [0; 32] }) {
            return Err(field("statement.result_sha256", "a result", "none for this kind"));
        }
        let statement = Self {
            job,
            party,
            party_key,
            members,
            keys,
            set_blake3,
            told,
            finished_at,
            transcript,
        };
        // Catches whatever the reader was too lenient about: other orders, longer numbers, more
        // fields.
        let again = match form {
            Form::One => statement.encode_1(&members_1),
            Form::Two => statement.encode(),
        };
        if again != bytes {
            let found = format!("{} bytes in another form", bytes.len());
            return Err(field("statement", found, "a Statement in its one form"));
        }
        Ok(statement)
    }

    /// The bytes of a statement of version 1 with these members.
    fn encode_1(&self, members: &Writer) -> Vec<u8> {
        let mut fields = Writer::default();
        fields.bytes(1, LABEL_1);
        fields.bytes(2, &self.job.0);
        fields.bytes(3, self.party.as_bytes());
        fields.bytes(4, &self.party_key.0);
        fields.0.extend_from_slice(&members.0);
        fields.number(6, self.keys);
        fields.bytes(7, &self.set_blake3);
        fields.number(8, self.told.kind.number().into());
        fields.bytes(9, &self.told.sha256);
        fields.number(10, self.finished_at);
        fields.0
    }
}

impl Comparison {
    /// Whether the statement says what was seen.
    pub fn holds(&self) -> bool {
        self.found == self.expected
    }
}

/// The versions of a statement that are read.
#[derive(Clone, Copy)]
enum Form {
    One,
    Two,
}

const LABEL: &[u8] = b"convelo/join/statement/v2";
const LABEL_1: &[u8] = b"convelo/join/statement/v1";

/// Length of a one-time key in version 1, in bytes: an X25519 public key.
const ONE_TIME_KEY_BYTES_1: usize = 32;

fn listed<'a>(members: impl Iterator<Item = (&'a str, KeyId)>) -> String {
    members.map(|(name, key)| format!("{name} {key}")).collect::<Vec<_>>().join(", ")
}

fn word(told: &Told) -> &'static str {
    told.kind.outcome((), ()).as_str()
}

fn read_member(member: &mut Reader<'_>) -> Result<(String, KeyId), StatementError> {
    let name = name("member.name", member.bytes(1))?;
    Ok((name, KeyId(array("member.key", member.bytes(2))?)))
}

/// A member of a statement of version 1, in which its key and offer stand; writes it again.
fn read_member_1(
    member: &mut Reader<'_>,
    again: &mut Writer,
) -> Result<(String, KeyId), StatementError> {
    let name = name("member.name", member.bytes(1))?;
    let spki = at_most("member.public_key", member.bytes(2), MAXIMUM_SPKI_BYTES)?;
    let mut offer = Reader(member.bytes(3));
    let one_time_key: [u8; ONE_TIME_KEY_BYTES_1] = array("offer.one_time_key", offer.bytes(1))?;
    let signature = at_most("offer.signature", offer.bytes(2), MAXIMUM_SIGNATURE_BYTES)?;
    let mut of_offer = Writer::default();
    of_offer.bytes(1, &one_time_key);
    of_offer.bytes(2, signature);
    let mut of_member = Writer::default();
    of_member.bytes(1, name.as_bytes());
    of_member.bytes(2, spki);
    of_member.bytes(3, &of_offer.0);
    again.bytes(5, &of_member.0);
    Ok((name, KeyId::of_spki(spki)))
}

fn each_member(
    fields: &mut Reader<'_>,
    mut read: impl FnMut(&mut Reader<'_>) -> Result<(String, KeyId), StatementError>,
) -> Result<Vec<(String, KeyId)>, StatementError> {
    let mut members = Vec::new();
    while fields.is_next(5) {
        members.push(read(&mut Reader(fields.bytes(5)))?);
        if members.len() > MAXIMUM_PARTIES {
            let expected = format!("at most {MAXIMUM_PARTIES}");
            return Err(field("statement.members", members.len().to_string(), expected));
        }
    }
    Ok(members)
}

fn field(
    field: &'static str,
    found: impl Into<String>,
    expected: impl Into<String>,
) -> StatementError {
    StatementError::Field { field, found: found.into(), expected: expected.into() }
}

fn array<const N: usize>(name: &'static str, bytes: &[u8]) -> Result<[u8; N], StatementError> {
    bytes
        .try_into()
        .map_err(|_| field(name, format!("{} bytes", bytes.len()), format!("{N} bytes")))
}

fn at_most<'a>(
    name: &'static str,
    bytes: &'a [u8],
    limit: usize,
) -> Result<&'a [u8], StatementError> {
    if bytes.len() > limit {
        return Err(field(name, bytes.len().to_string(), format!("at most {limit}")));
    }
    Ok(bytes)
}

fn name(field_name: &'static str, bytes: &[u8]) -> Result<String, StatementError> {
    let name = std::str::from_utf8(bytes).ok().filter(|name| is_name(name));
    name.map(str::to_owned).ok_or_else(|| {
        let expected = "1 to 64 letters, digits, '.', '_' or '-'";
        field(field_name, format!("a name of {} bytes", bytes.len()), expected)
    })
}

/// Writes the fields of a Protocol Buffers message in the order of their numbers, all below 16.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn bytes(&mut self, number: u8, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.0.push(number << 3 | BYTES);
            self.varint(bytes.len() as u64);
            self.0.extend_from_slice(bytes);
        }
    }

    fn number(&mut self, number: u8, value: u64) {
        if value != 0 {
            self.0.push(number << 3 | VARINT);
            self.varint(value);
        }
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }
}

/// Reads what [`Writer`] wrote. It also makes something of other input: the caller compares that
/// with what would be written again.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, number: u8) -> &'a [u8] {
        if !self.take(number << 3 | BYTES) {
            return &[];
        }
        let length = usize::try_from(self.varint()).unwrap_or(usize::MAX).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    fn number(&mut self, number: u8) -> u64 {
        if self.take(number << 3 | VARINT) { self.varint() } else { 0 }
    }

    fn is_next(&self, number: u8) -> bool {
        self.0.first() == Some(&(number << 3 | BYTES))
    }

    fn take(&mut self, key: u8) -> bool {
        let next = self.0.strip_prefix(&[key]);
        self.0 = next.unwrap_or(self.0);
        next.is_some()
    }

    fn varint(&mut self) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let Some((byte, rest)) = self.0.split_first() else { break };
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }
}

/// How a field is written, in the low bits of its key.
const VARINT: u8 = 0;
const BYTES: u8 = 2;
