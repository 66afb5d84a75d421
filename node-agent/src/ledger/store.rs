//! The ledger in sled. Sled's own flush does not fsync: each is followed by an fdatasync of its
//! file.

use std::fs::File;
use std::path::{Path, PathBuf};

use prost::Message;
use skep_identity::seal::SealingKey;
use skep_identity::secret_file;
use skep_proto::convert::id_bytes;
use skep_proto::v1;

use super::record::{FORMAT, LocalRecord, MetaRecord, PositionRecord, RoutesRecord, malformed};
use super::{Change, Contents, Error, Ledger};

/// Sled's smallest sensible cache: the ledger is read once.
const CACHE_BYTES: u64 = 16 << 20;
const META: &str = "meta";
const ROUTES: &str = "routes";
/// First letters of the keys of one kind; the id follows.
const ASSIGNMENT: &str = "assignment/";
const QUARANTINE: &str = "quarantine/";
const BUILD: &str = "build/";
const LOCAL: &str = "local/";
const OUTCOME: &str = "outcome/";
/// A tree of its own: an agent that does not know it passes over it.
const SHIPPED: &str = "shipped";

/// A folder with sled's database in it.
pub(crate) struct SledLedger {
    db: sled::Db,
    shipped: sled::Tree,
    file: File,
    path: PathBuf,
    key: SealingKey,
}

impl SledLedger {
    /// Opens or makes the ledger in `folder`, and reads it. One that is damaged, or sealed with
    /// another key, is moved aside to `<folder>.damaged` (replacing an older one) and begun anew.
    ///
    /// # Errors
    /// The disk refuses, another process has it open, or a newer agent wrote it: neither is damage.
    pub(crate) fn open_or_rebuild(
        folder: &Path,
        key: &SealingKey,
    ) -> Result<(Self, Contents), Error> {
        let damage = match Self::open(folder, key).and_then(|ledger| {
            let contents = ledger.load()?;
            Ok((ledger, contents))
        }) {
            Ok(opened) => return Ok(opened),
            Err(error) if !is_damage(&error) => return Err(error),
            Err(error) => error,
        };
        let aside = folder.with_extension("damaged");
        let why = crate::error_chain(&damage);
        tracing::error!(
            %why,
            "the ledger is damaged: moved to {}, and rebuilt from the containers' labels and the server",
            aside.display()
        );
        let failed = |action| {
            let path = aside.clone();
            move |source| Error::Io {
                action,
                path,
                source,
            }
        };
        match std::fs::remove_dir_all(&aside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("remove")(error));
            }
            _ => {}
        }
        std::fs::rename(folder, &aside).map_err(failed("move the ledger to"))?;
        Ok((Self::open(folder, key)?, Contents::default()))
    }

    fn open(folder: &Path, key: &SealingKey) -> Result<Self, Error> {
        secret_file::ensure_private_dir(folder)?;
        let db = sled::Config::new()
            .path(folder)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::LowSpace)
            .open()?;
        let path = folder.join("db");
        let file = File::open(&path).map_err(|source| Error::Io {
            action: "open",
            path: path.clone(),
            source,
        })?;
        let shipped = db.open_tree(SHIPPED)?;
        Ok(Self {
            db,
            shipped,
            file,
            path,
            key: key.clone(),
        })
    }

    fn seal(&self, key: &str, message: &impl Message) -> Vec<u8> {
        self.key.seal(key, &message.encode_to_vec())
    }

    fn unseal<T: Message + Default>(&self, key: &str, sealed: &[u8]) -> Result<T, Error> {
        let opened = self.key.open(key, sealed);
        let opened = opened.map_err(|source| Error::Sealed {
            entry: key.to_owned(),
            source,
        })?;
        T::decode(opened.as_slice()).map_err(|_| malformed(key))
    }

    fn load_entry(&self, key: &str, value: &[u8], into: &mut Contents) -> Result<(), Error> {
        let wrong = |_| malformed(key);
        if key == META {
            let meta: MetaRecord = self.unseal(key, value)?;
            if meta.format > FORMAT {
                return Err(Error::Format {
                    found: meta.format,
                    known: FORMAT,
                });
            }
            into.generation = meta.generation.map(Into::into);
        } else if key == ROUTES {
            into.routes = Some(self.unseal::<RoutesRecord>(key, value)?.try_into()?);
        } else if key.starts_with(ASSIGNMENT) || key.starts_with(QUARANTINE) {
            let message: v1::Assignment = self.unseal(key, value)?;
            let assignment =
                skep_model::assignment::Assignment::try_from(message).map_err(wrong)?;
            let all = match key.starts_with(QUARANTINE) {
                true => &mut into.quarantine,
                false => &mut into.assignments,
            };
            all.insert(assignment.allocation, assignment);
        } else if key.starts_with(BUILD) {
            let message: v1::BuildOrder = self.unseal(key, value)?;
            let order = skep_model::assignment::BuildOrder::try_from(message).map_err(wrong)?;
            into.builds.insert(order.deployment, order);
        } else if let Some(id) = key.strip_prefix(LOCAL) {
            let id = id.parse().map_err(|_| malformed(key))?;
            let record: LocalRecord = self.unseal(key, value)?;
            into.locals.insert(id, record.try_into()?);
        } else if let Some(id) = key.strip_prefix(OUTCOME) {
            let id = id.parse().map_err(|_| malformed(key))?;
            let message: v1::BuildObservation = self.unseal(key, value)?;
            let outcome = message.outcome.ok_or_else(|| malformed(key))?;
            into.outcomes.insert(id, outcome.try_into().map_err(wrong)?);
        } else {
            return Err(malformed(key));
        }
        Ok(())
    }

    fn stage(&self, batch: &mut sled::Batch, change: &Change) {
        let mut put = |key: String, value: Vec<u8>| batch.insert(key.as_bytes(), value);
        match change {
            Change::Generation(generation) => {
                put(META.into(), self.seal(META, &MetaRecord::from(*generation)));
            }
            Change::Routes(routes) => {
                put(
                    ROUTES.into(),
                    self.seal(ROUTES, &RoutesRecord::from(&**routes)),
                );
            }
            Change::Assign(assignment) => {
                let key = format!("{ASSIGNMENT}{}", assignment.allocation);
                let value = self.seal(&key, &v1::Assignment::from(&**assignment));
                put(key, value);
            }
            Change::Quarantine(assignment) => {
                let key = format!("{QUARANTINE}{}", assignment.allocation);
                let value = self.seal(&key, &v1::Assignment::from(&**assignment));
                put(key, value);
            }
            Change::Order(order) => {
                let key = format!("{BUILD}{}", order.deployment);
                let value = self.seal(&key, &v1::BuildOrder::from(&**order));
                put(key, value);
            }
            Change::Local(id, local) => {
                let key = format!("{LOCAL}{id}");
                let value = self.seal(&key, &LocalRecord::from(local));
                put(key, value);
            }
            Change::Outcome(id, outcome) => {
                let key = format!("{OUTCOME}{id}");
                let message = v1::BuildObservation {
                    deployment: id_bytes(id.as_u128()),
                    outcome: Some((&**outcome).into()),
                };
                let value = self.seal(&key, &message);
                put(key, value);
            }
            // In a tree of its own.
            Change::Shipped(..) => {}
            Change::Unassign(id) => batch.remove(format!("{ASSIGNMENT}{id}").as_bytes()),
            Change::Unquarantine(id) => batch.remove(format!("{QUARANTINE}{id}").as_bytes()),
            Change::Forget(id) => batch.remove(format!("{LOCAL}{id}").as_bytes()),
            Change::Unorder(id) => {
                batch.remove(format!("{BUILD}{id}").as_bytes());
                batch.remove(format!("{OUTCOME}{id}").as_bytes());
            }
        }
    }
}

