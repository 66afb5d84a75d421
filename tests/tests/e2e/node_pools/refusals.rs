//! What only hosts of Proxmox can do is refused where machines come from a program, or exist: to people and to programs, with
//! why, and with what to do instead; and nothing is changed by it.

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::{Value, json};
use skep_tests::api::Name;
use skep_tests::{Cluster, wait};

use super::{SETTLED, node};

/// A pool that a provider makes which is no Proxmox cluster, and a node of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Elsewhere<'a> {
    pub(super) provider: &'a str,
    /// What such a provider is called.
    pub(super) word: &'a str,
    pub(super) pool: &'a str,
    pub(super) node: &'a str,
}

/// Options of a pool that speak of hosts, with the field that each is.
const OF_HOSTS: [(&str, &str); 13] = [
    ("--template pve1=9000", "templates"),
    ("--lxc", "kind"),
    ("--disk-name scsi1", "disk"),
    ("--storage local", "storage"),
    ("--full-clone", "full_clone"),
    ("--bridge vmbr1", "bridge"),
    ("--vlan 7", "vlan"),
    (
        "--addresses 10.0.0.100-10.0.0.110/24 --gateway 10.0.0.1",
        "addresses",
    ),
    ("--user skep", "user"),
    ("--vmids 6000-6010", "vmids"),
    ("--resource-pool other", "resource_pool"),
    ("--max-per-host 1", "max_per_host"),
    ("--backup @weekly --backup-storage nas", "backups"),
];

impl<'a> Elsewhere<'a> {
    /// A node of the pool `metal`, on a machine of the list `rack`.
    pub(super) const fn rack(node: &'a str) -> Self {
        Self {
            provider: "rack",
            word: "a list of machines",
            pool: "metal",
            node,
        }
    }

    /// Each is refused, and the pool and its node stay what they were.
    pub(super) async fn refuses(&self, cluster: &Cluster) -> Result<()> {
        let before = self.written_down(cluster).await?;
        self.refuses_options(cluster).await?;
        self.refuses_copies(cluster).await?;
        self.refuses_sizes(cluster).await?;
        self.is_one_thing(cluster).await?;
        let after = self.written_down(cluster).await?;
        ensure!(before == after, "{before} has become {after}");
        Ok(())
    }

    /// What of the pool and of the node would be another after anything was done.
    async fn written_down(&self, cluster: &Cluster) -> Result<Value> {
        let show = ["pool", "show", self.pool, "--json"];
        let shown = cluster.skep.run(&show).await?.json()?["nodes"].clone();
        let providers = cluster.api.get("/v1/providers").await?;
        let providers = providers["providers"].as_array().context("a list")?;
        let provider = providers.iter().find(|it| it["name"] == self.provider);
        let node = node(cluster, self.node).await?.context("a node")?;
        Ok(json!({
            "generation": shown["generation"],
            "recipe": shown["recipe"],
            "size": shown["size"],
            "backups": shown["backups"],
            "guests": shown["guests"].as_array().map(Vec::len),
            "provider": provider.context("a provider")?,
            "admin": node["admin"],
            "own_size": node["own_size"],
        }))
    }

    async fn refuses_options(&self, cluster: &Cluster) -> Result<()> {
        for (option, field) in OF_HOSTS {
            for line in [
                format!("pool create other --provider {} {option}", self.provider),
                format!(
                    "pool create other --provider {} {option} --plan",
                    self.provider
                ),
                format!("pool change {} {option}", self.pool),
            ] {
                let refused = run(cluster, &line).await?.code(2)?;
                let refused = refused.says(&[field, self.word]);
                refused.with_context(|| line.clone())?;
            }
        }
        let known = self.written_down(cluster).await?;
        ensure!(known["generation"].is_u64(), "{known}");
        let backups = json!({"schedule": "@weekly", "storage": "nas", "keep": 2});
        for (of, field, value) in [
            ("recipe", "templates", json!({"pve1": 9_000})),
            ("recipe", "max_per_host", json!(1)),
            ("", "backups", backups),
        ] {
            let mut asked = json!({
                "provider": self.provider,
                "recipe": known["recipe"],
                "size": known["size"],
            });
            match of {
                "" => asked[field] = value,
                of => asked[of][field] = value,
            }
            let path = format!("/v1/node-pools/{}", self.pool);
            for (method, path) in [
                (Method::PUT, path.clone()),
                (Method::POST, format!("{path}/plan")),
            ] {
                let refused = cluster
                    .api
                    .refused(method, &path, Some(&asked), 400)
                    .await?;
                let refused = refused.with_hint()?;
                let named = refused.field.as_deref().unwrap_or_default();
                ensure!(named.ends_with(field), "{refused:?}");
                ensure!(refused.told().contains(self.word), "{refused:?}");
            }
        }
        Ok(())
    }

