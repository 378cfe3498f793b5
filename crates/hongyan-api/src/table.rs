//! The table of all routes, in the order of the documentation.

use http::Method;

use hongyan_core::app::Scope;
use hongyan_core::limits::{BATCH_BODY_BYTES_MAX, CALLBACK_BODY_BYTES_MAX, MESSAGE_BODY_BYTES_MAX};

use crate::auth::Who;
use crate::handler::{
    apps, broadcasts, callbacks, client, credentials, devices, events, live, messages, ops, push,
    reports, topics, transfer, users, xmpp,
};
use crate::route::Route;

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const PATCH: Method = Method::PATCH;
const DELETE: Method = Method::DELETE;

const SEND: Who = Who::Server(Scope::Send);
const READ: Who = Who::Server(Scope::Read);
const MANAGE: Who = Who::Server(Scope::Manage);
const DEVICE_OR_READ: Who = Who::DeviceOr(Scope::Read);
const DEVICE_OR_MANAGE: Who = Who::DeviceOr(Scope::Manage);

/// All routes.
pub(crate) fn routes() -> Vec<Route> {
    let sections = [
        ("Messages", messages()),
        ("Devices", devices()),
        ("Users", users()),
        ("Topics", topics()),
        ("Client side", client()),
        ("Events and reports", reports()),
        ("Credentials", credentials()),
        ("Apps and keys", apps()),
        ("Operation", operation()),
    ];
    sections
        .into_iter()
        .flat_map(|(section, routes)| {
            routes
                .into_iter()
                .map(move |route| Route { section, ..route })
        })
        .collect()
}

fn messages() -> Vec<Route> {
    vec![
        Route::new(POST, "/v1/messages", SEND, "Send a message", messages::send)
            .more("202 is said after the message is durable; from then on every target device ends in exactly one final outcome. \
                   With the header `Idempotency-Key`, the same key and body get the same answer for 24 hours (with `Idempotency-Replayed: true`); \
                   another body gets 409.")
            .body_bytes_max(MESSAGE_BODY_BYTES_MAX),
        Route::new(POST, "/v1/messages/batch", SEND, "Send up to 1000 messages to users or devices", messages::batch)
            .more("Each message is judged by itself: `results` has its id or its error, in order. `Idempotency-Key` works for the whole batch.")
            .body_bytes_max(BATCH_BODY_BYTES_MAX),
        Route::new(POST, "/v1/messages/explain", SEND, "Say what would happen to a message", messages::explain)
            .more("Takes the same body; nothing is sent. For each device: what would be decided, why, and the exact vendor request.")
            .body_bytes_max(MESSAGE_BODY_BYTES_MAX),
        Route::new(GET, "/v1/messages/{message}", READ, "Read a message's state and counts", messages::status),
        Route::new(GET, "/v1/messages/{message}/trace", READ, "Read everything that happened to a message", events::of_message),
        Route::new(POST, "/v1/messages/{message}/recall", SEND, "Recall a message", messages::recall)
            .more("Stops what has not left, removes it from inboxes, tells clients, and withdraws it at vendors that can. Recalling twice does nothing more."),
    ]
}

