//! `vm bench`: what a restore costs on a real kernel, as ratios to C programs that do the same in the same run.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bench::Fail;
use bench::generate::{self, Added, Contents};
use bench::grow;
use bench::table::Table;

use crate::follow;
use crate::machine::{Job, Machine, Places};

/// The generated checkpoints.
const INPUTS: [(&str, &str, Added); 5] = [
    ("big", "counter", Added::OneVma(51_200)),
    ("full", "counter", Added::OnePage(10_000, Contents::All)),
    (
        "runs",
        "counter",
        Added::OnePage(10_000, Contents::Every2nd),
    ),
    ("many", "counter", Added::OnePage(65_000, Contents::All)),
    ("forked", "forked", Added::OneVma(16_384)),
];

/// A sample grown to three sizes, each of which is twice the one before: its name, what is counted, and what is grown.
struct Grown {
    sample: &'static str,
    of: &'static str,
    sizes: [u16; 3],
    write: fn(&Path, &Path, u16) -> Result<(), Fail>,
}

const GROWN: [Grown; 2] = [
    Grown {
        sample: "troop8",
        of: "tasks",
        sizes: [50, 100, 200],
        write: |from, to, n| grow::troop(from, to, u32::from(n)),
    },
    Grown {
        sample: "crowd",
        of: "threads",
        sizes: [250, 500, 1000],
        write: |from, to, n| grow::crowd(from, to, usize::from(n)),
    },
];

/// A folder that goes when it is dropped.
struct Inputs(PathBuf);

impl Drop for Inputs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Writes the inputs. Of the pages files only what the sample had: the machine makes the rest, as it is told in `gap`.
fn inputs(places: &Places) -> Result<Inputs, Fail> {
    let images = places.root.join("tests/images");
    let counter = images.join("counter");
    let all = Inputs(places.cache.join(format!("bench.{}", std::process::id())));
    fs::create_dir_all(all.0.join("counter"))?;
    for entry in fs::read_dir(&counter)? {
        let path = entry?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name()) {
            fs::copy(&path, all.0.join("counter").join(name))?;
        }
    }
    for (name, of, added) in INPUTS {
        let dir = all.0.join(name);
        let mut list = String::new();
        for gap in generate::write(&images.join(of), &dir, added)? {
            let whole = dir.join(&gap.file);
            let mut file = File::open(&whole)?;
            let (mut head, mut tail) = (Vec::new(), Vec::new());
            (&mut file).take(gap.at).read_to_end(&mut head)?;
            file.seek(SeekFrom::Start(gap.at + gap.len))?;
            file.read_to_end(&mut tail)?;
            fs::remove_file(&whole)?;
            fs::write(dir.join(format!("{}.head", gap.file)), head)?;
            fs::write(dir.join(format!("{}.tail", gap.file)), tail)?;
            let _ = writeln!(list, "{} {}", gap.file, gap.len / 4096);
            fs::write(all.0.join(format!("{name}.at")), format!("{}\n", gap.at))?;
        }
        fs::write(dir.join("gap"), list)?;
    }
    for g in GROWN {
        for n in g.sizes {
            (g.write)(
                &images.join(g.sample),
                &all.0.join(format!("{}{n}", g.of)),
                n,
            )?;
        }
    }
    Ok(all)
}

/// What was measured of a case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Case {
    base: Vec<u64>,
    restore: Vec<u64>,
    lazy: Vec<u64>,
    peak: u64,
    failed: u64,
}

fn cases(text: &str, name: &str) -> Result<Case, Fail> {
    let mut case = Case::default();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["@", of, what, numbers @ ..] = words.as_slice() else {
            continue;
        };
        if *of != name {
            continue;
        }
        let numbers = numbers
            .iter()
            .map(|n| n.parse())
            .collect::<Result<Vec<u64>, _>>()?;
        match (*what, numbers.as_slice()) {
            ("base", []) => {}
            ("base", [ns]) => case.base.push(*ns),
            ("restore", [ns, peak]) => {
                case.restore.push(*ns);
                case.peak = case.peak.max(*peak);
            }
            ("failed", []) => case.failed += 1,
            ("lazy", [ns, _]) => case.lazy.push(*ns),
            _ => return Err(format!("{line}: not understood").into()),
        }
    }
    Ok(case)
}

