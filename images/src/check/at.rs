//! Where in the images we are: makes errors that name file, entry and field, and fetches required fields.

use std::rc::Rc;

use crate::error::{Error, Fault, Place};
use crate::proto::Bytes;

/// A place that errors are made at. Cheap to make: there is one for each entry and element, and hardly ever an error.
#[derive(Clone, Debug)]
pub(super) struct At {
    file: Rc<str>,
    entry: Option<usize>,
    field: Rc<str>,
    element: Option<(&'static str, usize)>,
}

impl At {
    pub fn file(file: &str) -> At {
        At {
            file: file.into(),
            entry: None,
            field: "".into(),
            element: None,
        }
    }
    pub fn entry(&self, n: usize) -> At {
        At {
            entry: Some(n),
            ..self.clone()
        }
    }
    /// Another entry of the same image.
    pub fn go_to(&mut self, n: usize) {
        self.entry = Some(n);
    }
    /// A member.
    pub fn sub(&self, name: &str) -> At {
        At {
            field: self.path(name).into(),
            element: None,
            ..self.clone()
        }
    }
    /// An element of a repeated member.
    pub fn index(&self, name: &'static str, n: usize) -> At {
        let outer = self.element.map(|_| self.path("").into());
        At {
            field: outer.unwrap_or_else(|| self.field.clone()),
            element: Some((name, n)),
            ..self.clone()
        }
    }
    /// The whole path of a member, or of this place itself.
    fn path(&self, member: &str) -> String {
        let element = self.element.map(|(name, n)| format!("{name}[{n}]"));
        let parts = [&*self.field, element.as_deref().unwrap_or(""), member];
        let parts: Vec<&str> = parts.into_iter().filter(|p| !p.is_empty()).collect();
        parts.join(".")
    }
    #[cold]
    pub fn err(&self, field: &str, fault: Fault) -> Error {
        let place = Place {
            file: self.file.to_string(),
            entry: self.entry,
            field: self.path(field),
        };
        Error { place, fault }
    }
    /// A required field.
    pub fn req<T>(&self, field: &str, value: Option<T>) -> Result<T, Error> {
        value.ok_or_else(|| self.err(field, Fault::MissingField))
    }
    /// A required field of 64 bits that holds a 32-bit address or size.
    pub fn word(&self, field: &str, value: Option<u64>) -> Result<u32, Error> {
        let value = self.req(field, value)?;
        u32::try_from(value).map_err(|_| self.bad(field, value, "more than 32 bits"))
    }
    #[cold]
    pub fn bad(&self, field: &str, value: impl Into<u64>, why: &'static str) -> Error {
        self.err(
            field,
            Fault::BadValue {
                value: value.into(),
                why,
            },
        )
    }
    /// A value with bits that nobody knows.
    #[cold]
    pub fn unknown(&self, field: &str, value: impl Into<u64>) -> Error {
        self.err(field, Fault::UnknownFlag(value.into()))
    }
    #[cold]
    pub fn dangling(&self, field: &str, what: &'static str, id: impl Into<u64>) -> Error {
        self.err(
            field,
            Fault::BadReference {
                what,
                id: id.into(),
            },
        )
    }
    #[cold]
    pub fn twice(&self, what: &'static str, id: impl Into<u64>) -> Error {
        self.err(
            "",
            Fault::Twice {
                what,
                id: id.into(),
            },
        )
    }
    /// A text without NUL of at most `max` bytes.
    pub fn text(&self, field: &str, value: Bytes, max: usize) -> Result<String, Error> {
        let wrong = |bytes: &[u8], why| {
            let text: String = String::from_utf8_lossy(bytes).chars().take(80).collect();
            self.err(field, Fault::BadText { text, why })
        };
        if value.len() > max {
            return Err(wrong(&value, "too long"));
        }
        if value.contains(&0) {
            return Err(wrong(&value, "contains a NUL"));
        }
        String::from_utf8(value).map_err(|e| wrong(e.as_bytes(), "is not UTF-8"))
    }
}

/// `need!(at, message.field)`: the required field, or an error naming it.
macro_rules! need {
    ($at:expr, $m:ident . $f:ident) => {
        $at.req(stringify!($f), $m.$f)?
    };
}
/// The same for 64-bit fields that hold 32-bit words.
macro_rules! word {
    ($at:expr, $m:ident . $f:ident) => {
        $at.word(stringify!($f), $m.$f)?
    };
}
pub(super) use {need, word};
