//! Debian's packages for the machine: its kernel and a static busybox, by an apt that knows nothing of the host's.
//!
//! The host's sources are copied and its keyrings are read; its package state, caches and architectures are not touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where the two files that matter are.
pub struct Packages {
    /// The compressed kernel.
    pub kernel: PathBuf,
    /// A static busybox.
    pub busybox: PathBuf,
    /// The folder of the kernel's modules.
    pub modules: PathBuf,
}

/// What the kernel needs to mount a folder of the host, in the order of loading. It is in none of its boot.
pub const SHARE_MODULES: [&str; 6] = [
    "fs/netfs/netfs.ko",
    "fs/fscache/fscache.ko",
    "net/9p/9pnet.ko",
    "net/9p/9pnet_virtio.ko",
    "fs/9p/9p.ko",
    "drivers/virtio/virtio_mmio.ko",
];

/// How often a fetch is tried, and how long to wait before the next time.
const TRIES: u32 = 4;
const WAIT: Duration = Duration::from_secs(10);

/// The kernel that is taken: Debian's for ARMv7, or what VM_KERNEL says, e.g. `armmp-lpae`.
fn flavour() -> String {
    std::env::var("VM_KERNEL").unwrap_or_else(|_| USUAL.into())
}

const USUAL: &str = "armmp";

/// The packages, fetched and unpacked below `cache` unless they are there already.
pub fn packages(cache: &Path) -> Result<Packages, String> {
    let flavour = flavour();
    let unpacked = match &*flavour {
        USUAL => cache.join("packages"),
        other => cache.join(format!("packages.{other}")),
    };
    if !unpacked.is_dir() {
        again(|| fetch(cache, &unpacked, &flavour))
            .map_err(|e| format!("Debian's ARMv7 kernel and busybox cannot be had: {e}"))?;
    }
    let boot = unpacked.join("boot");
    let kernel = fs::read_dir(&boot)
        .map_err(|e| format!("{}: {e}", boot.display()))?
        .filter_map(|e| e.ok().map(|e| e.path()))
        .find(|p| {
            p.file_name()
                .and_then(|n| n.to_str())
                .is_some_and(|n| n.starts_with("vmlinuz-"))
        })
        .ok_or_else(|| format!("{}: no kernel in it", boot.display()))?;
    let release = kernel
        .file_name()
        .and_then(|n| n.to_str())
        .and_then(|n| n.strip_prefix("vmlinuz-"))
        .unwrap_or_default();
    Ok(Packages {
        modules: unpacked.join("lib/modules").join(release),
        kernel,
        busybox: unpacked.join("bin/busybox"),
    })
}

/// Mirrors have bad moments.
fn again(fetch: impl Fn() -> Result<(), String>) -> Result<(), String> {
    let mut tries = 1;
    loop {
        match fetch() {
            Err(e) if tries < TRIES => {
                eprintln!(
                    "vm: {}\nvm: trying again in {} s",
                    e.trim_end(),
                    WAIT.as_secs()
                );
                std::thread::sleep(WAIT);
                tries += 1;
            }
            done => return done,
        }
    }
}

fn fetch(cache: &Path, unpacked: &Path, flavour: &str) -> Result<(), String> {
    let meant = format!("linux-image-{flavour}");
    let apt = Apt::new(&cache.join("apt"))?;
    eprintln!(
        "vm: fetching Debian's kernel and busybox for armhf (once; kept in {})",
        cache.display()
    );
    // An index that the mirror cannot give need not be one that we want: the downloads below tell. What apt cannot
    // check by a signature it does not take.
    if let Err(e) = apt.run(&["apt-get", "-q", "update"], &apt.dir) {
        eprintln!(
            "vm: warning: not all package lists could be fetched:\n{}",
            e.trim_end()
        );
    }
    let meta = apt.run(
        &["apt-cache", "--no-all-versions", "show", &meant],
        &apt.dir,
    )?;
    let image = meta
        .lines()
        .filter_map(|l| l.strip_prefix("Depends: "))
        .flat_map(|l| l.split([',', ' ', '|']))
        .find(|w| w.starts_with("linux-image-"))
        .ok_or_else(|| format!("{meant} depends on no kernel"))?
        .to_owned();
    let debs = cache.join("debs");
    fresh(&debs)?;
    apt.run(
        &["apt-get", "-q", "download", &image, "busybox-static"],
        &debs,
    )?;
    let new = cache.join("packages.new");
    fresh(&new)?;
    for entry in fs::read_dir(&debs).map_err(|e| format!("{}: {e}", debs.display()))? {
        let path = entry.map_err(|e| e.to_string())?.path();
        output(Command::new("dpkg-deb").arg("-x").arg(&path).arg(&new))?;
    }
    fs::rename(&new, unpacked).map_err(|e| format!("{}: {e}", unpacked.display()))
}

