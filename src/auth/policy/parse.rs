//! oslo.policy's language: `role:member and (project_id:%(owner)s or "public":%(visibility)s)`.
//!
//! ```text
//! or      = and { "or" and }
//! and     = not { "and" not }
//! not     = "not" not | "(" or ")" | check
//! check   = "@" | "!" | KIND ":" MATCH
//! ```
//! Words stand apart by white space; parentheses may touch them. The empty text is "@". The older
//! form is a list: any of its items, of which each is a text or a list of texts that all hold.

use serde_json::Value;

/// How deep parentheses may nest: texts come from a file, but the stack is ours.
const MAX_DEPTH: usize = 64;

/// What must hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Check {
    /// `@`
    Always,
    /// `!`
    Never,
    Not(Box<Check>),
    /// All of them.
    And(Vec<Check>),
    /// Any of them.
    Or(Vec<Check>),
    /// `role:NAME`
    Role(Template),
    /// `rule:NAME`
    Rule(String),
    /// `CREDENTIAL:VALUE`: something is known of the caller.
    Credential {
        name: String,
        is: Template,
    },
    /// `'literal':VALUE`: something is known of the target.
    Literal {
        text: String,
        is: Template,
    },
}

/// A text with `%(name)s` in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Template(pub(super) Vec<Piece>);

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Piece {
    Text(String),
    /// An attribute of the target.
    Attribute(String),
}

/// Parses a rule as it stands in a file: a text, or the list form.
pub(super) fn parse_value(value: &Value) -> Result<Check, String> {
    match value {
        Value::String(text) => parse(text),
        Value::Array(any) if any.is_empty() => Ok(Check::Always),
        Value::Array(any) => {
            let checks = any.iter().map(|item| match item {
                Value::String(text) => parse_check(text),
                Value::Array(all) => {
                    let all = all.iter().map(|c| match c {
                        Value::String(text) => parse_check(text),
                        other => Err(format!("{other} is no check")),
                    });
                    Ok(several(all.collect::<Result<_, _>>()?, Check::And))
                }
                other => Err(format!("{other} is neither a check nor a list of checks")),
            });
            Ok(several(checks.collect::<Result<_, _>>()?, Check::Or))
        }
        other => Err(format!("{other} is neither a text nor a list")),
    }
}

fn several(mut checks: Vec<Check>, join: fn(Vec<Check>) -> Check) -> Check {
    match checks.len() {
        1 => checks.remove(0),
        _ => join(checks),
    }
}

