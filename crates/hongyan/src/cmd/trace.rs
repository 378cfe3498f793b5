//! Traces: every event in order, page by page.

use hongyan_client::Admin;
use serde_json::Value;

use super::output::{self, Form};
use super::remote::{told, with_query};
use super::tail::{About, event_line};

/// Reads the events after a place in the ledger; gives the place after the last one.
pub(crate) async fn read_trace(
    admin: &Admin,
    path: &str,
    mut after: u64,
    mut each: impl FnMut(&Value) -> std::io::Result<()>,
) -> anyhow::Result<u64> {
    loop {
        let place = after.to_string();
        let page = with_query(path, &[("after", (after > 0).then_some(place.as_str()))]);
        let trace = admin
            .raw(http::Method::GET, &page, None)
            .await
            .map_err(told)?;
        for event in output::rows(&trace) {
            after = after.max(event.get("seq").and_then(Value::as_u64).unwrap_or(after));
            each(event)?;
        }
        match trace.get("next").and_then(Value::as_u64) {
            Some(next) if next > 0 && !output::rows(&trace).is_empty() => after = after.max(next),
            _ => return Ok(after),
        }
    }
}

/// Shows all events: a line each, for programs a line of JSON each.
pub(crate) async fn show_trace(
    admin: &Admin,
    path: &str,
    form: Form,
    about: About,
) -> anyhow::Result<()> {
    let mut count = 0_u64;
    read_trace(admin, path, 0, |event| {
        count += 1;
        show_event(form, event, about)
    })
    .await?;
    if count == 0 && form == Form::Text {
        output::line("nothing has happened to it yet")?;
    }
    Ok(())
}

/// Shows one event.
pub(crate) fn show_event(form: Form, event: &Value, about: About) -> std::io::Result<()> {
    match form {
        Form::Json => output::json_line(event),
        Form::Text => output::line(&event_line(event, about)),
    }
}
