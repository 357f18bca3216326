//! Generated from the contract.

#![allow(missing_docs, unreachable_pub, clippy::all)]

wasmtime::component::bindgen!({
    world: "plugin",
    path: "../../wit/v0.1",
    imports: {
        "backstay:engine/grants.[method]connection.receive": store | trappable,
        "backstay:engine/grants.[method]directory.entries": store | trappable,
        "backstay:engine/grants.[method]directory.read": store | trappable,
        "backstay:engine/grants.[method]process.stdout": store | trappable,
        "backstay:engine/backup-set.[method]backup-writer.parent-read": store | trappable,
        "backstay:engine/log-archive.[method]log-reader.segments": store | trappable,
        "backstay:engine/log-archive.[method]log-reader.read": store | trappable,
        "backstay:engine/restore-set.[method]backup-reader.nodes": store | trappable,
        "backstay:engine/restore-set.[method]backup-reader.read": store | trappable,
        default: trappable,
    },
    exports: { default: async },
    with: {
        "backstay:engine/grants.connection": crate::connection::Connection,
        "backstay:engine/grants.directory": crate::directory::Directory,
        "backstay:engine/grants.process": crate::process::Process,
        "backstay:engine/backup-set.backup-writer": crate::backup::BackupWriter,
        "backstay:engine/log-archive.log-writer": crate::log::LogWriter,
        "backstay:engine/log-archive.log-reader": crate::log::LogReader,
        "backstay:engine/restore-set.backup-reader": crate::restore::BackupReader,
    },
});
