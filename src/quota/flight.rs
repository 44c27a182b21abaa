//! Bytes that are on their way in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Exceeded;

/// Bytes of uploads under way in this process, by project.
#[derive(Default, Debug)]
pub struct InFlight(Mutex<HashMap<String, u64>>);

impl InFlight {
    /// Those of one project.
    #[must_use]
    pub fn of(&self, project: &str) -> u64 {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(project).copied().unwrap_or(0)
    }

    /// Counts `bytes` more for the project, unless that makes more than `room`; answers what it
    /// had.
    fn add(&self, project: &str, bytes: u64, room: u64) -> Result<(), u64> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = map.get(project).copied().unwrap_or(0);
        match held.checked_add(bytes) {
            Some(now) if now <= room => {
                map.insert(project.to_owned(), now);
                Ok(())
            }
            _ => Err(held),
        }
    }

    fn remove(&self, project: &str, bytes: u64) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = map.get_mut(project) {
            *held = held.saturating_sub(bytes);
            if *held == 0 {
                map.remove(project);
            }
        }
    }
}

/// What one upload may take in. Counts what it took until it is dropped.
#[derive(Debug)]
pub struct Allowance {
    flight: Arc<InFlight>,
    project: Option<String>,
    /// Bytes that all uploads of the project under way may have together.
    room: u64,
    taken: u64,
}

impl Allowance {
    /// For an upload of `project`, which stores so many bytes and may store `limit` in all.
    pub(super) fn new(
        flight: &Arc<InFlight>,
        project: Option<&str>,
        stored: u64,
        limit: Option<u64>,
    ) -> Self {
        Self {
            flight: flight.clone(),
            project: project.map(str::to_owned),
            room: limit.map_or(u64::MAX, |limit| limit.saturating_sub(stored)),
            taken: 0,
        }
    }

    /// Whether `bytes` more would be allowed now.
    pub(super) fn fits(&self, bytes: u64) -> Result<(), Exceeded> {
        let Some(project) = &self.project else {
            return Ok(());
        };
        let left = self.room.saturating_sub(self.flight.of(project));
        if bytes <= left {
            Ok(())
        } else {
            Err(exceeded(bytes, left))
        }
    }

    /// Takes `bytes` more.
    ///
    /// # Errors
    /// [`Exceeded`], and they are not counted.
    pub fn take(&mut self, bytes: u64) -> Result<(), Exceeded> {
        let Some(project) = &self.project else {
            return Ok(());
        };
        self.flight
            .add(project, bytes, self.room)
            .map_err(|held| exceeded(bytes, self.room.saturating_sub(held)))?;
        self.taken += bytes;
        Ok(())
    }
}

impl Drop for Allowance {
    fn drop(&mut self) {
        if let Some(project) = &self.project {
            self.flight.remove(project, self.taken);
        }
    }
}

fn exceeded(bytes: u64, left: u64) -> Exceeded {
    Exceeded(format!(
        "Denying attempt to upload image because it exceeds the quota: The size of the data \
         {bytes} will exceed the limit. {left} bytes remaining."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_at_once_share_the_room() {
        let flight = Arc::new(InFlight::default());
        let upload = || Allowance::new(&flight, Some("p"), 60, Some(100));
        let (mut a, mut b) = (upload(), upload());
        a.take(30).unwrap();
        assert!(b.fits(10).is_ok() && b.fits(11).is_err());
        let refused = b.take(11).unwrap_err();
        assert!(refused.0.contains("11") && refused.0.contains("10 bytes remaining"));
        b.take(10).unwrap();
        assert_eq!(flight.of("p"), 40);
        drop(a);
        assert_eq!(flight.of("p"), 10);
        b.take(30).unwrap();
        drop(b);
        assert_eq!(flight.of("p"), 0);
    }

    #[test]
    fn without_a_limit_anything_fits() {
        let flight = Arc::new(InFlight::default());
        let mut free = Allowance::new(&flight, Some("p"), u64::MAX, None);
        free.take(1 << 50).unwrap();
        let mut nobody = Allowance::new(&flight, None, 0, Some(1));
        nobody.take(1 << 50).unwrap();
    }
}
