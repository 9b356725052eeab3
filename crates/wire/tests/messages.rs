//! The messages between their bytes and their checked forms.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use convelo_psi::agreement::AGREEMENT_VERSION;
use convelo_psi::limits::ONE_TIME_KEY_BYTES;
use convelo_psi::reveal::Told;
use convelo_psi::statement::StatementError;
use convelo_psi::{JobDigest, KeyId, OutcomeKind, Statement};
use convelo_wire::limits::{
    MAXIMUM_CHUNK_BYTES, MAXIMUM_COLLATERAL_BYTES, MAXIMUM_EXPLANATION_BYTES,
    MAXIMUM_FROM_PARTY_BYTES, MAXIMUM_JOB_BYTES, MAXIMUM_NAME_BYTES, MAXIMUM_OFFERED_BYTES,
    MAXIMUM_PARTIES, MAXIMUM_QUOTE_BYTES, MAXIMUM_RELAYED_BYTES, MAXIMUM_SIGNATURE_BYTES,
    MAXIMUM_SOFTWARE_BYTES, MAXIMUM_SPKI_BYTES, MAXIMUM_TERMS_BYTES, MAXIMUM_TO_PARTY_BYTES,
    SEALED_SHARE_BYTES,
};
use convelo_wire::proto::{self, from_party, to_party};
use convelo_wire::{Failed, FromParty, Reason, ToParty, WireError};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;

/// Messages have no `Debug`, because some hold what is not to be shown; proptest asks for it.
#[derive(Clone)]
struct Hidden<T>(T);

impl<T> std::fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hidden(..)")
    }
}

fn name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9._-]{1,64}"
}

fn names() -> impl Strategy<Value = Vec<String>> {
    vec(name(), 0..5)
}

fn text() -> impl Strategy<Value = String> {
    "[a-zäß '\u{1F600}]{0,30}"
}

fn bytes(length: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), length)
}

fn up_to(limit: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=limit)
}

/// Every reason but `REASON_UNSPECIFIED`, as it travels.
fn reason() -> impl Strategy<Value = i32> {
    1..=19
}

fn hidden<T>(entries: Vec<Hidden<T>>) -> Vec<T> {
    entries.into_iter().map(|entry| entry.0).collect()
}

fn offer() -> impl Strategy<Value = Hidden<proto::KeyOffer>> {
    (bytes(ONE_TIME_KEY_BYTES), up_to(MAXIMUM_SIGNATURE_BYTES))
        .prop_map(|(one_time_key, signature)| Hidden(proto::KeyOffer { one_time_key, signature }))
}

/// Members with and without evidence, and their collaterals, of which several may name one.
fn assembled() -> impl Strategy<Value = Hidden<proto::Assembled>> {
    let member = (name(), up_to(MAXIMUM_SPKI_BYTES), offer(), up_to(300), 0..4_u32).prop_map(
        |(name, public_key, offer, quote, collateral)| {
            let (offer, quote) = (Some(offer.0), quote.into());
            Hidden(proto::Member { name, public_key, offer, quote, collateral })
        },
    );
    (vec(member, 0..4), bytes(32)).prop_map(|(members, run)| {
        let mut members = hidden(members);
        let mut named = Vec::new();
        for (member, number) in members.iter_mut().zip(0..) {
            // Names differ, and collaterals are numbered in the order in which they are named.
            member.name = format!("{number}{}", &member.name[1..]);
            if member.collateral > 0 {
                let earlier = named.iter().position(|name| *name == member.collateral);
                let place = earlier.unwrap_or_else(|| {
                    named.push(member.collateral);
                    named.len() - 1
                });
                member.collateral = u32::try_from(place + 1).unwrap();
            }
        }
        let collaterals = named.into_iter().map(|name| vec![b'c'; name as usize].into()).collect();
        Hidden(proto::Assembled { members, run, collaterals })
    })
}

fn evidence() -> impl Strategy<Value = Hidden<proto::OfferEvidence>> {
    (up_to(300), up_to(300))
        .prop_map(|(quote, collateral)| Hidden(proto::OfferEvidence { quote, collateral }))
}

fn shares() -> impl Strategy<Value = Hidden<proto::SealedShares>> {
    let share = (name(), name(), up_to(SEALED_SHARE_BYTES))
        .prop_map(|(from, to, sealed)| Hidden(proto::SealedShare { from, to, sealed }));
    vec(share, 0..4).prop_map(|shares| Hidden(proto::SealedShares { shares: hidden(shares) }))
}

