//! What the system knows about a process and its children.

use std::fs;

use anyhow::Context as _;

/// The process and all below it.
fn tree(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while let Some(&pid) = all.get(at) {
        let children = format!("/proc/{pid}/task/{pid}/children");
        let children = fs::read_to_string(children).unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        at += 1;
    }
    all
}

/// Nanoseconds on a processor, user and system, of all its threads that live.
pub fn cpu(pid: u32) -> anyhow::Result<u64> {
    let mut sum = 0;
    for pid in tree(pid) {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = task?.path().join("schedstat");
            let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
            let spent = text.split(' ').next().context("schedstat is empty")?;
            sum += spent.parse::<u64>()?;
        }
    }
    Ok(sum)
}

/// Resident bytes, of all its processes; what they share counts once for each.
pub fn resident(pid: u32) -> anyhow::Result<u64> {
    bytes(pid, "VmRSS:")
}

/// Of these, what is no file's: heap and stacks.
pub fn anonymous(pid: u32) -> anyhow::Result<u64> {
    bytes(pid, "RssAnon:")
}

fn bytes(pid: u32, field: &str) -> anyhow::Result<u64> {
    let mut sum = 0;
    for pid in tree(pid) {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        sum += kilobytes(&status, field).with_context(|| format!("no {field} in /proc"))? * 1024;
    }
    Ok(sum)
}

fn kilobytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_status() {
        let status = "VmRSS:\t    4608 kB\nRssAnon:\t    1212 kB\nRssFile:\t 3396 kB\n";
        assert_eq!(kilobytes(status, "VmRSS:"), Some(4608));
        assert_eq!(kilobytes(status, "RssAnon:"), Some(1212));
        assert_eq!(kilobytes(status, "RssShmem:"), None);
    }
}
