//! `fleet token`.

use super::{Context, now};
use crate::args::fleet::{CreateTokenArgs, TokenVerb};
use crate::error::{CliError, Exit};
use crate::render::fleet::{access as render, go_on};
use pointsman_model::fleet::TokenRequest;

pub(super) async fn run(context: &Context<'_>, verb: TokenVerb) -> Result<Exit, CliError> {
    match verb {
        TokenVerb::Ls => {
            let all = context.control.tokens().await?;
            context.output.answer(&all, |all, look| render::tokens(look, &all.items, now()))?;
            Ok(Exit::Done)
        }
        TokenVerb::Create(CreateTokenArgs { name, role, ttl }) => {
            let wanted = TokenRequest { name, role, ttl_seconds: ttl };
            let new = context.control.create_token(&wanted).await?;
            context.output.answer(&new, |new, look| render::new_token(look, new))?;
            Ok(Exit::Done)
        }
        TokenVerb::Revoke { name, sure } => {
            context.sure("revoke", &sure, |_| {
                go_on(&format!("revoke token {name}: whoever uses it is locked out at once"))
            })?;
            context.control.revoke_token(&name).await?;
            context.removed("token", name.as_str())
        }
    }
}
