//! `[tls]`: the certificate with which every door encrypts.

use serde::{Deserialize, Serialize};

/// `[tls]`. Files are relative to the configuration file, and are read when the process starts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSettings {
    /// A PEM file of the certificate and those between it and its authority, the own one first. Default none: doors do not
    /// encrypt.
    pub certificate: String,
    /// A PEM file of the certificate's private key. Default none.
    pub key: String,
}
