//! The guest of one node of a pool gets another size than its pool's recipe says.

use axum::Json;
use skep_model::guest_pool::{DRAIN_MS, GuestPool, PoolGuest};
use skep_model::node::Node;
use skep_model::pool::{GuestSize, Kind as GuestKind};
use skep_model::problem::{Code, Problem};
use skep_pools::{Driver, Look, Way, way};
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State;

use super::error::Failure;
use super::extract::{Body, Path, Query};
use super::node_pools::{PlanQuery, made_by};
use super::nodes::{NodeKey, drain_span, find_node};
use super::providers::unreachable;
use super::types::{ResizePlanView, ResizeRequest};
use super::{App, Here};
use crate::guests::clients::connect;
use crate::guests::resizing::{tied, too_small};

/// Gives the guest of a node another size. A disk grows while it runs, and so do cores and memory of a container; for those of
/// a VM it is shut down once its node is empty, unless its configuration has hot-plug for them. Refused where its host has
/// no room, and where something would be stopped that can be nowhere else, unless that is said.
#[utoipa::path(post, path = "/v1/nodes/{node}/resize", tag = "cluster", params(NodeKey, PlanQuery),
    operation_id = "resize_node", request_body = ResizeRequest,
    responses((status = 200, body = ResizePlanView)))]
pub(super) async fn resize(
    Here(app): Here,
    Path(key): Path<NodeKey>,
    Query(query): Query<PlanQuery>,
    Body(request): Body<ResizeRequest>,
) -> Result<Json<ResizePlanView>, Failure> {
    let drain_ms = match request.deadline_ms {
        None => DRAIN_MS,
        given => drain_span(given)?,
    };
    let asked = Asked::of(&app, &key, request).await?;
    let mut told = asked.foreseen(&app.store.view())?;
    if query.plan() {
        return Ok(Json(told));
    }
    let make = |view: &State| {
        let foreseen = asked.foreseen(view)?;
        asked.check(&foreseen)?;
        let (_, node) = asked.there(view)?;
        told = foreseen;
        Ok(Kind::ResizeGuest(v1::ResizeGuest {
            id: id_bytes(asked.one.guest.id.as_u128()),
            size: Some(asked.to.into()),
            from: Some(asked.look.size.into()),
            stops: asked.way == Way::Down,
            may_interrupt: request.interrupt || tied(view, node).is_empty(),
            drain_ms,
            cordons: asked.shrinks(),
            expected_node_generation: node.generation,
        }))
    };
    app.store.change(make).await?;
    Ok(Json(told))
}

/// What is asked for, and what its provider says of that.
struct Asked {
    pool: GuestPool,
    one: PoolGuest,
    node: String,
    request: ResizeRequest,
    look: Look,
    to: GuestSize,
    way: Way,
    /// What its host has against it.
    full: Option<String>,
}

impl Asked {
    async fn of(app: &App, key: &NodeKey, request: ResizeRequest) -> Result<Self, Problem> {
        let view = app.store.view();
        let node = find_node(&view, &key.node)?;
        let elsewhere = "a machine that somebody else has made is resized by them: its agent tells of it within a minute";
        let (one, pool, provider) = made_by(&view, &node, elsewhere)?;
        if request.size().iter().all(Option::is_none) {
            return Err(Problem::invalid("cores", "no size is named")
                .hint("--cores N, --memory MIB, --disk GIB (`cores`, `memory_mib`, `disk_gib`)"));
        }
        let client = connect(provider, &app.secrets).map_err(|problem| match problem.hint {
            Some(_) => problem,
            None => problem.hint(
                "resize this machine by its own means: its agent tells of it within a minute",
            ),
        })?;
        let driver = Driver {
            client: &client,
            recipe: &pool.recipe,
        };
        let look = driver.size_of(&one.guest).await.map_err(unreachable)?;
        let look = look.ok_or_else(|| {
            let text = format!(
                "the guest {} is not to be seen at its provider, or does not say how large it is",
                one.guest.name()
            );
            Problem::new(Code::Unavailable, text)
                .at("node")
                .hint("it moves, its host is away, or a task works at it: again in a minute")
        })?;
        let [cores, memory_mib, disk_gib] = request.size();
        let to = GuestSize {
            cores: cores.unwrap_or(look.size.cores),
            memory_mib: memory_mib.unwrap_or(look.size.memory_mib),
            disk_gib: disk_gib.unwrap_or(look.size.disk_gib),
        };
        look.size.check_next(&to)?;
        let room = driver.has_room(&one.guest, &look.host, to);
        Ok(Self {
            full: room.await.map_err(unreachable)?.err(),
            way: match &one.guest.resizing {
                // Of the size before it may be on its way down.
                Some(resizing) if resizing.keeps_empty() => Way::Down,
                _ => way(pool.recipe.kind, &look, to),
            },
            pool: pool.clone(),
            one: one.clone(),
            node: node.name.clone(),
            request,
            look,
            to,
        })
    }

