//! Bounded text: whatever comes from outside is cut before it reaches a status, an event or a log.

/// `text` cut to at most `max` bytes on a character boundary, with `…` as its last character when it was cut.
#[must_use]
pub fn bounded(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let mut end = max.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::bounded;

    #[test]
    fn cuts_on_a_character_boundary_and_marks_it() {
        assert_eq!(bounded("short", 10), "short");
        assert_eq!(bounded("ääääää", 8), "ää…");
        assert!(bounded(&"é".repeat(500), 256).len() <= 256);
    }
}
