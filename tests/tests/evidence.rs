//! Evidence, policies and receipts in people's hands: the commands that show and verify them.

use std::fs;

use convelo_simulator::CollateralKnobs;
use convelo_tests::{Party, World};
use serde_json::{Value, json};

use crate::metadata::repository;

/// The exit code for refused evidence.
const REFUSED: i32 = 3;

const TRUST: &str = "--policy policy.toml --collateral collateral.json";

#[test]
fn inspecting_says_loudly_that_it_is_not_verifying() {
    let world = World::new();
    let service = world.serve();
    let alice = world.party("alice");
    let ended = world.start_at(&alice, &format!("attest inspect {}", service.address)).wait();
    let text = ended.expect(0).stdout;
    assert!(text.starts_with("NOT VERIFIED"), "{text}");
    assert!(text.contains("mr_enclave: ") && text.contains("NOT INTEL'S ROOT"), "{text}");
    let inspect = world.start_at(&alice, &format!("attest inspect --json {}", service.address));
    let shown = inspect.wait().expect(0).json();
    assert_eq!(shown["verified"], false);
    assert_eq!(shown["inspection"]["kind"], "certificate");
    let measured = shown["inspection"]["fields"]["mr_enclave"].as_str().unwrap();
    assert!(text.contains(&format!("mr_enclave: {measured}\n")), "{text}");
}

#[test]
fn verifying_a_service_and_a_file() {
    let world = World::new();
    let service = world.serve();
    let alice = world.party("alice");
    alice.write("policy.toml", world.service_policy());
    let verify = |from: &str, more: &str| {
        world.start_at(&alice, &format!("attest verify {from} {TRUST} {more}")).wait()
    };
    let text = verify(&service.address, "").expect(0).stdout;
    for check in ["root", "key binding", "measurement", "collateral", "signatures", "TCB status"] {
        assert!(text.contains(&format!("ok       {check}: expected ")), "{check}: {text}");
    }
    assert!(text.contains("ACCEPTED") && text.contains("SIMULATED"), "{text}");

    let make = "attest evidence --simulated ../platform --output evidence.pem";
    world.start_at(&alice, make).wait().expect(0).says("SIMULATED");
    let accepted = verify("evidence.pem", "--json").expect(0).json();
    assert_eq!(accepted["accepted"], true);
    assert_eq!(accepted["verdict"]["tcb_status"], "UpToDate");
    // At another time, the same evidence is refused, and the checks that passed before that are
    // listed.
    let late = verify("evidence.pem", "--at 4000000000").expect(REFUSED);
    late.says("[certificate-expired]");
}

#[test]
fn a_refusal_lists_what_passed_before_it() {
    let world = World::new();
    let alice = world.party("alice");
    let make = "attest evidence --simulated ../platform --output evidence.pem";
    world.start_at(&alice, make).wait().expect(0);
    let other = world.service_policy().replacen("mr_enclave = \"", "mr_enclave = \"00", 1);
    let at = other.find("mr_enclave = \"").unwrap() + "mr_enclave = \"".len() + 64;
    let other = format!("{}{}", &other[..at], &other[at + 2..]);
    alice.write("other.toml", &other);
    let args = "attest verify evidence.pem --policy other.toml --collateral collateral.json";
    let ended = world.start_at(&alice, args).wait().expect(REFUSED);
    let text = ended.stdout;
    assert!(text.contains("ok       root") && text.contains("REFUSED  measurement"), "{text}");
    assert!(text.contains("not reached"), "{text}");
}

#[test]
fn what_is_neither_a_file_nor_an_address() {
    let world = World::new();
    let alice = world.party("alice");
    alice.write("noise", [7; 100]);
    let run = |args: &str| world.start_at(&alice, args).wait();
    run("attest inspect nothing-here").expect(2).says("neither a file here nor HOST:PORT");
    run("attest inspect noise").expect(2).says("bytes of no kind that is known here");
    run("attest evidence").expect(2).says("/dev/attestation");
}

/// A genuine quote, and what it takes to verify it.
struct Genuine {
    quote: &'static str,
    at: &'static str,
    report_data: String,
}

