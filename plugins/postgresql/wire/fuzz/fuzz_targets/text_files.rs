//! Small files and names: any bytes are one or an error, and what was read is written back.
#![no_main]

use backstay_postgresql_wire::backup_label::{BackupLabel, without_predecessor};
use backstay_postgresql_wire::history::{self, History};
use backstay_postgresql_wire::incremental;
use backstay_postgresql_wire::lsn::Lsn;
use backstay_postgresql_wire::relation_file::{Layout, segment_number};
use backstay_postgresql_wire::replication::{ServerVersion, identifier, literal, slot_name};
use backstay_postgresql_wire::tablespace_map;
use backstay_postgresql_wire::wal_file::{WalFile, parse_segment_size};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let label = BackupLabel::parse(bytes);
    let whole = without_predecessor(bytes);
    if let (Ok(label), Ok(whole)) = (label, BackupLabel::parse(&whole)) {
        assert_eq!((whole.start, whole.incremental_from), (label.start, None));
    }
    if let Ok(history) = History::parse(7, bytes) {
        assert!(history.ancestors.iter().all(|ancestor| ancestor.timeline < 7));
    }
    if let Ok(map) = tablespace_map::parse(bytes) {
        assert_eq!(tablespace_map::parse(&tablespace_map::to_bytes(&map)).unwrap(), map);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(lsn) = text.parse::<Lsn>() {
        assert_eq!(lsn.to_string().parse::<Lsn>().unwrap(), lsn);
    }
    for size in [1 << 20, 16 << 20, 1 << 30] {
        if let Ok(file) = WalFile::parse(text, size) {
            assert_eq!(file.to_string(), text);
        }
    }
    if let Some(timeline) = history::parse_file_name(text) {
        assert_eq!(history::file_name(timeline), text);
    }
    if let Some(full) = incremental::full_name(text) {
        assert!(segment_number(&full).is_some() && segment_number(text).is_none());
    }
    let (block, segment) = text.split_once(' ').unwrap_or((text, "1GB"));
    let _ = Layout::from_settings(block, segment);
    let _ = parse_segment_size(text);
    let _ = ServerVersion::parse(text);
    let _ = (identifier(text), literal(text), slot_name(text));
});
