//! What the MongoDB driver's errors mean, decided by the server's error code.

use super::{Error, ErrorKind, words};
use mongodb::error::{CommandError, Error as DriverError, ErrorKind as DriverErrorKind};

/// Where an error came up: the same code means another thing at another place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The aggregate that opens the change stream from now: it reads no document.
    Open,
    /// The same from a saved position.
    Resume,
    /// The first read, in which the server looks for the position: only here and at `Resume` a
    /// refused token is a refused position.
    FirstRead,
    /// Any later read.
    Read,
    /// Preparing the watched collection (images).
    Prepare,
    /// Reading or writing the checkpoint.
    Checkpoint,
    /// Reading documents for a snapshot.
    Copy,
    /// The same, of documents with values that must not be told.
    CopyMasked,
}

impl Error {
    /// Wraps a driver error that came up while doing `context`.
    pub(crate) fn mongo(phase: Phase, context: impl Into<String>, error: DriverError) -> Error {
        let kind = classify(phase, &error);
        Error::new(kind, context).with_source(describe(phase, &error))
    }
}

/// The code of a refusal for lack of rights.
const UNAUTHORIZED: i32 = 13;

fn classify(phase: Phase, error: &DriverError) -> ErrorKind {
    if tls_reason(error).is_some() {
        return ErrorKind::MongoTls;
    }
    if login_reason(error).is_some() {
        return ErrorKind::MongoAuthentication;
    }
    if is_connection_error(error) {
        return ErrorKind::MongoConnection;
    }
    if pipeline_changes_id(error) {
        return ErrorKind::WatchRefused;
    }
    match (phase, server_code(error)) {
        (_, Some(18)) => ErrorKind::MongoAuthentication,
        (_, Some(UNAUTHORIZED)) => ErrorKind::MongoUnauthorized,
        (_, Some(code)) if is_transient(code) => ErrorKind::MongoConnection,
        (Phase::Checkpoint, _) => ErrorKind::CheckpointStore,
        (Phase::Resume | Phase::FirstRead, Some(9 | 15)) if is_about_the_token(error) => {
            ErrorKind::ResumeTokenRefused
        }
        (Phase::Resume | Phase::FirstRead, Some(260 | 40647 | 40649 | 50795 | 50811 | 51057)) => {
            ErrorKind::ResumeTokenRefused
        }
        // The command itself, which has a pipeline nested too deeply.
        (Phase::Open | Phase::Resume, Some(15)) => ErrorKind::WatchRefused,
        (Phase::Resume | Phase::FirstRead | Phase::Read, Some(280 | 286 | 136 | 464)) => {
            ErrorKind::HistoryLost
        }
        // `start` is a time that has left the oplog.
        (Phase::Open, Some(286)) => ErrorKind::HistoryLost,
        // 7182500: not even in fragments, because the key or the token alone takes too much of one.
        (Phase::FirstRead | Phase::Read, Some(10334 | 7_182_500)) => ErrorKind::EventTooLarge,
        (Phase::FirstRead | Phase::Read, Some(7_182_504)) => ErrorKind::NotSplitThere,
        (Phase::FirstRead | Phase::Read, Some(47)) => ErrorKind::ImageMissing,
        (_, Some(40573)) => ErrorKind::NotReplicaSet,
        (Phase::Copy | Phase::CopyMasked, Some(code)) if is_about_the_watch(code) => {
            ErrorKind::SnapshotRefused
        }
        (_, Some(code)) if is_about_the_watch(code) => ErrorKind::WatchRefused,
        _ => ErrorKind::Mongo,
    }
}

/// Code 280 stands for two things, a position that is lost and a pipeline that changes the token; taken
/// for the first, the second would have every event skipped where `on_history_lost` is `now`.
fn pipeline_changes_id(error: &DriverError) -> bool {
    matches!(
        error.kind.as_ref(),
        DriverErrorKind::Command(CommandError { code: 280, message, .. })
            if message.contains("modified by the pipeline")
    )
}