impl Genuine {
    /// The samples, with their collateral and a policy for each in the party's directory.
    fn samples(alice: &Party, world: &World) -> Vec<Self> {
        let clocks = [
            ("sgx_quote", "2025-06-19T11:56:11Z"),
            ("tdx_quote", "2025-06-19T13:32:27+02:00"),
            ("tdx_quote_td15ex", "1791421786"),
        ];
        let sample = |(quote, at): (&'static str, &'static str)| {
            for name in [quote.to_owned(), format!("{quote}_collateral.json")] {
                alice.write(&name, vector(&format!("quotes/{name}")));
            }
            let inspect = world.start_at(alice, &format!("attest inspect --json {quote}"));
            let fields = inspect.wait().expect(0).json()["inspection"]["fields"].clone();
            let text = |name: &str| fields[name].as_str().unwrap().to_owned();
            let accepts = if fields.get("mr_td").is_some() {
                let names = ["mr_td", "rtmr0", "rtmr1", "rtmr2"];
                let lines = names.map(|name| format!("{name} = {:?}\n", text(name)));
                format!("allow_cached_keys = true\n[[trust_domain]]\n{}", lines.concat())
            } else {
                let measured = text("mr_enclave");
                format!(
                    "tcb_statuses = [\"UpToDate\", \"ConfigurationAndSWHardeningNeeded\"]\n\
                     advisories = [\"INTEL-SA-00289\", \"INTEL-SA-00615\"]\n\
                     [[enclave]]\nmr_enclave = {measured:?}\n"
                )
            };
            let policy = format!("version = 1\n{accepts}name = \"sample\"\n");
            alice.write(&format!("{quote}.toml"), policy);
            Self { quote, at, report_data: text("report_data") }
        };
        clocks.map(sample).into()
    }

    /// How this file is verified as the sample.
    fn verify(&self, file: &str) -> String {
        let Self { quote, at, .. } = self;
        format!(
            "attest verify {file} --policy {quote}.toml --collateral {quote}_collateral.json --at {at}"
        )
    }
}

fn vector(name: &str) -> Vec<u8> {
    fs::read(repository().join("vectors/attestation").join(name)).unwrap()
}

#[test]
fn genuine_quotes_as_tools_write_them() {
    let world = World::new();
    let alice = world.party("alice");
    let run = |args: &str| world.start_at(&alice, args).wait();
    for genuine in Genuine::samples(&alice, &world) {
        let (name, data) = (genuine.quote, &genuine.report_data);
        let quote = vector(&format!("quotes/{name}"));
        alice.write("hex", hex::encode_upper(&quote) + "\n");
        alice.write("report-data", hex::decode(data).unwrap());
        for file in [name, "hex"] {
            for over in [data.as_str(), "report-data"] {
                let verify = format!("{} --report-data {over}", genuine.verify(file));
                let text = run(&verify).expect(0).stdout;
                assert!(text.contains(&format!("ok       report data: expected {data}")), "{text}");
                assert!(text.contains("ACCEPTED sample"), "{text}");
                assert!(text.contains("on a genuine"), "{text}");
                assert!(text.contains("only the quote: it binds no key here"), "{text}");
                assert!(!text.contains("key binding"), "{text}");
            }
        }
        let verify = format!("{} --json --report-data {data}", genuine.verify(name));
        assert_eq!(run(&verify).expect(0).json()["accepted"], true);

        // What it is over has to be said, and has to be right.
        run(&genuine.verify(name)).expect(2).says("a bare quote").says("--report-data");
        let other = format!("{}01", &data[..126]);
        let verify = format!("{} --report-data {other}", genuine.verify(name));
        run(&verify).expect(REFUSED).says("[report-data]");
        // Zeros may follow it, and nothing else.
        alice.write("padded", [quote.as_slice(), &[0; 9000]].concat());
        run(&format!("{} --report-data {data}", genuine.verify("padded"))).expect(0);
        alice.write("more", [quote.as_slice(), &[0; 90], &[1]].concat());
        run(&format!("{} --report-data {data}", genuine.verify("more")))
            .expect(REFUSED)
            .says("[quote-form]");
    }
}

