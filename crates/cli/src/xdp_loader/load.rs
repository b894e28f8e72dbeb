//! `xdp-loader load`.

use super::options::{Bad, Matches};
use super::{End, complain, environment, interfaces, say, strerror};
use pointsman_bpf::Error;
use pointsman_bpf::dispatcher::{
    Actions, Changed, Dispatcher, DispatcherError, Legacy, Lone, Mode, Options, Pick, Program,
    Wanted, attach_alone,
};
use pointsman_model::observed::AttachMode;
use pointsman_model::{Action, ActionSet};
use serde_json::json;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

/// libxdp's defaults, where neither the caller nor the author says anything.
const PRIORITY: u32 = 50;
/// libbpf's number for a file that is no object (`LIBBPF_ERRNO__FORMAT`).
const NO_OBJECT: i32 = 4001;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const ENOENT: i32 = 2;
const EOPNOTSUPP: i32 = 95;

pub(super) fn run(matches: &Matches<'_>) -> Result<End, Bad> {
    let (device, files) = (matches.operands[0], &matches.operands[1..]);
    let asked = Asked::of(matches)?;
    let interfaces = interfaces(device, matches)?;
    if matches.has("verbose") {
        complain(&format!("Loading {} files on interface '{device}'.", files.len()));
    }
    let mut programs = Vec::new();
    for file in files {
        match open(file, matches) {
            Ok(program) => programs.push(program),
            Err(end) => return Ok(end),
        }
    }
    let wanted: Vec<_> = programs.iter().map(|program| asked.wanted(program)).collect();
    if matches.has("verbose") {
        for (at, wanted) in wanted.iter().enumerate() {
            let actions = names(wanted.actions.known());
            let priority = wanted.priority;
            complain(&format!(
                "XDP program {at}: Run prio: {priority}. Chain call actions: {actions}"
            ));
        }
    }
    let mut loaded = Vec::new();
    for (name, index) in interfaces {
        match asked.load(index, &programs, &wanted) {
            Ok(changed) => loaded.push(json!({
                "interface": name, "dispatcher": changed.after, "programs": changed.programs,
            })),
            Err(error) => return Ok(failed(name, &error, asked.mode)),
        }
    }
    if matches.has("json") {
        return Ok(say(&format!("{:#}\n", json!(loaded))));
    }
    Ok(End::Done)
}

/// What is asked for about all programs.
struct Asked {
    priority: Option<u32>,
    actions: Option<Actions>,
    mode: Mode,
    replace: Option<u32>,
}

impl Asked {
    fn of(matches: &Matches<'_>) -> Result<Self, Bad> {
        // The default holds for a new chain: one that runs is joined in the mode that it has.
        let mode = match matches.value("mode") {
            None => Mode::New(AttachMode::Native),
            Some("native") => Mode::Exactly(AttachMode::Native),
            Some("skb") => Mode::Exactly(AttachMode::Skb),
            Some("hw") => Mode::Exactly(AttachMode::Offload),
            Some("unspecified") => Mode::Auto,
            Some(_) => return Err(Bad::value("mode")),
        };
        Ok(Self {
            priority: matches.number("prio")?,
            actions: matches.value("actions").map(parse_actions).transpose()?,
            mode,
            replace: matches.number("replace")?,
        })
    }

    fn wanted<'p>(&self, program: &'p Program) -> Wanted<'p> {
        let suggested = program.suggestion();
        let priority = suggested.map_or(PRIORITY, |suggestion| suggestion.priority);
        let actions = suggested.map_or(ActionSet::PASS, |s| s.chain_call_actions);
        let (priority, actions) =
            (self.priority.unwrap_or(priority), self.actions.unwrap_or(actions.into()));
        Wanted::new(program, priority, actions)
    }

    fn load(
        &self,
        index: u32,
        programs: &[Program],
        wanted: &[Wanted<'_>],
    ) -> Result<Changed, DispatcherError> {
        let options = Options { mode: self.mode, lone: Lone::AsLibxdp, ..Options::default() };
        let dispatcher = environment::dispatcher();
        if let Some(id) = self.replace {
            let [new] = programs else {
                let (name, why) = ("several".into(), "one program replaces one".into());
                return Err(DispatcherError::Component { name, why });
            };
            return dispatcher.replace(index, &options, id, new);
        }
        let alone = || match programs {
            [only] => Some(only),
            _ => None,
        };
        if let Some(only) = alone().filter(|_| environment::skip_dispatcher()) {
            return self.alone(index, only);
        }
        let error = match in_dispatcher(&dispatcher, index, &options, wanted) {
            Ok(changed) => return Ok(changed),
            Err(error) => error,
        };
        // As the original does, and says: without dispatcher one program is all there can be.
        match &error {
            DispatcherError::Bpffs { .. } => {
                complain(&format!(" libxdp: No bpffs found at {}", environment::bpffs().display()));
                complain(" libxdp: Can't use dispatcher without a working bpffs");
            }
            DispatcherError::NoFreplace { why } => complain(&format!(
                " libxdp: Compatibility check for dispatcher program failed: {why}"
            )),
            DispatcherError::Component { .. } => complain(&format!(" libxdp: {error}")),
            _ => return Err(error),
        }
        match alone() {
            Some(only) => self.alone(index, only),
            None => {
                let count = programs.len();
                complain(&format!(" libxdp: Can't fall back to legacy load with {count} programs"));
                Err(error)
            }
        }
    }

    fn alone(&self, index: u32, program: &Program) -> Result<Changed, DispatcherError> {
        let mode = match self.mode {
            Mode::New(mode) | Mode::Exactly(mode) => mode,
            Mode::Auto => AttachMode::Native,
        };
        let loaded = program.load_alone()?;
        let attached = attach_alone(index, loaded.as_fd(), mode);
        attached.map_err(|source| {
            DispatcherError::Other(Error::Os { what: "attach it alone".into(), source })
        })?;
        Ok(Changed::default())
    }
}

