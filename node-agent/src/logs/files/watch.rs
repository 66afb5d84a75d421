//! Tells readers of log files when something was written, by inotify(7): one instance for all, since
//! the kernel gives a user few of them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Events of a flood are one event: readers are woken so often at most.
const PAUSE: Duration = Duration::from_millis(10);
/// Where the kernel has no watch left, readers look by themselves so often.
const POLL: Duration = Duration::from_millis(500);
/// One read of the kernel's queue.
const BUFFER: usize = 16 << 10;

/// What one folder's watchers share.
#[derive(Debug)]
struct Folder {
    /// The newest file's name, with `.1`: what is renamed to it was turned over.
    turned: OsString,
    /// How often they were turned over; changed with everything that is written.
    turns: watch::Sender<u64>,
}

impl Folder {
    fn tell(&self, turns: u64) {
        self.turns.send_modify(|all| *all += turns);
    }
}

#[derive(Debug, Default)]
struct Folders {
    by_watch: HashMap<i32, (Folder, usize)>,
}

#[derive(Debug)]
struct Shared {
    queue: OwnedFd,
    folders: Mutex<Folders>,
}

/// Watches folders. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Watcher {
    /// None: the kernel gave no instance.
    shared: Option<Arc<Shared>>,
}

/// One reader's interest in one folder; ends when dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    /// None: it has to look by itself.
    folder: Option<(i32, watch::Receiver<u64>, Arc<Shared>)>,
}

impl Watcher {
    /// Begins to watch until `cancel`, in a task of its own.
    pub(crate) fn start(cancel: CancellationToken) -> Self {
        let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
        let shared = inotify::init(flags).map(|queue| {
            Arc::new(Shared {
                queue,
                folders: Mutex::default(),
            })
        });
        let shared = match shared {
            Ok(shared) => shared,
            Err(error) => {
                tracing::warn!(
                    %error,
                    "the kernel gives no inotify: logs are looked at every {} ms; raise \
                     fs.inotify.max_user_instances",
                    POLL.as_millis()
                );
                return Self { shared: None };
            }
        };
        let watched = Arc::clone(&shared);
        tokio::spawn(async move {
            if let Some(Err(error)) = cancel.run_until_cancelled(run(&watched)).await {
                tracing::error!(%error, "the kernel's word on log files cannot be read");
            }
        });
        Self {
            shared: Some(shared),
        }
    }

    /// Watches the folder of the log file `path`.
    pub(crate) fn watch(&self, path: &Path) -> Watch {
        let folder = self.shared.as_ref().and_then(|shared| {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                return None;
            };
            let mut turned = name.to_owned();
            turned.push(".1");
            match add(shared, parent, turned) {
                Ok((watch, turns)) => Some((watch, turns, Arc::clone(shared))),
                Err(error) => {
                    tracing::debug!(%error, path = %parent.display(), "cannot be watched");
                    None
                }
            }
        });
        Watch { folder }
    }
}

impl Watch {
    /// How often the files were turned over since somebody began to watch them.
    pub(crate) fn turns(&self) -> u64 {
        let folder = self.folder.as_ref();
        folder.map_or(0, |(_, turns, _)| *turns.borrow())
    }

    /// Whether something was written, or may have been, since the last call.
    pub(crate) fn has_news(&mut self) -> bool {
        let Some((_, turns, _)) = &mut self.folder else {
            return true;
        };
        let has_news = turns.has_changed().unwrap_or(true);
        turns.mark_unchanged();
        has_news
    }

    /// Waits until something was written, or may have been, since the last call.
    pub(crate) async fn changed(&mut self) {
        let told = match &mut self.folder {
            Some((_, turns, _)) => turns.changed().await.is_ok(),
            None => false,
        };
        if !told {
            // Nothing tells.
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some((watch, _, shared)) = &self.folder else {
            return;
        };
        let mut folders = shared.folders.lock();
        let Some((_, readers)) = folders.by_watch.get_mut(watch) else {
            return;
        };
        *readers -= 1;
        if *readers == 0 {
            folders.by_watch.remove(watch);
            // Fails where the folder itself is gone.
            let _ = inotify::remove_watch(&shared.queue, *watch);
        }
    }
}

fn add(
    shared: &Shared,
    parent: &Path,
    turned: OsString,
) -> io::Result<(i32, watch::Receiver<u64>)> {
    let flags = WatchFlags::MODIFY
        | WatchFlags::CREATE
        | WatchFlags::MOVED_TO
        | WatchFlags::DELETE_SELF
        | WatchFlags::ONLYDIR;
    // Locked first: no event of it is handled before it is in the list.
    let mut folders = shared.folders.lock();
    let watch = inotify::add_watch(&shared.queue, parent, flags)?;
    let (folder, readers) = folders.by_watch.entry(watch).or_insert_with(|| {
        let turns = watch::Sender::new(0);
        (Folder { turned, turns }, 0)
    });
    *readers += 1;
    Ok((watch, folder.turns.subscribe()))
}

async fn run(shared: &Arc<Shared>) -> io::Result<()> {
    // `register` asks its caller to promise what the type of the handle promises already.
    #[expect(deprecated, reason = "an OwnedFd is open for as long as it lives")]
    let queue = AsyncFd::with_interest(shared.queue.try_clone()?, Interest::READABLE)?;
    loop {
        queue.readable().await?.clear_ready();
        drain(shared);
        tokio::time::sleep(PAUSE).await;
    }
}

fn drain(shared: &Shared) {
    let mut buffer = [const { MaybeUninit::uninit() }; BUFFER];
    let mut events = inotify::Reader::new(&shared.queue, &mut buffer);
    let folders = shared.folders.lock();
    loop {
        let event = match events.next() {
            Ok(event) => event,
            Err(Errno::INTR) => continue,
            // Nothing more.
            Err(_) => return,
        };
        if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
            let all = folders.by_watch.values();
            all.for_each(|(folder, _)| folder.tell(0));
            continue;
        }
        let Some((folder, _)) = folders.by_watch.get(&event.wd()) else {
            continue;
        };
        let is_turn = event.events().contains(ReadFlags::MOVED_TO)
            && event
                .file_name()
                .is_some_and(|name| name.to_bytes() == folder.turned.as_encoded_bytes());
        folder.tell(u64::from(is_turn));
    }
}
