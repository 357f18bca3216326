//! Roles that this test binary plays in a process of its own: what changes a whole
//! process (limits, confinement), and what is measured for a whole process (memory).

use std::{
    path::Path,
    process::{Command, Output},
};

const ROLE: &str = "BACKSTAY_TEST_ROLE";

/// Runs this binary again in a role; the role's settings are in the environment.
pub(crate) fn run(role: &str, settings: &[(&str, &str)]) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "support::child::acts", "--nocapture", "--test-threads", "1"])
        .env(ROLE, role)
        .envs(settings.iter().copied())
        .output()
        .unwrap()
}

/// Compiles in a process of its own, as the host does: compiling limits its process.
pub(crate) fn compile(component: &Path, cache: &Path) -> Result<(), String> {
    let settings = [("COMPONENT", component.to_str().unwrap()), ("CACHE", cache.to_str().unwrap())];
    let output = run("compile", &settings);
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

pub(crate) fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("the role needs {name}"))
}

/// The most memory this process ever had, in KiB.
pub(crate) fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What the other tests start as a process of its own. By itself it shows that a role is never played by mistake.
#[test]
fn acts() {
    match std::env::var(ROLE).as_deref() {
        Ok("compile") => {
            let (component, cache) = (setting("COMPONENT"), setting("CACHE"));
            if let Err(error) = backstay_sandbox::compile(component.as_ref(), cache.as_ref()) {
                panic!("{error}");
            }
        }
        Ok("confine") => crate::confine::act(),
        Ok("confined compiler") => crate::confine::act_as_compiler(),
        Ok("crime") => crate::crimes::act(),
        Ok("tool") => crate::tools::act(),
        Ok(role) => panic!("there is no role {role}"),
        Err(_) => {
            let output = run("nobody", &[]);
            assert!(!output.status.success(), "a process without a role must not look like one that played it");
        }
    }
}
