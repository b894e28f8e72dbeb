//! The flow rules of a card, by ioctl: generic netlink has no message for them.
//!
//! Which location is free and whose rule is where is for the planner to say: nothing here touches a
//! rule that was not named.

mod code;
mod layout;

use crate::{Control, ControlError};
use code::{decode, encode, table_of};
use layout::{
    COUNT_RULES, DELETE_RULE, FlowSpec, GET_RINGS, GET_RULE, INSERT_RULE, LIST_RULES, LOCATIONS_AT,
    Rxnfc, SPECIAL,
};
use pointsman_model::flow::FlowRule;
use rustix::io::Errno;

/// The table of flow rules of a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowTable {
    /// How many rules it has room for; `None`: the driver does not say.
    pub size: Option<u32>,
    /// Whether the driver finds a location itself. The others want to be told one.
    pub chooses_location: bool,
    /// Where there are rules, ascending.
    pub locations: Vec<u32>,
}

/// A rule that is in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedRule {
    /// Where. Of two rules for the same packet the one at the lower location counts.
    pub location: u32,
    /// What it says; `None`: something that no rule of ours can say.
    pub rule: Option<FlowRule>,
}

/// What the commands are for, in words for errors.
const LIST: &str = "list flow rules";
const INSERT: &str = "add a flow rule";
const DELETE: &str = "delete a flow rule";
const RINGS: &str = "say how many receive queues it has";

/// More rules than any card has room for. A driver that says so is wrong, and its word would be
/// taken for the size of an allocation.
const MOST_RULES: u32 = 1 << 20;

impl Control {
    /// How many receive queues are in use, as flow rules and RSS count them.
    ///
    /// # Errors
    /// [`ControlError`]: drivers without either do not say.
    pub fn receive_queues(&self) -> Result<u32, ControlError> {
        let mut command = Rxnfc::new(GET_RINGS);
        self.rxnfc(&mut command).map_err(|errno| self.failed(RINGS, errno))?;
        Ok(u32::try_from(command.data).unwrap_or(u32::MAX))
    }

