//! What the autoscaler promises on the built-in series. The simulation is exact, so counts are
//! asserted.

use skep_scheduler_bench::autoscale::report::Row;
use skep_scheduler_bench::autoscale::service::{Service, run};
use skep_scheduler_bench::autoscale::{all, load};

#[test]
fn the_published_series_keep_what_is_promised() {
    for load in load::built_in(load::SEED) {
        for start_up_s in [5, 30, 90] {
            let service = Service {
                capacity: 10.0,
                start_up_s,
                begins_with: load.begins_with(7.0),
            };
            let outcomes: Vec<_> = all(7.0, 1_000)
                .iter_mut()
                .map(|scaler| {
                    let name = scaler.name();
                    (name, run(&service, &load.arrivals, scaler.as_mut()))
                })
                .collect();
            let ours = outcomes[0].1;
            if load.name == "poisson" {
                assert_eq!(ours.changes, 0, "steady load changes nothing");
            }
            let row = Row {
                load: load.name.clone(),
                start_up_s,
                outcomes,
            };
            let shortfalls = row.shortfalls();
            assert!(shortfalls.is_empty(), "{row:?}: {shortfalls:?}");
        }
    }
}
