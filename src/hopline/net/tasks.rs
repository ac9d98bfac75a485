//! Tasks whose futures are boxed: tokio's part of a task is made once for all of them and not anew for each, which was a tenth of the time
//! that this crate takes to build. A task costs one more allocation.

use futures_util::FutureExt;
use std::future::Future;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// [`tokio::spawn`].
pub(crate) fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(task.boxed())
}

/// [`tokio::task::spawn_local`].
pub(crate) fn spawn_local<T: 'static>(task: impl Future<Output = T> + 'static) -> JoinHandle<T> {
    tokio::task::spawn_local(task.boxed_local())
}

/// [`Handle::spawn`].
pub(crate) fn spawn_on<T: Send + 'static>(
    runtime: &Handle,
    task: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    runtime.spawn(task.boxed())
}
