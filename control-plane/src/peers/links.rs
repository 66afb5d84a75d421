//! Dialing other servers: the own certificate is shown, and nobody is talked to but the very server
//! that the directory names, whoever answers at its address.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use skep_identity::grpc;
use skep_identity::name::Subject;
use skep_identity::tls::{ALPN_GRPC, Expected, Reloadable, client_config};
use skep_proto::v1::servers_client::ServersClient;
use tonic::Status;
use tonic::transport::Channel;

use super::MAX_WIRE_BYTES;
use super::directory::{Contact, Directory};

/// Connections that calls share; Raft messages and snapshots have their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    /// Short messages that somebody waits for.
    Calls,
    /// Logs and uploads: what is large must not hold up what is short.
    Bulk,
}

type Open = BTreeMap<(u64, Lane), (Contact, Channel)>;

/// The ways to the other servers. Cheap to clone.
#[derive(Clone)]
pub struct Links {
    own: Arc<Reloadable>,
    directory: Directory,
    open: Arc<Mutex<Open>>,
}

impl Links {
    /// With this server's certificate, to the servers in `directory`.
    pub fn new(own: Arc<Reloadable>, directory: Directory) -> Self {
        Self {
            own,
            directory,
            open: Arc::default(),
        }
    }

    /// Who is who.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// A client over the connection that all calls of a lane share.
    pub(super) fn shared(
        &self,
        contact: &Contact,
        lane: Lane,
    ) -> Result<ServersClient<Channel>, Status> {
        let key = (contact.member, lane);
        let mut open = self.open.lock();
        if let Some((of, channel)) = open.get(&key)
            && of.is_same_place(contact)
        {
            return Ok(client(channel.clone()));
        }
        open.retain(|(member, _), _| self.directory.get(*member).is_some());
        let channel = self.dial(contact)?;
        open.insert(key, (contact.clone(), channel.clone()));
        Ok(client(channel))
    }

    /// A client over a connection of its own.
    pub(super) fn fresh(&self, contact: &Contact) -> Result<ServersClient<Channel>, Status> {
        self.dial(contact).map(client)
    }

    fn dial(&self, contact: &Contact) -> Result<Channel, Status> {
        let expected = Expected::Exactly(Subject::Server(contact.server));
        let tls = client_config(&self.own, expected, ALPN_GRPC);
        grpc::channel(&contact.address, tls).map_err(|error| Status::unavailable(error.to_string()))
    }
}

fn client(channel: Channel) -> ServersClient<Channel> {
    ServersClient::new(channel)
        .max_decoding_message_size(MAX_WIRE_BYTES)
        .max_encoding_message_size(MAX_WIRE_BYTES)
}
