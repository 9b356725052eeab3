//! Collateral over real sockets from a cache that answers well, badly, late or not at all.

#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use convelo_attest::{
    Collateral, CollateralError, PckCa, PlatformId, Policy, QuoteSource as _, Tee,
    collateral_endpoint,
};
use convelo_party::{PcsClient, PcsError, Refresh, RefreshError};
use convelo_simulator::{CollateralKnobs, Enclave, Pccs, PccsKnobs, Platform, policy_toml};
use convelo_untrusted::is_plain;

/// 2026-11-21T00:00:00Z.
const NOW: u64 = 1_795_219_200;

fn platform() -> Arc<Platform> {
    static PLATFORM: OnceLock<Arc<Platform>> = OnceLock::new();
    Arc::clone(PLATFORM.get_or_init(|| Arc::new(Platform::new(NOW).unwrap())))
}

fn policy() -> Policy {
    Policy::from_toml(&policy_toml(&platform(), &[("x", &Enclave::named("x"))])).unwrap()
}

fn id() -> PlatformId {
    let quote = platform().enclave(Enclave::named("x")).quote(&[7; 64]).unwrap();
    PlatformId::of_quote(&quote).unwrap()
}

fn pccs(knobs: PccsKnobs) -> Pccs {
    Pccs::start("127.0.0.1:0", platform(), knobs).unwrap()
}

fn client(urls: &[String], retries: u64) -> PcsClient {
    let endpoints = urls.iter().map(|url| collateral_endpoint(url).unwrap().0).collect();
    PcsClient::new(endpoints, retries, Duration::from_millis(10), false)
}

fn fetch(pccs: &Pccs) -> Result<Collateral, PcsError> {
    client(&[pccs.url()], 0).fetch(&id())
}

/// What a cache with these knobs results in.
fn failure(knobs: PccsKnobs) -> String {
    fetch(&pccs(knobs)).unwrap_err().to_string()
}

#[test]
fn a_platform_is_read_from_its_quote() {
    assert_eq!(
        id(),
        PlatformId { tee: Tee::Sgx, fmspc: vec![0, 0x60, 0x6a, 0, 0, 0], ca: PckCa::Platform }
    );
}

#[test]
fn collateral_arrives_as_it_was_signed() {
    for der in [false, true] {
        let pccs = pccs(PccsKnobs { der, ..PccsKnobs::default() });
        let collateral = fetch(&pccs).unwrap();
        collateral.verify(&policy(), NOW).unwrap();
        assert_eq!(collateral.fmspc(), pccs.collateral().fmspc());
        assert_eq!(collateral.evaluation_number(), 17);
        assert_eq!(pccs.requests(), 4);
    }
}

#[test]
fn every_status_is_explained() {
    for (status, says) in [
        (400, "version 4"),
        (401, "access"),
        (404, "register the platform"),
        (410, "has ended"),
        (460, "integrity"),
        (461, "unknown to Intel"),
        (462, "not available"),
        (503, "try later"),
        (299, "does not define"),
    ] {
        let text = failure(PccsKnobs { status: Some(status), ..PccsKnobs::default() });
        assert!(text.contains(&status.to_string()) && text.contains(says), "{text}");
    }
}

