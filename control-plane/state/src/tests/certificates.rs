//! Certificates of apps: what is kept, what is refused, what is due.

use skep_model::certificate::{
    Certificate, Challenge, ChallengeKind, DnsAccess, DnsProvider, DnsRecord, Issuer, LocalCa,
    MAX_CHALLENGES, MAX_DNS_RECORDS, Material, Source, TsigAlgorithm,
};
use skep_model::problem::Code;
use skep_model::variable::Sealed;
use skep_proto::v1;
use skep_proto::v1::command::Kind;

use super::World;
use crate::{Change, State};

pub(super) fn issuer(directory: &str) -> Issuer {
    Issuer {
        directory: directory.into(),
        contact: "ops@example.com".into(),
        root_pem: String::new(),
        binding: None,
        challenge: ChallengeKind::Http01,
        dns: None,
        account: None,
        changed_ms: 0,
    }
}

pub(super) fn set(issuer: Option<&Issuer>) -> Kind {
    Kind::SetIssuer(v1::SetIssuer {
        issuer: issuer.map(Into::into),
    })
}

fn certificate(name: &str, source: Source) -> Certificate {
    let material = Material {
        chain_pem: "PEM".into(),
        key: Sealed(vec![1, 2]),
        names: vec![name.into()],
        not_before_ms: 1,
        not_after_ms: u64::MAX,
        serial: "01".into(),
        issuer: "CA".into(),
    };
    Certificate {
        source,
        material: Some(material),
        directory: "https://ca.example/dir".into(),
        ..Certificate::wanted(name)
    }
}

fn put(certificate: &Certificate) -> Kind {
    Kind::PutCertificate(v1::PutCertificate {
        certificate: Some(certificate.into()),
    })
}

fn note(name: &str) -> Kind {
    Kind::NoteCertificate(v1::NoteCertificate {
        name: name.into(),
        problem: "no way".into(),
        next_ms: u64::MAX,
    })
}

fn remove(name: &str, only_issued: bool) -> Kind {
    Kind::RemoveCertificate(v1::RemoveCertificate {
        name: name.into(),
        only_issued,
    })
}

fn same_when_read(world: &World) {
    let read = State::decode(&world.state.encode()).expect("decodes");
    assert_eq!(read, world.state);
}

#[test]
fn an_account_is_the_issuers_that_it_was_made_for() {
    let mut world = World::with_service();
    let account = |changed_ms| {
        Kind::SetAcmeAccount(v1::SetAcmeAccount {
            issuer_changed_ms: changed_ms,
            sealed_account: vec![7],
        })
    };
    assert_eq!(world.refused(account(0)), Code::Conflict);
    let changes = world
        .apply(set(Some(&issuer("https://ca.example/dir"))))
        .changes;
    assert_eq!(changes, [Change::Certificates, Change::Challenges]);
    let since = world.state.issuer().expect("set").changed_ms;
    assert_eq!(world.refused(account(since + 1)), Code::Conflict);
    world.ok(account(since));
    world.ok(note("a.example"));
    // The same directory, something else said anew: the account stays, failures are forgotten.
    let mut other = issuer("https://ca.example/dir");
    other.challenge = ChallengeKind::TlsAlpn01;
    world.ok(set(Some(&other)));
    let kept = world.state.issuer().expect("set");
    assert_eq!(kept.account, Some(Sealed(vec![7])));
    let wanted = world.state.certificate("a.example").expect("noted");
    assert_eq!((wanted.failures, wanted.next_ms), (0, 0));
    same_when_read(&world);
    world.ok(set(Some(&issuer("https://other.example/dir"))));
    assert_eq!(world.state.issuer().expect("set").account, None);
    assert_eq!(
        world.refused(set(Some(&issuer("http://plain.example")))),
        Code::Invalid
    );
    world.ok(set(None));
    assert_eq!(world.state.issuer(), None);
}

#[test]
fn an_upload_stays_whatever_is_issued_and_goes_by_hand_alone() {
    let mut world = World::with_service();
    world.ok(put(&certificate("a.example", Source::Acme)));
    world.ok(note("a.example"));
    let failed = world.state.certificate("a.example").expect("there");
    assert!(failed.material.is_some(), "what is shown stays");
    assert_eq!((failed.failures, &*failed.problem), (1, "no way"));
    world.ok(put(&certificate("a.example", Source::Uploaded)));
    assert_eq!(
        world.refused(put(&certificate("a.example", Source::Acme))),
        Code::Conflict
    );
    assert_eq!(world.refused(note("a.example")), Code::Conflict);
    let renew = Kind::RenewCertificate(v1::RenewCertificate {
        name: "a.example".into(),
    });
    assert_eq!(world.refused(renew.clone()), Code::Conflict);
    world.ok(remove("a.example", true));
    assert!(world.state.certificate("a.example").is_some());
    same_when_read(&world);
    world.ok(remove("a.example", false));
    assert_eq!(world.refused(remove("a.example", false)), Code::NotFound);
    assert_eq!(world.refused(renew), Code::NotFound);
    let mut large = certificate("b.example", Source::Uploaded);
    large.material.as_mut().expect("some").chain_pem = "x".repeat(65 << 10);
    assert_eq!(world.refused(put(&large)), Code::TooLarge);
    assert_eq!(
        world.refused(put(&certificate("B example", Source::Uploaded))),
        Code::Invalid
    );
}

