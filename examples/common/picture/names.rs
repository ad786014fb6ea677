//! Placement of the names of lines: beside their ends, without covering each other.

/// A rectangle of pixels: left, top, right and bottom.
pub type Block = (i32, i32, i32, i32);

/// The distance from the middle of one name to that of the next one below it.
pub const GAP: i32 = 18;

/// Half the height of a name's letters.
const HALF: i32 = 7;

/// The distance from the end of a line to its name.
const AIR: i32 = 9;

/// The block of a name that is `width` wide and starts at `left`, around `middle`.
pub fn block(left: i32, middle: i32, width: i32) -> Block {
    (left, middle - HALF, left + width, middle + HALF)
}

/// Heights from `top` to `bottom`, at least [`GAP`] apart and as near as possible to `wanted`, whose order they keep.
///
/// Without the gaps this is isotonic regression, solved by pooling adjacent violators (Ayer et al. 1955).
pub fn apart(wanted: &[i32], top: i32, bottom: i32) -> Vec<i32> {
    let mut groups: Vec<(i32, i32)> = Vec::new(); // the sum of a group's heights, less the gaps above, and its size
    for (above, &height) in (0..).zip(wanted) {
        let mut group = (height - above * GAP, 1);
        while let Some(&(sum, size)) = groups.last()
            && sum * group.1 >= group.0 * size
        {
            groups.pop();
            group = (sum + group.0, size + group.1);
        }
        groups.push(group);
    }
    let lowest = bottom - (wanted.len() as i32 - 1) * GAP;
    let means = groups.iter().flat_map(|&(sum, size)| (0..size).map(move |_| (sum / size).min(lowest).max(top)));
    (0..).zip(means).map(|(above, height)| height + above * GAP).collect()
}

/// Places a name that is `width` wide near the end of a line that ends inside the plot `within`: gives its left and its middle. The
/// name avoids the blocks that are `taken`, and covers as little of the `lines` as possible.
pub fn beside(end: (i32, i32), width: i32, within: Block, lines: &[Vec<(i32, i32)>], taken: &[Block]) -> (i32, i32) {
    let (_, top, right, bottom) = within;
    let sideways = [(end.0 + AIR, 0), (end.0 - width / 2, 4), (end.0 - AIR - width, 8)];
    let heights = (-8..=8).map(|step| (end.1 + step * GAP / 2).max(top + HALF).min(bottom - HALF - 1));
    let places = heights.flat_map(|middle| sideways.map(|(left, cost)| (left, middle, cost)));
    let cost = |&(left, middle, cost): &(i32, i32, i32)| {
        let block = block(left, middle, width);
        let clash = taken.iter().filter(|other| overlap(block, **other)).count() as i32;
        let outside = block.0 < within.0 || block.2 > right + AIR;
        let covered: i32 = lines.iter().map(|line| covered(line, block)).sum();
        cost + (middle - end.1).abs() + 4 * covered + 10_000 * (clash + i32::from(outside))
    };
    let (left, middle, _) = places.min_by_key(cost).expect("a place");
    (left, middle)
}

fn overlap(a: Block, b: Block) -> bool {
    a.0 < b.2 + 2 && b.0 < a.2 + 2 && a.1 < b.3 + 2 && b.1 < a.3 + 2
}

/// How many pixels of a line are in a block, or just beside it.
fn covered(line: &[(i32, i32)], block: Block) -> i32 {
    let mut pixels = 0;
    for pair in line.windows(2) {
        let [(x, y), to] = [pair[0], pair[1]];
        let (dx, dy) = (to.0 - x, to.1 - y);
        let steps = dx.abs().max(dy.abs()).max(1);
        let inside = |&k: &i32| {
            let (x, y) = (x + dx * k / steps, y + dy * k / steps);
            (block.0 - 2..=block.2 + 2).contains(&x) && (block.1 - 2..=block.3 + 2).contains(&y)
        };
        pixels += (0..steps).filter(inside).count() as i32;
    }
    pixels
}
