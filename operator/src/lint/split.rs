//! Where one document of a file ends and the next begins.
//!
//! As kubectl does it, so that one broken document hides no other: at lines of `---`, and between the objects of a JSON
//! stream, which is a file that begins with an object. Knows nothing else of YAML.

use serde::de::IgnoredAny;

/// How much of a file is before a document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Lines before that of its first character.
    pub lines: u64,
    /// Characters of that line before it.
    pub columns: u64,
}

impl Start {
    /// The start of what follows this text.
    fn after(self, text: &str) -> Self {
        let lines = text.matches('\n').count() as u64;
        let last = text.rsplit('\n').next().unwrap_or_default();
        let columns = last.chars().count() as u64;
        Self {
            lines: self.lines + lines,
            columns: if lines == 0 {
                self.columns + columns
            } else {
                columns
            },
        }
    }
}

/// The documents of a file, each with its start. Each keeps its own `---` line.
#[must_use]
pub fn documents(text: &str) -> Vec<(Start, &str)> {
    let mut start = Start::default();
    let mut documents = Vec::new();
    for document in parts(text).into_iter().flat_map(objects) {
        documents.push((start, document));
        start = start.after(document);
    }
    documents
}

/// What lines of `---` part.
fn parts(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut offset) = (0, 0);
    for line in text.split_inclusive('\n') {
        if offset > start && is_separator(line) {
            parts.push(&text[start..offset]);
            start = offset;
        }
        offset += line.len();
    }
    parts.push(&text[start..]);
    parts
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

/// The objects of a JSON stream. What is none, or no whole one, stays in one piece, for the parser to say what is wrong.
fn objects(part: &str) -> Vec<&str> {
    let mut objects = Vec::new();
    let mut start = 0;
    if part.trim_start().starts_with('{') {
        let mut stream = serde_json::Deserializer::from_str(part).into_iter::<IgnoredAny>();
        while let Some(Ok(_)) = stream.next() {
            let rest = part[stream.byte_offset()..].trim_start();
            if !rest.starts_with('{') {
                break;
            }
            let next = part.len() - rest.len();
            objects.push(&part[start..next]);
            start = next;
        }
    }
    objects.push(&part[start..]);
    objects
}

#[cfg(test)]
mod tests {
    use super::super::document::{Node, Place, parse};
    use super::*;

    fn at(line: u64, column: u64) -> Place {
        Place { line, column }
    }

    fn starts(text: &str) -> Vec<(u64, u64)> {
        let documents = documents(text).into_iter();
        documents.map(|(start, _)| (start.lines, start.columns)).collect()
    }

    #[test]
    fn documents_are_split_and_keep_their_lines() {
        let text = "# only a comment\n---\na: 1\n---  \nb: |\n  ---\n  x\n--- # c\n\nc: 3\n";
        assert_eq!(starts(text), [(0, 0), (1, 0), (3, 0), (7, 0)]);
        let parsed: Vec<Option<Node>> = documents(text)
            .into_iter()
            .map(|(start, text)| parse(start, text).unwrap())
            .collect();
        assert!(parsed[0].is_none());
        assert_eq!(parsed[1].as_ref().unwrap().locate("a"), at(3, 4));
        assert_eq!(parsed[2].as_ref().unwrap().entries()[0].place, at(5, 1));
        assert_eq!(parsed[3].as_ref().unwrap().locate("c"), at(10, 4));
    }

    #[test]
    fn a_stream_of_json_is_split_between_its_objects() {
        let text = "{\"ä\": {\"b\": 1}} {\"c\":\n[2]}\n\t{\"d\": \"}{\"}{\"e\":\n 3}\n";
        assert_eq!(starts(text), [(0, 0), (0, 16), (2, 1), (2, 12)]);
        let places: Vec<Place> = documents(text)
            .into_iter()
            .map(|(start, text)| parse(start, text).unwrap().unwrap().entries()[0].node.place)
            .collect();
        assert_eq!(places, [at(1, 7), at(2, 1), at(3, 8), at(4, 2)]);
        // Nothing is left out, whatever the text is.
        let whole: String = documents(text).into_iter().map(|(_, text)| text).collect();
        assert_eq!(whole, text);
    }

    #[test]
    fn what_is_no_stream_of_json_is_left_to_the_parser() {
        for (text, count) in [
            ("", 1),
            ("{a: 1}", 1),
            ("{\"a\": 1}\n# the end\n", 1),
            ("{\"a\": 1}\n...\n{\"b\": 2}\n", 1),
            ("{\"a\": 1}: 2", 1),
            ("---\n{\"a\": 1}\n{\"b\": 2}\n", 1),
            ("{\"a\": 1}\n---\n{\"b\": 2}\n", 2),
            ("{\"a\": 1}{b: 2}", 2),
            ("{\"a\": 1}{\"b", 2),
        ] {
            assert_eq!(documents(text).len(), count, "{text}");
        }
        let broken = documents("{\"a\": 1} {\"b");
        let (start, text) = broken[1];
        let error = parse(start, text).unwrap_err();
        assert!(error.place.line == 1 && error.place.column > 9, "{error:?}");
    }
}