impl Ledger for SledLedger {
    fn load(&self) -> Result<Contents, Error> {
        let mut contents = Contents::default();
        for entry in self.db.iter() {
            let (key, value) = entry?;
            let key = std::str::from_utf8(&key).map_err(|_| malformed("(not text)"))?;
            self.load_entry(key, &value, &mut contents)?;
        }
        for entry in self.shipped.iter() {
            let (key, value) = entry?;
            let key = std::str::from_utf8(&key).map_err(|_| malformed("(not text)"))?;
            let record: PositionRecord = self.unseal(key, &value)?;
            contents.shipped.insert(key.to_owned(), record.into());
        }
        Ok(contents)
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), Error> {
        let mut batch = sled::Batch::default();
        for change in changes {
            self.stage(&mut batch, change);
        }
        self.db.apply_batch(batch)?;
        for change in changes {
            match change {
                Change::Shipped(key, Some(at)) => {
                    let sealed = self.seal(key, &PositionRecord::from(at));
                    self.shipped.insert(key.as_bytes(), sealed)?;
                }
                Change::Shipped(key, None) => {
                    self.shipped.remove(key.as_bytes())?;
                }
                _ => {}
            }
        }
        self.db.flush()?;
        self.file.sync_data().map_err(|source| Error::Io {
            action: "sync",
            path: self.path.clone(),
            source,
        })
    }
}

/// Whether starting anew helps.
fn is_damage(error: &Error) -> bool {
    match error {
        Error::Sealed { .. } | Error::Malformed { .. } => true,
        Error::Sled(error) => !matches!(error, sled::Error::Io(_)),
        _ => false,
    }
}

#[cfg(test)]
impl SledLedger {
    pub(super) fn raw_get(&self, key: &str) -> Vec<u8> {
        self.db.get(key).expect("readable").expect("there").to_vec()
    }

    pub(super) fn raw_put(&self, key: &str, value: Vec<u8>) {
        self.db.insert(key, value).expect("written");
        self.db.flush().expect("flushed");
    }
}
