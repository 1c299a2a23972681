//! What a server sends by AMQP, looked through before the library reads it.
//!
//! lapin reads a table within a table by calling itself, and nothing bounds how often: a frame holds six thousand, and a
//! stack that has run over ends the process, for every namespace. It keeps a body until the last byte has come, and every
//! message until somebody takes it. Who may name a broker, or publish on one that others use, too, could do that to us.
//! So frames are let through whole or not at all. A message with more than was agreed to arrives cut, and one whose
//! headers cannot be read without them: who only publishes must not end our connection. What no server sends ends it.
//! May not read more of a message than that takes.

use std::collections::BTreeMap;
use std::io;

use lapin::types::AMQPType;

use super::connect::FRAME_BYTES;

/// Tables and arrays within one another; celery's own headers have two.
const DEPTH_MAX: usize = 32;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
/// The first byte of the one answer that is no frame: the version that a server speaks instead.
const VERSION: u8 = b'A';
/// Headers are in one frame, however large: RabbitMQ passes on what somebody published over a connection that had agreed
/// to more than ours.
const HEADER_BYTES_MAX: u32 = 1 << 20;
const FRAME_END: u8 = 0xCE;
/// Bytes of a frame before its payload, and of the version.
const HEAD: usize = 7;
const VERSION_BYTES: usize = 8;

/// Methods with a table, all of which only a client sends, and the two that return a message nobody waits for.
const UNASKED: [(u16, u16); 10] = [
    (10, 11),
    (40, 10),
    (40, 30),
    (40, 40),
    (50, 10),
    (50, 20),
    (50, 50),
    (60, 20),
    (60, 50),
    (60, 71),
];
const START: (u16, u16) = (10, 10);
const CHANNEL_OPEN: (u16, u16) = (20, 10);
const DELIVER: (u16, u16) = (60, 60);
const ACK: (u16, u16) = (60, 80);

/// What may come over one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes of a message's body; the rest is left out.
    pub(super) body: u64,
    /// Messages on one channel that are not acknowledged.
    pub(super) credit: u16,
}

/// One connection's frames.
#[derive(Debug)]
pub(super) struct Sieve {
    bounds: Bounds,
    received: Frames,
    sent: Frames,
    channels: BTreeMap<u16, Content>,
    /// What has passed and was not given yet, and how much of it was.
    passed: Vec<u8>,
    given: usize,
}

/// What comes on one channel.
#[derive(Debug, Default)]
struct Content {
    unacknowledged: u16,
    /// Bytes of the body under way that pass, and those after them that do not.
    passes: u64,
    drops: u64,
}

