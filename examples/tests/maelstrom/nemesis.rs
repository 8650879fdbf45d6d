use std::collections::BTreeSet;

use crate::random::Random;

/// Which nodes cannot talk: a random harm to `count` nodes.
pub(crate) fn partition(random: &mut Random, count: usize) -> BTreeSet<(usize, usize)> {
    let mut order: Vec<usize> = (0..count).collect();
    random.shuffle(&mut order);
    let pairs = || (0..count).flat_map(|a| (0..count).map(move |b| (a, b)));
    match random.below(3) {
        // One alone, or a minority.
        shape @ (0 | 1) => {
            let side: BTreeSet<usize> =
                order.into_iter().take(if shape == 0 { 1 } else { (count - 1).div_ceil(2).max(1) }).collect();
            pairs().filter(|(a, b)| side.contains(a) != side.contains(b)).collect()
        }
        // Each sees a majority, no two the same one.
        _ => {
            let reach = count / 4 + 1;
            let far = |a: usize, b: usize| {
                let distance = (a + count - b) % count;
                reach < distance && distance < count - reach
            };
            pairs().filter(|(a, b)| far(*a, *b)).map(|(a, b)| (order[a], order[b])).collect()
        }
    }
}
