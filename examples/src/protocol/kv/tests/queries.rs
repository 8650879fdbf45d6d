use super::*;

for_each_reference!(
    a_value_three_hops_away_is_found_in_every_mode,
    the_hop_limit_is_kept_and_nothing_is_left_behind,
    nobody_is_asked_twice_in_rings_and_cliques,
    everybody_near_enough_is_asked,
    who_dies_with_a_third_of_a_query_does_not_cost_its_lifetime,
    two_thirds_that_have_nothing_do_not_hide_what_the_last_third_has,
    a_node_that_is_to_be_silent_does_not_tell_that_it_has_nothing,
    whoever_asked_a_neighbour_that_goes_learns_at_once,
    only_who_was_asked_ends_a_query_and_only_once,
    as_many_values_come_as_are_wanted_and_no_author_twice,
    nodes_on_the_way_keep_a_copy_for_a_while,
    whoever_asked_a_dead_node_learns_in_time,
    the_newest_version_counts,
    sixteen_nodes_find_hundreds_of_values,
    nobody_can_tell_where_a_query_began,
    more_values_than_a_message_holds_are_cut,
);

fn a_value_three_hops_away_is_found_in_every_mode<R: Reference>() {
    for (mode, ways) in MODES.into_iter().zip([
        vec![(3, 2), (2, 1), (1, 0)],
        vec![(3, 0)],
        // The first hop has the answer sent to itself.
        vec![(3, 1), (1, 0)],
        // The second hop does.
        vec![(3, 2), (2, 1), (1, 0)],
    ]) {
        let mut group = Group::<R>::line(4, &Rules::default());
        group.keep(3, record(1, "name", 1));
        let (time, found) = group.find(0, &query(mode, 3));
        assert_eq!(found, [record(1, "name", 1)], "{mode:?}");
        assert!(time <= HOP * 6, "{mode:?}: {time:?}");
        assert_eq!(group.found_sent(), ways, "{mode:?}");
        if mode == Mode::Asynch {
            assert_eq!([group.count(1, "waiting"), group.count(2, "waiting")], [0, 0]);
        }
    }
}

fn the_hop_limit_is_kept_and_nothing_is_left_behind<R: Reference>() {
    for mode in MODES {
        let rules = Rules::default();
        let mut group = Group::<R>::line(6, &rules);
        group.keep(5, record(1, "name", 1));
        assert_eq!(group.find(0, &query(mode, 6)).1.len(), 1, "{mode:?}");
        let mut group = Group::<R>::line(6, &rules);
        group.keep(5, record(1, "name", 1));
        let (time, found) = group.find(0, &query(mode, 3));
        assert!(found.is_empty() && time <= HOP * 10, "{mode:?}: {time:?}");
        group.run(rules.lifetime);
        for place in 0..6 {
            assert_eq!(group.count(place, "waiting") + group.count(place, "remembered"), 0, "{mode:?}");
            assert_eq!(group.nodes[place].host.poll_timeout(), None, "{mode:?}");
        }
    }
}

/// In these every way that two nodes have in common is known to one of those who ask.
fn nobody_is_asked_twice_in_rings_and_cliques<R: Reference>() {
    let ring: Vec<(usize, usize)> = (0..4).map(|place| (place, (place + 1) % 4)).collect();
    for (nodes, pairs, fan_out) in [(4, ring, 5), (8, clique(8), 5), (16, clique(16), 3), (24, clique(24), 4)]
    {
        for mode in MODES {
            let mut group = Group::<R>::mutual(nodes, &pairs, &Rules::default());
            group.keep(nodes - 1, record(1, "name", 1));
            let wanted = Query { fan_out, ..query(mode, 3) };
            assert_eq!(group.find(0, &wanted).1.len(), 1, "{mode:?}");
            group.run(Duration::from_secs(3));
            let asked = group.asked();
            assert!(asked[0] == 0 && asked.iter().all(|times| *times <= 1), "{mode:?}: {asked:?}");
            // And of what nobody has, everybody is asked whom the fan-out lets each reach.
            let nothing = Query { key: "nothing".to_owned(), fan_out, ..query(mode, 3) };
            let (time, found) = group.find(0, &nothing);
            assert!(found.is_empty() && time <= HOP * 10, "{mode:?}: {time:?}");
            let again: Vec<u64> =
                group.asked().iter().zip(&asked).map(|(all, before)| all - before).collect();
            assert_eq!(again[0], 0, "it comes back to its origin");
            let all = if nodes <= 8 { 1..=1 } else { 0..=1 };
            assert!(again[1..].iter().all(|times| all.contains(times)), "{mode:?}: {again:?}");
        }
    }
}

