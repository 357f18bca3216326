//! Any tree of files goes through us and through stock restic, both ways, and comes back the same.

use crate::stock::*;
use backstay_core::{RelativePath, Timestamp};
use backstay_repo::*;
use proptest::prelude::*;
use rustix::fs::{AtFlags, Timespec, Timestamps, utimensat};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Trees for each property: a backup and a restore of restic take most of a second.
const CASES: u32 = 6;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Thing {
    Folder,
    File(Vec<u8>),
    Link(OsString),
}

/// What is at a path: the thing, its permissions, its time in nanoseconds. A link's permissions are nothing.
type Trees = BTreeMap<PathBuf, (Thing, u32, i128)>;

/// Where something is to be made, and with what.
#[derive(Clone, Debug)]
struct Entry {
    parts: Vec<Vec<u8>>,
    thing: Thing,
    mode: u32,
    nanoseconds: i128,
}

/// Lengths at the edges of pages and of the smallest chunks, and any others.
fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![
        prop_oneof![Just(0), Just(1), Just(4095), Just(4096), Just(4097), Just(8191), Just(8192), Just(8193)],
        prop_oneof![Just((16 << 10) - 1), Just(16 << 10), Just((128 << 10) + 1), Just(1 << 20)],
        0usize..60_000,
    ]
}

fn things(target: impl Strategy<Value = OsString> + 'static) -> impl Strategy<Value = Thing> {
    let file = (0u64..6, lengths())
        .prop_map(|(seed, length)| Thing::File(if seed == 0 { vec![0; length] } else { noise(seed, length) }));
    prop_oneof![6 => file, 1 => Just(Thing::Folder), 1 => target.prop_map(Thing::Link)]
}

/// Any bytes that a file may be called.
fn byte_names() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("no file may have it", |byte| !matches!(byte, 0 | b'/'));
    let odd: &[&[u8]] = &[
        b"\xff\xfe",
        b"\xc3",
        b"a\xc3\x28",
        b"\xed\xa0\x80",
        b"new\nline",
        b"\"quoted\"",
        b"back\\slash",
        b"\\x41",
        b"\\n",
        b"\x01\x1b[31m\x7f",
        b"trailing ",
        b" leading",
        b"\t",
        b"-rf",
        b"...",
        b"\xe2\x80\x8b",
        b"\xc3\xa9",
        b"e\xcc\x81",
        b"\xf0\x9f\x98\x80",
        b"*?[x]",
        b"$HOME",
        b"~",
        b"%20",
        b"\xef\xbf\xbd",
        b".backstay",
    ];
    prop_oneof![
        3 => proptest::collection::vec(byte.clone(), 1..12),
        1 => proptest::collection::vec(byte, 255..=255),
        3 => proptest::sample::select(odd).prop_map(<[u8]>::to_vec),
        2 => "[a-c]{1,2}".prop_map(String::into_bytes),
    ]
    .prop_filter("a name", |name| !matches!(name.as_slice(), b"." | b".."))
}

/// Any text that a path of our own may have for a part.
fn text_names() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof!["\\PC{1,60}", "(?s).{1,30}", "[a-c]{1,2}", "é{127}x", "[\\x01-\\x1f\"\\\\ ]{1,9}"]
        .prop_filter("a part of a path", |name| {
            RelativePath::new(name.as_str()).is_ok_and(|path| path.parts().count() == 1)
        })
        .prop_map(String::into_bytes)
}

fn entries<N: Strategy<Value = Vec<u8>> + 'static>(
    name: fn() -> N,
    target: impl Strategy<Value = OsString> + 'static,
) -> impl Strategy<Value = Vec<Entry>> {
    let parts = prop_oneof![30 => proptest::collection::vec(name(), 1..5), 1 => Just(vec![b"deep".to_vec(); 60])];
    // From 1970 to 2255, as far as nanoseconds of files reach everywhere.
    let time = 0i128..9_000_000_000_000_000_000;
    let entry = (parts, things(target), 0u32..0o10000, time).prop_map(|(parts, thing, mode, nanoseconds)| {
        let always = if thing == Thing::Folder { 0o700 } else { 0o400 };
        Entry { parts, thing, mode: mode | always, nanoseconds }
    });
    proptest::collection::vec(entry, 1..40)
}

