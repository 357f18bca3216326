//! Which backups need what is damaged.
//!
//! Each backup is walked by itself, with one bit for every blob of the index. Trees below which nothing is damaged are
//! looked at once: where all is well but for a few backups, this costs little more than the walk before.

use super::damage::Damage;
use super::report::CheckReport;
use super::trees::{Looked, look};
use crate::index::Index;
use crate::limits::LOADS_MAX;
use crate::marks::Marks;
use crate::pack::BlobKind;
use crate::snapshot::Snapshot;
use crate::tree::NodeKind;
use crate::{Id, Repository, Result};
use futures::StreamExt;

/// Names with every problem the backups that need what is damaged. `snapshots` begin with the newest.
pub(super) async fn tell(
    repository: &Repository,
    index: &Index,
    snapshots: &[Snapshot],
    report: &mut CheckReport,
    damage: &Damage,
) -> Result<()> {
    if !damage.is_any() {
        return Ok(());
    }
    let mut walk = Walk {
        index,
        damage,
        seen: Marks::none(index.len()),
        sound: Marks::none(index.len()),
        met: Marks::none(report.errors.len()),
        ahead: Vec::new(),
    };
    for snapshot in snapshots {
        walk.run(repository, &snapshot.tree).await?;
        for (_, problem) in report.errors.iter_mut().enumerate().filter(|(number, _)| walk.met.has(*number)) {
            problem.affected.get_or_insert_default().add(&snapshot.id);
        }
    }
    Ok(())
}

struct Walk<'a> {
    index: &'a Index,
    damage: &'a Damage,
    /// Blobs of this backup.
    seen: Marks,
    /// Trees of other backups below which nothing is damaged.
    sound: Marks,
    /// Problems that this backup meets.
    met: Marks,
    /// Trees to be looked at.
    ahead: Vec<usize>,
}

impl Walk<'_> {
    async fn run(&mut self, repository: &Repository, root: &Id) -> Result<()> {
        self.seen.clear_all();
        self.met.clear_all();
        let mut any = self.meet(BlobKind::Tree, root);
        while !self.ahead.is_empty() {
            let some = self.ahead.split_off(self.ahead.len().saturating_sub(LOADS_MAX));
            let index = self.index;
            let looks: Vec<_> = futures::stream::iter(some)
                .map(|number| async move { look(repository, index, number).await })
                .buffered(LOADS_MAX)
                .collect()
                .await;
            for looked in looks {
                let Looked::Nodes(nodes) = looked? else {
                    // It has its problem already.
                    any = true;
                    continue;
                };
                for node in nodes {
                    match node.kind {
                        NodeKind::Directory { subtree } => any |= self.meet(BlobKind::Tree, &subtree),
                        NodeKind::File { content, .. } => {
                            for blob in &content {
                                any |= self.meet(BlobKind::Data, blob);
                            }
                        }
                        NodeKind::Symlink { .. } | NodeKind::Other { .. } => {}
                    }
                }
            }
        }
        if !any {
            self.sound.join(&self.seen);
        }
        Ok(())
    }

    /// Takes note of a blob that the backup needs; answers whether something is wrong with it.
    fn meet(&mut self, kind: BlobKind, id: &Id) -> bool {
        let Some(number) = self.index.position(kind, id) else {
            if let Some(problem) = self.damage.problem_of_unindexed() {
                self.met.mark(problem);
            }
            return true;
        };
        if self.sound.has(number) || !self.seen.mark(number) {
            return false;
        }
        let (mut any, met) = (self.damage.has(number), &mut self.met);
        for problem in self.damage.problems_of(number) {
            met.mark(problem);
            any = true;
        }
        if kind == BlobKind::Tree && !self.damage.has(number) {
            self.ahead.push(number);
        }
        any
    }
}
