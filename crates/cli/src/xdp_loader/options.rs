//! Arguments as getopt reads them: options and operands in any order, short ones joined, long ones
//! cut as long as they stay clear. Pure.

use std::fmt;

/// An option of a command.
#[derive(Debug)]
pub(crate) struct Flag {
    pub(crate) short: Option<char>,
    pub(crate) long: &'static str,
    /// What stands for the value in the help; `None`: it takes none.
    pub(crate) value: Option<&'static str>,
    pub(crate) help: &'static str,
}

/// A command.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) operands: &'static str,
    /// Name and meaning of each operand.
    pub(crate) operand_help: &'static [(&'static str, &'static str)],
    pub(crate) required: usize,
    /// The most operands.
    pub(crate) most: usize,
    pub(crate) flags: &'static [Flag],
}

/// What a command line says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Matches<'a> {
    /// Long names with values, as given.
    options: Vec<(&'static str, &'a str)>,
    pub(crate) operands: Vec<&'a str>,
}

/// A command line that makes no sense.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bad {
    pub(crate) message: String,
    /// Whether the usage follows, and whether it names the command.
    pub(crate) usage: bool,
    pub(crate) named: bool,
}

impl Bad {
    /// About an option or a missing operand.
    fn option(message: String) -> Self {
        Self { message, usage: true, named: false }
    }

    /// About an operand.
    pub(crate) fn operand(message: String) -> Self {
        Self { message, usage: true, named: true }
    }

    /// About what is asked for.
    pub(crate) fn request(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), usage: false, named: false }
    }

    /// About a value.
    pub(crate) fn value(option: &str) -> Self {
        Self::option(format!("Couldn't parse option {option}: Invalid argument."))
    }
}

impl<'a> Matches<'a> {
    pub(crate) fn has(&self, long: &str) -> bool {
        self.options.iter().any(|(name, _)| *name == long)
    }

    /// The last value that is given.
    pub(crate) fn value(&self, long: &str) -> Option<&'a str> {
        self.options.iter().rev().find(|(name, _)| *name == long).map(|(_, value)| *value)
    }

    /// Every value that is given.
    pub(crate) fn all(&self, long: &'static str) -> impl Iterator<Item = &'a str> {
        self.options.iter().filter(move |(name, _)| *name == long).map(|(_, value)| *value)
    }

    /// A number.
    pub(crate) fn number(&self, long: &str) -> Result<Option<u32>, Bad> {
        let value = self.value(long).map(str::parse);
        value.transpose().map_err(|_| Bad::value(long))
    }
}

/// Reads the arguments of a command.
pub(crate) fn parse<'a>(command: &Command, arguments: &[&'a str]) -> Result<Matches<'a>, Bad> {
    let mut matches = Matches::default();
    let mut rest = arguments.iter().copied();
    let mut options_over = false;
    while let Some(argument) = rest.next() {
        if options_over || argument == "-" || !argument.starts_with('-') {
            matches.operands.push(argument);
        } else if argument == "--" {
            options_over = true;
        } else if let Some(long) = argument.strip_prefix("--") {
            matches.options.push(read_long(command, long, &mut rest)?);
        } else {
            read_short(command, &argument[1..], &mut rest, &mut matches)?;
        }
    }
    if matches.has("help") || matches.has("version") {
        return Ok(matches);
    }
    if matches.operands.len() < command.required {
        let (missing, _) = command.operand_help[matches.operands.len()];
        return Err(Bad::option(format!("Missing required parameter {missing}")));
    }
    if matches.operands.len() > command.most {
        return Err(Bad::operand(String::new()));
    }
    Ok(matches)
}

