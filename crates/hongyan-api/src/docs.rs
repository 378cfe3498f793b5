//! The API as a page for people: made of the OpenAPI document, complete in itself, no script.

use std::fmt::Write as _;
use std::sync::LazyLock;

use serde_json::Value;

use crate::openapi;

static PAGE: LazyLock<String> = LazyLock::new(|| render(openapi::value()));

const STYLE: &str = "
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--accent:#0b7285}
@media (prefers-color-scheme:dark){:root{--accent:#66d9e8}}
*{box-sizing:border-box}
body{font:16px/1.55 system-ui,sans-serif;margin:0;display:grid;grid-template-columns:17rem minmax(0,1fr)}
nav{position:sticky;top:0;height:100vh;overflow:auto;padding:1.5rem 1rem;border-right:1px solid var(--line);font-size:.9rem}
main{padding:1.5rem 2rem;max-width:60rem}
nav a,h2 a{color:inherit;text-decoration:none}nav a:hover{color:var(--accent)}
nav ul{list-style:none;margin:.2rem 0 1rem;padding:0}nav li{padding:.1rem 0}
h1{margin:0 0 .5rem}h2{margin-top:2.5rem;border-bottom:1px solid var(--line)}
article{margin:1.2rem 0;border:1px solid var(--line);border-radius:.5rem;padding:.8rem 1rem}
h3{margin:0;font-size:1rem}code,pre{font:.88em/1.5 ui-monospace,monospace}
h3 b{display:inline-block;min-width:4.2rem;color:var(--accent)}
p{margin:.5rem 0}table{border-collapse:collapse;width:100%;margin:.5rem 0;font-size:.92rem}
td,th{text-align:left;vertical-align:top;padding:.25rem .6rem .25rem 0;border-bottom:1px solid var(--line)}
summary{cursor:pointer;margin:.4rem 0}pre{background:var(--soft);padding:.7rem;border-radius:.4rem;overflow:auto}
.type{opacity:.75}@media(max-width:50rem){body{display:block}nav{position:static;height:auto;border:0}main{padding:1rem}}
";

const EXAMPLE: &str = r#"curl http://127.0.0.1:7400/v1/messages \
  -H "Authorization: Bearer $HONGYAN_SERVER_KEY" -H "Content-Type: application/json" \
  -d '{"to": {"user": "u1"}, "class": "im",
       "notification": {"title": "Lin", "body": "See you at eight?", "click": {"url": "app://chat/42"}}}'"#;

/// The page.
pub(crate) fn page() -> &'static str {
    &PAGE
}

fn render(api: &Value) -> String {
    let mut nav = String::new();
    let mut main = String::new();
    for section in array(&api["tags"]).iter().map(|tag| text(&tag["name"])) {
        let _ = write!(
            nav,
            "<a href=\"#{0}\"><b>{1}</b></a><ul>",
            anchor(section),
            escape(section)
        );
        let _ = write!(
            main,
            "<h2 id=\"{}\">{}</h2>",
            anchor(section),
            escape(section)
        );
        for (path, methods) in object(&api["paths"]) {
            for (method, operation) in object(methods) {
                if text(&operation["tags"][0]) == section {
                    let id = text(&operation["operationId"]);
                    let _ = write!(
                        nav,
                        "<li><a href=\"#{id}\">{}</a></li>",
                        escape(text(&operation["summary"]))
                    );
                    article(&mut main, api, path, method, operation);
                }
            }
        }
        nav.push_str("</ul>");
    }
    let mut out = String::with_capacity(main.len() + nav.len() + STYLE.len() + 8192);
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"referrer\" content=\"no-referrer\"><title>hongyan API</title><style>{STYLE}</style></head><body><nav>{nav}\
         <a href=\"#keys\"><b>Keys</b></a><br><a href=\"#problems\"><b>Problems</b></a></nav><main>\
         <h1>hongyan API <span class=\"type\">{}</span></h1><p>{}</p><p>For programs: <a href=\"/openapi.json\">/openapi.json</a> (OpenAPI 3.1).</p>\
         <pre>{}</pre>{main}",
        escape(text(&api["info"]["version"])),
        prose(text(&api["info"]["description"])),
        escape(EXAMPLE),
    );
    out.push_str("<h2 id=\"keys\">Keys</h2><p>Every call but those that need no key carries <code>Authorization: Bearer …</code>.</p><table>");
    for (name, scheme) in object(&api["components"]["securitySchemes"]) {
        let _ = write!(
            out,
            "<tr><th>{}</th><td>{}</td></tr>",
            escape(name),
            prose(text(&scheme["description"]))
        );
    }
    out.push_str(
        "</table><h2 id=\"problems\">Problems</h2><p>Decide by <code>code</code> (or status), never by text. 429 and 503 carry <code>Retry-After</code> \
         in seconds.</p><table><tr><th>code</th><th>status</th><th></th></tr>",
    );
    for code in array(&api["x-problem-codes"]) {
        let word = text(&code["code"]);
        let _ = write!(
            out,
            "<tr id=\"{word}\"><td><code>{word}</code></td><td>{}</td><td>{}</td></tr>",
            code["status"],
            escape(text(&code["title"]))
        );
    }
    out.push_str("</table></main></body></html>");
    out
}

