//! The life of a repository beside its backups: counted, repaired, copied under another key, mirrored. Stock restic is
//! the judge of every repository, and restored servers of what comes out of them.

use anyhow::{Context, Result, ensure};
use backstay_tests::{
    backstay::{Backstay, Running, TARGET},
    fault_proxy::FaultProxy,
    history::History,
    kill::{descendants, kill_9},
    ledger::{self, Ledger, Workload},
    limits,
    postgres::{Installation, Options, Postgres},
    rehearsal::{Rehearsal, Restored},
    s3::S3,
    scratch::wait_for,
    seed::Seed,
    target::Stop,
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Every file below `folder`.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut ahead) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = ahead.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() { ahead.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    Ok(found)
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    value[key].as_array().with_context(|| format!("no list `{key}` in {value}"))
}

fn number(value: &Value, key: &str) -> Result<u64> {
    value[key].as_u64().with_context(|| format!("no number `{key}` in {value}"))
}

/// Commits for a while.
fn write(server: &Postgres, seed: &mut Seed, seconds: u64) -> Result<()> {
    let load = Workload::start(server, 4, 200, seed)?;
    std::thread::sleep(Duration::from_secs(seconds));
    load.stop(server)
}

/// Restores the end of the log and compares it with what the server holds.
fn restored_to_the_end(backstay: &Backstay, server: &Postgres) -> Result<Restored> {
    // No history: nothing was written since the ledger was read.
    let history = History { events: Vec::new(), timelines: Vec::new() };
    let ends = Ledger::read(server)?;
    let rehearsal =
        Rehearsal { backstay, installation: &server.installation, history: &history, ends: &ends, volumes: Vec::new() };
    let restored = rehearsal.start(&Stop::latest(), &[])?;
    let found = Ledger::read(&restored.server)?;
    found.must_equal(&ends, &history).with_context(|| restored.server.log_tail())?;
    Ok(restored)
}

/// Flips a bit in the middle; twice, and the file is as it was.
fn flip(file: &Path) -> Result<()> {
    let mut bytes = fs::read(file)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    Ok(fs::write(file, bytes)?)
}

/// The largest of `packs` that is not in `old`: of nothing but noise.
fn pack_of_noise<'a>(packs: &'a [PathBuf], old: &[PathBuf]) -> Result<&'a PathBuf> {
    let bytes = |pack: &PathBuf| fs::metadata(pack).map_or(0, |there| there.len());
    packs.iter().filter(|pack| !old.contains(pack)).max_by_key(|pack| bytes(pack)).context("no pack is new")
}

fn follow(backstay: &Backstay, server: &Postgres) -> Result<Running> {
    let archive = backstay.archive()?;
    server.wait_streaming("backstay").with_context(|| archive.log())?;
    Ok(archive)
}

