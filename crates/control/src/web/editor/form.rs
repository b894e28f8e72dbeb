//! The policy editor's form: from a policy, to a policy, and what its buttons do. Nothing here
//! asks anybody.

use super::super::nodes::labels;
use super::super::session::Fields;
use super::entry::{Entry, word};
use crate::extract;
use crate::service::is_xdp;
use pointsman_model::ActionSet;
use pointsman_model::document::{DocumentError, DriftPolicy, Engine, Mode};
use pointsman_model::fleet::{ObjectSummary, PolicyEntry, PolicySpec};
use serde_json::json;

/// The distance of priorities when programs are put into another order.
const STEP: u32 = 10;

/// The most programs that a form can have.
const MOST: usize = 256;

/// What was written into the form, right or wrong.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct PolicyForm {
    pub(super) name: String,
    pub(super) description: String,
    pub(super) enabled: bool,
    pub(super) all: bool,
    pub(super) labels: String,
    pub(super) nodes: String,
    pub(super) interface: String,
    pub(super) engine: String,
    pub(super) mode: String,
    pub(super) drift: String,
    pub(super) entries: Vec<Entry>,
}

impl PolicyForm {
    /// A form for a policy that is not there yet.
    pub(super) fn blank() -> Self {
        Self { enabled: true, ..Self::default() }
    }

    /// The form of a policy, its programs in the order they run.
    pub(super) fn of(name: &str, spec: &PolicySpec) -> Self {
        let mut chain: Vec<&PolicyEntry> = spec.chain.iter().collect();
        chain.sort_by_key(|entry| entry.priority);
        let labels = spec.selector.labels.iter().map(|(key, value)| format!("{key}={value}"));
        let nodes = spec.selector.nodes.iter().map(ToString::to_string);
        Self {
            name: name.into(),
            description: spec.description.clone(),
            enabled: spec.enabled,
            all: spec.selector.all,
            labels: labels.collect::<Vec<_>>().join("\n"),
            nodes: nodes.collect::<Vec<_>>().join("\n"),
            interface: spec.interface.to_string(),
            engine: word::<Engine>(spec.engine.as_ref()),
            mode: word::<Mode>(spec.mode.as_ref()),
            drift: word::<DriftPolicy>(spec.drift.as_ref()),
            entries: (0..).zip(chain).map(|(key, entry)| Entry::of(key, entry)).collect(),
        }
    }

    /// What a browser sent. The order of the programs is that of their places on the page.
    pub(super) fn sent(fields: &Fields) -> Self {
        let text = |name: &str| fields.text(name).replace("\r\n", "\n");
        let mut entries: Vec<Entry> = Vec::new();
        for key in fields.all("entry").filter_map(|key| key.parse::<u32>().ok()).take(MOST) {
            if entries.iter().all(|entry| entry.key != key) {
                entries.push(Entry::sent(key, fields));
            }
        }
        Self {
            name: text("name"),
            description: text("description"),
            enabled: fields.has("enabled"),
            all: fields.has("all"),
            labels: text("labels"),
            nodes: text("nodes"),
            interface: text("interface"),
            engine: text("engine"),
            mode: text("mode"),
            drift: text("drift"),
            entries,
        }
    }

    /// The policy that the form says.
    ///
    /// # Errors
    /// What is wrong with it, each with its place in the policy.
    pub(super) fn spec(&self) -> Result<PolicySpec, Vec<DocumentError>> {
        let mut errors = Vec::new();
        let mut wrong =
            |pointer: String, message: String| errors.push(DocumentError { pointer, message });
        let labels = labels(&self.labels).unwrap_or_else(|message| {
            wrong("/selector/labels".into(), message);
            Default::default()
        });
        let nodes = self.nodes.split(|c: char| c.is_whitespace() || c == ',');
        let nodes: Vec<_> = nodes.filter(|name| !name.is_empty()).collect();
        let mut spec = json!({
            "description": self.description,
            "enabled": self.enabled,
            "selector": {"all": self.all, "labels": labels, "nodes": nodes},
            "interface": self.interface,
        });
        for (name, text) in [("engine", &self.engine), ("mode", &self.mode), ("drift", &self.drift)]
        {
            if !text.is_empty() {
                spec[name] = json!(text);
            }
        }
        let chain = self.entries.iter().enumerate();
        spec["chain"] = chain.map(|(at, entry)| entry.value(at, &mut wrong)).collect();
        match extract::parse(spec.to_string().as_bytes()) {
            Ok(spec) if errors.is_empty() => Ok(spec),
            Ok(_) => Err(errors),
            Err(failure) => {
                let mut told = failure.problem.errors;
                if told.is_empty() {
                    let message = failure.problem.title;
                    told.push(DocumentError { pointer: String::new(), message });
                }
                // What is said already of a place is not said twice.
                told.retain(|error| errors.iter().all(|said| said.pointer != error.pointer));
                errors.extend(told);
                Err(errors)
            }
        }
    }

