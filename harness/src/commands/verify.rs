//! `armrest verify`: is this task as its images say?

use super::{print, print_json};
use crate::cli::VerifyOptions;
use crate::error::{Error, printable};
use crate::verify::{Report, Request, Weight, verify};

/// Compare, and print what was found.
///
/// # Errors
/// The task differs; or it or the images cannot be looked at.
pub fn run(o: &VerifyOptions) -> Result<i32, Error> {
    let report = verify(Request {
        images: &o.images,
        root: o.root.as_deref(),
        pid: o.pid,
        allow_ran: o.allow_ran,
    })?;
    let differ = report.count(Weight::Differs);
    if o.json {
        let mut json = serde_json::json!(report);
        json["equal"] = (differ == 0).into();
        print_json(&json)?;
    } else {
        print(&text(&report))?;
    }
    if differ == 0 {
        return Ok(0);
    }
    Err(Error::Differs {
        what: format!("pid {}", report.pid),
        why: match differ {
            1 => "1 difference from the images".into(),
            n => format!("{n} differences from the images"),
        },
    })
}

/// The report, a line a finding.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let mut say = |line: String| {
        out.push_str(&printable(&line));
        out.push('\n');
    };
    for f in &report.findings {
        let word = match f.weight {
            Weight::Differs => "differs",
            Weight::Ran => "ran",
            Weight::Masked => "masked",
        };
        say(format!("{word}: {}: {}", f.what, f.why));
    }
    if let Some(why) = &report.ran {
        say(format!("note: taken to have run since the restore: {why}"));
    }
    let compared: Vec<String> = report
        .compared
        .iter()
        .map(|(what, n)| format!("{n} {what}"))
        .collect();
    say(format!(
        "pid {}: {} compared: {} differences, {} for having run, {} masked",
        report.pid,
        compared.join(", "),
        report.count(Weight::Differs),
        report.count(Weight::Ran),
        report.count(Weight::Masked)
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Finding;

    #[test]
    fn a_finding_is_a_line_that_cannot_steer_the_terminal() {
        let report = Report {
            pid: 136,
            findings: vec![Finding {
                weight: Weight::Differs,
                what: "exe".into(),
                why: "/a\u{1b}[2J".into(),
            }],
            ..Report::default()
        };
        let text = text(&report);
        assert!(text.starts_with("differs: exe: /a\\u{1b}[2J\n"), "{text}");
        assert!(
            text.contains("1 differences, 0 for having run, 0 masked"),
            "{text}"
        );
    }
}