/// Codes 9 and 15 stand for a token that cannot be read, and for a pipeline that cannot. Taken for the first, the
/// second would send people to give their position up.
fn is_about_the_token(error: &DriverError) -> bool {
    const WORDS: [&str; 2] = ["resume token", "past end of buffer"];
    matches!(
        error.kind.as_ref(),
        DriverErrorKind::Command(CommandError { message, .. })
            if WORDS.iter().any(|words| message.contains(words))
    )
}

fn is_connection_error(error: &DriverError) -> bool {
    matches!(
        *error.kind,
        DriverErrorKind::Io(_)
            | DriverErrorKind::ConnectionPoolCleared { .. }
            | DriverErrorKind::ServerSelection { .. }
            | DriverErrorKind::DnsResolve { .. }
            | DriverErrorKind::Shutdown
    ) || error.contains_label("ResumableChangeStreamError")
}

/// What TLS has against the other side, or the other side against us. The driver has no kind for it, and
/// wraps what TLS says into its own words.
fn tls_reason(error: &DriverError) -> Option<String> {
    match error.kind.as_ref() {
        DriverErrorKind::Io(error) => reason_in(&error.to_string(), false),
        DriverErrorKind::ConnectionPoolCleared { message, .. } => reason_in(message, false),
        DriverErrorKind::ServerSelection { message, .. } => reason_in(message, true),
        _ => None,
    }
}

/// Why nobody lets us in. Where the driver meets that while it looks for a server, it tells of servers that are
/// not there, with what it met in its own words.
fn login_reason(error: &DriverError) -> Option<&str> {
    match error.kind.as_ref() {
        DriverErrorKind::Authentication { message, .. } => Some(message),
        DriverErrorKind::ConnectionPoolCleared { message, .. }
        | DriverErrorKind::ServerSelection { message, .. } => login_reason_in(message),
        _ => None,
    }
}

fn login_reason_in(message: &str) -> Option<&str> {
    const FAILURES: [&str; 6] = [
        "SCRAM failure: ",
        "MONGODB-X509 failure: ",
        "PLAIN failure: ",
        "MONGODB-AWS failure: ",
        "MONGODB-OIDC failure: ",
        "GSSAPI failure: ",
    ];
    let found = FAILURES.iter().find_map(|words| message.find(words));
    Some(without_additions(&message[found?..]))
}

/// A reason without what the driver writes behind it.
fn without_additions(reason: &str) -> &str {
    let ends = [", labels: ", " }, ] }"].map(|end| reason.find(end));
    let end = ends.into_iter().flatten().min();
    &reason[..end.unwrap_or(reason.len())]
}

/// `has_tried`: whether it has been tried for a while to connect.
fn reason_in(message: &str, has_tried: bool) -> Option<String> {
    const WORDS: [&str; 3] = [
        "invalid peer certificate",
        "received fatal alert",
        "received corrupt message",
    ];
    /// What a server does that misses our certificate, and one that is ended; but that one cannot be connected
    /// to again, so what is told is that.
    const CLOSED: (&str, &str) = (
        "peer closed connection without sending TLS close_notify",
        "the server closes the connection without a word; it may demand a client certificate",
    );
    /// The same before there is TLS at all.
    const NO_TLS: (&str, &str) = (
        "tls handshake eof",
        "the server closes the connection at the first words of TLS; it may speak none",
    );
    let found = WORDS.iter().find_map(|words| message.find(words));
    let (at, reason) = match found {
        Some(at) => (at, words::of_tls(without_additions(&message[at..]))),
        None if has_tried => {
            let mut known = [CLOSED, NO_TLS].into_iter();
            known.find_map(|(words, reason)| Some((message.find(words)?, reason.to_owned())))?
        }
        None => return None,
    };
    // The driver lists all servers that it knows, each before what is wrong with it.
    let (before, _) = message.split_at(at);
    let server = before.rsplit_once("Address: ").map(|(_, rest)| rest);
    let server = server.and_then(|rest| rest.split([',', ' ']).next());
    Some(match server {
        Some(server) => format!("TLS with MongoDB at {server}: {reason}"),
        None => format!("TLS with MongoDB: {reason}"),
    })
}

