//! Every parser of what comes from outside, on inputs that nobody writes.
//!
//! Takes true inputs, breaks them by chance with a fixed seed, and gives them to the parsers. A parser may refuse what it
//! likes; it may not panic, take longer than a second (ten, where it looks at a whole fleet), or keep more than a multiple of
//! what it was given. Which parsers there are is said beside them, in the modules `fuzzed`, so that none has to be public for
//! this. Decides nothing about whether what was read is right: tests beside each parser do.
//!
//! A parser that never comes back fails the test with what it was given. One that uses up its stack ends the test's process:
//! with `--nocapture` those that have begun and not ended are seen.

mod mutate;
mod shared;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use self::mutate::Mutator;

/// What chance begins with.
const SEED: u64 = 0x706f_6f6c;
/// A parser may take so long for one input, in an unoptimised build.
const TIME_MAX: Duration = Duration::from_secs(1);
/// After so long nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(30);
/// A parser may keep so many bytes for each byte that it is given, and so many in any case: a quoted byte is up to ten.
const KEEPS: (usize, usize) = (32, 8192);
/// Longest input, where a parser has no other.
const LONGEST: usize = 64 * 1024;
/// Bytes of an input that are shown.
const SHOWN: usize = 400;
/// Parsers at work at a time.
const THREADS: usize = 2;

type Read = Box<dyn Fn(&[u8]) -> usize + Send>;

/// A parser, and what it is given.
pub(crate) struct Target {
    name: &'static str,
    /// True inputs.
    corpus: Vec<Vec<u8>>,
    /// What it looks for in them.
    words: &'static [&'static str],
    /// It gets this part of the inputs of others.
    part: u64,
    /// Longest input.
    longest: usize,
    /// It may take so long for one.
    time: Duration,
    /// Reads an input; says how many bytes it keeps of it.
    read: Read,
}

impl Target {
    /// A parser of bytes.
    pub(crate) fn bytes(
        name: &'static str,
        corpus: &[&[u8]],
        read: impl Fn(&[u8]) -> usize + Send + 'static,
    ) -> Self {
        Self {
            name,
            corpus: corpus.iter().map(|one| one.to_vec()).collect(),
            words: &[],
            part: 1,
            longest: LONGEST,
            time: TIME_MAX,
            read: Box::new(read),
        }
    }

    /// A parser of text.
    pub(crate) fn text(
        name: &'static str,
        corpus: &[&str],
        read: impl Fn(&str) -> usize + Send + 'static,
    ) -> Self {
        let corpus: Vec<&[u8]> = corpus.iter().map(|one| one.as_bytes()).collect();
        Self::bytes(name, &corpus, move |input| read(&String::from_utf8_lossy(input)))
    }

    /// What it looks for.
    pub(crate) fn words(mut self, words: &'static [&'static str]) -> Self {
        self.words = words;
        self
    }

    /// It is slow, or what it builds on is.
    pub(crate) fn slow(mut self) -> Self {
        self.part = 10;
        self
    }

    /// It looks at a whole fleet, which takes an unoptimised build a second for some hundred objects: longer inputs take as
    /// much longer.
    pub(crate) fn fleet(mut self) -> Self {
        (self.part, self.longest, self.time) = (100, 8 * 1024, 10 * TIME_MAX);
        self
    }

    /// Nobody gives it longer ones.
    pub(crate) fn longest(mut self, bytes: usize) -> Self {
        self.longest = bytes;
        self
    }
}

/// What became of one parser.
#[derive(Debug)]
struct Ended {
    name: &'static str,
    executions: u64,
    slowest: Duration,
    took: Duration,
    /// What is wrong with it, and by which input.
    wrong: Option<String>,
}

