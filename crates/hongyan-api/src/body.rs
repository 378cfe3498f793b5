//! Reading requests: sizes, types and paths of faults.

use std::any::TypeId;
use std::future::Future;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::{HeaderMap, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;

use crate::objects::Objects;
use crate::options::{DRAIN_BYTES_MAX, DRAIN_TIME};
use crate::problem::{Code, Problem};

/// A JSON body that was read.
#[derive(Debug)]
pub(crate) struct Json<T> {
    /// What it says.
    pub(crate) value: T,
    /// Its bytes, for hashing.
    pub(crate) bytes: Bytes,
}

/// A body that the handler reads itself, piece by piece.
#[derive(Debug)]
pub(crate) struct Ndjson(pub(crate) Body);

/// How a body is read and documented.
pub(crate) trait FromBody: Sized + Send + 'static {
    /// Reads it.
    fn read(
        headers: &HeaderMap,
        body: Body,
        bytes_max: usize,
        time: Duration,
    ) -> impl Future<Output = Result<Self, Problem>> + Send;

    /// Its content type and schema; nothing when there is no body.
    fn document(generator: &mut SchemaGenerator) -> Option<(&'static str, Schema)>;
}

impl FromBody for () {
    async fn read(_: &HeaderMap, _: Body, _: usize, _: Duration) -> Result<Self, Problem> {
        Ok(())
    }

    fn document(_: &mut SchemaGenerator) -> Option<(&'static str, Schema)> {
        None
    }
}

impl<T: DeserializeOwned + JsonSchema + Send + 'static> FromBody for Json<T> {
    async fn read(
        headers: &HeaderMap,
        body: Body,
        bytes_max: usize,
        time: Duration,
    ) -> Result<Self, Problem> {
        not_coded(headers)?;
        content_type(
            headers,
            &["application/json", "application/merge-patch+json"],
        )?;
        let bytes = collect(headers, body, bytes_max, time).await?;
        let value = parse(&bytes)?;
        Ok(Self { value, bytes })
    }

    fn document(generator: &mut SchemaGenerator) -> Option<(&'static str, Schema)> {
        Some(("application/json", generator.subschema_for::<T>()))
    }
}

impl FromBody for Ndjson {
    async fn read(headers: &HeaderMap, body: Body, _: usize, _: Duration) -> Result<Self, Problem> {
        not_coded(headers)?;
        content_type(
            headers,
            &[
                "application/x-ndjson",
                "application/jsonl",
                "application/json-seq",
            ],
        )?;
        Ok(Self(body))
    }

    fn document(generator: &mut SchemaGenerator) -> Option<(&'static str, Schema)> {
        Some((
            "application/x-ndjson",
            generator.subschema_for::<crate::wire::device::ImportLine>(),
        ))
    }
}

impl FromBody for Bytes {
    async fn read(
        headers: &HeaderMap,
        body: Body,
        bytes_max: usize,
        time: Duration,
    ) -> Result<Self, Problem> {
        collect(headers, body, bytes_max, time).await
    }

    fn document(_: &mut SchemaGenerator) -> Option<(&'static str, Schema)> {
        Some(("*/*", schemars::json_schema!({"type": "string"})))
    }
}

/// How a query is read and documented.
pub(crate) trait FromQuery: Sized + Send + 'static {
    /// Reads it.
    fn read(uri: &Uri) -> Result<Self, Problem>;
    /// Its schema: an object whose fields are the parameters.
    fn document(generator: &mut SchemaGenerator) -> Option<Schema>;
}

impl<T: DeserializeOwned + JsonSchema + Send + 'static> FromQuery for T {
    fn read(uri: &Uri) -> Result<Self, Problem> {
        if TypeId::of::<T>() == TypeId::of::<()>() {
            // Nothing is asked for, so nothing is looked at.
            return serde_json::from_value(serde_json::Value::Null)
                .map_err(|e| Problem::new(Code::Internal, e.to_string()));
        }
        Query::<T>::try_from_uri(uri)
            .map(|Query(query)| query)
            .map_err(|e| in_query(&e))
    }

    fn document(_: &mut SchemaGenerator) -> Option<Schema> {
        if TypeId::of::<T>() == TypeId::of::<()>() {
            return None;
        }
        // Inline, because parameters are listed one by one.
        let mut settings = schemars::generate::SchemaSettings::draft2020_12();
        settings.inline_subschemas = true;
        settings.meta_schema = None;
        Some(settings.into_generator().into_root_schema_for::<T>())
    }
}

