//! Slips of somebody who is new to the program: none may lose a file, a row or the word about it.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use convelo_tests::{Ended, PATIENCE, Party, World};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::tables::Scene;

/// A scene whose alice has a table `t.csv` and an id list.
fn scene() -> Scene {
    let scene = Scene::new();
    scene.job(&["trim"]).give_to(&scene.parties);
    let alice = &scene.parties[0];
    alice.write("t.csv", "id,x\n1,a\n2,b\n,c\n");
    alice.lines(&["1", "2"]);
    scene
}

impl Scene {
    /// What alice's program says to a run.
    fn refused(&self, args: &str) -> Ended {
        let run = format!("run job.toml --as alice --insecure-simulated {args}");
        self.world.start_at(&self.parties[0], &run).wait().expect(2)
    }

    fn checked(&self, args: &str) -> Ended {
        self.world.start_at(&self.parties[0], &format!("check job.toml {args}")).wait()
    }
}

/// The names and contents of all files of a party.
fn files(party: &Party) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(party.path(""))
        .expect("a directory")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            (path.to_string_lossy().into_owned(), fs::read(&path).unwrap_or_default())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn no_file_of_a_run_is_written_over_another() {
    let scene = scene();
    let alice = &scene.parties[0];
    alice.write("old.csv", "kept");
    alice.write("taken.csv.receipt.json", "kept");
    fs::hard_link(alice.path("t.csv"), alice.path("linked.csv")).expect("a link");
    std::os::unix::fs::symlink("t.csv", alice.path("soft.csv")).expect("a link");
    let before = files(alice);
    for (list, says) in [
        ("t.csv", "would be written over the input"),
        ("./t.csv", "would be written over the input"),
        ("../alice/t.csv", "would be written over the input"),
        ("linked.csv", "would be written over the input"),
        ("soft.csv", "would be written over the input"),
        ("alice.key", "would be written over the key"),
        ("job.toml", "would be written over the job file"),
        ("collateral.json", "would be written over the collateral"),
        ("seen-lists.json", "would be written over the list of revocation lists"),
        ("-", "cannot go to standard output"),
        ("/dev/null", "is no regular file"),
    ] {
        let args = format!("--as alice --input t.csv --key id --force --list-dropped {list}");
        scene.checked(&args).expect(2).says(says);
        scene.refused(&format!("{} --output new.csv", &args[11..])).says(says);
    }
    scene
        .checked("--as alice --input t.csv --key id --list-dropped old.csv")
        .expect(2)
        .says("old.csv already exists; replace it with --force, or give another --list-dropped");
    let read = "--input t.csv --key id";
    for (args, says) in [
        ("-o x.csv --receipt x.csv", "the receipt (--receipt) would be written over the output"),
        ("-o x.csv --receipt ./x.csv", "would be written over the output"),
        ("-o x.csv --list-dropped x.csv", "would be written over the output"),
        ("-o x.csv --list-dropped x.csv.receipt.json", "would be written over the receipt"),
        ("-o x.csv --receipt r.json --list-dropped r.json", "would be written over the receipt"),
        ("-o taken.csv --list-dropped taken.csv.receipt-2.json", "written over the receipt"),
        ("-o t.csv --force", "would be written over the input"),
        ("-o alice.key --force", "would be written over the key"),
        ("-o job.toml --force", "would be written over the job file"),
        ("-o x.csv --seen-lists t.csv", "t.csv, which remembers the newest revocation lists"),
        ("-o x.csv --receipt -", "the receipt (--receipt) cannot go to standard output"),
        ("-o x.csv --list-dropped old.csv", "already exists; replace it with --force"),
        ("-o old.csv", "already exists; replace it with --force, or give another --output"),
        ("-o x.csv --receipt nowhere/r.json", "nowhere/r.json cannot be written: its directory"),
        ("-o x.csv --list-dropped nowhere/l.csv", "nowhere/l.csv cannot be written"),
        ("-o x.xlsx", "the name is that of a workbook, which is not written"),
        ("-o x.json.gz", "the name is that of JSON, which is not written"),
    ] {
        scene.refused(&format!("{read} {args}")).says(says).never_says("connecting");
    }
    assert!(files(alice) == before, "a refused command changes nothing");
    scene.checked("--as alice --input t.csv --key id --force --list-dropped old.csv").expect(0);
    assert_eq!(alice.read("old.csv"), "row,line,part,reason\n3,4,id,blank\n");
}

