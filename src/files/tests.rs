use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn rules() -> Rules {
    Rules { forbidden: 0o177, mode: 0o600, owners: own_owners(), limit: 4096 }
}

fn written(mode: u32, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    write(&path, bytes, Private { mode, ..Private::NEW }).unwrap();
    (dir, path)
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_private_file_reads_back_and_leaves_nothing_beside_it() {
    let (dir, path) = written(0o600, b"hush");
    assert_eq!(*read(&path, &rules()).unwrap(), b"hush");
    assert_eq!(mode(&path), 0o600);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn an_existing_file_stays_as_it_is_unless_it_is_to_be_replaced() {
    let (dir, path) = written(0o600, b"old");
    let error = write(&path, b"new", Private::NEW).unwrap_err();
    assert!(matches!(error.fault, FileFault::Exists));
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    write(&path, b"new", Private { mode: 0o640, existing: Existing::Replace, ..Private::NEW }).unwrap();
    assert_eq!((std::fs::read(&path).unwrap(), mode(&path)), (b"new".to_vec(), 0o640));
}

#[test]
fn a_symbolic_link_is_replaced_and_its_target_left_alone() {
    let (dir, path) = written(0o600, b"target");
    let link = dir.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(write(&link, b"x", Private::NEW).is_err());
    write(&link, b"x", Private { existing: Existing::Replace, ..Private::NEW }).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"target");
    assert_eq!(std::fs::read(&link).unwrap(), b"x");
}

#[test]
fn a_mode_that_lets_others_in_is_refused_with_the_command_that_cures_it() {
    let (_dir, path) = written(0o644, b"x");
    let error = read(&path, &rules()).unwrap_err();
    assert_eq!(
        error.what(),
        format!("mode 0644 lets other users read it; run: chmod 0600 {}", path.display())
    );
    let (_dir, path) = written(0o620, b"x");
    let error = read(&path, &rules()).unwrap_err();
    assert_eq!(
        error.what(),
        format!("mode 0620 lets other users change it; run: chmod 0600 {}", path.display())
    );
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
    assert_eq!(read(&fifo, &rules()).unwrap_err().what(), "is a FIFO, and should be a file");
    assert_eq!(read(dir.path(), &rules()).unwrap_err().what(), "is a directory, and should be a file");
    assert_eq!(
        read(Path::new("/dev/zero"), &rules()).unwrap_err().what(),
        "is a device, and should be a file"
    );
}

#[test]
fn a_file_over_the_limit_is_refused() {
    let (_dir, path) = written(0o600, &[b'x'; 4097]);
    assert_eq!(read(&path, &rules()).unwrap_err().what(), "is larger than 4 KiB");
    let (_dir, path) = written(0o600, &[b'x'; 4096]);
    assert_eq!(read(&path, &rules()).unwrap().len(), 4096);
}

#[test]
fn text_that_is_no_utf_8_is_refused_with_its_line() {
    let (_dir, path) = written(0o600, b"a\nb\xff\n");
    assert!(matches!(read_text(&path, &rules()).unwrap_err().fault, FileFault::NotText { line: 2 }));
}

#[test]
fn another_users_file_is_refused() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can give a file away");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("theirs");
    write(&path, b"x", Private { user: Some(12345), group: Some(54321), ..Private::NEW }).unwrap();
    let error = read(&path, &rules()).unwrap_err();
    assert_eq!(
        error.what(),
        format!("belongs to user 12345, who could change it; run: chown 0 {}", path.display())
    );
}

#[test]
fn a_directory_that_others_can_write_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    check_dir(dir.path(), &own_owners()).unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o770)).unwrap();
    let error = check_dir(dir.path(), &own_owners()).unwrap_err();
    assert!(
        error.what().starts_with("mode 0770 lets other users change it; run: chmod 0750 "),
        "{}",
        error.what()
    );
}

#[test]
fn accounts_are_found_by_their_whole_name() {
    let passwd =
        "root:x:0:0:root:/root:/bin/sh\nknockd-rs2:x:1:1::/:\nknockd-rs:x:998:997::/nonexistent:/x\n";
    assert_eq!(account_in(passwd, "knockd-rs"), Some(Account { user: 998, group: 997 }));
    assert_eq!(account_in(passwd, "knockd"), None);
    assert_eq!(account_in("knockd-rs:x:many:1::/:\n", "knockd-rs"), None);
    assert_eq!(group_in("wheel:x:10:\nknockd-rs:x:997:\n", "knockd-rs"), Some(997));
}

#[test]
fn a_command_in_a_message_can_be_pasted() {
    assert_eq!(quoted(Path::new("/etc/knockd-rs/server.key")), "/etc/knockd-rs/server.key");
    assert_eq!(quoted(Path::new("/home/a b/it's")), r"'/home/a b/it'\''s'");
}
