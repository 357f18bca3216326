//! What any call can do wrong.

use crate::Settings;
use backstay_sdk::*;
use std::hint::black_box;

/// Crimes that never wait.
pub(crate) fn commit_now(settings: &Settings) {
    match settings.behaviour() {
        "loop" => spin(),
        "allocate" => allocate(),
        "panic" => panic!("on purpose"),
        "unreachable" => trap(),
        "stack" => {
            black_box(descend(0));
        }
        "stack-deep" => {
            black_box(deepen(0));
        }
        "log-flood" => flood(),
        "log-huge" => host::log(Level::Info, &"x".repeat(1 << 20)),
        "log-beyond-fuel" => host::log(Level::Info, &"x".repeat(16 << 20)),
        "log-control" => host::log(Level::Info, "\x1b[2Jgone\r\nroot@host# \u{202e}txt.exe"),
        "progress-flood" => (0..100_000).for_each(|done| host::progress("\x1b[31mphase", done, Some(0))),
        "random" => (0..64).for_each(|_| assert!(host::random(u32::MAX).len() <= 64 << 10)),
        _ => {}
    }
}

/// Crimes that wait for the host.
pub(crate) async fn commit(settings: &Settings) -> Result<()> {
    match settings.behaviour() {
        "sleep" => loop {
            host::sleep(u64::MAX).await;
        },
        "error-control" => Err(Error::new(ErrorKind::Denied, "\x1b]0;owned\x07no\nreally").hint("run \x1b[8mrm\x1b[0m")),
        "error-huge" => Err(Error::new(ErrorKind::Denied, "x".repeat(1 << 20))),
        "ask-endpoint" => host::connect(settings.text("name", "nowhere")).await.map(drop),
        "ask-credential" => host::login(settings.text("name", "nobody")).map(drop),
        "ask-directory" => host::open_directory(settings.text("name", "nothing")).map(drop),
        "ask-tool" => host::run(settings.text("name", "sh"), &["-c".to_owned(), "id".to_owned()]).await.map(drop),
        "connections" => connections().await,
        "connections-at-once" => connections_at_once().await,
        "handles" => handles(),
        "streams" => streams(),
        "receive-twice" => {
            let connection = host::connect("primary").await?;
            let _first = connection.receive();
            let _second = connection.receive();
            Ok(())
        }
        _ => Ok(()),
    }
}

fn spin() {
    let mut count = 0_u64;
    loop {
        count = black_box(count.wrapping_add(1));
    }
}

fn allocate() {
    let mut all = Vec::new();
    loop {
        all.push(vec![1_u8; 1 << 20]);
        black_box(&all);
    }
}

#[cfg(target_arch = "wasm32")]
fn trap() {
    core::arch::wasm32::unreachable()
}

#[cfg(not(target_arch = "wasm32"))]
fn trap() {}

#[allow(unconditional_recursion)] // the crime
fn descend(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    1 + descend(black_box(depth + 1)) + frame[0]
}

/// Keeps nothing in the plugin's own memory, so that the runtime's stack is what ends.
#[allow(unconditional_recursion)] // the crime
fn deepen(depth: u64) -> u64 {
    1 + black_box(deepen as fn(u64) -> u64)(depth + 1)
}

fn flood() {
    for number in 0..100_000 {
        host::log(Level::Info, &format!("line {number}"));
    }
}

/// One after another, all kept; answers at which the host had enough.
async fn connections() -> Result<()> {
    let mut open = Vec::new();
    loop {
        match host::connect("primary").await {
            Ok(connection) => open.push(connection),
            Err(error) => return Err(Error::new(error.kind, format!("{} open: {}", open.len(), error.message))),
        }
    }
}

/// A thousand dialled at the same moment.
async fn connections_at_once() -> Result<()> {
    let dialled = futures::future::join_all((0..1000).map(|_| host::connect("primary"))).await;
    let (open, refused): (Vec<_>, Vec<_>) = dialled.into_iter().partition(Result::is_ok);
    Err(Error::new(ErrorKind::Internal, format!("{} open, {} refused", open.len(), refused.len())))
}

fn handles() -> Result<()> {
    let mut open = Vec::new();
    loop {
        open.push(host::open_directory("data")?);
    }
}

fn streams() -> Result<()> {
    let folder = host::open_directory("data")?;
    let mut open = Vec::new();
    loop {
        open.push(folder.read("file", 0, None));
    }
}
