use aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING;
use getrandom::SysRng;
use rand_core::UnwrapErr;

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
        let members = members(&openings);
        openings.remove(party).assembled(&self.job, &members, &mut rng())
    }

    /// All parties up to the exchange of shares, with what each of them receives.
    fn sealed(&self) -> (Vec<Sealing>, Vec<Vec<SealedShare>>) {
        let openings = self.openings();
        let members = members(&openings);
        let mut sealings = Vec::new();
        let mut sent = Vec::new();
        for opening in openings {
            let (sealing, shares) =
                opening.assembled(&self.job, &members, &mut rng()).expect("assembled");
            sealings.push(sealing);
            sent.extend(shares);
        }
        let inboxes = self.names.iter().map(|name| inbox(&sent, name)).collect();
        (sealings, inboxes)
    }
}

fn members(openings: &[Opening]) -> Vec<Member> {
    openings
        .iter()
        .map(|opening| Member {
            name: opening.name.clone(),
            spki: opening.spki.clone(),
            offer: opening.offer(),
        })
        .collect()
}

fn inbox(sent: &[SealedShare], name: &str) -> Vec<SealedShare> {
    sent.iter().filter(|share| share.to == name).cloned().collect()
}

fn confirmations(names: &[String], own: &[Confirmation]) -> Vec<(String, Confirmation)> {
    names.iter().cloned().zip(own.iter().copied()).collect()
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
            assert!(own[0] != own[1]);
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

/// Every label, frame and order of the derivation, so that no change goes unnoticed.
#[test]
fn derivation_vector() {
    let digest = JobDigest([1; 32]);
    let shares = BTreeMap::from([
        ("alice", Share::new([2; SHARE_BYTES])),
        ("bob", Share::new([3; SHARE_BYTES])),
    ]);
    let (key, confirmations) = derive(digest, &[4; 32], &shares);
    assert_eq!(hex::encode(*key.pseudonym_key), "043a11d0900355380ebd8c790a6ac4f7");
    assert_eq!(
        hex::encode(confirmations["alice"].0),
        "a96ca32e3046a46e01ed3c8bf038a1470b36f64c8e7c1c230f289208c076cc00"
    );
    assert_eq!(
        hex::encode(confirmations["bob"].0),
        "a6135544ca4d7e3496f541b449ce87d87a8232a99b847d9fc5a768c76f3265a2"
    );
}

#[test]
fn swapped_offer() {
    let run = Run::named(3);
    let mut openings = run.openings();
    let mut members = members(&openings);
    let swap = members[1].offer.clone();
    members[1].offer = std::mem::replace(&mut members[2].offer, swap);
    assert_eq!(
        error(openings.remove(0).assembled(&run.job, &members, &mut rng())),
        AgreementError::Signature { name: "party01".to_owned() }
    );
}

#[test]
fn one_time_key_of_the_relay() {
    let run = Run::named(2);
    let mut openings = run.openings();
    let mut members = members(&openings);
    let (_, public) = X25519HkdfSha256::gen_keypair_with_rng(&mut rng());
    members[1].offer.one_time_key = public.to_bytes().into();
    assert_eq!(
        error(openings.remove(0).assembled(&run.job, &members, &mut rng())),
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
    let mut members = members(&openings);
    members[1].offer = other.openings()[1].offer();
    assert_eq!(
        error(openings.remove(0).assembled(&run.job, &members, &mut rng())),
        AgreementError::Signature { name: "party01".to_owned() }
    );
}

#[test]
fn offer_under_another_name() {
    let run = Run::unpinned(2);
    let mut openings = run.openings();
    let mut members = members(&openings);
    members[1].name = "mallory".to_owned();
    assert_eq!(
        error(openings.remove(0).assembled(&run.job, &members, &mut rng())),
        AgreementError::Signature { name: "mallory".to_owned() }
    );
}

#[test]
fn job_changed_under_way() {
    let run = Run::named(2);
    let mut openings = run.openings();
    let members = members(&openings);
    let job = changed(&run.job, |terms| terms.reveal.minimum = 1).expect("valid");
    assert_eq!(
        error(openings.remove(0).assembled(&job, &members, &mut rng())),
        AgreementError::JobChanged
    );
}

#[test]
fn stranger_among_the_members() {
    let run = Run::named(2);
    let mut openings = run.openings();
    let mut members = members(&openings);
    let mallory = Opening::new(&run.job, "mallory", &identity(), &mut rng());
    members[1] = self::members(&[mallory]).remove(0);
    assert_eq!(
        error(openings.remove(0).assembled(&run.job, &members, &mut rng())),
        AgreementError::Stranger { name: "mallory".to_owned() }
    );
}

#[test]
fn one_party_too_many_or_too_few() {
    for count in [1, 2, 4] {
        let run = Run::unpinned(3);
        let mut openings = run.openings();
        let more = Opening::new(&run.job, "party03", &identity(), &mut rng());
        let crowd = members(&openings).into_iter().chain(members(&[more])).take(count);
        let crowd: Vec<_> = crowd.collect();
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
    let members = members(&openings);
    assert_eq!(
        error(openings.remove(0).assembled(&run.job, &members, &mut rng())),
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
    let mut members = members(&openings);
    let copied = members[1].offer.one_time_key;
    let message = offer_message(run.job.digest(), "party02", &copied);
    let signature = signature(&run.identities[2], &message);
    members[2].offer = KeyOffer { one_time_key: copied, signature };
    assert_eq!(
        error(openings.remove(0).assembled(&run.job, &members, &mut rng())),
        AgreementError::SharedKey { name: "party02".to_owned() }
    );
}

#[test]
fn one_identity_in_two_encodings() {
    let run = Run::unpinned(2);
    let mut openings = run.openings();
    let mut members = members(&openings);
    let point = run.identities[1].public_key().as_ref();
    // AlgorithmIdentifier of id-ecPublicKey with prime256v1 (RFC 5480), compressed point.
    let mut spki =
        hex::decode("3039301306072a8648ce3d020106082a8648ce3d030107032200").expect("hex");
    spki.push(2 + point[64] % 2);
    spki.extend_from_slice(&point[1..33]);
    assert!(ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &spki).is_ok());
    members[1].spki = spki;
    assert_eq!(
        error(openings.remove(0).assembled(&run.job, &members, &mut rng())),
        AgreementError::BadIdentityKey { name: "party01".to_owned() }
    );
}

#[test]
fn one_time_key_of_low_order() {
    let run = Run::unpinned(2);
    let mut openings = run.openings();
    let mut members = members(&openings);
    let message = offer_message(run.job.digest(), "party01", &[0; 32]);
    let signature = signature(&run.identities[1], &message);
    members[1].offer = KeyOffer { one_time_key: [0; 32], signature };
    assert_eq!(
        error(openings.remove(0).assembled(&run.job, &members, &mut rng())),
        AgreementError::BadOneTimeKey { name: "party01".to_owned() }
    );
}

#[test]
fn our_own_entry_changed() {
    let own_entry = |what| AgreementError::OwnEntry { name: "party00".to_owned(), what };

    let run = Run::unpinned(2);
    let mut openings = run.openings();
    let mut members = members(&openings);
    members[0].name = "mallory".to_owned();
    let changed = openings.remove(0).assembled(&run.job, &members, &mut rng());
    assert_eq!(error(changed), own_entry("name"));

    let mut openings = run.openings();
    let mut members = self::members(&openings);
    let impostor = Opening::new(&run.job, "party00", &identity(), &mut rng());
    members[0] = self::members(&[impostor]).remove(0);
    let changed = openings.remove(0).assembled(&run.job, &members, &mut rng());
    assert_eq!(error(changed), own_entry("identity key"));

    let run = Run::named(2);
    let mut openings = run.openings();
    let mut members = self::members(&openings);
    members[0].offer = run.openings()[0].offer();
    let changed = openings.remove(0).assembled(&run.job, &members, &mut rng());
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
    for byte in [0, 31, 32, 63, 64, SEALED_SHARE_BYTES - 1] {
        let (mut sealings, mut inboxes) = run.sealed();
        inboxes[0][0].sealed[byte] ^= 1;
        assert_eq!(
            error(sealings.remove(0).shares(&inboxes[0])),
            AgreementError::Unreadable { name: "party01".to_owned() },
            "byte {byte}"
        );
    }
    for length in [0, 31, 32, SEALED_SHARE_BYTES - 1, SEALED_SHARE_BYTES + 1] {
        let (mut sealings, mut inboxes) = run.sealed();
        inboxes[0][0].sealed.resize(length, 0);
        assert_eq!(
            error(sealings.remove(0).shares(&inboxes[0])),
            AgreementError::Unreadable { name: "party01".to_owned() },
            "length {length}"
        );
    }
}

/// The relay knows every public value, but not the sender's one-time secret.
#[test]
fn relay_substitutes_share() {
    let run = Run::named(2);
    let (mut sealings, mut inboxes) = run.sealed();
    let recipient =
        PublicKey::from_bytes(&X25519HkdfSha256::sk_to_pk(&sealings[0].secret).to_bytes())
            .expect("public key");
    let info = share_info(run.job.digest(), &sealings[0].transcript, "party01", "party00");
    let relays_own = X25519HkdfSha256::gen_keypair_with_rng(&mut rng());
    for mode in [OpModeS::Base, OpModeS::Auth(relays_own)] {
        let (encapped, ciphertext) = hpke::single_shot_seal_with_rng::<
            ChaCha20Poly1305,
            HkdfSha256,
            X25519HkdfSha256,
        >(
            &mode, &recipient, &info, &[0; SHARE_BYTES], &[], &mut rng()
        )
        .expect("sealed");
        inboxes[0][0].sealed = [&encapped.to_bytes()[..], &ciphertext].concat();
        assert_eq!(
            sealings[0].open(&inboxes[0][0]).err(),
            Some(AgreementError::Unreadable { name: "party01".to_owned() })
        );
    }
    assert!(sealings.remove(0).shares(&inboxes[0]).is_err());
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
    let members = members(&openings);
    let mut equivocated = members.clone();
    equivocated[2].offer = earlier[2].offer();
    let (_, from_second) =
        openings.remove(1).assembled(&run.job, &equivocated, &mut rng()).expect("all signed");
    let (first, _) =
        openings.remove(0).assembled(&run.job, &members, &mut rng()).expect("all signed");
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
    let members = members(&openings);
    let dishonest = openings.remove(2);
    let again = Opening {
        digest: dishonest.digest,
        name: dishonest.name.clone(),
        spki: dishonest.spki.clone(),
        secret: dishonest.secret.clone(),
        offer: dishonest.offer(),
    };
    let (_, to_first) = dishonest.assembled(&run.job, &members, &mut rng()).expect("assembled");
    let (_, to_second) = again.assembled(&run.job, &members, &mut rng()).expect("assembled");
    let (second, from_second) =
        openings.remove(1).assembled(&run.job, &members, &mut rng()).expect("assembled");
    let (first, from_first) =
        openings.remove(0).assembled(&run.job, &members, &mut rng()).expect("assembled");
    let deliver = |name: &str, sent: [&[SealedShare]; 2]| inbox(&sent.concat(), name);
    let (first, own_first) =
        first.shares(&deliver("party00", [&from_second, &to_first])).expect("all open");
    let (second, own_second) =
        second.shares(&deliver("party01", [&from_first, &to_second])).expect("all open");
    assert_ne!(first.key.pseudonym_key, second.key.pseudonym_key);

    let third = first.others["party02"];
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
    let confirming = || {
        let (mut sealings, inboxes) = run.sealed();
        sealings.remove(0).shares(&inboxes[0]).expect("shares")
    };
    let named = |entries: &[(&str, Confirmation)]| -> Vec<(String, Confirmation)> {
        entries.iter().map(|(name, tag)| ((*name).to_owned(), *tag)).collect()
    };

    let (state, own) = confirming();
    let reflected = named(&[("party01", own), ("party02", own)]);
    assert_eq!(
        error(state.confirmed(&reflected)),
        AgreementError::Mismatch { name: "party01".to_owned() }
    );

    let (state, _) = confirming();
    let only = named(&[("party01", state.others["party01"])]);
    assert_eq!(
        error(state.confirmed(&only)),
        AgreementError::MissingConfirmation { name: "party02".to_owned() }
    );

    let (state, _) = confirming();
    let tag = state.others["party01"];
    assert_eq!(
        error(state.confirmed(&named(&[("party01", tag), ("party01", tag)]))),
        AgreementError::Twice { name: "party01".to_owned() }
    );

    let (state, own) = confirming();
    assert_eq!(
        error(state.confirmed(&named(&[("mallory", own)]))),
        AgreementError::Stranger { name: "mallory".to_owned() }
    );
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
    let mut members = members(&openings);
    members[1].name = format!("\u{1b}[2J{}", "x".repeat(1000));
    let text = error(openings.remove(0).assembled(&run.job, &members, &mut rng())).to_string();
    assert!(!text.contains('\u{1b}') && text.len() < 200, "{text}");
}
