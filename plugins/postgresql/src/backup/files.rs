//! Method `files`: the host reads the granted data folder, on all cores, while the server is in backup mode.
//!
//! ```text
//!   SQL session          ─▶ what the server is; neither session ends because it waits
//!   replication session  ─▶ temporary slot: keeps the log until it is stored, and shows whose the folder is
//!   SQL session ─▶ pg_backup_start ────────────────────────────▶ pg_backup_stop ─▶ backup_label, tablespace_map
//!                      │ put-tree: data/, tablespaces/<oid>/    ▲                  pg_wal/: start up to stop
//!                      └ then global/pg_control ────────────────┘
//! ```
//!
//! Pages that the server writes while they are read may be torn: replay of the log from the start on
//! makes them whole, for the server logs whole pages in backup mode; `pages` tells them from bad ones.
//! What is left out is what PostgreSQL's documentation and `basebackup.c` leave out.

use backstay_postgresql_wire::backup_label::BackupLabel;
use backstay_postgresql_wire::control_file::{CONTROL_FILE_BYTES, ControlFile};
use backstay_postgresql_wire::protocol::frontend::Purpose;
use backstay_postgresql_wire::replication::{Checkpoint, ServerVersion, literal};
use backstay_postgresql_wire::wal_file::WalFile;
use backstay_sdk::{
    BackupJob, BackupReport, BackupWriter, Directory, Error, ErrorKind, FileAttributes, Level, Node, NodeKind, Result,
    Rule, RuleAction, host,
};

use super::pages::PageCheck;
use super::wal_watch::WalWatch;
use super::{MAIN, Notes, Server, TABLESPACES, consistent_at, notes, ready, switched, volumes};
use crate::connection::Session;
use crate::inspect::System;
use crate::limits::{CONTROL_READS_MAX, CONTROL_WAIT_US, HISTORY_BYTES_MAX, UNLOGGED_MAX};
use crate::position::{parse_lsn, position};
use crate::refusal::from_wire;
use crate::settings::Settings;

/// The granted data folder.
pub const DATA: &str = "data";

/// The granted log folder, where `pg_wal` is a link that leads out of the data folder.
pub const WAL: &str = "wal";

/// What comes before a tablespace's OID in the name of its grant.
pub const TABLESPACE_GRANT: &str = "tablespace-";

/// Last of the files read: replay starts from what it says.
const CONTROL: &str = "global/pg_control";

/// Folders that stay and whose contents go: the server fills them anew when it starts.
const EMPTIED: [&str; 8] =
    ["pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans", "pg_wal"];

/// What would end a session that waits, and the first version that has it. The last one ends single statements too.
const TIMEOUTS: [(&str, u32); 3] =
    [("statement_timeout", 0), ("idle_session_timeout", 14), ("transaction_timeout", 17)];

/// What belongs to the running server, to an older backup, or to nobody.
const EXCLUDED: [&str; 13] = [
    "postmaster.pid",
    "postmaster.opts",
    "backup_label",
    "backup_label.old",
    "tablespace_map",
    "tablespace_map.old",
    "backup_manifest",
    "postgresql.auto.conf.tmp",
    "current_logfiles.tmp",
    "**/pgsql_tmp*",
    "**/pg_internal.init*",
    // Temporary relations.
    "base/*/t[0-9]*_[0-9]*",
    CONTROL,
];

/// The same in a tablespace.
const EXCLUDED_OUTSIDE: [&str; 3] = ["**/pgsql_tmp*", "**/pg_internal.init*", "PG_*/*/t[0-9]*_[0-9]*"];

