//! Receipts: what vendors post about earlier pushes.

use bytes::Bytes;
use hongyan_core::{AppId, ChannelId};

use crate::problem::Problem;
use crate::reply::Raw;
use crate::route::Call;
use crate::services::CallbackCall;
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
    let answer = call.api.services().callback(&app, &channel, said).await?;
    Ok(Raw::text(answer.content_type, answer.body))
}
