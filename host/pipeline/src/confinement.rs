//! What one job opens, and what it keeps the right to do.

use crate::{
    destinations,
    job::{Failure, FailureKind, Job, JobSpec},
};
use backstay_sandbox::{DirectoryInner, Rights};
use cap_std::{ambient_authority, fs::Dir};
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// The folders of a job, opened before it confined itself.
pub(crate) struct Opened {
    /// By the name a plugin opens them by.
    pub(crate) directories: BTreeMap<String, Arc<DirectoryInner>>,
    /// Where a restore goes; nothing for other jobs and for a dry run.
    pub(crate) restore_into: Option<Arc<DirectoryInner>>,
}

/// Opens what was granted. A restore's folders are made.
pub(crate) fn open(spec: &JobSpec) -> Result<Opened, Failure> {
    let mut directories = BTreeMap::new();
    for (name, grant) in &spec.target.grants.directories {
        let opened = open_folder(&grant.path, grant.writable, BTreeMap::new())
            .map_err(|error| failed("open", &grant.path, &error).hint(format!("check grants.directories.{name}")))?;
        directories.insert(name.clone(), opened);
    }
    let mut restore_into = None;
    if let Job::Restore(restore) = &spec.job {
        destinations::check(restore)?;
    }
    if let Job::Restore(restore) = &spec.job
        && !restore.dry_run
    {
        make(&restore.into)?;
        // Databases refuse a data folder that others can look into.
        fs::set_permissions(&restore.into, fs::Permissions::from_mode(0o700))
            .map_err(|error| failed("make private", &restore.into, &error))?;
        for folder in restore.volumes.values() {
            make(folder)?;
        }
        let opened = open_folder(&restore.into, true, restore.volumes.clone());
        restore_into = Some(opened.map_err(|error| failed("open", &restore.into, &error))?);
    }
    Ok(Opened { directories, restore_into })
}

/// A folder of a restore that is opened once the plan says which.
pub(crate) fn open_volume(path: &Path) -> Result<Arc<DirectoryInner>, Failure> {
    make(path)?;
    open_folder(path, true, BTreeMap::new()).map_err(|error| failed("open", path, &error))
}

fn open_folder(path: &Path, writable: bool, volumes: BTreeMap<String, PathBuf>) -> io::Result<Arc<DirectoryInner>> {
    let dir = Arc::new(Dir::open_ambient_dir(path, ambient_authority())?);
    Ok(Arc::new(DirectoryInner { dir, writable, location: path.to_owned(), volumes }))
}

fn make(path: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| failed("make", path, &error))
}

fn failed(verb: &str, path: &Path, error: &io::Error) -> Failure {
    let kind = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory => FailureKind::Usage,
        _ => FailureKind::Failed,
    };
    Failure::new(kind, format!("failed to {verb} {}: {error}", path.display()))
}

/// What the job may still do once its handles are open.
pub(crate) fn rights(spec: &JobSpec) -> Rights {
    let mut rights = Rights::default();
    let grants = &spec.target.grants;
    for endpoint in grants.endpoints.values() {
        rights.connect.extend(port(&endpoint.address));
        let files = [&endpoint.ca_file, &endpoint.client_cert_file, &endpoint.client_key_file];
        rights.read.extend(files.into_iter().flatten().cloned());
    }
    for directory in grants.directories.values() {
        if directory.writable {
            rights.write.push(directory.path.clone())
        } else {
            rights.read.push(directory.path.clone())
        }
    }
    rights.run.extend(grants.tools.values().cloned());
    if let Job::Restore(restore) = &spec.job {
        rights.write.push(restore.into.clone());
        rights.write.extend(restore.volumes.values().cloned());
    }
    if let Some(repository) = &spec.repository {
        add_store(&mut rights, repository);
    }
    rights
}

fn add_store(rights: &mut Rights, repository: &crate::job::RepositorySpec) {
    let folder = url::Url::parse(&repository.url).ok().filter(|url| url.scheme() == "file");
    match folder.and_then(|url| url.to_file_path().ok()) {
        Some(path) => rights.write.push(path),
        None => {
            // The store itself, and the places cloud credentials come from.
            rights.connect.extend([443, 80]);
            let endpoint = repository.options.get("endpoint").map(|endpoint| endpoint.reveal().to_owned());
            let endpoint = endpoint.or_else(|| std::env::var("AWS_ENDPOINT_URL").ok());
            let port = endpoint.and_then(|endpoint| url::Url::parse(&endpoint).ok()?.port_or_known_default());
            rights.connect.extend(port);
            if let Ok(token) = std::env::var("AWS_WEB_IDENTITY_TOKEN_FILE") {
                rights.read.push(token.into());
            }
        }
    }
}

fn port(address: &str) -> Option<u16> {
    if address.starts_with('/') {
        return None;
    }
    address.rsplit_once(':').and_then(|(_, port)| port.parse().ok())
}
