//! Where a service may run. An empty placement is no message: what was stored before there were
//! placements has the same bytes as one that asks nothing.

use std::fmt::Display;
use std::str::FromStr;

use skep_model::placement::{CutOff, Placement, Strategy};

use super::{Error, enum_number, enum_value, error};
use crate::v1;

pub(crate) fn out(placement: &Placement) -> Option<v1::Placement> {
    if *placement == Placement::default() {
        return None;
    }
    let strategy = placement.strategy;
    Some(v1::Placement {
        pool: placement.pool.clone(),
        constraints: texts(&placement.constraints),
        relaxed: placement.relaxed,
        spread: texts(&placement.spread),
        max_per: texts(&placement.max_per),
        affinities: texts(&placement.affinities),
        strategy: strategy.map_or(0, |one| enum_number(&Strategy::ALL, &one)),
        ports: placement
            .ports
            .iter()
            .map(|port| u32::from(*port))
            .collect(),
        dynamic_ports: placement.dynamic_ports,
        devices: placement.devices.clone(),
        architectures: placement.architectures.clone(),
        private_network: placement.private_network,
        priority: placement.priority,
        max_unavailable: placement.max_unavailable,
        stop_after_ms: match placement.cut_off {
            CutOff::Keep => None,
            CutOff::Stop { after_ms } => Some(after_ms),
        },
    })
}

pub(crate) fn read(message: Option<v1::Placement>) -> Result<Placement, Error> {
    let Some(message) = message else {
        return Ok(Placement::default());
    };
    let ports = message.ports.into_iter();
    let ports = ports.map(|port| u16::try_from(port).map_err(|_| error("ports")));
    Ok(Placement {
        pool: message.pool,
        constraints: parse("constraints", &message.constraints)?,
        relaxed: message.relaxed,
        spread: parse("spread", &message.spread)?,
        max_per: parse("max_per", &message.max_per)?,
        affinities: parse("affinities", &message.affinities)?,
        strategy: match message.strategy {
            0 => None,
            number => Some(enum_value("strategy", &Strategy::ALL, number)?),
        },
        ports: ports.collect::<Result<_, _>>()?,
        dynamic_ports: message.dynamic_ports,
        devices: message.devices,
        architectures: message.architectures,
        private_network: message.private_network,
        priority: message.priority,
        max_unavailable: message.max_unavailable,
        cut_off: match message.stop_after_ms {
            None => CutOff::Keep,
            Some(after_ms) => CutOff::Stop { after_ms },
        },
    })
}

fn texts<T: Display>(rules: &[T]) -> Vec<String> {
    rules.iter().map(ToString::to_string).collect()
}

fn parse<T: FromStr>(field: &'static str, texts: &[String]) -> Result<Vec<T>, Error> {
    let rules = texts.iter().map(|text| text.parse());
    rules.collect::<Result<_, _>>().map_err(|_| error(field))
}
