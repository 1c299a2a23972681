//! The two forms of a test: short, and as long and as large as what it stands for.

/// The value of the present form: `POOLWRIGHT_SCALE=full`, or short by default.
pub fn pick<T>(short: T, full: T) -> T {
    if std::env::var("POOLWRIGHT_SCALE").is_ok_and(|scale| scale == "full") {
        full
    } else {
        short
    }
}
