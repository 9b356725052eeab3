//! One party's transport, as Python sees it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use convelo_channel::{Credential, Expect, PeerTls, Roots};
use convelo_pool::{
    Node as Transport, NodeConfig, Notice, Observer, Payload, PeerConfig, PeerIdentity, Receipt,
    SendOptions, Wire, WireChoice,
};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::completions::{Completion, Completions, Queue, Slot, Tokens, receive_error};
use crate::message::{self, Objects};
use crate::runtime::runtime;

/// How long a message may take to get from its mailbox to the queue.
const HANDING_OVER: Duration = Duration::from_millis(20);

/// How many notices wait for a loop that could hear them.
const EARLY_NOTICES: usize = 64;

/// See the stub file.
#[pyclass(frozen, module = "convelo._convelo")]
pub(crate) struct Node {
    transport: Transport,
    tls: bool,
    authorities: bool,
    text_ids: bool,
    tokens: Tokens,
    home: Arc<Home>,
}

/// See the stub file.
#[pyclass(frozen, module = "convelo._convelo")]
pub(crate) struct PeerHandle(convelo_pool::PeerHandle);

/// Where notices go: the loop that uses the node.
#[derive(Default)]
struct Home {
    queue: Mutex<Option<Arc<Queue>>>,
    early: Mutex<Vec<Notice>>,
    hook: Option<Arc<Py<PyAny>>>,
}

impl Home {
    fn notice(&self, notice: Notice) {
        let Some(hook) = &self.hook else { return };
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = &*queue {
            queue.push(Completion::Notice(Arc::clone(hook), notice));
            return;
        }
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        if early.len() < EARLY_NOTICES {
            early.push(notice);
        }
    }

