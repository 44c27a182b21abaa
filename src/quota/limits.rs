//! Keystone's unified limits: registered ones for everybody, and those of single projects above
//! them.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;

use super::{Exceeded, MIB, Step};
use crate::auth::keystone::{Keystone, Trouble};
use crate::catalog::usage::Usage;

/// A limit that is kept for us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// MiB of all images.
    SizeTotal,
    /// MiB in staging.
    StageTotal,
    /// Images.
    CountTotal,
    /// Images that are being uploaded, imported or copied.
    CountUploading,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::SizeTotal,
        Self::StageTotal,
        Self::CountTotal,
        Self::CountUploading,
    ];

    /// Its name in Keystone.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SizeTotal => "image_size_total",
            Self::StageTotal => "image_stage_total",
            Self::CountTotal => "image_count_total",
            Self::CountUploading => "image_count_uploading",
        }
    }

    /// How much of it is used.
    #[must_use]
    pub const fn used(self, usage: &Usage) -> u64 {
        match self {
            Self::SizeTotal => usage.stored / MIB,
            Self::StageTotal => usage.staged / MIB,
            Self::CountTotal => usage.images,
            Self::CountUploading => usage.uploading,
        }
    }
}

/// The limits of one project, in the order of [`Limit::ALL`]; negative means unlimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits([i64; 4]);

impl Limits {
    /// One of them. What nobody registered is 0.
    #[must_use]
    pub const fn of(&self, limit: Limit) -> i64 {
        self.0[limit as usize]
    }

    /// Whether somebody who holds `usage` may begin `step`.
    pub(super) fn allow(&self, project: &str, usage: &Usage, step: Step) -> Result<(), Exceeded> {
        let (first, second): ((Limit, u64), Option<(Limit, u64)>) = match step {
            Step::Create(images) => ((Limit::CountTotal, images), None),
            Step::Upload(size) => (
                (Limit::SizeTotal, size.unwrap_or(0) / MIB),
                Some((Limit::CountUploading, 1)),
            ),
            Step::Stage | Step::ImportFetched => {
                ((Limit::StageTotal, 0), Some((Limit::CountUploading, 1)))
            }
            // It is counted among the uploading ones already.
            Step::ImportStaged(size) => ((Limit::SizeTotal, size / MIB), None),
            Step::Batch(images) => (
                (Limit::CountTotal, images),
                Some((Limit::CountUploading, images)),
            ),
        };
        [Some(first), second]
            .into_iter()
            .flatten()
            .try_for_each(|(limit, delta)| self.fits(project, usage, limit, delta))
    }

    fn fits(&self, project: &str, usage: &Usage, limit: Limit, delta: u64) -> Result<(), Exceeded> {
        let Ok(allowed) = u64::try_from(self.of(limit)) else {
            return Ok(());
        };
        let used = limit.used(usage);
        if used.saturating_add(delta) <= allowed {
            return Ok(());
        }
        Err(Exceeded(format!(
            "Project {project} is over a limit for [Resource {} is over limit of {allowed} due to \
             current usage {used} and delta {delta}]",
            limit.name()
        )))
    }
}

/// Where limits are kept.
pub(super) struct Source {
    keystone: Arc<Keystone>,
    endpoint: Option<String>,
    region: Option<String>,
    ours: OnceCell<(String, Option<String>)>,
}

#[derive(Deserialize)]
struct Services {
    services: Vec<Service>,
}

#[derive(Deserialize)]
struct Service {
    id: String,
}

#[derive(Deserialize)]
struct EndpointAnswer {
    endpoint: Endpoint,
}

#[derive(Deserialize)]
struct Endpoint {
    service_id: String,
    region_id: Option<String>,
}

#[derive(Deserialize)]
struct Registered {
    registered_limits: Vec<RegisteredLimit>,
}

#[derive(Deserialize)]
struct RegisteredLimit {
    resource_name: String,
    region_id: Option<String>,
    default_limit: i64,
}

#[derive(Deserialize)]
struct OfProject {
    limits: Vec<ProjectLimit>,
}

#[derive(Deserialize)]
struct ProjectLimit {
    resource_name: String,
    region_id: Option<String>,
    resource_limit: i64,
}

impl Source {
    pub(super) fn new(
        keystone: Arc<Keystone>,
        endpoint: Option<String>,
        region: Option<String>,
    ) -> Self {
        Self {
            keystone,
            endpoint,
            region,
            ours: OnceCell::new(),
        }
    }

