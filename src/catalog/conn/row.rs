//! Values on their way into statements, and rows on their way out: suspected until read.

use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::catalog::{Error, Result};

/// A bound value.
#[derive(Clone, Debug)]
pub(in crate::catalog) enum Arg {
    Text(Option<String>),
    Int(Option<i64>),
}

impl From<&str> for Arg {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<String> for Arg {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<Option<String>> for Arg {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Arg {
    fn from(int: i64) -> Self {
        Self::Int(Some(int))
    }
}

impl From<Option<i64>> for Arg {
    fn from(int: Option<i64>) -> Self {
        Self::Int(int)
    }
}

impl From<bool> for Arg {
    fn from(flag: bool) -> Self {
        Self::Int(Some(i64::from(flag)))
    }
}

/// Values for the `?` of a statement, in order.
macro_rules! args {
    ($($value:expr),* $(,)?) => { vec![$($crate::catalog::conn::Arg::from($value)),*] };
}
pub(in crate::catalog) use args;

/// A size for the database, whose integers are signed.
pub(in crate::catalog) fn size_arg(size: Option<u64>) -> Arg {
    Arg::Int(size.map(|n| i64::try_from(n).unwrap_or(i64::MAX)))
}

/// `?, ?, ?`: `n` of them.
pub(in crate::catalog) fn marks(n: usize) -> String {
    vec!["?"; n].join(", ")
}

/// A row: suspected until its fields were read.
pub(in crate::catalog) struct Row(pub(super) AnyRow);

impl Row {
    /// A text that may be NULL.
    pub(in crate::catalog) fn opt_text(
        &self,
        table: &'static str,
        column: &'static str,
    ) -> Result<Option<String>> {
        self.0
            .try_get(column)
            .map_err(|_| self.corrupt(table, column))
    }

    /// A text.
    pub(in crate::catalog) fn text(
        &self,
        table: &'static str,
        column: &'static str,
    ) -> Result<String> {
        self.opt_text(table, column)?
            .ok_or_else(|| self.corrupt(table, column))
    }

    /// An integer that may be NULL.
    pub(in crate::catalog) fn opt_int(
        &self,
        table: &'static str,
        column: &'static str,
    ) -> Result<Option<i64>> {
        self.0
            .try_get(column)
            .map_err(|_| self.corrupt(table, column))
    }

    /// An integer.
    pub(in crate::catalog) fn int(&self, table: &'static str, column: &'static str) -> Result<i64> {
        self.opt_int(table, column)?
            .ok_or_else(|| self.corrupt(table, column))
    }

    /// A size in bytes that may be NULL.
    pub(in crate::catalog) fn opt_size(
        &self,
        table: &'static str,
        column: &'static str,
    ) -> Result<Option<u64>> {
        self.opt_int(table, column)?
            .map(|n| u64::try_from(n).map_err(|_| self.corrupt(table, column)))
            .transpose()
    }

    /// A text that stands for a value of ours.
    pub(in crate::catalog) fn parse<T: std::str::FromStr>(
        &self,
        table: &'static str,
        column: &'static str,
    ) -> Result<T> {
        self.text(table, column)?
            .parse()
            .map_err(|_| self.corrupt(table, column))
    }

    pub(in crate::catalog) fn corrupt(&self, table: &'static str, column: &'static str) -> Error {
        let id = self
            .0
            .try_get::<String, _>("id")
            .unwrap_or_else(|_| "a row".into());
        Error::Corrupt { table, column, id }
    }
}
