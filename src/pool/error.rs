//! Why there is no connection to the upstream, or no answer from it, in the operator's words.

use std::{fmt, io, time::Duration};

use super::{Budget, http1::Invalid};

/// Why an exchange has no answer, or none that is whole.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error(transparent)]
    NotHttp(#[from] Invalid),
    #[error("it ended before the answer was whole")]
    Incomplete,
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Nothing that the upstream did.
    #[error("the request's body broke off: {0}")]
    RequestBody(Box<dyn std::error::Error + Send + Sync>),
}

/// Why there is no connection.
#[derive(Debug)]
pub enum AcquireError {
    /// The line did not move in time.
    Exhausted { budget: Budget, limit: usize, waited: Duration },
    /// There was room, and the upstream could not be reached in time.
    Unreachable { cause: io::Error, waited: Duration },
    /// The server restarts, and was not back in time.
    Restarting { waited: Duration },
}

impl fmt::Display for AcquireError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AcquireError::Exhausted { budget, limit, waited } => {
                let (what, setting) = match budget {
                    Budget::Calls => ("calls", "max_connections"),
                    Budget::Streams => ("streams", "max_streams"),
                    Budget::Messages => ("messages", "max_connections"),
                };
                write!(
                    out,
                    "all {limit} {what} that {setting} allows were in use for {waited:.1?}; raise \
                     {setting} or acquire_timeout, or add replicas"
                )
            }
            AcquireError::Restarting { waited } => write!(
                out,
                "the server restarts and was not back after {waited:.1?}; raise acquire_timeout if \
                 it takes longer to start"
            ),
            AcquireError::Unreachable { cause, waited } => write!(
                out,
                "the server could not be reached for {waited:.1?}: {cause}; is it running, and \
                 does `upstream` name its port?"
            ),
        }
    }
}
