//! Nomad's benchmark, case by case, under Criterion: one full plan from nothing, one thread. The
//! results are checked before they are timed.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use skep_scheduler_bench::nomad::Case;

fn nomad_parity(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("nomad_parity");
    for case in Case::all().filter(|case| case.racks == 50) {
        let cluster = case.cluster();
        let job = case.job().expect("its rules are understood");
        let plan = job.plan(&cluster, 0);
        case.check(&cluster, &plan)
            .expect("the plan is what the job asks for");
        group.throughput(Throughput::Elements(plan.starts.len() as u64));
        let name = format!("{}n_{}r", case.nodes, case.racks);
        let count = format!("{}a_{}", case.allocations, case.spread);
        group.bench_function(BenchmarkId::new(name, count), |bencher| {
            bencher.iter_batched(|| (), |()| job.plan(&cluster, 0), BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group!(benches, nomad_parity);
criterion_main!(benches);
