//! What the policies of admission refuse, to whom, and what they leave alone.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[path = "admission/account.rs"]
mod account;
#[path = "admission/advice.rs"]
mod advice;
#[path = "admission/authors.rs"]
mod authors;
#[path = "admission/definitions.rs"]
mod definitions;
#[path = "admission/types.rs"]
mod types;
