//! The Helm chart and what is made of it: with both majors of Helm, without a cluster where none is needed, and as
//! real installations on control planes of their own, since definitions and policies are there once in a cluster.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[path = "chart/alerts.rs"]
mod alerts;
#[path = "chart/definitions.rs"]
mod definitions;
#[path = "chart/lifecycle.rs"]
mod lifecycle;
#[path = "chart/made.rs"]
mod made;
#[path = "chart/odd.rs"]
mod odd;
#[path = "chart/others.rs"]
mod others;
#[path = "chart/rendered.rs"]
mod rendered;
#[path = "chart/schemas.rs"]
mod schemas;
#[path = "chart/settings.rs"]
mod settings;
#[path = "chart/site.rs"]
mod site;

/// Fails unless `text` holds every one of `words`.
fn expect_words(about: &str, text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{about}: {word:?} is not in {text}");
    }
}
