//! Items: what the protocols compare in place of keys.

use convelo_psi::{EncodedKey, JobDigest, Pseudonym};
use zeroize::{Zeroize as _, Zeroizing};

/// Makes the items of one job: the first 128 bits of BLAKE3, keyed with a digest of the job's digest,
/// over the encoded key.
///
/// All parties of a job can compute items, so a keyed function that is only pseudorandom, such as a
/// pseudonym's CMAC, would not do: whoever knows the key finds two keys with one value. Here that takes
/// about 2^64 evaluations (a generic collision of 128 bits), and a key with the item of a given other
/// one 2^128. For keys that nobody chose with that in mind, any two of q are equal with a probability
/// of at most q^2 / 2^129.
pub struct ItemHash {
    key: [u8; 32],
    encoded: Zeroizing<Vec<u8>>,
}

impl ItemHash {
    /// The items of the job with this digest. Those of two jobs have nothing in common.
    pub fn of_job(job: JobDigest) -> Self {
        let key = blake3::derive_key("convelo 2026-12 item of a job without a service", &job.0);
        Self { key, encoded: Zeroizing::default() }
    }

    /// The item of a key.
    pub fn item(&mut self, key: EncodedKey<'_>) -> Pseudonym {
        self.encoded.clear();
        key.append_to(&mut self.encoded);
        let mut hash = *blake3::keyed_hash(&self.key, &self.encoded).as_bytes();
        let item = *hash.first_chunk().expect("32 bytes begin with 16");
        hash.zeroize();
        Pseudonym::from_be_bytes(item)
    }
}

#[cfg(test)]
mod tests {
    use convelo_psi::encode_parts;

    use super::*;

    fn item(job: u8, parts: &[&str]) -> u128 {
        let encoded = encode_parts(parts);
        ItemHash::of_job(JobDigest([job; 32])).item(encoded.as_slice().into()).to_u128()
    }

    /// A promise to every other build and implementation.
    #[test]
    fn vector() {
        assert_eq!(
            format!("{:032x}", item(7, &["alice@example.org"])),
            "9c7f5e9027de68e26899dd6b092a94fa"
        );
        assert_eq!(format!("{:032x}", item(7, &["a", "b"])), "afd282a5b0eba14b78285621614cb2f9");
    }

    #[test]
    fn both_forms_of_a_key_have_one_item() {
        let form = EncodedKey::of_only_part("4711").expect("it is short");
        let mut hash = ItemHash::of_job(JobDigest([7; 32]));
        assert_eq!(hash.item(form).to_u128(), item(7, &["4711"]));
    }

    #[test]
    fn items_of_two_jobs_have_nothing_in_common() {
        assert_ne!(item(7, &["4711"]), item(8, &["4711"]));
    }
}
