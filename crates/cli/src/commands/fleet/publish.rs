//! `fleet publish`.

use super::wait::{Watch, Watched};
use super::{Context, policy, progress};
use crate::args::fleet::PublishArgs;
use crate::control::ControlError;
use crate::error::{CliError, Exit};
use crate::output::pretty;
use crate::render::fleet::changes::Tense;
use crate::render::fleet::publish::{self as render, Waited};
use pointsman_model::fleet::{PublishReport, PublishRequest};
use serde::Serialize;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

/// How often nodes are asked after, while there are few of them.
const FEW_INTERVAL: Duration = Duration::from_millis(500);

/// And while there are many: each look lists the whole fleet.
const MANY_INTERVAL: Duration = Duration::from_secs(2);

/// The most nodes that are asked after one by one.
const FEW: usize = 32;

#[derive(Debug, Serialize)]
struct PublishedAndWaited<'a> {
    #[serde(flatten)]
    report: &'a PublishReport,
    waited: &'a Waited,
}

pub(super) async fn publish(context: &Context<'_>, args: &PublishArgs) -> Result<Exit, CliError> {
    let PublishArgs { dry_run, allow_empty, wait } = args;
    let wanted = PublishRequest { dry_run: *dry_run, allow_empty: *allow_empty };
    let report = context.control.publish(&wanted).await?;
    let tense = if *dry_run { Tense::Would } else { Tense::Did };
    if !context.output.json {
        context.output.print(&render::publish(context.output.look(), &report, tense))?;
    }
    let waited = match wait {
        Some(timeout) => Some(wait_for(context, &report, *timeout).await?),
        None => None,
    };
    match (context.output.json, &waited) {
        (true, None) => context.output.print(&pretty(&report))?,
        (true, Some(waited)) => {
            context.output.print(&pretty(&PublishedAndWaited { report: &report, waited }))?;
        }
        (false, Some(waited)) => {
            context.output.print(&render::waited(context.output.look(), waited))?;
        }
        (false, None) => {}
    }
    let exit = match policy::outcome(&report.nodes) {
        Exit::Pending if !*dry_run => Exit::Done,
        exit => exit,
    };
    Ok(if waited.is_some_and(|waited| !waited.all()) { Exit::Refused } else { exit })
}

async fn wait_for(
    context: &Context<'_>,
    report: &PublishReport,
    timeout: Duration,
) -> Result<Waited, CliError> {
    let begun = Instant::now();
    let mut watch = Watch::new(report);
    let bar = progress::items(context.output, watch.left(), "in force");
    let interval = if watch.left() > FEW { MANY_INTERVAL } else { FEW_INTERVAL };
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let deadline = tokio::time::sleep(timeout);
    tokio::pin!(deadline);
    let mut trouble = None;
    while watch.left() > 0 {
        tokio::select! {
            () = &mut deadline => break,
            _ = ticks.tick() => {}
        }
        // What was published is published: a control plane that is away for a moment is no
        // reason to stop looking.
        trouble = match look(context, &mut watch).await {
            Ok(()) => None,
            Err(error) if error.is_passing() => Some(error),
            Err(error) => return Err(error.into()),
        };
        bar.set_position(watch.settled() as u64);
        let failing = watch.failing();
        bar.set_message(if failing > 0 { format!("{failing} failing") } else { String::new() });
    }
    bar.finish_and_clear();
    let milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(watch.finish(milliseconds, trouble.map(|error| error.to_string()).as_deref()))
}

/// Looks once at the nodes that are waited for.
async fn look(context: &Context<'_>, watch: &mut Watch) -> Result<(), ControlError> {
    let control = &context.control;
    let names = watch.names();
    if names.len() > FEW {
        let nodes = control.nodes(&[], None).await?.items;
        watch.gone(&nodes);
        for node in &nodes {
            // Only where it fails does the report say of what.
            let report = match watch.look(node) {
                Watched::Unsure => control.report(&node.name).await?,
                Watched::Sure => continue,
            };
            watch.look_closer(node, report.as_ref());
        }
        return Ok(());
    }
    for name in names {
        let node = match control.node(&name).await {
            Err(error) if error.is(pointsman_model::api::ProblemKind::NotFound) => {
                watch.left_the_fleet(&name);
                continue;
            }
            other => other?,
        };
        if watch.look(&node) == Watched::Unsure {
            let report = control.report(&name).await?;
            watch.look_closer(&node, report.as_ref());
        }
    }
    Ok(())
}
