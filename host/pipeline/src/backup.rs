//! A backup: the plugin decides, this stores, and commits only what fits together.

#[cfg(test)]
mod tests;

use crate::{
    admission::Admission,
    catalog,
    first_failure::FirstFailure,
    identity::Identity,
    job::{BackupSummary, Failure, FailureKind, RepositorySpec},
    repository,
    work::{self, Work},
};
use async_trait::async_trait;
use backstay_core::{Backup, BackupManifest, MANIFEST_PATH, RelativePath};
use backstay_repo::{
    BackupOptions, BackupSession, FileAttributes, LockKind, Parent, RepoError, RepoErrorKind, SnapshotMeta, Totals,
    log::LogChain,
};
use backstay_sandbox::{
    Attributes, BackupReport, BackupSink, Body, Description, EngineError, EngineErrorKind, Found, Method, Node,
    NodeKind, Patch, Patched, Reporter, Witness,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use std::{
    collections::BTreeSet,
    fs::File,
    io,
    sync::{Arc, Mutex, PoisonError},
};

/// Random bytes in a backup's label.
const LABEL_BYTES: usize = 8;

pub(crate) async fn run(work: &Work, method: Option<String>, reread: bool) -> Result<BackupSummary, Failure> {
    let target = &work.spec.target;
    let description = work::describe(&work.plugin, work.reporter.clone()).await?;
    let method = choose(&description, method.as_deref())?;
    let spec = repository_of(&work.spec.repository)?;
    let repository = repository::open(spec).await?;
    // First of all: its pause runs beside what is read next.
    let lock = repository.begin_lock(LockKind::Shared).await?;
    let before = async {
        let log = repository::open_log(&repository, &target.name).await?;
        let backups = catalog::readable_backups(&repository, &target.name, None).await?;
        Ok::<_, Failure>((log, backups))
    };
    let (log, backups) = match before.await {
        Ok(before) => before,
        Err(failure) => {
            lock.release().await?;
            return Err(failure);
        }
    };
    let parent = backups
        .into_iter()
        .rfind(|backup| method.may_follow(&backup.manifest.method) && backup.manifest.engine == target.engine);
    let started = work.reporter.now();
    // What is wrong with a file that is not read again has to be known: then nothing was too much to be named.
    let trusted = |parent: &Backup| !reread && parent.manifest.more_findings == 0;
    let before = parent.as_ref().map(|parent| Parent {
        id: parent.id.clone(),
        begun: Some(parent.manifest.started).filter(|_| trusted(parent)),
    });
    let session = repository.backup_under(lock, BackupOptions { parent: before, ..BackupOptions::default() }).await?;
    let sink = Arc::new(Sink::new(session, Identity::new(log, &target.engine), parent.as_ref()));
    let label = format!("backstay {}", random_label()?);
    let port: Arc<dyn BackupSink> = sink.clone();
    let reported = work.plugin.backup(work.context("backup"), &method.name, &label, port).await;
    let finished = work.reporter.now();
    // The plugin's store is gone, and every other handle on the sink with it.
    let Some(sink) = Arc::into_inner(sink) else {
        return Err(Failure::new(FailureKind::Failed, "failed to close the backup: a plugin call outlived its plugin"));
    };
    let Sink { session, identity, stored, failed, found, .. } = sink;
    let report = match failed.judge(reported) {
        Ok(report) => report,
        Err(failure) => {
            session.abandon().await?;
            return Err(failure);
        }
    };
    let stored = stored.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.named.sort();
    let (known, log) = identity.into_parts();
    if let Err(reason) = check_report(&report, &stored, known.as_deref(), &log) {
        session.abandon().await?;
        return Err(Failure::new(
            FailureKind::Failed,
            format!("plugin `{}` is not trustworthy: {reason}", target.engine),
        )
        .hint("no backup was made; tell the plugin's author"));
    }
    let manifest = BackupManifest {
        format: 1,
        target: target.name.clone(),
        engine: description.name.clone(),
        engine_version: description.version.clone(),
        database_version: report.version,
        identity: known.unwrap_or_default(),
        method: method.name.clone(),
        started,
        finished,
        start: report.start,
        end: report.end,
        log_from: report.log_from,
        consistent_at: report.consistent_at,
        main: report.main.into(),
        volumes: report.volumes,
        bytes: stored.bytes,
        files: stored.files,
        findings: found.named,
        more_findings: found.more,
        notes: report.notes,
    };
    commit(session, manifest, parent).await
}

async fn commit(
    session: BackupSession,
    manifest: BackupManifest,
    parent: Option<Backup>,
) -> Result<BackupSummary, Failure> {
    let text = serde_json::to_vec_pretty(&manifest)
        .map_err(|error| Failure::new(FailureKind::Failed, format!("failed to write the manifest: {error}")))?;
    let path =
        RelativePath::new(MANIFEST_PATH).map_err(|error| Failure::new(FailureKind::Failed, error.to_string()))?;
    let attributes = FileAttributes { mode: 0o600, modified: manifest.finished };
    session.put_file(&path, attributes, stream::iter([Ok(Bytes::from(text))])).await?;
    let meta = SnapshotMeta {
        time: Some(manifest.finished),
        started: Some(manifest.started),
        paths: vec![format!("/{}", manifest.target)],
        tags: vec![
            format!("target={}", manifest.target),
            format!("engine={}", manifest.engine),
            format!("method={}", manifest.method),
        ],
        parent: parent.map(|parent| parent.id),
        program_version: concat!("backstay ", env!("CARGO_PKG_VERSION")).to_owned(),
        ..SnapshotMeta::default()
    };
    let committed = session.commit(meta).await?;
    let Totals { uploaded, unread_bytes, .. } = committed.totals;
    Ok(BackupSummary { id: committed.id, manifest, uploaded, unread: unread_bytes })
}

pub(crate) fn repository_of(spec: &Option<RepositorySpec>) -> Result<&RepositorySpec, Failure> {
    spec.as_ref().ok_or_else(|| Failure::new(FailureKind::Usage, "the job was given no repository"))
}

fn choose<'a>(description: &'a Description, wanted: Option<&str>) -> Result<&'a Method, Failure> {
    let Some(wanted) = wanted else {
        return description
            .methods
            .first()
            .ok_or_else(|| Failure::new(FailureKind::Usage, "the engine has no backup method"));
    };
    description.methods.iter().find(|method| method.name == wanted).ok_or_else(|| {
        let known: Vec<&str> = description.methods.iter().map(|method| method.name.as_str()).collect();
        Failure::new(FailureKind::Usage, format!("engine `{}` has no method `{wanted}`", description.name))
            .hint(format!("it has: {}", known.join(", ")))
    })
}

