//! A signed request of no forge. It is written for Skep: every field counts, and others are refused.

use serde::Deserialize;

use super::{ParseError, commit, name, read};
use crate::event::{Asked, Event};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default, rename = "ref")]
    reference: Option<String>,
    #[serde(default)]
    commit: Option<String>,
    #[serde(default)]
    image: Option<String>,
}

pub(super) fn events(body: &[u8]) -> Result<Vec<Event>, ParseError> {
    let body: Body = read(body)?;
    let named = |field: &str, text: Option<&str>| text.map(|text| name(field, text)).transpose();
    let asked = Asked {
        reference: named("ref", body.reference.as_deref())?,
        commit: body
            .commit
            .as_deref()
            .map(|text| commit("commit", text))
            .transpose()?,
        image: named("image", body.image.as_deref())?,
    };
    if asked.image.is_some() && (asked.reference.is_some() || asked.commit.is_some()) {
        let message = "an image has neither branch nor commit: send it alone";
        return Err(ParseError::new("image", message));
    }
    Ok(vec![Event::Asked(asked)])
}
