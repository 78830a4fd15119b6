//! `make dist`: the packages hold what was built, whole, with the right modes, and are the same each time.

use std::path::Path;
use std::process::Command;

/// Standard output of a command that must go well.
#[track_caller]
fn output(program: &str, args: &[&str], dir: &Path) -> Vec<u8> {
    let out = Command::new(program)
        .args(args)
        .current_dir(dir)
        .env("SOURCE_DATE_EPOCH", "1000000000")
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let words = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {args:?}: {words}");
    out.stdout
}

fn only(dir: &Path, end: &str) -> String {
    let mut names = std::fs::read_dir(dir).unwrap().filter_map(|e| {
        let name = e.unwrap().file_name().into_string().unwrap();
        name.ends_with(end).then_some(name)
    });
    let name = names.next().unwrap_or_else(|| panic!("no {end}"));
    assert_eq!(names.next(), None);
    name
}

#[test]
fn packages_hold_what_was_built() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [&one, &two] {
        output("tools/dist", &[dir.path().to_str().unwrap()], root);
    }
    let (deb, tar) = (only(one.path(), ".deb"), only(one.path(), ".tar.gz"));
    for name in [&deb, &tar] {
        let bytes = |d: &tempfile::TempDir| std::fs::read(d.path().join(name)).unwrap();
        assert!(bytes(&one) == bytes(&two), "{name} differs the second time");
    }

    // The members that dpkg wants, in its order.
    let members = output("ar", &["t", &deb], one.path());
    assert_eq!(
        String::from_utf8_lossy(&members),
        "debian-binary\ncontrol.tar.gz\ndata.tar.gz\n"
    );
    output("ar", &["x", &deb], one.path());
    for part in ["control", "data"] {
        std::fs::create_dir(one.path().join(part)).unwrap();
        let file = format!("{part}.tar.gz");
        output("tar", &["xpf", &file, "-C", part], one.path());
    }
    let control = std::fs::read_to_string(one.path().join("control/control")).unwrap();
    let version = concat!("Version: ", env!("CARGO_PKG_VERSION"), "\n");
    assert!(
        control.contains(version) && !control.contains("@SIZE@"),
        "{control}"
    );
    let data = one.path().join("data");
    output("md5sum", &["-c", "--quiet", "../control/md5sums"], &data);

    output("tar", &["xpf", &tar], one.path());
    let unpacked = one.path().join(tar.strip_suffix(".tar.gz").unwrap());
    output(
        "diff",
        &["-r", data.to_str().unwrap(), unpacked.to_str().unwrap()],
        one.path(),
    );

    use std::os::unix::fs::PermissionsExt;
    for (built, at, mode) in [
        ("target/armrest", "usr/bin/armrest", 0o755),
        ("target/armrest.bin", "usr/share/armrest/armrest.bin", 0o644),
        ("include/armrest.h", "usr/share/armrest/armrest.h", 0o644),
        (
            "dist/armrest@.service",
            "usr/share/doc/armrest/examples/armrest@.service",
            0o644,
        ),
    ] {
        let file = data.join(at);
        assert!(
            std::fs::read(root.join(built)).unwrap() == std::fs::read(&file).unwrap(),
            "{at}"
        );
        assert_eq!(
            file.metadata().unwrap().permissions().mode() & 0o777,
            mode,
            "{at}"
        );
    }
    unit(&data);
}

/// The unit in the package: systemd reads every line of it, and finds what it runs. The machine starts its program by it
/// (tools/vm/guest/tests/unit), with systemd or without.
fn unit(data: &Path) {
    let units = data.join("etc/systemd/system");
    std::fs::create_dir_all(&units).unwrap();
    let unit = units.join("armrest@.service");
    let text =
        std::fs::read_to_string(data.join("usr/share/doc/armrest/examples/armrest@.service"))
            .unwrap();
    // What the system has: `rm`, and the targets that every unit stands between.
    for target in ["sysinit", "basic", "shutdown", "local-fs"] {
        let text = format!("[Unit]\nDescription={target}\n");
        std::fs::write(units.join(format!("{target}.target")), text).unwrap();
    }
    std::fs::create_dir(data.join("bin")).unwrap();
    std::fs::copy(data.join("usr/bin/armrest"), data.join("bin/rm")).unwrap();
    let verify = |text: &str| {
        std::fs::write(&unit, text).unwrap();
        Command::new("systemd-analyze")
            .args(["verify", "--man=no", "armrest@counter.service"])
            .arg(format!("--root={}", data.display()))
            .output()
            .map(|out| (out.status.success(), out.stderr.is_empty(), out))
    };
    let Ok((good, silent, out)) = verify(&text) else {
        eprintln!("systemd-analyze is not here: the unit was not shown to systemd");
        return;
    };
    assert!(good && silent, "{out:?}");
    // It would tell.
    for (right, wrong) in [
        ("Restart=no", "Restrat=no"),
        ("Type=forking", "Type=frking"),
        ("=/usr/bin/armrest restore", "=/usr/bin/armrst restore"),
    ] {
        assert!(text.contains(right));
        let (good, silent, out) = verify(&text.replace(right, wrong)).unwrap();
        assert!(!(good && silent), "{wrong}: {out:?}");
    }
}
