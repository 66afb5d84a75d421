//! Whose build is next, and where: pure, so that a workspace with a hundred deployments on their way takes
//! no more than its turn.

use std::collections::{BTreeMap, BTreeSet};

use skep_model::build::{Builder, PER_NODE};
use skep_model::deployment::{Deployment, Origin, Status};
use skep_model::id::{DeploymentId, NodeId, WorkspaceId};
use skep_model::node::{Node, NodeStatus};
use skep_model::placement::Builds;
use skep_model::settings::DEFAULT_POOL;
use skep_state::State;

/// A build that waits for its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Which; ids rise with time.
    pub deployment: DeploymentId,
    /// Whose turn it takes.
    pub workspace: WorkspaceId,
    /// The builder that its node must have, as nodes name it; none: Docker is enough, as far as is known.
    pub needs: Option<String>,
    /// The nodes that have what it is made of; none: any can have it.
    pub at: Option<BTreeSet<NodeId>>,
}

/// A node that builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Which.
    pub node: NodeId,
    /// Builds that it does.
    pub busy: usize,
    /// What it has beside Docker.
    pub builders: Vec<String>,
    /// Its pool is for builds alone: it spares the nodes of apps.
    pub is_dedicated: bool,
}

impl Site {
    fn has(&self, needs: Option<&str>, holders: Option<&BTreeSet<NodeId>>) -> bool {
        let has = |needs: &str| self.builders.iter().any(|it| it == needs);
        needs.is_none_or(has) && holders.is_none_or(|it| it.contains(&self.node))
    }
}

/// Who can do a build, busy or not: as long as nodes can that do nothing else, only these.
pub fn able<'a>(
    sites: &'a [Site],
    needs: Option<&'a str>,
    holders: Option<&'a BTreeSet<NodeId>>,
) -> impl Iterator<Item = &'a Site> {
    let able = move || sites.iter().filter(move |site| site.has(needs, holders));
    let has_dedicated = able().any(|site| site.is_dedicated);
    able().filter(move |site| site.is_dedicated || !has_dedicated)
}

/// Who begins now, and where: again and again the workspace with the fewest builds under way, of it the
/// oldest, at the node with the fewest builds that has what it needs. Who needs what is busy holds nobody
/// else up.
pub fn turns(
    mut sites: Vec<Site>,
    mut running: BTreeMap<WorkspaceId, usize>,
    waiting: &[Waiting],
) -> Vec<(DeploymentId, NodeId)> {
    let mut left: Vec<&Waiting> = waiting.iter().collect();
    let mut turns = Vec::new();
    loop {
        let free = |one: &&Waiting| site_for(&sites, one).is_some();
        let next = left.iter().enumerate().filter(|(_, one)| free(one));
        let next = next.min_by_key(|(_, one)| {
            let under_way = running.get(&one.workspace).copied().unwrap_or_default();
            (under_way, one.deployment)
        });
        let Some((place, one)) = next.map(|(place, one)| (place, *one)) else {
            return turns;
        };
        let node = site_for(&sites, one).expect("it was free for the one chosen");
        turns.push((one.deployment, node));
        let chosen = sites.iter_mut().filter(|site| site.node == node);
        chosen.for_each(|site| site.busy += 1);
        *running.entry(one.workspace).or_default() += 1;
        left.swap_remove(place);
    }
}

/// Where who needs nothing stays away from what others need, if it can.
fn site_for(sites: &[Site], one: &Waiting) -> Option<NodeId> {
    let able = able(sites, one.needs.as_deref(), one.at.as_ref());
    able.filter(|site| site.busy < PER_NODE)
        .min_by_key(|site| (site.busy, site.node))
        .map(|site| site.node)
}

/// Looking up a ready image takes no turn.
pub fn takes_turn(deployment: &Deployment) -> bool {
    matches!(
        deployment.origin,
        Origin::Upload { .. } | Origin::Git { .. } | Origin::Pushed { .. }
    )
}

/// What the node of a deployment must have, as far as its service says.
pub fn needs(view: &State, deployment: &Deployment) -> Option<String> {
    let service = view.service(deployment.service)?;
    match (&service.spec.builder, takes_turn(deployment)) {
        (Some(builder @ (Builder::Nixpacks | Builder::Exec(_))), true) => Some(builder.to_string()),
        _ => None,
    }
}

/// The nodes that hold what a deployment is made of, ready or not; none: any node can fetch it.
pub fn holders(view: &State, deployment: &Deployment) -> Option<BTreeSet<NodeId>> {
    let Origin::Pushed { branch, commit, .. } = &deployment.origin else {
        return None;
    };
    let pushed = view.pushed(deployment.service);
    Some(pushed.map_or_else(BTreeSet::new, |it| it.holders_of(branch, commit)))
}

/// What a node is for, by the policy of its pool.
pub fn role(view: &State, node: &Node) -> Builds {
    let own = node.meta("pool").and_then(|pool| view.pool(pool));
    let policy = own.or_else(|| view.pool(DEFAULT_POOL));
    policy.map_or(Builds::default(), |pool| pool.policy.builds)
}

/// The nodes that build, and what they have to do.
pub fn sites(view: &State) -> Vec<Site> {
    let ready = view
        .nodes()
        .filter(|node| node.facts.builder && node.status == NodeStatus::Ready);
    ready
        .map(|node| (node, role(view, node)))
        .filter(|(_, role)| role.takes(true))
        .map(|(node, role)| Site {
            node: node.id,
            busy: view.builds_on(node.id).filter(|it| takes_turn(it)).count(),
            builders: node.facts.builders.clone(),
            is_dedicated: role == Builds::Only,
        })
        .collect()
}

