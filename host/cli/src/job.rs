//! Jobs that run an engine plugin: each in a child process, told everything over a pipe.
//!
//! ```text
//!   Target ──► plugin's file ──► its description ──► settings, grants and method are judged
//!                                                        │
//!   JobSpec, secrets read at last ◄──────────────────────┘──► run_job ──► events, the answer
//! ```

use crate::{
    catalog::{self, Away, Home},
    command::restore::show_plan,
    config::{self, Config, Grants, Repository, Target},
    context::Context,
    failure::{Failure, Result},
    mirror::{self, Bell, Level, Standing},
    progress::Progress,
};
use backstay_pipeline::{
    Access, Event, FailureKind, Job, JobResult, JobSpec, LogLevel, RepositorySpec, RunOptions, TargetSpec,
};
use backstay_sandbox::{self as sandbox, Description, GrantKind, GrantRequest};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

impl Context {
    /// Runs a job for a target to its end; progress, log and plans are shown meanwhile.
    pub(crate) fn job(&self, target: &str, job: Job) -> Result<JobResult> {
        Ok(self.job_with_mirrors(target, job)?.result)
    }

    /// The same, with what became of the target's mirrors.
    pub(crate) fn job_with_mirrors(&self, target: &str, job: Job) -> Result<Ran> {
        let config = self.config()?;
        let target = config.target(target)?;
        let plugin = sandbox::find(target.engine.as_str(), &self.plugin_folders())
            .map_err(|error| Failure::from(backstay_pipeline::Failure::from(error)))?;
        self.block_on(async {
            // Side by side: a password takes a third of a second.
            let home = async {
                match job {
                    Job::Inspect => Ok(None),
                    _ => catalog::home(&config, target).await.map(Some),
                }
            };
            let (description, home) = tokio::join!(self.describe_plugin(&plugin), home);
            judge(&config, target, &description?, &job)?;
            let home = home?;
            let name = name(&job);
            // The job gets the repository's key, not its password.
            let repository =
                home.as_ref().map(|home| backstay_pipeline::repository::unlocked(home.spec.clone(), &home.open));
            let spec = self.spec(target, plugin.clone(), repository, job)?;
            let progress = self.progress();
            let bell = Bell::new();
            let shown = |event| {
                if let Event::Progress { .. } = event {
                    bell.ring();
                }
                self.show(event, name, target, &progress);
            };
            let Some(home) = home.filter(|_| !target.mirrors.is_empty()) else {
                let result = backstay_pipeline::run_job(spec, &RunOptions::default(), shown).await?;
                return Ok(Ran { result, level: None });
            };
            if let Job::Archive { .. } = spec.job {
                mirror::before_archive(&config, target, &home).await?;
                let work = async {
                    let result = backstay_pipeline::run_job(spec, &RunOptions::default(), shown).await;
                    bell.end();
                    result
                };
                let (result, followed) = tokio::join!(work, mirror::follow(&config, target, &home, &bell));
                followed?;
                return Ok(Ran { result: result.map_err(|failure| blame(failure.into(), &home))?, level: None });
            }
            let is_backup = matches!(spec.job, Job::Backup { .. });
            let result = backstay_pipeline::run_job(spec, &RunOptions::default(), shown).await?;
            progress.finish();
            let level = match is_backup {
                true => Some(self.level(&config, target, &home, false).await?),
                false => None,
            };
            Ok(Ran { result, level })
        })
    }

    /// Brings a target's repositories level, and says which lag.
    pub(crate) async fn level(
        &self,
        config: &Config,
        target: &Target,
        home: &Home<'_>,
        dry_run: bool,
    ) -> Result<Level> {
        let progress = self.progress();
        let shown = |name: &str, done, total| {
            progress.update(&format!("mirror {name}"), done, Some(total));
        };
        let level = mirror::level(config, target, home, dry_run, &shown).await?;
        drop(progress);
        for Standing { repository, why, .. } in level.lagging() {
            let why = why.as_deref().unwrap_or("unknown");
            tracing::warn!("mirror `{repository}` lags, `backstay repo sync {}` brings it level: {why}", target.name);
        }
        Ok(level)
    }

    /// Who a plugin says it is.
    pub(crate) fn describe(&self, plugin: &Path) -> Result<Description> {
        self.block_on(self.describe_plugin(plugin))
    }

    async fn describe_plugin(&self, plugin: &Path) -> Result<Description> {
        Ok(backstay_pipeline::describe(plugin.to_owned(), self.cache()?, &RunOptions::default()).await?)
    }

    fn spec(&self, target: &Target, plugin: PathBuf, repository: Option<RepositorySpec>, job: Job) -> Result<JobSpec> {
        let target = TargetSpec {
            name: target.name.clone(),
            engine: target.engine.to_string(),
            plugin,
            settings: target.settings.json.clone(),
            grants: match job {
                // It has to work where the lost server's folders and passwords are not.
                Job::Restore(_) => Default::default(),
                _ => target.grants.resolve(target.name.as_str())?,
            },
            limits: target.limits,
        };
        Ok(JobSpec { job, target, repository, cache: self.cache()?, log_level: self.log_level() })
    }

    fn show(&self, event: Event, job: &'static str, target: &Target, progress: &Progress) {
        match event {
            Event::Progress { phase, done, total } => progress.update(&phase, done, total),
            Event::Log { level, source, message, fields } => log(level, &source, job, target, &message, &fields),
            Event::Plan(plan) => {
                progress.finish();
                show_plan(&plan, self.output());
            }
            // The answer and the failure are what `run_job` returns.
            Event::Done(_) | Event::Failed(_) => {}
        }
    }
}

/// What came of a job.
pub(crate) struct Ran {
    /// Its answer.
    pub(crate) result: JobResult,
    /// How the target's repositories stand after a backup; nothing without mirrors.
    pub(crate) level: Option<Level>,
}