/// Makes a backup.
pub(super) async fn backup(settings: &Settings, job: &BackupJob, into: &BackupWriter) -> Result<BackupReport> {
    let data = host::open_directory(DATA)?;
    let mut session = Session::open(settings, Purpose::Sql).await?;
    let version = session.version();
    // Both sessions wait while the host reads, and a checkpoint may be spread over minutes.
    let known = TIMEOUTS.iter().filter(|(_, since)| version.major >= *since);
    let off: Vec<(&str, &str)> = known.map(|(name, _)| (*name, "0")).collect();
    let commands: Vec<String> = off.iter().map(|(name, value)| format!("SET {name} = {value}")).collect();
    session.query(&commands.join("; ")).await?;
    let mut replication = Session::open_replication_with(settings, &off).await?;
    let system = System::identify(&mut replication).await?;
    into.identify(&system.identity).await?;
    let control = read_control(&data).await?;
    refuse_another(&control.0, &system)?;
    // The session stays, and with it the slot: the log that the backup needs is kept until it is stored.
    let Server { segment_bytes, folder_mode, slot } = Server::prepare(&mut replication).await?;
    refuse_another_copy(&data, &slot).await?;

    host::progress("checkpoint", 0, None);
    // Read to its end without the bound on questions: a spread checkpoint takes minutes.
    session.command(&start_command(version, &job.label, settings.checkpoint)?).await?;
    let began = parse_lsn(session.result().await?.need("lsn")?)?;
    ready(&mut session).await?;
    let tablespaces = tablespaces(&mut session).await?;

    let copy = Copy { into, major: version.major, folder_mode, check: PageCheck::of(&control.0, began) };
    copy.main(&data).await?;
    for tablespace in &tablespaces {
        copy.tablespace(tablespace).await?;
    }
    let (_, bytes) = read_control(&data).await?;
    copy.small(CONTROL, &bytes).await?;

    session.command(stop_command(version)).await?;
    let stopped = session.result().await?;
    ready(&mut session).await?;
    session.close().await;
    let end = parse_lsn(stopped.need("lsn")?)?;
    let label = stopped.need("labelfile")?.as_bytes();
    let start = BackupLabel::parse(label).map_err(from_wire)?;
    if end < start.start.0 {
        return Err(Error::new(ErrorKind::Corrupt, "the server's backup ends before it starts"));
    }
    // A standby follows its primary: then the log of one timeline does not reach the end.
    if System::identify(&mut replication).await?.tail.epoch != u64::from(start.timeline) {
        return Err(switched());
    }
    copy.small("backup_label", label).await?;
    if let Some(map) = stopped.get(0, "spcmapfile").filter(|map| !map.is_empty()) {
        copy.small("tablespace_map", map.as_bytes()).await?;
    }
    let wanted = Wanted { timeline: start.timeline, start: start.start.0, end, segment_bytes };
    let log = copy.log(&data, &wanted).await?;
    replication.close().await;

    let notes = Notes {
        version: version.to_string(),
        system_identifier: system.identity,
        segment_bytes,
        tablespaces: tablespaces.clone(),
        includes_wal: true,
    };
    Ok(BackupReport {
        start: position(start.timeline, start.start.0),
        end: position(start.timeline, end),
        log_from: position(start.timeline, end - end % segment_bytes),
        consistent_at: consistent_at(settings, log.last_commit_before(end), label).await,
        version: version.to_string(),
        main: MAIN.to_owned(),
        volumes: volumes(settings, &tablespaces).await,
        notes: notes.to_json()?,
    })
}

fn start_command(version: ServerVersion, label: &str, checkpoint: Checkpoint) -> Result<String> {
    let label = literal(label).map_err(from_wire)?;
    let fast = checkpoint == Checkpoint::Fast;
    Ok(if version.major >= 15 {
        format!("SELECT pg_catalog.pg_backup_start({label}, {fast}) AS lsn")
    } else {
        format!("SELECT pg_catalog.pg_start_backup({label}, {fast}, false) AS lsn")
    })
}

/// The server need not wait for its own archive: the log is read here.
fn stop_command(version: ServerVersion) -> &'static str {
    if version.major >= 15 {
        "SELECT lsn, labelfile, spcmapfile FROM pg_catalog.pg_backup_stop(false)"
    } else {
        "SELECT lsn, labelfile, spcmapfile FROM pg_catalog.pg_stop_backup(false, false)"
    }
}

