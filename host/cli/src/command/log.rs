//! `backstay log`: pieces of a target's log.

use crate::{
    catalog,
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
    io::Write,
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
}

/// Fetches one file: a log file joined from its pieces, or a note.
pub(crate) fn run(command: &LogCommand, context: &Context) -> Result<()> {
    let LogCommand::Fetch(args) = command;
    let config = context.config()?;
    let target = config.target(&args.target)?;
    let repository = config.repository(target.repository.as_str())?;
    let to_standard_output = args.dest == Path::new("-");
    let bytes = context.block_on(async {
        let log = catalog::log(repository, &target.name).await?;
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
    let result = serde_json::json!({ "file": args.file, "dest": args.dest, "bytes": bytes });
    let text = format!("{}: {} to {}", args.file, output::size(bytes), args.dest.display());
    context.output().result(&result, text)
}

/// A side file, such as PostgreSQL's `.history`.
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
    Ok(folder.metadata(name).map_err(|error| failed(&error))?.len())
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
