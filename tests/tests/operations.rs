//! What a service tells its operator's tools, on request or pushed: health, readiness and figures.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::{Duration, Instant};

use convelo_tests::{PATIENCE, Process, RawParty, World};
use convelo_wire::Reason;
use serde_json::{Value, json};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// The status port of a service, over HTTP/1.1: status line and body.
fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("the status port answers");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer comes");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.lines().next().expect("a status line").to_owned(), body.to_owned())
}

/// What gRPC's health service says about the join service.
fn grpc_health(address: &str) -> ServingStatus {
    let address = format!("http://{address}");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let channel = tonic::transport::Endpoint::new(address).expect("an address");
        let channel = channel.connect().await.expect("the status port answers");
        let service = "convelo.join.v1.JoinService".to_owned();
        let mut client = HealthClient::new(channel);
        let answer = client.check(HealthCheckRequest { service }).await.expect("an answer");
        answer.into_inner().status()
    })
}

/// The lines of a log in JSON that say this.
fn objects(log: &str, message: &str) -> Vec<Value> {
    let objects = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("an object"));
    objects.filter(|object| object["message"] == message).collect()
}

#[test]
fn the_log_says_how_a_job_ended_and_whose_it_was() {
    let world = World::new();
    let service = world.serve_with("--listen 127.0.0.1:0 --log json");
    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).deadline("1h").give_to(&parties);
    let running = parties.each_ref().map(|party| world.run_lines(party, &["a"]));
    for process in running {
        process.wait().expect(0);
    }
    service.process.wait_for("a job is over");
    parties[0].forget();
    let alice = world.run_lines(&parties[0], &["a"]);
    alice.wait_for("waiting for bob");
    alice.terminate();
    alice.wait().expect(130);
    service.process.wait_for_times("a job is over", 2);
    let mallory = world.party("mallory");
    let job = world.job(Some(&service), &parties).deadline("1h").job();
    let opening = RawParty::enter(
        world.connect(&service, &mallory.identity),
        &job,
        "alice",
        &mallory.identity,
    )
    .connection
    .failure();
    assert_eq!(opening.reason, Reason::Stranger);
    service.process.wait_for("a party was refused");
    service.process.terminate();
    let log = service.process.wait().expect(0).stderr;

    let over = objects(&log, "a job is over");
    let [first, second] = &over[..] else { panic!("{log}") };
    let mut keys = parties.each_ref().map(|party| party.key_id().to_string());
    keys.sort_unstable();
    assert_eq!(first["outcome"], "result");
    assert_eq!(first["reason"], Value::Null);
    assert_eq!(first["parties"], keys.join(","));
    assert!(first["seconds"].is_u64() && first["time"].is_string(), "{first}");
    assert_eq!(second["outcome"], "no result");
    assert_eq!(second["reason"], "stopped");
    assert_eq!(second["parties"], parties[0].key_id().to_string());
    let refused = objects(&log, "a party was refused");
    assert_eq!(refused[0]["reason"], "stranger");
    assert_eq!(refused[0]["key"], mallory.key_id().to_string());
}

/// systemd starts what needs the service once it is told that the service listens, and waits for its end
/// once it is told that it stops.
#[test]
fn the_supervisor_hears_that_the_service_listens_and_stops() {
    let world = World::new();
    let socket = world.path("notify");
    let supervisor = UnixDatagram::bind(&socket).expect("a socket");
    supervisor.set_read_timeout(Some(PATIENCE)).expect("a time limit");
    let hear = || {
        let mut datagram = [0; 64];
        let length = supervisor.recv(&mut datagram).expect("the service tells");
        String::from_utf8_lossy(&datagram[..length]).into_owned()
    };
    let arguments = "serve --json --simulated platform --listen 127.0.0.1:0";
    let mut command = world.command(&world.path(""), arguments);
    let service = Process::spawn("service", command.env("NOTIFY_SOCKET", &socket));
    assert_eq!(hear(), "READY=1");
    let line: Value = serde_json::from_str(&service.first_line()).expect("a line of JSON");
    TcpStream::connect(line["listening"].as_str().expect("an address")).expect("it listens");
    service.terminate();
    assert_eq!(hear(), "STOPPING=1");
    service.wait().expect(0);

    drop(supervisor);
    let mut command = world.command(&world.path(""), arguments);
    let service = Process::spawn("service", command.env("NOTIFY_SOCKET", &socket));
    service.wait_for("the supervisor at NOTIFY_SOCKET was not told");
    service.terminate();
    service.wait().expect(0);
}

