//! `fleet status`, `fleet snapshots`, `fleet audit`.

use super::{Context, now};
use crate::args::fleet::{AuditArgs, SnapshotsArgs};
use crate::error::{CliError, Exit};
use crate::render::fleet::status::Glance;
use crate::render::fleet::{audit as render_audit, snapshot as render, status as render_status};

pub(super) async fn status(context: &Context<'_>) -> Result<Exit, CliError> {
    let nodes = context.control.nodes(&[], None).await?;
    let snapshot = context.control.snapshots(1).await?.items.into_iter().next();
    let signer = context.control.whoami().await?.signer;
    let mut glance = Glance::new(nodes.items, snapshot, signer);
    glance.publishing = context.control.publishing().await?;
    context.output.answer(&glance, |glance, look| render_status::glance(look, glance, now()))?;
    Ok(Exit::Done)
}

pub(super) async fn snapshots(
    context: &Context<'_>,
    args: &SnapshotsArgs,
) -> Result<Exit, CliError> {
    match args.number {
        Some(number) => {
            let one = context.control.snapshot(number).await?;
            context.output.answer(&one, |one, look| render::snapshot(look, one))?;
        }
        None => {
            let many = context.control.snapshots(args.lines).await?;
            context.output.answer(&many, |many, look| render::snapshots(look, &many.items))?;
        }
    }
    Ok(Exit::Done)
}

pub(super) async fn audit(context: &Context<'_>, args: &AuditArgs) -> Result<Exit, CliError> {
    let AuditArgs { object, who, lines, changes } = args;
    let page = context.control.audit(object.as_deref(), who.as_deref(), *lines).await?;
    context.output.answer(&page, |page, look| render_audit::audit(look, &page.items, *changes))?;
    Ok(Exit::Done)
}
