//! Apps, keys, credentials, devices, users, reports.

use http::Method;
use serde_json::{Value, json};

use super::{Admin, with_query};
use crate::error::Error;
use crate::http_client::{Answer, Call};
use crate::net::escape;

/// Methods that each make one call: name, verb, path, what it does.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($($arg:ident),*) $verb:ident $path:literal $(body $body:ident)?;)*) => {
        impl Admin {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// [`Error`].
                pub async fn $name(&self, $($arg: &str,)* $($body: &Value)?) -> Answer {
                    let path = format!($path, $($arg = escape($arg)),*);
                    let call = Call::new(Method::$verb, path);
                    $(let call = call.json($body);)?
                    self.http.call(call).await
                }
            )*
        }
    };
}

calls! {
    /// All apps.
    apps() GET "/v1/apps";
    /// Makes an app, from a body such as `{"id": "shop"}`.
    create_app() POST "/v1/apps" body fields;
    /// One app.
    app(app) GET "/v1/apps/{app}";
    /// Changes an app.
    update_app(app) PATCH "/v1/apps/{app}" body fields;
    /// Deletes an app and everything below it.
    delete_app(app) DELETE "/v1/apps/{app}";
    /// The keys of an app, without their secrets.
    keys(app) GET "/v1/apps/{app}/keys";
    /// Makes a key; the answer is the only place where its secret is ever shown.
    create_key(app) POST "/v1/apps/{app}/keys" body fields;
    /// Ends a key.
    delete_key(app, id) DELETE "/v1/apps/{app}/keys/{id}";
    /// The credentials of a channel, without their secrets.
    credentials(channel) GET "/v1/channels/{channel}/credentials";
    /// One credential, without its secrets.
    credential(channel, name) GET "/v1/channels/{channel}/credentials/{name}";
    /// Sets a credential.
    put_credential(channel, name) PUT "/v1/channels/{channel}/credentials/{name}" body fields;
    /// Changes the limits of a credential; its secrets stay.
    update_credential(channel, name) PATCH "/v1/channels/{channel}/credentials/{name}" body fields;
    /// Deletes a credential that is not in use.
    delete_credential(channel, name) DELETE "/v1/channels/{channel}/credentials/{name}";
    /// The broadcast channels at a credential's vendor.
    broadcasts(channel, name) GET "/v1/channels/{channel}/credentials/{name}/broadcasts";
    /// Makes a broadcast channel, from a body such as `{"storage": "latest"}`.
    create_broadcast(channel, name) POST "/v1/channels/{channel}/credentials/{name}/broadcasts" body fields;
    /// One broadcast channel, with what it stores.
    broadcast(channel, name, id) GET "/v1/channels/{channel}/credentials/{name}/broadcasts/{id}";
    /// Deletes a broadcast channel for good.
    delete_broadcast(channel, name, id) DELETE "/v1/channels/{channel}/credentials/{name}/broadcasts/{id}";
    /// One device.
    device(device) GET "/v1/devices/{device}";
    /// Changes a device.
    update_device(device) PATCH "/v1/devices/{device}" body fields;
    /// Forgets a device.
    delete_device(device) DELETE "/v1/devices/{device}";
    /// Sets a vendor token of a device.
    put_device_token(device, channel) PUT "/v1/devices/{device}/tokens/{channel}" body token;
    /// Deletes a vendor token of a device.
    delete_device_token(device, channel) DELETE "/v1/devices/{device}/tokens/{channel}";
    /// One user.
    user(user) GET "/v1/users/{user}";
    /// Sets a user: attributes and preferences.
    put_user(user) PUT "/v1/users/{user}" body fields;
    /// Changes a user.
    update_user(user) PATCH "/v1/users/{user}" body fields;
    /// Deletes a user and unbinds the devices.
    delete_user(user) DELETE "/v1/users/{user}";
    /// The devices of a user.
    user_devices(user) GET "/v1/users/{user}/devices";
    /// Where the user is online.
    presence(user) GET "/v1/users/{user}/presence";
    /// Joins a device to a topic.
    subscribe(topic, device) PUT "/v1/topics/{topic}/subscribers/{device}";
    /// Takes a device out of a topic.
    unsubscribe(topic, device) DELETE "/v1/topics/{topic}/subscribers/{device}";
}

impl Admin {
    /// Deletes a credential although it is in use.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn force_delete_credential(&self, channel: &str, name: &str) -> Answer {
        let (channel, name) = (escape(channel), escape(name));
        let path = format!("/v1/channels/{channel}/credentials/{name}?force=true");
        self.http.call(Call::new(Method::DELETE, path)).await
    }

    /// Proves a credential with its vendor.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn check_credential(&self, channel: &str, name: &str) -> Answer {
        let (channel, name) = (escape(channel), escape(name));
        let path = format!("/v1/channels/{channel}/credentials/{name}/check");
        self.http
            .call(Call::post(path, &json!({})).repeatable())
            .await
    }

    /// Binds a device to a user in the app server's name.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn login_device(&self, device: &str, user: &str) -> Answer {
        let path = format!("/v1/devices/{}/login", escape(device));
        self.http
            .call(Call::post(path, &json!({ "user": user })).repeatable())
            .await
    }

    /// Unbinds a device from its user.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn logout_device(&self, device: &str) -> Answer {
        let path = format!("/v1/devices/{}/logout", escape(device));
        self.http
            .call(Call::post(path, &json!({})).repeatable())
            .await
    }

    /// Unbinds a device and ends its session.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn kick_device(&self, device: &str) -> Answer {
        let path = format!("/v1/devices/{}/kick", escape(device));
        self.http
            .call(Call::post(path, &json!({})).repeatable())
            .await
    }

    /// The funnel; filters are names and values such as `("channel", "apns")`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn funnel(&self, filters: &[(&str, Option<&str>)]) -> Answer {
        self.http
            .call(Call::get(with_query("/v1/reports/funnel", filters)))
            .await
    }

    /// How the channels fare.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn channels_report(&self, filters: &[(&str, Option<&str>)]) -> Answer {
        self.http
            .call(Call::get(with_query("/v1/reports/channels", filters)))
            .await
    }

    /// What is left of the quotas.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn quota_report(&self, filters: &[(&str, Option<&str>)]) -> Answer {
        self.http
            .call(Call::get(with_query("/v1/reports/quota", filters)))
            .await
    }

    /// Any call that has no method of its own: a JSON body in, a JSON answer out. Not repeated
    /// unless its method is idempotent.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn raw(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let call = Call::new(method, path);
        let call = match body {
            Some(body) => call.json(body),
            None => call,
        };
        self.http.call(call).await
    }

    /// Any answer as it is, such as the OpenAPI document.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn raw_bytes(&self, path: &str) -> Result<bytes::Bytes, Error> {
        self.http.bytes(Call::get(path)).await
    }
}
