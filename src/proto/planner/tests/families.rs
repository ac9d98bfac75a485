//! Chains over relays of different IP families.

use super::*;

/// A relay for each letter: of IPv4, of IPv6, or (`d`) of both.
fn mixed(kinds: &str) -> Pool {
    let mut pool = empty();
    for (n, kind) in (0u16..).zip(kinds.chars()) {
        let [high, low] = n.to_be_bytes();
        let v4 = address([10, high, low, 1], 0);
        let v6 = SocketAddr::from(([0x2001, 0xdb8, n, 0, 0, 0, 0, 1], 1000));
        let addresses = match kind {
            '4' => vec![v4],
            '6' => vec![v6],
            _ => vec![v4, v6],
        };
        pool.register(node(n.into()), RelayOffer { addresses, ..offer(v4, "", 100) }, at(0)).unwrap();
    }
    pool
}

fn relays<'a>(hop: &Hop<'a>) -> impl Iterator<Item = &'a Relay> {
    [Some(hop.primary), hop.backup].into_iter().flatten()
}

/// Whether everybody can dial whoever may come next.
fn is_connected(plan: &Plan<'_>, dials: Families) -> bool {
    let first = plan.hops.iter().take(1).flat_map(relays).all(|relay| relay.families().meets(dials));
    first
        && plan.hops.windows(2).all(|pair| {
            let meets_all = |near: &Relay| relays(&pair[1]).all(|far| near.families().meets(far.families()));
            relays(&pair[0]).all(meets_all)
        })
}

#[test]
fn a_chain_keeps_to_a_family_or_crosses_where_it_can() {
    let (v4, v6, both) = (Families::V4, Families::V6, Families::BOTH);
    type Case<'c> = (&'c str, &'c [u32], Families, u8, Option<&'c [u32]>);
    let cases: [Case<'_>; 13] = [
        ("444", &[0], v4, 3, Some(&[])),
        ("666", &[0], v6, 3, Some(&[])),
        ("666", &[0], both, 3, Some(&[])),
        ("666", &[0], v4, 3, None),
        ("d6", &[1, 0], v4, 1, Some(&[0])),
        ("6", &[0], v4, 1, None),
        ("4466", &[2, 3], v4, 2, None),
        ("d66", &[1, 2], v4, 2, Some(&[0])),
        ("44d66", &[3, 4], v4, 3, Some(&[2])),
        ("44d66", &[0, 1], v6, 3, Some(&[2])),
        ("4d4", &[1, 2], v6, 2, Some(&[1, 2])),
        ("d4444466", &[6], v4, 3, Some(&[0])),
        ("6666664444", &[6, 7], both, 4, Some(&[6, 7])),
    ];
    for (kinds, attachments, dials, hops, expected) in cases {
        let (pool, rng) = (mixed(kinds), &mut rng());
        let attachments: Vec<NodeId> = attachments.iter().copied().map(node).collect();
        let plan = Planner::new(&pool, at(1), rng).dialling(dials).plan(hops, &attachments, &[]);
        match (plan, expected) {
            (Ok(plan), Some(among)) => {
                assert!(is_connected(&plan, dials), "{kinds} by {dials}: {plan:?}");
                let all = nodes(&plan);
                assert!(among.iter().all(|n| all.contains(&node(*n))), "{kinds} by {dials}: {plan:?}");
            }
            (Err(PlanError::OutOfReach), None) => {}
            (plan, _) => panic!("{kinds} by {dials}: {plan:?}"),
        }
    }
}

#[test]
fn a_family_in_which_every_hop_has_a_backup_goes_first() {
    // Of IPv4 there are three relays, too few for two hops with backups.
    let pool = mixed("ddd66666");
    let mut rng = rng();
    let mut planner = Planner::new(&pool, at(1), &mut rng);
    let plan = planner.plan(2, &[node(0), node(1)], &[]).unwrap();
    assert!(plan.unprotected().is_empty() && is_connected(&plan, Families::BOTH), "{plan:?}");
}

#[test]
fn targets_attach_to_relays_that_anybody_can_dial_where_they_can() {
    let pool = mixed("44d4d4d444");
    let mut rng = rng();
    let mut planner = Planner::new(&pool, at(1), &mut rng);
    let mut chosen: Vec<NodeId> = planner.attachments(3, &[], &[]).iter().map(|relay| relay.node).collect();
    chosen.sort();
    assert_eq!(chosen, [2, 4, 6].map(node));
    let mut planner = planner.dialling(Families::V6);
    assert_eq!(planner.attachments(9, &[], &[]).len(), 3, "and to none that they can't dial");
}

proptest! {
    #[test]
    fn whoever_is_next_can_be_dialled(
        kinds in "[46d]{1,40}",
        attachments in prop::collection::vec(0u32..40, 1..4),
        (v4, v6) in prop::sample::select(vec![(true, false), (false, true), (true, true)]),
        hops in 1u8..6,
        seed in any::<u64>(),
    ) {
        let (pool, dials) = (mixed(&kinds), Families { v4, v6 });
        let attachments: Vec<NodeId> = attachments.into_iter().map(node).collect();
        let mut rng = StdRng::seed_from_u64(seed);
        let plan = Planner::new(&pool, at(1), &mut rng).dialling(dials).plan(hops, &attachments, &[]);
        if let Ok(plan) = plan {
            prop_assert!(is_connected(&plan, dials), "{:?}", plan);
        } else if kinds.chars().all(|kind| kind == 'd') && kinds.len() >= hops.into() {
            prop_assert_eq!(plan.unwrap_err(), PlanError::NotAttached);
        }
    }
}
