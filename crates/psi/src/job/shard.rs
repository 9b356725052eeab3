//! A job that is spread over several services, each of which sees only its shard of the sets.
//!
//! A pseudonym goes to the service that its first bits select, so equal pseudonyms meet. How many
//! of a set go to each service is a binomial number, and would tell services and network which sets
//! are alike: equal sets have equal numbers. So each shard is padded with random pseudonyms to a
//! size that depends only on the size of the set and is exceeded with a probability below 2^-40.

use serde::{Deserialize, Serialize};

/// One shard of a job, and the service that sees it: `addresses[number]` of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Which shard, from 0. It has the pseudonyms that begin with this number, in as many bits as
    /// are needed to count the services.
    pub number: usize,
}

/// The size to which each shard of a set of `keys` keys is padded (for a power of two of services,
/// up to 16): a multiple of 8.
///
/// By Bernstein's inequality (Boucheron, Lugosi, Massart, Concentration Inequalities, 2013, section
/// 2.8), a binomial number with mean m exceeds m + L/3 + sqrt(L^2/9 + 2 L m) with a probability
/// below e^-L; L = 31 is more than 40 ln 2 plus the logarithm of 16 services.
pub(super) fn size(keys: u64, services: usize) -> u64 {
    let mean = keys.div_ceil(services as u64);
    let most = mean.saturating_add(11).saturating_add((107 + 62 * mean).isqrt() + 1);
    most.min(keys).next_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!([0, 1, 8, 9].map(|keys| size(keys, 2)), [0, 8, 8, 16]);
        assert_eq!(size(100, 2), 104);
        assert_eq!(size(10_000_000, 2), 5_017_624);
        assert_eq!(size(10_000_000, 4), 2_512_464);
        for keys in [1_u64, 1000, 1_000_000, 1 << 32] {
            for services in [2, 4, 8, 16] {
                let size = size(keys, services);
                assert!(size * services as u64 >= keys && size.is_multiple_of(8));
                assert!(size <= keys.next_multiple_of(8));
            }
        }
    }
}
