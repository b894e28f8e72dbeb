//! Logins and tokens.

use super::NOTHING;
use crate::control::Found;
use crate::output::Look;
use crate::render::table::{Column, cell, lines, table};
use crate::render::text::{Tone, ago, minute, one_line};
use pointsman_model::fleet::{NewToken, Token};
use std::fmt::Write as _;

/// Who one is, and where.
pub(crate) fn whoami(look: Look, found: &Found, url: &str) -> String {
    let name = look.paint(Tone::Heading, &one_line(&found.name));
    format!("{name} ({}) at {}\n", found.role, one_line(url))
}

/// All tokens, a line each.
pub(crate) fn tokens(look: Look, tokens: &[Token], now_unix_ms: u64) -> String {
    if tokens.is_empty() {
        return "no token\n".to_owned();
    }
    let mut rows = table(
        look,
        &[
            ("NAME", Column::Whole),
            ("ROLE", Column::Whole),
            ("MADE", Column::Whole),
            ("USED", Column::Whole),
            ("ENDS", Column::Text),
        ],
    );
    for token in tokens {
        let used =
            token.used_unix_ms.map_or_else(|| "never".to_owned(), |used| ago(now_unix_ms, used));
        rows.add_row([
            cell(&token.name),
            cell(token.role),
            cell(minute(token.created_unix_ms)),
            cell(used),
            cell(ends(look, token, now_unix_ms)),
        ]);
    }
    lines(&rows)
}

fn ends(look: Look, token: &Token, now_unix_ms: u64) -> String {
    match (token.revoked_unix_ms, token.expires_unix_ms) {
        (Some(revoked), _) => look.paint(Tone::Bad, &format!("revoked {}", minute(revoked))),
        (None, Some(end)) if end <= now_unix_ms => {
            look.paint(Tone::Bad, &format!("expired {}", minute(end)))
        }
        (None, Some(end)) => minute(end),
        (None, None) => NOTHING.to_owned(),
    }
}

/// A token that was just made.
pub(crate) fn new_token(look: Look, new: &NewToken) -> String {
    let NewToken { token, secret } = new;
    let end = token
        .expires_unix_ms
        .map_or_else(|| "until it is revoked".to_owned(), |end| format!("until {}", minute(end)));
    let head = format!("token {} ({}), good {end}", token.name, token.role);
    let mut text = look.paint(Tone::Heading, &head) + "\n";
    let _ = writeln!(text, "  {}", one_line(secret));
    text + "shown this once: keep it where nobody else reads it\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fleet::samples::NOW;
    use crate::render::samples::PLAIN;
    use pointsman_model::TokenName;
    use pointsman_model::fleet::Role;

    fn token(name: &str) -> Token {
        Token {
            name: TokenName::new(name).unwrap(),
            role: Role::Operator,
            created_unix_ms: NOW - 86_400_000,
            expires_unix_ms: None,
            used_unix_ms: Some(NOW - 60_000),
            revoked_unix_ms: None,
        }
    }

    #[test]
    fn tokens_are_a_table_and_tell_which_are_over() {
        let all = [
            token("deploy"),
            Token { expires_unix_ms: Some(NOW + 1), used_unix_ms: None, ..token("short") },
            Token { expires_unix_ms: Some(NOW), ..token("over") },
            Token { revoked_unix_ms: Some(NOW - 1), ..token("gone") },
        ];
        insta::assert_snapshot!(tokens(PLAIN, &all, NOW), @"
        NAME    ROLE      MADE                  USED           ENDS
        deploy  operator  2024-12-31 00:01 UTC  1 min 0 s ago  -
        short   operator  2024-12-31 00:01 UTC  never          2025-01-01 00:01 UTC
        over    operator  2024-12-31 00:01 UTC  1 min 0 s ago  expired 2025-01-01 00:01 UTC
        gone    operator  2024-12-31 00:01 UTC  1 min 0 s ago  revoked 2025-01-01 00:00 UTC
        ");
        assert_eq!(tokens(PLAIN, &[], NOW), "no token\n");
    }

    #[test]
    fn a_new_token_is_shown_with_how_long_it_is_good() {
        let new = NewToken { token: token("deploy"), secret: "pmt_x\u{1b}[2J".into() };
        insta::assert_snapshot!(new_token(PLAIN, &new), @"
        token deploy (operator), good until it is revoked
          pmt_x?[2J
        shown this once: keep it where nobody else reads it
        ");
    }
}