    fn place(&self, key: u32) -> Option<usize> {
        self.entries.iter().position(|entry| entry.key == key)
    }

    /// Gives the programs the priorities 10, 20, 30 and so on, in their order on the page.
    pub(super) fn renumber(&mut self) {
        for (entry, number) in self.entries.iter_mut().zip(1..) {
            let priority = (STEP * number).to_string();
            if entry.priority != priority {
                entry.priority = priority;
                entry.suggested = false;
            }
        }
    }

    /// Moves a program one place up or down, and gives priorities anew.
    pub(super) fn shift(&mut self, key: u32, up: bool) {
        let Some(at) = self.place(key) else { return };
        let other = if up { at.checked_sub(1) } else { Some(at + 1) };
        if let Some(other) = other.filter(|&other| other < self.entries.len()) {
            self.entries.swap(at, other);
            self.renumber();
        }
    }

    /// Takes a program out.
    pub(super) fn remove(&mut self, key: u32) {
        self.entries.retain(|entry| entry.key != key);
    }

    /// Adds a program where its priority says: what its author suggests, or else behind the last.
    pub(super) fn add(&mut self, program: &str, summary: &ObjectSummary) {
        if self.entries.len() >= MOST {
            return;
        }
        let keys = self.entries.iter().map(|entry| entry.key);
        let key = keys.max().map_or(0, |key| key.saturating_add(1));
        let last = self.entries.iter().filter_map(|entry| entry.priority.parse::<u32>().ok()).max();
        let behind = last.map_or(50, |last| last.saturating_add(STEP));
        let usable: Vec<_> = summary.programs.iter().filter(|program| is_xdp(program)).collect();
        let mut entry = Entry {
            key,
            program: program.into(),
            priority: behind.to_string(),
            actions: ActionSet::default(),
            enforce: true,
            // Of several, somebody has to choose: the first is a beginning.
            entry: match usable[..] {
                [first, _, ..] => first.name.clone(),
                _ => String::new(),
            },
            slot: "shared".into(),
            ..Entry::default()
        };
        entry.suggest(summary);
        let priority = entry.priority.parse::<u32>().unwrap_or(behind);
        let before = |other: &Entry| other.priority.parse::<u32>().is_ok_and(|it| it > priority);
        let at = self.entries.iter().position(before).unwrap_or(self.entries.len());
        self.entries.insert(at, entry);
    }

    /// Fills in what the author of a program suggests.
    pub(super) fn suggest(&mut self, key: u32, summary: &ObjectSummary) {
        if let Some(at) = self.place(key) {
            self.entries[at].suggest(summary);
        }
    }

