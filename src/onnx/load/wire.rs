//! Counts the fields of a file without decoding it.
//!
//! A field of two bytes can become a node of a hundred and fifty in memory, so the number of fields that become values of their own
//! is bounded before anything is decoded.

/// The fields of each kind of message that are messages with fields of their own, as `(field, kind)`.
const INSIDE: [&[(u64, usize)]; 10] = [
    // Model: graph, operator sets.
    &[(7, 1), (8, 5)],
    // Graph: nodes, initializers, inputs, outputs.
    &[(1, 2), (5, 4), (11, 6), (12, 6)],
    // Node: attributes.
    &[(5, 3)],
    // Attribute: a tensor.
    &[(5, 4)],
    // Tensor: where external data is.
    &[(13, 5)],
    // Messages of only strings and numbers.
    &[],
    // Value, its type, the type of a tensor, its shape: dimensions.
    &[(2, 7)],
    &[(1, 8)],
    &[(2, 9)],
    &[(1, 5)],
];

/// Why a file cannot be decoded.
#[derive(Debug, PartialEq, Eq)]
pub enum WireFault {
    /// It has more fields than the limit.
    TooMany,
    /// It is cut off or damaged, at this byte.
    Damaged(usize),
}

/// Checks that a file has at most `limit` fields in the messages that are decoded.
pub fn check(bytes: &[u8], limit: usize) -> Result<(), WireFault> {
    let mut left = limit;
    message(bytes, 0, 0, &mut left)
}

/// Checks a message of this kind, which starts at `start` in the file. At most seven messages are nested.
fn message(bytes: &[u8], start: usize, kind: usize, left: &mut usize) -> Result<(), WireFault> {
    let mut at = 0;
    while at < bytes.len() {
        *left = left.checked_sub(1).ok_or(WireFault::TooMany)?;
        let damaged = WireFault::Damaged(start + at);
        let Some((tag, mut next)) = varint(bytes, at) else { return Err(damaged) };
        match tag & 7 {
            0 => match varint(bytes, next) {
                Some((_, end)) => next = end,
                None => return Err(damaged),
            },
            1 => next += 8,
            5 => next += 4,
            2 => {
                let Some((length, content)) = varint(bytes, next) else { return Err(damaged) };
                let end = usize::try_from(length).ok().and_then(|length| content.checked_add(length));
                let Some(inner) = end.and_then(|end| bytes.get(content..end)) else { return Err(damaged) };
                if let Some(&(_, kind)) = INSIDE[kind].iter().find(|(field, _)| *field == tag >> 3) {
                    message(inner, start + content, kind, left)?;
                }
                next = content + inner.len();
            }
            _ => return Err(damaged),
        }
        if next > bytes.len() {
            return Err(damaged);
        }
        at = next;
    }
    Ok(())
}

/// A number of up to ten bytes, and the place after it.
fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (k, &byte) in bytes.get(at..)?.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * k);
        if byte < 0x80 {
            return Some((value, at + k + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_where_they_are_decoded() {
        // graph { node { input: "x" } node {} }, and an unknown field.
        let file = [0x3a, 7, 0x0a, 3, 0x0a, 1, b'x', 0x0a, 0, 0x78, 1];
        assert_eq!(check(&file, 5), Ok(()));
        assert_eq!(check(&file, 4), Err(WireFault::TooMany));
        for cut in 1..file.len() {
            assert!(matches!(check(&file[..cut], 5), Err(WireFault::Damaged(_))) || cut == 9, "{cut}");
        }
        assert_eq!(check(&[0x0b], 5), Err(WireFault::Damaged(0)));
        assert_eq!(check(&[0xff; 20], 5), Err(WireFault::Damaged(0)));
    }
}
