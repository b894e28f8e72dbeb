//! A program of the editor's form.

use super::super::session::Fields;
use crate::service::is_xdp;
use pointsman_model::document::{SlotChoice, strict_value};
use pointsman_model::fleet::{ObjectProgram, ObjectSummary, PolicyEntry};
use pointsman_model::{Action, ActionSet};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// A program of the chain.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Entry {
    /// Tells the fields of this program from those of others, wherever it is moved.
    pub(super) key: u32,
    pub(super) program: String,
    pub(super) name: String,
    pub(super) entry: String,
    pub(super) priority: String,
    pub(super) actions: ActionSet,
    pub(super) enforce: bool,
    pub(super) slot: String,
    pub(super) globals: String,
    pub(super) maps: String,
    /// Whether priority and actions were filled in from the author's suggestion.
    pub(super) suggested: bool,
}

/// A name as JSON has it; empty: there is none.
pub(super) fn word<T: Serialize>(value: Option<&T>) -> String {
    let value = value.and_then(|value| serde_json::to_value(value).ok());
    value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// An object as JSON for people; empty: there is nothing in it.
fn object(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) if !map.is_empty() => format!("{:#}", Value::Object(map)),
        _ => String::new(),
    }
}

impl Entry {
    pub(super) fn of(key: u32, entry: &PolicyEntry) -> Self {
        Self {
            key,
            program: entry.program.to_string(),
            name: entry.name.as_ref().map_or(String::new(), ToString::to_string),
            entry: entry.entry.as_ref().map_or(String::new(), ToString::to_string),
            priority: entry.priority.to_string(),
            actions: entry.chain_call_actions,
            enforce: entry.enforce,
            slot: word::<SlotChoice>(Some(&entry.slot)),
            globals: object(&entry.globals),
            maps: object(&entry.maps),
            suggested: false,
        }
    }

    pub(super) fn sent(key: u32, fields: &Fields) -> Self {
        let field = |name: &str| format!("entry.{key}.{name}");
        let text = |name: &str| fields.text(&field(name)).replace("\r\n", "\n");
        let actions = field("action");
        let chosen = |action: &Action| fields.all(&actions).any(|name| name == action.name());
        Self {
            key,
            program: text("program"),
            name: text("name"),
            entry: text("entry"),
            priority: text("priority"),
            actions: Action::ALL.into_iter().filter(chosen).collect(),
            enforce: fields.has(&field("enforce")),
            slot: text("slot"),
            globals: text("globals"),
            maps: text("maps"),
            suggested: fields.has(&field("suggested")),
        }
    }

    /// The entry as a policy says it, at this place of the chain.
    pub(super) fn value(&self, at: usize, wrong: &mut impl FnMut(String, String)) -> Value {
        let mut entry = json!({
            "program": self.program,
            "chain_call_actions": self.actions,
            "enforce": self.enforce,
        });
        for (name, text) in [("name", &self.name), ("entry", &self.entry), ("slot", &self.slot)] {
            if !text.is_empty() {
                entry[name] = json!(text);
            }
        }
        match self.priority.parse::<u32>() {
            Ok(priority) => entry["priority"] = json!(priority),
            Err(_) => wrong(
                format!("/chain/{at}/priority"),
                format!("{:?}: expected a number from 0 to {}", self.priority, u32::MAX),
            ),
        }
        for (name, text) in [("globals", &self.globals), ("maps", &self.maps)] {
            match json_object(text) {
                Ok(map) => entry[name] = Value::Object(map),
                Err(message) => wrong(format!("/chain/{at}/{name}"), message),
            }
        }
        entry
    }

    /// Fills in what the author of the chosen program suggests, if he does.
    pub(super) fn suggest(&mut self, summary: &ObjectSummary) {
        let Some(program) = self.chosen(summary) else { return };
        if let Some(priority) = program.suggested_priority {
            self.priority = priority.to_string();
            self.suggested = true;
        }
        if let Some(actions) = program.suggested_actions {
            self.actions = actions;
            self.suggested = true;
        }
    }

    /// The program of the object that the entry means.
    pub(super) fn chosen<'a>(&self, summary: &'a ObjectSummary) -> Option<&'a ObjectProgram> {
        let mut usable = summary.programs.iter().filter(|program| is_xdp(program));
        if self.entry.is_empty() {
            return usable.next();
        }
        usable.find(|program| program.name == self.entry)
    }
}

fn json_object(text: &str) -> Result<Map<String, Value>, String> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    match strict_value(text.as_bytes()) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err("expected a JSON object: {\"NAME\": ...}".into()),
        Err(error) => Err(format!("no JSON as expected: {error}")),
    }
}
