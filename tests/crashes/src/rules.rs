//! What must hold, whatever happened.

use crate::job::{LATER_SERVER, Surroundings, Trouble, log_bytes, maker_tag};
use crate::ledger::{Files, Promises};
use crate::plan::is_merged;
use backstay_repo::log::LogChain;
use backstay_repo::{CheckOptions, NodeKind, RepoErrorKind, Repository, Snapshot, SnapshotReader};
use futures::TryStreamExt;
use std::collections::BTreeSet;

/// Every rule, on what is left. `auditor` is a client whose requests wait for nothing.
pub async fn all_hold(auditor: &Surroundings) -> Vec<String> {
    let promised = auditor.ledger.snapshot();
    let mut broken = match look(auditor, &promised).await {
        Ok(broken) => broken,
        Err(trouble) => vec![format!("failed to look: {trouble}")],
    };
    if let Some(second) = auditor.second() {
        match look(&second, &promised.of_copies()).await {
            Ok(found) => broken.extend(found.into_iter().map(|what| format!("in the copy: {what}"))),
            Err(trouble) => broken.push(format!("failed to look at the copy: {trouble}")),
        }
        match is_not_ahead(auditor, &second).await {
            Ok(found) => broken.extend(found),
            Err(trouble) => broken.push(format!("failed to compare the logs: {trouble}")),
        }
    }
    broken
}

/// A copy has no log that its source lacks: whoever goes on there might put something else in its place.
async fn is_not_ahead(first: &Surroundings, second: &Surroundings) -> Result<Vec<String>, Trouble> {
    let (ours, theirs) = (first.log().await?, second.log().await?);
    let end = |log: &LogChain, epoch| log.chain().end_of(epoch).map_or(0, |end| end.offset);
    let ahead = theirs.chain().epochs().filter(|epoch| end(&theirs, *epoch) > end(&ours, *epoch));
    Ok(ahead.map(|epoch| format!("the copy of epoch {epoch} reaches further than the log itself")).collect())
}

/// That nothing is missing that a backup or an index file names, whatever else is damaged.
pub async fn nothing_is_missing(auditor: &Surroundings) -> Vec<String> {
    let promised = auditor.ledger.snapshot();
    let look = async {
        let repository = auditor.repository().await?;
        repository.unlock(true).await?;
        let mut broken = backups_are_whole(&repository, &promised, || promised.clone()).await?;
        let report = repository.check(CheckOptions::default(), |_| {}).await?;
        broken.extend(report.errors.iter().map(|error| format!("check without data: {error}")));
        Ok::<_, Trouble>(broken)
    };
    look.await.unwrap_or_else(|trouble| vec![format!("failed to look: {trouble}")])
}

/// Takes away the locks of those who held them: they are dead.
pub async fn unlock(auditor: &Surroundings) {
    let unlocked = async { auditor.repository().await?.unlock(true).await };
    if let Err(error) = unlocked.await {
        auditor.ledger.violated(format!("failed to unlock: {error}"));
    }
}

async fn look(auditor: &Surroundings, promised: &Promises) -> Result<Vec<String>, Trouble> {
    let repository = auditor.repository().await?;
    // Whoever held them is dead.
    repository.unlock(true).await?;
    let mut broken = backups_are_whole(&repository, promised, || promised.clone()).await?;
    let report = repository.check(CheckOptions::everything(), |_| {}).await?;
    broken.extend(report.errors.iter().map(|error| format!("check: {error}")));
    let log = auditor.log().await?;
    broken.extend(log_is_whole(&log, promised).await?);
    let report = log.check(true).await?;
    let damage = report.damaged.iter().any(|object| !(promised.torn && is_merged(&object.object)));
    let gaps = report.gaps.iter().any(|gap| !promised.may_have(gap));
    if gaps || damage || !report.strangers.is_empty() {
        let (gaps, damaged) = (&report.gaps, &report.damaged);
        broken.push(format!("check of the log: {gaps:?} {damaged:?} {:?}", report.strangers));
    }
    Ok(broken)
}

