mod builtins;
mod chain;
mod equivalence;
mod hostile;
mod members;
mod pins;
mod survive;
mod veth;
