//! A wire in memory that can lose, cut, break off and corrupt, and servers on it.

use super::*;
use crate::consensus::incoming;
use skep_raft_core::Outgoing;
use std::collections::{BTreeMap, HashSet};
use std::io::{Read, Seek, SeekFrom};

/// Small, so that a snapshot of some commands takes many.
const CHUNK_BYTES: usize = 64;

#[derive(Default)]
struct Wires {
    handles: BTreeMap<u64, Handle<Recorder>>,
    /// Members that nothing reaches and that reach nobody.
    cut: HashSet<u64>,
    loss_percent: u64,
    dice: u64,
    /// The next transfers break off after so many bytes.
    breaks: Vec<u64>,
    /// The next transfer has a bit flipped at this place.
    flip_at: Option<u64>,
    /// Where transfers began, and how they ended.
    transfers: Vec<(u64, Result<(), String>)>,
}

#[derive(Clone, Default)]
pub(super) struct Net(Arc<Mutex<Wires>>);

impl Net {
    fn wires(&self) -> std::sync::MutexGuard<'_, Wires> {
        self.0.lock().unwrap()
    }

    pub(super) fn lose_percent(&self, percent: u64) {
        self.wires().loss_percent = percent;
    }

    pub(super) fn cut(&self, id: u64) {
        self.wires().cut.insert(id);
    }

    pub(super) fn heal(&self, id: u64) {
        self.wires().cut.remove(&id);
    }

    pub(super) fn break_after(&self, bytes: &[u64]) {
        self.wires().breaks = bytes.to_vec();
    }

    pub(super) fn flip_at(&self, byte: u64) {
        self.wires().flip_at = Some(byte);
    }

    pub(super) fn transfers(&self) -> Vec<(u64, Result<(), String>)> {
        self.wires().transfers.clone()
    }

    /// A stopped server is not on the wire.
    pub(super) async fn stop(&self, running: Running) {
        self.wires().handles.remove(&running.id);
        running.stop().await;
    }

    pub(super) fn start(
        &self,
        root: &Path,
        id: u64,
        options: impl FnOnce(&mut Options),
    ) -> Running {
        let mut settings = Options {
            tick: Duration::from_millis(10),
            ..Options::new(id, root.join(id.to_string()))
        };
        options(&mut settings);
        let wire = Wire {
            net: self.clone(),
            own: id,
        };
        let (service, handle) =
            Service::open(settings, Recorder::default(), Box::new(wire)).expect("opens");
        self.wires().handles.insert(id, handle.clone());
        let token = CancellationToken::new();
        Running {
            id,
            handle,
            task: tokio::spawn(service.run(token.clone())),
            token,
        }
    }

    /// One that leads and can be reached.
    pub(super) async fn leader(&self) -> (u64, Handle<Recorder>) {
        let find = || {
            let wires = self.wires();
            let leads = |handle: &Handle<Recorder>| handle.leadership().borrow().is_leader;
            wires
                .handles
                .iter()
                .find(|(id, handle)| !wires.cut.contains(id) && leads(handle))
                .map(|(id, handle)| (*id, handle.clone()))
        };
        until(|| find().is_some()).await;
        find().unwrap_or_else(|| panic!("it led a moment ago"))
    }

    pub(super) async fn wait_for_other_leader(&self, than: u64) {
        until(|| {
            let wires = self.wires();
            let mut others = wires.handles.iter().filter(|(id, _)| **id != than);
            others.any(|(_, handle)| handle.leadership().borrow().is_leader)
        })
        .await;
    }

    /// As a client does: asks whoever leads until the command is in.
    pub(super) async fn insist(&self, command: &str) {
        for _ in 0..400 {
            let (_, handle) = self.leader().await;
            match handle.propose(command.as_bytes().to_vec()).await {
                Ok(_) => return,
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{command} was never taken");
    }

    /// Whether the leader hears of a member.
    pub(super) fn is_active(&self, id: u64) -> Option<bool> {
        let wires = self.wires();
        wires.handles.values().find_map(|handle| {
            let group = handle.group().borrow().clone();
            let peer = group.peers.iter().find(|peer| peer.member == id)?;
            group.is_leader.then_some(peer.is_active)
        })
    }

    fn is_lost(&self, from: u64, to: u64) -> bool {
        let mut wires = self.wires();
        wires.dice = wires
            .dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let is_unlucky = (wires.dice >> 33) % 100 < wires.loss_percent;
        is_unlucky || wires.cut.contains(&from) || wires.cut.contains(&to)
    }

    fn peer(&self, id: u64) -> Option<Handle<Recorder>> {
        self.wires().handles.get(&id).cloned()
    }

    /// Streams as the real transport does; an error breaks it off.
    fn stream(&self, from: u64, snapshot: &SnapshotSend) -> (u64, Result<(), String>) {
        let say = |error: incoming::Error| error.to_string();
        let Some(peer) = self.peer(snapshot.to) else {
            return (0, Err("not there".to_owned()));
        };
        let offer = SnapshotOffer {
            from,
            index: snapshot.meta.position.index,
            term: snapshot.meta.position.term,
            bytes: snapshot.bytes,
            crc32: snapshot.crc32,
        };
        let mut incoming = match peer.receive_snapshot(offer) {
            Ok(incoming) => incoming,
            Err(error) => return (0, Err(say(error))),
        };
        let offset = incoming.offset();
        let mut at = offset;
        let mut file = std::fs::File::open(&snapshot.path).unwrap();
        file.seek(SeekFrom::Start(offset)).unwrap();
        let (breaks_at, flip_at) = {
            let mut wires = self.wires();
            let first = (!wires.breaks.is_empty()).then(|| wires.breaks.remove(0));
            (first, wires.flip_at.take())
        };
        let mut chunk = [0; CHUNK_BYTES];
        loop {
            let count = file.read(&mut chunk).unwrap();
            if count == 0 {
                break;
            }
            if self.is_lost(from, snapshot.to) || breaks_at.is_some_and(|limit| at >= limit) {
                return (offset, Err("broken off".to_owned()));
            }
            if let Some(place) = flip_at
                && (at..at + count as u64).contains(&place)
            {
                chunk[(place - at) as usize] ^= 1;
            }
            if let Err(error) = incoming.write(&chunk[..count]) {
                return (offset, Err(say(error)));
            }
            at += count as u64;
        }
        (
            offset,
            incoming.finish(snapshot.message.clone()).map_err(say),
        )
    }
}

struct Wire {
    net: Net,
    own: u64,
}

impl Transport for Wire {
    fn send(&mut self, messages: Vec<Outgoing>) {
        for message in messages {
            if self.net.is_lost(self.own, message.to) {
                continue;
            }
            // A peer that is gone loses its messages, as on a real wire.
            let peer = self.net.peer(message.to);
            let _lost = peer.map(|peer| peer.deliver(message.bytes));
        }
    }

    fn send_snapshot(&mut self, snapshot: SnapshotSend) {
        let (net, own) = (self.net.clone(), self.own);
        std::thread::spawn(move || {
            let transfer = net.stream(own, &snapshot);
            let is_sent = transfer.1.is_ok();
            net.wires().transfers.push(transfer);
            if let Some(sender) = net.peer(own) {
                sender.snapshot_sent(snapshot.to, is_sent);
            }
        });
    }
}
