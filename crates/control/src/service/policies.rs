//! Policies.

use super::check_policy;
use crate::app::App;
use crate::auth::Caller;
use crate::db::{Change, Precondition};
use crate::problem::Failure;
use pointsman_model::document::DocumentError;
use pointsman_model::fleet::{LibraryProgram, Policy, PolicySpec, ProgramRef, Role};
use pointsman_model::{PolicyName, ProgramName};
use std::collections::BTreeMap;

impl App {
    /// Makes a policy, or replaces what it says; also tells whether it is new.
    ///
    /// # Errors
    /// 403, 412, 428; 422: it names what is not there.
    pub async fn put_policy(
        &self,
        caller: &Caller,
        name: &PolicyName,
        spec: PolicySpec,
        precondition: Precondition,
    ) -> Result<(Policy, bool), Failure> {
        caller.expect(Role::Operator)?;
        let mut change = self.db.change(&caller.actor(), self.clock.now()).await?;
        checked(&mut change, &spec).await?;
        let put = change.put_policy(name, spec, precondition).await?;
        change.commit().await?;
        self.changed(format!("policy {name}"));
        Ok(put)
    }

    /// Checks a policy as [`Self::put_policy`] does, without keeping it.
    ///
    /// # Errors
    /// 422: it names what is not there.
    pub async fn check_policy(&self, spec: &PolicySpec) -> Result<(), Failure> {
        let programs = self.db.all_programs().await?;
        verdict(spec, programs)
    }

    /// Removes a policy.
    ///
    /// # Errors
    /// 403, 404, 412, 428.
    pub async fn delete_policy(
        &self,
        caller: &Caller,
        name: &PolicyName,
        precondition: Precondition,
    ) -> Result<(), Failure> {
        caller.expect(Role::Operator)?;
        let mut change = self.db.change(&caller.actor(), self.clock.now()).await?;
        change.delete_policy(name, precondition).await?;
        change.commit().await?;
        self.changed(format!("policy {name}"));
        Ok(())
    }
}

/// In the same transaction that keeps the policy: no program leaves the library between.
async fn checked(change: &mut Change, spec: &PolicySpec) -> Result<(), Failure> {
    verdict(spec, change.all_programs().await?)
}

/// Whether the policies that use a program still can, now that its object is another one.
pub(super) async fn still_good(change: &mut Change, program: &ProgramName) -> Result<(), Failure> {
    let library = by_name(change.all_programs().await?);
    let mut errors = Vec::new();
    for policy in change.all_policies().await? {
        let place = |at: usize| format!("/chain/{at}/");
        let places: Vec<_> = policy
            .spec
            .chain
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.program == ProgramRef::Library(program.clone()))
            .map(|(at, _)| place(at))
            .collect();
        let wrong = check_policy(&policy.spec, &library).into_iter();
        errors.extend(
            wrong.filter(|error| places.iter().any(|place| error.pointer.starts_with(place))).map(
                |error| DocumentError {
                    pointer: String::new(),
                    message: format!(
                        "policy {} at {}: {}",
                        policy.name, error.pointer, error.message
                    ),
                },
            ),
        );
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Failure::invalid("the object", errors))
}

fn verdict(spec: &PolicySpec, programs: Vec<LibraryProgram>) -> Result<(), Failure> {
    match check_policy(spec, &by_name(programs)) {
        errors if errors.is_empty() => Ok(()),
        errors => Err(Failure::invalid("the policy", errors)),
    }
}

fn by_name(programs: Vec<LibraryProgram>) -> BTreeMap<ProgramName, LibraryProgram> {
    programs.into_iter().map(|program| (program.name.clone(), program)).collect()
}
