//! What the witness of a job signs for each party at the end.
//!
//! The bytes are those of the message `Statement` in `proto/convelo/join/v1/join.proto`, in exactly
//! one form: every field in order, zeros left out. They begin with a label, so that a signature
//! over them cannot stand for anything else.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use sha2::{Digest as _, Sha256};

use crate::agreement::{KeyOffer, Member};
use crate::bitmap::Bitmap;
use crate::job::{JobDigest, KeyId, is_name};
use crate::limits::{MAXIMUM_PARTIES, MAXIMUM_SIGNATURE_BYTES, MAXIMUM_SPKI_BYTES};
use crate::outcome::Outcome;

/// What is signed for one party at the end of a job.
#[derive(Clone, PartialEq, Eq)]
pub struct Statement {
    /// The job.
    pub job: JobDigest,
    /// The party that this statement is for.
    pub party: String,
    /// Its key.
    pub party_key: KeyId,
    /// All members and the keys that they proved.
    pub members: Vec<Member>,
    /// How many pseudonyms the party sent.
    pub keys: u64,
    /// BLAKE3 over them.
    pub set_blake3: [u8; 32],
    /// What the party learned, as its [`digest`].
    pub outcome: Outcome<[u8; 32], [u8; 32]>,
    /// Unix seconds by the witness's clock.
    pub finished_at: u64,
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
    /// What the party learned, as its [`digest`].
    pub outcome: Outcome<[u8; 32], [u8; 32]>,
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

/// SHA-256 of what conveys a result: the bitmap's bytes, or the count as 8 bytes, big-endian.
pub fn digest(outcome: &Outcome<Bitmap>) -> Outcome<[u8; 32], [u8; 32]> {
    let bitmap = |bitmap: &Bitmap| Sha256::digest(bitmap.as_bytes()).into();
    outcome.as_ref().map(bitmap, |count| digest_of_count(*count))
}

/// SHA-256 of a count as 8 bytes, big-endian.
pub fn digest_of_count(count: u64) -> [u8; 32] {
    Sha256::digest(count.to_be_bytes()).into()
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
        vec![
            compare("job", &self.job, &seen.job),
            compare("party", &self.party, &seen.party),
            compare("party's key", &self.party_key, &party_key),
            compare("members", &listed(self.members()), &listed(seen.members.iter().copied())),
            compare("keys sent", &self.keys, &seen.keys),
            compare("set sent", &hex::encode(self.set_blake3), &hex::encode(seen.set_blake3)),
            compare("kind of result", &self.outcome.as_str(), &seen.outcome.as_str()),
            compare("result", &result(&self.outcome), &result(&seen.outcome)),
        ]
    }

    /// The first item in which it differs from what was seen.
    pub fn contradiction(&self, seen: &Seen<'_>) -> Option<Comparison> {
        self.compare(seen).into_iter().find(|comparison| !comparison.holds())
    }

    /// All parties and the keys that they proved.
    pub fn members(&self) -> impl Iterator<Item = (&str, KeyId)> {
        self.members.iter().map(|member| (member.name.as_str(), KeyId::of_spki(&member.spki)))
    }

    /// The bytes that are signed and travel.
    pub fn encode(&self) -> Vec<u8> {
        let mut fields = Writer::default();
        fields.bytes(1, LABEL);
        fields.bytes(2, &self.job.0);
        fields.bytes(3, self.party.as_bytes());
        fields.bytes(4, &self.party_key.0);
        for Member { name, spki, offer } in &self.members {
            let mut of_offer = Writer::default();
            of_offer.bytes(1, &offer.one_time_key);
            of_offer.bytes(2, &offer.signature);
            let mut of_member = Writer::default();
            of_member.bytes(1, name.as_bytes());
            of_member.bytes(2, spki);
            of_member.bytes(3, &of_offer.0);
            fields.bytes(5, &of_member.0);
        }
        fields.number(6, self.keys);
        fields.bytes(7, &self.set_blake3);
        let (kind, result) = match self.outcome {
            Outcome::Intersection(digest) => (INTERSECTION, digest),
            Outcome::Count(digest) => (COUNT, digest),
            Outcome::Withheld => (WITHHELD, [0; 32]),
            Outcome::Nothing => (NOTHING, [0; 32]),
        };
        fields.number(8, kind);
        fields.bytes(9, &result);
        fields.number(10, self.finished_at);
        fields.0
    }

