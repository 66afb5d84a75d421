//! Does what was planned: each piece of work in a task of its own, its calls bounded and timed by
//! the runtime. Tells how it went; decides nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard::models::Mount;
use skep_model::assignment::Assignment;
use skep_model::health::Check;
use skep_model::hooks::PreStop;
use skep_model::id::AllocationId;
use skep_model::problem::{Code, Problem};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bundles::{self, Bundles};
use crate::clock;
use crate::health;
use crate::images::Images;
use crate::ledger::{Change, Writer};
use crate::network::Networks;
use crate::plan::{Failure, Grant, Local, Phase, Seen, explain_exit};
use crate::runtime::{Error, Runtime};
use crate::samples;
use crate::storage::Shelf;

/// Left for the stop signal where what was asked before has taken all the grace.
const LAST_MOMENT: Duration = Duration::from_secs(1);
/// 128 and the number of SIGKILL: the kernel's way, among others.
const ENDED_BY_KILL: i64 = 137;

/// One piece of work for one allocation.
#[derive(Debug)]
pub(crate) enum Op {
    /// Make and start container number `local.attempt`; `local` is written down first.
    Start {
        /// What runs.
        assignment: Box<Assignment>,
        /// What is remembered of it from now on.
        local: Local,
        /// What of the node it gets.
        grant: Box<Grant>,
    },
    /// Stop these and remove them.
    Stop {
        /// Docker's ids.
        containers: Vec<String>,
        /// Time between SIGTERM and SIGKILL.
        grace: Duration,
        /// What one of them is asked before, in that time.
        farewell: Option<Farewell>,
    },
    /// Remove these.
    Remove(Vec<String>),
    /// Find out how this one ended.
    Examine(String),
    /// Find out what there is.
    List,
}

/// What a container is asked before its stop signal.
#[derive(Debug)]
pub(crate) struct Farewell {
    /// Which.
    pub(crate) container: String,
    /// What.
    pub(crate) hook: PreStop,
    /// Where it answers.
    pub(crate) at: Option<SocketAddr>,
}

/// How it went.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Not over: the image is being fetched.
    Pulling,
    /// Not over: the image is here.
    Pulled,
    /// This container was started.
    Started(Seen),
    /// These are gone.
    Gone(Vec<String>),
    /// This is what became of it; none: it is gone.
    Examined(String, Option<Seen>),
    /// These are there.
    Listed(Vec<Seen>),
    /// A start failed; what is there now, where that could be found out.
    Failed(Failure, Option<Vec<Seen>>),
    /// Something else failed; what is there now, where that could be found out.
    Unclear(String, Option<Vec<Seen>>),
}

/// Work that is over, or progressed.
#[derive(Debug)]
pub(crate) struct Done {
    /// Whose.
    pub(crate) allocation: AllocationId,
    /// How.
    pub(crate) outcome: Outcome,
}

/// Does work.
#[derive(Clone)]
pub(crate) struct Executor {
    /// Docker.
    pub(crate) runtime: Runtime,
    /// Images that nodes share.
    pub(crate) images: Images,
    /// Static sites.
    pub(crate) bundles: Bundles,
    /// What containers used.
    pub(crate) running: samples::Board,
    /// What must be remembered before acting.
    pub(crate) writer: Writer,
    /// Where the outcomes go.
    pub(crate) done: mpsc::Sender<Done>,
    /// The tasks, so that the end can wait for them.
    pub(crate) tasks: TaskTracker,
    /// What is mounted into containers.
    pub(crate) shelf: Arc<Shelf>,
    /// The bridges of environments.
    pub(crate) networks: Networks,
}

impl Executor {
    /// Begins; `cancel` ends a start that still waits for its image.
    pub(crate) fn spawn(&self, allocation: AllocationId, op: Op, cancel: CancellationToken) {
        let executor = self.clone();
        self.tasks.spawn(async move {
            let outcome = executor.run(allocation, op, cancel).await;
            executor.tell(allocation, outcome).await;
        });
    }

