//! `stats-restore`: the one file of CRIU's formats that a restore writes, for tools that read it (`crit show`).

use prost::Message;

use crate::{container, magic, proto};

/// What a restore took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreStats {
    /// Making the processes, in microseconds.
    pub forking_us: u32,
    /// The whole restore, in microseconds.
    pub restore_us: u32,
    /// Pages with contents.
    pub pages: u64,
}

/// The bytes of the file.
pub fn encode(s: RestoreStats) -> Vec<u8> {
    let message = proto::Stats {
        dump: None,
        restore: Some(proto::RestoreStats {
            // No page is compared or shared with a parent's: all are read.
            pages_compared: Some(0),
            pages_skipped_cow: Some(0),
            forking_time: Some(s.forking_us),
            restore_time: Some(s.restore_us),
            pages_restored: Some(s.pages),
        }),
    };
    let body = message.encode_to_vec();
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let words = [container::SERVICE, magic::STATS, len];
    let mut file: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    file.extend(body);
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Reader;

    #[test]
    fn what_is_written_is_read_again() {
        let file = encode(RestoreStats {
            forking_us: 300,
            restore_us: 4700,
            pages: 1437,
        });
        let mut r = Reader::open("stats-restore", &file, magic::STATS).unwrap();
        let m = r.entry_or_end::<proto::Stats>().unwrap().unwrap();
        let restore = m.restore.unwrap();
        assert_eq!(restore.restore_time, Some(4700));
        assert_eq!(restore.pages_restored, Some(1437));
        assert!(r.entry_or_end::<proto::Stats>().unwrap().is_none());
    }
}
