//! The file that `airflow pools export` writes and `airflow pools import` reads: names, and what each pool is.
//!
//! Knows the form and Airflow's bounds, and nothing of Kubernetes. What it writes is, byte for byte, what Airflow writes
//! of the same pools, but for a line end at the end of the file.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use serde::de::{self, Deserializer as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::ser::{Formatter, PrettyFormatter};
use serde_json::value::RawValue;

/// Longest name of a pool, in characters: the column's in Airflow's database.
const NAME_CHARACTERS_MAX: usize = 256;
/// Most slots of a pool, as of a Pool.
const SLOTS_MAX: i32 = 1_000_000;

/// What the file looks like.
pub const FORM: &str = "what `airflow pools export FILE` writes, like {\"mail\": {\"description\": \"\", \"include_deferred\": false, \"slots\": 5}}";

/// One pool of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePool {
    /// Its slots; -1 is no limit.
    pub slots: i32,
    /// What is said of it; Airflow has pools without.
    pub description: Option<String>,
    /// Whether deferred tasks hold slots. Airflow before 2.7 does not write it.
    pub include_deferred: bool,
    /// Where in the text its slots are, in bytes.
    pub offset: usize,
}

/// A file of another form.
#[derive(Debug, thiserror::Error)]
#[error("{0}. It should be {FORM}")]
pub struct FileError(#[from] pub serde_json::Error);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry<'a> {
    /// As it is written, so that its place is known.
    #[serde(borrow)]
    slots: &'a RawValue,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    include_deferred: bool,
    #[serde(default)]
    team_name: Option<String>,
}

/// In the order in which Airflow writes them.
#[derive(Serialize)]
struct Written<'a> {
    description: Option<&'a str>,
    include_deferred: bool,
    slots: i32,
}

impl<'a> From<&'a FilePool> for Written<'a> {
    fn from(pool: &'a FilePool) -> Self {
        Self {
            description: pool.description.as_deref(),
            include_deferred: pool.include_deferred,
            slots: pool.slots,
        }
    }
}

/// The pools of a text, by name.
///
/// # Errors
///
/// What is wrong, of which pool and at which line.
pub fn parse(text: &str) -> Result<BTreeMap<String, FilePool>, FileError> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let pools = reader.deserialize_map(Pools { text })?;
    reader.end()?;
    Ok(pools)
}

struct Pools<'a> {
    text: &'a str,
}

impl<'de> Visitor<'de> for Pools<'de> {
    type Value = BTreeMap<String, FilePool>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of pools by their names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pools = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            let of_pool = |words: &dyn fmt::Display| de::Error::custom(format!("pool {name:?}: {words}"));
            let entry: Entry<'de> = map.next_value().map_err(|error| of_pool(&error))?;
            let pool = pool(self.text, entry).map_err(|words| of_pool(&words))?;
            check_name(&name).map_err(|words| of_pool(&words))?;
            if pools.contains_key(&name) {
                return Err(of_pool(&"is there twice: remove one of them"));
            }
            pools.insert(name, pool);
        }
        Ok(pools)
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let characters = name.chars().count();
    if name.trim().is_empty() {
        return Err("has no name, which Airflow refuses: give it one".to_owned());
    }
    if characters > NAME_CHARACTERS_MAX {
        return Err(format!(
            "the name has {characters} characters, Airflow takes {NAME_CHARACTERS_MAX}: give it a shorter one"
        ));
    }
    Ok(())
}

fn pool(text: &str, entry: Entry<'_>) -> Result<FilePool, String> {
    if let Some(team) = entry.team_name {
        return Err(format!(
            "is of team {team:?}, and a Pool has no team: it would belong to all; remove team_name if that is meant"
        ));
    }
    let written = entry.slots.get();
    let slots = written
        .parse()
        .ok()
        .filter(|slots| (-1..=SLOTS_MAX).contains(slots));
    Ok(FilePool {
        slots: slots.ok_or_else(|| {
            format!("slots must be a whole number from -1, which is no limit, to {SLOTS_MAX}, is {written}")
        })?,
        description: entry.description,
        include_deferred: entry.include_deferred,
        // The value borrows from the text.
        offset: (written.as_ptr() as usize).saturating_sub(text.as_ptr() as usize),
    })
}

/// The text of these pools.
///
/// # Errors
///
/// Never: it goes to memory.
pub fn write(pools: &BTreeMap<String, FilePool>) -> io::Result<String> {
    let entries: BTreeMap<&str, Written<'_>> = pools
        .iter()
        .map(|(name, pool)| (name.as_str(), Written::from(pool)))
        .collect();
    let mut bytes = Vec::new();
    let mut writer = serde_json::Serializer::with_formatter(&mut bytes, AsPython::default());
    entries.serialize(&mut writer).map_err(io::Error::other)?;
    bytes.push(b'\n');
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// Python's `json.dumps(…, indent=4)`: four spaces, and nothing beyond ASCII.
struct AsPython(PrettyFormatter<'static>);

impl Default for AsPython {
    fn default() -> Self {
        Self(PrettyFormatter::with_indent(b"    "))
    }
}

impl Formatter for AsPython {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        for c in text.chars() {
            // Python escapes DEL neither.
            if c.is_ascii() {
                write!(writer, "{c}")?;
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}
