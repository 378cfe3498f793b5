//! Counters, summed up for people.

use std::collections::BTreeMap;

use hongyan_core::port::CounterRow;
use hongyan_core::{MessageId, Reason, Stage, Timestamp};

use super::messages::{ends, totals};
use crate::options::REPORT_DAYS_MAX;
use crate::problem::{Code, Problem};
use crate::reply::Reply;
use crate::route::Call;
use crate::wire::report::{
    By, ChannelRow, Channels, ChannelsQuery, Counts, Funnel, FunnelQuery, FunnelRow, QuotaRow,
    Quotas, StageCount,
};

/// The long connection in reports, where vendors have their channel's name.
const CONNECTION: &str = "connection";
const DAY_MS: i64 = 86_400_000;

pub(crate) async fn funnel(call: Call<FunnelQuery>) -> Result<Reply<Funnel>, Problem> {
    let app = call.app()?;
    let query = &call.query;
    let ledger = &call.api.ports().ledger;
    let (from, to, rows) = match &query.message {
        Some(message) => {
            let id = MessageId::parse(message)
                .map_err(|e| Problem::at(Code::InvalidRequest, "query.message", e.to_string()))?;
            if call.api.ports().inbox.message(&app, id).await?.is_none() {
                return Err(Problem::not_found("message"));
            }
            (None, None, ledger.message_counters(&app, id).await?)
        }
        None => {
            let (from, to) = days(&call.query.from, &call.query.to, call.api.now())?;
            let rows = ledger.counters(&app, from, to).await?;
            (Some(day_text(from)), Some(day_text(to)), rows)
        }
    };
    let kept: Vec<CounterRow> = rows.into_iter().filter(|row| matches(query, row)).collect();
    let rows = query.by.map(|by| {
        let mut groups: BTreeMap<String, Vec<CounterRow>> = BTreeMap::new();
        for row in &kept {
            groups.entry(name(by, row)).or_default().push(row.clone());
        }
        groups
            .into_iter()
            .map(|(name, rows)| FunnelRow {
                name,
                counts: counts(&rows),
            })
            .collect()
    });
    Ok(Reply::new(Funnel {
        from,
        to,
        total: counts(&kept),
        rows,
    }))
}

fn matches(query: &FunnelQuery, row: &CounterRow) -> bool {
    let wants = |wanted: &Option<String>, by| wanted.as_ref().is_none_or(|w| *w == name(by, row));
    wants(&query.class, By::Class)
        && wants(&query.channel, By::Channel)
        && wants(&query.platform, By::Platform)
}

fn name(by: By, row: &CounterRow) -> String {
    let none = || "none".to_owned();
    match by {
        By::Day => day_text(row.key.day),
        By::Class => row.key.class.map_or_else(none, |c| c.as_str().to_owned()),
        By::Channel => row
            .key
            .channel
            .as_ref()
            .map_or_else(|| CONNECTION.to_owned(), ToString::to_string),
        By::Platform => row
            .key
            .platform
            .map_or_else(none, |p| p.as_str().to_owned()),
    }
}

fn counts(rows: &[CounterRow]) -> Counts {
    let (by_stage, reasons) = totals(rows);
    let stages = Stage::ALL
        .iter()
        .map(|stage| stage.as_str())
        .filter_map(|stage| {
            by_stage.get(stage).map(|count| StageCount {
                stage,
                count: *count,
            })
        })
        .collect();
    Counts { stages, reasons }
}

pub(crate) async fn channels(call: Call<ChannelsQuery>) -> Result<Reply<Channels>, Problem> {
    let app = call.app()?;
    let (from, to) = days(&call.query.from, &call.query.to, call.api.now())?;
    let mut channels: BTreeMap<String, ChannelRow> = BTreeMap::new();
    for CounterRow { key, count } in call.api.ports().ledger.counters(&app, from, to).await? {
        let Some(channel) = &key.channel else {
            continue;
        };
        let row = channels
            .entry(channel.to_string())
            .or_insert_with(|| ChannelRow {
                channel: channel.to_string(),
                sent: 0,
                accepted: 0,
                retried: 0,
                fallback: 0,
                dropped: 0,
                tokens_dead: 0,
                reasons: BTreeMap::new(),
            });
        match key.stage {
            Stage::SentVendor => row.sent += count,
            Stage::AcceptedByVendor => row.accepted += count,
            Stage::Retried => row.retried += count,
            Stage::Fallback => row.fallback += count,
            Stage::Dropped => row.dropped += count,
            Stage::TokenDead => row.tokens_dead += count,
            _ => {}
        }
        if let Some(reason) = key.reason
            && reason != Reason::AcceptedByVendor
            && (ends(&key)
                || matches!(
                    key.stage,
                    Stage::Retried | Stage::Fallback | Stage::Undelivered
                ))
        {
            *row.reasons.entry(reason.as_str()).or_default() += count;
        }
    }
    Ok(Reply::new(Channels {
        from: day_text(from),
        to: day_text(to),
        channels: channels.into_values().collect(),
    }))
}

/// The days that are asked for; the last seven when nothing is said.
fn days(from: &Option<String>, to: &Option<String>, now: Timestamp) -> Result<(i64, i64), Problem> {
    let read = |path: &str, text: &Option<String>, otherwise: i64| match text {
        None => Ok(otherwise),
        Some(text) => day(text).ok_or_else(|| {
            Problem::at(
                Code::InvalidRequest,
                path,
                "must be a day such as 2026-01-31",
            )
        }),
    };
    let to = read("query.to", to, now.day())?;
    let from = read("query.from", from, to.saturating_sub(6))?;
    if from > to || to - from >= REPORT_DAYS_MAX {
        return Err(Problem::at(
            Code::InvalidRequest,
            "query.from",
            format!("must not be after `to`, nor {REPORT_DAYS_MAX} days or more before it"),
        ));
    }
    Ok((from, to))
}

fn day(text: &str) -> Option<i64> {
    (text.len() == 10)
        .then(|| Timestamp::parse_rfc3339(&format!("{text}T00:00:00Z")))
        .flatten()
        .map(Timestamp::day)
}

fn day_text(day: i64) -> String {
    Timestamp(day.saturating_mul(DAY_MS))
        .rfc3339()
        .chars()
        .take(10)
        .collect()
}

pub(crate) async fn quota(call: Call) -> Result<Reply<Quotas>, Problem> {
    let standings = call.api.services().quotas(&call.app()?).await?;
    Ok(Reply::new(Quotas {
        credentials: standings.into_iter().map(QuotaRow::from).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_and_written() {
        assert_eq!(day("1970-01-02"), Some(1));
        assert_eq!(day_text(1), "1970-01-02");
        for bad in ["", "1970-1-2", "1970-13-01", "yesterday", "1970-01-02T"] {
            assert_eq!(day(bad), None, "{bad}");
        }
        let now = Timestamp(30 * DAY_MS + 5);
        assert_eq!(days(&None, &None, now).ok(), Some((24, 30)));
        assert!(days(&Some("1970-02-01".into()), &Some("1970-01-01".into()), now).is_err());
        assert!(days(&Some("1960-01-01".into()), &None, now).is_err());
    }
}
