//! `sort`, `sort_key` and `sort_dir`.

use crate::catalog::{Direction, SortKey};

pub(super) fn sort(params: &[(String, String)]) -> Result<Vec<(SortKey, Direction)>, String> {
    let all = |wanted: &str| -> Vec<&str> {
        params
            .iter()
            .filter(|(name, _)| name == wanted)
            .map(|(_, value)| value.trim())
            .collect()
    };
    let (keys, dirs) = (all("sort_key"), all("sort_dir"));
    if let Some(spec) = all("sort").last() {
        if !keys.is_empty() || !dirs.is_empty() {
            return Err("Old and new sorting syntax cannot be combined".into());
        }
        return spec
            .split(',')
            .map(|part| {
                let (key, dir) = part.split_once(':').unwrap_or((part, "desc"));
                Ok((sort_key(key.trim())?, direction(dir.trim())?))
            })
            .collect();
    }
    let dirs = dirs
        .into_iter()
        .map(direction)
        .collect::<Result<Vec<_>, _>>()?;
    let keys = keys
        .into_iter()
        .map(sort_key)
        .collect::<Result<Vec<_>, _>>()?;
    let keys = if keys.is_empty() {
        vec![SortKey::CreatedAt]
    } else {
        keys
    };
    match dirs.as_slice() {
        [] => Ok(keys.into_iter().map(|k| (k, Direction::Desc)).collect()),
        [one] => Ok(keys.into_iter().map(|k| (k, *one)).collect()),
        _ if dirs.len() == keys.len() => Ok(keys.into_iter().zip(dirs).collect()),
        _ => Err("Number of sort dirs does not match the number of sort keys".into()),
    }
}

fn sort_key(name: &str) -> Result<SortKey, String> {
    Ok(match name {
        "name" => SortKey::Name,
        "status" => SortKey::Status,
        "container_format" => SortKey::ContainerFormat,
        "disk_format" => SortKey::DiskFormat,
        "size" => SortKey::Size,
        "id" => SortKey::Id,
        "created_at" => SortKey::CreatedAt,
        "updated_at" => SortKey::UpdatedAt,
        _ => {
            return Err(format!(
                "Invalid sort key: {name}. It must be one of the following: name, status, \
                 container_format, disk_format, size, id, created_at, updated_at."
            ));
        }
    })
}

/// A value of `sort_dir`.
///
/// # Errors
/// The sentence of a 400.
pub(in crate::api) fn direction(name: &str) -> Result<Direction, String> {
    match name {
        "asc" => Ok(Direction::Asc),
        "desc" => Ok(Direction::Desc),
        _ => Err(format!("Invalid sort direction: {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::pairs;
    use super::*;

    fn ask(query: &str) -> Result<Vec<(SortKey, Direction)>, String> {
        sort(&pairs(query).unwrap())
    }

    #[test]
    fn sorting() {
        use Direction::{Asc, Desc};
        for (query, want) in [
            ("", vec![(SortKey::CreatedAt, Desc)]),
            ("sort_dir=asc", vec![(SortKey::CreatedAt, Asc)]),
            (
                "sort_key=name&sort_key=size&sort_dir=asc",
                vec![(SortKey::Name, Asc), (SortKey::Size, Asc)],
            ),
            (
                "sort=name:asc,size",
                vec![(SortKey::Name, Asc), (SortKey::Size, Desc)],
            ),
        ] {
            assert_eq!(ask(query).unwrap(), want, "{query}");
        }
        for bad in [
            "sort=",
            "sort=name:up",
            "sort_key=x",
            "sort_dir=up",
            "sort=name&sort_dir=asc",
            "sort_key=name&sort_dir=asc&sort_dir=desc",
        ] {
            assert!(ask(bad).is_err(), "{bad}");
        }
    }
}
