//! Merging: counters of several ingresses, lost, doubled and late messages, restarts; what is not known.

use std::time::{Duration, Instant};

use skep_model::id::{AllocationId, NodeId, ServiceId};
use skep_model::sample::{
    AllocationReading, IngressReading, LATENCY_BUCKETS, NodeReading, Samples, ServiceCounters,
};

use super::board::Board;
use super::book::{Book, Heard, Usage};
use super::latency::percentile_ms;
use super::ring::{Requests, Ring};
use super::track::Track;

const SERVICE: ServiceId = ServiceId::from_u128(1);
const ONE: NodeId = NodeId::from_u128(1);
const TWO: NodeId = NodeId::from_u128(2);
const APP: AllocationId = AllocationId::from_u128(1);
/// When the tests begin, on the leader's clock.
const T0: u64 = 1_000_000;
const WINDOW: u64 = 10_000;

fn counters(requests: u64, in_flight: u64) -> ServiceCounters {
    let mut counters = ServiceCounters {
        in_flight,
        ..Default::default()
    };
    counters.requests[1] = requests;
    counters.latency[3] = requests;
    counters
}

/// A node whose agent and ingress both have this life, at a time of their clocks.
fn said(life: u64, at_ms: u64, counted: Option<ServiceCounters>) -> Samples {
    Samples {
        life,
        at_ms,
        node: NodeReading {
            cpu_us: Some(at_ms * 500),
            memory_bytes: Some(9),
        },
        allocations: Vec::new(),
        ingress: Some(IngressReading {
            life,
            at_ms,
            services: counted.map(|it| (SERVICE, it)).into_iter().collect(),
        }),
    }
}

fn with_app(mut samples: Samples, container: u64, cpu_us: u64) -> Samples {
    samples.allocations.push(AllocationReading {
        allocation: APP,
        container,
        cpu_us: Some(cpu_us),
        memory_bytes: Some(cpu_us),
        age_ms: 0,
        extras: None,
    });
    samples
}

/// Rate (rounded) and requests under way at a time after the beginning.
fn traffic(book: &Book, after_ms: u64) -> Option<(Option<u64>, u64)> {
    let now_ms = T0 + after_ms;
    let heard: Heard = book.ingresses(now_ms)?;
    let traffic = book.traffic(SERVICE, (WINDOW, now_ms), heard);
    Some((
        traffic.rate.map(|rate| rate.round() as u64),
        traffic.in_flight,
    ))
}

/// Both nodes serve 10 requests a second each for 20 s.
fn two_nodes() -> Book {
    let mut book = Book::default();
    for second in (0..=20).step_by(2) {
        let at = second * 1_000;
        book.learn(
            ONE,
            said(11, 50 + at, Some(counters(second * 10, 3))),
            T0 + at,
        );
        let late = T0 + at + 900;
        book.learn(
            TWO,
            said(22, 7_000 + at, Some(counters(500 + second * 10, 4))),
            late,
        );
    }
    book
}

#[test]
fn several_ingresses_are_summed() {
    let book = two_nodes();
    assert_eq!(traffic(&book, 21_000), Some((Some(20), 7)));
    let heard = book.ingresses(T0 + 21_000).expect("heard");
    let requests = book.traffic(SERVICE, (WINDOW, T0 + 21_000), heard).requests;
    let p95 = percentile_ms(&requests.latency, 0.95).expect("requests");
    assert!((5.0..=10.0).contains(&p95), "{p95}");
}

#[test]
fn what_nobody_counts_is_not_known_and_what_is_idle_is_zero() {
    let mut book = Book::default();
    assert_eq!(traffic(&book, 0), None);
    book.learn(ONE, said(11, 0, None), T0);
    assert_eq!(traffic(&book, 0), Some((None, 0)), "no span yet");
    book.learn(ONE, said(11, 2_000, None), T0 + 2_000);
    assert_eq!(traffic(&book, 2_000), Some((Some(0), 0)));
    let mut away = said(11, 4_000, None);
    away.ingress = None;
    book.learn(ONE, away, T0 + 4_000);
    assert_eq!(traffic(&book, 4_000), None);
}

#[test]
fn the_first_word_is_where_counting_begins_and_what_appears_later_has_begun_at_zero() {
    let mut book = Book::default();
    book.learn(ONE, said(11, 900_000, Some(counters(1_000_000, 0))), T0);
    book.learn(ONE, said(11, 902_000, None), T0 + 2_000);
    assert_eq!(
        traffic(&book, 2_000),
        Some((Some(0), 0)),
        "a past of unknown length"
    );
    let mut book = Book::default();
    book.learn(ONE, said(11, 0, None), T0);
    book.learn(ONE, said(11, 2_000, Some(counters(40, 1))), T0 + 2_000);
    assert_eq!(traffic(&book, 2_000), Some((Some(20), 1)));
}