fn messages_of_parties() -> impl Strategy<Value = Hidden<from_party::Message>> {
    use from_party::Message;
    prop_oneof![
        ((up_to(300), name(), offer(), text()), any::<Option<u64>>(), prop::option::of(evidence()))
            .prop_map(|((job, party, offer, software), received, evidence)| {
                let (offer, evidence) = (Some(offer.0), evidence.map(|evidence| evidence.0));
                let agreement = AGREEMENT_VERSION;
                let hello =
                    proto::Hello { job, party, offer, software, received, agreement, evidence };
                Message::Hello(hello).into()
            }),
        Just(Hidden(Message::Received(proto::Received {}))),
        shares().prop_map(|shares| Message::Shares(shares.0).into()),
        (bytes(32), up_to(MAXIMUM_SIGNATURE_BYTES)).prop_map(|(tag, signature)| {
            Message::Confirmation(proto::Confirmation { tag, signature }).into()
        }),
        (any::<u64>(), bytes(32)).prop_map(|(keys, blake3)| {
            Message::Announcement(proto::Announcement { keys, blake3 }).into()
        }),
        up_to(300).prop_map(|pseudonyms| {
            Message::Chunk(proto::Chunk { pseudonyms: pseudonyms.into() }).into()
        }),
        reason().prop_map(|reason| Message::Leave(proto::Leave { reason }).into()),
        (bytes(32), bytes(32)).prop_map(|(nonce, job_digest)| {
            Message::Challenge(proto::Challenge { nonce, job_digest }).into()
        }),
        up_to(300).prop_map(|quote| Message::Evidence(proto::Evidence { quote }).into()),
    ]
}

fn messages_of_the_service() -> impl Strategy<Value = Hidden<to_party::Message>> {
    use to_party::Message;
    let result = prop_oneof![
        any::<[u64; 2]>().prop_map(|[bytes, count]| (
            i32::from(proto::Kind::Intersection),
            bytes,
            count
        )),
        any::<u64>().prop_map(|count| (proto::Kind::Count.into(), 0, count)),
        any::<u64>().prop_map(|bytes| (proto::Kind::Withheld.into(), bytes, 0)),
        Just((proto::Kind::Nothing.into(), 0, 0)),
    ];
    prop_oneof![
        (names(), names(), any::<u32>(), any::<u64>()).prop_map(
            |(present, missing, missing_count, seconds_left)| {
                let other_terms = vec![proto::OtherTerms {
                    party: "bob".to_owned(),
                    job_digest: seconds_left.to_be_bytes().repeat(4),
                }];
                let waiting =
                    proto::Waiting { present, missing, missing_count, seconds_left, other_terms };
                Message::Waiting(waiting).into()
            }
        ),
        assembled().prop_map(|assembled| Message::Assembled(assembled.0).into()),
        shares().prop_map(|shares| Message::Shares(shares.0).into()),
        vec((name(), bytes(32), up_to(MAXIMUM_SIGNATURE_BYTES)), 0..4).prop_map(|entries| {
            let entries = entries.into_iter();
            let confirmations = entries.map(|(party, tag, signature)| proto::NamedConfirmation {
                party,
                tag,
                signature,
            });
            let confirmations = confirmations.collect();
            Message::Confirmations(proto::Confirmations { confirmations }).into()
        }),
        Just(Hidden(Message::Ready(proto::Ready {}))),
        any::<u64>().prop_map(|taken| Message::Resumed(proto::Resumed { taken }).into()),
        (names(), names()).prop_map(|(complete, missing)| {
            Message::Uploads(proto::Uploads { complete, missing }).into()
        }),
        (result, up_to(300), up_to(MAXIMUM_SIGNATURE_BYTES)).prop_map(
            |((kind, bitmap_bytes, count), statement, signature)| {
                let count = Some(count);
                let outcome = proto::Outcome { kind, bitmap_bytes, count, statement, signature };
                Message::Outcome(outcome).into()
            }
        ),
        up_to(300)
            .prop_map(|bits| Message::Bitmap(proto::BitmapChunk { bits: bits.into() }).into()),
        (bytes(32), up_to(300), up_to(300), 1..=u32::MAX).prop_map(
            |(nonce, quote, collateral, agreement)| {
                Message::Proof(proto::Proof { nonce, quote, collateral, agreement }).into()
            }
        ),
        (reason(), name(), text()).prop_map(|(reason, party, explanation)| {
            Message::Failed(proto::Failed { reason, party, explanation }).into()
        }),
    ]
}

impl<T> From<T> for Hidden<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

fn from_party(message: from_party::Message) -> Result<FromParty, WireError> {
    proto::FromParty { message: Some(message) }.try_into()
}

fn to_party(message: to_party::Message) -> Result<ToParty, WireError> {
    proto::ToParty { message: Some(message) }.try_into()
}

/// Through bytes and the checked form, and back.
fn round_trip_from_party(message: &proto::FromParty) -> proto::FromParty {
    let read = proto::FromParty::decode(&*message.encode_to_vec()).unwrap();
    FromParty::try_from(read).unwrap().into()
}

