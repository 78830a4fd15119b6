//! A real ARMv7 kernel in qemu-system-arm: `vm test`, `vm run`, `vm shell`. See docs/vm.md.

mod bench;
mod boot;
mod cpio;
mod list;
mod machine;
mod packages;

use machine::{Event, Job, Machine, Places};
use std::collections::VecDeque;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const USAGE: &str =
    "usage: vm test [-v] [-j JOBS] [--list PLACE] [NAME…]    run the tests (those whose names contain a NAME)
       vm bench                               measure: ratios, and the harness's memory
       vm run [--share DIR] [--time SECONDS] -- CMD…
       vm shell
ARMREST names the program to test (target/armrest).";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let status = match words.split_first() {
        Some((&"test", rest)) => test(rest),
        Some((&"bench", [])) => bench::run(),
        Some((&"run", rest)) => run(rest),
        Some((&"shell", [])) => shell(),
        _ => Err(USAGE.to_owned()),
    };
    status.unwrap_or_else(|e| {
        eprintln!("vm: {e}");
        ExitCode::from(125)
    })
}

fn shell() -> Result<ExitCode, String> {
    eprintln!("vm: `exit` or ctrl-a x ends it");
    Machine::boot(&Places::new()?, &Job::Shell)?;
    Ok(ExitCode::SUCCESS)
}

/// Quotes a word for the shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn run(words: &[&str]) -> Result<ExitCode, String> {
    let (mut share, mut seconds, mut rest) = (None, 600, words);
    let command = loop {
        match rest {
            ["--share", dir, tail @ ..] => {
                share = Some(PathBuf::from(dir));
                rest = tail;
            }
            ["--time", n, tail @ ..] => {
                seconds = n.parse().map_err(|_| format!("--time {n}: not a number"))?;
                rest = tail;
            }
            ["--", tail @ ..] if !tail.is_empty() => break tail,
            _ => return Err(USAGE.to_owned()),
        }
    };
    if let Some(dir) = &share
        && !dir.is_dir()
    {
        return Err(format!("{}: no folder", dir.display()));
    }
    let script = format!(
        "exec {}\n",
        command
            .iter()
            .map(|w| quoted(w))
            .collect::<Vec<_>>()
            .join(" ")
    );
    let places = Places::new()?;
    let mut machine = Machine::boot(&places, &Job::Run(script, share.as_deref()))?;
    let status = follow(&mut machine, Duration::from_secs(seconds), &mut |bytes| {
        let mut out = std::io::stdout();
        out.write_all(bytes).and_then(|()| out.flush())
    })?;
    Ok(ExitCode::from(status))
}

