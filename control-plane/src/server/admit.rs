//! Taking in a server that brings a token, from the cluster's side.

use std::time::SystemTime;

use skep_identity::ca::Grant;
use skep_identity::name::Identity;
use skep_identity::seal::SealingKey;
use skep_identity::token::hash_secret;
use skep_model::problem::{Code, Problem};
use skep_model::server::Server;
use skep_proto::convert::{id_bits, id_bytes};
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::Reply;

use crate::peers::JoinServers;
use crate::pki::Terms;
use crate::secrets::Secrets;
use crate::store::Store;

/// Takes servers in, as soon as this one knows the cluster.
pub(super) struct Admission {
    pub(super) store: Store,
    pub(super) secrets: Secrets,
    pub(super) data_key: SealingKey,
    pub(super) terms: Terms,
}

fn refused(error: skep_proto::convert::Error) -> Problem {
    Problem::new(Code::Invalid, error.to_string())
}

#[tonic::async_trait]
impl JoinServers for Admission {
    async fn join(&self, request: v1::JoinServerRequest) -> Result<v1::JoinServerReply, Problem> {
        let view = self.store.read().await?;
        let cluster = view.cluster().ok_or_else(|| {
            Problem::new(Code::Unavailable, "this server is only just joining itself")
                .hint("try again, or join by way of another server")
        })?;
        let missing = || Problem::invalid("server", "the server does not say who it is");
        let server = request.server.ok_or_else(missing)?;
        let server = Server::try_from(server).map_err(refused)?;
        server.check()?;
        let token = id_bits("token", &request.token).map_err(refused)?;
        // Before anything is changed: a request that cannot be signed spends no token.
        let ca = self.secrets.signing_ca(cluster)?;
        let grant = Grant {
            identity: Identity::server(ca.cluster(), server.id),
            addresses: &[],
            lifetime: self.terms.lifetime,
        };
        let certificate_pem = ca
            .issue(&request.csr_pem, &grant, SystemTime::now())
            .map_err(|error| Problem::invalid("csr_pem", error.to_string()))?;
        let command = v1::JoinServer {
            token: id_bytes(token),
            secret_hash: hash_secret(&request.secret).to_vec(),
            server: Some((&server).into()),
            rebuild: request.rebuild,
        };
        // A server that has heard no answer asks again with the same key pair: it is given the same
        // member id then, and its token is spent once.
        let asked = [
            server.id.as_u128().to_be_bytes().as_slice(),
            &[request.rebuild.into()],
        ]
        .concat();
        let store = self.store.with_request(request.csr_pem.as_bytes(), &asked);
        let Reply::Member(member) = store.propose(Kind::JoinServer(command)).await? else {
            let problem = Problem::new(Code::Internal, "the state gave the server no member id");
            return Err(problem);
        };
        tracing::info!(server = %server.id, name = server.name, member, rebuild = request.rebuild, "a server joins");
        let view = self.store.view();
        let cluster = view
            .cluster()
            .map_or_else(String::new, |it| it.trusted_ca_pem());
        Ok(v1::JoinServerReply {
            cluster: id_bytes(ca.cluster().as_u128()),
            member,
            certificate_pem,
            ca_pem: cluster,
            data_key: self.data_key.expose().to_vec(),
            servers: view.servers().map(|server| (&**server).into()).collect(),
        })
    }
}
