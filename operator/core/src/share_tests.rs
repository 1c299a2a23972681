use super::*;

const CRITICAL: u32 = 100;
const NORMAL: u32 = 50;
const BACKGROUND: u32 = 1;

fn layer(tier: u32, weight: u64, pods: u64) -> Layer {
    Layer { tier, weight, pods }
}

fn claimant<'a>(id: &'a str, unit: u64, layers: &'a [Layer]) -> Claimant<'a> {
    Claimant {
        id,
        unit,
        layers,
        guaranteed: 0,
    }
}

fn want(tier: u32, weight: u64, slots: u64) -> Want<'static> {
    Want {
        queue: "q",
        tier,
        weight,
        slots,
    }
}

/// Targets of claimants in the tier Normal, by weight and wanted pods.
fn weighted(slots: u64, unit: u64, claims: &[(u64, u64)]) -> Vec<u64> {
    let layers: Vec<[Layer; 1]> = claims
        .iter()
        .map(|(weight, pods)| [layer(NORMAL, *weight, *pods)])
        .collect();
    let ids = ["a", "b", "c", "d"];
    let claimants: Vec<Claimant> = ids
        .iter()
        .zip(&layers)
        .map(|(id, layers)| claimant(id, unit, layers))
        .collect();
    share(slots, 0, &claimants)
}

#[test]
fn three_share_five_to_three_to_one() {
    assert_eq!(weighted(18, 1, &[(5, 100), (3, 100), (1, 100)]), [10, 6, 2]);
    assert_eq!(weighted(18, 2, &[(5, 100), (3, 100), (1, 100)]), [5, 3, 1]);
    // 11.1 : 6.7 : 2.2 slots are 5.6 : 3.3 : 1.1 pods, and the tenth pod goes to the largest fraction.
    assert_eq!(weighted(20, 2, &[(5, 100), (3, 100), (1, 100)]), [6, 3, 1]);
}

#[test]
fn what_one_leaves_the_others_share() {
    // 13.5 : 4.5, and of two equal fractions the heavier is served.
    assert_eq!(weighted(18, 1, &[(5, 0), (3, 100), (1, 100)]), [0, 14, 4]);
    assert_eq!(weighted(18, 1, &[(5, 2), (3, 100), (1, 100)]), [2, 12, 4]);
    assert_eq!(weighted(18, 1, &[(5, 4), (3, 5), (1, 6)]), [4, 5, 6]);
}

#[test]
fn of_equals_the_first_name_is_served() {
    assert_eq!(weighted(2, 1, &[(1, 9), (1, 9), (1, 9)]), [1, 1, 0]);
}

#[test]
fn a_lower_tier_gets_what_the_higher_leaves() {
    let (low, high) = ([layer(BACKGROUND, 1_000_000, 10)], [layer(CRITICAL, 1, 7)]);
    let claimants = [claimant("a", 1, &low), claimant("b", 1, &high)];
    assert_eq!(share(10, 0, &claimants), [3, 7]);
    assert_eq!(share(7, 0, &claimants), [0, 7]);
}

/// One WorkerPool with queues of two tiers takes part in both.
#[test]
fn layers_are_served_in_their_own_tiers() {
    let (two, normal) = (
        [layer(CRITICAL, 1, 2), layer(BACKGROUND, 1, 9)],
        [layer(NORMAL, 1, 5)],
    );
    let claimants = [claimant("a", 2, &two), claimant("b", 2, &normal)];
    assert_eq!(
        share(20, 0, &claimants),
        [5, 5],
        "2 critical, 5 normal, and 3 of the rest"
    );
    assert_eq!(share(10, 0, &claimants), [2, 3]);
}

