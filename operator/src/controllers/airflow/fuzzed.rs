//! The parser of what is written down with a Pool, for the fuzzer: whoever may edit a Pool may write it.

use poolwright_api::ANNOTATION_AIRFLOW_MADE;
use poolwright_api::v1alpha1::Pool;

use super::mark::{Mark, Ours, is_of};
use crate::fuzz::Target;

/// All of them.
pub(crate) fn targets() -> Vec<Target> {
    let marks = [
        "u-1 http://a x",
        "u-1 http://a/ two words",
        "making 0f,1e u-1 http://a x",
    ];
    let target = Target::text("airflow: mark of a pool", &marks, |text| {
        let mut pool = Pool::default();
        pool.metadata.uid = Some("u-1".to_owned());
        pool.metadata.annotations = Some([(ANNOTATION_AIRFLOW_MADE.to_owned(), text.to_owned())].into());
        let left = Mark::of(&pool).map_or(0, |mark| mark.left("so").len());
        let ours = Mark::of(&pool).map_or(Ours::No, |mark| mark.ours("http://a", "x"));
        left + ours.asking("0a", "u-1 http://a x").len() + usize::from(is_of(&pool, "x"))
    });
    vec![target.words(&["making ", "u-1 ", " ", ",", "http://a"])]
}
