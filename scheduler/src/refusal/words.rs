//! How reasons and amounts are said.

use std::fmt;

use super::Count;
use crate::filter::{Ask, Reason};

/// The rule that a reason stands for, as it was written.
pub(crate) fn name_of(reason: Reason, ask: &Ask) -> String {
    let placement = &ask.placement;
    let text = match reason {
        Reason::Pool => placement.pool.clone(),
        Reason::Constraint(index) => {
            let rule = placement.constraints.get(usize::from(index));
            rule.map(ToString::to_string)
        }
        Reason::MaxPer(index) => {
            let limit = placement.max_per.get(usize::from(index));
            limit.map(ToString::to_string)
        }
        Reason::Skew(index) => {
            let spread = placement.spread.get(usize::from(index));
            spread.map(ToString::to_string)
        }
        Reason::Device(index) => placement.devices.keys().nth(usize::from(index)).cloned(),
        Reason::Port(port) => Some(port.to_string()),
        Reason::Architecture => Some(placement.architectures.join(", ")),
        Reason::HostPath(index) => {
            let path = ask.storage.host_paths.get(usize::from(index));
            path.map(|path| path.host.clone())
        }
        Reason::SharedStorage(index) => {
            let mut shared = ask.storage.shared().into_iter();
            shared.nth(usize::from(index)).map(str::to_owned)
        }
        // Where several nodes reach the data, one of them has them in use.
        Reason::Data => ask.storage.is_shared().then(|| "in use".to_owned()),
        Reason::Workspace => ask.around.workspace.clone(),
        _ => None,
    };
    text.unwrap_or_default()
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (best, rule) = (&self.best, &self.rule);
        let is_one = self.nodes == 1;
        let subject = match self.nodes {
            1 => "1 node".to_owned(),
            many => format!("{many} nodes"),
        };
        let by_number = |one, many| if is_one { one } else { many };
        let lacks = by_number("lacks", "lack");
        let amounts = match self.reason {
            Reason::Cpu => Some(("CPU", cores(self.needs), cores(self.free))),
            Reason::Memory => Some(("memory", mib_up(self.needs), mib_down(self.free))),
            Reason::Disk => Some(("disk", mib_up(self.needs), mib_down(self.free))),
            Reason::DynamicPorts => Some(("ports", self.needs.to_string(), self.free.to_string())),
            _ => None,
        };
        if let Some((what, needs, free)) = amounts {
            let mark = by_number("", " (best)");
            return write!(
                f,
                "{subject} {lacks} {what}: needs {needs}, {free} free on `{best}`{mark}"
            );
        }
        let text = match self.reason {
            Reason::Device(_) => {
                let (needs, free) = (self.needs, self.free);
                let mark = by_number("", " (best)");
                format!("{lacks} device `{rule}`: needs {needs}, {free} free on `{best}`{mark}")
            }
            Reason::Port(port) => format!("{} no free port {port}", by_number("has", "have")),
            Reason::MaxPer(_) => format!("{} full by the limit `{rule}`", by_number("is", "are")),
            Reason::Skew(_) => format!("would break the spread `{rule}`"),
            Reason::Pool => format!("{} not in pool `{rule}`", by_number("is", "are")),
            Reason::Constraint(_) => {
                format!("{} not fulfil `{rule}`", by_number("does", "do"))
            }
            Reason::Architecture => {
                let has = by_number("has", "have");
                format!("{has} an architecture that the image is not made for ({rule})")
            }
            Reason::PrivateNetwork => format!("{lacks} the private network"),
            Reason::Storage => format!("{} an agent without volumes", by_number("has", "have")),
            Reason::HostPath(_) => {
                format!(
                    "{} not offer the host path `{rule}`",
                    by_number("does", "do")
                )
            }
            Reason::SharedStorage(_) => {
                format!("{} not have the storage `{rule}`", by_number("does", "do"))
            }
            Reason::Workspace => {
                format!("{} for other workspaces", by_number("is", "are"))
            }
            Reason::Builds => {
                format!("{} only for builds, or for none", by_number("is", "are"))
            }
            Reason::Image => "cannot get the image".to_owned(),
            Reason::Data if !rule.is_empty() => {
                format!("{} not have its volumes in use", by_number("does", "do"))
            }
            Reason::Data => format!("{} not have its volumes", by_number("does", "do")),
            Reason::Elsewhere => {
                let is = by_number("is", "are");
                format!("{is} not where an allocation is being moved to")
            }
            Reason::Cordoned => format!("{} cordoned", by_number("is", "are")),
            Reason::Draining => format!("{} being drained", by_number("is", "are")),
            Reason::RuntimeDown => format!("{} no working Docker", by_number("has", "have")),
            Reason::RuntimeWedged => format!("{} a Docker that hangs", by_number("has", "have")),
            Reason::MemoryUnknown => {
                let does = by_number("does", "do");
                format!("{does} not know how much memory there is")
            }
            Reason::Lost => format!("{} lost", by_number("is", "are")),
            Reason::Cpu | Reason::Memory | Reason::Disk | Reason::DynamicPorts => return Ok(()),
        };
        write!(f, "{subject} {text}")?;
        match is_one && !self.reason.is_room() {
            true => write!(f, " (`{best}`)"),
            false => Ok(()),
        }
    }
}

/// Thousandths as cores: `1.5 cores`.
pub(crate) fn cores(millis: u64) -> String {
    let unit = if millis == 1_000 { "core" } else { "cores" };
    let text = format!("{}.{:03}", millis / 1_000, millis % 1_000);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} {unit}")
}

/// Rounded up: what is needed or missing.
pub(crate) fn mib_up(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// Rounded down: what there is. So the two differ wherever something is missing.
pub(crate) fn mib_down(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_well_and_never_hide_a_shortfall() {
        assert_eq!(cores(1_000), "1 core");
        assert_eq!(cores(1_500), "1.5 cores");
        assert_eq!(cores(50), "0.05 cores");
        assert_eq!(cores(20_000), "20 cores");
        assert_eq!(
            (mib_up((1 << 20) + 1), mib_down((2 << 20) - 1)),
            ("2 MiB".into(), "1 MiB".into())
        );
    }
}
