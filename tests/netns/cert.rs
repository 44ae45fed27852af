//! Knocks with certificates that the real `openssl` made.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::pki::{Authority, CLIENT, Issued, make_key, run};
use crate::common::{
    Answer, CLIENT4, CLIENT6, Daemon, PATIENCE, SERVER_NAME, SERVER4, SERVER6, World, said, succeed, wait_for,
};

/// What all stories begin with; tables follow.
const BASE: &str = "[freshness]\nclock = \"trusted\"\n[guard]\ndrop = [\"tcp/22\", \"tcp/8000-8010\"]\n\
                    [services]\nssh = [\"tcp/22\"]\n\
                    [certificate_authority]\nca = \"ca.pem\"\ncrl = \"crl.pem\"\nleaves = \"leaves.d\"\n";
const STAFF: &str = "[[certificates]]\nname = \"staff\"\nopen = [\"ssh\", \"tcp/8000-8010\"]\n";

/// An authority whose certificate and list are in the server's configuration directory.
pub(crate) fn office(world: &World) -> Authority {
    let dir = world.path("pki");
    fs::DirBuilder::new().mode(0o755).create(&dir).unwrap();
    let ca = Authority::new(&dir, "Root");
    fs::create_dir(world.path("etc/leaves.d")).unwrap();
    fs::copy(ca.certificate(), world.path("etc/ca.pem")).unwrap();
    publish(world, &ca.crl());
    ca
}

/// Puts a revocation list in place, by rename as it should be.
fn publish(world: &World, crl: &str) {
    let new = world.path("etc/crl.pem.new");
    fs::write(&new, crl).unwrap();
    fs::rename(new, world.path("etc/crl.pem")).unwrap();
}

/// Lets the client import the bundle of the table `staff`, with this certificate.
pub(crate) fn import(world: &World, issued: &Issued) {
    import_with(world, issued, &[]);
}

/// The same with more arguments.
pub(crate) fn import_with(world: &World, issued: &Issued, more: &[&str]) {
    let bundle = world.path("staff.knock");
    let mut make = std::process::Command::new(crate::common::KNOCKD);
    make.args(["certificates", "bundle", "staff", "--server", SERVER_NAME, "--host", &SERVER4.to_string()]);
    make.arg("--out").arg(&bundle).arg("--config-dir").arg(world.path("etc"));
    let _ = fs::remove_file(&bundle);
    succeed(&make.output().unwrap());
    let path = |path: &Path| path.display().to_string();
    let words = [
        "import",
        &path(&bundle),
        "--cert",
        &path(&issued.certificate),
        "--key",
        &path(&issued.key),
        "--force",
    ];
    succeed(&world.client(&[&words, more].concat()));
}

/// Knocks with another certificate than the imported one.
fn knock_with(world: &World, issued: &Issued, arguments: &[&str]) {
    let path = |path: &Path| path.display().to_string();
    let files = ["--cert", &path(&issued.certificate), "--key", &path(&issued.key)];
    world.knock(&[&files, arguments].concat());
}

/// The knock of this certificate is refused for this reason, told with its subject.
#[track_caller]
fn is_refused(world: &World, daemon: &Daemon<'_>, issued: &Issued, why: &str) {
    let name = issued.certificate.file_stem().unwrap().to_string_lossy().into_owned();
    knock_with(world, issued, &[]);
    let sentence = format!("from 10.77.0.2: the certificate of O=Example, CN={name} is refused: {why}");
    daemon.await_log(&sentence);
}

fn grant_of<'a>(grants: &'a [serde_json::Value], address: &str) -> &'a serde_json::Value {
    grants.iter().find(|grant| grant["address"] == address).unwrap_or_else(|| panic!("{grants:?}"))
}

