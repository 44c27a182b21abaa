//! XML as far as descriptors need it: a small tree, bounded in every direction.
//!
//! No DTD, so no entities but the five predefined ones and no way to make much out of little.
//! Names are compared without their prefix, because programs disagree on prefixes and even on
//! the namespaces behind them.

use quick_xml::XmlVersion;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesStart, Event};

use crate::{Error, Format, Result};

/// Elements inside one another.
const MAX_DEPTH: usize = 64;
/// Elements and attributes in all; the largest descriptor met has five thousand.
const MAX_NODES: usize = 200_000;
/// Attributes of one element.
const MAX_ATTRIBUTES: usize = 256;

/// An element.
#[derive(Clone, Debug, Default)]
pub(crate) struct Element {
    /// Its name without prefix.
    pub(crate) name: String,
    /// Names with their prefixes, and values.
    attributes: Vec<(String, String)>,
    pub(crate) children: Vec<Element>,
    /// All text directly inside, joined and trimmed.
    pub(crate) text: String,
}

fn local(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(_, local)| local)
}

impl Element {
    /// The attribute `name`: without a prefix or with `ovf`, else with any.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        let ours = |full: &str| full.strip_prefix("ovf:").unwrap_or(full) == name;
        let mut all = self.attributes.iter();
        all.clone()
            .find(|(full, _)| ours(full))
            .or_else(|| all.find(|(full, _)| local(full) == name))
            .map(|(_, value)| value.as_str())
    }

    /// The children called `name`.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> + 'a {
        self.children.iter().filter(move |e| e.name == name)
    }

    /// The text of the first child called `name`, unless it is empty.
    pub(crate) fn text_of(&self, name: &str) -> Option<&str> {
        let child = self.children.iter().find(|e| e.name == name)?;
        Some(child.text.as_str()).filter(|text| !text.is_empty())
    }
}

/// Parses a document, a descriptor of `format`, into its root element.
pub(crate) fn parse(bytes: &[u8], format: Format) -> Result<Element> {
    let malformed = |message| Error::malformed(format, "xml", message);
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let at = e.valid_up_to();
        malformed(format!("is not UTF-8 at byte {at}"))
    })?;
    Parser::default().parse(text).map_err(malformed)
}

#[derive(Default)]
struct Parser {
    open: Vec<Element>,
    root: Option<Element>,
    nodes: usize,
}

impl Parser {
    fn parse(mut self, text: &str) -> Result<Element, String> {
        let mut reader = quick_xml::Reader::from_str(text);
        loop {
            let at = reader.buffer_position();
            let event = reader
                .read_event()
                .map_err(|e| format!("at byte {}: {e}", reader.error_position()))?;
            let wrong = match event {
                Event::Start(start) => self.start(&start),
                Event::Empty(start) => self.start(&start).and_then(|()| self.end()),
                Event::End(_) => self.end(),
                Event::Text(text) => self.text(&text),
                Event::CData(data) => self.text(&data),
                Event::GeneralRef(reference) => self.reference(&reference),
                Event::DocType(_) => Err("a document type is not allowed".into()),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => Ok(()),
                Event::Eof => break,
            };
            wrong.map_err(|message| format!("at byte {at}: {message}"))?;
        }
        if let Some(element) = self.open.last() {
            return Err(format!("ends within the element {:?}", element.name));
        }
        self.root.ok_or_else(|| "holds no element".to_owned())
    }

    fn count(&mut self) -> Result<(), String> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(format!("more than {MAX_NODES} elements and attributes"));
        }
        Ok(())
    }

    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), String> {
        if self.open.is_empty() && self.root.is_some() {
            return Err("a second root element".into());
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} elements inside one another"));
        }
        self.count()?;
        let mut element = Element {
            name: local(start.name().as_ref()).to_owned(),
            ..Element::default()
        };
        // The check for duplicates compares each with each.
        for attribute in start.attributes().with_checks(false) {
            let attribute = attribute.map_err(|e| e.to_string())?;
            let value = attribute
                .normalized_value(XmlVersion::Explicit1_0)
                .map_err(|e| e.to_string())?;
            self.count()?;
            if element.attributes.len() >= MAX_ATTRIBUTES {
                return Err(format!("more than {MAX_ATTRIBUTES} attributes"));
            }
            let name = attribute.key.as_ref();
            if element.attributes.iter().any(|(known, _)| known == name) {
                return Err(format!("the attribute {name:?} stands there twice"));
            }
            element
                .attributes
                .push((name.to_owned(), value.into_owned()));
        }
        self.open.push(element);
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        let mut element = self.open.pop().ok_or("an end without a start")?;
        let trimmed = element.text.trim();
        if trimmed.len() < element.text.len() {
            element.text = trimmed.to_owned();
        }
        match self.open.last_mut() {
            Some(parent) => parent.children.push(element),
            None => self.root = Some(element),
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), String> {
        match self.open.last_mut() {
            Some(element) => element.text.push_str(text),
            None if text.trim_matches(['\0', ' ', '\t', '\r', '\n']).is_empty() => {}
            None => return Err("text outside of the root element".into()),
        }
        Ok(())
    }

    fn reference(&mut self, reference: &quick_xml::events::BytesRef<'_>) -> Result<(), String> {
        let c = reference.resolve_char_ref().map_err(|e| e.to_string())?;
        let mut buf = [0; 4];
        let text = match c {
            Some(c) => &*c.encode_utf8(&mut buf),
            None => resolve_predefined_entity(reference)
                .ok_or_else(|| format!("the entity {:?} is not known", &**reference))?,
        };
        self.text(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Element> {
        super::parse(bytes, Format::Ovf)
    }

    #[test]
    fn keeps_names_attributes_and_text() {
        let xml = br#"<?xml version="1.0"?><!-- c --><o:A x:id="other" o:id="a&amp;b" c='1'>
            t&#65;<![CDATA[<]]>&lt; <B/><B>two</B></o:A>"#;
        let root = parse(xml).unwrap();
        assert_eq!((root.name.as_str(), root.text.as_str()), ("A", "tA<<"));
        assert_eq!(root.attribute("id"), Some("other"));
        assert_eq!(root.attribute("c"), Some("1"));
        assert_eq!(root.all("B").count(), 2);
        let ovf = parse(br#"<A x:id="other" ovf:id="ours"/>"#).unwrap();
        assert_eq!(ovf.attribute("id"), Some("ours"));
    }

    #[test]
    fn refuses_what_could_grow() {
        let bomb = br#"<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><a>&c;</a>"#;
        assert!(parse(bomb).unwrap_err().message().contains("document type"));
        assert!(parse(b"<a>&c;</a>").is_err());
        assert!(parse(br#"<a b="&c;"/>"#).is_err());
        let deep = "<a>".repeat(100_000);
        assert!(parse(deep.as_bytes()).unwrap_err().message().contains("64"));
        let wide = format!("<a>{}</a>", "<b/>".repeat(MAX_NODES));
        assert!(parse(wide.as_bytes()).is_err());
        let many: String = (0..300).map(|n| format!(" a{n}='1'")).collect();
        assert!(parse(format!("<a{many}/>").as_bytes()).is_err());
    }

    #[test]
    fn refuses_what_is_not_well_formed() {
        for xml in [
            "",
            " ",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<a/>text",
            "<a b='1' b='2'/>",
            "<a b=1/>",
            "<a",
            "</a>",
            "<a>&#0;</a>",
            "<a>&#x110000;</a>",
            "<a>&;</a>",
        ] {
            assert!(parse(xml.as_bytes()).is_err(), "{xml}");
        }
        assert!(parse(b"<a>\xff</a>").is_err());
    }
}