fn round_trip_to_party(message: &proto::ToParty) -> proto::ToParty {
    let read = proto::ToParty::decode(&*message.encode_to_vec()).unwrap();
    ToParty::try_from(read).unwrap().into()
}

proptest! {
    #[test]
    fn every_message_of_a_party_survives_the_round_trip(message in messages_of_parties()) {
        let message = proto::FromParty { message: Some(message.0) };
        prop_assert!(round_trip_from_party(&message) == message);
    }

    #[test]
    fn every_message_of_the_service_survives_the_round_trip(message in messages_of_the_service()) {
        let message = proto::ToParty { message: Some(message.0) };
        prop_assert!(round_trip_to_party(&message) == message);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..600)) {
        let _ = proto::FromParty::decode(&*bytes).map(FromParty::try_from);
        let _ = proto::ToParty::decode(&*bytes).map(ToParty::try_from);
        let _ = Statement::decode(&bytes);
    }

    /// Random bytes seldom are a message; these nearly are.
    #[test]
    fn altered_messages_never_panic(
        up in messages_of_parties(),
        down in messages_of_the_service(),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        keep in any::<prop::sample::Index>(),
    ) {
        let up = proto::FromParty { message: Some(up.0) }.encode_to_vec();
        let down = proto::ToParty { message: Some(down.0) }.encode_to_vec();
        for mut bytes in [up, down] {
            let at = place.index(bytes.len());
            bytes[at] = byte;
            bytes.truncate(keep.index(bytes.len() + 1));
            let _ = proto::FromParty::decode(&*bytes).map(FromParty::try_from);
            let _ = proto::ToParty::decode(&*bytes).map(ToParty::try_from);
            let _ = Statement::decode(&bytes);
        }
    }

    #[test]
    fn whatever_is_accepted_is_within_the_limits(text in any::<String>()) {
        let hello = |party: &str, software: &str| {
            from_party(from_party::Message::Hello(proto::Hello {
                job: Vec::new(),
                party: party.to_owned(),
                offer: Some(key_offer()),
                software: software.to_owned(),
                received: None,
                agreement: AGREEMENT_VERSION,
                evidence: None,
            }))
        };
        if let Ok(FromParty::Hello(hello)) = hello("alice", &text) {
            prop_assert!(!hello.software.contains(char::is_control));
            prop_assert!(hello.software.len() <= MAXIMUM_SOFTWARE_BYTES);
        }
        if let Ok(FromParty::Hello(hello)) = hello(&text, "") {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            prop_assert!(hello.party.chars().all(plain));
            prop_assert!((1..=MAXIMUM_NAME_BYTES).contains(&hello.party.len()));
        }
    }

    #[test]
    fn explanations_arrive_without_control_characters_and_cut(explanation in any::<String>()) {
        let long = explanation.repeat(MAXIMUM_EXPLANATION_BYTES / explanation.len().max(1) + 1);
        for explanation in [explanation, long] {
            let failed = Failed::new(Reason::Table, explanation.clone());
            let read = ToParty::try_from(proto::ToParty::from(ToParty::Failed(failed)));
            let Ok(ToParty::Failed(read)) = read else {
                return Err(TestCaseError::fail("refused"));
            };
            let expected: String = explanation
                .chars()
                .scan(0, |length, c| {
                    *length += c.len_utf8();
                    (*length <= MAXIMUM_EXPLANATION_BYTES).then_some(c)
                })
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect();
            prop_assert_eq!(read.explanation, expected);
        }
    }

    /// The statement is written and read in psi; its bytes are those of the .proto file's message.
    #[test]
    fn statements_are_the_message_of_the_proto_file(
        job in any::<[u8; 32]>(),
        party in name(),
        party_key in any::<[u8; 32]>(),
        members in vec((name(), any::<[u8; 32]>()), 0..4),
        keys in prop_oneof![Just(0), any::<u64>()],
        set_blake3 in any::<[u8; 32]>(),
        (kind, result, count) in (1..=4, any::<[u8; 32]>(), any::<u64>()),
        finished_at in prop_oneof![Just(0), any::<u64>()],
        transcript in any::<[u8; 32]>(),
    ) {
        let (result, count) = if kind <= 2 { (result, count) } else { ([0; 32], 0) };
        let message = proto::Statement {
            label: "convelo/join/statement/v2".to_owned(),
            job_digest: job.to_vec(),
            party: party.clone(),
            party_key: party_key.to_vec(),
            members: members
                .iter()
                .map(|(name, key)| proto::StatedMember { name: name.clone(), key: key.to_vec() })
                .collect(),
            keys,
            set_blake3: set_blake3.to_vec(),
            kind,
            result_sha256: result.to_vec(),
            finished_at,
            transcript: transcript.to_vec(),
            count: count.to_be_bytes().to_vec(),
        };
        let kind = OutcomeKind::from_number(u64::try_from(kind).unwrap()).unwrap();
        let statement = Statement {
            job: JobDigest(job),
            party,
            party_key: KeyId(party_key),
            members: members.into_iter().map(|(name, key)| (name, KeyId(key))).collect(),
            keys,
            set_blake3,
            told: Told { kind, count, sha256: result },
            finished_at,
            transcript: Some(transcript),
        };
        let bytes = message.encode_to_vec();
        prop_assert_eq!(statement.encode(), &*bytes);
        prop_assert!(Statement::decode(&bytes) == Ok(statement));
    }

    /// One statement has one form: what is read is what was signed, to the last bit.
    #[test]
    fn an_altered_statement_is_refused_or_another_one(
        members in vec((name(), bytes(32)), 0..4),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        keep in any::<prop::sample::Index>(),
    ) {
        let members = members.into_iter();
        let members = members.map(|(name, key)| proto::StatedMember { name, key }).collect();
        let message = proto::Statement { members, ..statement() };
        let mut bytes = message.encode_to_vec();
        let at = place.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(keep.index(bytes.len() + 1));
        if let Ok(read) = Statement::decode(&bytes) {
            prop_assert_eq!(read.encode(), &*bytes);
        }
    }
}

