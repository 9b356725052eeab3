use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::validation::is_address;
use super::*;
use crate::keys::{CALLING_CODES, Extension, Recipe, STEPS, TELEPHONE_VERSION, UNICODE_VERSION};
use crate::limits::{MAXIMUM_IGNORED, MAXIMUM_IGNORED_BYTES, MAXIMUM_KEYS};

const ALICE: &str = "sha256:00000000000000000000000000000000000000000000000000000000000000aa";
const BOB: &str = "sha256:00000000000000000000000000000000000000000000000000000000000000bb";
const CAROL: &str = "sha256:00000000000000000000000000000000000000000000000000000000000000cc";

fn example() -> String {
    format!(
        r#"# A comment.
version = 1
name = "spring-campaign"
mode = "attested"
deadline = "30m"
maximum_keys = 1000000

[service]
address = "psi.example.org:7443"
verify = "service"
[service.policy]
version = 1
tcb_statuses = ["UpToDate"]

[[key]]
name = "email"
normalise = ["email"]

[[key]]
name = "mobile"
normalise = ["phone:49"]
ignore = ["unknown", "0", "unknown"]

[reveal]
what = "intersection"
to = ["bob", "alice"]
minimum = 20

[[party]]
name = "bob"
key = "{BOB}"

[[party]]
name = "alice"
key = "{ALICE}"
maximum_keys = 5000
"#
    )
}

fn parsed(text: &str) -> Job {
    Job::from_toml(text).unwrap_or_else(|error| panic!("{error}"))
}

/// A job with different terms.
pub(crate) fn changed(job: &Job, change: impl FnOnce(&mut Terms)) -> Result<Job, JobError> {
    let mut terms = job.terms();
    change(&mut terms);
    Job::try_from(terms)
}

pub(crate) fn unpinned(parties: usize, maximum_keys: u64) -> Result<Job, JobError> {
    Job::unpinned("join", parties, maximum_keys, 60, terms::Service::default())
}

/// A job of parties with these names and keys.
pub(crate) fn named<'a>(parties: impl IntoIterator<Item = (&'a str, KeyId)>) -> Job {
    let party = |(name, key): (&str, _)| Party {
        name: name.to_owned(),
        key,
        maximum_keys: None,
        address: None,
    };
    let job = changed(&unpinned(2, 1000).unwrap(), |terms| {
        terms.service.as_mut().unwrap().policy = Some(serde_json::json!({}));
        terms.parties = Parties::Named(parties.into_iter().map(party).collect());
    });
    job.unwrap()
}

/// The example with this change must be refused with this text.
fn refused(change: impl Fn(&str) -> String, expected: &str) {
    let text = change(&example());
    assert_ne!(text, example(), "the change must change something: {expected}");
    let error = Job::from_toml(&text).expect_err(expected).to_string();
    assert!(error.starts_with(expected), "\nfound:    {error}\nexpected: {expected}");
}

fn replaced(old: &str, new: &str, expected: &str) {
    refused(|text| text.replacen(old, new, 1), expected);
}

#[test]
fn example_is_read() {
    let job = parsed(&example());
    assert_eq!(job.name(), "spring-campaign");
    assert_eq!(job.deadline_seconds(), 1800);
    assert_eq!(job.parties().count(), 2);
    assert_eq!(job.maximum_keys_of("alice"), 5000);
    assert_eq!(job.maximum_keys_of("bob"), 1_000_000);
    assert_eq!(
        job.keys()[1].normalise,
        [Step::Phone { country: Some(49), extension: Extension::Refuse }]
    );
    assert_eq!(job.party_of_key(&BOB.parse().unwrap()).unwrap().name, "bob");
    assert!(job.party_of_key(&CAROL.parse().unwrap()).is_none());
}

/// The canonical form and digest of a job are a promise to every other build and implementation.
#[test]
fn canonical_form_and_digest_vector() {
    let job = parsed(&example());
    let canonical = format!(
        r#"{{"deadline_seconds":1800,"keys":[{{"name":"email","normalise":["email"]}},{{"ignore":["0","unknown"],"name":"mobile","normalise":["phone:49"]}}],"maximum_keys":1000000,"mode":"attested","name":"spring-campaign","parties":{{"named":[{{"key":"{ALICE}","maximum_keys":5000,"name":"alice"}},{{"key":"{BOB}","name":"bob"}}]}},"recipe":{{"telephone":"{TELEPHONE_VERSION}","unicode":"{UNICODE_VERSION}","version":2}},"reveal":{{"minimum":20,"to":["alice","bob"],"what":"intersection"}},"service":{{"address":"psi.example.org:7443","policy":{{"tcb_statuses":["UpToDate"],"version":1}},"verify":"service"}},"version":1}}"#
    );
    assert_eq!(job.canonical(), canonical);
    assert_eq!(
        job.digest().to_string(),
        "58b0f7acfac88fcf1d833651d32df201cdbd409d50454816e796b1002bd36507"
    );
    assert_eq!(job.digest().short(), "58b0f7acfac8");

    let service = terms::Service { verify: terms::Verify::TwoWay, ..terms::Service::default() };
    let unpinned = Job::unpinned("join", 3, 1000, 60, service).expect("valid");
    assert_eq!(
        unpinned.canonical(),
        format!(
            r#"{{"deadline_seconds":60,"keys":[{{"name":"id","normalise":["trim"]}}],"maximum_keys":1000,"mode":"attested","name":"join","parties":{{"open":{{"count":3}}}},"recipe":{{"unicode":"{UNICODE_VERSION}","version":2}},"reveal":{{"minimum":0,"to":[],"what":"intersection"}},"service":{{"verify":"two-way"}},"version":1}}"#
        )
    );
}

