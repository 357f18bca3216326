//! What was found damaged, by the blobs that backups are made of.

use super::report::{Affected, CheckReport};
use crate::Id;
use crate::index::Index;
use crate::limits::CAUSES_LISTED_MAX;
use crate::marks::Marks;
use crate::pack::{BlobKind, PackedBlob};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

/// Damage, and the problems of the report that tell it: as bounded as those, but for one bit for each blob.
pub(super) struct Damage {
    index: Arc<Index>,
    /// Blobs, by their number in the index, that do not open.
    blobs: Marks,
    /// The problem of a pack: its blobs' too.
    packs: HashMap<Id, Told>,
    /// The problem of a tree that opens and makes no sense, by its number in the index.
    trees: HashMap<usize, Told>,
    /// The problem that blobs are in no index file, and how often that was met.
    unindexed: Option<(usize, u64)>,
}

/// A problem of the report, and what it says.
struct Told {
    problem: usize,
    causes: Vec<String>,
    unlisted: u64,
}

impl Told {
    fn new(report: &mut CheckReport, object: &str) -> Option<Self> {
        let problem = report.problem(object, String::new(), Some(Affected::default()))?;
        Some(Self { problem, causes: Vec::new(), unlisted: 0 })
    }

    fn tell(&mut self, report: &mut CheckReport, cause: String) {
        if self.causes.contains(&cause) {
            return;
        }
        if self.causes.len() < CAUSES_LISTED_MAX {
            self.causes.push(cause);
        } else {
            self.unlisted += 1;
        }
        let more = if self.unlisted > 0 { format!(", and {} more", self.unlisted) } else { String::new() };
        report.errors[self.problem].what = format!("is damaged: {}{more}", self.causes.join(", "));
    }
}

impl Damage {
    pub(super) fn new(index: Arc<Index>) -> Self {
        let blobs = Marks::none(index.len());
        Self { index, blobs, packs: HashMap::new(), trees: HashMap::new(), unindexed: None }
    }

    /// Something is wrong with a pack; which of its blobs that harms is said apart.
    pub(super) fn pack(&mut self, report: &mut CheckReport, pack: Id, cause: String) {
        let told = match self.packs.entry(pack) {
            Entry::Occupied(told) => told.into_mut(),
            Entry::Vacant(none) => match Told::new(report, &pack.pack_key()) {
                Some(told) => none.insert(told),
                None => return,
            },
        };
        told.tell(report, cause);
    }

    /// A blob of a pack does not open. Where the index has it in another pack too, and there first, nobody reads this one.
    pub(super) fn blob(&mut self, pack: Id, blob: &PackedBlob) {
        let Some(number) = self.index.position(blob.kind, &blob.id) else { return };
        let place = self.index.place_at(number);
        if self.index.pack(place.pack) == pack && place.blob.offset == blob.offset {
            self.blobs.mark(number);
        }
    }

    /// A tree opens, but makes no sense, or names what makes none.
    pub(super) fn tree(&mut self, report: &mut CheckReport, number: usize, cause: String) {
        let told = match self.trees.entry(number) {
            Entry::Occupied(told) => told.into_mut(),
            Entry::Vacant(none) => match Told::new(report, &format!("tree {}", self.index.place_at(number).blob.id)) {
                Some(told) => none.insert(told),
                None => return,
            },
        };
        told.tell(report, cause);
    }

    /// A backup needs a blob that no index file names.
    pub(super) fn unindexed(&mut self, report: &mut CheckReport, kind: BlobKind, id: &Id) {
        if let Some((_, times)) = &mut self.unindexed {
            *times += 1;
            return;
        }
        let kind = if kind == BlobKind::Tree { "tree" } else { "data" };
        let what = format!("is damaged: no file of it names the {kind} blob {id}, which is needed");
        self.unindexed = report.problem("index", what, Some(Affected::default())).map(|problem| (problem, 1));
    }

    /// Says how often that was.
    pub(super) fn count_unindexed(&self, report: &mut CheckReport) {
        if let Some((problem, times @ 2..)) = self.unindexed {
            report.errors[problem].what.push_str(&format!("; blobs that it lacks are needed {times} times"));
        }
    }

    /// Whether anything is damaged that a backup may need.
    pub(super) fn is_any(&self) -> bool {
        !self.packs.is_empty() || !self.trees.is_empty() || self.unindexed.is_some()
    }

    /// Whether the blob with this number is known not to open.
    pub(super) fn has(&self, number: usize) -> bool {
        self.blobs.has(number)
    }

    /// The problems of the blob with this number, as far as they are in the report.
    pub(super) fn problems_of(&self, number: usize) -> impl Iterator<Item = usize> {
        let pack = self.blobs.has(number).then(|| self.index.pack(self.index.place_at(number).pack));
        let pack = pack.and_then(|pack| self.packs.get(&pack));
        pack.into_iter().chain(self.trees.get(&number)).map(|told| told.problem)
    }

    /// The problem that blobs are in no index file.
    pub(super) fn problem_of_unindexed(&self) -> Option<usize> {
        self.unindexed.map(|(problem, _)| problem)
    }
}
