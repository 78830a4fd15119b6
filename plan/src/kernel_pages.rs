//! The pages that the kernel itself put into a task: `[sigpage]`, `[vvar]`, `[vdso]`.
//!
//! Unmapping them is final: no ARM call makes new ones. So ours are parked before the unmap and moved to the
//! checkpoint's addresses at the end, or moved there before the unmap if nothing of ours lies there; the kernel follows such moves (arch/arm/kernel/process.c, vdso.c), and handlers
//! without SA_RESTORER return through the sigpage as before. The vdso moves there only if it is the checkpoint's, or
//! cannot be told from it; otherwise it stays for good where it was parked, its data page beside it, and the functions
//! of the dumped one jump to it (see `vdso`).

use armrest_abi::{Move, Range};
use armrest_images::{LiveTask, VmaKind};

use crate::machine::Machine;
use crate::space::Space;
use crate::types::SigpageExit;
use crate::{u32_of, vdso};

/// What is decided about them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelPages {
    /// Moves to the parking place, or where they belong.
    pub parks: Vec<Move>,
    /// Moves from there to the checkpoint's addresses.
    pub unparks: Vec<Move>,
    /// The parking place.
    pub parking: Option<Range>,
    /// Ranges of ours that are in place already and must survive the unmap.
    pub in_place: Vec<Range>,
    /// Indices of the checkpoint's VMAs that are not mapped, but come by a move or are there.
    pub moved: Vec<usize>,
    /// Where the kernel's sigpage will lie.
    pub sigpage: Option<u32>,
    /// What comes of the checkpoint's vdso.
    pub vdso: Vdso,
    /// Ranges outside of the checkpoint's mappings where pages of the kernel's stay for good.
    pub stay: Vec<Range>,
    /// Sentences for the summary.
    pub notes: Vec<String>,
}

/// What comes of the checkpoint's vdso.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vdso {
    /// Its functions make system calls.
    #[default]
    Calls,
    /// Its functions jump to the kernel's own, which lies here.
    Jumps(u32),
    /// The kernel's own takes its place.
    Moves,
}

/// The way out through the sigpage, if this kernel has one with the known words that comes to the task.
pub fn sigpage_exit(machine: &Machine, pages: &KernelPages) -> Result<SigpageExit, &'static str> {
    /// `mov r7, #119; svc; (Thumb, as ARM: svcle); mov r7, #173; svc`.
    const WORDS: [u32; 5] = [
        0xe3a0_7077,
        0xef90_0077,
        0xdf00_2777,
        0xe3a0_70ad,
        0xef90_00ad,
    ];
    if machine.emulated {
        return Err("an emulator has no sigpage");
    }
    if !machine.svc_by_r7 {
        return Err("this kernel takes the numbers of calls from `svc` itself (OABI)");
    }
    let page = pages.sigpage.ok_or("there is no sigpage to move")?;
    const OTHER: &str = "the sigpage holds other words than expected";
    let bytes = machine.sigpage.as_deref().ok_or(OTHER)?;
    let code = armrest_arch::sigpage(bytes).ok_or(OTHER)?.code;
    let at = usize::try_from(code).map_err(|_| OTHER)?;
    let known = WORDS.iter().flat_map(|w| w.to_le_bytes()).eq(bytes
        .get(at..at + 20)
        .ok_or(OTHER)?
        .iter()
        .copied());
    if !known {
        return Err(OTHER);
    }
    Ok(SigpageExit {
        svc: page + code + 4,
    })
}

/// One page group: where it is, where it belongs, if it belongs anywhere.
struct Pair {
    own: Range,
    target: Option<Range>,
    vma: usize,
}

/// True if a VMA of this kind may be such a page.
pub(crate) fn is_one(kind: VmaKind) -> bool {
    matches!(kind, VmaKind::Sigpage | VmaKind::Vdso | VmaKind::Vvar)
}

/// `[vvar]` (in one piece or more) and `[vdso]` of ours, ascending: a group whose distances must stay, since the code
/// finds its data relative to itself.
fn own_group(machine: &Machine) -> Option<Vec<Range>> {
    let mut group: Vec<Range> = machine
        .maps
        .iter()
        .filter(|m| m.name.starts_with("[vvar") || m.name == "[vdso]")
        .map(|m| m.range.into())
        .collect();
    group.sort_unstable();
    let code: Vec<_> = machine.maps.iter().filter(|m| m.name == "[vdso]").collect();
    let span = group.last()?.end - group.first()?.start;
    // Anything else is no kernel that we know.
    (group.len() >= 2 && code.len() == 1 && span <= 64 * armrest_abi::PAGE_SIZE).then_some(group)
}

/// The pairs that bring our group to the checkpoint's place, if it fits there.
fn moving(live: &LiveTask, group: &[Range]) -> Option<Vec<Pair>> {
    let theirs: Vec<(usize, Range)> = live
        .mm
        .vmas
        .iter()
        .enumerate()
        .filter(|(_, v)| matches!(v.kind, VmaKind::Vvar | VmaKind::Vdso))
        .map(|(i, v)| {
            let (start, end) = (v.range.start(), v.range.end());
            (i, Range { start, end })
        })
        .collect();
    let (first, last) = (theirs.first()?, theirs.last()?);
    // The vdso is the last of both: then the same length above all means the same distance of code and data.
    let vdso_last = live.mm.vmas[last.0].kind == VmaKind::Vdso;
    let base = group.first()?.start;
    let spans = last.1.end - first.1.start == group.last()?.end - base;
    let mut pairs = Vec::new();
    for own in group {
        let target = Range {
            start: own.start - base + first.1.start,
            end: own.end - base + first.1.start,
        };
        // Dumpers join the pieces of the data, so several of ours may lie in one of theirs; but each lies in one.
        let (vma, _) = theirs.iter().find(|(_, r)| r.contains(target))?;
        pairs.push(Pair {
            own: *own,
            target: Some(target),
            vma: *vma,
        });
    }
    let covered: u32 = group.iter().map(|r| r.len()).sum();
    let wanted: u32 = theirs.iter().map(|(_, r)| r.len()).sum();
    (vdso_last && spans && covered == wanted).then_some(pairs)
}

