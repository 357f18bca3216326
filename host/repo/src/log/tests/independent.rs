//! The log is read by a program that shares no line with this one.

use super::*;
use std::{path::PathBuf, process::Command};

/// A Python with `cryptography` and `zstandard`; `make test` puts one on the path.
fn python() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut candidates = [root.join(".venv/bin/python3"), "python3".into()].into_iter();
    candidates
        .find(|python| {
            Command::new(python)
                .args(["-c", "import cryptography, zstandard"])
                .output()
                .is_ok_and(|output| output.status.success())
        })
        .expect("python3 with cryptography and zstandard: tools/install-deps test")
}

#[tokio::test]
async fn an_independent_reader_reads_every_piece_and_note() {
    let python = python();
    let folder = tempfile::tempdir().unwrap();
    let mut place = Place::folder(&folder);
    // Not the whole repository: its config and key are all that the reader wants beside the log.
    place.key = Arc::new(MasterKey::random());
    let config = format!(r#"{{"version":2,"id":"{REPOSITORY}","chunker_polynomial":"25b468838dcb75"}}"#);
    std::fs::write(folder.path().join("config"), place.key.seal(config.as_bytes())).unwrap();
    let key_file = folder.path().join("key.json");
    std::fs::write(&key_file, &place.key.to_json()[..]).unwrap();

    let mut log = place.open().await;
    log.identify("postgresql", "7312").await.unwrap();
    log.put_note("00000002.history", Bytes::from_static(b"1\t0/5500\tno reason\n")).await.unwrap();
    append_all(&mut log, 1, 0, 9000, 300).await;
    log.compact(&compaction::at_once(), compaction::later()).await.unwrap();
    let branch = Segment { follows: Some(at(1, 8500)), ..piece(2, 8192, 9500) };
    log.append(&branch, body(&branch)).await.unwrap();
    log.confirm(&at(2, 9500), Timestamp::from_micros(7)).await.unwrap();

    let out = folder.path().join("out");
    let reader = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tools/read_log.py");
    let run = |arguments: &[&str]| {
        let output = Command::new(&python).arg(&reader).arg(&key_file).arg(folder.path()).args(arguments).output();
        let output = output.unwrap();
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (ok, said) = run(&["extract", "shop", out.to_str().unwrap()]);
    assert!(ok, "{said}");
    assert!(said.contains(r#"identity: {"engine":"postgresql","identity":"7312"}"#), "{said}");
    for (epoch, from, to) in [(1, 0, 4096), (1, 4096, 8192), (1, 8192, 9000), (2, 8192, 9500)] {
        let whole = piece(epoch, from, to);
        assert_eq!(std::fs::read(out.join(&whole.file)).unwrap(), body(&whole), "{said}");
    }
    assert_eq!(std::fs::read(out.join("00000002.history")).unwrap(), b"1\t0/5500\tno reason\n");
    assert!(run(&["list"]).0);

    let key = folder.path().join(log.sealer.key_of(&ObjectName::appended(&piece(1, 8400, 8700))));
    let key = if key.exists() { key } else { folder.path().join(log.sealer.key_of(&ObjectName::appended(&branch))) };
    let mut bytes = std::fs::read(&key).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&key, bytes).unwrap();
    let (ok, said) = run(&["list"]);
    assert!(!ok && said.contains("damaged"), "{said}");
}
