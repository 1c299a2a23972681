//! A label selector, read as Kubernetes reads it, so that a mistake is told at the start and not by a watch that fails.
//!
//! Only reads and writes it: what it matches is judged by the API server, which evaluates it for lists and watches alike.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Characters that a selector may have. Kubernetes has no bound but that of a URL.
const CHARACTERS_MAX: usize = 1000;
/// Characters of a label's value, and of the name in its key.
const NAME_MAX: usize = 63;
/// Characters of the domain before a key's name.
const DOMAIN_MAX: usize = 253;

/// A valid selector that does not match everything. Two that say the same in another order are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(BTreeSet<String>);

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<&str> = self.0.iter().map(String::as_str).collect();
        f.write_str(&all.join(","))
    }
}

/// What is wrong with a selector, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}; a label selector is like team=a, team in (a,b), team notin (a,b), team!=a, team or !team, joined by commas"
)]
pub struct Mistake(String);

impl FromStr for Selector {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Self, Mistake> {
        if text.chars().count() > CHARACTERS_MAX {
            return Err(Mistake(format!("has more than {CHARACTERS_MAX} characters")));
        }
        let mut tokens = Tokens(tokens(text).into_iter().peekable());
        let mut requirements = BTreeSet::new();
        loop {
            requirements.insert(tokens.requirement()?);
            match tokens.0.next() {
                None => return Ok(Self(requirements)),
                Some(Token::Sign(",")) => {}
                Some(other) => {
                    return Err(Mistake(format!("has {other} where a comma or the end should be")));
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Sign(&'a str),
    Word(&'a str),
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Sign(text) | Self::Word(text)) = self;
        write!(f, "{text:?}")
    }
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let is_sign = |c: char| matches!(c, ',' | '(' | ')' | '!' | '=' | '<' | '>');
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if is_sign(first) {
            // Longest first: `==` and `!=` are one sign each.
            1 + usize::from(matches!(first, '=' | '!') && rest[1..].starts_with('='))
        } else {
            rest.find(|c: char| is_sign(c) || c.is_whitespace())
                .unwrap_or(rest.len())
        };
        let (token, behind) = rest.split_at(length);
        found.push(if is_sign(first) {
            Token::Sign(token)
        } else {
            Token::Word(token)
        });
        rest = behind.trim_start();
    }
    found
}

struct Tokens<'a>(std::iter::Peekable<std::vec::IntoIter<Token<'a>>>);

impl<'a> Tokens<'a> {
    /// One requirement, in the words that are always the same for it.
    fn requirement(&mut self) -> Result<String, Mistake> {
        if self.0.next_if_eq(&Token::Sign("!")).is_some() {
            return Ok(format!("!{}", self.key()?));
        }
        let key = self.key()?;
        let operator = self
            .0
            .next_if(|token| !matches!(token, Token::Sign("," | "(" | ")" | "!")));
        match operator {
            None => Ok(key.to_owned()),
            Some(Token::Sign("=" | "==")) => Ok(format!("{key}={}", self.value()?)),
            Some(Token::Sign("!=")) => Ok(format!("{key}!={}", self.value()?)),
            Some(Token::Word(set @ ("in" | "notin"))) => {
                let values: Vec<&str> = self.values()?.into_iter().collect();
                Ok(format!("{key} {set} ({})", values.join(",")))
            }
            Some(Token::Sign(than @ ("<" | ">"))) => {
                let value = self.value()?;
                let is_number = value.parse::<i64>().is_ok();
                let number = is_number.then(|| format!("{key}{than}{value}"));
                number.ok_or_else(|| {
                    Mistake(format!(
                        "compares {key:?} with {value:?}, which is no whole number"
                    ))
                })
            }
            Some(other) => Err(Mistake(format!("has {other} behind the key {key:?}"))),
        }
    }

