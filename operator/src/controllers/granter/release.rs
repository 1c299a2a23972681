//! Lowers grants to what is left, and makes them anew where they are not known.

use std::collections::{BTreeMap, BTreeSet};

use kube::Api;
use poolwright_core::grants::{self, Mark, Mode, mark, mode};

use super::live::{Left, Listed, Live};
use super::report::{tell, with_grants};
use super::{ATTEMPTS, Context, Pools, read, write};

/// Grants that may be too large: uids of holders by Pool.
pub(super) type Candidates = BTreeMap<String, BTreeSet<String>>;

/// Marks of holders, by Pool and uid.
type Marks = BTreeMap<String, BTreeMap<String, Mark>>;

/// Releases what the holders do not take any more. Those whose every Deployment has fallen since their mark need no write
/// of their own before; `patient` says of whom it has been true for long enough to make that write, `gone` for long enough
/// where there is no Deployment any more. Returns the Pools that were written.
pub(super) async fn release(
    context: &Context,
    namespace: &str,
    candidates: &Candidates,
    (patient, gone): (&Candidates, &Candidates),
) -> Result<BTreeSet<String>, kube::Error> {
    let api: Pools = Api::namespaced(context.client.clone(), namespace);
    let live = Live::new(&context.client, namespace);
    let mut lowered = BTreeSet::new();
    let mut marks = read_marks(&api, candidates).await?;
    let deployments = live.deployments().await?;
    let mut fenced = BTreeSet::new();
    for (pool, holders) in &mut marks {
        let mut kept = BTreeMap::new();
        for (uid, mark) in std::mem::take(holders) {
            let own = || deployments.iter().filter(|one| one.holder() == uid);
            let uids = own().map(|one| one.view.uid.as_str());
            let fallen = context.grants.has_fallen(&uid, uids, pool, &mark);
            // Of one whose Deployments are gone, a controller may still be at work.
            let is_gone = own().next().is_none();
            let patient = if is_gone { gone } else { patient };
            let may_fence = patient.get(pool).is_some_and(|uids| uids.contains(&uid));
            let fallen = fallen && !is_gone;
            if fallen || may_fence && fence(&live, own(), &mut fenced).await? {
                kept.insert(uid, mark);
            }
        }
        *holders = kept;
    }
    marks.retain(|_, holders| !holders.is_empty());
    if marks.is_empty() {
        return Ok(lowered);
    }
    let uids: BTreeSet<&String> = marks.values().flat_map(BTreeMap::keys).collect();
    let concerns = |one: &Listed| uids.iter().any(|uid| *uid == one.holder());
    let Some(left) = live
        .left(concerns, |pod| context.world.is_lost(namespace, pod))
        .await?
    else {
        return Ok(lowered);
    };
    for (name, mut holders) in marks {
        let is_gone = |uid: &String| gone.get(&name).is_some_and(|uids| uids.contains(uid));
        holders.retain(|uid, _| !left.orphans.contains(uid) || is_gone(uid));
        if lower(context, namespace, &api, (&name, &holders), &left).await? {
            lowered.insert(name);
        }
    }
    Ok(lowered)
}

/// Of a Pool that cannot be read nothing is released.
async fn read_marks(api: &Pools, candidates: &Candidates) -> Result<Marks, kube::Error> {
    let mut marks = Marks::new();
    for (name, uids) in candidates {
        if let Some(Ok(pool)) = read(api, name).await? {
            let holders = uids
                .iter()
                .filter_map(|uid| Some((uid.clone(), mark(&pool, uid)?)));
            marks.insert(name.clone(), holders.collect());
        }
    }
    Ok(marks)
}

/// Writes to each of these Deployments once; false if one has changed meanwhile.
async fn fence(
    live: &Live,
    deployments: impl Iterator<Item = &Listed>,
    fenced: &mut BTreeSet<String>,
) -> Result<bool, kube::Error> {
    for one in deployments.filter(|one| one.may_be_raised()) {
        if fenced.contains(&one.view.uid) {
            continue;
        }
        if !live.fence(&one.view).await? {
            return Ok(false);
        }
        fenced.insert(one.view.uid.clone());
    }
    Ok(true)
}

/// Writes what is left as granted, and with it all else that the status says: true if it was written.
async fn lower(
    context: &Context,
    namespace: &str,
    api: &Pools,
    (name, holders): (&str, &BTreeMap<String, Mark>),
    left: &Left,
) -> Result<bool, kube::Error> {
    let sums: BTreeMap<String, (Mark, u64)> = holders
        .iter()
        .map(|(uid, mark)| (uid.clone(), (mark.clone(), left.at(uid, name))))
        .collect();
    for _ in 0..ATTEMPTS {
        let Some(Ok(pool)) = read(api, name).await? else {
            return Ok(false);
        };
        let Some(status) = grants::release(&pool, &sums) else {
            return Ok(false);
        };
        let mut sight = super::raise::sight(context, namespace, name, &pool);
        // The watch may be behind what was counted just now.
        let counted = sums.iter().map(|(uid, (_, left))| (uid.clone(), *left));
        sight.used.extend(counted);
        let status = with_grants(context, namespace, (&pool, &sight), status);
        if write(api, &pool, &status).await?.is_some() {
            tell(context, &pool, &pool.status.clone().unwrap_or_default(), &status);
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes the grants of a Pool anew, where its status is another's or none. A `ReplicaSet` without a Deployment is on its way
/// out, or stays for good: after a while that is accepted. What does not come about is tried again.
pub(super) async fn rebuild(
    context: &Context,
    namespace: &str,
    name: &str,
    accept_orphans: bool,
) -> Result<bool, kube::Error> {
    let api: Pools = Api::namespaced(context.client.clone(), namespace);
    let live = Live::new(&context.client, namespace);
    let Some(Ok(pool)) = read(&api, name).await? else {
        return Ok(false);
    };
    let millis = context.clock.wall().as_millisecond();
    match mode(&pool) {
        Mode::Limited | Mode::Unlimited => return Ok(false),
        Mode::Opening => {
            let written = write(&api, &pool, &grants::open(&pool, millis)).await?;
            return Ok(written.is_some());
        }
        Mode::Unknown => {}
    }
    // Before anything is written: else it would be written for nothing, again and again.
    let before = live.left(|_| false, |_| false).await?;
    if !accept_orphans && before.is_none_or(|left| !left.orphans.is_empty()) {
        return Ok(false);
    }
    for one in live.deployments().await? {
        if one.may_be_raised() && one.view.charge.at(name) > 0 && !live.fence(&one.view).await? {
            return Ok(false);
        }
    }
    let concerns = |one: &Listed| one.view.charge.at(name) > 0;
    let Some(left) = live
        .left(concerns, |pod| context.world.is_lost(namespace, pod))
        .await?
    else {
        return Ok(false);
    };
    if !left.orphans.is_empty() && !accept_orphans {
        return Ok(false);
    }
    let sums: BTreeMap<String, (String, u64)> = left
        .slots
        .keys()
        .map(|uid| {
            let worker_pool = left.names.get(uid).cloned().unwrap_or_default();
            (uid.clone(), (worker_pool, left.at(uid, name)))
        })
        .collect();
    let status = grants::rebuild(&pool, &sums, millis);
    // Under the resourceVersion from before the writes to the Deployments.
    Ok(write(&api, &pool, &status).await?.is_some())
}
