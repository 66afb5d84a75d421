//! An app of no protocol at all: who it is, then whatever it was told.

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::settings::Settings;

/// Until the client says that nothing more comes. The end of the app cuts it off.
pub(crate) async fn talk(settings: &Settings, mut stream: TcpStream) {
    let (version, allocation) = (&settings.version, &settings.allocation);
    let greeting = format!("version={version} allocation={allocation}\n");
    if stream.write_all(greeting.as_bytes()).await.is_err() {
        return;
    }
    let (mut from, mut to) = stream.split();
    // A client that goes away is the client's business.
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = to.write_all(b"bye\n").await;
    let _ = to.shutdown().await;
}
