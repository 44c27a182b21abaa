//! The query of `GET /v2/images`: parameters in, a question for the catalog and the links of the
//! page out.

mod sort;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::catalog::{
    Column, Direction, Filter, MemberFilter, NumberColumn, Op, SortKey, TimeColumn,
    VisibilityFilter,
};
use crate::config::Api;
use crate::domain::{MemberStatus, Timestamp};
pub(super) use sort::direction;
use sort::sort;

/// What was asked for.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    /// Which visibilities.
    pub visibility: VisibilityFilter,
    /// Which images shared with the caller.
    pub members: MemberFilter,
    /// Hidden images alone, or the others alone.
    pub hidden: bool,
    /// All of these must hold.
    pub filters: Vec<Filter>,
    /// Sort keys in order.
    pub sort: Vec<(SortKey, Direction)>,
    /// The last image of the page before.
    pub marker: Option<String>,
    /// Images on the page at most.
    pub limit: u32,
    params: Vec<(String, String)>,
}

/// Conditions, and values of one `in:`, at most: what every database takes in one statement.
const MAX_CONDITIONS: usize = 200;
const MAX_VALUES: usize = 2000;

/// Name and value pairs of a query string, decoded; `None` when they are no UTF-8 or hold a NUL.
#[must_use]
pub(super) fn pairs(query: &str) -> Option<Vec<(String, String)>> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        let text = percent_decode_str(&text).decode_utf8().ok()?;
        (!text.contains('\0')).then(|| text.into_owned())
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        })
        .collect()
}

/// Reads the parameters. Of a repeated one the last counts, but for `tag`, `sort_key` and
/// `sort_dir`.
///
/// # Errors
/// The sentence of a 400.
pub(super) fn parse(params: Vec<(String, String)>, limits: &Api) -> Result<Listing, String> {
    let mut listing = Listing {
        visibility: VisibilityFilter::Default,
        members: MemberFilter::Only(MemberStatus::Accepted),
        hidden: false,
        filters: Vec::new(),
        sort: sort(&params)?,
        marker: None,
        limit: limits.limit_default.min(limits.limit_max),
        params,
    };
    let params = listing.params.clone();
    for (n, (name, value)) in params.iter().enumerate() {
        let repeated = params[n + 1..].iter().any(|(later, _)| later == name);
        if name != "tag" && repeated {
            continue;
        }
        listing.param(name, value, limits)?;
        if listing.filters.len() > MAX_CONDITIONS {
            return Err(format!(
                "More than {MAX_CONDITIONS} filters are not supported."
            ));
        }
    }
    Ok(listing)
}

impl Listing {
    fn param(&mut self, name: &str, value: &str, limits: &Api) -> Result<(), String> {
        match name {
            "limit" => self.limit = limit(value)?.min(limits.limit_max),
            "marker" => self.marker = Some(value.to_owned()),
            "visibility" => {
                self.visibility = match value {
                    "all" => VisibilityFilter::All,
                    other => VisibilityFilter::Only(
                        other
                            .parse()
                            .map_err(|()| format!("Invalid visibility value: {other}"))?,
                    ),
                }
            }
            "member_status" => {
                self.members = match value {
                    "all" => MemberFilter::All,
                    other => MemberFilter::Only(
                        other
                            .parse()
                            .map_err(|()| format!("Invalid status: {other}"))?,
                    ),
                }
            }
            "os_hidden" => self.hidden = flag(name, value)?,
            "changes-since" => {
                return Err("The \"changes-since\" filter is no longer available on v2.".into());
            }
            "sort" | "sort_key" | "sort_dir" | "deleted" => {}
            _ => self.filters.push(filter(name, value)?),
        }
        Ok(())
    }

    /// The link to the first page. As in the reference the last of a repeated parameter stands
    /// for all (07-list.http, "two tags").
    #[must_use]
    pub(super) fn first(&self) -> String {
        link("/v2/images", &self.collapsed(|_| false), None)
    }

