use convelo_psi::engine;
use proptest::prelude::*;

use super::*;
use crate::limits::DEFAULT_PSI_RESULT_BYTES;

/// A client with the key of this number, on its first connection.
fn client(number: u8) -> Client {
    Client { key: KeyId([number; 32]), connection: number.into(), source: source(1) }
}

fn source(number: u8) -> Holder {
    Holder::source([127, 0, 0, number].into())
}

fn again(number: u8) -> Client {
    Client { connection: u64::from(number) + 100, ..client(number) }
}

/// The jobs, and what they want done.
#[derive(Default)]
struct World {
    jobs: Jobs,
    begun: Vec<Number>,
    settled: Vec<(Number, bool)>,
    awaited: Vec<ConnectionId>,
}

impl World {
    fn change(
        &mut self,
        happens: impl FnOnce(&mut Jobs) -> Result<Vec<Effect>, Refusal>,
    ) -> Result<(), Refusal> {
        let mut effects = happens(&mut self.jobs)?;
        while let Some(effect) = effects.pop() {
            match effect {
                Effect::Begun(number) => self.begun.push(number),
                Effect::Settled(number, result) => self.settled.push((number, result)),
                Effect::Await(connection) => self.awaited.push(connection),
                Effect::Join(number) => {
                    let sets = self.jobs.sets(number);
                    let sets = sets.iter().map(|ids| ids.received().expect("in memory")).collect();
                    let bitmaps = engine::intersect(sets).expect("memory");
                    effects.extend(self.jobs.joined(number, Ok(bitmaps)));
                }
            }
        }
        Ok(())
    }

    fn connect(&mut self, number: u8, wanted: i64) -> Result<(), Refusal> {
        self.change(|jobs| jobs.connect(client(number), wanted))
    }

    fn upload(&mut self, number: u8, ids: &[&str]) -> Result<(), Refusal> {
        let pseudonymiser = self.jobs.may_upload(client(number))?;
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        let ids = Ids::new(ids, &pseudonymiser).expect("in memory");
        self.change(|jobs| jobs.upload(client(number), ids))
    }

    fn result(&mut self, number: u8) -> Result<Option<Vec<String>>, Refusal> {
        let result = self.jobs.result(client(number))?;
        Ok(result.map(|(ids, bitmap)| ids.matched(&bitmap).expect("in memory")))
    }

    fn left(&mut self, connection: u64) {
        self.change(|jobs| Ok(jobs.left(connection))).expect("nobody is refused");
    }

    fn lost(&mut self, connection: u64) {
        self.change(|jobs| Ok(jobs.lost(connection))).expect("nobody is refused");
    }
}

#[track_caller]
fn refused<T>(result: Result<T, Refusal>, code: Code, text: &str) {
    let Err(refusal) = result else { panic!("it is taken") };
    assert_eq!(refusal.code, code, "{}", refusal.text);
    assert!(refusal.text.contains(text), "{}", refusal.text);
}

/// Two clients whose job has begun.
fn begun() -> World {
    let mut world = World::default();
    world.connect(1, 2).expect("a place in the line");
    assert!(matches!(world.jobs.connected(client(1)), Ok(None)));
    world.connect(2, 2).expect("a place in the line");
    for number in [1, 2] {
        assert!(matches!(world.jobs.connected(client(number)), Ok(Some(2))));
    }
    world
}

#[test]
fn everybody_gets_what_all_have_once() {
    let mut world = begun();
    world.upload(1, &["car", "cat", "train"]).expect("ids");
    assert_eq!(world.result(1).expect("not yet"), None);
    world.upload(2, &["train", "dog", "car"]).expect("ids");
    assert_eq!(world.result(1).expect("a result").expect("a result"), ["car", "train"]);
    assert_eq!(world.result(2).expect("a result").expect("a result"), ["train", "car"]);
    assert_eq!(world.settled, [(world.begun[0], true)]);
    // Nothing of the job is left, for them or anybody else.
    for number in [1, 2, 3] {
        refused(world.result(number), Code::FailedPrecondition, "takes part in no job");
    }
    assert!(world.jobs.settled.is_empty());
}

