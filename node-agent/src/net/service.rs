//! What the agent calls: tables in, progress out.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use skep_proto::v1::net_server::Net;
use skep_proto::v1::{
    CertificateList, Certified, ChallengeList, Challenged, Identified, IngressReading, LeaseTerm,
    MeasureRequest, NetStatus, NodeCredentials, NodeTable, Published, Renewed, WatchRequest,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::measure::{self, Life};
use super::table::Tables;

/// Progress that waits for its reader; only the newest matters, so one is enough.
const STATUS_QUEUE: usize = 1;
/// Readings that wait for their reader: the next one has all that one more would have.
const READING_QUEUE: usize = 1;

/// Where this process serves.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// Apps, in clear.
    pub(super) apps: SocketAddr,
    /// Apps, under TLS.
    pub(super) https: Option<SocketAddr>,
    /// Other nodes.
    pub(super) mesh: SocketAddr,
}

/// The gRPC service.
#[derive(Debug)]
pub(super) struct Service {
    tables: Arc<Tables>,
    places: Places,
    closing: CancellationToken,
    life: Life,
}

impl Service {
    pub(super) fn new(tables: Arc<Tables>, places: Places, closing: CancellationToken) -> Self {
        Self {
            tables,
            places,
            closing,
            life: Life::begin(),
        }
    }

    /// Does `work` for a listener until the process closes.
    fn until_closing(&self, work: impl Future<Output = ()> + Send + 'static) {
        let closing = self.closing.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = closing.cancelled() => {}
                () = work => {}
            }
        });
    }
}

#[tonic::async_trait]
impl Net for Service {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<NetStatus, Status>> + Send>>;
    type MeasureStream = Pin<Box<dyn Stream<Item = Result<IngressReading, Status>> + Send>>;

    async fn identify(
        &self,
        request: Request<NodeCredentials>,
    ) -> Result<Response<Identified>, Status> {
        let tables = Arc::clone(&self.tables);
        let own = request.into_inner();
        let known = tokio::spawn(async move { tables.identify(own).await }).await;
        match known {
            Ok(Ok(())) => Ok(Response::new(Identified {})),
            Ok(Err(error)) => Err(Status::invalid_argument(crate::error_chain(&error))),
            Err(_) => Err(Status::internal("taking the identity panicked")),
        }
    }

    async fn publish(&self, request: Request<NodeTable>) -> Result<Response<Published>, Status> {
        let tables = Arc::clone(&self.tables);
        let message = request.into_inner();
        // A task of its own: what is half done when the caller hangs up would stay half done.
        let taken = tokio::spawn(async move { tables.take(message).await }).await;
        match taken {
            Ok(Ok(())) => Ok(Response::new(Published {})),
            Ok(Err(error)) => Err(Status::invalid_argument(error.to_string())),
            Err(_) => Err(Status::internal("taking the table panicked")),
        }
    }

    async fn certify(
        &self,
        request: Request<CertificateList>,
    ) -> Result<Response<Certified>, Status> {
        let tables = Arc::clone(&self.tables);
        let list = request.into_inner();
        let taken = tokio::spawn(async move { tables.certify(list).await }).await;
        match taken {
            Ok(()) => Ok(Response::new(Certified {})),
            Err(_) => Err(Status::internal("taking the certificates panicked")),
        }
    }

    async fn challenge(
        &self,
        request: Request<ChallengeList>,
    ) -> Result<Response<Challenged>, Status> {
        self.tables.challenge(request.into_inner());
        Ok(Response::new(Challenged {}))
    }

    async fn renew(&self, request: Request<LeaseTerm>) -> Result<Response<Renewed>, Status> {
        let remaining = Duration::from_millis(request.into_inner().remaining_ms.into());
        self.tables.mesh().lease().renew(remaining);
        Ok(Response::new(Renewed {}))
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (sender, receiver) = mpsc::channel(STATUS_QUEUE);
        let follow = follow(Arc::clone(&self.tables), self.places.clone(), sender);
        self.until_closing(follow);
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn measure(
        &self,
        _: Request<MeasureRequest>,
    ) -> Result<Response<Self::MeasureStream>, Status> {
        let (sender, receiver) = mpsc::channel(READING_QUEUE);
        self.until_closing(measure::tell(Arc::clone(&self.tables), self.life, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Sends the progress at once and at every change, until nobody listens.
async fn follow(
    tables: Arc<Tables>,
    places: Places,
    sender: mpsc::Sender<Result<NetStatus, Status>>,
) {
    let mut ingress = tables.ingress().status();
    let mut kept = tables.kept();
    let mut private = tables.private().drained();
    let mut unbound = tables.ingress().unbound_entries();
    let mut fetched = tables.fetched();
    let mut predecessor = tables.predecessor();
    let mut told: Option<NetStatus> = None;
    loop {
        let kept_now = *kept.borrow_and_update();
        let status = *ingress.borrow_and_update();
        fetched.mark_unchanged();
        // What is in flight in the process before is not known: nothing newer is drained.
        let before = predecessor.borrow_and_update().unwrap_or(u64::MAX);
        let (settled, look_again) = tables.settled();
        // A Traefik that has only now come holds back what is next, not what was said.
        let already = told.as_ref().map_or(0, |told| told.drained_sequence);
        let settled = settled.map_or(u64::MAX, |sequence| sequence.max(already));
        let entrances = std::iter::once(places.apps).chain(places.https);
        let entrances = entrances.map(|it| it.to_string());
        let progress = NetStatus {
            // Beyond what is kept, a crash would bring older tables back.
            applied_sequence: status.applied_revision.min(kept_now),
            drained_sequence: status
                .drained_revision
                .min(kept_now)
                .min(*private.borrow_and_update())
                .min(settled)
                .min(before),
            ingress_port: u32::from(places.apps.port()),
            mesh_port: u32::from(places.mesh.port()),
            entrances: entrances.collect(),
            serves_files: true,
            unbound: {
                let unbound = unbound.borrow_and_update();
                unbound.iter().copied().map(u32::from).collect()
            },
        };
        if told.as_ref() != Some(&progress) {
            if sender.send(Ok(progress.clone())).await.is_err() {
                return;
            }
            told = Some(progress);
        }
        let look_again = async {
            match look_again {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let changed = tokio::select! {
            changed = ingress.changed() => changed,
            changed = kept.changed() => changed,
            changed = private.changed() => changed,
            changed = fetched.changed() => changed,
            changed = unbound.changed() => changed,
            changed = changed_or_never(&mut predecessor) => changed,
            () = look_again => Ok(()),
            () = sender.closed() => return,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// A sender that is gone has nothing more to say: there was no process before, or its end was told.
async fn changed_or_never<T>(
    receiver: &mut watch::Receiver<T>,
) -> Result<(), watch::error::RecvError> {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    Ok(())
}
