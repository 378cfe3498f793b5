//! `docs/channels.md`, made from the heads of the vendors' files.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::Project;

const SOURCE: &str = "crates/hongyan-channels/src/vendor";
const PAGE: &str = "docs/channels.md";

const HEAD: &str = "\
# Channels

How each way out is set up: what its credential holds, where the facts are from, and what could not be confirmed without an account.

```sh
hongyan channel set apns --set team_id=T --set key_id=K --set bundle_id=com.example.app --secret-file private_key=AuthKey.p8
hongyan channel check            # proves every credential with its vendor, a line each
```

For all of them: `granted` lists the message classes that the vendor granted, where it grants any (absent: all), and with `strict_classes` a message of
another class is refused instead of going out as `marketing`. Limits of a credential (`limits`) are requests per second (devices
per second where the vendor counts those), requests at once, tries, and a daily `quota`: `per_day` of all classes, of which `reserved` is kept for `im` and
`transaction`; `marketing_per_day` and `marketing_per_device` of what the vendor counts as marketing, which a class that was not granted goes out as (of
`marketing_per_day` the same part is reserved then).
`callback_url` of a stored credential is where its vendor may post receipts; set `http.public_url` first.

<!-- Made from the heads of crates/hongyan-channels/src/vendor/*.rs: `cargo xtask golden` renews this page. -->
";

/// Writes the page anew.
pub(crate) fn write(project: &Project) -> Result<()> {
    fs::write(project.root.join(PAGE), page(project)?).context(PAGE)
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
    let mut parts = Vec::new();
    for folder in [SOURCE.to_owned(), format!("{SOURCE}/sms")] {
        let Ok(files) = fs::read_dir(project.root.join(&folder)) else {
            continue;
        };
        for file in files {
            let path = file?.path();
            if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                parts.extend(part(&text));
            }
        }
    }
    if parts.is_empty() {
        bail!("{SOURCE} has no vendor file whose head names its channel");
    }
    parts.sort();
    Ok(format!("{HEAD}{}", parts.concat()))
}

/// A file's head as a part of the page, if its first line names a channel: `Name (`channel`): for whom.`
fn part(source: &str) -> Option<String> {
    let mut lines = source
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(|line| line.strip_prefix(' ').unwrap_or(line));
    let first = lines.next()?;
    let (name, rest) = first.split_once(" (`")?;
    let (channel, whom) = rest.split_once('`')?;
    let whom = whom.trim_start_matches([')', ':', ' ', ',']);
    let body: Vec<&str> = lines.collect();
    Some(format!(
        "\n## `{channel}`: {name}\n\n{whom}\n{}\n",
        without_code_links(&body.join("\n"))
    ))
}

/// Rust's links to items mean nothing on a page: their words stay.
fn without_code_links(text: &str) -> String {
    text.replace("[`", "`").replace("`]", "`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_becomes_a_part() {
        let source = "//! Goose Push (`goose`): geese.\n//!\n//! Sources: [`none`].\n\nuse x;\n//! not this\n";
        assert_eq!(
            part(source).unwrap(),
            "\n## `goose`: Goose Push\n\ngeese.\n\nSources: `none`.\n"
        );
        assert_eq!(part("//! Helpers.\n"), None);
    }
}
