//! Why a connection failed, where clocks are the reason: certificates live for a day, and a clock that
//! is wrong by more takes a good one for expired or not valid yet.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError, Error as TlsError};

/// What of a certificate's time made a connection fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutOfTime {
    /// The peer's certificate is not valid by this machine's clock; rustls says from or until when.
    Theirs(String),
    /// The peer says that the own certificate has expired.
    Ours,
}

/// Looks for it in everything that caused `error`.
pub fn out_of_time(error: &(dyn Error + 'static)) -> Option<OutOfTime> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let wrapped = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        let tls = match wrapped {
            Some(inner) => inner.downcast_ref::<TlsError>(),
            None => error.downcast_ref::<TlsError>(),
        };
        match tls {
            Some(TlsError::InvalidCertificate(
                reason @ (CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. }),
            )) => return Some(OutOfTime::Theirs(reason.to_string())),
            Some(TlsError::AlertReceived(AlertDescription::CertificateExpired)) => {
                return Some(OutOfTime::Ours);
            }
            _ => {}
        }
        // HTTP/2 keeps of what broke its connection the text alone.
        let alert = TlsError::AlertReceived(AlertDescription::CertificateExpired).to_string();
        if error.to_string().contains(&alert) {
            return Some(OutOfTime::Ours);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_is_told_from_other_failures() {
        let wrap = |error| io::Error::other(error);
        let theirs = TlsError::InvalidCertificate(CertificateError::NotValidYet);
        let found = out_of_time(&wrap(theirs));
        assert!(matches!(found, Some(OutOfTime::Theirs(_))), "{found:?}");
        let ours = TlsError::AlertReceived(AlertDescription::CertificateExpired);
        let text = io::Error::other(format!("connection error: {ours}"));
        assert_eq!(out_of_time(&text), Some(OutOfTime::Ours));
        assert_eq!(out_of_time(&wrap(ours)), Some(OutOfTime::Ours));
        let other = TlsError::InvalidCertificate(CertificateError::UnknownIssuer);
        assert_eq!(out_of_time(&wrap(other)), None);
        assert_eq!(out_of_time(&io::Error::other("refused")), None);
    }
}
