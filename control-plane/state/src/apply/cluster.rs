//! What is true of the cluster as a whole: its founding, feature level, CA and incarnation.

use std::sync::Arc;

use skep_model::id::ClusterId;
use skep_model::problem::{Code, Problem};
use skep_model::server::Server;
use skep_model::variable::Sealed;
use skep_proto::v1;
use skep_proto::v1::rotate_ca::Step;

use super::{Context, Outcome, Reply, bits, missing, understood};
use crate::change::Change;
use crate::state::{Cluster, FIRST_MEMBER, OtherCa, State};

impl State {
    /// Whether every server has said that it understands `level`.
    ///
    /// # Errors
    /// Names those that have not.
    pub fn check_level(&self, level: u32) -> Result<(), Problem> {
        let behind: Vec<&str> = self
            .servers()
            .filter(|server| server.feature_level < level)
            .map(|server| server.name.as_str())
            .collect();
        if behind.is_empty() {
            return Ok(());
        }
        let text = format!(
            "not every server understands feature level {level}: {}",
            behind.join(", ")
        );
        Err(Problem::new(Code::Conflict, text)
            .at("level")
            .hint("upgrade these servers first"))
    }
}

impl Context<'_> {
    /// `level`: what the command says that it needs, which is its proposer's newest.
    pub(super) fn init_cluster(&mut self, message: v1::InitCluster, level: u32) -> Outcome {
        if self.state.cluster.is_some() {
            return Err(Problem::new(Code::Conflict, "the cluster exists already"));
        }
        let workspace = understood(message.workspace.ok_or_else(|| missing("workspace"))?)?;
        let id = ClusterId::from_u128(bits("cluster", &message.cluster)?);
        let server = message.server.map(understood::<_, Server>).transpose()?;
        if let Some(server) = &server {
            server.check()?;
        }
        let cluster = Cluster {
            id,
            incarnation: 1,
            feature_level: level,
            ca_cert_pem: message.ca_cert_pem,
            sealed_ca_key: Sealed(message.sealed_ca_key),
            wrapped_data_key: Sealed(message.wrapped_data_key),
            base_domain: message.base_domain,
            admin_token_hash: message.admin_token_hash,
            other_ca: None,
            next_member: 0,
        };
        self.put_cluster(cluster);
        self.state.put_workspace(workspace);
        if let Some(server) = server {
            self.put_server(Server {
                member: FIRST_MEMBER,
                joined_ms: self.state.time_ms,
                ..server
            });
        }
        Ok(Reply::Done)
    }

    pub(super) fn set_feature_level(&mut self, message: &v1::SetFeatureLevel) -> Outcome {
        let cluster = self.cluster()?;
        let (now, level) = (cluster.feature_level, message.level);
        if level == now {
            return Ok(Reply::Done);
        }
        if level < now {
            let text = format!("the cluster is at feature level {now}, and no level is ever left");
            return Err(Problem::new(Code::Conflict, text).at("level"));
        }
        self.state.check_level(level)?;
        self.put_cluster(Cluster {
            feature_level: level,
            ..(*cluster).clone()
        });
        self.state.derive_claims();
        self.state.derive_addresses();
        Ok(Reply::Done)
    }

    pub(super) fn rotate_ca(&mut self, message: v1::RotateCa) -> Outcome {
        let cluster = (*self.cluster()?).clone();
        let other = cluster.other_ca.clone();
        let out_of_turn = |text: &str| Err(Problem::new(Code::Conflict, text));
        let next = match (message.step.ok_or_else(|| missing("step"))?, other) {
            (Step::Begin(ca), None) => {
                if ca.cert_pem.is_empty() || ca.sealed_key.is_empty() {
                    return Err(missing("begin"));
                }
                let other_ca = Some(OtherCa {
                    cert_pem: ca.cert_pem,
                    sealed_key: Sealed(ca.sealed_key),
                    is_older: false,
                });
                Cluster {
                    other_ca,
                    ..cluster
                }
            }
            (Step::Activate(_), Some(newer)) if !newer.is_older => {
                let other_ca = Some(OtherCa {
                    cert_pem: cluster.ca_cert_pem.clone(),
                    sealed_key: cluster.sealed_ca_key.clone(),
                    is_older: true,
                });
                Cluster {
                    ca_cert_pem: newer.cert_pem,
                    sealed_ca_key: newer.sealed_key,
                    other_ca,
                    ..cluster
                }
            }
            (Step::Finish(_), Some(older)) if older.is_older => Cluster {
                other_ca: None,
                ..cluster
            },
            (Step::Begin(_), Some(_)) => {
                return out_of_turn("the CA is being replaced already: finish that first");
            }
            (Step::Activate(_) | Step::Finish(_), None) => {
                return out_of_turn("no other CA is trusted: the replacement has not begun");
            }
            (Step::Activate(_), Some(_)) => return out_of_turn("the new CA signs already"),
            (Step::Finish(_), Some(_)) => {
                return out_of_turn("the new CA does not sign yet: activate it first");
            }
        };
        self.put_cluster(next);
        Ok(Reply::Done)
    }

    pub(super) fn raise_incarnation(&mut self, message: v1::RaiseIncarnation) -> Outcome {
        let cluster = (*self.cluster()?).clone();
        if message.incarnation <= cluster.incarnation {
            let text = format!(
                "the cluster is in incarnation {}, and only a higher one comes after",
                cluster.incarnation
            );
            return Err(Problem::new(Code::Conflict, text).at("incarnation"));
        }
        let server: Server = understood(message.server.ok_or_else(|| missing("server"))?)?;
        server.check()?;
        if server.member == 0 {
            return Err(missing("member"));
        }
        let joined_ms = self
            .state
            .server(server.id)
            .map_or(self.state.time_ms, |known| known.joined_ms);
        // Whoever comes back from the older incarnation has a history of its own: it must join anew.
        let known: Vec<_> = self.state.servers.keys().copied().collect();
        for id in known {
            self.state.remove_server(id);
            self.changes.push(Change::Server(id));
        }
        self.put_cluster(Cluster {
            incarnation: message.incarnation,
            next_member: self.state.next_member().max(server.member + 1),
            ..cluster
        });
        self.put_server(Server {
            joined_ms,
            ..server
        });
        Ok(Reply::Done)
    }

    pub(super) fn cluster(&self) -> Result<Arc<Cluster>, Problem> {
        self.state
            .cluster
            .clone()
            .ok_or_else(|| Problem::new(Code::Conflict, "there is no cluster yet"))
    }

    fn put_cluster(&mut self, cluster: Cluster) {
        self.state.cluster = Some(Arc::new(cluster));
        self.changes.push(Change::Cluster);
    }
}
