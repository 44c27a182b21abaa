//! The catalog on the databases it runs on.

use std::collections::BTreeMap;

use glint::catalog::{
    Catalog, Column, Direction, Error, Filter, ListQuery, MemberFilter, NumberColumn, Op, SortKey,
    TimeColumn, Viewer, VisibilityFilter, images, jobs, locations, staged,
};
use glint::domain::{Hashes, Image, ImageId, Location, Status, Timestamp, Visibility};

struct Scratch {
    catalog: Catalog,
    _dir: tempfile::TempDir,
}

async fn scratch() -> Scratch {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::open_sqlite(&dir.path().join("glint.db"))
        .await
        .unwrap();
    catalog.sync().await.unwrap();
    catalog.sync().await.unwrap();
    Scratch { catalog, _dir: dir }
}

fn image(n: i64) -> Image {
    Image::new(
        ImageId::random(),
        Some("p".into()),
        Timestamp(n * 1_000_000),
    )
}

async fn insert(catalog: &Catalog, image: &Image) {
    let mut tx = catalog.write().await.unwrap();
    images::insert(&mut tx, image).await.unwrap();
    tx.commit().await.unwrap();
}

async fn list(catalog: &Catalog, query: &ListQuery) -> Vec<Image> {
    images::list(&mut catalog.read().await.unwrap(), query)
        .await
        .unwrap()
}

fn everything() -> ListQuery {
    ListQuery {
        viewer: Viewer {
            project: Some("p".into()),
            is_admin: true,
        },
        visibility: VisibilityFilter::All,
        members: MemberFilter::All,
        hidden: false,
        filters: vec![],
        sort: vec![],
        marker: None,
        limit: 1000,
    }
}

#[tokio::test]
async fn an_image_comes_back_as_it_went_in() {
    let s = scratch().await;
    let mut all = image(1);
    all.name = Some("ünïcode".into());
    all.visibility = Visibility::Community;
    all.protected = true;
    all.hidden = true;
    all.disk_format = Some("qcow2".into());
    all.container_format = Some("bare".into());
    all.min_ram = 64;
    all.size = Some(1 << 40);
    all.virtual_size = Some(2 << 40);
    all.hashes = Some(Hashes {
        checksum: Some("c".into()),
        algo: "sha512".into(),
        value: "v".into(),
    });
    all.tags = vec!["a".into(), "b".into()];
    all.properties = BTreeMap::from([("k".into(), String::new()), ("os".into(), "linux".into())]);
    insert(&s.catalog, &all).await;
    insert(&s.catalog, &image(2)).await;
    let mut tx = s.catalog.read().await.unwrap();
    assert_eq!(images::find(&mut tx, &all.id).await.unwrap(), Some(all));
}

#[tokio::test]
async fn an_id_is_never_given_out_twice() {
    let s = scratch().await;
    let one = image(1);
    insert(&s.catalog, &one).await;
    let mut tx = s.catalog.write().await.unwrap();
    images::delete(&mut tx, &one, Status::Deleted, Timestamp(5))
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut tx = s.catalog.write().await.unwrap();
    assert_eq!(images::find(&mut tx, &one.id).await.unwrap(), None);
    assert!(matches!(
        images::insert(&mut tx, &one).await,
        Err(Error::Conflict(_))
    ));
}

#[tokio::test]
async fn a_status_is_compared_before_it_is_set() {
    let s = scratch().await;
    let mut one = image(1);
    insert(&s.catalog, &one).await;
    one.status = Status::Saving;
    let mut tx = s.catalog.write().await.unwrap();
    images::update(&mut tx, &one, Status::Queued).await.unwrap();
    let again = images::update(&mut tx, &one, Status::Queued).await;
    assert!(matches!(again, Err(Error::Conflict(_))), "{again:?}");
}

#[tokio::test]
async fn pages_follow_each_other_in_every_order() {
    let s = scratch().await;
    for n in 0..40i64 {
        let mut i = image(n / 3);
        i.name = [None, Some("a"), Some("b")][(n % 3) as usize].map(Into::into);
        i.size = (n % 4 != 0).then_some((n % 5) as u64);
        insert(&s.catalog, &i).await;
    }
    let keys = [
        SortKey::Name,
        SortKey::Status,
        SortKey::Size,
        SortKey::CreatedAt,
        SortKey::UpdatedAt,
        SortKey::Id,
        SortKey::DiskFormat,
    ];
    for (n, first) in keys.into_iter().enumerate() {
        for (d1, d2) in [
            (Direction::Asc, Direction::Asc),
            (Direction::Desc, Direction::Asc),
            (Direction::Asc, Direction::Desc),
            (Direction::Desc, Direction::Desc),
        ] {
            let sort = vec![(first, d1), (keys[(n + 2) % keys.len()], d2)];
            let whole = list(
                &s.catalog,
                &ListQuery {
                    sort: sort.clone(),
                    ..everything()
                },
            )
            .await;
            assert_eq!(whole.len(), 40);
            let mut paged = Vec::new();
            let mut marker = None;
            loop {
                let query = ListQuery {
                    sort: sort.clone(),
                    marker,
                    limit: 7,
                    ..everything()
                };
                let page = list(&s.catalog, &query).await;
                marker = page.last().cloned();
                paged.extend(page);
                if marker.is_none() {
                    break;
                }
            }
            assert_eq!(paged, whole, "{sort:?}");
        }
    }
    let by_name = ListQuery {
        sort: vec![(SortKey::Name, Direction::Asc)],
        limit: 1,
        ..everything()
    };
    assert_eq!(
        list(&s.catalog, &by_name).await[0].name,
        None,
        "NULL comes first"
    );
}

