//! A line with a delay: whatever is sent through it comes out later, in both directions, and as fast as it went in.
//!
//! `slow-line LISTEN UPSTREAM MILLISECONDS`, each way half of them. Runs until it is killed.

use anyhow::{Context, Result};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::Instant,
};

/// What is read at once.
const PART: usize = 256 << 10;
/// What may be on the line in one direction: a gigabyte a second for a fifth of a second.
const ON_THE_LINE: usize = 200 << 20;

/// Passes on what comes, `delay` later.
async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    delay: Duration,
) -> Result<()> {
    let (sender, mut line) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(ON_THE_LINE));
    let reader = tokio::spawn({
        let room = Arc::clone(&room);
        async move {
            loop {
                let mut part = Vec::with_capacity(PART);
                if from.read_buf(&mut part).await? == 0 {
                    return Ok::<_, anyhow::Error>(());
                }
                room.acquire_many(part.len() as u32).await?.forget();
                if sender.send((Instant::now() + delay, part)).is_err() {
                    return Ok(());
                }
            }
        }
    });
    while let Some((due, part)) = line.recv().await {
        tokio::time::sleep_until(due).await;
        to.write_all(&part).await?;
        room.add_permits(part.len());
    }
    to.shutdown().await?;
    reader.await?
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream, milliseconds] = &arguments[..] else {
        anyhow::bail!("usage: slow-line LISTEN UPSTREAM MILLISECONDS")
    };
    let upstream: SocketAddr = upstream.parse().context("UPSTREAM is an address with a port")?;
    let delay = Duration::from_millis(milliseconds.parse().context("MILLISECONDS is a number")?) / 2;
    let listener = TcpListener::bind(listen).await.with_context(|| listen.clone())?;
    loop {
        let (near, _) = listener.accept().await?;
        tokio::spawn(async move {
            let far = TcpStream::connect(upstream).await?;
            near.set_nodelay(true)?;
            far.set_nodelay(true)?;
            let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
            tokio::try_join!(pass(near_read, far_write, delay), pass(far_read, near_write, delay))?;
            Ok::<_, anyhow::Error>(())
        });
    }
}
