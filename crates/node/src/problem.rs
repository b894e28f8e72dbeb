//! Errors as the API tells them.

use crate::disk::StorageError;
use crate::host::KernelError;
use pointsman_model::api::{Problem, ProblemKind};
use pointsman_model::document::DocumentError;

/// The most errors of one document that are told: they go into the log, line by line, and into
/// every status, and one slip can make an error at each of a hundred thousand places.
const MOST_ERRORS: usize = 50;

/// A document that cannot be read as one.
#[must_use]
pub fn invalid(mut errors: Vec<DocumentError>) -> Problem {
    let title = match errors.len() {
        1 => "the document is not valid; nothing was changed".to_owned(),
        n => format!("the document is not valid ({n} errors); nothing was changed"),
    };
    let more = errors.len().saturating_sub(MOST_ERRORS);
    if more > 0 {
        errors.truncate(MOST_ERRORS);
        let message = format!("{more} more errors are not shown; correct these first");
        errors.push(DocumentError { pointer: String::new(), message });
    }
    Problem { errors, ..plain(ProblemKind::InvalidDocument, 422, title) }
}

/// A valid document that must not be applied.
#[must_use]
pub fn guarded(error: DocumentError) -> Problem {
    let title = "the document is not applied; nothing was changed".to_owned();
    Problem { errors: vec![error], ..plain(ProblemKind::GuardedDocument, 422, title) }
}

/// The disk did not take what must be on it before anything changes.
#[must_use]
pub fn storage(error: &StorageError) -> Problem {
    plain(ProblemKind::Storage, 507, format!("{error}; nothing was changed"))
}

/// The kernel did not tell what must be known.
#[must_use]
pub fn kernel(error: &KernelError) -> Problem {
    plain(ProblemKind::Internal, 500, error.to_string())
}

/// The engine does not answer.
#[must_use]
pub fn engine_gone() -> Problem {
    let title = "the engine has stopped; running chains stay as they are. The daemon ends now: see \
                 its log, and start it again";
    plain(ProblemKind::Internal, 500, title.to_owned())
}

/// A problem without errors in a document.
#[must_use]
pub fn plain(kind: ProblemKind, status: u16, title: String) -> Problem {
    Problem { kind, status, title, errors: Vec::new() }
}

/// A problem as errors of a document, for the status.
#[must_use]
pub fn document_errors(problem: Problem) -> Vec<DocumentError> {
    if problem.errors.is_empty() {
        return vec![DocumentError { pointer: String::new(), message: problem.title }];
    }
    problem.errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_is_wrong_everywhere_does_not_fill_the_log() {
        let error = |n: usize| DocumentError { pointer: format!("/{n}"), message: "no".into() };
        let few = invalid((0..MOST_ERRORS).map(error).collect());
        assert_eq!(few.errors.len(), MOST_ERRORS);
        let many = invalid((0..100_000).map(error).collect());
        assert_eq!(many.errors.len(), MOST_ERRORS + 1);
        assert_eq!(many.errors[MOST_ERRORS - 1], error(MOST_ERRORS - 1));
        assert!(many.errors[MOST_ERRORS].message.starts_with("99950 more"), "{many:?}");
        assert!(many.title.contains("100000 errors"), "{}", many.title);
    }
}
