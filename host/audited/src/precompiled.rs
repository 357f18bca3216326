//! Compiled plugins, kept so that a job starts in milliseconds.
//!
//! Loading compiled code runs it natively. This loads only what this user wrote into a
//! folder that only this user can write, and what still has the digest that was recorded
//! when it was written. The key holds the component's digest and the runtime's own
//! compatibility hash.

use aws_lc_rs::digest::{SHA256, digest};
use rustix::fs::{Mode, OFlags};
use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};
use wasmtime::{Engine, component::Component};

/// What a kept file starts with; then the digest of the rest.
const MAGIC: &[u8; 8] = b"bkstycw1";
const DIGEST_BYTES: usize = 32;

/// The file a compiled component is kept in.
pub fn kept_at(folder: &Path, engine: &Engine, component: &[u8]) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    let component = hex::encode(digest(&SHA256, component));
    folder.join(format!("{component}-{:016x}.cwasm", hasher.finish()))
}

/// The file that something else is kept in which belongs to a component: `what` names it, and whatever it depends on.
pub fn kept_beside(folder: &Path, component: &[u8], what: &str) -> PathBuf {
    folder.join(format!("{}-{what}", hex::encode(digest(&SHA256, component))))
}

/// Loads a kept component; nothing when there is none that may be believed.
pub fn load(path: &Path, engine: &Engine) -> Option<Component> {
    let bytes = read_own(path).ok()?;
    let compiled = kept(&bytes)?;
    // SAFETY: `deserialize` needs bytes that this very version of wasmtime made with
    // `precompile_component`. `read_own` took them from a regular file that belongs to
    // this user in a folder no one else can write; the name binds them to the component
    // and the runtime's settings, the digest to what `keep` wrote.
    #[allow(unsafe_code)]
    unsafe { Component::deserialize(engine, compiled) }.ok()
}

/// Reads what was kept; nothing when there is none that may be believed.
pub fn read(path: &Path) -> Option<Vec<u8>> {
    kept(&read_own(path).ok()?).map(<[u8]>::to_vec)
}

/// What `keep` was given, if this is all of it.
fn kept(bytes: &[u8]) -> Option<&[u8]> {
    let (recorded, kept) = bytes.strip_prefix(MAGIC)?.split_at_checked(DIGEST_BYTES)?;
    (digest(&SHA256, kept).as_ref() == recorded).then_some(kept)
}

/// Keeps a compiled component, or what belongs to it.
///
/// # Errors
/// Whatever the file system reports; when others can write the folder.
pub fn keep(path: &Path, compiled: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    private_folder(folder)?;
    // Processes of two containers may have the same number: then they write the same at the same time.
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let beside = folder.join(format!(".new-{}-{}", std::process::id(), name.display()));
    // One that an earlier process of the same number left behind.
    let _ = fs::remove_file(&beside);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(MAGIC)?;
    file.write_all(digest(&SHA256, compiled).as_ref())?;
    file.write_all(compiled)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

/// Makes the folder, or refuses one that somebody else could write.
///
/// # Errors
/// Whatever the file system reports; when others can write the folder.
pub fn private_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let metadata = fs::symlink_metadata(folder)?;
    if !metadata.is_dir() || !is_private(&metadata) {
        return Err(io::Error::other(format!("{} can be written by others", folder.display())));
    }
    Ok(())
}

fn is_private(metadata: &fs::Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0
}

fn read_own(path: &Path) -> io::Result<Vec<u8>> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    if !is_private(&fs::symlink_metadata(folder)?) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let descriptor = rustix::fs::open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let mut file = fs::File::from(descriptor);
    let metadata = file.metadata()?;
    if !metadata.is_file() || !is_private(&metadata) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_changed_or_shared_file_is_not_believed() {
        let engine = Engine::default();
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let component = b"(component)";
        let path = kept_at(folder.path(), &engine, component);
        let empty = [0x00, 0x61, 0x73, 0x6d, 0x0d, 0x00, 0x01, 0x00];
        let compiled = engine.precompile_component(&empty).unwrap();
        keep(&path, &compiled).unwrap();
        assert!(load(&path, &engine).is_some());

        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(load(&path, &engine).is_none(), "a folder that others can write was believed");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();

        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(load(&path, &engine).is_none(), "changed bytes were believed");
    }
}
