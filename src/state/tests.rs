use std::fs;

use tempfile::TempDir;

use super::*;

const WINDOW: Duration = Duration::from_secs(360);
const UP: Duration = Duration::from_secs(1000);

struct Disk {
    _root: TempDir,
    place: Place,
}

fn disk() -> Disk {
    let root = tempfile::tempdir().unwrap();
    let (runtime, state) = (root.path().join("run"), root.path().join("lib"));
    let place = Place { runtime, state, identity: [7; 8], boot: [1; 16] };
    fs::create_dir(&place.runtime).unwrap();
    fs::create_dir(&place.state).unwrap();
    initialise(&place.state, place.identity, None).unwrap();
    Disk { _root: root, place }
}

impl Disk {
    fn open(&self) -> (State, Recovered) {
        State::open(self.place.clone(), UP, WINDOW).unwrap()
    }

    fn lose_power(&self) {
        fs::remove_dir_all(&self.place.runtime).unwrap();
        fs::create_dir(&self.place.runtime).unwrap();
    }

    fn journal(&self) -> PathBuf {
        self.place.runtime.join("replay.journal")
    }
}

fn mark(client: u8, seconds: u64) -> Mark {
    Mark { key: MarkKey([client; 32]), counter: Timestamp::from_secs(seconds), mac1: [client; 16] }
}

fn newest(recovered: &Recovered, client: u8) -> Option<u64> {
    recovered.marks.get(&MarkKey([client; 32])).map(|counter| counter.as_secs())
}

fn why(recovered: &Recovered) -> Option<&'static str> {
    recovered.quarantine.map(|(_, why)| why)
}

/// Forgets the state as a SIGKILL does: nothing more is written. The thread is left waiting.
fn kill(state: State) {
    std::mem::forget(state);
}

#[test]
fn the_first_start_after_the_keys_were_made_needs_no_quarantine() {
    let (_, recovered) = disk().open();
    assert_eq!(recovered.quarantine, None);
    assert!(recovered.marks.is_empty());
}

#[test]
fn a_mark_survives_a_kill_right_after_it_was_made() {
    let disk = disk();
    let (mut state, _) = disk.open();
    state.persist(&mark(1, 50));
    kill(state);
    let (_, recovered) = disk.open();
    assert_eq!((newest(&recovered, 1), recovered.quarantine), (Some(50), None));
    assert_eq!(recovered.recent, [[1; 16]]);
}

#[test]
fn a_mark_survives_a_clean_stop_and_a_reboot() {
    let disk = disk();
    let (mut state, _) = disk.open();
    state.persist(&mark(1, 50));
    state.finish(UP);
    disk.lose_power();
    let (_, recovered) = disk.open();
    assert_eq!((newest(&recovered, 1), recovered.quarantine), (Some(50), None));
}

#[test]
fn after_a_power_loss_every_knock_is_refused_until_old_ones_are_stale() {
    let disk = disk();
    let (mut state, _) = disk.open();
    state.persist(&mark(1, 50));
    kill(state);
    disk.lose_power();
    let (_, recovered) = disk.open();
    assert_eq!(
        recovered.quarantine,
        Some((UP + WINDOW, "the last run did not end cleanly and its journal is gone"))
    );
}

#[test]
fn a_journal_that_outlived_a_power_loss_on_a_disk_is_not_believed() {
    let disk = disk();
    let (mut state, _) = disk.open();
    state.persist(&mark(1, 50));
    kill(state);
    let next = Place { boot: [2; 16], ..disk.place.clone() };
    let (state, recovered) = State::open(next.clone(), UP, WINDOW).unwrap();
    assert_eq!(why(&recovered), Some("the last run did not end cleanly and its journal is gone"));
    state.finish(UP + WINDOW);
    let (_, recovered) = State::open(Place { boot: [3; 16], ..next }, UP, WINDOW).unwrap();
    assert_eq!(recovered.quarantine, None, "a clean end needs no journal");
}

