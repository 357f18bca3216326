//! Incremental backups of real servers, against what `pg_combinebackup` makes of them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use backstay_postgresql_wire::backup_label::{BackupLabel, without_predecessor};
use backstay_postgresql_wire::incremental::{Decoder, Event, Header, full_name};
use backstay_postgresql_wire::manifest::{Checksum, Manifest};
use backstay_postgresql_wire::protocol::Backend;
use backstay_postgresql_wire::protocol::frontend::{copy_data, copy_done, copy_fail};
use backstay_postgresql_wire::relation_file::Layout;
use backstay_postgresql_wire::replication::{BackupMessage, BaseBackup, Checkpoint, ServerVersion, UPLOAD_MANIFEST};
use backstay_postgresql_wire::tar;
use server::session::Session;
use server::{Server, bins, files_below, major_version};

/// The servers that make incremental backups.
fn bins_with_incremental() -> Vec<PathBuf> {
    let bins: Vec<_> = bins().into_iter().filter(|bin| major_version(bin) >= 17).collect();
    assert!(!bins.is_empty(), "no PostgreSQL 17 or later is installed");
    bins
}

fn start(bin: &Path) -> Server {
    // The summariser waits for whole records; nothing else is to write in between.
    let server = Server::start_with(bin, &[], "summarize_wal = on\nautovacuum = off");
    let space = server.folder("space");
    server.sql(&format!("CREATE TABLESPACE s LOCATION '{space}'"));
    for table in ["same", "changed", "emptied", "cut", "gone"] {
        server.sql(&format!(
            "CREATE TABLE {table} (n int PRIMARY KEY, text text);
             INSERT INTO {table} SELECT n, repeat(md5(n::text), 5) FROM generate_series(1, 20000) n"
        ));
    }
    server.sql("CREATE TABLE elsewhere TABLESPACE s AS SELECT * FROM same");
    server.sql("VACUUM");
    server
}

fn change(server: &Server) {
    server.sql("UPDATE changed SET text = 'new' WHERE n % 4000 IN (0, 1, 700)");
    server.sql("UPDATE elsewhere SET text = 'new' WHERE n = 10000");
    server.sql("TRUNCATE emptied");
    server.sql("DELETE FROM cut WHERE n > 9000");
    server.sql("VACUUM cut");
    server.sql("DROP TABLE gone");
    server.sql("CREATE TABLE fresh AS SELECT * FROM same");
    server.sql("INSERT INTO changed SELECT n, repeat(md5(n::text), 5) FROM generate_series(20001, 26000) n");
}

fn decode(bytes: &[u8], piece: usize) -> (Header, Vec<u8>) {
    let (mut decoder, mut header, mut content) = (Decoder::new(Layout::default()), None, Vec::new());
    for mut input in bytes.chunks(piece) {
        while let Some(event) = decoder.next(&mut input).unwrap() {
            match event {
                Event::Header(one) => header = Some(one),
                Event::Data(data) => content.extend_from_slice(data),
            }
        }
    }
    decoder.finish().unwrap();
    (header.unwrap(), content)
}

/// The whole file, of the earlier one and what changed.
fn patched(earlier: &[u8], header: &Header, mut content: &[u8]) -> Vec<u8> {
    let mut whole = earlier[..earlier.len().min(header.inherited_bytes() as usize)].to_vec();
    whole.resize(header.file_bytes() as usize, 0);
    for run in header.runs() {
        let blocks = content.split_off(..run.bytes as usize).unwrap();
        whole[run.offset as usize..(run.offset + run.bytes) as usize].copy_from_slice(blocks);
    }
    assert!(content.is_empty());
    whole
}