#[test]
fn order_and_spelled_out_defaults_do_not_change_the_digest() {
    let everybody = example().replace("to = [\"bob\", \"alice\"]\n", "");
    assert_eq!(parsed(&everybody).digest(), parsed(&example()).digest());
    let sorted = example().replace("[\"bob\", \"alice\"]", "[\"alice\", \"bob\"]");
    assert_eq!(parsed(&sorted).digest(), parsed(&example()).digest());
    let no_verify = example().replace("verify = \"service\"\n", "");
    assert_eq!(parsed(&no_verify).digest(), parsed(&example()).digest());
    let crlf = example().replace('\n', "\r\n");
    assert_eq!(parsed(&format!("\u{feff}{crlf}")).digest(), parsed(&example()).digest());
}

#[test]
fn every_field_changes_the_digest() {
    let terms = parsed(&example()).terms();
    let changes: [fn(&mut Terms); 21] = [
        |terms| terms.name.push('x'),
        |terms| terms.deadline_seconds += 1,
        |terms| terms.maximum_keys += 1,
        |terms| terms.pad_keys_to = Some(1000),
        |terms| terms.canaries = Some(20),
        |terms| terms.service.as_mut().unwrap().address = None,
        |terms| terms.service.as_mut().unwrap().verify = terms::Verify::TwoWay,
        |terms| terms.service.as_mut().unwrap().key = Some(KeyId([7; 32])),
        |terms| {
            terms.service.as_mut().unwrap().key_exchange = Some(terms::KeyExchange::X25519MlKem768);
        },
        |terms| terms.service.as_mut().unwrap().policy = Some(serde_json::json!({"version": 2})),
        |terms| terms.provider_policy = Some(serde_json::json!({})),
        |terms| terms.keys.swap(0, 1),
        |terms| terms.keys[0].normalise.push(Step::Trim),
        |terms| terms.keys[0].ignore.push("none".to_owned()),
        |terms| terms.recipe = None,
        |terms| terms.recipe.as_mut().unwrap().telephone = Some("1.2.3".to_owned()),
        |terms| terms.reveal.what = What::Count,
        |terms| terms.reveal.to.truncate(1),
        |terms| terms.reveal.minimum += 1,
        |terms| terms.parties = Parties::Unpinned { count: 2 },
        |terms| terms.shard = Some(Shard { number: 0 }),
    ];
    for (index, change) in changes.iter().enumerate() {
        let mut changed = terms.clone();
        change(&mut changed);
        assert_ne!(changed.canonical(), terms.canonical(), "change {index}");
        assert!(!compare::differences(&terms, &changed).is_empty(), "change {index}");
    }
}

#[test]
fn syntax_and_unknown_keys_are_refused_with_their_place() {
    replaced("mode =", "mode", "line 4, column 6: ");
    replaced("minimum = 20", "minimun = 20", "line 27, column 1: unknown field `minimun`");
    replaced("\"intersection\"", "\"difference\"", "line 25, column 8: unknown variant");
    replaced("maximum_keys = 1000000", "maximum_keys = -1", "line 6, column 16: invalid value");
    replaced("minimum = 20", "minimum = \"ö\"\nwhat = 3", "line 28, column 1: duplicate key");
    replaced("\n[service]\n", "\n[extra]\n[service]\n", "line 8, column 2: unknown field `extra`");
}

#[test]
fn missing_fields_are_named_with_what_to_write() {
    replaced("version = 1\n", "", "version is missing: add version = 1");
    replaced("name = \"spring-campaign\"\n", "", "name is missing: add name = ");
    replaced("mode = \"attested\"\n", "", "mode is missing: add mode = \"attested\"");
    replaced("deadline = \"30m\"\n", "", "deadline is missing: add deadline = \"30m\"");
    replaced("maximum_keys = 1000000\n", "", "maximum_keys is missing: add maximum_keys");
    replaced("name = \"email\"\n", "", "line 15, column 1: key[0].name is missing: add name");
    replaced("normalise = [\"phone:49\"]\n", "", "line 19, column 1: key[1].normalise is missing");
    replaced(
        "what = \"intersection\"\n",
        "",
        "line 24, column 1: reveal.what is missing: add what",
    );
    replaced("name = \"bob\"\n", "", "line 29, column 1: party[0].name is missing: add name");
    let key = format!("key = \"{BOB}\"\n");
    replaced(&key, "", "line 29, column 1: party[0].key is missing: add key = \"sha256:...\"");
    refused(
        |text| text.split("[reveal]").next().unwrap().to_owned(),
        "reveal is missing: add what",
    );
}

