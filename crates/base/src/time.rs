//! One clock for a daemon, real or virtual.
//!
//! Everything that waits or ages asks a [`Clock`] that it was given; nothing reads the system's clock by itself.
//! A clock counts nanoseconds from an arbitrary origin. It runs with the machine's monotonic clock until
//! [`Clock::stop`]; from then on it stands still and moves by [`Clock::warp`] alone, which is what
//! `time/stop` and `time/warp` of the daemons do. A [`Clock::simulated`] clock is stopped from birth and its wall
//! time moves with it, so that a simulation depends on its seed only.
//!
//! Invariants: `now` never goes back; [`Clock::warp`] publishes the new time before it calls the listeners.
//! Callable from any thread. `now` takes no lock: two relaxed loads and, on a running clock, one vDSO call (about 25 ns).

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point of a [`Clock`]'s time: nanoseconds since the clock's origin. Arithmetic saturates.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The origin: earlier than or equal to any other instant.
    pub const ZERO: Instant = Instant(0);
    /// Later than or equal to any other instant: as a deadline, "never".
    pub const MAX: Instant = Instant(u64::MAX);

    /// The instant `ns` nanoseconds after the origin.
    pub const fn from_ns(ns: u64) -> Instant {
        Instant(ns)
    }

    /// The instant `ms` milliseconds after the origin.
    pub const fn from_ms(ms: u64) -> Instant {
        Instant(ms.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the origin.
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// Microseconds since the origin, rounded down.
    pub const fn as_us(self) -> u64 {
        self.0 / 1_000
    }

    /// Milliseconds since the origin, rounded down.
    pub const fn as_ms(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Seconds since the origin, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// How much later `self` is than `earlier`; zero if it is not later.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// `self` plus `ms` milliseconds.
    pub const fn plus_ms(self, ms: u64) -> Instant {
        Instant(self.0.saturating_add(ms.saturating_mul(1_000_000)))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Instant::MAX {
            return f.write_str("never");
        }
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

fn duration_ns(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, d: Duration) -> Instant {
        Instant(self.0.saturating_add(duration_ns(d)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, d: Duration) {
        *self = *self + d;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;
    fn sub(self, d: Duration) -> Instant {
        Instant(self.0.saturating_sub(duration_ns(d)))
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;
    fn sub(self, earlier: Instant) -> Duration {
        self.since(earlier)
    }
}

/// Where a new clock starts: an hour after the origin, so that "an hour ago" is an instant too.
const START_NS: u64 = 3_600 * 1_000_000_000;
/// Wall time at which a simulated clock starts: 2026-01-01T00:00:00Z.
const SIMULATED_WALL_MS: u64 = 1_767_225_600_000;

type Listener = dyn Fn() + Send + Sync;

struct Inner {
    stopped: AtomicBool,
    /// While stopped: the time. While running: what warps have added to the machine's clock.
    frozen_ns: AtomicU64,
    warped_ns: AtomicU64,
    simulated: bool,
    listeners: Mutex<Vec<Weak<Listener>>>,
    /// Threads in [`Clock::sleep_until`] wait here.
    moved: Condvar,
    moved_lock: Mutex<()>,
}

/// A clock; clones share it.
#[derive(Clone)]
pub struct Clock(Arc<Inner>);

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({:?}{})", self.now(), if self.is_stopped() { ", stopped" } else { "" })
    }
}

impl Default for Clock {
    fn default() -> Self {
        Clock::new()
    }
}

/// The machine's monotonic time on the scale that all running clocks of the process share.
fn machine_ns() -> u64 {
    static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
    START_NS.saturating_add(duration_ns(ORIGIN.get_or_init(std::time::Instant::now).elapsed()))
}

/// Milliseconds since 1970 by the machine's clock.
pub fn machine_wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

impl Clock {
    /// A clock that runs with the machine's. All running clocks of a process agree until one is stopped or warped.
    pub fn new() -> Clock {
        Clock::build(false)
    }

    /// A stopped clock whose wall time is virtual as well.
    pub fn simulated() -> Clock {
        Clock::build(true)
    }

    fn build(simulated: bool) -> Clock {
        machine_ns();
        Clock(Arc::new(Inner {
            stopped: AtomicBool::new(simulated),
            frozen_ns: AtomicU64::new(START_NS),
            warped_ns: AtomicU64::new(0),
            simulated,
            listeners: Mutex::new(Vec::new()),
            moved: Condvar::new(),
            moved_lock: Mutex::new(()),
        }))
    }

    /// The time.
    pub fn now(&self) -> Instant {
        if self.0.stopped.load(Ordering::Acquire) {
            Instant(self.0.frozen_ns.load(Ordering::Relaxed))
        } else {
            Instant(machine_ns().saturating_add(self.0.warped_ns.load(Ordering::Relaxed)))
        }
    }

    /// Milliseconds since 1970. Stopping and warping leave the wall clock alone, except on a simulated clock.
    pub fn wall_ms(&self) -> u64 {
        if self.0.simulated {
            SIMULATED_WALL_MS.saturating_add((self.now() - Instant(START_NS)).as_millis() as u64)
        } else {
            machine_wall_ms()
        }
    }

    /// Makes time stand still. There is no way back, as `time/stop` has none.
    pub fn stop(&self) {
        if !self.is_stopped() {
            self.0.frozen_ns.store(self.now().as_ns(), Ordering::Relaxed);
            self.0.stopped.store(true, Ordering::Release);
            self.notify();
        }
    }

    /// Moves the clock `ms` milliseconds forward, then tells those who wait for it.
    pub fn warp(&self, ms: u64) {
        let ns = ms.saturating_mul(1_000_000);
        self.0.warped_ns.fetch_add(ns, Ordering::Relaxed);
        if self.is_stopped() {
            self.0.frozen_ns.fetch_add(ns, Ordering::Release);
        }
        self.notify();
    }

    /// Whether time stands still.
    pub fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::Acquire)
    }

    /// Has `listener` called, on the thread that did it, after each stop and warp, as long as its `Arc` lives.
    /// It should only wake something.
    pub fn on_move(&self, listener: &Arc<Listener>) {
        let mut listeners = self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|l| l.strong_count() > 0);
        listeners.push(Arc::downgrade(listener));
    }

    fn notify(&self) {
        drop(self.0.moved_lock.lock());
        self.0.moved.notify_all();
        let listeners: Vec<_> = {
            let listeners = self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner);
            listeners.iter().filter_map(Weak::upgrade).collect()
        };
        for listener in listeners {
            listener();
        }
    }

    /// How long a wait for `deadline` may block: `Some(0)` if it has passed; `None` for ever (no deadline, or time
    /// stands still and only an event can move it).
    pub fn timeout(&self, deadline: Option<Instant>) -> Option<Duration> {
        let deadline = deadline?;
        let now = self.now();
        if deadline <= now {
            Some(Duration::ZERO)
        } else if self.is_stopped() || deadline == Instant::MAX {
            None
        } else {
            Some(deadline - now)
        }
    }

    /// Blocks the calling thread until `deadline` by this clock.
    pub fn sleep_until(&self, deadline: Instant) {
        let mut guard = self.0.moved_lock.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            guard = match self.timeout(Some(deadline)) {
                Some(Duration::ZERO) => return,
                Some(d) => self.0.moved.wait_timeout(guard, d).unwrap_or_else(PoisonError::into_inner).0,
                None => self.0.moved.wait(guard).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// A date and time of day in the proleptic Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// Year, such as 2026.
    pub year: i64,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 59.
    pub second: u32,
    /// 0 (Sunday) to 6.
    pub weekday: u32,
    /// 0 to 365.
    pub yearday: u32,
}

impl Civil {
    /// The calendar's view of `secs` seconds since 1970 UTC (add a zone's offset for a local view).
    pub fn from_unix(secs: i64) -> Civil {
        let days = secs.div_euclid(86_400);
        let rest = u32::try_from(secs.rem_euclid(86_400)).unwrap_or(0);
        // Days to date: eras of 400 years that begin on March 1st, so that the leap day comes last.
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = u32::try_from(doy - (153 * mp + 2) / 5 + 1).unwrap_or(1);
        let month = u32::try_from(if mp < 10 { mp + 3 } else { mp - 9 }).unwrap_or(1);
        let year = yoe + era * 400 + i64::from(month <= 2);
        let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        const BEFORE: [u32; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        Civil {
            year,
            month,
            day,
            hour: rest / 3_600,
            minute: rest / 60 % 60,
            second: rest % 60,
            weekday: u32::try_from((days + 4).rem_euclid(7)).unwrap_or(0),
            yearday: BEFORE[month as usize - 1] + day - 1 + u32::from(leap && month > 2),
        }
    }
}

static LOCAL_OFFSET: OnceLock<fn(i64) -> i32> = OnceLock::new();

/// Installs the function that gives the local zone's offset from UTC, in seconds, at a time in seconds since 1970.
/// The system crate has it; without one, local time is UTC.
pub fn set_local_offset(f: fn(i64) -> i32) {
    // A second call brings the same function again.
    let _ = LOCAL_OFFSET.set(f);
}

/// The local zone's offset from UTC, in seconds, at `secs` since 1970.
pub fn local_offset(secs: i64) -> i32 {
    LOCAL_OFFSET.get().map_or(0, |f| f(secs))
}

/// `strftime` in the C locale, with runs of `#` replaced by that many leading digits of the fraction of a second.
pub fn strftime(format: &str, wall_ms: u64, local: bool) -> String {
    let secs = i64::try_from(wall_ms / 1_000).unwrap_or(i64::MAX / 2);
    let offset = if local { local_offset(secs) } else { 0 };
    let t = Civil::from_unix(secs + i64::from(offset));
    let mut out = String::with_capacity(format.len() * 2);
    strftime_into(&mut out, format, &t, secs, offset, local, wall_ms % 1_000);
    out
}

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

fn strftime_into(out: &mut String, format: &str, t: &Civil, secs: i64, offset: i32, local: bool, ms: u64) {
    use fmt::Write;
    let sub = |out: &mut String, f: &str| strftime_into(out, f, t, secs, offset, local, ms);
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '#' {
            let mut n = 1;
            while chars.next_if_eq(&'#').is_some() {
                n += 1;
            }
            let digits = format!("{ms:03}");
            out.push_str(&digits[..n.min(3)]);
            out.extend(std::iter::repeat_n('0', n.saturating_sub(3)));
            continue;
        }
        if c != '%' {
            out.push(c);
            continue;
        }
        let twelve = (t.hour + 11) % 12 + 1;
        // Writing to a String cannot fail.
        let _ = match chars.next() {
            Some('a') => write!(out, "{}", &DAYS[t.weekday as usize][..3]),
            Some('A') => write!(out, "{}", DAYS[t.weekday as usize]),
            Some('b' | 'h') => write!(out, "{}", &MONTHS[t.month as usize - 1][..3]),
            Some('B') => write!(out, "{}", MONTHS[t.month as usize - 1]),
            Some('c') => {
                sub(out, "%a %b %e %H:%M:%S %Y");
                Ok(())
            }
            Some('C') => write!(out, "{:02}", t.year / 100),
            Some('d') => write!(out, "{:02}", t.day),
            Some('D' | 'x') => {
                sub(out, "%m/%d/%y");
                Ok(())
            }
            Some('e') => write!(out, "{:2}", t.day),
            Some('F') => {
                sub(out, "%Y-%m-%d");
                Ok(())
            }
            Some('H') => write!(out, "{:02}", t.hour),
            Some('I') => write!(out, "{twelve:02}"),
            Some('j') => write!(out, "{:03}", t.yearday + 1),
            Some('k') => write!(out, "{:2}", t.hour),
            Some('l') => write!(out, "{twelve:2}"),
            Some('m') => write!(out, "{:02}", t.month),
            Some('M') => write!(out, "{:02}", t.minute),
            Some('n') => writeln!(out),
            Some('p') => write!(out, "{}", if t.hour < 12 { "AM" } else { "PM" }),
            Some('r') => {
                sub(out, "%I:%M:%S %p");
                Ok(())
            }
            Some('R') => {
                sub(out, "%H:%M");
                Ok(())
            }
            Some('s') => write!(out, "{secs}"),
            Some('S') => write!(out, "{:02}", t.second),
            Some('t') => write!(out, "\t"),
            Some('T' | 'X') => {
                sub(out, "%H:%M:%S");
                Ok(())
            }
            Some('u') => write!(out, "{}", if t.weekday == 0 { 7 } else { t.weekday }),
            Some('w') => write!(out, "{}", t.weekday),
            Some('y') => write!(out, "{:02}", t.year.rem_euclid(100)),
            Some('Y') => write!(out, "{}", t.year),
            Some('z') => {
                let sign = if offset < 0 { '-' } else { '+' };
                let m = offset.unsigned_abs() / 60;
                write!(out, "{sign}{:02}{:02}", m / 60, m % 60)
            }
            Some('Z') if !local || offset == 0 => write!(out, "{}", if local { "UTC" } else { "GMT" }),
            Some('Z') => {
                sub(out, "%z");
                Ok(())
            }
            Some('%') => write!(out, "%"),
            Some(other) => write!(out, "%{other}"),
            None => write!(out, "%"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stopped_clock_moves_by_warps_only() {
        let clock = Clock::new();
        clock.stop();
        let t0 = clock.now();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(clock.now(), t0);
        clock.warp(1_500);
        assert_eq!(clock.now() - t0, Duration::from_millis(1_500));
        assert_eq!(clock.timeout(Some(t0)), Some(Duration::ZERO));
        assert_eq!(clock.timeout(Some(clock.now().plus_ms(1))), None);
    }

    #[test]
    fn running_clock_can_warp() {
        let clock = Clock::new();
        let t0 = clock.now();
        clock.warp(10_000);
        assert!(clock.now() - t0 >= Duration::from_secs(10));
        let d = clock.timeout(Some(clock.now().plus_ms(500))).unwrap();
        assert!(d > Duration::ZERO && d <= Duration::from_millis(500));
    }

    #[test]
    fn warp_wakes_sleepers_and_listeners() {
        let clock = Clock::simulated();
        let (tx, rx) = std::sync::mpsc::channel();
        let listener: Arc<Listener> = Arc::new(move || tx.send(()).unwrap());
        clock.on_move(&listener);
        let sleeper = clock.clone();
        let deadline = clock.now().plus_ms(20);
        let thread = std::thread::spawn(move || {
            sleeper.sleep_until(deadline);
            sleeper.now()
        });
        clock.warp(10);
        clock.warp(10);
        assert_eq!(thread.join().unwrap(), deadline);
        assert_eq!(rx.try_iter().count(), 2);
        let wall = clock.wall_ms();
        clock.warp(7);
        assert_eq!(clock.wall_ms(), wall + 7);
        drop(listener);
        clock.warp(1);
    }

    #[test]
    fn instants_saturate() {
        assert_eq!(Instant::from_ms(5) - Duration::from_secs(1), Instant::ZERO);
        assert_eq!(Instant::MAX + Duration::from_secs(1), Instant::MAX);
        assert_eq!(Instant::from_ms(5) - Instant::from_ms(9), Duration::ZERO);
        assert_eq!(Instant::from_ms(1_234).as_secs(), 1);
    }

    #[test]
    fn calendar() {
        assert_eq!(
            strftime("%Y-%m-%dT%H:%M:%S.###Z|%a %j", 1_795_359_472_328, false),
            "2026-11-22T14:57:52.328Z|Sun 326"
        );
        assert_eq!(strftime("%F %T %b %e %y", 951_827_696_000, false), "2000-02-29 12:34:56 Feb 29 00");
        assert_eq!(strftime("%h %e %T #", 1_000, false), "Jan  1 00:00:01 0");
        assert_eq!(strftime("%I%p %%", 0, false), "12AM %");
    }
}
