//! A connection to the test app where it echoes: who answers, whether bytes come back, and how it ends.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

/// Any answer.
const ANSWER: Duration = Duration::from_secs(30);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection to the app, which has said who it is.
pub struct Talk {
    stream: Box<dyn Stream>,
    /// What it said of its version: `version=1`.
    pub version: String,
}

impl Talk {
    /// `first` is sent first, and comes back after the greeting.
    ///
    /// # Errors
    /// Nobody greets, or something else comes back.
    pub async fn begin(
        mut stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        first: &[u8],
    ) -> Result<Self> {
        stream.write_all(first).await?;
        let mut talk = Self {
            stream: Box::new(stream),
            version: String::new(),
        };
        let mut greeting = Vec::new();
        while greeting.last() != Some(&b'\n') {
            greeting.push(timeout(ANSWER, talk.stream.read_u8()).await??);
        }
        let greeting = String::from_utf8(greeting)?;
        let version = greeting.split_once(' ').map(|(version, _)| version);
        talk.version = version.context("a greeting")?.to_owned();
        talk.comes_back(first).await?;
        Ok(talk)
    }

    async fn comes_back(&mut self, bytes: &[u8]) -> Result<()> {
        let mut back = vec![0; bytes.len()];
        timeout(ANSWER, self.stream.read_exact(&mut back)).await??;
        ensure!(back == bytes, "something else came back");
        Ok(())
    }

    /// It lives.
    ///
    /// # Errors
    /// It does not.
    pub async fn echo(&mut self, text: &str) -> Result<()> {
        self.stream.write_all(text.as_bytes()).await?;
        self.comes_back(text.as_bytes()).await
    }

    /// What the app says after our end.
    ///
    /// # Errors
    /// It was broken off.
    pub async fn end(mut self) -> Result<String> {
        self.stream.shutdown().await?;
        let mut rest = String::new();
        timeout(ANSWER, self.stream.read_to_string(&mut rest)).await??;
        Ok(rest)
    }

    /// Sends all of it and then our end: what comes back, and after it what the app says last.
    ///
    /// # Errors
    /// It was broken off.
    pub async fn send_and_end(self, bytes: &[u8]) -> Result<Vec<u8>> {
        let (mut from, mut to) = tokio::io::split(self.stream);
        let sent = async {
            to.write_all(bytes).await?;
            to.shutdown().await
        };
        let mut back = Vec::new();
        let all = async { tokio::try_join!(sent, from.read_to_end(&mut back)) };
        timeout(ANSWER, all).await??;
        Ok(back)
    }
}
