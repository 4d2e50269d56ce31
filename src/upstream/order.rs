//! In which order the upstreams of a model are asked: as the operator wrote them, those with weights drawn by them.

use crate::catalogue::Serving;

/// The servings of a model in the order in which one call asks them. Those with weights that stand next to each other are a
/// group at their place: which of them comes first is drawn by weight, and so is each that follows, from those that are left.
///
/// `lot` decides; it must be fresh for each call. The same lot draws the same order.
pub(super) fn arranged(servings: &[Serving], lot: u64) -> Vec<&Serving> {
    let mut order: Vec<&Serving> = servings.iter().collect();
    let mut lots = Lots(lot);
    let mut start = 0;
    while start < order.len() {
        let group = order[start..].iter().take_while(|serving| serving.weight.is_some()).count();
        let end = start + group.max(1);
        // The last one left needs no draw.
        for place in start..end - 1 {
            let drawn = draw(&order[place..end], lots.next());
            order[place..=place + drawn].rotate_right(1);
        }
        start = end;
    }
    order
}

/// Which of a group a lot falls on.
fn draw(group: &[&Serving], lot: u64) -> usize {
    let weight = |serving: &&Serving| u128::from(serving.weight.map_or(1, u32::from));
    let all: u128 = group.iter().map(weight).sum();
    // The lot as a fraction of all lots, in units of weight.
    let mut at = (u128::from(lot) * all) >> u64::BITS;
    let hit = |serving: &&Serving| {
        let is_hit = at < weight(serving);
        at = at.saturating_sub(weight(serving));
        is_hit
    };
    group.iter().position(hit).unwrap_or(0)
}

/// Many lots from one: each is the next of a counter, its bits well mixed.
struct Lots(u64);

impl Lots {
    fn next(&mut self) -> u64 {
        // An odd number near the golden ratio of all: the counter comes by everywhere.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        for multiplier in [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb] {
            mixed = (mixed ^ (mixed >> 29)).wrapping_mul(multiplier);
        }
        mixed ^ (mixed >> 32)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// `a:3` is an upstream of weight 3, `b` one without a weight.
    fn servings(text: &str) -> Vec<Serving> {
        let serving = |word: &str| {
            let (name, weight) = word.split_once(':').unzip();
            let weight = weight.map(|weight| weight.parse().unwrap());
            Serving { upstream: name.unwrap_or(word).into(), model: "m".into(), weight, cost: None }
        };
        text.split(' ').map(serving).collect()
    }

    /// How often each order was drawn with a thousand lots.
    fn orders(text: &str) -> BTreeMap<String, usize> {
        let servings = servings(text);
        let mut counts = BTreeMap::new();
        for lot in 0..1000 {
            let order: Vec<_> = arranged(&servings, lot).into_iter().map(|serving| serving.upstream.as_str()).collect();
            *counts.entry(order.join(" ")).or_default() += 1;
        }
        counts
    }

    #[test]
    fn without_weights_they_are_asked_as_they_are_written() {
        assert_eq!(orders("c a b"), [("c a b".to_owned(), 1000)].into());
        assert_eq!(orders("a:7 b c:1"), [("a b c".to_owned(), 1000)].into(), "a group of one has its place");
    }

    #[test]
    fn weights_decide_who_of_a_group_comes_first_and_who_next() {
        let near = |count: usize, expected: usize| count.abs_diff(expected) < 45;
        let drawn = orders("first a:3 b:1 last");
        assert_eq!(drawn.values().sum::<usize>(), 1000);
        assert!(near(drawn["first a b last"], 750) && near(drawn["first b a last"], 250), "{drawn:?}");
        // 1/2 for a; then 3:2 for b and c, and so on.
        let drawn = orders("a:5 b:3 c:2");
        for (order, expected) in [("a b c", 300), ("a c b", 200), ("b a c", 214), ("b c a", 86), ("c a b", 125), ("c b a", 75)] {
            assert!(near(drawn[order], expected), "{order}: {drawn:?}");
        }
    }

    #[test]
    fn the_heaviest_weights_do_not_overflow() {
        let heavy = u32::MAX;
        let drawn = orders(&format!("a:{heavy} b:{heavy}"));
        assert!(drawn["a b"].abs_diff(500) < 60, "{drawn:?}");
        assert_eq!(arranged(&servings(&format!("a:{heavy} b:1")), u64::MAX).len(), 2);
    }
}
