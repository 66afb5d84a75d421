//! Shells: what is asked for, and what passes.

use skep_model::id::AllocationId;
use skep_model::shell::{Exec, Frame, Opened, Size, Terminal, Wish};

use super::{Error, error, port};
use crate::v1;
use crate::v1::open_shell::Wish as Asked;
use crate::v1::shell_frame::Kind;

impl From<&Wish> for Asked {
    fn from(wish: &Wish) -> Self {
        let copy = |path: &String| v1::ShellCopy { path: path.clone() };
        match wish {
            Wish::Exec(exec) => Self::Exec(v1::ShellExec {
                command: exec.command.clone(),
                stdin: exec.stdin,
                terminal: exec.terminal.as_ref().map(|terminal| v1::ShellTerminal {
                    size: Some(terminal.size.into()),
                    name: terminal.name.clone(),
                }),
            }),
            Wish::Attach => Self::Attach(v1::ShellAttach {}),
            Wish::CopyOut { path } => Self::CopyOut(copy(path)),
            Wish::CopyIn { path } => Self::CopyIn(copy(path)),
            Wish::Forward { port } => Self::Forward(v1::ShellForward {
                port: u32::from(*port),
            }),
            Wish::Volumes(order) => Self::Volumes(order.into()),
            Wish::Push(order) => Self::Push(order.into()),
        }
    }
}

impl TryFrom<Asked> for Wish {
    type Error = Error;

    fn try_from(asked: Asked) -> Result<Self, Error> {
        Ok(match asked {
            Asked::Exec(exec) => Self::Exec(Exec {
                command: exec.command,
                stdin: exec.stdin,
                terminal: exec.terminal.map(terminal).transpose()?,
            }),
            Asked::Attach(_) => Self::Attach,
            Asked::CopyOut(copy) => Self::CopyOut { path: copy.path },
            Asked::CopyIn(copy) => Self::CopyIn { path: copy.path },
            Asked::Forward(forward) => Self::Forward {
                port: port("port", Some(forward.port))?.ok_or_else(|| error("port"))?,
            },
            Asked::Volumes(order) => Self::Volumes(order.try_into()?),
            Asked::Push(order) => Self::Push(order.try_into()?),
        })
    }
}

fn terminal(message: v1::ShellTerminal) -> Result<Terminal, Error> {
    let size = message.size.ok_or_else(|| error("size"))?;
    Ok(Terminal {
        size: size.try_into()?,
        name: message.name,
    })
}

impl From<Size> for v1::ShellSize {
    fn from(size: Size) -> Self {
        Self {
            columns: u32::from(size.columns),
            rows: u32::from(size.rows),
        }
    }
}

impl TryFrom<v1::ShellSize> for Size {
    type Error = Error;

    fn try_from(message: v1::ShellSize) -> Result<Self, Error> {
        let number = |number: u32| u16::try_from(number).map_err(|_| error("size"));
        Ok(Self {
            columns: number(message.columns)?,
            rows: number(message.rows)?,
        })
    }
}

impl From<Frame> for v1::ShellFrame {
    fn from(frame: Frame) -> Self {
        let kind = match frame {
            Frame::Data(data) => Kind::Data(data),
            Frame::Stderr(data) => Kind::Stderr(data),
            Frame::Eof => Kind::Eof(v1::ShellEof {}),
            Frame::Resize(size) => Kind::Resize(size.into()),
            Frame::Grant(bytes) => Kind::Grant(bytes),
            Frame::Opened(opened) => Kind::Opened(v1::ShellOpened { name: opened.name }),
            Frame::Exit(code) => Kind::Exit(code),
            Frame::Problem(problem) => Kind::Problem((&problem).into()),
        };
        Self { kind: Some(kind) }
    }
}

/// A frame that names no request: that is the agent's first one, and read by itself. Which allocation
/// was opened is not in it, nor where.
impl TryFrom<v1::ShellFrame> for Frame {
    type Error = Error;

    fn try_from(message: v1::ShellFrame) -> Result<Self, Error> {
        Ok(match message.kind.ok_or_else(|| error("kind"))? {
            Kind::Request(_) => return Err(error("request")),
            Kind::Data(data) => Self::Data(data),
            Kind::Stderr(data) => Self::Stderr(data),
            Kind::Eof(_) => Self::Eof,
            Kind::Resize(size) => Self::Resize(size.try_into()?),
            Kind::Grant(bytes) => Self::Grant(bytes),
            Kind::Opened(opened) => Self::Opened(Opened {
                allocation: AllocationId::from_u128(0),
                node: String::new(),
                name: opened.name,
            }),
            Kind::Exit(code) => Self::Exit(code),
            Kind::Problem(problem) => Self::Problem(problem.try_into()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use skep_model::problem::{Code, Problem};

    use super::*;

    #[test]
    fn wishes_come_back_as_they_were() {
        let size = Size {
            columns: 132,
            rows: 43,
        };
        let exec = |terminal| {
            Wish::Exec(Exec {
                command: vec!["sh".into(), "-c".into(), "é\n".into()],
                stdin: true,
                terminal,
            })
        };
        let name = "xterm".to_owned();
        for wish in [
            exec(None),
            exec(Some(Terminal { size, name })),
            Wish::Attach,
            Wish::CopyOut { path: "/a".into() },
            Wish::CopyIn { path: "/b".into() },
            Wish::Forward { port: 65_535 },
            Wish::Volumes(skep_model::volume::Order::Measure),
            Wish::Push(skep_model::pushed::Order {
                service: skep_model::id::ServiceId::from_u128(1),
                known: vec!["a".repeat(40)],
                wanted: Vec::new(),
                needed: vec!["b".repeat(40)],
            }),
        ] {
            assert_eq!(Wish::try_from(Asked::from(&wish)), Ok(wish));
        }
        let beyond = Asked::Forward(v1::ShellForward { port: 65_536 });
        assert!(Wish::try_from(beyond).is_err());
    }

    #[test]
    fn frames_come_back_as_they_were() {
        let opened = |name: Option<&str>| {
            Frame::Opened(Opened {
                allocation: AllocationId::from_u128(0),
                node: String::new(),
                name: name.map(str::to_owned),
            })
        };
        for frame in [
            Frame::Data(vec![0, 255]),
            Frame::Stderr(Vec::new()),
            Frame::Eof,
            Frame::Resize(Size {
                columns: 1,
                rows: 2,
            }),
            Frame::Grant(u32::MAX),
            opened(None),
            opened(Some("")),
            Frame::Exit(-1),
            Frame::Problem(Problem::new(Code::Busy, "full").hint("wait")),
        ] {
            let message = v1::ShellFrame::from(frame.clone());
            assert_eq!(Frame::try_from(message), Ok(frame));
        }
        let odd = [Some(Kind::Request(1)), None];
        for kind in odd {
            assert!(Frame::try_from(v1::ShellFrame { kind }).is_err());
        }
    }
}
