//! `make bench`: what a restore costs, counted under qemu-arm. Every number repeats exactly; nothing here is a time.
//!
//! `bench [--write]` restores real and generated checkpoints, each twice, and prints tables; with `--write` it puts them
//! into docs/benchmarks.md too. The programs to measure are found by the variables that `make` sets: ARMREST and QEMU.

mod costs;
mod measure;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use armrest_images::{Checkpoint, FsDir, LiveTask};
use armrest_plan::{Machine, Options, Plan};
use object::{Object, ObjectSection};

use bench::Fail;
use bench::generate::{self, Added, Contents};
use bench::table::{Table, met, per, thousands};
use costs::{Goal, Made};
use measure::{Bench, Call, Counted, Subject};

/// Checkpoints of real programs.
const REAL: [&str; 5] = ["counter", "memory", "sysvshm", "sysvsplit", "dyn"];
/// Calls that are paid once.
const FIXED_GOAL: u64 = 12;
/// Bytes of the static executable: 1.2 MiB.
const EXECUTABLE_GOAL: u64 = 1_258_291;
/// One-page VMAs of the generated checkpoints.
const MANY: u32 = 10_000;
/// Between these two lines of the document are the tables.
const BEGIN: &str = "<!-- written by `make bench` from here -->";
const END: &str = "<!-- to here -->";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Fail> {
    let write = match env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--write" => true,
        _ => return Err("usage: bench [--write]".into()),
    };
    let home = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .ok_or("not in a workspace")?
        .to_owned();
    let bench = subject(&home)?;
    let text = report(&home, &bench)?;
    print!("{text}");
    if write {
        put(&home.join("docs/benchmarks.md"), &text)?;
    }
    Ok(())
}

fn subject(home: &Path) -> Result<Bench, Fail> {
    let work = env::temp_dir().join(format!("armrest-bench-{}", std::process::id()));
    fs::create_dir_all(&work)?;
    let path = |name: &str, or: PathBuf| env::var_os(name).map_or(or, PathBuf::from);
    let bench = Bench {
        armrest: path("ARMREST", home.join("target/armrest")).canonicalize()?,
        qemu: path("QEMU", "qemu-arm".into()),
        plugin: work.join("libcount.so"),
        tests: home.join("tests"),
        work,
    };
    bench.build_plugin(&home.join("tools/bench/plugin/count.c"))?;
    Ok(bench)
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Scratch in the system's temporary directory: what cannot be removed does no harm.
        let _ = fs::remove_dir_all(&self.work);
    }
}

/// One line of the tables.
struct Measured {
    name: String,
    counted: Counted,
    goal: Goal,
    made: Made,
    /// The same on a real kernel, as planned.
    real: Made,
    vmas: u64,
}

fn report(home: &Path, bench: &Bench) -> Result<String, Fail> {
    let mut all = Vec::new();
    for name in REAL {
        all.push(measure(
            bench,
            &Subject {
                name: name.to_owned(),
                program: name.to_owned(),
                images: bench.tests.join("images").join(name),
            },
        )?);
    }
    for (name, added) in generated() {
        let images = bench.work.join("images");
        generate::write(&bench.tests.join("images/counter"), &images, added)?;
        all.push(measure(
            bench,
            &Subject {
                name: name.to_owned(),
                program: "counter".to_owned(),
                images: images.clone(),
            },
        )?);
        fs::remove_dir_all(images)?;
    }
    let mut out = String::new();
    out += &blob(home, &all)?;
    out += &calls(&all);
    out += &instructions(&all)?;
    out += &user_copies(&all);
    out += &executable(bench, &all)?;
    Ok(out)
}

