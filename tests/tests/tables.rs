//! Tables as programs write them, through the command line: what is matched, what is written and what
//! is refused.

use std::fs;

use convelo_tests::{Ended, JobBuilder, Party, Service, World};
use serde_json::Value;

/// A party's table: the name of its file, what is in it, and how it is read.
pub(crate) type Given<'t> = (&'static str, &'t [u8], &'static str);

pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) service: Service,
    pub(crate) parties: [Party; 2],
}

impl Scene {
    pub(crate) fn new() -> Self {
        let world = World::new();
        let service = world.serve();
        let parties = world.parties(["alice", "bob"]);
        Self { world, service, parties }
    }

    /// A job whose key is normalised like this.
    pub(crate) fn job(&self, steps: &[&str]) -> JobBuilder {
        self.world.job(Some(&self.service), &self.parties).key(&[("id", steps)])
    }

    /// Gives the parties a job whose key is normalised like this, and their tables.
    fn set(&self, steps: &[&str], tables: [Given<'_>; 2]) {
        self.give(&self.job(steps), tables);
    }

    fn give(&self, job: &JobBuilder, tables: [Given<'_>; 2]) {
        job.give_to(&self.parties);
        for (party, (name, bytes, _)) in self.parties.iter().zip(tables) {
            party.write(name, bytes);
            let _ = fs::remove_file(party.path("matched"));
        }
    }

    /// A whole job. The rows go to `matched`.
    fn run(&self, steps: &[&str], tables: [Given<'_>; 2]) -> [Ended; 2] {
        self.run_job(&self.job(steps), tables)
    }

    /// The same with any job of one key part.
    pub(crate) fn run_job(&self, job: &JobBuilder, tables: [Given<'_>; 2]) -> [Ended; 2] {
        self.give(job, tables);
        let running = [0, 1].map(|party| {
            let (name, _, read) = tables[party];
            let run = format!("--input {name} {read} --output matched --json");
            self.world.run(&self.parties[party], &run)
        });
        running.map(|process| process.wait().expect(0))
    }

    /// What alice's program says of her table alone.
    fn check(&self, steps: &[&str], table: Given<'_>, more: &str) -> Ended {
        self.set(steps, [table, table]);
        let (name, _, read) = table;
        let check = format!("check job.toml --as alice --input {name} {read} {more}");
        self.world.start_at(&self.parties[0], &check).wait()
    }
}

pub(crate) fn count(found: &Value, name: &str) -> u64 {
    found[name].as_u64().unwrap_or_else(|| panic!("no number '{name}' in {found}"))
}

const IDS: Given = ("ids.txt", b"1\n2\n3\n", "");

#[test]
fn tables_as_programs_write_them_are_matched() {
    let scene = Scene::new();
    // The case, alice's table, bob's, and what alice gets.
    let cases: [(&str, Given, Given, &str); 15] = [
        ("lines end in CR", ("a.txt", b"1\r2\r9\r", ""), IDS, "1\r2\r"),
        ("lines end in CR twice", ("a.txt", b"1\r\r2\r", ""), IDS, "1\r2\r"),
        (
            "files one behind the other",
            (
                "a.csv",
                b"\xef\xbb\xbfid,x\n1,a\n\xef\xbb\xbf2,b\n\xef\xbb\xbfid,x\n3,c\n",
                "--key id",
            ),
            IDS,
            "id,x\n1,a\n2,b\n3,c\n",
        ),
        (
            "commas in prose",
            ("a.csv", b"1;Smith, Jo\n7;Doe, Al\n", "--key #1 --no-header"),
            IDS,
            "1;Smith, Jo\n",
        ),
        (
            "more commas than semicolons",
            ("a.csv", b"1;Smith, Jo, Dr\n2;Doe, Al, Dr\n", "--key #1 --no-header"),
            IDS,
            "1;Smith, Jo, Dr\n2;Doe, Al, Dr\n",
        ),
        (
            "decimal commas",
            ("a.csv", b"1;1,50;2,50\n7;2,50;3,50\n", "--key #1 --no-header"),
            IDS,
            "1;1,50;2,50\n",
        ),
        (
            "a comma in the header",
            ("a.csv", b"id;name, first\n1;Smith, Jo\n", "--key id"),
            IDS,
            "id;name, first\n1;Smith, Jo\n",
        ),
        (
            "commas in the header alone",
            ("a.csv", b"id;name (a, b, c)\n1;x\n", "--key id"),
            IDS,
            "id;name (a, b, c)\n1;x\n",
        ),
        ("Excel's line", ("a.csv", b"sep=;\nid;x;y\n1;a;b\n", "--key id"), IDS, "id;x;y\n1;a;b\n"),
        (
            "what MySQL writes",
            ("a.csv", b"id,x\n\"1\",\"Big \\\"Joe\\\"\"\n", "--key id --escape \\"),
            IDS,
            "id,x\n\"1\",\"Big \\\"Joe\\\"\"\n",
        ),
        (
            "rows as they were",
            ("a.csv", b"id,x\r\n\"1\", 'a' \r\n2,\"\"\r\n", "--key id"),
            IDS,
            "id,x\r\n\"1\", 'a' \r\n2,\"\"\r\n",
        ),
        ("a last line of spaces", ("a.csv", b"id,x\n1,a\n   \n", "--key id"), IDS, "id,x\n1,a\n"),
        (
            "Ctrl-Z",
            ("a.csv", b"id\n1\n2\n\x1a", "--key id"),
            ("b.txt", b"1\n\x1a\n", ""),
            "id\n1\n",
        ),
        (
            "a footer",
            ("a.csv", b"id\r\n1\r\n2\r\n\r\n(2 rows affected)\r\n", "--key id"),
            ("b.csv", b"id\n2\n(2 rows affected)\n", "--key id"),
            "id\r\n2\r\n",
        ),
        (
            "an id that looks like a name",
            ("a.txt", b"email\na@x.org\n", "--no-header"),
            ("b.txt", b"email\n", ""),
            "email\n",
        ),
    ];
    for (case, alice, bob, expected) in cases {
        let [ended, _] = scene.run(&["trim"], [alice, bob]);
        assert_eq!(scene.parties[0].read("matched"), expected, "{case}: {}", ended.stderr);
    }
}

#[test]
fn tables_that_admit_two_readings_are_refused() {
    let scene = Scene::new();
    let cases: [(&str, Given, &[&str]); 18] = [
        (
            "a header in an id list",
            ("a.txt", b"email\na@x.org\nb@x.org\n", ""),
            &["line 1", "--no-header"],
        ),
        (
            "a record taken for a header",
            ("a.csv", b"1,a\n2,b\n", "--key #1"),
            &["looks like data", "--no-header"],
        ),
        (
            "names or words",
            ("a.csv", b"Anna,Delft\nBert,Gouda\n", "--key #1"),
            &["may be a header", "--header"],
        ),
        (
            "a record as an error",
            ("a.csv", b"anna.secret@x.org,Anna,1980-01-02\nb@x.org,Bert,1981-02-03\n", "--key id"),
            &["3 columns", "--no-header"],
        ),
        (
            "two delimiters",
            ("a.csv", b"1,x;y\n2,z;w\n", "--key #1"),
            &["',' and ';'", "--delimiter"],
        ),
        (
            "text after a quote",
            ("a.csv", b"id,x\n1,\"Big\" Joe\n", "--key id"),
            &["line 2", "closing quote", "--escape"],
        ),
        (
            "a space before a quote",
            ("a.csv", b"id,x\n1, \"a, b\"\n", "--key id"),
            &["line 2", "a space stands before a quote"],
        ),
        ("bzip2", ("a.csv", b"BZh91AY&SY\x01\xff", "--key id"), &["a bzip2 archive", "unpack it"]),
        ("ORC", ("a.csv", b"ORC\n\x01", "--key id"), &["an ORC file"]),
        (
            "a workbook",
            ("a.xlsx", b"PK\x03\x04\x14\0[Content_Types].xml", "--key id"),
            &["a workbook", "CSV in UTF-8"],
        ),
        ("JSON lines", ("a.jsonl", b"{\"id\": 1}\n{\"id\": 2}\n", "--key id"), &["JSON", "CSV"]),
        ("HTML", ("a.csv", b"<!DOCTYPE html><table>", "--key id"), &["an HTML page"]),
        (
            "a name without an ending",
            ("table", b"id\n1\n", "--key id"),
            &["--format csv", "--format lines"],
        ),
        (
            "no key at all",
            ("a.csv", b"id,x\n,a\n ,b\n,c\n,d\n", "--key id"),
            &["no row has a key", "lines 2, 3, 4, …", "--allow-empty"],
        ),
        (
            "an empty directory",
            ("../alice/missing.csv", b"id\n1\n", "--key nothing"),
            &["no column is called \"nothing\""],
        ),
        ("a header for an id list", ("a.txt", b"1\n2\n", "--header"), &["has no header"]),
        ("UTF-16", ("a.csv", b"\xff\xfei\0d\0", "--key id"), &["UTF-16"]),
        (
            "an escape character of two",
            ("a.csv", b"id\n1\n", "--key id --escape ab"),
            &["--escape takes one"],
        ),
    ];
    for (case, table, said) in cases {
        let ended = scene.check(&["trim"], table, "").expect(2);
        for words in said {
            assert!(ended.stderr.contains(words), "{case}: no '{words}' in {}", ended.stderr);
        }
        assert!(!ended.stderr.contains("secret") && !ended.stderr.contains("Anna"), "{case}");
        assert_eq!(ended.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1);
        assert_eq!(ended.stdout, "", "{case}: the error comes first");
    }
}

#[test]
fn what_a_table_was_taken_for_is_said() {
    let scene = Scene::new();
    let bytes = b"id;note\r\n0123;\"a\r\nb\"\r\nx7;\r\n\xef\xbb\xbfid;note\r\n0123;\r\n0123;\r\n;\r\n\r\n(5 rows)\r\n";
    let table: Given = ("a.csv", bytes, "--key id");
    let ended = scene.check(&["trim"], table, "").expect(0);
    for line in [
        "your table: taken for CSV, delimiter ;, a header, 2 columns, \"id\" to \"note\"",
        "your table: read 5 rows: 2 distinct keys; 2 rows with a key seen before; 1 row without a key, dropped",
        "your table: dropped: 1 by id: it is blank (line 8)",
        "your table: one key stands in 3 of 5 rows; is it a placeholder? With ignore=[\"…\"] in the job, it is a blank",
        "your table: left out, once: the header again",
        "your table: left out, once: what a program says of its rows, at the end",
        "your table: left out, once: a byte order mark or Ctrl-Z at the start of a line",
        "your table: with line ends, 1 field; the longest has 2 lines, from line 2",
        "your table: the looks of id, of 4 values: 75 % only digits, 75 % begin with 0, 25 % have letters, 2 to 4 characters",
    ] {
        assert!(ended.stdout.contains(line), "no '{line}' in\n{}", ended.stdout);
    }
    let found = scene.check(&["trim"], table, "--json").expect(0).json();
    assert_eq!(count(&found["input"], "rows"), 5);
    let table = &found["table"];
    assert_eq!(table["taken_for"]["delimiter"], ";");
    assert_eq!((count(table, "repeated_headers"), count(&table["notes"], "footers")), (1, 1));
    assert_eq!(table["dropped"][0]["reason"], "blank");
    assert_eq!((count(&table["commonest"], "rows"), count(&table["commonest"], "of")), (3, 5));
    assert_eq!(count(&table["shapes"][0], "zero_first"), 3);
    assert!(!ended.stdout.contains("0123") && !found.to_string().contains("0123"));
}

#[test]
fn spreadsheet_guards_and_placeholders_are_pointed_out() {
    let scene = Scene::new();
    let guards: Given =
        ("a.csv", b"id,x\n=\"00123\",a\n\"=\"\"00125\"\"\",c\n'00126,d\n", "--key id");
    let ended = scene.check(&["lowercase"], guards, "").expect(0);
    assert!(
        ended.stdout.contains("3 keys of id begin with = or an apostrophe"),
        "{}",
        ended.stdout
    );
    for placeholder in ["NULL", "nan", "None", "-", "#N/A"] {
        let text = format!("k,v\n{placeholder},a\n{placeholder},b\n{placeholder},c\n7,d\n");
        let table: Given = ("a.csv", b"", "--key k");
        scene.set(&["trim"], [table, table]);
        scene.parties[0].write("a.csv", text);
        let check = "check job.toml --as alice --input a.csv --key k";
        let ended = scene.world.start_at(&scene.parties[0], check).wait().expect(0);
        assert!(ended.stdout.contains("one key stands in 3 of 4 rows"), "{}", ended.stdout);
    }
}

#[test]
fn dropped_rows_can_be_found() {
    let scene = Scene::new();
    let table: Given =
        ("a.csv", b"id,x\na@x.org,1\nn/a,2\n\"b\n\",3\n,4\nc@x.org,5\nd@x.org,6\n", "--key id");
    let ended = scene.check(&["email"], table, "--list-dropped dropped.csv --json").expect(0);
    let found = ended.json();
    let reasons: Vec<(&str, u64)> = found["table"]["dropped"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|rows| (rows["reason"].as_str().expect("a word"), count(rows, "rows")))
        .collect();
    assert_eq!(reasons, [("blank", 1), ("not-one-address", 2)]);
    let list = scene.parties[0].read("dropped.csv");
    assert_eq!(
        list,
        "row,line,part,reason\n2,3,id,not-one-address\n3,4,id,not-one-address\n4,6,id,blank\n"
    );
    let [alice, _] = scene.run(
        &["email"],
        [("a.csv", table.1, "--key id --list-dropped again.csv"), ("b.txt", b"c@x.org\n", "")],
    );
    assert_eq!(scene.parties[0].read("again.csv"), list);
    assert_eq!(count(&alice.json()["table"]["dropped"][1], "rows"), 2);
    assert_eq!(scene.parties[0].read("matched"), "id,x\nc@x.org,5\n");
}

/// Nothing of a table whose keys are the wrong column reaches anybody.
#[test]
fn the_wrong_column_as_the_key_ends_the_run_before_anything_is_sent() {
    let scene = Scene::new();
    let alice: Given = ("a.csv", b"name,mail\nAnn,a@x.org\nBob,b@x.org\n", "--key name");
    let bob: Given = ("b.csv", b"mail\na@x.org\n", "--key mail");
    scene.set(&["email"], [alice, bob]);
    let [alice, bob] = [0, 1].map(|party| {
        let (name, _, read) = [alice, bob][party];
        scene
            .world
            .run(&scene.parties[party], &format!("--input {name} {read} --output matched --json"))
    });
    alice.wait().expect(2).says("no row has a key").says("lines 2, 3").says("nothing was sent");
    bob.wait().expect(1).says("'alice' left the job");
    assert!(!scene.parties[1].path("matched").exists());
    let [alice, bob] = scene.run(
        &["email"],
        [
            ("a.csv", b"name,mail\nAnn,a@x.org\n", "--key name --allow-empty"),
            ("b.csv", b"mail\na@x.org\n", "--key mail"),
        ],
    );
    assert_eq!(
        (count(&alice.json()["input"], "keys"), count(&bob.json()["result"], "keys")),
        (0, 0)
    );
}

#[test]
fn a_second_run_overwrites_neither_rows_nor_receipts() {
    let scene = Scene::new();
    scene.run(&["trim"], [IDS, IDS]);
    let alice = &scene.parties[0];
    let first = alice.read("matched.receipt.json");
    let run = "run job.toml --as alice --insecure-simulated --input ids.txt --output matched";
    let refused = scene.world.start_at(alice, run).wait().expect(2);
    refused.says("matched already exists").says("--force");
    let job = scene.world.job(Some(&scene.service), &scene.parties).name("again");
    job.give_to(&scene.parties);
    let running = [0, 1].map(|party| {
        scene.world.run(&scene.parties[party], "--input ids.txt --output matched --json")
    });
    let [ended, _] = running.map(|process| process.wait().expect(0));
    assert_eq!(ended.json()["receipts"][0], "matched.receipt-2.json");
    assert_eq!(alice.read("matched.receipt.json"), first);
    assert!(alice.path("matched.receipt-2.json").exists());
}

/// Rows that cannot be written cost nobody the record of what was learned.
#[test]
fn the_receipt_comes_before_the_rows() {
    let scene = Scene::new();
    scene.set(&["trim"], [IDS, IDS]);
    let full =
        "run job.toml --as alice --insecure-simulated --input ids.txt --output - --receipt r.json";
    let mut alice = scene.world.command(&scene.parties[0].path(""), full);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("a full device");
    let alice = alice.stdout(full).spawn().expect("it starts");
    let bob = scene.world.run(&scene.parties[1], "--input ids.txt --output matched --json");
    assert_eq!(bob.wait().expect(0).json()["result"]["keys"], 3);
    let alice = alice.wait_with_output().expect("it ends");
    assert_eq!(alice.status.code(), Some(1));
    let receipt: Value = serde_json::from_str(&scene.parties[0].read("r.json")).expect("JSON");
    assert_eq!(receipt["result"]["rows"], 3);
}

#[test]
fn an_output_in_a_directory_that_is_not_there() {
    let scene = Scene::new();
    scene.set(&["trim"], [IDS, IDS]);
    let run = "--input ids.txt --output nowhere/matched";
    let refused = scene.world.run(&scene.parties[0], run).wait().expect(2);
    refused.says("the directory nowhere does not exist").never_says(".convelo");
    let check = scene.world.start_at(&scene.parties[0], "check job.toml --as bobby");
    check
        .wait()
        .expect(2)
        .says("the job has no party 'bobby'; it lists alice, bob")
        .never_says("keygen");
}
