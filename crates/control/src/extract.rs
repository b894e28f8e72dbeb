//! What a request says, checked once: names, queries, bodies, preconditions. Whatever does not fit
//! becomes one problem that names the place.

use crate::db::{PageRequest, Precondition};
use crate::problem::Failure;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use pointsman_model::api::ProblemKind;
use pointsman_model::document::{DocumentError, MAX_BYTES, strict_value};
use pointsman_model::fleet::MAX_PAGE;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

/// How large a JSON body may be, in bytes, unless a route says otherwise.
pub const MAX_JSON: usize = MAX_BYTES;

/// A name in the path. What breaks its rules names nothing, and goes no further.
#[derive(Debug)]
pub struct Named<T>(pub T);

impl<S: Send + Sync, T: FromStr<Err: Display>> FromRequestParts<S> for Named<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| Failure::bad_request("the path is not text"))?;
        let name = text.parse().map_err(|error: T::Err| Failure::bad_request(error.to_string()));
        name.map(Self)
    }
}

/// A JSON body. Unknown fields and keys given twice are mistakes.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        content_type(request.headers(), "application/json")?;
        parse(&read(request.into_body(), MAX_JSON).await?).map(Self)
    }
}

/// Reads JSON into what it means.
///
/// # Errors
/// 400: it is no JSON. 422: it is no `T`; the error names the place.
pub fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, Failure> {
    let value = strict_value(text).map_err(|error| {
        Failure::bad_request(format!("the body is no JSON as expected: {error}"))
    })?;
    serde_path_to_error::deserialize(value).map_err(|error| {
        let message = error.inner().to_string();
        let pointer = pointer(error.path(), &message);
        Failure::invalid("the body", vec![DocumentError { pointer, message }])
    })
}

/// Reads a body of at most `most` bytes.
///
/// # Errors
/// 413: it is larger. 400: it did not arrive whole.
pub async fn read(body: Body, most: usize) -> Result<Bytes, Failure> {
    axum::body::to_bytes(body, most).await.map_err(|error| {
        let mut cause = Some(&error as &(dyn std::error::Error + 'static));
        while let Some(error) = cause {
            if error.is::<http_body_util::LengthLimitError>() {
                let title = format!("the body is larger than the limit of {most} bytes");
                return Failure::new(ProblemKind::TooLarge, title);
            }
            cause = error.source();
        }
        Failure::bad_request(format!("the body did not arrive whole: {error}"))
    })
}

/// Refuses bodies of another type. None at all is taken for the right one.
///
/// # Errors
/// 415.
pub fn content_type(headers: &HeaderMap, expected: &str) -> Result<(), Failure> {
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let given = given.to_str().unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    let title = format!("the body is of type {}; expected {expected}", shown(given));
    Err(Failure::bad_request(title).with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE))
}

/// The place of an error as a JSON pointer. What serde says of a field that is unknown or missing
/// has the object's path: the field is in the message.
fn pointer(path: &serde_path_to_error::Path, message: &str) -> String {
    let mut steps: Vec<String> = path
        .iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } => Some(key.clone()),
            Segment::Enum { variant } => Some(variant.clone()),
            Segment::Unknown => None,
        })
        .collect();
    let field = ["unknown field `", "missing field `"]
        .into_iter()
        .find_map(|start| message.strip_prefix(start)?.split('`').next());
    if let Some(field) = field.filter(|&field| steps.last().is_none_or(|last| last != field)) {
        steps.push(field.to_owned());
    }
    let escape = |step: &String| format!("/{}", step.replace('~', "~0").replace('/', "~1"));
    steps.iter().map(escape).collect()
}

/// The parameters of a query, of which each must be known.
#[derive(Debug)]
pub struct Query(BTreeMap<String, Vec<String>>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let axum::extract::Query(pairs) =
            axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
                .map_err(|error| Failure::bad_request(error.body_text()))?;
        let mut parameters = BTreeMap::<_, Vec<_>>::new();
        for (key, value) in pairs {
            parameters.entry(key).or_default().push(value);
        }
        Ok(Self(parameters))
    }
}

impl Query {
    /// Takes out a parameter that may be given once.
    ///
    /// # Errors
    /// 400: it is given twice, or its value is not understood.
    pub fn one<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<Option<T>, Failure> {
        let mut values = self.many(name);
        let last = values.pop();
        if !values.is_empty() {
            return Err(Failure::bad_request(format!("?{name}= is given more than once")));
        }
        let parsed = last.map(|text| {
            text.parse().map_err(|error: T::Err| {
                Failure::bad_request(format!("?{name}={}: {error}", shown(&text)))
            })
        });
        parsed.transpose()
    }

    /// Takes out a parameter that may be given any number of times.
    pub fn many(&mut self, name: &str) -> Vec<String> {
        self.0.remove(name).unwrap_or_default()
    }

