//! How a command ends.

use std::error::Error;
use std::io;

/// Whether an error is that nobody reads the output any more, as behind `| head`: whoever has seen enough needs no words.
#[must_use]
pub fn is_closed_pipe(error: &(dyn Error + 'static)) -> bool {
    let mut error = Some(error);
    while let Some(one) = error {
        let io = one.downcast_ref::<io::Error>();
        if io.is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe) {
            return true;
        }
        error = one.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::ExplainError;

    #[test]
    fn a_closed_pipe_is_found_below_other_errors() {
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_closed_pipe(&closed()));
        assert!(is_closed_pipe(&ExplainError::Write(closed())));
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(!is_closed_pipe(&ExplainError::Write(full)));
    }
}