/// What a thread is at: the parser, since when, and its input.
type At = Arc<Mutex<Option<(&'static str, Instant, Vec<u8>)>>>;

fn shown(input: &[u8]) -> String {
    let start = input.get(..SHOWN).unwrap_or(input).escape_ascii();
    format!("{start} ({} bytes)", input.len())
}

/// One execution: how long it took, or what is wrong.
fn execute(target: &Target, input: &[u8]) -> Result<Duration, String> {
    let began = Instant::now();
    let kept = catch_unwind(AssertUnwindSafe(|| (target.read)(input)));
    let took = began.elapsed();
    let kept = kept.map_err(|_| "panics".to_owned())?;
    let most = KEEPS.0.saturating_mul(input.len()).saturating_add(KEEPS.1);
    if kept > most {
        return Err(format!("keeps {kept} bytes, and may keep {most}"));
    }
    Ok(took)
}

/// The shortest of three: another program may have had the processor.
fn patiently(target: &Target, input: &[u8]) -> Result<Duration, String> {
    let mut took = execute(target, input)?;
    for _ in 0..2 {
        if took > target.time {
            took = took.min(execute(target, input)?);
        }
    }
    if took > target.time {
        return Err(format!("takes {took:?}"));
    }
    Ok(took)
}

/// Runs one parser so often: each true input as it is, and broken ones.
fn search(target: &Target, executions: u64, at: &At) -> Ended {
    let began = Instant::now();
    let mut mutator = Mutator::new(SEED, target);
    let mut ended = Ended {
        name: target.name,
        executions: 0,
        slowest: Duration::ZERO,
        took: Duration::ZERO,
        wrong: None,
    };
    println!("fuzz: {:32} begins", target.name);
    let mut whole = target.corpus.iter().filter(|one| one.len() <= target.longest);
    while ended.executions < executions && ended.wrong.is_none() {
        let input = whole.next().cloned().unwrap_or_else(|| mutator.next());
        if let Ok(mut at) = at.lock() {
            *at = Some((target.name, Instant::now(), input.clone()));
        }
        ended.executions += 1;
        match patiently(target, &input) {
            Ok(took) => ended.slowest = ended.slowest.max(took),
            Err(wrong) => {
                let number = ended.executions;
                ended.wrong = Some(format!(
                    "{} {wrong}, by input {number} of seed {SEED:#x}: {}",
                    target.name,
                    shown(&input)
                ));
            }
        }
    }
    if let Ok(mut at) = at.lock() {
        *at = None;
    }
    ended.took = began.elapsed();
    ended
}

fn work(targets: &Mutex<VecDeque<Target>>, executions: u64, at: &At, ended: &Sender<Ended>) {
    loop {
        let next = targets.lock().ok().and_then(|mut targets| targets.pop_front());
        let Some(target) = next else { return };
        let executions = executions / target.part;
        if ended.send(search(&target, executions, at)).is_err() {
            return;
        }
    }
}

/// Runs all parsers, and ends when all have ended or one does not come back.
fn run(targets: Vec<Target>, executions: u64, patience: Duration) -> Result<Vec<Ended>, String> {
    let targets = Arc::new(Mutex::new(VecDeque::from(targets)));
    let (sender, receiver) = mpsc::channel();
    let threads: Vec<At> = (0..THREADS).map(|_| At::default()).collect();
    for at in &threads {
        let (targets, at, sender) = (Arc::clone(&targets), Arc::clone(at), sender.clone());
        // Stacks are as large as those on which the operator runs.
        thread::spawn(move || work(&targets, executions, &at, &sender));
    }
    drop(sender);
    let mut all = Vec::new();
    loop {
        match receiver.recv_timeout(patience.min(TIME_MAX)) {
            Ok(ended) => {
                println!(
                    "fuzz: {:32} executions={:6} slowest={:?} took={:?}",
                    ended.name, ended.executions, ended.slowest, ended.took
                );
                all.push(ended);
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(all),
            Err(RecvTimeoutError::Timeout) => {
                let busy = threads.iter().filter_map(|at| at.lock().ok()?.clone());
                let mut lost = busy.filter(|(_, since, _)| since.elapsed() > patience);
                if let Some((name, _, input)) = lost.next() {
                    return Err(format!("{name} does not come back from {}", shown(&input)));
                }
            }
        }
    }
}

/// All parsers of this program.
fn targets() -> Vec<Target> {
    let mut all = shared::targets();
    all.extend(crate::signals::fuzzed::targets());
    all.extend(crate::lint::fuzzed::targets());
    all.extend(crate::simulate::fuzzed::targets());
    all.extend(crate::controllers::airflow::fuzzed::targets());
    all
}

/// Inputs of each parser: `make soak` takes eight times as many, which is some minutes.
fn executions() -> u64 {
    let full = std::env::var("POOLWRIGHT_SCALE").is_ok_and(|scale| scale == "full");
    if full { 40_000 } else { 5_000 }
}

#[test]
fn no_parser_panics_hangs_or_keeps_more_than_it_is_given() {
    let targets = targets();
    let count = targets.len();
    println!("fuzz: seed={SEED:#x}");
    let ended = run(targets, executions(), PATIENCE).unwrap();
    let executions: u64 = ended.iter().map(|one| one.executions).sum();
    let wrong: Vec<&str> = ended.iter().filter_map(|one| one.wrong.as_deref()).collect();
    let panics = wrong.iter().filter(|words| words.contains(" panics, ")).count();
    println!("fuzz: parsers={count} executions={executions} panics={panics}");
    assert_eq!(ended.len(), count);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A parser of `LENGTH:TEXT` with a mistake.
fn broken(read: impl Fn(usize, &str) -> usize + Send + 'static) -> Target {
    Target::text("made up", &["3:abc", "11:hello world"], move |text| {
        let (length, text) = text.split_once(':').unwrap_or_default();
        length.parse().map_or(0, |length| read(length, text))
    })
}

#[test]
fn a_parser_with_a_mistake_is_found() {
    let wrong = |target| {
        let ended = run(vec![target], 20_000, PATIENCE).unwrap();
        ended.into_iter().next().unwrap().wrong.unwrap_or_default()
    };
    let slices = broken(|length, text| text[..length.min(12)].len());
    assert!(wrong(slices).contains("made up panics, by input "));
    let keeps = broken(|length, _| length);
    assert!(wrong(keeps).contains("made up keeps "));
    let waits = broken(|length, _| {
        thread::sleep(TIME_MAX.mul_f64(if length > 99 { 1.1 } else { 0.0 }));
        0
    });
    assert!(wrong(waits).contains("made up takes 1.1"));
    let well = broken(|length, text| text.get(..length).map_or(0, str::len));
    assert_eq!(wrong(well), "");
}

#[test]
fn a_parser_that_does_not_come_back_is_named_with_its_input() {
    let hangs = broken(|length, _| {
        if length > 99 {
            thread::sleep(Duration::from_secs(3600));
        }
        0
    });
    let lost = run(vec![hangs], 20_000, Duration::from_millis(500)).unwrap_err();
    assert!(lost.starts_with("made up does not come back from "), "{lost}");
}