/// What is left to others is not left out: whoever is near enough is asked, and less often than if each asked all it knows.
fn everybody_near_enough_is_asked<R: Reference>() {
    let (mut questions, mut links) = (0, 0);
    for seed in 0..25_u64 {
        let mut random = seed;
        let mut chance = |of: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % of
        };
        let nodes = 5 + usize::try_from(chance(20)).unwrap();
        let pairs: Vec<(usize, usize)> = clique(nodes).into_iter().filter(|_| chance(4) == 0).collect();
        for (hops, mode) in [(2, Mode::Proxy), (3, Mode::Asynch)] {
            let mut group = Group::<R>::mutual(nodes, &pairs, &Rules { max_fan_out: 64, ..Rules::default() });
            let wanted = Query { fan_out: 64, ..query(mode, hops) };
            assert!(group.find(0, &wanted).1.is_empty());
            group.run(Duration::from_secs(3));
            let mut near = BTreeSet::from([0]);
            for _ in 0..hops {
                let further = |(one, other): &(usize, usize)| near.contains(one) || near.contains(other);
                let reached =
                    pairs.iter().filter(|pair| further(pair)).flat_map(|(one, other)| [*one, *other]);
                near = reached.chain(near.iter().copied()).collect();
            }
            let asked = group.asked();
            let reached: BTreeSet<usize> =
                (0..nodes).filter(|place| *place == 0 || asked[*place] > 0).collect();
            assert_eq!(reached, near, "{seed}, {hops} hops");
            questions += asked.iter().sum::<u64>();
            links += pairs.len() as u64;
        }
    }
    assert!(questions < links, "{questions} questions over {links} links");
}

/// One of three ways is dead; the shares of the two others come home.
fn who_dies_with_a_third_of_a_query_does_not_cost_its_lifetime<R: Reference>() {
    let rules = Rules::default();
    for mode in [Mode::Asynch, Mode::Mix(1)] {
        let mut group = Group::<R>::new(&[vec![1], vec![2, 3, 4], vec![], vec![], vec![]], &rules);
        group.dead.insert(2);
        let origin = usize::from(mode == Mode::Asynch);
        let (time, found) = group.find(origin, &query(mode, 3));
        assert!(found.is_empty() && time > HOP * 10 && time < rules.lifetime / 2, "{mode:?}: {time:?}");
    }
}

/// Two of three ways end at once, and the value is at the end of the third.
fn two_thirds_that_have_nothing_do_not_hide_what_the_last_third_has<R: Reference>() {
    let neighbours = [vec![1, 2, 3], vec![], vec![], vec![4], vec![5], vec![6], vec![7], vec![]];
    let mut group = Group::<R>::new(&neighbours, &Rules::default());
    group.keep(7, record(1, "name", 1));
    assert_eq!(group.find(0, &query(Mode::Asynch, 6)).1.len(), 1);
}

