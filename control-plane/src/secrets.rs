//! Sealing of what the replicated state must not hold in plain text.

use std::sync::Arc;

use skep_identity::ca::ClusterCa;
use skep_identity::seal::SealingKey;
use skep_model::forge::{Access, Connection, ForgeApp};
use skep_model::id::{EnvironmentId, ForgeAppId, ProjectId, ServiceId, WorkspaceId};
use skep_model::image_push::PushRegistry;
use skep_model::notify::{Own, Receiver};
use skep_model::problem::{Code, Problem};
use skep_model::provider::Proxmox;
use skep_model::registry::RegistryAccess;
use skep_model::variable::{Sealed, Variable, VariableInput};
use skep_model::webhook::Hook;
use skep_state::Cluster;
use zeroize::Zeroizing;

/// What the CA's key is sealed for.
const CA_KEY_CONTEXT: &str = "ca-key";

/// Seals and opens under the cluster's data key. Cheap to clone; never prints the key.
#[derive(Clone)]
pub struct Secrets {
    key: Arc<SealingKey>,
}

impl Secrets {
    /// Under this data key.
    pub fn new(key: SealingKey) -> Self {
        Self { key: Arc::new(key) }
    }

    /// Seals a variable; it opens again only for the same service and name.
    pub fn seal_variable(&self, service: ServiceId, input: &VariableInput) -> Variable {
        let sealed = self.key.seal(
            &variable_context(service, &input.name),
            input.value.as_bytes(),
        );
        Variable {
            value: Sealed(sealed),
            secret: input.secret,
        }
    }

    /// The value of a variable.
    ///
    /// # Errors
    /// It was sealed under another key, or for another service or name.
    pub fn open_variable(
        &self,
        service: ServiceId,
        name: &str,
        variable: &Variable,
    ) -> Result<String, Problem> {
        self.open(&variable_context(service, name), &variable.value)
    }

    /// Seals a variable of an environment; it opens again only for the same environment and name.
    pub fn seal_shared(&self, environment: EnvironmentId, input: &VariableInput) -> Variable {
        let context = shared_context(environment, &input.name);
        Variable {
            value: Sealed(self.key.seal(&context, input.value.as_bytes())),
            secret: input.secret,
        }
    }

    /// The value of an environment's variable.
    ///
    /// # Errors
    /// It was sealed under another key, or for another environment or name.
    pub fn open_shared(
        &self,
        environment: EnvironmentId,
        name: &str,
        variable: &Variable,
    ) -> Result<String, Problem> {
        self.open(&shared_context(environment, name), &variable.value)
    }

    /// Seals a variable of an environment's previews; it opens again only for the same environment and name.
    pub fn seal_preview(&self, base: EnvironmentId, input: &VariableInput) -> Variable {
        let context = preview_context(base, &input.name);
        Variable {
            value: Sealed(self.key.seal(&context, input.value.as_bytes())),
            secret: input.secret,
        }
    }

    /// The value of a variable of an environment's previews.
    ///
    /// # Errors
    /// It was sealed under another key, or for another environment or name.
    pub fn open_preview(
        &self,
        base: EnvironmentId,
        name: &str,
        variable: &Variable,
    ) -> Result<String, Problem> {
        self.open(&preview_context(base, name), &variable.value)
    }

    /// Seals a service's webhook secret.
    pub fn seal_webhook(&self, service: ServiceId, secret: &str) -> Sealed {
        Sealed(self.key.seal(&webhook_context(service), secret.as_bytes()))
    }

    /// A service's webhook secret.
    ///
    /// # Errors
    /// It was sealed under another key.
    pub fn open_webhook(&self, service: ServiceId, sealed: &Sealed) -> Result<String, Problem> {
        self.open(&webhook_context(service), sealed)
    }

    /// Seals the secret of a repository's webhook; it opens again only for the same one.
    pub fn seal_hook(&self, workspace: WorkspaceId, repository: &str, secret: &str) -> Sealed {
        let context = hook_context(workspace, repository);
        Sealed(self.key.seal(&context, secret.as_bytes()))
    }

