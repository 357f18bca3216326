//! A restore, started and compared.

use crate::{
    backstay::{Backstay, Backup},
    history::History,
    ledger::Ledger,
    postgres::{Installation, Postgres},
    scratch::{Scratch, run},
    target::Stop,
};
use anyhow::{Context, Result};
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

/// What restores of one target are compared with.
pub struct Rehearsal<'a> {
    /// The scenario.
    pub backstay: &'a Backstay,
    /// The source's programs.
    pub installation: &'a Installation,
    /// How the source came to its end.
    pub history: &'a History,
    /// The source's ledger in the end.
    pub ends: &'a Ledger,
    /// Every backup's volumes have these names.
    pub volumes: Vec<String>,
}

/// A restored server, running.
pub struct Restored {
    /// The server.
    pub server: Postgres,
    /// Where its files are.
    pub scratch: Scratch,
}

impl<'a> Rehearsal<'a> {
    /// Rehearsals of one scenario.
    pub fn new(
        backstay: &'a Backstay,
        installation: &'a Installation,
        history: &'a History,
        ends: &'a Ledger,
        backup: &Backup,
    ) -> Self {
        Self { backstay, installation, history, ends, volumes: backup.volumes.clone() }
    }

    /// Restores to `stop`, starts PostgreSQL, waits for the end of recovery, compares the ledger.
    pub fn at(&self, stop: &Stop, extra: &[&str]) -> Result<Restored> {
        let start = Instant::now();
        let restored = self.start(stop, extra).with_context(|| format!("{stop} {extra:?}"))?;
        let expected = self.ends.expected_at(self.history, stop)?;
        let compare = || Ledger::read(&restored.server)?.must_equal(&expected, self.history);
        compare().with_context(|| format!("{stop} {extra:?}\n{}", restored.server.log_tail()))?;
        let (found, all) = (expected.transactions(), self.ends.transactions());
        let seconds = start.elapsed().as_secs_f64();
        eprintln!("{stop} {extra:?}: {found} of {all} transactions, as it must be, in {seconds:.1} s");
        Ok(restored)
    }

    /// Restores and starts, compares nothing.
    pub fn start(&self, stop: &Stop, extra: &[&str]) -> Result<Restored> {
        let scratch = Scratch::new()?;
        let data = self.files(&scratch, stop, extra)?;
        let mut server = Postgres::adopt(self.installation, &data)?;
        server.start_without_waiting()?;
        server.wait_recovered()?;
        Ok(Restored { server, scratch })
    }

    /// Restores, starts nothing; answers the data folder.
    pub fn files(&self, scratch: &Scratch, stop: &Stop, extra: &[&str]) -> Result<PathBuf> {
        let data = scratch.join("data");
        let mut arguments = stop.arguments()?;
        arguments.extend(extra.iter().map(|argument| (*argument).to_owned()));
        for (number, volume) in self.volumes.iter().enumerate() {
            arguments.push("--map".into());
            arguments.push(format!("{volume}={}", scratch.join(format!("volume{number}")).display()));
        }
        self.backstay.restore(&data, &arguments)?;
        Ok(data)
    }

    /// `pg_verifybackup` on restored files.
    pub fn verify(&self, data: &Path) -> Result<()> {
        run(self.installation.tool("pg_verifybackup").arg(data)).map(|_| ())
    }
}

/// The folders below `root` that hold a file of this name, at most six deep.
pub fn folders_with(root: &Path, file: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = waiting.pop() {
        if folder.join(file).exists() {
            found.push(folder);
            continue;
        }
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            if depth < 6 && path.is_dir() && !path.is_symlink() {
                waiting.push((path, depth + 1));
            }
        }
    }
    found
}

/// The data folder of a backup that stock restic restored below `root`, as PostgreSQL left it but for the links to
/// its tablespaces, which point at what was restored and not at the source's own.
pub fn restic_restore(root: &Path) -> Result<PathBuf> {
    let data = folders_with(root, "backup_label").pop().context("no backup_label in what restic restored")?;
    for (oid, place) in tablespaces(root, &data)? {
        std::os::unix::fs::symlink(place, data.join("pg_tblspc").join(oid))?;
    }
    Ok(data)
}

/// The same, ready to start: what a person would do who has restic and no Backstay.
pub fn adopt_restic_restore(root: &Path, data: &Path) -> Result<()> {
    let lines: Vec<String> =
        tablespaces(root, data)?.into_iter().map(|(oid, place)| format!("{oid} {}\n", place.display())).collect();
    if lines.is_empty() {
        return Ok(());
    }
    crate::account::write(&data.join("tablespace_map"), &lines.concat())
}

/// Number and restored folder of each tablespace that the backup's map names.
fn tablespaces(root: &Path, data: &Path) -> Result<Vec<(String, PathBuf)>> {
    let map = data.join("tablespace_map");
    if !map.exists() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(&map)?;
    let places = text.lines().map(|line| {
        let (oid, _) = line.split_once(' ').context("a tablespace map without a location")?;
        let place = find_named(root, oid).with_context(|| format!("no folder of tablespace {oid}"))?;
        Ok((oid.to_owned(), place))
    });
    places.collect()
}

/// The folder below `root` whose name is, or ends with, a tablespace's number and that holds `PG_…`.
fn find_named(root: &Path, oid: &str) -> Option<PathBuf> {
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        let entries: Vec<PathBuf> = std::fs::read_dir(&folder).ok()?.flatten().map(|entry| entry.path()).collect();
        let is_space =
            entries.iter().any(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("PG_1")));
        if is_space && folder.file_name().is_some_and(|name| name.to_string_lossy().ends_with(oid)) {
            return Some(folder);
        }
        waiting.extend(entries.into_iter().filter(|path| path.is_dir() && !path.is_symlink()));
    }
    None
}
