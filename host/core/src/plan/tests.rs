#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::*;
use crate::sample::{backup, piece, place, second};
use proptest::prelude::*;

fn log(epoch: u64, from: u64, to: u64) -> Vec<Segment> {
    (from / 10..to / 10).map(|n| piece(epoch, n * 10, n * 10 + 10)).collect()
}

fn request(target: Target) -> RestoreRequest {
    RestoreRequest { target, inclusive: true, backup: None, epoch: None, now: second(1_000_000) }
}

fn at(epoch: Option<u64>, offset: u64) -> Target {
    Target::Place { epoch, offset, label: format!("{}:{offset}", epoch.unwrap_or_default()) }
}

fn span(plan: &RestorePlan) -> Option<((u64, u64), (u64, u64))> {
    let (first, last) = (plan.pieces.first()?, plan.pieces.last()?);
    Some(((first.start.epoch, first.start.offset), (last.end.epoch, last.end.offset)))
}

/// Epoch 1 to 200, left at 105 for epoch 2, which goes on to 150.
fn forked() -> Chain {
    let mut pieces = log(1, 0, 200);
    pieces.push(Segment { follows: Some(place(1, 105)), ..piece(2, 64, 120) });
    pieces.extend(log(2, 120, 150));
    Chain::new(pieces, vec![])
}

#[test]
fn a_time_takes_the_newest_backup_before_it_and_the_pieces_up_to_the_first_later_commit() {
    let chain = Chain::new(log(1, 0, 200), vec![]);
    let backups = [
        backup(1, place(1, 5), place(1, 9)),
        backup(3, place(1, 120), place(1, 130)),
        backup(2, place(1, 70), place(1, 75)),
    ];
    let plan = RestorePlan::new(&backups, &chain, None, &request(Target::Time(second(105)))).unwrap();
    assert_eq!(plan.backup, backups[2].id);
    // The backup's file starts at 64, so its pieces from 70 on; second 109 ends the piece that passes 105.
    assert_eq!(span(&plan), Some(((1, 70), (1, 110))));
    assert!(!plan.at_end_of_log);
    assert_eq!(plan.effective_target(), Target::Time(second(105)));
    assert_eq!(plan.log_bytes, 40);
    assert_eq!(
        plan.to_string(),
        "restore  shop to 1970-01-01T00:01:45Z, inclusive\n\
         backup   00000000, consistent at 1:75 on 1970-01-01T00:01:15Z: 1.00 GiB in 1000 files\n\
         log      4 pieces, 40 B, from 1:70 to 1:110\n\
         stops    after the last commit at or before 1970-01-01T00:01:45Z\n"
    );
}

#[test]
fn a_time_after_the_last_commit_replays_all_there_is() {
    let chain = Chain::new(log(1, 0, 200), vec![]);
    let backups = [backup(1, place(1, 5), place(1, 9))];
    let confirmed = Point { position: place(1, 200), time: second(5000) };
    let plan = RestorePlan::new(&backups, &chain, Some(&confirmed), &request(Target::Time(second(4000)))).unwrap();
    assert_eq!(span(&plan), Some(((1, 0), (1, 200))));
    assert_eq!(plan.effective_target(), Target::Latest);

    let at_last = |inclusive| {
        let request = RestoreRequest { inclusive, ..request(Target::Time(second(199))) };
        RestorePlan::new(&backups, &chain, None, &request).unwrap().effective_target()
    };
    assert_eq!(at_last(true), Target::Latest);
    assert_eq!(at_last(false), Target::Time(second(199)), "the commit at the target is excluded by the database");
}

#[test]
fn latest_follows_the_newest_branch_to_its_end() {
    let backups = [backup(1, place(1, 5), place(1, 9))];
    let plan = RestorePlan::new(&backups, &forked(), None, &request(Target::Latest)).unwrap();
    assert_eq!(span(&plan), Some(((1, 0), (2, 150))));
    assert_eq!((plan.epoch, plan.at_end_of_log), (2, true));
    // Epoch 1's pieces stop with the one that holds the branch.
    assert_eq!(plan.pieces.iter().filter(|piece| piece.start.epoch == 1).count(), 11);
    assert!(plan.explanation.contains(&"history  epoch 1, then 2".to_owned()), "{plan}");
}