#[test]
fn certificates_of_every_kind_knock_in_one_datagram_over_ipv4_and_ipv6() {
    let world = World::new();
    let ca = office(&world);
    let daemon = world.daemon(&format!("{BASE}{STAFF}"));
    let _ssh = world.listener(22);
    for kind in ["ed25519", "p256", "rsa2048"] {
        let issued = ca.issue(kind, kind, &format!("{CLIENT}subjectAltName = URI:knock:svc/ssh\n"));
        import(&world, &issued);
        for (server, client) in [(SERVER4, CLIENT4), (SERVER6, CLIENT6)] {
            world.retarget(&server.to_string());
            assert_eq!(world.try_tcp(None, server, 22), Answer::Silence, "{kind}");
            let ear = world.ear();
            world.knock(&[]);
            let packets = ear.heard();
            assert!(packets.len() == 1 && packets[0].len() <= 1232, "{kind}");
            let grants = daemon.grants();
            let grant = grant_of(&grants, &client.to_string());
            assert_eq!(
                (&grant["ports"], &grant["subject"]),
                (&"tcp/22".into(), &format!("O=Example, CN={kind}").into())
            );
            assert!(grant["profile"].as_str().unwrap().starts_with("staff."), "{grant}");
            assert!(world.can_connect(server, 22), "{kind}");
            daemon.command(&["revoke", "staff"]);
        }
        daemon.await_log(&format!("one connection, certificate of O=Example, CN={kind}"));
    }
    assert!(world.nft(&["list", "table", "inet", "knockd-rs"]).contains("tcp"));
}

#[test]
fn a_certificate_too_large_for_a_datagram_knocks_by_its_hash() {
    let world = World::new();
    let ca = office(&world);
    let issued = ca.issue("large", "rsa4096", CLIENT);
    let daemon = world.daemon(&format!("{BASE}{STAFF}"));
    import(&world, &issued);
    let output = world.client(&["knock", SERVER_NAME, "--no-wait"]);
    succeed(&output);
    assert!(said(&output).contains("among its `leaves`"), "{}", said(&output));
    assert!(wait_for(PATIENCE * 10, || daemon.counter("dropped: unknown-leaf") == 1), "{}", daemon.log());
    assert_eq!(daemon.grants().len(), 0);
    fs::copy(&issued.certificate, world.path("etc/leaves.d/large.pem")).unwrap();
    daemon.await_log("were read again");
    assert!(wait_for(Duration::from_secs(3), || {
        world.knock(&[]);
        !daemon.grants().is_empty()
    }));
}

#[test]
fn each_thing_that_can_be_wrong_with_a_certificate_is_told_as_what_it_is() {
    let world = World::new();
    let ca = office(&world);
    let alice = ca.issue("alice", "ed25519", CLIENT);
    let revoked = ca.issue("revoked", "p256", CLIENT);
    let past = ca.issue_between("past", "p256", CLIENT, ("20200101000000Z", "20210101000000Z"));
    let future = ca.issue_between("future", "p256", CLIENT, ("20450101000000Z", "20490101000000Z"));
    let server = ca.issue("server", "p256", "basicConstraints = CA:FALSE\nextendedKeyUsage = serverAuth\n");
    let authority = ca.issue("sub", "p256", "basicConstraints = CA:TRUE\nextendedKeyUsage = clientAuth\n");
    ca.revoke(&revoked);
    publish(&world, &ca.crl());
    let daemon = world.daemon(&format!("{BASE}{STAFF}"));
    import(&world, &alice);
    is_refused(&world, &daemon, &revoked, "its authority has revoked it");
    is_refused(&world, &daemon, &past, "it expired");
    is_refused(&world, &daemon, &future, "it is valid from");
    is_refused(&world, &daemon, &server, "it is not for clients");
    is_refused(&world, &daemon, &authority, "it is an authority's");
    let other = Authority::new(&world.path("pki"), "Other").issue("eve", "p256", CLIENT);
    let before = daemon.log().len();
    knock_with(&world, &other, &[]);
    assert!(wait_for(PATIENCE * 10, || daemon.counter("dropped: issuer") == 1), "{}", daemon.log());
    assert_eq!(daemon.log().len(), before, "strangers are not logged");
    assert!(daemon.grants().is_empty());
}

#[test]
fn a_knock_opens_what_both_the_server_and_the_certificate_allow() {
    let world = World::new();
    let ca = office(&world);
    let san = "subjectAltName = URI:knock:tcp/8001-8999?max=5, URI:knock:tcp/443\n";
    let issued = ca.issue("alice", "ed25519", &format!("{CLIENT}{san}"));
    let daemon = world.daemon(&format!("{BASE}{STAFF}connections = \"many\"\n"));
    import(&world, &issued);
    world.knock(&["tcp/22", "--many"]);
    daemon.await_log("the certificate's knock: URIs allow none of tcp/22");
    world.knock(&["tcp/443", "--many"]);
    daemon.await_log("the profile's `open` holds none of tcp/443");
    assert!(daemon.grants().is_empty());
    world.knock(&["--many", "--for", "1h"]);
    let grants = daemon.grants();
    assert_eq!((grants.len(), &grants[0]["ports"]), (1, &"tcp/8001-8010".into()));
    assert_eq!(grants[0]["granted_for"], 5.0);
}