fn statement() -> proto::Statement {
    proto::Statement {
        label: "convelo/join/statement/v2".to_owned(),
        job_digest: vec![1; 32],
        party: "alice".to_owned(),
        party_key: vec![2; 32],
        members: Vec::new(),
        keys: 7,
        set_blake3: vec![3; 32],
        kind: proto::Kind::Count.into(),
        result_sha256: vec![4; 32],
        finished_at: 1,
        transcript: vec![5; 32],
        count: vec![0; 8],
    }
}

fn stated() -> proto::StatedMember {
    proto::StatedMember { name: "m".repeat(MAXIMUM_NAME_BYTES), key: vec![3; 32] }
}

fn key_offer() -> proto::KeyOffer {
    let signature = vec![2; MAXIMUM_SIGNATURE_BYTES];
    proto::KeyOffer { one_time_key: vec![1; ONE_TIME_KEY_BYTES], signature }
}

fn hello() -> proto::Hello {
    proto::Hello {
        job: vec![b'x'; MAXIMUM_JOB_BYTES],
        party: "p".repeat(MAXIMUM_NAME_BYTES),
        offer: Some(key_offer()),
        software: "s".repeat(MAXIMUM_SOFTWARE_BYTES),
        received: None,
        agreement: AGREEMENT_VERSION,
        evidence: Some(proto::OfferEvidence {
            quote: vec![5; MAXIMUM_QUOTE_BYTES],
            collateral: vec![b'c'; MAXIMUM_TERMS_BYTES - MAXIMUM_JOB_BYTES],
        }),
    }
}

fn member() -> proto::Member {
    proto::Member {
        name: "m".repeat(MAXIMUM_NAME_BYTES),
        public_key: vec![3; MAXIMUM_SPKI_BYTES],
        offer: Some(key_offer()),
        quote: vec![5; MAXIMUM_QUOTE_BYTES].into(),
        collateral: 1,
    }
}

/// A roster at its limits: as many collaterals as there are parties, of as many bytes as all may have.
fn roster() -> proto::Assembled {
    let collateral = |number| vec![number; MAXIMUM_RELAYED_BYTES / MAXIMUM_PARTIES].into();
    proto::Assembled {
        members: vec![member(); MAXIMUM_PARTIES],
        run: vec![0; 32],
        collaterals: (0_u8..).take(MAXIMUM_PARTIES).map(collateral).collect(),
    }
}

fn share() -> proto::SealedShare {
    proto::SealedShare {
        from: "f".repeat(MAXIMUM_NAME_BYTES),
        to: "t".repeat(MAXIMUM_NAME_BYTES),
        sealed: vec![4; SEALED_SHARE_BYTES],
    }
}

/// A message at its limits is accepted; with the change, whose field is named, it is refused.
fn one_above<M: Clone>(
    field: &str,
    at_limit: &M,
    parse: impl Fn(M) -> Result<(), WireError>,
    change: impl FnOnce(&mut M),
) {
    assert_eq!(parse(at_limit.clone()), Ok(()), "{field} at its limit");
    let mut above = at_limit.clone();
    change(&mut above);
    match parse(above) {
        Err(WireError::Field { field: found, .. }) => assert_eq!(found, field),
        other => panic!("{field} one above its limit: {other:?}"),
    }
}

fn party_sends(message: from_party::Message) -> Result<(), WireError> {
    from_party(message).map(|_| ())
}

fn service_sends(message: to_party::Message) -> Result<(), WireError> {
    to_party(message).map(|_| ())
}

