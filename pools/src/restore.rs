//! What the tasks of a guest tell of its way back to a copy: whether its disks are that copy's, or may be another one's. Pure.
//!
//! Answers are lost and whoever waits is killed, so that nobody may have written down what a task was asked for; and the copy
//! that is wanted may be another one by the time. A task's log names the copy that it reads, on any storage:
//! `restore vma archive: zstd -q -d -c /mnt/pve/nas/dump/vzdump-qemu-5001-....vma.zst | vma extract ...`,
//! `pbs-restore --repository ... vm/5001/2026-11-29T03:00:00Z drive-scsi0.img.fidx ...`,
//! `recovering backed-up configuration from 'nas:backup/vzdump-lxc-5001-....tar.zst'`.

use skep_proxmox::Vmid;
use skep_proxmox::calls::backups::is_of;
use skep_proxmox::calls::tasks::{Line, Listed};

/// So many lines of a log are read: the copy is named before the first of its disks is.
pub(crate) const LOG_LINES: u64 = 200;

/// Tasks that replace a guest's disks by a copy's.
const RESTORES: [&str; 2] = ["qmrestore", "vzrestore"];
/// Tasks after which something else may be on its disks.
const STARTS: [&str; 3] = ["qmstart", "vzstart", "hastart"];

/// What the log of a restore says of the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// It was this one.
    This,
    /// It was another one of the guest.
    Another,
    /// It names none.
    Nothing,
}

/// What the last restore that was begun has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Last {
    /// None was begun, or nobody can say of what it was.
    Unknown,
    /// The guest's disks are the copy's, and nothing was started from them.
    IsIt,
    /// They are the copy's, and it was started.
    Ran,
    /// They are another copy's, or nobody's.
    Another,
}

/// The newest restores of a list, in no order: several where they were begun in one second, and nobody can say which was
/// the last.
pub(crate) fn newest(tasks: &[Listed]) -> Vec<&Listed> {
    let restores = || tasks.iter().filter(|it| is_any(it, &RESTORES));
    let last_s = restores().map(|it| it.upid.start_s()).max();
    restores()
        .filter(|it| Some(it.upid.start_s()) == last_s)
        .collect()
}

/// What follows from the newest restores, each with what its log names.
pub(crate) fn judge(tasks: &[Listed], newest: &[(&Listed, Named)]) -> Last {
    let Some(begun_s) = newest.iter().map(|(it, _)| it.upid.start_s()).max() else {
        return Last::Unknown;
    };
    if newest
        .iter()
        .any(|(it, named)| !it.has_succeeded() || *named == Named::Another)
    {
        return Last::Another;
    }
    if newest.iter().any(|(_, named)| *named == Named::Nothing) {
        return Last::Unknown;
    }
    let was_started = |it: &Listed| is_any(it, &STARTS) && it.upid.start_s() >= begun_s;
    match tasks.iter().any(was_started) {
        true => Last::Ran,
        false => Last::IsIt,
    }
}

/// Which copy a restore of the guest with this number reads, by its log.
pub(crate) fn named(log: &[Line], vmid: Vmid, archive: &str) -> Named {
    let on_storage = archive.split_once(':').map_or(archive, |(_, path)| path);
    let name = on_storage.strip_prefix("backup/").unwrap_or(on_storage);
    let is_this = |word: &str| {
        let before = word.strip_suffix(name);
        before.is_some_and(|before| before.is_empty() || before.ends_with(['/', ':']))
    };
    let is_copy = |word: &&str| {
        // Of a backup server it is said without its storage: `vm/5001/2026-11-29T03:00:00Z`.
        is_of(word, vmid) || is_of(&format!("backup/{word}"), vmid)
    };
    let mut found = Named::Nothing;
    for word in log.iter().flat_map(|line| words(&line.text)) {
        if is_this(word) {
            found = Named::This;
        } else if is_copy(&word) {
            return Named::Another;
        }
    }
    found
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_between = |it: char| it.is_whitespace() || "'\"`|;,()<>=".contains(it);
    text.split(is_between).filter(|word| !word.is_empty())
}

