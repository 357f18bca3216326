//! Log that does not fit together, and log that does.

use crate::{Settings, position};
use backstay_sdk::*;

const FIRST_BYTES: u64 = 1000;

pub(crate) async fn commit(settings: &Settings, into: &LogWriter) -> Result<()> {
    let behaviour = settings.behaviour();
    if behaviour == "log-unidentified" {
        return append(into, 0, FIRST_BYTES).await;
    }
    into.identify("database-1").await?;
    match behaviour {
        "follow" => return follow(into).await,
        // Never looks whether it was asked to stop.
        "deaf" => loop {
            host::sleep(500_000).await;
        },
        "note-name" => return into.put_note(settings.text("path", "../x"), b"note").await,
        "note-huge" => return into.put_note("huge", &vec![0; (1 << 20) + 1]).await,
        _ => {}
    }
    append(into, 0, FIRST_BYTES).await?;
    let next = FIRST_BYTES;
    match behaviour {
        "gap" => append(into, next + 1, 10).await,
        "gap-swallowed" => {
            let _ = append(into, next + 1, 10).await;
            Ok(())
        }
        "overlap" => append(into, next - 1, 10).await,
        "rewrite" => append(into, 0, FIRST_BYTES).await,
        "short" => into.append_bytes(piece(next, next + 10), &[1; 9]).await,
        "long" => into.append_bytes(piece(next, next + 10), &[1; 11]).await,
        "long-huge" => {
            let mut body = into.append(piece(next, next + 10));
            loop {
                body.write(&[1; 256 << 10]).await?;
            }
        }
        "empty" => into.append_bytes(piece(next, next), &[]).await,
        "backwards" => into.append_bytes(piece(next, next - 5), &[1; 5]).await,
        "vast" => into.append_bytes(piece(next, 1 << 50), &[1; 5]).await,
        "epochs" => {
            let end = position(2, next + 10);
            into.append_bytes(Segment { end, ..piece(next, next + 10) }, &[1; 10]).await
        }
        "file-name" => {
            let file = settings.text("path", "../x").to_owned();
            into.append_bytes(Segment { file, ..piece(next, next + 10) }, &[1; 10]).await
        }
        "file-offset" => {
            into.append_bytes(Segment { file_offset: u64::MAX, ..piece(next, next + 10) }, &[1; 10]).await
        }
        "abandoned" => {
            let mut body = into.append(piece(next, next + (512 << 10)));
            body.write(&[1; 300 << 10]).await?;
            drop(body);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What an honest archiver does: piece after piece until it is asked to stop.
async fn follow(into: &LogWriter) -> Result<()> {
    let mut at = 0;
    let mut stop = std::pin::pin!(host::stop_requested());
    loop {
        let next = std::pin::pin!(append(into, at, 4096));
        match futures::future::select(next, stop.as_mut()).await {
            futures::future::Either::Left((done, _)) => done?,
            // What was begun is finished: it may be half way into the chain.
            futures::future::Either::Right(((), under_way)) => return under_way.await,
        }
        at += 4096;
        into.confirm(position(1, at), host::now()).await?;
        host::sleep(1000).await;
    }
}

async fn append(into: &LogWriter, start: u64, length: u64) -> Result<()> {
    let bytes: Vec<u8> = (start..start + length).map(|offset| (offset % 251) as u8).collect();
    into.append_bytes(piece(start, start + length), &bytes).await
}

fn piece(start: u64, end: u64) -> Segment {
    Segment {
        start: position(1, start),
        end: position(1, end),
        follows: None,
        first_commit: None,
        last_commit: None,
        file: "000001".to_owned(),
        file_offset: start,
    }
}
