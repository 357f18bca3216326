//! `[targets.NAME]`: one database instance to protect.

use super::{
    error::ConfigError,
    grants::Grants,
    name::{EngineName, RepositoryName},
    retention,
    section::Section,
    settings::Settings,
    suggestion,
};
use backstay_core::{RetentionPolicy, TargetName};
use backstay_sandbox::Limits;

/// A database instance: its engine, its repository, its settings, its grants.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Its name in the configuration and in the repository.
    pub(crate) name: TargetName,
    /// Which plugin knows it.
    pub(crate) engine: EngineName,
    /// Where its backups and its log go; always one that the configuration has.
    pub(crate) repository: RepositoryName,
    /// The engine's own settings.
    pub(crate) settings: Settings,
    /// What the plugin may reach.
    pub(crate) grants: Grants,
    /// How much memory and computing the plugin may take.
    pub(crate) limits: Limits,
    /// How long its backups and its log stay: its own section's policy, or else the one for all.
    pub(crate) retention: Option<RetentionPolicy>,
}

impl Target {
    /// Reads one target's section; `repositories` are those that exist.
    pub(crate) fn from_section<'r>(
        name: TargetName,
        section: Section<'_>,
        repositories: impl Iterator<Item = &'r str> + Clone,
    ) -> Result<Self, ConfigError> {
        let section = section.only(&["engine", "repository", "settings", "grants", "limits", "retention"])?;
        let engine = section.parsed("engine")?.ok_or_else(|| section.missing("engine"))?.value;
        let written = section.text_required("repository")?;
        let repository = repositories
            .clone()
            .find(|known| *known == written.value)
            .and_then(|known| known.parse().ok())
            .ok_or_else(|| {
                let message = format!(
                    "{}: there is no repository `{}`{}",
                    section.key("repository"),
                    written.value.escape_default(),
                    suggestion::advice(&written.value, repositories.clone())
                );
                section.source().error(written.span.clone(), message)
            })?;
        let settings = match section.section("settings")? {
            Some(settings) => Settings::from_section(&settings)?,
            None => Settings::none(section.source().place(section.span().start)),
        };
        let grants = section.section("grants")?.map(Grants::from_section).transpose()?.unwrap_or_default();
        let limits = section.section("limits")?.map(limits).transpose()?.unwrap_or_default();
        let retention = section.section("retention")?.map(retention::policy).transpose()?;
        Ok(Self { name, engine, repository, settings, grants, limits, retention })
    }
}

/// Least and most memory of a plugin, in MiB: less holds no plugin, more is no plugin.
const MEMORY_MIB: std::ops::RangeInclusive<u32> = 16..=65_536;
/// Fewest and most seconds a plugin may compute without moving a byte.
const STALL_SECONDS: std::ops::RangeInclusive<u32> = 1..=86_400;
/// Fewest and most seconds that may go by with nothing moving: a server takes seconds for a small thing, and a
/// week without a byte is no work.
const IDLE_SECONDS: std::ops::RangeInclusive<u32> = 10..=604_800;
/// Fewest and most seconds for handing over the log.
const DRAIN_SECONDS: std::ops::RangeInclusive<u32> = 1..=86_400;

fn limits(section: Section<'_>) -> Result<Limits, ConfigError> {
    let section = section.only(&["memory-mib", "stall-seconds", "idle-seconds", "drain-seconds"])?;
    let defaults = Limits::default();
    Ok(Limits {
        memory_mib: section.number("memory-mib", MEMORY_MIB)?.unwrap_or(defaults.memory_mib),
        stall_seconds: section.number("stall-seconds", STALL_SECONDS)?.unwrap_or(defaults.stall_seconds),
        idle_seconds: section.number("idle-seconds", IDLE_SECONDS)?.unwrap_or(defaults.idle_seconds),
        drain_seconds: section.number("drain-seconds", DRAIN_SECONDS)?.unwrap_or(defaults.drain_seconds),
    })
}
