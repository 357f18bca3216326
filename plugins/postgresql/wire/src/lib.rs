//! PostgreSQL's wire protocol, replication, base backup and WAL formats, without I/O.