/// Fewer than 64 bytes of report data are followed by zeros, as devices quote them.
#[test]
fn report_data_in_every_form() {
    let world = World::new();
    let alice = world.party("alice");
    let run = |args: &str| world.start_at(&alice, args).wait();
    let genuine = &Genuine::samples(&alice, &world)[0];
    alice.write("greeting", "Hello, world!");
    alice.write("empty", "");
    alice.write("long", [7; 65]);
    let verify = |over: &str| run(&format!("{} --report-data {over}", genuine.verify("sgx_quote")));
    verify(&hex::encode("Hello, world!")).expect(0);
    verify("greeting").expect(0);
    verify(&hex::encode("Hello, world")).expect(REFUSED);
    let long = "07".repeat(65);
    for (over, says) in [
        ("empty", "expected 1 to 64 bytes, found 0"),
        ("long", "expected 1 to 64 bytes, found 65"),
        (long.as_str(), "expected 1 to 64 bytes, found 65"),
        ("4865x", "neither hexadecimal digits"),
        ("486", "neither hexadecimal digits"),
    ] {
        verify(over).expect(2).says(says);
    }
    run("attest evidence --simulated ../platform --output evidence.pem").expect(0);
    run(&format!("{} --report-data 07", genuine.verify("evidence.pem")))
        .expect(2)
        .says("leave out --report-data");
    run(&genuine.verify("sgx_quote").replace("11:56:11Z", "11:56:11"))
        .expect(2)
        .says("no time zone");
}

/// Of certificates that no peer may show, the platform is known all the same.
#[test]
fn collateral_for_a_certificate_whatever_its_lifetime() {
    let world = World::new();
    let alice = world.party("alice");
    let pccs = world.start("simulator pccs platform --listen 127.0.0.1:0");
    pccs.wait_for("SIMULATED collateral service at http://");
    let text = pccs.stderr();
    let url = text.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
    for name in ["gramine", "intel-sgxsdk", "rats-tls"] {
        alice.write("theirs.pem", vector(&format!("ratls-certs/{name}-cert.pem")));
        let inspect = world.start_at(&alice, "attest inspect --json theirs.pem").wait();
        let fields = inspect.expect(0).json()["inspection"]["fields"].clone();
        let platform = fields["platform_fmspc"].as_str().unwrap().to_owned();
        let export = format!("collateral export --for theirs.pem --pccs {url}");
        let ended = world.start_at(&alice, &export).wait();
        // A simulated service knows platforms of its own kind alone, under its own root.
        if platform.eq_ignore_ascii_case(&hex::encode(CollateralKnobs::default().fmspc)) {
            ended.expect(3).says("its issuer chain ends in another root");
        } else {
            ended.expect(1).says(&format!("no collateral for FMSPC {platform}"));
        }
    }
}

#[test]
fn collateral_with_fields_that_other_programs_add() {
    let world = World::new();
    let alice = world.party("alice");
    Genuine::samples(&alice, &world);
    let run = |args: &str| world.start_at(&alice, args).wait();
    let show = "collateral show tdx_quote_td15ex_collateral.json";
    let text = run(show).expect(0).stdout;
    assert!(text.contains("ignored: the field \"pck_certificate_chain\""), "{text}");
    let ignored = run(&format!("{show} --json")).expect(0).json()["ignored"].clone();
    assert_eq!(ignored, json!(["pck_certificate_chain"]));

    let mut bundle: Value =
        serde_json::from_str(&fs::read_to_string(world.path("platform/collateral.json")).unwrap())
            .unwrap();
    bundle["pck_certificate_chain"] = json!("-----BEGIN CERTIFICATE-----");
    bundle["tee_type"] = json!(0);
    alice.write("theirs.json", bundle.to_string());
    alice.write("policy.toml", world.service_policy());
    run("collateral import theirs.json --output taken.json --policy policy.toml")
        .expect(0)
        .says("left out: the field \"pck_certificate_chain\"")
        .says("left out: the field \"tee_type\"");
    assert!(!alice.read("taken.json").contains("pck_certificate_chain"));
}

