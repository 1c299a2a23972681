//! See the files of the parts.
