//! The pages that the kernel itself put into a task: `[sigpage]`, `[vvar]`, `[vdso]`.
//!
//! Unmapping them is final: no ARM call makes new ones. So ours are parked before the unmap and moved to the
//! checkpoint's addresses at the end; the kernel follows such moves (arch/arm/kernel/process.c, vdso.c), and handlers
//! without SA_RESTORER return through the sigpage as before. The vdso moves only if it is the very vdso of the
//! checkpoint; otherwise the dumped one is patched (see `vdso`) and ours goes.

use armrest_abi::{FRAME_SIZE, Move, Range};
use armrest_images::{LiveTask, VmaKind};

use crate::machine::Machine;
use crate::space::Space;
use crate::types::SigpageExit;
use crate::{consts, u32_of};

/// What is decided about them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelPages {
    /// Moves to the parking place.
    pub parks: Vec<Move>,
    /// Moves from there to the checkpoint's addresses.
    pub unparks: Vec<Move>,
    /// The parking place.
    pub parking: Option<Range>,
    /// Ranges of ours that are in place already and must survive the unmap.
    pub in_place: Vec<Range>,
    /// Indices of the checkpoint's VMAs that are not mapped, but come by a move or are there.
    pub moved: Vec<usize>,
    /// True if the checkpoint's vdso is our kernel's.
    pub same_vdso: bool,
    /// Sentences for the summary.
    pub notes: Vec<String>,
}

/// The way out through the sigpage, if this kernel has one with the known words that comes to the task, and if there is
/// room for a frame where the kernel itself would put one: on an alternate stack that is not in use, else below sp, in
/// one private writable mapping.
pub fn sigpage_exit(
    live: &LiveTask,
    machine: &Machine,
    pages: &KernelPages,
) -> Option<SigpageExit> {
    /// `mov r7, #119; svc; (Thumb, as ARM: svcle); mov r7, #173; svc`.
    const WORDS: [u32; 5] = [
        0xe3a0_7077,
        0xef90_0077,
        0xdf00_2777,
        0xe3a0_70ad,
        0xef90_00ad,
    ];
    const SS_IN_USE_OR_OFF: u32 = 3;
    if !machine.svc_by_r7 {
        return None;
    }
    let page = pages
        .moved
        .iter()
        .map(|i| &live.mm.vmas[*i])
        .find(|v| v.kind == VmaKind::Sigpage)?;
    let bytes = machine.sigpage.as_deref()?;
    let code = armrest_arch::sigpage(bytes)?.code;
    let at = usize::try_from(code).ok()?;
    let known = WORDS
        .iter()
        .flat_map(|w| w.to_le_bytes())
        .eq(bytes.get(at..at + 20)?.iter().copied());
    let thread = live.threads.first()?;
    let top = match thread.altstack {
        Some((sp, size, flags)) if flags & SS_IN_USE_OR_OFF == 0 && size > FRAME_SIZE + 8 => {
            sp.checked_add(size)?
        }
        _ => thread.regs[13],
    };
    let frame = top.checked_sub(FRAME_SIZE)? & !7;
    let fits = live.mm.vmas.iter().any(|v| {
        v.range.has(frame)
            && top <= v.range.end()
            && !v.shared
            && v.prot & consts::PROT_WRITE != 0
            && matches!(v.kind, VmaKind::Anon | VmaKind::File { .. })
    });
    (known && fits).then_some(SigpageExit {
        svc: page.range.start() + code + 4,
        frame,
    })
}

/// One page group: where it is, where it belongs.
struct Pair {
    own: Range,
    target: Range,
    vma: usize,
}

/// Decide. `space` knows everything that the parking place must avoid.
pub fn plan_kernel_pages(live: &LiveTask, machine: &Machine, space: &Space) -> KernelPages {
    let mut out = KernelPages::default();
    let pair = |name: &str, kind: VmaKind| {
        let own: Range = machine.maps.iter().find(|m| m.name == name)?.range.into();
        let (vma, v) = live
            .mm
            .vmas
            .iter()
            .enumerate()
            .find(|(_, v)| v.kind == kind)?;
        let target = Range {
            start: v.range.start(),
            end: v.range.end(),
        };
        (own.len() == target.len()).then_some(Pair { own, target, vma })
    };
    let mut pairs = Vec::new();
    if let Some(p) = pair("[sigpage]", VmaKind::Sigpage) {
        if machine.sigpage != live.mm.sigpage {
            out.notes.push(
                "the kernel's sigpage is another than the checkpoint's: a handler without SA_RESTORER that was running \
                 at the dump cannot return"
                    .into(),
            );
        }
        pairs.push(p);
    }
    out.same_vdso = machine.vdso.is_some() && machine.vdso == live.mm.vdso;
    if out.same_vdso {
        match (pair("[vvar]", VmaKind::Vvar), pair("[vdso]", VmaKind::Vdso)) {
            // The code finds its data relative to itself: the distance must be the same.
            (Some(vvar), Some(vdso))
                if vdso.own.start.wrapping_sub(vvar.own.start)
                    == vdso.target.start.wrapping_sub(vvar.target.start) =>
            {
                pairs.extend([vvar, vdso]);
            }
            _ => out.same_vdso = false,
        }
    }
    pairs.retain(|p| {
        out.moved.push(p.vma);
        let there = p.own == p.target;
        if there {
            out.in_place.push(p.own);
        }
        !there
    });
    let len: u32 = pairs.iter().map(|p| p.own.len()).sum();
    if len == 0 {
        return out;
    }
    let Some(parking) = space.find(len, armrest_abi::PAGE_SIZE) else {
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
        out.unparks.push(Move {
            from: at,
            to: p.target.start,
            len,
            object,
        });
        at += len;
    }
    out.parking = Some(parking);
    out
}