    fn is_at(&self, queue: &Arc<Queue>) {
        let mut home = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if home.as_ref().is_some_and(|home| Arc::ptr_eq(home, queue)) {
            return;
        }
        *home = Some(Arc::clone(queue));
        let early = std::mem::take(&mut *self.early.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(hook) = &self.hook {
            for notice in early {
                queue.push(Completion::Notice(Arc::clone(hook), notice));
            }
        }
    }
}

#[pymethods]
impl Node {
    #[new]
    #[pyo3(signature = (*, key=None, certificate=None, authorities=None, mailbox_limit=None,
                        message_limit=None, text_ids=false, on_notice=None))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn new(
        py: Python<'_>,
        key: Option<&[u8]>,
        certificate: Option<&[u8]>,
        authorities: Option<&[u8]>,
        mailbox_limit: Option<u64>,
        message_limit: Option<u64>,
        text_ids: bool,
        on_notice: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let wrong =
            |error: convelo_channel::CredentialError| PyValueError::new_err(error.to_string());
        let roots = authorities.map(Roots::from_pem).transpose().map_err(wrong)?;
        let with_roots = roots.is_some();
        let tls = match (key, certificate) {
            (Some(key), Some(certificate)) => {
                let credential = Credential::from_pem(key, certificate).map_err(wrong)?;
                Some(PeerTls::new(credential, roots))
            }
            (None, None) if roots.is_none() => None,
            _ => {
                return Err(PyValueError::new_err(
                    "mutual TLS needs a key and its certificate: give both, or neither and no \
                     authority for plain HTTP",
                ));
            }
        };
        let home = Arc::new(Home { hook: on_notice.map(Arc::new), ..Home::default() });
        let observer: Observer = {
            let home = Arc::clone(&home);
            Arc::new(move |notice| home.notice(notice))
        };
        let mut config = NodeConfig {
            memory: Arc::new(Objects),
            observer: Some(observer),
            ..NodeConfig::default()
        };
        let with_tls = tls.is_some();
        config.tls = tls;
        config.mailbox_bytes = mailbox_limit.unwrap_or(config.mailbox_bytes);
        config.message_bytes = message_limit;
        Ok(Self {
            transport: Transport::new(config, runtime(py)?),
            tls: with_tls,
            authorities: with_roots,
            text_ids,
            tokens: Tokens::default(),
            home,
        })
    }

    fn notify(&self, completions: &Bound<'_, Completions>) {
        self.home.is_at(completions.get().queue());
    }

    #[pyo3(signature = (host, port, advertised_port=None))]
    fn listen(&self, host: &str, port: u16, advertised_port: Option<u16>) -> PyResult<u16> {
        self.transport.listen(host, port, advertised_port).map_err(|error| {
            let text = format!("cannot listen on {host}:{port}: {error}");
            match error.raw_os_error() {
                Some(code) => PyOSError::new_err((code, text)),
                None => PyOSError::new_err(text),
            }
        })
    }

    #[pyo3(signature = (name, host, port, *, wire=0, compatible=4, certificate=None, key=None,
                        trust_first=false))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn add_peer(
        &self,
        name: String,
        host: String,
        port: u16,
        wire: u8,
        compatible: u8,
        certificate: Option<&[u8]>,
        key: Option<&str>,
        trust_first: bool,
    ) -> PyResult<PeerHandle> {
        let choice = match wire {
            0 => WireChoice::Ask(wire_of(compatible)?),
            wire => WireChoice::Only(wire_of(wire)?),
        };
        let identity = self.identity(&name, certificate, key, trust_first)?;
        let text_ids = self.text_ids || choice == WireChoice::Only(Wire::Five);
        let config = PeerConfig { name, host, port, wire: choice, identity, text_ids };
        Ok(PeerHandle(self.transport.add_peer(config)))
    }

    fn prepare<'py>(
        &self,
        py: Python<'py>,
        completions: &Bound<'py, Completions>,
        peer: &PeerHandle,
        timeout: Option<f64>,
        retries: i64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let options = options(timeout, retries)?;
        let completions = completions.get();
        let (future, queue) = (completions.future(py)?, Arc::clone(completions.queue()));
        self.home.is_at(&queue);
        let (waiting, its) = (future.clone().unbind(), peer.0.clone());
        let done = Box::new(move |result| {
            queue.push(Completion::Prepared(waiting, its, result));
        });
        peer.0.prepare(options, done);
        Ok(future)
    }

    #[expect(clippy::too_many_arguments, reason = "positional arguments are the cheapest call")]
    fn send<'py>(
        &self,
        py: Python<'py>,
        completions: &Bound<'py, Completions>,
        peer: &PeerHandle,
        message_id: &Bound<'py, PyAny>,
        wire: u8,
        value: &Bound<'py, PyAny>,
        buffers: &Bound<'py, PyAny>,
        timeout: Option<f64>,
        retries: i64,
    ) -> PyResult<Bound<'py, PyAny>> {
        message::bury(py);
        let options = options(timeout, retries)?;
        let id = (!message_id.is_none()).then(|| message::id_of(message_id)).transpose()?;
        let mut payload = Payload { parts: message::pieces_of(value)?, buffers: Vec::new() };
        if !buffers.is_none() {
            payload.buffers = buffers
                .try_iter()?
                .map(|buffer| message::bytes_of(&buffer?))
                .collect::<PyResult<_>>()?;
        }
        let (home, completions) = (completions, completions.get());
        let (future, queue) = (completions.future(py)?, Arc::clone(completions.queue()));
        self.home.is_at(&queue);
        let waiting = future.clone().unbind();
        let done = Box::new(move |result| queue.push(Completion::Sent(waiting, result)));
        let options = SendOptions { corked: true, ..options };
        if peer.0.send(id, wire_of(wire)?, payload, options, done) {
            Completions::flush_soon(home, &peer.0)?;
        }
        Ok(future)
    }

    fn recv<'py>(
        &self,
        py: Python<'py>,
        completions: &Bound<'py, Completions>,
        peer: &PeerHandle,
        message_id: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let id = (!message_id.is_none()).then(|| message::id_of(message_id)).transpose()?;
        let completions = completions.get();
        self.home.is_at(completions.queue());
        let mut waiting: Option<Slot> = None;
        // No Python code may run inside: the mailbox is locked. The future is made afterwards; the
        // queue is drained on this very thread, so it is there in time.
        let receipt = peer.0.receive(id, || {
            let slot = Slot::default();
            waiting = Some(Arc::clone(&slot));
            let (queue, its) = (Arc::clone(completions.queue()), peer.0.clone());
            let tokens = self.tokens.clone();
            Box::new(move |result| {
                queue.push(Completion::Received(slot, tokens, its, result));
                None
            })
        });
        match receipt {
            Receipt::Now(incoming) => Ok(message::to_python(py, incoming)?.into_any()),
            Receipt::Failed(error) => Err(receive_error(py, &error)),
            Receipt::Waiting(token) => {
                let future = completions.receipt(py)?;
                self.tokens.insert(&future, (token, Arc::clone(completions.queue())));
                if let Some(slot) = waiting {
                    let _ = slot.set(future.clone().unbind());
                }
                Ok(future)
            }
        }
    }

    fn cancel_recv(&self, future: &Bound<'_, PyAny>) -> PyResult<()> {
        future.call_method0(pyo3::intern!(future.py(), "cancel"))?;
        let Some((token, queue)) = self.tokens.take(future) else { return Ok(()) };
        if token.cancel() {
            return Ok(());
        }
        // Its message has left the mailbox and is in the queue, or soon will be. It is put back
        // before anybody asks for the next one.
        let began = Instant::now();
        loop {
            if let Some(result) = queue.withdraw(future) {
                if let Ok(incoming) = result {
                    token.put_back(incoming);
                }
                return Ok(());
            }
            if began.elapsed() > HANDING_OVER {
                self.tokens.insert(future, (token, queue));
                return Ok(());
            }
            std::thread::yield_now();
        }
    }

    fn close<'py>(
        &self,
        py: Python<'py>,
        completions: &Bound<'py, Completions>,
        flush: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let flush = seconds(flush)?;
        let completions = completions.get();
        let (future, queue) = (completions.future(py)?, Arc::clone(completions.queue()));
        let (waiting, node) = (future.clone().unbind(), self.transport.clone());
        runtime(py)?.spawn(async move {
            let dropped = node.close(flush).await;
            queue.push(Completion::Closed(waiting, dropped));
        });
        Ok(future)
    }

    fn abort(&self) {
        self.transport.abort();
    }

    #[getter]
    fn port(&self) -> Option<u16> {
        self.transport.port()
    }

    #[getter]
    fn fingerprint(&self) -> Option<String> {
        self.transport.key_id().map(|key| format!("sha256:{}", hex::encode(key)))
    }
}

