//! One job, from its first call to its answer.

use crate::{
    archive, backup,
    confinement::Opened,
    inspect,
    job::{Failure, FailureKind, Job, JobResult, JobSpec},
    reporter::JobReporter,
    restore,
};
use backstay_sandbox::{Description, JobContext, Plugin};
use std::sync::Arc;
use tokio::sync::watch;

/// Everything a job works with.
pub(crate) struct Work {
    pub(crate) spec: JobSpec,
    pub(crate) plugin: Plugin,
    pub(crate) opened: Opened,
    pub(crate) reporter: Arc<JobReporter>,
    pub(crate) stop: watch::Receiver<bool>,
}

/// Asks a plugin who it is; it gets nothing for that.
pub(crate) async fn describe(plugin: &Plugin, reporter: Arc<JobReporter>) -> Result<Description, Failure> {
    let (_never, stop) = watch::channel(false);
    let context = JobContext {
        config: "{}".to_owned(),
        grants: Default::default(),
        directories: Default::default(),
        reporter,
        stop,
        limits: Default::default(),
        target: String::new(),
        job: "describe",
    };
    Ok(plugin.describe(context).await?)
}

/// Does the job. Jobs other than following a log are simply given up when they are asked to
/// stop: nothing half-written counts.
pub(crate) async fn perform(
    spec: JobSpec,
    plugin: Plugin,
    opened: Opened,
    reporter: Arc<JobReporter>,
    stop: watch::Receiver<bool>,
) -> Result<JobResult, Failure> {
    let mut stopped = stop.clone();
    let work = Work { spec, plugin, opened, reporter, stop };
    let drains = matches!(work.spec.job, Job::Archive { .. });
    let job = async {
        match work.spec.job.clone() {
            Job::Inspect => inspect::run(&work).await.map(JobResult::Inspect),
            Job::Backup { method, reread } => backup::run(&work, method, reread).await.map(JobResult::Backup),
            Job::Archive { accept_gap } => archive::run(&work, accept_gap).await.map(JobResult::Archive),
            Job::Restore(restore) => restore::run(&work, &restore).await.map(JobResult::Restore),
        }
    };
    tokio::select! {
        result = job => result,
        asked = stopped.wait_for(|stop| *stop), if !drains => {
            drop(asked);
            Err(Failure::new(FailureKind::Cancelled, "stopped as asked; nothing half-written counts"))
        }
    }
}

impl Work {
    /// What the plugin gets for one call.
    pub(crate) fn context(&self, job: &'static str) -> JobContext {
        JobContext {
            config: self.spec.target.settings.to_string(),
            grants: self.spec.target.grants.clone(),
            directories: self.opened.directories.clone(),
            reporter: self.reporter.clone(),
            stop: self.stop.clone(),
            limits: self.spec.target.limits,
            target: self.spec.target.name.to_string(),
            job,
        }
    }
}
