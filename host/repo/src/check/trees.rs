//! Trees: can all of them be walked, and is all that they name there.

use super::damage::Damage;
use super::report::CheckReport;
use crate::aligned::AlignedBuffer;
use crate::index::Index;
use crate::limits::LOADS_MAX;
use crate::marks::Marks;
use crate::pack::BlobKind;
use crate::read::fetch::{get, own};
use crate::snapshot::Snapshot;
use crate::tree::{Node, NodeKind, Tree};
use crate::{Id, RepoErrorKind, Repository, Result};
use futures::StreamExt;
use std::sync::Arc;

/// A tree that was looked at.
pub(super) enum Looked {
    /// What is in it, each node by itself.
    Nodes(Vec<Node>),
    /// It does not open, for this reason.
    Sealed(String),
    /// It opens and makes no sense.
    Senseless(String),
}

/// Reads the tree with this number in the index.
pub(super) async fn look(repository: &Repository, index: &Index, number: usize) -> Result<Looked> {
    let place = index.place_at(number);
    let (blob, start) = (place.blob, u64::from(place.blob.offset));
    if let Err(error) = index.require(BlobKind::Tree, &blob.id) {
        return Ok(Looked::Sealed(error.to_string()));
    }
    let pack = index.pack(place.pack).pack_key();
    let sealed = match get(repository.store(), &pack, start..start + u64::from(blob.length)).await {
        Ok(sealed) => sealed,
        Err(error) if error.kind() == RepoErrorKind::Damaged => return Ok(Looked::Sealed(error.to_string())),
        Err(error) => return Err(error),
    };
    let key = Arc::clone(repository.shared_key());
    let looked = tokio::task::spawn_blocking(move || {
        let mut plain = AlignedBuffer::default();
        if let Err(error) = blob.open(&key, &mut own(sealed), &mut plain) {
            return Looked::Sealed(error.to_string());
        }
        let read = |tree: Tree| tree.nodes.into_iter().map(|node| node.read(None)).collect::<Result<_>>();
        match Tree::from_bytes(plain.bytes()).and_then(read) {
            Ok(nodes) => Looked::Nodes(nodes),
            Err(error) => Looked::Senseless(error.to_string()),
        }
    });
    Ok(looked.await?)
}

/// Walks all trees, each once.
pub(super) async fn check(
    repository: &Repository,
    index: &Arc<Index>,
    snapshots: &[Snapshot],
    report: &mut CheckReport,
    damage: &mut Damage,
) -> Result<()> {
    let mut walk = Walk { index, seen: Marks::none(index.len()), ahead: Vec::new() };
    snapshots.iter().for_each(|snapshot| walk.go_to(&snapshot.tree, report, damage));
    while !walk.ahead.is_empty() {
        let some = walk.ahead.split_off(walk.ahead.len().saturating_sub(LOADS_MAX));
        let looks: Vec<_> = futures::stream::iter(some)
            .map(|number| async move { (number, look(repository, index, number).await) })
            .buffered(LOADS_MAX)
            .collect()
            .await;
        for (number, looked) in looks {
            let blob = index.place_at(number).blob;
            match looked? {
                Looked::Nodes(nodes) => walk.check_nodes(number, nodes, report, damage),
                Looked::Senseless(why) => damage.tree(report, number, why),
                Looked::Sealed(why) => {
                    let pack = index.pack(index.place_at(number).pack);
                    damage.pack(report, pack, format!("tree blob {} does not open: {why}", blob.id));
                    damage.blob(pack, &blob);
                }
            }
        }
    }
    damage.count_unindexed(report);
    Ok(())
}

struct Walk<'a> {
    index: &'a Index,
    seen: Marks,
    /// Trees to be looked at.
    ahead: Vec<usize>,
}

impl Walk<'_> {
    fn go_to(&mut self, tree: &Id, report: &mut CheckReport, damage: &mut Damage) {
        match self.index.position(BlobKind::Tree, tree) {
            None => damage.unindexed(report, BlobKind::Tree, tree),
            Some(number) => {
                // What is known not to open needs no second look.
                if self.seen.mark(number) && !damage.has(number) {
                    self.ahead.push(number);
                }
            }
        }
    }

    fn check_nodes(&mut self, number: usize, nodes: Vec<Node>, report: &mut CheckReport, damage: &mut Damage) {
        for node in nodes {
            match node.kind {
                NodeKind::Directory { subtree } => self.go_to(&subtree, report, damage),
                NodeKind::File { bytes, content } => {
                    let mut sum = Some(0);
                    for blob in &content {
                        match self.index.require(BlobKind::Data, blob) {
                            Ok(place) => sum = sum.map(|sum: u64| sum + u64::from(place.blob.plain_length())),
                            Err(error) => {
                                sum = None;
                                match self.index.find(BlobKind::Data, blob) {
                                    Some(_) => damage.tree(report, number, format!("{}: {error}", node.path)),
                                    None => damage.unindexed(report, BlobKind::Data, blob),
                                }
                            }
                        }
                    }
                    if let Some(sum) = sum.filter(|sum| *sum != bytes) {
                        let cause = format!("{} has {sum} bytes of content, not {bytes}", node.path);
                        damage.tree(report, number, cause);
                    }
                }
                NodeKind::Symlink { .. } | NodeKind::Other { .. } => {}
            }
        }
    }
}
