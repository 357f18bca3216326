//! Log, archives and manifests against those of real servers, and against PostgreSQL's own tools.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod server;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use backstay_postgresql_wire::backup_label::BackupLabel;
use backstay_postgresql_wire::manifest::{Checksum, Manifest};
use backstay_postgresql_wire::tar::{Decoder, EntryKind, Event};
use backstay_postgresql_wire::wal::{Detail, RMGR_TRANSACTION, RMGR_XLOG, Record, Scanner};
use backstay_postgresql_wire::wal_file::WalFile;
use backstay_postgresql_wire::{tablespace_map, utc};
use server::{SEGMENT, Server, bins};

/// What `pg_waldump` says of one record.
#[derive(Debug, PartialEq)]
struct Dumped {
    start: u64,
    rmgr: String,
    xid: u32,
    description: String,
}

fn parse_dump(dump: &str) -> Vec<Dumped> {
    dump.lines()
        .filter(|line| line.starts_with("rmgr: "))
        .map(|line| {
            let field = |name: &str, end: &str| {
                let from = line.find(name).unwrap() + name.len();
                let length = line[from..].find(end).unwrap_or(line.len() - from);
                line[from..from + length].trim().to_owned()
            };
            let lsn = field("lsn: ", ",");
            let (high, low) = lsn.split_once('/').unwrap();
            Dumped {
                start: u64::from_str_radix(high, 16).unwrap() << 32 | u64::from_str_radix(low, 16).unwrap(),
                rmgr: field("rmgr: ", "len"),
                xid: field("tx:", ",").parse().unwrap(),
                description: line[line.find("desc: ").unwrap() + 6..].to_owned(),
            }
        })
        .collect()
}

/// All log files on disk from `first` on, joined.
fn log_from(server: &Server, first: u64, end: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = first;
    while at < end {
        let file = WalFile::containing(1, at, SEGMENT).unwrap();
        bytes.extend(fs::read(format!("{}/pg_wal/{file}", server.data())).unwrap());
        at = file.end();
    }
    bytes
}

fn scan(start: u64, bytes: &[u8], piece: usize) -> Vec<Record> {
    let mut scanner = Scanner::new(start);
    let mut records = Vec::new();
    for mut input in bytes.chunks(piece) {
        while let Some(record) = scanner.next(&mut input).unwrap() {
            records.push(record);
        }
    }
    records
}

/// The time as `pg_waldump` writes it.
fn dumped_time(micros: u64) -> String {
    let text = utc::setting_text(micros);
    let text = text.trim_end_matches("+00");
    if text.contains('.') { format!("{text} UTC") } else { format!("{text}.000000 UTC") }
}

fn compare(records: &[Record], dumped: &[Dumped]) {
    assert_eq!(records.len(), dumped.len());
    for (record, dumped) in records.iter().zip(dumped) {
        assert_eq!(record.start, dumped.start, "{record:?} {dumped:?}");
        assert_eq!(record.rmgr == RMGR_XLOG, dumped.rmgr == "XLOG", "{record:?} {dumped:?}");
        assert_eq!(record.rmgr == RMGR_TRANSACTION, dumped.rmgr == "Transaction", "{record:?} {dumped:?}");
        assert_eq!(record.xid, dumped.xid, "{record:?} {dumped:?}");
        let word = dumped.description.split_whitespace().next().unwrap_or_default();
        let text = &dumped.description;
        match (&record.detail, dumped.rmgr.as_str(), word) {
            (Some(Detail::Commit { time, xid }), "Transaction", "COMMIT") => {
                assert!(text.contains(&dumped_time(*time)), "{text} {time}");
                assert_eq!(*xid, dumped.xid);
            }
            (Some(Detail::Commit { time, xid }), "Transaction", "COMMIT_PREPARED") => {
                assert!(text.contains(&dumped_time(*time)) && text.contains(&format!(" {xid}:")), "{text} {xid}");
            }
            (Some(Detail::Abort { time, xid }), "Transaction", "ABORT") => {
                assert!(text.contains(&dumped_time(*time)), "{text} {time}");
                assert_eq!(*xid, dumped.xid);
            }
            (Some(Detail::Abort { time, xid }), "Transaction", "ABORT_PREPARED") => {
                assert!(text.contains(&dumped_time(*time)) && text.contains(&format!(" {xid}:")), "{text} {xid}");
            }
            (Some(Detail::RestorePoint { name, .. }), "XLOG", "RESTORE_POINT") => assert!(text.contains(name.as_str())),
            (Some(Detail::Checkpoint { redo, timeline, shutdown, .. }), "XLOG", word)
                if word.starts_with("CHECKPOINT_") =>
            {
                let redo = backstay_postgresql_wire::lsn::Lsn(*redo);
                assert!(text.contains(&format!("redo {redo}; tli {timeline};")), "{text} {redo}");
                assert_eq!(*shutdown, word == "CHECKPOINT_SHUTDOWN");
            }
            (Some(Detail::BackupEnd { start }), "XLOG", "BACKUP_END") => {
                assert!(text.contains(&backstay_postgresql_wire::lsn::Lsn(*start).to_string()));
            }
            (Some(Detail::Switch), "XLOG", "SWITCH") => {}
            (None, _, word) => {
                let looked_into = ["COMMIT", "COMMIT_PREPARED", "ABORT", "ABORT_PREPARED", "RESTORE_POINT", "SWITCH"];
                assert!(!looked_into.contains(&word) || dumped.rmgr != "Transaction", "{dumped:?}");
            }
            other => panic!("{other:?} {record:?} {dumped:?}"),
        }
    }
    for pair in records.windows(2) {
        let gap = pair[1].start - pair[0].end;
        assert!(gap == 0 || gap == 24 || gap == 40, "{pair:?}");
    }
}

