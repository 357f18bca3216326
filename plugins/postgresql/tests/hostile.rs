//! A server that is not what it should be: scripted, since a real one would never do this.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod native_host;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use backstay_postgresql::PostgreSql;
use backstay_sdk::native::BackupSink;
use backstay_sdk::{BackupJob, Engine as _, Error, ErrorKind};
use native_host::{FolderSink, Grants, NativeHost, block_on};
use std::rc::Rc;

/// What the server does, one step after another.
#[derive(Clone)]
enum Act {
    /// Waits for any message.
    Hear,
    /// Sends these bytes.
    Say(Vec<u8>),
}
use Act::{Hear, Say};

fn message(tag: u8, body: &[u8]) -> Act {
    let mut bytes = vec![tag];
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(body);
    Say(bytes)
}

fn play(mut peer: TcpStream, acts: &[Act]) {
    for act in acts {
        match act {
            Hear => {
                let mut buffer = [0; 4096];
                if peer.read(&mut buffer).unwrap_or(0) == 0 {
                    return;
                }
            }
            Say(bytes) => {
                if peer.write_all(bytes).is_err() {
                    return;
                }
            }
        }
    }
}

/// A backup from a server that plays `acts` to everybody who comes.
fn back_up_from(acts: Vec<Act>) -> Error {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for peer in listener.incoming().take(4) {
            play(peer.unwrap(), &acts);
        }
    });
    NativeHost::install(Grants {
        config: r#"{"sslmode": "disable", "connect-timeout-s": 2}"#.to_owned(),
        endpoint,
        user: "backup".to_owned(),
        password: "secret".to_owned(),
    });
    let folder = tempfile::tempdir().unwrap();
    let sink = FolderSink::new(folder.path().to_owned()) as Rc<dyn BackupSink>;
    let job = BackupJob { method: "stream".to_owned(), label: "test".to_owned() };
    block_on(PostgreSql::backup(job, sink.into())).unwrap_err()
}

fn welcome(version: &str) -> Vec<Act> {
    let version = format!("server_version\0{version}\0");
    vec![Hear, message(b'R', &[0; 4]), message(b'S', version.as_bytes()), message(b'Z', b"I")]
}

fn row(columns: &[(&str, &str)]) -> Vec<Act> {
    let count = (columns.len() as u16).to_be_bytes();
    let (mut names, mut values) = (count.to_vec(), count.to_vec());
    for (name, value) in columns {
        names.extend_from_slice(name.as_bytes());
        names.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 255, 255, 255, 255, 255, 255, 0, 0]);
        values.extend_from_slice(&(value.len() as u32).to_be_bytes());
        values.extend_from_slice(value.as_bytes());
    }
    vec![message(b'T', &names), message(b'D', &values), message(b'C', b"SELECT\0")]
}

fn answer(columns: &[(&str, &str)]) -> Vec<Act> {
    let mut acts = vec![Hear];
    acts.extend(row(columns));
    acts.push(message(b'Z', b"I"));
    acts
}

/// Everything up to the first byte of the backup.
fn before_backup() -> Vec<Act> {
    let mut acts = welcome("15.1");
    acts.extend(answer(&[("systemid", "7"), ("timeline", "1"), ("xlogpos", "0/3000000")]));
    acts.extend(answer(&[("wal_level", "replica")]));
    acts.extend(answer(&[("wal_segment_size", "16MB")]));
    acts.extend(answer(&[("data_directory_mode", "0700")]));
    acts.extend(answer(&[("allow_in_place_tablespaces", "off")]));
    acts.extend(answer(&[("slot_name", "s")]));
    acts.push(Hear);
    acts.extend(row(&[("recptr", "0/2000028"), ("tli", "1")]));
    let columns = b"\0\x03spcoid\0\0\0\0\0\0\0\0\0\0\x1a\0\x04\xff\xff\xff\xff\0\0\
                    spclocation\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0\
                    size\0\0\0\0\0\0\0\0\0\0\x14\0\x08\xff\xff\xff\xff\0\0";
    acts.push(message(b'T', columns));
    acts.push(message(b'D', b"\0\x03\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\x011"));
    acts.push(message(b'C', b"SELECT\0"));
    acts.push(message(b'H', b"\0\0\0"));
    acts
}

