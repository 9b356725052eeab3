//! Connections whose sender is not known yet: how many there may be, and which one has to go when
//! another one arrives.
//!
//! Every host has an equal share. The hosts of peers are counted apart from all others, which
//! cannot take their places, however many they are.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use convelo_channel::network;
use tokio::sync::oneshot;

use crate::limits::{MAXIMUM_STRANGERS, STRANGERS_PER_HOST};

/// The strangers of one node.
#[derive(Default)]
pub(crate) struct Strangers(Mutex<Crowd>);

#[derive(Default)]
struct Crowd {
    arrivals: u64,
    /// The strangers of each host, the oldest first; no host is without any.
    hosts: HashMap<Host, VecDeque<Stranger>>,
    /// How many of them come from hosts where no peer is.
    elsewhere: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Host {
    address: IpAddr,
    /// Whether a peer is there.
    of_peer: bool,
}

struct Stranger {
    arrival: u64,
    dismissal: oneshot::Sender<()>,
}

/// The place of a stranger, until it has gone or is known: free again when dropped.
pub(crate) struct Place {
    strangers: Arc<Strangers>,
    host: Host,
    arrival: u64,
}

impl Strangers {
    /// A connection has arrived from this address, at which there is a peer or not. Whoever has to
    /// make room for it is dismissed. The future ends if that happens to this one.
    pub(crate) fn arrive(
        self: &Arc<Self>,
        address: IpAddr,
        of_peer: bool,
    ) -> (Place, impl Future<Output = ()> + Send + use<>) {
        let address = if of_peer { canonical(address) } else { network(canonical(address)) };
        let host = Host { address, of_peer };
        let mut crowd = self.crowd();
        if crowd.hosts.get(&host).is_some_and(|its| its.len() >= STRANGERS_PER_HOST) {
            crowd.dismiss_oldest(host);
        } else if !of_peer && crowd.elsewhere >= MAXIMUM_STRANGERS {
            crowd.make_room(|host| !host.of_peer);
        }
        let (dismissal, dismissed) = oneshot::channel();
        let arrival = crowd.arrivals;
        crowd.arrivals += 1;
        crowd.elsewhere += usize::from(!of_peer);
        crowd.hosts.entry(host).or_default().push_back(Stranger { arrival, dismissal });
        drop(crowd);
        let place = Place { strangers: Arc::clone(self), host, arrival };
        let dismissed = async {
            // Without the word, the stranger is known now.
            if dismissed.await.is_err() {
                pending::<()>().await;
            }
        };
        (place, dismissed)
    }

    /// Dismisses one stranger, because there is no room for any other connection.
    pub(crate) fn make_room(&self) {
        self.crowd().make_room(|_| true);
    }

    fn crowd(&self) -> MutexGuard<'_, Crowd> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Crowd {
    /// The oldest stranger goes, of the host that has the most of them.
    fn make_room(&mut self, among: impl Fn(&Host) -> bool) {
        let hosts = self.hosts.iter().filter(|(host, _)| among(host));
        let fullest = hosts.max_by_key(|(_, its)| {
            (its.len(), std::cmp::Reverse(its.front().map(|stranger| stranger.arrival)))
        });
        if let Some((host, _)) = fullest {
            self.dismiss_oldest(*host);
        }
    }

    fn dismiss_oldest(&mut self, host: Host) {
        let oldest = self.hosts.get(&host).and_then(VecDeque::front).map(|oldest| oldest.arrival);
        if let Some(stranger) = oldest.and_then(|oldest| self.remove(host, oldest)) {
            // If it has gone by itself, that is as well.
            let _ = stranger.dismissal.send(());
        }
    }

