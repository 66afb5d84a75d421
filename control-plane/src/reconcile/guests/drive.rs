//! One step of one guest: its provider is asked, and what came of it is written down.

use std::sync::Arc;

use skep_model::guest_pool::{GuestPool, PoolGuest};
use skep_model::pool::{Guest, Note, Phase};
use skep_model::problem::{Code, Problem};
use skep_pools::exec::Exec;
use skep_pools::{Driver, Fixed, Provider, Turn};
use skep_proto::convert::{id_bytes, note_out};
use skep_proto::v1;
use skep_proto::v1::command::Kind;

use crate::guests::clients::Means;
use crate::guests::introduce::{TOKEN_MS, introduction};
use crate::reconcile::Parts;
use crate::store::now_ms;

/// Longest text that is kept of why a guest does not get on, in bytes.
const WHY_MAX: usize = 500;

/// What a step needs.
pub(super) struct Step {
    pub(super) parts: Parts,
    pub(super) means: Means,
    pub(super) pool: Arc<GuestPool>,
    pub(super) one: PoolGuest,
    /// It has waited for so long that people should know why.
    pub(super) is_told: bool,
}

/// What came of a step, as far as the next one's time follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Something was done or written down: on with it.
    GotOn,
    /// Something outside has to happen first.
    Waits,
    /// It is as it should be.
    Done,
    /// Its provider cannot be asked, or refuses.
    Failed,
}

/// What must not run beside a step of this guest: clones of one template wait for each other's lock, and fail when that
/// takes too long.
pub(super) fn key_of(pool: &GuestPool, one: &PoolGuest) -> Option<String> {
    let host = one.guest.host.as_deref()?;
    (one.guest.phase == Phase::Cloning).then(|| format!("{}/{host}", pool.provider))
}

impl Step {
    pub(super) async fn run(self) -> Outcome {
        match &self.means {
            Means::Hosts(client) => {
                self.drive(&Driver {
                    client: &**client,
                    recipe: &self.pool.recipe,
                })
                .await
            }
            Means::Program(program) => {
                self.drive(&Exec {
                    program,
                    folder: self.parts.programs.as_deref(),
                    pool: &self.pool,
                })
                .await
            }
            Means::Machines(machines) => self.drive(&Fixed { machines }).await,
        }
    }

    async fn drive(&self, provider: &impl Provider) -> Outcome {
        let others = self.others();
        let turn = provider.turn(&self.one.guest, &others, now_ms()).await;
        let guest = self.one.guest.name();
        match turn {
            Ok(Turn::Note(note)) => {
                tracing::info!(guest, pool = self.pool.name, ?note, "a guest");
                self.write_down(&note).await
            }
            Ok(Turn::Introduce) => self.introduce(provider).await,
            Ok(Turn::Did(ask)) => {
                tracing::info!(guest, pool = self.pool.name, ?ask, "done with a guest");
                self.clear().await;
                match self.means {
                    // It shows what it was asked for in its own time: until then it would be asked again and again.
                    Means::Program(_) => Outcome::Waits,
                    Means::Hosts(_) | Means::Machines(_) => Outcome::GotOn,
                }
            }
            Ok(Turn::Wait(why)) => {
                // Who is to do something is told at once.
                if self.is_told || provider.is_told_by_people() {
                    self.tell(&why).await;
                }
                Outcome::Waits
            }
            Ok(Turn::Done) => {
                self.clear().await;
                Outcome::Done
            }
            Err(error) => {
                tracing::warn!(guest, pool = self.pool.name, %error, "a guest does not get on");
                self.tell(&error.to_string()).await;
                Outcome::Failed
            }
        }
    }

    /// All guests that are written down of the same provider: their numbers and addresses are taken.
    fn others(&self) -> Vec<Guest> {
        let view = self.parts.store.view();
        let is_beside = |pool: &str| {
            let pool = view.guest_pool(pool);
            pool.is_some_and(|pool| pool.provider == self.pool.provider)
        };
        let all = view.guests().filter(|one| is_beside(&one.pool));
        all.map(|one| one.guest.clone()).collect()
    }

    async fn introduce(&self, provider: &impl Provider) -> Outcome {
        let view = self.parts.store.view();
        let made = introduction(&view, &self.one, now_ms() + TOKEN_MS);
        let (command, text) = match made {
            Ok(made) => made,
            Err(problem) => return self.refused(&problem),
        };
        if let Err(problem) = self.parts.store.propose(command).await {
            return self.refused(&problem);
        }
        let guest = self.one.guest.name();
        match provider.introduce(&self.one.guest, &text).await {
            Ok(turn) => {
                tracing::info!(
                    guest,
                    pool = self.pool.name,
                    ?turn,
                    "a guest was told how to join"
                );
                Outcome::GotOn
            }
            Err(error) => {
                tracing::warn!(guest, pool = self.pool.name, %error, "a guest was not told how to join");
                self.tell(&error.to_string()).await;
                Outcome::Failed
            }
        }
    }

    async fn write_down(&self, note: &Note) -> Outcome {
        let command = Kind::NoteGuest(v1::NoteGuest {
            id: id_bytes(self.one.guest.id.as_u128()),
            note: note_out(note),
        });
        match self.parts.store.propose(command).await {
            Ok(_) => Outcome::GotOn,
            Err(problem) => self.refused(&problem),
        }
    }

    fn refused(&self, problem: &Problem) -> Outcome {
        match problem.code {
            // Somebody else has the number, or the guest went meanwhile: looked at again.
            Code::Conflict | Code::NotFound => Outcome::GotOn,
            _ => {
                tracing::warn!(guest = self.one.guest.name(), %problem, "a guest's way was not written down");
                Outcome::Failed
            }
        }
    }

    /// Why it does not get on, where people look.
    async fn tell(&self, why: &str) {
        let why = &why[..why.floor_char_boundary(WHY_MAX)];
        if self.one.guest.problem.as_deref() != Some(why) {
            self.write_down(&Note::Stuck(Some(why.to_owned()))).await;
        }
    }

    async fn clear(&self) {
        if self.one.guest.problem.is_some() {
            self.write_down(&Note::Stuck(None)).await;
        }
    }
}
