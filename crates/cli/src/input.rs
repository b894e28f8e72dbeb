//! Reading the files that the operator names.

use crate::error::CliError;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Reads at most `limit` bytes of `path`; `-` is standard input.
///
/// The limit holds while reading, so that an endless pipe or a device ends in an error.
pub(crate) fn read(path: &Path, what: &'static str, limit: usize) -> Result<Vec<u8>, CliError> {
    let stdin = path == Path::new("-");
    let name = if stdin { "standard input".to_owned() } else { path.display().to_string() };
    let opened: std::io::Result<Box<dyn Read>> = match stdin {
        true => Ok(Box::new(std::io::stdin().lock())),
        false => File::open(path).map(|file| Box::new(file) as Box<dyn Read>),
    };
    let mut bytes = Vec::new();
    match opened.and_then(|source| source.take(limit as u64 + 1).read_to_end(&mut bytes)) {
        Err(source) => Err(CliError::Read { name, source }),
        Ok(_) if bytes.len() > limit => Err(CliError::FileTooLarge { name, what, limit }),
        Ok(_) => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_exact_and_holds_for_endless_files() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"12345").unwrap();
        assert_eq!(read(file.path(), "test", 5).unwrap(), b"12345");
        let error = read(file.path(), "a test", 4).unwrap_err().to_string();
        assert!(error.ends_with("is larger than the limit of 4 bytes for a test"), "{error}");
        assert!(matches!(
            read(Path::new("/dev/zero"), "test", 1 << 20),
            Err(CliError::FileTooLarge { .. })
        ));
    }

    #[test]
    fn a_missing_file_and_a_directory_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("absent.json");
        let error = read(&missing, "test", 5).unwrap_err().to_string();
        assert!(error.contains("absent.json: No such file"), "{error}");
        let error = read(directory.path(), "test", 5).unwrap_err().to_string();
        assert!(error.contains("Is a directory"), "{error}");
    }
}