/// Parses a text.
pub(super) fn parse(text: &str) -> Result<Check, String> {
    let tokens = tokens(text)?;
    if tokens.is_empty() {
        return Ok(Check::Always);
    }
    let mut parser = Parser { tokens, at: 0 };
    let check = parser.or(0)?;
    match parser.peek() {
        None => Ok(check),
        Some(token) => Err(format!("{token} stands where the rule should end")),
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Token {
    Open,
    Close,
    And,
    Or,
    Not,
    Check(Check, String),
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "\"(\"",
            Self::Close => "\")\"",
            Self::And => "\"and\"",
            Self::Or => "\"or\"",
            Self::Not => "\"not\"",
            Self::Check(_, text) => return write!(f, "{text:?}"),
        })
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    for word in text.split_whitespace() {
        let inner = word.trim_start_matches('(');
        tokens.extend((inner.len()..word.len()).map(|_| Token::Open));
        // `%(name)s` ends in a letter, so a parenthesis at the end is never its own.
        let core = inner.trim_end_matches(')');
        match core.to_ascii_lowercase().as_str() {
            "" => {}
            "and" => tokens.push(Token::And),
            "or" => tokens.push(Token::Or),
            "not" => tokens.push(Token::Not),
            _ => tokens.push(Token::Check(parse_check(core)?, core.to_owned())),
        }
        tokens.extend((core.len()..inner.len()).map(|_| Token::Close));
    }
    Ok(tokens)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn take(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    fn or(&mut self, depth: usize) -> Result<Check, String> {
        let mut any = vec![self.and(depth)?];
        while self.take(&Token::Or) {
            any.push(self.and(depth)?);
        }
        Ok(several(any, Check::Or))
    }

    fn and(&mut self, depth: usize) -> Result<Check, String> {
        let mut all = vec![self.not(depth)?];
        while self.take(&Token::And) {
            all.push(self.not(depth)?);
        }
        Ok(several(all, Check::And))
    }

    fn not(&mut self, depth: usize) -> Result<Check, String> {
        if depth > MAX_DEPTH {
            return Err(format!("the rule nests deeper than {MAX_DEPTH}"));
        }
        let token = self.peek().cloned().ok_or("the rule ends too early")?;
        self.at += 1;
        match token {
            Token::Not => Ok(Check::Not(Box::new(self.not(depth + 1)?))),
            Token::Open => {
                let inner = self.or(depth + 1)?;
                if self.take(&Token::Close) {
                    Ok(inner)
                } else {
                    Err("a parenthesis is not closed".into())
                }
            }
            Token::Check(check, _) => Ok(check),
            other => Err(format!("{other} stands where a check should")),
        }
    }
}

/// One `KIND:MATCH`.
fn parse_check(text: &str) -> Result<Check, String> {
    match text {
        "@" => return Ok(Check::Always),
        "!" => return Ok(Check::Never),
        _ => {}
    }
    // A quoted kind may hold a colon of its own.
    let quoted = ['"', '\''].into_iter().find(|q| text.starts_with(*q));
    let split = match quoted {
        Some(quote) => text[1..].find(quote).map(|end| end + 2),
        None => text.find(':'),
    };
    let (kind, is) = split
        .and_then(|at| Some((text.get(..at)?, text.get(at..)?.strip_prefix(':')?)))
        .filter(|(kind, _)| !kind.is_empty())
        .ok_or_else(|| format!("{text:?} is no check: written KIND:MATCH"))?;
    match kind {
        "rule" => Ok(Check::Rule(is.to_owned())),
        "role" => Ok(Check::Role(template(is)?)),
        "http" | "https" => Err(format!(
            "{text:?} asks another server, which is not offered"
        )),
        _ => {
            let literal = match quoted {
                Some(_) => kind.get(1..kind.len() - 1),
                // What Python would read as a literal.
                None if matches!(kind, "True" | "False" | "None") => Some(kind),
                None if kind.bytes().all(|b| b.is_ascii_digit()) => Some(kind),
                None => None,
            };
            let is = template(is)?;
            Ok(match literal {
                Some(text) => Check::Literal {
                    text: text.to_owned(),
                    is,
                },
                None => Check::Credential {
                    name: kind.to_owned(),
                    is,
                },
            })
        }
    }
}

/// Python's `%` with named strings alone.
fn template(text: &str) -> Result<Template, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut plain = String::new();
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('%') {
            plain.push('%');
            rest = after;
            continue;
        }
        let (name, after) = after
            .strip_prefix('(')
            .and_then(|after| after.split_once(")s"))
            .ok_or_else(|| format!("{text:?}: a substitution is written %(name)s"))?;
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(Piece::Attribute(name.to_owned()));
        rest = after;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(Template(pieces))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn role(name: &str) -> Check {
        Check::Role(Template(vec![Piece::Text(name.into())]))
    }

    #[test]
    fn not_binds_closest_and_before_or() {
        let (a, b, c) = (role("a"), role("b"), role("c"));
        let not = |check| Check::Not(Box::new(check));
        for (text, want) in [
            ("", Check::Always),
            ("@", Check::Always),
            ("!", Check::Never),
            ("role:a", a.clone()),
            ("((role:a))", a.clone()),
            (
                "role:a or role:b AND role:c",
                Check::Or(vec![a.clone(), Check::And(vec![b.clone(), c.clone()])]),
            ),
            (
                "(role:a or role:b) and not role:c",
                Check::And(vec![Check::Or(vec![a.clone(), b.clone()]), not(c.clone())]),
            ),
            ("not ( role:a )", not(a.clone())),
            ("not not role:a", not(not(a.clone()))),
        ] {
            assert_eq!(parse(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn checks_name_credentials_or_literals() {
        let owner = Template(vec![Piece::Attribute("owner".into())]);
        assert_eq!(
            parse("project_id:%(owner)s"),
            Ok(Check::Credential {
                name: "project_id".into(),
                is: owner.clone()
            })
        );
        for (text, literal) in [
            ("'a':%(owner)s", "a"),
            ("\"a:b\":%(owner)s", "a:b"),
            ("True:%(owner)s", "True"),
            ("12:%(owner)s", "12"),
        ] {
            let want = Check::Literal {
                text: literal.into(),
                is: owner.clone(),
            };
            assert_eq!(parse(text), Ok(want), "{text}");
        }
        let mixed = [Piece::Text("a%".into()), Piece::Attribute("x".into())];
        assert_eq!(
            parse("role:a%%%(x)s"),
            Ok(Check::Role(Template(mixed.into())))
        );
    }

    #[test]
    fn the_list_form_is_any_of_all() {
        assert_eq!(parse_value(&json!([])), Ok(Check::Always));
        assert_eq!(parse_value(&json!(["role:a"])), Ok(role("a")));
        assert_eq!(
            parse_value(&json!([["role:a", "role:b"], "role:c"])),
            Ok(Check::Or(vec![
                Check::And(vec![role("a"), role("b")]),
                role("c")
            ]))
        );
        assert!(parse_value(&json!([1])).is_err());
        assert!(parse_value(&json!([[["role:a"]]])).is_err());
        assert!(parse_value(&json!({"role": "a"})).is_err());
    }

    #[test]
    fn faults_are_faults() {
        let deep = format!("{}role:a{}", "(".repeat(10_000), ")".repeat(10_000));
        let nots = "not ".repeat(100_000) + "role:a";
        for text in [
            "role",
            ":x",
            "and",
            "role:a role:b",
            "role:a and",
            "(role:a",
            "role:a)",
            "()",
            "not",
            "'open:%(x)s",
            "'",
            "''x",
            "http://other/%(x)s",
            "project_id:%(owner",
            "project_id:%d",
            "\u{e4}",
            deep.as_str(),
            nots.as_str(),
        ] {
            assert!(parse(text).is_err(), "{}", &text[..text.len().min(40)]);
        }
    }
}
