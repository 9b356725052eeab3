use aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
use getrandom::SysRng;
use rand_core::UnwrapErr;
use sha2::Digest as _;

use super::*;
use crate::job::tests::{changed, named, unpinned};

/// Parties of one job with their identity keys, and what they sent.
struct Run {
    job: Job,
    names: Vec<String>,
    identities: Vec<EcdsaKeyPair>,
}

fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

fn identity() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key")
}

fn key_id(identity: &EcdsaKeyPair) -> KeyId {
    KeyId::of_spki(&spki_of(identity))
}

impl Run {
    fn unpinned(count: usize) -> Self {
        let names = (0..count).map(|index| format!("party{index:02}")).collect();
        let identities = (0..count).map(|_| identity()).collect();
        Self { job: unpinned(count, 1000).expect("valid"), names, identities }
    }

    fn named(count: usize) -> Self {
        let mut run = Self::unpinned(count);
        let keys = run.identities.iter().map(key_id);
        run.job = named(run.names.iter().map(String::as_str).zip(keys));
        run
    }

    fn openings(&self) -> Vec<Opening> {
        let parties = self.names.iter().zip(&self.identities);
        parties.map(|(name, key)| Opening::new(&self.job, name, key, &mut rng())).collect()
    }

    fn assembled(&self, party: usize) -> Result<(Sealing, Vec<SealedShare>), AgreementError> {
        let mut openings = self.openings();
        let assembled = assembled(&openings);
        openings.remove(party).assembled(&self.job, &assembled, &mut rng())
    }

    /// All parties up to the exchange of shares, with what each of them receives.
    fn sealed(&self) -> (Vec<Sealing>, Vec<Vec<SealedShare>>) {
        let openings = self.openings();
        let assembled = assembled(&openings);
        let mut sealings = Vec::new();
        let mut sent = Vec::new();
        for opening in openings {
            let (sealing, shares) =
                opening.assembled(&self.job, &assembled, &mut rng()).expect("assembled");
            sealings.push(sealing);
            sent.extend(shares);
        }
        let inboxes = self.names.iter().map(|name| inbox(&sent, name)).collect();
        (sealings, inboxes)
    }
}

fn assembled(openings: &[Opening]) -> Assembled {
    let member = |opening: &Opening| Member {
        name: opening.name.clone(),
        spki: spki_of(&opening.identity),
        offer: opening.offer(),
    };
    Assembled { run: [9; 32], members: openings.iter().map(member).collect() }
}

/// The same once more: what somebody has who got hold of all of it.
fn duplicate(opening: &Opening) -> Opening {
    Opening {
        digest: opening.digest,
        name: opening.name.clone(),
        identity: opening.identity.clone(),
        secret: opening.secret.clone(),
        offer: opening.offer(),
    }
}

fn inbox(sent: &[SealedShare], name: &str) -> Vec<SealedShare> {
    sent.iter().filter(|share| share.to == name).cloned().collect()
}

fn confirmations(names: &[String], own: &[Confirmation]) -> Vec<(String, Confirmation)> {
    names.iter().cloned().zip(own.iter().cloned()).collect()
}

fn error<T>(result: Result<T, AgreementError>) -> AgreementError {
    result.err().expect("refused")
}

#[test]
fn all_parties_get_one_key() {
    for count in [2, 3, 8, 64] {
        for run in [Run::named(count), Run::unpinned(count.min(8))] {
            let (sealings, inboxes) = run.sealed();
            let (confirming, own): (Vec<_>, Vec<_>) = sealings
                .into_iter()
                .zip(&inboxes)
                .map(|(sealing, inbox)| sealing.shares(inbox).expect("shares"))
                .unzip();
            let all = confirmations(&run.names, &own);
            let keys: Vec<_> = confirming
                .into_iter()
                .enumerate()
                .map(|(party, confirming)| {
                    let mut others = all.clone();
                    if party % 2 == 0 {
                        others.remove(party);
                    }
                    confirming.confirmed(&others).expect("confirmed")
                })
                .collect();
            assert!(keys.iter().all(|key| key.pseudonym_key == keys[0].pseudonym_key));
            let pseudonym = keys[0].pseudonymiser().pseudonym(b"key");
            assert!(pseudonym == keys[1].pseudonymiser().pseudonym(b"key"));
            assert!(own[0].tag != own[1].tag);
        }
    }
}