#[test]
fn a_join_without_a_job_file_is_as_careful() {
    let scene = scene();
    let alice = &scene.parties[0];
    let join =
        |args: &str| scene.world.join(&scene.service, alice, &format!("--parties 2 {args}")).wait();
    join("--list-dropped ids.txt --force").expect(2).says("would be written over the data file");
    join("--output ids.txt --force").expect(2).says("would be written over the data file");
    join("--receipt ids.txt").expect(2).says("would be written over the data file");
    join("--output - --json").expect(2).says("would mix on stdout");
    alice.lines(&["email", "a@x.org", "b@x.org"]);
    let named = join("").expect(2).says("line 1 looks like the name of the column");
    named.says("or use 'convelo run' with --format csv and --key COLUMN");
}

#[test]
fn runs_that_end_at_once_number_their_receipts() {
    let world = World::new();
    let service = world.serve();
    let parties = world.parties(["alice", "bob", "carol"]);
    // All of them in one directory, with one name for the receipt.
    let job = world.job(Some(&service), &parties);
    job.give_to(&parties);
    let running = parties.each_ref().map(|party| {
        party.lines(&["a", "b"]);
        world.run(party, "--input ids.txt --output matched.txt --receipt ../r.json --json")
    });
    for process in running {
        process.wait().expect(0);
    }
    let receipt = |name: &str| -> Value {
        let text = fs::read_to_string(world.path(name)).expect("a receipt");
        serde_json::from_str(&text).expect("JSON")
    };
    let mut of: Vec<String> = ["r.json", "r-2.json", "r-3.json"]
        .map(|name| receipt(name)["party"].as_str().expect("a name").to_owned())
        .into();
    of.sort();
    assert_eq!(of, ["alice", "bob", "carol"]);
}

#[test]
fn a_first_record_without_a_name_is_no_header() {
    let scene = scene();
    let alice = &scene.parties[0];
    for (text, key) in [
        ("NULL,Smith\n1,Jones\n2,Kim\n3,Lee\n", "#2"),
        ("N/A,a\n1,b\n", "#2"),
        ("\\N,a\n1,b\n", "#2"),
        (",Smith\n1,Jones\n", "#2"),
        ("unknown,Smith\n1,Jones\n", "#2"),
        ("Smith,none\nJones,1980-01-11\n", "#1"),
    ] {
        alice.write("h.csv", text);
        let read = format!("--input h.csv --key {key}");
        let ended = scene.checked(&read).expect(2);
        ended.says("with --header, or --no-header if it is data");
        let rows = text.lines().count();
        let ended = scene.checked(&format!("{read} --no-header --json")).expect(0);
        assert_eq!(ended.json()["input"]["rows"], rows, "{text}");
        let ended = scene.checked(&format!("{read} --header --json")).expect(0);
        assert_eq!(ended.json()["input"]["rows"], rows - 1, "{text}");
    }
    alice.write("h.csv", ",email\n0,a@x.org\n");
    scene.checked("--input h.csv --key email").expect(0);
}

#[test]
fn a_table_without_rows_is_not_what_was_meant() {
    let scene = scene();
    let alice = &scene.parties[0];
    for (name, text, key, words) in [
        ("e.csv", "", "", "it is empty"),
        ("e.csv", "\n", "", "it is empty"),
        ("e.csv", "id,x\n", "--key id", "it has no row"),
        ("e.txt", "", "", "it has no row"),
    ] {
        alice.write(name, text);
        let read = format!("--input {name} {key}");
        let ended = scene.checked(&read).expect(2).says(words);
        ended.says("if that is right, go on with --allow-empty");
        scene.checked(&format!("{read} --allow-empty")).expect(0);
    }
    alice.write("e.csv", "");
    scene
        .checked("--input e.csv --key nosuch --allow-empty")
        .expect(2)
        .says("it is empty and has no columns");
}

#[test]
fn numbers_with_their_own_code_have_one_meaning_or_none() {
    let scene = scene();
    let alice = &scene.parties[0];
    let reasons = |steps: &str, ids: &[&str]| -> Value {
        scene.job(&[steps]).give_to(&scene.parties);
        alice.lines(ids);
        scene.checked("--input ids.txt --allow-empty --json").expect(0).json()
    };
    // One number, written in four ways.
    let found = reasons("phone:49", &["4930123456", "030 123456", "+49 30 123456", "004930123456"]);
    assert_eq!((&found["input"]["keys"], &found["input"]["invalid"]), (&1.into(), &0.into()));
    let found = reasons("phone:49", &["491701234567", "0170 1234567"]);
    assert_eq!(found["table"]["dropped"][0]["reason"], "own-calling-code", "{found}");
    let found = reasons("phone:1", &["1 212 555 2368", "(212) 555-2368"]);
    assert_eq!((&found["input"]["keys"], &found["input"]["invalid"]), (&1.into(), &0.into()));
    let found = reasons("integer", &["123.000", "7"]);
    assert_eq!(found["table"]["dropped"][0]["reason"], "fraction-or-thousands", "{found}");
    let found = reasons("email", &["a@x.org;b@x.org", "a@x.org"]);
    assert_eq!(found["table"]["dropped"][0]["reason"], "not-one-address", "{found}");
}

