//! What passes, what is cut, and what ends the connection.

use lapin::types::{AMQPValue, FieldArray, FieldTable};

use super::*;

const BOUNDS: Bounds = Bounds { body: 10, credit: 2 };

fn frame_of(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap();
    let head = [&[kind][..], &channel.to_be_bytes(), &size.to_be_bytes()].concat();
    [&head[..], payload, &[FRAME_END]].concat()
}

fn method_of(channel: u16, (class, method): (u16, u16), arguments: &[u8]) -> Vec<u8> {
    let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat();
    frame_of(METHOD, channel, &payload)
}

/// Flags and properties, and a body of this size.
fn header_of(channel: u16, size: u64, properties: &[u8]) -> Vec<u8> {
    let payload = [
        &60_u16.to_be_bytes()[..],
        &[0; 2],
        &size.to_be_bytes(),
        properties,
    ]
    .concat();
    frame_of(HEADER, channel, &payload)
}

/// So many arrays in one another, as the only value of a table.
fn nested(levels: usize) -> Vec<u8> {
    let mut value: Vec<u8> = vec![b'V'];
    for _ in 0..levels {
        let size = u32::try_from(value.len()).unwrap();
        value = [&b"A"[..], &size.to_be_bytes(), &value].concat();
    }
    let entry = [&[1, b'k'][..], &value].concat();
    [&u32::try_from(entry.len()).unwrap().to_be_bytes()[..], &entry].concat()
}

fn passed(sieve: &mut Sieve) -> Vec<u8> {
    let mut all = vec![0; 100_000];
    let count = sieve.give(&mut all);
    all.truncate(count);
    all
}

/// Bytes come as they like.
fn sift(sieve: &mut Sieve, bytes: &[u8], at_once: usize) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    for chunk in bytes.chunks(at_once) {
        sieve.receive(chunk)?;
        all.extend(passed(sieve));
    }
    Ok(all)
}

fn deliver(channel: u16) -> Vec<u8> {
    method_of(channel, DELIVER, &[1, b't', 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])
}

#[test]
fn what_a_server_sends_passes_as_it_is() {
    let properties = [&[0xE0, 0][..], b"\x03abc\x01d", &nested(DEPTH_MAX - 1), &[]].concat();
    let mut all = b"AMQP\x00\x00\x09\x01".to_vec();
    all.extend(method_of(0, START, &[&[0, 9][..], &nested(3), &[0; 8]].concat()));
    all.extend(frame_of(HEARTBEAT, 0, &[]));
    all.extend(deliver(3));
    all.extend(header_of(3, 10, &properties));
    all.extend(frame_of(BODY, 3, b"0123"));
    all.extend(frame_of(BODY, 3, b"456789"));
    all.extend(deliver(3));
    all.extend(header_of(3, 0, &[0, 0]));
    for at_once in [1, 7, 1000] {
        let mut sieve = Sieve::new(BOUNDS);
        assert_eq!(sift(&mut sieve, &all, at_once).unwrap(), all);
    }
}

#[test]
fn of_a_large_body_the_first_bytes_pass() {
    let mut sieve = Sieve::new(BOUNDS);
    let parts: [&[u8]; 4] = [b"0123456", b"789abc", b"de", b""];
    let mut all = [deliver(1), header_of(1, 15, &[0, 0])].concat();
    all.extend(parts.iter().flat_map(|part| frame_of(BODY, 1, part)));
    all.extend(deliver(1));
    let wanted = [
        deliver(1),
        header_of(1, 10, &[0, 0]),
        frame_of(BODY, 1, b"0123456"),
        frame_of(BODY, 1, b"789"),
        frame_of(BODY, 1, b""),
        deliver(1),
    ];
    assert_eq!(sift(&mut sieve, &all, 5).unwrap(), wanted.concat());
    let more = [header_of(2, 3, &[0, 0]), frame_of(BODY, 2, b"0123")].concat();
    assert!(sift(&mut Sieve::new(BOUNDS), &more, 5).is_err());
}