#[test]
fn two_runs_of_a_job_have_different_keys() {
    let run = Run::named(2);
    let key = || {
        let (mut sealings, inboxes) = run.sealed();
        sealings.remove(0).shares(&inboxes[0]).expect("shares").0.key.pseudonym_key
    };
    assert_ne!(key(), key());
}

/// Every label, frame and order of `docs/job-key.md`, computed apart from this code, so that no
/// change goes unnoticed.
#[test]
fn vectors_of_the_document() {
    let digest = JobDigest([1; 32]);
    let transcript = [4; 32];
    let shares = BTreeMap::from([
        ("alice", Share::new([2; SHARE_BYTES])),
        ("bob", Share::new([3; SHARE_BYTES])),
    ]);
    let (key, tags) = derive(digest, &transcript, &shares);
    assert_eq!(hex::encode(*key.pseudonym_key), "604e8af959315185f3dc1064b35e5928");
    assert_eq!(
        hex::encode(tags["alice"]),
        "985e3317a6ff63a7faf9d030dd2438dbcc37e0b46e3b06316e09f81aa9e7df91"
    );
    assert_eq!(
        hex::encode(tags["bob"]),
        "ac3372ddb3d41ce3dfadba9d6e7cf83bfa9496cb8ea0d3efc55667b2f771f509"
    );
    let key = |byte| JobKey { pseudonym_key: Zeroizing::new([byte; 16]) };
    let combined = JobKey::combined(vec![key(1), key(2)], digest);
    assert_eq!(hex::encode(*combined.pseudonym_key), "95c6478d3d5852fcc046e5d36193d33b");

    let member = |name: &str, byte: u8, signature| Member {
        name: name.to_owned(),
        spki: vec![byte; 91],
        offer: KeyOffer {
            one_time_key: Box::new([byte + 1; ONE_TIME_KEY_BYTES]),
            signature: vec![byte + 2; signature],
        },
    };
    let members = vec![member("bob", 9, 72), member("alice", 6, 70)];
    let shown = Assembled { run: [5; 32], members };
    assert_eq!(
        hex::encode(shown.transcript(digest)),
        "17b3f8824a0dd6abd81bda815cb6aec5cb792c83806069d2d8df145c75296871"
    );
    let sha256 = |bytes: Vec<u8>| hex::encode(Sha256::digest(bytes));
    assert_eq!(
        sha256(offer_message(digest, "alice", &[7; ONE_TIME_KEY_BYTES])),
        "c02e00727105d3ad5ad1fc8e92823bcdb21aebe990f73d5a8da4cae16d8cc951"
    );
    assert_eq!(
        sha256(share_info(digest, &transcript, "alice", "bob")),
        "13fb5774126d4d5306731ee56109ead71edf06e8309d8cab0bb21aa14201b282"
    );
    assert_eq!(
        sha256(confirmed_message(digest, &transcript, "alice", &[12; 32])),
        "f10ea0d1b1a0ae024ac4cf048f214cfcb69b88491b72c3363811cba592162a88"
    );
}

#[test]
fn swapped_offer() {
    let run = Run::named(3);
    let mut openings = run.openings();
    let mut assembled = assembled(&openings);
    let swap = assembled.members[1].offer.clone();
    assembled.members[1].offer = std::mem::replace(&mut assembled.members[2].offer, swap);
    assert_eq!(
        error(openings.remove(0).assembled(&run.job, &assembled, &mut rng())),
        AgreementError::Signature { name: "party01".to_owned() }
    );
}

#[test]
fn one_time_key_of_the_relay() {
    let run = Run::named(2);
    let mut openings = run.openings();
    let mut assembled = assembled(&openings);
    assembled.members[1].offer.one_time_key = one_time_key(&mut rng()).1;
    assert_eq!(
        error(openings.remove(0).assembled(&run.job, &assembled, &mut rng())),
        AgreementError::Signature { name: "party01".to_owned() }
    );
}

