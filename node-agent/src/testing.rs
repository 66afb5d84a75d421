//! Values for tests.

use std::path::Path;

use skep_ingress::files;
use skep_model::allocation::Desired;
use skep_model::assignment::{Assignment, Names};
use skep_model::container::Container;
use skep_model::health::Health;
use skep_model::hooks::Hooks;
use skep_model::id::{AllocationId, DeploymentId, ServiceId};
use skep_model::service::{Image, Target};
use skep_model::spec::{Resources, Restart};

/// An assignment that wants to run.
pub(crate) fn assignment(id: u128) -> Assignment {
    Assignment {
        allocation: AllocationId::from_u128(id),
        service: ServiceId::from_u128(1),
        service_label: "web-production-shop".into(),
        names: Names {
            project: "shop".into(),
            environment: "production".into(),
            service: "web".into(),
        },
        target: Target {
            release: 1,
            deployment: DeploymentId::from_u128(2),
        },
        desired: Desired::Run,
        image: Image {
            reference: "app:1".into(),
            digest: format!("sha256:{id:064}"),
            node: None,
            shared: false,
            bundle: false,
            pushed: None,
        },
        port: None,
        environment: vec![("A".into(), "secret".into())],
        command: Vec::new(),
        resources: Resources::default(),
        health: Health::default(),
        restart: Restart::default(),
        stop_grace_ms: 10_000,
        job: None,
        stop_after_ms: None,
        ports: Vec::new(),
        dynamic_ports: 0,
        devices: Default::default(),
        storage: Default::default(),
        container: Container::default(),
        hooks: Hooks::default(),
        image_peers: Vec::new(),
        workspace: None,
        network: None,
    }
}

/// Options of an agent that is never started.
pub(crate) fn options() -> crate::Options {
    crate::Options {
        data_dir: "/nonexistent".into(),
        server: "127.0.0.1:1".into(),
        join_token: None,
        name: "n1".into(),
        docker_socket: "/nonexistent".into(),
        net_socket: "/nonexistent".into(),
        metrics_addr: ([127, 0, 0, 1], 0).into(),
        stop_on_exit: false,
        builder: true,
        tools: Default::default(),
        meta: Default::default(),
        images: Default::default(),
        memory_bytes: None,
        moved: false,
        devices: Default::default(),
        host_paths: Vec::new(),
        shared_storage: Default::default(),
        secrets_dir: "/nonexistent".into(),
        volume_command: None,
        log_budget_bytes: crate::options::LOG_BUDGET_BYTES,
        ship_logs_to: Vec::new(),
        private_network: None,
    }
}

/// Makes `folder` one of a bundle with these files.
pub(crate) fn unpack(folder: &Path, files: &[(&str, &str)]) {
    std::fs::create_dir_all(folder).expect("a folder");
    let file = |(content, (path, text)): (u32, &(&str, &str))| {
        std::fs::write(folder.join(files::content_name(content)), text).expect("written");
        let file = files::File {
            content,
            size: text.len() as u64,
            sha256: format!("{content:064x}"),
            gzip: None,
        };
        ((*path).to_owned(), file)
    };
    let index = files::Index {
        format: files::FORMAT,
        site: files::Site::default(),
        files: (1..).zip(files).map(file).collect(),
    };
    let text = serde_json::to_vec(&index).expect("JSON");
    std::fs::write(folder.join(files::INDEX), text).expect("written");
}
