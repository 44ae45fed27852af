//! The daemon's directories: whose they are, how much room is left, and whether a file can be made safe there.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::statvfs;

use crate::doctor::server::{Directory, Place, Role};
use crate::files;

/// Looks at a directory, and writes a file there for a moment where the daemon has to write.
pub(super) fn look(path: &Path, role: Role, may_write: bool) -> Directory {
    let seen = files::check_dir(path, &files::system_owners()).map_err(|error| error.to_string());
    let seen = seen.and_then(|()| place(path).map_err(|error| format!("{}: {error}", path.display())));
    let tries = may_write && role != Role::Configuration && path.is_dir();
    let written = tries.then(|| write(path).map_err(|error| error.to_string()));
    Directory { path: path.display().to_string(), role, seen, written }
}

fn place(path: &Path) -> io::Result<Place> {
    let (meta, space) = (fs::metadata(path)?, statvfs(path)?);
    Ok(Place {
        owner: meta.uid(),
        mode: meta.mode() & 0o7777,
        free: space.f_bavail.saturating_mul(space.f_frsize),
    })
}

/// Makes a file of a page's size, brings it to the disk, and removes it.
fn write(dir: &Path) -> io::Result<()> {
    let token = getrandom::u64().map_err(|_| io::Error::other("the kernel gives no random numbers"))?;
    let path = dir.join(format!(".doctor.{token:016x}.new"));
    let filled = File::options().write(true).create_new(true).open(&path).and_then(|mut file| {
        file.write_all(&[0; 4096])?;
        file.sync_all()
    });
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => filled.and(Err(error)),
        _ => filled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let looked = look(dir.path(), Role::State, true);
        assert_eq!(looked.written, Some(Ok(())));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(look(dir.path(), Role::Configuration, true).written.is_none());
        let missing = look(&dir.path().join("none"), Role::State, true);
        assert!(missing.seen.unwrap_err().contains("there is no such file"));
    }
}
