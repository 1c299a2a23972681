//! One round of raises in one namespace.

use std::collections::{BTreeMap, BTreeSet};

use kube::Api;
use poolwright_api::v1alpha1::{Pool, PoolStatus};
use poolwright_core::charge::Slots;
use poolwright_core::grants::{self, Mode, Refusal, Request, Sight, mode, open};
use poolwright_core::pool_status::with_open;

use super::{ATTEMPTS, Context, Pools, Question, Refused, read, write};

/// One that asks, and its answer once it is refused.
struct Claim {
    question: Question,
    refused: Option<Refused>,
}

impl Claim {
    fn slots(&self) -> &Slots {
        &self.question.0.slots
    }

    fn refuse(&mut self, why: Refused) {
        self.refused.get_or_insert(why);
    }
}

/// Asks every Pool that is charged, and answers.
pub(super) async fn round(context: &Context, namespace: &str, questions: Vec<Question>) {
    let mut claims: Vec<Claim> = questions
        .into_iter()
        .map(|question| Claim {
            question,
            refused: None,
        })
        .collect();
    let api: Pools = Api::namespaced(context.client.clone(), namespace);
    if let Err(error) = grant(context, namespace, &api, &mut claims).await {
        for claim in &mut claims {
            claim.refuse(Refused::Failed(error.to_string()));
        }
    }
    for claim in claims {
        let answer = claim.refused.map_or(Ok(()), Err);
        let _ = claim.question.1.send(answer);
    }
}

async fn grant(
    context: &Context,
    namespace: &str,
    api: &Pools,
    claims: &mut [Claim],
) -> Result<(), kube::Error> {
    let names: BTreeSet<String> = claims
        .iter()
        .flat_map(|claim| claim.slots().keys().cloned())
        .collect();
    let mut pools: BTreeMap<String, Pool> = BTreeMap::new();
    for name in names {
        // Read after the Deployments were: what it says holds for what is written under their resourceVersions.
        let pool = match read(api, &name).await? {
            Some(Ok(pool)) if mode(&pool) == Mode::Opening => {
                let millis = context.clock.wall().as_millisecond();
                write(api, &pool, &open(&pool, millis)).await?.or(Some(pool))
            }
            Some(Ok(pool)) => Some(pool),
            Some(Err(why)) => {
                refuse_all(claims, &name, |name| Refused::Unreadable(name, why.clone()));
                continue;
            }
            None => None,
        };
        match pool {
            Some(pool) if mode(&pool) == Mode::Unlimited => {}
            Some(pool) if mode(&pool) == Mode::Limited => drop(pools.insert(name, pool)),
            Some(_) => refuse_all(claims, &name, Refused::NotReady),
            None => refuse_all(claims, &name, Refused::Missing),
        }
    }
    // Whoever is refused anywhere takes nothing elsewhere.
    for (name, pool) in &pools {
        let sight = sight(context, namespace, name, pool);
        let _ = ask(name, pool, &sight, claims);
    }
    for (name, pool) in pools {
        settle(context, namespace, api, (name, pool), claims).await?;
    }
    Ok(())
}

/// Writes what one Pool grants.
async fn settle(
    context: &Context,
    namespace: &str,
    api: &Pools,
    (name, mut pool): (String, Pool),
    claims: &mut [Claim],
) -> Result<(), kube::Error> {
    for _ in 0..ATTEMPTS {
        let sight = sight(context, namespace, &name, &pool);
        let Some(status) = ask(&name, &pool, &sight, claims) else {
            return Ok(());
        };
        let status = with_open(&pool, &sight, status);
        if write(api, &pool, &status).await?.is_some() {
            return Ok(());
        }
        match read(api, &name).await? {
            Some(Ok(newer)) if mode(&newer) == Mode::Limited => pool = newer,
            Some(Err(why)) => {
                refuse_all(claims, &name, |name| Refused::Unreadable(name, why.clone()));
                break;
            }
            _ => break,
        }
    }
    refuse_all(claims, &name, Refused::NotReady);
    Ok(())
}

/// Refuses all that draw on a Pool which cannot grant.
fn refuse_all(claims: &mut [Claim], pool: &str, why: impl Fn(String) -> Refused) {
    for claim in claims.iter_mut().filter(|claim| claim.slots().contains_key(pool)) {
        claim.refuse(why(pool.to_owned()));
    }
}

/// Refuses whom the Pool, as it was read, has no room for; the status that grants the others.
fn ask(name: &str, pool: &Pool, sight: &Sight, claims: &mut [Claim]) -> Option<PoolStatus> {
    let mut asking: Vec<&mut Claim> = claims
        .iter_mut()
        .filter(|claim| claim.refused.is_none() && claim.slots().contains_key(name))
        .collect();
    let request = |claim: &&mut Claim| Request {
        uid: claim.question.0.uid.clone(),
        worker_pool: claim.question.0.worker_pool.clone(),
        slots: claim.slots()[name],
    };
    let requests: Vec<Request> = asking.iter().map(request).collect();
    let (status, answers) = grants::raise(pool, sight, &requests);
    for (claim, answer) in asking.iter_mut().zip(answers) {
        match answer {
            Ok(()) => {}
            Err(Refusal::Full) => claim.refuse(Refused::Full(name.to_owned())),
            Err(Refusal::TooManyHolders) => claim.refuse(Refused::TooManyHolders(name.to_owned())),
        }
    }
    status
}

/// What the watches show beside a Pool.
pub(super) fn sight(context: &Context, namespace: &str, name: &str, pool: &Pool) -> Sight {
    let own = context.world.namespace(namespace);
    let figures = context.latest.budgets();
    let figures = figures.get(&(namespace.to_owned(), name.to_owned()));
    let known = own.as_ref().and_then(|own| own.pools.get(name));
    // Without a guarantee nobody asks who consumes what.
    let inputs = if pool.spec.guarantees.is_empty() {
        Vec::new()
    } else {
        context.world.inputs_of(namespace)
    };
    Sight::new(
        pool,
        figures.and_then(|figures| figures.effective),
        known.map(|budget| budget.used.clone()).unwrap_or_default(),
        inputs.iter().map(AsRef::as_ref),
    )
}
