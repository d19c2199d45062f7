//! The driver's client for a URI, as every part of mrcon uses it.

use crate::error::{Error, ErrorKind, Result, mongo::Phase};
use crate::source;
use crate::tls_files;
use crate::uri::MongoUri;
use mongodb::Client;
use mongodb::error::ErrorKind as DriverErrorKind;
use mongodb::options::ClientOptions;
use std::time::Duration;

/// Connections beyond one for each open change stream: checkpoints, commands, monitoring.
const SPARE_CONNECTIONS: u32 = 8;
/// How long the driver looks for a usable server before a run fails: a fail-over takes less, and
/// `/health` should tell within seconds what is wrong.
pub(crate) const SERVER_SELECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// With a connection for each of so many change streams. It connects at its first use; only the name of
/// `mongodb+srv://` is resolved here.
pub(crate) async fn connect(uri: &MongoUri, connectors: usize) -> Result<Client> {
    let mut options = match ClientOptions::parse(uri.expose()).await {
        Ok(options) => options,
        Err(error) => return Err(refused(uri, error).await),
    };
    options.app_name.get_or_insert_with(|| "mrcon".into());
    options
        .server_selection_timeout
        .get_or_insert(SERVER_SELECTION_TIMEOUT);
    options.cmap_event_handler = Some(source::pool_events());
    // An open change stream holds a connection while it waits for events.
    let needed = u32::try_from(connectors)
        .unwrap_or(u32::MAX)
        .saturating_add(SPARE_CONNECTIONS);
    options.max_pool_size = Some(
        options
            .max_pool_size
            .map_or(needed, |configured| configured.max(needed)),
    );
    let wrong_file = |fault: String| Error::new(ErrorKind::Mongo, what(uri)).with_source(fault);
    tls_files::check_driver(options.tls.as_ref()).map_err(wrong_file)?;
    match Client::with_options(options) {
        Ok(client) => Ok(client),
        Err(error) => Err(refused(uri, error).await),
    }
}

fn what(uri: &MongoUri) -> String {
    format!("use the MongoDB URI {uri}")
}

/// Why the driver does not take a URI.
async fn refused(uri: &MongoUri, error: mongodb::error::Error) -> Error {
    let is_unresolved = matches!(*error.kind, DriverErrorKind::DnsResolve { .. });
    let error = Error::mongo(Phase::Prepare, what(uri), error);
    let words = if is_unresolved {
        "the name cannot be resolved (DNS has no _mongodb._tcp record of it, or does not answer); \
         check the host's name and the resolver"
            .to_owned()
    } else if uri.has_secrets() {
        // The driver may quote a part of the URI, which may be one of the password.
        words_without_secrets(uri).await
    } else {
        return error;
    };
    Error::new(error.kind(), error.to_string()).with_source(words)
}

/// What the driver says of the same URI without user, password and secret options.
async fn words_without_secrets(uri: &MongoUri) -> String {
    let bare = ClientOptions::parse(uri.without_secrets()).await;
    match bare.map_err(|error| *error.kind) {
        Err(DriverErrorKind::InvalidArgument { message, .. }) => message,
        Ok(_) | Err(_) => {
            "the driver does not accept it; check host, options and percent-encoding".to_owned()
        }
    }
}
