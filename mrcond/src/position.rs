//! `mrcond position`: what only a person can decide about a saved position.

use crate::cli::PositionSub;
use crate::{Failure, exit, output};
use mrcon::config::{CollectionConfig, ValidConfig};
use mrcon::position::{self, Position};
use mrcon::status::rfc3339;
use mrcon::uri::MongoUri;

/// The entry that is meant.
pub(crate) fn find<'a>(
    config: &'a ValidConfig,
    connector: &str,
) -> Result<&'a CollectionConfig, Failure> {
    position::find(config, connector).map_err(|names| {
        let line = format!(
            "{connector}: names no connector, or more than one; use one of: {}",
            names.join(", ")
        );
        Failure::new(exit::USAGE, line)
    })
}

/// Says what went wrong, and what to do about it.
pub(crate) fn failed(error: mrcon::Error) -> Failure {
    let line = format!("{}; remedy: {}", error.chain(), error.policy().remedy);
    Failure::new(exit::OTHER, line)
}

/// Does what was asked for, and says what was done.
pub(crate) async fn change(
    config: &ValidConfig,
    mongodb: &MongoUri,
    what: &PositionSub,
) -> Result<(), Failure> {
    let (PositionSub::Accept { connector } | PositionSub::Reset { connector, .. }) = what;
    let entry = find(config, connector)?;
    if let PositionSub::Reset { yes: false, .. } = what {
        let line = format!(
            "{connector}: what happened since its position was saved would never be delivered; to do it, add --yes"
        );
        return Err(Failure::new(exit::USAGE, line));
    }
    let position = Position::of(mongodb, entry).await.map_err(failed)?;
    match what {
        PositionSub::Accept { .. } => {
            let accepted = position.accept().await.map_err(failed)?;
            let at = accepted.at.map_or("an unknown time".to_owned(), rfc3339);
            output::inform(&format!(
                "{connector}: accepted the position of event {}, {at}; restart mrcond",
                accepted.seq
            ));
        }
        PositionSub::Reset { .. } => {
            position.reset().await.map_err(failed)?;
            output::inform(&format!(
                "{connector}: gave its position up; the next start of mrcond begins from now and publishes a gap record"
            ));
        }
    }
    Ok(())
}
