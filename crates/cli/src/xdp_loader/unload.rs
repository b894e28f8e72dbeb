//! `xdp-loader unload`.

use super::load::number_of;
use super::options::{Bad, Matches};
use super::{End, complain, environment, interfaces, strerror};
use pointsman_bpf::dispatcher::{
    Attached, Attachment, Dispatcher, DispatcherError, Lone, Options, detach_alone,
};

pub(super) fn run(matches: &Matches<'_>) -> Result<End, Bad> {
    let id = matches.number("id")?.filter(|&id| id != 0);
    if id.is_none() && !matches.has("all") {
        return Err(Bad::request("Need prog ID or --all"));
    }
    let [device] = matches.operands[..] else { return Err(Bad::request("Must specify ifname")) };
    let dispatcher = environment::dispatcher();
    let mut end = End::Done;
    for (name, index) in interfaces(device, matches)? {
        // One interface that fails is no reason to leave the others as they are.
        if unload(&dispatcher, name, index, id.filter(|_| !matches.has("all"))) == End::Failed {
            end = End::Failed;
        }
    }
    Ok(end)
}

/// Unloads the program `id`, or all.
fn unload(dispatcher: &Dispatcher, device: &str, index: u32, id: Option<u32>) -> End {
    let attached = match dispatcher.read(index) {
        Ok(attached) => attached,
        Err(error) => return failed(&error.to_string()),
    };
    let options = Options { lone: Lone::AsLibxdp, end_links: true, ..Options::default() };
    match (attached, id) {
        (Attached::Nothing, _) => failed(&format!("No XDP program loaded on {device}")),
        (Attached::Chain(chain), Some(id)) => {
            if !chain.components.iter().any(|component| component.id == id) {
                return failed(&format!("Program with ID {id} not loaded on {device}"));
            }
            done(dispatcher.remove(index, &options, &[id]).map(drop))
        }
        (Attached::Chain(_), None) => done(dispatcher.remove_all(index, &options).map(drop)),
        (Attached::Newer { program, version }, _) => {
            done(Err(DispatcherError::Newer { program: program.id, version }))
        }
        (Attached::Broken { program, why }, _) => {
            done(Err(DispatcherError::Broken { program: program.id, why }))
        }
        (Attached::Legacy { program, .. }, id) => {
            if id.is_some_and(|id| id != program.id) {
                let id = id.unwrap_or_default();
                return failed(&format!("Program with ID {id} not loaded on {device}"));
            }
            alone(index, &program)
        }
    }
}

/// Takes off a program that runs without a dispatcher.
fn alone(index: u32, program: &Attachment) -> End {
    match detach_alone(index, program.id, program.mode) {
        Ok(()) => End::Done,
        Err(e) => failed(&format!("Unable to detach XDP program: {}", strerror(number_of(&e)))),
    }
}

fn done(result: Result<(), DispatcherError>) -> End {
    let Err(error) = result else { return End::Done };
    complain(&format!(" libxdp: {error}"));
    failed(&format!("Unable to detach XDP program: {}", strerror(error.errno())))
}

fn failed(message: &str) -> End {
    complain(message);
    End::Failed
}