#[tokio::test]
async fn filters_match_what_they_say() {
    let s = scratch().await;
    let mut one = image(10);
    one.name = Some("one".into());
    one.size = Some(100);
    one.tags = vec!["x".into(), "y".into()];
    one.properties = BTreeMap::from([("arch".into(), "arm".into())]);
    let mut two = image(20);
    two.name = Some("two".into());
    two.protected = true;
    two.tags = vec!["x".into()];
    insert(&s.catalog, &one).await;
    insert(&s.catalog, &two).await;
    let at = |n: i64| Timestamp(n * 1_000_000);
    let cases = [
        (
            vec![Filter::In(Column::Name, vec!["one".into()])],
            vec!["one"],
        ),
        (
            vec![Filter::In(Column::Name, vec!["one".into(), "two".into()])],
            vec!["two", "one"],
        ),
        (
            vec![Filter::Number(NumberColumn::Size, Op::Gte, 100)],
            vec!["one"],
        ),
        (
            vec![Filter::Number(NumberColumn::Size, Op::Lte, 99)],
            vec![],
        ),
        (
            vec![Filter::Time(TimeColumn::CreatedAt, Op::Gt, at(10))],
            vec!["two"],
        ),
        (
            vec![Filter::Time(TimeColumn::CreatedAt, Op::Gte, at(10))],
            vec!["two", "one"],
        ),
        (
            vec![Filter::Time(TimeColumn::CreatedAt, Op::Eq, at(10))],
            vec!["one"],
        ),
        (
            vec![Filter::Time(TimeColumn::CreatedAt, Op::Neq, at(10))],
            vec!["two"],
        ),
        (vec![Filter::Protected(true)], vec!["two"]),
        (
            vec![Filter::Tag("x".into()), Filter::Tag("y".into())],
            vec!["one"],
        ),
        (
            vec![Filter::Property("arch".into(), "arm".into())],
            vec!["one"],
        ),
        (vec![Filter::Property("arch".into(), "x86".into())], vec![]),
        (vec![Filter::Nothing], vec![]),
    ];
    for (filters, want) in cases {
        let found = list(
            &s.catalog,
            &ListQuery {
                filters: filters.clone(),
                ..everything()
            },
        )
        .await;
        let names: Vec<_> = found.iter().filter_map(|i| i.name.as_deref()).collect();
        assert_eq!(names, want, "{filters:?}");
    }
}

