//! The log in memory, for tests and simulation: a restart of the service over the same value is
//! a restart over the same disk. Never writes a file.

use super::{Error, Loaded, LogStore, Origin};
use parking_lot::Mutex;
use skep_raft_core::{Entry, HardState};

/// A log that lives as long as the value.
#[derive(Debug, Default)]
pub struct MemoryLog {
    content: Mutex<Option<Loaded>>,
}

impl LogStore for MemoryLog {
    fn load(&self) -> Result<Option<Loaded>, Error> {
        Ok(self.content.lock().clone())
    }

    fn append(&self, entries: &[Entry], hard_state: &HardState) -> Result<(), Error> {
        let mut content = self.content.lock();
        let log = content
            .as_mut()
            .expect("compact creates the log before any append");
        if let Some(first) = entries.first() {
            let keep = log
                .entries
                .partition_point(|entry| entry.index < first.index);
            log.entries.truncate(keep);
            log.entries.extend_from_slice(entries);
        }
        log.hard_state = hard_state.clone();
        Ok(())
    }

    fn compact(&self, origin: &Origin, hard_state: &HardState) -> Result<(), Error> {
        let mut content = self.content.lock();
        let mut entries = content.take().map(|log| log.entries).unwrap_or_default();
        entries.retain(|entry| entry.index > origin.position.index);
        *content = Some(Loaded {
            origin: origin.clone(),
            hard_state: hard_state.clone(),
            entries,
        });
        Ok(())
    }

    fn reset(&self, origin: &Origin, hard_state: &HardState) -> Result<(), Error> {
        *self.content.lock() = Some(Loaded {
            origin: origin.clone(),
            hard_state: hard_state.clone(),
            entries: Vec::new(),
        });
        Ok(())
    }

    fn purge(&self) -> Result<(), Error> {
        Ok(())
    }
}
