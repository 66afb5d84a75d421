//! The smallest app worth deploying: a web server on the standard library that keeps
//! connections alive, answers its health check, and on SIGTERM finishes what it has begun.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

#[cfg(test)]
mod tests;

/// Edit this text, commit and push: the next release says it.
const GREETING: &str = "Hello from Skep!";

const DEFAULT_PORT: u16 = 8080;
/// A request line and headers longer than this get 431.
const MAX_HEAD_BYTES: u64 = 16 * 1024;
/// Each connection is a thread and two descriptors, of which a process often has 1024; past this
/// number new ones are closed.
const MAX_CONNECTIONS: usize = 256;
/// How long a connection may be idle, and a client may be slow.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Below Docker's own grace of 10 s, so that the exit is ours and not a SIGKILL.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hello: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<ExitCode> {
    // The kernel drops signals for PID 1 of a container unless it has a handler for them, so
    // without this line every stop would take the whole grace period and end in a SIGKILL.
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let port = match std::env::var("PORT") {
        Ok(text) => text
            .parse()
            .map_err(|_| io::Error::other(format!("PORT is {text:?}: give a number")))?,
        Err(_) => DEFAULT_PORT,
    };
    let server = Server::start(TcpListener::bind(("0.0.0.0", port))?)?;
    println!("hello: listening on port {port}, release {}", release());
    signals.forever().next();
    println!("hello: stopping: finishing the requests in progress");
    Ok(match server.drain(DRAIN_TIMEOUT) {
        0 => ExitCode::SUCCESS,
        left => {
            eprintln!("hello: {left} connections cut after {DRAIN_TIMEOUT:?}");
            ExitCode::FAILURE
        }
    })
}

fn release() -> String {
    std::env::var("SKEP_RELEASE").unwrap_or_else(|_| "none".into())
}

fn greeting() -> String {
    let place = std::env::var("PLACE").unwrap_or_else(|_| "somewhere".into());
    format!("{GREETING} This is release {} at {place}.\n", release())
}

/// The open connections: what a graceful stop must wait for.
struct Server {
    connections: Mutex<Connections>,
    closed: Condvar,
    address: std::net::SocketAddr,
}

#[derive(Default)]
struct Connections {
    draining: bool,
    next_id: u64,
    open: HashMap<u64, TcpStream>,
}

impl Server {
    /// Accepts connections on a thread of its own.
    fn start(listener: TcpListener) -> io::Result<Arc<Server>> {
        let server = Arc::new(Server {
            connections: Mutex::default(),
            closed: Condvar::new(),
            address: listener.local_addr()?,
        });
        let accepting = server.clone();
        thread::Builder::new().spawn(move || accepting.accept(&listener))?;
        Ok(server)
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            let mut connections = self.lock();
            if connections.draining {
                return;
            }
            let Ok(stream) = stream else { continue };
            let Ok(watched) = stream.try_clone() else {
                continue;
            };
            if connections.open.len() >= MAX_CONNECTIONS {
                continue;
            }
            let id = connections.next_id;
            connections.next_id += 1;
            connections.open.insert(id, watched);
            drop(connections);
            let server = self.clone();
            let spawned = thread::Builder::new().stack_size(64 * 1024).spawn(move || {
                // A client that goes away in the middle is its own business.
                let _ = server.converse(&stream);
                server.forget(id);
            });
            if spawned.is_err() {
                self.forget(id);
            }
        }
    }

    fn forget(&self, id: u64) {
        self.lock().open.remove(&id);
        self.closed.notify_all();
    }

    /// Stops accepting, lets each connection answer what it has already received, and
    /// returns how many were still open at the deadline.
    fn drain(&self, deadline: Duration) -> usize {
        let mut connections = self.lock();
        connections.draining = true;
        for stream in connections.open.values() {
            // What has arrived can still be read; after it the reader sees the end.
            let _ = stream.shutdown(Shutdown::Read);
        }
        drop(connections);
        // accept() has no other way to be woken.
        let _ = TcpStream::connect(self.address);
        let waiting = self
            .closed
            .wait_timeout_while(self.lock(), deadline, |c| !c.open.is_empty());
        let (connections, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        connections.open.len()
    }

    fn converse(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
        stream.set_write_timeout(Some(IDLE_TIMEOUT))?;
        let mut reader = BufReader::new(stream);
        let mut writer = stream;
        while let Some(request) = Request::read(&mut reader)? {
            let keep_alive = request.keep_alive && !self.lock().draining;
            writer.write_all(&request.answer().bytes(request.is_head, keep_alive))?;
            if !keep_alive {
                break;
            }
        }
        Ok(())
    }
}

/// As much of a request as this app needs. A body is never read: the connection ends instead.
struct Request {
    method: String,
    path: String,
    is_head: bool,
    keep_alive: bool,
    too_long: bool,
}

impl Request {
    /// The next request, or nothing when the client has finished.
    fn read(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
        let mut head = reader.take(MAX_HEAD_BYTES);
        let mut line = Vec::new();
        if head.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let first = String::from_utf8_lossy(&line).into_owned();
        let mut words = first.split_ascii_whitespace();
        let method = words.next().unwrap_or_default().to_string();
        let target = words.next().unwrap_or_default();
        let mut request = Request {
            is_head: method == "HEAD",
            method,
            path: target.split('?').next().unwrap_or_default().to_string(),
            keep_alive: words.next() == Some("HTTP/1.1"),
            too_long: false,
        };
        loop {
            line.clear();
            head.read_until(b'\n', &mut line)?;
            if !line.ends_with(b"\n") {
                request.too_long = head.limit() == 0;
                request.keep_alive = false;
                return Ok(request.too_long.then_some(request));
            }
            let header = String::from_utf8_lossy(&line)
                .trim_ascii()
                .to_ascii_lowercase();
            if header.is_empty() {
                return Ok(Some(request));
            }
            let (name, value) = header.split_once(':').unwrap_or((&header, ""));
            let ends_connection = match name {
                "connection" => value.contains("close"),
                "content-length" => value.trim_ascii() != "0",
                "transfer-encoding" => true,
                _ => false,
            };
            request.keep_alive &= !ends_connection;
        }
    }

    fn answer(&self) -> Answer {
        if self.too_long {
            return Answer::new(
                "431 Request Header Fields Too Large",
                "headers over 16 KiB\n",
            );
        }
        if self.method != "GET" && self.method != "HEAD" {
            return Answer::new("405 Method Not Allowed", "only GET and HEAD are served\n");
        }
        match self.path.as_str() {
            "/" => Answer::new("200 OK", greeting()),
            "/healthz" => Answer::new("200 OK", "ok\n"),
            _ => Answer::new("404 Not Found", "there is / and /healthz\n"),
        }
    }
}

struct Answer {
    status: &'static str,
    body: String,
}

impl Answer {
    fn new(status: &'static str, body: impl Into<String>) -> Answer {
        Answer {
            status,
            body: body.into(),
        }
    }

    fn bytes(&self, head_only: bool, keep_alive: bool) -> Vec<u8> {
        format!(
            "HTTP/1.1 {}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\nconnection: {}\r\n\r\n{}",
            self.status,
            self.body.len(),
            if keep_alive { "keep-alive" } else { "close" },
            if head_only { "" } else { &self.body },
        )
        .into_bytes()
    }
}