    fn remove(&mut self, host: Host, arrival: u64) -> Option<Stranger> {
        let its = self.hosts.get_mut(&host)?;
        let index = its.binary_search_by_key(&arrival, |stranger| stranger.arrival).ok()?;
        let stranger = its.remove(index);
        if its.is_empty() {
            self.hosts.remove(&host);
        }
        self.elsewhere -= usize::from(!host.of_peer);
        stranger
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.strangers.crowd().remove(self.host, self.arrival);
    }
}

/// One address for each host: loopback has two.
pub(crate) fn canonical(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if address.is_loopback() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;
    use std::pin::Pin;
    use std::task::{Context, Waker};

    use proptest::prelude::*;

    use super::*;

    struct Guest {
        place: Option<Place>,
        dismissed: Pin<Box<dyn Future<Output = ()> + Send>>,
        gone: bool,
    }

    impl Guest {
        fn at(strangers: &Arc<Strangers>, address: impl Into<IpAddr>, of_peer: bool) -> Self {
            let (place, dismissed) = strangers.arrive(address.into(), of_peer);
            Self { place: Some(place), dismissed: Box::pin(dismissed), gone: false }
        }

        fn is_dismissed(&mut self) -> bool {
            let mut context = Context::from_waker(Waker::noop());
            self.gone = self.gone || self.dismissed.as_mut().poll(&mut context).is_ready();
            self.gone
        }
    }

    fn host(last: u8) -> [u8; 4] {
        [192, 0, 2, last]
    }

    #[test]
    fn flood_from_one_host_turns_out_its_own_oldest() {
        let strangers = Arc::default();
        let mut other = Guest::at(&strangers, host(1), false);
        let mut flood: Vec<_> =
            (0..3 * MAXIMUM_STRANGERS).map(|_| Guest::at(&strangers, host(2), false)).collect();
        assert!(!other.is_dismissed());
        let dismissed = flood.iter_mut().map(Guest::is_dismissed).collect::<Vec<_>>();
        let kept = dismissed.iter().rev().take_while(|gone| !**gone).count();
        assert_eq!(kept, STRANGERS_PER_HOST);
        assert!(dismissed[..dismissed.len() - kept].iter().all(|gone| *gone), "the oldest go");
    }

    #[test]
    fn flood_from_many_hosts_does_not_reach_the_hosts_of_peers() {
        let strangers = Arc::default();
        let mut peer = Guest::at(&strangers, host(1), true);
        let mut flood: Vec<_> = (0..4 * u32::try_from(MAXIMUM_STRANGERS).unwrap())
            .map(|number| Guest::at(&strangers, Ipv4Addr::from_bits(number), false))
            .collect();
        assert!(!peer.is_dismissed());
        let kept = flood.iter_mut().filter_map(|guest| (!guest.is_dismissed()).then_some(()));
        assert_eq!(kept.count(), MAXIMUM_STRANGERS);
        assert!(!flood.last_mut().unwrap().is_dismissed());
    }

    #[test]
    fn addresses_of_one_network_are_one_host() {
        let strangers = Arc::default();
        let address = |network: u128, last: u128| Ipv6Addr::from_bits((network << 64) + last);
        let mut other = Guest::at(&strangers, address(8, 1), false);
        let mut flood: Vec<_> = (0..2 * MAXIMUM_STRANGERS as u128)
            .map(|last| Guest::at(&strangers, address(7, last), false))
            .collect();
        assert!(!other.is_dismissed());
        let kept = flood.iter_mut().filter_map(|guest| (!guest.is_dismissed()).then_some(()));
        assert_eq!(kept.count(), STRANGERS_PER_HOST);
    }

    #[test]
    fn whoever_is_known_is_never_dismissed() {
        let strangers = Arc::default();
        let mut known = Guest::at(&strangers, host(1), false);
        known.place = None;
        let _flood: Vec<_> =
            (0..2 * STRANGERS_PER_HOST).map(|_| Guest::at(&strangers, host(1), false)).collect();
        strangers.make_room();
        assert!(!known.is_dismissed());
    }

    #[test]
    fn when_all_places_are_taken_the_oldest_stranger_goes() {
        let strangers = Arc::default();
        let mut guests: Vec<_> =
            (1..4).map(|last| Guest::at(&strangers, host(last), last == 1)).collect();
        strangers.make_room();
        let dismissed: Vec<_> = guests.iter_mut().map(Guest::is_dismissed).collect();
        assert_eq!(dismissed, [true, false, false]);
    }

    proptest! {
        /// Whoever comes and goes, the counts are those of the guests that are left, no limit is
        /// passed, and nobody is dismissed while there is room.
        #[test]
        fn counts_stay_true(events in proptest::collection::vec((prop::bool::weighted(0.9), 0..6u8), 0..800)) {
            let strangers = Arc::default();
            let mut guests: Vec<Guest> = Vec::new();
            for (arrives, last) in events {
                if arrives || guests.is_empty() {
                    guests.push(Guest::at(&strangers, host(last), last < 2));
                } else {
                    guests.remove(usize::from(last) * 7 % guests.len());
                }
                guests.retain_mut(|guest| !guest.is_dismissed());
                let crowd = strangers.crowd();
                let there: usize = crowd.hosts.values().map(VecDeque::len).sum();
                prop_assert_eq!(there, guests.len());
                prop_assert!(crowd.hosts.values().all(|its| !its.is_empty()));
                prop_assert!(crowd.hosts.values().all(|its| its.len() <= STRANGERS_PER_HOST));
                let elsewhere = crowd.hosts.iter().filter(|(host, _)| !host.of_peer);
                prop_assert_eq!(elsewhere.map(|(_, its)| its.len()).sum::<usize>(), crowd.elsewhere);
                prop_assert!(crowd.elsewhere <= MAXIMUM_STRANGERS);
            }
        }
    }
}
