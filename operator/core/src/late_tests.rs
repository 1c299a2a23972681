use super::*;

const TARGET: Duration = Duration::from_secs(30);
const AFTER: Duration = Duration::from_secs(60);

/// One queue and its clock, looked at twice a second.
struct Watched {
    lateness: Lateness,
    now: Moment,
}

impl Watched {
    fn new() -> Self {
        Self::with(Lateness::default())
    }

    fn with(lateness: Lateness) -> Self {
        Self {
            lateness,
            now: Moment(1_000_000),
        }
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + i64::try_from(self.now.0).unwrap()).unwrap()
    }

    /// Looks for so many seconds, the first time after half a second, at what a task would wait.
    fn expects(&mut self, seconds: u64, wait: Option<f64>) -> Option<bool> {
        for _ in 0..2 * seconds {
            self.now = self.now.after(Duration::from_millis(500));
            let exceeds = Wait {
                expected: wait,
                ..Wait::default()
            };
            let exceeds = exceeds.exceeds(TARGET.as_secs_f64());
            self.lateness.weigh(exceeds, AFTER, (self.now, self.wall()));
        }
        self.lateness.is_missed()
    }

    /// The same at a queue.
    fn sees(&mut self, seconds: u64, book: Option<&QueueLedger>) -> Option<bool> {
        for _ in 0..2 * seconds {
            self.now = self.now.after(Duration::from_millis(500));
            let times = (self.now, self.wall());
            self.lateness.look(book, (TARGET, AFTER), times);
        }
        self.lateness.is_missed()
    }
}

/// Five tasks that nobody takes.
fn unserved() -> QueueLedger {
    QueueLedger {
        ready: Some(5),
        ..QueueLedger::default()
    }
}

#[test]
fn it_is_missed_once_tasks_have_waited_too_long_for_the_time_that_is_set() {
    let mut queue = Watched::new();
    assert_eq!(queue.lateness.is_missed(), None, "nothing is known");
    assert_eq!(
        queue.expects(1, Some(30.0)),
        Some(false),
        "the target itself is kept"
    );
    let since = queue
        .wall()
        .saturating_add(jiff::SignedDuration::from_millis(500));
    assert_eq!(queue.expects(60, Some(30.5)), Some(false));
    assert_eq!((queue.lateness.misses(), queue.lateness.miss()), (0, None));
    assert_eq!(queue.expects(1, Some(31.0)), Some(true));
    assert_eq!(queue.expects(600, Some(100.0)), Some(true));
    assert_eq!(queue.lateness.misses(), 1, "once a miss");
    assert_eq!(queue.lateness.miss().unwrap().since, since.unwrap());
}

#[test]
fn a_break_begins_the_time_anew() {
    let mut queue = Watched::new();
    queue.expects(59, Some(40.0));
    queue.expects(1, Some(30.0));
    assert_eq!(queue.expects(59, Some(40.0)), Some(false));
    assert_eq!(queue.expects(2, Some(40.0)), Some(true));
}

#[test]
fn it_is_over_once_tasks_have_waited_less_for_a_while() {
    let mut queue = Watched::new();
    queue.expects(61, Some(40.0));
    for _ in 0..5 {
        assert_eq!(queue.expects(9, Some(1.0)), Some(true));
        assert_eq!(queue.expects(1, Some(40.0)), Some(true));
    }
    assert_eq!(queue.lateness.misses(), 1, "swings are no misses of their own");
    assert_eq!(queue.expects(10, Some(30.0)), Some(true));
    assert_eq!(queue.expects(1, Some(30.0)), Some(false));
    assert_eq!(queue.lateness.miss(), None);
    assert_eq!(queue.expects(61, Some(40.0)), Some(true));
    assert_eq!(queue.lateness.misses(), 2);
}

#[test]
fn what_is_not_known_begins_no_miss_and_ends_none() {
    let mut queue = Watched::new();
    assert_eq!(queue.expects(600, None), None);
    queue.expects(40, Some(40.0));
    assert_eq!(queue.expects(600, None), Some(false), "it is not known to last");
    assert_eq!(
        queue.expects(19, Some(40.0)),
        Some(false),
        "nor is that time counted"
    );
    assert_eq!(queue.expects(3, Some(40.0)), Some(true));
    assert_eq!(queue.expects(600, None), Some(true));
    queue.expects(5, Some(1.0));
    assert_eq!(queue.expects(600, None), Some(true));
    assert_eq!(queue.expects(4, Some(1.0)), Some(true));
    assert_eq!(queue.expects(3, Some(1.0)), Some(false));
}

