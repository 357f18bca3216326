//! A job process shuts itself in.
//!
//! Once its handles are open, a job gives up every right but those its grants, its
//! repository and name resolution need: a hole in the runtime then reaches no farther.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, NetPort, PathBeneath, PathFd, RestrictionStatus,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus,
};
use std::path::PathBuf;

/// The newest rights this host knows about; older kernels enforce what they know.
const KNOWN: ABI = ABI::V5;

/// What name resolution and TLS read. Not all of `/etc`: other targets' passwords lie there.
const SYSTEM_FILES: &[&str] = &[
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/passwd",
    "/etc/group",
    "/etc/hostname",
    "/etc/localtime",
    "/etc/ld.so.cache",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/run/systemd/resolve",
    "/usr/lib",
    "/lib",
    "/usr/share/ca-certificates",
    "/usr/share/zoneinfo",
    "/usr/local/share/ca-certificates",
    "/dev/urandom",
];

/// What a job may still do.
#[derive(Clone, Debug, Default)]
pub struct Rights {
    /// Folders and files it reads.
    pub read: Vec<PathBuf>,
    /// Folders it reads and changes.
    pub write: Vec<PathBuf>,
    /// Programs it runs; with any, the folders programs and libraries come from as well.
    pub run: Vec<PathBuf>,
    /// TCP ports it connects to.
    pub connect: Vec<u16>,
}

/// How far the kernel went along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confinement {
    /// Every right is enforced.
    Full,
    /// The kernel knows only some of them.
    Partial,
    /// The kernel knows none.
    None,
}

/// Shuts this thread, and all that it starts later, in. Call it before any other thread runs.
pub fn confine(rights: &Rights) -> Result<Confinement, String> {
    let failed = |error: landlock::RulesetError| format!("failed to confine the job: {error}");
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::ConnectTcp | AccessNet::BindTcp))
        .and_then(Ruleset::create)
        .map_err(failed)?;
    let status = add_rights(ruleset, rights).and_then(RulesetCreated::restrict_self).map_err(failed)?;
    Ok(how_far(&status))
}

fn add_rights(mut ruleset: RulesetCreated, rights: &Rights) -> Result<RulesetCreated, landlock::RulesetError> {
    let reading = AccessFs::ReadFile | AccessFs::ReadDir;
    let writing = AccessFs::from_all(KNOWN) & !AccessFs::Execute;
    let running = AccessFs::from_read(KNOWN);
    let system = SYSTEM_FILES.iter().map(PathBuf::from);
    let mut paths: Vec<(PathBuf, _)> = system.chain(rights.read.iter().cloned()).map(|path| (path, reading)).collect();
    paths.extend(rights.write.iter().cloned().map(|path| (path, writing)));
    if !rights.run.is_empty() {
        paths.extend(["/usr", "/bin", "/lib64"].into_iter().map(|path| (path.into(), running)));
        paths.extend(rights.run.iter().cloned().map(|path| (path, running)));
    }
    for (path, access) in paths {
        // What is not there needs no right.
        let Ok(descriptor) = PathFd::new(&path) else { continue };
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(KNOWN) };
        ruleset = ruleset.add_rule(PathBeneath::new(descriptor, access))?;
    }
    for port in &rights.connect {
        ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    Ok(ruleset)
}

fn how_far(status: &RestrictionStatus) -> Confinement {
    match status.ruleset {
        RulesetStatus::FullyEnforced => Confinement::Full,
        RulesetStatus::PartiallyEnforced => Confinement::Partial,
        RulesetStatus::NotEnforced => Confinement::None,
    }
}
