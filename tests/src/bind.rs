//! BIND, the DNS server (Debian's `bind9`): serves a zone on the port that the world asks, at an address of this machine
//! that nobody else has, and takes updates of it that are signed with its key.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_net::client::{Client, ClientHandle as _};
use hickory_net::runtime::TokioRuntimeProvider;
use hickory_net::udp::UdpClientStream;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::process::Process;
use crate::wait;

/// From start to answering.
const START: Duration = Duration::from_secs(30);
/// Name of the key that may update.
pub const KEY: &str = "skep";

/// A DNS server.
pub struct Bind {
    process: Process,
    _given: Given,
    /// Where it answers.
    pub address: SocketAddr,
    /// File of the key that may update.
    pub key: PathBuf,
}

/// An address of this machine for one DNS server: servers of zones are asked at port 53, whatever else is free.
pub fn address() -> SocketAddr {
    let drawn: [u8; 3] = drawn();
    let ip = Ipv4Addr::new(127, drawn[0] | 0x80, drawn[1], drawn[2].clamp(1, 254));
    SocketAddr::new(ip.into(), 53)
}

/// An address that the loopback interface has meanwhile.
struct Given(IpAddr);

impl Given {
    fn to_loopback(ip: IpAddr) -> Result<Self> {
        change_loopback("add", ip)?;
        Ok(Self(ip))
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        if let Err(error) = change_loopback("del", self.0) {
            eprintln!("{error:#}");
        }
    }
}

fn change_loopback(what: &str, ip: IpAddr) -> Result<()> {
    let address = format!("{ip}/32");
    let mut command = Command::new("ip");
    let ended = command.args(["address", what, &address, "dev", "lo"]);
    let ended = ended.status().context("ip: scripts/setup.sh installs it")?;
    ensure!(ended.success(), "ip address {what} {address}: {ended}");
    Ok(())
}

/// Drawn by the kernel.
fn drawn<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the kernel draws");
    bytes
}

impl Bind {
    /// Starts one with these zones and these records in them, each `ZONE` and lines of a zone file; its files go to `dir`.
    ///
    /// # Errors
    /// It cannot be run or does not start.
    pub async fn start(dir: &Path, address: SocketAddr, zones: &[(&str, &str)]) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        // A profile of the machine's for the installed one would not let it read our files.
        let program = dir.join("named");
        std::fs::copy("/usr/sbin/named", &program)
            .context("bind9: scripts/setup.sh installs it")?;
        let secret = STANDARD.encode(drawn::<32>());
        let key = dir.join("skep.key");
        std::fs::write(&key, &secret)?;
        let ip = address.ip();
        let folder = dir.display();
        let mut config = format!(
            "options {{ directory \"{folder}\"; pid-file none; session-keyfile none; recursion yes;\n\
             dnssec-validation no; listen-on {{ {ip}; }}; listen-on-v6 {{ none; }}; }};\n\
             controls {{ }};\n\
             key \"{KEY}\" {{ algorithm hmac-sha256; secret \"{secret}\"; }};\n"
        );
        for (zone, lines) in zones {
            let text = format!(
                "$TTL 60\n@ IN SOA ns ops 1 3600 600 86400 60\n@ IN NS ns\nns IN A {ip}\n{lines}\n"
            );
            std::fs::write(dir.join(zone), text)?;
            config.push_str(&format!(
                "zone \"{zone}\" {{ type primary; file \"{zone}\"; allow-update {{ key {KEY}; }}; }};\n"
            ));
        }
        let file = dir.join("named.conf");
        std::fs::write(&file, config)?;
        let process = Process::new("named", &program, dir.join("named.log"));
        let process = process.args(["-g".into(), "-c".into(), file.into_os_string()]);
        // It listens at addresses of interfaces alone.
        let given = Given::to_loopback(ip)?;
        process.start().await?;
        let bind = Self {
            process,
            _given: given,
            address,
            key,
        };
        let (first, _) = zones.first().context("a zone")?;
        let answers = wait::until_ok("BIND", START, async || bind.texts(first).await);
        answers.await.with_context(|| bind.log())?;
        Ok(bind)
    }

    /// The texts that it has at a name.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn texts(&self, name: &str) -> Result<Vec<String>> {
        let name = Name::from_ascii(format!("{name}."))?;
        let runtime = TokioRuntimeProvider::new();
        let udp = UdpClientStream::builder(self.address, runtime).build();
        let (mut client, background) = Client::<TokioRuntimeProvider>::from_sender(udp);
        let answer = tokio::select! {
            answer = client.query(name, DNSClass::IN, RecordType::TXT) => answer?,
            _ = background => anyhow::bail!("not asked"),
        };
        let code = answer.metadata.response_code;
        ensure!(
            matches!(code, ResponseCode::NoError | ResponseCode::NXDomain),
            "it answers {code}"
        );
        let texts = answer.answers.iter().filter_map(|it| match &it.data {
            RData::TXT(text) => String::from_utf8(text.txt_data.concat()).ok(),
            _ => None,
        });
        Ok(texts.collect())
    }

    /// What it logged: each update, too.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Ends it.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn stop(&self) -> Result<()> {
        self.process.kill().await
    }
}
