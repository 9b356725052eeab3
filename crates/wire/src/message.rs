//! The checked forms of the messages, and the one way to and from the generated types.

use std::collections::BTreeMap;

use convelo_psi::agreement::{
    AGREEMENT_VERSION, Assembled, Confirmation, KeyOffer, Member, SealedShare,
};
use convelo_psi::{JobDigest, OutcomeKind, SignedStatement};
use prost::bytes::Bytes;

use crate::limits::{
    MAXIMUM_CHUNK_BYTES, MAXIMUM_COLLATERAL_BYTES, MAXIMUM_EXPLANATION_BYTES, MAXIMUM_JOB_BYTES,
    MAXIMUM_NAME_BYTES, MAXIMUM_OFFERED_BYTES, MAXIMUM_PARTIES, MAXIMUM_QUOTE_BYTES,
    MAXIMUM_RELAYED_BYTES, MAXIMUM_SIGNATURE_BYTES, MAXIMUM_SOFTWARE_BYTES, MAXIMUM_SPKI_BYTES,
    MAXIMUM_TERMS_BYTES, SEALED_SHARE_BYTES,
};
use crate::proto::{self, from_party, to_party};
use crate::reason::{Failed, Reason};

/// A message that does not follow the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The oneof of a message was not set; this happens if a newer peer sends a kind unknown here.
    #[error("a message of an unknown kind arrived: the peer may run a newer version")]
    Unknown,
    /// The peer speaks another version of the key agreement.
    #[error(
        "the program speaks version {found} of the key agreement, expected version {expected}: the older \
         of the two programs must be upgraded"
    )]
    Version {
        /// The peer's.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// A field has a length or value outside its limits.
    #[error("{field}: found {found}, expected {expected}")]
    Field {
        /// The field, as in the .proto file.
        field: &'static str,
        /// What arrived; a length or count, never content.
        found: String,
        /// What was expected.
        expected: String,
    },
}

/// Opens a stream.
#[derive(Clone)]
pub struct Hello {
    /// The job in canonical JSON; within its size limit, not yet parsed.
    pub job: Bytes,
    /// The name that the job lists for the party.
    pub party: String,
    /// The party's one-time key.
    pub offer: KeyOffer,
    /// Name and version of the party's program.
    pub software: String,
    /// When the party resumes a run: how many messages it has received since all parties arrived.
    pub received: Option<u64>,
    /// Which program made the one-time key, in a job whose providers prove their programs.
    pub evidence: Option<OfferEvidence>,
}

/// What a provider shows about the one-time key that it offers. As it arrived: within the size
/// limits, not yet parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferEvidence {
    /// A quote over the key.
    pub quote: Bytes,
    /// What the provider's quotes are verified with; empty for none.
    pub collateral: Bytes,
}

impl OfferEvidence {
    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.quote.len() + self.collateral.len()
    }

    /// Whether it shows nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The evidence of the members of a job, by name. The transcript that the parties sign need not
/// cover it: each of them verifies it alone, and a quote says only what the transcript also says
/// (job, name, identity key, one-time key) and which program made the key. If two parties are shown
/// two quotes, and both accept what they are shown, a program that they accept made the same key.
pub type MemberEvidence = BTreeMap<String, OfferEvidence>;

/// A party asks for a fresh quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The party's random bytes.
    pub nonce: [u8; 32],
    /// SHA-256 of the canonical job.
    pub job: JobDigest,
}

/// The service's fresh quote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The service's random bytes.
    pub nonce: [u8; 32],
    /// The quote; within its size limit, not yet parsed.
    pub quote: Vec<u8>,
    /// Collateral that the service offers, as it arrived; within its size limit, empty for none.
    pub collateral: Vec<u8>,
    /// The version of the key agreement that the service relays.
    pub agreement: u32,
}

/// What a party is about to upload.
#[derive(Clone, Copy)]
pub struct Announcement {
    /// Number of distinct keys.
    pub keys: u64,
    /// BLAKE3 over all pseudonyms in their wire form.
    pub blake3: [u8; 32],
}