/// A query that cannot be read: its parameter has a path, as the fields of a body have.
fn in_query(error: &QueryRejection) -> Problem {
    // What is said of it is: …: parameter: what is wrong.
    let words =
        std::error::Error::source(error).map_or_else(|| error.body_text(), ToString::to_string);
    let named = |word: &str| {
        let rest = words.split_once(word).map(|(_, rest)| rest)?;
        rest.split_once('`').map(|(name, _)| name.to_owned())
    };
    for word in ["missing field `", "unknown field `", "duplicate field `"] {
        if let Some(name) = named(word) {
            let path = format!("query.{name}");
            let at = words.find(word).unwrap_or_default();
            return Problem::at(Code::InvalidRequest, path, in_plain_words(&words[at..]));
        }
    }
    match words.split_once(": ") {
        Some((name, rest)) if name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') => {
            let words = match rest {
                "invalid digit found in string" => "must be a whole number".to_owned(),
                rest => in_plain_words(rest),
            };
            Problem::at(Code::InvalidRequest, format!("query.{name}"), words)
        }
        _ => Problem::at(Code::InvalidRequest, "query", words),
    }
}

/// Reads JSON strictly; faults name their path.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        Problem::new(
            Code::BadUtf8,
            format!(
                "byte {} is not valid UTF-8; send JSON in UTF-8",
                e.valid_up_to()
            ),
        )
    })?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(Objects(&mut deserializer)).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.inner();
        // Well-formed JSON that cannot be read all the same (a list for a word, a number out of range) has a place too.
        if inner.is_data() || serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
            let path = if path == "." { String::new() } else { path };
            let path = match with_missing(path, &inner.to_string()) {
                // All of it is something else than what is read here.
                path if path.is_empty() => "body".to_owned(),
                path => path,
            };
            let words = in_plain_words(&without_place(&inner.to_string()));
            Problem::at(Code::InvalidRequest, path, words)
        } else {
            Problem::new(Code::BadJson, inner.to_string())
        }
    })?;
    deserializer
        .end()
        .map_err(|error| Problem::new(Code::BadJson, error.to_string()))?;
    Ok(value)
}

/// A field that is missing has a place too: where it should be.
fn with_missing(path: String, text: &str) -> String {
    let missing = text
        .strip_prefix("missing field `")
        .and_then(|rest| rest.split_once('`'));
    match missing {
        Some((field, _)) if path.is_empty() => field.to_owned(),
        Some((field, _)) => format!("{path}.{field}"),
        None => path,
    }
}

/// The path says where better than line and column.
fn without_place(text: &str) -> String {
    match text.rfind(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text.to_owned(),
    }
}

/// The reader's own words, such as `invalid type: map, expected u32`, are for programmers.
fn in_plain_words(text: &str) -> String {
    if text.starts_with("missing field `") {
        return "is missing".to_owned();
    }
    if text.starts_with("duplicate field `") {
        return "is named twice".to_owned();
    }
    if text.starts_with("unknown field `") {
        return match text.split_once(", expected ") {
            Some((_, known)) => format!("is not known here; expected {}", listed(known)),
            None => "is not known here".to_owned(),
        };
    }
    if let Some(rest) = text.strip_prefix("unknown variant `")
        && let Some((got, wanted)) = rest.split_once("`, expected ")
    {
        return format!("must be {}, not {got}", listed(wanted));
    }
    let unfit = ["invalid type: ", "invalid value: "];
    let Some((got, wanted)) = unfit
        .iter()
        .find_map(|start| text.strip_prefix(start))
        .and_then(|rest| rest.rsplit_once(", expected "))
    else {
        return text.to_owned();
    };
    format!("this is {}, expected {}", found(got), want(wanted))
}

/// `` one of `a`, `b` `` without its marks.
fn listed(names: &str) -> String {
    names.replace('`', "")
}

fn found(got: &str) -> String {
    let inner = |start: &str| got.strip_prefix(start).and_then(|r| r.strip_suffix('`'));
    match got {
        "sequence" => return "a list".to_owned(),
        "map" => return "an object".to_owned(),
        "unit value" => return "null".to_owned(),
        _ => {}
    }
    if let Some(number) = inner("integer `").or_else(|| inner("floating point `")) {
        return format!("the number {number}");
    }
    if let Some(word) = inner("boolean `") {
        return word.to_owned();
    }
    match got.strip_prefix("string ") {
        Some(text) => format!("the text {text}"),
        None => got.to_owned(),
    }
}