    async fn tell(&self, allocation: AllocationId, outcome: Outcome) {
        // Fails only when the agent ends.
        let _ = self
            .done
            .send(Done {
                allocation,
                outcome,
            })
            .await;
    }

    async fn run(&self, allocation: AllocationId, op: Op, cancel: CancellationToken) -> Outcome {
        let result = match op {
            Op::Start {
                assignment,
                local,
                grant,
            } => {
                return match self.start(&assignment, (local, &grant), cancel).await {
                    Ok(seen) => Outcome::Started(seen),
                    Err(failure) => Outcome::Failed(failure, self.list_of(allocation).await.ok()),
                };
            }
            Op::Stop {
                containers,
                grace,
                farewell,
            } => self.stop(allocation, (containers, grace), farewell).await,
            Op::Remove(containers) => self.remove(allocation, containers).await,
            Op::Examine(container) => self.examine(allocation, container).await,
            Op::List => self.list_of(allocation).await.map(Outcome::Listed),
        };
        match result {
            Ok(outcome) => outcome,
            Err(error) => {
                let why = crate::error_chain(&error);
                Outcome::Unclear(why, self.list_of(allocation).await.ok())
            }
        }
    }

    /// What there is of an allocation: containers, or a bundle.
    async fn list_of(&self, allocation: AllocationId) -> Result<Vec<Seen>, Error> {
        let mut listed = self.runtime.list_of(allocation).await?;
        listed.extend(self.bundles.list_of(allocation));
        listed.sort_by_key(|seen| seen.attempt);
        Ok(listed)
    }

    async fn start(
        &self,
        assignment: &Assignment,
        (local, grant): (Local, &Grant),
        cancel: CancellationToken,
    ) -> Result<Seen, Failure> {
        let (id, attempt) = (assignment.allocation, local.attempt);
        if let Err(error) = self.writer.write(vec![Change::Local(id, local)]).await {
            let why = crate::error_chain(&error);
            let message = format!("the node cannot write its ledger: {why}");
            return Err(failure(Problem::new(Code::Runtime, message), false));
        }
        if assignment.image.bundle {
            return self.hand_out(assignment, attempt, cancel).await;
        }
        let image = match self.find_image(assignment).await {
            Ok(Some(image)) => {
                self.images.note((&image, assignment.service), None).await;
                image
            }
            Ok(None) => {
                self.tell(id, Outcome::Pulling).await;
                let pulled = self.get_image(assignment);
                let Some(pulled) = cancel.run_until_cancelled(pulled).await else {
                    return Err(failure(not_wanted(), false));
                };
                let image = pulled.map_err(|problem| failure(problem, true))?;
                self.tell(id, Outcome::Pulled).await;
                image
            }
            Err(error) => return Err(refused(&error)),
        };
        let made = self
            .make(assignment, (attempt, grant), (&image, cancel))
            .await;
        if made.is_err() {
            // No container will ever read them.
            self.shelf.discard(id, attempt).await;
        }
        made
    }

    /// Has the files of a bundle handed out: there is no container to be made.
    async fn hand_out(
        &self,
        assignment: &Assignment,
        attempt: u32,
        cancel: CancellationToken,
    ) -> Result<Seen, Failure> {
        self.tell(assignment.allocation, Outcome::Pulling).await;
        let started = self.bundles.start(&self.images, assignment, attempt);
        let what = format!("the files of `{}`", assignment.image.reference);
        let started = self.images.with_room((&what, Code::ImageFailed), started);
        let Some(started) = cancel.run_until_cancelled(started).await else {
            return Err(failure(not_wanted(), false));
        };
        let seen = started.map_err(|problem| failure(problem, true))?;
        self.tell(assignment.allocation, Outcome::Pulled).await;
        Ok(seen)
    }