    /// The link to the page behind `last`. Unlike the reference's it keeps repeated parameters
    /// where they matter, so that the next page answers the same question.
    #[must_use]
    pub(super) fn next(&self, last: &str) -> String {
        let kept = |name: &str| {
            let mut values = self.params.iter().filter(|(n, _)| n == name);
            let first = values.next();
            ["tag", "sort_key", "sort_dir"].contains(&name) && values.any(|v| Some(v) != first)
        };
        link("/v2/images", &self.collapsed(kept), Some(last))
    }

    fn collapsed(&self, kept: impl Fn(&str) -> bool) -> Vec<(&str, &str)> {
        let mut out: Vec<(&str, &str)> = Vec::new();
        for (name, value) in self.params.iter().filter(|(name, _)| name != "marker") {
            match out.iter_mut().find(|(seen, _)| seen == name) {
                Some((_, earlier)) if !kept(name) => *earlier = value,
                _ => out.push((name, value)),
            }
        }
        out
    }
}

/// What `urllib.parse.quote_plus` leaves alone.
const UNQUOTED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'_')
    .remove(b'.')
    .remove(b'-')
    .remove(b'~')
    .remove(b' ');

/// A link to `path` with these parameters, and the marker.
#[must_use]
pub(super) fn link(path: &str, params: &[(&str, &str)], marker: Option<&str>) -> String {
    let quote = |text: &str| {
        utf8_percent_encode(text, UNQUOTED)
            .to_string()
            .replace(' ', "+")
    };
    let query: Vec<_> = params
        .iter()
        .copied()
        .chain(marker.map(|id| ("marker", id)))
        .map(|(name, value)| format!("{}={}", quote(name), quote(value)))
        .collect();
    if query.is_empty() {
        path.into()
    } else {
        format!("{path}?{}", query.join("&"))
    }
}

/// The `limit` parameter.
///
/// # Errors
/// The sentence of a 400.
pub(super) fn limit(value: &str) -> Result<u32, String> {
    let digits = value.trim();
    let (is_negative, digits) = match digits.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, digits.strip_prefix('+').unwrap_or(digits)),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err("limit param must be an integer".into());
    }
    // What does not fit is more than any page holds.
    let limit = digits.parse().unwrap_or(u32::MAX);
    if is_negative && limit > 0 {
        return Err("limit param must be positive".into());
    }
    Ok(limit)
}

fn flag(name: &str, value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!(
            "Invalid value '{value}' for '{name}' filter. Valid values are 'true' or 'false'."
        )),
    }
}

fn filter(name: &str, value: &str) -> Result<Filter, String> {
    let text = |column| {
        let values = match operator(value) {
            (Some("in"), list) => split_list(list)?,
            (None | Some("eq"), value) => vec![value.to_owned()],
            (Some(other), _) => {
                return Err(format!("Unable to filter by unknown operator '{other}'."));
            }
        };
        Ok(if values.is_empty() {
            Filter::Nothing
        } else {
            Filter::In(column, values)
        })
    };
    let exact = |column| Filter::In(column, vec![value.to_owned()]);
    Ok(match name {
        "id" => text(Column::Id)?,
        "name" => text(Column::Name)?,
        "status" => text(Column::Status)?,
        "owner" => text(Column::Owner)?,
        "container_format" => text(Column::ContainerFormat)?,
        "disk_format" => text(Column::DiskFormat)?,
        "checksum" => exact(Column::Checksum),
        "os_hash_algo" => exact(Column::HashAlgo),
        "os_hash_value" => exact(Column::HashValue),
        "protected" => Filter::Protected(flag(name, value)?),
        "created_at" => time(name, TimeColumn::CreatedAt, value)?,
        "updated_at" => time(name, TimeColumn::UpdatedAt, value)?,
        "tag" if value.chars().count() > 255 => {
            return Err("A tag is at most 255 characters long.".into());
        }
        "tag" => Filter::Tag(value.trim().to_owned()),
        _ => match range(name) {
            Some((column, Op::Eq)) => value
                .parse()
                .map_or(Filter::Nothing, |n| Filter::Number(column, Op::Eq, n)),
            Some((column, op)) => Filter::Number(
                column,
                op,
                value
                    .trim()
                    .parse()
                    .map_err(|_| "Unable to filter on a range with a non-numeric value.")?,
            ),
            None => Filter::Property(name.to_owned(), value.to_owned()),
        },
    })
}

