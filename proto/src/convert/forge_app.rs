//! GitHub Apps, where they are installed, and the steps in browsers by which they come to be.

use skep_model::forge::{
    AppSecrets, AppSite, Draft, ForgeApp, Installation, Renamed, Setup, SetupStep,
};
use skep_model::id::{ForgeAppId, WorkspaceId};
use skep_model::variable::Sealed;

use super::{Error, error, id, id_bits, id_bytes, need};
use crate::v1;
use crate::v1::forge_setup::Step;

impl From<&AppSite> for v1::ForgeAppSite {
    fn from(site: &AppSite) -> Self {
        Self {
            host: site.host.clone(),
            api_url: site.api_url.clone(),
            web_url: site.web_url.clone(),
            ca_pem: site.ca_pem.clone(),
        }
    }
}

impl TryFrom<v1::ForgeAppSite> for AppSite {
    type Error = Error;

    fn try_from(message: v1::ForgeAppSite) -> Result<Self, Error> {
        Ok(Self {
            host: message.host,
            api_url: message.api_url,
            web_url: message.web_url,
            ca_pem: message.ca_pem,
        })
    }
}

impl From<&ForgeApp> for v1::ForgeApp {
    fn from(app: &ForgeApp) -> Self {
        Self {
            id: id_bytes(app.id.as_u128()),
            workspace: id_bytes(app.workspace.as_u128()),
            number: app.number,
            slug: app.slug.clone(),
            owner: app.owner.clone(),
            client_id: app.client_id.clone(),
            site: Some((&app.site).into()),
            sealed_private_key: app.secrets.private_key.0.clone(),
            sealed_webhook: app.secrets.webhook.0.clone(),
            sealed_client: app.secrets.client.0.clone(),
            made_ms: app.made_ms,
            changed_ms: app.changed_ms,
        }
    }
}

impl TryFrom<v1::ForgeApp> for ForgeApp {
    type Error = Error;

    fn try_from(message: v1::ForgeApp) -> Result<Self, Error> {
        Ok(Self {
            id: id!(ForgeAppId, message.id),
            workspace: id!(WorkspaceId, message.workspace),
            number: message.number,
            slug: message.slug,
            owner: message.owner,
            client_id: message.client_id,
            site: need!(message.site),
            secrets: AppSecrets {
                private_key: Sealed(message.sealed_private_key),
                webhook: Sealed(message.sealed_webhook),
                client: Sealed(message.sealed_client),
            },
            made_ms: message.made_ms,
            changed_ms: message.changed_ms,
        })
    }
}

impl From<&Installation> for v1::ForgeInstallation {
    fn from(installation: &Installation) -> Self {
        let renamed = installation.renamed.iter().map(|it| v1::ForgeRenamed {
            from: it.from.clone(),
            to: it.to.clone(),
        });
        Self {
            app: id_bytes(installation.app.as_u128()),
            number: installation.number,
            account: installation.account.clone(),
            is_organization: installation.is_organization,
            is_suspended: installation.is_suspended,
            missing: installation.missing.clone(),
            renamed: renamed.collect(),
        }
    }
}

impl TryFrom<v1::ForgeInstallation> for Installation {
    type Error = Error;

    fn try_from(message: v1::ForgeInstallation) -> Result<Self, Error> {
        let renamed = message.renamed.into_iter().map(|it| Renamed {
            from: it.from,
            to: it.to,
        });
        Ok(Self {
            app: id!(ForgeAppId, message.app),
            number: message.number,
            account: message.account,
            is_organization: message.is_organization,
            is_suspended: message.is_suspended,
            missing: message.missing,
            renamed: renamed.collect(),
        })
    }
}

impl From<&Setup> for v1::ForgeSetup {
    fn from(setup: &Setup) -> Self {
        let step = match &setup.step {
            SetupStep::Create(draft) => Step::Create((&**draft).into()),
            SetupStep::Install(app) => Step::Install(id_bytes(app.as_u128())),
        };
        Self {
            digest: setup.digest.clone(),
            workspace: id_bytes(setup.workspace.as_u128()),
            by: setup.by.clone(),
            expires_ms: setup.expires_ms,
            step: Some(step),
        }
    }
}

impl TryFrom<v1::ForgeSetup> for Setup {
    type Error = Error;

    fn try_from(message: v1::ForgeSetup) -> Result<Self, Error> {
        let step = match message.step.ok_or(error("step"))? {
            Step::Create(draft) => SetupStep::Create(Box::new(draft.try_into()?)),
            Step::Install(app) => SetupStep::Install(ForgeAppId::from_u128(id_bits("step", &app)?)),
        };
        Ok(Self {
            digest: message.digest,
            workspace: id!(WorkspaceId, message.workspace),
            by: message.by,
            step,
            expires_ms: message.expires_ms,
        })
    }
}

impl From<&Draft> for v1::ForgeAppDraft {
    fn from(draft: &Draft) -> Self {
        Self {
            app: id_bytes(draft.app.as_u128()),
            site: Some((&draft.site).into()),
            name: draft.name.clone(),
            organization: draft.organization.clone(),
            cluster_url: draft.cluster_url.clone(),
        }
    }
}

impl TryFrom<v1::ForgeAppDraft> for Draft {
    type Error = Error;

    fn try_from(message: v1::ForgeAppDraft) -> Result<Self, Error> {
        Ok(Self {
            app: id!(ForgeAppId, message.app),
            site: need!(message.site),
            name: message.name,
            organization: message.organization,
            cluster_url: message.cluster_url,
        })
    }
}