#[test]
fn an_unused_guarantee_is_lent_to_nobody() {
    let b = [layer(NORMAL, 1, 100)];
    let targets = |wanted: u64| {
        let a = [layer(NORMAL, 1, wanted)];
        let fast = Claimant {
            guaranteed: 4,
            ..claimant("a", 1, &a)
        };
        share(10, 0, &[fast, claimant("b", 1, &b)])
    };
    assert_eq!(targets(0), [0, 6]);
    assert_eq!(targets(2), [2, 6]);
    assert_eq!(targets(4), [4, 6]);
    assert_eq!(targets(9), [7, 3], "4 guaranteed and half of the 6 others");
    // What is kept for a queue that nobody consumes.
    assert_eq!(share(10, 4, &[claimant("b", 1, &b)]), [6]);
    assert_eq!(share(10, 11, &[claimant("b", 1, &b)]), [0]);
}

/// After a budget was cut below its guarantees.
#[test]
fn guarantees_that_do_not_fit_go_to_higher_tiers_and_lend_nothing() {
    let (low, high, other) = (
        [layer(BACKGROUND, 9, 8)],
        [layer(CRITICAL, 1, 6)],
        [layer(CRITICAL, 1, 1)],
    );
    let guaranteed = |id, unit, layers, guaranteed| Claimant {
        guaranteed,
        ..claimant(id, unit, layers)
    };
    let claimants = [
        guaranteed("a", 3, &low, 4),
        guaranteed("b", 1, &high, 6),
        claimant("c", 1, &other),
    ];
    assert_eq!(
        share(11, 0, &claimants),
        [1, 6, 0],
        "the last 2 wait for a guaranteed pod"
    );
    assert_eq!(share(4, 0, &claimants), [0, 4, 0]);
}

#[test]
fn a_pod_that_is_larger_than_the_pool_gets_nothing_and_blocks_nobody() {
    let (large, small) = ([layer(CRITICAL, 100, 3)], [layer(BACKGROUND, 1, 20)]);
    let claimants = [
        Claimant {
            guaranteed: 1,
            ..claimant("a", 11, &large)
        },
        claimant("b", 1, &small),
    ];
    assert_eq!(share(10, 0, &claimants), [0, 10]);
    assert_eq!(share(0, 0, &claimants), [0, 0]);
}

/// In one tier: a pod larger than its share waits, unless the share is a pod's largest part.
#[test]
fn a_large_pod_competes_by_its_fraction() {
    let (large, small) = ([layer(NORMAL, 1, 1)], [layer(NORMAL, 1, 20)]);
    let targets = |unit, slots| share(slots, 0, &[claimant("a", unit, &large), claimant("b", 1, &small)]);
    assert_eq!(
        targets(8, 10),
        [0, 10],
        "5 of 8 is a share, and 5 are left when b has its 5"
    );
    assert_eq!(targets(5, 10), [1, 5]);
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let huge = [
        layer(NORMAL, u64::MAX, u64::MAX),
        layer(BACKGROUND, u64::MAX, u64::MAX),
    ];
    let mut claimants = [
        claimant("a", 1, &huge),
        claimant("b", 1, &huge),
        claimant("c", 7, &huge),
    ];
    let targets = share(u64::MAX, 0, &claimants);
    let slots: u128 = targets
        .iter()
        .zip(&claimants)
        .map(|(pods, one)| u128::from(*pods) * u128::from(one.unit))
        .sum();
    assert_eq!(slots, u128::from(u64::MAX));
    // A third each, but for the 5 slots in which no pod of 7 fits.
    assert_eq!(targets[0] + targets[1] - 2 * 7 * targets[2], 5 + 2 * 5);
    claimants[1].guaranteed = u64::MAX;
    assert_eq!(share(u64::MAX, u64::MAX, &claimants), [0, u64::MAX, 0]);
}

#[test]
fn a_claim_is_rounded_once() {
    // The fourth slot of the critical pod serves the others.
    let wants = [want(BACKGROUND, 2, 21), want(CRITICAL, 3, 3)];
    assert_eq!(
        layers(&wants, 4, 6, 0),
        [layer(CRITICAL, 3, 1), layer(BACKGROUND, 2, 5)]
    );
    // A tier that fits in a pod of a higher one needs none.
    let wants = [want(CRITICAL, 1, 3), want(NORMAL, 1, 1), want(BACKGROUND, 1, 1)];
    assert_eq!(
        layers(&wants, 4, 2, 0),
        [layer(CRITICAL, 1, 1), layer(BACKGROUND, 1, 1)]
    );
}