#[test]
fn values_out_of_range_are_refused_with_their_place() {
    replaced("version = 1", "version = 2", "line 2, column 11: version is 2, expected 1: use");
    replaced("version = 1", "version = 1.0", "line 2, column 11: version is 1.0, expected 1");
    replaced("spring-campaign", "spring campaign", "line 3, column 8: name is \"spring campaign\"");
    replaced("spring-campaign", &"x".repeat(65), "line 3, column 8: name is \"xxxx");
    for wrong in ["30", "m", "", "1h30m", "-1s", "+1s", "1.5h", "30 m", "99999999999999999999d"] {
        replaced("30m", wrong, &format!("line 5, column 12: deadline is \"{wrong}\", expected"));
    }
    replaced("30m", "0s", "line 5, column 12: deadline is 0 seconds, expected 1 to 604800");
    replaced("30m", "8d", "line 5, column 12: deadline is 691200 seconds");
    replaced("30m", "30ö", "line 5, column 12: deadline is \"30ö\"");
    replaced(
        "maximum_keys = 1000000",
        "maximum_keys = 1\npad_keys_to = 0",
        "line 7, column 15: pad_keys_to is 0",
    );
    replaced("maximum_keys = 1000000", "maximum_keys = 0", "line 6, column 16: maximum_keys is 0");
    replaced(
        "maximum_keys = 5000",
        "maximum_keys = 4294967297",
        "line 36, column 16: party[1].maximum_keys is 4294967297 keys",
    );
    replaced("\"phone:49\"", "\"phone:+49\"", "line 21, column 14: there is no normalisation step");
    replaced(
        "\"phone:49\"",
        "\"phone:999\"",
        "line 21, column 14: no country has the calling code 999",
    );
    let long = format!("\"0\", \"{}\"", "x".repeat(MAXIMUM_IGNORED_BYTES + 1));
    replaced("\"0\"", &long, "line 22, column 27: key[1].ignore has a value of 257 bytes");
    replaced("\"0\"", "\"\"", "line 22, column 22: key[1].ignore has a value of 0 bytes");
    let many = "\"0\", ".repeat(MAXIMUM_IGNORED);
    replaced(
        "\"0\"",
        &(many + "\"1\""),
        "line 22, column 10: key part \"mobile\" ignores 67 values",
    );
    let steps = "\"trim\",".repeat(9);
    replaced(
        "[\"email\"]",
        &format!("[{steps}]"),
        "line 17, column 13: key part \"email\" has 9 normalisation steps",
    );
    replaced("\"mobile\"", "\"email\"", "line 20, column 8: two key parts are called \"email\"");
    replaced("org:7443", "org", "line 9, column 11: service.address is \"psi.example.org\"");
    replaced("minimum = 20", "minimum = 5001", "line 27, column 11: reveal.minimum is 5001");
    replaced("\"bob\", \"alice\"", "", "line 26, column 6: reveal.to is empty");
    replaced(
        "\"bob\", \"alice\"",
        "\"bob\", \"eve\"",
        "line 26, column 14: reveal.to names \"eve\"",
    );
    replaced(
        "\"bob\", \"alice\"",
        "\"bob\", \"bob\"",
        "line 26, column 14: reveal.to names \"bob\" t",
    );
    replaced("name = \"alice\"", "name = \"bob\"", "line 34, column 8: two parties are called");
    replaced(ALICE, BOB, "line 35, column 7: \"bob\" and \"alice\" have the same key");
    replaced(ALICE, "sha256:AA", "line 35, column 7: party[1].key: \"sha256:AA\" is not a key");
    replaced("version = 1\ntcb", "version = 1.5\ntcb", "line 11, column 1: service.policy.version");
    replaced("version = 1\ntcb", "day = 2026-11-21\ntcb", "line 11, column 1: service.policy.day");
    replaced(
        "version = 1\ntcb",
        "version = 9007199254740992\ntcb",
        "line 11, column 1: service.policy.version is 9007199254740992",
    );
}

#[test]
fn addresses() {
    for address in ["psi.example.org:7443", "127.0.0.1:1", "[::1]:65535", "localhost:80"] {
        assert!(is_address(address), "{address}");
    }
    for address in ["", ":80", "host", "host:", "host:0", "host:65536", "::1:80", "a b:80", "h:+8"]
    {
        assert!(!is_address(address), "{address}");
    }
}

#[test]
fn number_of_parties() {
    refused(
        |text| text.split("[[party]]").next().unwrap().replace("to = [\"bob\", \"alice\"]\n", ""),
        "the job has 0 parties, expected 2 to 64: write a [[party]] for each",
    );
    replaced(
        "maximum_keys = 1000000",
        "maximum_keys = 1000000\nunpinned_parties = 2",
        "line 7, column 20: the job has [[party]] and unpinned_parties",
    );
    for (count, valid) in [(1, false), (2, true), (64, true), (65, false)] {
        assert_eq!(unpinned(count, 1000).is_ok(), valid, "{count} parties");
    }
}

#[test]
fn unpinned_parties_in_a_file() {
    let text = r#"
        version = 1
        name = "join"
        mode = "attested"
        deadline = "1m"
        maximum_keys = 1000
        unpinned_parties = 3
        [[key]]
        name = "id"
        normalise = ["trim"]
        [reveal]
        what = "intersection"
    "#;
    assert_eq!(parsed(text), unpinned(3, 1000).unwrap());
    let to = text.replace("\"intersection\"", "\"intersection\"\nto = [\"alice\"]");
    let error = Job::from_toml(&to).unwrap_err().to_string();
    assert!(error.starts_with("line 13, column 6: reveal.to names parties of a job"), "{error}");
}

#[test]
fn whose_evidence_needs_which_policy() {
    let two_way = "verify = \"two-way\"";
    replaced("verify = \"service\"", two_way, "the job has no [provider.policy]");
    let provider = "verify = \"provider\"";
    replaced("verify = \"service\"", provider, "line 11, column 1: service.policy is given, but");
    replaced("[service.policy]\n", "[provider.policy]\n", "line 11, column 1: provider.policy is");
    refused(
        |text| {
            text.replace("[service.policy]\n", "[provider.policy]\n")
                .replace("verify = \"service\"", provider)
        },
        "line 8, column 1: the job has no service.key",
    );
    replaced(
        "[service.policy]\nversion = 1\ntcb_statuses = [\"UpToDate\"]\n",
        "",
        "line 8, column 1: the job has no [service.policy]",
    );
    replaced(
        "[service.policy]\nversion = 1\ntcb_statuses = [\"UpToDate\"]\n",
        "policy = 3\n",
        "line 11, column 10: service.policy is not a table",
    );

    let key = format!("verify = \"provider\"\nkey = \"{CAROL}\"");
    let provider = example()
        .replace("[service.policy]", "[provider.policy]")
        .replace("verify = \"service\"", &key);
    let provider_policy = serde_json::json!({"version": 1, "tcb_statuses": ["UpToDate"]});
    let provider = parsed(&provider);
    let service = provider.service().unwrap();
    assert!(matches!(service.verify, Verify::Provider { .. }));
    assert_eq!(service.provider_policy().unwrap().read(), provider_policy);
    assert_eq!((service.key, service.policy()), (Some(CAROL.parse().unwrap()), None));
    let two_way = example().replace("verify = \"service\"", two_way) + "[provider.policy]\na = 1\n";
    let two_way = parsed(&two_way);
    let service = two_way.service().unwrap();
    assert!(matches!(service.verify, Verify::TwoWay { .. }));
    assert_eq!(service.policy().unwrap().read()["version"], 1);
    assert_eq!(service.provider_policy().unwrap().read(), serde_json::json!({"a": 1}));
}

