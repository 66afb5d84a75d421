//! The marks on a disk: below the low one what nobody needs goes and the node says so, below the floor nothing
//! more is brought in. What runs needs the rest: its logs, its files, the agent's own ledger.

use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use skep_model::machine::Warning;
use skep_model::problem::{Code, Problem};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Images;
use super::budget::{Disk, LowWater};

/// How often the disk is looked at while something is being brought in: a fast one takes a few hundred MiB in
/// that time.
const LOOK_WHILE: Duration = Duration::from_millis(500);
/// How often an image is cleaned up for, one after the other: layers that images share are counted with each.
const CLEANINGS: u32 = 3;

/// How much room a disk has, by its marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Fill {
    /// Above the low mark.
    #[default]
    Enough,
    /// Below it.
    Low,
    /// Below the floor.
    Full,
}

/// What a disk is called after `before`: it has to rise a tenth above a mark to have left it, so that nobody
/// is told twice a minute.
pub(super) fn judge(before: Fill, disk: Disk, low: LowWater) -> Fill {
    let (low, floor) = (
        low.bytes(disk.total_bytes),
        low.floor_bytes(disk.total_bytes),
    );
    let above = |mark: u64, was: bool| match was {
        true => mark + mark / 10,
        false => mark,
    };
    match disk.free_bytes {
        _ if disk.total_bytes == 0 => Fill::Enough,
        free if free < above(floor, before == Fill::Full) => Fill::Full,
        free if free < above(low, before >= Fill::Low) => Fill::Low,
        _ => Fill::Enough,
    }
}

/// The disks that images are on, and what they are called now.
#[derive(Debug)]
pub(super) struct Room {
    low: LowWater,
    store: PathBuf,
    /// Docker's data; none: not known yet.
    docker: Mutex<Option<PathBuf>>,
    fill: Mutex<Fill>,
    warning: watch::Sender<Option<Warning>>,
}

impl Room {
    pub(super) fn new(low: LowWater, store: PathBuf) -> Self {
        Self {
            low,
            store,
            docker: Mutex::default(),
            fill: Mutex::default(),
            warning: watch::Sender::default(),
        }
    }

    /// The marks.
    pub(super) fn low(&self) -> LowWater {
        self.low
    }

    /// What the node has to say of its disk; none: there is enough.
    pub(super) fn warning(&self) -> watch::Receiver<Option<Warning>> {
        self.warning.subscribe()
    }

    /// Where Docker has its data.
    pub(super) fn learn(&self, docker: PathBuf) {
        *self.docker.lock() = Some(docker);
    }

    /// The fuller one of the disks.
    pub(super) async fn look(&self) -> (PathBuf, Disk) {
        let docker = self.docker.lock().clone();
        let folders = docker.into_iter().chain([self.store.clone()]);
        let mut fullest = (self.store.clone(), Disk::default());
        let mut least = u64::MAX;
        for folder in folders {
            let disk = look_at(&folder).await;
            let above = disk
                .free_bytes
                .saturating_sub(self.low.bytes(disk.total_bytes));
            // Of two on one disk the first is named: Docker's.
            if disk.total_bytes > 0 && above.min(disk.free_bytes) < least {
                least = above.min(disk.free_bytes);
                fullest = (folder, disk);
            }
        }
        fullest
    }

    /// Whether nothing more may come.
    fn is_full(&self, disk: Disk) -> bool {
        judge(Fill::Enough, disk, self.low) == Fill::Full
    }

    /// Says how it is, where that has changed; gives whether it has just become worse.
    pub(super) fn tell(&self, (folder, disk): &(PathBuf, Disk)) -> bool {
        let (before, now) = {
            let mut fill = self.fill.lock();
            let before = *fill;
            *fill = judge(before, *disk, self.low);
            (before, *fill)
        };
        if before == now {
            return false;
        }
        let free = disk.free_bytes;
        match now {
            Fill::Enough => {
                tracing::info!(free, disk = %folder.display(), "the disk has room again")
            }
            Fill::Low => tracing::warn!(free, disk = %folder.display(), "the disk is filling up"),
            Fill::Full => {
                tracing::error!(free, disk = %folder.display(), "the disk is all but full: nothing is pulled or built");
            }
        }
        let warning = warning(now, folder, self.low, disk.total_bytes);
        self.warning.send_replace(warning);
        now > before
    }
}

/// In numbers that stay the same while it lasts: what a node says of itself is written to every server.
fn warning(fill: Fill, folder: &Path, low: LowWater, total_bytes: u64) -> Option<Warning> {
    let at = folder.display();
    let text = match fill {
        Fill::Enough => return None,
        Fill::Low => format!(
            "the disk under {at} is filling up: less than {} are free, with all gone that nobody needs",
            size(low.bytes(total_bytes))
        ),
        Fill::Full => format!(
            "the disk under {at} is all but full: images are not pulled and nothing is built here before {} \
             are free",
            size(low.floor_bytes(total_bytes))
        ),
    };
    let fix = "free space there (docker system df; volumes and logs of apps count, too), or make the disk larger; \
               what runs there runs on";
    Some(Warning {
        text,
        fix: fix.to_owned(),
    })
}

