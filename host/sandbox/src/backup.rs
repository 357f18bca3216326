//! The host's half of `interface backup-set`.
#![allow(unreachable_pub)] // the generated bindings name the handle types

use crate::{
    bindings::backstay::engine::{
        backup_set::{
            Host, HostBackupWriter, HostBackupWriterWithStore, Patch as WitPatch, Range as WitRange, Rule, RuleAction,
            StoredFile, TreeSummary,
        },
        types::{Error, FileAttributes, Node as WitNode},
    },
    checksum, convert,
    directory::Directory,
    error::{EngineError, EngineErrorKind},
    identified::Identified,
    inspection::{Findings, Inspection, Inspectors},
    limits,
    ports::{BackupSink, Node, NodeKind, Patch, Reporter, Witness},
    pump::{self, Companion},
    services::{answer, busy, incoming, resource},
    state::{HasState, State},
};
use backstay_core::RelativePath;
use futures::{StreamExt, TryStreamExt, stream};
use globset::{GlobBuilder, GlobMatcher};
use std::sync::Arc;
use wasmtime::{
    Result,
    component::{Access, Accessor, Resource, StreamReader},
};

type Answer<T> = Result<std::result::Result<T, Error>>;

/// The backup being written; clones share it.
#[derive(Clone)]
pub struct BackupWriter {
    sink: Arc<dyn BackupSink>,
    identified: Identified,
    inspectors: Arc<Inspectors>,
}

/// A folder being stored.
struct Tree {
    below: RelativePath,
    source: Directory,
    rules: Rules,
    context: Arc<str>,
    findings: Arc<Findings>,
}

impl BackupWriter {
    pub(crate) fn new(sink: Arc<dyn BackupSink>, inspectors: Inspectors) -> Self {
        Self { sink, identified: Identified::default(), inspectors: Arc::new(inspectors) }
    }

    async fn put_tree(&self, tree: Tree, reporter: &dyn Reporter) -> Result<TreeSummary, EngineError> {
        self.identified.required()?;
        let Tree { source, rules, .. } = &tree;
        let mut now = Vec::new();
        let mut last = Vec::new();
        let mut skipped: Vec<RelativePath> = Vec::new();
        for node in source.entries("").await? {
            if skipped.iter().any(|parent| is_below(&node.path, parent)) {
                continue;
            }
            match rules.action(&node.path) {
                Some(RuleAction::Exclude) => skipped.push(node.path),
                Some(RuleAction::Empty) => {
                    skipped.push(node.path.clone());
                    now.push((node, false));
                }
                Some(RuleAction::Last) => last.push((node, false)),
                Some(RuleAction::Inspect) => now.push((node, true)),
                None => now.push((node, false)),
            }
        }
        let total: u64 = now.iter().chain(&last).map(|(node, _)| file_bytes(node)).sum();
        let mut summary = TreeSummary { files: 0, bytes: 0 };
        for nodes in [now, last] {
            let mut putting = stream::iter(nodes)
                .map(|(node, inspected)| self.put_entry(&tree, node, inspected))
                .buffer_unordered(limits::TREE_FILES_AT_ONCE);
            while let Some(stored) = putting.try_next().await? {
                let Some(bytes) = stored else { continue };
                summary.files += 1;
                summary.bytes += bytes;
                // Files that grew or went since the walk make the total wrong.
                reporter.progress("backup", summary.bytes, Some(total.max(summary.bytes)));
            }
        }
        self.sink.found(tree.findings.take());
        Ok(summary)
    }

    /// Answers a file's bytes; nothing for what is no file, and for a file that has gone since the walk:
    /// databases delete files all the time.
    async fn put_entry(&self, tree: &Tree, node: Node, inspected: bool) -> Result<Option<u64>, EngineError> {
        let path = tree
            .below
            .join(&node.path)
            .map_err(|error| EngineError::new(EngineErrorKind::Internal, error.to_string()))?;
        match node.kind {
            NodeKind::File(_) => {
                let Some(file) = tree.source.open(&node.path).await? else { return Ok(None) };
                let witness = inspected.then(|| {
                    let inspection = Inspection {
                        inspectors: Arc::clone(&self.inspectors),
                        path: node.path,
                        stored: path.clone(),
                        context: Arc::clone(&tree.context),
                        findings: Arc::clone(&tree.findings),
                    };
                    Arc::new(inspection) as Arc<dyn Witness>
                });
                Ok(Some(self.sink.put_local(path, node.attributes, file, witness).await?))
            }
            _ => self.sink.put_node(Node { path, ..node }).await.map(|()| None),
        }
    }
}

fn file_bytes(node: &Node) -> u64 {
    match node.kind {
        NodeKind::File(bytes) => bytes,
        NodeKind::Directory | NodeKind::Symlink(_) => 0,
    }
}

impl TryFrom<WitPatch> for Patch {
    type Error = EngineError;

    fn try_from(patch: WitPatch) -> Result<Self, EngineError> {
        let WitPatch { bytes, inherited, ranges, parent_crc32c } = patch;
        if ranges.len() > limits::PATCH_RANGES_MAX {
            return Err(EngineError::new(EngineErrorKind::Internal, "the plugin's patch has too many ranges"));
        }
        // What overflows lies outside the file, which the repository refuses.
        let range = |range: WitRange| range.offset..range.offset.saturating_add(range.bytes);
        Ok(Self { bytes, inherited, ranges: ranges.into_iter().map(range).collect(), parent_crc32c })
    }
}

