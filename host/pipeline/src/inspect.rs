//! Connects and looks.

use crate::{
    job::{Failure, InspectSummary},
    work::Work,
};

pub(crate) async fn run(work: &Work) -> Result<InspectSummary, Failure> {
    let facts = work.plugin.inspect(work.context("inspect")).await?;
    Ok(InspectSummary {
        identity: facts.identity,
        version: facts.version,
        role: facts.role,
        tail: facts.tail,
        warnings: facts.warnings,
    })
}