#[test]
fn a_repository_is_counted_and_its_master_key_is_rotated_by_a_copy_that_was_killed_half_way() -> Result<()> {
    let mut seed = Seed::from_env("keeping-copy");
    let installation = Installation::postgres_15()?;
    let server = Postgres::create(&installation, &Options::default())?;
    ledger::create(&server, None)?;
    server.sql("CREATE TABLE noise AS SELECT gen_random_uuid() AS id, gen_random_uuid() AS more FROM generate_series(1, 1500000)")?;
    // Else autovacuum touches every page of it at some later moment, and what is sent says nothing of what is shared.
    server.sql("VACUUM (FREEZE) noise")?;
    let mut backstay = Backstay::in_folder(&server.address())?;
    let mut archive = follow(&backstay, &server)?;
    let first = backstay.backup()?;
    write(&server, &mut seed, 2)?;
    let second = backstay.backup()?;
    write(&server, &mut seed, 2)?;
    backstay.wait_archived(&mut archive, server.flushed()?)?;
    archive.stop()?;

    let stats = backstay.ok(&["repo", "stats", "main"])?;
    let target = &list(&stats, "targets")?[0];
    ensure!(target["target"] == TARGET && number(target, "snapshots")? == 2, "{stats}");
    ensure!(number(target, "restore-bytes")? >= first.bytes + second.bytes, "{stats}");
    ensure!(number(target, "plain-bytes")? < number(target, "restore-bytes")?, "nothing was shared: {stats}");
    ensure!(number(&target["log"], "pieces")? > 0 && number(&target["log"], "bytes")? > 0, "{stats}");
    let backups = list(&stats, "backups")?;
    ensure!(backups[0]["id"] == first.id.as_str() && backups[1]["id"] == second.id.as_str(), "{stats}");
    ensure!(number(&backups[1], "added-stored-bytes")? < number(&backups[0], "added-stored-bytes")? / 2, "{stats}");
    ensure!(number(&stats, "unreferenced-bytes")? == 0, "{stats}");

    let judge = backstay.add_repository("fresh")?;
    let fresh = backstay.scratch().join("fresh");
    let before = files(&fresh)?;
    let planned = backstay.ok(&["repo", "copy", "main", "fresh", "--dry-run"])?;
    ensure!(list(&planned["plan"], "snapshots")?.len() == 2 && files(&fresh)? == before, "{planned}");
    // Killed in the middle: what was sent by then may be sent again, and nothing else may be wrong.
    let copying = backstay.spawn(&["repo", "copy", "main", "fresh"])?;
    wait_for("the copy to send something", limits::COMMAND, || {
        Ok((files(&fresh.join("data"))?.len() >= 2).then_some(()))
    })?;
    for process in descendants(copying.pid()).into_iter().chain([copying.pid()]) {
        kill_9(process);
    }
    drop(copying);
    judge.check()?;

    let copied = backstay.ok(&["repo", "copy", "main", "fresh"])?;
    // The machine decides how far the one that was killed had come.
    let ids: Vec<_> = list(&copied, "copied")?.iter().chain(list(&copied["plan"], "there")?).collect();
    ensure!(ids.len() == 2 && ids.iter().all(|same| same["from"] != same["to"]), "{copied}");
    judge.check_read_data()?;
    let again = backstay.ok(&["repo", "copy", "main", "fresh"])?;
    ensure!(list(&again["plan"], "there")?.len() == 2 && list(&again, "copied")?.is_empty(), "{again}");
    ensure!(number(&again["logs"][0], "pieces")? == 0, "{again}");
    let window = backstay.ok(&["window", TARGET])?;
    // The switch.
    backstay.reconfigure(|config| config.home = "fresh".into())?;
    let switched = backstay.ok(&["window", TARGET])?;
    ensure!(switched[0]["to"] == window[0]["to"], "{window} became {switched}");
    backstay.ok(&["repo", "check", "fresh", "--read-data"])?;
    restored_to_the_end(&backstay, &server)?;
    // Life goes on there: the chain, and backups that share what was copied.
    let mut archive = follow(&backstay, &server)?;
    write(&server, &mut seed, 1)?;
    let third = backstay.backup()?;
    ensure!(third.uploaded < first.uploaded / 2, "{third:?} after {first:?}");
    backstay.wait_archived(&mut archive, server.flushed()?)?;
    archive.stop()?;
    restored_to_the_end(&backstay, &server)?;
    let refused = backstay.run(&["repo", "copy", "main", "main"])?;
    ensure!(refused.code == 1 && refused.stderr.contains("same repository"), "{refused:?}");
    judge.check_read_data()?;
    backstay.finish()
}