#[test]
fn a_miss_that_another_process_saw_is_not_told_again_and_ends_later() {
    let since = Timestamp::from_second(1_790_000_000).unwrap();
    let mut queue = Watched::with(Lateness::inherited(Some(since)));
    assert_eq!(queue.expects(600, None), Some(true));
    assert_eq!(queue.expects(60, Some(1.0)), Some(true));
    queue.expects(120, Some(40.0));
    assert_eq!(queue.lateness.miss().unwrap().since, since);
    assert_eq!(queue.lateness.misses(), 0);
    assert_eq!(queue.expects(61, Some(1.0)), Some(false));
    queue.expects(61, Some(40.0));
    assert_eq!(queue.lateness.misses(), 1);
    assert_eq!(queue.expects(11, Some(1.0)), Some(false), "this one is its own");
    let mut kept = Watched::with(Lateness::inherited(None));
    assert_eq!(kept.expects(60, None), Some(false));
}

#[test]
fn tasks_that_nobody_takes_are_as_old_as_they_are_known_to_wait() {
    let mut queue = Watched::new();
    assert_eq!(queue.sees(1, Some(&QueueLedger::default())), None, "not read");
    let empty = QueueLedger {
        ready: Some(0),
        ..QueueLedger::default()
    };
    assert_eq!(queue.sees(1, Some(&empty)), Some(false), "nothing waits");
    let waits = unserved();
    assert_eq!(queue.sees(30 + 60, Some(&waits)), Some(false));
    assert_eq!(queue.sees(2, Some(&waits)), Some(true));
    let wait = queue.lateness.miss().unwrap().wait;
    assert_eq!(wait.expected, None);
    assert!((90.0..93.0).contains(&wait.oldest.unwrap()), "{wait:?}");
    // While it is not read, they have not gone.
    queue.sees(60, None);
    assert_eq!(queue.sees(20, Some(&waits)), Some(true));
    assert_eq!(queue.sees(11, Some(&empty)), Some(false));
}

#[test]
fn a_miss_does_not_end_because_the_process_that_looks_is_young() {
    let mut lateness = Lateness::inherited(Some(Timestamp::UNIX_EPOCH));
    let hour = Duration::from_secs(3600);
    for second in 0..3000 {
        let times = (Moment(second * 1000), Timestamp::UNIX_EPOCH);
        lateness.look(Some(&unserved()), (hour, AFTER), times);
    }
    // They have waited for longer than this process has looked.
    assert_eq!(lateness.is_missed(), Some(true));
}

#[test]
fn nothing_is_known_of_a_queue_that_others_consume() {
    for book in [
        QueueLedger {
            foreign_consumers: 1,
            ..unserved()
        },
        QueueLedger {
            consumers: 1,
            ..unserved()
        },
        // A WorkerPool of which nothing is known.
        QueueLedger {
            claimants: 1,
            ..unserved()
        },
    ] {
        assert_eq!(Watched::new().sees(600, Some(&book)), None, "{book:?}");
        let done = QueueLedger {
            ready: Some(0),
            reserved: Some(0),
            ..book
        };
        let mut queue = Watched::with(Lateness::inherited(Some(Timestamp::UNIX_EPOCH)));
        assert_eq!(
            queue.sees(61, Some(&done)),
            Some(false),
            "nothing waits: {done:?}"
        );
    }
}

#[test]
fn the_oldest_counts_and_not_what_is_doubted() {
    let mut book = QueueLedger {
        consumers: 1,
        ..unserved()
    };
    book.outlook.oldest = Some(Duration::from_secs(31));
    assert_eq!(Watched::new().sees(61, Some(&book)), Some(true));
    book.outlook.doubted = true;
    assert_eq!(Watched::new().sees(61, Some(&book)), None);
}

/// Workers at zero that need longer to start than tasks should wait.
#[test]
fn an_empty_queue_is_not_late_and_its_first_task_is() {
    let mut book = QueueLedger {
        ready: Some(0),
        reserved: Some(0),
        claimants: 1,
        ..QueueLedger::default()
    };
    book.outlook.add(None, Some(45.0));
    let mut queue = Watched::new();
    assert_eq!(queue.sees(600, Some(&book)), Some(false));
    let mut warned = Watched::with(Lateness::ahead());
    assert_eq!(warned.sees(61, Some(&book)), Some(true));
    book.ready = Some(1);
    assert_eq!(queue.sees(60, Some(&book)), Some(false));
    assert_eq!(queue.sees(2, Some(&book)), Some(true));
    // And over with it, although the workers go to zero again.
    book.ready = Some(0);
    assert_eq!(queue.sees(11, Some(&book)), Some(false));
}