#[test]
fn too_large_jobs_are_refused() {
    let padding = format!("# {}\n", "x".repeat(crate::limits::MAXIMUM_JOB_FILE_BYTES));
    refused(|text| padding.clone() + text, "the job file has 26");
    let long = format!("note = \"{}\"\n[[key]]", "x".repeat(MAXIMUM_JOB_BYTES));
    replaced("\n[[key]]", &long, "the job has 6");
    let bytes = vec![b' '; MAXIMUM_JOB_BYTES + 1];
    let error = Job::from_canonical(&bytes).unwrap_err().to_string();
    assert!(error.starts_with("the job has 65537 bytes"), "{error}");
}

#[test]
fn deeply_nested_policy_is_refused() {
    let deep = format!("deep = {}{}\n[[key]]", "[".repeat(20), "]".repeat(20));
    replaced("\n[[key]]", &deep, "line 11, column 1: service.policy.deep[0]");
    let hostile = format!("{{\"version\":{}", "[".repeat(60_000));
    assert!(Job::from_canonical(hostile.as_bytes()).is_err());
}

#[test]
fn other_forms_than_the_canonical_one_are_refused() {
    let job = parsed(&example());
    let canonical = job.canonical().to_owned();
    assert!(Job::from_canonical(canonical.as_bytes()).is_ok());
    let unknown = canonical.replacen('{', "{\"aaa\":1,", 1);
    let unknown_party = canonical.replace("\"name\":\"bob\"", "\"name\":\"bob\",\"role\":1");
    let invalid = canonical.replace("\"minimum\":20", "\"minimum\":5001");
    let unsorted = canonical.replace("[\"alice\",\"bob\"]", "[\"bob\",\"alice\"]");
    let implied = canonical.replace("[\"alice\",\"bob\"]", "[]");
    let null = canonical.replacen("\"parties\"", "\"provider_policy\":null,\"parties\"", 1);
    let repeated = canonical.replace("\"policy\":{", "\"policy\":{\"tcb_statuses\":[],");
    let number = canonical.replace("\"minimum\":20", "\"minimum\":2e1");
    let escape = canonical.replace("UpToDate", "\\u0055pToDate");
    for text in [
        format!(" {canonical}"),
        format!("{canonical}\n"),
        format!("{canonical}{canonical}"),
        unknown,
        unknown_party,
        invalid,
        unsorted,
        implied,
        null,
        repeated,
        number,
        escape,
        canonical[..canonical.len() - 1].to_owned(),
        String::new(),
    ] {
        assert_ne!(text, canonical);
        assert!(Job::from_canonical(text.as_bytes()).is_err(), "{text}");
    }
}

