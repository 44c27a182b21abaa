//! Digests of what compressed data holds.

use std::sync::Arc;

use formats::container::{self, Context};
use formats::{ErrorKind, HostOffset, Source};

use super::{Error, intake};
use crate::domain::Expected;
use crate::service::Service;

/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// Holds the digest of what `source` holds, decompressed, against what was expected.
pub(crate) async fn check(
    svc: &Arc<Service>,
    source: Option<Arc<dyn Source>>,
    expected: &Expected,
) -> Result<(), Error> {
    let Some(source) = source else {
        return Err(Error::OtherDigest(
            "This store cannot be read back to decompress the data: stage and import it, or give \
             the digest of the data as it is sent"
                .into(),
        ));
    };
    let (svc, algo) = (svc.clone(), expected.algo);
    let got = tokio::task::spawn_blocking(move || {
        let limits = svc.limits();
        let scratch = || svc.staging.scratch();
        let context = Context {
            scratch: &scratch,
            ..Context::new(&limits)
        };
        let (_, held) = container::examine(&source, &context)?;
        let mut digest = intake::Digest::new(algo);
        let mut piece = vec![0; PIECE];
        let size = held.len();
        for at in (0..size).step_by(PIECE) {
            let len = usize::try_from(size - at).map_or(PIECE, |left| left.min(PIECE));
            held.read_exact_at(&mut piece[..len], HostOffset(at))?;
            digest.update(&piece[..len]);
        }
        Ok::<_, formats::Error>(digest.finish())
    })
    .await
    .map_err(|e| Error::Internal(e.to_string()))?
    .map_err(fault)?;
    expected.check(&got).map_err(Error::OtherDigest)
}

/// What cannot be decompressed is its sender's fault.
fn fault(error: formats::Error) -> Error {
    use ErrorKind as K;
    match error.kind() {
        K::Malformed | K::Unsupported | K::Refused | K::Limit => Error::Refused {
            reason: error.to_string(),
        },
        _ => error.into(),
    }
}