#[test]
fn a_place_on_an_abandoned_branch_is_reached_by_naming_its_epoch() {
    let backups = [backup(1, place(1, 5), place(1, 9))];
    let plan = RestorePlan::new(&backups, &forked(), None, &request(at(Some(1), 150))).unwrap();
    // The piece that starts at the place, and one more.
    assert_eq!((span(&plan), plan.epoch), (Some(((1, 0), (1, 170))), 1));
    // Unnamed, it is the newest branch's.
    let plan = RestorePlan::new(&backups, &forked(), None, &request(at(None, 149))).unwrap();
    assert_eq!((span(&plan), plan.epoch), (Some(((1, 0), (2, 150))), 2));
    let error = RestorePlan::new(&backups, &forked(), None, &request(at(None, 151))).unwrap_err();
    assert!(matches!(error, PlanError::OutsideWindow(_)), "{error}");
}

#[test]
fn commits_behind_the_branch_do_not_stop_a_restore_along_the_new_history() {
    // Epoch 1's piece 100..110 ends with commits that were abandoned at 105.
    let backups = [backup(1, place(1, 5), place(1, 9))];
    let plan = RestorePlan::new(&backups, &forked(), None, &request(Target::Time(second(107)))).unwrap();
    assert_eq!(plan.pieces.last().unwrap().end, place(2, 120));
}

#[test]
fn the_end_of_a_backup_needs_no_log() {
    let backups = [backup(1, place(1, 5), place(1, 9)), backup(2, place(1, 50), place(1, 60))];
    let plan = RestorePlan::new(&backups, &Chain::default(), None, &request(Target::BackupEnd)).unwrap();
    assert_eq!((plan.backup.clone(), plan.pieces.len()), (backups[1].id.clone(), 0));
    let latest = RestorePlan::new(&backups, &Chain::default(), None, &request(Target::Latest)).unwrap();
    assert_eq!(latest.effective_target(), Target::BackupEnd);
}

#[test]
fn what_lies_outside_is_refused_with_the_window_and_the_nearest_time() {
    let chain = Chain::new(log(1, 0, 200), vec![]);
    let backups = [backup(1, place(1, 5), place(1, 9))];
    let early = RestorePlan::new(&backups, &chain, None, &request(Target::Time(second(3)))).unwrap_err();
    assert_eq!(
        early.to_string(),
        "1970-01-01T00:00:03Z lies before the recovery window: 1970-01-01T00:00:09Z to 1970-01-01T00:03:19Z"
    );
    assert_eq!(early.hint(), "the nearest restorable time is `--to time:1970-01-01T00:00:09Z`");
    let late = RestorePlan::new(&backups, &chain, None, &request(Target::Time(second(500)))).unwrap_err();
    assert_eq!(late.hint(), "the nearest restorable time is `--to time:1970-01-01T00:03:19Z`");
    let future = RestorePlan::new(&backups, &chain, None, &request(Target::Time(second(2_000_000)))).unwrap_err();
    assert!(matches!(future, PlanError::InFuture { .. }), "{future}");
    let none = RestorePlan::new(&[], &chain, None, &request(Target::Latest)).unwrap_err();
    assert_eq!(none, PlanError::NoBackups);
    assert_eq!(serde_json::to_value(&none).unwrap()["kind"], "no-backups");
}

#[test]
fn a_gap_is_named_where_it_hides_the_target() {
    let mut pieces = log(1, 0, 100);
    pieces.extend(log(1, 120, 200));
    let chain = Chain::new(pieces, vec![]);
    let backups = [backup(1, place(1, 5), place(1, 9))];
    for target in [Target::Latest, Target::Time(second(150)), at(None, 110), at(Some(1), 199)] {
        let error = RestorePlan::new(&backups, &chain, None, &request(target)).unwrap_err();
        assert!(error.to_string().ends_with("log is missing from 1:100 (epoch 1) to 1:120 (epoch 1)"), "{error}");
        assert_eq!(error.hint(), "the last restorable time before the gap is `--to time:1970-01-01T00:01:39Z`");
    }
    assert!(RestorePlan::new(&backups, &chain, None, &request(Target::Time(second(90)))).is_ok());
    assert!(RestorePlan::new(&backups, &chain, None, &request(at(None, 100))).is_ok());
}

