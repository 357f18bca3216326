//! A report is believed only where it fits what was stored and what the log knows.
#![allow(clippy::unwrap_used)]

use super::{Stored, check_report};
use crate::damage::{Repo, piece};
use backstay_core::{Position, RelativePath, Segment, Volume};
use backstay_repo::log::LogChain;
use backstay_sandbox::BackupReport;

fn at(epoch: u64, offset: u64) -> Position {
    Position { epoch, ..piece(offset, offset + 1).start }
}

fn path(text: &str) -> RelativePath {
    RelativePath::new(text).unwrap()
}

/// An honest report of a backup that ends in this epoch.
fn report(epoch: u64) -> BackupReport {
    BackupReport {
        start: at(epoch, 10),
        end: at(epoch, 20),
        log_from: at(epoch, 10),
        consistent_at: None,
        version: "15.4".to_owned(),
        main: path("data"),
        volumes: Vec::new(),
        notes: String::new(),
    }
}

fn stored(paths: &[&str]) -> Stored {
    Stored { paths: paths.iter().map(|path| (*path).to_owned()).collect(), bytes: 1, files: paths.len() as u64 }
}

/// A log of these epochs, 100 bytes of each, one following the other.
async fn log(epochs: &[u64]) -> LogChain {
    let repo = Repo::new().await;
    let mut before = None;
    for (number, epoch) in (0..).zip(epochs) {
        let place = |position: Position| Position { epoch: *epoch, ..position };
        let (from, to) = (number * 100, (number + 1) * 100);
        let plain = piece(from, to);
        repo.append(&[Segment { start: place(plain.start), end: place(plain.end), follows: before, ..plain }]).await;
        before = Some(at(*epoch, to));
    }
    repo.log().await
}

#[tokio::test]
async fn an_honest_report_is_believed_with_and_without_a_log() {
    for epochs in [&[][..], &[1], &[1, 2]] {
        check_report(&report(1), &stored(&["data/PG_VERSION"]), Some("7"), &log(epochs).await).unwrap();
    }
}

#[tokio::test]
async fn a_backup_of_nobody_or_of_nothing_is_refused() {
    let log = log(&[]).await;
    let told = check_report(&report(1), &stored(&["data/file"]), None, &log).unwrap_err();
    assert_eq!(told, "it never said which database it backed up");
    // Folders alone are nothing.
    let told = check_report(&report(1), &Stored { files: 0, ..stored(&["data"]) }, Some("7"), &log).unwrap_err();
    assert_eq!(told, "it reports a backup without a single file");
}

#[tokio::test]
async fn a_folder_that_nothing_was_stored_in_is_refused() {
    let log = log(&[]).await;
    let check = |report: &BackupReport, paths: &[&str]| check_report(report, &stored(paths), Some("7"), &log);
    // Names that only begin alike are other folders.
    let told = check(&report(1), &["data-old/file", "datum", "dat"]).unwrap_err();
    assert_eq!(told, "it reports folder data, in which it stored nothing");
    check(&report(1), &["data-old/file", "data"]).unwrap();

    let volume = Volume { name: path("tablespaces/1").into(), title: "fast".to_owned(), location: "/fast".to_owned() };
    let report = BackupReport { volumes: vec![volume], ..report(1) };
    let told = check(&report, &["data/file", "tablespaces/10/file"]).unwrap_err();
    assert_eq!(told, "it reports folder tablespaces/1, in which it stored nothing");
    check(&report, &["data/file", "tablespaces/1/file"]).unwrap();
}

#[tokio::test]
async fn an_end_in_an_epoch_that_the_log_passed_without_seeing_it_is_refused() {
    let log = log(&[1, 3]).await;
    let check = |epoch| check_report(&report(epoch), &stored(&["data/file"]), Some("7"), &log);
    assert_eq!(check(2).unwrap_err(), "it reports an end in epoch 2, which the log never saw");
    for known_or_new in [1, 3, 4] {
        check(known_or_new).unwrap();
    }
}
