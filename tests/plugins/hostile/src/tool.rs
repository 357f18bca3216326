//! Granted programs, run as they may be and as they may not.
//!
//! What the tool did comes back as the call's error, `code: standard output: standard error`.

use crate::Settings;
use backstay_sdk::*;
use serde_json::Value;

/// Most bytes of a tool's output that are told.
const OUTPUT_BYTES_MAX: usize = 1 << 20;

pub(crate) async fn commit(settings: &Settings) -> Result<()> {
    match settings.behaviour() {
        "tool" => run(settings).await,
        "tool-terminate" => terminate(settings).await,
        "tool-drop" => drop_it(settings).await,
        "tool-left" => {
            // Still held when the job ends.
            let process = start(settings).await?;
            let said = first_words(&process).await?;
            std::mem::forget(process);
            Err(Error::new(ErrorKind::Unsupported, said))
        }
        "tools" => many(settings).await,
        "tool-output-twice" => {
            let process = start(settings).await?;
            let _first = process.stdout();
            let _second = process.stdout();
            Ok(())
        }
        _ => Ok(()),
    }
}

async fn start(settings: &Settings) -> Result<Process> {
    let arguments = settings.0.get("arguments").and_then(Value::as_array).cloned().unwrap_or_default();
    let arguments: Vec<String> = arguments.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    host::run("tool", &arguments).await
}

/// To its end, fed with `input`.
async fn run(settings: &Settings) -> Result<()> {
    let process = start(settings).await?;
    let mut stdin = process.stdin();
    let feed = async {
        stdin.write(settings.text("input", "").as_bytes()).await?;
        stdin.finish().await
    };
    let output = async {
        let mut body = process.stdout();
        let mut all = Vec::new();
        while let Some(bytes) = body.next().await? {
            all.extend_from_slice(bytes);
            if all.len() > OUTPUT_BYTES_MAX {
                break;
            }
        }
        Ok::<_, Error>(all)
    };
    let (fed, output) = futures::future::join(feed, output).await;
    fed?;
    told(&process, process.wait().await?, &output?)
}

/// Asked to end while its end is waited for.
async fn terminate(settings: &Settings) -> Result<()> {
    let process = start(settings).await?;
    let said = first_words(&process).await?;
    let ask = async {
        // The wait is under way by then.
        host::sleep(50_000).await;
        process.terminate();
    };
    let (code, ()) = futures::future::join(process.wait(), ask).await;
    told(&process, code?, said.as_bytes())
}

async fn drop_it(settings: &Settings) -> Result<()> {
    let process = start(settings).await?;
    let said = first_words(&process).await?;
    drop(process);
    // The job goes on long enough for the tool's time to end.
    host::sleep(300_000).await;
    Err(Error::new(ErrorKind::Unsupported, said))
}

/// As many as there may be, all kept.
async fn many(settings: &Settings) -> Result<()> {
    let mut running = Vec::new();
    loop {
        match start(settings).await {
            Ok(process) => running.push(process),
            Err(error) => return Err(Error::new(error.kind, format!("{} run: {}", running.len(), error.message))),
        }
    }
}

/// What it says first.
async fn first_words(process: &Process) -> Result<String> {
    let mut body = process.stdout();
    let words = body.next().await?.unwrap_or_default();
    Ok(String::from_utf8_lossy(words).trim().to_owned())
}

fn told(process: &Process, code: i32, output: &[u8]) -> Result<()> {
    let output = String::from_utf8_lossy(output);
    let stderr = process.stderr_tail(u32::MAX);
    Err(Error::new(ErrorKind::Unsupported, format!("{code}: {output:?}: {stderr:?}")))
}
