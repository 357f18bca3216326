//! What one job opens, and what it keeps the right to do.

use crate::{
    destinations,
    job::{Failure, FailureKind, Job, JobSpec, RepositorySpec},
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

fn add_store(rights: &mut Rights, repository: &RepositorySpec) {
    let access = crate::repository::store_config(repository).access();
    rights.write.extend(access.folder);
    rights.connect.extend(access.ports);
    rights.read.extend(access.files);
}

fn port(address: &str) -> Option<u16> {
    if address.starts_with('/') {
        return None;
    }
    address.rsplit_once(':').and_then(|(_, port)| port.parse().ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::job::{Access, LogLevel, RestoreSpec, RestoreTo, TargetSpec};
    use backstay_core::Secret;
    use backstay_sandbox::{DirectoryGrant, EndpointGrant, Grants, Limits};

    fn spec(job: Job) -> JobSpec {
        let target = TargetSpec {
            name: "shop".parse().unwrap(),
            engine: "postgresql".to_owned(),
            plugin: "/plugins/postgresql.wasm".into(),
            settings: serde_json::Value::Null,
            grants: Grants::default(),
            limits: Limits::default(),
        };
        JobSpec { job, target, repository: None, cache: "/cache".into(), log_level: LogLevel::Info }
    }

    fn endpoint(address: &str) -> EndpointGrant {
        EndpointGrant {
            address: address.to_owned(),
            ca_file: None,
            server_name: None,
            client_cert_file: None,
            client_key_file: None,
        }
    }

    fn repository(url: &str, options: &[(&str, &str)]) -> Option<RepositorySpec> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), Secret::new((*value).to_owned())));
        Some(RepositorySpec {
            name: "main".to_owned(),
            url: url.to_owned(),
            options: options.collect(),
            access: Access::Password(Secret::new("secret".to_owned())),
        })
    }

    fn paths(paths: &[&str]) -> Vec<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    fn restore(dry_run: bool) -> Job {
        Job::Restore(RestoreSpec {
            into: "/srv/a".into(),
            to: RestoreTo::Latest,
            inclusive: true,
            backup: None,
            volumes: [("fast".to_owned(), "/srv/fast".into())].into(),
            delta: false,
            dry_run,
        })
    }

    #[test]
    fn a_job_without_grants_and_repository_keeps_no_right() {
        let Rights { read, write, run, connect } = rights(&spec(Job::Inspect));
        assert!(read.is_empty() && write.is_empty() && run.is_empty() && connect.is_empty());
    }

    #[test]
    fn every_grant_becomes_the_right_it_needs_and_no_other() {
        let mut spec = spec(Job::Inspect);
        let grants = &mut spec.target.grants;
        let tls = EndpointGrant {
            ca_file: Some("/tls/ca.pem".into()),
            client_cert_file: Some("/tls/client.pem".into()),
            client_key_file: Some("/tls/client.key".into()),
            ..endpoint("[::1]:5433")
        };
        grants.endpoints.insert("primary".to_owned(), endpoint("db.example.com:5432"));
        grants.endpoints.insert("standby".to_owned(), tls);
        grants.endpoints.insert("socket".to_owned(), endpoint("/run/postgresql/.s.PGSQL.5432"));
        grants.directories.insert("data".to_owned(), DirectoryGrant { path: "/data".into(), writable: false });
        grants.directories.insert("spool".to_owned(), DirectoryGrant { path: "/spool".into(), writable: true });
        grants.tools.insert("pg_ctl".to_owned(), "/usr/bin/pg_ctl".into());
        let Rights { read, write, run, connect } = rights(&spec);
        assert_eq!(connect, [5432, 5433]);
        assert_eq!(read, paths(&["/tls/ca.pem", "/tls/client.pem", "/tls/client.key", "/data"]));
        assert_eq!(write, paths(&["/spool"]));
        assert_eq!(run, paths(&["/usr/bin/pg_ctl"]));
    }

    #[test]
    fn a_restore_writes_to_its_folders() {
        assert_eq!(rights(&spec(restore(false))).write, paths(&["/srv/a", "/srv/fast"]));
    }

    #[test]
    fn a_repository_in_a_folder_needs_that_folder_and_no_network() {
        let spec = JobSpec { repository: repository("file:///srv/my%20repo", &[]), ..spec(Job::Inspect) };
        let Rights { write, connect, .. } = rights(&spec);
        assert_eq!(write, paths(&["/srv/my repo"]));
        assert!(connect.is_empty());
    }

    #[test]
    fn a_repository_in_a_bucket_needs_its_endpoints_port_and_no_folder() {
        let options = [("endpoint", "http://127.0.0.1:9000")];
        let spec = JobSpec { repository: repository("s3://bucket/prefix", &options), ..spec(Job::Inspect) };
        let Rights { write, connect, .. } = rights(&spec);
        assert!(write.is_empty());
        assert!(connect.contains(&9000) && connect.contains(&443), "{connect:?}");
    }

    #[test]
    fn the_folders_of_a_restore_are_private_and_those_of_a_dry_run_are_not_made() {
        let disk = tempfile::tempdir().unwrap();
        let (into, fast) = (disk.path().join("a/data"), disk.path().join("b/fast"));
        let told = |dry_run| {
            let Job::Restore(restore) = restore(dry_run) else { unreachable!() };
            let volumes = [("fast".to_owned(), fast.clone())].into();
            spec(Job::Restore(RestoreSpec { into: into.clone(), volumes, ..restore }))
        };
        assert!(open(&told(true)).unwrap().restore_into.is_none());
        assert!(!into.exists() && !fast.exists());

        let opened = open(&told(false)).unwrap().restore_into.unwrap();
        assert!(opened.writable);
        for folder in [&into, &fast] {
            assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700, "{}", folder.display());
        }
    }

    #[test]
    fn a_granted_folder_that_is_not_there_is_told_by_its_key() {
        let mut spec = spec(Job::Inspect);
        let grant = DirectoryGrant { path: "/nowhere/at/all".into(), writable: false };
        spec.target.grants.directories.insert("data".to_owned(), grant);
        let failure = open(&spec).err().unwrap();
        assert_eq!(failure.kind, FailureKind::Usage);
        assert_eq!(failure.hint.as_deref(), Some("check grants.directories.data"));
    }
}
