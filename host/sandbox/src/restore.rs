//! The host's half of `interface restore-set`.
#![allow(unreachable_pub)] // the generated bindings name the handle types

use crate::{
    bindings::backstay::engine::{
        restore_set::{Host, HostBackupReader, HostBackupReaderWithStore, PlaceSummary},
        types::{Error, Node as WitNode},
    },
    convert,
    directory::Directory,
    ports::BackupSource,
    pump::{self, Companion},
    services::{answer, busy, resource},
    state::{HasState, State},
};
use std::sync::Arc;
use wasmtime::{
    Result,
    component::{Access, Accessor, Resource, StreamReader},
};

type Answer<T> = Result<std::result::Result<T, Error>>;

/// The backup to restore; clones share it.
#[derive(Clone)]
pub struct BackupReader(pub(crate) Arc<dyn BackupSource>);

impl Host for State {}

impl HostBackupReader for State {
    fn notes(&mut self, this: Resource<BackupReader>) -> Result<String> {
        Ok(self.table.get(&this)?.0.notes())
    }

    fn drop(&mut self, handle: Resource<BackupReader>) -> Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl<T: Send + 'static> HostBackupReaderWithStore<T> for HasState {
    fn nodes(
        mut access: Access<'_, T, Self>,
        this: Resource<BackupReader>,
    ) -> Result<(StreamReader<WitNode>, Companion<()>)> {
        let source = access.get().table.get(&this)?.0.clone();
        pump::later(&mut access, async move { Ok(source.nodes().await?.into_iter().map(WitNode::from).collect()) })
    }

    fn read(
        mut access: Access<'_, T, Self>,
        this: Resource<BackupReader>,
        path: String,
    ) -> Result<(StreamReader<u8>, Companion<u64>)> {
        let state = access.get();
        let source = &state.table.get(&this)?.0;
        let body = match convert::path(path) {
            Ok(path) => source.read(path),
            Err(error) => pump::failed(error),
        };
        let body = state.activity.watch(body);
        pump::counted(&mut access, body)
    }

    async fn place(
        accessor: &Accessor<T, Self>,
        this: Resource<BackupReader>,
        subtree: String,
        into: Resource<Directory>,
        except: Vec<String>,
    ) -> Answer<PlaceSummary> {
        let reader = resource(accessor, &this)?;
        let into = resource(accessor, &into)?;
        let _busy = busy(accessor);
        let checked = convert::path(subtree)
            .and_then(|subtree| Ok((subtree, except.into_iter().map(convert::path).collect::<Result<Vec<_>, _>>()?)));
        answer(match checked {
            Ok((subtree, except)) => reader.0.place(subtree, into.dir(), except).await.map(|placed| PlaceSummary {
                files: placed.files,
                bytes: placed.bytes,
                kept_bytes: placed.kept_bytes,
            }),
            Err(error) => Err(error),
        })
    }
}
