//! The only code that talks to Kubernetes: watches in, writes out. Decides nothing.

pub mod events;
pub mod execute;
pub mod index;
pub mod secrets;
pub mod status;
