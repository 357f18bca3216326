//! Bytes stored as they must not be.

use crate::{Settings, attributes};
use backstay_sdk::*;

/// More than one chunk of a stream, less than a host would wait for.
const HALF_BYTES: usize = 700 << 10;

/// Near the most that a plugin can hold: each takes some eight of its 1024 handles.
const STREAMS: usize = 100;

pub(crate) async fn commit(settings: &Settings, into: &BackupWriter) -> Result<()> {
    match settings.behaviour() {
        "unidentified-file" => return put(into, "early", b"bytes").await,
        "unidentified-node" => return into.put_node(folder("early")).await,
        "unidentified-tree" => {
            let source = host::open_directory("data")?;
            return into.put_tree("early", &source, &[], "").await.map(drop);
        }
        "unidentified-swallowed" => {
            // Refused, and reported as a success all the same.
            let _ = put(into, "early", b"bytes").await;
            return Ok(());
        }
        "identity-empty" => return into.identify("").await,
        "identity-control" => return into.identify("one\x1b[2J\ntwo").await,
        "identity-huge" => return into.identify(&"i".repeat(100 << 10)).await,
        _ => into.identify("database-1").await?,
    }
    match settings.behaviour() {
        "path" => put(into, settings.text("path", "../x"), b"bytes").await,
        "node-path" => into.put_node(folder(settings.text("path", "../x"))).await,
        "node-file" => into.put_node(Node { kind: NodeKind::File(5), ..folder("file") }).await,
        "node-link" => {
            let target = settings.text("path", "a\0b").to_owned();
            into.put_node(Node { kind: NodeKind::Symlink(target), ..folder("link") }).await
        }
        "mode" => into.put_file("set-id", FileAttributes { mode: 0o104_755, modified: 0 }).finish().await.map(drop),
        "abandon" => {
            let mut file = into.put_file("half", attributes());
            file.write(&vec![7; HALF_BYTES]).await?;
            drop(file);
            put(into, "whole", b"bytes").await
        }
        "abandon-many" => {
            for number in 0..5000 {
                let mut file = into.put_file(&format!("half-{number}"), attributes());
                file.write(b"some").await?;
            }
            put(into, "whole", b"bytes").await
        }
        "unread" => {
            let source = host::open_directory("data")?;
            let unread: Vec<_> = (0..STREAMS).map(|_| source.read("file", 0, None)).collect();
            into.put_tree("data", &source, &[], "").await?;
            drop(unread);
            Ok(())
        }
        "trickle" => {
            // Streams that are read for a moment and then held.
            let source = host::open_directory("data")?;
            let mut held = Vec::new();
            for _ in 0..STREAMS {
                let mut body = source.read("file", 0, None);
                body.next().await?;
                held.push(body);
            }
            into.put_tree("data", &source, &[], "").await?;
            drop(held);
            Ok(())
        }
        "read-many" => {
            // No crime: one after another, some to the end, some not, some not at all.
            let source = host::open_directory("data")?;
            for number in 0..3000 {
                let mut body = source.read("file", 0, None);
                let mut file = into.put_file("data/file", attributes());
                while number % 3 > 0 && let Some(bytes) = body.next().await? {
                    file.write(bytes).await?;
                    if number % 3 == 1 {
                        break;
                    }
                }
                drop(body);
                file.finish().await?;
                while source.entries("").next().await?.is_none() {}
            }
            Ok(())
        }
        "slow" => {
            // No crime: works hard on every chunk, and moves bytes between.
            let source = host::open_directory("data")?;
            let mut body = source.read("file", 0, None);
            let mut file = into.put_file("data/file", attributes());
            while let Some(bytes) = body.next().await? {
                (0..100_000_000_u32).for_each(|count| {
                    std::hint::black_box(count);
                });
                file.write(bytes).await?;
            }
            file.finish().await.map(drop)
        }
        "rules" => {
            let source = host::open_directory("data")?;
            let pattern = settings.text("path", "[").to_owned();
            into.put_tree("data", &source, &[Rule { pattern, action: RuleAction::Exclude }], "").await.map(drop)
        }
        "inspect" => {
            let source = host::open_directory("data")?;
            let rules = [Rule { pattern: "**".to_owned(), action: RuleAction::Inspect }];
            into.put_tree("data", &source, &rules, "the context").await.map(drop)
        }
        "read" => {
            let source = host::open_directory("data")?;
            source.read_all(settings.text("path", "../x"), 1 << 20).await.map(drop)
        }
        "entries" => {
            let source = host::open_directory("data")?;
            source.entries(settings.text("path", "..")).next().await.map(drop)
        }
        "write" => {
            let source = host::open_directory("data")?;
            source.write_all("new", attributes(), b"bytes").await.map(drop)
        }
        "mutate" => {
            let source = host::open_directory("data")?;
            source.remove("file").await
        }
        _ => put(into, "data/file", b"bytes").await,
    }
}

async fn put(into: &BackupWriter, path: &str, bytes: &[u8]) -> Result<()> {
    into.put_all(path, attributes(), bytes).await.map(drop)
}

fn folder(path: &str) -> Node {
    Node { path: path.to_owned(), kind: NodeKind::Directory, attributes: attributes() }
}