    async fn refuses_copies(&self, cluster: &Cluster) -> Result<()> {
        let name = self.node;
        for line in [
            format!("node backups {name}"),
            format!("node backup {name}"),
            format!("node restore {name} --from nas:backup/one --plan"),
            format!("node restore {name} --from nas:backup/one --yes"),
        ] {
            let refused = run(cluster, &line).await?.code(1)?;
            let refused = refused.says(&[
                self.provider,
                self.word,
                "makes no copies of guests",
                "skep volume snapshot",
            ]);
            refused.with_context(|| line.clone())?;
        }
        let asked = json!({"archive": "nas:backup/one"});
        for (method, rest, body) in [
            (Method::GET, "backups", None),
            (Method::POST, "backups", None),
            (Method::POST, "restore", Some(&asked)),
        ] {
            let path = format!("/v1/nodes/{name}/{rest}");
            self.conflicts(cluster, (method, &path, body)).await?;
        }
        Ok(())
    }

    async fn refuses_sizes(&self, cluster: &Cluster) -> Result<()> {
        for more in ["--cores 4 --plan", "--memory 4096 --yes", "--disk 64"] {
            let line = format!("node resize {} {more}", self.node);
            let refused = run(cluster, &line).await?.code(1)?;
            let refused = refused.says(&[self.provider, self.word, "by its own means"]);
            refused.with_context(|| line.clone())?;
        }
        let path = format!("/v1/nodes/{}/resize", self.node);
        let asked = json!({"cores": 4, "interrupt": true});
        let resize = (Method::POST, path.as_str(), Some(&asked));
        self.conflicts(cluster, resize).await
    }

    /// Refused as what cannot be had here, by the provider's name and kind.
    async fn conflicts(
        &self,
        cluster: &Cluster,
        (method, path, body): (Method, &str, Option<&Value>),
    ) -> Result<()> {
        let refused = cluster.api.refused(method, path, body, 409).await?;
        let told = refused.with_hint()?.told();
        let names = told.contains(self.provider) && told.contains(self.word);
        ensure!(names, "{path}: {told}");
        Ok(())
    }

    /// A provider of one kind is not made one of another, nor two at once.
    async fn is_one_thing(&self, cluster: &Cluster) -> Result<()> {
        let path = format!("/v1/providers/{}", self.provider);
        let machines = json!([{"name": "m9", "address": "10.0.0.9", "mac": "bc:24:11:00:00:09"}]);
        let both = json!({"program": {"file": "cloud.sh"}, "machines": machines});
        let hosts = json!({"machines": machines, "endpoints": ["https://pve1.lan:8006"]});
        for asked in [both, hosts] {
            let refused = cluster.api.refused(Method::PUT, &path, Some(&asked), 400);
            let told = refused.await?.with_hint()?.told();
            ensure!(told.contains("a provider is one thing"), "{told}");
        }
        Ok(())
    }
}

/// A node that is lost, and that nobody ends: what has its data on shared storage waits, says why, and goes on by a person's
/// word alone.
pub(super) async fn is_ended_by_nobody(
    cluster: &Cluster,
    elsewhere: Elsewhere<'_>,
    (app, survivor): (&Name, &str),
) -> Result<()> {
    let lost = elsewhere.node;
    let why = format!(
        "the provider `{}` is {}, which ends no machine of a lost node",
        elsewhere.provider, elsewhere.word
    );
    let by_hand = format!("skep node fence {lost} --confirm");
    wait::until_ok("people to be told", SETTLED, async || {
        let shown = cluster.skep.run(&["node", "show", lost]).await?.ok()?;
        shown.says(&[&why, &by_hand])
    })
    .await?;
    let target = format!("{}/production/{}", app.project, app.service);
    let said = cluster.skep.run(&["why", &target]).await?.ok()?;
    said.says(&["not confirmed dead", &by_hand])?;
    let there = cluster.api.live_allocations(app).await?;
    ensure!(is_on(cluster, app, lost).await?, "it has moved: {there:?}");

    let confirm = ["node", "fence", lost, "--confirm"];
    cluster.skep.run(&confirm).await?.ok()?;
    wait::until("it to go on", SETTLED, async || {
        Ok(is_on(cluster, app, survivor).await?.then_some(()))
    })
    .await
}

/// Whether what is to run of it is there, healthy or not heard of.
pub(super) async fn is_on(cluster: &Cluster, app: &Name, node: &str) -> Result<bool> {
    let all = cluster.api.get("/v1/allocations").await?;
    let all = all["allocations"].as_array().context("a list")?;
    let mut live = all.iter().filter(|one| {
        let is_over = ["stopped", "failed", "lost"]
            .iter()
            .any(|it| one["state"] == *it);
        one["service"] == *app.service && one["desired"] == "run" && !is_over
    });
    Ok(live.next().is_some_and(|one| one["node"] == node) && live.next().is_none())
}

async fn run(cluster: &Cluster, line: &str) -> Result<skep_tests::skep::Ended> {
    let words: Vec<&str> = line.split_whitespace().collect();
    cluster.skep.run(&words).await
}
