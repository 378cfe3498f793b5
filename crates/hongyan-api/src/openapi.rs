//! The OpenAPI 3.1 document, made of the table of routes and the types of their handlers.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use http::Method;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use hongyan_core::app::Scope;

use crate::auth::{Who, scope_word};
use crate::problem::Code;
use crate::route::Route;
use crate::table;

/// Where the document keeps its types.
const SCHEMAS: &str = "/components/schemas";

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| document(&table::routes()));
static TEXT: LazyLock<String> =
    LazyLock::new(|| serde_json::to_string_pretty(&*DOCUMENT).unwrap_or_default());

/// The document.
#[must_use]
pub fn value() -> &'static Value {
    &DOCUMENT
}

/// The document as it is served.
#[must_use]
pub fn text() -> &'static str {
    &TEXT
}

fn document(routes: &[Route]) -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = SCHEMAS.into();
    settings.meta_schema = None;
    // What may be left out of a request is in every answer, and the other way round.
    let mut generator = settings.clone().into_generator();
    let mut replies = settings.for_serialize().into_generator();
    let problem = replies.subschema_for::<crate::problem::Document>();
    let import_line = replies.subschema_for::<crate::wire::device::ImportLine>();
    let event = replies.subschema_for::<crate::wire::event::Event>();
    let mut paths: Map<String, Value> = Map::new();
    let mut sections: Vec<&'static str> = Vec::new();
    for route in routes {
        if !sections.contains(&route.section) {
            sections.push(route.section);
        }
        let mut operation = json!({
            "operationId": operation_id(route),
            "tags": [route.section],
            "summary": route.summary,
            "description": description(route),
            "parameters": parameters(route, &mut generator),
            "security": security(route.who),
        });
        if let Some((content_type, schema)) = (route.body)(&mut generator) {
            operation["requestBody"] = json!({
                "required": true,
                "description": format!("At most {} bytes.", route.body_bytes_max),
                "content": {content_type: {"schema": schema}},
            });
        }
        let (status, schema) = (route.reply)(&mut replies);
        let done = match (route.streams, schema) {
            (Some("101"), _) => (
                "101".to_owned(),
                json!({"description": "The connection is open."}),
            ),
            (Some(content_type), _) => {
                let schema = match content_type {
                    "application/x-ndjson" => json!(import_line),
                    "text/event-stream" => {
                        json!({"type": "string", "description": "`data` of each event:", "contentSchema": event})
                    }
                    "application/json" => json!({"type": "object"}),
                    _ => json!({"type": "string"}),
                };
                (
                    status.to_string(),
                    json!({"description": "Done.", "content": {content_type: {"schema": schema}}}),
                )
            }
            (None, Some(schema)) => (
                status.to_string(),
                json!({"description": "Done.", "content": {"application/json": {"schema": schema}}}),
            ),
            (None, None) => (
                status.to_string(),
                json!({"description": "Done; there is no body."}),
            ),
        };
        operation["responses"] = json!({
            done.0: done.1,
            "default": {
                "description": "It was not done; `code` says why.",
                "content": {"application/problem+json": {"schema": problem}},
            },
        });
        if let Some(words) = route.or_nothing {
            operation["responses"]["204"] = json!({ "description": words });
        }
        let path = paths
            .entry(route.path.to_owned())
            .or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation;
    }
    let mut schemas = generator.take_definitions(true);
    let of_replies = replies.take_definitions(true);
    let renamed = different(&schemas, &of_replies);
    for (name, mut schema) in of_replies {
        rename(&mut schema, &renamed);
        let name = renamed.get(&name).cloned().unwrap_or(name);
        schemas.insert(name, schema);
    }
    for operation in paths.values_mut().filter_map(Value::as_object_mut) {
        for one in operation.values_mut() {
            rename(&mut one["responses"], &renamed);
        }
    }
    let mut schemas = Value::Object(schemas);
    without_null_defaults(&mut schemas);
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "hongyan",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "One server that gets a message to a person: over the app's own connection while it is alive, through the phone vendor's \
                            channel when it is not. Errors are RFC 9457 problem documents with a stable `code`.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": sections.iter().map(|name| json!({"name": name})).collect::<Vec<_>>(),
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {
            "admin": bearer("Admin key `hy_admin_…`: everything. For an app's addresses, name the app in the header `Hongyan-App`."),
            "server": bearer("Server key `hy_sk_…`: one app, by scopes `send`, `read` and `manage`."),
            "client": bearer("Client key `hy_pk_…`: public; may only register devices."),
            "device": bearer("Device token `hy_dt_…`, given at registration: acts as that device."),
        }},
        "x-problem-codes": Code::ALL.iter().map(|code| json!({
            "code": code.as_str(), "status": code.status().as_u16(), "title": code.title(),
        })).collect::<Vec<_>>(),
    })
}

