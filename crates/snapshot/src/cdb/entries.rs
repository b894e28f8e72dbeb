//! Everything in a database, in the order in which it was written.

use super::{CdbError, HEADER, PAIR, TABLES, pair};

/// The records of a database; ends after the first error.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    /// The file up to where its records end.
    file: &'a [u8],
    at: usize,
    /// What is wrong with the header.
    fault: Option<CdbError>,
    /// That records are missing at the end: what is there comes first.
    cut: Option<CdbError>,
}

/// All records of the database that is `file`. They end where the first table starts.
#[must_use]
pub fn entries(file: &[u8]) -> Entries<'_> {
    let header = HEADER as usize;
    if file.len() < header {
        let missing = (header - file.len()) as u64;
        let fault = CdbError::Truncated { offset: file.len() as u64, missing };
        return Entries { file, at: file.len(), fault: Some(fault), cut: None };
    }
    // An empty table may be said to be anywhere.
    let tables = (0..TABLES).filter_map(|table| pair(&file[table * PAIR..]));
    let first = tables.filter(|&(_, slots)| slots > 0).map(|(position, _)| position).min();
    let end = first.map_or(header as u64, u64::from);
    if end < HEADER {
        let fault = CdbError::Misplaced { what: "a table", position: end };
        return Entries { file, at: file.len(), fault: Some(fault), cut: None };
    }
    match usize::try_from(end).ok().and_then(|end| file.get(..end)) {
        Some(file) => Entries { file, at: header, fault: None, cut: None },
        None => {
            let missing = end - file.len() as u64;
            let cut = CdbError::Truncated { offset: file.len() as u64, missing };
            Entries { file, at: header, fault: None, cut: Some(cut) }
        }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), CdbError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(fault) = self.fault.take() {
            return Some(Err(fault));
        }
        let rest = &self.file[self.at..];
        if rest.is_empty() {
            return self.cut.take().map(Err);
        }
        let offset = self.at as u64;
        // Whatever comes of it, there is nothing to go on from but a whole record.
        self.at = self.file.len();
        let cut = self.cut.take();
        let Some((key, value)) = pair(rest) else {
            let missing = (PAIR - rest.len()) as u64;
            return Some(Err(CdbError::Truncated { offset, missing }));
        };
        let (key, body) = (u64::from(key), u64::from(key) + u64::from(value));
        let have = (rest.len() - PAIR) as u64;
        if body > have {
            return Some(Err(CdbError::Truncated { offset, missing: body - have }));
        }
        let (body, _) = rest[PAIR..].split_at(body as usize);
        self.at = offset as usize + PAIR + body.len();
        self.cut = cut;
        Some(Ok(body.split_at(key as usize)))
    }
}
