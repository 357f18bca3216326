//! `backstay repo init`: a new, empty repository.

use super::RepoArgs;
use crate::{context::Context, failure::Result};

pub(crate) fn run(args: &RepoArgs, context: &Context) -> Result<()> {
    let config = context.config()?;
    let spec = config.repository(&args.repository)?.spec()?;
    let made = context.block_on(async { Ok(backstay_pipeline::repository::init(&spec).await?) })?;
    let result = serde_json::json!({ "repository": spec.name, "url": spec.url, "id": made.id().to_string() });
    let text = format!(
        "made repository {} at {}\nkeep its password: without it nothing in there can be read",
        made.id().short(),
        spec.url
    );
    context.output().result(&result, text)
}
