//! Which backups go where, and what does not come back.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::damage::{at, manifest};
use backstay_core::{Backup, BackupManifest};

/// Backups by their number: number 3 took the log from 300 to 350, and the minutes 300 to 350.
fn backup(number: u64) -> Entry {
    ran(number, number * 100, number * 100 + 50)
}

/// One that ran from here to there, by the log and by the clock.
fn ran(number: u64, start: u64, end: u64) -> Entry {
    let (started, finished) = (Timestamp::from_micros(start), Timestamp::from_micros(end));
    let id: backstay_core::BackupId = format!("{number:064x}").parse().unwrap();
    let manifest = BackupManifest { started, finished, ..manifest(at(1, start), at(1, end)) };
    let mut tree = [0; 32];
    tree[..8].copy_from_slice(&number.to_be_bytes());
    let snapshot = Snapshot {
        id: id.clone(),
        time: finished,
        tree: Id::from_bytes(tree),
        paths: Vec::new(),
        hostname: String::new(),
        username: String::new(),
        tags: Vec::new(),
        parent: None,
        program_version: String::new(),
        uploaded: None,
    };
    Entry { backup: Backup { id, manifest }, snapshot }
}

fn backups(numbers: impl IntoIterator<Item = u64>) -> Vec<Entry> {
    numbers.into_iter().map(backup).collect()
}

fn number(snapshot: &Snapshot) -> u64 {
    u64::from_str_radix(snapshot.id.as_str(), 16).unwrap()
}

/// From, to, and the numbers of the backups.
fn planned(holdings: &[Vec<Entry>]) -> Vec<(usize, usize, Vec<u64>)> {
    let step = |step: Step| (step.from, step.to, step.snapshots.iter().map(number).collect());
    steps(holdings).into_iter().map(step).collect()
}

#[test]
fn what_is_newer_than_the_newest_shared_is_copied_and_nothing_else() {
    assert_eq!(planned(&[backups(1..=5), backups(1..=3)]), [(0, 1, vec![4, 5])]);
    assert_eq!(planned(&[backups(1..=3), backups(1..=5)]), [(1, 0, vec![4, 5])]);
    // Either thins out as it likes.
    assert_eq!(planned(&[backups([4, 5]), backups([1, 3, 5])]), []);
    assert_eq!(planned(&[backups([4, 5]), Vec::new()]), [(0, 1, vec![4, 5])]);
    assert_eq!(planned(&[Vec::new(), Vec::new()]), []);
}

#[test]
fn what_home_forgot_while_a_mirror_was_away_for_long_does_not_come_back() {
    assert_eq!(planned(&[backups([6]), backups(1..=5)]), [(0, 1, vec![6])]);
    assert_eq!(planned(&[backups([6, 8]), backups([5, 7])]), [(0, 1, vec![6]), (1, 0, vec![7]), (0, 1, vec![8])]);
}

#[test]
fn a_clock_that_was_set_back_hides_no_backup() {
    let mut behind = backup(6);
    let (started, finished) = (Timestamp::from_micros(100), Timestamp::from_micros(150));
    (behind.backup.manifest.started, behind.backup.manifest.finished) = (started, finished);
    behind.snapshot.time = finished;
    let ours = [backups(4..=5), vec![behind.clone()]].concat();
    assert_eq!(planned(&[ours, backups(4..=5)]), [(0, 1, vec![6])]);
    // A new branch begins before the end of the one it left.
    behind.backup.manifest.end = at(2, 520);
    let ours = [backups(4..=5), vec![behind]].concat();
    assert_eq!(planned(&[ours, backups(4..=5)]), [(0, 1, vec![6])]);
}

#[test]
fn a_backup_that_was_committed_late_beside_a_copied_one_is_copied() {
    // The third ended first, and was committed when the fourth was in the mirror already.
    let (third, fourth) = (ran(3, 300, 420), ran(4, 400, 450));
    let ours = [backups(1..=2), vec![third.clone(), fourth.clone()]].concat();
    let theirs = [backups(1..=2), vec![fourth.clone()]].concat();
    assert_eq!(planned(&[ours.clone(), theirs.clone()]), [(0, 1, vec![3])]);
    // Once a later one is shared, it was removed there.
    let ours = [ours, backups([5])].concat();
    assert_eq!(planned(&[ours.clone(), theirs.clone()]), [(0, 1, vec![3, 5])]);
    assert_eq!(planned(&[ours, [theirs, backups([5])].concat()]), []);
}

#[test]
fn backups_that_followed_each_other_did_not_run_beside_each_other() {
    // Of a database at rest: both ended where they began.
    let at_rest = |number| {
        let mut entry = backup(number);
        (entry.backup.manifest.start, entry.backup.manifest.end) = (at(1, 300), at(1, 300));
        entry
    };
    assert_eq!(planned(&[vec![at_rest(3), at_rest(4)], vec![at_rest(4)]]), []);
    assert_eq!(planned(&[vec![at_rest(3), at_rest(4)], vec![at_rest(3)]]), [(0, 1, vec![4])]);
    // Of a standby, whose second backup begins at the same checkpoint as its first.
    let mut second = backup(4);
    second.backup.manifest.start = at(1, 300);
    assert_eq!(planned(&[vec![backup(3), second.clone()], vec![second]]), []);
}

#[test]
fn backups_that_each_side_made_alone_go_in_order_so_that_an_interruption_hides_none() {
    let (home, mirror) = (backups([1, 3, 4]), backups([1, 2, 5]));
    let all = planned(&[home.clone(), mirror.clone()]);
    assert_eq!(all, [(1, 0, vec![2]), (0, 1, vec![3, 4]), (1, 0, vec![5])]);
    for done in 0..=4 {
        let mut holdings = [home.clone(), mirror.clone()];
        let each = all.iter().flat_map(|(_, to, numbers)| numbers.iter().map(move |number| (*to, *number)));
        each.take(done).for_each(|(to, number)| holdings[to].push(backup(number)));
        let left: usize = planned(&holdings).iter().map(|(_, _, numbers)| numbers.len()).sum();
        assert_eq!(left, 4 - done, "after {done}");
    }
}

#[test]
fn what_only_one_mirror_has_goes_to_home_and_to_the_other_ones() {
    let holdings = [backups([1, 3]), backups([1, 3]), backups([1, 2])];
    assert_eq!(planned(&holdings), [(2, 0, vec![2]), (2, 1, vec![2]), (0, 2, vec![3])]);
}
