//! The one check: messages into a [`Checkpoint`] in which nothing is wrong any more.
//! Order: inventory, files, IPC objects, memory objects, then the tasks, so that every reference can be resolved.

mod at;
mod cgroup;
mod creds;
mod files;
mod ipc;
mod kinds;
mod locks;
mod memory;
mod number;
mod objects;
mod others;
mod remap;
mod sockets;
mod source;
mod task;
mod terminals;
mod thread;

use std::collections::{BTreeMap, BTreeSet};

use at::{At, need};
use source::Source;

use crate::checkpoint::{Checkpoint, Clocks, File, Task, TaskState, VmaKind};
use crate::dir::{FsDir, ImageDir};
use crate::error::{Error, Fault};
use crate::kinds::Remap;
use crate::{magic, proto};

/// Largest process id that a kernel can have.
const PID_MAX: u32 = 4 << 20;

/// Reads and checks the checkpoint in the directory at `path`.
///
/// # Errors
/// There is no such directory; else those of [`load`].
pub fn load_from(path: &std::path::Path) -> Result<Checkpoint, Error> {
    let fault = match path.metadata() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Fault::NoDirectory,
        Ok(meta) if !meta.is_dir() => Fault::NotADirectory,
        _ => return load(&FsDir::new(path)),
    };
    Err(Error::new(&path.display().to_string(), fault))
}

/// Reads and checks the checkpoint in `dir`.
///
/// # Errors
/// The first thing that is wrong, by file, entry and field.
pub fn load(dir: &dyn ImageDir) -> Result<Checkpoint, Error> {
    let mut source = Source::new(dir);
    let inventory = inventory(&mut source)?;
    let tree = tree(&mut source)?;
    let ids = namespaces(&mut source, &tree)?;
    let mut others = others::named(&mut source, &inventory, &ids)?;

    let mut files = files::read(&mut source)?;
    let ghosts = remap::read(&mut source, &mut files)?;
    let [pipes, fifos] =
        kinds::IMAGES.map(|(name, magic)| kinds::contents(&mut source, name, magic));
    let (pipes, fifos) = (pipes?, fifos?);
    kinds::check_pipes(&files, &pipes, &fifos)?;
    let packets = sockets::packets(&mut source, &files)?;
    sockets::check(&files, &packets)?;
    let terminals = terminals::read(&mut source, &files)?;
    let own_ipc_namespace = ids.own(&inventory, |i| i.ipc_ns_id);
    let ipc_ns = ids.of_first(|i| i.ipc_ns_id);
    let segments = ipc::segments(&mut source, ipc_ns)?;
    let memfds = objects::memfds(&mut source)?;
    files::check_memfds(&files, &memfds)?;

    let mut checkpoint = Checkpoint {
        tasks: Vec::new(),
        files,
        pipes,
        fifos,
        ghosts,
        packets,
        terminals,
        locks: Vec::new(),
        segments,
        semaphores: ipc::semaphores(&mut source, ipc_ns)?,
        queues: ipc::queues(&mut source, ipc_ns)?,
        ipc_limits: ipc::limits(&mut source, ipc_ns)?,
        memfds,
        anon_shared: Default::default(),
        pages_files: Vec::new(),
        filters: task::filters(&mut source)?,
        own_ipc_namespace,
        clocks: clocks(&mut source, ids.of_first(|i| i.time_ns_id))?,
        others: Vec::new(),
        image_bytes: 0,
    };
    let cgroups = cgroup::sets(&mut source)?;
    let filters = u32::try_from(checkpoint.filters.len()).unwrap_or(u32::MAX);
    for node in &tree {
        let context = task::Context {
            inventory: &inventory,
            ids: ids.of(node.pid),
            filters,
            cgroups: &cgroups,
        };
        let task = task::read(&mut source, &checkpoint, &context, node)?;
        checkpoint.tasks.push(task);
    }
    checkpoint.locks = locks::read(&mut source, &checkpoint.tasks)?;
    descriptor_tables(&mut source, &checkpoint)?;
    memory::anon_shared(&mut source, &mut checkpoint)?;
    let threads = checkpoint.tasks.iter().filter_map(|t| t.live.as_ref());
    let mut creds = threads
        .flat_map(|l| &l.threads)
        .filter_map(|t| t.creds.as_ref());
    if creds.all(|c| c.lsm_profile.is_none()) {
        // The machine of the dump had such a module; it did not confine these tasks.
        others.retain(|o| !o.starts_with("lsm: "));
    }
    checkpoint.others = others;
    checkpoint.pages_files = std::mem::take(&mut source.pages_files);
    checkpoint.image_bytes = source.bytes;
    Ok(checkpoint)
}

