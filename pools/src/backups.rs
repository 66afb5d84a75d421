//! Which copies of a guest there are, when the next one is due, and which are too many; and which are left of guests that are
//! there no more. Pure.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::id::GuestId;
use skep_model::pool::{Departed, Guest, name_of};
use skep_model::schedule::Schedule;
use skep_proxmox::Vmid;
use skep_proxmox::calls::backups::is_of;
use skep_proxmox::calls::storage::Volume;

/// A copy of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Its name: `nas:backup/vzdump-qemu-5001-2026_11_29-03_00_00.vma.zst`.
    pub volid: String,
    /// When it was begun, ms since 1970.
    pub at_ms: u64,
    /// Its size, bytes; none: its storage does not say.
    pub bytes: Option<u64>,
    /// Somebody has marked it as not to be removed.
    pub is_protected: bool,
}

/// Copies of one guest, the newest first. Numbers are used again: a copy is this guest's where its notes say its name, which
/// nobody else's do.
pub fn of_guest(guest: &Guest, rows: &[Volume]) -> Vec<Archive> {
    let vmid = guest.vmid.and_then(|vmid| Vmid::new(vmid).ok());
    let name = guest.name();
    let is_its = |row: &&Volume| {
        let notes = row.notes.as_deref().map(str::trim);
        vmid.is_some_and(|vmid| is_of(&row.volid, vmid)) && notes == Some(name.as_str())
    };
    let mut found: Vec<Archive> = rows.iter().filter(is_its).filter_map(archive).collect();
    found.sort_by(|a, b| (b.at_ms, &b.volid).cmp(&(a.at_ms, &a.volid)));
    found
}

fn archive(row: &Volume) -> Option<Archive> {
    Some(Archive {
        volid: row.volid.clone(),
        at_ms: row.ctime?.saturating_mul(1_000),
        bytes: row.size,
        is_protected: row.protected == Some(true),
    })
}

/// Copies that are left of guests that are there no more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Left {
    /// Those that are proven to be of a guest of ours, each with that, the oldest first.
    pub archives: Vec<(Departed, Archive)>,
    /// How many say in our way of which guest they are, which nobody here remembers: another cluster's, or of one that left
    /// too long ago.
    pub unknown: usize,
}

/// Of which guests that are there no more copies are left. `known`: all guests that are written down, of every pool: what is
/// theirs is not left.
pub fn left(departed: &[Departed], known: &BTreeSet<GuestId>, rows: &[Volume]) -> Left {
    let by_name: BTreeMap<String, &Departed> = departed
        .iter()
        .filter(|it| !known.contains(&it.id))
        .map(|it| (name_of(it.id), it))
        .collect();
    let mut left = Left::default();
    for row in rows {
        let notes = row.notes.as_deref().unwrap_or_default().trim();
        let its = by_name.get(notes).filter(|it| {
            let vmid = Vmid::new(it.vmid);
            vmid.is_ok_and(|vmid| is_of(&row.volid, vmid))
        });
        match its.and_then(|it| Some(((*it).clone(), archive(row)?))) {
            Some(found) => left.archives.push(found),
            None => left.unknown += usize::from(is_in_our_way(notes, known)),
        }
    }
    left.archives
        .sort_by(|(_, a), (_, b)| (a.at_ms, &a.volid).cmp(&(b.at_ms, &b.volid)));
    left
}

/// Whether a copy's notes are the name of a guest that nobody has written down.
fn is_in_our_way(notes: &str, known: &BTreeSet<GuestId>) -> bool {
    let id = notes.strip_prefix("skep-").and_then(|id| id.parse().ok());
    id.is_some_and(|id: GuestId| !known.contains(&id))
}

/// When the next copy is due, ms since 1970: in the past where one was missed. `since_ms`: from when on there are to be
/// copies; `archives`: the newest first. None: never.
pub fn due(schedule: &Schedule, since_ms: u64, archives: &[Archive]) -> Option<u64> {
    let newest = archives.first().map_or(0, |archive| archive.at_ms);
    schedule.next_after(since_ms.max(newest))
}

