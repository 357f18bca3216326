//! A job that shut itself in reaches nothing but what its rights name.

use crate::support::{child, plugins};
use backstay_sandbox::{Confinement, Plugin, Rights, confine};
use std::{
    fs,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
};

/// In a process of its own: confinement lasts as long as the process.
pub(crate) fn act() {
    let folder = PathBuf::from(child::setting("FOLDER"));
    let port = |name: &str| child::setting(name).parse::<u16>().unwrap();
    let (granted, other) = (port("GRANTED"), port("OTHER"));
    let mut open_before = fs::File::open(folder.join("outside/file")).unwrap();

    let rights = Rights {
        read: vec![folder.join("read"), folder.join("single"), folder.join("missing")],
        write: vec![folder.join("write")],
        run: Vec::new(),
        connect: vec![granted],
    };
    let how_far = confine(&rights).unwrap();
    assert_ne!(how_far, Confinement::None, "this kernel has no Landlock: run the tests on Linux 5.13 or newer with it");

    // What was granted works.
    assert_eq!(fs::read(folder.join("read/file")).unwrap(), b"readable");
    assert_eq!(fs::read(folder.join("single")).unwrap(), b"single");
    fs::write(folder.join("write/new"), "new").unwrap();
    fs::rename(folder.join("write/new"), folder.join("write/renamed")).unwrap();
    fs::create_dir(folder.join("write/folder")).unwrap();
    fs::remove_file(folder.join("write/renamed")).unwrap();
    TcpStream::connect(("127.0.0.1", granted)).unwrap().write_all(b"x").unwrap();
    let mut text = String::new();
    open_before.read_to_string(&mut text).unwrap();
    assert_eq!(text, "outside", "a handle from before still works");

    // Nothing else does, also not from threads that start later.
    let refused = |what: &str, result: io::Result<()>| {
        let error = result.expect_err(what);
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{what}: {error}");
    };
    refused("reading outside", fs::read(folder.join("outside/file")).map(drop));
    refused("listing outside", fs::read_dir(folder.join("outside")).map(drop));
    refused("writing outside", fs::write(folder.join("outside/new"), "x"));
    refused("making a folder outside", fs::create_dir(folder.join("outside/folder")));
    refused("writing where it may read", fs::write(folder.join("read/file"), "x"));
    refused("adding where it may read", fs::write(folder.join("read/new"), "x"));
    refused("removing where it may read", fs::remove_file(folder.join("read/file")));
    refused("reading by another way", fs::read(folder.join("write/../outside/file")).map(drop));
    refused("reading this process", fs::read("/proc/self/environ").map(drop));
    refused("running a program", Command::new("/bin/true").status().map(drop));
    refused("connecting elsewhere", TcpStream::connect(("127.0.0.1", other)).map(drop));
    refused("listening", TcpListener::bind("127.0.0.1:0").map(drop));
    let file = folder.join("outside/file");
    refused("a later thread", std::thread::spawn(move || fs::read(file).map(drop)).join().unwrap());
    println!("confinement holds");
}

#[test]
fn a_confined_process_cannot_reach_what_it_was_not_given() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["read", "write", "outside"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("read/file"), "readable").unwrap();
    fs::write(folder.path().join("outside/file"), "outside").unwrap();
    fs::write(folder.path().join("single"), "single").unwrap();
    let granted = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = child::run(
        "confine",
        &[
            ("FOLDER", folder.path().to_str().unwrap()),
            ("GRANTED", &granted.local_addr().unwrap().port().to_string()),
            ("OTHER", &other.local_addr().unwrap().port().to_string()),
        ],
    );
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("confinement holds"), "{told}");
    assert_eq!(fs::read(folder.path().join("read/file")).unwrap(), b"readable");
    assert_eq!(fs::read_dir(folder.path().join("outside")).unwrap().count(), 1);
}

/// In a process of its own, as compiling is.
pub(crate) fn act_as_compiler() {
    let folder = PathBuf::from(child::setting("FOLDER"));
    backstay_sandbox::compile(child::setting("COMPONENT").as_ref(), &folder.join("cache")).unwrap();
    let error = fs::read(folder.join("outside")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "reading outside: {error}");
    fs::write(folder.join("new"), "x").unwrap_err();
    TcpStream::connect(("127.0.0.1", child::setting("PORT").parse::<u16>().unwrap())).unwrap_err();
    println!("the compiler is shut in");
}

#[test]
fn the_compiler_reaches_its_cache_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("outside"), "secret").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let component = plugins::component("files");
    let output = child::run(
        "confined compiler",
        &[
            ("FOLDER", folder.path().to_str().unwrap()),
            ("COMPONENT", component.to_str().unwrap()),
            ("PORT", &listener.local_addr().unwrap().port().to_string()),
        ],
    );
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("the compiler is shut in"), "{told}");
    assert!(Plugin::load(&component, &folder.path().join("cache")).unwrap().is_some());
    assert!(!folder.path().join("new").exists());
}