fn a_node_that_is_to_be_silent_does_not_tell_that_it_has_nothing<R: Reference>() {
    let rules = Rules { tell_not_found: false, ..Rules::default() };
    let mut group = Group::<R>::line(3, &rules);
    let (time, found) = group.find(0, &query(Mode::Asynch, 3));
    assert!(found.is_empty() && time >= rules.lifetime, "{time:?}");
    let sent = group.ledger.iter().filter(|one| one.to == 0).count();
    assert_eq!(sent, 0);
}

fn whoever_asked_a_neighbour_that_goes_learns_at_once<R: Reference>() {
    let mut group = Group::<R>::mutual(3, &[(0, 1), (1, 2)], &Rules::default());
    group.dead.insert(2);
    let begin = group.now;
    let request = 1_000;
    let find = RouterInput::Find { request, query: query(Mode::Proxy, 3) };
    group.nodes[0].give(begin, Item::Router(find));
    group.run(HOP * 5);
    assert_eq!(group.count(1, "waiting"), 1);
    let now = group.now;
    group.nodes[1].give(now, Item::Router(RouterInput::Offline(key(2))));
    group.run(HOP * 2);
    let answers = group.nodes[0].take(|item| match item {
        Item::Api(ApiInput::Found { request, records }) => Some((*request, records.len())),
        _ => None,
    });
    assert_eq!(answers, [(request, 0)]);
}

fn only_who_was_asked_ends_a_query_and_only_once<R: Reference>() {
    let mut group = Group::<R>::new(&[vec![1, 2], vec![], vec![], vec![]], &Rules::default());
    group.dead.extend([1, 2]);
    let now = group.now;
    group.nodes[0]
        .give(now, Item::Router(RouterInput::Find { request: 1_000, query: query(Mode::Proxy, 1) }));
    group.run(HOP);
    let id = group.asks()[0].2.id();
    for (from, waiting) in [(3, 1), (1, 1), (1, 1), (2, 0)] {
        let (from, message) = (key(from), Message::NotFound { id, share: u64::MAX });
        group.nodes[0].give(now, Item::Router(RouterInput::Message { from, message }));
        assert_eq!(group.count(0, "waiting"), waiting);
    }
}

fn as_many_values_come_as_are_wanted_and_no_author_twice<R: Reference>() {
    for mode in MODES {
        let hub = vec![vec![1, 2, 3, 4], vec![], vec![], vec![], vec![]];
        let mut group = Group::<R>::new(&hub, &Rules::default());
        for (node, author) in [(1, 1), (2, 2), (3, 2), (4, 3)] {
            group.keep(node, record(author, "name", 1));
        }
        let (_, found) = group.find(0, &Query { wanted: 2, ..query(mode, 3) });
        let authors: BTreeSet<PublicKey> = found.iter().map(|record| record.author).collect();
        assert_eq!((found.len(), authors.len()), (2, 2), "{mode:?}");
    }
}

fn nodes_on_the_way_keep_a_copy_for_a_while<R: Reference>() {
    let rules = Rules { cache_for: Duration::from_secs(30), ..Rules::default() };
    let mut group = Group::<R>::line(4, &rules);
    group.keep(3, record(1, "name", 1));
    group.find(0, &query(Mode::Proxy, 3));
    group.dead.insert(3);
    let sent = group.ledger.len();
    for (place, copies) in [(0, 0), (1, 1), (2, 1)] {
        assert_eq!(group.find(place, &query(Mode::Proxy, 0)).1.len(), copies, "at {place}");
    }
    assert_eq!(group.ledger.len(), sent, "nobody is asked");
    group.run(Duration::from_secs(31));
    assert!(group.find(1, &query(Mode::Proxy, 2)).1.is_empty(), "it was here");
}

fn whoever_asked_a_dead_node_learns_in_time<R: Reference>() {
    let rules = Rules::default();
    let mut group = Group::<R>::line(4, &rules);
    group.keep(3, record(1, "name", 1));
    group.dead.insert(2);
    for mode in MODES {
        let (time, found) = group.find(0, &query(mode, 3));
        assert!(found.is_empty() && time <= rules.lifetime + HOP * 10, "{mode:?} {time:?}");
    }
}