#[test]
fn a_server_before_13_is_too_old_and_told_so() {
    let error = back_up_from(welcome("12.22"));
    assert_eq!(error.kind, ErrorKind::Unsupported);
    assert_eq!(error.message, "the server is PostgreSQL 12.22; 13 or later is needed");
}

#[test]
fn a_server_that_is_silent_is_given_up() {
    let error = back_up_from(vec![Hear, Hear]);
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.message.contains("within 2 s"), "{error}");
}

#[test]
fn a_server_that_hangs_up_is_unreachable() {
    assert_eq!(back_up_from(vec![Hear]).kind, ErrorKind::Unreachable);
}

#[test]
fn another_protocol_is_not_taken_for_postgresql() {
    let error = back_up_from(vec![Say(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), Hear]);
    assert_eq!(error.kind, ErrorKind::Corrupt);
}

#[test]
fn a_server_that_lets_us_in_without_its_proof_is_refused() {
    let offer = message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    let error = back_up_from(vec![Hear, offer, Hear, message(b'R', &[0; 4])]);
    assert_eq!(error.kind, ErrorKind::Denied);
    assert!(error.message.contains("skipped its part"), "{error}");
}

#[test]
fn the_servers_own_words_are_shown_on_one_clean_line() {
    let text = b"SFATAL\0VFATAL\0C57P03\0Mthe database\nsystem is \x1b[31mstarting up\0\0";
    let error = back_up_from(vec![Hear, message(b'E', text)]);
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert_eq!(error.message, "FATAL:  the database system is  [31mstarting up");
}

#[test]
fn a_backup_that_breaks_off_or_makes_no_sense_is_never_a_backup() {
    let archive = message(b'd', b"nbase.tar\0\0");
    for (what, last) in [
        ("the end of the connection", vec![archive.clone()]),
        ("a frame cut short", vec![archive.clone(), Say(b"d\0\0\x10\0d".to_vec())]),
        ("a huge frame", vec![archive.clone(), Say(b"d\x7f\xff\xff\xff".to_vec())]),
        ("noise in place of tar", vec![archive.clone(), message(b'd', &[b"d".as_slice(), &[b'x'; 2048]].concat())]),
        ("data before an archive", vec![message(b'd', b"dxxxx")]),
        ("an archive not announced", vec![message(b'd', b"n666.tar\0/x\0")]),
        ("a name that is a path", vec![message(b'd', b"n../../x.tar\0\0")]),
        ("an unknown message", vec![message(b'd', b"?")]),
        ("no manifest", vec![archive.clone(), message(b'c', b"")]),
        ("a manifest of nothing", vec![archive, message(b'd', b"m"), message(b'd', b"d{}"), message(b'c', b"")]),
    ] {
        let mut acts = before_backup();
        acts.extend(last);
        // What would follow a sound backup.
        acts.extend(row(&[("recptr", "0/2000100"), ("tli", "1")]));
        acts.push(message(b'C', b"SELECT\0"));
        acts.push(message(b'Z', b"I"));
        let error = back_up_from(acts);
        let kinds = [ErrorKind::Corrupt, ErrorKind::Unreachable];
        assert!(kinds.contains(&error.kind), "{what}: {error:?}");
    }
}

#[test]
fn a_server_that_names_no_number_as_its_identity_is_refused() {
    let mut acts = welcome("15.1");
    acts.extend(answer(&[("systemid", "../x"), ("timeline", "1"), ("xlogpos", "0/3000000")]));
    assert_eq!(back_up_from(acts).kind, ErrorKind::Corrupt);
}
