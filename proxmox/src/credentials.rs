//! Who asks. Nothing here is ever shown by `Debug`.

use std::fmt;

use zeroize::Zeroizing;

use crate::error::Error;

/// Text that is not shown, and is overwritten when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

/// Who asks.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// An API token. It never runs out by itself, and each call is one request.
    Token(Secret),
    /// A user with a password: a ticket is got with it, and renewed.
    Password {
        /// `user@realm`.
        user: String,
        /// The password.
        password: Secret,
    },
}

impl Secret {
    /// Keeps it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text, to be sent.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl Credentials {
    /// An API token as Proxmox shows it: `user@realm!name=uuid`.
    ///
    /// # Errors
    /// It has not that form.
    pub fn token(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let is_token = text
            .split_once('=')
            .is_some_and(|(id, secret)| is_token_id(id) && !secret.is_empty())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        match is_token {
            true => Ok(Self::Token(Secret::new(text))),
            false => Err(Error::invalid(
                "an API token has the form user@realm!name=secret".to_owned(),
            )),
        }
    }
}

fn is_token_id(text: &str) -> bool {
    text.split_once('!')
        .is_some_and(|(user, name)| user.contains('@') && !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_a_user_a_name_and_a_secret_which_nothing_shows() {
        let token = Credentials::token("skep@pve!c1=0f1e-2d").expect("one");
        assert!(!format!("{token:?}").contains("0f1e"), "{token:?}");
        for odd in [
            "",
            "skep@pve=x",
            "skep!a=x",
            "skep@pve!a",
            "skep@pve!a=",
            "skep@pve!=x",
            "s@p!a=x\ny",
        ] {
            let error = Credentials::token(odd).expect_err(odd);
            assert!(odd.len() < 9 || !error.to_string().contains(odd), "{error}");
        }
    }
}
