//! The vdso of a checkpoint on kernels that have another one: what moves, what jumps where, what makes system calls.
//! The other kernels' are made from the sample's by editing its symbols; each test says how.

mod common;

use armrest_abi::Move;
use armrest_images::{Checkpoint, FsDir, VmaKind};
use armrest_plan::model::{Trouble, prove};
use armrest_plan::vdso::{alike, functions, patched};
use armrest_plan::{Machine, MapRange, OwnMap, Plan, SourceKind, plan};
use std::path::Path;

fn sample() -> Checkpoint {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/images/dyn");
    armrest_images::load(&FsDir::new(dir)).expect("dyn")
}

fn dumped(cp: &Checkpoint) -> Vec<u8> {
    common::live(cp).mm.vdso.clone().expect("dumped")
}

/// A kernel with this vdso.
fn machine(cp: &Checkpoint, vdso: &[u8]) -> Machine {
    Machine {
        sigpage: common::live(cp).mm.sigpage.clone(),
        vdso: Some(vdso.to_vec()),
        // The model has no code to leave through.
        svc_by_r7: false,
        ..Machine::generic()
    }
}

fn planned(cp: &Checkpoint, machine: &Machine) -> Plan {
    plan(cp, machine, &common::options()).expect("a plan")
}

fn overlay(p: &Plan) -> Option<&Vec<u8>> {
    p.sources.iter().find_map(|s| match &s.what {
        SourceKind::Overlay(bytes) => Some(bytes),
        _ => None,
    })
}

fn at(bytes: &[u8], at: usize, len: usize) -> u32 {
    bytes[at..at + len]
        .iter()
        .rev()
        .fold(0, |n, b| n << 8 | u32::from(*b))
}

/// Changes the symbol of this function: `change(value)`.
fn revalue(elf: &mut [u8], name: &str, change: impl Fn(u32) -> u32) {
    let f = functions(elf)
        .expect("an ELF")
        .into_iter()
        .find(|f| f.name == name)
        .expect("the function");
    let value = u32::try_from(f.offset).unwrap() | u32::from(f.thumb);
    // A symbol has its value behind its name, and a function's type 12 bytes on.
    let symbol = (0..elf.len() - 16)
        .step_by(4)
        .find(|i| at(elf, i + 4, 4) == value && elf[i + 12] & 15 == 2)
        .expect("its symbol");
    elf[symbol + 4..symbol + 8].copy_from_slice(&change(value).to_le_bytes());
}

fn rename(elf: &mut [u8], from: &str, to: &str) {
    let needle = [from.as_bytes(), b"\0"].concat();
    let place = elf
        .windows(needle.len())
        .position(|w| w == needle)
        .expect("the name");
    elf[place..place + to.len()].copy_from_slice(to.as_bytes());
}

/// Where the code at `offset` of a page-aligned image jumps to, as a processor reads it; `None` if that is no jump.
fn jump_of(image: &[u8], offset: usize, thumb: bool) -> Option<u32> {
    let pc_relative = if thumb {
        (at(image, offset, 2) == 0xf8df && at(image, offset + 2, 2) & 0xf000 == 0xf000).then(|| {
            let imm = at(image, offset + 2, 2) & 0xfff;
            (offset + 4) / 4 * 4 + usize::try_from(imm).unwrap()
        })
    } else {
        (at(image, offset, 4) == 0xe51f_f004).then_some(offset + 8 - 4)
    };
    pc_relative.map(|word| at(image, word, 4))
}

#[test]
fn the_same_vdso_moves_to_its_place_with_its_data() {
    let cp = sample();
    let machine = machine(&cp, &dumped(&cp));
    let vmas = &common::live(&cp).mm.vmas;
    let place = |kind: VmaKind| vmas.iter().find(|v| v.kind == kind).unwrap().range;
    let kinds = [VmaKind::Sigpage, VmaKind::Vvar, VmaKind::Vdso];
    let comes = |p: &Plan, moves: &[Move]| {
        assert_eq!((p.stay.len(), overlay(p)), (0, None));
        for kind in kinds {
            let to = place(kind).start();
            assert!(moves.iter().any(|m| m.to == to), "{kind:?}");
        }
    };
    // At once, where nothing of ours lies at any of the three places.
    let p = planned(&cp, &machine);
    comes(&p, &p.tables.parks);
    assert!(p.tables.unparks.is_empty());
    prove(&cp, &machine, &p, Trouble::default()).unwrap();
    // Else by way of the parking place.
    for kind in kinds {
        let (mut full, at) = (machine.clone(), place(kind));
        full.maps.push(OwnMap {
            range: MapRange {
                start: at.start(),
                end: at.end(),
            },
            name: String::new(),
        });
        let p = planned(&cp, &full);
        comes(&p, &p.tables.unparks);
        assert_eq!(p.tables.parks.len(), p.tables.unparks.len());
        prove(&cp, &full, &p, Trouble::default()).unwrap();
    }
}

