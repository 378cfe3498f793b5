//! Answers on stdout: tables for people, JSON for programs.

use std::io::{self, Write};

use serde_json::Value;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Widest cell of a table, in columns; the rest is cut, and `--json` shows it all.
const CELL_WIDTH_MAX: usize = 60;

/// A column: its heading, and where its value is. A path's steps are parted by dots.
pub(crate) type Column = (&'static str, &'static str);

/// How answers are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Form {
    /// Shows a list: JSON as it is, or a table with a line for an empty one.
    pub(crate) fn list(self, answer: &Value, columns: &[Column], none: &str) -> io::Result<()> {
        match self {
            Self::Json => json(answer),
            Self::Text => {
                let rows = rows(answer);
                if rows.is_empty() {
                    line(none)
                } else {
                    print(&table(rows, columns))
                }
            }
        }
    }

    /// Shows one thing: JSON as it is, or a line for each field.
    pub(crate) fn thing(self, answer: &Value) -> io::Result<()> {
        match self {
            Self::Json => json(answer),
            Self::Text => print(&facts(answer)),
        }
    }

    /// Shows that something was done; programs get the answer or nothing.
    pub(crate) fn done(self, answer: &Value, words: &str) -> io::Result<()> {
        match self {
            Self::Json if answer.is_null() => Ok(()),
            Self::Json => json(answer),
            Self::Text => line(words),
        }
    }
}

/// Writes one line to stdout.
pub(crate) fn line(text: &str) -> io::Result<()> {
    print(&format!("{text}\n"))
}

/// Writes one line of JSON to stdout, flushed, so that a following program sees it at once.
pub(crate) fn json_line(value: &Value) -> io::Result<()> {
    print(&format!("{value}\n"))
}

pub(crate) fn json(value: &Value) -> io::Result<()> {
    print(&format!("{value:#}\n"))
}

/// Writes text to stdout.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The rows of an answer: a list, or the list within a page or a report.
pub(crate) fn rows(answer: &Value) -> &[Value] {
    match answer {
        Value::Array(rows) => rows,
        Value::Object(fields) => match fields.get("items").and_then(Value::as_array) {
            Some(items) => items,
            None => fields
                .values()
                .filter_map(Value::as_array)
                .find(|list| list.iter().all(Value::is_object) && !list.is_empty())
                .map_or(&[], |list| list.as_slice()),
        },
        _ => &[],
    }
}

/// The value at a path, as a person would write it; empty when there is none.
pub(crate) fn cell(value: &Value, path: &str) -> String {
    let mut found = value;
    for step in path.split('.') {
        match found.get(step) {
            Some(next) => found = next,
            None => return String::new(),
        }
    }
    plain(found)
}

fn plain(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.iter().all(|v| !v.is_object() && !v.is_array()) => {
            list.iter().map(plain).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    };
    harmless(&text)
}

/// Control characters could steer the terminal, and came from elsewhere.
pub(crate) fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => ' ',
            // Also the marks that turn the reading direction around.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Lays rows out in columns. Columns that are empty in every row are left out.
pub(crate) fn table(rows: &[Value], columns: &[Column]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| columns.iter().map(|(_, path)| cell(row, path)).collect())
        .collect();
    let heading: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
    grid(&heading, &rows)
}

/// Lays out rows whose cells have names; columns come in the order of their first appearance.
pub(crate) fn named_table(rows: &[Vec<(String, String)>]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flatten() {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let of = |row: &Vec<(String, String)>, name: &str| {
        let found = row.iter().find(|(n, _)| n == name);
        found.map(|(_, text)| text.clone()).unwrap_or_default()
    };
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| names.iter().map(|name| of(row, name)).collect())
        .collect();
    grid(&names, &rows)
}

fn grid(heading: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|text| cut(text)).collect())
        .collect();
    let heading: Vec<String> = heading.iter().map(|text| harmless(text)).collect();
    let widths: Vec<usize> = (0..heading.len())
        .map(|n| {
            let widest = rows
                .iter()
                .filter_map(|r| r.get(n))
                .map(|c| c.width())
                .max();
            match widest {
                None | Some(0) => 0,
                Some(cells) => cells.max(heading.get(n).map_or(0, |h| h.width())),
            }
        })
        .collect();
    let mut text = String::new();
    for row in std::iter::once(&heading).chain(&rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths).filter(|(_, width)| **width > 0) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(
                ' ',
                width.saturating_sub(cell.width()) + 2,
            ));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A line for each field, names aligned; fields of objects within are named by their path, lists of
