//! Files that a command line names.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Largest file of objects, in bytes; far above what the API server takes, and more than a hundred thousand tasks.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What some editors write before a text to say that it is UTF-8.
const MARK: char = '\u{feff}';

/// The text of a file, or of standard input where it is called `-`, without a byte order mark.
///
/// # Errors
///
/// It cannot be read, is no UTF-8, or is larger than 16 MiB. The file is not named.
pub fn read(path: &Path) -> io::Result<String> {
    read_at_most(path, FILE_BYTES_MAX)
}

/// The same of a file of at most so many bytes.
///
/// # Errors
///
/// It cannot be read, is no UTF-8, or is larger. The file is not named.
pub fn read_at_most(path: &Path, bytes: u64) -> io::Result<String> {
    let mut text = Vec::new();
    let source: Box<dyn io::Read> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path)?)
    };
    source.take(bytes + 1).read_to_end(&mut text)?;
    if text.len() as u64 > bytes {
        return Err(io::Error::other(format!("is larger than {bytes} bytes")));
    }
    let mut text = String::from_utf8(text).map_err(|_| io::Error::other("is not UTF-8"))?;
    if text.starts_with(MARK) {
        text.remove(0);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_up_to_its_bound_without_a_byte_order_mark() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.json");
        for (written, expected) in [
            ("\u{feff}{}", "{}"),
            ("{}\u{feff}", "{}\u{feff}"),
            ("\u{feff}", ""),
        ] {
            std::fs::write(&file, written).unwrap();
            assert_eq!(read(&file).unwrap(), expected, "{written:?}");
        }
        std::fs::write(&file, "1234").unwrap();
        assert_eq!(read_at_most(&file, 4).unwrap(), "1234");
        // Cut within a letter of two bytes.
        std::fs::write(&file, "123ä").unwrap();
        let larger = read_at_most(&file, 3).unwrap_err();
        assert_eq!(larger.to_string(), "is larger than 3 bytes");
    }
}
