//! Whether the quantities of a WorkerPool are amounts that Kubernetes can give.
//!
//! The API server checks their form only where a definition says it, and a Deployment with a wrong one is refused
//! without naming a field of the WorkerPool. So each is read here, and a request is compared with its limit.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use poolwright_api::v1alpha1::{Pod, WorkerPool};

use crate::quantity::Amount;
use crate::validate::Invalid;

/// What the worker and the containers and volumes around it ask for, in the order of the spec.
pub fn check(wp: &WorkerPool) -> Result<(), Invalid> {
    requirements("spec.worker.resources", wp.spec.worker.resources.as_ref())?;
    wp.spec.pod.as_ref().map_or(Ok(()), pod)
}

/// The amount at `field`.
///
/// # Errors
///
/// It is no quantity, or negative.
pub fn amount(field: impl Into<String>, quantity: &Quantity) -> Result<Amount, Invalid> {
    Amount::parse(quantity)
        .filter(|amount| *amount >= Amount::of_units(0))
        .ok_or_else(|| {
            Invalid::spec(
                field,
                "is not a Kubernetes quantity of at least 0, such as 2, 500m or 1Gi",
            )
        })
}

fn pod(pod: &Pod) -> Result<(), Invalid> {
    for (position, volume) in pod.volumes.iter().enumerate() {
        let size = volume.empty_dir.as_ref().and_then(|dir| dir.size_limit.as_ref());
        if let Some(size) = size {
            amount(format!("spec.pod.volumes[{position}].emptyDir.sizeLimit"), size)?;
        }
    }
    containers("initContainers", &pod.init_containers)?;
    containers("sidecars", &pod.sidecars)
}

fn containers(list: &str, containers: &[Container]) -> Result<(), Invalid> {
    for (position, container) in containers.iter().enumerate() {
        let field = format!("spec.pod.{list}[{position}].resources");
        requirements(&field, container.resources.as_ref())?;
    }
    Ok(())
}

/// Amounts of the worker's cpu, memory and ephemeral storage are compared at admission already; for all other members,
/// and for the lists of containers, such a rule would exceed the API server's budget.
fn requirements(field: &str, resources: Option<&ResourceRequirements>) -> Result<(), Invalid> {
    let Some(resources) = resources else { return Ok(()) };
    let limits = amounts(&format!("{field}.limits"), resources.limits.as_ref())?;
    let requests = amounts(&format!("{field}.requests"), resources.requests.as_ref())?;
    for (name, (request, written)) in requests {
        if let Some((limit, most)) = limits.get(name)
            && request > *limit
        {
            let message = format!(
                "is {written}, which is more than the limit {most}: lower it, or raise {}",
                member(&format!("{field}.limits"), name)
            );
            return Err(Invalid::spec(member(&format!("{field}.requests"), name), message));
        }
    }
    Ok(())
}

/// Every amount of a list of resources, and how it is written.
fn amounts<'a>(
    field: &str,
    list: Option<&'a BTreeMap<String, Quantity>>,
) -> Result<BTreeMap<&'a str, (Amount, &'a str)>, Invalid> {
    let read = |(name, quantity): (&'a String, &'a Quantity)| {
        let amount = amount(member(field, name), quantity)?;
        Ok((name.as_str(), (amount, quantity.0.as_str())))
    };
    list.into_iter().flatten().map(read).collect()
}

/// A member of a map; a name with a dot or a slash, such as `nvidia.com/gpu`, stands in brackets.
fn member(field: &str, name: &str) -> String {
    if name.contains(['.', '/']) {
        format!("{field}[{name}]")
    } else {
        format!("{field}.{name}")
    }
}