    /// Makes and starts the container, with all that it is given.
    async fn make(
        &self,
        assignment: &Assignment,
        (attempt, grant): (u32, &Grant),
        (image, cancel): (&str, CancellationToken),
    ) -> Result<Seen, Failure> {
        let networked = self.networks.ensure(assignment.network).await;
        networked.map_err(|problem| failure(problem, false))?;
        let mounts = self.shelf.prepare(assignment, attempt).await;
        let mounts = mounts.map_err(|problem| failure(problem, true))?;
        let prepared = self.prepare(assignment, attempt, (image, &mounts));
        let Some(prepared) = cancel.run_until_cancelled(prepared).await else {
            return Err(failure(not_wanted(), false));
        };
        prepared?;
        let started = self
            .runtime
            .start(assignment, (attempt, grant), (image, &mounts))
            .await;
        let seen = started.map_err(|error| refused(&error))?;
        let mut seen = seen.ok_or_else(|| {
            let message = "the container vanished while it was started";
            failure(Problem::new(Code::Runtime, message), false)
        })?;
        if !seen.is_running() {
            // It ended within milliseconds: an end like any other.
            seen.phase = Phase::Ended;
        }
        Ok(seen)
    }

    /// Runs what has to end well before the app's own command begins.
    async fn prepare(
        &self,
        assignment: &Assignment,
        attempt: u32,
        (image, mounts): (&str, &[Mount]),
    ) -> Result<(), Failure> {
        let all = &assignment.hooks.init;
        for (index, init) in all.iter().enumerate() {
            let ran = self
                .runtime
                .run_init(assignment, (attempt, index), (image, mounts));
            let ended = ran.await.map_err(|error| refused(&error))?;
            let why = match &ended {
                Some(exit) if exit.code == 0 && !exit.oom => continue,
                Some(exit) => explain_exit(exit, assignment).message,
                None => format!("had not ended after {} s", init.timeout_ms / 1_000),
            };
            let mut text = format!(
                "`{}`, command {} of {} before the app's own, {why}",
                init.command.join(" "),
                index + 1,
                all.len()
            );
            let tail = ended.map_or(String::new(), |exit| exit.tail);
            if let Some(last) = tail.lines().rev().find(|line| !line.trim().is_empty()) {
                text.push_str(&format!(": {last}"));
            }
            let problem = Problem::new(Code::Crashed, text)
                .hint("`hooks.init` names it; it has to exit with 0");
            return Err(failure(problem, true));
        }
        Ok(())
    }

    /// Docker's id of an assignment's image, where Docker has it.
    async fn find_image(&self, assignment: &Assignment) -> Result<Option<String>, Error> {
        if let Some(found) = self.runtime.find_image(&assignment.image).await? {
            return Ok(Some(found));
        }
        match self.images.docker_id(&assignment.image).await {
            Some(id) => self.runtime.image_id(&id).await,
            None => Ok(None),
        }
    }

    /// From the nodes that have it, or from its registry.
    async fn get_image(&self, assignment: &Assignment) -> Result<String, Problem> {
        let (image, service) = (&assignment.image, assignment.service);
        let pull = async {
            if image.shared {
                let givers = (&assignment.image_peers[..], assignment.workspace);
                let brought = self.images.bring(image, givers).await?;
                return Ok((brought, None));
            }
            let pulled = self.runtime.pull_image(image, assignment.workspace).await?;
            Ok((pulled, Some(image.reference.as_str())))
        };
        let what = format!("image `{}`", image.reference);
        let had = self.images.with_room((&what, Code::ImageFailed), pull);
        let (id, pulled_as) = had.await?;
        self.images.note((&id, service), pulled_as).await;
        Ok(id)
    }

    async fn stop(
        &self,
        allocation: AllocationId,
        (containers, grace): (Vec<String>, Duration),
        farewell: Option<Farewell>,
    ) -> Result<Outcome, Error> {
        if containers.iter().any(|id| bundles::is_bundle(id)) {
            return self.hand_out_no_more(allocation, containers).await;
        }
        let begun = Instant::now();
        if let Some(farewell) = &farewell {
            self.say_farewell(farewell, grace).await;
        }
        for container in &containers {
            let left = match &farewell {
                Some(farewell) if farewell.container == *container => {
                    grace.saturating_sub(begun.elapsed()).max(LAST_MOMENT)
                }
                _ => grace,
            };
            self.runtime.stop(container, left).await?;
        }
        self.remove(allocation, containers).await
    }