#[test]
fn bounds_of_the_worker_pool_cut_and_fill_the_last_layer() {
    let wants = [want(CRITICAL, 1, 9), want(BACKGROUND, 1, 40)];
    assert_eq!(
        layers(&wants, 4, 4, 0),
        [layer(CRITICAL, 1, 3), layer(BACKGROUND, 1, 1)]
    );
    assert_eq!(layers(&wants, 4, 2, 0), [layer(CRITICAL, 1, 2)]);
    assert_eq!(layers(&wants, 4, 0, 0), []);
    assert_eq!(
        layers(&wants, 4, 15, 0),
        [layer(CRITICAL, 1, 3), layer(BACKGROUND, 1, 12)]
    );
    let idle = [want(CRITICAL, 7, 0), want(NORMAL, 5, 0)];
    assert_eq!(layers(&idle, 4, 2, 0), [layer(NORMAL, 5, 2)]);
    assert_eq!(layers(&[], 4, 2, 0), [layer(0, 1, 2)]);
}

#[test]
fn spare_pods_belong_to_no_tier_of_a_queue() {
    let wants = [want(CRITICAL, 1, 9), want(BACKGROUND, 4, 40)];
    assert_eq!(
        layers(&wants, 4, 8, 3),
        [
            layer(CRITICAL, 1, 3),
            layer(BACKGROUND, 4, 2),
            layer(SPARE_TIER, 4, 3)
        ]
    );
    assert_eq!(
        layers(&wants, 4, 4, 2),
        [layer(CRITICAL, 1, 2), layer(SPARE_TIER, 4, 2)]
    );
    assert_eq!(layers(&wants, 4, 2, 9), [layer(SPARE_TIER, 4, 2)]);
    assert_eq!(layers(&[], 4, 3, 2), [layer(SPARE_TIER, 1, 3)]);
}

#[test]
fn queues_of_one_tier_add_their_weights_while_they_have_tasks() {
    let wants = |second| [want(NORMAL, 3, 5), want(NORMAL, 4, second)];
    assert_eq!(layers(&wants(1), 2, 3, 0), [layer(NORMAL, 7, 3)]);
    assert_eq!(layers(&wants(0), 2, 3, 0), [layer(NORMAL, 3, 3)]);
}

/// The least weight there is passes the largest within ten minutes.
#[test]
fn a_claim_without_pods_passes_any_weight() {
    let aged = |seconds: u64| aged(1, Duration::from_secs(seconds));
    assert_eq!(aged(0), AGED_PARTS);
    assert_eq!(aged(45), 3 * AGED_PARTS);
    assert_eq!(aged(60), 4 * AGED_PARTS);
    assert!(aged(590) < super::aged(1_000_000, Duration::ZERO));
    assert!(aged(600) > super::aged(1_000_000, Duration::ZERO));
    // Beyond that, whoever has waited longest passes those that weigh more and wait, too.
    let heavy = |seconds| super::aged(10_000_000_000, Duration::from_secs(seconds));
    assert!(aged(980) < heavy(0) && aged(1020) > heavy(0));
    assert!(heavy(599) > aged(1500), "for an hour at most");
    assert!(aged(3600) > heavy(3599) && heavy(3600) > aged(3599));
    assert_eq!(super::aged(u64::MAX, Duration::MAX), u64::MAX);
    let two = [want(NORMAL, aged(3600), 1), want(NORMAL, aged(3600), 1)];
    assert_eq!(layers(&two, 1, 2, 0), [layer(NORMAL, aged(3600), 2)]);
}

/// A claim for which there never was a whole share gets one in time.
#[test]
fn an_aged_claim_passes_others_of_its_tier() {
    let targets = |seconds| {
        let (met, unmet) = (aged(2, Duration::ZERO), aged(1, Duration::from_secs(seconds)));
        weighted(4, 4, &[(met, 9), (unmet, 9)])
    };
    assert_eq!(targets(0), [1, 0]);
    assert_eq!(targets(29), [1, 0]);
    assert_eq!(targets(31), [0, 1]);
}