#[test]
fn a_certificate_that_no_table_is_for_opens_nothing_and_is_told() {
    let world = World::new();
    let ca = office(&world);
    let issued = ca.issue("alice", "ed25519", CLIENT);
    let daemon = world.daemon(&format!("{BASE}{STAFF}subject = \"O=Example, CN=bob\"\n"));
    import(&world, &issued);
    is_refused(&world, &daemon, &issued, "no [[certificates]] table is for it");
    daemon.await_log("refused - from");
}

#[test]
fn a_packet_sent_again_is_refused_also_after_a_restart() {
    let world = World::new();
    let issued = office(&world).issue("alice", "ed25519", CLIENT);
    let mut daemon = world.daemon(&format!("{BASE}{STAFF}"));
    import(&world, &issued);
    let ear = world.ear();
    world.knock(&[]);
    let packet = ear.one();
    assert_eq!(daemon.grants().len(), 2, "tcp/22 and tcp/8000-8010");
    daemon.command(&["revoke", "staff"]);
    world.send(None, SERVER4, &packet);
    // A restart keeps the last packets' mac1 too; a reboot does not.
    daemon.stop();
    fs::remove_dir_all(world.path("run")).unwrap();
    fs::create_dir(world.path("run")).unwrap();
    fs::set_permissions(world.path("run"), fs::Permissions::from_mode(0o711)).unwrap();
    daemon.start_again();
    world.send(None, SERVER4, &packet);
    daemon.await_log("refused staff from 10.77.0.2: the knock's counter was used before");
    assert!(daemon.grants().is_empty());
}

#[test]
fn without_a_good_revocation_list_certificates_are_refused_until_there_is_one() {
    let world = World::new();
    let ca = office(&world);
    let issued = ca.issue("alice", "ed25519", CLIENT);
    let old = ca.crl();
    publish(&world, &ca.crl());
    let strict = BASE.replace("leaves =", "crl_grace = \"0s\"\nleaves =");
    let mut daemon = world.daemon(&format!("{strict}{STAFF}"));
    import(&world, &issued);
    let refused_with = |daemon: &Daemon<'_>, change: &dyn Fn(), why: &str| {
        let seen = daemon.logged("were read again");
        change();
        assert!(
            wait_for(Duration::from_secs(1), || daemon.logged("were read again") > seen),
            "{}",
            daemon.log()
        );
        std::thread::sleep(PATIENCE);
        is_refused(&world, daemon, &issued, why);
        assert_eq!(daemon.degraded().len(), 1, "{:?}", daemon.degraded());
    };
    refused_with(&daemon, &|| publish(&world, &old), "the revocation list of O=Example, CN=Root is older");
    daemon.restart();
    is_refused(&world, &daemon, &issued, "the revocation list of O=Example, CN=Root is older");
    let missing = || fs::remove_file(world.path("etc/crl.pem")).unwrap();
    refused_with(&daemon, &missing, "there is no revocation list of O=Example, CN=Root");
    let forged = Authority::named(&world.path("pki"), "forger", "Root").crl();
    refused_with(
        &daemon,
        &|| publish(&world, &forged),
        "the revocation list that names O=Example, CN=Root is not",
    );
    let late = ca.crl_between("20200101000000Z", "20200201000000Z");
    refused_with(&daemon, &|| publish(&world, &late), "the revocation list of O=Example, CN=Root is 24");
    publish(&world, &ca.crl());
    daemon.await_log("no longer: a revocation list is missing");
    world.knock(&[]);
    assert_eq!(daemon.grants().len(), 2, "{}", daemon.log());
}

