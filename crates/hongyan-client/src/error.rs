//! What can go wrong, told so that a person can act on it.

use std::time::Duration;

use serde::Deserialize;

/// Any error with a cause of its own.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a call did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server answered with an error.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// No connection came about; nothing happened at the server.
    #[error("cannot reach {base}: {source}")]
    Unreachable {
        /// The base URL that was tried.
        base: String,
        /// What the network said.
        #[source]
        source: BoxError,
    },
    /// The connection broke before the answer was complete; whether the call took effect is unknown.
    #[error("connection to {base} broke before the answer was complete: {source}")]
    Broken {
        /// The base URL that was called.
        base: String,
        /// What the network said.
        #[source]
        source: BoxError,
    },
    /// No answer in time; whether the call took effect is unknown.
    #[error("no answer from {base} within {after:?}")]
    Timeout {
        /// The base URL that was called.
        base: String,
        /// How long was waited.
        after: Duration,
    },
    /// The answer was not what the interface promises.
    #[error("the server's answer to {what} cannot be read: {source}")]
    Malformed {
        /// The call.
        what: String,
        /// What the reader said.
        #[source]
        source: BoxError,
    },
    /// An argument that cannot work.
    #[error("{what} is not usable: {why}")]
    Invalid {
        /// The argument.
        what: &'static str,
        /// The rule that it breaks.
        why: String,
    },
    /// The client was closed, or gave up for good.
    #[error("the client has stopped: {why}")]
    Stopped {
        /// Why it stopped.
        why: String,
    },
    /// The connection ended before the reply.
    #[error("the connection ended before the reply to {what}")]
    Disconnected {
        /// The request.
        what: &'static str,
    },
    /// The gateway refused a request on the live connection.
    #[error("the gateway refused {what}: {code} ({detail})")]
    Refused {
        /// The request.
        what: &'static str,
        /// The stable code.
        code: String,
        /// The gateway's words.
        detail: String,
    },
}

impl Error {
    /// The status of the server's answer, when there was one.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Problem(problem) => Some(problem.status),
            _ => None,
        }
    }

    /// The stable code of the server's answer, when there was one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Problem(problem) => Some(&problem.code),
            Self::Refused { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Whether it is certain that the call had no effect.
    #[must_use]
    pub fn nothing_happened(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Invalid { .. } => true,
            Self::Problem(problem) => problem.status < 500 || problem.status == 503,
            _ => false,
        }
    }
}

/// An RFC 9457 `application/problem+json` answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    /// hongyan's stable code, for programs; empty when the answer was not hongyan's.
    pub code: String,
    /// A short summary of the kind of problem.
    pub title: String,
    /// What happened this time.
    pub detail: String,
    /// Which fields of the request are wrong.
    pub fields: Vec<FieldFault>,
    /// What `Retry-After` said.
    pub retry_after: Option<Duration>,
}

/// One wrong field of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct FieldFault {
    /// Where in the body, such as `options.ttl`.
    #[serde(alias = "field", alias = "pointer")]
    pub path: String,
    /// What is wrong with it.
    #[serde(alias = "problem", alias = "detail")]
    pub message: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Body {
    code: String,
    title: String,
    detail: String,
    #[serde(alias = "fields")]
    errors: Vec<FieldFault>,
    field: String,
}

impl Problem {
    /// Reads an error answer; whatever it holds, the result says something useful.
    #[must_use]
    pub fn read(status: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        let body: Body = serde_json::from_slice(body).unwrap_or_default();
        let mut fields = body.errors;
        if fields.is_empty() && !body.field.is_empty() {
            fields.push(FieldFault {
                path: body.field,
                message: String::new(),
            });
        }
        let title = if body.title.is_empty() {
            http::StatusCode::from_u16(status)
                .ok()
                .and_then(|s| s.canonical_reason())
                .unwrap_or("error")
                .to_lowercase()
        } else {
            body.title
        };
        Self {
            status,
            code: body.code,
            title,
            detail: body.detail,
            fields,
            retry_after,
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the server answered {} {}", self.status, self.title)?;
        if !self.code.is_empty() {
            write!(f, " [{}]", self.code)?;
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        for field in &self.fields {
            // With one fault the detail names it already.
            if self.detail.contains(field.path.as_str()) {
                continue;
            }
            write!(f, "; {}", field.path)?;
            if !field.message.is_empty() {
                write!(f, ": {}", field.message)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_all_it_knows() {
        let body = br#"{"code":"invalid_body","title":"bad request","detail":"2 faults",
            "errors":[{"path":"options.ttl","message":"must be positive"}]}"#;
        let problem = Problem::read(400, body, None);
        assert_eq!(
            problem.to_string(),
            "the server answered 400 bad request [invalid_body]: 2 faults; options.ttl: must be positive"
        );
    }

    #[test]
    fn a_foreign_answer_is_still_told() {
        let problem = Problem::read(502, b"<html>bad gateway</html>", None);
        assert_eq!(problem.to_string(), "the server answered 502 bad gateway");
    }
}