#[test]
fn limits_of_hello() {
    let parse = |hello| party_sends(from_party::Message::Hello(hello));
    let at_limit = hello();
    one_above("hello.job", &at_limit, parse, |hello| hello.job.push(b'x'));
    let evidence = |hello: &mut proto::Hello| hello.evidence.take().unwrap();
    one_above("hello.job and its collateral", &at_limit, parse, |hello| {
        let mut offered = evidence(hello);
        offered.collateral.push(b'c');
        hello.evidence = Some(offered);
    });
    one_above("evidence.quote", &at_limit, parse, |hello| {
        let mut offered = evidence(hello);
        offered.quote.push(5);
        hello.evidence = Some(offered);
    });
    let collateral = vec![b'c'; MAXIMUM_OFFERED_BYTES];
    let short = proto::Hello {
        job: vec![b'x'; MAXIMUM_TERMS_BYTES - MAXIMUM_OFFERED_BYTES],
        evidence: Some(proto::OfferEvidence { quote: Vec::new(), collateral }),
        ..hello()
    };
    one_above("evidence.collateral", &short, parse, |hello| {
        let mut offered = evidence(hello);
        offered.collateral.push(b'c');
        hello.evidence = Some(offered);
    });
    one_above("hello.party", &at_limit, parse, |hello| hello.party.push('p'));
    one_above("hello.party", &at_limit, parse, |hello| hello.party.clear());
    one_above("hello.software", &at_limit, parse, |hello| hello.software.push('s'));
    one_above("hello.offer", &at_limit, parse, |hello| hello.offer = None);
    let change = |hello: &mut proto::Hello| hello.offer.as_mut().unwrap().signature.push(2);
    one_above("offer.signature", &at_limit, parse, change);
    for length in [0, 32, ONE_TIME_KEY_BYTES - 1, ONE_TIME_KEY_BYTES + 1] {
        one_above("offer.one_time_key", &at_limit, parse, |hello| {
            hello.offer.as_mut().unwrap().one_time_key = vec![1; length];
        });
    }
}

/// The first version has no such field, and one-time keys of another length.
#[test]
fn another_version_of_the_key_agreement() {
    let offer = proto::KeyOffer { one_time_key: vec![1; 32], signature: vec![2; 70] };
    for (agreement, found) in [(0, 1), (1, 1), (3, 3), (u32::MAX, u32::MAX)] {
        let hello = proto::Hello { agreement, offer: Some(offer.clone()), ..hello() };
        let refused = party_sends(from_party::Message::Hello(hello));
        assert_eq!(refused, Err(WireError::Version { found, expected: AGREEMENT_VERSION }));
        let proof = proto::Proof { nonce: vec![0; 32], agreement, ..Default::default() };
        let Ok(ToParty::Proof(proof)) = to_party(to_party::Message::Proof(proof)) else { panic!() };
        assert_eq!(proof.agreement, found);
    }
}

#[test]
fn limits_of_shares() {
    let at_limit = proto::SealedShares { shares: vec![share(); MAXIMUM_PARTIES] };
    let up = |shares| party_sends(from_party::Message::Shares(shares));
    let down = |shares| service_sends(to_party::Message::Shares(shares));
    for parse in [up as fn(_) -> _, down] {
        one_above("shares", &at_limit, parse, |shares| shares.shares.push(share()));
        let last = MAXIMUM_PARTIES - 1;
        one_above("share.sealed", &at_limit, parse, |shares| shares.shares[last].sealed.push(4));
        one_above("share.from", &at_limit, parse, |shares| shares.shares[last].from.push('f'));
        one_above("share.to", &at_limit, parse, |shares| shares.shares[last].to.push('t'));
    }
}

#[test]
fn limits_of_what_else_a_party_sends() {
    let parse = |message| party_sends(from_party::Message::Confirmation(message));
    for length in [0, 31, 33] {
        let signature = vec![0; MAXIMUM_SIGNATURE_BYTES];
        let at_limit = proto::Confirmation { tag: vec![0; 32], signature };
        one_above("confirmation.tag", &at_limit, parse, |message| message.tag = vec![0; length]);
        one_above("confirmation.signature", &at_limit, parse, |message| message.signature.push(0));
    }
    let parse = |message| party_sends(from_party::Message::Announcement(message));
    for length in [0, 31, 33] {
        let at_limit = proto::Announcement { keys: u64::MAX, blake3: vec![0; 32] };
        one_above("announcement.blake3", &at_limit, parse, |message| {
            message.blake3 = vec![0; length];
        });
    }
    let parse = |message| party_sends(from_party::Message::Chunk(message));
    let at_limit = proto::Chunk { pseudonyms: vec![0; MAXIMUM_CHUNK_BYTES].into() };
    one_above("chunk.pseudonyms", &at_limit, parse, |message| {
        message.pseudonyms = vec![0; MAXIMUM_CHUNK_BYTES + 1].into();
    });
}

