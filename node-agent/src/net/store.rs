//! The last table and who this node is, on disk, sealed under a key of this node. Every function blocks on
//! the disk.
//!
//! Format, version 1: `SKEPNET` and one byte of version, then the sealed prost message. A file
//! that does not open is moved aside: all of it is only a copy of what the agent knows.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::PathBuf;

use prost::Message;
use skep_identity::seal::{KEY_LEN, SealingKey};
use skep_identity::{random, seal, secret_file};
use skep_proto::v1::{CertificateList, NodeCredentials, NodeTable};

use super::MAX_TABLE_BYTES;

/// A message in a file of its own.
trait Kept: Message + Default {
    const FILE: &'static str;
    /// What it is sealed for.
    const CONTEXT: &'static str;
}

impl Kept for NodeTable {
    const FILE: &'static str = "table";
    const CONTEXT: &'static str = "skep node table 1";
}

impl Kept for NodeCredentials {
    const FILE: &'static str = "identity";
    const CONTEXT: &'static str = "skep node identity 1";
}

impl Kept for CertificateList {
    const FILE: &'static str = "certificates";
    const CONTEXT: &'static str = "skep node certificates 1";
}

const KEY_FILE: &str = "table.key";
/// A file is kept under its name with this, for a person to look at; one of each at most.
const ASIDE: &str = "damaged";
const MAGIC: &[u8; 8] = b"SKEPNET\x01";
/// What sealing and the header add is far below this.
const MAX_FILE_BYTES: u64 = MAX_TABLE_BYTES as u64 + 1_024;

/// What is wrong with a table on disk.
#[derive(Debug, thiserror::Error)]
enum Damage {
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    #[error("it is larger than {MAX_FILE_BYTES} bytes")]
    Size,
    #[error("it is not a table of a version that this program knows")]
    Format,
    #[error("it does not open")]
    Seal(#[from] seal::Error),
    #[error("it holds no table")]
    Message(#[from] prost::DecodeError),
}

/// The folder of the table.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    key: SealingKey,
}

impl Store {
    /// Opens the private folder and its key, making them where they are missing.
    ///
    /// # Errors
    /// The folder or key cannot be used, or is open to others.
    pub(super) fn open(folder: PathBuf) -> Result<Self, secret_file::Error> {
        secret_file::ensure_private_dir(&folder)?;
        let key = key(&folder)?;
        Ok(Self { folder, key })
    }

    /// The last table; none: there is none that can be used.
    pub(super) fn load(&self) -> Option<NodeTable> {
        self.read_or_move()
    }

    /// Who this node was last; none: it is not known.
    pub(super) fn identity(&self) -> Option<NodeCredentials> {
        self.read_or_move()
    }

    /// Keeps `table` instead of the last one: after a crash there is one or the other.
    pub(super) fn save(&self, table: &NodeTable) -> Result<(), secret_file::Error> {
        self.write(table)
    }

    /// Keeps who this node is.
    pub(super) fn save_identity(&self, own: &NodeCredentials) -> Result<(), secret_file::Error> {
        self.write(own)
    }

    /// The last certificates of the cluster; none: there are none that can be used.
    pub(super) fn certificates(&self) -> Option<CertificateList> {
        self.read_or_move()
    }

    /// Keeps certificates instead of the last ones.
    pub(super) fn save_certificates(
        &self,
        list: &CertificateList,
    ) -> Result<(), secret_file::Error> {
        self.write(list)
    }

    fn read_or_move<M: Kept>(&self) -> Option<M> {
        match self.read() {
            Ok(kept) => kept,
            Err(damage) => {
                tracing::error!(
                    error = &damage as &dyn std::error::Error,
                    file = M::FILE,
                    "a file of the data plane is damaged: moved aside, starting without"
                );
                move_aside(&self.folder, M::FILE);
                None
            }
        }
    }

    fn write<M: Kept>(&self, message: &M) -> Result<(), secret_file::Error> {
        let mut bytes = MAGIC.to_vec();
        let plain = zeroize::Zeroizing::new(message.encode_to_vec());
        bytes.extend(self.key.seal(M::CONTEXT, &plain));
        secret_file::write_private(&self.folder.join(M::FILE), &bytes)
    }

