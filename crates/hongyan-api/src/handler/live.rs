//! Live answers over plain HTTP: server-sent events and polls.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use futures_util::StreamExt as _;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, ORIGIN, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use serde_json::value::RawValue;

use hongyan_core::{Cursor, Secret};

use super::client::calling;
use crate::auth::{self, Caller, Who, same_device};
use crate::problem::{Code, Problem};
use crate::reply::{Raw, Reply};
use crate::route::Call;
use crate::services::{LiveCaller, PollRequest, StreamRequest, Turned};
use crate::wire::client::{AckMode, PollQuery, Polled, StreamQuery};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const PREFER: HeaderName = HeaderName::from_static("prefer");
/// Longest wait of a poll, seconds.
const WAIT_S_MAX: u64 = 60;
/// The same when the client names none: below the 30 s at which some proxies give up.
const WAIT_S: u64 = 25;
/// Most messages in one answer.
const LIMIT_MAX: u16 = 500;
/// What a plain poll is told to wait before the next one, seconds.
const POLL_INTERVAL_S: &str = "30";
/// Most unacknowledged messages of a stream.
const INFLIGHT_MAX: u16 = 256;

/// `GET /v1/stream`.
pub(crate) async fn stream(call: Call<StreamQuery>) -> Result<Raw, Problem> {
    let Call {
        api, query, parts, ..
    } = call;
    let caller = match &query.ticket {
        Some(ticket) => LiveCaller::Ticket(Secret::new(ticket.as_bytes())),
        None => {
            let peer = parts.peer.ip();
            match auth::check(&api, Who::Device, &parts.headers, peer, None).await? {
                Caller::Device(device) => {
                    same_device(&device, query.device.as_ref())?;
                    LiveCaller::Device(device)
                }
                _ => {
                    return Err(Problem::new(
                        Code::Forbidden,
                        "this address needs a device token or a ticket",
                    ));
                }
            }
        }
    };
    if query
        .inflight
        .is_some_and(|n| !(1..=INFLIGHT_MAX).contains(&n))
    {
        return Err(Problem::at(
            Code::InvalidRequest,
            "query.inflight",
            format!("must be between 1 and {INFLIGHT_MAX}"),
        ));
    }
    let request = StreamRequest {
        caller,
        cursor: last_place(&parts.headers, query.cursor.as_deref())?,
        inflight: query.inflight,
        resume: query.ack == AckMode::Resume,
        session: query.session,
        origin: text(&parts.headers, &ORIGIN),
        peer: parts.peer,
    };
    let bytes = match api.ports().connect.stream(request).await {
        Ok(bytes) => bytes,
        Err(turned) if turned.status == StatusCode::NO_CONTENT => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            return Ok(Raw(response));
        }
        Err(turned) => return Err(problem(turned)),
    };
    let mut response = Response::new(Body::from_stream(bytes.map(Ok::<_, Infallible>)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    Ok(Raw(response))
}

/// `GET /v1/poll`.
pub(crate) async fn poll(call: Call<PollQuery>) -> Result<Reply<Polled>, Problem> {
    let device = Box::new(calling(&call)?.clone());
    let query = &call.query;
    same_device(&device, query.device.as_ref())?;
    if !(1..=LIMIT_MAX).contains(&query.limit) {
        return Err(Problem::at(
            Code::InvalidRequest,
            "query.limit",
            format!("must be between 1 and {LIMIT_MAX}"),
        ));
    }
    let wait_s = query
        .wait
        .map(u64::from)
        .or_else(|| preferred_wait(&call.parts.headers))
        .unwrap_or(WAIT_S);
    if wait_s > WAIT_S_MAX {
        return Err(Problem::at(
            Code::InvalidRequest,
            "query.wait",
            format!("must be at most {WAIT_S_MAX} seconds"),
        ));
    }
    let request = PollRequest {
        device,
        cursor: query
            .cursor
            .as_deref()
            .filter(|cursor| !cursor.is_empty())
            .map(parse("query.cursor"))
            .transpose()?,
        wait: Duration::from_secs(wait_s),
        limit: query.limit,
        peer: call.parts.peer,
    };
    let answer = call
        .api
        .ports()
        .connect
        .poll(request)
        .await
        .map_err(problem)?;
    let whole = |message: Vec<u8>| {
        // They were written as JSON by the gateway.
        let text = String::from_utf8(message).ok()?;
        RawValue::from_string(text).ok()
    };
    let reply = Reply::new(Polled {
        cursor: answer.cursor.to_string(),
        head: answer.head.to_string(),
        more: answer.more,
        reset: answer.reset,
        superseded: answer.superseded,
        messages: answer.messages.into_iter().filter_map(whole).collect(),
        recalled: answer.recalled.into_iter().filter_map(whole).collect(),
    })
    .header(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(if wait_s == 0 {
        reply.header(RETRY_AFTER, HeaderValue::from_static(POLL_INTERVAL_S))
    } else {
        reply
    })
}

/// The place that a client comes back with: `Last-Event-ID`, else the query's. An empty one is none.
fn last_place(headers: &HeaderMap, query: Option<&str>) -> Result<Option<Cursor>, Problem> {
    let header = text(headers, &LAST_EVENT_ID).filter(|id| !id.trim().is_empty());
    match (header, query.filter(|cursor| !cursor.is_empty())) {
        (Some(id), _) => parse("Last-Event-ID")(id.trim()).map(Some),
        (None, Some(cursor)) => parse("query.cursor")(cursor).map(Some),
        (None, None) => Ok(None),
    }
}

fn parse(path: &'static str) -> impl Fn(&str) -> Result<Cursor, Problem> {
    move |text| Cursor::parse(text).map_err(|e| Problem::at(Code::BadCursor, path, e.to_string()))
}

/// `Prefer: wait=n` of RFC 7240; longer waits than are served are shortened, as it is a preference.
fn preferred_wait(headers: &HeaderMap) -> Option<u64> {
    headers
        .get_all(&PREFER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|one| {
            let (name, value) = one.split_once('=')?;
            let value = value.split(';').next()?.trim().trim_matches('"');
            name.trim().eq_ignore_ascii_case("wait").then_some(value)
        })?
        .parse::<u64>()
        .ok()
        .map(|wait| wait.min(WAIT_S_MAX))
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn problem(turned: Turned) -> Problem {
    let code = match turned.status {
        StatusCode::UNAUTHORIZED => Code::Unauthorized,
        StatusCode::FORBIDDEN if turned.kicked => Code::Kicked,
        StatusCode::FORBIDDEN => Code::OriginForbidden,
        StatusCode::GONE => Code::DeviceGone,
        StatusCode::CONFLICT => Code::Conflict,
        StatusCode::TOO_MANY_REQUESTS => Code::RateLimited,
        _ => Code::Busy,
    };
    let problem = Problem::new(code, turned.detail).status(turned.status);
    match code {
        Code::RateLimited | Code::Busy | Code::Conflict => {
            problem.retry_after(Duration::from_secs(2))
        }
        _ => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preference_for_a_wait() {
        let wait = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.append(PREFER, HeaderValue::from_str(value).unwrap());
            preferred_wait(&headers)
        };
        assert_eq!(wait("wait=10"), Some(10));
        assert_eq!(wait("respond-async, Wait = \"7\""), Some(7));
        assert_eq!(wait("wait=900"), Some(WAIT_S_MAX));
        assert_eq!(wait("wait=soon"), None);
        assert_eq!(wait("handling=strict"), None);
    }

    #[test]
    fn the_header_wins_and_an_empty_one_is_none() {
        let cursor = Cursor {
            epoch: 1,
            reader: 2,
            user: 3,
            device: 4,
            broadcast: 5,
        };
        let other = Cursor { user: 9, ..cursor };
        let mut headers = HeaderMap::new();
        let query = other.to_string();
        let place = last_place(&headers, Some(&query)).unwrap();
        assert_eq!(place, Some(other));
        let id = HeaderValue::from_str(&cursor.to_string()).unwrap();
        headers.insert(LAST_EVENT_ID, id);
        assert_eq!(last_place(&headers, Some(&query)).unwrap(), Some(cursor));
        headers.insert(LAST_EVENT_ID, HeaderValue::from_static(""));
        assert_eq!(last_place(&headers, None).unwrap(), None);
        assert_eq!(last_place(&headers, Some("")).unwrap(), None);
        headers.insert(LAST_EVENT_ID, HeaderValue::from_static("7"));
        assert!(last_place(&headers, None).is_err());
    }
}
