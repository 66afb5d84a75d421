//! The state as bytes and back. Ordered maps make the bytes a function of the content.

use std::sync::Arc;

use prost::Message;
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
};
use skep_model::allocation::Allocation;
use skep_model::certificate::{Certificate, Challenge, DnsRecord};
use skep_model::claim::Claim;
use skep_model::deployment::Deployment;
use skep_model::forge::{Connection, ForgeApp, Setup};
use skep_model::guest_pool::{GuestPool, PoolGuest};
use skep_model::id::{AllocationId, ClusterId, DeploymentId, NodeId, ServiceId};
use skep_model::image_push::PushRegistry;
use skep_model::job::JobBook;
use skep_model::maintenance::Maintenance;
use skep_model::network::Pool;
use skep_model::node::Node;
use skep_model::notify::{Notification, Receiver};
use skep_model::polling::Polled;
use skep_model::pool::Departed;
use skep_model::preview::{Preview, Rules};
use skep_model::provider::Provider;
use skep_model::pushed::Pushed;
use skep_model::quarantine::Quarantined;
use skep_model::rebalance::Rebalance;
use skep_model::registry::RegistryLogin;
use skep_model::server::JoinToken;
use skep_model::service::{Release, Service};
use skep_model::settings::{Scope, ScopeSettings};
use skep_model::stack::Stack;
use skep_model::variable::{Sealed, SharedVariables};
use skep_model::webhook::Hook;
use skep_proto::convert::{self, id_bits, id_bytes};
use skep_proto::v1;

use crate::format::format;
use crate::state::{Cluster, Delivery, OtherCa, State};

/// Bytes that are not a state.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not even the message.
    #[error("the snapshot does not decode")]
    Decode(#[from] prost::DecodeError),
    /// It ends within a field.
    #[error("the snapshot ends too early")]
    Short,
    /// A message without meaning.
    #[error("the snapshot does not make sense")]
    Content(#[from] convert::Error),
    /// Written by a newer Skep.
    #[error(
        "the snapshot has format {found}, this build reads up to {}: start the newer version of skep",
        format()
    )]
    Newer {
        /// Its format.
        found: u64,
    },
}

impl From<&Cluster> for v1::Cluster {
    fn from(cluster: &Cluster) -> Self {
        Self {
            id: id_bytes(cluster.id.as_u128()),
            incarnation: cluster.incarnation,
            feature_level: cluster.feature_level,
            ca_cert_pem: cluster.ca_cert_pem.clone(),
            sealed_ca_key: cluster.sealed_ca_key.0.clone(),
            wrapped_data_key: cluster.wrapped_data_key.0.clone(),
            base_domain: cluster.base_domain.clone(),
            admin_token_hash: cluster.admin_token_hash.clone(),
            other_ca: cluster.other_ca.as_ref().map(|other| v1::Ca {
                cert_pem: other.cert_pem.clone(),
                sealed_key: other.sealed_key.0.clone(),
            }),
            other_is_older: cluster.other_ca.as_ref().is_some_and(|ca| ca.is_older),
            next_member: cluster.next_member,
        }
    }
}

impl TryFrom<v1::Cluster> for Cluster {
    type Error = convert::Error;

    fn try_from(message: v1::Cluster) -> Result<Self, convert::Error> {
        Ok(Self {
            id: ClusterId::from_u128(id_bits("cluster", &message.id)?),
            incarnation: message.incarnation,
            feature_level: message.feature_level,
            ca_cert_pem: message.ca_cert_pem,
            sealed_ca_key: Sealed(message.sealed_ca_key),
            wrapped_data_key: Sealed(message.wrapped_data_key),
            base_domain: message.base_domain,
            admin_token_hash: message.admin_token_hash,
            other_ca: message.other_ca.map(|other| OtherCa {
                cert_pem: other.cert_pem,
                sealed_key: Sealed(other.sealed_key),
                is_older: message.other_is_older,
            }),
            next_member: message.next_member,
        })
    }
}

