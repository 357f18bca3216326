//! Which folders a restore may write to.
//!
//! A restore removes from a folder what is not in the backup. So it takes one only when nothing
//! can be lost in it: an empty one, or with `--delta` the one that holds the older state. Of a
//! volume's folder that is known only when the older state itself points there: a location
//! from the backup, or a slip in `--map`, may be a running database's or anybody's.

use crate::{
    job::{Failure, FailureKind, RestoreSpec},
    limits::LINK_DEPTH_MAX,
};
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

/// Refuses a restore that would destroy what it must not. Answers the folders that hold
/// something already: what is not in the backup goes from there.
///
/// It has to run where all of them can be looked into: a process that confined itself before it
/// knew the plan cannot.
pub(crate) fn check(restore: &RestoreSpec) -> Result<Vec<PathBuf>, Failure> {
    refuse_shared(restore)?;
    let mut occupied = Vec::new();
    if is_occupied(&restore.into)? {
        if !restore.delta {
            return Err(refused(&restore.into, "it is not empty")
                .hint("choose an empty folder, or add --delta when it holds an older state of this database"));
        }
        occupied.push(restore.into.clone());
    }
    let mut linked = None;
    for (name, folder) in &restore.volumes {
        if !is_occupied(folder)? {
            continue;
        }
        let choose = format!("choose an empty folder with --map {name}=DIR");
        if !restore.delta {
            return Err(refused(folder, "it is not empty").hint(choose));
        }
        let linked = linked.get_or_insert_with(|| links(&restore.into));
        if !fs::canonicalize(folder).is_ok_and(|place| linked.contains(&place)) {
            let why = format!("it is not empty, and no link in {} points to it", restore.into.display());
            return Err(refused(folder, &why).hint(choose));
        }
        occupied.push(folder.clone());
    }
    Ok(occupied)
}

/// Two volumes in one folder would remove each other's files, and a volume around the main
/// folder all of it.
fn refuse_shared(restore: &RestoreSpec) -> Result<(), Failure> {
    let into = settled(&restore.into);
    let volumes: Vec<(&String, PathBuf)> =
        restore.volumes.iter().map(|(name, folder)| (name, settled(folder))).collect();
    for (number, (name, folder)) in volumes.iter().enumerate() {
        let other = volumes[..number].iter().find(|(_, other)| folder.starts_with(other) || other.starts_with(folder));
        let why = match other {
            Some((other, _)) => format!("volume {other} goes there too"),
            None if into.starts_with(folder) => format!("{} lies in it", restore.into.display()),
            None => continue,
        };
        return Err(refused(folder, &why).hint(format!("choose a folder of its own with --map {name}=DIR")));
    }
    Ok(())
}

/// The folder's real place; of one that is still to be made, the place it will have.
fn settled(folder: &Path) -> PathBuf {
    if let Ok(place) = fs::canonicalize(folder) {
        return place;
    }
    match (folder.parent(), folder.file_name()) {
        (Some(parent), Some(name)) => settled(parent).join(name),
        _ => folder.to_owned(),
    }
}

fn is_occupied(folder: &Path) -> Result<bool, Failure> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => {
            Err(Failure::new(FailureKind::Usage, format!("failed to look into {}: {error}", folder.display())))
        }
    }
}

/// Where the links in a folder lead; links are not followed on the way. What cannot be read
/// counts as no link: the restore is refused then.
fn links(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![(folder.to_owned(), 1)];
    while let Some((folder, depth)) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_symlink() => found.extend(fs::canonicalize(entry.path())),
                Ok(kind) if kind.is_dir() && depth < LINK_DEPTH_MAX => waiting.push((entry.path(), depth + 1)),
                _ => {}
            }
        }
    }
    found
}

