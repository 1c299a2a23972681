//! YAML with the place of every node.
//!
//! Reads a document into a tree that keeps line and column of every key and value. Knows nothing of Kubernetes.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::split::Start;

/// Most nodes that the aliases of one document may repeat; bounds what a few nested ones can grow to.
const REPLAYED_EVENTS_MAX: usize = 50_000;
/// Most lists and maps in one another. Each takes a part of the stack, and the deepest object that Kubernetes knows has
/// half as many.
const DEPTH_MAX: usize = 40;

/// Line and column of a node, both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line in the file.
    pub line: u64,
    /// Column in characters.
    pub column: u64,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// What a node can be.
#[derive(Clone, Debug)]
pub enum Value {
    /// No value.
    Null,
    /// true or false.
    Bool(bool),
    /// A number, or one that JSON cannot hold (infinite), which is none.
    Number(Option<serde_json::Number>),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Keys and values in the order of the file.
    Map(Vec<Entry>),
}

/// One key and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key as text.
    pub key: String,
    /// Where the key begins.
    pub place: Place,
    /// Its value.
    pub node: Node,
}

/// A document that is no YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub message: String,
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A key of a map.
    Key(String),
    /// A position in a list.
    Index(usize),
}

impl Place {
    /// The place in the file of what is here in a document that begins at `start`. Of its lines only the first begins amid
    /// another.
    const fn behind(self, start: Start) -> Self {
        Self {
            line: self.line + start.lines,
            column: if self.line == 1 {
                self.column + start.columns
            } else {
                self.column
            },
        }
    }
}

impl Node {
    /// The value of `key`, if this is a map that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entries()
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.node)
    }

    /// The entries of a map; none of anything else.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The text, if this is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value without its places.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null | Value::Number(None) => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(Some(number)) => number.clone().into(),
            Value::Text(text) => text.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => {
                let members = entries
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.node.to_json()));
                serde_json::Value::Object(members.collect())
            }
        }
    }

    /// What `path` names, if it exists.
    #[must_use]
    pub fn at(&self, path: &str) -> Option<&Self> {
        steps(path).iter().try_fold(self, |node, step| node.step(step))
    }

    fn step(&self, step: &Step) -> Option<&Self> {
        match (step, &self.value) {
            (Step::Key(key), _) => self.get(key),
            (Step::Index(index), Value::List(items)) => items.get(*index),
            (Step::Index(_), _) => None,
        }
    }

    /// The place of what `path` names, or of the nearest thing above it that exists.
    #[must_use]
    pub fn locate(&self, path: &str) -> Place {
        let mut node = self;
        for step in steps(path) {
            match node.step(&step) {
                Some(next) => node = next,
                None => break,
            }
        }
        node.place
    }
}

/// The steps of a path such as `spec.queues[2].name` or `spec.pod.labels[a.b/c]`.
#[must_use]
pub fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            let (step, after) = inside.split_once(']').unwrap_or((inside, ""));
            steps.push(
                step.parse()
                    .map_or_else(|_| Step::Key(step.trim_matches('"').to_owned()), Step::Index),
            );
            rest = after;
        } else {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (step, after) = rest.split_at(end);
            if !step.is_empty() {
                steps.push(Step::Key(step.to_owned()));
            }
            rest = after;
        }
    }
    steps
}

/// Reads one document, which begins at `start` of its file. `None` for one without content.
///
/// # Errors
///
/// The text is no YAML, or holds more than one value.
pub fn parse(start: Start, text: &str) -> Result<Option<Node>, SyntaxError> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        legacy_octal_numbers: true,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: REPLAYED_EVENTS_MAX },
        budget: serde_saphyr::budget! { max_depth: DEPTH_MAX },
    };
    match serde_saphyr::from_str_with_options::<Option<Node>>(text, options) {
        Ok(node) => Ok(node.map(|mut node| {
            shift(&mut node, start);
            node
        })),
        Err(error) => {
            let at = error.location();
            let (line, column) = at.map_or((1, 1), |at| (at.line().max(1), at.column().max(1)));
            let message = words(&error.without_snippet().to_string());
            Err(SyntaxError {
                place: Place { line, column }.behind(start),
                message,
            })
        }
    }
}

/// The parser's words without its own place, which is relative to the document, and without its advice to programmers.
fn words(message: &str) -> String {
    let deep = ["budget breached: Depth ", "recursion limit exceeded"];
    if deep.iter().any(|start| message.starts_with(start)) {
        return format!("has more than {DEPTH_MAX} lists and maps in one another");
    }
    if message.starts_with("multiple YAML documents detected") {
        // A line of dots ends the first.
        return "is a second document: put --- between the two".to_owned();
    }
    let end = [
        " at line ",
        ", set DuplicateKeyPolicy",
        ". If you just use !!binary",
    ]
    .iter()
    .filter_map(|part| message.find(part))
    .min();
    message[..end.unwrap_or(message.len())].to_owned()
}

fn shift(node: &mut Node, start: Start) {
    node.place = node.place.behind(start);
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| shift(item, start)),
        Value::Map(entries) => {
            for entry in entries {
                entry.place = entry.place.behind(start);
                shift(&mut entry.node, start);
            }
        }
        _ => {}
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned {
            value, referenced, ..
        } = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self {
            place: place(referenced),
            value,
        })
    }
}