/// Every backup that was promised is there, and every one that is there restores to what its maker put in. What is
/// there may be newer than `promised`: `known` says what is known by now.
pub async fn backups_are_whole(
    repository: &Repository,
    promised: &Promises,
    known: impl Fn() -> Promises,
) -> Result<Vec<String>, Trouble> {
    let mut broken = Vec::new();
    let snapshots = repository.snapshots().await?;
    for kept in promised.backups.iter().filter(|kept| !kept.forgotten) {
        let of = |snapshot: &Snapshot| match kept.holed.is_some() {
            // A repair whose answer was lost put another one in its place.
            true => snapshot.tags.contains(&maker_tag(kept.maker)),
            false => kept.id.as_ref() == Some(&snapshot.id),
        };
        if kept.id.is_some() && !snapshots.iter().any(of) {
            broken.push(format!("the backup of maker {} is gone", kept.maker));
        }
    }
    let known = known();
    for snapshot in snapshots {
        let Some(kept) = known.backups.iter().find(|kept| snapshot.tags.contains(&maker_tag(kept.maker))) else {
            broken.push(format!("nobody made backup {}", snapshot.id.short()));
            continue;
        };
        let reader = match repository.open_snapshot(&snapshot.id).await {
            Ok(reader) => reader,
            Err(error) if kept.forgotten && error.kind() == RepoErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        match read_all(&reader).await {
            Ok(files) if files == kept.files => {}
            Ok(files) if kept.holed.is_some() && is_salvaged(&files, &kept.files) => {}
            Ok(_) => broken.push(format!("the backup of maker {} has other files", kept.maker)),
            Err(error) if error.kind() == RepoErrorKind::Unreachable => return Err(error.into()),
            Err(error) => broken.push(format!("the backup of maker {} does not restore: {error}", kept.maker)),
        }
    }
    Ok(broken)
}

/// Whether these are some of the files, each as it was put.
fn is_salvaged(files: &Files, all: &Files) -> bool {
    !files.is_empty() && files.iter().all(|(path, content)| all.get(path) == Some(content))
}

async fn read_all(reader: &SnapshotReader) -> backstay_repo::Result<Files> {
    let mut files = Files::new();
    for node in reader.nodes().await? {
        // What these scenarios put has plain names.
        if let (NodeKind::File { bytes, .. }, Some(path)) = (node.kind, node.path.to_relative()) {
            files.insert(path.to_string(), reader.read_all(&path, bytes).await?);
        }
    }
    Ok(files)
}

/// The chain has no gap, every epoch that was begun anew is one server's, and it reaches what servers were told, and has the bytes of every piece that was acknowledged.
pub async fn log_is_whole(log: &LogChain, promised: &Promises) -> Result<Vec<String>, Trouble> {
    let mut broken = Vec::new();
    let gaps = log.chain().gaps();
    let damage = log.damaged().iter().any(|object| !(promised.torn && is_merged(&object.object)));
    if gaps.iter().any(|gap| !promised.may_have(gap)) || damage {
        broken.push(format!("the log has gaps: {gaps:?}, damage: {:?}", log.damaged()));
        return Ok(broken);
    }
    for (epoch, told) in &promised.told {
        let end = log.chain().end_of(*epoch).map_or(0, |end| end.offset);
        if end < *told {
            broken.push(format!("epoch {epoch} ends at {end}, but a server was told {told}"));
        }
    }
    for epoch in log.chain().epochs() {
        let mut pieces = log.chain().pieces(epoch).to_vec();
        let before = gaps.iter().filter(|gap| gap.to.epoch == epoch).map(|gap| gap.to.offset).max().unwrap_or(0);
        pieces.retain(|piece| piece.start.offset >= before);
        let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else { continue };
        let (from, to) = (first.start.offset, last.end.offset);
        let parts: Vec<bytes::Bytes> = log.joined(from, pieces).try_collect().await?;
        let stored = parts.concat();
        if stored.len() as u64 != to - from {
            broken.push(format!("epoch {epoch} has {} bytes from {from} to {to}", stored.len()));
            continue;
        }
        let cut = promised.needed_from(epoch);
        for told in promised.log.iter().filter(|told| told.piece.start.epoch == epoch) {
            let (start, end) = (told.piece.start.offset.max(cut), told.piece.end.offset);
            if start >= end {
                continue;
            }
            if start < from || end > to {
                broken.push(format!("log {epoch}:{start}-{end} was acknowledged, there is {from}-{to}"));
            } else if stored[(start - from) as usize..(end - from) as usize]
                != log_bytes(told.server, epoch, start, end)
            {
                broken.push(format!("log {epoch}:{start}-{end} of server {} has other bytes", told.server));
            }
        }
    }
    for epoch in log.chain().epochs().filter(|epoch| *epoch > 1) {
        // Whoever works on afterwards is no rival.
        let pieces = promised.log.iter().filter(|told| told.piece.start.epoch == epoch && told.server != LATER_SERVER);
        let servers: BTreeSet<u64> = pieces.map(|told| told.server).collect();
        if servers.len() > 1 {
            broken.push(format!("epoch {epoch} was begun by more than one server: {servers:?}"));
        }
    }
    for told in &promised.log {
        if log.chain().pieces(told.piece.start.epoch).is_empty() {
            broken.push(format!("log of epoch {} was acknowledged, and there is none", told.piece.start.epoch));
        }
    }
    Ok(broken)
}