/// Follows one command to its end: gives its output away and returns its exit status.
fn follow(
    machine: &mut Machine,
    most: Duration,
    output: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<u8, String> {
    let until = Instant::now() + most;
    let mut section = String::new();
    loop {
        match machine.next(until.saturating_duration_since(Instant::now())) {
            Event::Output(bytes) if section == "ready" => {
                output(&bytes).map_err(|e| e.to_string())?;
            }
            Event::Output(_) => {}
            Event::Line(words) => match words
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .as_slice()
            {
                ["done", status] => {
                    return status.parse().map_err(|_| format!("status {status}?"));
                }
                ["noshare", why @ ..] => {
                    return Err(format!(
                        "the shared folder cannot be mounted in the machine: {} (target/vm/console.log)",
                        why.join(" ")
                    ));
                }
                [word, ..] => section = (*word).to_owned(),
                [] => {}
            },
            Event::Late => {
                return Err(format!(
                    "not done in {} s; switched off (target/vm/console.log)",
                    most.as_secs()
                ));
            }
            Event::Off => {
                return Err(
                    "the machine stopped before the command ended (target/vm/console.log)"
                        .to_owned(),
                );
            }
        }
    }
}

fn test(words: &[&str]) -> Result<ExitCode, String> {
    let (mut verbose, mut wanted, mut list, mut rest) = (false, Vec::new(), None, words);
    let mut jobs = None;
    while let Some((word, tail)) = rest.split_first() {
        rest = tail;
        match *word {
            "-v" => verbose = true,
            "--list" => {
                let (file, tail) = rest.split_first().ok_or(USAGE)?;
                list = Some(PathBuf::from(file));
                rest = tail;
            }
            "-j" => {
                let (number, tail) = rest.split_first().ok_or(USAGE)?;
                jobs = Some(number.parse().map_err(|_| USAGE)?);
                rest = tail;
            }
            option if option.starts_with('-') => return Err(format!("{option}?\n{USAGE}")),
            name => wanted.push(name),
        }
    }
    let places = Places::new()?;
    let all = match list {
        Some(path) => list::read(&path)?,
        None => {
            let mut all = list::read(&places.root.join("tools/vm/guest/tests"))?;
            all.extend(list::samples(&places.root.join("tests/images"))?);
            all
        }
    };
    let count = all.len();
    let chosen: Vec<_> = all
        .into_iter()
        .filter(|(name, ..)| wanted.is_empty() || wanted.iter().any(|w| name.contains(w)))
        .collect();
    if chosen.is_empty() {
        return Err("no test of such a name".to_owned());
    }
    let jobs = jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let jobs = jobs.clamp(1, chosen.len());
    println!(
        "running {} tests on a real ARMv7 kernel, {jobs} at a time",
        chosen.len()
    );
    let host = boot::Host::now();
    let (mut results, boots) = run_all(&places, &chosen, jobs, verbose);
    let (outcome, how) = boot::judge(&host, jobs, &boots);
    println!("test {} ... {how}", boot::TEST);
    results.push((boot::TEST.to_owned(), outcome));
    let count_of = |what: Outcome| results.iter().filter(|r| r.1 == what).count();
    let failed: Vec<&str> = results
        .iter()
        .filter(|r| r.1 == Outcome::Bad)
        .map(|(name, _)| name.as_str())
        .collect();
    if !failed.is_empty() {
        println!("\nfailures:\n    {}", failed.join("\n    "));
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; {} ignored; 0 measured; {} filtered out",
        if failed.is_empty() { "ok" } else { "FAILED" },
        count_of(Outcome::Good),
        failed.len(),
        count_of(Outcome::Refused),
        count - chosen.len(),
    );
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// How much longer than its limit a test may take: others may use the host too.
const PATIENCE: u64 = 3;

/// A test: name, seconds, script.
type Test = (String, u64, String);

/// Runs the tests in so many machines. Each takes the next one when it has done one; those that may take longest go first.
/// And how long each took to its first test.
fn run_all(
    places: &Places,
    chosen: &[Test],
    jobs: usize,
    verbose: bool,
) -> (Vec<(String, Outcome)>, Vec<Duration>) {
    let boots = Mutex::new(Vec::new());
    let mut order: Vec<&Test> = chosen.iter().collect();
    order.sort_by_key(|t| std::cmp::Reverse(t.1));
    let queue = Mutex::new(VecDeque::from(order));
    let (queue, boots_of) = (&queue, &boots);
    let mut results: Vec<_> = std::thread::scope(|scope| {
        let mut all = Vec::new();
        for number in 0..jobs {
            match Machine::boot(places, &Job::Tests(chosen, number)) {
                // At once: the next one takes a while to come.
                Ok(mut m) => all.push(scope.spawn(move || watch(&mut m, queue, boots_of, verbose))),
                Err(e) => println!("vm: no machine: {}", e.trim_end()),
            }
        }
        all.into_iter()
            .flat_map(|t| t.join().unwrap_or_default())
            .collect()
    });
    for (name, ..) in chosen {
        if !results.iter().any(|(n, _)| n == name) {
            println!("test {name} ... FAILED: never ended");
            results.push((name.clone(), Outcome::Bad));
        }
    }
    (results, boots.into_inner().unwrap_or_default())
}

/// What became of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It passed.
    Good,
    /// It failed, or was killed after its time, or never came to its end.
    Bad,
    /// A sample that armrest refuses by name: nothing is shown.
    Refused,
}

/// The status of such a test; see `sample` in `guest/lib.sh`.
const REFUSED: &str = "77";

/// Follows a machine through the tests that it takes from the queue. Those that no machine came to the end of have failed.
fn watch(
    machine: &mut Machine,
    queue: &Mutex<VecDeque<&Test>>,
    boots: &Mutex<Vec<Duration>>,
    verbose: bool,
) -> Vec<(String, Outcome)> {
    let mut results: Vec<(String, Outcome)> = Vec::new();
    let (mut output, mut begun, mut finished) = (Vec::new(), None, false);
    loop {
        // The machine itself kills a test that takes too long; we only wait for a machine that hangs.
        let limit = begun.map_or(60, |(t, _): (&Test, Instant)| t.1 * PATIENCE + 20);
        match machine.next(Duration::from_secs(limit)) {
            Event::Output(bytes) => {
                output.extend_from_slice(&bytes);
                if begun.is_some_and(|(_, at)| at.elapsed().as_secs() > limit) {
                    println!("the machine hangs although it speaks");
                    break;
                }
            }
            Event::Line(words) => match words
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .as_slice()
            {
                ["ready"] => {
                    let age = machine.age();
                    println!("booted in {:.1} s", age.as_secs_f32());
                    if let Ok(mut all) = boots.lock() {
                        all.push(age);
                    }
                }
                ["next"] => {
                    let next = queue.lock().ok().and_then(|mut q| q.pop_front());
                    begun = next.map(|t| (t, Instant::now()));
                    output.clear();
                    machine.tell(&match next {
                        Some((name, limit, _)) => format!("{} {name}", limit * PATIENCE),
                        None => "done".to_owned(),
                    });
                }
                ["end", name, status] => {
                    let outcome = match *status {
                        "0" => Outcome::Good,
                        REFUSED => Outcome::Refused,
                        _ => Outcome::Bad,
                    };
                    let seconds = begun
                        .take()
                        .map_or(0.0, |(_, at)| at.elapsed().as_secs_f32());
                    let how = match *status {
                        "0" => "ok".to_owned(),
                        REFUSED => "ignored: refused by name".to_owned(),
                        "late" => "FAILED: killed after its time".to_owned(),
                        status => format!("FAILED: status {status}"),
                    };
                    let mut text = format!("test {name} ... {how} ({seconds:.1} s)\n");
                    if verbose || outcome != Outcome::Good {
                        text += &indented(&output);
                    }
                    // At once: another machine speaks too.
                    print!("{text}");
                    results.push(((*name).to_owned(), outcome));
                    output.clear();
                }
                ["done", ..] => {
                    finished = machine.off();
                    if !finished {
                        println!("the machine does not switch itself off");
                    }
                    break;
                }
                _ => {}
            },
            Event::Late => {
                println!("the machine says nothing any more");
                break;
            }
            Event::Off => break,
        }
    }
    if !finished {
        let log = machine.log.display();
        let words = indented(&output);
        print!("the machine stopped too early; its last words (all of them: {log}):\n{words}");
    }
    results
}

fn indented(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.lines().map(|line| format!("    {line}\n")).collect()
}
