//! Channels: a device's addresses for web push and UnifiedPush senders.

use hongyan_core::port::{self, OpenChannel, OpenError};
use hongyan_core::push::DESCRIPTION_BYTES_MAX;
use hongyan_core::{PushChannel, StoreError, UserId};

use super::{fault, no_faults};
use crate::api::Api;
use crate::body::Json;
use crate::problem::{Code, Problem};
use crate::reply::{Done, Reply};
use crate::route::Call;
use crate::wire::push::{Channel, Channels, Enrolment, NewChannel};

/// What a device knows a channel by, bytes: a connector's token has at most so many.
const LABEL_BYTES_MAX: usize = 100;

pub(crate) async fn open(call: Call<(), Json<NewChannel>>) -> Result<Reply<Channel, 201>, Problem> {
    let (app, device) = (call.app()?, call.device_id()?);
    call.api.device(&app, &device).await?;
    let NewChannel {
        channel,
        token_hash,
        vapid,
        description,
    } = call.body.value;
    let texts = [
        ("token_hash", &token_hash, 1, LABEL_BYTES_MAX),
        ("description", &description, 0, DESCRIPTION_BYTES_MAX),
    ];
    let faults = texts.into_iter().filter_map(|(path, text, least, most)| {
        let fits = text
            .as_ref()
            .is_none_or(|t| (least..=most).contains(&t.len()) && !t.contains(char::is_control));
        let problem = format!("must be {least} to {most} bytes without control characters");
        (!fits).then(|| fault(path, problem))
    });
    no_faults(faults.collect())?;
    let new = port::NewChannel {
        app,
        device,
        channel,
        label: token_hash,
        vapid,
        description,
    };
    let open = call.api.ports().pushes.open(new).await?;
    Ok(Reply::new(shown(&call.api, open)))
}

pub(crate) async fn list(call: Call) -> Result<Reply<Channels>, Problem> {
    let (app, device) = (call.app()?, call.device_id()?);
    call.api.device(&app, &device).await?;
    let open = call.api.ports().pushes.list(&app, &device).await?;
    let items = open.into_iter().map(|one| shown(&call.api, one));
    Ok(Reply::new(Channels {
        items: items.collect(),
    }))
}

pub(crate) async fn close(call: Call) -> Result<Done, Problem> {
    let (app, device) = (call.app()?, call.device_id()?);
    let channel: PushChannel = call.id("push_channel")?;
    let pushes = &call.api.ports().pushes;
    if pushes.close(&app, &device, &channel).await? {
        Ok(Done)
    } else {
        Err(Problem::not_found("channel"))
    }
}

/// Makes what a person puts into a browser, so that it becomes one of their devices.
pub(crate) async fn enrol(call: Call) -> Result<Reply<Enrolment, 201>, Problem> {
    let (app, user): (_, UserId) = (call.app()?, call.id("user")?);
    if !call.api.options().autopush {
        return Err(Problem::new(
            Code::NotFound,
            "browsers are not served here; set autopush.app",
        ));
    }
    let pushes = &call.api.ports().pushes;
    let made = pushes.enrolment(&app, &user).await?;
    let text = made.text.expose_str().unwrap_or_default();
    let root = pushes.root();
    let url = match root.strip_prefix("http") {
        Some(rest) => format!("ws{rest}/autopush/{text}"),
        None => format!("{root}/autopush/{text}"),
    };
    Ok(Reply::new(Enrolment {
        user,
        url,
        expires_at: made.expires_at.into(),
    }))
}

/// A channel with its address: senders of the old UnifiedPush kind may post to one that is bound to no key.
fn shown(api: &Api, open: OpenChannel) -> Channel {
    let root = api.ports().pushes.root();
    let address = if open.endpoint.vapid.is_some() {
        port::endpoint_url(root, &open)
    } else {
        let token = String::from_utf8_lossy(open.token.expose());
        format!("{root}/up/{token}")
    };
    Channel::new(open.endpoint, address)
}

impl From<OpenError> for Problem {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::TooMany => Self::new(Code::Conflict, error.to_string()),
            OpenError::VapidRequired => Self::at(Code::VapidRequired, "vapid", error.to_string()),
            OpenError::BadKey => Self::at(Code::Invalid, "vapid", error.to_string()),
            OpenError::Seal(_) => {
                tracing::error!(%error, "an endpoint's token cannot be sealed or opened");
                Self::new(
                    Code::Internal,
                    "the address of a channel cannot be told: the server's master key has changed; close the channel and open it again",
                )
            }
            OpenError::Store(StoreError::NotFound { entity }) => Self::not_found(entity),
            OpenError::Store(error) => error.into(),
        }
    }
}
