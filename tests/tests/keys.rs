//! Keys that are written differently on both sides, through whole jobs, and the recipe by which they are
//! the same.

use convelo_psi::{Job, UNICODE_VERSION};
use convelo_wire::Reason;

use super::tables::{Given, Scene, count};

#[test]
fn keys_match_by_what_they_mean() {
    let scene = Scene::new();
    // The steps, alice's table, bob's ids, and the second column of alice's rows that are in both.
    let cases: [(&[&str], &str, &str, &str); 9] = [
        (
            &["phone:49"],
            "030 123456,a\n\"tel:+49 (0)30 123457\",b\n0049-30-123458,c\n'+4930123459,d\n301234569.0,e\n",
            "+4930123456\n+4930123457\n+4930123458\n(030) 123459\n+49 30 12345690\n",
            "abcd",
        ),
        (&["phone:39"], "0321 123456,a\n06 6982 0001,b\n", "+39 321 123456\n+390669820001\n", "b"),
        (
            &["phone:7"],
            "8 (495) 123-45-61,a\n8~10 49 30 1234561,b\n",
            "+74951234561\n+49301234561\n",
            "ab",
        ),
        (
            &["email"],
            "Bo <Bo@Example.org>,a\nmailto:al@example.org,b\nann@m\u{fc}nchen.example,c\nn\u{ad}o@example.org,d\n\
             a.b@gmail.com,e\ntwo@example.org/three,f\n",
            "bo@example.org\nAL@example.org.\nann@xn--mnchen-3ya.example\nno@example.org\nab@gmail.com\n\
             two@example.org\n",
            "abcd",
        ),
        (
            &["email:uid2"],
            "a.b+news@gmail.com,a\na.b@example.org,b\n",
            "ab@gmail.com\nab@example.org\n",
            "a",
        ),
        (&["integer"], "123,a\n124,b\n125,c\n1200,d\n", "00123\n124.0\n+125\n1.2E+3\n", "abc"),
        (
            &["date:dmy"],
            "11.1.1980,a\n01/11/1980,b\n30.2.1980,c\n",
            "1980-01-11\n1980-11-01T00:00:00Z\n1980-02-30\n",
            "ab",
        ),
        (&["digits"], "1001.0,a\n1001,b\n123-45-6789,c\n", "10010\n1001\n\u{661}23456789\n", "bc"),
        (
            &["plain", "fold", "spaces", "ascii"],
            "O\u{2019}Brien,a\nSTRASSE,b\nM\u{fc}ller,c\n\"Anna\tLou\",d\n\"Anna\nLiv\",e\n\
             Smith\u{2010}Jones,f\n\u{130}stanbul,g\nJos\u{e9},h\n",
            "o'brien\nStra\u{df}e\nMueller\nanna lou\nanna  liv\nsmith-jones\nistanbul\njose\n",
            "abcdefgh",
        ),
    ];
    for (steps, alice, bob, expected) in cases {
        let alice = format!("id,row\n{alice}");
        let tables = [("a.csv", alice.as_bytes(), "--key id"), ("b.txt", bob.as_bytes(), "")];
        let [ended, _] = scene.run_job(&scene.job(steps), tables);
        let matched = scene.parties[0].read("matched");
        let mut rows = csv_rows(&matched);
        assert_eq!(rows.next(), Some("row"), "{steps:?}");
        assert_eq!(rows.collect::<String>(), expected, "{steps:?}: {}", ended.stderr);
    }
}

/// The last field of every record, none of which has a comma in its last field.
fn csv_rows(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.rsplit_once(',')).map(|(_, last)| last)
}

