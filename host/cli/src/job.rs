//! Jobs that run an engine plugin: each in a child process, told everything over a pipe.

use crate::{
    command::restore::show_plan,
    config::{Config, Grants, Repository, Target},
    context::Context,
    failure::{Failure, Result},
};
use backstay_pipeline::{Event, FailureKind, Job, JobResult, JobSpec, LogLevel, RepositorySpec, TargetSpec};
use backstay_sandbox as sandbox;

impl Context {
    /// Runs a job for a target to its end; progress, log and plans are shown meanwhile.
    pub(crate) fn job(&self, target: &str, job: Job) -> Result<JobResult> {
        let config = self.config()?;
        let target = config.target(target)?;
        let spec = self.spec(&config, target, job)?;
        let mut progress = self.progress();
        let result = self.block_on(async {
            let options = backstay_pipeline::RunOptions::default();
            let shown = |event| self.show(event, target, &mut progress);
            Ok(backstay_pipeline::run_job(spec, &options, shown).await?)
        });
        progress.finish();
        result
    }

    fn spec(&self, config: &Config, target: &Target, job: Job) -> Result<JobSpec> {
        let plugin = self.plugin_for(config, target)?;
        let repository = match job {
            Job::Inspect => None,
            _ => Some(config.repository(target.repository.as_str())?.spec()?),
        };
        let target = TargetSpec {
            name: target.name.clone(),
            engine: target.engine.to_string(),
            plugin,
            settings: target.settings.json.clone(),
            grants: target.grants.resolve(target.name.as_str())?,
        };
        Ok(JobSpec { job, target, repository, cache: self.cache()? })
    }

    fn show(&self, event: Event, target: &Target, progress: &mut crate::progress::Progress) {
        match event {
            Event::Progress { phase, done, total } => progress.update(&phase, done, total),
            Event::Log { level, source, message } => log(level, &source, target, &message),
            Event::Plan(plan) => show_plan(&plan, self.output()),
            // The answer and the failure are what `run_job` returns.
            Event::Done(_) | Event::Failed(_) => {}
        }
    }
}

/// Into this process's log, with what a reader needs to find the culprit.
fn log(level: LogLevel, source: &str, target: &Target, message: &str) {
    let (engine, target) = (target.engine.as_str(), target.name.as_str());
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(target: "plugin", source, plugin = engine, job_target = target, "{message}")
        };
    }
    match level {
        LogLevel::Trace => line!(trace),
        LogLevel::Debug => line!(debug),
        LogLevel::Info => line!(info),
        LogLevel::Warn => line!(warn),
        LogLevel::Error => line!(error),
    }
}

impl Repository {
    /// All that opens it; reads its secrets.
    pub(crate) fn spec(&self) -> Result<RepositorySpec> {
        let whose = format!("repository `{}`", self.name);
        Ok(RepositorySpec {
            name: self.name.to_string(),
            url: self.location.url(),
            options: self.location.options(&whose)?,
            password: self.read_password()?,
        })
    }
}

impl Grants {
    /// The grants as the sandbox takes them; reads the secrets.
    fn resolve(&self, target: &str) -> Result<sandbox::Grants> {
        let endpoints = self.endpoints.iter().map(|(name, endpoint)| {
            let grant = sandbox::EndpointGrant {
                address: endpoint.address.to_string(),
                ca_file: endpoint.ca_file.clone(),
                server_name: endpoint.server_name.clone(),
                client_cert_file: endpoint.client.as_ref().map(|client| client.certificates.clone()),
                client_key_file: endpoint.client.as_ref().map(|client| client.key.clone()),
            };
            (name.to_string(), grant)
        });
        let credentials = self.credentials.iter().map(|(name, credential)| {
            let whose = format!("the password of targets.{target}.grants.credentials.{name}");
            let password = match &credential.password {
                Some(source) => source.read(&whose)?,
                None => backstay_core::Secret::new(String::new()),
            };
            Ok((name.to_string(), sandbox::CredentialGrant { user: credential.user.clone(), password }))
        });
        // A backup reads; what a restore writes to is named on the command line.
        let directories = self.directories.iter().map(|(name, path)| {
            (name.to_string(), sandbox::DirectoryGrant { path: path.clone(), writable: false })
        });
        Ok(sandbox::Grants {
            endpoints: endpoints.collect(),
            credentials: credentials.collect::<Result<_>>()?,
            directories: directories.collect(),
            tools: self.tools.iter().map(|(name, path)| (name.to_string(), path.clone())).collect(),
        })
    }
}

/// A job that answers for another one is a defect of this program.
pub(crate) fn answered_something_else() -> Failure {
    Failure::new(FailureKind::Failed, "failed to understand the job: it answered for another one")
}