/// `size`, `size_min`, `size_max` and the like.
fn range(name: &str) -> Option<(NumberColumn, Op)> {
    let (name, op) = match (name.strip_suffix("_min"), name.strip_suffix("_max")) {
        (Some(name), _) => (name, Op::Gte),
        (_, Some(name)) => (name, Op::Lte),
        _ => (name, Op::Eq),
    };
    let column = match name {
        "size" => NumberColumn::Size,
        "virtual_size" => NumberColumn::VirtualSize,
        "min_ram" => NumberColumn::MinRam,
        "min_disk" => NumberColumn::MinDisk,
        _ => return None,
    };
    Some((column, op))
}

/// `in:a,b` is `(in, "a,b")`.
fn operator(value: &str) -> (Option<&str>, &str) {
    match value.split_once(':') {
        Some((op, rest)) => (Some(op), rest),
        None => (None, value),
    }
}

fn time(name: &str, column: TimeColumn, value: &str) -> Result<Filter, String> {
    // A time holds colons itself.
    let (op, text) = match moment(value) {
        Some(_) => (Op::Eq, value),
        None => match operator(value) {
            (None | Some("eq"), text) => (Op::Eq, text),
            (Some("neq"), text) => (Op::Neq, text),
            (Some("gt"), text) => (Op::Gt, text),
            (Some("gte"), text) => (Op::Gte, text),
            (Some("lt"), text) => (Op::Lt, text),
            (Some("lte"), text) => (Op::Lte, text),
            (Some(other), _) => {
                return Err(format!("Unable to filter by unknown operator '{other}'."));
            }
        },
    };
    let at = moment(text).ok_or_else(|| {
        format!("Bad \"{name}\" query filter format. Use ISO 8601 DateTime notation.")
    })?;
    Ok(Filter::Time(column, op, at))
}

/// A time; a year or a month alone is its first day.
fn moment(text: &str) -> Option<Timestamp> {
    let digits = text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    match text.len() {
        4 if digits => Timestamp::parse(&format!("{text}-01-01")),
        7 if digits => Timestamp::parse(&format!("{text}-01")),
        _ => Timestamp::parse(text),
    }
}