#[test]
fn values_that_mean_unknown_match_nothing() {
    let scene = Scene::new();
    let placeholders = ["NULL", "nan", "None", "-", "#N/A", "none@none.com", "+10000000000"];
    let cases: [(&[&str], &[&str]); 3] = [
        (&["trim"], &placeholders[..5]),
        (&["email"], &["none@none.com", "NULL", "n/a"]),
        (&["phone"], &["+10000000000", "NULL"]),
    ];
    for (steps, values) in cases {
        let known = match steps[0] {
            "email" => "ann@x.org",
            "phone" => "+4930123456",
            _ => "7",
        };
        for value in values {
            let alice = format!("k,v\n{value},a\n{value},b\n {value},c\n{known},d\n");
            let bob = format!("k,w\n{},p\n{known},q\n", value.to_lowercase());
            let tables =
                [("a.csv", alice.as_bytes(), "--key k"), ("b.csv", bob.as_bytes(), "--key k")];
            let job = scene.job(steps).ignore(&[&placeholders[..], &["N/A"]].concat());
            let [ended, _] = scene.run_job(&job, tables);
            assert_eq!(scene.parties[0].read("matched"), format!("k,v\n{known},d\n"), "{value}");
            let table = &ended.json()["table"];
            assert_eq!(table["dropped"][0]["reason"], "ignored", "{value}");
            assert_eq!(count(&table["dropped"][0], "rows"), 3, "{value}");
        }
    }
}

/// The job as a program of another recipe derives it from the same file.
fn of_another_recipe(job: &Job, recipe: &str) -> Job {
    let here = format!(r#""recipe":{{"unicode":"{UNICODE_VERSION}","version":2}},"#);
    let canonical = job.canonical();
    assert!(canonical.contains(&here), "{canonical}");
    Job::from_canonical(canonical.replace(&here, recipe).as_bytes()).expect("a job")
}

const OLDER_UNICODE: &str = r#""recipe":{"unicode":"17.0.0","version":2},"#;
const LATER_RECIPE: &str = r#""recipe":{"unicode":"18.0.0","version":3},"#;

const IDS: Given = ("ids.txt", b"a\nb\n", "");

#[test]
fn a_service_refuses_a_job_of_recipe_1_with_the_reason() {
    let scene = Scene::new();
    let job = of_another_recipe(&scene.job(&["trim"]).job(), "");
    assert!(job.recipe().is_none());
    let failed = scene.world.raw(&scene.service, &scene.parties[0], &job).connection.failure();
    assert_eq!(failed.reason, Reason::InvalidJob, "{failed}");
    assert!(failed.explanation.contains("the job is of recipe 1"), "{failed}");
    assert!(failed.explanation.contains("programs of recipe 2 or later"), "{failed}");
}

#[test]
fn a_party_whose_program_has_another_recipe_is_told_so_before_anything_is_sent() {
    let scene = Scene::new();
    let [alice, bob] = &scene.parties;
    alice.write(IDS.0, IDS.1);
    let run = format!("--input {} --output matched", IDS.0);
    for (number, recipe, words) in
        [(1, OLDER_UNICODE, "recipe 2 (Unicode 17.0.0)"), (2, LATER_RECIPE, "recipe 3 (Unicode")]
    {
        let given = |order: &str| {
            let builder = scene.job(&["trim"]).name(&format!("{order}-{number}"));
            builder.give_to([alice]);
            of_another_recipe(&builder.job(), recipe)
        };
        let other = given("second");
        let waiting = scene.world.run(alice, &run);
        waiting.wait_for("waiting for bob");
        let failed = scene.world.raw(&scene.service, bob, &other).connection.failure();
        assert_eq!(failed.reason, Reason::OtherTerms, "{failed}");
        let said = format!("recipe: {words}");
        assert!(failed.explanation.contains(&said), "no '{said}' in {failed}");
        waiting.terminate();
        waiting.wait().expect(130).never_says("pseudonyms");
        let other = given("first");
        let first = scene.world.raw(&scene.service, bob, &other).seated();
        let refused = scene.world.run(alice, &run).wait().expect(1);
        refused.says("recipe: recipe 2 (Unicode 18.0.0) here").says(words).never_says("pseudonyms");
        drop(first);
        assert!(!alice.path("matched").exists());
    }
}

#[test]
fn every_reason_is_explained_in_the_documentation() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/tables.md");
    let page = std::fs::read_to_string(page).expect("the page on tables");
    let reasons = convelo_keys::Reason::ALL.map(convelo_keys::Reason::word);
    for word in reasons.into_iter().chain(["blank", "ignored"]) {
        assert!(page.contains(&format!("\n| `{word}` | ")), "{word}");
    }
}