#[test]
fn headers_that_go_too_deep_are_left_out() {
    let odd = [
        [&[0x20, 0][..], &nested(DEPTH_MAX)].concat(),
        [&[0x20, 0][..], &nested(6000)].concat(),
        [&[0x20, 0][..], &nested(20_000)].concat(),
        // A length beyond the end, an unknown kind, a name beyond the end, nothing at all.
        vec![0x20, 0, 0, 0, 0, 9, 1, b'k', b'V'],
        vec![0x20, 0, 0, 0, 0, 3, 1, b'k', b'?'],
        vec![0x20, 0, 0, 0, 0, 3, 9, b'k', b'V'],
        vec![0x80, 0],
        vec![],
    ];
    for properties in odd {
        let mut sieve = Sieve::new(BOUNDS);
        let all = header_of(1, 4, &properties);
        assert_eq!(sift(&mut sieve, &all, 999).unwrap(), header_of(1, 4, &[0, 0]));
    }
}

#[test]
fn what_no_server_sends_ends_the_connection() {
    let deep = [&[0, 9][..], &nested(200_000), &[0; 8]].concat();
    let odd = [
        method_of(0, START, &deep),
        method_of(0, START, &[&[0, 9][..], &nested(DEPTH_MAX)].concat()),
        method_of(1, (50, 10), &[0; 20]),
        frame_of(METHOD, 0, &[0, 10]),
        frame_of(HEADER, 1, &[0; 11]),
        frame_of(4, 0, &[]),
        frame_of(BODY, 1, &vec![0; FRAME_BYTES as usize + 1]),
        vec![HEARTBEAT, 0, 0, 0, 0, 0, 0, 0],
    ];
    for bytes in odd {
        let error = sift(&mut Sieve::new(BOUNDS), &bytes, 1 << 14).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}

#[test]
fn messages_that_were_not_asked_for_end_it_and_acknowledged_ones_do_not() {
    let mut sieve = Sieve::new(BOUNDS);
    for _ in 0..5 {
        sift(&mut sieve, &deliver(1), 999).unwrap();
        sieve
            .send(&method_of(1, ACK, &[0, 0, 0, 0, 0, 0, 0, 1, 0]))
            .unwrap();
    }
    sift(&mut sieve, &[deliver(1), deliver(1), deliver(2)].concat(), 999).unwrap();
    sieve.send(&method_of(2, CHANNEL_OPEN, &[0])).unwrap();
    sift(&mut sieve, &[deliver(2), deliver(2)].concat(), 999).unwrap();
    assert!(sift(&mut sieve, &deliver(1), 999).is_err());
}

/// What it walks by itself ends where the library's own reading of it does.
#[test]
fn a_table_ends_where_the_library_says() {
    let mut table = FieldTable::default();
    let array = FieldArray::from(vec![AMQPValue::Void, AMQPValue::Boolean(true)]);
    let mut inner = FieldTable::default();
    inner.insert(
        "x".into(),
        AMQPValue::DecimalValue(lapin::types::DecimalValue { scale: 1, value: 2 }),
    );
    let values = [
        AMQPValue::ShortShortInt(1),
        AMQPValue::ShortShortUInt(1),
        AMQPValue::ShortInt(1),
        AMQPValue::ShortUInt(1),
        AMQPValue::LongInt(1),
        AMQPValue::LongUInt(1),
        AMQPValue::LongLongInt(1),
        AMQPValue::Float(1.0),
        AMQPValue::Double(1.0),
        AMQPValue::LongString("text".into()),
        AMQPValue::ByteArray(vec![1, 2, 3].into()),
        AMQPValue::Timestamp(1),
        AMQPValue::FieldArray(array),
        AMQPValue::FieldTable(inner),
        AMQPValue::Void,
    ];
    for (at, value) in values.into_iter().enumerate() {
        table.insert(format!("k{at}").into(), value);
    }
    let mut bytes = vec![0; 1000];
    let written = lapin::types::generation::gen_field_table(&table)(bytes.as_mut_slice().into());
    let length = usize::try_from(written.unwrap().position).unwrap();
    assert_eq!(table_end(&bytes, 0), Some(length));
}
