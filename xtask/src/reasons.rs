//! `docs/reasons.md`, made from the closed list in the core.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::Project;

const SOURCE: &str = "crates/hongyan-core/src/reason.rs";
const PAGE: &str = "docs/reasons.md";

const HEAD: &str = "\
# Reasons

Why a delivery is where it is, in one word. The list is closed: the same word stands in the API, the trace, the
ledger, metrics and the console, and programs may rely on it. A *final* outcome always has one; events on the way
(a hold, a retry, a shortened text) have one too.

<!-- Made from crates/hongyan-core/src/reason.rs: `cargo xtask golden` renews this page. -->

| reason | means |
| --- | --- |
";

/// Writes the page anew.
pub(crate) fn write(project: &Project) -> Result<()> {
    let page = page(project)?;
    fs::write(project.root.join(PAGE), page).context(PAGE)
}

/// Fails when the page is not what would be written.
pub(crate) fn check(project: &Project) -> Result<()> {
    let committed = fs::read_to_string(project.root.join(PAGE)).unwrap_or_default();
    if committed != page(project)? {
        bail!("{PAGE} is not made from the present {SOURCE}: run `cargo xtask golden`");
    }
    Ok(())
}

fn page(project: &Project) -> Result<String> {
    let source = fs::read_to_string(project.root.join(SOURCE)).context(SOURCE)?;
    let rows = rows(&source)?;
    let mut page = HEAD.to_owned();
    for (word, words) in rows {
        writeln!(page, "| `{word}` | {words} |")?;
    }
    Ok(page)
}

/// Word and documentation of each reason.
fn rows(source: &str) -> Result<Vec<(String, String)>> {
    let list = source
        .split_once("\nreasons! {")
        .and_then(|(_, rest)| rest.split_once("\n}"))
        .map(|(list, _)| list)
        .context("the list `reasons! { … }` is not there")?;
    let mut rows = Vec::new();
    let mut words: Vec<&str> = Vec::new();
    for line in list.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("///") {
            words.push(doc.trim());
        } else if let Some((_, word)) = line.split_once('=') {
            let word = word.trim().trim_matches(['"', ',']);
            if words.is_empty() {
                bail!("the reason `{word}` has no documentation");
            }
            rows.push((word.to_owned(), words.join(" ")));
            words.clear();
        }
    }
    if rows.is_empty() {
        bail!("the list of reasons is empty");
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_for_each_reason_and_none_without_words() {
        let list = "\nreasons! {\n    /// It\n    /// came.\n    Came = \"came\",\n}\n";
        assert_eq!(
            rows(list).unwrap(),
            [("came".to_owned(), "It came.".to_owned())]
        );
        assert!(rows("\nreasons! {\n    Came = \"came\",\n}\n").is_err());
        assert!(rows("").is_err());
    }
}
