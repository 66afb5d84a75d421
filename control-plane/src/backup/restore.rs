//! A new server of a backup: its data folder, in which the first start founds no cluster but goes on
//! with the backup's, alone, in a new incarnation.

use std::path::Path;

use skep_identity::{key_file, random, secret_file};
use skep_model::id::ServerId;
use skep_model::variable::Sealed;
use skep_state::{Cluster, State};

use super::archive::cluster_of;
use super::{Backup, Error, Manifest};
use crate::consensus::offline;
use crate::local::{Local, Note};
use crate::secrets::Secrets;
use crate::server::{LOCAL, RAFT};

/// What a file system puts into its own root.
const NOT_OURS: &str = "lost+found";

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What the backup says of itself.
    pub manifest: Manifest,
    /// The new server.
    pub server: ServerId,
    /// Its member id: no server of the cluster ever had it.
    pub member: u64,
}

/// Makes the data folder of a new server out of a backup, verified before. Its first start raises the
/// incarnation and forgets all other servers. Blocks on the disk.
///
/// # Errors
/// The backup, the key or the folder; then the folder is as it was.
pub fn restore(file: &Path, data_dir: &Path, key: &Path) -> Result<Restored, Error> {
    let backup = Backup::read(file)?;
    let state = backup.verify()?;
    let rewrapped = open(&backup, cluster_of(&state)?, key)?;
    if !is_free(data_dir)? {
        return Err(Error::Occupied(data_dir.to_owned()));
    }
    let (member, index) = (state.next_member(), state.index());
    let bytes = match rewrapped {
        Some(wrapped) => state.rewrapped(wrapped).encode().into(),
        None => backup.state().clone(),
    };
    let written = write((member, index), &bytes, data_dir).inspect_err(|_| {
        for made in [LOCAL, RAFT] {
            let _as_it_was = std::fs::remove_dir_all(data_dir.join(made));
        }
    });
    Ok(Restored {
        server: written?,
        member,
        manifest: backup.manifest,
    })
}

/// Whether this operator's key file opens a backup's data key, and that what is sealed in its state.
///
/// # Errors
/// It does not, or the backup is damaged.
pub fn check_key(backup: &Backup, state: &State, key: &Path) -> Result<(), Error> {
    open(backup, cluster_of(state)?, key).map(drop)
}

/// Opens the backup's data key. Answers with the key wrapped anew, where the state has it wrapped by
/// another operator's key.
fn open(backup: &Backup, cluster: &Cluster, path: &Path) -> Result<Option<Sealed>, Error> {
    let operator = key_file::load(path).map_err(Error::KeyFile)?;
    let manifest = &backup.manifest;
    let by_maker = || {
        let wrapped = hex::decode(&manifest.wrapped_data_key).ok()?;
        key_file::unwrap(&operator, &wrapped).ok()
    };
    let (data_key, is_founders) = match key_file::unwrap(&operator, &cluster.wrapped_data_key.0) {
        Ok(data_key) => (data_key, true),
        Err(_) => {
            let wrong = || Error::WrongKey {
                path: path.to_owned(),
                maker: manifest.server.clone(),
            };
            (by_maker().ok_or_else(wrong)?, false)
        }
    };
    let secrets = Secrets::new(data_key.clone());
    secrets.signing_ca(cluster).map_err(Error::Sealed)?;
    Ok((!is_founders).then(|| Sealed(key_file::wrap(&operator, &data_key))))
}

fn is_free(data_dir: &Path) -> Result<bool, Error> {
    let failed = |source| Error::Read {
        path: data_dir.to_owned(),
        source,
    };
    let listing = match std::fs::read_dir(data_dir) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(failed(error)),
    };
    for entry in listing {
        if entry.map_err(failed)?.file_name() != NOT_OURS {
            return Ok(false);
        }
    }
    Ok(true)
}

fn write((member, index): (u64, u64), state: &[u8], data_dir: &Path) -> Result<ServerId, Error> {
    secret_file::ensure_private_dir(data_dir)?;
    let server = ServerId::from_u128(random::new_id());
    {
        // Before the log: if this does not come to its end, a start finds that data is missing, and
        // founds nothing.
        let local = Local::open(&data_dir.join(LOCAL))?;
        local.server_id(server)?;
        local.begin_as(member)?;
        local.set(Note::Restored, true)?;
        local.set_begun()?;
    }
    offline::begin_from(&data_dir.join(RAFT), (member, index), state)?;
    Ok(server)
}
