//! Pages of the documents that are made from the code, held to it by tests.

use std::fs;
use std::path::Path;

/// Fails unless this page of the reference is `made`; with `UPDATE=1` it is written.
pub(crate) fn expect(page: &str, made: &str, filter: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/reference")
        .join(page);
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        fs::write(&path, made).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == made,
        "docs/reference/{page} differs from the code: run `UPDATE=1 cargo test -p poolwright {filter}`"
    );
}
