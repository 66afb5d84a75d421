//! What is told next, and what is looked at again.

use skep_model::id::EnvironmentId;

use super::*;
use crate::forges::previewed;

const PREVIEW: Subject = Subject::Preview(EnvironmentId::from_u128(7));
const COPY: Subject = Subject::Service(ServiceId::from_u128(8));

#[test]
fn a_comment_waits_for_statuses_and_for_what_is_under_way() {
    let state = previewed();
    let mut open = all(&state);
    assert!(open.contains(&PREVIEW) && open.contains(&COPY), "{open:?}");
    let due = plan(&state, &mut open, (&BTreeSet::new(), 5_000));
    assert_eq!(due.tell.len(), 1, "one request at a time");
    let (key, first) = due.tell.iter().next().expect("one");
    assert!(matches!(first.of, Of::Deployment(_)), "{first:?}");
    assert_eq!(open, BTreeSet::from([PREVIEW, COPY]));
    let busy = plan(&state, &mut open, (&BTreeSet::from([key]), 5_000));
    assert!(busy.tell.is_empty());
    let mut alone = BTreeSet::from([PREVIEW]);
    let due = plan(&state, &mut alone, (&BTreeSet::new(), 5_000));
    assert!(matches!(due.tell[key].of, Of::Preview(_)));
}

#[test]
fn what_a_comment_says_is_looked_at_when_it_may_have_changed() {
    let state = previewed();
    let deployment = state.deployments_of(ServiceId::from_u128(8)).next();
    let deployment = deployment.expect("one").id;
    for (change, marked) in [
        (Change::Deployment(deployment), true),
        (Change::Service(ServiceId::from_u128(8)), true),
        (Change::Service(ServiceId::from_u128(4)), false),
        (Change::Preview(EnvironmentId::from_u128(7)), true),
        (Change::Settings, true),
        (Change::Forges, true),
        (Change::Notifications, false),
    ] {
        let mut open = BTreeSet::new();
        follow(&state, std::slice::from_ref(&change), &mut open);
        assert_eq!(open.contains(&PREVIEW), marked, "{change:?}");
    }
}