/// The turns that the state calls for.
pub fn due(view: &State) -> Vec<(DeploymentId, NodeId)> {
    let sites = sites(view);
    // Costs the nodes while all are busy, not what waits.
    if sites.iter().all(|site| site.busy >= PER_NODE) {
        return Vec::new();
    }
    let mut running = BTreeMap::new();
    let mut waiting = Vec::new();
    for deployment in view.active_deployments().filter(|it| takes_turn(it)) {
        let Some(workspace) = workspace(view, deployment) else {
            continue;
        };
        match deployment.status {
            Status::Building => *running.entry(workspace).or_default() += 1,
            _ if deployment.may_begin() => waiting.push(Waiting {
                deployment: deployment.id,
                workspace,
                needs: needs(view, deployment),
                at: holders(view, deployment),
            }),
            _ => {}
        }
    }
    turns(sites, running, &waiting)
}

fn workspace(view: &State, deployment: &Deployment) -> Option<WorkspaceId> {
    let service = view.service(deployment.service)?;
    let environment = view.environment(service.environment)?;
    Some(view.project(environment.project)?.workspace)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(1, 0, "nixpacks")` is a node with nothing to do and Nixpacks, those from 7 on do nothing but build; `a:3` is deployment 3 of workspace a,
    /// `a:3!nixpacks` one that needs that, `a:3!@2` one that node 2 alone holds.
    fn told(sites: &[(u128, usize, &str)], running: &[(char, usize)], waiting: &[&str]) -> String {
        let sites = sites.iter().map(|(node, busy, builders)| Site {
            node: NodeId::from_u128(*node),
            busy: *busy,
            builders: builders.split_whitespace().map(str::to_owned).collect(),
            is_dedicated: *node >= 7,
        });
        let workspace = |name: char| WorkspaceId::from_u128(u128::from(u32::from(name)));
        let running = running
            .iter()
            .map(|(name, count)| (workspace(*name), *count));
        let at = |rest: &str| {
            let (_, node) = rest.split_once("!@")?;
            Some(BTreeSet::from([NodeId::from_u128(node.parse().ok()?)]))
        };
        let waiting: Vec<Waiting> = waiting
            .iter()
            .map(|text| {
                let (name, rest) = text.split_once(':').expect("workspace:number");
                let (number, needs) = match rest.split_once('!') {
                    Some((number, needs)) => (number, Some(needs.to_owned())),
                    None => (rest, None),
                };
                Waiting {
                    deployment: DeploymentId::from_u128(number.parse().expect("a number")),
                    workspace: workspace(name.chars().next().expect("a letter")),
                    needs: needs.filter(|needs| !needs.starts_with('@')),
                    at: at(rest),
                }
            })
            .collect();
        let turns = turns(sites.collect(), running.collect(), &waiting);
        let shown = turns
            .iter()
            .map(|(deployment, node)| format!("{}@{}", deployment.as_u128(), node.as_u128()));
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_workspace_with_many_takes_its_turn_and_no_more() {
        let hundred: Vec<String> = (1..=100).map(|number| format!("a:{number}")).collect();
        let mut waiting: Vec<&str> = hundred.iter().map(String::as_str).collect();
        waiting.push("b:200");
        waiting.push("c:300");
        assert_eq!(told(&[(1, 0, "")], &[], &waiting), "1@1 200@1");
        assert_eq!(told(&[(1, 1, "")], &[('a', 1)], &waiting), "200@1");
        assert_eq!(
            told(&[(1, 0, ""), (2, 0, "")], &[('a', 1)], &waiting),
            "200@1 300@2 1@1 2@2"
        );
    }

    #[test]
    fn the_rules_in_a_table() {
        type Case<'a> = (&'a [(u128, usize, &'a str)], &'a [&'a str], &'a str);
        let cases: [Case<'_>; 13] = [
            // Who has it builds it, however busy it is.
            (&[(1, 0, ""), (2, 1, "")], &["a:1!@2"], "1@2"),
            (&[(1, 0, ""), (2, 2, "")], &["a:1!@2", "b:2"], "2@1"),
            (&[], &["a:1"], ""),
            (&[(1, 2, "")], &["a:1"], ""),
            (&[(1, 1, ""), (2, 0, "")], &["a:1"], "1@2"),
            // Oldest first within a workspace.
            (&[(1, 1, "")], &["a:2", "a:1"], "1@1"),
            (&[(1, 0, ""), (2, 1, "nixpacks")], &["a:1!nixpacks"], "1@2"),
            // Who needs what is busy holds nobody else up.
            (
                &[(1, 0, ""), (2, 2, "nixpacks")],
                &["a:1!nixpacks", "a:2"],
                "2@1",
            ),
            (
                &[(1, 1, "exec:bazel")],
                &["a:1!exec:make", "b:2!exec:bazel"],
                "2@1",
            ),
            // Who does nothing but build comes first, and is waited for;
            (&[(1, 0, ""), (7, 1, "")], &["a:1", "b:2"], "1@7"),
            (&[(1, 0, ""), (7, 2, "")], &["a:1"], ""),
            // not where it could not do it.
            (
                &[(1, 0, "nixpacks"), (7, 0, "")],
                &["a:1!nixpacks", "b:2"],
                "1@1 2@7",
            ),
            (&[(1, 0, ""), (7, 0, "")], &["a:1!@1"], "1@1"),
        ];
        for (sites, waiting, expected) in cases {
            assert_eq!(told(sites, &[], waiting), expected, "{waiting:?}");
        }
    }
}
