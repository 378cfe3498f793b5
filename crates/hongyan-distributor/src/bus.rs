//! What apps may ask for over the bus: `org.unifiedpush.Distributor2`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use zbus::message::Header;
use zbus::names::BusName;
use zbus::object_server::ResponseDispatchNotifier;
use zbus::zvariant::Value;
use zbus::{Connection, fdo};

use crate::arguments::{self, Dictionary, Fault, Register};
use crate::distributor::{Distributor, Reason};

/// The distributor's name on the bus.
pub(crate) const NAME: &str = "org.unifiedpush.Distributor.hongyan";
/// Where it serves.
pub(crate) const PATH: &str = "/org/unifiedpush/Distributor";
/// How long the answer to `Register` may take to be written before the endpoint is told anyway.
const ANSWER_TIME: Duration = Duration::from_secs(5);

type Answer = HashMap<&'static str, Value<'static>>;

/// The interface, as it is served.
pub(crate) struct Face(pub(crate) Arc<Distributor>);

#[zbus::interface(name = "org.unifiedpush.Distributor2")]
impl Face {
    /// Registers a connector: `service`, `token`, `description`?, `vapid`?. After the answer the app is told its endpoint.
    async fn register(
        &self,
        arguments: Dictionary,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] connection: &Connection,
    ) -> fdo::Result<ResponseDispatchNotifier<Answer>> {
        let asked = Register::read(&arguments)?;
        let (service, token) = (asked.service.clone(), asked.token.clone());
        let outcome = match is_of(connection, &header, &service).await {
            true => self.0.register(asked).await,
            false => {
                tracing::warn!(
                    service,
                    "somebody who does not own the name asked to register it"
                );
                Err(Reason::Unauthorized)
            }
        };
        let (answer, written) = ResponseDispatchNotifier::new(answer(outcome.as_ref().err()));
        if let Ok(endpoint) = outcome {
            let distributor = Arc::clone(&self.0);
            tokio::spawn(async move {
                // Told in any case: an app that knows its endpoint twice is better off than one that does not.
                let _ = tokio::time::timeout(ANSWER_TIME, written).await;
                distributor.tell_endpoint(&service, token, endpoint);
            });
        }
        Ok(answer)
    }

    /// Ends the registration of `token`.
    async fn unregister(&self, arguments: Dictionary) -> fdo::Result<Answer> {
        let token = arguments::token(&arguments)?;
        let done = self.0.unregister(&token).await;
        done.map_err(|error| fdo::Error::Failed(error.to_string()))?;
        Ok(Answer::new())
    }
}

impl From<Fault> for fdo::Error {
    fn from(fault: Fault) -> Self {
        Self::InvalidArgs(fault.to_string())
    }
}

fn answer(failed: Option<&Reason>) -> Answer {
    match failed {
        None => Answer::from([("success", "REGISTRATION_SUCCEEDED".into())]),
        Some(reason) => Answer::from([
            ("success", "REGISTRATION_FAILED".into()),
            ("reason", reason.word().into()),
        ]),
    }
}

/// Whether the caller owns the name that it wants its messages to go to.
async fn is_of(connection: &Connection, header: &Header<'_>, service: &str) -> bool {
    let Ok(name) = BusName::try_from(service) else {
        return false;
    };
    let owner = async {
        fdo::DBusProxy::new(connection)
            .await?
            .get_name_owner(name)
            .await
    };
    match (owner.await, header.sender()) {
        (Ok(owner), Some(sender)) => owner.as_str() == sender.as_str(),
        _ => false,
    }
}
