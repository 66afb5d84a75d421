//! The templates that come with skep: files of the folder `templates`, part of the program.

use skep_model::problem::Problem;
use skep_model::template::Template;

/// Their texts, by name.
const TEXTS: [(&str, &str); 3] = [
    (
        "postgres",
        include_str!("../../../../templates/postgres/skep.template.toml"),
    ),
    (
        "redis",
        include_str!("../../../../templates/redis/skep.template.toml"),
    ),
    (
        "umami",
        include_str!("../../../../templates/umami/skep.template.toml"),
    ),
];

/// Their names.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TEXTS.iter().map(|(name, _)| *name)
}

/// The text of one.
pub(super) fn text(name: &str) -> Option<&'static str> {
    let found = TEXTS.iter().find(|(it, _)| *it == name);
    found.map(|(_, text)| *text)
}

/// All of them.
pub(super) fn all() -> Result<Vec<Template>, Problem> {
    TEXTS
        .iter()
        .map(|(_, text)| Template::parse(text))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_template_is_good_and_goes_by_its_folders_name() {
        for (name, text) in TEXTS {
            let template = Template::parse(text).unwrap_or_else(|it| panic!("{name}: {it}"));
            assert_eq!(template.name, name);
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../templates");
        let mut folders: Vec<String> = std::fs::read_dir(folder)
            .expect("the folder")
            .map(|it| {
                it.expect("a name")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        folders.sort();
        assert_eq!(
            folders,
            names().collect::<Vec<_>>(),
            "each folder is shipped"
        );
    }
}