/// The fields of `v1::Snapshot`, written and read one entity at a time: the state as messages would be
/// a second copy of it in memory.
mod tag {
    pub(super) const VERSION: u32 = 1;
    pub(super) const TIME_MS: u32 = 2;
    pub(super) const INDEX: u32 = 3;
    pub(super) const ROUTES_REVISION: u32 = 4;
    pub(super) const CLUSTER: u32 = 5;
    pub(super) const WORKSPACES: u32 = 6;
    pub(super) const PROJECTS: u32 = 7;
    pub(super) const ENVIRONMENTS: u32 = 8;
    pub(super) const SERVICES: u32 = 9;
    pub(super) const RELEASES: u32 = 10;
    pub(super) const DEPLOYMENTS: u32 = 11;
    pub(super) const ALLOCATIONS: u32 = 12;
    pub(super) const NODES: u32 = 13;
    pub(super) const TOKENS: u32 = 14;
    pub(super) const DELIVERIES: u32 = 15;
    pub(super) const SERVERS: u32 = 16;
    pub(super) const REMEMBERED: u32 = 17;
    pub(super) const QUARANTINE: u32 = 18;
    pub(super) const DISMISSED: u32 = 19;
    pub(super) const FORGOTTEN: u32 = 20;
    pub(super) const JOBS: u32 = 40;
    pub(super) const JOB_BOOKS: u32 = 41;
    pub(super) const SCOPES: u32 = 44;
    pub(super) const POOLS: u32 = 45;
    pub(super) const REBALANCE: u32 = 46;
    pub(super) const REGISTRIES: u32 = 50;
    pub(super) const CLAIMS: u32 = 110;
    pub(super) const ISSUER: u32 = 120;
    pub(super) const CERTIFICATES: u32 = 121;
    pub(super) const CHALLENGES: u32 = 122;
    pub(super) const PRIVATE_ADDRESSES: u32 = 130;
    pub(super) const PRIVATE_POOL: u32 = 131;
    pub(super) const DNS_RECORDS: u32 = 140;
    pub(super) const LOCAL_CA: u32 = 141;
    pub(super) const TCP_PORTS: u32 = 155;
    pub(super) const DOMAIN_PROOF: u32 = 180;
    pub(super) const HOOKS: u32 = 190;
    pub(super) const SHARED_VARIABLES: u32 = 200;
    pub(super) const RECEIVERS: u32 = 201;
    pub(super) const NOTIFICATIONS: u32 = 202;
    pub(super) const POLLED: u32 = 205;
    pub(super) const PREVIEW_RULES: u32 = 210;
    pub(super) const PREVIEWS: u32 = 211;
    pub(super) const FORGES: u32 = 220;
    pub(super) const PUSHED: u32 = 230;
    pub(super) const PUSH_REGISTRIES: u32 = 250;
    pub(super) const STACKS: u32 = 270;
    pub(super) const FORGE_APPS: u32 = 275;
    pub(super) const FORGE_SETUPS: u32 = 276;
    pub(super) const PROVIDERS: u32 = 280;
    pub(super) const GUEST_POOLS: u32 = 281;
    pub(super) const GUESTS: u32 = 282;
    pub(super) const DEPARTED: u32 = 283;
    pub(super) const MAINTENANCES: u32 = 294;
}

/// Appends fields in the order of their numbers, as the whole message would be encoded.
#[derive(Default)]
struct Writer {
    out: Vec<u8>,
}

impl Writer {
    fn number(&mut self, tag: u32, value: u64) {
        if value != 0 {
            encode_key(tag, WireType::Varint, &mut self.out);
            encode_varint(value, &mut self.out);
        }
    }

    fn message(&mut self, tag: u32, message: &impl Message) {
        encode_key(tag, WireType::LengthDelimited, &mut self.out);
        encode_varint(message.encoded_len() as u64, &mut self.out);
        message.encode_raw(&mut self.out);
    }

    fn text(&mut self, tag: u32, text: &str) {
        encode_key(tag, WireType::LengthDelimited, &mut self.out);
        encode_varint(text.len() as u64, &mut self.out);
        self.out.extend(text.as_bytes());
    }

    fn all<'a, T: 'a, M: Message + From<&'a T>>(
        &mut self,
        tag: u32,
        entities: impl Iterator<Item = &'a Arc<T>>,
    ) {
        for entity in entities {
            self.message(tag, &M::from(entity));
        }
    }
}