    /// The table, with where there are rules.
    ///
    /// # Errors
    /// [`ControlError`]; [`ControlError::Unsupported`]: the card has no flow rules.
    pub fn flow_table(&self) -> Result<FlowTable, ControlError> {
        /// Rules that come while they are counted make it look again, and not for ever.
        const TRIES: usize = 5;
        let failed = |errno| self.failed(LIST, errno);
        let mut tries = 0;
        loop {
            tries += 1;
            let mut counted = Rxnfc::new(COUNT_RULES);
            self.rxnfc(&mut counted).map_err(failed)?;
            let (size, chooses_location) = table_of(counted.data);
            let count = counted.rule_count.min(MOST_RULES);
            match self.list(count) {
                Ok((listed, mut locations)) => {
                    locations.sort_unstable();
                    locations.dedup();
                    let size = size.or(table_of(listed.data).0);
                    return Ok(FlowTable { size, chooses_location, locations });
                }
                Err(Errno::MSGSIZE) if tries < TRIES => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
    }

    /// The rule at a location.
    ///
    /// # Errors
    /// [`ControlError::NoRule`]: there is none; or another [`ControlError`].
    pub fn flow_rule(&self, location: u32) -> Result<ListedRule, ControlError> {
        let mut command = Rxnfc::new(GET_RULE);
        command.rule.location = location;
        match self.rxnfc(&mut command) {
            Ok(()) => Ok(ListedRule { location, rule: decode(&command.rule) }),
            // Which of them it is differs between drivers.
            Err(Errno::NOENT | Errno::INVAL) => Err(self.no_rule(location)),
            Err(errno) => Err(self.failed(LIST, errno)),
        }
    }

    /// All rules. One that is deleted meanwhile is left out.
    ///
    /// # Errors
    /// [`ControlError`]
    pub fn flow_rules(&self) -> Result<Vec<ListedRule>, ControlError> {
        let mut rules = Vec::new();
        for location in self.flow_table()?.locations {
            match self.flow_rule(location) {
                Ok(rule) => rules.push(rule),
                Err(ControlError::NoRule { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(rules)
    }

    /// Adds a rule at a location, or wherever the driver likes; where it is then.
    ///
    /// **A rule that is at the location already is replaced by many drivers.** So look at the
    /// [table](Self::flow_table) first.
    ///
    /// # Errors
    /// [`ControlError`]: the table is full, the driver does not take such a rule or such a
    /// location, the card is busy.
    pub fn insert_flow_rule(
        &self,
        rule: &FlowRule,
        location: Option<u32>,
    ) -> Result<u32, ControlError> {
        let interface = || self.interface().clone();
        let mut command = Rxnfc::new(INSERT_RULE);
        command.rule = encode(rule, location.filter(|location| location & SPECIAL == 0));
        if let Some(location) = location.filter(|location| location & SPECIAL != 0) {
            return Err(ControlError::BadLocation { interface: interface(), location });
        }
        match (self.rxnfc(&mut command), location) {
            (Ok(()), _) => Ok(command.rule.location),
            (Err(Errno::NOSPC), _) => Err(ControlError::TableFull { interface: interface() }),
            (Err(Errno::EXIST), _) => Err(ControlError::Exists { interface: interface() }),
            (Err(Errno::INVAL | Errno::TOOBIG | Errno::RANGE), Some(location)) => {
                Err(ControlError::BadLocation { interface: interface(), location })
            }
            (Err(Errno::INVAL | Errno::TOOBIG | Errno::RANGE), None) => {
                Err(ControlError::Refused { interface: interface() })
            }
            (Err(errno), _) => Err(self.failed(INSERT, errno)),
        }
    }

    /// Deletes the rule at a location, whosever it is.
    ///
    /// # Errors
    /// [`ControlError::NoRule`]: there is none; or another [`ControlError`].
    pub fn delete_flow_rule(&self, location: u32) -> Result<(), ControlError> {
        let mut command = Rxnfc::new(DELETE_RULE);
        command.rule.location = location;
        match self.rxnfc(&mut command) {
            Ok(()) => Ok(()),
            Err(Errno::NOENT | Errno::INVAL) => Err(self.no_rule(location)),
            Err(errno) => Err(self.failed(DELETE, errno)),
        }
    }

    fn no_rule(&self, location: u32) -> ControlError {
        ControlError::NoRule { interface: self.interface().clone(), location }
    }

    fn rxnfc(&self, command: &mut Rxnfc) -> Result<(), Errno> {
        // `rule_count` is how many locations there is room for behind: one, in the padding.
        debug_assert!(command.rule_count <= 1, "the list has a function of its own");
        // SAFETY: the command is a whole `struct ethtool_rxnfc` without a list behind it.
        unsafe { self.call((&raw mut *command).cast()) }
    }

    /// Where the rules are, up to `count`.
    fn list(&self, count: u32) -> Result<(Rxnfc, Vec<u32>), Errno> {
        let words = LOCATIONS_AT + count as usize;
        // Whole structures, so that the head is aligned and the list behind it is in bounds.
        let blocks = (words * 4).div_ceil(size_of::<Rxnfc>()).max(1);
        let mut buffer = vec![Rxnfc::new(0); blocks];
        buffer[0] = Rxnfc::new(LIST_RULES);
        buffer[0].rule_count = count;
        let start = buffer.as_mut_ptr();
        // SAFETY: the buffer is a `struct ethtool_rxnfc` with room for `count` locations behind it,
        // from its padding on, and the command says so.
        unsafe { self.call(start.cast()) }?;
        let head = buffer[0];
        let found = head.rule_count.min(count) as usize;
        // SAFETY: every byte of the buffer is initialised, and any four make a number.
        let all =
            unsafe { std::slice::from_raw_parts(start.cast::<u32>().cast_const(), blocks * WORDS) };
        Ok((head, all[LOCATIONS_AT..LOCATIONS_AT + found].to_vec()))
    }
}

/// How many numbers make a structure.
const WORDS: usize = size_of::<Rxnfc>() / 4;

const _: () = assert!(size_of::<FlowSpec>() < size_of::<Rxnfc>());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::of;
    use pointsman_model::flow::{Flow, FlowAction, FlowMatch, Ports, Transport};

    #[test]
    fn a_driver_without_rules_says_so_and_nobody_is_named() {
        let lo = of("lo");
        let message = lo.flow_table().unwrap_err().to_string();
        assert_eq!(message, "lo: its driver cannot list flow rules");
        assert!(matches!(lo.receive_queues(), Err(ControlError::Unsupported { .. })));
        let nobody = of("pm-nobody").flow_rules().unwrap_err();
        assert_eq!(nobody.to_string(), "interface pm-nobody does not exist");
    }

    #[test]
    fn rules_are_not_taken_where_there_can_be_none() {
        let all = Flow::all(Transport::Udp(Ports::any()));
        let rule = FlowRule { matching: FlowMatch::V4(all), action: FlowAction::Queue(1) };
        let lo = of("lo");
        let error = lo.insert_flow_rule(&rule, Some(u32::MAX)).unwrap_err();
        assert!(matches!(error, ControlError::BadLocation { location: u32::MAX, .. }), "{error}");
        for error in [lo.insert_flow_rule(&rule, None).map(drop), lo.delete_flow_rule(1)] {
            let error = error.unwrap_err();
            // Without privileges the kernel answers before it looks at the driver.
            let known =
                matches!(error, ControlError::Unsupported { .. } | ControlError::Denied { .. });
            assert!(known, "{error}");
        }
    }
}
