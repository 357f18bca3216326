//! The ordinary user that servers and `backstay` run as.
//!
//! PostgreSQL refuses to run as root, and Backstay has to work without being root. So when the tests run as
//! root, every program they start runs as `postgres`, or `nobody` where there is none.

use std::{
    ffi::OsStr,
    os::unix::{fs::chown, process::CommandExt},
    path::Path,
    process::Command,
    sync::OnceLock,
};

/// A user to run programs as; `None` stands for whoever runs the tests.
fn other() -> Option<(u32, u32, &'static str)> {
    static OTHER: OnceLock<Option<(u32, u32, &'static str)>> = OnceLock::new();
    *OTHER.get_or_init(|| {
        if !rustix::process::getuid().is_root() {
            return None;
        }
        let users = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
        for wanted in ["postgres", "nobody"] {
            for line in users.lines() {
                let fields: Vec<&str> = line.split(':').collect();
                if fields.len() > 3 && fields[0] == wanted {
                    let number = |i: usize| fields[i].parse::<u32>().expect("ids are numbers");
                    return Some((number(2), number(3), wanted));
                }
            }
        }
        panic!("the tests run as root and there is neither a user `postgres` nor `nobody` to run PostgreSQL as");
    })
}

/// A command that will run as that user, with a clean locale and UTC, in a process group of its own.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("TZ", "UTC").env("LC_ALL", "C").env("HOME", "/nonexistent").env_remove("PGOPTIONS");
    if let Some((uid, gid, _)) = other() {
        command.uid(uid).gid(gid);
    }
    command
}

/// The arguments that make `setpriv` run a program as that user; nothing when the tests are not root.
pub fn setpriv() -> Vec<String> {
    match other() {
        Some((uid, gid, _)) => {
            vec!["setpriv".into(), format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into()]
        }
        None => Vec::new(),
    }
}

/// Hands a file or folder to that user.
pub fn give(path: &Path) -> anyhow::Result<()> {
    if let Some((uid, gid, _)) = other() {
        chown(path, Some(uid), Some(gid))?;
    }
    Ok(())
}

/// Writes a file that belongs to that user.
pub fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    std::fs::write(path, content)?;
    give(path)
}

/// Makes a folder, with its parents, that belongs to that user.
pub fn create_dir(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    give(path)
}