#[test]
fn files_put_together_are_those_of_pg_combinebackup() {
    for bin in bins_with_incremental() {
        let server = start(&bin);
        let space = format!("{}/space", server.path());
        let mapped = |name: &str| format!("--tablespace-mapping={space}={}/{name}", server.path());
        let full = server.base_backup("full", &["-X", "none", &mapped("full_space")]);
        change(&server);
        let manifest = format!("--incremental={full}/backup_manifest");
        let changed = server.base_backup("changed", &["-X", "none", &manifest, &mapped("changed_space")]);
        let whole = format!("{}/whole", server.path());
        let mapping = format!("--tablespace-mapping={0}/changed_space={0}/whole_space", server.path());
        server.run("pg_combinebackup", &[&full, &changed, "-o", &whole, &mapping]);

        let (mut files, mut with_blocks, mut runs, mut shorter) = (0, 0, 0, 0);
        let mut names = BTreeSet::new();
        for path in files_below(&changed) {
            let bytes = fs::read(format!("{changed}/{path}")).unwrap();
            let Some(name) = full_name(&path) else {
                assert!(!path.contains("INCREMENTAL."), "{path}");
                names.insert(path);
                continue;
            };
            let (header, content) = decode(&bytes, 5000);
            assert_eq!(header.bytes_before_blocks() + header.content_bytes(), bytes.len() as u64, "{path}");
            let earlier = fs::read(format!("{full}/{name}")).unwrap();
            let expected = fs::read(format!("{whole}/{name}")).unwrap();
            assert_eq!(header.file_bytes(), expected.len() as u64, "{path}");
            shorter += usize::from(expected.len() < earlier.len());
            assert!(patched(&earlier, &header, &content) == expected, "{path}");
            files += 1;
            with_blocks += usize::from(!header.blocks().is_empty());
            runs += header.runs().count();
            names.insert(name);
        }
        assert_eq!(names, files_below(&whole).into_iter().collect(), "the same files");
        assert!(files > 50 && with_blocks > 5 && runs > with_blocks && shorter > 0);
        eprintln!("{}: {files} files, {with_blocks} with blocks in {runs} runs, {shorter} shorter", bin.display());
    }
}

#[test]
fn rows_from_before_a_cut_do_not_come_back() {
    for bin in bins_with_incremental() {
        let server = Server::start_with(&bin, &[], "summarize_wal = on\nautovacuum = off");
        server.sql("CREATE TABLE t (n int, text text)");
        server.sql("INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series(1, 40000) n");
        server.sql("VACUUM t");
        let file = server.sql("SELECT pg_relation_filepath('t')");
        let full = server.base_backup("full", &["-X", "none"]);
        server.sql("DELETE FROM t WHERE n > 2000");
        server.sql("VACUUM t");
        let rows = format!("{}/rows", server.folder("copied"));
        server.sql(&format!("COPY (SELECT n, repeat('y', 500) FROM generate_series(1, 20001) n) TO '{rows}'"));
        server.sql(&format!("COPY t FROM '{rows}'"));
        let changed = server.base_backup("changed", &["-X", "none", &format!("--incremental={full}/backup_manifest")]);
        let start =
            |folder: &str| BackupLabel::parse(&fs::read(format!("{folder}/backup_label")).unwrap()).unwrap().start;
        let cut = server.sql(&format!(
            "SELECT min(relblocknumber)
             FROM pg_available_wal_summaries() s, pg_wal_summary_contents(s.tli, s.start_lsn, s.end_lsn)
             WHERE is_limit_block AND relfilenode = pg_relation_filenode('t') AND relforknumber = 0
               AND s.start_lsn < '{}' AND s.end_lsn > '{}'",
            start(&changed),
            start(&full),
        ));
        server.stop();
        let expected = fs::read(format!("{}/{file}", server.data())).unwrap();
        let (folder, name) = file.rsplit_once('/').unwrap();
        let Ok(bytes) = fs::read(format!("{changed}/{folder}/INCREMENTAL.{name}")) else {
            assert!(fs::read(format!("{changed}/{file}")).unwrap() == expected, "sent whole");
            continue;
        };
        let earlier = fs::read(format!("{full}/{file}")).unwrap();
        let (mut header, content) = decode(&bytes, 1 << 16);
        let as_it_came = patched(&earlier, &header, &content);
        header.relation_was_cut(0, cut.parse().unwrap());
        assert!(patched(&earlier, &header, &content) == expected);
        let wrong = as_it_came.chunks(8192).zip(expected.chunks(8192)).filter(|(one, other)| one != other).count();
        eprintln!("{}: cut at block {cut}, {wrong} old blocks as the file comes", bin.display());
    }
}

#[test]
fn the_label_of_what_was_put_together_is_that_of_pg_combinebackup() {
    for bin in bins_with_incremental() {
        let server = Server::start_with(&bin, &[], "summarize_wal = on");
        let full = server.base_backup("full", &["-X", "none"]);
        let changed = server.base_backup("changed", &["-X", "none", &format!("--incremental={full}/backup_manifest")]);
        let whole = format!("{}/whole", server.path());
        server.run("pg_combinebackup", &[&full, &changed, "-o", &whole]);
        let label = |folder: &str| fs::read(format!("{folder}/backup_label")).unwrap();

        assert_eq!(without_predecessor(&label(&changed)), label(&whole));
        assert_eq!(without_predecessor(&label(&full)), label(&full));
        let first = BackupLabel::parse(&label(&full)).unwrap();
        let before = BackupLabel::parse(&label(&changed)).unwrap().incremental_from.unwrap();
        assert_eq!((before.start, before.timeline), (first.start, first.timeline));
        assert_eq!(BackupLabel::parse(&label(&whole)).unwrap().incremental_from, None);
        for folder in [full, changed, whole] {
            let bytes = fs::read(format!("{folder}/backup_manifest")).unwrap();
            assert_eq!(Manifest::parse(&bytes).unwrap().to_bytes(), bytes, "{folder}");
        }
    }
}