/// A process without any descriptor has no table at all. So a missing table is believed only if every file is
/// accounted for otherwise.
fn descriptor_tables(source: &mut Source<'_>, checkpoint: &Checkpoint) -> Result<(), Error> {
    let mut used = BTreeSet::new();
    let in_flight = checkpoint
        .packets
        .values()
        .flatten()
        .flat_map(|p| &p.rights);
    used.extend(in_flight.copied());
    used.extend(checkpoint.files.values().filter_map(|f| match f {
        File::Reg(r) => match r.remap {
            Some(Remap::Linked(id)) => Some(id),
            _ => None,
        },
        _ => None,
    }));
    let mut missing = None;
    for live in checkpoint.tasks.iter().filter_map(|t| t.live.as_ref()) {
        used.extend([live.mm.exe, live.cwd, live.root]);
        used.extend(live.fds.iter().map(|f| f.file));
        used.extend(live.mm.vmas.iter().filter_map(|v| match v.kind {
            VmaKind::File { file } | VmaKind::Memfd { file, .. } => Some(file),
            _ => None,
        }));
        if live.fds.is_empty() {
            missing.get_or_insert(live.files_id);
        }
    }
    if let Some(id) = missing
        && checkpoint.files.keys().any(|f| !used.contains(f))
    {
        let name = format!("fdinfo-{id}.img");
        let fault = match source.image(&name)? {
            None => Fault::Missing,
            Some(_) => Fault::Entries {
                expected: "some",
                found: 0,
            },
        };
        return Err(Error::new(&name, fault));
    }
    Ok(())
}

fn inventory(source: &mut Source<'_>) -> Result<proto::Inventory, Error> {
    let name = "inventory.img";
    let at = At::file(name);
    let inventory: proto::Inventory = source.one(name, magic::INVENTORY)?;
    let version = need!(at, inventory.img_version);
    if version != 2 {
        return Err(at.err(
            "img_version",
            Fault::Version(format!("images of version {version}, only 2 is known")),
        ));
    }
    if inventory.fdinfo_per_id != Some(true) {
        return Err(at.err(
            "fdinfo_per_id",
            Fault::Version("old images: descriptors are not kept by table".to_owned()),
        ));
    }
    Ok(inventory)
}

/// One entry of the process tree.
#[derive(Clone, Debug)]
struct Node {
    pid: u32,
    ppid: u32,
    pgid: u32,
    sid: u32,
    /// Leader first.
    tids: Vec<u32>,
    /// From the core image.
    dead: bool,
    core: proto::Core,
}

