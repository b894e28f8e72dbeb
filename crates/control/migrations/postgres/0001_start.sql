-- Times are milliseconds since the Unix epoch; hashes are hexadecimal; JSON is text.

create table settings (
    key text collate "C" primary key not null,
    value text collate "C" not null
);

create table audit (
    number bigint primary key not null,
    at_ms bigint not null,
    who text collate "C" not null,
    origin text collate "C",
    verb text collate "C" not null,
    object text collate "C" not null,
    before text collate "C",
    after text collate "C"
);
create index audit_object on audit (object, number);
create index audit_who on audit (who, number);

create table tokens (
    name text collate "C" primary key not null,
    role text collate "C" not null,
    hash text collate "C" not null unique,
    created_ms bigint not null,
    expires_ms bigint,
    used_ms bigint,
    revoked_ms bigint
);

create table sessions (
    hash text collate "C" primary key not null,
    token text collate "C" not null references tokens (name) on delete cascade,
    csrf text collate "C" not null,
    expires_ms bigint not null
);

create table programs (
    name text collate "C" primary key not null,
    revision bigint not null,
    sha256 text collate "C" not null,
    bytes bigint not null,
    uploaded_ms bigint not null,
    uploaded_by text collate "C" not null,
    summary text collate "C" not null
);

-- By hash: whatever a program or a record names is here, whether or not the blob store has it.
create table objects (
    sha256 text collate "C" primary key not null,
    bytes bigint not null,
    data bytea not null,
    added_ms bigint not null,
    unneeded_ms bigint
);

create table policies (
    name text collate "C" primary key not null,
    revision bigint not null,
    updated_ms bigint not null,
    updated_by text collate "C" not null,
    spec text collate "C" not null
);

create table nodes (
    name text collate "C" primary key not null,
    revision bigint not null,
    labels text collate "C" not null,
    created_ms bigint not null,
    token_hash text collate "C" unique,
    token_expires_ms bigint,
    enrolled_ms bigint,
    credential_hash text collate "C" unique,
    seen_ms bigint,
    standing text collate "C",
    courier text collate "C"
);

-- What a report leaves out is as it was: the columns of the one before stay.
create table reports (
    node text collate "C" primary key not null references nodes (name) on delete cascade,
    at_ms bigint not null,
    courier text collate "C" not null,
    status text collate "C",
    counters text collate "C",
    counters_ms bigint,
    counters_before text collate "C"
);

-- The generation of a node that left stays, so that one that comes back goes on from there.
create table records (
    node text collate "C" primary key not null,
    generation bigint not null,
    digest text collate "C",
    record bytea,
    snapshot bigint not null,
    at_ms bigint not null
);

create table snapshots (
    number bigint primary key not null,
    at_ms bigint not null,
    published_by text collate "C" not null,
    cause text collate "C" not null,
    nodes bigint not null,
    changed bigint not null,
    shards text collate "C" not null,
    bytes_written bigint not null,
    latest_ms bigint
);
