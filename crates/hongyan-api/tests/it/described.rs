//! Holds every answer that a test gets against the description of the API.

use http::Method;
use serde_json::Value;

use crate::http_client::Answer;

/// Panics when the answer is not what the document promises for this address.
pub(crate) fn as_described(method: &Method, path: &str, answer: &Answer) {
    let api = hongyan_api::openapi::value();
    let path = path.split('?').next().unwrap_or_default();
    let methods = api["paths"].as_object().unwrap();
    let method = method.as_str().to_ascii_lowercase();
    // Fixed words win over parameters.
    let found = methods
        .iter()
        .filter(|(template, methods)| methods[&method].is_object() && fits(template, path))
        .min_by_key(|(template, _)| template.matches('{').count());
    let Some((template, methods)) = found else {
        return;
    };
    let responses = methods[&method]["responses"].as_object().unwrap();
    let status = answer.status.as_u16().to_string();
    let response = responses.get(&status).unwrap_or(&responses["default"]);
    let content_type = answer.header("content-type");
    let content_type = content_type.split(';').next().unwrap_or_default();
    let content = &response["content"][content_type]["schema"];
    if !content_type.ends_with("json") || content.is_null() {
        return;
    }
    let documents = match content_type {
        "application/x-ndjson" => String::from_utf8_lossy(&answer.body)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
        _ => vec![answer.json()],
    };
    for document in documents {
        let mut faults = Vec::new();
        check("", &document, content, &mut faults);
        assert!(
            faults.is_empty(),
            "{method} {template} {status} is not as described: {faults:?}\n{document}"
        );
    }
}

fn fits(template: &str, path: &str) -> bool {
    let (wanted, given) = (template.split('/'), path.split('/'));
    wanted.clone().count() == given.clone().count()
        && wanted
            .zip(given)
            .all(|(wanted, given)| wanted.starts_with('{') || wanted == given)
}

/// The part of JSON Schema that the document uses for answers.
fn check(at: &str, value: &Value, schema: &Value, faults: &mut Vec<String>) {
    let Some(schema) = schema.as_object() else {
        return;
    };
    if let Some(to) = schema.get("$ref").and_then(Value::as_str) {
        let target = hongyan_api::openapi::value().pointer(to.trim_start_matches('#'));
        check(at, value, target.unwrap(), faults);
    }
    if let Some(types) = schema.get("type") {
        let is = |name: &Value| match name.as_str().unwrap() {
            "null" => value.is_null(),
            "boolean" => value.is_boolean(),
            "string" => value.is_string(),
            "number" => value.is_number(),
            "integer" => value.is_u64() || value.is_i64(),
            "array" => value.is_array(),
            _ => value.is_object(),
        };
        let fits = match types {
            Value::Array(names) => names.iter().any(is),
            name => is(name),
        };
        if !fits {
            faults.push(format!("{at}: {value} is not {types}"));
        }
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array)
        && !words.contains(value)
    {
        faults.push(format!("{at}: {value} is not one of {words:?}"));
    }
    if let Some(ways) = schema.get("anyOf").and_then(Value::as_array) {
        let fits = ways.iter().any(|way| {
            let mut faults = Vec::new();
            check(at, value, way, &mut faults);
            faults.is_empty()
        });
        if !fits {
            faults.push(format!("{at}: {value} is none of {ways:?}"));
        }
    }
    if let (Some(items), Some(item)) = (value.as_array(), schema.get("items")) {
        for (i, one) in items.iter().enumerate() {
            check(&format!("{at}[{i}]"), one, item, faults);
        }
    }
    let Some(fields) = value.as_object() else {
        return;
    };
    for name in schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        if !fields.contains_key(name.as_str().unwrap()) {
            faults.push(format!("{at}: {name} is missing"));
        }
    }
    let known = schema.get("properties").and_then(Value::as_object);
    for (name, field) in fields {
        let at = format!("{at}.{name}");
        match (
            known.and_then(|known| known.get(name)),
            schema.get("additionalProperties"),
        ) {
            (Some(schema), _) | (None, Some(schema @ Value::Object(_))) => {
                check(&at, field, schema, faults);
            }
            // Answers say nothing that the document does not know.
            (None, _) if known.is_some() => faults.push(format!("{at} is not described")),
            (None, _) => {}
        }
    }
}
