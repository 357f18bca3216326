//! Between the generated records and the host's own types. What comes from a plugin is
//! checked on the way in.

use crate::{
    bindings::backstay::engine::{log_archive, types},
    error::{EngineError, EngineErrorKind},
    limits::{IDENTITY_BYTES_MAX, LABEL_BYTES_MAX, TEXT_BYTES_MAX},
    log_gate::printable,
    ports::{Attributes, Node, NodeKind},
};
use backstay_core::{Position, RelativePath, Segment, Timestamp};

/// Bits of a mode that are permissions.
const MODE_BITS: u32 = 0o7777;

macro_rules! same_cases {
    ($from:ty, $to:ty { $($case:ident),* $(,)? }) => {
        impl From<$from> for $to {
            fn from(value: $from) -> Self {
                match value {
                    $(<$from>::$case => <$to>::$case,)*
                }
            }
        }
        impl From<$to> for $from {
            fn from(value: $to) -> Self {
                match value {
                    $(<$to>::$case => <$from>::$case,)*
                }
            }
        }
    };
}

same_cases!(
    types::ErrorKind,
    EngineErrorKind { BadConfig, Denied, Unreachable, Unsupported, Corrupt, Gap, Conflict, Cancelled, Internal }
);

impl From<EngineError> for types::Error {
    fn from(error: EngineError) -> Self {
        Self { kind: error.kind.into(), message: error.message, hint: error.hint }
    }
}

impl From<types::Error> for EngineError {
    fn from(error: types::Error) -> Self {
        let line = |text: &str| printable(text, TEXT_BYTES_MAX);
        Self { kind: error.kind.into(), message: line(&error.message), hint: error.hint.as_deref().map(line) }
    }
}

impl From<Position> for types::Position {
    fn from(position: Position) -> Self {
        Self { epoch: position.epoch, offset: position.offset, label: position.label }
    }
}

impl From<types::Position> for Position {
    fn from(position: types::Position) -> Self {
        Self { epoch: position.epoch, offset: position.offset, label: printable(&position.label, LABEL_BYTES_MAX) }
    }
}

impl TryFrom<types::FileAttributes> for Attributes {
    type Error = EngineError;

    fn try_from(attributes: types::FileAttributes) -> Result<Self, EngineError> {
        if attributes.mode & !MODE_BITS != 0 {
            return Err(EngineError::new(
                EngineErrorKind::Internal,
                format!("mode {:o} has bits that are no permissions", attributes.mode),
            ));
        }
        Ok(Self { mode: attributes.mode, modified: Timestamp::from_micros(attributes.modified) })
    }
}

impl From<Node> for types::Node {
    fn from(node: Node) -> Self {
        Self {
            path: node.path.into(),
            kind: match node.kind {
                NodeKind::File(bytes) => types::NodeKind::File(bytes),
                NodeKind::Directory => types::NodeKind::Directory,
                NodeKind::Symlink(target) => types::NodeKind::Symlink(target),
            },
            attributes: types::FileAttributes {
                mode: node.attributes.mode,
                modified: node.attributes.modified.as_micros(),
            },
        }
    }
}

impl TryFrom<types::Node> for Node {
    type Error = EngineError;

    fn try_from(node: types::Node) -> Result<Self, EngineError> {
        Ok(Self {
            path: path(node.path)?,
            kind: match node.kind {
                types::NodeKind::File(bytes) => NodeKind::File(bytes),
                types::NodeKind::Directory => NodeKind::Directory,
                types::NodeKind::Symlink(target) => link_target(target)?,
            },
            attributes: node.attributes.try_into()?,
        })
    }
}

/// Longest target of a link: what Linux takes.
const LINK_BYTES_MAX: usize = 4095;

fn link_target(target: String) -> Result<NodeKind, EngineError> {
    if target.is_empty() || target.len() > LINK_BYTES_MAX || target.contains('\0') {
        return Err(EngineError::new(
            EngineErrorKind::Internal,
            format!("the target of a link is empty, longer than {LINK_BYTES_MAX} bytes, or holds a NUL"),
        ));
    }
    Ok(NodeKind::Symlink(target))
}

/// Checks the name of a database. It is refused and never mended: two databases whose
/// names were cut or cleaned could become one.
pub(crate) fn identity(identity: &str) -> Result<(), EngineError> {
    if identity.is_empty() || identity.len() > IDENTITY_BYTES_MAX || printable(identity, IDENTITY_BYTES_MAX) != identity
    {
        return Err(EngineError::new(
            EngineErrorKind::Internal,
            format!("the database's identity is empty, longer than {IDENTITY_BYTES_MAX} bytes, or not printable"),
        ));
    }
    Ok(())
}

/// A path from a plugin.
pub(crate) fn path(path: String) -> Result<RelativePath, EngineError> {
    RelativePath::new(path).map_err(|error| EngineError::new(EngineErrorKind::Internal, error.to_string()))
}

impl From<Segment> for log_archive::Segment {
    fn from(segment: Segment) -> Self {
        Self {
            start: segment.start.into(),
            end: segment.end.into(),
            follows: segment.follows.map(Into::into),
            first_commit: segment.first_commit.map(Timestamp::as_micros),
            last_commit: segment.last_commit.map(Timestamp::as_micros),
            file: segment.file,
            file_offset: segment.file_offset,
        }
    }
}

impl TryFrom<log_archive::Segment> for Segment {
    type Error = EngineError;

    fn try_from(segment: log_archive::Segment) -> Result<Self, EngineError> {
        let segment = Self {
            start: segment.start.into(),
            end: segment.end.into(),
            follows: segment.follows.map(Into::into),
            first_commit: segment.first_commit.map(Timestamp::from_micros),
            last_commit: segment.last_commit.map(Timestamp::from_micros),
            file: segment.file,
            file_offset: segment.file_offset,
        };
        segment.validate().map_err(|error| EngineError::new(EngineErrorKind::Internal, error.to_string()))?;
        Ok(segment)
    }
}