/// A party's confirmation of the job key.
#[derive(Clone)]
pub struct NamedConfirmation {
    /// The party's name.
    pub party: String,
    /// What it shows.
    pub confirmation: Confirmation,
}

/// What a party sends.
#[derive(Clone)]
pub enum FromParty {
    /// First message, and sent again before the session is too old.
    Challenge(Challenge),
    /// This party's own fresh quote; within its size limit, not yet parsed.
    Evidence(Vec<u8>),
    /// Who is joining, and which job.
    Hello(Hello),
    /// Shares for the other parties.
    Shares(Vec<SealedShare>),
    /// This party's confirmation.
    Confirmation(Confirmation),
    /// What the chunks will hold.
    Announcement(Announcement),
    /// Pseudonyms in wire form, at most one chunk.
    Chunk(Bytes),
    /// The party gives up.
    Leave(Reason),
    /// The party has all of its result.
    Received,
}

/// Who is there and who is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Names of the parties that are there.
    pub present: Vec<String>,
    /// Names of the missing parties, if the job names them.
    pub missing: Vec<String>,
    /// How many are missing.
    pub missing_count: u32,
    /// Seconds until the job's deadline.
    pub seconds_left: u64,
    /// Who came with other terms for the job.
    pub other_terms: Vec<OtherTerms>,
}

/// A party that came with another job of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherTerms {
    /// The party.
    pub party: String,
    /// The job that it brought last.
    pub job: JobDigest,
}

/// What the service sends.
#[derive(Clone)]
pub enum ToParty {
    /// The answer to a challenge.
    Proof(Proof),
    /// Who is missing.
    Waiting(Waiting),
    /// Every party has arrived; with what the members show about their one-time keys.
    Assembled(Assembled, MemberEvidence),
    /// Shares sealed to this party.
    Shares(Vec<SealedShare>),
    /// The other parties' confirmations.
    Confirmations(Vec<NamedConfirmation>),
    /// All sets are announced and there is memory for them: chunks may follow.
    Ready,
    /// Whose uploads are complete, and whose are missing.
    Uploads {
        /// Complete.
        complete: Vec<String>,
        /// Missing.
        missing: Vec<String>,
    },
    /// The result.
    Outcome {
        /// What kind of result it is.
        kind: OutcomeKind,
        /// How many keys all parties have, if the party is told.
        count: u64,
        /// How many bytes of a bitmap follow; if the result is withheld, they mean nothing.
        bitmap_bytes: u64,
        /// What the service says about it, signed by the key of its certificate.
        signed: SignedStatement,
    },
    /// A piece of the bitmap.
    Bitmap(Bytes),
    /// The stream ends without a result.
    Failed(Failed),
    /// The run continues.
    Resumed {
        /// How many of the party's messages the service has accepted since all parties arrived.
        taken: u64,
    },
}

impl TryFrom<proto::FromParty> for FromParty {
    type Error = WireError;