/// The tablespaces that lie outside the data folder.
async fn tablespaces(session: &mut Session) -> Result<Vec<notes::Tablespace>> {
    let sql = "SELECT oid, pg_catalog.pg_tablespace_location(oid) AS location FROM pg_catalog.pg_tablespace \
               WHERE spcname NOT IN ('pg_default', 'pg_global')";
    let rows = session.rows(sql).await?;
    let one = |row| {
        let location = rows.get(row, "location").filter(|location| location.starts_with('/'))?;
        Some(
            super::oid(rows.get(row, "oid").unwrap_or_default())
                .map(|oid| notes::Tablespace { oid, location: location.to_owned() }),
        )
    };
    (0..rows.len()).filter_map(one).collect()
}

/// `pg_control`, which the server may be writing at this moment.
async fn read_control(data: &Directory) -> Result<(ControlFile, Vec<u8>)> {
    let mut tries = 0;
    loop {
        tries += 1;
        let bytes = data.read_all(CONTROL, CONTROL_FILE_BYTES).await.map_err(|error| {
            error.hint("grant the server's data folder as `directories.data`, and run as a user that may read it")
        })?;
        match ControlFile::parse(&bytes) {
            Ok(control) => return Ok((control, bytes)),
            Err(error) if tries == CONTROL_READS_MAX => return Err(from_wire(error)),
            Err(_) => host::sleep(CONTROL_WAIT_US).await,
        }
    }
}

fn refuse_another(control: &ControlFile, system: &System) -> Result<()> {
    if control.system_identifier.to_string() == system.identity {
        return Ok(());
    }
    let message = format!(
        "the granted data folder belongs to cluster {}, but the server is {}",
        control.system_identifier, system.identity
    );
    Err(Error::new(ErrorKind::BadConfig, message).hint("correct `directories.data` or `endpoints.primary`"))
}

/// The same cluster may have several folders, of a standby or of a primary that was: whose this one is shows the
/// slot that the server just made.
async fn refuse_another_copy(data: &Directory, slot: &str) -> Result<()> {
    let slots = data.stat("pg_replslot").await?;
    let elsewhere = slots.is_some_and(|slots| matches!(slots.kind, NodeKind::Symlink(_)));
    if elsewhere || data.stat(&format!("pg_replslot/{slot}")).await?.is_some() {
        return Ok(());
    }
    let message = "the granted data folder is not the server's own: it belongs to another copy of the same cluster";
    Err(Error::new(ErrorKind::BadConfig, message)
        .hint("run on the server's machine, and let `directories.data` and `endpoints.primary` mean the same server"))
}

/// The log that makes the backup consistent.
struct Wanted {
    timeline: u32,
    start: u64,
    end: u64,
    segment_bytes: u64,
}

/// Puts what is read into the backup.
struct Copy<'a> {
    into: &'a BackupWriter,
    /// The server's version.
    major: u32,
    folder_mode: u32,
    /// Nothing: pages cannot be judged.
    check: Option<PageCheck>,
}