#[test]
fn nothing_in_common_is_a_result() {
    let mut world = begun();
    world.upload(1, &[]).expect("ids");
    world.upload(2, &["dog"]).expect("ids");
    for number in [1, 2] {
        assert!(world.result(number).expect("a result").expect("a result").is_empty());
    }
}

#[test]
fn a_wrong_number_of_clients() {
    let mut world = World::default();
    for wanted in [-1, 0, 1, 65, i64::MAX] {
        refused(
            world.connect(1, wanted),
            Code::InvalidArgument,
            &format!("client_num is {wanted};"),
        );
    }
    world.connect(1, 2).expect("a place in the line");
    refused(
        world.connect(2, 3),
        Code::FailedPrecondition,
        "expect 2 clients, and this one expects 3",
    );
    world.connect(3, 2).expect("a place in the line");
    // That job is complete; the next may have another number.
    world.connect(2, 3).expect("a place in the line");
}

#[test]
fn one_job_at_a_time() {
    let mut world = begun();
    for number in 3..=9 {
        world.connect(number, if number < 6 { 3 } else { 2 }).expect("a place in the line");
    }
    for number in 3..=9 {
        assert!(matches!(world.jobs.connected(client(number)), Ok(None)));
        refused(world.upload(number, &["a"]), Code::FailedPrecondition, "in this order");
    }
    for group in [&[1, 2][..], &[3, 4, 5], &[6, 7], &[8, 9]] {
        for number in group {
            let count = world.jobs.connected(client(*number)).expect("a seat");
            assert_eq!(count, Some(group.len()));
            world.upload(*number, &["a", "b"]).expect("ids");
        }
        for number in group {
            assert_eq!(world.result(*number).expect("a result").expect("a result"), ["a", "b"]);
        }
    }
    assert_eq!(world.begun.len(), 4);
}

#[test]
fn a_key_has_one_place() {
    let mut world = World::default();
    world.connect(1, 2).expect("a place in the line");
    let twice = world.change(|jobs| jobs.connect(again(1), 2));
    refused(twice, Code::AlreadyExists, "needs a key of its own");
    refused(world.connect(1, 2), Code::AlreadyExists, "calls Connect once");
    world.connect(2, 2).expect("a place in the line");
    let twice = world.change(|jobs| jobs.connect(again(1), 2));
    refused(twice, Code::AlreadyExists, "is still connected");
    world.upload(1, &["a"]).expect("ids");
    refused(world.upload(1, &["b"]), Code::AlreadyExists, "already uploaded its ids");
    world.upload(2, &["a"]).expect("ids");
    assert_eq!(world.result(1).expect("a result").expect("a result"), ["a"]);
}

#[test]
fn who_leaves_the_line_gives_its_place_to_others() {
    let mut world = World::default();
    world.connect(1, 2).expect("a place in the line");
    world.left(1);
    world.connect(2, 2).expect("a place in the line");
    assert!(world.begun.is_empty());
    world.change(|jobs| jobs.connect(again(1), 2)).expect("a place in the line");
    assert_eq!(world.begun.len(), 1);
}

#[test]
fn outsiders_cannot_upload_nor_see_a_result() {
    let mut world = begun();
    refused(world.upload(9, &["a"]), Code::FailedPrecondition, "takes part in no job");
    refused(world.result(9), Code::FailedPrecondition, "takes part in no job");
    refused(world.result(1), Code::FailedPrecondition, "has uploaded no ids");
}

#[test]
fn who_leaves_a_job_ends_it_when_it_does_not_come_back() {
    let mut world = begun();
    world.upload(1, &["a"]).expect("ids");
    world.left(2);
    assert_eq!(world.awaited, [2]);
    assert_eq!(world.result(1).expect("not yet"), None);
    world.lost(2);
    refused(world.result(1), Code::Aborted, "a client of this job has left");
    assert_eq!(world.settled, [(world.begun[0], false)]);
    refused(world.result(1), Code::FailedPrecondition, "takes part in no job");
}

#[test]
fn who_comes_back_with_another_connection_goes_on() {
    let mut world = begun();
    world.upload(1, &["a"]).expect("ids");
    world.left(2);
    let pseudonymiser = world.jobs.may_upload(again(2)).expect("its turn");
    world.lost(2);
    let ids = Ids::new(vec!["a".to_owned()], &pseudonymiser).expect("in memory");
    world.change(|jobs| jobs.upload(again(2), ids)).expect("ids");
    assert_eq!(world.result(1).expect("a result").expect("a result"), ["a"]);
}

