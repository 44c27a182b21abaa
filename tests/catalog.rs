//! The catalog on the databases it runs on.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;

use glint::catalog::{
    Catalog, Column, Direction, Error, Filter, ListQuery, MemberFilter, NumberColumn, Op, SortKey,
    TimeColumn, Tx, Viewer, VisibilityFilter, batches, images, jobs, locations, members, outbox,
    purge, staged,
};
use glint::domain::batch::Batch;
use glint::domain::{
    Hashes, Image, ImageId, Location, MemberStatus, Status, Timestamp, Visibility,
};

use glint::config::{Notifications, Secret};
use glint::notify::Events;
use serde_json::json;

mod support;

use support::database::{Database, Kind, on_every_database};

on_every_database!(
    crate::scratch:
    an_image_comes_back_as_it_went_in,
    an_id_is_never_given_out_twice,
    a_status_is_compared_before_it_is_set,
    pages_follow_each_other_in_every_order,
    filters_match_what_they_say,
    nobody_is_shown_what_is_not_theirs,
    a_job_is_held_by_one_worker_at_a_time,
    locations_go_from_intent_to_fact_to_doom,
    staging_is_seen_when_it_is_complete,
    syncing_again_changes_nothing,
    text_is_compared_by_its_bytes,
    nul_is_stored_or_refused_as_no_text,
    a_job_is_left_to_its_host,
    projects_take_turns,
    a_batch_keeps_to_its_concurrency,
    whoever_has_a_job_hears_that_it_is_to_end,
    a_clock_that_was_wrong_holds_nothing_up,
    a_purge_forgets_all_but_the_ids,
    two_that_wait_for_each_other_both_get_through,
    pages_are_what_an_oracle_says,
    whoever_goes_away_leaves_sound_connections,
    an_event_is_a_fact_with_its_fact,
    one_process_at_a_time_sends_events,
    events_are_dropped_by_age_and_number,
);

struct Scratch {
    catalog: Catalog,
    _database: Database,
}

