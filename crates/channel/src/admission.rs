//! Who may begin a handshake: a source that has failed too often lately may not, for a while.
//!
//! A handshake that ends with an invalid certificate costs both sides about the same, and costs the
//! service some of the CPU time that its jobs need. A source that keeps failing is turned away
//! before any cryptography; the others do not notice.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::{FAILURES_AT_ONCE, FAILURES_PER_SECOND, MAXIMUM_FAILING_SOURCES};

/// The failures of every source, stored as the moment when they will be forgotten.
#[derive(Default)]
pub(crate) struct Admission(Mutex<HashMap<IpAddr, Instant>>);

impl Admission {
    /// Whether a connection from this source may begin a handshake.
    pub(crate) fn admits(&self, source: IpAddr, now: Instant) -> bool {
        let forgotten = self.sources().get(&block(source)).copied();
        forgotten.is_none_or(|at| at.saturating_duration_since(now) < span(FAILURES_AT_ONCE))
    }

    /// Records a failed handshake.
    pub(crate) fn failed(&self, source: IpAddr, now: Instant) {
        let mut sources = self.sources();
        if sources.len() >= MAXIMUM_FAILING_SOURCES {
            sources.retain(|_, at| *at > now);
        }
        // With more sources than this, the limits on connections and handshakes hold instead.
        if sources.len() >= MAXIMUM_FAILING_SOURCES {
            sources.clear();
        }
        let forgotten = sources.entry(block(source)).or_insert(now);
        *forgotten = (*forgotten).max(now) + span(1);
    }

    fn sources(&self) -> MutexGuard<'_, HashMap<IpAddr, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long it takes to forget this many failures.
fn span(failures: u32) -> Duration {
    Duration::from_secs(1) * failures / FAILURES_PER_SECOND
}

/// Anyone with one IPv6 address has 2^64 of them.
fn block(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => mapped.into(),
            None => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn a_source_that_keeps_failing_waits_and_is_forgiven() {
        let (admission, now) = (Admission::default(), Instant::now());
        for _ in 0..FAILURES_AT_ONCE {
            assert!(admission.admits(source(1), now));
            admission.failed(source(1), now);
        }
        assert!(!admission.admits(source(1), now));
        assert!(admission.admits(source(2), now), "others do not notice");
        let later = now + span(1);
        assert!(admission.admits(source(1), later));
        admission.failed(source(1), later);
        assert!(!admission.admits(source(1), later));
        assert!(admission.admits(source(1), later + span(FAILURES_AT_ONCE)));
    }

    #[test]
    fn addresses_of_one_network_are_one_source() {
        let (admission, now) = (Admission::default(), Instant::now());
        for last in 0..FAILURES_AT_ONCE {
            admission.failed(Ipv6Addr::from_bits((7 << 64) + u128::from(last)).into(), now);
        }
        assert!(!admission.admits(Ipv6Addr::from_bits((7 << 64) + 12345).into(), now));
        assert!(admission.admits(Ipv6Addr::from_bits(8 << 64).into(), now));
        let mapped = Ipv6Addr::from_bits(0xFFFF_C000_0201).into();
        for _ in 0..FAILURES_AT_ONCE {
            admission.failed(source(1), now);
        }
        assert!(!admission.admits(mapped, now));
    }

    #[test]
    fn flood_of_distinct_sources_is_bounded() {
        let (admission, now) = (Admission::default(), Instant::now());
        for address in 0..3 * u32::try_from(MAXIMUM_FAILING_SOURCES).unwrap_or(0) {
            admission.failed(std::net::Ipv4Addr::from_bits(address).into(), now);
            assert!(admission.sources().len() <= MAXIMUM_FAILING_SOURCES);
        }
    }
}