#[test]
fn limits_of_what_the_service_sends() {
    let waiting = proto::Waiting {
        present: vec!["n".repeat(MAXIMUM_NAME_BYTES); MAXIMUM_PARTIES],
        missing: vec!["n".repeat(MAXIMUM_NAME_BYTES); MAXIMUM_PARTIES],
        missing_count: u32::MAX,
        seconds_left: u64::MAX,
        other_terms: vec![
            proto::OtherTerms {
                party: "n".repeat(MAXIMUM_NAME_BYTES),
                job_digest: vec![7; 32],
            };
            MAXIMUM_PARTIES
        ],
    };
    let parse = |message| service_sends(to_party::Message::Waiting(message));
    one_above("waiting.present", &waiting, parse, |waiting| waiting.present.push("n".to_owned()));
    one_above("waiting.missing", &waiting, parse, |waiting| waiting.missing.push("n".to_owned()));
    one_above("waiting.missing", &waiting, parse, |waiting| waiting.missing[63].push('n'));
    one_above("waiting.other_terms", &waiting, parse, |waiting| {
        waiting.other_terms.push(proto::OtherTerms::default());
    });
    one_above("other_terms.party", &waiting, parse, |waiting| {
        waiting.other_terms[63].party.push('n');
    });
    one_above("other_terms.job_digest", &waiting, parse, |waiting| {
        waiting.other_terms[63].job_digest.push(7);
    });

    let uploads = proto::Uploads { complete: waiting.present, missing: waiting.missing };
    let parse = |message| service_sends(to_party::Message::Uploads(message));
    one_above("uploads.complete", &uploads, parse, |uploads| uploads.complete[0].push('n'));
    one_above("uploads.missing", &uploads, parse, |uploads| uploads.missing.push("n".to_owned()));

    let assembled = roster();
    let parse = |message| service_sends(to_party::Message::Assembled(message));
    one_above("assembled.members", &assembled, parse, |all| all.members.push(member()));
    one_above("member.public_key", &assembled, parse, |all| all.members[63].public_key.push(3));
    one_above("member.name", &assembled, parse, |all| all.members[63].name.push('m'));
    one_above("member.offer", &assembled, parse, |all| all.members[63].offer = None);
    one_above("member.quote", &assembled, parse, |all| {
        all.members[63].quote = vec![5; MAXIMUM_QUOTE_BYTES + 1].into();
    });
    one_above("member.collateral", &assembled, parse, |all| all.members[63].collateral = 65);
    one_above("assembled.collaterals", &assembled, parse, |all| {
        all.collaterals[63] = vec![b'c'; MAXIMUM_RELAYED_BYTES / MAXIMUM_PARTIES + 1].into();
    });
    one_above("assembled.collaterals", &assembled, parse, |all| {
        all.collaterals.push(vec![].into());
    });
    let one = vec![b'c'; MAXIMUM_OFFERED_BYTES].into();
    let one = proto::Assembled { collaterals: vec![one], ..roster() };
    one_above("assembled.collaterals", &one, parse, |all| {
        all.collaterals[0] = vec![b'c'; MAXIMUM_OFFERED_BYTES + 1].into();
    });
    one_above("assembled.run", &assembled, parse, |all| all.run.push(0));
    one_above("assembled.run", &assembled, parse, |all| all.run.clear());

    let signature = vec![0; MAXIMUM_SIGNATURE_BYTES];
    let entry = proto::NamedConfirmation { party: "p".repeat(64), tag: vec![0; 32], signature };
    let all = proto::Confirmations { confirmations: vec![entry.clone(); MAXIMUM_PARTIES] };
    let parse = |message| service_sends(to_party::Message::Confirmations(message));
    one_above("confirmations", &all, parse, |all| all.confirmations.push(entry));
    one_above("confirmations.party", &all, parse, |all| all.confirmations[63].party.push('p'));
    one_above("confirmation.tag", &all, parse, |all| all.confirmations[63].tag.push(0));

    let outcome = proto::Outcome {
        kind: proto::Kind::Count.into(),
        bitmap_bytes: 0,
        count: Some(u64::MAX),
        statement: Vec::new(),
        signature: vec![0; MAXIMUM_SIGNATURE_BYTES],
    };
    let parse = |message| service_sends(to_party::Message::Outcome(message));
    one_above("outcome.signature", &outcome, parse, |outcome| outcome.signature.push(0));
    one_above("outcome.kind", &outcome, parse, |outcome| outcome.kind = 5);
    one_above("outcome.kind", &outcome, parse, |outcome| outcome.kind = 0);
    one_above("outcome.count", &outcome, parse, |outcome| outcome.count = None);

    let bitmap = proto::BitmapChunk { bits: vec![0; MAXIMUM_CHUNK_BYTES].into() };
    let parse = |message| service_sends(to_party::Message::Bitmap(message));
    one_above("bitmap.bits", &bitmap, parse, |bitmap| {
        bitmap.bits = vec![0; MAXIMUM_CHUNK_BYTES + 1].into();
    });

    let failed = proto::Failed {
        reason: proto::Reason::Table.into(),
        party: "p".repeat(MAXIMUM_NAME_BYTES),
        explanation: "e".repeat(MAXIMUM_EXPLANATION_BYTES),
    };
    let parse = |message| service_sends(to_party::Message::Failed(message));
    one_above("failed.party", &failed, parse, |failed| failed.party.push('p'));
    one_above("failed.explanation", &failed, parse, |failed| failed.explanation.push('e'));
}

