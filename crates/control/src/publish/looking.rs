//! Room for those who look at what would be published. It is composed for all nodes, which takes
//! memory and time: so many at once, on threads of their own.

use super::error::PublishError;
use crate::db::DbError;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How many look at a time.
const AT_ONCE: usize = 2;

/// How long others wait for their turn.
const PATIENCE: Duration = Duration::from_secs(30);

/// The room that there is.
#[derive(Debug)]
pub(super) struct Looking {
    room: Arc<Semaphore>,
    patience: Duration,
}

impl Default for Looking {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(AT_ONCE)), patience: PATIENCE }
    }
}

impl Looking {
    /// Does `work` when there is room for it. It goes on to its end, and holds its room until
    /// then, also if nobody waits for it any more.
    pub(super) async fn look<T, F>(
        &self,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> Result<T, PublishError>
    where
        F: Future<Output = Result<T, PublishError>>,
        T: Send + 'static,
    {
        let room = timeout(self.patience, self.room.clone().acquire_owned()).await;
        let Ok(Ok(room)) = room else {
            let what = "looking at what would be published".into();
            return Err(DbError::Busy { what }.into());
        };
        let runtime = Handle::current();
        let looked = tokio::task::spawn_blocking(move || {
            let _room = room;
            runtime.block_on(work())
        });
        looked.await.map_err(|_| PublishError::Stopping)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[test]
    fn so_many_look_at_a_time_and_others_are_told_to_come_back() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let Looking { room, patience } = Looking::default();
            let looking = Looking { room: room.clone(), patience: Duration::ZERO };
            let mut ends = Vec::new();
            let mut looks = Vec::new();
            for _ in 0..AT_ONCE {
                let (end, ended) = oneshot::channel::<()>();
                ends.push(end);
                let mut look = Box::pin(looking.look(move || async move {
                    ended.await.unwrap();
                    Ok(7)
                }));
                // Begun, and not at its end.
                tokio::select! {
                    biased;
                    looked = &mut look => panic!("{looked:?}"),
                    () = std::future::ready(()) => {}
                }
                looks.push(look);
            }
            let refused = looking.look(|| async { Ok(8) }).await.unwrap_err();
            assert!(matches!(refused, PublishError::Database(DbError::Busy { .. })), "{refused}");
            // Who goes away does not make room: what he asked for is still under way.
            looks.pop();
            looking.look(|| async { Ok(8) }).await.unwrap_err();
            for end in ends {
                end.send(()).unwrap();
            }
            assert_eq!(looks.pop().unwrap().await.unwrap(), 7);
            // They are at their end sooner or later.
            let patient = Looking { room, patience: 20 * patience };
            assert_eq!(patient.look(|| async { Ok(9) }).await.unwrap(), 9);
        });
    }
}
