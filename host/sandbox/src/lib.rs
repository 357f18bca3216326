//! Finds, verifies, compiles, grants, runs and limits engine plugins.
