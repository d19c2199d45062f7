//! MongoDB: what it is, what it lets us do, and what each entry needs of it.

mod clock;
mod needs;
mod oplog;
mod position;
mod rights;
mod watched;

use super::finding::{Check, Finding};
use super::tls::{self, Side};
use super::{Patient, remedy};
use crate::client::connect;
use crate::config::ValidConfig;
use crate::error::mongo::Phase;
use crate::error::{Error, ErrorKind};
use crate::source::version;
use crate::uri::MongoUri;
use bson::{Document, doc};
use futures_util::{StreamExt, stream};
use mongodb::Client;
use mongodb::options::{ClientOptions, ServerAddress, Tls};
use needs::Planned;
use rights::Privileges;
use std::time::{Duration, Instant, SystemTime};
use tokio::time::timeout;

/// Entries that are looked at at the same time.
const AT_ONCE: usize = 8;
/// How long one command may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// The first version that names where a stream begins.
const OLDEST: [i32; 3] = [4, 2, 0];
/// The first version that keeps images.
const IMAGES: [i32; 3] = [6, 0, 0];

/// The collections of each entry that exist, as databases and names; empty where that is not known.
pub(super) type Names = Vec<Vec<(String, String)>>;

/// Looks at everything on this side.
pub(super) async fn examine(
    uri: &MongoUri,
    config: &ValidConfig,
    patients: &[Patient<'_>],
) -> (Vec<Finding>, Names) {
    let nothing = vec![Vec::new(); patients.len()];
    let client = match connect(uri, AT_ONCE).await {
        Ok(client) => client,
        Err(error) => return (vec![unusable(&error)], nothing),
    };
    let options = ClientOptions::parse(uri.expose()).await.ok();
    let mut findings = match &options {
        Some(options) => certificates(uri, options).await,
        None => Vec::new(),
    };
    let seen = match hello(&client).await {
        Ok(seen) => seen,
        Err(error) => {
            findings.push(unreachable(uri, options, &error).await);
            return (findings, nothing);
        }
    };
    let is_mongos = match topology(&seen.hello) {
        Ok((found, is_mongos)) => {
            let cause = format!("{uri} answers: {found}");
            findings.push(Finding::info(Check::MongodbReachable, cause));
            is_mongos
        }
        Err(found) => {
            findings.push(found);
            return (findings, nothing);
        }
    };
    findings.push(clock::judge(&seen));
    let version = version::of(&client.database("admin"))
        .await
        .unwrap_or_default();
    findings.push(judge_version(version));
    findings.extend(position::judge_room(config));
    let privileges = match privileges(uri, &client).await {
        Ok(privileges) => privileges,
        Err(found) => {
            findings.push(found);
            return (findings, nothing);
        }
    };
    findings.push(match &privileges {
        Some(privileges) => Finding::info(
            Check::MongodbLogin,
            format!("logged in{}", whom(privileges)),
        ),
        None => Finding::info(Check::MongodbLogin, "MongoDB asks nobody for a login"),
    });
    let listed = patients
        .iter()
        .map(|patient| watched::list(&client, patient));
    let listed: Vec<_> = stream::iter(listed).buffered(AT_ONCE).collect().await;
    if let Some(privileges) = &privileges {
        let listed = patients.iter().zip(&listed);
        let plans: Vec<Planned<'_>> = listed
            .map(|(patient, listed)| watched::planned(patient, listed))
            .collect();
        findings.extend(needs::examine(config, &plans, privileges));
    }
    let window = oplog::look(&client, is_mongos).await;
    findings.push(window.finding());
    let about = patients.iter().zip(listed).map(|(patient, listed)| {
        let (client, window, privileges) = (&client, &window, privileges.as_ref());
        async move {
            let (mut found, names) = watched::examine(patient, listed, privileges, version);
            let can_be_watched = !found.iter().any(watched::has_no_stream);
            found.extend(position::examine(client, patient, window, can_be_watched).await);
            (found, names)
        }
    });
    let about: Vec<_> = stream::iter(about).buffered(AT_ONCE).collect().await;
    let (found, names): (Vec<_>, Names) = about.into_iter().unzip();
    findings.extend(found.into_iter().flatten());
    (findings, names)
}

fn whom(privileges: &Privileges) -> String {
    match &privileges.user {
        Some((user, db)) => format!(" as {user} of the database {db}"),
        None => String::new(),
    }
}

/// The driver does not take the URI.
fn unusable(error: &Error) -> Finding {
    match error.kind() {
        ErrorKind::MongoConnection => {
            Finding::error(Check::MongodbReachable, error.chain()).remedy(remedy(error))
        }
        _ => Finding::error(Check::Configuration, error.chain())
            .remedy("correct the MongoDB URI, and the files that it names"),
    }
}

/// What the server says of itself, and when.
struct Seen {
    hello: Document,
    asked: SystemTime,
    took: Duration,
}

async fn hello(client: &Client) -> Result<Seen, Error> {
    let fail = |error| Error::mongo(Phase::Prepare, "ask MongoDB what it is", error);
    let admin = client.database("admin");
    // Connecting and logging in would count as the way there and back.
    admin.run_command(doc! {"ping": 1}).await.map_err(fail)?;
    let (asked, began) = (SystemTime::now(), Instant::now());
    let hello = admin.run_command(doc! {"hello": 1}).await.map_err(fail)?;
    let took = began.elapsed();
    Ok(Seen { hello, asked, took })
}

/// What it is in words, and whether it is a mongos.
fn topology(hello: &Document) -> Result<(String, bool), Finding> {
    if hello.get_str("msg").is_ok_and(|text| text == "isdbgrid") {
        return Ok(("a sharded cluster".to_owned(), true));
    }
    match hello.get_str("setName") {
        Ok(name) => Ok((format!("the replica set {name}"), false)),
        Err(_) => Err(standalone()),
    }
}

fn standalone() -> Finding {
    let cause = "MongoDB is a standalone server: without an oplog there are no change streams";
    let remedy = "start mongod with --replSet rs0 (replication.replSetName in its file), then run once in mongosh: rs.initiate()";
    Finding::error(Check::MongodbTopology, cause).remedy(remedy)
}

fn judge_version(version: [i32; 3]) -> Finding {
    let [major, minor, patch] = version;
    let cause = format!("MongoDB {major}.{minor}.{patch}");
    match version < OLDEST {
        true => {
            let cause = format!("{cause}: its change streams do not tell where they begin");
            Finding::error(Check::MongodbVersion, cause).remedy("upgrade to MongoDB 6.0 or newer")
        }
        false => Finding::info(Check::MongodbVersion, cause),
    }
}

/// Why nothing can be asked.
async fn unreachable(uri: &MongoUri, options: Option<ClientOptions>, error: &Error) -> Finding {
    let words = error.chain();
    if error.kind() == ErrorKind::MongoAuthentication {
        let words = format!("{uri}: {words}");
        let remedy = "correct user, password and authSource in the MongoDB URI";
        return Finding::error(Check::MongodbLogin, words).remedy(remedy);
    }
    if let Some(remedy) = tls::remedy(&words) {
        return Finding::error(Check::MongodbTls, words).remedy(remedy);
    }
    let hosts: Vec<ServerAddress> = options.iter().flat_map(|one| one.hosts.clone()).collect();
    if let Some(options) = options
        && let Some(found) = other_set(uri, options, &words).await
    {
        return found;
    }
    let names: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let remedy = format!(
        "see that MongoDB runs, and that nothing (a firewall, a wrong host or port) is between it and this machine: {}",
        names.join(", ")
    );
    Finding::error(Check::MongodbReachable, words).remedy(remedy)
}

/// What keeps servers that answer, each by itself, from being used as the URI says.
async fn other_set(uri: &MongoUri, options: ClientOptions, words: &str) -> Option<Finding> {
    let wanted = options.repl_set_name.clone();
    let hello = alone(options).await?;
    if topology(&hello).is_err() {
        return Some(standalone());
    }
    let name = hello.get_str("setName").unwrap_or_default();
    if let Some(wanted) = wanted.filter(|wanted| !name.is_empty() && wanted != name) {
        let cause = format!("{uri} answers, and its replica set is called {name}, not {wanted}");
        let remedy = format!("write replicaSet={name} in the MongoDB URI");
        return Some(Finding::error(Check::MongodbReachable, cause).remedy(remedy));
    }
    let cause = format!(
        "{uri} answers, and its replica set has no primary that can be reached from here: {words}"
    );
    let remedy = "see rs.status() in mongosh; members have to be reachable from here under the names in rs.conf(), or use directConnection=true";
    Some(Finding::error(Check::MongodbReachable, cause).remedy(remedy))
}

/// What the first server says that answers by itself, whatever set it is in.
async fn alone(mut options: ClientOptions) -> Option<Document> {
    let hosts = std::mem::take(&mut options.hosts);
    for host in hosts {
        let mut options = options.clone();
        options.hosts = vec![host];
        options.repl_set_name = None;
        options.direct_connection = Some(true);
        options.server_selection_timeout = Some(Duration::from_secs(2));
        let client = Client::with_options(options).ok()?;
        let admin = client.database("admin");
        let asked = timeout(DEADLINE, admin.run_command(doc! {"hello": 1}));
        if let Ok(Ok(hello)) = asked.await {
            return Some(hello);
        }
    }
    None
}

/// Whether the URI says it by the other one of both options.
fn is_insecure(uri: &MongoUri) -> bool {
    uri.options()
        .any(|(name, _)| name.eq_ignore_ascii_case("tlsInsecure"))
}

async fn certificates(uri: &MongoUri, options: &ClientOptions) -> Vec<Finding> {
    let Some(Tls::Enabled(tls)) = &options.tls else {
        return Vec::new();
    };
    let address = match options.hosts.first() {
        Some(ServerAddress::Tcp { host, port }) => Some((host.as_str(), port.unwrap_or(27017))),
        _ => None,
    };
    let file = tls.cert_key_file_path.as_deref();
    let unverified = match tls.allow_invalid_certificates {
        Some(true) if is_insecure(uri) => Some("tlsInsecure"),
        Some(true) => Some("tlsAllowInvalidCertificates"),
        Some(false) | None => None,
    };
    let side = Side {
        check: Check::MongodbTls,
        authorities: tls.ca_file_path.as_deref().map(|file| ("tlsCAFile", file)),
        identity: file.map(|file| ("tlsCertificateKeyFile", file, file)),
        unverified,
        address,
        name: None,
    };
    side.examine().await
}

/// `None` where nobody has to log in.
async fn privileges(uri: &MongoUri, client: &Client) -> Result<Option<Privileges>, Finding> {
    let admin = client.database("admin");
    let status = doc! {"connectionStatus": 1, "showPrivileges": true};
    let context = "ask MongoDB who we are";
    let fail = |error: Error| {
        let cause = format!("{uri}: {}", error.chain());
        Finding::error(Check::MongodbLogin, cause).remedy(remedy(&error))
    };
    let status = admin.run_command(status).await;
    let status = status.map_err(|error| fail(Error::mongo(Phase::Prepare, context, error)))?;
    let privileges = Privileges::of(&status);
    if privileges.user.is_some() {
        return Ok(Some(privileges));
    }
    match admin
        .run_command(doc! {"find": "system.version", "limit": 1})
        .await
    {
        Ok(_) => Ok(None),
        Err(error) => {
            let error = Error::mongo(Phase::Prepare, context, error);
            let cause = format!(
                "{uri} asks for a login, and the URI has none: {}",
                error.chain()
            );
            let remedy = "put user and password into the MongoDB URI: mongodb://user:password@host/?authSource=admin";
            Err(Finding::error(Check::MongodbLogin, cause).remedy(remedy))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

    #[test]
    fn standalone_server_is_taken_for_a_replica_set() {
        let set = topology(&doc! {"setName": "rs0", "isWritablePrimary": true}).unwrap();
        assert_eq!(set, ("the replica set rs0".to_owned(), false));
        assert!(topology(&doc! {"msg": "isdbgrid"}).unwrap().1);
        let alone = topology(&doc! {"isWritablePrimary": true}).unwrap_err();
        assert_eq!(alone.severity, Severity::Error);
        assert!(alone.remedy.unwrap().contains("rs.initiate()"));
    }

    #[test]
    fn option_that_nobody_wrote_is_named() {
        let uri = |text: &str| MongoUri::parse(text).unwrap();
        assert!(is_insecure(&uri("mongodb://h/?tls=true&TLSinsecure=true")));
        assert!(!is_insecure(&uri(
            "mongodb://h/?tls=true&tlsAllowInvalidCertificates=true"
        )));
    }

    #[test]
    fn server_that_is_too_old_is_taken() {
        assert_eq!(judge_version([4, 0, 28]).severity, Severity::Error);
        assert_eq!(judge_version([4, 2, 0]).severity, Severity::Info);
    }
}
