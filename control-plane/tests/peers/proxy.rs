//! A connection that breaks: passes bytes on to a server until a connection has carried too many.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Where it listens, and how many bytes have gone through towards the server.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) carried: Arc<AtomicU64>,
    pub(crate) broken: Arc<AtomicU64>,
}

impl Proxy {
    /// To `target`; the first `breaks` connections that carry more than `limit` bytes towards it are
    /// cut there.
    pub(crate) async fn start(target: SocketAddr, limit: u64, breaks: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            carried: Arc::default(),
            broken: Arc::default(),
        };
        let (carried, broken) = (proxy.carried.clone(), proxy.broken.clone());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (carried, broken) = (carried.clone(), broken.clone());
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(target).await else {
                        return;
                    };
                    let (mut near_in, mut near_out) = near.into_split();
                    let (mut far_in, mut far_out) = far.into_split();
                    let back = tokio::spawn(async move {
                        let _ = tokio::io::copy(&mut far_in, &mut near_out).await;
                    });
                    let mut buffer = vec![0; 16 << 10];
                    let mut here = 0;
                    while let Ok(count @ 1..) = near_in.read(&mut buffer).await {
                        if far_out.write_all(&buffer[..count]).await.is_err() {
                            break;
                        }
                        here += count as u64;
                        carried.fetch_add(count as u64, Ordering::Relaxed);
                        if here > limit && broken.fetch_add(1, Ordering::Relaxed) < breaks {
                            break;
                        }
                    }
                    back.abort();
                });
            }
        });
        proxy
    }
}
