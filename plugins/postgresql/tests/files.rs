//! Method `files`: in which order it hands over what it reads.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cluster;
mod granting_host;
mod native_host;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use backstay_postgresql::PostgreSql;
use backstay_sdk::native::{Answer, BackupSink, DirectoryBackend, Incoming, Items};
use backstay_sdk::{BackupJob, Engine as _, FileAttributes, Node, Patch, Rule, RuleAction, StoredFile, TreeSummary};
use cluster::{Cluster, Setup, version_is_at_least};
use futures::StreamExt as _;
use granting_host::GrantingHost;
use native_host::{Grants, NativeHost, block_on};

const CONTROL: &str = "global/pg_control";

/// What is handed over, in its order. While a tree is read, the server writes its control file.
struct Order {
    cluster: Cluster,
    handed: RefCell<Vec<String>>,
    /// As the last tree left it.
    control: RefCell<Vec<u8>>,
}

impl BackupSink for Order {
    fn identify(&self, _: &str) -> Answer<()> {
        Box::pin(async { Ok(()) })
    }

    fn put_file(&self, path: &str, _: FileAttributes, body: Incoming) -> Answer<StoredFile> {
        self.handed.borrow_mut().push(format!("file {path}"));
        let mut expected = None;
        if path == format!("data/{CONTROL}") {
            // The session's last command, so the server still logs whole pages.
            let reading = "SELECT count(*) FROM pg_stat_activity \
                           WHERE usename = 'backup' AND query LIKE '%pg_tablespace_location%'";
            assert_eq!(self.cluster.sql(reading), "1", "backup mode has not ended");
            expected = Some(self.control.borrow().clone());
        }
        Box::pin(async move {
            let bytes = body.collect::<Vec<_>>().await.concat();
            assert!(expected.is_none_or(|expected| expected == bytes), "an old control file");
            Ok(StoredFile { bytes: bytes.len() as u64, crc32c: crc32c::crc32c(&bytes) })
        })
    }

    fn put_node(&self, node: Node) -> Answer<()> {
        self.handed.borrow_mut().push(format!("folder {}", node.path));
        Box::pin(async { Ok(()) })
    }

    fn put_tree(&self, path: &str, _: Rc<dyn DirectoryBackend>, rules: &[Rule], _: &str) -> Answer<TreeSummary> {
        self.handed.borrow_mut().push(format!("tree {path}"));
        let without_control = |rule: &Rule| rule.pattern == CONTROL && rule.action == RuleAction::Exclude;
        assert!(path != "data" || rules.iter().any(without_control), "the tree holds it too");
        self.cluster.sql("CHECKPOINT");
        *self.control.borrow_mut() = std::fs::read(self.cluster.data().join(CONTROL)).unwrap();
        Box::pin(async { Ok(TreeSummary { files: 0, bytes: 0 }) })
    }

    fn put_patched(&self, _: &str, _: FileAttributes, _: Patch, _: Incoming) -> Answer<StoredFile> {
        panic!("not used by this method")
    }

    fn parent_notes(&self) -> Option<String> {
        None
    }

    fn parent_read(&self, _: &str) -> Items<Vec<u8>> {
        panic!("not used by this method")
    }
}

#[test]
fn the_control_file_is_read_behind_all_others_and_the_label_and_the_log_behind_it() {
    let cluster = Cluster::start(&Setup::default());
    let functions = if version_is_at_least(15) {
        "pg_backup_start(text, boolean), pg_backup_stop(boolean)"
    } else {
        "pg_start_backup(text, boolean, boolean), pg_stop_backup(boolean, boolean)"
    };
    cluster.sql(&format!("GRANT EXECUTE ON FUNCTION {functions} TO backup"));
    let space = cluster.tablespace("space");
    cluster.sql(&format!("CREATE TABLESPACE space LOCATION '{}'", space.display()));
    let oid = cluster.sql("SELECT oid FROM pg_tablespace WHERE spcname = 'space'");
    let grants = Grants {
        config: "{}".to_owned(),
        endpoint: cluster.endpoint(),
        user: "backup".to_owned(),
        password: "secret".to_owned(),
    };
    let folders = BTreeMap::from([("data".to_owned(), cluster.data()), (format!("tablespace-{oid}"), space)]);
    GrantingHost::install(NativeHost::install(grants), folders);
    let order = Rc::new(Order { cluster, handed: RefCell::default(), control: RefCell::default() });
    let job = BackupJob { method: "files".to_owned(), label: "in order".to_owned() };
    block_on(PostgreSql::backup(job, (order.clone() as Rc<dyn BackupSink>).into())).unwrap();

    let mut handed = order.handed.take();
    let log = handed.iter().position(|what| what.starts_with("file data/pg_wal/")).expect("there is log");
    assert!(handed.split_off(log).iter().all(|what| what.starts_with("file data/pg_wal/")));
    let (place, tree) = (format!("folder tablespaces/{oid}"), format!("tree tablespaces/{oid}"));
    let ends = ["file data/global/pg_control", "file data/backup_label", "file data/tablespace_map"];
    assert_eq!(handed, [&["folder data", "tree data", &place, &tree], &ends[..]].concat());
}
