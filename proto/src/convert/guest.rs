//! Providers, pools that make their nodes, and guests.

use std::net::IpAddr;

use skep_model::guest_pool::{Auto, Decision, GuestPool, PoolGuest, SeenNode, Size};
use skep_model::id::{GuestId, NodeId, TokenId};
use skep_model::pool::{
    Addresses, Backups, Departed, Down, Guest, GuestSize, Held, Identity, Kind, Machine, Note,
    Phase, Program, Recipe, Resizing, Restoring, VmidRange,
};
use skep_model::provider::{Provider, Proxmox, Trust, Way};
use skep_model::variable::Sealed;

use super::{
    Error, enum_number, enum_value, error, id, id_bytes, need, optional_id_bits, optional_id_bytes,
};
use crate::v1;
use crate::v1::guest_note::Note as NoteMessage;
use crate::v1::provider::Way as WayMessage;

impl From<&Provider> for v1::Provider {
    fn from(provider: &Provider) -> Self {
        let way = match &provider.way {
            Way::Proxmox(proxmox) => WayMessage::Proxmox(proxmox.into()),
            Way::Exec(program) => WayMessage::Exec(v1::ExecProvider {
                file: program.file.clone(),
                parameters: program.parameters.clone(),
                deadline_s: program.deadline_s,
            }),
            Way::Static(machines) => WayMessage::Machines(v1::StaticProvider {
                machines: machines.iter().map(Into::into).collect(),
            }),
        };
        Self {
            name: provider.name.clone(),
            made_ms: provider.made_ms,
            changed_ms: provider.changed_ms,
            way: Some(way),
        }
    }
}

impl TryFrom<v1::Provider> for Provider {
    type Error = Error;

    fn try_from(message: v1::Provider) -> Result<Self, Error> {
        let way = match message.way.ok_or(error("way"))? {
            WayMessage::Proxmox(proxmox) => Way::Proxmox(proxmox.into()),
            WayMessage::Exec(program) => Way::Exec(Program {
                file: program.file,
                parameters: program.parameters,
                deadline_s: program.deadline_s,
            }),
            WayMessage::Machines(list) => {
                let machines = list.machines.into_iter().map(Machine::try_from);
                Way::Static(machines.collect::<Result<_, _>>()?)
            }
        };
        Ok(Self {
            name: message.name,
            way,
            made_ms: message.made_ms,
            changed_ms: message.changed_ms,
        })
    }
}

impl From<&Proxmox> for v1::ProxmoxProvider {
    fn from(proxmox: &Proxmox) -> Self {
        let (ca_pem, pins) = match &proxmox.trust {
            Trust::Ca(pem) => (pem.clone(), Vec::new()),
            Trust::Pins(pins) => (String::new(), pins.clone()),
        };
        Self {
            endpoints: proxmox.endpoints.clone(),
            ca_pem,
            pins,
            token_id: proxmox.token_id.clone(),
            sealed_secret: proxmox.secret.0.clone(),
        }
    }
}

impl From<v1::ProxmoxProvider> for Proxmox {
    fn from(message: v1::ProxmoxProvider) -> Self {
        Self {
            endpoints: message.endpoints,
            trust: match message.pins.is_empty() {
                true => Trust::Ca(message.ca_pem),
                false => Trust::Pins(message.pins),
            },
            token_id: message.token_id,
            secret: Sealed(message.sealed_secret),
        }
    }
}

impl From<&Machine> for v1::ProviderMachine {
    fn from(machine: &Machine) -> Self {
        Self {
            name: machine.name.clone(),
            address: machine.address.to_string(),
            mac: machine.mac.clone(),
        }
    }
}

impl TryFrom<v1::ProviderMachine> for Machine {
    type Error = Error;

    fn try_from(message: v1::ProviderMachine) -> Result<Self, Error> {
        Ok(Self {
            name: message.name,
            address: address("machines", &message.address)?,
            mac: message.mac,
        })
    }
}

