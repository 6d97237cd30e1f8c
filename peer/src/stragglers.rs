//! Waiting for several at once, and not for the slowest: an anchor that has stopped keeps its connections open, and
//! says nothing.

use std::time::Duration;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

/// How long slower ones are waited for once one is done.
pub(crate) const STRAGGLERS: Duration = Duration::from_millis(500);

/// What those came to that were done before `patience` was over, which `allows` so much more from the end of each;
/// nothing if it changes nothing. The others are given up.
pub(crate) async fn gather<T: 'static>(
    mut tasks: JoinSet<T>,
    allows: impl Fn(&T) -> Option<Duration>,
) -> Vec<T> {
    let mut done = Vec::new();
    let mut deadline: Option<Instant> = None;
    loop {
        let next = match deadline {
            Some(deadline) => timeout_at(deadline, tasks.join_next()).await.ok().flatten(),
            None => tasks.join_next().await,
        };
        let Some(joined) = next else {
            return done;
        };
        // Who cancels one does not want it, and a panic of one is told by its thread.
        let Ok(result) = joined else {
            continue;
        };
        if let Some(allowed) = allows(&result) {
            let then = Instant::now() + allowed;
            deadline = Some(deadline.map_or(then, |deadline| deadline.min(then)));
        }
        done.push(result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tasks that end at once, in this order, and one that never does.
    fn tasks(results: &[u32]) -> JoinSet<u32> {
        let mut tasks = JoinSet::new();
        for &result in results {
            tasks.spawn(async move {
                tokio::time::sleep(Duration::from_millis(20 * u64::from(result))).await;
                result
            });
        }
        tasks.spawn(std::future::pending());
        tasks
    }

    #[tokio::test]
    async fn the_slowest_is_given_up_when_its_time_is_over() {
        let soon = Duration::from_millis(100);
        assert_eq!(gather(tasks(&[1]), |_| Some(soon)).await, [1]);
        let only_two = |&result: &u32| (result == 2).then_some(soon);
        assert_eq!(gather(tasks(&[2, 1]), only_two).await, [1, 2]);
    }
}
