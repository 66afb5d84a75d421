//! Providers, pools that make their nodes, and how far their guests have come. What may exist at a provider is
//! written down here first, by whoever asks for it.

use std::net::IpAddr;
use std::sync::Arc;

use skep_model::guest_pool::{
    Decision, GuestPool, MAX_DECISION, MAX_GUEST_POOLS, PoolGuest, SeenNode,
};
use skep_model::id::{GuestId, NodeId};
use skep_model::node::{Admin, Facts, HOST, Node};
use skep_model::pool::backups::MAX_ARCHIVE;
use skep_model::pool::{
    Backups, Departed, Guest, MAX_DEPARTED, MAX_GUESTS, Machine, Note, Phase, Restoring,
};
use skep_model::problem::{Code, Problem};
use skep_model::provider::{MAX_PROVIDERS, Provider, Way};
use skep_model::server::{JoinToken, Role};
use skep_proto::v1;

use super::{Context, Outcome, Reply, bits, changed_meanwhile, missing, not_found, understood};
use crate::change::Change;

/// The key of metadata that says in which pool a node is.
const POOL: &str = "pool";

impl Context<'_> {
    pub(super) fn put_provider(&mut self, message: v1::PutProvider) -> Outcome {
        let provider = message.provider.ok_or_else(|| missing("provider"))?;
        let mut provider: Provider = understood(provider)?;
        provider.check()?;
        if let Way::Proxmox(proxmox) = &provider.way
            && proxmox.secret.0.is_empty()
        {
            return Err(missing("secret"));
        }
        let known = self.state.providers.get(&provider.name);
        if let Some(known) = known {
            self.check_way(known, &provider.way)?;
        }
        self.check_machines(&provider)?;
        if known.is_none() && self.state.providers.len() >= MAX_PROVIDERS {
            let text = format!("there are {MAX_PROVIDERS} providers already");
            return Err(Problem::new(Code::TooLarge, text).hint("`skep provider rm` removes one"));
        }
        provider.changed_ms = self.state.time_ms;
        provider.made_ms = known.map_or(self.state.time_ms, |known| known.made_ms);
        let name = provider.name.clone();
        self.state.providers.insert(name, Arc::new(provider));
        self.changes.push(Change::Guests);
        Ok(Reply::Done)
    }

    /// Guests that are there go on as they came: whoever made them removes them.
    fn check_way(&self, known: &Provider, next: &Way) -> Result<(), Problem> {
        let name = &known.name;
        let mut pools = self.state.guest_pools().filter(|it| it.provider == *name);
        if known.way.kind() != next.kind()
            && let Some(pool) = pools.next()
        {
            let text = format!(
                "`{name}` is {}, and the pool `{}` is made by it",
                known.way.kind().word(),
                pool.name
            );
            return Err(Problem::new(Code::Conflict, text)
                .at("provider")
                .hint("give the other one another name, and make another pool by it"));
        }
        let Way::Static(machines) = next else {
            return Ok(());
        };
        let its = |one: &&Arc<PoolGuest>| self.is_by(one, name);
        for one in self.state.guests().filter(its) {
            let (Some(taken), Some(identity)) = (&one.guest.host, &one.guest.identity) else {
                continue;
            };
            let is_same = |it: &Machine| it.name == *taken && it.has_mac(&identity.mac);
            if !machines.iter().any(is_same) {
                let text = format!(
                    "the guest {} has the machine `{taken}` with the MAC {}",
                    one.guest.name(),
                    identity.mac
                );
                return Err(Problem::new(Code::Conflict, text)
                    .at("machines")
                    .hint("a machine stays in the list while it is taken: `skep node remove` gives it back"));
            }
        }
        Ok(())
    }

    /// A machine that were in two lists would be taken twice.
    fn check_machines(&self, wanted: &Provider) -> Result<(), Problem> {
        let Way::Static(mine) = &wanted.way else {
            return Ok(());
        };
        let others = self.state.providers().filter(|it| it.name != wanted.name);
        for other in others {
            let Way::Static(theirs) = &other.way else {
                continue;
            };
            let is_theirs = |it: &&Machine| theirs.iter().any(|their| their.has_mac(&it.mac));
            if let Some(twice) = mine.iter().find(is_theirs) {
                let text = format!("`{}` has the machine `{}` too", other.name, twice.name);
                return Err(Problem::new(Code::Conflict, text)
                    .at("machines")
                    .hint("a machine is in one list"));
            }
        }
        Ok(())
    }

    fn is_by(&self, one: &PoolGuest, provider: &str) -> bool {
        let pool = self.state.guest_pool(&one.pool);
        pool.is_some_and(|pool| pool.provider == provider)
    }

    pub(super) fn remove_provider(&mut self, message: &v1::RemoveProvider) -> Outcome {
        let name = &message.name;
        if let Some(pool) = self.state.guest_pools().find(|it| it.provider == *name) {
            let text = format!("the pool `{}` is made by `{name}`", pool.name);
            return Err(Problem::new(Code::Conflict, text)
                .hint("`skep pool rm` removes the pool, once it has no nodes"));
        }
        if self.state.providers.remove(name).is_none() {
            return Err(no_provider(name));
        }
        self.changes.push(Change::Guests);
        Ok(Reply::Done)
    }

    pub(super) fn put_guest_pool(&mut self, message: v1::PutGuestPool) -> Outcome {
        let mut wanted: GuestPool = understood(message.pool.ok_or_else(|| missing("pool"))?)?;
        let Some(provider) = self.state.provider(&wanted.provider) else {
            return Err(no_provider(&wanted.provider).at("provider"));
        };
        wanted.check(&provider.way)?;
        if provider.way.is_proxmox() {
            self.check_numbers(&wanted)?;
        }
        let known = self.state.guest_pool(&wanted.name).cloned();
        if known.as_ref().map_or(0, |it| it.generation) != message.expected_generation {
            return Err(changed_meanwhile("pool"));
        }
        let before = known.as_ref().and_then(|it| it.backups.as_ref());
        self.begin_backups(before, wanted.backups.as_mut());
        let Some(known) = known else {
            if self.state.guest_pools.len() >= MAX_GUEST_POOLS {
                let text = format!("there are {MAX_GUEST_POOLS} pools that make nodes already");
                return Err(Problem::new(Code::TooLarge, text));
            }
            self.put_pool_back(GuestPool {
                edition: 1,
                generation: 1,
                made_ms: self.state.time_ms,
                decided: None,
                seen: None,
                ..wanted
            });
            return Ok(Reply::Done);
        };
        if self.state.guests_of(&known.name).next().is_some() {
            known.check_change(&wanted)?;
        }
        self.put_pool_back(GuestPool {
            edition: known.edition + u64::from(known.recipe != wanted.recipe),
            generation: known.generation + 1,
            made_ms: known.made_ms,
            decided: known.decided.clone(),
            seen: known.seen.clone(),
            ..wanted
        });
        Ok(Reply::Done)
    }

    /// Nothing is made up for from before copies were asked for.
    fn begin_backups(&self, before: Option<&Backups>, wanted: Option<&mut Backups>) {
        let Some(wanted) = wanted else { return };
        wanted.since_ms = before.map_or(self.state.time_ms, |it| it.since_ms);
        if before.is_none_or(|it| it != wanted) {
            wanted.since_ms = self.state.time_ms;
        }
    }

    /// Two pools that gave the same numbers at one provider would take them from each other.
    fn check_numbers(&self, wanted: &GuestPool) -> Result<(), Problem> {
        let (mine, provider) = (wanted.recipe.vmids, &wanted.provider);
        let mut others = self.state.guest_pools();
        let other = others.find(|it| {
            let theirs = it.recipe.vmids;
            it.name != wanted.name
                && it.provider == *provider
                && mine.first <= theirs.last
                && theirs.first <= mine.last
        });
        let Some(other) = other else { return Ok(()) };
        let theirs = other.recipe.vmids;
        let text = format!(
            "the pool `{}` has the numbers {} to {}",
            other.name, theirs.first, theirs.last
        );
        Err(Problem::new(Code::Conflict, text)
            .at("vmids")
            .hint("numbers of two pools of one provider do not overlap"))
    }

    pub(super) fn remove_guest_pool(&mut self, message: &v1::RemoveGuestPool) -> Outcome {
        let pool = self.pool(&message.name)?;
        let left = self.state.guests_of(&pool.name).count();
        if left > 0 {
            let text = format!("the pool `{}` has {left} guests", pool.name);
            return Err(Problem::new(Code::Conflict, text).hint(format!(
                "`skep pool scale {} 0` removes them first",
                pool.name
            )));
        }
        self.state.guest_pools.remove(&pool.name);
        let departed: Vec<GuestId> = self.state.departed_of(&pool.name).map(|it| it.id).collect();
        for id in departed {
            self.state.departed.remove(&(pool.name.clone(), id));
        }
        self.changes.push(Change::Guests);
        Ok(Reply::Done)
    }

    pub(super) fn scale_guest_pool(&mut self, message: &v1::ScaleGuestPool) -> Outcome {
        let mut pool = (*self.pool(&message.name)?).clone();
        let expected = message.expected_generation;
        if expected != 0 && expected != pool.generation {
            return Err(changed_meanwhile("pool"));
        }
        if pool.size.auto.is_some() {
            let text = format!("the pool `{}` scales itself", pool.name);
            let hint = format!(
                "`skep pool change {0} --min N` keeps at least so many; `skep pool change {0} --no-autoscale --nodes N` \
                 gives the number back to you",
                pool.name
            );
            return Err(Problem::new(Code::Conflict, text).at("wanted").hint(hint));
        }
        pool.size.wanted = message.wanted;
        pool.size.check()?;
        pool.generation += 1;
        self.put_pool_back(pool);
        Ok(Reply::Done)
    }

    pub(super) fn decide_nodes(&mut self, message: v1::DecideNodes) -> Outcome {
        let known = self.pool(&message.pool)?;
        if known.size.auto.is_none() || known.generation != message.expected_generation {
            return Err(changed_meanwhile("pool"));
        }
        if message.reason.len() > MAX_DECISION {
            return Err(Problem::invalid("reason", "it is too long")
                .hint(format!("at most {MAX_DECISION} bytes")));
        }
        if message.guest.is_empty() {
            let mut size = known.size;
            size.wanted = message.wanted;
            size.check()?;
        } else {
            if self.guest(&message.guest)?.pool != known.name {
                return Err(changed_meanwhile("guest"));
            }
            self.retire_guest(&v1::RetireGuest {
                id: message.guest.clone(),
                replace: false,
                leave: true,
                drain_deadline_ms: message.drain_deadline_ms,
            })?;
        }
        let mut pool = (*self.pool(&message.pool)?).clone();
        if message.guest.is_empty() {
            pool.size.wanted = message.wanted;
        }
        pool.generation = known.generation + 1;
        pool.decided = Some(Decision {
            at_ms: self.state.time_ms,
            reason: message.reason,
        });
        self.put_pool_back(pool);
        Ok(Reply::Done)
    }

    pub(super) fn plan_guest(&mut self, message: &v1::PlanGuest) -> Outcome {
        let pool = self.pool(&message.pool)?;
        let id = GuestId::from_u128(bits("id", &message.id)?);
        if self.state.guests.contains_key(&id) {
            return Err(Problem::new(Code::Conflict, "there is that guest already").at("id"));
        }
        let (mut all, mut counted) = (0, 0);
        for one in self.state.guests_of(&pool.name) {
            all += 1;
            counted += u32::from(one.counts());
        }
        if counted >= pool.size.wanted || all >= MAX_GUESTS {
            let text = format!("the pool `{}` has as many guests as it wants", pool.name);
            return Err(Problem::new(Code::Conflict, text));
        }
        self.put_guest(PoolGuest {
            pool: pool.name.clone(),
            guest: Guest::planned(id),
            edition: pool.edition,
            token: None,
            node: None,
            is_retiring: false,
            planned_ms: self.state.time_ms,
            drain_deadline_ms: None,
        });
        Ok(Reply::Done)
    }

    pub(super) fn note_guest(&mut self, message: v1::NoteGuest) -> Outcome {
        let known = self.guest(&message.id)?;
        let note: Note = understood(message.note.ok_or_else(|| missing("note"))?)?;
        match &note {
            Note::Chosen { vmid, address, .. } => self.check_free(&known, (*vmid, *address))?,
            Note::Asked {
                machine: Some(machine),
                ..
            } => self.check_untaken(&known, machine)?,
            _ => {}
        }
        let mut next = (*known).clone();
        self.note_resize(&note, &mut next);
        next.guest.take(note);
        let is_back = |it: &PoolGuest| it.guest.restoring.as_ref().is_some_and(|it| it.is_back);
        if is_back(&next) && !is_back(&known) {
            self.leave_seat(&known);
        }
        if next != *known {
            self.put_guest(next);
        }
        Ok(Reply::Done)
    }

    /// A number is one guest's: what may exist under it is removed by whoever has it. So is an address.
    fn check_free(
        &self,
        guest: &PoolGuest,
        (vmid, address): (u32, Option<IpAddr>),
    ) -> Result<(), Problem> {
        let provider = |pool: &str| self.state.guest_pool(pool).map(|it| it.provider.clone());
        let mine = provider(&guest.pool);
        let mut others = self.state.guests();
        let is_taken = others.any(|other| {
            other.guest.id != guest.guest.id
                && other.guest.phase < Phase::Gone
                && provider(&other.pool) == mine
                && (other.guest.vmid == Some(vmid)
                    || (address.is_some() && other.guest.given == address))
        });
        match is_taken {
            false => Ok(()),
            true => {
                let address = address.map_or_else(String::new, |it| format!(", or {it},"));
                let text = format!("{vmid}{address} is another guest's");
                Err(Problem::new(Code::Conflict, text))
            }
        }
    }

    /// A machine is one guest's, until that is forgotten: before, its agent may still run there.
    fn check_untaken(&self, guest: &PoolGuest, machine: &str) -> Result<(), Problem> {
        let provider = self.pool(&guest.pool)?.provider.clone();
        let mut others = self.state.guests();
        let is_taken = others.any(|other| {
            other.guest.id != guest.guest.id
                && other.guest.host.as_deref() == Some(machine)
                && self.is_by(other, &provider)
        });
        match is_taken {
            false => Ok(()),
            true => {
                let text = format!("the machine `{machine}` is another guest's");
                Err(Problem::new(Code::Conflict, text))
            }
        }
    }

    pub(super) fn retire_guest(&mut self, message: &v1::RetireGuest) -> Outcome {
        let known = self.guest(&message.id)?;
        if known.guest.phase >= Phase::Leaving {
            return Ok(Reply::Done);
        }
        let mut next = (*known).clone();
        if !message.leave {
            next.is_retiring = true;
            self.put_guest(next);
            return Ok(Reply::Done);
        }
        // One that is being replaced is counted no more.
        if !message.replace && known.counts() {
            self.want_fewer(&known.pool)?;
        }
        next.is_retiring |= message.replace;
        next.drain_deadline_ms = Some(message.drain_deadline_ms);
        next.guest.take(Note::Leave);
        if let Some(node) = known.node.and_then(|id| self.state.node(id)).cloned() {
            self.remember_node(&known, &node);
            self.changes.push(Change::Node(node.id));
            self.state.put_node(Node {
                admin: Admin::Draining {
                    deadline_ms: message.drain_deadline_ms,
                },
                generation: node.generation + 1,
                ..(*node).clone()
            });
        }
        self.put_guest(next);
        Ok(Reply::Done)
    }

    /// What the next node of its pool will be like, should no other one be there to look at.
    fn remember_node(&mut self, one: &PoolGuest, node: &Node) {
        let Ok(pool) = self.pool(&one.pool) else {
            return;
        };
        let mut pool = (*pool).clone();
        let is_odd = one.guest.size.is_some();
        if one.edition != pool.edition || node.facts.memory_bytes == 0 || is_odd {
            return;
        }
        pool.seen = Some(SeenNode {
            edition: one.edition,
            facts: Facts {
                volumes: Vec::new(),
                ..node.facts.clone()
            },
        });
        self.put_pool_back(pool);
    }

    /// Unless more come or are there than are wanted anyway.
    fn want_fewer(&mut self, pool: &str) -> Result<(), Problem> {
        let mut pool = (*self.pool(pool)?).clone();
        let counted = self.state.guests_of(&pool.name).filter(|it| it.counts());
        if counted.count() > pool.size.wanted as usize {
            return Ok(());
        }
        if pool.size.wanted <= pool.size.min {
            let text = format!(
                "the pool `{}` has at least {} nodes",
                pool.name, pool.size.min
            );
            return Err(Problem::new(Code::Conflict, text).hint(format!(
                "`skep node replace` puts another in its place; `skep pool change {} --min` allows fewer",
                pool.name
            )));
        }
        pool.size.wanted -= 1;
        pool.generation += 1;
        self.put_pool_back(pool);
        Ok(())
    }

    pub(super) fn introduce_guest(&mut self, message: v1::IntroduceGuest) -> Outcome {
        let known = self.guest(&message.id)?;
        let token = message.token.clone().ok_or_else(|| missing("token"))?;
        let parsed: JoinToken = understood(token)?;
        if parsed.role != Role::Node || parsed.uses_left != 1 {
            return Err(missing("token"));
        }
        if known.guest.identity.is_none() || known.guest.phase >= Phase::Ready {
            return Err(changed_meanwhile("guest"));
        }
        if let Some(old) = known.token {
            self.state.tokens.remove(&old);
        }
        self.put_token(v1::PutToken {
            token: message.token,
        })?;
        let mut next = (*known).clone();
        next.token = Some(parsed.id);
        next.guest.take(Note::Introduced {
            now_ms: self.state.time_ms,
        });
        self.put_guest(next);
        Ok(Reply::Done)
    }

    pub(super) fn restore_guest(&mut self, message: v1::RestoreGuest) -> Outcome {
        let known = self.guest(&message.id)?;
        let archive = message.archive;
        if archive.is_empty() || archive.len() > MAX_ARCHIVE {
            return Err(Problem::invalid("archive", "no copy is named")
                .hint("`skep node backups NODE` lists what there is"));
        }
        if known.guest.phase != Phase::Ready || known.is_retiring {
            let text = format!("the guest {} comes or goes", known.guest.name());
            return Err(Problem::new(Code::Conflict, text)
                .hint("what was ready once, and is to stay, can become an older one"));
        }
        // Until it is back another one may take the first one's place.
        let first = known.guest.restoring.as_ref();
        if first.is_some_and(|it| it.archive == archive) {
            let name = known.guest.name();
            let text = format!("the guest {name} is becoming `{archive}` already");
            return Err(Problem::new(Code::Conflict, text).at("archive").hint(
                "`skep pool show` says how far that is; another copy takes this one's place",
            ));
        }
        if first.map_or("", |it| it.archive.as_str()) != message.instead_of {
            return Err(changed_meanwhile("guest"));
        }
        if known.guest.resizing.is_some() {
            let text = format!("the guest {} is being resized", known.guest.name());
            return Err(Problem::new(Code::Conflict, text)
                .hint("again when that is done: `skep pool show` says how far it is"));
        }
        let restoring = Restoring::asked(archive, first, self.state.time_ms);
        let mut next = (*known).clone();
        // What kept the first one from coming back says nothing of this one.
        next.guest.problem = None;
        next.guest.restoring = Some(restoring);
        self.put_guest(next);
        Ok(Reply::Done)
    }

    /// Its disk is older than the seat that its agent took last, and whatever was on the newer one is gone: whoever speaks
    /// first from what was brought back is the node's agent.
    fn leave_seat(&mut self, one: &PoolGuest) {
        if let Some(node) = one.node.and_then(|id| self.state.node(id)).cloned() {
            // Placement need not know: no generation, no change.
            self.state.put_node(Node {
                seat: 0,
                ..(*node).clone()
            });
        }
    }

    pub(super) fn forget_guest(&mut self, message: &v1::ForgetGuest) -> Outcome {
        let known = self.guest(&message.id)?;
        if known.guest.phase != Phase::Gone {
            let text = format!("the guest {} is not gone", known.guest.name());
            return Err(Problem::new(Code::Conflict, text));
        }
        // What ran there has ended with its guest.
        if let Some(node) = known.node.and_then(|id| self.state.node(id)).cloned() {
            self.drop_node(&node)?;
        }
        if let Some(token) = known.token {
            self.state.tokens.remove(&token);
        }
        self.remember_departed(&known);
        self.state.guests.remove(&known.guest.id);
        self.changes.push(Change::Guests);
        Ok(Reply::Done)
    }

    /// What proves that copies are of a guest of ours, of one that was there and has a number.
    fn remember_departed(&mut self, one: &PoolGuest) {
        let (Some(vmid), Some(_)) = (one.guest.vmid, &one.guest.identity) else {
            return;
        };
        let its = self.state.departed_of(&one.pool);
        let oldest = its.min_by_key(|it| (it.gone_ms, it.id)).cloned();
        let is_full = self.state.departed_of(&one.pool).count() >= MAX_DEPARTED;
        if let Some(oldest) = oldest.filter(|_| is_full) {
            self.state
                .departed
                .remove(&(oldest.pool.clone(), oldest.id));
        }
        let departed = Departed {
            id: one.guest.id,
            pool: one.pool.clone(),
            vmid,
            gone_ms: self.state.time_ms,
        };
        let key = (departed.pool.clone(), departed.id);
        self.state.departed.insert(key, Arc::new(departed));
    }

    /// The guest whose token this is, once it has proven that it is that very machine.
    pub(super) fn guest_of_token(
        &self,
        token: &JoinToken,
        node: &Node,
    ) -> Result<Option<Arc<PoolGuest>>, Problem> {
        let mut guests = self.state.guests();
        let Some(one) = guests.find(|it| it.token == Some(token.id)).cloned() else {
            return Ok(None);
        };
        let refused = |text: &str| {
            let text = format!(
                "the join token is of the guest {}: {text}",
                one.guest.name()
            );
            Problem::new(Code::Forbidden, text)
                .hint("each guest of a pool gets a token of its own: `skep token create` makes one for any machine")
        };
        let Some(identity) = &one.guest.identity else {
            return Err(refused("it is not known yet"));
        };
        if one.guest.phase >= Phase::Leaving {
            return Err(refused("it is to go"));
        }
        if node.name != one.guest.name() {
            return Err(refused("this node has another name"));
        }
        let machine = &node.facts.machine;
        let mac = identity.mac.to_ascii_lowercase();
        if !machine.macs.contains(&mac) {
            return Err(refused("this machine has no network card of its address"));
        }
        // A container sees its host's.
        if identity.smbios.is_some() && machine.uuid != identity.smbios {
            return Err(refused("this machine has another SMBIOS id"));
        }
        Ok(Some(one))
    }

    /// Its node has joined. What is said of the node by then is its pool's.
    pub(super) fn guest_joined(&mut self, one: &PoolGuest, node: &mut Node) {
        let pool = self.state.guest_pool(&one.pool);
        node.meta = pool.map(|pool| pool.meta.clone()).unwrap_or_default();
        node.meta.insert(POOL.to_owned(), one.pool.clone());
        if let Some(host) = &one.guest.host {
            node.meta.insert(HOST.to_owned(), host.clone());
        }
        let mut next = one.clone();
        next.token = None;
        next.node = Some(node.id);
        next.guest.take(Note::Joined);
        self.put_guest(next);
    }

    /// Whether what is asked of a node by hand is what its guest's way decides.
    pub(super) fn check_stays(&self, node: NodeId) -> Result<(), Problem> {
        let guest = self.state.guest_of(node);
        match guest.is_some_and(|it| it.guest.phase == Phase::Leaving) {
            false => Ok(()),
            true => Err(
                Problem::new(Code::Conflict, "the node leaves together with its guest")
                    .hint("`skep pool scale` makes another one"),
            ),
        }
    }

    fn pool(&self, name: &str) -> Result<Arc<GuestPool>, Problem> {
        self.state.guest_pool(name).cloned().ok_or_else(|| {
            let text = format!("no pool `{}` makes nodes", name.escape_debug());
            Problem::new(Code::NotFound, text)
                .at("pool")
                .hint("`skep pool ls` lists the pools, `skep pool create` makes one")
        })
    }

    pub(super) fn guest(&self, id: &[u8]) -> Result<Arc<PoolGuest>, Problem> {
        let id = GuestId::from_u128(bits("id", id)?);
        let found = self.state.guests.get(&id).cloned();
        found.ok_or_else(|| not_found("guest", id))
    }

    fn put_pool_back(&mut self, pool: GuestPool) {
        let name = pool.name.clone();
        self.state.guest_pools.insert(name, Arc::new(pool));
        self.changes.push(Change::Guests);
    }

    pub(super) fn put_guest(&mut self, one: PoolGuest) {
        self.state.guests.insert(one.guest.id, Arc::new(one));
        if !self.changes.contains(&Change::Guests) {
            self.changes.push(Change::Guests);
        }
    }
}

fn no_provider(name: &str) -> Problem {
    let text = format!("there is no provider `{}`", name.escape_debug());
    Problem::new(Code::NotFound, text)
        .hint("`skep provider ls` lists them, `skep provider set` makes one")
}
