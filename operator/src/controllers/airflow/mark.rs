//! What is written down with a Pool of the pool that was made for it in Airflow: the text, and whose it is.
//!
//! `uid url name` of one that was made, and `making shapes uid url name` from before it is asked for until it is known to be
//! there. With the uid of its Pool, so that one that was copied or restored with its mark deletes nothing.

use kube::{Resource as _, ResourceExt as _};
use poolwright_api::v1alpha1::Pool;

use super::claims::same_url;
use crate::kube::pool::made;

/// Before the shapes of what was asked for, and is not known to be there.
const MAKING: &str = "making ";
/// So many requests for different pools, all without an answer, are kept in mind: the newest.
const SHAPES_MAX: usize = 8;

/// What is written down of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark<'a> {
    /// What was asked for, while nobody knows which of these was made, if any; the oldest first.
    asked: Option<Vec<&'a str>>,
    uid: &'a str,
    url: &'a str,
    name: &'a str,
}

impl<'a> Mark<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (asked, made) = match text.strip_prefix(MAKING) {
            Some(rest) => rest
                .split_once(' ')
                .map(|(shapes, made)| (Some(shapes.split(',').collect()), made))?,
            None => (None, text),
        };
        let (uid, rest) = made.split_once(' ')?;
        let (url, name) = rest.split_once(' ')?;
        Some(Self {
            asked,
            uid,
            url,
            name,
        })
    }

    /// That of this Pool, if it has one of its own.
    pub(super) fn of(pool: &'a Pool) -> Option<Self> {
        let own = |mark: &Self| pool.meta().uid.as_deref() == Some(mark.uid);
        made(pool).and_then(Self::read).filter(own)
    }

    /// What it says of the pool of this name in the Airflow at `url`.
    pub(super) fn ours(self, url: &str, name: &str) -> Ours<'a> {
        if self.name != name {
            return Ours::OtherName;
        }
        if same_url(self.url) != same_url(url) {
            return Ours::OtherAirflow;
        }
        self.asked.map_or(Ours::Made, Ours::Asked)
    }

    /// What is to be said where nothing will be deleted.
    pub(super) fn left(&self, why: &str) -> String {
        let Self { name, url, .. } = self;
        let was = if self.asked.is_some() {
            "may have been made"
        } else {
            "was made"
        };
        format!("pool {name:?} {was} for this Pool in the Airflow at {url}, and stays there: {why}")
    }
}

/// Whether a pool of Airflow was made for a Pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ours<'a> {
    /// It was.
    Made,
    /// One of these shapes was asked for, and nobody knows whether it was made.
    Asked(Vec<&'a str>),
    /// One was in another Airflow.
    OtherAirflow,
    /// One was that has another name.
    OtherName,
    /// None was.
    No,
}

impl Ours<'_> {
    /// True if a pool of this shape was asked for and may have been made.
    pub(super) fn has_asked(&self, shape: &str) -> bool {
        matches!(self, Self::Asked(shapes) if shapes.contains(&shape))
    }

    /// What is written down before one of this shape is asked for. What was asked for before may still come.
    pub(super) fn asking(&self, shape: &str, place: &str) -> String {
        let mut shapes = match self {
            Self::Asked(shapes) => shapes.clone(),
            _ => Vec::new(),
        };
        shapes.retain(|one| *one != shape);
        shapes.push(shape);
        let kept = shapes.split_off(shapes.len().saturating_sub(SHAPES_MAX));
        format!("{MAKING}{} {place}", kept.join(","))
    }
}

/// The mark of a pool that was made.
pub(super) fn place(pool: &Pool, url: &str, name: &str) -> String {
    format!("{} {} {name}", pool.uid().unwrap_or_default(), same_url(url))
}

/// True if what is written down is of this Pool and of a pool of this name, in whatever Airflow.
pub(super) fn is_of(pool: &Pool, name: &str) -> bool {
    Mark::of(pool).is_some_and(|mark| mark.name == name)
}

#[cfg(test)]
mod tests {
    use poolwright_api::ANNOTATION_AIRFLOW_MADE;

    use super::*;

    fn marked(text: &str) -> Pool {
        let mut pool = Pool::default();
        pool.metadata.uid = Some("u-1".to_owned());
        pool.metadata.annotations = Some([(ANNOTATION_AIRFLOW_MADE.to_owned(), text.to_owned())].into());
        pool
    }

    #[test]
    fn a_mark_is_read_as_it_is_written_and_counts_for_its_own_pool() {
        for (text, ours, name) in [
            ("u-1 http://a x", Ours::Made, "x"),
            ("u-1 http://a/ two words", Ours::Made, "two words"),
            ("making 0f u-1 http://a x", Ours::Asked(vec!["0f"]), "x"),
            ("making 0f,1e u-1 http://a x", Ours::Asked(vec!["0f", "1e"]), "x"),
        ] {
            let pool = marked(text);
            let mark = Mark::of(&pool).expect("its mark");
            assert_eq!(mark.clone().ours("http://a", name), ours, "{text}");
            assert_eq!(mark.clone().ours("http://b", name), Ours::OtherAirflow, "{text}");
            assert_eq!(mark.ours("http://a", "y"), Ours::OtherName, "{text}");
            assert!(is_of(&pool, name) && !is_of(&pool, "y"));
        }
        // That of the Pool it was copied from, and what somebody has written by hand.
        for text in ["u-2 http://a x", "making 0f u-2 http://a x", "u-1", "", "making "] {
            assert!(Mark::of(&marked(text)).is_none(), "{text:?}");
        }
    }

    #[test]
    fn what_was_asked_for_before_stays_in_mind_while_nobody_knows_of_it() {
        let place = place(&marked(""), "http://a/", "x");
        assert_eq!(place, "u-1 http://a x");
        assert_eq!(self::place(&marked(""), " http://a/ ", "x"), place);
        assert_eq!(Ours::No.asking("b", &place), "making b u-1 http://a x");
        assert_eq!(Ours::Made.asking("b", &place), "making b u-1 http://a x");
        let asked = Ours::Asked(vec!["a", "b"]);
        assert!(asked.has_asked("a") && !asked.has_asked("c"));
        assert_eq!(asked.asking("c", &place), "making a,b,c u-1 http://a x");
        assert_eq!(asked.asking("a", &place), "making b,a u-1 http://a x");
        let many: Vec<String> = (0..SHAPES_MAX).map(|at| at.to_string()).collect();
        let full = Ours::Asked(many.iter().map(String::as_str).collect());
        assert_eq!(full.asking("c", &place), "making 1,2,3,4,5,6,7,c u-1 http://a x");
    }

    #[test]
    fn what_is_left_is_named_with_its_airflow() {
        for (text, words) in [
            (
                "u-1 http://a x",
                "pool \"x\" was made for this Pool in the Airflow at http://a, and stays there: so",
            ),
            (
                "making 0 u-1 http://a x",
                "pool \"x\" may have been made for this Pool in the Airflow at http://a, and stays there: so",
            ),
        ] {
            assert_eq!(Mark::of(&marked(text)).expect("its mark").left("so"), words);
        }
    }
}
