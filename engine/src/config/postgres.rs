//! `[postgres]`: whether the protocol of PostgreSQL is spoken, where, and to how many.

use super::{Count, Length};
use serde::{Deserialize, Serialize};

/// `[postgres]`. What one statement may take is what `[http]` says of queries.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresSettings {
    /// Address and port to listen at, such as `127.0.0.1:5432`. Default none: the protocol is not spoken.
    pub listen: String,
    /// So many clients may be connected; one that comes then is refused. Default 100. Each takes some memory.
    pub connections_max: Count,
    /// A client that asks nothing for so long is disconnected. Default 1h.
    pub idle: Length,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        PostgresSettings {
            listen: String::new(),
            connections_max: Count(100),
            idle: Length(3_600_000_000),
        }
    }
}