#[test]
fn what_spreadsheets_do_to_keys_is_said() {
    let scene = scene();
    let alice = &scene.parties[0];
    let said = |steps: &[&str], ids: &[&str]| {
        scene.job(steps).give_to(&scene.parties);
        alice.lines(ids);
        scene.checked("--input ids.txt").expect(0).stdout
    };
    let text = said(&["trim"], &["1.23457E+15", "2,5e+3", "7"]);
    assert!(text.contains("2 keys of id look like numbers that a spreadsheet rounded"), "{text}");
    for (steps, id) in [
        (&["email"][..], "'a@x.org"),
        (&["phone:49"], "'+4930123456"),
        (&["digits"], "'123"),
        (&["trim"], "=\"123\""),
        (&["lowercase"], "'t Hooft"),
    ] {
        let text = said(steps, &[id]);
        assert!(!text.contains("guard"), "{steps:?} {id}: {text}");
        assert!(text.contains("read 1 row: 1 distinct key\n"), "{text}");
    }
    let text = said(&["lowercase"], &["'123"]);
    assert!(text.contains("1 key of id begins with = or an apostrophe"), "{text}");
}

#[test]
fn where_the_header_may_be_is_said() {
    let scene = scene();
    scene.parties[0].write("title.csv", "Customers of 2026\nid;x\n1;a\n");
    let hint = "perhaps a title stands above the header, or the delimiter is another one";
    scene.checked("--input title.csv --key id --delimiter ,").expect(2).says(hint);
    scene.checked("--input t.csv --key id --delimiter ;").expect(2).says(hint);
    scene.checked("--input t.csv --key nosuch").expect(2).never_says("perhaps");
}

#[test]
fn flags_without_effect_are_refused() {
    let scene = scene();
    for flag in [
        "--list-dropped q.csv",
        "--key nosuch",
        "--delimiter ;",
        "--escape \\",
        "--format csv",
        "--header",
        "--no-header",
        "--allow-empty",
    ] {
        let name = flag.split(' ').next().expect("a name");
        scene.checked(flag).expect(2).says(name).says("add --input FILE");
    }
    scene.checked("--service localhost:1").expect(2).says("--contact");
}

#[test]
fn an_address_is_judged_alike_in_a_file_and_in_a_flag() {
    let scene = scene();
    for address in ["https://localhost:7443", "user@localhost:7443", "localhost", "h:0", "h:99999"]
    {
        let args = format!("--input ids.txt --output x.txt --service {address}");
        scene.refused(&args).says("expected HOST:PORT");
        let job = scene.job(&["trim"]).to_toml().replace(&scene.service.address, address);
        scene.parties[0].write("other.toml", job);
        let check = scene.world.start_at(&scene.parties[0], "check other.toml").wait().expect(2);
        check.says("expected host:port");
        let init = scene.world.start(&format!("init i.toml --service {address}")).wait().expect(2);
        init.says("expected HOST:PORT");
    }
    assert!(!scene.world.path("i.toml").exists());
    let contact = format!("--contact --insecure-simulated --service {}", scene.service.address);
    scene.checked(&contact).expect(0);
}

