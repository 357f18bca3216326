//! Packs: are those there that the index names, and is in them what it says.

use super::damage::Damage;
use super::report::CheckReport;
use super::{CheckProgress, ReadData};
use crate::index::IndexFile;
use crate::pack::{PackedBlob, is_gapless, pack_bytes};
use crate::read::whole;
use crate::{Id, Repository, Result};
use futures::StreamExt;
use std::collections::{HashMap, HashSet};

/// A pack that is there, as the index has it.
pub(super) struct Pack {
    id: Id,
    bytes: u64,
    blobs: Vec<PackedBlob>,
    /// What is wrong with its size: the blobs that it harms are seen when it is read.
    misfit: Option<String>,
}

/// Compares the index with the packs that are there; yields those.
pub(super) async fn compare(
    repository: &Repository,
    files: &[IndexFile],
    report: &mut CheckReport,
    damage: &mut Damage,
) -> Result<Vec<Pack>> {
    // With the place among `packs` of those that are named.
    let mut there: HashMap<Id, (u64, Option<usize>)> = HashMap::new();
    for object in repository.store().list("data").await? {
        report.packs += 1;
        report.bytes += object.bytes;
        match Id::from_key(&object.key) {
            Some(id) if id.pack_key() == object.key => drop(there.insert(id, (object.bytes, None))),
            _ => report.stranger(&object.key),
        }
    }
    let mut packs: Vec<Pack> = Vec::new();
    for pack in files.iter().flat_map(|file| &file.packs) {
        let (id, blobs) = (pack.id, pack.packed());
        if !is_gapless(&blobs) {
            damage.pack(report, id, "its index entry has gaps".to_owned());
        }
        match there.get_mut(&id) {
            None => {
                damage.pack(report, id, "it is missing".to_owned());
                blobs.iter().for_each(|blob| damage.blob(id, blob));
            }
            Some((_, Some(first))) if packs[*first].blobs == blobs => {
                tracing::info!(pack = %id.short(), "named by two index files");
            }
            Some((_, Some(_))) => {
                damage.pack(report, id, "two index files say different things of it: `repo repair index`".to_owned());
            }
            Some((bytes, named)) => {
                *named = Some(packs.len());
                let right = pack_bytes(&blobs);
                let misfit = (*bytes != right).then(|| format!("it has {bytes} bytes, not {right}"));
                packs.push(Pack { id, bytes: *bytes, blobs, misfit });
            }
        }
    }
    report.unreferenced_packs = there.values().filter(|(_, named)| named.is_none()).count() as u64;
    Ok(packs)
}

/// Reads and verifies as many packs as is wished, and all whose size does not fit: most of such a pack may be whole.
pub(super) async fn read(
    repository: &Repository,
    mut packs: Vec<Pack>,
    wish: ReadData,
    report: &mut CheckReport,
    damage: &mut Damage,
    progress: &(dyn Fn(CheckProgress) + Send + Sync),
) -> Result<()> {
    let mut misfits: Vec<Pack> = packs.extract_if(.., |pack| pack.misfit.is_some()).collect();
    for Pack { id, misfit, .. } in &misfits {
        misfit.iter().for_each(|misfit| damage.pack(report, *id, misfit.clone()));
    }
    match wish {
        ReadData::Nothing => packs.clear(),
        ReadData::Subset(subset) => subset.choose(&mut packs, |pack| (pack.id, pack.bytes)),
        ReadData::Everything => {}
    }
    packs.append(&mut misfits);
    let packs_total = packs.len() as u64;
    let at_once = whole::at_once(packs.iter().map(|pack| pack.bytes).max().unwrap_or(0));
    let mut reads = futures::stream::iter(packs)
        .map(|pack| async move { (pack.id, read_pack(repository, pack.id, pack.blobs).await) })
        .buffer_unordered(at_once);
    while let Some((id, read)) = reads.next().await {
        let found = read?;
        report.bytes_read += found.bytes;
        found.causes.into_iter().for_each(|cause| damage.pack(report, id, cause));
        found.blobs.iter().for_each(|blob| damage.blob(id, blob));
        report.packs_read += 1;
        progress(CheckProgress { packs_done: report.packs_read, packs_total, bytes_done: report.bytes_read });
    }
    Ok(())
}

/// What reading a pack found.
#[derive(Default)]
struct Found {
    bytes: u64,
    causes: Vec<String>,
    /// Those that are not found where they should be.
    blobs: Vec<PackedBlob>,
}

async fn read_pack(repository: &Repository, id: Id, indexed: Vec<PackedBlob>) -> Result<Found> {
    let Some(look) = whole::look(repository, id, &indexed).await? else {
        return Ok(Found { bytes: 0, causes: vec!["it is missing".to_owned()], blobs: indexed });
    };
    let mut found = Found { bytes: look.bytes, ..Found::default() };
    if !look.is_itself {
        found.causes.push("its content does not fit its name".to_owned());
    }
    if let Some(error) = &look.headless {
        found.causes.push(format!("its header does not open: {error}"));
    } else if look.blobs != indexed {
        found.causes.push("its header and the index differ".to_owned());
        // What the index has elsewhere is not found there.
        let there: HashSet<&PackedBlob> = look.blobs.iter().collect();
        found.blobs.extend(indexed.into_iter().filter(|blob| !there.contains(blob)));
    }
    if !found.causes.is_empty() && look.unopened.is_empty() {
        found.causes.push("all its blobs open, and `repo repair index --read-data` puts it right".to_owned());
    }
    for (blob, error) in look.unopened {
        found.causes.push(format!("blob {} does not open: {error}", blob.id));
        found.blobs.push(blob);
    }
    Ok(found)
}