/// An empty or mislabelled file is called what it is, with the command that fits.
#[test]
fn mislabelled_files() {
    let world = World::new();
    let alice = world.party("alice");
    let run = |args: &str| world.start_at(&alice, args).wait();
    let request = {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["example.org".to_owned()]).unwrap();
        parameters.serialize_request(&key).unwrap()
    };
    let list: Value =
        serde_json::from_str(&fs::read_to_string(world.path("platform/collateral.json")).unwrap())
            .unwrap();
    let list = hex::decode(list["root_ca_crl"].as_str().unwrap()).unwrap();
    run("attest evidence --simulated ../platform --output evidence.pem").expect(0);
    fs::create_dir(alice.path("directory")).unwrap();
    alice.write("policy.toml", world.service_policy());
    alice.write("empty", "");
    alice.write("blank", " \n");
    alice.write("request.pem", request.pem().unwrap());
    alice.write("request.der", request.der());
    alice.write("list.der", &list);
    alice.write("quote", vector("quotes/sgx_quote"));
    alice.write("packed", b"\x1f\x8b\x08\x00");
    alice.write("answer.json", "{\"tcbInfo\":{},\"signature\":\"\"}");
    for (file, says) in [
        ("empty", "found an empty file"),
        ("blank", "found an empty file"),
        ("directory", "this is a directory"),
        ("alice.key", "found a private key, in PEM"),
        ("request.pem", "found a request for a certificate, in PEM"),
        ("request.der", "found a request for a certificate, in DER"),
        ("list.der", "found a revocation list, in DER"),
        ("packed", "gzip -dc packed"),
        ("policy.toml", "'convelo policy check policy.toml'"),
        ("answer.json", "'convelo collateral export'"),
    ] {
        for command in [
            "attest inspect FILE",
            "attest verify FILE --policy policy.toml --collateral ../platform/collateral.json",
            "collateral export --for FILE --pccs http://127.0.0.1:1",
            "collateral show FILE",
            "collateral import FILE",
            "attest verify evidence.pem --policy policy.toml --collateral FILE",
        ] {
            run(&command.replace("FILE", file)).expect(2).says(file).says(says);
        }
    }
    let collateral = "../platform/collateral.json";
    let show = format!("'convelo collateral show {collateral}'");
    run(&format!("attest inspect {collateral}")).expect(2).says(&show);
    for (file, says) in [
        ("evidence.pem", "found a certificate, in PEM"),
        ("quote", "found a quote; 'convelo attest inspect quote'"),
    ] {
        run(&format!("collateral show {file}")).expect(2).says(says);
        run(&format!("attest verify evidence.pem --collateral {collateral} --policy {file}"))
            .expect(2)
            .says(says);
    }
    let root = "attest verify evidence.pem --policy policy.toml --collateral ../platform/collateral.json \
                --insecure-simulated-root";
    run(&format!("{root} alice.key")).expect(2).says("found a private key");
    run(&format!("{root} ../platform/root.pem")).expect(0);
}

#[test]
fn policies_are_checked_and_converted() {
    let world = World::new();
    let alice = world.party("alice");
    let run = |args: &str| world.start_at(&alice, args).wait();
    alice.write("dynamic_config.json", world.dynamic_config());
    run("policy from-dynamic-config dynamic_config.json --output policy.toml").expect(0);
    let checked = run("policy check policy.toml").expect(0).stdout;
    assert!(checked.contains("root: Intel SGX Root CA"), "{checked}");
    assert!(checked.contains("digest: sha256:"), "{checked}");
    run("policy from-dynamic-config dynamic_config.json --output policy.toml")
        .expect(2)
        .says("not overwritten");

    alice.write("wrong.toml", "version = 1\n[[enclave]]\nname = \"x\"\nmr_enclave = \"12\"\n");
    run("policy check wrong.toml").expect(2).says("line 4").says("2 characters, expected 64");

    let a = "1".repeat(64);
    let settings = format!(
        "# of the verifier\nexport RA_TLS_MRENCLAVE={a}\nRA_TLS_MRSIGNER=any\n\
         RA_TLS_ISV_PROD_ID=any\nRA_TLS_ISV_SVN=3\n"
    );
    alice.write("ra-tls.env", settings);
    let converted = run("policy from-ra-tls-env --file ra-tls.env --name theirs").expect(0).stdout;
    assert!(converted.contains("minimum_isv_svn = 3") && converted.contains(&a), "{converted}");
    let made = run(&format!("policy from-measurement --mr-enclave {a} --name mine")).expect(0);
    alice.write("made.toml", made.stdout);
    let read = run("policy check made.toml --json").expect(0).json();
    assert_eq!(read["policy"]["enclave"][0]["mr_enclave"], a);
    run("policy from-sigstruct made.toml").expect(2).says("1808");
}