/// A job as programs of recipe 1 wrote it; receipts still hold such jobs.
#[test]
fn a_job_of_recipe_1_is_read_and_not_run() {
    let text = r#"{"deadline_seconds":60,"keys":[{"name":"tel","normalise":["phone:999"]}],"maximum_keys":1000,"mode":"attested","name":"join","parties":{"open":{"count":2}},"reveal":{"minimum":0,"to":[],"what":"intersection"},"service":{"verify":"service"},"version":1}"#;
    let job = Job::from_canonical(text.as_bytes()).unwrap();
    assert_eq!((job.recipe(), job.canonical()), (None, text));
    assert_eq!(job.digest().0.as_slice(), Sha256::digest(text).as_slice());
    let error = job.check_recipe().unwrap_err().to_string();
    let expected = format!(
        "the job's keys are normalised by recipe 1, and this program applies recipe 2 (Unicode \
         {UNICODE_VERSION}, telephone numbers {TELEPHONE_VERSION}): all parties need programs with \
         the same recipe"
    );
    assert_eq!(error, expected);
    assert!(parsed(&example()).check_recipe().is_ok());
    let ignoring = text.replace(r#"{"name":"tel""#, r#"{"ignore":["x"],"name":"tel""#);
    assert!(Job::from_canonical(ignoring.as_bytes()).is_err());
}

#[test]
fn another_recipe_is_another_job_and_said_to_be() {
    let here = parsed(&example());
    let with = |recipe: Recipe| changed(&here, |terms| terms.recipe = Some(recipe));
    let recipe = Recipe { telephone: Some("1.2.3".to_owned()), ..here.recipe().unwrap().clone() };
    let there = with(recipe.clone()).unwrap();
    let ours =
        format!("recipe 2 (Unicode {UNICODE_VERSION}, telephone numbers {TELEPHONE_VERSION})");
    let theirs = format!("recipe 2 (Unicode {UNICODE_VERSION}, telephone numbers 1.2.3)");
    assert_eq!(here.differences(&there), [format!("recipe: {ours} here, {theirs} there")]);
    assert!(there.check_recipe().is_err());
    assert!(Job::from_canonical(there.canonical().as_bytes()).is_ok());
    for wrong in [
        Recipe { version: 1, ..recipe.clone() },
        Recipe { unicode: "\n".to_owned(), ..recipe.clone() },
        Recipe { telephone: Some("x".repeat(1000)), ..recipe },
    ] {
        assert!(with(wrong).unwrap_err().to_string().starts_with("recipe is none that"));
    }
}

#[test]
fn differences_are_told_field_by_field() {
    let here = parsed(&example());
    assert!(here.differences(&here).is_empty());
    let there = changed(&here, |terms| {
        terms.reveal.minimum = 10;
        terms.reveal.to = vec!["alice".to_owned()];
        terms.deadline_seconds = 60;
        terms.service.as_mut().unwrap().policy = Some(serde_json::json!({"secret": "text"}));
        terms.service.as_mut().unwrap().address = None;
        terms.keys[0].normalise = vec![Step::Trim, Step::Lowercase];
        terms.keys[1].ignore.clear();
        terms.parties = Parties::Named(vec![
            Party {
                name: "alice".to_owned(),
                key: ALICE.parse().unwrap(),
                maximum_keys: None,
                address: None,
            },
            Party {
                name: "carol".to_owned(),
                key: CAROL.parse().unwrap(),
                maximum_keys: None,
                address: None,
            },
        ]);
    });
    let there = there.unwrap();
    assert_eq!(
        here.differences(&there),
        [
            "deadline: 1800 s here, 60 s there",
            "service.address: psi.example.org:7443 here, none there",
            "service.policy differs",
            "key email.normalise: [email] here, [trim, lowercase] there",
            "key mobile.ignore differs",
            "reveal.to: alice, bob here, alice there",
            "reveal.minimum: 20 here, 10 there",
            "party alice.maximum_keys: 5000 here, none there",
            "party bob: here, not there",
            "party carol: there, not here",
        ]
    );
    let swapped = changed(&here, |terms| terms.keys.swap(0, 1)).unwrap();
    assert_eq!(here.differences(&swapped), ["key parts: email, mobile here, mobile, email there"]);
    let unpinned = changed(&here, |terms| {
        terms.parties = Parties::Unpinned { count: 3 };
        terms.reveal.to.clear();
    });
    assert_eq!(
        here.differences(&unpinned.unwrap()).last().unwrap(),
        "parties: 2 named here, 3 unpinned there"
    );
}

#[test]
fn who_learns() {
    let to = |to: &[&str]| {
        let to = to.iter().map(|name| (*name).to_owned()).collect();
        changed(&parsed(&example()), |terms| terms.reveal.to = to).unwrap()
    };
    assert!(to(&["alice"]).learns("alice") && !to(&["alice"]).learns("bob"));
    assert!(to(&[]).learns("alice") && to(&[]).learns("bob"));
    assert_eq!(to(&[]).reveal().to, ["alice", "bob"]);
}

#[test]
fn false_match_bound() {
    let bound = |parties, keys| unpinned(parties, keys).unwrap().false_match_bound_log2();
    // q = 2^21, 5 m^2 + 1 = 327681: 42 + 18.3219 - 128.
    assert!((bound(2, 1 << 20) - -67.678).abs() < 0.001, "{}", bound(2, 1 << 20));
    assert!((bound(4, 1 << 20) - bound(2, 1 << 20) - 2.0).abs() < 1e-6);
    let job = parsed(&example());
    assert!((job.false_match_bound_log2() - (1_005_000f64.log2() * 2.0 - 109.678)).abs() < 0.001);
}

#[test]
fn texts_of_keys_and_digests() {
    let id = KeyId::of_spki(b"abc");
    let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(id.to_string(), text);
    assert_eq!(text.parse::<KeyId>().unwrap(), id);
    for wrong in [&text[7..], &text.to_uppercase(), &text[..70], ""] {
        assert!(wrong.parse::<KeyId>().is_err(), "{wrong}");
    }
    let digest: JobDigest = text[7..].parse().unwrap();
    assert_eq!(digest.to_string(), text[7..]);
    assert_eq!(digest.short(), "ba7816bf8f01");
    assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{}\"", &text[7..]));
}

fn name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9._-]{1,12}"
}

fn json(depth: u32) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<String>().prop_map(Value::String),
        (-9_007_199_254_740_991i64..9_007_199_254_740_992).prop_map(Value::from),
    ];
    leaf.prop_recursive(depth, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn policy() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map(any::<String>(), json(3), 0..4)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
}

fn step() -> impl Strategy<Value = Step> {
    let codes = prop::sample::select(CALLING_CODES.as_slice());
    prop_oneof![
        prop::sample::select(STEPS.as_slice()).prop_map(|step| step.parse().expect("a step")),
        codes.prop_map(|code| format!("phone:{code}").parse().expect("a step")),
    ]
}

prop_compose! {
    fn service()(
        verify in prop_oneof![
            Just(terms::Verify::Service),
            Just(terms::Verify::TwoWay),
            Just(terms::Verify::Provider),
        ],
        address in proptest::option::of("[a-z]{1,9}(\\.[a-z]{1,9}){0,2}:[1-9][0-9]{0,3}"),
        key in any::<[u8; 32]>(),
        pinned in any::<bool>(),
        service_policy in policy(),
        provider_policy in policy(),
    ) -> (terms::Service, Option<Value>) {
        let key = (pinned || verify == terms::Verify::Provider).then_some(KeyId(key));
        let policy = (verify != terms::Verify::Provider).then_some(service_policy);
        let provider_policy = (verify != terms::Verify::Service).then_some(provider_policy);
        let default = terms::Service::default();
        let service = terms::Service { address, verify, key, policy, ..default };
        (service, provider_policy)
    }
}