fn devices() -> Vec<Route> {
    vec![
        Route::new(POST, "/v1/devices", Who::Registrar, "Register a device, or register it again", devices::register)
            .more("Full state, idempotent by `device_id`. A device that registers again proves itself by its device token (as the bearer or in the body); \
                   otherwise it gets a new token and is bound to nobody until it logs in."),
        Route::new(GET, "/v1/devices", READ, "List devices", devices::list),
        Route::new(GET, "/v1/devices/{device}", DEVICE_OR_READ, "Read a device", devices::read),
        Route::new(PATCH, "/v1/devices/{device}", DEVICE_OR_MANAGE, "Change a device", devices::change)
            .more("With `state` alone nothing is stored, and the answer is 204."),
        Route::new(DELETE, "/v1/devices/{device}", DEVICE_OR_MANAGE, "Forget a device", devices::delete),
        Route::new(PUT, "/v1/devices/{device}/tokens/{channel}", DEVICE_OR_MANAGE, "Set the vendor token of a channel", devices::put_token)
            .more("A vendor token belongs to one device: any other device that had it keeps a dead one. A token that its vendor called dead is tried again when it is given an hour later or after its credential was changed; until then it stays dead."),
        Route::new(DELETE, "/v1/devices/{device}/tokens/{channel}", DEVICE_OR_MANAGE, "Take the vendor token of a channel away", devices::delete_token),
        Route::new(POST, "/v1/devices/{device}/wake-key", Who::Itself, "Get the key of a device's wake-ups", devices::wake_key)
            .more("For devices that are woken by a text instead of a push (channel `sms` in mode `signal`): with the key they tell a true wake-up from a \
                   false one, then connect and fetch. The same key as long as the device keeps its token and the credential its secret; 404 when no \
                   channel of the device wakes it."),
        Route::new(POST, "/v1/devices/{device}/login", DEVICE_OR_MANAGE, "Bind a device to a user", devices::login)
            .more("When it answers, nothing of a former user can reach the device any more."),
        Route::new(POST, "/v1/devices/{device}/logout", DEVICE_OR_MANAGE, "Unbind a device from its user", devices::logout),
        Route::new(POST, "/v1/devices/{device}/xmpp", Who::Device, "Let the device log in over XMPP", xmpp::enable)
            .more("With the device token as the password: PLAIN works anyway, SCRAM from this call on. A new device token needs a new call; \
                   the address changes with the user."),
        Route::new(DELETE, "/v1/devices/{device}/xmpp", DEVICE_OR_MANAGE, "Forget what XMPP logins by SCRAM need", xmpp::disable),
        Route::new(POST, "/v1/devices/{device}/kick", MANAGE, "Unbind a device and end its connection", devices::kick),
        Route::new(POST, "/v1/devices/{device}/channels", DEVICE_OR_MANAGE, "Open a channel: an address that others push to", push::open)
            .more("For web push and UnifiedPush: whoever has `endpoint` may post (RFC 8030), with `vapid` only who has that key (RFC 8292). What is \
                   posted comes over the live connection with `ch` and `b64`. The same `channel` or `token_hash` with the same `vapid` gets the same \
                   answer; with another key it gets a new address, and the old one is gone."),
        Route::new(GET, "/v1/devices/{device}/channels", DEVICE_OR_MANAGE, "List a device's open channels", push::list),
        Route::new(DELETE, "/v1/devices/{device}/channels/{push_channel}", DEVICE_OR_MANAGE, "Close a channel", push::close)
            .more("Its address answers 410 for 90 days, so that senders forget it."),
        Route::new(GET, "/v1/devices/{device}/trace", READ, "Read everything that happened for a device", events::of_device),
        Route::new(POST, "/v1/devices/import", MANAGE, "Import devices, one per line", transfer::import)
            .more("Lines are written as they come, some hundred at a time, so any number of lines takes little memory; a faulty line does not hold up the others. \
                   Lines are states, not changes: sending them again does no harm."),
        Route::new(GET, "/v1/devices/export", MANAGE, "Export devices, one per line", transfer::export)
            .more("In id order; after an interruption, go on with `after`. The lines can be imported.")
            .streams("application/x-ndjson"),
    ]
}

fn users() -> Vec<Route> {
    vec![
        Route::new(
            PUT,
            "/v1/users/{user}",
            MANAGE,
            "Set a user's attributes and preferences",
            users::put,
        ),
        Route::new(GET, "/v1/users/{user}", READ, "Read a user", users::read),
        Route::new(
            PATCH,
            "/v1/users/{user}",
            MANAGE,
            "Change a user",
            users::change,
        ),
        Route::new(
            DELETE,
            "/v1/users/{user}",
            MANAGE,
            "Forget a user and unbind their devices",
            users::delete,
        ),
        Route::new(
            GET,
            "/v1/users/{user}/devices",
            READ,
            "List a user's devices",
            users::devices,
        ),
        Route::new(
            POST,
            "/v1/users/{user}/enrolments",
            MANAGE,
            "Make an address that makes browsers devices of a user",
            push::enrol,
        ),
        Route::new(
            GET,
            "/v1/users/{user}/presence",
            READ,
            "Say where a user is online",
            users::presence,
        ),
        Route::new(
            GET,
            "/v1/users/{user}/trace",
            READ,
            "Read everything that happened for a user",
            events::of_user,
        ),
    ]
}

