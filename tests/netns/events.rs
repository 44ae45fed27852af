//! What the daemon tells of what happens, to whom, and the commands that are run for it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use serde_json::{Value, json};

use crate::common::{Daemon, GUARDED, KNOCKD, SERVER4, SOON, World, said, succeed, wait_for};

fn events(daemon: &Daemon<'_>) -> Vec<Value> {
    let lines = daemon.command(&["events", "--json"]);
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == name).collect()
}

/// A process that ends with its handle.
struct Follower(Child);

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program(world: &World, arguments: &[&str]) -> Command {
    let mut command = Command::new(KNOCKD);
    let (own, run) = match arguments.iter().position(|word| *word == "--") {
        Some(at) => arguments.split_at(at),
        None => (arguments, &[][..]),
    };
    command.args(own).arg("--runtime-dir").arg(world.path("run")).args(run);
    command
}

#[test]
fn what_opens_ends_closes_and_is_refused_is_told_once_with_all_that_is_known() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--open", "udp/53", "--many"]);
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    world.knock(&["tcp/22", "--for", "2s", "--many"]);
    world.knock(&["udp/53", "--for", "1h", "--many"]);
    world.knock(&["udp/53", "--close"]);
    world.knock(&["tcp/23"]);
    daemon.await_log("refused ");
    assert!(wait_for(SOON, || !named(&events(&daemon), "ended").is_empty()), "{:?}", events(&daemon));
    let all = events(&daemon);
    let granted = named(&all, "granted");
    assert_eq!(granted.len(), 2);
    let time = granted[0]["time"].as_f64().unwrap();
    assert!(time > 1.7e9, "{time}");
    assert_eq!(
        *granted[0],
        json!({
            "time": time, "level": "info", "event": "granted", "profile": "laptop", "source": "10.77.0.2",
            "address": "10.77.0.2", "ports": ["tcp/22"], "connections": "many", "seconds": 2,
            "text": "tcp/22 for 2s, any number of connections",
        })
    );
    let ended = named(&all, "ended");
    assert_eq!(ended.len(), 1, "{all:?}");
    assert_eq!([&ended[0]["ports"], &ended[0]["reason"]], [&json!(["tcp/22"]), &json!("expired")]);
    assert!(ended[0]["time"].as_f64().unwrap() - time > 1.9);
    assert_eq!(named(&all, "closed")[0]["ports"], json!(["udp/53"]));
    assert_eq!(
        [&named(&all, "refused")[0]["reason"], &named(&all, "refused")[0]["profile"]],
        ["ports", "laptop"]
    );
    assert!(!daemon.log().contains("ended "), "the end of a grant is in the log");

    let people = daemon.command(&["events", "--event", "granted"]);
    assert_eq!(people.lines().count(), 2);
    assert!(
        people.contains("Z granted laptop from 10.77.0.2: tcp/22 for 2s, any number of connections\n"),
        "{people}"
    );
}

#[test]
fn a_revocation_and_a_used_grant_are_told_apart_from_a_deadline() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let _ssh = world.listener(22);
    world.knock(&["--for", "1h"]);
    assert!(world.can_connect(SERVER4, 22));
    assert!(daemon.grants().is_empty());
    daemon.command(&["grant", "laptop", "10.77.0.9", "--for", "1h", "--many"]);
    daemon.command(&["revoke", "10.77.0.9"]);
    assert!(wait_for(SOON, || events(&daemon).iter().any(|event| event["event"] == "revoked")));
    let all = events(&daemon);
    let ended: Vec<&Value> = named(&all, "ended").iter().map(|event| &event["reason"]).collect();
    assert_eq!(ended, ["used"]);
    assert_eq!(named(&all, "revoked")[0]["address"], "10.77.0.9");
}

#[test]
fn a_follower_hears_at_once_what_happens_and_that_the_daemon_has_ended() {
    let world = World::new();
    let mut daemon = world.daemon(GUARDED);
    let mut command = program(&world, &["events", "--follow", "--json"]);
    let mut follower = Follower(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(follower.0.stdout.take().unwrap());
    std::thread::sleep(Duration::from_millis(300));
    world.knock(&[]);
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["event"], "granted");
    daemon.stop();
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert!(rest.lines().last().unwrap().contains("\"stopped\""), "{rest}");
    let output = follower.0.wait().unwrap();
    assert_eq!(output.code(), Some(4));
}

#[test]
fn a_follower_whose_reader_is_gone_ends_with_the_next_event() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let mut command = program(&world, &["events", "--follow"]);
    let mut follower = Follower(command.stdout(Stdio::piped()).spawn().unwrap());
    std::thread::sleep(Duration::from_millis(300));
    drop(follower.0.stdout.take());
    assert!(follower.0.try_wait().unwrap().is_none());
    daemon.command(&["grant", "laptop", "10.77.0.9"]);
    assert!(wait_for(SOON, || follower.0.try_wait().unwrap().is_some_and(|status| status.success())));
}

