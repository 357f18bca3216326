//! A restore clears no folder that is not the older state's own: not the running server's tablespace, and not what a
//! slip in `--map` names.

use anyhow::{Result, ensure};
use backstay_tests::{
    account,
    backstay::{Backstay, TARGET},
    postgres::{Installation, Options, Postgres},
    scratch::Scratch,
};
use std::path::{Path, PathBuf};

struct Scene {
    server: Postgres,
    backstay: Backstay,
    scratch: Scratch,
    /// The running server's tablespace.
    live: PathBuf,
    /// A folder with something precious, and nothing of a database.
    home: PathBuf,
}

impl Scene {
    fn new() -> Result<Self> {
        let server = Postgres::create(&Installation::postgres_15()?, &Options::default())?;
        let live = server.tablespace("fast")?;
        server.sql("CREATE TABLE spaced TABLESPACE fast AS SELECT generate_series(1, 1000) AS n")?;
        let backstay = Backstay::in_folder(&server.address())?;
        let mut running = backstay.archive()?;
        server.wait_streaming("backstay")?;
        backstay.backup()?;
        server.sql("INSERT INTO spaced VALUES (1001)")?;
        backstay.wait_archived(&mut running, server.flushed()?)?;
        running.stop()?;
        let scratch = Scratch::new()?;
        let home = scratch.folder("home")?;
        account::write(&home.join("precious"), "mine")?;
        Ok(Self { server, backstay, scratch, live, home })
    }

    fn map(&self, folder: &Path) -> Vec<String> {
        vec!["--map".to_owned(), format!("fast={}", folder.display())]
    }

    /// Refused with and without `--dry-run`, for what lies in `folder`; and nothing was touched.
    fn refuses(&self, into: &Path, options: &[String], folder: &Path) -> Result<()> {
        for dry_run in [&["--dry-run".to_owned()][..], &[]] {
            let into = into.display().to_string();
            let start = ["restore", TARGET, "--into", &into].map(str::to_owned);
            let words = ["is not empty", &folder.display().to_string().to_lowercase()];
            self.backstay.fails(&[&start, options, dry_run].concat(), 2, &words)?;
            let here: i64 = self.server.value("SELECT count(*) FROM spaced")?;
            ensure!(here == 1001, "the running server has lost its rows");
            // Its pages are read from the disk again, not from its memory.
            ensure!(std::fs::read_dir(&self.live)?.next().is_some(), "the running server's tablespace was cleared");
            ensure!(std::fs::read(self.home.join("precious"))? == b"mine", "precious was touched");
        }
        Ok(())
    }
}

#[test]
fn no_folder_is_cleared_that_is_not_the_older_states_own() -> Result<()> {
    let scene = Scene::new()?;
    let delta = vec!["--delta".to_owned()];
    let beside = scene.scratch.join("beside");
    let home = scene.map(&scene.home);
    scene.refuses(&beside, &[], &scene.live)?;
    scene.refuses(&beside, &delta, &scene.live)?;
    scene.refuses(&beside, &home, &scene.home)?;
    scene.refuses(&beside, &[&delta[..], &home].concat(), &scene.home)?;
    ensure!(!beside.exists(), "something was made before it was refused");

    // The older state's own tablespace is reused; no other folder is taken for it.
    let (older, own) = (scene.scratch.join("older"), scene.scratch.join("own"));
    let mapped = scene.map(&own);
    scene.backstay.restore(&older, &mapped)?;
    let again = [&delta[..], &mapped].concat();
    let planned = scene.backstay.restore(&older, &[&again[..], &["--dry-run".to_owned()]].concat())?;
    let swept = serde_json::json!([older.display().to_string(), own.display().to_string()]);
    ensure!(planned["swept"] == swept, "the dry run does not say what it removes from: {planned}");
    scene.refuses(&older, &delta, &scene.live)?;
    scene.refuses(&older, &[&delta[..], &home].concat(), &scene.home)?;
    account::write(&own.join("stranger"), "x")?;
    scene.backstay.restore(&older, &again)?;
    ensure!(!own.join("stranger").exists(), "what is not in the backup is still there");
    scene.backstay.finish()
}