#[test]
fn challenges_end_by_their_time_and_are_bounded() {
    let mut world = World::with_service();
    let challenge = |token: &str, expires_ms| {
        v1::Challenge::from(&Challenge {
            kind: ChallengeKind::Http01,
            host: "a.example".into(),
            token: token.into(),
            key_authorization: format!("{token}.thumb"),
            expires_ms,
        })
    };
    let all = |challenges| Kind::PutChallenges(v1::PutChallenges { challenges });
    let many = (0..MAX_CHALLENGES - 1).map(|n| challenge(&n.to_string(), u64::MAX));
    world.ok(all(many.collect()));
    world.ok(all(vec![challenge("over", 1)]));
    same_when_read(&world);
    // Its time is over: there is room for one.
    world.ok(all(vec![challenge("next", u64::MAX)]));
    assert!(world.state.challenges().all(|it| it.token != "over"));
    assert_eq!(
        world.refused(all(vec![challenge("more", u64::MAX)])),
        Code::TooLarge
    );
    let tokens = vec!["next".to_owned(), "unknown".to_owned()];
    let done = Kind::RemoveChallenges(v1::RemoveChallenges { tokens });
    assert_eq!(world.apply(done).changes, [Change::Challenges]);
    assert_eq!(world.state.challenges().count(), MAX_CHALLENGES - 1);
}

fn access() -> DnsAccess {
    let provider = DnsProvider::Rfc2136 {
        server: "ns1.example.com:53".into(),
        key_name: "skep".into(),
        algorithm: TsigAlgorithm::HmacSha512,
    };
    DnsAccess {
        provider,
        secret: Some(Sealed(vec![9])),
    }
}

#[test]
fn a_record_in_dns_is_known_with_the_way_to_it_until_it_is_gone() {
    let mut world = World::with_service();
    let record = |name: &str| DnsRecord {
        name: name.into(),
        value: "proof".into(),
        access: access(),
        until_ms: 7,
    };
    let put = |name: &str| {
        Kind::PutDnsRecord(v1::PutDnsRecord {
            record: Some((&record(name)).into()),
        })
    };
    let remove = |name: &str| {
        Kind::RemoveDnsRecord(v1::RemoveDnsRecord {
            name: name.into(),
            value: "proof".into(),
        })
    };
    assert_eq!(world.apply(put("a")).changes, [Change::Certificates]);
    // What the issuer is by then makes no difference.
    world.ok(set(None));
    same_when_read(&world);
    let known: Vec<_> = world.state.dns_records().map(|it| (**it).clone()).collect();
    assert_eq!(known, [record("a")]);
    for n in 1..MAX_DNS_RECORDS {
        world.ok(put(&n.to_string()));
    }
    assert_eq!(world.refused(put("more")), Code::TooLarge);
    world.ok(put("a"));
    assert_eq!(world.apply(remove("a")).changes, [Change::Certificates]);
    assert_eq!(world.apply(remove("a")).changes, []);
    world.ok(put("more"));
}

#[test]
fn who_writes_in_dns_is_said_where_zones_prove_and_nowhere_else() {
    let mut world = World::with_service();
    let mut by_zone = issuer("https://ca.example/dir");
    by_zone.challenge = ChallengeKind::Dns01;
    assert_eq!(world.refused(set(Some(&by_zone))), Code::Invalid);
    by_zone.dns = Some(access());
    world.ok(set(Some(&by_zone)));
    assert_eq!(world.state.issuer().expect("set").dns, Some(access()));
    same_when_read(&world);
    by_zone.challenge = ChallengeKind::Http01;
    assert_eq!(world.refused(set(Some(&by_zone))), Code::Invalid);
}

#[test]
fn there_is_one_local_ca_and_it_issues_for_private_names() {
    let mut world = World::with_service();
    let ca = LocalCa {
        cert_pem: "PEM".into(),
        key: Sealed(vec![1]),
        made_ms: 0,
    };
    let made = |ca: Option<&LocalCa>| {
        Kind::SetLocalCa(v1::SetLocalCa {
            ca: ca.map(Into::into),
        })
    };
    assert_eq!(world.apply(made(Some(&ca))).changes, [Change::Certificates]);
    assert_eq!(world.refused(made(Some(&ca))), Code::Conflict);
    same_when_read(&world);
    let first = world.state.local_ca().expect("made").directory();
    // What it issued stays when it goes, and is replaced once there is another one.
    let mut issued = certificate("shop.internal", Source::Acme);
    issued.directory = first.clone();
    world.ok(put(&issued));
    world.ok(made(None));
    assert_eq!(world.state.due_certificates(5), Default::default());
    world.ok(made(Some(&ca)));
    assert_eq!(world.state.due_certificates(5).forget, ["shop.internal"]);
    world.ok(made(None));
    let odd = LocalCa {
        cert_pem: String::new(),
        ..ca
    };
    assert_eq!(world.refused(made(Some(&odd))), Code::Internal);
}

#[test]
fn nothing_is_due_without_an_issuer_nor_for_a_private_name() {
    let mut world = World::with_service();
    assert_eq!(world.state.due_certificates(5), Default::default());
    world.ok(set(Some(&issuer("https://ca.example/dir"))));
    world.ok(put(&certificate("gone.example", Source::Acme)));
    let due = world.state.due_certificates(5);
    assert_eq!(due.order, [""; 0]);
    assert_eq!(due.forget, ["gone.example"]);
}