    /// What comes of it changes nothing: the container is stopped either way.
    async fn say_farewell(&self, farewell: &Farewell, grace: Duration) {
        let Farewell {
            container,
            hook,
            at,
        } = farewell;
        let check = match hook {
            PreStop::Exec(command) => Check::Exec(command.clone()),
            PreStop::Http(path) => Check::Http(path.clone()),
        };
        let question = health::Question {
            check: &check,
            at: *at,
            limit: grace,
        };
        if let Err(why) = question.ask(&self.runtime, container).await {
            let why = question.explain(&why);
            tracing::warn!(container, why, "what was asked before a stop went wrong");
        }
    }

    /// Requests that are under way have the files open.
    async fn hand_out_no_more(
        &self,
        allocation: AllocationId,
        bundles: Vec<String>,
    ) -> Result<Outcome, Error> {
        match self.bundles.remove(allocation).await {
            Ok(()) => Ok(Outcome::Gone(bundles)),
            Err(error) => {
                let why = format!("the files of a site could not be removed: {error}");
                Ok(Outcome::Unclear(why, self.list_of(allocation).await.ok()))
            }
        }
    }

    async fn remove(
        &self,
        allocation: AllocationId,
        containers: Vec<String>,
    ) -> Result<Outcome, Error> {
        for container in &containers {
            self.runtime.remove(container).await?;
        }
        if self.shelf.has_secrets(allocation) {
            let left = self.runtime.list_of(allocation).await?;
            let left = left.iter().map(|seen| seen.attempt).collect();
            self.shelf.sweep(allocation, left).await;
        }
        Ok(Outcome::Gone(containers))
    }

    async fn examine(&self, allocation: AllocationId, container: String) -> Result<Outcome, Error> {
        let mut seen = self.runtime.inspect(&container).await?;
        if let Some(Phase::Exited(exit)) = seen.as_mut().map(|seen| &mut seen.phase) {
            exit.witnessed = true;
            exit.tail = self.runtime.tail(&container).await;
            exit.usual = self.running.usual(allocation, &container);
            if exit.code == ENDED_BY_KILL && !exit.oom {
                exit.oom = self.runtime.ran_out_of_memory(&container).await;
            }
        }
        Ok(Outcome::Examined(container, seen))
    }
}

fn not_wanted() -> Problem {
    Problem::new(Code::Canceled, "not wanted any more")
}

fn failure(problem: Problem, counted: bool) -> Failure {
    Failure {
        problem,
        at_ms: clock::now_ms(),
        counted,
    }
}

/// Docker's refusal of a start. What it answers is about this container; that it does not answer
/// is not.
fn refused(error: &Error) -> Failure {
    let message = error.message();
    let problem = match error.status() {
        None | Some(409) => return failure(Problem::new(Code::Runtime, message), false),
        // Of somebody else on the machine, or of a container that is just being removed.
        Some(_)
            if message.contains("port is already allocated")
                || message.contains("address already in use") =>
        {
            return failure(Problem::new(Code::Busy, message), false);
        }
        Some(404) if message.contains("No such image") => {
            return failure(Problem::new(Code::ImageFailed, message), false);
        }
        Some(_) => Problem::new(
            Code::Crashed,
            format!("the container cannot be started: {message}"),
        ),
    };
    let missing = [
        "executable file not found",
        "no such file or directory",
        "permission denied",
    ];
    failure(
        match missing.iter().any(|words| message.contains(words)) {
            true => {
                problem.hint("check the command: it must be an executable file inside the image")
            }
            false => problem,
        },
        true,
    )
}
