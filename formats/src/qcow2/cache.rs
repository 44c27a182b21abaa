//! A bounded cache shared by threads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Most locks the cache is split into, so that threads seldom meet.
const MAX_SHARDS: u64 = 16;

/// Values by number, each made once for as long as it stays. Two generations a shard: what was
/// not asked for while the young one filled up is dropped, in constant time.
pub(super) struct Cache<T: ?Sized> {
    shards: Vec<Mutex<Shard<T>>>,
    /// Values a generation holds.
    generation: usize,
}

struct Shard<T: ?Sized> {
    young: HashMap<u64, Arc<T>>,
    old: HashMap<u64, Arc<T>>,
}

impl<T: ?Sized> Cache<T> {
    /// A cache of at most `bytes`, for values of `value_bytes` each; but never for fewer than
    /// two values.
    pub(super) fn new(bytes: u64, value_bytes: u64) -> Self {
        let pairs = bytes / value_bytes.max(1) / 2;
        let shards = pairs.clamp(1, MAX_SHARDS);
        Self {
            shards: (0..shards)
                .map(|_| {
                    Mutex::new(Shard {
                        young: HashMap::new(),
                        old: HashMap::new(),
                    })
                })
                .collect(),
            generation: usize::try_from(pairs / shards).unwrap_or(usize::MAX).max(1),
        }
    }

    /// The value of `key`, made by `make` where it is not there. Others who want a value of the
    /// same shard meanwhile wait: it is made once.
    ///
    /// # Errors
    /// What `make` met; nothing is kept then.
    pub(super) fn get<E>(
        &self,
        key: u64,
        make: impl FnOnce() -> Result<Arc<T>, E>,
    ) -> Result<Arc<T>, E> {
        let shard = &self.shards[(key % self.shards.len() as u64) as usize];
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = shard.young.get(&key) {
            return Ok(Arc::clone(value));
        }
        let value = match shard.old.remove(&key) {
            Some(value) => value,
            None => make()?,
        };
        if shard.young.len() >= self.generation {
            shard.old = std::mem::take(&mut shard.young);
        }
        shard.young.insert(key, Arc::clone(&value));
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_once_and_stays_bounded() {
        let cache: Cache<u64> = Cache::new(16 * 2 * 4 * 8, 8);
        let mut made = 0;
        for round in 0..3 {
            for key in 0..64 {
                let value = cache.get(key, || {
                    made += 1;
                    Ok::<_, ()>(Arc::new(key))
                });
                assert_eq!(value.as_deref(), Ok(&key), "{round}");
            }
        }
        assert_eq!(made, 64);
        for key in 0..10_000 {
            cache.get(key, || Ok::<_, ()>(Arc::new(key))).unwrap();
        }
        let kept: usize = cache
            .shards
            .iter()
            .map(|s| s.lock().unwrap())
            .map(|s| s.young.len() + s.old.len())
            .sum();
        assert!(kept <= 128, "{kept}");
    }

    #[test]
    fn a_failure_is_not_kept() {
        let cache: Cache<u64> = Cache::new(0, 8);
        assert_eq!(cache.get(1, || Err("no")), Err("no"));
        assert_eq!(cache.get(1, || Ok::<_, ()>(Arc::new(5))), Ok(Arc::new(5)));
    }
}
