//! `xdp-loader status`.

use super::load::names;
use super::options::{Bad, Matches};
use super::{End, complain, environment, interfaces, say, strerror};
use pointsman_bpf::dispatcher::{self, Attached, Attachment, Chain, Component};
use pointsman_model::observed::AttachMode;
use serde_json::{Value, json};

pub(super) fn run(matches: &Matches<'_>) -> Result<End, Bad> {
    let listed;
    let shown: Vec<(&str, u32)> = match matches.operands[..] {
        [device] => interfaces(device, matches)?,
        _ => {
            listed = dispatcher::interfaces().map_err(Bad::request)?;
            listed.iter().map(|(index, name)| (name.as_str(), *index)).collect()
        }
    };
    let dispatcher = environment::dispatcher();
    let mut text = heading();
    let mut values = Vec::new();
    for (device, index) in shown {
        let attached = match dispatcher.read(index) {
            Ok(attached) => attached,
            Err(error) => {
                say(&text);
                return Ok(failed(device, error.errno(), &error.to_string()));
            }
        };
        let unreadable = match &attached {
            Attached::Newer { program, version } => {
                Some(dispatcher::DispatcherError::Newer { program: program.id, version: *version })
            }
            Attached::Broken { program, why } => {
                Some(dispatcher::DispatcherError::Broken { program: program.id, why: *why })
            }
            _ => None,
        };
        if let Some(error) = unreadable.filter(|_| !matches.has("json")) {
            say(&text);
            return Ok(failed(device, error.errno(), &error.to_string()));
        }
        text += &rows(device, &attached);
        values.push(value(device, &attached));
    }
    if matches.has("json") {
        return Ok(say(&format!("{:#}\n", Value::from(values))));
    }
    Ok(say(&(text + "\n")))
}

fn failed(device: &str, number: i32, why: &str) -> End {
    complain(&format!(" libxdp: {why}"));
    complain(&format!("Error getting XDP status for interface {device}: {}", strerror(number)));
    End::Error(number)
}

fn heading() -> String {
    let names = format!(
        "{:<16} {:<5} {:<17} Mode     ID   {:<17} {}\n",
        "Interface", "Prio", "Program name", "Tag", "Chain actions"
    );
    format!("CURRENT XDP PROGRAM STATUS:\n\n{names}{}\n", "-".repeat(86))
}

/// The rows of one interface.
fn rows(device: &str, attached: &Attached) -> String {
    let (program, components) = match attached {
        Attached::Nothing => return format!("{device:<22} <No XDP program loaded!>\n"),
        Attached::Chain(chain) => (&chain.program, chain.components.as_slice()),
        Attached::Legacy { program, .. }
        | Attached::Newer { program, .. }
        | Attached::Broken { program, .. } => (program, [].as_slice()),
    };
    let Attachment { id, name, tag, mode, .. } = program;
    let mode = mode_name(*mode);
    let mut text = format!("{device:<16} {:<5} {name:<17} {mode:<8} {id:<4} {tag:<17}\n", "");
    for Component { id, name, tag, priority, actions, .. } in components {
        let actions = names(actions.known());
        // As a signed number, which is how the original prints it.
        let priority = priority.cast_signed();
        text += &format!(
            "{:<16} {priority:<5}  {name:<16} {:<8} {id:<4} {tag:<17} {actions}\n",
            " =>", ""
        );
    }
    text
}

fn mode_name(mode: AttachMode) -> &'static str {
    match mode {
        AttachMode::Native => "native",
        AttachMode::Skb => "skb",
        AttachMode::Offload => "hw",
    }
}

/// One interface as JSON.
fn value(device: &str, attached: &Attached) -> Value {
    let of_program = |program: &Attachment, kind: &str, why: Option<String>| {
        let Attachment { id, name, tag, mode, .. } = program;
        json!({
            "interface": device, "kind": kind, "mode": mode_name(*mode),
            "program": {"id": id, "name": name, "tag": tag}, "why": why,
        })
    };
    match attached {
        Attached::Nothing => json!({"interface": device, "kind": "none"}),
        Attached::Legacy { program, why } => of_program(program, "legacy", Some(why.to_string())),
        Attached::Newer { program, version } => {
            let why = format!("version {version} of the protocol is not known");
            of_program(program, "newer", Some(why))
        }
        Attached::Broken { program, why } => of_program(program, "broken", Some(why.to_string())),
        Attached::Chain(chain) => {
            let mut value = of_program(&chain.program, "dispatcher", None);
            let Chain { version, frags, bound, components, .. } = chain.as_ref();
            value["version"] = version.number().into();
            value["frags"] = (*frags).into();
            value["device_bound"] = (*bound).into();
            value["attached_by"] = match chain.program.attached_by() {
                dispatcher::AttachedBy::Netlink => json!("netlink"),
                dispatcher::AttachedBy::Link(id) => json!({"link": id}),
            };
            value["programs"] = components.iter().map(component).collect();
            value
        }
    }
}

fn component(component: &Component) -> Value {
    let Component { id, name, tag, priority, actions, frags, maps, .. } = component;
    json!({
        "id": id, "name": name, "tag": tag, "priority": priority,
        "chain_call_actions": actions.known(), "frags": frags, "map_ids": maps,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_interface_looks_as_the_original_shows_it() {
        let text = heading() + &rows("v1", &Attached::Nothing);
        let wanted = "CURRENT XDP PROGRAM STATUS:\n\n\
             Interface        Prio  Program name      Mode     ID   Tag               Chain \
             actions\n-----------------------------------------------------------------------------\
             ---------\nv1                     <No XDP program loaded!>\n";
        assert_eq!(text, wanted);
    }
}
