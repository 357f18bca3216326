#![allow(clippy::unwrap_used)]
use super::*;
use crate::Line;
use crate::sample::{backup, piece, place, second};
use jiff::tz::TimeZone;
use proptest::prelude::*;

fn shop() -> TargetName {
    "shop".parse().unwrap()
}

fn log(epoch: u64, from: u64, to: u64) -> Vec<Segment> {
    (from / 10..to / 10).map(|n| piece(epoch, n * 10, n * 10 + 10)).collect()
}

/// A window of so many seconds; [`sample`](crate::sample) has a second for each byte of log.
fn window(seconds: u64) -> RetentionPolicy {
    RetentionPolicy { pitr_window: Some(format!("{seconds}s").parse().unwrap()), ..RetentionPolicy::default() }
}

fn plan(policy: &RetentionPolicy, backups: &[Backup], chain: &Chain) -> ForgetPlan {
    let target = shop();
    plan_forget(known(&target, backups, chain), policy, &BTreeMap::new())
}

fn known<'a>(target: &'a TargetName, backups: &'a [Backup], chain: &'a Chain) -> Records<'a> {
    Records { target, backups, chain, confirmed: None, now: second(10_000) }
}

fn ends<'a>(backups: impl Iterator<Item = &'a Backup>) -> Vec<u64> {
    backups.map(|backup| backup.manifest.end.offset).collect()
}

/// One backup at 9, 109, 209, … over unbroken log.
fn regular(count: u64) -> (Vec<Backup>, Chain) {
    let backups = (0..count).map(|n| backup(n, place(1, n * 100 + 5), place(1, n * 100 + 9))).collect();
    (backups, Chain::new(log(1, 0, count * 100), vec![]))
}

#[test]
fn the_window_keeps_the_backup_it_starts_from_and_log_from_there_on() {
    let (backups, chain) = regular(6);
    // The log ends at second 599; the window starts at 349.
    let plan = plan(&window(250), &backups, &chain);
    assert_eq!(ends(plan.kept()), [309, 509]);
    assert_eq!(plan.decisions[3].reasons, [KeepReason::Window { since: second(349) }]);
    assert_eq!(plan.decisions[5].reasons, [KeepReason::Newest]);
    // The head of the database file that holds 305 is 256, whose piece starts at 260.
    assert_eq!(plan.log.from, Some(place(1, 260)));
    assert_eq!(plan.log.because_of, Some(backups[3].id.clone()));
    assert_eq!(plan.log.superfluous(&chain).len(), 26);
}

#[test]
fn without_a_window_log_stays_as_long_as_a_backup_it_goes_on_from() {
    let (backups, chain) = regular(6);
    let policy = RetentionPolicy { last: 2, ..RetentionPolicy::default() };
    let plan = plan(&policy, &backups, &chain);
    assert_eq!(ends(plan.kept()), [409, 509]);
    // The head of the database file that holds 405 is 384.
    assert_eq!(plan.log.from.unwrap().offset, 390);
}

#[test]
fn a_backup_kept_for_a_month_does_not_keep_a_month_of_log() {
    let (backups, chain) = regular(6);
    let pins = BTreeMap::from([(backups[0].id.clone(), "audit".to_owned())]);
    let target = shop();
    let records = known(&target, &backups, &chain);
    let plan = plan_forget(records, &window(100), &pins);
    assert_eq!(ends(plan.kept()), [9, 409, 509]);
    assert_eq!(plan.decisions[0].reasons[0].to_string(), "pinned: audit");
    assert_eq!(plan.log.because_of, Some(backups[4].id.clone()));
}

#[test]
fn a_wrong_clock_takes_neither_backups_nor_keeps_their_log() {
    let (mut backups, chain) = regular(6);
    // Of the six the second was dated years ahead, and is the last by date.
    let mut wrong = backups.remove(1);
    wrong.manifest.finished = second(1_000_000_000);
    backups.push(wrong.clone());
    let last = plan(&RetentionPolicy { last: 2, ..RetentionPolicy::default() }, &backups, &chain);
    assert_eq!(ends(last.kept()), [409, 509, 109]);
    assert_eq!(last.decisions[5].reasons, [KeepReason::InFuture { time: second(1_000_000_000) }]);
    let windowed = plan(&window(100), &backups, &chain);
    assert_eq!(ends(windowed.kept()), [409, 509, 109]);
    assert_eq!(windowed.log.because_of, Some(backups[3].id.clone()));
    // Named, it goes.
    let target = shop();
    let records = known(&target, &backups, &chain);
    let named = BTreeSet::from([wrong.id.clone()]);
    let named = plan_forget_named(records, &window(100), &BTreeMap::new(), &named).unwrap();
    assert_eq!(ends(named.forgotten()), [109]);
}

