//! The client alone: what it is linked with, and that nobody has to be root to knock.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Output, Stdio};

use crate::build::{client_alone, library, linked};
use crate::common::{SERVER_NAME, World, install, said, succeed};
use crate::rust::{config, world};

const NOBODY: u32 = 65_534;

#[test]
fn the_client_alone_and_the_library_are_linked_with_libc_and_its_compilers_runtime_only() {
    for file in [client_alone(), library().join("libknockd_rs.so")] {
        let linked = linked(&file);
        // libm is a part of glibc; logarithms of pauses come from there.
        let others = linked
            .iter()
            .filter(|name| !matches!(name.as_str(), "libc.so.6" | "libm.so.6" | "libgcc_s.so.1"));
        assert_eq!(others.count(), 0, "{}: {linked:?}", file.display());
        assert!(linked.contains(&"libc.so.6".to_owned()), "{}: {linked:?}", file.display());
    }
}

/// Runs it in the client's namespace as somebody without groups, capabilities and ways to get them.
fn as_nobody(world: &World, program: &Path, arguments: &[&str]) -> Output {
    let mut command = world.inside(&world.client);
    command.args(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"]);
    command.args(["--inh-caps=-all", "--bounding-set=-all"]).arg(program).args(arguments);
    command.env_clear().env("HOME", world.path("home")).env("PATH", std::env::var_os("PATH").unwrap());
    command.stdin(Stdio::null()).output().unwrap()
}

fn give_away(path: &Path) {
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| give_away(&entry.unwrap().path()));
    }
}

#[test]
fn an_unprivileged_user_opens_a_port_with_the_client_alone_by_spa_and_by_sequence() {
    let world = world("drop", &["spa", "sequence"]);
    let _daemon = world.daemon(&config("drop"));
    let _service = world.listener(22);
    give_away(&world.path("home"));
    // Where this was built others may have no way to.
    let program = world.path("knockd-rs");
    install(&client_alone(), &program);
    let status = succeed(&as_nobody(&world, Path::new("cat"), &["/proc/self/status"]));
    for line in ["Uid:\t65534\t65534\t65534\t65534", "Groups:\t ", "CapEff:\t0000000000000000"] {
        assert!(status.contains(line), "no {line:?} in {status}");
    }
    for method in ["spa", "sequence"] {
        let output =
            as_nobody(&world, &program, &["connect", "--verbose", "--method", method, SERVER_NAME, "22"]);
        assert!(said(&output).contains("hello\n"), "{}", said(&output));
        assert!(said(&output).contains(&format!("after a knock by {method}")), "{}", said(&output));
    }
}