    /// The limits of `project`.
    pub(super) async fn of(&self, project: &str) -> Result<Limits, Trouble> {
        let (service, region) = self.ours.get_or_try_init(|| self.find_us()).await?;
        let path = format!("/registered_limits?service_id={service}");
        let registered: Registered = self.read(&path, "the registered limits").await?;
        let project =
            percent_encoding::utf8_percent_encode(project, percent_encoding::NON_ALPHANUMERIC);
        let path = format!("/limits?service_id={service}&project_id={project}");
        let own: OfProject = self.read(&path, "the limits of a project").await?;

        let mut limits = Limits::default();
        for (n, limit) in Limit::ALL.into_iter().enumerate() {
            let all = registered.registered_limits.iter();
            let default = all
                .filter(|r| r.resource_name == limit.name())
                .map(|r| (r.region_id.as_deref(), r.default_limit));
            let own = own
                .limits
                .iter()
                .filter(|l| l.resource_name == limit.name())
                .map(|l| (l.region_id.as_deref(), l.resource_limit));
            let region = region.as_deref();
            let found = nearest(own, region).or_else(|| nearest(default, region));
            limits.0[n] = found.unwrap_or(0);
        }
        Ok(limits)
    }

    /// Which service we are, and in which region.
    async fn find_us(&self) -> Result<(String, Option<String>), Trouble> {
        let what = "the question which service we are";
        if let Some(id) = &self.endpoint {
            let path = format!("/endpoints/{id}");
            let answer: EndpointAnswer = self.read(&path, what).await?;
            return Ok((answer.endpoint.service_id, answer.endpoint.region_id));
        }
        let answer: Services = self.read("/services?type=image", what).await?;
        let service = answer.services.into_iter().next();
        let id = service.ok_or(Trouble::Nonsense(what))?.id;
        Ok((id, self.region.clone()))
    }

    async fn read<T: DeserializeOwned>(
        &self,
        path: &str,
        what: &'static str,
    ) -> Result<T, Trouble> {
        self.keystone.read(path, what).await
    }
}

/// The limit of our region, else the one for all regions; any where we do not know ours.
fn nearest<'a>(
    limits: impl Iterator<Item = (Option<&'a str>, i64)>,
    ours: Option<&str>,
) -> Option<i64> {
    let fitting =
        limits.filter(|(region, _)| region.is_none() || ours.is_none() || *region == ours);
    fitting
        .max_by_key(|(region, _)| region.is_some())
        .map(|(_, limit)| limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits([10, 10, 3, 1]);

    fn allowed(usage: &Usage, step: Step) -> bool {
        LIMITS.allow("p", usage, step).is_ok()
    }

    #[test]
    fn a_step_may_reach_its_limits_and_not_pass_them() {
        let some = Usage {
            stored: 9 * MIB,
            staged: 10 * MIB,
            images: 2,
            uploading: 0,
        };
        for (step, want) in [
            (Step::Create(1), true),
            (Step::Upload(Some(MIB)), true),
            (Step::Upload(Some(2 * MIB)), false),
            (Step::Upload(None), true),
            (Step::Stage, true),
            (Step::ImportStaged(MIB), true),
            (Step::ImportStaged(2 * MIB), false),
            (Step::ImportFetched, true),
            (Step::Batch(1), true),
            (Step::Batch(2), false),
        ] {
            assert_eq!(allowed(&some, step), want, "{step:?}");
        }
        let full = Usage {
            stored: 11 * MIB,
            staged: 11 * MIB,
            images: 3,
            uploading: 1,
        };
        for step in [
            Step::Create(1),
            Step::Upload(None),
            Step::Stage,
            Step::ImportStaged(0),
            Step::ImportFetched,
            Step::Batch(1),
        ] {
            assert!(!allowed(&full, step), "{step:?}");
        }
    }

    #[test]
    fn negative_is_unlimited_and_nothing_is_none() {
        let some = Usage {
            images: 1000,
            ..Usage::default()
        };
        assert!(Limits([-1; 4]).allow("p", &some, Step::Create(1)).is_ok());
        let none = Limits::default().allow("p", &Usage::default(), Step::Create(1));
        let sentence = none.unwrap_err().0;
        assert!(
            sentence.contains("image_count_total is over limit of 0"),
            "{sentence}"
        );
    }

    #[test]
    fn the_limit_of_our_region_counts_before_that_of_all() {
        let limits = || [(None, 1), (Some("here"), 2), (Some("there"), 3)].into_iter();
        assert_eq!(nearest(limits(), Some("here")), Some(2));
        assert_eq!(nearest(limits(), Some("elsewhere")), Some(1));
        assert_eq!(nearest(limits().skip(2), Some("here")), None);
        assert_eq!(nearest(limits().skip(2), None), Some(3));
    }
}