fn read_long<'a>(
    command: &Command,
    text: &'a str,
    rest: &mut impl Iterator<Item = &'a str>,
) -> Result<(&'static str, &'a str), Bad> {
    let (name, given) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    let begins: Vec<_> = command.flags.iter().filter(|f| f.long.starts_with(name)).collect();
    let exact = command.flags.iter().find(|flag| flag.long == name);
    let flag = match (exact, begins.as_slice()) {
        (Some(flag), _) => flag,
        (None, [flag]) => *flag,
        (None, []) => {
            return Err(Bad::option(format!("{}: unrecognized option '--{name}'", command.name)));
        }
        (None, several) => {
            let names: Vec<_> = several.iter().map(|flag| format!("'--{}'", flag.long)).collect();
            return Err(Bad::option(format!(
                "{}: option '--{name}' is ambiguous; possibilities: {}",
                command.name,
                names.join(" ")
            )));
        }
    };
    let wrong =
        |what: &str| Bad::option(format!("{}: option '--{}' {what}", command.name, flag.long));
    match (flag.value, given) {
        (None, None) => Ok((flag.long, "")),
        (None, Some(_)) => Err(wrong("doesn't allow an argument")),
        (Some(_), Some(value)) => Ok((flag.long, value)),
        (Some(_), None) => {
            Ok((flag.long, rest.next().ok_or_else(|| wrong("requires an argument"))?))
        }
    }
}

/// Reads `-v`, `-vv`, `-P7` and `-P 7`.
fn read_short<'a>(
    command: &Command,
    letters: &'a str,
    rest: &mut impl Iterator<Item = &'a str>,
    matches: &mut Matches<'a>,
) -> Result<(), Bad> {
    for (at, letter) in letters.char_indices() {
        let Some(flag) = command.flags.iter().find(|flag| flag.short == Some(letter)) else {
            return Err(Bad::option(format!("{}: invalid option -- '{letter}'", command.name)));
        };
        if flag.value.is_none() {
            matches.options.push((flag.long, ""));
            continue;
        }
        let joined = &letters[at + letter.len_utf8()..];
        let value = Some(joined).filter(|joined| !joined.is_empty()).or_else(|| rest.next());
        let missing =
            || Bad::option(format!("{}: option requires an argument -- '{letter}'", command.name));
        matches.options.push((flag.long, value.ok_or_else(missing)?));
        return Ok(());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xdp_loader::help::find;

    fn load<'a>(arguments: &[&'a str]) -> Result<Matches<'a>, String> {
        parse(find("load").unwrap(), arguments).map_err(|bad| bad.message)
    }

    #[test]
    fn options_stand_anywhere_and_in_all_spellings() {
        for line in [
            &["-m", "skb", "-vv", "eth0", "a.o"][..],
            &["eth0", "-mskb", "-v", "a.o", "-v"],
            &["--mode=skb", "eth0", "--verbose", "--verb", "a.o"],
            &["--mod", "skb", "-v", "-v", "--", "eth0", "a.o"],
        ] {
            let matches = load(line).unwrap();
            assert_eq!(matches.operands, ["eth0", "a.o"], "{line:?}");
            assert_eq!(matches.value("mode"), Some("skb"), "{line:?}");
            assert_eq!(matches.all("verbose").count(), 2, "{line:?}");
        }
    }

    #[test]
    fn mistakes_are_told_as_getopt_tells_them() {
        for (line, message) in [
            (&["--bogus"][..], "load: unrecognized option '--bogus'"),
            (&["-x"], "load: invalid option -- 'x'"),
            (&["-P"], "load: option requires an argument -- 'P'"),
            (&["--pin-path"], "load: option '--pin-path' requires an argument"),
            (&["--verbose=1"], "load: option '--verbose' doesn't allow an argument"),
            (
                &["--p", "x"],
                "load: option '--p' is ambiguous; possibilities: '--pin-path' '--prog-name' \
                 '--prio'",
            ),
            (&[], "Missing required parameter <ifname>"),
            (&["eth0"], "Missing required parameter <filenames>"),
        ] {
            assert_eq!(load(line).unwrap_err(), message);
        }
    }

    #[test]
    fn numbers_are_numbers() {
        let line = ["-P", "0", "eth0", "a.o"];
        assert_eq!(load(&line).unwrap().number("prio"), Ok(Some(0)));
        let line = ["-P", "abc", "eth0", "a.o"];
        assert_eq!(load(&line).unwrap().number("prio"), Err(Bad::value("prio")));
    }
}