fn place(location: serde_saphyr::Location) -> Place {
    Place {
        line: location.line(),
        column: location.column(),
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor { is_key: false })
    }
}

const NO_KEY: &str = "a key must be text";

/// Does not look into a key that is a list or a map: keys in keys in keys would take a multiple of the stack that values
/// in values take.
struct ValueVisitor {
    is_key: bool,
}

impl ValueVisitor {
    fn look_inside<E: de::Error>(&self) -> Result<(), E> {
        if self.is_key {
            return Err(E::custom(NO_KEY));
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(Some(value.into())))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(Some(value.into())))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(serde_json::Number::from_f64(value)))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.look_inside()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        self.look_inside()?;
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<Key>>()? {
            let node = map.next_value()?;
            entries.push(Entry {
                key: key.value.0,
                place: place(key.referenced),
                node,
            });
        }
        Ok(Value::Map(entries))
    }
}

/// A key, as JSON has it: text.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(ValueVisitor { is_key: true })? {
            Value::Text(text) => Ok(Self(text)),
            Value::Bool(value) => Ok(Self(value.to_string())),
            Value::Number(Some(number)) => Ok(Self(number.to_string())),
            _ => Err(de::Error::custom(NO_KEY)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> Node {
        parse(Start::default(), text).unwrap().unwrap()
    }

    fn at(line: u64, column: u64) -> Place {
        Place { line, column }
    }

    #[test]
    fn what_is_too_deep_is_refused_before_it_takes_the_stack() {
        for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", "")] {
            let nested = |depth: usize| {
                parse(
                    Start::default(),
                    &format!("{}1{}", open.repeat(depth), close.repeat(depth)),
                )
            };
            assert!(nested(DEPTH_MAX).is_ok(), "{open}");
            for depth in [DEPTH_MAX + 1, 63, 64, 20_000] {
                let words = nested(depth).unwrap_err().message;
                assert_eq!(words, "has more than 40 lists and maps in one another", "{open}");
            }
        }
        // Keys in keys.
        for depth in [1, 15, 19] {
            let text = format!("{}1{}", "{? {a: ".repeat(depth), "}}".repeat(depth));
            assert_eq!(
                parse(Start::default(), &text).unwrap_err().message,
                "a key must be text"
            );
        }
    }

    #[test]
    fn every_node_has_its_place() {
        let node = node("a:\n  b: [1, \"x\"]\n  c:\n  - d: true\nlabels:\n  x.y/z: \"1\"\n");
        assert_eq!(node.place, at(1, 1));
        assert_eq!(node.locate("a"), at(2, 3));
        assert_eq!(node.locate("a.b"), at(2, 6));
        assert_eq!(node.locate("a.b[1]"), at(2, 10));
        assert_eq!(node.locate("a.c[0].d"), at(4, 8));
        assert_eq!(node.locate("labels[x.y/z]"), at(6, 10));
        assert_eq!(
            node.locate("a.c[0].missing.deeper"),
            at(4, 5),
            "a missing node points above"
        );
        assert_eq!(node.entries()[0].place, at(1, 1));
        assert_eq!(node.get("a").unwrap().entries()[1].place, at(3, 3));
    }

    #[test]
    fn what_is_no_yaml_has_a_place() {
        let tenth = Start {
            lines: 10,
            ..Start::default()
        };
        let error = parse(tenth, "a: 1\nb: [1\nc: 2\n").unwrap_err();
        assert!(error.place.line >= 12, "{error:?}");
        let error = parse(Start::default(), "a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!(error.place, at(3, 1), "{error:?}");
    }

    /// The parser's words are for programmers who call it.
    #[test]
    fn what_is_wrong_is_said_to_who_wrote_it() {
        for (text, words) in [
            (
                "a: 1\n...\nb: 2\n",
                "is a second document: put --- between the two",
            ),
            (
                "a: !!binary '//79'\n",
                "!!binary scalar is not valid UTF-8 so cannot be stored into string",
            ),
            ("a: 1\na: 2\n", "duplicate mapping key: a"),
        ] {
            assert_eq!(parse(Start::default(), text).unwrap_err().message, words);
        }
    }

    #[test]
    fn numbers_are_those_of_kubectl() {
        let node = node("octal: 0644\nfloat: 1.5\nquoted: \"7\"\nnothing:\nminus: -3\nkey: {1: a}\n");
        let number = |key: &str| match &node.get(key).unwrap().value {
            Value::Number(Some(number)) => number.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            (number("octal"), number("float"), number("minus")),
            ("420".into(), "1.5".into(), "-3".into())
        );
        assert_eq!(node.get("quoted").unwrap().text(), Some("7"));
        assert!(matches!(node.get("nothing").unwrap().value, Value::Null));
        assert_eq!(node.get("key").unwrap().entries()[0].key, "1");
    }

    #[test]
    fn paths_have_steps() {
        let key = |key: &str| Step::Key(key.to_owned());
        assert_eq!(
            steps("spec.queues[2].name"),
            [key("spec"), key("queues"), Step::Index(2), key("name")]
        );
        assert_eq!(
            steps(".spec.labels[\"a.b\"]"),
            [key("spec"), key("labels"), key("a.b")]
        );
        assert_eq!(steps(""), []);
        assert_eq!(steps("a..b[").len(), 3);
    }
}
