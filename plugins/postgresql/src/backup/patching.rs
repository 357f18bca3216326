//! Files of changed blocks that become whole ones.
//!
//! ```text
//!   base/5/INCREMENTAL.16384 ─▶ header: which blocks ─▶ put-patched base/5/16384
//!            │                  blocks ───────────────▶ its body
//!            └ sum of what was sent, for the server's manifest
//! ```

use backstay_postgresql_wire::incremental::{Decoder, Event, Header};
use backstay_postgresql_wire::relation_file::Layout;
use backstay_sdk::{BackupWriter, Error, ErrorKind, FileAttributes, FileWriter, Patch, Result, StoredFile};

use crate::refusal::from_wire;

/// One such file, being received.
pub(super) struct Patching<'w> {
    into: &'w BackupWriter,
    decoder: Decoder,
    /// The whole file's path in the backup.
    stored: String,
    attributes: FileAttributes,
    earlier: Earlier,
    writer: Option<FileWriter<StoredFile>>,
    sent: Sent,
}

/// The whole file in the backup before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Earlier {
    /// Its sum.
    pub(super) crc32c: Option<u32>,
    /// Which segment it is, and to how many blocks its relation was cut since.
    pub(super) cut: Option<(u32, u32)>,
}

/// What the server sent of a file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sent {
    pub(super) bytes: u64,
    pub(super) crc32c: u32,
}

impl<'w> Patching<'w> {
    pub(super) fn new(
        into: &'w BackupWriter,
        layout: Layout,
        stored: String,
        attributes: FileAttributes,
        earlier: Earlier,
    ) -> Self {
        let decoder = Decoder::new(layout);
        Self { into, decoder, stored, attributes, earlier, writer: None, sent: Sent::default() }
    }

    /// Bytes of the file, as the server sends it.
    pub(super) async fn write(&mut self, mut data: &[u8]) -> Result<()> {
        self.sent.bytes += data.len() as u64;
        self.sent.crc32c = crc32c::crc32c_append(self.sent.crc32c, data);
        while let Some(event) = self.decoder.next(&mut data).map_err(from_wire)? {
            match (event, &mut self.writer) {
                (Event::Header(mut header), None) => {
                    if let Some((segment, blocks)) = self.earlier.cut {
                        header.relation_was_cut(segment, blocks);
                    }
                    let patch = patch(&header, self.earlier.crc32c);
                    self.writer = Some(self.into.put_patched(&self.stored, self.attributes, patch));
                }
                (Event::Data(blocks), Some(writer)) => writer.write(blocks).await?,
                _ => return Err(Error::new(ErrorKind::Internal, "a file of changed blocks has two headers, or none")),
            }
        }
        Ok(())
    }

    /// Every byte came: what the server sent, and what will tell what the host stored.
    pub(super) fn finish(self) -> Result<(Sent, FileWriter<StoredFile>)> {
        self.decoder.finish().map_err(from_wire)?;
        let missing = || Error::new(ErrorKind::Corrupt, "a file of changed blocks has no header");
        Ok((self.sent, self.writer.ok_or_else(missing)?))
    }
}

fn patch(header: &Header, parent_crc32c: Option<u32>) -> Patch {
    Patch {
        bytes: header.file_bytes(),
        inherited: header.inherited_bytes(),
        ranges: header.runs().map(|run| run.offset..run.offset + run.bytes).collect(),
        parent_crc32c,
    }
}