#[test]
fn policies_of_releases() {
    let world = World::new();
    let alice = world.party("alice");
    let run = |args: &str| world.start_at(&alice, args).wait();
    let log = repository().join("tests/fixtures/measurements.toml");
    fs::copy(log, alice.path("measurements.toml")).unwrap();
    let from = |version: &str, more: &str| {
        run(&format!("policy from-release {version} --file measurements.toml {more}"))
    };
    let made = from("0.2.1", "--output policy.toml").expect(0);
    assert!(
        !made.stderr.contains("WITHDRAWN") && !made.stderr.contains("ADVISORY"),
        "{}",
        made.stderr
    );
    let read = run("policy check policy.toml --json").expect(0).json();
    let enclaves = read["policy"]["enclave"].as_array().unwrap();
    assert_eq!(enclaves.len(), 1);
    assert_eq!(enclaves[0]["mr_enclave"], "79".repeat(32));
    assert_eq!(enclaves[0]["isv_prod_id"], 1);
    assert_eq!(enclaves[0]["minimum_isv_svn"], 3);
    assert_eq!(read["simulated"], false);
    from("0.2.1", "--output policy.toml").expect(2).says("not overwritten");

    from("0.9.0", "").expect(2).says("no release \"0.9.0\": it has 0.2.0, 0.2.1");
    let tag = from("v0.2.1", "").expect(0);
    assert_eq!(tag.stdout.matches("[[enclave]]").count(), 1);

    // What is known about a release is said, and a withdrawn one takes a word of consent.
    let refused = from("0.2.0", "--output old.toml").expect(2);
    assert!(refused.stderr.contains("ADVISORY of 2027-02-01 about 0.2.0"), "{}", refused.stderr);
    let refused = refused.says("WITHDRAWN of 2027-03-09 about 0.2.0: It took evidence");
    assert!(refused.stderr.contains("--insecure-withdrawn"), "{}", refused.stderr);
    assert!(!alice.path("old.toml").exists());
    let made = from("0.2.0", "--insecure-withdrawn").expect(0).says("WITHDRAWN of 2027-03-09");
    assert_eq!(made.stdout.matches("[[enclave]]").count(), 2);

    // The log that the program was built with is that of the repository.
    run("policy from-release 0.0.0").expect(2).says("names no release \"0.0.0\"");
    let broken =
        fs::read_to_string(alice.path("measurements.toml")).unwrap().replace("isv_svn = 3", "");
    alice.write("measurements.toml", broken);
    from("0.2.1", "").expect(2).says("missing field");
}