impl Sieve {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            received: Frames::default(),
            sent: Frames::default(),
            channels: BTreeMap::new(),
            passed: Vec::new(),
            given: 0,
        }
    }

    /// Takes in what was read.
    ///
    /// # Errors
    /// `InvalidData`: no server sends that, and nothing after it can be believed.
    pub(super) fn receive(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.received.bytes.extend_from_slice(bytes);
        while let Some(frame) = self.received.next()? {
            self.judge(frame)?;
        }
        Ok(())
    }

    /// Takes in what was written: with an acknowledgement of ours there is room for another message.
    ///
    /// # Errors
    /// As with what was read; never for what the library writes.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sent.bytes.extend_from_slice(bytes);
        while let Some(frame) = self.sent.next()? {
            let method = (frame[0] == METHOD).then(|| method(payload(&frame))).flatten();
            match method {
                Some(CHANNEL_OPEN) => {
                    self.channels.remove(&channel(&frame));
                }
                Some(ACK) => {
                    let content = self.channels.entry(channel(&frame)).or_default();
                    content.unacknowledged = content.unacknowledged.saturating_sub(1);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives what has passed: how many bytes of it fitted.
    pub(super) fn give(&mut self, into: &mut [u8]) -> usize {
        let left = &self.passed[self.given..];
        let count = left.len().min(into.len());
        into[..count].copy_from_slice(&left[..count]);
        self.given += count;
        if self.given == self.passed.len() {
            self.passed.clear();
            self.given = 0;
        }
        count
    }

    fn judge(&mut self, frame: Vec<u8>) -> io::Result<()> {
        match frame[0] {
            METHOD => self.method(&frame)?,
            HEADER => return self.header(frame),
            BODY => return self.body(frame),
            _ => {}
        }
        self.passed.extend(frame);
        Ok(())
    }

    fn method(&mut self, frame: &[u8]) -> io::Result<()> {
        let payload = payload(frame);
        let method = method(payload).ok_or_else(|| odd("a method without a number"))?;
        if UNASKED.contains(&method) {
            return Err(odd("a method that only a client sends"));
        }
        // Two bytes of the version come before its table.
        if method == START && table_end(payload, 6).is_none() {
            return Err(odd("a greeting that cannot be read"));
        }
        let content = self.channels.entry(channel(frame)).or_default();
        (content.passes, content.drops) = (0, 0);
        if method == DELIVER {
            content.unacknowledged = content.unacknowledged.saturating_add(1);
            if content.unacknowledged > self.bounds.credit {
                return Err(odd("more messages than were asked for"));
            }
        }
        Ok(())
    }

    /// A content's header: class, weight, size of the body, flags, and the properties that the flags name.
    fn header(&mut self, mut frame: Vec<u8>) -> io::Result<()> {
        let size = payload(&frame).get(4..12).and_then(|size| size.try_into().ok());
        let size = u64::from_be_bytes(size.ok_or_else(|| odd("a message without a size"))?);
        let passes = size.min(self.bounds.body);
        if frame.len() > FRAME_BYTES as usize || !headers_are_flat(payload(&frame)) {
            let class = &payload(&frame)[..2];
            let bare = [class, &[0; 2], &[0; 8], &[0; 2]].concat();
            frame = framed(HEADER, &frame, &bare);
        }
        frame[HEAD + 4..HEAD + 12].copy_from_slice(&passes.to_be_bytes());
        let content = self.channels.entry(channel(&frame)).or_default();
        (content.passes, content.drops) = (passes, size - passes);
        self.passed.extend(frame);
        Ok(())
    }

    fn body(&mut self, frame: Vec<u8>) -> io::Result<()> {
        let content = self.channels.entry(channel(&frame)).or_default();
        let bytes = payload(&frame);
        let passes = bytes
            .len()
            .min(usize::try_from(content.passes).unwrap_or(usize::MAX));
        let drops = (bytes.len() - passes) as u64;
        if drops > content.drops {
            return Err(odd("more of a message than it is long"));
        }
        (content.passes, content.drops) = (content.passes - passes as u64, content.drops - drops);
        if drops == 0 {
            self.passed.extend(frame);
        } else if passes > 0 {
            self.passed.extend(framed(BODY, &frame, &bytes[..passes]));
        }
        Ok(())
    }
}

/// Bytes that become frames.
#[derive(Debug, Default)]
struct Frames {
    bytes: Vec<u8>,
    /// How many of them were frames.
    taken: usize,
}

impl Frames {
    /// The next one, once it is whole.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let rest = &self.bytes[self.taken..];
        let length = match rest.first().copied() {
            Some(VERSION) => VERSION_BYTES,
            Some(METHOD..=BODY | HEARTBEAT) => {
                let Some(size) = rest.get(3..HEAD).and_then(|size| size.try_into().ok()) else {
                    return Ok(self.wait());
                };
                let size = u32::from_be_bytes(size);
                let most = if rest[0] == HEADER {
                    HEADER_BYTES_MAX
                } else {
                    FRAME_BYTES
                };
                if size > most {
                    return Err(odd("a larger frame than was agreed to"));
                }
                HEAD + size as usize + 1
            }
            Some(_) => return Err(odd("a frame of an unknown kind")),
            None => return Ok(self.wait()),
        };
        let Some(frame) = rest.get(..length).map(<[u8]>::to_vec) else {
            return Ok(self.wait());
        };
        self.taken += length;
        if frame[0] != VERSION && frame.last() != Some(&FRAME_END) {
            return Err(odd("a frame without an end"));
        }
        Ok(Some(frame))
    }

    /// The rest is no frame yet.
    fn wait(&mut self) -> Option<Vec<u8>> {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        None
    }
}

fn odd(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the server sent {what}"))
}

fn channel(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[1], frame[2]])
}

