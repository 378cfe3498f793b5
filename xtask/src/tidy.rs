//! House rules that no compiler knows. Each rule is one function from the project's files to its faults.

use std::collections::HashSet;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{Project, channels, reasons};

/// A text file of the repository.
#[derive(Debug)]
struct Source {
    path: String,
    text: String,
}

type Rule = (&'static str, fn(&[Source]) -> Vec<String>);

const RULES: &[Rule] = &[
    ("no leftover markers", leftovers),
    ("every room says what it is for", headers),
    ("every limit says what it counts and why", limits),
    ("no paths of one person's machine", machine_paths),
    (
        "files end with one line end and have no blanks at line ends",
        line_ends,
    ),
    ("no file is left unreferenced", unreferenced),
    ("links between pages lead somewhere", links),
    ("decisions are numbered without gaps", decisions),
    ("every clause of a protocol has a test", clauses),
];

pub(crate) fn run(project: &Project) -> Result<()> {
    let sources = read(project)?;
    let mut faults = Vec::new();
    for (name, rule) in RULES {
        faults.extend(
            rule(&sources)
                .into_iter()
                .map(|fault| format!("{name}: {fault}")),
        );
    }
    if let Err(error) = reasons::check(project) {
        faults.push(format!("{error:#}"));
    }
    if let Err(error) = channels::check(project) {
        faults.push(format!("{error:#}"));
    }
    if faults.is_empty() {
        return Ok(());
    }
    bail!("{} faults\n  {}", faults.len(), faults.join("\n  "));
}

/// All text files that git knows or would add.
fn read(project: &Project) -> Result<Vec<Source>> {
    let listed = Command::new("git")
        .args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "-z",
        ])
        .current_dir(&project.root)
        .output()
        .context("git is needed to list the files")?;
    if !listed.status.success() {
        bail!("`git ls-files` failed: tidy runs in a git checkout");
    }
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    Ok(names
        .split('\0')
        .filter(|name| !name.is_empty() && !name.starts_with("fixtures/") && *name != "Cargo.lock")
        .filter_map(|name| {
            // Deleted or binary files have no text to look at.
            let text = fs::read_to_string(project.root.join(name)).ok()?;
            Some(Source {
                path: name.to_owned(),
                text,
            })
        })
        .collect())
}

fn is_rust(source: &&Source) -> bool {
    source.path.ends_with(".rs")
}

fn at(source: &Source, line: usize) -> String {
    format!("{}:{}", source.path, line + 1)
}

/// The places of lines that a test finds.
fn lines_where(source: &Source, found: impl Fn(&str) -> bool) -> impl Iterator<Item = String> {
    source
        .text
        .lines()
        .enumerate()
        .filter(move |(_, line)| found(line))
        .map(|(n, _)| at(source, n))
}

fn leftovers(sources: &[Source]) -> Vec<String> {
    // Put together here, so that this file does not find itself.
    let markers = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("HA", "CK"),
        concat!("unimple", "mented!"),
        concat!("<<<<", "<<<"),
    ];
    let marked = |line: &str| {
        markers.iter().any(|marker| {
            line.match_indices(marker).any(|(start, _)| {
                let alone = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
                let end = start + marker.len();
                let (before, after) = (
                    line[..start].chars().next_back(),
                    line[end..].chars().next(),
                );
                // Beside a quotation mark it is a value: some vendors call a class of messages so.
                let value = before == Some('"') || after == Some('"');
                alone(before) && alone(after) && !value
            })
        })
    };
    sources
        .iter()
        .filter(is_rust)
        .flat_map(|source| lines_where(source, marked))
        .collect()
}

fn headers(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .filter(|source| source.path.ends_with("/src/lib.rs"))
        .filter(|source| {
            let header: Vec<_> = source
                .text
                .lines()
                .take_while(|line| line.starts_with("//!"))
                .collect();
            header.len() < 3
        })
        .map(|source| {
            format!(
                "{} needs a header: what for, what never, where to start",
                source.path
            )
        })
        .collect()
}