fn topics() -> Vec<Route> {
    vec![
        Route::new(
            PUT,
            "/v1/topics/{topic}/subscribers/{device}",
            DEVICE_OR_MANAGE,
            "Subscribe a device to a topic",
            topics::subscribe,
        ),
        Route::new(
            DELETE,
            "/v1/topics/{topic}/subscribers/{device}",
            DEVICE_OR_MANAGE,
            "End a device's subscription",
            topics::unsubscribe,
        ),
        Route::new(
            GET,
            "/v1/topics/{topic}/subscribers",
            READ,
            "List a topic's subscribers",
            topics::list,
        ),
        Route::new(
            POST,
            "/v1/topics/{topic}/subscribers",
            MANAGE,
            "Subscribe and unsubscribe many devices",
            topics::bulk,
        )
        .body_bytes_max(2 * 1024 * 1024),
    ]
}

fn client() -> Vec<Route> {
    vec![
        Route::new(GET, "/v1/connect", Who::Anyone, "Open the live connection (WebSocket)", client::connect)
            .more("Subprotocols `hongyan.v1+json` and `hongyan.v1+cbor`; the device token goes into the first frame (`hello`). Pages of browsers \
                   must have an origin that an app's policy names.")
            .streams("101"),
        Route::new(GET, "/xmpp", Who::Anyone, "Open an XMPP stream (WebSocket, RFC 7395)", client::connect)
            .more("Subprotocol `xmpp`, where `xmpp.listen` or `xmpp.tls_listen` is set.")
            .streams("101"),
        Route::new(GET, "/mqtt", Who::Anyone, "Open an MQTT connection (WebSocket)", client::connect)
            .more("Subprotocol `mqtt`, MQTT 3.1.1 and 5.0 in binary messages, where `mqtt.listen` or `mqtt.tls_listen` is set. Pages of browsers must have \
                   an origin that an app's policy names.")
            .streams("101"),
        Route::new(POST, "/v1/tickets", Who::Device, "Get a ticket for one connection", client::ticket)
            .more("For pages of browsers, which should not keep the device token where scripts of others may find it: the ticket goes into \
                   `hello` as `auth.ticket`, is good once, for a minute, and only while the device is bound to the same user."),
        Route::new(GET, "/v1/stream", Who::Anyone, "Open the live connection (server-sent events)", live::stream)
            .more("`Authorization` with the device token, or `ticket` in the query. Events: `welcome`, `msg` (its `id` is the cursor), `idle`, `gap`, `recall`, \
                   `drain`, `taken`, with the fields of the live connection. Messages are acknowledged by `POST /v1/acks`; with `ack=resume` by coming back with \
                   `Last-Event-ID`.")
            .connects()
            .streams("text/event-stream"),
        Route::new(GET, "/v1/poll", Who::Device, "Fetch messages, and wait for the first", live::poll)
            .connects()
            .more("Long polling; with `wait=0` plain polling. The cursor acknowledges everything up to it. `Prefer: wait=n` is honoured."),
        Route::new(POST, "/v1/acks", Who::Device, "Acknowledge messages without a connection", client::acks),
        Route::new(POST, "/v1/client-events", Who::Device, "Report what the person did with messages", client::events)
            .more("Counts once per message, device and kind."),
    ]
}

fn reports() -> Vec<Route> {
    vec![
        Route::new(GET, "/v1/events", READ, "Follow everything that happens, live", events::tail)
            .more("Server-sent events: `id` is the place in the ledger, `data` an event. A client that comes back with `Last-Event-ID` misses nothing.")
            .streams("text/event-stream"),
        Route::new(GET, "/v1/reports/funnel", READ, "Count events by stage and outcome", reports::funnel),
        Route::new(GET, "/v1/reports/quota", READ, "Say what is left of each credential's daily quota", reports::quota)
            .more("By the vendor's own day. `runs_out_at` is when the limit will be reached if the day goes on as it began."),
        Route::new(GET, "/v1/reports/channels", READ, "Count how each channel did", reports::channels),
    ]
}