    /// The secret of a repository's webhook.
    ///
    /// # Errors
    /// It was sealed under another key, or for another repository.
    pub fn open_hook(&self, hook: &Hook) -> Result<String, Problem> {
        self.open(
            &hook_context(hook.workspace, &hook.repository),
            &hook.secret,
        )
    }

    /// Seals the secret of a receiver; it opens again only under the same name in the same project.
    pub fn seal_receiver(&self, project: ProjectId, name: &str, secret: &str) -> Sealed {
        let context = receiver_context(project, name);
        Sealed(self.key.seal(&context, secret.as_bytes()))
    }

    /// The secret of a receiver.
    ///
    /// # Errors
    /// It was sealed under another key, or for another receiver.
    pub fn open_receiver(&self, receiver: &Receiver) -> Result<String, Problem> {
        let context = receiver_context(receiver.project, &receiver.name);
        self.open(&context, &receiver.secret)
    }

    /// Seals headers and body of a receiver's own, as [`Self::seal_receiver`] its secret.
    pub fn seal_own(&self, project: ProjectId, name: &str, own: &Own) -> Sealed {
        let context = own_context(project, name);
        let text = serde_json::to_vec(own).expect("text and names of fields are JSON");
        Sealed(self.key.seal(&context, &text))
    }

    /// Headers and body of a receiver's own.
    ///
    /// # Errors
    /// They were sealed under another key, or for another receiver.
    pub fn open_own(&self, receiver: &Receiver) -> Result<Option<Own>, Problem> {
        let Some(sealed) = &receiver.own else {
            return Ok(None);
        };
        let context = own_context(receiver.project, &receiver.name);
        let text = self.open(&context, sealed)?;
        let own = serde_json::from_str(&text);
        own.map(Some).map_err(|_| {
            Problem::new(
                Code::Internal,
                "what was sealed of the receiver cannot be read",
            )
            .hint("`skep notify set NAME --body ...` sets it anew")
        })
    }

    /// Seals the token of a forge connection; it opens again only for the same workspace and host.
    pub fn seal_forge(&self, workspace: WorkspaceId, host: &str, token: &str) -> Sealed {
        let context = forge_context(workspace, host);
        Sealed(self.key.seal(&context, token.as_bytes()))
    }

    /// The token of a forge connection.
    ///
    /// # Errors
    /// It was sealed under another key, or for another connection; or the connection is by a GitHub App.
    pub fn open_forge(&self, connection: &Connection) -> Result<String, Problem> {
        let Access::Token(token) = &connection.access else {
            return Err(Problem::new(Code::Internal, "the connection has no token"));
        };
        let context = forge_context(connection.workspace, &connection.host);
        self.open(&context, token)
    }

    /// Seals a secret of a GitHub App; it opens again only for the same App and use.
    pub fn seal_app(&self, of: AppUse, app: ForgeAppId, text: &str) -> Sealed {
        Sealed(self.key.seal(&of.context(app), text.as_bytes()))
    }

    /// The key that a GitHub App proves itself with, PEM.
    ///
    /// # Errors
    /// It was sealed under another key, or for another App.
    pub fn open_app_key(&self, app: &ForgeApp) -> Result<Zeroizing<String>, Problem> {
        let context = AppUse::Key.context(app.id);
        self.open(&context, &app.secrets.private_key)
            .map(Into::into)
    }

    /// What deliveries to a GitHub App are signed with.
    ///
    /// # Errors
    /// As [`Secrets::open_app_key`].
    pub fn open_app_webhook(&self, app: &ForgeApp) -> Result<String, Problem> {
        self.open(&AppUse::Webhook.context(app.id), &app.secrets.webhook)
    }

    /// What turns the code of a person who signed in to a GitHub App into a token.
    ///
    /// # Errors
    /// As [`Secrets::open_app_key`].
    pub fn open_app_client(&self, app: &ForgeApp) -> Result<Zeroizing<String>, Problem> {
        let context = AppUse::Client.context(app.id);
        self.open(&context, &app.secrets.client).map(Into::into)
    }

