//! What every command works with: the global options, the configuration, the output.

use crate::{
    args::GlobalArgs,
    config::{Config, Repository, Target, advice},
    failure::{Failure, Result},
    logging,
    output::Output,
    progress::Progress,
};
use backstay_pipeline::{FailureKind, LogLevel};
use std::{
    env,
    path::{Path, PathBuf},
};

/// More folders with plugins, joined with `:`.
const PLUGINS_VARIABLE: &str = "BACKSTAY_PLUGINS";
/// Where compiled plugins are kept, when set: ours, systemd's `CacheDirectory=`, the desktop's.
const CACHE_VARIABLES: [(&str, &str); 4] =
    [("BACKSTAY_CACHE", ""), ("CACHE_DIRECTORY", ""), ("XDG_CACHE_HOME", "backstay"), ("HOME", ".cache/backstay")];

/// One run of `backstay`.
pub(crate) struct Context {
    global: GlobalArgs,
    output: Output,
    bars: indicatif::MultiProgress,
}

impl Context {
    /// Sets the log and the progress up.
    pub(crate) fn new(global: GlobalArgs) -> Self {
        let bars = Progress::bars(!global.quiet && !global.no_progress);
        logging::set_up(&global, &bars);
        let output = Output { json: global.json };
        Self { global, output, bars }
    }

    /// How results are written.
    pub(crate) fn output(&self) -> &Output {
        &self.output
    }

    /// A progress line of its own.
    pub(crate) fn progress(&self) -> Progress {
        Progress::new(&self.bars)
    }

    /// Which of a job's log lines are worth making: this process's log filters them again.
    pub(crate) fn log_level(&self) -> LogLevel {
        match self.global.verbose {
            _ if env::var_os(logging::FILTER_VARIABLE).is_some() => LogLevel::Trace,
            _ if self.global.quiet => LogLevel::Error,
            0 => LogLevel::Warn,
            1 => LogLevel::Info,
            2 => LogLevel::Debug,
            _ => LogLevel::Trace,
        }
    }

    /// The configuration that was named, by option or variable.
    pub(crate) fn config_named(&self) -> Option<&Path> {
        self.global.config.as_deref()
    }

    /// The configuration, read now.
    pub(crate) fn config(&self) -> Result<Config> {
        let home = env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        Ok(Config::load(self.config_named(), &Config::usual_places(home.as_deref()))?)
    }

    /// Folders to look for plugins in, best first.
    pub(crate) fn plugin_folders(&self) -> Vec<PathBuf> {
        let (listed, binary) = (env::var_os(PLUGINS_VARIABLE), env::current_exe().ok());
        backstay_sandbox::folders(&self.global.plugin_dir, listed.as_deref(), binary.as_deref())
    }

    /// Where compiled plugins are kept.
    pub(crate) fn cache(&self) -> Result<PathBuf> {
        CACHE_VARIABLES
            .iter()
            .filter_map(|(variable, below)| Some((PathBuf::from(env::var_os(variable)?), below)))
            .find(|(folder, _)| folder.is_absolute())
            .map(|(folder, below)| if below.is_empty() { folder } else { folder.join(below) })
            .ok_or_else(|| {
                Failure::new(
                    FailureKind::Failed,
                    "failed to find a place for compiled plugins: there is no home folder",
                )
                .hint("set BACKSTAY_CACHE to a folder of your own")
            })
    }

    /// Runs what needs the repository alone, in this process.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(FailureKind::Failed, format!("failed to start threads: {error}")))?;
        let done = runtime.block_on(work);
        // What a dead disk still holds up is not waited for.
        runtime.shutdown_background();
        done
    }
}

impl Config {
    /// The target of that name.
    pub(crate) fn target(&self, name: &str) -> Result<&Target> {
        let known = self.targets.keys().map(backstay_core::TargetName::as_str);
        self.targets.values().find(|target| target.name.as_str() == name).ok_or_else(|| {
            let advice = advice(name, known);
            Failure::usage(format!("failed to find target `{name}` in {}{advice}", self.file.display()))
        })
    }

    /// The repositories of a target: its own, then its mirrors.
    pub(crate) fn repositories_of(&self, target: &Target) -> Result<Vec<&Repository>> {
        let names = std::iter::once(&target.repository).chain(&target.mirrors);
        names.map(|name| self.repository(name.as_str())).collect()
    }

    /// The repository of that name.
    pub(crate) fn repository(&self, name: &str) -> Result<&Repository> {
        let known = self.repositories.keys().map(crate::config::RepositoryName::as_str);
        self.repositories.values().find(|repository| repository.name.as_str() == name).ok_or_else(|| {
            let advice = advice(name, known);
            Failure::usage(format!("failed to find repository `{name}` in {}{advice}", self.file.display()))
        })
    }
}