#[test]
fn everything_at_its_limits_fits_into_one_message() {
    use from_party::Message as Up;
    use to_party::Message as Down;
    let shares = proto::SealedShares { shares: vec![share(); MAXIMUM_PARTIES] };
    let chunk = || vec![0; MAXIMUM_CHUNK_BYTES].into();
    let proof = proto::Proof {
        nonce: vec![0; 32],
        quote: vec![5; MAXIMUM_QUOTE_BYTES],
        collateral: vec![b'c'; MAXIMUM_COLLATERAL_BYTES],
        agreement: AGREEMENT_VERSION,
    };
    let up = [
        Up::Hello(hello()),
        Up::Chunk(proto::Chunk { pseudonyms: chunk() }),
        Up::Shares(shares.clone()),
    ];
    for message in up {
        let length = proto::FromParty { message: Some(message) }.encoded_len();
        assert!(length <= MAXIMUM_FROM_PARTY_BYTES, "{length} bytes");
    }
    let down = [
        Down::Assembled(roster()),
        Down::Shares(shares),
        Down::Bitmap(proto::BitmapChunk { bits: chunk() }),
        Down::Proof(proof),
    ];
    for message in down {
        let length = proto::ToParty { message: Some(message) }.encoded_len();
        assert!(length <= MAXIMUM_TO_PARTY_BYTES, "{length} bytes");
    }
}

/// What a connection without a seat may send: a challenge, its answer, the longest Hello, and what
/// carries them.
#[test]
fn the_longest_hello_of_a_stranger() {
    const UNEXPECTED: usize = 96 << 10;
    let evidence = proto::Evidence { quote: vec![5; MAXIMUM_QUOTE_BYTES] };
    let messages = [from_party::Message::Evidence(evidence), from_party::Message::Hello(hello())];
    let lengths = messages.map(|message| proto::FromParty { message: Some(message) }.encoded_len());
    assert!(lengths.iter().sum::<usize>() + (4 << 10) <= UNEXPECTED, "{lengths:?}");
}

/// Members with the same collateral share it.
#[test]
fn collateral_of_several_members_travels_once() {
    let member = |name: &str| proto::Member { name: name.to_owned(), ..member() };
    let collaterals = vec![vec![b'c'; 1000].into(), vec![b'd'; 1000].into()];
    let mut members = vec![member("alice"), member("bob"), member("carol")];
    members[1].collateral = 2;
    let message =
        to_party::Message::Assembled(proto::Assembled { members, run: vec![0; 32], collaterals });
    let message = proto::ToParty { message: Some(message) };
    let Ok(ToParty::Assembled(assembled, mut evidence)) = message.clone().try_into() else {
        panic!("refused")
    };
    assert_eq!(evidence["alice"].collateral, evidence["carol"].collateral);
    assert_ne!(evidence["alice"].collateral, evidence["bob"].collateral);
    assert!(round_trip_to_party(&message) == message);
    // Those who show the same bytes need not have got them from one place.
    let same = evidence["bob"].collateral.to_vec();
    for shown in evidence.values_mut() {
        shown.collateral = same.clone().into();
    }
    let written = proto::ToParty::from(ToParty::Assembled(assembled, evidence));
    let Some(to_party::Message::Assembled(written)) = written.message else { panic!() };
    assert_eq!(written.collaterals.len(), 1);
}

#[test]
fn names_with_control_characters_are_refused() {
    for name in ["a\nb", "a\u{1b}[2J", "\u{7f}", "a\0", "a b", "ä", "a\u{202e}b", "a/b", "'"] {
        let named = proto::Hello { party: name.to_owned(), ..hello() };
        let refused = party_sends(from_party::Message::Hello(named)).unwrap_err();
        assert!(!refused.to_string().contains(char::is_control), "the error repeats the name");
        let waiting = proto::Waiting { present: vec![name.to_owned()], ..Default::default() };
        assert!(service_sends(to_party::Message::Waiting(waiting)).is_err());
        let failed = proto::Failed { party: name.to_owned(), ..Default::default() };
        assert!(service_sends(to_party::Message::Failed(failed)).is_err());
    }
}

