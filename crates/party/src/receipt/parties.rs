//! Verifies the receipt of a job without a service: what the other parties signed.

use convelo_psi::reveal;
use convelo_psi::{Job, KeyId, Outcome};

use super::verify::{Reader, Unsigned, VerifiedReceipt, bytes, digest};
use super::{PartyEntry, Receipt, ReceiptError, TestimonyEntry};
use crate::direct::testimony::{Announced, SignedTestimony, Size, Testimony};
use crate::summary::{Counted, Matched};

/// What stands in the receipt about its witnesses.
pub(super) struct Said<'r> {
    pub(super) protocol: &'r str,
    pub(super) sid: &'r str,
    pub(super) parties: &'r [PartyEntry],
    pub(super) testimonies: &'r [TestimonyEntry],
}

/// Checks that every other party of the job has signed what the receipt says.
pub(super) fn verify(
    mut reader: Reader,
    receipt: &Receipt,
    job: Job,
    said: &Said<'_>,
) -> Result<VerifiedReceipt, ReceiptError> {
    let protocol = job.protocol().ok_or_else(|| ReceiptError::Contradiction {
        check: "witness",
        found: "the other parties".to_owned(),
        expected: "the service that the job has".to_owned(),
    })?;
    reader.equal("protocol", said.protocol, protocol.as_str())?;
    let sid = digest("session", said.sid)?;
    let parties = announced(&job, said.parties)?;
    let names = |names: &mut dyn Iterator<Item = String>| names.collect::<Vec<_>>().join(", ");
    let pinned = job.parties().named();
    reader.equal(
        "parties",
        &names(&mut parties.iter().map(|party| party.name.clone())),
        &names(&mut pinned.iter().map(|party| party.name.clone())),
    )?;
    let shown = |(name, key): (&str, KeyId)| format!("{name} {key}");
    reader.equal(
        "pinned keys of the parties",
        &names(&mut receipt.members.iter().map(|entry| shown((&entry.name, entry.key)))),
        &names(&mut pinned.iter().map(|party| shown((&party.name, party.key)))),
    )?;
    let own = parties.iter().find(|party| party.name == receipt.party);
    let own = own.ok_or_else(|| ReceiptError::Contradiction {
        check: "party",
        found: format!("{:?}", receipt.party),
        expected: "a party of the job".to_owned(),
    })?;
    let sent =
        own.set.ok_or_else(|| ReceiptError::Form("it says nothing of its set".to_owned()))?;
    reader.equal("keys sent", &receipt.sent.keys.to_string(), &sent.keys.to_string())?;
    reader.equal("set sent", &receipt.sent.blake3, &hex::encode(sent.commitment))?;
    let count = match receipt.result {
        Outcome::Intersection(Matched { keys, .. }) | Outcome::Count(Counted { keys }) => keys,
        Outcome::Withheld | Outcome::Nothing => 0,
    };
    let all_learn = pinned.iter().all(|party| job.learns(&party.name));
    let expected = Testimony {
        job: job.digest(),
        sid,
        protocol,
        witness: String::new(),
        parties,
        count: all_learn.then_some(count),
        finished_at: 0,
    };
    let mut finished = Vec::new();
    for party in pinned.iter().filter(|party| party.name != receipt.party) {
        let seen = of_both(&job, &expected, [&party.name, &receipt.party]);
        finished.push(testimony(&mut reader, party, said, &seen)?);
    }
    let others = pinned.len() - 1;
    reader.equal("testimonies", &said.testimonies.len().to_string(), &others.to_string())?;
    let allowed = reveal::allows(
        &job,
        &receipt.party,
        receipt.result.map(|matched| matched.keys, |counted| counted.keys),
    );
    let terms = "as the job says";
    reader.equal("reveal policy", if allowed { terms } else { receipt.result.as_str() }, terms)?;
    let (keys, rows) = match receipt.result {
        Outcome::Intersection(Matched { keys, rows }) => (Some(keys), Some(rows)),
        Outcome::Count(Counted { keys }) => (Some(keys), None),
        Outcome::Withheld | Outcome::Nothing => (None, None),
    };
    Ok(VerifiedReceipt {
        party: receipt.party.clone(),
        members: pinned.iter().map(|party| (party.name.clone(), party.key)).collect(),
        result: receipt.result.kind(),
        count: keys.filter(|_| all_learn),
        joined_at: finished.into_iter().min().unwrap_or_default(),
        verdict: None,
        checks: reader.checks,
        unsigned: Unsigned {
            address: None,
            providers: Vec::new(),
            input: receipt.input,
            keys: keys.filter(|_| !all_learn),
            rows,
            canaries: None,
            verification: None,
            started: receipt.times.started,
            finished: receipt.times.finished,
        },
        job,
    })
}

/// The parties as the receipt lists them; the job says their keys.
fn announced(job: &Job, entries: &[PartyEntry]) -> Result<Vec<Announced>, ReceiptError> {
    let parties = entries.iter().map(|entry| {
        let key = job.party(&entry.name).map(|party| party.key);
        let key = key.ok_or_else(|| ReceiptError::Contradiction {
            check: "parties",
            found: format!("{:?}", entry.name),
            expected: "the parties of the job".to_owned(),
        })?;
        let set = entry.set.as_ref().map(|set| {
            Ok::<_, ReceiptError>(Size { keys: set.keys, commitment: digest("set", &set.blake3)? })
        });
        Ok(Announced { name: entry.name.clone(), key, set: set.transpose()? })
    });
    parties.collect()
}

/// What two parties have both seen: they know each other's sizes if one of them is the receiver.
fn of_both(job: &Job, all: &Testimony, both: [&str; 2]) -> Testimony {
    let known = job.receiver().is_some_and(|receiver| both.contains(&receiver.name.as_str()));
    let mut seen = all.clone();
    for party in &mut seen.parties {
        party.set = party.set.filter(|_| known && both.contains(&party.name.as_str()));
    }
    seen
}

/// The testimony of one party; returns when it finished, by its own clock.
fn testimony(
    reader: &mut Reader,
    party: &convelo_psi::Party,
    said: &Said<'_>,
    expected: &Testimony,
) -> Result<u64, ReceiptError> {
    let mut found = Err(ReceiptError::Contradiction {
        check: "testimony",
        found: format!("none of {}", party.name),
        expected: "one of every other party".to_owned(),
    });
    for entry in said.testimonies {
        let signed = SignedTestimony {
            testimony: bytes("testimony", &entry.testimony)?,
            signature: bytes("signature", &entry.signature)?,
            spki: bytes("public key", &entry.public_key)?,
        };
        if KeyId::of_spki(&signed.spki) != party.key {
            continue;
        }
        found = signed.verify(party.key).map_err(|error| ReceiptError::Contradiction {
            check: "testimony",
            found: error.to_string(),
            expected: format!("one signed by {} of {}", party.key, party.name),
        });
    }
    let found = found?;
    reader.passed("testimony", format!("of {} by {}", party.name, party.key), "its pinned key");
    let expected = Testimony {
        witness: party.name.clone(),
        finished_at: found.finished_at,
        ..expected.clone()
    };
    let whole = |testimony: &Testimony| hex::encode(testimony.encode());
    if found != expected {
        let what = |count: Option<u64>| count.map_or("no count".to_owned(), |it| it.to_string());
        if found.count != expected.count {
            reader.equal("keys in common", &what(expected.count), &what(found.count))?;
        }
        reader.equal("what was seen", &whole(&expected), &whole(&found))?;
    }
    Ok(found.finished_at)
}
