//! Where Docker writes a container's log.

use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;

use super::{Error, READ_TIMEOUT, Runtime};
use crate::logs::files::Spool;

/// The driver whose files are read.
const DRIVER: &str = "json-file";
/// Docker's own where a container says nothing: one file without end.
const FILES: usize = 1;

impl Runtime {
    /// The files of a container's log; none: another driver's, or out of reach of this process. One
    /// that does not exist (any more) has none.
    pub(crate) async fn spool(&self, container: &str) -> Result<Option<Spool>, Error> {
        let asked = self.docker.inspect_container(container, None);
        let asked = self.call("inspect a container", READ_TIMEOUT, asked).await;
        let response = match asked {
            Ok(response) => response,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let config = response.host_config.and_then(|config| config.log_config);
        let driver = config.as_ref().and_then(|config| config.typ.as_deref());
        let path = response.log_path.filter(|path| !path.is_empty());
        let spool = path.filter(|_| driver == Some(DRIVER)).map(|path| {
            let options = config.and_then(|config| config.config).unwrap_or_default();
            let files = options.get("max-file").and_then(|text| text.parse().ok());
            let size = options.get("max-size").and_then(|text| bytes(text));
            Spool::new(
                PathBuf::from(path),
                (files.unwrap_or(FILES), size.unwrap_or(0)),
            )
        });
        let spool = spool.filter(Spool::is_readable);
        if spool.is_none() && !self.told_no_spool.swap(true, Relaxed) {
            tracing::info!(
                container,
                "the log's files are out of reach: logs are read through docker, which costs more, and \
                 what it has turned over is missing without a word"
            );
        }
        Ok(spool)
    }
}

/// Docker's way of writing sizes: `10m`, where m is a million.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text[digits.len()..]
        .to_ascii_lowercase()
        .trim_end_matches('b')
    {
        "" => 1,
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn dockers_sizes() {
        assert_eq!(bytes("10m"), Some(10_000_000));
        assert_eq!(bytes("123"), Some(123));
        assert_eq!(bytes("4kB"), Some(4_000));
        assert_eq!(bytes("-1"), None);
        assert_eq!(bytes("ten"), None);
    }
}
