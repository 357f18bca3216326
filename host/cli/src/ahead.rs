//! Log files fetched before they are asked for.
//!
//! ```text
//!   fetch FILE ─┬─ it lies in the spool, or is on its way there ─► rename          no repository is opened
//!               └─ it does not ─► open the repository, place it
//!        then: fewer than half of the files that shall lie ahead, and nobody at it? ─► a process of its own
//!              fetches more, and goes on for as long as they are taken: opening a repository takes its time
//! ```
//!
//! A database that replays asks for one file after another, and waits for each. Only whole files are fetched ahead:
//! the log's last one may still grow. The spool lies beside the place that files are asked into, so that a file
//! gets there by its name alone. Nobody waits until files in it are durable: a database sees to that itself for what it
//! keeps, and after a power cut, when a file could be whole by its name alone, the spool is another one.

use backstay_core::Chain;
use backstay_repo::{
    Id, RepoError, RepoErrorKind,
    log::{LogChain, LogResult},
};
use cap_std::{ambient_authority, fs::Dir};
use futures::{StreamExt, TryStreamExt, stream};
use rustix::fs::FlockOperation;
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// The spool's folder, beside the files asked for.
const FOLDER: &str = ".backstay-ahead";
/// What is another one each time that the machine is started.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Held by the process that fills it.
const LOCK: &str = "lock";
/// What that process is going to bring: a name a line.
const COMING: &str = "coming";
/// The last file that was taken.
const TAKEN: &str = "taken";
/// Ends the names of files that are not whole yet.
const UNFINISHED: &str = ".new";

/// Most files ahead: 16 GiB of PostgreSQL's usual ones.
pub(crate) const FILES_MAX: u16 = 1024;

/// Files fetched at once: one is written while the next is read.
const FILES_AT_ONCE: usize = 3;

/// How often the filling process looks whether files were taken, and how long it waits for that to happen before it
/// takes the replay for ended. A replay that is slower still is not slowed down much by files fetched again.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(60);
/// How often somebody who waits for a file looks, and for how long: to fetch it after all takes a tenth of that.
const WAIT_EVERY: Duration = Duration::from_millis(2);
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Where files fetched ahead lie.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
}

impl Spool {
    /// The spool beside `dest`, for one target of one repository: a folder that was used for another before must
    /// not answer for this one. Nor one from before the machine was started.
    pub(crate) fn beside(dest: &Path, repository: &str, target: &str) -> io::Result<Self> {
        let boot = fs::read_to_string(BOOT_ID)?;
        Ok(Self::of_boot(dest, &format!("{repository}\n{target}"), boot.trim()))
    }

    fn of_boot(dest: &Path, whose: &str, boot: &str) -> Self {
        let parent = dest.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let short = |text: &str| Id::of(text.as_bytes()).short().to_owned();
        Self { folder: parent.join(FOLDER).join(short(whose)).join(short(boot)) }
    }

    /// Moves `file` to `dest`, if it lies here or is on its way; answers its bytes.
    pub(crate) fn take(&self, file: &str, dest: &Path) -> io::Result<Option<u64>> {
        let begun = Instant::now();
        loop {
            if let Some(bytes) = self.take_now(file, dest)? {
                return Ok(Some(bytes));
            }
            if begun.elapsed() > WAIT_MAX || !self.is_coming(file)? {
                // It may have come just then.
                return self.take_now(file, dest);
            }
            std::thread::sleep(WAIT_EVERY);
        }
    }

