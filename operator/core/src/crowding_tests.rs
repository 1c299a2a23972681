use super::*;
use crate::estimate::Counts;

/// Slots that work on a database, and a queue before them; one step a second.
struct Fluid {
    estimates: Estimates,
    crowding: Crowding,
    /// Tasks that the database bears; each takes ten seconds where it is not crowded.
    bears: f64,
    service: f64,
    waiting: f64,
    started: f64,
    ended: f64,
    second: u64,
    slots: f64,
    /// Slots of a pod.
    pod: u32,
    useful: Option<Useful>,
}

impl Fluid {
    fn new(bears: f64) -> Self {
        Self {
            estimates: Estimates::default(),
            crowding: Crowding::default(),
            bears,
            service: 10.0,
            waiting: 0.0,
            started: 0.0,
            ended: 0.0,
            second: 0,
            slots: 20.0,
            pod: 4,
            useful: None,
        }
    }

    /// A second in which `coming` tasks come.
    fn second(&mut self, coming: f64) {
        self.second += 1;
        let now = Moment(self.second * 1000);
        let busy = self.started - self.ended;
        self.ended += busy.min(self.bears) / self.service;
        self.waiting += coming;
        let begun = (self.slots - (self.started - self.ended)).clamp(0.0, self.waiting);
        self.waiting -= begun;
        self.started += begun;
        let whole = |value: f64| crate::estimate::whole(value).into();
        let counts = Counts {
            waiting: whole(self.waiting.floor()),
            busy: whole((self.started - self.ended).floor()),
            started: whole(self.started.floor()),
        };
        self.estimates.observe(counts, Some(0), now);
        self.crowding
            .observe(counts.waiting, self.pod, &self.estimates, now);
        self.useful = self.crowding.useful();
    }

    /// So many seconds of a load, with as many slots as its tasks seem to need, and no more than are of use; returns
    /// the most slots.
    fn chase(&mut self, seconds: u64, coming: f64) -> f64 {
        let mut most = 0.0_f64;
        for _ in 0..seconds {
            // A worker takes its time: each second a thirtieth of what is missing.
            let wish = (coming * self.estimates.service() * 1.1 + self.waiting / 3.0).min(400.0);
            let wish = self.useful.map_or(wish, |useful| wish.min(useful.slots));
            self.slots += (wish - self.slots) / 30.0;
            self.second(coming);
            most = most.max(self.slots);
        }
        most
    }
}

#[test]
fn more_slots_than_a_database_bears_are_found_to_be_of_no_use() {
    let mut fluid = Fluid::new(32.0);
    fluid.chase(1200, 2.0);
    assert_eq!(fluid.useful, None);
    fluid.chase(1800, 4.0);
    let most = fluid.chase(1800, 4.0);
    let useful = fluid.useful.expect("a limit");
    assert!((32.0..60.0).contains(&useful.slots), "{useful:?}");
    assert!((useful.each_minute - 192.0).abs() < 6.0, "{useful:?}");
    assert!(most < 80.0, "{most}");
    // When nothing waits any more, nothing is limited.
    fluid.waiting = 0.0;
    fluid.chase(1800, 2.0);
    assert_eq!(fluid.useful, None);
}

#[test]
fn what_bears_more_later_is_found_by_trying() {
    let mut fluid = Fluid::new(32.0);
    fluid.chase(3600, 4.0);
    assert!(fluid.useful.is_some());
    fluid.bears = 1000.0;
    fluid.chase(2400, 4.0);
    assert!(fluid.waiting < 1.0, "{} wait", fluid.waiting);
}

/// Ten times as long from one moment on, or 1.7 times: more slots are what helps.
#[test]
fn tasks_that_take_longer_are_given_their_slots() {
    for times in [1.7, 10.0] {
        let mut fluid = Fluid::new(f64::INFINITY);
        fluid.chase(1800, 2.0);
        fluid.service *= times;
        let mut limited = 0;
        for _ in 0..3600 {
            fluid.chase(1, 2.0);
            limited += u32::from(fluid.useful.is_some());
        }
        assert!(limited < 200, "limited for {limited} s");
        assert_eq!(fluid.useful, None);
        assert!(fluid.waiting < 1.0, "{} wait", fluid.waiting);
    }
}

/// A rising and a falling load never.
#[test]
fn a_load_that_rises_and_falls_is_not_limited() {
    let mut fluid = Fluid::new(f64::INFINITY);
    for minute in 0..240_u32 {
        let coming = 2.0 - (f64::from(minute) / 20.0).cos() * 1.5;
        fluid.chase(60, coming);
        assert_eq!(fluid.useful, None, "minute {minute}");
    }
}

/// Few and long tasks: too little ends to conclude anything from, and nothing stays limited for want of it.
#[test]
fn few_tasks_are_not_limited_for_ever() {
    let mut fluid = Fluid::new(f64::INFINITY);
    fluid.service = 120.0;
    fluid.chase(7200, 0.07);
    fluid.service = 260.0;
    fluid.chase(4 * 3600, 0.07);
    assert!(fluid.waiting < 2.0, "{} wait", fluid.waiting);
}