/// `a,"b,c",d`: double quotes keep a comma.
fn split_list(list: &str) -> Result<Vec<String>, String> {
    let fault = |what: &str| Err(format!("Invalid filter value {list}. {what}"));
    let mut values = Vec::new();
    let mut rest = list;
    while !rest.is_empty() {
        if values.len() == MAX_VALUES {
            return Err(format!("More than {MAX_VALUES} values are not supported."));
        }
        if let Some(quoted) = rest.strip_prefix('"') {
            let Some((value, behind)) = quoted.split_once('"') else {
                return fault("The quote is not closed.");
            };
            values.push(value.to_owned());
            rest = match behind.strip_prefix(',') {
                Some(more) => more,
                None if behind.is_empty() => behind,
                None => return fault("There is no comma after closing quotation mark."),
            };
        } else {
            let (value, more) = rest.split_once(',').unwrap_or((rest, ""));
            if value.contains('"') {
                return fault("There is no comma before opening quotation mark.");
            }
            values.push(value.to_owned());
            rest = more;
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(query: &str) -> Result<Listing, String> {
        parse(pairs(query).unwrap(), &Api::default())
    }

    fn filters(query: &str) -> Vec<Filter> {
        ask(query).unwrap().filters
    }

    #[test]
    fn bad_percent_encoding_is_no_text() {
        assert_eq!(pairs("name=%ff"), None);
        assert_eq!(pairs("name=in:a,%00"), None);
        let got = pairs("a=b+c%2Bd&e&=f&&g==").unwrap();
        let got: Vec<_> = got.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(got, [("a", "b c+d"), ("e", ""), ("", "f"), ("g", "=")]);
    }

    #[test]
    fn quotes_keep_commas() {
        for (list, want) in [
            ("", vec![]),
            ("a", vec!["a"]),
            ("a,b", vec!["a", "b"]),
            ("a,\"b,c\",d", vec!["a", "b,c", "d"]),
            ("\"a\"", vec!["a"]),
            (",a", vec!["", "a"]),
        ] {
            assert_eq!(split_list(list).unwrap(), want, "{list}");
        }
        for (list, why) in [
            ("\"a", "not closed"),
            ("a\"b\"", "before"),
            ("\"a\"b", "after"),
        ] {
            assert!(split_list(list).unwrap_err().contains(why), "{list}");
        }
    }

    #[test]
    fn operators() {
        assert_eq!(
            filters("name=eq:a"),
            [Filter::In(Column::Name, vec!["a".into()])]
        );
        assert_eq!(
            filters("status=in:queued,saving"),
            [Filter::In(
                Column::Status,
                vec!["queued".into(), "saving".into()]
            )]
        );
        assert_eq!(filters("status=in:"), [Filter::Nothing]);
        assert!(ask("name=like:a").unwrap_err().contains("'like'"));
        assert_eq!(
            filters("size_min=6&min_disk_max=-1&size=7"),
            [
                Filter::Number(NumberColumn::Size, Op::Gte, 6),
                Filter::Number(NumberColumn::MinDisk, Op::Lte, -1),
                Filter::Number(NumberColumn::Size, Op::Eq, 7),
            ]
        );
        assert_eq!(filters("size=x"), [Filter::Nothing]);
        assert!(ask("size_min=x").is_err());
        assert_eq!(
            filters("hw_min=x"),
            [Filter::Property("hw_min".into(), "x".into())]
        );
    }

    #[test]
    fn times() {
        let at = Timestamp::parse("2020-01-01T00:00:00Z").unwrap();
        for (text, op) in [
            ("2020", Op::Eq),
            ("2020-01", Op::Eq),
            ("2020-01-01T00:00:00Z", Op::Eq),
            ("neq:2020-01-01T00:00:00", Op::Neq),
            ("gt:2020-01-01T00:00:00Z", Op::Gt),
            ("lte:2020-01-01", Op::Lte),
        ] {
            assert_eq!(
                filters(&format!("created_at={text}")),
                [Filter::Time(TimeColumn::CreatedAt, op, at)],
                "{text}"
            );
        }
        for bad in ["yesterday", "gte:yesterday", "near:2020-01-01", "", "gt:"] {
            assert!(ask(&format!("updated_at={bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits() {
        assert_eq!(ask("").unwrap().limit, 25);
        assert_eq!(ask("limit=0").unwrap().limit, 0);
        assert_eq!(ask("limit=5000").unwrap().limit, 1000);
        assert_eq!(ask("limit=99999999999999999999").unwrap().limit, 1000);
        for bad in ["limit=-1", "limit=", "limit=1.5", "limit=abc"] {
            assert!(ask(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn links_ask_the_same_again() {
        let page = ask("tag=a b&marker=x&tag=c:d&limit=2").unwrap();
        assert_eq!(page.first(), "/v2/images?tag=c%3Ad&limit=2");
        assert_eq!(
            page.next("id"),
            "/v2/images?tag=a+b&tag=c%3Ad&limit=2&marker=id"
        );
        assert_eq!(ask("").unwrap().first(), "/v2/images");
        let page = ask("sort_key=name&sort_key=name&name=x&name=y").unwrap();
        assert_eq!(page.next("id"), "/v2/images?sort_key=name&name=y&marker=id");
    }
}