#[test]
fn a_long_explanation_is_cut_between_characters() {
    // The limit falls inside the last of these characters of four bytes.
    let text = format!("x{}", "\u{1F600}".repeat(MAXIMUM_EXPLANATION_BYTES / 4));
    let cut = proto::Failed::from(Failed::new(Reason::Table, text.clone())).explanation;
    assert_eq!(cut.len(), MAXIMUM_EXPLANATION_BYTES - 3);
    assert!(text.starts_with(&cut));
}

#[test]
fn a_message_of_unknown_kind_is_told_apart() {
    // Field 99, length-delimited, empty: what a newer peer might send.
    let newer = [0x9a, 0x06, 0x00];
    let message = proto::FromParty::decode(&newer[..]).unwrap();
    assert_eq!(FromParty::try_from(message).err(), Some(WireError::Unknown));
    let message = proto::ToParty::decode(&newer[..]).unwrap();
    assert_eq!(ToParty::try_from(message).err(), Some(WireError::Unknown));
}

#[test]
fn an_unknown_reason_is_a_failure_of_the_service() {
    for reason in [0, 20, -1, i32::MAX] {
        let leave = from_party::Message::Leave(proto::Leave { reason });
        assert!(matches!(from_party(leave), Ok(FromParty::Leave(Reason::Internal))));
    }
}

#[test]
fn every_reason_travels_as_itself() {
    let mut seen = std::collections::HashSet::new();
    for reason in 1..=19 {
        let leave = from_party::Message::Leave(proto::Leave { reason });
        let Ok(FromParty::Leave(checked)) = from_party(leave) else { panic!("{reason}") };
        assert_eq!(i32::from(proto::Reason::from(checked)), reason);
        assert!(seen.insert(checked));
    }
}

#[test]
fn statement_label() {
    let bytes = statement().encode_to_vec();
    assert!(Statement::decode(&bytes).is_ok());
    // Whoever has other bytes signed must not have a statement signed with them.
    assert!(bytes.starts_with(b"\x0a\x19convelo/join/statement/v2"));
    for label in ["", "convelo/join/statement/v3", "convelo/join/statement/v2 "] {
        let other = proto::Statement { label: label.to_owned(), ..statement() };
        refused(&other.encode_to_vec(), "statement.label");
    }
}

#[test]
fn limits_of_a_statement() {
    let refused_with = |field: &str, change: fn(&mut proto::Statement)| {
        let mut message =
            proto::Statement { members: vec![stated(); MAXIMUM_PARTIES], ..statement() };
        assert!(Statement::decode(&message.encode_to_vec()).is_ok());
        change(&mut message);
        refused(&message.encode_to_vec(), field);
    };
    refused_with("statement.job_digest", |message| message.job_digest.push(1));
    refused_with("statement.party", |message| message.party.clear());
    refused_with("statement.party", |message| message.party.push('\n'));
    refused_with("statement.party_key", |message| message.party_key.clear());
    refused_with("statement.members", |message| message.members.push(stated()));
    refused_with("member.name", |message| message.members[63].name.push('m'));
    refused_with("member.key", |message| message.members[63].key.push(3));
    refused_with("statement.set_blake3", |message| message.set_blake3.truncate(31));
    refused_with("statement.kind", |message| message.kind = 0);
    refused_with("statement.kind", |message| message.kind = 5);
    refused_with("statement.result_sha256", |message| message.result_sha256.clear());
    // What is withheld has no digest.
    refused_with("statement.result_sha256", |message| {
        message.kind = proto::Kind::Withheld.into();
    });
    refused_with("statement.transcript", |message| message.transcript.push(5));
    refused_with("statement.count", |message| message.count.clear());
    for more in [&b"\x68\x01"[..], b"\x50\x01", b"\x00"] {
        refused(&[&*statement().encode_to_vec(), more].concat(), "statement");
    }
}

fn refused(bytes: &[u8], expected: &str) {
    match Statement::decode(bytes) {
        Err(StatementError::Field { field, .. }) => assert_eq!(field, expected),
        _ => panic!("not refused for {expected}"),
    }
}

#[test]
fn every_field_of_the_protocol_is_documented() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto/convelo/join/v1/join.proto");
    let text = std::fs::read_to_string(path).unwrap();
    let (mut fields, mut above) = (0, "");
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        let declares = |word: &str| line.starts_with(word);
        let field = line.ends_with(';')
            && line.contains(" = ")
            && !["syntax", "package", "option", "import"].into_iter().any(declares);
        let block = ["message ", "enum ", "service ", "rpc "].into_iter().any(declares);
        if field || block {
            assert!(above.starts_with("// "), "line {number} has no comment above: {line}");
        }
        fields += usize::from(field);
        above = line;
    }
    assert!(fields > 60, "{fields} fields were found");
}
