//! Which log is searched for a name, and where a backup's volumes go.
#![allow(clippy::unwrap_used)]

use super::{refuse_cut_off, stretches, unreadable, volumes};
use crate::{
    damage::{at, manifest, piece},
    job::{FailureKind, RestoreSpec, RestoreTo},
};
use backstay_core::{
    Backup, Chain, PlanError, Position, RestorePlan, RestoreRequest, Segment, Target, Timestamp, Volume,
};
use backstay_repo::log::DamagedObject;

fn backup(log_from: Position, end: Position) -> Backup {
    Backup { id: "ab".repeat(32).parse().unwrap(), manifest: manifest(log_from, end) }
}

fn chain(pieces: &[Segment]) -> Chain {
    Chain::new(pieces.to_vec(), Vec::new())
}

/// Pieces from one end to the next, each a file of its own: a walk begins where a file does.
fn pieces(ends: &[u64]) -> Vec<Segment> {
    let file = |ends: &[u64]| Segment { file: format!("{:024}", ends[0]), file_offset: 0, ..piece(ends[0], ends[1]) };
    ends.windows(2).map(file).collect()
}

#[test]
fn the_log_behind_the_newest_backup_is_searched_first_and_each_piece_is_searched() {
    let all = pieces(&[0, 100, 200, 300, 400]);
    let backups = [backup(at(1, 10), at(1, 20)), backup(at(1, 210), at(1, 250))];
    let found = stretches(&backups, &chain(&all));
    // From where the log of a backup begins; the older one's up to where the newer one's end lies.
    assert_eq!(found, [all[2..].to_vec(), all[..3].to_vec()]);
    let newest_first = [backups[1].clone(), backups[0].clone()];
    assert_eq!(stretches(&newest_first, &chain(&all)), found, "the order of the backups changed the search");
}

#[test]
fn without_log_or_backup_there_is_nothing_to_search() {
    assert_eq!(stretches(&[backup(at(1, 10), at(1, 20))], &chain(&[])), Vec::<Vec<Segment>>::new());
    assert_eq!(stretches(&[], &chain(&pieces(&[0, 100]))), Vec::<Vec<Segment>>::new());
}

#[test]
fn a_branch_that_history_left_behind_is_not_searched() {
    let trunk = pieces(&[0, 100, 200, 300]);
    let epoch = |position: Position| Position { epoch: 2, ..position };
    let plain = piece(100, 200);
    let branch =
        Segment { start: epoch(plain.start), end: epoch(plain.end), follows: Some(at(1, 100)), ..piece(100, 200) };
    let chain = chain(&[trunk.clone(), vec![branch.clone()]].concat());
    // The second one ends where the server that was promoted never came.
    let backups = [backup(at(1, 10), at(1, 20)), backup(at(1, 210), at(1, 250))];
    assert_eq!(stretches(&backups, &chain), [vec![trunk[0].clone(), branch]]);
}

fn to(volumes: &[(&str, &str)]) -> RestoreSpec {
    RestoreSpec {
        into: "/srv/a".into(),
        to: RestoreTo::Latest,
        inclusive: true,
        backup: None,
        volumes: volumes.iter().map(|(name, folder)| ((*name).to_owned(), folder.into())).collect(),
        delta: false,
        dry_run: false,
    }
}

fn with_volume(location: &str) -> Backup {
    let mut backup = backup(at(1, 10), at(1, 20));
    let volume = Volume { name: "tablespaces/7".to_owned(), title: "fast".to_owned(), location: location.to_owned() };
    backup.manifest.volumes.push(volume);
    backup
}

#[test]
fn a_volume_goes_where_it_is_mapped_to_by_name_or_title_and_else_where_it_was() {
    for (map, place) in [(&[][..], "/ssd"), (&[("fast", "/new")], "/new"), (&[("tablespaces/7", "/new")], "/new")] {
        assert_eq!(volumes(&with_volume("/ssd"), &to(map)).unwrap()[0].location, place);
    }
    let failure = volumes(&with_volume("/ssd"), &to(&[("slow", "/new")])).unwrap_err();
    assert_eq!((failure.kind, failure.hint.as_deref()), (FailureKind::Usage, Some("it has: fast")));
}

#[test]
fn a_volume_whose_place_the_backup_does_not_know_has_to_be_mapped() {
    for location in ["", "ssd", "../ssd"] {
        assert_eq!(volumes(&with_volume(location), &to(&[])).unwrap_err().kind, FailureKind::Usage);
        volumes(&with_volume(location), &to(&[("fast", "/new")])).unwrap();
    }
}

fn plan(log: &[Segment], target: Target) -> Result<RestorePlan, PlanError> {
    let request = RestoreRequest { target, inclusive: true, backup: None, epoch: None, now: Timestamp::from_micros(9) };
    RestorePlan::new(&[backup(at(1, 10), at(1, 20))], &chain(log), None, &request)
}

fn damaged(epoch: u64, start: u64) -> Vec<DamagedObject> {
    let object = format!("logs/shop/{epoch:020}/{start:020}");
    let why = format!("{object} is damaged: it is cut short");
    vec![DamagedObject { object, place: Some((epoch, start)), why }]
}

#[test]
fn the_end_of_the_log_is_not_where_a_piece_cannot_be_read() {
    let plan = plan(&pieces(&[0, 100, 200]), Target::Latest).unwrap();
    for lost in [damaged(1, 200), damaged(1, 250), damaged(2, 0)] {
        let failure = refuse_cut_off(&lost, &plan, &RestoreTo::Latest).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Damaged);
        assert_eq!(failure.hint.as_deref(), Some("restore what is whole with --to 'position:0/C8'"));
        refuse_cut_off(&lost, &plan, &RestoreTo::Position("0/C8".to_owned())).unwrap();
    }
    // What a merge replaced, or what lies before the backup, is not missed.
    refuse_cut_off(&damaged(1, 100), &plan, &RestoreTo::Latest).unwrap();
    refuse_cut_off(&[], &plan, &RestoreTo::Latest).unwrap();
}

#[test]
fn a_gap_where_a_piece_cannot_be_read_is_damage() {
    let log: Vec<Segment> = pieces(&[0, 100, 200, 300]).into_iter().filter(|piece| piece.start.offset != 100).collect();
    let error = plan(&log, Target::Latest).unwrap_err();
    assert!(matches!(error, PlanError::Gap { .. }), "{error}");
    assert!(unreadable(&[], &error).is_none());
    let failure = unreadable(&damaged(1, 100), &error).unwrap();
    assert_eq!(failure.kind, FailureKind::Damaged);
    assert!(failure.message.contains("is damaged"), "{failure}");
}