#[test]
fn a_backup_that_is_named_goes_unless_it_is_needed() {
    let (backups, chain) = regular(6);
    let target = shop();
    let records = known(&target, &backups, &chain);
    let named = |number: usize| BTreeSet::from([backups[number].id.clone()]);
    let none = BTreeMap::new();
    let plan = plan_forget_named(records, &window(250), &none, &named(5)).unwrap();
    assert_eq!(ends(plan.forgotten()), [509]);
    let needed = plan_forget_named(records, &window(250), &none, &named(3)).unwrap_err();
    assert_eq!(needed.reason, KeepReason::Window { since: second(349) });
    let pins = BTreeMap::from([(backups[0].id.clone(), "audit".to_owned())]);
    let pinned = plan_forget_named(records, &RetentionPolicy::default(), &pins, &named(0)).unwrap_err();
    assert!(pinned.to_string().ends_with("stays: pinned: audit"), "{pinned}");
    // Without a policy whatever is named goes.
    assert!(plan_forget_named(records, &RetentionPolicy::default(), &none, &named(0)).is_ok());
}

#[test]
fn behind_a_gap_another_backup_is_needed() {
    let mut pieces = log(1, 0, 60);
    pieces.extend(log(1, 80, 120));
    let chain = Chain::new(pieces, vec![]);
    let backups = [
        backup(1, place(1, 5), place(1, 9)),
        backup(2, place(1, 30), place(1, 33)),
        backup(3, place(1, 82), place(1, 90)),
        backup(4, place(1, 100), place(1, 110)),
    ];
    let plan = plan(&window(100), &backups, &chain);
    assert_eq!(ends(plan.kept()), [9, 90, 110]);
}

#[test]
fn an_archive_that_stands_still_loses_nothing_by_it() {
    let (backups, chain) = regular(3);
    let target = shop();
    let records = Records { now: second(1_000_000), ..known(&target, &backups, &chain) };
    let late = plan_forget(records, &window(150), &BTreeMap::new());
    assert_eq!(ends(late.kept()), [109, 209]);
}

#[test]
fn log_without_a_backup_stays() {
    let chain = Chain::new(log(1, 0, 100), vec![]);
    let plan = plan(&window(10), &[], &chain);
    assert!(plan.log.superfluous(&chain).is_empty());
}

#[test]
fn the_last_piece_stays_where_the_archive_is_behind_all_backups() {
    let chain = Chain::new(log(1, 0, 100), vec![]);
    let backups = [backup(1, place(1, 500), place(1, 510))];
    let plan = plan(&window(10), &backups, &chain);
    assert_eq!(plan.log.superfluous(&chain).len(), 9);
}

#[test]
fn a_backup_on_no_line_is_needed_while_the_window_holds_it() {
    // The archive got as far as the server that was promoted did; the old one had gone on to 200 without it.
    let mut pieces = log(1, 0, 100);
    pieces.push(piece(1, 100, 105));
    pieces.push(Segment { follows: Some(place(1, 105)), ..piece(2, 100, 110) });
    pieces.extend(log(2, 110, 400));
    let chain = Chain::new(pieces, vec![]);
    let backups = [
        backup(1, place(1, 5), place(1, 9)),
        backup(2, place(1, 195), place(1, 200)),
        backup(3, place(2, 295), place(2, 300)),
    ];
    let at =
        |backups: &[Backup]| crate::windows(backups, &chain, None).iter().any(|w| w.from.position == place(1, 200));
    assert!(at(&backups));
    // The log ends at second 399; the window starts at 199, then behind the backup's end.
    let held = plan(&window(200), &backups, &chain);
    assert_eq!(ends(held.kept()), [9, 200, 300]);
    assert_eq!(held.decisions[1].reasons, [KeepReason::Window { since: second(199) }]);
    assert!(at(&held.kept().cloned().collect::<Vec<_>>()));
    assert_eq!(ends(plan(&window(198), &backups, &chain).kept()), [9, 300]);
    // Of two at one place the newest will do.
    let twice = [&backups[..2], &[backup(4, place(1, 200), place(1, 200))], &backups[2..]].concat();
    let once = plan(&window(200), &twice, &chain);
    assert_eq!(once.forgotten().map(|backup| &backup.id).collect::<Vec<_>>(), [&backups[1].id]);
    let target = shop();
    let named = BTreeSet::from([backups[1].id.clone()]);
    let needed = plan_forget_named(known(&target, &backups, &chain), &window(200), &BTreeMap::new(), &named);
    assert_eq!(needed.unwrap_err().backup, backups[1].id);
}

#[test]
fn log_of_epochs_left_before_goes_with_them() {
    let mut pieces = log(1, 0, 200);
    pieces.push(Segment { follows: Some(place(1, 105)), ..piece(2, 64, 120) });
    pieces.extend(log(2, 120, 300));
    let chain = Chain::new(pieces, vec![]);
    let backups = [backup(1, place(1, 5), place(1, 9)), backup(2, place(2, 150), place(2, 155))];
    let policy = RetentionPolicy { last: 1, ..RetentionPolicy::default() };
    let plan = plan(&policy, &backups, &chain);
    let after = chain.without(&plan.log.superfluous(&chain));
    assert_eq!(after.epochs().collect::<Vec<_>>(), [2]);
    assert_eq!(after.gaps(), []);
}

