//! Profiles made of other programs' configurations, opened by those programs' own clients where there is one.

use std::process::{Command, Output};
use std::time::Duration;

use crate::common::{Daemon, KNOCKD, PLAIN, SERVER4, World, said, succeed, wait_for};

/// Ports of all sections closed to strangers.
fn guarded() -> String {
    format!("{PLAIN}[guard]\ndrop = [\"tcp/22\", \"tcp/80\", \"tcp/443\"]\n")
}

fn import(world: &World, words: &[&str]) -> Output {
    let mut command = Command::new(KNOCKD);
    command.arg("import-config").args(words).args(["--host", &SERVER4.to_string(), "--server", "myserver"]);
    for (flag, dir) in
        [("--config-dir", "etc"), ("--state-dir", "lib"), ("--runtime-dir", "run"), ("--out", "home")]
    {
        command.arg(flag).arg(world.path(dir));
    }
    command.output().unwrap()
}

fn fixture(name: &str) -> String {
    format!("{}/tests/data/migrate/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Runs the client of knockd.
fn knock(world: &World, words: &[&str]) {
    let output = world.inside(&world.client).arg("knock").args(words).output();
    succeed(
        &output.unwrap_or_else(|error| panic!("`knock` cannot be run ({error}): apt-get install knockd")),
    );
}

fn granted(daemon: &Daemon<'_>, words: &str) -> bool {
    wait_for(Duration::from_secs(2), || daemon.log().contains(words))
}

#[test]
fn the_sequences_of_an_imported_knockd_conf_open_its_ports_to_knockds_own_client() {
    let world = World::new();
    let output = import(&world, &[&fixture("knockd.conf")]);
    let text = succeed(&output);
    assert!(
        text.contains("made the profile openssh of [openSSH]: tcp/22 for 1h, by tcp/7000,tcp/9000,tcp/8000"),
        "{text}"
    );
    assert!(text.contains("knockd.conf:26: [doorbell] command:"), "{text}");
    let daemon = world.daemon(&guarded());
    let _services = (world.listener(22), world.listener(80), world.listener(443));
    let server = SERVER4.to_string();
    // Out of order, and slower than seq_timeout.
    knock(&world, &[&server, "9000", "7000", "8000"]);
    std::thread::sleep(Duration::from_millis(5200));
    knock(&world, &["-d", "2700", &server, "7000", "9000", "8000"]);
    assert!(!world.can_connect(SERVER4, 22) && daemon.logged("granted ") == 0, "{}", daemon.log());
    std::thread::sleep(Duration::from_millis(5200));
    knock(&world, &[&server, "7000", "9000", "8000"]);
    assert!(granted(&daemon, "granted openssh from 10.77.0.2: tcp/22 for 1h"), "{}", daemon.log());
    assert!(
        world.can_connect(SERVER4, 22) && world.can_connect(SERVER4, 22),
        "any number, as the rule had it"
    );
    assert!(!world.can_connect(SERVER4, 443));
}

#[test]
fn an_imported_sequence_with_udp_in_it_opens_for_as_long_as_cmd_timeout_says() {
    let world = World::new();
    succeed(&import(&world, &[&fixture("knockd.conf")]));
    let daemon = world.daemon(&guarded());
    let _services = (world.listener(80), world.listener(443));
    let server = SERVER4.to_string();
    knock(&world, &[&server, "2222:tcp", "3333:tcp", "1111:tcp"]);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(daemon.logged("granted "), 0, "by TCP alone it is another sequence");
    knock(&world, &[&server, "2222:tcp", "3333:udp", "1111:tcp"]);
    assert!(granted(&daemon, "granted openhttps from 10.77.0.2: tcp/80 tcp/443 for 10s"), "{}", daemon.log());
    assert!(world.can_connect(SERVER4, 80) && world.can_connect(SERVER4, 443));
    assert!(wait_for(Duration::from_secs(12), || !world.can_connect(SERVER4, 443)));
}

#[test]
fn a_client_of_an_imported_fwknop_stanza_gets_in_with_its_new_keys() {
    let world = World::new();
    let text = succeed(&import(&world, &[&fixture("access.conf")]));
    assert!(
        text.contains(
            "made the profile fwknop of the stanza of line 3: tcp/22 udp/1194 for 30s, by new keys"
        ),
        "{text}"
    );
    let daemon = world.daemon(&guarded());
    let _ssh = world.listener(22);
    let bundle = world.path("home/fwknop.knock").display().to_string();
    succeed(&world.client(&["import", &bundle]));
    world.knock(&[]);
    assert!(granted(&daemon, "granted fwknop from 10.77.0.2: tcp/22 udp/1194 for 30s"), "{}", daemon.log());
    assert!(world.can_connect(SERVER4, 22));
    // Nothing is made twice, and nothing is written over.
    let again = import(&world, &[&fixture("access.conf")]);
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again).contains("fwknop.knock is there already"), "{}", said(&again));
}
