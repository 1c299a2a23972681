//! How a true input is broken.
//!
//! A few changes at a time: bits, bytes and ranges, pieces of other inputs, numbers in the place of numbers, and what
//! parsers have fallen over before. Knows nothing of any format but brackets, quotes and digits.

use fastrand::Rng;

use super::Target;

/// Changes of one input.
const CHANGES_MAX: usize = 6;
/// One in so many changes makes an input long or deep, which takes long to read.
const LARGE_EVERY: usize = 200;

const NUMBERS: [&str; 22] = [
    "0",
    "-0",
    "-1",
    "1",
    "00",
    "0.1",
    "1e9",
    "1e309",
    "-1e309",
    "1e-400",
    "NaN",
    "-inf",
    "Infinity",
    "127",
    "255",
    "65536",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "340282366920938463463374607431768211456",
];

const MAGIC: [&[u8]; 48] = [
    b"\0",
    b"\xff",
    b"\xff\xfe",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xe2\x80\xae",
    b"\xef\xbb\xbf",
    "\u{df}".as_bytes(),
    "\u{130}".as_bytes(),
    "\u{1f600}".as_bytes(),
    b"\r\n",
    b"\n",
    b"\t",
    b" ",
    b"\x1b[31m",
    b"\x7f",
    b"\\u0000",
    b"\\ud800",
    b"\\",
    b"\"",
    b"'",
    b"\"\"",
    b"%",
    b"%00",
    b"%ff",
    b"%zz",
    b"@",
    b"#",
    b"?",
    b"&",
    b"*",
    b":",
    b"::",
    b";",
    b",",
    b".",
    b"..",
    b"/",
    b"=",
    b"{}",
    b"[]",
    b"null",
    b"true",
    b"&a [*a,*a]",
    b"--- ",
    b"9999-12-31T23:59:59Z",
    b"-009999-01-01T00:00:00",
];

/// What opens, and what closes it.
const NESTS: [(&[u8], &[u8]); 7] = [
    (b"[", b"]"),
    (b"{\"a\":", b"}"),
    (b"- ", b""),
    (b"{a: ", b"}"),
    (b"(", b")"),
    (b"&a [", b"]"),
    (b"\"", b"\""),
];

/// Breaks inputs of one parser.
pub(super) struct Mutator<'a> {
    chance: Rng,
    target: &'a Target,
}

impl<'a> Mutator<'a> {
    /// Each parser has its own run of chance, whatever other parsers there are.
    pub(super) fn new(seed: u64, target: &'a Target) -> Self {
        let name = target.name.bytes();
        let seed = name.fold(seed, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        Self {
            chance: Rng::with_seed(seed),
            target,
        }
    }

    /// One more input.
    pub(super) fn next(&mut self) -> Vec<u8> {
        let mut input = self.one().to_vec();
        for _ in 0..self.chance.usize(1..=CHANGES_MAX) {
            if self.chance.usize(..LARGE_EVERY) == 0 {
                self.enlarge(&mut input);
            } else {
                self.change(&mut input);
            }
        }
        input.truncate(self.target.longest);
        input
    }

    /// One of the true inputs.
    fn one(&mut self) -> &'a [u8] {
        let corpus = &self.target.corpus;
        corpus
            .get(self.chance.usize(..corpus.len().max(1)))
            .map_or(&[], Vec::as_slice)
    }

    fn place(&mut self, input: &[u8]) -> usize {
        self.chance.usize(..=input.len())
    }

    /// A range, mostly a short one.
    fn range(&mut self, input: &[u8]) -> std::ops::Range<usize> {
        let from = self.place(input);
        let most = if self.chance.bool() { 8 } else { input.len() };
        let to = (from + self.chance.usize(..=most)).min(input.len());
        from..to
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        match self.chance.u8(..12) {
            0 => {
                let (at, bit) = (self.place(input), self.chance.u8(..8));
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            1 => {
                let (at, value) = (self.place(input), self.chance.u8(..));
                if let Some(byte) = input.get_mut(at) {
                    *byte = value;
                }
            }
            2 => input.truncate(self.place(input)),
            3 => {
                let range = self.range(input);
                input.drain(range);
            }
            4 => {
                let range = self.range(input);
                let at = self.place(input);
                let piece = input[range].to_vec();
                insert(input, at, &piece);
            }
            5 => {
                // The beginning of this one, and the end of another.
                let other = self.one();
                let (at, from) = (self.place(input), self.place(other));
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            6 | 7 => self.renumber(input),
            8 => {
                let (at, word) = (self.place(input), self.word());
                insert(input, at, word);
            }
            9 => {
                let (from, to) = token(input, self.place(input));
                let other = self.one();
                let (other_from, other_to) = token(other, self.place(other));
                input.splice(from..to, other[other_from..other_to].iter().copied());
            }
            _ => {
                let (from, to) = token(input, self.place(input));
                let word = self.word();
                input.splice(from..to, word.iter().copied());
            }
        }
    }

    /// What a parser looks for, or has fallen over.
    fn word(&mut self) -> &'static [u8] {
        let words = self.target.words;
        if !words.is_empty() && self.chance.bool() {
            return words[self.chance.usize(..words.len())].as_bytes();
        }
        if self.chance.u8(..4) == 0 {
            return NUMBERS[self.chance.usize(..NUMBERS.len())].as_bytes();
        }
        MAGIC[self.chance.usize(..MAGIC.len())]
    }

    /// Another number where the next one stands.
    fn renumber(&mut self, input: &mut Vec<u8>) {
        let at = self.place(input);
        let Some(from) = (at..input.len()).find(|at| input[*at].is_ascii_digit()) else {
            return;
        };
        let digits = input[from..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let number = NUMBERS[self.chance.usize(..NUMBERS.len())];
        input.splice(from..from + digits, number.bytes());
    }

    /// Many times the same, one after the other or one in the other.
    fn enlarge(&mut self, input: &mut Vec<u8>) {
        let times = 1 << self.chance.u32(4..15);
        let at = self.place(input);
        if self.chance.bool() {
            let range = self.range(input);
            let piece = input[range].to_vec();
            let times = times.min(self.target.longest / piece.len().max(1));
            insert(input, at, &piece.repeat(times));
        } else {
            let (open, close) = NESTS[self.chance.usize(..NESTS.len())];
            let (from, to) = token(input, at);
            let mut nest = open.repeat(times);
            nest.extend_from_slice(&input[from..to]);
            nest.extend(close.repeat(times));
            input.splice(from..to, nest);
        }
    }
}

fn insert(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    input.splice(at..at, piece.iter().copied());
}

/// The word or number around a place.
fn token(input: &[u8], at: usize) -> (usize, usize) {
    let is_inside = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let before = input[..at]
        .iter()
        .rev()
        .take_while(|byte| is_inside(byte))
        .count();
    let after = input[at..].iter().take_while(|byte| is_inside(byte)).count();
    (at - before, at + after)
}
