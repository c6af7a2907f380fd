//! Work on several tables at once, where their order means nothing.

use crate::error::Result;
use futures::{StreamExt, future::BoxFuture, stream};

/// As many requests wait for the store at a time.
const AT_ONCE: usize = 8;

/// What all of these return, in their order. Each is run to its end, whatever becomes of the others: no commit is left
/// on its way.
///
/// # Errors
/// The first error, by their order.
pub(crate) async fn several<'a, T: Send + 'a>(
    work: impl IntoIterator<Item = BoxFuture<'a, Result<T>>, IntoIter: Send>,
) -> Result<Vec<T>> {
    let results: Vec<Result<T>> = stream::iter(work).buffered(AT_ONCE).collect().await;
    results.into_iter().collect()
}