#[test]
fn offer_of_another_job() {
    let run = Run::named(2);
    let mut other =
        Run { job: run.job.clone(), names: run.names.clone(), identities: run.identities.clone() };
    other.job = changed(&run.job, |terms| terms.name = "other".to_owned()).expect("valid");
    let mut openings = run.openings();
    let mut assembled = assembled(&openings);
    assembled.members[1].offer = other.openings()[1].offer();
    assert_eq!(
        error(openings.remove(0).assembled(&run.job, &assembled, &mut rng())),
        AgreementError::Signature { name: "party01".to_owned() }
    );
}

#[test]
fn offer_under_another_name() {
    let run = Run::unpinned(2);
    let mut openings = run.openings();
    let mut assembled = assembled(&openings);
    assembled.members[1].name = "mallory".to_owned();
    assert_eq!(
        error(openings.remove(0).assembled(&run.job, &assembled, &mut rng())),
        AgreementError::Signature { name: "mallory".to_owned() }
    );
}

#[test]
fn job_changed_under_way() {
    let run = Run::named(2);
    let mut openings = run.openings();
    let assembled = assembled(&openings);
    let job = changed(&run.job, |terms| terms.reveal.minimum = 1).expect("valid");
    assert_eq!(
        error(openings.remove(0).assembled(&job, &assembled, &mut rng())),
        AgreementError::JobChanged
    );
}

#[test]
fn stranger_among_the_members() {
    let run = Run::named(2);
    let mut openings = run.openings();
    let mut assembled = assembled(&openings);
    let mallory = Opening::new(&run.job, "mallory", &identity(), &mut rng());
    assembled.members[1] = self::assembled(&[mallory]).members.remove(0);
    assert_eq!(
        error(openings.remove(0).assembled(&run.job, &assembled, &mut rng())),
        AgreementError::Stranger { name: "mallory".to_owned() }
    );
}

#[test]
fn one_party_too_many_or_too_few() {
    for count in [1, 2, 4] {
        let run = Run::unpinned(3);
        let mut openings = run.openings();
        let more = Opening::new(&run.job, "party03", &identity(), &mut rng());
        let mut crowd = assembled(&openings);
        crowd.members.extend(assembled(&[more]).members);
        crowd.members.truncate(count);
        assert_eq!(
            error(openings.remove(0).assembled(&run.job, &crowd, &mut rng())),
            AgreementError::PartyCount { found: count, expected: 3 }
        );
    }
}

#[test]
fn wrong_key_for_a_name() {
    let run = Run::named(2);
    let impostor = identity();
    let mut openings = run.openings();
    openings[1] = Opening::new(&run.job, "party01", &impostor, &mut rng());
    let assembled = assembled(&openings);
    assert_eq!(
        error(openings.remove(0).assembled(&run.job, &assembled, &mut rng())),
        AgreementError::WrongKey {
            name: "party01".to_owned(),
            found: key_id(&impostor),
            expected: key_id(&run.identities[1]),
        }
    );
}

#[test]
fn two_members_with_one_name() {
    let mut run = Run::unpinned(3);
    run.names[2] = "party01".to_owned();
    assert_eq!(error(run.assembled(0)), AgreementError::Twice { name: "party01".to_owned() });
}

#[test]
fn two_members_with_one_key() {
    let mut run = Run::unpinned(3);
    run.identities[2] = run.identities[1].clone();
    assert_eq!(error(run.assembled(0)), AgreementError::SharedKey { name: "party02".to_owned() });
}

#[test]
fn one_time_key_copied_from_another_member() {
    let run = Run::unpinned(3);
    let mut openings = run.openings();
    let mut assembled = assembled(&openings);
    let copied = assembled.members[1].offer.one_time_key.clone();
    let message = offer_message(run.job.digest(), "party02", &copied);
    let signature = signature(&run.identities[2], &message);
    assembled.members[2].offer = KeyOffer { one_time_key: copied, signature };
    assert_eq!(
        error(openings.remove(0).assembled(&run.job, &assembled, &mut rng())),
        AgreementError::SharedKey { name: "party02".to_owned() }
    );
}