    /// Takes out `limit` and `after`.
    ///
    /// # Errors
    /// 400: they are not understood.
    pub fn page(&mut self) -> Result<PageRequest, Failure> {
        let limit = self.one::<u32>("limit")?.unwrap_or(100);
        if !(1..=MAX_PAGE).contains(&limit) {
            let title = format!("?limit={limit}: expected 1 to {MAX_PAGE}");
            return Err(Failure::bad_request(title));
        }
        let after = self.one::<Text>("after")?.map(|Text(text)| text);
        Ok(PageRequest { limit, after })
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// 400: something is.
    pub fn end(self) -> Result<(), Failure> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(key) => {
                let title = format!("there is no parameter ?{}= here", shown(key));
                Err(Failure::bad_request(title))
            }
        }
    }
}

/// A text of somebody else's in one line that is not too long.
fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

/// A text of a query that is looked for as it is.
#[derive(Debug)]
pub struct Text(pub String);

impl FromStr for Text {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > 512 || text.chars().any(char::is_control) {
            return Err("expected at most 512 bytes without control characters");
        }
        Ok(Self(text.to_owned()))
    }
}

/// `If-Match` or `If-None-Match` of a request that changes something.
#[derive(Debug)]
pub struct Condition(pub Precondition);

impl<S: Send + Sync> FromRequestParts<S> for Condition {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let text = |name| {
            let value = parts.headers.get(name);
            value.map(|value| value.to_str().unwrap_or_default().trim().to_owned())
        };
        let wrong = |title: &str| Err(Failure::bad_request(title));
        match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
            (None, None) => Ok(Self(Precondition::Unsaid)),
            (Some(_), Some(_)) => wrong("expected If-Match or If-None-Match, not both"),
            (None, Some(text)) if text == "*" => Ok(Self(Precondition::Absent)),
            (None, Some(_)) => wrong("If-None-Match: expected * for what must not exist yet"),
            (Some(text), None) if text == "*" => Ok(Self(Precondition::Present)),
            (Some(text), None) => {
                let revision = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
                match revision.and_then(|text| text.parse().ok()) {
                    Some(revision) => Ok(Self(Precondition::Revision(revision))),
                    None => wrong(
                        "If-Match: expected the ETag of one revision, such as \"7\", as GET tells it",
                    ),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_model::fleet::PolicySpec;
    use serde_json::{Value, json};

    fn refused<T: DeserializeOwned + std::fmt::Debug>(value: &Value) -> (u16, String) {
        let failure = parse::<T>(value.to_string().as_bytes()).unwrap_err();
        let pointer = failure.problem.errors.first().map(|error| error.pointer.clone());
        (failure.problem.status, pointer.unwrap_or_default())
    }

    #[test]
    fn the_wrong_place_is_named() {
        let with =
            |chain: Value| json!({"selector": {"all": true}, "interface": "e", "chain": chain});
        for (value, pointer) in [
            (with(json!([{"program": "a", "x": 1}])), "/chain/0/x"),
            (with(json!([{"program": "a"}, {}])), "/chain/1/program"),
            (with(json!([{"program": "a", "priority": "high"}])), "/chain/0/priority"),
            (with(json!([{"program": "../a"}])), "/chain/0/program"),
            (with(json!([{"program": "a", "maps": {"m": {"y": 1}}}])), "/chain/0/maps/m/y"),
            (json!({"selector": {"all": true}, "interface": "a/b/c", "chain": []}), "/interface"),
            (json!({"interface": "e", "chain": []}), "/selector"),
            (
                json!({"selector": {"labels": {"a~b/c": "x"}}, "interface": "e", "chain": []}),
                "/selector/labels/a~0b~1c",
            ),
        ] {
            assert_eq!(refused::<PolicySpec>(&value), (422, pointer.to_owned()), "{value}");
        }
    }

    #[test]
    fn keys_given_twice_and_what_is_no_json_are_refused() {
        for text in [
            r#"{"selector":{"all":true},"interface":"e","chain":[],"interface":"f"}"#,
            r#"{"selector":{"labels":{"a":"1","a":"2"}},"interface":"e","chain":[]}"#,
            r#"{"selector":{"all":true},"interface":"e","chain":[]} x"#,
            "",
            "{",
            "\u{0}",
            "nul",
        ] {
            let failure = parse::<PolicySpec>(text.as_bytes()).unwrap_err();
            assert_eq!(failure.problem.status, 400, "{text}");
        }
        // As deep as an attacker likes: an error, no overflow of the stack.
        let deep = "[".repeat(1 << 20);
        assert_eq!(parse::<Value>(deep.as_bytes()).unwrap_err().problem.status, 400);
    }

    #[test]
    fn other_types_of_bodies_are_refused() {
        let mut headers = HeaderMap::new();
        content_type(&headers, "application/json").unwrap();
        headers.insert(header::CONTENT_TYPE, "Application/JSON; charset=utf-8".parse().unwrap());
        content_type(&headers, "application/json").unwrap();
        headers.insert(header::CONTENT_TYPE, "text/html".parse().unwrap());
        let failure = content_type(&headers, "application/json").unwrap_err();
        assert_eq!(failure.problem.status, 415);
    }
}
