-- Stores whose entries are held here; one of them is this one.
CREATE TABLE stores (
    id TEXT PRIMARY KEY,
    is_own BIGINT NOT NULL,
    upto BIGINT NOT NULL,
    newest_ms BIGINT NOT NULL,
    carried_ms BIGINT NOT NULL
);

-- What is copied between stores: audit, steps, and where build logs are. Append-only.
CREATE TABLE journal (
    store TEXT NOT NULL,
    seq BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    kind TEXT NOT NULL,
    deployment TEXT NOT NULL,
    position BIGINT NOT NULL,
    server TEXT NOT NULL,
    text TEXT NOT NULL,
    principal TEXT NOT NULL,
    action TEXT NOT NULL,
    resource TEXT NOT NULL,
    outcome TEXT NOT NULL,
    PRIMARY KEY (store, seq)
);

CREATE INDEX journal_by_age ON journal (kind, at_ms);

CREATE INDEX journal_by_deployment ON journal (deployment, kind, position);
