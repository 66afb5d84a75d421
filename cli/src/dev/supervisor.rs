//! The three parts together: the order in which they come up and end, and what is passed from one
//! to the next.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use skep_identity::secret_file;
use skep_model::problem::{Code, Problem};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::announce::{self, Addresses, Bootstrap, Processes};
use super::child::{Event, Keeper};
use super::log::Log;
use super::plan::{self, Folders, Joining, Part, Ports};
use crate::failure::{Exit, Failure, chain};

/// All parts are ready by then, or something is wrong.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// Starts of a part before its first readiness.
const START_ATTEMPTS: u32 = 3;
/// Events that wait for the supervisor.
const EVENTS: usize = 64;
/// The agent waits for containers to stop; the others finish requests.
const GRACE_AGENT: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(20);

/// What the next start of a part depends on.
struct Facts {
    ports: Ports,
    joining: Option<Joining>,
}

/// A part that is kept up.
struct Kept {
    stop: CancellationToken,
    task: JoinHandle<()>,
    log: Log,
}

/// Starts, watches and ends the parts.
pub(super) struct Supervisor {
    folders: Folders,
    facts: Arc<Mutex<Facts>>,
    sender: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    kept: BTreeMap<Part, Kept>,
    processes: Processes,
}

impl Supervisor {
    /// Nothing runs yet.
    pub(super) fn new(folders: Folders, ports: Ports) -> Self {
        let (sender, events) = mpsc::channel(EVENTS);
        Self {
            folders,
            facts: Arc::new(Mutex::new(Facts {
                ports,
                joining: None,
            })),
            sender,
            events,
            kept: BTreeMap::new(),
            processes: Processes::default(),
        }
    }

    /// Where everything is.
    pub(super) fn folders(&self) -> &Folders {
        &self.folders
    }

    /// The processes as they are just now.
    pub(super) fn processes(&self) -> &Processes {
        &self.processes
    }

    /// Starts all parts; returns when each has said that it is ready.
    ///
    /// # Errors
    /// A part fails again and again, or is not ready in time: with the end of its log.
    pub(super) async fn bring_up(&mut self) -> Result<Addresses, Failure> {
        self.start(Part::Net);
        self.start(Part::Server);
        let up = tokio::time::timeout(START_DEADLINE, self.until_ready()).await;
        up.unwrap_or_else(|_| {
            let message = format!("not ready within {} s", START_DEADLINE.as_secs());
            Err(Failure::failed(message)
                .hint(format!("the logs are in {}", self.folders.logs().display())))
        })
    }

    async fn until_ready(&mut self) -> Result<Addresses, Failure> {
        let mut deaths: BTreeMap<Part, u32> = BTreeMap::new();
        let (mut bootstrap, mut net, mut agent) = (None, None, false);
        loop {
            match self.next().await {
                Event::Started { part, pid } => drop(self.processes.pids.insert(part, pid)),
                Event::Died { part, how } => {
                    let count = deaths.entry(part).or_default();
                    *count += 1;
                    if *count == START_ATTEMPTS {
                        return Err(self.explain(part, &how));
                    }
                    self.facts().ports.give_up(part);
                }
                Event::Ready {
                    part: Part::Server, ..
                } => {
                    bootstrap = Some(self.meet_server().await?);
                    self.start(Part::Agent);
                }
                Event::Ready {
                    part: Part::Net,
                    words,
                } => net = Some(self.meet_net(&words)?),
                Event::Ready {
                    part: Part::Agent,
                    words,
                } => {
                    self.meet_agent(&words);
                    agent = true;
                }
            }
            if let (Some(bootstrap), Some((ingress, admin)), true) = (&bootstrap, net, agent) {
                return Ok(Addresses {
                    bootstrap: bootstrap.clone(),
                    ingress,
                    admin,
                });
            }
        }
    }

    /// Tells of every death, until the parts are stopped.
    ///
    /// # Errors
    /// What was announced cannot be written any more.
    pub(super) async fn watch(&mut self, addresses: &Addresses) -> Result<(), Failure> {
        loop {
            match self.next().await {
                Event::Started { part, pid } => {
                    self.processes.pids.insert(part, pid);
                    announce::write(&self.folders, addresses, &self.processes)?;
                }
                Event::Died { part, how } => {
                    eprintln!("{}: {how}; starting it again", part.name());
                }
                Event::Ready { part, words } => {
                    match part {
                        Part::Server => drop(self.meet_server().await?),
                        Part::Agent => {
                            self.meet_agent(&words);
                            announce::write(&self.folders, addresses, &self.processes)?;
                        }
                        Part::Net => {}
                    }
                    eprintln!("{}: is up again", part.name());
                }
            }
        }
    }