#[test]
fn one_identity_in_two_encodings() {
    let run = Run::unpinned(2);
    let mut openings = run.openings();
    let mut assembled = assembled(&openings);
    let point = run.identities[1].public_key().as_ref();
    // AlgorithmIdentifier of id-ecPublicKey with prime256v1 (RFC 5480), compressed point.
    let mut spki =
        hex::decode("3039301306072a8648ce3d020106082a8648ce3d030107032200").expect("hex");
    spki.push(2 + point[64] % 2);
    spki.extend_from_slice(&point[1..33]);
    assert!(ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &spki).is_ok());
    assembled.members[1].spki = spki;
    assert_eq!(
        error(openings.remove(0).assembled(&run.job, &assembled, &mut rng())),
        AgreementError::BadIdentityKey { name: "party01".to_owned() }
    );
}

/// An ML-KEM-768 key has coefficients below its modulus (FIPS 203, 7.2).
#[test]
fn one_time_key_that_is_none() {
    let run = Run::unpinned(2);
    let mut openings = run.openings();
    let mut assembled = assembled(&openings);
    let one_time_key = Box::new([0xff; ONE_TIME_KEY_BYTES]);
    let message = offer_message(run.job.digest(), "party01", &one_time_key);
    let signature = signature(&run.identities[1], &message);
    assembled.members[1].offer = KeyOffer { one_time_key, signature };
    assert_eq!(
        error(openings.remove(0).assembled(&run.job, &assembled, &mut rng())),
        AgreementError::BadOneTimeKey { name: "party01".to_owned() }
    );
}

#[test]
fn our_own_entry_changed() {
    let own_entry = |what| AgreementError::OwnEntry { name: "party00".to_owned(), what };

    let run = Run::unpinned(2);
    let mut openings = run.openings();
    let mut assembled = assembled(&openings);
    assembled.members[0].name = "mallory".to_owned();
    let changed = openings.remove(0).assembled(&run.job, &assembled, &mut rng());
    assert_eq!(error(changed), own_entry("name"));

    let mut openings = run.openings();
    let mut assembled = self::assembled(&openings);
    let impostor = Opening::new(&run.job, "party00", &identity(), &mut rng());
    assembled.members[0] = self::assembled(&[impostor]).members.remove(0);
    let changed = openings.remove(0).assembled(&run.job, &assembled, &mut rng());
    assert_eq!(error(changed), own_entry("identity key"));

    let run = Run::named(2);
    let mut openings = run.openings();
    let mut assembled = self::assembled(&openings);
    assembled.members[0].offer = run.openings()[0].offer();
    let changed = openings.remove(0).assembled(&run.job, &assembled, &mut rng());
    assert_eq!(error(changed), own_entry("one-time key"));
}

#[test]
fn share_from_a_stranger() {
    let run = Run::named(3);
    let (mut sealings, mut inboxes) = run.sealed();
    let mut strange = inboxes[0][0].clone();
    strange.from = "mallory".to_owned();
    inboxes[0].push(strange);
    assert_eq!(
        error(sealings.remove(0).shares(&inboxes[0])),
        AgreementError::Stranger { name: "mallory".to_owned() }
    );
}

#[test]
fn share_from_ourselves() {
    let run = Run::named(2);
    let (mut sealings, mut inboxes) = run.sealed();
    inboxes[0][0].from = "party00".to_owned();
    assert_eq!(
        error(sealings.remove(0).shares(&inboxes[0])),
        AgreementError::Stranger { name: "party00".to_owned() }
    );
}

#[test]
fn relay_alters_share() {
    let run = Run::named(2);
    // In ML-KEM's part, in X25519's, in the share, in its tag.
    for byte in [0, 1087, 1088, ENCAPSULATED_KEY_BYTES, SEALED_SHARE_BYTES - 1] {
        let (mut sealings, mut inboxes) = run.sealed();
        inboxes[0][0].sealed[byte] ^= 1;
        assert_eq!(
            error(sealings.remove(0).shares(&inboxes[0])),
            AgreementError::Unreadable { name: "party01".to_owned() },
            "byte {byte}"
        );
    }
    let lengths = [
        0,
        32 + SHARE_BYTES + 16,
        ENCAPSULATED_KEY_BYTES,
        SEALED_SHARE_BYTES - 1,
        SEALED_SHARE_BYTES + 1,
    ];
    for length in lengths {
        let (mut sealings, mut inboxes) = run.sealed();
        inboxes[0][0].sealed.resize(length, 0);
        assert_eq!(
            error(sealings.remove(0).shares(&inboxes[0])),
            AgreementError::Unreadable { name: "party01".to_owned() },
            "length {length}"
        );
    }
}