#[test]
fn followers_are_bounded_do_not_crowd_out_commands_and_leave_room_when_they_go() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let path = world.path("run/control.sock");
    let follow = || {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"{\"command\":\"events\",\"follow\":true}\n").unwrap();
        let mut line = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
        (stream, line)
    };
    let followers: Vec<_> = (0..8).map(|_| follow()).collect();
    assert!(followers.iter().all(|(_, line)| line == "{\"done\":[]}\n"));
    assert!(follow().1.contains("as many follow the events as can"));
    // Connections that say nothing give way to commands; followers stay.
    let _idle: Vec<UnixStream> = (0..40).map(|_| UnixStream::connect(&path).unwrap()).collect();
    daemon.status();
    world.knock(&[]);
    for (stream, _) in &followers {
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        assert!(line.contains("granted"), "{line}");
    }
    drop(followers);
    assert!(wait_for(SOON, || follow().1 == "{\"done\":[]}\n"));
}

#[test]
fn a_follower_that_does_not_read_is_cut_off_and_nobody_waits_for_it() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22", "--many"]);
    let daemon = world.daemon(GUARDED);
    let mut stream = UnixStream::connect(world.path("run/control.sock")).unwrap();
    stream.write_all(b"{\"command\":\"events\",\"follow\":true}\n").unwrap();
    let mut slowest = Duration::ZERO;
    // Some 600 bytes each; the kernel holds 200 kB, the daemon 256 kB more.
    for _ in 0..900 {
        let asked = Instant::now();
        let mut command = UnixStream::connect(world.path("run/control.sock")).unwrap();
        command.write_all(b"{\"command\":\"grant\",\"profile\":\"laptop\",\"address\":\"10.77.0.9\",\"open\":[\"tcp/22\"],\"duration\":\"1h\",\"connections\":\"many\"}\n").unwrap();
        let mut answer = String::new();
        BufReader::new(command).read_line(&mut answer).unwrap();
        assert!(answer.contains("done"), "{answer}");
        daemon_revokes(&world);
        slowest = slowest.max(asked.elapsed());
    }
    assert!(slowest < Duration::from_secs(2), "a command waited for {slowest:?}");
    let mut all = String::new();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.read_to_string(&mut all).unwrap();
    let last = all.lines().last().unwrap();
    assert!(last.contains("this follower was cut off"), "{last}");
    drop(daemon);
}

fn daemon_revokes(world: &World) {
    let mut command = UnixStream::connect(world.path("run/control.sock")).unwrap();
    command.write_all(b"{\"command\":\"revoke\",\"what\":\"all\"}\n").unwrap();
    let mut answer = String::new();
    BufReader::new(command).read_line(&mut answer).unwrap();
    assert!(answer.contains("done"), "{answer}");
}

#[test]
fn readers_see_status_and_events_and_command_nothing_and_strangers_see_nothing() {
    let world = World::new();
    let config = format!("{GUARDED}[control]\nreaders = \"daemon\"\n");
    let daemon = world.daemon(&config);
    fs::set_permissions(world.path("run"), fs::Permissions::from_mode(0o711)).unwrap();
    let asks = |arguments: &[&str], groups: u32| {
        let mut command = program(&world, arguments);
        command.uid(54321).gid(groups);
        command.output().unwrap()
    };
    const DAEMON: u32 = 1; // Everywhere, by base-passwd.
    succeed(&asks(&["events"], DAEMON));
    succeed(&asks(&["status"], DAEMON));
    for command in
        [&["revoke", "all"][..], &["guard", "tcp/80"], &["reload"], &["grant", "laptop", "10.77.0.9"]]
    {
        let output = asks(command, DAEMON);
        assert_eq!(output.status.code(), Some(6), "{command:?}: {}", said(&output));
        assert!(said(&output).contains("may look at status and events"), "{}", said(&output));
    }
    for command in [&["events"][..], &["events", "--follow"], &["status"]] {
        let output = asks(command, 23456);
        assert_eq!(output.status.code(), Some(7), "{command:?}: {}", said(&output));
    }
    drop(daemon);
}

