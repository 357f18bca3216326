//! Between the generated records and the plain ones.

use super::{backup_set, exported, grants, log_archive, types};
use crate::types as plain;

macro_rules! same_cases {
    ($from:ty => $to:ty { $($case:ident),* $(,)? }) => {
        impl From<$from> for $to {
            fn from(value: $from) -> Self {
                match value {
                    $(<$from>::$case => <$to>::$case,)*
                }
            }
        }
    };
}

same_cases!(types::ErrorKind => plain::ErrorKind {
    BadConfig, Denied, Unreachable, Unsupported, Corrupt, Gap, Conflict, Cancelled, Internal,
});
same_cases!(plain::ErrorKind => types::ErrorKind {
    BadConfig, Denied, Unreachable, Unsupported, Corrupt, Gap, Conflict, Cancelled, Internal,
});
same_cases!(plain::Level => grants::Level { Trace, Debug, Info, Warn, Error });
same_cases!(plain::TlsVerification => grants::TlsVerification { None, Authority, Full });
same_cases!(plain::GrantKind => exported::GrantKind {
    Endpoint, Credential, DirectoryRead, DirectoryWrite, Tool,
});
same_cases!(plain::ReplayKind => exported::ReplayKind { None, AtStart });
same_cases!(plain::RuleAction => backup_set::RuleAction { Exclude, Empty, Last, Inspect });

impl From<plain::Patch> for backup_set::Patch {
    fn from(patch: plain::Patch) -> Self {
        let range = |range: std::ops::Range<u64>| backup_set::Range {
            offset: range.start,
            bytes: range.end.saturating_sub(range.start),
        };
        Self {
            bytes: patch.bytes,
            inherited: patch.inherited,
            ranges: patch.ranges.into_iter().map(range).collect(),
            parent_crc32c: patch.parent_crc32c,
        }
    }
}

impl From<types::Error> for plain::Error {
    fn from(error: types::Error) -> Self {
        Self { kind: error.kind.into(), message: error.message, hint: error.hint }
    }
}

impl From<plain::Error> for types::Error {
    fn from(error: plain::Error) -> Self {
        Self { kind: error.kind.into(), message: error.message, hint: error.hint }
    }
}

impl From<types::Position> for plain::Position {
    fn from(position: types::Position) -> Self {
        Self { epoch: position.epoch, offset: position.offset, label: position.label }
    }
}

impl From<plain::Position> for types::Position {
    fn from(position: plain::Position) -> Self {
        Self { epoch: position.epoch, offset: position.offset, label: position.label }
    }
}

impl From<plain::FileAttributes> for types::FileAttributes {
    fn from(attributes: plain::FileAttributes) -> Self {
        Self { mode: attributes.mode, modified: attributes.modified }
    }
}

impl From<types::Node> for plain::Node {
    fn from(node: types::Node) -> Self {
        Self {
            path: node.path,
            kind: match node.kind {
                types::NodeKind::File(bytes) => plain::NodeKind::File(bytes),
                types::NodeKind::Directory => plain::NodeKind::Directory,
                types::NodeKind::Symlink(target) => plain::NodeKind::Symlink(target),
            },
            attributes: plain::FileAttributes { mode: node.attributes.mode, modified: node.attributes.modified },
        }
    }
}

impl From<plain::Node> for types::Node {
    fn from(node: plain::Node) -> Self {
        Self {
            path: node.path,
            kind: match node.kind {
                plain::NodeKind::File(bytes) => types::NodeKind::File(bytes),
                plain::NodeKind::Directory => types::NodeKind::Directory,
                plain::NodeKind::Symlink(target) => types::NodeKind::Symlink(target),
            },
            attributes: node.attributes.into(),
        }
    }
}

impl From<log_archive::Segment> for plain::Segment {
    fn from(segment: log_archive::Segment) -> Self {
        Self {
            start: segment.start.into(),
            end: segment.end.into(),
            follows: segment.follows.map(Into::into),
            first_commit: segment.first_commit,
            last_commit: segment.last_commit,
            file: segment.file,
            file_offset: segment.file_offset,
        }
    }
}

impl From<plain::Segment> for log_archive::Segment {
    fn from(segment: plain::Segment) -> Self {
        Self {
            start: segment.start.into(),
            end: segment.end.into(),
            follows: segment.follows.map(Into::into),
            first_commit: segment.first_commit,
            last_commit: segment.last_commit,
            file: segment.file,
            file_offset: segment.file_offset,
        }
    }
}

impl From<&plain::Rule> for backup_set::Rule {
    fn from(rule: &plain::Rule) -> Self {
        Self { pattern: rule.pattern.clone(), action: rule.action.into() }
    }
}

impl From<plain::Volume> for exported::Volume {
    fn from(volume: plain::Volume) -> Self {
        Self { name: volume.name, title: volume.title, location: volume.location }
    }
}

impl From<exported::Volume> for plain::Volume {
    fn from(volume: exported::Volume) -> Self {
        Self { name: volume.name, title: volume.title, location: volume.location }
    }
}

impl From<plain::Description> for exported::Description {
    fn from(description: plain::Description) -> Self {
        Self {
            name: description.name,
            version: description.version,
            summary: description.summary,
            methods: description
                .methods
                .into_iter()
                .map(|method| exported::Method {
                    name: method.name,
                    summary: method.summary,
                    grants: method.grants,
                    builds_on: method.builds_on,
                })
                .collect(),
            replay: description.replay.into(),
            grants: description
                .grants
                .into_iter()
                .map(|grant| exported::GrantRequest {
                    kind: grant.kind.into(),
                    name: grant.name,
                    purpose: grant.purpose,
                    required: grant.required,
                })
                .collect(),
            config_schema: description.config_schema,
        }
    }
}

impl From<plain::Facts> for exported::Facts {
    fn from(facts: plain::Facts) -> Self {
        Self {
            identity: facts.identity,
            version: facts.version,
            role: facts.role,
            tail: facts.tail.map(Into::into),
            warnings: facts.warnings,
        }
    }
}

impl From<plain::BackupReport> for exported::BackupReport {
    fn from(report: plain::BackupReport) -> Self {
        Self {
            start: report.start.into(),
            end: report.end.into(),
            log_from: report.log_from.into(),
            consistent_at: report.consistent_at,
            version: report.version,
            main: report.main,
            volumes: report.volumes.into_iter().map(Into::into).collect(),
            notes: report.notes,
        }
    }
}

impl From<exported::RecoveryTarget> for plain::RecoveryTarget {
    fn from(target: exported::RecoveryTarget) -> Self {
        match target {
            exported::RecoveryTarget::BackupEnd => Self::BackupEnd,
            exported::RecoveryTarget::Latest => Self::Latest,
            exported::RecoveryTarget::Time(time) => Self::Time(time),
            exported::RecoveryTarget::Position(label) => Self::Position(label),
            exported::RecoveryTarget::Transaction(id) => Self::Transaction(id),
            exported::RecoveryTarget::Name(name) => Self::Name(name),
        }
    }
}

impl From<exported::RestoreJob> for plain::RestoreJob {
    fn from(job: exported::RestoreJob) -> Self {
        Self {
            target: job.target.into(),
            inclusive: job.inclusive,
            epoch: job.epoch,
            volumes: job.volumes.into_iter().map(Into::into).collect(),
            delta: job.delta,
        }
    }
}
