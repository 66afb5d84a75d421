use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::PKCS_ECDSA_P384_SHA384;
use skep_model::id::{NodeId, ServerId};

use super::*;
use crate::keypair::KeyAndRequest;

const CLUSTER: ClusterId = ClusterId::from_u128(11);
const HOUR: Duration = Duration::from_secs(3600);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn ca() -> ClusterCa {
    ClusterCa::generate(CLUSTER, now()).expect("ca")
}

fn csr() -> String {
    KeyAndRequest::generate().expect("key").csr_pem
}

fn node_grant() -> Grant<'static> {
    let identity = Identity::node(CLUSTER, NodeId::from_u128(1));
    Grant {
        identity,
        addresses: &[],
        lifetime: HOUR,
    }
}

fn der_of(pem_text: &str) -> Vec<u8> {
    pem::certificates(pem_text).expect("pem")[0].to_vec()
}

fn csr_pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = body
        .as_bytes()
        .chunks(64)
        .map(|l| std::str::from_utf8(l).expect("ascii"))
        .collect();
    format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        lines.join("\n")
    )
}

#[test]
fn a_ca_lives_ten_years_names_its_cluster_and_loads_again() {
    let made = ca();
    let loaded = ClusterCa::load(made.cert_pem(), &made.key_pem()).expect("load");
    assert_eq!(
        (loaded.cluster(), loaded.fingerprint()),
        (CLUSTER, made.fingerprint())
    );
    let der = der_of(made.cert_pem());
    let (_, parsed) = parse_x509_certificate(&der).expect("parse");
    assert!(parsed.is_ca());
    assert_eq!(
        parsed.validity().not_after.timestamp(),
        1_800_000_000 + CA_LIFETIME.as_secs() as i64
    );
    assert!(!format!("{made:?}").contains("PRIVATE"));
}

#[test]
fn foreign_keys_and_leaf_certificates_make_no_ca() {
    let (one, two) = (ca(), ca());
    assert!(matches!(
        ClusterCa::load(one.cert_pem(), &two.key_pem()),
        Err(Error::KeyMismatch)
    ));
    let key = KeyAndRequest::generate().expect("key");
    let leaf = one
        .issue(&key.csr_pem, &node_grant(), now())
        .expect("issue");
    assert!(matches!(
        ClusterCa::load(&leaf, &key.key_pem),
        Err(Error::Name(_))
    ));
    assert!(matches!(
        ClusterCa::load("rubbish", &key.key_pem),
        Err(Error::Pem(_))
    ));
}

#[test]
fn a_server_gets_its_name_and_its_addresses() {
    let addresses = [
        "skep.example.com".to_owned(),
        "10.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    let identity = Identity::server(CLUSTER, ServerId::from_u128(1));
    let grant = Grant {
        identity,
        addresses: &addresses,
        lifetime: HOUR,
    };
    let der = der_of(&ca().issue(&csr(), &grant, now()).expect("issue"));
    assert_eq!(Identity::from_certificate(&der), Ok(identity));
    let (_, parsed) = parse_x509_certificate(&der).expect("parse");
    let names = parsed
        .subject_alternative_name()
        .expect("names")
        .expect("names");
    assert_eq!(names.value.general_names.len(), 4);
    assert!(!parsed.is_ca());
    let usage = parsed.extended_key_usage().expect("usage").expect("usage");
    assert!(usage.value.server_auth && usage.value.client_auth && !usage.value.any);
    assert_eq!(
        parsed.validity().not_after.timestamp(),
        1_800_000_000 + 3600
    );
}

#[test]
fn nothing_but_the_key_is_taken_from_a_request() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("key");
    let mut asked = CertificateParams::default();
    asked.distinguished_name = common_name("root");
    asked.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let server = Identity::server(CLUSTER, ServerId::from_u128(9)).to_string();
    asked.subject_alt_names = vec![uri(server).expect("uri")];
    let request = asked
        .serialize_request(&key)
        .expect("request")
        .pem()
        .expect("pem");
    let der = der_of(&ca().issue(&request, &node_grant(), now()).expect("issue"));
    assert_eq!(Identity::from_certificate(&der), Ok(node_grant().identity));
    let (_, parsed) = parse_x509_certificate(&der).expect("parse");
    assert!(!parsed.is_ca() && !parsed.subject().to_string().contains("root"));
    assert_eq!(parsed.public_key().raw, key.subject_public_key_info());
}