/// A limit that was found with short tasks, when few and long ones come: so few end that no trial could tell.
#[test]
fn few_and_long_tasks_end_a_limit() {
    // At any moment of a stretch.
    for at in 0..12 {
        let mut fluid = Fluid::new(16.0);
        fluid.chase(3600 + 10 * at, 2.0);
        let limit = fluid.useful.expect("a limit").slots;
        assert!(limit < 28.0, "{limit}");
        (fluid.service, fluid.bears, fluid.waiting) = (900.0, f64::INFINITY, 400.0);
        fluid.chase(1500, 0.0);
        assert_eq!(fluid.useful, None, "{at}");
    }
}

/// A limit, or a trial of a few more, with a pace that is as ever and too slow to conclude anything from.
#[test]
fn where_little_ends_no_limit_is_for_ever() {
    let trial = |most, before| Stage::Higher {
        most,
        before,
        usual: 0.04,
    };
    let limited = Stage::Limited {
        most: 20.0,
        usual: 0.04,
        since: Moment(0),
        calm: false,
    };
    for (stage, still) in [(limited, true), (trial(20.0, 16.0), false)] {
        let mut fluid = Fluid::new(f64::INFINITY);
        (fluid.service, fluid.waiting, fluid.crowding.stage) = (600.0, 1000.0, stage);
        fluid.chase(620, 0.0);
        assert_eq!(fluid.useful.is_some(), still, "{stage:?}");
        fluid.chase(680, 0.0);
        assert_eq!(fluid.useful, None, "{stage:?}");
    }
}

/// That nobody works says nothing of what helps.
#[test]
fn a_limit_outlasts_that_all_workers_are_gone() {
    let mut fluid = Fluid::new(32.0);
    fluid.chase(3600, 4.0);
    assert!(fluid.useful.is_some());
    for _ in 0..2400 {
        fluid.slots = 0.0;
        fluid.second(0.1);
    }
    assert!(fluid.useful.is_some());
}

#[test]
fn nothing_is_limited_when_work_returns_after_a_pause() {
    let mut fluid = Fluid::new(32.0);
    fluid.chase(3600, 4.0);
    assert!(fluid.useful.is_some());
    (fluid.waiting, fluid.bears) = (0.0, 1000.0);
    fluid.chase(1200, 0.0);
    assert_eq!(fluid.useful, None);
}

/// One to eight pods suffice, of many slots each.
#[test]
fn whole_pods_are_what_is_tried() {
    for bears in [8.0, 12.0, 16.0, 20.0, 24.0, 28.0, 32.0, 40.0, 48.0, 56.0, 64.0] {
        let mut fluid = Fluid::new(bears);
        fluid.pod = 8;
        fluid.slots = bears;
        fluid.chase(1800, bears / 14.0);
        fluid.chase(5400, bears / 8.0);
        let useful = fluid.useful.expect("a limit").slots;
        assert!(
            useful <= (1.5 * bears).max(bears + 8.0) && useful % 8.0 == 0.0,
            "{useful} of {bears}"
        );
    }
}

/// Half of the slots are lost: that fewer end says nothing of what helps.
#[test]
fn lost_slots_do_not_end_a_limit() {
    let mut fluid = Fluid::new(32.0);
    fluid.chase(3600, 4.0);
    let before = fluid.useful.expect("a limit").slots;
    // Nor often: a limit that is higher after each time is none in the end.
    for _ in 0..4 {
        for _ in 0..400 {
            fluid.slots = 12.0;
            fluid.second(4.0);
        }
        fluid.chase(2000, 4.0);
        let after = fluid.useful.expect("a limit").slots;
        assert!(after <= before * TRIAL + 4.0, "{after} after {before}");
    }
}

/// The stretches are as long as ten minutes then, and what is crowded is no reference for what is.
#[test]
fn a_limit_behind_long_tasks_is_found() {
    for service in [10.0, 60.0, 100.0, 150.0] {
        let mut fluid = Fluid::new(32.0);
        fluid.service = service;
        fluid.chase(3 * 3600, 20.0 / service);
        fluid.chase(4 * 3600, 40.0 / service);
        let useful = fluid.useful.map(|useful| useful.slots);
        assert!(
            useful.is_some_and(|slots| slots <= 64.0),
            "{useful:?} with tasks of {service} s"
        );
    }
}

/// The same database, which bears less now.
#[test]
fn a_limit_that_falls_is_found_again() {
    for bears in [24.0, 20.0] {
        let mut fluid = Fluid::new(32.0);
        fluid.chase(1800, 2.0);
        fluid.chase(3600, 4.0);
        assert!(fluid.useful.is_some());
        fluid.bears = bears;
        fluid.chase(7200, 4.0);
        let useful = fluid.useful.expect("a limit").slots;
        assert!(useful <= 4.0 * bears, "{useful} slots where {bears} suffice");
    }
}

/// Two thirds of the slots end two thirds as many, and a fifth more by chance: a few tasks do not show that the rest are of no
/// use, many do.
#[test]
fn what_a_few_tasks_end_by_chance_limits_nothing() {
    let pace = |slots: f64, ended: f64, long: f64| Pace::of((ended * long, slots * long), long, Moment(0));
    let before = pace(30.0, 0.75, 180.0);
    assert!(!remains(&pace(20.0, 0.62, 60.0), &before));
    assert!(remains(&pace(20.0, 0.72, 600.0), &before));
}
