//! A set that is padded and spread over several services, and the combination of their results.
//!
//! `Job::shards` explains what a shard is, and the size to which each is padded.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use convelo_channel::os_rng;
use convelo_psi::agreement::Assembled;
use convelo_psi::{
    Bitmap, Canaries, Job, KeyId, Outcome, Pseudonym, PseudonymSet, Pseudonymiser, Shard,
};
use rand_core::Rng as _;
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use crate::error::{Error, Kind};

/// The set with its canaries and as many random pseudonyms as the job asks for: in the whole, and in
/// each shard.
pub(crate) fn filled(
    set: PseudonymSet,
    canaries: &Canaries,
    job: &Job,
) -> Result<PseudonymSet, Error> {
    // The set will be a multiple, and padding a multiple changes nothing.
    let size = usize::try_from(job.sent(set.len() as u64)).unwrap_or(usize::MAX);
    let missing = job.padded(set.len() as u64) - set.len() as u64;
    let set = if missing > 0 {
        let filler = random().take(usize::try_from(missing).unwrap_or(usize::MAX));
        set.padded(filler).map_err(Error::spill)?
    } else {
        set
    };
    let set = set.filled(canaries.pseudonyms());
    let services = job.services();
    if services == 1 {
        return Ok(set);
    }
    let missing = set.in_shards(services).into_iter().map(|length| size.checked_sub(length));
    let Some(mut missing) = missing.collect::<Option<Vec<usize>>>() else {
        let text = "by a chance below 2^-40, more keys go to one service than the number of keys \
                    makes likely, and nothing was sent; run the job again";
        return Err(Error::new(Kind::Job, text));
    };
    let mut filler = Vec::with_capacity(missing.iter().sum());
    let mut candidates = random();
    while filler.len() < filler.capacity() && missing.iter().any(|missing| *missing > 0) {
        let Some(candidate) = candidates.next() else { break };
        let missing = &mut missing[candidate.shard(services)];
        if *missing > 0 {
            *missing -= 1;
            filler.push(candidate);
        }
    }
    Ok(set.filled(filler))
}

/// The ranks of each service's shard.
pub(crate) fn ranks(set: &PseudonymSet, services: usize) -> Vec<Range<usize>> {
    let mut end = 0;
    let lengths = set.in_shards(services).into_iter();
    lengths
        .map(|length| {
            end += length;
            end - length..end
        })
        .collect()
}

/// All services must show the same parties.
pub(crate) fn same_members(assembled: &[Assembled]) -> Result<(), Error> {
    let members = assembled.iter().map(|assembled| -> Vec<_> {
        let members = assembled.members.iter();
        members.map(|member| (member.name.clone(), KeyId::of_spki(&member.spki))).collect()
    });
    let members: Vec<_> = members.collect();
    if members.windows(2).all(|two| two[0] == two[1]) {
        return Ok(());
    }
    let text = "the services of the job show different parties; nothing was sent";
    Err(Error::new(Kind::Job, text))
}

/// What all services answered, combined into a bitmap over the whole set. A shard's bitmap ends at
/// a whole byte.
pub(crate) fn whole(
    mut outcomes: Vec<Outcome<Bitmap>>,
    keys: usize,
) -> Result<Outcome<Bitmap>, Error> {
    let first = outcomes.remove(0);
    if outcomes.is_empty() {
        return Ok(first);
    }
    if outcomes.iter().any(|other| other.kind() != first.kind()) {
        let text = "the services of the job answered with different kinds of results";
        return Err(Error::new(Kind::Job, text));
    }
    let bitmap = |bitmap: Bitmap| {
        let mut bytes = bitmap.as_bytes().to_vec();
        for outcome in &outcomes {
            if let Outcome::Intersection(bitmap) = outcome {
                bytes.extend_from_slice(bitmap.as_bytes());
            }
        }
        Bitmap::from_bytes(keys, bytes)
    };
    first
        .map(bitmap, |count| count)
        .transpose()
        .map_err(|error| Error::new(Kind::Job, format!("the services' bitmaps: {error}")))
}

/// The path of the receipt from one of several services: `matched.csv.receipt.2.json`.
pub(crate) fn numbered(path: &Path, shard: Option<Shard>) -> PathBuf {
    shard.map_or_else(|| path.to_owned(), |shard| with_number(path, '.', shard.number + 1))
}

/// The first of `path`, `matched.csv.receipt-2.json` and so on at which nothing is yet, neither there nor
/// at the places of several receipts: a record of what was learned is never overwritten.
pub(crate) fn unused(path: &Path) -> PathBuf {
    unused_names(path).next().expect("there are more numbers than files")
}

/// All names from `path` on that are unused.
pub(crate) fn unused_names(path: &Path) -> impl Iterator<Item = PathBuf> {
    let used = |path: &PathBuf| path.exists() || with_number(path, '.', 1).exists();
    let later = (2..).map(|number| with_number(path, '-', number));
    std::iter::once(path.to_owned()).chain(later).filter(move |path| !used(path))
}

/// Puts a file in the first place that is free when it is put there, whatever was free before; returns
/// which of `names` that was.
pub(crate) fn put(
    mut file: NamedTempFile,
    names: impl IntoIterator<Item = PathBuf>,
    shard: Option<Shard>,
) -> io::Result<PathBuf> {
    for name in names {
        match file.persist_noclobber(numbered(&name, shard)) {
            Ok(_) => return Ok(name),
            Err(taken) if taken.error.kind() == io::ErrorKind::AlreadyExists => file = taken.file,
            Err(failed) => return Err(failed.error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn with_number(path: &Path, before: char, number: usize) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("{before}{number}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// Pseudonyms that stand for no record and look like all others: the same function of other inputs,
/// under a key that is gone once they are made.
fn random() -> impl Iterator<Item = Pseudonym> {
    let mut key = Zeroizing::new([0; 16]);
    os_rng().fill_bytes(&mut *key);
    let pseudonymiser = Pseudonymiser::new(&key);
    (0_u64..).map(move |number| pseudonymiser.pseudonym(&number.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_has_a_receipt_of_its_own() {
        let shard = |number| Some(Shard { number });
        assert_eq!(numbered(Path::new("m.receipt.json"), None), Path::new("m.receipt.json"));
        assert_eq!(
            numbered(Path::new("d/m.receipt.json"), shard(1)),
            Path::new("d/m.receipt.2.json")
        );
        assert_eq!(numbered(Path::new("receipt"), shard(0)), Path::new("receipt.1"));
    }

    #[test]
    fn bitmaps_of_shards_follow_each_other() {
        let bitmap = |keys, bytes: &[u8]| {
            Outcome::Intersection(Bitmap::from_bytes(keys, bytes.to_vec()).unwrap())
        };
        let shards = vec![bitmap(8, &[0b1000_0001]), bitmap(16, &[0, 0b11])];
        assert!(whole(shards, 24).unwrap() == bitmap(24, &[0b1000_0001, 0, 0b11]));
        let error = whole(vec![bitmap(8, &[1]), bitmap(8, &[1])], 24).err().unwrap();
        assert_eq!(error.kind(), Kind::Job);
        assert!(whole(vec![bitmap(8, &[1]), Outcome::Nothing], 8).is_err(), "of two kinds");
    }
}
