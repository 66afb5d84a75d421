//! Clients of providers, made once for each setting.

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_model::problem::{Code, Problem};
use skep_model::provider::{Provider, Proxmox, Trust, Way};
use skep_proxmox::{Client, Credentials, Https};
use zeroize::Zeroizing;

use crate::secrets::Secrets;

/// Asks a Proxmox cluster.
pub(crate) type Hosts = Client<Https>;

/// Clients by the names of their providers.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    /// With when each provider was changed last.
    made: BTreeMap<String, (u64, Arc<Hosts>)>,
}

impl Clients {
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
/// Its secret cannot be opened, or an address, fingerprint or CA is none.
pub(crate) fn connect(provider: &Provider, secrets: &Secrets) -> Result<Hosts, Problem> {
    let secret = Zeroizing::new(secrets.open_provider(provider)?);
    let Way::Proxmox(proxmox) = &provider.way;
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
