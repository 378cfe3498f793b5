use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;

const HEAD: &str = "\
# Metrics

`GET /metrics` answers Prometheus text; no key is needed, so let only your own network reach it. Counters begin anew with each
start of the process. Labels take their values from closed lists, never ids: `channel` is a channel's name, `reason` a word of
[reasons](reasons.md), `listener` one of the server's sockets. A metric without labels is there from the start, one with labels
from its first value on; `# HELP` and `# TYPE` stand for all of them.

`hongyan_dispatch_outcomes_total` grows with the same write as the ledger: over a time without restart it is what the funnel of
`GET /v1/reports/funnel` has as `reasons`.

<!-- Made from crates/hongyan/src/metrics.rs: `HONGYAN_REFRESH=1 cargo nextest run -p hongyan metrics` renews this page. -->

| metric | type | labels | counts | look when |
| --- | --- | --- | --- | --- |
";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_page_of_the_documentation_is_the_list() {
    let mut page = HEAD.to_owned();
    for m in ALL {
        let labels: Vec<_> = m.labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = labels.join(", ");
        let (name, kind) = (m.name, m.kind.word());
        writeln!(
            page,
            "| `{name}` | {kind} | {labels} | {} | {} |",
            m.help, m.alarm
        )
        .unwrap();
    }
    let path = root().join("docs/metrics.md");
    if std::env::var_os("HONGYAN_REFRESH").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/metrics.md is not made from the list; HONGYAN_REFRESH=1 renews it"
    );
}

/// Names in the calls that count, in all rooms.
fn counted(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            counted(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            for call in ["counter!(", "gauge!(", "histogram!("] {
                for rest in text.split(call).skip(1) {
                    let literal = rest.trim_start().strip_prefix('"');
                    let name = literal.and_then(|rest| rest.split_once('"'));
                    if let Some((name, _)) = name.filter(|(n, _)| n.starts_with("hongyan_")) {
                        found.insert(name.to_owned());
                    }
                }
            }
        }
    }
}

#[test]
fn the_list_is_what_is_counted() {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let src = entry.unwrap().path().join("src");
        if src.is_dir() {
            counted(&src, &mut found);
        }
    }
    let listed: Vec<_> = ALL.iter().map(|m| m.name.to_owned()).collect();
    assert!(listed.is_sorted(), "the list is in order");
    assert_eq!(BTreeSet::from_iter(listed), found);
}

#[test]
fn the_page_says_of_each_metric_what_it_is() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let page = Page(recorder.handle());
    metrics::with_local_recorder(&recorder, || {
        describe();
        metrics::counter!("hongyan_dispatch_outcomes_total", "reason" => "expired").increment(2);
    });
    let text = page.render();
    for m in ALL {
        let kind = format!("# TYPE {} {}\n", m.name, m.kind.word());
        assert_eq!(text.matches(&kind).count(), 1, "{kind} in {text}");
        let help = format!("# HELP {} {}\n", m.name, m.help);
        assert_eq!(text.matches(&help).count(), 1, "{help} in {text}");
    }
    assert!(text.contains("\nhongyan_intake_messages_total 0\n"));
    assert!(text.contains("hongyan_dispatch_outcomes_total{reason=\"expired\"} 2\n"));
}
