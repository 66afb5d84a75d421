//! When a guest's driver may begin, and when its node is given back; on a cluster whose work moves as the planner says.

use std::collections::BTreeSet;

use skep_model::guest_pool::GuestPool;
use skep_model::id::{GuestId, NodeId};
use skep_model::node::Facts;
use skep_model::pool::Note;
use skep_model::storage::Volume;

use super::*;
use crate::guests::plan::{driven, due as due_of_all};
use crate::guests::sizing::tests::{GIB, World, pool};

const TO: GuestSize = GuestSize {
    cores: 4,
    memory_mib: 8_192,
    disk_gib: 20,
};

fn two_nodes() -> GuestPool {
    let mut pool = pool("a", (2, 4), 2);
    (pool.size.min, pool.size.wanted) = (2, 2);
    pool
}

impl World {
    /// The guest that work runs in, and its node.
    fn used(&self) -> (GuestId, NodeId) {
        let all = self.state.allocations();
        let used: BTreeSet<NodeId> = all.filter(|it| it.is_live()).map(|it| it.node).collect();
        let node = *used.first().expect("something runs");
        let one = self.state.guest_of(node).expect("of a pool");
        (one.guest.id, node)
    }

    fn resize(&mut self, (id, node): (GuestId, NodeId), change: impl Fn(&mut v1::ResizeGuest)) {
        let pool = self.state.guest_pool("a").expect("there");
        let mut message = v1::ResizeGuest {
            id: id_bytes(id.as_u128()),
            size: Some(TO.into()),
            from: Some(pool.recipe.size().into()),
            stops: true,
            may_interrupt: false,
            drain_ms: 3_600_000,
            cordons: false,
            expected_node_generation: self.state.node(node).expect("there").generation,
        };
        change(&mut message);
        self.ok(Kind::ResizeGuest(message));
    }

    fn say(&mut self, node: NodeId, change: impl Fn(&mut Facts)) {
        let mut facts = self.state.node(node).expect("there").facts.clone();
        change(&mut facts);
        self.ok(Kind::UpdateNode(v1::UpdateNode {
            node: id_bytes(node.as_u128()),
            facts: Some((&facts).into()),
        }));
    }

    fn is_driven(&self, id: GuestId) -> bool {
        driven(&self.state, self.now_ms).any(|one| one.guest.id == id)
    }

    /// Others start, are well, and what they replace is withdrawn and ends: a step each.
    fn settle(&mut self) {
        (0..5).for_each(|_| self.place());
    }

    fn due(&self) -> Vec<Kind> {
        due_of_all(&self.state, self.now_ms, || GuestId::from_u128(1))
    }

    fn admin(&self, node: NodeId) -> Admin {
        self.state.node(node).expect("there").admin
    }
}

fn with_a_volume() -> World {
    let mut world = World::new(&[two_nodes()]);
    world.run(120);
    let nodes: Vec<NodeId> = world.state.nodes().map(|node| node.id).collect();
    for node in nodes {
        world.say(node, |facts| facts.storage = true);
    }
    world.service(1, (500, GIB), 1, |release| {
        release.storage.volumes = vec![Volume {
            name: "data".into(),
            path: "/data".into(),
            owner: None,
            size_bytes: 0,
            read_only: false,
            storage: None,
        }];
    });
    world.place();
    world
}

#[test]
fn nothing_is_done_before_its_node_is_empty_and_it_is_given_back_when_its_agent_is_back() {
    let mut world = World::new(&[two_nodes()]);
    world.service(1, (500, GIB), 1, |_| {});
    world.run(120);
    assert_eq!(world.running(), 1);
    let (id, node) = world.used();
    world.resize((id, node), |it| it.may_interrupt = true);
    assert!(!world.is_driven(id), "something runs there");
    assert!(world.due().is_empty(), "it can move");
    world.settle();
    assert!(world.due().is_empty(), "nothing is left");
    assert_eq!(world.running(), 1);
    assert_ne!(world.used().1, node, "it has moved");
    assert!(world.is_driven(id));
    world.note(id, &Note::Down);
    world.note(id, &Note::Resized { now_ms: 1 });
    // Its old word is no word of the new one.
    assert!(world.due().is_empty());
    world.say(node, |facts| facts.cpu_millis = 4_000);
    world.guests();
    assert_eq!(world.admin(node), Admin::Eligible);
    let one = world.state.guest(id).expect("there");
    assert_eq!((one.guest.size, &one.guest.resizing), (Some(TO), &None));
    assert!(world.due().is_empty());
}