    fn key(&mut self) -> Result<&'a str, Mistake> {
        let key = match self.0.next() {
            Some(Token::Word(key)) => key,
            Some(other) => return Err(Mistake(format!("has {other} where the key of a label should be"))),
            None => return Err(Mistake("lacks the key of a label".to_owned())),
        };
        let (domain, name) = key
            .split_once('/')
            .map_or((None, key), |(domain, name)| (Some(domain), name));
        let is_good = is_name(name) && domain.is_none_or(is_domain);
        if is_good {
            Ok(key)
        } else {
            Err(Mistake(format!("{key:?} is no key of a label")))
        }
    }

    /// A value, which may be empty.
    fn value(&mut self) -> Result<&'a str, Mistake> {
        let word = self.0.next_if(|token| matches!(token, Token::Word(_)));
        let Some(Token::Word(value)) = word else {
            return Ok("");
        };
        if is_name(value) {
            Ok(value)
        } else {
            Err(Mistake(format!("{value:?} is no value of a label")))
        }
    }

    fn values(&mut self) -> Result<BTreeSet<&'a str>, Mistake> {
        let list = || Mistake("has in or notin without a list of values: (a,b)".to_owned());
        self.0.next_if_eq(&Token::Sign("(")).ok_or_else(list)?;
        let mut values = BTreeSet::new();
        loop {
            values.insert(self.value()?);
            match self.0.next() {
                Some(Token::Sign(",")) => {}
                Some(Token::Sign(")")) => return Ok(values),
                _ => return Err(list()),
            }
        }
    }
}

/// The name in a label's key, or its value: letters, digits, `-`, `_` and `.`, the ends of which are letters or digits.
fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= NAME_MAX && text.chars().all(inner) && end(text.chars().next()) && end(text.chars().last())
}

fn is_domain(text: &str) -> bool {
    let part = |part: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !part.is_empty() && part.chars().all(inner) && !part.starts_with('-') && !part.ends_with('-')
    };
    text.len() <= DOMAIN_MAX && text.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        let read = text.parse::<Selector>();
        read.map(|selector| selector.to_string())
            .map_err(|mistake| mistake.to_string())
    }

    #[test]
    fn what_kubernetes_takes_is_taken_and_always_said_alike() {
        for (text, same) in [
            ("shard=a", "shard=a"),
            (" shard == a ", "shard=a"),
            ("shard=", "shard="),
            ("shard!=a", "shard!=a"),
            ("shard", "shard"),
            ("! shard", "!shard"),
            ("shard in (b, a,a)", "shard in (a,b)"),
            ("shard notin(a)", "shard notin (a)"),
            ("shard in (,a)", "shard in (,a)"),
            ("size>10", "size>10"),
            ("z=1,a=2, a = 2", "a=2,z=1"),
            (
                "example.com/shard in (a),!example.com/own",
                "!example.com/own,example.com/shard in (a)",
            ),
            ("in=notin", "in=notin"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(same), "{text}");
            assert_eq!(read(same).as_deref(), Ok(same), "{same} again");
        }
        assert_eq!("b=1,a".parse::<Selector>(), "a,b=1".parse::<Selector>());
    }

    #[test]
    fn what_is_wrong_is_told_with_the_place_and_an_example() {
        for (text, word) in [
            ("", "lacks the key"),
            (",", "\",\" where the key"),
            ("a=b,", "lacks the key"),
            ("=a", "\"=\" where the key"),
            ("a=b c", "\"c\" where a comma"),
            ("a b", "\"b\" behind the key \"a\""),
            ("a in b", "without a list"),
            ("a in (b", "without a list"),
            ("a in (b c)", "without a list"),
            ("a(b)", "\"(\" where a comma"),
            ("a=-b", "\"-b\" is no value"),
            ("a=b/c", "\"b/c\" is no value"),
            ("a/b/c=d", "\"a/b/c\" is no key"),
            ("A.com/b=c", "is no key"),
            ("size>ten", "no whole number"),
            ("ä=b", "is no key"),
        ] {
            let words = read(text).expect_err(text);
            assert!(
                words.contains(word) && words.contains("team in (a,b)"),
                "{text}: {words}"
            );
        }
        assert!(read(&format!("a={}", "b".repeat(64))).is_err());
        assert!(read(&format!("a in ({})", "b,".repeat(500))).is_err());
    }
}