    fn try_from(message: proto::FromParty) -> Result<Self, WireError> {
        use from_party::Message;
        Ok(match message.message.ok_or(WireError::Unknown)? {
            Message::Challenge(challenge) => Self::Challenge(Challenge {
                nonce: array("challenge.nonce", &challenge.nonce)?,
                job: JobDigest(array("challenge.job_digest", &challenge.job_digest)?),
            }),
            Message::Evidence(evidence) => {
                at_most("evidence.quote", evidence.quote.len(), MAXIMUM_QUOTE_BYTES)?;
                Self::Evidence(evidence.quote)
            }
            Message::Hello(hello) => {
                // First, because the rest of another version has another form.
                if hello.agreement != AGREEMENT_VERSION {
                    return Err(another_version(hello.agreement));
                }
                at_most("hello.job", hello.job.len(), MAXIMUM_JOB_BYTES)?;
                let offer = hello.offer.ok_or_else(|| missing("hello.offer"))?;
                let evidence = hello.evidence.map(evidence_from_proto).transpose()?;
                let offered = evidence.as_ref().map_or(0, |evidence| evidence.collateral.len());
                at_most(
                    "hello.job and its collateral",
                    hello.job.len() + offered,
                    MAXIMUM_TERMS_BYTES,
                )?;
                Self::Hello(Hello {
                    job: hello.job.into(),
                    party: name("hello.party", hello.party)?,
                    offer: offer_from_proto(offer)?,
                    software: text("hello.software", hello.software, MAXIMUM_SOFTWARE_BYTES)?,
                    received: hello.received,
                    evidence,
                })
            }
            Message::Shares(shares) => Self::Shares(shares_from_proto(shares)?),
            Message::Confirmation(confirmation) => Self::Confirmation(confirmation_from_proto(
                &confirmation.tag,
                confirmation.signature,
            )?),
            Message::Announcement(announcement) => Self::Announcement(Announcement {
                keys: announcement.keys,
                blake3: array("announcement.blake3", &announcement.blake3)?,
            }),
            Message::Chunk(chunk) => {
                at_most("chunk.pseudonyms", chunk.pseudonyms.len(), MAXIMUM_CHUNK_BYTES)?;
                Self::Chunk(chunk.pseudonyms)
            }
            Message::Leave(leave) => Self::Leave(leave.reason().into()),
            Message::Received(proto::Received {}) => Self::Received,
        })
    }
}

