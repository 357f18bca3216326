//! `backstay log`: pieces of a target's log.

use crate::{
    ahead::{self, Spool},
    catalog,
    config::Config,
    context::Context,
    failure::{Failure, Result},
    output,
};
use backstay_core::Chain;
use backstay_pipeline::FailureKind;
use backstay_repo::log::LogChain;
use cap_std::{ambient_authority, fs::Dir};
use futures::StreamExt;
use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// The size of a whole log file where the log holds too little to tell: PostgreSQL's own default.
const FILE_BYTES_DEFAULT: u64 = 16 << 20;
/// Largest log file: PostgreSQL's `wal_segment_size` ends at 1 GiB.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// What to do with a log.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum LogCommand {
    /// One of the database's log files by its name, for a `restore_command`
    Fetch(FetchArgs),
    /// Files behind one that was fetched, into a folder of `fetch --ahead`
    #[command(hide = true)]
    FillAhead(FillAheadArgs),
}

/// Arguments of `backstay log fetch`.
#[derive(Debug, clap::Args)]
pub(crate) struct FetchArgs {
    /// A target of the configuration
    target: String,
    /// The name the database knows it by (PostgreSQL: %f)
    file: String,
    /// Where to put it (PostgreSQL: %p); `-` is standard output, as many bytes as the log holds
    dest: PathBuf,
    /// Fill the file up with zeros to this many bytes; else to the size of the log's other files
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(0..=FILE_BYTES_MAX))]
    file_size: Option<u64>,
    /// Fetch so many files that follow in the background, into a folder beside DEST, before they are asked for
    #[arg(long, value_name = "FILES", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=i64::from(ahead::FILES_MAX)))]
    ahead: u16,
}

/// Arguments of `backstay log fill-ahead`.
#[derive(Debug, clap::Args)]
pub(crate) struct FillAheadArgs {
    target: String,
    /// The file that was fetched last
    file: String,
    #[arg(long)]
    files: u16,
    #[arg(long)]
    into: PathBuf,
}

/// Fetches one file: a log file joined from its pieces, or a note.
pub(crate) fn run(command: &LogCommand, context: &Context) -> Result<()> {
    match command {
        LogCommand::Fetch(args) => fetch(args, context),
        LogCommand::FillAhead(args) => fill_ahead(args, context),
    }
}

fn fetch(args: &FetchArgs, context: &Context) -> Result<()> {
    let to_standard_output = args.dest == Path::new("-");
    if to_standard_output && context.output().json {
        return Err(Failure::usage("failed to fetch to standard output: with --json the result goes there")
            .hint("name a file in place of `-`, or leave --json out"));
    }
    let config = context.config()?;
    let target = config.target(&args.target)?;
    let repository = config.repository(target.repository.as_str())?;
    // What does not work ahead works the slow way.
    let spool = (args.ahead > 0 && !to_standard_output)
        .then(|| Spool::beside(&args.dest, &repository.location.url(), target.name.as_str()).ok())
        .flatten();
    let taken = match &spool {
        Some(spool) => spool.take(&args.file, &args.dest).ok().flatten(),
        None => None,
    };
    if let Some(bytes) = taken {
        fill_later(spool.as_ref(), &config, args);
        return told(args, context, bytes);
    }
    let bytes = context.block_on(async {
        let log = catalog::log(&config, target).await?;
        if log.file_pieces(&args.file).is_empty() {
            let body = note(&log, args).await?;
            match to_standard_output {
                true => context.output().bytes(&body)?,
                false => write(&args.dest, &body)?,
            }
            return Ok(body.len() as u64);
        }
        match to_standard_output {
            true => print(&log, args, context).await,
            false => place(&log, args).await,
        }
    })?;
    if to_standard_output {
        return Ok(());
    }
    fill_later(spool.as_ref(), &config, args);
    told(args, context, bytes)
}

/// Sees to it that more files lie ahead.
fn fill_later(spool: Option<&Spool>, config: &Config, args: &FetchArgs) {
    let Some(spool) = spool.filter(|spool| spool.len() <= usize::from(args.ahead / 2)) else { return };
    let started = std::path::absolute(&config.file)
        .and_then(|file| spool.fill_later(&file, &args.target, &args.file, args.ahead));
    if let Err(error) = started {
        tracing::warn!(%error, "failed to fetch log files ahead");
    }
}