/// The tree that these entries make where the first of two that exclude each other wins. Folders that nobody asked for
/// are left out.
fn settle(entries: &[Entry]) -> Trees {
    let mut trees = Trees::new();
    let mut implied = BTreeSet::new();
    for entry in entries {
        let parts: Vec<&OsStr> = entry.parts.iter().map(|part| OsStr::from_bytes(part)).collect();
        let path: PathBuf = parts.iter().collect();
        let parents: Vec<PathBuf> = (1..parts.len()).map(|count| parts[..count].iter().collect()).collect();
        let folders = parents.iter().all(|at| trees.get(at).is_none_or(|(thing, ..)| *thing == Thing::Folder));
        let room = entry.thing == Thing::Folder || !implied.contains(&path);
        // As long as a path may be, with room for where the test puts it.
        if !folders || !room || trees.contains_key(&path) || path.as_os_str().len() > 3500 {
            continue;
        }
        implied.extend(parents);
        let mode = if matches!(entry.thing, Thing::Link(_)) { 0 } else { entry.mode };
        trees.insert(path, (entry.thing.clone(), mode, entry.nanoseconds));
    }
    trees
}

fn set_time(path: &Path, nanoseconds: i128) {
    let time = Timespec { tv_sec: (nanoseconds / 1_000_000_000) as i64, tv_nsec: (nanoseconds % 1_000_000_000) as i64 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(rustix::fs::CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn make(root: &Path, trees: &Trees) {
    for (path, (thing, ..)) in trees {
        let at = root.join(path);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        match thing {
            Thing::Folder => std::fs::create_dir_all(&at).unwrap(),
            Thing::File(bytes) => std::fs::write(&at, bytes).unwrap(),
            Thing::Link(target) => std::os::unix::fs::symlink(target, &at).unwrap(),
        }
    }
    // What lies below first: whatever is made in a folder moves its time.
    for (path, (thing, mode, nanoseconds)) in trees.iter().rev() {
        let at = root.join(path);
        if !matches!(thing, Thing::Link(_)) {
            std::fs::set_permissions(&at, std::fs::Permissions::from_mode(*mode)).unwrap();
        }
        set_time(&at, *nanoseconds);
    }
}

/// Everything below `root`.
fn look(root: &Path) -> Trees {
    let mut trees = Trees::new();
    for entry in walk(root) {
        let (path, there) = (entry.path(), entry.metadata().unwrap());
        let mut mode = there.permissions().mode() & 0o7777;
        let thing = if there.is_dir() {
            Thing::Folder
        } else if there.is_symlink() {
            mode = 0;
            Thing::Link(std::fs::read_link(path).unwrap().into())
        } else {
            Thing::File(std::fs::read(path).unwrap())
        };
        let nanoseconds = i128::from(there.mtime()) * 1_000_000_000 + i128::from(there.mtime_nsec());
        trees.insert(path.strip_prefix(root).unwrap().to_owned(), (thing, mode, nanoseconds));
    }
    trees
}

/// The same to the microsecond, which is what we promise.
fn micros(mut trees: Trees) -> Trees {
    trees.values_mut().for_each(|(.., nanoseconds)| *nanoseconds -= *nanoseconds % 1000);
    trees
}

/// Without the folders that nobody described: whoever makes those chooses their attributes.
fn described(mut trees: Trees, by: &Trees) -> Trees {
    trees.retain(|path, (thing, ..)| *thing != Thing::Folder || by.contains_key(path));
    trees
}

#[track_caller]
fn assert_same(got: &Trees, wanted: &Trees) {
    for (path, wanted) in wanted {
        let got = got.get(path).unwrap_or_else(|| panic!("{path:?} is not there"));
        let kind = |thing: &Thing| match thing {
            Thing::File(bytes) => format!("a file of {} bytes", bytes.len()),
            other => format!("{other:?}"),
        };
        let shown = |(thing, mode, time): &(Thing, u32, i128)| format!("{} {mode:o} {time}", kind(thing));
        assert!(got == wanted, "{path:?} is {}, not {}", shown(got), shown(wanted));
    }
    let more: Vec<_> = got.keys().filter(|path| !wanted.contains_key(*path)).collect();
    assert!(more.is_empty(), "{more:?} should not be there");
}

/// Every folder may be entered again, so that it can be removed.
fn release(folder: &Path) {
    std::process::Command::new("chmod").args(["-R", "u+rwx"]).arg(folder).status().unwrap();
}

fn any_target() -> impl Strategy<Value = OsString> {
    prop_oneof![
        // restic 0.14 keeps targets as text.
        text_names().prop_map(OsString::from_vec),
        Just("../../out/of/it".into()),
        Just("/etc/passwd".into()),
        Just("x".repeat(4000).into()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn what_restic_stored_we_restore(one in entries(byte_names, any_target()), other in entries(byte_names, any_target())) {
        let root = tempfile::tempdir().unwrap();
        let repo = root.path().join("repo");
        let run = |arguments: &[&OsStr]| {
            let arguments: Vec<&str> = arguments.iter().map(|argument| argument.to_str().unwrap()).collect();
            let output = restic(&repo, &arguments);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        run(&["init".as_ref(), "--repository-version".as_ref(), "2".as_ref()]);
        let into = root.path().join("into");
        std::fs::create_dir(&into).unwrap();
        for (round, entries) in [one, other].iter().enumerate() {
            let (source, trees) = (root.path().join(format!("source{round}")), settle(entries));
            std::fs::create_dir(&source).unwrap();
            make(&source, &trees);
            let wanted = micros(look(&source));
            run(&["backup".as_ref(), source.as_os_str()]);
            runtime().block_on(async {
                let repository = Repository::open(store(&repo), &Password::new(PASSWORD)).await.unwrap();
                let report = repository.check(CheckOptions::everything(), |_| {}).await.unwrap();
                assert!(report.is_sound(), "{:#?}", report.errors);
                let backup = repository.snapshots().await.unwrap().pop().unwrap();
                let reader = repository.open_snapshot(&backup.id).await.unwrap();
                let inside = path(source.strip_prefix("/").unwrap().to_str().unwrap());
                // The second is placed over the first.
                reader.place(&inside, &open(&into), PlaceOptions::default()).await.unwrap();
            });
            assert_same(&look(&into), &wanted);
            release(&source);
        }
        release(&into);
    }

    #[test]
    fn what_we_stored_restic_restores_and_so_do_we(entries in entries(text_names, any_target())) {
        runtime().block_on(async {
            let bench = Bench::new().await;
            let trees = settle(&entries);
            let session = bench.repository.backup(BackupOptions::default()).await.unwrap();
            session.put_directory(&path("data"), attributes()).await.unwrap();
            for (at, (thing, mode, nanoseconds)) in &trees {
                let at = path("data").join(&path(at.to_str().unwrap())).unwrap();
                let modified = Timestamp::from_micros((nanoseconds / 1000) as u64);
                let attributes = FileAttributes { mode: *mode, modified };
                match thing {
                    Thing::Folder => session.put_directory(&at, attributes).await.unwrap(),
                    Thing::File(bytes) => drop(session.put_file(&at, attributes, body(bytes, 5000)).await.unwrap()),
                    Thing::Link(to) => session.put_symlink(&at, to.to_str().unwrap(), modified).await.unwrap(),
                }
            }
            let backup = session.commit(meta()).await.unwrap();
            bench.assert_sound().await;
            let wanted = micros(trees);

            let (ours, into) = bench.target("ours");
            let reader = bench.repository.open_snapshot(&backup.id).await.unwrap();
            reader.place(&path("data"), &into, PlaceOptions::default()).await.unwrap();
            assert_same(&described(look(&ours), &wanted), &wanted);
            release(&ours);

            let (theirs, _) = bench.target("theirs");
            bench.restic(&["restore", backup.id.as_str(), "--target", theirs.to_str().unwrap()]);
            assert_same(&described(look(&theirs.join("data")), &wanted), &wanted);
            release(&theirs);
        });
    }
}

/// As deep as we go, with the longest names at the end.
#[tokio::test(flavor = "multi_thread")]
async fn deep_folders_go_through_both_ways() {
    let bench = Bench::new().await;
    let source = bench.root.path().join("source");
    let mut parts = vec![b"d".to_vec(); 200];
    parts.extend([vec![0xff; 255], vec![b'"'; 255]]);
    let entry =
        Entry { parts, thing: Thing::File(noise(1, 5000)), mode: 0o600, nanoseconds: 1_795_316_645_678_901_000 };
    std::fs::create_dir(&source).unwrap();
    make(&source, &settle(&[entry]));
    bench.restic(&["backup", source.to_str().unwrap()]);
    let snapshot = bench.repository.snapshots().await.unwrap().remove(0);
    let reader = bench.repository.open_snapshot(&snapshot.id).await.unwrap();
    let (into, folder) = bench.target("into");
    let inside = path(source.strip_prefix("/").unwrap().to_str().unwrap());
    reader.place(&inside, &folder, PlaceOptions::default()).await.unwrap();
    assert_same(&look(&into), &micros(look(&source)));

    let session = bench.repository.backup(BackupOptions::default()).await.unwrap();
    let deep = path(&["d"; 250].join("/"));
    session.put_file(&deep, attributes(), body(b"deep", 9)).await.unwrap();
    let backup = session.commit(meta()).await.unwrap();
    bench.assert_sound().await;
    let (theirs, _) = bench.target("theirs");
    bench.restic(&["restore", backup.id.as_str(), "--target", theirs.to_str().unwrap()]);
    assert_eq!(std::fs::read(theirs.join(deep.as_str())).unwrap(), b"deep");
}

/// Bytes of the sparse file: beyond what 32 bits count, and no multiple of anything.
const SPARSE_BYTES: u64 = (4 << 30) + 12_345;

/// A file of holes but for a few bytes, some of them beyond 4 GiB.
fn sparse(at: &Path) {
    let file = std::fs::File::create(at).unwrap();
    file.set_len(SPARSE_BYTES).unwrap();
    for offset in [0, 1 << 31, (4 << 30) - 5, SPARSE_BYTES - 11] {
        file.write_all_at(b"not a hole!", offset).unwrap();
    }
}

fn assert_sparse(at: &Path) {
    let file = std::fs::File::open(at).unwrap();
    assert_eq!(file.metadata().unwrap().len(), SPARSE_BYTES);
    for offset in [0, 1 << 31, (4 << 30) - 5, SPARSE_BYTES - 11] {
        let mut found = [1; 33];
        let before = offset.min(11);
        let room = (SPARSE_BYTES - offset).min(22) + before;
        file.read_exact_at(&mut found[..room as usize], offset - before).unwrap();
        let mut wanted = [1; 33];
        wanted[..room as usize].fill(0);
        wanted[before as usize..][..11].copy_from_slice(b"not a hole!");
        assert_eq!(found, wanted, "at {offset}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sparse_file_beyond_4_gib_goes_through_both_ways() {
    let bench = Bench::new().await;
    let source = bench.root.path().join("sparse");
    sparse(&source);
    let session = bench.repository.backup(BackupOptions::default()).await.unwrap();
    let file = std::fs::File::open(&source).unwrap();
    let stored = session.put_local(&path("data/sparse"), attributes(), file, None).await.unwrap();
    let backup = session.commit(meta()).await.unwrap();
    assert_eq!(stored.bytes, SPARSE_BYTES);
    assert!(backup.totals.new_bytes < 2 << 20, "the holes were stored: {:?}", backup.totals);
    bench.assert_sound().await;
    let (into, folder) = bench.target("into");
    let reader = bench.repository.open_snapshot(&backup.id).await.unwrap();
    reader.place(&path("data"), &folder, PlaceOptions::default()).await.unwrap();
    assert_sparse(&into.join("sparse"));
    assert!(std::fs::metadata(into.join("sparse")).unwrap().blocks() < 20_000, "the holes were written");
    std::fs::remove_file(into.join("sparse")).unwrap();
    // Dumped into the same kind of file: restic 0.14 would write the holes to the disk.
    let dumped = bench.root.path().join("dumped");
    dump(&bench, backup.id.as_str(), "/data/sparse", &dumped);
    assert_sparse(&dumped);

    bench.restic(&["backup", source.to_str().unwrap()]);
    let theirs = bench.repository.snapshots().await.unwrap();
    let theirs = theirs.iter().find(|snapshot| snapshot.id != backup.id).unwrap();
    let reader = bench.repository.open_snapshot(&theirs.id).await.unwrap();
    let inside = path(bench.root.path().strip_prefix("/").unwrap().to_str().unwrap());
    reader.place(&inside, &folder, PlaceOptions::default()).await.unwrap();
    assert_sparse(&into.join("sparse"));
}

/// Lets restic write one file to its output, and leaves holes where that is zeros.
fn dump(bench: &Bench, id: &str, file: &str, to: &Path) {
    use std::io::Read;
    let mut restic = std::process::Command::new("restic");
    restic.args(["--no-cache", "--quiet", "--repo"]).arg(bench.folder()).args(["dump", id, file]);
    let mut child = restic.env("RESTIC_PASSWORD", PASSWORD).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    let (file, mut at, mut buffer) = (std::fs::File::create(to).unwrap(), 0, vec![0; 1 << 20]);
    loop {
        let read = output.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        if buffer[..read].iter().any(|byte| *byte != 0) {
            file.write_all_at(&buffer[..read], at).unwrap();
        }
        at += read as u64;
    }
    file.set_len(at).unwrap();
    assert!(child.wait().unwrap().success());
}
