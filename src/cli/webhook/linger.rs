//! How long reviews are still taken after SIGTERM. Nodes and API servers follow the endpoints late,
//! and how late only the reviews tell that still come; probes come to the end, and tell nothing.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

const LEAST: Duration = Duration::from_secs(5);
/// Without a review for so long, everybody has followed.
const QUIET: Duration = Duration::from_secs(2);
const MOST: Duration = Duration::from_secs(15);

/// Waits until nobody sends reviews any more, with the time of the last one.
pub async fn linger(last: &watch::Receiver<Instant>) {
    let began = Instant::now();
    loop {
        let quiet = *last.borrow() + QUIET;
        let until = quiet.clamp(began + LEAST, began + MOST);
        if until <= Instant::now() {
            return;
        }
        sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn as_long_as_they_come_and_not_for_ever() {
        // Until when one comes each second, and when it is over.
        for (until, over) in [(0, 5), (2, 5), (4, 6), (8, 10), (12, 14), (14, 15), (60, 15)] {
            let began = Instant::now();
            let (last, seen) = watch::channel(began);
            let reviews = async {
                for _ in 0..until {
                    sleep(Duration::from_secs(1)).await;
                    last.send_replace(Instant::now());
                }
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = linger(&seen) => {}
                () = reviews => {}
            }
            assert_eq!(began.elapsed().as_secs(), over, "reviews until {until} s");
        }
    }
}
