//! The end-to-end tests, and the rules for the whole repository.

mod commands;
mod consent;
mod direct;
mod end_to_end;
mod evidence;
mod freshness;
mod generated;
mod keys;
mod layers;
mod liars;
mod licences;
mod measured;
mod metadata;
mod model;
mod operations;
mod psi_wire;
mod refusals;
mod secrets;
mod situations;
mod slips;
mod strangers;
mod tables;
mod two_way;
mod unverified;
