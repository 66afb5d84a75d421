//! The app that is a process: this very binary, with the libraries that it is linked to, in a folder that builds
//! from nothing; and what it does there, which is to answer requests.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::commands::exec::ended_by_signal;
use crate::failure::Failure;

use super::app;

/// Where it listens.
pub(super) const PORT: u16 = 8080;
/// This binary, even after an upgrade has replaced its file.
const OWN: &str = "/proc/self/exe";
/// Files that this process is made of.
const MAPPED: &str = "/proc/self/maps";

/// Answers every request with `version` until it is told to end.
///
/// # Errors
/// The port is taken.
pub(super) async fn answer(version: u32) -> Result<(), Failure> {
    let instance = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let text = Bytes::from(app::page(version, Some(instance.trim())));
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
    let failed = |error: io::Error| Failure::failed(format!("port {PORT}: {error}"));
    // A kernel without IPv6 has no such address.
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind(("0.0.0.0", PORT)).await.map_err(failed)?,
    };
    let serving = async {
        loop {
            // A connection that is gone already is its client's affair.
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            let text = text.clone();
            tokio::spawn(async move {
                let one = service_fn(move |_: Request<Incoming>| {
                    let answer = Response::new(Full::new(text.clone()));
                    async { Ok::<_, Infallible>(answer) }
                });
                let http = hyper::server::conn::http1::Builder::new();
                // The same.
                let _ = http.serve_connection(TokioIo::new(stream), one).await;
            });
        }
    };
    tokio::select! {
        () = serving => Ok(()),
        // As it should: the agent stops it so.
        _ = ended_by_signal() => Ok(()),
    }
}

/// Fills `folder` with what does not change from version to version; answers the Dockerfile's lines.
///
/// # Errors
/// A file cannot be read or written.
pub(super) fn fill(folder: &Path) -> io::Result<String> {
    std::fs::copy(OWN, folder.join("skep"))?;
    let libraries = libraries(&std::fs::read_to_string(MAPPED)?);
    if libraries.is_empty() {
        return Ok(dockerfile(None));
    }
    let to = folder.join("lib");
    std::fs::create_dir(&to)?;
    for (name, path) in &libraries {
        std::fs::copy(path, to.join(name))?;
    }
    let loader = libraries.keys().find(|name| name.starts_with("ld-"));
    let Some(loader) = loader else {
        return Err(io::Error::other(
            "the loader of shared libraries is not known",
        ));
    };
    Ok(dockerfile(Some(loader)))
}

/// The shared libraries among the files that a process is made of, by name.
fn libraries(maps: &str) -> BTreeMap<String, PathBuf> {
    let paths = maps
        .lines()
        .filter_map(|line| Some(&line[line.find('/')?..]));
    let named = paths.filter_map(|path| {
        let name = Path::new(path).file_name()?.to_str()?;
        let is_library = name.ends_with(".so") || name.contains(".so.");
        is_library.then(|| (name.to_owned(), PathBuf::from(path)))
    });
    named.collect()
}

/// The loader is started by its own name: a file system from nothing has none of the usual places.
fn dockerfile(loader: Option<&str>) -> String {
    let (copied, start) = match loader {
        Some(loader) => (
            "COPY lib/ /lib/\n",
            format!(r#""/lib/{loader}", "--library-path", "/lib", "/skep""#),
        ),
        None => ("", r#""/skep""#.to_owned()),
    };
    format!(
        "FROM scratch\n{copied}COPY skep /skep\nUSER 65534:65534\nEXPOSE {PORT}\n\
         ENTRYPOINT [{start}, \"smoke\", \"--answer\"]\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_its_binary_and_its_libraries() {
        let maps = "\
555500000000-555500001000 r-xp 00000000 08:01 11  /usr/bin/skep
7f0000000000-7f0000001000 r--p 00000000 08:01 12  /usr/lib/x86_64-linux-gnu/libc.so.6
7f0000001000-7f0000002000 r-xp 00001000 08:01 12  /usr/lib/x86_64-linux-gnu/libc.so.6
7f0000002000-7f0000003000 r--p 00000000 08:01 13  /usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2
7f0000004000-7f0000005000 rw-p 00000000 00:00 0
7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0   [vdso]
";
        let found = libraries(maps);
        let names: Vec<_> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["ld-linux-x86-64.so.2", "libc.so.6"]);
        assert_eq!(
            found["libc.so.6"],
            Path::new("/usr/lib/x86_64-linux-gnu/libc.so.6")
        );
        assert!(libraries("").is_empty(), "linked statically");
    }

    #[test]
    fn the_image_begins_from_nothing() {
        let linked = dockerfile(Some("ld-linux-x86-64.so.2"));
        assert!(linked.starts_with("FROM scratch\nCOPY lib/ /lib/\n"));
        assert!(linked.contains(
            r#"ENTRYPOINT ["/lib/ld-linux-x86-64.so.2", "--library-path", "/lib", "/skep", "smoke", "--answer"]"#
        ));
        let alone = dockerfile(None);
        assert!(alone.starts_with("FROM scratch\nCOPY skep /skep\n"));
        assert!(alone.contains(r#"ENTRYPOINT ["/skep", "smoke", "--answer"]"#));
    }
}
