//! Filters as conditions, and whether one of them leads to few images: then one begins with those,
//! else each image that a walk meets is held against all of them. A planner cannot know which is better
//! before it has seen the value, and some do not look then.

use super::{Condition, Few, Start};
use crate::catalog::conn::{Arg, Tx, args, marks};
use crate::catalog::{Column, Filter, NumberColumn, Op, Result, TimeColumn};
use crate::domain::Status;

/// All filters of a list.
#[derive(Default)]
pub(super) struct Filters {
    /// All of them.
    pub(super) condition: Condition,
    /// The images to begin with, if they are few.
    pub(super) few: Option<Few>,
    /// Whether they ask for the images of one owner.
    pub(super) one_owner: bool,
}

/// The conditions of `filters`, all of which must hold; `base` holds anyhow.
pub(super) async fn conditions(
    tx: &mut Tx,
    filters: &[Filter],
    base: &Condition,
) -> Result<Filters> {
    let mut all = Filters::default();
    for filter in filters {
        let condition = match filter {
            Filter::Tag(tag) => {
                let has = Condition::new("tag = ?", args![tag.as_str()]);
                all.part(tx, "image_tags", has).await?
            }
            Filter::Property(name, value) => {
                let (text, mut args) = tx.long_equals("value", value);
                args.insert(0, name.as_str().into());
                let has = Condition::new(format!("name = ? AND {text}"), args);
                all.part(tx, "image_properties", has).await?
            }
            of_image => {
                let condition = of_the_image(of_image);
                if let Some(lead) = leads_to_few(of_image) {
                    all.column(tx, lead, base, &condition).await?;
                }
                condition
            }
        };
        all.one_owner |= matches!(filter, Filter::In(Column::Owner, owners) if owners.len() == 1);
        all.condition = all.condition.and(&condition);
    }
    Ok(all)
}

impl Filters {
    /// Images with a row in a table of parts.
    async fn part(&mut self, tx: &mut Tx, table: &str, has: Condition) -> Result<Condition> {
        let n = Few::count(tx, table, &has).await?;
        if n > Few::MAX {
            return Ok(has.met(table));
        }
        self.consider(n, Start::Key);
        let Condition { text, args } = has;
        let text = format!("id IN (SELECT image_id FROM {table} WHERE {text})");
        Ok(Condition::new(text, args))
    }

    /// Images that an index of the table itself leads to.
    async fn column(
        &mut self,
        tx: &mut Tx,
        lead: Lead,
        base: &Condition,
        has: &Condition,
    ) -> Result<()> {
        let (index, has) = match lead {
            Lead::Key(n) => {
                self.consider(n, Start::Key);
                return Ok(());
            }
            Lead::Visible(index) => (index, base.and(has)),
            // What this index does not hold is not asked: that would cost a look at each row.
            Lead::Own(index) => (index, Condition::new("deleted_at IS NULL", vec![]).and(has)),
        };
        let n = Few::count(tx, &tx.by_index("images", index), &has).await?;
        let start = Start::Index(index);
        if n <= Few::MAX {
            self.consider(n, start);
        }
        Ok(())
    }

    fn consider(&mut self, n: i64, start: Start) {
        if self.few.as_ref().is_none_or(|few| n < few.count) {
            self.few = Some(Few { count: n, start });
        }
    }
}

/// What may lead to few images.
enum Lead {
    /// So many ids.
    Key(i64),
    /// An index that begins with the visibility and whether it is hidden.
    Visible(&'static str),
    /// An index that begins with the column.
    Own(&'static str),
}

/// Where the images that a filter leaves may be few: where to find them. Nothing is counted for what
/// nearly every image is.
fn leads_to_few(filter: &Filter) -> Option<Lead> {
    Some(match filter {
        Filter::In(Column::Id, ids) => Lead::Key(ids.len() as i64),
        Filter::In(Column::Name, _) => Lead::Visible("images_visible_name"),
        Filter::In(Column::Status, values) if values == &[Status::Active.name()] => return None,
        Filter::In(Column::Status, _) => Lead::Visible("images_visible_status"),
        // One owner's images are a range of their own.
        Filter::In(Column::Owner, owners) if owners.len() == 1 => return None,
        Filter::In(Column::Owner, _) => Lead::Own("images_owned_id"),
        Filter::In(Column::ContainerFormat, _) => Lead::Visible("images_visible_container_format"),
        Filter::In(Column::DiskFormat, _) => Lead::Visible("images_visible_disk_format"),
        Filter::In(Column::Checksum, _) => Lead::Own("images_checksum"),
        Filter::In(Column::HashAlgo, _) => Lead::Own("images_hash_algo"),
        Filter::In(Column::HashValue, _) => Lead::Own("images_hash_value"),
        Filter::Number(_, Op::Neq, _) | Filter::Time(_, Op::Neq, _) => return None,
        Filter::Number(NumberColumn::Size, ..) => Lead::Visible("images_visible_size"),
        Filter::Number(NumberColumn::VirtualSize, ..) => Lead::Own("images_virtual_size"),
        Filter::Number(NumberColumn::MinRam, ..) => Lead::Own("images_min_ram"),
        Filter::Number(NumberColumn::MinDisk, ..) => Lead::Own("images_min_disk"),
        Filter::Time(TimeColumn::CreatedAt, ..) => Lead::Visible("images_visible_created_at"),
        Filter::Time(TimeColumn::UpdatedAt, ..) => Lead::Visible("images_visible_updated_at"),
        Filter::Protected(true) => Lead::Own("images_protected"),
        Filter::Protected(false) | Filter::Tag(_) | Filter::Property(..) | Filter::Nothing => {
            return None;
        }
    })
}

/// A filter by a column of the image itself.
fn of_the_image(filter: &Filter) -> Condition {
    match filter {
        Filter::In(column, values) => one_of(*column, values),
        Filter::Number(column, op, value) => {
            let column = number_column(*column);
            let text = format!("{column} {} ?", operator(*op));
            Condition::new(text, args![*value])
        }
        Filter::Time(column, op, at) => time(*column, *op, at.0),
        Filter::Protected(flag) => {
            Condition::new(format!("protected = {}", i32::from(*flag)), vec![])
        }
        Filter::Tag(_) | Filter::Property(..) => Condition::default(),
        Filter::Nothing => Condition::new("1 = 0", vec![]),
    }
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
