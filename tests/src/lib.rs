//! The harness of the end-to-end tests and benches: clusters made of the real `skep` binary on
//! real Docker, driven from outside as a user would. Knows nothing of the insides of Skep.

pub mod alone;
pub mod api;
pub mod app;
pub mod bind;
pub mod chaos;
pub mod cluster;
pub mod containers;
pub mod crash;
pub mod docker_proxy;
pub mod dockerd;
pub mod etcd;
pub mod figures;
pub mod fire;
pub mod flood;
pub mod forge;
pub mod git;
pub mod github;
pub mod http;
pub mod lab;
pub mod listener;
pub mod load;
pub mod objects;
pub mod pebble;
pub mod pki;
pub mod place;
pub mod postgres;
pub mod process;
pub mod random;
pub mod receiver;
pub mod register;
pub mod registry;
pub mod room;
pub mod servers;
pub mod skep;
pub mod storm;
pub mod talk;
pub mod tls;
pub mod traefik;
pub mod wait;
pub mod webhook;
pub mod writer;

pub use cluster::{
    Cluster, with_cluster, with_cluster_alone, with_cluster_on, with_cluster_set,
    with_cluster_that_waits,
};