#[test]
fn a_chosen_backup_is_used_or_refused() {
    let chain = Chain::new(log(1, 0, 200), vec![]);
    let backups = [backup(1, place(1, 5), place(1, 9)), backup(2, place(1, 50), place(1, 60))];
    let chosen = |id: &BackupId, target| {
        let request = RestoreRequest { backup: Some(id.clone()), ..request(target) };
        RestorePlan::new(&backups, &chain, None, &request)
    };
    assert_eq!(chosen(&backups[0].id, Target::Latest).unwrap().backup, backups[0].id);
    let late = chosen(&backups[1].id, Target::Time(second(20))).unwrap_err();
    assert!(matches!(late, PlanError::BackupTooLate { .. }), "{late}");
    let unknown = chosen(&"f".repeat(64).parse().unwrap(), Target::Latest).unwrap_err();
    assert!(matches!(unknown, PlanError::UnknownBackup { .. }));
}

#[test]
fn a_plan_survives_json() {
    let backups = [backup(1, place(1, 5), place(1, 9))];
    let plan = RestorePlan::new(&backups, &forked(), None, &request(at(Some(1), 150))).unwrap();
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<RestorePlan>(&json).unwrap(), plan);
}

/// A history of up to four epochs, with pieces taken away and others merged.
#[derive(Clone, Debug)]
struct History {
    appended: Vec<Segment>,
    merged: Vec<Segment>,
    backups: Vec<Backup>,
}

fn history() -> impl Strategy<Value = History> {
    let epoch = (proptest::collection::vec(1u64..40, 1..12), 0.0f64..1.0, 0u64..8);
    let marks = proptest::collection::vec((0.0f64..1.0, 0.0f64..1.0), 1..5);
    let lost = proptest::collection::vec(any::<prop::sample::Index>(), 0..3);
    let joined = proptest::collection::vec(any::<prop::sample::Index>(), 0..3);
    (proptest::collection::vec(epoch, 1..5), marks, lost, joined).prop_map(|(epochs, marks, lost, joined)| {
        let mut pieces: Vec<Segment> = Vec::new();
        for (index, (lengths, branch, repeat)) in epochs.into_iter().enumerate() {
            let epoch = index as u64 + 1;
            let mut follows = None;
            let mut start = 0;
            if index > 0 {
                let parent = 1 + (branch * 10.0) as u64 % index as u64;
                let end = pieces.iter().filter(|p| p.start.epoch == parent).map(|p| p.end.offset).max().unwrap();
                let first = pieces.iter().filter(|p| p.start.epoch == parent).map(|p| p.start.offset).min().unwrap();
                let at = first + ((end - first) as f64 * branch) as u64;
                start = at.saturating_sub(repeat);
                follows = Some(place(parent, at));
            }
            for length in lengths {
                pieces.push(Segment { follows: follows.take(), ..piece(epoch, start, start + length) });
                start += length;
            }
        }
        let whole = Chain::new(pieces.clone(), vec![]);
        let mut backups = Vec::new();
        for (number, (from, length)) in marks.into_iter().enumerate() {
            let epoch = 1 + number as u64 % whole.epochs().count() as u64;
            let (first, end) = (whole.pieces(epoch)[0].start.offset, whole.end_of(epoch).unwrap().offset);
            let log_from = first + ((end - first) as f64 * from) as u64;
            let end = log_from + ((end - log_from) as f64 * length) as u64;
            backups.push(backup(number as u64, place(epoch, log_from), place(epoch, end)));
        }
        let mut merged = Vec::new();
        for index in joined {
            let first = index.index(pieces.len());
            let Some(second) = pieces.get(first + 1).filter(|next| next.start == pieces[first].end) else { continue };
            merged.push(Segment { end: second.end.clone(), last_commit: second.last_commit, ..pieces[first].clone() });
        }
        for index in lost {
            pieces.remove(index.index(pieces.len()));
            if pieces.is_empty() {
                break;
            }
        }
        History { appended: pieces, merged, backups }
    })
}