fn tree(source: &mut Source<'_>) -> Result<Vec<Node>, Error> {
    let name = "pstree.img";
    let file = At::file(name);
    let entries: Vec<proto::Pstree> = source.array(name, magic::PSTREE)?;
    if entries.is_empty() {
        let fault = if source.image(name)?.is_none() {
            Fault::Missing
        } else {
            Fault::Entries {
                expected: "at least one",
                found: 0,
            }
        };
        return Err(Error::new(name, fault));
    }
    let (mut nodes, mut pids, mut seen) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for (n, e) in entries.into_iter().enumerate() {
        let at = file.entry(n);
        let pid = need!(at, e.pid);
        let in_range = |field, id: u32, least| {
            if (least..=PID_MAX).contains(&id) {
                Ok(())
            } else {
                Err(at.bad(field, id, "no process id"))
            }
        };
        in_range("pid", pid, 1)?;
        let (ppid, pgid, sid) = (need!(at, e.ppid), need!(at, e.pgid), need!(at, e.sid));
        in_range("pgid", pgid, 0)?;
        in_range("sid", sid, 0)?;
        match (n, ppid) {
            (0, 0) => {}
            (0, _) => return Err(at.bad("ppid", ppid, "the first task is the root of the tree")),
            (_, p) if !pids.contains(&p) => return Err(at.dangling("ppid", "earlier task", p)),
            _ => {}
        }
        if !pids.insert(pid) || !seen.insert(pid) {
            return Err(at.twice("process", pid));
        }
        let core_name = format!("core-{pid}.img");
        let core: proto::Core = source.one(&core_name, magic::CORE)?;
        let core_at = At::file(&core_name);
        task::machine(&core_at, &core)?;
        let tc = core_at.req("tc", core.tc.as_ref())?;
        let dead = core_at.sub("tc").req("task_state", tc.task_state)? == 2;
        let mut tids = vec![pid];
        if !dead {
            if !e.threads.contains(&pid) {
                return Err(at.err(
                    "threads",
                    Fault::BadReference {
                        what: "the leader",
                        id: u64::from(pid),
                    },
                ));
            }
            for tid in e.threads.iter().copied() {
                in_range("threads", tid, 1)?;
                if tid != pid {
                    if !seen.insert(tid) {
                        return Err(at.twice("thread", tid));
                    }
                    tids.push(tid);
                }
            }
            if e.threads.len() != tids.len() {
                return Err(at.twice("thread", pid));
            }
        }
        nodes.push(Node {
            pid,
            ppid,
            pgid,
            sid,
            tids,
            dead,
            core,
        });
    }
    Ok(nodes)
}

/// The object ids of all live tasks.
struct AllIds {
    by_pid: BTreeMap<u32, proto::Ids>,
    /// Pid of the first task that lives.
    first: Option<u32>,
}

impl AllIds {
    fn of(&self, pid: u32) -> Option<&proto::Ids> {
        self.by_pid.get(&pid)
    }
    fn of_first(&self, which: impl Fn(&proto::Ids) -> Option<u32>) -> Option<u32> {
        self.of(self.first?).and_then(which)
    }
    /// True if the first task's namespace is not the dumper's.
    fn own(
        &self,
        inventory: &proto::Inventory,
        which: impl Fn(&proto::Ids) -> Option<u32>,
    ) -> bool {
        match (
            self.of_first(&which),
            inventory.root_ids.as_ref().and_then(&which),
        ) {
            (Some(own), Some(root)) => own != root,
            _ => false,
        }
    }
}

fn namespaces(source: &mut Source<'_>, tree: &[Node]) -> Result<AllIds, Error> {
    let mut by_pid = BTreeMap::new();
    let alive = || tree.iter().filter(|n| !n.dead).map(|n| n.pid);
    for pid in alive() {
        by_pid.insert(pid, source.one(&format!("ids-{pid}.img"), magic::IDS)?);
    }
    Ok(AllIds {
        by_pid,
        first: alive().next(),
    })
}

fn clocks(source: &mut Source<'_>, id: Option<u32>) -> Result<Option<Clocks>, Error> {
    let mut name = "timens-0.img".to_owned();
    let mut found = source.one_or_none::<proto::Timens>(&name, magic::TIMENS)?;
    if let (None, Some(id)) = (&found, id) {
        name = format!("timens-{id}.img");
        found = source.one_or_none(&name, magic::TIMENS)?;
    }
    let Some(entry) = found else { return Ok(None) };
    let at = At::file(&name);
    let ns = |field: &str, t: Option<proto::Timespec>| {
        let t = at.req(field, t)?;
        let at = at.sub(field);
        let (sec, nsec) = (need!(at, t.tv_sec), need!(at, t.tv_nsec));
        if nsec >= 1_000_000_000 {
            return Err(at.bad("tv_nsec", nsec, "a second or more"));
        }
        let total = sec
            .checked_mul(1_000_000_000)
            .and_then(|s| s.checked_add(nsec));
        total.ok_or_else(|| at.bad("tv_sec", sec, "longer than any machine runs"))
    };
    Ok(Some(Clocks {
        monotonic_ns: ns("monotonic", entry.monotonic)?,
        boottime_ns: ns("boottime", entry.boottime)?,
    }))
}

impl Task {
    fn from_node(node: &Node, state: TaskState, comm: String) -> Task {
        Task {
            pid: node.pid,
            ppid: node.ppid,
            pgid: node.pgid,
            sid: node.sid,
            state,
            comm,
            live: None,
        }
    }
}