/// Copies that are too many: the oldest, of those that may be removed.
pub fn surplus(archives: &[Archive], keep: u32) -> Vec<&Archive> {
    let may_go = archives.iter().filter(|archive| !archive.is_protected);
    may_go.skip(keep as usize).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows() -> (Guest, Vec<Volume>) {
        let mut guest = Guest::planned(GuestId::from_u128(7));
        guest.vmid = Some(5001);
        let name = guest.name();
        let volume = |vmid: u32, day: u64, notes: &str| {
            json!({"volid": format!("nas:backup/vzdump-qemu-{vmid}-2026_11_{day:02}-03_00_00.vma.zst"),
                "content": "backup", "vmid": vmid, "ctime": (day * 86_400).to_string(), "size": 100, "notes": notes})
        };
        let mut rows = json!([
            volume(5001, 1, &name),
            volume(5001, 3, &format!("{name}\n")),
            volume(5001, 2, &name),
            // Of whoever had the number before; of another guest; of somebody who wrote about it.
            volume(5001, 4, "skep-other"),
            volume(5002, 5, &name),
            volume(5001, 6, &format!("copy of {name}")),
        ]);
        rows[2]["protected"] = json!(1);
        (guest, serde_json::from_value(rows).expect("volumes"))
    }

    fn days(archives: &[Archive]) -> Vec<u64> {
        archives.iter().map(|it| it.at_ms / 86_400_000).collect()
    }

    #[test]
    fn a_copy_is_a_guests_by_number_and_name() {
        let (guest, rows) = rows();
        let found = of_guest(&guest, &rows);
        assert_eq!(days(&found), [3, 2, 1]);
        let unmade = Guest::planned(guest.id);
        assert!(of_guest(&unmade, &rows).is_empty());
    }

    #[test]
    fn copies_of_who_is_gone_are_known_by_what_is_remembered_alone() {
        let (guest, rows) = rows();
        let departed = |id: GuestId, vmid| Departed {
            id,
            pool: "web".to_owned(),
            vmid,
            gone_ms: 5,
        };
        let found = |departed: &[Departed], known: &[GuestId]| {
            let left = left(departed, &known.iter().copied().collect(), &rows);
            let days = left.archives.iter().map(|(_, it)| it.at_ms / 86_400_000);
            (days.collect::<Vec<u64>>(), left.unknown)
        };
        // The copy of another number has its name, and is not proven to be its.
        assert_eq!(found(&[departed(guest.id, 5001)], &[]), (vec![1, 2, 3], 1));
        assert_eq!(found(&[departed(guest.id, 5002)], &[]), (vec![5], 3));
        // Nobody remembers it: another cluster's, as far as anybody can say.
        assert_eq!(found(&[], &[]), (vec![], 4));
        // It is there: nothing is left of it.
        for departed in [vec![], vec![departed(guest.id, 5001)]] {
            assert_eq!(found(&departed, &[guest.id]), (vec![], 0));
        }
    }

    #[test]
    fn the_oldest_are_too_many_and_what_is_protected_stays() {
        let (guest, rows) = rows();
        let found = of_guest(&guest, &rows);
        let gone = |keep| -> Vec<u64> {
            let over = surplus(&found, keep).into_iter();
            over.map(|it| it.at_ms / 86_400_000).collect()
        };
        assert_eq!(gone(2), [0_u64; 0]);
        assert_eq!(gone(1), [1]);
    }

    #[test]
    fn one_that_was_missed_is_due_at_once_and_one_alone() {
        let (guest, rows) = rows();
        let schedule = Schedule::parse("0 3 * * *", "UTC").expect("a schedule");
        let found = of_guest(&guest, &rows);
        let at = |day: u64| day * 86_400_000 + 3 * 3_600_000;
        // The copy of day 3 began at midnight: its own time comes at three.
        assert_eq!(due(&schedule, 0, &found), Some(at(3)));
        // Nothing is made up for from before it was asked for.
        assert_eq!(due(&schedule, at(9), &found), Some(at(10)));
        assert_eq!(due(&schedule, at(9) - 1, &[]), Some(at(9)));
    }
}