fn payload(frame: &[u8]) -> &[u8] {
    &frame[HEAD..frame.len() - 1]
}

fn method(payload: &[u8]) -> Option<(u16, u16)> {
    let [class, method] =
        [payload.get(..2)?, payload.get(2..4)?].map(|two| u16::from_be_bytes([two[0], two[1]]));
    Some((class, method))
}

/// Another payload in the place of this frame's.
fn framed(kind: u8, frame: &[u8], payload: &[u8]) -> Vec<u8> {
    // Never longer than the one before it.
    let size = u32::try_from(payload.len()).unwrap_or(FRAME_BYTES);
    [
        &[kind][..],
        &frame[1..3],
        &size.to_be_bytes(),
        payload,
        &[FRAME_END],
    ]
    .concat()
}

/// True if the headers among a content's properties are none, or can be read: before them are two short texts at most.
fn headers_are_flat(payload: &[u8]) -> bool {
    let Some(flags) = payload
        .get(12..14)
        .map(|two| u16::from_be_bytes([two[0], two[1]]))
    else {
        return false;
    };
    let mut at = 14;
    for text in [15, 14] {
        if flags & (1 << text) != 0 {
            let Some(length) = payload.get(at) else {
                return false;
            };
            at += 1 + usize::from(*length);
        }
    }
    flags & (1 << 13) == 0 || table_end(payload, at).is_some()
}

/// Where the table that begins there ends; `None` if it cannot be read as the library reads it, or goes too deep. Walked
/// without a call for each level, which is what this is for.
fn table_end(bytes: &[u8], begin: usize) -> Option<usize> {
    let mut open = vec![open(bytes, begin, bytes.len(), true)?];
    let mut at = begin + 4;
    while let Some(&(end, is_table)) = open.last() {
        if at == end {
            open.pop();
            continue;
        }
        if is_table {
            at += 1 + usize::from(*bytes.get(at)?);
        }
        let kind = AMQPType::from_id(char::from(*bytes.get(at)?))?;
        at += 1;
        if matches!(kind, AMQPType::FieldArray | AMQPType::FieldTable) {
            if open.len() == DEPTH_MAX {
                return None;
            }
            open.push(self::open(bytes, at, end, kind == AMQPType::FieldTable)?);
            at += 4;
        } else {
            at += size_of_value(kind, bytes, at)?;
        }
        if at > end {
            return None;
        }
    }
    Some(at)
}

/// The end of what begins with its length there and must end by `most`, and whether its values have names.
fn open(bytes: &[u8], at: usize, most: usize, is_table: bool) -> Option<(usize, bool)> {
    let end = (at + 4).checked_add(length(bytes, at)?)?;
    (end <= most).then_some((end, is_table))
}

fn length(bytes: &[u8], at: usize) -> Option<usize> {
    let length = bytes.get(at..at + 4)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(length)).ok()
}

fn size_of_value(kind: AMQPType, bytes: &[u8], at: usize) -> Option<usize> {
    Some(match kind {
        AMQPType::Void => 0,
        AMQPType::Boolean | AMQPType::ShortShortInt | AMQPType::ShortShortUInt => 1,
        AMQPType::ShortInt | AMQPType::ShortUInt => 2,
        AMQPType::LongInt | AMQPType::LongUInt | AMQPType::Float => 4,
        AMQPType::DecimalValue => 5,
        AMQPType::LongLongInt | AMQPType::LongLongUInt | AMQPType::Double | AMQPType::Timestamp => 8,
        AMQPType::LongString | AMQPType::ByteArray => 4 + length(bytes, at)?,
        // The first has no letter, and the others are opened.
        AMQPType::ShortString | AMQPType::FieldArray | AMQPType::FieldTable => return None,
    })
}

#[cfg(test)]
#[path = "sieve_tests.rs"]
mod tests;
