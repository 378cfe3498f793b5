//! Where the description says object, a list is refused with its path: at every place of every body.

use http::Method;
use serde_json::{Map, Value, json};

use crate::world::{World, world};

/// How deep descriptions are followed: deeper than any is.
const DEPTH_MAX: usize = 8;

/// A place in a body: the steps to it.
#[derive(Debug, Clone)]
enum Step {
    Field(String),
    Item,
}

/// What stands behind a reference.
fn resolved(schema: &Value) -> Value {
    match schema["$ref"].as_str() {
        Some(to) => hongyan_api::openapi::value()
            .pointer(to.trim_start_matches('#'))
            .unwrap()
            .clone(),
        None => schema.clone(),
    }
}

fn says(schema: &Value, what: &str) -> bool {
    let kinds = &schema["type"];
    kinds == what
        || kinds
            .as_array()
            .is_some_and(|all| all.contains(&json!(what)))
}

/// Every place below `at` where an object is expected.
fn objects(schema: &Value, at: &[Step], out: &mut Vec<Vec<Step>>) {
    let schema = resolved(schema);
    if at.len() > DEPTH_MAX {
        return;
    }
    for one_of in ["anyOf", "oneOf", "allOf"] {
        for part in schema[one_of].as_array().into_iter().flatten() {
            objects(part, at, out);
        }
    }
    let step = |step: Step| [at, &[step]].concat();
    if says(&schema, "array") {
        objects(&schema["items"], &step(Step::Item), out);
    }
    if !says(&schema, "object") {
        return;
    }
    out.push(at.to_vec());
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        objects(field, &step(Step::Field(name.clone())), out);
    }
    if schema["additionalProperties"].is_object() {
        // A key that is a channel as well.
        let key = Step::Field("apns".to_owned());
        objects(&schema["additionalProperties"], &step(key), out);
    }
}

/// A body with a list at the place and nothing beside the way to it.
fn with_a_list(steps: &[Step]) -> Value {
    match steps {
        [] => json!([]),
        [Step::Item, rest @ ..] => json!([with_a_list(rest)]),
        [Step::Field(name), rest @ ..] => {
            Value::Object(Map::from_iter([(name.clone(), with_a_list(rest))]))
        }
    }
}

fn path_of(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Item => path.push_str("[0]"),
            Step::Field(name) if path.is_empty() => path.push_str(name),
            Step::Field(name) => {
                path.push('.');
                path.push_str(name);
            }
        }
    }
    if path.is_empty() {
        "body".to_owned()
    } else {
        path
    }
}

/// A key that may call it.
fn key<'a>(w: &'a World, device: &'a str, operation: &Value) -> &'a str {
    let may = |who: &str| {
        let all = operation["security"].as_array().into_iter().flatten();
        all.clone().any(|one| one.get(who).is_some())
    };
    match () {
        () if may("server") => &w.server,
        () if may("admin") => &w.admin,
        () => device,
    }
}

#[tokio::test]
async fn a_list_in_place_of_an_object_is_refused_everywhere() {
    let w = world().await;
    let device = w.register("d1").await;
    let mut places = 0;
    for (path, methods) in hongyan_api::openapi::value()["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let content = &operation["requestBody"]["content"];
            let Some(schema) = content.get("application/json").map(|c| &c["schema"]) else {
                continue;
            };
            let mut found = Vec::new();
            objects(schema, &[], &mut found);
            let real = path.replace("{device}", "d1").replace("{app}", "demo");
            let real = real.replace("{channel}", "apns").replace(['{', '}'], "");
            for steps in found {
                let (body, want) = (with_a_list(&steps), path_of(&steps));
                let method: Method = method.to_uppercase().parse().unwrap();
                let key = key(&w, &device, operation);
                let answer = w.call(method, &real, key, body.clone()).await;
                let said = answer.json();
                // Each message of a batch is answered for itself.
                let (problem, want) = match want.strip_prefix("messages[0]") {
                    Some(rest) if path == "/v1/messages/batch" => {
                        let rest = rest.trim_start_matches('.');
                        let want = if rest.is_empty() { "body" } else { rest };
                        (&said["results"][0]["error"], want.to_owned())
                    }
                    _ => (&said, want),
                };
                let status = problem["status"].as_u64();
                assert!(
                    matches!(status, Some(400 | 422)),
                    "{path} {body} was answered {said}"
                );
                let faults = problem["errors"].as_array().unwrap();
                assert!(
                    faults.iter().any(|f| {
                        let words = f["problem"].as_str().unwrap_or_default();
                        f["path"] == want && words == "this is a list, expected an object"
                    }),
                    "{path} {body}: {want} is not in {problem}"
                );
                places += 1;
            }
        }
    }
    assert!(places > 40, "{places} places were found");
}
