//! The way to the apps: method calls on the connector that each of them serves.

use std::collections::HashMap;
use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;
use hongyan_client::Secret;
use zbus::message::Flags;
use zbus::names::ErrorName;
use zbus::zvariant::Value;
use zbus::{Connection, Message};

/// Where an app serves its connector.
const PATH: &str = "/org/unifiedpush/Connector";
/// Its interface.
const INTERFACE: &str = "org.unifiedpush.Connector2";

/// What an app is told besides its messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    NewEndpoint { token: Secret, endpoint: Secret },
    Unregistered { token: Secret },
}

/// Why a call did not reach the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nobody has the name, and nobody can be started for it.
    Gone,
    /// Somebody has the name, or was started for it, but does not serve a connector: not yet, maybe.
    NotServing,
    /// The app got it and says that it failed.
    Refused,
}

/// Calls connectors.
#[async_trait]
pub(crate) trait Connector: Send + Sync + Debug + 'static {
    /// Hands a message over and waits for the answer, however long that takes. When the wait is given up, the app may have it
    /// all the same.
    async fn message(
        &self,
        service: &str,
        token: &Secret,
        id: &str,
        body: &Bytes,
    ) -> Result<(), Failure>;

    /// Says something without waiting for an answer.
    async fn tell(&self, service: &str, note: &Note) -> Result<(), Failure>;
}

/// Connectors on the session bus. The bus starts apps that are not there, when it knows how.
#[derive(Debug)]
pub(crate) struct OnBus(pub(crate) Connection);

#[async_trait]
impl Connector for OnBus {
    async fn message(
        &self,
        service: &str,
        token: &Secret,
        id: &str,
        body: &Bytes,
    ) -> Result<(), Failure> {
        let arguments = HashMap::from([
            ("token", Value::from(token.expose())),
            ("message", Value::from(body.as_ref())),
            ("id", Value::from(id)),
        ]);
        self.0
            .call_method(Some(service), PATH, Some(INTERFACE), "Message", &arguments)
            .await
            .map(drop)
            .map_err(|error| failure(&error))
    }

    async fn tell(&self, service: &str, note: &Note) -> Result<(), Failure> {
        let (method, arguments) = match note {
            Note::NewEndpoint { token, endpoint } => {
                let endpoint = ("endpoint", Value::from(endpoint.expose()));
                let token = ("token", Value::from(token.expose()));
                ("NewEndpoint", HashMap::from([token, endpoint]))
            }
            Note::Unregistered { token } => {
                let token = ("token", Value::from(token.expose()));
                ("Unregistered", HashMap::from([token]))
            }
        };
        let call = || {
            Message::method_call(PATH, method)?
                .destination(service)?
                .interface(INTERFACE)?
                .with_flags(Flags::NoReplyExpected)?
                .build(&arguments)
        };
        match call() {
            Ok(call) => self.0.send(&call).await.map_err(|error| failure(&error)),
            Err(error) => Err(failure(&error)),
        }
    }
}

fn failure(error: &zbus::Error) -> Failure {
    match error {
        zbus::Error::MethodError(name, _, _) => meaning(name),
        _ => Failure::NotServing,
    }
}

/// What an error of the bus or of an app says about who got the call.
fn meaning(name: &ErrorName<'_>) -> Failure {
    let name = name.as_str();
    let Some(kind) = name.strip_prefix("org.freedesktop.DBus.Error.") else {
        return Failure::Refused;
    };
    match kind {
        "ServiceUnknown" | "NameHasNoOwner" => Failure::Gone,
        "UnknownMethod" | "UnknownObject" | "UnknownInterface" | "NoReply" | "Disconnected"
        | "LimitsExceeded" => Failure::NotServing,
        // The bus could not start it; next time it may.
        kind if kind.starts_with("Spawn.") || kind == "TimedOut" => Failure::NotServing,
        _ => Failure::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_14_errors_tell_who_got_the_call() {
        let check = |name: &str, want| {
            assert_eq!(meaning(&ErrorName::try_from(name).unwrap()), want, "{name}");
        };
        check("org.freedesktop.DBus.Error.ServiceUnknown", Failure::Gone);
        check(
            "org.freedesktop.DBus.Error.UnknownMethod",
            Failure::NotServing,
        );
        check(
            "org.freedesktop.DBus.Error.Spawn.ChildExited",
            Failure::NotServing,
        );
        check("org.freedesktop.DBus.Error.Failed", Failure::Refused);
        check("org.example.Broken", Failure::Refused);
    }
}