fn article(out: &mut String, api: &Value, path: &str, method: &str, operation: &Value) {
    let _ = write!(
        out,
        "<article id=\"{}\"><h3><b>{}</b> <code>{}</code></h3><p><strong>{}</strong></p>",
        text(&operation["operationId"]),
        method.to_uppercase(),
        escape(path),
        escape(text(&operation["summary"])),
    );
    for paragraph in text(&operation["description"]).split("\n\n") {
        let _ = write!(out, "<p>{}</p>", prose(paragraph));
    }
    let parameters: Vec<&Value> = array(&operation["parameters"])
        .iter()
        .filter(|p| p["in"] != "path")
        .collect();
    if !parameters.is_empty() {
        out.push_str("<table>");
        for p in parameters {
            let _ = write!(
                out,
                "<tr><td><code>{}</code> <span class=\"type\">{}</span></td><td>{}</td></tr>",
                escape(text(&p["name"])),
                escape(text(&p["in"])),
                prose(text(&p["description"])),
            );
        }
        out.push_str("</table>");
    }
    for (content_type, content) in object(&operation["requestBody"]["content"]) {
        let limit = text(&operation["requestBody"]["description"]);
        let _ = write!(
            out,
            "<details><summary>Body: <code>{}</code> <span class=\"type\">{}</span></summary>",
            escape(content_type),
            escape(limit)
        );
        fields(out, api, &content["schema"], 0);
        out.push_str("</details>");
    }
    for (status, response) in object(&operation["responses"]) {
        if status == "default" {
            continue;
        }
        let content = object(&response["content"]).next();
        let Some((content_type, content)) = content else {
            let _ = write!(
                out,
                "<p>Answer: {status}. {}</p>",
                escape(text(&response["description"]))
            );
            continue;
        };
        let _ = write!(
            out,
            "<details><summary>Answer: {status} <code>{}</code></summary>",
            escape(content_type)
        );
        fields(out, api, &content["schema"], 0);
        out.push_str("</details>");
    }
    out.push_str("</article>");
}

/// Objects inside objects that are still spelled out.
const DEPTH_MAX: usize = 4;

fn fields(out: &mut String, api: &Value, schema: &Value, depth: usize) {
    let schema = follow(api, schema);
    let properties: Vec<_> = object(&schema["properties"]).collect();
    if properties.is_empty() || depth >= DEPTH_MAX {
        let _ = write!(out, "<p class=\"type\">{}</p>", escape(&kind(api, schema)));
        return;
    }
    let required = array(&schema["required"]);
    out.push_str("<table>");
    for (name, field) in properties {
        let must = if required.iter().any(|r| r == name) {
            ", required"
        } else {
            ""
        };
        let _ = write!(
            out,
            "<tr><td><code>{}</code><br><span class=\"type\">{}{must}</span></td><td>{}",
            escape(name),
            escape(&kind(api, field)),
            prose(description(api, field)),
        );
        let inner = inner(api, field);
        if object(&inner["properties"]).next().is_some() && depth + 1 < DEPTH_MAX {
            fields(out, api, inner, depth + 1);
        }
        out.push_str("</td></tr>");
    }
    out.push_str("</table>");
}

fn description<'a>(api: &'a Value, field: &'a Value) -> &'a str {
    let own = text(&field["description"]);
    if own.is_empty() {
        text(&follow(api, field)["description"])
    } else {
        own
    }
}

/// The object that a field holds: itself, or one of a list.
fn inner<'a>(api: &'a Value, field: &'a Value) -> &'a Value {
    let schema = follow(api, field);
    if schema["items"].is_object() {
        follow(api, &schema["items"])
    } else {
        schema
    }
}

/// The schema behind a reference, or behind "this or null".
fn follow<'a>(api: &'a Value, schema: &'a Value) -> &'a Value {
    let mut schema = schema;
    for _ in 0..8 {
        if let Some(name) = text(&schema["$ref"]).strip_prefix("#/components/schemas/") {
            schema = &api["components"]["schemas"][name];
        } else if let Some(one) = array(&schema["anyOf"])
            .iter()
            .find(|one| one["type"] != "null")
        {
            schema = one;
        } else {
            break;
        }
    }
    schema
}

fn kind(api: &Value, schema: &Value) -> String {
    let schema = follow(api, schema);
    let words: Vec<&str> = array(&schema["enum"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    if !words.is_empty() {
        return if words.len() > 20 {
            "one of the closed list".to_owned()
        } else {
            words.join(" | ")
        };
    }
    let mut base = match &schema["type"] {
        Value::String(one) => one.clone(),
        Value::Array(many) => many
            .iter()
            .filter_map(Value::as_str)
            .filter(|t| *t != "null")
            .collect::<Vec<_>>()
            .join(" or "),
        _ => "any".to_owned(),
    };
    if base == "array" {
        base = format!("list of {}", kind(api, &schema["items"]));
    }
    for (key, words) in [
        ("maxLength", "at most"),
        ("maximum", "at most"),
        ("maxItems", "at most"),
    ] {
        if let Some(max) = schema[key].as_u64() {
            let _ = write!(base, ", {words} {max}");
        }
    }
    if let Some(format) = schema["format"]
        .as_str()
        .filter(|f| *f == "date-time" || *f == "uuid")
    {
        let _ = write!(base, ", {format}");
    }
    base
}

fn anchor(name: &str) -> String {
    name.to_lowercase().replace(' ', "-")
}

/// Escaped text with `code` marked.
fn prose(text: &str) -> String {
    let mut out = String::new();
    for (i, part) in escape(text).split('`').enumerate() {
        match i % 2 {
            0 => out.push_str(part),
            _ => {
                let _ = write!(out, "<code>{part}</code>");
            }
        }
    }
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}
