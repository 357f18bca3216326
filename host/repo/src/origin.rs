//! Who we are, as key and lock files say it.

/// Machine, user and process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) hostname: String,
    pub(crate) username: String,
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Origin {
    pub(crate) fn here() -> Self {
        let uid = rustix::process::getuid().as_raw();
        Self {
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            username: username(uid),
            pid: std::process::id(),
            uid,
            gid: rustix::process::getgid().as_raw(),
        }
    }
}

/// The user's name; its number where `/etc/passwd` does not know it, as in many containers.
fn username(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| uid.to_string())
}