#[test]
fn who_is_started_anew_ends_the_job_that_it_was_in() {
    let mut world = begun();
    world.upload(1, &["a"]).expect("ids");
    world.left(2);
    world.change(|jobs| jobs.connect(again(2), 2)).expect("a place in the line");
    refused(world.result(1), Code::Aborted, "was restarted");
    world.connect(1, 2).expect("a place in the line");
    assert_eq!(world.begun.len(), 2);
}

#[test]
fn deadlines_say_who_was_late() {
    let mut world = World::default();
    world.connect(1, 3).expect("a place in the line");
    world.connect(2, 3).expect("a place in the line");
    let refusal = world.jobs.waited(client(1));
    refused::<()>(Err(refusal), Code::DeadlineExceeded, "2 of 3 clients were here");
    let refusal = world.jobs.waited(client(2));
    refused::<()>(Err(refusal), Code::DeadlineExceeded, "1 of 3 clients were here");
    let mut world = begun();
    world.upload(1, &["a"]).expect("ids");
    let number = world.begun[0];
    world.change(|jobs| Ok(jobs.late(number))).expect("nobody is refused");
    refused(world.result(1), Code::DeadlineExceeded, "1 of 2 clients did not upload");
    refused(world.jobs.connected(client(2)), Code::DeadlineExceeded, "1 of 2 clients");
}

#[test]
fn a_result_that_nobody_asks_for_is_forgotten() {
    let mut world = begun();
    world.upload(1, &["a"]).expect("ids");
    world.upload(2, &["a"]).expect("ids");
    world.left(1);
    world.lost(1);
    refused(world.result(1), Code::FailedPrecondition, "takes part in no job");
    let number = world.begun[0];
    world.jobs.forget(number);
    refused(world.result(2), Code::FailedPrecondition, "takes part in no job");
}

#[test]
fn a_service_that_stops_tells_everybody() {
    let mut world = begun();
    world.connect(3, 2).expect("a place in the line");
    world.upload(1, &["a"]).expect("ids");
    world.change(|jobs| Ok(jobs.close())).expect("nobody is refused");
    refused(world.result(1), Code::Unavailable, "is shutting down");
    refused(world.upload(2, &["a"]), Code::Unavailable, "is shutting down");
    refused(world.jobs.connected(client(3)), Code::Unavailable, "is shutting down");
    refused(world.connect(4, 2), Code::Unavailable, "is shutting down");
}

#[test]
fn the_line_has_an_end() {
    let mut world = World::default();
    for number in 0..u64::try_from(MAXIMUM_PSI_WAITING).expect("a small number") {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        let source = source(u8::try_from(number / 64).expect("four addresses"));
        let client = Client { key: KeyId(key), connection: number, source };
        // Sets of two and three that never come to their turn, because the first job lasts.
        world.change(|jobs| jobs.connect(client, 2)).expect("a place in the line");
        if number == 1 {
            assert_eq!(world.begun.len(), 1);
        }
    }
    let mut from_elsewhere = |number, wanted| {
        let client = Client { source: source(9), ..client(number) };
        world.change(|jobs| jobs.connect(client, wanted))
    };
    from_elsewhere(201, 2).expect("a place in the line");
    from_elsewhere(202, 2).expect("a place in the line");
    refused(from_elsewhere(203, 2), Code::ResourceExhausted, "256 clients are waiting here");
}

#[test]
fn clients_of_one_address_fill_the_line() {
    let mut world = begun();
    for number in 3..67 {
        world.connect(number, 2).expect("a place in the line");
    }
    refused(world.connect(67, 2), Code::ResourceExhausted, "64 clients from this address");
    let elsewhere = Client { source: source(2), ..client(200) };
    world.change(|jobs| jobs.connect(elsewhere, 2)).expect("a place in the line");
}