#[test]
fn collateral_is_fetched_verified_and_never_goes_back() {
    let world = World::new();
    let service = world.serve();
    let alice = world.party("alice");
    alice.write("policy.toml", world.service_policy());
    let pccs = world.start("simulator pccs platform --listen 127.0.0.1:0");
    pccs.wait_for("SIMULATED collateral service at http://");
    let text = pccs.stderr();
    let url = text.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
    let run = |args: &str| world.start_at(&alice, args).wait();
    let export = format!("collateral export --for {} --pccs {url}", service.address);

    // Under Intel's root none of it is accepted; under the simulated one it is.
    run(&format!("{export} --output fetched.json")).expect(REFUSED).says("another root");
    assert!(!alice.path("fetched.json").exists());
    let trusted = "--output fetched.json --policy policy.toml";
    run(&format!("{export} {trusted}")).expect(0).says("SIMULATED");
    run("attest verify --policy policy.toml --collateral fetched.json").expect(2);
    let verify =
        format!("attest verify {} --policy policy.toml --collateral fetched.json", service.address);
    run(&verify).expect(0);

    let shown = run("collateral show fetched.json").expect(0).stdout;
    assert!(shown.starts_with("NOT VERIFIED") && shown.contains("is valid for another"), "{shown}");
    assert_eq!(
        run("collateral show fetched.json --json").expect(0).json()["evaluation_number"],
        17
    );

    let yesterday = CollateralKnobs { issued_days_ago: 1, ..CollateralKnobs::default() };
    alice.write("yesterday.json", world.platform().collateral(&yesterday).to_json());
    run("collateral import yesterday.json --output fetched.json --policy policy.toml")
        .expect(REFUSED)
        .says("older one may hide newer findings");
    run("collateral import fetched.json --output taken.json --policy policy.toml").expect(0);

    // With a configuration of Intel's quote provider; errors say where.
    alice.write("qcnl.conf", format!("PCCS_URL={url}/sgx/certification/v3/\nRETRY_TIMES=0\n"));
    let qcnl = format!("collateral export --for {} --qcnl qcnl.conf {trusted}", service.address);
    run(&qcnl).expect(0).says("version 3 of the interface has been retired");
    alice.write("qcnl.conf", "{\n \"pccs_url\": \"http://x\"\n \"retry_times\": 1 }");
    run(&qcnl).expect(2).says("line 3");
    drop(pccs);
    run(&format!("{export} {trusted}")).expect(1).says("no collateral for FMSPC 00606a000000");
}

/// Runs a job and returns its parties.
fn finished(world: &World, what: &str) -> [Party; 2] {
    let service = world.serve();
    let parties = world.parties(["alice", "bob"]);
    let text = world.job(Some(&service), &parties).to_toml();
    let text = text.replace("what = \"intersection\"", &format!("what = \"{what}\""));
    let running = parties.each_ref().map(|party| {
        party.write("job.toml", &text);
        party.lines(&["a", "b"]);
        let output = if what == "count" { "" } else { "--output matched.txt" };
        world.run(party, &format!("--input ids.txt --receipt receipt.json {output}"))
    });
    for process in running {
        process.wait().expect(0);
    }
    parties
}

const RECEIPT: &str = "receipt.json";

#[test]
fn a_receipt_verifies_offline() {
    for what in ["intersection", "count"] {
        let world = World::new();
        let [alice, _] = finished(&world, what);
        let run = |args: &str| world.start_at(&alice, args).wait();
        let text = run(&format!("receipt verify {RECEIPT}")).expect(0).stdout;
        assert!(text.contains("the receipt holds: alice learned"), "{text}");
        assert!(text.contains("SIMULATED"), "{text}");
        assert!(text.contains("UNSIGNED, this party's word alone: its table had 2 rows"), "{text}");
        assert!(text.contains("2 keys") || text.contains("every party has: 2"), "{text}");
        // The reader's own policy, which accepts something else.
        let a = "1".repeat(64);
        let own = run(&format!("policy from-measurement --mr-enclave {a}")).expect(0).stdout;
        alice.write("own.toml", own);
        run(&format!("receipt verify {RECEIPT} --policy own.toml"))
            .expect(REFUSED)
            .says("[unknown-root]");
        // Years later, the platform may be gone with all of its files.
        fs::remove_dir_all(world.path("platform")).unwrap();
        let read = run(&format!("receipt verify {RECEIPT} --json")).expect(0).json();
        assert_eq!(read["party"], "alice");
        assert_eq!(read["verdict"]["mr_enclave"].as_str().unwrap().len(), 64);
    }
}

/// What only the party itself vouches for; the guide says so, and so does `receipt verify`.
const UNSIGNED: [&str; 9] = [
    "/input/",
    "/service/address",
    "/service/verdict/fresh",
    "/service/verdict/verified_at",
    "/service/verdict/expires",
    "/service/verdict/checks",
    "/times/started",
    "/times/finished",
    "/result/rows",
];

