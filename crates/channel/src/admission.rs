//! Who may begin a handshake, and when.
//!
//! A source that has shown too many invalid certificates lately may not, for a while: such a
//! handshake costs both sides about the same, and costs the service some of the CPU time that its
//! jobs need. It is turned away before any cryptography; the others do not notice. Nothing else
//! counts, so that connections that are merely broken off close no address to those who share it.
//! A source that begins very many handshakes of any kind waits for its turn.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::{
    FAILURES_AT_ONCE, FAILURES_PER_SECOND, HANDSHAKES_AT_ONCE, HANDSHAKES_PER_SECOND, LONGEST_TURN,
    MAXIMUM_COUNTED_SOURCES,
};

/// What each source has done lately.
pub(crate) struct Admission {
    failures: Counts,
    handshakes: Counts,
}

impl Admission {
    pub(crate) fn new() -> Self {
        Self {
            failures: Counts::new(FAILURES_AT_ONCE, FAILURES_PER_SECOND),
            handshakes: Counts::new(HANDSHAKES_AT_ONCE, HANDSHAKES_PER_SECOND),
        }
    }

    /// Whether a connection from this source may begin a handshake.
    pub(crate) fn admits(&self, source: IpAddr, now: Instant) -> bool {
        self.failures.count(source, 0, now) < self.failures.span(FAILURES_AT_ONCE)
    }

    /// Records an invalid certificate.
    pub(crate) fn failed(&self, source: IpAddr, now: Instant) {
        self.failures.count(source, 1, now);
    }

    /// Records a handshake that is to begin; returns how long it must wait for its turn.
    pub(crate) fn turn(&self, source: IpAddr, now: Instant) -> Duration {
        let counted = self.handshakes.count(source, 1, now);
        counted.saturating_sub(self.handshakes.span(HANDSHAKES_AT_ONCE))
    }
}

/// How often every source has done something, stored as the moment when that will be forgotten.
struct Counts {
    per_second: u32,
    /// No source's count takes longer to forget: whoever overdoes it leaves no debt to those who
    /// share the address.
    longest: Duration,
    forgotten: Mutex<HashMap<IpAddr, Instant>>,
}

impl Counts {
    fn new(at_once: u32, per_second: u32) -> Self {
        let longest = Duration::from_secs(1) * at_once / per_second + LONGEST_TURN;
        Self { per_second, longest, forgotten: Mutex::default() }
    }

    /// Counts so many more; returns how long it takes to forget them all.
    fn count(&self, source: IpAddr, more: u32, now: Instant) -> Duration {
        let mut forgotten = self.forgotten.lock().unwrap_or_else(PoisonError::into_inner);
        let source = network(source);
        if more == 0 {
            let at = forgotten.get(&source).copied();
            return at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        }
        if forgotten.len() >= MAXIMUM_COUNTED_SOURCES {
            forgotten.retain(|_, at| *at > now);
        }
        // With more sources than this, the limits on connections and handshakes hold instead.
        if forgotten.len() >= MAXIMUM_COUNTED_SOURCES {
            forgotten.clear();
        }
        let at = forgotten.entry(source).or_insert(now);
        *at = ((*at).max(now) + self.span(more)).min(now + self.longest);
        at.saturating_duration_since(now)
    }

    /// How long it takes to forget this many.
    fn span(&self, number: u32) -> Duration {
        Duration::from_secs(1) * number / self.per_second
    }
}

/// The network that an address stands for: itself, or its IPv6 network (/64), since anyone with one
/// IPv6 address has 2^64 of them. An IPv4 address in IPv6 form is an IPv4 address.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address @ IpAddr::V4(_) => address,
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
        let (admission, now) = (Admission::new(), Instant::now());
        for _ in 0..FAILURES_AT_ONCE {
            assert!(admission.admits(source(1), now));
            admission.failed(source(1), now);
        }
        assert!(!admission.admits(source(1), now));
        assert!(admission.admits(source(2), now), "others do not notice");
        let span = |failures| admission.failures.span(failures);
        let later = now + span(1);
        assert!(admission.admits(source(1), later));
        admission.failed(source(1), later);
        assert!(!admission.admits(source(1), later));
        assert!(admission.admits(source(1), later + span(FAILURES_AT_ONCE)));
    }

    #[test]
    fn addresses_of_one_network_are_one_source() {
        let (admission, now) = (Admission::new(), Instant::now());
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
    fn a_source_with_very_many_handshakes_waits_and_others_do_not() {
        let (admission, now) = (Admission::new(), Instant::now());
        for _ in 0..HANDSHAKES_AT_ONCE {
            assert_eq!(admission.turn(source(1), now), Duration::ZERO);
        }
        let each = admission.handshakes.span(1);
        assert_eq!(admission.turn(source(1), now), each);
        assert_eq!(admission.turn(source(1), now), 2 * each);
        assert_eq!(admission.turn(source(2), now), Duration::ZERO);
        assert_eq!(admission.turn(source(1), now + 3 * each), Duration::ZERO);
        for _ in 0..10 * HANDSHAKES_AT_ONCE {
            assert!(admission.turn(source(1), now) <= LONGEST_TURN);
        }
    }

    #[test]
    fn flood_of_distinct_sources_is_bounded() {
        let (admission, now) = (Admission::new(), Instant::now());
        for address in 0..3 * u32::try_from(MAXIMUM_COUNTED_SOURCES).unwrap_or(0) {
            admission.failed(std::net::Ipv4Addr::from_bits(address).into(), now);
            assert!(admission.failures.forgotten.lock().unwrap().len() <= MAXIMUM_COUNTED_SOURCES);
        }
    }
}
