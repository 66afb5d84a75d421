//! `labels`: those of Traefik are routes, by the same function that reads them from `skep.toml`.

use std::collections::BTreeMap;

use skep_model::routing::labels;
use skep_model::spec::ServiceType;

use crate::draft::Draft;
use crate::report::At;

/// Reads the key.
pub(super) fn read<'a>(draft: &mut Draft<'a>, at: &At<'a>) {
    let mut of_traefik = BTreeMap::new();
    for (label, value, at) in at.pairs() {
        if label.to_ascii_lowercase().starts_with("traefik.") {
            of_traefik.insert(label, value.unwrap_or_default());
        } else {
            at.left(
                "it means nothing here",
                "only labels of Traefik do, as routes",
            );
        }
    }
    let is_off = |(label, value): (&String, &String)| {
        label.eq_ignore_ascii_case("traefik.enable") && value.trim() != "true"
    };
    if of_traefik.is_empty() || of_traefik.iter().any(is_off) {
        return;
    }
    let labelled = match labels::from_labels(&of_traefik) {
        Ok(labelled) => labelled,
        Err(problem) => {
            let label = problem.field.clone().unwrap_or_default();
            let hint = problem
                .hint
                .unwrap_or_else(|| "[[routes]] in skep.toml".to_owned());
            return at.left(
                format!("no route is made of them: {label}: {}", problem.message),
                hint,
            );
        }
    };
    if labelled.routes.is_empty() && labelled.port.is_none() {
        return;
    }
    draft.change(at, |spec| {
        spec.kind = ServiceType::Web;
        spec.port = labelled.port.or(spec.port);
        spec.routes = labelled.routes;
    });
}
