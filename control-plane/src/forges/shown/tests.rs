//! What is shown of which deployment, and what an answer leads to.

use skep_forge::api::{State as Stands, Verdict};
use skep_model::deployment::Deployment;
use skep_model::forge::Kind as ForgeKind;

use super::super::tests::{ONE, apply, connected_as, deploy, git};
use super::*;

const SERVICE: ServiceId = ServiceId::from_u128(4);

fn told(state: &State) -> Vec<(ToShow, u64)> {
    let all = shown_news(state, SERVICE).into_iter();
    let all = all.filter_map(|news| match news.of {
        Of::Shown(to_show) => Some((*to_show, news.at_ms)),
        _ => None,
    });
    all.collect()
}

fn settle(state: &mut State, id: Option<u64>, verdict: Verdict, now_ms: u64) {
    let (to_show, _) = told(state).remove(0);
    let connection = state.forges().next().expect("one").clone();
    let left = Left { id, verdict };
    let settled = shown_settlement(&connection, &to_show, (left, now_ms));
    apply(state, settled);
}

fn only(state: &State) -> Arc<Deployment> {
    state.deployments_of(SERVICE).next().expect("one").clone()
}

#[test]
fn github_alone_is_shown_deployments_until_it_knows() {
    for kind in ForgeKind::ALL {
        let mut state = connected_as(kind);
        deploy(&mut state, 10, git("git.test", Some(ONE)));
        let is_shown = !told(&state).is_empty();
        assert_eq!(is_shown, kind == ForgeKind::GitHub, "{kind}");
    }
    let mut state = connected_as(ForgeKind::GitHub);
    deploy(&mut state, 10, git("git.test", Some(ONE)));
    let (first, at_ms) = told(&state).remove(0);
    let shown = &first.shown;
    assert_eq!((&*shown.environment, at_ms), ("shop/production", 0));
    assert_eq!(shown.state, Some(Stands::Pending));
    assert!(shown.is_production && !shown.is_transient);
    let connection = state.forges().next().expect("one").clone();
    assert_eq!(
        super::super::waiting(&state, &connection),
        1,
        "with its status"
    );
    settle(&mut state, Some(7), Verdict::Taken, 5_000);
    assert!(told(&state).is_empty());
    // Another one takes its place: both are told of.
    deploy(
        &mut state,
        11,
        git("git.test", Some(&ONE.replace('3', "4"))),
    );
    let all = told(&state);
    let seen: Vec<_> = all.iter().map(|(it, _)| (it.id, it.shown.state)).collect();
    assert_eq!(seen, [(None, Some(Stands::Pending)), (Some(7), None)]);
}

#[test]
fn a_right_that_is_missing_is_asked_for_once_and_stops_nothing_else() {
    let mut state = connected_as(ForgeKind::GitHub);
    deploy(&mut state, 10, git("git.test", Some(ONE)));
    settle(&mut state, None, Verdict::Never("403".into()), 5_000);
    assert!(told(&state).is_empty());
    assert_eq!(super::super::news(&state, SERVICE).len(), 1, "its status");
    deploy(
        &mut state,
        11,
        git("git.test", Some(&ONE.replace('3', "4"))),
    );
    let left: Vec<_> = told(&state)
        .into_iter()
        .map(|it| it.0.deployment.id)
        .collect();
    assert_eq!(left.len(), 1, "the old one is not asked for again");
    assert!(left[0] != only(&state).id);
    // Something that will pass is tried again.
    settle(&mut state, None, Verdict::Again("502".into()), 6_000);
    let (_, at_ms) = told(&state).remove(0);
    assert!((6_001..=11_000).contains(&at_ms), "{at_ms}");
}