fn fill_ahead(args: &FillAheadArgs, context: &Context) -> Result<()> {
    let config = context.config()?;
    let target = config.target(&args.target)?;
    let failed = |error: io::Error| {
        Failure::new(FailureKind::Failed, format!("failed to fill {}: {error}", args.into.display()))
    };
    let Some(filling) = Spool::at(args.into.clone()).fill().map_err(failed)? else { return Ok(()) };
    context.block_on(async {
        let mut log = catalog::log(&config, target).await?;
        let file_size = whole(log.chain());
        filling.run(&mut log, &args.file, args.files, file_size).await?;
        Ok(())
    })
}

fn told(args: &FetchArgs, context: &Context, bytes: u64) -> Result<()> {
    let result = serde_json::json!({ "file": args.file, "dest": args.dest, "bytes": bytes });
    let text = format!("{}: {} to {}", args.file, output::size(bytes), args.dest.display());
    context.output().result(&result, text)
}

/// A note, such as PostgreSQL's `.history`.
async fn note(log: &LogChain, args: &FetchArgs) -> Result<Vec<u8>> {
    if !log.notes().await?.contains(&args.file) {
        return Err(Failure::new(
            FailureKind::Failed,
            format!("failed to fetch {}: the log of `{}` does not hold it", args.file, args.target),
        ));
    }
    Ok(log.read_note(&args.file).await?.to_vec())
}

async fn print(log: &LogChain, args: &FetchArgs, context: &Context) -> Result<u64> {
    let mut written = 0;
    if let Some(parts) = log.file(&args.file)? {
        let mut parts = std::pin::pin!(parts);
        while let Some(part) = parts.next().await {
            let part = part?;
            context.output().bytes(&part)?;
            written += part.len() as u64;
        }
    }
    Ok(written)
}

async fn place(log: &LogChain, args: &FetchArgs) -> Result<u64> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(FailureKind::Failed, format!("failed to write {}: {error}", args.dest.display()))
    };
    let name = args.dest.file_name().and_then(|name| name.to_str()).ok_or_else(|| failed(&"it is no file name"))?;
    let folder = args.dest.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = Dir::open_ambient_dir(folder, ambient_authority()).map_err(|error| failed(&error))?;
    let file_size = args.file_size.unwrap_or_else(|| whole(log.chain()));
    if let Err(error) = log.place_file(&args.file, &folder, name, file_size).await {
        // Half a file must not be taken for a whole one; where it cannot be removed the exit code still tells.
        let _ = folder.remove_file(name);
        return Err(error.into());
    }
    let durable = || {
        let file = folder.open(name)?;
        file.sync_all()?;
        folder.open(".")?.sync_all()?;
        Ok(file.metadata()?.len())
    };
    durable().map_err(|error: io::Error| failed(&error))
}

fn write(dest: &Path, bytes: &[u8]) -> Result<()> {
    let written = fs::File::create(dest).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|error| Failure::new(FailureKind::Failed, format!("failed to write {}: {error}", dest.display())))
}

/// The size of the database's log files: that of the largest, where one is followed by another and so is whole.
fn whole(chain: &Chain) -> u64 {
    let ends = chain.iter().map(|piece| (piece.file.as_str(), piece.file_offset + piece.length()));
    let files: std::collections::BTreeMap<&str, u64> = ends.fold(Default::default(), |mut files, (file, end)| {
        let largest: &mut u64 = files.entry(file).or_default();
        *largest = end.max(*largest);
        files
    });
    let largest = files.values().copied().max().unwrap_or(0);
    if files.len() > 1 { largest } else { largest.max(FILE_BYTES_DEFAULT) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstay_core::{Position, Segment};

    fn piece(start: u64, end: u64, file: &str, file_offset: u64) -> Segment {
        let at = |offset| Position { epoch: 1, offset, label: String::new() };
        Segment {
            start: at(start),
            end: at(end),
            follows: None,
            first_commit: None,
            last_commit: None,
            file: file.to_owned(),
            file_offset,
        }
    }

    #[test]
    fn a_log_file_is_as_large_as_those_before_it() {
        let one = Chain::new(vec![piece(0, 100, "a", 0)], Vec::new());
        assert_eq!(whole(&one), FILE_BYTES_DEFAULT);
        let mib = 1 << 20;
        let two = Chain::new(vec![piece(0, mib, "a", 0), piece(mib, mib + 5, "b", 0)], Vec::new());
        assert_eq!(whole(&two), mib);
        assert_eq!(whole(&Chain::default()), FILE_BYTES_DEFAULT);
    }
}
