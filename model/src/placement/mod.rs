//! What a service asks of the place where it runs, beyond amounts: pool, constraints, spread,
//! affinities, distinctness, ports and devices. Owns their text forms, which are also their
//! stored forms; never looks at a cluster.

mod affinity;
mod constraint;
mod spread;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::node::{MAX_META_KEY, check_meta};
use crate::problem::Problem;

pub use affinity::{Affinity, MAX_WEIGHT, Toward};
pub use constraint::{Constraint, Operator};
pub use spread::{MaxPer, Spread};

/// Most constraints, and most affinities, of one service.
pub const MAX_RULES: usize = 32;
/// Most attributes that one service spreads over: the length of a score's key.
pub const MAX_SPREADS: usize = 4;
/// Most limits of allocations per value of an attribute.
pub const MAX_LIMITS: usize = 4;
/// Most static ports, and most kinds of devices, of one allocation.
pub const MAX_NAMED: usize = 16;
/// Ports that a node gives to allocations that ask for any: those between the kernel's default
/// range for clients (from 32768) and the registered services.
pub const DYNAMIC_PORTS: u32 = 12_000;
/// The first of them.
pub const FIRST_DYNAMIC_PORT: u16 = 20_000;
/// Priorities are between minus this and this.
pub const MAX_PRIORITY: i32 = 1_000;

/// How the nodes that can take an allocation are ranked, after spread and affinities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Fill nodes: few of them are used, large holes stay whole.
    Binpack,
    /// Use what is used least: headroom for bursts.
    Spread,
    /// Keep each node's resources equally used, so that none is left over alone.
    Balanced,
}

impl Strategy {
    /// Every strategy, in the order of the stored format: append only.
    pub const ALL: [Self; 3] = [Self::Binpack, Self::Spread, Self::Balanced];
}

/// What becomes of an allocation whose node is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum CutOff {
    /// It runs on; a replacement is started beside it once its node is given up.
    #[default]
    Keep,
    /// Its agent stops it after this time, by its own clock; it is replaced only then.
    Stop {
        /// After how long, in ms.
        after_ms: u64,
    },
}

/// What a service asks of the place where it runs. The empty value asks nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Placement {
    /// Only nodes of this pool (metadata `pool`); none: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Only nodes that fulfil each of these: `tier = pro`, `kernel version >=5.10`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<Constraint>,
    /// Constraints are preferences: fewest broken first.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub relaxed: bool,
    /// Spread over the values of these attributes, the first before the second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub spread: Vec<Spread>,
    /// At most so many allocations of the service per value of an attribute: `1 per host`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub max_per: Vec<MaxPer>,
    /// Rather near these, or rather far from them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub affinities: Vec<Affinity>,
    /// How the rest is ranked; none: as the pool does, else binpack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// Ports of the node that each allocation needs for itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// How many more ports, whichever.
    #[serde(skip_serializing_if = "is_zero")]
    pub dynamic_ports: u32,
    /// Devices by name and count, as the nodes' agents report them: `gpu`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub devices: BTreeMap<String, u32>,
    /// Architectures that the image is made for, as nodes spell them (`x86_64`); empty: every one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<String>,
    /// Only nodes whose data plane offers the private network.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub private_network: bool,
    /// May displace what is lower where there is no room otherwise.
    pub priority: i32,
    /// Of the service's allocations, so many may be missing through displacement at one time; none: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<u32>,
    /// What becomes of them when their node is silent.
    pub cut_off: CutOff,
}

/// What the nodes of a pool are for: those that build have no apps beside them that builds could slow down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = PoolBuilds))]
#[serde(rename_all = "snake_case")]
pub enum Builds {
    /// Builds, and everything else.
    #[default]
    Also,
    /// Builds alone. As long as one such node can do a build, no other one does.
    Only,
    /// Everything but builds.
    Never,
}

impl Builds {
    /// Every word, in the order of the stored format: append only.
    pub const ALL: [Self; 3] = [Self::Also, Self::Only, Self::Never];

