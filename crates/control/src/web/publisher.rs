//! Where the pages meet the publisher.

use crate::app::App;
use crate::auth::Caller;
use crate::problem::Failure;
use pointsman_model::PolicyName;
use pointsman_model::fleet::{Cause, PolicyDiff, PolicySpec, PublishReport, PublishRequest, Role};

/// What a policy would change, were it saved and published.
pub(super) async fn diff(
    app: &App,
    name: &PolicyName,
    spec: PolicySpec,
) -> Result<PolicyDiff, Failure> {
    app.check_policy(&spec).await?;
    Ok(app.publisher.policy_diff(name, Some(spec)).await?)
}

/// The difference of two versions of a policy.
pub(super) fn difference(before: Option<&PolicySpec>, after: Option<&PolicySpec>) -> String {
    pointsman_fleet::diff_policies(before, after)
}

/// Publishes, or tells what that would do.
pub(super) async fn publish(
    app: &App,
    caller: &Caller,
    request: PublishRequest,
) -> Result<PublishReport, Failure> {
    caller.expect(Role::Operator)?;
    Ok(app.publisher.publish(request, caller.actor(), Cause::Request).await?)
}
