//! Makes a guest's configuration what the recipe says.

use skep_model::pool::Guest;
use skep_proxmox::calls::{lxc, qemu};
use skep_proxmox::{Error, GuestKind, Transport, Vmid};

use super::Driver;
use crate::TAG;
use crate::resize;
use crate::seen::Facts;
use crate::wanted;

impl<T: Transport> Driver<'_, T> {
    pub(super) async fn configure(
        &self,
        guest: &Guest,
        facts: &Facts,
        vmid: Vmid,
    ) -> Result<(), Error> {
        let recipe = self.recipe;
        let nic = facts.config.nic(0).unwrap_or_default();
        let mut tags = facts.config.tags();
        if !tags.contains(&TAG) {
            tags.push(TAG);
        }
        let dns: Vec<String> = recipe
            .addresses
            .iter()
            .flat_map(|range| range.dns.iter().map(ToString::to_string))
            .collect();
        let dns: Vec<&str> = dns.iter().map(String::as_str).collect();
        let description = "Made by a pool of Skep, and removed by it.";
        match self.kind() {
            GuestKind::Qemu => {
                let model = nic.model.unwrap_or_else(|| "virtio".to_owned());
                let vlan = recipe.vlan.map(|vlan| format!(",tag={vlan}"));
                // The address stays: it is what proves the guest.
                let net0 = format!(
                    "{model}={},bridge={}{}",
                    nic.mac.unwrap_or_default(),
                    recipe.bridge,
                    vlan.unwrap_or_default()
                );
                let address = wanted::given(recipe, guest);
                let address = address.map(|(range, address)| wanted::vm(range, address));
                let (cores, vcpus) = resize::cores(recipe.size(), facts);
                let keys: Vec<&str> = recipe.ssh_keys.iter().map(String::as_str).collect();
                let what = qemu::Change {
                    cores,
                    vcpus,
                    memory_mib: Some(recipe.memory_mib),
                    net0: Some(&net0),
                    tags: Some(&tags),
                    description: Some(description),
                    agent: Some(true),
                    start_with_host: Some(true),
                    user: recipe.user.as_deref(),
                    ssh_keys: &keys,
                    address: address.as_ref(),
                    nameservers: &dns,
                    digest: facts.config.digest(),
                    ..qemu::Change::default()
                };
                let call = qemu::change(&facts.host, vmid, &what)?;
                self.finish(self.client.send(&call).await?).await
            }
            GuestKind::Lxc => {
                let net0 = wanted::lxc_net0(recipe, guest, &nic);
                let what = lxc::Change {
                    cores: Some(recipe.cores),
                    memory_mib: Some(recipe.memory_mib),
                    net0: Some(&net0),
                    tags: Some(&tags),
                    description: Some(description),
                    start_with_host: Some(true),
                    nameservers: &dns,
                    digest: facts.config.digest(),
                    ..lxc::Change::default()
                };
                self.client
                    .send(&lxc::change(&facts.host, vmid, &what))
                    .await
            }
        }
    }
}