/// A script that writes what it was told into a file, and a hook that runs it.
fn hook(world: &World, script: &str, arguments: &[&str]) -> Follower {
    let path = world.path("hook.sh");
    fs::write(&path, format!("#!/bin/bash\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let words = [&["hook"], arguments, &["--", path.to_str().unwrap(), "a b; echo $HOME"]].concat();
    let log = fs::File::create(world.path("hook.log")).unwrap();
    let mut command = program(world, &words);
    command.current_dir(world.path("home")).stderr(log).env("KNOCKD_RS_SERVICE", "stale");
    Follower(command.spawn().unwrap())
}

fn told(world: &World) -> Vec<String> {
    let text = fs::read_to_string(world.path("home/told")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

const WRITE: &str = "echo \"$1|$KNOCKD_RS_EVENT|$KNOCKD_RS_PROFILE|$KNOCKD_RS_ADDRESS|$KNOCKD_RS_PORTS|$KNOCKD_RS_SECONDS|\
     $KNOCKD_RS_REASON|$KNOCKD_RS_SERVICE\" >> told";

#[test]
fn a_command_is_run_for_each_grant_and_its_end_in_order_and_without_a_shell() {
    let world = World::new();
    let mut daemon = world.daemon(GUARDED);
    let _hook = hook(&world, WRITE, &[]);
    assert!(wait_for(SOON, || told(&world).len() == 1));
    world.knock(&["--for", "1s"]);
    assert!(wait_for(SOON, || told(&world).len() == 3), "{:?}", told(&world));
    let expected = [
        "a b; echo $HOME|following||||||",
        "a b; echo $HOME|granted|laptop|10.77.0.2|tcp/22|1||",
        "a b; echo $HOME|ended|laptop|10.77.0.2|tcp/22||expired|",
    ];
    assert_eq!(told(&world), expected);

    // The daemon may come and go.
    daemon.stop();
    daemon.start_again();
    assert!(wait_for(SOON, || told(&world).len() == 4), "{:?}", told(&world));
    world.knock(&["--for", "1h"]);
    assert!(wait_for(SOON, || told(&world).len() == 5), "{:?}", told(&world));
    assert_eq!(
        told(&world)[3..].iter().map(|line| line.split('|').nth(1).unwrap()).collect::<Vec<_>>(),
        ["following", "granted"]
    );
}

#[test]
fn a_command_that_hangs_is_killed_with_its_children_and_the_next_one_runs() {
    let world = World::new();
    let daemon = world.daemon(GUARDED);
    let script = "echo $$ >> pids; sleep 600 & echo $! >> pids; wait";
    let _hook = hook(&world, script, &["--event", "granted", "--time-limit", "1s"]);
    let pids = || {
        let text = fs::read_to_string(world.path("home/pids")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw).collect::<Vec<Pid>>()
    };
    std::thread::sleep(Duration::from_millis(500));
    daemon.command(&["grant", "laptop", "10.77.0.8"]);
    daemon.command(&["grant", "laptop", "10.77.0.9"]);
    assert!(wait_for(SOON, || pids().len() == 4), "{:?}", pids());
    assert!(wait_for(SOON, || pids().iter().all(|pid| crate::common::is_gone(*pid))), "a process lives on");
    let log = fs::read_to_string(world.path("hook.log")).unwrap();
    assert!(log.contains("the command for granted took too long and was killed"), "{log}");
}

#[test]
fn no_more_commands_run_at_a_time_than_the_number_says() {
    let world = World::new();
    world.enrol("laptop", &["--open", "tcp/22"]);
    let daemon = world.daemon(GUARDED);
    let script = "touch running.$$; ls running.* | wc -l >> counts; sleep 0.3; rm running.$$";
    let _hook = hook(&world, script, &["--event", "granted", "--jobs", "3"]);
    std::thread::sleep(Duration::from_millis(500));
    for last in 1..=12 {
        daemon.command(&["grant", "laptop", &format!("10.77.0.{last}")]);
    }
    let counts = || {
        let text = fs::read_to_string(world.path("home/counts")).unwrap_or_default();
        text.lines().filter_map(|line| line.trim().parse::<u32>().ok()).collect::<Vec<u32>>()
    };
    assert!(wait_for(SOON, || counts().len() == 12), "{:?}", counts());
    assert_eq!(counts().into_iter().max(), Some(3), "{:?}", counts());
}

#[test]
fn a_hook_that_may_not_ask_says_so_and_ends() {
    let world = World::new();
    let _daemon = world.daemon(GUARDED);
    let output = program(&world, &["hook", "--", "true"]).uid(54321).gid(54321).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
}

#[test]
fn an_idle_daemon_with_a_follower_and_a_door_does_not_wake() {
    let world = World::new();
    let config = format!("{GUARDED}[services]\nssh = {{ ports = [\"tcp/22\"], unit = \"ssh.service\" }}\n");
    let daemon = world.daemon(&config);
    let mut command = program(&world, &["events", "--follow"]);
    let _follower = Follower(command.stdout(Stdio::null()).spawn().unwrap());
    world.knock(&["--for", "1s"]);
    assert!(wait_for(SOON, || daemon.logged("door-closed") == 1));
    std::thread::sleep(Duration::from_millis(500));
    let switches = || {
        let status =
            fs::read_to_string(format!("/proc/{}/status", daemon.monitor().as_raw_nonzero())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    let before = switches();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(switches() - before, 0, "the monitor woke while nothing happened");
}
