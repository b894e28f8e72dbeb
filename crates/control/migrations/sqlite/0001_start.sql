-- Times are milliseconds since the Unix epoch; hashes are hexadecimal; JSON is text.

create table settings (
    key text primary key not null,
    value text not null
) strict, without rowid;

create table audit (
    number integer primary key not null,
    at_ms integer not null,
    who text not null,
    origin text,
    verb text not null,
    object text not null,
    before text,
    after text
) strict;
create index audit_object on audit (object, number);
create index audit_who on audit (who, number);

create table tokens (
    name text primary key not null,
    role text not null,
    hash text not null unique,
    created_ms integer not null,
    expires_ms integer,
    used_ms integer,
    revoked_ms integer
) strict, without rowid;

create table sessions (
    hash text primary key not null,
    token text not null references tokens (name) on delete cascade,
    csrf text not null,
    expires_ms integer not null
) strict, without rowid;

create table programs (
    name text primary key not null,
    revision integer not null,
    sha256 text not null,
    bytes integer not null,
    uploaded_ms integer not null,
    uploaded_by text not null,
    summary text not null
) strict, without rowid;

-- By hash: whatever a program or a record names is here, whether or not the blob store has it.
create table objects (
    sha256 text primary key not null,
    bytes integer not null,
    data blob not null,
    added_ms integer not null,
    unneeded_ms integer
) strict;

create table policies (
    name text primary key not null,
    revision integer not null,
    updated_ms integer not null,
    updated_by text not null,
    spec text not null
) strict, without rowid;

create table nodes (
    name text primary key not null,
    revision integer not null,
    labels text not null,
    created_ms integer not null,
    token_hash text unique,
    token_expires_ms integer,
    enrolled_ms integer,
    credential_hash text unique,
    seen_ms integer,
    standing text,
    courier text
) strict;

-- What a report leaves out is as it was: the columns of the one before stay.
create table reports (
    node text primary key not null references nodes (name) on delete cascade,
    at_ms integer not null,
    courier text not null,
    status text,
    counters text,
    counters_ms integer,
    counters_before text
) strict;

-- The generation of a node that left stays, so that one that comes back goes on from there.
create table records (
    node text primary key not null,
    generation integer not null,
    digest text,
    record blob,
    snapshot integer not null,
    at_ms integer not null
) strict;

create table snapshots (
    number integer primary key not null,
    at_ms integer not null,
    published_by text not null,
    cause text not null,
    nodes integer not null,
    changed integer not null,
    shards text not null,
    bytes_written integer not null,
    latest_ms integer
) strict;
