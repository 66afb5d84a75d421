//! The whole way: a file in, services and reports out.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Import, Input, Origin, Outcome, import};

fn read(text: &str) -> Import {
    let input = Input {
        text,
        variables: &BTreeMap::new(),
        profiles: &BTreeSet::new(),
        read: &|_| Ok(None),
    };
    import(&input).expect("accepted")
}

#[test]
fn services_come_in_order_and_what_has_no_counterpart_is_told() {
    let import = read(
        "services:\n  web:\n    image: shop:1\n    ports: [\"8080:80\"]\n    depends_on: [db]\n    privileged: true\n    \
         typo: 1\n    volumes: [\"/var/run/docker.sock:/s\", \"../up:/up\"]\n  db:\n    image: postgres:16\n    volumes: \
         [\"data:/var/lib/data\"]\nvolumes:\n  data:\n",
    );
    let names: Vec<_> = import.services.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["db", "web"]);
    assert_eq!(import.services[1].origin, Origin::Image("shop:1".into()));
    assert_eq!(import.services[1].spec.port, Some(80));
    assert_eq!(import.services[0].spec.storage.volumes[0].name, "data");
    let left = import
        .reports
        .iter()
        .filter(|it| it.outcome == Outcome::Left);
    let left: Vec<_> = left.map(|it| it.path.as_str()).collect();
    let wanted = ["privileged", "typo", "volumes[0]", "volumes[1]"];
    assert_eq!(left, wanted.map(|key| format!("services.web.{key}")));
}