#[test]
fn an_index_and_a_backup_with_holes_are_repaired_as_far_as_that_goes() -> Result<()> {
    let mut seed = Seed::from_env("keeping-repair");
    let installation = Installation::postgres_15()?;
    let server = Postgres::create(&installation, &Options::default())?;
    ledger::create(&server, None)?;
    let mut backstay = Backstay::in_folder(&server.address())?;
    let first = backstay.backup()?;
    let old = files(&backstay.repository().join("data"))?;
    write(&server, &mut seed, 1)?;
    server.sql("CREATE TABLE noise AS SELECT gen_random_uuid() AS id, gen_random_uuid() AS more FROM generate_series(1, 800000)")?;
    // Else the next backup finds other pages.
    server.sql("VACUUM (FREEZE) noise")?;
    let second = backstay.backup()?;

    for file in files(&backstay.repository().join("index"))? {
        fs::remove_file(file)?;
    }
    ensure!(backstay.run(&["repo", "check", "main"])?.code == 5, "an index that is gone was not missed");
    let before = files(&backstay.repository())?;
    let dry = backstay.ok(&["repo", "repair", "index", "main", "--dry-run"])?;
    ensure!(files(&backstay.repository())? == before, "a dry run changed something");
    let done = backstay.ok(&["repo", "repair", "index", "main"])?;
    ensure!(done["plan"] == dry["plan"] && !list(&done["plan"], "added-packs")?.is_empty(), "{dry} became {done}");
    backstay.restic().check_read_data()?;
    let nothing = backstay.ok(&["repo", "repair", "index", "main"])?;
    ensure!(list(&nothing["plan"], "added-packs")?.is_empty(), "{nothing}");

    let packs = files(&backstay.repository().join("data"))?;
    let packs_read =
        |options: &[&str]| number(&backstay.ok(&[&["repo", "check", "main"], options].concat())?, "packs-read");
    let [all, one, other] =
        [&["--read-data"][..], &["--read-data-subset", "1/2"], &["--read-data-subset", "2/2"]].map(packs_read);
    let (all, one, other) = (all?, one?, other?);
    ensure!(all == packs.len() as u64 && one + other == all, "of {all} packs {one} and {other} are in the halves");
    rot_is_taken_out_and_stored_again(&backstay, &server, &second.id, pack_of_noise(&packs, &old)?)?;

    let packs = files(&backstay.repository().join("data"))?;
    fs::remove_file(pack_of_noise(&packs, &old)?)?;
    ensure!(backstay.run(&["repo", "check", "main"])?.code == 5, "a pack that is gone was not missed");
    let done = backstay.ok(&["repo", "repair", "index", "main"])?;
    ensure!(list(&done["plan"], "broken")?[0]["id"] == second.id.as_str(), "{done}");
    let dry = backstay.ok(&["repo", "repair", "snapshots", "main", "--dry-run"])?;
    let done = backstay.ok(&["repo", "repair", "snapshots", "main"])?;
    ensure!(dry["plan"] == done["plan"] && list(&dry, "repaired")?.is_empty(), "{dry} became {done}");
    ensure!(!list(&done["plan"]["broken"][0], "missing")?.is_empty(), "{done}");
    let salvaged = done["repaired"][0]["salvaged"].as_str().context("nothing was salvaged")?.to_owned();
    backstay.restic().check_read_data()?;
    backstay.ok(&["repo", "check", "main", "--read-data"])?;

    // What has a hole is no backup, to nobody here; to restic it is a snapshot.
    let listed = backstay.ok(&["backups", TARGET])?;
    ensure!(listed.as_array().is_some_and(|all| all.len() == 1 && all[0]["id"] == first.id.as_str()), "{listed}");
    ensure!(backstay.restic().snapshots()?.contains(&salvaged), "{done}");
    let refused = backstay.run(&["restore", TARGET, "--into", "/nonexistent/x", "--backup", &salvaged])?;
    ensure!(refused.code == 2, "{refused:?}");
    let kept = backstay.scratch().folder("kept")?;
    backstay.restic().restore(&salvaged, &kept)?;
    ensure!(files(&kept)?.iter().any(|file| file.ends_with("PG_VERSION")), "nothing of use was kept");
    ensure!(!files(&kept)?.iter().any(|file| file.ends_with("manifest.json")), "the manifest was kept");
    let stats = backstay.ok(&["repo", "stats", "main"])?;
    ensure!(list(&stats, "targets")?.iter().any(|target| target["target"].is_null()), "{stats}");
    what_cannot_be_read_harms_no_other_target(&mut backstay, &first.id)?;
    backstay.finish()
}

