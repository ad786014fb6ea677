//! The part of the tree of shards that lies within a rank.

use gradflow::Float;
use gradflow::author::{from_bf16, to_bf16};

use crate::options::Wire;

/// The nearest bfloat16, as a value of the element type.
#[inline(always)]
pub(crate) fn rounded<F: Float>(x: F) -> F {
    F::of(from_bf16(to_bf16(x.widen() as f32)).into())
}

/// Rounds `values` as they are sent.
pub(crate) fn round<F: Float>(wire: Wire, values: &mut [F]) {
    if wire == Wire::Bf16 {
        values.iter_mut().for_each(|x| *x = rounded(*x));
    }
}

/// `sums += others`.
pub(crate) fn add<F: Float>(sums: &mut [F], others: &[F]) {
    sums.iter_mut().zip(others).for_each(|(sum, &other)| *sum += other);
}

/// A binary tree that is summed leaf by leaf, in the memory of one path from the root: a node is added to its left neighbour as soon as
/// both are complete.
///
/// ```text
/// leaves so far    nodes that wait
/// 1                ①
/// 2                ①+②
/// 3                ①+②  ③
/// 4                (①+②)+(③+④)
/// ```
#[derive(Clone, Debug)]
pub(crate) struct Tree<F> {
    length: usize,
    wire: Wire,
    /// Level and sum, from left to right; a leaf's level is 0.
    nodes: Vec<(u32, Vec<F>)>,
    spare: Vec<Vec<F>>,
}

impl<F: Float> Tree<F> {
    /// A tree whose leaves have `length` elements.
    pub fn new(length: usize, wire: Wire) -> Self {
        Tree { length, wire, nodes: Vec::new(), spare: Vec::new() }
    }

    /// Whether no sum is pending.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds the next leaf: `factor` times the elements of all `parts`, one after the other.
    pub fn add_leaf<'a>(&mut self, parts: impl Iterator<Item = &'a [F]>, factor: F) {
        let Tree { length, wire, nodes, spare } = self;
        if let (Some((level @ 0, sum)), Wire::Exact) = (nodes.last_mut(), *wire) {
            // Adds to the leaf before it without a copy of this one.
            let mut place = &mut sum[..];
            for part in parts {
                let (own, rest) = place.split_at_mut(part.len());
                own.iter_mut().zip(part).for_each(|(sum, &value)| *sum += factor * value);
                place = rest;
            }
            *level = 1;
        } else {
            let mut leaf = spare.pop().unwrap_or_else(|| vec![F::zero(); *length]);
            let mut place = &mut leaf[..];
            for part in parts {
                let (own, rest) = place.split_at_mut(part.len());
                own.iter_mut().zip(part).for_each(|(place, &value)| *place = factor * value);
                place = rest;
            }
            nodes.push((0, leaf));
        }
        while let [.., (left, _), (right, _)] = self.nodes[..]
            && left == right
        {
            self.join();
        }
    }

    /// Adds the last node to the one before it.
    fn join(&mut self) {
        let (_, mut right) = self.nodes.pop().expect("two nodes");
        let (level, left) = self.nodes.last_mut().expect("two nodes");
        round(self.wire, left);
        round(self.wire, &mut right);
        add(left, &right);
        *level += 1;
        self.spare.push(right);
    }

    /// Returns the sum of all leaves, of which there must be at least one, and empties the tree. Give the memory
    /// [back](Tree::give_back).
    pub fn total(&mut self) -> Vec<F> {
        while self.nodes.len() > 1 {
            self.join();
        }
        self.nodes.pop().expect("a leaf").1
    }

    /// Takes back memory for the next leaves.
    pub fn give_back(&mut self, memory: Vec<F>) {
        self.spare.push(memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum of leaves, whose number is a power of two, computed by its definition.
    fn defined(leaves: &[Vec<f32>], wire: Wire) -> Vec<f32> {
        if let [leaf] = leaves {
            return leaf.clone();
        }
        let (left, right) = leaves.split_at(leaves.len() / 2);
        let (mut left, mut right) = (defined(left, wire), defined(right, wire));
        round(wire, &mut left);
        round(wire, &mut right);
        left.iter().zip(right).map(|(a, b)| a + b).collect()
    }

    fn leaves(count: usize) -> Vec<Vec<f32>> {
        (0..count)
            .map(|s| (0..5).map(|i| ((s * 37 + i * 11) as f32 * 0.7).sin() * 1e3f32.powi(i as i32 % 3)).collect())
            .collect()
    }

    #[test]
    fn leaves_are_summed_as_the_definition_says() {
        for wire in [Wire::Exact, Wire::Bf16] {
            for count in [1, 2, 4, 8, 32] {
                let mut tree = Tree::new(5, wire);
                for _ in 0..2 {
                    for leaf in leaves(count) {
                        tree.add_leaf([&leaf[..2], &leaf[2..]].into_iter(), 1.0);
                    }
                    let total = tree.total();
                    assert_eq!(total, defined(&leaves(count), wire), "{count} {wire:?}");
                    tree.give_back(total);
                }
                let naive = leaves(count)
                    .iter()
                    .fold(vec![0.0; 5], |sum, leaf| sum.iter().zip(leaf).map(|(a, b)| a + b).collect::<Vec<f32>>());
                assert!(count < 8 || naive != defined(&leaves(count), wire), "the order makes a difference here");
            }
        }
    }

    #[test]
    fn subtrees_of_ranks_are_subtrees_of_the_whole() {
        let all = leaves(8);
        for ranks in [2, 4] {
            let parts: Vec<_> = all
                .chunks(8 / ranks)
                .map(|own| {
                    let mut tree = Tree::new(5, Wire::Exact);
                    own.iter().for_each(|leaf| tree.add_leaf([&leaf[..]].into_iter(), 1.0));
                    tree.total()
                })
                .collect();
            assert_eq!(defined(&parts, Wire::Exact), defined(&all, Wire::Exact));
        }
    }

    #[test]
    fn factors_weigh_leaves_and_any_number_is_summed() {
        let mut tree = Tree::new(1, Wire::Exact);
        for (value, factor) in [(1.0f64, 3.0), (10.0, 2.0), (100.0, 1.0)] {
            tree.add_leaf([&[value][..]].into_iter(), factor);
        }
        assert_eq!(tree.total(), [123.0]);
    }
}