fn median(values: &[u64]) -> Result<f64, Fail> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let middle = sorted
        .get(sorted.len() / 2)
        .ok_or("a measurement is missing")?;
    Ok(u32::try_from(middle / 1000).map(f64::from)? / 1000.0)
}

/// The median of the ratios of neighbours: what slows the machine down for a while slows both.
fn ratio(restore: &[u64], base: &[u64]) -> Result<f64, Fail> {
    if base.is_empty() || restore.len() != base.len() {
        return Err("a measurement is missing".into());
    }
    let mut all = Vec::new();
    for (r, b) in restore.iter().zip(base) {
        all.push(median(&[*r])? / median(&[*b])?.max(0.001));
    }
    all.sort_by(f64::total_cmp);
    Ok(all[all.len() / 2])
}

/// As much may a task or thread of many cost, compared with one of few, to be called linear.
const LINEAR: f64 = 1.1;

fn verdict(good: bool) -> String {
    if good { "met" } else { "**not met**" }.to_owned()
}

fn tables(text: &str) -> Result<String, Fail> {
    let mut times = Table::new(&["restore", "ms", "compared with", "ms", "ratio", "goal", ""]);
    for (name, what, base, goal) in [
        (
            "counter",
            "`counter`",
            "fork + exec of hello, and its pages read",
            2.0,
        ),
        ("big", "200 MiB in one VMA", "mmap, preadv", 1.05),
        (
            "full",
            "10,000 one-page VMAs, contents in all",
            "the same mmap2, preadv, mprotect",
            1.1,
        ),
        (
            "runs",
            "10,000 one-page VMAs, contents in every second",
            "the same mmap2, preadv",
            1.1,
        ),
    ] {
        let case = cases(text, name)?;
        let r = ratio(&case.restore, &case.base)?;
        times.row(&[
            what.to_owned(),
            format!("{:.1}", median(&case.restore)?),
            base.to_owned(),
            format!("{:.1}", median(&case.base)?),
            format!("{r:.2}"),
            format!("{goal}"),
            verdict(r <= goal),
        ]);
    }
    let big = cases(text, "big")?;
    if !big.lazy.is_empty() {
        let r = ratio(&big.lazy, &big.restore)?;
        times.row(&[
            "200 MiB, `--lazy`".to_owned(),
            format!("{:.1}", median(&big.lazy)?),
            "200 MiB in one VMA".to_owned(),
            format!("{:.1}", median(&big.restore)?),
            format!("{r:.3}"),
            "0.05".to_owned(),
            verdict(r <= 0.05),
        ]);
    }
    let mut memory = Table::new(&["peak memory of the harness", "KiB", "goal", ""]);
    for (name, what, goal) in [
        ("counter", "`counter`", None),
        ("big", "200 MiB", Some(2048)),
        ("full", "10,000 VMAs", None),
        ("many", "65,000 VMAs", Some(16384)),
    ] {
        let peak = cases(text, name)?.peak;
        if peak == 0 {
            return Err(format!("{name}: no peak").into());
        }
        memory.row(&[
            what.to_owned(),
            peak.to_string(),
            goal.map_or_else(String::new, |g: u64| g.to_string()),
            goal.map_or_else(String::new, |g| verdict(peak <= g)),
        ]);
    }
    let forked = cases(text, "forked")?;
    let (before, after) = match (forked.base.as_slice(), forked.restore.as_slice()) {
        ([before], [after]) => (u32::try_from(*before)?, u32::try_from(*after)?),
        _ => return Err("forked: a measurement is missing".into()),
    };
    let r = f64::from(after) / f64::from(before.max(1));
    let mut shared = Table::new(&[
        "physical memory",
        "KiB",
        "the program itself, KiB",
        "ratio",
        "goal",
        "",
    ]);
    shared.row(&[
        "8 workers and a worker's child over 64 MiB".to_owned(),
        after.to_string(),
        before.to_string(),
        format!("{r:.2}"),
        "1.1".to_owned(),
        verdict(r <= 1.1),
    ]);
    Ok(format!(
        "\n{}\n{}\n{}\n{}",
        times.text(),
        memory.text(),
        shared.text(),
        growth(text)?
    ))
}

