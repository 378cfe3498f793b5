//! Receipts: what vendors post about earlier pushes.

use bytes::Bytes;
use hongyan_core::{AppId, ChannelId};

use crate::auth::too_many;
use crate::problem::Problem;
use crate::reply::Raw;
use crate::route::Call;
use crate::services::{CallbackCall, ServiceError};
use crate::wire::callback::CallbackQuery;

pub(crate) async fn take(call: Call<CallbackQuery, Bytes>) -> Result<Raw, Problem> {
    let (app, channel) = (call.id::<AppId>("app")?, call.id::<ChannelId>("channel")?);
    let target = call
        .parts
        .uri
        .path_and_query()
        .map_or_else(|| "/".to_owned(), ToString::to_string);
    let headers = call.parts.headers.iter();
    let headers = headers
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        })
        .collect();
    let said = CallbackCall {
        credential: call.query.c,
        secret: call.query.k,
        method: call.parts.method.to_string(),
        target,
        headers,
        body: call.body,
    };
    let failed = |problem: Problem| {
        // Whoever proves nothing again and again is slowed down, as with unknown keys.
        let peer = call.parts.peer.ip();
        match call.api.by_stranger().take(peer, call.api.now()) {
            Ok(()) => problem,
            Err(wait) => too_many(wait),
        }
    };
    let answer = call.api.services().callback(&app, &channel, said).await;
    let answer = answer.map_err(|error| match error {
        ServiceError::Forbidden(_) => failed(error.into()),
        other => other.into(),
    })?;
    Ok(Raw::text(answer.content_type, answer.body))
}
