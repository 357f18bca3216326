//! The door to a backup's manifest, and to everything that is planned by it.

use super::Seen;
use crate::{Id, document};
use backstay_core::{
    Backup, BackupManifest, Chain, Period, Point, Records, RestorePlan, RestoreRequest, RetentionPolicy, Segment,
    Target, log_needed, plan_forget, windows,
};
use std::collections::BTreeMap;

/// As the catalog reads it, which then looks at its format; a store may say any place, time and size.
pub(super) fn manifest(bytes: &[u8]) -> Seen {
    let mut seen = Seen::of(bytes.len());
    let Some(manifest) = seen.note(document::from_json::<BackupManifest>(bytes)) else { return seen };
    seen.taken = manifest.format == 1;
    let again = document::to_json(&manifest).and_then(|json| document::from_json::<BackupManifest>(&json));
    let again = again.and_then(|again| document::to_json(&again));
    assert_eq!(again.ok(), document::to_json(&manifest).ok());
    let backup = Backup { id: Id::of(bytes).into(), manifest };
    for chain in [Chain::default(), log_of(&backup.manifest)] {
        plan(&backup, &chain);
    }
    seen
}

/// The log from where the backup needs it to a little beyond its end, as far as there can be such a log.
fn log_of(manifest: &BackupManifest) -> Chain {
    let beyond = |offset: u64| offset.saturating_add(4096);
    let piece = |start: &backstay_core::Position, end: u64, file: &str| Segment {
        start: start.clone(),
        end: backstay_core::Position { offset: end, ..start.clone() },
        follows: None,
        first_commit: manifest.consistent_at,
        last_commit: manifest.consistent_at,
        file: file.to_owned(),
        file_offset: 0,
    };
    let inside = piece(&manifest.log_from, manifest.end.offset, "1");
    let behind = piece(&manifest.end, beyond(manifest.end.offset), "2");
    Chain::new([inside, behind].into_iter().filter(|piece| piece.validate().is_ok()).collect(), Vec::new())
}

fn plan(backup: &Backup, chain: &Chain) {
    let manifest = &backup.manifest;
    let other = Backup { id: Id::of(b"another").into(), ..backup.clone() };
    let backups = [backup.clone(), other];
    let confirmed = Point { position: manifest.end.clone(), time: manifest.finished };
    let found = windows(&backups, chain, Some(&confirmed));
    assert!(backups.iter().all(|one| found.iter().any(|window| window.backups.contains(&one.id))), "{found:?}");
    let day: Option<Period> = "1d".parse().ok();
    let policy = RetentionPolicy { daily: 1, within: day, pitr_window: day, ..RetentionPolicy::default() };
    let (now, confirmed) = (manifest.started, Some(&confirmed));
    let records = Records { target: &manifest.target, backups: &backups, chain, confirmed, now };
    let forget = plan_forget(records, &policy, &BTreeMap::new());
    assert!(forget.kept().count() > 0, "a policy took the last backup away");
    let _ = (log_needed(records, &policy), forget.log.superfluous(chain));
    for target in [Target::BackupEnd, Target::Latest, Target::Time(manifest.finished)] {
        let request = RestoreRequest { target, inclusive: true, backup: None, epoch: None, now };
        // Both are shown to people.
        match RestorePlan::new(&backups, chain, confirmed, &request) {
            Ok(plan) => drop((plan.to_string(), plan.effective_target())),
            Err(error) => drop((error.to_string(), error.hint())),
        }
    }
}