/// Log that is missing may lie in a repository that is away.
fn blame(failure: Failure, home: &Home<'_>) -> Failure {
    match home.away.first() {
        Some(Away { repository, .. }) => failure
            .hint_at_gap(&format!("repository `{}` is away and may have it: bring that back first", repository.name)),
        None => failure,
    }
}

/// The job's name in log lines.
fn name(job: &Job) -> &'static str {
    match job {
        Job::Inspect => "inspect",
        Job::Backup { .. } => "backup",
        Job::Archive { .. } => "archive",
        Job::Restore(_) => "restore",
    }
}

/// Refuses what the plugin's description says cannot work, before anything is started.
fn judge(config: &Config, target: &Target, description: &Description, job: &Job) -> Result<()> {
    target.check_settings(&config.file, &description.config_schema)?;
    let mut needed: Vec<&str> = Vec::new();
    if let Job::Backup { method: Some(wanted), .. } = job {
        let methods = description.methods.iter().map(|method| method.name.as_str());
        let Some(method) = description.methods.iter().find(|method| method.name == *wanted) else {
            let advice = config::advice(wanted, methods);
            let engine = &target.engine;
            return Err(Failure::usage(format!(
                "failed to back up: engine `{engine}` has no method `{wanted}`{advice}"
            )));
        };
        needed.extend(method.grants.iter().map(String::as_str));
    }
    // A restore gets none.
    let asked = description.grants.iter().filter(|_| !matches!(job, Job::Restore(_)));
    for ask in asked {
        let key = format!("targets.{}.grants.{}.{}", target.name, table(ask.kind), ask.name);
        if (ask.required || needed.contains(&ask.name.as_str())) && !target.grants.has(table(ask.kind), &ask.name) {
            return Err(Failure::usage(format!("failed to start: {key} is not granted")).hint(ask.purpose.clone()));
        }
    }
    judge_folders(target.name.as_str(), &target.grants, &description.grants)?;
    for (kind, name) in target.grants.names() {
        if !description.grants.iter().any(|ask| table(ask.kind) == kind && ask.means(name)) {
            let asked = description.grants.iter().filter(|ask| table(ask.kind) == kind).map(|ask| ask.name.as_str());
            let advice = config::advice(name, asked);
            tracing::warn!("targets.{}.grants.{kind}.{name} is granted, and nobody asked for it{advice}", target.name);
        }
    }
    Ok(())
}

/// A folder is changed only where the plugin asked for that and the operator said so.
fn judge_folders(target: &str, grants: &Grants, asked: &[GrantRequest]) -> Result<()> {
    for (name, folder) in &grants.directories {
        let key = format!("targets.{target}.grants.directories.{name}");
        let wants = |kind| asked.iter().find(|ask| ask.kind == kind && ask.means(name.as_str()));
        match (wants(GrantKind::DirectoryWrite), folder.write) {
            (Some(ask), false) => {
                return Err(Failure::usage(format!("failed to start: {key} is granted for reading only"))
                    .hint(format!("{}: {{ path = …, write = true }}", ask.purpose)));
            }
            (None, true) => {
                let message = format!("failed to start: {key} is granted for writing, and nobody asked for that");
                return Err(Failure::usage(message).hint("leave `write = true` out"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The configuration's table for grants of this kind.
pub(crate) fn table(kind: GrantKind) -> &'static str {
    match kind {
        GrantKind::Endpoint => "endpoints",
        GrantKind::Credential => "credentials",
        GrantKind::DirectoryRead | GrantKind::DirectoryWrite => "directories",
        GrantKind::Tool => "tools",
    }
}

/// Into this process's log, with what a reader needs to find the culprit.
fn log(
    level: LogLevel,
    source: &str,
    job: &'static str,
    target: &Target,
    message: &str,
    fields: &BTreeMap<String, String>,
) {
    // At -vvv the libraries below would say thousands of lines for one of ours.
    let ours = source == "plugin" || source.starts_with("backstay");
    if !ours && matches!(level, LogLevel::Trace | LogLevel::Debug | LogLevel::Info) {
        return;
    }
    let (plugin, database) = (target.engine.as_str(), target.name.as_str());
    let others = fields.iter().filter(|(key, _)| !matches!(key.as_str(), "plugin" | "database" | "job"));
    let others: String = others.map(|(key, value)| format!(" {key}={value}")).collect();
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(target: "plugin", source, plugin, database, job, "{message}{others}")
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
            access: Access::Password(self.read_password()?),
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
        let directories = self.directories.iter().map(|(name, folder)| {
            let grant = sandbox::DirectoryGrant { path: folder.path.clone(), writable: folder.write };
            (name.to_string(), grant)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Directory;

    fn judged(write: bool, asked: Option<GrantKind>) -> Result<()> {
        let folder = Directory { path: "/srv/data".into(), write };
        let grants = Grants { directories: [("data".parse().unwrap(), folder)].into(), ..Grants::default() };
        let ask = |kind| GrantRequest { kind, name: "data".into(), purpose: "files go there".into(), required: true };
        judge_folders("shop", &grants, asked.map(ask).as_slice())
    }

    #[test]
    fn a_folder_is_changed_only_when_both_sides_say_so() {
        judged(false, Some(GrantKind::DirectoryRead)).unwrap();
        judged(true, Some(GrantKind::DirectoryWrite)).unwrap();
        // Asked for by nobody: that is a warning, elsewhere.
        judged(false, None).unwrap();
        for (write, asked) in
            [(false, Some(GrantKind::DirectoryWrite)), (true, Some(GrantKind::DirectoryRead)), (true, None)]
        {
            judged(write, asked).unwrap_err();
        }
    }
}
