//! Messages: send, explain, look at, recall.

use std::collections::BTreeMap;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use hongyan_core::draft::{Draft, Fault};
use hongyan_core::limits::{BATCH_LEN_MAX, IDEMPOTENCY_KEY_BYTES_MAX, MESSAGE_BODY_BYTES_MAX};
use hongyan_core::message::Target;
use hongyan_core::port::{CounterKey, CounterRow, JobKind};
use hongyan_core::{AppId, DeviceId, MessageId, Reason, Stage, Timestamp};

use super::{no_faults, unknown_channels};
use crate::api::Api;
use crate::body::{self, Json};
use crate::key::sha256;
use crate::options::{BATCH_FAULTS_LEN_MAX, DELIVERIES_PAGE_LEN};
use crate::problem::{Code, Problem};
use crate::reply::Reply;
use crate::route::Call;
use crate::services::{IdempotencyKey, ServiceError};
use crate::wire::explain::Explanation;
use crate::wire::message::{
    Accepted, Batch, BatchAccepted, BatchResult, Deliveries, DeliveryItem, Message, Recalled,
    Status, StatusQuery,
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

pub(crate) async fn send(call: Call<(), Json<Message>>) -> Result<Reply<Accepted, 202>, Problem> {
    let app = call.app()?;
    let idempotency = idempotency(&call.parts.headers, &call.body.bytes)?;
    let draft = call.body.value.into_draft()?;
    no_faults(faults(&call.api, &draft, call.api.now()))?;
    let accepted = call
        .api
        .services()
        .accept(&app, vec![draft], idempotency)
        .await?;
    let Some(id) = accepted.ids.first().copied() else {
        return Err(Problem::new(Code::Internal, "the message got no id"));
    };
    Ok(replayed(Reply::new(Accepted { id }), accepted.replayed))
}

pub(crate) async fn batch(
    call: Call<(), Json<Batch>>,
) -> Result<Reply<BatchAccepted, 202>, Problem> {
    let app = call.app()?;
    let idempotency = idempotency(&call.parts.headers, &call.body.bytes)?;
    let items = call.body.value.messages;
    if !(1..=BATCH_LEN_MAX).contains(&items.len()) {
        return Err(Problem::at(
            Code::Invalid,
            "messages",
            format!(
                "must hold 1 to {BATCH_LEN_MAX} messages, not {}",
                items.len()
            ),
        ));
    }
    let now = call.api.now();
    let mut room = BATCH_FAULTS_LEN_MAX;
    let read: Vec<Result<Draft, Problem>> = items
        .iter()
        .map(|raw| {
            let one = personal(raw.get()).and_then(|draft| {
                no_faults(faults(&call.api, &draft, now))?;
                Ok(draft)
            });
            one.map_err(|problem| problem.within(&mut room))
        })
        .collect();
    drop(items);
    let (mut drafts, mut refused) = (Vec::new(), BTreeMap::new());
    let len = read.len();
    for (i, one) in read.into_iter().enumerate() {
        match one {
            Ok(draft) => drafts.push(draft),
            Err(problem) => {
                refused.insert(i, problem);
            }
        }
    }
    let (wanted, mut replay) = (drafts.len(), false);
    let mut ids = Vec::new().into_iter();
    if wanted > 0 {
        let accepted = call
            .api
            .services()
            .accept(&app, drafts, idempotency)
            .await?;
        if accepted.ids.len() != wanted {
            // The same body was judged differently at another time (`send_at`): its answer does not fit any more.
            return Err(ServiceError::KeyReused.into());
        }
        replay = accepted.replayed;
        ids = accepted.ids.into_iter();
    }
    let results = (0..len)
        .map(|i| match refused.remove(&i) {
            Some(problem) => BatchResult {
                id: None,
                error: Some(problem.document()),
            },
            None => BatchResult {
                id: ids.next(),
                error: None,
            },
        })
        .collect();
    let answer = BatchAccepted {
        accepted: wanted,
        refused: len - wanted,
        results,
    };
    Ok(replayed(Reply::new(answer), replay))
}

fn faults(api: &Api, draft: &Draft, now: Timestamp) -> Vec<Fault> {
    let mut faults = draft.check(now);
    let order = draft.options.channels.order.iter().enumerate();
    let channels = order.map(|(i, channel)| (format!("options.channels.order[{i}]"), channel));
    faults.extend(unknown_channels(api, channels));
    let vendors = draft.options.vendor.keys();
    let vendors = vendors.map(|channel| (format!("options.vendor.{channel}"), channel));
    faults.extend(unknown_channels(api, vendors));
    faults
}

fn personal(json: &str) -> Result<Draft, Problem> {
    if json.len() > MESSAGE_BODY_BYTES_MAX {
        return Err(Problem::new(
            Code::PayloadTooLarge,
            format!("a message has at most {MESSAGE_BODY_BYTES_MAX} bytes"),
        ));
    }
    let draft = body::parse::<Message>(json.as_bytes())?.into_draft()?;
    match draft.to {
        Target::Users(_) | Target::Devices(_) => Ok(draft),
        Target::Topic(_) | Target::All => Err(Problem::at(
            Code::Invalid,
            "to",
            "must name users or devices in a batch; send broadcasts one by one",
        )),
    }
}

pub(crate) async fn explain(call: Call<(), Json<Message>>) -> Result<Reply<Explanation>, Problem> {
    let app = call.app()?;
    let draft = call.body.value.into_draft()?;
    no_faults(faults(&call.api, &draft, call.api.now()))?;
    Ok(Reply::new(
        call.api.services().explain(&app, draft).await?.into(),
    ))
}

/// Whether devices are still looked for: the counts may then be even, and yet more is to come.
async fn is_still_planned(
    call: &Call<StatusQuery>,
    app: &AppId,
    id: MessageId,
) -> Result<bool, Problem> {
    let first = call.api.ports().work.of_message(app, id, 1).await?;
    Ok(first
        .iter()
        .any(|job| !matches!(job.kind, JobKind::Deliver { .. })))
}

pub(crate) async fn status(call: Call<StatusQuery>) -> Result<Reply<Status>, Problem> {
    let (app, id): (_, MessageId) = (call.app()?, message_id(&call)?);
    let ports = call.api.ports();
    let found = ports.inbox.message(&app, id).await?;
    let Some(message) = found.filter(|message| message.recalls.is_none()) else {
        return Err(Problem::not_found("message"));
    };
    let recalled = ports.inbox.recalled(&app, id).await?;
    let rows = ports.ledger.message_counters(&app, id).await?;
    let (counts, reasons) = totals(&rows);
    let Tally { total, open, done } = tally(&rows);
    let now = call.api.now();
    let state = match recalled {
        Some(_) => "recalled",
        None if message.options.send_at.is_some_and(|at| at > now) => "scheduled",
        None if open > 0 || is_still_planned(&call, &app, id).await? => "sending",
        // Also when there was nobody to reach.
        None => "done",
    };
    let (mut items, mut next) = (None, None);
    if call.query.deliveries {
        let after = call
            .query
            .after
            .as_deref()
            .map(str::parse::<DeviceId>)
            .transpose();
        let after =
            after.map_err(|e| Problem::at(Code::InvalidRequest, "query.after", e.to_string()))?;
        let page = ports
            .ledger
            .deliveries_of(&app, id, after, DELIVERIES_PAGE_LEN)
            .await?;
        next = page
            .last()
            .filter(|_| page.len() >= DELIVERIES_PAGE_LEN)
            .map(|d| d.device.clone());
        items = Some(page.into_iter().map(DeliveryItem::from).collect());
    }
    Ok(Reply::new(Status {
        id,
        state,
        class: message.class,
        accepted_at: message.accepted_at.into(),
        expires_at: message.expires_at.into(),
        recalled_at: recalled.map(Into::into),
        counts,
        reasons,
        deliveries: Deliveries {
            total,
            open,
            done,
            items,
            next,
        },
    }))
}

/// Events by stage, and final outcomes by reason.
pub(crate) fn totals(
    rows: &[CounterRow],
) -> (BTreeMap<&'static str, u64>, BTreeMap<&'static str, u64>) {
    let (mut counts, mut reasons) = (BTreeMap::new(), BTreeMap::new());
    for row in rows {
        *counts.entry(row.key.stage.as_str()).or_default() += row.count;
        if let Some(reason) = row.key.reason
            && ends(&row.key)
        {
            *reasons.entry(reason.as_str()).or_default() += row.count;
        }
    }
    (counts, reasons)
}

/// Deliveries of one message, and ends that no delivery came before.
#[derive(Debug, PartialEq, Eq)]
struct Tally {
    total: u64,
    open: u64,
    done: u64,
}

/// Every delivery begins with `targeted` and has its device's platform. A user without devices and a device that is not there
/// end without either: such an end is one more, and does not settle what is open elsewhere.
fn tally(rows: &[CounterRow]) -> Tally {
    let (mut targeted, mut ended, mut alone, mut unreadable) = (0_u64, 0_u64, 0_u64, 0_u64);
    for row in rows {
        let key = &row.key;
        match (key.stage, key.reason) {
            (Stage::Targeted, _) => targeted += row.count,
            (_, Some(reason)) if ends(key) => match (key.platform, reason) {
                (Some(_), _) => ended += row.count,
                // It may have been a delivery: its record is what cannot be read.
                (None, Reason::RecordUnreadable) => unreadable += row.count,
                (None, _) => alone += row.count,
            },
            _ => {}
        }
    }
    let unsettled = targeted.saturating_sub(ended);
    let settled = unreadable.min(unsettled);
    let without = alone + (unreadable - settled);
    Tally {
        total: targeted.max(ended) + without,
        open: unsettled - settled,
        done: ended + settled + without,
    }
}

/// Whether what is counted here ended its delivery. Counters of older days do not say it: there, what comes after the end (a
/// late ack) has no reason, and bad news of a vendor has its own, but for a wait for a receipt that ended in vain.
pub(crate) fn ends(key: &CounterKey) -> bool {
    let Some(reason) = key.reason else {
        return key.ends;
    };
    key.ends
        || matches!(
            (key.stage, reason),
            (
                Stage::Delivered | Stage::AcceptedByVendor | Stage::Dropped,
                _
            ) | (Stage::Undelivered, Reason::AcceptedByVendor)
        )
}

pub(crate) async fn recall(call: Call) -> Result<Reply<Recalled>, Problem> {
    let (app, id) = (call.app()?, message_id(&call)?);
    let report = call.api.services().recall(&app, id).await?;
    let at = call.api.ports().inbox.recalled(&app, id).await?;
    Ok(Reply::new(Recalled {
        id,
        recalled_at: at.unwrap_or_else(|| call.api.now()).into(),
        stopped: report.stopped,
        withdrawn: report.withdrawn,
    }))
}

/// The message in the path.
pub(crate) fn message_id<Q, B>(call: &Call<Q, B>) -> Result<MessageId, Problem> {
    let text = call.id::<String>("message")?;
    MessageId::parse(&text).map_err(|e| Problem::at(Code::InvalidRequest, "message", e.to_string()))
}

fn idempotency(headers: &HeaderMap, body: &[u8]) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(value) = headers.get(&IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let key = value.to_str().ok().filter(|key| {
        (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len())
            && key.bytes().all(|b| (0x20..0x7f).contains(&b))
    });
    let Some(key) = key else {
        return Err(Problem::faults(
            Code::InvalidRequest,
            vec![Fault {
                path: "Idempotency-Key".to_owned(),
                problem: format!("must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} printable characters"),
            }],
        ));
    };
    Ok(Some(IdempotencyKey {
        key: key.to_owned(),
        body_hash: sha256(body),
    }))
}

fn replayed<T, const STATUS: u16>(reply: Reply<T, STATUS>, replayed: bool) -> Reply<T, STATUS> {
    if replayed {
        reply.header(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"))
    } else {
        reply
    }
}
