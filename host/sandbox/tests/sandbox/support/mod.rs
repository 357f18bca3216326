//! What every test stands on.
//!
//! | module | holds |
//! |---|---|
//! | [`plugins`] | the test plugins: built, compiled, loaded |
//! | [`child`] | roles that this test binary plays in a process of its own |
//! | [`job`] | what a job gives to a plugin |
//! | [`stores`] | a backup and a log in memory |
//! | [`heard`] | what a plugin said: log lines and progress |

pub(crate) mod child;
pub(crate) mod heard;
pub(crate) mod job;
pub(crate) mod plugins;
pub(crate) mod stores;