    /// The program that an entry is of.
    pub(super) fn program(&self, key: u32) -> Option<&str> {
        self.place(key).map(|at| self.entries[at].program.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value};

    fn spec(chain: &Value) -> PolicySpec {
        let spec = json!({"description": "keeps <b> out", "selector": {"labels": {"a": "1"},
            "nodes": ["n1", "n2"]}, "interface": "eth0", "engine": "fused", "mode": "skb",
            "drift": "leave", "chain": chain});
        from_value(spec).unwrap()
    }

    fn summary(programs: &Value) -> ObjectSummary {
        let summary = json!({"licence": "GPL", "has_btf": true, "maps": [], "globals": [],
            "programs": programs});
        from_value(summary).unwrap()
    }

    fn order(form: &PolicyForm) -> Vec<(&str, &str)> {
        form.entries.iter().map(|it| (it.program.as_str(), it.priority.as_str())).collect()
    }

    #[test]
    fn a_policy_comes_back_from_its_form() {
        let spec = spec(&json!([
            {"program": "ddos", "priority": 20, "entry": "main", "name": "x", "enforce": false,
             "chain_call_actions": [], "slot": "own", "globals": {"rate": 5},
             "maps": {"m": {"entries": [{"key": 1, "value": 2}]}}},
            {"program": "builtin:counting-pass", "priority": 30},
        ]));
        assert_eq!(PolicyForm::of("p", &spec).spec(), Ok(spec));
    }

    #[test]
    fn programs_are_shown_in_the_order_they_run() {
        let form = PolicyForm::of(
            "p",
            &spec(&json!([
                {"program": "late", "priority": 90}, {"program": "early", "priority": 5},
                {"program": "later", "priority": 90},
            ])),
        );
        assert_eq!(order(&form), [("early", "5"), ("late", "90"), ("later", "90")]);
    }

    #[test]
    fn another_order_is_other_priorities() {
        let mut form = PolicyForm::of(
            "p",
            &spec(&json!([
                {"program": "a", "priority": 1}, {"program": "b", "priority": 2},
                {"program": "c", "priority": 3},
            ])),
        );
        form.shift(0, true);
        assert_eq!(order(&form), [("a", "1"), ("b", "2"), ("c", "3")]);
        form.shift(2, true);
        assert_eq!(order(&form), [("a", "10"), ("c", "20"), ("b", "30")]);
        form.shift(0, false);
        form.shift(1, false);
        form.shift(77, false);
        assert_eq!(order(&form), [("c", "10"), ("a", "20"), ("b", "30")]);
        form.remove(0);
        assert_eq!(order(&form), [("c", "10"), ("b", "30")]);
    }

    #[test]
    fn a_program_comes_with_what_its_author_suggests() {
        let chain = json!([{"program": "a", "priority": 10}, {"program": "b", "priority": 30}]);
        let mut form = PolicyForm::of("p", &spec(&chain));
        let xdp = json!({"name": "main", "section": "xdp", "kind": "xdp",
            "suggested_priority": 20, "suggested_actions": ["drop", "tx"]});
        form.add("new", &summary(&json!([xdp])));
        assert_eq!(order(&form), [("a", "10"), ("new", "20"), ("b", "30")]);
        let added = &form.entries[1];
        assert!(added.suggested && added.enforce);
        assert_eq!((added.key, added.actions.to_string()), (2, "drop,tx".into()));
        // Without a suggestion: last, and to be chosen from if there are several.
        let bare = |name: &str| json!({"name": name, "section": "xdp", "kind": "xdp"});
        form.add("other", &summary(&json!([bare("one"), bare("two")])));
        let last = form.entries.last().unwrap().clone();
        assert_eq!((last.priority.as_str(), last.entry.as_str()), ("40", "one"));
        assert!(!last.suggested);
        let mut one = bare("one");
        one["suggested_priority"] = json!(5);
        form.suggest(last.key, &summary(&json!([one])));
        assert_eq!(form.entries.last().unwrap().priority, "5");
    }

    #[test]
    fn what_a_browser_sends_is_in_the_order_of_the_page() {
        let sent = [
            ("enabled", "yes"),
            ("all", "yes"),
            ("interface", " eth0 "),
            ("labels", "a=1\r\nb=2"),
            ("entry", "7"),
            ("entry.7.program", "x"),
            ("entry.7.priority", "10"),
            ("entry.7.action", "pass"),
            ("entry.7.action", "drop"),
            ("entry.7.action", "no"),
            ("entry", "3"),
            ("entry.3.program", "y"),
            ("entry.3.priority", "20"),
            ("entry.3.enforce", "yes"),
            ("entry", "7"),
            ("entry", "<b>"),
        ];
        let fields = Fields(sent.iter().map(|&(a, b)| (a.to_owned(), b.to_owned())).collect());
        let form = PolicyForm::sent(&fields);
        assert_eq!(order(&form), [("x", "10"), ("y", "20")]);
        let spec = form.spec().unwrap();
        assert_eq!(spec.selector.labels.len(), 2);
        assert_eq!(spec.chain[0].chain_call_actions.to_string(), "drop,pass");
        assert!(!spec.chain[0].enforce && spec.chain[1].enforce);
        assert!(spec.chain[1].chain_call_actions.is_empty());
    }

    #[test]
    fn each_mistake_is_told_at_its_field() {
        let chain = json!([{"program": "a"}, {"program": "b"}]);
        let mut form = PolicyForm::of("p", &spec(&chain));
        form.labels = "nonsense".into();
        form.entries[0].priority = "-1".into();
        form.entries[0].globals = "[1]".into();
        form.entries[1].maps = "{\"m\": {}, \"m\": {}}".into();
        form.entries[1].name = "<b>".into();
        let errors = form.spec().unwrap_err();
        let places: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
        let expected = [
            "/selector/labels",
            "/chain/0/priority",
            "/chain/0/globals",
            "/chain/1/maps",
            "/chain/1/name",
        ];
        assert_eq!(places, expected);
    }
}