fn generated() -> [(&'static str, Added); 5] {
    [
        ("bare 10,000", Added::OnePage(MANY, Contents::None)),
        ("runs 10,000", Added::OnePage(MANY, Contents::Every2nd)),
        ("full 10,000", Added::OnePage(MANY, Contents::All)),
        ("1 MiB", Added::OneVma(256)),
        ("129 MiB", Added::OneVma(129 * 256)),
    ]
}

fn measure(bench: &Bench, s: &Subject) -> Result<Measured, Fail> {
    eprintln!("bench: {}", s.name);
    let cp =
        armrest_images::load(&FsDir::new(&s.images)).map_err(|e| format!("{}: {e}", s.name))?;
    let task = cp.tasks.first().ok_or("no task")?;
    let live = task.live.as_ref().ok_or("no live task")?;
    let counted = bench.count(s)?;
    let made = costs::made(&counted.calls, counted.helpers, live)?;
    let real = on_a_real_kernel(s, &cp, live)?;
    Ok(Measured {
        name: s.name.clone(),
        goal: costs::goal(&cp, live),
        vmas: u64::try_from(live.mm.vmas.len())?,
        counted,
        made,
        real,
    })
}

/// The blob's steps on the recording kernel, for the made-up machine with everything that Debian 12's kernel has.
fn on_a_real_kernel(s: &Subject, cp: &Checkpoint, live: &LiveTask) -> Result<Made, Fail> {
    let options = Options {
        any_pid: true,
        any_ids: true,
        blob: armrest_plan::BlobSizes {
            rx: 0x3000,
            rw: 0x1000,
            stack: 0x2000,
            heap: 0x3000,
            thread_stack: 0x400,
        },
        ..Options::default()
    };
    let plan: Plan = armrest_plan::plan(cp, &Machine::generic(), &options)
        .map_err(|r| format!("{}: not for a real kernel: {:?}", s.name, r.0))?;
    let calls: Vec<Call> = armrest_plan::record::record(&plan)
        .iter()
        .map(|r| Call {
            step: armrest_plan::words::step_name(r.step),
            name: armrest_plan::words::call_name(r.nr),
            nr: u64::from(r.nr),
            args: r.args.iter().map(|&a| u64::from(a)).collect(),
        })
        .collect();
    costs::made(&calls, plan.sources.len(), live)
}

fn blob(home: &Path, all: &[Measured]) -> Result<String, Fail> {
    let bin = fs::read(home.join("target/armrest.bin"))?;
    let elf = fs::read(home.join("target/armrest.elf"))?;
    let sizes = blob_check::check(&elf, &bin, blob_check::DEFAULT_BUDGET).map_err(|f| {
        f.iter()
            .map(|f| format!("blob-check: {f}\n"))
            .collect::<String>()
    })?;
    let header = armrest_abi_stack(&bin)?;
    let most = all
        .iter()
        .max_by_key(|m| m.counted.stack)
        .ok_or("nothing measured")?;
    let budget = u64::from(blob_check::DEFAULT_BUDGET);
    let used = u64::from(sizes.rx_used);
    let mut t = Table::new(&["the blob", "bytes", "goal", ""]);
    t.row(&[
        "file armrest.bin".to_owned(),
        thousands(u64::try_from(bin.len())?),
        String::new(),
        String::new(),
    ]);
    t.row(&[
        "code and constants".to_owned(),
        thousands(used),
        thousands(budget),
        met(used <= budget).to_owned(),
    ]);
    t.row(&[
        "data, whole pages".to_owned(),
        thousands(u64::from(sizes.rw_size)),
        "4,096".to_owned(),
        met(sizes.rw_size <= 4096).to_owned(),
    ]);
    // blob-check has refused it otherwise.
    t.row(&[
        "relocations, GOT entries, undefined symbols".to_owned(),
        "0".to_owned(),
        "0".to_owned(),
        met(true).to_owned(),
    ]);
    t.row(&[
        format!("stack, high-water mark (`{}`)", most.name),
        thousands(most.counted.stack),
        thousands(header),
        met(most.counted.stack <= header).to_owned(),
    ]);
    Ok(format!("## Blob\n\n{}\n", t.text()))
}

/// Stack that the blob's header asks for.
fn armrest_abi_stack(bin: &[u8]) -> Result<u64, Fail> {
    let at = std::mem::offset_of!(armrest_abi::BlobHeader, stack_size);
    let word = bin.get(at..at + 4).and_then(|b| b.try_into().ok());
    Ok(u64::from(u32::from_le_bytes(word.ok_or("no blob header")?)))
}

fn calls(all: &[Measured]) -> String {
    let mut t = Table::new(&[
        "checkpoint",
        "VMAs",
        "calls",
        "map",
        "goal",
        "protect",
        "goal",
        "preadv",
        "goal",
        "SysV",
        "goal",
        "fixed",
        "goal",
        "helpers",
        "goals",
        "calls on 6.1",
        "fixed on 6.1",
    ]);
    for m in all {
        let (g, c) = (&m.goal, &m.made);
        let pairs = [
            ("map", c.maps, g.maps),
            ("protect", c.protects, g.protects),
            ("preadv", c.reads, g.reads),
            ("SysV", c.sysv, g.sysv),
            ("fixed", c.fixed, FIXED_GOAL),
        ];
        let missed: Vec<&str> = pairs.iter().filter(|p| p.1 > p.2).map(|p| p.0).collect();
        let mut row = vec![m.name.clone(), thousands(m.vmas), thousands(c.total)];
        row.extend(pairs.iter().flat_map(|p| [thousands(p.1), thousands(p.2)]));
        row.extend([
            thousands(c.helpers),
            if missed.is_empty() {
                met(true).to_owned()
            } else {
                format!("{}: {}", met(false), missed.join(", "))
            },
            thousands(m.real.total),
            thousands(m.real.fixed),
        ]);
        t.row(&row);
    }
    let names = |made: &Made| made.fixed_names.join(", ");
    let fixed = all.first().map_or(String::new(), |m| {
        format!(
            "Fixed under qemu-arm: {}.\n\nFixed on Debian 12's kernel 6.1, as planned there (goal {FIXED_GOAL}: {}): {}.\n",
            names(&m.made),
            met(m.real.fixed <= FIXED_GOAL),
            names(&m.real)
        )
    });
    format!("## System calls of the blob\n\n{}\n{fixed}\n", t.text())
}

fn instructions(all: &[Measured]) -> Result<String, Fail> {
    let of = |name: &str| {
        let m = all.iter().find(|m| m.name == name);
        m.map(|m| m.counted.instructions).ok_or("not measured")
    };
    let mut t = Table::new(&["checkpoint", "instructions", "calls", "per call", "per VMA"]);
    for m in all {
        let n = m.counted.instructions;
        t.row(&[
            m.name.clone(),
            thousands(n),
            thousands(m.made.total),
            per(n, m.made.total),
            per(n, m.vmas),
        ]);
    }
    let (base, bare, runs) = (of("counter")?, of("bare 10,000")?, of("runs 10,000")?);
    let (small, big) = (of("1 MiB")?, of("129 MiB")?);
    let many = u64::from(MANY);
    let less = |a: u64, b: u64| a.saturating_sub(b);
    let mut each = Table::new(&["one more", "instructions", "from"]);
    each.row(&[
        "VMA".to_owned(),
        per(less(bare, base), many),
        "(bare - counter) / 10,000".to_owned(),
    ]);
    each.row(&[
        "run of pages".to_owned(),
        per(less(runs, bare), many / 2),
        "(runs - bare) / 5,000".to_owned(),
    ]);
    each.row(&[
        "MiB in one run".to_owned(),
        per(less(big, small), 128),
        "(129 MiB - 1 MiB) / 128: three more preadv, nothing per page".to_owned(),
    ]);
    Ok(format!(
        "## Instructions\n\n{}\n{}\n",
        t.text(),
        each.text()
    ))
}

fn user_copies(all: &[Measured]) -> String {
    let sum = |f: fn(&Counted) -> u64| all.iter().map(|m| f(&m.counted)).sum::<u64>();
    let stores = sum(|c| c.stores_outside);
    let loads = sum(|c| c.loads_outside);
    let mut t = Table::new(&["user code, all checkpoints above", "number", "goal", ""]);
    t.row(&[
        "bytes copied per page".to_owned(),
        if stores == 0 {
            "0".into()
        } else {
            "some".into()
        },
        "0".to_owned(),
        met(stores == 0).to_owned(),
    ]);
    t.row(&[
        "stores to the restored program's memory".to_owned(),
        thousands(stores),
        "0".to_owned(),
        met(stores == 0).to_owned(),
    ]);
    t.row(&[
        "loads from it".to_owned(),
        thousands(loads),
        "0".to_owned(),
        met(loads == 0).to_owned(),
    ]);
    format!("## Bytes copied by user code\n\n{}\n", t.text())
}

fn executable(bench: &Bench, all: &[Measured]) -> Result<String, Fail> {
    let bytes = fs::read(&bench.armrest)?;
    let size = u64::try_from(bytes.len())?;
    let file = object::File::parse(bytes.as_slice())?;
    let section = |name: &str| file.section_by_name(name).map_or(0, |s| s.size());
    let memory = |name: &str| {
        let m = all.iter().find(|m| m.name == name);
        m.map_or(0, |m| m.counted.harness_bytes)
    };
    let mut t = Table::new(&["the static executable", "bytes", "goal", ""]);
    t.row(&[
        "file".to_owned(),
        thousands(size),
        thousands(EXECUTABLE_GOAL),
        met(size <= EXECUTABLE_GOAL).to_owned(),
    ]);
    for name in [
        ".text_libc",
        ".text_child",
        ".text",
        ".text_seldom",
        ".rodata",
        ".ARM.extab",
        ".ARM.exidx",
        ".data.rel.ro",
        ".data",
        ".bss",
    ] {
        t.row(&[
            format!("{name} of it"),
            thousands(section(name)),
            String::new(),
            String::new(),
        ]);
    }
    for name in ["counter", "memory", "full 10,000", "1 MiB", "129 MiB"] {
        t.row(&[
            format!("break and mappings at their peak, `{name}`"),
            thousands(memory(name)),
            String::new(),
            String::new(),
        ]);
    }
    let flat = memory("129 MiB") <= memory("1 MiB");
    t.row(&[
        "pages read into the harness: 129 MiB takes no more than 1 MiB".to_owned(),
        "0".to_owned(),
        "0".to_owned(),
        met(flat).to_owned(),
    ]);
    Ok(format!("## Executable\n\n{}\n", t.text()))
}

/// Replace what lies between the two marks.
fn put(doc: &Path, text: &str) -> Result<(), Fail> {
    let old = fs::read_to_string(doc)?;
    let (head, rest) = old
        .split_once(BEGIN)
        .ok_or("docs/benchmarks.md has no first mark")?;
    let (_, tail) = rest
        .split_once(END)
        .ok_or("docs/benchmarks.md has no last mark")?;
    fs::write(
        doc,
        format!("{head}{BEGIN}\n\n{}\n\n{END}{tail}", text.trim_end()),
    )?;
    Ok(())
}