impl From<FromParty> for proto::FromParty {
    fn from(message: FromParty) -> Self {
        use from_party::Message;
        let message = match message {
            FromParty::Challenge(challenge) => Message::Challenge(proto::Challenge {
                nonce: challenge.nonce.to_vec(),
                job_digest: challenge.job.0.to_vec(),
            }),
            FromParty::Evidence(quote) => Message::Evidence(proto::Evidence { quote }),
            FromParty::Hello(hello) => Message::Hello(proto::Hello {
                job: hello.job.to_vec(),
                party: hello.party,
                offer: Some(offer_to_proto(&hello.offer)),
                software: hello.software,
                received: hello.received,
                agreement: AGREEMENT_VERSION,
                evidence: hello.evidence.map(|evidence| proto::OfferEvidence {
                    quote: evidence.quote.into(),
                    collateral: evidence.collateral.into(),
                }),
            }),
            FromParty::Shares(shares) => Message::Shares(shares_to_proto(shares)),
            FromParty::Confirmation(Confirmation { tag, signature }) => {
                Message::Confirmation(proto::Confirmation { tag: tag.to_vec(), signature })
            }
            FromParty::Announcement(announcement) => Message::Announcement(proto::Announcement {
                keys: announcement.keys,
                blake3: announcement.blake3.to_vec(),
            }),
            FromParty::Chunk(pseudonyms) => Message::Chunk(proto::Chunk { pseudonyms }),
            FromParty::Leave(reason) => {
                Message::Leave(proto::Leave { reason: proto::Reason::from(reason).into() })
            }
            FromParty::Received => Message::Received(proto::Received {}),
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<proto::ToParty> for ToParty {
    type Error = WireError;

    fn try_from(message: proto::ToParty) -> Result<Self, WireError> {
        use to_party::Message;
        Ok(match message.message.ok_or(WireError::Unknown)? {
            Message::Proof(proof) => {
                at_most("proof.quote", proof.quote.len(), MAXIMUM_QUOTE_BYTES)?;
                at_most("proof.collateral", proof.collateral.len(), MAXIMUM_COLLATERAL_BYTES)?;
                Self::Proof(Proof {
                    nonce: array("proof.nonce", &proof.nonce)?,
                    quote: proof.quote,
                    collateral: proof.collateral,
                    // A service of version 1 knows no such field.
                    agreement: proof.agreement.max(1),
                })
            }
            Message::Waiting(waiting) => Self::Waiting(Waiting {
                present: names("waiting.present", waiting.present)?,
                missing: names("waiting.missing", waiting.missing)?,
                missing_count: waiting.missing_count,
                seconds_left: waiting.seconds_left,
                other_terms: other_terms_from_proto(waiting.other_terms)?,
            }),
            Message::Assembled(assembled) => assembled_from_proto(assembled)?,
            Message::Shares(shares) => Self::Shares(shares_from_proto(shares)?),
            Message::Confirmations(confirmations) => {
                let entries = confirmations.confirmations;
                at_most("confirmations", entries.len(), MAXIMUM_PARTIES)?;
                Self::Confirmations(
                    entries
                        .into_iter()
                        .map(|entry| {
                            Ok(NamedConfirmation {
                                party: name("confirmations.party", entry.party)?,
                                confirmation: confirmation_from_proto(&entry.tag, entry.signature)?,
                            })
                        })
                        .collect::<Result<_, WireError>>()?,
                )
            }
            Message::Ready(proto::Ready {}) => Self::Ready,
            Message::Resumed(resumed) => Self::Resumed { taken: resumed.taken },
            Message::Uploads(uploads) => Self::Uploads {
                complete: names("uploads.complete", uploads.complete)?,
                missing: names("uploads.missing", uploads.missing)?,
            },
            Message::Outcome(outcome) => {
                at_most("outcome.signature", outcome.signature.len(), MAXIMUM_SIGNATURE_BYTES)?;
                let kind = u64::try_from(outcome.kind).ok().and_then(OutcomeKind::from_number);
                let kind = kind.ok_or_else(|| {
                    field("outcome.kind", outcome.kind.to_string(), "the number of a Kind")
                })?;
                Self::Outcome {
                    kind,
                    count: outcome.count.ok_or_else(|| missing("outcome.count"))?,
                    bitmap_bytes: outcome.bitmap_bytes,
                    signed: SignedStatement {
                        statement: outcome.statement,
                        signature: outcome.signature,
                    },
                }
            }
            Message::Bitmap(chunk) => {
                at_most("bitmap.bits", chunk.bits.len(), MAXIMUM_CHUNK_BYTES)?;
                Self::Bitmap(chunk.bits)
            }
            Message::Failed(failed) => {
                let reason = failed.reason().into();
                Self::Failed(Failed {
                    reason,
                    party: if failed.party.is_empty() {
                        None
                    } else {
                        Some(name("failed.party", failed.party)?)
                    },
                    explanation: text(
                        "failed.explanation",
                        failed.explanation,
                        MAXIMUM_EXPLANATION_BYTES,
                    )?,
                })
            }
        })
    }
}

impl From<ToParty> for proto::ToParty {
    fn from(message: ToParty) -> Self {
        use to_party::Message;
        let message = match message {
            ToParty::Proof(proof) => Message::Proof(proto::Proof {
                nonce: proof.nonce.to_vec(),
                quote: proof.quote,
                collateral: proof.collateral,
                agreement: proof.agreement,
            }),
            ToParty::Waiting(waiting) => Message::Waiting(proto::Waiting {
                present: waiting.present,
                missing: waiting.missing,
                missing_count: waiting.missing_count,
                seconds_left: waiting.seconds_left,
                other_terms: waiting.other_terms.into_iter().map(Into::into).collect(),
            }),
            ToParty::Assembled(assembled, evidence) => {
                Message::Assembled(assembled_to_proto(&assembled, &evidence))
            }
            ToParty::Shares(shares) => Message::Shares(shares_to_proto(shares)),
            ToParty::Confirmations(confirmations) => Message::Confirmations(proto::Confirmations {
                confirmations: confirmations
                    .into_iter()
                    .map(|entry| proto::NamedConfirmation {
                        party: entry.party,
                        tag: entry.confirmation.tag.to_vec(),
                        signature: entry.confirmation.signature,
                    })
                    .collect(),
            }),
            ToParty::Ready => Message::Ready(proto::Ready {}),
            ToParty::Resumed { taken } => Message::Resumed(proto::Resumed { taken }),
            ToParty::Uploads { complete, missing } => {
                Message::Uploads(proto::Uploads { complete, missing })
            }
            // No branch here depends on the kind: the service's host might see it.
            ToParty::Outcome { kind, count, bitmap_bytes, signed } => {
                Message::Outcome(proto::Outcome {
                    kind: kind.number().into(),
                    bitmap_bytes,
                    count: Some(count),
                    statement: signed.statement,
                    signature: signed.signature,
                })
            }
            ToParty::Bitmap(bits) => Message::Bitmap(proto::BitmapChunk { bits }),
            ToParty::Failed(failed) => Message::Failed(failed.into()),
        };
        Self { message: Some(message) }
    }
}

fn field(field: &'static str, found: impl Into<String>, expected: impl Into<String>) -> WireError {
    WireError::Field { field, found: found.into(), expected: expected.into() }
}

fn missing(name: &'static str) -> WireError {
    field(name, "nothing", "a value")
}

fn at_most(name: &'static str, length: usize, limit: usize) -> Result<(), WireError> {
    if length > limit {
        return Err(field(name, length.to_string(), format!("at most {limit}")));
    }
    Ok(())
}

fn array<const N: usize>(name: &'static str, bytes: &[u8]) -> Result<[u8; N], WireError> {
    bytes
        .try_into()
        .map_err(|_| field(name, format!("{} bytes", bytes.len()), format!("{N} bytes")))
}

/// Text that may be shown: control characters of a peer never reach a terminal or a log.
fn text(field: &'static str, text: String, limit: usize) -> Result<String, WireError> {
    at_most(field, text.len(), limit)?;
    if text.contains(char::is_control) {
        return Ok(text.replace(char::is_control, " "));
    }
    Ok(text)
}

fn name(field_name: &'static str, name: String) -> Result<String, WireError> {
    at_most(field_name, name.len(), MAXIMUM_NAME_BYTES)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(field(
            field_name,
            format!("a name of {} bytes", name.len()),
            "1 to 64 letters, digits, '.', '_' or '-'",
        ));
    }
    Ok(name)
}

fn names(field: &'static str, names: Vec<String>) -> Result<Vec<String>, WireError> {
    at_most(field, names.len(), MAXIMUM_PARTIES)?;
    names.into_iter().map(|entry| name(field, entry)).collect()
}

fn other_terms_from_proto(brought: Vec<proto::OtherTerms>) -> Result<Vec<OtherTerms>, WireError> {
    at_most("waiting.other_terms", brought.len(), MAXIMUM_PARTIES)?;
    let brought = brought.into_iter().map(|other| {
        Ok(OtherTerms {
            party: name("other_terms.party", other.party)?,
            job: JobDigest(array("other_terms.job_digest", &other.job_digest)?),
        })
    });
    brought.collect()
}

impl From<OtherTerms> for proto::OtherTerms {
    fn from(brought: OtherTerms) -> Self {
        Self { party: brought.party, job_digest: brought.job.0.to_vec() }
    }
}

fn another_version(found: u32) -> WireError {
    // A program of version 1 knows no such field.
    WireError::Version { found: found.max(1), expected: AGREEMENT_VERSION }
}

fn confirmation_from_proto(tag: &[u8], signature: Vec<u8>) -> Result<Confirmation, WireError> {
    at_most("confirmation.signature", signature.len(), MAXIMUM_SIGNATURE_BYTES)?;
    Ok(Confirmation { tag: array("confirmation.tag", tag)?, signature })
}

fn offer_from_proto(offer: proto::KeyOffer) -> Result<KeyOffer, WireError> {
    at_most("offer.signature", offer.signature.len(), MAXIMUM_SIGNATURE_BYTES)?;
    Ok(KeyOffer {
        one_time_key: Box::new(array("offer.one_time_key", &offer.one_time_key)?),
        signature: offer.signature,
    })
}

fn offer_to_proto(offer: &KeyOffer) -> proto::KeyOffer {
    proto::KeyOffer {
        one_time_key: offer.one_time_key.to_vec(),
        signature: offer.signature.clone(),
    }
}

fn evidence_from_proto(evidence: proto::OfferEvidence) -> Result<OfferEvidence, WireError> {
    at_most("evidence.quote", evidence.quote.len(), MAXIMUM_QUOTE_BYTES)?;
    at_most("evidence.collateral", evidence.collateral.len(), MAXIMUM_OFFERED_BYTES)?;
    Ok(OfferEvidence { quote: evidence.quote.into(), collateral: evidence.collateral.into() })
}

fn assembled_from_proto(assembled: proto::Assembled) -> Result<ToParty, WireError> {
    let proto::Assembled { members, run, collaterals } = assembled;
    at_most("assembled.members", members.len(), MAXIMUM_PARTIES)?;
    at_most("assembled.collaterals", collaterals.len(), MAXIMUM_PARTIES)?;
    for collateral in &collaterals {
        at_most("assembled.collaterals", collateral.len(), MAXIMUM_OFFERED_BYTES)?;
    }
    let relayed = collaterals.iter().map(Bytes::len).sum();
    at_most("assembled.collaterals", relayed, MAXIMUM_RELAYED_BYTES)?;
    let mut evidence = MemberEvidence::new();
    let mut checked = Vec::with_capacity(members.len());
    for member in members {
        at_most("member.public_key", member.public_key.len(), MAXIMUM_SPKI_BYTES)?;
        at_most("member.quote", member.quote.len(), MAXIMUM_QUOTE_BYTES)?;
        let name = name("member.name", member.name)?;
        let collateral = match usize::try_from(member.collateral) {
            Ok(0) => Some(Bytes::new()),
            number => number.ok().and_then(|number| collaterals.get(number - 1).cloned()),
        };
        let collateral = collateral.ok_or_else(|| {
            let expected = format!("at most {}", collaterals.len());
            field("member.collateral", member.collateral.to_string(), expected)
        })?;
        let shown = OfferEvidence { quote: member.quote, collateral };
        if !shown.is_empty() {
            evidence.insert(name.clone(), shown);
        }
        let offer = offer_from_proto(member.offer.ok_or_else(|| missing("member.offer"))?)?;
        checked.push(Member { name, spki: member.public_key, offer });
    }
    let assembled = Assembled { run: array("assembled.run", &run)?, members: checked };
    Ok(ToParty::Assembled(assembled, evidence))
}

/// Each collateral travels once.
fn assembled_to_proto(assembled: &Assembled, evidence: &MemberEvidence) -> proto::Assembled {
    let mut collaterals: Vec<Bytes> = Vec::new();
    let mut number = |collateral: &Bytes| {
        if collateral.is_empty() {
            return 0;
        }
        let found = collaterals.iter().position(|earlier| earlier == collateral);
        let place = found.unwrap_or_else(|| {
            collaterals.push(collateral.clone());
            collaterals.len() - 1
        });
        u32::try_from(place + 1).expect("a few parties")
    };
    let members = assembled.members.iter().map(|member| {
        let shown = evidence.get(&member.name);
        proto::Member {
            name: member.name.clone(),
            public_key: member.spki.clone(),
            offer: Some(offer_to_proto(&member.offer)),
            quote: shown.map(|shown| shown.quote.clone()).unwrap_or_default(),
            collateral: shown.map_or(0, |shown| number(&shown.collateral)),
        }
    });
    let members = members.collect();
    proto::Assembled { members, run: assembled.run.to_vec(), collaterals }
}

fn shares_from_proto(shares: proto::SealedShares) -> Result<Vec<SealedShare>, WireError> {
    at_most("shares", shares.shares.len(), MAXIMUM_PARTIES)?;
    shares
        .shares
        .into_iter()
        .map(|share| {
            at_most("share.sealed", share.sealed.len(), SEALED_SHARE_BYTES)?;
            Ok(SealedShare {
                from: name("share.from", share.from)?,
                to: name("share.to", share.to)?,
                sealed: share.sealed,
            })
        })
        .collect()
}

fn shares_to_proto(shares: Vec<SealedShare>) -> proto::SealedShares {
    proto::SealedShares {
        shares: shares
            .into_iter()
            .map(|share| proto::SealedShare {
                from: share.from,
                to: share.to,
                sealed: share.sealed,
            })
            .collect(),
    }
}