#[test]
fn the_scanner_sees_what_pg_waldump_sees() {
    for bin in bins() {
        if !bin.join("pg_waldump").exists() {
            continue;
        }
        let server = Server::start(&bin);
        let from = server.sql("SELECT pg_current_wal_lsn() - '0/0'").parse::<u64>().unwrap();
        let first = from - from % SEGMENT + SEGMENT;
        server.sql("SELECT pg_switch_wal()");
        server.sql("CREATE TABLE t (n int, text text); INSERT INTO t SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, 20000) n");
        server.sql("BEGIN; INSERT INTO t VALUES (0, ''); ROLLBACK");
        server.sql("CREATE TABLE gone (n int); BEGIN; SAVEPOINT a; INSERT INTO t VALUES (1, ''); SAVEPOINT b; DROP TABLE gone; INSERT INTO t VALUES (2, ''); PREPARE TRANSACTION 'one'");
        server.sql("CHECKPOINT; SELECT pg_switch_wal()");
        server.sql("COMMIT PREPARED 'one'");
        server.sql("BEGIN; SAVEPOINT a; CREATE TABLE never (n int); PREPARE TRANSACTION 'two'");
        server.sql("ROLLBACK PREPARED 'two'");
        server.sql("SELECT pg_create_restore_point('a place to go')");
        server.sql("SELECT pg_logical_emit_message(true, 'x', repeat('long ', 300000))");
        for n in 0..50 {
            server.sql(&format!("INSERT INTO t VALUES ({n}, 'one by one')"));
        }
        server.run(
            "pg_basebackup",
            &["-U", "postgres", "-h", &server.path(), "-c", "fast", "-D", &format!("{}/b", server.path())],
        );
        let end = server.sql("SELECT pg_current_wal_insert_lsn() - '0/0'").parse::<u64>().unwrap();
        server.stop();

        let start = backstay_postgresql_wire::lsn::Lsn(first).to_string();
        let mut command = Command::new(bin.join("pg_waldump"));
        command.args(["-p", &format!("{}/pg_wal", server.data()), "-s", &start]).env("TZ", "UTC");
        let dump = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let dumped = parse_dump(&dump);
        let bytes = log_from(&server, first, end);
        for piece in [1 << 20, 8192, 7777] {
            let records = scan(first, &bytes, piece);
            compare(&records, &dumped);
        }
        let records = scan(first, &bytes, 1 << 20);
        let count =
            |is: fn(&Detail) -> bool| records.iter().filter_map(|r| r.detail.as_ref()).filter(|d| is(d)).count();
        assert!(count(|d| matches!(d, Detail::Commit { .. })) > 50);
        assert!(count(|d| matches!(d, Detail::Abort { .. })) >= 2);
        assert!(count(|d| matches!(d, Detail::Checkpoint { shutdown: true, .. })) == 1);
        assert!(count(|d| matches!(d, Detail::BackupEnd { .. })) == 1);
        eprintln!("{}: {} records, {} bytes", bin.display(), records.len(), bytes.len());

        // A start anywhere else finds the same records, from the next page on.
        for skip in [8192, 8192 * 3 + 100, 500_000, 999_999] {
            let records_here = scan(first + skip as u64, &bytes[skip..], 1 << 16);
            let first_here = records_here[0].start;
            let same: Vec<_> = records.iter().filter(|r| r.start >= first_here).cloned().collect();
            assert_eq!(records_here, same, "{skip}");
        }

        let begun = Instant::now();
        let mut bytes_scanned = 0;
        while begun.elapsed().as_millis() < 300 {
            let mut scanner = Scanner::new(first);
            let mut input = bytes.as_slice();
            while scanner.next(&mut input).unwrap().is_some() {}
            bytes_scanned += bytes.len();
        }
        eprintln!("scanned at {:.2} GB/s", bytes_scanned as f64 / begun.elapsed().as_secs_f64() / 1e9);
    }
}