/// objects become tables below.
fn facts(answer: &Value) -> String {
    let mut pairs = Vec::new();
    let mut lists = Vec::new();
    gather(answer, "", &mut pairs, &mut lists);
    let width = pairs
        .iter()
        .map(|(name, _)| name.width())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for (name, value) in pairs {
        let space = " ".repeat(width.saturating_sub(name.width()));
        text.push_str(format!("{name}{space}  {value}").trim_end());
        text.push('\n');
    }
    for (name, list) in lists {
        text.push_str(&format!("\n{name}\n"));
        text.push_str(&wide_table(list));
    }
    text
}

fn gather<'a>(
    value: &'a Value,
    path: &str,
    pairs: &mut Vec<(String, String)>,
    lists: &mut Vec<(String, &'a [Value])>,
) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let name = harmless(name);
                let path = if path.is_empty() {
                    name
                } else {
                    format!("{path}.{name}")
                };
                gather(value, &path, pairs, lists);
            }
        }
        Value::Object(_) => {}
        Value::Array(list) if list.first().is_some_and(Value::is_object) => {
            lists.push((path.to_owned(), list));
        }
        other => {
            let text = plain(other);
            if !text.is_empty() {
                pairs.push((path.to_owned(), text));
            }
        }
    }
}

/// A table of all fields that the rows have.
fn wide_table(rows: &[Value]) -> String {
    let rows: Vec<Vec<(String, String)>> = rows
        .iter()
        .map(|row| {
            let fields = row.as_object().into_iter().flatten();
            fields
                .map(|(name, value)| (name.clone(), plain(value)))
                .collect()
        })
        .collect();
    named_table(&rows)
}

fn cut(text: &str) -> String {
    if text.width() <= CELL_WIDTH_MAX {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut width = 0;
    for c in text.chars() {
        width += c.width().unwrap_or(0);
        // One column is kept for the mark of the cut.
        if width >= CELL_WIDTH_MAX {
            break;
        }
        out.push(c);
    }
    out.push('…');
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_align_and_hide_what_is_empty() {
        let rows = [
            json!({"id": "a", "n": 1, "who": {"name": "鸿雁"}, "nothing": null}),
            json!({"id": "long", "n": 20, "who": {"name": "x"}, "tags": ["p", "q"]}),
        ];
        let columns = [
            ("ID", "id"),
            ("NAME", "who.name"),
            ("NONE", "nothing"),
            ("TAGS", "tags"),
            ("N", "n"),
        ];
        let want = "ID    NAME  TAGS  N\na     鸿雁        1\nlong  x     p, q  20\n";
        assert_eq!(table(&rows, &columns), want);
    }

    #[test]
    fn things_name_their_fields() {
        let thing = json!({"id": "m1", "counts": {"sent": 2}, "empty": {}, "none": null,
            "steps": [{"at": "now", "ok": true}]});
        let want = "counts.sent  2\nid           m1\n\nsteps\nat   ok\nnow  yes\n";
        assert_eq!(facts(&thing), want);
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(
            harmless("a\u{1b}[31mb\nc\u{202e}d"),
            "a\u{fffd}[31mb c\u{fffd}d"
        );
    }

    #[test]
    fn lists_are_found() {
        assert_eq!(rows(&json!([1, 2])).len(), 2);
        assert_eq!(rows(&json!({"items": [], "other": [{}]})).len(), 0);
        assert_eq!(rows(&json!({"total": 1, "rows": [{}]})).len(), 1);
        assert_eq!(rows(&json!("x")).len(), 0);
    }

    #[test]
    fn long_cells_are_cut_by_width() {
        let cut = cut(&"雁".repeat(100));
        assert!(cut.width() <= CELL_WIDTH_MAX && cut.ends_with('…'));
    }
}