/// What the report says must fit what was stored and what the log knows.
fn check_report(report: &BackupReport, stored: &Stored, known: Option<&str>, log: &LogChain) -> Result<(), String> {
    if known.is_none() {
        return Err("it never said which database it backed up".to_owned());
    }
    if stored.files == 0 {
        return Err("it reports a backup without a single file".to_owned());
    }
    let names = std::iter::once(report.main.as_str()).chain(report.volumes.iter().map(|volume| volume.name.as_str()));
    for name in names {
        let below = format!("{name}/");
        let there = stored.paths.range(below.clone()..).next().is_some_and(|path| path.starts_with(&below));
        if !there && !stored.paths.contains(name) {
            return Err(format!("it reports folder {name}, in which it stored nothing"));
        }
    }
    if let (Some(tail), true) = (log.tail(), log.chain().gaps().is_empty()) {
        // A backup cannot end on a branch that an archived one has left behind long ago:
        // only epochs that are known, or newer ones, can come.
        let unknown = log.chain().pieces(report.end.epoch).is_empty();
        if unknown && report.end.epoch < tail.epoch && log.chain().epochs().any(|epoch| epoch < report.end.epoch) {
            return Err(format!("it reports an end in epoch {}, which the log never saw", report.end.epoch));
        }
    }
    Ok(())
}

fn random_label() -> Result<String, Failure> {
    let mut bytes = [0; LABEL_BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(FailureKind::Failed, format!("failed to get random bytes: {error}")))?;
    Ok(hex::encode(bytes))
}

/// What was stored so far.
#[derive(Default)]
struct Stored {
    paths: BTreeSet<String>,
    bytes: u64,
    files: u64,
}

/// Where the plugin's bytes go.
struct Sink {
    admission: Admission,
    session: BackupSession,
    identity: Identity,
    parent: Option<Backup>,
    stored: Mutex<Stored>,
    found: Mutex<Found>,
    /// No backup after that, whatever the plugin says.
    failed: Arc<FirstFailure>,
}

impl Sink {
    fn new(session: BackupSession, identity: Identity, parent: Option<&Backup>) -> Self {
        Self {
            admission: Admission::default(),
            session,
            identity,
            parent: parent.cloned(),
            stored: Mutex::default(),
            found: Mutex::default(),
            failed: Arc::default(),
        }
    }