prop_compose! {
    fn terms()(
        name in name(),
        deadline_seconds in 1u64..=604_800,
        maximum_keys in 1u64..=1 << 32,
        pad_keys_to in proptest::option::weighted(0.3, any::<prop::sample::Index>()),
        (service, provider_policy) in service(),
        keys in proptest::collection::btree_map(
            name(),
            (proptest::collection::vec(step(), 0..4), proptest::collection::vec("\\PC{1,9}", 0..3)),
            1..5),
        what in prop_oneof![Just(What::Intersection), Just(What::Count)],
        minimum in any::<prop::sample::Index>(),
        learns in proptest::collection::vec(any::<bool>(), 6),
        parties in proptest::collection::btree_map(
            name(), (any::<[u8; 32]>(), proptest::option::of(1u64..=1 << 32)), 2..6),
        reversed in any::<bool>(),
        open in proptest::option::weighted(0.2, 2usize..=64),
    ) -> Terms {
        let mut parties: Vec<_> = parties.into_iter().map(|(name, (key, maximum_keys))| {
            Party { name, key: KeyId(key), maximum_keys, address: None }
        }).collect();
        let mut to: Vec<_> = parties.iter().zip(learns).filter(|(_, learns)| *learns)
            .map(|(party, _)| party.name.clone()).collect();
        if reversed {
            parties.reverse();
            to.reverse();
        }
        let smallest = parties.iter().map(|party| party.maximum_keys.unwrap_or(maximum_keys))
            .chain([maximum_keys]).min().unwrap();
        let below = |index: prop::sample::Index| {
            index.index(usize::try_from(smallest).unwrap()) as u64
        };
        let (minimum, pad_keys_to) = (below(minimum), pad_keys_to.map(|step| below(step) + 1));
        let (parties, to) = match open {
            Some(count) => (Parties::Unpinned { count }, Vec::new()),
            None => (Parties::Named(parties), to),
        };
        let keys: Vec<_> = keys.into_iter().map(|(name, (normalise, ignore))| {
            KeyPart { name, normalise, ignore }
        }).collect();
        Terms {
            version: 1, name, mode: terms::Mode::Attested, deadline_seconds, maximum_keys, pad_keys_to,
            canaries: None,
            service: Some(service), provider_policy,
            recipe: Some(Recipe::of(&keys)),
            keys,
            reveal: Reveal { what, to, minimum },
            parties,
            shard: None,
        }
    }
}

/// A job over this many services.
fn sharded(services: usize) -> Job {
    let addresses = (0..services).map(|host| format!("psi-{host}.example.org:7443")).collect();
    let service = terms::Service { addresses, ..terms::Service::default() };
    Job::unpinned("test", 2, 1000, 60, service).unwrap()
}

#[test]
fn a_job_over_several_services() {
    let job = sharded(4);
    assert_eq!((job.services(), job.shards().len()), (4, 4));
    let mut digests = vec![job.digest()];
    for (number, shard) in job.shards().into_iter().enumerate() {
        let read = Job::from_canonical(shard.canonical().as_bytes()).unwrap();
        assert_eq!((read.shard(), read.terms()), (Some(Shard { number }), shard.terms()));
        assert_eq!(changed(&job, |terms| terms.shard = Some(Shard { number })).unwrap(), shard);
        assert_eq!(shard.canonical(), read.canonical());
        digests.push(shard.digest());
        assert_eq!(shard.sent(100), job.sent(100));
    }
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), 5);
    let one = unpinned(2, 1000).unwrap();
    assert_eq!(one.shards(), std::slice::from_ref(&one));
    let service = job.differences(&one).remove(1);
    assert!(service.starts_with("service.addresses: psi-0.example.org:7443, "), "{service}");
}

/// The canonical form and digest of a shard are a promise to every other build, too.
#[test]
fn shard_vector() {
    let shard = sharded(2).shards().remove(1);
    assert_eq!(
        shard.canonical(),
        format!(
            r#"{{"deadline_seconds":60,"keys":[{{"name":"id","normalise":["trim"]}}],"maximum_keys":1000,"mode":"attested","name":"test","parties":{{"open":{{"count":2}}}},"recipe":{{"unicode":"{UNICODE_VERSION}","version":2}},"reveal":{{"minimum":0,"to":[],"what":"intersection"}},"service":{{"addresses":["psi-0.example.org:7443","psi-1.example.org:7443"],"verify":"service"}},"shard":{{"number":1}},"version":1}}"#
        )
    );
}

#[test]
fn what_a_job_over_several_services_cannot_have() {
    let refused = |change: fn(&mut Terms), text: &str| {
        let error = changed(&sharded(2), change).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    };
    refused(
        |terms| drop(terms.service.as_mut().unwrap().addresses.pop()),
        "has 1 services, expected 2, 4, 8 or 16",
    );
    refused(
        |terms| terms.service.as_mut().unwrap().addresses.push("c:1".to_owned()),
        "has 3 services",
    );
    refused(
        |terms| terms.service.as_mut().unwrap().addresses[1] = "nowhere".to_owned(),
        "expected host:port",
    );
    refused(
        |terms| {
            terms.service.as_mut().unwrap().addresses[1] =
                terms.service.as_mut().unwrap().addresses[0].clone();
        },
        "is listed twice",
    );
    refused(
        |terms| terms.service.as_mut().unwrap().address = Some("a:1".to_owned()),
        "next to service.addresses",
    );
    refused(
        |terms| terms.service.as_mut().unwrap().key = Some(KeyId([1; 32])),
        "service.key names one service",
    );
    refused(
        |terms| terms.service.as_mut().unwrap().verify = terms::Verify::Provider,
        "service.key names one service",
    );
    refused(|terms| terms.reveal.what = What::Count, "a number for each shard");
    refused(|terms| terms.reveal.minimum = 1, "every service sees only its own shard");
    refused(|terms| terms.shard = Some(Shard { number: 2 }), "no service for this shard");
    let one = unpinned(2, 1000).unwrap();
    assert!(changed(&one, |terms| terms.shard = Some(Shard { number: 0 })).is_err());
}

