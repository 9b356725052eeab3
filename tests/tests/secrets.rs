//! Where keys and sets could leak on the machine that holds them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use convelo_tests::{World, convelo};

/// The exit code for a file that is wrong.
const USAGE: i32 = 2;

fn open_to(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn key_file_that_others_can_read() {
    let world = World::new();
    let parties = world.parties(["alice", "bob"]);
    world.job(None, &parties).address("localhost:1").give_to(&parties);
    parties[0].lines(&["bicycle"]);
    let key = parties[0].path("alice.key");
    for (mode, shown) in [(0o644, "0644"), (0o640, "0640"), (0o604, "0604"), (0o660, "0660")] {
        open_to(&key, mode);
        for args in [
            "run job.toml --as alice --insecure-simulated --input ids.txt --output matched.txt",
            "check job.toml --as alice",
            "join --service localhost:1 --name alice --parties 2 --data ids.txt --identity alice.key \
             --verify provider --service-key \
             sha256:0707070707070707070707070707070707070707070707070707070707070707",
            "serve --listen 127.0.0.1:0 --identity alice.key --simulated ../platform",
        ] {
            let ended = world.start_at(&parties[0], args).wait().expect(USAGE);
            ended.says(shown).says("chmod 600").says("make a new key");
        }
    }
    for mode in [0o600, 0o400] {
        open_to(&key, mode);
        world.start_at(&parties[0], "check job.toml --as alice").wait().expect(0);
    }
}

/// Whoever a file belongs to can read it, whatever its mode says. Only root can make such a file.
#[test]
fn key_file_of_another_user() {
    let world = World::new();
    let parties = world.parties(["alice", "bob"]);
    world.job(None, &parties).address("localhost:1").give_to(&parties);
    let key = parties[0].path("alice.key");
    if std::os::unix::fs::chown(&key, Some(65534), None).is_err() {
        eprintln!("not tested: this user may not give files away");
        return;
    }
    let ended = world.start_at(&parties[0], "check job.toml --as alice").wait().expect(USAGE);
    ended.says("it belongs to user 65534").says("chown").says("make a new key");
}

#[test]
fn other_key_files_that_others_can_read() {
    let world = World::new();
    world.start("keygen alice --authority pool").wait().expect(0);
    open_to(&world.path("pool/ca.key"), 0o644);
    world.start("keygen bob --authority pool").wait().expect(USAGE).says("chmod 600");
    assert!(!world.path("pool/bob.key").exists());
    open_to(&world.path("pool/alice.key"), 0o644);
    let serve = "serve --listen 127.0.0.1:0 --simulated platform --psi-listen 127.0.0.1:0 \
                 --insecure-psi-certificate pool/alice.crt --psi-key pool/alice.key \
                 --psi-client-ca pool/ca.crt";
    world.start(serve).wait().expect(USAGE).says("chmod 600");
}

/// A service is killed by a signal that dumps core, under limits that permit it.
#[test]
fn core_dump_of_a_program_that_holds_sets() {
    let world = World::new();
    let mut shell = Command::new("sh");
    let script = "ulimit -c unlimited 2>/dev/null || ulimit -c $(ulimit -H -c); exec \"$0\" \"$@\"";
    shell.args(["-c", script]).arg(convelo());
    shell.args(["serve", "--listen", "127.0.0.1:0", "--simulated", "platform", "--json"]);
    shell.current_dir(world.path("")).stdin(Stdio::null()).stderr(Stdio::null());
    let mut service = shell.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let stdout = service.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
    let limits = fs::read_to_string(format!("/proc/{}/limits", service.id())).unwrap();
    let limit = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(limit.split_whitespace().rev().skip(1).take(2).collect::<Vec<_>>(), ["0", "0"]);
    let pid = rustix::process::Pid::from_child(&service);
    rustix::process::kill_process(pid, rustix::process::Signal::ABORT).unwrap();
    let status = service.wait().unwrap();
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false));
}