    /// What was wrong with a file is so still, when it was not read again.
    fn found_before(&self, path: &RelativePath) {
        let Some(parent) = &self.parent else { return };
        let named = parent.manifest.findings.iter().filter(|finding| finding.path == path.as_str());
        let named: Vec<_> = named.cloned().collect();
        if !named.is_empty() {
            self.found(Found { named, more: 0 });
        }
    }

    fn note(&self, path: &RelativePath, bytes: Option<u64>) {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        stored.paths.insert(path.as_str().to_owned());
        if let Some(bytes) = bytes {
            stored.files += 1;
            stored.bytes += bytes;
        }
    }
}

#[async_trait]
impl BackupSink for Sink {
    async fn identify(&self, identity: &str) -> Result<(), EngineError> {
        self.identity.tell(identity).await.map_err(|error| self.failed.log(error))
    }

    async fn put_file(&self, path: RelativePath, attributes: Attributes, body: Body) -> Result<u64, EngineError> {
        self.admission.admit(&path)?;
        let stored = self
            .session
            .put_file(&path, stored_as(attributes), body)
            .await
            .map_err(|error| self.failed.whatever(error))?;
        self.note(&path, Some(stored.bytes));
        Ok(stored.bytes)
    }

    async fn put_local(
        &self,
        path: RelativePath,
        attributes: Attributes,
        file: File,
        witness: Option<Arc<dyn Witness>>,
    ) -> Result<u64, EngineError> {
        self.admission.admit(&path)?;
        let looking = witness.map(|witness| Arc::new(Looking(witness)) as Arc<dyn backstay_repo::Witness>);
        let stored = self.session.put_local(&path, stored_as(attributes), file, looking).await;
        let stored = stored.map_err(|error| self.failed.whatever(error))?;
        if stored.unread {
            self.found_before(&path);
        }
        self.note(&path, Some(stored.bytes));
        Ok(stored.bytes)
    }

    async fn put_patched(
        &self,
        path: RelativePath,
        attributes: Attributes,
        patch: Patch,
        body: Body,
    ) -> Result<Patched, EngineError> {
        self.admission.admit(&path)?;
        let Patch { bytes, inherited, ranges, parent_crc32c } = patch;
        let patch = backstay_repo::Patch { bytes, inherited, ranges, parent_crc32c };
        let stored = self.session.put_patched(&path, stored_as(attributes), patch, body).await;
        let stored = stored.map_err(|error| self.failed.whatever(error))?;
        self.note(&path, Some(stored.bytes));
        Ok(Patched { bytes: stored.bytes, crc32c: stored.crc32c })
    }

    fn found(&self, found: Found) {
        for finding in &found.named {
            tracing::warn!("{finding}; it is in the backup as it was read");
        }
        if found.more > 0 {
            tracing::warn!("{} more places look wrong", found.more);
        }
        let mut all = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        all.named.extend(found.named);
        all.more += found.more;
    }

    async fn put_node(&self, node: Node) -> Result<(), EngineError> {
        self.admission.admit(&node.path)?;
        let put = match &node.kind {
            NodeKind::Directory => self.session.put_directory(&node.path, stored_as(node.attributes)).await,
            NodeKind::Symlink(target) => self.session.put_symlink(&node.path, target, node.attributes.modified).await,
            NodeKind::File(_) => {
                return Err(EngineError::new(EngineErrorKind::Internal, "a file needs bytes"));
            }
        };
        put.map_err(|error| self.failed.whatever(error))?;
        self.note(&node.path, None);
        Ok(())
    }

    fn parent_notes(&self) -> Option<String> {
        self.parent.as_ref().map(|parent| parent.manifest.notes.clone())
    }

    fn parent_read(&self, path: RelativePath) -> Body {
        let (session, failed) = (self.session.clone(), self.failed.clone());
        let body = async move { session.parent_read(&path).await.map_err(io::Error::other) };
        stream::once(body).try_flatten().map_err(move |error| failed.body(error)).boxed()
    }
}

fn stored_as(attributes: Attributes) -> FileAttributes {
    FileAttributes { mode: attributes.mode, modified: attributes.modified }
}

/// A plugin's look at a file, as the repository asks for it.
struct Looking(Arc<dyn Witness>);

impl backstay_repo::Witness for Looking {
    fn look(&self, offset: u64, bytes: &[u8], last: bool) -> Result<bool, RepoError> {
        self.0.look(offset, bytes, last).map_err(|error| RepoError::new(RepoErrorKind::Source, error.message))
    }
}
