//! Control files and data pages against those of real servers, and against PostgreSQL's own tools.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod server;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use backstay_postgresql_wire::control_file::{ControlFile, DataFormat};
use backstay_postgresql_wire::lsn::Lsn;
use backstay_postgresql_wire::page::{PageVerdict, inspect_page, page_checksum};
use backstay_postgresql_wire::relation_file::{Layout, segment_number};
use server::{Server, bins, files_below, major_version};

/// Every page of the stopped server is to be judged.
const EVER: Lsn = Lsn(u64::MAX);

/// A server with tables of all kinds, stopped.
fn stopped(bin: &Path, checksums: bool) -> Server {
    let argument = match (checksums, major_version(bin)) {
        (true, _) => Some("--data-checksums"),
        (false, 18..) => Some("--no-data-checksums"),
        (false, _) => None,
    };
    let server = Server::start_with(bin, argument.as_slice(), "");
    let space = server.folder("space");
    server.sql(&format!("CREATE TABLESPACE s LOCATION '{space}'"));
    for (name, what) in [("t", "TABLE"), ("u", "UNLOGGED TABLE")] {
        server.sql(&format!("CREATE {what} {name} AS SELECT n, md5(n::text) FROM generate_series(1, 50000) n"));
        server.sql(&format!("CREATE INDEX ON {name} (n)"));
        server.sql(&format!("DELETE FROM {name} WHERE n % 3 = 0"));
    }
    server.sql("CREATE TABLE v TABLESPACE s AS SELECT * FROM t");
    server.sql("VACUUM");
    server.sql("CHECKPOINT");
    server.stop();
    server
}

fn control(server: &Server) -> ControlFile {
    ControlFile::parse(&fs::read(format!("{}/global/pg_control", server.data())).unwrap()).unwrap()
}

/// The lines that `pg_controldata` and `pg_checksums` write: `name: value`.
fn told(server: &Server, program: &str, arguments: &[&str]) -> BTreeMap<String, String> {
    let data = server.data();
    let text = server.run(program, &[arguments, &["-D", &data]].concat());
    text.lines().filter_map(|line| line.split_once(':')).map(|(key, value)| (key.into(), value.trim().into())).collect()
}

/// Every page of a cluster: its file, its number in the relation, its bytes.
fn pages(data: &str, layout: Layout) -> Vec<(String, u32, Vec<u8>)> {
    let mut all = Vec::new();
    for path in files_below(data) {
        let Some(segment) = segment_number(&path) else { continue };
        let bytes = fs::read(format!("{data}/{path}")).unwrap();
        let pages = bytes.chunks_exact(layout.block_bytes() as usize);
        assert!(pages.remainder().is_empty(), "{path}");
        for (n, page) in pages.enumerate() {
            let offset = n as u64 * u64::from(layout.block_bytes());
            all.push((path.clone(), layout.block(segment, offset).unwrap(), page.to_vec()));
        }
    }
    all
}

#[test]
fn control_files_say_what_pg_controldata_says() {
    for bin in bins() {
        for checksums in [true, false] {
            let server = stopped(&bin, checksums);
            let (control, told) = (control(&server), told(&server, "pg_controldata", &[]));
            assert_eq!(control.format.to_string(), told["pg_control version number"]);
            assert_eq!(control.system_identifier.to_string(), told["Database system identifier"]);
            let DataFormat { layout, checksum_version } = control.data.unwrap();
            assert_eq!(layout.block_bytes().to_string(), told["Database block size"]);
            assert_eq!(layout.segment_blocks().to_string(), told["Blocks per segment of large relation"]);
            assert_eq!(checksum_version.to_string(), told["Data page checksum version"]);
            assert_eq!(control.data.unwrap().has_page_checksums(), checksums);
        }
    }
}

#[test]
fn a_running_server_shows_the_layout_that_its_control_file_has() {
    for bin in bins() {
        let server = Server::start(&bin);
        let layout = Layout::from_settings(&server.sql("SHOW block_size"), &server.sql("SHOW segment_size")).unwrap();
        assert_eq!(layout, control(&server).data.unwrap().layout);
    }
}