#[test]
fn doubled_and_late_words_change_nothing() {
    let mut book = two_nodes();
    let before = traffic(&book, 21_000);
    for second in [20_u64, 4, 20, 0] {
        let at = second * 1_000;
        book.learn(
            ONE,
            said(11, 50 + at, Some(counters(second * 10, 9))),
            T0 + 20_950,
        );
    }
    assert_eq!(traffic(&book, 21_000), before);
}

#[test]
fn a_lost_word_costs_resolution_alone() {
    let mut book = Book::default();
    for second in [0_u64, 2, 10, 12] {
        let at = second * 1_000;
        book.learn(ONE, said(11, at, Some(counters(second * 10, 0))), T0 + at);
    }
    assert_eq!(traffic(&book, 12_000), Some((Some(10), 0)));
}

#[test]
fn counters_that_begin_anew_never_go_below_zero() {
    let mut book = two_nodes();
    // The ingress restarts, with its agent: a new life of both, counters from 0.
    book.learn(ONE, said(12, 100, Some(counters(5, 1))), T0 + 22_000);
    book.learn(TWO, said(22, 29_000, Some(counters(720, 4))), T0 + 22_900);
    book.learn(ONE, said(12, 2_100, Some(counters(25, 1))), T0 + 24_000);
    book.learn(TWO, said(22, 31_000, Some(counters(740, 4))), T0 + 24_900);
    // Of the two seconds in between nothing is known of the one node: 8 of 10 s of its 10 a second.
    assert_eq!(traffic(&book, 25_000), Some((Some(18), 5)));
    // What comes late of its former life is not heard.
    book.learn(ONE, said(11, 30_000, Some(counters(900, 70))), T0 + 24_950);
    assert_eq!(traffic(&book, 25_000), Some((Some(18), 5)));
    // The same life, but the service came back to the table after it was gone.
    book.learn(ONE, said(12, 4_100, Some(counters(20, 1))), T0 + 26_000);
    let grown = Requests::grown(&counters(25, 1), &counters(20, 1));
    assert!((grown.all - 20.0).abs() < 0.01, "{grown:?}");
}

#[test]
fn a_node_that_is_silent_counts_no_more_and_holds_nobody_up() {
    let mut book = two_nodes();
    for second in (22..=40).step_by(2) {
        let at = second * 1_000;
        book.learn(
            ONE,
            said(11, 50 + at, Some(counters(second * 10, 3))),
            T0 + at,
        );
    }
    assert_eq!(traffic(&book, 40_000), Some((Some(10), 3)));
    assert_eq!(traffic(&book, 51_000), None, "both are silent");
}

fn cpu(usage: Option<&Usage>) -> Option<u64> {
    usage?.cpu.millis(WINDOW)
}

#[test]
fn containers_are_measured_by_their_own_clock_and_a_new_one_begins_anew() {
    let mut book = Book::default();
    let key = (ONE, APP);
    // A quarter of a core.
    for second in (0..=20).step_by(2) {
        let at = second * 1_000;
        book.learn(ONE, with_app(said(1, at, None), 7, at * 250), T0 + at);
    }
    assert_eq!(cpu(book.allocation(key, T0 + 20_000)), Some(250));
    assert_eq!(cpu(book.node(ONE, T0 + 20_000)), Some(500));
    // Its next container has burned more already than the former ever did.
    book.learn(
        ONE,
        with_app(said(1, 22_000, None), 8, 9_000_000),
        T0 + 22_000,
    );
    assert_eq!(cpu(book.allocation(key, T0 + 22_000)), None, "one reading");
    book.learn(
        ONE,
        with_app(said(1, 24_000, None), 8, 11_000_000),
        T0 + 24_000,
    );
    assert_eq!(cpu(book.allocation(key, T0 + 24_000)), Some(1_000));
    // The agent restarts: its clock begins anew, the container's counter does not.
    book.learn(
        ONE,
        with_app(said(2, 100, None), 8, 12_000_000),
        T0 + 26_000,
    );
    assert_eq!(cpu(book.allocation(key, T0 + 26_000)), None);
    book.learn(
        ONE,
        with_app(said(2, 2_100, None), 8, 12_200_000),
        T0 + 28_000,
    );
    assert_eq!(cpu(book.allocation(key, T0 + 28_000)), Some(100));
    assert!(book.allocation(key, T0 + 39_000).is_none(), "too old");
    assert!(
        book.allocation((TWO, APP), T0 + 28_000).is_none(),
        "another node's"
    );
}

#[test]
fn what_has_ended_is_forgotten() {
    let mut book = two_nodes();
    book.learn(ONE, with_app(said(11, 23_000, None), 7, 1), T0 + 22_000);
    assert_eq!(book.sizes(), (2, 1, 1));
    book.retain(T0 + 22_000, |_| true, |_| true, |_| true);
    assert_eq!(book.sizes(), (2, 1, 1), "all of it lives");
    book.retain(T0 + 22_000, |node| node == ONE, |_| false, |_| false);
    assert_eq!(book.sizes(), (1, 0, 0));
}

