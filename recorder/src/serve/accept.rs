//! Taking connections of a step: a bounded number at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Serves each connection, `most` of them at once, until the task is aborted, and they with it.
pub(crate) async fn each<Served>(listener: TcpListener, most: usize, serve: impl Fn(TcpStream) -> Served)
where
    Served: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(most));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let served = serve(stream);
                connections.spawn(async move {
                    let _permit = permit;
                    served.await;
                });
            }
            // Out of descriptors, or a client gone already: the next one may be better.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}
