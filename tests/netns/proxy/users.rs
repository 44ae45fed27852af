//! Who may use the proxy, and with which certificate it knocks.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use super::{CONFIG, Proxy, Web, gets, page, world};
use crate::cert;
use crate::common::pki::CLIENT;
use crate::common::{KNOCKD, SOON, World, install, said, wait_for};

#[test]
fn another_user_of_the_machine_is_refused_and_so_is_root() {
    let world = world(&["--open", "tcp/8080", "--many"]);
    let _daemon = world.daemon(CONFIG);
    let _web = Web::start(&world, 8080);
    let proxy = Proxy::start(&world, &["--listen", "127.0.0.1:1080", "--listen", "[::1]:1080"]);
    let as_nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    for place in ["127.0.0.1:1080", "[::1]:1080"] {
        gets(&world, &format!("socks5h://{place}"), "http://10.77.0.1:8080/");
        let mut command = world.inside(&world.client);
        command.args(as_nobody).args(["curl", "-sS", "-x", &format!("socks5h://{place}")]);
        let output = command.arg("http://10.77.0.1:8080/").output().unwrap();
        assert!(!output.status.success(), "{}", said(&output));
    }
    assert!(
        proxy.log().contains("a connection was refused: it is user 65534's, and this proxy is user 0's"),
        "{}",
        proxy.log()
    );
    // The other way round: a proxy of that user's is nothing for root.
    let log = fs::File::create(world.path("other.log")).unwrap();
    let mut other = world.inside(&world.client);
    other.args(as_nobody).arg(public_program(&world)).args(["proxy", "--listen", "127.0.0.1:1081"]);
    let mut other = other.env("HOME", "/nonexistent").stderr(log).spawn().unwrap();
    let heard = |words: &str| fs::read_to_string(world.path("other.log")).unwrap().contains(words);
    let listens = wait_for(SOON, || heard("listening at"));
    let output = page(&world, "socks5h://127.0.0.1:1081", "http://10.77.0.1:8080/");
    let refused = wait_for(SOON, || heard("it is user 0's, and this proxy is user 65534's"));
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(listens && refused && !output.status.success(), "{}", said(&output));
}

/// The program where everybody may run it: the directory of the build may be the user's alone.
fn public_program(world: &World) -> std::path::PathBuf {
    let path = world.path("knockd-rs");
    install(Path::new(KNOCKD), &path);
    path
}

#[test]
fn who_knows_the_password_is_served_and_nobody_else() {
    let world = world(&["--open", "tcp/8080", "--many"]);
    let _daemon = world.daemon(CONFIG);
    let _web = Web::start(&world, 8080);
    let file = world.path("password");
    fs::write(&file, "open sesame\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let file = file.display().to_string();
    let arguments = ["--listen", "10.77.0.2:1080", "--user", "ali", "--password-file", &file];
    let output = world.client(&[&["proxy"], &arguments[..]].concat());
    assert!(output.status.code() == Some(3) && said(&output).contains("chmod 0600"), "{}", said(&output));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let _proxy = Proxy::start(&world, &arguments);
    let url = "http://10.77.0.1:8080/";
    gets(&world, "socks5h://ali:open%20sesame@10.77.0.2:1080", url);
    for wrong in [
        "socks5h://ali:open@10.77.0.2:1080",
        "socks5h://baba:open%20sesame@10.77.0.2:1080",
        "socks5h://10.77.0.2:1080",
        "socks4://ali@10.77.0.2:1080",
        "socks4a://ali:open%20sesame@10.77.0.2:1080",
    ] {
        assert!(!page(&world, wrong, url).status.success(), "{wrong}");
    }
}

#[test]
fn a_place_that_others_can_get_to_takes_a_password() {
    let world = world(&["--open", "tcp/8080"]);
    for place in ["10.77.0.2:1080", "0.0.0.0:1080", "[::]:1080"] {
        let output = world.client(&["proxy", "--listen", place]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains("so a password is needed"), "{}", said(&output));
    }
}

#[test]
fn a_unix_socket_is_its_users_alone_and_gone_after_the_end() {
    let world = world(&["--open", "tcp/8080", "--many"]);
    let _daemon = world.daemon(CONFIG);
    let _web = Web::start(&world, 8080);
    let dir = world.path("private");
    fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
    let path = dir.join("socks");
    let mut proxy = Proxy::start(&world, &["--listen", &format!("unix:{}", path.display())]);
    let url = "http://10.77.0.1:8080/";
    gets(&world, &format!("socks5h://localhost{}", path.display()), url);
    // Even where the file lets others in, the proxy does not.
    for (path, mode) in [(&dir, 0o755), (&path, 0o666)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut other = world.inside(&world.client);
    other.args(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "curl", "-sS", "-x"]);
    let output = other.args([&format!("socks5h://localhost{}", path.display()), url]).output().unwrap();
    assert!(!output.status.success(), "{}", said(&output));
    assert!(wait_for(SOON, || proxy.log().contains("it is user 65534's")), "{}", proxy.log());
    proxy.end();
    assert!(!path.exists());
}

#[test]
fn a_certificates_passphrase_is_needed_once_and_a_new_certificate_counts_at_once() {
    let world = World::new();
    let ca = cert::office(&world);
    let config = "[freshness]\nclock = \"trusted\"\n[guard]\ndrop = [\"tcp/8080\"]\n[certificate_authority]\n\
                  ca = \"ca.pem\"\ncrl = \"crl.pem\"\n[[certificates]]\nname = \"staff\"\nopen = [\"tcp/8080\"]\n";
    let daemon = world.daemon(config);
    let alice = ca.issue("alice", "p256", CLIENT);
    let encrypt = |key: &Path| {
        let mut openssl = Command::new("openssl");
        openssl.args(["pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", "pass:sesame", "-in"]).arg(key);
        fs::write(key, openssl.output().unwrap().stdout).unwrap();
    };
    encrypt(&alice.key);
    let passphrase = world.path("passphrase");
    fs::write(&passphrase, "sesame\n").unwrap();
    fs::set_permissions(&passphrase, fs::Permissions::from_mode(0o600)).unwrap();
    let words = ["--passphrase-file", &passphrase.display().to_string()];
    cert::import_with(&world, &alice, &words);
    let _web = Web::start(&world, 8080);
    let url = "http://10.77.0.1:8080/";
    let get = || gets(&world, "socks5h://127.0.0.1:1080", url);
    // Without a terminal nobody can be asked: it says so, and tries the port all the same.
    {
        let proxy = Proxy::start(&world, &["--timeout", "1s"]);
        assert!(proxy.log().contains("until that is mended it is not knocked at"), "{}", proxy.log());
        assert!(!page(&world, "socks5h://127.0.0.1:1080", url).status.success());
        assert_eq!(daemon.logged("granted"), 0);
    }
    let proxy = Proxy::start(&world, &words);
    // It was opened at the start, and is not looked for again.
    fs::remove_file(&passphrase).unwrap();
    get();
    assert_eq!(daemon.logged("granted"), 1, "{}", daemon.log());
    // A new key in its place that needs no passphrase.
    let again = ca.issue("alice", "p256", CLIENT);
    assert_eq!(again.key, alice.key);
    get();
    assert_eq!(daemon.logged("granted"), 2, "{}{}", proxy.log(), daemon.log());
}