impl Copy<'_> {
    /// Stores a folder, its pages checked.
    async fn tree(&self, path: &str, folder: &Directory, mut rules: Vec<Rule>) -> Result<()> {
        let context = match &self.check {
            Some(check) => {
                rules.extend(PageCheck::rules());
                check.to_context()?
            }
            None => String::new(),
        };
        self.into.put_tree(path, folder, &rules, &context).await.map(drop)
    }

    async fn main(&self, data: &Directory) -> Result<()> {
        self.folder(MAIN).await?;
        let mut rules = rules(&EMPTIED, RuleAction::Empty);
        rules.extend(self::rules(&EXCLUDED, RuleAction::Exclude));
        let mut emptied_links = Vec::new();
        let mut unlogged = Vec::new();
        let mut nodes = data.entries("");
        while let Some(node) = nodes.next().await? {
            match node.kind {
                // A folder in the backup: the server wants to find one.
                NodeKind::Symlink(_) if EMPTIED.contains(&node.path.as_str()) => {
                    rules.insert(0, exactly(&node.path));
                    emptied_links.push(node.path);
                }
                // The server makes them anew from `tablespace_map`.
                NodeKind::Symlink(_) if node.path.starts_with("pg_tblspc/") => rules.insert(0, exactly(&node.path)),
                NodeKind::Symlink(to) => {
                    let what = format!("left out {:?}, a link to {to:?}: it is not PostgreSQL's own", node.path);
                    host::log(Level::Warn, &what);
                    rules.insert(0, exactly(&node.path));
                }
                NodeKind::File(_) => unlogged.extend(node.path.strip_suffix("_init").map(str::to_owned)),
                NodeKind::Directory => {}
            }
        }
        rules.extend(without_unlogged(unlogged));
        for folder in emptied_links {
            self.folder(&format!("{MAIN}/{folder}")).await?;
        }
        self.tree(MAIN, data, rules).await
    }

    async fn tablespace(&self, tablespace: &notes::Tablespace) -> Result<()> {
        let oid = tablespace.oid;
        let grant = format!("{TABLESPACE_GRANT}{oid}");
        let folder = host::open_directory(&grant).map_err(|error| {
            let hint = format!("grant it: `directories.{grant} = \"{}\"`", tablespace.location);
            Error::new(error.kind, format!("tablespace {oid} lies outside the data folder and is not granted"))
                .hint(hint)
        })?;
        let stored = format!("{TABLESPACES}/{oid}");
        self.folder(&stored).await?;
        let mut rules = rules(&EXCLUDED_OUTSIDE, RuleAction::Exclude);
        let mut unlogged = Vec::new();
        // Each version has a folder of its own in a tablespace, made with it.
        let (its_own, mut is_there) = (format!("PG_{}_", self.major), false);
        let mut nodes = folder.entries("");
        while let Some(node) = nodes.next().await? {
            is_there |= node.kind == NodeKind::Directory && node.path.starts_with(&its_own);
            if let (NodeKind::File(_), Some(main)) = (&node.kind, node.path.strip_suffix("_init")) {
                unlogged.push(main.to_owned());
            }
        }
        if !is_there {
            let message = format!("the folder granted as {grant} holds no tablespace of PostgreSQL {}", self.major);
            return Err(Error::new(ErrorKind::BadConfig, message)
                .hint(format!("is its disk mounted? The server has it at {}", tablespace.location)));
        }
        rules.extend(without_unlogged(unlogged));
        self.tree(&stored, &folder, rules).await
    }

    /// The log files from the start to the end of the backup, and the history of its timeline.
    async fn log(&self, data: &Directory, wanted: &Wanted) -> Result<WalWatch> {
        let of_its_own;
        let (folder, below) = match data.stat("pg_wal").await? {
            Some(Node { kind: NodeKind::Symlink(to), .. }) => {
                of_its_own = host::open_directory(WAL).map_err(|error| {
                    Error::new(error.kind, format!("pg_wal is a link to {to:?}, which is not granted"))
                        .hint(format!("grant it: `directories.{WAL} = \"{to}\"`"))
                })?;
                (&of_its_own, "")
            }
            _ => (data, "pg_wal/"),
        };
        let Wanted { timeline, start, end, segment_bytes } = *wanted;
        let mut watch = WalWatch::default();
        let mut at = start - start % segment_bytes;
        while at < end {
            let file = WalFile::containing(timeline, at, segment_bytes).map_err(from_wire)?;
            self.log_file(folder, &format!("{below}{file}"), &file, &mut watch).await?;
            at = file.end();
        }
        if timeline > 1 {
            let name = format!("{timeline:08X}.history");
            let history = folder.read_all(&format!("{below}{name}"), HISTORY_BYTES_MAX).await?;
            self.small(&format!("pg_wal/{name}"), &history).await?;
        }
        Ok(watch)
    }

    async fn log_file(&self, folder: &Directory, path: &str, file: &WalFile, watch: &mut WalWatch) -> Result<()> {
        let attributes = FileAttributes { mode: self.file_mode(), modified: host::now() };
        let mut writer = self.into.put_file(&format!("{MAIN}/pg_wal/{file}"), attributes);
        watch.begin_file(file.start());
        let mut body = folder.read(path, 0, None);
        while let Some(bytes) = body.next().await? {
            watch.data(bytes);
            writer.write(bytes).await?;
        }
        let (stored, expected) = (writer.finish().await?.bytes, file.end() - file.start());
        if stored == expected {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Corrupt, format!("the log file {file} has {stored} bytes in place of {expected}")))
    }

    async fn small(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let attributes = FileAttributes { mode: self.file_mode(), modified: host::now() };
        self.into.put_all(&format!("{MAIN}/{path}"), attributes, bytes).await.map(drop)
    }

    async fn folder(&self, path: &str) -> Result<()> {
        let attributes = FileAttributes { mode: self.folder_mode, modified: host::now() };
        self.into.put_node(Node { path: path.to_owned(), kind: NodeKind::Directory, attributes }).await
    }

    /// Files are open to whom their folder is, but never to be run.
    fn file_mode(&self) -> u32 {
        self.folder_mode & 0o640
    }
}

