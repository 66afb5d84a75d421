//! What if: for an ask, each node's answer. The same lens and the same search as placing, so that
//! what it says is what would be done. Decides nothing.

use skep_model::id::NodeId;

use crate::draft::Draft;
use crate::filter::{Ask, Reason};
use crate::lens::Lens;
use crate::place::score_of;
use crate::refusal::{against, amounts, say};
use crate::score::Score;

/// One node's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Which.
    pub node: NodeId,
    /// What people call it.
    pub name: String,
    /// Why not there, all of it, in words and as a value; empty: it could go there.
    pub reasons: Vec<(Reason, String)>,
    /// How good it would be there, where it could go.
    pub score: Option<Score>,
}

/// Every node's answer for one more: those that could take it first, the best first; then those
/// that could not, by id.
pub fn why(draft: &Draft<'_>, ask: &Ask) -> Vec<Answer> {
    let lens = Lens::new(draft, ask);
    let cluster = draft.cluster();
    let mut answers = Vec::new();
    for node in draft.nodes() {
        let Some(ordinal) = cluster.ordinal(node.id) else {
            continue;
        };
        let against = against(&lens, draft, ordinal, node);
        let reasons = against.rules.iter().chain(&against.room);
        let reasons: Vec<(Reason, String)> = reasons
            .map(|reason| {
                let amounts = amounts(&lens, draft, ordinal, *reason);
                (*reason, say(*reason, ask, node.name, amounts))
            })
            .collect();
        let score = reasons
            .is_empty()
            .then(|| score_of(draft, ask, &lens, ordinal));
        answers.push(Answer {
            node: node.id,
            name: node.name.to_owned(),
            reasons,
            score,
        });
    }
    answers.sort_by_key(|answer| (answer.score.is_none(), answer.score, answer.node));
    answers
}
