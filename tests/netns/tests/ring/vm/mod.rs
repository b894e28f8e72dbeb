mod builtins;
mod chain;
mod equivalence;
mod members;
mod pins;
mod veth;