pub(super) fn rules(patterns: &[&str], action: RuleAction) -> Vec<Rule> {
    patterns.iter().map(|pattern| Rule { pattern: (*pattern).to_owned(), action }).collect()
}

/// A rule for one path, whatever is in its name.
fn exactly(path: &str) -> Rule {
    Rule { pattern: escaped(path), action: RuleAction::Exclude }
}

fn escaped(path: &str) -> String {
    path.chars().fold(String::new(), |mut pattern, letter| {
        match letter {
            '*' | '?' | '[' | ']' | '{' | '}' | '\\' => pattern.extend(['[', letter, ']']),
            _ => pattern.push(letter),
        }
        pattern
    })
}

/// Unlogged relations are emptied when the restored server starts, from their `_init` forks, which
/// stay. Very many of them stay whole: that costs room and does no harm.
fn without_unlogged(relations: Vec<String>) -> Vec<Rule> {
    if relations.len() > UNLOGGED_MAX {
        return Vec::new();
    }
    let forks = |relation: String| {
        let relation = escaped(&relation);
        let others = format!("{relation}{{.*,_fsm*,_vm*}}");
        [relation, others].map(|pattern| Rule { pattern, action: RuleAction::Exclude })
    };
    relations.into_iter().flat_map(forks).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_follow_the_version() {
        let (old, new) = (ServerVersion { major: 14, minor: 2 }, ServerVersion { major: 15, minor: 0 });
        let spread = start_command(old, "it's", Checkpoint::Spread).unwrap();
        assert_eq!(spread, "SELECT pg_catalog.pg_start_backup('it''s', false, false) AS lsn");
        let fast = start_command(new, "nightly", Checkpoint::Fast).unwrap();
        assert_eq!(fast, "SELECT pg_catalog.pg_backup_start('nightly', true) AS lsn");
        assert!(stop_command(old).contains("pg_stop_backup(false, false)"));
        assert!(stop_command(new).contains("pg_backup_stop(false)"));
    }

    #[test]
    fn a_name_is_matched_as_it_is() {
        assert_eq!(exactly("pg_log/a*[1]").pattern, "pg_log/a[*][[]1[]]");
    }

    #[test]
    fn all_forks_of_an_unlogged_relation_go_but_the_first() {
        let rules = without_unlogged(vec!["base/5/16384".to_owned()]);
        let patterns: Vec<_> = rules.iter().map(|rule| rule.pattern.as_str()).collect();
        assert_eq!(patterns, ["base/5/16384", "base/5/16384{.*,_fsm*,_vm*}"]);
        assert!(without_unlogged(vec!["base/5/1".to_owned(); UNLOGGED_MAX + 1]).is_empty());
    }
}
