//! `kill -9` at random moments.

use crate::seed::Seed;
use anyhow::{Result, ensure};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};
use std::process::Child;
use std::time::{Duration, Instant};

/// Which process of a job dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The command that the operator started.
    Parent,
    /// The process that it started for the job.
    Child,
}

/// Children of a process, their children, and so on.
pub fn descendants(of: u32) -> Vec<u32> {
    let mut found = vec![of];
    let mut next = 0;
    while next < found.len() {
        found.extend(children(found[next]));
        next += 1;
    }
    found.split_off(1)
}

fn children(of: u32) -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{of}/task")) else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .collect()
}

/// Kills it; fine when it is gone already.
pub fn kill_9(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Kills a child and all below it, and waits until it is gone. Its own children would outlive it; without their parent
/// nobody starts them again.
pub fn family(child: &mut Child) {
    let below = descendants(child.id());
    let _ = child.kill();
    below.into_iter().for_each(kill_9);
    let _ = child.wait();
}

/// What a kill did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It died; these were the parent's descendants a moment before.
    Killed(Vec<u32>),
    /// It had ended before its hour came.
    TooLate,
}

/// Waits for the moment, then kills the victim of the job that `root` is the parent of.
///
/// A child that has not been born yet is waited for, as long as the parent lives, and then gets the same time to live.
pub fn kill_at(root: u32, victim: Victim, moment: Duration) -> Outcome {
    let alive = || std::fs::read_to_string(format!("/proc/{root}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    let start = Instant::now();
    if victim == Victim::Child {
        while descendants(root).is_empty() {
            if !alive() || start.elapsed() > crate::limits::COMMAND {
                return Outcome::TooLate;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let born = start.elapsed();
    while start.elapsed() - born < moment {
        if !alive() {
            return Outcome::TooLate;
        }
        std::thread::sleep(Duration::from_millis(1).min(moment));
    }
    let mut family = descendants(root);
    // Between two children there is a while without any.
    while victim == Victim::Child && family.is_empty() && alive() && start.elapsed() < crate::limits::COMMAND {
        std::thread::sleep(Duration::from_millis(1));
        family = descendants(root);
    }
    let pid = match victim {
        Victim::Parent => Some(root),
        Victim::Child => family.first().copied(),
    };
    match pid {
        Some(pid) if alive() => {
            kill_9(pid);
            // A child that was on its way out already dies of nothing, and the parent starts the next one.
            let killed = Instant::now();
            while victim == Victim::Child && alive() && killed.elapsed() < crate::limits::COMMAND {
                for born in descendants(root).into_iter().filter(|pid| !family.contains(pid)).collect::<Vec<_>>() {
                    kill_9(born);
                    family.push(born);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Outcome::Killed(family)
        }
        _ => Outcome::TooLate,
    }
}

/// Makes us the parent of orphans: what is left of a killed job then ends when we say so, not when the
/// machine's first process gets round to it. Until then a dead process looks alive to who asks for its number.
pub fn adopt_orphans() -> Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Waits until none of these is left, not even as a number.
pub fn bury(family: &[u32], limit: Duration) -> Result<()> {
    let start = Instant::now();
    for &pid in family {
        let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { continue };
        loop {
            // Some are children of others, which take leave of them themselves.
            let _ = waitpid(Some(number), WaitOptions::NOHANG);
            if !std::path::Path::new(&format!("/proc/{pid}")).exists() {
                break;
            }
            ensure!(start.elapsed() < limit, "process {pid} of a killed job still runs after {} s", limit.as_secs());
            std::thread::sleep(crate::limits::POLL);
        }
    }
    Ok(())
}

/// A random victim and a moment within `limit`.
pub fn draw(seed: &mut Seed, limit: Duration) -> (Victim, Duration) {
    let victim = *seed.pick(&[Victim::Parent, Victim::Child]);
    let micros = seed.within(0..(limit.as_micros() as u64).max(1));
    (victim, Duration::from_micros(micros))
}
