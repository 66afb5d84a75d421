//! Keys of GitHub Apps: RSA, as GitHub hands them out, in PKCS#1.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls_pki_types::PrivatePkcs1KeyDer;
use rustls_pki_types::pem::PemObject as _;
use skep_forge::api::app::{Claims, claims};
use zeroize::Zeroizing;

/// Signs what an App says of itself.
///
/// # Errors
/// The key is none; for a person.
pub(crate) fn signed(pem: &str, claims: &Claims) -> Result<Zeroizing<String>, String> {
    let odd = || {
        "the App's key is none that GitHub hands out (-----BEGIN RSA PRIVATE KEY-----)".to_owned()
    };
    let key = PrivatePkcs1KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| odd())?;
    let key = EncodingKey::from_rsa_der(key.secret_pkcs1_der());
    let proof = jsonwebtoken::encode(&Header::new(Algorithm::RS256), claims, &key);
    proof.map(Zeroizing::new).map_err(|_| odd())
}

/// Whether this key can sign.
///
/// # Errors
/// It cannot; for a person.
pub(crate) fn check_key(pem: &str) -> Result<(), String> {
    signed(pem, &claims(1, 0)).map(drop)
}
