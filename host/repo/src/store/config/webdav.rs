//! `https://host/path`: a WebDAV server.

use super::{Built, Options, once};
use crate::Result;
use crate::store::webdav::WebDav;
use object_store::{client::HttpConnector, http::HttpBuilder};

pub(super) fn build(url: &url::Url, options: &mut Options<'_>) -> Result<Built> {
    if url.query().is_some() || url.fragment().is_some() {
        return Err(options.invalid("it has more than a host and a path"));
    }
    let mut transport = options.transport()?;
    match (options.take("user"), options.take("user-password")) {
        (Some(user), password) if !user.contains(':') => {
            transport = transport.with_basic_authorization(&user, &password.unwrap_or_default());
        }
        (Some(_), _) => return Err(options.invalid("option `user` holds a colon")),
        (None, Some(_)) => return Err(options.invalid("option `user-password` needs `user`")),
        (None, None) => {}
    }
    let client = options.client()?;
    let mut origin = url.clone();
    origin.set_path("/");
    let files = HttpBuilder::new()
        .with_url(origin.as_str())
        .with_client_options(client.clone())
        .with_http_connector(transport.clone())
        .with_retry(once())
        .build()
        .map_err(|error| options.unusable(error))?;
    let client = transport.connect(&client).map_err(|error| options.unusable(error))?;
    Ok(Built::on_network(WebDav::new(origin, client, files)))
}