impl State {
    /// The state as the bytes of a snapshot (`v1::Snapshot`). Its format is the cluster's feature
    /// level, so that every server of the cluster can read it.
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Writer::default();
        to.number(tag::VERSION, u64::from(self.feature_level()));
        to.number(tag::TIME_MS, self.time_ms);
        to.number(tag::INDEX, self.index);
        to.number(tag::ROUTES_REVISION, self.routes_revision);
        if let Some(cluster) = &self.cluster {
            to.message(tag::CLUSTER, &v1::Cluster::from(&**cluster));
        }
        to.all::<_, v1::Workspace>(tag::WORKSPACES, self.workspaces.values());
        to.all::<_, v1::Project>(tag::PROJECTS, self.projects.values());
        to.all::<_, v1::Environment>(tag::ENVIRONMENTS, self.environments.values());
        to.all::<_, v1::Service>(tag::SERVICES, self.services.values());
        to.all::<_, v1::Release>(tag::RELEASES, self.releases.values());
        to.all::<_, v1::Deployment>(tag::DEPLOYMENTS, self.deployments.values());
        to.all::<_, v1::Allocation>(tag::ALLOCATIONS, self.allocations.values());
        to.all::<_, v1::Node>(tag::NODES, self.nodes.values());
        to.all::<_, v1::JoinToken>(tag::TOKENS, self.tokens.values());
        for (key, delivery) in &self.deliveries {
            let message = v1::Delivery {
                key: key.clone(),
                deployment: id_bytes(delivery.deployment.as_u128()),
                at_ms: delivery.at_ms,
            };
            to.message(tag::DELIVERIES, &message);
        }
        to.all::<_, v1::Server>(tag::SERVERS, self.servers.values());
        for message in self.keys.messages() {
            to.message(tag::REMEMBERED, &message);
        }
        to.all::<_, v1::Quarantined>(tag::QUARANTINE, self.quarantine.values());
        for (node, allocation) in &self.dismissed {
            let message = v1::Dismissed {
                node: id_bytes(node.as_u128()),
                allocation: id_bytes(allocation.as_u128()),
            };
            to.message(tag::DISMISSED, &message);
        }
        to.number(tag::FORGOTTEN, self.keys.forgotten());
        to.all::<_, v1::Job>(tag::JOBS, self.jobs.values());
        for (service, book) in &self.job_books {
            to.message(tag::JOB_BOOKS, &v1::JobBook::from((*service, &**book)));
        }
        for (scope, settings) in &self.scopes {
            to.message(tag::SCOPES, &v1::ScopeSettings::from((*scope, &**settings)));
        }
        to.all::<_, v1::Pool>(tag::POOLS, self.pools.values());
        if *self.rebalance != Rebalance::default() {
            to.message(tag::REBALANCE, &v1::Rebalance::from(&*self.rebalance));
        }
        to.all::<_, v1::RegistryLogin>(tag::REGISTRIES, self.registries.values());
        to.all::<_, v1::Hook>(tag::HOOKS, self.hooks.values());
        to.all::<_, v1::Claim>(tag::CLAIMS, self.claims.values());
        to.all::<_, v1::Issuer>(tag::ISSUER, self.issuer.iter());
        to.all::<_, v1::Certificate>(tag::CERTIFICATES, self.certificates.values());
        to.all::<_, v1::Challenge>(tag::CHALLENGES, self.challenges.values());
        to.all::<_, v1::PrivateAddress>(tag::PRIVATE_ADDRESSES, self.addresses.values());
        if self.private_pool != Pool::default() {
            to.text(tag::PRIVATE_POOL, &self.private_pool.to_string());
        }
        to.all::<_, v1::DnsRecord>(tag::DNS_RECORDS, self.dns_records.values());
        to.all::<_, v1::LocalCa>(tag::LOCAL_CA, self.local_ca.iter());
        if let Some(ports) = self.tcp_ports {
            to.message(tag::TCP_PORTS, &v1::TcpPorts::from(ports));
        }
        if self.domain_proof {
            to.message(tag::DOMAIN_PROOF, &v1::DomainProof {});
        }
        to.all::<_, v1::SharedVariables>(tag::SHARED_VARIABLES, self.shared_variables.values());
        to.all::<_, v1::Receiver>(tag::RECEIVERS, self.receivers.values());
        to.all::<_, v1::Notification>(tag::NOTIFICATIONS, self.notifications.values());
        to.all::<_, v1::Polled>(tag::POLLED, self.polled.values());
        to.all::<_, v1::PreviewRules>(tag::PREVIEW_RULES, self.preview_rules.values());
        to.all::<_, v1::Preview>(tag::PREVIEWS, self.previews.values());
        to.all::<_, v1::ForgeConnection>(tag::FORGES, self.forges.values());
        to.all::<_, v1::Pushed>(tag::PUSHED, self.pushed.values());
        to.all::<_, v1::PushRegistry>(tag::PUSH_REGISTRIES, self.push_registries.values());
        to.all::<_, v1::Stack>(tag::STACKS, self.stacks.values());
        to.all::<_, v1::ForgeApp>(tag::FORGE_APPS, self.forge_apps.values());
        to.all::<_, v1::ForgeSetup>(tag::FORGE_SETUPS, self.forge_setups.values());
        to.all::<_, v1::Provider>(tag::PROVIDERS, self.providers.values());
        to.all::<_, v1::GuestPool>(tag::GUEST_POOLS, self.guest_pools.values());
        to.all::<_, v1::PoolGuest>(tag::GUESTS, self.guests.values());
        to.all::<_, v1::DepartedGuest>(tag::DEPARTED, self.departed.values());
        to.all::<_, v1::Maintenance>(tag::MAINTENANCES, self.maintenances.values());
        to.out
    }

    /// The state that these bytes are a snapshot of.
    ///
    /// # Errors
    /// Damaged bytes, or a newer format.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        Self::decode_beside(bytes, &Self::default())
    }

    /// [`State::decode`] where an older state is still in use: what did not change since is not held
    /// a second time, both states share it.
    ///
    /// # Errors
    /// As [`State::decode`].
    pub fn decode_beside(mut bytes: &[u8], old: &Self) -> Result<Self, Error> {
        let mut state = Self::default();
        while !bytes.is_empty() {
            let (tag, wire) = decode_key(&mut bytes)?;
            match wire {
                WireType::Varint => {
                    let value = decode_varint(&mut bytes)?;
                    state.take_number(tag, value)?;
                }
                WireType::LengthDelimited => {
                    let size = decode_varint(&mut bytes)?;
                    let size = usize::try_from(size).unwrap_or(usize::MAX);
                    let (field, rest) = bytes.split_at_checked(size).ok_or(Error::Short)?;
                    bytes = rest;
                    state.take_message(tag, field, old)?;
                }
                other => skip_field(other, tag, &mut bytes, DecodeContext::default())?,
            }
        }
        state.index_generated();
        // A snapshot of before there were claims: whose hosts are follows from the services.
        state.derive_claims();
        state.derive_addresses();
        Ok(state)
    }

    fn take_number(&mut self, tag: u32, value: u64) -> Result<(), Error> {
        match tag {
            tag::VERSION if value > u64::from(format()) => {
                return Err(Error::Newer { found: value });
            }
            tag::TIME_MS => self.time_ms = value,
            tag::INDEX => self.index = value,
            tag::ROUTES_REVISION => self.routes_revision = value,
            tag::FORGOTTEN => self.keys.restore_forgotten(value),
            _ => {}
        }
        Ok(())
    }

    fn take_message(&mut self, tag: u32, field: &[u8], old: &Self) -> Result<(), Error> {
        match tag {
            tag::CLUSTER => {
                self.cluster = Some(Arc::new(read::<v1::Cluster, _>(field)?));
            }
            tag::WORKSPACES => self.put_workspace(read::<v1::Workspace, _>(field)?),
            tag::PROJECTS => self.put_project(read::<v1::Project, _>(field)?),
            tag::ENVIRONMENTS => self.put_environment(read::<v1::Environment, _>(field)?),
            tag::SERVICES => {
                let service: Service = read::<v1::Service, _>(field)?;
                self.put_service(shared(old.services.get(&service.id), service));
            }
            tag::RELEASES => {
                let release: Release = read::<v1::Release, _>(field)?;
                let key = (release.service, release.number);
                let release = shared(old.releases.get(&key), release);
                self.releases.insert(key, release);
            }
            tag::DEPLOYMENTS => {
                let deployment: Deployment = read::<v1::Deployment, _>(field)?;
                self.put_deployment(shared(old.deployments.get(&deployment.id), deployment));
            }
            tag::ALLOCATIONS => {
                let allocation: Allocation = read::<v1::Allocation, _>(field)?;
                self.put_allocation(shared(old.allocations.get(&allocation.id), allocation));
            }
            tag::NODES => {
                let node: Node = read::<v1::Node, _>(field)?;
                self.put_node(shared(old.nodes.get(&node.id), node));
            }
            tag::TOKENS => {
                let token: JoinToken = read::<v1::JoinToken, _>(field)?;
                self.tokens.insert(token.id, Arc::new(token));
            }
            tag::DELIVERIES => {
                let message = v1::Delivery::decode(field)?;
                let deployment = id_bits("deployment", &message.deployment)?;
                let delivery = Delivery {
                    deployment: DeploymentId::from_u128(deployment),
                    at_ms: message.at_ms,
                };
                self.put_delivery(message.key, delivery);
            }
            tag::SERVERS => self.put_server(read::<v1::Server, _>(field)?),
            tag::REMEMBERED => self.keys.restore(v1::Remembered::decode(field)?)?,
            tag::QUARANTINE => {
                let entry: Quarantined = read::<v1::Quarantined, _>(field)?;
                let key = (entry.node, entry.allocation);
                self.quarantine.insert(key, Arc::new(entry));
            }
            tag::JOBS => self.put_job(read::<v1::Job, _>(field)?),
            tag::JOB_BOOKS => {
                let (service, book): (ServiceId, JobBook) = read::<v1::JobBook, _>(field)?;
                self.job_books.insert(service, Arc::new(book));
            }
            tag::SCOPES => {
                let (scope, settings): (Scope, ScopeSettings) =
                    read::<v1::ScopeSettings, _>(field)?;
                self.scopes.insert(scope, Arc::new(settings));
            }
            tag::POOLS => {
                let pool: skep_model::settings::Pool = read::<v1::Pool, _>(field)?;
                self.pools.insert(pool.name.clone(), Arc::new(pool));
            }
            tag::HOOKS => {
                let hook: Hook = read::<v1::Hook, _>(field)?;
                self.hooks.insert(hook.id, Arc::new(hook));
            }
            tag::REGISTRIES => {
                let login: RegistryLogin = read::<v1::RegistryLogin, _>(field)?;
                self.registries.insert(login.host.clone(), Arc::new(login));
            }
            tag::CLAIMS => {
                let claim: Claim = read::<v1::Claim, _>(field)?;
                self.claims.insert(claim.host.clone(), Arc::new(claim));
            }
            tag::ISSUER => self.issuer = Some(Arc::new(read::<v1::Issuer, _>(field)?)),
            tag::CERTIFICATES => {
                let certificate: Certificate = read::<v1::Certificate, _>(field)?;
                let kept = shared(old.certificates.get(&certificate.name), certificate);
                self.certificates.insert(kept.name.clone(), kept);
            }
            tag::CHALLENGES => {
                let challenge: Challenge = read::<v1::Challenge, _>(field)?;
                self.challenges
                    .insert(challenge.token.clone(), Arc::new(challenge));
            }
            tag::LOCAL_CA => self.local_ca = Some(Arc::new(read::<v1::LocalCa, _>(field)?)),
            tag::DNS_RECORDS => {
                let record: DnsRecord = read::<v1::DnsRecord, _>(field)?;
                self.dns_records.insert(record.key(), Arc::new(record));
            }
            tag::PRIVATE_ADDRESSES => {
                self.put_address(read::<v1::PrivateAddress, _>(field)?);
            }
            tag::PRIVATE_POOL => {
                let text = std::str::from_utf8(field).ok();
                let pool = text.and_then(|text| text.parse().ok());
                let error = convert::Error {
                    field: "private_pool",
                };
                self.private_pool = pool.ok_or(error)?;
            }
            tag::DOMAIN_PROOF => self.domain_proof = true,
            tag::SHARED_VARIABLES => {
                let shared: SharedVariables = read::<v1::SharedVariables, _>(field)?;
                self.shared_variables
                    .insert(shared.environment, Arc::new(shared));
            }
            tag::RECEIVERS => {
                let receiver: Receiver = read::<v1::Receiver, _>(field)?;
                self.receivers.insert(receiver.id, Arc::new(receiver));
            }
            tag::NOTIFICATIONS => {
                let notification: Notification = read::<v1::Notification, _>(field)?;
                let key = (notification.receiver, notification.number);
                self.put_notification(shared(old.notifications.get(&key), notification));
            }
            tag::POLLED => {
                let polled: Polled = read::<v1::Polled, _>(field)?;
                self.polled.insert(polled.service, Arc::new(polled));
            }
            tag::PREVIEW_RULES => {
                let rules: Rules = read::<v1::PreviewRules, _>(field)?;
                self.preview_rules.insert(rules.base, Arc::new(rules));
            }
            tag::PREVIEWS => {
                let preview: Preview = read::<v1::Preview, _>(field)?;
                self.previews.insert(preview.environment, Arc::new(preview));
            }
            tag::STACKS => {
                let stack: Stack = read::<v1::Stack, _>(field)?;
                self.stacks.insert(stack.environment, Arc::new(stack));
            }
            tag::FORGES => {
                let connection: Connection = read::<v1::ForgeConnection, _>(field)?;
                let key = (connection.workspace, connection.host.clone());
                self.forges.insert(key, Arc::new(connection));
            }
            tag::PUSHED => {
                let pushed: Pushed = read::<v1::Pushed, _>(field)?;
                self.pushed.insert(pushed.service, Arc::new(pushed));
            }
            tag::PUSH_REGISTRIES => {
                let registry: PushRegistry = read::<v1::PushRegistry, _>(field)?;
                let key = registry.workspace;
                self.push_registries.insert(key, Arc::new(registry));
            }
            tag::FORGE_APPS => {
                let app: ForgeApp = read::<v1::ForgeApp, _>(field)?;
                self.forge_apps.insert(app.id, Arc::new(app));
            }
            tag::FORGE_SETUPS => {
                let setup: Setup = read::<v1::ForgeSetup, _>(field)?;
                self.forge_setups
                    .insert(setup.digest.clone(), Arc::new(setup));
            }
            tag::PROVIDERS => {
                let provider: Provider = read::<v1::Provider, _>(field)?;
                self.providers
                    .insert(provider.name.clone(), Arc::new(provider));
            }
            tag::GUEST_POOLS => {
                let pool: GuestPool = read::<v1::GuestPool, _>(field)?;
                self.guest_pools.insert(pool.name.clone(), Arc::new(pool));
            }
            tag::GUESTS => {
                let one: PoolGuest = read::<v1::PoolGuest, _>(field)?;
                let key = one.guest.id;
                self.guests.insert(key, shared(old.guests.get(&key), one));
            }
            tag::DEPARTED => {
                let one: Departed = read::<v1::DepartedGuest, _>(field)?;
                let key = (one.pool.clone(), one.id);
                self.departed
                    .insert(key.clone(), shared(old.departed.get(&key), one));
            }
            tag::MAINTENANCES => {
                let one: Maintenance = read::<v1::Maintenance, _>(field)?;
                self.maintenances.insert(one.host.clone(), Arc::new(one));
            }
            tag::TCP_PORTS => self.tcp_ports = Some(read::<v1::TcpPorts, _>(field)?),
            tag::REBALANCE => self.rebalance = Arc::new(read::<v1::Rebalance, _>(field)?),
            tag::DISMISSED => {
                let message = v1::Dismissed::decode(field)?;
                let node = NodeId::from_u128(id_bits("node", &message.node)?);
                let allocation = id_bits("allocation", &message.allocation)?;
                let key = (node, AllocationId::from_u128(allocation));
                self.dismissed.insert(key);
            }
            _ => {}
        }
        Ok(())
    }
}

/// The old entity where the new one is the same.
fn shared<T: PartialEq>(old: Option<&Arc<T>>, new: T) -> Arc<T> {
    match old {
        Some(old) if **old == new => Arc::clone(old),
        _ => Arc::new(new),
    }
}

fn read<M, T>(field: &[u8]) -> Result<T, Error>
where
    M: Message + Default,
    T: TryFrom<M, Error = convert::Error>,
{
    Ok(T::try_from(M::decode(field)?)?)
}