/// What is signed, the number of keys in an intersection included, cannot be changed.
#[test]
fn tampered_receipts() {
    tampered("count");
    tampered("intersection");
}

fn tampered(what: &str) {
    let world = World::new();
    let [alice, _] = finished(&world, what);
    let genuine: Value = serde_json::from_str(&alice.read(RECEIPT)).unwrap();
    let mut leaves = Vec::new();
    walk(&genuine, String::new(), &mut leaves);
    let mut tried = 0;
    for pointer in leaves {
        if UNSIGNED.iter().any(|unsigned| pointer.starts_with(unsigned)) {
            continue;
        }
        let mut tampered = genuine.clone();
        let leaf = tampered.pointer_mut(&pointer).unwrap();
        *leaf = changed(leaf);
        alice.write("tampered.json", tampered.to_string());
        let ended = world.start_at(&alice, "receipt verify tampered.json").wait();
        assert!([Some(2), Some(REFUSED)].contains(&ended.code), "{pointer} was not noticed");
        tried += 1;
    }
    assert!(tried > 20, "{tried}");
    let text = genuine.to_string();
    let twice = text.replacen('{', "{\"party\":\"bob\",", 1);
    let more = text.replacen('{', "{\"remark\":\"true\",", 1);
    let counted = text.replacen("\"input\":{", "\"input\":{\"remark\":1,", 1);
    for text in ["", "{}", "[]", "{\"form\":", &twice, &more, &counted] {
        alice.write("tampered.json", text);
        let ended = world.start_at(&alice, "receipt verify tampered.json").wait();
        ended.expect(2).says("no receipt");
    }
    let noted = text.replacen("\"verdict\":{", "\"verdict\":{\"remark\":\"true\",", 1);
    alice.write("tampered.json", noted);
    world
        .start_at(&alice, "receipt verify tampered.json")
        .wait()
        .expect(REFUSED)
        .says("noted verdict");
}

/// The party did not ask for a fresh quote, and says so in its receipt. Nobody signs that, and a reader is
/// told both.
#[test]
fn receipt_of_a_run_that_was_not_fresh() {
    let world = World::new();
    let [alice, _] = finished(&world, "intersection");
    let genuine = alice.read(RECEIPT);
    let verify = |text: String| {
        alice.write("noted.json", text);
        world.start_at(&alice, "receipt verify noted.json").wait().expect(0).stdout
    };
    let fresh = verify(genuine.clone());
    assert!(!fresh.contains("NOT FRESH") && fresh.contains("with a fresh quote"), "{fresh}");
    for noted in ["\"fresh\": false", "\"fresh\": null"] {
        let changed = genuine.replace("\"fresh\": true", noted);
        assert_ne!(changed, genuine);
        let stale = verify(changed);
        assert!(stale.contains("\nNOT FRESH: by its own word"), "{stale}");
    }
}

/// A receipt that holds, about a job that its writer made up: judged by the policy inside it, it says
/// nothing to whoever agreed on another job or accepts another program.
#[test]
fn receipt_about_a_job_that_its_writer_made_up() {
    let world = World::new();
    let [alice, _] = finished(&world, "intersection");
    let run = |args: &str| world.start_at(&alice, args).wait();
    let ended = run(&format!("receipt verify {RECEIPT}")).expect(0);
    assert!(ended.stdout.contains("which whoever wrote it chose: --job FILE"), "{}", ended.stdout);
    let read = run(&format!("receipt verify {RECEIPT} --json")).expect(0).json();
    assert_eq!(read["held_against"], json!({"job": false, "policy": false}));

    let ended = run(&format!("receipt verify {RECEIPT} --job job.toml")).expect(0);
    assert!(ended.stdout.contains("held against your job"), "{}", ended.stdout);
    let other = alice.read("job.toml").replace("deadline = \"", "deadline = \"1");
    alice.write("other.toml", other);
    run(&format!("receipt verify {RECEIPT} --job other.toml"))
        .expect(REFUSED)
        .says("the reader's job")
        .says("deadline: ");
    run(&format!("receipt verify {RECEIPT} --job job.toml --policy own.toml")).expect(2);
}