#[tokio::test]
async fn nobody_is_shown_what_is_not_theirs() {
    let s = scratch().await;
    for owner in [Some("p"), Some("q"), None] {
        for visibility in [
            Visibility::Public,
            Visibility::Private,
            Visibility::Shared,
            Visibility::Community,
        ] {
            let mut i = image(1);
            i.owner = owner.map(Into::into);
            i.visibility = visibility;
            i.name = Some(format!("{}-{}", owner.unwrap_or("none"), visibility.name()));
            insert(&s.catalog, &i).await;
        }
    }
    let names = async |is_admin, visibility| {
        let viewer = Viewer {
            project: Some("p".into()),
            is_admin,
        };
        let found = list(
            &s.catalog,
            &ListQuery {
                viewer,
                visibility,
                ..everything()
            },
        )
        .await;
        let mut names: Vec<_> = found.into_iter().filter_map(|i| i.name).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(
        names(false, VisibilityFilter::Default).await,
        "none-private none-public none-shared p-community p-private p-public p-shared q-public"
    );
    assert_eq!(
        names(false, VisibilityFilter::Only(Visibility::Community)).await,
        "none-community p-community q-community"
    );
    assert_eq!(
        names(false, VisibilityFilter::Only(Visibility::Private)).await,
        "none-private p-private"
    );
    assert!(
        names(true, VisibilityFilter::Default)
            .await
            .contains("q-private")
    );
    assert!(
        !names(true, VisibilityFilter::Default)
            .await
            .contains("q-community")
    );
    assert!(
        names(true, VisibilityFilter::All)
            .await
            .contains("q-community")
    );
}

#[tokio::test]
async fn a_job_is_held_by_one_worker_at_a_time() {
    let s = scratch().await;
    let t = |n| Timestamp(n);
    let mut tx = s.catalog.write().await.unwrap();
    jobs::enqueue(&mut tx, "j", "import", "{}", 0, t(0))
        .await
        .unwrap();
    let first = jobs::claim(&mut tx, t(1), t(10)).await.unwrap().unwrap();
    assert_eq!(jobs::claim(&mut tx, t(2), t(10)).await.unwrap(), None);
    jobs::heartbeat(&mut tx, &first, t(20)).await.unwrap();
    assert_eq!(jobs::claim(&mut tx, t(15), t(30)).await.unwrap(), None);
    // The first worker dies; the second takes over, and the first must not finish any more.
    let second = jobs::claim(&mut tx, t(21), t(40)).await.unwrap().unwrap();
    assert_eq!((second.fence, second.attempts), (2, 2));
    assert!(matches!(
        jobs::finish(&mut tx, &first).await,
        Err(Error::Conflict(_))
    ));
    jobs::retry(&mut tx, &second, "later", t(50)).await.unwrap();
    assert_eq!(jobs::claim(&mut tx, t(49), t(60)).await.unwrap(), None);
    let third = jobs::claim(&mut tx, t(50), t(60)).await.unwrap().unwrap();
    jobs::finish(&mut tx, &third).await.unwrap();
    assert_eq!(jobs::claim(&mut tx, t(100), t(200)).await.unwrap(), None);
}

#[tokio::test]
async fn locations_go_from_intent_to_fact_to_doom() {
    let s = scratch().await;
    let one = image(1);
    insert(&s.catalog, &one).await;
    let location = Location {
        id: "l".into(),
        store: "file".into(),
        url: "file:///x".into(),
        metadata: serde_json::Map::new(),
    };
    let mut tx = s.catalog.write().await.unwrap();
    locations::insert_pending(&mut tx, &one.id, &location, Timestamp(10), Timestamp(1))
        .await
        .unwrap();
    assert!(
        images::find(&mut tx, &one.id)
            .await
            .unwrap()
            .unwrap()
            .locations
            .is_empty()
    );
    assert_eq!(
        locations::doom_expired(&mut tx, Timestamp(10))
            .await
            .unwrap(),
        0
    );
    locations::activate(&mut tx, "l").await.unwrap();
    assert_eq!(
        locations::doom_expired(&mut tx, Timestamp(99))
            .await
            .unwrap(),
        0
    );
    let found = images::find(&mut tx, &one.id).await.unwrap().unwrap();
    assert_eq!(found.locations, std::slice::from_ref(&location));
    locations::doom_all(&mut tx, &one.id).await.unwrap();
    assert_eq!(locations::doomed(&mut tx, 9).await.unwrap(), [location]);
    assert!(matches!(
        locations::activate(&mut tx, "l").await,
        Err(Error::Conflict(_))
    ));
    locations::forget(&mut tx, "l").await.unwrap();
    assert!(locations::doomed(&mut tx, 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn staging_is_seen_when_it_is_complete() {
    let s = scratch().await;
    let one = image(1);
    insert(&s.catalog, &one).await;
    let mut tx = s.catalog.write().await.unwrap();
    staged::insert(&mut tx, &one.id, Timestamp(10))
        .await
        .unwrap();
    assert_eq!(staged::find(&mut tx, &one.id).await.unwrap(), None);
    assert_eq!(
        staged::expired(&mut tx, Timestamp(11)).await.unwrap(),
        std::slice::from_ref(&one.id)
    );
    let hashes = Hashes {
        checksum: Some("c".into()),
        algo: "a".into(),
        value: "v".into(),
    };
    let whole = staged::Staged { size: 7, hashes };
    staged::complete(&mut tx, &one.id, &whole).await.unwrap();
    assert_eq!(
        staged::find(&mut tx, &one.id).await.unwrap(),
        Some(whole.clone())
    );
    assert!(
        staged::expired(&mut tx, Timestamp(11))
            .await
            .unwrap()
            .is_empty()
    );
    staged::delete(&mut tx, &one.id).await.unwrap();
    assert!(staged::complete(&mut tx, &one.id, &whole).await.is_err());
}

#[tokio::test]
async fn a_new_catalog_has_no_version_until_it_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::open_sqlite(&dir.path().join("glint.db"))
        .await
        .unwrap();
    let (applied, known) = catalog.version().await.unwrap();
    assert_eq!(applied, None);
    catalog.sync().await.unwrap();
    assert_eq!(catalog.version().await.unwrap(), (Some(known), known));
}