#[test]
fn of_two_lists_of_one_authority_the_newer_counts_in_either_order() {
    let world = World::new();
    let ca = office(&world);
    let issued = ca.issue("alice", "p256", CLIENT);
    fs::write(world.path("etc/old.pem"), ca.crl()).unwrap();
    ca.revoke(&issued);
    fs::write(world.path("etc/new.pem"), ca.crl()).unwrap();
    let with =
        |lists: &str| format!("{}{STAFF}", BASE.replace("crl = \"crl.pem\"", &format!("crl = {lists}")));
    let mut daemon = world.daemon(&with("[\"old.pem\", \"new.pem\"]"));
    import(&world, &issued);
    is_refused(&world, &daemon, &issued, "its authority has revoked it");
    world.configure(&with("[\"new.pem\", \"old.pem\"]"));
    daemon.restart();
    is_refused(&world, &daemon, &issued, "its authority has revoked it");
    assert!(daemon.degraded().is_empty());
}

#[test]
fn a_revocation_takes_effect_within_a_second_and_ends_live_grants_where_that_is_wanted() {
    let world = World::new();
    let ca = office(&world);
    let issued = ca.issue("alice", "ed25519", CLIENT);
    let other = ca.issue("bob", "ed25519", CLIENT);
    let config = BASE.replace("leaves =", "end_grants_on_revocation = true\nleaves =");
    let daemon = world.daemon(&format!("{config}{STAFF}duration = \"10m\"\nconnections = \"many\"\n"));
    let _ssh = world.listener(22);
    import(&world, &issued);
    // Twice: the second one finds the chain in the cache.
    world.knock(&["--many"]);
    world.knock(&["--many"]);
    knock_with(&world, &other, &["tcp/8000", "--many"]);
    assert!(world.can_connect(SERVER4, 22));
    ca.revoke(&issued);
    let crl = ca.crl();
    let started = Instant::now();
    publish(&world, &crl);
    let ended = wait_for(Duration::from_secs(1), || !world.can_connect(SERVER4, 22));
    assert!(ended, "after {:?}:\n{}", started.elapsed(), daemon.log());
    daemon.await_log("the certificate of O=Example, CN=alice was revoked by its authority");
    is_refused(&world, &daemon, &issued, "its authority has revoked it");
    let grants = daemon.grants();
    assert!(grants.iter().all(|grant| grant["subject"] == "O=Example, CN=bob"), "{grants:?}");
    assert!(!grants.is_empty());
}

#[test]
fn a_revocation_leaves_live_grants_alone_unless_told_otherwise() {
    let world = World::new();
    let ca = office(&world);
    let issued = ca.issue("alice", "ed25519", CLIENT);
    let daemon = world.daemon(&format!("{BASE}{STAFF}duration = \"10m\"\n"));
    import(&world, &issued);
    world.knock(&[]);
    ca.revoke(&issued);
    publish(&world, &ca.crl());
    daemon.await_log("were read again");
    std::thread::sleep(PATIENCE);
    is_refused(&world, &daemon, &issued, "its authority has revoked it");
    assert!(!daemon.grants().is_empty());
}

#[test]
fn keys_come_encrypted_and_in_pkcs12_and_what_is_not_read_says_how_to_convert_it() {
    let world = World::new();
    let ca = office(&world);
    let issued = ca.issue("alice", "p256", CLIENT);
    let daemon = world.daemon(&format!("{BASE}{STAFF}"));
    import(&world, &issued);
    let file = |name: &str| world.path("pki").join(name).display().to_string();
    fs::write(file("word"), "correct horse\n").unwrap();
    fs::set_permissions(file("word"), fs::Permissions::from_mode(0o600)).unwrap();
    let word = format!("file:{}", file("word"));
    let (key, certificate) = (issued.key.display().to_string(), issued.certificate.display().to_string());
    let openssl = |words: &[&str], out: &str| {
        run(std::process::Command::new("openssl").args(words).args(["-out", &file(out)]));
        fs::set_permissions(file(out), fs::Permissions::from_mode(0o600)).unwrap();
    };
    openssl(&["pkcs8", "-topk8", "-in", &key, "-passout", &word], "encrypted.key");
    openssl(&["pkcs12", "-export", "-inkey", &key, "-in", &certificate, "-passout", &word], "alice.p12");
    let old =
        ["pkcs12", "-export", "-legacy", "-descert", "-macalg", "sha1", "-inkey", &key, "-in", &certificate];
    openssl(&[&old[..], &["-passout", &word]].concat(), "old.p12");
    let word = ["--passphrase-file", &file("word")].map(str::to_owned);
    for words in [
        ["--cert", &certificate, "--key", &file("encrypted.key")].map(str::to_owned).to_vec(),
        ["--pkcs12".to_owned(), file("alice.p12")].to_vec(),
    ] {
        let words: Vec<&str> = words.iter().chain(&word).map(String::as_str).collect();
        world.knock(&words);
        assert_eq!(daemon.grants().len(), 2, "{words:?}");
        daemon.command(&["revoke", "staff"]);
    }
    let old = world.client(&[
        "knock",
        SERVER_NAME,
        "--pkcs12",
        &file("old.p12"),
        "--passphrase-file",
        &file("word"),
    ]);
    assert!(said(&old).contains("openssl pkcs12 -legacy"), "{}", said(&old));
    fs::write(file("word"), "wrong\n").unwrap();
    let wrong = ["knock", SERVER_NAME, "--pkcs12", &file("alice.p12"), "--passphrase-file", &file("word")];
    assert!(said(&world.client(&wrong)).contains("does not open with this passphrase"));
    let foreign = world.path("pki").join("foreign.key");
    make_key(&foreign, "p256");
    let words = ["knock", SERVER_NAME, "--cert", &certificate, "--key", &foreign.display().to_string()];
    assert!(said(&world.client(&words)).contains("does not belong to the private key"));
}

