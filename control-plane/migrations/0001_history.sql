-- One statement each that SQLite and PostgreSQL both take: BIGINT milliseconds, TEXT ids.
CREATE TABLE deployment_events (
    deployment TEXT NOT NULL,
    seq BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL,
    origin TEXT NOT NULL,
    origin_seq BIGINT NOT NULL,
    PRIMARY KEY (deployment, seq),
    UNIQUE (deployment, origin, origin_seq)
);

CREATE TABLE audit (
    id TEXT PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    principal TEXT NOT NULL,
    action TEXT NOT NULL,
    resource TEXT NOT NULL,
    outcome TEXT NOT NULL
);