    /// It becomes smaller while things run on it.
    fn shrinks(&self) -> bool {
        let (from, to) = (self.look.size, self.to);
        self.way == Way::Live && (to.cores < from.cores || to.memory_mib < from.memory_mib)
    }

    /// The guest and its node, as they are written down now.
    fn there<'v>(&self, view: &'v State) -> Result<(&'v PoolGuest, &'v Node), Problem> {
        let one = view.guest(self.one.guest.id);
        let node = one.and_then(|one| view.node(one.node?));
        one.zip(node)
            .map(|(one, node)| (&**one, &**node))
            .ok_or_else(|| {
                Problem::new(Code::NotFound, "the node was removed meanwhile").at("node")
            })
    }

    fn foreseen(&self, view: &State) -> Result<ResizePlanView, Problem> {
        let (one, node) = self.there(view)?;
        let (name, from, to) = (self.one.guest.name(), self.look.size, self.to);
        let tied = tied(view, node);
        let mut steps = vec![format!("{name} has {from}, and gets {to}")];
        if to.disk_gib > from.disk_gib {
            steps.push(format!(
                "its disk grows while it runs: {}",
                match self.pool.recipe.kind {
                    GuestKind::Vm => "its system uses that from its next start on, where it has growpart (cloud-init)",
                    GuestKind::Lxc => "its file system grows with it",
                }
            ));
        }
        steps.extend(self.shaped(view, node, &tied));
        if steps.len() == 1 {
            steps.push("nothing is to be done".to_owned());
        }
        let mut against: Vec<String> = self.full.iter().cloned().collect();
        let has_all = self.way == Way::Live;
        against.extend(too_small(view, node, to, has_all).filter(|_| self.is_less()));
        against.extend(busy(view, one));
        Ok(ResizePlanView {
            steps,
            against,
            // Where it is tried live first it waits for that word, should it be needed.
            interrupts: tied.into_iter().filter(|_| self.way == Way::Down).collect(),
        })
    }

    fn is_less(&self) -> bool {
        let (from, to) = (self.look.size, self.to);
        to.cores < from.cores || to.memory_mib < from.memory_mib
    }

    /// What is done for cores and memory.
    fn shaped(&self, view: &State, node: &Node, tied: &[String]) -> Vec<String> {
        let (from, to) = (self.look.size, self.to);
        let name = self.one.guest.name();
        if (from.cores, from.memory_mib) == (to.cores, to.memory_mib) {
            return Vec::new();
        }
        let tied = match tied.is_empty() {
            true => String::new(),
            false => format!(
                "; what has its data there alone is stopped for that time: {}",
                tied.join(", ")
            ),
        };
        match self.way {
            Way::Live if self.shrinks() => vec![format!(
                "cores and memory change while it runs; {name} takes nothing new until its agent says so"
            )],
            Way::Live => vec!["cores and memory change while it runs".to_owned()],
            Way::LiveOrDown => vec![format!(
                "cores and memory are plugged in while it runs; should Proxmox leave them to its next start, it is drained and \
                 shut down for that{tied}"
            )],
            Way::Down => {
                let live = view.allocations_on(node.id).filter(|it| it.is_live());
                let before = match node.admin {
                    skep_model::node::Admin::Eligible => "takes work again",
                    _ => "stays out of work, as it is now",
                };
                vec![
                    format!(
                        "{name} is drained: of {} allocations there, those that can move to other nodes{tied}",
                        live.count()
                    ),
                    format!("{name} is shut down, gets its cores and memory, and starts"),
                    format!("its agent comes back as the same node, which {before}"),
                ]
            }
        }
    }

    /// Refuses what is only to be seen in a plan.
    fn check(&self, foreseen: &ResizePlanView) -> Result<(), Problem> {
        if !foreseen.against.is_empty() {
            let text = format!(
                "node `{}` cannot have {}: {}",
                self.node,
                self.to,
                foreseen.against.join("; ")
            );
            return Err(Problem::new(Code::Conflict, text).at("node").hint(
                "`skep node resize --plan` says what would be done, and what is against it",
            ));
        }
        if !foreseen.interrupts.is_empty() && !self.request.interrupt {
            let text = format!(
                "{} would be stopped meanwhile: no other node has the data",
                foreseen.interrupts.join(", ")
            );
            return Err(Problem::new(Code::Conflict, text)
                .at("interrupt")
                .hint("`--yes` (`interrupt: true`) where that may be"));
        }
        Ok(())
    }
}

/// What else is done with it, or with others of its pool.
fn busy(view: &State, one: &PoolGuest) -> Option<String> {
    if one.is_retiring || !one.is_ready() {
        return Some("the guest comes or goes".to_owned());
    }
    if let Some(restoring) = &one.guest.restoring {
        return Some(format!("the guest is becoming `{}`", restoring.archive));
    }
    let mut beside = view.guests_of(&one.pool);
    let other = beside.find(|it| it.guest.id != one.guest.id && it.guest.resizing.is_some())?;
    Some(format!(
        "{} of its pool is being resized, and one is at a time",
        other.guest.name()
    ))
}