#[test]
fn a_request_must_be_signed_by_the_key_that_it_carries() {
    let der = CertificateSigningRequestDer::from_pem_slice(csr().as_bytes())
        .expect("der")
        .to_vec();
    assert!(
        ca().issue(&csr_pem(&der), &node_grant(), now()).is_ok(),
        "the helper is right"
    );
    let (own, other) = (
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("key"),
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("key"),
    );
    let request = CertificateParams::default()
        .serialize_request(&own)
        .expect("request");
    let mut stolen = request.der().to_vec();
    let (from, to) = (own.public_key_raw(), other.public_key_raw());
    let at = stolen
        .windows(from.len())
        .position(|part| part == from)
        .expect("the key is inside");
    stolen[at..at + to.len()].copy_from_slice(to);
    let result = ca().issue(&csr_pem(&stolen), &node_grant(), now());
    assert!(matches!(result, Err(Error::ForgedRequest)), "{result:?}");

    let mut altered = der.clone();
    *altered.last_mut().expect("not empty") ^= 1;
    assert!(matches!(
        ca().issue(&csr_pem(&altered), &node_grant(), now()),
        Err(Error::ForgedRequest)
    ));
}

#[test]
fn other_keys_and_rubbish_are_refused() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("key");
    let params = CertificateParams::default();
    let request = params
        .serialize_request(&key)
        .expect("request")
        .pem()
        .expect("pem");
    assert!(matches!(
        ca().issue(&request, &node_grant(), now()),
        Err(Error::KeyKind)
    ));
    let huge = " ".repeat(CSR_MAX_BYTES) + &csr();
    for bad in ["", "rubbish", ca().cert_pem(), &huge, &csr_pem(b"rubbish")] {
        let result = ca().issue(bad, &node_grant(), now());
        assert!(matches!(result, Err(Error::MalformedRequest)), "{result:?}");
    }
}

#[test]
fn grants_beyond_the_rules_are_refused() {
    let (ca, csr) = (ca(), csr());
    let node = node_grant();
    let elsewhere = Identity::node(ClusterId::from_u128(12), NodeId::from_u128(1));
    let grant = Grant {
        identity: elsewhere,
        ..node.clone()
    };
    assert!(matches!(
        ca.issue(&csr, &grant, now()),
        Err(Error::OtherCluster { .. })
    ));
    for lifetime in [Duration::ZERO, *LIFETIMES.end() + HOUR] {
        let grant = Grant {
            lifetime,
            ..node.clone()
        };
        assert!(matches!(
            ca.issue(&csr, &grant, now()),
            Err(Error::Lifetime { .. })
        ));
    }
    let one = ["10.0.0.1".to_owned()];
    let grant = Grant {
        addresses: &one,
        ..node.clone()
    };
    assert!(
        matches!(ca.issue(&csr, &grant, now()), Err(Error::Address { .. })),
        "nodes have none"
    );

    let identity = Identity::server(CLUSTER, ServerId::from_u128(1));
    for bad in ["", "a b", "http://x", "x:80", "ü.example"] {
        let addresses = [bad.to_owned()];
        let grant = Grant {
            identity,
            addresses: &addresses,
            lifetime: HOUR,
        };
        assert!(
            matches!(ca.issue(&csr, &grant, now()), Err(Error::Address { .. })),
            "{bad}"
        );
    }
    let many: Vec<String> = (0..=ADDRESSES_MAX).map(|n| format!("10.0.0.{n}")).collect();
    let grant = Grant {
        identity,
        addresses: &many,
        lifetime: HOUR,
    };
    assert!(matches!(
        ca.issue(&csr, &grant, now()),
        Err(Error::Address { .. })
    ));
    let grant = Grant {
        addresses: &many[1..],
        ..grant
    };
    assert!(ca.issue(&csr, &grant, now()).is_ok());
}

#[test]
fn nothing_outlives_the_ca() {
    let ca = ca();
    let last_hour = now() + CA_LIFETIME - HOUR;
    let grant = Grant {
        lifetime: 24 * HOUR,
        ..node_grant()
    };
    let der = der_of(&ca.issue(&csr(), &grant, last_hour).expect("issue"));
    let (_, parsed) = parse_x509_certificate(&der).expect("parse");
    assert_eq!(
        parsed.validity().not_after.timestamp(),
        ca.not_after.unix_timestamp()
    );
    for outside in [now() + CA_LIFETIME, now() - HOUR] {
        assert!(matches!(
            ca.issue(&csr(), &grant, outside),
            Err(Error::Expired)
        ));
    }
}

#[test]
fn a_short_life_begins_before_its_two_thirds_are_over() {
    let grant = Grant {
        lifetime: Duration::from_secs(30),
        ..node_grant()
    };
    let der = der_of(&ca().issue(&csr(), &grant, now()).expect("issue"));
    let validity = crate::keypair::Validity::of_der(&der).expect("validity");
    assert_eq!(validity.renew_at(), now() + Duration::from_secs(15));
}