#[test]
fn every_page_of_a_stopped_server_is_good_or_new() {
    for bin in bins() {
        let server = stopped(&bin, true);
        let layout = control(&server).data.unwrap().layout;
        let pages = pages(&server.data(), layout);
        let mut seen = BTreeMap::<String, usize>::new();
        for (path, block, page) in &pages {
            let verdict = inspect_page(page, *block, EVER);
            assert!(matches!(verdict, PageVerdict::Good | PageVerdict::New), "{path} {block} {verdict:?}");
            *seen.entry(format!("{verdict:?}")).or_default() += 1;
        }
        // The same files and as many blocks as the server's own tool looks at.
        let told = told(&server, "pg_checksums", &["--check"]);
        let files = files_below(&server.data()).iter().filter(|path| segment_number(path).is_some()).count();
        assert_eq!(files.to_string(), told["Files scanned"]);
        assert_eq!(pages.len().to_string(), told["Blocks scanned"]);
        assert_eq!(told["Bad checksums"], "0");
        for fork in ["_fsm", "_vm", "_init", "pg_tblspc/"] {
            assert!(pages.iter().any(|(path, ..)| path.contains(fork)), "{fork}");
        }
        eprintln!("{}: {files} files, pages {seen:?}", bin.display());

        let begun = Instant::now();
        let mut bytes = 0;
        while begun.elapsed().as_millis() < 300 {
            for (_, block, page) in &pages {
                bytes += page.len() * usize::from(page_checksum(page, *block) > 0);
            }
        }
        eprintln!("checked at {:.2} GB/s", bytes as f64 / begun.elapsed().as_secs_f64() / 1e9);
    }
}

#[test]
fn a_flipped_byte_and_a_page_in_the_wrong_place_are_bad() {
    for bin in bins() {
        let server = stopped(&bin, true);
        let pages = pages(&server.data(), control(&server).data.unwrap().layout);
        let mut missed = 0;
        for (n, (path, block, page)) in pages.iter().enumerate() {
            if inspect_page(page, *block, EVER) == PageVerdict::New {
                continue;
            }
            assert!(inspect_page(page, block + 1, EVER).is_bad(), "{path} {block}");
            // A place that is another in every page, but the log's place, which ends the judgement.
            let at = 8 + n * 7919 % (page.len() - 8);
            let mut page = page.clone();
            page[at] ^= 0x40;
            missed += u32::from(!inspect_page(&page, *block, EVER).is_bad());
        }
        // By chance, one in 65,535 is; a few thousand were looked at.
        assert!(missed < 5, "{missed} of {}", pages.len());
    }
}

#[test]
fn pages_written_after_the_start_are_not_judged() {
    for bin in bins() {
        let server = Server::start_with(&bin, &["--data-checksums"], "");
        server.sql("CREATE TABLE t (n int) WITH (autovacuum_enabled = off)");
        server.sql("INSERT INTO t SELECT generate_series(1, 10000)");
        server.sql("CHECKPOINT");
        let start: Lsn = server.sql("SELECT pg_current_wal_insert_lsn()").parse().unwrap();
        server.sql("UPDATE t SET n = 0 WHERE ctid = '(3,1)'");
        let file = server.sql("SELECT pg_relation_filepath('t')");
        server.stop();
        let bytes = fs::read(format!("{}/{file}", server.data())).unwrap();
        let verdicts: Vec<_> =
            bytes.chunks(8192).zip(0..).map(|(page, block)| inspect_page(page, block, start)).collect();
        assert_eq!(verdicts[3], PageVerdict::Newer);
        assert_eq!(verdicts[2], PageVerdict::Good);
        assert_eq!(verdicts[4], PageVerdict::Good);
        // Newer than anything that the server may write, so broken.
        let mut page = bytes[2 * 8192..3 * 8192].to_vec();
        page[3] ^= 0x80;
        assert!(inspect_page(&page, 2, start).is_bad());
        assert!(inspect_page(&[0xff; 8192], 2, start).is_bad());
    }
}