/// The relay knows every public value, so it can seal a share of its own. Then the party whose share
/// it replaced confirms another key.
#[test]
fn relay_substitutes_share() {
    let run = Run::named(2);
    let openings = run.openings();
    let assembled = assembled(&openings);
    let transcript = assembled.transcript(run.job.digest());
    let recipient = PublicKey::from_bytes(&*openings[0].offer.one_time_key).expect("a public key");
    let info = share_info(run.job.digest(), &transcript, "party01", "party00");
    let (encapped, ciphertext) =
        hpke::single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, XWing>(
            &OpModeS::Base,
            &recipient,
            &info,
            &[0; SHARE_BYTES],
            &[],
            &mut rng(),
        )
        .expect("sealed");
    let substituted = SealedShare {
        from: "party01".to_owned(),
        to: "party00".to_owned(),
        sealed: [&encapped.to_bytes()[..], &ciphertext].concat(),
    };
    let mut sealings = openings
        .into_iter()
        .map(|opening| opening.assembled(&run.job, &assembled, &mut rng()).expect("assembled"))
        .collect::<Vec<_>>()
        .into_iter();
    let (first, to_second) = sealings.next().expect("two");
    let (second, _) = sealings.next().expect("two");
    let (first, own_first) = first.shares(&[substituted]).expect("it opens");
    let (second, own_second) = second.shares(&to_second).expect("genuine");
    assert!(first.key.pseudonym_key != second.key.pseudonym_key);
    let all = confirmations(&run.names, &[own_first, own_second]);
    assert_eq!(
        error(first.confirmed(&all)),
        AgreementError::Mismatch { name: "party01".to_owned() }
    );
    assert_eq!(
        error(second.confirmed(&all)),
        AgreementError::Mismatch { name: "party00".to_owned() }
    );
}

/// The service has got hold of the one-time key of an earlier run, with which Bob signed for this
/// job. In a later run it plays Bob: it shows his old offer, opens what is sealed to it, and derives
/// the key. It cannot sign the later run.
#[test]
fn one_time_key_of_an_earlier_run_has_leaked() {
    let run = Run::named(2);
    let leaked = run.openings().remove(1);
    let earlier = run.sealed();
    let confirmed_earlier = {
        let (mut sealings, inboxes) = earlier;
        sealings.remove(1).shares(&inboxes[1]).expect("shares").1
    };

    let alice = run.openings().remove(0);
    let shown = assembled(&[duplicate(&alice), duplicate(&leaked)]);
    let (alice, to_bob) = alice.assembled(&run.job, &shown, &mut rng()).expect("all signed");
    // The service does what Bob would do, but it has a key of its own in place of his identity.
    let service = Opening { identity: identity(), ..duplicate(&leaked) };
    let (service, to_alice) = service.seal(&shown, &mut rng()).expect("sealed");
    let (service, forged) = service.shares(&to_bob).expect("it opens what is sealed to Bob");
    let (alice, own) = alice.shares(&to_alice).expect("shares");
    assert_eq!(alice.key.pseudonym_key, service.key.pseudonym_key, "the service has the key");

    let not_this_run = AgreementError::NotThisRun { name: "party01".to_owned() };
    let signatures =
        [forged.signature.clone(), confirmed_earlier.signature, leaked.offer.signature, Vec::new()];
    for signature in signatures {
        let confirmation = Confirmation { tag: forged.tag, signature };
        let all = confirmations(&run.names, &[own.clone(), confirmation]);
        assert_eq!(alice.check(&all), Err(not_this_run.clone()));
    }
    let all = confirmations(&run.names, &[own, forged]);
    assert_eq!(error(alice.confirmed(&all)), not_this_run);
}