/// What a restore costs for each task or thread, when there are few and when there are four times as many. Where the
/// time is linear, the ratio is 1 at most: what does not grow is shared by more.
fn growth(text: &str) -> Result<String, Fail> {
    let mut table = Table::new(&[
        "restore of",
        "ms",
        "ms for each",
        "ratio to the first",
        "goal",
        "",
    ]);
    for g in GROWN {
        let name = |n: u16| format!("{}{n}", g.of);
        let first = cases(text, &name(g.sizes[0]))?;
        for n in g.sizes {
            let case = cases(text, &name(n))?;
            let ms = median(&case.restore)?;
            let r = ms / median(&first.restore)? / (f64::from(n) / f64::from(g.sizes[0]));
            let judged = n != g.sizes[0];
            table.row(&[
                format!("{n} {}", g.of),
                format!("{ms:.1}"),
                format!("{:.3}", ms / f64::from(n)),
                format!("{r:.2}"),
                if judged {
                    format!("{LINEAR}")
                } else {
                    String::new()
                },
                match case.failed {
                    0 if judged => verdict(r <= LINEAR),
                    0 => String::new(),
                    n => format!("**{n} failed**"),
                },
            ]);
        }
    }
    Ok(table.text())
}

fn measure(places: &Places, script: &str, made: &Path) -> Result<String, Fail> {
    let mut machine = Machine::boot(places, &Job::Bench(script, made))?;
    let mut text = Vec::new();
    let status = follow(&mut machine, Duration::from_secs(900), &mut |bytes| {
        text.extend_from_slice(bytes);
        std::io::stderr().write_all(bytes)
    })?;
    if status != 0 {
        return Err(format!("the bench in the machine ended with {status}").into());
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn all() -> Result<(), Fail> {
    let places = Places::new()?;
    let script = fs::read_to_string(places.root.join("tools/vm/guest/bench.sh"))?;
    let made = inputs(&places)?;
    let text = measure(&places, &script, &made.0)?;
    println!("{}", tables(&text)?);
    Ok(())
}

/// Measures and prints the tables.
pub fn run() -> Result<ExitCode, String> {
    all().map(|()| ExitCode::SUCCESS).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines_become_ratios() {
        let text = "x\n@ a base 1000000\n@ a restore 3000000 900\n@ b base 5\n@ a base 2000000\n@ a restore 3000000 800\n";
        let case = super::cases(text, "a").unwrap();
        assert_eq!(
            (case.base.len(), case.restore.len(), case.peak),
            (2, 2, 900)
        );
        let r = super::ratio(&case.restore, &case.base).unwrap();
        assert!((r - 3.0).abs() < 0.01, "{r}");
        assert!(super::ratio(&case.restore, &[]).is_err());
        assert!(super::cases("@ a restore 1", "a").is_err());
        let mut text = String::new();
        for (name, ms) in [
            ("tasks50", 100),
            ("tasks100", 180),
            ("tasks200", 900),
            ("threads250", 25),
            ("threads500", 50),
            ("threads1000", 100),
        ] {
            text += &format!("@ {name} restore {ms}000000 900\n");
        }
        text += "@ threads500 failed\n";
        let table = super::growth(&text).unwrap();
        let row = |of: &str| table.lines().find(|l| l.contains(of)).unwrap();
        assert!(row("100 tasks").contains("0.90") && row("100 tasks").contains(" met"));
        assert!(row("200 tasks").contains("2.25") && row("200 tasks").contains("not met"));
        assert!(row("1000 threads").contains("1.00"));
        assert!(row("500 threads").contains("1 failed"));
        assert!(super::growth("").is_err());
    }
}