/// The line of every epoch that anything is known of: a restore may be asked to follow any.
fn histories(backups: &[Backup], chain: &Chain) -> Vec<Line> {
    let mut epochs: BTreeSet<u64> = chain.epochs().collect();
    epochs.extend(backups.iter().map(|backup| backup.manifest.end.epoch));
    epochs.into_iter().map(|epoch| chain.line(epoch)).collect()
}

/// Pieces of 10 and a shorter one up to exactly `to`.
fn log_up_to(epoch: u64, from: u64, to: u64) -> Vec<Segment> {
    let rest = (to > to / 10 * 10).then(|| piece(epoch, to / 10 * 10, to));
    log(epoch, from, to).into_iter().chain(rest).collect()
}

/// Every place of every line that can be restored to, from second `since` on.
fn reachable(all: &[Line], backups: &[Backup], chain: &Chain, since: u64) -> BTreeSet<(u64, u64, u64)> {
    let mut places = BTreeSet::new();
    for line in all {
        for backup in backups {
            let Some(reach) = Reach::of(chain, line, backup, None) else { continue };
            let Some(from) = line.spot(&backup.manifest.end) else { continue };
            for (number, step) in line.steps().iter().enumerate() {
                let low = if number == from.step() { from.offset() } else { 0 };
                let high = if number == reach.spot.step() { reach.spot.offset() } else { step.until.unwrap_or(0) };
                if number < from.step() || number > reach.spot.step() {
                    continue;
                }
                places.extend((low.max(since)..=high).map(|offset| (line.epoch(), step.epoch, offset)));
            }
        }
    }
    places
}

proptest! {
    #[test]
    fn whatever_the_window_kept_can_still_be_restored_to(
        lost in proptest::collection::vec(0u64..40, 0..6),
        starts in proptest::collection::vec((0u64..380, 0u64..30, 1u64..25), 1..9),
        // And whether the old epoch's log ends there.
        fork in proptest::option::of((50u64..350, any::<bool>())),
        archived in (30u64..400, 10u64..400),
        seconds in 1u64..500,
        last in 0u32..3,
    ) {
        let mut pieces = log_up_to(1, 0, fork.filter(|(_, ends)| *ends).map_or(archived.0, |(fork, _)| fork));
        pieces.retain(|piece| !lost.contains(&(piece.start.offset / 10)));
        let fork = fork.map(|(fork, _)| fork);
        if let Some(fork) = fork {
            let start = fork / 10 * 10;
            pieces.push(Segment { follows: Some(place(1, fork)), ..piece(2, start, start + 10) });
            pieces.extend(log_up_to(2, start + 10, archived.1.max(start + 10)));
        }
        let chain = Chain::new(pieces, vec![]);
        let mut backups: Vec<Backup> = starts.iter().enumerate().map(|(number, (from, length, epoch))| {
            let epoch = if fork.is_some_and(|fork| fork < *from) && epoch % 2 == 0 { 2 } else { 1 };
            backup(number as u64, place(epoch, *from), place(epoch, from + length))
        }).collect();
        backups.sort_by_key(|backup| backup.manifest.finished);
        let policy = RetentionPolicy { last, ..window(seconds) };
        let plan = plan(&policy, &backups, &chain);
        let all = histories(&backups, &chain);
        let kept: Vec<Backup> = plan.kept().cloned().collect();
        let after = chain.without(&plan.log.superfluous(&chain));
        let since = plan.log.window_since.unwrap().as_micros() / 1_000_000;
        prop_assert_eq!(
            reachable(&all, &backups, &chain, since + 1),
            reachable(&all, &kept, &after, since + 1)
        );
        prop_assert!(kept.iter().any(|backup| Some(&backup.id) == backups.last().map(|newest| &newest.id)));
        // Doing it again changes nothing.
        let again = super::tests::plan(&policy, &kept, &after);
        prop_assert_eq!(again.forgotten().count(), 0);
        prop_assert!(again.log.superfluous(&after).is_empty());
    }

    #[test]
    fn a_policy_by_the_calendar_never_takes_the_newest(daily in 0u32..4, weekly in 0u32..4, count in 1u64..40) {
        let (backups, chain) = regular(count);
        let policy = RetentionPolicy { daily, weekly, time_zone: TimeZone::UTC, ..RetentionPolicy::default() };
        let plan = plan(&policy, &backups, &chain);
        prop_assert!(plan.decisions.last().unwrap().stays());
        prop_assert_eq!(plan.kept().count() + plan.forgotten().count(), backups.len());
    }
}