    /// Seals the password of a login at a registry; it opens again only for the same host.
    pub fn seal_registry(&self, host: &str, password: &str) -> Sealed {
        Sealed(self.key.seal(&registry_context(host), password.as_bytes()))
    }

    /// The password of a login at a registry.
    ///
    /// # Errors
    /// It was sealed under another key, or for another host.
    pub fn open_registry(&self, host: &str, sealed: &Sealed) -> Result<String, Problem> {
        self.open(&registry_context(host), sealed)
    }

    /// Seals the secret of a provider; it opens again only under the same name.
    pub fn seal_provider(&self, name: &str, secret: &str) -> Sealed {
        Sealed(self.key.seal(&provider_context(name), secret.as_bytes()))
    }

    /// The secret of a provider.
    ///
    /// # Errors
    /// It was sealed under another key, or for another provider.
    pub fn open_provider(&self, name: &str, proxmox: &Proxmox) -> Result<String, Problem> {
        self.open(&provider_context(name), &proxmox.secret)
    }

    /// Seals a password at a push registry; it opens again only for the same workspace, host and use.
    pub fn seal_push(
        &self,
        of: PushUse,
        (workspace, host): (WorkspaceId, &str),
        text: &str,
    ) -> Sealed {
        Sealed(self.key.seal(&of.context(workspace, host), text.as_bytes()))
    }

    /// As whom a workspace's images are pushed.
    ///
    /// # Errors
    /// It was sealed under another key, or for another registry.
    pub fn push_access(&self, registry: &PushRegistry) -> Result<RegistryAccess, Problem> {
        let context = PushUse::Push.context(registry.workspace, &registry.host);
        Ok(RegistryAccess {
            workspace: Some(registry.workspace),
            host: registry.host.clone(),
            user: registry.user.clone(),
            password: self.open(&context, &registry.password)?,
            bucket: registry.bucket.clone(),
        })
    }

    /// As whom they are pulled.
    ///
    /// # Errors
    /// As [`Secrets::push_access`].
    pub fn pull_access(&self, registry: &PushRegistry) -> Result<RegistryAccess, Problem> {
        let Some(pull) = &registry.pull else {
            return self.push_access(registry);
        };
        let context = PushUse::Pull.context(registry.workspace, &registry.host);
        Ok(RegistryAccess {
            workspace: Some(registry.workspace),
            host: registry.host.clone(),
            user: pull.user.clone(),
            password: self.open(&context, &pull.password)?,
            bucket: registry.bucket.clone(),
        })
    }

    /// Seals the key of a certificate; it opens again only under the same name.
    pub fn seal_certificate(&self, name: &str, key_pem: &str) -> Sealed {
        Sealed(
            self.key
                .seal(&certificate_context(name), key_pem.as_bytes()),
        )
    }

    /// The key of a certificate, PEM.
    ///
    /// # Errors
    /// It was sealed under another key, or for another name.
    pub fn open_certificate(&self, name: &str, sealed: &Sealed) -> Result<String, Problem> {
        self.open(&certificate_context(name), sealed)
    }

    /// Seals what the cluster has at an issuer: its account, or the key of a binding.
    pub fn seal_acme(&self, what: Acme, directory: &str, text: &str) -> Sealed {
        Sealed(self.key.seal(&what.context(directory), text.as_bytes()))
    }

    /// What the cluster has at an issuer.
    ///
    /// # Errors
    /// It was sealed under another key, or for another issuer.
    pub fn open_acme(
        &self,
        what: Acme,
        directory: &str,
        sealed: &Sealed,
    ) -> Result<String, Problem> {
        self.open(&what.context(directory), sealed)
    }

    /// Seals the CA's key, as the cluster keeps it.
    pub fn seal_ca_key(&self, key_pem: &str) -> Vec<u8> {
        self.key.seal(CA_KEY_CONTEXT, key_pem.as_bytes())
    }

    /// The CA that signs the cluster's identities.
    ///
    /// # Errors
    /// Its key was sealed under another data key, or is not its certificate's.
    pub fn signing_ca(&self, cluster: &Cluster) -> Result<ClusterCa, Problem> {
        self.load_ca(&cluster.ca_cert_pem, &cluster.sealed_ca_key)
    }

