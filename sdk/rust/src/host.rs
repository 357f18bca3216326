//! What the operator granted, and the host's small services.

use crate::{Connection, Credential, Directory, Level, Process, Result, Timestamp, platform};

/// The target's settings as a JSON object, already valid against the plugin's schema.
pub fn config() -> String {
    platform::config()
}

/// The granted credential of that name.
pub fn login(name: &str) -> Result<Credential> {
    platform::login(name)
}

/// Dials a granted endpoint.
pub async fn connect(endpoint: &str) -> Result<Connection> {
    platform::connect(endpoint).await.map(Connection)
}

/// The granted folder of that name, or a volume of the restore job.
pub fn open_directory(name: &str) -> Result<Directory> {
    platform::open_directory(name).map(Directory)
}

/// Starts a granted tool.
pub async fn run(tool: &str, arguments: &[String]) -> Result<Process> {
    platform::run(tool, arguments).await.map(Process)
}

/// A line for the operator's log.
pub fn log(level: Level, message: &str) {
    platform::log(level, message);
}

/// How far the job is. `phase` is a short noun; `total` is nothing while unknown.
pub fn progress(phase: &str, done: u64, total: Option<u64>) {
    platform::progress(phase, done, total);
}

/// The host's clock.
pub fn now() -> Timestamp {
    platform::now()
}

/// Waits that many microseconds, at most an hour.
pub async fn sleep(microseconds: u64) {
    platform::sleep(microseconds).await;
}

/// Bytes fit for keys and nonces; at most 64 KiB.
pub fn random(length: u32) -> Vec<u8> {
    platform::random(length)
}

/// Answers once the host wants the job to wind down.
pub async fn stop_requested() {
    platform::stop_requested().await;
}
