//! Which snapshots are whole, by an index.

use super::BrokenSnapshot;
use crate::index::Index;
use crate::limits::{LOADS_MAX, MISSING_MAX};
use crate::pack::BlobKind;
use crate::quote::unquote;
use crate::references::{self, References};
use crate::snapshot::Snapshot;
use crate::{Id, RepoErrorKind, Repository, Result};
use backstay_core::MANIFEST_PATH;
use futures::StreamExt;
use std::collections::{HashMap, HashSet};

/// What there is to say about a tree.
struct Surveyed {
    /// Of its own files: those without a hole, and their bytes.
    files: u64,
    bytes: u64,
    /// Whether it can be read, its own files have no hole, and the same holds for all below.
    whole: bool,
    readable: bool,
    below: Box<[Id]>,
}

/// Looks at trees, each once.
pub(super) struct Survey<'a> {
    repository: &'a Repository,
    index: &'a Index,
    trees: HashMap<Id, Surveyed>,
}

impl<'a> Survey<'a> {
    pub(super) fn new(repository: &'a Repository, index: &'a Index) -> Self {
        Self { repository, index, trees: HashMap::new() }
    }

    /// Whether the tree can be restored whole.
    pub(super) async fn is_whole(&mut self, root: Id) -> Result<bool> {
        self.visit(root).await?;
        self.judge(root);
        Ok(self.trees[&root].whole)
    }

    /// Whether a tree that was visited can be restored whole; one that was not is not.
    pub(super) fn was_whole(&self, tree: &Id) -> bool {
        self.trees.get(tree).is_some_and(|tree| tree.whole)
    }

    /// Whether the index knows a blob.
    pub(super) fn has(&self, kind: BlobKind, id: &Id) -> bool {
        self.index.require(kind, id).is_ok()
    }

    /// The trees with holes below `root` and itself, those that others refer to before them. All can be read.
    pub(super) fn broken_trees(&self, root: Id) -> Vec<Id> {
        let (mut order, mut seen) = (Vec::new(), HashSet::new());
        let mut ahead = vec![(root, false)];
        while let Some((id, left)) = ahead.pop() {
            if left {
                order.push(id);
                continue;
            }
            let broken = self.trees.get(&id).filter(|tree| tree.readable && !tree.whole);
            let Some(tree) = broken.filter(|_| seen.insert(id)) else { continue };
            ahead.push((id, true));
            ahead.extend(tree.below.iter().map(|below| (*below, false)));
        }
        order
    }

    /// What is missing of a snapshot that is not whole.
    pub(super) async fn broken(&self, snapshot: &Snapshot) -> Result<BrokenSnapshot> {
        let mut broken = BrokenSnapshot {
            id: snapshot.id.clone(),
            time: snapshot.time,
            tags: snapshot.tags.clone(),
            paths: snapshot.paths.clone(),
            missing: Vec::new(),
            missing_unlisted: 0,
            whole_files: 0,
            whole_bytes: 0,
        };
        let mut manifest = false;
        let mut ahead = vec![(String::new(), snapshot.tree)];
        while let Some((path, id)) = ahead.pop() {
            let Some(tree) = self.trees.get(&id) else { continue };
            if !tree.readable {
                broken.add(format!("folder /{path}: its tree {} cannot be read", id.short()));
                continue;
            }
            broken.whole_files += tree.files;
            broken.whole_bytes = broken.whole_bytes.saturating_add(tree.bytes);
            if tree.whole && !MANIFEST_PATH.starts_with(&path) {
                // Nothing to name below, but all of it counts.
                ahead.extend(tree.below.iter().map(|below| (path.clone(), *below)));
                continue;
            }
            let references = references::load(self.repository, self.index, id).await?;
            for file in &references.files {
                let path = join(&path, &file.name);
                let holes = file.content.iter().filter(|blob| !self.has(BlobKind::Data, blob)).count();
                if holes > 0 {
                    broken.add(format!("/{path}: {holes} of its {} chunks", file.content.len()));
                } else if path == MANIFEST_PATH {
                    manifest = true;
                    broken.whole_bytes = broken.whole_bytes.saturating_sub(file.bytes);
                }
            }
            ahead.extend(references.folders.iter().map(|folder| (join(&path, &folder.name), folder.subtree)));
        }
        broken.whole_files -= u64::from(manifest);
        Ok(broken)
    }

    /// Reads every tree below `root` that was not read before.
    async fn visit(&mut self, root: Id) -> Result<()> {
        let mut ahead = vec![root];
        while !ahead.is_empty() {
            let mut some = ahead.split_off(ahead.len().saturating_sub(LOADS_MAX));
            some.retain(|id| !self.trees.contains_key(id));
            some.sort();
            some.dedup();
            let (known, unknown): (Vec<Id>, Vec<Id>) = some.into_iter().partition(|id| self.has(BlobKind::Tree, id));
            for id in unknown {
                self.trees.insert(id, Surveyed::unreadable());
            }
            let (repository, index) = (self.repository, self.index);
            let mut loaded = std::pin::pin!(references::load_each(repository, index, known));
            while let Some((id, references)) = loaded.next().await {
                let tree = match references {
                    Ok(references) => self.survey(&references),
                    Err(error) if error.kind() == RepoErrorKind::Damaged => Surveyed::unreadable(),
                    Err(error) => return Err(error),
                };
                ahead.extend(tree.below.iter().copied());
                self.trees.insert(id, tree);
            }
        }
        Ok(())
    }

    fn survey(&self, references: &References) -> Surveyed {
        let (mut files, mut bytes, mut whole) = (0, 0, true);
        for file in &references.files {
            if file.content.iter().all(|blob| self.has(BlobKind::Data, blob)) {
                files += 1;
                bytes = file.bytes.saturating_add(bytes);
            } else {
                whole = false;
            }
        }
        let below = references.folders.iter().map(|folder| folder.subtree).collect();
        Surveyed { files, bytes, whole, readable: true, below }
    }

    /// Takes the word `whole` from every tree that has one below that is not.
    fn judge(&mut self, root: Id) {
        let (mut ahead, mut seen) = (vec![(root, false)], HashSet::new());
        while let Some((id, left)) = ahead.pop() {
            let Some(tree) = self.trees.get(&id) else { continue };
            if left {
                let whole = tree.whole && tree.below.iter().all(|below| self.was_whole(below));
                if let Some(tree) = self.trees.get_mut(&id) {
                    tree.whole = whole;
                }
            } else if seen.insert(id) {
                ahead.push((id, true));
                ahead.extend(tree.below.iter().map(|below| (*below, false)));
            }
        }
    }
}

impl Surveyed {
    fn unreadable() -> Self {
        Self { files: 0, bytes: 0, whole: false, readable: false, below: Box::default() }
    }
}

impl BrokenSnapshot {
    fn add(&mut self, what: String) {
        if self.missing.len() < MISSING_MAX {
            self.missing.push(what);
        } else {
            self.missing_unlisted += 1;
        }
    }
}

/// The path of a name, as it is stored, in a folder.
fn join(folder: &str, name: &str) -> String {
    let name = unquote(name).map_or_else(|| name.to_owned(), |name| name.escape_ascii().to_string());
    if folder.is_empty() { name } else { format!("{folder}/{name}") }
}