fn credentials() -> Vec<Route> {
    vec![
        Route::new(POST, "/v1/callbacks/{app}/{channel}", Who::Anyone, "Take receipts that a vendor posts", callbacks::take)
            .more("The whole address, with its secret, is `callback_url` of the credential. It is taken with the vendor's signature or with that secret; \
                   the answer is what the vendor wants to hear.")
            .body_bytes_max(CALLBACK_BODY_BYTES_MAX)
            .streams("*/*"),
        Route::new(GET, "/v1/credentials", MANAGE, "List all credentials", credentials::list_all),
        Route::new(GET, "/v1/channels/{channel}/credentials", MANAGE, "List a channel's credentials", credentials::list),
        Route::new(PUT, "/v1/channels/{channel}/credentials/{name}", MANAGE, "Store a credential", credentials::put)
            .more("Its secrets are sealed at rest and never returned. Name it `default` unless the app has several."),
        Route::new(GET, "/v1/channels/{channel}/credentials/{name}", MANAGE, "Read what is not secret of a credential", credentials::read),
        Route::new(PATCH, "/v1/channels/{channel}/credentials/{name}", MANAGE, "Change the limits of a credential", credentials::change)
            .more("`config` and `endpoint` are refused (422): they say where the secrets go, so they are given whole, with PUT."),
        Route::new(DELETE, "/v1/channels/{channel}/credentials/{name}", MANAGE, "Delete a credential", credentials::delete)
            .more("One that is in use (pushes wait for its vendor, the app's `channel_order` needs it, or tokens of devices do: those that name it, \
                   and those that name none where it is `default` or the only one) is not deleted unless `force=true` is said: 409 `in_use` tells of what. So \
                   does one of an app with more than 20,000 devices, of which the first 20,000 do not need it: the others are not looked at."),
        Route::new(POST, "/v1/channels/{channel}/credentials/{name}/check", MANAGE, "Prove a credential with its vendor", credentials::check),
        Route::new(POST, "/v1/channels/{channel}/credentials/{name}/broadcasts", MANAGE, "Make a broadcast channel at the vendor", broadcasts::create)
            .more("One push to it reaches every device that follows it. A device with the token `broadcast:<id>` stands for it. `not_available` where the \
                   vendor has none; `vendor_refused` when it allows no more."),
        Route::new(GET, "/v1/channels/{channel}/credentials/{name}/broadcasts", MANAGE, "List the broadcast channels at the vendor", broadcasts::list),
        Route::new(GET, "/v1/channels/{channel}/credentials/{name}/broadcasts/{broadcast}", MANAGE, "Read a broadcast channel", broadcasts::read)
            .more("The id is percent-encoded: those of Apple have `+`, `/` and `=` in them."),
        Route::new(DELETE, "/v1/channels/{channel}/credentials/{name}/broadcasts/{broadcast}", MANAGE, "Delete a broadcast channel", broadcasts::delete)
            .more("For good: pushes to it are refused from now on. The id is percent-encoded."),
    ]
}

fn apps() -> Vec<Route> {
    vec![
        Route::new(POST, "/v1/apps", Who::Admin, "Make an app", apps::create),
        Route::new(GET, "/v1/apps", Who::Admin, "List apps", apps::list),
        Route::new(GET, "/v1/apps/{app}", Who::Admin, "Read an app", apps::read),
        Route::new(
            PATCH,
            "/v1/apps/{app}",
            Who::Admin,
            "Change an app",
            apps::change,
        ),
        Route::new(
            DELETE,
            "/v1/apps/{app}",
            Who::Admin,
            "Delete an app and all that it owns",
            apps::delete,
        ),
        Route::new(
            POST,
            "/v1/apps/{app}/keys",
            Who::Admin,
            "Make a key",
            apps::create_key,
        )
        .more("The secret is shown this once; only its hash is stored."),
        Route::new(
            GET,
            "/v1/apps/{app}/keys",
            Who::Admin,
            "List an app's keys",
            apps::keys,
        ),
        Route::new(
            DELETE,
            "/v1/apps/{app}/keys/{key}",
            Who::Admin,
            "Delete a key; it stops working at once",
            apps::delete_key,
        ),
    ]
}

fn operation() -> Vec<Route> {
    vec![
        Route::new(
            GET,
            "/healthz",
            Who::Anyone,
            "Say that the process is up",
            ops::healthz,
        ),
        Route::new(
            GET,
            "/readyz",
            Who::Anyone,
            "Say whether the node takes traffic",
            ops::readyz,
        ),
        Route::new(
            GET,
            "/metrics",
            Who::Anyone,
            "Metrics in Prometheus text",
            ops::metrics,
        )
        .streams("text/plain"),
        Route::new(
            GET,
            "/openapi.json",
            Who::Anyone,
            "This API as OpenAPI 3.1",
            ops::openapi,
        )
        .streams("application/json"),
        Route::new(GET, "/docs", Who::Anyone, "This API as a page", ops::docs).streams("text/html"),
    ]
}
