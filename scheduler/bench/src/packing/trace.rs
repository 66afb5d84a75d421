//! Reads traces and node lists: comma-separated values with a header line, in any order of
//! columns. Owns the format; replays nothing.
//!
//! A trace has the columns `arrival`, `lifetime`, `cpu` and `memory`: seconds from any origin,
//! seconds (empty: to the end), and two amounts. A node list has `cpu`, `memory` and, if wanted,
//! `count`. Amounts are in any unit (cores, GiB, parts of a machine) that both files share.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use skep_scheduler::packing::Size;

use super::load::Item;

/// Amounts become integers: the greatest of a resource this many, whatever its unit.
const FINENESS: f64 = 1e9;

/// A trace and the nodes it runs on.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// By arrival; the first at 0.
    pub items: Vec<Item>,
    /// In the order of the file.
    pub nodes: Vec<Size>,
    /// The last arrival.
    pub end_s: f64,
}

/// A row of numbers; what is empty is infinite.
type Row = Vec<f64>;

/// Reads both files.
///
/// # Errors
/// A file cannot be read, lacks a column, or holds what is not a number; with file and line.
pub fn read(trace: &Path, nodes: &Path) -> Result<Trace> {
    let text = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
    };
    parse(&text(trace)?, &text(nodes)?)
}

/// Of the two files' texts.
///
/// # Errors
/// As [`read`].
pub fn parse(trace: &str, nodes: &str) -> Result<Trace> {
    let mut rows =
        table(trace, &["arrival", "lifetime", "cpu", "memory"], &[]).context("in the trace")?;
    let nodes = table(nodes, &["cpu", "memory"], &["count"]).context("in the list of nodes")?;
    ensure!(!rows.is_empty(), "the trace has no line beside its header");
    ensure!(
        !nodes.is_empty(),
        "the list of nodes has no line beside its header"
    );
    rows.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let greatest = |at: usize| nodes.iter().map(|node| node[at]).fold(0.0, f64::max);
    let scales = [FINENESS / greatest(0), FINENESS / greatest(1)];
    ensure!(
        scales.iter().all(|scale| scale.is_finite()),
        "no node has any CPU, or none any memory"
    );
    let amount = |value: f64, scale: f64| value * scale;
    let origin_s = rows[0][0];
    let items: Vec<Item> = rows
        .iter()
        .map(|row| Item {
            arrival_s: row[0] - origin_s,
            lifetime_s: row[1],
            // Rounded against us: what fits in integers fits in the trace's unit.
            size: Size {
                cpu: amount(row[2], scales[0]).ceil() as u64,
                memory: amount(row[3], scales[1]).ceil() as u64,
            },
        })
        .collect();
    let mut sizes = Vec::new();
    for node in &nodes {
        let size = Size {
            cpu: amount(node[0], scales[0]).round() as u64,
            memory: amount(node[1], scales[1]).round() as u64,
        };
        let count = if node[2].is_finite() {
            node[2] as usize
        } else {
            1
        };
        sizes.extend(std::iter::repeat_n(size, count));
    }
    let end_s = items.last().map_or(0.0, |item| item.arrival_s);
    Ok(Trace {
        items,
        nodes: sizes,
        end_s,
    })
}

/// The wanted columns of each line, in this order.
fn table(text: &str, required: &[&str], optional: &[&str]) -> Result<Vec<Row>> {
    let mut lines = text.lines().enumerate();
    let (_, header) = lines.next().ok_or_else(|| anyhow!("the file is empty"))?;
    let names: Vec<String> = header
        .split(',')
        .map(|name| name.trim().to_lowercase())
        .collect();
    let position = |column: &&str| names.iter().position(|name| name == column);
    let missing = required.iter().find(|column| position(column).is_none());
    if let Some(column) = missing {
        anyhow::bail!(
            "line 1: no column {column}; it needs {}",
            required.join(",")
        );
    }
    let columns: Vec<Option<usize>> = required.iter().chain(optional).map(position).collect();
    let mut rows = Vec::new();
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let value = |column: &Option<usize>| match column.and_then(|at| fields.get(at)) {
            None | Some(&"") => Ok(f64::INFINITY),
            Some(field) => match field.parse::<f64>() {
                Ok(value) if value >= 0.0 => Ok(value),
                _ => Err(anyhow!("line {}: {field:?} is no amount", number + 1)),
            },
        };
        let row: Row = columns.iter().map(value).collect::<Result<_>>()?;
        let may_be_empty = |at: usize| required.get(at).is_none_or(|name| *name == "lifetime");
        let empty = (0..row.len()).find(|at| row[*at].is_infinite() && !may_be_empty(*at));
        if let Some(at) = empty {
            anyhow::bail!("line {}: {} is empty", number + 1, required[at]);
        }
        rows.push(row);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_in_any_order_and_unit() {
        let trace = "cpu, memory, arrival, lifetime\n0.5,1,110,\n0.25,2,100,60\n";
        let read = parse(trace, "memory,cpu,count\n4,1,2\n2,0.5,\n").unwrap();
        let size = |cpu, memory| Size { cpu, memory };
        let [first, second] = read.items[..] else {
            panic!("two lines")
        };
        assert_eq!((first.arrival_s, first.lifetime_s), (0.0, 60.0));
        assert_eq!(first.size, size(250_000_000, 500_000_000));
        assert_eq!((second.arrival_s, read.end_s), (10.0, 10.0));
        assert!(second.lifetime_s.is_infinite());
        let whole = size(1_000_000_000, 1_000_000_000);
        assert_eq!(read.nodes, [whole, whole, size(500_000_000, 500_000_000)]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let good = (
            "arrival,lifetime,cpu,memory\n1,1,1,1\n",
            "cpu,memory\n1,1\n",
        );
        let cases = [
            ("arrival,cpu,memory\n", good.1, "no column lifetime"),
            (
                "arrival,lifetime,cpu,memory\n1,1,x,1\n",
                good.1,
                "line 2: \"x\"",
            ),
            (
                "arrival,lifetime,cpu,memory\n1,1,,1\n",
                good.1,
                "line 2: cpu is empty",
            ),
            (
                "arrival,lifetime,cpu,memory\n1,1,-1,1\n",
                good.1,
                "line 2: \"-1\"",
            ),
            ("arrival,lifetime,cpu,memory\n", good.1, "no line"),
            (good.0, "cpu,memory\n", "no line"),
            (good.0, "cpu,memory\n0,1\n", "no node has any CPU"),
            ("", good.1, "empty"),
        ];
        for (trace, nodes, wanted) in cases {
            let said = format!("{:#}", parse(trace, nodes).unwrap_err());
            assert!(said.contains(wanted), "{said} lacks {wanted}");
        }
    }
}
