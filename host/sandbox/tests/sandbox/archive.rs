//! The log: what does not continue it never reaches the chain, and a stop is heard.

use crate::support::{job::Job, plugins, stores::MemoryLog};
use backstay_sandbox::{EngineErrorKind, SandboxError};
use std::{sync::Arc, time::Duration};

/// What the hostile plugin appends before its crime.
const FIRST_BYTES: usize = 1000;

async fn run(job: Job) -> (Result<(), SandboxError>, Arc<MemoryLog>) {
    let log = MemoryLog::new();
    let plugin = plugins::load("hostile");
    let ended = tokio::time::timeout(Duration::from_secs(60), plugin.archive(job.context(), log.clone()));
    (ended.await.expect("the archiver hangs"), log)
}

/// Every byte of the chain is the one that belongs there.
fn assert_sound(log: &MemoryLog) {
    let bytes = log.bytes();
    assert!(bytes.iter().enumerate().all(|(offset, byte)| usize::from(*byte) == offset % 251), "wrong bytes");
}

#[tokio::test]
async fn a_piece_that_does_not_fit_is_refused_and_the_chain_stays_sound() {
    let cases = [
        ("gap", EngineErrorKind::Gap, ""),
        ("overlap", EngineErrorKind::Gap, ""),
        ("rewrite", EngineErrorKind::Gap, ""),
        ("short", EngineErrorKind::Internal, "fewer bytes than its positions say"),
        ("long", EngineErrorKind::Internal, "more bytes than its positions say"),
        ("long-huge", EngineErrorKind::Internal, "more bytes than its positions say"),
        ("empty", EngineErrorKind::Internal, "ends at or before its start"),
        ("backwards", EngineErrorKind::Internal, "ends at or before its start"),
        ("vast", EngineErrorKind::Internal, "longer than 64 MiB"),
        ("epochs", EngineErrorKind::Internal, "another epoch"),
        ("file-name", EngineErrorKind::Internal, "file name"),
        ("file-offset", EngineErrorKind::Internal, "overflows"),
    ];
    for (behaviour, kind, words) in cases {
        let (ended, log) = run(Job::crime(behaviour)).await;
        let SandboxError::Engine(error) = ended.expect_err(behaviour) else { panic!("{behaviour}: no refusal") };
        assert_eq!(error.kind, kind, "{behaviour}");
        assert!(error.message.contains(words), "{behaviour}: {}", error.message);
        assert_eq!((log.pieces(), log.bytes().len()), (1, FIRST_BYTES), "{behaviour}");
        assert_sound(&log);
    }
}

#[tokio::test]
async fn a_refusal_that_the_plugin_swallows_changes_nothing() {
    for behaviour in ["gap-swallowed", "abandoned"] {
        let (ended, log) = run(Job::crime(behaviour)).await;
        ended.unwrap();
        assert_eq!((log.pieces(), log.bytes().len()), (1, FIRST_BYTES), "{behaviour}");
    }
}

#[tokio::test]
async fn no_log_before_the_plugin_says_of_which_database() {
    let (ended, log) = run(Job::crime("log-unidentified")).await;
    assert!(ended.unwrap_err().to_string().contains("before it said of which database"));
    assert_eq!(log.pieces(), 0);
}

#[tokio::test]
async fn a_note_has_a_plain_name_and_a_bounded_length() {
    for name in ["../x", "a/b", "", ".hidden", "a\0b", "a b", &"n".repeat(200)] {
        let (ended, log) = run(Job::crime("note-name").at(name)).await;
        assert!(ended.unwrap_err().to_string().contains("note"), "{name:?}");
        assert_eq!(log.notes(), 0);
    }
    let (ended, log) = run(Job::crime("note-huge")).await;
    assert!(ended.unwrap_err().to_string().contains("too long"));
    assert_eq!(log.notes(), 0);
    let (ended, log) = run(Job::crime("note-name").at("00000002.history")).await;
    ended.unwrap();
    assert_eq!(log.notes(), 1);
}

#[tokio::test]
async fn an_archiver_that_is_asked_to_stop_hands_over_what_it_has_and_ends() {
    let job = Job::crime("follow");
    let stop = job.stop();
    let stopping = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        stop.send_replace(true);
    });
    let (ended, log) = run(job).await;
    ended.unwrap();
    stopping.await.unwrap();
    assert!(log.pieces() > 3, "{} pieces in half a second", log.pieces());
    assert_eq!(log.bytes().len(), log.pieces() * 4096);
    assert!(log.confirmed().unwrap() as usize >= log.bytes().len() - 4096);
    assert_sound(&log);
}

#[tokio::test]
async fn a_stop_that_came_before_the_job_is_heard_too() {
    let job = Job::crime("follow");
    job.stop().send_replace(true);
    let (ended, log) = run(job).await;
    ended.unwrap();
    assert!(log.pieces() <= 1);
}
