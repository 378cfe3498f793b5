//! `hongyan report`: funnel, channels and quotas.

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::{Value, json};

use super::output::{self, Form, cell};
use super::remote::{Reach, Remote, block_on, told};

/// Show how messages fared: the funnel, the channels, the quotas
#[derive(ClapArgs, Debug)]
pub(crate) struct Args {
    /// Which report
    #[arg(value_enum, default_value_t = Kind::Funnel)]
    report: Kind,
    /// Only this message
    #[arg(long, value_name = "ID", help_heading = "Of")]
    message: Option<String>,
    /// Only this class
    #[arg(long, help_heading = "Of")]
    class: Option<String>,
    /// Only this channel
    #[arg(long, help_heading = "Of")]
    channel: Option<String>,
    /// Only this platform
    #[arg(long, help_heading = "Of")]
    platform: Option<String>,
    /// From this day on, such as 2026-01-01
    #[arg(long, value_name = "DAY", help_heading = "Of")]
    from: Option<String>,
    /// Up to this day
    #[arg(long, value_name = "DAY", help_heading = "Of")]
    to: Option<String>,
    /// A part for each of: class, channel, platform, day
    #[arg(long, value_name = "WHAT", help_heading = "Of")]
    by: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

#[derive(ValueEnum, Debug, Clone, Copy)]
enum Kind {
    /// How many came how far, and why the others did not
    Funnel,
    /// How the channels fare
    Channels,
    /// What is left of the credentials' daily quotas
    Quota,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let form = args.remote.form();
    let admin = args.remote.connect(Reach::App)?;
    let filters = [
        ("message", args.message.as_deref()),
        ("class", args.class.as_deref()),
        ("channel", args.channel.as_deref()),
        ("platform", args.platform.as_deref()),
        ("from", args.from.as_deref()),
        ("to", args.to.as_deref()),
        ("by", args.by.as_deref()),
    ];
    block_on(async {
        let report = match args.report {
            Kind::Funnel => admin.funnel(&filters).await,
            Kind::Channels => admin.channels_report(&filters).await,
            Kind::Quota => admin.quota_report(&[]).await,
        }
        .map_err(told)?;
        match form {
            Form::Text if matches!(args.report, Kind::Quota) => show_quotas(&report)?,
            Form::Text => show(&report)?,
            Form::Json => form.thing(&report)?,
        }
        Ok(())
    })
}

/// One row for each credential.
fn show_quotas(report: &Value) -> std::io::Result<()> {
    let rows = report.get("credentials").and_then(Value::as_array);
    let rows: Vec<Value> = rows
        .into_iter()
        .flatten()
        .map(|row| {
            let used = row.get("used").and_then(Value::as_object);
            let sum: u64 = used
                .into_iter()
                .flatten()
                .filter_map(|(_, n)| n.as_u64())
                .sum();
            let mut row = row.clone();
            row["sum"] = sum.into();
            row
        })
        .collect();
    if rows.is_empty() {
        return output::line("no credential has a daily quota; set one in its limits");
    }
    let columns = [
        ("CHANNEL", "channel"),
        ("CREDENTIAL", "credential"),
        ("USED", "sum"),
        ("OF", "per_day"),
        ("FROM", "per_day_from"),
        ("MARKETING", "marketing_per_day"),
        ("FROM", "marketing_per_day_from"),
        ("RESERVED", "reserved"),
        ("OF MARKETING", "marketing_reserved"),
        ("RUNS OUT", "runs_out_at"),
        ("CLOSED UNTIL", "closed_until"),
        ("RESETS", "resets_at"),
    ];
    output::print(&output::table(&rows, &columns))
}

/// The days, the parts as one row each, then the sums.
fn show(report: &Value) -> std::io::Result<()> {
    let (from, to) = (cell(report, "from"), cell(report, "to"));
    if !from.is_empty() {
        output::line(&format!("{from} to {to}\n"))?;
    }
    let stages = report.get("stages").and_then(Value::as_array);
    let order: Vec<String> = stages
        .into_iter()
        .flatten()
        .map(|s| cell(s, "stage"))
        .collect();
    for list in ["rows", "channels"] {
        let Some(parts) = report.get(list).and_then(Value::as_array) else {
            continue;
        };
        let parts: Vec<_> = parts.iter().map(|part| flat(part, &order)).collect();
        if parts.is_empty() {
            output::line("nothing happened in that time")?;
        } else {
            output::print(&format!("{}\n", output::named_table(&parts)))?;
        }
    }
    if let Some(stages) = stages {
        let columns = [("STAGE", "stage"), ("COUNT", "count")];
        let stages: Vec<Value> = stages.iter().filter(|s| !is_zero(s)).cloned().collect();
        if stages.is_empty() {
            output::line("nothing happened in that time")?;
        } else {
            output::print(&format!("{}\n", output::table(&stages, &columns)))?;
        }
    }
    let reasons = report.get("reasons").and_then(Value::as_object);
    if let Some(reasons) = reasons.filter(|r| !r.is_empty()) {
        let rows: Vec<Value> = reasons
            .iter()
            .map(|(name, count)| json!({ "reason": name, "count": count }))
            .collect();
        output::print(&output::table(
            &rows,
            &[("OUTCOME", "reason"), ("COUNT", "count")],
        ))?;
    }
    Ok(())
}

fn is_zero(stage: &Value) -> bool {
    stage.get("count").and_then(Value::as_u64) == Some(0)
}

/// One part of a report as one row: its name, a column for each count (stages in the order of the
/// way), its reasons in one cell.
fn flat(part: &Value, order: &[String]) -> Vec<(String, String)> {
    // A zero says nothing; a column of them is left out.
    let count = |value: &Value| match value {
        Value::Number(n) if n.as_u64() == Some(0) => String::new(),
        value => value.to_string(),
    };
    let mut row = Vec::new();
    for name in ["name", "channel"] {
        let text = cell(part, name);
        if !text.is_empty() {
            row.push((name.to_owned(), text));
        }
    }
    let stages = part.get("stages").and_then(Value::as_array);
    for name in order {
        let found = stages
            .into_iter()
            .flatten()
            .find(|stage| cell(stage, "stage") == *name);
        let text = found.and_then(|stage| stage.get("count")).map(count);
        row.push((name.clone(), text.unwrap_or_default()));
    }
    for (name, value) in part
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, v)| v.is_number())
    {
        row.push((name.clone(), count(value)));
    }
    if let Some(reasons) = part.get("reasons").and_then(Value::as_object) {
        let words: Vec<String> = reasons.iter().map(|(r, n)| format!("{r} {n}")).collect();
        row.push(("reasons".to_owned(), words.join(", ")));
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_rows() {
        let part = json!({"name": "apns", "stages": [{"stage": "delivered", "count": 2},
            {"stage": "held", "count": 0}], "reasons": {"expired": 1, "delivered": 2}});
        let want = [
            ("name", "apns"),
            ("delivered", "2"),
            ("held", ""),
            ("reasons", "delivered 2, expired 1"),
        ];
        let want: Vec<_> = want
            .iter()
            .map(|(n, t)| ((*n).to_owned(), (*t).to_owned()))
            .collect();
        let order = ["delivered".to_owned(), "held".to_owned()];
        assert_eq!(flat(&part, &order), want);
    }
}
