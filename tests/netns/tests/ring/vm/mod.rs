mod chain;
mod members;
mod pins;
mod veth;