async fn scratch(kind: Kind) -> Option<Scratch> {
    let database = Database::new(kind).await?;
    let catalog = match database.url.strip_prefix("sqlite:") {
        Some(path) => Catalog::open_sqlite(path.as_ref()).await.unwrap(),
        None => Catalog::open_server(&database.url, 4).await.unwrap(),
    };
    let before = catalog.version().await.unwrap();
    assert_eq!(before.applied, None);
    assert!(!before.missing.is_empty());
    // Connections older than the schema, as a service has that waits for it.
    let _ = tokio::join!(catalog.read(), catalog.read());
    catalog.sync().await.unwrap();
    Some(Scratch {
        catalog,
        _database: database,
    })
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

async fn an_image_comes_back_as_it_went_in(s: Scratch) {
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
    let odd = "\"quoted\", a \\, a\nline, \u{1} and ü€";
    all.tags = vec![odd.into(), "a".into()];
    all.properties = BTreeMap::from([
        ("k".into(), String::new()),
        (odd.into(), "linux".into()),
        ("long".into(), odd.repeat(2000)),
    ]);
    insert(&s.catalog, &all).await;
    insert(&s.catalog, &image(2)).await;
    let mut tx = s.catalog.write().await.unwrap();
    for (n, metadata) in [json!({}), json!({"why": odd})].into_iter().enumerate() {
        all.locations.push(Location {
            id: format!("l{n}"),
            store: "one".into(),
            url: format!("file:///{odd}"),
            metadata: metadata.as_object().unwrap().clone(),
        });
        let (location, now) = (&all.locations[n], Timestamp(n as i64));
        locations::insert_active(&mut tx, &all.id, location, now)
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
    let mut tx = s.catalog.read().await.unwrap();
    let found = images::find(&mut tx, &all.id).await.unwrap();
    assert_eq!(found.as_ref(), Some(&all));
    let hidden = ListQuery {
        hidden: true,
        ..everything()
    };
    assert_eq!(images::list(&mut tx, &hidden).await.unwrap(), [all]);
}

async fn an_id_is_never_given_out_twice(s: Scratch) {
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

async fn a_status_is_compared_before_it_is_set(s: Scratch) {
    let mut one = image(1);
    insert(&s.catalog, &one).await;
    one.status = Status::Saving;
    let mut tx = s.catalog.write().await.unwrap();
    images::update(&mut tx, &one, Status::Queued).await.unwrap();
    let again = images::update(&mut tx, &one, Status::Queued).await;
    assert!(matches!(again, Err(Error::Conflict(_))), "{again:?}");
}

async fn pages_follow_each_other_in_every_order(s: Scratch) {
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

async fn filters_match_what_they_say(s: Scratch) {
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

async fn nobody_is_shown_what_is_not_theirs(s: Scratch) {
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

async fn a_job_is_held_by_one_worker_at_a_time(s: Scratch) {
    let t = |n| Timestamp(n);
    let mut tx = s.catalog.write().await.unwrap();
    jobs::enqueue(&mut tx, "j", "import", "{}", 0, t(0))
        .await
        .unwrap();
    let first = jobs::claim(&mut tx, None, t(1), t(10))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(jobs::claim(&mut tx, None, t(2), t(10)).await.unwrap(), None);
    jobs::heartbeat(&mut tx, &first, t(20)).await.unwrap();
    assert_eq!(
        jobs::claim(&mut tx, None, t(15), t(30)).await.unwrap(),
        None
    );
    // The first worker dies; the second takes over, and the first must not finish any more.
    let second = jobs::claim(&mut tx, None, t(21), t(40))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((second.fence, second.attempts), (2, 2));
    assert!(matches!(
        jobs::finish(&mut tx, &first).await,
        Err(Error::Conflict(_))
    ));
    jobs::retry(&mut tx, &second, "later", t(50)).await.unwrap();
    assert_eq!(
        jobs::claim(&mut tx, None, t(49), t(60)).await.unwrap(),
        None
    );
    let third = jobs::claim(&mut tx, None, t(50), t(60))
        .await
        .unwrap()
        .unwrap();
    jobs::finish(&mut tx, &third).await.unwrap();
    assert_eq!(
        jobs::claim(&mut tx, None, t(100), t(200)).await.unwrap(),
        None
    );
}

async fn locations_go_from_intent_to_fact_to_doom(s: Scratch) {
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

async fn staging_is_seen_when_it_is_complete(s: Scratch) {
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

async fn syncing_again_changes_nothing(s: Scratch) {
    let version = s.catalog.version().await.unwrap();
    assert_eq!(version.applied, Some(version.newest));
    assert!(version.missing.is_empty());
    s.catalog.sync().await.unwrap();
    assert_eq!(s.catalog.version().await.unwrap(), version);
}

async fn text_is_compared_by_its_bytes(s: Scratch) {
    let names = [
        "",
        " ",
        "A",
        "A ",
        "Z",
        "a",
        "a\u{301}",
        "\u{e4}",
        "\u{ffff}",
        "\u{1f980}",
    ];
    let mut tagged = image(0);
    tagged.tags = names.iter().map(|&n| n.to_owned()).collect();
    insert(&s.catalog, &tagged).await;
    let mut tx = s.catalog.read().await.unwrap();
    assert_eq!(
        images::find(&mut tx, &tagged.id).await.unwrap(),
        Some(tagged)
    );
    drop(tx);
    for name in names {
        let mut i = image(1);
        i.name = Some(name.into());
        insert(&s.catalog, &i).await;
        let query = ListQuery {
            filters: vec![Filter::In(Column::Name, vec![name.into()])],
            ..everything()
        };
        assert_eq!(list(&s.catalog, &query).await, [i], "{name:?}");
    }
    let sorted = ListQuery {
        sort: vec![(SortKey::Name, Direction::Asc)],
        ..everything()
    };
    let found = list(&s.catalog, &sorted).await;
    let found: Vec<_> = found.iter().filter_map(|i| i.name.as_deref()).collect();
    assert_eq!(found, names);
}

/// The API refuses it before; should it come another way, the fault is not the database's.
async fn nul_is_stored_or_refused_as_no_text(s: Scratch) {
    let image = Image {
        name: Some("a\0b".into()),
        ..Image::new(ImageId::random(), None, Timestamp::now())
    };
    let mut tx = s.catalog.write().await.unwrap();
    match images::insert(&mut tx, &image).await {
        Ok(()) => {
            let found = images::find(&mut tx, &image.id).await.unwrap();
            assert_eq!(found.unwrap().name, image.name);
        }
        Err(e) => assert!(matches!(e, Error::Unstorable(_)), "{e:?}"),
    }
}

async fn projects_take_turns(s: Scratch) {
    let mut tx = s.catalog.write().await.unwrap();
    let now = Timestamp(0);
    for (id, project) in [
        ("a1", "a"),
        ("a2", "a"),
        ("a3", "a"),
        ("b1", "b"),
        ("b2", "b"),
        ("c1", "c"),
    ] {
        jobs::enqueue(&mut tx, id, "import", "{}", 0, now)
            .await
            .unwrap();
        jobs::belongs_to(&mut tx, id, project).await.unwrap();
    }
    jobs::enqueue(&mut tx, "urgent", "import", "{}", 1, now)
        .await
        .unwrap();
    let mut order = Vec::new();
    while let Some(job) = jobs::claim(&mut tx, None, Timestamp(1), Timestamp(9))
        .await
        .unwrap()
    {
        if job.id == "a2" {
            // Who comes later does not go before those whose turn it is, nor after all the rest.
            jobs::enqueue(&mut tx, "d1", "import", "{}", 0, now)
                .await
                .unwrap();
            jobs::belongs_to(&mut tx, "d1", "d").await.unwrap();
        }
        jobs::finish(&mut tx, &job).await.unwrap();
        order.push(job.id);
    }
    let want = ["urgent", "a1", "b1", "c1", "a2", "b2", "d1", "a3"];
    assert_eq!(order, want);
}

async fn a_batch_keeps_to_its_concurrency(s: Scratch) {
    let mut tx = s.catalog.write().await.unwrap();
    let batch = Batch {
        id: "b".into(),
        owner: Some("p".into()),
        user_id: None,
        plan: serde_json::json!({}),
        concurrency: 1,
        created_at: Timestamp(0),
    };
    batches::insert(&mut tx, &batch).await.unwrap();
    let parts = ["1", "2", "3"].map(|id| jobs::Part {
        id: id.into(),
        payload: "{}".into(),
        host: None,
    });
    jobs::enqueue_batch(
        &mut tx,
        "b",
        Some("p"),
        "import",
        parts.into(),
        Timestamp(0),
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();

    let claim = async |tx: &mut Tx, now| {
        let claimed = jobs::claim(tx, None, Timestamp(now), Timestamp(now + 10)).await;
        claimed.unwrap()
    };
    let mut tx = s.catalog.write().await.unwrap();
    let first = claim(&mut tx, 1).await.unwrap();
    assert_eq!(first.id, "1");
    // Somebody claims at the same time, before the first claim is a fact.
    let other = {
        let catalog = s.catalog.clone();
        tokio::spawn(async move {
            let mut tx = catalog.write().await.unwrap();
            let claimed = jobs::claim(&mut tx, None, Timestamp(1), Timestamp(11)).await;
            tx.commit().await.unwrap();
            claimed.unwrap()
        })
    };
    tokio::task::yield_now().await;
    tx.commit().await.unwrap();
    assert_eq!(other.await.unwrap(), None);

    let mut tx = s.catalog.write().await.unwrap();
    jobs::enqueue(&mut tx, "alone", "import", "{}", 0, Timestamp(1))
        .await
        .unwrap();
    assert_eq!(claim(&mut tx, 2).await.unwrap().id, "alone");
    jobs::finish(&mut tx, &first).await.unwrap();
    assert_eq!(claim(&mut tx, 2).await.unwrap().id, "2");
    assert_eq!(claim(&mut tx, 2).await, None);
    // A lease that is over takes no place.
    let again = claim(&mut tx, 13).await.unwrap();
    assert_eq!(again.id, "alone");
    assert_eq!(claim(&mut tx, 13).await.unwrap().id, "2");
    // What is to end may go beyond.
    jobs::stop_batch(&mut tx, "b").await.unwrap();
    let stopped = claim(&mut tx, 14).await.unwrap();
    assert!(stopped.id == "3" && stopped.is_cancelled);
}

async fn whoever_has_a_job_hears_that_it_is_to_end(s: Scratch) {
    let mut tx = s.catalog.write().await.unwrap();
    jobs::enqueue(&mut tx, "j", "import", "{}", 0, Timestamp(0))
        .await
        .unwrap();
    let job = jobs::claim(&mut tx, None, Timestamp(1), Timestamp(9))
        .await
        .unwrap()
        .unwrap();
    assert!(!jobs::heartbeat(&mut tx, &job, Timestamp(9)).await.unwrap());
    assert!(jobs::stop(&mut tx, "j").await.unwrap());
    assert!(!jobs::stop(&mut tx, "another").await.unwrap());
    assert!(jobs::heartbeat(&mut tx, &job, Timestamp(9)).await.unwrap());
    // And so does who gets it next, at once.
    jobs::give_back(&mut tx, &job).await.unwrap();
    let again = jobs::claim(&mut tx, None, Timestamp(1), Timestamp(9))
        .await
        .unwrap()
        .unwrap();
    assert!(again.is_cancelled);
    assert_eq!((again.fence, again.attempts), (2, 1));
    let at_work = jobs::at_work(&mut tx, Timestamp(5)).await.unwrap();
    assert_eq!(at_work, [(2, "{}".to_owned())]);
    assert_eq!(jobs::at_work(&mut tx, Timestamp(10)).await.unwrap(), []);
}

async fn a_clock_that_was_wrong_holds_nothing_up(s: Scratch) {
    let mut tx = s.catalog.write().await.unwrap();
    let now = tx.clock().await.unwrap();
    let off = (now.0 - Timestamp::now().0).abs();
    assert!(off < 60_000_000, "the catalog's clock is {off} µs off");
    jobs::enqueue(&mut tx, "j", "import", "{}", 0, now)
        .await
        .unwrap();
    let tomorrow = now.plus_seconds(24 * 3600);
    let job = jobs::claim(&mut tx, None, tomorrow, tomorrow.plus_seconds(60))
        .await
        .unwrap()
        .unwrap();
    let lease = now.plus_seconds(60);
    let again = jobs::claim(&mut tx, None, now, lease).await.unwrap();
    let again = again.expect("a lease until tomorrow is nobody's");
    assert!(jobs::heartbeat(&mut tx, &job, lease).await.is_err());
    jobs::retry(&mut tx, &again, "later", tomorrow)
        .await
        .unwrap();
    let later = jobs::claim(&mut tx, None, now, lease).await.unwrap();
    assert!(later.is_some(), "nobody waits until tomorrow");
}

async fn a_job_is_left_to_its_host(s: Scratch) {
    let mut tx = s.catalog.write().await.unwrap();
    jobs::enqueue(&mut tx, "j", "import", "{}", 0, Timestamp(0))
        .await
        .unwrap();
    jobs::leave_to(&mut tx, "j", "here").await.unwrap();
    for (host, finds) in [(None, false), (Some("there"), false), (Some("here"), true)] {
        let found = jobs::claim(&mut tx, host, Timestamp(1), Timestamp(9))
            .await
            .unwrap();
        assert_eq!(found.is_some(), finds, "{host:?}");
    }
}

async fn a_purge_forgets_all_but_the_ids(s: Scratch) {
    let mut all: Vec<_> = (0..4).map(image).collect();
    for (n, one) in all.iter_mut().enumerate() {
        one.name = Some("secret".into());
        one.tags = vec!["t".into()];
        insert(&s.catalog, one).await;
        if n > 0 {
            let mut tx = s.catalog.write().await.unwrap();
            let at = Timestamp(n as i64 * 100);
            images::delete(&mut tx, one, Status::Queued, at)
                .await
                .unwrap();
            tx.commit().await.unwrap();
        }
    }
    // One whose bytes still wait for the sweep.
    let mut location = Location::new("file", "file:///x", serde_json::Map::new());
    location.id = "l".into();
    let mut tx = s.catalog.write().await.unwrap();
    locations::insert_pending(&mut tx, &all[1].id, &location, Timestamp(0), Timestamp(0))
        .await
        .unwrap();
    let purge = async |tx: &mut Tx, before| {
        purge::deleted_images(tx, Timestamp(before), 10)
            .await
            .unwrap()
    };
    assert_eq!(
        purge(&mut tx, 300).await,
        1,
        "the second; the third is too young"
    );
    assert_eq!(purge(&mut tx, 300).await, 0);
    locations::doom_all(&mut tx, &all[1].id).await.unwrap();
    locations::forget(&mut tx, "l").await.unwrap();
    assert_eq!(purge(&mut tx, 301).await, 2);
    tx.commit().await.unwrap();
    for one in &all {
        let mut tx = s.catalog.write().await.unwrap();
        let again = images::insert(&mut tx, one).await;
        assert!(matches!(again, Err(Error::Conflict(_))), "{again:?}");
    }
    assert_eq!(list(&s.catalog, &everything()).await, all[..1]);
}

async fn two_that_wait_for_each_other_both_get_through(s: Scratch) {
    if !s.catalog.is_shared() {
        // One writer waits for nobody.
        return;
    }
    let (a, b) = (image(1), image(2));
    insert(&s.catalog, &a).await;
    insert(&s.catalog, &b).await;
    let held = std::sync::Arc::new(tokio::sync::Barrier::new(2));
    let run = |first: ImageId, second: ImageId| {
        let (catalog, held) = (s.catalog.clone(), held.clone());
        async move {
            let mut tx = catalog.write().await?;
            let mut image = images::find(&mut tx, &first).await?.unwrap();
            held.wait().await;
            images::find(&mut tx, &second).await?.unwrap();
            image.name = Some(format!("with {second}"));
            images::update(&mut tx, &image, Status::Queued).await?;
            tx.commit().await
        }
    };
    let (one, two) = tokio::join!(
        run(a.id.clone(), b.id.clone()),
        run(b.id.clone(), a.id.clone())
    );
    // The one that was undone went on only if what it had read was still so.
    assert!(one.is_ok() || two.is_ok(), "{one:?} {two:?}");
    for (done, of, with) in [(one, &a, &b), (two, &b, &a)] {
        let mut tx = s.catalog.read().await.unwrap();
        let found = images::find(&mut tx, &of.id).await.unwrap().unwrap();
        match done {
            Ok(()) => assert_eq!(found.name, Some(format!("with {}", with.id))),
            Err(Error::Contended(_)) => assert_eq!(found.name, None),
            Err(e) => panic!("{e:?}"),
        }
    }
}

/// The same numbers every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())].clone()
    }
}

const STATUSES: [MemberStatus; 3] = [
    MemberStatus::Pending,
    MemberStatus::Accepted,
    MemberStatus::Rejected,
];

/// Which project an image is shared with, by the image's id.
type Shared = HashMap<String, (&'static str, MemberStatus)>;

const VISIBILITIES: [Visibility; 4] = [
    Visibility::Public,
    Visibility::Private,
    Visibility::Shared,
    Visibility::Community,
];

async fn pages_are_what_an_oracle_says(s: Scratch) {
    let mut dice = Dice(11);
    let (mut all, mut shared) = (Vec::new(), Shared::new());
    for n in 0..70 {
        let mut i = image(n / 4);
        i.owner = dice.pick(&[Some("p"), Some("q"), None]).map(Into::into);
        i.visibility = dice.pick(&VISIBILITIES);
        i.hidden = dice.roll(8) == 0;
        i.protected = dice.roll(3) == 0;
        i.name = dice.pick(&[None, Some("a"), Some("b")]).map(Into::into);
        i.disk_format = dice
            .pick(&[None, Some("raw"), Some("qcow2")])
            .map(Into::into);
        i.size = dice.pick(&[None, Some(1), Some(2)]);
        i.updated_at = Timestamp(dice.roll(5) as i64);
        i.tags = dice.pick(&[vec![], vec!["t".to_owned()]]);
        if dice.roll(2) == 0 {
            i.properties
                .insert("k".into(), dice.pick(&["v", "w"]).into());
        }
        insert(&s.catalog, &i).await;
        if dice.roll(2) == 0 {
            let (project, status) = (dice.pick(&["p", "q"]), dice.pick(&STATUSES));
            let mut tx = s.catalog.write().await.unwrap();
            members::insert(&mut tx, &i.id, project, Timestamp(0))
                .await
                .unwrap();
            members::set_status(&mut tx, &i.id, project, status, Timestamp(0))
                .await
                .unwrap();
            tx.commit().await.unwrap();
            shared.insert(i.id.to_string(), (project, status));
        }
        all.push(i);
    }
    for _ in 0..300 {
        let query = question(&mut dice, &all);
        let found = list(&s.catalog, &query).await;
        let want = oracle(&query, &all, &shared);
        let ids = |images: &[Image]| images.iter().map(|i| i.id.to_string()).collect::<Vec<_>>();
        assert_eq!(ids(&found), ids(&want), "{query:?}");
    }
}

fn question(dice: &mut Dice, all: &[Image]) -> ListQuery {
    const KEYS: [SortKey; 7] = [
        SortKey::Name,
        SortKey::Status,
        SortKey::DiskFormat,
        SortKey::Size,
        SortKey::Id,
        SortKey::CreatedAt,
        SortKey::UpdatedAt,
    ];
    let directions = [Direction::Asc, Direction::Desc];
    let mut sort = Vec::new();
    for _ in 0..dice.roll(3) {
        let key = dice.pick(&KEYS);
        if !sort.iter().any(|(k, _)| *k == key) {
            sort.push((key, dice.pick(&directions)));
        }
    }
    let mut filters = Vec::new();
    if dice.roll(2) == 0 {
        filters.push(match dice.roll(8) {
            0 => Filter::In(Column::Name, vec!["a".into()]),
            1 => Filter::In(Column::Owner, vec!["q".into()]),
            2 => Filter::In(Column::DiskFormat, vec!["raw".into(), "qcow2".into()]),
            3 => Filter::Number(NumberColumn::Size, Op::Gte, 2),
            4 => Filter::Protected(true),
            5 => Filter::Tag("t".into()),
            6 => Filter::Property("k".into(), "v".into()),
            _ => Filter::In(Column::Id, vec![dice.pick(all).id.to_string()]),
        });
    }
    ListQuery {
        viewer: Viewer {
            project: dice.pick(&[Some("p"), Some("q"), None]).map(Into::into),
            is_admin: dice.roll(3) == 0,
        },
        visibility: match dice.roll(3) {
            0 => VisibilityFilter::Default,
            1 => VisibilityFilter::All,
            _ => VisibilityFilter::Only(dice.pick(&VISIBILITIES)),
        },
        members: match dice.roll(2) {
            0 => MemberFilter::All,
            _ => MemberFilter::Only(dice.pick(&STATUSES)),
        },
        hidden: dice.roll(6) == 0,
        filters,
        sort,
        marker: (dice.roll(2) == 0).then(|| dice.pick(all)),
        limit: dice.pick(&[1, 5, 100]),
    }
}

fn oracle(query: &ListQuery, all: &[Image], shared: &Shared) -> Vec<Image> {
    let mut keys = query.sort.clone();
    let last = keys.last().map_or(Direction::Desc, |(_, d)| *d);
    keys.extend([(SortKey::CreatedAt, last), (SortKey::Id, last)]);
    let order = |a: &Image, b: &Image| {
        let compare = |key| match key {
            SortKey::Name => a.name.cmp(&b.name),
            SortKey::Status => a.status.name().cmp(b.status.name()),
            SortKey::ContainerFormat => a.container_format.cmp(&b.container_format),
            SortKey::DiskFormat => a.disk_format.cmp(&b.disk_format),
            SortKey::Size => a.size.cmp(&b.size),
            SortKey::Id => a.id.cmp(&b.id),
            SortKey::CreatedAt => a.created_at.cmp(&b.created_at),
            SortKey::UpdatedAt => a.updated_at.cmp(&b.updated_at),
        };
        keys.iter()
            .map(|(key, direction)| match direction {
                Direction::Asc => compare(*key),
                Direction::Desc => compare(*key).reverse(),
            })
            .find(|o| o.is_ne())
            .unwrap_or(std::cmp::Ordering::Equal)
    };
    let mut found: Vec<_> = all
        .iter()
        .filter(|i| i.hidden == query.hidden && sees(query, i, shared) && matches(query, i))
        .filter(|i| query.marker.as_ref().is_none_or(|m| order(i, m).is_gt()))
        .cloned()
        .collect();
    found.sort_by(order);
    found.truncate(query.limit as usize);
    found
}

fn sees(query: &ListQuery, image: &Image, shared: &Shared) -> bool {
    let owns = image.owner.is_some() && image.owner == query.viewer.project;
    let open = matches!(image.visibility, Visibility::Public | Visibility::Community);
    let is_member = shared
        .get(image.id.as_str())
        .is_some_and(|(project, status)| {
            image.visibility == Visibility::Shared
                && query.viewer.project.as_deref() == Some(project)
                && match query.members {
                    MemberFilter::All => true,
                    MemberFilter::Only(only) => *status == only,
                }
        });
    let may = query.viewer.is_admin || open || owns || image.owner.is_none() || is_member;
    may && match query.visibility {
        VisibilityFilter::All => true,
        VisibilityFilter::Default => image.visibility != Visibility::Community || owns,
        VisibilityFilter::Only(v) => image.visibility == v,
    }
}

fn matches(query: &ListQuery, image: &Image) -> bool {
    let is = |value: &Option<String>, of: &[String]| value.as_ref().is_some_and(|v| of.contains(v));
    query.filters.iter().all(|filter| match filter {
        Filter::In(Column::Name, of) => is(&image.name, of),
        Filter::In(Column::Owner, of) => is(&image.owner, of),
        Filter::In(Column::DiskFormat, of) => is(&image.disk_format, of),
        Filter::In(Column::Id, of) => of.contains(&image.id.to_string()),
        Filter::Number(NumberColumn::Size, Op::Gte, n) => {
            image.size.is_some_and(|s| s as i64 >= *n)
        }
        Filter::Protected(flag) => image.protected == *flag,
        Filter::Tag(tag) => image.tags.contains(tag),
        Filter::Property(name, value) => image.properties.get(name) == Some(value),
        other => panic!("the oracle knows nothing of {other:?}"),
    })
}

/// A catalog that notes events, all but those of its updates.
fn telling(scratch: &Scratch) -> Catalog {
    let config = Notifications {
        transport_url: Some(Secret::new("rabbit://nobody/".into())),
        disabled_notifications: vec!["image.update".into()],
        ..Notifications::default()
    };
    scratch
        .catalog
        .clone()
        .with_events(Events::from_config(&config))
}

async fn claimed(catalog: &Catalog, holder: &str, now: Timestamp) -> Vec<outbox::Event> {
    let mut tx = catalog.write().await.unwrap();
    let until = now.plus_seconds(60);
    let events = outbox::take(&mut tx, holder, now, until).await.unwrap();
    tx.commit().await.unwrap();
    events
}

async fn an_event_is_a_fact_with_its_fact(scratch: Scratch) {
    let silent = image(1);
    insert(&scratch.catalog, &silent).await;
    let catalog = telling(&scratch);
    let undone = image(2);
    let mut tx = catalog.write().await.unwrap();
    images::insert(&mut tx, &undone).await.unwrap();
    drop(tx);
    let told = image(3);
    insert(&catalog, &told).await;
    let mut tx = catalog.write().await.unwrap();
    images::change(&mut tx, &told.id, Status::Queued, |image| {
        image.hidden = true;
    })
    .await
    .unwrap();
    let image = images::find(&mut tx, &told.id).await.unwrap().unwrap();
    images::delete(&mut tx, &image, Status::Deleted, Timestamp(5))
        .await
        .unwrap();
    tx.commit().await.unwrap();

    let events = claimed(&catalog, "a", Timestamp(1)).await;
    let seen: Vec<_> = events
        .iter()
        .map(|e| (e.event_type.as_str(), e.payload["id"].as_str().unwrap()))
        .collect();
    let id = told.id.as_str();
    assert_eq!(seen, [("image.create", id), ("image.delete", id)]);
    outbox::remove(&catalog, &events).await.unwrap();
    assert_eq!(outbox::depth(&catalog).await.unwrap(), 0);
}

async fn one_process_at_a_time_sends_events(scratch: Scratch) {
    let catalog = telling(&scratch);
    let now = Timestamp(1_000_000_000);
    for n in 0..3 {
        insert(&catalog, &image(n)).await;
    }
    let first = claimed(&catalog, "a", now).await;
    assert_eq!(first.len(), 3);
    assert!(first.is_sorted_by_key(|e| e.id));
    assert!(claimed(&catalog, "b", now).await.is_empty());
    // The one that sends is given the same again after a restart, with the same ids.
    assert_eq!(claimed(&catalog, "a", now).await, first);
    outbox::release(&catalog, "b").await.unwrap();
    assert!(claimed(&catalog, "b", now).await.is_empty());
    // It has died: what it held is the other's once the lease is over.
    let later = now.plus_seconds(61);
    assert_eq!(claimed(&catalog, "b", later).await, first);
    assert!(claimed(&catalog, "a", later).await.is_empty());
    outbox::release(&catalog, "b").await.unwrap();
    assert_eq!(claimed(&catalog, "a", later).await, first);
    outbox::remove(&catalog, &first).await.unwrap();
    // Whoever finds nothing left lets go.
    assert!(claimed(&catalog, "a", later).await.is_empty());
    insert(&catalog, &image(4)).await;
    assert_eq!(claimed(&catalog, "b", later).await.len(), 1);
    assert!(outbox::claim(&catalog, "b", 60).await.unwrap().len() == 1);
}

async fn events_are_dropped_by_age_and_number(scratch: Scratch) {
    let catalog = telling(&scratch);
    for n in 0..5 {
        insert(&catalog, &image(n)).await;
    }
    let all = claimed(&catalog, "a", Timestamp(1)).await;
    assert_eq!(outbox::trim(&catalog, Timestamp(0), 5).await.unwrap(), 0);
    assert_eq!(outbox::trim(&catalog, Timestamp(0), 3).await.unwrap(), 2);
    assert_eq!(claimed(&catalog, "a", Timestamp(1)).await, all[2..]);
    let after = all[4].created_at.plus_seconds(1);
    assert_eq!(outbox::trim(&catalog, after, 3).await.unwrap(), 3);
    assert_eq!(outbox::depth(&catalog).await.unwrap(), 0);
}

/// As a server does when its client is gone: what was asked for is dropped, wherever it is.
async fn whoever_goes_away_leaves_sound_connections(s: Scratch) {
    let one = image(1);
    insert(&s.catalog, &one).await;
    let everything = everything();
    let look = async || {
        list(&s.catalog, &everything).await;
    };
    let change = async || {
        let mut tx = s.catalog.write().await.unwrap();
        images::change(&mut tx, &one.id, Status::Queued, |_| {})
            .await
            .unwrap();
        tx.commit().await.unwrap();
    };
    for n in 0..480 {
        let polls = n / 2 % 24;
        let mut asked: Pin<Box<dyn Future<Output = ()>>> = match n % 2 {
            0 => Box::pin(look()),
            _ => Box::pin(change()),
        };
        for _ in 0..polls {
            if futures_util::poll!(&mut asked).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    // As many at once as there are connections, and then some.
    let seen = (0..16).map(|_| list(&s.catalog, &everything));
    for images in futures_util::future::join_all(seen).await {
        assert_eq!(images.len(), 1);
    }
    insert(&s.catalog, &image(2)).await;
}
