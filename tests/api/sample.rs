//! Reads `fixtures/wire/*.http`: requests (`>`) and the reference's answers (`<`), captured from a
//! running Glance.

use std::path::Path;

/// A request and its answer.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// `04-upload`
    pub(crate) file: String,
    /// Its heading; a repeated one is numbered: `the image after it (2)`.
    pub(crate) title: String,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<String>,
    pub(crate) answer: Answer,
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `None` where the capture did not keep them.
    pub(crate) headers: Option<Vec<(String, String)>>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let headers = self.headers.as_ref()?;
        let found = headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// Every sample of every file, in the order they were captured.
pub(crate) fn all() -> Vec<Sample> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/wire");
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "http"))
        .collect();
    files.sort();
    let mut samples = Vec::new();
    for path in files {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for part in format!("\n{text}").split("\n## ").skip(1) {
            let mut sample = parse(name, part);
            let title = sample.title.clone();
            let before = |n: usize| match n {
                0 | 1 => title.clone(),
                n => format!("{title} ({n})"),
            };
            let mut n = 1;
            while samples
                .iter()
                .any(|s: &Sample| s.file == name && s.title == before(n))
            {
                n += 1;
            }
            sample.title = before(n);
            samples.push(sample);
        }
    }
    samples
}

fn parse(file: &str, part: &str) -> Sample {
    let mut lines = part.lines().peekable();
    let title = lines.next().unwrap().to_owned();
    let mut asked = Vec::new();
    while let Some(line) = lines.next_if(|l| l.starts_with('>')) {
        asked.push(line.strip_prefix("> ").unwrap_or(""));
    }
    let mut told = Vec::new();
    while let Some(line) = lines.next_if(|l| l.starts_with('<') && !l.starts_with("<html")) {
        told.push(line.strip_prefix("< ").unwrap());
    }
    // A blank line parts headers from the body; where the capture noted something else it does
    // not.
    lines.next_if(|l| l.is_empty());
    let body: Vec<_> = lines.collect();

    let (method, target) = asked[0].split_once(' ').unwrap();
    let blank = asked.iter().position(|l| l.is_empty());
    let (headers, body_lines) = match blank {
        Some(at) => (&asked[1..at], Some(asked[at + 1..].join("\n"))),
        None => (&asked[1..], None),
    };
    let field = |line: &&str| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_owned(), value.trim().to_owned())
    };
    let status = told[0].split(' ').nth(1).unwrap().parse().unwrap();
    let whole = told[0].starts_with("HTTP/1.1");
    Sample {
        file: file.to_owned(),
        title,
        method: method.to_owned(),
        target: target.to_owned(),
        headers: headers.iter().map(field).collect(),
        body: body_lines,
        answer: Answer {
            status,
            headers: whole.then(|| told[1..].iter().map(field).collect()),
            body: body.join("\n").trim_end_matches('\n').to_owned(),
        },
    }
}

#[test]
fn samples_are_read() {
    let samples = all();
    assert!(samples.len() > 270, "{}", samples.len());
    let one = samples
        .iter()
        .find(|s| s.title == "again: 409" && s.file == "04-upload")
        .unwrap();
    assert_eq!(one.method, "PUT");
    assert_eq!(one.body.as_deref(), Some("hello again"));
    assert_eq!(one.answer.status, 409);
    assert!(one.answer.body.starts_with("<html>") && one.answer.body.ends_with("</html>"));
}
