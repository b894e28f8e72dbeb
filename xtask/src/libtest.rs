//! Reads what libtest prints: counts, the names of failed tests, and what was skipped and why.

/// What a run of tests came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests that ran to the end and passed.
    pub(crate) passed: usize,
    /// Tests that failed, and things that kept tests from running.
    pub(crate) failed: usize,
    /// What did not run.
    pub(crate) skipped: Vec<Skip>,
    /// The names of the failed tests, or what went wrong.
    pub(crate) failures: Vec<String>,
}

/// Something that did not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skip {
    /// What.
    pub(crate) what: String,
    /// Why.
    pub(crate) why: String,
}

impl Tally {
    /// Counts something that went wrong outside of any one test.
    pub(crate) fn fail(&mut self, what: impl Into<String>) {
        self.failed += 1;
        self.failures.push(what.into());
    }

    /// Counts something that did not run.
    pub(crate) fn skip(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.skipped.push(Skip { what: what.into(), why: why.into() });
    }

    pub(crate) fn add(&mut self, other: Self) {
        let Self { passed, failed, skipped, failures } = other;
        self.passed += passed;
        self.failed += failed;
        self.skipped.extend(skipped);
        self.failures.extend(failures);
    }

    /// How many tests libtest told of.
    pub(crate) fn total(&self) -> usize {
        self.passed + self.failed + self.skipped.len()
    }
}

/// Takes the output of any number of test binaries, line by line.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    tally: Tally,
    /// Tests that passed for libtest and said `SKIP`, of the binary that is running.
    said_skip: usize,
    /// Inside the list of failed tests: their names so far.
    failed_names: Option<Vec<String>>,
    /// The binary that is running; empty when libtest has not said.
    unfinished: bool,
}

impl Reader {
    pub(crate) fn line(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.result(result);
        } else if line == "failures:" {
            self.failed_names = Some(Vec::new());
        } else if line.starts_with("---- ") {
            // The first list under that heading holds outputs, not names.
            self.failed_names = None;
        } else if let Some(skip) = said_skip(line) {
            self.said_skip += 1;
            self.tally.skipped.push(skip);
        } else if let Some(skip) = ignored(line) {
            self.tally.skipped.push(skip);
        } else if let (Some(names), Some(name)) =
            (&mut self.failed_names, line.strip_prefix("    "))
        {
            names.push(name.to_owned());
        } else if line.starts_with("running ") && line.trim_end_matches('s').ends_with(" test") {
            self.unfinished = true;
        }
    }

    /// The end of the output: `succeeded` is what the exit code says.
    pub(crate) fn finish(mut self, succeeded: bool) -> Tally {
        if self.unfinished {
            self.tally.fail("a test binary ended before it gave its result");
        } else if !succeeded && self.tally.failed == 0 {
            self.tally.fail("the run failed although no test did: see its output");
        }
        self.tally
    }

    fn result(&mut self, result: &str) {
        let passed = count(result, " passed").saturating_sub(self.said_skip);
        self.tally.passed += passed;
        self.tally.failed += count(result, " failed");
        self.tally.failures.extend(self.failed_names.take().unwrap_or_default());
        (self.said_skip, self.unfinished) = (0, false);
    }
}

/// The number before `word` in `ok. 3 passed; 0 failed; 1 ignored; ...`.
fn count(result: &str, word: &str) -> usize {
    let number = result.split(word).next().and_then(|before| before.rsplit([' ', ';']).next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// `SKIP <test>: <reason>`, alone on a line or behind libtest's `test <name> ... `.
fn said_skip(line: &str) -> Option<Skip> {
    let said = match line.split_once(" ... SKIP ") {
        Some((before, said)) if before.starts_with("test ") => said,
        _ => line.strip_prefix("SKIP ")?,
    };
    // `: ` and not `:`, because a test's name has `::` in it.
    let (what, why) = said.split_once(": ").unwrap_or((said, "no reason given"));
    Some(Skip { what: what.to_owned(), why: why.to_owned() })
}

/// `test <name> ... ignored, <reason>`.
fn ignored(line: &str) -> Option<Skip> {
    let (what, rest) = line.strip_prefix("test ")?.split_once(" ... ignored")?;
    let why = match rest.strip_prefix(", ") {
        Some(reason) => reason.to_owned(),
        None if rest.is_empty() => "ignored".to_owned(),
        None => return None,
    };
    Some(Skip { what: what.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(output: &str, succeeded: bool) -> Tally {
        let mut reader = Reader::default();
        output.lines().for_each(|line| reader.line(line));
        reader.finish(succeeded)
    }

    #[test]
    fn counts_add_up_over_binaries() {
        let tally = read(
            "running 2 tests\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; \
             finished in 0.01s\n\
             running 1 test\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n",
            true,
        );
        assert_eq!(tally, Tally { passed: 3, ..Tally::default() });
    }

    #[test]
    fn failed_tests_are_named_and_their_output_is_not_taken_for_names() {
        let tally = read(
            "running 2 tests\ntest a::one ... FAILED\ntest two ... ok\n\nfailures:\n\n\
             ---- a::one stdout ----\n    indented output\n\n\nfailures:\n    a::one\n\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n",
            false,
        );
        assert_eq!((tally.passed, tally.failed), (1, 1));
        assert_eq!(tally.failures, ["a::one"]);
    }

    #[test]
    fn a_skip_is_not_a_pass() {
        let tally = read(
            "running 4 tests\ntest vm::called ... SKIP vm::called: no xdp-tools: not installed\n\
             ok\ntest slow ... ignored, needs an hour\ntest odd ... ignored\n\
             SKIP replace: the kernel refuses freplace\n\
             test result: ok. 2 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out\n",
            true,
        );
        assert_eq!((tally.passed, tally.failed, tally.total()), (0, 0, 4));
        let skip = |what: &str, why: &str| Skip { what: what.into(), why: why.into() };
        assert_eq!(
            tally.skipped,
            [
                skip("vm::called", "no xdp-tools: not installed"),
                skip("slow", "needs an hour"),
                skip("odd", "ignored"),
                skip("replace", "the kernel refuses freplace"),
            ]
        );
    }

    #[test]
    fn a_binary_that_dies_is_a_failure() {
        assert_eq!(read("running 3 tests\ntest one ... ok\n", false).failed, 1);
        assert_eq!(read("running 3 tests\ntest one ... ok\n", true).failed, 1);
        assert_eq!(read("", false).failed, 1);
        assert_eq!(read("", true), Tally::default());
    }
}
