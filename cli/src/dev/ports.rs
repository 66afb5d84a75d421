//! Which loopback ports the parts of `skep dev` listen on: what was asked for, else the usual one,
//! else any that is free.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use skep_model::problem::{Code, Problem};

/// One port of one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Port {
    number: u16,
    is_fixed: bool,
}

impl Port {
    /// Chooses: `asked` as it is, else `usual` if it is free, else any (0).
    ///
    /// # Errors
    /// The port that was asked for is taken; `option` names it.
    pub(super) fn choose(option: &str, asked: Option<u16>, usual: u16) -> Result<Self, Problem> {
        match asked {
            Some(number) if is_free(number) => Ok(Self {
                number,
                is_fixed: number != 0,
            }),
            Some(number) => {
                let message = format!("port {number} is taken by another program");
                Err(Problem::new(Code::Conflict, message)
                    .at(option)
                    .hint(format!(
                        "another number, or leave {option} out: then a free one is taken"
                    )))
            }
            None => Ok(Self {
                number: if is_free(usual) { usual } else { 0 },
                is_fixed: false,
            }),
        }
    }

    /// Where to listen; port 0: the system chooses.
    pub(super) fn address(self) -> SocketAddr {
        (IpAddr::from(Ipv4Addr::LOCALHOST), self.number).into()
    }

    /// From here on this one: others have been told.
    pub(super) fn settle(&mut self, number: u16) {
        *self = Self {
            number,
            is_fixed: true,
        };
    }

    /// Somebody took it in between: let the system choose, unless it was asked for.
    pub(super) fn give_up(&mut self) {
        if !self.is_fixed {
            self.number = 0;
        }
    }
}

fn is_free(number: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_refused_if_asked_for_and_replaced_if_usual() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let taken = holder.local_addr().expect("bound").port();
        let problem = Port::choose("--api-port", Some(taken), 1).expect_err("taken");
        assert_eq!(problem.field.as_deref(), Some("--api-port"));
        assert!(problem.message.contains(&taken.to_string()));
        let port = Port::choose("--api-port", None, taken).expect("any");
        assert_eq!(port.address().port(), 0);
    }

    #[test]
    fn a_settled_port_stays() {
        let mut port = Port {
            number: 7070,
            is_fixed: false,
        };
        port.give_up();
        assert_eq!(port.address().port(), 0);
        port.settle(41_000);
        port.give_up();
        assert_eq!(port.address().port(), 41_000);
    }
}
