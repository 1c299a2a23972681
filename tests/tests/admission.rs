//! What the API server refuses by policies and rights, to whom, and what it leaves alone.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[path = "admission/account.rs"]
mod account;
#[path = "admission/advice.rs"]
mod advice;
#[path = "admission/authors.rs"]
mod authors;
#[path = "admission/definitions.rs"]
mod definitions;
#[path = "admission/examples.rs"]
mod examples;
#[path = "admission/people.rs"]
mod people;
#[path = "admission/types.rs"]
mod types;