#[test]
fn a_new_life_of_its_agent_is_a_word_as_well() {
    let mut world = World::new(&[two_nodes()]);
    world.service(1, (500, GIB), 1, |_| {});
    world.run(120);
    let (id, node) = world.used();
    world.resize((id, node), |_| {});
    world.note(id, &Note::Down);
    world.note(id, &Note::Resized { now_ms: 1 });
    world.ok(Kind::TakeSeat(v1::TakeSeat {
        node: id_bytes(node.as_u128()),
        expected: Vec::new(),
        seat: id_bytes(5),
    }));
    world.judge(node, NodeStatus::Lost);
    assert!(world.due().is_empty(), "it is not there");
    world.judge(node, NodeStatus::Ready);
    world.guests();
    assert_eq!(world.admin(node), Admin::Eligible);
}

#[test]
fn what_can_be_nowhere_else_is_stopped_where_that_was_said() {
    for may_interrupt in [false, true] {
        let mut world = with_a_volume();
        let (id, node) = world.used();
        assert_eq!(
            tied(&world.state, world.state.node(node).expect("there")),
            ["s1-e-p"]
        );
        world.resize((id, node), |it| it.may_interrupt = may_interrupt);
        world.settle();
        world.guests();
        world.settle();
        assert_eq!(world.is_driven(id), may_interrupt, "{may_interrupt}");
        if !may_interrupt {
            // By then it has had its time, as with any node that is drained.
            world.now_ms += 3_600_000 + 90_000;
            assert!(world.is_driven(id));
        }
    }
}

#[test]
fn one_that_becomes_smaller_takes_nothing_until_its_agent_says_so() {
    let mut world = World::new(&[two_nodes()]);
    world.service(1, (500, GIB), 1, |_| {});
    world.run(120);
    let smaller = GuestSize {
        cores: 1,
        memory_mib: 2_048,
        disk_gib: 20,
    };
    let live = |it: &mut v1::ResizeGuest| {
        (it.stops, it.cordons, it.size) = (false, true, Some(smaller.into()));
    };
    let (id, node) = world.used();
    world.resize((id, node), live);
    assert_eq!(world.admin(node), Admin::Cordoned);
    assert!(world.is_driven(id), "what runs there runs on");
    let done_ms = world.now_ms;
    world.note(id, &Note::Resized { now_ms: done_ms });
    assert!(world.due().is_empty());
    let mut silent = world.state.clone();
    world.say(node, |facts| {
        (facts.cpu_millis, facts.memory_bytes) = (1_000, 2 * GIB);
    });
    world.guests();
    assert_eq!(world.admin(node), Admin::Eligible);
    // One that says what it likes is not waited for for good.
    std::mem::swap(&mut world.state, &mut silent);
    world.now_ms = done_ms + HEARD_MS - 1;
    assert!(world.due().is_empty());
    world.now_ms += 1;
    assert_eq!(world.due().len(), 1);
}

#[test]
fn a_size_holds_what_was_promised_there() {
    let world = with_a_volume();
    let node = world.state.node(world.used().1).expect("there");
    let size = |cores, memory_mib| GuestSize {
        cores,
        memory_mib,
        disk_gib: 20,
    };
    for are_all in [true, false] {
        assert_eq!(too_small(&world.state, node, size(1, 1_024), are_all), None);
        let why = too_small(&world.state, node, size(1, 1_023), are_all).expect("too small");
        assert!(
            why.contains("1024 MiB") && why.contains("1023 MiB"),
            "{why}"
        );
    }
    let mut free = World::new(&[two_nodes()]);
    free.service(1, (500, GIB), 1, |_| {});
    free.run(120);
    let node = free.state.node(free.used().1).expect("there");
    // What moves away needs nothing there.
    assert_eq!(too_small(&free.state, node, size(1, 512), false), None);
    assert!(too_small(&free.state, node, size(1, 512), true).is_some());
}

/// Its pool takes the next ones to be like the others.
#[test]
fn nodes_are_not_taken_to_be_like_the_odd_one() {
    let mut one = two_nodes();
    (one.size.min, one.size.wanted, one.size.max) = (1, 1, 5);
    let mut world = World::new(&[one]);
    world.service(1, (500, GIB), 1, |_| {});
    world.run(120);
    let (id, node) = world.used();
    world.resize((id, node), |it| it.stops = false);
    world.note(id, &Note::Resized { now_ms: 1 });
    world.say(node, |facts| {
        (facts.cpu_millis, facts.memory_bytes) = (4_000, 8 * GIB);
    });
    // It fits on the odd one alone, and there is no room there.
    world.service(2, (3_500, GIB), 2, |_| {});
    world.place();
    assert_eq!(world.decide(), None, "none of two cores would do");
}
