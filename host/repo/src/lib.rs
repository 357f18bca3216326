//! Restic-format repository and log chain on an object store.
