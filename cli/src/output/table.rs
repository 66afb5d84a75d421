//! Tables for people: columns and blanks, nothing else, so that `grep` and `awk` like them too.

use comfy_table::{ContentArrangement, Table, presets};

/// A table of these columns. Without rows it is `empty` instead.
pub(crate) fn render(columns: &[&str], rows: Vec<Vec<String>>, empty: &str) -> String {
    if rows.is_empty() {
        return empty.to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.to_vec());
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Names and values, one a line.
pub(crate) fn facts(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = rows
        .iter()
        .map(|(name, value)| format!("{name:width$}  {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_without_borders() {
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        let text = render(
            &["NAME", "STATE"],
            vec![row("web", "live"), row("a-worker", "failed")],
            "",
        );
        assert_eq!(text, "NAME      STATE\nweb       live\na-worker  failed");
        assert_eq!(
            render(&["NAME"], Vec::new(), "nothing runs"),
            "nothing runs"
        );
        assert_eq!(
            facts(&[("a", "1".into()), ("long", "2".into())]),
            "a     1\nlong  2"
        );
    }
}