    /// Whether a node takes this: a build, or anything else.
    pub const fn takes(self, is_build: bool) -> bool {
        match self {
            Self::Also => true,
            Self::Only => is_build,
            Self::Never => !is_build,
        }
    }
}

/// What holds for every node of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct PoolPolicy {
    /// CPU that may be requested, in percent of what there is.
    pub cpu_percent: u32,
    /// Memory that may be requested, in percent of what there is.
    pub memory_percent: u32,
    /// CPU kept for the node's own, in thousandths of a core.
    pub reserved_cpu_millis: u32,
    /// Memory kept for the node's own, in percent; at least 64 MiB is kept in any case.
    pub reserved_memory_percent: u32,
    /// Disk kept for the node's own, in percent.
    pub reserved_disk_percent: u32,
    /// How nodes are ranked for services that do not say; none: binpack.
    pub strategy: Option<Strategy>,
    /// What its nodes are for.
    pub builds: Builds,
}

impl Default for PoolPolicy {
    /// No overcommitting; 5% of memory and of disk are kept, CPU is shared by weight.
    fn default() -> Self {
        Self {
            cpu_percent: 100,
            memory_percent: 100,
            reserved_cpu_millis: 0,
            reserved_memory_percent: 5,
            reserved_disk_percent: 5,
            strategy: None,
            builds: Builds::Also,
        }
    }
}

impl PoolPolicy {
    /// Checks every field.
    ///
    /// # Errors
    /// The first that is not accepted, and what would be.
    pub fn check(&self) -> Result<(), Problem> {
        let bounds = [
            ("cpu_percent", self.cpu_percent, 10, 2_000),
            ("memory_percent", self.memory_percent, 10, 400),
            (
                "reserved_memory_percent",
                self.reserved_memory_percent,
                0,
                90,
            ),
            ("reserved_disk_percent", self.reserved_disk_percent, 0, 90),
        ];
        for (field, value, low, high) in bounds {
            if !(low..=high).contains(&value) {
                let text = format!("{value} is out of range");
                return Err(Problem::invalid(field, text).hint(format!("{low} to {high}")));
            }
        }
        Ok(())
    }
}

impl Placement {
    /// Checks every field; `at` is the path that problems begin with.
    ///
    /// # Errors
    /// The first field that is not accepted, and what would be.
    pub fn check(&self, at: &str) -> Result<(), Problem> {
        let field = |name: &str| format!("{at}.{name}");
        let counts = [
            ("constraints", self.constraints.len(), MAX_RULES),
            ("affinities", self.affinities.len(), MAX_RULES),
            ("spread", self.spread.len(), MAX_SPREADS),
            ("max_per", self.max_per.len(), MAX_LIMITS),
            ("ports", self.ports.len(), MAX_NAMED),
            ("devices", self.devices.len(), MAX_NAMED),
            ("architectures", self.architectures.len(), MAX_NAMED),
        ];
        for (name, count, most) in counts {
            if count > most {
                let text = format!("{count} are too many");
                return Err(Problem::invalid(field(name), text).hint(format!("at most {most}")));
            }
        }
        if let Some(pool) = &self.pool {
            check_meta("pool", pool).map_err(|problem| problem.at(field("pool")))?;
        }
        for (index, rule) in self.constraints.iter().enumerate() {
            let at = field(&format!("constraints[{index}]"));
            rule.check().map_err(|problem| problem.at(at))?;
        }
        for (index, spread) in self.spread.iter().enumerate() {
            let at = field(&format!("spread[{index}]"));
            spread.check().map_err(|problem| problem.at(at))?;
        }
        for (index, limit) in self.max_per.iter().enumerate() {
            let at = field(&format!("max_per[{index}]"));
            limit.check().map_err(|problem| problem.at(at))?;
        }
        for (index, affinity) in self.affinities.iter().enumerate() {
            let at = field(&format!("affinities[{index}]"));
            affinity.check().map_err(|problem| problem.at(at))?;
        }
        self.check_named(&field)
    }