pub(super) fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).to_string()
}

pub(super) async fn look_at(path: &Path) -> Disk {
    let path = path.to_owned();
    let looked = spawn_blocking(move || Disk::of(&path)).await;
    looked.unwrap_or_default()
}

impl Images {
    /// What the node has to say of its disk.
    pub(crate) fn warning(&self) -> watch::Receiver<Option<Warning>> {
        self.inner.room.warning()
    }

    /// Does `work`, which brings `what` in, as long as the disk has room for more than what runs needs. Room is
    /// made first where there is too little; where that does not help, `work` is not begun, or dropped.
    ///
    /// # Errors
    /// `code`: there is no room. Those of `work`.
    pub(crate) async fn with_room<T>(
        &self,
        (what, code): (&str, Code),
        work: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let room = &self.inner.room;
        for _ in 0..CLEANINGS {
            self.learn().await;
            if !room.is_full(room.look().await.1) {
                break;
            }
            self.clean().await;
        }
        let now = room.look().await;
        room.tell(&now);
        if room.is_full(now.1) {
            return Err(no_room((what, code), &now, room.low()));
        }
        tokio::select! {
            done = work => done,
            now = self.until_full() => Err(no_room((what, code), &now, room.low())),
        }
    }

    async fn until_full(&self) -> (PathBuf, Disk) {
        let room = &self.inner.room;
        loop {
            sleep(LOOK_WHILE).await;
            let now = room.look().await;
            if room.tell(&now) {
                self.inner.grown.notify_one();
            }
            if room.is_full(now.1) {
                return now;
            }
        }
    }

    /// Where Docker has its data, where that is not known yet.
    pub(super) async fn learn(&self) {
        let room = &self.inner.room;
        if room.docker.lock().is_some() {
            return;
        }
        if let Ok(info) = super::clean::ask(self.inner.docker.info()).await
            && let Some(root) = info.docker_root_dir
        {
            room.learn(PathBuf::from(root));
        }
    }
}

fn no_room((what, code): (&str, Code), (folder, disk): &(PathBuf, Disk), low: LowWater) -> Problem {
    let text = format!(
        "{what}: this node's disk is full: {} are free under {}, and the last {} are kept for what runs",
        size(disk.free_bytes),
        folder.display(),
        size(low.floor_bytes(disk.total_bytes))
    );
    Problem::new(code, text).hint(
        "all that nobody needs is gone already; free space on the node (docker system df), make its disk \
         larger, or give its agent a smaller --disk-low-water",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::Budget;

    const LOW: LowWater = LowWater(Some(Budget::Bytes(200)));

    fn disk(free_bytes: u64) -> Disk {
        Disk {
            total_bytes: 1_000,
            free_bytes,
        }
    }

    #[test]
    fn a_disk_has_to_rise_above_a_mark_to_leave_it() {
        let cases = [
            (Fill::Enough, 200, Fill::Enough),
            (Fill::Enough, 199, Fill::Low),
            (Fill::Low, 219, Fill::Low),
            (Fill::Low, 220, Fill::Enough),
            (Fill::Low, 100, Fill::Low),
            (Fill::Low, 99, Fill::Full),
            (Fill::Full, 109, Fill::Full),
            (Fill::Full, 110, Fill::Low),
            (Fill::Full, 219, Fill::Low),
            (Fill::Full, 220, Fill::Enough),
        ];
        for (before, free, expected) in cases {
            assert_eq!(
                judge(before, disk(free), LOW),
                expected,
                "{before:?} {free}"
            );
        }
        assert_eq!(
            judge(Fill::Full, Disk::default(), LOW),
            Fill::Enough,
            "not known"
        );
    }

    #[test]
    fn a_warning_is_told_once_and_taken_back() {
        let room = Room::new(LOW, "/data".into());
        let told = room.warning();
        let at = |free| (PathBuf::from("/data"), disk(free));
        assert!(!room.tell(&at(500)) && told.borrow().is_none());
        assert!(room.tell(&at(150)));
        let text = told.borrow().as_ref().expect("a warning").text.clone();
        assert!(text.contains("/data") && text.contains("200 B"), "{text}");
        assert!(!room.tell(&at(140)), "known");
        assert!(
            room.tell(&at(50)) && !room.tell(&at(150)),
            "worse, then better"
        );
        assert!(!room.tell(&at(900)) && told.borrow().is_none());
    }

    #[test]
    fn a_refusal_says_how_much_is_kept_and_for_whom() {
        let problem = no_room(
            ("image `a:1`", Code::ImageFailed),
            &("/docker".into(), disk(40)),
            LOW,
        );
        assert_eq!(
            problem.message,
            "image `a:1`: this node's disk is full: 40 B are free under /docker, and the last 100 B are kept \
             for what runs"
        );
    }
}
