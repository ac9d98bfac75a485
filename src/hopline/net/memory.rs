//! How much memory there is.

/// What a node takes it for where it can't tell.
const UNKNOWN_BYTES: u64 = 1 << 30;

/// What a node keeps for replay unless it is told otherwise: a quarter of the memory that this process may have.
#[must_use]
pub fn default_replay_bytes() -> u64 {
    // Without a limit the file says `max`, which is no number.
    let limit =
        std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    [limit, machine].into_iter().flatten().min().unwrap_or(UNKNOWN_BYTES) / 4
}

/// The machine's memory, as `proc_meminfo(5)` tells it.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1 << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_memory_is_understood() {
        let text = "MemTotal:       24684396 kB\nMemFree:        15062112 kB\n";
        assert_eq!(total(text), Some(24_684_396 << 10));
        assert_eq!(total("MemFree: 1 kB"), None);
        assert!(default_replay_bytes() > 0);
    }
}
