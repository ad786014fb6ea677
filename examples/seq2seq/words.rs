//! Numbers in English words, and in digits.

/// All words, by their ids.
const WORDS: [&str; 33] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
    "thirty",
    "forty",
    "fifty",
    "sixty",
    "seventy",
    "eighty",
    "ninety",
    "hundred",
    "thousand",
    "million",
    "billion",
    "and",
];

/// The number of words.
pub const VOCABULARY: usize = WORDS.len();

const TWENTY: usize = 20;
const HUNDRED: usize = 28;
const THOUSAND: usize = 29;
const MILLION: usize = 30;
const BILLION: usize = 31;
const AND: usize = 32;

/// The symbol after the digits 0 to 9: the decoder reads it before the first digit, and must write it after the last.
pub const END: usize = 10;

/// The number of symbols that the decoder reads and writes: the digits, and [`END`].
pub const SYMBOLS: usize = 11;

/// The most digits of a number.
pub const DIGITS: usize = 12;

/// A number below a thousand billion, as word ids: 407 is "four hundred and seven".
pub fn words(number: u64) -> Vec<usize> {
    let mut words = Vec::new();
    for (unit, word) in [(1_000_000_000, Some(BILLION)), (1_000_000, Some(MILLION)), (1000, Some(THOUSAND)), (1, None)]
    {
        let group = number / unit % 1000;
        if group == 0 {
            continue;
        }
        let (hundreds, rest) = ((group / 100) as usize, (group % 100) as usize);
        if hundreds > 0 {
            words.extend([hundreds, HUNDRED]);
        }
        // The last two digits follow an "and", whatever is before them.
        if rest > 0 && (hundreds > 0 || (word.is_none() && !words.is_empty())) {
            words.push(AND);
        }
        match rest {
            0 => {}
            1..TWENTY => words.push(rest),
            _ => words.extend([TWENTY - 2 + rest / 10, rest % 10].into_iter().filter(|&word| word != 0)),
        }
        words.extend(word);
    }
    if words.is_empty() { vec![0] } else { words }
}

/// The digits of a number, the first one first.
pub fn digits(number: u64) -> Vec<usize> {
    number.to_string().bytes().map(|digit| usize::from(digit - b'0')).collect()
}

/// A word.
pub fn word(id: usize) -> &'static str {
    WORDS[id]
}

/// The ids of a phrase; hyphens and commas are spaces.
///
/// # Errors
/// If a word is not known, or there is none.
pub fn read(phrase: &str) -> Result<Vec<usize>, String> {
    let separator = |c: char| c.is_whitespace() || c == '-' || c == ',';
    let words = phrase.split(separator).filter(|word| !word.is_empty());
    let ids = words.map(|word| {
        let id = WORDS.iter().position(|known| known.eq_ignore_ascii_case(word));
        id.ok_or_else(|| format!("{word:?} is not among the words {}", WORDS.join(", ")))
    });
    let ids = ids.collect::<Result<Vec<usize>, String>>()?;
    if ids.is_empty() { Err("expected a number in words".into()) } else { Ok(ids) }
}
