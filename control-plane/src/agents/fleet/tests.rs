use super::*;
use skep_model::node::Facts;

const NODE: NodeId = NodeId::from_u128(1);
const OTHER: ServerId = ServerId::from_u128(2);

fn node(status: NodeStatus) -> Node {
    Node {
        id: NODE,
        name: "one".into(),
        facts: Facts::default(),
        status,
        status_ms: 0,
        generation: 0,
        joined_ms: 0,
        meta: BTreeMap::new(),
        admin: Default::default(),
        seat: 0,
        witnesses: Vec::new(),
        fencing: Default::default(),
    }
}

fn word(connected: bool, silent: Duration) -> Word {
    Word {
        node: NODE,
        connected,
        runtime: Runtime::Ok,
        routes: RouteStatus::default(),
        challenges: 0,
        silent,
        ca: None,
        broke: false,
    }
}

#[test]
fn another_servers_word_counts_until_it_is_too_old() {
    let fleet = Fleet::default();
    fleet.learn(OTHER, true, vec![word(true, Duration::ZERO)]);
    assert_eq!(fleet.place_of(NODE), Some(Place::At(OTHER)));
    assert_eq!(
        fleet.judge(&node(NodeStatus::Lost)).status,
        NodeStatus::Ready,
        "heard of through the other server"
    );
    fleet.learn(OTHER, false, vec![word(true, LOST_AFTER)]);
    assert_eq!(fleet.place_of(NODE), None);
    assert_eq!(
        fleet.judge(&node(NodeStatus::Lost)).status,
        NodeStatus::Lost,
        "a dead server's word has run out"
    );
}

#[test]
fn a_node_that_moved_is_where_it_was_heard_last() {
    let fleet = Fleet::default();
    assert!(fleet.connect(NODE, 1));
    fleet.learn(OTHER, true, vec![word(false, Duration::ZERO)]);
    assert_eq!(fleet.place_of(NODE), Some(Place::Here), "connected wins");
    fleet.disconnect(NODE, 1, false);
    assert_eq!(fleet.place_of(NODE), None);
    fleet.learn(OTHER, false, vec![word(true, Duration::from_secs(3))]);
    assert_eq!(fleet.place_of(NODE), Some(Place::At(OTHER)));
    fleet.learn(OTHER, true, vec![]);
    assert_eq!(fleet.place_of(NODE), None, "a full report replaces");
}

#[test]
fn the_ca_of_a_nodes_certificate_is_what_the_node_said_last() {
    let fleet = Fleet::default();
    let (old, new) = (KeyId::from_bytes(&[1; 20]), KeyId::from_bytes(&[2; 20]));
    let told = |ca| Word {
        ca,
        ..word(true, Duration::ZERO)
    };
    assert_eq!(fleet.ca_of(NODE), None);
    fleet.learn(OTHER, true, vec![told(old)]);
    assert_eq!(fleet.ca_of(NODE), old);
    fleet.connect(NODE, 1);
    assert_eq!(fleet.ca_of(NODE), None, "a new session has not said yet");
    fleet.certified(NODE, 1, new);
    assert_eq!(fleet.ca_of(NODE), new);
    assert_eq!(fleet.words_since(0).0[0].ca, new);
}

#[test]
fn a_new_leader_gives_everybody_time() {
    let fleet = Fleet::default();
    let long_ago = Instant::now().checked_sub(2 * LOST_AFTER);
    fleet.inner.books.lock().judged_from = long_ago.expect("a machine that is up for a while");
    assert_eq!(
        fleet.judge(&node(NodeStatus::Ready)).status,
        NodeStatus::Lost
    );
    fleet.begin_judging();
    let judged = fleet.judge(&node(NodeStatus::Ready));
    assert_eq!(judged.status, NodeStatus::Ready);
    assert!(judged.look_again.is_some());
}

#[test]
fn words_are_told_once_and_again_when_there_is_news() {
    let fleet = Fleet::default();
    fleet.connect(NODE, 1);
    let (all, upto) = fleet.words_since(0);
    assert_eq!(all.len(), 1);
    assert_eq!(fleet.words_since(upto).0, vec![]);
    fleet.heard(NODE, 1);
    assert_eq!(fleet.words_since(upto).0.len(), 1);
    fleet.heard(NODE, 2);
    let (_, upto) = fleet.words_since(upto);
    assert_eq!(
        fleet.words_since(upto).0,
        vec![],
        "an older session is mute"
    );
}