/// A collateral service whose answers hold escape sequences and texts that run backwards.
#[test]
fn collateral_service_paints_on_the_terminal() {
    let paint = "\u{1b}[2K\u{9b}2J\u{202e}evidence verified";
    let body = |text: &str| format!("{{{}: 1}}", serde_json::to_string(text).unwrap());
    for (status, reason, header, body) in [
        (200, "OK", "x", body(paint)),
        (200, "OK", "x", format!("{{\"tcbInfo\": {{}}, \"signature\": \"{paint}\"}}")),
        (200, "OK", paint, body("x")),
        (500, paint, "x", String::new()),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let chains: String = ["TCB-Info", "SGX-Enclave-Identity", "SGX-PCK-CRL"]
            .map(|name| format!("{name}-Issuer-Chain: {header}\r\n"))
            .concat();
        let answer = format!(
            "HTTP/1.1 {status} {reason}\r\n{chains}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        std::thread::spawn(move || {
            for stream in listener.incoming().take(4) {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        let text = client(&[url], 0).fetch(&id()).unwrap_err().to_string();
        assert!(text.chars().all(is_plain), "{text:?}");
    }
}

#[test]
fn version_3_of_the_interface() {
    let pccs = pccs(PccsKnobs::default());
    // As someone reads a file that names it: rewritten.
    let (endpoint, warning) =
        collateral_endpoint(&format!("{}/sgx/certification/v3/", pccs.url())).unwrap();
    assert!(warning.unwrap().contains("version 3"));
    client(&[pccs.url()], 0).fetch(&id()).unwrap();
    // What it answers to a client that asks for everything anyway.
    let old = endpoint.replace("/v4", "/v3");
    let old = PcsClient::new(vec![old], 0, Duration::ZERO, false);
    assert!(old.fetch(&id()).unwrap_err().to_string().contains("410"));
}

#[test]
fn flapping_cache() {
    let knobs = PccsKnobs { status: Some(503), failing_first: 2, ..PccsKnobs::default() };
    let flapping = pccs(knobs);
    client(&[flapping.url()], 2).fetch(&id()).unwrap();
    assert_eq!(flapping.requests(), 2 + 4);
    let knobs = PccsKnobs { status: Some(461), failing_first: 2, ..PccsKnobs::default() };
    let refusing = pccs(knobs);
    client(&[refusing.url()], 5).fetch(&id()).unwrap_err();
    assert_eq!(refusing.requests(), 1, "what is final is not asked again");
}

#[test]
fn cache_that_is_down() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("http://{nobody}");
    let broken = pccs(PccsKnobs { status: Some(502), ..PccsKnobs::default() });
    let sound = pccs(PccsKnobs::default());
    let all = [nobody.clone(), broken.url(), sound.url()];
    client(&all, 0).fetch(&id()).unwrap();
    let text = client(&all[..2], 0).fetch(&id()).unwrap_err().to_string();
    assert!(text.contains(&nobody) && text.contains("502"), "{text}");
    let none = PcsClient::new(Vec::new(), 0, Duration::ZERO, false);
    assert!(matches!(none.fetch(&id()), Err(PcsError::NoEndpoint)));
}

#[test]
fn slow_cache() {
    let slow = pccs(PccsKnobs { delay: Some(Duration::from_millis(300)), ..PccsKnobs::default() });
    fetch(&slow).unwrap();
}

#[test]
fn truncated_answer() {
    failure(PccsKnobs { truncated: true, ..PccsKnobs::default() });
}

#[test]
fn oversize_answer() {
    let text = failure(PccsKnobs { oversize: 2 << 20, ..PccsKnobs::default() });
    assert!(text.contains("limit"), "{text}");
}

#[test]
fn wrong_chain() {
    let collateral = fetch(&pccs(PccsKnobs { wrong_chain: true, ..PccsKnobs::default() })).unwrap();
    let error = collateral.verify(&policy(), NOW).unwrap_err().to_string();
    assert!(error.contains("TCB info") && error.contains("signature"), "{error}");
}

#[test]
fn collateral_of_another_platform() {
    let knobs = CollateralKnobs { fmspc: [9; 6], ..CollateralKnobs::default() };
    let other = PccsKnobs { collateral: knobs, ..PccsKnobs::default() };
    assert!(failure(other).contains("404"));
}

#[test]
fn root_crl_that_is_nowhere() {
    // The simulated root names an address that nobody serves.
    let text = failure(PccsKnobs { no_root_crl: true, ..PccsKnobs::default() });
    assert!(!text.is_empty());
}

#[test]
fn another_root() {
    let collateral = fetch(&pccs(PccsKnobs::default())).unwrap();
    let other = Arc::new(Platform::new(NOW).unwrap());
    let other = Policy::from_toml(&policy_toml(&other, &[("x", &Enclave::named("x"))])).unwrap();
    let error = collateral.verify(&other, NOW).unwrap_err().to_string();
    assert!(error.contains("another root"), "{error}");
    let intel = Policy::from_measurement("x", &"1".repeat(64), None, None, 0).unwrap();
    assert!(collateral.verify(&intel, NOW).is_err());
}

#[test]
fn stale_and_future_collateral() {
    let collateral = fetch(&pccs(PccsKnobs::default())).unwrap();
    let day = 86_400;
    collateral.verify(&policy(), NOW + 29 * day).unwrap();
    let error = collateral.verify(&policy(), NOW + 40 * day).unwrap_err().to_string();
    assert!(error.contains("expired"), "{error}");
    let error = collateral.verify(&policy(), NOW - 2 * day).unwrap_err().to_string();
    assert!(error.contains("after now"), "{error}");
}

#[test]
fn tampered_collateral() {
    let genuine = fetch(&pccs(PccsKnobs::default())).unwrap();
    let text = genuine.to_json();
    let tampered = text.replace("UpToDate", "OutOfDat");
    if let Ok(tampered) = Collateral::from_json(&tampered) {
        tampered.verify(&policy(), NOW).unwrap_err();
    }
    let tampered = text.replacen(
        "\\\"tcbEvaluationDataNumber\\\":17",
        "\\\"tcbEvaluationDataNumber\\\":18",
        1,
    );
    assert_ne!(tampered, text);
    let error = Collateral::from_json(&tampered).unwrap().verify(&policy(), NOW).unwrap_err();
    assert!(error.to_string().contains("signature"), "{error}");
}

#[test]
fn downgrade_to_older_collateral() {
    let bundle = |knobs: CollateralKnobs| platform().collateral(&knobs);
    let held = bundle(CollateralKnobs::default());
    held.may_replace(&held).unwrap();
    let older = bundle(CollateralKnobs { issued_days_ago: 1, ..CollateralKnobs::default() });
    let error = older.may_replace(&held).unwrap_err();
    assert!(matches!(error, CollateralError::Older { .. }), "{error}");
    held.may_replace(&older).unwrap();
    let low = bundle(CollateralKnobs { evaluation_number: 16, ..CollateralKnobs::default() });
    let error = low.may_replace(&held).unwrap_err().to_string();
    assert!(error.contains("16") && error.contains("17"), "{error}");
    let other = bundle(CollateralKnobs { fmspc: [9; 6], ..CollateralKnobs::default() });
    other.may_replace(&held).unwrap_err();
}

#[test]
fn revoked_issuer() {
    let knobs = CollateralKnobs { revoke_tcb_signer: true, ..CollateralKnobs::default() };
    let error = platform().collateral(&knobs).verify(&policy(), NOW).unwrap_err().to_string();
    assert!(error.contains("revoked"), "{error}");
}

/// A refresh of this file from the cache, at the clock of now.
fn refresh(pccs: &Pccs, path: &std::path::Path) -> Refresh {
    let platform = Arc::clone(&real_time());
    let toml = policy_toml(&platform, &[("x", &Enclave::named("x"))]);
    Refresh {
        client: client(&[pccs.url()], 0),
        platform: PlatformId::of_collateral(&pccs.collateral()).unwrap(),
        path: path.to_owned(),
        policy: Policy::from_toml(&toml).unwrap(),
    }
}

/// A current platform: what is kept fresh is judged by the machine's clock.
fn real_time() -> Arc<Platform> {
    static PLATFORM: OnceLock<Arc<Platform>> = OnceLock::new();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    Arc::clone(PLATFORM.get_or_init(|| Arc::new(Platform::new(now()).unwrap())))
}

fn issued(days_ago: i64) -> PccsKnobs {
    let collateral = CollateralKnobs { issued_days_ago: days_ago, ..CollateralKnobs::default() };
    PccsKnobs { collateral, ..PccsKnobs::default() }
}

fn read(path: &std::path::Path) -> Collateral {
    Collateral::from_json(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_file_is_refreshed_and_never_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("collateral.json");
    let pccs = Pccs::start("127.0.0.1:0", real_time(), issued(3)).unwrap();
    let refresh = refresh(&pccs, &path);
    refresh.once().unwrap();
    let first = read(&path);
    pccs.turn(|knobs| *knobs = issued(1));
    refresh.once().unwrap();
    let second = read(&path);
    assert!(second.issued() > first.issued());
    // A genuine but older one, one with another platform's signature, and none at all.
    pccs.turn(|knobs| *knobs = issued(2));
    let error = refresh.once().unwrap_err();
    assert!(matches!(error, RefreshError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("an older one may hide"), "{error}");
    pccs.turn(|knobs| *knobs = PccsKnobs { wrong_chain: true, ..issued(0) });
    let error = refresh.once().unwrap_err();
    assert!(matches!(error, RefreshError::Refused { .. }), "{error}");
    pccs.turn(|knobs| *knobs = PccsKnobs { status: Some(503), ..issued(0) });
    assert!(matches!(refresh.once().unwrap_err(), RefreshError::Fetch(_)));
    assert_eq!(read(&path).digest(), second.digest());
}

#[test]
fn a_file_is_kept_fresh_in_the_background() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("collateral.json");
    // Four days old: more than half of the seven that policies accept.
    let pccs = Pccs::start("127.0.0.1:0", real_time(), issued(4)).unwrap();
    refresh(&pccs, &path).once().unwrap();
    let old = read(&path);
    pccs.turn(|knobs| *knobs = issued(0));
    let refreshing = refresh(&pccs, &path).in_background().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while read(&path).issued() <= old.issued() {
        assert!(Instant::now() < deadline, "nothing was fetched");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Fresh now: nothing more is fetched for days.
    let requests = pccs.requests();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(pccs.requests(), requests);
    drop(refreshing);
}

#[test]
fn collateral_of_trust_domains_has_routes_of_its_own() {
    let pccs = pccs(PccsKnobs::default());
    let id = PlatformId { tee: Tee::Tdx, ..id() };
    let fetched = client(&[pccs.url()], 0).fetch(&id).unwrap();
    assert_eq!(fetched.tee(), Tee::Tdx);
    fetched.verify(&policy(), NOW).unwrap();
    assert_eq!(PlatformId::of_collateral(&fetched).unwrap(), id);
}
