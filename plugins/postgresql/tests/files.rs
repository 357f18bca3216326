//! Method `files`: in which order it hands over what it reads.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cluster;
mod native_host;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use backstay_postgresql::PostgreSql;
use backstay_sdk::native::{
    Answer, BackupSink, ConnectionBackend, DirectoryBackend, HostBackend, Incoming, Items, ProcessBackend, install,
};
use backstay_sdk::{
    BackupJob, Credential, Engine as _, Error, ErrorKind, FileAttributes, Level, Node, NodeKind, Patch, Result, Rule,
    RuleAction, StoredFile, Timestamp, TreeSummary,
};
use cluster::{Cluster, Setup, version_is_at_least};
use futures::StreamExt as _;
use futures::future::LocalBoxFuture;
use native_host::{Grants, NativeHost, block_on};

const CONTROL: &str = "global/pg_control";

/// [`NativeHost`] with granted folders.
struct Host {
    rest: Rc<NativeHost>,
    folders: BTreeMap<String, PathBuf>,
}

impl HostBackend for Host {
    fn config(&self) -> String {
        self.rest.config()
    }

    fn login(&self, name: &str) -> Result<Credential> {
        self.rest.login(name)
    }

    fn connect(&self, endpoint: &str) -> Answer<Rc<dyn ConnectionBackend>> {
        self.rest.connect(endpoint)
    }

    fn open_directory(&self, name: &str) -> Result<Rc<dyn DirectoryBackend>> {
        let folder = self.folders.get(name).ok_or_else(|| Error::new(ErrorKind::Denied, format!("no {name}")))?;
        Ok(Rc::new(Folder(folder.clone())))
    }

    fn run(&self, tool: &str, arguments: &[String]) -> Answer<Rc<dyn ProcessBackend>> {
        self.rest.run(tool, arguments)
    }

    fn log(&self, level: Level, message: &str) {
        self.rest.log(level, message);
    }

    fn progress(&self, phase: &str, done: u64, total: Option<u64>) {
        self.rest.progress(phase, done, total);
    }

    fn now(&self) -> Timestamp {
        self.rest.now()
    }

    fn sleep(&self, microseconds: u64) -> LocalBoxFuture<'static, ()> {
        self.rest.sleep(microseconds)
    }

    fn random(&self, length: u32) -> Vec<u8> {
        self.rest.random(length)
    }

    fn stop_requested(&self) -> LocalBoxFuture<'static, ()> {
        self.rest.stop_requested()
    }
}

/// A granted folder. Nothing is written to it.
struct Folder(PathBuf);

impl Folder {
    fn node(&self, path: &str) -> Option<Node> {
        let whole = self.0.join(path);
        let metadata = std::fs::symlink_metadata(&whole).ok()?;
        let kind = if metadata.is_dir() {
            NodeKind::Directory
        } else if metadata.is_symlink() {
            NodeKind::Symlink(std::fs::read_link(whole).ok()?.display().to_string())
        } else {
            NodeKind::File(metadata.len())
        };
        Some(Node { path: path.to_owned(), kind, attributes: FileAttributes { mode: 0o700, modified: 0 } })
    }
}

impl DirectoryBackend for Folder {
    fn entries(&self, path: &str) -> Items<Node> {
        let mut nodes = Vec::new();
        let mut folders = vec![path.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(self.0.join(&folder)).into_iter().flatten().flatten() {
                let path = format!("{folder}/{}", entry.file_name().display());
                let Some(node) = self.node(path.trim_start_matches('/')) else { continue };
                if node.kind == NodeKind::Directory {
                    folders.push(node.path.clone());
                }
                nodes.push(Ok(node));
            }
        }
        futures::stream::iter(nodes).boxed_local()
    }

    fn stat(&self, path: &str) -> Answer<Option<Node>> {
        let node = self.node(path);
        Box::pin(async { Ok(node) })
    }

    fn read(&self, path: &str, offset: u64, length: Option<u64>) -> Items<Vec<u8>> {
        assert_eq!((offset, length), (0, None), "whole files only");
        let bytes =
            std::fs::read(self.0.join(path)).map_err(|error| Error::new(ErrorKind::Internal, error.to_string()));
        futures::stream::iter([bytes]).boxed_local()
    }

    fn write(&self, _: &str, _: FileAttributes, _: Incoming) -> Answer<u64> {
        panic!("a backup reads")
    }

    fn create(&self, _: &str, _: FileAttributes) -> Answer<()> {
        panic!("a backup reads")
    }

    fn link(&self, _: &str, _: &str) -> Answer<()> {
        panic!("a backup reads")
    }

    fn remove(&self, _: &str) -> Answer<()> {
        panic!("a backup reads")
    }

    fn rename(&self, _: &str, _: &str) -> Answer<()> {
        panic!("a backup reads")
    }

    fn location(&self) -> PathBuf {
        self.0.clone()
    }
}

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
    install(Rc::new(Host { rest: NativeHost::install(grants), folders }));
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
