use std::net::{IpAddr, Ipv4Addr};

use convelo_channel::{Holder, SlotLimits, Slots};
use convelo_psi::agreement::{Confirmation, KeyOffer, SealedShare};
use convelo_psi::limits::ONE_TIME_KEY_BYTES;
use convelo_psi::{Job, terms};
use convelo_wire::Announcement;

use super::*;
use crate::budget::Budget;
use crate::limits::EVENT_QUEUE;

const SOURCE: Holder = Holder::Source(IpAddr::V4(Ipv4Addr::LOCALHOST));
const DEADLINE: Duration = Duration::from_hours(7 * 24);
const NAMES: [&str; 2] = ["alice", "bob"];

/// A job of two parties and seven days, whose task runs.
struct Scene {
    inbox: mpsc::Sender<Input>,
    budget: Budget,
    slots: Arc<Slots>,
    seated: SeatedKeys,
    messages: Vec<mpsc::Receiver<ToParty>>,
    opened: Instant,
}

impl Scene {
    fn new(waits: Duration) -> Self {
        let service = terms::Service::default();
        let deadline = DEADLINE.as_secs();
        let job = Job::unpinned("job", 2, 10_000_000, deadline, service).expect("valid");
        let shared = Shared::alone(1 << 30, None);
        let (budget, opened) = (shared.budget().clone(), Instant::now());
        let slots = Slots::new(SlotLimits { open: 2, open_each: 2, kept: 1, kept_each: 1 });
        let (slot, lost) = slots.take([SOURCE]);
        let (inbox, inputs) = mpsc::channel(EVENT_QUEUE);
        let seated = SeatedKeys::default();
        let task = Task {
            machine: JobMachine::new(job, [0; 32], shared.room.clone()),
            outboxes: HashMap::new(),
            inbox: inbox.downgrade(),
            seated: Arc::clone(&seated),
            slot,
            lost,
            deadline: opened + DEADLINE,
            waits_until: opened + waits,
            uploading: None,
            patience: Duration::from_secs(30),
            absent: VecDeque::new(),
            signer: Signer(Identity::generate()),
            shared,
        };
        tokio::spawn(async move { task.run(inputs, || opened.elapsed()).await });
        Self { inbox, budget, slots, seated, messages: Vec::new(), opened }
    }

    async fn arrive(&mut self) {
        let number = self.messages.len();
        let (messages, received) = mpsc::channel(100);
        let (open, _closed) = oneshot::channel();
        self.messages.push(received);
        let key = u8::try_from(number).expect("two");
        let arrival = Arrival {
            connection: ConnectionId(number as u64),
            name: NAMES[number].to_owned(),
            spki: vec![key],
            offer: KeyOffer {
                one_time_key: Box::new([key; ONE_TIME_KEY_BYTES]),
                signature: Vec::new(),
            },
            received: None,
            evidence: None,
            holders: vec![SOURCE],
        };
        let newcomer = Newcomer { arrival, outbox: Outbox { messages, place: None, _open: open } };
        assert!(newcomer.knock(&self.inbox).await.expect("a job").is_ok());
    }

    async fn say(&self, party: usize, message: FromParty) {
        let event = Event::Message(ConnectionId(party as u64), Ok(message));
        self.inbox.send(Input::Event(event)).await.expect("a job");
    }

    /// Both parties come, agree, and announce this many keys.
    async fn announce(&mut self, keys: u64) {
        self.arrive().await;
        self.arrive().await;
        let each = [(0, 1), (1, 0)];
        for (party, other) in each {
            let (from, to) = (NAMES[party].to_owned(), NAMES[other].to_owned());
            let share = SealedShare { from, to, sealed: vec![7; 80] };
            self.say(party, FromParty::Shares(vec![share])).await;
        }
        for (party, _) in each {
            self.say(
                party,
                FromParty::Confirmation(Confirmation { tag: [7; 32], signature: Vec::new() }),
            )
            .await;
        }
        for (party, _) in each {
            let announcement = Announcement { keys, blake3: [7; 32] };
            self.say(party, FromParty::Announcement(announcement)).await;
        }
        for messages in &mut self.messages {
            while !matches!(messages.recv().await, None | Some(ToParty::Ready)) {}
        }
    }