#[test]
fn a_ring_keeps_what_it_was_given_and_only_as_long_as_it_reaches() {
    let requests = Requests {
        all: 12.0,
        latency: [0.0; LATENCY_BUCKETS],
    };
    let mut ring = Ring::new(T0);
    ring.add((T0 + 1_000, T0 + 7_000), &requests);
    let sum = |from: u64, to: u64, ring: &Ring| ring.sum((T0 + from, T0 + to)).all.round();
    assert!((sum(0, 8_000, &ring) - 12.0).abs() < 0.01);
    assert!((sum(2_000, 6_000, &ring) - 8.0).abs() < 0.01);
    ring.add((T0 + 70_000, T0 + 72_000), &requests);
    assert!(sum(0, 60_000, &ring).abs() < 0.01, "overwritten");
    assert!(!ring.is_over(T0 + 100_000) && ring.is_over(T0 + 200_000));
}

#[test]
fn a_track_reaches_back_over_the_longest_window_with_few_readings() {
    let mut track = Track::default();
    // Idle for a minute, then busy for ten seconds.
    let cpu_us = |at: u64| at.saturating_sub(60_000) * 1_000;
    for at in (0..=70_000).step_by(2_000) {
        track.push(at, cpu_us(at));
    }
    assert_eq!(track.millis(1_000), Some(1_000));
    let long = track.millis(28_000).expect("known");
    assert!((300..=360).contains(&long), "{long}");
    track.push(70_000, 0);
    assert_eq!(track.millis(1_000), Some(1_000), "not newer");
    assert_eq!(Track::default().millis(1_000), None);
}

#[test]
fn percentiles_stay_within_their_bucket() {
    let mut buckets = [0.0; LATENCY_BUCKETS];
    assert_eq!(percentile_ms(&buckets, 0.95), None);
    buckets[0] = 95.0;
    buckets[6] = 5.0;
    let at = |buckets: &[f32; LATENCY_BUCKETS], share| percentile_ms(buckets, share).unwrap();
    assert!((at(&buckets, 0.95) - 1.0).abs() < 0.01);
    assert!((at(&buckets, 0.99) - 90.0).abs() < 0.1);
    buckets[LATENCY_BUCKETS - 1] = 1_000.0;
    assert!(
        (at(&buckets, 0.95) - 10_000.0).abs() < 0.01,
        "no bound: at least"
    );
}

#[test]
fn the_board_tells_what_is_new_and_everything_after_a_rewind() {
    let (mut board, now) = (Board::default(), Instant::now());
    board.hear(
        (ONE, 5),
        with_app(said(1, 0, Some(counters(1, 0))), 7, 1),
        now,
    );
    board.hear((TWO, 6), said(2, 0, None), now);
    let words = board.take(usize::MAX, now);
    assert_eq!(words.len(), 2);
    assert_eq!(
        words[0].said,
        with_app(said(1, 0, Some(counters(1, 0))), 7, 1)
    );
    assert_eq!(board.take(usize::MAX, now), vec![]);
    board.hear((ONE, 5), said(1, 2_000, None), now);
    let words = board.take(usize::MAX, now + Duration::from_secs(1));
    assert_eq!(
        words[0].said,
        said(1, 2_000, None),
        "the service did not change"
    );
    assert_eq!(words[0].held, Duration::from_secs(1));
    board.rewind();
    let all = board.take(usize::MAX, now);
    assert_eq!(all.len(), 2);
    let services = |said: &Samples| said.ingress.as_ref().map_or(0, |it| it.services.len());
    assert_eq!(
        (services(&all[0].said), all[0].said.allocations.len()),
        (1, 1)
    );
    assert_eq!(all[0].said.allocations[0].age_ms, 2_000);
    board.disconnect(ONE, 4);
    board.disconnect(TWO, 6);
    board.rewind();
    assert_eq!(
        board.take(usize::MAX, now).len(),
        1,
        "another session's end is not ours"
    );
}

#[test]
fn a_slow_leader_gets_the_newest_word_and_what_it_missed_is_counted() {
    let (mut board, now) = (Board::default(), Instant::now());
    for second in 0..5 {
        let samples = with_app(said(1, second * 2_000, None), 7, second);
        board.hear((ONE, 5), samples, now);
    }
    board.hear((TWO, 6), said(2, 0, Some(counters(1, 0))), now);
    assert_eq!(board.dropped(), 4);
    assert_eq!(
        board.lag(now + Duration::from_secs(3)),
        Duration::from_secs(3)
    );
    let first = board.take(1, now);
    assert_eq!((first.len(), first[0].node), (1, ONE), "bounded");
    assert_eq!(first[0].said.allocations[0].cpu_us, Some(4));
    let second = board.take(1, now);
    assert_eq!((second.len(), second[0].node), (1, TWO), "and fair");
    assert_eq!(board.lag(now + Duration::from_secs(3)), Duration::ZERO);
}

#[test]
fn an_allocation_costs_a_few_hundred_bytes() {
    assert!(
        size_of::<(AllocationId, Usage)>() <= 224,
        "{}",
        size_of::<Usage>()
    );
    assert!(size_of::<Ring>() <= 1_536, "{}", size_of::<Ring>());
}
