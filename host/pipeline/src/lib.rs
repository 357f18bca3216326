//! Backup, archive and restore: repository and sandbox joined.