/// Types that requests and replies share, and that are not the same in both: the name that each has in replies.
fn different(
    requests: &Map<String, Value>,
    replies: &Map<String, Value>,
) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    loop {
        let before = found.len();
        for (name, schema) in replies {
            let Some(other) = requests.get(name) else {
                continue;
            };
            let mut own = schema.clone();
            rename(&mut own, &found);
            if own != *other && !found.contains_key(name) {
                let mut new = format!("{name}Reply");
                while requests.contains_key(&new) || replies.contains_key(&new) {
                    new.push('_');
                }
                found.insert(name.clone(), new);
            }
        }
        // What refers to a type that differs, differs.
        if found.len() == before {
            return found;
        }
    }
}

/// Points references to the new names.
fn rename(schema: &mut Value, names: &BTreeMap<String, String>) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                let new = (key == "$ref").then(|| value.as_str()).flatten();
                let new = new.and_then(|to| to.strip_prefix('#')?.strip_prefix(SCHEMAS));
                match new.and_then(|name| names.get(name.trim_start_matches('/'))) {
                    Some(new) => *value = format!("#{SCHEMAS}/{new}").into(),
                    None => rename(value, names),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, names)),
        _ => {}
    }
}

/// "Absent means null" is said by every field that is not required; saying it again is noise.
fn without_null_defaults(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("default") == Some(&Value::Null) {
                fields.remove("default");
            }
            fields.values_mut().for_each(without_null_defaults);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null_defaults),
        _ => {}
    }
}

fn bearer(description: &str) -> Value {
    json!({"type": "http", "scheme": "bearer", "description": description})
}

fn operation_id(route: &Route) -> String {
    let path: Vec<String> = route
        .path
        .trim_start_matches("/v1")
        .split('/')
        .filter(|part| !part.is_empty())
        .map(|part| part.replace(['{', '}'], "").replace(['-', '.'], "_"))
        .collect();
    format!(
        "{}_{}",
        route.method.as_str().to_ascii_lowercase(),
        path.join("_")
    )
}

/// Who may call, in words; and more, when there is more to say.
pub(crate) fn description(route: &Route) -> String {
    let who = caller(route.who);
    if route.more.is_empty() {
        who
    } else {
        format!("{}\n\n{who}", route.more)
    }
}

pub(crate) fn caller(who: Who) -> String {
    match who {
        Who::Anyone => "Needs no key.".to_owned(),
        Who::Admin => "Needs the admin key.".to_owned(),
        Who::Server(scope) => format!("Needs a server key with the scope `{}`.", scope_word(scope)),
        Who::Registrar => {
            format!(
                "Needs a client key, a server key with the scope `{}`, or the device's token.",
                scope_word(Scope::Manage)
            )
        }
        Who::DeviceOr(scope) => format!(
            "Needs the device's own token, or a server key with the scope `{}`.",
            scope_word(scope)
        ),
        Who::Device => "Needs a device token.".to_owned(),
        Who::Itself => "Needs the device token of the device.".to_owned(),
    }
}

fn security(who: Who) -> Value {
    let names: &[&str] = match who {
        Who::Anyone => return json!([]),
        Who::Admin => &["admin"],
        Who::Server(_) => &["server", "admin"],
        Who::Registrar => &["client", "server", "device", "admin"],
        Who::DeviceOr(_) => &["device", "server", "admin"],
        Who::Device | Who::Itself => &["device"],
    };
    names.iter().map(|name| json!({*name: []})).collect()
}

fn parameters(route: &Route, generator: &mut schemars::SchemaGenerator) -> Vec<Value> {
    let mut all: Vec<Value> = route
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    if let Some(schema) = (route.query)(generator) {
        let required = schema
            .get("required")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let fields = schema
            .get("properties")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        for (name, mut schema) in fields {
            without_null_defaults(&mut schema);
            let description = schema
                .as_object_mut()
                .and_then(|s| s.remove("description"))
                .unwrap_or_default();
            all.push(json!({
                "name": name, "in": "query", "required": required.contains(&json!(name)),
                "description": description, "schema": schema,
            }));
        }
    }
    if route.method == Method::POST && matches!(route.path, "/v1/messages" | "/v1/messages/batch") {
        all.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "The same key with the same body gets the same answer for 24 hours.",
            "schema": {"type": "string", "minLength": 1, "maxLength": hongyan_core::limits::IDEMPOTENCY_KEY_BYTES_MAX},
        }));
    }
    if route.path == "/v1/events" {
        all.push(json!({
            "name": "Last-Event-ID", "in": "header", "required": false,
            "description": "The `id` of the last event that was received.", "schema": {"type": "string"},
        }));
    }
    all
}
