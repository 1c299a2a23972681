use super::*;

fn limited(slots: u64, guarantees: &[(&'static str, u64)]) -> PoolBudget<'static> {
    let guarantee = |(queue, slots): &(&'static str, u64)| Guarantee { queue, slots: *slots };
    PoolBudget {
        slots: Some(slots),
        guarantees: guarantees.iter().map(guarantee).collect(),
    }
}

fn want(queue: &str, tier: u32, weight: u64, slots: u64) -> Want<'_> {
    Want {
        queue,
        tier,
        weight,
        slots,
    }
}

/// A WorkerPool of one queue of its own name, whose pods have one slot and cost what `charges` say.
fn claim<'a>(id: &'a str, pods: u64, charges: &[(usize, u64)]) -> Claim<'a> {
    Claim {
        id,
        pods,
        spare: 0,
        pod_slots: 1,
        wants: vec![want(id, 50, 1, pods)],
        charges: charges
            .iter()
            .map(|(pool, slots)| Charge {
                pool: *pool,
                slots: *slots,
            })
            .collect(),
    }
}

#[test]
fn each_pool_is_divided_among_its_own_claims() {
    let pools = [limited(10, &[]), limited(3, &[]), PoolBudget::default()];
    let claims = [
        claim("a", 9, &[(0, 1)]),
        claim("b", 9, &[(0, 1)]),
        claim("c", 9, &[(1, 2)]),
        claim("d", 9, &[(2, 1)]),
        claim("e", 9, &[]),
    ];
    assert_eq!(arbitrate(&pools, &claims), [5, 5, 1, 9, 9]);
}

#[test]
fn on_several_pools_the_least_counts_and_the_rest_goes_to_others() {
    let pools = [limited(10, &[]), limited(3, &[])];
    let claims = [claim("a", 9, &[(0, 1), (1, 1)]), claim("b", 9, &[(0, 1)])];
    assert_eq!(arbitrate(&pools, &claims), [3, 7]);
}

/// Of the 5 guaranteed slots a pod of 3 takes what it can, and the 2 are kept for the queue's small pods, of which none is
/// wanted. With the free slot they are its next pod, unless one of the same tier has taken that: nobody is pressed for it.
#[test]
fn the_rest_of_a_guarantee_goes_with_free_slots_to_the_next_pod_of_its_queue() {
    let on_a = |id, pods, unit| Claim {
        wants: vec![want("a", 50, 100, pods)],
        ..claim(id, pods, &[(0, unit)])
    };
    let other = |tier| Claim {
        wants: vec![want("z", tier, 1, 1)],
        ..claim("z", 1, &[(0, 1)])
    };
    let pools = [limited(6, &[("a", 5)])];
    let targets = |tier| arbitrate(&pools, &[on_a("large", 2, 3), on_a("small", 0, 1), other(tier)]);
    assert_eq!(targets(10), [2, 0, 0]);
    assert_eq!(targets(50), [1, 0, 1]);
    assert_eq!(targets(90), [1, 0, 1]);
}

/// What one leaves lets the next leave something, more often than there are rounds.
#[test]
fn a_chain_of_pools_ends_with_nothing_left_that_fits() {
    let pools: Vec<PoolBudget> = (0..12)
        .map(|at| limited(if at == 0 { 1 } else { 20 }, &[]))
        .collect();
    let ids: Vec<String> = (0..12).map(|at| format!("w{at:02}")).collect();
    let claims: Vec<Claim> = ids
        .iter()
        .enumerate()
        .map(|(at, id)| claim(id, 100, &[(at, 1), ((at + 1).min(11), 1)]))
        .collect();
    let targets = arbitrate(&pools, &claims);
    for (at, pool) in pools.iter().enumerate() {
        let taken: u64 = claims
            .iter()
            .zip(&targets)
            .flat_map(|(claim, pods)| claim.charges.iter().map(move |charge| (charge, pods)))
            .filter(|(charge, _)| charge.pool == at)
            .map(|(charge, pods)| charge.slots * pods)
            .sum();
        assert!(Some(taken) <= pool.slots, "{at}: {targets:?}");
    }
    assert_eq!(targets[0], 1);
    assert!(targets[1] >= 10, "{targets:?}");
}

#[test]
fn a_pool_that_is_not_there_gives_nothing() {
    let claims = [claim("a", 9, &[(0, 1), (1, 1)]), claim("b", 9, &[(0, 1)])];
    assert_eq!(arbitrate(&[limited(10, &[])], &claims), [0, 9]);
}

#[test]
fn a_pool_that_is_named_twice_charges_both() {
    let pools = [limited(10, &[]), limited(100, &[])];
    let twice = [
        claim("a", 9, &[(0, 1), (0, 2)]),
        claim("b", 9, &[(0, 2), (1, 1), (0, 3)]),
    ];
    assert_eq!(arbitrate(&pools, &twice[..1]), [3]);
    assert_eq!(arbitrate(&pools, &twice[1..]), [2]);
}

/// The fast lane: a critical queue with a guarantee finds its slots free although others could use them.
#[test]
fn a_guarantee_is_kept_for_its_queue_while_that_is_idle() {
    let pools = [limited(10, &[("fast", 4)])];
    let targets = |wanted| {
        let mut fast = claim("fast", wanted, &[(0, 2)]);
        fast.wants[0].tier = 100;
        arbitrate(&pools, &[fast, claim("slow", 99, &[(0, 1)])])
    };
    assert_eq!(targets(0), [0, 6]);
    assert_eq!(targets(1), [1, 6]);
    assert_eq!(targets(2), [2, 6]);
    assert_eq!(targets(4), [4, 2], "above its guarantee by its tier");
    // No WorkerPool consumes the queue.
    assert_eq!(arbitrate(&pools, &[claim("slow", 99, &[(0, 1)])]), [6]);
    // In 4 slots no pod of 5 fits, nor does one of 3 in the one that is left beside a pod of 3.
    assert_eq!(
        arbitrate(
            &pools,
            &[claim("fast", 0, &[(0, 5)]), claim("slow", 99, &[(0, 1)])]
        ),
        [0, 10]
    );
    assert_eq!(
        arbitrate(
            &pools,
            &[claim("fast", 0, &[(0, 3)]), claim("slow", 99, &[(0, 1)])]
        ),
        [0, 7]
    );
}

/// A guarantee is for the tasks of its queue, and a WorkerPool of two queues may not use it for the other.
#[test]
fn another_queue_of_the_same_worker_pool_does_not_use_a_guarantee() {
    let pools = [limited(10, &[("fast", 4)])];
    let both = |fast, slow| Claim {
        wants: vec![want("fast", 50, 1, fast), want("slow", 50, 1, slow)],
        ..claim("a", 99, &[(0, 1)])
    };
    assert_eq!(arbitrate(&pools, &[both(0, 99)]), [6]);
    assert_eq!(arbitrate(&pools, &[both(3, 96)]), [9]);
    assert_eq!(arbitrate(&pools, &[both(4, 95)]), [10]);
}

/// Pods that wait for work (a minimum, a hold) are for the queue too, if no other needs them.
#[test]
fn pods_without_tasks_use_the_guarantee_of_their_queue() {
    let pools = [limited(10, &[("fast", 4)])];
    let slow = claim("slow", 99, &[(0, 1)]);
    let warm = |pods, wants| Claim {
        wants,
        ..claim("a", pods, &[(0, 1)])
    };
    let idle = vec![want("fast", 1, 1, 0)];
    assert_eq!(arbitrate(&pools, &[warm(3, idle.clone()), slow.clone()]), [3, 6]);
    assert_eq!(
        arbitrate(&pools, &[warm(5, idle), slow.clone()]),
        [4, 6],
        "the fifth is of a low tier"
    );
    let both = vec![want("fast", 1, 1, 0), want("other", 1, 1, 2)];
    assert_eq!(arbitrate(&pools, &[warm(2, both.clone()), slow.clone()]), [0, 6]);
    assert_eq!(arbitrate(&pools, &[warm(3, both), slow]), [1, 6]);
}

#[test]
fn two_worker_pools_of_one_queue_share_its_guarantee() {
    let pools = [limited(12, &[("q", 6)])];
    let on_q = |id, pods, unit| Claim {
        wants: vec![want("q", 1, 1, pods)],
        ..claim(id, pods, &[(0, unit)])
    };
    let greedy = claim("z", 99, &[(0, 1)]);
    let with = |a, b| arbitrate(&pools, &[on_q("a", a, 1), on_q("b", b, 2), greedy.clone()]);
    assert_eq!(with(0, 0), [0, 0, 6]);
    // `b` uses four, the other two are kept for either.
    assert_eq!(with(0, 2), [0, 2, 6]);
    // 6 guaranteed slots are 4 and one pod of 2, and above them only the tier counts.
    assert_eq!(with(9, 9), [4, 1, 6]);
}

/// What another Pool withholds from a guarantee stays kept: it may be used as soon as that Pool has room.
#[test]
fn a_guarantee_that_another_pool_withholds_is_not_lent() {
    let pools = [limited(10, &[("a", 6)]), limited(2, &[])];
    let claims = [claim("a", 6, &[(0, 1), (1, 1)]), claim("b", 99, &[(0, 1)])];
    assert_eq!(arbitrate(&pools, &claims), [2, 4]);
}

/// Two claims that each wait for what the other Pool gives them let a lower tier have, at the one, what the other then
/// leaves: whoever is higher has it in the end.
#[test]
fn a_lower_tier_gets_only_what_the_higher_cannot_use_at_any_pool() {
    let pools = [limited(27, &[]), limited(8, &[])];
    let high = |id, pods, unit| {
        let mut claim = claim(id, pods, &[(0, unit), (1, 1)]);
        claim.wants[0].tier = 100;
        claim
    };
    let claims = [
        high("a", 1, 3),
        high("b", 4, 1),
        high("c", 1, 4),
        high("d", 3, 6),
        claim("e", 1, &[(1, 1)]),
    ];
    assert_eq!(arbitrate(&pools, &claims), [1, 4, 1, 2, 0]);
}
