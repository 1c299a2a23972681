//! The Lua scripts, and the same extraction in Rust for users who may not run EVAL.
//!
//! Decides what of a message leaves the server: its route and its ETA, never its body. Each script reads a bounded
//! number of bytes.
//!
//! A message is JSON in which a body is base64 or a JSON string, so an unescaped `"eta"` can only be a key or a
//! whole value; and an unacked entry is `[message, exchange, routing_key]`, so its route is its tail.

use serde::Deserialize;

use crate::signals::eta_milliseconds;

/// Finds a message's ETA.
macro_rules! eta {
    () => {
        r#"
local function eta(v)
  local from = 1
  for _ = 1, 8 do
    local _, last = string.find(v, '"eta"', from, true)
    if not last then return '' end
    local found = string.match(v, '^%s*:%s*"([^"]+)"', last + 1)
    if found and #found <= 64 then return found end
    from = last + 1
  end
  return ''
end
"#
    };
}

/// KEYS: the hash of unacked messages. ARGV: byte budget, largest value to open, tags. Answers for each tag, until
/// the budget is spent: nothing (gone), `{"?"}` (cannot be told) or `{exchange, routing key, eta}`.
pub(super) const UNACKED: &str = concat!(
    eta!(),
    r#"
local out, spent, budget, largest = {}, 0, tonumber(ARGV[1]), tonumber(ARGV[2])
for i = 3, #ARGV do
  local size = redis.call('HSTRLEN', KEYS[1], ARGV[i])
  local row = {}
  if size > largest then
    row = {'?'}
  elseif size > 0 then
    if spent > 0 and spent + size > budget then break end
    spent = spent + size
    local v = redis.call('HGET', KEYS[1], ARGV[i])
    local tail = string.sub(v, -2048)
    local exchange, key = string.match(tail, ',%s*"([^"]*)",%s*"([^"]*)"%s*%]%s*$')
    if not key then
      exchange, key = '', string.match(tail, ',%s*null,%s*"([^"]*)"%s*%]%s*$')
    end
    row = {'?'}
    if key and #key > 0 then row = {exchange, key, eta(v)} end
  end
  out[i - 2] = row
end
return out
"#
);

/// KEYS: lists. ARGV: messages from each end, probes between them, how far from an end a probe may be, byte budget.
/// Answers for each list, until the budget is spent, its length and twice (for the ends, then for what is between
/// them) the number of messages read, then the ETAs found.
pub(super) const WAITING: &str = concat!(
    eta!(),
    r#"
local out, spent = {}, 0
local side, probes, reach, budget = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local function look(key, at, row)
  if spent >= budget then return end
  local v = redis.call('LINDEX', key, at)
  if not v then return end
  spent = spent + #v
  row[1] = row[1] + 1
  local found = eta(v)
  if found ~= '' then row[#row + 1] = found end
end
for i, key in ipairs(KEYS) do
  if spent >= budget then break end
  local ends, between, length = {0}, {0}, redis.pcall('LLEN', key)
  if type(length) ~= 'number' then
    length = 0
  else
    for k = 0, math.min(length, 2 * side) - 1 do
      look(key, (k % 2 == 0) and (-1 - k / 2) or ((k - 1) / 2), ends)
    end
    local left = length - 2 * side
    if left > 0 and ends[1] == 2 * side then
      local each = math.max(1, math.min(math.ceil(left / 2), reach) / (probes / 2))
      for k = 0, math.min(left, probes) - 1 do
        local at = side + math.floor((math.floor(k / 2) + 0.5) * each)
        look(key, (k % 2 == 0) and (-1 - at) or at, between)
      end
    end
  end
  out[i] = {length, ends, between}
end
return out
"#
);

/// KEYS: the list of replies. ARGV: byte budget, largest reply. Pops replies; of a larger one, answers only the
/// first bytes, in a table. The list expires if nobody comes back for it.
pub(super) const REPLIES: &str = r"
local out, spent, budget, largest = {}, 0, tonumber(ARGV[1]), tonumber(ARGV[2])
while #out < 256 and spent < budget do
  local v = redis.call('RPOP', KEYS[1])
  if not v then break end
  if #v > largest then
    out[#out + 1] = {string.sub(v, 1, 800)}
  else
    spent = spent + #v
    out[#out + 1] = v
  end
end
redis.call('EXPIRE', KEYS[1], 60)
return out
";

/// The exchange and routing key of an unacked entry, and its ETA.
pub(super) type Entry = (String, String, Option<i64>);

/// An unacked entry, read whole. Only route and ETA are kept.
pub(super) fn entry(value: &[u8]) -> Option<Entry> {
    #[derive(Deserialize)]
    struct Message {
        #[serde(default)]
        headers: Headers,
    }
    #[derive(Default, Deserialize)]
    struct Headers {
        #[serde(default)]
        eta: Option<String>,
    }
    let (message, exchange, key): (Message, Option<String>, String) = serde_json::from_slice(value).ok()?;
    Some((
        exchange.unwrap_or_default(),
        key,
        message.headers.eta.as_deref().and_then(eta_milliseconds),
    ))
}

/// A fragment of JSON text as a script cut it out, unescaped.
pub(super) fn unescaped(fragment: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(fragment).ok()?;
    if text.contains('\\') {
        serde_json::from_str(&format!("\"{text}\"")).ok()
    } else {
        Some(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::{entry, unescaped};
    use crate::signals::eta_milliseconds;

    #[test]
    fn entries_and_etas_are_read() {
        let value = br#"[{"body": "eA==", "headers": {"task": "t", "eta": "2026-11-22T09:03:41.494128+00:00"}}, "", "q1"]"#;
        assert_eq!(
            entry(value),
            Some((String::new(), "q1".into(), Some(1_795_338_221_494)))
        );
        assert_eq!(
            entry(br#"[{"headers":{"eta":null}},null,"q"]"#),
            Some((String::new(), "q".into(), None))
        );
        assert_eq!(entry(b"[1]"), None);
        let utc = eta_milliseconds("2026-11-22T09:03:41").unwrap();
        assert_eq!(eta_milliseconds("2026-11-22T10:03:41+01:00"), Some(utc));
        assert_eq!(eta_milliseconds("2026-11-22T09:03:41Z"), Some(utc));
        for never in [
            "9999-12-31T23:59:59.999999",
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59+00:00",
        ] {
            assert!(
                eta_milliseconds(never).is_some_and(|eta| eta > 253_402_000_000_000),
                "{never}"
            );
        }
        assert!(eta_milliseconds("0001-01-01T00:00:00").is_some_and(|eta| eta < 0));
        assert_eq!(eta_milliseconds("soon"), None);
        assert_eq!(eta_milliseconds("99999-01-01T00:00:00"), None);
        assert_eq!(unescaped(br"caf\u00e9").as_deref(), Some("café"));
        assert_eq!(unescaped(br"caf\u"), None);
    }
}