/// A bit of a pack that only `needed_by` needs flips, where the database still has what it was.
fn rot_is_taken_out_and_stored_again(
    backstay: &Backstay,
    server: &Postgres,
    needed_by: &str,
    pack: &Path,
) -> Result<()> {
    flip(pack)?;
    backstay.fails(&["repo", "check", "main", "--read-data"], 5, &["damaged"])?;
    let dry = backstay.ok(&["repo", "repair", "index", "main", "--read-data", "--dry-run"])?;
    let done = backstay.ok(&["repo", "repair", "index", "main", "--read-data"])?;
    ensure!(done["plan"] == dry["plan"] && done["refused"] == 0, "{dry} became {done}");
    let rotten = list(&done["plan"], "rotten-packs")?;
    ensure!(pack.ends_with(rotten[0]["pack"].as_str().unwrap_or_default()) && rotten.len() == 1, "{done}");
    ensure!(number(&rotten[0], "lost-blobs")? == 1 && number(&done["plan"], "lost-blobs")? == 1, "{done}");
    ensure!(list(&done["plan"], "broken")?[0]["id"] == needed_by && !pack.exists(), "{done}");
    backstay.backup()?;
    backstay.ok(&["repo", "check", "main", "--read-data"])?;
    backstay.restic().check_read_data()?;
    let noise = "SELECT count(*), sum(hashtext(id::text || more::text)::bigint) FROM noise";
    let restored = restored_to_the_end(backstay, server)?;
    ensure!(restored.server.sql(noise)? == server.sql(noise)?, "the noise is another one");
    Ok(())
}

/// The snapshot of one target's backup cannot be read: others restore, and nothing is removed beside it.
fn what_cannot_be_read_harms_no_other_target(backstay: &mut Backstay, unreadable: &str) -> Result<()> {
    let grants = backstay.config().grants.join("\n");
    backstay.reconfigure(|config| {
        config.sections.push(format!(
            "[targets.other]\nengine = \"postgresql\"\nrepository = \"main\"\nsettings = {{ slot = \"other\" }}\n\
             [targets.other.grants]\n{grants}\n"
        ));
    })?;
    backstay.ok(&["backup", "other"])?;
    let snapshot = backstay.repository().join("snapshots").join(unreadable);
    flip(&snapshot)?;
    let into = backstay.scratch().join("other").display().to_string();
    let restored = backstay.run(&["restore", "other", "--into", &into, "--to", "backup-end"])?;
    let warned = restored.stderr.contains(&format!("left out backup {}", &unreadable[..8]));
    ensure!(restored.code == 0 && warned, "{restored:?}");
    ensure!(Path::new(&into).join("PG_VERSION").exists(), "{restored:?}");
    for command in [&["forget", "other", "--keep-last", "1"][..], &["prune", "main"]] {
        backstay.fails(command, 5, &[&format!("snapshots/{unreadable}")])?;
    }
    let checked = backstay.fails(&["repo", "check", "main"], 5, &["damaged"])?;
    ensure!(checked.json["damaged"][0]["object"] == format!("snapshots/{unreadable}"), "{checked:?}");
    ensure!(list(&checked.json, "problems")?.len() == 1, "{checked:?}");
    flip(&snapshot)
}

/// Waits until the named repository holds as much log as the server has.
fn wait_level(backstay: &Backstay, name: &str, pieces_of: &str) -> Result<()> {
    wait_for("the mirror to get the log", limits::ARCHIVE_CATCH_UP, || {
        let bytes = |name: &str| -> Result<u64> {
            let stats = backstay.ok(&["repo", "stats", name])?;
            number(&list(&stats, "targets")?[0]["log"], "bytes")
        };
        Ok((bytes(name)? == bytes(pieces_of)?).then_some(()))
    })
}