/// A moment as `openssl ca` takes it.
fn moment(words: &str) -> String {
    let output =
        std::process::Command::new("date").args(["-u", "-d", words, "+%Y%m%d%H%M%SZ"]).output().unwrap();
    succeed(&output).trim().to_owned()
}

#[test]
fn a_list_past_its_date_counts_for_the_grace_and_the_log_says_so() {
    let world = World::new();
    let ca = office(&world);
    let issued = ca.issue("alice", "ed25519", CLIENT);
    publish(&world, &ca.crl_between(&moment("2 hours ago"), &moment("1 hour ago")));
    let daemon = world.daemon(&format!("{BASE}{STAFF}"));
    import(&world, &issued);
    daemon.await_log("min past its date; it still counts for 2");
    assert_eq!(daemon.degraded().len(), 1);
    world.knock(&[]);
    assert_eq!(daemon.grants().len(), 2, "{}", daemon.log());
    let mut check = std::process::Command::new(crate::common::KNOCKD);
    check.args(["check", "--config-dir"]).arg(world.path("etc"));
    let output = check.output().unwrap();
    assert!(
        said(&output).contains("warning: the revocation list of O=Example, CN=Root is"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_list_that_passes_its_date_while_nobody_knocks_is_told_by_itself() {
    let world = World::new();
    let ca = office(&world);
    publish(&world, &ca.crl_between(&moment("1 hour ago"), &moment("4 seconds")));
    let daemon = world.daemon(&format!("{BASE}{STAFF}"));
    assert!(daemon.degraded().is_empty());
    daemon.await_log("past its date; it still counts for");
    daemon.await_log("degraded: a revocation list is missing, wrong or past its date");
}

#[test]
fn a_passphrase_is_asked_for_on_the_terminal_and_not_shown() {
    use std::io::Write as _;
    use std::process::Stdio;

    let world = World::new();
    let ca = office(&world);
    let issued = ca.issue("alice", "p256", CLIENT);
    let daemon = world.daemon(&format!("{BASE}{STAFF}"));
    import(&world, &issued);
    let p12 = world.path("pki/alice.p12");
    let mut make = std::process::Command::new("openssl");
    make.args(["pkcs12", "-export", "-passout", "pass:correct horse", "-inkey"]).arg(&issued.key);
    run(make.arg("-in").arg(&issued.certificate).arg("-out").arg(&p12));
    let knock = format!("{} knock {SERVER_NAME} --no-wait --pkcs12 {}", crate::common::KNOCKD, p12.display());
    // A terminal of its own (script(1), of the package bsdutils).
    let mut command = world.inside(&world.client);
    command.args(["script", "-qec", &knock, "/dev/null"]).env("HOME", world.path("home"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(PATIENCE * 2);
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"correct horse\n").unwrap();
    let output = child.wait_with_output().unwrap();
    drop(input);
    assert!(
        said(&output).contains("Passphrase of") && !said(&output).contains("correct horse"),
        "{}",
        said(&output)
    );
    assert_eq!(daemon.grants().len(), 2, "{}{}", said(&output), daemon.log());
}