impl From<&Recipe> for v1::GuestRecipe {
    fn from(recipe: &Recipe) -> Self {
        Self {
            kind: enum_number(&Kind::ALL, &recipe.kind),
            templates: recipe.templates.clone(),
            full_clone: recipe.full_clone,
            storage: recipe.storage.clone(),
            cores: recipe.cores,
            memory_mib: recipe.memory_mib,
            disk_gib: recipe.disk_gib,
            disk: recipe.disk.clone(),
            bridge: recipe.bridge.clone(),
            vlan: recipe.vlan.map(u32::from),
            user: recipe.user.clone(),
            ssh_keys: recipe.ssh_keys.clone(),
            first_vmid: recipe.vmids.first,
            last_vmid: recipe.vmids.last,
            resource_pool: recipe.resource_pool.clone(),
            max_per_host: recipe.max_per_host,
            addresses: recipe.addresses.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<v1::GuestRecipe> for Recipe {
    type Error = Error;

    fn try_from(message: v1::GuestRecipe) -> Result<Self, Error> {
        let vlan = message.vlan.map(u16::try_from).transpose();
        Ok(Self {
            kind: enum_value("kind", &Kind::ALL, message.kind)?,
            templates: message.templates,
            full_clone: message.full_clone,
            storage: message.storage,
            cores: message.cores,
            memory_mib: message.memory_mib,
            disk_gib: message.disk_gib,
            disk: message.disk,
            bridge: message.bridge,
            vlan: vlan.map_err(|_| error("vlan"))?,
            user: message.user,
            ssh_keys: message.ssh_keys,
            vmids: VmidRange {
                first: message.first_vmid,
                last: message.last_vmid,
            },
            resource_pool: message.resource_pool,
            max_per_host: message.max_per_host,
            addresses: message.addresses.map(Addresses::try_from).transpose()?,
        })
    }
}

impl From<&Addresses> for v1::GuestAddresses {
    fn from(range: &Addresses) -> Self {
        Self {
            first: range.first.to_string(),
            last: range.last.to_string(),
            prefix: u32::from(range.prefix),
            gateway: range.gateway.to_string(),
            dns: range.dns.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<v1::GuestAddresses> for Addresses {
    type Error = Error;

    fn try_from(message: v1::GuestAddresses) -> Result<Self, Error> {
        let dns = message.dns.iter().map(|it| address("dns", it));
        Ok(Self {
            first: address("first", &message.first)?,
            last: address("last", &message.last)?,
            prefix: u8::try_from(message.prefix).map_err(|_| error("prefix"))?,
            gateway: address("gateway", &message.gateway)?,
            dns: dns.collect::<Result<_, _>>()?,
        })
    }
}

fn address(field: &'static str, text: &str) -> Result<IpAddr, Error> {
    text.parse().map_err(|_| error(field))
}

fn maybe_address(field: &'static str, text: Option<&String>) -> Result<Option<IpAddr>, Error> {
    text.map(|text| address(field, text)).transpose()
}

impl From<&GuestPool> for v1::GuestPool {
    fn from(pool: &GuestPool) -> Self {
        Self {
            name: pool.name.clone(),
            provider: pool.provider.clone(),
            recipe: Some((&pool.recipe).into()),
            meta: pool.meta.clone(),
            min: pool.size.min,
            max: pool.size.max,
            wanted: pool.size.wanted,
            backups: pool.backups.as_ref().map(Into::into),
            auto: pool.size.auto.map(Into::into),
            decided: pool.decided.as_ref().map(|it| v1::PoolDecision {
                at_ms: it.at_ms,
                reason: it.reason.clone(),
            }),
            seen: pool.seen.as_ref().map(|it| v1::SeenNode {
                edition: it.edition,
                facts: Some((&it.facts).into()),
            }),
            edition: pool.edition,
            generation: pool.generation,
            made_ms: pool.made_ms,
            leaves_lost: !pool.fences,
        }
    }
}

impl TryFrom<v1::GuestPool> for GuestPool {
    type Error = Error;

    fn try_from(message: v1::GuestPool) -> Result<Self, Error> {
        Ok(Self {
            name: message.name,
            provider: message.provider,
            recipe: need!(message.recipe),
            meta: message.meta,
            size: Size {
                min: message.min,
                max: message.max,
                wanted: message.wanted,
                auto: message.auto.map(Into::into),
            },
            backups: message.backups.map(Into::into),
            decided: message.decided.map(|it| Decision {
                at_ms: it.at_ms,
                reason: it.reason,
            }),
            seen: message.seen.map(SeenNode::try_from).transpose()?,
            edition: message.edition,
            generation: message.generation,
            made_ms: message.made_ms,
            fences: !message.leaves_lost,
        })
    }
}

impl From<&Backups> for v1::GuestBackups {
    fn from(backups: &Backups) -> Self {
        Self {
            schedule: backups.schedule.clone(),
            time_zone: backups.time_zone.clone(),
            storage: backups.storage.clone(),
            keep: backups.keep,
            since_ms: backups.since_ms,
        }
    }
}

impl From<Auto> for v1::PoolAuto {
    fn from(auto: Auto) -> Self {
        Self {
            cost: auto.cost,
            headroom_cpu_millis: auto.headroom_cpu_millis,
            headroom_memory_bytes: auto.headroom_memory_bytes,
            spare: auto.spare,
            idle_ms: auto.idle_ms,
        }
    }
}

impl From<v1::GuestBackups> for Backups {
    fn from(message: v1::GuestBackups) -> Self {
        Self {
            schedule: message.schedule,
            time_zone: message.time_zone,
            storage: message.storage,
            keep: message.keep,
            since_ms: message.since_ms,
        }
    }
}

impl From<v1::PoolAuto> for Auto {
    fn from(message: v1::PoolAuto) -> Self {
        Self {
            cost: message.cost,
            headroom_cpu_millis: message.headroom_cpu_millis,
            headroom_memory_bytes: message.headroom_memory_bytes,
            spare: message.spare,
            idle_ms: message.idle_ms,
        }
    }
}

impl From<&Restoring> for v1::GuestRestoring {
    fn from(restoring: &Restoring) -> Self {
        Self {
            archive: restoring.archive.clone(),
            asked_ms: restoring.asked_ms,
            back: restoring.is_back,
        }
    }
}

impl From<v1::GuestRestoring> for Restoring {
    fn from(message: v1::GuestRestoring) -> Self {
        Self {
            archive: message.archive,
            asked_ms: message.asked_ms,
            is_back: message.back,
        }
    }
}

impl From<GuestSize> for v1::GuestSize {
    fn from(size: GuestSize) -> Self {
        Self {
            cores: size.cores,
            memory_mib: size.memory_mib,
            disk_gib: size.disk_gib,
        }
    }
}

impl From<v1::GuestSize> for GuestSize {
    fn from(message: v1::GuestSize) -> Self {
        Self {
            cores: message.cores,
            memory_mib: message.memory_mib,
            disk_gib: message.disk_gib,
        }
    }
}

impl From<&Resizing> for v1::GuestResizing {
    fn from(resizing: &Resizing) -> Self {
        Self {
            asked_ms: resizing.asked_ms,
            from: Some(resizing.from.into()),
            stops: resizing.stops,
            may_interrupt: resizing.may_interrupt,
            drain_ms: resizing.drain_ms,
            held: resizing.held.map(|it| v1::guest_resizing::Held {
                was_cordoned: it.was_cordoned,
                deadline_ms: it.deadline_ms,
            }),
            down: resizing.down.map(|it| v1::guest_resizing::Down {
                seat: optional_id_bytes(it.seat),
                cpu_millis: it.cpu_millis,
                memory_bytes: it.memory_bytes,
            }),
            done_ms: resizing.done_ms,
        }
    }
}

impl TryFrom<v1::GuestResizing> for Resizing {
    type Error = Error;

    fn try_from(message: v1::GuestResizing) -> Result<Self, Error> {
        let down = message.down.map(|it| {
            Ok(Down {
                seat: optional_id_bits("seat", &it.seat)?,
                cpu_millis: it.cpu_millis,
                memory_bytes: it.memory_bytes,
            })
        });
        Ok(Self {
            asked_ms: message.asked_ms,
            from: message.from.ok_or(error("from"))?.into(),
            stops: message.stops,
            may_interrupt: message.may_interrupt,
            drain_ms: message.drain_ms,
            held: message.held.map(|it| Held {
                was_cordoned: it.was_cordoned,
                deadline_ms: it.deadline_ms,
            }),
            down: down.transpose()?,
            done_ms: message.done_ms,
        })
    }
}

impl TryFrom<v1::SeenNode> for SeenNode {
    type Error = Error;

    fn try_from(message: v1::SeenNode) -> Result<Self, Error> {
        Ok(Self {
            edition: message.edition,
            facts: need!(message.facts),
        })
    }
}

impl From<&Identity> for v1::GuestIdentity {
    fn from(identity: &Identity) -> Self {
        Self {
            mac: identity.mac.clone(),
            smbios: identity.smbios.clone(),
        }
    }
}

impl From<v1::GuestIdentity> for Identity {
    fn from(message: v1::GuestIdentity) -> Self {
        Self {
            mac: message.mac,
            smbios: message.smbios,
        }
    }
}

impl From<&PoolGuest> for v1::PoolGuest {
    fn from(one: &PoolGuest) -> Self {
        let guest = &one.guest;
        Self {
            id: id_bytes(guest.id.as_u128()),
            pool: one.pool.clone(),
            phase: enum_number(&Phase::ALL, &guest.phase),
            host: guest.host.clone(),
            vmid: guest.vmid,
            asked_ms: guest.asked_ms,
            identity: guest.identity.as_ref().map(Into::into),
            given: guest.given.map(|it| it.to_string()),
            address: guest.address.map(|it| it.to_string()),
            introduced_ms: guest.introduced_ms,
            problem: guest.problem.clone(),
            restoring: guest.restoring.as_ref().map(Into::into),
            size: guest.size.map(Into::into),
            resizing: guest.resizing.as_ref().map(Into::into),
            edition: one.edition,
            node: optional_id_bytes(one.node.map_or(0, NodeId::as_u128)),
            retiring: one.is_retiring,
            planned_ms: one.planned_ms,
            drain_deadline_ms: one.drain_deadline_ms,
            token: optional_id_bytes(one.token.map_or(0, TokenId::as_u128)),
        }
    }
}

impl TryFrom<v1::PoolGuest> for PoolGuest {
    type Error = Error;

    fn try_from(message: v1::PoolGuest) -> Result<Self, Error> {
        let optional = |field, bytes: &[u8]| {
            let bits = optional_id_bits(field, bytes)?;
            Ok((bits != 0).then_some(bits))
        };
        Ok(Self {
            pool: message.pool,
            guest: Guest {
                id: id!(GuestId, message.id),
                phase: enum_value("phase", &Phase::ALL, message.phase)?,
                host: message.host,
                vmid: message.vmid,
                asked_ms: message.asked_ms,
                identity: message.identity.map(Into::into),
                given: maybe_address("given", message.given.as_ref())?,
                address: maybe_address("address", message.address.as_ref())?,
                introduced_ms: message.introduced_ms,
                problem: message.problem,
                restoring: message.restoring.map(Into::into),
                size: message.size.map(Into::into),
                resizing: message.resizing.map(Resizing::try_from).transpose()?,
            },
            edition: message.edition,
            token: optional("token", &message.token)?.map(TokenId::from_u128),
            node: optional("node", &message.node)?.map(NodeId::from_u128),
            is_retiring: message.retiring,
            planned_ms: message.planned_ms,
            drain_deadline_ms: message.drain_deadline_ms,
        })
    }
}

impl From<&Departed> for v1::DepartedGuest {
    fn from(one: &Departed) -> Self {
        Self {
            id: id_bytes(one.id.as_u128()),
            pool: one.pool.clone(),
            vmid: one.vmid,
            gone_ms: one.gone_ms,
        }
    }
}

impl TryFrom<v1::DepartedGuest> for Departed {
    type Error = Error;

    fn try_from(message: v1::DepartedGuest) -> Result<Self, Error> {
        Ok(Self {
            id: id!(GuestId, message.id),
            pool: message.pool,
            vmid: message.vmid,
            gone_ms: message.gone_ms,
        })
    }
}

/// What is written down about a guest by whoever drives it. None: what only the cluster says, by commands of its own.
pub fn note_out(note: &Note) -> Option<v1::GuestNote> {
    let note = match note {
        Note::Chosen {
            host,
            vmid,
            address,
            now_ms,
        } => NoteMessage::Chosen(v1::guest_note::Chosen {
            host: host.clone(),
            vmid: *vmid,
            now_ms: *now_ms,
            address: address.map(|it| it.to_string()),
        }),
        Note::Asked {
            machine,
            address,
            now_ms,
        } => NoteMessage::Asked(v1::guest_note::Asked {
            now_ms: *now_ms,
            machine: machine.clone(),
            address: address.map(|it| it.to_string()),
        }),
        Note::Identified(identity) => NoteMessage::Identified(identity.into()),
        Note::Started => NoteMessage::Started(v1::guest_note::Started {}),
        Note::Found(address) => NoteMessage::Found(address.to_string()),
        Note::Gone => NoteMessage::Gone(v1::guest_note::Gone {}),
        Note::Stuck(why) => NoteMessage::Stuck(v1::guest_note::Stuck { why: why.clone() }),
        Note::BroughtBack(archive) => NoteMessage::BroughtBack(v1::guest_note::BroughtBack {
            archive: archive.clone(),
        }),
        Note::NotBack(archive) => NoteMessage::NotBack(v1::guest_note::NotBack {
            archive: archive.clone(),
        }),
        Note::Restored(archive) => NoteMessage::Restored(v1::guest_note::Restored {
            archive: archive.clone(),
        }),
        Note::Down => NoteMessage::Down(v1::guest_note::Down {}),
        Note::MustStop => NoteMessage::MustStop(v1::guest_note::MustStop {}),
        Note::Resized { now_ms } => {
            NoteMessage::Resized(v1::guest_note::Resized { now_ms: *now_ms })
        }
        Note::Introduced { .. } | Note::Joined | Note::Leave => return None,
    };
    Some(v1::GuestNote { note: Some(note) })
}

impl TryFrom<v1::GuestNote> for Note {
    type Error = Error;

    fn try_from(message: v1::GuestNote) -> Result<Self, Error> {
        Ok(match message.note.ok_or(error("note"))? {
            NoteMessage::Chosen(chosen) => Self::Chosen {
                host: chosen.host,
                vmid: chosen.vmid,
                address: maybe_address("address", chosen.address.as_ref())?,
                now_ms: chosen.now_ms,
            },
            NoteMessage::Asked(asked) => Self::Asked {
                machine: asked.machine,
                address: maybe_address("address", asked.address.as_ref())?,
                now_ms: asked.now_ms,
            },
            NoteMessage::Identified(identity) => Self::Identified(identity.into()),
            NoteMessage::Started(_) => Self::Started,
            NoteMessage::Found(text) => Self::Found(address("found", &text)?),
            NoteMessage::Gone(_) => Self::Gone,
            NoteMessage::BroughtBack(back) => Self::BroughtBack(back.archive),
            NoteMessage::NotBack(back) => Self::NotBack(back.archive),
            NoteMessage::Restored(restored) => Self::Restored(restored.archive),
            NoteMessage::Down(_) => Self::Down,
            NoteMessage::MustStop(_) => Self::MustStop,
            NoteMessage::Resized(resized) => Self::Resized {
                now_ms: resized.now_ms,
            },
            NoteMessage::Stuck(stuck) => Self::Stuck(stuck.why),
        })
    }
}