    /// Reads the bytes of a statement.
    ///
    /// # Errors
    /// If they are not a statement, or not in the form that [`Self::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, StatementError> {
        let mut fields = Reader(bytes);
        if fields.bytes(1) != LABEL {
            let label = String::from_utf8_lossy(LABEL);
            return Err(field("statement.label", "another label", label));
        }
        let statement = Self {
            job: JobDigest(array("statement.job_digest", fields.bytes(2))?),
            party: name("statement.party", fields.bytes(3))?,
            party_key: KeyId(array("statement.party_key", fields.bytes(4))?),
            members: members(&mut fields)?,
            keys: fields.number(6),
            set_blake3: array("statement.set_blake3", fields.bytes(7))?,
            outcome: {
                let (kind, result) = (fields.number(8), fields.bytes(9));
                let result = array("statement.result_sha256", result)?;
                match kind {
                    INTERSECTION => Outcome::Intersection(result),
                    COUNT => Outcome::Count(result),
                    WITHHELD => Outcome::Withheld,
                    NOTHING => Outcome::Nothing,
                    other => {
                        let expected = "the number of a Kind";
                        return Err(field("statement.kind", other.to_string(), expected));
                    }
                }
            },
            finished_at: fields.number(10),
        };
        // Catches whatever the reader was too lenient about: other orders, longer numbers, more
        // fields.
        if statement.encode() != bytes {
            let found = format!("{} bytes in another form", bytes.len());
            return Err(field("statement", found, "a Statement in its one form"));
        }
        Ok(statement)
    }
}

impl Comparison {
    /// Whether the statement says what was seen.
    pub fn holds(&self) -> bool {
        self.found == self.expected
    }
}

const LABEL: &[u8] = b"convelo/join/statement/v1";

const INTERSECTION: u64 = 1;
const COUNT: u64 = 2;
const WITHHELD: u64 = 3;
const NOTHING: u64 = 4;

fn listed<'a>(members: impl Iterator<Item = (&'a str, KeyId)>) -> String {
    members.map(|(name, key)| format!("{name} {key}")).collect::<Vec<_>>().join(", ")
}

/// The digest of a result as text; empty if no result is told.
fn result(outcome: &Outcome<[u8; 32], [u8; 32]>) -> String {
    match outcome {
        Outcome::Intersection(digest) | Outcome::Count(digest) => hex::encode(digest),
        Outcome::Withheld | Outcome::Nothing => String::new(),
    }
}

fn members(fields: &mut Reader<'_>) -> Result<Vec<Member>, StatementError> {
    let mut members = Vec::new();
    while fields.is_next(5) {
        let mut member = Reader(fields.bytes(5));
        let name = name("member.name", member.bytes(1))?;
        let spki = at_most("member.public_key", member.bytes(2), MAXIMUM_SPKI_BYTES)?;
        let mut offer = Reader(member.bytes(3));
        let one_time_key = array("offer.one_time_key", offer.bytes(1))?;
        let signature = at_most("offer.signature", offer.bytes(2), MAXIMUM_SIGNATURE_BYTES)?;
        members.push(Member { name, spki, offer: KeyOffer { one_time_key, signature } });
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

fn array(name: &'static str, bytes: &[u8]) -> Result<[u8; 32], StatementError> {
    bytes.try_into().map_err(|_| field(name, format!("{} bytes", bytes.len()), "32 bytes"))
}

fn at_most(name: &'static str, bytes: &[u8], limit: usize) -> Result<Vec<u8>, StatementError> {
    if bytes.len() > limit {
        return Err(field(name, bytes.len().to_string(), format!("at most {limit}")));
    }
    Ok(bytes.to_vec())
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
