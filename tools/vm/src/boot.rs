//! From the start of a machine to its first test: 8 s at most, on a host that has nothing else to do.

use crate::Outcome;
use std::time::Duration;

/// Its name among the tests.
pub const TEST: &str = "boot-in-8s";
const MOST: Duration = Duration::from_secs(8);

/// The host before the machines are started.
pub struct Host {
    cores: usize,
    /// Over the last minute.
    load: f32,
}

impl Host {
    /// As it is now. What cannot be read counts as busy.
    pub fn now() -> Host {
        let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = text.split(' ').next().and_then(|n| n.parse().ok());
        Host {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load: load.unwrap_or(f32::INFINITY),
        }
    }
}

/// What is to be said of the boots of that many machines.
pub fn judge(host: &Host, machines: usize, boots: &[Duration]) -> (Outcome, String) {
    let slowest = boots.iter().max().copied().unwrap_or(Duration::MAX);
    let seconds = match boots.len() {
        0 => "none came to its first test".to_owned(),
        _ => format!("{:.1} s", slowest.as_secs_f32()),
    };
    let cores = u16::try_from(host.cores).unwrap_or(u16::MAX);
    if boots.len() < machines {
        return (
            Outcome::Bad,
            format!("FAILED ({seconds}; a machine did not boot)"),
        );
    }
    if slowest <= MOST {
        return (Outcome::Good, format!("ok ({seconds})"));
    }
    if machines > host.cores || host.load >= f32::from(cores) {
        let load = host.load;
        let how = format!(
            "ignored: *** NOT JUDGED ({seconds}): load {load} on {cores} cores before the start ***"
        );
        return (Outcome::Refused, how);
    }
    (Outcome::Bad, format!("FAILED: {seconds} to the first test"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_boot_fails_unless_the_host_was_busy() {
        let of = |load, machines, boots: &[u64]| {
            let boots: Vec<Duration> = boots.iter().map(|s| Duration::from_secs(*s)).collect();
            judge(&Host { cores: 2, load }, machines, &boots).0
        };
        assert_eq!(of(0.5, 2, &[4, 8]), Outcome::Good);
        assert_eq!(of(0.5, 2, &[4, 9]), Outcome::Bad);
        assert_eq!(of(1.9, 1, &[9]), Outcome::Bad);
        assert_eq!(of(2.0, 2, &[4, 9]), Outcome::Refused);
        assert_eq!(of(0.5, 3, &[4, 4, 9]), Outcome::Refused);
        assert_eq!(of(0.5, 2, &[4]), Outcome::Bad);
        assert_eq!(of(9.0, 1, &[]), Outcome::Bad);
    }
}