fn limits(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .filter(|source| source.path.ends_with("/limits.rs"))
        .flat_map(|source| {
            let lines: Vec<_> = source.text.lines().collect();
            lines
                .windows(2)
                .enumerate()
                .filter(|(_, pair)| {
                    let constant = pair[1].trim_start();
                    let declares =
                        constant.starts_with("pub const ") && !constant.starts_with("pub const fn");
                    declares && !pair[0].trim_start().starts_with("///")
                })
                .map(|(n, _)| at(source, n + 1))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn machine_paths(sources: &[Source]) -> Vec<String> {
    let paths = [
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
    ];
    let names_machine = |line: &str| {
        paths.iter().any(|path| {
            line.match_indices(path).any(|(start, _)| {
                // Part of a URL or a longer path is somebody else's.
                line[..start]
                    .chars()
                    .next_back()
                    .is_none_or(|c| !c.is_alphanumeric() && !"/._-}*".contains(c))
            })
        })
    };
    sources
        .iter()
        .flat_map(|source| lines_where(source, names_machine))
        .collect()
}

fn line_ends(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources {
        if source.path.ends_with(".rs") || source.path.ends_with(".md") {
            faults.extend(lines_where(source, |line| line.ends_with([' ', '\t'])));
        }
        let text = &source.text;
        if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
            faults.push(format!("the end of {}", source.path));
        }
    }
    faults
}

/// Files below `src` that no `mod` names: the compiler does not look at them.
fn unreferenced(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .filter(is_rust)
        .filter_map(|source| {
            let (crate_dir, inside) = source.path.split_once("/src/")?;
            let inside = inside.strip_suffix(".rs")?;
            if ["main", "lib"].contains(&inside) || inside.starts_with("bin/") {
                return None;
            }
            let module = inside.strip_suffix("/mod").unwrap_or(inside);
            let (parent, name) = module.rsplit_once('/').unwrap_or(("", module));
            let above = if parent.is_empty() {
                vec!["main".to_owned(), "lib".to_owned()]
            } else {
                vec![parent.to_owned(), format!("{parent}/mod")]
            };
            let declared = above
                .iter()
                .map(|file| format!("{crate_dir}/src/{file}.rs"))
                .filter_map(|path| sources.iter().find(|other| other.path == path))
                .any(|other| declares(&other.text, name));
            let declared = declared || named_by_path(sources, crate_dir, &source.path);
            (!declared).then(|| source.path.clone())
        })
        .collect()
}

fn declares(text: &str, module: &str) -> bool {
    let sentence = format!("mod {module};");
    text.lines().any(|line| line.trim().ends_with(&sentence))
}

/// Whether a neighbour in the crate names the file with `#[path = "…"]`.
fn named_by_path(sources: &[Source], crate_dir: &str, path: &str) -> bool {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let attribute = format!("#[path = \"{file}\"]");
    sources
        .iter()
        .filter(|other| other.path.starts_with(crate_dir) && other.path.starts_with(folder))
        .any(|other| other.text.contains(&attribute))
}

/// Relative links in pages, to files and folders of the repository.
fn links(sources: &[Source]) -> Vec<String> {
    let mut faults = Vec::new();
    for source in sources.iter().filter(|source| source.path.ends_with(".md")) {
        let folder = source
            .path
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        for (n, line) in source.text.lines().enumerate() {
            for (start, _) in line.match_indices("](") {
                let rest = &line[start + 2..];
                let link = rest.split([')', '#', ' ']).next().unwrap_or_default();
                if link.is_empty() || link.contains(':') {
                    continue;
                }
                let Some(target) = resolve(folder, link) else {
                    faults.push(format!("{}: {link}", at(source, n)));
                    continue;
                };
                let there = |other: &Source| {
                    other
                        .path
                        .strip_prefix(&target)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                };
                if !sources.iter().any(there) {
                    faults.push(format!("{}: {link}", at(source, n)));
                }
            }
        }
    }
    faults
}

/// The path that a link means, from the folder that its page is in; `None` when it leaves the repository.
fn resolve(folder: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in link.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

fn decisions(sources: &[Source]) -> Vec<String> {
    let mut numbers: Vec<usize> = sources
        .iter()
        .filter_map(|source| source.path.strip_prefix("docs/decisions/"))
        .filter_map(|name| name.split_once('-')?.0.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers
        .iter()
        .enumerate()
        .filter(|(n, number)| n + 1 != **number)
        .map(|(n, number)| format!("{number:04} stands where {:04} should", n + 1))
        .take(1)
        .collect()
}

/// The page that names the tests of each clause.
const CLAUSES: &str = "docs/protocols.md";

/// What a clause that no test shows says instead of names.
const NOT_OFFERED: &str = "not offered";

/// Rows of [`CLAUSES`] that are out of their order, or whose last cell names what is not there: tests in Rust by their
/// function, scripts by their file, which has to name the clause.
fn clauses(sources: &[Source]) -> Vec<String> {
    let functions: HashSet<&str> = sources
        .iter()
        .filter(is_rust)
        .flat_map(|source| source.text.split("fn ").skip(1))
        .filter_map(|rest| rest.split_once('(').map(|(name, _)| name))
        .collect();
    let names = |text: &str, id: &str| {
        text.match_indices(id)
            .any(|(at, _)| !text[at + id.len()..].starts_with(|c: char| c.is_ascii_digit()))
    };
    let shows = |name: &str, id: &str| match name.rsplit_once('.') {
        Some(_) => sources.iter().any(|source| {
            let file = source.path.rsplit_once('/').map_or("", |(_, file)| file);
            file == name && names(&source.text, id)
        }),
        None => functions.contains(name),
    };
    let mut faults = Vec::new();
    let mut last = ("", 0);
    for source in sources.iter().filter(|source| source.path == CLAUSES) {
        for (n, line) in source.text.lines().enumerate() {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [_, id, _, shown, _] = cells[..] else {
                continue;
            };
            let Some((kind, Ok(number))) = id.split_once('-').map(|(k, n)| (k, n.parse())) else {
                continue;
            };
            let due = if kind == last.0 { last.1 + 1 } else { 1 };
            last = (kind, number);
            if number != due {
                faults.push(format!("{}: {kind}-{due} is missing", at(source, n)));
            }
            let tests: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
            if tests.is_empty() && shown != NOT_OFFERED {
                faults.push(format!("{}: {id} names no test", at(source, n)));
            }
            let lost = tests.into_iter().filter(|name| !shows(name, id));
            faults.extend(lost.map(|name| format!("{}: {name} does not show {id}", at(source, n))));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&[Source]) -> Vec<String>, files: &[(&str, &str)], want: &[&str]) {
        let sources: Vec<_> = files
            .iter()
            .map(|&(path, text)| Source {
                path: path.to_owned(),
                text: text.to_owned(),
            })
            .collect();
        assert_eq!(rule(&sources), want);
    }

    #[test]
    fn markers_are_found_as_words_only() {
        let marker = concat!("// TO", "DO later\n");
        check(leftovers, &[("a.rs", marker)], &["a.rs:1"]);
        let inside = concat!("let AUTO", "DONE = 1;\n");
        check(leftovers, &[("a.rs", inside)], &[]);
        let value = concat!("let category = \"TO", "DO\";\n");
        check(leftovers, &[("a.rs", value)], &[]);
    }

    #[test]
    fn a_limit_without_words_is_found() {
        let text = "/// Bytes.\npub const A: usize = 1;\npub const B: usize = 2;\n";
        check(
            limits,
            &[("crates/x/src/limits.rs", text)],
            &["crates/x/src/limits.rs:3"],
        );
    }

    #[test]
    fn machine_paths_are_told_from_urls() {
        let bad = concat!("see /ho", "me/me/x\n");
        check(machine_paths, &[("a.md", bad)], &["a.md:1"]);
        let good = concat!("https://example.com/ho", "me/x\n");
        check(machine_paths, &[("a.md", good)], &[]);
    }

    #[test]
    fn a_file_that_no_module_names_is_found() {
        let files = [
            ("crates/x/src/lib.rs", "mod a;\npub mod b;\n"),
            ("crates/x/src/a.rs", "mod c;\n"),
            ("crates/x/src/a/c.rs", ""),
            ("crates/x/src/b/mod.rs", ""),
            ("crates/x/src/d.rs", ""),
        ];
        check(unreferenced, &files, &["crates/x/src/d.rs"]);
    }

    #[test]
    fn a_link_to_nowhere_is_found() {
        let page = "[a](../LICENSE) [b](sub) [c](#x) [d](https://x.y/z) [e](gone.md)\n";
        let files = [
            ("docs/a.md", page),
            ("LICENSE", ""),
            ("docs/sub/b.md", "[up](../../../x)\n"),
        ];
        check(
            links,
            &files,
            &["docs/a.md:1: gone.md", "docs/sub/b.md:1: ../../../x"],
        );
    }

    #[test]
    fn a_clause_without_its_test_is_found() {
        let page = "| clause | what | shown by |\n| --- | --- | --- |\n\
                    | A-1 | a | `a_1_holds`, `play.py` |\n| A-2 | b | `gone`, `play.py` |\n\
                    | A-4 | c | |\n| B-1 | d | not offered |\n";
        let files = [
            (CLAUSES, page),
            ("crates/x/src/a.rs", "#[test]\nfn a_1_holds() {}\n"),
            (
                "tests/play.py",
                "check(\"A-1: it plays\")\ncheck(\"A-22\")\n",
            ),
        ];
        let want = [
            "docs/protocols.md:4: gone does not show A-2",
            "docs/protocols.md:4: play.py does not show A-2",
            "docs/protocols.md:5: A-3 is missing",
            "docs/protocols.md:5: A-4 names no test",
        ];
        check(clauses, &files, &want);
    }

    #[test]
    fn a_gap_between_decisions_is_found() {
        let file = |n| (n, "");
        check(
            decisions,
            &[
                file("docs/decisions/0001-a.md"),
                file("docs/decisions/0003-b.md"),
            ],
            &["0003 stands where 0002 should"],
        );
    }
}
