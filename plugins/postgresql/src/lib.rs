//! Backstay's PostgreSQL engine plugin.