/// Health, readiness and figures for the people who operate the service; they reveal nothing about
/// a set.
#[test]
fn status_of_a_service() {
    let world = World::new();
    let service = world.serve_with("--listen 127.0.0.1:0 --status 127.0.0.1:0");
    let line: serde_json::Value =
        serde_json::from_str(&service.process.first_line()).expect("a line of JSON");
    let status = line["status"].as_str().expect("an address");
    assert_eq!(get(status, "/livez").0, "HTTP/1.1 200 OK");
    assert_eq!(get(status, "/readyz"), ("HTTP/1.1 200 OK".into(), "takes jobs\n".into()));
    assert_eq!(get(status, "/elsewhere").0, "HTTP/1.1 404 Not Found");
    assert_eq!(grpc_health(status), ServingStatus::Serving);

    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).give_to(&parties);
    let alice = world.run_lines(&parties[0], &["a", "b"]);
    alice.wait_for("waiting for bob");
    let figures = get(status, "/metrics").1;
    for line in ["convelo_jobs_open 1", "convelo_connections_open 1"] {
        assert!(figures.lines().any(|found| found == line), "{line}: {figures}");
    }
    world.run_lines(&parties[1], &["b"]).wait().expect(0);
    alice.wait().expect(0);
    let alice = world.run_lines(&parties[0], &["a", "b"]);
    alice.wait_for("waiting for bob");
    alice.terminate();
    alice.wait().expect(130);
    let deadline = Instant::now() + PATIENCE;
    let expected = [
        "convelo_jobs_open 0",
        "convelo_connections_open 0",
        "convelo_jobs_total{end=\"result\"} 1",
        "convelo_jobs_total{end=\"failure\"} 1",
        "convelo_job_seconds_count 2",
        "convelo_memory_bytes 4294967296",
        "# EOF",
    ];
    loop {
        let figures = get(status, "/metrics").1;
        let missing = expected.iter().find(|line| !figures.lines().any(|found| found == **line));
        let Some(missing) = missing else { break };
        assert!(Instant::now() < deadline, "{missing}: {figures}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn taken(collector: &TcpListener, answer: &str) -> (String, Value) {
    request(collector.accept().expect("figures come").0, answer)
}

/// Accepts one request as an OpenTelemetry collector does: its head in lower case, and its body.
fn request(mut stream: TcpStream, answer: &str) -> (String, Value) {
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    let (head, body) = loop {
        let count = stream.read(&mut piece).expect("a request comes");
        assert!(count > 0, "a request ends early: {}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_lowercase();
        let length = head.split_once("content-length: ").expect("a length").1;
        if length.lines().next().and_then(|length| length.parse().ok()) == Some(body.len()) {
            break (head, serde_json::from_str(body).expect("JSON"));
        }
    };
    stream.write_all(answer.as_bytes()).expect("the answer is taken");
    (head, body)
}

/// Figures are pushed, finally when the service stops; a collector that fails harms nobody.
#[test]
fn figures_for_an_opentelemetry_collector() {
    const TAKEN: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\
                         Connection: close\r\n\r\n{}";
    const BROKEN: &str =
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let collector = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = collector.local_addr().expect("it listens");
    let world = World::new();
    let service =
        world.serve_with(&format!("--listen 127.0.0.1:0 --otlp http://{address}/ --otlp-every 1s"));
    let (head, _) = taken(&collector, BROKEN);
    assert!(head.starts_with("post /v1/metrics http/1.1"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    service.process.wait_for("the collector does not accept the figures; still trying");

    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).give_to(&parties);
    let runs = parties.each_ref().map(|party| world.run_lines(party, &["a", "b"]));
    runs.into_iter().for_each(|run| {
        run.wait().expect(0);
    });
    taken(&collector, TAKEN);
    service.process.wait_for("accepts the figures again");
    service.process.terminate();
    // The push of this second, and the final one.
    let last = thread::spawn(move || {
        let mut last = taken(&collector, TAKEN).1;
        collector.set_nonblocking(true).expect("a socket");
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline {
            match collector.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).expect("a socket");
                    last = request(stream, TAKEN).1;
                }
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
        last
    });
    service.process.wait().expect(0);
    let last = last.join().expect("figures came");
    let resource = &last["resourceMetrics"][0];
    let named = |list: &Value, name: &str, key: &str| {
        let found = list.as_array().and_then(|all| all.iter().find(|entry| entry[key] == name));
        found.unwrap_or_else(|| panic!("no {name} in {list}")).clone()
    };
    let attribute =
        |name: &str| named(&resource["resource"]["attributes"], name, "key")["value"].clone();
    assert_eq!(attribute("service.name"), json!({ "stringValue": "convelo" }));
    assert_eq!(attribute("service.instance.id"), json!({ "stringValue": service.address }));
    let metric = |name: &str| named(&resource["scopeMetrics"][0]["metrics"], name, "name");
    assert_eq!(metric("convelo.jobs.open")["gauge"]["dataPoints"][0]["asInt"], "0");
    assert_eq!(metric("convelo.memory")["gauge"]["dataPoints"][0]["asInt"], "4294967296");
    let ended = &metric("convelo.jobs")["sum"]["dataPoints"];
    assert_eq!([&ended[0]["asInt"], &ended[1]["asInt"]], ["1", "0"]);
    let took = &metric("convelo.job.duration")["histogram"]["dataPoints"][0];
    assert_eq!(
        (&took["count"], took["bucketCounts"].as_array().map(Vec::len)),
        (&json!("1"), Some(6))
    );
}

/// An invalid collector address ends the service before it starts.
#[test]
fn a_collector_without_a_scheme() {
    let world = World::new();
    let ended =
        world.start("serve --listen 127.0.0.1:0 --simulated platform --otlp collector:4318").wait();
    let said = ended.expect(2).stderr.clone();
    assert!(said.contains("expected http://HOST:PORT"), "{said}");
}
