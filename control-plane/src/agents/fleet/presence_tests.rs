use super::*;

use proptest::prelude::*;

fn heard_at(last_heard: Instant) -> Presence {
    Presence {
        session: 1,
        is_connected: true,
        broke: false,
        last_heard,
        runtime: Runtime::Ok,
        routes: RouteStatus::default(),
        challenges: 0,
        ca: None,
        version: 0,
    }
}

#[test]
fn what_broke_and_what_is_silent_is_suspect_and_what_left_is_not() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let connected = heard_at(start);
    let ended = |broke| Presence {
        is_connected: false,
        broke,
        ..connected
    };
    for (presence, ms, suspect) in [
        (connected, 3_999, false),
        (connected, 4_000, true),
        (connected, 8_000, false),
        (ended(true), 199, false),
        (ended(true), 200, true),
        (ended(true), 8_000, false),
        (ended(false), 200, false),
        (ended(false), 7_999, false),
    ] {
        assert_eq!(
            presence.is_suspect(start, at(ms)),
            suspect,
            "{presence:?} {ms}"
        );
    }
    // A leader that has just begun holds no silence from before against anybody.
    assert!(!connected.is_suspect(at(3_000), at(5_000)));
}

#[test]
fn testimony_counts_until_the_node_is_heard() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let node = heard_at(start);
    let conclude = |presence: Presence, is_lost, ms| {
        conclude(Some(&presence), Some(at(5_000)), is_lost, (start, at(ms)))
    };
    assert_eq!(conclude(node, false, 5_001), Conclusion::Witnessed);
    // It is lost now; that nobody has noticed its session to be dead does not bring it back.
    assert_eq!(conclude(node, true, 5_002), Conclusion::Silent);
    let heard = heard_at(at(5_500));
    let there = Conclusion::There(NodeStatus::Ready, at(5_500) + LOST_AFTER);
    assert_eq!(conclude(heard, true, 5_600), there);
    assert_eq!(conclude(heard, false, 5_600), there);
}

/// What befalls a session.
#[derive(Debug, Clone, Copy)]
enum Event {
    Connects,
    Speaks,
    Breaks,
    Leaves,
    ServerEnds,
}

fn event() -> impl Strategy<Value = (Event, u64)> {
    let kinds = prop_oneof![
        Just(Event::Connects),
        Just(Event::Speaks),
        Just(Event::Breaks),
        Just(Event::Leaves),
        Just(Event::ServerEnds),
    ];
    (kinds, 0..9_000u64)
}

proptest! {
    /// However connections come, break and go: without testimony nobody is lost who was heard within
    /// [`LOST_AFTER`].
    #[test]
    fn no_sequence_of_broken_connections_is_a_death(
        events in proptest::collection::vec(event(), 1..40),
        look_ms in 0..9_000u64,
    ) {
        let mut now = Instant::now();
        let began = now;
        let mut presence = heard_at(now);
        for (event, pause_ms) in events {
            let looked = now + Duration::from_millis(look_ms.min(pause_ms));
            let concluded = conclude(Some(&presence), None, false, (began, looked));
            let is_early = presence.silence(looked) < LOST_AFTER;
            prop_assert!(concluded != Conclusion::Witnessed);
            prop_assert!(concluded != Conclusion::Silent || !is_early, "{presence:?}");
            now += Duration::from_millis(pause_ms);
            let (is_connected, broke) = match event {
                Event::Connects | Event::Speaks => (true, false),
                Event::Breaks => (false, true),
                Event::Leaves | Event::ServerEnds => (false, false),
            };
            presence = Presence { is_connected, broke, ..heard_at(now) };
        }
    }
}
