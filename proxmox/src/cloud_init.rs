//! What cloud-init is told through a VM's configuration, in the encodings that Proxmox wants.

use std::fmt::Write as _;

use crate::error::Error;

/// SSH keys for `sshkeys`. The value itself has to be percent-encoded, spaces as `%20`, before a form encodes it once more:
/// otherwise hosts answer "invalid urlencoded string" or "SSH public key validation error".
///
/// # Errors
/// A key is more than one line, or empty.
pub fn ssh_keys<'a>(keys: impl IntoIterator<Item = &'a str>) -> Result<String, Error> {
    let mut lines = Vec::new();
    for key in keys {
        let key = key.trim();
        if key.is_empty() || key.chars().any(char::is_control) {
            return Err(Error::invalid("an SSH key is one line of text".to_owned()));
        }
        lines.push(key);
    }
    let mut encoded = String::new();
    for byte in lines.join("\n").bytes() {
        let is_plain = byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte);
        match is_plain {
            true => encoded.push(char::from(byte)),
            // Writing to text never fails.
            false => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    Ok(encoded)
}

/// The address of an interface, for `ipconfigN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// From a DHCP server.
    Dhcp,
    /// This one.
    Static {
        /// Address and length of the network: `10.0.0.5/24`.
        cidr: String,
        /// The gateway, where there is one.
        gateway: Option<String>,
    },
}

impl Address {
    /// As a configuration writes it.
    pub fn to_value(&self) -> String {
        match self {
            Self::Dhcp => "ip=dhcp".to_owned(),
            Self::Static { cidr, gateway } => match gateway {
                Some(gateway) => format!("ip={cidr},gw={gateway}"),
                None => format!("ip={cidr}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Method, Request};

    #[test]
    fn keys_are_encoded_twice_on_the_wire() {
        let keys = ["ssh-ed25519 AAA+B/C= a@b", "ssh-rsa XYZ c"];
        let value = ssh_keys(keys).expect("keys");
        assert_eq!(
            value,
            "ssh-ed25519%20AAA%2BB%2FC%3D%20a%40b%0Assh-rsa%20XYZ%20c"
        );
        let request = Request::new(Method::Post, &["config"]).with("sshkeys", value);
        let sent = request.encode().expect("small");
        let text = std::str::from_utf8(sent.body()).expect("text");
        assert!(
            text.starts_with("sshkeys=ssh-ed25519%2520AAA%252BB"),
            "{text}"
        );
        ssh_keys(["a\nb"]).expect_err("two lines");
        ssh_keys([" "]).expect_err("nothing");
    }

    #[test]
    fn addresses() {
        let fixed = Address::Static {
            cidr: "10.0.0.5/24".to_owned(),
            gateway: Some("10.0.0.1".to_owned()),
        };
        assert_eq!(fixed.to_value(), "ip=10.0.0.5/24,gw=10.0.0.1");
        assert_eq!(Address::Dhcp.to_value(), "ip=dhcp");
    }
}
