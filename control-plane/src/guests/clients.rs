//! How providers are asked: by clients, made once for each setting; by a program; not at all, where machines exist.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_model::pool::{Machine, Program};
use skep_model::problem::{Code, Problem};
use skep_model::provider::{Provider, Proxmox, Trust, Way};
use skep_proxmox::{Client, Credentials, Https};
use zeroize::Zeroizing;

use crate::secrets::Secrets;

/// Asks a Proxmox cluster.
pub(crate) type Hosts = Client<Https>;

/// How the guests of a provider are driven.
#[derive(Debug, Clone)]
pub(crate) enum Means {
    /// The hosts of a Proxmox cluster are asked.
    Hosts(Arc<Hosts>),
    /// A program is.
    Program(Program),
    /// They are taken from this list.
    Machines(Vec<Machine>),
}

/// Clients by the names of their providers.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    /// With when each provider was changed last.
    made: BTreeMap<String, (u64, Arc<Hosts>)>,
}

impl Clients {
    /// What drives the guests of a provider as it is set now.
    ///
    /// # Errors
    /// As [`connect`].
    pub(crate) fn means(
        &mut self,
        provider: &Provider,
        secrets: &Secrets,
    ) -> Result<Means, Problem> {
        Ok(match &provider.way {
            Way::Proxmox(_) => Means::Hosts(self.of(provider, secrets)?),
            Way::Exec(program) => Means::Program(program.clone()),
            Way::Static(machines) => Means::Machines(machines.clone()),
        })
    }

    /// The client of a provider as it is set now.
    ///
    /// # Errors
    /// As [`connect`].
    pub(crate) fn of(
        &mut self,
        provider: &Provider,
        secrets: &Secrets,
    ) -> Result<Arc<Hosts>, Problem> {
        if let Some((changed_ms, client)) = self.made.get(&provider.name)
            && *changed_ms == provider.changed_ms
        {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(connect(provider, secrets)?);
        let entry = (provider.changed_ms, Arc::clone(&client));
        self.made.insert(provider.name.clone(), entry);
        Ok(client)
    }

    /// Keeps those of these providers alone.
    pub(crate) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.made.retain(|name, _| is_there(name));
    }
}

/// A client of a provider. Nobody is asked yet.
///
/// # Errors
/// It is no Proxmox cluster, its secret cannot be opened, or an address, fingerprint or CA is none.
pub(crate) fn connect(provider: &Provider, secrets: &Secrets) -> Result<Hosts, Problem> {
    let Way::Proxmox(proxmox) = &provider.way else {
        let text = format!(
            "the provider `{}` is {}, and has no hosts that could be asked",
            provider.name,
            provider.way.kind().word()
        );
        return Err(Problem::new(Code::Conflict, text).at("provider"));
    };
    let secret = Zeroizing::new(secrets.open_provider(&provider.name, proxmox)?);
    client(proxmox, &secret)
}

/// A client that asks with this secret.
///
/// # Errors
/// An address, fingerprint or CA is none.
pub(crate) fn client(proxmox: &Proxmox, secret: &str) -> Result<Hosts, Problem> {
    let invalid = |field: &'static str| {
        move |error: skep_proxmox::Error| Problem::new(Code::Invalid, error.to_string()).at(field)
    };
    let trust = match &proxmox.trust {
        Trust::Ca(pem) => skep_proxmox::Trust::Ca(pem.clone()),
        Trust::Pins(pins) => {
            let pins = pins.iter().map(String::as_str);
            skep_proxmox::Trust::pins(pins).map_err(invalid("pins"))?
        }
    };
    let token = Zeroizing::new(format!("{}={secret}", proxmox.token_id));
    let credentials = Credentials::token(&token).map_err(invalid("token_id"))?;
    let transport = Https::new(&proxmox.endpoints, &trust).map_err(invalid("endpoints"))?;
    Ok(Client::new(transport, credentials))
}
