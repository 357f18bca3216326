//! The small text files of a backup and of a timeline.
#![no_main]

use backstay_postgresql_wire::backup_label::BackupLabel;
use backstay_postgresql_wire::history::{self, History};
use backstay_postgresql_wire::tablespace_map;
use backstay_postgresql_wire::wal_file::{WalFile, parse_segment_size};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = BackupLabel::parse(data);
    let _ = History::parse(7, data);
    if let Ok(all) = tablespace_map::parse(data) {
        assert_eq!(tablespace_map::parse(&tablespace_map::to_bytes(&all)).as_ref(), Ok(&all));
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = history::parse_file_name(text);
        let _ = parse_segment_size(text);
        if let Ok(file) = WalFile::parse(text, 16 << 20) {
            assert_eq!(file.to_string(), text);
        }
    }
});
