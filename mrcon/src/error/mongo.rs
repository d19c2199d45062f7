//! What the MongoDB driver's errors mean, decided by the server's error code.

use super::{Error, ErrorKind};
use mongodb::error::{CommandError, Error as DriverError, ErrorKind as DriverErrorKind};

/// Where an error came up: the same code means another thing at another place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The aggregate that opens the change stream: only here a refused token is a refused position.
    Open,
    /// Reading the open change stream.
    Read,
    /// Preparing the watched collection (images).
    Prepare,
    /// Reading or writing the checkpoint.
    Checkpoint,
}

impl Error {
    /// Wraps a driver error that came up while doing `context`.
    pub(crate) fn mongo(phase: Phase, context: impl Into<String>, error: DriverError) -> Error {
        let kind = classify(phase, &error);
        Error::new(kind, context).with_source(describe(&error))
    }
}

fn classify(phase: Phase, error: &DriverError) -> ErrorKind {
    if is_connection_error(error) {
        return ErrorKind::MongoConnection;
    }
    if matches!(*error.kind, DriverErrorKind::Authentication { .. }) {
        return ErrorKind::MongoAuthentication;
    }
    match (phase, server_code(error)) {
        (_, Some(18)) => ErrorKind::MongoAuthentication,
        (_, Some(13)) => ErrorKind::MongoUnauthorized,
        (_, Some(code)) if is_transient(code) => ErrorKind::MongoConnection,
        (Phase::Checkpoint, _) => ErrorKind::CheckpointStore,
        (Phase::Open, Some(9 | 15 | 260 | 40647 | 50811)) => ErrorKind::ResumeTokenRefused,
        (Phase::Open | Phase::Read, Some(280 | 286 | 136 | 464)) => ErrorKind::HistoryLost,
        (Phase::Open | Phase::Read, Some(10334)) => ErrorKind::EventTooLarge,
        (Phase::Open | Phase::Read, Some(47)) => ErrorKind::ImageMissing,
        (_, Some(40573)) => ErrorKind::NotReplicaSet,
        (Phase::Open | Phase::Prepare, Some(_)) => ErrorKind::WatchRefused,
        (Phase::Read, Some(20 | 72 | 73 | 166 | 40324 | 40415)) => ErrorKind::WatchRefused,
        _ => ErrorKind::Mongo,
    }
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

fn server_code(error: &DriverError) -> Option<i32> {
    use mongodb::error::WriteFailure;
    match error.kind.as_ref() {
        DriverErrorKind::Command(CommandError { code, .. }) => Some(*code),
        DriverErrorKind::Write(WriteFailure::WriteError(error)) => Some(error.code),
        DriverErrorKind::Write(WriteFailure::WriteConcernError(error)) => Some(error.code),
        _ => None,
    }
}

/// The driver's error without what servers like to quote in their messages: documents.
///
/// A message is kept up to its first brace, where a quoted document or token would begin.
fn describe(error: &DriverError) -> String {
    let full = match error.kind.as_ref() {
        DriverErrorKind::Command(command) => {
            let message = command
                .message
                .split('{')
                .next()
                .unwrap_or_default()
                .trim_end();
            format!(
                "MongoDB error {} ({}): {message}",
                command.code, command.code_name
            )
        }
        DriverErrorKind::Authentication { message, .. } => {
            format!("authentication failed: {message}")
        }
        DriverErrorKind::ServerSelection { message, .. } => {
            format!("no suitable MongoDB server: {message}")
        }
        other => other.to_string(),
    };
    const MAX_CHARS: usize = 300;
    match full.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}...", &full[..end]),
        None => full,
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
        for phase in [Phase::Open, Phase::Read, Phase::Prepare, Phase::Checkpoint] {
            check(phase, &resumable, ErrorKind::MongoConnection);
        }
    }

    #[test]
    fn lost_position_is_retried_or_taken_for_something_else() {
        for phase in [Phase::Open, Phase::Read] {
            check(phase, &[286, 280, 136, 464], ErrorKind::HistoryLost);
            check(phase, &[10334], ErrorKind::EventTooLarge);
            check(phase, &[47], ErrorKind::ImageMissing);
        }
        check(
            Phase::Open,
            &[260, 9, 15, 40647, 50811],
            ErrorKind::ResumeTokenRefused,
        );
        // The same codes while reading say nothing of the position.
        check(Phase::Read, &[260, 9, 15], ErrorKind::Mongo);
    }

    #[test]
    fn refused_watch_is_retried_for_ever() {
        check(
            Phase::Open,
            &[20, 72, 73, 166, 40324, 40415],
            ErrorKind::WatchRefused,
        );
        check(Phase::Open, &[40573], ErrorKind::NotReplicaSet);
    }

    #[test]
    fn missing_right_looks_like_something_else() {
        for phase in [Phase::Open, Phase::Read, Phase::Prepare, Phase::Checkpoint] {
            check(phase, &[13], ErrorKind::MongoUnauthorized);
            check(phase, &[18], ErrorKind::MongoAuthentication);
        }
    }

    #[test]
    fn document_quoted_by_the_server_reaches_the_log() {
        let quoted =
            "Change stream was configured to require a post-image for event: { _id: \"secret\" }";
        let error = Error::mongo(Phase::Read, "read", server_error(47, quoted));
        assert!(!error.chain().contains("secret"), "{}", error.chain());
        assert!(
            error
                .chain()
                .contains("47 (Name): Change stream was configured"),
            "{}",
            error.chain()
        );
        let long = Error::mongo(Phase::Read, "read", server_error(1, &"x".repeat(10_000)));
        assert!(long.chain().len() < 400);
    }
}