    fn read<M: Kept>(&self) -> Result<Option<M>, Damage> {
        let file = match File::open(self.folder.join(M::FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Damage::Read(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(Damage::Read)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(Damage::Size);
        }
        let sealed = bytes.strip_prefix(MAGIC).ok_or(Damage::Format)?;
        let opened = self.key.open(M::CONTEXT, sealed)?;
        Ok(Some(M::decode(&opened[..])?))
    }
}

fn key(folder: &std::path::Path) -> Result<SealingKey, secret_file::Error> {
    let path = folder.join(KEY_FILE);
    match secret_file::read_private(&path) {
        Ok(bytes) => match SealingKey::from_bytes(&bytes) {
            Ok(key) => return Ok(key),
            Err(error) => {
                tracing::error!(%error, "the key of the table is damaged: moved aside, starting without a table");
                move_aside(folder, KEY_FILE);
            }
        },
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    let bytes = zeroize::Zeroizing::new(random::bytes::<KEY_LEN>());
    secret_file::write_private(&path, &*bytes)?;
    Ok(SealingKey::from_bytes(&*bytes).expect("made with the length of a key"))
}

fn move_aside(folder: &std::path::Path, name: &str) {
    let from = folder.join(name);
    if let Err(error) = fs::rename(&from, folder.join(format!("{name}.{ASIDE}"))) {
        tracing::error!(path = %from.display(), %error, "cannot move it aside");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(sequence: u64) -> NodeTable {
        NodeTable {
            sequence,
            revision: 3,
            ..NodeTable::default()
        }
    }

    fn open(dir: &tempfile::TempDir) -> Store {
        Store::open(dir.path().join("net")).expect("store")
    }

    #[test]
    fn the_last_table_comes_back_and_nothing_of_it_is_readable() {
        let dir = tempfile::tempdir().expect("folder");
        assert_eq!(open(&dir).load(), None);
        let mut named = table(4);
        named.routes.push(skep_proto::v1::NodeRoute {
            sleeps: false,
            host: "secret.example".to_owned(),
            ..Default::default()
        });
        open(&dir).save(&table(3)).expect("saved");
        open(&dir).save(&named).expect("saved");
        assert_eq!(open(&dir).load(), Some(named));
        let bytes = fs::read(dir.path().join("net/table")).expect("file");
        assert!(!bytes.windows(6).any(|window| window == b"secret"));
    }

    #[test]
    fn certificates_come_back_and_no_key_is_readable() {
        let dir = tempfile::tempdir().expect("folder");
        let list = CertificateList {
            certificates: vec![skep_proto::v1::CertificateWithKey {
                chain: "chain".to_owned(),
                key: "secret".to_owned(),
            }],
        };
        assert_eq!(open(&dir).certificates(), None);
        open(&dir).save_certificates(&list).expect("saved");
        assert_eq!(open(&dir).certificates(), Some(list));
        let bytes = fs::read(dir.path().join("net/certificates")).expect("file");
        assert!(!bytes.windows(6).any(|window| window == b"secret"));
    }

    #[test]
    fn any_damage_is_moved_aside_once() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("net/table");
        open(&dir).save(&table(3)).expect("saved");
        let good = fs::read(&path).expect("file");
        let mut flipped = good.clone();
        *flipped.last_mut().expect("bytes") ^= 1;
        let mut newer = good.clone();
        newer[7] = 2;
        for bad in [&flipped, &newer, &good[..20].to_vec(), &Vec::new()] {
            fs::write(&path, bad).expect("damage");
            assert_eq!(open(&dir).load(), None);
            assert!(!path.exists());
            assert_eq!(
                &fs::read(dir.path().join("net/table.damaged")).expect("kept"),
                bad
            );
        }
        assert_eq!(open(&dir).load(), None);
    }

    #[test]
    fn a_table_under_another_key_is_damage_and_a_lost_key_is_replaced() {
        let dir = tempfile::tempdir().expect("folder");
        open(&dir).save(&table(3)).expect("saved");
        let key = dir.path().join("net/table.key");
        secret_file::write_private(&key, b"short").expect("damage");
        let store = open(&dir);
        assert_eq!(store.load(), None);
        store.save(&table(5)).expect("saved");
        assert_eq!(open(&dir).load(), Some(table(5)));
    }
}
