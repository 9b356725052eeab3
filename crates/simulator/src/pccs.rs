//! A cache of collateral (PCCS) for tests, which answers like a genuine one, or as badly as a test
//! needs.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use convelo_attest::{Collateral, Tee};
use serde_json::Value;

use crate::{CollateralKnobs, Platform};

/// How the cache answers.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a knob of its own")]
pub struct PccsKnobs {
    /// What the collateral says.
    pub collateral: CollateralKnobs,
    /// Answers every request with this status and no collateral.
    pub status: Option<u16>,
    /// Does so only for the first requests.
    pub failing_first: usize,
    /// Waits this long before each answer.
    pub delay: Option<Duration>,
    /// Cuts every body to half of its stated length.
    pub truncated: bool,
    /// Sends the PCK CA's chain as the TCB signer's.
    pub wrong_chain: bool,
    /// Sends revocation lists in DER instead of hexadecimal digits.
    pub der: bool,
    /// Answers requests for the root's revocation list like Intel's own service, which has no such
    /// route.
    pub no_root_crl: bool,
    /// Sends this many bytes more than any genuine answer has.
    pub oversize: usize,
}

/// A running cache; it stops when dropped.
pub struct Pccs {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    platform: Arc<Platform>,
    knobs: Mutex<PccsKnobs>,
    requests: AtomicUsize,
    stopped: AtomicBool,
}

impl Pccs {
    /// Listens on `address`, `127.0.0.1:0` for a free port.
    ///
    /// # Errors
    /// The operating system's.
    pub fn start(address: &str, platform: Arc<Platform>, knobs: PccsKnobs) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            platform,
            knobs: Mutex::new(knobs),
            requests: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        thread::Builder::new().name("pccs".to_owned()).spawn(move || {
            for connection in listener.incoming() {
                if serving.stopped.load(Ordering::Acquire) {
                    return;
                }
                let (Ok(connection), shared) = (connection, Arc::clone(&serving)) else { continue };
                thread::spawn(move || shared.answer(connection));
            }
        })?;
        Ok(Self { address, shared })
    }

    /// Its address, as people write it in `--pccs`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many requests have arrived.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Acquire)
    }

    /// The collateral it hands out now.
    pub fn collateral(&self) -> Collateral {
        let knobs = self.shared.knobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.shared.platform.collateral(&knobs.collateral)
    }

    /// Changes how it answers from now on.
    pub fn turn(&self, change: impl FnOnce(&mut PccsKnobs)) {
        change(&mut self.shared.knobs.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Pccs {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        // Wakes the listener, which sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Shared {
    fn answer(&self, mut connection: TcpStream) {
        let Ok(path) = request(&connection) else { return };
        let count = self.requests.fetch_add(1, Ordering::AcqRel);
        let knobs = self.knobs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(delay) = knobs.delay {
            thread::sleep(delay);
        }
        let failing = knobs.failing_first > 0 && count < knobs.failing_first;
        let broken = knobs.status.filter(|_| failing || knobs.failing_first == 0);
        let answer = match broken {
            Some(status) => Answer { status, headers: Vec::new(), body: b"no".to_vec() },
            None => self.route(&path, &knobs),
        };
        let mut body = answer.body;
        body.resize(body.len() + knobs.oversize, b' ');
        let mut head =
            format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\n", answer.status, body.len());
        for (name, value) in answer.headers {
            head += name;
            head += ": ";
            head += &value;
            head += "\r\n";
        }
        head += "Connection: close\r\n\r\n";
        let sent = if knobs.truncated { body.len() / 2 } else { body.len() };
        let _ = connection.write_all(head.as_bytes());
        let _ = connection.write_all(&body[..sent]);
    }

    fn route(&self, path: &str, knobs: &PccsKnobs) -> Answer {
        let absent = |status| Answer { status, headers: Vec::new(), body: Vec::new() };
        let (route, tee) = if let Some(route) = path.strip_prefix("/sgx/certification/v4/") {
            (route, Tee::Sgx)
        } else if let Some(route) = path.strip_prefix("/tdx/certification/v4/") {
            (route, Tee::Tdx)
        } else {
            return absent(if path.starts_with("/sgx/certification/v3/") { 410 } else { 404 });
        };
        let of_tee = CollateralKnobs { tee, ..knobs.collateral.clone() };
        let collateral = self.platform.collateral(&of_tee);
        let bundle: Value = serde_json::from_str(&collateral.to_json()).unwrap_or_default();
        let text = |name: &str| bundle[name].as_str().unwrap_or_default().to_owned();
        let chain = |name: &str| {
            let name = if knobs.wrong_chain { "pck_crl_issuer_chain" } else { name };
            percent_encoded(&text(name))
        };
        let signed = |member: &str, name: &str| {
            let (value, signature) = (text(name), text(&format!("{name}_signature")));
            format!("{{\"{member}\":{value},\"signature\":\"{signature}\"}}").into_bytes()
        };
        let list = |name: &str| {
            let digits = text(name);
            if knobs.der { hex::decode(&digits).unwrap_or_default() } else { digits.into_bytes() }
        };
        let (route, query) = route.split_once('?').unwrap_or((route, ""));
        match route {
            "tcb" if query.contains(&hex::encode(collateral.fmspc())) => Answer {
                status: 200,
                headers: vec![("TCB-Info-Issuer-Chain", chain("tcb_info_issuer_chain"))],
                body: signed("tcbInfo", "tcb_info"),
            },
            "qe/identity" => Answer {
                status: 200,
                headers: vec![(
                    "SGX-Enclave-Identity-Issuer-Chain",
                    chain("qe_identity_issuer_chain"),
                )],
                body: signed("enclaveIdentity", "qe_identity"),
            },
            "pckcrl" => Answer {
                status: 200,
                headers: vec![("SGX-PCK-CRL-Issuer-Chain", chain("pck_crl_issuer_chain"))],
                body: list("pck_crl"),
            },
            "rootcacrl" if !knobs.no_root_crl => {
                Answer { status: 200, headers: Vec::new(), body: list("root_ca_crl") }
            }
            _ => absent(404),
        }
    }
}

/// The path of a request, which has no body.
fn request(connection: &TcpStream) -> io::Result<String> {
    const LONGEST: u64 = 8192;
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut lines = BufReader::new(connection.take(LONGEST)).lines();
    let first = lines.next().ok_or(io::ErrorKind::UnexpectedEof)??;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    Ok(first.split(' ').nth(1).unwrap_or_default().to_owned())
}

fn percent_encoded(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
