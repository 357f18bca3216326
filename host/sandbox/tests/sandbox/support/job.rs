//! What a job gives to a plugin.

use super::heard::Progress;
use backstay_sandbox::{DirectoryInner, EndpointGrant, Grants, JobContext, Limits};
use cap_std::{ambient_authority, fs::Dir};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::watch;

pub(crate) struct Job {
    config: Value,
    grants: Grants,
    directories: BTreeMap<String, Arc<DirectoryInner>>,
    limits: Limits,
    stop: watch::Sender<bool>,
    pub(crate) progress: Arc<Progress>,
}

impl Job {
    pub(crate) fn new(config: Value) -> Self {
        Self {
            config,
            grants: Grants::default(),
            directories: BTreeMap::new(),
            limits: Limits { memory_mib: 64, stall_seconds: 1, ..Limits::default() },
            stop: watch::Sender::new(false),
            progress: Arc::default(),
        }
    }

    /// A job of the hostile plugin.
    pub(crate) fn crime(behaviour: &str) -> Self {
        Self::new(json!({ "behaviour": behaviour }))
    }

    /// The same with `path`.
    pub(crate) fn at(mut self, path: &str) -> Self {
        self.config["path"] = path.into();
        self
    }

    /// The same with the granted program `tool`, run with these arguments.
    pub(crate) fn tool(mut self, program: &Path, arguments: &[&str]) -> Self {
        self.grants.tools.insert("tool".to_owned(), program.to_owned());
        self.config["arguments"] = arguments.into();
        self
    }

    /// The same with standard input for the tool.
    pub(crate) fn input(mut self, text: &str) -> Self {
        self.config["input"] = text.into();
        self
    }

    pub(crate) fn folder(mut self, name: &str, path: &Path) -> Self {
        self.directories.insert(name.to_owned(), open(path, false));
        self
    }

    pub(crate) fn endpoint(mut self, name: &str, address: &str) -> Self {
        let grant = EndpointGrant {
            address: address.to_owned(),
            ca_file: None,
            server_name: None,
            client_cert_file: None,
            client_key_file: None,
        };
        self.grants.endpoints.insert(name.to_owned(), grant);
        self
    }

    /// The same with seconds until it is ended for idling, and for not ending when it was asked to.
    pub(crate) fn patience(mut self, idle_seconds: u32, drain_seconds: u32) -> Self {
        self.limits = Limits { idle_seconds, drain_seconds, ..self.limits };
        self
    }

    /// Ends the job when the sender says so.
    pub(crate) fn stop(&self) -> watch::Sender<bool> {
        self.stop.clone()
    }

    pub(crate) fn context(&self) -> JobContext {
        JobContext {
            config: self.config.to_string(),
            grants: self.grants.clone(),
            directories: self.directories.clone(),
            reporter: self.progress.clone(),
            stop: self.stop.subscribe(),
            limits: self.limits,
            target: "shop".to_owned(),
            job: "test",
        }
    }
}

/// A folder as a job opens it before it confines itself.
pub(crate) fn open(path: &Path, writable: bool) -> Arc<DirectoryInner> {
    with_volumes(path, writable, BTreeMap::new())
}

pub(crate) fn with_volumes(path: &Path, writable: bool, volumes: BTreeMap<String, PathBuf>) -> Arc<DirectoryInner> {
    let dir = Arc::new(Dir::open_ambient_dir(path, ambient_authority()).unwrap());
    Arc::new(DirectoryInner { dir, writable, location: path.to_owned(), volumes })
}
