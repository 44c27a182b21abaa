//! What the images of a batch are called: a text with names in braces for what differs.

/// Bytes of a template at most.
const MAX_LEN: usize = 1000;

/// A template, read.
#[derive(Debug)]
pub(super) struct Template(Vec<Piece>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Text(String),
    Name,
    Stem,
    N,
    Id,
    Format,
}

impl Piece {
    fn of(name: &str) -> Result<Self, String> {
        Ok(match name {
            "name" => Self::Name,
            "stem" => Self::Stem,
            "n" => Self::N,
            "id" => Self::Id,
            "format" => Self::Format,
            other => {
                let known = "{name}, {stem}, {n}, {id}, {format}";
                return Err(format!("{{{other}}} is none of {known}"));
            }
        })
    }
}

/// What differs.
pub(super) struct Fields<'a> {
    /// The last part of the URL or path, or the name of the image.
    pub(super) name: &'a str,
    /// The same without endings of formats and compression.
    pub(super) stem: &'a str,
    /// The place in the batch, from 1.
    pub(super) n: u32,
    /// Items in the batch: as many digits as that has, all places have.
    pub(super) of: u32,
    /// The new image's id.
    pub(super) id: &'a str,
    /// The disk format it will have.
    pub(super) format: &'a str,
}

impl Template {
    /// `{{` and `}}` stand for the braces themselves.
    ///
    /// # Errors
    /// A sentence: what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_LEN {
            return Err(format!("it is longer than {MAX_LEN} bytes"));
        }
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            plain.push_str(before);
            rest = &brace[1..];
            if rest.starts_with(&brace[..1]) {
                plain.push_str(&brace[..1]);
                rest = &rest[1..];
                continue;
            }
            let named = brace.starts_with('{').then(|| rest.split_once('}'));
            let (name, behind) = named.flatten().ok_or_else(|| {
                let sentence = "a brace stands alone: write {{ or }} for the character";
                sentence.to_owned()
            })?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::of(name)?);
            rest = behind;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    /// The name it makes of these.
    pub(super) fn fill(&self, fields: &Fields<'_>) -> String {
        let width = fields.of.to_string().len();
        let mut name = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => name.push_str(text),
                Piece::Name => name.push_str(fields.name),
                Piece::Stem => name.push_str(fields.stem),
                Piece::N => name.push_str(&format!("{:0width$}", fields.n)),
                Piece::Id => name.push_str(fields.id),
                Piece::Format => name.push_str(fields.format),
            }
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_in() {
        let fields = Fields {
            name: "web {n}.vmdk",
            stem: "web",
            n: 7,
            of: 120,
            id: "i",
            format: "qcow2",
        };
        for (template, want) in [
            ("{stem}", "web"),
            ("{n}-{stem}.{format}", "007-web.qcow2"),
            // What is filled in is not looked at again.
            ("{name}/{id}", "web {n}.vmdk/i"),
            ("{{{stem}}}", "{web}"),
            ("plain", "plain"),
            ("", ""),
        ] {
            let name = Template::parse(template).unwrap().fill(&fields);
            assert_eq!(name, want, "{template}");
        }
        for bad in [
            "{stem",
            "{}",
            "{Stem}",
            "{n:3}",
            "a}b",
            "{",
            &"x".repeat(1001),
        ] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }
}
