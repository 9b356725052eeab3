//! A node that ends with as many messages on their way as may be queued.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use convelo_pool::{
    MessageId, Node, NodeConfig, Payload, PeerConfig, PeerHandle, PeerIdentity, SendError,
    SendErrorKind, SendOptions, Wire, WireChoice, limits::MAXIMUM_QUEUED,
};
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use crate::pool::{free_port, soon};

/// How long an end may take beyond what was given to it.
const AT_ONCE: Duration = Duration::from_secs(2);

struct Full {
    node: Node,
    peer: PeerHandle,
    outcomes: Receiver<Result<(), SendError>>,
}

fn peer(node: &Node, port: u16, wire: Wire) -> PeerHandle {
    node.add_peer(PeerConfig {
        name: "bob".to_owned(),
        host: "127.0.0.1".to_owned(),
        port,
        wire: WireChoice::Only(wire),
        identity: PeerIdentity::InsecureOrigin,
        text_ids: false,
    })
}

fn send(
    to: &PeerHandle,
    wire: Wire,
    id: Option<MessageId>,
    outcome: &SyncSender<Result<(), SendError>>,
) {
    let outcome = outcome.clone();
    let payload = Payload { parts: vec![Bytes::from_static(b"\xc0")], buffers: Vec::new() };
    let options = SendOptions { timeout: Some(Duration::from_mins(5)), ..SendOptions::default() };
    to.send(id, wire, payload, options, Box::new(move |result| drop(outcome.send(result))));
}

/// As many messages as may be queued, and the refusal of one more.
fn full(port: u16, wire: Wire, id: Option<&MessageId>) -> Full {
    let node = Node::new(NodeConfig::default(), Handle::current());
    node.listen("127.0.0.1", 0, None).unwrap();
    let peer = peer(&node, port, wire);
    let (outcome, outcomes) = sync_channel(MAXIMUM_QUEUED + 1);
    for _ in 0..MAXIMUM_QUEUED {
        send(&peer, wire, id.cloned(), &outcome);
    }
    assert!(outcomes.try_recv().is_err(), "one of them has ended already");
    let (other, refused) = sync_channel(MAXIMUM_QUEUED + 1);
    send(&peer, wire, id.cloned(), &other);
    let error = refused.try_recv().unwrap().unwrap_err();
    assert_eq!((error.kind, error.maybe_delivered), (SendErrorKind::QueueFull, false));
    Full { node, peer, outcomes }
}

/// Everyone who sent a message has been told, once.
fn all_told(full: &Full) {
    let told: Vec<_> = full.outcomes.try_iter().collect();
    assert_eq!(told.len(), MAXIMUM_QUEUED);
    for result in told {
        assert_eq!(result.unwrap_err().kind, SendErrorKind::Closed);
    }
}

/// Where nobody listens; where nobody accepts; and where nobody answers.
async fn absent() -> (Vec<u16>, Vec<TcpListener>) {
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let ports = vec![free_port(), silent.local_addr().unwrap().port()];
    (ports, vec![silent])
}

const IDS: [Option<MessageId>; 2] = [None, Some(MessageId::Int(7))];

#[tokio::test]
async fn aborting_with_a_full_queue_takes_no_time() {
    let (ports, _open) = absent().await;
    for (port, wire) in
        ports.into_iter().flat_map(|port| [Wire::Two, Wire::Four].map(|wire| (port, wire)))
    {
        for id in &IDS {
            let full = full(port, wire, id.as_ref());
            tokio::time::sleep(Duration::from_millis(100)).await;
            let began = Instant::now();
            full.node.abort();
            let took = began.elapsed();
            assert!(took < AT_ONCE, "{wire:?} {id:?}: {took:?}");
            all_told(&full);
        }
    }
}

#[tokio::test]
async fn closing_with_a_full_queue_takes_as_long_as_it_was_given() {
    let (ports, _open) = absent().await;
    for (port, wire) in
        ports.into_iter().flat_map(|port| [Wire::Two, Wire::Four].map(|wire| (port, wire)))
    {
        for id in &IDS {
            let full = full(port, wire, id.as_ref());
            let began = Instant::now();
            let dropped = soon(full.node.close(Duration::from_millis(300))).await;
            let took = began.elapsed();
            assert!(took < AT_ONCE, "{wire:?} {id:?}: {took:?}");
            assert_eq!(dropped.len(), MAXIMUM_QUEUED);
            assert!(dropped.iter().all(|message| message.peer == "bob"));
            all_told(&full);
        }
    }
}

#[tokio::test]
async fn forgetting_a_peer_with_a_full_queue_takes_no_time() {
    for id in &IDS {
        let full = full(free_port(), Wire::Two, id.as_ref());
        let began = Instant::now();
        full.peer.forget();
        let took = began.elapsed();
        assert!(took < AT_ONCE, "{id:?}: {took:?}");
        all_told(&full);
    }
}

/// To a peer whose wire is not known yet, there is a question for each message.
#[tokio::test]
async fn a_queue_full_of_questions() {
    let node = Node::new(NodeConfig::default(), Handle::current());
    let peer = node.add_peer(PeerConfig {
        name: "bob".to_owned(),
        host: "127.0.0.1".to_owned(),
        port: free_port(),
        wire: WireChoice::Ask(Wire::Four),
        identity: PeerIdentity::InsecureOrigin,
        text_ids: false,
    });
    let (outcome, outcomes) = sync_channel(MAXIMUM_QUEUED + 1);
    let ask = || {
        let outcome = outcome.clone();
        peer.prepare(SendOptions::default(), Box::new(move |result| drop(outcome.send(result))));
    };
    (0..MAXIMUM_QUEUED).for_each(|_| ask());
    assert!(outcomes.try_recv().is_err());
    ask();
    assert_eq!(outcomes.try_recv().unwrap().unwrap_err().kind, SendErrorKind::QueueFull);
    node.abort();
    assert_eq!(outcomes.try_iter().count(), MAXIMUM_QUEUED);
}

/// A send that comes just as the node ends is told that it did, whichever comes first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_that_race_with_the_end() {
    for round in 0..20 {
        let node = Node::new(NodeConfig::default(), Handle::current());
        let peer = peer(&node, free_port(), Wire::Two);
        let (outcome, outcomes) = sync_channel(MAXIMUM_QUEUED + 1);
        let sending = std::thread::spawn(move || {
            (0..2000).for_each(|_| send(&peer, Wire::Two, None, &outcome));
        });
        tokio::time::sleep(Duration::from_micros(100 * round)).await;
        if round % 2 == 0 {
            node.abort();
        } else {
            soon(node.close(Duration::ZERO)).await;
        }
        sending.join().unwrap();
        let told = std::iter::from_fn(|| outcomes.recv_timeout(Duration::from_secs(10)).ok());
        let told: Vec<_> = told.collect();
        assert_eq!(told.len(), 2000, "somebody waits forever");
        assert!(told.into_iter().all(|result| result.unwrap_err().kind == SendErrorKind::Closed));
    }
}

/// Whoever waits for a message of a node that everybody has let go of is told, too.
#[tokio::test]
async fn letting_go_of_a_node_with_a_full_queue() {
    let Full { node, peer, outcomes } = full(free_port(), Wire::Two, None);
    drop(node);
    let told: Vec<_> = outcomes.try_iter().collect();
    assert_eq!(told.len(), MAXIMUM_QUEUED);
    assert!(told.into_iter().all(|result| result.unwrap_err().kind == SendErrorKind::Closed));
    drop(peer);
}