fn is_below(path: &RelativePath, parent: &RelativePath) -> bool {
    path.as_str().strip_prefix(parent.as_str()).is_some_and(|rest| rest.starts_with('/'))
}

struct Rules(Vec<(GlobMatcher, RuleAction)>);

impl Rules {
    fn compile(rules: Vec<Rule>) -> Result<Self, EngineError> {
        if rules.len() > limits::LIST_ITEMS_MAX {
            return Err(EngineError::new(EngineErrorKind::Internal, "the plugin gave too many rules"));
        }
        let compiled = rules.into_iter().map(|rule| {
            let glob = GlobBuilder::new(&rule.pattern).literal_separator(true).build().map_err(|error| {
                EngineError::new(EngineErrorKind::Internal, format!("the plugin's rule is no pattern: {error}"))
            })?;
            Ok((glob.compile_matcher(), rule.action))
        });
        compiled.collect::<Result<_, _>>().map(Self)
    }

    fn action(&self, path: &RelativePath) -> Option<RuleAction> {
        self.0.iter().find(|(glob, _)| glob.is_match(path.as_str())).map(|(_, action)| *action)
    }
}

impl Host for State {}

impl HostBackupWriter for State {
    fn parent_notes(&mut self, this: Resource<BackupWriter>) -> Result<Option<String>> {
        Ok(self.table.get(&this)?.sink.parent_notes())
    }

    fn drop(&mut self, handle: Resource<BackupWriter>) -> Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl<T: Send + 'static> HostBackupWriterWithStore<T> for HasState {
    async fn identify(accessor: &Accessor<T, Self>, this: Resource<BackupWriter>, identity: String) -> Answer<()> {
        let writer = resource(accessor, &this)?;
        answer(writer.identified.tell(&identity, async |identity| writer.sink.identify(identity).await).await)
    }

    async fn put_file(
        accessor: &Accessor<T, Self>,
        this: Resource<BackupWriter>,
        path: String,
        attributes: FileAttributes,
        body: StreamReader<u8>,
    ) -> Answer<StoredFile> {
        let writer = resource(accessor, &this)?;
        let body = incoming(accessor, body)?;
        let checked = (|| {
            writer.identified.required()?;
            Ok((convert::path(path)?, attributes.try_into()?))
        })();
        answer(match checked {
            Ok((path, attributes)) => {
                let (body, sum) = checksum::summed(body);
                let stored = writer.sink.put_file(path, attributes, body).await;
                stored.map(|bytes| StoredFile { bytes, crc32c: sum.get() })
            }
            Err(error) => Err(error),
        })
    }

    async fn put_node(accessor: &Accessor<T, Self>, this: Resource<BackupWriter>, node: WitNode) -> Answer<()> {
        let writer = resource(accessor, &this)?;
        let checked = (|| {
            writer.identified.required()?;
            let node = Node::try_from(node)?;
            if matches!(node.kind, NodeKind::File(_)) {
                return Err(EngineError::new(EngineErrorKind::Internal, "a file needs bytes: use put-file"));
            }
            Ok(node)
        })();
        answer(match checked {
            Ok(node) => writer.sink.put_node(node).await,
            Err(error) => Err(error),
        })
    }

    async fn put_tree(
        accessor: &Accessor<T, Self>,
        this: Resource<BackupWriter>,
        path: String,
        source: Resource<Directory>,
        rules: Vec<Rule>,
        context: String,
    ) -> Answer<TreeSummary> {
        let writer = resource(accessor, &this)?;
        let source = resource(accessor, &source)?;
        let reporter = accessor.with(|mut access| access.get().context.reporter.clone());
        let _busy = busy(accessor);
        let tree = (|| {
            if context.len() > limits::CONTEXT_BYTES_MAX {
                return Err(EngineError::new(EngineErrorKind::Internal, "the plugin's context is too long"));
            }
            let (rules, findings) = (Rules::compile(rules)?, Arc::default());
            Ok(Tree { below: convert::path(path)?, source, rules, context: context.into(), findings })
        })();
        answer(match tree {
            Ok(tree) => writer.put_tree(tree, &*reporter).await,
            Err(error) => Err(error),
        })
    }

    async fn put_patched(
        accessor: &Accessor<T, Self>,
        this: Resource<BackupWriter>,
        path: String,
        attributes: FileAttributes,
        patch: WitPatch,
        body: StreamReader<u8>,
    ) -> Answer<StoredFile> {
        let writer = resource(accessor, &this)?;
        let body = incoming(accessor, body)?;
        let checked = (|| {
            writer.identified.required()?;
            Ok((convert::path(path)?, attributes.try_into()?, Patch::try_from(patch)?))
        })();
        answer(match checked {
            Ok((path, attributes, patch)) => {
                let stored = writer.sink.put_patched(path, attributes, patch, body).await;
                stored.map(|patched| StoredFile { bytes: patched.bytes, crc32c: patched.crc32c })
            }
            Err(error) => Err(error),
        })
    }

    fn parent_read(
        mut access: Access<'_, T, Self>,
        this: Resource<BackupWriter>,
        path: String,
    ) -> Result<(StreamReader<u8>, Companion<u64>)> {
        let state = access.get();
        let sink = &state.table.get(&this)?.sink;
        let body = match convert::path(path) {
            Ok(path) => sink.parent_read(path),
            Err(error) => pump::failed(error),
        };
        let body = state.activity.watch(body);
        pump::counted(&mut access, body)
    }
}
