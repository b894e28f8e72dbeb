mod chain;
mod members;
