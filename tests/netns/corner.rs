//! Other people's programs, which are Debian's, taken out of their packages by `tests/peers/unpack` and never installed:
//! a place on the server where they are installed, as far as they can tell.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::common::{SOON, World, succeed, wait_for};

/// A place in the server's network namespace where the unpacked programs are installed, as far as they can tell.
pub(crate) struct Corner {
    init: Child,
}

impl Corner {
    pub(crate) fn new(world: &World) -> Self {
        let unpacked = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers");
        assert!(unpacked.is_dir(), "{} is missing: tests/install-deps test makes it", unpacked.display());
        let enter = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/enter");
        let mut command = world.inside(&world.server);
        // Processes die with the first one of their namespace, and that one with us.
        command.args(["unshare", "--mount", "--pid", "--fork", "--kill-child"]).arg(enter).arg(unpacked);
        command.args(["sh", "-c", "touch /run/ready; exec sleep 600"]).stdin(Stdio::null());
        let corner = Self { init: command.spawn().unwrap() };
        assert!(wait_for(SOON, || corner.tell("test -e /run/ready").status.success()), "`enter` fails");
        corner
    }

    /// Runs a shell command there.
    pub(crate) fn tell(&self, script: &str) -> Output {
        let children = format!("/proc/{0}/task/{0}/children", self.init.id());
        let first = std::fs::read_to_string(children).unwrap_or_default();
        let mut command = Command::new("nsenter");
        command.args(["--target", first.trim(), "--mount", "--pid", "--net", "--root", "--wd", "env", "-i"]);
        command.args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "sh", "-ec", script]);
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// The same; it has to succeed.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) -> String {
        succeed(&self.tell(script))
    }
}

impl Drop for Corner {
    fn drop(&mut self) {
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}
