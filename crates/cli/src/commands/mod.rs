//! One module for each command.

pub(crate) mod attest;
pub(crate) mod check;
pub(crate) mod collateral;
pub(crate) mod demo;
pub(crate) mod init;
pub(crate) mod join;
pub(crate) mod keygen;
pub(crate) mod policy;
pub(crate) mod receipt;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod simulator;
