//! Where the time of a push went: from the deployment's timeline and build log, from its allocation, and from
//! Docker. All are on one machine, and so on one clock.

use anyhow::{Context as _, Result};
use serde_json::Value;
use skep_tests::Cluster;

/// What is waited for, in order; each from the end of the one before.
pub(super) const PHASES: [&str; 10] = [
    "push, hook, deployment made",
    "build given to the node",
    "cloned",
    "built",
    "image kept",
    "release made, rollout begun",
    "allocation placed, container started",
    "healthy",
    "routed: first answer",
    "live, from the first answer",
];

/// What was seen of one push.
pub(super) struct Seen {
    /// When it began, ms since the epoch, as all of these.
    pub(super) begun_ms: f64,
    /// First answer of the new release.
    pub(super) answered_ms: f64,
    /// The stream's end.
    pub(super) live_ms: f64,
    /// As the API shows it.
    pub(super) deployment: Value,
    /// Its timeline and log.
    pub(super) events: Vec<Value>,
}

impl Seen {
    /// How long each phase took.
    pub(super) async fn phases(&self, cluster: &Cluster) -> Result<Vec<f64>> {
        let id = self.deployment["id"].as_str().context("an id")?;
        let all = cluster.api.get("/v1/allocations").await?;
        let all = all["allocations"].as_array().context("allocations")?;
        let own = all.iter().find(|one| one["deployment"] == id);
        let own = own.context("the deployment has no allocation")?;
        let ends = [
            time(&self.deployment, "created_ms")?,
            self.said("building on node")?,
            self.said("source: commit")?,
            self.before("image: kept for every node")?,
            self.said("image: kept for every node")?,
            self.said("release ")?,
            started_ms(cluster, own["id"].as_str().context("an id")?).await?,
            time(own, "state_ms")?,
            self.answered_ms,
            self.live_ms,
        ];
        let begins = std::iter::once(self.begun_ms).chain(ends);
        Ok(ends
            .iter()
            .zip(begins)
            .map(|(end, begin)| end - begin)
            .collect())
    }

    fn place(&self, text: &str) -> Result<usize> {
        let says = |event: &Value| {
            event["text"]
                .as_str()
                .is_some_and(|it| it.starts_with(text))
        };
        let place = self.events.iter().position(says);
        place.with_context(|| format!("nothing says `{text}`: {:#?}", self.events))
    }

    fn said(&self, text: &str) -> Result<f64> {
        time(&self.events[self.place(text)?], "at_ms")
    }

    /// The time of what was said before that: BuildKit's last word.
    fn before(&self, text: &str) -> Result<f64> {
        let place = self.place(text)?.checked_sub(1);
        time(
            &self.events[place.context("it is the first line")?],
            "at_ms",
        )
    }
}

fn time(of: &Value, field: &str) -> Result<f64> {
    of[field]
        .as_f64()
        .with_context(|| format!("{field} of {of}"))
}

/// When Docker started the allocation's container.
async fn started_ms(cluster: &Cluster, allocation: &str) -> Result<f64> {
    let containers = cluster.containers.of_cluster(&cluster.id).await?;
    let own = containers.iter().find(|one| one.allocation == allocation);
    let own = own.context("the allocation has no container")?;
    cluster.containers.started_ms(&own.id).await
}