/// Decide. `space` knows everything that the parking place must avoid; what stays there for good avoids `roomy`, where
/// stacks and heaps may grow, if that leaves room. `ours` is what is taken before the unmap: if all their places are free
/// of that, they move there at once, and nothing is parked.
pub fn plan_kernel_pages(
    live: &LiveTask,
    machine: &Machine,
    (space, roomy): (&Space, &Space),
    ours: Option<&Space>,
) -> KernelPages {
    let mut out = KernelPages::default();
    let find = |kind: VmaKind| {
        live.mm
            .vmas
            .iter()
            .enumerate()
            .find(|(_, v)| v.kind == kind)
    };
    let mut pairs = Vec::new();
    let mut own_sigpage: Option<Range> = None;
    if let (Some(own), Some((vma, v))) = (
        machine.maps.iter().find(|m| m.name == "[sigpage]"),
        find(VmaKind::Sigpage),
    ) {
        let own: Range = own.range.into();
        let target = Range {
            start: v.range.start(),
            end: v.range.end(),
        };
        if own.len() == target.len() {
            let users = &live.mm.sigpage_users;
            let target = if machine.sigpage == live.mm.sigpage || users.is_empty() {
                Some(target)
            } else {
                // They return to where the code lay in the dumped page: that stays as plain memory, and handlers to
                // come return through the kernel's, wherever it is.
                let users: Vec<String> = users.iter().map(u32::to_string).collect();
                out.notes.push(format!(
                    "tid {} is inside a handler without SA_RESTORER and returns through the checkpoint's sigpage; the \
                     kernel's own lies elsewhere",
                    users.join(", ")
                ));
                None
            };
            own_sigpage = Some(own);
            out.sigpage = target.map(|t| t.start);
            pairs.push(Pair { own, target, vma });
        }
    }
    let mut group = Vec::new();
    if let (Some(own), Some((bytes, (vma, _)))) = (
        own_group(machine),
        machine.vdso.as_deref().zip(find(VmaKind::Vdso)),
    ) {
        let theirs = live.mm.vdso.as_deref();
        match moving(live, &own).filter(|_| theirs.is_some_and(|t| vdso::alike(t, bytes))) {
            Some(all) => {
                out.vdso = Vdso::Moves;
                pairs.extend(all);
            }
            None => {
                let target = None;
                group = own
                    .into_iter()
                    .map(|own| Pair { own, target, vma })
                    .collect();
            }
        }
    }
    pairs.retain(|p| {
        let there = p.target == Some(p.own);
        if there {
            out.in_place.push(p.own);
        }
        if p.target.is_some() && !out.moved.contains(&p.vma) {
            out.moved.push(p.vma);
        }
        !there
    });
    let free = |p: &Pair| {
        let target = p.target.filter(|t| ours.is_some_and(|o| o.is_free(*t)));
        target.map(|to| (p.own, to, p.vma))
    };
    if let (true, Some(all)) = (
        group.is_empty(),
        pairs.iter().map(free).collect::<Option<Vec<_>>>(),
    ) {
        for (own, to, vma) in all {
            out.in_place.push(to);
            out.parks.push(Move {
                from: own.start,
                to: to.start,
                len: own.len(),
                object: u32_of(vma),
            });
        }
        return out;
    }
    let span = match (group.first(), group.last()) {
        (Some(a), Some(b)) => b.own.end - a.own.start,
        _ => 0,
    };
    let len: u32 = pairs.iter().map(|p| p.own.len()).sum();
    if len + span == 0 {
        return out;
    }
    let page = armrest_abi::PAGE_SIZE;
    let Some(parking) = roomy
        .find(len + span, page)
        .or_else(|| space.find(len + span, page))
    else {
        return KernelPages {
            notes: vec!["no room to park the kernel's own pages: signal handlers without SA_RESTORER cannot return".into()],
            ..KernelPages::default()
        };
    };
    let mut at = parking.start;
    for p in pairs {
        let (len, object) = (p.own.len(), u32_of(p.vma));
        out.parks.push(Move {
            from: p.own.start,
            to: at,
            len,
            object,
        });
        match p.target {
            Some(target) => out.unparks.push(Move {
                from: at,
                to: target.start,
                len,
                object,
            }),
            None => out.stay.push(Range {
                start: at,
                end: at + len,
            }),
        }
        at += len;
    }
    // The sigpage, if it goes anywhere, went first.
    if out.sigpage.is_none() && own_sigpage.is_some() {
        out.sigpage = out.stay.first().map(|r| r.start);
    }
    let base = group.first().map_or(0, |p| p.own.start);
    for p in &group {
        let start = at + (p.own.start - base);
        let end = start + p.own.len();
        out.parks.push(Move {
            from: p.own.start,
            to: start,
            len: p.own.len(),
            object: u32_of(p.vma),
        });
        out.stay.push(Range { start, end });
        // The vdso comes last, or anywhere: its own map tells.
        if machine
            .maps
            .iter()
            .any(|m| m.name == "[vdso]" && m.range.start == p.own.start)
        {
            out.vdso = Vdso::Jumps(start);
        }
    }
    out.parking = Some(parking);
    out
}
