//! The schemas are the published ones. What they take is tested in `tests/tests/schema.rs`.

use std::path::Path;

use super::*;

#[test]
fn the_published_schemas_are_these() {
    for (file, name) in [(File::App, "app.json"), (File::Project, "project.json")] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../docs/schema")
            .join(name);
        let text = text(file);
        if std::env::var_os("SKEP_BLESS").is_some() {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(&path, &text).expect("written");
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        let mut lines = kept.lines().zip(text.lines());
        let differs = lines.find(|(kept, made)| kept != made);
        assert!(
            kept == text,
            "docs/schema/{name} differs ({differs:?}); SKEP_BLESS=1 rewrites it"
        );
    }
}
