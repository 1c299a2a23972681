//! What the API server refuses by policies and rights, to whom, and what it leaves alone.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[path = "admission/account.rs"]
mod account;
#[path = "admission/advice.rs"]
mod advice;
#[path = "admission/authors.rs"]
mod authors;
#[path = "admission/bounds.rs"]
mod bounds;
#[path = "admission/definitions.rs"]
mod definitions;
#[path = "admission/examples.rs"]
mod examples;
#[path = "admission/people.rs"]
mod people;
#[path = "admission/pods.rs"]
mod pods;
#[path = "admission/types.rs"]
mod types;

use poolwright_tests::{Kubectl, Plane, Result, TestNamespace, apply_crds, apply_policies};

/// A namespace with the definitions and the policies, and kubectl in it.
async fn namespace(prefix: &str) -> Result<(TestNamespace, Kubectl)> {
    let plane = Plane::shared().await?;
    apply_crds(plane).await?;
    apply_policies(plane).await?;
    let namespace = TestNamespace::create(plane.client().await?, prefix).await?;
    let kubectl = plane.kubectl()?.namespaced(&namespace.name);
    Ok((namespace, kubectl))
}
