//! What devices say over HTTP, and the way to the live connection.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use http::header::{CONNECTION, HeaderValue, UPGRADE};

use hongyan_core::port::{Ack, Reader};
use hongyan_core::session::{SessionEvent, SessionSaid};
use hongyan_core::{Cursor, Device, MessageId, Secret, Stage};

use crate::auth::same_device;
use crate::body::Json;
use crate::key;
use crate::options::{ACKS_LEN_MAX, CLIENT_EVENTS_LEN_MAX};
use crate::problem::{Code, Problem};
use crate::reply::{Done, Raw, Reply};
use crate::route::Call;
use crate::services::From;
use crate::upgrade;
use crate::wire::client::{Acks, ClientEvent, Ticket};

pub(crate) async fn acks(call: Call<(), Json<Acks>>) -> Result<Done, Problem> {
    let device = calling(&call)?.clone();
    let Acks {
        device: named,
        upto,
        ids,
    } = call.body.value;
    same_device(&device, named.as_ref())?;
    let ack = match (upto, ids) {
        (Some(upto), None) => Ack::Upto(
            Cursor::parse(&upto)
                .map_err(|e| Problem::at(Code::BadCursor, "upto", e.to_string()))?,
        ),
        (None, Some(ids)) if ids.len() > ACKS_LEN_MAX => {
            return Err(Problem::at(
                Code::InvalidRequest,
                "ids",
                format!("must be at most {ACKS_LEN_MAX}, not {}", ids.len()),
            ));
        }
        // An id that is none of ours is an unknown id: it does no harm.
        (None, Some(ids)) => Ack::Ids(
            ids.iter()
                .filter_map(|id| MessageId::parse(id).ok())
                .collect(),
        ),
        _ => {
            return Err(Problem::at(
                Code::InvalidRequest,
                "",
                "give either upto or ids",
            ));
        }
    };
    let reader = Reader {
        app: device.app.clone(),
        device: device.id.clone(),
        user: device.user.clone(),
    };
    let newly = call
        .api
        .ports()
        .inbox
        .ack(&reader, ack.clone(), call.api.now())
        .await?;
    call.api.ports().connect.acked(&reader, ack);
    if !newly.is_empty() {
        call.api
            .services()
            .feedback(vec![said(device, SessionSaid::Acked(newly))])
            .await;
    }
    Ok(Done)
}

pub(crate) async fn events(call: Call<(), Json<Vec<ClientEvent>>>) -> Result<Done, Problem> {
    let device = calling(&call)?.clone();
    let (events, now) = (call.body.value, call.api.now());
    if events.len() > CLIENT_EVENTS_LEN_MAX {
        return Err(Problem::at(
            Code::InvalidRequest,
            "",
            format!(
                "at most {CLIENT_EVENTS_LEN_MAX} events are taken, not {}",
                events.len()
            ),
        ));
    }
    let said = events
        .into_iter()
        .map(|event| {
            let what = SessionSaid::Client {
                message: event.id,
                stage: Stage::from(event.kind),
                at: event.at.map_or(now, |at| at.0.min(now)),
            };
            said(device.clone(), what)
        })
        .collect();
    call.api.services().feedback(said).await;
    Ok(Done)
}

fn said(device: Device, what: SessionSaid) -> SessionEvent {
    SessionEvent {
        app: device.app,
        device: device.id,
        user: device.user,
        what,
    }
}

pub(super) fn calling<Q, B>(call: &Call<Q, B>) -> Result<&Device, Problem> {
    call.caller
        .device()
        .ok_or_else(|| Problem::new(Code::Forbidden, "this address needs a device token"))
}

/// Gives the device a ticket for its next connection.
pub(crate) async fn ticket(call: Call) -> Result<Reply<Ticket, 201>, Problem> {
    let ports = call.api.ports();
    let text = key::mint(key::TokenKind::Ticket, &*ports.dice).text;
    let secret = Secret::new(text.as_bytes());
    match ports
        .connect
        .ticket(&secret, calling(&call)?, call.api.now())
    {
        Some(good_for) => Ok(Reply::new(Ticket {
            ticket: text,
            expires_in: good_for.as_secs(),
        })),
        None => Err(Problem::new(
            Code::Busy,
            "too many tickets wait to be used; try again in a minute",
        )),
    }
}

/// Answers 101 and hands the socket to the gateway. Who it is, the client says in its first frame.
pub(crate) async fn connect(call: Call) -> Result<Raw, Problem> {
    let origins = call.api.origins().await?;
    let Call { api, parts, .. } = call;
    let accepted = api.ports().connect.check(
        parts.uri.path(),
        &parts.method,
        parts.version,
        &parts.headers,
        &origins,
        From {
            peer: parts.peer,
            scheme: &parts.scheme,
        },
    );
    let accepted = accepted.map_err(|refused| {
        let code = match refused.status {
            StatusCode::FORBIDDEN => Code::OriginForbidden,
            StatusCode::UPGRADE_REQUIRED => Code::UpgradeRequired,
            StatusCode::TOO_MANY_REQUESTS => Code::RateLimited,
            StatusCode::SERVICE_UNAVAILABLE => Code::Busy,
            _ => Code::InvalidRequest,
        };
        refused.headers.into_iter().fold(
            Problem::new(code, refused.detail).status(refused.status),
            |problem, (name, value)| problem.header(name, value),
        )
    })?;
    let Some(on_upgrade) = parts.upgrade else {
        return Err(Problem::new(
            Code::InvalidRequest,
            "the Upgrade header is missing",
        ));
    };
    upgrade::hand_over(&api, on_upgrade, parts.peer, accepted.place);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.extend(accepted.headers);
    Ok(Raw(response))
}
