//! Skep's words as plain types: ids, specifications, entities, validation and errors.
//! Never does IO, never reads a clock or a random number: those are inputs.

pub mod allocation;
pub mod assignment;
pub mod autoscale;
pub mod claim;
pub mod container;
pub mod deployment;
pub mod health;
pub mod hooks;
pub mod id;
pub mod job;
pub mod machine;
pub mod manifest;
pub mod name;
pub mod node;
pub mod placement;
pub mod probe;
pub mod problem;
pub mod quarantine;
pub mod rebalance;
pub mod registry;
pub mod rollout;
pub mod route;
pub mod routing;
pub mod run;
pub mod sample;
pub mod schedule;
pub mod server;
pub mod service;
pub mod settings;
pub mod shell;
pub mod spec;
pub mod storage;
pub mod tenancy;
pub mod variable;
pub mod volume;