/// Codes that another server, or the same one a little later, would not give: fail-over, shutdown,
/// killed cursors and sessions, exceeded time (FAULTS A.5).
fn is_transient(code: i32) -> bool {
    matches!(
        code,
        6 | 7
            | 43
            | 50
            | 63
            | 64
            | 89
            | 91
            | 100
            | 133
            | 134
            | 150
            | 189
            | 202
            | 234
            | 237
            | 262
            | 9001
            | 10107
            | 11600
            | 11601
            | 11602
            | 13388
            | 13435
            | 13436
            | 50738
    )
}

/// Codes that say that the command itself is wrong: namespace, options, stages and what stages compute, which
/// fails on the same event again (2, 14, 241). Stages are refused with many codes of five digits and more. Everything that is in no list is retried: that costs
/// a line in `/health`, while halting at a passing fault would stop delivery until a person comes.
fn is_about_the_watch(code: i32) -> bool {
    let is_named = matches!(
        code,
        2 | 9 | 14 | 20 | 26 | 59 | 72 | 73 | 115 | 166 | 168 | 241 | 303
    );
    is_named || code >= 15_000
}

/// The server's code for what went wrong, if it is the server that says so.
pub(crate) fn server_code(error: &DriverError) -> Option<i32> {
    use mongodb::error::WriteFailure;
    match error.kind.as_ref() {
        DriverErrorKind::Command(CommandError { code, .. }) => Some(*code),
        DriverErrorKind::Write(WriteFailure::WriteError(error)) => Some(error.code),
        DriverErrorKind::Write(WriteFailure::WriteConcernError(error)) => Some(error.code),
        DriverErrorKind::InsertMany(failed) => {
            let errors = failed.write_errors.as_deref().unwrap_or_default();
            errors.first().map(|error| error.code)
        }
        _ => None,
    }
}

/// The driver's error without what servers like to quote in their messages: documents.
///
/// What comes of reading events is told by code and name alone, since a stage that fails on a value
/// quotes it. Elsewhere the message helps (a misspelled stage), up to its first brace, where a
/// command or a key would begin.
fn describe(phase: Phase, error: &DriverError) -> String {
    let (of_tls, of_login) = (tls_reason(error), login_reason(error));
    let full = match error.kind.as_ref() {
        _ if of_tls.is_some() => of_tls.unwrap_or_default(),
        _ if of_login.is_some() => {
            format!("authentication failed: {}", of_login.unwrap_or_default())
        }
        DriverErrorKind::Command(command) => {
            let name = format!("MongoDB error {} ({})", command.code, command.code_name);
            let message = command
                .message
                .split('{')
                .next()
                .unwrap_or_default()
                .trim_end();
            match phase {
                _ if pipeline_changes_id(error) => {
                    format!("{name}: the pipeline changes the event's `_id`, its resume token")
                }
                _ if matches!(command.code, 10107 | 13435) => {
                    format!(
                        "{name}: {message} (with directConnection=true the URI has to name the primary)"
                    )
                }
                // Of the command only its name, which tells what right it needs.
                _ if command.code == UNAUTHORIZED => {
                    format!("{name}: {message} {}", command_in(&command.message))
                }
                Phase::FirstRead | Phase::Read | Phase::CopyMasked => name,
                Phase::Open | Phase::Resume | Phase::Prepare | Phase::Checkpoint | Phase::Copy => {
                    format!("{name}: {message}")
                }
            }
        }
        DriverErrorKind::ServerSelection { message, .. } => {
            let servers = words::servers(message);
            let why = servers.as_deref().unwrap_or(message);
            format!("no suitable MongoDB server: {why}")
        }
        other => other.to_string(),
    };
    const MAX_CHARS: usize = 300;
    match full.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}...", &full[..end]),
        None => full,
    }
}

