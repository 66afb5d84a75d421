use std::time::{Duration, SystemTime};

use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::*;
use crate::keypair::Credentials;
use crate::testing::{Cluster, HOUR};

type Served = server::TlsStream<DuplexStream>;
type Dialed = client::TlsStream<DuplexStream>;

/// Connects the two; both sides have to agree (a client hears of its refusal only by reading).
async fn connect(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
) -> Result<(Served, Dialed), String> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("localhost").expect("name");
    let dial = async {
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        let mut greeting = [0; 2];
        stream.read_exact(&mut greeting).await?;
        Ok::<_, std::io::Error>(stream)
    };
    let serve = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.write_all(b"hi").await?;
        stream.flush().await?;
        Ok::<_, std::io::Error>(stream)
    };
    match tokio::join!(serve, dial) {
        (Ok(served), Ok(dialed)) => Ok((served, dialed)),
        (served, dialed) => Err(format!(
            "server: {:?}; client: {:?}",
            served.err(),
            dialed.err()
        )),
    }
}

fn required(credentials: &Arc<Reloadable>) -> Arc<ServerConfig> {
    server_config(credentials, ClientAuth::Required, ALPN_GRPC)
}

fn to(credentials: &Arc<Reloadable>, expected: Expected) -> Arc<ClientConfig> {
    client_config(credentials, expected, ALPN_GRPC)
}

const A_SERVER: Expected = Expected::Role(Role::Server);

async fn refused(server: Arc<ServerConfig>, client: Arc<ClientConfig>, why: &str) {
    let error = connect(server, client).await.expect_err("must be refused");
    assert!(error.contains(why), "expected `{why}` in: {error}");
}

