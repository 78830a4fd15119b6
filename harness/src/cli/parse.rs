//! Words to the options of a command, as the table has them.

use std::ffi::{OsStr, OsString};
use std::ops::RangeInclusive;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::help;
use super::table::{Arg, Sub};

/// What was wrong, in a sentence for `armrest: usage:`.
pub type Bad = String;

/// What was given of a command's options and operands, in order.
#[derive(Debug)]
pub struct Given {
    sub: &'static Sub,
    words: Vec<(&'static Arg, OsString)>,
}

/// Read the words after the name of a command; nothing if help is wanted.
///
/// # Errors
/// Words that the command does not take, or that it lacks.
pub fn parse(
    sub: &'static Sub,
    words: impl Iterator<Item = OsString>,
) -> Result<Option<Given>, Bad> {
    let mut words = words;
    let mut operands = sub.operands.iter();
    let mut given = Given {
        sub,
        words: Vec::new(),
    };
    let mut options_end = false;
    while let Some(word) = words.next() {
        let bytes = word.as_bytes();
        if options_end || !is_option(&word) {
            given.put(operands.next().ok_or_else(|| unexpected(&word))?, word)?;
        } else if bytes == b"--" {
            options_end = true;
        } else if let Some(long) = bytes.strip_prefix(b"--") {
            let (name, value) = match long.iter().position(|b| *b == b'=') {
                Some(at) => (&long[..at], Some(OsStr::from_bytes(&long[at + 1..]))),
                None => (long, None),
            };
            if name == b"help" {
                return Ok(None);
            }
            let option = sub.options.iter().find(|o| o.name.as_bytes() == name);
            let option = option.ok_or_else(|| unexpected(&word))?;
            let value = match (option.value, value) {
                (None, None) => OsString::new(),
                (None, Some(value)) => return Err(no_value(option, value)),
                (Some(_), Some(value)) => value.to_owned(),
                (Some(_), None) => next_value(option, &mut words)?,
            };
            given.put(option, value)?;
        } else {
            let mut letters = &bytes[1..];
            while let Some((letter, rest)) = letters.split_first() {
                if *letter == b'h' {
                    return Ok(None);
                }
                let is = |o: &&Arg| o.short == Some(char::from(*letter));
                let option = sub.options.iter().find(is);
                let option = option.ok_or_else(|| unexpected(&word))?;
                letters = rest;
                let value = match option.value {
                    None if rest.starts_with(b"=") => {
                        return Err(no_value(option, OsStr::from_bytes(&rest[1..])));
                    }
                    None => OsString::new(),
                    Some(_) => {
                        letters = &[];
                        match rest.strip_prefix(b"=").unwrap_or(rest) {
                            [] if rest.is_empty() => next_value(option, &mut words)?,
                            value => OsString::from_vec(value.to_vec()),
                        }
                    }
                };
                given.put(option, value)?;
            }
        }
    }
    let all = sub.options.iter().chain(sub.operands);
    let missing: Vec<String> = all
        .filter(|a| a.required && !given.flag(a.name))
        .map(help::name)
        .collect();
    if missing.is_empty() {
        return Ok(Some(given));
    }
    Err(format!(
        "required arguments were not provided: {}",
        missing.join(" ")
    ))
}

/// A single `-` is a name like others.
fn is_option(word: &OsStr) -> bool {
    matches!(word.as_bytes(), [b'-', _, ..])
}

/// That there is no such option, or no operand is left.
pub fn unexpected(word: &OsStr) -> Bad {
    format!("unexpected argument '{}' found", word.display())
}

fn no_value(option: &Arg, value: &OsStr) -> Bad {
    format!(
        "unexpected value '{}' for '{}' found; it takes none",
        value.display(),
        help::name(option)
    )
}

fn lacks_value(option: &Arg) -> Bad {
    format!(
        "a value is required for '{}' but none was supplied",
        help::name(option)
    )
}

fn next_value(option: &Arg, words: &mut impl Iterator<Item = OsString>) -> Result<OsString, Bad> {
    words
        .next()
        .filter(|w| !is_option(w))
        .ok_or_else(|| lacks_value(option))
}

impl Given {
    fn put(&mut self, arg: &'static Arg, value: OsString) -> Result<(), Bad> {
        if !arg.many && self.flag(arg.name) {
            return Err(format!(
                "the argument '{}' cannot be used multiple times",
                help::name(arg)
            ));
        }
        if arg.value.is_some() && value.is_empty() {
            return Err(lacks_value(arg));
        }
        if !arg.choices.is_empty() && !arg.choices.iter().any(|c| value == **c) {
            return Err(format!(
                "invalid value '{}' for '{}' [possible values: {}]",
                value.display(),
                help::name(arg),
                arg.choices.join(", ")
            ));
        }
        self.words.push((arg, value));
        Ok(())
    }

    fn of(&self, name: &str) -> impl Iterator<Item = &(&'static Arg, OsString)> {
        let known = self.sub.options.iter().chain(self.sub.operands);
        debug_assert!(known.into_iter().any(|a| a.name == name), "{name}");
        self.words.iter().filter(move |(arg, _)| arg.name == name)
    }

    /// Was it given?
    pub fn flag(&self, name: &str) -> bool {
        self.of(name).next().is_some()
    }

    /// How often it was given, up to 255 times.
    pub fn count(&self, name: &str) -> u8 {
        u8::try_from(self.of(name).count()).unwrap_or(u8::MAX)
    }

    /// Its value as a path.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.of(name).next().map(|(_, value)| value.into())
    }

    /// Which of its choices was given.
    pub fn choice(&self, name: &str) -> Option<usize> {
        let (arg, value) = self.of(name).next()?;
        arg.choices.iter().position(|c| value == *c)
    }

    /// Its values, each made something of.
    ///
    /// # Errors
    /// One is not UTF-8, or nothing could be made of it.
    pub fn all<T>(
        &self,
        name: &str,
        make: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, Bad> {
        let made = |(arg, value): &(&Arg, OsString)| {
            let text = value.to_str().ok_or_else(|| "not UTF-8".to_owned());
            text.and_then(&make).map_err(|why| {
                format!(
                    "invalid value '{}' for '{}': {why}",
                    value.display(),
                    help::name(arg)
                )
            })
        };
        self.of(name).map(made).collect()
    }

    /// Its value as a number.
    ///
    /// # Errors
    /// It is none, or out of range.
    pub fn number(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, Bad> {
        let read = |text: &str| match text.parse() {
            Ok(n) if range.contains(&n) => Ok(n),
            _ => Err(format!(
                "not a number from {} to {}",
                range.start(),
                range.end()
            )),
        };
        Ok(self.all(name, read)?.pop())
    }
}