    /// Refuses what the scheduler counts on and agents of this version do not carry out. Above all: the
    /// leader replaces what a silent node was to stop by itself, so a promise that nobody keeps would
    /// let an exclusive service run twice.
    ///
    /// # Errors
    /// The first such field.
    pub fn check_carried_out(&self, at: &str) -> Result<(), Problem> {
        if !self.private_network {
            return Ok(());
        }
        let text = "agents of this version do not carry this out";
        Err(Problem::invalid(format!("{at}.private_network"), text).hint("leave it out"))
    }

    fn check_named(&self, field: &dyn Fn(&str) -> String) -> Result<(), Problem> {
        let mut ports = self.ports.clone();
        ports.sort_unstable();
        if ports.windows(2).any(|pair| pair[0] == pair[1]) || ports.contains(&0) {
            let text = "each port once, and not 0";
            return Err(Problem::invalid(field("ports"), text).hint("for example [8080, 8443]"));
        }
        let chosen = FIRST_DYNAMIC_PORT..FIRST_DYNAMIC_PORT + DYNAMIC_PORTS as u16;
        if let Some(port) = ports.iter().find(|port| chosen.contains(port)) {
            let text = format!("{port} is one of those that agents give out themselves");
            let hint = format!("below {} or from {}", chosen.start, chosen.end);
            return Err(Problem::invalid(field("ports"), text).hint(hint));
        }
        if self.dynamic_ports > DYNAMIC_PORTS {
            let text = format!("{} is out of range", self.dynamic_ports);
            let hint = format!("0 to {DYNAMIC_PORTS}");
            return Err(Problem::invalid(field("dynamic_ports"), text).hint(hint));
        }
        for (name, count) in &self.devices {
            check_key(name).map_err(|problem| problem.at(field("devices")))?;
            if *count == 0 {
                let text = format!("none of `{name}` is no request");
                return Err(
                    Problem::invalid(field("devices"), text).hint("1 or more, or leave it out")
                );
            }
        }
        for name in &self.architectures {
            check_key(name).map_err(|problem| problem.at(field("architectures")))?;
        }
        if self.priority.abs() > MAX_PRIORITY {
            let text = format!("{} is out of range", self.priority);
            let hint = format!("-{MAX_PRIORITY} to {MAX_PRIORITY}");
            return Err(Problem::invalid(field("priority"), text).hint(hint));
        }
        match self.cut_off {
            CutOff::Stop { after_ms } if !(1_000..=86_400_000).contains(&after_ms) => {
                let text = format!("{after_ms} ms is out of range");
                Err(Problem::invalid(field("cut_off.after_ms"), text).hint("1000 to 86400000"))
            }
            _ => Ok(()),
        }
    }
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// An attribute's name: a key of metadata, or one that every node has of itself.
///
/// # Errors
/// Says what is accepted.
fn check_key(key: &str) -> Result<(), Problem> {
    check_meta(key, "").map_err(|_| {
        let shown: String = key.chars().take(MAX_META_KEY + 1).collect();
        Problem::invalid("key", format!("`{}` is not an attribute", shown.escape_debug())).hint(
            "a metadata key, or node.name, node.arch, node.kernel, node.docker, node.agent, node.pool",
        )
    })
}

/// A value as people write it in a rule: no comma, no line end, not empty.
fn check_value(value: &str) -> Result<(), Problem> {
    check_meta("value", value)?;
    let is_odd = value.is_empty() || value.trim() != value || value.contains(',');
    if is_odd {
        let text = format!("`{}` is not a value", value.escape_debug());
        return Err(Problem::invalid("value", text).hint("text without commas, not empty"));
    }
    Ok(())
}

/// Values with commas between them.
fn values(text: &str) -> Vec<String> {
    text.split(',').map(|part| part.trim().to_owned()).collect()
}

/// The text form is the only form: for people, in JSON and in the store.
macro_rules! as_text {
    ($($name:ident),+) => {$(
        impl TryFrom<String> for $name {
            type Error = Problem;

            fn try_from(text: String) -> Result<Self, Problem> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                String::schema()
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $name {}
    )+};
}
use as_text;
