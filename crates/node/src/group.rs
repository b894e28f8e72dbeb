//! Groups that an option names.

use std::path::{Path, PathBuf};

/// The groups of this host, for names.
const GROUPS: &str = "/etc/group";

/// The group is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option} {name} is not in {}; name one that is, or give its number", path.display())]
pub struct GroupError {
    /// The option.
    pub option: &'static str,
    /// What was given.
    pub name: String,
    /// Where it was looked for.
    pub path: PathBuf,
}

/// The number of the group that `option` gives; `None`: it gives none.
///
/// # Errors
/// [`GroupError`]: it is no number, and no name of this host's.
pub fn number(option: &'static str, name: Option<&str>) -> Result<Option<u32>, GroupError> {
    name.map(|name| number_in(option, name, Path::new(GROUPS))).transpose()
}

fn number_in(option: &'static str, name: &str, groups: &Path) -> Result<u32, GroupError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    // group(5): name:password:number:members.
    let number = std::fs::read_to_string(groups).ok().and_then(|text| {
        text.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
        })
    });
    number.ok_or_else(|| GroupError { option, name: name.into(), path: groups.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_names_and_numbers() {
        let directory = tempfile::tempdir().unwrap();
        let groups = directory.path().join("group");
        std::fs::write(&groups, "root:x:0:\nvideo:x:44:a,b\nbroken\n").unwrap();
        let of = |name| number_in("--status-group", name, &groups);
        assert_eq!(of("video").unwrap(), 44);
        assert_eq!(of("1007").unwrap(), 1007);
        let text = of("audio").unwrap_err().to_string();
        assert!(text.starts_with("--status-group audio") && text.contains("number"), "{text}");
        of("broken").unwrap_err();
        assert_eq!(number("--status-group", None), Ok(None));
    }
}
