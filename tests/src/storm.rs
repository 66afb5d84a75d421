//! A storm of webhook deliveries: distinct pushes of many services, and as many duplicates of them, at a pace.
//! What each was answered is kept, and compared with what the server then has.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::api::{Api, Name};
use crate::webhook::{Delivery, push_body};

/// Deployments of one service that a server keeps after they ended: no more pushes are made of one.
const KEPT: usize = 30;

/// A service with its webhook.
struct Hooked {
    name: Name,
    path: String,
    secret: String,
}

/// Services that are pushed to.
pub struct Storm {
    services: Vec<Hooked>,
}

/// How one delivery was answered.
#[derive(Debug)]
pub struct Told {
    /// Which of the distinct pushes it was.
    pub push: usize,
    /// The status of the answer.
    pub status: u16,
    /// From the first byte sent to the last one received.
    pub took: Duration,
    reply: Value,
}

/// What a storm made.
#[derive(Debug, PartialEq, Eq)]
pub struct Counts {
    /// Deployments that answers named, each once.
    pub deployments: usize,
    /// Answers that named one that was there before.
    pub replayed: usize,
    /// Deployments that a newer one of their service took the place of.
    pub superseded: usize,
    /// Deployments that wait for a builder.
    pub queued: usize,
}

impl Storm {
    /// Makes so many services, each with a git source and a webhook.
    ///
    /// # Errors
    /// The server refuses one.
    pub async fn prepare(api: &Api, services: usize) -> Result<Self> {
        let mut all = Vec::new();
        for number in 0..services {
            let name = Name::of(&format!("storm{number}"));
            let repository = format!("https://forge.invalid/team/app{number}.git");
            let source = json!({ "type": "git", "repository": repository, "branch": "main" });
            api.put_service(&name, json!({ "source": source })).await?;
            let made = api.post(&name.path("/webhook"), &json!({})).await?;
            let text = |field: &str| made[field].as_str().map(str::to_owned);
            all.push(Hooked {
                path: text("path").context("a path")?,
                secret: text("secret").context("a secret")?,
                name,
            });
        }
        Ok(Self { services: all })
    }

    fn delivery(&self, push: usize) -> Result<(Delivery, &str)> {
        let service = &self.services[push % self.services.len()];
        let body = push_body("main", &"1".repeat(40), &commit(push))?;
        let delivery = Delivery::signed("push", &format!("storm-{push}"), body, &service.secret);
        Ok((delivery, &service.path))
    }

    /// Sends `deliveries` within `within`, evenly, to the servers by turns: every second one is a duplicate of
    /// one that was sent a moment ago, or is on its way still.
    ///
    /// # Errors
    /// A delivery had no answer.
    pub async fn blow(
        &self,
        apis: &[Api],
        deliveries: usize,
        within: Duration,
    ) -> Result<Vec<Told>> {
        ensure!(
            deliveries / 2 <= self.services.len() * KEPT,
            "more pushes of a service than are kept"
        );
        let pause = within / u32::try_from(deliveries)?;
        let mut tick = tokio::time::interval(pause);
        let mut sent = JoinSet::new();
        for place in 0..deliveries {
            let push = match place % 2 {
                0 => place / 2,
                _ => (place / 2).saturating_sub(place % 7),
            };
            let (delivery, path) = self.delivery(push)?;
            let (api, path) = (apis[place % apis.len()].clone(), path.to_owned());
            tick.tick().await;
            sent.spawn(async move {
                let begun = Instant::now();
                let answer = delivery.post_to(&api, &path).await?;
                let took = begun.elapsed();
                let (status, reply) = (answer.status, answer.json()?);
                Ok::<_, anyhow::Error>(Told {
                    push,
                    status,
                    took,
                    reply,
                })
            });
        }
        let mut told = Vec::new();
        while let Some(one) = sent.join_next().await {
            told.push(one??);
        }
        Ok(told)
    }

    /// Every push has one deployment, of its own commit, whichever delivery was first; all answers name it, and
    /// the server has it and no other.
    ///
    /// # Errors
    /// Says which is not so.
    pub async fn check(&self, api: &Api, told: &[Told]) -> Result<Counts> {
        let mut by_push: BTreeMap<usize, (&str, usize)> = BTreeMap::new();
        for one in told {
            ensure!(matches!(one.status, 200 | 202), "{one:?}");
            let id = one.reply["deployment"].as_str();
            let id = id.with_context(|| format!("{one:?}"))?;
            let entry = by_push.entry(one.push).or_insert((id, 0));
            ensure!(
                entry.0 == id,
                "push {} has two deployments: {one:?}",
                one.push
            );
            entry.1 += usize::from(one.status == 202);
        }
        for (push, (id, made)) in &by_push {
            ensure!(
                *made == 1,
                "deployment {id} of push {push} was made {made} times"
            );
        }
        let named: BTreeSet<&str> = by_push.values().map(|(id, _)| *id).collect();
        let mut commits = BTreeMap::new();
        let mut counts = Counts {
            deployments: named.len(),
            replayed: told.iter().filter(|one| one.status == 200).count(),
            superseded: 0,
            queued: 0,
        };
        for service in &self.services {
            let path = service.name.path("/deployments?limit=100");
            let page = api.get(&path).await?;
            for deployment in page["deployments"].as_array().context("a list")? {
                let id = deployment["id"].as_str().context("an id")?.to_owned();
                ensure!(
                    named.contains(id.as_str()),
                    "nobody was told of {deployment}"
                );
                match deployment["status"].as_str() {
                    Some("superseded") => counts.superseded += 1,
                    Some("queued") => counts.queued += 1,
                    _ => anyhow::bail!("{deployment}"),
                }
                let commit = deployment["origin"]["commit"].clone();
                ensure!(
                    commits.insert(id, commit).is_none(),
                    "listed twice: {deployment}"
                );
            }
        }
        for (push, (id, _)) in &by_push {
            let has = commits.get(*id).and_then(Value::as_str);
            ensure!(
                has == Some(commit(*push).as_str()),
                "{id} of push {push}: {has:?}"
            );
        }
        Ok(counts)
    }
}

fn commit(push: usize) -> String {
    format!("{:040x}", push + 1)
}