    /// Ends all parts gracefully, in order: the agent stops the apps while the server can still
    /// hear of it, and requests are served to the last.
    pub(super) async fn stop(&mut self) {
        self.events.close();
        for part in [Part::Agent, Part::Server, Part::Net] {
            if let Some(kept) = self.kept.get_mut(&part) {
                kept.stop.cancel();
                let _ = (&mut kept.task).await;
                self.kept.remove(&part);
            }
        }
    }

    /// Ends all parts at once: they are killed when their keepers go.
    pub(super) async fn kill(&mut self) {
        for (_, kept) in std::mem::take(&mut self.kept) {
            kept.task.abort();
            let _ = kept.task.await;
        }
    }

    fn start(&mut self, part: Part) {
        if self.kept.contains_key(&part) {
            return;
        }
        let (folders, facts) = (self.folders.clone(), Arc::clone(&self.facts));
        let stop = CancellationToken::new();
        let log = Log::new(&self.folders.logs(), part.name());
        let keeper = Keeper {
            part,
            log: log.clone(),
            launch: move || {
                let facts = facts.lock().expect("no holder panics");
                plan::launch(part, &folders, &facts.ports, facts.joining.as_ref())
            },
            events: self.sender.clone(),
            stop: stop.clone(),
            grace: if part == Part::Agent {
                GRACE_AGENT
            } else {
                GRACE
            },
        };
        self.kept.insert(
            part,
            Kept {
                stop,
                task: tokio::spawn(keeper.run()),
                log,
            },
        );
    }

    async fn next(&mut self) -> Event {
        self.events
            .recv()
            .await
            .expect("this supervisor holds a sender itself")
    }

    fn facts(&self) -> std::sync::MutexGuard<'_, Facts> {
        self.facts.lock().expect("no holder panics")
    }

    /// Reads what the server wrote, and keeps it where it is: others have been told.
    async fn meet_server(&self) -> Result<Bootstrap, Failure> {
        let path = self.folders.bootstrap();
        let read = tokio::task::spawn_blocking(move || secret_file::read_private(&path));
        let bytes = read.await.map_err(|error| Failure::failed(chain(&error)))?;
        let bytes = bytes.map_err(|error| Failure::failed(chain(&error)))?;
        let bootstrap: Bootstrap = serde_json::from_slice(&bytes)
            .map_err(|error| Failure::failed(format!("the server's bootstrap file: {error}")))?;
        let mut facts = self.facts();
        facts.ports.api.settle(port_of(&bootstrap.api)?);
        facts.ports.http.settle(port_of(&bootstrap.http)?);
        facts.ports.agents.settle(port_of(&bootstrap.agents)?);
        facts.joining = Some(Joining {
            agents: bootstrap.agents.clone(),
            join_token: bootstrap.join_token.clone(),
        });
        drop(facts);
        Ok(bootstrap)
    }

    fn meet_agent(&mut self, words: &Value) {
        let address = words.get("metrics").and_then(Value::as_str);
        self.processes.agent_metrics = address.map(|address| format!("http://{address}/metrics"));
    }

    fn meet_net(&self, words: &Value) -> Result<(SocketAddr, SocketAddr), Failure> {
        let address = |name: &str| {
            let text = words.get(name).and_then(Value::as_str).unwrap_or_default();
            text.parse::<SocketAddr>().map_err(|_| {
                Failure::failed(format!("the data plane does not say its {name} address"))
            })
        };
        let (ingress, admin) = (address("ingress")?, address("admin")?);
        let mut facts = self.facts();
        facts.ports.ingress.settle(ingress.port());
        facts.ports.admin.settle(admin.port());
        Ok((ingress, admin))
    }

    fn explain(&self, part: Part, how: &str) -> Failure {
        let log = &self
            .kept
            .get(&part)
            .expect("a part that died was started")
            .log;
        let message = format!("{} does not start: {how}", part.name());
        let problem = Problem::new(Code::Internal, message)
            .hint(format!("its log is {}", log.path().display()));
        Failure {
            own: None,
            context: log.tail(),
            ..Failure::with(Exit::Failed, problem)
        }
    }
}

/// The port at the end of a URL or address.
fn port_of(address: &str) -> Result<u16, Failure> {
    let digits = address.rsplit(':').next().unwrap_or_default();
    digits
        .parse()
        .map_err(|_| Failure::failed(format!("`{address}` in the bootstrap file has no port")))
}