fn in_dispatcher(
    dispatcher: &Dispatcher,
    index: u32,
    options: &Options,
    wanted: &[Wanted<'_>],
) -> Result<Changed, DispatcherError> {
    if options.mode == Mode::Exactly(AttachMode::Offload) {
        let why = "programs on the network card are not supported by this tool".into();
        return Err(DispatcherError::Component { name: "hw".into(), why });
    }
    dispatcher.add(index, options, wanted)
}

fn open(file: &str, matches: &Matches<'_>) -> Result<Program, End> {
    let unreadable = |number: i32, text: &str| {
        complain(&format!("Couldn't open file '{file}': {text}"));
        End::Error(number)
    };
    let bytes = std::fs::read(file).map_err(|e| {
        let number = e.raw_os_error().unwrap_or(ENOENT);
        unreadable(number, &strerror(number))
    })?;
    let pick = match (matches.value("prog-name"), matches.value("section")) {
        (Some(name), _) => Pick::Named(name),
        (None, Some(section)) => Pick::Section(section),
        (None, None) => Pick::First,
    };
    let pins = matches.value("pin-path").map(Path::new);
    Program::open(&bytes, pick, &BTreeMap::new(), pins).map_err(|error| match error {
        DispatcherError::Other(Error::NotAnObject { why }) => {
            complain(&format!(" libxdp: {why}"));
            unreadable(NO_OBJECT, "BPF object format invalid")
        }
        DispatcherError::Other(error @ (Error::NoSuchEntry { .. } | Error::NotXdp { .. })) => {
            match pick {
                Pick::Section(section) => complain(&format!(
                    " libxdp: Couldn't find xdp program in bpf object section {section}"
                )),
                _ => complain(" libxdp: Couldn't find xdp program in bpf object"),
            }
            complain(&format!(" libxdp: {error}"));
            unreadable(ENOENT, &strerror(ENOENT))
        }
        error => {
            complain(&format!(" libxdp: {error}"));
            unreadable(error.errno(), &strerror(error.errno()))
        }
    })
}

/// Says what went wrong, in the original's words where it has some, and then in ours.
fn failed(device: &str, error: &DispatcherError, mode: Mode) -> End {
    // libxdp notices these when it attaches, and something is there.
    let number = match error {
        DispatcherError::Newer { .. } | DispatcherError::Broken { .. } => EBUSY,
        error => error.errno(),
    };
    match error {
        DispatcherError::Legacy { why: Legacy::NoDispatcher(_), .. } => complain(
            " libxdp: Existing program is not using a dispatcher, can't replace; unload first",
        ),
        DispatcherError::Older { .. } => complain(
            " libxdp: Existing dispatcher has an older version; Refusing transparent upgrade, \
             unload first",
        ),
        _ => {}
    }
    complain(&format!(" libxdp: {error}"));
    let native = !matches!(mode, Mode::Exactly(AttachMode::Skb | AttachMode::Offload));
    match number {
        EOPNOTSUPP if native => {
            complain("Attaching XDP program in native mode not supported - try SKB mode.");
        }
        EEXIST => complain(&format!("XDP already loaded on device '{device}'")),
        _ => complain(&format!(
            "Couldn't attach XDP program on iface '{device}': {}(-{number})",
            strerror(number)
        )),
    }
    End::Error(number)
}

/// Reads `XDP_PASS,XDP_DROP`; nothing at all means that no verdict goes on.
pub(super) fn parse_actions(text: &str) -> Result<Actions, Bad> {
    let action = |name: &str| {
        let known = |action: &Action| xdp_name(*action) == name;
        Action::ALL.into_iter().find(known).ok_or_else(|| Bad::value("actions"))
    };
    let names = text.split(',').filter(|name| !name.is_empty());
    names.map(action).collect::<Result<ActionSet, _>>().map(Actions::from)
}

/// Actions as the original shows them.
pub(super) fn names(actions: ActionSet) -> String {
    actions.iter().map(xdp_name).collect::<Vec<_>>().join(",")
}

fn xdp_name(action: Action) -> String {
    format!("XDP_{}", action.name().to_uppercase())
}

/// A failure of reading or writing, as a number.
pub(super) fn number_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(EOPNOTSUPP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_read_and_shown_in_libxdps_words() {
        let both = parse_actions("XDP_PASS,XDP_DROP").unwrap();
        assert_eq!(names(both.known()), "XDP_DROP,XDP_PASS");
        assert_eq!(parse_actions(""), Ok(Actions::default()));
        for bad in ["XDP_FOO", "pass", "XDP_PASS XDP_DROP"] {
            assert_eq!(parse_actions(bad), Err(Bad::value("actions")));
        }
    }
}
