//! Bounds of the pipeline in one table, each with its reason.

/// How deep below the folder of a restore links to its volumes are looked for: databases keep them near the top
/// (PostgreSQL's `pg_tblspc/16385` is two deep), and a folder with a million files is not to be walked for them.
pub(crate) const LINK_DEPTH_MAX: usize = 3;

/// Files, folders and links of one backup. Each is kept in memory until the commit, some 100 bytes; PostgreSQL has three
/// files for a table, and clusters with a million tables exist.
pub(crate) const NODES_MAX: u64 = 10_000_000;

/// Buffers of a job from this size on go back to the kernel when they are dropped. Left to itself, glibc learns from the first
/// freed buffer of 8 MiB to keep all that are smaller, in a heap for each thread: a restore then took three times its memory,
/// and more the longer it ran.
pub(crate) const MMAP_THRESHOLD_BYTES: usize = 1 << 20;
