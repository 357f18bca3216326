//! Stock `restic`, the judge of every repository that a test makes.

use crate::{
    account, limits,
    s3::Credentials,
    scratch::{run, wait_for},
};
use anyhow::{Result, bail, ensure};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A repository as restic sees it.
#[derive(Clone, Debug)]
pub struct Restic {
    repository: String,
    password_file: PathBuf,
    credentials: Option<Credentials>,
}

impl Restic {
    /// `repository` in restic's words: a folder, or `s3:http://…/bucket/prefix`.
    pub fn new(repository: String, password_file: &Path, credentials: Option<Credentials>) -> Self {
        Self { repository, password_file: password_file.to_owned(), credentials }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = account::command("restic");
        command.arg("-r").arg(&self.repository).arg("--no-cache");
        command.env("RESTIC_PASSWORD_FILE", &self.password_file).env_remove("RESTIC_PASSWORD");
        if let Some(credentials) = &self.credentials {
            command.envs(credentials.variables()).args(["-o", "s3.bucket-lookup=path"]);
        }
        command.args(arguments);
        command
    }

    /// `restic check`, which takes an exclusive lock as it does for every user. Locks of dead processes are
    /// removed first, the way restic tells its users to.
    pub fn check(&self) -> Result<()> {
        run(&mut self.command(&["unlock"]))?;
        self.checked(&["check"])
    }

    /// `restic check --read-data`: every byte.
    pub fn check_read_data(&self) -> Result<()> {
        run(&mut self.command(&["unlock"]))?;
        self.checked(&["check", "--read-data"])
    }

    fn checked(&self, arguments: &[&str]) -> Result<()> {
        let output = run(&mut self.command(arguments))?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(text.contains("no errors were found"), "restic {arguments:?} said:\n{text}");
        Ok(())
    }

    /// Any command; answers what it says and whether it ended well.
    pub fn attempt(&self, arguments: &[&str]) -> Result<(bool, String)> {
        let output = self.command(arguments).output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
    }

    /// As [`Restic::attempt`], again and again while somebody else holds a lock.
    pub fn when_unlocked(&self, arguments: &[&str]) -> Result<String> {
        wait_for("the repository to be unlocked", limits::COMMAND, || {
            let (done, text) = self.attempt(arguments)?;
            ensure!(done || text.contains("already locked"), "restic {arguments:?} failed:\n{text}");
            Ok(done.then_some(text))
        })
    }

    /// The ids of all snapshots.
    pub fn snapshots(&self) -> Result<Vec<String>> {
        let output = run(&mut self.command(&["snapshots", "--json", "--no-lock"]))?;
        let value: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let Some(list) = value.as_array() else { bail!("restic answered no list of snapshots: {value}") };
        Ok(list.iter().filter_map(|one| Some(one["id"].as_str()?.to_owned())).collect())
    }

    /// `restic restore` of a snapshot, with verification.
    pub fn restore(&self, snapshot: &str, into: &Path) -> Result<()> {
        run(self.command(&["restore", snapshot, "--verify", "--target"]).arg(into))?;
        Ok(())
    }
}