/// Nobody verified the service of this job, so a policy has nothing to be held against.
#[test]
fn policy_that_a_receipt_without_evidence_cannot_meet() {
    let world = World::new();
    world.start("keygen service").wait().expect(0);
    let service = world.serve_with(
        "--listen 127.0.0.1:0 --identity service.key --collateral platform/collateral.json",
    );
    let parties = world.parties(["alice", "bob"]);
    world.job(Some(&service), &parties).provider_only(service.key).give_to(&parties);
    let run = "--input ids.txt --output matched.txt --receipt receipt.json --simulated ../platform \
               --insecure-unattested";
    let running = parties.each_ref().map(|party| {
        party.lines(&["a"]);
        world.run(party, run)
    });
    for process in running {
        process.wait().expect(0);
    }
    let verify = |more: &str| {
        world.start_at(&parties[0], &format!("receipt verify {RECEIPT} {more}")).wait()
    };
    assert!(verify("").expect(0).stdout.contains("NOT ATTESTED"));
    parties[0].write("own.toml", world.service_policy());
    verify("--policy own.toml").expect(2).says("no policy can be applied");
}

/// The statement of the first version does not cover how many keys an intersection has: that number is
/// labelled, and everything else is verified as ever.
#[test]
fn a_receipt_of_the_first_version_is_still_read() {
    let world = World::new();
    let [alice] = world.parties(["alice"]);
    let vector = repository().join("vectors/receipts/version-1.json");
    let text = fs::read_to_string(vector).unwrap();
    alice.write(RECEIPT, &text);
    let verify = |more: &str| {
        world.start_at(&alice, &format!("receipt verify {RECEIPT} {more}")).wait().expect(0)
    };
    let shown = verify("").stdout;
    assert!(shown.contains("alice learned which of its own keys every party has\n"), "{shown}");
    let unsigned = shown.lines().find(|line| line.starts_with("UNSIGNED")).unwrap();
    assert!(unsigned.contains("3 keys matched; 3 rows matched"), "{unsigned}");
    let read = verify("--json").json();
    assert_eq!(read["result"], json!({"kind": "intersection", "keys": null}));
    assert_eq!(read["unsigned"]["keys"], 3);

    let mut changed: Value = serde_json::from_str(&text).unwrap();
    changed["form"] = json!("convelo/receipt/v2");
    alice.write(RECEIPT, changed.to_string());
    let refused = world.start_at(&alice, &format!("receipt verify {RECEIPT}")).wait().expect(2);
    refused.says("its statement is of another version");
}

/// Receipts were written before there was a choice of witnesses; they are still valid.
#[test]
fn a_receipt_that_names_no_witness_is_the_services() {
    let world = World::new();
    let [alice, _] = finished(&world, "count");
    let mut receipt: Value = serde_json::from_str(&alice.read(RECEIPT)).unwrap();
    assert_eq!(receipt.as_object_mut().unwrap().remove("witness"), Some(json!("service")));
    alice.write("first.json", receipt.to_string());
    let ended = world.start_at(&alice, "receipt verify first.json").wait();
    assert!(ended.expect(0).stdout.contains("the receipt holds: alice learned"));
}

fn walk(value: &Value, pointer: String, leaves: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                walk(field, format!("{pointer}/{name}"), leaves);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, format!("{pointer}/{index}"), leaves);
            }
        }
        _ => leaves.push(pointer),
    }
}

/// Another value of the same kind; texts are changed in the middle.
fn changed(value: &Value) -> Value {
    match value {
        Value::Bool(value) => json!(!value),
        Value::Number(value) => json!(value.as_u64().unwrap_or_default() + 1),
        Value::String(text) => {
            let middle = text.char_indices().nth(text.chars().count() / 2);
            let (at, old) = middle.unwrap_or((0, 'x'));
            let new = if old == '1' { '2' } else { '1' };
            json!(format!("{}{new}{}", &text[..at], text.get(at + old.len_utf8()..).unwrap_or("")))
        }
        _ => json!("1"),
    }
}