#[test]
fn a_manifest_is_offered_and_an_incremental_backup_comes() {
    for bin in bins_with_incremental() {
        let server = Server::start_with(&bin, &[], "summarize_wal = on");
        let full = server.base_backup("full", &["-X", "none"]);
        let manifest = Manifest::parse(&fs::read(format!("{full}/backup_manifest")).unwrap()).unwrap();
        let mut session = Session::open(&server.path());
        session.query(UPLOAD_MANIFEST);
        session.until(|message| *message == Backend::CopyIn);
        for piece in manifest.to_bytes().chunks(1 << 16) {
            session.send(&copy_data(piece).unwrap());
        }
        session.send(&copy_done());
        session.until(|message| matches!(message, Backend::ReadyForQuery(_)));

        let command = BaseBackup {
            label: "it's",
            checkpoint: Checkpoint::Fast,
            max_rate_kib: None,
            progress: true,
            wal: false,
            incremental: true,
        };
        session.query(&command.command(ServerVersion { major: major_version(&bin), minor: 0 }).unwrap());
        let mut received = Received::default();
        session.until(|message| {
            if let Backend::CopyData(copied) = message {
                received.take(BackupMessage::parse(copied).unwrap());
            }
            matches!(message, Backend::ReadyForQuery(_))
        });
        received.archive.finish().unwrap();
        let changed = Manifest::parse(&received.manifest).unwrap();
        assert_eq!(changed.files.len(), received.files.len());
        let mut incremental = 0;
        for (path, bytes) in &received.files {
            let sum = changed.file(path).unwrap().checksum.as_ref().unwrap();
            assert_eq!(*sum, Checksum::of(sum.algorithm, bytes), "{path}");
            if let Some(name) = full_name(path) {
                let (header, _) = decode(bytes, 512);
                assert!(header.inherited_bytes() <= manifest.file(&name).unwrap().size, "{path}");
                incremental += 1;
            }
        }
        assert!(incremental > 50);
        let label = BackupLabel::parse(&received.files["backup_label"]).unwrap();
        assert_eq!(label.incremental_from.unwrap().start, manifest.wal_ranges[0].start);
    }
}

#[test]
fn a_manifest_that_is_not_wanted_after_all_is_taken_back() {
    for bin in bins_with_incremental() {
        let server = Server::start_with(&bin, &[], "summarize_wal = on");
        let mut session = Session::open(&server.path());
        session.query(UPLOAD_MANIFEST);
        session.until(|message| *message == Backend::CopyIn);
        session.send(&copy_data(b"{").unwrap());
        session.send(&copy_fail("not wanted after all").unwrap());
        session.until(|message| match message {
            Backend::ErrorResponse(error) => error.one_line().contains("not wanted after all"),
            _ => false,
        });
        session.until(|message| matches!(message, Backend::ReadyForQuery(_)));
    }
}

/// What a server without tablespaces sends.
#[derive(Default)]
struct Received {
    archive: tar::Decoder,
    files: BTreeMap<String, Vec<u8>>,
    open: String,
    manifest: Vec<u8>,
    manifest_begun: bool,
}

impl Received {
    fn take(&mut self, message: BackupMessage<'_>) {
        match message {
            BackupMessage::Archive { name, .. } => assert_eq!(name, "base.tar"),
            BackupMessage::Manifest => self.manifest_begun = true,
            BackupMessage::Progress { .. } => {}
            BackupMessage::Data(data) if self.manifest_begun => self.manifest.extend_from_slice(data),
            BackupMessage::Data(mut data) => {
                while let Some(event) = self.archive.next(&mut data).unwrap() {
                    match event {
                        tar::Event::Entry(entry) if entry.kind == tar::EntryKind::File => {
                            self.open = entry.path;
                            self.files.insert(self.open.clone(), Vec::new());
                        }
                        tar::Event::Data(data) => self.files.get_mut(&self.open).unwrap().extend_from_slice(data),
                        tar::Event::Entry(_) | tar::Event::FileEnd | tar::Event::End => {}
                    }
                }
            }
        }
    }
}