#[test]
fn a_restart_does_not_end_a_quarantine() {
    let disk = disk();
    fs::remove_file(disk.place.state.join("replay.marks")).unwrap();
    let (state, recovered) = disk.open();
    assert_eq!(why(&recovered), Some("there is no saved replay state"));
    kill(state);
    let (state, recovered) = disk.open();
    assert_eq!(recovered.quarantine.unwrap().0, UP + WINDOW);
    state.finish(UP);
    disk.lose_power();
    assert!(disk.open().1.quarantine.is_some(), "a stop inside a quarantine is not clean");
}

#[test]
fn a_quarantine_ends() {
    let disk = disk();
    fs::remove_file(disk.place.state.join("replay.marks")).unwrap();
    kill(disk.open().0);
    let (_, recovered) = State::open(disk.place.clone(), UP + WINDOW, WINDOW).unwrap();
    assert_eq!(recovered.quarantine, None);
}

#[test]
fn damage_anywhere_in_the_journal_is_seen() {
    let disk = disk();
    let (mut state, _) = disk.open();
    state.persist(&mark(1, 50));
    kill(state);
    let good = fs::read(disk.journal()).unwrap();
    for at in (0..16).chain(32..good.len()) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(disk.journal(), bad).unwrap();
        assert_eq!(journal::read(&disk.place).unwrap_err(), journal::Unusable::Damaged, "byte {at}");
    }
    fs::write(disk.journal(), &good[..good.len() - 1]).unwrap();
    assert_eq!(why(&disk.open().1), Some("the journal of replay marks is damaged"));
}

#[test]
fn damage_anywhere_in_the_snapshot_is_seen() {
    let disk = disk();
    let path = disk.place.state.join("replay.marks");
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, bad).unwrap();
        assert_eq!(snapshot::read(&disk.place).unwrap_err(), snapshot::Unusable::Damaged, "byte {at}");
    }
    assert_eq!(why(&disk.open().1), Some("the saved replay state is damaged"));
}

#[test]
fn a_journal_that_is_behind_the_saved_state_is_not_believed() {
    let disk = disk();
    let (mut state, _) = disk.open();
    let old = fs::read(disk.journal()).unwrap();
    state.persist(&mark(1, 50));
    state.finish(UP);
    fs::write(disk.journal(), old).unwrap();
    let (_, recovered) = disk.open();
    assert_eq!(why(&recovered), Some("the journal of replay marks is older than the saved state"));
}

#[test]
fn marks_of_another_server_key_count_as_none() {
    let disk = disk();
    let (mut state, _) = disk.open();
    state.persist(&mark(1, 50));
    state.finish(UP);
    let other = Place { identity: [8; 8], ..disk.place.clone() };
    let (_, recovered) = State::open(other, UP, WINDOW).unwrap();
    assert_eq!((newest(&recovered, 1), why(&recovered)), (None, Some("there is no saved replay state")));
}

#[test]
fn without_a_place_to_write_the_state_goes_on_and_says_so() {
    let disk = disk();
    fs::remove_dir_all(&disk.place.runtime).unwrap();
    fs::remove_dir_all(&disk.place.state).unwrap();
    let (mut state, _) = disk.open();
    state.persist(&mark(1, 50));
    assert!(!state.is_runtime_writable() && !state.is_state_writable());
}

#[test]
fn a_journal_that_comes_back_holds_every_mark() {
    let disk = disk();
    fs::remove_dir_all(&disk.place.runtime).unwrap();
    let (mut state, _) = disk.open();
    state.persist(&mark(1, 50));
    assert!(!state.is_runtime_writable());
    fs::create_dir(&disk.place.runtime).unwrap();
    state.persist(&mark(2, 60));
    assert!(state.is_runtime_writable());
    kill(state);
    let (_, recovered) = disk.open();
    assert_eq!((newest(&recovered, 1), newest(&recovered, 2)), (Some(50), Some(60)));
}

#[test]
fn a_busy_journal_stays_small() {
    let disk = disk();
    let (mut state, _) = disk.open();
    for seconds in 0..10_000 {
        state.persist(&mark(1, seconds));
    }
    assert!(fs::metadata(disk.journal()).unwrap().len() < 400_000);
    kill(state);
    assert_eq!(newest(&disk.open().1, 1), Some(9_999));
}
