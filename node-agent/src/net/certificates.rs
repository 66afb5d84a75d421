//! Certificates that an operator puts into a folder: pairs of files, read at the start and at each SIGHUP.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use skep_ingress::{Certificate, Ingress};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error_chain;

/// Far above what one node's operator keeps by hand.
const MAX_PAIRS: usize = 1000;
/// A chain of the largest keys is a tenth of it.
const MAX_FILE_BYTES: u64 = 256 << 10;

/// The folder's certificates cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder.
    #[error("cannot read the folder of certificates {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// One of the files.
    #[error("cannot read {}: a certificate is NAME.crt with its key beside it as NAME.key", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A pair.
    #[error("{} and its key cannot be shown", path.display())]
    Pair {
        /// The certificate.
        path: PathBuf,
        /// Why not.
        source: skep_ingress::certificates::Error,
    },
    /// It could not be told to read again.
    #[error("SIGHUP cannot be watched")]
    Signal(#[source] io::Error),
    /// Too many.
    #[error("{} holds more than {MAX_PAIRS} certificates", path.display())]
    TooMany {
        /// The folder.
        path: PathBuf,
    },
}

type Pair = Result<Certificate, Error>;

/// Every certificate of the folder that can be shown; of the others a word in the log: an ingress that does
/// not start for one of them would take the rest down.
pub(super) fn at_start(folder: &Path) -> Result<Vec<Certificate>, Error> {
    let mut good = Vec::new();
    for pair in read(folder)? {
        match pair {
            Ok(certificate) => good.push(certificate),
            Err(error) => tracing::error!("{}", error_chain(&error)),
        }
    }
    Ok(good)
}

/// SIGHUPs from here on; the first would end a process that does not wait for them.
pub(super) fn hangups() -> Result<Signal, Error> {
    signal(SignalKind::hangup()).map_err(Error::Signal)
}

/// Reads the folder again at each SIGHUP until `closing`. It is taken whole or not at all: a pair of which
/// one half is new already is no reason to take away what is shown.
pub(super) async fn follow(
    folder: PathBuf,
    ingress: Ingress,
    mut hangups: Signal,
    closing: CancellationToken,
) {
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            told = hangups.recv() => if told.is_none() { return },
        }
        let from = folder.clone();
        match tokio::task::spawn_blocking(move || again(&from)).await {
            Ok(Ok(certificates)) => {
                tracing::info!(count = certificates.len(), "certificates read again");
                ingress.set_certificates(certificates);
            }
            Ok(Err(error)) => {
                tracing::error!("certificates stay as they are: {}", error_chain(&error));
            }
            Err(error) => tracing::error!(%error, "reading certificates panicked"),
        }
    }
}

/// All of the folder's certificates.
fn again(folder: &Path) -> Result<Vec<Certificate>, Error> {
    read(folder)?.into_iter().collect()
}

/// The pairs, in the order of their names.
fn read(folder: &Path) -> Result<Vec<Pair>, Error> {
    let failed = |source| Error::Folder {
        path: folder.to_owned(),
        source,
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|it| it == "crt") {
            paths.push(path);
        }
        if paths.len() > MAX_PAIRS {
            return Err(Error::TooMany {
                path: folder.to_owned(),
            });
        }
    }
    paths.sort();
    Ok(paths.into_iter().map(pair).collect())
}

fn pair(path: PathBuf) -> Pair {
    let chain = whole(&path)?;
    let key = whole(&path.with_extension("key"))?;
    Certificate::from_pem(&chain, &key).map_err(|source| Error::Pair { path, source })
}

fn whole(path: &Path) -> Result<Vec<u8>, Error> {
    let read = fs::metadata(path).and_then(|data| match data.len() > MAX_FILE_BYTES {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => fs::read(path),
    });
    read.map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str) {
        let made = rcgen::generate_simple_self_signed([format!("{name}.example")]).expect("made");
        let key = made.signing_key.serialize_pem();
        fs::write(folder.join(format!("{name}.key")), key).expect("written");
        fs::write(folder.join(format!("{name}.crt")), made.cert.pem()).expect("written");
    }

    #[test]
    fn a_faulty_pair_costs_itself_at_the_start_and_later_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        for name in ["a", "b", "c", "d"] {
            write(folder, name);
        }
        fs::write(folder.join("readme.txt"), "not looked at").expect("written");
        assert_eq!(again(folder).expect("all are good").len(), 4);
        // Half renewed, without a key, and no file at all.
        fs::copy(folder.join("b.crt"), folder.join("a.crt")).expect("copied");
        fs::remove_file(folder.join("c.key")).expect("removed");
        let large = vec![b'x'; usize::try_from(MAX_FILE_BYTES).expect("small") + 1];
        fs::write(folder.join("d.crt"), large).expect("written");
        let good = at_start(folder).expect("the folder is there");
        assert_eq!(good.len(), 1);
        assert_eq!(good[0].names(), ["b.example"]);
        let errors = read(folder)
            .expect("read")
            .into_iter()
            .filter_map(Result::err);
        let errors: Vec<String> = errors.map(|error| error.to_string()).collect();
        assert_eq!(errors.len(), 3);
        assert!(errors[0].contains("a.crt and its key"), "{errors:?}");
        assert!(errors[1].contains("c.key"), "{errors:?}");
        again(folder).expect_err("not all are good");
        at_start(&folder.join("missing")).expect_err("no folder");
    }
}
