//! How much a test does: little in `make test`, all of it in `make soak`.

/// One of the two, by `POOLWRIGHT_SCALE`.
pub fn pick<T>(short: T, full: T) -> T {
    let is_full = std::env::var("POOLWRIGHT_SCALE").is_ok_and(|scale| scale == "full");
    if is_full { full } else { short }
}
