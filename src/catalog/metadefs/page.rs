//! The order of a page, and where it begins: behind the last row of the page before.

use crate::catalog::Direction;
use crate::catalog::conn::Arg;

/// A sort key and the row that the page comes behind.
pub(super) struct Page {
    /// An expression that is never NULL.
    pub key: &'static str,
    pub direction: Direction,
    /// The value of `key`, and the number, of the row before the page.
    pub after: Option<(Arg, i64)>,
}

impl Page {
    /// A condition and its values. The number of a row breaks ties.
    pub(super) fn condition(&self) -> (String, Vec<Arg>) {
        let Some((value, id)) = &self.after else {
            return ("1 = 1".into(), Vec::new());
        };
        let key = self.key;
        let than = match self.direction {
            Direction::Asc => '>',
            Direction::Desc => '<',
        };
        (
            format!("({key} {than} ? OR ({key} = ? AND id {than} ?))"),
            vec![value.clone(), value.clone(), Arg::from(*id)],
        )
    }

    /// The `ORDER BY`.
    pub(super) fn order(&self) -> String {
        let word = match self.direction {
            Direction::Asc => "ASC",
            Direction::Desc => "DESC",
        };
        format!("ORDER BY {} {word}, id {word}", self.key)
    }
}