#[test]
fn a_mirror_goes_on_while_the_store_is_away_and_both_come_level_again() -> Result<()> {
    let mut seed = Seed::from_env("keeping-mirrors");
    let s3 = S3::start()?;
    let proxy = FaultProxy::start(s3.address(), 0, &mut seed)?;
    let installation = Installation::postgres_15()?;
    let server = Postgres::create(&installation, &Options::default())?;
    ledger::create(&server, None)?;
    let mut backstay = Backstay::on_s3(&server.address(), &s3, proxy.address())?;
    let judge = backstay.add_repository("second")?;
    let second = backstay.scratch().join("second");
    backstay.reconfigure(|config| config.target.push("mirrors = [\"second\"]".into()))?;

    // Both there: every backup and the log are in both.
    let mut archive = follow(&backstay, &server)?;
    let made = backstay.ok(&["backup", TARGET])?;
    ensure!(made["level"]["repository"] == "main" && made["level"]["mirrors"][0]["lags"] == false, "{made}");
    ensure!(judge.snapshots()?.len() == 1, "the mirror has no copy");
    write(&server, &mut seed, 2)?;
    backstay.wait_archived(&mut archive, server.flushed()?)?;
    wait_level(&backstay, "second", "main")?;
    archive.stop()?;

    // The store is away: backup and log go to the mirror, and everybody says so.
    proxy.set_away(true);
    let mut archive = follow(&backstay, &server)?;
    let made = backstay.run(&["backup", TARGET])?;
    ensure!(made.code == 0 && made.json["level"]["repository"] == "second", "{made:?}");
    ensure!(made.json["level"]["mirrors"][0]["lags"] == true && made.stderr.contains("is away"), "{made:?}");
    write(&server, &mut seed, 2)?;
    backstay.wait_archived(&mut archive, server.flushed()?)?;
    restored_to_the_end(&backstay, &server)?;
    let lagging = backstay.run(&["repo", "sync", TARGET])?;
    ensure!(lagging.code == 3 && lagging.json["mirrors"][0]["lags"] == true, "{lagging:?}");

    // It is back: the archiver brings it the log, a sync the backup.
    proxy.set_away(false);
    wait_for("the archive to find it back", limits::ARCHIVE_CATCH_UP, || {
        archive.must_run()?;
        Ok(archive.log().contains("is back").then_some(()))
    })?;
    write(&server, &mut seed, 1)?;
    archive.stop()?;
    let dry = backstay.ok(&["repo", "sync", TARGET, "--dry-run"])?;
    ensure!(backstay.restic().snapshots()?.len() == 1, "a dry run copied something: {dry}");
    let synced = backstay.ok(&["repo", "sync", TARGET])?;
    ensure!(synced["flows"][0]["to"] == "main" && list(&synced["flows"][0], "backups")?.len() == 1, "{synced}");
    ensure!(backstay.restic().snapshots()?.len() == 2 && judge.snapshots()?.len() == 2, "{synced}");
    restored_to_the_end(&backstay, &server)?;

    // Now the mirror is away: backups count, and the next one catches up. So does the log.
    let mut archive = follow(&backstay, &server)?;
    fs::rename(&second, backstay.scratch().join("taken"))?;
    let made = backstay.run(&["backup", TARGET])?;
    ensure!(made.code == 0 && made.json["level"]["mirrors"][0]["lags"] == true, "{made:?}");
    ensure!(made.stderr.contains("mirror `second` lags"), "{made:?}");
    write(&server, &mut seed, 2)?;
    backstay.wait_archived(&mut archive, server.flushed()?)?;
    // What would be written there now would be hidden once the disk is mounted again.
    ensure!(!second.exists(), "somebody made a folder where the mirror's disk was");
    fs::rename(backstay.scratch().join("taken"), &second)?;
    let made = backstay.ok(&["backup", TARGET])?;
    ensure!(made["level"]["mirrors"][0]["lags"] == false, "{made}");
    ensure!(judge.snapshots()?.len() == 4 && backstay.restic().snapshots()?.len() == 4, "{made}");
    write(&server, &mut seed, 1)?;
    backstay.wait_archived(&mut archive, server.flushed()?)?;
    archive.stop()?;
    let nothing = backstay.ok(&["repo", "sync", TARGET])?;
    ensure!(nothing["mirrors"][0]["lags"] == false, "{nothing}");

    // Either alone restores everything.
    restored_to_the_end(&backstay, &server)?;
    for name in ["main", "second"] {
        backstay.ok(&["repo", "check", name, "--read-data"])?;
    }
    proxy.set_away(true);
    restored_to_the_end(&backstay, &server)?;
    let listed = backstay.ok(&["backups"])?;
    ensure!(listed.as_array().is_some_and(|all| all.len() == 4), "{listed}");
    proxy.set_away(false);
    let listed = backstay.ok(&["backups"])?;
    ensure!(listed.as_array().is_some_and(|all| all.len() == 4), "each backup once: {listed}");
    judge.check_read_data()?;
    backstay.finish()
}