#[tokio::test]
async fn members_of_a_cluster_know_each_other_by_name() {
    let cluster = Cluster::new(1);
    let (server, node) = (cluster.server(7), cluster.node(8));
    let (served, dialed) = connect(required(&server), to(&node, A_SERVER))
        .await
        .expect("connect");
    assert_eq!(
        peer_identity(served.get_ref().1),
        Some(cluster.node_identity(8))
    );
    assert_eq!(
        peer_identity(dialed.get_ref().1),
        Some(cluster.server_identity(7))
    );
    let version = served.get_ref().1.protocol_version();
    assert_eq!(version, Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(served.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
}

#[tokio::test]
async fn clients_insist_on_whom_they_expect() {
    let cluster = Cluster::new(1);
    let (server, node) = (cluster.server(7), cluster.node(8));
    refused(required(&cluster.node(9)), to(&node, A_SERVER), "Role").await;
    refused(
        required(&server),
        to(&node, Expected::Role(Role::Node)),
        "Role",
    )
    .await;
    let exactly = |id| Expected::Exactly(cluster.server_identity(id).subject);
    connect(required(&server), to(&node, exactly(7)))
        .await
        .expect("the right one");
    refused(required(&server), to(&node, exactly(6)), "Subject").await;
}

#[tokio::test]
async fn other_clusters_are_refused_by_both_sides() {
    let (ours, theirs) = (Cluster::new(1), Cluster::new(2));
    refused(
        required(&theirs.server(7)),
        to(&ours.node(8), A_SERVER),
        "UnknownIssuer",
    )
    .await;

    // A client that does not check, to see the server's own verdict.
    let stranger = theirs.node(8);
    let mut lax = pinned_client_config(ours.ca.fingerprint(), ALPN_GRPC)
        .as_ref()
        .clone();
    lax.client_auth_cert_resolver = to(&stranger, A_SERVER).client_auth_cert_resolver.clone();
    let error =
        "server: Some(Custom { kind: InvalidData, error: InvalidCertificate(UnknownIssuer) })";
    refused(required(&ours.server(7)), Arc::new(lax), error).await;
}

#[tokio::test]
async fn trusting_two_cas_does_not_merge_two_clusters() {
    let verdict = |side| {
        format!(
            "{side}: Some(Custom {{ kind: InvalidData, error: InvalidCertificate(Other(OtherError(Cluster"
        )
    };
    // Trust both CAs, as during a merge gone wrong: the name alone must tell them apart.
    let (ours, theirs) = (Cluster::new(1), Cluster::new(2));
    let both = format!("{}{}", ours.ca.cert_pem(), theirs.ca.cert_pem());
    let trusting = |credentials: Credentials| {
        Reloadable::new(&Credentials {
            ca_pem: both.clone(),
            ..credentials
        })
        .expect("both")
    };
    let server = trusting(ours.credentials(ours.server_identity(7)));
    let node = trusting(theirs.credentials(theirs.node_identity(8)));
    refused(required(&server), to(&node, A_SERVER), &verdict("client")).await;
    let mut lax = pinned_client_config(ours.ca.fingerprint(), ALPN_GRPC)
        .as_ref()
        .clone();
    lax.client_auth_cert_resolver = to(&node, A_SERVER).client_auth_cert_resolver.clone();
    refused(required(&server), Arc::new(lax), &verdict("server")).await;
}

#[tokio::test]
async fn without_a_certificate_only_where_that_is_allowed() {
    let cluster = Cluster::new(1);
    let server = cluster.server(7);
    let pinned = pinned_client_config(cluster.ca.fingerprint(), ALPN_HTTPS);
    refused(required(&server), pinned.clone(), "NoCertificatesPresented").await;
    let optional = || server_config(&server, ClientAuth::Optional, ALPN_HTTPS);
    let (served, _dialed) = connect(optional(), pinned).await.expect("allowed");
    assert_eq!(peer_identity(served.get_ref().1), None);

    // Optional never means unverified.
    let mut lax = pinned_client_config(cluster.ca.fingerprint(), ALPN_HTTPS)
        .as_ref()
        .clone();
    let stranger = Cluster::new(2).node(8);
    lax.client_auth_cert_resolver = to(&stranger, A_SERVER).client_auth_cert_resolver.clone();
    refused(optional(), Arc::new(lax), "UnknownIssuer").await;
}

#[tokio::test]
async fn a_pin_accepts_servers_of_its_cluster_alone() {
    let (ours, theirs) = (Cluster::new(1), Cluster::new(1));
    let optional = |who: &Arc<Reloadable>| server_config(who, ClientAuth::Optional, ALPN_HTTPS);
    let pinned = || pinned_client_config(ours.ca.fingerprint(), ALPN_HTTPS);
    connect(optional(&ours.server(7)), pinned())
        .await
        .expect("ours");
    refused(optional(&theirs.server(7)), pinned(), "Fingerprint").await;
    refused(optional(&ours.node(7)), pinned(), "Role").await;

    // Another CA's leaf beside the pinned CA's certificate: the CA is public, its signature is not.
    let mut config = optional(&theirs.server(7)).as_ref().clone();
    let foreign = theirs.server(7).current();
    let pinned_ca = ours.server(7).current().as_server.cert[1].clone();
    let chain = vec![foreign.as_client.cert[0].clone(), pinned_ca];
    let forged = rustls::sign::CertifiedKey::new(chain, foreign.as_client.key.clone());
    config.cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(forged));
    refused(Arc::new(config), pinned(), "InvalidCertificate").await;
}

#[tokio::test]
async fn replaced_credentials_are_used_from_the_next_connection_on() {
    let cluster = Cluster::new(1);
    let (server, node) = (cluster.server(7), cluster.node(8));
    let (served_by, dialed_by) = (required(&server), to(&node, A_SERVER));
    let connect = || connect(served_by.clone(), dialed_by.clone());
    let certificates = |(served, dialed): &(Served, Dialed)| {
        let leaf = |certificates: Option<&[_]>| certificates.expect("shown").first().cloned();
        let (served, dialed) = (served.get_ref().1, dialed.get_ref().1);
        (
            leaf(dialed.peer_certificates()),
            leaf(served.peer_certificates()),
        )
    };

    let mut old = connect().await.expect("before");
    server
        .replace(&cluster.credentials(cluster.server_identity(7)))
        .expect("replace");
    node.replace(&cluster.credentials(cluster.node_identity(8)))
        .expect("replace");
    let new = connect().await.expect("after");
    let (before, after) = (certificates(&old), certificates(&new));
    assert_ne!(before.0, after.0, "the server shows its new certificate");
    assert_ne!(before.1, after.1, "and so does the client");

    old.0.write_all(b"alive").await.expect("write");
    old.0.flush().await.expect("flush");
    let mut heard = [0; 5];
    old.1
        .read_exact(&mut heard)
        .await
        .expect("the old connection lives");
    assert_eq!(&heard, b"alive");
}

#[tokio::test]
async fn trust_moves_to_another_ca_without_a_gap() {
    let (old, new) = (Cluster::new(1), Cluster::new(1));
    let (server, node) = (old.server(7), old.node(8));
    let (served_by, dialed_by) = (required(&server), to(&node, A_SERVER));
    let connect = || connect(served_by.clone(), dialed_by.clone());
    let both = format!("{}{}", old.ca.cert_pem(), new.ca.cert_pem());
    let with_both = |credentials: Credentials| Credentials {
        ca_pem: both.clone(),
        ..credentials
    };

    node.replace(&with_both(old.credentials(old.node_identity(8))))
        .expect("node trusts both");
    connect().await.expect("before");
    server
        .replace(&with_both(new.credentials(new.server_identity(7))))
        .expect("new server");
    connect().await.expect("meanwhile");
    server
        .replace(&new.credentials(new.server_identity(7)))
        .expect("old CA is out");
    assert!(
        connect().await.is_err(),
        "the node's old certificate is no longer trusted"
    );
    node.replace(&new.credentials(new.node_identity(8)))
        .expect("new node");
    connect().await.expect("after");
}

#[tokio::test]
async fn expired_certificates_load_but_are_refused_by_peers() {
    let cluster = Cluster::new(1);
    let long_ago = SystemTime::now() - 5 * HOUR;
    let old = Cluster {
        ca: crate::ca::ClusterCa::generate(cluster.ca.cluster(), long_ago).expect("ca"),
    };
    let expired = old.credentials_at(old.node_identity(8), long_ago);
    let node = Reloadable::new(&expired).expect("still loads");
    assert!(!node.validity().contains(SystemTime::now()));
    let server = old.server(7);
    refused(required(&server), to(&node, A_SERVER), "Expired").await;
    let sleeper = Reloadable::new(&old.credentials_at(old.server_identity(7), long_ago));
    refused(
        required(&sleeper.expect("loads")),
        to(&old.node(9), A_SERVER),
        "Expired",
    )
    .await;
}

#[test]
fn credentials_that_do_not_belong_together_are_refused() {
    let (ours, theirs) = (Cluster::new(1), Cluster::new(1));
    let good = ours.credentials(ours.node_identity(8));
    let other = ours.credentials(ours.node_identity(8));
    let mixed = Credentials {
        key_pem: other.key_pem.clone(),
        ..good.clone()
    };
    assert!(matches!(
        Reloadable::new(&mixed),
        Err(LoadError::Mismatch(_))
    ));
    let unsigned = Credentials {
        ca_pem: theirs.ca.cert_pem().to_owned(),
        ..good.clone()
    };
    assert!(matches!(
        Reloadable::new(&unsigned),
        Err(LoadError::Mismatch(_))
    ));
    let empty = Credentials {
        cert_chain_pem: String::new(),
        ..good.clone()
    };
    assert!(matches!(
        Reloadable::new(&empty),
        Err(LoadError::Credentials(_))
    ));

    let used = Reloadable::new(&good).expect("good");
    assert!(used.replace(&mixed).is_err());
    let somebody_else = ours.credentials(ours.node_identity(9));
    assert!(matches!(
        used.replace(&somebody_else),
        Err(LoadError::OtherIdentity { .. })
    ));
    assert_eq!(used.identity(), ours.node_identity(8));
    assert!(used.validity().renew_at() < SystemTime::now() + HOUR - Duration::from_secs(60));
}

#[tokio::test]
async fn an_operator_is_a_client_and_never_a_server() {
    let cluster = Cluster::new(1);
    let (server, operator) = (cluster.server(7), cluster.operator(9));
    let (served, _) = connect(required(&server), to(&operator, A_SERVER))
        .await
        .expect("an operator is let in");
    let identity = peer_identity(served.get_ref().1).expect("named");
    assert_eq!(identity.role(), Role::Operator);
    let an_operator = Expected::Role(Role::Operator);
    let error = connect(required(&operator), to(&server, an_operator)).await;
    error.expect_err("its certificate is no server's");
}

#[tokio::test]
async fn an_endorsed_ca_is_trusted_by_those_who_know_the_old_one_alone() {
    let (old, new) = (Cluster::new(1), Cluster::new(1));
    let both = format!("{}{}", new.ca.cert_pem(), old.ca.cert_pem());
    let mut shown = Credentials {
        ca_pem: both,
        ..new.credentials(new.server_identity(7))
    };
    let pinned = |cluster: &Cluster| pinned_client_config(cluster.ca.fingerprint(), ALPN_GRPC);
    let optional = |shown: &Credentials| {
        let own = Reloadable::new(shown).expect("server");
        server_config(&own, ClientAuth::Optional, ALPN_GRPC)
    };
    let node = old.node(8);
    let error = connect(optional(&shown), pinned(&old)).await;
    error.expect_err("nothing ties the new CA to the old one");
    connect(optional(&shown), to(&node, A_SERVER))
        .await
        .expect_err("here neither");

    let cross = old.ca.endorse(new.ca.cert_pem()).expect("endorses");
    shown.cert_chain_pem.push_str(&cross);
    for client in [pinned(&old), pinned(&new), to(&node, A_SERVER)] {
        connect(optional(&shown), client).await.expect("trusted");
    }
    let stranger = Cluster::new(2);
    old.ca
        .endorse(stranger.ca.cert_pem())
        .expect_err("another cluster's");
    let served = connect(optional(&shown), pinned(&stranger)).await;
    served.expect_err("a stranger's pin");
}

#[tokio::test]
async fn without_an_own_certificate_the_server_is_verified_all_the_same() {
    let (cluster, other) = (Cluster::new(1), Cluster::new(2));
    let (server, node) = (cluster.server(7), cluster.node(8));
    let optional = |own: &Arc<Reloadable>| server_config(own, ClientAuth::Optional, ALPN_GRPC);
    let anonymous = || anonymous_client_config(&node, A_SERVER, ALPN_GRPC);
    let (served, _) = connect(optional(&server), anonymous())
        .await
        .expect("let in");
    assert_eq!(peer_identity(served.get_ref().1), None);
    refused(
        optional(&cluster.node(9)),
        anonymous(),
        "Role { theirs: Node, expected: Server }",
    )
    .await;
    refused(optional(&other.server(7)), anonymous(), "UnknownIssuer").await;
}

/// What a client says first that knows TLS 1.2 alone.
fn hello_of_tls_1_2() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    // No session; ECDHE-ECDSA-AES128-GCM-SHA256; no compression.
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    // Extensions: signature_algorithms (ECDSA P-256), supported_groups (P-256).
    body.extend([0, 16, 0, 13, 0, 4, 0, 2, 4, 3, 0, 10, 0, 4, 0, 2, 0, 23]);
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("short");
    let mut handshake = vec![1, 0, 0, length(&body)];
    handshake.extend(body);
    let mut record = vec![22, 3, 1, 0, length(&handshake)];
    record.extend(handshake);
    record
}

#[tokio::test]
async fn tls_1_2_is_not_spoken() {
    let cluster = Cluster::new(1);
    let config = server_config(&cluster.server(7), ClientAuth::Optional, ALPN_GRPC);
    let (mut near, far) = tokio::io::duplex(64 * 1024);
    near.write_all(&hello_of_tls_1_2()).await.expect("write");
    let refused = TlsAcceptor::from(config).accept(far).await;
    refused.expect_err("must be refused");
    let mut answer = Vec::new();
    near.read_to_end(&mut answer).await.expect("read");
    const PROTOCOL_VERSION: [u8; 7] = [21, 3, 3, 0, 2, 2, 70];
    assert_eq!(answer, PROTOCOL_VERSION, "a fatal alert, and why");
}
