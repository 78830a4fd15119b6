use super::*;

fn ask(words: &[&str]) -> Result<Asked, Bad> {
    asked(words.iter().map(OsString::from))
}

fn run(words: &[&str]) -> Command {
    match ask(words) {
        Ok(Asked::Run(command)) => command,
        other => panic!("{words:?}: {other:?}"),
    }
}

fn restore(words: &[&str]) -> RestoreOptions {
    match run(&[&["restore"], words].concat()) {
        Command::Restore(o) => *o,
        other => panic!("{other:?}"),
    }
}

/// A value that the argument takes.
fn value(arg: &table::Arg) -> &'static str {
    match arg.value {
        _ if !arg.choices.is_empty() => arg.choices[arg.choices.len() - 1],
        Some("fd[N]:ID") => "fd[3]:pipe[7]",
        _ => "7",
    }
}

/// What the command must have.
fn least(sub: &table::Sub) -> Vec<String> {
    let mut words = vec![sub.name.to_owned()];
    for option in sub.options.iter().filter(|o| o.required) {
        words.extend([format!("--{}", option.name), value(option).to_owned()]);
    }
    words.extend(sub.operands.iter().map(|o| value(o).to_owned()));
    words
}

fn parsed(words: &[String]) -> Command {
    run(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// An option of the table that nobody reads would do nothing.
#[test]
fn every_option_changes_what_is_asked() {
    for sub in &table::COMMANDS {
        let least = least(sub);
        for option in sub.options {
            let longs = [
                vec![format!("--{}", option.name), value(option).to_owned()],
                vec![format!("--{}={}", option.name, value(option))],
            ];
            let mut ways = match option.value {
                Some(_) => longs.to_vec(),
                None => vec![longs[0][..1].to_vec()],
            };
            if let Some(letter) = option.short {
                let value = option.value.map_or("", |_| value(option));
                ways.push(vec![format!("-{letter}{value}")]);
            }
            let without: Vec<String> = match least.iter().position(|w| *w == longs[0][0]) {
                Some(at) => [&least[..at], &least[at + 2..]].concat(),
                None => least.clone(),
            };
            let mut seen = Vec::new();
            for way in ways {
                let command = parsed(&[without.clone(), way].concat());
                if !option.required {
                    assert_ne!(command, parsed(&least), "{} {}", sub.name, option.name);
                }
                seen.push(command);
            }
            assert!(seen.windows(2).all(|w| w[0] == w[1]), "{seen:?}");
        }
    }
}

#[test]
fn short_options_stand_together_and_take_values() {
    let o = restore(&["-dvvD", "img", "-W=work", "-oout", "--"]);
    assert!(o.detached && !o.leave_stopped);
    assert_eq!(o.verbose, 2);
    assert_eq!(o.images, PathBuf::from("img"));
    assert_eq!(o.work_dir, Some(PathBuf::from("work")));
    assert_eq!(o.log_file, Some(PathBuf::from("out")));
    assert_eq!(restore(&["-D-", "-r", "-"]).root, Some(PathBuf::from("-")));
}

#[test]
fn repeated_options_add_up() {
    let o = restore(&[
        "--allow-changed",
        "/a",
        "-D",
        "x",
        "--allow-changed=/b",
        "--inherit-fd",
        "fd[5]:/dev/x",
    ]);
    assert_eq!(o.allow_changed, ["/a", "/b"]);
    assert_eq!(
        (o.inherit_fd[0].fd, o.inherit_fd[0].id.as_str()),
        (5, "/dev/x")
    );
}

#[test]
fn paths_need_not_be_utf8() {
    use std::os::unix::ffi::OsStringExt;
    let odd = OsString::from_vec(b"im\xffg".to_vec());
    let words = [OsString::from("x"), odd.clone(), OsString::from("mems")];
    let Ok(Asked::Run(Command::X(o))) = asked(words.into_iter()) else {
        panic!("not understood");
    };
    assert_eq!((o.images, o.what), (PathBuf::from(odd), What::Mems));
}

#[test]
fn mistakes_are_named() {
    for (words, said) in [
        (
            &["restore"][..],
            "required arguments were not provided: --images-dir <IMAGES>",
        ),
        (
            &["x", "img"],
            "required arguments were not provided: <WHAT>",
        ),
        (
            &["restore", "-D"],
            "a value is required for '--images-dir <IMAGES>'",
        ),
        (
            &["restore", "-D", "-d"],
            "a value is required for '--images-dir <IMAGES>'",
        ),
        (
            &["restore", "--root=", "-D", "x"],
            "a value is required for '--root <ROOT>'",
        ),
        (
            &["restore", "-D", "a", "-D", "b"],
            "cannot be used multiple times",
        ),
        (
            &["restore", "-dd", "-D", "a"],
            "'--restore-detached' cannot be used multiple times",
        ),
        (
            &["restore", "-D", "a", "b"],
            "unexpected argument 'b' found",
        ),
        (
            &["restore", "-D", "a", "-z"],
            "unexpected argument '-z' found",
        ),
        (&["check", "--json=1"], "unexpected value '1' for '--json'"),
        (
            &["restore", "-d=1"],
            "unexpected value '1' for '--restore-detached'",
        ),
        (
            &["restore", "-D", "a", "--timeout", "0"],
            "invalid value '0' for '--timeout <SECONDS>'",
        ),
        (
            &["restore", "-D", "a", "--status-fd", "2147483648"],
            "'--status-fd <FD>'",
        ),
        (
            &["restore", "-D", "a", "--inherit-fd", "5"],
            "not of the form fd[N]:ID",
        ),
        (
            &["restore", "-D", "a", "--finish", "so"],
            "[possible values: auto, sigpage, ptrace, page]",
        ),
        (
            &["verify", "-D", "a", "-t", "0"],
            "invalid value '0' for '--tree <PID>'",
        ),
        (&["restor"], "unrecognized subcommand 'restor'"),
        (&["--nonsense"], "unexpected argument '--nonsense' found"),
        (&[], "requires a subcommand"),
    ] {
        let what = ask(words).expect_err("a mistake");
        assert!(what.contains(said), "{words:?}: {what}");
    }
}

#[test]
fn help_comes_before_mistakes_after_it() {
    for words in [
        &["--help"][..],
        &["-V"],
        &["restore", "-h"],
        &["restore", "-dh", "--nonsense"],
        &["x", "--help"],
    ] {
        assert!(matches!(ask(words), Ok(Asked::Text(_))), "{words:?}");
    }
    assert!(ask(&["x", "a", "ps", "b", "--help"]).is_err());
}