    /// Whether a process is at it that will bring this file, and nobody took it yet: at the end of a replay a database
    /// asks for a file once more.
    fn is_coming(&self, file: &str) -> io::Result<bool> {
        if !self.folder.exists() || self.lock()?.is_some() {
            return Ok(false);
        }
        match fs::read_to_string(self.folder.join(COMING)) {
            Ok(names) => {
                let taken = fs::read_to_string(self.folder.join(TAKEN)).unwrap_or_default();
                let place = |wanted: &str| names.lines().position(|name| name == wanted);
                Ok(place(file).is_some_and(|at| place(&taken).is_none_or(|taken| at > taken)))
            }
            // It has just been started, for what follows the last file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn take_now(&self, file: &str, dest: &Path) -> io::Result<Option<u64>> {
        let here = self.folder.join(file);
        let bytes = match fs::symlink_metadata(&here) {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        fs::rename(&here, dest)?;
        fs::write(self.folder.join(TAKEN), file)?;
        Ok(Some(bytes))
    }

    /// How many files lie here.
    pub(crate) fn len(&self) -> usize {
        let Ok(entries) = fs::read_dir(&self.folder) else { return 0 };
        entries.flatten().filter(|entry| is_log_file(&entry.file_name().to_string_lossy())).count()
    }

    /// Starts a process that keeps up to `files` files behind `file` here, unless one does. It outlives this one.
    pub(crate) fn fill_later(&self, config: &Path, target: &str, file: &str, files: u16) -> io::Result<()> {
        if self.lock()?.is_none() {
            return Ok(());
        }
        Command::new(std::env::current_exe()?)
            .arg("--config")
            .arg(config)
            .args(["--quiet", "log", "fill-ahead", target, file, "--files", &files.to_string(), "--into"])
            .arg(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A signal for the database's own process must not end it half-way through a file.
            .process_group(0)
            .spawn()
            .map(drop)
    }

    /// The spool in this folder.
    pub(crate) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// For the process that fills it; nothing while another does.
    pub(crate) fn fill(self) -> io::Result<Option<Filling>> {
        let Some(lock) = self.lock()? else { return Ok(None) };
        // Of a process that is gone.
        let _ = fs::remove_file(self.folder.join(COMING));
        self.remove_older();
        let dir = Dir::open_ambient_dir(&self.folder, ambient_authority())?;
        Ok(Some(Filling { spool: self, dir, _lock: lock }))
    }

    /// What lies beside it is from before the machine was started. A folder that is no spool has other neighbours.
    fn remove_older(&self) {
        if self.folder.ancestors().nth(2).and_then(Path::file_name) != Some(OsStr::new(FOLDER)) {
            return;
        }
        let beside = self.folder.parent().and_then(|parent| fs::read_dir(parent).ok());
        for entry in beside.into_iter().flatten().flatten().filter(|entry| entry.path() != self.folder) {
            // It costs room and nothing else; the next one tries again.
            let _ = fs::remove_dir_all(entry.path());
        }
    }

    fn lock(&self) -> io::Result<Option<fs::File>> {
        fs::create_dir_all(&self.folder)?;
        let lock = fs::File::create(self.folder.join(LOCK))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(lock)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// What lies here for ourselves.
fn is_ours(name: &str) -> bool {
    [LOCK, COMING, TAKEN].contains(&name)
}

/// Temporary files and those for ourselves are none.
fn is_log_file(name: &str) -> bool {
    !is_ours(name) && !name.ends_with(UNFINISHED)
}

/// A spool that this process may fill.
#[derive(Debug)]
pub(crate) struct Filling {
    spool: Spool,
    dir: Dir,
    _lock: fs::File,
}

impl Filling {
    /// Keeps up to `files` whole files of `file_size` bytes here that follow `file`, and removes what was not asked
    /// for. Ends when none is taken for a while, and leaves nothing then.
    pub(crate) async fn run(&self, log: &mut LogChain, file: &str, files: u16, file_size: u64) -> LogResult<()> {
        let mut after = file.to_owned();
        loop {
            let wanted = behind(log.chain(), &after, files, file_size);
            self.sweep(&wanted);
            self.announce(&wanted)?;
            let missing = wanted.iter().filter(|name| !self.holds(name));
            // In order, so that what is asked for next is there first.
            let fetched = stream::iter(missing).map(|name| self.fetch(log, name, file_size)).buffered(FILES_AT_ONCE);
            fetched.try_collect::<()>().await?;
            let Some(taken) = self.taken(&wanted, usize::from(files / 2).max(1)).await else {
                self.sweep(&[]);
                return Ok(());
            };
            after = taken;
            if wanted.len() < usize::from(files) {
                // The log may have grown.
                log.load().await?;
            }
        }
    }

    /// Says what will come, so that who asks for it waits.
    fn announce(&self, wanted: &[String]) -> LogResult<()> {
        let (beside, place) = (format!("{COMING}{UNFINISHED}"), self.spool.folder.join(COMING));
        let written = self.dir.write(&beside, wanted.join("\n"));
        written.and_then(|()| fs::rename(self.spool.folder.join(&beside), place)).map_err(|error| {
            RepoError::new(RepoErrorKind::Internal, "failed to say which log files will come").because(error).into()
        })
    }

    fn holds(&self, name: &str) -> bool {
        self.spool.folder.join(name).exists()
    }

    /// Waits until `enough` of the files were taken, or all; answers the last. Nothing: nobody takes any.
    async fn taken(&self, files: &[String], enough: usize) -> Option<String> {
        let (mut before, mut since) = (0, Instant::now());
        while since.elapsed() < PATIENCE {
            let taken = files.iter().take_while(|name| !self.holds(name)).count();
            if taken > 0 && taken >= enough.min(files.len()) {
                return files.get(taken - 1).cloned();
            }
            if taken > before {
                (before, since) = (taken, Instant::now());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        None
    }

    async fn fetch(&self, log: &LogChain, name: &str, file_size: u64) -> LogResult<()> {
        let beside = format!("{name}{UNFINISHED}");
        if log.place_file(name, &self.dir, &beside, file_size).await? {
            fs::rename(self.spool.folder.join(&beside), self.spool.folder.join(name)).map_err(|error| {
                RepoError::new(RepoErrorKind::Internal, format!("failed to place {name}")).because(error)
            })?;
        }
        Ok(())
    }

    /// What lies here from before: files that were passed over, and halves of a process that was killed.
    fn sweep(&self, wanted: &[String]) {
        let Ok(entries) = fs::read_dir(&self.spool.folder) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !is_ours(&name) && !wanted.contains(&name) {
                // It costs room and nothing else; the next one tries again.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// The names of whole files behind `file` on its branch of the log, in order.
fn behind(chain: &Chain, file: &str, files: u16, file_size: u64) -> Vec<String> {
    let Some(epoch) = chain.iter().find(|piece| piece.file == file).map(|piece| piece.start.epoch) else {
        return Vec::new();
    };
    let mut found: Vec<(&str, u64)> = Vec::new();
    for piece in chain.pieces(epoch) {
        let end = piece.file_offset + piece.length();
        match found.last_mut() {
            Some((name, bytes)) if *name == piece.file => *bytes = end,
            _ => found.push((&piece.file, end)),
        }
    }
    let first: BTreeMap<&str, usize> = found.iter().enumerate().map(|(at, (name, _))| (*name, at)).collect();
    let Some(at) = first.get(file) else { return Vec::new() };
    let whole = found[at + 1..].iter().take_while(|(_, bytes)| *bytes == file_size);
    whole.take(usize::from(files)).map(|(name, _)| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstay_core::{Position, Segment};

    fn piece(epoch: u64, start: u64, end: u64, file: &str) -> Segment {
        let at = |offset| Position { epoch, offset, label: String::new() };
        Segment {
            start: at(start),
            end: at(end),
            follows: None,
            first_commit: None,
            last_commit: None,
            file: file.to_owned(),
            file_offset: start % 100,
        }
    }

    #[test]
    fn only_whole_files_of_the_same_branch_are_fetched_ahead() {
        let pieces = vec![
            piece(1, 0, 100, "a"),
            piece(1, 100, 160, "b"),
            piece(1, 160, 200, "b"),
            piece(1, 200, 300, "c"),
            piece(1, 300, 350, "d"),
            piece(2, 300, 400, "other"),
        ];
        let chain = Chain::new(pieces, Vec::new());
        assert_eq!(behind(&chain, "a", 9, 100), ["b", "c"]);
        assert_eq!(behind(&chain, "a", 1, 100), ["b"]);
        assert_eq!(behind(&chain, "c", 9, 100), [""; 0]);
        assert_eq!(behind(&chain, "unknown", 9, 100), [""; 0]);
    }

    #[test]
    fn a_file_is_taken_once_and_halves_never() {
        let place = tempfile::tempdir().unwrap();
        let dest = place.path().join("RECOVERYXLOG");
        let spool = Spool::beside(&dest, "file:///repo", "shop").unwrap();
        assert_eq!(spool.take("b", &dest).unwrap(), None);
        fs::create_dir_all(&spool.folder).unwrap();
        fs::write(spool.folder.join("b"), "whole").unwrap();
        fs::write(spool.folder.join("c.new"), "ha").unwrap();
        assert_eq!(spool.len(), 1);
        let another = Spool::beside(&dest, "file:///repo", "other").unwrap();
        assert_eq!(another.take("b", &dest).unwrap(), None, "another target's");
        assert_eq!(spool.take("b", &dest).unwrap(), Some(5));
        assert_eq!(fs::read(&dest).unwrap(), b"whole");
        assert_eq!(spool.take("b", &dest).unwrap(), None);
        assert_eq!(spool.take("c", &dest).unwrap(), None);
    }

    #[test]
    fn who_asks_for_a_file_that_will_come_waits_for_it() {
        let place = tempfile::tempdir().unwrap();
        let dest = place.path().join("RECOVERYXLOG");
        let spool = Spool::beside(&dest, "file:///repo", "shop").unwrap();
        let filling = Spool::at(spool.folder.clone()).fill().unwrap().unwrap();
        filling.announce(&["b".to_owned(), "c".to_owned()]).unwrap();
        assert_eq!(spool.take("d", &dest).unwrap(), None, "nobody will bring it");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(WAIT_EVERY * 10);
                fs::write(spool.folder.join("b"), "whole").unwrap();
            });
            assert_eq!(spool.take("b", &dest).unwrap(), Some(5));
        });
        let begun = Instant::now();
        assert_eq!(spool.take("b", &dest).unwrap(), None, "it was taken");
        assert!(begun.elapsed() < WAIT_MAX, "nobody waits for what was taken");
        assert!(spool.is_coming("c").unwrap());
        drop(filling);
        assert_eq!(spool.take("c", &dest).unwrap(), None, "who would have brought it is gone");
        // Started a moment ago.
        let _filling = Spool::at(spool.folder.clone()).fill().unwrap().unwrap();
        assert!(!spool.folder.join(COMING).exists() && spool.is_coming("c").unwrap());
    }

    #[test]
    fn one_process_fills_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("spool");
        let filling = Spool::at(folder.clone()).fill().unwrap();
        assert!(filling.is_some());
        assert!(Spool::at(folder.clone()).fill().unwrap().is_none());
        drop(filling);
        assert!(Spool::at(folder).fill().unwrap().is_some());
    }

    #[test]
    fn what_lay_ahead_before_a_power_cut_is_not_taken() {
        let place = tempfile::tempdir().unwrap();
        let dest = place.path().join("RECOVERYXLOG");
        let before = Spool::of_boot(&dest, "shop", "the first");
        fs::create_dir_all(&before.folder).unwrap();
        fs::write(before.folder.join("b"), "").unwrap();
        let now = Spool::of_boot(&dest, "shop", "the second");
        assert_eq!(now.take("b", &dest).unwrap(), None);
        let other = Spool::of_boot(&dest, "another", "the first");
        fs::create_dir_all(&other.folder).unwrap();
        let _filling = Spool::at(now.folder.clone()).fill().unwrap().unwrap();
        assert!(!before.folder.exists() && now.folder.exists() && other.folder.exists());
    }

    #[test]
    fn a_folder_that_is_no_spool_keeps_its_neighbours() {
        let place = tempfile::tempdir().unwrap();
        let neighbour = place.path().join("neighbour");
        fs::create_dir(&neighbour).unwrap();
        let _filling = Spool::at(place.path().join("spool")).fill().unwrap().unwrap();
        assert!(neighbour.exists());
    }

    #[tokio::test]
    async fn whoever_fills_goes_on_behind_the_last_file_that_was_taken() {
        let place = tempfile::tempdir().unwrap();
        let files = ["a", "b", "c", "d"].map(str::to_owned);
        let filling = Spool::at(place.path().to_owned()).fill().unwrap().unwrap();
        for name in ["b", "c", "d"] {
            fs::write(place.path().join(name), "whole").unwrap();
        }
        assert_eq!(filling.taken(&files, 1).await.as_deref(), Some("a"));
        let taking = async {
            tokio::time::sleep(LOOK_EVERY * 3).await;
            fs::remove_file(place.path().join("b")).unwrap();
        };
        let (taken, ()) = tokio::join!(filling.taken(&files, 2), taking);
        assert_eq!(taken.as_deref(), Some("b"));
    }
}
