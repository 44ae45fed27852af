//! What has to be built for these tests: the client alone as a program and as a library, and programs in C.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::common::{said, succeed};

/// A directory apart, so that the program under test stays the one with all features. `tests/all` builds there, too.
pub fn client_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("client")
}

/// The client's program without the daemon.
pub fn client_alone() -> PathBuf {
    cargo(&["build", "--lib", "--bin", "knockd-rs", "--features", "client"]);
    client_dir().join("debug/knockd-rs")
}

/// The example in Rust. Not by cargo, which would build what the tests use, too.
pub fn example(to: &Path) -> PathBuf {
    client_alone();
    let (built, program) = (client_dir().join("debug"), to.join("reach"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/examples/reach.rs");
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition", "2024", "--extern"]);
    rustc.arg(format!("knockd_rs={}", built.join("libknockd_rs.rlib").display()));
    rustc.arg("-L").arg(format!("dependency={}", built.join("deps").display()));
    succeed(&rustc.arg(source).arg("-o").arg(&program).output().unwrap());
    program
}

/// The directory with the shared library.
pub fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        cargo(&["rustc", "--lib", "--crate-type", "cdylib", "--features", "client,capi"]);
        client_dir().join("debug")
    })
}

fn cargo(arguments: &[&str]) {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--locked", "--quiet", "--no-default-features", "--target-dir"])
        .arg(client_dir())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", said(&output));
}

/// A program in C, with the library and what the sanitisers think of it.
pub fn program(source: &str, to: &Path) -> PathBuf {
    let (top, library) = (Path::new(env!("CARGO_MANIFEST_DIR")), library());
    let program = to.join(Path::new(source).file_stem().unwrap());
    let mut cc = Command::new("cc");
    cc.args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g", "-fsanitize=address,undefined"]);
    cc.arg("-I").arg(top.join("src/capi")).arg(top.join("tests").join(source)).arg("-o").arg(&program);
    cc.arg("-L").arg(library).arg("-lknockd_rs").arg(format!("-Wl,-rpath,{}", library.display()));
    succeed(&cc.output().expect("`cc`, of the package gcc"));
    program
}

/// The libraries that a file is linked with, by name; the kernel's own and the loader are not counted.
pub fn linked(file: &Path) -> Vec<String> {
    let printed = succeed(&Command::new("ldd").arg(file).output().unwrap());
    let names = printed.lines().filter_map(|line| line.split_whitespace().next());
    let mut names: Vec<String> = names
        .filter(|name| !name.starts_with("linux-vdso") && !name.contains("/ld-linux"))
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}