fn the_newest_version_counts<R: Reference>() {
    let mut group = Group::<R>::line(1, &Rules::default());
    group.keep(0, record(1, "name", 2));
    let now = group.now;
    assert_eq!(group.nodes[0].keep(now, record(1, "name", 1)), Err(RecordError::Old));
    group.keep(0, record(1, "name", 3));
    assert_eq!(group.find(0, &query(Mode::Proxy, 0)).1, [record(1, "name", 3)]);
}

fn sixteen_nodes_find_hundreds_of_values<R: Reference>() {
    let mut group = Group::<R>::clique(16, &Rules::default());
    for number in 0..300 {
        let record = R::new(record(1, &format!("name {number}"), 1));
        let put = RouterInput::Put { request: number, record, copies: 2 };
        let now = group.now;
        group.nodes[number as usize % 16].give(now, Item::Router(put));
    }
    group.run(Duration::from_secs(1));
    for number in 0..300 {
        let mode = MODES[number % 4];
        let wanted = Query { key: format!("name {number}"), fan_out: 2, ..query(mode, 4) };
        let (time, found) = group.find((number * 7) % 16, &wanted);
        assert_eq!(found, [record(1, &format!("name {number}"), 1)]);
        assert!(time <= Duration::from_millis(100), "{time:?}");
    }
}

/// A neighbour sees the same of a query that began at the node before it and of one that came through it.
fn nobody_can_tell_where_a_query_began<R: Reference>() {
    let rules = Rules { hide_origin: true, ..Rules::default() };
    let mut group = Group::<R>::line(6, &rules);
    group.keep(5, record(1, "name", 1));
    // Hops left and nodes named, as node 2 sees them of queries that begin at its neighbour and before it.
    let [near, far]: [BTreeSet<(u8, usize)>; 2] = [1, 0].map(|origin| {
        group.ledger.clear();
        for _ in 0..64 {
            group.find(origin, &query(Mode::Proxy, 7));
        }
        let asks = group.asks();
        assert!(asks.iter().filter(|(_, to, _)| *to >= 2).all(|(_, _, ask)| !ask.history.contains(&key(0))));
        let seen = asks.iter().filter(|(_, to, _)| *to == 2);
        seen.map(|(_, _, ask)| (ask.hops, ask.history.len() + ask.together.len())).collect()
    });
    assert_eq!(near, BTreeSet::from([(7, 2)]));
    assert!(far.is_superset(&near), "what comes from the origin may as well have come through it: {far:?}");
}

fn more_values_than_a_message_holds_are_cut<R: Reference>() {
    let records = (0..16).map(|author| {
        let identity = identity(author);
        let sign = |purpose: &str, bytes: &[u8]| identity.sign_for(purpose, bytes);
        R::new(Record::new(identity.public_key(), "name", &[255; MAX_VALUE], 1, sign).unwrap())
    });
    let message = Message::<R>::Found { id: 1, records: records.collect(), share: 0 };
    let bytes = message.to_bytes();
    assert!(bytes.len() <= crate::protocol::mesh::MAX_MESSAGE);
    let Ok(Message::Found { records, .. }) = Message::<R>::from_bytes(&bytes) else { panic!() };
    assert!((1..16).contains(&records.len()), "{}", records.len());
}

#[test]
fn bytes_that_are_no_message_are_refused() {
    for text in ["", "{}", r#"{"NotFound":{}}"#, r#"{"Put":{"author":"x"}}"#, r#"{"Ask":{"way":"Turn"}}"#] {
        assert!(Message::<RcRef>::from_bytes(text.as_bytes()).is_err(), "{text}");
    }
}

/// All pairs of so many nodes.
fn clique(nodes: usize) -> Vec<(usize, usize)> {
    (0..nodes).flat_map(|one| (0..one).map(move |other| (other, one))).collect()
}
