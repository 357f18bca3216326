//! Ways out of the folder that a restore fills.

use crate::{Settings, attributes};
use backstay_sdk::*;

pub(crate) async fn commit(settings: &Settings, from: &BackupReader, into: &Directory) -> Result<()> {
    let path = settings.text("path", "../x");
    match settings.behaviour() {
        "write" => into.write_all(path, attributes(), b"bytes").await.map(drop),
        "write-mode" => {
            let set_id = FileAttributes { mode: 0o100_4755, modified: 0 };
            into.write_all("file", set_id, b"bytes").await.map(drop)
        }
        "create" => into.create(path, attributes()).await,
        "remove" => into.remove(path).await,
        "rename-from" => into.rename(path, "stolen").await,
        "rename-to" => into.rename("file", path).await,
        "link" => into.link("link", settings.text("name", "elsewhere")).await,
        "link-path" => into.link(path, "volume").await,
        "stat" => into.stat(path).await.map(drop),
        "read" => into.read_all(path, 1 << 20).await.map(drop),
        "entries" => {
            let mut nodes = into.entries(path);
            while nodes.next().await?.is_some() {}
            Ok(())
        }
        "half-write" => {
            // An unfinished file must never stand in the place of a whole one.
            into.write_all("whole", attributes(), b"whole").await?;
            Err(Error::new(ErrorKind::Internal, "given up"))
        }
        "place" => from.place(path, into, &[]).await.map(drop),
        "place-except" => from.place("data", into, &[path.to_owned()]).await.map(drop),
        "read-backup" => from.read_all(path, 1 << 20).await.map(drop),
        _ => Ok(()),
    }
}