/// Fails unless every byte from the backup to the end of the plan is there, link by link.
fn assert_whole(history: &History, plan: &RestorePlan) {
    let backup = history.backups.iter().find(|backup| backup.id == plan.backup).unwrap();
    let Some(first) = plan.pieces.first() else { return };
    let from = &backup.manifest.log_from;
    assert!(first.start.epoch == from.epoch && first.start.offset <= from.offset, "starts behind the backup");
    for piece in &plan.pieces {
        assert!(history.appended.contains(piece) || history.merged.contains(piece), "{piece:?} is not there");
    }
    for pair in plan.pieces.windows(2) {
        if pair[0].end.epoch == pair[1].start.epoch {
            assert!(pair[1].start.offset <= pair[0].end.offset, "gap before {:?}", pair[1]);
        } else {
            let follows = pair[1].follows.as_ref().expect("a new epoch says what it follows");
            assert_eq!(follows.epoch, pair[0].end.epoch);
            assert!(follows.offset <= pair[0].end.offset && pair[1].start.offset <= follows.offset);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_never_misses_a_link(history in history(), epoch in 0u64..5, offset in 0u64..400, seconds in 0u64..400) {
        let chain = Chain::new(history.appended.clone(), history.merged.clone());
        let epoch = (epoch > 0).then_some(epoch);
        for target in [Target::Latest, Target::BackupEnd, Target::Time(second(seconds)), at(epoch, offset)] {
            match RestorePlan::new(&history.backups, &chain, None, &request(target.clone())) {
                Ok(plan) => {
                    assert_whole(&history, &plan);
                    if let (Target::Place { offset, .. }, Some(last)) = (&target, plan.pieces.last()) {
                        prop_assert!(last.end.offset >= *offset || last.end.epoch > plan.consistent.position.epoch);
                    }
                    if let Target::Time(time) = target {
                        prop_assert!(plan.consistent.time <= time);
                    }
                }
                Err(error) => prop_assert!(!error.to_string().is_empty() && !error.hint().is_empty()),
            }
        }
    }

    #[test]
    fn every_place_in_a_window_can_be_planned_and_none_in_a_gap(history in history(), share in 0.0f64..1.0) {
        let chain = Chain::new(history.appended.clone(), history.merged.clone());
        let windows = windows(&history.backups, &chain, None);
        let listed: usize = windows.iter().map(|window| window.backups.len()).sum();
        prop_assert!(listed >= history.backups.len(), "{listed} of {} backups", history.backups.len());
        for window in &windows {
            let same = window.from.position.epoch == window.to.position.epoch;
            let low = if same { window.from.position.offset } else {
                chain.follows(window.to.position.epoch).unwrap().offset
            };
            let high = window.to.position.offset;
            let offset = low.min(high) + (high.saturating_sub(low) as f64 * share) as u64;
            let target = Target::Place { epoch: Some(window.to.position.epoch), offset, label: String::new() };
            let plan = RestorePlan::new(&history.backups, &chain, None, &request(target));
            prop_assert!(plan.is_ok(), "{offset} in {window:?}: {}", plan.unwrap_err());
            assert_whole(&history, &plan.unwrap());
            for gap in chain.gaps().iter().filter(|gap| gap.from.epoch == gap.to.epoch && same) {
                let inside = window.from.position != window.to.position
                    && gap.from.epoch == window.from.position.epoch
                    && window.from.position.offset < gap.to.offset && gap.from.offset < window.to.position.offset;
                prop_assert!(!inside, "{gap} in {window:?}");
            }
        }
        for gap in chain.gaps().iter().filter(|gap| gap.from.epoch == gap.to.epoch) {
            let inside = gap.from.offset + (gap.to.offset - gap.from.offset) / 2;
            if inside > gap.from.offset && !history.backups.iter().any(|b| b.manifest.end == place(gap.from.epoch, inside)) {
                let target = Target::Place { epoch: Some(gap.from.epoch), offset: inside, label: String::new() };
                prop_assert!(RestorePlan::new(&history.backups, &chain, None, &request(target)).is_err());
            }
        }
    }

    #[test]
    fn a_chain_without_losses_has_no_gap_and_one_that_was_pushed_is_the_same(lengths in proptest::collection::vec(1u64..40, 1..20)) {
        let mut chain = Chain::default();
        let mut pieces = Vec::new();
        let mut start = 0;
        for length in lengths {
            pieces.push(piece(1, start, start + length));
            // Its file offset is the sample's own; the rule on files is tested elsewhere.
            let file = format!("{start}");
            pieces.last_mut().unwrap().file = file;
            chain.push(pieces.last().unwrap().clone()).unwrap();
            start += length;
        }
        pieces.reverse();
        prop_assert_eq!(&Chain::new(pieces, vec![]), &chain);
        prop_assert_eq!(chain.gaps(), vec![]);
    }
}
