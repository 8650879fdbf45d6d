use super::*;

for_each_reference!(
    a_value_three_hops_away_is_found_in_every_mode,
    the_hop_limit_is_kept_and_nothing_is_left_behind,
    nobody_handles_a_query_twice,
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
        assert!(found.is_empty() && time <= rules.lifetime + HOP * 10, "{mode:?}: {time:?}");
        group.run(rules.lifetime);
        for place in 0..6 {
            assert_eq!(group.count(place, "waiting") + group.count(place, "remembered"), 0, "{mode:?}");
            assert_eq!(group.nodes[place].host.poll_timeout(), None, "{mode:?}");
        }
    }
}

fn nobody_handles_a_query_twice<R: Reference>() {
    let ring: Vec<Vec<usize>> = (0..4).map(|place| vec![place, (place + 1) % 4]).collect();
    for mode in MODES {
        for mut group in [Group::<R>::new(&ring, &Rules::default()), Group::clique(8, &Rules::default())] {
            let last = group.nodes.len() - 1;
            group.keep(last, record(1, "name", 1));
            assert_eq!(group.find(0, &query(mode, 3)).1.len(), 1, "{mode:?}");
            group.run(Duration::from_secs(3));
            let asks = group.asks();
            // Those who were asked together do not ask each other: in a clique 5, and then 2 of each.
            assert!(asks.len() <= 5 + 5 * 2, "{} questions", asks.len());
            assert!(asks.iter().all(|(_, to, _)| *to != 0), "it comes back to its origin");
            for place in 0..group.nodes.len() {
                let again = group.count(place, "asked_again");
                assert!(group.count(place, "asked") <= 1 + again);
            }
        }
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
        seen.map(|(_, _, ask)| (ask.hops, ask.history.len())).collect()
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
    let message = Message::<R>::Found { id: 1, records: records.collect() };
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