#[test]
fn names_that_no_job_accepts_are_refused_at_once() {
    let world = World::new();
    let key = |digit: &str| format!("sha256:{}", digit.repeat(64));
    let (a, b) = (key("a"), key("b"));
    for (args, says) in [
        ("keygen ../x".to_owned(), "the party's name is \"../x\", expected 1 to 64 of"),
        ("keygen Ålice".to_owned(), "expected 1 to 64 of A-Z a-z 0-9 . _ -"),
        ("keygen ../x --authority d".to_owned(), "expected 1 to 64 of"),
        ("init --name a/b".to_owned(), "--name is \"a/b\", expected 1 to 64 of"),
        (format!("init --party a/b={a}"), "the name of a --party is"),
        (format!("init --party x={a} --party x={b}"), "--party x is given twice"),
        (format!("init --party x={a} --party y={a}"), "with the key of another party"),
        ("init -".to_owned(), "not written to standard output"),
    ] {
        world.start(&args).wait().expect(2).says(says);
    }
    assert!(!world.path("job.toml").exists() && !world.path("-").exists());
    let policy = "--policy platform/policy.toml";
    fs::write(world.path("platform/policy.toml"), world.service_policy()).expect("a policy");
    let one = world.start(&format!("init one.toml {policy} --party x={a}")).wait().expect(0);
    one.says("add the other parties").never_says("REPLACE");
    let two = format!("init two.toml {policy} --party x={a} --party y={b}");
    world.start(&two).wait().expect(0).says("it is complete");
    world.start("init three.toml").wait().expect(0).says("fill in the parts marked REPLACE");
}

#[test]
fn a_simulated_platform_is_renewed_and_not_made_again() {
    let world = World::new();
    world.start("simulator new p").wait().expect(0);
    let again = world.start("simulator new p").wait().expect(2);
    again.says("nothing was changed").says("'convelo simulator collateral p' renews");
    let import = world.start("collateral import p/collateral.json -o c.json").wait().expect(3);
    import.says("another root").says("add --policy FILE");
    let import = "collateral import p/collateral.json --policy p/policy.toml -o";
    world.start(&format!("{import} -")).wait().expect(2).says("not written to standard output");
    world.start(&format!("{import} c.json")).wait().expect(0);
}

/// Runs a command whose standard output is a full disk.
fn on_a_full_disk(world: &World, directory: &Path, args: &str) -> (Option<i32>, String) {
    let full: File = OpenOptions::new().write(true).open("/dev/full").expect("a full device");
    let ended = world.command(directory, args).stdout(full).output().expect("a program");
    (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
}

#[test]
fn what_cannot_be_printed_is_a_failure() {
    let scene = scene();
    let alice = &scene.parties[0];
    let run = "--input ids.txt --output matched.txt --json";
    scene.parties[1].lines(&["2"]);
    let running = [0, 1].map(|party| scene.world.run(&scene.parties[party], run));
    for process in running {
        process.wait().expect(0);
    }
    for args in [
        "check job.toml",
        "check job.toml --json",
        "receipt verify matched.txt.receipt.json",
        "receipt verify matched.txt.receipt.json --json",
        "collateral show collateral.json",
        "policy from-measurement --mr-enclave 1111111111111111111111111111111111111111111111111111111111111111",
        "key show alice.key",
        "keygen zz",
        "completions bash",
        "--help",
        "run --help",
        "help",
        "--version",
    ] {
        let (code, error) = on_a_full_disk(&scene.world, &alice.path(""), args);
        assert_eq!(code, Some(1), "{args}: {error}");
        assert!(
            error.contains("cannot write to standard output: No space left"),
            "{args}: {error}"
        );
    }
    let verified = "receipt verify matched.txt.receipt.json";
    let verified = scene.world.start_at(alice, verified).wait().expect(0);
    let times = verified.stdout.lines().find(|line| line.contains("the run took from 20"));
    assert!(times.is_some_and(|line| line.contains("Z to 20")), "{}", verified.stdout);
    assert!(verified.stdout.contains("time of the join: 20"), "{}", verified.stdout);
}

#[test]
fn who_stops_a_run_that_writes_is_told_that_the_job_is_done() {
    let scene = scene();
    let alice = &scene.parties[0];
    let ids: Vec<String> = (0..100_000).map(|number| format!("id-{number}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    alice.lines(&ids);
    let partner = scene.world.run_lines(&scene.parties[1], &ids);
    let run = "run job.toml --as alice --insecure-simulated --input ids.txt --output -";
    let mut command = scene.world.command(&alice.path(""), run);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().expect("a program");
    partner.wait().expect(0);
    // Nobody reads the rows, so it is still writing them.
    let unread = running.stdout.take();
    let deadline = Instant::now() + PATIENCE;
    while !alice.path("test.receipt.json").exists() {
        assert!(Instant::now() < deadline, "no receipt came");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = i32::try_from(running.id()).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, Signal::INT).expect("a child can be signalled");
    let ended = running.wait_with_output().expect("its end");
    let error = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(130), "{error}");
    assert!(
        error.contains(
            "the job is done: the other parties have their results, and the receipt is test.receipt.json"
        ),
        "{error}"
    );
    drop(unread);
}