#[pymethods]
impl PeerHandle {
    fn forget(&self) {
        self.0.forget();
    }

    fn reset(&self) {
        self.0.reset();
    }

    fn wire(&self) -> u8 {
        self.0.wire().map_or(0, Wire::number)
    }

    fn set_prefix(&self, prefix: &str) {
        self.0.set_prefix(prefix);
    }

    fn counters(&self) -> (u64, u64) {
        self.0.counters()
    }

    fn parked<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let parked = self.0.parked();
        let ids: PyResult<Vec<_>> = parked.iter().map(|id| message::id_to_python(py, id)).collect();
        PyList::new(py, ids?)
    }
}

impl Node {
    fn identity(
        &self,
        name: &str,
        certificate: Option<&[u8]>,
        key: Option<&str>,
        trust_first: bool,
    ) -> PyResult<PeerIdentity> {
        if !self.tls {
            if certificate.is_some() || key.is_some() {
                return Err(PyValueError::new_err(format!(
                    "'{name}' has a certificate or key, but this pool has none: it speaks plain \
                     HTTP and cannot check either"
                )));
            }
            return Ok(PeerIdentity::InsecureOrigin);
        }
        let expect = match (certificate, key) {
            (Some(_), Some(_)) => {
                return Err(PyValueError::new_err("give a certificate or a key, not both"));
            }
            (Some(certificate), None) => Expect::certificate(certificate)
                .map_err(|error| PyValueError::new_err(error.to_string()))?,
            (None, Some(key)) => Expect::Key(key_of(key)?),
            (None, None) if self.authorities && trust_first => return Ok(PeerIdentity::FirstKey),
            (None, None) if self.authorities => return Ok(PeerIdentity::SendOnly),
            (None, None) => {
                return Err(PyValueError::new_err(format!(
                    "'{name}' has neither certificate nor key, and this pool has no authority: \
                     there is no way to tell who it is"
                )));
            }
        };
        Ok(PeerIdentity::Proven(Arc::new(expect)))
    }
}

fn key_of(text: &str) -> PyResult<[u8; 32]> {
    let wrong = || {
        PyValueError::new_err(
            "expected a key of the form 'sha256:' and 64 hexadecimal digits: the SHA-256 of its \
             SubjectPublicKeyInfo, as convelo keygen and convelo.pki print it",
        )
    };
    let digits = text.strip_prefix("sha256:").ok_or_else(wrong)?;
    let mut key = [0; 32];
    hex::decode_to_slice(digits, &mut key).map_err(|_| wrong())?;
    Ok(key)
}

fn wire_of(number: u8) -> PyResult<Wire> {
    match number {
        2 => Ok(Wire::Two),
        4 => Ok(Wire::Four),
        5 => Ok(Wire::Five),
        _ => Err(PyValueError::new_err(format!("there is no wire {number}: expected 2, 4 or 5"))),
    }
}

/// Negative retries mean no limit.
fn options(timeout: Option<f64>, retries: i64) -> PyResult<SendOptions> {
    let patience = (retries >= 0).then(|| u32::try_from(retries).unwrap_or(u32::MAX));
    Ok(SendOptions { timeout: timeout.map(seconds).transpose()?, patience, corked: false })
}

fn seconds(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| PyValueError::new_err(format!("expected a time in seconds, not {seconds}")))
}