fn refused(folder: &Path, why: &str) -> Failure {
    Failure::new(FailureKind::Usage, format!("failed to restore into {}: {why}", folder.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::job::RestoreTo;
    use std::os::unix::fs::symlink;

    struct Disk(tempfile::TempDir);

    impl Disk {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn folder(&self, name: &str, file: &str) {
            fs::create_dir_all(self.path(name)).unwrap();
            fs::write(self.path(name).join(file), "precious").unwrap();
        }

        /// A restore into `data` with these volumes.
        fn restore(&self, delta: bool, volumes: &[(&str, &str)]) -> RestoreSpec {
            RestoreSpec {
                into: self.path("data"),
                to: RestoreTo::Latest,
                inclusive: true,
                backup: None,
                volumes: volumes.iter().map(|(name, folder)| ((*name).to_owned(), self.path(folder))).collect(),
                delta,
                dry_run: false,
            }
        }
    }

    fn refusal(restore: &RestoreSpec) -> String {
        let failure = check(restore).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Usage, "{failure}");
        assert!(failure.hint.is_some(), "{failure} says not what to do");
        failure.message
    }

    #[test]
    fn absent_and_empty_folders_are_taken_with_and_without_delta() {
        let disk = Disk::new();
        fs::create_dir(disk.path("empty")).unwrap();
        for delta in [false, true] {
            let restore = disk.restore(delta, &[("fast", "empty"), ("slow", "absent")]);
            assert_eq!(check(&restore).unwrap(), Vec::<PathBuf>::new());
        }
    }

    #[test]
    fn without_delta_nothing_that_holds_a_file_is_taken() {
        let disk = Disk::new();
        disk.folder("data", "file");
        disk.folder("space", "file");
        assert!(refusal(&disk.restore(false, &[])).contains("data: it is not empty"));
        fs::remove_dir_all(disk.path("data")).unwrap();
        assert!(refusal(&disk.restore(false, &[("fast", "space")])).contains("space: it is not empty"));
    }

    #[test]
    fn delta_takes_a_volume_only_where_the_older_state_points_to_it() {
        let disk = Disk::new();
        disk.folder("data/pg_tblspc", "file");
        disk.folder("space", "file");
        let restore = disk.restore(true, &[("fast", "space")]);
        let told = refusal(&restore);
        assert!(told.contains("space: it is not empty, and no link in"), "{told}");

        // Pointing somewhere else, or nowhere, is not pointing there.
        disk.folder("home", "file");
        symlink(disk.path("home"), disk.path("data/pg_tblspc/1")).unwrap();
        symlink(disk.path("gone"), disk.path("data/pg_tblspc/2")).unwrap();
        refusal(&restore);

        symlink(disk.path("space"), disk.path("data/pg_tblspc/3")).unwrap();
        assert_eq!(check(&restore).unwrap(), [disk.path("data"), disk.path("space")]);
    }

    #[test]
    fn delta_into_a_new_folder_takes_no_volume_that_holds_something() {
        let disk = Disk::new();
        disk.folder("space", "file");
        refusal(&disk.restore(true, &[("fast", "space")]));
    }

    #[test]
    fn links_below_a_volume_are_not_the_older_states_word() {
        let disk = Disk::new();
        disk.folder("data", "file");
        disk.folder("space", "file");
        disk.folder("home", "file");
        symlink(disk.path("space"), disk.path("data/1")).unwrap();
        symlink(disk.path("home"), disk.path("space/link")).unwrap();
        refusal(&disk.restore(true, &[("fast", "home")]));
    }

    #[test]
    fn a_volume_of_a_linked_folder_by_another_name_is_the_same_folder() {
        let disk = Disk::new();
        disk.folder("data", "file");
        disk.folder("space", "file");
        symlink(disk.path("space"), disk.path("data/1")).unwrap();
        symlink(disk.path("space"), disk.path("alias")).unwrap();
        check(&disk.restore(true, &[("fast", "alias")])).unwrap();
    }

    #[test]
    fn no_two_parts_of_a_restore_share_a_folder() {
        let disk = Disk::new();
        assert!(refusal(&disk.restore(true, &[("fast", "space"), ("slow", "space")])).contains("fast goes there too"));
        assert!(refusal(&disk.restore(true, &[("fast", "space/a"), ("slow", "space")])).contains("goes there too"));
        assert!(refusal(&disk.restore(true, &[("fast", "data")])).contains("data lies in it"));
        assert!(refusal(&disk.restore(true, &[("fast", "")])).contains("data lies in it"));
        symlink(disk.0.path(), disk.path("alias")).unwrap();
        assert!(refusal(&disk.restore(true, &[("fast", "alias/data")])).contains("data lies in it"));
    }

    #[test]
    fn a_file_in_a_folders_place_is_refused() {
        let disk = Disk::new();
        fs::write(disk.path("space"), "file").unwrap();
        let failure = check(&disk.restore(true, &[("fast", "space")])).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Usage);
    }
}