/// The name of the command that a server quotes, the first key of its document.
fn command_in(message: &str) -> &str {
    let quoted = message.split_once('{').map_or("", |(_, quoted)| quoted);
    let name = quoted.split(':').next().unwrap_or_default().trim();
    match name.chars().all(|c| c.is_ascii_alphabetic()) {
        true => name,
        false => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    fn server_error(code: i32, message: &str) -> DriverError {
        let reply = doc! {"code": code, "codeName": "Name", "errmsg": message};
        let command: CommandError = bson::deserialize_from_document(reply).unwrap();
        DriverErrorKind::Command(command).into()
    }

    const PHASES: [Phase; 7] = [
        Phase::Open,
        Phase::Resume,
        Phase::FirstRead,
        Phase::Read,
        Phase::Prepare,
        Phase::Checkpoint,
        Phase::CopyMasked,
    ];

    #[track_caller]
    fn check(phase: Phase, codes: &[i32], expected: ErrorKind) {
        for code in codes {
            assert_eq!(
                classify(phase, &server_error(*code, "text")),
                expected,
                "{code} at {phase:?}"
            );
        }
    }

    #[test]
    fn passing_fault_halts_the_connector() {
        // The driver specification's resumable codes, and those that a shutdown or a killed cursor gives.
        let resumable = [
            6, 7, 43, 50, 63, 89, 91, 133, 134, 150, 189, 234, 237, 262, 9001, 10107, 11600, 11602,
            13388, 13435, 13436, 50738,
        ];
        for phase in PHASES {
            check(phase, &resumable, ErrorKind::MongoConnection);
        }
    }

    #[test]
    fn lost_position_is_retried_or_taken_for_something_else() {
        for phase in [Phase::Resume, Phase::FirstRead, Phase::Read] {
            check(phase, &[286, 280, 136, 464], ErrorKind::HistoryLost);
        }
        for phase in [Phase::FirstRead, Phase::Read] {
            check(phase, &[10334, 7_182_500], ErrorKind::EventTooLarge);
            check(phase, &[7_182_504], ErrorKind::NotSplitThere);
            check(phase, &[47], ErrorKind::ImageMissing);
        }
        for phase in [Phase::Resume, Phase::FirstRead] {
            check(
                phase,
                &[260, 40647, 40649, 50795, 50811, 51057],
                ErrorKind::ResumeTokenRefused,
            );
            for (code, said) in [
                (9, "resume token string was not a valid hex string"),
                (15, "Invalid advance (8) past end of buffer[0] at offset: 0"),
            ] {
                let kind = classify(phase, &server_error(code, said));
                assert_eq!(kind, ErrorKind::ResumeTokenRefused, "{said}");
            }
        }
        // The same code while reading says nothing of the position.
        check(Phase::Read, &[260, 15], ErrorKind::Mongo);
    }

    #[test]
    fn pipeline_that_changes_the_token_is_taken_for_a_lost_position() {
        let said = "Encountered an event whose _id field, which contains the resume token, was \
                    modified by the pipeline. Expected: { _id: 1 } but found: { _id: \"secret\" }";
        for phase in [Phase::FirstRead, Phase::Read] {
            let error = Error::mongo(phase, "read", server_error(280, said));
            assert_eq!(error.kind(), ErrorKind::WatchRefused);
            assert_eq!(
                error.chain(),
                "read: MongoDB error 280 (Name): the pipeline changes the event's `_id`, its resume token"
            );
        }
    }

    #[test]
    fn refused_watch_is_retried_for_ever() {
        for phase in [Phase::Open, Phase::Resume, Phase::FirstRead, Phase::Read] {
            check(
                phase,
                &[2, 14, 20, 72, 73, 166, 168, 241, 40324, 40415, 51091],
                ErrorKind::WatchRefused,
            );
            check(phase, &[9], ErrorKind::WatchRefused);
            check(phase, &[40573], ErrorKind::NotReplicaSet);
        }
    }

    #[test]
    fn pipeline_that_cannot_be_read_is_taken_for_a_damaged_position() {
        for (code, said) in [
            (9, "Pipeline length must be no longer than 1000 stages"),
            (15, "BSONObj exceeds maximum nested object depth"),
        ] {
            for phase in [Phase::Open, Phase::Resume] {
                let kind = classify(phase, &server_error(code, said));
                assert_eq!(kind, ErrorKind::WatchRefused, "{said}");
            }
        }
    }

    #[test]
    fn refused_login_looks_like_servers_that_are_away() {
        let said = |error: &str| {
            format!(
                "Server selection timeout: No available servers. Topology: {{ Type: ReplicaSetNoPrimary, Servers: [ \
                 {{ Address: db.example:27017, Type: Unknown, Error: Kind: {error}, labels: {{}} }}, ] }}"
            )
        };
        assert_eq!(
            login_reason_in(&said("SCRAM failure: Authentication failed.")),
            Some("SCRAM failure: Authentication failed.")
        );
        assert_eq!(login_reason_in(&said("I/O error: refused")), None);
        let error = DriverError::custom("SCRAM failure: of another kind");
        assert_eq!(login_reason(&error), None);
    }

    #[test]
    fn unknown_code_halts_the_connector() {
        for phase in [
            Phase::Open,
            Phase::Resume,
            Phase::FirstRead,
            Phase::Read,
            Phase::Prepare,
        ] {
            check(phase, &[1, 65, 96, 211, 8000], ErrorKind::Mongo);
        }
    }

    #[test]
    fn missing_right_looks_like_something_else() {
        for phase in PHASES {
            check(phase, &[13], ErrorKind::MongoUnauthorized);
            check(phase, &[18], ErrorKind::MongoAuthentication);
        }
    }

    #[test]
    fn refused_command_is_not_named_or_quoted() {
        let said = "not authorized on shop to execute command { find: \"orders\", filter: { a: \"secret\" } }";
        for phase in PHASES {
            let text = Error::mongo(phase, "do it", server_error(13, said)).chain();
            assert_eq!(
                text,
                "do it: MongoDB error 13 (Name): not authorized on shop to execute command find"
            );
        }
    }

    #[test]
    fn reason_of_tls_is_cut_off_or_taken_for_a_lost_connection() {
        let said = |error: &str| {
            let message = format!(
                "Server selection timeout: No available servers. Topology: {{ Type: Single, Servers: [ \
                 {{ Address: db.example:27017, Type: Unknown, Error: Kind: I/O error: {error} }}, ] }}"
            );
            reason_in(&message, true)
        };
        assert_eq!(
            said("invalid peer certificate: Expired").as_deref(),
            Some("TLS with MongoDB at db.example:27017: invalid peer certificate: Expired")
        );
        let closed = "peer closed connection without sending TLS close_notify: https://...";
        assert!(said(closed).is_some_and(|reason| reason.contains("demand a client certificate")));
        // A connection that was in use: its server may have ended.
        assert_eq!(reason_in(closed, false), None);
        assert_eq!(said("Connection refused (os error 111)"), None);
    }

    #[test]
    fn document_quoted_by_the_server_reaches_the_log() {
        let quoted = "Failed to parse number 'secret' in $convert: { _id: \"secret\" }";
        for phase in [Phase::FirstRead, Phase::Read, Phase::CopyMasked] {
            let text = Error::mongo(phase, "read", server_error(241, quoted)).chain();
            assert_eq!(text, "read: MongoDB error 241 (Name)");
        }
        let key = "E11000 duplicate key error dup key: { _id: \"secret\" }";
        let text = Error::mongo(Phase::Checkpoint, "save", server_error(11000, key)).chain();
        assert_eq!(
            text,
            "save: MongoDB error 11000 (Name): E11000 duplicate key error dup key:"
        );
    }

    #[test]
    fn misspelled_stage_is_not_named() {
        let error = server_error(40324, "Unrecognized pipeline stage name: '$mach'");
        let text = Error::mongo(Phase::Open, "open", error).chain();
        assert_eq!(
            text,
            "open: MongoDB error 40324 (Name): Unrecognized pipeline stage name: '$mach'"
        );
        let long = Error::mongo(Phase::Open, "open", server_error(1, &"x".repeat(10_000)));
        assert!(long.chain().len() < 400);
    }
}
