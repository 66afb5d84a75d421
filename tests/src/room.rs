//! Who runs beside whom, over all processes of tests on one target folder: most share the machine, and what
//! fills it, or would be misled by whoever does, has it alone.

use std::fs::{File, OpenOptions};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use tokio::task::spawn_blocking;

use crate::place;

/// Locks of its files, which end with the process however that ends.
#[derive(Debug)]
pub struct Room {
    _files: Vec<File>,
}

impl Room {
    /// Beside others.
    ///
    /// # Errors
    /// No file can be locked.
    pub async fn shared() -> Result<Self> {
        taken(|| {
            // Held for a moment: who waits to be alone is not overtaken for ever.
            let door = open("door")?;
            door.lock_shared()?;
            let room = open("room")?;
            room.lock_shared()?;
            Ok(vec![room])
        })
        .await
    }

    /// With nobody else, once all that are there have gone.
    ///
    /// # Errors
    /// As `shared`.
    pub async fn alone() -> Result<Self> {
        taken(|| {
            let door = open("door")?;
            door.lock()?;
            let room = open("room")?;
            room.lock()?;
            Ok(vec![room, door])
        })
        .await
    }
}

async fn taken(take: impl FnOnce() -> Result<Vec<File>> + Send + 'static) -> Result<Room> {
    let files = spawn_blocking(take).await?;
    Ok(Room { _files: files? })
}

fn open(name: &str) -> Result<File> {
    let folder: PathBuf = place::target_dir().join("test-room");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(name);
    let file = OpenOptions::new().create(true).append(true).open(&path);
    file.with_context(|| format!("{} cannot be opened", path.display()))
}