#[test]
fn relay_exchanges_senders() {
    let run = Run::named(3);
    let (mut sealings, mut inboxes) = run.sealed();
    let first = inboxes[0][0].from.clone();
    inboxes[0][0].from = std::mem::replace(&mut inboxes[0][1].from, first);
    assert!(matches!(
        error(sealings.remove(0).shares(&inboxes[0])),
        AgreementError::Unreadable { .. }
    ));
}

#[test]
fn share_delivered_to_another_party() {
    let run = Run::named(3);
    let (mut sealings, inboxes) = run.sealed();
    let mut misdelivered = inboxes[0].clone();
    misdelivered[0] = inboxes[2].iter().find(|share| share.from == "party01").unwrap().clone();
    assert_eq!(
        error(sealings.remove(0).shares(&misdelivered)),
        AgreementError::NotForUs { from: "party01".to_owned(), to: "party02".to_owned() }
    );
    misdelivered[0].to = "party00".to_owned();
    let (mut sealings, _) = run.sealed();
    assert_eq!(
        error(sealings.remove(0).shares(&misdelivered)),
        AgreementError::Unreadable { name: "party01".to_owned() }
    );
}

#[test]
fn replayed_share() {
    let run = Run::named(2);
    let (_, earlier) = run.sealed();
    let (mut sealings, _) = run.sealed();
    assert_eq!(
        error(sealings.remove(0).shares(&earlier[0])),
        AgreementError::Unreadable { name: "party01".to_owned() }
    );
}

#[test]
fn missing_share() {
    let run = Run::named(3);
    let (mut sealings, mut inboxes) = run.sealed();
    inboxes[0].retain(|share| share.from != "party02");
    assert_eq!(
        error(sealings.remove(0).shares(&inboxes[0])),
        AgreementError::MissingShare { name: "party02".to_owned() }
    );
}

#[test]
fn two_shares_of_one_party() {
    let run = Run::named(3);
    let (mut sealings, mut inboxes) = run.sealed();
    let again = inboxes[0][0].clone();
    inboxes[0].push(again.clone());
    assert_eq!(
        error(sealings.remove(0).shares(&inboxes[0])),
        AgreementError::Twice { name: again.from }
    );
}

/// The relay keeps an earlier offer of a party that has started again, and shows it to one other
/// party.
#[test]
fn relay_shows_different_offers() {
    let run = Run::named(3);
    let earlier = run.openings();
    let mut openings = run.openings();
    let assembled = assembled(&openings);
    let mut equivocated = assembled.clone();
    equivocated.members[2].offer = earlier[2].offer();
    let (_, from_second) =
        openings.remove(1).assembled(&run.job, &equivocated, &mut rng()).expect("all signed");
    let (first, _) =
        openings.remove(0).assembled(&run.job, &assembled, &mut rng()).expect("all signed");
    assert_eq!(
        error(first.shares(&inbox(&from_second, "party00"))),
        AgreementError::Unreadable { name: "party01".to_owned() }
    );
}

/// A party that colludes with the relay seals one share to one party and a different share to the
/// other; everything opens.
#[test]
fn equivocating_relay_is_caught_by_confirmation() {
    let run = Run::named(3);
    let mut openings = run.openings();
    let assembled = assembled(&openings);
    let dishonest = openings.remove(2);
    let again = duplicate(&dishonest);
    let (_, to_first) = dishonest.assembled(&run.job, &assembled, &mut rng()).expect("assembled");
    let (_, to_second) = again.assembled(&run.job, &assembled, &mut rng()).expect("assembled");
    let (second, from_second) =
        openings.remove(1).assembled(&run.job, &assembled, &mut rng()).expect("assembled");
    let (first, from_first) =
        openings.remove(0).assembled(&run.job, &assembled, &mut rng()).expect("assembled");
    let deliver = |name: &str, sent: [&[SealedShare]; 2]| inbox(&sent.concat(), name);
    let (first, own_first) =
        first.shares(&deliver("party00", [&from_second, &to_first])).expect("all open");
    let (second, own_second) =
        second.shares(&deliver("party01", [&from_first, &to_second])).expect("all open");
    assert_ne!(first.key.pseudonym_key, second.key.pseudonym_key);

    // It cannot both be right, whichever of the two keys the dishonest party confirms.
    let third = Confirmation { tag: first.others["party02"].tag, signature: Vec::new() };
    let all = confirmations(&run.names, &[own_first, own_second, third]);
    assert_eq!(
        error(first.confirmed(&all)),
        AgreementError::Mismatch { name: "party01".to_owned() }
    );
    assert_eq!(
        error(second.confirmed(&all)),
        AgreementError::Mismatch { name: "party00".to_owned() }
    );
}