#[test]
fn base_backups_of_real_servers_are_understood() {
    for bin in bins() {
        let server = Server::start(&bin);
        let space = format!("{}/space", server.path());
        Command::new("install").args(["-d", "-o", "postgres", &space]).status().unwrap();
        server.sql(&format!("CREATE TABLESPACE s LOCATION '{space}'"));
        server.sql("CREATE TABLE t TABLESPACE s AS SELECT generate_series(1, 1000) n");
        if !bin.join("pg_basebackup").exists() {
            continue;
        }
        let target = format!("{}/tars", server.path());
        server.run(
            "pg_basebackup",
            &["-U", "postgres", "-h", &server.path(), "-c", "fast", "-Ft", "-X", "none", "-l", "it's", "-D", &target],
        );
        let bytes = fs::read(format!("{target}/backup_manifest")).unwrap();
        let manifest = Manifest::parse(&bytes).unwrap();
        assert_eq!(manifest.to_bytes(), bytes, "written as the server writes it");
        let mut seen = 0;
        for archive in fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().path()) {
            let Some(name) = archive.file_name().unwrap().to_str().unwrap().strip_suffix(".tar") else { continue };
            let prefix = if name == "base" { String::new() } else { format!("pg_tblspc/{name}/") };
            let (mut decoder, mut open) = (Decoder::new(), None);
            let bytes = fs::read(&archive).unwrap();
            for mut input in bytes.chunks(10_000) {
                while let Some(event) = decoder.next(&mut input).unwrap() {
                    match event {
                        Event::Entry(entry) if entry.kind == EntryKind::File => open = Some((entry, Vec::new())),
                        Event::Entry(_) | Event::End => {}
                        Event::Data(data) => open.as_mut().unwrap().1.extend_from_slice(data),
                        Event::FileEnd => {
                            let (entry, body) = open.take().unwrap();
                            assert_eq!(entry.mode, 0o600);
                            if entry.path == "backup_label" {
                                let label = BackupLabel::parse(&body).unwrap();
                                assert_eq!((label.label.as_str(), label.timeline), ("it's", 1));
                                assert_eq!(label.start, manifest.wal_ranges[0].start);
                                assert_eq!(
                                    WalFile::parse(&label.start_file, SEGMENT).unwrap().start(),
                                    label.start.0 - label.start.0 % SEGMENT
                                );
                            }
                            if entry.path == "tablespace_map" {
                                assert_eq!(tablespace_map::parse(&body).unwrap()[0].location, space);
                            }
                            let Some(file) = manifest.file(&format!("{prefix}{}", entry.path)) else {
                                assert!(entry.path.starts_with("pg_wal/"), "{entry:?}");
                                continue;
                            };
                            assert_eq!(file.size, body.len() as u64);
                            let sum = file.checksum.as_ref().unwrap();
                            assert_eq!(*sum, Checksum::of(sum.algorithm, &body), "{entry:?}");
                            seen += 1;
                        }
                    }
                }
            }
            decoder.finish().unwrap();
        }
        assert_eq!(seen, manifest.files.len());
        eprintln!("{}: manifest version {}, {seen} files", bin.display(), manifest.version);
    }
}

#[test]
fn manifests_are_written_as_the_server_writes_them() {
    for bin in bins() {
        let server = Server::start(&bin);
        // Names that need every kind of escape, and one that is no text.
        for name in ["say \"hi\"\\\n\r\t\u{8}\u{c}\u{1}\u{1f}\u{7f}\u{e4}\u{1f418}".as_bytes(), b"odd\xff"] {
            fs::write(Path::new(&server.data()).join(OsStr::from_bytes(name)), b"x").unwrap();
        }
        Command::new("chown").args(["-R", "postgres", &server.data()]).status().unwrap();
        for checksums in ["NONE", "CRC32C", "SHA224", "SHA256", "SHA384", "SHA512"] {
            let argument = format!("--manifest-checksums={checksums}");
            let folder = server.base_backup(checksums, &["-Ft", "-X", "none", &argument]);
            let bytes = fs::read(format!("{folder}/backup_manifest")).unwrap();
            let manifest = Manifest::parse(&bytes).unwrap();
            assert!(manifest.to_bytes() == bytes, "{} {checksums}", bin.display());
            assert_eq!(manifest.file("PG_VERSION").unwrap().checksum.is_none(), checksums == "NONE");
            assert!(manifest.files.iter().any(|file| file.path == b"odd\xff"));
        }
    }
}