#[test]
fn stranger_who_waits_for_another_number_of_clients() {
    let mut world = World::default();
    let stranger = Client { source: source(2), ..client(9) };
    world.change(|jobs| jobs.connect(stranger, 64)).expect("a place in the line");
    world.connect(1, 2).expect("what strangers expect is nothing to this client");
    let waited = world.jobs.waited(client(1));
    assert!(waited.text.contains("somebody waits here for 64 clients"), "{}", waited.text);
    world.connect(1, 2).expect("a place in the line");
    world.connect(2, 2).expect("a place in the line");
    assert_eq!(world.begun.len(), 1);
}

#[test]
fn strangers_who_begin_a_job_and_upload_nothing() {
    let mut world = begun();
    world.connect(3, 2).expect("a place in the line");
    world.connect(4, 2).expect("a place in the line");
    let first = world.begun[0];
    world.upload(1, &["a"]).expect("ids");
    world.change(|jobs| Ok(jobs.idle(first))).expect("nobody is refused");
    assert_eq!(world.settled, [(first, false)]);
    refused(world.result(1), Code::DeadlineExceeded, "1 of 2 clients did not begin to upload");
    let second = world.begun[1];
    for number in [3, 4] {
        world.jobs.may_upload(client(number)).expect("its turn");
    }
    world.change(|jobs| Ok(jobs.idle(second))).expect("nobody is refused");
    assert_eq!(world.settled.len(), 1, "whoever uploads is not idle");
}

#[test]
fn a_result_that_their_clients_cannot_receive_is_refused() {
    // 18 bytes on the wire for each.
    let ids = |count: usize| (0..count).map(|id| format!("{id:016}")).collect::<Vec<_>>();
    for limit in [DEFAULT_PSI_RESULT_BYTES, 3 * DEFAULT_PSI_RESULT_BYTES] {
        let most = usize::try_from(limit / 18).expect("small");
        assert!(fits(&ids(most), limit).is_ok());
        let text = "'convelo run' or 'convelo join'";
        refused(fits(&ids(most + 1), limit), Code::ResourceExhausted, text);
    }
}

#[derive(Clone, Debug)]
enum Happening {
    Connect(u8, bool, i64),
    Upload(u8),
    Result(u8),
    Left(u8, bool),
    Lost(u8, bool),
    Late,
}

fn happening() -> impl Strategy<Value = Happening> {
    let number = || 0..6u8;
    prop_oneof![
        6 => (number(), any::<bool>(), 1..4i64).prop_map(|(n, a, w)| Happening::Connect(n, a, w)),
        8 => number().prop_map(Happening::Upload),
        8 => number().prop_map(Happening::Result),
        2 => (number(), any::<bool>()).prop_map(|(n, a)| Happening::Left(n, a)),
        2 => (number(), any::<bool>()).prop_map(|(n, a)| Happening::Lost(n, a)),
        1 => Just(Happening::Late),
    ]
}

proptest! {
    /// Whatever clients do: a result is that of those who uploaded, and in the end nothing is left.
    #[test]
    fn results_are_right_and_nothing_is_left(
        happenings in proptest::collection::vec(happening(), 0..120),
    ) {
        let mut world = World::default();
        for happening in happenings {
            let with = |number, anew| if anew { again(number) } else { client(number) };
            match happening {
                Happening::Connect(number, anew, wanted) => {
                    let _ = world.change(|jobs| jobs.connect(with(number, anew), wanted));
                }
                Happening::Upload(number) => {
                    let own = format!("own-{number}");
                    let _ = world.upload(number, &["all", &own]);
                }
                Happening::Result(number) => {
                    if let Ok(Some(result)) = world.result(number) {
                        prop_assert_eq!(result, ["all"]);
                    }
                }
                Happening::Left(number, anew) => world.left(with(number, anew).connection),
                Happening::Lost(number, anew) => world.lost(with(number, anew).connection),
                Happening::Late => {
                    if let Some(number) = world.begun.last().copied() {
                        let _ = world.change(|jobs| Ok(jobs.late(number)));
                    }
                }
            }
            prop_assert_eq!(
                world.begun.len(),
                world.settled.len() + usize::from(world.jobs.running.is_some())
            );
        }
        world.change(|jobs| Ok(jobs.close())).expect("nobody is refused");
        for (number, _) in world.settled {
            world.jobs.forget(number);
        }
        let Jobs { waiting, running, settled, .. } = &world.jobs;
        prop_assert!(waiting.is_empty() && running.is_none() && settled.is_empty());
    }
}
