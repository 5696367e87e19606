//! CPU time and memory by process, from `/proc`.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::Duration;

/// A tick of `/proc`, which is a hundredth of a second on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// CPU time used up to an instant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu {
    /// Of one process, with all its threads.
    pub(crate) process: Duration,
    /// Of this program and all its descendants.
    ours: Duration,
    /// Of all processes, and what a hypervisor took.
    busy: Duration,
    /// Of all cores, busy or idle.
    total: Duration,
}

impl Cpu {
    /// The figures now, for the process `pid`.
    pub(crate) fn now(pid: i32) -> Self {
        let (busy, total) = machine();
        Self {
            process: stat(pid).map_or(Duration::ZERO, |stat| stat.own),
            ours: tree(),
            busy,
            total,
        }
    }

    /// CPU time of the process since `before`.
    pub(crate) fn process_since(&self, before: &Self) -> Duration {
        self.process.saturating_sub(before.process)
    }

    /// The share of the machine, 0 to 1, that others took since `before`.
    pub(crate) fn others_since(&self, before: &Self) -> f64 {
        let busy = self.busy.saturating_sub(before.busy);
        let ours = self.ours.saturating_sub(before.ours);
        let total = self.total.saturating_sub(before.total);
        busy.saturating_sub(ours).as_secs_f64() / total.as_secs_f64().max(0.001)
    }
}

/// Resident memory of a process in MiB.
pub(crate) fn resident(pid: i32) -> f64 {
    memory(pid, "VmRSS:")
}

/// Peak resident memory since [`reset_peak`], in MiB.
pub(crate) fn peak(pid: i32) -> f64 {
    memory(pid, "VmHWM:")
}

/// Begins a new measurement of [`peak`] (`proc_pid_clear_refs(5)`).
pub(crate) fn reset_peak(pid: i32) {
    // If that is not allowed, the peak counts from the start, which is more.
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

fn memory(pid: i32, what: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix(what)?.split_whitespace().next());
    let kilobytes: f64 = kilobytes.and_then(|kb| kb.parse().ok()).unwrap_or(0.0);
    kilobytes / 1024.0
}

struct Stat {
    parent: i32,
    own: Duration,
    /// Includes its dead children.
    all: Duration,
}

fn stat(pid: i32) -> Option<Stat> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may contain anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<i64> = fields
        .split_whitespace()
        .skip(1)
        .map_while(|field| field.parse().ok())
        .collect();
    let ticks = |range: std::ops::Range<usize>| {
        let ticks: i64 = fields.get(range)?.iter().sum();
        Some(TICK * u32::try_from(ticks).ok()?)
    };
    Some(Stat {
        parent: i32::try_from(*fields.first()?).ok()?,
        own: ticks(10..12)?,
        all: ticks(10..14)?,
    })
}

/// CPU time of this process and all below it.
fn tree() -> Duration {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats: HashMap<i32, Stat> = pids
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?)))
        .collect();
    let mut ours = HashSet::from([i32::try_from(std::process::id()).unwrap_or(0)]);
    loop {
        let children = stats.iter().filter(|(_, stat)| ours.contains(&stat.parent));
        let grown: HashSet<i32> = children.map(|(pid, _)| *pid).chain(ours.clone()).collect();
        if grown.len() == ours.len() {
            break;
        }
        ours = grown;
    }
    ours.iter()
        .filter_map(|pid| stats.get(pid))
        .map(|stat| stat.all)
        .sum()
}

/// Busy and total time of all cores.
fn machine() -> (Duration, Duration) {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    let fields: Vec<u64> = first
        .split_whitespace()
        .skip(1)
        // Guests are part of the first two.
        .take(8)
        .filter_map(|field| field.parse().ok())
        .collect();
    let ticks = |ticks: u64| Duration::from_millis(10 * ticks);
    let total: u64 = fields.iter().sum();
    let idle: u64 = fields.iter().skip(3).take(2).sum();
    (ticks(total - idle), ticks(total))
}
