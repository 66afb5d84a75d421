//! Sealing of what the replicated state must not hold in plain text.

use std::sync::Arc;

use skep_identity::seal::SealingKey;
use skep_model::id::ServiceId;
use skep_model::problem::{Code, Problem};
use skep_model::variable::{Sealed, Variable, VariableInput};

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

fn variable_context(service: ServiceId, name: &str) -> String {
    format!("variable/{service}/{name}")
}

fn webhook_context(service: ServiceId) -> String {
    format!("webhook/{service}")
}