fn want(wanted: &str) -> String {
    let objects = [
        "struct ",
        "a map",
        "internally tagged enum ",
        "adjacently tagged enum ",
    ];
    if objects.iter().any(|name| wanted.starts_with(name)) {
        return "an object".to_owned();
    }
    let whole = |max: u64| format!("a whole number from 0 to {max}");
    match wanted {
        "a sequence" => "a list".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" => "a text".to_owned(),
        "u8" => whole(u8::MAX.into()),
        "u16" => whole(u16::MAX.into()),
        "u32" => whole(u32::MAX.into()),
        "u64" | "usize" => whole(u64::MAX),
        "i32" | "i64" => "a whole number".to_owned(),
        other => other.to_owned(),
    }
}

fn content_type(headers: &HeaderMap, taken: &[&'static str]) -> Result<(), Problem> {
    let given = headers
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if taken.iter().any(|one| essence.eq_ignore_ascii_case(one)) {
        return Ok(());
    }
    Err(Problem::new(
        Code::UnsupportedMediaType,
        format!(
            "send Content-Type: {}",
            taken.first().copied().unwrap_or_default()
        ),
    ))
}

/// Bodies are read as they are.
fn not_coded(headers: &HeaderMap) -> Result<(), Problem> {
    let identity = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().all(identity) {
        return Ok(());
    }
    Err(Problem::new(
        Code::UnsupportedMediaType,
        "send the body without Content-Encoding: compressed bodies are not read",
    )
    .header(
        http::header::ACCEPT_ENCODING,
        http::HeaderValue::from_static("identity"),
    ))
}

/// Reads a body of at most so many bytes, in at most so much time.
pub(crate) async fn collect(
    headers: &HeaderMap,
    mut body: Body,
    bytes_max: usize,
    time: Duration,
) -> Result<Bytes, Problem> {
    let too_large = || {
        Problem::new(
            Code::PayloadTooLarge,
            format!("at most {bytes_max} bytes are taken here"),
        )
    };
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<u64>().ok());
    if declared.is_some_and(|len| usize::try_from(len).is_ok_and(|len| len > bytes_max)) {
        drain(headers, &mut body).await;
        return Err(too_large());
    }
    let read = Limited::new(&mut body, bytes_max).collect();
    match tokio::time::timeout(time, read).await {
        Err(_) => Err(Problem::new(
            Code::RequestTimeout,
            format!("the body did not arrive within {} s", time.as_secs()),
        )),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            drain(headers, &mut body).await;
            Err(too_large())
        }
        Ok(Err(_)) => Err(Problem::new(Code::BadJson, "the body ended early")),
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
    }
}

/// Reads and forgets what is still coming, within bounds. Many clients write all of a body before they read, and a
/// connection that is closed under them shows them a broken pipe instead of the answer.
async fn drain(headers: &HeaderMap, body: &mut Body) {
    if headers.contains_key(EXPECT) {
        // This client asks first, and the answer is no.
        return;
    }
    let forget = async {
        let mut left = DRAIN_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            let len = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(len) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // When the time is over, the answer goes out all the same.
    let _ = tokio::time::timeout(DRAIN_TIME, forget).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_plain() {
        for (said, told) in [
            ("missing field `to`", "is missing"),
            (
                "unknown field `x`, expected one of `a`, `b`",
                "is not known here; expected one of a, b",
            ),
            (
                "unknown variant `spam`, expected one of `im`, `marketing`",
                "must be one of im, marketing, not spam",
            ),
            (
                "invalid type: integer `5`, expected a string",
                "this is the number 5, expected a text",
            ),
            (
                "invalid value: integer `-1`, expected u32",
                "this is the number -1, expected a whole number from 0 to 4294967295",
            ),
            (
                "invalid type: sequence, expected struct To with 8 elements",
                "this is a list, expected an object",
            ),
            (
                "invalid type: string \"x, expected y\", expected a sequence",
                "this is the text \"x, expected y\", expected a list",
            ),
            ("user must be 1 to 128 bytes", "user must be 1 to 128 bytes"),
        ] {
            assert_eq!(in_plain_words(said), told);
        }
    }
}
