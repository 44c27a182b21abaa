//! Images.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::LocationView;
use crate::auth::protections::Act;
use crate::auth::{Context, policy};
use crate::domain::{Image, Location, Status};
use crate::jobs::REFUSED;
use crate::service::Service;

/// An image as a caller sees it. Custom properties stand first, flat beside the others
/// (03-show.http).
pub(in crate::api) struct ImageView<'a> {
    image: &'a Image,
    /// The custom properties the caller may see.
    properties: Vec<(&'a String, &'a String)>,
    /// The stores that hold its data.
    stores: Option<String>,
    /// Where it lies, where the configuration shows it.
    locations: Option<Vec<LocationView<'a>>>,
    direct_url: Option<&'a str>,
}

impl<'a> ImageView<'a> {
    pub(in crate::api) fn new(image: &'a Image, ctx: &Context, svc: &Service) -> Self {
        // Where its data is is hidden while it is deactivated, but from administrators
        // (10-actions.http, "the image").
        let shown = image.status != Status::Deactivated || ctx.is_admin;
        let by_weight: Vec<&Location> = if shown {
            svc.stores.by_weight(&image.locations)
        } else {
            Vec::new()
        };
        let mut stores: Vec<&str> = Vec::new();
        for location in &by_weight {
            if !stores.contains(&location.store.as_str()) {
                stores.push(&location.store);
            }
        }
        if image.status == Status::Queued {
            stores.extend(image.properties.get(REFUSED).map(String::as_str));
        }
        let may_locate = policy::get_image_location(ctx, image).is_ok();
        let api = &svc.config.api;
        let may_see =
            |name: &str| !HIDDEN.contains(&name) && svc.protections.allows(Act::Read, name, ctx);
        Self {
            image,
            properties: image
                .properties
                .iter()
                .filter(|(n, _)| may_see(n))
                .collect(),
            stores: (!stores.is_empty()).then(|| stores.join(",")),
            direct_url: by_weight
                .first()
                .filter(|_| api.show_image_direct_url && may_locate)
                .map(|l| l.url.as_str()),
            locations: (api.show_multiple_locations && may_locate)
                .then(|| by_weight.into_iter().map(LocationView::from).collect()),
        }
    }
}

/// Properties that are for the service alone.
const HIDDEN: [&str; 3] = ["os_glance_stage_host", "os_glance_hash_op_host", REFUSED];

impl Serialize for ImageView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let image = self.image;
        let hashes = image.hashes.as_ref();
        let link = format!("/v2/images/{}", image.id);
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in &self.properties {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("name", &image.name)?;
        map.serialize_entry("disk_format", &image.disk_format)?;
        map.serialize_entry("container_format", &image.container_format)?;
        map.serialize_entry("visibility", image.visibility.name())?;
        map.serialize_entry("size", &image.size)?;
        map.serialize_entry("virtual_size", &image.virtual_size)?;
        map.serialize_entry("status", image.status.name())?;
        map.serialize_entry("checksum", &hashes.and_then(|h| h.checksum.as_ref()))?;
        map.serialize_entry("protected", &image.protected)?;
        map.serialize_entry("min_ram", &image.min_ram)?;
        map.serialize_entry("min_disk", &image.min_disk)?;
        map.serialize_entry("owner", &image.owner)?;
        map.serialize_entry("os_hidden", &image.hidden)?;
        map.serialize_entry("os_hash_algo", &hashes.map(|h| &h.algo))?;
        map.serialize_entry("os_hash_value", &hashes.map(|h| &h.value))?;
        map.serialize_entry("id", image.id.as_str())?;
        map.serialize_entry("created_at", &image.created_at.to_string())?;
        map.serialize_entry("updated_at", &image.updated_at.to_string())?;
        if let Some(locations) = &self.locations {
            map.serialize_entry("locations", locations)?;
        }
        if let Some(url) = self.direct_url {
            map.serialize_entry("direct_url", url)?;
        }
        map.serialize_entry("tags", &image.tags)?;
        map.serialize_entry("self", &link)?;
        map.serialize_entry("file", &format!("{link}/file"))?;
        map.serialize_entry("schema", "/v2/schemas/image")?;
        if let Some(stores) = &self.stores {
            map.serialize_entry("stores", stores)?;
        }
        map.end()
    }
}

/// A page of images.
#[derive(Serialize)]
pub(in crate::api) struct ImageList<'a> {
    pub(in crate::api) images: Vec<ImageView<'a>>,
    pub(in crate::api) first: String,
    pub(in crate::api) schema: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) next: Option<String>,
}