/// Edited: a byte behind the functions, so that everything one can call is where it was.
#[test]
fn one_that_cannot_be_told_from_it_moves_too() {
    let cp = sample();
    let mut other = dumped(&cp);
    *other.last_mut().unwrap() ^= 1;
    assert!(alike(&dumped(&cp), &other));
    let p = planned(&cp, &machine(&cp, &other));
    assert_eq!((p.stay.len(), overlay(&p)), (0, None));
    // Another size, or one function elsewhere: it can be told.
    assert!(!alike(&dumped(&cp), &[dumped(&cp), vec![0; 4096]].concat()));
    for (name, change) in [("__vdso_clock_getres", 4), ("__vdso_gettimeofday", 1)] {
        let mut other = dumped(&cp);
        revalue(&mut other, name, |v| v ^ change);
        assert!(!alike(&dumped(&cp), &other), "{name}");
    }
    assert!(!alike(&[0; 4096], &[1; 4096]), "no functions at all");
}

/// Edited: `clock_gettime` lies 8 bytes on; `gettimeofday` is code of the other state; `clock_getres` is unknown to the
/// kernel (its name is another), so the dumped one's makes the system call.
#[test]
fn functions_jump_to_their_counterparts() {
    let cp = sample();
    let mut other = dumped(&cp);
    revalue(&mut other, "__vdso_clock_gettime", |v| v + 8);
    revalue(&mut other, "__vdso_gettimeofday", |v| v ^ 1);
    rename(&mut other, "__vdso_clock_getres", "__vdso_clock_getnew");
    let machine = machine(&cp, &other);
    let p = planned(&cp, &machine);
    let image = overlay(&p).expect("a patched image");

    // The kernel's own pages stay together, where nothing of the checkpoint lies.
    let own = |name: &str| machine.maps.iter().find(|m| m.name == name).unwrap().range;
    let [vvar, vdso] = p.stay[..] else {
        panic!("{:x?}", p.stay)
    };
    assert_eq!(
        vdso.start - vvar.start,
        own("[vdso]").start - own("[vvar]").start
    );
    let vmas = &common::live(&cp).mm.vmas;
    for v in vmas {
        let target = armrest_abi::Range {
            start: v.range.start(),
            end: v.range.end(),
        };
        assert!(!target.overlaps(vvar) && !target.overlaps(vdso), "{v:?}");
    }
    let came = |from: u32| p.tables.parks.iter().find(|m| m.from == from).unwrap().to;
    assert_eq!(
        (came(own("[vvar]").start), came(own("[vdso]").start)),
        (vvar.start, vdso.start)
    );
    assert!(
        !p.tables
            .unparks
            .iter()
            .any(|m| m.from == vdso.start || m.from == vvar.start)
    );

    let here = functions(&other).unwrap();
    let mut jumps = 0;
    for f in functions(&dumped(&cp)).unwrap() {
        let counterpart = here.iter().find(|h| h.name == f.name);
        let target = counterpart
            .map(|h| (vdso.start + u32::try_from(h.offset).unwrap()) | u32::from(h.thumb));
        assert_eq!(jump_of(image, f.offset, f.thumb), target, "{}", f.name);
        jumps += usize::from(target.is_some());
        if target.is_none() {
            let stub = armrest_arch::syscall_stub(264, f.thumb);
            assert!(image[f.offset..].starts_with(stub.bytes()), "{}", f.name);
        }
    }
    assert_eq!((jumps, here.len()), (3, 4));
    let said = p
        .notes
        .iter()
        .find(|n| n.starts_with("vdso"))
        .expect("a note");
    assert!(
        said.contains("__vdso_clock_gettime jump to")
            && said.contains("__vdso_clock_getres make system calls"),
        "{said}"
    );
    prove(&cp, &machine, &p, Trouble::default()).unwrap();
}

