//! Bounded text: whatever comes from outside is cut before it reaches a status, an event or a log.

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

#[cfg(test)]
mod tests {
    use super::bounded;

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
