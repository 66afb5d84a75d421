//! What is said on the command line of a pool, and what a request becomes of it.

use super::*;

fn make() -> Make {
    Make {
        pool: "web".into(),
        provider: Some("home".into()),
        template: vec![("pve1".into(), 9000)],
        addresses: Some("10.0.0.100-10.0.0.199/24".into()),
        gateway: Some("10.0.0.1".parse().expect("an address")),
        vmids: Some("6000-6099".into()),
        meta: vec!["tier=web".into()],
        min: Some(2),
        ..Make::default()
    }
}

/// The same pool as it is shown once it is made.
fn known(request: NodePoolRequest) -> NodePoolView {
    NodePoolView {
        name: "web".into(),
        provider: request.provider,
        recipe: request.recipe,
        meta: request.meta,
        size: request.size,
        backups: None,
        fences: true,
        edition: 1,
        generation: 7,
        guests: Vec::new(),
        decided: None,
        outlook: Vec::new(),
    }
}

#[test]
fn a_pool_that_is_there_is_asked_to_be_one_of_containers() {
    let lxc = Make {
        pool: "web".into(),
        lxc: true,
        ..Make::default()
    };
    let request = make().request(None, WayKind::Proxmox).expect("understood");
    let changed = lxc.request(Some(known(request)), WayKind::Proxmox);
    let recipe = changed.expect("understood").recipe;
    assert_eq!((recipe.kind, recipe.disk.as_str()), (Kind::Lxc, "rootfs"));
    // Of machines that no recipe makes it is said as well: whoever makes them refuses it.
    let rack = Make {
        pool: "metal".into(),
        provider: Some("rack".into()),
        ..Make::default()
    };
    let request = rack.request(None, WayKind::Static).expect("understood");
    let changed = lxc.request(Some(known(request)), WayKind::Proxmox);
    let refused = changed.expect("understood").recipe.check_for_machines();
    assert_eq!(refused.expect_err("no kind").field.as_deref(), Some("kind"));
}

#[test]
fn what_is_said_is_a_pool_and_what_is_not_named_stays() {
    let request = make().request(None, WayKind::Proxmox).expect("understood");
    request.recipe.check().expect("accepted");
    request.size.check().expect("accepted");
    assert_eq!((request.size.wanted, request.size.max), (2, 10));
    let range = request.recipe.addresses.clone().expect("said");
    assert_eq!((range.prefix, range.iter().count()), (24, 100));
    assert_eq!(request.recipe.vmids.last, 6099);
    let recipe = request.recipe.clone();
    let known = known(request);
    let change = Make {
        pool: "web".into(),
        cores: Some(8),
        max: Some(3),
        ..Make::default()
    };
    let changed = change
        .request(Some(known), WayKind::Proxmox)
        .expect("understood");
    let wanted = Recipe { cores: 8, ..recipe };
    assert_eq!((changed.recipe, changed.generation), (wanted, Some(7)));
    assert_eq!(
        (changed.size.min, changed.size.max, changed.size.wanted),
        (2, 3, 2)
    );
    assert_eq!(changed.meta["tier"], "web");
}

#[test]
fn copies_are_said_once_and_changed_by_parts() {
    let ask = |change: fn(&mut Make)| {
        let mut make = Make::default();
        change(&mut make);
        make
    };
    let whole = ask(|it| {
        it.backup = Some("0 3 * * 0".into());
        it.backup_storage = Some("nas".into());
    });
    let first = whole.backups(None).expect("understood").expect("said");
    assert_eq!((first.keep, first.time_zone.as_str()), (4, "UTC"));
    first.check().expect("accepted");
    let more = ask(|it| it.backup_keep = Some(8));
    let second = more.backups(Some(first.clone())).expect("understood");
    let expected = Backups {
        keep: 8,
        ..first.clone()
    };
    assert_eq!(second, Some(expected));
    let nothing = Make::default().backups(Some(first.clone()));
    assert_eq!(nothing.expect("understood"), Some(first.clone()));
    let none = ask(|it| it.no_backup = true).backups(Some(first));
    assert_eq!(none.expect("understood"), None);
    assert!(more.backups(None).is_err(), "of nothing");
}

#[test]
fn a_pool_is_told_to_scale_itself_and_to_stop() {
    let fresh = make().auto(None).expect("fine");
    assert_eq!(fresh, None);
    let told = Make {
        autoscale: true,
        headroom: Some("500m, 1GiB".into()),
        spare: Some(1),
        idle_after: Some("90s".parse().expect("a time")),
        ..Make::default()
    };
    let auto = told.auto(None).expect("fine");
    let wanted = Auto {
        cost: 1,
        headroom_cpu_millis: 500,
        headroom_memory_bytes: 1 << 30,
        spare: 1,
        idle_ms: 90_000,
    };
    assert_eq!(auto, Some(wanted));
    // What is not named stays.
    let change = Make {
        cost: Some(7),
        ..Make::default()
    };
    let changed = change.auto(auto).expect("fine");
    assert_eq!(changed, Some(Auto { cost: 7, ..wanted }));
    assert!(change.auto(None).is_err(), "it does not scale itself");
    let stop = Make {
        no_autoscale: true,
        ..Make::default()
    };
    assert_eq!(stop.auto(auto).expect("fine"), None);
    let odd = Make {
        autoscale: true,
        headroom: Some("2".into()),
        ..Make::default()
    };
    assert!(odd.auto(None).is_err());
}

#[test]
fn what_cannot_be_understood_says_what_would_be() {
    type Change = fn(&mut Make);
    let cases: [Change; 4] = [
        |it| it.vmids = Some("6000".into()),
        |it| it.addresses = Some("10.0.0.1-10.0.0.9".into()),
        |it| it.addresses = Some("10.0.0.1/24".into()),
        |it| it.meta = vec!["tier".into()],
    ];
    for change in cases {
        let mut make = make();
        change(&mut make);
        assert!(make.request(None, WayKind::Proxmox).is_err(), "{make:?}");
    }
    assert!(template("pve1").is_err() && template("pve1=x").is_err());
}
