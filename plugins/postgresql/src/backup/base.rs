//! The backup that an incremental one builds on.
//!
//! ```text
//!   earlier backup ─▶ its backup_manifest ─┬─▶ UPLOAD_MANIFEST: the server looks up what changed since
//!                                          └─▶ sums of files, so that those of patched ones follow
//! ```

use std::collections::HashMap;

use backstay_postgresql_wire::limits::MANIFEST_BYTES_MAX;
use backstay_postgresql_wire::manifest::{Algorithm, Manifest};
use backstay_postgresql_wire::protocol::{Backend, frontend};
use backstay_postgresql_wire::relation_file::Layout;
use backstay_postgresql_wire::replication::UPLOAD_MANIFEST;
use backstay_sdk::{BackupWriter, Error, ErrorKind, Level, Result, host};

use super::stream::MANIFEST_PATH;
use super::{ready, setting};
use crate::connection::{Session, unexpected};
use crate::limits::UPLOAD_BYTES;
use crate::refusal::{from_server, from_wire};

/// An earlier backup with a manifest.
pub(super) struct Base {
    /// The timeline that it started on.
    pub(super) timeline: u32,
    /// Where it started.
    pub(super) start: u64,
    manifest: Vec<u8>,
    /// CRC-32C of each file, by the manifest's path.
    sums: HashMap<Vec<u8>, u32>,
}

impl Base {
    /// The backup before, if there is one. Without one a backup is a full one, and the next has it to build on.
    pub(super) async fn of(into: &BackupWriter) -> Result<Option<Self>> {
        if into.parent_notes().is_none() {
            host::log(Level::Info, "there is no backup to build on: this one copies everything");
            return Ok(None);
        }
        let manifest = into.parent_read(MANIFEST_PATH).read_all(MANIFEST_PATH, MANIFEST_BYTES_MAX).await?;
        let Manifest { files, wal_ranges, .. } = Manifest::parse(&manifest).map_err(from_wire)?;
        let Some(range) = wal_ranges.first() else {
            return Err(Error::new(ErrorKind::Corrupt, "the manifest of the backup before names no log"));
        };
        let (timeline, start) = (range.timeline, range.start.0);
        let sums = files.into_iter().filter_map(|file| {
            let checksum = file.checksum.filter(|checksum| checksum.algorithm == Algorithm::Crc32c)?;
            // The bytes of the checksum lie in memory order of a little-endian machine.
            Some((file.path, u32::from_le_bytes(*checksum.value.first_chunk()?)))
        });
        Ok(Some(Self { timeline, start, sums: sums.collect(), manifest }))
    }

    /// Hands the manifest to the server. The incremental backup has to follow in the same session.
    pub(super) async fn upload(&self, session: &mut Session) -> Result<Layout> {
        let (block, segment) = (setting(session, "block_size").await?, setting(session, "segment_size").await?);
        let layout = Layout::from_settings(&block, &segment).map_err(from_wire)?;
        session.command(UPLOAD_MANIFEST).await?;
        match session.next().await? {
            Backend::CopyIn => {}
            Backend::ErrorResponse(error) => return Err(from_server(&error)),
            _ => return Err(unexpected("before it takes a manifest")),
        }
        let server = session.sender();
        for part in self.manifest.chunks(UPLOAD_BYTES) {
            server.send(frontend::copy_data(part).map_err(from_wire)?).await?;
        }
        server.send(frontend::copy_done()).await?;
        ready(session).await?;
        Ok(layout)
    }

    /// The sum of a file in the backup before, by the manifest's path.
    pub(super) fn sum(&self, listed: &str) -> Option<u32> {
        self.sums.get(listed.as_bytes()).copied()
    }
}