/// A cap of 20 keys let a dishonest party send 384 to 16 services, and with padding as many as it
/// liked.
#[test]
fn cap_that_bounds_far_less_than_it_says() {
    let with = |services: usize, cap: u64, step: Option<u64>| {
        let addresses = (0..if services == 1 { 0 } else { services })
            .map(|host| format!("psi-{host}.example.org:7443"));
        let addresses = addresses.collect();
        let service = terms::Service { addresses, ..terms::Service::default() };
        let mut terms = unpinned(2, 1 << 20).unwrap().terms();
        (terms.service, terms.maximum_keys, terms.pad_keys_to) = (Some(service), cap, step);
        Job::try_from(terms)
    };
    let error = with(16, 20, None).unwrap_err();
    assert_eq!(error.field, "maximum_keys");
    assert!(error.to_string().contains("384 distinct keys, 19.2 times"), "{error}");
    let error = with(1, 20, Some(1000)).unwrap_err().to_string();
    assert!(error.contains("1000 distinct keys, 50.0 times"), "{error}");
    for services in [2, 4, 8, 16] {
        let caps = (1..2000).filter(|cap| with(services, *cap, None).is_ok());
        for cap in caps.chain([1 << 32]) {
            let job = with(services, cap, None).unwrap();
            let most = job.most_keys_of("alice");
            assert_eq!(most, services as u64 * job.sent(cap));
            assert!((cap..=2 * cap).contains(&most), "{services} services, a cap of {cap}: {most}");
        }
    }
    // A party's own cap counts as well.
    let keys = ["alice", "bob"].into_iter().zip([KeyId([1; 32]), KeyId([2; 32])]);
    let own = changed(&named(keys), |terms| {
        let Parties::Named(parties) = &mut terms.parties else { panic!("named") };
        (parties[1].maximum_keys, terms.pad_keys_to) = (Some(10), Some(100));
    });
    assert_eq!(own.unwrap_err().field, "party[1].maximum_keys");
    assert_eq!(unpinned(2, 1).unwrap().most_keys_of("alice"), 1);
}

#[test]
fn canaries_of_a_job() {
    let with = |canaries, change: fn(&mut Terms)| {
        changed(&unpinned(3, 1000).unwrap(), |terms| {
            terms.canaries = Some(canaries);
            change(terms);
        })
    };
    let job = with(50, |_| {}).unwrap();
    assert_eq!((job.canaries(), job.canaries_of_a_party(), job.sent(100)), (50, 200, 300));
    let padded = with(50, |terms| terms.pad_keys_to = Some(100)).unwrap();
    assert_eq!(padded.sent(101), 400);
    let refused = |canaries, change: fn(&mut Terms), text: &str| {
        let error = with(canaries, change).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    };
    refused(19, |_| {}, "canaries is 19 of each pattern, expected 20 to 65536");
    refused(65_537, |_| {}, "expected 20 to 65536");
    refused(20, |terms| terms.reveal.what = What::Count, "does not show which keys");
    // A dishonest party could send keys in their place.
    refused(300, |_| {}, "2200 distinct keys");
}

#[test]
fn sizes_are_padded_to_a_multiple() {
    let job = unpinned(2, 1000).unwrap();
    assert_eq!([0, 1, 999].map(|keys| job.padded(keys)), [0, 1, 999]);
    let to = |step: u64| {
        let change = |terms: &mut Terms| {
            (terms.pad_keys_to, terms.maximum_keys) = (Some(step), step.max(1000));
        };
        changed(&job, change).unwrap()
    };
    let keys = [0, 1, 100, 101, 1000].map(|keys| to(100).padded(keys));
    assert_eq!(keys, [100, 100, 100, 200, 1000]);
    assert_eq!([0, 1 << 32].map(|keys| to(MAXIMUM_KEYS).padded(keys)), [1 << 32; 2]);
    assert_eq!(to(MAXIMUM_KEYS).padded(u64::MAX), u64::MAX);
}

