//! Text for people: bounded, because what comes from outside is cut before it reaches a status, an event or a log; and
//! with numbers that agree with their words.

use std::fmt::Display;

/// `text` cut to at most `max` bytes on a character boundary, with `…` as its last character when it was cut and there
/// is room for it.
#[must_use]
pub fn bounded(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let mark = if max < '…'.len_utf8() { "" } else { "…" };
    let mut end = max - mark.len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{mark}", &text[..end])
}

/// `text` without what a terminal would obey: a space stands for each such character.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || turns(c) { ' ' } else { c })
        .collect()
}

/// Whether a character turns the direction of the text around it: other words would be read than are there.
const fn turns(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

/// A number with what it counts: `one` after 1, else `many`.
#[must_use]
pub fn counted<N: Copy + Display + PartialEq + From<u8>>(count: N, one: &str, many: &str) -> String {
    let words = if count == N::from(1) { one } else { many };
    format!("{count} {words}")
}

#[cfg(test)]
mod tests {
    use super::{bounded, counted, printable};

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        assert_eq!(printable("a\u{1b}[31m\r\nü\u{9b}\u{7f}"), "a [31m  ü  ");
    }

    #[test]
    fn nothing_that_turns_the_direction_of_text_is_left() {
        let turning =
            "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}";
        assert_eq!(printable(turning), " ".repeat(12));
        // Letters that are written from right to left, and what joins them, are left as they are.
        let plain = "\u{5d0}\u{200d}\u{627}";
        assert_eq!(printable(plain), plain);
    }

    #[test]
    fn numbers_agree_with_their_words() {
        let pods = |count| counted(count, "pod is", "pods are");
        assert_eq!(
            (pods(0), pods(1), pods(2)),
            ("0 pods are".into(), "1 pod is".into(), "2 pods are".into())
        );
    }

    #[test]
    fn cuts_on_a_character_boundary_and_marks_it() {
        assert_eq!(bounded("short", 10), "short");
        assert_eq!(bounded("abcd", 4), "abcd");
        assert_eq!(bounded("abcde", 4), "a…");
        assert_eq!(bounded("ääääää", 8), "ää…");
        assert!(bounded(&"é".repeat(500), 256).len() <= 256);
    }

    #[test]
    fn a_bound_without_room_for_the_mark_holds_too() {
        assert_eq!(bounded("abcd", 2), "ab");
        assert_eq!(bounded("éé", 1), "");
        assert_eq!(bounded("abcd", 0), "");
    }
}
