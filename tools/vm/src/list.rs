//! The list of tests: `tools/vm/guest/tests`, one file a subject.

use std::path::Path;

/// The tests of a file, or of all files of a folder, in the order of their names.
pub fn read(place: &Path) -> Result<Vec<(String, u64, String)>, String> {
    let bad = |e: std::io::Error| format!("{}: {e}", place.display());
    if !place.is_dir() {
        return parse(&std::fs::read_to_string(place).map_err(bad)?);
    }
    let entries = std::fs::read_dir(place).map_err(bad)?;
    let mut files = entries
        .map(|e| Ok(e.map_err(bad)?.path()))
        .collect::<Result<Vec<_>, String>>()?;
    files.sort();
    let mut text = String::new();
    for file in files {
        text.push_str(&std::fs::read_to_string(&file).map_err(bad)?);
    }
    parse(&text)
}

/// Seconds that a sample may take.
const SAMPLE_LIMIT: u64 = 120;

/// One test a checkpoint of `images`: it PASSes, or armrest refuses it by name.
pub fn samples(images: &Path) -> Result<Vec<(String, u64, String)>, String> {
    let bad = |e: std::io::Error| format!("{}: {e}", images.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(images).map_err(bad)? {
        let entry = entry.map_err(bad)?;
        if entry.path().join("inventory.img").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    let test = |name: &String| {
        let script = format!("sample {name}\n");
        (format!("sample-{name}"), SAMPLE_LIMIT, script)
    };
    Ok(names.iter().map(test).collect())
}

/// Name, seconds and script of each test.
pub fn parse(text: &str) -> Result<Vec<(String, u64, String)>, String> {
    let mut tests: Vec<(String, u64, String)> = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        if let Some(head) = line.strip_prefix("== ") {
            let (name, limit) = head
                .split_once(' ')
                .ok_or_else(|| format!("tests:{number}: no limit"))?;
            let limit = limit
                .trim()
                .parse()
                .map_err(|_| format!("tests:{number}: limit {limit}"))?;
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if !name.chars().all(plain) || tests.iter().any(|t| t.0 == name) {
                return Err(format!("tests:{number}: name {name}"));
            }
            tests.push((name.to_owned(), limit, String::new()));
        } else if let Some(test) = tests.last_mut() {
            // `sh -e` does not end at such a line, whatever comes of it.
            if line.trim_start().starts_with("! ") && !line.contains("||") {
                return Err(format!("tests:{number}: `{line}` cannot fail: `no …`"));
            }
            test.2.push_str(line);
            test.2.push('\n');
        }
    }
    Ok(tests)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_list_is_read() {
        let tests = super::parse("# words\n\n== a 5\nx\ny\n== b-1 60\nz\n").unwrap();
        assert_eq!(
            tests,
            [
                ("a".into(), 5, "x\ny\n".into()),
                ("b-1".into(), 60, "z\n".into())
            ]
        );
        let cannot_fail = "== a 1\nfor x in y; do\n    ! grep x y\ndone\n";
        for bad in [
            "== a\n",
            "== a x\n",
            "== a/b 5\n",
            "== a 1\n== a 2\n",
            cannot_fail,
        ] {
            assert!(super::parse(bad).is_err(), "{bad}");
        }
        super::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/tests")).unwrap();
    }

    #[test]
    fn each_sample_has_a_test_and_each_name_that_must_be_restored_is_a_sample() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let tests = super::samples(&here.join("../../tests/images")).unwrap();
        assert!(tests.len() >= 19, "{tests:?}");
        let must = std::fs::read_to_string(here.join("guest/restored")).unwrap();
        for name in must.split_whitespace() {
            let test = format!("sample-{name}");
            assert!(tests.iter().any(|t| t.0 == test), "{name}: no such sample");
        }
    }
}