    /// The CA that signed before the present one, while both are trusted.
    ///
    /// # Errors
    /// As [`Secrets::signing_ca`].
    pub fn older_ca(&self, cluster: &Cluster) -> Result<Option<ClusterCa>, Problem> {
        let older = cluster.other_ca.as_ref().filter(|other| other.is_older);
        older
            .map(|older| self.load_ca(&older.cert_pem, &older.sealed_key))
            .transpose()
    }

    fn load_ca(&self, cert_pem: &str, sealed_key: &Sealed) -> Result<ClusterCa, Problem> {
        let key = self.open(CA_KEY_CONTEXT, sealed_key)?;
        ClusterCa::load(cert_pem, &key).map_err(|error| {
            let message = format!("the cluster's CA cannot be used: {error}");
            Problem::new(Code::Internal, message)
        })
    }

    fn open(&self, context: &str, sealed: &Sealed) -> Result<String, Problem> {
        let unreadable = || {
            Problem::new(Code::Internal, "a sealed value cannot be opened")
                .hint("was the operator's key file replaced? Put the old one back and start the server again")
        };
        let bytes = self
            .key
            .open(context, &sealed.0)
            .map_err(|_| unreadable())?;
        String::from_utf8(bytes.to_vec()).map_err(|_| unreadable())
    }
}

/// A secret of the cluster at an issuer of certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acme {
    /// The account, with its key.
    Account,
    /// The key that binds the account to another one there.
    Binding,
    /// The key or token of whoever writes records in DNS; of a place there, not of an issuer.
    Dns,
    /// The key of the cluster's authority for private names.
    LocalCa,
}

impl Acme {
    fn context(self, directory: &str) -> String {
        match self {
            Self::Account => format!("acme-account/{directory}"),
            Self::Binding => format!("acme-binding/{directory}"),
            Self::Dns => format!("acme-dns/{directory}"),
            Self::LocalCa => "local-ca-key".to_owned(),
        }
    }
}

/// What a secret of a GitHub App is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppUse {
    /// It proves the App.
    Key,
    /// It proves deliveries.
    Webhook,
    /// It goes with the codes of people.
    Client,
}

impl AppUse {
    fn context(self, app: ForgeAppId) -> String {
        match self {
            Self::Key => format!("forge-app-key/{app}"),
            Self::Webhook => format!("forge-app-webhook/{app}"),
            Self::Client => format!("forge-app-client/{app}"),
        }
    }
}

/// What a password at a push registry is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushUse {
    /// To push.
    Push,
    /// To pull.
    Pull,
}

impl PushUse {
    fn context(self, workspace: WorkspaceId, host: &str) -> String {
        match self {
            Self::Push => format!("push-registry/{workspace}/{host}"),
            Self::Pull => format!("push-registry-pull/{workspace}/{host}"),
        }
    }
}

fn certificate_context(name: &str) -> String {
    format!("certificate/{name}")
}

fn variable_context(service: ServiceId, name: &str) -> String {
    format!("variable/{service}/{name}")
}

fn shared_context(environment: EnvironmentId, name: &str) -> String {
    format!("shared-variable/{environment}/{name}")
}

fn preview_context(base: EnvironmentId, name: &str) -> String {
    format!("preview-variable/{base}/{name}")
}

fn webhook_context(service: ServiceId) -> String {
    format!("webhook/{service}")
}

fn hook_context(workspace: WorkspaceId, repository: &str) -> String {
    format!("hook/{workspace}/{repository}")
}

fn receiver_context(project: ProjectId, name: &str) -> String {
    format!("receiver/{project}/{name}")
}

fn own_context(project: ProjectId, name: &str) -> String {
    format!("receiver-own/{project}/{name}")
}

fn forge_context(workspace: WorkspaceId, host: &str) -> String {
    format!("forge/{workspace}/{host}")
}

fn provider_context(name: &str) -> String {
    format!("provider/{name}")
}

fn registry_context(host: &str) -> String {
    format!("registry/{host}")
}