#[test]
fn relay_forges_confirmations() {
    let run = Run::named(3);
    let (sealings, inboxes) = run.sealed();
    let confirming = sealings
        .into_iter()
        .zip(&inboxes)
        .map(|(sealing, inbox)| sealing.shares(inbox).expect("shares"));
    let (mut states, own): (Vec<_>, Vec<_>) = confirming.unzip();
    let state = states.remove(0);
    let named = |entries: &[(&str, &Confirmation)]| -> Vec<(String, Confirmation)> {
        entries.iter().map(|(name, tag)| ((*name).to_owned(), (*tag).clone())).collect()
    };
    let name = |name: &str| name.to_owned();

    let reflected = named(&[("party01", &own[0]), ("party02", &own[0])]);
    assert_eq!(state.check(&reflected), Err(AgreementError::Mismatch { name: name("party01") }));
    let only = named(&[("party01", &own[1])]);
    assert_eq!(
        state.check(&only),
        Err(AgreementError::MissingConfirmation { name: name("party02") })
    );
    let twice = named(&[("party01", &own[1]), ("party01", &own[1])]);
    assert_eq!(state.check(&twice), Err(AgreementError::Twice { name: name("party01") }));
    let strange = named(&[("mallory", &own[1])]);
    assert_eq!(state.check(&strange), Err(AgreementError::Stranger { name: name("mallory") }));
    // The right tag with the signature of another party, or of none.
    for signature in [&own[2].signature[..], &[]] {
        let forged = Confirmation { tag: own[1].tag, signature: signature.to_vec() };
        let all = named(&[("party01", &forged), ("party02", &own[2])]);
        assert_eq!(state.check(&all), Err(AgreementError::NotThisRun { name: name("party01") }));
    }
    assert!(state.confirmed(&named(&[("party02", &own[2]), ("party01", &own[1])])).is_ok());
}

/// What names a run is part of what is signed, even if all offers were the same.
#[test]
fn confirmation_of_a_run_under_another_number() {
    let run = Run::named(2);
    let openings = run.openings();
    let (one, mut other) = (assembled(&openings), assembled(&openings));
    other.run[31] ^= 1;
    assert_ne!(one.transcript(run.job.digest()), other.transcript(run.job.digest()));
}

#[test]
fn debug_shows_no_secret() {
    let run = Run::named(2);
    let opening = run.openings().remove(0);
    assert_eq!(format!("{opening:?}"), "Opening { name: \"party00\", .. }");
    let (mut sealings, inboxes) = run.sealed();
    let sealing = sealings.remove(0);
    assert_eq!(format!("{sealing:?}"), "Sealing { name: \"party00\", .. }");
    let (confirming, own) = sealing.shares(&inboxes[0]).expect("shares");
    assert_eq!(format!("{confirming:?}"), "Confirming { name: \"party00\", .. }");
    assert_eq!(format!("{own:?} {:?}", confirming.key), "Confirmation(..) JobKey(..)");
}

#[test]
fn hostile_name_is_cut_and_escaped_in_errors() {
    let run = Run::unpinned(2);
    let mut openings = run.openings();
    let mut assembled = assembled(&openings);
    assembled.members[1].name = format!("\u{1b}[2J{}", "x".repeat(1000));
    let text = error(openings.remove(0).assembled(&run.job, &assembled, &mut rng())).to_string();
    assert!(!text.contains('\u{1b}') && text.len() < 200, "{text}");
}
