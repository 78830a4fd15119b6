//! Names what is in the images but not in [`crate::Checkpoint`]: valid, unsupported, refused by the plan.

use super::AllIds;
use super::source::Source;
use crate::error::Error;
use crate::{proto, view};

/// Image kinds that are only named: start of the file name, and what a user calls it.
const NAMED: &[(&str, &str)] = &[
    ("tcp-stream-", "tcp-stream"),
    ("bpfmap-file.img", "bpf maps"),
    ("bpfmap-data.img", "bpf map data"),
    ("utsns-", "uts namespace"),
    ("userns-", "user namespace"),
    ("pidns-", "pid namespace"),
    ("mountpoints-", "mount namespace"),
    ("netns-", "network namespace"),
    ("netdev-", "network devices"),
    ("autofs-", "autofs"),
    ("binfmt-misc", "binfmt-misc"),
    ("apparmor", "apparmor"),
];

/// The list, in a fixed order, with counts.
pub(super) fn named(
    source: &mut Source<'_>,
    inventory: &proto::Inventory,
    ids: &AllIds,
) -> Result<Vec<String>, Error> {
    let names = source.list()?;
    let mut others = Vec::new();
    for (start, what) in NAMED {
        let mut count = 0usize;
        for name in names
            .iter()
            .filter(|n| n.starts_with(start) && n.ends_with(".img"))
        {
            if let Some(bytes) = source.image(name)? {
                count += view::count(name, &bytes)?;
            }
        }
        if count > 0 {
            others.push(format!("{what}: {count}"));
        }
    }
    if let Some(ns) = ids.of_first(|i| i.ipc_ns_id) {
        let own = format!("-{ns}.img");
        let ipc = names.iter().filter(|n| n.starts_with("ipcns-"));
        others.extend(
            ipc.filter(|n| !n.ends_with(&own))
                .map(|n| format!("an ipc namespace of nobody: {n}")),
        );
    }
    for name in names.iter().filter(|n| n.ends_with(".tar.gz")) {
        others.push(format!("tmpfs contents: {name}"));
    }
    match inventory.lsmtype {
        None | Some(0) => {}
        Some(1) => others.push("lsm: SELinux".to_owned()),
        Some(2) => others.push("lsm: AppArmor".to_owned()),
        Some(n) => others.push(format!("lsm: {n}")),
    }
    let plugins = inventory.plugins_entry.iter().flat_map(|p| &p.plugins);
    others.extend(plugins.map(|p| format!("plugin: {}", String::from_utf8_lossy(p))));
    let root = inventory.root_ids.clone().unwrap_or_default();
    type Which = fn(&proto::Ids) -> Option<u32>;
    let spaces: [(&str, Which); 7] = [
        ("pid", |i| i.pid_ns_id),
        ("net", |i| i.net_ns_id),
        ("uts", |i| i.uts_ns_id),
        ("mnt", |i| i.mnt_ns_id),
        ("user", |i| i.user_ns_id),
        ("cgroup", |i| i.cgroup_ns_id),
        ("time", |i| i.time_ns_id),
    ];
    for (name, which) in spaces {
        if ids
            .by_pid
            .values()
            .any(|i| matches!((which(i), which(&root)), (Some(a), Some(b)) if a != b))
        {
            others.push(format!("{name} namespace of its own"));
        }
    }
    let first = ids.of_first(|i| i.ipc_ns_id);
    if ids.by_pid.values().any(|i| i.ipc_ns_id != first) {
        others.push("more than one ipc namespace".to_owned());
    }
    Ok(others)
}
