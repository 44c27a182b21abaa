//! Uploads in one request, as every service of the image API takes them. What breaks off begins
//! anew.

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;

use super::record;
use super::tries::Tries;
use super::tus::{Fate, Outgoing};

/// Where the bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Door {
    /// They become the image's data.
    File,
    /// They wait for an import.
    Stage,
}

impl Outgoing<'_> {
    /// Sends the whole file by `PUT`.
    pub(super) async fn put(&self, door: Door) -> anyhow::Result<()> {
        let path = record::path(self.image);
        let path = match door {
            Door::File => format!("{path}/file"),
            Door::Stage => format!("{path}/stage"),
        };
        let mut tries = Tries::default();
        let mut broke_off = false;
        loop {
            let size = self.local.size();
            let put = self.push(Method::PUT, &path, 0..size, |request| {
                let request = request
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .header("x-openstack-image-size", size);
                match self.store {
                    Some(store) => request.header("x-image-meta-store", store),
                    None => request,
                }
            });
            let Err(error) = put.await else {
                return Ok(());
            };
            // It may have been done without our hearing of it.
            if error.is_transient() && door == Door::File && self.fate().await? == Fate::Active {
                return Ok(());
            }
            // What broke off may hold the image for a moment yet.
            let may_pass = error.is_transient() || (broke_off && error.is_conflict());
            broke_off = true;
            tries.again_if(may_pass, error).await?;
        }
    }
}
