//! The published JSON Schema, made from the types that read the document.

use super::raw::RawDocument;
use serde_json::{Map, Value, json};
use utoipa::{PartialSchema as _, ToSchema as _};

/// The JSON Schema (2020-12) of a node document.
///
/// What one field says about another (a chain names a program that exists, exactly one source of
/// an object) is beyond a schema and is checked by [`super::Document::parse`].
#[must_use]
pub fn json_schema() -> Value {
    let mut parts = Vec::new();
    RawDocument::schemas(&mut parts);
    let defs: Map<String, Value> =
        parts.into_iter().map(|(name, schema)| (name, rebase(to_value(&schema)))).collect();
    let mut root = rebase(to_value(&RawDocument::schema()));
    if let Value::Object(fields) = &mut root {
        fields.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
        fields.insert("title".into(), json!("Pointsman node document, version 1"));
        fields.insert("$defs".into(), Value::Object(defs));
    }
    root
}

fn to_value(schema: &impl serde::Serialize) -> Value {
    serde_json::to_value(schema).expect("a schema made of JSON types is JSON")
}

/// Moves references from where OpenAPI keeps schemas to where JSON Schema does.
fn rebase(mut value: Value) -> Value {
    match &mut value {
        Value::String(text) => {
            if let Some(name) = text.strip_prefix("#/components/schemas/") {
                *text = format!("#/$defs/{name}");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = rebase(item.take())),
        Value::Object(fields) => {
            fields.values_mut().for_each(|field| *field = rebase(field.take()));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
    value
}
