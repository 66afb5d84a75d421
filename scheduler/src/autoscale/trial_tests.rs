//! What waits against nodes that are not there, and nodes that are against being without them.

use skep_model::node::{Admin, Facts, NodeStatus};
use skep_model::placement::{Builds, Constraint, MaxPer, Operator, PoolPolicy, Spread};

use super::*;
use crate::autoscale::pool::{self, Change, Member, Pool, Unneeded};

const GIB: u64 = 1 << 30;

fn id(number: u64) -> NodeId {
    NodeId::from_u128(number.into())
}

fn node(number: u64, pool: &str, host: &str) -> Node {
    let meta = [("pool", pool), ("host", host)];
    let meta = meta.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Node {
        id: id(number),
        name: format!("node-{number}"),
        facts: Facts {
            architecture: "x86_64".into(),
            cpu_millis: 4_000,
            memory_bytes: 4 * GIB,
            ..Facts::default()
        },
        status: NodeStatus::Ready,
        status_ms: 0,
        generation: 1,
        joined_ms: 0,
        meta: meta.into(),
        admin: Admin::Eligible,
        seat: 0,
        fencing: Default::default(),
        witnesses: Vec::new(),
    }
}

fn ask(service: u128, cpu_millis: u32, memory_bytes: u64) -> Ask {
    Ask {
        service: ServiceId::from_u128(service),
        resources: Resources {
            cpu_millis,
            memory_bytes,
            cpu_limit_millis: 0,
            memory_limit_bytes: 0,
            disk_bytes: 0,
        },
        placement: Placement::default(),
        only_on: None,
        storage: Storage::default(),
        shares_image: false,
        around: Surroundings::default(),
        staying: None,
    }
}

fn blueprint(pool: &str, hosts: &[&str]) -> Blueprint {
    Blueprint {
        pool: pool.into(),
        node: node(0, pool, ""),
        hosts: hosts.iter().map(|it| (*it).to_owned()).collect(),
        headroom: Room::default(),
        spare: 0,
        may_come: true,
    }
}

/// Some nodes of the pool `web`, and what runs there.
#[derive(Default)]
struct Here {
    cluster: Cluster,
    running: BTreeMap<NodeId, Vec<Unplaced>>,
    allocations: u128,
}

impl Here {
    fn node(&mut self, number: u64, host: &str) {
        self.cluster.put_node(&node(number, "web", host));
        self.running.entry(id(number)).or_default();
    }

    fn run(&mut self, number: u64, ask: &Ask) {
        self.allocations += 1;
        let allocation = AllocationId::from_u128(self.allocations);
        self.cluster
            .put_allocation(allocation, id(number), ask.service, &ask.needs());
        let one = Unplaced {
            ask: ask.clone(),
            count: 1,
        };
        self.running.entry(id(number)).or_default().push(one);
    }