fn fresh(dir: &Path) -> Result<(), String> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(format!("{}: {e}", dir.display()));
        }
        _ => {}
    }
    fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))
}

struct Apt {
    dir: PathBuf,
    config: PathBuf,
}

impl Apt {
    fn new(dir: &Path) -> Result<Self, String> {
        let say = |e: std::io::Error| format!("{}: {e}", dir.display());
        let sources = dir.join("sources.list.d");
        fresh(&sources)?;
        for sub in [
            "state/lists/partial",
            "cache/archives/partial",
            "preferences.d",
        ] {
            fs::create_dir_all(dir.join(sub)).map_err(say)?;
        }
        fs::write(dir.join("state/status"), "").map_err(say)?;
        let mut hosts = vec![PathBuf::from("/etc/apt/sources.list")];
        if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
            hosts.extend(entries.filter_map(|e| e.ok().map(|e| e.path())));
        }
        for file in hosts {
            let wanted = file
                .extension()
                .is_some_and(|e| e == "list" || e == "sources");
            if let (true, Some(name)) = (wanted && file.is_file(), file.file_name()) {
                fs::copy(&file, sources.join(name))
                    .map_err(|e| format!("{}: {e}", file.display()))?;
            }
        }
        // Command-line options come after the host's own settings, so these win; keys and proxies stay the host's.
        // The hooks are cleared: some images clean the host's caches in them.
        let at = dir.display();
        let text = format!(
            "Dir::State \"{at}/state\";\nDir::State::status \"{at}/state/status\";\nDir::Cache \"{at}/cache\";\n\
             Dir::Etc::sourcelist \"/dev/null\";\nDir::Etc::sourceparts \"{at}/sources.list.d\";\n\
             Dir::Etc::preferences \"/dev/null\";\nDir::Etc::preferencesparts \"{at}/preferences.d\";\n\
             APT::Architecture \"armhf\";\n#clear APT::Architectures;\nAPT::Architectures {{ \"armhf\"; }};\n\
             #clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n\
             #clear APT::Update::Post-Invoke-Success;\n#clear DPkg::Post-Invoke;\n\
             APT::Get::AllowUnauthenticated \"false\";\nAcquire::AllowInsecureRepositories \"false\";\n\
             Acquire::Retries \"3\";\nAcquire::Languages \"none\";\nAPT::Sandbox::User \"\";\n",
        );
        let config = dir.join("apt.conf");
        fs::write(&config, text).map_err(say)?;
        Ok(Self {
            dir: dir.to_owned(),
            config,
        })
    }

    fn run(&self, words: &[&str], in_dir: &Path) -> Result<String, String> {
        let (program, rest) = words.split_first().ok_or("no command")?;
        output(
            Command::new(program)
                .arg("-c")
                .arg(&self.config)
                .args(rest)
                .current_dir(in_dir),
        )
    }
}

/// Standard output of a command; its errors as the error.
pub fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{name}: {e}"))?;
    if out.status.success() {
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    } else {
        Err(format!(
            "{name}: {}\n{}",
            out.status,
            String::from_utf8_lossy(&out.stderr)
        ))
    }
}
