//! Filters as conditions. Whether a tag or a property leads to few images is asked first: then one
//! begins with those, else each image that a walk meets is looked up among the tagged ones. A
//! planner cannot know which is better before it has seen the value.

use super::Condition;
use crate::catalog::conn::{Arg, Tx, args, marks};
use crate::catalog::{Column, Filter, NumberColumn, Op, Result, TimeColumn};

/// Images that are fetched and sorted rather than walked past.
const FEW: i64 = 1000;

/// All filters of a list.
pub(super) struct Filters {
    /// All of them.
    pub(super) condition: Condition,
    /// Whether they lead to few images by themselves.
    pub(super) are_few: bool,
    /// Whether they ask for the images of certain owners.
    pub(super) names_owner: bool,
}

/// The conditions of `filters`, all of which must hold.
pub(super) async fn conditions(tx: &mut Tx, filters: &[Filter]) -> Result<Filters> {
    let mut all = Filters {
        condition: Condition::default(),
        are_few: false,
        names_owner: false,
    };
    for filter in filters {
        let condition = match filter {
            Filter::In(column, values) => {
                all.are_few |= *column == Column::Id;
                all.names_owner |= *column == Column::Owner;
                one_of(*column, values)
            }
            Filter::Number(column, op, value) => {
                let column = number_column(*column);
                let text = format!("{column} {} ?", operator(*op));
                Condition::new(text, args![*value])
            }
            Filter::Time(column, op, at) => time(*column, *op, at.0),
            Filter::Protected(flag) => {
                Condition::new(format!("protected = {}", i32::from(*flag)), vec![])
            }
            Filter::Tag(tag) => {
                let has = Condition::new("tag = ?", args![tag.as_str()]);
                part(tx, "image_tags", has, &mut all.are_few).await?
            }
            Filter::Property(name, value) => {
                let (text, mut args) = tx.long_equals("value", value);
                args.insert(0, name.as_str().into());
                let has = Condition::new(format!("name = ? AND {text}"), args);
                part(tx, "image_properties", has, &mut all.are_few).await?
            }
            Filter::Nothing => Condition::new("1 = 0", vec![]),
        };
        all.condition = all.condition.and(&condition);
    }
    Ok(all)
}

/// Images with a row in a table of parts.
async fn part(
    tx: &mut Tx,
    table: &'static str,
    has: Condition,
    are_few: &mut bool,
) -> Result<Condition> {
    let Condition { text, args } = has;
    let mut limited = args.clone();
    limited.push((FEW + 1).into());
    let sql = format!(
        "SELECT COUNT(*) AS n FROM (SELECT image_id FROM {table} WHERE {text} LIMIT ?) AS found"
    );
    let row = tx.first(sql, limited).await?;
    let n = row.map_or(Ok(0), |row| row.int(table, "n"))?;
    Ok(if n <= FEW {
        *are_few = true;
        let text = format!("id IN (SELECT image_id FROM {table} WHERE {text})");
        Condition::new(text, args)
    } else {
        // A value, and not EXISTS: no planner turns it into a join that begins with the parts. And
        // not `= 1`, of which PostgreSQL believes that hardly any row is so, and sorts them all.
        let text =
            format!("(SELECT 1 FROM {table} WHERE image_id = images.id AND {text}) IS NOT NULL");
        Condition::new(text, args)
    })
}

fn one_of(column: Column, values: &[String]) -> Condition {
    let column = text_column(column);
    let args = values
        .iter()
        .map(|v| v.as_str().into())
        .collect::<Vec<Arg>>();
    match values.len() {
        1 => Condition::new(format!("{column} = ?"), args),
        n => Condition::new(format!("{column} IN ({})", marks(n)), args),
    }
}

/// The API speaks in seconds, rows hold microseconds: whole seconds are compared.
fn time(column: TimeColumn, op: Op, micros: i64) -> Condition {
    let column = match column {
        TimeColumn::CreatedAt => "created_at",
        TimeColumn::UpdatedAt => "updated_at",
    };
    let second = micros.div_euclid(1_000_000) * 1_000_000;
    let next = second + 1_000_000;
    match op {
        Op::Eq => Condition::new(
            format!("({column} >= ? AND {column} < ?)"),
            args![second, next],
        ),
        Op::Neq => Condition::new(
            format!("({column} < ? OR {column} >= ?)"),
            args![second, next],
        ),
        Op::Gt => Condition::new(format!("{column} >= ?"), args![next]),
        Op::Gte => Condition::new(format!("{column} >= ?"), args![second]),
        Op::Lt => Condition::new(format!("{column} < ?"), args![second]),
        Op::Lte => Condition::new(format!("{column} < ?"), args![next]),
    }
}

const fn text_column(column: Column) -> &'static str {
    match column {
        Column::Id => "id",
        Column::Name => "name",
        Column::Status => "status",
        Column::Owner => "owner",
        Column::ContainerFormat => "container_format",
        Column::DiskFormat => "disk_format",
        Column::Checksum => "checksum",
        Column::HashAlgo => "hash_algo",
        Column::HashValue => "hash_value",
    }
}

const fn number_column(column: NumberColumn) -> &'static str {
    match column {
        NumberColumn::Size => "size",
        NumberColumn::VirtualSize => "virtual_size",
        NumberColumn::MinRam => "min_ram",
        NumberColumn::MinDisk => "min_disk",
    }
}

const fn operator(op: Op) -> &'static str {
    match op {
        Op::Eq => "=",
        Op::Neq => "<>",
        Op::Gt => ">",
        Op::Gte => ">=",
        Op::Lt => "<",
        Op::Lte => "<=",
    }
}