    fn trial<T>(
        &self,
        blueprints: Vec<Blueprint>,
        waiting: &[(Ask, u32)],
        look: impl FnOnce(&Ground<'_>) -> T,
    ) -> T {
        let waiting = waiting.iter().map(|(ask, count)| Unplaced {
            ask: ask.clone(),
            count: *count,
        });
        let tenants = |node| self.running.get(&node).cloned();
        look(&Ground::new(
            self.cluster.clone(),
            blueprints,
            (waiting.collect(), Vec::new()),
            &tenants,
        ))
    }

    /// Without a place with so many more of `web`.
    fn unplaced(&self, blueprint: &Blueprint, waiting: &[(Ask, u32)], more: u32) -> u32 {
        self.trial(vec![blueprint.clone()], waiting, |ground| {
            ground.unplaced_with(&[("web".to_owned(), more)].into())
        })
    }

    fn fits_without(&self, blueprint: &Blueprint, number: u64) -> bool {
        self.trial(vec![blueprint.clone()], &[], |ground| {
            ground.fits_without(id(number))
        })
    }
}

#[test]
fn a_node_on_trial_takes_what_a_real_one_would() {
    let here = Here::default();
    let web = blueprint("web", &[]);
    // 4 GiB less a twentieth for the node's own hold three of 1.2 GiB.
    let work = [(ask(1, 100, GIB * 6 / 5), 7)];
    let left: Vec<u32> = (0..4)
        .map(|more| here.unplaced(&web, &work, more))
        .collect();
    assert_eq!(left, [7, 4, 1, 0]);
    let by_cpu = [(ask(1, 1_500, 1), 5)];
    let left: Vec<u32> = (0..4)
        .map(|more| here.unplaced(&web, &by_cpu, more))
        .collect();
    assert_eq!(left, [5, 3, 1, 0]);
}

#[test]
fn what_no_new_node_mends_orders_none() {
    let here = Here::default();
    let mut elsewhere = ask(1, 100, 1);
    elsewhere.placement.pool = Some("db".into());
    let mut constrained = ask(2, 100, 1);
    constrained.placement.constraints.push(Constraint {
        key: "disk".into(),
        operator: Operator::Is("ssd".into()),
    });
    let mut with_data = ask(3, 100, 1);
    with_data.around.data_on = Some(id(77));
    let huge = ask(4, 100, 8 * GIB);
    let hopeless = [
        (elsewhere, 1),
        (constrained.clone(), 2),
        (with_data, 3),
        (huge, 4),
    ];
    let told = here.trial(vec![blueprint("web", &[])], &hopeless, |ground| {
        let waiting: Vec<Unplaced> = hopeless
            .iter()
            .map(|(ask, count)| Unplaced {
                ask: ask.clone(),
                count: *count,
            })
            .collect();
        let fit = ground.fit("web", &waiting);
        (
            ground.hopeless(),
            ground.unplaced_with(&BTreeMap::new()),
            fit,
        )
    });
    assert_eq!((told.0, told.1, told.2.fitting), (10, 0, 0));
    let why = told.2.refusal.expect("the largest").to_string();
    assert!(why.contains("memory"), "{why}");
    // A pool whose nodes are like that does.
    let mut ssd = blueprint("web", &[]);
    ssd.node.meta.insert("disk".into(), "ssd".into());
    assert_eq!(here.unplaced(&ssd, &[(constrained.clone(), 2)], 0), 2);
    assert_eq!(here.unplaced(&ssd, &[(constrained.clone(), 2)], 1), 0);
    // None that may come is like it any more.
    ssd.may_come = false;
    assert_eq!(here.unplaced(&ssd, &[(constrained, 2)], 0), 0);
}

#[test]
fn new_nodes_are_on_hosts() {
    let here = Here::default();
    let mut apart = ask(1, 100, 1);
    apart.placement.max_per = vec![MaxPer {
        key: "host".into(),
        count: 1,
    }];
    let apart = [(apart, 3)];
    let one_host = blueprint("web", &["pve1", "pve1", "pve1"]);
    assert_eq!(here.unplaced(&one_host, &apart, 3), 2);
    let three = blueprint("web", &["pve1", "pve2", "pve3"]);
    assert_eq!(here.unplaced(&three, &apart, 3), 0);
}

#[test]
fn room_and_nodes_are_kept_free() {
    let mut here = Here::default();
    let mut web = blueprint("web", &[]);
    web.headroom = Room {
        cpu_millis: 2_000,
        memory_bytes: GIB,
        disk_bytes: 0,
    };
    assert_eq!(here.unplaced(&web, &[], 0), 1, "one piece");
    assert_eq!(here.unplaced(&web, &[], 1), 0);
    here.node(1, "pve1");
    assert_eq!(here.unplaced(&web, &[], 0), 0);
    here.run(1, &ask(1, 2_500, 1));
    assert_eq!(here.unplaced(&web, &[], 0), 1, "what runs has taken it");
    // More than a node holds is as few equal pieces as nodes can hold.
    web.headroom.cpu_millis = 9_000;
    let left: Vec<u32> = (0..4).map(|more| here.unplaced(&web, &[], more)).collect();
    assert_eq!(left, [3, 2, 1, 0]);
    // An empty node is spare, and its room is free.
    web.headroom.cpu_millis = 2_000;
    web.spare = 1;
    assert_eq!(here.unplaced(&web, &[], 0), 2);
    assert_eq!(here.unplaced(&web, &[], 1), 0);
    web.spare = 2;
    assert_eq!(here.unplaced(&web, &[(ask(2, 3_000, 1), 1)], 2), 1);
    assert_eq!(here.unplaced(&web, &[(ask(2, 3_000, 1), 1)], 3), 0);
}

#[test]
fn each_new_node_has_its_share_of_the_system() {
    let here = Here::default();
    let mut web = blueprint("web", &[]);
    web.spare = 1;
    let agent = ask(9, 3_000, GIB);
    let tenants = |_| None;
    let waiting = vec![Unplaced {
        ask: ask(1, 1_500, 1),
        count: 1,
    }];
    let of = |system: Vec<Ask>| {
        let ground = Ground::new(
            here.cluster.clone(),
            vec![web.clone()],
            (waiting.clone(), system),
            &tenants,
        );
        let more = |count| ground.unplaced_with(&[("web".to_owned(), count)].into());
        (ground.hopeless(), more(1), more(2))
    };
    assert_eq!(of(Vec::new()), (0, 1, 0));
    // Beside the agent there is no room for it, and a node with nothing but the agent is spare.
    assert_eq!(of(vec![agent]), (1, 0, 0));
}

#[test]
fn a_node_goes_only_where_every_rule_is_kept() {
    let web = blueprint("web", &[]);
    type Make = fn(&mut Here);
    let cases: [(&str, bool, Make); 8] = [
        ("nothing there", true, |_| {}),
        ("it fits beside", true, |here| {
            here.run(1, &ask(1, 1_000, 1));
            here.run(2, &ask(2, 3_000, 1));
        }),
        ("it does not", false, |here| {
            here.run(1, &ask(1, 1_000, 1));
            here.run(2, &ask(2, 3_500, 1));
        }),
        ("two of them do not", false, |here| {
            here.run(1, &ask(1, 1_500, 1));
            here.run(1, &ask(2, 1_500, 1));
            here.run(2, &ask(3, 1_500, 1));
        }),
        ("one a node", false, |here| {
            let mut single = ask(1, 100, 1);
            single.placement.max_per = vec![MaxPer {
                key: "node.name".into(),
                count: 1,
            }];
            here.run(1, &single);
            here.run(2, &single);
        }),
        ("one a host", false, |here| {
            let mut single = ask(1, 100, 1);
            single.placement.max_per = vec![MaxPer {
                key: "host".into(),
                count: 1,
            }];
            here.run(1, &single);
            here.run(2, &single);
        }),
        ("skew", false, |here| {
            let mut even = ask(1, 100, 1);
            even.placement.spread = vec![Spread {
                key: "host".into(),
                max_skew: Some(1),
                percent: BTreeMap::new(),
            }];
            here.node(3, "pve3");
            here.run(3, &even);
            // Where it would be even there is no room.
            here.run(3, &ask(5, 3_850, 1));
            here.run(2, &even);
            here.run(2, &even);
            even.staying = Some(vec![id(2), id(2), id(3)]);
            here.run(1, &even);
        }),
        ("its data", false, |here| {
            let mut bound = ask(1, 100, 1);
            bound.around.data_on = Some(id(1));
            here.run(1, &bound);
        }),
    ];
    for (name, fits, make) in cases {
        let mut here = Here::default();
        here.node(1, "pve1");
        here.node(2, "pve2");
        make(&mut here);
        assert_eq!(here.fits_without(&web, 1), fits, "{name}");
    }
    let mut here = Here::default();
    here.node(1, "pve1");
    here.node(2, "pve2");
    assert!(!here.fits_without(&web, 3), "not ours");
    here.cluster.close_node(id(1));
    assert!(!here.fits_without(&web, 1), "closed by somebody");
    let spare = Blueprint { spare: 2, ..web };
    assert!(!here.fits_without(&spare, 2), "nobody is spare then");
}

/// What was decided with nodes on trial is what real ones do, and then nothing more is decided.
#[test]
fn ordered_nodes_take_what_they_were_ordered_for() {
    let here = Here::default();
    let work = [(ask(1, 1_500, GIB), 9), (ask(2, 100, 3 * GIB), 2)];
    let mut pool = Pool {
        name: "web".into(),
        min: 0,
        max: 20,
        cost: 1,
        members: Vec::new(),
        coming: 0,
        stuck: 0,
        is_held: false,
        idle_ms: 600_000,
        ordered_ms: None,
    };
    let plan = |here: &Here, pool: &Pool, waiting: &[(Ask, u32)]| {
        here.trial(vec![blueprint("web", &[])], waiting, |ground| {
            pool::plan_nodes(
                std::slice::from_ref(pool),
                ground,
                &mut Unneeded::default(),
                0,
            )
        })
    };
    let Change::Add { nodes, .. } = plan(&here, &pool, &work) else {
        panic!("nodes are needed");
    };
    let mut real = Here::default();
    for number in 1..=u64::from(nodes) {
        real.node(number, "pve1");
        pool.members.push(Member {
            id: id(number),
            added_ms: 0,
            used_percent: 0,
        });
    }
    assert_eq!(plan(&real, &pool, &work), Change::Keep { unplaced: 0 });
    assert_eq!(real.unplaced(&blueprint("web", &[]), &work, 0), 0);
    let mut fewer = Here::default();
    (1..u64::from(nodes)).for_each(|number| fewer.node(number, "pve1"));
    assert!(fewer.unplaced(&blueprint("web", &[]), &work, 0) > 0);
}

#[test]
fn a_pool_takes_what_its_nodes_are_for() {
    let build = Ask {
        around: Surroundings {
            is_build: true,
            ..Surroundings::default()
        },
        ..ask(2, 0, 0)
    };
    let app = ask(1, 100, GIB);
    // What the nodes 1 (`builders`) and 2 (`web`) are for, and which of them take an app, and a build.
    let cases = [
        ((Builds::Also, Builds::Also), [true, true], [true, true]),
        ((Builds::Only, Builds::Also), [false, true], [true, true]),
        ((Builds::Only, Builds::Never), [false, true], [true, false]),
        ((Builds::Never, Builds::Also), [true, true], [false, true]),
    ];
    for ((builders, web), apps, builds) in cases {
        let takes = |number, pool: &str, ask: &Ask| {
            let mut cluster = Cluster::default();
            // Of all pools that have no policy.
            for (name, builds) in [("builders", builders), ("", web)] {
                let policy = PoolPolicy {
                    builds,
                    ..PoolPolicy::default()
                };
                cluster.put_policy(name, Some(policy));
            }
            cluster.put_node(&node(number, pool, ""));
            place::place(&Draft::new(&cluster), ask)
        };
        for (ask, expected) in [(&app, apps), (&build, builds)] {
            let taken = [takes(1, "builders", ask), takes(2, "web", ask)];
            let is_taken = taken.each_ref().map(Result::is_ok);
            assert_eq!(is_taken, expected, "{builders:?} {web:?}");
            for refusal in taken.into_iter().filter_map(Result::err) {
                let text = refusal.to_string();
                assert!(text.contains("only for builds"), "{text}");
            }
        }
    }
}
