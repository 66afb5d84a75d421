//! What is measured, in messages.

use skep_model::id::{AllocationId, DeploymentId, ServiceId};
use skep_model::sample::{
    AllocationReading, Counter, Extras, IngressReading, NodeReading, Samples, ServiceCounters,
    TriedCounters,
};

use super::{Error, error, id, id_bytes};
use crate::v1;

impl From<&Samples> for v1::Samples {
    fn from(samples: &Samples) -> Self {
        Self {
            life: samples.life,
            at_ms: samples.at_ms,
            node: Some(v1::NodeReading {
                cpu_us: samples.node.cpu_us,
                memory_bytes: samples.node.memory_bytes,
            }),
            allocations: samples.allocations.iter().map(Into::into).collect(),
            ingress: samples.ingress.as_ref().map(Into::into),
            extras: extras_out(samples.allocations.iter().map(|it| it.extras.as_ref())),
        }
    }
}

impl TryFrom<v1::Samples> for Samples {
    type Error = Error;

    fn try_from(message: v1::Samples) -> Result<Self, Error> {
        let node = message.node.unwrap_or_default();
        let allocations = message.allocations.into_iter().map(TryInto::try_into);
        let mut allocations: Vec<AllocationReading> = allocations.collect::<Result<_, _>>()?;
        for extras in &message.extras {
            let place = allocations.get_mut(extras.at as usize);
            place.ok_or(error("extras"))?.extras = Some(extras_in(extras)?);
        }
        Ok(Self {
            life: message.life,
            at_ms: message.at_ms,
            node: NodeReading {
                cpu_us: node.cpu_us,
                memory_bytes: node.memory_bytes,
            },
            allocations,
            ingress: message.ingress.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<&AllocationReading> for v1::AllocationReading {
    fn from(reading: &AllocationReading) -> Self {
        Self {
            allocation: id_bytes(reading.allocation.as_u128()),
            container: reading.container,
            cpu_us: reading.cpu_us,
            memory_bytes: reading.memory_bytes,
            age_ms: reading.age_ms,
        }
    }
}

impl TryFrom<v1::AllocationReading> for AllocationReading {
    type Error = Error;

    fn try_from(message: v1::AllocationReading) -> Result<Self, Error> {
        Ok(Self {
            allocation: id!(AllocationId, message.allocation),
            container: message.container,
            cpu_us: message.cpu_us,
            memory_bytes: message.memory_bytes,
            age_ms: message.age_ms,
            extras: None,
        })
    }
}

/// The rest of those readings, in order, that have one.
pub fn extras_out<'a>(readings: impl Iterator<Item = Option<&'a Extras>>) -> Vec<v1::Extras> {
    let placed = readings.enumerate();
    let each = placed.filter_map(|(at, extras)| {
        let extras = extras?;
        let known = || extras.known();
        Some(v1::Extras {
            at: u32::try_from(at).ok()?,
            age_ms: u32::try_from(extras.age_ms).unwrap_or(u32::MAX),
            which: known().fold(0, |bits, (counter, _)| bits | 1 << counter as u32),
            values: known().map(|(_, value)| value).collect(),
        })
    });
    each.collect()
}

fn extras_in(message: &v1::Extras) -> Result<Extras, Error> {
    if message.which.count_ones() as usize != message.values.len() {
        return Err(error("extras"));
    }
    let mut extras = Extras::default().aged(message.age_ms.into());
    let known = Counter::ALL.into_iter();
    let named = known.filter(|counter| message.which & 1 << *counter as u32 != 0);
    for (counter, value) in named.zip(&message.values) {
        extras.set(counter, Some(*value));
    }
    Ok(extras)
}

impl From<&IngressReading> for v1::IngressReading {
    fn from(reading: &IngressReading) -> Self {
        let services = reading.services.iter();
        Self {
            life: reading.life,
            at_ms: reading.at_ms,
            services: services.map(|(id, of)| counters(*id, of)).collect(),
            waits: false,
        }
    }
}

impl TryFrom<v1::IngressReading> for IngressReading {
    type Error = Error;

    fn try_from(message: v1::IngressReading) -> Result<Self, Error> {
        let service = |message: v1::ServiceCounters| {
            let id = id!(ServiceId, message.service);
            let counted = ServiceCounters {
                requests: buckets("requests", &message.requests)?,
                in_flight: message.in_flight,
                latency: buckets("latency", &message.latency)?,
                tried: message.tried.map(tried_in).transpose()?.map(Box::new),
            };
            Ok((id, counted))
        };
        Ok(Self {
            life: message.life,
            at_ms: message.at_ms,
            services: message
                .services
                .into_iter()
                .map(service)
                .collect::<Result<_, Error>>()?,
        })
    }
}

fn counters(id: ServiceId, of: &ServiceCounters) -> v1::ServiceCounters {
    v1::ServiceCounters {
        service: id_bytes(id.as_u128()),
        requests: of.requests.to_vec(),
        in_flight: of.in_flight,
        latency: of.latency.to_vec(),
        tried: of.tried.as_deref().map(|tried| v1::TriedCounters {
            deployment: id_bytes(tried.deployment.as_u128()),
            requests: tried.requests.to_vec(),
            latency: tried.latency.to_vec(),
            moved_on: tried.moved_on,
        }),
    }
}

fn tried_in(message: v1::TriedCounters) -> Result<TriedCounters, Error> {
    Ok(TriedCounters {
        deployment: id!(DeploymentId, message.deployment),
        requests: buckets("requests", &message.requests)?,
        latency: buckets("latency", &message.latency)?,
        moved_on: message.moved_on,
    })
}

/// None at all: nothing was counted.
fn buckets<const N: usize>(field: &'static str, given: &[u64]) -> Result<[u64; N], Error> {
    if given.is_empty() {
        return Ok([0; N]);
    }
    given.try_into().map_err(|_| error(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at: u128, extras: Option<Extras>) -> AllocationReading {
        AllocationReading {
            allocation: AllocationId::from_u128(at),
            container: u64::MAX,
            cpu_us: None,
            memory_bytes: Some(0),
            age_ms: 9,
            extras,
        }
    }

    #[test]
    fn extras_name_their_reading_and_take_few_bytes() {
        use prost::Message as _;
        let mut busy = Extras::default().aged(2_000);
        busy.set(Counter::NetworkReceived, Some(900_000));
        busy.set(Counter::NetworkSent, Some(0));
        busy.set(Counter::MemoryPeak, Some(200 << 20));
        let nothing = Some(Extras::default());
        let samples = Samples {
            allocations: vec![
                reading(1, None),
                reading(2, Some(busy)),
                reading(3, nothing),
            ],
            ..Samples::default()
        };
        let mut message = v1::Samples::from(&samples);
        assert_eq!(Samples::try_from(message.clone()), Ok(samples.clone()));
        let bytes: Vec<usize> = message.extras.iter().map(|it| it.encoded_len()).collect();
        assert_eq!(bytes, [18, 2], "nothing changed is nearly nothing said");

        // A newer agent counts more; one that cannot count is refused.
        message.extras[0].which |= 1 << 31;
        message.extras[0].values.push(7);
        assert_eq!(Samples::try_from(message.clone()), Ok(samples));
        message.extras[0].values.pop();
        assert_eq!(
            Samples::try_from(message.clone())
                .expect_err("refused")
                .field,
            "extras"
        );
        message.extras[0] = v1::Extras {
            at: 3,
            ..v1::Extras::default()
        };
        assert_eq!(
            Samples::try_from(message).expect_err("nobody's").field,
            "extras"
        );
    }

    #[test]
    fn samples_survive_the_wire_and_other_buckets_are_refused() {
        let samples = Samples {
            life: 7,
            at_ms: 2_000,
            node: NodeReading {
                cpu_us: Some(5),
                memory_bytes: None,
            },
            allocations: vec![reading(1, None)],
            ingress: Some(IngressReading {
                life: 8,
                at_ms: 1,
                services: vec![(
                    ServiceId::from_u128(2),
                    ServiceCounters {
                        requests: [0, 1, 2, 3, 4, 5],
                        in_flight: 6,
                        latency: std::array::from_fn(|place| place as u64),
                        tried: Some(Box::new(TriedCounters {
                            deployment: DeploymentId::from_u128(9),
                            requests: [5, 4, 3, 2, 1, 0],
                            latency: std::array::from_fn(|place| place as u64 * 2),
                            moved_on: 7,
                        })),
                    },
                )],
            }),
        };
        let mut message = v1::Samples::from(&samples);
        assert_eq!(Samples::try_from(message.clone()), Ok(samples));
        let ingress = message.ingress.as_mut().expect("there");
        ingress.services[0].latency.pop();
        assert_eq!(
            Samples::try_from(message).expect_err("refused").field,
            "latency"
        );
    }
}
