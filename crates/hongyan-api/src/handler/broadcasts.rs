//! Broadcast channels at a credential's vendor: made, listed, read and deleted there; nothing of them is stored here.

use std::sync::Arc;

use hongyan_core::limits::VENDOR_CALL_DEADLINE;
use hongyan_core::port::{BroadcastError, Broadcasts};
use hongyan_core::verdict::Unsure;
use hongyan_core::{ChannelId, CredentialName, Verdict};

use crate::body::Json;
use crate::problem::{Code, Problem};
use crate::reply::{Done, Reply};
use crate::route::Call;
use crate::wire::List;
use crate::wire::broadcast::{Broadcast, NewBroadcast};

pub(crate) async fn create(
    call: Call<(), Json<NewBroadcast>>,
) -> Result<Reply<Broadcast, 201>, Problem> {
    let storage = call.body.value.storage;
    let vendor = at(&call).await?;
    let id = vendor.create(storage.into(), VENDOR_CALL_DEADLINE).await?;
    Ok(Reply::new(Broadcast {
        id,
        storage: Some(storage),
    }))
}

pub(crate) async fn list(call: Call) -> Result<Reply<List<Broadcast>>, Problem> {
    let ids = at(&call).await?.list(VENDOR_CALL_DEADLINE).await?;
    let shown = |id| Broadcast { id, storage: None };
    Ok(Reply::new(List {
        items: ids.into_iter().map(shown).collect(),
        next: None,
    }))
}

pub(crate) async fn read(call: Call) -> Result<Reply<Broadcast>, Problem> {
    let id: String = call.id("broadcast")?;
    let storage = at(&call).await?.read(&id, VENDOR_CALL_DEADLINE).await?;
    Ok(Reply::new(Broadcast {
        id,
        storage: Some(storage.into()),
    }))
}

pub(crate) async fn delete(call: Call) -> Result<Done, Problem> {
    let id: String = call.id("broadcast")?;
    at(&call).await?.delete(&id, VENDOR_CALL_DEADLINE).await?;
    Ok(Done)
}

async fn at<B>(call: &Call<(), B>) -> Result<Arc<dyn Broadcasts>, Problem> {
    let app = call.app()?;
    let channel: ChannelId = call.id("channel")?;
    let name: CredentialName = call.id("name")?;
    let found = call.api.services().broadcasts(&app, &channel, &name);
    found.await?.ok_or_else(|| {
        Problem::new(
            Code::NotAvailable,
            format!("{channel} has no broadcast channels that can be managed here; apns has"),
        )
    })
}

impl From<BroadcastError> for Problem {
    fn from(error: BroadcastError) -> Self {
        let detail = error.to_string();
        match error {
            BroadcastError::NotFound => Self::not_found("broadcast channel"),
            BroadcastError::Full { .. } => Self::new(Code::VendorRefused, detail),
            BroadcastError::Vendor(Verdict::CredentialBad { .. }) => {
                Self::new(Code::CredentialUnusable, detail)
            }
            BroadcastError::Vendor(Verdict::Retry {
                after, certainty, ..
            }) => {
                let fate = match certainty {
                    Unsure::NotTaken => "nothing was done; try again later",
                    Unsure::MaybeTaken => {
                        "it may have been done all the same; look at the list before trying again"
                    }
                };
                let problem = Self::new(Code::Unavailable, format!("{detail}; {fate}"));
                match after {
                    Some(after) => problem.retry_after(after),
                    None => problem,
                }
            }
            BroadcastError::Vendor(_) => Self::new(Code::VendorRefused, detail),
        }
    }
}
