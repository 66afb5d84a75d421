//! What a pull request is to be told of its preview: the text follows from the state, and is told when it is another one
//! than was told last.

use std::sync::Arc;

use skep_forge::api::{self, Left, Life, Line, Notice};
use skep_forge::{canonical, place};
use skep_model::forge::{Connection, Kept};
use skep_model::id::EnvironmentId;
use skep_model::notify::Standing;
use skep_model::preview::{Preview, Request};
use skep_model::service::Service;
use skep_model::settings::Scope;
use skep_model::spec::Source;
use skep_proto::convert::id_bytes;
use skep_proto::v1;
use skep_proto::v1::command::Kind;
use skep_state::State;

use super::{News, Of, Tried, came};
use crate::api::types::CommentState;
use crate::urls::urls;

/// What a pull request is to be told.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) preview: Arc<Preview>,
    pub(crate) notice: Notice,
    /// Of its text.
    pub(crate) digest: u64,
    /// The comment that is changed; none: it is looked for.
    pub(crate) id: Option<u64>,
    /// Where there is none, one is made.
    pub(crate) makes: bool,
}

/// What is to be told of a preview, if its forge does not know it.
pub(crate) fn comment_news(view: &State, preview: EnvironmentId) -> Option<News> {
    let (connection, wanted) = wanted(view, preview)?;
    let before = wanted.preview.comment.as_ref();
    let at_ms = connection.kept_due_ms(before, wanted.digest)?;
    Some(News {
        connection,
        of: Of::Preview(Box::new(wanted)),
        at_ms,
    })
}

/// How it is with the comment of a preview; none: there is to be none.
pub(crate) fn comment_state(view: &State, preview: EnvironmentId) -> Option<CommentState> {
    let (_, wanted) = wanted(view, preview)?;
    let before = wanted.preview.comment.as_ref();
    let same = before.filter(|comment| comment.digest == wanted.digest);
    Some(match same.map(|comment| comment.standing) {
        Some(Standing::Delivered) => CommentState::Told,
        Some(Standing::GivenUp) => CommentState::GivenUp,
        Some(Standing::Pending { .. }) | None => CommentState::Waiting,
    })
}

/// What a preview's pull request is to know; none: nothing.
fn wanted(view: &State, preview: EnvironmentId) -> Option<(Arc<Connection>, Wanted)> {
    let preview = view.preview_of(preview)?;
    let request = preview.request.as_ref()?;
    // One that came after it has the word, in the same comment.
    let newest = view.preview_for(preview.base, (&request.repository, request.number))?;
    if newest.environment != preview.environment {
        return None;
    }
    let base = view.environment(preview.base)?;
    let project = view.project(base.project)?;
    let (host, repository) = repository(view, preview, request)?;
    let connection = view.forge(project.workspace, &host)?;
    let (life, services) = match preview.ended {
        // The past is nobody's news.
        Some(ended) if ended.at_ms < connection.made_ms => return None,
        Some(ended) => (Life::Ended(ended.at_ms, ended.why), Vec::new()),
        None => (Life::Until(preview.expires_ms), lines(view, preview)),
    };
    if preview.ended.is_none() && services.is_empty() {
        return None;
    }
    let notice = Notice {
        mark: preview.base.to_string(),
        repository,
        number: request.number,
        preview: preview.name.clone(),
        project: project.name.clone(),
        base: base.name.clone(),
        life,
        services,
    };
    let wanted = Wanted {
        preview: Arc::clone(preview),
        digest: api::digest(&notice.text(connection.kind)),
        notice,
        id: connection.kept_id(preview.comment.as_ref()),
        // Nobody needs to be told of the end of what they were not told of. It is looked for all the same: whoever made
        // a comment may have died before it was taken down.
        makes: preview.ended.is_none(),
    };
    Some((Arc::clone(connection), wanted))
}

/// The host of a pull request's forge, and its repository there, as a service of the environment writes it: not every
/// forge takes small letters for large ones.
fn repository(view: &State, preview: &Preview, request: &Request) -> Option<(String, String)> {
    let mut written = view.services_in(Scope::Environment(preview.base));
    let written = written.find_map(|service| match &service.spec.source {
        Some(Source::Git { repository, .. })
            if canonical(repository).as_ref() == Some(&request.repository) =>
        {
            place(repository)
        }
        _ => None,
    });
    let own = || {
        let (host, path) = request.repository.split_once('/')?;
        Some((host.to_owned(), path.to_owned()))
    };
    written.or_else(own)
}

fn lines(view: &State, preview: &Preview) -> Vec<Line> {
    let services = view.services_in(Scope::Environment(preview.environment));
    let told = services.filter(|it| !it.removing && it.spec.pushes.writes_back());
    told.map(|service| line(view, service)).collect()
}

fn line(view: &State, service: &Service) -> Line {
    let newest = view.deployments_of(service.id).next_back();
    Line {
        service: service.name.clone(),
        standing: newest.map(|deployment| api::standing(deployment)),
        url: urls(view, service).into_iter().next(),
        commit: newest.and_then(|it| it.commit().map(str::to_owned)),
    }
}

/// What is taken down of an attempt to tell of a preview.
pub(crate) fn comment_settlement(
    connection: &Connection,
    wanted: &Wanted,
    (left, now_ms): (Left, u64),
) -> Kind {
    let before = wanted.preview.comment.as_ref();
    let same = before.filter(|comment| comment.digest == wanted.digest);
    let tried = Tried {
        id: &wanted.preview.environment.to_string(),
        attempts: same.map_or(0, |it| it.attempts).saturating_add(1),
        since_ms: same.map_or(now_ms, |it| it.since_ms),
    };
    let came = came(&tried, left.verdict, now_ms);
    let comment = Kept {
        id: left.id,
        digest: wanted.digest,
        standing: came.standing,
        attempts: tried.attempts,
        since_ms: tried.since_ms,
        at_ms: now_ms,
        problem: came.problem,
    };
    Kind::SettleComment(v1::SettleComment {
        workspace: id_bytes(connection.workspace.as_u128()),
        host: connection.host.clone(),
        expected_changed_ms: connection.changed_ms,
        environment: id_bytes(wanted.preview.environment.as_u128()),
        expected_at_ms: before.map_or(0, |comment| comment.at_ms),
        comment: Some((&comment).into()),
        is_refused: came.is_refused,
        resume_ms: came.resume_ms,
    })
}

#[cfg(test)]
pub(crate) mod tests;
