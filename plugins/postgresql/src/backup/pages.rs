//! Checksums of data pages, looked at while the host reads the files.
//!
//! ```text
//!   put-tree ─▶ host reads a part ─▶ inspect-part, an instance a core ─▶ pages ─▶ findings
//! ```
//!
//! A page that the server wrote after the backup began is not judged: the log makes it whole. Any other whose
//! checksum does not fit is read again by the host, for a read may meet a write; what stays wrong is told.

use backstay_postgresql_wire::control_file::ControlFile;
use backstay_postgresql_wire::lsn::Lsn;
use backstay_postgresql_wire::page::{PageVerdict, inspect_page};
use backstay_postgresql_wire::relation_file::{Layout, segment_number};
use backstay_sdk::{Error, ErrorKind, FilePart, Finding, Level, Result, Rule, RuleAction, host};
use serde::{Deserialize, Serialize};

use super::files::rules;
use crate::refusal::from_wire;

/// Where files of pages lie, in the data folder and in a tablespace's.
const PAGES: [&str; 3] = ["global/[0-9]*", "base/*/[0-9]*", "PG_*/*/[0-9]*"];

/// What an instance that looks at pages has to know, in the words that the host passes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct PageCheck {
    block_bytes: u32,
    segment_blocks: u32,
    /// Where the log stood when the backup began.
    before: u64,
}

impl PageCheck {
    /// Nothing where the cluster's pages cannot be judged, which is told.
    pub(super) fn of(control: &ControlFile, before: u64) -> Option<Self> {
        let without = |why: &str| {
            host::log(Level::Warn, &format!("pages are not checked: {why}"));
            None
        };
        match control.data {
            None => without("the layout of the data files is not known"),
            Some(data) if data.checksum_version == 0 => {
                without("the cluster has no checksums; pg_checksums --enable adds them while the server is stopped")
            }
            Some(data) if !data.has_page_checksums() => without("the cluster has checksums of an unknown kind"),
            Some(data) => Some(Self {
                block_bytes: data.layout.block_bytes(),
                segment_blocks: data.layout.segment_blocks(),
                before,
            }),
        }
    }

    /// Which files to look at, after the rules that leave some out.
    pub(super) fn rules() -> Vec<Rule> {
        rules(&PAGES, RuleAction::Inspect)
    }

    /// As the host passes it on.
    pub(super) fn to_context(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|error| Error::new(ErrorKind::Internal, format!("failed to write a context: {error}")))
    }

    fn from_context(context: &str) -> Result<Self> {
        serde_json::from_str(context)
            .map_err(|error| Error::new(ErrorKind::Internal, format!("failed to read a context: {error}")))
    }
}

/// Looks at the pages of a part of a file.
pub fn inspect_part(part: &FilePart, bytes: &[u8]) -> Result<Vec<Finding>> {
    let Some(segment) = segment_number(&part.path) else { return Ok(Vec::new()) };
    let check = PageCheck::from_context(&part.context)?;
    let layout = Layout::new(check.block_bytes, check.segment_blocks).map_err(from_wire)?;
    let mut findings = Vec::new();
    let page_bytes = check.block_bytes as usize;
    // What is no whole page at the end is being written, or will be cut off: the log knows.
    for (number, page) in bytes.chunks_exact(page_bytes).enumerate() {
        let offset = part.offset + (number * page_bytes) as u64;
        let Some(block) = layout.block(segment, offset) else { break };
        let what = match inspect_page(page, block, Lsn(check.before)) {
            PageVerdict::New | PageVerdict::Good | PageVerdict::Newer => continue,
            PageVerdict::Bad { expected, found } => {
                format!("block {block}: its checksum is {found:04x}, its bytes add up to {expected:04x}")
            }
            PageVerdict::NotEmpty => format!("block {block}: its header says it is new, but it is not empty"),
        };
        findings.push(Finding { offset, what });
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstay_postgresql_wire::page::page_checksum;

    fn page(block: u32, lsn: u32) -> Vec<u8> {
        let mut page = vec![7; 8192];
        page[0..4].fill(0);
        page[4..8].copy_from_slice(&lsn.to_le_bytes());
        let sum = page_checksum(&page, block);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
        page
    }

    fn part(path: &str, offset: u64) -> FilePart {
        let check = PageCheck { block_bytes: 8192, segment_blocks: 131_072, before: 1000 };
        FilePart { path: path.to_owned(), offset, context: check.to_context().unwrap() }
    }

    #[test]
    fn a_bad_page_is_told_by_its_block_in_the_relation() {
        let mut bytes = [page(131_072 + 128, 10), page(131_072 + 129, 10), page(131_072 + 130, 10)].concat();
        let part = part("base/5/16384.1", 1 << 20);
        assert_eq!(inspect_part(&part, &bytes).unwrap(), []);
        bytes[8192 + 100] ^= 1;
        let found = inspect_part(&part, &bytes).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].offset, (1 << 20) + 8192);
        assert!(found[0].what.starts_with("block 131201: its checksum is "), "{found:?}");
    }

    #[test]
    fn a_page_whose_whole_header_is_broken_is_told() {
        let bytes = [page(0, 10), vec![0xff; 8192], page(2, 1000)].concat();
        let found = inspect_part(&part("PG_15_202209061/5/16384", 0), &bytes).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].what.starts_with("block 1: its checksum is ffff, "), "{found:?}");
    }

    #[test]
    fn pages_written_since_the_backup_began_and_files_without_pages_are_not_judged() {
        let mut newer = page(0, 1000);
        newer[100] ^= 1;
        assert_eq!(inspect_part(&part("base/5/16384", 0), &newer).unwrap(), []);
        let noise = vec![9; 8192];
        assert_eq!(inspect_part(&part("global/pg_filenode.map", 0), &noise).unwrap(), []);
        let short = &page(0, 1)[..8000];
        assert_eq!(inspect_part(&part("base/5/16384", 0), short).unwrap(), []);
        let mut misled = part("base/5/16384", 0);
        misled.context.clear();
        assert!(inspect_part(&misled, &noise).is_err());
    }
}