/// Edited: the checkpoint has a function that nobody knows, by its name.
#[test]
fn an_unknown_function_says_enosys() {
    let cp = sample();
    let mut odd = dumped(&cp);
    rename(&mut odd, "__vdso_clock_getres", "__vdso_clock_getodd");
    let p = patched(&odd, Some((&dumped(&cp), 0x7000_0000))).unwrap();
    assert_eq!(
        (p.jumps.len(), &p.calls[..], &p.unknown[..]),
        (3, &[][..], &["__vdso_clock_getodd".to_owned()][..])
    );
    let f = functions(&odd)
        .unwrap()
        .into_iter()
        .find(|f| f.name.ends_with("odd"))
        .unwrap();
    assert!(p.bytes[f.offset..].starts_with(armrest_arch::enosys_stub(f.thumb).bytes()));
    // A jump into a vdso at the very end of the address space is none.
    assert_eq!(
        patched(&odd, Some((&dumped(&cp), 0xffff_ffff)))
            .unwrap()
            .jumps
            .len(),
        0
    );
}

#[test]
fn without_a_vdso_every_function_makes_its_call() {
    let cp = sample();
    let machine = Machine {
        vdso: None,
        ..machine(&cp, &[])
    };
    let p = planned(&cp, &machine);
    let image = overlay(&p).expect("a patched image");
    for f in functions(&dumped(&cp)).unwrap() {
        let nr = armrest_arch::vdso_syscall(&f.name).unwrap();
        assert!(image[f.offset..].starts_with(armrest_arch::syscall_stub(nr, f.thumb).bytes()));
    }
    assert!(p.stay.is_empty());
    prove(&cp, &machine, &p, Trouble::default()).unwrap();
}

/// The data of newer kernels is in two mappings, which a dumper joins: the same vdso still moves, in three pieces.
#[test]
fn data_in_two_pieces_moves_with_the_code() {
    let mut cp = sample();
    let vdso = dumped(&cp);
    let mut machine = machine(&cp, &vdso);
    let at = machine
        .maps
        .iter()
        .position(|m| m.name == "[vvar]")
        .unwrap();
    let mut first = machine.maps[at].clone();
    (first.range.start, first.range.end) = (first.range.start - 4096, first.range.start);
    // Where the sigpage was: it lies below.
    for m in machine.maps.iter_mut().filter(|m| m.name == "[sigpage]") {
        (m.range.start, m.range.end) = (m.range.start - 4096, m.range.end - 4096);
    }
    machine.maps[at].name = "[vvar_vclock]".into();
    machine.maps.insert(at, first);
    let live = cp.tasks[0].live.as_mut().unwrap();
    let vvar = live
        .mm
        .vmas
        .iter()
        .position(|v| v.kind == VmaKind::Vvar)
        .unwrap();
    let (start, end) = (
        live.mm.vmas[vvar].range.start(),
        live.mm.vmas[vvar].range.end(),
    );
    assert_eq!(live.mm.vmas[vvar - 1].kind, VmaKind::Sigpage);
    // The dumped sigpage makes room.
    live.mm.vmas[vvar - 1].range = common::range(start - 0x2000, 1);
    live.mm.vmas[vvar].range =
        armrest_images::AddrRange::new(u64::from(start) - 4096, u64::from(end)).unwrap();
    for r in live
        .pages
        .runs
        .iter_mut()
        .filter(|r| r.addr == u64::from(start) - 4096)
    {
        r.addr -= 4096;
    }
    let p = planned(&cp, &machine);
    assert_eq!((p.stay.len(), overlay(&p)), (0, None));
    assert_eq!((p.tables.parks.len(), p.tables.unparks.len()), (4, 0));
    prove(&cp, &machine, &p, Trouble::default()).unwrap();
}

#[test]
fn a_thread_inside_another_vdso_is_refused() {
    let mut cp = sample();
    let mut other = dumped(&cp);
    revalue(&mut other, "__vdso_clock_gettime", |v| v + 8);
    let vdso = common::live(&cp)
        .mm
        .vmas
        .iter()
        .find(|v| v.kind == VmaKind::Vdso)
        .unwrap()
        .range;
    cp.tasks[0].live.as_mut().unwrap().threads[0].regs[15] = vdso.start() + 0x600;
    let refused = plan(&cp, &machine(&cp, &other), &common::options()).unwrap_err();
    assert!(
        refused
            .0
            .iter()
            .any(|r| r.what.contains("inside the vdso at the dump")),
        "{refused:?}"
    );
    planned(&cp, &machine(&cp, &dumped(&cp)));
}