    /// Why a party's stream ends, and how long after the job was opened.
    async fn failure(&mut self, party: usize) -> (Failed, Duration) {
        loop {
            let message = self.messages[party].recv().await;
            if let ToParty::Failed(failed) = message.expect("the stream ends with a reason") {
                return (failed, self.opened.elapsed());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_of_strangers_does_not_wait_as_long_as_its_first_party_wishes() {
    let mut scene = Scene::new(WAITING_TIMEOUT);
    scene.arrive().await;
    let Some(ToParty::Waiting(waiting)) = scene.messages[0].recv().await else {
        panic!("not told to wait");
    };
    assert_eq!(waiting.seconds_left, WAITING_TIMEOUT.as_secs());
    let (failed, after) = scene.failure(0).await;
    assert_eq!((failed.reason, after), (Reason::Deadline, WAITING_TIMEOUT));
    let text = "the job has waited 3600 s for 1 of 2 parties, as long as this service lets";
    assert!(failed.explanation.starts_with(text), "{failed}");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_admitted_waits_until_its_deadline() {
    let mut scene = Scene::new(DEADLINE);
    scene.arrive().await;
    let (failed, after) = scene.failure(0).await;
    assert_eq!((failed.reason, after), (Reason::Deadline, DEADLINE));
    assert!(failed.explanation.contains("the job's deadline of 604800 s passed"), "{failed}");
}

#[tokio::test(start_paused = true)]
async fn the_oldest_job_that_waits_makes_room() {
    let mut scene = Scene::new(WAITING_TIMEOUT);
    scene.arrive().await;
    let _newcomers = [(); 2].map(|()| scene.slots.take([SOURCE]));
    let (failed, _) = scene.failure(0).await;
    assert_eq!(failed.reason, Reason::NoRoom);
    assert!(failed.explanation.contains("this one had waited longest"), "{failed}");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_runs_makes_no_room() {
    let mut scene = Scene::new(WAITING_TIMEOUT);
    scene.announce(1000).await;
    let newcomers = [(); 3].map(|()| scene.slots.take([SOURCE]));
    assert!(!newcomers[2].0.keep());
    assert_eq!(scene.failure(0).await.1, UPLOAD_GRACE + UPLOAD_CHECK, "nobody uploads");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_cannot_run_says_so() {
    let mut scene = Scene::new(WAITING_TIMEOUT);
    let (other, _lost) = scene.slots.take([SOURCE]);
    assert!(other.keep());
    scene.arrive().await;
    scene.arrive().await;
    for party in [0, 1] {
        let (failed, _) = scene.failure(party).await;
        assert_eq!(failed.reason, Reason::NoRoom);
        assert!(failed.explanation.contains("runs as many jobs as it can"), "{failed}");
    }
}

#[tokio::test(start_paused = true)]
async fn memory_for_sets_that_nobody_uploads_is_given_back() {
    let mut scene = Scene::new(WAITING_TIMEOUT);
    scene.announce(10_000_000).await;
    let (failed, after) = scene.failure(1).await;
    assert_eq!((failed.reason, after), (Reason::Deadline, UPLOAD_GRACE + UPLOAD_CHECK));
    let text = "the upload of 'alice', 'bob' were too slow";
    assert!(failed.explanation.starts_with(text), "{failed}");
    assert!(scene.budget.reserve(1 << 30).is_some(), "all memory is free");
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_drips_holds_no_memory() {
    let mut scene = Scene::new(WAITING_TIMEOUT);
    scene.announce(10_000_000).await;
    for value in 0..100_u128 {
        let chunk = (value + 1).to_be_bytes().to_vec();
        for party in [0, 1] {
            let event =
                Event::Message(ConnectionId(party), Ok(FromParty::Chunk(chunk.clone().into())));
            let _ = scene.inbox.send(Input::Event(event)).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (failed, after) = scene.failure(0).await;
    assert_eq!(failed.reason, Reason::Deadline);
    assert!(failed.explanation.contains("too slow"), "{failed}");
    assert!(after < Duration::from_secs(110));
    assert!(scene.budget.reserve(1 << 30).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_slow_upload_goes_on() {
    const A_SECOND: u128 = UPLOAD_BYTES_PER_SECOND as u128 / 16;
    let mut scene = Scene::new(WAITING_TIMEOUT);
    scene.announce(10_000_000).await;
    for second in 0..600 {
        let values = (0..A_SECOND).map(|value| second * A_SECOND + value + 1);
        let chunk: Vec<u8> = values.flat_map(u128::to_be_bytes).collect();
        for party in [0, 1] {
            scene.say(party, FromParty::Chunk(chunk.clone().into())).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    for messages in &mut scene.messages {
        while let Ok(message) = messages.try_recv() {
            assert!(!matches!(message, ToParty::Failed(_)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn those_with_a_seat_are_known() {
    let mut scene = Scene::new(WAITING_TIMEOUT);
    scene.arrive().await;
    let has = |scene: &Scene, key: u8| lock(&scene.seated).contains(&KeyId::of_spki(&[key]));
    let _ = scene.messages[0].recv().await;
    assert!(has(&scene, 0) && !has(&scene, 1));
    scene.inbox.send(Input::Event(Event::Left(ConnectionId(0)))).await.expect("a job");
    scene.inbox.closed().await;
    assert!(!has(&scene, 0));
}
