//! The commands, and what is printed about them.

use super::options::{Command, Flag};
use super::{End, NAME, complain, say};

const fn flag(
    short: Option<char>,
    long: &'static str,
    value: Option<&'static str>,
    help: &'static str,
) -> Flag {
    Flag { short, long, value, help }
}

const VERBOSE: Flag =
    flag(Some('v'), "verbose", None, "Enable verbose logging (-vv: more verbose)");
const VERSION: Flag = flag(None, "version", None, "Display version information");
const HELP: Flag = flag(Some('h'), "help", None, "Show this help");
const ALSO: Flag =
    flag(None, "also", Some("<ifname>"), "Do the same on <ifname> (may be given several times)");
const PRIO: Flag = flag(Some('P'), "prio", Some(""), "Set run priority of program");
const ACTIONS: Flag = flag(
    Some('A'),
    "actions",
    Some("<actions>"),
    "Chain call actions (default: XDP_PASS). e.g. XDP_PASS,XDP_DROP (valid values: \
     XDP_ABORTED,XDP_DROP,XDP_PASS,XDP_TX,XDP_REDIRECT)",
);
const JSON: Flag = flag(None, "json", None, "Print JSON");

static COMMANDS: [Command; 7] = [
    Command {
        name: "load",
        about: "Load an XDP program on an interface",
        operands: "<ifname> <filenames>",
        operand_help: &[
            ("<ifname>", "Load on device <ifname>"),
            ("<filenames>", "Load programs from <filenames>"),
        ],
        required: 2,
        most: usize::MAX,
        flags: &[
            flag(
                Some('m'),
                "mode",
                Some("<mode>"),
                "Load XDP program in <mode>; default native (valid values: \
                 native,skb,hw,unspecified)",
            ),
            flag(Some('p'), "pin-path", Some(""), "Path to pin maps under (must be in bpffs)."),
            flag(
                Some('s'),
                "section",
                Some("<section>"),
                "ELF section name of program to load (default: first in file).",
            ),
            flag(
                Some('n'),
                "prog-name",
                Some("<prog_name>"),
                "BPF program name of program to load (default: first in file).",
            ),
            PRIO,
            ACTIONS,
            flag(None, "replace", Some("<id>"), "Put the program in place of the one with <id>"),
            ALSO,
            JSON,
            VERBOSE,
            VERSION,
            HELP,
        ],
    },
    Command {
        name: "unload",
        about: "Unload an XDP program from an interface",
        operands: "<ifname>",
        operand_help: &[("<ifname>", "Unload from device <ifname>")],
        required: 0,
        most: 1,
        flags: &[
            flag(Some('i'), "id", Some("<id>"), "Unload program with id <id>"),
            flag(Some('a'), "all", None, "Unload all programs from interface"),
            ALSO,
            VERBOSE,
            VERSION,
            HELP,
        ],
    },
    Command {
        name: "status",
        about: "Show XDP program status",
        operands: "[ifname]",
        operand_help: &[("[ifname]", "Show status for device [ifname] (default all interfaces)")],
        required: 0,
        most: 1,
        flags: &[ALSO, JSON, VERBOSE, VERSION, HELP],
    },
    Command {
        name: "clean",
        about: "Clean up detached program links in XDP bpffs directory",
        operands: "[ifname]",
        operand_help: &[(
            "[ifname]",
            "Clean up detached program links for [ifname] (default all interfaces)",
        )],
        required: 0,
        most: 1,
        flags: &[VERBOSE, VERSION, HELP],
    },
    Command {
        name: "features",
        about: "Show XDP features supported by the NIC",
        operands: "<ifname>",
        operand_help: &[("<ifname>", "Show XDP features for device <ifname>")],
        required: 1,
        most: 1,
        flags: &[JSON, VERBOSE, VERSION, HELP],
    },
    Command {
        name: "modify",
        about: "Change the priority or actions of a program that is attached, in one swap",
        operands: "<ifname>",
        operand_help: &[("<ifname>", "Change on device <ifname>")],
        required: 1,
        most: 1,
        flags: &[
            flag(Some('i'), "id", Some("<id>"), "Change program with id <id>"),
            PRIO,
            ACTIONS,
            VERBOSE,
            VERSION,
            HELP,
        ],
    },
    Command {
        name: "help",
        about: "show this help message",
        operands: "",
        operand_help: &[],
        required: 0,
        most: usize::MAX,
        flags: &[],
    },
];

/// The command of a name, or of the beginning of only one.
pub(super) fn find(name: &str) -> Option<&'static Command> {
    let begins: Vec<_> = COMMANDS.iter().filter(|command| command.name.starts_with(name)).collect();
    match begins.as_slice() {
        [only] if !name.is_empty() => Some(only),
        several => several.iter().find(|command| command.name == name).copied(),
    }
}

/// All commands, on standard error and with the code that the original has.
pub(super) fn of_all() -> End {
    complain(&format!(
        "Usage: {NAME} COMMAND [options]

COMMAND can be one of:
       load        - load an XDP program on an interface
       unload      - unload an XDP program from an interface
       status      - show current XDP program status
       clean       - clean up detached program links in XDP bpffs directory
       features    - show XDP features supported by the NIC
       modify      - change priority or actions of an attached program
       help        - show this help message

Use '{NAME} COMMAND --help' to see options for each command"
    ));
    End::Error(1)
}

/// One command, on standard output.
pub(super) fn of(command: &Command) -> End {
    let mut text = format!(
        "\nUsage: {NAME} {} [options] {}\n\n {}\n\n",
        command.name, command.operands, command.about
    );
    let (required, optional) = command.operand_help.split_at(command.required);
    if !required.is_empty() {
        text += "Required parameters:\n";
        required.iter().for_each(|(name, help)| text += &format!("  {name:<32}{help}\n"));
        text.push('\n');
    }
    text += "Options:\n";
    optional.iter().for_each(|(name, help)| text += &format!("  {name:<32}{help}\n"));
    for flag in command.flags {
        let short = flag.short.map_or("   ".to_owned(), |short| format!("-{short},"));
        let value = flag.value.filter(|value| !value.is_empty());
        let long = value.map_or(flag.long.to_owned(), |value| format!("{} {value}", flag.long));
        text += &format!(" {short} --{long:<27}{}\n", flag.help);
    }
    say(&(text + "\n"));
    End::Failed
}

/// The version, with the code that the original has.
pub(super) fn version() -> End {
    let version = env!("CARGO_PKG_VERSION");
    let libbpf = pointsman_bpf::libbpf_version();
    say(&format!("{NAME} version {version} (pointsman) using libbpf version {libbpf}\n"));
    End::Failed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_by_what_is_clear() {
        for (name, found) in [
            ("l", Some("load")),
            ("u", Some("unload")),
            ("s", Some("status")),
            ("c", Some("clean")),
            ("f", Some("features")),
            ("h", Some("help")),
            ("status", Some("status")),
            ("x", None),
            ("", None),
            ("-v", None),
        ] {
            assert_eq!(find(name).map(|command| command.name), found, "{name:?}");
        }
    }

    #[test]
    fn names_and_letters_are_used_once_a_command() {
        for command in &COMMANDS {
            for (at, flag) in command.flags.iter().enumerate() {
                let others = &command.flags[at + 1..];
                assert!(others.iter().all(|other| other.long != flag.long), "{flag:?}");
                assert!(
                    flag.short.is_none() || others.iter().all(|other| other.short != flag.short),
                    "{flag:?}"
                );
            }
        }
    }
}
