//! Who is speaking, and how it is proved: certificates, mTLS, join tokens and sealing.
//!
//! Owns the cluster's certificate authority, the only TLS configurations of the project (TLS 1.3,
//! there is no plaintext mode), the connections that gRPC and HTTPS run over, and the sealing of
//! secrets at rest. Knows nothing of Skep's state: who may do what is decided elsewhere, from the
//! [`name::Identity`] that a connection proved.

pub mod ca;
pub mod digest;
pub mod fingerprint;
pub mod grpc;
pub mod https;
pub mod key_file;
pub mod key_id;
pub mod keypair;
pub mod leaf;
pub mod local_ca;
pub mod name;
pub mod pem;
pub mod random;
pub mod renewal;
pub mod seal;
pub mod secret_file;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod token;