fn is_any(task: &Listed, kinds: &[&str]) -> bool {
    kinds.contains(&task.upid.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: &str = "nas:backup/vzdump-qemu-5001-2026_11_22-03_00_00.vma.zst";
    const Y: &str = "nas:backup/vzdump-qemu-5001-2026_11_29-03_00_00.vma.zst";

    fn vmid() -> Vmid {
        Vmid::new(5001).expect("in range")
    }

    fn task(kind: &str, start_s: u64, status: Option<&str>) -> Listed {
        let upid = format!("UPID:pve1:1:2:{start_s:X}:{kind}:5001:skep@pve!a:");
        Listed {
            upid: upid.parse().expect("one"),
            status: status.map(str::to_owned),
            endtime: status.map(|_| start_s + 9),
        }
    }

    fn log(text: &str) -> Vec<Line> {
        let line = |text: &str| Line {
            number: None,
            text: text.to_owned(),
        };
        text.lines().map(line).collect()
    }

    #[test]
    fn a_log_names_its_copy_whatever_the_storage() {
        let of_vm = "restore vma archive: zstd -q -d -c /mnt/pve/nas/dump/vzdump-qemu-5001-2026_11_29-03_00_00.vma.zst | \
            vma extract -v -r /var/tmp/vzdumptmp71.fifo - /var/tmp/vzdumptmp71\nnew volume ID is 'local-zfs:vm-5001-disk-0'";
        let of_container = "recovering backed-up configuration from 'nas:backup/vzdump-lxc-5001-2026_11_29-03_00_00.tar.zst'\n\
            restoring 'nas:backup/vzdump-lxc-5001-2026_11_29-03_00_00.tar.zst' now..\n\
            extracting archive '/mnt/pve/nas/dump/vzdump-lxc-5001-2026_11_29-03_00_00.tar.zst'";
        let of_server = "new volume ID is 'local-zfs:vm-5001-disk-0'\n\
            restore proxmox backup image: /usr/bin/pbs-restore --repository skep@pbs@10.0.0.9:store vm/5001/2026-11-29T03:00:00Z \
            drive-scsi0.img.fidx /dev/zvol/rpool/data/vm-5001-disk-0 --verbose --format raw --skip-zero";
        let lxc = "nas:backup/vzdump-lxc-5001-2026_11_29-03_00_00.tar.zst";
        let pbs = "pbs:backup/vm/5001/2026-11-29T03:00:00Z";
        for (text, archive, expected) in [
            (of_vm, Y, Named::This),
            (of_vm, X, Named::Another),
            // What begins alike is not it.
            (of_vm, Y.trim_end_matches(".zst"), Named::Another),
            (of_container, lxc, Named::This),
            (
                of_container,
                "nas:backup/vzdump-lxc-5001-2026_11_22-03_00_00.tar.zst",
                Named::Another,
            ),
            (of_server, pbs, Named::This),
            (
                of_server,
                "pbs:backup/vm/5001/2026-11-22T03:00:00Z",
                Named::Another,
            ),
            (
                "progress 1% (read 10 bytes, duration 0 sec)",
                Y,
                Named::Nothing,
            ),
            ("no content", Y, Named::Nothing),
        ] {
            assert_eq!(
                named(&log(text), vmid(), archive),
                expected,
                "{text}: {archive}"
            );
        }
        let both = format!("{of_vm}\n{}", of_vm.replace("11_29", "11_22"));
        assert_eq!(named(&log(&both), vmid(), Y), Named::Another);
    }

    #[test]
    fn only_the_last_restore_counts_and_only_where_it_is_known_to_be_this_copys() {
        let done = |start_s| task("qmrestore", start_s, Some("OK"));
        let (failed, runs) = (
            task("qmrestore", 20, Some("exit code 1")),
            task("qmrestore", 20, None),
        );
        let warned = task("vzrestore", 20, Some("WARNINGS: 2"));
        let start = |start_s| task("qmstart", start_s, Some("OK"));
        let judged = |tasks: &[Listed], named: Named| {
            let newest: Vec<_> = newest(tasks).into_iter().map(|it| (it, named)).collect();
            judge(tasks, &newest)
        };
        for (tasks, named, expected) in [
            (vec![], Named::Nothing, Last::Unknown),
            (vec![start(5)], Named::Nothing, Last::Unknown),
            (vec![done(10)], Named::This, Last::IsIt),
            (vec![done(10)], Named::Another, Last::Another),
            (vec![done(10)], Named::Nothing, Last::Unknown),
            (vec![warned], Named::This, Last::IsIt),
            (vec![start(9), done(10)], Named::This, Last::IsIt),
            (vec![done(10), start(11)], Named::This, Last::Ran),
            // What was in order before is not any more.
            (vec![failed.clone(), done(10)], Named::This, Last::Another),
            (vec![done(10), failed.clone()], Named::This, Last::Another),
            (vec![done(10), runs], Named::This, Last::Another),
            (vec![failed, done(30)], Named::This, Last::IsIt),
            // In one second, of which one has failed.
            (
                vec![done(20), task("qmrestore", 20, Some("exit code 1"))],
                Named::This,
                Last::Another,
            ),
        ] {
            assert_eq!(judged(&tasks, named), expected, "{tasks:?} {named:?}");
        }
    }
}