proptest! {
    #[test]
    fn canonical_form_round_trip(terms in terms()) {
        let count = terms.parties.count();
        let job = Job::try_from(terms);
        prop_assert!(job.is_ok(), "{job:?}");
        let job = job.unwrap();
        let read = Job::from_canonical(job.canonical().as_bytes()).unwrap();
        prop_assert_eq!(read.canonical(), job.canonical());
        prop_assert_eq!(read.digest(), job.digest());
        prop_assert!(job.differences(&read).is_empty());
        prop_assert_eq!(read.parties().count(), count);
        prop_assert_eq!(read.terms(), job.terms());
    }

    #[test]
    fn differences_are_empty_only_for_one_digest(a in terms(), b in terms()) {
        let (a, b) = (Job::try_from(a).unwrap(), Job::try_from(b).unwrap());
        prop_assert_eq!(a.differences(&b).is_empty(), a.digest() == b.digest());
    }

    #[test]
    fn changed_byte_is_another_job_or_none(
        terms in terms(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let job = Job::try_from(terms).unwrap();
        let mut bytes = job.canonical().as_bytes().to_vec();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        if let Ok(read) = Job::from_canonical(&bytes) {
            prop_assert_ne!(read.digest(), job.digest());
        }
    }

    #[test]
    fn any_text_is_refused_without_panic(text in any::<String>()) {
        prop_assert!(Job::from_toml(&text).is_err());
        prop_assert!(Job::from_canonical(text.as_bytes()).is_err());
    }

    #[test]
    fn mangled_file_is_refused_or_read_without_panic(
        at in any::<prop::sample::Index>(),
        insert in "[\\[\\]\"=.#\n{}a1é]{0,4}",
        cut in 0usize..5,
    ) {
        let text = example();
        let at = at.index(text.len());
        let end = (at + cut).min(text.len());
        let mangled = format!("{}{insert}{}", &text[..at], &text[end..]);
        if let Err(error) = Job::from_toml(&mangled) {
            prop_assert!(!error.message().is_empty());
        }
    }
}

/// The example without a service, in this mode.
fn direct(mode: &str) -> String {
    let example = example();
    let (before, rest) = example.split_once("[service]").unwrap();
    let (_, keys) = rest.split_once("[[key]]").unwrap();
    let text = format!("{before}[[key]]{keys}").replace("\"attested\"", &format!("{mode:?}"));
    text.replace("minimum = 20", "minimum = 0")
}

#[test]
fn a_job_without_a_service() {
    for (mode, protocol) in [("vole", Protocol::Vole), ("ecdh", Protocol::Ecdh)] {
        let job = parsed(&direct(mode));
        assert_eq!((job.protocol(), job.service()), (Some(protocol), None));
        assert_eq!(protocol.as_str(), mode);
        assert_eq!((job.services(), job.shards()), (1, vec![job.clone()]));
        let again = Job::from_canonical(job.canonical().as_bytes()).unwrap();
        assert_eq!(again.digest(), job.digest());
        assert!(!job.canonical().contains("service"), "{}", job.canonical());
        assert_eq!(job.receiver().unwrap().name, "alice");
    }
    let only_bob = direct("vole").replace("to = [\"bob\", \"alice\"]", "to = [\"bob\"]");
    assert_ne!(only_bob, direct("vole"));
    assert_eq!(parsed(&only_bob).receiver().unwrap().name, "bob");
    let reached =
        direct("vole").replace("name = \"alice\"", "name = \"alice\"\naddress = \"a.example:1\"");
    let job = parsed(&reached);
    assert_eq!(job.party("alice").unwrap().address.as_deref(), Some("a.example:1"));
    let difference = job.differences(&parsed(&direct("vole"))).join("; ");
    assert_eq!(difference, "party alice.address: a.example:1 here, none there");
    assert_eq!(
        parsed(&example()).differences(&parsed(&direct("vole")))[0],
        "mode: attested here, vole there"
    );
}

#[test]
fn what_a_job_without_a_service_cannot_have() {
    let refused = |mode: &str, change: &dyn Fn(String) -> String, expected: &str| {
        let text = change(direct(mode));
        assert_ne!(text, direct(mode), "the change must change something: {expected}");
        let error = Job::from_toml(&text).expect_err(expected).to_string();
        assert!(error.contains(expected), "\nfound:    {error}\nexpected: {expected}");
    };
    let with = |more: &'static str| move |text: String| format!("{text}\n{more}\n");
    let carol = format!("[[party]]\nname = \"carol\"\nkey = \"{CAROL}\"");
    refused(
        "vole",
        &with("[service]"),
        "[service] is given, but with mode = \"vole\" there is none",
    );
    refused("ecdh", &with("[provider.policy]\na = 1"), "nobody shows evidence");
    refused(
        "ecdh",
        &|text| format!("canaries = 1400\n{text}"),
        "canaries find out whether a service lies",
    );
    refused(
        "ecdh",
        &|text| format!("{text}\n{carol}\n"),
        "the job has 3 parties, and mode = \"ecdh\" is for 2 at most",
    );
    let many = |text: String| {
        let party = |number: u8| {
            format!("[[party]]\nname = \"p{number}\"\nkey = \"{}\"\n", KeyId([number; 32]))
        };
        text + &(0..15).map(party).collect::<String>()
    };
    refused("vole", &many, "the job has 17 parties, and mode = \"vole\" is for 16 at most");
    refused(
        "vole",
        &|text| text.replace("\"intersection\"", "\"count\""),
        "write mode = \"ecdh\" to reveal a count",
    );
    refused(
        "ecdh",
        &|text| text.replace("minimum = 0", "minimum = 1"),
        "nobody stands between a party and a small result",
    );
    let address =
        |text: String| text.replace("name = \"bob\"", "name = \"bob\"\naddress = \"bob\"");
    refused("vole", &address, "address is \"bob\", expected host:port");
    let same = |text: String| {
        let text = text.replace("name = \"bob\"", "name = \"bob\"\naddress = \"h:1\"");
        text.replace("name = \"alice\"", "name = \"alice\"\naddress = \"h:1\"")
    };
    refused("vole", &same, "that of another party");
    replaced(
        "name = \"bob\"",
        "name = \"bob\"\naddress = \"h:1\"",
        "line 31, column 11: party[0].address is given, but",
    );
    let unpinned = |text: String| {
        let (before, _) = text.split_once("[[party]]").unwrap();
        format!("unpinned_parties = 2\n{before}").replace("to = [\"bob\", \"alice\"]\n", "")
    };
    refused("ecdh", &unpinned, "parties recognise each other by their keys alone");
    let shard = changed(&parsed(&direct("ecdh")), |terms| terms.shard = Some(Shard { number: 0 }));
    assert!(shard.unwrap_err().to_string().contains("has no shards"));
}
